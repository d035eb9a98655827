"""A small synchronous JSON-RPC 2.0 client over HTTP: for a desk's daemon, the devnet, the oracle service.

Rules: standard library only, so that a command starts quickly. Every failure is a ChanneldError: nothing that answers
is an UnreachableError, an error that the other side reports is a RemoteError with its code and advice.
"""

from __future__ import annotations

import json
import os
import tomllib
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from channeld.cli.errors import CommandError, RemoteError, UnreachableError, UnreadableFileError

if TYPE_CHECKING:
    import http.client

DataOption = Annotated[
    Path,
    typer.Option("--data", "-d", envvar="CHANNELD_DATA", help="The desk's data directory.", file_okay=False),
]
DEFAULT_DATA = Path("~/.channeld")
DEFAULT_API = "127.0.0.1:9600"
UNAUTHORIZED = 401


def fetch(
    url: str,
    *,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 60.0,
    what: str = "service",
    advice: str | None = None,
    trust: Path | None = None,
) -> tuple[int, bytes]:
    """One HTTP request, POST where there is a body; (status, content). trust: the one certificate to accept, PEM.

    Raises:
        UnreachableError: nothing answers at the URL in time.
        CommandError: the URL is none.

    """
    import http.client  # noqa: PLC0415 - it brings e-mail's parser along, and `channeld --help` asks nobody

    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        message = f"{url!r} is not an http:// or https:// URL"
        raise CommandError(message)
    try:
        connection = _connection(parts, timeout, trust)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            connection.request("POST" if body is not None else "GET", path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        message = f"no {what} answers at {url} ({error or type(error).__name__})"
        raise UnreachableError(message, advice=advice) from None


def _connection(parts: urllib.parse.SplitResult, timeout: float, trust: Path | None) -> http.client.HTTPConnection:
    import http.client  # noqa: PLC0415 - as above

    host = parts.hostname or ""
    if parts.scheme == "http":
        return http.client.HTTPConnection(host, parts.port, timeout=timeout)
    import ssl  # noqa: PLC0415 - it takes its time, and most desks speak plain HTTP on this machine

    context = ssl.create_default_context(cafile=str(trust) if trust else None)
    # the desk's own certificate, read from its directory, need not name this machine's loopback address
    context.check_hostname = trust is None
    return http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=context)


class RpcClient:
    """JSON-RPC 2.0 at one URL. `what` and `advice` word the error where nothing answers."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        what: str = "daemon",
        advice: str | None = None,
        timeout: float = 60.0,
        trust: Path | None = None,
    ) -> None:
        """Remember where to ask; nothing is opened yet. timeout in seconds. trust: as `fetch`."""
        self.url = url
        self._trust = trust
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._what = what
        self._advice = advice
        self._timeout = timeout
        self._id = 0

    def rpc(self, method: str, params: Any, *, timeout: float | None = None) -> Any:  # noqa: ANN401 - any JSON value
        """The result of a method.

        Raises:
            UnreachableError: nothing answers.
            RemoteError: the other side refused, with its code and advice.

        """
        self._id += 1
        request = json.dumps({"jsonrpc": "2.0", "id": self._id, "method": method, "params": params})
        status, raw = fetch(
            self.url,
            body=request.encode(),
            headers=self._headers,
            timeout=self._timeout if timeout is None else timeout,
            what=self._what,
            advice=self._advice,
            trust=self._trust,
        )
        try:
            answer = json.loads(raw)
        except ValueError:
            answer = None
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
            told = answer["error"]
            raise RemoteError(int(told.get("code") or 1000), str(told.get("message") or told), told.get("data"))
        if status == UNAUTHORIZED:
            message = f"the {self._what} at {self.url} does not accept this token"
            raise UnreachableError(message, advice="Use --data to name the data directory whose api.token it wrote.")
        if not isinstance(answer, dict) or "result" not in answer:
            message = f"what answers at {self.url} is no {self._what} (HTTP status {status})"
            raise UnreachableError(message, advice=self._advice)
        return answer["result"]


class DeskClient(RpcClient):
    """A desk's daemon: named parameters."""

    def call(self, method: str, *, timeout: float | None = None, **params: Any) -> Any:  # noqa: ANN401 - any JSON value
        """The result of a method; parameters that are None are left out. timeout in seconds.

        Raises:
            UnreachableError: no daemon answers.
            RemoteError: the daemon refused.

        """
        return self.rpc(method, {k: v for k, v in params.items() if v is not None}, timeout=timeout)


