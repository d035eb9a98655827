"""Policy: deny unless allowed, and within each limit."""

from __future__ import annotations

import pytest
from strategies import BTC, ETH, T0, call, leg, perpetual

from channeld.core.instruments import instrument_name
from channeld.core.operations import Trade
from channeld.core.wad import WAD
from channeld.desk.policy import OutsidePolicyError, Policy, check_trade, notional
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
