"""Where a desk's PostgreSQL schema is, connections to it, and the one place where the driver's errors are translated.

Rules: a connection is direct, never through a pooler that shares sessions: the lock lives as long as its session. No
message or log ever shows the URL as it was given, since it may hold a password; `Location.name` is what is shown. A
server that may lose what it acknowledged is refused, and its settings are fixed for the session so that reloading its
configuration cannot loosen them.
"""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg

from channeld.core.errors import StoreError
from channeld.store.errors import (
    CorruptStoreError,
    DiskFaultError,
    DiskFullError,
    ReadOnlyStoreError,
    ServerLostError,
    StoreLocationError,
    StoreLockedError,
    StoreUnavailableError,
    UnsafeServerError,
)

DEFAULT_SCHEMA = "channeld"
CONNECT_TIMEOUT_S = 10.0
OLDEST_SERVER = 140_000  # idle_session_timeout, by which the lock has a lease, came with 14
# What the driver raises: the server's own errors, no route, refused, too late, and a connection used while it breaks.
DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)

_SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")

# By SQLSTATE, then by its class (the first two characters): PostgreSQL manual, appendix A.
_BY_STATE: dict[str, type[StoreError]] = {
    "25006": ReadOnlyStoreError,
    "53100": DiskFullError,
    "53300": StoreUnavailableError,
    "XX001": CorruptStoreError,
    "XX002": CorruptStoreError,
    "55P03": StoreLockedError,
    "42501": StoreUnavailableError,
    "57P01": ServerLostError,
    "57P02": ServerLostError,
    "57P03": StoreUnavailableError,
    "57P05": ServerLostError,
}
_BY_CLASS: dict[str, type[StoreError]] = {
    "08": ServerLostError,
    "28": StoreUnavailableError,
    "3D": StoreUnavailableError,
    "58": DiskFaultError,
    "XX": DiskFaultError,
}


@dataclass(frozen=True, slots=True)
class Location:
    """A desk's schema on a server. dsn is for the driver alone; name is shown."""

    dsn: str
    schema: str
    name: str


def parse_location(url: str) -> Location:
    """Read postgresql://USER:PASSWORD@HOST:PORT/DATABASE?schema=NAME; other parameters go to the driver.

    Raises:
        StoreLocationError: it is malformed, or the schema's name is not made of a-z, 0-9 and _.

    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        parameters = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise StoreLocationError("the URL of the PostgreSQL database is malformed") from None
    schema = next((value for key, value in reversed(parameters) if key == "schema"), DEFAULT_SCHEMA)
    if not _SCHEMA_NAME.fullmatch(schema) or schema.startswith("pg_") or schema == "information_schema":
        raise StoreLocationError(f"{schema!r} cannot be a desk's schema: use a-z, 0-9 and _, at most 63", schema=schema)
    rest = [(key, value) for key, value in parameters if key != "schema"]
    host = host or next((value for key, value in rest if key == "host"), "")
    dsn = f"postgresql://{parts.netloc}{parts.path}" + (f"?{urlencode(rest)}" if rest else "")
    return Location(dsn, schema, f"postgresql://{host}{f':{port}' if port else ''}{parts.path}?schema={schema}")


def translated(error: BaseException, name: str) -> StoreError:
    """The StoreError for an error of the driver or the server. name: `Location.name`."""
    if isinstance(error, StoreError):
        return type(error)(str(error), advice=error.next_step, **error.details)
    if isinstance(error, asyncpg.PostgresError):
        state = str(getattr(error, "sqlstate", None) or "")
        kind = _BY_STATE.get(state) or _BY_CLASS.get(state[:2], StoreError)
        return kind(f"database {name}: {error} (SQLSTATE {state})", database=name, sqlstate=state)
    if isinstance(error, DRIVER_ERRORS):
        return ServerLostError(f"database {name}: {str(error) or 'no answer in time'}", database=name)
    return StoreError(f"database {name}: {type(error).__name__}: {error}", database=name)


async def connect(location: Location, role: str) -> asyncpg.Connection[Any]:
    """A session on the desk's schema, with no time limit of the server's configuration.

    Raises:
        StoreUnavailableError: no server, no such database, no permission.
        UnsafeServerError: a server older than 14, or a database that is not in UTF-8.

    """
    label = f"channeld {role} {socket.gethostname()[:32]}:{os.getpid()}"
    try:
        connection = await asyncpg.connect(
            location.dsn,
            timeout=CONNECT_TIMEOUT_S,
            server_settings={
                "application_name": label,
                "search_path": f'"{location.schema}", pg_temp',
                "statement_timeout": "0",
                "lock_timeout": "0",
                "jit": "off",
            },
        )
    except (*DRIVER_ERRORS, ValueError) as error:
        refusal = translated(error, location.name)
        if isinstance(refusal, ServerLostError) or isinstance(error, ValueError):
            refusal = StoreUnavailableError(f"database {location.name}: {str(error) or 'no answer in time'}")
        if isinstance(refusal, StoreUnavailableError):
            refusal.next_step = "Check that the database server runs, the URL, and the rights of its user."
        raise refusal from error
    try:
        await _prepare(connection, location)
    except BaseException as error:
        connection.terminate()
        if isinstance(error, DRIVER_ERRORS):
            raise translated(error, location.name) from error
        raise
    return connection


async def _prepare(connection: asyncpg.Connection[Any], location: Location) -> None:
    version = int(await connection.fetchval("SELECT current_setting('server_version_num')"))
    encoding = await connection.fetchval("SELECT current_setting('server_encoding')")
    if version < OLDEST_SERVER or encoding != "UTF8":
        raise UnsafeServerError(
            f"database {location.name}: server version {version}, encoding {encoding}; 14 and UTF8 are needed",
            advice="Use PostgreSQL 14 or later, and a database created with ENCODING 'UTF8'.",
        )
    await connection.execute("SET idle_session_timeout = 0")


async def require_durability(connection: asyncpg.Connection[Any], location: Location) -> None:
    """Refuse a server that may lose an acknowledged commit; then fix the session's own setting.

    Raises:
        UnsafeServerError: fsync or synchronous_commit is off.
        ReadOnlyStoreError: a hot standby, or read-only by configuration.

    """
    fsync, waits, replica, read_only = await connection.fetchrow(
        "SELECT current_setting('fsync'), current_setting('synchronous_commit'), pg_is_in_recovery(), "
        "current_setting('default_transaction_read_only')"
    )
    if fsync == "off":
        raise UnsafeServerError(f"database {location.name}: the server runs with fsync = off", setting="fsync")
    if waits == "off":
        raise UnsafeServerError(
            f"database {location.name}: synchronous_commit is off for this user or database",
            setting="synchronous_commit",
        )
    if replica or read_only == "on":
        why = "the server is a replica" if replica else "default_transaction_read_only is on"
        raise ReadOnlyStoreError(f"database {location.name}: {why}", advice="Name the primary server in the URL.")
    # remote_apply waits for more than on; local and remote_write wait for less where there is a synchronous replica.
    await connection.execute(f"SET synchronous_commit = {'remote_apply' if waits == 'remote_apply' else 'on'}")


async def end(connection: asyncpg.Connection[Any]) -> None:
    """Close a connection, however it is."""
    try:
        await connection.close(timeout=2.0)
    except DRIVER_ERRORS:
        connection.terminate()
