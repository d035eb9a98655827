"""The PostgreSQL schema of one desk, its migrations, and taking it over.

Rules: as in ../schema.py, and the same version numbers: `MIGRATIONS[n]` takes a desk from schema version n to n + 1,
all steps and the raising of the epoch in one transaction, by the holder of the lock. Texts compare by their bytes
(COLLATE "C"), as in SQLite. The tables that every commit writes have no foreign keys: those would lock the channel's
row at each insert; the one function that writes (commits.py) looks the channel up instead, and `check` looks for
orphans.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg

from channeld.core.errors import StoreError
from channeld.store.errors import ForeignDatabaseError, MigrationError, NewerSchemaError, StoreLockedError
from channeld.store.postgresql.lock import end_sessions, require_lock
from channeld.store.postgresql.server import translated

if TYPE_CHECKING:
    from channeld.store.postgresql.lock import SessionLock
    from channeld.store.postgresql.server import Location

Migration = tuple[str, ...]

TAKEOVER_WAIT_MS = 2000  # for a commit of the one before that is under way; then its sessions are ended
_NO_ROWS_MOVE = "fillfactor = 50"  # room in the page for the next version of a row that changes all the time

_CREATE: Migration = (
    # One row. application tells a desk's schema from anything else; last_event: a number is never used again.
    """CREATE TABLE desk (
        one boolean PRIMARY KEY DEFAULT true CHECK (one),
        application text NOT NULL,
        schema_version integer NOT NULL,
        last_event bigint NOT NULL
    )""",
    "INSERT INTO desk (application, schema_version, last_event) VALUES ('channeld', 0, 0)",
    """CREATE TABLE channels (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        channel bytea NOT NULL UNIQUE CHECK (length(channel) = 32),
        peer bytea NOT NULL CHECK (length(peer) = 20),
        side smallint NOT NULL CHECK (side IN (0, 1)),
        terms bytea NOT NULL,
        chain_id bigint NOT NULL,
        adjudicator bytea NOT NULL CHECK (length(adjudicator) = 20),
        status text COLLATE "C" NOT NULL,
        opened_at bigint NOT NULL
    )""",
    """CREATE TABLE states (
        channel bigint NOT NULL,
        version bigint NOT NULL,
        body_hash bytea NOT NULL,
        signature_a bytea NOT NULL,
        signature_b bytea NOT NULL,
        PRIMARY KEY (channel, version)
    )""",
    f"""CREATE TABLE snapshots (
        channel bigint PRIMARY KEY,
        version bigint NOT NULL,
        body bytea NOT NULL
    ) WITH ({_NO_ROWS_MOVE})""",
    """CREATE TABLE batches (
        channel bigint NOT NULL,
        version bigint NOT NULL,
        raw bytea NOT NULL,
        PRIMARY KEY (channel, version)
    )""",
    """CREATE TABLE outstanding (
        channel bigint NOT NULL,
        kind smallint NOT NULL CHECK (kind IN (0, 1)),
        version bigint NOT NULL,
        raw bytea NOT NULL,
        PRIMARY KEY (channel, kind, version)
    )""",
    """CREATE TABLE signed (
        channel bytea NOT NULL CHECK (length(channel) = 32),
        kind text COLLATE "C" NOT NULL,
        version bigint NOT NULL,
        digest bytea NOT NULL CHECK (length(digest) = 32),
        signature bytea NOT NULL CHECK (length(signature) = 65),
        PRIMARY KEY (channel, kind, version)
    )""",
    """CREATE TABLE documents (
        kind text COLLATE "C" NOT NULL,
        key text COLLATE "C" NOT NULL,
        value bytea NOT NULL,
        PRIMARY KEY (kind, key)
    )""",
    """CREATE TABLE events (
        sequence bigint PRIMARY KEY,
        time_ms bigint NOT NULL,
        kind text COLLATE "C" NOT NULL,
        channel bytea,
        data text COLLATE "C" NOT NULL
    )""",
)
_INDEX_EVENTS: Migration = ("CREATE INDEX events_by_channel ON events (channel, sequence) WHERE channel IS NOT NULL",)
_ADD_FENCE: Migration = ("ALTER TABLE desk ADD COLUMN epoch bigint NOT NULL DEFAULT 0",)

MIGRATIONS: tuple[Migration, ...] = (_CREATE, _INDEX_EVENTS, _ADD_FENCE)


async def _version(connection: asyncpg.Connection[Any], location: Location, known: int) -> int | None:
    """The schema version, None where there is no such schema; refuses what is not ours to write."""
    space = await connection.fetchval("SELECT oid FROM pg_namespace WHERE nspname = $1", location.schema)
    if space is None:
        return None
    names = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = $1 AND relkind IN ('r', 'p', 'v', 'm', 'f')", space
    )
    if not names:
        return 0
    row = None
    if any(name[0] == "desk" for name in names):
        columns = await connection.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped",
            f'"{location.schema}".desk',
        )
        if {"application", "schema_version"} <= {column[0] for column in columns}:
            row = await connection.fetchrow(f'SELECT application, schema_version FROM "{location.schema}".desk')  # noqa: S608 - a checked name
    if row is None or row[0] != "channeld":
        raise ForeignDatabaseError(
            f"the schema of {location.name} holds tables, but not those of a channeld desk", database=location.name
        )
    version = int(row[1])
    if version > known:
        raise NewerSchemaError(
            f"{location.name} has schema version {version}; this channeld knows versions up to {known}",
            database=location.name,
            schema=version,
            known=known,
        )
    return version


async def _migrate(connection: asyncpg.Connection[Any], location: Location, migrations: tuple[Migration, ...]) -> None:
    before = await _version(connection, location, len(migrations))
    if before is None:
        await connection.execute(f'CREATE SCHEMA "{location.schema}"')
        before = 0
    for number in range(before, len(migrations)):
        try:
            for statement in migrations[number]:
                await connection.execute(statement)
        except asyncpg.PostgresError as error:
            refusal = translated(error, location.name)
            if type(refusal) is not StoreError:
                raise
            raise MigrationError(
                f"{location.name}: the step from schema {number} to {number + 1} failed: {error}",
                database=location.name,
                schema=number,
            ) from error
    if before < len(migrations):
        await connection.execute("UPDATE desk SET schema_version = $1", len(migrations))


async def _take_over(
    connection: asyncpg.Connection[Any], location: Location, lock: SessionLock, migrations: tuple[Migration, ...]
) -> int:
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = {TAKEOVER_WAIT_MS}")
        await _migrate(connection, location, migrations)
        epoch = int(await connection.fetchval("UPDATE desk SET epoch = epoch + 1 RETURNING epoch"))
        # After the row is ours: whoever takes the lock from now on must wait for this transaction, and ends up higher.
        await require_lock(connection, location, lock.server_process)
        return epoch


async def take_over(
    connection: asyncpg.Connection[Any],
    location: Location,
    lock: SessionLock,
    migrations: tuple[Migration, ...] = MIGRATIONS,
) -> int:
    """Bring the desk to the newest schema and raise its epoch, all of it or nothing; for the holder of the lock.

    A commit of the one before that is under way is waited for: it was made under a valid epoch. One that stays (its
    client was suspended in the middle of a message) is ended, and with it every session of the one before.

    Returns:
        the new epoch.

    Raises:
        ForeignDatabaseError, NewerSchemaError: not ours to write; nothing was.
        MigrationError: a step failed for a reason of its own; the desk is as it was.
        LockLostError: the lock went meanwhile; the desk is as it was.
        asyncpg.PostgresError, OSError: from the server; the desk is as it was.

    """
    try:
        return await _take_over(connection, location, lock, migrations)
    except asyncpg.LockNotAvailableError:
        await end_sessions(connection, location.schema)
    try:
        return await _take_over(connection, location, lock, migrations)
    except asyncpg.LockNotAvailableError as error:
        raise StoreLockedError(
            f"{location.name}: a session that is not channeld's holds a lock on the desk's tables",
            database=location.name,
            advice="Find it in pg_locks and end it.",
        ) from error
