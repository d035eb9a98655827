"""What-if against the rules that decide: the same figures, the same refusals, and a border that is one."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import BTC, ETH, T0, Desk, call, leg, perpetual, put

from channeld.core.acceptance import MarginRefusedError, Prices, StalePriceError, check_acceptance
from channeld.core.errors import ChanneldError
from channeld.core.margin import both
from channeld.core.operations import Batch, Trade, encode_batch
from channeld.core.transition import apply
from channeld.core.wad import WAD
from channeld.desk.marks import Surface
from channeld.desk.what_if import what_if

USD = 10**6
SPOTS = {ETH: 3000 * WAD, BTC: 60_000 * WAD}
NOW = T0 + 30


def prices(printed=NOW) -> Prices:
    return Prices(NOW, SPOTS, dict.fromkeys(SPOTS, printed), WAD)


def asked(desk: Desk, trade: Trade, seen: Prices | None = None):
    return what_if(desk.terms, desk.state, trade, seen or prices(), NOW * 1000)


def after(desk: Desk, trade: Trade):
    return apply(desk.terms, desk.state, encode_batch(Batch(NOW * 1000, b"\0" * 16, (trade,)))).state.body


def signed(desk: Desk, trade: Trade) -> bool:
    """Whether the trade would be signed, by the functions that decide."""
    try:
        check_acceptance(desk.terms, desk.body, after(desk, trade), (trade,), prices())
    except ChanneldError:
        return False
    return True


legs_of = st.lists(
    st.tuples(
        st.sampled_from([perpetual(), call(3000), call(3300), put(2700), put(3000)]),
        st.integers(1, 60).flatmap(lambda n: st.sampled_from([n, -n])),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda pair: pair[0].key,
)
FAIR = {perpetual(): 3000, call(3000): 250, call(3300): 130, put(2700): 110, put(3000): 250}


@settings(deadline=None, max_examples=20)
@given(legs_of, legs_of, st.sampled_from([0, 1]))
def test_the_largest_passes_and_one_step_more_does_not(held, wanted, origin):
    desk = Desk(funded=50_000 * USD)
    first = Trade(0, tuple(leg(i, n, FAIR[i]) for i, n in held), 0)
    if signed(desk, first):
        desk.do(first, at=T0)
    trade = Trade(origin, tuple(leg(i, n, FAIR[i]) for i, n in wanted), 0)
    found = asked(desk, trade)
    fits = signed(desk, trade)
    assert (found.outcome.refusal is None) == fits
    if found.outcome.reports is not None:
        at = NOW - NOW % desk.terms.oracle.tick
        assert found.outcome.reports == both(desk.terms, after(desk, trade), SPOTS, at, WAD)
    if not found.largest:
        assert not fits
        return
    largest = replace(trade, legs=found.largest)
    assert signed(desk, largest)
    ratios = {x.size_delta * trade.legs[0].size_delta for x in found.largest[:1]}
    assert min(ratios) > 0
    step = [x.size_delta // _gcd(found.largest) for x in found.largest]
    more = replace(
        trade, legs=tuple(replace(x, size_delta=x.size_delta + s) for x, s in zip(found.largest, step, strict=True))
    )
    assert not signed(desk, more)
    if fits:
        assert abs(found.largest[0].size_delta) >= abs(trade.legs[0].size_delta)


def _gcd(legs) -> int:
    """Legs of a common divisor, so that one step more keeps the ratios."""
    import math  # noqa: PLC0415 - next to its one use

    return math.gcd(*(x.size_delta for x in legs))


def test_by_hand_a_perpetual_takes_what_its_initial_margin_allows():
    # a scan of 11% of 3000 and a factor of 1.3: 429 of initial margin for each; 42,900 carry one hundred
    desk = Desk(funded=42_900 * USD)
    found = asked(desk, Trade(0, (leg(perpetual(), 10, 3000),), 0))
    assert [r.initial for r in found.outcome.reports] == [4290 * WAD] * 2
    assert found.last_unit == ((0, 429 * WAD, 330 * WAD),) * 2
    assert found.largest[0].size_delta == 100 * WAD
    assert asked(desk, Trade(1, (leg(perpetual(), -10, 3000),), 0)).largest[0].size_delta == -100 * WAD


def test_a_refusal_is_told_with_the_figures_it_came_from():
    desk = Desk(funded=42_900 * USD)
    found = asked(desk, Trade(0, (leg(perpetual(), 101, 3000),), 0))
    assert isinstance(found.outcome.refusal, MarginRefusedError)
    assert found.outcome.reports[0].initial == 101 * 429 * WAD
    assert found.largest[0].size_delta == 100 * WAD
    stale = asked(desk, Trade(0, (leg(perpetual(), 1, 3000),), 0), prices(printed=NOW - 10_000))
    assert isinstance(stale.outcome.refusal, StalePriceError)
    assert stale.largest == ()


def test_what_breaks_a_rule_of_the_protocol_has_no_figures():
    desk = Desk(funded=42_900 * USD)
    found = asked(desk, Trade(0, (leg(call(3000, expiry=T0 - 10), 1, 100),), 0))
    assert found.outcome.reports is None
    assert found.outcome.refusal is not None
    assert found.last_unit is None
    assert found.largest == ()


def test_a_combo_keeps_its_ratios():
    desk = Desk(funded=1_000_000 * USD)
    fly = Trade(0, (leg(call(2700), 10, 450), leg(call(3000), -20, 250), leg(call(3300), 10, 130)), 0)
    found = asked(desk, fly)
    first = found.largest[0].size_delta
    assert [x.size_delta for x in found.largest] == [first, -2 * first, first]


def test_a_desks_own_vols_count_where_they_are_the_worse():
    desk = Desk(funded=60_000 * USD)
    trade = Trade(0, (leg(call(3300), -100, 130),), 0)
    agreed = asked(desk, trade)
    i = trade.legs[0].instrument
    wild = Surface({(i.feed, i.expiry, i.strike): 2 * WAD})
    own = what_if(desk.terms, desk.state, trade, prices(), NOW * 1000, wild)
    assert agreed.outcome.refusal is None
    assert isinstance(own.outcome.refusal, MarginRefusedError)
    assert "our own vols" in str(own.outcome.refusal)
    # the figures are the agreed ones, which both desks have; the largest size passes at both
    assert own.outcome.reports == agreed.outcome.reports
    assert 0 > own.largest[0].size_delta > agreed.largest[0].size_delta
    calm = Surface({(i.feed, i.expiry, i.strike): WAD // 10})
    assert what_if(desk.terms, desk.state, trade, prices(), NOW * 1000, calm).largest == agreed.largest
