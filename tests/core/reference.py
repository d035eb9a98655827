"""High-precision references for the tests of arithmetic: real numbers, no fixed point, nothing shared with the core.

Prices, strikes, vols, carries and values are wads given as integers or mpf; tau in seconds; results are mpf.
"""

from __future__ import annotations

from mpmath import erfc, exp, log, mp, mpf, sqrt

WAD = 10**18
YEAR = 31_536_000
mp.dps = 50


def normal(x: mpf) -> mpf:
    """The standard normal distribution."""
    return erfc(-x / sqrt(2)) / 2


def forward(spot: mpf, carry: int, tau: int) -> mpf:
    """Spot * exp(carry * years), the exponent within +-2."""
    years = mpf(min(max(tau, 0), 5 * YEAR)) / YEAR
    return mpf(spot) * exp(min(max(mpf(carry) / WAD * years, mpf(-2)), mpf(2)))


def value(kind: int, spot: mpf, strike: int, carry: int, vol: mpf, tau: int) -> mpf:
    """Spot, forward, or undiscounted Black-76 by the textbook's formula."""
    if kind == 0:
        return mpf(spot)
    f = forward(spot, carry, tau)
    if kind == 1:
        return f
    sign = 1 if kind == 2 else -1
    years = mpf(min(max(tau, 0), 5 * YEAR)) / YEAR
    deviation = min(max(mpf(vol) / WAD, mpf(1) / 100), mpf(10)) * sqrt(years)
    if deviation == 0 or f == 0:
        return max(sign * (f - strike), mpf(0))
    d1 = log(f / strike) / deviation + deviation / 2
    return sign * (f * normal(sign * d1) - strike * normal(sign * (d1 - deviation)))
