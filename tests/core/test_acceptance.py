"""Acceptance by margin: who may go below initial margin, who may not, and what prices it needs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import BTC, ETH, T0, Desk, call, leg, make_mark, make_terms, perpetual, put

from channeld.core.acceptance import (
    MarginRefusedError,
    Prices,
    StalePriceError,
    _falls,
    check_acceptance,
    figures,
    payers,
)
from channeld.core.margin import MarginReport, both
from channeld.core.operations import Batch, CloseChannel, Deposit, Trade, Transfer, Withdraw, encode_batch
from channeld.core.transition import apply
from channeld.core.wad import WAD

USD = 10**6
SPOTS = {ETH: 3000 * WAD, BTC: 60_000 * WAD}
NOW = T0 + 30


def prices(spots=SPOTS, printed=NOW, time=NOW) -> Prices:
    return Prices(time, spots, dict.fromkeys(spots, printed), WAD)


def judged(desk: Desk, *operations, seen: Prices | None = None):
    """What acceptance says of a batch on the desk's state; the desk stays as it is."""
    raw = encode_batch(Batch(NOW * 1000, b"\0" * 16, operations))
    after = apply(desk.terms, desk.state, raw).state.body
    return check_acceptance(desk.terms, desk.body, after, operations, seen or prices())


def funded(units: int) -> Desk:
    return Desk(funded=units)


def perp(size: int, price: int = 3000, fee: int = 0, origin: int = 0) -> Trade:
    return Trade(origin, (leg(perpetual(), size, price),), fee)


