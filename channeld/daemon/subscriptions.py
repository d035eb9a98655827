"""Subscriptions over a WebSocket: events from the durable record, in order, without gaps, from any sequence number on.

Rules: what is told is read from the store by its sequence number and never from memory, so that a subscriber that comes
back with the last number it has heard misses nothing and hears nothing twice. A slow reader holds up itself alone. A
token that is revoked, or over, hears nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from channeld.core.errors import ChanneldError
from channeld.daemon.limits import TooOftenError
from channeld.daemon.token_methods import event_row

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from channeld.daemon.node import Node

AT_ONCE = 500
MOST = 16
LOOK_S = 1.0


async def newest(node: Node) -> int:
    """The sequence number of the newest event, 0 where there is none."""
    low, step = 0, 1
    while await node.store.events(low + step - 1, 1):
        low, step = low + step, step * 2
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        if await node.store.events(middle - 1, 1):
            low = middle
        else:
            high = middle
    return low


class Subscriber:
    """One WebSocket's subscriptions."""

    def __init__(self, node: Node, socket: web.WebSocketResponse, allowed: Callable[[], Awaitable[None]]) -> None:
        """Nothing is told before `begin`. allowed: raises once the caller may hear nothing more."""
        self._node, self._socket, self._allowed = node, socket, allowed
        self._tasks: list[asyncio.Task[None]] = []
        self._prepared: list[tuple[int, int, bytes | None, frozenset[str]]] = []

    async def prepare(self, since: int, channel: str | None, kinds: list[str]) -> dict[str, Any]:
        """Take a subscription, to begin after its answer was sent. since: -1 for from now on.

        Raises:
            TooOftenError: there are too many on this WebSocket.
        """
        number = len(self._tasks) + len(self._prepared) + 1
        if number > MOST:
            raise TooOftenError(f"a WebSocket carries at most {MOST} subscriptions")
        begin = await newest(self._node) if since < 0 else since
        self._prepared.append((number, begin, bytes.fromhex(channel) if channel else None, frozenset(kinds)))
        return {"subscription": number, "since": begin}

    def begin(self) -> None:
        """Tell what was prepared."""
        while self._prepared:
            self._tasks.append(asyncio.create_task(self._feed(*self._prepared.pop(0))))

    async def _feed(self, number: int, since: int, channel: bytes | None, kinds: frozenset[str]) -> None:
        node = self._node
        with contextlib.suppress(ConnectionError, RuntimeError):
            while not self._socket.closed:
                try:
                    await self._allowed()
                    found = await node.store.events(since, AT_ONCE, channel)
                except ChanneldError as error:
                    await self._tell(number, error=error.as_data())
                    await self._socket.close()
                    return
                for event in found:
                    since = event.sequence
                    if not kinds or event.kind in kinds:
                        await self._tell(number, event=event_row(event))
                if not found:
                    # an event that comes between the look and this wait is found within a second
                    await node.news(LOOK_S)

    async def _tell(self, number: int, **what: object) -> None:
        told = {"jsonrpc": "2.0", "method": "subscription", "params": {"subscription": number, **what}}
        await self._socket.send_str(json.dumps(told, default=str))

    async def stop(self) -> None:
        """End."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self._socket.closed:
            await self._socket.close()
