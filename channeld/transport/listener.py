"""The port on which peers connect.

Rules: a connection that has not proven who it is costs one of a bounded number of places, for a bounded time, counted
from the TCP connection on, and a bounded amount of memory; it learns nothing of this desk. No request is logged or
answered beyond what the WebSocket handshake needs.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, cast

from aiohttp import web

from channeld.core.errors import ChanneldError, InternalError
from channeld.transport.errors import (
    BadPeerConfigurationError,
    CrowdedError,
    HandshakeError,
    HandshakeTimeoutError,
    LinkBrokenError,
    TransportError,
)
from channeld.transport.handshake import Identity, Responder
from channeld.transport.link import FRAME_LIMIT, Limits, PeerLink, Socket
from channeld.transport.timers import LoopTimers, Timers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.web_protocol import RequestHandler

    from channeld.transport.noise import Session
    from channeld.transport.timers import Handle

PATH = "/"


class _Refuser(asyncio.Protocol):
    """The protocol of a connection for which there is no place: it is cut at once."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()

    def connection_lost(self, _error: BaseException | None) -> None:
        self._listener.gone(self)


class _Gate(web.Server):
    """aiohttp's low-level server, with a bound on the connections that have not proven who they are."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener.handle, access_log=None, keepalive_timeout=0, lingering_time=0)
        self._listener = listener

    def __call__(self) -> RequestHandler:
        if self._listener.crowded():
            refuser = _Refuser(self._listener)
            self._listener.opened(refuser)
            return cast("RequestHandler", refuser)
        handler = super().__call__()
        self._listener.opened(handler)
        self._listener.arrived(handler)
        return handler

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._listener.settled(handler)
        self._listener.gone(handler)


class Listener:
    """Accepts peers: `start`, then `on_link(link)` for each proven one, in a task of its own, until `stop`."""

    def __init__(
        self,
        identity: Identity,
        *,
        allowed: Callable[[bytes], bool],
        on_link: Callable[[PeerLink], Awaitable[object]],
        on_refused: Callable[[ChanneldError], None] = lambda _error: None,
        limits: Limits | None = None,
        timers: Timers | None = None,
    ) -> None:
        """Prepare; nothing is bound yet.

        Args:
            identity: this desk.
            allowed: whether a proven address (20 bytes) may connect; asked at each connection, so it may change.
            on_link: given each new link; the connection lives until it returns.
            on_refused: told why a connection was not let in; for logs and metrics.
            limits: the bounds.
            timers: clock and timers.

        """
        self._identity, self._allowed = identity, allowed
        self._on_link, self._on_refused = on_link, on_refused
        self._limits, self._timers = limits or Limits(), timers or LoopTimers()
        self._pending: dict[RequestHandler, Handle] = {}
        self._open: set[asyncio.BaseProtocol] = set()
        self._empty = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._gate: _Gate | None = None
        self.port = 0
        """The TCP port, once started."""

    @property
    def pending(self) -> int:
        """Connections that have not proven who they are."""
        return len(self._pending)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Bind and accept; port 0 takes a free one.

        Raises:
            BadPeerConfigurationError: the address cannot be bound.

        """
        self._gate = _Gate(self)
        try:
            self._server = await asyncio.get_running_loop().create_server(self._gate, host, port)
        except OSError as error:
            message = f"peers cannot be accepted at {host}:{port}: {error.strerror or error}"
            raise BadPeerConfigurationError(
                message, advice="Choose another peer port or address in the configuration, or stop what uses it."
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop accepting, cut what has not proven itself, and wait until all handlers are done."""
        if self._server is None or self._gate is None:
            return
        server, gate, self._server, self._gate = self._server, self._gate, None, None
        # asyncio drops, unclosed, what it has accepted but not yet given a transport when its server closes: stop
        # accepting first, and give what is on its way the turns of the loop in which it reaches the gate
        for listening in server.sockets:
            with contextlib.suppress(NotImplementedError):
                asyncio.get_running_loop().remove_reader(listening.fileno())
        for _ in range(3):
            await asyncio.sleep(0)
        server.close()
        for handler, timer in list(self._pending.items()):
            timer.cancel()
            _abort(handler)
        await gate.shutdown(self._limits.close_timeout)
        if self._open:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), self._limits.close_timeout)
        self._pending.clear()

    # --- the gate: every TCP connection passes here first

    def opened(self, protocol: asyncio.BaseProtocol) -> None:
        """A TCP connection of any kind."""
        self._open.add(protocol)

    def gone(self, protocol: asyncio.BaseProtocol) -> None:
        """Its end."""
        self._open.discard(protocol)
        if not self._open:
            self._empty.set()

    def crowded(self) -> bool:
        """Whether there is no place for one more connection; a listener that stops has none."""
        if self._server is None:
            return True
        if len(self._pending) < self._limits.max_pending:
            return False
        self._on_refused(CrowdedError(f"{len(self._pending)} connections have not proven who they are yet"))
        return True

    def arrived(self, handler: RequestHandler) -> None:
        """A TCP connection: it gets a place and a time limit."""
        self._pending[handler] = self._timers.call_later(self._limits.handshake_timeout, lambda: self._expire(handler))

    def settled(self, handler: RequestHandler) -> None:
        """A connection proved itself, or ended: its place is free."""
        timer = self._pending.pop(handler, None)
        if timer is not None:
            timer.cancel()

    def _expire(self, handler: RequestHandler) -> None:
        self._pending.pop(handler, None)
        self._on_refused(HandshakeTimeoutError("a connection did not prove who it is in time"))
        _abort(handler)

    # --- one request

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Upgrade to a WebSocket, prove both sides, hand over the link."""
        websocket = web.WebSocketResponse(
            timeout=self._limits.close_timeout, compress=False, max_msg_size=FRAME_LIMIT, autoping=True
        )
        if request.path != PATH or not websocket.can_prepare(request).ok:
            return web.Response(status=426, text="This is a channeld peer port; it speaks WebSocket at /.\n")
        try:
            await websocket.prepare(request)
        except ConnectionError:
            # it hung up between its request and our answer; a response that cannot be sent either ends this quietly
            return web.Response(status=400)
        socket = Socket(websocket, request.transport)
        handler = request.protocol
        try:
            address, session = await self._shake(socket)
        except Exception as error:  # noqa: BLE001 - a failing signer or allow-list costs this connection alone
            if handler in self._pending:  # else the time limit has spoken
                self._on_refused(error if isinstance(error, ChanneldError) else _internal(error))
            await socket.close(self._limits.close_timeout, fault=True)
            return websocket
        self.settled(handler)
        link = PeerLink(socket, session, address, limits=self._limits, timers=self._timers, dialed=False)
        try:
            await self._on_link(link)
        finally:
            await link.close()
        return websocket

    async def _shake(self, socket: Socket) -> tuple[bytes, Session]:
        """The responder's part of the handshake."""
        responder = Responder(self._identity)
        try:
            await socket.send(responder.greet(await socket.receive()))
            if responder.version_error is not None:
                raise responder.version_error
            try:
                address = responder.check(await socket.receive(), self._allowed)
            except TransportError as error:
                refusal = responder.refuse(error)
                if refusal is not None:
                    await socket.send(refusal)
                raise
            message, session = responder.prove()
            await socket.send(message)
        except LinkBrokenError as error:
            raise HandshakeError("the connection was lost during the handshake") from error
        return address, session


def _internal(error: Exception) -> InternalError:
    return InternalError(f"a handshake failed here: {type(error).__name__}: {error}")


def _abort(handler: RequestHandler) -> None:
    transport = handler.transport
    if transport is not None:
        transport.abort()
