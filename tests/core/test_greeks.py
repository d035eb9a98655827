"""Greeks against numerical derivatives of the high-precision reference, published figures and hostile numbers."""

from __future__ import annotations

import math

import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mpf

from channeld.core.greeks import GreeksDomainError, greeks
from channeld.core.state import Kind
from channeld.core.valuation import value
from channeld.core.wad import DAY, WAD, YEAR

CASES = [
    (kind, 3000.0, strike, carry, vol, tau)
    for kind in (Kind.CALL, Kind.PUT)
    for strike in (2000.0, 3000.0, 4200.0)
    for carry in (0.0, 0.12, -0.3)
    for vol, tau in ((0.35, 5 * DAY), (0.8, 30 * DAY), (1.5, 400 * DAY))
]


def worth(kind, spot, strike, carry, vol, seconds) -> mpf:
    """The reference in ordinary units; every argument a real number."""
    exponent = mpf(carry) * seconds / YEAR
    forward = mpf(spot) * reference.exp(exponent)
    deviation = mpf(vol) * reference.sqrt(mpf(seconds) / YEAR)
    d1 = reference.log(forward / strike) / deviation + deviation / 2
    sign = 1 if kind == Kind.CALL else -1
    return sign * (forward * reference.normal(sign * d1) - strike * reference.normal(sign * (d1 - deviation)))


def slope(function, x, step) -> mpf:
    """A central difference in 50 digits."""
    return (function(mpf(x) + step) - function(mpf(x) - step)) / (2 * mpf(step))


@pytest.mark.parametrize("case", CASES)
def test_against_numerical_derivatives(case):
    kind, spot, strike, carry, vol, tau = case
    g = greeks(*case)
    step = mpf("1e-12")
    expected = (
        worth(*case),
        slope(lambda s: worth(kind, s, strike, carry, vol, tau), spot, step),
        slope(lambda s: slope(lambda r: worth(kind, r, strike, carry, vol, tau), s, step), spot, step),
        slope(lambda v: worth(kind, spot, strike, carry, v, tau), vol, step) / 100,
        -slope(lambda seconds: worth(kind, spot, strike, carry, vol, seconds), tau, mpf("1e-6")) * DAY,
        slope(lambda c: worth(kind, spot, strike, c, vol, tau), carry, step) / 100,
        slope(lambda v: slope(lambda s: worth(kind, s, strike, carry, v, tau), spot, step), vol, step) / 100,
        slope(lambda v: slope(lambda u: worth(kind, spot, strike, carry, u, tau), v, step), vol, step) / 10_000,
    )
    ours = (g.price, g.delta, g.gamma, g.vega, g.theta, g.rho, g.vanna, g.volga)
    for got, exact in zip(ours, expected, strict=True):
        assert got == pytest.approx(float(exact), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_price_is_the_exact_value(case):
    kind, spot, strike, carry, vol, tau = case
    exact = value(
        kind, int(spot) * WAD, int(strike) * WAD, round(carry * 100) * WAD // 100, round(vol * 100) * WAD // 100, tau
    )
    assert greeks(*case).price == pytest.approx(exact / WAD, rel=1e-10)


def test_hulls_figures():
    # S = 42, K = 40, r = 10%, vol 20%, T = 0.5: call 4.7594, put 0.8086, discounted at r
    discount = math.exp(-0.05)
    call = greeks(Kind.CALL, 42, 40, 0.1, 0.2, YEAR // 2)
    put = greeks(Kind.PUT, 42, 40, 0.1, 0.2, YEAR // 2)
    assert round(call.price * discount, 4) == 4.7594
    assert round(put.price * discount, 4) == 0.8086
    assert call.delta * discount == pytest.approx(0.7791, abs=5e-5)


def test_linear_instruments():
    assert greeks(Kind.PERPETUAL, 3000, 0, 0.1, 0, 0) == greeks(Kind.PERPETUAL, 3000, 5, 0.1, 7, 99)
    perpetual = greeks(Kind.PERPETUAL, 3000, 0, 0.0365, 0, 0)
    assert (perpetual.price, perpetual.delta, perpetual.gamma, perpetual.vega) == (3000, 1, 0, 0)
    assert perpetual.theta == pytest.approx(-0.3)
    future = greeks(Kind.FUTURE, 3000, 0, 0.1, 0, YEAR)
    assert future.price == pytest.approx(3000 * math.exp(0.1))
    assert future.delta == pytest.approx(math.exp(0.1))
    assert future.theta == pytest.approx(-0.1 * future.price / 365)
    assert future.rho == pytest.approx(future.price / 100)
    assert (perpetual.rho, perpetual.vanna, perpetual.volga, future.vanna, future.volga) == (0, 0, 0, 0, 0)
    assert greeks(Kind.FUTURE, 3000, 0, 0.1, 0, 0).theta == 0
    assert greeks(Kind.FUTURE, 3000, 0, 5, 0, 5 * YEAR).theta == 0


def test_at_expiry_the_payoff():
    assert greeks(Kind.CALL, 3100, 3000, 0.1, 0.5, 0).price == pytest.approx(100)
    assert greeks(Kind.CALL, 3100, 3000, 0.1, 0.5, 0).delta == 1
    assert greeks(Kind.PUT, 3100, 3000, 0.1, 0.5, -60) == greeks(Kind.PUT, 3100, 3000, 0, 0.5, 0)
    assert greeks(Kind.PUT, 2900, 3000, 0, 0.5, 0).delta == -1


def test_call_and_put_share_gamma_and_vega():
    call, put = (greeks(kind, 3000, 3300, 0.05, 0.7, 30 * DAY) for kind in (Kind.CALL, Kind.PUT))
    assert call.gamma == put.gamma
    assert call.vega == put.vega
    assert call.delta - put.delta == pytest.approx(math.exp(0.05 * 30 / 365))


@given(
    st.sampled_from(list(Kind)),
    st.floats(1e-18, 7.9e10),
    st.floats(1e-18, 7.9e10),
    st.floats(-5, 5),
    st.floats(0.01, 10),
    st.floats(-100, 1e9),
)
def test_finite_wherever_it_answers(kind, spot, strike, carry, vol, tau):
    g = greeks(kind, spot, strike, carry, vol, tau)
    assert all(math.isfinite(x) for x in (g.price, g.delta, g.gamma, g.vega, g.theta, g.rho, g.vanna, g.volga))
    assert g.price >= 0
    assert g.gamma >= 0
    assert g.vega >= 0


HOSTILE = [math.nan, math.inf, -math.inf, "3000", None, True, 1 + 2j]


@pytest.mark.parametrize("bad", HOSTILE)
@pytest.mark.parametrize("place", range(1, 6))
def test_hostile_numbers_are_typed_errors(bad, place):
    arguments = [Kind.CALL, 3000.0, 3000.0, 0.0, 0.5, 86400.0]
    arguments[place] = bad
    with pytest.raises(GreeksDomainError):
        greeks(*arguments)


@pytest.mark.parametrize(
    ("place", "bad"),
    [(0, 4), (0, -1), (0, None), (1, 0), (1, -1), (2, 0), (2, -5), (3, 5.01), (3, -6), (4, 0), (4, 0.009), (4, 11)],
)
def test_out_of_domain_is_a_typed_error(place, bad):
    arguments = [Kind.CALL, 3000.0, 3000.0, 0.0, 0.5, 86400.0]
    arguments[place] = bad
    with pytest.raises(GreeksDomainError):
        greeks(*arguments)
