"""Clocks: the system's, and that of a devnet, which all processes on it share.

Rules: times are Unix milliseconds. Reading a clock is synchronous and never waits. A devnet clock is the system's
plus an offset; the offset is learnt by a long poll in the background, so that a jump arrives within milliseconds, and
it never falls. Processes of one devnet run on one machine (or on machines whose system clocks agree). This module must
not import web3.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Protocol, Self, runtime_checkable

import aiohttp

from channeld.chain.errors import ChainUnreachableError, ClockStoppedError, MalformedResponseError

LONG_POLL_S = 25.0
_RETRY_S = 0.25


@runtime_checkable
class Clock(Protocol):
    """What tells the time, and waits for one."""

    def now_ms(self) -> int:
        """The time now, Unix milliseconds."""
        ...

    async def wait_until(self, ms: int) -> None:
        """Return once now_ms() >= ms (Unix milliseconds); at once where it is already."""
        ...


def system_ms() -> int:
    """The system's time, Unix milliseconds."""
    return time.time_ns() // 1_000_000


class SystemClock:
    """The system's clock."""

    def now_ms(self) -> int:
        """The system's time, Unix milliseconds."""
        return system_ms()

    async def wait_until(self, ms: int) -> None:
        """Return once the system's time is at or past `ms` (Unix milliseconds)."""
        while (left := ms - self.now_ms()) > 0:  # noqa: ASYNC110 - nothing sets an event when time passes
            # in slices: a laptop that slept wakes late by one slice at most
            await asyncio.sleep(min(left / 1000, 30.0))


class DevnetClock:
    """The clock of a devnet at `url`: system time plus its offset. Use as an async context, or start() and stop()."""

    def __init__(self, url: str) -> None:
        """Name the devnet's JSON-RPC URL; nothing is asked before start()."""
        self._url = url
        self._offset_ms: int | None = None
        self._revision = -1
        self._jumped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    @property
    def offset_ms(self) -> int:
        """The devnet's offset from the system's clock, milliseconds.

        Raises:
            ClockStoppedError: before start().

        """
        if self._offset_ms is None:
            message = f"the clock of the devnet at {self._url} was read before it was started"
            raise ClockStoppedError(message)
        return self._offset_ms

    def now_ms(self) -> int:
        """The devnet's time, Unix milliseconds.

        Raises:
            ClockStoppedError: before start().

        """
        return system_ms() + self.offset_ms

    async def wait_until(self, ms: int) -> None:
        """Return once the devnet's time is at or past `ms` (Unix milliseconds), by passing or by a jump."""
        while (left := ms - self.now_ms()) > 0:
            jumped = self._jumped
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(jumped.wait(), min(left / 1000, 30.0))

    async def wait_jump(self) -> None:
        """Return at the next change of the offset."""
        await self._jumped.wait()

    async def start(self) -> None:
        """Read the offset and follow it in the background. A second call does nothing.

        Raises:
            ChainUnreachableError: no devnet answers at the URL.
            MalformedResponseError: what answers is no channeld devnet.

        """
        if self._task is not None:
            return
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LONG_POLL_S + 10))
        try:
            self._learn(await self._ask("channeld_clock", []))
        except BaseException:
            await self._session.close()
            self._session = None
            raise
        self._task = asyncio.create_task(self._follow(), name="devnet-clock")

    async def stop(self) -> None:
        """Stop following. The clock goes on with the offset it has."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def refresh(self) -> None:
        """Read the offset once more, now: for callers that have just moved the clock themselves."""
        self._learn(await self._ask("channeld_clock", []))

    async def _ask(self, method: str, params: list[Any]) -> dict[str, Any]:
        if self._session is None:
            message = f"the clock of the devnet at {self._url} is stopped"
            raise ClockStoppedError(message)
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        try:
            async with self._session.post(self._url, json=request) as response:
                answer = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            message = f"no devnet answers at {self._url}: {error or type(error).__name__}"
            raise ChainUnreachableError(message) from error
        except (ValueError, RecursionError) as error:
            message = f"{self._url} does not answer in JSON"
            raise MalformedResponseError(message) from error
        result = answer.get("result") if isinstance(answer, dict) else None
        if not isinstance(result, dict) or not all(isinstance(result.get(k), int) for k in ("offset_ms", "revision")):
            message = f"{self._url} is not a channeld devnet: it does not answer {method}"
            raise MalformedResponseError(message)
        return result

    def _learn(self, clock: dict[str, Any]) -> None:
        offset, self._revision = int(clock["offset_ms"]), int(clock["revision"])
        if self._offset_ms is None or offset > self._offset_ms:
            self._offset_ms = offset
            self._jumped.set()
            self._jumped = asyncio.Event()

    async def _follow(self) -> None:
        delay = _RETRY_S
        while True:
            try:
                self._learn(await self._ask("channeld_waitClock", [self._revision, LONG_POLL_S]))
                delay = _RETRY_S
            except (ChainUnreachableError, MalformedResponseError):
                # the devnet restarts or is gone: keep the offset, ask again, less and less often; its revisions
                # may have begun anew, so ask for any
                self._revision = -1
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5.0)
