"""The API's door: JSON-RPC 2.0 over HTTP POST and WebSocket, with /healthz and /metrics beside it.

Rules: it listens on this machine alone, or with TLS (configuration refuses anything else); `private/` methods need a
token with the method's scope (daemon/scopes.py); how often a token may ask is bounded, and so is what it sends;
whatever goes wrong becomes a JSON-RPC error with a code of ours, never a traceback. What moves money, acts on chain or
changes the desk is an event with the token's name. No token is ever written anywhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import ssl
import time
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import WSMsgType, web

from channeld import __version__
from channeld.core.errors import ChanneldError, InternalError, SetupError
from channeld.core.strict_json import read_json
from channeld.daemon.config import is_loopback
from channeld.daemon.limits import Buckets, TooOftenError
from channeld.daemon.methods import Methods
from channeld.daemon.metrics import CONTENT_TYPE
from channeld.daemon.operators import AGREEING, CALLER, wanted
from channeld.daemon.parameters import BadParameterError
from channeld.daemon.scopes import ADMIN, READ
from channeld.daemon.subscriptions import Subscriber
from channeld.daemon.token_methods import NotHereError, parameters_of
from channeld.daemon.tokens import Caller, ScopeError, UnauthorizedError

if TYPE_CHECKING:
    from pathlib import Path

    from channeld.daemon.node import Node

log = structlog.get_logger(__name__)

MAX_BODY = 1 << 20
MOST_SOCKETS = 64
HEARTBEAT_S = 20.0
STRANGER_RATE, STRANGER_BURST = 5.0, 50.0
MIN_TOKEN = 16


_STATUS = {UnauthorizedError.code: 401, ScopeError.code: 403, TooOftenError.code: 429}


class ApiAddressError(SetupError):
    """The API's address cannot be used."""

    code = 7050
    advice = "Another program listens there: stop it, or set api.listen to a free port."


class TlsFilesError(SetupError):
    """The API's certificate or key cannot be used."""

    code = 1267
    advice = "Give PEM files that belong together: api.tls_cert with the chain, api.tls_key without a password."


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


