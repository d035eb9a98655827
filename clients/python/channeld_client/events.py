"""Events of a desk, in order, each once, across whatever happens to the connection.

Rules: every event has a number, `seq`, that rises and is never used twice. A stream remembers the last one that it has
heard; after a break it asks for what comes after that, and drops what it has heard already. Where it begins is fixed
once, so that nothing between is missed either. A daemon whose record ends before what was heard runs on an older copy,
and that is an error, since silence would be a gap. A token that is revoked ends the stream with the daemon's own error.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import aiohttp

from channeld_client.errors import ClientError, DaemonError, EventsLostError, NoDaemonError, TooOftenError, daemon_error
from channeld_client.requests import Pauses, encoded, result_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from channeld_client.desk import Desk

HEARTBEAT_S = 20.0
ANSWER_S = 30.0
# a kind that no event has
NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Event:
    """One event. time_ms: Unix milliseconds. data: what docs/api.md lists for its kind."""

    seq: int
    time_ms: int
    kind: str
    channel: str | None
    data: dict[str, Any]


def event_of(row: dict[str, Any]) -> Event:
    """An event from its row."""
    rest = {key: value for key, value in row.items() if key not in {"seq", "time_ms", "kind", "channel"}}
    return Event(int(row["seq"]), int(row["time_ms"]), str(row["kind"]), row.get("channel"), rest)


class EventStream:
    """An async iterator over a desk's events; `async with desk.events() as stream: async for event in stream: ...`."""

    def __init__(
        self,
        desk: Desk,
        *,
        since: int | None,
        channel: str | None,
        kinds: Sequence[str],
        random: Callable[[], float],
        give_up_after_s: float | None,
    ) -> None:
        """Nothing is opened before it is entered. since: None for from now on."""
        self._desk, self._channel, self._kinds = desk, channel, list(kinds)
        self._last = since
        self._pauses = Pauses(random)
        self._give_up_after_s = give_up_after_s
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._early: deque[dict[str, Any]] = deque()
        self._closed = False
        self.connections = 0
        """How often a connection was made; one, where nothing ever broke."""

    @property
    def last(self) -> int:
        """The number of the last event heard, or where the stream began: give it as `since` to go on from here."""
        return self._last or 0

    async def __aenter__(self) -> Self:
        """Connect, and fix where the stream begins.

        Raises:
            ClientError: it cannot be had.
        """
        await self._connected()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End."""
        await self.close()

    async def close(self) -> None:
        """End the stream; whoever waits for an event is told that there is none."""
        self._closed = True
        await self._drop()

    def __aiter__(self) -> Self:
        """Itself."""
        return self

    async def __anext__(self) -> Event:
        """The next event, once it happens.

        Raises:
            EventsLostError: the daemon has older records than what was heard.
            DaemonError: the token is revoked, or over.
            NoDaemonError: the daemon did not come back within `give_up_after_s`.
        """
        while not self._closed:
            try:
                row = await self._row()
            except (aiohttp.ClientError, OSError, TimeoutError):
                row = None
            if row is None:
                await self._drop()
                if not self._closed:
                    await self._connected()
                continue
            event = event_of(row)
            if self._last is not None and event.seq <= self._last:
                continue
            self._last = event.seq
            self._pauses.reset()
            return event
        raise StopAsyncIteration

    async def _row(self) -> dict[str, Any] | None:
        """The next event as told; None where the connection is over."""
        if self._early:
            return self._early.popleft()
        if self._socket is None:
            return None
        while True:
            message = await self._socket.receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                return None
            found = _told(message.data)
            if found is not None:
                return found

    async def _connected(self) -> None:
        """Connect, again and again until it works or must not be tried any more."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            try:
                await self._connect()
            except TooOftenError:
                pause = self._pauses.next()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                if self._give_up_after_s is not None and loop.time() - began >= self._give_up_after_s:
                    raise NoDaemonError(f"no daemon answers at {self._desk.url}: {error}") from None
                pause = self._pauses.next()
            else:
                return
            await self._drop()
            await asyncio.sleep(pause)
            if self._closed:
                return

    async def _connect(self) -> None:
        try:
            self._socket = await self._desk.websocket(HEARTBEAT_S)
        except aiohttp.WSServerHandshakeError as error:
            if error.status in {401, 403, 429}:
                # the reason is in a body that the upgrade does not give: ask for it
                await self._desk.call("private/events", since=2**62)
            raise
        self._early.clear()
        if self._last:
            # a subscription to nothing tells where the record ends
            newest = int((await self._subscribe(kinds=[NOTHING]))["since"])
            if newest < self._last:
                raise EventsLostError(f"event {self._last} was heard, and the daemon's record ends at {newest}")
        begun = await self._subscribe(since=self._last, channel=self._channel, kinds=self._kinds or None)
        if self._last is None:
            self._last = int(begun["since"])
        self.connections += 1

    async def _subscribe(self, **params: Any) -> Any:  # noqa: ANN401 - the result's JSON
        """One subscription on the socket; events that come before its answer are kept."""
        if self._socket is None:
            raise ConnectionResetError("there is no connection")
        given = {name: value for name, value in params.items() if value is not None}
        async with asyncio.timeout(ANSWER_S):
            await self._socket.send_str(encoded(1, "private/subscribe", given).decode())
            while True:
                message = await self._socket.receive()
                if message.type is not aiohttp.WSMsgType.TEXT:
                    raise ConnectionResetError("the connection broke before the subscription stood")
                row = _told(message.data)
                if row is None:
                    return result_of(message.data, self._desk.url)
                self._early.append(row)

    async def _drop(self) -> None:
        socket, self._socket = self._socket, None
        self._early.clear()
        if socket is not None:
            await socket.close()


def _told(text: str) -> dict[str, Any] | None:
    """The event in a message of a subscription; None for an answer.

    Raises:
        DaemonError: the subscription ends with an error.
    """
    try:
        message = json.loads(text)
    except ValueError:
        raise ConnectionResetError("the daemon sent what is no JSON") from None
    if not isinstance(message, dict) or message.get("method") != "subscription":
        return None
    params = message.get("params") or {}
    if "error" in params:
        error = params["error"]
        raise daemon_error({"code": error.get("code"), "message": error.get("message"), "data": error})
    row: dict[str, Any] = params["event"]
    return row


__all__ = ["ClientError", "DaemonError", "Event", "EventStream", "event_of"]
