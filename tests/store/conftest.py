"""Fixtures of the store room: stores to open, and a PostgreSQL server where one can be had."""

import os
from collections.abc import Callable, Iterator
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

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
def desk_url(request, tmp_path) -> Callable[[], str]:
    """A function that gives the URL of a new schema, on the server of the environment or on the shared one."""
    if not GIVEN:
        return request.getfixturevalue("shared_server").url
    parts = urlsplit(GIVEN)
    made = iter(range(1000))

    def url() -> str:
        schema = f"test_{os.getpid()}_{abs(hash(tmp_path)) % 10**9}_{next(made)}"
        query = [(key, value) for key, value in parse_qsl(parts.query) if key != "schema"] + [("schema", schema)]
        return urlunsplit(parts._replace(query=urlencode(query, safe="/")))

    return url
