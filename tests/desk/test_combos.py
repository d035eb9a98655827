"""Combos: every name reads back as the same legs, every structure pays what its name says, no leg is rounded."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import BTC, ETH, EXPIRY, call, future, perpetual, put

from channeld.core.errors import ChanneldError
from channeld.core.instruments import InstrumentNameError
from channeld.core.state import Instrument, Kind
from channeld.core.wad import DAY, WAD
from channeld.desk.combos import (
    STRUCTURES,
    Combo,
    ComboLeg,
    ComboNameError,
    ComboSizeError,
    allocate,
    build,
    combo_name,
    parse_combo,
    unit_of,
)

FAR = EXPIRY + 30 * DAY
ODD_FEED = b"A,B*c".ljust(32, b"\0")
strikes = st.integers(1, 10**6).map(lambda n: n * WAD // 4)
expiries = st.integers(1, 3000).map(lambda day: day * DAY + 8 * 3600)
feeds = st.sampled_from([ETH, BTC, ODD_FEED])
instruments = st.one_of(
    st.builds(Instrument, st.just(Kind.PERPETUAL), feeds, st.just(0), st.just(0)),
    st.builds(Instrument, st.just(Kind.FUTURE), feeds, expiries, st.just(0)),
    st.builds(Instrument, st.sampled_from([Kind.CALL, Kind.PUT]), feeds, expiries, strikes),
)
ratios = st.integers(-1000 * 100, 1000 * 100).filter(bool).map(lambda n: n * WAD // 100)


def combo_of(legs: dict[Instrument, int]) -> Combo:
    return Combo(tuple(ComboLeg(i, legs[i]) for i in sorted(legs, key=lambda i: i.key)))


combos = st.dictionaries(instruments, ratios, min_size=1, max_size=6).map(combo_of)


@st.composite
def structured(draw) -> tuple[str, Combo]:
    code = draw(st.sampled_from(sorted(STRUCTURES)))
    structure = STRUCTURES[code]
    dates = sorted(draw(st.sets(expiries, min_size=structure.expiries, max_size=structure.expiries)))
    levels = sorted(draw(st.sets(strikes, min_size=structure.strikes, max_size=structure.strikes)))
    if not structure.ascending and draw(st.booleans()):
        levels.reverse()
    return code, build(code, draw(feeds), dates, levels)


@given(combos)
def test_every_combo_has_a_name_that_reads_back(combo):
    assert parse_combo(combo_name(combo)) == combo


@given(structured(), st.booleans())
def test_a_structure_bought_or_sold_keeps_its_code(pair, sold):
    code, combo = pair
    name = combo_name(-combo if sold else combo)
    assert parse_combo(name) == (-combo if sold else combo)
    assert name.startswith("-1*") or name.endswith(f"-{code}") or not sold
    # a call spread sold is the one of the strikes the other way round; all others keep their own name
    assert name.rsplit("-", 1)[1] == code or code in {"CS", "PS"}


@given(combos, st.integers(1, 10**6))
def test_sizes_are_exact_or_refused(combo, multiple):
    size = multiple * unit_of(combo)
    for leg, (instrument, delta) in zip(combo.legs, combo.sizes(size), strict=True):
        assert (leg.instrument, Fraction(leg.ratio * size, WAD)) == (instrument, delta)
    if unit_of(combo) > 1:
        with pytest.raises(ComboSizeError):
            combo.sizes(size + 1)


@given(combos, st.integers(-(10**24), 10**24), st.lists(st.integers(0, 10**23), min_size=6, max_size=6))
def test_an_allocation_costs_exactly_the_net_price(combo, net, fair):
    values = {leg.instrument: price for leg, price in zip(combo.legs, fair, strict=False)}
    try:
        prices = allocate(combo, net, values)
    except ComboSizeError:
        return
    assert sum(leg.ratio * prices[leg.instrument] for leg in combo.legs) == net * WAD
    assert all(0 <= price < 1 << 96 for price in prices.values())
    assert sum(prices[i] != values[i] for i in prices) <= 1


@pytest.mark.parametrize(
    ("name", "legs"),
    [
        ("ETH-25JUN25-3000/3200-CS", {call(3000): 1, call(3200): -1}),
        ("ETH-25JUN25-3200/3000-PS", {put(3200): 1, put(3000): -1}),
        ("ETH-25JUN25-3000-STRD", {call(3000): 1, put(3000): 1}),
        ("ETH-25JUN25-2800/3200-STRG", {put(2800): 1, call(3200): 1}),
        ("ETH-25JUN25-2800/3000/3200-CBUT", {call(2800): 1, call(3000): -2, call(3200): 1}),
        ("ETH-25JUN25-2800/3000/3200-IBUT", {put(2800): 1, put(3000): -1, call(3000): -1, call(3200): 1}),
        ("ETH-25JUN25-1/2/3/4-PCON", {put(1): 1, put(2): -1, put(3): -1, put(4): 1}),
        ("ETH-25JUN25-2800/3200-RR", {put(2800): -1, call(3200): 1}),
        ("ETH-25JUN25-2800/3200-COL", {perpetual(): 1, put(2800): 1, call(3200): -1}),
        ("ETH-25JUN25-3200-CCF", {future(): 1, call(3200): -1}),
        ("-0.5*ETH-25JUN25-3000-STRD, 0.25*BTC-PERP", {call(): -0.5, put(): -0.5, perpetual(BTC): 0.25}),
    ],
)
def test_names_mean_what_desks_mean_by_them(name, legs):
    eight = 1_750_838_400  # 25 June 2025, 08:00 UTC
    wanted = {
        Instrument(i.kind, i.feed, eight if i.expiry else 0, i.strike): int(ratio * WAD) for i, ratio in legs.items()
    }
    assert parse_combo(name) == combo_of(wanted)


def test_two_expiries():
    near, far = call(3000), call(3000, expiry=FAR)
    assert build("CCAL", ETH, (EXPIRY, FAR), (3000 * WAD,)) == combo_of({near: -WAD, far: WAD})
    assert build("FS", ETH, (EXPIRY, FAR), ()) == combo_of({future(): -WAD, future(expiry=FAR): WAD})


def test_a_condor_never_pays_less_than_nothing():
    """A butterfly, a condor and a call spread bought are worth no less than zero at any price of their expiry."""
    for code, levels in (("CS", 2), ("CBUT", 3), ("CCON", 4), ("PBUT", 3), ("PCON", 4)):
        combo = build(code, ETH, (EXPIRY,), tuple(range(1000 * WAD, (1000 + 100 * levels) * WAD, 100 * WAD)))
        for spot in range(800, 1700, 25):
            worth = {
                leg.instrument: max(0, (spot * WAD - leg.instrument.strike) * (1 if leg.instrument.kind == 2 else -1))
                for leg in combo.legs
            }
            assert combo.cost(worth) >= 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ETH-25JUN25-3000/3000-CS",
        "ETH-25JUN25-3200/2800-STRG",
        "ETH-25JUN25/24JUN25-3000-CCAL",
        "ETH-25JUN25-3000-CS",
        "ETH-25JUN25-1/2/3/4/5-CCON",
        "0*ETH-PERP",
        "1*2*ETH-PERP",
        "ETH-PERP,ETH-PERP",
        ",".join(f"ETH-25JUN25-{n}-C" for n in range(1, 18)),
        "1001*ETH-PERP",
        "ETH-31JUN25-3000-STRD",
        "x" * 2000,
    ],
)
def test_what_is_no_combo_is_refused(text):
    with pytest.raises((ComboNameError, InstrumentNameError)):
        parse_combo(text)


@given(st.text(max_size=60))
def test_any_text_is_a_combo_or_a_typed_error(text):
    try:
        combo = parse_combo(text)
    except ChanneldError:
        return
    assert parse_combo(combo_name(combo)) == combo
