"""Policy: deny unless allowed, and within each limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import BTC, ETH, T0, Desk, call, leg, perpetual

from channeld.core.acceptance import Prices
from channeld.core.greeks import greeks
from channeld.core.instruments import instrument_name
from channeld.core.operations import Batch, Trade, encode_batch
from channeld.core.transition import apply
from channeld.core.wad import WAD
from channeld.desk.envelope import Envelope, greeks_of, holdings_of, legs_held
from channeld.desk.exposure import Held, by_feed, exposures
from channeld.desk.policy import (
    BeyondPolicyError,
    OutsidePolicyError,
    Policy,
    check_channel,
    check_never,
    check_trade,
    notional,
    policy_in_words,
)
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


SIZES = st.integers(-60, 60).filter(bool)
MARKETS = Prices(T0 + 20, SPOTS, dict.fromkeys(SPOTS, T0 + 20), WAD)


def done(first: list, second: list):
    """The books before and after a trade, and the trade."""
    desk = Desk(funded=100_000_000 * 10**6)
    desk.do(Trade(0, tuple(first)), at=T0)
    trade = Trade(1, tuple(second))
    raw = encode_batch(Batch((T0 + 20) * 1000, b"\x03" * 16, (trade,)))
    return desk.body, apply(desk.terms, desk.state, raw, desk.state.version + 1).state.body, trade


def legs_of(perp: int, option: int, other: int) -> list:
    return [leg(perpetual(), perp, 3000), leg(call(), option, 150), leg(perpetual(BTC), other, 60_000)]


def by_floats(body) -> list[float]:
    """Delta and vega by the closed forms in floats, an independent witness: |.| of each feed, added up."""
    rows = exposures([Held.of(p, 0) for p in body.positions], SPOTS, MARKETS.time)
    feeds = by_feed(rows)
    return [sum(abs(e.delta) * SPOTS[f] / WAD for f, e in feeds.items()), sum(abs(e.vega) for e in feeds.values())]


@given(SIZES, SIZES, SIZES)
def test_greeks_are_those_of_the_closed_forms(perp, option, other):
    body, _, _ = done(legs_of(perp, option, other), [leg(perpetual(), 1, 3000)])
    found = greeks_of(holdings_of(body), SPOTS, MARKETS.time)
    delta, vega = by_floats(body)
    assert abs(found.delta / WAD - delta) <= 0.01 * abs(option) * 3000
    assert abs(found.vega / WAD - vega) <= 0.02 * vega + 1e-6


def test_gamma_is_what_delta_gains_in_a_move_of_one_percent():
    body, _, _ = done([leg(call(), 10, 150)], [leg(perpetual(), 1, 3000)])
    (position,) = body.positions
    i, tau = position.instrument, position.instrument.expiry - MARKETS.time
    unit = greeks(int(i.kind), 3000.0, i.strike / WAD, position.carry / WAD, position.vol / WAD, tau)
    found = greeks_of(holdings_of(body), SPOTS, MARKETS.time)
    assert found.gamma / WAD == pytest.approx(10 * unit.gamma * 30 * 3000, rel=0.05)
    assert greeks_of(holdings_of(body), SPOTS, i.expiry) == (0, 0, 0)
    assert greeks_of(holdings_of(body), {}, MARKETS.time) == (0, 0, 0)


@given(SIZES, SIZES, SIZES, st.sampled_from(["delta", "gamma", "vega"]), st.integers(0, 400_000))
def test_nobody_takes_a_channel_outside_or_further_outside_and_anybody_may_reduce_it(perp, option, more, greek, limit):
    first = [leg(perpetual(), perp, 3000), leg(call(), option, 150)]
    before, after, trade = done(first, [leg(call(), more, 150)])
    was, then = (getattr(greeks_of(holdings_of(b), SPOTS, MARKETS.time), greek) for b in (before, after))
    never = Envelope(**{f"channel_{greek}": limit * WAD})
    if then > limit * WAD and then > was:
        with pytest.raises(BeyondPolicyError, match=f"channel's {greek}"):
            check_never(never, before, after, (trade,), MARKETS)
        with pytest.raises(OutsidePolicyError, match=f"channel's {greek}"):
            check_channel(Policy(auto_accept=True, **{f"channel_{greek}": limit * WAD}), before, after, MARKETS)
    else:
        check_never(never, before, after, (trade,), MARKETS)
        assert then <= max(was, limit * WAD)


@pytest.mark.parametrize("greek", ["delta", "gamma", "vega"])
def test_one_trade_s_own_greeks_are_limited_to_the_wad(greek):
    before, after, trade = done([leg(perpetual(), 5, 3000)], [leg(call(), 7, 150)])
    found = getattr(greeks_of(legs_held(trade.legs, after), SPOTS, MARKETS.time), greek)
    assert found > 0
    check_never(Envelope(**{f"trade_{greek}": found}), before, after, (trade,), MARKETS)
    with pytest.raises(BeyondPolicyError, match=f"trade's {greek}"):
        check_never(Envelope(**{f"trade_{greek}": found - 1}), before, after, (trade,), MARKETS)


@given(SIZES, st.integers(0, 60))
def test_sizes_are_limited_by_the_first_pattern_that_fits(size, most):
    policy = Policy(auto_accept=True, sizes=(("ETH-PERP", most * WAD), ("*", 0)))
    trade = Trade(1, (leg(perpetual(), size, 3000),))
    if abs(size) > most:
        with pytest.raises(OutsidePolicyError, match="ETH-PERP is above"):
            check_trade(policy, trade, SPOTS, 0)
    else:
        check_trade(policy, trade, SPOTS, 0)
    with pytest.raises(OutsidePolicyError, match="BTC-PERP is above"):
        check_trade(policy, Trade(1, (leg(perpetual(BTC), 1, 60_000),)), SPOTS, 0)


def test_what_is_held_may_be_reduced_though_its_instrument_is_never_traded():
    never = Envelope(instruments=("BTC-*",))
    for size, passes in ((-3, True), (-5, True), (1, False), (-6, False)):
        before, after, trade = done([leg(perpetual(), 5, 3000)], [leg(perpetual(), size, 3000)])
        if passes:
            check_never(never, before, after, (trade,), MARKETS)
        else:
            with pytest.raises(BeyondPolicyError, match="ETH-PERP is not among"):
                check_never(never, before, after, (trade,), MARKETS)


def test_a_policy_says_what_it_does():
    assert "every trade waits" in policy_in_words(Policy())[0]
    limits = {f"{scope}_{greek}": WAD for scope in ("trade", "channel") for greek in ("delta", "gamma", "vega")}
    envelope = Envelope(instruments=("ETH-*",), sizes=(("*", 7 * WAD),), max_notional=WAD, price_band=WAD, **limits)
    first, _, last = policy_in_words(Policy(auto_accept=True, never=envelope))
    assert "no limits" in first
    assert last.count(";") == 9
    assert "at most 7 of *" in last
