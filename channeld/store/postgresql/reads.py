"""What a PostgreSQL store answers: plain SQL over the tables of schema.py.

Rules: one connection, read-only; whoever calls holds it alone. `load` must run in one REPEATABLE READ transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from channeld.core import records
from channeld.core.records import (
    BatchRecord,
    ChannelRecord,
    ChannelSnapshot,
    CosignedState,
    EventRecord,
    MessageRecord,
    SignedRecord,
)
from channeld.store.refusals import unknown_channel

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

_CHANNEL_FIELDS = "channel, peer, side, terms, chain_id, adjudicator, status, opened_at"
_STATES = (
    "SELECT s.version, s.body_hash, s.signature_a, s.signature_b, p.body "
    "FROM states s LEFT JOIN snapshots p ON p.channel = s.channel AND p.version = s.version WHERE s.channel = $1"
)
_SIGNED = "SELECT channel, kind, version, digest, signature FROM signed WHERE channel = $1 AND kind = $2"
_ORPHANS = tuple(
    (
        table,
        f"SELECT count(*) FROM {table} t WHERE NOT EXISTS (SELECT FROM channels c WHERE c.id = t.channel)",  # noqa: S608 - constants
    )
    for table in ("states", "snapshots", "batches", "outstanding")
)
_BODILESS = (
    "SELECT count(*) FROM snapshots p WHERE NOT EXISTS "
    "(SELECT FROM states s WHERE s.channel = p.channel AND s.version = p.version)"
)


class Reads:
    """The records behind one connection."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        """Read by a connection whose search path is the desk's schema."""
        self._connection = connection

    async def _rows(self, query: str, *arguments: object) -> Sequence[Sequence[Any]]:
        rows: Sequence[Sequence[Any]] = await self._connection.fetch(query, *arguments)
        return rows

    async def _number(self, channel: bytes) -> int:
        number = await self._connection.fetchval("SELECT id FROM channels WHERE channel = $1", channel)
        if number is None:
            raise unknown_channel(channel)
        return int(number)

    async def channels(self) -> tuple[ChannelRecord, ...]:
        """All channels, oldest first."""
        rows = await self._rows(f"SELECT {_CHANNEL_FIELDS} FROM channels ORDER BY id")  # noqa: S608 - constants
        return tuple(ChannelRecord(*row) for row in rows)

    async def load_channel(self, channel: bytes) -> ChannelSnapshot:
        """What the machine needs to resume. Raises UnknownRecordError."""
        number = await self._number(channel)
        (row,) = await self._rows(f"SELECT {_CHANNEL_FIELDS} FROM channels WHERE id = $1", number)  # noqa: S608 - constants
        state = await self.state(channel, None)
        kept = await self._connection.fetchval("SELECT version FROM snapshots WHERE channel = $1", number)
        snapshot = await self.state(channel, int(kept)) if kept is not None else None
        version = state.version if state else 0
        signed = await self._rows(
            f"{_SIGNED} AND version > $3 ORDER BY version", channel, records.SIGNED_STATE, version
        )
        highest = await self.highest_signed(channel, records.SIGNED_STATE)
        return ChannelSnapshot(
            ChannelRecord(*row),
            state,
            snapshot,
            await self.batches(channel, snapshot.version + 1 if snapshot else 0, records.MAX_VERSION),
            await self._outstanding(number, 0),
            await self._outstanding(number, 1),
            tuple(SignedRecord(*r) for r in signed),
            highest.version if highest else 0,
        )

    async def _outstanding(self, number: int, kind: int) -> tuple[MessageRecord, ...]:
        rows = await self._rows(
            "SELECT version, raw FROM outstanding WHERE channel = $1 AND kind = $2 ORDER BY version", number, kind
        )
        return tuple(MessageRecord(*row) for row in rows)

    async def state(self, channel: bytes, version: int | None) -> CosignedState | None:
        """The co-signed state of a version, or the newest."""
        number = await self._number(channel)
        if version is None:
            rows = await self._rows(f"{_STATES} ORDER BY s.version DESC LIMIT 1", number)
        else:
            rows = await self._rows(f"{_STATES} AND s.version = $2", number, version)
        return CosignedState(channel, *rows[0]) if rows else None

    async def states(self, channel: bytes, first: int, last: int) -> tuple[CosignedState, ...]:
        """Co-signed states of versions first..last."""
        number = await self._number(channel)
        rows = await self._rows(f"{_STATES} AND s.version BETWEEN $2 AND $3 ORDER BY s.version", number, first, last)
        return tuple(CosignedState(channel, *row) for row in rows)

    async def batches(self, channel: bytes, first: int, last: int, limit: int | None = None) -> tuple[BatchRecord, ...]:
        """Batches of versions first..last, or the first `limit` of them."""
        rows = await self._rows(
            "SELECT version, raw FROM batches WHERE channel = $1 AND version BETWEEN $2 AND $3 ORDER BY version "
            "LIMIT $4",
            await self._number(channel),
            first,
            last,
            limit,
        )
        return tuple(BatchRecord(channel, *row) for row in rows)

    async def signed(self, channel: bytes, version: int, kind: str) -> SignedRecord | None:
        """What was signed at a version."""
        rows = await self._rows(f"{_SIGNED} AND version = $3", channel, kind, version)
        return SignedRecord(*rows[0]) if rows else None

    async def highest_signed(self, channel: bytes, kind: str) -> SignedRecord | None:
        """The signature of the highest version of its kind."""
        rows = await self._rows(f"{_SIGNED} ORDER BY version DESC LIMIT 1", channel, kind)
        return SignedRecord(*rows[0]) if rows else None

    async def document(self, kind: str, key: str) -> bytes | None:
        """The value at (kind, key)."""
        value: bytes | None = await self._connection.fetchval(
            "SELECT value FROM documents WHERE kind = $1 AND key = $2", kind, key
        )
        return value

    async def documents(self, kind: str, prefix: str) -> tuple[tuple[str, bytes], ...]:
        """(key, value) of one kind whose keys begin with prefix."""
        rows = await self._rows(
            "SELECT key, value FROM documents WHERE kind = $1 AND key >= $2 AND starts_with(key, $2) ORDER BY key",
            kind,
            prefix,
        )
        return tuple((key, value) for key, value in rows)

    async def events(self, since: int, limit: int, channel: bytes | None) -> tuple[EventRecord, ...]:
        """Events above a sequence number."""
        where, more = ("", ()) if channel is None else ("AND channel = $3", (channel,))
        rows = await self._rows(
            f"SELECT sequence, time_ms, kind, channel, data FROM events WHERE sequence > $1 {where} "  # noqa: S608 - constants
            "ORDER BY sequence LIMIT $2",
            since,
            limit,
            *more,
        )
        return tuple(EventRecord(*row) for row in rows)

    async def faults(self) -> list[str]:
        """What does not fit together, in words; empty when all is well."""
        faults = []
        for table, query in (*_ORPHANS, ("snapshots without their state", _BODILESS)):
            count = await self._connection.fetchval(query)
            if count:
                faults.append(f"{table}: {count} rows without what they belong to")
        return faults
