"""Policy: deny unless allowed, and within each limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import BTC, ETH, T0, call, leg, perpetual

from channeld.core.acceptance import Prices
from channeld.core.instruments import instrument_name
from channeld.core.operations import Trade
from channeld.core.state import Account, Body, Position
from channeld.core.wad import WAD
from channeld.desk.limits import deltas, vega
from channeld.desk.policy import OutsidePolicyError, Policy, RefusedByPolicyError, check_greeks, check_trade, notional
from channeld.desk.pricing import edge_given

SPOTS = {ETH: 3000 * WAD, BTC: 60_000 * WAD}
TRADE = Trade(1, (leg(perpetual(), 2, 3000), leg(perpetual(BTC), -1, 60_000)))
OPEN = Policy(auto_accept=True)


def test_by_default_everything_waits_for_a_person():
    assert not Policy().auto_accept
    with pytest.raises(OutsidePolicyError, match="wait for a person"):
        check_trade(Policy(), TRADE, SPOTS, -WAD)


def test_where_a_peer_is_trusted_a_trade_within_the_limits_passes():
    check_trade(OPEN, TRADE, SPOTS, 0)
    check_trade(Policy(auto_accept=True, max_notional=66_000 * WAD), TRADE, SPOTS, 0)


def test_notional_adds_both_directions():
    assert notional(TRADE.legs, SPOTS) == 66_000 * WAD
    with pytest.raises(OutsidePolicyError, match=r"66000\.00 is above the policy's 65999"):
        check_trade(Policy(auto_accept=True, max_notional=65_999 * WAD), TRADE, SPOTS, 0)


def test_without_a_price_no_limit_can_be_judged():
    for policy in (
        Policy(auto_accept=True, max_notional=10**9 * WAD),
        Policy(auto_accept=True, price_band=WAD),
    ):
        with pytest.raises(OutsidePolicyError, match="no price of BTC"):
            check_trade(policy, TRADE, {ETH: 3000 * WAD}, 0)
    check_trade(OPEN, TRADE, {}, 0)


def test_only_the_named_instruments_pass():
    perp, option = instrument_name(perpetual()), instrument_name(call())
    policy = Policy(auto_accept=True, instruments=(perp,))
    check_trade(policy, Trade(1, (leg(perpetual(), 2, 3000),)), SPOTS, 0)
    for trade, name in ((TRADE, "BTC-PERP"), (Trade(1, (leg(call(), 1, 5),)), option)):
        with pytest.raises(OutsidePolicyError, match=f"{name} is not among"):
            check_trade(policy, trade, SPOTS, 0)
    check_trade(Policy(auto_accept=True, instruments=("ETH-*",)), Trade(1, (leg(call(), 1, 5),)), SPOTS, 0)
    with pytest.raises(OutsidePolicyError):
        check_trade(Policy(auto_accept=True, instruments=()), TRADE, SPOTS, 0)


@pytest.mark.parametrize(("fee", "origin", "ours"), [(5, 1, True), (-5, 1, False), (5, 0, False), (-5, 0, True)])
def test_a_fee_that_this_desk_pays_is_for_a_person(fee, origin, ours):
    trade = Trade(origin, TRADE.legs, fee)
    if ours:
        with pytest.raises(OutsidePolicyError, match="a fee of 5 units"):
            check_trade(OPEN, trade, SPOTS, 0)
    else:
        check_trade(OPEN, trade, SPOTS, 0)


def test_a_trade_may_give_away_no_more_than_the_band():
    policy = Policy(auto_accept=True, price_band=WAD // 100)
    trade = Trade(1, (leg(perpetual(), 1, 3030),))
    edge = edge_given(trade.legs, 0, SPOTS, T0)
    assert edge == 30 * WAD
    check_trade(policy, trade, SPOTS, edge)
    check_trade(policy, trade, SPOTS, -edge)
    with pytest.raises(OutsidePolicyError, match=r"gives away 30\.00"):
        check_trade(policy, trade, SPOTS, edge + 1)


def test_what_is_never_traded_is_refused_whatever_else_is_allowed():
    for policy in (Policy(never=("BTC-*",)), Policy(auto_accept=True, instruments=("*",), never=("BTC-*",))):
        with pytest.raises(RefusedByPolicyError, match="BTC-PERP is never traded"):
            check_trade(policy, TRADE, SPOTS, 0)


def test_beyond_a_limit_a_person_decides_or_the_policy_refuses():
    for limits in ({"max_size": WAD}, {"max_notional": WAD}, {"instruments": ()}, {"price_band": 0}):
        with pytest.raises(OutsidePolicyError):
            check_trade(Policy(auto_accept=True, **limits), TRADE, SPOTS, WAD)
        with pytest.raises(RefusedByPolicyError):
            check_trade(Policy(auto_accept=True, refuse=True, **limits), TRADE, SPOTS, WAD)
    check_trade(Policy(auto_accept=True, max_size=2 * WAD, refuse=True), TRADE, SPOTS, 0)
    with pytest.raises(OutsidePolicyError):
        check_trade(Policy(refuse=True), TRADE, SPOTS, 0)


def held(*positions):
    book = tuple(sorted(positions, key=lambda p: p.instrument.key))
    return Body(T0, WAD, b"\1" * 32, Account(0, 0, 0), Account(0, 0, 0), book)


def at(instrument, size, vol=0):
    return Position(instrument, size, 0, 0, vol)


PRICES = Prices(T0, SPOTS, dict.fromkeys(SPOTS, T0), WAD, {})


def test_greeks_after_the_trade_are_limited_and_what_reduces_them_passes():
    few, many = (held(at(perpetual(), n * WAD), at(call(), n * WAD, WAD // 2)) for n in (1, 10))
    delta, points = deltas(many, PRICES)[ETH], vega(many, PRICES)
    assert 10 * WAD < delta < 20 * WAD
    assert points > 0
    for policy in (Policy(True, max_delta=delta), Policy(True, max_vega=points)):
        check_greeks(policy, few, many, PRICES)
    for limits, name in (({"max_delta": delta - 1}, "delta in ETH"), ({"max_vega": points - 1}, "vega")):
        with pytest.raises(OutsidePolicyError, match=name):
            check_greeks(Policy(auto_accept=True, **limits), few, many, PRICES)
        with pytest.raises(RefusedByPolicyError, match=name):
            check_greeks(Policy(auto_accept=True, refuse=True, **limits), few, many, PRICES)
        # from beyond it, the way back is open
        check_greeks(
            Policy(auto_accept=True, **limits), held(at(perpetual(), 99 * WAD), at(call(), 99 * WAD, WAD)), many, PRICES
        )


@given(st.integers(-50, 50).filter(bool), st.integers(500, 9_000))
def test_delta_of_a_perpetual_is_its_size_and_of_an_option_lies_within_it(size, spot):
    prices = Prices(T0, {ETH: spot * WAD}, {ETH: T0}, WAD, {})
    assert deltas(held(at(perpetual(), size * WAD)), prices) == {ETH: size * WAD}
    found = deltas(held(at(call(), size * WAD, WAD // 2)), prices)[ETH]
    assert found * size >= 0
    assert abs(found) <= abs(size) * WAD
