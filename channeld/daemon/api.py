"""The API's door: JSON-RPC 2.0 over HTTP POST, with /healthz and /metrics beside it.

Rules: it listens on this machine alone (configuration refuses anything else); `private/` methods need the token,
compared in constant time; a body is bounded; whatever goes wrong becomes a JSON-RPC error with a code of ours, never a
traceback.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web

from channeld import __version__
from channeld.core.errors import ChanneldError, InternalError, SetupError
from channeld.daemon.methods import Methods
from channeld.daemon.metrics import CONTENT_TYPE
from channeld.daemon.parameters import BadParameterError
from channeld.oracle.strict_json import read_json

if TYPE_CHECKING:
    from pathlib import Path

    from channeld.daemon.node import Node

log = structlog.get_logger(__name__)

MAX_BODY = 1 << 20
MIN_TOKEN = 16


class ApiAddressError(SetupError):
    """The API's address cannot be used."""

    code = 7050
    advice = "Another program listens there: stop it, or set api.listen to a free port."


class UnauthorizedError(SetupError):
    """The token is missing or wrong."""

    code = 1210
    advice = "Send the content of api.token in the desk's directory as `Authorization: Bearer`."


class BadTokenFileError(SetupError):
    """The file of the API's token cannot be used."""

    code = 7053
    advice = "Remove api.token; the daemon makes a new one at its next start."


def ensure_token(path: Path) -> str:
    """The API token of a desk; made at the first start, whole or not at all, readable by its owner alone.

    Raises:
        BadTokenFileError: it cannot be read or written, or what is in it is too short to be a secret.
    """
    try:
        if not path.exists():
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            temporary.unlink(missing_ok=True)
            temporary.touch(mode=0o600)
            temporary.write_text(secrets.token_urlsafe(32) + "\n", encoding="ascii")
            temporary.replace(path)
        path.chmod(0o600)
        token = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise BadTokenFileError(f"{path} cannot be used: {error}") from error
    if len(token) < MIN_TOKEN:
        raise BadTokenFileError(f"{path} holds no token of at least {MIN_TOKEN} characters")
    return token


class ApiServer:
    """Serves one node."""

    def __init__(self, node: Node, token: str) -> None:
        """Prepare; `start` listens."""
        self._node = node
        self._methods = Methods(node)
        self._token = token.encode()
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen.

        Raises:
            ApiAddressError: the address is taken or cannot be bound.
        """
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post("/api", self._post)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self.stop()
            raise ApiAddressError(f"the API cannot listen on {host}:{port}: {error.strerror}") from error

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _healthz(self, _: web.Request) -> web.Response:
        """200 while the desk can work; 503 when its store has failed, or a channel is frozen without a dispute."""
        node = self._node
        trouble = node.chain_trouble or (node.chain.stale() if node.chain.ready else "no contracts yet")
        frozen = [a.id.hex()[:8] for a in node.actors.values() if a.channel.frozen and a.record.status == "open"]
        failed = node.store.poisoned
        data = {
            "status": "store failed" if failed else "frozen" if frozen else "ok",
            "version": __version__,
            "time_ms": node.clock.now_ms(),
            "chain": trouble or "ok",
            "store": str(failed) if failed else "ok",
            "frozen_channels": frozen,
            "peers_connected": sum(node.hub.connected(address) for address in node.peers),
            "channels": len(node.actors),
        }
        return web.json_response(data, status=503 if failed or frozen else 200)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._node.metrics_text(), headers={"Content-Type": CONTENT_TYPE})

    async def _post(self, request: web.Request) -> web.Response:
        try:
            asked = read_json(await request.read())
        except web.HTTPException as error:
            return _respond(_failure(None, -32700, "the body is too large"), error.status)
        except (ValueError, RecursionError):
            return _respond(_failure(None, -32700, "the body is no JSON"), 400)
        answer = await self._answer(asked, request.headers.get("Authorization", ""))
        refused = answer.get("error", {}).get("code") == UnauthorizedError.code
        return _respond(answer, 401 if refused else 200)

    def _check(self, method: str, authorization: str) -> None:
        """Whoever has no token learns nothing, not even which methods there are."""
        if not method.startswith("public/"):
            given = authorization.removeprefix("Bearer ").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, self._token):
                raise UnauthorizedError("this method needs the desk's token")

    async def _answer(self, asked: object, authorization: str) -> dict[str, Any]:
        if not isinstance(asked, dict) or not isinstance(asked.get("method"), str):
            return _failure(None, -32600, "a request is an object with jsonrpc, id, method and params")
        identifier = asked.get("id")
        if not isinstance(identifier, str | int | None):
            identifier = None
        method, params = asked["method"], asked.get("params")
        try:
            self._check(method, authorization)
            if not isinstance(params, dict | None):
                raise BadParameterError("params must be an object: parameters have names")  # noqa: TRY301 - one place answers
            result = await self._methods.call(method, params or {})
        except ChanneldError as error:
            return _failure(identifier, error.code, str(error), error.as_data())
        except Exception as error:
            log.exception("a method failed", method=method[:64])
            bug = InternalError(f"{method[:64]} failed: {type(error).__name__}")
            return _failure(identifier, bug.code, str(bug), bug.as_data())
        return {"jsonrpc": "2.0", "id": identifier, "result": result}


def _respond(answer: dict[str, Any], status: int) -> web.Response:
    """Always JSON, whatever is in it: what has no form of its own is shown as text."""
    return web.json_response(text=json.dumps(answer, default=str), status=status)


def _failure(identifier: object, code: int, message: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
    error = {"code": code, "message": message, **({"data": data} if data is not None else {})}
    return {"jsonrpc": "2.0", "id": identifier, "error": error}
