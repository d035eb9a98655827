"""Reaching a peer: one attempt, and the pauses between attempts.

Rules: an attempt ends within its time limit, in a link to exactly the expected signer or in one typed error. Pauses
grow, are capped, and are jittered so that desks that lost each other do not come back in step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp

from channeld.transport.errors import (
    BadPeerConfigurationError,
    HandshakeError,
    HandshakeTimeoutError,
    LinkBrokenError,
    UnreachableError,
)
from channeld.transport.handshake import Identity, Initiator
from channeld.transport.link import FRAME_LIMIT, Limits, PeerLink, Socket
from channeld.transport.timers import Deadline, LoopTimers, Timers

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from channeld.transport.noise import Session


@dataclass
class Backoff:
    """The pauses between failed attempts: full in the cap, half of it random.

    Attributes:
        random: uniform in [0, 1).
        base: the first pause, in seconds, before jitter.
        cap: the longest.

    """

    random: Callable[[], float]
    base: float = 0.25
    cap: float = 30.0
    failures: int = 0

    def next(self) -> float:
        """Seconds to wait after one more failure: between half and all of min(cap, base * 2**failures)."""
        full = min(self.cap, self.base * 2.0 ** min(self.failures, 32))
        self.failures += 1
        return full * (0.5 + 0.5 * self.random())

    def reset(self) -> None:
        """An attempt succeeded."""
        self.failures = 0


def check_url(url: str) -> str:
    """A peer's URL, if it is one: ws://host:port.

    Raises:
        BadPeerConfigurationError: it is not.

    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:
        valid = False
    if not valid:
        raise BadPeerConfigurationError(f"{url!r} is not a peer's URL such as ws://host:9735")
    return url


async def dial(
    client: aiohttp.ClientSession,
    url: str,
    identity: Identity,
    expected: bytes,
    *,
    limits: Limits | None = None,
    timers: Timers | None = None,
) -> PeerLink:
    """One attempt to reach the signer `expected` (20 bytes) at `url`.

    Raises:
        BadPeerConfigurationError: no URL.
        UnreachableError: no WebSocket there.
        HandshakeTimeoutError: no finished handshake in time.
        HandshakeError, VersionMismatchError, IdentityError, WrongPeerError, RefusedError: see handshake.py.

    """
    limits, timers = limits or Limits(), timers or LoopTimers()
    check_url(url)
    late = HandshakeTimeoutError(f"{url} did not finish the handshake within {limits.handshake_timeout:g} s", url=url)
    async with Deadline(timers, limits.handshake_timeout, late):
        socket = await _connect(client, url, limits)
        done = False
        try:
            session = await _shake(socket, identity, expected)
            done = True
        except LinkBrokenError as error:
            raise HandshakeError(f"{url} closed the connection during the handshake", url=url) from error
        finally:
            if not done:
                socket.abort()
                await socket.close(limits.close_timeout, fault=True)
    return PeerLink(socket, session, expected, limits=limits, timers=timers, dialed=True)


async def _connect(client: aiohttp.ClientSession, url: str, limits: Limits) -> Socket:
    try:
        websocket = await client.ws_connect(
            url,
            compress=0,
            max_msg_size=FRAME_LIMIT,
            timeout=aiohttp.ClientWSTimeout(ws_receive=None, ws_close=limits.close_timeout),
        )
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise UnreachableError(f"{url} cannot be reached: {error}", url=url) from error
    return Socket(websocket, _transport_of(websocket))


def _transport_of(websocket: aiohttp.ClientWebSocketResponse) -> asyncio.BaseTransport | None:
    """The TCP transport: aiohttp has no public way to cut a connection whose peer does not read."""
    connection = websocket._response.connection  # noqa: SLF001 - see above
    return None if connection is None else connection.transport


async def _shake(socket: Socket, identity: Identity, expected: bytes) -> Session:
    """The initiator's part of the handshake."""
    initiator = Initiator(identity, expected)
    await socket.send(initiator.hello())
    greeting = await socket.receive()
    if identity.wallet is None:
        await socket.send(initiator.prove(greeting))
    else:
        await socket.send(initiator.proven(await identity.wallet(initiator.asks_wallet(greeting))))
    return initiator.finish(await socket.receive())
