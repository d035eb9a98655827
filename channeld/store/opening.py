"""Opening a store by its path or URL, at once or as a standby that waits for the lock.

Rules: whoever opens a store holds its lock and has raised its epoch; there is no opening without both. PostgreSQL's
driver is imported when a URL asks for it, and not before.
"""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from channeld.store.errors import (
    DriverMissingError,
    LockLostError,
    ServerLostError,
    StoreLocationError,
    StoreLockedError,
    StoreUnavailableError,
)
from channeld.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from channeld.core.errors import StoreError
    from channeld.store.postgresql import PostgresqlStore

LEASE_S = 15.0  # a PostgreSQL server frees the lock of a daemon that was silent for so long
POLL_S = 0.5  # how often a standby asks for the lock


def is_postgresql(location: Path | str) -> bool:
    """Whether a location is a URL of a PostgreSQL database."""
    return isinstance(location, str) and location.startswith(("postgresql://", "postgres://"))


def _sqlite_path(location: Path | str) -> Path:
    if isinstance(location, Path):
        return location
    if not location or "\x00" in location:
        raise StoreLocationError("the path of the database is empty or holds a NUL")
    if "://" not in location:
        return Path(location)
    parts = urlsplit(location)
    if parts.scheme != "sqlite":
        raise StoreLocationError(f"{parts.scheme}:// is no database that channeld knows", scheme=parts.scheme)
    if parts.netloc or parts.query or parts.fragment or not parts.path:
        raise StoreLocationError(f"{location} names no file: a sqlite URL is sqlite:///PATH", location=location)
    return Path(unquote(parts.path))


async def open_store(
    location: Path | str, *, lock_path: Path | str | None = None, lease_s: float = LEASE_S
) -> SqliteStore | PostgresqlStore:
    """Open or create the records of one desk: take the lock or refuse, raise the epoch, bring the schema up to date.

    Args:
        location: a path or sqlite:///PATH for SQLite; postgresql://USER@HOST:PORT/DATABASE?schema=NAME for PostgreSQL.
        lock_path: SQLite's lock file; by default beside the database. PostgreSQL holds its lock itself.
        lease_s: seconds of silence after which a PostgreSQL server frees the lock. SQLite's is freed by the kernel.

    Raises:
        StoreLockedError: another daemon runs this desk.
        StoreLocationError, DriverMissingError: the location is malformed, or its driver is not installed.
        StoreError: the database cannot be opened, is not safe, is damaged, newer, or somebody else's.

    """
    if not is_postgresql(location):
        return await SqliteStore.open(_sqlite_path(location), lock_path=lock_path)
    store: PostgresqlStore = await _driver().PostgresqlStore.open(str(location), lease_s=lease_s)
    return store


async def evict(location: Path | str) -> int:
    """Free a desk's lock for the standby, on behalf of an operator whose daemon hangs; how many sessions were ended.

    Raises:
        StoreLocationError: not a PostgreSQL database: the process that holds a file must be ended instead.
        StoreError: see `open_store`.

    """
    if not is_postgresql(location):
        raise StoreLocationError(
            "the lock on a file is held by a process, and freed with it",
            advice="End the process whose number stands in the lock file; kill -KILL frees it also when it hangs.",
        )
    return int(await _driver().evict(str(location)))


def _driver() -> ModuleType:
    try:
        return importlib.import_module("channeld.store.postgresql")
    except ImportError as error:
        raise DriverMissingError(f"PostgreSQL needs a driver that is not installed: {error}") from error


async def wait_for_lock(
    location: Path | str,
    *,
    lock_path: Path | str | None = None,
    lease_s: float = LEASE_S,
    poll_s: float = POLL_S,
    waiting: Callable[[StoreError], None] | None = None,
) -> SqliteStore | PostgresqlStore:
    """Stand by: wait until no daemon runs this desk, then take it over. Everything that was acknowledged is there.

    Arguments and errors as `open_store`, but a store that is locked is waited for; so is, once it has been reached, a
    PostgreSQL server that is away for a while. `waiting` is told the reason at first and whenever it changes. Cancel
    the task to stop standing by: nothing is held while it waits.
    """
    told: str | None = None
    while True:
        try:
            return await open_store(location, lock_path=lock_path, lease_s=lease_s)
        except StoreLockedError as error:
            reason: StoreError = error
        except (LockLostError, ServerLostError, StoreUnavailableError) as error:
            if told is None or not is_postgresql(location):
                raise
            reason = error
        if waiting is not None and str(reason) != told:
            waiting(reason)
        told = str(reason)
        await asyncio.sleep(poll_s)
