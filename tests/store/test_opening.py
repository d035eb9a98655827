"""Opening by path or URL, and standing by for a store that is locked."""

import asyncio
import sys

import pytest

from channeld.core.records import PutDocument
from channeld.store import SqliteStore, evict, open_store, wait_for_lock
from channeld.store.errors import DriverMissingError, StoreLocationError, StoreLockedError, StoreUnavailableError


@pytest.mark.parametrize("form", ["{}", "sqlite://{}"])
async def test_a_path_and_a_sqlite_url_are_one_file(tmp_path, form):
    path = tmp_path / "a desk.db"
    async with await open_store(path) as store:
        await store.commit([PutDocument("x", "y", b"1")])
    location = form.format(path if form == "{}" else str(path).replace(" ", "%20"))
    async with await open_store(location, lock_path=tmp_path / "lock") as store:
        assert isinstance(store, SqliteStore)
        assert await store.document("x", "y") == b"1"
    assert (tmp_path / "lock").exists()


@pytest.mark.parametrize(
    "location",
    [
        "",
        "a\0b",
        "mysql://desk@host/database",
        "sqlite://",
        "sqlite://relative.db",
        "sqlite:///x?mode=ro",
        "postgresql://host:port/database",
        "postgresql://host/database?schema=Desk",
        "postgresql://host/database?schema=pg_desk",
        "postgresql://host/database?schema=information_schema",
        'postgresql://host/database?schema=x"y',
        "postgresql://host/database?nonsense",
    ],
)
async def test_a_location_that_is_none(location):
    with pytest.raises(StoreLocationError) as refused:
        await open_store(location)
    assert "postgresql://" in refused.value.next_step


async def test_without_the_driver(monkeypatch):
    monkeypatch.setitem(sys.modules, "channeld.store.postgresql", None)
    with pytest.raises(DriverMissingError) as refused:
        await open_store("postgresql://host/database")
    assert "pip install" in refused.value.next_step


async def test_a_server_that_is_not_there_and_a_password_that_is_not_shown(tmp_path):
    for opening in (open_store, wait_for_lock):  # a standby does not wait for a server that it never reached
        with pytest.raises(StoreUnavailableError) as refused:
            await opening(f"postgresql://maker:secret@/desk?host={tmp_path}&schema=desk_a")
        shown = f"{refused.value} {refused.value.next_step} {refused.value.as_data()}"
        assert "secret" not in shown
        assert "desk_a" in shown


async def test_a_standby_waits_says_for_whom_and_takes_over(tmp_path):
    path = tmp_path / "channeld.db"
    told = asyncio.Queue()
    first = await open_store(path)
    standby = asyncio.create_task(wait_for_lock(path, poll_s=0.01, waiting=told.put_nowait))
    assert isinstance(await asyncio.wait_for(told.get(), 10), StoreLockedError)
    await first.commit([PutDocument("x", "y", b"1")])
    await first.close()
    async with await asyncio.wait_for(standby, 10) as second:
        assert second.epoch == first.epoch + 1
        assert await second.document("x", "y") == b"1"
        assert told.empty()


async def test_a_standby_that_gives_up_holds_nothing(tmp_path):
    path = tmp_path / "channeld.db"
    told = asyncio.Queue()
    async with await open_store(path):
        standby = asyncio.create_task(wait_for_lock(path, poll_s=0.01, waiting=told.put_nowait))
        await asyncio.wait_for(told.get(), 10)
        standby.cancel()
        await asyncio.wait([standby])
    async with await open_store(path):
        pass


async def test_only_a_server_can_evict(tmp_path):
    with pytest.raises(StoreLocationError, match="held by a process"):
        await evict(tmp_path / "channeld.db")
