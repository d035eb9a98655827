"""Links over real sockets: delivery, bounds, heartbeats, and every way to end one."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from link_support import MAKER, TAKER, ManualTimers, shake, soon, stage

from channeld.core import codec
from channeld.core.codec import CodecError, NotEncodableError
from channeld.core.errors import PeerError
from channeld.transport.errors import (
    GarbageError,
    HandshakeError,
    LinkBrokenError,
    LinkClosedError,
    NonceExhaustedError,
    SilentPeerError,
    SlowPeerError,
    TamperedFrameError,
    TransportError,
)
from channeld.transport.handshake import Initiator, Responder
from channeld.transport.link import Limits, PeerLink
from channeld.transport.noise import MAX_NONCE, MAX_RECORD


async def test_messages_arrive_in_order_both_ways():
    async with stage() as it:
        left, right = await it.pair()
        assert (left.peer, right.peer, left.dialed, right.dialed) == (TAKER.address, MAKER.address, True, False)
        for number in range(1, 501):
            await left.send([1, number, b"x" * (number % 300)])
            await right.send((2, number))
        for number in range(1, 501):
            assert await soon(right.receive()) == [1, number, b"x" * (number % 300)]
            assert await soon(left.receive()) == [2, number]


async def test_large_messages_cross_in_pieces():
    async with stage() as it:
        left, right = await it.pair()
        header = len(codec.encode([1, b"x" * 70_000])) - 70_000
        largest = [1, b"x" * (MAX_RECORD - header)]
        for message in (largest, [2], [3, b"y" * 65_535], largest):
            await left.send(message)
            assert await soon(right.receive()) == message
        with pytest.raises(NotEncodableError, match="at most"):
            await left.send([1, b"x" * MAX_RECORD])
        await left.send([4])
        assert await soon(right.receive()) == [4]


@pytest.mark.parametrize("message", [[], [0], [0, 1], [True], ["1"], [-1], "text", {}, [1, 1.5], [1, {}], [1, 2**64]])
async def test_what_is_no_message_is_refused_to_the_sender_and_the_link_lives(message):
    async with stage() as it:
        left, right = await it.pair()
        with pytest.raises(NotEncodableError):
            await left.send(message)
        await left.send([1])
        assert await soon(right.receive()) == [1]


async def test_a_goodbye_says_why_after_all_that_was_sent():
    async with stage() as it:
        left, right = await it.pair()
        await left.send([1, "last"])
        await left.close(LinkClosedError("gone to lunch"))
        assert [message async for message in right] == [[1, "last"]]
        assert "gone to lunch" in str(right.reason)
        assert right.reason.details["peer_code"] == LinkClosedError.code
        with pytest.raises(LinkClosedError):
            await left.send([1])
        with pytest.raises(LinkClosedError):
            await right.send([1])
        await left.close()
        await soon(right.wait_closed())


async def test_both_sides_may_close_at_once():
    async with stage() as it:
        left, right = await it.pair()
        readers = [asyncio.create_task(soon(anext(link, None))) for link in (left, right)]
        await asyncio.gather(left.close(), right.close())
        assert await asyncio.gather(*readers) == [None, None]


async def test_a_lost_connection_is_told_apart_from_a_goodbye():
    async with stage() as it:
        left, right = await it.pair()
        left._socket.abort()
        with pytest.raises(LinkBrokenError):
            await soon(right.receive())
        with pytest.raises(LinkBrokenError):
            await soon(left.receive())


@asynccontextmanager
async def raw_client(it):
    """A proven peer in the test's own hands: the WebSocket, its session, and the listening side's link."""
    initiator = Initiator(MAKER, TAKER.address)
    async with it.client.ws_connect(it.url) as websocket:
        await websocket.send_bytes(initiator.hello())
        await websocket.send_bytes(initiator.prove(await soon(websocket.receive_bytes())))
        session = initiator.finish(await soon(websocket.receive_bytes()))
        yield websocket, session, await soon(it.links.get())


async def drain(link: PeerLink) -> None:
    while True:
        await link.receive()


async def ends_with(link: PeerLink, error: type[PeerError]) -> None:
    with pytest.raises(error):
        await soon(drain(link))
    assert isinstance(link.reason, error)
    await soon(link.wait_closed())


@pytest.mark.parametrize("kind", ["replayed", "truncated", "altered", "empty", "swapped", "too long"])
async def test_frames_that_are_not_authentic_end_the_link(kind):
    async with stage() as it, raw_client(it) as (websocket, session, link):
        (first,), (second,) = session.seal([b"\x91\x01"]), session.seal([b"\x91\x02"])
        frames = {
            "replayed": [first, first],
            "truncated": [first[:-1]],
            "altered": [first[:-1] + bytes([first[-1] ^ 1])],
            "empty": [b""],
            "swapped": [second, first],
            "too long": [bytes(65_535)],
        }[kind]
        for frame in frames:
            await websocket.send_bytes(frame)
        await ends_with(link, TamperedFrameError)


@pytest.mark.parametrize(
    ("record", "error"),
    [
        (b"\xc1", CodecError),
        (b"\x90", GarbageError),
        (b"\x01", GarbageError),
        (b"\x91\xc3", GarbageError),
        (b"\x91\xff", GarbageError),
        (b"\x91\xa1x", GarbageError),
        (b"\x92\x01\xcb" + bytes(8), CodecError),
        (b"\x92\x01\x80", CodecError),
        (b"\x92\x01\xcc\x01", CodecError),
        (b"\x91\x01\x00", CodecError),
        (b"\x91" * 17 + b"\x01", CodecError),
        (b"\x92\x00\x09", GarbageError),
        (b"\x91\x00", GarbageError),
        (b"\x93\x00\x01\x05", GarbageError),
    ],
)
async def test_authentic_garbage_ends_the_link_and_the_peer_is_told(record, error):
    async with stage() as it, raw_client(it) as (websocket, session, link):
        for frame in session.seal([record]):
            await websocket.send_bytes(frame)
        ending = asyncio.create_task(ends_with(link, error))
        goodbye = codec.decode(session.open((await soon(websocket.receive())).data)[0])
        assert goodbye[:3] == [0, 2, link.reason.code]
        assert (await soon(websocket.receive())).data == 1008
        await ending


async def test_a_length_beyond_the_bound_ends_the_link_before_the_bytes_come():
    async with stage() as it, raw_client(it) as (websocket, session, link):
        await websocket.send_bytes(session.encrypt((MAX_RECORD + 1).to_bytes(4, "big")))
        await ends_with(link, GarbageError)


async def test_text_and_oversized_frames_end_the_link():
    async with stage() as it:
        async with raw_client(it) as (websocket, _, link):
            await websocket.send_str("hello")
            await ends_with(link, GarbageError)
        async with raw_client(it) as (websocket, _, link):
            await websocket.send_bytes(bytes(65_536))
            await ends_with(link, GarbageError)


@given(st.lists(st.binary(max_size=200), max_size=5), st.booleans())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_frames_and_records_end_in_a_typed_error_and_nothing_else(chunks, authentic):
    async def run() -> None:
        async with stage() as it, raw_client(it) as (websocket, session, link):
            reader = asyncio.create_task(drain(link))
            for chunk in chunks:
                if not websocket.closed:
                    await websocket.send_bytes(session.encrypt(chunk) if authentic else chunk)
            await websocket.close()
            with pytest.raises(PeerError):
                await soon(reader)
            assert isinstance(link.reason, TransportError | CodecError)

    asyncio.run(run())


async def test_a_peer_that_does_not_read_loses_the_link_at_the_bound():
    limits = Limits(send_queue=1 << 20, close_timeout=0.05)
    async with stage(limits=limits) as it, raw_client(it) as (_, _, link):

        async def pour() -> None:
            while True:
                await link.send([1, b"x" * 60_000])
                assert link.queued <= limits.send_queue
                await asyncio.sleep(0)

        with pytest.raises(SlowPeerError) as error:
            await soon(pour())
        assert error.value.details["limit"] == limits.send_queue
        with pytest.raises(SlowPeerError):
            await soon(link.receive())
        await soon(link.wait_closed())


async def test_heartbeats_are_answered_and_keep_the_link():
    timers = ManualTimers()
    limits = Limits(heartbeat_interval=10, heartbeat_timeout=20, close_timeout=0.05)
    async with stage(timers=timers, limits=limits) as it:
        left, right = await it.pair()
        for number in range(1, 6):
            timers.advance(10)
            # a message each way behind ping and pong: both have passed once it arrives
            for sender, receiver in ((left, right), (right, left), (left, right)):
                await sender.send([1, number])
                assert await soon(receiver.receive()) == [1, number]
        assert left.reason is right.reason is None


async def test_an_unanswered_heartbeat_ends_the_link():
    timers = ManualTimers()
    async with stage(timers=timers) as it, raw_client(it) as (_, _, link):
        reader = asyncio.create_task(link.receive())
        await asyncio.sleep(0)
        timers.advance(10)
        timers.advance(19)
        assert link.reason is None
        timers.advance(11)
        with pytest.raises(SilentPeerError):
            await soon(reader)


async def test_a_busy_reader_does_not_blame_the_peer():
    timers = ManualTimers()
    async with stage(timers=timers) as it:
        left, right = await it.pair()
        for _ in range(20):
            timers.advance(10)
        assert left.reason is None
        await left.send([1])
        assert await soon(right.receive()) == [1]


async def test_a_session_whose_nonces_are_used_up_ends_instead_of_repeating_one():
    async with stage() as it:
        left, right = await it.pair()
        left._session._sending.nonce = MAX_NONCE
        await left.send([1])
        with pytest.raises(NonceExhaustedError):
            await soon(left.receive())
        with pytest.raises(LinkBrokenError):
            await soon(right.receive())


async def test_no_message_is_believed_before_adoption():
    async with stage() as it:
        left, right = await it.pair()
        right.adopt()
        await right.send([1])
        await soon(left.wait_adopted())
        assert await soon(left.receive()) == [1]
        left, right = await it.pair()
        await right.send([1])
        with pytest.raises(HandshakeError):
            await soon(left.wait_adopted())


async def test_a_memory_session_and_a_link_speak_the_same_records():
    left, right = shake(Initiator(MAKER, TAKER.address), Responder(TAKER))
    frames = left.seal([codec.encode([1, n]) for n in range(100)])
    assert len(frames) == 1
    assert [codec.decode(r) for r in right.open(frames[0])] == [[1, n] for n in range(100)]
