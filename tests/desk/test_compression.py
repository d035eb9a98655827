"""Compression closes what cancels and nothing else: no scenario, no equity and no sign of a position changes."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

from hypothesis import example, given
from hypothesis import strategies as st
from strategies import ETH, EXPIRY, T0, make_terms

from channeld.core.acceptance import Prices
from channeld.core.margin import both
from channeld.core.operations import Batch, Trade, encode_batch
from channeld.core.risk_arrays import RiskCache
from channeld.core.state import Account, Body, Instrument, Kind, Position, State
from channeld.core.transition import apply
from channeld.core.valuation import value_position
from channeld.core.wad import WAD
from channeld.desk.compression import compression, gross

TERMS = make_terms()
STRIKES = (2_000, 2_500, 3_000, 3_500)
FUNDS = 10**15


def position(kind, size, strike=0, vol=0, expiry=EXPIRY):
    return Position(Instrument(kind, ETH, expiry, strike * WAD), size, 0, WAD // 20 if kind else 0, vol)


def book(*positions):
    held = tuple(sorted(positions, key=lambda p: p.instrument.key))
    return Body(T0, WAD, b"\1" * 32, Account(FUNDS, FUNDS, 0), Account(FUNDS, FUNDS, 0), held)


def prices(spot=3_000):
    return Prices(T0, {ETH: spot * WAD}, {ETH: T0}, WAD, {}, risk=RiskCache(TERMS))


def at_value(body, seen):
    """The book marked at its values, so that a trade at them moves no money."""
    marked = (replace(p, mark=value_position(p, seen.spots[ETH], seen.time)) for p in body.positions)
    return replace(body, positions=tuple(marked))


def after(body, legs):
    raw = encode_batch(Batch(T0 * 1000, b"\0" * 16, (Trade(0, legs),)))
    return apply(TERMS, State(b"\2" * 32, 1, body), raw, 2).state.body


SIZES = st.integers(-40, 40).filter(bool).map(lambda n: n * WAD // 4)
VOLS = {strike: WAD // 2 + n * WAD // 10 for n, strike in enumerate(STRIKES)}
EXPIRIES = st.sampled_from([EXPIRY, EXPIRY + 86_400])
# what cancels by itself, (options, futures) of one expiry and size 1: conversions and boxes
CONVERSIONS = [({(Kind.CALL, strike): -1, (Kind.PUT, strike): 1}, 1) for strike in STRIKES]
BOXES = [
    ({(Kind.CALL, low): 1, (Kind.PUT, low): -1, (Kind.CALL, high): -1, (Kind.PUT, high): 1}, 0)
    for low, high in combinations(STRIKES, 2)
]


def with_structure(options, futures, perpetual, structure, expiry, size):
    """Random positions, some replaced by a structure that cancels: no book is thrown away for want of one."""
    of_options, of_future = structure
    options = options | {(kind, strike, expiry): sign * size for (kind, strike), sign in of_options.items()}
    futures = futures | ({expiry: size} if of_future else {})
    return book(
        *(position(kind, size, strike, VOLS[strike], expiry) for (kind, strike, expiry), size in options.items()),
        *(position(Kind.FUTURE, size, expiry=expiry) for expiry, size in futures.items()),
        *([position(Kind.PERPETUAL, perpetual, expiry=0)] if perpetual else []),
    )


BOOKS = st.builds(
    with_structure,
    st.dictionaries(
        st.tuples(st.sampled_from([Kind.CALL, Kind.PUT]), st.sampled_from(STRIKES), EXPIRIES), SIZES, max_size=10
    ),
    st.dictionaries(EXPIRIES, SIZES, max_size=2),
    st.one_of(st.none(), SIZES),
    st.sampled_from(CONVERSIONS + BOXES),
    EXPIRIES,
    SIZES,
)
BOX = book(
    position(Kind.CALL, 3 * WAD, 2_500, WAD // 2),
    position(Kind.PUT, -3 * WAD, 2_500, WAD // 2),
    position(Kind.CALL, -2 * WAD, 3_500, WAD // 2),
    position(Kind.PUT, 2 * WAD, 3_500, WAD // 2),
)


def test_a_box_goes_but_for_what_is_over():
    legs = compression(BOX, prices())
    assert {(leg.instrument.kind, leg.instrument.strike // WAD): leg.size_delta // WAD for leg in legs} == {
        (Kind.CALL, 2_500): -2,
        (Kind.PUT, 2_500): 2,
        (Kind.CALL, 3_500): 2,
        (Kind.PUT, 3_500): -2,
    }
    assert gross(after(BOX, legs).positions) == 2 * WAD


def test_a_conversion_goes_and_a_straddle_stays():
    conversion = book(
        position(Kind.FUTURE, WAD), position(Kind.CALL, -WAD, 3_000, WAD // 2), position(Kind.PUT, WAD, 3_000, WAD // 2)
    )
    assert not after(conversion, compression(conversion, prices())).positions
    straddle = book(position(Kind.CALL, WAD, 3_000, WAD // 2), position(Kind.PUT, WAD, 3_000, WAD // 2))
    assert compression(straddle, prices()) == ()


def test_what_lacks_a_print_or_has_expired_stays():
    seen = prices()
    assert compression(BOX, replace(seen, spots={})) == ()
    assert compression(BOX, replace(seen, time=EXPIRY)) == ()


@given(BOOKS, st.integers(500, 9_000))
@example(BOX, 3_000)
def test_no_scenario_changes_and_no_money_moves(body, spot):
    seen = prices(spot)
    body = at_value(body, seen)
    legs = compression(body, seen)
    assert legs
    sizes = {p.instrument: p.size for p in body.positions}
    for leg in legs:
        held = sizes[leg.instrument]
        assert leg.size_delta * held < 0
        assert abs(leg.size_delta) <= abs(held)
    left = after(body, legs)
    assert gross(left.positions) < gross(body.positions)
    # what is over cancels no more
    assert compression(left, seen) == ()
    reports = [both(TERMS, b, {ETH: spot * WAD}, T0, WAD) for b in (body, left)]
    for before, now in zip(*reports, strict=True):
        # values are rounded to wads, and cash to units of the collateral
        assert abs(now.equity - before.equity) <= 10 ** (18 - TERMS.decimals) * 2
        assert now.maintenance <= before.maintenance + 1_000
