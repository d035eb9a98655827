"""What to do next in a dispute, from what is known now: a pure function; nothing about the plan is stored.

Rules: refute strictly before the deadline whenever we hold a higher version; after it capture and prove the fixes that
are needed, settle as soon as the contract lets us, and never earlier. A restart in the middle asks the same function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from channeld.core.settlement import fix_time, fixes_needed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from channeld.core.state import Body
    from channeld.core.terms import Terms


@dataclass(frozen=True, slots=True)
class DisputeView:
    """What is known: chain time (seconds), the record on chain, our highest co-signed version, and fixes by weight.

    body: the body on record, where we hold it. known: weight on chain of each (feed, time). held: weight of ours.
    """

    now: int
    version: int
    deadline: int
    ours: int
    body: Body | None
    known: Mapping[tuple[bytes, int], int]
    held: Mapping[tuple[bytes, int], int]


@dataclass(frozen=True, slots=True)
class Refute:
    """Show our higher version before the deadline."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until a time (seconds)."""

    until: int
    why: str


@dataclass(frozen=True, slots=True)
class ProveFixes:
    """Prove these (feed, time) on chain: what we hold weighs more than what is known."""

    fixes: tuple[tuple[bytes, int], ...]


@dataclass(frozen=True, slots=True)
class Settle:
    """Settle now."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """The body on record is not ours to show: the counterparty must, or the rules for a hidden body apply."""


NextStep = Refute | Wait | ProveFixes | Settle | Unknown


def next_step(terms: Terms, view: DisputeView) -> NextStep:
    """The next step of an honest party. Section 11 of docs/protocol.md gives the times."""
    if view.now < view.deadline:
        if view.ours > view.version:
            return Refute()
        return Wait(view.deadline, "the challenge period to end")
    fix_at = fix_time(terms, view.deadline)
    if view.body is None:
        return Unknown()
    if view.now < fix_at:
        return Wait(fix_at, "the fix time")
    complete = len(terms.oracle.signers) * terms.oracle.samples
    needed = fixes_needed(terms, view.body, fix_at)
    better = tuple(key for key in needed if view.held.get(key, 0) > view.known.get(key, 0))
    if better:
        return ProveFixes(better)
    if all(view.known.get(key, 0) >= complete for key in needed):
        return Settle()
    patience = fix_at + terms.oracle.grace
    if view.now >= patience:
        return Settle()
    return Wait(patience, "the oracle signers that are missing, or the grace period to end")
