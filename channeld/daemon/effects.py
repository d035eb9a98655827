"""The order of effects: durable first, then told. One queue a channel, so that one fsync serves all that waits.

Rules: effects are carried out in the order in which they were queued; all writes that were queued before a message are
durable before it leaves. While a commit runs, what comes after it gathers, and the next commit takes all of it: under
load the commits grow, not the waiting. Where a commit fails, nothing queued leaves any more, ever: what is in memory
may be ahead of the disk, so the owner freezes the channel. Waiting callers are held back once too much is queued.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from channeld.core.errors import ChanneldError, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from channeld.core import records, wire

log = structlog.get_logger(__name__)

MOST_QUEUED = 4_096


@dataclass
class EffectQueue:
    """The effects of one channel on their way out.

    commit: makes writes durable, all or none. send: gives a message to the session. failed: told once, when a commit
    failed; after it the queue swallows what it is given.
    """

    commit: Callable[[Sequence[records.Write]], Awaitable[object]]
    send: Callable[[wire.Message], Awaitable[None]]
    failed: Callable[[StoreError], Awaitable[None]]
    error: StoreError | None = None
    _writes: list[records.Write] = field(default_factory=list)
    _later: list[wire.Message | Callable[[], Awaitable[None]]] = field(default_factory=list)
    _task: asyncio.Task[None] | None = None
    _room: asyncio.Event = field(default_factory=asyncio.Event)

    def persist(self, writes: Sequence[records.Write]) -> None:
        """Make records durable before anything queued later is done."""
        if self.error is None:
            self._writes.extend(writes)
            self._wake()

    def tell(self, message: wire.Message) -> None:
        """Send a message once all that was queued before it is durable."""
        if self.error is None:
            self._later.append(message)
            self._wake()

    def then(self, action: Callable[[], Awaitable[None]]) -> None:
        """Do something else once all that was queued before it is durable."""
        if self.error is None:
            self._later.append(action)
            self._wake()

    def _wake(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._run())

    async def room(self) -> None:
        """Wait while too much is queued: whoever feeds faster than the disk writes is held back here."""
        while len(self._later) + len(self._writes) > MOST_QUEUED and self.error is None:
            self._room.clear()
            await self._room.wait()

    async def drained(self) -> None:
        """Wait until everything queued so far has been carried out, or has failed."""
        while self._task is not None and not self._task.done():
            await asyncio.shield(self._task)

    async def _run(self) -> None:
        while self._writes or self._later:
            writes, self._writes = self._writes, []
            later, self._later = self._later, []
            if writes:
                try:
                    await self.commit(writes)
                except StoreError as error:
                    self.error = error
                    self._writes, self._later = [], []
                    self._room.set()
                    await self.failed(error)
                    return
            for item in later:
                try:
                    await (item() if callable(item) else self.send(item))
                except ChanneldError as error:
                    # what is durable is durable: a message that could not leave is healed by the next exchange
                    log.warning("an effect failed", code=error.code, why=str(error))
            self._room.set()
