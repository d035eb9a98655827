"""Risk arrays: the same integers as margin.py, whatever was moved, in whatever order, and bounded in what they keep."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from strategies import BTC, ETH, make_terms

from channeld.core import risk_arrays
from channeld.core.acceptance import Prices, StalePriceError, check_acceptance, valuation_time
from channeld.core.margin import MissingPriceError, UnknownMarketError, both
from channeld.core.operations import Transfer
from channeld.core.risk_arrays import RiskCache, Standing, pack, unpack
from channeld.core.state import Account, Body, Instrument, Kind, Position
from channeld.core.terms import feed_id
from channeld.core.valuation import OutOfDomainError
from channeld.core.wad import DAY, WAD, YEAR

T0 = 1_750_000_000
SPOTS = {ETH: 3000 * WAD, BTC: 60_000 * WAD}
# seconds to expiry: expired, at each border of what is near, far beyond the clamp
LEFT = (-60, 0, 1, DAY, DAY + 1, 2 * DAY, 2 * DAY + 1, 30 * DAY, 6 * YEAR)
FUNDS = 10**15


def body_of(positions, as_of=T0, a=FUNDS, b=FUNDS, mark=WAD):
    ordered = tuple(sorted(positions, key=lambda p: p.key))
    return Body(as_of, mark, bytes(32), Account(a, a + b, 0), Account(b, 0, 0), ordered)


def some_position(draw: random.Random, vol_step: int = 0) -> Position:
    """Any instrument of a few; its carry and vol are functions of its key and the step, so that books agree on them."""
    feed = draw.choice([ETH, BTC])
    kind = draw.choice(list(Kind))
    expiry = 0 if kind == Kind.PERPETUAL else T0 + draw.choice(LEFT)
    strike = SPOTS[feed] * draw.randrange(5, 16) // 10 if kind >= Kind.CALL else 0
    size = draw.choice([1, -1]) * draw.choice([1, draw.randrange(1, 10**20), 2**95 - 1])
    vol = WAD if strike else 0
    return agreed(Position(Instrument(kind, feed, expiry, strike), size, draw.randrange(2**82), 0, vol), vol_step)


def agreed(position: Position, step: int) -> Position:
    i = position.instrument
    carry = (i.expiry % 11 - 5 + step % 3) * WAD // 20
    vol = WAD // 5 + (i.strike + i.expiry + step) % 97 * WAD // 100 if i.strike else 0
    return replace(position, carry=carry, vol=vol)


def expected(terms, body, spots, t, collateral, fixes):
    reports = both(terms, body, spots, t, collateral, fixes)
    return tuple(Standing(r.equity, r.initial, r.maintenance) for r in reports)


terms_of = st.sampled_from(
    [
        make_terms(),
        make_terms(decimals=18),
        make_terms(collateral_feed=ETH, haircut=WAD // 2),
        make_terms(initial_factor=2**64 - 1),
        make_terms(markets=tuple(replace(m, spread_charge=0, wing_cover=2**64 - 1) for m in make_terms().markets)),
        make_terms(markets=tuple(replace(m, price_scan=2**64 - 1, vol_up=0, vol_down=0) for m in make_terms().markets)),
    ]
)


class Moves(RuleBasedStateMachine):
    """A desk's life as the cache sees it: trades, marks, prints, time, fixes, and going back to an earlier book."""

    @initialize(terms=terms_of, seed=st.integers(0, 2**32))
    def begin(self, terms, seed):
        self.draw = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self.terms, self.cache = terms, RiskCache(terms)
        self.t, self.step, self.as_of = T0, 0, T0
        self.spots, self.collateral, self.fixes = dict(SPOTS), 3000 * WAD, {}
        self.held: dict[tuple, Position] = {}
        self.bodies = [body_of([])]

    def _set(self):
        self.bodies.append(body_of(self.held.values(), self.as_of, self.draw.randrange(FUNDS), FUNDS))

    @rule(count=st.integers(1, 4))
    def trade(self, count):
        for _ in range(count):
            new = some_position(self.draw, self.step)
            old = self.held.get(new.key)
            size = new.size if old is None else max(min(old.size + new.size, 2**95 - 1), 1 - 2**95)
            if size == 0:
                del self.held[new.key]
            else:
                self.held[new.key] = replace(old or new, size=size)
        while len({(p.instrument.feed, p.instrument.expiry) for p in self.held.values()}) > 16 or len(self.held) > 40:
            del self.held[self.draw.choice(list(self.held))]
        self._set()

    @rule()
    def close_some(self):
        for key in self.draw.sample(sorted(self.held), min(len(self.held), 2)):
            del self.held[key]
        self._set()

    @rule()
    def mark(self):
        self.step += 1
        self.as_of = self.t
        self.held = {k: agreed(replace(p, mark=self.draw.randrange(2**82)), self.step) for k, p in self.held.items()}
        self._set()

    @rule(feed=st.sampled_from([ETH, BTC]), thousandths=st.integers(1, 3000))
    def reprice(self, feed, thousandths):
        self.spots[feed] = SPOTS[feed] * thousandths // 1000
        self.collateral = self.spots[ETH]

    @rule(seconds=st.sampled_from([1, 60, DAY]))
    def pass_time(self, seconds):
        self.t += seconds

    @rule(fix=st.integers(0, 10**22))
    def know_a_fix(self, fix):
        gone = sorted({(p.instrument.feed, p.instrument.expiry) for p in self.held.values()} - set(self.fixes))
        if gone:
            self.fixes[self.draw.choice(gone)] = fix

    @rule()
    def go_back(self):
        body = self.draw.choice(self.bodies)
        self.held, self.as_of = {p.key: p for p in body.positions}, body.as_of
        self.bodies.append(body)

    @invariant()
    def same_integers(self):
        if hasattr(self, "bodies"):
            body = self.bodies[-1]
            cache = self.cache.at(self.t, self.spots, self.collateral, self.fixes)
            book = cache.book(body)
            assert book.parties == expected(self.terms, body, self.spots, self.t, self.collateral, self.fixes)
            assert cache.book(body) is book
            live = {p.instrument.feed for p in body.positions if not 0 < p.instrument.expiry <= self.t}
            assert set(book.sums) == set(book.needs) == live


