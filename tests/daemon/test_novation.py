"""Positions that move between channels, over real sockets on a real EVM: both sides or neither, and where that ends."""

from __future__ import annotations

import asyncio

import pytest
from desk_world import alerted, events_of, two_desks

from channeld.core import wire
from channeld.core.errors import ChanneldError
from channeld.core.wad import WAD
from channeld.daemon.novation import OVER_MS, CannotNovateError
from channeld.daemon.parameters import BadParameterError
from channeld.daemon.rfq import TwoWay
from channeld.desk.quotes import QuoteStatus

PERP = {"instrument": "ETH-PERP", "size": "10", "price": "3000"}
CALL = {"instrument": "ETH-27DEC30-3000-C", "size": "-5", "price": "1200"}


class FixedQuoter:
    """A maker who quotes one bid and ask to everybody."""

    def __init__(self, bid: int, ask: int):
        self.bid, self.ask = bid, ask

    async def quote(self, actor, request):
        del actor
        return TwoWay(self.bid * WAD, self.ask * WAD, request.size)


async def with_book(world, *legs):
    await world.open()
    await world.taker.call("policy_set", peer="maker", auto_accept=True)
    done = await world.maker.call("trade", channel="taker", legs=list(legs))
    assert done["status"] == "done", done


async def sizes(desk, channel):
    return {row["instrument"]: row["size"] for row in await desk.call("positions", channel=channel)}


async def money(desk):
    """The sum of both balances of each channel, which no trade changes."""
    rows = await desk.call("channels")
    return [float(row["balance"]) + float(row["peer_balance"]) for row in rows]


async def test_a_position_moves_to_a_third_desk_at_the_price_agreed(tmp_path):
    async with two_desks(tmp_path, third=True) as world:
        await with_book(world, PERP)
        maker, taker, third = world.desks
        other = await world.another(maker, third)
        taker.node.rfq.quoter = third.node.rfq.quoter = FixedQuoter(3010, 3010)
        before = await money(maker)
        four = [{"instrument": "ETH-PERP", "size": "4"}]
        done = await maker.call("novate", channel="taker", to="third", positions=four, price="3010")
        assert (done["status"], done["cost"]) == ("done", "0")
        assert await sizes(maker, "taker") == {"ETH-PERP": "6"}
        assert await sizes(maker, "third") == {"ETH-PERP": "4"}
        await third.until(lambda: third.node.rfq.given.held, "the quote")
        assert await sizes(third, other) == {"ETH-PERP": "-4"}
        assert await money(maker) == before
        await maker.node.novations.look(world.clock.now_ms() + OVER_MS)
        assert not await alerted(maker, "novation")
        await _nothing_moves_at_a_worse_price(world, four)


async def _nothing_moves_at_a_worse_price(world, four):
    maker, taker, third = world.desks
    taker.node.rfq.quoter, third.node.rfq.quoter = FixedQuoter(2990, 2990), FixedQuoter(3000, 3000)
    for more, text in (({"price": "3000"}, "2990"), ({}, "cost 40 "), ({"max_cost": "39.9"}, "39.9")):
        with pytest.raises(CannotNovateError, match=text):
            await maker.call("novate", channel="taker", to="third", positions=four, **more)
    assert await sizes(maker, "taker") == {"ETH-PERP": "6"}
    done = await maker.call("novate", channel="taker", to="third", positions=four, max_cost="40")
    assert (done["status"], done["cost"]) == ("done", "40")
    assert await sizes(maker, "taker") == {"ETH-PERP": "2"}


async def test_a_whole_book_rolls_to_a_successor_and_the_old_channel_closes(tmp_path):
    async with two_desks(tmp_path) as world:
        await with_book(world, PERP, CALL)
        maker, taker = world.maker, world.taker
        old, new = world.channel, await world.another(maker, taker)
        book = await sizes(maker, old)
        # the successor agrees on vols of its own
        await taker.call("vols_set", channel=new, vols=[{"instrument": CALL["instrument"], "vol": "0.7"}])
        taker.node.rfq.quoter = FixedQuoter(24_000, 24_000)
        rolled = await maker.call("novate", channel=old, to=new)
        assert (rolled["status"], rolled["cost"]) == ("done", "0")
        assert await sizes(maker, old) == {}
        assert await sizes(maker, new) == book
        assert await sizes(taker, new) == {name: str(-int(size)) for name, size in book.items()}
        await maker.call("close", channel=old)

        async def closed():
            rows = await maker.call("channels")
            return any(row["channel"] == old and row["status"] == "closed" for row in rows)

        await maker.until(closed, "the end of the old channel")


