"""Valuation against a high-precision reference, published figures, no-arbitrage bounds and the pinned vectors."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import reference
from hypothesis import example, given
from hypothesis import strategies as st
from mpmath import exp, log, mpf, sqrt

from channeld.core import valuation
from channeld.core.state import Account, Body, Instrument, Kind, Position
from channeld.core.terms import Market, Oracle, Party, Terms, feed_id
from channeld.core.valuation import OutOfDomainError, funding, profit, to_units, value, value_position
from channeld.core.wad import DAY, WAD, YEAR, sdiv

VECTORS = Path(__file__).parents[1] / "vectors" / "valuation.json"
ETH, BTC = feed_id("ETH"), feed_id("BTC")
ACCURACY = mpf("1e-12")
MAX = 2**96 - 1
CALL, PUT = Kind.CALL, Kind.PUT

kinds = st.sampled_from(list(Kind))
option_kinds = st.sampled_from([CALL, PUT])
spots = st.one_of(st.integers(0, MAX), st.integers(0, 10**6), st.sampled_from([0, 1, MAX]), st.integers(WAD, 10**23))
strikes = st.one_of(st.integers(1, MAX), st.integers(1, 10**6), st.sampled_from([1, MAX]), st.integers(WAD, 10**23))
carries = st.one_of(st.integers(-5 * WAD, 5 * WAD), st.sampled_from([0, 1, -1, 5 * WAD, -5 * WAD]))
vols = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, WAD // 100, 10 * WAD, 2**64 - 1]))
taus = st.one_of(st.integers(-10, 10), st.integers(0, 5 * YEAR), st.integers(0, 2**64), st.just(5 * YEAR))


def make_terms(decimals: int = 6, collateral_feed: bytes = bytes(32), haircut: int = 0) -> Terms:
    """Terms with a market on ETH."""
    party_a, party_b = (Party(bytes([n]) * 20, bytes([n + 8]) * 20) for n in (1, 2))
    oracle = Oracle((b"\x21" * 20,), 1, 10, 1, 0, 60, 7200)
    market = Market(ETH, 11 * WAD // 100, 6 * WAD // 10, 35 * WAD // 100, 2 * WAD // 100, WAD // 200)
    return Terms(
        party_a,
        party_b,
        b"\x31" * 20,
        decimals,
        collateral_feed,
        haircut,
        oracle,
        (market,),
        13 * WAD // 10,
        3 * WAD // 100,
        86_400,
        3600,
        0,
        bytes(32),
    )  # fmt: skip - one line per group of fields


def make_body(positions: tuple[Position, ...], as_of: int = 1_750_000_000) -> Body:
    """A body of two empty accounts."""
    return Body(as_of, WAD, bytes(32), Account(), Account(), positions)


def error(kind: int, spot: int, strike: int, carry: int, vol: int, tau: int) -> mpf:
    """The distance from the reference in units of the forward, beyond two units of the last place."""
    exact = reference.value(kind, spot, strike, carry, vol, tau)
    distance = abs(value(kind, spot, strike, carry, vol, tau) - exact)
    return max(distance - 2, mpf(0)) / reference.forward(spot, carry, tau)


def test_within_the_protocol_accuracy_at_random():
    draw = random.Random(20)  # noqa: S311 - repeatable, not secret
    worst = mpf(0)
    for _ in range(4000):
        spot = int(WAD * 10 ** draw.uniform(-3, 9))
        carry = draw.choice([0, draw.randint(-5 * WAD, 5 * WAD)])
        vol = int(10 ** draw.uniform(16, 19))
        tau = int(10 ** draw.uniform(0, 8.1978))
        forward = float(reference.forward(spot, carry, tau))
        deviation = vol / WAD * (tau / YEAR) ** 0.5
        ratio = draw.choice([10 ** draw.uniform(-2, 2), min(max(1 + draw.gauss(0, 2) * deviation, 0.01), 100)])
        strike = min(max(1, int(forward * ratio)), MAX)
        worst = max(worst, error(draw.choice([CALL, PUT]), spot, strike, carry, vol, tau))
    print(f"greatest error: {float(worst):.3g} forwards")  # noqa: T201 - a figure for the reader of -s
    # far inside what the protocol asks; ACCURACY is what it asks
    assert worst < mpf("1e-18") < ACCURACY


@pytest.mark.parametrize("kind", [CALL, PUT])
@pytest.mark.parametrize("ratio", ["0.01", "0.5", "0.99999", "1", "1.00001", "2", "100"])
@pytest.mark.parametrize("tau", [1, 60, DAY, YEAR, 5 * YEAR])
@pytest.mark.parametrize("vol", [WAD // 100, WAD // 2, 10 * WAD])
def test_within_the_protocol_accuracy_at_the_edges(kind, ratio, tau, vol):
    assert error(kind, 3000 * WAD, int(3000 * WAD * mpf(ratio)), 0, vol, tau) < mpf("1e-18")


def test_tiny_deviations_do_not_cancel():
    # 1% for one second: the standard deviation is 1.8e-6
    for steps in range(-30, 31):
        strike = 3000 * WAD + steps * 10**15
        assert error(CALL, 3000 * WAD, strike, 0, WAD // 100, 1) < mpf("1e-18")
        assert error(PUT, 3000 * WAD, strike, 0, WAD // 100, 1) < mpf("1e-18")


def test_a_published_black_76_figure():
    published = 82_805080668634559515
    assert abs(value(CALL, 1500 * WAD, 1500 * WAD, 0, WAD, 7 * DAY) - published) <= 1500 * 10**6
    assert value(PUT, 1500 * WAD, 1500 * WAD, 0, WAD, 7 * DAY) == value(CALL, 1500 * WAD, 1500 * WAD, 0, WAD, 7 * DAY)


def test_hull_black_76_and_black_scholes_figures():
    # F = K = 19, r = 10%, T = 0.75, vol 28%: 1.7011 discounted
    undiscounted = value(CALL, 19 * WAD, 19 * WAD, 0, 28 * WAD // 100, YEAR * 3 // 4)
    assert round(float(undiscounted * exp(mpf("-0.075")) / WAD), 4) == 1.7011
    # S = 42, K = 40, r = 10%, vol 20%, T = 0.5: call 4.7594, put 0.8086
    discount = exp(mpf("-0.05")) / WAD
    arguments = (42 * WAD, 40 * WAD, WAD // 10, WAD // 5, YEAR // 2)
    assert round(float(value(CALL, *arguments) * discount), 4) == 4.7594
    assert round(float(value(PUT, *arguments) * discount), 4) == 0.8086


@given(kinds, spots, strikes, carries, vols, taus)
@example(CALL, MAX, 1, 5 * WAD, 2**64 - 1, 5 * YEAR)
@example(CALL, 1, MAX, -5 * WAD, 0, 1)
@example(PUT, 1, MAX, -5 * WAD, 2**64 - 1, 5 * YEAR)
@example(PUT, MAX, 1, 5 * WAD, 0, 1)
def test_total_and_within_the_no_arbitrage_bounds(kind, spot, strike, carry, vol, tau):
    worth = value(kind, spot, strike, carry, vol, tau)
    forward = valuation.forward(spot, carry, tau)
    if kind == Kind.PERPETUAL:
        assert worth == spot
    elif kind == Kind.FUTURE:
        assert worth == forward
    elif kind == CALL:
        assert max(0, forward - strike) <= worth <= forward
    else:
        assert max(0, strike - forward) <= worth <= strike


@given(spots, strikes, carries, vols, taus)
def test_put_call_parity_is_exact(spot, strike, carry, vol, tau):
    difference = value(CALL, spot, strike, carry, vol, tau) - value(PUT, spot, strike, carry, vol, tau)
    assert difference == value(Kind.FUTURE, spot, strike, carry, vol, tau) - strike


def slack(*prices: int) -> int:
    """What two values may be out of order by: the accuracy of each."""
    return 3 + max(prices) // 10**19


@given(option_kinds, spots, strikes, carries, vols, vols, taus)
def test_rises_with_vol(kind, spot, strike, carry, vol, other, tau):
    low, high = (value(kind, spot, strike, carry, v, tau) for v in sorted((vol, other)))
    assert high >= low - slack(spot * 8, strike)


@given(spots, strikes, st.integers(0, 10**22), carries, vols, taus)
def test_strikes_slope_between_minus_one_and_zero(spot, strike, step, carry, vol, tau):
    higher = min(strike + step, MAX)
    fall = value(CALL, spot, strike, carry, vol, tau) - value(CALL, spot, higher, carry, vol, tau)
    tolerance = slack(min(spot * 8, higher))
    assert -tolerance <= fall <= higher - strike + tolerance


@given(spots, st.integers(0, 10**22), strikes, carries, vols, taus)
def test_call_rises_with_spot_and_never_faster_than_the_forward(spot, step, strike, carry, vol, tau):
    higher = min(spot + step, MAX)
    rise = value(CALL, higher, strike, carry, vol, tau) - value(CALL, spot, strike, carry, vol, tau)
    tolerance = slack(min(higher * 8, strike))
    assert -tolerance <= rise
    assert rise <= valuation.forward(higher, carry, tau) - valuation.forward(spot, carry, tau) + tolerance


def test_continuous_where_the_exponential_is_cut_off():
    deviation = valuation.deviation_q(WAD // 2, 30 * DAY)
    for side in (1, -1):
        edge = exp(side * mpf(11) * deviation / valuation.ONE)
        values = []
        for step in range(-5, 6):
            strike = int(3000 * WAD * edge * (1 + step * mpf("1e-4")))
            call = value(CALL, 3000 * WAD, strike, 0, WAD // 2, 30 * DAY)
            values.append(call - max(0, 3000 * WAD - strike))
        assert max(values) <= 2


@given(option_kinds, strikes, carries, vols, taus)
def test_a_spot_of_zero_gives_the_strike_to_the_put(kind, strike, carry, vol, tau):
    assert value(kind, 0, strike, carry, vol, tau) == (strike if kind == PUT else 0)


@given(option_kinds, spots, strikes, carries)
def test_intrinsic_at_expiry(kind, spot, strike, carry):
    gain = spot - strike if kind == CALL else strike - spot
    assert value(kind, spot, strike, carry, WAD, 0) == max(gain, 0)
    assert value(kind, spot, strike, carry, WAD, -5) == max(gain, 0)


def test_a_zero_carry_leaves_the_spot_alone():
    assert valuation.forward(1234567890123456789, 0, 5 * YEAR) == 1234567890123456789
    assert valuation.forward(WAD, WAD, YEAR) == 2_718281828459045235


def test_drift_is_clamped():
    assert valuation.forward(WAD, 5 * WAD, 5 * YEAR) == valuation.forward(WAD, 2 * WAD, YEAR)
    assert valuation.forward(WAD, -5 * WAD, 5 * YEAR) == valuation.forward(WAD, -2 * WAD, YEAR)


@pytest.mark.parametrize(
    "arguments",
    [
        (4, WAD, WAD, 0, WAD, 1),
        (-1, WAD, WAD, 0, WAD, 1),
        (CALL, -1, WAD, 0, WAD, 1),
        (CALL, 2**96, WAD, 0, WAD, 1),
        (CALL, WAD, 0, 0, WAD, 1),
        (CALL, WAD, 2**96, 0, WAD, 1),
        (CALL, WAD, WAD, 5 * WAD + 1, WAD, 1),
        (CALL, WAD, WAD, 0, -1, 1),
        (CALL, 1.5, WAD, 0, WAD, 1),
        (CALL, None, WAD, 0, WAD, 1),
        (CALL, WAD, "1", 0, WAD, 1),
        (CALL, WAD, WAD, 0.1, WAD, 1),
        (CALL, WAD, WAD, 0, float("nan"), 1),
        (CALL, WAD, WAD, 0, WAD, 1.0),
        (CALL, WAD, WAD, 0, WAD, None),
    ],
)
def test_out_of_domain_is_a_typed_error(arguments):
    with pytest.raises(OutOfDomainError):
        value(*arguments)


def test_funding_is_paid_by_the_long_and_truncates_at_each_step():
    # 10 ETH at 3000, 8.76% a year, one hour: 30000 * 0.0876 / 8760 = 0.3
    assert funding(10 * WAD, 3000 * WAD, 876 * 10**14, 3600) == 3 * WAD // 10
    assert funding(-10 * WAD, 3000 * WAD, 876 * 10**14, 3600) == -3 * WAD // 10
    assert funding(10 * WAD, 3000 * WAD, 876 * 10**14, -1) == 0
    assert funding(-1, 1, -1, 1) == 0


@given(st.integers(-(2**95) + 1, 2**95 - 1), st.integers(0, 2**100 - 1), carries, st.integers(0, 2**40))
def test_funding_is_antisymmetric(size, mark, carry, dt):
    assert funding(-size, mark, carry, dt) == -funding(size, mark, carry, dt)


def test_profit_of_a_small_book():
    expiry = 1_750_000_000 + 7 * DAY
    perpetual = Position(Instrument(Kind.PERPETUAL, ETH, 0, 0), 10 * WAD, 3000 * WAD, 876 * 10**14, 0)
    call = Position(Instrument(CALL, ETH, expiry, 3000 * WAD), -5 * WAD, 150 * WAD, 0, WAD)
    body = make_body((perpetual, call))
    now = body.as_of + 3600
    worth = value(CALL, 3100 * WAD, 3000 * WAD, 0, WAD, 7 * DAY - 3600)
    assert value_position(call, 3100 * WAD, now) == worth
    expected = 1000 * WAD - 3 * WAD // 10 + sdiv(-5 * WAD * (worth - 150 * WAD), WAD)
    assert profit(body, [3100 * WAD, 3100 * WAD], now) == expected
    # without a fix a position stays at its mark; funding is paid all the same
    assert profit(body, [None, None], now) == profit(body, [0, 0], now) == -3 * WAD // 10
    # expired: intrinsic value at its fix
    assert profit(body, [None, 3200 * WAD], expiry) == -5 * 50 * WAD - funding(
        10 * WAD, 3000 * WAD, 876 * 10**14, 7 * DAY
    )


def test_profit_wants_one_spot_per_position():
    perpetual = Position(Instrument(Kind.PERPETUAL, ETH, 0, 0), WAD, WAD, 0, 0)
    with pytest.raises(OutOfDomainError):
        profit(make_body((perpetual,)), [], 0)
    with pytest.raises(OutOfDomainError):
        profit(make_body((perpetual,)), [-1], 0)


def test_units_truncate_toward_zero():
    terms = make_terms(decimals=6)
    assert to_units(1_999_999_999_999, terms, WAD) == 1
    assert to_units(-1_999_999_999_999, terms, WAD) == -1
    assert to_units(-999_999_999_999, terms, WAD) == 0
    own = make_terms(decimals=18, collateral_feed=ETH, haircut=WAD // 5)
    assert to_units(3000 * WAD, own, 2000 * WAD) == 15 * WAD // 10
    assert to_units(-1, own, 2 * WAD) == 0
    with pytest.raises(OutOfDomainError):
        to_units(WAD, own, 0)


def test_vectors():
    vectors = json.loads(VECTORS.read_text())
    assert len(vectors["values"]) >= 100
    for case in vectors["values"]:
        inputs = [int(case[name]) for name in ("kind", "spot", "strike", "carry", "vol", "tau")]
        assert value(*inputs) == int(case["value"]), case
    for case in vectors["funding"]:
        assert funding(*(int(case[name]) for name in ("size", "mark", "carry", "dt"))) == int(case["funding"])
    for case in vectors["profits"]:
        positions = tuple(
            Position(
                Instrument(Kind(p["kind"]), bytes.fromhex(p["feed"][2:]), p["expiry"], int(p["strike"])),
                int(p["size"]),
                int(p["mark"]),
                int(p["carry"]),
                int(p["vol"]),
            )
            for p in case["positions"]
        )  # fmt: skip - the instrument on one line, the rest on the next
        body = make_body(positions, case["as_of"])
        assert profit(body, [int(spot) for spot in case["spots"]], case["t"]) == int(case["profit"])


def test_the_reference_itself():
    # an at-the-money option is worth F * (2 N(v/2) - 1), by hand: F * erf(v / (2 sqrt 2))
    from mpmath import erf  # noqa: PLC0415 - used here alone

    v = sqrt(mpf(1) / 4)
    assert abs(reference.value(2, WAD, WAD, 0, WAD, YEAR // 4) - WAD * erf(v / (2 * sqrt(2)))) < mpf("1e-20")
    assert abs(log(reference.forward(WAD, WAD, YEAR) / WAD) - 1) < mpf("1e-40")
