"""Schema versions: every older file is brought up to date, a newer one is refused, a failed step changes nothing."""

import sqlite3

import pytest
from store_conformance import CHANNEL, SIGNATURE_A, channel_record, digest

from channeld.core.records import AppendEvent
from channeld.store import schema, sqlite
from channeld.store.errors import DiskFullError, ForeignDatabaseError, MigrationError, NewerSchemaError
from channeld.store.schema import APPLICATION_ID, MIGRATIONS, migrate
from channeld.store.sqlite import SqliteStore

NEWEST = len(MIGRATIONS)


def older_file(path, version):
    """A database as a program of an older schema left it, with rows wherever that schema has tables."""
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, str(path), MIGRATIONS[:version])
    if version >= 1:
        r = channel_record()
        connection.execute(
            "INSERT INTO channels (channel, peer, side, terms, chain_id, adjudicator, status, opened_at) "
            "VALUES (?,?,?,?,?,?,?,?)",
            (r.channel, r.peer, r.side, r.terms, r.chain_id, r.adjudicator, r.status, r.opened_at),
        )
        connection.execute("INSERT INTO signed VALUES (?,'state',4,?,?)", (CHANNEL, digest(4), SIGNATURE_A))
        connection.execute("INSERT INTO events (time_ms, kind, channel, data) VALUES (1,'alert',?,'{}')", (CHANNEL,))
    connection.close()


@pytest.mark.parametrize("version", range(NEWEST + 1))
async def test_a_file_of_every_older_schema_is_brought_up_to_date(tmp_path, version):
    path = tmp_path / "channeld.db"
    older_file(path, version)
    async with await SqliteStore.open(path) as store:
        assert schema.schema_version(store._writer) == NEWEST
        if version:
            assert await store.channels() == (channel_record(),)
            assert (await store.load_channel(CHANNEL)).highest_signed == 4
            assert len(await store.events(channel=CHANNEL)) == 1
        await store.commit([AppendEvent(1, "alert", CHANNEL)])
        await store.check()


async def test_old_and_new_files_end_with_the_same_schema(tmp_path):
    schemas = []
    for version in range(NEWEST + 1):
        path = tmp_path / f"{version}.db"
        older_file(path, version)
        async with await SqliteStore.open(path) as store:
            schemas.append(store._reader.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall())
    assert all(each == schemas[0] for each in schemas)


async def test_a_newer_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "channeld.db"
    older_file(path, NEWEST)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {NEWEST + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(NewerSchemaError, match=f"schema version {NEWEST + 1}") as refused:
        await SqliteStore.open(path)
    assert refused.value.details["known"] == NEWEST
    assert path.read_bytes() == before


async def test_somebody_elses_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "channeld.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE letters (text TEXT)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ForeignDatabaseError, match="not one of channeld's"):
        await SqliteStore.open(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("failure", "refusal"),
    [(ValueError("a step with a fault"), MigrationError), (sqlite3.OperationalError("disk full"), DiskFullError)],
)
async def test_a_step_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch, failure, refusal):
    path = tmp_path / "channeld.db"
    older_file(path, NEWEST)

    def failing(connection):
        connection.execute("ALTER TABLE channels ADD COLUMN nickname TEXT")
        connection.execute("DELETE FROM signed")
        if isinstance(failure, sqlite3.OperationalError):
            failure.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise failure

    monkeypatch.setattr(sqlite, "migrate", lambda connection, name: migrate(connection, name, (*MIGRATIONS, failing)))
    with pytest.raises(refusal):
        await SqliteStore.open(path)
    monkeypatch.undo()
    async with await SqliteStore.open(path) as store:
        assert schema.schema_version(store._writer) == NEWEST
        assert (await store.load_channel(CHANNEL)).highest_signed == 4


def test_the_application_id_reads_chnd():
    assert APPLICATION_ID.to_bytes(4, "big") == b"chnd"
