"""The API as it is served, against what its schema says: over HTTP and WebSocket every call gets a JSON-RPC answer.

No status that is not documented, no traceback, no bug of ours, no hang; whatever the bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json

import aiohttp
import pytest
from desk_world import two_desks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channeld.daemon.api import ApiServer

TOKEN = "s" * 40
# what would end the desk or the channel, take away what others test by, or wait
LEFT_ALONE = {"shutdown", "challenge", "close", "call_margin", "resume", "subscribe"}
STATUSES = {200, 400, 401, 403, 413, 429}
PATIENCE_S = 60


def values(schema):
    """Values that fit a JSON Schema of the served ones, and some that do not."""
    kind = schema.get("type", "string")
    fitting = {
        "string": st.text(max_size=20) | st.from_regex(r"\A-?[0-9]{1,24}(\.[0-9]{1,20})?\Z"),
        "integer": st.integers(0, 2**63 - 1),
        "boolean": st.booleans(),
        "object": st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
        "array": st.lists(
            st.dictionaries(st.sampled_from(["instrument", "size", "price"]), st.text(max_size=9)), max_size=3
        ),
    }
    known = st.just("0.0") if isinstance(kind, list) else fitting[kind]
    return known | st.sampled_from([None, True, -1, 1.5, "", [], {}, "\ud800", [[]], 2**70, "taker"])


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A desk and its API on a loop of its own."""
    loop = asyncio.new_event_loop()
    stack = contextlib.AsyncExitStack()

    async def start():
        world = await stack.enter_async_context(
            two_desks(tmp_path_factory.mktemp("served"), api__rate=100_000, channel__mark_interval=86_400)
        )
        await world.open()
        server = ApiServer(world.maker.node, TOKEN)
        await server.start("127.0.0.1", 0)
        stack.push_async_callback(server.stop)
        base = f"http://127.0.0.1:{server._runner.addresses[0][1]}"
        session = await stack.enter_async_context(
            aiohttp.ClientSession(base, headers={"Authorization": f"Bearer {TOKEN}"})
        )
        async with session.post("/api", json={"jsonrpc": "2.0", "id": 1, "method": "public/schema"}) as response:
            schema = (await response.json())["result"]
        return world, session, await session.ws_connect("/ws"), schema

    world, session, socket, schema = loop.run_until_complete(start())
    yield loop, world, session, socket, schema
    loop.run_until_complete(socket.close())
    loop.run_until_complete(stack.aclose())
    loop.close()


def checked(answer, identifier=None):
    """A JSON-RPC answer: a result, or an error with a documented code that is no bug of ours."""
    assert answer["jsonrpc"] == "2.0"
    assert "Traceback" not in json.dumps(answer)
    if identifier is not None:
        assert answer["id"] == identifier
    if "error" not in answer:
        assert "result" in answer
        return
    error = answer["error"]
    assert error["message"]
    code = error["code"]
    assert code in {-32700, -32600} or 1000 <= code < 9000, error
    if code > 0:
        assert error["data"]["advice"] is not None
        assert error["data"]["fault"] in {"user", "peer", "oracle", "chain", "disk", "self"}


async def by_http(session, raw):
    async with asyncio.timeout(PATIENCE_S), session.post("/api", data=io.BytesIO(raw)) as response:
        assert response.status in STATUSES
        return json.loads(await response.read())


async def by_socket(socket, text):
    async with asyncio.timeout(PATIENCE_S):
        await socket.send_str(text)
        while True:
            answer = json.loads((await socket.receive()).data)
            if answer.get("method") != "subscription":
                return answer


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(data=st.data())
def test_every_call_that_the_served_schema_allows_gets_an_answer(served, data):
    loop, _, session, socket, schema = served
    methods = [m for m in schema["methods"] if m["name"].partition("/")[2] not in LEFT_ALONE]
    method = data.draw(st.sampled_from(methods))
    fields = {p["name"]: values(p["schema"]) for p in method["params"] if p["name"] not in {"wait_s", "version"}}
    required = {p["name"] for p in method["params"] if p["required"]} & set(fields)
    params = data.draw(
        st.fixed_dictionaries(
            {name: fields[name] for name in required}, optional={n: f for n, f in fields.items() if n not in required}
        )
    )
    if any(p["name"] == "wait_s" for p in method["params"]):
        params["wait_s"] = 0
    request = {"jsonrpc": "2.0", "id": 5, "method": method["name"], "params": params}
    text = json.dumps(request)
    if data.draw(st.booleans()):
        answer = loop.run_until_complete(by_http(session, text.encode()))
    else:
        answer = loop.run_until_complete(by_socket(socket, text))
    checked(answer, 5)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(
    raw=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
            max_leaves=12,
        ).map(lambda value: json.dumps(value).encode()),
        st.fixed_dictionaries(
            {"method": st.sampled_from(["public/time", "private/status", "private/x", ""]), "params": st.integers()},
            optional={"id": st.text(max_size=4) | st.integers() | st.floats(), "jsonrpc": st.text(max_size=3)},
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_bytes_that_are_no_call_get_an_answer_too(served, raw):
    loop, _, session, socket, _ = served
    checked(loop.run_until_complete(by_http(session, raw)))
    with contextlib.suppress(UnicodeDecodeError):
        text = raw.decode()
        checked(loop.run_until_complete(by_socket(socket, text)))


def test_after_all_that_the_desk_works_and_has_made_no_mistake(served):
    loop, world, session, socket, _ = served
    for answer in (
        loop.run_until_complete(by_http(session, b'{"jsonrpc":"2.0","id":1,"method":"private/channels"}')),
        loop.run_until_complete(by_socket(socket, '{"jsonrpc":"2.0","id":1,"method":"private/channels"}')),
    ):
        assert answer["result"][0]["status"] == "open"
    done = loop.run_until_complete(world.taker.call("transfer", channel="maker", amount="1"))
    assert done["version"] > 0