def initial_of(size: int) -> int:
    """The initial margin of either side of a perpetual, in units rounded up."""
    desk = funded(10**9 * USD)
    desk.do(perp(size), at=T0)
    a, b = both(desk.terms, desk.body, SPOTS, NOW, WAD)
    assert a.initial == b.initial
    return -(-a.initial // 10**12)


def test_equity_at_initial_margin_passes_and_a_unit_less_does_not():
    needed = initial_of(10)
    reports = judged(funded(needed), perp(10))
    assert reports is not None
    assert [r.maintenance for r in reports] == [3300 * WAD] * 2
    assert all(r.equity >= r.initial for r in reports)
    with pytest.raises(MarginRefusedError) as caught:
        judged(funded(needed - 1), perp(10))
    assert caught.value.details["party"] == "a"
    assert set(caught.value.details) == {"party", "equity", "initial_margin", "maintenance_margin"}
    assert caught.value.details["initial_margin"] in str(caught.value)


def test_the_party_that_is_short_is_named():
    needed = initial_of(10)
    desk = Desk(funded=0)
    desk.do(Deposit(0, 2 * needed, needed - 1), at=T0)
    with pytest.raises(MarginRefusedError, match="party b would have equity"):
        judged(desk, perp(10))


def test_no_money_takes_no_risk_even_at_a_fair_price():
    """Equity zero is not "equity does not fall": risk must fall."""
    desk = Desk(funded=0)
    with pytest.raises(MarginRefusedError):
        judged(desk, perp(1))
    below = funded(initial_of(10))
    below.do(perp(10), at=T0)
    crash = prices({ETH: 1500 * WAD, BTC: 60_000 * WAD})
    with pytest.raises(MarginRefusedError):
        judged(below, perp(1, 1500), seen=crash)


def test_reducing_risk_passes_below_initial_margin():
    desk = funded(initial_of(10))
    desk.do(perp(10), at=T0)
    lower = prices({ETH: 2950 * WAD, BTC: 60_000 * WAD})
    a, _ = both(desk.terms, desk.body, lower.spots, NOW, WAD)
    assert 0 < a.equity < a.initial
    with pytest.raises(MarginRefusedError):
        judged(desk, perp(1, 2950), seen=lower)
    assert judged(desk, perp(-1, 2950), seen=lower)
    assert judged(desk, perp(-10, 2950), seen=lower)


def test_a_party_under_water_may_reduce_at_a_fair_price_and_not_at_a_loss():
    desk = funded(initial_of(10))
    desk.do(perp(10), at=T0)
    crash = prices({ETH: 2000 * WAD, BTC: 60_000 * WAD})
    a, _ = both(desk.terms, desk.body, crash.spots, NOW, WAD)
    assert a.equity < 0
    trade = perp(-1, 2700)
    assert judged(desk, trade, seen=crash)
    with pytest.raises(MarginRefusedError, match="party a"):
        judged(desk, perp(-1, 2690), Transfer(0, 1), seen=crash)


def test_reducing_at_a_price_that_bleeds_is_refused():
    desk = funded(initial_of(10))
    desk.do(perp(10), at=T0)
    lower = prices({ETH: 2950 * WAD, BTC: 60_000 * WAD})
    with pytest.raises(MarginRefusedError, match="party a"):
        judged(desk, perp(-1, 2500), seen=lower)


@pytest.mark.parametrize("operation", [Transfer(0, 1), Withdraw(0, 1), perp(-1, 2950, fee=1)])
def test_who_pays_must_stand_at_initial_margin(operation):
    desk = funded(initial_of(10))
    desk.do(perp(10), at=T0)
    lower = prices({ETH: 2950 * WAD, BTC: 60_000 * WAD})
    with pytest.raises(MarginRefusedError, match="party a"):
        judged(desk, operation, seen=lower)


def test_who_is_paid_need_not_stand():
    desk = funded(initial_of(10))
    desk.do(perp(10), at=T0)
    lower = prices({ETH: 2950 * WAD, BTC: 60_000 * WAD})
    assert judged(desk, Transfer(1, 5 * USD), seen=lower)
    assert judged(desk, perp(-1, 2950, fee=-5), seen=lower)


def test_payers_are_those_who_pay():
    assert payers((Transfer(0, 1), Withdraw(1, 2))) == {0, 1}
    assert payers((perp(1, fee=3),)) == {0}
    assert payers((perp(1, fee=-3),)) == {1}
    assert payers((perp(1), Deposit(0, 1, 1), CloseChannel(1))) == frozenset()


def test_marks_deposits_closes_and_nothing_are_exempt():
    desk = funded(initial_of(10))
    desk.do(perp(10), at=T0)
    nothing = Prices(NOW, {}, {}, WAD)
    mark = make_mark(desk.terms, desk.body, T0 + 10, {ETH: 2900 * 10**8})
    assert judged(desk, mark, seen=nothing) is None
    assert judged(desk, Deposit(0, desk.body.a.deposited + 1, desk.body.b.deposited), seen=nothing) is None
    assert judged(Desk(), CloseChannel(0), seen=nothing) is None
    assert judged(desk, seen=nothing) is None


def test_a_mark_exempts_nothing_beside_itself():
    desk = funded(initial_of(10))
    desk.do(perp(10), at=T0)
    mark = make_mark(desk.terms, desk.body, T0 + 10, {ETH: 2950 * 10**8})
    with pytest.raises(MarginRefusedError):
        judged(desk, mark, Withdraw(0, 1), seen=prices({ETH: 2950 * WAD, BTC: 1}))


def test_more_risk_needs_fresh_prints_of_the_whole_book():
    desk = funded(10**6 * USD)
    desk.do(Trade(0, (leg(perpetual(), 1, 3000), leg(perpetual(BTC), 1, 60_000))), at=T0)
    age = desk.terms.oracle.max_age
    edge = Prices(NOW, SPOTS, {ETH: NOW, BTC: NOW - age}, WAD)
    assert judged(desk, perp(1), seen=edge)
    stale = Prices(NOW, SPOTS, {ETH: NOW, BTC: NOW - age - 1}, WAD)
    with pytest.raises(StalePriceError, match=f"BTC is {age + 1} s old"):
        judged(desk, perp(1), seen=stale)
    assert judged(desk, perp(-1), seen=stale)
    assert judged(desk, Transfer(0, 5), seen=stale)


def test_a_feed_without_a_print_is_named():
    desk = funded(10**6 * USD)
    with pytest.raises(StalePriceError, match="no print of ETH"):
        judged(desk, perp(1), seen=prices({BTC: WAD}))
    # what was never printed counts as old as time itself
    with pytest.raises(StalePriceError, match="ETH is"):
        judged(desk, perp(1), seen=Prices(NOW, SPOTS, {}, WAD))


def test_collateral_counts_after_its_haircut():
    eth_collateral = make_terms(collateral_feed=ETH, haircut=WAD // 5)
    desk = Desk(eth_collateral, funded=0)
    desk.do(Deposit(0, 10 * USD, 10 * USD), make_mark(eth_collateral, desk.body, T0, {ETH: 3000 * 10**8}), at=T0)
    seen = replace(prices(), collateral=3000 * WAD)
    a, _ = judged(desk, perp(1), seen=seen)
    assert a.equity == 10 * 3000 * WAD * 8 // 10
    assert figures(a)["equity"] == "24000.00"


def test_options_count_too():
    desk = funded(2_000 * USD)
    with pytest.raises(MarginRefusedError, match="party b"):
        judged(desk, Trade(0, (leg(call(), 10, 150),)))
    assert judged(desk, Trade(0, (leg(call(), 1, 120), leg(put(2000), 1, 1))))


def report(equity: int, maintenance: int) -> MarginReport:
    return MarginReport(0, equity, maintenance, maintenance, 0, 0, 0, ())


@given(st.integers(-50, 50), st.integers(0, 50), st.integers(-50, 50), st.integers(0, 50))
@settings(max_examples=300)
def test_risk_never_rises_below_initial_margin(equity, maintenance, later, renewed):
    old, new = report(equity, maintenance), report(later, renewed)
    if not _falls(old, new):
        return
    assert renewed <= maintenance
    assert later - renewed >= equity - maintenance
    if equity > 0 and renewed:
        assert later / renewed >= equity / maintenance - 1e-12
    if equity <= 0:
        assert later >= equity
