"""How long a desk may be away without trusting its peer. Pure; times are Unix seconds.

Source: docs/protocol.md, section 12, "Disappearance". While a desk is away its peer may take an old state to the chain,
call margin, or hide the body of the state on record. Whoever must refute has the challenge period; whoever is near its
maintenance margin has the cure period; whoever has a tower that refutes must only be back to show its body, for which
the contract leaves until D + 3 * grace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from channeld.core.settlement import fix_time

if TYPE_CHECKING:
    from channeld.core.margin import MarginReport
    from channeld.core.terms import Terms

THIN = 2


def is_thin(report: MarginReport) -> bool:
    """Whether one worst scenario could bring a party below its maintenance margin: equity < 2 * MM (wads)."""
    return report.maintenance > 0 and report.equity < THIN * report.maintenance


def safe_offline_until(
    terms: Terms, now: int, *, thin: bool, refuting: bool, deadline: int = 0, overtaken: bool = False
) -> int:
    """The time until which a desk may be away without trusting its peer (seconds).

    Args:
        terms: the channel's.
        now: Unix seconds.
        thin: the desk stands near its maintenance margin, so that a margin call would have to be cured.
        refuting: a tower that is alive holds the newest state.
        deadline: of the dispute that runs; 0 where none does.
        overtaken: the version on record of that dispute is below ours.

    """
    safe = deadline and not overtaken
    if refuting or safe:
        last = fix_time(terms, deadline or now + terms.challenge_period) + 3 * terms.oracle.grace
    else:
        last = deadline or now + terms.challenge_period
    calls_are_over = bool(deadline) and now >= deadline
    return min(last, now + terms.cure_period) if thin and not calls_are_over else last
