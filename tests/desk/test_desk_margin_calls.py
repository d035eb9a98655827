"""Margin calls: the machine in any order of events, amounts to the unit, and both sides' figures."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from strategies import ETH, T0, USDC, Desk, leg, make_terms, perpetual, terms_strategy

from channeld.core.acceptance import Prices
from channeld.core.margin import to_wad_equity
from channeld.core.operations import Trade
from channeld.core.terms import ZERO_FEED
from channeld.core.wad import WAD
from channeld.desk.margin_calls import (
    OPEN,
    TRANSITIONS,
    BadCallError,
    Call,
    CallState,
    CallStateError,
    CallTerms,
    Standing,
    WorthlessCollateralError,
    answer,
    check_received,
    delivery_amount,
    excess,
    from_data,
    issue,
    observe,
    required_units,
    return_amount,
    shortfall,
    standings,
    to_data,
    undelivered,
)

TERMS = make_terms()
amounts = st.integers(0, 10**30)


def make_call(**changes) -> Call:
    call = Call(
        b"\x07" * 16,
        ours=True,
        side=1,
        version=9,
        as_of=T0,
        issued=T0,
        deadline=T0 + 600,
        amount=1_000,
        equity=5 * WAD,
        maintenance=8 * WAD,
        initial=10 * WAD,
        baseline=50,
    )
    return replace(call, **changes)


def at(equity: int, *, maintenance: int = 8, initial: int = 10) -> Standing:
    return Standing(1, equity * WAD, maintenance * WAD, initial * WAD, equity)


# --- amounts ------------------------------------------------------------------------------------------------------


@given(terms_strategy(), st.integers(-(10**24), 10**24), st.integers(0, 10**40), st.integers(1, 2**96 - 1))
def test_what_is_lacking_is_the_least_that_suffices(terms, units, target, price):
    standing = Standing(0, to_wad_equity(units, terms, price), 0, target, units)
    try:
        lacking = shortfall(terms, standing, price)
    except WorthlessCollateralError:
        assert terms.collateral_feed != ZERO_FEED
        assert price * (WAD - terms.haircut) // WAD == 0
        return
    assert to_wad_equity(units + lacking, terms, price) >= target
    if lacking:
        assert standing.equity < target
        assert to_wad_equity(units + lacking - 1, terms, price) < target


@given(st.integers(-(10**12), 10**12), st.integers(0, 10**9), st.integers(0, 10**9), st.integers(1, 10**9))
def test_deliveries_round_up_and_returns_round_down(lacking, threshold, minimum, rounding):
    calling = CallTerms(threshold, minimum, rounding)
    called = delivery_amount(lacking, calling)
    assert called % rounding == 0
    if called:
        assert lacking - threshold <= called < lacking - threshold + rounding
        assert lacking - threshold >= minimum
    else:
        assert lacking - threshold <= 0 or lacking - threshold < minimum
    back = return_amount(lacking, calling)
    assert back % rounding == 0
    if back:
        assert minimum <= lacking
        assert lacking - rounding < back <= lacking
    else:
        assert lacking < max(minimum, rounding)


def test_no_amount_of_worthless_collateral_cures():
    terms = make_terms(collateral_feed=USDC, haircut=WAD)
    with pytest.raises(WorthlessCollateralError):
        required_units(terms, 1, WAD)
    assert required_units(terms, 0, WAD) == 0


@given(st.integers(0, 10**15), st.integers(10**18, 5 * 10**18))
def test_what_is_swept_leaves_what_is_to_be_kept(units, keep):
    standing = Standing(0, units * 10**12, 0, 40 * WAD, units)
    over = excess(TERMS, standing, WAD, keep=keep)
    assert 0 <= over <= units
    if over:
        assert (units - over) * 10**12 >= 40 * WAD * keep // WAD


# --- the machine --------------------------------------------------------------------------------------------------


class Calls(RuleBasedStateMachine):
    """One call, whatever happens to it in whatever order: it moves along TRANSITIONS alone, and final is final."""

    @initialize(amount=st.integers(1, 10_000), baseline=st.integers(0, 10_000))
    def begin(self, amount, baseline):
        self.call = make_call(amount=amount, baseline=baseline)
        self.seen = [self.call]
        self.now = T0
        self.deposited = baseline

    def take(self, after: Call) -> None:
        before = self.call
        assert after.state is before.state or after.state in TRANSITIONS[before.state]
        if not before.open:
            assert after == before
        assert after.agreed <= after.amount
        assert after.delivered >= before.delivered
        assert (after.amount, after.baseline, after.deadline) == (before.amount, before.baseline, before.deadline)
        self.call = after
        self.seen.append(after)

    @rule(own=st.integers(-5_000, 20_000))
    def answered(self, own):
        if self.call.state is not CallState.ISSUED:
            with pytest.raises(CallStateError):
                answer(self.call, own)
            return
        after = answer(self.call, own)
        expected = min(max(own, 0), self.call.amount)
        assert after.agreed == expected
        assert after.state is (
            CallState.DISPUTED
            if expected == 0
            else CallState.AGREED
            if expected == self.call.amount
            else CallState.PARTLY
        )
        self.take(after)

    @rule(units=st.integers(0, 4_000))
    def deposit(self, units):
        self.deposited += units

    @rule(seconds=st.integers(0, 400), equity=st.integers(-5, 12))
    def look(self, seconds, equity):
        self.now += seconds
        before = self.call
        after = observe(before, at(equity), self.deposited, self.now)
        if before.open:
            came = self.deposited - before.baseline
            if equity >= 10 or came >= before.amount:
                assert after.state is CallState.CURED
            elif self.now >= before.deadline:
                assert after.state is (CallState.EXPIRED if equity < 8 else CallState.CURED)
            else:
                assert after.open
        self.take(after)
        assert observe(after, at(equity), self.deposited, self.now) == after

    @rule()
    def restart(self):
        assert from_data(to_data(self.call)) == self.call

    @invariant()
    def what_is_open_awaits_at_most_what_was_agreed(self):
        assert 0 <= undelivered(self.call) <= self.call.agreed
        assert self.call.open == (self.call.state in OPEN)


TestCalls = Calls.TestCase


def test_the_undisputed_amount_comes_first():
    call = answer(make_call(), 400)
    assert call.state is CallState.PARTLY
    assert undelivered(call) == 400
    call = observe(call, at(6), 50 + 399, T0 + 10)
    assert call.state is CallState.PARTLY
    assert undelivered(call) == 1
    call = observe(call, at(6), 50 + 400, T0 + 20)
    assert call.state is CallState.DELIVERED
    assert observe(call, at(7), 450, T0 + 600).state is CallState.EXPIRED
    assert observe(call, at(8), 450, T0 + 600).state is CallState.CURED


def test_calls_that_make_no_sense_are_refused():
    check_received(make_call(), T0)
    for bad in (
        make_call(amount=0),
        make_call(deadline=T0),
        make_call(deadline=T0 + 10 * 86_400),
        make_call(equity=8 * WAD),
    ):
        with pytest.raises(BadCallError):
            check_received(bad, T0)


# --- figures ------------------------------------------------------------------------------------------------------


def traded(price: int = 3000, size: int = 100):
    desk = Desk()
    desk.do(Trade(0, (leg(perpetual(), size, price),)), at=T0)
    return desk


def prices(spot: int, now: int = T0 + 10) -> Prices:
    return Prices(now, {ETH: spot * WAD}, {ETH: now}, WAD)


def test_both_sides_stand_where_the_margin_says_and_unacknowledged_deposits_count():
    desk = traded()
    body = desk.body
    deposited = (body.a.deposited, body.b.deposited)
    a, b = standings(desk.terms, body, prices(2900), deposited, (0, 0))
    assert a.units == body.a.balance - 100 * 100 * 10**6
    assert b.units == body.b.balance + 100 * 100 * 10**6
    assert (a.equity, b.equity) == (a.units * 10**12, b.units * 10**12)
    more, _ = standings(desk.terms, body, prices(2900), (deposited[0] + 7, deposited[1]), (0, 0))
    assert more.units == a.units + 7
    less, _ = standings(desk.terms, body, prices(2900), deposited, (5, 0))
    assert less.units == a.units - 5


def test_a_call_brings_its_party_back_to_initial_margin():
    desk = traded(size=3000)
    body = desk.body
    deposited = (body.a.deposited, body.b.deposited)
    found = prices(2700)
    a, b = standings(desk.terms, body, found, deposited, (0, 0))
    assert a.below
    assert not b.below
    calling = CallTerms(0, 0, 10**6, 600)
    how = {"call_id": b"\x01" * 16, "version": 3, "baseline": deposited[0]}
    call = issue(desk.terms, a, found, calling, **how)
    assert call is not None
    assert call.amount % 10**6 == 0
    cured, _ = standings(desk.terms, body, found, (deposited[0] + call.amount, deposited[1]), (0, 0))
    assert cured.equity >= cured.initial
    assert cured.equity - cured.initial < 10**18
    assert observe(call, cured, deposited[0] + call.amount, T0).state is CallState.CURED
    assert issue(desk.terms, b, found, calling, **how) is None
    assert issue(desk.terms, a, found, CallTerms(threshold=call.amount), **how) is None
    assert issue(desk.terms, a, found, CallTerms(minimum=call.amount + 1), **how) is None


def test_who_owes_more_than_it_has_is_insolvent():
    desk = traded(size=3000)
    body = desk.body
    a, _ = standings(desk.terms, body, prices(2600), (body.a.deposited, body.b.deposited), (0, 0))
    assert a.insolvent
    assert a.units < 0
