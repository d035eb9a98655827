"""Streaming at a desk: what is shown to each peer, what peers show, and how far each channel's margin reaches.

Rules: a desk shows its resting orders, the markets set by hand, and those of its quoting agent, joined per instrument;
they are sent again before their time ends and withdrawn when they change. What a channel can carry is measured by
rehearsing trades in it, for both parties, and again whenever its state changes or some seconds have passed: the book
trusts nothing else. A peer's trade on a market of ours is agreed to where our newest market still has it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from channeld.core import wire
from channeld.core.errors import ChanneldError, RuleError
from channeld.core.operations import Leg, Trade
from channeld.core.terms import feed_symbol
from channeld.daemon.leg_values import leg_parameters
from channeld.desk.aggregated_book import BUY, SELL, AggregatedBook, Levels, check_levels
from channeld.desk.markets import StreamedMarket, read_market, taken_levels

if TYPE_CHECKING:
    from collections.abc import Callable

    from channeld.core.state import Instrument
    from channeld.daemon.actor import Actor
    from channeld.daemon.node import Node

MARKET_LIFE_MS: Final = 10_000
REFRESH_MS: Final = 4_000
CAPACITY_LIFE_MS: Final = 5_000
HALVINGS: Final = 6
MOST_INSTRUMENTS: Final = 512
_PROBE: Final = b"\0" * 16


class MarketGoneError(RuleError):
    """A trade on a market that this desk shows no more, or not at that price or size."""

    code = 2456
    advice = "Look at the peer's newest market and ask again."


@dataclass
class OwnMarket:
    """A market set by hand or by the agent. channels: who sees it; none named, all."""

    bids: Levels
    asks: Levels
    valid_until_ms: int
    channels: tuple[bytes, ...] = ()


@dataclass
class _Shown:
    """What a channel was told last of an instrument."""

    sequence: int
    bids: Levels
    asks: Levels
    sent_ms: int


@dataclass
class Streams:
    """The streams of a node. resting: levels of resting orders (side, price, size) in a channel, by instrument."""

    node: Node
    book: AggregatedBook
    resting: Callable[[bytes], list[tuple[Instrument, int, int, int]]]
    own: dict[tuple[str, Instrument], OwnMarket] = field(default_factory=dict)
    _shown: dict[tuple[bytes, Instrument], _Shown] = field(default_factory=dict)
    _measured: dict[tuple[bytes, Instrument], tuple[int, int]] = field(default_factory=dict)

    # ------------------------------------------------------------------------------------------------- showing

    def set_market(self, source: str, instrument: Instrument, market: OwnMarket | None) -> None:
        """Set or withdraw the market of a source (`hand`, `agent`).

        Raises:
            BadMarketError: it is none.
        """
        if market is None:
            self.own.pop((source, instrument), None)
            return
        check_levels(market.bids, market.asks)
        self.own[source, instrument] = market

    def _market_for(self, channel: bytes, now_ms: int) -> dict[Instrument, tuple[dict[int, int], dict[int, int]]]:
        found: dict[Instrument, tuple[dict[int, int], dict[int, int]]] = {}

        def add(instrument: Instrument, side: int, price: int, size: int) -> None:
            levels = found.setdefault(instrument, ({}, {}))[0 if side == BUY else 1]
            levels[price] = levels.get(price, 0) + size

        for instrument, side, price, size in self.resting(channel):
            if size:
                add(instrument, side, price, size)
        for (_, instrument), own in self.own.items():
            if own.valid_until_ms < now_ms or (own.channels and channel not in own.channels):
                continue
            for side, levels in ((BUY, own.bids), (SELL, own.asks)):
                for price, size in levels:
                    add(instrument, side, price, size)
        return found

    def market_for(self, channel: bytes, instrument: Instrument, now_ms: int) -> tuple[Levels, Levels]:
        """What a channel's peer may trade on now: bids and asks, best first, never crossed."""
        bids, asks = self._market_for(channel, now_ms).get(instrument, ({}, {}))
        buys = tuple(sorted(bids.items(), reverse=True))[:16]
        sells = tuple(sorted(asks.items()))[:16]
        if buys and sells and buys[0][0] >= sells[0][0]:
            # sources that cross each other: the peer sees neither side within the crossing
            sells = tuple(level for level in sells if level[0] > buys[0][0])
        return buys, sells

    async def publish(self, now_ms: int) -> None:
        """Tell every connected peer what has changed, and what would lapse."""
        for key, own in list(self.own.items()):
            if own.valid_until_ms < now_ms:
                del self.own[key]
        for actor in list(self.node.actors.values()):
            if not actor.channel.synced or actor.channel.frozen:
                continue
            instruments = set(self._market_for(actor.id, now_ms)) | {i for c, i in self._shown if c == actor.id}
            for instrument in instruments:
                await self._tell(actor, instrument, now_ms)

    async def _tell(self, actor: Actor, instrument: Instrument, now_ms: int) -> None:
        bids, asks = self.market_for(actor.id, instrument, now_ms)
        key = (actor.id, instrument)
        shown = self._shown.get(key)
        if shown is not None and (shown.bids, shown.asks) == (bids, asks) and now_ms < shown.sent_ms + REFRESH_MS:
            return
        sequence = max(now_ms, shown.sequence + 1 if shown else 0)
        market = StreamedMarket(instrument, sequence, bids, asks, now_ms + MARKET_LIFE_MS)
        if bids or asks:
            self._shown[key] = _Shown(sequence, bids, asks, now_ms)
        else:
            self._shown.pop(key, None)
        await self.node.send(actor.peer, wire.StreamMarket(actor.id, market.encode()))

    def forget(self, channel: bytes) -> None:
        """A session is gone: what was shown in it, and what was streamed to us, stands no more."""
        self.book.withdraw(channel)
        for key in [k for k in self._shown if k[0] == channel]:
            del self._shown[key]

    def hit(self, actor: Actor, trade: Trade, now_ms: int) -> tuple[int, Levels]:
        """The side and levels of our market that a peer's trade takes: it buys our asks or sells to our bids.

        Raises:
            MarketGoneError: our newest market does not have them.
        """
        (leg,) = trade.legs
        taker_size = -leg.size_delta if trade.origin else leg.size_delta
        side = BUY if taker_size > 0 else SELL
        bids, asks = self.market_for(actor.id, leg.instrument, now_ms)
        taken = taken_levels(asks if side == BUY else bids, abs(taker_size), leg.price, side)
        if taken is None or trade.fee:
            raise MarketGoneError("our newest market does not have that price and size")
        return side, taken

    # ------------------------------------------------------------------------------------------------- seeing

    async def received(self, actor: Actor, raw: bytes, now_ms: int) -> None:
        """A peer's market.

        Raises:
            BadMarketError, CodecError: it is none.
        """
        market = read_market(raw, now_ms)
        if market.instrument.feed not in actor.channel.terms.feeds:
            raise MarketGoneError(f"the channel has no market in {feed_symbol(market.instrument.feed)}")
        known = self.book.line(actor.id, market.instrument) is not None
        if not known and len(self.book.instruments()) >= MOST_INSTRUMENTS:
            return
        if self.book.update(
            actor.id, market.instrument, market.sequence, market.bids, market.asks, market.valid_until_ms
        ):
            await self.measure(actor, market.instrument, now_ms)

    async def measure(self, actor: Actor, instrument: Instrument, now_ms: int, *, again: bool = False) -> None:
        """How much of what a peer streams the channel's margin can carry, on both sides."""
        key, version = (actor.id, instrument), actor.channel.tip.version
        held = self._measured.get(key)
        line = self.book.line(actor.id, instrument)
        if line is None or (not again and held and held[0] == version and now_ms < held[1] + CAPACITY_LIFE_MS):
            return
        self._measured[key] = (version, now_ms)
        buy = await self._room(actor, instrument, BUY, line.asks)
        sell = await self._room(actor, instrument, SELL, line.bids)
        self.book.set_capacity(actor.id, instrument, buy, sell)

    async def _room(self, actor: Actor, instrument: Instrument, side: int, levels: Levels) -> int:
        total = sum(size for _, size in levels)
        if not total:
            return 0
        price = levels[-1][0]
        if await self._holds(actor, instrument, side * total, price):
            return total
        low, high = 0, total
        for _ in range(HALVINGS):
            middle = (low + high) // 2
            if middle and await self._holds(actor, instrument, side * middle, price):
                low = middle
            else:
                high = middle
        return low

    async def _holds(self, actor: Actor, instrument: Instrument, size: int, price: int) -> bool:
        try:
            carry, vol = await leg_parameters(actor, instrument, price)
            signed = -size if actor.channel.side else size
            trade = Trade(actor.channel.side, (Leg(instrument, signed, price, carry, vol),), 0, _PROBE)
            await actor.rehearse((trade,))
        except ChanneldError:
            return False
        return True
