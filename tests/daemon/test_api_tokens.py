"""Tokens: each scope calls exactly what its table says; revoked, expired and forged ones nothing; secrets in no log."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import shutil
import ssl
import subprocess

import aiohttp
import pytest
from desk_world import events_of, two_desks
from hypothesis import given, settings
from hypothesis import strategies as st

from channeld.core.errors import StoreError
from channeld.daemon import logs
from channeld.daemon.api import ApiServer, TlsFilesError, tls_context
from channeld.daemon.config import ExposedApiError, InvalidSettingError, load
from channeld.daemon.limits import Buckets, TooOftenError
from channeld.daemon.methods import Methods
from channeld.daemon.scopes import ADMIN, GRANTABLE, SCOPES, scope_of
from channeld.daemon.tokens import PREFIX, TokenNameError, Tokens, UnauthorizedError, UnknownTokenError
from channeld.store.errors import DiskFullError
from channeld.store.memory import MemoryStore

OWNER = "o" * 43


def test_every_private_method_has_a_scope_and_no_other_name_has_one():
    named = [method for methods in SCOPES.values() for method in methods]
    assert len(set(named)) == len(named)
    private = {method for method in Methods(None).table if method.startswith("private/")}
    assert set(named) == private
    assert scope_of("private/anything_new") == ADMIN


# --- the book of tokens ---------------------------------------------------------------------------------------------


class Clock:
    ms = 1_000_000

    def now_ms(self):
        return self.ms


async def tokens_of(store, clock=None):
    tokens = Tokens(store, (clock or Clock()).now_ms)
    tokens.own(OWNER)
    await tokens.load()
    return tokens


async def test_a_token_opens_what_it_says_also_after_a_restart_and_no_more_once_revoked():
    store, clock = MemoryStore(), Clock()
    tokens = await tokens_of(store, clock)
    token, text = await tokens.create("risk system", ["read", "trade"])
    ends, ending = await tokens.create("intern", ["read"], clock.ms + 10)
    for book in (tokens, await tokens_of(store, clock)):
        caller = book.authenticate(f"Bearer {text}")
        assert (caller.name, caller.number, caller.scopes) == ("risk system", token.number, {"read", "trade"})
        assert book.authenticate(f"Bearer {OWNER}").scopes == {ADMIN}
        assert book.authenticate(ending).name == "intern"
    clock.ms += 10
    with pytest.raises(UnauthorizedError):
        tokens.authenticate(ending)
    assert {row["name"]: row["expired"] for row in tokens.listed()} == {"risk system": False, "intern": True}
    await tokens.revoke("risk system")
    await tokens.revoke(ends.number)
    for book in (tokens, await tokens_of(store, clock)):
        with pytest.raises(UnauthorizedError):
            book.authenticate(text)
        assert book.listed() == []
    with pytest.raises(UnknownTokenError):
        await tokens.revoke("risk system")


async def test_what_is_kept_does_not_hold_the_secret():
    store = MemoryStore()
    tokens = await tokens_of(store)
    _, text = await tokens.create("x", ["read"])
    secret = text.rpartition("_")[2] if text.count("_") == 2 else text.split("_", 2)[2]
    everything = repr(store.commits) + repr(await store.documents("token")) + json.dumps(tokens.listed())
    assert secret not in everything
    assert OWNER not in everything


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_nothing_near_a_token_is_one(data):
    async def run():
        tokens = await tokens_of(MemoryStore())
        token, text = await tokens.create("x", ["read"])
        forged = data.draw(
            st.one_of(
                st.text(max_size=60),
                st.just(f"{PREFIX}{token.number}_"),
                st.just(f"{PREFIX}{token.number}_{token.digest.hex()}"),
                st.just(text.replace(token.number, "00000000")),
                st.just(text[:-1]),
                st.just(text + "A"),
                st.just(OWNER[:-1]),
                st.just("Bearer "),
                st.just(f"{PREFIX}_"),
                st.just("\udcff" + text),
            )
        )
        with pytest.raises(UnauthorizedError):
            tokens.authenticate(forged)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("name", "scopes"),
    [
        ("", ["read"]),
        ("owner", ["read"]),
        (" x", ["read"]),
        ("x" * 65, ["read"]),
        ("taken", ["read"]),
        ("x", []),
        ("x", ["admin"]),
        ("x", ["read", "read"]),
        ("x", ["write"]),
    ],
)
async def test_names_and_scopes_that_are_none_are_refused(name, scopes):
    tokens = await tokens_of(MemoryStore())
    await tokens.create("taken", ["read"])
    with pytest.raises(TokenNameError):
        await tokens.create(name, scopes)
    assert len(tokens.listed()) == 1


async def test_a_token_that_could_not_be_kept_is_none():
    store = MemoryStore()
    tokens = await tokens_of(store)
    store.fail_with = DiskFullError("no room")
    with pytest.raises(StoreError):
        await tokens.create("x", ["read"])
    assert tokens.listed() == []


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 5)), max_size=60))
def test_a_bucket_never_gives_more_than_burst_and_rate(calls):
    now = [0.0]
    buckets = Buckets(2.0, 5.0, lambda: now[0])
    given_to = dict.fromkeys("abc", 0)
    for who, pause in calls:
        now[0] += pause
        with contextlib.suppress(TooOftenError):
            buckets.take(who)
            given_to[who] += 1
        assert given_to[who] <= 5 + 2 * now[0] + 1e-6


# --- the door -------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def served(desk, **how):
    server = ApiServer(desk.node, OWNER)
    await server.start("127.0.0.1", 0, **how)
    port = server._runner.addresses[0][1]
    try:
        async with aiohttp.ClientSession() as session:
            yield session, f"{'https' if how else 'http'}://127.0.0.1:{port}"
    finally:
        await server.stop()


async def ask(session, url, bearer, method, /, **params):
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    headers = {"Authorization": f"Bearer {bearer}"}
    async with session.post(url + "/api", json=body, headers=headers) as answer:
        return answer.status, await answer.json()


async def token_for(session, url, name, *scopes, **more):
    status, answer = await ask(session, url, OWNER, "private/token_create", name=name, scopes=list(scopes), **more)
    assert status == 200, answer
    return answer["result"]["token"]


async def test_each_scope_calls_exactly_its_methods(tmp_path):
    async with two_desks(tmp_path) as world, served(world.maker) as (session, url):
        tokens = {scope: await token_for(session, url, scope, scope) for scope in GRANTABLE}
        methods = [method for method in Methods(None).table if method.startswith("private/")]
        for method in sorted(methods):
            for scope, token in tokens.items():
                # a parameter that no method takes, of a type that none takes: what gets that far changes nothing
                status, answer = await ask(session, url, token, method, channel=[], peer=[], name=[])
                code = answer.get("error", {}).get("code")
                if scope_of(method) == scope:
                    assert code != 1262, (scope, method)
                else:
                    assert (status, code) == (403, 1262), (scope, method)
        assert not world.maker.node.stopping.is_set()
        status, answer = await ask(session, url, OWNER, "private/tokens")
        assert [row["name"] for row in answer["result"]] == list(GRANTABLE)
        assert OWNER not in json.dumps(answer)


async def test_who_did_what_is_an_event_and_a_revoked_token_is_over_at_once(tmp_path):
    async with two_desks(tmp_path) as world, served(world.maker) as (session, url):
        await world.open()
        token = await token_for(session, url, "treasurer", "treasury", "read")
        told = await ask(session, url, token, "private/transfer", channel=world.channel, amount="5")
        assert told[0] == 200
        assert (await ask(session, url, token, "private/transfer", channel=world.channel, amount="x"))[1]["error"]
        await ask(session, url, token, "private/positions")
        rows = await events_of(world.maker, "operator")
        seen = [(row["token"], row["method"], row["outcome"]) for row in rows]
        assert seen[0] == ("owner", "private/token_create", "done")
        assert seen[1] == ("treasurer", "private/transfer", "done")
        assert seen[2][:2] == ("treasurer", "private/transfer")
        assert seen[2][2] not in {"done", "failed"}
        assert len(seen) == 3
        assert (await ask(session, url, OWNER, "private/token_revoke", token="treasurer"))[0] == 200
        assert (await ask(session, url, token, "private/positions"))[0] == 401


async def test_limits_are_of_each_token_and_strangers_are_slowed(tmp_path):
    async with two_desks(tmp_path, api__rate=5) as world, served(world.maker) as (session, url):
        busy, calm = [await token_for(session, url, name, "read") for name in ("busy", "calm")]
        statuses = [(await ask(session, url, busy, "private/peers"))[0] for _ in range(30)]
        assert statuses[:10] == [200] * 10
        assert 429 in statuses
        assert (await ask(session, url, calm, "private/peers"))[0] == 200
        wrong = [(await ask(session, url, "w" * 43, "private/peers"))[0] for _ in range(80)]
        assert wrong[0] == 401
        assert wrong[-1] == 429
        # what strangers do holds up nobody who has a token
        assert (await ask(session, url, calm, "private/peers"))[0] == 200


async def test_no_secret_is_in_any_log_event_or_answer(tmp_path):
    heard = io.StringIO()
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    logs.setup("debug", "json", stream=heard)
    try:
        async with two_desks(tmp_path) as world, served(world.maker) as (session, url):
            token = await token_for(session, url, "program", "read", "treasury")
            for one in (token, OWNER, token[:-1] + "x", "wrong" * 8):
                await ask(session, url, one, "private/status")
                await ask(session, url, one, "private/withdraw", channel="nobody", amount="1")
                await ask(session, url, one, "private/" + one, channel=one)
                async with session.get(url + f"/healthz?token={one}", headers={"Authorization": one}) as answer:
                    assert one not in await answer.text()
            spoken = heard.getvalue() + json.dumps(await world.maker.call("events"))
            spoken += json.dumps(await world.maker.call("status"), default=str)
            key = world.maker.key.hex()
    finally:
        for handler in list(root.handlers):
            root.removeHandler(handler)
        for handler in before[1]:
            root.addHandler(handler)
        root.setLevel(before[0])
    assert "program" in spoken
    for secret in (token, token.split("_", 2)[2], OWNER, key):
        assert secret not in spoken


# --- a WebSocket ----------------------------------------------------------------------------------------------------


async def next_event(socket, kind=None):
    while True:
        async with asyncio.timeout(60):
            told = json.loads((await socket.receive()).data)
        event = told.get("params", {}).get("event")
        if event is not None and kind in {None, event["kind"]}:
            return event


async def subscribed(session, url, token, **params):
    socket = await session.ws_connect(url + "/ws", headers={"Authorization": f"Bearer {token}"})
    await socket.send_str(json.dumps({"id": 1, "method": "private/subscribe", "params": params}))
    told = json.loads((await socket.receive()).data)
    return socket, told


async def test_a_subscriber_that_comes_back_misses_nothing_and_hears_nothing_twice(tmp_path):
    async with two_desks(tmp_path) as world, served(world.maker) as (session, url):
        token = await token_for(session, url, "feed", "read")
        socket, told = await subscribed(session, url, token, since=0)
        assert told["result"] == {"subscription": 1, "since": 0}
        await world.open()
        heard = []
        for amount in ("1", "2", "3", "4"):
            await world.maker.call("transfer", channel=world.channel, amount=amount)
            while True:
                heard.append(await next_event(socket))
                if heard[-1]["kind"] == "transfer_done":
                    break
            # the connection is lost in the middle, again and again
            await socket.close()
            await world.maker.call("transfer", channel=world.channel, amount="0.5")
            socket, _ = await subscribed(session, url, token, since=heard[-1]["seq"])
            while True:
                heard.append(await next_event(socket))
                if heard[-1]["kind"] == "transfer_done":
                    break
        await socket.close()
        kept = (await world.maker.call("events"))["events"]
        assert heard == kept[: len(heard)]
        assert [event["seq"] for event in heard] == sorted({event["seq"] for event in heard})


async def test_kinds_channels_and_from_now_on(tmp_path):
    async with two_desks(tmp_path) as world, served(world.maker) as (session, url):
        await world.open()
        socket, told = await subscribed(session, url, OWNER, kinds=["transfer_done"], channel=world.channel)
        events = (await world.maker.call("events"))["events"]
        assert told["result"]["since"] >= events[-1]["seq"] - 1
        await world.maker.call("transfer", channel=world.channel, amount="9")
        event = await next_event(socket)
        assert (event["kind"], event["channel"]) == ("transfer_done", world.channel)
        # requests go over the same connection
        await socket.send_str(json.dumps({"id": 9, "method": "private/peers"}))
        while (told := json.loads((await socket.receive()).data)).get("id") != 9:
            assert told["method"] == "subscription"
        assert told["result"][0]["name"] == "taker"
        for raw in ("{", "[]", '"x"', '{"method": 5}'):
            await socket.send_str(raw)
            assert json.loads((await socket.receive()).data)["error"]["code"] in {-32700, -32600}
        await socket.close()


async def test_who_may_not_read_hears_nothing_and_a_revoked_token_is_cut_off(tmp_path):
    async with two_desks(tmp_path) as world, served(world.maker) as (session, url):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(url + "/ws", headers={"Authorization": "Bearer nobody"})
        assert refused.value.status == 401
        trader = await token_for(session, url, "trader", "trade")
        socket, told = await subscribed(session, url, trader)
        assert told["error"]["code"] == 1262
        await socket.close()
        reader = await token_for(session, url, "reader", "read")
        socket, told = await subscribed(session, url, reader)
        assert "result" in told
        await ask(session, url, OWNER, "private/token_revoke", token="reader")
        while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
            told = json.loads(message.data)
        assert told["params"]["error"]["code"] == 1210
        _, answer = await ask(session, url, OWNER, "private/subscribe")
        assert answer["error"]["code"] == 1266


# --- beyond this machine --------------------------------------------------------------------------------------------


def certificate(folder):
    """A self-signed certificate and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not on the PATH")
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=desk.example"]
    words += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(words, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


async def test_it_speaks_tls_with_its_certificate(tmp_path):
    cert, key = certificate(tmp_path)
    async with two_desks(tmp_path) as world, served(world.maker, tls=tls_context(cert, key)) as (session, url):
        trust = ssl.create_default_context(cafile=str(cert))
        trust.check_hostname = False
        headers = {"Authorization": f"Bearer {OWNER}"}
        body = {"id": 1, "method": "private/status"}
        async with session.post(url + "/api", json=body, headers=headers, ssl=trust) as answer:
            assert (await answer.json())["result"]["name"] == "maker"
        plain = url.replace("https", "http")
        with pytest.raises(aiohttp.ClientError):
            await session.get(plain + "/healthz")


def test_certificates_that_cannot_be_used_are_named(tmp_path):
    (tmp_path / "bad.pem").write_text("nothing")
    for cert in (tmp_path / "bad.pem", tmp_path / "none.pem"):
        with pytest.raises(TlsFilesError, match=cert.name):
            tls_context(cert, tmp_path / "bad.pem")


def test_it_listens_beyond_this_machine_with_tls_alone():
    world = {"api.listen": "0.0.0.0:9600"}
    with pytest.raises(ExposedApiError):
        load(None, flags=world, environment={})
    config = load(None, flags={**world, "api.tls_cert": "c", "api.tls_key": "k"}, environment={})
    assert config.api_scheme == "https"
    for half in ("api.tls_cert", "api.tls_key"):
        with pytest.raises(InvalidSettingError, match="a certificate needs its key"):
            load(None, flags={half: "x"}, environment={})


async def test_what_is_exposed_shows_strangers_no_channel(tmp_path):
    async with two_desks(tmp_path) as world, aiohttp.ClientSession() as session:
        world_server = ApiServer(world.maker.node, OWNER)
        await world_server.start("127.0.0.1", 0)
        world_server._exposed = True
        url = f"http://127.0.0.1:{world_server._runner.addresses[0][1]}"
        try:
            async with session.get(url + "/healthz") as answer:
                assert (await answer.json()).keys() == {"status"}
            async with session.get(url + "/metrics") as answer:
                assert answer.status == 401
            headers = {"Authorization": f"Bearer {OWNER}"}
            async with session.get(url + "/metrics", headers=headers) as answer:
                assert answer.status == 200
        finally:
            await world_server.stop()
