"""One desk's daemon: `Desk` is awaited, `SyncDesk` blocks. Both have a method for each of the API (docs/api.md).

Rules: a request that did not arrive is asked again while `patience_s` lasts; one whose answer was lost is asked again
only where that changes nothing (docs/client.md has the table), and is otherwise an AnswerLostError. Nothing else is
repeated, cached or guessed. `SyncDesk` is a `Desk` on a thread of its own; nothing is written twice.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import threading
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import aiohttp

from channeld_client._methods import AsyncMethods
from channeld_client._methods_sync import SyncMethods
from channeld_client.errors import AnswerLostError, NoDaemonError, TooOftenError
from channeld_client.events import Event, EventStream
from channeld_client.requests import Pauses, encoded, prepared, result_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence

T = TypeVar("T")
DEFAULT_LISTEN = "127.0.0.1:9600"
MAX_ANSWER = 64 << 20


def settings_of(directory: Path | str) -> dict[str, Any]:
    """URL, token and TLS of the desk in a data directory: `Desk(**settings_of("~/.channeld"))`.

    Raises:
        NoDaemonError: the directory is no desk's.
    """
    folder = Path(directory).expanduser()
    try:
        api = tomllib.loads((folder / "channeld.toml").read_text(encoding="utf-8")).get("api", {})
        token = (folder / "api.token").read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise NoDaemonError(f"{folder} is no desk's data directory, or its daemon has never run: {error}") from None
    host, _, port = str(api.get("listen") or DEFAULT_LISTEN).rpartition(":")
    here = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104 - nothing is bound here
    cert = api.get("tls_cert")
    tls = None
    if cert:
        # the desk's own certificate and no other is trusted, so its name does not matter
        tls = ssl.create_default_context(cafile=str(folder / cert))
        tls.check_hostname = False
    return {"url": f"{'https' if cert else 'http'}://{here}:{port}", "token": token, "tls": tls}


class Desk(AsyncMethods):
    """A daemon, awaited: `async with Desk(url, token) as desk: await desk.channels()`."""

    def __init__(
        self,
        url: str = f"http://{DEFAULT_LISTEN}",
        token: str = "",
        *,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 90.0,
        patience_s: float = 10.0,
        random_of: Callable[[], float] = random.random,
    ) -> None:
        """Nothing is opened yet.

        Args:
            url: http:// or https://, host and port.
            token: the content of api.token, or one of `channeld token create`.
            tls: what to trust, where not the system's authorities.
            timeout_s: for one answer; methods that wait (`wait_s`) wait up to 60 s by themselves.
            patience_s: how long to try again where nothing answers.
            random_of: uniform in [0, 1), for the pauses.
        """
        self.url = url.rstrip("/").removesuffix("/api")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._tls, self._patience_s, self._random = tls, patience_s, random_of
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None
        self._number = 0

    @classmethod
    def of(cls, directory: Path | str, **options: Any) -> Desk:  # noqa: ANN401 - the constructor's own
        """The desk of a data directory on this machine."""
        return cls(**{**settings_of(directory), **options})

    async def __aenter__(self) -> Self:
        """Itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(headers=self._headers)
        return self._session

    async def websocket(self, heartbeat_s: float) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket to the daemon, for events."""
        url = "ws" + self.url.removeprefix("http") + "/ws"
        return await self._client().ws_connect(
            url, heartbeat=heartbeat_s, max_msg_size=MAX_ANSWER, ssl=self._tls if self._tls is not None else True
        )

    async def call(self, method: str, **params: Any) -> Any:  # noqa: ANN401 - any JSON value
        """Any method by its full name; parameters that are None are left out.

        Raises:
            DaemonError: refused; nothing has changed.
            NoDaemonError: nothing answers.
            AnswerLostError: it may have been carried out.
        """
        return await self._ask(method, params)

    async def _ask(self, method: str, params: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any JSON value
        given, repeatable = prepared(method, params)
        loop = asyncio.get_running_loop()
        end, pauses = loop.time() + self._patience_s, Pauses(self._random)
        while True:
            try:
                return await self._once(method, given)
            except (aiohttp.ClientConnectorError, TooOftenError) as error:
                # it has not been carried out: whatever the method, it may be asked again
                if loop.time() >= end:
                    if isinstance(error, TooOftenError):
                        raise
                    raise NoDaemonError(f"no daemon answers at {self.url}: {error}") from None
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                why = str(error) or type(error).__name__
                if not repeatable:
                    raise AnswerLostError(f"{method} was asked, and the answer was lost: {why}") from None
                if loop.time() >= end:
                    raise NoDaemonError(f"no daemon answers at {self.url}: {why}") from None
            await asyncio.sleep(pauses.next())

    async def _once(self, method: str, given: dict[str, Any]) -> Any:  # noqa: ANN401 - any JSON value
        self._number += 1
        request = self._client().post(
            f"{self.url}/api",
            data=encoded(self._number, method, given),
            headers={"Content-Type": "application/json"},
            timeout=self._timeout,
            ssl=self._tls if self._tls is not None else True,
        )
        async with request as response:
            raw = await response.read()
        return result_of(raw, self.url)

    def events(
        self,
        since: int | None = None,
        *,
        channel: str | None = None,
        kinds: Sequence[str] = (),
        give_up_after_s: float | None = None,
    ) -> EventStream:
        """The desk's events in order, each once: from `since` on (0: all there ever were; None: from now on).

        Args:
            since: the `seq` heard last.
            channel: of this channel alone.
            kinds: of these kinds alone.
            give_up_after_s: how long to try to come back; for ever where None.
        """
        return EventStream(
            self, since=since, channel=channel, kinds=kinds, random=self._random, give_up_after_s=give_up_after_s
        )


class SyncEvents:
    """The same stream, blocking: `with desk.events() as events: for event in events: ...`."""

    def __init__(self, desk: SyncDesk, stream: EventStream) -> None:
        """The stream of a desk."""
        self._desk, self._stream = desk, stream

    def __enter__(self) -> Self:
        """Connect. Raises ClientError."""
        self._desk.run(self._stream.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._desk.run(self._stream.close())

    def __iter__(self) -> Iterator[Event]:
        """Event after event, for ever; errors as those of `EventStream`."""
        while (event := self.next()) is not None:
            yield event

    def next(self, timeout_s: float | None = None) -> Event | None:
        """The next event; None where none came within timeout_s, or the stream is closed."""
        return self._desk.run(self._next(timeout_s))

    async def _next(self, timeout_s: float | None) -> Event | None:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._stream.__anext__()
        except (TimeoutError, StopAsyncIteration):
            return None

    @property
    def last(self) -> int:
        """The number of the last event heard: give it as `since` to go on from here."""
        return self._stream.last


class SyncDesk(SyncMethods):
    """A daemon, blocking: `with SyncDesk(url, token) as desk: desk.channels()`. Options are those of `Desk`.

    Safe to use from several threads.
    """

    def __init__(self, url: str = f"http://{DEFAULT_LISTEN}", token: str = "", **options: Any) -> None:  # noqa: ANN401 - Desk's own
        """As `Desk`."""
        self._desk = Desk(url, token, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="channeld-client", daemon=True)
        self._thread.start()

    @classmethod
    def of(cls, directory: Path | str, **options: Any) -> SyncDesk:  # noqa: ANN401 - the constructor's own
        """The desk of a data directory on this machine."""
        return cls(**{**settings_of(directory), **options})

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Carry out a coroutine on the client's own thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """Close all connections and end the thread."""
        if self._loop.is_closed():
            return
        self.run(self._desk.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def call(self, method: str, **params: Any) -> Any:  # noqa: ANN401 - any JSON value
        """Any method by its full name; errors as `Desk.call`."""
        return self.run(self._desk.call(method, **params))

    def _ask(self, method: str, params: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any JSON value
        return self.run(self._desk.call(method, **params))

    def events(self, since: int | None = None, **options: Any) -> SyncEvents:  # noqa: ANN401 - Desk.events' own
        """As `Desk.events`."""
        return SyncEvents(self, self._desk.events(since, **options))
