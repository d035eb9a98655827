"""The advisory grid against the exact valuation, at the corners of its bounds, and what it refuses."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channeld.core.margin import scenarios
from channeld.core.state import Instrument, Kind, Position
from channeld.core.terms import Market, feed_id
from channeld.core.valuation import value
from channeld.core.wad import DAY, WAD, YEAR
from channeld.desk import grid
from channeld.desk.grid import GridBook, GridDomainError, cross, profits, values

ETH = feed_id("ETH")
T0 = 1_750_000_000
BAD = [math.nan, math.inf, -math.inf, -1.0, 1e300, "x", None]


def book_of(rows) -> GridBook:
    return GridBook(*np.asarray(rows, dtype=float).T)


finite = st.floats(allow_nan=False, allow_infinity=False)
row = st.tuples(
    st.sampled_from(list(Kind)),
    st.floats(-1e6, 1e6),
    st.floats(1e-3, 1e7),
    st.floats(1e-3, 1e7),
    st.floats(-5, 5),
    st.floats(0.01, 10),
    st.floats(-YEAR, 7 * YEAR),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(row, min_size=1, max_size=8), st.lists(st.tuples(st.floats(0.05, 5), st.floats(0.01, 3)), max_size=5))
def test_within_1e_12_of_the_forward_of_the_exact_values(rows, moves):
    price_factors, vol_factors = [p for p, _ in moves], [v for _, v in moves]
    found = values(book_of(rows), price_factors, vol_factors)
    assert found.shape == (len(rows), len(moves))
    for n, (kind, _, spot, strike, carry, vol, left) in enumerate(rows):
        for j, (price_factor, vol_factor) in enumerate(moves):
            shocked = int(spot * price_factor * WAD)
            tau = int(left) if kind != Kind.PERPETUAL else 0
            exact = value(
                kind,
                shocked,
                int(strike * WAD) if kind >= Kind.CALL else 0,
                int(carry * WAD),
                int(min(max(vol * vol_factor, 0.01), 10) * WAD),
                tau,
            )
            forward = shocked / WAD * math.exp(min(max(carry * min(max(tau, 0), 5 * YEAR) / YEAR, -2), 2))
            # a second of time, cut off above, matters near expiry more than the arithmetic does
            slack = 1e-12 * (forward + strike) + _of_a_second(kind, forward, carry, vol * vol_factor, tau)
            assert abs(found[n, j] - exact / WAD) <= slack


def _of_a_second(kind, forward, carry, vol, tau):
    if kind == Kind.PERPETUAL or tau >= 5 * YEAR or tau < 0:
        return 0.0
    root = math.sqrt((tau + 1) / YEAR) - math.sqrt(tau / YEAR)
    return forward * (min(max(vol, 0.01), 10) * root + abs(carry) / YEAR)


def test_whole_seconds_need_no_slack():
    draw = random.Random(4)  # noqa: S311 - repeatable, not secret
    worst = 0.0
    for _ in range(60):
        strike, vol, left = draw.randrange(300, 30_000), draw.randrange(1, 1000), draw.randrange(1, 5 * YEAR)
        kind = draw.choice([Kind.CALL, Kind.PUT])
        factors = [draw.randrange(5, 500) / 100 for _ in range(20)]
        found = values(book_of([(kind, 1, 3000, strike, 0.05, vol / 100, left)]), factors, [1.0] * 20)[0]
        for factor, one in zip(factors, found, strict=True):
            spot = round(factor * 100) * 30 * WAD
            exact = value(kind, spot, strike * WAD, WAD // 20, vol * WAD // 100, left)
            worst = max(worst, abs(one - exact / WAD) / (spot / WAD))
    assert worst < 1e-12


def test_the_protocols_own_scenarios_give_its_own_profits():
    market = Market(ETH, 11 * WAD // 100, 6 * WAD // 10, 35 * WAD // 100, WAD // 50, WAD // 200)
    spot = 3000 * WAD
    positions = [
        Position(Instrument(Kind.CALL, ETH, T0 + 30 * DAY, 3200 * WAD), 5 * WAD, WAD, WAD // 20, WAD // 2),
        Position(Instrument(Kind.PUT, ETH, T0 + 30 * DAY, 2500 * WAD), -3 * WAD, WAD, WAD // 20, WAD // 2),
        Position(Instrument(Kind.FUTURE, ETH, T0 + 30 * DAY, 0), 2 * WAD, WAD, WAD // 20, 0),
        Position(Instrument(Kind.PERPETUAL, ETH, 0, 0), -WAD, WAD, WAD // 10, 0),
    ]
    shocks = scenarios(market, spot)
    for side in (0, 1):
        book = GridBook.of(positions, {ETH: spot}, T0, side)
        found = profits(book, [s.price / spot for s in shocks], [s.vol_factor / WAD for s in shocks])
        for p, row_of in zip(positions, found, strict=True):
            i = p.instrument
            tau = i.expiry - T0 if i.expiry else 0
            now = value(i.kind, spot, i.strike, p.carry, p.vol, tau)
            for shock, one in zip(shocks, row_of, strict=True):
                then = value(i.kind, shock.price, i.strike, p.carry, p.vol * shock.vol_factor // WAD, tau)
                sign = -1 if side else 1
                assert one == pytest.approx(sign * p.size / WAD * (then - now) / WAD, abs=1e-8)


def test_parity_and_bounds_hold_in_every_cell():
    rows = [(kind, 1, 3000, 100 * k, 0.1, 0.8, 40 * DAY) for k in range(1, 100) for kind in (Kind.CALL, Kind.PUT)]
    found = values(book_of(rows), *cross([m / 10 for m in range(-9, 30)], [-0.5, 0, 2]))
    calls, puts = found[0::2], found[1::2]
    future = values(
        book_of([(Kind.FUTURE, 1, 3000, 0, 0.1, 0, 40 * DAY)]), *cross([m / 10 for m in range(-9, 30)], [0] * 3)
    )
    strikes = np.array([100.0 * k for k in range(1, 100)])[:, None]
    assert np.max(np.abs(calls - puts - (future - strikes))) < 1e-9
    assert np.min(calls) >= 0
    assert np.min(puts) >= 0
    assert np.all(calls <= future + 1e-9)


def test_blocks_change_nothing(monkeypatch):
    rows = [(2 + n % 2, n - 30, 3000, 1500 + 50 * n, 0.02, 0.4 + n / 100, n * DAY) for n in range(60)]
    moves = cross([-0.3, 0, 0.3], [-0.2, 0, 0.2])
    whole = values(book_of(rows), *moves)
    monkeypatch.setattr(grid, "_BLOCK", 1)
    assert np.array_equal(values(book_of(rows), *moves), whole)


def test_time_that_passes_ends_in_the_payoff():
    book = book_of([(Kind.CALL, 2, 3000, 2900, 0, 0.8, DAY), (Kind.PUT, -1, 3000, 3100, 0, 0.8, DAY)])
    for elapsed in (DAY, 2 * DAY, 10.0 * YEAR):
        assert values(book, [1, 1.1], [1, 1], elapsed).tolist() == [[100.0, pytest.approx(400)], [100.0, 0.0]]


def test_an_empty_book_and_no_scenario():
    empty = GridBook.of([], {}, T0)
    assert values(empty, [1.0], [1.0]).shape == (0, 1)
    assert values(book_of([(2, 1, 1, 1, 0, 1, 1)]), [], []).shape == (1, 0)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("column", range(7))
def test_hostile_numbers_in_a_book_are_refused(column, bad):
    if column in {1, 4, 6} and bad == -1.0:
        return  # a short size, a negative carry and an expiry in the past are ordinary
    good = [2.0, 1.0, 3000.0, 3000.0, 0.0, 0.5, 86400.0]
    columns = [[x] for x in good]
    columns[column] = [bad]
    with pytest.raises(GridDomainError):
        GridBook(*columns)


@pytest.mark.parametrize("bad", [*BAD, 0.0])
def test_hostile_scenarios_are_refused(bad):
    book = book_of([(2, 1, 3000, 3000, 0, 0.5, DAY)])
    with pytest.raises(GridDomainError):
        values(book, [bad], [1.0])
    if bad != 0.0:
        with pytest.raises(GridDomainError):
            values(book, [1.0], [bad])
    if bad not in (0.0, -1.0):
        with pytest.raises(GridDomainError):
            values(book, [1.0], [1.0], bad)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(GridDomainError, match="one length"):
        GridBook([2.0], [1.0, 2.0], [1.0], [1.0], [0.0], [1.0], [1.0])
    with pytest.raises(GridDomainError, match="list of numbers"):
        GridBook([[2.0]], [1.0], [1.0], [1.0], [0.0], [1.0], [1.0])
    with pytest.raises(GridDomainError, match="kind"):
        GridBook([2.5], [1.0], [1.0], [1.0], [0.0], [1.0], [1.0])
    with pytest.raises(GridDomainError, match="strike"):
        GridBook([2.0], [1.0], [1.0], [0.0], [0.0], [1.0], [1.0])
    with pytest.raises(GridDomainError, match="price factors"):
        values(book_of([(2, 1, 1, 1, 0, 1, 1)]), [1.0, 1.0], [1.0])
    with pytest.raises(GridDomainError, match="cells"):
        values(book_of([(0, 1, 1, 0, 0, 0, 0)] * 1000), [1.0] * 60_000, [1.0] * 60_000)
    position = Position(Instrument(Kind.PERPETUAL, ETH, 0, 0), WAD, WAD, 0, 0)
    with pytest.raises(GridDomainError, match="price"):
        GridBook.of([position], {}, T0)
