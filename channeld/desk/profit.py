"""Profit explained from the journal: every MARK ends an interval, the last one ends now. Pure; floats that advise.

Rules: the journal's batches are applied by core's transition, so what is explained is what was agreed; an interval's
positions are those held at its beginning, and what was traded in between counts apart, from its price.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from channeld.core.operations import Mark, Trade
from channeld.core.packages import PackageSet
from channeld.core.state import Instrument, Kind, genesis
from channeld.core.transition import apply
from channeld.desk.exposure import Explained, Held, Interval, Moment, Traded, explained

if TYPE_CHECKING:
    from collections.abc import Iterable

    from channeld.core.state import Body
    from channeld.core.terms import Terms
    from channeld.core.transition import Applied


@dataclass(frozen=True, slots=True)
class ProfitReport:
    """Profit from `start` to `end` (Unix seconds) over so many MARK intervals; by instrument, and in sum."""

    start: int
    end: int
    intervals: int
    rows: dict[Instrument, Explained]
    total: Explained


@dataclass
class _Ledger:
    """What is held while the journal is read."""

    terms: Terms
    side: int
    sizes: dict[Instrument, int] = field(default_factory=dict)
    agreed: dict[Instrument, tuple[int, int]] = field(default_factory=dict)
    moment: Moment = field(default_factory=lambda: Moment(0, {}, {}))
    held: tuple[Held, ...] = ()
    trades: list[Traded] = field(default_factory=list)
    done: list[tuple[tuple[Held, ...], tuple[Traded, ...], Interval]] = field(default_factory=list)

    def read(self, before: Body, applied: Applied) -> None:
        """One batch."""
        for body in (before, applied.state.body):
            self.agreed.update({p.instrument: (p.carry, p.vol) for p in body.positions})
        for operation in applied.batch.operations:
            if isinstance(operation, Trade):
                self._trade(operation, applied.batch.time_ms // 1000)
            elif isinstance(operation, Mark):
                self._mark(operation, applied)

    def _trade(self, trade: Trade, second: int) -> None:
        for leg in trade.legs:
            i = leg.instrument
            size = -leg.size_delta if self.side else leg.size_delta
            carry, vol = self.agreed.get(i, (leg.carry, leg.vol))
            self.trades.append(Traded(i, size, leg.price, carry, vol, second))
            self.sizes[i] = self.sizes.get(i, 0) + size

    def _mark(self, mark: Mark, applied: Applied) -> None:
        packages = PackageSet.of(mark.packages)
        oracle = self.terms.oracle
        prints = {feed: packages.print_price(oracle, feed, mark.time).value for feed in mark.feeds}
        fixes = {(s.instrument.feed, s.instrument.expiry): s.fix for s in applied.settled if s.fix is not None}
        self.close(Moment(mark.time, {**self.moment.spots, **prints}, fixes))

    def close(self, end: Moment) -> None:
        """End an interval; what is held then begins the next."""
        after = {i: Held(i, 0, carry, vol) for i, (carry, vol) in self.agreed.items()}
        self.done.append((self.held, tuple(self.trades), Interval(self.moment, end, after)))
        self.trades.clear()
        self.sizes = {
            i: size for i, size in self.sizes.items() if size and (i.kind == Kind.PERPETUAL or i.expiry > end.time)
        }
        self.held = tuple(Held(i, size, *self.agreed.get(i, (0, 0))) for i, size in sorted_items(self.sizes))
        self.moment = end


def sorted_items(sizes: dict[Instrument, int]) -> list[tuple[Instrument, int]]:
    """In the order of positions."""
    return sorted(sizes.items(), key=lambda item: item[0].key)


def profit_report(
    terms: Terms, channel: bytes, side: int, batches: Iterable[tuple[int, bytes]], now: Moment, intervals: int
) -> ProfitReport:
    """The profit of `side` over the last `intervals` intervals, from a MARK to now.

    batches: (version, exact bytes) from version 0 on. now: the time and the newest spots.

    Raises:
        ChanneldError: a batch does not apply, or a price is missing.
    """
    ledger, state = _Ledger(terms, side), genesis(channel)
    for version, raw in batches:
        before = state.body
        applied = apply(terms, state, raw, version)
        state = applied.state
        ledger.read(before, applied)
    ledger.close(now)
    chosen = ledger.done[-intervals:]
    rows: dict[Instrument, Explained] = {}
    total = Explained()
    for held, trades, interval in chosen:
        found, part = explained(held, trades, interval)
        total += part
        for instrument, row in found.items():
            rows[instrument] = rows.get(instrument, Explained()) + row
    return ProfitReport(chosen[0][2].start.time, now.time, len(chosen), rows, total)
