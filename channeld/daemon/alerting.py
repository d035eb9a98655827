"""Alerts brought to people: a webhook and a command, each with its own queue, severity and patience.

Rules: an alert is recorded before it is brought anywhere, and bringing it stops nothing else. Each way has a queue of
MOST_WAITING; the most severe goes first, then the oldest; of a full one the oldest of the least severe is dropped, and
counted. A failure is tried again with growing pauses, MOST_TRIES times; what the other end refuses for good is not. A
webhook's URL is a secret: no message and no log shows more of it than its host. A command is started without a shell
and without the daemon's own variables (CHANNELD_*).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import aiohttp
import structlog

from channeld.core.errors import Fault, SetupError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from channeld.daemon.operator_settings import AlertSettings

log = structlog.get_logger(__name__)

SEVERITIES = ("info", "warning", "critical")
MOST_WAITING = 256
MOST_TRIES = 10
MOST_PAUSE_S = 60.0
TRY_AGAIN = frozenset({408, 425, 429})
MOST_WORDS = 2_000


class AlertDeliveryError(SetupError):
    """An alert could not be brought to where it should go."""

    code = 1270
    fault = Fault.USER
    advice = "Check alerts.webhook or alerts.command; `channeld alerts test` sends one and says what happens."


class Way(Protocol):
    """How alerts leave. `final` errors are not tried again."""

    name: str

    async def bring(self, alert: Mapping[str, Any]) -> None:
        """Bring one alert.

        Raises:
            AlertDeliveryError: it did not arrive; `final` in its details where trying again is of no use.
        """


class Webhook:
    """POST of a JSON object; `text` is there for chat services that show that field."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """Keep the URL to itself.

        Raises:
            AlertDeliveryError: it is none.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise AlertDeliveryError("alerts.webhook is no http:// or https:// URL")
        self._url, self._timeout = url, aiohttp.ClientTimeout(total=timeout_s)
        self.name = f"webhook {parts.hostname}"

    async def bring(self, alert: Mapping[str, Any]) -> None:
        """See Way."""
        body = json.dumps({"text": _text(alert), **alert}, default=str)
        headers = {"Content-Type": "application/json"}
        try:
            async with (
                aiohttp.ClientSession(timeout=self._timeout, trust_env=True) as session,
                session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            # their texts may hold the URL
            raise AlertDeliveryError(f"{self.name}: {type(error).__name__}") from None
        if not 200 <= status < 300:
            final = 300 <= status < 500 and status not in TRY_AGAIN
            raise AlertDeliveryError(f"{self.name} answers {status}", final=final)


class Command:
    """A program of the desk's own."""

    def __init__(self, line: str, timeout_s: float) -> None:
        """Take the line apart as a shell would; no shell starts it.

        Raises:
            AlertDeliveryError: it cannot be taken apart.
        """
        try:
            self._words, self._timeout_s = shlex.split(line), timeout_s
        except ValueError as error:
            raise AlertDeliveryError(f"alerts.command cannot be read: {error}") from None
        if not self._words:
            raise AlertDeliveryError("alerts.command names no program")
        self.name = f"command {self._words[0]}"

    async def bring(self, alert: Mapping[str, Any]) -> None:
        """See Way."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("CHANNELD_")}
        nowhere = asyncio.subprocess.DEVNULL
        try:
            child = await asyncio.create_subprocess_exec(
                *self._words, stdin=asyncio.subprocess.PIPE, stdout=nowhere, stderr=nowhere, env=kept
            )
        except OSError as error:
            raise AlertDeliveryError(f"{self.name} cannot be started: {error.strerror}", final=True) from error
        try:
            async with asyncio.timeout(self._timeout_s):
                await child.communicate(json.dumps(alert, default=str).encode() + b"\n")
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
            if isinstance(error, TimeoutError):
                raise AlertDeliveryError(f"{self.name} did not end within {self._timeout_s:g} s") from error
            raise
        if child.returncode:
            raise AlertDeliveryError(f"{self.name} ended with status {child.returncode}")


def _text(alert: Mapping[str, Any]) -> str:
    return f"[{alert.get('severity')}] {alert.get('desk')}: {alert.get('message')}"


@dataclass
class Queue:
    """The alerts that wait for one way, and how it went so far."""

    way: Way
    least: str
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    waiting: list[dict[str, Any]] = field(default_factory=list)
    delivered: int = 0
    dropped: int = 0
    trouble: str = ""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def offer(self, alert: dict[str, Any]) -> None:
        """Put an alert in line, where it is severe enough."""
        if _rank(alert) < SEVERITIES.index(self.least):
            return
        if len(self.waiting) >= MOST_WAITING:
            self.waiting.remove(min(self.waiting, key=_rank))
            self.dropped += 1
        self.waiting.append(alert)
        self._news.set()

    async def run(self) -> None:
        """Bring what waits, for ever."""
        while True:
            while not self.waiting:
                self._news.clear()
                await self._news.wait()
            alert = max(self.waiting, key=_rank)
            self.waiting.remove(alert)
            await self._bring(alert)

    async def _bring(self, alert: dict[str, Any]) -> None:
        for tried in range(MOST_TRIES):
            try:
                await self.way.bring(alert)
            except AlertDeliveryError as error:
                self.trouble = str(error)
                log.warning("an alert was not delivered", way=self.way.name, tried=tried + 1, why=str(error))
                if error.details.get("final"):
                    break
                await self.pause(min(2.0**tried, MOST_PAUSE_S))
            else:
                self.delivered += 1
                self.trouble = ""
                return
        self.dropped += 1

    def data(self) -> dict[str, Any]:
        """What people see of it."""
        return {
            "way": self.way.name,
            "severity": self.least,
            "waiting": len(self.waiting),
            "delivered": self.delivered,
            "dropped": self.dropped,
            "trouble": self.trouble,
        }


def _rank(alert: Mapping[str, Any]) -> int:
    severity = alert.get("severity")
    return SEVERITIES.index(severity) if severity in SEVERITIES else SEVERITIES.index("warning")


class Alerting:
    """All ways of one desk."""

    def __init__(
        self,
        settings: AlertSettings,
        desk: str,
        now_ms: Callable[[], int],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Nothing is brought before `run`."""
        self._desk, self._now_ms = desk, now_ms
        self.queues: list[Queue] = []
        if settings.webhook:
            self.queues.append(Queue(Webhook(settings.webhook, settings.timeout), settings.webhook_severity, pause))
        if settings.command:
            self.queues.append(Queue(Command(settings.command, settings.timeout), settings.command_severity, pause))

    def offer(self, alert: Mapping[str, Any]) -> None:
        """Have an alert brought wherever it should go. Returns at once."""
        whole = {"desk": self._desk, **alert, "message": str(alert.get("message", ""))[:MOST_WORDS]}
        for queue in self.queues:
            queue.offer(whole)

    async def run(self) -> None:
        """Bring what waits, on every way, for ever."""
        await asyncio.gather(*(queue.run() for queue in self.queues))

    async def test(self, severity: str) -> list[dict[str, Any]]:
        """Send a test alert by every way now, whatever waits, once; how it went."""
        message = "a test: this desk's alerts arrive here"
        alert = {"desk": self._desk, "time_ms": self._now_ms(), "severity": severity, "message": message, "test": True}

        async def one(queue: Queue) -> dict[str, Any]:
            told: dict[str, Any] = {"way": queue.way.name, "severity": queue.least}
            if _rank(alert) < SEVERITIES.index(queue.least):
                return {**told, "outcome": "not severe enough"}
            try:
                await queue.way.bring(alert)
            except AlertDeliveryError as error:
                return {**told, "outcome": "failed", "error": str(error)}
            return {**told, "outcome": "delivered"}

        return list(await asyncio.gather(*(one(queue) for queue in self.queues)))

    def data(self) -> list[dict[str, Any]]:
        """The ways, and how they are."""
        return [queue.data() for queue in self.queues]
