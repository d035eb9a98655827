"""One live link per peer, kept alive: listens, dials, chooses among duplicates, tells the daemon.

Rules: between two desks the one with the lower address decides which link is kept, and says so in it ("adopts" it); the
other uses no link before that. A link that was adopted less than `settle_time` ago stands against a new one, an older
one gives way: two desks that dial each other at once keep one link, and a desk that comes back from a crash is not shut
out by a link that only one side still believes in. Callbacks for one peer run one after the other, in the order
connected, messages, lost; `on_lost` follows each `on_connected` exactly once. A peer's failure is its own.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import structlog

from channeld.core.crypto import ADDRESS_BYTES, checksum_address
from channeld.core.errors import ChanneldError, InternalError
from channeld.transport.dialer import Backoff, check_url, dial
from channeld.transport.errors import (
    BadPeerConfigurationError,
    DuplicateLinkError,
    HandshakeTimeoutError,
    LinkClosedError,
    NotAllowedError,
    NotConnectedError,
    TransportError,
)
from channeld.transport.link import Limits, PeerLink
from channeld.transport.listener import Listener
from channeld.transport.timers import Deadline, LoopTimers, Timers, pause

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from channeld.transport.handshake import Identity

# Links of one peer at a time, while one replaces another: a peer that opens more than these gains nothing by it.
_MAX_LINKS = 4

_log = structlog.get_logger(__name__)


@dataclass
class _Peer:
    """What the hub knows of one peer."""

    address: bytes
    url: str | None
    backoff: Backoff
    link: PeerLink | None = None  # the one that both sides keep
    active: PeerLink | None = None  # the one whose callbacks run: `link`, once its predecessor's `on_lost` is done
    adopted_at: float = 0.0
    idle: asyncio.Event = field(default_factory=asyncio.Event)  # set while no link is live
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # held by the link whose callbacks run
    dialer: asyncio.Task[None] | None = None
    last_error: ChanneldError | None = None


_TURN = 8


class PeerHub:
    """All links of one desk."""

    def __init__(
        self,
        identity: Identity,
        *,
        on_connected: Callable[[bytes], Awaitable[None] | None],
        on_message: Callable[[bytes, list[Any]], Awaitable[None] | None],
        on_lost: Callable[[bytes, ChanneldError], Awaitable[None] | None],
        limits: Limits | None = None,
        timers: Timers | None = None,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            identity: this desk.
            on_connected: (address) a link to this peer is up.
            on_message: (address, message) a message `[type, ...]` came. While it runs, nothing more is read from this
                peer. A ChanneldError that it raises ends the link, and the peer is told its code and text.
            on_lost: (address, reason) the link is down; the dialer is at it again.
            limits: the bounds of each link.
            timers: clock and timers.
            uniform: uniform in [0, 1), for jitter.

        """
        self._identity = identity
        self._on_connected, self._on_message, self._on_lost = on_connected, on_message, on_lost
        self._limits, self._timers, self._uniform = limits or Limits(), timers or LoopTimers(), uniform
        self._peers: dict[bytes, _Peer] = {}
        self._listener: Listener | None = None
        self._client: aiohttp.ClientSession | None = None
        self._serving: set[asyncio.Task[Any]] = set()
        self._links: set[PeerLink] = set()
        self._running = False

    # --- life

    @property
    def port(self) -> int:
        """The TCP port on which peers are accepted; 0 where none is."""
        return 0 if self._listener is None else self._listener.port

    async def start(self, host: str | None = "127.0.0.1", port: int = 0) -> None:
        """Accept peers at host:port (None: dial only) and dial those with a URL.

        Raises:
            BadPeerConfigurationError: the address cannot be bound.

        """
        self._client = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None), trust_env=False)
        if host is not None:
            listener = Listener(
                self._identity,
                allowed=self._peers.__contains__,
                on_link=self._serve,
                on_refused=lambda error: _log.info("peer refused", code=error.code, reason=str(error)),
                limits=self._limits,
                timers=self._timers,
            )
            try:
                await listener.start(host, port)
            except TransportError:
                await self._client.close()
                self._client = None
                raise
            self._listener = listener
        self._running = True
        for peer in self._peers.values():
            self._start_dialing(peer)

    async def stop(self) -> None:
        """Say goodbye to all, stop listening and dialing, and return when every task is done."""
        self._running = False
        farewell = LinkClosedError("this desk shuts down")
        peers = list(self._peers.values())
        dialers = [peer.dialer for peer in peers if peer.dialer is not None]
        await asyncio.gather(*(link.close(farewell) for link in self._links))
        current = asyncio.current_task()
        for task in dialers:
            if task not in self._serving:
                task.cancel()
        waiting = [task for task in {*dialers, *self._serving} if task is not current]
        if waiting:
            _, stuck = await asyncio.wait(waiting, timeout=self._limits.close_timeout)
            for task in stuck:
                task.cancel()
            await asyncio.gather(*stuck, return_exceptions=True)
        for peer in peers:
            peer.dialer = None
        if self._listener is not None:
            await self._listener.stop()
            self._listener = None
        if self._client is not None:
            await self._client.close()
            self._client = None

    # --- peers

    def add_peer(self, address: bytes, url: str | None = None) -> None:
        """Allow a peer, and dial it where it has a URL. A known peer gets the new URL.

        Raises:
            BadPeerConfigurationError: our own address, not 20 bytes, or no URL of a peer.

        """
        if len(address) != ADDRESS_BYTES or address == self._identity.address:
            raise BadPeerConfigurationError("a peer's address must be 20 bytes and not this desk's own")
        if url is not None:
            check_url(url)
        peer = self._peers.get(address)
        if peer is None:
            peer = self._peers[address] = _Peer(address, url, Backoff(self._uniform, cap=self._limits.reconnect_cap))
            peer.idle.set()
        elif peer.url != url:
            peer.url = url
            peer.backoff.reset()
            if peer.dialer is not None and peer.dialer not in self._serving:
                peer.dialer.cancel()
                peer.dialer = None
        if self._running:
            self._start_dialing(peer)

    async def remove_peer(self, address: bytes) -> None:
        """Forget a peer: no longer allowed nor dialed, its link closed. No error where it is unknown."""
        peer = self._peers.pop(address, None)
        if peer is None:
            return
        farewell = NotAllowedError("this desk has removed the peer")
        await asyncio.gather(*(link.close(farewell) for link in self._links if link.peer == address))
        peer.idle.set()
        if peer.dialer is not None and peer.dialer is not asyncio.current_task() and peer.dialer not in self._serving:
            peer.dialer.cancel()

    async def renew(self, address: bytes) -> None:
        """End the links to a peer; a new one follows as after any loss, and with it a new exchange."""
        farewell = LinkClosedError("a new session is wanted")
        await asyncio.gather(*(link.close(farewell) for link in self._links if link.peer == address))

    def peers(self) -> list[bytes]:
        """The addresses of all peers."""
        return list(self._peers)

    def connected(self, address: bytes) -> bool:
        """Whether messages can be sent to this peer now."""
        peer = self._peers.get(address)
        return peer is not None and peer.active is not None and peer.active.reason is None

    def last_error(self, address: bytes) -> ChanneldError | None:
        """Why the last attempt to dial this peer failed, or its last link was lost; None while all is well."""
        peer = self._peers.get(address)
        return None if peer is None else peer.last_error

    async def send(self, address: bytes, message: Sequence[Any]) -> None:
        """Queue `[type, ...]` for a peer; returns at once (see PeerLink.send).

        Raises:
            NotConnectedError: no live link; nothing was sent.
            SlowPeerError: the peer does not read; the link has ended.
            NotEncodableError: not a message that can travel.

        """
        await self._live(address).send(message)

    def post(self, address: bytes, record: bytes) -> None:
        """Queue a message that is encoded already (see PeerLink.post).

        Raises:
            as `send`.

        """
        self._live(address).post(record)

    def _live(self, address: bytes) -> PeerLink:
        peer = self._peers.get(address)
        if peer is None or peer.active is None or peer.active.reason is not None:
            raise NotConnectedError(f"{checksum_address(address)} is not connected", address=checksum_address(address))
        return peer.active

    # --- dialing

    def _start_dialing(self, peer: _Peer) -> None:
        if peer.url is not None and (peer.dialer is None or peer.dialer.done()):
            peer.dialer = asyncio.create_task(self._keep_dialing(peer), name=f"dialer-{peer.address.hex()[:8]}")

    def _wanted(self, peer: _Peer) -> bool:
        return self._running and self._peers.get(peer.address) is peer and peer.url is not None

    async def _keep_dialing(self, peer: _Peer) -> None:
        """Dial whenever there is no live link, until the peer is no longer wanted."""
        while True:
            await peer.idle.wait()
            if not self._wanted(peer) or self._client is None or peer.url is None:
                return
            try:
                link = await dial(
                    self._client,
                    peer.url,
                    self._identity,
                    peer.address,
                    limits=self._limits,
                    timers=self._timers,
                )
            except ChanneldError as error:
                peer.last_error = error
                _log.debug("dial failed", peer=checksum_address(peer.address), code=error.code, reason=str(error))
            except Exception as error:  # noqa: BLE001 - a failing signer: the dialer must outlive it
                peer.last_error = InternalError(f"dialing failed here: {type(error).__name__}: {error}")
                _log.exception("dial failed", peer=checksum_address(peer.address))
            else:
                if await self._serve(link):
                    peer.backoff.reset()
            if not self._wanted(peer):
                return
            await pause(self._timers, peer.backoff.next())

    # --- serving

    async def _serve(self, link: PeerLink) -> bool:
        """Run one link from its handshake to its end; whether it was adopted."""
        task = asyncio.current_task()
        if task is not None:
            self._serving.add(task)
        self._links.add(link)
        try:
            return await self._run(link)
        except ChanneldError as error:
            peer = self._peers.get(link.peer)
            if peer is not None and peer.link is None:
                peer.last_error = error
            await link.close(error)
            return False
        finally:
            if task is not None:
                self._serving.discard(task)
            self._links.discard(link)
            await link.close()

    async def _run(self, link: PeerLink) -> bool:
        peer = self._peers.get(link.peer)
        if peer is None or not self._running:
            raise NotAllowedError("this desk has removed the peer, or shuts down")
        if sum(other.peer == link.peer for other in self._links) > _MAX_LINKS:
            raise DuplicateLinkError("too many links to the same peer")
        await self._settle(peer, link)
        if self._peers.get(link.peer) is not peer or not self._running:
            raise NotAllowedError("this desk has removed the peer, or shuts down")
        old = peer.link
        peer.link = link
        peer.adopted_at = self._timers.now()
        peer.idle.clear()
        if old is not None:
            await old.close(DuplicateLinkError("a newer link to the same peer is kept"))
        try:
            async with peer.turn:
                if link.reason is None:
                    await self._run_callbacks(peer, link)
        finally:
            _release(peer, link, link.reason)
        return True

    async def _settle(self, peer: _Peer, link: PeerLink) -> None:
        """Return once both sides keep this link; raise where another is kept."""
        if self._identity.address < peer.address:
            fresh = self._timers.now() - peer.adopted_at < self._limits.settle_time
            if peer.link is not None and peer.link.reason is None and fresh:
                raise DuplicateLinkError("another link to the same peer is kept")
            link.adopt()
            return
        late = HandshakeTimeoutError("the peer did not adopt the link in time")
        async with Deadline(self._timers, self._limits.handshake_timeout, late):
            await link.wait_adopted()

    async def _run_callbacks(self, peer: _Peer, link: PeerLink) -> None:
        reason: ChanneldError
        peer.last_error = None
        peer.active = link
        try:
            await _call(self._on_connected, peer.address)
            handled = 0
            while True:
                message = await link.receive()
                await _call(self._on_message, peer.address, message)
                handled += 1
                if handled % _TURN == 0:
                    # a handler that waits for nothing would keep the loop from everybody else, commits included
                    await asyncio.sleep(0)
        except ChanneldError as error:
            reason = link.reason or error
        except Exception as error:  # noqa: BLE001 - a bug in a handler costs one link, not the daemon; it is logged
            _log.exception("a message handler failed", peer=checksum_address(peer.address))
            reason = InternalError(f"a message handler failed: {type(error).__name__}")
        except asyncio.CancelledError:
            await self._lost(peer, link, LinkClosedError("this desk shuts down"))
            raise
        await link.close(reason)
        await self._lost(peer, link, reason)

    async def _lost(self, peer: _Peer, link: PeerLink, reason: ChanneldError) -> None:
        peer.active = None
        _release(peer, link, reason)
        try:
            await _call(self._on_lost, peer.address, reason)
        except Exception:  # noqa: BLE001 - as above
            _log.exception("a handler of lost links failed", peer=checksum_address(peer.address))


def _release(peer: _Peer, link: PeerLink, reason: ChanneldError | None) -> None:
    """The link is no longer the one that is kept, if it was: the dialer may go on."""
    if peer.link is link:
        peer.link = None
        peer.last_error = reason
        peer.idle.set()


async def _call(callback: Callable[..., Awaitable[None] | None], *arguments: object) -> None:
    result = callback(*arguments)
    if inspect.isawaitable(result):
        await result
