"""What each operation of a batch moved: the parties' balances after every one of them.

Rules: the operations are carried out by the transition's own code, one after the other, so that what is told of a batch
adds up to what the batch did, to the unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from channeld.core.operations import Mark
from channeld.core.state import Kind
from channeld.core.transition import Working, operate
from channeld.core.valuation import funding

if TYPE_CHECKING:
    from channeld.core.operations import Batch, Operation
    from channeld.core.state import Body
    from channeld.core.terms import Terms
    from channeld.core.transition import SettledPosition


@dataclass(frozen=True, slots=True)
class Movement:
    """One operation of a batch, and what it did.

    change_a, change_b: of the balances, units. funding_a: of it, what a MARK charged a for perpetuals, wads (a receives
    where negative). settled: what a MARK settled.
    """

    operation: Operation
    change_a: int
    change_b: int
    funding_a: int
    settled: tuple[SettledPosition, ...]

    def change(self, side: int) -> int:
        """Of a side's balance, units."""
        return self.change_b if side else self.change_a


def movements(terms: Terms, before: Body, batch: Batch) -> tuple[Movement, ...]:
    """What each operation of a batch that applies to `before` moved.

    Raises:
        RuleError, OracleError: it does not apply.
    """
    work = Working(terms, before, batch)
    found = []
    for operation in batch.operations:
        a, b = work.balances
        settled, charged = len(work.settled), 0
        if isinstance(operation, Mark):
            charged = sum(
                funding(p.size, p.mark, p.carry, operation.time - work.as_of)
                for p in work.positions.values()
                if p.instrument.kind == Kind.PERPETUAL
            )
        operate(work, operation)
        change = work.balances[0] - a, work.balances[1] - b
        found.append(Movement(operation, *change, charged, tuple(work.settled[settled:])))
    return tuple(found)
