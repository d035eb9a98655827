"""Faults of a real server and a real connection: killed in a commit group, no room, unsafe settings, lost answers."""

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from postgresql_proxy import Proxy

from channeld.core.records import AppendEvent, PutDocument
from channeld.store import open_store, wait_for_lock
from channeld.store.errors import (
    DiskFaultError,
    DiskFullError,
    LockLostError,
    ServerLostError,
    StorePoisonedError,
    StoreUnavailableError,
    UnsafeServerError,
)
from channeld.store.postgresql import store as room

pytestmark = [pytest.mark.postgresql, pytest.mark.xdist_group("postgresql")]
VICTIM = Path(__file__).with_name("store_victim.py")
PATIENCE_S = 30.0


def start_victim(url):
    return subprocess.Popen([sys.executable, str(VICTIM), "commit", url], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("acknowledgements", [1, 500])
async def test_a_server_killed_in_the_middle_of_commits_loses_nothing_acknowledged(private_server, acknowledgements):
    private_server.start()
    url = private_server.url()
    with start_victim(url) as victim:
        heard = [victim.stdout.readline().strip() for _ in range(acknowledgements)]
        private_server.kill()
        rest = [line.strip() for line in victim.stdout]
    refusals = [line for line in rest if line.startswith("refused")]
    heard += [line for line in rest if not line.startswith("refused")]
    assert victim.returncode == 0
    assert len(refusals) == 8
    assert {line.split()[1] for line in refusals} <= {"ServerLostError", "StorePoisonedError"}
    with pytest.raises(StoreUnavailableError, match="desk"):
        await open_store(url)
    private_server.start()
    async with await open_store(url) as store:
        left = [key for key, _ in await store.documents("left")]
        assert left == [key for key, _ in await store.documents("right")]
        assert set(heard) <= set(left)
        assert len(left) - len(heard) <= 8
        await store.check()


async def test_a_standby_waits_for_a_server_that_starts_again(private_server):
    private_server.start()
    url = private_server.url()
    told = asyncio.Queue()
    async with await open_store(url) as first:
        await first.commit([PutDocument("x", "first", b"")])
        standby = asyncio.create_task(wait_for_lock(url, poll_s=0.02, waiting=told.put_nowait))
        await asyncio.wait_for(told.get(), PATIENCE_S)
        await asyncio.to_thread(private_server.kill)
        assert isinstance(await asyncio.wait_for(first.wait_poisoned(), PATIENCE_S), LockLostError | ServerLostError)
        while not isinstance(await asyncio.wait_for(told.get(), PATIENCE_S), StoreUnavailableError | ServerLostError):
            pass
        await asyncio.to_thread(private_server.start)
        async with await asyncio.wait_for(standby, PATIENCE_S) as second:
            assert second.epoch == first.epoch + 1
            assert [key for key, _ in await second.documents("x")] == ["first"]
            with pytest.raises(StorePoisonedError):
                await first.commit([AppendEvent(1, "alert")])


async def test_a_disk_that_takes_no_more_poisons_the_store_and_keeps_what_was_acknowledged(private_server):
    private_server.start(file_limit=4 << 20)
    url = private_server.url()
    acknowledged = []
    async with await open_store(url) as store:

        async def fill(name):
            for number in range(2000):
                key = f"{name}/{number:04}"
                await store.commit([PutDocument("x", key, os.urandom(1500))])
                acknowledged.append(key)

        outcomes = await asyncio.gather(*map(fill, range(4)), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} <= {DiskFullError, DiskFaultError, StorePoisonedError}
        assert isinstance(store.poisoned, DiskFullError | DiskFaultError)
        assert len(acknowledged) > 500
    async with await open_store(url) as again:
        assert sorted(key for key, _ in await again.documents("x")) == sorted(acknowledged)


async def test_a_server_without_fsync_is_refused_and_one_that_gives_it_up_too(private_server):
    private_server.start("fsync=off")
    url = private_server.url()
    with pytest.raises(UnsafeServerError, match="fsync = off"):
        await open_store(url)
    await asyncio.to_thread(private_server.stop)
    private_server.start()
    async with await open_store(url) as store:
        await store.commit([AppendEvent(1, "alert")])
        await store._reader.execute("SET default_transaction_read_only = off")
        await store._reader.execute("ALTER SYSTEM SET fsync = off")
        await store._reader.execute("SELECT pg_reload_conf()")
        async with asyncio.timeout(PATIENCE_S):
            while await store._writer.fetchval("SHOW fsync") == "on":
                pass
        with pytest.raises(UnsafeServerError, match="switched to fsync = off"):
            await store.commit([AppendEvent(2, "alert")])
        with pytest.raises(StorePoisonedError):
            await store.commit([AppendEvent(3, "alert")])
        assert [e.time_ms for e in await store.events()] == [1]


async def test_a_server_that_shuts_down_in_order_stops_the_store(private_server):
    private_server.start()
    async with await open_store(private_server.url()) as store:
        await asyncio.to_thread(private_server.stop)
        assert isinstance(await asyncio.wait_for(store.wait_poisoned(), PATIENCE_S), LockLostError | ServerLostError)
        with pytest.raises(ServerLostError):
            await store.channels()


# --- the network ---


@contextlib.asynccontextmanager
async def proxied(shared_server, tmp_path, **options):
    """A store behind a proxy, the proxy, and the URL that goes straight to the server."""
    url = shared_server.url()
    async with Proxy(shared_server.directory, tmp_path) as proxy:
        store = await open_store(url.replace(str(shared_server.directory), str(tmp_path)), **options)
        try:
            yield store, proxy, url
        finally:
            await store.close()


async def test_a_commit_whose_answer_is_lost_may_be_stored_and_is_not_acknowledged(shared_server, tmp_path):
    async with proxied(shared_server, tmp_path) as (store, proxy, url):
        await store.commit([PutDocument("x", "first", b"")])
        proxy.passing = "requests"
        pending = asyncio.create_task(store.commit([PutDocument("x", "second", b"")]))
        await asyncio.wait_for(proxy.swallowed.wait(), PATIENCE_S)
        await proxy.cut()
        with pytest.raises(ServerLostError):
            await pending
        with pytest.raises(StorePoisonedError):
            await store.commit([PutDocument("x", "third", b"")])
        async with await wait_for_lock(url, poll_s=0.02) as again:
            assert [key for key, _ in await again.documents("x")] == ["first", "second"]


async def test_a_network_that_swallows_everything_is_noticed_and_the_lock_becomes_free(
    shared_server, tmp_path, monkeypatch
):
    monkeypatch.setattr(room, "GRACE_S", 0.05)
    async with proxied(shared_server, tmp_path, lease_s=0.6) as (store, proxy, url):
        await store.commit([PutDocument("x", "first", b"")])
        proxy.passing = "nothing"
        pending = asyncio.create_task(store.commit([PutDocument("x", "second", b"")]))
        error = await asyncio.wait_for(store.wait_poisoned(), PATIENCE_S)
        assert isinstance(error, LockLostError)
        assert "heartbeat" in str(error)
        with pytest.raises(ServerLostError):
            await asyncio.wait_for(pending, PATIENCE_S)
        async with await asyncio.wait_for(wait_for_lock(url, poll_s=0.02), PATIENCE_S) as again:
            assert again.epoch == store.epoch + 1
            assert [key for key, _ in await again.documents("x")] == ["first"]
        await proxy.cut()
