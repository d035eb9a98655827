"""The SQLite store: one file, one writer thread, group commit.

Rules: only the writer thread writes. Whatever waits when it is free becomes one transaction and one fsync (WAL,
synchronous = FULL); within it each caller's writes stand or fall by their own SAVEPOINT. A refusal of one caller's
writes touches no other. Any other error of the database, above all a failed COMMIT, poisons the store: nobody can know
what the disk holds, so every further commit is refused until a restart reads what is there. A second connection,
read-only, serves reads from its own thread. An exclusive flock on a file beside the database, released by the kernel
with the process, keeps a second daemon out. Should one come in all the same (somebody deleted the lock file), it raises
the epoch, and every later commit of the first is refused inside its transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import queue
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from channeld.core.errors import StoreError
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
from channeld.store.errors import (
    CorruptStoreError,
    FencedError,
    ReadOnlyStoreError,
    StoreClosedError,
    StoreLockedError,
    StorePoisonedError,
    StoreUnavailableError,
    translated,
)
from channeld.store.schema import check_identity, current_epoch, migrate, raise_epoch
from channeld.store.tables import CALLER_ERRORS, Tables

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

QUEUE_LIMIT = 4096  # commits accepted and not yet durable; callers beyond it wait
GROUP_LIMIT = 1024  # commits in one transaction
CHECKPOINT_PAGES = 4000  # 16 MB of WAL: a checkpoint costs some milliseconds, so not every few commits
BUSY_TIMEOUT_S = 5.0  # for an operator's own read-only sqlite3 shell; no other daemon gets past the lock

T = TypeVar("T")


@dataclass(slots=True)
class _Job:
    """One caller's commit."""

    writes: Sequence[Write]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[tuple[int, ...]]
    outcome: tuple[int, ...] | BaseException | None = None


def _settle(jobs: list[_Job]) -> None:
    """Tell the callers; runs in their event loop."""
    for job in jobs:
        if job.future.done():
            continue
        if isinstance(job.outcome, BaseException):
            job.future.set_exception(job.outcome)
        else:
            job.future.set_result(job.outcome or ())


