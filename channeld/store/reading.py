"""Reading a desk's SQLite file without its lock: beside a daemon that hangs, or from a copy of the file alone.

Rules: nothing is written, no lock is taken, no epoch raised, no schema changed. What is read is what was durable when
it was read. Only what an emergency needs is here; a daemon opens its store by `open_store`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

from channeld.core.errors import StoreError
from channeld.core.records import (
    MAX_VERSION,
    SIGNED_STATE,
    BatchRecord,
    ChannelRecord,
    ChannelSnapshot,
    CosignedState,
    SignedRecord,
)
from channeld.store.errors import StoreUnavailableError, translated
from channeld.store.schema import check_identity
from channeld.store.tables import Tables

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")


class SqliteReader:
    """The reading half of a `core.records.Store`, of one SQLite file."""

    def __init__(self, path: Path) -> None:
        """Open the file to read.

        Raises:
            StoreUnavailableError: there is no such file.
            StoreError: it is damaged, newer, or somebody else's.

        """
        if not path.is_file():
            raise StoreUnavailableError(f"there is no database at {path}", path=str(path))
        self._path = path
        try:
            self._connection = self._open("mode=ro")
        except sqlite3.OperationalError:
            # its directory cannot be written, so that the log beside it cannot be used: nobody else is there then
            self._connection = self._open("immutable=1")
        self._tables = Tables(self._connection)

    def _open(self, how: str) -> sqlite3.Connection:
        uri = f"file:{quote(str(self._path.absolute()))}?{how}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        try:
            check_identity(connection, str(self._path))
        except BaseException:
            connection.close()
            raise
        return connection

    async def _read(self, function: Callable[..., T], *arguments: Any) -> T:  # noqa: ANN401 - passed on
        def work() -> T:
            try:
                return function(*arguments)
            except StoreError:
                raise
            except sqlite3.Error as error:
                raise translated(error, str(self._path)) from error

        return await asyncio.to_thread(work)

    async def channels(self) -> tuple[ChannelRecord, ...]:
        """All channels, oldest first."""
        return await self._read(self._tables.channels)

    async def load_channel(self, channel: bytes) -> ChannelSnapshot:
        """What a daemon resumes from. Raises UnknownRecordError."""
        return await self._read(self._tables.load_channel, channel)

    async def state(self, channel: bytes, version: int | None = None) -> CosignedState | None:
        """The co-signed state of a version, or the newest."""
        return await self._read(self._tables.state, channel, version)

    async def batches(self, channel: bytes, first: int = 0, last: int = MAX_VERSION) -> tuple[BatchRecord, ...]:
        """Batches of versions first..last, ascending."""
        return await self._read(self._tables.batches, channel, first, last)

    async def signed(self, channel: bytes, version: int, kind: str = SIGNED_STATE) -> SignedRecord | None:
        """What the signer signed at a version."""
        return await self._read(self._tables.signed, channel, version, kind)

    async def highest_signed(self, channel: bytes, kind: str = SIGNED_STATE) -> SignedRecord | None:
        """The signature of the highest version of its kind."""
        return await self._read(self._tables.highest_signed, channel, kind)

    async def document(self, kind: str, key: str) -> bytes | None:
        """The value at (kind, key)."""
        return await self._read(self._tables.document, kind, key)

    async def close(self) -> None:
        """Close the file."""
        self._connection.close()

    async def __aenter__(self) -> Self:
        """Itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()
