"""Two desks over real sockets on a real EVM: open, trade, mark, pay, settle, close; and what goes wrong."""

from __future__ import annotations

from channeld.core.wad import parse_decimal
from desk_world import two_desks


async def test_a_channel_from_opening_to_cooperative_close(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        await taker.call("policy_set", peer="maker", auto_accept=True)
        done = await maker.call("trade", channel="taker", legs=[{"instrument": "ETH-PERP", "size": "10", "price": "3000"}])
        assert done["status"] == "done", done
        await world.advance(120)
        await maker.until(lambda: maker.node.actors and _marked(maker), "a mark")
        paid = await maker.call("transfer", channel="taker", amount="12.5", memo="fee")
        assert paid["version"] > done["version"]
        back = await maker.call("trade", channel="taker", legs=[{"instrument": "ETH-PERP", "size": "-10", "price": "3010"}])
        assert back["status"] == "done", back
        audit = await taker.call("audit", channel="maker")
        assert audit["replayed"]
        await taker.call("close", channel="maker")
        for desk in (maker, taker):
            await desk.until(lambda d=desk: world.status(d, "closed"), "the close")
        paid = await world.paid()
        assert paid == {side: parse_decimal(audit["expected"][side], 6) for side in "ab"}


def _marked(desk):
    actor = next(iter(desk.node.actors.values()))
    return actor.state.body.as_of > 0