class FileLock:
    """An exclusive lock on a file, held while this object is; the kernel releases it when the process ends."""

    def __init__(self, path: Path) -> None:
        """Take the lock at once or refuse.

        Raises:
            StoreLockedError: another process (or another store of this one) holds it.
            ReadOnlyStoreError, StoreUnavailableError: the lock file cannot be written.

        """
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            kind = (
                ReadOnlyStoreError if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) else StoreUnavailableError
            )
            raise kind(f"lock file {path}: {error.strerror}", path=str(path)) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise StoreUnavailableError(f"lock file {path}: {error.strerror}", path=str(path)) from error
            who = f"process {holder}" if holder.isdigit() else "another process"
            raise StoreLockedError(f"{who} holds {path}", path=str(path), holder=holder) from None
        # The number is a courtesy to whoever is refused; a full disk must not keep a daemon from reading its records.
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the lock up. The file stays: removing it would let two processes lock two files of one name."""
        os.close(self._descriptor)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        for pragma in ("foreign_keys = ON", "trusted_schema = OFF", "cell_size_check = ON", "cache_size = -16000"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection, path: Path) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreUnavailableError(f"{path}: the file system does not allow WAL (mode {mode})", path=str(path))


def _open_writer(path: Path) -> tuple[sqlite3.Connection, int]:
    """A connection to a database of the current schema, and the epoch under which it may commit."""
    connection = _connect(path)
    try:
        check_identity(connection, str(path))
        _use_wal(connection, path)
        for pragma in ("synchronous = FULL", "fullfsync = ON", "checkpoint_fullfsync = ON"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        migrate(connection, str(path))
        # This also refuses a database that can only be read here, and not at the first signature.
        epoch = raise_epoch(connection)
    except BaseException:
        connection.close()
        raise
    return connection, epoch


def _create_private(path: Path) -> None:
    """Create the file readable by its owner alone, and make its name durable. An existing file is left as it is."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    except OSError as error:
        raise StoreUnavailableError(f"database {path}: {error.strerror}", path=str(path)) from error
    os.close(descriptor)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class SqliteStore:
    """A `core.records.Store` in one SQLite file. Make one with `await SqliteStore.open(path)`."""

    def __init__(
        self, path: Path, lock: FileLock, writer: sqlite3.Connection, epoch: int, reader: sqlite3.Connection
    ) -> None:
        """Use `open` instead; this starts the writer thread on connections that are ready."""
        self.path = path
        self.epoch = epoch  # the fencing token of this opening: higher than that of every earlier one
        self._loop = asyncio.get_running_loop()
        self._failed = asyncio.Event()
        self._lock = lock
        self._writer = writer
        self._reader = reader
        self._writing = Tables(writer)
        self._reading = Tables(reader)
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(QUEUE_LIMIT)
        self._poison: StoreError | None = None
        self._closing = False
        self._closed = asyncio.Event()
        self._reads = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    @classmethod
    async def open(cls, path: Path | str, *, lock_path: Path | str | None = None) -> SqliteStore:
        """Open or create the database, lock it and bring it to the current schema.

        Args:
            path: the database file; its directory must exist.
            lock_path: the lock file; by default the database's name with ".lock" appended.

        Raises:
            StoreLockedError: another daemon is running on it.
            StoreUnavailableError, ReadOnlyStoreError, DiskFullError, DiskFaultError: it cannot be opened or written.
            CorruptStoreError, ForeignDatabaseError: the file is damaged, or somebody else's.
            NewerSchemaError, MigrationError: its schema is newer, or could not be brought up to date.

        """
        path = Path(path)
        lock_file = Path(lock_path) if lock_path is not None else path.with_name(path.name + ".lock")
        return cls(path, *await asyncio.to_thread(cls._open_files, path, lock_file))

    @staticmethod
    def _open_files(path: Path, lock_path: Path) -> tuple[FileLock, sqlite3.Connection, int, sqlite3.Connection]:
        try:
            if not path.parent.is_dir():
                raise StoreUnavailableError(f"{path.parent} is no directory", path=str(path))
        except OSError as error:
            raise StoreUnavailableError(f"{path.parent}: {error.strerror}", path=str(path)) from error
        lock = FileLock(lock_path)
        try:
            _create_private(path)
            writer, epoch = _open_writer(path)
            try:
                reader = _connect(path)
                reader.execute("PRAGMA query_only = ON")
            except BaseException:
                writer.close()
                raise
        except sqlite3.Error as error:
            lock.release()
            raise translated(error, str(path)) from error
        except BaseException:
            lock.release()
            raise
        return lock, writer, epoch, reader

    # --- commits ---

    @property
    def poisoned(self) -> StoreError | None:
        """The error after which no commit is accepted any more, or None."""
        return self._poison

    async def wait_poisoned(self) -> StoreError:
        """Wait for the error after which no commit is accepted any more; a daemon should then end."""
        await self._failed.wait()
        return self._poison or StoreClosedError(f"the store {self.path} is closed", path=str(self.path))

    async def commit(self, writes: Sequence[Write]) -> tuple[int, ...]:
        """See `core.records.Store.commit`. A cancelled commit may still become durable."""
        async with self._room:
            self._check_usable()
            loop = asyncio.get_running_loop()
            future: asyncio.Future[tuple[int, ...]] = loop.create_future()
            self._queue.put(_Job(tuple(writes), loop, future))
            return await future

    def _check_usable(self) -> None:
        if self._closing:
            raise StoreClosedError(f"the store {self.path} is closed", path=str(self.path))
        if self._poison is not None:
            raise self._poisoned_error() from self._poison

    def _poisoned_error(self) -> StorePoisonedError:
        return StorePoisonedError(
            f"the store {self.path} accepts nothing more since: {self._poison}", path=str(self.path)
        )

    def _run(self) -> None:
        """The writer thread: one transaction for all that waits, until told to stop."""
        stop = False
        while not stop:
            job = self._queue.get()
            group: list[_Job] = []
            while job is not None:
                group.append(job)
                if len(group) == GROUP_LIMIT:
                    break
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    break
            else:
                stop = True
            if group:
                self._write(group)
                by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
                for done in group:
                    by_loop.setdefault(done.loop, []).append(done)
                for loop, jobs in by_loop.items():
                    # A loop that has been closed has nobody left to tell.
                    with contextlib.suppress(RuntimeError):
                        loop.call_soon_threadsafe(_settle, jobs)

    def _write(self, group: list[_Job]) -> None:
        """Commit a group and fill in the outcomes. Never raises."""
        if self._poison is not None:
            for job in group:
                job.outcome = self._poisoned_error()
            return
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            self._check_epoch()
            for job in group:
                self._write_one(job)
            self._writer.execute("COMMIT")
        except BaseException as error:  # noqa: BLE001 - whatever happened, nobody knows what the disk holds
            self._fail(group, error)

    def _check_epoch(self) -> None:
        epoch = current_epoch(self._writer)
        if epoch != self.epoch:
            raise FencedError(
                f"{self.path}: another daemon took this desk over (its epoch is {epoch}, ours is {self.epoch})",
                path=str(self.path),
                epoch=epoch,
                own=self.epoch,
            )

    def _write_one(self, job: _Job) -> None:
        """One caller's writes, by its own SAVEPOINT. Raises only what fails the whole group."""
        execute = self._writer.execute
        execute("SAVEPOINT caller")
        try:
            job.outcome = self._writing.apply(job.writes)
        except StoreError as refusal:
            job.outcome = refusal
        except CALLER_ERRORS as error:
            job.outcome = RecordValueError(f"the database refuses a value: {error}", path=str(self.path))
        else:
            execute("RELEASE caller")
            return
        self._writing.forget()
        execute("ROLLBACK TO caller")
        execute("RELEASE caller")

    def _fail(self, group: list[_Job], error: BaseException) -> None:
        def typed() -> StoreError:
            if isinstance(error, sqlite3.Error):
                return translated(error, str(self.path))
            if isinstance(error, FencedError):
                return FencedError(str(error), **error.details)
            return StoreError(f"database {self.path}: {type(error).__name__}: {error}", path=str(self.path))

        self._poison = typed()
        with contextlib.suppress(RuntimeError):  # a loop that has been closed has nobody left to tell
            self._loop.call_soon_threadsafe(self._failed.set)
        self._writing.forget()
        with contextlib.suppress(sqlite3.Error):
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        for job in group:
            job.outcome = typed()

    # --- reads ---

    async def _read(self, function: Callable[..., T], *arguments: Any) -> T:  # noqa: ANN401 - passed on
        if self._closing:
            raise StoreClosedError(f"the store {self.path} is closed", path=str(self.path))
        return await asyncio.get_running_loop().run_in_executor(self._reads, self._read_now, function, arguments)

    def _read_now(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        """One read in one transaction, so that its statements see one state of the database."""
        try:
            self._reader.execute("BEGIN")
            try:
                return function(*arguments)
            finally:
                if self._reader.in_transaction:
                    self._reader.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise translated(error, str(self.path)) from error

    async def channels(self) -> tuple[ChannelRecord, ...]:
        """See `core.records.Store`."""
        return await self._read(self._reading.channels)

    async def load_channel(self, channel: bytes) -> ChannelSnapshot:
        """See `core.records.Store`."""
        return await self._read(self._reading.load_channel, channel)

    async def state(self, channel: bytes, version: int | None = None) -> CosignedState | None:
        """See `core.records.Store`."""
        return await self._read(self._reading.state, channel, version)

    async def states(self, channel: bytes, first: int = 0, last: int = MAX_VERSION) -> tuple[CosignedState, ...]:
        """See `core.records.Store`."""
        return await self._read(self._reading.states, channel, first, last)

    async def batches(
        self, channel: bytes, first: int = 0, last: int = MAX_VERSION, limit: int | None = None
    ) -> tuple[BatchRecord, ...]:
        """See `core.records.Store`."""
        return await self._read(self._reading.batches, channel, first, last, limit)

    async def signed(self, channel: bytes, version: int, kind: str = SIGNED_STATE) -> SignedRecord | None:
        """See `core.records.Store`."""
        return await self._read(self._reading.signed, channel, version, kind)

    async def highest_signed(self, channel: bytes, kind: str = SIGNED_STATE) -> SignedRecord | None:
        """See `core.records.Store`."""
        return await self._read(self._reading.highest_signed, channel, kind)

    async def document(self, kind: str, key: str) -> bytes | None:
        """See `core.records.Store`."""
        return await self._read(self._reading.document, kind, key)

    async def documents(self, kind: str, prefix: str = "") -> tuple[tuple[str, bytes], ...]:
        """See `core.records.Store`."""
        return await self._read(self._reading.documents, kind, prefix)

    async def events(self, since: int = 0, limit: int = 1000, channel: bytes | None = None) -> tuple[EventRecord, ...]:
        """See `core.records.Store`."""
        return await self._read(self._reading.events, since, limit, channel)

    async def check(self) -> None:
        """Read every page and index of the database; for `doctor`, not for every start.

        Raises:
            CorruptStoreError: naming the first faults found.

        """
        faults = await self._read(self._faults)
        if faults:
            raise CorruptStoreError(f"database {self.path}: {'; '.join(faults)}", path=str(self.path))

    def _faults(self) -> list[str]:
        rows = [str(row[0]) for row in self._reader.execute("PRAGMA integrity_check(10)")]
        rows += [f"{row[0]}: broken reference to {row[2]}" for row in self._reader.execute("PRAGMA foreign_key_check")]
        return [row for row in rows if row != "ok"]

    # --- end ---

    async def close(self) -> None:
        """See `core.records.Store`: commits already accepted are finished first."""
        if self._closing:
            await self._closed.wait()
            return
        self._closing = True
        self._queue.put(None)
        try:
            await asyncio.to_thread(self._close_files)
        finally:
            self._closed.set()

    def _close_files(self) -> None:
        self._thread.join()
        self._reads.shutdown(wait=True)
        with contextlib.suppress(sqlite3.Error):
            self._reader.close()
        with contextlib.suppress(sqlite3.Error):
            self._writer.close()
        self._lock.release()

    async def __aenter__(self) -> Self:
        """The store itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()
