"""Streamed markets: what travels comes back, junk is a typed error, and a taker pays for what it takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import T0, call, leg, perpetual

from channeld.core.codec import CodecError, encode
from channeld.core.operations import Trade
from channeld.desk.aggregated_book import BadMarketError, average_price
from channeld.desk.markets import (
    MAX_LIFE_MS,
    StreamedMarket,
    market_of,
    market_reference,
    read_market,
    taken_levels,
)

NOW = T0 * 1000
sizes = st.integers(1, 10**20)


@st.composite
def markets(draw):
    middle = draw(st.integers(100, 10**22))
    bids = tuple((middle - 1 - n, size) for n, size in enumerate(draw(st.lists(sizes, max_size=16))))
    asks = tuple((middle + 1 + n, size) for n, size in enumerate(draw(st.lists(sizes, max_size=16))))
    instrument = draw(st.sampled_from([perpetual(), call()]))
    return StreamedMarket(
        instrument, draw(st.integers(0, (1 << 63) - 1)), bids, asks, NOW + draw(st.integers(0, 60_000))
    )


@given(markets())
def test_a_market_comes_back_as_it_went(market):
    assert read_market(market.encode(), NOW) == market


@given(
    st.recursive(
        st.none() | st.integers(0, 9) | st.binary(max_size=40), lambda x: st.lists(x, max_size=6), max_leaves=9
    )
)
def test_junk_is_a_typed_error(junk):
    with pytest.raises((BadMarketError, CodecError)):
        read_market(encode(junk), NOW)


def test_a_market_does_not_stand_for_ever():
    with pytest.raises(BadMarketError):
        read_market(StreamedMarket(perpetual(), 1, ((1, 1),), (), NOW + MAX_LIFE_MS + 1).encode(), NOW)


@given(markets(), sizes, st.sampled_from([1, -1]), st.integers(-3, 3))
def test_a_taker_pays_for_what_it_takes_or_gets_nothing(market, size, side, better):
    levels = market.asks if side == 1 else market.bids
    there = sum(s for _, s in levels)
    if size > there:
        assert taken_levels(levels, size, 10**30 if side == 1 else 0, side) is None
        return
    exact = taken_levels(levels, size, 10**30 if side == 1 else 0, side)
    assert sum(s for _, s in exact) == size
    fair = average_price(exact, side)
    assert taken_levels(levels, size, fair, side) == exact
    if better > 0:
        assert taken_levels(levels, size, fair - side * better, side) is None


@given(st.integers(0, (1 << 63) - 1), st.binary(min_size=16, max_size=16))
def test_a_trade_names_its_market(number, offer):
    trade = Trade(0, (leg(perpetual(), 1, 3000),), 0, offer + market_reference(number))
    assert market_of(trade) == number
    assert market_of(Trade(0, trade.legs, 0, offer)) is None
    assert market_of(Trade(0, (*trade.legs, leg(call(), 1, 3)), 0, trade.reference)) is None
