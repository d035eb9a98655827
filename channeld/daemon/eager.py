"""Coroutines carried on at once, as far as they go without waiting.

Rules: most work of a channel waits for nothing: the signer's record is known, the prices are at hand. Such work is done
when it is called, without a task of its own. Whatever has to wait goes on as a task; what it waits for must then not be
tied to the caller's task, so anything with a time limit (`asyncio.timeout`, HTTP) belongs into a task of its own.
"""

from __future__ import annotations

import asyncio
import types
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import structlog

from channeld.core.errors import ChanneldError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Begun(Generic[T]):
    """Work that has been carried on until it first waited, or to its end."""

    __slots__ = ("_first", "_work", "done", "error", "value")

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        """Carry the work on until it waits."""
        self.done = True
        self.value: T | None = None
        self.error: BaseException | None = None
        self._work = work
        self._first: Any = None
        try:
            self._first = work.send(None)
        except StopIteration as end:
            self.value = end.value
        except Exception as error:  # noqa: BLE001 - given to whoever asks for the result
            self.error = error
        else:
            self.done = False

    def result(self) -> T:
        """What work that is done gave, or raised."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]

    async def rest(self) -> T:
        """The remainder of work that waits; for a task."""
        found: T = await _resumed(self._work, self._first)
        return found


@types.coroutine
def _resumed(work: Coroutine[Any, Any, T], first: Any) -> Generator[Any, Any, T]:  # noqa: ANN401 - a future
    """Go on with a coroutine that has yielded `first`."""
    waiting = first
    while True:
        try:
            answer = yield waiting
        except BaseException as error:  # noqa: BLE001 - a cancellation too is the coroutine's to handle
            try:
                waiting = work.throw(error)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
        else:
            try:
                waiting = work.send(answer)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]


def _logged(task: asyncio.Task[Any]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        _log(error)


def _log(error: BaseException) -> None:
    if isinstance(error, ChanneldError):
        log.warning("work in the background was refused", code=error.code, why=str(error))
    else:
        log.error("work in the background failed", exc_info=error)


class Background:
    """Tasks that are carried to their end whatever becomes of their caller."""

    def __init__(self) -> None:
        """None yet."""
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> None:
        """Carry work on at once, and on its own where it waits. Its errors have nobody to go to but the log."""
        begun = Begun(work)
        if not begun.done:
            self._keep(begun.rest()).add_done_callback(_logged)
        elif begun.error is not None:
            _log(begun.error)

    async def whole(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of work that goes on although the caller may be cancelled."""
        begun = Begun(work)
        if begun.done:
            return begun.result()
        return await asyncio.shield(self._keep(begun.rest()))

    def _keep(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # taken, so that a caller who has gone does not leave a complaint of the loop

    async def finish(self) -> None:
        """Wait for what has begun; for shutdown."""
        while self._running:
            await asyncio.gather(*self._running, return_exceptions=True)
