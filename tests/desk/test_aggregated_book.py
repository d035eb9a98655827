"""The aggregated book against a plain list of all that is streamed: best prices, depth, sweeps, capacities."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import call, perpetual

from channeld.core.wad import WAD
from channeld.desk.aggregated_book import BUY, SELL, AggregatedBook, BadMarketError, average_price, check_levels

PERP, CALL = perpetual(), call()
CHANNELS = tuple(bytes([n]) * 32 for n in (1, 2, 3))

channels = st.sampled_from(CHANNELS)
sizes = st.integers(1, 30)
sides = st.sampled_from([BUY, SELL])


@st.composite
def streams(draw):
    middle = draw(st.integers(95, 105))
    bids = tuple((middle - 1 - n, size) for n, size in enumerate(draw(st.lists(sizes, max_size=3))))
    asks = tuple((middle + 1 + n, size) for n, size in enumerate(draw(st.lists(sizes, max_size=3))))
    return ("stream", draw(channels), draw(st.integers(1, 12)), bids, asks, draw(st.integers(0, 20)))


changes = st.one_of(
    streams(),
    streams(),
    st.tuples(st.just("capacity"), channels, st.integers(0, 40), st.integers(0, 40)),
    st.tuples(st.just("gone"), channels),
    st.tuples(st.just("take"), sides, sizes, st.integers(90, 110)),
    st.tuples(st.just("time"), st.integers(1, 8)),
)


class Model:
    """What is streamed, as a list of levels that are looked through from the start each time."""

    def __init__(self):
        self.lines, self.capacity, self.now = {}, {}, 0

    def levels(self, side: int):
        found = []
        for channel, (_, bids, asks, until) in self.lines.items():
            if until < self.now:
                continue
            room = self.capacity.get(channel, (0, 0))[0 if side == BUY else 1]
            for price, size in asks if side == BUY else bids:
                part = min(size, room)
                room -= part
                found.append((price, part, channel))
        return sorted((f for f in found if f[1]), key=lambda f: (side * f[0], -f[1], f[2]))

    def best(self, side: int):
        found = self.levels(side)
        return found[0][0] if found else None

    def sweep(self, side: int, size: int, limit: int):
        taken, left = {}, size
        for price, part, channel in self.levels(side):
            if side * price <= side * limit and left:
                got = min(part, left)
                left -= got
                taken.setdefault(channel, []).append((price, got))
        return taken, left

    def take(self, side: int, channel: bytes, size: int):
        sequence, bids, asks, until = self.lines[channel]
        rest = []
        for price, there in asks if side == BUY else bids:
            gone = min(there, size)
            size -= gone
            rest.append((price, there - gone))
        rest = tuple(r for r in rest if r[1])
        self.lines[channel] = (sequence, bids, rest, until) if side == BUY else (sequence, rest, asks, until)


@given(st.lists(changes, max_size=25))
@settings(max_examples=150)
def test_the_book_is_what_a_plain_list_says(steps):
    book, model = AggregatedBook(), Model()
    for step in steps:
        match step:
            case ("stream", channel, sequence, bids, asks, life):
                newer = sequence > model.lines.get(channel, (0,))[0]
                assert book.update(channel, PERP, sequence, bids, asks, model.now + life) == newer
                if newer:
                    model.lines[channel] = (sequence, bids, asks, model.now + life)
            case ("capacity", channel, buy, sell):
                book.set_capacity(channel, PERP, buy, sell)
                model.capacity[channel] = (buy, sell)
            case ("gone", channel):
                book.withdraw(channel)
                model.lines.pop(channel, None)
            case ("time", seconds):
                model.now += seconds
            case ("take", side, size, limit):
                taken, left = model.sweep(side, size, limit)
                swept = book.sweep(PERP, side, size, limit, model.now)
                assert {s.channel: list(s.levels) for s in swept.slices} == taken
                assert (swept.left, swept.size) == (left, size - left)
                whole = book.whole(PERP, side, size, limit, model.now)
                alone = [
                    Fraction(sum(p * s for p, s in one), size)
                    for channel in CHANNELS
                    for one in [_alone(model, channel, side, size, limit)]
                    if one
                ]
                assert (whole is None) == (not alone)
                if whole is not None:
                    best = min(alone) if side == BUY else max(alone)
                    assert whole.price == (-(-best.numerator // best.denominator) if side == BUY else int(best))
                for slice_ in swept.slices:
                    assert side * slice_.price <= side * limit
                    book.take(PERP, side, slice_)
                    model.take(side, slice_.channel, slice_.size)
        for side in (BUY, SELL):
            assert book.best(PERP, side, model.now) == model.best(side)
            shown = [(lv.price, lv.tradable, lv.channel) for lv in book.depth(PERP, side, model.now) if lv.tradable]
            assert shown == model.levels(side)
    assert book.best(CALL, BUY, model.now) is None


def _alone(model: Model, channel: bytes, side: int, size: int, limit: int):
    taken, left = [], size
    for price, part, of in model.levels(side):
        if of == channel and side * price <= side * limit and left:
            got = min(part, left)
            left -= got
            taken.append((price, got))
    return taken if not left else []


@given(st.lists(st.tuples(st.integers(0, 10**24), st.integers(1, 10**22)), min_size=1, max_size=6), sides)
def test_an_average_is_never_beyond_the_worst_level_and_never_costs_the_maker(levels, side):
    price = average_price(tuple(levels), side)
    assert min(p for p, _ in levels) <= price <= max(p for p, _ in levels)
    money, size = sum(p * s for p, s in levels), sum(s for _, s in levels)
    assert 0 <= side * (price * size - money) < size


def test_a_price_that_margin_cannot_carry_is_not_the_best():
    book = AggregatedBook()
    book.update(CHANNELS[0], PERP, 1, (), ((99 * WAD, 10 * WAD),), 9)
    assert book.best(PERP, BUY, 0) is None
    book.update(CHANNELS[1], PERP, 1, (), ((100 * WAD, 10 * WAD),), 9)
    book.set_capacity(CHANNELS[1], PERP, 4 * WAD, 0)
    assert book.best(PERP, BUY, 0) == 100 * WAD
    assert book.sweep(PERP, BUY, 10 * WAD, 101 * WAD, 0).left == 6 * WAD
    shown = [(level.channel, level.size // WAD, level.tradable // WAD) for level in book.depth(PERP, BUY, 0)]
    assert shown == [(CHANNELS[0], 10, 0), (CHANNELS[1], 10, 4)]


@pytest.mark.parametrize(
    ("bids", "asks"),
    [
        (((10, 1),), ((10, 1),)),
        (((10, 1), (10, 1)), ()),
        (((10, 1), (11, 1)), ()),
        ((), ((11, 1), (10, 1))),
        (((10, 0),), ()),
        (((-1, 1),), ()),
        ((), ((1 << 96, 1),)),
        ((), tuple((n, 1) for n in range(1, 19))),
    ],
)
def test_what_is_no_market_is_refused_and_changes_nothing(bids, asks):
    with pytest.raises(BadMarketError):
        check_levels(bids, asks)
    book = AggregatedBook()
    with pytest.raises(BadMarketError):
        book.update(CHANNELS[0], PERP, 1, bids, asks, 9)
    assert book.instruments() == ()
