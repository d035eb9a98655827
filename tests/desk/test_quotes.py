"""Quotes: what travels comes back, an answer fits its request, a quote is taken once, in time, as it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from strategies import DOMAIN, ETH, EXPIRY, T0, call, leg, perpetual, put

from channeld.core.codec import CodecError, encode
from channeld.core.crypto import address_of, keccak256, sign_digest, verify
from channeld.core.errors import ChanneldError, PeerError, RuleError
from channeld.core.operations import Leg, Trade
from channeld.core.wad import WAD
from channeld.desk.combos import Combo, ComboLeg, build
from channeld.desk.quotes import (
    MAX_LIFETIME_MS,
    BadQuoteError,
    FirmQuote,
    GivenQuote,
    GivenQuotes,
    QuoteAlteredError,
    QuoteExpiredError,
    QuoteRequest,
    QuoteStatus,
    QuoteUsedError,
    Reading,
    TakenQuote,
    UnknownQuoteError,
    Way,
    best_of,
    check_answer,
    read_quote,
    read_request,
)

CHANNEL, OTHER = b"\x01" * 32, b"\x02" * 32
NOW = T0 * 1000
RFQ = b"\x0f" * 16
SPREAD = build("CS", ETH, (EXPIRY,), (3000 * WAD, 3200 * WAD))


def request(**changes) -> QuoteRequest:
    return replace(QuoteRequest(RFQ, SPREAD, 10 * WAD, Way.TWO_WAY, False, NOW + 1000), **changes)


def quote(
    number: int = 1, *, size: int = 10, prices: tuple[int, int] = (200, 120), until: int = T0 + 5, taker: int = 1
):
    """A quote by which the taker buys `size` of the spread."""
    sign = -1 if taker else 1
    legs = (leg(call(3000), sign * size, prices[0]), leg(call(3200), -sign * size, prices[1]))
    return FirmQuote(RFQ, Trade(taker, legs, 0, number.to_bytes(16, "big")), until)


requests = st.builds(
    QuoteRequest,
    st.binary(min_size=16, max_size=16),
    st.sampled_from([SPREAD, Combo((ComboLeg(perpetual(), WAD),)), -SPREAD]),
    st.integers(1, 10**6).map(lambda n: n * WAD // 100),
    st.sampled_from(list(Way)),
    st.booleans(),
    st.integers(NOW, NOW + MAX_LIFETIME_MS),
)


@given(requests)
def test_a_request_comes_back_as_it_went(asked):
    assert read_request(asked.encode(), NOW) == asked


@given(st.integers(0, 1), st.integers(1, 10**6), st.integers(0, 10**9), st.integers(0, 1 << 62))
def test_a_quote_comes_back_as_it_went(taker, size, price, until):
    one = quote(size=size, prices=(price, price), until=until, taker=taker)
    assert read_quote(one.encode()) == one
    assert one.maker == 1 - taker


@given(
    st.recursive(
        st.none() | st.integers(0, 9) | st.binary(max_size=40), lambda x: st.lists(x, max_size=6), max_leaves=9
    )
)
def test_junk_is_a_typed_error(junk):
    for read in (read_quote, lambda raw: read_request(raw, NOW)):
        with pytest.raises((PeerError, RuleError, CodecError)):
            read(encode(junk))


@pytest.mark.parametrize("until", [NOW - 1, NOW + MAX_LIFETIME_MS + 1])
def test_a_request_lives_for_its_time(until):
    with pytest.raises(BadQuoteError):
        read_request(request(valid_until_ms=until).encode(), NOW)


def test_an_answer_is_read_from_the_side_of_the_one_who_asked():
    for taker in (0, 1):
        bought = check_answer(request(), quote(taker=taker))
        assert bought == Reading(buys=True, size=10 * WAD, cost=10 * 80 * WAD * WAD)
        assert bought.price == 80 * WAD
        sold = check_answer(request(), quote(size=-4, taker=taker))
        assert (sold.buys, sold.size, sold.price) == (False, 4 * WAD, 80 * WAD)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (request(way=Way.SELL), quote()),
        (request(way=Way.BUY), quote(size=-10)),
        (request(all_or_none=True), quote(size=9)),
        (request(), quote(size=11)),
        (request(rfq=b"\x0e" * 16), quote()),
        (request(combo=build("PS", ETH, (EXPIRY,), (3000 * WAD, 3200 * WAD))), quote()),
        (request(), replace(quote(), trade=replace(quote().trade, fee=1))),
        (request(), replace(quote(), trade=replace(quote().trade, legs=quote().trade.legs[:1]))),
        (
            request(),
            replace(quote(), trade=replace(quote().trade, legs=(quote().trade.legs[0], leg(call(3200), 9, 120)))),
        ),
    ],
)
def test_what_does_not_answer_the_request_is_refused(asked, answer):
    with pytest.raises(BadQuoteError):
        check_answer(asked, answer)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 10), st.integers(-50, 50)), max_size=8),
    st.integers(1, 20),
    st.booleans(),
)
def test_the_best_are_whole_and_no_better_one_is_left_that_would_fit(offers, size, buys):
    readings = [(bytes([n]), Reading(b, s * WAD, p * s * WAD * WAD)) for n, (b, s, p) in enumerate(offers)]
    chosen = best_of(readings, size * WAD, buys=buys)
    held = dict(readings)
    total = sum(held[key].size for key in chosen)
    assert total <= size * WAD
    assert all(held[key].buys == buys for key in chosen)
    costs = [held[key].cost / held[key].size for key in chosen]
    assert costs == sorted(costs)
    for key, one in readings:
        if one.buys == buys and key not in chosen:
            assert one.size > size * WAD - total, "a quote that would have fitted was left"


# ----------------------------------------------------------------------------------------------------- signatures

MAKER, TAKER = keccak256(b"quote maker"), keccak256(b"quote taker")


@given(
    st.sampled_from(["price", "size", "until", "maker", "id", "channel", "vol", "leg", "fee"]),
)
def test_a_signature_binds_every_part_of_a_quote(part):
    one = quote()
    digest = one.digest(DOMAIN, CHANNEL)
    signature = sign_digest(MAKER, digest)
    verify(digest, signature, address_of(MAKER))
    first, second = one.trade.legs
    altered, channel = one, CHANNEL
    match part:
        case "price":
            altered = replace(one, trade=replace(one.trade, legs=(replace(first, price=first.price + 1), second)))
        case "size":
            altered = replace(one, trade=replace(one.trade, legs=(replace(first, size_delta=WAD), second)))
        case "vol":
            altered = replace(one, trade=replace(one.trade, legs=(replace(first, vol=first.vol + 1), second)))
        case "leg":
            altered = replace(one, trade=replace(one.trade, legs=(leg(put(3000), -10, 200), second)))
        case "fee":
            altered = replace(one, trade=replace(one.trade, fee=1))
        case "until":
            altered = replace(one, valid_until=one.valid_until + 1)
        case "maker":
            altered = replace(one, trade=replace(one.trade, origin=0))
        case "id":
            altered = replace(one, trade=replace(one.trade, reference=b"\x09" * 16))
        case "channel":
            channel = OTHER
    with pytest.raises(RuleError):
        verify(altered.digest(DOMAIN, channel), signature, address_of(MAKER))


# ------------------------------------------------------------------------------------------------ the maker's records


class QuotesOfAMaker(RuleBasedStateMachine):
    """A taker who replays, alters and doubles; a maker that restarts. Each request is traded once at most, in time."""

    def __init__(self):
        super().__init__()
        self.quotes = GivenQuotes()
        self.disk: dict[bytes, bytes] = {}
        self.now = NOW
        self.given: list[GivenQuote] = []
        self.traded: dict[bytes, bytes] = {}

    def keep(self, records) -> None:
        for record in records:
            self.disk[record.quote.id] = record.pack()

    @rule(rfq=st.integers(1, 3), life=st.integers(0, 6), sides=st.integers(1, 2))
    def give(self, rfq, life, sides):
        for _ in range(sides):
            one = replace(quote(len(self.given) + 1, until=self.now // 1000 + life), rfq=bytes([rfq]) * 16)
            signature = sign_digest(MAKER, one.digest(DOMAIN, CHANNEL))
            record = GivenQuote(one, CHANNEL, signature)
            used = [q for q in self.traded if self.of(q).rfq == one.rfq]
            if used and not any(self.status(q) in {QuoteStatus.TAKEN, QuoteStatus.DONE} for q in used):
                return  # refused, or so old that it is forgotten: a peer's request does not live so long
            if used:
                with pytest.raises(QuoteUsedError):
                    self.quotes.give(record)
                return
            self.keep([self.quotes.give(record)])
            self.given.append(record)

    def status(self, quote_id: bytes):
        held = self.quotes.held.get(quote_id)
        return held.status if held is not None else None

    @rule(seconds=st.integers(1, 3))
    def time_passes(self, seconds):
        self.now += seconds * 1000

    @rule(back=st.integers(0, 5))
    def forgets(self, back):
        for key in self.quotes.forget(self.now - back * 1000):
            del self.disk[key]

    @precondition(lambda self: self.given)
    @rule(data=st.data(), batch=st.sampled_from([b"one", b"two"]), crash=st.booleans())
    def takes(self, data, batch, crash):
        one = data.draw(st.sampled_from(self.given))
        rfq_used = [q for q in self.traded if self.of(q).rfq == one.quote.rfq]
        allowed = not rfq_used and not one.quote.expired(self.now)
        done = {QuoteStatus.TAKEN, QuoteStatus.DONE}
        again = self.traded.get(one.quote.id) == batch and self.status(one.quote.id) in done
        try:
            changed = self.quotes.take(CHANNEL, one.quote.trade, batch, b"", self.now)
        except (QuoteUsedError, QuoteExpiredError, UnknownQuoteError):
            assert not allowed or one.quote.id not in self.quotes.held
            assert not again or one.quote.id not in self.quotes.held
            return
        assert allowed or again
        if crash:
            # nothing was durable, so nothing was agreed
            self.restart()
            return
        self.keep(changed)
        assert self.traded.setdefault(one.quote.id, batch) == batch

    def of(self, quote_id: bytes) -> FirmQuote:
        return next(g.quote for g in self.given if g.quote.id == quote_id)

    @precondition(lambda self: self.given)
    @rule(data=st.data(), price=st.integers(1, 500))
    def alters(self, data, price):
        one = data.draw(st.sampled_from(self.given))
        first, *rest = one.quote.trade.legs
        forged = replace(one.quote.trade, legs=(replace(first, price=price), *rest))
        with pytest.raises((QuoteAlteredError, UnknownQuoteError)):
            self.quotes.take(CHANNEL, forged, b"forged", b"", self.now)
        with pytest.raises(UnknownQuoteError):
            self.quotes.take(OTHER, one.quote.trade, b"elsewhere", b"", self.now)

    @precondition(lambda self: self.traded)
    @rule(data=st.data(), status=st.sampled_from([QuoteStatus.DONE, QuoteStatus.REFUSED]))
    def becomes(self, data, status):
        self.keep(self.quotes.became(data.draw(st.sampled_from(sorted(self.traded))), status))

    @rule()
    def restart(self):
        held = {key: GivenQuote.unpack(raw) for key, raw in self.disk.items()}
        self.quotes = GivenQuotes(held)

    @invariant()
    def one_trade_for_a_request(self):
        used = [self.of(q).rfq for q in self.traded]
        assert len(set(used)) == len(used)


TestQuotesOfAMaker = QuotesOfAMaker.TestCase
TestQuotesOfAMaker.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_what_was_taken_is_kept_with_both_signatures():
    one = quote()
    taken = TakenQuote(one, CHANNEL, b"m" * 65, b"t" * 65, b"batch", NOW, 7, QuoteStatus.REFUSED, 2210, "margin")
    assert TakenQuote.unpack(taken.pack()) == taken


def test_a_leg_of_a_quote_is_checked_like_any_other():
    with pytest.raises(ChanneldError):
        read_quote(encode([RFQ, [1, 1, [[0, ETH, 0, b"\0" * 16, b"\0" * 16, b"\0" * 16, 0, 0]], b"\0" * 16, RFQ], 5]))
    assert isinstance(quote().trade.legs[0], Leg)