def tls_context(cert: Path, key: Path) -> ssl.SSLContext:
    """What the API speaks TLS with.

    Raises:
        TlsFilesError: the files cannot be used.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # a key with a password would have OpenSSL ask for it at the terminal
        context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:
        raise TlsFilesError(f"the API's certificate {cert} with the key {key} cannot be used: {error}") from error
    return context


class ApiServer:
    """Serves one node."""

    def __init__(self, node: Node, token: str) -> None:
        """Prepare; `start` listens."""
        self._node = node
        self._methods = Methods(node)
        node.tokens.own(token)
        rate = node.config.api.rate
        self._callers = Buckets(rate, 2 * rate, time.monotonic)
        self._strangers = Buckets(STRANGER_RATE, STRANGER_BURST, time.monotonic)
        self._exposed = False
        self._subscribers: set[Subscriber] = set()
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        """Listen, with TLS where a context is given.

        Raises:
            ApiAddressError: the address is taken or cannot be bound.
        """
        self._exposed = not is_loopback(host)
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_get("/ws", self._websocket)
        app.router.add_post("/api", self._post)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port, ssl_context=tls).start()
        except OSError as error:
            await self.stop()
            raise ApiAddressError(f"the API cannot listen on {host}:{port}: {error.strerror}") from error

    async def stop(self) -> None:
        """Stop listening."""
        for subscriber in list(self._subscribers):
            await subscriber.stop()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _healthz(self, request: web.Request) -> web.Response:
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
        if self._exposed and not self._may_read(request):
            data = {"status": data["status"]}
        return web.json_response(data, status=503 if failed or frozen else 200)

    def _may_read(self, request: web.Request) -> bool:
        try:
            caller = self._node.tokens.authenticate(request.headers.get("Authorization", ""))
        except UnauthorizedError:
            return False
        return bool(caller.scopes & {READ, ADMIN})

    async def _metrics(self, request: web.Request) -> web.Response:
        if self._exposed and not self._may_read(request):
            return web.Response(status=401, text="a token with the scope read is needed from here\n")
        return web.Response(body=self._node.metrics_text(), headers={"Content-Type": CONTENT_TYPE})

    async def _post(self, request: web.Request) -> web.Response:
        try:
            asked = read_json(await request.read())
        except web.HTTPException as error:
            return _respond(_failure(None, -32700, "the body is too large"), error.status)
        except (ValueError, RecursionError):
            return _respond(_failure(None, -32700, "the body is no JSON"), 400)
        answer = await self._answer(asked, request.headers.get("Authorization", ""), request.remote or "")
        return _respond(answer, _STATUS.get(answer.get("error", {}).get("code"), 200))

    def _check(self, method: str, authorization: str, remote: str) -> Caller:
        """Whoever has no token learns nothing, not even which methods there are."""
        tokens = self._node.tokens
        if method.startswith("public/"):
            self._callers.take(f"public {remote}")
            return Caller("", frozenset())
        try:
            caller = tokens.authenticate(authorization)
        except UnauthorizedError:
            self._strangers.take(remote)
            raise
        self._callers.take(caller.number or caller.name)
        caller.check(method)
        return caller

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        """Requests and events over one connection."""
        authorization, remote = request.headers.get("Authorization", ""), request.remote or ""
        try:
            # a token without the scope `read` may call what its scopes allow, and subscribe to nothing
            with contextlib.suppress(ScopeError):
                self._check("private/subscribe", authorization, remote)
            if len(self._subscribers) >= MOST_SOCKETS:
                raise TooOftenError(f"{MOST_SOCKETS} WebSockets are open already")
        except ChanneldError as error:
            return _respond(_failure(None, error.code, str(error), error.as_data()), _STATUS.get(error.code, 400))
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=MAX_BODY)
        await socket.prepare(request)

        async def allowed() -> None:
            """A token that was revoked meanwhile hears nothing more."""
            self._node.tokens.authenticate(authorization).check("private/subscribe")

        subscriber = Subscriber(self._node, socket, allowed)
        self._subscribers.add(subscriber)
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    break
                try:
                    asked = read_json(message.data.encode("utf-8", "surrogatepass"))
                except (ValueError, RecursionError):
                    await socket.send_str(_text(_failure(None, -32700, "the message is no JSON")))
                    continue
                answer = await self._answer(asked, authorization, remote, subscriber)
                await socket.send_str(_text(answer))
                subscriber.begin()
        except (ConnectionError, RuntimeError) as error:
            log.debug("a WebSocket ended", why=str(error))
        finally:
            self._subscribers.discard(subscriber)
            await subscriber.stop()
        return socket

    async def _answer(
        self, asked: object, authorization: str, remote: str, subscriber: Subscriber | None = None
    ) -> dict[str, Any]:
        if not isinstance(asked, dict) or not isinstance(asked.get("method"), str):
            return _failure(None, -32600, "a request is an object with jsonrpc, id, method and params")
        identifier = asked.get("id")
        if not isinstance(identifier, str | int | None):
            identifier = None
        method, params = asked["method"], asked.get("params")
        try:
            caller = self._check(method, authorization, remote)
            if not isinstance(params, dict | None):
                raise BadParameterError("params must be an object: parameters have names")  # noqa: TRY301 - one place answers
            result = await self._called(caller, method, params or {})
            if method == "private/subscribe":
                if subscriber is None:
                    raise NotHereError("there is no WebSocket to send events to")  # noqa: TRY301 - the same
                result = await subscriber.prepare(**result)
        except ChanneldError as error:
            return _failure(identifier, error.code, str(error), error.as_data())
        except Exception as error:
            log.exception("a method failed", method=method[:64])
            bug = InternalError(f"{method[:64]} failed: {type(error).__name__}")
            return _failure(identifier, bug.code, str(bug), bug.as_data())
        return {"jsonrpc": "2.0", "id": identifier, "result": result}

    async def _called(self, caller: Caller, method: str, params: dict[str, Any]) -> Any:  # noqa: ANN401 - any JSON value
        """The result of a method; who asked for what changes something is told, and written down."""
        # a name that is none is not written down: it may be a secret that was put in the wrong place
        if method not in self._methods.table or method.startswith("public/"):
            return await self._methods.call(method, params)
        given = CALLER.set(caller)
        try:
            if not wanted(method):
                return await self._methods.call(method, params)
            # only what the method takes: anything else may be a secret that was put in the wrong place
            kept = {name: value for name, value in params.items() if name in parameters_of(method)}
            async with self._node.operators.around(caller, method, kept):
                return await self._told(caller, method, params)
        finally:
            CALLER.reset(given)

    async def _told(self, caller: Caller, method: str, params: dict[str, Any]) -> Any:  # noqa: ANN401 - the same
        outcome = "failed"
        try:
            if self._node.approvals.needed(method):
                await self._node.approvals.ask(caller, method, params)
            result = await self._methods.call(method, params)
            outcome = "done"
        except ChanneldError as error:
            outcome = str(error.code)
            raise
        finally:
            if method not in AGREEING:
                told = {"token": caller.name, "token_id": caller.number, "method": method, "outcome": outcome}
                await self._node.emit("operator", None, **told)
        return result


def _text(answer: dict[str, Any]) -> str:
    return json.dumps(answer, default=str)


def _respond(answer: dict[str, Any], status: int) -> web.Response:
    """Always JSON, whatever is in it: what has no form of its own is shown as text."""
    return web.json_response(text=_text(answer), status=status)


def _failure(identifier: object, code: int, message: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
    error = {"code": code, "message": message, **({"data": data} if data is not None else {})}
    return {"jsonrpc": "2.0", "id": identifier, "error": error}
