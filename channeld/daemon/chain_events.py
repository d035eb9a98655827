"""The contracts' events about a channel, as the desk's own events: names and plain data. Nothing here acts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from channeld.chain.events import Challenged, Closed, Deposited, Refuted, Settled, Withdrawn
from channeld.core.crypto import checksum_address

if TYPE_CHECKING:
    from channeld.chain.events import ChainEvent

Told = tuple[str, dict[str, Any]]


def described(event: ChainEvent) -> list[Told]:
    """The desk's events for one of the chain's, in order; none where there is nothing to tell."""
    match event:
        case Deposited():
            totals = {"deposited_a": event.deposited_a, "deposited_b": event.deposited_b}
            return [("deposit_final", {"party": "ab"[event.party], "units": event.received, **totals})]
        case Withdrawn():
            return [("withdrawn", {"to_a": event.to_a, "to_b": event.to_b})]
        case Challenged():
            return _challenged(event)
        case Refuted():
            return [("dispute_refuted", {"version": event.version, "by": checksum_address(event.caller)})]
        case Settled():
            data = {
                "version": event.version,
                "fix_time": event.fix_time,
                "profit_units": event.profit,
                "to_a": event.to_a,
                "to_b": event.to_b,
                "complete": event.complete,
            }
            return [("settled", data)]
        case Closed():
            return [("closed", {"to_a": event.to_a, "to_b": event.to_b})]
        case _:
            return []


def _challenged(event: Challenged) -> list[Told]:
    raised = {
        "dispute": event.dispute,
        "version": event.version,
        "deadline": event.deadline,
        "by": checksum_address(event.caller),
    }
    message = f"a dispute was raised with version {event.version}; deadline {event.deadline}"
    return [("dispute_raised", raised), ("alert", {"severity": "critical", "message": message})]
