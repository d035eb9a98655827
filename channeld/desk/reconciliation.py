"""Reconciliation: our statement against the counterparty's of the same time, row by row, and the reason of every break.

Rules: both are plain data of `Statement.as_data`, the other's seen from its own side, and theirs is a stranger's (ours
too, where somebody swaps the files): what cannot be compared is a break and never an exception. Rows are matched by
version and place in their batch, and what stands twice in one file is a break of its own: the one must not hide the
other. Each break names its reason, what is here and what is there. None means that both hold the same to the unit.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from channeld.core.errors import ChanneldError, InputError
from channeld.core.wad import format_decimal, parse_decimal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Key = TypeVar("Key", str, tuple[int, int])

MISSING_HERE, MISSING_THERE = "missing here", "missing there"
TWICE_HERE, TWICE_THERE = "more than once here", "more than once there"
DECIMALS = 18
# compared as they are, with the sign turned, and with the field that the other side calls so
SAME = ("time_ms", "kind", "reference", "batch_hash", "body_hash")
TURNED = ("fee_paid", "funding_paid")
CROSSED = (("amount", "peer_amount"), ("peer_amount", "amount"))
LEG_SAME, LEG_TURNED = ("instrument", "price", "carry", "vol"), ("size",)
SETTLED_SAME, SETTLED_TURNED = ("instrument", "mark", "fix"), ("size", "profit")
MAX_ROWS = 1_000_000
MOST_BITS = 512


class NotReconcilableError(InputError):
    """Two files that are not the two sides' statements of one channel and time."""

    code = 2553
    advice = "Both sides write `channeld statement PEER --day DAY --json` for the same time; hand over that file."


@dataclass(frozen=True, slots=True)
class Break:
    """Where two statements differ. version 0: of the statement as a whole."""

    version: int
    index: int
    reason: str
    ours: str
    theirs: str

    def as_data(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "version": self.version,
            "index": self.index,
            "reason": self.reason,
            "ours": self.ours,
            "theirs": self.theirs,
        }


def reconcile(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Break]:
    """Every difference between our statement and the peer's, in order of versions.

    Raises:
        NotReconcilableError: they are of other channels, of one side, or of other times.
    """
    for statement in (ours, theirs):
        if statement.get("channeld_statement") != 1 or not isinstance(statement.get("rows"), list):
            raise NotReconcilableError("one of the two is no statement")
        if len(statement["rows"]) > MAX_ROWS:
            raise NotReconcilableError(f"a statement of more than {MAX_ROWS} rows")
    for name in ("chain_id", "adjudicator", "channel", "from_ms", "until_ms"):
        if ours.get(name) != theirs.get(name):
            raise NotReconcilableError(f"{name} is {_shown(ours, name)} here and {_shown(theirs, name)} there")
    if {_shown(ours, "side"), _shown(theirs, "side")} != {"a", "b"}:
        raise NotReconcilableError("both are of one side")
    found: list[Break] = []
    for name in ("opening", "closing"):
        found += _account(name, ours.get(name), theirs.get(name))
    found += _positions(ours.get("positions"), theirs.get("positions"))
    found += _rows(ours["rows"], theirs["rows"])
    return sorted(found, key=lambda one: (one.version, one.index))


def _account(name: str, ours: Any, theirs: Any) -> list[Break]:  # noqa: ANN401 - a stranger's JSON, here and below
    pairs = (("version", "version"), ("balance", "peer_balance"), ("peer_balance", "balance"))
    return [
        Break(0, 0, f"{name} {here.replace('_', ' ')} differs", _shown(ours, here), _shown(theirs, there))
        for here, there in pairs
        if _shown(ours, here) != _shown(theirs, there)
    ]


def _positions(ours: Any, theirs: Any) -> list[Break]:  # noqa: ANN401
    here, there = (
        {_shown(row, "instrument"): row for row in rows} if isinstance(rows, list) else {} for rows in (ours, theirs)
    )
    found = [
        Break(0, 0, f"position in {name} {reason}", *counts)
        for name, reason, *counts in _repeated(
            *([_shown(row, "instrument") for row in rows] if isinstance(rows, list) else [] for rows in (ours, theirs))
        )
    ]
    for name in sorted({*here, *there}):
        first, second = here.get(name), there.get(name)
        if first is None or second is None:
            reason = f"position in {name} {MISSING_HERE if first is None else MISSING_THERE}"
            found.append(Break(0, 0, reason, _shown(first, "size"), _shown(second, "size")))
            continue
        for field in ("size", "mark", "carry", "vol"):
            expected = _turned(first, field) if field == "size" else _shown(first, field)
            if expected != _shown(second, field):
                reason = f"{field} of the position in {name} differs"
                found.append(Break(0, 0, reason, _shown(first, field), _shown(second, field)))
    return found


