"""Fixtures of the store room: stores to open, and a PostgreSQL server where one can be had."""

import asyncio
import os
import threading
import uuid
from collections.abc import Callable, Iterator

import asyncpg
import pytest
from postgresql_server import Server, binaries

pytest.register_assert_rewrite("store_conformance")

GIVEN = os.environ.get("CHANNELD_TEST_POSTGRESQL", "")
NEITHER = "needs PostgreSQL: install Debian's package postgresql, or set CHANNELD_TEST_POSTGRESQL to a URL"


@pytest.fixture(scope="session")
def template_server() -> Iterator[Server]:
    """A stopped server to copy: initdb takes seconds."""
    if binaries() is None:
        pytest.skip(NEITHER)
    server = Server()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def shared_server(template_server) -> Iterator[Server]:
    """A running server that no test may stop."""
    server = Server(template_server)
    server.start()
    yield server
    server.remove()


@pytest.fixture
def private_server(template_server) -> Iterator[Server]:
    """A stopped server of the test's own, to start, kill and spoil."""
    server = Server(template_server)
    yield server
    server.remove()


@pytest.fixture
def desk_url(request) -> Iterator[Callable[[], str]]:
    """A function that gives the URL of a new schema, on the server of the environment or on the shared one."""
    if not GIVEN:
        yield request.getfixturevalue("shared_server").url
        return
    schemas = []

    def url() -> str:
        schemas.append(f"channeld_test_{uuid.uuid4().hex}")
        return f"{GIVEN}{'&' if '?' in GIVEN else '?'}schema={schemas[-1]}"

    async def drop() -> None:
        connection = await asyncpg.connect(GIVEN)
        for schema in schemas:
            await connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        await connection.close()

    yield url
    thread = threading.Thread(target=lambda: asyncio.run(drop()))  # the event loop of the test is none of its business
    thread.start()
    thread.join()
