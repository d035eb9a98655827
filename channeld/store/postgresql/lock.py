"""The lock on a desk: a session-level advisory lock with a lease.

Rules: the lock lives on a connection of its own, which says a word every third of the lease. The server ends a session
that was silent for the whole lease (idle_session_timeout): so the lock of a daemon that died, hangs, was suspended or
lost its network becomes free without anybody's clock being compared. The daemon, for its part, takes the first
heartbeat that fails, or the end of the connection, for the loss of its lock. Neither of the two is what safety rests
on: that is the epoch, which is checked inside every commit (commits.py). The lock keeps two daemons from taking the
desk from each other in turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import TYPE_CHECKING, Any, NoReturn

from channeld.store.errors import LockLostError, StoreLockedError
from channeld.store.postgresql.server import DRIVER_ERRORS, connect, end, parse_location, translated

if TYPE_CHECKING:
    from collections.abc import Callable

    import asyncpg

    from channeld.store.postgresql.server import Location

_HOLDERS = """SELECT l.pid, a.application_name, a.client_addr::text
    FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (l.classid::bigint << 32) | l.objid::bigint = $1 AND l.pid <> pg_backend_pid()"""


def _key(schema: str, purpose: str) -> int:
    """The number of an advisory lock: 64 bits of a hash, signed. Advisory locks are each database's own."""
    return int.from_bytes(hashlib.sha256(f"channeld {purpose} {schema}".encode()).digest()[:8], "big", signed=True)


async def mark_session(connection: asyncpg.Connection[Any], schema: str) -> None:
    """Mark a session as one that works on a desk, so that whoever takes over can find and end it."""
    await connection.execute("SELECT pg_advisory_lock_shared($1)", _key(schema, "session"))


async def end_sessions(connection: asyncpg.Connection[Any], schema: str) -> int:
    """End every marked session of a desk but this one; how many there were. For whoever holds the lock."""
    return int(
        await connection.fetchval(
            f"SELECT count(*) FILTER (WHERE pg_terminate_backend(h.pid, 2000)) FROM ({_HOLDERS}) h",  # noqa: S608 - constants
            _key(schema, "session"),
        )
    )


async def _refuse(connection: asyncpg.Connection[Any], location: Location, key: int) -> NoReturn:
    holder = await connection.fetchrow(_HOLDERS, key)
    who = "another daemon"
    if holder is not None and holder[1]:
        who = f"{holder[1]}{f' at {holder[2]}' if holder[2] else ''} (server process {holder[0]})"
    raise StoreLockedError(f"{who} holds {location.name}", database=location.name, holder=who)


async def require_lock(connection: asyncpg.Connection[Any], location: Location, server_process: int) -> None:
    """Refuse unless a session of the server (by its process id) holds the desk's lock at this moment.

    Raises:
        LockLostError: it does not, or no longer.

    """
    rows = await connection.fetch(_HOLDERS, _key(location.schema, "lock"))
    if server_process not in {row[0] for row in rows}:
        raise LockLostError(f"the lock on {location.name} was lost while opening it", database=location.name)


async def evict(url: str) -> int:
    """Make the server end the session that holds a desk's lock; how many it ended (0 or 1).

    For an operator whose daemon hangs: the waiting standby then takes over, and the hung daemon, should it come back,
    cannot commit. Needs the rights of the same database user.
    """
    location = parse_location(url)
    connection = await connect(location, "evict")
    try:
        return int(
            await connection.fetchval(
                f"SELECT count(*) FILTER (WHERE pg_terminate_backend(h.pid, 2000)) FROM ({_HOLDERS}) h",  # noqa: S608 - constants
                _key(location.schema, "lock"),
            )
        )
    except DRIVER_ERRORS as error:
        raise translated(error, location.name) from error
    finally:
        await end(connection)


class SessionLock:
    """The lock, held while its connection lives. `on_lost` is called once, when it does no longer."""

    def __init__(self, connection: asyncpg.Connection[Any], location: Location, lease_s: float) -> None:
        """Use `take` instead."""
        self.lost: LockLostError | None = None
        self.on_lost: Callable[[LockLostError], None] | None = None
        self.server_process: int = connection.get_server_pid()
        self._connection = connection
        self._location = location
        self._lease = lease_s
        self._released = False
        connection.add_termination_listener(self._ended)
        self._beating = asyncio.create_task(self._beat(), name="store-lock")

    @classmethod
    async def take(cls, location: Location, lease_s: float) -> SessionLock:
        """Take the lock at once or refuse.

        Raises:
            StoreLockedError: another session holds it.
            StoreUnavailableError, UnsafeServerError: see `server.connect`.

        """
        connection = await connect(location, "lock")
        try:
            key = _key(location.schema, "lock")
            if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", key):
                await _refuse(connection, location, key)
            await connection.execute(f"SET idle_session_timeout = {max(1, round(lease_s * 1000))}")
        except BaseException as error:
            await end(connection)
            if isinstance(error, DRIVER_ERRORS):
                raise translated(error, location.name) from error
            raise
        return cls(connection, location, lease_s)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            try:
                async with asyncio.timeout(self._lease / 3):
                    await self._connection.execute("SELECT 1")
            except Exception as error:  # noqa: BLE001 - whatever it is, the heartbeat did not get through
                self._lose(f"its heartbeat failed: {str(error) or 'no answer in time'}")
                return

    def _ended(self, _: object) -> None:
        self._lose("its connection ended")

    def _lose(self, why: str) -> None:
        if self._released or self.lost is not None:
            return
        name = self._location.name
        self.lost = LockLostError(f"the lock on {name} is lost: {why}", database=name)
        self._connection.terminate()
        if self.on_lost is not None:
            self.on_lost(self.lost)

    async def release(self) -> None:
        """Give the lock up. Twice is fine."""
        self._released = True
        self._beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._beating
        await end(self._connection)
