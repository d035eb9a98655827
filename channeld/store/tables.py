"""Writes and reads as SQL, over one connection with the schema of store/schema.py.

Rules: nothing here begins or commits a transaction; the caller decides what is atomic. A refusal (DoubleSignError,
RecordConflictError, UnknownRecordError, RecordValueError) may come after some of the writes were applied: the caller
rolls back. What is written once is inserted first and compared only when it was there already: the usual case costs one
statement.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from channeld.core import records
from channeld.core.records import (
    BatchRecord,
    ChannelRecord,
    ChannelSnapshot,
    CosignedState,
    EventRecord,
    MessageRecord,
    RecordValueError,
    SignedRecord,
)
from channeld.store.bulk import Bulk
from channeld.store.refusals import conflict, double_sign, other_particulars, unknown_channel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# A value that the schema or the driver refuses although the records did not: an error of one caller, not of the disk.
CALLER_ERRORS = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    OverflowError,
    TypeError,
    ValueError,
    AttributeError,
)
_PROPOSAL, _REJECTION = 0, 1
_CHANNEL_FIELDS = "channel, peer, side, terms, chain_id, adjudicator, status, opened_at"
_STATE_FIELDS = "s.version, s.body_hash, s.signature_a, s.signature_b, p.body"
_STATE_SOURCE = "states s LEFT JOIN snapshots p ON p.channel = s.channel AND p.version = s.version"


class Tables:
    """The records in one connection. Not safe for several threads at once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Work on a connection in autocommit mode whose schema is current."""
        self._connection = connection
        self._execute = connection.execute
        self._ids: dict[bytes, int] = {}
        self._sequences: list[int] = []
        self._bulk = Bulk(connection, self._id, self._apply_one)
        self._appliers: dict[type, Callable[[Any], None]] = {
            records.PutChannel: self._put_channel,
            records.SetStatus: self._set_status,
            records.PutState: self._put_state,
            records.PutBatch: self._put_batch,
            records.PutProposal: lambda w: self._put_outstanding(_PROPOSAL, w),
            records.DropProposals: lambda w: self._drop_outstanding(_PROPOSAL, w),
            records.PutRejection: lambda w: self._put_outstanding(_REJECTION, w),
            records.DropRejections: lambda w: self._drop_outstanding(_REJECTION, w),
            records.PutSigned: self._put_signed,
            records.PutDocument: self._put_document,
            records.DropDocument: self._drop_document,
            records.AppendEvent: self._append_event,
            records.DropEvents: self._drop_events,
        }

    def apply(self, writes: Sequence[records.Write]) -> tuple[int, ...]:
        """Apply writes in order; the sequence numbers of the events among them.

        Raises:
            DoubleSignError, RecordConflictError, UnknownRecordError, RecordValueError: the caller must roll back, and
                call `forget`.
            sqlite3.Error: from the database.

        """
        self._sequences = []
        self._bulk.apply(writes)
        return tuple(self._sequences)

    def _apply_one(self, write: records.Write) -> None:
        applier = self._appliers.get(type(write))
        if applier is None:
            raise RecordValueError(f"{type(write).__name__} is no write")
        applier(write)

    def forget(self) -> None:
        """Drop what was remembered of rows that a rollback may have taken away."""
        self._ids.clear()

    # --- writes ---

    def _id(self, channel: bytes) -> int:
        known = self._ids.get(channel)
        if known is None:
            row = self._execute("SELECT id FROM channels WHERE channel = ?", (channel,)).fetchone()
            if row is None:
                raise unknown_channel(channel)
            known = self._ids[channel] = int(row[0])
        return known

    def _put_channel(self, write: records.PutChannel) -> None:
        r = write.record
        inserted = self._execute(
            f"INSERT INTO channels ({_CHANNEL_FIELDS}) VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (channel) DO NOTHING",  # noqa: S608 - constants
            (r.channel, r.peer, r.side, r.terms, r.chain_id, r.adjudicator, r.status, r.opened_at),
        ).rowcount
        if inserted:
            return
        same = self._execute(
            "UPDATE channels SET status = ? WHERE channel = ? AND peer = ? AND side = ? AND terms = ? AND chain_id = ? "
            "AND adjudicator = ? AND opened_at = ?",
            (r.status, r.channel, r.peer, r.side, r.terms, r.chain_id, r.adjudicator, r.opened_at),
        ).rowcount
        if not same:
            raise other_particulars(r.channel)

    def _set_status(self, write: records.SetStatus) -> None:
        self._execute("UPDATE channels SET status = ? WHERE id = ?", (write.status, self._id(write.channel)))

    def _put_state(self, write: records.PutState) -> None:
        s = write.state
        number = self._id(s.channel)
        row = (number, s.version, s.body_hash, s.signature_a, s.signature_b)
        inserted = self._execute("INSERT INTO states VALUES (?,?,?,?,?) ON CONFLICT DO NOTHING", row).rowcount
        if not inserted:
            stored = self._execute("SELECT * FROM states WHERE channel = ? AND version = ?", row[:2]).fetchone()
            if tuple(stored) != row:
                raise conflict("co-signed state", s.channel, s.version)
        body = write.body_bytes()
        if body is not None:
            self._execute(
                "INSERT INTO snapshots VALUES (?,?,?) ON CONFLICT (channel) DO UPDATE SET version = excluded.version, "
                "body = excluded.body WHERE excluded.version >= snapshots.version",
                (number, s.version, body),
            )

    def _put_batch(self, write: records.PutBatch) -> None:
        row = (self._id(write.channel), write.version, write.raw)
        if not self._execute("INSERT INTO batches VALUES (?,?,?) ON CONFLICT DO NOTHING", row).rowcount:
            stored = self._execute("SELECT raw FROM batches WHERE channel = ? AND version = ?", row[:2]).fetchone()
            if stored[0] != write.raw:
                raise conflict("batch", write.channel, write.version)

    def _put_outstanding(self, kind: int, write: records.PutProposal | records.PutRejection) -> None:
        row = (self._id(write.channel), kind, write.version, write.raw)
        if not self._execute("INSERT INTO outstanding VALUES (?,?,?,?) ON CONFLICT DO NOTHING", row).rowcount:
            stored = self._execute(
                "SELECT raw FROM outstanding WHERE channel = ? AND kind = ? AND version = ?", row[:3]
            ).fetchone()
            if stored[0] != write.raw:
                raise conflict("outstanding message", write.channel, write.version)

    def _drop_outstanding(self, kind: int, write: records.DropProposals | records.DropRejections) -> None:
        self._execute(
            "DELETE FROM outstanding WHERE channel = ? AND kind = ? AND version BETWEEN ? AND ?",
            (self._id(write.channel), kind, write.first, write.last),
        )

    def _put_signed(self, write: records.PutSigned) -> None:
        key = (write.channel, write.kind)
        if write.kind in records.RISING_KINDS:
            top = self._execute("SELECT max(version) FROM signed WHERE channel = ? AND kind = ?", key).fetchone()[0]
            rises = top is None or write.version > top
        else:
            top, rises = None, True
        row = (*key, write.version, write.digest, write.signature)
        if rises and self._execute("INSERT INTO signed VALUES (?,?,?,?,?) ON CONFLICT DO NOTHING", row).rowcount:
            return
        stored = self._execute(
            "SELECT digest FROM signed WHERE channel = ? AND kind = ? AND version = ?", row[:3]
        ).fetchone()
        if stored is not None and stored[0] == write.digest:
            return
        raise double_sign(write, None if stored is not None else top)

    def _put_document(self, write: records.PutDocument) -> None:
        self._execute(
            "INSERT INTO documents VALUES (?,?,?) ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value",
            (write.kind, write.key, write.value),
        )

    def _drop_document(self, write: records.DropDocument) -> None:
        self._execute("DELETE FROM documents WHERE kind = ? AND key = ?", (write.kind, write.key))

    def _append_event(self, write: records.AppendEvent) -> None:
        cursor = self._execute(
            "INSERT INTO events (time_ms, kind, channel, data) VALUES (?,?,?,?)",
            (write.time_ms, write.kind, write.channel, write.data),
        )
        self._sequences.append(int(cursor.lastrowid or 0))

    def _drop_events(self, write: records.DropEvents) -> None:
        self._execute("DELETE FROM events WHERE sequence <= ?", (write.last,))

    # --- reads ---

    def channels(self) -> tuple[ChannelRecord, ...]:
        """All channels, oldest first."""
        rows = self._execute(f"SELECT {_CHANNEL_FIELDS} FROM channels ORDER BY id")  # noqa: S608 - constants
        return tuple(ChannelRecord(*row) for row in rows)

    def load_channel(self, channel: bytes) -> ChannelSnapshot:
        """What the machine needs to resume. Raises UnknownRecordError."""
        number = self._id(channel)
        row = self._execute(f"SELECT {_CHANNEL_FIELDS} FROM channels WHERE id = ?", (number,)).fetchone()  # noqa: S608 - constants
        state = self.state(channel, None)
        kept = self._execute("SELECT version FROM snapshots WHERE channel = ?", (number,)).fetchone()
        snapshot = self.state(channel, int(kept[0])) if kept else None
        version = state.version if state else 0
        signed = self._execute(
            "SELECT * FROM signed WHERE channel = ? AND kind = ? AND version > ? ORDER BY version",
            (channel, records.SIGNED_STATE, version),
        )
        highest = self.highest_signed(channel, records.SIGNED_STATE)
        return ChannelSnapshot(
            ChannelRecord(*row),
            state,
            snapshot,
            self.batches(channel, snapshot.version + 1 if snapshot else 0, records.MAX_VERSION),
            self._outstanding(number, _PROPOSAL),
            self._outstanding(number, _REJECTION),
            tuple(SignedRecord(*r) for r in signed),
            highest.version if highest else 0,
        )

    def _outstanding(self, number: int, kind: int) -> tuple[MessageRecord, ...]:
        rows = self._execute(
            "SELECT version, raw FROM outstanding WHERE channel = ? AND kind = ? ORDER BY version", (number, kind)
        )
        return tuple(MessageRecord(*row) for row in rows)

    def state(self, channel: bytes, version: int | None) -> CosignedState | None:
        """The co-signed state of a version, or the newest."""
        at = "" if version is None else "AND s.version = ?"
        row = self._execute(
            f"SELECT {_STATE_FIELDS} FROM {_STATE_SOURCE} WHERE s.channel = ? {at} ORDER BY s.version DESC LIMIT 1",  # noqa: S608 - constants
            (self._id(channel),) if version is None else (self._id(channel), version),
        ).fetchone()
        return CosignedState(channel, *row) if row else None

    def states(self, channel: bytes, first: int, last: int) -> tuple[CosignedState, ...]:
        """Co-signed states of versions first..last."""
        rows = self._execute(
            f"SELECT {_STATE_FIELDS} FROM {_STATE_SOURCE} WHERE s.channel = ? AND s.version BETWEEN ? AND ? "  # noqa: S608 - constants
            "ORDER BY s.version",
            (self._id(channel), first, last),
        )
        return tuple(CosignedState(channel, *row) for row in rows)

    def batches(self, channel: bytes, first: int, last: int, limit: int | None = None) -> tuple[BatchRecord, ...]:
        """Batches of versions first..last, or the first `limit` of them."""
        rows = self._execute(
            "SELECT version, raw FROM batches WHERE channel = ? AND version BETWEEN ? AND ? ORDER BY version LIMIT ?",
            (self._id(channel), first, last, -1 if limit is None else limit),
        )
        return tuple(BatchRecord(channel, *row) for row in rows)

    def signed(self, channel: bytes, version: int, kind: str) -> SignedRecord | None:
        """What was signed at a version."""
        row = self._execute(
            "SELECT * FROM signed WHERE channel = ? AND kind = ? AND version = ?", (channel, kind, version)
        ).fetchone()
        return SignedRecord(*row) if row else None

    def highest_signed(self, channel: bytes, kind: str) -> SignedRecord | None:
        """The signature of the highest version of its kind."""
        row = self._execute(
            "SELECT * FROM signed WHERE channel = ? AND kind = ? ORDER BY version DESC LIMIT 1", (channel, kind)
        ).fetchone()
        return SignedRecord(*row) if row else None

    def document(self, kind: str, key: str) -> bytes | None:
        """The value at (kind, key)."""
        row = self._execute("SELECT value FROM documents WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        return bytes(row[0]) if row else None

    def documents(self, kind: str, prefix: str) -> tuple[tuple[str, bytes], ...]:
        """(key, value) of one kind whose keys begin with prefix."""
        rows = self._execute(
            "SELECT key, value FROM documents WHERE kind = ? AND key >= ? AND substr(key, 1, ?) = ? ORDER BY key",
            (kind, prefix, len(prefix), prefix),
        )
        return tuple((key, value) for key, value in rows)

    def events(self, since: int, limit: int, channel: bytes | None) -> tuple[EventRecord, ...]:
        """Events above a sequence number."""
        where, values = ("", (since,)) if channel is None else ("AND channel = ?", (since, channel))
        rows = self._execute(
            f"SELECT * FROM events WHERE sequence > ? {where} ORDER BY sequence LIMIT ?",  # noqa: S608 - constants
            (*values, limit),
        )
        return tuple(EventRecord(*row) for row in rows)
