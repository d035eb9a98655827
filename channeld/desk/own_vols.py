"""Acceptance at a desk's own vols, beside the agreed ones, and within its own limits (docs/protocol.md, section 12).

Rules: the worse of agreed and own vols decides; a desk without own vols judges by the agreed ones alone. Risk arrays at
own vols are kept apart from those at agreed ones, so that neither displaces the other. Limits come first.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from channeld.core.acceptance import MarginRefusedError, check_acceptance
from channeld.core.risk_arrays import RiskCache
from channeld.desk.limits import Limits, check_book
from channeld.desk.marks import Surface
from channeld.desk.policy import check_never

if TYPE_CHECKING:
    from channeld.core.acceptance import Prices
    from channeld.core.operations import Operation
    from channeld.core.state import Body
    from channeld.core.terms import Terms
    from channeld.desk.envelope import Envelope


@dataclass
class OwnVols:
    """A desk's own surface in one channel, and what is computed with it."""

    surface: Surface = field(default_factory=Surface)
    limits: Limits = field(default_factory=Limits)
    never: Envelope | None = None
    _risk: RiskCache | None = None

    def body(self, body: Body, prices: Prices) -> Body:
        """The body with our own vols in place of the agreed ones, where we have any."""
        if self.surface.empty:
            return body
        changed = False
        positions = []
        for p in body.positions:
            own = self.surface.vol(p.instrument, prices.spots.get(p.instrument.feed), p.carry, prices.time)
            changed = changed or (own is not None and own != p.vol)
            positions.append(p if own is None else replace(p, vol=own))
        return replace(body, positions=tuple(positions)) if changed else body

    def check(self, terms: Terms, before: Body, after: Body, operations: tuple[Operation, ...], prices: Prices) -> None:
        """Refuse what passes at the agreed vols and does not at our own, and what is beyond our limits.

        Raises:
            MarginRefusedError: with the figures at our own vols.
            BeyondLimitsError: naming the limit.
            BeyondPolicyError: it lies outside what the policy with this peer ever allows.
        """
        check_book(self.limits, before, after, operations, prices)
        ours, then = self.body(before, prices), self.body(after, prices)
        if self.never is not None:
            check_never(self.never, ours, then, operations, prices)
        if ours is before and then is after:
            return
        if self._risk is None:
            self._risk = RiskCache(terms)
        try:
            check_acceptance(terms, ours, then, operations, replace(prices, risk=self._risk))
        except MarginRefusedError as error:
            raise MarginRefusedError(f"at our own vols, {error}", **error.details) from error
