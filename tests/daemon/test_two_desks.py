"""Two desks over real sockets on a real EVM: open, trade, mark, pay, settle, close; and what goes wrong."""

from __future__ import annotations

import pytest
from desk_world import BTC, ETH, TOKENS, two_desks

from channeld.core.acceptance import MarginRefusedError
from channeld.core.settlement import settle_amounts
from channeld.core.wad import WAD, parse_decimal


async def test_a_channel_from_opening_to_cooperative_close(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        await taker.call("policy_set", peer="maker", auto_accept=True)
        done = await maker.call(
            "trade", channel="taker", legs=[{"instrument": "ETH-PERP", "size": "10", "price": "3000"}]
        )
        assert done["status"] == "done", done
        await world.advance(120)
        await maker.until(lambda: maker.node.actors and _marked(maker), "a mark")
        paid = await maker.call("transfer", channel="taker", amount="12.5", memo="fee")
        assert paid["version"] > done["version"]
        back = await maker.call(
            "trade", channel="taker", legs=[{"instrument": "ETH-PERP", "size": "-10", "price": "3010"}]
        )
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


def _book(desk):
    return next(iter(desk.node.actors.values())).state.body


async def _option_and_perpetual(world):
    """The maker buys a call and sells perpetuals to the taker."""
    await world.taker.call("policy_set", peer="maker", auto_accept=True)
    legs = [{"instrument": "ETH-27DEC30-3000-C", "size": "10", "price": "1200"}]
    assert (await world.maker.call("trade", channel="taker", legs=legs))["status"] == "done"
    legs = [{"instrument": "BTC-PERP", "size": "-0.5", "price": "60000", "carry": "0.05"}]
    assert (await world.maker.call("trade", channel="taker", legs=legs))["status"] == "done"


async def test_a_vanished_peer_is_challenged_and_the_open_book_settled_to_the_unit(tmp_path):
    settings = {"channel__dispute_after": 300, "channel__auto_dispute": "challenge"}
    async with two_desks(tmp_path, **settings) as world:
        await world.open()
        await _option_and_perpetual(world)
        maker = world.maker
        await world.taker.node.stop()
        world.price(ETH, 3200)
        world.price(BTC, 59_000)
        await world.rpc.advance(400)
        await maker.until(lambda: world.status(maker, "disputed"), "the challenge")
        told = await maker.call("dispute", channel=world.channel)
        body, version = _book(maker), next(iter(maker.node.actors.values())).state.version
        assert told["on_record"] == version
        await world.rpc.advance(86_400 + 400)
        await maker.until(lambda: world.status(maker, "closed"), "the settlement")
        paid = await world.paid()
        at = told["fix_time"]
        fixes = {(ETH, at): 3200 * WAD, (BTC, at): 59_000 * WAD}
        expected = settle_amounts(world.terms, body, fixes, at, 250_000 * TOKENS, 250_000 * TOKENS, 0, 0)
        assert (paid["a"], paid["b"]) == expected
        assert sum(expected) == 500_000 * TOKENS


async def test_a_challenge_with_an_old_state_is_refuted_without_being_asked(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        await _option_and_perpetual(world)
        taker, maker = world.taker, world.maker
        old = 1
        await maker.call("transfer", channel="taker", amount="1000")
        newest = next(iter(taker.node.actors.values())).state.version
        await maker.call("challenge", channel="taker", version=old)
        await taker.until(lambda: _kinds(taker, "dispute_refuted"), "the refutation")
        told = await taker.call("dispute", channel="maker")
        assert told["on_record"] == newest
        await world.advance(86_400 + 400)
        for desk in (maker, taker):
            await desk.until(lambda d=desk: world.status(d, "closed"), "the settlement")
        assert sum((await world.paid()).values()) == 500_000 * TOKENS


async def _kinds(desk, kind):
    return any(e["kind"] == kind for e in (await desk.call("events"))["events"])


async def test_a_restart_of_either_side_goes_on_where_it_was(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        await _option_and_perpetual(world)
        for desk, other in ((world.maker, world.taker), (world.taker, world.maker)):
            before = next(iter(desk.node.actors.values())).channel.latest
            port = desk.node.hub.port
            await desk.node.stop()
            desk.flags["peers.listen"] = f"127.0.0.1:{port}"
            await desk.start()
            assert next(iter(desk.node.actors.values())).channel.latest == before
            await desk.until(lambda d=desk: next(iter(d.node.actors.values())).channel.synced, "the exchange")
            await other.until(lambda o=other: next(iter(o.node.actors.values())).channel.synced, "the exchange")
            assert (await desk.call("transfer", channel=other.name, amount="1"))["version"] > before.state.version


async def test_a_trade_beyond_the_initial_margin_is_refused_with_the_figures(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open("10000")
        await world.taker.call("policy_set", peer="maker", auto_accept=True)
        legs = [{"instrument": "ETH-PERP", "size": "1000", "price": "3000"}]
        with pytest.raises(MarginRefusedError) as refused:
            await world.maker.call("trade", channel="taker", legs=legs)
        assert refused.value.details["party"] == "a"
        assert parse_decimal(refused.value.details["initial_margin"]) > parse_decimal(refused.value.details["equity"])
        assert not _book(world.maker).positions


async def test_an_offer_waits_for_a_person_by_default(tmp_path):
    async with two_desks(tmp_path, sequencer=1) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        legs = [{"instrument": "ETH-PERP", "size": "1", "price": "3000"}]
        told = await maker.call("trade", channel="taker", legs=legs, wait_s=0.2)
        assert told["status"] == "pending"
        await taker.until(lambda: taker.call("offers"), "the offer")
        offer = (await taker.call("offers"))[0]
        assert offer["legs"][0]["size"] == "-1"
        assert (await taker.call("offer_accept", id=offer["id"]))["status"] == "done"
        assert _book(maker).positions[0].size == WAD
        second = await maker.call("trade", channel="taker", legs=legs, wait_s=0.2)
        await taker.until(lambda: taker.call("offers"), "the offer")
        await taker.call("offer_reject", id=second["id"], reason="not today")
        await maker.until(lambda: _no_offers(maker), "the refusal")
        assert _book(maker).positions[0].size == WAD


async def _no_offers(desk):
    return not await desk.call("offers")


async def test_a_withdrawal_reaches_the_payout_address(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        for desk, other in ((world.maker, world.taker), (world.taker, world.maker)):
            await desk.call("withdraw", channel=other.name, amount="1000.5")
        await world.maker.until(lambda: _paid_out(world), "both withdrawals")
        await world.maker.call("transfer", channel="taker", amount="1")


async def _paid_out(world):
    return await world.paid() == {"a": 1_000_500_000, "b": 1_000_500_000}
