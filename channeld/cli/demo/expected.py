"""What the payouts must be, computed in the demo's own process: by the core, from a co-signed body and oracle packages.

Rules: nothing here asks a daemon or a contract for a result. The body is what both signed, the packages are the oracle
service's, and the arithmetic is core's (channeld/core/settlement.py).
"""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING

from channeld.cli.services import oracle_request
from channeld.core.packages import fix_price, print_price, sample_times
from channeld.core.settlement import fixes_needed, settle_amounts
from channeld.core.terms import feed_symbol

if TYPE_CHECKING:
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
