"""Reductions: what is made only takes risk out and moves no money; what a peer offers is recognised for what it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import BTC, ETH, T0, Desk, call, leg, perpetual, put

from channeld.core.acceptance import Prices, check_acceptance
from channeld.core.margin import both
from channeld.core.operations import Batch, Trade, encode_batch
from channeld.core.transition import apply
from channeld.core.wad import WAD
from channeld.desk.reductions import STEPS, fair_reduction, only_reduces, reduction

NOW = T0 + 20
SPOTS = {ETH: 2950 * WAD, BTC: 59_000 * WAD}


def book(sizes: tuple[int, int, int]) -> Desk:
    desk = Desk(funded=10_000_000 * 10**6)
    found = [perpetual(), call(), put(2800)]
    legs = tuple(leg(i, size, price) for i, size, price in zip(found, sizes, (3000, 150, 90), strict=True) if size)
    desk.do(Trade(0, legs), at=T0)
    return desk


def prices() -> Prices:
    return Prices(NOW, SPOTS, dict.fromkeys(SPOTS, NOW), WAD)


sizes = st.tuples(*(st.integers(-40, 40),) * 3).filter(any)


@given(sizes, st.integers(1, STEPS))
def test_a_reduction_takes_risk_out_and_moves_no_money(held, steps):
    desk = book(held)
    trade = reduction(desk.body, prices(), 0, steps)
    assert trade is not None
    assert only_reduces(desk.body, trade)
    raw = encode_batch(Batch(NOW * 1000, b"\x09" * 16, (trade,)))
    after = apply(desk.terms, desk.state, raw, desk.state.version + 1).state.body
    was = both(desk.terms, desk.body, SPOTS, NOW, WAD)
    now = both(desk.terms, after, SPOTS, NOW, WAD)
    for old, new in zip(was, now, strict=True):
        assert abs(new.equity - old.equity) <= 2 * 10**12
        assert new.maintenance <= old.maintenance * (STEPS - steps) // STEPS + 10**12
    if steps == STEPS:
        assert not after.positions
    check_acceptance(desk.terms, desk.body, after, (trade,), prices())
    for side in (0, 1):
        assert fair_reduction(desk.body, trade, side, prices(), WAD // 10**9)


@pytest.mark.parametrize("change", ["more", "other", "fee", "too much", "nothing"])
def test_what_is_no_reduction_is_none(change):
    desk = book((10, -5, 0))
    good = reduction(desk.body, prices(), 1, 2)
    first = good.legs[0]
    bad = {
        "more": replace(good, legs=(replace(first, size_delta=-first.size_delta),)),
        "other": replace(good, legs=(leg(perpetual(BTC), -1, 59_000),)),
        "fee": replace(good, fee=1),
        "too much": replace(good, legs=(replace(first, size_delta=3 * first.size_delta),)),
        "nothing": replace(good, legs=(*good.legs, leg(put(2800), 1, 10))),
    }[change]
    assert only_reduces(desk.body, good)
    assert not only_reduces(desk.body, bad)
    assert not fair_reduction(desk.body, bad, 0, prices(), WAD)


def test_a_reduction_at_a_bad_price_is_not_fair_whatever_vol_is_written_into_it():
    desk = book((0, -20, 0))
    good = reduction(desk.body, prices(), 1, STEPS)
    (only,) = good.legs
    dear = replace(good, legs=(replace(only, price=only.price * 11 // 10, vol=only.vol * 2),))
    band = WAD // 1000
    assert fair_reduction(desk.body, good, 0, prices(), band)
    assert not fair_reduction(desk.body, dear, 0, prices(), band)
    assert fair_reduction(desk.body, dear, 1, prices(), band)
