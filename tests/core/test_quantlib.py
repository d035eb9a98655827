"""Prices and greeks against QuantLib's Black formula and Black calculator over thousands of random cases."""

from __future__ import annotations

import math
import random
import warnings

import pytest

from channeld.core.greeks import greeks
from channeld.core.state import Kind
from channeld.core.valuation import value
from channeld.core.wad import DAY, WAD, YEAR

with warnings.catch_warnings():
    # the wrapper that QuantLib is built with warns of itself on some versions of Python
    warnings.simplefilter("ignore", DeprecationWarning)
    ql = pytest.importorskip("QuantLib", reason="QuantLib is not installed: pip install QuantLib")

CASES = 4_000


def random_case(draw: random.Random):
    """Kind, spot, strike, carry, vol and seconds to expiry: integers of the protocol, moneyness to five deviations."""
    spot = draw.randrange(1, 10**6) * 10 ** draw.randrange(12, 19)
    carry = draw.choice([0, draw.randrange(-WAD * 6 // 10, WAD * 6 // 10)])
    vol = draw.randrange(WAD // 50, 4 * WAD)
    tau = draw.choice([draw.randrange(60, 7 * DAY), draw.randrange(DAY, 3 * YEAR)])
    deviation = vol / WAD * math.sqrt(tau / YEAR)
    forward = spot * math.exp(carry / WAD * tau / YEAR)
    # within 0.01 to 100 forwards, where the protocol promises its accuracy, and floats still have theirs
    ratio = min(max(math.exp(draw.uniform(-5, 5) * deviation), 0.01), 100)
    return draw.choice([Kind.CALL, Kind.PUT]), spot, max(1, int(forward * ratio)), carry, vol, tau


def calculator(kind, spot, strike, carry, vol, tau):
    """QuantLib's, undiscounted, on the forward; (calculator, forward, years)."""
    years = tau / YEAR
    forward = spot / WAD * math.exp(carry / WAD * years)
    payoff = ql.PlainVanillaPayoff(ql.Option.Call if kind == Kind.CALL else ql.Option.Put, strike / WAD)
    return ql.BlackCalculator(payoff, forward, vol / WAD * math.sqrt(years), 1.0), forward, years


def test_prices_over_thousands_of_random_cases():
    draw = random.Random(11)  # noqa: S311 - repeatable, not secret
    worst = 0.0
    for _ in range(CASES):
        case = random_case(draw)
        theirs, forward, _ = calculator(*case)
        worst = max(worst, abs(value(*case) / WAD - theirs.value()) / forward)
    print(f"greatest difference from QuantLib: {worst:.3g} forwards")  # noqa: T201 - a figure for the reader of -s
    assert worst < 1e-12


def test_greeks_over_thousands_of_random_cases():
    draw = random.Random(12)  # noqa: S311 - repeatable, not secret
    for _ in range(CASES):
        case = random_case(draw)
        kind, spot, strike, carry, vol, tau = case
        ours = greeks(kind, spot / WAD, strike / WAD, carry / WAD, vol / WAD, tau)
        theirs, forward, years = calculator(*case)
        s, sigma = spot / WAD, vol / WAD
        # vega per point, rho (to carry) per point: QuantLib's rho at a discount of one keeps the discounting, so it is
        # taken from its forward delta, which the carry moves through the forward alone
        for got, other, scale in (
            (ours.price, theirs.value(), forward),
            (ours.delta, theirs.delta(s), forward / s),
            (ours.gamma, theirs.gamma(s), 1 / (s * sigma * math.sqrt(years)) * (forward / s) ** 2),
            (ours.vega, theirs.vega(years) / 100, forward * math.sqrt(years) / 100),
            (ours.rho, theirs.deltaForward() * forward * years / 100, forward * years / 100),
            (ours.theta, _theta(theirs, case), forward * (sigma / math.sqrt(years) + abs(carry / WAD)) / 365),
            (ours.vanna, _difference(case, "delta"), forward / s / sigma / 100),
            (ours.volga, _difference(case, "vega"), forward * math.sqrt(years) / sigma / 10_000),
        ):
            assert got == pytest.approx(other, rel=2e-6, abs=2e-8 * scale), case


def _theta(theirs, case) -> float:
    """Theta a day from QuantLib's own greeks, by Black's equation on the forward: no rate, the spot standing still.

    dV/dt = -(vega * vol / 2T) - delta_forward * forward * carry; QuantLib's `theta` would take the drift of the spot.
    """
    _, spot, _, carry, vol, tau = case
    years = tau / YEAR
    forward = spot / WAD * math.exp(carry / WAD * years)
    decay = theirs.vega(years) * vol / WAD / (2 * years)
    return -(decay + theirs.deltaForward() * forward * carry / WAD) / 365


def _difference(case, name: str) -> float:
    """A central difference in vol of QuantLib's delta or vega, per point."""
    kind, spot, strike, carry, vol, tau = case
    step = vol / WAD * 1e-5
    results = []
    for sign in (1, -1):
        shifted, _, years = calculator(kind, spot, strike, carry, vol + sign * step * WAD, tau)
        results.append(shifted.delta(spot / WAD) if name == "delta" else shifted.vega(years) / 100)
    return (results[0] - results[1]) / (2 * step) / 100
