"""Rows as DataFrames: `pip install channeld-client[pandas]`.

Rules: money stays exact: decimal texts become Decimals. `floats=True` makes floats of them, for charts and statistics
alone. Times in milliseconds become UTC timestamps under the same name without `_ms`.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from channeld_client.events import Event

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

_DECIMAL = re.compile(r"-?\d+(\.\d+)?\Z")
# texts of digits that are names, not numbers
_NAMES = frozenset({"id", "hash", "channel", "peer", "label", "name", "reference", "memo", "tx", "batch"})


def frame(rows: Iterable[Mapping[str, Any] | Event], *, floats: bool = False) -> pd.DataFrame:
    """Any list of rows that the API gives, or of events.

    floats: floats instead of Decimals: inexact, never for money.
    """
    import pandas as pd  # noqa: PLC0415 - an extra; whoever needs no DataFrame does not install it

    number: type[float | Decimal] = float if floats else Decimal
    table = pd.DataFrame([_flat(row) for row in rows])
    for column in list(table.columns):
        name = str(column)
        if name.endswith("_ms"):
            table[name.removesuffix("_ms")] = pd.to_datetime(table.pop(column), unit="ms", utc=True)
        elif name.rpartition(".")[2] not in _NAMES:
            table[column] = [_number(value, number) for value in table[column]]
            if floats and all(value is None or isinstance(value, float) for value in table[column]):
                table[column] = table[column].astype("float64")
    return table


def _number(value: Any, number: type[float | Decimal]) -> Any:  # noqa: ANN401 - any cell
    return number(value) if isinstance(value, str) and _DECIMAL.match(value) else value


def _flat(row: Mapping[str, Any] | Event) -> dict[str, Any]:
    """A row with what is nested beside it, as `outer.inner`; lists stay as they are."""
    if isinstance(row, Event):
        row = {"seq": row.seq, "time_ms": row.time_ms, "kind": row.kind, "channel": row.channel, **row.data}
    found: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            found.update({f"{key}.{inner}": one for inner, one in _flat(value).items()})
        else:
            found[key] = value
    return found


def scenarios(margin: Mapping[str, Any], party: str | None = None, *, floats: bool = False) -> pd.DataFrame:
    """The scenarios of every market of `desk.margin(...)`, a row each. party: "a" or "b"; our own unless given."""
    side = margin[party or str(margin["us"])]
    rows = [{"market": market["market"], **one} for market in side["markets"] for one in market["scenarios"]]
    return frame(rows, floats=floats)
