"""What happened to one channel on chain, from the contract's events, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from channeld.chain.events import decode_event, known_events
from channeld.core.crypto import checksum_address
from channeld.core.errors import ChainError

if TYPE_CHECKING:
    from channeld.daemon.emergency.case import Case

# providers refuse long ranges: this is asked in pieces, backwards, until the beginning or so many
SPAN = 5_000
MOST_SPANS = 200


async def history(case: Case) -> list[dict[str, Any]]:
    """The channel's events, oldest first; what an endpoint does not give is left out."""
    bundle = case.bundle
    last = await case.rpc.block_number()
    rows: list[dict[str, Any]] = []
    for _ in range(MOST_SPANS):
        first = max(0, last - SPAN + 1)
        try:
            logs = await case.rpc.logs([case.adjudicator.address], first, last, [None, bundle.channel])
        except ChainError:
            break
        found = []
        for log in logs:
            header = await case.rpc.header(log.block_number)
            event = decode_event(log, header.timestamp, known_events())
            found.append(_row(case, event))
        rows = found + rows
        if first == 0 or any(row["event"] == "Opened" for row in found):
            break
        last = first - 1
    return rows


def _row(case: Case, event: Any) -> dict[str, Any]:  # noqa: ANN401 - any of the contract's events
    kind = type(event).__name__
    words = [kind.lower()]
    version = getattr(event, "version", None)
    if version is not None:
        words.append(f"version {version}")
    for name in ("caller", "depositor"):
        who = getattr(event, name, None)
        if isinstance(who, bytes) and len(who) == 20:
            words.append(f"by {_who(case, who)}")
    if getattr(event, "to_a", None) is not None:
        words.append(f"{event.to_a} units to a, {event.to_b} to b")
    return {
        "event": kind,
        "time": event.at.time,
        "block": event.at.block_number,
        "tx": "0x" + event.at.transaction_hash.hex(),
        "words": " ".join(words),
    }


def _who(case: Case, address: bytes) -> str:
    terms = case.bundle.terms
    for side, party in (("a", terms.a), ("b", terms.b)):
        if address == party.signer:
            return f"{side}'s signer"
        if address == party.payout:
            return f"{side}'s payout address"
    return checksum_address(address)
