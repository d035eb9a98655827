"""The store in memory: the suite, and what it adds for tests."""

import pytest
from store_conformance import StoreConformance

from channeld.core.records import AppendEvent
from channeld.store.errors import DiskFullError, StorePoisonedError
from channeld.store.memory import MemoryStore


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def open_store(self):
        async def factory() -> MemoryStore:
            return MemoryStore()

        return factory


async def test_it_remembers_commits_in_order_and_fails_on_demand():
    store = MemoryStore()
    first, second = [AppendEvent(1, "alert")], [AppendEvent(2, "alert"), AppendEvent(3, "alert")]
    await store.commit(first)
    await store.commit(second)
    assert store.commits == [tuple(first), tuple(second)]
    store.fail_with = DiskFullError("no room")
    with pytest.raises(StorePoisonedError, match="no room"):
        await store.commit(first)
    assert len(store.commits) == 2
    await store.close()
