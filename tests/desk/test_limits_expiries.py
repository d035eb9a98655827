"""A desk's own limits on terms and books, terms in words, and what is about to expire."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import BTC, ETH, EXPIRY, T0, Desk, call, future, leg, make_terms, perpetual, put

from channeld.core.acceptance import Prices
from channeld.core.operations import Batch, Deposit, Trade, encode_batch
from channeld.core.transition import apply
from channeld.core.valuation import value
from channeld.core.wad import WAD
from channeld.desk.expiries import expiring
from channeld.desk.limits import BeyondLimitsError, Limits, check_book, check_terms, in_words, notional, vega

NOW = T0 + 20
SPOTS = {ETH: 3000 * WAD, BTC: 60_000 * WAD}


def prices(now: int = NOW) -> Prices:
    return Prices(now, SPOTS, dict.fromkeys(SPOTS, now), WAD)


def book() -> Desk:
    desk = Desk(funded=10_000_000 * 10**6)
    desk.do(Trade(0, (leg(perpetual(), 10, 3000), leg(call(), -20, 150), leg(future(BTC), 1, 60_000))), at=T0)
    return desk


def check(limits: Limits, *legs) -> None:
    desk = book()
    trade = Trade(0, legs)
    raw = encode_batch(Batch(NOW * 1000, b"\x03" * 16, (trade,)))
    after = apply(desk.terms, desk.state, raw, desk.state.version + 1).state.body
    check_book(limits, desk.body, after, (trade,), prices())


def test_measures_are_of_the_whole_book():
    body = book().body
    assert notional(body, prices()) == (10 * 3000 + 20 * 3000 + 60_000) * WAD
    one = [value(2, 3000 * WAD, 3000 * WAD, 0, vol * WAD // 100, EXPIRY - NOW) for vol in (60, 61)]
    assert vega(body, prices()) == -20 * (one[1] - one[0])


@given(st.integers(-40, 40).filter(bool), st.integers(1, 400_000))
def test_notional_may_fall_but_not_rise_beyond_its_limit(size, limit):
    limits = Limits(max_notional=limit * WAD)
    then = (abs(10 + size) * 3000 + 120_000) * WAD
    if then > limit * WAD and abs(10 + size) > 10:
        with pytest.raises(BeyondLimitsError, match="notional"):
            check(limits, leg(perpetual(), size, 3000))
    else:
        check(limits, leg(perpetual(), size, 3000))


def test_vega_is_limited_either_way_and_may_be_reduced():
    at = abs(vega(book().body, prices()))
    limits = Limits(max_vega=at // 2)
    with pytest.raises(BeyondLimitsError, match="vega"):
        check(limits, leg(put(2800), -1, 50))
    check(limits, leg(call(), 5, 150))
    check(limits, leg(put(2800), 5, 50))
    with pytest.raises(BeyondLimitsError, match="vega"):
        check(limits, leg(call(), 60, 150))
    check(Limits(), leg(call(), 60, 150))


def test_instruments_outside_the_patterns_may_only_be_closed():
    limits = Limits(instruments=("ETH-*",))
    check(limits, leg(put(2800), 1, 50))
    check(limits, leg(future(BTC), -1, 60_000))
    for size in (1, -3):
        with pytest.raises(BeyondLimitsError, match="BTC-"):
            check(limits, leg(future(BTC), size, 60_000))


def test_only_trades_are_limited():
    desk = book()
    body = desk.body
    raw = encode_batch(Batch(NOW * 1000, b"\x03" * 16, (Deposit(0, body.a.deposited + 5, body.b.deposited),)))
    after = apply(desk.terms, desk.state, raw, desk.state.version + 1)
    check_book(Limits(max_notional=1), body, after.state.body, after.batch.operations, prices())


def test_terms_beyond_the_limits_are_refused():
    terms = make_terms()
    check_terms(Limits(), terms)
    check_terms(Limits(oracle_signers=frozenset(terms.oracle.signers), min_cure_period=3_600), terms)
    for limits, words in (
        (Limits(min_challenge_period=86_401), "challenge period"),
        (Limits(min_cure_period=3_601), "cure period"),
        (Limits(oracle_signers=frozenset(terms.oracle.signers[1:])), "signer 0x"),
    ):
        with pytest.raises(BeyondLimitsError, match=words):
            check_terms(limits, terms)


def test_terms_in_words_name_every_number():
    terms = make_terms()
    text = " ".join(in_words(terms, 1))
    for figure in (
        "11%",
        "60%",
        "35%",
        "14,300",
        "11,000",
        "1 hour later",
        "3%",
        "1 day",
        "at least 2 of 3",
        "2 hours",
    ):
        assert figure in text, (figure, text)
    assert "The peer orders" in text
    assert "We order" in " ".join(in_words(replace(terms, sequencer=1), 1))


# --- expiries -----------------------------------------------------------------------------------------------------


@given(st.integers(1, 200_000), st.integers(1_000, 9_000))
def test_what_expires_soon_is_told_once_by_each_side(left, strike):
    desk = Desk(funded=10_000_000 * 10**6)
    desk.do(Trade(0, (leg(call(strike), 5, 100), leg(perpetual(), 1, 3000), leg(future(), -1, 3000))), at=T0)
    now = EXPIRY - left
    found = expiring(desk.body, 0, prices(now))
    assert {one.instrument for one in found} == ({call(strike), future()} if left <= 86_400 else set())
    for one, other in zip(found, expiring(desk.body, 1, prices(now)), strict=True):
        assert (one.instrument, one.seconds, one.pinned) == (other.instrument, other.seconds, other.pinned)
        assert one.size == -other.size
        assert abs(one.value + other.value) <= 1
        if one.instrument == future():
            assert one.distance is None
            assert not one.pinned
        elif abs(one.distance) < 0.004:
            assert one.pinned
        elif abs(one.distance) > 0.2:
            assert not one.pinned


def test_expired_positions_are_not_about_to_expire():
    desk = book()
    assert expiring(desk.body, 0, prices(EXPIRY)) == []
    assert expiring(desk.body, 0, prices(EXPIRY + 1)) == []
