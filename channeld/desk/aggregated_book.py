"""The aggregated book: what every peer streams, joined per instrument, as far as each channel's margin reaches.

Rules: a quote stands until its time, or until the same channel streams a newer one; an older sequence number changes
nothing. What a channel's margin cannot carry is not there: a channel whose capacity is not known has none. Capacities
of different channels are never netted. A sweep takes the best price first, whatever the channel, and gives one slice
per channel, which is one TRADE; its price is the average of the levels it takes, rounded in the maker's favour, so that
it is never beyond the worst of them. What has been taken is gone until the channel streams again.

Prices and sizes are wads; buying takes asks, selling takes bids.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from channeld.core.errors import PeerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from channeld.core.state import Instrument

MAX_LEVELS: Final = 16
_MAX_SIZE: Final = 1 << 95
_MAX_PRICE: Final = 1 << 96
BUY, SELL = 1, -1
Levels = tuple[tuple[int, int], ...]


class BadMarketError(PeerError):
    """A streamed market that is none: levels out of order, a bid at or above its ask, or sizes out of bounds."""

    code = 3345
    advice = "The peer's quoting program is wrong; its operator must correct it."


def check_levels(bids: Levels, asks: Levels) -> None:
    """Refuse what is no market.

    Raises:
        BadMarketError: naming what is wrong.
    """
    for levels, sign in ((bids, -1), (asks, 1)):
        if len(levels) > MAX_LEVELS:
            raise BadMarketError(f"{len(levels)} levels; at most {MAX_LEVELS} a side")
        last: int | None = None
        for price, size in levels:
            if not 0 <= price < _MAX_PRICE or not 0 < size < _MAX_SIZE:
                raise BadMarketError("a level's price or size is out of bounds")
            if last is not None and sign * price <= sign * last:
                raise BadMarketError("the levels do not stand best price first")
            last = price
    if bids and asks and bids[0][0] >= asks[0][0]:
        raise BadMarketError("the bid stands at or above the ask")


@dataclass(slots=True)
class Line:
    """What one channel streams in one instrument. taken: sizes used up of the bids and of the asks since then."""

    channel: bytes
    sequence: int
    bids: Levels
    asks: Levels
    valid_until_ms: int
    taken_bids: int = 0
    taken_asks: int = 0


@dataclass(frozen=True, slots=True)
class Level:
    """One price of one channel: what is shown, and what of it the channel's margin can carry."""

    price: int
    size: int
    channel: bytes
    tradable: int


@dataclass(frozen=True, slots=True)
class Slice:
    """What a sweep takes in one channel, as one TRADE: the size, its price, and the levels it is made of."""

    channel: bytes
    size: int
    price: int
    levels: Levels


@dataclass(frozen=True, slots=True)
class Sweep:
    """The slices of a sweep, best first price first, and what found no price."""

    slices: tuple[Slice, ...]
    left: int

    @property
    def size(self) -> int:
        """What is filled in all."""
        return sum(slice_.size for slice_ in self.slices)


