"""exp, ln, sqrt and the normal tail in fixed point, against mpmath."""

from __future__ import annotations

import importlib.util
import itertools
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import erfc, exp, log, mp, mpf, nint, sqrt

from channeld.core import fixedpoint as fp
from channeld.core.wad import YEAR

mp.dps = 50
ONE = fp.ONE


def test_constants_are_their_definitions():
    assert int(nint(log(2) * 2**80)) == fp.LN2
    assert int(nint(log(2) * 2**96)) == fp.LN2_96
    assert int(nint(sqrt(2) * 2**110)) == fp.SQRT2_110


def test_tail_coefficients_are_derived_again():
    path = Path(__file__).parents[1] / "vectors" / "make_normal.py"
    spec = importlib.util.spec_from_file_location("make_normal", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    p, q, error = module.coefficients()
    assert (p, q) == (fp.TAIL_P, fp.TAIL_Q)
    assert error < mpf("1.2e-20")


@given(st.integers(-88 * ONE, 22 * ONE))
def test_exp(x):
    exact = exp(mpf(x) / ONE) * ONE
    assert abs(fp.exp_q(x) - exact) <= 1 + exact * mpf("3e-23")


def test_exp_at_zero_is_exact():
    assert fp.exp_q(0) == ONE


@given(st.integers(-88 * ONE, 22 * ONE - 2**60), st.integers(0, 2**60))
def test_exp_never_falls(x, step):
    # the approximant's own error may show, never more
    lower, higher = fp.exp_q(x), fp.exp_q(x + step)
    assert higher >= lower - 2 - lower // 10**22


@given(st.one_of(st.integers(1, 2**110 - 1), st.integers(1, 1000), st.integers(0, 109).map(lambda k: 2**k)))
def test_ln(n):
    assert abs(fp.ln_q(n) - log(mpf(n)) * ONE) <= mpf("1e-23") * ONE + 1


def test_ln_around_powers_of_two_is_continuous():
    for k in range(60, 109):
        below, at, above = (fp.ln_q(2**k + d) for d in (-1, 0, 1))
        assert -40 <= at - below <= 2 ** (82 - k) + 40
        assert -40 <= above - at <= 2 ** (82 - k) + 40


@given(st.integers(0, 5 * YEAR))
def test_sqrt_years(tau):
    exact = sqrt(mpf(tau) / YEAR) * ONE
    assert 0 <= exact - fp.sqrt_years_q(tau) <= 1 + mpf(2) ** -7 * (tau > 0) + exact / 2**60


@given(st.integers(0, 34 * ONE))
def test_tail(z):
    x = mpf(z) / ONE
    exact = exp(x * x / 2) * erfc(x / sqrt(2)) / 2 * ONE
    assert abs(fp.tail_q(z) - exact) <= 2 + exact * mpf("1.2e-20")


def test_tail_falls_from_one_half():
    draw = random.Random(5)  # noqa: S311 - repeatable, not secret
    points = sorted(draw.randrange(34 * ONE) for _ in range(2000))
    values = [fp.tail_q(z) for z in [0, *points, 34 * ONE]]
    assert values[0] <= ONE // 2 + ONE // 10**19
    assert all(x > y for x, y in itertools.pairwise(values))


@pytest.mark.parametrize(
    "x", ["-12", "-11", "-10.999999", "-3.7", "-1", "-0.000001", "0", "0.000001", "1", "6", "11", "40"]
)
def test_normal_distribution(x):
    point = int(mpf(x) * ONE)
    exact = erfc(-mpf(point) / ONE / sqrt(2)) / 2 * ONE
    assert abs(fp.normal_cdf_q(point) - exact) <= 2 + ONE // 10**20
    assert fp.normal_cdf_q(point) + fp.normal_cdf_q(-point) in (ONE, ONE + 1) or x == "0"
