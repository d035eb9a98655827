"""What a trade would do, before it is made: both sides' figures, the worst scenario, the last unit's cost, the largest.

Rules: integers and the very functions that decide: core's transition and acceptance. What is answered here is what a
proposal would meet at the same prices; nothing is signed, sent or changed. Sizes are scaled in whole steps of their
greatest common divisor, so a combo keeps its ratios exactly; the largest is exact to a size of 1e-18.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from channeld.core.acceptance import check_acceptance, valuation_time
from channeld.core.errors import ChanneldError
from channeld.core.margin import MarginReport, both
from channeld.core.operations import Batch, Leg, Trade, encode_batch
from channeld.core.risk_arrays import RiskCache
from channeld.core.state import MAX_SIZE
from channeld.core.transition import apply
from channeld.core.wad import WAD
from channeld.desk.marks import Surface
from channeld.desk.own_vols import OwnVols

if TYPE_CHECKING:
    from channeld.core.acceptance import Prices
    from channeld.core.state import Body, State
    from channeld.core.terms import Terms

_SALT = b"\0" * 16


@dataclass(frozen=True, slots=True)
class Outcome:
    """One size's outcome. reports: of a and b afterwards, None where the trade itself breaks a rule; refusal: why not.

    The reports are shown also where margin refuses the trade, which is when they are wanted most.
    """

    reports: tuple[MarginReport, MarginReport] | None
    refusal: ChanneldError | None


@dataclass(frozen=True, slots=True)
class WhatIf:
    """A trade's consequences.

    before: the reports of a and b as things stand. outcome: after the trade. last_unit: what the last whole unit of
    size (of the smallest leg; all of it where it is smaller) added to each side's (equity, initial, maintenance), wads.
    largest: the greatest multiple of the trade's smallest steps that passes, and the legs at it; no legs where none.
    """

    before: tuple[MarginReport, MarginReport]
    outcome: Outcome
    last_unit: tuple[tuple[int, int, int], tuple[int, int, int]] | None
    largest: tuple[Leg, ...]


class _Asked:
    """One question: the state it is asked of, and the trade in its smallest steps."""

    def __init__(self, terms: Terms, state: State, trade: Trade, prices: Prices, now_ms: int, surface: Surface) -> None:
        sizes = [abs(leg.size_delta) for leg in trade.legs]
        # arrays of its own: this may run beside the daemon's checks, in a thread
        prices = replace(prices, risk=RiskCache(terms))
        self.terms, self.state, self.prices, self.now_ms = terms, state, prices, now_ms
        self.trade = trade
        self.own = OwnVols(surface)
        self.steps = math.gcd(*sizes)
        self.most_steps = (MAX_SIZE - 1) // (max(sizes) // self.steps)
        # steps in one whole unit of the smallest leg, at least one
        self.unit = max(1, WAD // (min(sizes) // self.steps))

    def legs(self, steps: int) -> tuple[Leg, ...]:
        return tuple(replace(leg, size_delta=leg.size_delta // self.steps * steps) for leg in self.trade.legs)

    def body(self, steps: int) -> Body:
        """The book after the trade in this size.

        Raises:
            ChanneldError: it breaks a rule of the protocol.
        """
        if steps == 0:
            return self.state.body
        raw = encode_batch(Batch(self.now_ms, _SALT, (replace(self.trade, legs=self.legs(steps)),)))
        return apply(self.terms, self.state, raw, self.state.version + 1).state.body

    def accept(self, body: Body) -> None:
        """Judge the book after the trade, at the agreed vols and at our own.

        Raises:
            ChanneldError: the refusal that the trade would meet.
        """
        check_acceptance(self.terms, self.state.body, body, (self.trade,), self.prices)
        self.own.check(self.terms, self.state.body, body, (self.trade,), self.prices)

    def passes(self, steps: int) -> bool:
        """Whether the trade in this size would be signed. A size of nothing is no trade, and passes."""
        if steps == 0:
            return True
        try:
            self.accept(self.body(steps))
        except ChanneldError:
            return False
        return True

    def reports(self, body: Body) -> tuple[MarginReport, MarginReport]:
        prices = self.prices
        t = valuation_time(self.terms, prices.time)
        return both(self.terms, body, prices.spots, t, prices.collateral, prices.fixes)

    def largest(self) -> int:
        """The greatest number of steps that passes, by bisection: it passes, and one step more does not.

        Beyond the trade's own size the search doubles until it fails. Margin grows with size once a trade adds risk, so
        there is one such border above; a trade that first reduces risk passes up to there.
        """
        if self.passes(self.steps):
            low, high = self.steps, 2 * self.steps
            while high <= self.most_steps and self.passes(high):
                low, high = high, 2 * high
            high = min(high, self.most_steps + 1)
        else:
            low, high = 0, self.steps
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.passes(middle) else (low, middle)
        return low


def _figures(reports: tuple[MarginReport, MarginReport]) -> list[tuple[int, int, int]]:
    return [(report.equity, report.initial, report.maintenance) for report in reports]


def what_if(
    terms: Terms, state: State, trade: Trade, prices: Prices, now_ms: int, surface: Surface | None = None
) -> WhatIf:
    """What a trade would do to a state at prices, at now_ms (Unix milliseconds); surface: the desk's own vols.

    Raises:
        MissingPriceError, OutOfDomainError, UnknownMarketError: the book as it stands cannot be valued.
    """
    asked = _Asked(terms, state, trade, prices, now_ms, surface or Surface())
    before = asked.reports(state.body)
    largest = asked.largest()
    legs = asked.legs(largest) if largest else ()
    try:
        body = asked.body(asked.steps)
        reports = asked.reports(body)
    except ChanneldError as error:
        return WhatIf(before, Outcome(None, error), None, legs)
    refusal = None
    try:
        asked.accept(body)
    except ChanneldError as error:
        refusal = error
    last = None
    try:
        less = _figures(asked.reports(asked.body(max(0, asked.steps - asked.unit))))
        found = [
            (now[0] - then[0], now[1] - then[1], now[2] - then[2])
            for now, then in zip(_figures(reports), less, strict=True)
        ]
        last = (found[0], found[1])
    except ChanneldError:
        last = None
    return WhatIf(before, Outcome(reports, refusal), last, legs)
