"""What the payouts must be, computed in the demo's own process: by the core, from a co-signed body and oracle packages.

Rules: nothing here takes a daemon's or a contract's word for a result. The body is what both signed, the journal's
batches are the exact bytes that travelled, the packages are the oracle service's, and the arithmetic is core's
(channeld/core/settlement.py, channeld/core/journal.py). What a daemon says beside it is compared, not used.
"""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING

from channeld.cli.errors import ServiceError
from channeld.cli.services import oracle_request
from channeld.core.eip712 import body_hash
from channeld.core.files import terms_from_json
from channeld.core.journal import replay
from channeld.core.packages import fix_price, print_price, sample_times
from channeld.core.settlement import (
    MarginCall,
    Verdict,
    fix_time,
    fixes_needed,
    judge,
    settle_amounts,
    settle_with_calls,
)
from channeld.core.terms import feed_symbol
from channeld.core.wad import format_decimal

if TYPE_CHECKING:
    from channeld.cli.demo.world import Desk
    from channeld.core.state import Body
    from channeld.core.terms import Terms


def packages(oracle: str, feed: bytes, t: int) -> list[bytes]:
    """The oracle service's packages of a feed for a second."""
    query = urllib.parse.urlencode({"feed": feed_symbol(feed), "timestamp_ms": t * 1000})
    answer = oracle_request(oracle, f"/packages?{query}")
    return [bytes.fromhex(str(one).removeprefix("0x")) for one in answer["packages"]]


def price(oracle: str, terms: Terms, feed: bytes, t: int) -> int:
    """The print of a feed at t (Unix seconds), a wad."""
    return print_price(terms.oracle, feed, t, packages(oracle, feed, t)).value


def fix(oracle: str, terms: Terms, feed: bytes, t: int) -> int:
    """The fix of a feed at t (Unix seconds), a wad."""
    raw = [one for second in sample_times(terms.oracle, t) for one in packages(oracle, feed, second)]
    return fix_price(terms.oracle, feed, t, raw).value


def settlement(
    oracle: str, terms: Terms, body: Body, at: int, deposited: tuple[int, int]
) -> tuple[dict[tuple[str, int], int], tuple[int, int]]:
    """The fixes that a settlement at `at` needs, and what it pays to a and b, in units."""
    fixes = {key: fix(oracle, terms, *key) for key in fixes_needed(terms, body, at)}
    amounts = settle_amounts(terms, body, dict(fixes), at, *deposited, 0, 0)
    return {(feed_symbol(feed), t): value for (feed, t), value in fixes.items()}, amounts


def settlement_by_call(
    oracle: str, terms: Terms, body: Body, deadline: int, time: int, deposited: tuple[int, int]
) -> tuple[dict[tuple[str, int], int], Verdict, tuple[int, int]]:
    """With one margin call at `time`, its L: the fixes that decide, the verdict, and what a and b are paid, in units.

    The fixes are those of L where the call finds a party below, else of the settlement's own time.
    """
    at = fix_time(terms, deadline)
    full = len(terms.oracle.signers) * terms.oracle.samples
    fixes = {key: fix(oracle, terms, *key) for key in fixes_needed(terms, body, time)}
    weighed = {key: (value, full) for key, value in fixes.items()}
    verdict = judge(terms, body, weighed, time, *deposited, 0, 0)
    if not (verdict.below_a or verdict.below_b):
        fixes = {key: fix(oracle, terms, *key) for key in fixes_needed(terms, body, at)}
    call = MarginCall(time, verdict)
    amounts = settle_with_calls(terms, body, dict(fixes), deadline, [call], *deposited, 0, 0)
    return {(feed_symbol(feed), t): value for (feed, t), value in fixes.items()}, verdict, amounts


def replayed(desk: Desk, channel: str) -> tuple[int, tuple[str, str]]:
    """A desk's journal, replayed here from version 0: (how many versions, the balances of a and b as decimal strings).

    Raises:
        ServiceError: the journal does not lead to what is co-signed, or the daemon's own audit says something else.
        ReplayError: a batch breaks a rule.

    """
    audit = desk.call("private/audit", channel=channel, timeout=120)
    shown = desk.call("private/channel", channel=channel)
    terms = terms_from_json(shown["terms"])
    rows = desk.call("private/journal", channel=channel, timeout=120)
    signed = int(shown["version"])
    batches = [(int(row["version"]), bytes.fromhex(row["batch"][2:])) for row in rows if int(row["version"]) <= signed]
    identifier = bytes.fromhex(str(shown["channel"])[2:])
    state = replay(terms, identifier, batches)
    balances = (
        format_decimal(state.body.a.balance, terms.decimals),
        format_decimal(state.body.b.balance, terms.decimals),
    )
    ours = (True, state.version, signed, "0x" + body_hash(state.body).hex(), *balances)
    theirs = (
        audit["replayed"],
        int(audit["version"]),
        state.version,
        shown["body_hash"],
        audit["expected"]["a"],
        audit["expected"]["b"],
    )
    if ours != theirs:
        message = f"{desk.name}'s journal does not replay to what is signed: {ours} here, {theirs} there"
        raise ServiceError(message)
    return len(batches), balances
