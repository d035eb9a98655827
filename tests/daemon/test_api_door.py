"""The API over HTTP: token, malformed requests, health, metrics, waiting for events."""

from __future__ import annotations

import asyncio
import contextlib
import io

import aiohttp
import pytest
from desk_world import alerted, only_actor, two_desks

from channeld.core.errors import StoreError
from channeld.daemon.api import ApiAddressError, ApiServer, BadTokenFileError, ensure_token

TOKEN = "a" * 40


@contextlib.asynccontextmanager
async def served(desk):
    """The desk's API on a free port, and a session to it."""
    server = ApiServer(desk.node, TOKEN)
    await server.start("127.0.0.1", 0)
    port = server._runner.addresses[0][1]
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            yield session
    finally:
        await server.stop()


async def ask(session, method, params=None, *, token=TOKEN, raw=None):
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params if params is not None else {}}
    sent = {"data": io.BytesIO(raw)} if raw is not None else {"json": body}
    async with session.post("/api", headers=headers, **sent) as response:
        return response.status, await response.json()


async def test_the_token_opens_what_is_private_and_nothing_else_does(tmp_path):
    async with two_desks(tmp_path) as world, served(world.maker) as session:
        for token in (None, "", "b" * 40, TOKEN[:-1]):
            status, answer = await ask(session, "private/status", token=token)
            assert status == 401
            assert answer["error"]["code"] == 1210
            assert answer["id"] == 7
            status, answer = await ask(session, "private/no_such_thing", token=token)
            assert answer["error"]["code"] == 1210
        status, answer = await ask(session, "public/time", token=None)
        assert status == 200
        assert answer["result"]["time_ms"] > 0
        status, answer = await ask(session, "private/status")
        assert status == 200
        assert answer["result"]["name"] == "maker"


@pytest.mark.parametrize(
    ("raw", "code", "status"),
    [
        (b"", -32700, 400),
        (b"\xff\xfe", -32700, 400),
        (b"[" * 100_000, -32700, 400),
        (b'{"a": ' * 30_000, -32700, 400),
        (b'"text"', -32600, 200),
        (b"[]", -32600, 200),
        (b"{}", -32600, 200),
        (b'{"method": 5}', -32600, 200),
        (b'{"id": [1], "method": "public/time", "params": [1]}', 1201, 200),
        (b'{"id": 1, "method": "public/nothing"}', 1202, 200),
        (b'{"id": 1, "method": "private/channel", "params": {"channel": 5}}', 1201, 200),
        (b" " * (1 << 20) + b"{}", -32700, 413),
    ],
)
async def test_what_makes_no_sense_gets_an_error_in_json(tmp_path, raw, code, status):
    async with two_desks(tmp_path) as world, served(world.maker) as session:
        found, answer = await ask(session, "", raw=raw)
        assert found == status
        assert answer["jsonrpc"] == "2.0"
        assert answer["error"]["code"] == code


async def test_a_bug_is_an_error_too_and_no_traceback(tmp_path):
    async with two_desks(tmp_path) as world, served(world.maker) as session:
        world.maker.node.clock = None
        status, answer = await ask(session, "public/time")
        assert status == 200
        assert answer["error"]["code"] == 9000
        assert "Traceback" not in str(answer)
        world.maker.node.clock = world.maker.node.chain.clock


async def test_health_and_metrics_tell_what_is(tmp_path):
    async with two_desks(tmp_path) as world, served(world.maker) as session:
        await world.open()
        async with session.get("/healthz") as response:
            health = await response.json()
            assert response.status == 200
        assert (health["status"], health["chain"], health["channels"], health["peers_connected"]) == ("ok", "ok", 1, 1)
        async with session.get("/metrics") as response:
            text = await response.text()
        label = "0x" + only_actor(world.maker).id.hex()[:8]
        assert 'channeld_peer_connected{peer="taker"} 1.0' in text
        assert f'channeld_proposals_outstanding{{channel="{label}"}} 0.0' in text
        assert 'channeld_channels{status="open"} 1.0' in text
        assert f'channeld_states_signed_total{{channel="{label}"}}' in text
        for name in ("commit_seconds", "update_seconds"):
            count = next(line for line in text.splitlines() if line.startswith(f"channeld_{name}_count"))
            assert float(count.split()[-1]) > 0
        assert (
            'channeld_transactions_total{function="Adjudicator.open",outcome="done"}' in text
            or "channeld_transactions_total{" in text
        )


async def test_a_store_that_failed_is_no_good_health(tmp_path):
    async with two_desks(tmp_path) as world, served(world.maker) as session:
        await world.open()
        world.maker.node.store._poison = StoreError("no space left")
        async with session.get("/healthz") as response:
            assert response.status == 503
            assert (await response.json())["status"] == "store failed"
        world.maker.node.store._poison = None


async def test_events_come_in_order_and_a_caller_may_wait_for_the_next(tmp_path):
    async with two_desks(tmp_path) as world, served(world.maker) as session:
        await world.open()
        _, answer = await ask(session, "private/events", {"since": 0})
        told = answer["result"]
        numbers = [e["seq"] for e in told["events"]]
        assert numbers == sorted(set(numbers))
        assert told["next"] == numbers[-1]
        waiting = asyncio.ensure_future(ask(session, "private/events", {"since": told["next"], "wait_s": 20.5}))
        await asyncio.sleep(0)
        await world.maker.call("transfer", channel="taker", amount="1")
        _, answer = await asyncio.wait_for(waiting, 10)
        assert answer["result"]["events"][0]["seq"] > told["next"]
        assert {e["kind"] for e in answer["result"]["events"]} & {"transfer_done", "state_signed"}
        _, answer = await ask(session, "private/events", {"since": 2**62})
        assert answer["result"] == {"next": 2**62, "events": []}


async def test_alerts_are_bounded(tmp_path):
    async with two_desks(tmp_path) as world:
        for number in range(150):
            await world.maker.node.emit("alert", None, severity="info", message=f"number {number}")
        assert len(world.maker.node.alerts) == 100
        assert await alerted(world.maker, "number 149")


async def test_two_servers_cannot_share_an_address(tmp_path):
    async with two_desks(tmp_path) as world, served(world.maker) as session:
        second = ApiServer(world.taker.node, TOKEN)
        with pytest.raises(ApiAddressError, match="cannot listen"):
            await second.start("127.0.0.1", int(str(session._base_url).rstrip("/").rsplit(":", 1)[1]))


def test_a_token_is_made_once_and_is_a_secret(tmp_path):
    path = tmp_path / "api.token"
    token = ensure_token(path)
    assert len(token) >= 32
    assert path.stat().st_mode & 0o077 == 0
    assert ensure_token(path) == token
    for text in ("", "short\n", "é" * 30):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(BadTokenFileError):
            ensure_token(path)
