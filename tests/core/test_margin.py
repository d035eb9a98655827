"""Margin against figures made by hand, an independent slow implementation, and what the protocol promises."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf

from channeld.core.margin import (
    MissingPriceError,
    UnknownMarketError,
    both,
    party_margin,
    scenarios,
    to_wad_equity,
)
from channeld.core.state import Account, Body, Instrument, Kind, Position
from channeld.core.terms import Market, Oracle, Party, Terms, feed_id
from channeld.core.valuation import OutOfDomainError, value
from channeld.core.wad import DAY, WAD, YEAR

VECTORS = Path(__file__).parents[1] / "vectors" / "valuation.json"
ETH, BTC, SOL = feed_id("ETH"), feed_id("BTC"), feed_id("SOL")
T0 = 1_750_000_000
MONTH = T0 + 30 * DAY
SPOT = 3000 * WAD
PRICES = {ETH: SPOT, BTC: 60_000 * WAD}
BALANCE = 10**12


def make_terms(**changes) -> Terms:
    """The standard template on BTC and ETH; 6 decimals, no collateral feed."""
    markets = tuple(
        Market(feed, scan * WAD // 100, 6 * WAD // 10, 35 * WAD // 100, 2 * WAD // 100, WAD // 200)
        for feed, scan in ((BTC, 9), (ETH, 11))
    )
    terms = Terms(
        Party(b"\x01" * 20, b"\x09" * 20),
        Party(b"\x02" * 20, b"\x0a" * 20),
        b"\x31" * 20,
        6,
        bytes(32),
        0,
        Oracle((b"\x21" * 20,), 1, 10, 1, 0, 60, 7200),
        markets,
        13 * WAD // 10,
        3 * WAD // 100,
        86_400,
        3600,
        0,
        bytes(32),
    )  # fmt: skip - one line per group of fields
    return replace(terms, **changes)


def perpetual(size, mark=SPOT, feed=ETH, carry=0):
    return Position(Instrument(Kind.PERPETUAL, feed, 0, 0), size, mark, carry, 0)


def future(size, expiry=MONTH, mark=SPOT, feed=ETH, carry=0):
    return Position(Instrument(Kind.FUTURE, feed, expiry, 0), size, mark, carry, 0)


def option(kind, strike, size, expiry=MONTH, vol=WAD * 6 // 10, feed=ETH, carry=0, mark=None):
    instrument = Instrument(kind, feed, expiry, strike)
    fair = value(kind, PRICES[feed], strike, carry, vol, expiry - T0)
    return Position(instrument, size, fair if mark is None else mark, carry, vol)


def call(strike, size, **more):
    return option(Kind.CALL, strike * WAD, size, **more)


def put(strike, size, **more):
    return option(Kind.PUT, strike * WAD, size, **more)


def make_body(*positions, a=BALANCE, b=BALANCE):
    ordered = tuple(sorted(positions, key=lambda p: p.key))
    total = a + b
    return Body(T0, WAD, bytes(32), Account(a, total, 0), Account(b, 0, 0), ordered)


TERMS = make_terms()


def margin(*positions, side=0, t=T0, terms=TERMS, prices=PRICES):
    return party_margin(terms, make_body(*positions), prices, t, side, WAD)


# ------------------------------------------------------------------------------------------------ figures made by hand


def test_an_empty_book_needs_nothing():
    report = margin()
    assert (report.initial, report.maintenance, report.markets) == (0, 0, ())
    assert report.equity == report.free == 1_000_000 * WAD


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_perpetual_by_hand(side, sign):
    # one scan: 2 * 330 = 660; two scans: 1320 * 35% = 462; up threefold: 12000 * 2%; down to a third: 4000 * 6%
    report = margin(perpetual(sign * 2 * WAD), side=side)
    assert report.maintenance == 660 * WAD
    assert report.initial == 858 * WAD
    market = report.markets[0]
    long = (sign > 0) == (side == 0)
    assert market.worst_loss == (4000 if long else 12_000) * WAD
    assert market.scenarios[market.worst].scenario.label.startswith("price -1 scan" if long else "price +1 scan")
    assert len(market.scenarios) == 18


def test_scenarios_are_the_protocols():
    grid = scenarios(TERMS.markets[1], SPOT)
    assert [s.price // WAD for s in grid[:14:2]] == [3000, 3110, 2890, 3220, 2780, 3330, 2670]
    assert all(x.price == y.price for x, y in zip(grid[:14:2], grid[1:14:2], strict=True))
    assert [s.price for s in grid[14:]] == [3660 * WAD, 2340 * WAD, 9000 * WAD, 1000 * WAD]
    assert [s.weight for s in grid] == [WAD] * 14 + [35 * WAD // 100] * 2 + [WAD // 50, 3 * WAD // 50]
    assert [s.vol_factor for s in grid] == [16 * WAD // 10, 65 * WAD // 100] * 7 + [16 * WAD // 10] * 4
    assert len({s.label for s in grid}) == 18


def test_no_scenario_price_is_below_a_twentieth():
    wild = replace(TERMS.markets[0], price_scan=2**64 - 1)
    for spot in (1, 19, 20, 21, 10**6 + 1, SPOT):
        assert min(s.price for s in scenarios(wild, spot)) == -(-spot // 20)
        assert 20 * min(s.price for s in scenarios(wild, spot)) >= spot


def test_the_spread_charge_by_hand():
    # long 3 perpetuals against short 2 futures: 2 * 3000 * 0.5% on top of the scan of the one left over
    report = margin(perpetual(3 * WAD), future(-2 * WAD))
    assert report.markets[0].spread_charge == 30 * WAD
    assert report.markets[0].scan_risk == 330 * WAD
    assert report.maintenance == 360 * WAD


def test_a_short_option_pays_for_the_wings():
    # far out of the money: the scan moves hardly reach it, the threefold price does
    report = margin(call(9000, -10 * WAD))
    market = report.markets[0]
    assert market.scenarios[market.worst].scenario.label == "price times 3, vols up"
    assert report.maintenance > 0


def test_a_long_option_never_needs_more_than_its_value():
    for strike in (1000, 2500, 3000, 4000, 9000):
        position = call(strike, 10 * WAD)
        report = margin(position)
        assert report.maintenance <= 10 * position.mark + 1
        assert report.initial <= 10 * position.mark + 1


def test_a_calendar_must_survive_its_near_leg():
    near = call(3000, 10 * WAD, expiry=T0 + DAY)
    far = call(3000, -10 * WAD)
    report = margin(near, far)
    assert report.markets[0].near_counts
    assert report.maintenance == margin(far).maintenance > 0
    # a second later than a day: no longer near for maintenance, still near for initial margin
    later = call(3000, 10 * WAD, expiry=T0 + DAY + 1)
    relaxed = margin(later, far)
    assert not relaxed.markets[0].near_counts
    assert relaxed.maintenance < report.maintenance
    assert relaxed.initial == margin(far).initial


def test_what_expired_counts_in_profit_alone():
    expired = call(3000, 10 * WAD, expiry=T0 + 60, mark=5 * WAD)
    body = make_body(expired, perpetual(WAD))
    without = party_margin(TERMS, body, PRICES, T0 + 60, 0, WAD)
    assert without.maintenance == margin(perpetual(WAD)).maintenance
    # no fix: it stays at its mark
    assert without.profit == 0
    fixed = party_margin(TERMS, body, PRICES, T0 + 60, 0, WAD, {(ETH, T0 + 60): 3100 * WAD})
    assert fixed.profit == 10 * 95 * WAD
    assert fixed.equity == BALANCE * 10**12 + 950 * WAD
    # an expired feed needs no price any more
    alone = party_margin(TERMS, make_body(expired), {}, T0 + 60, 0, WAD)
    assert alone.maintenance == alone.initial == 0


# ----------------------------------------------------------------------------------- equity and collateral with a feed


def test_equity_in_the_token_itself():
    body = make_body(perpetual(WAD), a=5_000_000)
    a, b = both(TERMS, body, {ETH: 3010 * WAD}, T0, WAD)
    assert (a.profit, a.profit_units, a.equity_units) == (10 * WAD, 10_000_000, 15_000_000)
    assert a.equity == 15 * WAD
    assert b.profit == -10 * WAD
    assert b.equity == (BALANCE - 10_000_000) * 10**12


def test_equity_after_the_haircut():
    terms = make_terms(decimals=18, collateral_feed=ETH, haircut=WAD // 5)
    body = make_body(perpetual(WAD), a=2 * WAD, b=WAD)
    report = party_margin(terms, body, {ETH: 2700 * WAD}, T0, 0, 2700 * WAD)
    # a loss of 300 is 0.111... tokens; what is left counts at 80% of 2700
    assert report.profit_units == -(300 * WAD // 2700)
    assert report.equity == (2 * WAD - 300 * WAD // 2700) * 2160
    other = party_margin(terms, body, {ETH: 2700 * WAD}, T0, 1, 2700 * WAD)
    assert report.equity_units + other.equity_units == 3 * WAD


def test_units_to_equity():
    assert to_wad_equity(-1, TERMS, 0) == -(10**12)
    terms = make_terms(decimals=8, collateral_feed=BTC, haircut=WAD // 10)
    assert to_wad_equity(10**8, terms, 60_000 * WAD) == 54_000 * WAD
    assert to_wad_equity(-(10**8), terms, 60_000 * WAD) == -54_000 * WAD
    for price in (0, 2**96, None):
        with pytest.raises(OutOfDomainError):
            to_wad_equity(1, terms, price)


# ---------------------------------------------------------------------------------------------------------- bad input


def test_a_missing_price_is_named():
    with pytest.raises(MissingPriceError, match="ETH"):
        margin(perpetual(WAD), prices={BTC: WAD})


@pytest.mark.parametrize("price", [0, -1, 2**96, 1.5, "3000"])
def test_a_price_out_of_bounds_is_refused(price):
    with pytest.raises(OutOfDomainError, match="ETH"):
        margin(perpetual(WAD), prices={ETH: price})


def test_a_foreign_feed_is_named():
    with pytest.raises(UnknownMarketError, match="SOL"):
        margin(perpetual(WAD, feed=SOL), prices={SOL: WAD})


# ------------------------------------------------------------------------------------ structures and their worst cases


@pytest.mark.parametrize("carry", [0, WAD // 10, -WAD // 3])
def test_boxes_and_conversions_scan_to_zero(carry):
    n = 7 * WAD + 3
    box = (
        call(2800, n, carry=carry),
        put(2800, -n, carry=carry),
        call(3200, -n, carry=carry),
        put(3200, n, carry=carry),
    )  # fmt: skip - the box on one line
    conversion = (future(n, carry=carry), call(3000, -n, carry=carry), put(3000, n, carry=carry))
    for side in (0, 1):
        assert margin(*box, side=side).maintenance == 0
        assert margin(*box, side=side).initial == 0
        assert margin(*conversion, side=side).maintenance == 0


def worst_at_expiry(positions, side):
    """The most a party can lose from the marks at expiry: at zero, a strike or far above, the payoff being linear."""
    strikes = sorted({p.instrument.strike for p in positions})
    sign = -1 if side else 1

    def result(spot):
        payoffs = (value(p.instrument.kind, spot, p.instrument.strike, 0, p.vol, 0) for p in positions)
        return sum(sign * p.size * (payoff - p.mark) for p, payoff in zip(positions, payoffs, strict=True))

    return max(0, -(min(map(result, (0, *strikes, 2 * strikes[-1]))) // WAD))


STRUCTURES = {
    "call spread": lambda n: (call(3000, n), call(3300, -n)),
    "put spread": lambda n: (put(3000, n), put(2700, -n)),
    "butterfly": lambda n: (call(2700, n), call(3000, -2 * n), call(3300, n)),
    "narrow butterfly": lambda n: (call(2999, n), call(3000, -2 * n), call(3001, n)),
    "far butterfly": lambda n: (call(8990, n), call(9000, -2 * n), call(9010, n)),
    "condor": lambda n: (put(2400, n), put(2700, -n), call(3300, -n), call(3600, n)),
}


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("days", [1, 7, 30, 365])
def test_defined_risk_is_never_charged_more_than_it_can_lose(name, side, days):
    n = 100 * WAD
    positions = STRUCTURES[name](n)
    expiry = T0 + days * DAY
    moved = tuple(option(p.instrument.kind, p.instrument.strike, p.size, expiry=expiry) for p in positions)
    for t in (T0, T0 + DAY // 2):
        report = party_margin(TERMS, make_body(*moved), PRICES, t, side, WAD)
        # from the value at t, not from the marks
        now = tuple(
            replace(p, mark=value(p.instrument.kind, SPOT, p.instrument.strike, 0, p.vol, expiry - t)) for p in moved
        )
        # beyond rounding: a butterfly is a difference of values, each exact to 2e-20 forwards
        assert report.initial <= worst_at_expiry(now, side) + 400 * 100


shape = st.sampled_from(
    ["call vertical", "put vertical", "butterfly", "broken butterfly", "condor", "box", "straddled"]
)


def legs_of(name, strikes, n, m):
    """(kind, strike, size) of structures whose loss at expiry is bounded on both sides, whatever the sizes."""
    k1, k2, k3, k4 = strikes
    return {
        "call vertical": ((Kind.CALL, k1, n), (Kind.CALL, k2, -n)),
        "put vertical": ((Kind.PUT, k1, n), (Kind.PUT, k2, -n)),
        "butterfly": ((Kind.CALL, k1, n), (Kind.CALL, k2, -2 * n), (Kind.CALL, 2 * k2 - k1, n)),
        "broken butterfly": ((Kind.PUT, k1, n), (Kind.PUT, k2, -n - m), (Kind.PUT, k4, m)),
        "condor": ((Kind.PUT, k1, n), (Kind.PUT, k2, -n), (Kind.CALL, k3, -m), (Kind.CALL, k4, m)),
        "box": ((Kind.CALL, k1, n), (Kind.PUT, k1, -n), (Kind.CALL, k3, -n), (Kind.PUT, k3, n)),
        # not a textbook's: bounded all the same, since as many calls are bought as sold
        "straddled": ((Kind.CALL, k1, n), (Kind.CALL, k3, -n), (Kind.PUT, k2, m), (Kind.PUT, k4, -m)),
    }[name]


@settings(deadline=None, max_examples=120)
@given(
    shape,
    st.lists(st.integers(200, 12_000), min_size=4, max_size=4, unique=True).map(sorted),
    st.integers(1, 500),
    st.integers(1, 500),
    st.integers(WAD // 50, 4 * WAD),
    st.integers(-WAD // 2, WAD // 2),
    st.integers(1, 800 * DAY),
    st.sampled_from([0, 1]),
    st.sampled_from([1, -1]),
)
def test_any_defined_risk_is_never_charged_more_than_it_can_lose(name, strikes, n, m, vol, carry, left, side, sign):
    legs = legs_of(name, [k * WAD for k in strikes], sign * n * WAD, sign * m * WAD)
    positions = tuple(option(kind, strike, size, expiry=T0 + left, vol=vol, carry=carry) for kind, strike, size in legs)
    marked = tuple(
        replace(p, mark=value(p.instrument.kind, SPOT, p.instrument.strike, carry, vol, left)) for p in positions
    )
    report = margin(*marked, side=side)
    rounding = 40 * sum(abs(size) // WAD + 1 for _, _, size in legs)
    assert report.maintenance <= report.initial <= worst_at_expiry(marked, side) + rounding
    if name == "box":
        assert report.initial == 0


# ------------------------------------------------------------------------------ the independent slow implementation


def real(x):
    return mpf(x.numerator) / x.denominator if isinstance(x, Fraction) else mpf(x)


def slow_grid(market, spot):
    """(price, vol factor, weight) of every scenario, as exact fractions."""
    scan, up, down, wing = (
        Fraction(x, WAD) for x in (market.price_scan, market.vol_up, market.vol_down, market.wing_cover)
    )
    floor = Fraction(spot, 20)
    grid = [(spot * (1 + Fraction(k, 3) * scan), v, Fraction(1)) for k in range(-3, 4) for v in (1 + up, 1 - down)]
    grid += [(spot * (1 + k * scan), 1 + up, Fraction(35, 100)) for k in (2, -2)]
    grid += [(Fraction(3 * spot), 1 + up, wing), (Fraction(spot, 3), 1 + up, 3 * wing)]
    return [(max(price, floor), factor, weight) for price, factor, weight in grid]


def slow_results(grid, book, spot, t, sign):
    """(profit, weight) of every scenario."""
    results = []
    for price, factor, weight in grid:
        total = mpf(0)
        for p in book:
            i, tau = p.instrument, p.instrument.expiry - t
            then = reference.value(i.kind, real(price), i.strike, p.carry, real(factor) * p.vol, tau)
            total += mpf(p.size) / WAD * (then - reference.value(i.kind, spot, i.strike, p.carry, p.vol, tau))
        results.append((sign * total, real(weight)))
    return results


def slow_margin(terms, body, prices, t, side):
    """Section 6 in real numbers: no integer is rounded anywhere. Returns (MM, IM) as mpf wads."""
    maintenance = initial = mpf(0)
    for market in terms.markets:
        ours = [p for p in body.positions if p.instrument.feed == market.feed]
        live = [p for p in ours if p.instrument.kind == 0 or p.instrument.expiry > t]
        if not live:
            continue
        spot = prices[market.feed]
        grid = slow_grid(market, spot)
        whole, near, soon = (
            slow_results(
                grid,
                [p for p in live if p.instrument.kind == 0 or p.instrument.expiry > t + days * DAY],
                spot,
                t,
                -1 if side else 1,
            )
            for days in (0, 1, 2)
        )
        risks = [max(0, *(-x * w for x, w in results)) for results in (whole, near, soon)]
        sizes = [p.size for p in live if p.instrument.kind <= 1]
        charge = real(Fraction(market.spread_charge, WAD)) * spot * (sum(map(abs, sizes)) - abs(sum(sizes))) / 2 / WAD
        mm = max(risks[0], risks[1]) + charge
        base = max(risks[0], risks[2]) + charge
        worst = max(0, *(-x for x, _ in whole + soon)) + charge
        maintenance += mm
        initial += max(mm, base, min(real(Fraction(terms.initial_factor, WAD)) * base, worst))
    return maintenance, initial


def random_book(draw, count):
    expiries = [T0 + s for s in (3600, DAY, DAY + 1, 2 * DAY, 7 * DAY, 90 * DAY, 3 * YEAR)]
    carries = {(f, e): draw.randint(-WAD, WAD) for f in (ETH, BTC) for e in (0, *expiries)}
    vols = {(f, e, k): draw.randint(WAD // 5, 2 * WAD) for f in (ETH, BTC) for e in expiries for k in range(12)}
    book = {}
    for _ in range(count):
        kind, feed, expiry, step = (
            draw.choice(list(Kind)),
            draw.choice([ETH, BTC]),
            draw.choice(expiries),
            draw.randrange(12),
        )
        strike = PRICES[feed] * (40 + 10 * step) // 100 if kind >= Kind.CALL else 0
        instrument = Instrument(kind, feed, 0 if kind == Kind.PERPETUAL else expiry, strike)
        size = draw.choice([1, -1]) * draw.randint(1, 50 * WAD)
        vol = vols[feed, expiry, step] if strike else 0
        book[instrument.key] = Position(instrument, size, PRICES[feed], carries[feed, instrument.expiry], vol)
    return tuple(book.values())


def tolerance(positions):
    """Wads by which integers may differ from reals: per unit of size, a few rounded prices and 1e-19 of the forward."""
    forwards = sum(abs(p.size) * PRICES[p.instrument.feed] // WAD for p in positions) * 25
    return 40 + 40 * sum(abs(p.size) // WAD + 1 for p in positions) + forwards // 10**19


def test_equals_the_slow_implementation():
    draw = random.Random(6)  # noqa: S311 - repeatable, not secret
    for count in [1, 2, 3, 4, 5, 6, 8, 10, 14] * 3:
        positions = random_book(draw, count)
        body, t = make_body(*positions), T0 + draw.choice([0, 1, 60])
        reports = both(TERMS, body, PRICES, t, WAD)
        for side in (0, 1):
            maintenance, initial = slow_margin(TERMS, body, PRICES, t, side)
            assert abs(reports[side].maintenance - maintenance) <= tolerance(positions)
            assert abs(reports[side].initial - initial) <= 2 * tolerance(positions)


# --------------------------------------------------------------------------------------------------------- properties

seeds = st.integers(0, 2**32)


@settings(deadline=None, max_examples=30)
@given(seeds, st.integers(1, 12))
def test_both_sides_are_what_each_computes_alone(seed, count):
    positions = random_book(random.Random(seed), count)  # noqa: S311 - repeatable, not secret
    body = make_body(*positions)
    a, b = both(TERMS, body, PRICES, T0 + 30, WAD)
    assert a == party_margin(TERMS, body, PRICES, T0 + 30, 0, WAD)
    assert b == party_margin(TERMS, body, PRICES, T0 + 30, 1, WAD)
    assert a.profit == -b.profit
    assert a.equity_units + b.equity_units == 2 * BALANCE
    for report in (a, b):
        assert 0 <= report.maintenance <= report.initial
        for market in report.markets:
            assert market.initial >= market.maintenance >= market.scan_risk >= 0
            assert -min(s.weighted for s in market.scenarios) <= market.scan_risk


@settings(deadline=None, max_examples=30)
@given(seeds, st.integers(1, 6), st.integers(2, 40))
def test_homogeneous_up_to_rounding(seed, count, multiple):
    positions = random_book(random.Random(seed), count)  # noqa: S311 - repeatable, not secret
    for side in (0, 1):
        once = margin(*positions, side=side)
        many = margin(*(replace(p, size=multiple * p.size) for p in positions), side=side)
        for one, more in zip(once.markets, many.markets, strict=True):
            assert multiple * one.scan_risk - 3 * multiple <= more.scan_risk <= multiple * one.scan_risk
            assert abs(more.initial - multiple * one.initial) <= 8 * multiple


@settings(deadline=None, max_examples=30)
@given(seeds, st.integers(2, 10))
def test_scan_risk_is_sub_additive(seed, count):
    positions = random_book(random.Random(seed), count)  # noqa: S311 - repeatable, not secret
    half = len(positions) // 2

    def risk(book, side):
        return sum(m.scan_risk for m in margin(*book, side=side).markets)

    for side in (0, 1):
        assert risk(positions, side) <= risk(positions[:half], side) + risk(positions[half:], side)


bounds_size = st.sampled_from([1, -1, 2**95 - 1, 1 - 2**95])


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(list(Kind)), bounds_size, st.sampled_from([1, WAD, 2**96 - 1])), max_size=4),
    st.sampled_from([1, 19, WAD, 2**96 - 1]),
    st.sampled_from([0, 1, 2**64 - 1]),
    st.sampled_from([0, WAD]),
    st.sampled_from([-5 * WAD, 0, 5 * WAD]),
    st.sampled_from([1, 2 * DAY, 6 * YEAR]),
)
def test_total_over_the_bounds_and_within_256_bits(legs, spot, parameter, vol_down, carry, left):
    market = Market(ETH, parameter, parameter, vol_down, parameter, parameter)
    terms = make_terms(markets=(market,), initial_factor=max(parameter, WAD))
    book = {}
    for kind, size, strike in legs:
        instrument = Instrument(kind, ETH, 0 if kind == 0 else T0 + left, strike if kind >= 2 else 0)
        position = Position(instrument, size, 2**100 - 1, carry, 10 * WAD if kind >= 2 else 0)
        book[instrument.key] = position
    for report in both(terms, make_body(*book.values(), a=2**126, b=2**126), {ETH: spot}, T0, WAD):
        assert report.initial >= report.maintenance >= 0
        for figure in (report.initial, report.equity, report.profit):
            assert abs(figure) < 2**255


def test_vectors():
    vectors = json.loads(VECTORS.read_text())
    for case in vectors["margins"]:
        positions = [
            Position(
                Instrument(Kind(p["kind"]), bytes.fromhex(p["feed"][2:]), p["expiry"], int(p["strike"])),
                int(p["size"]),
                int(p["mark"]),
                int(p["carry"]),
                int(p["vol"]),
            )
            for p in case["positions"]
        ]  # fmt: skip - the instrument on one line, the rest on the next
        prices = {bytes.fromhex(m["feed"][2:]): int(m["price"]) for m in case["markets"]}
        for market, m in zip(TERMS.markets, case["markets"], strict=True):
            grid = scenarios(market, prices[market.feed])
            assert [str(s.price) for s in grid] == m["scenario_prices"]
        reports = both(TERMS, make_body(*positions), prices, case["t"], WAD)
        for report, side in zip(reports, case["sides"], strict=True):
            assert str(report.equity) == side["equity"]
            assert (str(report.maintenance), str(report.initial)) == (side["maintenance"], side["initial"])
            for market, m in zip(report.markets, side["markets"], strict=True):
                assert [str(s.profit) for s in market.scenarios] == m["scenario_profits"]
