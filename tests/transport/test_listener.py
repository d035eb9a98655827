"""The peer port and the dialer, over real sockets: who gets in, who does not, and what each is told."""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from link_support import CHEATER, MAKER, TAKER, ManualTimers, desk, soon, stage

from channeld.core.errors import ChanneldError
from channeld.transport.dialer import Backoff, check_url, dial
from channeld.transport.errors import (
    BadPeerConfigurationError,
    CrowdedError,
    HandshakeError,
    HandshakeTimeoutError,
    NotAllowedError,
    RefusedError,
    UnreachableError,
    VersionMismatchError,
    WrongPeerError,
)
from channeld.transport.link import Limits
from channeld.transport.listener import Listener


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await soon(writer.wait_closed())


async def test_a_signer_that_is_not_on_the_list_is_refused_until_it_is():
    async with stage(allowed=set()) as it:
        with pytest.raises(RefusedError, match="allow-list"):
            await it.dial()
        assert isinstance(await soon(it.refused.get()), NotAllowedError)
        it.allowed.add(MAKER.address)
        assert (await it.dial()).peer == TAKER.address


async def test_an_endpoint_that_is_somebody_else_is_named():
    async with stage(responder=CHEATER) as it:
        with pytest.raises(WrongPeerError):
            await it.dial(MAKER, TAKER.address)


async def test_versions_that_differ_are_named_on_both_sides():
    async with stage(responder=desk("taker", version=3)) as it:
        with pytest.raises(VersionMismatchError) as error:
            await it.dial()
        assert error.value.details == {"ours": 2, "theirs": 3}
        other = await soon(it.refused.get())
        assert isinstance(other, VersionMismatchError)
        assert other.details == {"ours": 3, "theirs": 2}


async def test_a_connection_that_says_nothing_is_cut_in_time_at_every_stage():
    timers = ManualTimers()
    async with stage(timers=timers, limits=Limits(handshake_timeout=7, close_timeout=0.05)) as it:
        silent_reader, silent_writer = await asyncio.open_connection("127.0.0.1", it.listener.port)
        half_reader, half_writer = await asyncio.open_connection("127.0.0.1", it.listener.port)
        half_writer.write(b"GET / HTTP/1.1\r\nHost: peer\r\n")
        websocket = await it.client.ws_connect(it.url)
        assert it.listener.pending == 3
        timers.advance(6.9)
        assert it.listener.pending == 3
        timers.advance(0.2)
        assert it.listener.pending == 0
        for reader in (silent_reader, half_reader):
            with contextlib.suppress(ConnectionResetError):
                assert await soon(reader.read()) == b""
        assert (await soon(websocket.receive())).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        await close(silent_writer)
        await close(half_writer)
        assert {type(await soon(it.refused.get())) for _ in range(3)} == {HandshakeTimeoutError}


async def test_strangers_cannot_take_more_than_their_places():
    async with stage(limits=Limits(max_pending=2, close_timeout=0.05)) as it:
        strangers = [await it.client.ws_connect(it.url) for _ in range(2)]
        with pytest.raises(UnreachableError):
            await it.dial()
        assert isinstance(await soon(it.refused.get()), CrowdedError)
        await strangers[0].close()
        while not isinstance(await soon(it.refused.get()), HandshakeError):
            pass
        link, _ = await it.pair()
        another, _ = await it.pair()  # proven links take no stranger's place
        assert link.reason is another.reason is None
        await strangers[1].close()


async def test_an_endpoint_that_says_nothing_or_is_absent_is_named():
    timers = ManualTimers()
    accepted, gone = asyncio.Event(), asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        gone.set()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with aiohttp.ClientSession() as client:
        attempt = asyncio.create_task(dial(client, url, MAKER, TAKER.address, timers=timers))
        await soon(accepted.wait())
        timers.advance(60)
        with pytest.raises(HandshakeTimeoutError):
            await soon(attempt)
        await soon(gone.wait())
        server.close()
        await server.wait_closed()
        with pytest.raises(UnreachableError):
            await soon(dial(client, url, MAKER, TAKER.address, timers=timers))
        for wrong in ("http://127.0.0.1", "ws://", "127.0.0.1:9735", "ws://host:99999", "ws://[", "ws://a\nb"):
            with pytest.raises(BadPeerConfigurationError):
                await dial(client, wrong, MAKER, TAKER.address, timers=timers)
    assert check_url("ws://desk.example:9735") == "ws://desk.example:9735"


async def test_a_cancelled_attempt_is_a_cancellation_and_leaves_nothing():
    async with stage(timers=ManualTimers()) as it:
        websocket_server = asyncio.create_task(it.dial())
        await asyncio.sleep(0)
        websocket_server.cancel()
        with pytest.raises(asyncio.CancelledError):
            await websocket_server


async def test_plain_http_gets_a_hint_and_nothing_else():
    async with stage() as it:
        async with it.client.get(it.url.replace("ws:", "http:")) as response:
            assert response.status == 426
            assert "WebSocket" in await response.text()
        async with it.client.get(it.url.replace("ws:", "http:") + "/metrics") as response:
            assert response.status == 426


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.booleans())
@settings(max_examples=20, deadline=None)
def test_random_frames_instead_of_a_handshake_end_in_one_refusal(chunks, plain):
    async def run() -> None:
        async with stage() as it:
            if plain:
                _, writer = await asyncio.open_connection("127.0.0.1", it.listener.port)
                writer.writelines(chunks)
                await close(writer)
            else:
                websocket = await it.client.ws_connect(it.url)
                for chunk in chunks:
                    await websocket.send_bytes(chunk)
                await websocket.close()
                assert isinstance(await soon(it.refused.get()), HandshakeError)
            link, _ = await it.pair()
            assert link.reason is None

    asyncio.run(run())


async def test_a_failing_signer_or_list_costs_one_connection():
    def fail(_argument: bytes) -> bytes:
        message = "the keystore is locked"
        raise OSError(message)

    async with stage(responder=desk("taker", sign=fail)) as it:
        with pytest.raises(HandshakeError):
            await it.dial()
        assert (await soon(it.refused.get())).code == 9000
        with pytest.raises(HandshakeError):
            await it.dial()


async def test_a_port_in_use_is_named():
    async with stage() as it:
        second = Listener(MAKER, allowed=lambda _: True, on_link=lambda link: link.close())
        with pytest.raises(BadPeerConfigurationError, match=str(it.listener.port)):
            await second.start("127.0.0.1", it.listener.port)
        await second.stop()


def test_pauses_grow_are_capped_jittered_and_forget_failures():
    middle = Backoff(lambda: 0.5, base=1.0, cap=10.0)
    assert [middle.next() for _ in range(6)] == [0.75, 1.5, 3.0, 6.0, 7.5, 7.5]
    middle.reset()
    assert middle.next() == 0.75
    assert [Backoff(lambda: 0.0, base=1.0).next(), Backoff(lambda: 1.0, base=1.0).next()] == [0.5, 1.0]
    tired = Backoff(lambda: 0.0, failures=10_000)
    assert tired.next() == 15.0


def test_every_error_of_the_room_says_what_to_do():
    from channeld.transport import errors  # noqa: PLC0415 - the module itself is looked through

    found = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, ChanneldError)]
    assert all(3210 <= cls.code <= 3299 for cls in found if cls.__module__ == errors.__name__)
