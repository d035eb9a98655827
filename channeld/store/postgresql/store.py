"""The PostgreSQL store: three connections (lock, writer, reader), one writer task, group commit.

Rules: whatever waits when the writer is free becomes one statement, which is one transaction (commits.py). After any
error of the server or a connection, a lost lock or a raised epoch, the store is poisoned: nobody here can know what is
stored, or whose turn it is, so every further commit is refused until the desk is opened anew. A store belongs to the
event loop in which it was opened.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

from channeld.core.records import (
    MAX_VERSION,
    SIGNED_STATE,
    BatchRecord,
    ChannelRecord,
    ChannelSnapshot,
    CosignedState,
    EventRecord,
    SignedRecord,
    Write,
)
from channeld.store.errors import (
    CorruptStoreError,
    FencedError,
    ServerLostError,
    StoreClosedError,
    StorePoisonedError,
    UnsafeServerError,
)
from channeld.store.postgresql import commits
from channeld.store.postgresql.lock import SessionLock, mark_session
from channeld.store.postgresql.reads import Reads
from channeld.store.postgresql.schema import take_over
from channeld.store.postgresql.server import (
    DRIVER_ERRORS,
    Location,
    connect,
    end,
    parse_location,
    require_durability,
    translated,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import asyncpg

    from channeld.core.errors import StoreError

QUEUE_LIMIT = 4096  # commits accepted and not yet durable; callers beyond it wait
GROUP_LIMIT = 1024  # commits in one transaction
GROUP_BYTES = 32 << 20  # roughly the bytes of one message to the server
GRACE_S = 5.0  # for a commit under way when the lock is lost; then its connection is cut

T = TypeVar("T")


@dataclass(slots=True)
class _Job:
    """One caller's commit."""

    writes: tuple[Write, ...]
    rows: list[commits.Row]
    future: asyncio.Future[tuple[int, ...]]


