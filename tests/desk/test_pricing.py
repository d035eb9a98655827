"""Advisory prices: implied vols that come back, premiums and worst cases worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import BTC, ETH, EXPIRY, T0, call, future, leg, perpetual, put

from channeld.core.state import MAX_VOL, MIN_VOL
from channeld.core.valuation import value
from channeld.core.wad import DAY, WAD
from channeld.desk.pricing import VOL_STEP, NoImpliedVolError, Premium, edge_given, implied_vol, premium_of

SPOT = 3000 * WAD
TAU = 10 * DAY


@given(
    st.integers(20, 1000).map(lambda n: n * 100 * VOL_STEP),
    st.sampled_from([2600, 3000, 3400]),
    st.booleans(),
    st.integers(-20, 20),
)
@settings(max_examples=60, deadline=None)
def test_a_vol_comes_back_from_its_price(vol, strike, is_call, carry):
    instrument = call(strike) if is_call else put(strike)
    carry = carry * WAD // 100
    price = value(instrument.kind, SPOT, instrument.strike, carry, vol, TAU)
    assert implied_vol(instrument, SPOT, carry, TAU, price) == vol


@given(st.integers(100, 2900 * 100))
@settings(max_examples=60, deadline=None)
def test_the_nearest_vol_is_given(cents):
    price = cents * WAD // 100
    i = call(3000)

    def at(vol: int) -> int:
        return value(i.kind, SPOT, i.strike, 0, vol, TAU)

    if not at(MIN_VOL) <= price <= at(MAX_VOL):
        with pytest.raises(NoImpliedVolError):
            implied_vol(i, SPOT, 0, TAU, price)
        return
    vol = implied_vol(i, SPOT, 0, TAU, price)
    assert MIN_VOL <= vol <= MAX_VOL
    for other in (max(MIN_VOL, vol - VOL_STEP), min(MAX_VOL, vol + VOL_STEP)):
        assert abs(at(vol) - price) <= abs(at(other) - price)


def test_the_ends_of_the_range_are_vols_too():
    i = call(3000)
    for vol in (MIN_VOL, MAX_VOL):
        assert implied_vol(i, SPOT, 0, TAU, value(i.kind, SPOT, i.strike, 0, vol, TAU)) == vol


@pytest.mark.parametrize("price", [0, 3001])
def test_a_price_that_no_vol_gives_is_refused(price):
    with pytest.raises(NoImpliedVolError, match="between 1% and 1000%"):
        implied_vol(call(3000), SPOT, 0, TAU, price * WAD)


def test_where_vol_has_no_effect_there_is_none():
    with pytest.raises(NoImpliedVolError, match="does not depend"):
        implied_vol(call(2900), SPOT, 0, 0, 100 * WAD)
    with pytest.raises(NoImpliedVolError, match="does not depend"):
        implied_vol(perpetual(), SPOT, 0, TAU, SPOT)


BUY, SELL = 0, 1  # the sides of a trade whose sizes are a's


@pytest.mark.parametrize(
    ("legs", "side", "premium", "lose"),
    [
        # a long option costs its premium and can lose it
        ((leg(call(), 10, 150),), BUY, 1500, 1500),
        ((leg(put(), 10, 150),), BUY, 1500, 1500),
        # a short call has no bottom; a short put loses its strike less the premium
        ((leg(call(), 10, 150),), SELL, -1500, None),
        ((leg(put(3000), 10, 150),), SELL, -1500, 30_000 - 1500),
        # call vertical: bought 3000, sold 3200
        ((leg(call(3000), 1, 150), leg(call(3200), -1, 80)), BUY, 70, 70),
        ((leg(call(3000), 1, 150), leg(call(3200), -1, 80)), SELL, -70, 200 - 70),
        # put spread: bought 3000, sold 2700
        ((leg(put(3000), 2, 140), leg(put(2700), -2, 50)), BUY, 180, 180),
        ((leg(put(3000), 2, 140), leg(put(2700), -2, 50)), SELL, -180, 600 - 180),
        # ratio: more calls sold than bought
        ((leg(call(3000), 1, 150), leg(call(3200), -2, 80)), BUY, -10, None),
        # straddle and strangle, sold
        ((leg(call(3000), 1, 150), leg(put(3000), 1, 140)), BUY, 290, 290),
        ((leg(call(3000), 1, 150), leg(put(3000), 1, 140)), SELL, -290, None),
        # iron condor, sold: wings of 100 for a credit of 40
        (
            (
                leg(put(2700), 1, 20),
                leg(put(2800), -1, 40),
                leg(call(3200), -1, 40),
                leg(call(3300), 1, 20),
            ),
            BUY,
            -40,
            60,
        ),
        # bought at a loss that cannot be: a butterfly for nothing loses nothing
        ((leg(call(2900), 1, 0), leg(call(3000), -2, 0), leg(call(3100), 1, 0)), BUY, 0, 0),
        # a credit for what cannot lose is no loss
        ((leg(call(3000), 1, 0), leg(call(3100), -1, 10)), BUY, -10, 0),
        # what depends on more than one price is not judged
        ((leg(perpetual(), 1, 3000),), BUY, 3000, None),
        ((leg(future(), 1, 3000),), BUY, 3000, None),
        ((leg(call(), 1, 150), leg(call(expiry=EXPIRY + DAY), -1, 160)), BUY, -10, None),
        ((leg(call(), 1, 150), leg(call(60_000, BTC), 1, 160)), BUY, 310, None),
    ],
)
def test_premium_and_worst_case(legs, side, premium, lose):
    assert premium_of(legs, side) == Premium(premium * WAD, None if lose is None else lose * WAD)


def test_what_one_side_gives_away_the_other_gains():
    legs = (leg(call(), 2, 200), leg(perpetual(), -1, 2990))
    given_by_a, given_by_b = (edge_given(legs, side, {ETH: SPOT}, T0) for side in (0, 1))
    fair = value(call().kind, SPOT, call().strike, 0, 6 * WAD // 10, EXPIRY - T0)
    assert abs(given_by_a - (2 * (200 * WAD - fair) + 10 * WAD)) <= 2
    assert abs(given_by_a + given_by_b) <= 2


def test_an_expired_option_is_worth_its_intrinsic_value():
    assert edge_given((leg(call(2900), 1, 130),), 0, {ETH: SPOT}, EXPIRY + 5) == 30 * WAD
