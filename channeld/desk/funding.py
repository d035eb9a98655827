"""Carry of perpetuals: fixed, or from a mark and an index feed with a damper, by what was seen since the last MARK.

Rules: wads, integers alone. A MARK charges the carry that was agreed before it for the time that has passed
(core/transition.py); what is made here is the carry of the time to come. It is an average over the path that was
seen, weighted by time: where the path has a gap longer than MOST_GAP, the carry stays as it was agreed, since the rate
of this moment says nothing about time that nobody saw.

The damper, for a premium p = mark / index - 1: rate per 8 h = max(0.025%, p) + min(-0.025%, p), capped. Deribit,
"Perpetual", funding rate (docs.deribit.com and the exchange's contract specification).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from channeld.core.state import MAX_CARRY
from channeld.core.wad import WAD, YEAR, sdiv

EIGHT_HOURS = 8 * 3600
DAMPER = WAD * 25 // 100_000
DEFAULT_CAP = WAD * 5 // 1_000
MOST_GAP = 120
MOST_SEEN = 10_000


def premium(mark: int, index: int) -> int:
    """Mark / index - 1, a wad; prices are positive wads."""
    return sdiv((mark - index) * WAD, index)


def damped(p: int, cap: int = DEFAULT_CAP) -> int:
    """The rate per eight hours (wad) for a premium p (wad): zero within the damper, capped at cap either way."""
    rate = max(DAMPER, p) + min(-DAMPER, p)
    return min(max(rate, -cap), cap)


def annual(rate: int) -> int:
    """A rate per eight hours as the carry of a position: per year, a wad, within the protocol's bounds."""
    return min(max(sdiv(rate * YEAR, EIGHT_HOURS), -MAX_CARRY), MAX_CARRY)


@dataclass
class Path:
    """Premiums as they were seen: (second, premium) ascending."""

    seen: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=MOST_SEEN))

    def add(self, second: int, p: int) -> None:
        """A premium seen at a second; what is not later than the last is ignored."""
        if not self.seen or second > self.seen[-1][0]:
            self.seen.append((second, p))

    def forget(self, before: int) -> None:
        """Drop what no interval that begins at `before` needs."""
        while len(self.seen) > 1 and self.seen[1][0] <= before:
            self.seen.popleft()

    def rate(self, begin: int, end: int, cap: int = DEFAULT_CAP) -> int | None:
        """The average damped rate per eight hours over [begin, end]; None where the path has a gap there.

        Each premium holds until the next one; the damper and the cap are applied before averaging, as the exchange
        that charges continuously does.
        """
        if end <= begin:
            return None
        total, at, current = 0, begin, None
        for second, p in self.seen:
            if second <= begin:
                current = (second, p)
                continue
            if second > end:
                break
            if current is None or second - current[0] > MOST_GAP:
                return None
            total += damped(current[1], cap) * (second - at)
            at, current = second, (second, p)
        if current is None or end - current[0] > MOST_GAP:
            return None
        total += damped(current[1], cap) * (end - at)
        return sdiv(total, end - begin)