async def test_a_short_position_moves_too(tmp_path):
    async with two_desks(tmp_path, third=True) as world:
        await with_book(world, PERP)
        maker, taker, third = world.desks
        await world.another(taker, third)
        maker.node.rfq.quoter = third.node.rfq.quoter = FixedQuoter(3005, 3005)
        ten = [{"instrument": "ETH-PERP", "size": "10"}]
        done = await taker.call("novate", channel="maker", to="third", positions=ten, price="3005")
        assert (done["status"], done["cost"]) == ("done", "0")
        assert await sizes(taker, "maker") == {}
        assert await sizes(taker, "third") == {"ETH-PERP": "-10"}


async def test_without_both_quotes_nothing_is_taken_and_nonsense_is_refused(tmp_path):
    async with two_desks(tmp_path, third=True) as world:
        await with_book(world, PERP)
        maker, taker, third = world.desks
        await world.another(maker, third)
        taker.node.rfq.quoter = FixedQuoter(3000, 3000)
        asked = asyncio.create_task(maker.call("novate", channel="taker", to="third", wait_s="30"))
        await third.until(lambda: third.node.rfq.theirs, "the request")
        await third.call("quote_pass", rfq=next(iter(third.node.rfq.theirs)).hex(), reason="not now")
        told = await asked
        assert (told["status"], told["taken"]) == ("not quoted", [])
        assert told["parts"][0]["open"]["passed"] == {"third": "not now"}
        assert await sizes(maker, "taker") == {"ETH-PERP": "10"}
        wrong = (
            ({"channel": "taker", "to": "taker"}, CannotNovateError),
            ({"channel": "third", "to": "taker"}, CannotNovateError),
            ({"positions": [{"instrument": "ETH-PERP", "size": "11"}]}, CannotNovateError),
            ({"positions": [{"instrument": "BTC-PERP", "size": "1"}]}, CannotNovateError),
            ({"price": "3000"}, BadParameterError),
            ({"positions": [{"instrument": "ETH-PERP", "size": "-1"}]}, BadParameterError),
        )
        for change, error in wrong:
            with pytest.raises(error):
                await maker.call("novate", **({"channel": "taker", "to": "third"} | change))


async def test_one_that_refuses_what_it_signed_leaves_evidence_and_an_alert(tmp_path):
    async with two_desks(tmp_path, third=True) as world:
        await with_book(world, PERP)
        maker, taker, third = world.desks
        await world.another(maker, third)
        taker.node.rfq.quoter = third.node.rfq.quoter = FixedQuoter(3000, 3000)

        async def cheats(actor, raw, signature):
            del raw, signature
            third.node.rfq.given.held.clear()
            await actor.reply_refused(next(iter(maker.node.novations._groups.values()))[0][1], ChanneldError("no"))

        third.node.rfq.take_of_ours = cheats
        told = await maker.call("novate", channel="taker", to="third")
        assert told["status"] == "done in part"
        assert [row["status"] for row in told["taken"]] == ["done", "refused"]
        assert (await maker.call("quotes_broken"))["count"] == {"third": 1}
        await maker.node.novations.look(world.clock.now_ms() + OVER_MS)
        assert await alerted(maker, "done in part: 1 of 2 trades; not those with third")
        assert not await maker.node.store.documents("novation")


async def test_killed_between_two_takings_both_are_sent_again(tmp_path):
    async with two_desks(tmp_path, third=True) as world:
        await with_book(world, PERP)
        maker, taker, third = world.desks
        await world.another(maker, third)
        taker.node.rfq.quoter = third.node.rfq.quoter = FixedQuoter(3000, 3000)
        sends, durable = maker.node.send, asyncio.Event()

        async def dies(peer, message):
            if isinstance(message, wire.TakeQuote):
                durable.set()
                await asyncio.Event().wait()  # it never gets further
            await sends(peer, message)

        maker.node.send = dies
        asked = asyncio.create_task(maker.call("novate", channel="taker", to="third"))
        await durable.wait()
        asked.cancel()
        await maker.node.stop()
        await maker.start()

        def done():
            return [one.status for one in maker.node.rfq.taken.values()] == [QuoteStatus.DONE] * 2

        await maker.until(done, "both trades")
        assert await sizes(maker, "taker") == {}
        assert await sizes(maker, "third") == {"ETH-PERP": "10"}
        await maker.until(lambda: not maker.node.novations._groups, "the end of it")
        assert not [e for e in await events_of(maker, "alert") if "novation" in str(e)]
