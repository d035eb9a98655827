"""Greeks of a book and profit explained: sums that mean something, and a total that is the exact profit."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channeld.core.state import Instrument, Kind, Position
from channeld.core.terms import feed_id
from channeld.core.valuation import funding, value
from channeld.core.wad import DAY, WAD, YEAR
from channeld.desk.exposure import (
    Explained,
    Exposure,
    Held,
    Interval,
    Moment,
    NoSpotError,
    Traded,
    by_expiry,
    by_feed,
    explain,
    explain_trade,
    explained,
    exposures,
    unit_greeks,
)

ETH, BTC = feed_id("ETH"), feed_id("BTC")
T0 = 1_750_000_000
MONTH = T0 + 30 * DAY
SPOTS = {ETH: 3000 * WAD, BTC: 60_000 * WAD}
PERP = Instrument(Kind.PERPETUAL, ETH, 0, 0)
CALL = Instrument(Kind.CALL, ETH, MONTH, 3200 * WAD)
PUT = Instrument(Kind.PUT, BTC, MONTH + DAY, 50_000 * WAD)
FUTURE = Instrument(Kind.FUTURE, ETH, MONTH, 0)
BOOK = (
    Held(PERP, 5 * WAD, WAD // 10, 0),
    Held(FUTURE, -2 * WAD, WAD // 20, 0),
    Held(CALL, -10 * WAD, WAD // 20, WAD * 6 // 10),
    Held(PUT, 3 * WAD, WAD // 50, WAD // 2),
)
PARTS = ("delta", "gamma", "vega", "theta", "carry", "funding", "trades", "residual")


def test_what_b_holds_is_the_opposite():
    position = Position(CALL, 7 * WAD, WAD, WAD // 20, WAD // 2)
    mine, theirs = (exposures([Held.of(position, side)], SPOTS, T0)[0][1] for side in (0, 1))
    assert mine + theirs == Exposure()
    assert mine.vega > 0


def test_sums_by_expiry_and_feed():
    rows = exposures(BOOK, SPOTS, T0)
    assert list(by_expiry(rows)) == [(BTC, MONTH + DAY), (ETH, 0), (ETH, MONTH)]
    eth = by_feed(rows)[ETH]
    assert eth.delta == pytest.approx(sum(x.delta for h, x in rows if h.instrument.feed == ETH))
    assert by_expiry(rows)[ETH, 0] == Exposure(15_000, 5, 0, 0, pytest.approx(-5 * 3000 * 0.1 / 365))
    assert exposures(BOOK, SPOTS, MONTH + DAY) == [rows[0]]


def test_a_missing_spot_is_named():
    with pytest.raises(NoSpotError):
        exposures(BOOK, {BTC: WAD}, T0)
    moment = Moment(T0, {}, {})
    with pytest.raises(NoSpotError):
        explain(BOOK[0], Interval(moment, moment, {}))
    with pytest.raises(NoSpotError):
        explain_trade(Traded(CALL, WAD, WAD, 0, WAD, T0), Interval(moment, moment, {}))


prices_of = st.integers(1000, 9000).map(lambda n: n * WAD)


@settings(deadline=None, max_examples=80)
@given(prices_of, prices_of, st.integers(0, 40 * DAY), st.integers(20, 200), st.integers(-50, 50))
def test_the_parts_add_up_to_the_exact_profit(spot, later_spot, passed, vol, carry):
    end = T0 + passed
    fixes = {(ETH, MONTH): 3300 * WAD}
    start, stop = Moment(T0, {**SPOTS, ETH: spot}, {}), Moment(end, {**SPOTS, ETH: later_spot}, fixes)
    moved = Held(CALL, -10 * WAD, carry * WAD // 100, vol * WAD // 100)
    interval = Interval(start, stop, {CALL: moved})
    for held in (BOOK[0], BOOK[1], BOOK[2]):
        found = explain(held, interval)
        i = held.instrument
        expired = 0 < i.expiry <= end
        at_end = interval.after.get(i, held)
        final = value(i.kind, 3300 * WAD if expired else later_spot, i.strike, at_end.carry, at_end.vol, i.expiry - end)
        first = value(i.kind, spot, i.strike, held.carry, held.vol, i.expiry - T0)
        paid = funding(held.size, first, held.carry, passed) if i.kind == Kind.PERPETUAL else 0
        exact = (held.size * (final - first) // WAD - paid) / WAD
        assert found.total == pytest.approx(exact, abs=1e-9 * abs(held.size / WAD) * 1e4)
        assert sum(getattr(found, name) for name in PARTS) == pytest.approx(found.total, abs=1e-6)
        if i.kind == Kind.PERPETUAL:
            assert found.funding == pytest.approx(-paid / WAD)
            assert found.theta == 0
            assert found.residual == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("spot", "vol", "carry", "passed", "name"),
    [
        (3003, 60, 5, 0, "delta"),
        (3000, 61, 5, 0, "vega"),
        (3000, 60, 6, 0, "carry"),
        (3000, 60, 5, 3600, "theta"),
    ],
)
def test_a_small_move_of_one_thing_is_explained_by_its_greek(spot, vol, carry, passed, name):
    start = Moment(T0, SPOTS, {})
    stop = Moment(T0 + passed, {**SPOTS, ETH: spot * WAD}, {})
    found = explain(BOOK[2], Interval(start, stop, {CALL: Held(CALL, 0, carry * WAD // 100, vol * WAD // 100)}))
    others = [n for n in PARTS if n not in (name, "residual", "gamma")]
    assert getattr(found, name) == pytest.approx(found.total, rel=0.02)
    assert all(getattr(found, n) == 0 for n in others)
    assert abs(found.residual) < 0.02 * abs(found.total)


def test_gamma_takes_most_of_what_delta_leaves():
    start, stop = Moment(T0, SPOTS, {}), Moment(T0, {**SPOTS, ETH: 3060 * WAD}, {})
    found = explain(BOOK[2], Interval(start, stop, {}))
    assert abs(found.residual) < 0.1 * abs(found.gamma) < abs(found.delta)


def test_what_expires_ends_at_its_fix_and_without_one_gains_nothing():
    start, stop = Moment(T0, SPOTS, {}), Moment(MONTH + 60, {**SPOTS, ETH: 9000 * WAD}, {(ETH, MONTH): 3300 * WAD})
    found = explain(BOOK[2], Interval(start, stop, {}))
    now = value(Kind.CALL, 3000 * WAD, CALL.strike, BOOK[2].carry, BOOK[2].vol, 30 * DAY) / WAD
    assert found.total == pytest.approx(-10 * (100 - now))
    assert explain(BOOK[2], Interval(start, Moment(MONTH, SPOTS, {}), {})) == Explained()


def test_trades_gain_from_their_price_to_the_end():
    stop = Moment(T0 + DAY, SPOTS, {})
    interval = Interval(Moment(T0, SPOTS, {}), stop, {PERP: BOOK[0]})
    bought = Traded(PERP, 2 * WAD, 2990 * WAD, 0, 0, T0)
    found = explain_trade(bought, interval)
    assert found.total == found.trades == pytest.approx(20 - 2 * 2990 * 0.1 / 365)
    rows, total = explained(BOOK, [bought], interval)
    assert total.total == pytest.approx(sum(row.total for row in rows.values()))
    assert rows[PERP].trades == found.trades
    assert (
        explain_trade(Traded(CALL, WAD, WAD, 0, WAD, T0), Interval(stop, Moment(MONTH, SPOTS, {}), {})) == Explained()
    )


@given(st.integers(1, 5 * YEAR), st.integers(100, 100_000))
def test_rho_of_a_future_is_what_a_point_of_carry_adds(left, price):
    held = Held(Instrument(Kind.FUTURE, ETH, T0 + left, 0), WAD, 0, 0)
    unit = unit_greeks(held, price * WAD, T0)
    bumped = Held(held.instrument, WAD, WAD // 100, 0).worth(price * WAD, T0) / WAD
    assert bumped - price == pytest.approx(price * (math.exp(0.01 * left / YEAR) - 1))
    assert unit.rho == pytest.approx(price * left / YEAR / 100)
