"""Time for links: a monotonic clock and timers, injected so that tests decide when they fire.

Rules: links live in real, monotonic time, also on a devnet whose clock is moved. Nothing here sleeps in a loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from channeld.transport.errors import TransportError


class Handle(Protocol):
    """A timer that can be called off."""

    def cancel(self) -> None:
        """Call the timer off; no effect once it has fired."""


class Timers(Protocol):
    """A monotonic clock in seconds, and timers on it."""

    def now(self) -> float:
        """Seconds since an arbitrary beginning."""

    def call_later(self, delay: float, callback: Callable[[], object]) -> Handle:
        """Call `callback` once, `delay` seconds from now."""


class LoopTimers:
    """The running event loop's own clock and timers."""

    def now(self) -> float:
        """The event loop's monotonic time in seconds."""
        return asyncio.get_running_loop().time()

    def call_later(self, delay: float, callback: Callable[[], object]) -> Handle:
        """Call `callback` once, `delay` seconds from now, in the running loop."""
        return asyncio.get_running_loop().call_later(delay, callback)


async def pause(timers: Timers, delay: float) -> None:
    """Return `delay` seconds later."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fire() -> None:
        if not done.done():
            done.set_result(None)

    handle = timers.call_later(delay, fire)
    try:
        await done
    finally:
        handle.cancel()


class Deadline:
    """`async with Deadline(timers, seconds, error):` raises `error` where the body takes longer."""

    def __init__(self, timers: Timers, seconds: float, error: TransportError) -> None:
        """Bound the body by `seconds` on `timers`."""
        self._timers, self._seconds, self._error = timers, seconds, error
        self._expired = False

    async def __aenter__(self) -> Self:
        """Start the timer."""
        task = asyncio.current_task()
        if task is None:
            message = "a deadline needs a task"
            raise RuntimeError(message)
        self._task, self._cancelling = task, task.cancelling()
        self._handle = self._timers.call_later(self._seconds, self._expire)
        return self

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the timer; turn its cancellation, and no other, into the error."""
        self._handle.cancel()
        # uncancel also where the body ended by another error in the same instant: the request was ours
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self._error from value
