"""A secured session over one WebSocket: messages in, messages out, heartbeats between.

Rules: a message is an array whose first element is its type, an integer of 1 or more; type 0 is the link's own (ping,
pong, goodbye, adoption). One task reads (`receive`, or `async for`), anyone sends. `send` never waits for the peer:
what waits is bounded, and a peer that lets it reach the bound loses the link. Whatever the peer sends, the link ends
with one typed reason and nothing else ends. A link delivers in order and at most once; what must arrive is sent again,
by the exchange that opens the next link, and nothing here is durable.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from aiohttp import WSMsgType, web

from channeld.core import codec
from channeld.core.codec import CodecError, NotEncodableError
from channeld.transport.errors import (
    DuplicateLinkError,
    GarbageError,
    HandshakeError,
    LinkBrokenError,
    LinkClosedError,
    SilentPeerError,
    SlowPeerError,
    TamperedFrameError,
    TransportError,
)
from channeld.transport.handshake import MAX_REASON, clean_text
from channeld.transport.noise import LENGTH_BYTES, MAX_MESSAGE, MAX_PLAINTEXT, MAX_RECORD, Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from channeld.core.errors import ChanneldError
    from channeld.transport.timers import Handle, Timers

WebSocket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse
Message = list[Any]

FRAME_LIMIT = MAX_MESSAGE + 1  # aiohttp refuses frames of this size and above

_CONTROL = 0
_PING, _PONG, _GOODBYE, _ADOPTED = range(4)
_IO_ERRORS = (ConnectionError, aiohttp.ClientError, RuntimeError, OSError)
_CLOSE_OK, _CLOSE_FAULT = 1000, 1008


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a link, its listener and its dialer. Times in seconds, sizes in bytes.

    Attributes:
        send_queue: what may wait to be sent; beyond it the peer is too slow.
        heartbeat_interval: between pings.
        heartbeat_timeout: for the answer to a ping.
        handshake_timeout: from the TCP connection to the end of the handshake.
        close_timeout: for an orderly end; then the connection is cut.
        max_pending: connections that have not proven who they are.
        settle_time: how long a new link stands against a second one to the same peer (see hub.py).
        reconnect_cap: the longest pause between attempts to reach a peer.

    """

    send_queue: int = 16 << 20
    heartbeat_interval: float = 10.0
    heartbeat_timeout: float = 20.0
    handshake_timeout: float = 10.0
    close_timeout: float = 1.0
    max_pending: int = 64
    settle_time: float = 5.0
    reconnect_cap: float = 30.0


class Socket:
    """A WebSocket of binary frames, client's or server's, that can also be cut."""

    def __init__(self, websocket: WebSocket, transport: asyncio.BaseTransport | None) -> None:
        """Wrap an open WebSocket and the TCP transport under it."""
        self._websocket = websocket
        self._transport = transport

    async def send(self, frame: bytes) -> None:
        """Send one binary frame; waits while the peer does not read.

        Raises:
            LinkBrokenError: the connection is gone.

        """
        try:
            await self._websocket.send_bytes(frame)
        except _IO_ERRORS as error:
            raise LinkBrokenError("the connection was lost") from error

    async def receive(self) -> bytes:
        """The next binary frame.

        Raises:
            LinkBrokenError: the connection is gone, or closed without a goodbye.
            GarbageError: a text frame, or one that breaks WebSocket's own rules or is too long.

        """
        try:
            message = await self._websocket.receive()
        except _IO_ERRORS as error:
            raise LinkBrokenError("the connection was lost") from error
        if message.type is WSMsgType.BINARY:
            data: bytes = message.data
            return data
        if message.type is WSMsgType.TEXT:
            raise GarbageError("a text frame; peers speak binary")
        if message.type is WSMsgType.ERROR and isinstance(message.data, aiohttp.WebSocketError):
            raise GarbageError(f"a frame that breaks WebSocket's rules: {clean_text(str(message.data))}")
        raise LinkBrokenError("the connection was lost")

    async def close(self, timeout: float, *, fault: bool = False) -> None:  # noqa: ASYNC109 - of the peer's answer
        """End the connection: in order within `timeout` seconds, else by cutting it."""
        try:
            async with asyncio.timeout(timeout):
                await self._websocket.close(code=_CLOSE_FAULT if fault else _CLOSE_OK)
        except (*_IO_ERRORS, TimeoutError):
            pass
        finally:
            self.abort()

    def abort(self) -> None:
        """Cut the connection; what is not sent yet is dropped."""
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.abort()


