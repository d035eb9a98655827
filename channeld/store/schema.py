"""The SQLite schema and its migrations.

Rules: `MIGRATIONS[n]` takes a database from schema version n to n + 1, inside one transaction that also sets the
version (PRAGMA user_version). A migration that was released is never edited; a change is a new one at the end. Each is
tested from an older file (tests/store/test_migrations.py). A newer database is refused, never written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from channeld.store.errors import ForeignDatabaseError, MigrationError, NewerSchemaError

# "chnd": tells a channeld database from any other SQLite file.
APPLICATION_ID = 0x63686E64

Migration = Callable[[sqlite3.Connection], None]

_BASE = (
    """CREATE TABLE channels (
        id INTEGER PRIMARY KEY,
        channel BLOB NOT NULL UNIQUE CHECK (length(channel) = 32),
        peer BLOB NOT NULL CHECK (length(peer) = 20),
        side INTEGER NOT NULL CHECK (side IN (0, 1)),
        terms BLOB NOT NULL,
        chain_id INTEGER NOT NULL,
        adjudicator BLOB NOT NULL CHECK (length(adjudicator) = 20),
        status TEXT NOT NULL,
        opened_at INTEGER NOT NULL
    ) STRICT""",
    # Signatures of every co-signed state; a body is kept for the newest snapshot alone (older ones replay).
    """CREATE TABLE states (
        channel INTEGER NOT NULL REFERENCES channels (id),
        version INTEGER NOT NULL,
        body_hash BLOB NOT NULL,
        signature_a BLOB NOT NULL,
        signature_b BLOB NOT NULL,
        PRIMARY KEY (channel, version)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE snapshots (
        channel INTEGER PRIMARY KEY REFERENCES channels (id),
        version INTEGER NOT NULL,
        body BLOB NOT NULL,
        FOREIGN KEY (channel, version) REFERENCES states (channel, version)
    ) STRICT""",
    """CREATE TABLE batches (
        channel INTEGER NOT NULL REFERENCES channels (id),
        version INTEGER NOT NULL,
        raw BLOB NOT NULL,
        PRIMARY KEY (channel, version)
    ) STRICT, WITHOUT ROWID""",
    # Our own messages that await an answer: kind 0 a proposal, 1 a rejection.
    """CREATE TABLE outstanding (
        channel INTEGER NOT NULL REFERENCES channels (id),
        kind INTEGER NOT NULL CHECK (kind IN (0, 1)),
        version INTEGER NOT NULL,
        raw BLOB NOT NULL,
        PRIMARY KEY (channel, kind, version)
    ) STRICT, WITHOUT ROWID""",
    # The signer's record. It may exist before the channel does, so the channel is not a reference.
    """CREATE TABLE signed (
        channel BLOB NOT NULL CHECK (length(channel) = 32),
        kind TEXT NOT NULL,
        version INTEGER NOT NULL,
        digest BLOB NOT NULL CHECK (length(digest) = 32),
        signature BLOB NOT NULL CHECK (length(signature) = 65),
        PRIMARY KEY (channel, kind, version)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE documents (
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (kind, key)
    ) STRICT, WITHOUT ROWID""",
    # AUTOINCREMENT: a sequence number is never used again, also after old events were dropped.
    """CREATE TABLE events (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        time_ms INTEGER NOT NULL,
        kind TEXT NOT NULL,
        channel BLOB,
        data TEXT NOT NULL
    ) STRICT""",
)


def _create(connection: sqlite3.Connection) -> None:
    """Schema 1."""
    for statement in _BASE:
        connection.execute(statement)


def _index_events(connection: sqlite3.Connection) -> None:
    """Schema 2: the events of one channel, without reading those of all."""
    connection.execute("CREATE INDEX events_by_channel ON events (channel, sequence) WHERE channel IS NOT NULL")


def _add_fence(connection: sqlite3.Connection) -> None:
    """Schema 3: the epoch, raised by whoever takes the desk over and checked inside every commit."""
    connection.execute("CREATE TABLE fence (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL) STRICT")
    connection.execute("INSERT INTO fence VALUES (1, 0)")


# The PostgreSQL schema (postgresql/schema.py) goes through the same versions: a new one here is a new one there.
MIGRATIONS: tuple[Migration, ...] = (_create, _index_events, _add_fence)


def schema_version(connection: sqlite3.Connection) -> int:
    """The schema version of a database; 0 for an empty one."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def check_identity(connection: sqlite3.Connection, path: str, migrations: tuple[Migration, ...] = MIGRATIONS) -> None:
    """Refuse what is not ours to write. Reads only.

    Raises:
        ForeignDatabaseError: a database with content and another application id.
        NewerSchemaError: a schema version above this program's.

    """
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    version = schema_version(connection)
    empty = int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]) == 0
    if application != APPLICATION_ID and not (empty and application == 0 and version == 0):
        raise ForeignDatabaseError(f"{path} is a SQLite database, but not one of channeld's", path=path)
    if version > len(migrations):
        raise NewerSchemaError(
            f"{path} has schema version {version}; this channeld knows versions up to {len(migrations)}",
            path=path,
            schema=version,
            known=len(migrations),
        )


def raise_epoch(connection: sqlite3.Connection) -> int:
    """Take the desk over: the new epoch. Whoever commits under an older one is refused from now on."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute("UPDATE fence SET epoch = epoch + 1")
        epoch = current_epoch(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return epoch


def current_epoch(connection: sqlite3.Connection) -> int:
    """The epoch of whoever took the desk over last."""
    return int(connection.execute("SELECT epoch FROM fence").fetchone()[0])


def migrate(
    connection: sqlite3.Connection, path: str, migrations: tuple[Migration, ...] = MIGRATIONS
) -> tuple[int, int]:
    """Bring a database to the newest schema, all of it or nothing.

    Returns:
        the schema versions before and after.

    Raises:
        MigrationError: a migration failed for a reason other than the disk's; the database is as it was.
        sqlite3.Error: from the disk; the database is as it was.

    """
    before = schema_version(connection)
    if before == len(migrations):
        return before, before
    connection.execute("BEGIN EXCLUSIVE")
    try:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        for number in range(before, len(migrations)):
            try:
                migrations[number](connection)
            except (sqlite3.IntegrityError, sqlite3.ProgrammingError, ValueError, TypeError, KeyError) as error:
                raise MigrationError(
                    f"{path}: the step from schema {number} to {number + 1} failed: {error}", path=path, schema=number
                ) from error
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return before, len(migrations)
