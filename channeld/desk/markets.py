"""Streamed markets as they travel: one instrument, two sides, up to sixteen levels each, with a time and a number.

Rules: a market replaces the sender's earlier one of the same instrument; empty sides withdraw it. It is not signed and
binds nobody by itself: its maker trades on its newest one, by its own rules. Numbers rise, also across restarts.
Whoever trades on it names its number in the trade's reference, after the offer's id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from channeld.core.codec import decode, encode
from channeld.core.operations import wide
from channeld.desk.aggregated_book import MAX_LEVELS, BadMarketError, Levels, check_levels
from channeld.desk.quotes import BadQuoteError, read_instrument

if TYPE_CHECKING:
    from channeld.core.operations import Trade
    from channeld.core.state import Instrument

MAX_MARKET_BYTES: Final = 4_096
MAX_LIFE_MS: Final = 60_000
_MARK: Final = b"M"
_ID: Final = 16
_U63: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class StreamedMarket:
    """What a peer streams. bids and asks: (price, size) in wads, best first; valid_until_ms: its last millisecond."""

    instrument: Instrument
    sequence: int
    bids: Levels
    asks: Levels
    valid_until_ms: int

    def encode(self) -> bytes:
        """As it travels."""
        i = self.instrument
        sides = [[[wide(price), wide(size)] for price, size in levels] for levels in (self.bids, self.asks)]
        instrument = [int(i.kind), i.feed, i.expiry, wide(i.strike)]
        return encode([instrument, self.sequence, *sides, self.valid_until_ms])


def _levels(value: object) -> Levels:
    if type(value) is not list or len(value) > MAX_LEVELS:
        raise BadMarketError(f"a side is an array of at most {MAX_LEVELS} levels")
    found = []
    for level in value:
        if type(level) is not list or len(level) != 2:
            raise BadMarketError("a level is an array of price and size")
        found.append((_wide(level[0]), _wide(level[1])))
    return tuple(found)


def _wide(value: object) -> int:
    if type(value) is not bytes or len(value) != 16:
        raise BadMarketError("a price or size is 16 bytes")
    return int.from_bytes(value, "big", signed=True)


def _number(value: object, name: str) -> int:
    if type(value) is not int or not 0 <= value < _U63:
        raise BadMarketError(f"{name} is an integer of 63 bits")
    return value


def read_market(raw: bytes, now_ms: int) -> StreamedMarket:
    """A peer's market, checked.

    Raises:
        BadMarketError, CodecError: it is none, or would stand too long.
    """
    value: Any = decode(raw, MAX_MARKET_BYTES)
    if type(value) is not list or len(value) != 5:
        raise BadMarketError("a market is an array of five")
    try:
        instrument = read_instrument(value[0])
    except BadQuoteError as error:
        raise BadMarketError(str(error)) from error
    market = StreamedMarket(
        instrument, _number(value[1], "a number"), _levels(value[2]), _levels(value[3]), _number(value[4], "a time")
    )
    check_levels(market.bids, market.asks)
    if market.valid_until_ms > now_ms + MAX_LIFE_MS:
        raise BadMarketError(f"a market stands for at most {MAX_LIFE_MS // 1000} s")
    return market


def market_reference(sequence: int) -> bytes:
    """What a trade on a market carries after its offer's id."""
    return _MARK + sequence.to_bytes(8, "big")


def market_of(trade: Trade) -> int | None:
    """The number of the market that a trade is on; None for any other trade."""
    rest = trade.reference[_ID:]
    if len(trade.legs) != 1 or len(rest) != 9 or not rest.startswith(_MARK):
        return None
    return int.from_bytes(rest[1:], "big")


def taken_levels(levels: Levels, size: int, price: int, side: int) -> Levels | None:
    """The levels that a taker who buys (side 1) or sells (-1) takes, where its price pays for them; else None."""
    left, taken = size, []
    for level, there in levels:
        if not left:
            break
        part = min(left, there)
        taken.append((level, part))
        left -= part
    money = sum(level * part for level, part in taken)
    if left or side * (price * size - money) < 0:
        return None
    return tuple(taken)