class PostgresqlStore:
    """A `core.records.Store` in one schema of a PostgreSQL database. Made by `await PostgresqlStore.open(url)`."""

    def __init__(
        self,
        location: Location,
        lock: SessionLock,
        writer: asyncpg.Connection[Any],
        reader: asyncpg.Connection[Any],
        epoch: int,
    ) -> None:
        """Use `open` instead; this starts the writer task on connections that are ready."""
        self.location = location
        self.epoch = epoch  # the fencing token of this opening: higher than that of every earlier one
        self._lock = lock
        self._writer = writer
        self._reader = reader
        self._reads = Reads(reader)
        self._reading = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Job] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Semaphore(QUEUE_LIMIT)
        self._poison: StoreError | None = None
        self._failed = asyncio.Event()
        self._closing = False
        self._closed = asyncio.Event()
        self._cut: asyncio.TimerHandle | None = None
        lock.on_lost = self._lock_lost
        writer.add_termination_listener(self._writer_ended)
        if lock.lost is not None:
            self._lock_lost(lock.lost)
        self._task = asyncio.create_task(self._run(), name="store-writer")

    @classmethod
    async def open(cls, url: str, *, lease_s: float = 15.0) -> PostgresqlStore:
        """Take the desk's lock, bring its schema up to date, raise its epoch.

        Args:
            url: postgresql://USER:PASSWORD@HOST:PORT/DATABASE?schema=NAME; schema is `channeld` by default. Other
                parameters (host, sslmode, ...) as libpq has them. Never through a pooler.
            lease_s: seconds of silence after which the server frees the lock; at least a few times the longest pause
                of this process.

        Raises:
            StoreLockedError: another daemon runs this desk.
            StoreLocationError: the URL is malformed.
            StoreUnavailableError: no server, no such database, no permission.
            UnsafeServerError, ReadOnlyStoreError: fsync or synchronous_commit off, older than 14; a replica.
            ForeignDatabaseError, NewerSchemaError: somebody else's tables; a newer schema.
            MigrationError: the schema could not be brought up to date; it is as it was.
            LockLostError, ServerLostError: the lock or a connection was lost meanwhile.

        """
        location = parse_location(url)
        lock = await SessionLock.take(location, lease_s)
        sessions = []
        try:
            writer = await connect(location, "writer")
            sessions.append(writer)
            await require_durability(writer, location)
            await mark_session(writer, location.schema)
            epoch = await take_over(writer, location, lock)
            # The function looks up by key alone; a plan made while a table was small must not scan it when it is large.
            await writer.execute("SET enable_seqscan = off")
            await writer.execute(commits.FUNCTION)
            reader = await connect(location, "reader")
            sessions.append(reader)
            await reader.execute("SET default_transaction_read_only = on")
            await mark_session(reader, location.schema)
        except BaseException as error:
            for session in sessions:
                await end(session)
            await lock.release()
            if isinstance(error, DRIVER_ERRORS):
                raise translated(error, location.name) from error
            raise
        return cls(location, lock, writer, reader, epoch)

    # --- commits ---

    @property
    def poisoned(self) -> StoreError | None:
        """The error after which no commit is accepted any more, or None."""
        return self._poison

    async def wait_poisoned(self) -> StoreError:
        """Wait for the error after which no commit is accepted any more; a daemon should then end."""
        await self._failed.wait()
        return self._poison or self._closed_error()

    async def commit(self, writes: Sequence[Write]) -> tuple[int, ...]:
        """See `core.records.Store.commit`. A cancelled commit may still become durable."""
        async with self._room:
            self._check_usable()
            writes = tuple(writes)
            future: asyncio.Future[tuple[int, ...]] = self._loop.create_future()
            self._queue.append(_Job(writes, commits.encode(writes), future))
            self._wake.set()
            return await future

    def _closed_error(self) -> StoreClosedError:
        return StoreClosedError(f"the store {self.location.name} is closed", database=self.location.name)

    def _poisoned_error(self) -> StorePoisonedError:
        return StorePoisonedError(
            f"the store {self.location.name} accepts nothing more since: {self._poison}", database=self.location.name
        )

    def _check_usable(self) -> None:
        if self._closing:
            raise self._closed_error()
        if self._poison is not None:
            raise self._poisoned_error() from self._poison

    def _next_group(self) -> list[_Job]:
        group: list[_Job] = []
        size = 0
        while self._queue and len(group) < GROUP_LIMIT and size < GROUP_BYTES:
            job = self._queue.popleft()
            size += commits.size_of(job.rows)
            group.append(job)
        return group

    async def _run(self) -> None:
        """The writer task: one transaction for all that waits, until closed."""
        while True:
            group = self._next_group()
            if group:
                await self._write(group)
            elif self._closing:
                return
            else:
                self._wake.clear()
                await self._wake.wait()

    async def _write(self, group: list[_Job]) -> None:
        """Commit a group and tell its callers. Raises nothing but cancellation."""
        if self._poison is not None:
            self._refuse(group, self._poisoned_error)
            return
        try:
            answers = await self._writer.fetch(
                commits.CALL, *commits.arguments(self.epoch, [job.rows for job in group])
            )
            outcomes = {number: self._outcome(group[number], *rest) for number, *rest in answers}
        except BaseException as error:
            self._fail(group, error)
            if isinstance(error, asyncio.CancelledError):
                raise
            return
        for number, job in enumerate(group):
            outcome = outcomes.get(number, ())
            if job.future.done():
                continue
            if isinstance(outcome, tuple):
                job.future.set_result(outcome)
            else:
                job.future.set_exception(outcome)

    @staticmethod
    def _outcome(
        job: _Job, code: str | None, place: int, detail: str | None, sequences: Sequence[int]
    ) -> tuple[int, ...] | StoreError:
        if code is None:
            return tuple(sequences)
        return commits.refusal(job.writes[place], job.rows[place], code, detail or "")

    def _refuse(self, group: list[_Job], error: Callable[[], StoreError]) -> None:
        for job in group:
            if not job.future.done():
                job.future.set_exception(error())

    def _typed(self, error: BaseException) -> StoreError:
        """What failed a group: each caller gets an exception of its own, since each adds its own traceback."""
        name = self.location.name
        state = getattr(error, "sqlstate", None)
        if state == "X6021":
            return FencedError(f"database {name}: {error}", database=name, own=self.epoch)
        if state == "X6023":
            return UnsafeServerError(f"database {name}: {error}", database=name, setting="fsync")
        return translated(error, name)

    def _fail(self, group: list[_Job], error: BaseException) -> None:
        self._set_poison(self._typed(error))
        self._refuse(group, lambda: self._typed(error))

    def _set_poison(self, error: StoreError) -> None:
        if self._poison is None:
            self._poison = error
            self._failed.set()
            self._wake.set()

    def _lock_lost(self, error: StoreError) -> None:
        """Stop at once. A commit under way may finish: the epoch decides whether it counts; but not for ever."""
        self._set_poison(error)
        self._cut = self._loop.call_later(GRACE_S, self._writer.terminate)

    def _writer_ended(self, _: object) -> None:
        if not self._closing:
            name = self.location.name
            self._set_poison(ServerLostError(f"database {name}: the writer's connection ended", database=name))

    # --- reads ---

    async def _read(self, function: Callable[..., Awaitable[T]], *arguments: object) -> T:
        """One read in one transaction, so that its statements see one state of the database."""
        if self._closing:
            raise self._closed_error()
        async with self._reading:
            try:
                async with self._reader.transaction(isolation="repeatable_read", readonly=True):
                    return await function(*arguments)
            except DRIVER_ERRORS as error:
                raise translated(error, self.location.name) from error

    async def channels(self) -> tuple[ChannelRecord, ...]:
        """See `core.records.Store`."""
        return await self._read(self._reads.channels)

    async def load_channel(self, channel: bytes) -> ChannelSnapshot:
        """See `core.records.Store`."""
        return await self._read(self._reads.load_channel, channel)

    async def state(self, channel: bytes, version: int | None = None) -> CosignedState | None:
        """See `core.records.Store`."""
        return await self._read(self._reads.state, channel, version)

    async def states(self, channel: bytes, first: int = 0, last: int = MAX_VERSION) -> tuple[CosignedState, ...]:
        """See `core.records.Store`."""
        return await self._read(self._reads.states, channel, first, last)

    async def batches(
        self, channel: bytes, first: int = 0, last: int = MAX_VERSION, limit: int | None = None
    ) -> tuple[BatchRecord, ...]:
        """See `core.records.Store`."""
        return await self._read(self._reads.batches, channel, first, last, limit)

    async def signed(self, channel: bytes, version: int, kind: str = SIGNED_STATE) -> SignedRecord | None:
        """See `core.records.Store`."""
        return await self._read(self._reads.signed, channel, version, kind)

    async def highest_signed(self, channel: bytes, kind: str = SIGNED_STATE) -> SignedRecord | None:
        """See `core.records.Store`."""
        return await self._read(self._reads.highest_signed, channel, kind)

    async def document(self, kind: str, key: str) -> bytes | None:
        """See `core.records.Store`."""
        return await self._read(self._reads.document, kind, key)

    async def documents(self, kind: str, prefix: str = "") -> tuple[tuple[str, bytes], ...]:
        """See `core.records.Store`."""
        return await self._read(self._reads.documents, kind, prefix)

    async def events(self, since: int = 0, limit: int = 1000, channel: bytes | None = None) -> tuple[EventRecord, ...]:
        """See `core.records.Store`."""
        return await self._read(self._reads.events, since, limit, channel)

    async def check(self) -> None:
        """Look for rows without what they belong to; for `doctor`. Pages and indexes are the server's to check.

        Raises:
            CorruptStoreError: naming what was found.

        """
        faults = await self._read(self._reads.faults)
        if faults:
            raise CorruptStoreError(f"database {self.location.name}: {'; '.join(faults)}", database=self.location.name)

    # --- end ---

    async def close(self) -> None:
        """See `core.records.Store`: commits already accepted are finished first."""
        if self._closing:
            await self._closed.wait()
            return
        self._closing = True
        self._wake.set()
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            async with self._reading:
                await end(self._reader)
            await end(self._writer)
            await self._lock.release()
        finally:
            if self._cut is not None:
                self._cut.cancel()
            self._closed.set()

    async def __aenter__(self) -> Self:
        """The store itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()
