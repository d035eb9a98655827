"""What the tests of links share: desks with keys, timers that tests fire, raw sockets, whole handshakes in memory."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import aiohttp

from channeld.core.crypto import address_of, keccak256, sign_digest
from channeld.transport.dialer import dial
from channeld.transport.handshake import Identity, Initiator, Responder
from channeld.transport.link import Limits
from channeld.transport.listener import Listener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from channeld.transport.link import PeerLink

WAIT = 30.0


def desk(role: str, **changes: object) -> Identity:
    """The identity of a role; its keys follow from its name."""
    key = keccak256(role.encode())
    fields = {
        "address": address_of(key),
        "static": keccak256(b"static " + role.encode()),
        "sign": partial(sign_digest, key),
    }
    return Identity(**{**fields, **changes})


MAKER, TAKER, CHEATER = desk("maker"), desk("taker"), desk("cheater")
LOW, HIGH = sorted((MAKER, TAKER), key=lambda identity: identity.address)


class ManualTimers:
    """Timers that fire when the test says so."""

    def __init__(self) -> None:
        self.time = 100.0
        self._heap: list = []
        self._order = itertools.count()

    def now(self) -> float:
        return self.time

    def call_later(self, delay: float, callback: Callable[[], object]) -> _Handle:
        handle = _Handle()
        heapq.heappush(self._heap, (self.time + delay, next(self._order), handle, callback))
        return handle

    def delays(self) -> list[float]:
        """Seconds until each timer that is set."""
        return sorted(at - self.time for at, _, handle, _ in self._heap if not handle.cancelled)

    def advance(self, seconds: float) -> None:
        """Fire what falls due, in order."""
        end = self.time + seconds
        while self._heap and self._heap[0][0] <= end:
            self.time, _, handle, callback = heapq.heappop(self._heap)
            if not handle.cancelled:
                callback()
        self.time = end


class _Handle:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


async def soon(awaitable):
    """The result, which must come in time."""
    async with asyncio.timeout(WAIT):
        return await awaitable


class Stage:
    """A listener whose links, refusals and closings a test can wait for, and a client to dial it."""

    def __init__(self, responder: Identity, allowed: set[bytes], limits: Limits, timers: object) -> None:
        self.allowed, self.limits, self.timers = allowed, limits, timers
        self.all: list[PeerLink] = []
        self.links: asyncio.Queue[PeerLink] = asyncio.Queue()
        self.refused: asyncio.Queue = asyncio.Queue()
        self.listener = Listener(
            responder,
            allowed=lambda address: address in self.allowed,
            on_link=self._on_link,
            on_refused=self.refused.put_nowait,
            limits=limits,
            timers=timers,
        )
        self.client: aiohttp.ClientSession

    async def _on_link(self, link: PeerLink) -> None:
        self.all.append(link)
        self.links.put_nowait(link)
        await link.wait_closed()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.listener.port}"

    async def dial(self, identity: Identity = MAKER, expected: bytes = TAKER.address) -> PeerLink:
        link = await soon(dial(self.client, self.url, identity, expected, limits=self.limits, timers=self.timers))
        self.all.append(link)
        return link

    async def pair(self, identity: Identity = MAKER) -> tuple[PeerLink, PeerLink]:
        """Both ends of a link: dialing side, listening side."""
        return await self.dial(identity), await soon(self.links.get())


@asynccontextmanager
async def stage(
    *, responder: Identity = TAKER, allowed: set[bytes] | None = None, limits: Limits | None = None, timers=None
) -> AsyncIterator[Stage]:
    timers = timers or ManualTimers()
    it = Stage(responder, {MAKER.address} if allowed is None else allowed, limits or Limits(close_timeout=0.05), timers)
    await it.listener.start()
    before = asyncio.all_tasks()
    async with aiohttp.ClientSession() as it.client:
        try:
            yield it
        finally:
            await soon(asyncio.gather(*(link.close() for link in it.all)))
            await soon(it.listener.stop())
    left = [task for task in asyncio.all_tasks() - before if not task.done()]
    if left:
        await asyncio.wait(left, timeout=WAIT)
    assert not [task for task in left if not task.done()]


def shake(initiator: Initiator, responder: Responder, allowed: Callable[[bytes], bool] = lambda _: True):
    """A whole handshake in memory: both sessions."""
    third = initiator.prove(responder.greet(initiator.hello()))
    responder.check(third, allowed)
    fourth, session = responder.prove()
    return initiator.finish(fourth), session
