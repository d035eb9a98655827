"""Greeks of positions, expiries, channels and the desk, and profit explained: advisory floats for people.

Rules: floats alone; nothing here settles or decides. Sums are made where they mean something: deltas, gammas and vannas
of one feed, since they are in units of it; values, vegas, thetas, rhos and volgas of anything, since they are money.
Explained profit adds up exactly: what the greeks of the beginning do not explain is the residual, and is shown.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from channeld.core.errors import InputError
from channeld.core.greeks import Greeks, greeks
from channeld.core.state import Instrument, Kind, Position
from channeld.core.valuation import funding, value
from channeld.core.wad import DAY, WAD

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class NoSpotError(InputError):
    """A position's feed has no price at the time that its greeks or its profit are wanted for."""

    code = 1151
    advice = "Wait for the oracle's next print, or check the oracle with `channeld status`."


@dataclass(frozen=True, slots=True)
class Exposure:
    """Greeks of a holding. value: size times price; the rest as core's Greeks, times the size."""

    value: float = 0.0
    delta: float = 0.0
    gamma: float = 0.0
    vega: float = 0.0
    theta: float = 0.0
    rho: float = 0.0
    vanna: float = 0.0
    volga: float = 0.0

    def __add__(self, other: Exposure) -> Exposure:
        """Both holdings together; of one feed."""
        return Exposure(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @classmethod
    def of(cls, unit: Greeks, size: float) -> Exposure:
        """A holding of so many units."""
        return cls(
            *(size * x for x in (unit.price, unit.delta, unit.gamma, unit.vega, unit.theta)),
            *(size * x for x in (unit.rho, unit.vanna, unit.volga)),
        )


@dataclass(frozen=True, slots=True)
class Held:
    """What greeks and profit need of a position; size, carry and vol are wads, the size in the holder's view."""

    instrument: Instrument
    size: int
    carry: int
    vol: int

    @classmethod
    def of(cls, position: Position, side: int) -> Held:
        """A position as `side` holds it."""
        return cls(position.instrument, -position.size if side else position.size, position.carry, position.vol)

    def left(self, t: int) -> int:
        """Seconds to its expiry at t (Unix seconds), not below zero; zero for a perpetual."""
        return max(0, self.instrument.expiry - t) if self.instrument.kind != Kind.PERPETUAL else 0

    def worth(self, spot: int, t: int) -> int:
        """The exact value (wad) of a unit at a spot (wad) and time t."""
        i = self.instrument
        return value(i.kind, spot, i.strike, self.carry, self.vol, self.left(t))


def unit_greeks(held: Held, spot: int, t: int) -> Greeks:
    """The greeks of one unit at a spot (wad) and time t (Unix seconds).

    Raises:
        GreeksDomainError: a number out of bounds.
    """
    i = held.instrument
    return greeks(int(i.kind), spot / WAD, i.strike / WAD, held.carry / WAD, held.vol / WAD, held.left(t))


def exposures(positions: Iterable[Held], spots: Mapping[bytes, int], t: int) -> list[tuple[Held, Exposure]]:
    """The exposure of every position that has not expired, at spots (wads) and time t (Unix seconds).

    Raises:
        NoSpotError: a feed has no spot.
        GreeksDomainError: a number out of bounds.
    """
    rows = []
    for held in positions:
        if held.instrument.kind != Kind.PERPETUAL and held.instrument.expiry <= t:
            continue
        rows.append((held, Exposure.of(unit_greeks(held, _spot(held, spots), t), held.size / WAD)))
    return rows


def _spot(held: Held, spots: Mapping[bytes, int]) -> int:
    spot = spots.get(held.instrument.feed)
    if spot is None:
        raise NoSpotError("a position's feed has no price")
    return spot


def by_expiry(rows: Iterable[tuple[Held, Exposure]]) -> dict[tuple[bytes, int], Exposure]:
    """Sums by (feed, expiry); 0 for perpetuals."""
    sums: dict[tuple[bytes, int], Exposure] = defaultdict(Exposure)
    for held, exposure in rows:
        sums[held.instrument.feed, held.instrument.expiry] += exposure
    return dict(sorted(sums.items()))


def by_feed(rows: Iterable[tuple[Held, Exposure]]) -> dict[bytes, Exposure]:
    """Sums by feed."""
    sums: dict[bytes, Exposure] = defaultdict(Exposure)
    for held, exposure in rows:
        sums[held.instrument.feed] += exposure
    return dict(sorted(sums.items()))


# ---------------------------------------------------------------------------------------------------- profit explained


@dataclass(frozen=True, slots=True)
class Moment:
    """A mark or a look: its time (Unix seconds) and spots (wads); fixes (wads) of what expired up to it."""

    time: int
    spots: Mapping[bytes, int]
    fixes: Mapping[tuple[bytes, int], int]


@dataclass(frozen=True, slots=True)
class Explained:
    """Where a profit came from, in money: what the greeks at the beginning say of each move, and what they leave.

    carry: of a changed basis; trades: what was traded in between, from its price to the end's value; total: exact.
    """

    delta: float = 0.0
    gamma: float = 0.0
    vega: float = 0.0
    theta: float = 0.0
    carry: float = 0.0
    funding: float = 0.0
    trades: float = 0.0
    residual: float = 0.0
    total: float = 0.0

    def __add__(self, other: Explained) -> Explained:
        """Both profits together."""
        return Explained(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Interval:
    """From one moment to the next. after: instruments whose carry or vol is another at the end."""

    start: Moment
    end: Moment
    after: Mapping[Instrument, Held]


def explain(held: Held, interval: Interval) -> Explained:
    """The profit of a position that was held through an interval.

    Its total is size times the exact change in value, less funding at the carry of the beginning; a position that
    expires ends at its fix, and where that is not known it gains nothing.

    Raises:
        NoSpotError: a feed has no spot at one of the ends.
        GreeksDomainError, OutOfDomainError: a number out of bounds.
    """
    i, start, end = held.instrument, interval.start, interval.end
    expired = i.kind != Kind.PERPETUAL and i.expiry <= end.time
    spot_then = _spot(held, start.spots)
    spot_now = end.fixes.get((i.feed, i.expiry)) if expired else _spot(held, end.spots)
    if spot_now is None:
        return Explained()
    later = interval.after.get(i, held)
    stop = min(end.time, i.expiry) if i.expiry else end.time
    then = held.worth(spot_then, start.time)
    size = held.size / WAD
    unit = unit_greeks(held, spot_then, start.time)
    move = (spot_now - spot_then) / WAD
    paid = 0.0
    if i.kind == Kind.PERPETUAL:
        paid = funding(held.size, then, held.carry, end.time - start.time) / WAD
        unit = Greeks(unit.price, unit.delta, unit.gamma, unit.vega, 0.0)
    parts = (
        size * unit.delta * move,
        size * unit.gamma * move * move / 2,
        size * unit.vega * (later.vol - held.vol) / WAD * 100,
        size * unit.theta * (stop - start.time) / DAY,
        size * unit.rho * (later.carry - held.carry) / WAD * 100,
        -paid,
    )
    total = held.size * (Held(i, held.size, later.carry, later.vol).worth(spot_now, end.time) - then) / WAD / WAD - paid
    return Explained(*parts, 0.0, total - sum(parts), total)


@dataclass(frozen=True, slots=True)
class Traded:
    """A leg traded within an interval: its size (wad, the holder's view), price (wad), and when (Unix seconds)."""

    instrument: Instrument
    size: int
    price: int
    carry: int
    vol: int
    time: int


def explain_trade(leg: Traded, interval: Interval) -> Explained:
    """The profit of a trade from its price to the end of the interval; all of it is the trade's.

    Raises:
        NoSpotError: the feed has no spot at the end.
        OutOfDomainError: a number out of bounds.
    """
    i, end = leg.instrument, interval.end
    held = interval.after.get(i, Held(i, leg.size, leg.carry, leg.vol))
    expired = i.kind != Kind.PERPETUAL and i.expiry <= end.time
    spot = end.fixes.get((i.feed, i.expiry)) if expired else _spot(held, end.spots)
    if spot is None:
        return Explained()
    worth = Held(i, leg.size, held.carry, held.vol).worth(spot, end.time)
    total = leg.size * (worth - leg.price) / WAD / WAD
    if i.kind == Kind.PERPETUAL:
        total -= funding(leg.size, leg.price, held.carry, end.time - leg.time) / WAD
    return Explained(trades=total, total=total)


def explained(
    positions: Sequence[Held], trades: Sequence[Traded], interval: Interval
) -> tuple[dict[Instrument, Explained], Explained]:
    """Every instrument's profit in an interval, and the sum.

    Raises:
        NoSpotError, GreeksDomainError, OutOfDomainError: as `explain`.
    """
    rows: dict[Instrument, Explained] = {}
    for held in positions:
        rows[held.instrument] = rows.get(held.instrument, Explained()) + explain(held, interval)
    for leg in trades:
        rows[leg.instrument] = rows.get(leg.instrument, Explained()) + explain_trade(leg, interval)
    total = Explained()
    for row in rows.values():
        total += row
    return rows, total
