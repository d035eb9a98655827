"""The API's door: JSON-RPC 2.0 over HTTP POST, with /healthz and /metrics beside it.

Rules: it listens on this machine alone (configuration refuses anything else); `private/` methods need the token,
compared in constant time; a body is bounded; whatever goes wrong becomes a JSON-RPC error with a code of ours, never a
traceback.
"""

from __future__ import annotations

import hmac
import json
import secrets
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web

from channeld.core.errors import ChanneldError, InternalError, SetupError
from channeld.daemon.methods import BadParameterError, Methods
from channeld.oracle.strict_json import read_json

if TYPE_CHECKING:
    from pathlib import Path

    from channeld.daemon.node import Node

log = structlog.get_logger(__name__)

MAX_BODY = 1 << 20


class ApiAddressError(SetupError):
    """The API's address cannot be used."""

    code = 7050
    advice = "Another program listens there: stop it, or set api.listen to a free port."


class UnauthorizedError(SetupError):
    """The token is missing or wrong."""

    code = 1210
    advice = "Send the content of api.token in the desk's directory as `Authorization: Bearer`."


def ensure_token(path: Path) -> str:
    """The API token of a desk; made at the first start, readable by its owner alone."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(32) + "\n", encoding="ascii")
    return path.read_text(encoding="ascii").strip()


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
        trouble = self._node.chain.stale() if self._node.chain.ready else "no contracts yet"
        frozen = [a.id.hex()[:8] for a in self._node.actors.values() if a.channel.frozen and a.record.status == "open"]
        healthy = not frozen
        data = {"status": "ok" if healthy else "frozen", "chain": trouble or "ok", "frozen_channels": frozen}
        return web.json_response(data, status=200 if healthy else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._node.metrics_text(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _post(self, request: web.Request) -> web.Response:
        try:
            asked = read_json(await request.read())
        except (ValueError, web.HTTPException):
            return web.json_response(_failure(None, -32700, "the body is no JSON, or too large"))
        return web.json_response(await self._answer(asked, request.headers.get("Authorization", "")))

    def _check(self, method: str, params: object, authorization: str) -> None:
        if not isinstance(params, dict):
            raise BadParameterError("params must be an object: parameters have names")
        if not method.startswith("public/"):
            given = authorization.removeprefix("Bearer ").encode()
            if not hmac.compare_digest(given, self._token):
                raise UnauthorizedError("this method needs the desk's token")

    async def _answer(self, asked: object, authorization: str) -> dict[str, Any]:
        if not isinstance(asked, dict) or not isinstance(asked.get("method"), str):
            return _failure(None, -32600, "a request is an object with jsonrpc, id, method and params")
        identifier = asked.get("id")
        params = asked.get("params") or {}
        try:
            self._check(asked["method"], params, authorization)
            result = await self._methods.call(asked["method"], params)
        except ChanneldError as error:
            return _failure(identifier, error.code, str(error), error.as_data())
        except Exception as error:
            log.exception("a method failed", method=asked["method"])
            bug = InternalError(f"{asked['method']} failed: {type(error).__name__}")
            return _failure(identifier, bug.code, str(bug), bug.as_data())
        return {"jsonrpc": "2.0", "id": identifier, "result": result}


def _failure(identifier: object, code: int, message: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
    error = {"code": code, "message": message, **({"data": data} if data is not None else {})}
    return {"jsonrpc": "2.0", "id": identifier, "error": json.loads(json.dumps(error, default=str))}
