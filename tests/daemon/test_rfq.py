"""Quotes between two daemons: asked, given, taken without last look; and everything a taker or a maker may try."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace

import pytest
from desk_world import PATIENCE_S, events_of, only_actor, two_desks

from channeld.core import wire
from channeld.core.crypto import verify
from channeld.core.errors import ChanneldError
from channeld.core.operations import Batch, encode_batch
from channeld.core.wad import WAD, parse_decimal
from channeld.daemon.rfq import QuoteExpiredError, QuoteUsedError, TwoWay
from channeld.desk.quotes import QuoteAlteredError, QuoteRefusedError, QuoteStatus

SPREAD = "ETH-27DEC30-3000/3300-CS"
START = 1_924_300_000  # December 2030


class FixedQuoter:
    """A maker who quotes one bid and ask to everybody."""

    def __init__(self, bid: int, ask: int, valid_for_s: int = 30):
        self.bid, self.ask, self.valid_for_s = bid, ask, valid_for_s

    async def quote(self, actor, request):
        del actor
        return TwoWay(self.bid * WAD, self.ask * WAD, request.size, self.valid_for_s)


async def vols(desk, *, vol: str = "0.6"):
    names = [f"ETH-27DEC30-{strike}-C" for strike in (3000, 3300)]
    await desk.call("vols_set", vols=[{"instrument": name, "vol": vol} for name in names])


@pytest.mark.parametrize("sequencer", [0, 1])
async def test_a_combo_is_asked_quoted_and_taken_without_last_look(tmp_path, sequencer):
    async with two_desks(tmp_path, sequencer=sequencer, start_time=START) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        await vols(maker)
        asked = asyncio.create_task(taker.call("rfq", instrument=SPREAD, size="5", side="two-way", wait_s="20"))
        await maker.until(lambda: maker.node.rfq.theirs, "the request")
        (row,) = (await maker.call("rfqs"))["theirs"]
        assert (row["instrument"], row["size"], row["side"], row["peer"]) == (SPREAD, "5", "two-way", "taker")
        given = await maker.call("quote", rfq=row["rfq"], bid="90", ask="100.5")
        assert len(given["given"]) == 2
        answer = await asked
        assert [(q["side"], q["price"], q["size"]) for q in answer["quotes"]] == [
            ("buy", "100.5", "5"),
            ("sell", "90", "5"),
        ]
        buy, sell = (q["id"] for q in answer["quotes"])
        done = await taker.call("quote_take", id=buy)
        assert done["status"] == "done"
        (low, high) = sorted(await taker.call("positions"), key=lambda p: p["instrument"])
        assert (low["size"], high["size"]) == ("5", "-5")
        cost = 5 * (parse_decimal(low["mark"]) - parse_decimal(high["mark"]))
        assert abs(cost - 5 * parse_decimal("100.5")) < WAD // 1000
        # one trade for one answer: the other side of it is void, and the same one is used up
        with pytest.raises(QuoteUsedError):
            await taker.call("quote_take", id=buy)
        refused = await _error(taker.call("quote_take", id=sell))
        assert isinstance(refused, QuoteRefusedError)
        assert refused.details["peer_code"] == QuoteUsedError.code
        assert (await taker.call("quotes_broken"))["count"] == {"maker": 1}
        await maker.until(lambda: _status(maker, buy) is QuoteStatus.DONE, "the quote's end")


def _status(desk, quote_id: str):
    return desk.node.rfq.given.held[bytes.fromhex(quote_id)].status


async def _error(work) -> ChanneldError:
    with pytest.raises(ChanneldError) as caught:
        await work
    return caught.value


async def test_the_best_of_a_quoter_is_taken_by_itself_and_what_is_too_dear_is_not(tmp_path):
    async with two_desks(tmp_path, start_time=START) as world:
        await world.open()
        world.maker.node.rfq.quoter = FixedQuoter(2990, 3010)
        one = await world.taker.call("rfq", instrument="ETH-PERP", size="2", side="buy", take_best="buy", limit="3009")
        assert (len(one["quotes"]), one["taken"]) == (1, [])
        two = await world.taker.call("rfq", instrument="ETH-PERP", size="2", side="buy", take_best="buy", limit="3010")
        assert [t["status"] for t in two["taken"]] == ["done"]
        sold = await world.taker.call("rfq", instrument="ETH-PERP", size="3", take_best="sell")
        assert [(t["status"], t["price"]) for t in sold["taken"]] == [("done", "2990")]
        (position,) = await world.taker.call("positions")
        assert position["size"] == "-1"


async def test_expired_replayed_and_altered_quotes_are_refused_and_change_nothing(tmp_path):
    async with two_desks(tmp_path, start_time=START) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        maker.node.rfq.quoter = FixedQuoter(2990, 3010, valid_for_s=5)
        actor = only_actor(taker)
        await taker.call("rfq", instrument="ETH-PERP", size="2", side="buy")
        (ours,) = taker.node.rfq.ours.values()
        (received,) = ours.quotes.values()
        # altered: a price of one's own, under the maker's id
        (leg,) = received.quote.trade.legs
        cheap = replace(received.quote.trade, legs=(replace(leg, price=WAD),))
        now = taker.node.clock.now_ms()
        batch = encode_batch(Batch(now + 5000, received.quote.id, (cheap,)))
        await taker.node.send(actor.peer, wire.TakeQuote(actor.id, batch, b"\x01" * 65))
        await maker.until(lambda: _refused(maker, 3346), "a taking that is not signed")
        signature = taker.node.signer.sign_plain(received.quote.digest(actor.channel.domain, actor.id))
        await taker.node.send(actor.peer, wire.TakeQuote(actor.id, batch, signature))
        await maker.until(lambda: _refused(maker, QuoteAlteredError.code), "an altered trade")
        # in time it is taken, and taken again it is the same trade
        version = await asyncio.wait_for(await taker.node.rfq.take(received), PATIENCE_S)
        (taken,) = taker.node.rfq.taken.values()
        await taker.node.send(actor.peer, wire.TakeQuote(actor.id, taken.batch, taken.taker_signature))
        later = encode_batch(Batch(now + 9000, received.quote.id, (received.quote.trade,)))
        await taker.node.send(actor.peer, wire.TakeQuote(actor.id, later, signature))
        await asyncio.sleep(0)
        await taker.call("rfq", instrument="ETH-PERP", size="1", side="buy")
        assert actor.state.version == version
        (position,) = await taker.call("positions")
        assert position["size"] == "2"
        # expired on our side: nothing is sent; expired on the maker's: refused with the reason
        fresh = next(q for o in taker.node.rfq.ours.values() for q in o.quotes.values() if q.reading.size == WAD)
        await world.advance(8)
        with pytest.raises(QuoteExpiredError):
            await taker.node.rfq.take(fresh)
        trade = fresh.quote.trade
        late = encode_batch(Batch(taker.node.clock.now_ms() + 5000, trade.reference, (trade,)))
        sign = taker.node.signer.sign_plain(fresh.quote.digest(actor.channel.domain, actor.id))
        await taker.node.send(actor.peer, wire.TakeQuote(actor.id, late, sign))
        await maker.until(lambda: _refused(maker, QuoteExpiredError.code), "an expired quote")


async def _refused(desk, code: int) -> bool:
    return any(e["code"] == code for e in await events_of(desk, "own_quote_refused"))


async def test_a_maker_that_refuses_its_firm_quote_leaves_evidence_that_survives(tmp_path):
    async with two_desks(tmp_path, start_time=START) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        maker.node.rfq.quoter = FixedQuoter(2990, 3010)
        await taker.call("rfq", instrument="ETH-PERP", size="2", side="buy")
        # the cheater forgets what it has signed
        maker.node.rfq.given.held.clear()
        (ours,) = taker.node.rfq.ours.values()
        (quote_id,) = ours.quotes
        assert isinstance(await _error(taker.call("quote_take", id=quote_id.hex())), QuoteRefusedError)
        await taker.until(lambda: events_of(taker, "firm_quote_refused"), "the event")
        await taker.node.stop()
        await taker.start()
        told = await taker.call("quotes_broken")
        assert told["count"] == {"maker": 1}
        (row,) = told["broken"]
        actor = only_actor(taker)
        taken = taker.node.rfq.taken[quote_id]
        digest = taken.quote.digest(actor.channel.domain, actor.id)
        verify(digest, bytes.fromhex(row["maker_signature"][2:]), maker.address)
        verify(digest, bytes.fromhex(row["taker_signature"][2:]), taker.address)
        assert await taker.call("positions") == []


async def test_a_quote_that_margin_cannot_hold_is_not_given_and_nobody_answers_for_it(tmp_path):
    async with two_desks(tmp_path, start_time=START) as world:
        await world.open()
        world.maker.node.rfq.quoter = FixedQuoter(2990, 3010)
        answer = await world.taker.call("rfq", instrument="ETH-PERP", size="5000", side="buy", wait_s="0.5")
        assert answer["quotes"] == []
        (event,) = await events_of(world.maker, "rfq_received")
        assert "margin" in event["why_it_waits"]
        passed = asyncio.create_task(world.taker.call("rfq", instrument="ETH-PERP", size="6000", side="buy"))
        await world.maker.until(lambda: len(world.maker.node.rfq.theirs) == 2, "the request")
        rfq = list(world.maker.node.rfq.theirs)[-1].hex()
        await world.maker.call("quote_pass", rfq=rfq, reason="too large")
        assert (await passed)["passed"] == {"maker": "too large"}


async def test_parameters_of_quotes_are_checked(tmp_path):
    async with two_desks(tmp_path, start_time=START) as world:
        taker = world.taker
        for params in (
            {"instrument": "ETH-PERP", "size": "1", "side": "both"},
            {"instrument": "ETH-PERP", "size": "0"},
            {"instrument": "ETH-PERP", "size": "1", "side": "buy", "take_best": "sell"},
            {"instrument": "ETH", "size": "1"},
            {"instrument": "ETH-PERP", "size": "1"},
        ):
            assert (await _error(taker.call("rfq", **params))).code in {1201, 1010, 1225, 1232}
        for method, params in (
            ("quote", {"rfq": "00"}),
            ("quote", {"rfq": secrets.token_hex(16), "bid": "1"}),
            ("quote_take", {"id": secrets.token_hex(16)}),
        ):
            assert (await _error(taker.call(method, **params))).code in {1201, 1231}
