"""Compression: what two parties can close against each other without changing what either stands to gain or lose.

Theory. A call bought and a put sold at one strike K are a forward at K, whatever the spot and the vol do (put-call
parity; Stoll, 1969; undiscounted here). Within one feed and expiry forwards and dated futures of opposite directions
cancel but for a constant, so the smaller side of them can be closed: boxes, conversions, reversals, jelly rolls' legs.
One instrument's own trades net by themselves and need no compression.

Rules: integers; every leg goes against its position and stays within its size; nothing is opened. What goes was worth
the same constant in every scenario, so the scan risk of both parties stays as it is (to the rounding of values) and the
spread charge of what goes is freed. Prices are the maker's own values at carry and vol as agreed: risk moves, no money.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from channeld.core.operations import Leg
from channeld.core.state import MAX_PRICE, Kind
from channeld.core.valuation import value_position

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from channeld.core.acceptance import Prices
    from channeld.core.state import Body, Position

    # the positions of one forward, what each of them has for one of it (1 or -1), and how much of it there is
    Forward = tuple[tuple[tuple[Position, int], ...], int]


def compression(body: Body, prices: Prices) -> tuple[Leg, ...]:
    """The legs, from a's side, of the trade that closes all that cancels; none where nothing does.

    What has expired, lacks a print, or is marked at another carry than the rest of its expiry is left alone.
    """
    groups: dict[tuple[bytes, int, int], list[Position]] = defaultdict(list)
    for position in body.positions:
        i = position.instrument
        if i.kind != Kind.PERPETUAL and i.expiry > prices.time and i.feed in prices.spots:
            groups[i.feed, i.expiry, position.carry].append(position)
    closed: dict[Position, int] = {}
    for group in groups.values():
        forwards = _forwards(group)
        longs, shorts = [f for f in forwards if f[1] > 0], [f for f in forwards if f[1] < 0]
        most = min(sum(f[1] for f in longs), -sum(f[1] for f in shorts))
        for side in (longs, shorts):
            for position, size in _closing(side, most):
                closed[position] = closed.get(position, 0) - size
    return tuple(_leg(position, closed[position], prices) for position in body.positions if closed.get(position))


def gross(positions: Sequence[Position]) -> int:
    """The sum of sizes, whatever their signs (wads): what compression makes less."""
    return sum(abs(position.size) for position in positions)


def _forwards(group: Sequence[Position]) -> list[Forward]:
    """The forwards that a feed's expiry holds: its future, and calls against puts of one strike and vol."""
    found: list[Forward] = []
    calls: dict[tuple[int, int], Position] = {}
    for position in group:
        kind, key = position.instrument.kind, (position.instrument.strike, position.vol)
        if kind == Kind.FUTURE:
            found.append((((position, 1),), position.size))
        elif kind == Kind.CALL:
            calls[key] = position
    for position in group:
        call = calls.get((position.instrument.strike, position.vol))
        if position.instrument.kind == Kind.PUT and call is not None and call.size * position.size < 0:
            size = min(abs(call.size), abs(position.size))
            found.append((((call, 1), (position, -1)), size if call.size > 0 else -size))
    return found


def _closing(forwards: Iterable[Forward], most: int) -> Iterable[tuple[Position, int]]:
    """The sizes that go when `most` of these forwards do, those of one direction."""
    left = most
    for parts, size in forwards:
        goes = min(left, abs(size))
        left -= goes
        for position, sign in parts if goes else ():
            yield position, sign * goes if size > 0 else -sign * goes


def _leg(position: Position, size_delta: int, prices: Prices) -> Leg:
    price = value_position(position, prices.spots[position.instrument.feed], prices.time)
    return Leg(position.instrument, size_delta, min(price, MAX_PRICE - 1), position.carry, position.vol)
