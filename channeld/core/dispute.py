"""What to do next in a dispute, from what is known now: a pure function; nothing about the plan is stored.

Rules: refute strictly before the deadline whenever we hold a higher version; after it capture and prove the fixes that
are needed, have every margin call tested by the heaviest fixes, settle as soon as the contract lets us, and never
earlier. Where nobody shows the body on record, show our own highest once that is allowed. A restart in the middle asks
the same function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from channeld.core.settlement import MarginCall, fix_time, fixes_needed, may_settle
from channeld.core.wad import DAY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from channeld.core.state import Body
    from channeld.core.terms import Terms

RELEASE_AFTER = 180 * DAY


@dataclass(frozen=True, slots=True)
class DisputeView:
    """What is known: chain time (seconds), the record on chain, our highest co-signed version, and fixes by weight.

    body: the body on record, where we hold it. known: weight on chain of each (feed, time). held: weight of ours.
    calls: the margin calls in the order of calling. floor: the floor's version.
    shown, window_end: version and end of window of the highest body shown to settle_last; zeros while there is none.
    """

    now: int
    version: int
    deadline: int
    ours: int
    body: Body | None
    known: Mapping[tuple[bytes, int], int]
    held: Mapping[tuple[bytes, int], int]
    calls: tuple[MarginCall, ...] = ()
    floor: int = 0
    shown: int = 0
    window_end: int = 0


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
class JudgeCall:
    """Have the margin call of this index tested by the fixes that stand."""

    index: int


@dataclass(frozen=True, slots=True)
class Settle:
    """Settle now."""


@dataclass(frozen=True, slots=True)
class ShowLast:
    """Show our highest body to settle_last: to open or raise its window, or, after it, to be paid by it."""


@dataclass(frozen=True, slots=True)
class Release:
    """Nobody has shown any body for half a year: have the deposits given back."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """The body on record is not ours to show: the counterparty must, or the rules for a hidden body apply later."""


NextStep = Refute | Wait | ProveFixes | JudgeCall | Settle | ShowLast | Release | Unknown


def next_step(terms: Terms, view: DisputeView) -> NextStep:
    """The next step of an honest party. Section 11 of docs/protocol.md gives the times."""
    if view.now < view.deadline:
        if view.ours > view.version:
            return Refute()
        return Wait(view.deadline, "the challenge period to end")
    if view.body is None:
        return _hidden(terms, view)
    step = _calls(terms, view, view.body)
    if step is not None:
        return step
    fix_at = fix_time(terms, view.deadline)
    if view.now < fix_at:
        return Wait(fix_at, "the fix time")
    better = _better(view, fixes_needed(terms, view.body, fix_at))
    if better:
        return ProveFixes(better)
    if not may_settle(terms, view.body, view.deadline, view.calls, view.known, view.now):
        return Settle()
    later = [call.time for call in view.calls if call.time >= view.now]
    if later:
        return Wait(min(later), "the time of a margin call")
    return Wait(fix_at + terms.oracle.grace, "the oracle signers that are missing, or the grace period to end")


def _better(view: DisputeView, needed: tuple[tuple[bytes, int], ...]) -> tuple[tuple[bytes, int], ...]:
    return tuple(key for key in needed if view.held.get(key, 0) > view.known.get(key, 0))


def _calls(terms: Terms, view: DisputeView, body: Body) -> NextStep | None:
    """Margin calls whose time has come: the heaviest fixes, then a test by them. An empty book needs none."""
    for index, call in enumerate(view.calls if body.positions else ()):
        if call.time >= view.now:
            continue  # the contract tests once its L is past: until then a deposit still counts
        needed = fixes_needed(terms, body, call.time)
        better = _better(view, needed)
        if better:
            return ProveFixes(better)
        weights = [view.known.get(key, 0) for key in needed]
        if all(weights) and (call.verdict is None or call.verdict.weight < sum(weights)):
            return JudgeCall(index)
    return None


def _hidden(terms: Terms, view: DisputeView) -> NextStep:
    """Nobody has shown the body on record, and we do not hold it."""
    fix_at = fix_time(terms, view.deadline)
    opens = fix_at + 2 * terms.oracle.grace
    if view.now < opens:
        return Unknown()
    if view.ours < view.floor:
        nobody = view.window_end == 0 and view.now >= fix_at + RELEASE_AFTER
        return Release() if nobody else Unknown()
    if view.window_end == 0 or (view.now < view.window_end and view.shown < view.ours):
        return ShowLast()
    if view.now < view.window_end:
        return Wait(view.window_end, "higher bodies to be shown")
    return ShowLast() if view.shown == view.ours else Unknown()
