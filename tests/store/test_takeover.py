"""Two daemons, one desk: a standby takes over from a process that was killed or suspended, and loses nothing."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from channeld.core.records import AppendEvent, PutDocument
from channeld.store import evict, open_store, wait_for_lock
from channeld.store.errors import FencedError, LockLostError, StoreLockedError, StorePoisonedError
from channeld.store.postgresql import lock, schema
from channeld.store.postgresql import store as room

VICTIM = Path(__file__).with_name("store_victim.py")
PATIENCE_S = 30.0
postgresql = (pytest.mark.postgresql, pytest.mark.xdist_group("postgresql"))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=postgresql)])
def location(request, tmp_path):
    return str(tmp_path / "channeld.db") if request.param == "sqlite" else request.getfixturevalue("desk_url")()


@pytest.fixture
def url(desk_url):
    return desk_url()


@contextlib.contextmanager
def victim(mode, location):
    command = [sys.executable, str(VICTIM), mode, location]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def heard(process, count=None):
    """Its next lines; all until it ends where no count is given."""
    lines = [process.stdout.readline().strip() for _ in range(count)] if count else list(map(str.strip, process.stdout))
    return [line for line in lines if not line.startswith("refused")], [x for x in lines if x.startswith("refused")]


async def pairs(store):
    left = [key for key, _ in await store.documents("left")]
    assert left == [key for key, _ in await store.documents("right")]  # whole commits only
    return left


async def standing_by(location):
    """A standby that has been told to wait."""
    told = asyncio.Queue()
    task = asyncio.create_task(wait_for_lock(location, poll_s=0.02, waiting=told.put_nowait))
    assert isinstance(await asyncio.wait_for(told.get(), PATIENCE_S), StoreLockedError)
    return task


async def test_a_standby_takes_over_from_a_killed_process_and_nothing_is_lost(location):
    with victim("commit", location) as first:
        acknowledged, _ = heard(first, 100)
        standby = await standing_by(location)
        acknowledged += heard(first, 200)[0]
        first.kill()
        acknowledged += heard(first)[0]
        async with await asyncio.wait_for(standby, PATIENCE_S) as second:
            kept = await pairs(second)
            assert set(acknowledged) <= set(kept)
            assert len(kept) - len(acknowledged) <= 8  # durable, and not heard of: at most one of each caller
            assert second.epoch == 2
            await second.commit([PutDocument("left", "second", b""), PutDocument("right", "second", b"")])
            assert len(await pairs(second)) == len(kept) + 1


async def test_of_several_standbys_one_takes_over_at_a_time(location):
    first = await open_store(location)
    tasks = {await standing_by(location) for _ in range(3)}
    epochs = [first.epoch]
    await first.close()
    while tasks:
        done, tasks = await asyncio.wait(tasks, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        (winner,) = done
        store = winner.result()
        epochs.append(store.epoch)
        with pytest.raises(StoreLockedError):
            await open_store(location)
        await store.commit([AppendEvent(1, "alert")])
        await store.close()
    assert epochs == [1, *sorted(epochs[1:])]
    assert len(set(epochs)) == 4


# --- suspended, not dead ---


@pytest.mark.postgresql
@pytest.mark.xdist_group("postgresql")
@pytest.mark.parametrize("mode", ["commit", "deaf"])
@pytest.mark.parametrize("freed_by", ["lease", "operator"])
async def test_a_suspended_process_that_comes_back_stores_nothing(url, mode, freed_by):
    """A deaf process does not hear that its lock is gone: then the epoch alone keeps it out."""
    with victim(mode, url) as first:
        acknowledged, _ = heard(first, 100)
        standby = await standing_by(url)
        first.send_signal(signal.SIGSTOP)
        await asyncio.to_thread(os.waitid, os.P_PID, first.pid, os.WSTOPPED)
        if freed_by == "operator":
            assert await evict(url) == 1
        async with await asyncio.wait_for(standby, PATIENCE_S) as second:
            kept = await pairs(second)
            first.send_signal(signal.SIGCONT)
            rest, refusals = await asyncio.to_thread(heard, first)
            acknowledged += rest  # what was durable before it was suspended, and is acknowledged only now
            assert set(acknowledged) <= set(kept)
            assert await pairs(second) == kept
            assert len(refusals) == 8
            if mode == "deaf":
                assert "refused FencedError NoneType" in refusals
            outcomes = {refusal.split()[1] for refusal in refusals}
            assert outcomes <= {"FencedError", "StorePoisonedError"}
            await second.commit([AppendEvent(1, "alert")])
        assert first.wait(PATIENCE_S) == 0


# --- the lock and the epoch, each by itself ---


async def epoch_of(store):
    return await store._reader.fetchval("SELECT epoch FROM desk")


@contextlib.asynccontextmanager
async def operator(store):
    """A plain connection to the desk's schema, as an operator's psql."""
    connection = await asyncpg.connect(
        store.location.dsn, server_settings={"search_path": f'"{store.location.schema}"'}
    )
    try:
        yield connection
    finally:
        await connection.close()


@pytest.mark.postgresql
@pytest.mark.xdist_group("postgresql")
class TestLock:
    async def test_a_commit_under_an_old_epoch_is_refused_inside_its_transaction(self, url):
        async with await open_store(url) as store, operator(store) as other:
            await store.commit([PutDocument("x", "before", b"")])
            await other.execute("UPDATE desk SET epoch = epoch + 1")
            outcomes = await asyncio.gather(
                *(store.commit([PutDocument("x", str(n), b"")]) for n in range(3)), return_exceptions=True
            )
            assert [type(outcome) for outcome in outcomes] == [FencedError] * 3
            assert len({id(outcome) for outcome in outcomes}) == 3
            assert "its epoch is 2, ours is 1" in str(outcomes[0])
            assert isinstance(await store.wait_poisoned(), FencedError)
            with pytest.raises(StorePoisonedError, match="took this desk over"):
                await store.commit([AppendEvent(1, "alert")])
            assert [key for key, _ in await store.documents("x")] == ["before"]

    async def test_losing_the_lock_stops_all_commits_at_once(self, url):
        async with await open_store(url) as store:
            assert await evict(url) == 1
            error = await asyncio.wait_for(store.wait_poisoned(), PATIENCE_S)
            assert isinstance(error, LockLostError)
            with pytest.raises(StorePoisonedError, match=r"lock on .* is lost"):
                await store.commit([AppendEvent(1, "alert")])
            assert await store.events() == ()
        assert await evict(url) == 0

    async def test_heartbeats_keep_the_lock_beyond_its_lease(self, url):
        async with await open_store(url, lease_s=3.0) as store:
            async with operator(store) as other:
                await other.execute("SELECT pg_sleep(3.5)")  # the server's clock is the one that counts the lease
            await store.commit([AppendEvent(1, "alert")])
            with pytest.raises(StoreLockedError):
                await open_store(url)

    async def test_without_heartbeats_the_server_frees_the_lock(self, url):
        async with await open_store(url, lease_s=0.3) as store:
            store._lock._beating.cancel()
            error = await asyncio.wait_for(store.wait_poisoned(), PATIENCE_S)
            assert isinstance(error, LockLostError)
            async with await open_store(url):
                pass

    async def test_a_taking_over_that_loses_the_lock_on_the_way_changes_nothing(self, url, monkeypatch):
        async with await open_store(url) as store:
            epoch = store.epoch

        async def late(session, location):
            assert await evict(url) == 1
            await marking(session, location)

        marking = room.mark_session
        monkeypatch.setattr(room, "mark_session", late)
        with pytest.raises(LockLostError, match="while opening"):
            await open_store(url)
        monkeypatch.undo()
        async with await open_store(url) as store:
            assert store.epoch == epoch + 1

    async def test_a_session_left_in_the_middle_of_a_commit_is_ended(self, url, monkeypatch):
        monkeypatch.setattr(schema, "TAKEOVER_WAIT_MS", 50)
        async with await open_store(url) as first, operator(first) as half:
            await lock.mark_session(half, first.location.schema)
            await half.execute("BEGIN")
            await half.execute("SELECT FROM desk FOR UPDATE")
            await half.execute("INSERT INTO documents VALUES ('x', 'half', '')")
            await first.close()
            async with await open_store(url) as second:
                assert second.epoch == first.epoch + 1
                assert await second.documents("x") == ()
                assert half.is_closed()

    async def test_a_lock_of_somebody_elses_session_is_named_and_respected(self, url, monkeypatch):
        monkeypatch.setattr(schema, "TAKEOVER_WAIT_MS", 50)
        async with await open_store(url) as first, operator(first) as backup:
            await first.close()
            async with backup.transaction():
                await backup.execute("LOCK TABLE desk IN SHARE MODE")
                with pytest.raises(StoreLockedError, match="not channeld's"):
                    await open_store(url)
            async with await open_store(url) as second:
                assert second.epoch == first.epoch + 1