Moves.TestCase.settings = settings(max_examples=20, stateful_step_count=15, deadline=None)
TestMoves = Moves.TestCase


@given(st.lists(st.integers(1 - 2**255, 2**255 - 1), min_size=18, max_size=18))
def test_lanes_hold_any_signed_number(numbers):
    assert unpack(pack(numbers)) == numbers


@given(
    st.lists(st.tuples(*[st.integers(-(2**140), 2**140)] * 18), min_size=1, max_size=5),
    st.lists(st.integers(-(2**95), 2**95), min_size=5, max_size=5),
)
def test_packed_sums_add_lane_by_lane(arrays, sizes):
    packed = sum(n * pack(array) for n, array in zip(sizes, arrays, strict=False))
    assert unpack(packed) == [sum(n * a[j] for n, a in zip(sizes, arrays, strict=False)) for j in range(18)]


def option(strike, vol, size=WAD):
    return Position(Instrument(Kind.CALL, ETH, T0 + 30 * DAY, strike), size, WAD, 0, vol)


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(risk_arrays, "MOST_ARRAYS", 5)
    terms = make_terms()
    cache = RiskCache(terms).at(T0, SPOTS, WAD, {})
    for n in range(40):
        body = body_of([option((2000 + n) * WAD, WAD // 2 + n)])
        assert cache.book(body).parties == expected(terms, body, SPOTS, T0, WAD, {})
    assert len(cache._markets[ETH]._arrays[Kind.CALL]) <= 5
    assert len(cache._books) == risk_arrays.MOST_BOOKS


def test_another_print_drops_the_arrays_of_the_feeds_it_moved():
    terms = make_terms()
    cache = RiskCache(terms).at(T0, SPOTS, WAD, {})
    perpetuals = [Position(Instrument(Kind.PERPETUAL, feed, 0, 0), WAD, WAD, 0, 0) for feed in (ETH, BTC)]
    body = body_of(perpetuals)
    cache.book(body)
    kept = cache._markets[BTC]
    cache.at(T0, {**SPOTS, ETH: 2900 * WAD}, WAD, {}).book(body)
    assert cache._markets[BTC] is kept
    assert cache._markets[ETH].spot == 2900 * WAD
    cache.at(T0 + 1, SPOTS, WAD, {}).book(body)
    assert cache._markets[BTC] is not kept


def test_refusals_are_those_of_margin():
    terms = make_terms()
    doge = feed_id("DOGE")
    for kind, expiry in ((Kind.PERPETUAL, 0), (Kind.FUTURE, T0 + 60), (Kind.FUTURE, T0 - 60)):
        foreign = body_of([Position(Instrument(kind, doge, expiry, 0), WAD, WAD, 0, 0)])
        with pytest.raises(UnknownMarketError, match="DOGE"):
            both(terms, foreign, {doge: WAD}, T0, WAD)
        with pytest.raises(UnknownMarketError, match="DOGE"):
            RiskCache(terms).at(T0, {doge: WAD}, WAD, {}).book(foreign)
    body = body_of([Position(Instrument(Kind.PERPETUAL, ETH, 0, 0), WAD, WAD, 0, 0)])
    with pytest.raises(MissingPriceError, match="ETH"):
        RiskCache(terms).at(T0, {BTC: WAD}, WAD, {}).book(body)
    for price in (0, -1, 2**96, 1.5, float("nan"), float("inf"), "3000", None):
        error = MissingPriceError if price is None else OutOfDomainError
        with pytest.raises(error, match="ETH"):
            RiskCache(terms).at(T0, {ETH: price}, WAD, {}).book(body)
    # what was refused has changed nothing: the same cache serves the next print
    cache = RiskCache(terms)
    with pytest.raises(OutOfDomainError):
        cache.at(T0, {ETH: 0}, WAD, {}).book(body)
    assert cache.at(T0, SPOTS, WAD, {}).book(body).parties == expected(terms, body, SPOTS, T0, WAD, {})


@pytest.mark.parametrize("price", [0, 2**96, -5])
def test_a_collateral_price_out_of_bounds_is_refused(price):
    terms = make_terms(collateral_feed=ETH, haircut=WAD // 2)
    body = body_of([Position(Instrument(Kind.PERPETUAL, ETH, 0, 0), WAD, WAD, 0, 0)])
    with pytest.raises(OutOfDomainError):
        RiskCache(terms).at(T0, SPOTS, price, {}).book(body)


def test_acceptance_judges_at_the_tick_of_the_prints():
    terms = make_terms()
    tick = terms.oracle.tick
    assert tick > 1
    assert {valuation_time(terms, T0 + n) for n in range(tick)} == {T0 - T0 % tick}
    body = body_of([option(3000 * WAD, WAD // 2)])
    cache = RiskCache(terms)
    first = T0 - T0 % tick
    told = []
    for n in range(tick):
        seen = Prices(first + n, SPOTS, dict.fromkeys(SPOTS, first), WAD, {}, cache)
        told.append(check_acceptance(terms, body, body, (Transfer(0, 1),), seen))
    assert told == [expected(terms, body, SPOTS, first, WAD, {})] * tick


def test_without_a_cache_it_is_made_for_the_check():
    terms = make_terms()
    body = body_of([option(3000 * WAD, WAD // 2)])
    seen = Prices(T0, SPOTS, dict.fromkeys(SPOTS, T0), WAD)
    assert check_acceptance(terms, body, body, (Transfer(0, 1),), seen) == expected(
        terms, body, SPOTS, valuation_time(terms, T0), WAD, {}
    )
    with pytest.raises(StalePriceError, match="ETH"):
        check_acceptance(terms, body, body, (Transfer(0, 1),), Prices(T0, {}, {}, WAD))
