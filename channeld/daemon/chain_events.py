"""The contracts' events about a channel, as the desk's own events: names and plain data. Nothing here acts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from channeld.chain.events import (
    Challenged,
    Closed,
    Deposited,
    MarginCalled,
    Refuted,
    Resumed,
    Settled,
    Tested,
    Withdrawn,
)
from channeld.core.crypto import checksum_address
from channeld.core.wad import format_decimal

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
        case MarginCalled():
            return _margin_called(event)
        case Tested():
            return [("margin_tested", _tested(event))]
        case Resumed():
            return [("resume_final", {"dispute": event.resume.dispute, "version": event.version})]
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


def _margin_called(event: MarginCalled) -> list[Told]:
    party = "ab"[event.party]
    called = {"dispute": event.dispute, "call": event.call, "party": party, "time": event.time}
    message = f"{party} calls margin on chain: both are judged at the fix of {event.time}, deposits until then included"
    return [
        ("margin_called_on_chain", {**called, "by": checksum_address(event.caller)}),
        ("alert", {"severity": "critical", "message": message}),
    ]


def _tested(event: Tested) -> dict[str, Any]:
    """Equities and margins to the cent; the penalty in units."""
    verdict = event.verdict
    return {
        "call": event.call,
        "time": event.time,
        "below": [name for name, below in (("a", verdict.below_a), ("b", verdict.below_b)) if below],
        "equity_a": format_decimal(verdict.equity_a, places=2),
        "equity_b": format_decimal(verdict.equity_b, places=2),
        "margin_a": format_decimal(verdict.margin_a, places=2),
        "margin_b": format_decimal(verdict.margin_b, places=2),
        "penalty_units": str(verdict.penalty),
        "complete": verdict.complete,
    }


def _challenged(event: Challenged) -> list[Told]:
    raised = {
        "dispute": event.dispute,
        "version": event.version,
        "deadline": event.deadline,
        "by": checksum_address(event.caller),
    }
    message = f"a dispute was raised with version {event.version}; deadline {event.deadline}"
    return [("dispute_raised", raised), ("alert", {"severity": "critical", "message": message})]