class DevnetClient(RpcClient):
    """The development chain: standard eth_* methods, and the controls of its clock."""

    def __init__(self, url: str, *, timeout: float = 60.0) -> None:
        """Remember where the chain answers."""
        super().__init__(
            url, what="chain", advice="Start one with `channeld devnet`, or correct the URL.", timeout=timeout
        )

    def call(self, method: str, *params: Any) -> Any:  # noqa: ANN401 - any JSON value
        """The result of a method with positional parameters."""
        return self.rpc(method, list(params))

    def clock(self) -> dict[str, Any]:
        """The devnet clock: time_ms, offset_ms, revision, controllable."""
        result: dict[str, Any] = self.call("channeld_clock")
        return result

    def advance(self, seconds: int) -> dict[str, Any]:
        """Advance the clock of every process on this devnet by seconds; the clock afterwards."""
        result: dict[str, Any] = self.call("channeld_advance", seconds)
        return result

    def set_time(self, unix_seconds: int) -> dict[str, Any]:
        """Set the clock, forwards only; the clock afterwards."""
        result: dict[str, Any] = self.call("channeld_setTime", unix_seconds)
        return result


def api_url(data: Path) -> str:
    """Where the daemon of a data directory answers: CHANNELD_API, else what its channeld.toml says.

    Raises:
        UnreadableFileError: the directory is no desk's, or its configuration does not say.

    """
    override = os.environ.get("CHANNELD_API")
    if override:
        return override
    api = _api_settings(data)
    host, _, port = (os.environ.get("CHANNELD_API_LISTEN") or api.get("listen") or DEFAULT_API).rpartition(":")
    # what listens everywhere is reached on this machine
    here = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104 - nothing is bound here
    scheme = "https" if api.get("tls_cert") else "http"
    return f"{scheme}://{here}:{port}/api"


def _api_settings(data: Path) -> dict[str, Any]:
    """The section [api] of a desk's configuration."""
    path = data / "channeld.toml"
    advice = "Create a desk with `channeld init --data DIR`, or name its directory with --data."
    if not path.is_file():
        message = f"{data} is no desk's data directory: it has no channeld.toml"
        raise UnreadableFileError(message, advice=advice)
    try:
        config = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{path} cannot be read: {error}"
        raise UnreadableFileError(
            message, advice="Correct the file; `channeld init` writes an annotated one."
        ) from None
    api = config.get("api", {})
    return api if isinstance(api, dict) else {}


def connect(data: Path, *, timeout: float = 60.0) -> DeskClient:
    """A client of the daemon of a data directory, with its token. Nothing is opened yet.

    Raises:
        UnreadableFileError: the directory is no desk's.

    """
    folder = data.expanduser()
    url = api_url(folder)
    token_path = folder / "api.token"
    token = os.environ.get("CHANNELD_API_TOKEN")
    if not token and token_path.is_file():
        token = token_path.read_text(encoding="ascii").strip()
    return DeskClient(
        url,
        token=token,
        trust=_certificate(folder) if url.startswith("https://") else None,
        advice=f"Start the desk's daemon with `channeld run --data {data}`.",
        timeout=timeout,
    )


def _certificate(folder: Path) -> Path | None:
    """The desk's own certificate, where its directory is at hand: it and no other is trusted."""
    if os.environ.get("CHANNELD_API"):
        return None
    cert = _api_settings(folder).get("tls_cert")
    return folder / cert if isinstance(cert, str) and cert else None
