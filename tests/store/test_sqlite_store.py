"""The SQLite store: the suite, group commit, the lock, and what it refuses to open."""

import asyncio
import contextlib
import os
import sqlite3
import stat

import pytest
from store_conformance import CHANNEL, DurableConformance, channel_record, signed, state

from channeld.core.records import AppendEvent, PutBatch, PutChannel, PutDocument, PutState
from channeld.store import sqlite as room
from channeld.store.errors import (
    CorruptStoreError,
    DiskFullError,
    FencedError,
    ForeignDatabaseError,
    StoreLockedError,
    StorePoisonedError,
    StoreUnavailableError,
)
from channeld.store.sqlite import SqliteStore


class TestSqliteStore(DurableConformance):
    @pytest.fixture
    def open_store(self, tmp_path):
        async def factory() -> SqliteStore:
            return await SqliteStore.open(tmp_path / "channeld.db")

        return factory


async def test_the_database_is_durable_private_and_marked(tmp_path):
    path = tmp_path / "channeld.db"
    async with await SqliteStore.open(path) as store:
        assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store._writer.execute("PRAGMA synchronous").fetchone() == (2,)
        assert store._writer.execute("PRAGMA foreign_keys").fetchone() == (1,)
        assert store._writer.execute("PRAGMA application_id").fetchone() == (0x63686E64,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            store._reader.execute("DELETE FROM signed")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        await store.check()


async def test_commits_that_wait_together_share_one_transaction(tmp_path):
    async with await SqliteStore.open(tmp_path / "channeld.db") as store:
        statements = []
        store._writer.set_trace_callback(statements.append)
        await asyncio.gather(*(store.commit([AppendEvent(n, "alert")]) for n in range(500)))
        store._writer.set_trace_callback(None)
        assert statements.count("SAVEPOINT caller") == 500
        assert statements.count("COMMIT") < 50


async def test_a_queue_that_is_full_makes_callers_wait_and_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "QUEUE_LIMIT", 4)
    async with await SqliteStore.open(tmp_path / "channeld.db") as store:
        pending = [asyncio.ensure_future(store.commit([AppendEvent(n, "alert")])) for n in range(50)]
        await asyncio.wait(pending, timeout=0)
        assert store._room.locked()
        await asyncio.gather(*pending)
        assert [e.time_ms for e in await store.events()] == list(range(50))


async def test_a_cancelled_commit_disturbs_nobody(tmp_path):
    async with await SqliteStore.open(tmp_path / "channeld.db") as store:
        first = asyncio.ensure_future(store.commit([AppendEvent(1, "alert")]))
        second = asyncio.ensure_future(store.commit([AppendEvent(2, "alert")]))
        await asyncio.wait([first, second], timeout=0)
        first.cancel()
        await second
        await store.commit([AppendEvent(3, "alert")])
        assert {e.time_ms for e in await store.events()} >= {2, 3}


# --- lock ---


async def test_a_second_store_on_one_database_is_refused_at_once(tmp_path):
    path = tmp_path / "channeld.db"
    async with await SqliteStore.open(path):
        with pytest.raises(StoreLockedError, match=f"process {os.getpid()} holds") as refused:
            await SqliteStore.open(path)
        assert "Stop the other daemon" in refused.value.next_step
    async with await SqliteStore.open(path):
        pass


async def test_the_lock_file_can_be_chosen(tmp_path):
    lock = tmp_path / "daemon.lock"
    async with await SqliteStore.open(tmp_path / "one.db", lock_path=lock):
        with pytest.raises(StoreLockedError):
            await SqliteStore.open(tmp_path / "two.db", lock_path=lock)
    assert not (tmp_path / "two.db").exists()


async def test_whoever_comes_in_past_the_lock_fences_the_first_off(tmp_path):
    path = tmp_path / "channeld.db"
    async with await SqliteStore.open(path) as first:
        await first.commit([PutDocument("x", "first", b"")])
        (tmp_path / "channeld.db.lock").unlink()  # what the documentation says never to do
        async with await SqliteStore.open(path) as second:
            assert second.epoch > first.epoch
            outcomes = await asyncio.gather(
                *(first.commit([PutDocument("x", str(n), b"")]) for n in range(3)), return_exceptions=True
            )
            assert [type(outcome) for outcome in outcomes] == [FencedError] * 3
            assert outcomes[0].details["own"] == first.epoch
            assert isinstance(await first.wait_poisoned(), FencedError)
            with pytest.raises(StorePoisonedError, match="took this desk over"):
                await first.commit([AppendEvent(1, "alert")])
            assert [key for key, _ in await second.documents("x")] == ["first"]
            await second.commit([PutDocument("x", "second", b"")])


async def test_every_opening_raises_the_epoch(tmp_path):
    epochs = []
    for _ in range(3):
        async with await SqliteStore.open(tmp_path / "channeld.db") as store:
            epochs.append(store.epoch)
    assert epochs == sorted(set(epochs))


