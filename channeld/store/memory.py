"""A store that forgets: for tests of what stands on a store, and for programs that keep nothing.

Rules: the same records, refusals and atomicity as the SQLite store (it runs the same SQL, in memory), without threads:
a commit is applied before `commit` first yields. `commits` holds what was committed, in order, so that a test can show
that nothing was sent before it was stored. `fail_with` makes every further commit fail, as a disk would.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from channeld.core.records import (
    MAX_VERSION,
    SIGNED_STATE,
    BatchRecord,
    ChannelRecord,
    ChannelSnapshot,
    CosignedState,
    EventRecord,
    RecordValueError,
    SignedRecord,
    Write,
)
from channeld.store.errors import StoreClosedError, StorePoisonedError
from channeld.store.schema import migrate
from channeld.store.tables import CALLER_ERRORS, Tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from channeld.core.errors import StoreError


class MemoryStore:
    """A `core.records.Store` in memory."""

    def __init__(self) -> None:
        """An empty store."""
        self.commits: list[tuple[Write, ...]] = []
        self.fail_with: StoreError | None = None
        self._connection = sqlite3.connect(":memory:", isolation_level=None)
        self._connection.execute("PRAGMA foreign_keys = ON")
        migrate(self._connection, ":memory:")
        self._tables = Tables(self._connection)
        self._closed = False

    def _usable(self) -> Tables:
        if self._closed:
            raise StoreClosedError("the store is closed")
        return self._tables

    async def commit(self, writes: Sequence[Write]) -> tuple[int, ...]:
        """See `core.records.Store.commit`."""
        tables = self._usable()
        if self.fail_with is not None:
            raise StorePoisonedError(f"the store accepts nothing more since: {self.fail_with}") from self.fail_with
        self._connection.execute("BEGIN")
        try:
            sequences = tables.apply(writes)
        except BaseException as error:
            self._connection.execute("ROLLBACK")
            tables.forget()
            if isinstance(error, CALLER_ERRORS):
                raise RecordValueError(f"the database refuses a value: {error}") from error
            raise
        self._connection.execute("COMMIT")
        self.commits.append(tuple(writes))
        return sequences

    async def channels(self) -> tuple[ChannelRecord, ...]:
        """See `core.records.Store`."""
        return self._usable().channels()

    async def load_channel(self, channel: bytes) -> ChannelSnapshot:
        """See `core.records.Store`."""
        return self._usable().load_channel(channel)

    async def state(self, channel: bytes, version: int | None = None) -> CosignedState | None:
        """See `core.records.Store`."""
        return self._usable().state(channel, version)

    async def states(self, channel: bytes, first: int = 0, last: int = MAX_VERSION) -> tuple[CosignedState, ...]:
        """See `core.records.Store`."""
        return self._usable().states(channel, first, last)

    async def batches(
        self, channel: bytes, first: int = 0, last: int = MAX_VERSION, limit: int | None = None
    ) -> tuple[BatchRecord, ...]:
        """See `core.records.Store`."""
        return self._usable().batches(channel, first, last, limit)

    async def signed(self, channel: bytes, version: int, kind: str = SIGNED_STATE) -> SignedRecord | None:
        """See `core.records.Store`."""
        return self._usable().signed(channel, version, kind)

    async def highest_signed(self, channel: bytes, kind: str = SIGNED_STATE) -> SignedRecord | None:
        """See `core.records.Store`."""
        return self._usable().highest_signed(channel, kind)

    async def document(self, kind: str, key: str) -> bytes | None:
        """See `core.records.Store`."""
        return self._usable().document(kind, key)

    async def documents(self, kind: str, prefix: str = "") -> tuple[tuple[str, bytes], ...]:
        """See `core.records.Store`."""
        return self._usable().documents(kind, prefix)

    async def events(self, since: int = 0, limit: int = 1000, channel: bytes | None = None) -> tuple[EventRecord, ...]:
        """See `core.records.Store`."""
        return self._usable().events(since, limit, channel)

    async def close(self) -> None:
        """See `core.records.Store`."""
        if not self._closed:
            self._closed = True
            self._connection.close()