def average_price(levels: Levels, side: int) -> int:
    """The price of one trade over levels, rounded in the maker's favour: up where the taker buys."""
    total = sum(size for _, size in levels)
    money = sum(price * size for price, size in levels)
    return -(-money // total) if side == BUY else money // total


@dataclass(slots=True)
class _Market:
    """One instrument. best_bid, best_ask: (price, channel), None while unknown; the capacities of its channels."""

    lines: dict[bytes, Line] = field(default_factory=dict)
    capacity: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    bid: Line | None = None
    ask: Line | None = None
    dirty: bool = False


class AggregatedBook:
    """All instruments."""

    def __init__(self) -> None:
        """Empty."""
        self._markets: dict[Instrument, _Market] = {}

    def _market(self, instrument: Instrument) -> _Market:
        market = self._markets.get(instrument)
        if market is None:
            market = self._markets[instrument] = _Market()
        return market

    # ------------------------------------------------------------------------------------------------- changes

    def update(
        self,
        channel: bytes,
        instrument: Instrument,
        sequence: int,
        bids: Levels,
        asks: Levels,
        valid_until_ms: int,
    ) -> bool:
        """A channel streams a market; empty levels withdraw it. False where a newer one is known already.

        Raises:
            BadMarketError: it is no market; nothing changed.
        """
        check_levels(bids, asks)
        market = self._market(instrument)
        held = market.lines.get(channel)
        if held is not None and held.sequence >= sequence:
            return False
        line = Line(channel, sequence, bids, asks, valid_until_ms)
        market.lines[channel] = line
        if market.dirty:
            return True
        if held is not None and (market.bid is held or market.ask is held):
            # the best went, or was nobody's: whoever is next must be looked for
            market.dirty = True
            return True
        if bids and market.capacity.get(channel, (0, 0))[1] and (market.bid is None or bids[0][0] > _top_bid(market)):
            market.bid = line
        if asks and market.capacity.get(channel, (0, 0))[0] and (market.ask is None or asks[0][0] < _top_ask(market)):
            market.ask = line
        return True

    def set_capacity(self, channel: bytes, instrument: Instrument, buy: int, sell: int) -> None:
        """What the margin of a channel can carry now: the most this desk can buy and sell there (wads)."""
        market = self._market(instrument)
        if market.capacity.get(channel) != (buy, sell):
            market.capacity[channel] = (max(0, buy), max(0, sell))
            market.dirty = True

    def withdraw(self, channel: bytes) -> None:
        """A peer is gone: nothing it streamed stands any more, and its sequence numbers begin anew."""
        for market in self._markets.values():
            if market.lines.pop(channel, None) is not None:
                market.dirty = True

    def take(self, instrument: Instrument, side: int, slice_: Slice) -> None:
        """A slice of a sweep is on its way: its levels are used up until the channel streams again."""
        market = self._market(instrument)
        line = market.lines.get(slice_.channel)
        if line is not None:
            if side == BUY:
                line.taken_asks += slice_.size
            else:
                line.taken_bids += slice_.size
            market.dirty = True

    # ------------------------------------------------------------------------------------------------- reading

    def instruments(self) -> tuple[Instrument, ...]:
        """All that has ever been streamed."""
        return tuple(instrument for instrument, market in self._markets.items() if market.lines)

    def channels(self, instrument: Instrument) -> tuple[bytes, ...]:
        """The channels that stream an instrument."""
        market = self._markets.get(instrument)
        return tuple(market.lines) if market is not None else ()

    def line(self, channel: bytes, instrument: Instrument) -> Line | None:
        """What a channel streams."""
        market = self._markets.get(instrument)
        return market.lines.get(channel) if market is not None else None

    def best(self, instrument: Instrument, side: int, now_ms: int) -> int | None:
        """The best price that can be traded now, for one who buys or sells; None where there is none."""
        market = self._markets.get(instrument)
        if market is None:
            return None
        if market.dirty:
            self._refresh(market, now_ms)
        line = market.ask if side == BUY else market.bid
        if line is not None and line.valid_until_ms < now_ms:
            market.dirty = True
            self._refresh(market, now_ms)
            line = market.ask if side == BUY else market.bid
        if line is None:
            return None
        return _left(line, side)[0][0]

    def _refresh(self, market: _Market, now_ms: int) -> None:
        market.bid = market.ask = None
        best_bid, best_ask = -1, _MAX_PRICE
        for channel, line in market.lines.items():
            if line.valid_until_ms < now_ms:
                continue
            buy, sell = market.capacity.get(channel, (0, 0))
            asks = _left(line, BUY) if buy else ()
            bids = _left(line, SELL) if sell else ()
            if asks and asks[0][0] < best_ask:
                best_ask, market.ask = asks[0][0], line
            if bids and bids[0][0] > best_bid:
                best_bid, market.bid = bids[0][0], line
        market.dirty = False

    def depth(
        self,
        instrument: Instrument,
        side: int,
        now_ms: int,
        caps: Mapping[bytes, int] | None = None,
    ) -> tuple[Level, ...]:
        """All levels for one who buys or sells, best price first. caps: further bounds of channels, by channel."""
        market = self._markets.get(instrument)
        if market is None:
            return ()
        found = []
        for channel, line in market.lines.items():
            if line.valid_until_ms < now_ms:
                continue
            buy, sell = market.capacity.get(channel, (0, 0))
            room = buy if side == BUY else sell
            if caps is not None:
                room = min(room, caps.get(channel, 0))
            for price, size in _left(line, side):
                tradable = min(size, room)
                found.append(Level(price, size, channel, tradable))
                room -= tradable
        # equal prices: the greater size first, then by channel, so that both runs of one day are alike
        found.sort(key=lambda level: (side * level.price, -level.tradable, level.channel))
        return tuple(found)

    def sweep(
        self,
        instrument: Instrument,
        side: int,
        size: int,
        limit: int,
        now_ms: int,
        caps: Mapping[bytes, int] | None = None,
    ) -> Sweep:
        """The best way to trade `size` at `limit` or better, across channels. Changes nothing."""
        left = size
        taken: dict[bytes, list[tuple[int, int]]] = {}
        for level in self.depth(instrument, side, now_ms, caps):
            if not left or side * level.price > side * limit:
                break
            part = min(left, level.tradable)
            if part:
                taken.setdefault(level.channel, []).append((level.price, part))
                left -= part
        slices = tuple(_slice(channel, levels, side) for channel, levels in taken.items())
        return Sweep(slices, left)

    def whole(
        self,
        instrument: Instrument,
        side: int,
        size: int,
        limit: int,
        now_ms: int,
        caps: Mapping[bytes, int] | None = None,
    ) -> Slice | None:
        """The best single channel that can trade all of `size` at `limit` or better; None where none can."""
        levels = self.depth(instrument, side, now_ms, caps)
        found = []
        for channel in {level.channel for level in levels}:
            left, taken = size, []
            for level in levels:
                if level.channel != channel or not left or side * level.price > side * limit:
                    continue
                part = min(left, level.tradable)
                if part:
                    taken.append((level.price, part))
                    left -= part
            if not left:
                found.append(_slice(channel, taken, side))
        return min(found, key=lambda one: (side * one.price, one.channel)) if found else None


def _top_bid(market: _Market) -> int:
    line = market.bid
    levels = _left(line, SELL) if line is not None else ()
    return levels[0][0] if levels else -1


def _top_ask(market: _Market) -> int:
    line = market.ask
    levels = _left(line, BUY) if line is not None else ()
    return levels[0][0] if levels else _MAX_PRICE


def _left(line: Line, side: int) -> Levels:
    """The levels of a line that have not been taken."""
    levels, taken = (line.asks, line.taken_asks) if side == BUY else (line.bids, line.taken_bids)
    if not taken:
        return levels
    rest = []
    for price, size in levels:
        gone = min(size, taken)
        taken -= gone
        if size > gone:
            rest.append((price, size - gone))
    return tuple(rest)


def _slice(channel: bytes, levels: list[tuple[int, int]], side: int) -> Slice:
    return Slice(channel, sum(size for _, size in levels), average_price(tuple(levels), side), tuple(levels))