class PeerLink:
    """One secured link to one proven peer."""

    def __init__(
        self, socket: Socket, session: Session, peer: bytes, *, limits: Limits, timers: Timers, dialed: bool
    ) -> None:
        """Take over a connection whose handshake is done.

        Args:
            socket: the connection.
            session: the keys that the handshake ended in.
            peer: the proven address of the other side, 20 bytes.
            limits: the bounds.
            timers: clock and timers of the heartbeat.
            dialed: whether this side dialed.

        """
        self.peer = peer
        self.dialed = dialed
        self.reason: ChanneldError | None = None
        """Why the link ended; None while it lives."""
        self._socket, self._session = socket, session
        self._limits, self._timers = limits, timers
        self._incoming: deque[Message] = deque()
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._wake = asyncio.Event()
        self._finished = asyncio.Event()
        self._reading = False
        self._adopted = False
        self._ping_number = 0
        self._ping_since: float | None = None
        self._writer = asyncio.create_task(self._write(), name=f"link-writer-{peer.hex()[:8]}")
        self._closer: asyncio.Task[None] | None = None
        self._timer: Handle = timers.call_later(limits.heartbeat_interval, self._heartbeat)

    # --- sending

    @property
    def queued(self) -> int:
        """Bytes that wait to be sent. Whoever produces much may hold back while this is high."""
        return self._queued

    async def send(self, message: Sequence[Any]) -> None:
        """Queue `[type, ...]` to be sent, in order. Returns at once; that it returned says nothing of arrival.

        Raises:
            LinkClosedError, LinkBrokenError, ...: the link has ended, with its reason.
            SlowPeerError: the bound on what waits is reached; the link has ended.
            NotEncodableError: no array that begins with a type of 1 or more, or one that cannot be encoded or is too
                large. The link lives on.

        """
        if not isinstance(message, list | tuple) or not message or not _is_type(message[0]):
            raise NotEncodableError("a message must be an array that begins with its type, 1 or more")
        self.post(codec.encode(message))

    def post(self, record: bytes) -> None:
        """Queue a message that is encoded already, an array that begins with a type of 1 or more; as `send` does.

        Raises:
            as `send`.

        """
        if len(record) > MAX_RECORD:
            raise NotEncodableError(f"a message of {len(record)} bytes; at most {MAX_RECORD}", size=len(record))
        self._raise_if_ended()
        self._enqueue(record)
        self._raise_if_ended()

    def _enqueue(self, record: bytes) -> None:
        if self._queued + len(record) > self._limits.send_queue:
            self._cut(
                SlowPeerError(
                    f"the peer does not read: {self._queued} bytes wait for it",
                    queued=self._queued,
                    limit=self._limits.send_queue,
                )
            )
            return
        self._queue.append(record)
        self._queued += len(record)
        self._wake.set()

    def _control(self, *content: int | str) -> None:
        self._enqueue(codec.encode([_CONTROL, *content]))

    async def _write(self) -> None:
        """Send what is queued, as few frames as it fits into, until the link ends."""
        try:
            while True:
                while self._queue:
                    await self._write_some()
                if self.reason is not None:
                    return
                self._wake.clear()
                await self._wake.wait()
        except TransportError as error:
            self._cut(error)

    async def _write_some(self) -> None:
        batch = [self._queue.popleft()]
        size = len(batch[0]) + LENGTH_BYTES
        while self._queue and size + len(self._queue[0]) + LENGTH_BYTES <= MAX_PLAINTEXT:
            batch.append(self._queue.popleft())
            size += len(batch[-1]) + LENGTH_BYTES
        for frame in self._session.seal(batch):
            await self._socket.send(frame)
        self._queued -= size - LENGTH_BYTES * len(batch)

    # --- receiving

    async def receive(self) -> Message:
        """The next message. To be called by one task at a time.

        Raises:
            ChanneldError: the link has ended, with its reason: a TransportError or CodecError from here, or whatever
                `close` was given.

        """
        while True:
            message = await self._next()
            if message[0] != _CONTROL:
                return message
            await self._obey(message)

    def __aiter__(self) -> Self:
        """Iterate over the messages until the link is closed on purpose."""
        return self

    async def __anext__(self) -> Message:
        """The next message; ends where the link was closed on purpose, raises the reason otherwise."""
        try:
            return await self.receive()
        except LinkClosedError:
            raise StopAsyncIteration from None

    async def _next(self) -> Message:
        """The next record's array, after checking that it is one."""
        while not self._incoming:
            self._raise_if_ended()
            self._reading = True
            try:
                frame = await self._socket.receive()
                records = self._session.open(frame)
                self._incoming.extend(_checked(record) for record in records)
            except (TransportError, CodecError) as error:
                await self._end(error, tell=not isinstance(error, LinkBrokenError | TamperedFrameError))
            finally:
                self._reading = False
        self._raise_if_ended()
        return self._incoming.popleft()

    async def _obey(self, message: Message) -> None:
        """A record of the link's own."""
        match message:
            case [_, 0, int(number)] if number >= 0:
                self._control(_PONG, number)
            case [_, 1, int(number)] if number == self._ping_number and self._ping_since is not None:
                self._ping_since = None
            case [_, 2, int(code), str(text)]:
                reason: TransportError
                if code == DuplicateLinkError.code:
                    reason = DuplicateLinkError("the peer keeps another link", peer_code=code)
                else:
                    reason = LinkClosedError(f"the peer closed the link: {clean_text(text)}", peer_code=code)
                await self._end(reason, tell=False)
            case [_, 3] if not self._adopted:
                self._adopted = True
            case _:
                await self._end(GarbageError("a control message that makes no sense"), tell=True)

    def adopt(self) -> None:
        """Tell the peer that this is the link that both sides keep."""
        self._adopted = True
        self._control(_ADOPTED)

    async def wait_adopted(self) -> None:
        """Return once the peer has said that this is the link that both sides keep.

        Raises:
            ChanneldError: the link ended before, with its reason.

        """
        while not self._adopted:
            message = await self._next()
            if message[0] != _CONTROL:
                await self._end(HandshakeError("a message before the link was adopted"), tell=True)
            else:
                await self._obey(message)
            self._raise_if_ended()

    # --- the end

    def _raise_if_ended(self) -> None:
        if self.reason is not None:
            raise self.reason.with_traceback(None)

    def _heartbeat(self) -> None:
        """Ping, or give up on an unanswered ping."""
        if self.reason is not None:
            return
        now = self._timers.now()
        if self._ping_since is None:
            self._ping_number += 1
            self._ping_since = now
            self._control(_PING, self._ping_number)
        elif not self._reading:
            self._ping_since = now  # the answer may be waiting for us: our own reader is busy
        elif now - self._ping_since >= self._limits.heartbeat_timeout:
            waited = f"{self._limits.heartbeat_timeout:g}"
            self._cut(SilentPeerError(f"the peer did not answer a heartbeat within {waited} s"))
            return
        self._timer = self._timers.call_later(self._limits.heartbeat_interval, self._heartbeat)

    def _stop(self, reason: ChanneldError) -> bool:
        """Record the reason, once; whether this was the first."""
        if self.reason is not None:
            return False
        self.reason = reason
        self._timer.cancel()
        self._wake.set()
        return True

    def _cut(self, reason: ChanneldError) -> None:
        """End at once, without waiting for anything; the rest is cleaned up by a task of its own."""
        if self._stop(reason):
            self._queue.clear()
            self._socket.abort()
            self._closer = asyncio.create_task(self._clean_up(fault=True), name=f"link-closer-{self.peer.hex()[:8]}")

    async def close(self, reason: ChanneldError | None = None) -> None:
        """End the link in order: what is queued is sent, then a goodbye with the reason. Idempotent.

        Args:
            reason: why; the peer is told its code and text. None for an ordinary end.

        """
        await self._end(reason or LinkClosedError("this side closed the link"), tell=True)

    async def _end(self, reason: ChanneldError, *, tell: bool) -> None:
        if self.reason is None:
            if tell:
                self._control(_GOODBYE, reason.code, str(reason)[:MAX_REASON])
            if self._stop(reason):
                fault = not isinstance(reason, LinkClosedError | DuplicateLinkError)
                self._closer = asyncio.create_task(
                    self._clean_up(fault=fault), name=f"link-closer-{self.peer.hex()[:8]}"
                )
        await self._finished.wait()

    async def _clean_up(self, *, fault: bool) -> None:
        """Let the writer finish within the limit, then end the connection."""
        try:
            await asyncio.wait({self._writer}, timeout=self._limits.close_timeout)
            if not self._writer.done():
                self._socket.abort()
                self._writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._writer
            await self._socket.close(self._limits.close_timeout, fault=fault)
        finally:
            self._finished.set()

    async def wait_closed(self) -> None:
        """Return once the link has ended and its connection is gone."""
        await self._finished.wait()


def _is_type(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _checked(record: bytes) -> Message:
    value = codec.decode(record, MAX_RECORD)
    if not isinstance(value, list) or not value or type(value[0]) is not int or value[0] < _CONTROL:
        raise GarbageError("a message must be an array that begins with its type")
    return value
