"""Fixed-point exp, ln, square root and normal tail: docs/arithmetic.md, section 2, integer for integer.

Rules: every number here is an integer scaled by ONE = 2**80 ("q numbers"), never a wad and never a float.
contracts/RiskEngine.vy computes the same integers by the same steps: a change of any constant, shift or order of
operations here is a change of protocol, and tests/vectors/valuation.json pins them. Functions assume their stated
domain and check nothing: their callers clamp, so that a valuation can never raise. `>>` rounds down, also for negative
numbers (the EVM's SAR); a division of a signed number truncates toward zero (the EVM's SDIV).
"""

from __future__ import annotations

from math import isqrt

from channeld.core.wad import YEAR, sdiv

SCALE = 80
ONE = 1 << SCALE
# ln 2, scaled by 2**80 and 2**96; the square root of 2, scaled by 2**110; each to the nearest integer
LN2 = 837963523372001241319908
LN2_96 = 54916777467707473351141471128
SQRT2_110 = 1835754159301792232857008151837349
MAX_LN_BITS = 110
# exp reduces its argument by whole multiples of ln 2; the bias keeps the dividend of that division positive
EXP_BIAS = 128
# exp(-z*z/2) is below 2**-80 from here on (it is 2**-87), so the tail beyond it is zero
TAIL_END = 11 * ONE

# exp(z*z/2) * N(-z) on [0, 34] by a ratio of polynomials, P of degree 11 over monic Q of degree 12, lowest degree
# first, scaled by ONE. The minimax fit of the relative error (1.1e-20) found by Remez's exchange:
# tests/vectors/make_normal.py derives these numbers again. All are positive, so Horner's rule loses nothing to
# cancellation.
TAIL_P = (
    7387103254309113884786106612889,
    12920756119274847538592841689292,
    11225731504484517072226949574138,
    6286725361948913577097348708363,
    2499097960425086805108068409238,
    736884503086335299406773888169,
    164113936774075397708280003900,
    27606662049740049815432016178,
    3443657842574305543843385583,
    304516623555915039452167234,
    17288278276638847479179577,
    482291623313214264165694,
)
TAIL_Q = (
    14774206508618227769735958276703,
    37629623509889384471954904651809,
    45088455382025190400616612283280,
    33663391812499759020246458414947,
    17474724883500153137727780739399,
    6658851574685701795201053507499,
    1914780643215495854410903493718,
    419917933587385352412260419739,
    69960531792877851514912220901,
    8675305403421040127626811790,
    764518904521174588879263221,
    43335287147901622446768180,
)
# the coefficients below the leading ones, highest degree first, as Horner's rule takes them
_TAIL_STEPS = tuple(zip(TAIL_P[10::-1], TAIL_Q[10::-1], strict=True))


def exp_q(x: int) -> int:
    """exp(x), x and the result scaled by ONE. Domain: -88 <= x / ONE <= 22.

    Reduction by powers of two and the [7/7] Pade approximant: relative error below 3e-23, or one unit.
    exp_q(0) is exactly ONE.
    """
    k = (x + EXP_BIAS * LN2 + (LN2 >> 1)) // LN2 - EXP_BIAS
    r = x - k * LN2
    t = (r * r) >> 80
    even = ((((56 * t + (25200 << 80)) * t >> 80) + (1995840 << 80)) * t >> 80) + (17297280 << 80)
    odd = ((((((t + (1512 << 80)) * t >> 80) + (277200 << 80)) * t >> 80) + (8648640 << 80)) * r) >> 80
    return (((even + odd) << 112) // (even - odd)) >> (32 - k)


def ln_q(n: int) -> int:
    """ln(n) of a plain positive integer, the result scaled by ONE. Domain: 1 <= n < 2**110.

    n = 2**k * m with m in [1, 2); ln n = (k + 1/2) ln 2 + 2 atanh((m - sqrt 2) / (m + sqrt 2)), atanh by its [5/5] Pade
    approximant (Gauss's continued fraction): absolute error below 1e-23. A ratio of wads is a difference of two.
    """
    k = n.bit_length() - 1
    m = n << (MAX_LN_BITS - k)
    s = sdiv((m - SQRT2_110) << 80, m + SQRT2_110)
    t = (s * s) >> 80
    p = (19225635 << 80) - 327680 * t
    p = (552473922 << 80) - ((t * ((175855680 << 80) - (t * p >> 80))) >> 80)
    p = (305540235 << 80) - ((t * ((698377680 << 80) - (t * p >> 80))) >> 80)
    q = (52026975 << 80) - 2401245 * t
    q = (758107350 << 80) - ((t * ((312161850 << 80) - (t * q >> 80))) >> 80)
    q = (305540235 << 80) - ((t * ((800224425 << 80) - (t * q >> 80))) >> 80)
    return sdiv(2 * s * p, q) + ((2 * k + 1) * LN2_96 >> 17)


def sqrt_years_q(tau: int) -> int:
    """sqrt(tau / YEAR), scaled by ONE, rounded down; tau in seconds. Domain: 0 <= tau < 2**64."""
    return isqrt((tau << 160) // YEAR)


def tail_q(z: int) -> int:
    """exp(z*z/2) * N(-z), N the standard normal distribution (Mills' ratio over sqrt(2 pi)); scaled by ONE.

    Domain: 0 <= z / ONE <= 34. Relative error below 1.2e-20. 1/2 at zero, falling.
    """
    p = TAIL_P[11]
    q = z + TAIL_Q[11]
    for p_next, q_next in _TAIL_STEPS:
        p = (p * z >> 80) + p_next
        q = (q * z >> 80) + q_next
    return (p << 80) // q


def normal_cdf_q(x: int) -> int:
    """The standard normal distribution N(x), x and the result scaled by ONE; absolute error below 1e-20. Any x."""
    z = abs(x)
    tail = 0 if z >= TAIL_END else exp_q(-(z * z >> 81)) * tail_q(z) >> 80
    return tail if x < 0 else ONE - tail
