"""The PostgreSQL store: the suite, group commit, and what it refuses to open."""

import asyncio

import pytest
from store_conformance import CHANNEL, DurableConformance, channel_record, signed, state

from channeld.core.records import AppendEvent, PutChannel
from channeld.store import open_store

pytestmark = [pytest.mark.postgresql, pytest.mark.xdist_group("postgresql")]


class TestPostgresqlStore(DurableConformance):
    @pytest.fixture
    def open_store(self, desk_url):
        url = desk_url()

        async def factory():
            return await open_store(url)

        return factory
