"""Errors of opening, disk, server and lock, and the one place where SQLite's own errors are translated.

StoreError
 |-- StoreUnavailableError 6010    the database cannot be opened: no directory, no permission
 |-- StoreLockedError 6011         another process holds this database
 |-- ReadOnlyStoreError 6012       the file, its directory or the file system is read-only
 |-- DiskFullError 6013            no room left
 |-- DiskFaultError 6014           the disk failed to read, write or sync
 |-- CorruptStoreError 6015        the file is damaged
 |-- ForeignDatabaseError 6016     a database, but not one of channeld's
 |-- NewerSchemaError 6017         written by a newer program
 |-- StorePoisonedError 6018       a commit failed earlier: nothing is accepted any more
 |-- StoreClosedError 6019         used after close
 |-- MigrationError 6020           an older database could not be brought to this schema; it is as it was
 |-- FencedError 6021              another daemon has taken this desk over: its epoch is higher
 |-- LockLostError 6022            the lock is gone, so nothing more is committed
 |-- UnsafeServerError 6023        a database server that may lose what it acknowledged
 |-- ServerLostError 6024          the connection to the database server broke
 |-- DriverMissingError 6025       PostgreSQL was asked for, its driver is not installed
 '-- StoreLocationError 6026       neither a path nor the URL of a database that this program knows

PostgreSQL's errors are translated in postgresql/server.py.
"""

from __future__ import annotations

import sqlite3

from channeld.core.errors import Fault, StoreError


class StoreUnavailableError(StoreError):
    """The database cannot be opened."""

    code = 6010
    advice = "Check that the data directory exists and that this user may read and write in it."


class StoreLockedError(StoreError):
    """Another process holds this database. Two daemons on one database could sign two states of one version."""

    code = 6011
    fault = Fault.USER
    advice = "Stop the other daemon first, or give this one its own data directory."


class ReadOnlyStoreError(StoreError):
    """The database cannot be written."""

    code = 6012
    advice = "Make the data directory and the database writable for this user, or remount the file system read-write."


class DiskFullError(StoreError):
    """No room left for the database."""

    code = 6013
    advice = "Free space on the disk that holds the data directory, then start the daemon again."


class DiskFaultError(StoreError):
    """The disk failed to read, write or sync."""

    code = 6014
    advice = "Check the disk and the system log, then start the daemon again; see docs/store.md, Recovery."


class CorruptStoreError(StoreError):
    """The database is damaged."""

    code = 6015
    advice = "Keep the file as it is, restore a backup, and let the peer's states be fetched: docs/store.md, Recovery."


class ForeignDatabaseError(StoreError):
    """A database, but not one of channeld's. It was not touched."""

    code = 6016
    fault = Fault.USER
    advice = "Check the path of the data directory, or the schema that the database's URL names."


class NewerSchemaError(StoreError):
    """The database was written by a newer channeld. It was not touched."""

    code = 6017
    fault = Fault.USER
    advice = "Install the newer channeld again; there is no way back to an older schema."


class StorePoisonedError(StoreError):
    """A commit failed earlier. What it held may or may not be durable, so nothing more is accepted."""

    code = 6018
    advice = "Mend what the first error names, then start the daemon again; it resumes from what is on disk."


class StoreClosedError(StoreError):
    """The store was used after it was closed."""

    code = 6019
    fault = Fault.SELF
    advice = "This is a bug: nothing was stored; report the log."


class MigrationError(StoreError):
    """An older database could not be brought to this program's schema. It is as it was."""

    code = 6020
    fault = Fault.SELF
    advice = "Go on with the channeld that wrote it, and report the log."


class FencedError(StoreError):
    """Another daemon has taken this desk over. Nothing of the commit was stored, and nothing more will be."""

    code = 6021
    fault = Fault.USER
    advice = "Stop this daemon: another one runs this desk now. Start it again only as a standby."


class LockLostError(StoreError):
    """The lock on the desk's records is gone, so that another daemon may take over at any moment."""

    code = 6022
    advice = "Start the daemon again: it waits for the lock, or resumes. Check the network to the database server."


class UnsafeServerError(StoreError):
    """A database server that may lose what it acknowledged, or that is too old to be locked safely."""

    code = 6023
    fault = Fault.USER
    advice = "Set fsync = on and synchronous_commit = on for this database (PostgreSQL 14 or later); docs/store.md."


class ServerLostError(StoreError):
    """The connection to the database server broke. What was being committed may or may not be durable."""

    code = 6024
    advice = "Check the database server and the network, then start the daemon again; it resumes from what is stored."


class DriverMissingError(StoreError):
    """PostgreSQL was asked for, and its driver is not installed."""

    code = 6025
    fault = Fault.USER
    advice = "Install it: pip install 'channeld[postgresql]'."


class StoreLocationError(StoreError):
    """Neither a path nor the URL of a database that this program knows."""

    code = 6026
    fault = Fault.USER
    advice = "Give a path, sqlite:///PATH, or postgresql://USER@HOST/DATABASE?schema=NAME."


_BY_PRIMARY_CODE: dict[int, type[StoreError]] = {
    sqlite3.SQLITE_FULL: DiskFullError,
    sqlite3.SQLITE_READONLY: ReadOnlyStoreError,
    sqlite3.SQLITE_PERM: ReadOnlyStoreError,
    sqlite3.SQLITE_IOERR: DiskFaultError,
    sqlite3.SQLITE_CORRUPT: CorruptStoreError,
    sqlite3.SQLITE_NOTADB: CorruptStoreError,
    sqlite3.SQLITE_CANTOPEN: StoreUnavailableError,
    sqlite3.SQLITE_AUTH: StoreUnavailableError,
    sqlite3.SQLITE_BUSY: StoreLockedError,
    sqlite3.SQLITE_LOCKED: StoreLockedError,
}


def translated(error: sqlite3.Error, path: str) -> StoreError:
    """The StoreError for one of SQLite's errors, by its primary result code."""
    code = getattr(error, "sqlite_errorcode", None)
    kind = _BY_PRIMARY_CODE.get(code & 0xFF, StoreError) if isinstance(code, int) else StoreError
    name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    return kind(f"database {path}: {error} ({name})", path=path, sqlite=name)
