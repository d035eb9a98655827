"""Trades that only take risk out of a book: made for a margin call, and recognised when a peer offers one.

Rules: a reduction touches open positions alone, against their sign and within their size, without a fee. It is made at
the maker's own values, so that it moves risk and no money; whoever receives one judges it by its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from channeld.core.operations import Leg, Trade
from channeld.core.state import MAX_PRICE, Kind
from channeld.core.valuation import value_position
from channeld.core.wad import WAD
from channeld.desk.policy import notional
from channeld.desk.pricing import edge_given

if TYPE_CHECKING:
    from channeld.core.acceptance import Prices
    from channeld.core.state import Body

STEPS = 4


def reduction(body: Body, prices: Prices, origin: int, steps: int) -> Trade | None:
    """A trade that closes out steps quarters of every open position at our own values; None where nothing can be.

    What has expired, or lacks a print, is left alone.
    """
    legs = []
    for position in body.positions:
        i = position.instrument
        if i.feed not in prices.spots or (i.kind != Kind.PERPETUAL and i.expiry <= prices.time):
            continue
        part = abs(position.size) * min(steps, STEPS) // STEPS
        if part == 0:
            continue
        price = min(value_position(position, prices.spots[i.feed], prices.time), MAX_PRICE - 1)
        legs.append(Leg(i, -part if position.size > 0 else part, price, position.carry, position.vol))
    return Trade(origin, tuple(legs)) if legs else None


def only_reduces(body: Body, trade: Trade) -> bool:
    """Whether a trade takes risk out of open positions alone, without a fee."""
    sizes = {p.instrument: p.size for p in body.positions}
    return not trade.fee and all(
        leg.size_delta * sizes.get(leg.instrument, 0) < 0 and abs(leg.size_delta) <= abs(sizes[leg.instrument])
        for leg in trade.legs
    )


def fair_reduction(body: Body, trade: Trade, side: int, prices: Prices, band: int) -> bool:
    """Whether a trade only reduces, and costs `side` at most `band` (a wad fraction) of its notional at our values.

    Values take the carry and vol of the book, not those that the trade's maker wrote into it.
    """
    if not only_reduces(body, trade) or any(leg.instrument.feed not in prices.spots for leg in trade.legs):
        return False
    held = {p.instrument: p for p in body.positions}
    legs = tuple(replace(leg, carry=held[leg.instrument].carry, vol=held[leg.instrument].vol) for leg in trade.legs)
    return edge_given(legs, side, prices.spots, prices.time) <= notional(legs, prices.spots) * band // WAD