# --- what is not opened ---


async def test_no_directory(tmp_path):
    with pytest.raises(StoreUnavailableError, match="no directory"):
        await SqliteStore.open(tmp_path / "missing" / "channeld.db")


async def test_a_directory_in_the_databases_place(tmp_path):
    (tmp_path / "channeld.db").mkdir()
    with pytest.raises(StoreUnavailableError):
        await SqliteStore.open(tmp_path / "channeld.db")


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"\0" * 4096, b"short"])
async def test_a_corrupt_header_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "channeld.db"
    path.write_bytes(content)
    with pytest.raises((CorruptStoreError, ForeignDatabaseError)) as refused:
        await SqliteStore.open(path)
    assert str(path) in str(refused.value)
    assert path.read_bytes() == content
    with pytest.raises((CorruptStoreError, ForeignDatabaseError)):  # the lock was given back
        await SqliteStore.open(path)


async def filled(path):
    async with await SqliteStore.open(path) as store:
        await store.commit([PutChannel(channel_record())])
        for version in range(1, 60):
            await store.commit([PutBatch(CHANNEL, version, os.urandom(400)), PutState(state(version)), signed(version)])


async def test_an_overwritten_header_of_a_real_database(tmp_path):
    path = tmp_path / "channeld.db"
    await filled(path)
    with path.open("r+b") as file:
        file.write(os.urandom(100))
    with pytest.raises(CorruptStoreError, match="not a database"):
        await SqliteStore.open(path)


async def test_a_half_written_file(tmp_path):
    path = tmp_path / "channeld.db"
    await filled(path)
    os.truncate(path, 3 * 4096)
    with pytest.raises(CorruptStoreError):
        await SqliteStore.open(path)


async def test_a_corrupt_page_is_found_by_check_and_by_whoever_reads_it(tmp_path):
    path = tmp_path / "channeld.db"
    await filled(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:  # opening reads the epoch; the rest is read later
        (epoch,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'fence'").fetchone()
    with path.open("r+b") as file:
        for page in range(2, path.stat().st_size // 4096):
            if page + 1 != epoch:
                file.seek(page * 4096)
                file.write(b"\xff" * 64)
    store = await SqliteStore.open(path)
    with pytest.raises(CorruptStoreError):
        await store.check()
    with pytest.raises(CorruptStoreError):
        await store.load_channel(CHANNEL)
    with pytest.raises(CorruptStoreError):
        await store.commit([PutBatch(CHANNEL, 100, b"")])
    with pytest.raises(StorePoisonedError):
        await store.commit([AppendEvent(1, "alert")])
    await store.close()


# --- a disk that fails while running ---


async def test_a_full_disk_poisons_the_store_and_keeps_what_was_acknowledged(tmp_path):
    path = tmp_path / "channeld.db"
    store = await SqliteStore.open(path)
    await store.commit([PutDocument("x", "first", b"1")])
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count = {pages}")
    outcomes = await asyncio.gather(
        store.commit([PutDocument("x", "second", b"2")]),
        store.commit([PutDocument("x", "large", bytes(100_000))]),
        store.commit([PutDocument("x", "third", b"3")]),
        return_exceptions=True,
    )
    assert isinstance(outcomes[1], DiskFullError)
    assert "Free space" in outcomes[1].next_step
    assert isinstance(store.poisoned, DiskFullError)
    with pytest.raises(StorePoisonedError, match="full"):
        await store.commit([PutDocument("x", "fourth", b"4")])
    await store.close()
    async with await SqliteStore.open(path) as again:
        stored = {key for key, _ in await again.documents("x")}
    acknowledged = {k for k, o in zip(("second", "large", "third"), outcomes, strict=True) if o == ()}
    assert stored == {"first"} | acknowledged


async def test_a_failed_commit_poisons_the_store(tmp_path):
    class FailingConnection:
        """The writer's connection, but for COMMIT."""

        def __init__(self, connection):
            self._connection = connection

        def execute(self, statement):
            if statement == "COMMIT":
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
                error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
                raise error
            return self._connection.execute(statement)

        def __getattr__(self, name):
            return getattr(self._connection, name)

    path = tmp_path / "channeld.db"
    store = await SqliteStore.open(path)
    store._writer = FailingConnection(store._writer)
    outcomes = await asyncio.gather(
        *(store.commit([AppendEvent(n, "alert")]) for n in range(3)), return_exceptions=True
    )
    assert {getattr(o, "code", None) for o in outcomes} <= {6014, 6018}
    assert outcomes[0].code == 6014
    assert "SQLITE_IOERR_FSYNC" in str(outcomes[0])
    with pytest.raises(StorePoisonedError, match="FSYNC"):
        await store.commit([AppendEvent(9, "alert")])
    await store.close()
    async with await SqliteStore.open(path) as again:
        assert await again.events() == ()
