"""The records of many states as few statements: what a pipeline commits together goes into each table at once.

Rules: the result is that of the same writes one by one. Each statement reads its rows from packed bytes in SQL, so that
the interpreter's lock is taken a few times for a commit and not for each row: a writer thread that asked for it a
thousand times would wait for the event loop a thousand times. A statement that inserts fewer rows than it was given met
one that was there already; its rows are then looked at one by one, where repeats pass and conflicts are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from channeld.core import records

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

FEW = 8  # writes that are not worth packing
_HOT = (records.PutSigned, records.PutProposal, records.PutState, records.PutBatch)
# what reads or removes rows of the tables above, or makes the channel that they belong to: its place among them counts
_BARRIERS = (records.PutChannel, records.SetStatus, records.DropProposals, records.DropRejections)

_ROWS = "(WITH RECURSIVE n(i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2) SELECT i FROM n)"
_END = f"FROM {_ROWS} WHERE true ON CONFLICT DO NOTHING"


def _number(at: int, width: int, stride: int) -> str:
    return f"CAST(substr(?3, i * {stride} + {at}, {width}) AS INTEGER)"


_SIGNED = (
    f"INSERT INTO signed SELECT ?1, ?4, {_number(1, 20, 117)}, substr(?3, i * 117 + 21, 32), "
    f"substr(?3, i * 117 + 53, 65) {_END}"
)
_STATES = (
    f"INSERT INTO states SELECT ?1, {_number(1, 20, 182)}, substr(?3, i * 182 + 21, 32), "
    f"substr(?3, i * 182 + 53, 65), substr(?3, i * 182 + 118, 65) {_END}"
)
_RAW = f"substr(?4, {_number(21, 10, 40)}, {_number(31, 10, 40)})"
_BATCHES = f"INSERT INTO batches SELECT ?1, {_number(1, 20, 40)}, {_RAW} {_END}"
_PROPOSALS = f"INSERT INTO outstanding SELECT ?1, 0, {_number(1, 20, 40)}, {_RAW} {_END}"


def _place(write: Any) -> tuple[type, bytes, str]:  # noqa: ANN401 - one of _HOT
    """Table, channel and kind of signature."""
    channel = write.state.channel if type(write) is records.PutState else write.channel
    return type(write), channel, write.kind if type(write) is records.PutSigned else ""


class Bulk:
    """Applies writes over one connection, the usual ones together; the rest, and what is unusual, by `one`."""

    def __init__(
        self, connection: sqlite3.Connection, number: Callable[[bytes], int], one: Callable[[Any], None]
    ) -> None:
        """`number` gives a channel's row; `one` applies a single write."""
        self._execute = connection.execute
        self._number = number
        self._one = one

    def apply(self, writes: Sequence[records.Write]) -> None:
        """Apply writes so that the result is that of their order.

        Raises:
            as applying them one by one; the caller rolls back.
        """
        if len(writes) < FEW:
            for write in writes:
                self._one(write)
            return
        kept: dict[tuple[type, bytes, str], list[Any]] = {}
        for write in writes:
            kind = type(write)
            if kind in _HOT:
                kept.setdefault(_place(write), []).append(write)
                continue
            if kind in _BARRIERS:
                self._flush(kept)
            self._one(write)
        self._flush(kept)

    def _flush(self, kept: dict[tuple[type, bytes, str], list[Any]]) -> None:
        for kind in _HOT:
            for (of, channel, mark), rows in kept.items():
                if of is kind:
                    self._put(kind, channel, mark, rows)
        kept.clear()

    def _put(self, kind: type, channel: bytes, mark: str, rows: list[Any]) -> None:
        if len(rows) == 1 or not self._packed(kind, channel, mark, rows):
            for row in rows:
                self._one(row)

    def _packed(self, kind: type, channel: bytes, mark: str, rows: list[Any]) -> bool:
        """Insert rows of one table and channel; whether all of them were new."""
        if kind is records.PutSigned:
            if mark in records.RISING_KINDS and not self._rises(channel, mark, rows):
                return False
            packed = b"".join([b"%020d" % w.version + w.digest + w.signature for w in rows])
            return self._all(rows, _SIGNED, (channel, len(rows), packed, mark))
        number = self._number(channel)
        if kind is records.PutState:
            states = [w.state for w in rows]
            packed = b"".join([b"%020d" % s.version + s.body_hash + s.signature_a + s.signature_b for s in states])
            if not self._all(rows, _STATES, (number, len(rows), packed)):
                return False
            # the newest body replaces the others; the state it belongs to is there by now
            newest = max((w for w in rows if w.has_body), key=lambda w: w.state.version, default=None)
            if newest is not None:
                self._one(newest)
            return True
        index, at = [], 1
        for w in rows:
            index.append(b"%020d%010d%010d" % (w.version, at, len(w.raw)))
            at += len(w.raw)
        if at == 1:
            return False  # nothing but empty ones, of which SQL's substr makes none
        statement = _BATCHES if kind is records.PutBatch else _PROPOSALS
        return self._all(rows, statement, (number, len(rows), b"".join(index), b"".join([w.raw for w in rows])))

    def _rises(self, channel: bytes, mark: str, rows: list[records.PutSigned]) -> bool:
        key = (channel, mark)
        top = self._execute("SELECT max(version) FROM signed WHERE channel = ? AND kind = ?", key).fetchone()[0]
        for row in rows:
            if top is not None and row.version <= top:
                return False
            top = row.version
        return True

    def _all(self, rows: list[Any], statement: str, values: tuple[Any, ...]) -> bool:
        return self._execute(statement, values).rowcount == len(rows)
