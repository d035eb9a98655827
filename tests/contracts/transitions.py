"""Every state of a channel on chain, and what every function does in it: one table for tests and docs/contracts.md.

A state is a phase of the record and a stretch of time. An outcome is the state it leads to, or the error that refuses.
Arguments are good ones: co-signed and not outdated, from a party where that is asked, the body on record, a margin call
whose time is past and that is not tested, an empty book (so that no fix is missing).
"""

from __future__ import annotations

# name -> (phase of channel_record, when)
STATES = {
    "nothing": (0, "never opened"),
    "open": (1, "no dispute"),
    "dispute": (2, "before the deadline"),
    "judgement": (2, "from the deadline on, before D"),
    "payable": (2, "from D on"),
    "last_call": (2, "from D + 2 * grace on, no body shown to settle_last"),
    "window": (2, "a body was shown, its window of grace is open"),
    "window_over": (2, "a body was shown, its window is over"),
    "abandoned": (2, "from D + 180 days on, no body shown"),
    "ended": (3, "paid"),
}
DISPUTES = ("dispute", "judgement", "payable", "last_call", "window", "window_over", "abandoned")
PAYABLE = DISPUTES[2:]


def _outcomes(*, default: dict[str, str] | None = None, **given: str) -> dict[str, str]:
    """An outcome per state: those given, then the defaults, then the two refusals that nearly every function shares."""
    shared = {"nothing": "UnknownChannel", "ended": "ChannelEnded"}
    return {state: ({**shared, **(default or {}), **given})[state] for state in STATES}


_STAYS = {state: state for state in ("open", *DISPUTES)}
_OPEN_ALONE = dict.fromkeys(DISPUTES, "InDispute")
_BEFORE_THE_DEADLINE = dict.fromkeys(DISPUTES, "DeadlinePassed") | {"open": "NotInDispute"}
_DISPUTE_ALONE = {"open": "NotInDispute"}

TRANSITIONS: dict[str, dict[str, str]] = {
    "open": dict.fromkeys(STATES, "AlreadyOpened") | {"nothing": "open"},
    "deposit": _outcomes(default=_STAYS),
    "deposit_with_permit": _outcomes(default=_STAYS),
    "withdraw": _outcomes(default=_OPEN_ALONE, open="open"),
    "anchor": _outcomes(default=_OPEN_ALONE, open="open"),
    "challenge": _outcomes(default=_OPEN_ALONE, open="dispute"),
    "call_margin": _outcomes(default=_BEFORE_THE_DEADLINE, open="dispute", dispute="dispute"),
    "refute": _outcomes(default=_BEFORE_THE_DEADLINE, dispute="dispute"),
    "resume": _outcomes(default=_BEFORE_THE_DEADLINE, dispute="open"),
    "test": _outcomes(default={**_STAYS, **_DISPUTE_ALONE, "dispute": "DeadlineNotReached"}),
    "settle": _outcomes(
        default=dict.fromkeys(PAYABLE, "ended") | _DISPUTE_ALONE,
        dispute="FixTimeNotReached",
        judgement="FixTimeNotReached",
    ),
    "settle_last": _outcomes(
        default=dict.fromkeys(DISPUTES, "LastNotReached") | _DISPUTE_ALONE,
        last_call="window",
        abandoned="window",
        window="window",
        window_over="ended",
    ),
    "release": _outcomes(default=dict.fromkeys(DISPUTES, "ReleaseNotReached") | _DISPUTE_ALONE, abandoned="ended"),
    "close": _outcomes(default=dict.fromkeys(("open", *DISPUTES), "ended")),
}
# what time alone does
CLOCK = (
    ("dispute", "judgement", "the deadline"),
    ("judgement", "payable", "D"),
    ("payable", "last_call", "D + 2 * grace"),
    ("last_call", "abandoned", "D + 180 days"),
    ("window", "window_over", "the end of the window"),
)


def diagram() -> str:
    """The states and transitions as a mermaid diagram."""
    lines = ["stateDiagram-v2", "    [*] --> nothing"]
    for source in STATES:
        edges: dict[str, list[str]] = {}
        for function, outcomes in TRANSITIONS.items():
            if outcomes[source] in STATES and (outcomes[source] != source or function not in _ANYWHERE):
                edges.setdefault(outcomes[source], []).append(function)
        lines += [f"    {source} --> {target}: {', '.join(functions)}" for target, functions in edges.items()]
        lines += [f"    {a} --> {b}: time, {when}" for a, b, when in CLOCK if a == source]
    return "\n".join([*lines, "    ended --> [*]"]) + "\n"


# deposits change no state: left out of the diagram, like loops that say nothing
_ANYWHERE = ("deposit", "deposit_with_permit")


def matrix() -> str:
    """What each function does in each state, as a table: the state that follows in bold, or the error."""
    head = ["| | " + " | ".join(STATES) + " |", "| --- " * (len(STATES) + 1) + "|"]
    for function, outcomes in TRANSITIONS.items():
        cells = [f"**{o}**" if o in STATES else o for o in (outcomes[state] for state in STATES)]
        head.append(f"| `{function}` | " + " | ".join(cells) + " |")
    return "\n".join(head) + "\n"


def states_table() -> str:
    """The states, with the phase that `channel_record` says and the stretch of time."""
    rows = [f"| {name} | {phase} | {when} |" for name, (phase, when) in STATES.items()]
    return "\n".join(["| state | phase | when |", "| --- | --- | --- |", *rows]) + "\n"