def _rows(ours: Sequence[Any], theirs: Sequence[Any]) -> list[Break]:
    here, there = ({_place(row): row for row in rows} for rows in (ours, theirs))
    found = [
        Break(*place, reason, *counts)
        for place, reason, *counts in _repeated(*([_place(row) for row in rows] for rows in (ours, theirs)))
    ]
    for place in {**here, **there}:
        first, second = here.get(place), there.get(place)
        if first is None or second is None:
            reason = MISSING_HERE if first is None else MISSING_THERE
            found.append(Break(*place, reason, _line(first), _line(second)))
            continue
        found += _compared(place, first, second)
    return found


def _repeated(ours: Sequence[Key], theirs: Sequence[Key]) -> Iterator[tuple[Key, str, str, str]]:
    """What stands more than once in one of two lists: what, where, and how often here and there."""
    here, there = Counter(ours), Counter(theirs)
    for key in {**here, **there}:
        for count, reason in ((here[key], TWICE_HERE), (there[key], TWICE_THERE)):
            if count > 1:
                yield key, reason, str(here[key]), str(there[key])


def _place(row: Any) -> tuple[int, int]:  # noqa: ANN401
    version, index = (row.get(name) if isinstance(row, dict) else None for name in ("version", "index"))
    return (version if type(version) is int else -1, index if type(index) is int else -1)


def _compared(place: tuple[int, int], first: Any, second: Any) -> list[Break]:  # noqa: ANN401
    found = [
        Break(*place, f"{name} differs", _shown(first, name), _shown(second, name))
        for name in SAME
        if _shown(first, name) != _shown(second, name)
    ]
    found += [
        Break(*place, f"{here} differs", _shown(first, here), _shown(second, there))
        for here, there in CROSSED
        if _shown(first, here) != _shown(second, there)
    ]
    found += [
        Break(*place, f"{name} differs", _shown(first, name), _shown(second, name))
        for name in TURNED
        if _turned(first, name) != _shown(second, name)
    ]
    by = {"us": "peer", "peer": "us"}.get(_shown(first, "by"), "")
    if by != _shown(second, "by"):
        found.append(Break(*place, "by differs", _shown(first, "by"), _shown(second, "by")))
    for name, same, turned in (("legs", LEG_SAME, LEG_TURNED), ("settled", SETTLED_SAME, SETTLED_TURNED)):
        mine, others = (row.get(name) if isinstance(row, dict) else None for row in (first, second))
        if not isinstance(mine, list) or not isinstance(others, list) or len(mine) != len(others):
            found.append(Break(*place, f"number of {name} differs", _count(mine), _count(others)))
            continue
        for number, (one, other) in enumerate(zip(mine, others, strict=True), 1):
            found += [
                Break(*place, f"{field} of {name} {number} differs", _shown(one, field), _shown(other, field))
                for field in (*same, *turned)
                if (_turned(one, field) if field in turned else _shown(one, field)) != _shown(other, field)
            ]
    return found


def _count(rows: Any) -> str:  # noqa: ANN401
    return str(len(rows)) if isinstance(rows, list) else "none"


def _shown(row: Any, name: str) -> str:  # noqa: ANN401
    value = row.get(name) if isinstance(row, dict) else None
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        return "a number of no statement"
    return "" if value is None else str(value)[:200]


def _turned(row: Any, name: str) -> str:  # noqa: ANN401
    """A decimal of ours as the other side has it."""
    try:
        return format_decimal(-parse_decimal(_shown(row, name), DECIMALS), DECIMALS)
    except ChanneldError:
        return _shown(row, name)


def _line(row: Any) -> str:  # noqa: ANN401
    return f"{_shown(row, 'kind')} {_shown(row, 'amount')}".strip()
