"""What a light peer keeps: a log that records are appended to. Two ready ones, in memory and in a file.

Rules: a record that `append` has returned for is there at the next `read`, whatever happens; records come back in order
and whole. A last record that was cut off by a crash was never returned for and is dropped; any other damage is an
error, since a peer that has forgotten what it signed must not sign. Whoever keeps the log elsewhere implements `Log`,
three methods. The log holds the whole book, and no key: keep it to yourself.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import zlib
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Protocol

from channeld.core import records
from channeld.core.codec import CodecError, decode, encode
from channeld.core.errors import StoreError
from channeld.store.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_MAGIC = b"channeld-light-1\n"
_HEAD = 8
_MOST = 1 << 26
_NESTED: dict[str, type[Any]] = {
    "ChannelRecord": records.ChannelRecord,
    "CosignedState": records.CosignedState,
}
_WRITES: dict[str, type[Any]] = {
    cls.__name__: cls
    for cls in (
        records.PutChannel,
        records.SetStatus,
        records.PutState,
        records.PutBatch,
        records.PutProposal,
        records.DropProposals,
        records.PutRejection,
        records.DropRejections,
        records.PutSigned,
        records.PutDocument,
        records.DropDocument,
        records.AppendEvent,
        records.DropEvents,
    )
}


class LogDamagedError(StoreError):
    """The log is not what was written, or another peer uses it."""


class Log(Protocol):
    """Where a light peer keeps its records. Only one peer may use one at a time."""

    async def read(self) -> list[bytes]:
        """Every record, in order; asked once, before anything is appended."""
        ...

    async def append(self, record: bytes) -> None:
        """Return once the record is durable; raise where it may not be."""
        ...

    async def close(self) -> None:
        """Let go."""
        ...


class MemoryLog:
    """A log that ends with its process: for tests. Give it to the next peer, as a disk would be."""

    def __init__(self) -> None:
        """Empty."""
        self.records: list[bytes] = []

    async def read(self) -> list[bytes]:
        """See `Log`."""
        return list(self.records)

    async def append(self, record: bytes) -> None:
        """See `Log`."""
        self.records.append(record)

    async def close(self) -> None:
        """See `Log`."""


class FileLog:
    """A log in a file, synced with every record, readable by its owner alone, locked while it is in use."""

    def __init__(self, path: Path) -> None:
        """Nothing is opened yet."""
        self._path = path
        self._file: int | None = None

    async def read(self) -> list[bytes]:
        """See `Log`.

        Raises:
            LogDamagedError: it is none, it is damaged, or another process uses it.
        """
        return await asyncio.to_thread(self._read)

    def _read(self) -> list[bytes]:
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LogDamagedError(f"{self._path} is in use by another peer") from None
            size = os.fstat(self._file).st_size
            raw = os.pread(self._file, size, 0)
            if len(raw) < len(_MAGIC) and _MAGIC.startswith(raw):
                os.pwrite(self._file, _MAGIC, 0)
                os.ftruncate(self._file, len(_MAGIC))
                os.fsync(self._file)
                folder = os.open(self._path.parent, os.O_RDONLY)
                os.fsync(folder)
                os.close(folder)
                raw = _MAGIC
            found, end = self._split(raw)
            os.ftruncate(self._file, end)
            os.lseek(self._file, end, os.SEEK_SET)
        except OSError as error:
            raise LogDamagedError(f"{self._path} cannot be used: {error.strerror}") from error
        return found

    def _split(self, raw: bytes) -> tuple[list[bytes], int]:
        """The records, and where the last whole one ends."""
        if not raw.startswith(_MAGIC):
            raise LogDamagedError(f"{self._path} is no light peer's log")
        found, at = [], len(_MAGIC)
        while at < len(raw):
            size, check = int.from_bytes(raw[at : at + 4], "big"), raw[at + 4 : at + _HEAD]
            end = at + _HEAD + size
            if len(raw) - at >= 4 and size > _MOST:
                raise LogDamagedError(f"{self._path} is damaged at byte {at}")
            if end > len(raw):
                break  # cut off by a crash before anybody was told
            record = raw[at + _HEAD : end]
            if zlib.crc32(record).to_bytes(4, "big") != check:
                if end == len(raw):
                    break  # the same: its bytes had not all arrived
                raise LogDamagedError(f"{self._path} is damaged at byte {at}")
            found.append(record)
            at = end
        return found, at

    async def append(self, record: bytes) -> None:
        """See `Log`.

        Raises:
            LogDamagedError: the disk.
        """
        await asyncio.to_thread(self._append, record)

    def _append(self, record: bytes) -> None:
        if self._file is None:
            raise LogDamagedError(f"{self._path} is not open")
        framed = len(record).to_bytes(4, "big") + zlib.crc32(record).to_bytes(4, "big") + record
        try:
            while framed:
                framed = framed[os.write(self._file, framed) :]
            os.fdatasync(self._file)
        except OSError as error:
            raise LogDamagedError(f"{self._path} cannot be written: {error.strerror}") from error

    async def close(self) -> None:
        """See `Log`."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _packed(write: records.Write) -> list[Any]:
    """A write as plain data, its fields in their order."""
    if isinstance(write, records.PutState):
        s = write.state
        return ["PutState", [s.channel, s.version, s.body_hash, s.signature_a, s.signature_b, write.body_bytes()]]
    values = []
    for field in fields(write):
        value = getattr(write, field.name)
        nested = type(value).__name__ in _NESTED
        values.append([getattr(value, inner.name) for inner in fields(value)] if nested else value)
    return [type(write).__name__, *values]


def _unpacked(parts: list[Any]) -> records.Write:
    name, values = parts[0], list(parts[1:])
    if name == "PutState":
        values = [records.CosignedState(*values[0])]
    elif name == "PutChannel":
        values = [records.ChannelRecord(*values[0])]
    write: records.Write = _WRITES[name](*values)
    return write


class LogStore(MemoryStore):
    """The records of a channel at work (core/records.py), in memory, and every commit of them in a log first to last.

    A commit is checked against all rules in memory and then appended; where that fails the store takes nothing more,
    and nothing that the commit covers leaves.
    """

    def __init__(self, log: Log) -> None:
        """`load` reads the log."""
        super().__init__()
        self._log = log
        self._turn = asyncio.Lock()

    async def load(self) -> None:
        """Take up what the log holds.

        Raises:
            LogDamagedError: it cannot be read, or holds what no peer has written.
        """
        for number, record in enumerate(await self._log.read()):
            try:
                await super().commit([_unpacked(list(parts)) for parts in decode(record, _MOST)])
            except (CodecError, StoreError, LookupError, TypeError, ValueError) as error:
                raise LogDamagedError(f"record {number} of the log is none: {error}") from error
        self.commits.clear()

    async def commit(self, writes: Sequence[records.Write]) -> tuple[int, ...]:
        """See `core.records.Store.commit`."""
        async with self._turn:
            sequences = await super().commit(writes)
            self.commits.clear()
            try:
                await self._log.append(encode([_packed(write) for write in writes]))
            except BaseException as error:
                self.fail_with = error if isinstance(error, StoreError) else LogDamagedError(f"not kept: {error}")
                raise
            return sequences

    async def close(self) -> None:
        """Let the log go."""
        await super().close()
        await self._log.close()
