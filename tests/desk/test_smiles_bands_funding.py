"""A desk's own vols, the bands it tells, carries by index: against formulas written again here, and hostile input."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import ETH, EXPIRY, T0, Desk, call, leg, perpetual, put

from channeld.core.acceptance import MarginRefusedError, Prices, StaleVolsError, check_acceptance
from channeld.core.errors import ChanneldError
from channeld.core.operations import Batch, Trade, encode_batch
from channeld.core.state import MAX_VOL, MIN_VOL, Position
from channeld.core.transition import apply
from channeld.core.wad import WAD, YEAR
from channeld.desk.bands import CARRY_STEP, VOL_STEP, BadBandsError, Bands, pack_bands, unpack_bands
from channeld.desk.funding import DAMPER, MOST_GAP, Path, annual, damped, premium
from channeld.desk.marks import Surface
from channeld.desk.own_vols import OwnVols
from channeld.desk.smiles import ByDelta, ByStrike, SurfaceError, Svi, read_smiles, smile_vol

SECONDS = 30 * 86_400
SVI = Svi(0.012, 0.06, -0.4, 0.02, 0.15)
finite = st.floats(allow_nan=False, allow_infinity=False)


# --- smiles -------------------------------------------------------------------------------------------------------


@given(st.integers(500, 20_000), st.integers(-WAD // 5, WAD // 5))
def test_svi_is_the_formula(strike, carry):
    tau = SECONDS / YEAR
    k = math.log(strike / 3000) - carry / WAD * tau
    w = 0.012 + 0.06 * (-0.4 * (k - 0.02) + math.sqrt((k - 0.02) ** 2 + 0.15**2))
    found = smile_vol(SVI, 3000 * WAD, strike * WAD, carry, SECONDS)
    assert found / WAD == pytest.approx(math.sqrt(w / tau), rel=1e-6)


@given(
    st.lists(st.tuples(st.integers(100, 10_000), st.floats(0.1, 3)), min_size=1, max_size=8, unique_by=lambda p: p[0])
)
def test_a_table_by_strike_gives_its_points_and_stays_between_them(points):
    points = sorted((float(strike), vol) for strike, vol in points)
    smile = ByStrike(tuple(points))
    for strike, vol in points:
        assert smile_vol(smile, 3000 * WAD, int(strike) * WAD, 0, SECONDS) / WAD == pytest.approx(vol, rel=1e-6)
    for strike in (50, 700, 2_500, 90_000):
        found = smile_vol(smile, 3000 * WAD, strike * WAD, 0, SECONDS) / WAD
        assert min(v for _, v in points) - 1e-6 <= found <= max(v for _, v in points) + 1e-6


def test_a_table_by_delta_gives_each_vol_where_the_delta_is():
    smile = ByDelta(((0.25, 0.7), (0.5, 0.6), (0.75, 0.65)))
    tau = SECONDS / YEAR
    for delta, vol in smile.points:
        # the strike whose forward delta at that vol is delta, found by bisection
        low, high = 500.0, 20_000.0
        for _ in range(60):
            middle = (low + high) / 2
            d1 = (math.log(3000 / middle) + vol * vol * tau / 2) / (vol * math.sqrt(tau))
            low, high = (middle, high) if (1 + math.erf(d1 / math.sqrt(2))) / 2 > delta else (low, middle)
        found = smile_vol(smile, 3000 * WAD, round(low * 1e6) * 10**12, 0, SECONDS)
        assert found / WAD == pytest.approx(vol, abs=2e-4)


@given(
    st.builds(
        lambda a, b, r, m, s: (a, b, r, m, s),
        st.floats(0, 2),
        st.floats(0, 1),
        st.floats(-0.99, 0.99),
        st.floats(-3, 3),
        st.floats(0.001, 2),
    ),
    st.integers(1, 2**96 - 1),
    st.integers(1, 2**96 - 1),
    st.integers(-5 * WAD, 5 * WAD),
    st.integers(-(10**6), 10**10),
)
@settings(max_examples=300)
def test_what_a_smile_gives_is_always_a_vol(svi, spot, strike, carry, seconds):
    try:
        smile = Svi(*svi)
    except SurfaceError:
        return
    for one in (smile, ByStrike(((1.0, 0.5), (5.0, 0.6))), ByDelta(((0.1, 0.9), (0.9, 0.4)))):
        assert MIN_VOL <= smile_vol(one, spot, strike, carry, seconds) <= MAX_VOL


@pytest.mark.parametrize(
    "smile",
    [
        {"expiry": "ETH-27DEC30"},
        {"expiry": "ETH-27DEC30", "svi": {}, "strikes": {}},
        {"expiry": "ETH-PERP", "strikes": {"3000": "0.6"}},
        {"expiry": "ETH-27DEC30", "strikes": {}},
        {"expiry": "ETH-27DEC30", "strikes": {"0": "0.6"}},
        {"expiry": "ETH-27DEC30", "strikes": {"3000": "nan"}},
        {"expiry": "ETH-27DEC30", "strikes": {"inf": "0.6"}},
        {"expiry": "ETH-27DEC30", "strikes": {"3000": "11"}},
        {"expiry": "ETH-27DEC30", "strikes": {"3000": "0.6", "3000.0": "0.7"}},
        {"expiry": "ETH-27DEC30", "deltas": {"1.2": "0.6"}},
        {"expiry": "ETH-27DEC30", "deltas": {"0": "0.6"}},
        {"expiry": "ETH-27DEC30", "deltas": {"-0.25": "0.6", "0.75": "0.7"}},
        {"expiry": "ETH-27DEC30", "svi": {"a": 0, "b": -1, "rho": 0, "m": 0, "sigma": 1}},
        {"expiry": "ETH-27DEC30", "svi": {"a": -1, "b": 0.1, "rho": 0, "m": 0, "sigma": 1}},
        {"expiry": "ETH-27DEC30", "svi": {"a": 1, "b": 1.9, "rho": 0.5, "m": 0, "sigma": 1}},
        {"expiry": "ETH-27DEC30", "svi": {"a": 1, "b": 0.1, "rho": 1, "m": 0, "sigma": 1}},
        {"expiry": "ETH-27DEC30", "svi": {"a": "1e999", "b": 0.1, "rho": 0, "m": 0, "sigma": 1}},
        {"expiry": "ETH-27DEC30", "strikes": {"3000": "0.6"}, "more": 1},
        "ETH-27DEC30",
    ],
)
def test_a_smile_that_cannot_be_is_refused(smile):
    with pytest.raises(ChanneldError):
        read_smiles([smile])


# --- bands --------------------------------------------------------------------------------------------------------

vols = st.integers(MIN_VOL, MAX_VOL)
ranges = st.tuples(vols, vols).map(lambda pair: (min(pair), max(pair)))


@given(vols, ranges, vols)
def test_what_the_sequencer_sets_the_follower_signs_and_it_gets_there(agreed, band, wanted):
    i = call()
    bands = Bands(vols={(i.feed, i.expiry, i.strike): band})
    vol = agreed
    for _ in range(101):
        p = Position(i, WAD, 0, 0, vol)
        after = bands.vol(p, wanted)
        assert bands.allow(p, 0, after)
        assert abs(after - vol) <= VOL_STEP
        vol = after
    assert vol == min(max(wanted, band[0]), band[1])


@given(st.integers(-5 * WAD, 5 * WAD), st.integers(-5 * WAD, 5 * WAD))
def test_carries_are_kept_in_the_same_manner(agreed, wanted):
    p = Position(perpetual(), WAD, 0, agreed, 0)
    bands = Bands()
    after = bands.carry(p, wanted)
    assert bands.allow(p, after, 0)
    assert abs(after - agreed) <= CARRY_STEP


def test_half_a_step_towards_a_band_or_past_it_is_not_signed():
    i = call()
    bands = Bands(vols={(i.feed, i.expiry, i.strike): (80 * WAD // 100, 90 * WAD // 100)})
    p = Position(i, WAD, 0, 0, 60 * WAD // 100)
    assert not bands.allow(p, 0, 65 * WAD // 100)
    assert bands.allow(p, 0, 70 * WAD // 100)
    assert bands.allow(p, 0, 85 * WAD // 100)
    assert not bands.allow(p, 0, 91 * WAD // 100)
    assert not bands.allow(p, 0, 50 * WAD // 100)


@given(st.dictionaries(st.tuples(st.just(ETH), st.integers(1, 2**63), st.integers(1, 2**96 - 1)), ranges, max_size=8))
def test_bands_come_back_as_they_went(rows):
    bands = Bands(rows, {(ETH, 0): (-WAD, WAD)}, WAD // 20, WAD // 4)
    assert unpack_bands(pack_bands(bands)) == bands


@given(st.binary(max_size=80))
def test_bytes_that_are_no_bands_are_refused(raw):
    with pytest.raises(BadBandsError):
        unpack_bands(raw)


@pytest.mark.parametrize(
    "bands",
    [
        Bands(vols={(ETH, 1, WAD): (WAD, WAD - 1)}),
        Bands(vols={(ETH, 1, WAD): (0, WAD)}),
        Bands(carries={(ETH, 0): (-6 * WAD, WAD)}),
        Bands(vol_band=-1),
        Bands({(ETH, n, WAD): (WAD, WAD) for n in range(1, 66)}),
    ],
)
def test_bands_out_of_bounds_are_refused(bands):
    with pytest.raises(BadBandsError):
        unpack_bands(pack_bands(bands))


# --- funding ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("percent", "rate"),
    [("0.03", "0.005"), ("0.025", "0"), ("0", "0"), ("-0.02", "0"), ("-0.1", "-0.075"), ("3", "0.5"), ("-3", "-0.5")],
)
def test_the_damper_is_the_exchanges(percent, rate):
    p = round(float(percent) * 1e6) * WAD // 10**8
    assert damped(p) == round(float(rate) * 1e6) * WAD // 10**8


@given(st.integers(-WAD, WAD))
def test_the_damper_is_odd_and_never_more_than_the_premium(p):
    assert damped(-p) == -damped(p)
    assert abs(damped(p, WAD)) == max(0, abs(p) - DAMPER)


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(-WAD // 50, WAD // 50)), min_size=1, max_size=30))
def test_the_average_over_a_path_is_by_time_and_a_gap_gives_none(steps):
    path, second = Path(), 1_000
    seen = []
    for gap, p in steps:
        second += gap
        path.add(second, p)
        seen.append((second, p))
    begin, end = seen[0][0], seen[-1][0] + 10
    times = [at for at, _ in seen] + [end]
    gaps = any(b - a > MOST_GAP for a, b in pairwise(times))
    rate = path.rate(begin, end)
    if gaps:
        assert rate is None
        return
    exact = sum(damped(p) * (b - a) for (a, p), b in zip(seen, times[1:], strict=True)) / (end - begin)
    assert rate == pytest.approx(exact, abs=2)
    assert path.rate(begin - MOST_GAP - 1, end) is None
    assert path.rate(end, end) is None


def test_a_constant_premium_costs_by_time_what_the_exchange_charges():
    path = Path()
    for second in range(0, 28_801, 60):
        path.add(second, premium(3003 * WAD, 3000 * WAD))
    rate = path.rate(0, 28_800)
    assert rate == WAD // 1000 - DAMPER
    assert annual(rate) == rate * 1095
    path.forget(28_000)
    assert path.rate(28_020, 28_800) == rate


# --- acceptance ---------------------------------------------------------------------------------------------------


def book() -> Desk:
    desk = Desk(funded=100_000 * 10**6)
    desk.do(Trade(0, (leg(call(), -100, 120), leg(put(2800), -100, 90))), at=T0)
    return desk


def after(desk: Desk, trade: Trade, now: int):
    raw = encode_batch(Batch(now * 1000, b"\x05" * 16, (trade,)))
    return apply(desk.terms, desk.state, raw, desk.state.version + 1).state.body


def prices(now: int) -> Prices:
    return Prices(now, {ETH: 3000 * WAD}, {ETH: now}, WAD)


def test_the_worse_of_agreed_and_own_vols_decides():
    desk, now = book(), T0 + 20
    trade = Trade(0, (leg(call(3200), -20, 60),))
    then = after(desk, trade, now)
    check_acceptance(desk.terms, desk.body, then, (trade,), prices(now))
    own = OwnVols()
    own.check(desk.terms, desk.body, then, (trade,), prices(now))
    own.surface = Surface(smiles={(ETH, EXPIRY): ByStrike(((3000.0, 2.6),))})
    with pytest.raises(MarginRefusedError, match="at our own vols"):
        own.check(desk.terms, desk.body, then, (trade,), prices(now))
    less = Trade(0, (leg(call(), 50, 120),))
    own.check(desk.terms, desk.body, after(desk, less, now), (less,), prices(now))


def test_new_risk_needs_vols_agreed_within_the_hour():
    desk = book()
    more, less = Trade(0, (leg(call(), -1, 120),)), Trade(0, (leg(call(), 1, 120),))
    late = T0 + 3_600
    check_acceptance(desk.terms, desk.body, after(desk, more, late), (more,), prices(late))
    late += 10
    with pytest.raises(StaleVolsError, match="agreed 3610 s ago"):
        check_acceptance(desk.terms, desk.body, after(desk, more, late), (more,), prices(late))
    check_acceptance(desk.terms, desk.body, after(desk, less, late), (less,), prices(late))
