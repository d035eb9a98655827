"""The devnet: one JSON-RPC endpoint in front of a development chain, with one clock for every process on it.

Rules: the clock is the system's plus an offset that only grows. Every block's timestamp is max(floor(clock), parent +
1), and where that is ahead of the clock the offset moves up first: no block is ever ahead of the clock. Every
transaction is mined at once. Whatever a client sends gets a JSON-RPC answer. A devnet listens on the loopback by
default: it has no authentication, and its money is worth nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from typing import Any, Literal, Self

from aiohttp import web

from channeld.chain.backends import AnvilBackend, Backend, EmbeddedBackend, NodeBackend, whole_depth
from channeld.chain.clock import system_ms
from channeld.chain.embedded import GAS_LIMIT
from channeld.chain.errors import ChainStartError, TimeReversalError
from channeld.chain.jsonrpc import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    SERVER_ERROR,
    RpcFault,
    data,
    hexadecimal,
    load,
    parameter,
    quantity,
)
from channeld.core.crypto import keccak256
from channeld.core.errors import ChainError

logger = logging.getLogger(__name__)

CHAIN_ID = 31_337
MAX_TIME = 1 << 40
MAX_BODY = 32 << 20
MAX_WAIT_S = 60.0
CLIENT_VERSION = "channeld/devnet"

BackendName = Literal["embedded", "anvil", "url"]


class Devnet:
    """A devnet. `start()` returns its URL; use as an async context, or start() and stop()."""

    def __init__(
        self,
        backend: BackendName = "embedded",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        chain_id: int | None = None,
        start_time: int | None = None,
        url: str | None = None,
        anvil: str = "anvil",
        gas_limit: int = GAS_LIMIT,
        heartbeat_s: float | None = 10.0,
    ) -> None:
        """Choose the backend and where to listen; nothing starts before start().

        Args:
            backend: "embedded" (py-evm), "anvil" (started as a subprocess), or "url" (a development node at `url`).
            host: the address to listen on.
            port: the port to listen on; 0 picks a free one.
            chain_id: default 31337; for "url" the id that node must have, default any.
            start_time: the genesis block's time, Unix seconds; default the system's time. Not for "url".
            url: the node's URL, for "url".
            anvil: the program, for "anvil".
            gas_limit: the block gas limit.
            heartbeat_s: an empty block is mined whenever the latest is older than this, so that an idle chain does not
                look stale; None for never.

        """
        self._host, self._port = host, port
        self._heartbeat_s = heartbeat_s
        begin = start_time if start_time is not None else system_ms() // 1000
        if backend == "embedded":
            self._backend: Backend = EmbeddedBackend(chain_id or CHAIN_ID, begin, gas_limit)
        elif backend == "anvil":
            self._backend = AnvilBackend(chain_id or CHAIN_ID, begin, program=anvil, gas_limit=gas_limit)
        else:
            self._backend = NodeBackend(url or "", chain_id)
        self._offset_ms = begin * 1000 - system_ms() if start_time is not None and backend != "url" else 0
        self._revision = 0
        self._changed = asyncio.Event()
        self._closing = False
        self._mining = asyncio.Lock()
        self._runner: web.AppRunner | None = None
        self._beating: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    @property
    def url(self) -> str:
        """Where it listens, once started."""
        return f"http://{self._host}:{self._port}"

    # -- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> str:
        """Start the chain and listen; returns the URL.

        Raises:
            ChainStartError: the backend cannot start, or the port is taken.
            ChainUnreachableError, WrongChainIdError, NoTimeControlError: of a node at a URL.

        """
        await self._backend.start()
        try:
            await self._settle_clock()
            application = web.Application(client_max_size=MAX_BODY)
            application.router.add_post("/{tail:.*}", self._post)
            application.router.add_get("/healthz", self._healthz)
            self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=2.0)
            await self._runner.setup()
            site = web.TCPSite(self._runner, self._host, self._port)
            try:
                await site.start()
            except OSError as error:
                message = f"the devnet cannot listen on {self._host}:{self._port}: {error.strerror}"
                raise ChainStartError(message, advice="Choose another port, or stop what listens there.") from error
        except BaseException:
            await self.stop()
            raise
        if self._port == 0:
            self._port = int(self._runner.addresses[0][1])
        if self._heartbeat_s is not None:
            self._beating = asyncio.create_task(self._beat(self._heartbeat_s), name="devnet-heartbeat")
        return self.url

    async def stop(self) -> None:
        """Answer what waits, stop listening, end the chain."""
        self._closing = True
        self._changed.set()
        if self._beating is not None:
            self._beating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._beating
            self._beating = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        await self._backend.stop()

    async def _beat(self, interval_s: float) -> None:
        while True:
            await asyncio.sleep(interval_s)
            try:
                async with self._mining:
                    if self.now_ms() // 1000 - await self._backend.latest() >= interval_s:
                        await self._backend.mine(await self._next_block_time())
            except (ChainError, RpcFault) as error:
                logger.warning("the devnet's heartbeat failed: %s", error)

    # -- the clock ---------------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """The devnet's time, Unix milliseconds."""
        return system_ms() + self._offset_ms

    def clock(self) -> dict[str, Any]:
        """What channeld_clock answers."""
        return {
            "time_ms": self.now_ms(),
            "offset_ms": self._offset_ms,
            "revision": self._revision,
            "controllable": True,
        }

    def _move_to(self, ms: int) -> None:
        behind = ms - self.now_ms()
        if behind > 0:
            self._offset_ms += behind
            self._revision += 1
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def _settle_clock(self) -> None:
        self._move_to(await self._backend.latest() * 1000)

    async def _pending_time(self) -> int:
        return max(self.now_ms() // 1000, await self._backend.latest() + 1)

    async def _next_block_time(self) -> int:
        timestamp = await self._pending_time()
        self._move_to(timestamp * 1000)
        return timestamp

    async def wait_clock(self, revision: int, timeout_s: float) -> dict[str, Any]:
        """The clock, once its revision is not `revision`, or after `timeout_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._revision == revision and not self._closing:
                    await self._changed.wait()
        return self.clock()

    async def set_time(self, ms: int) -> dict[str, Any]:
        """Move the clock forward to `ms` (Unix milliseconds) and mine a block there.

        Raises:
            TimeReversalError: that is in the past.

        """
        async with self._mining:
            if ms < self.now_ms() - 999:
                message = f"the devnet's clock stands at {self.now_ms()} ms and cannot go back to {ms} ms"
                raise TimeReversalError(message, now_ms=self.now_ms(), wanted_ms=ms)
            return await self._move_and_mine(ms)

    async def advance(self, seconds: float) -> dict[str, Any]:
        """Move the clock forward by `seconds` and mine a block there."""
        async with self._mining:
            return await self._move_and_mine(self.now_ms() + round(seconds * 1000))

    async def _move_and_mine(self, ms: int) -> dict[str, Any]:
        # the clock first, then the block: a block must never be ahead of the clock
        self._move_to(ms)
        await self._backend.mine(await self._next_block_time())
        return self.clock()

    # -- requests ----------------------------------------------------------------------------------------------------

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"} | self.clock())

    async def _post(self, request: web.Request) -> web.Response:
        try:
            body = load(await request.read())
        except RpcFault as fault:
            return web.json_response(_failure(None, fault))
        if not isinstance(body, list):
            answer = await self._respond(body)
            return web.Response(status=204) if answer is None else web.json_response(answer)
        if not body:
            return web.json_response(_failure(None, RpcFault(INVALID_REQUEST, "empty batch")))
        # one after the other: a batch may rely on its order
        answers = [answer for entry in body if (answer := await self._respond(entry)) is not None]
        return web.json_response(answers) if answers else web.Response(status=204)

    async def _respond(self, request: object) -> dict[str, Any] | None:
        if not isinstance(request, dict):
            return _failure(None, RpcFault(INVALID_REQUEST, "a request must be an object"))
        identifier = request.get("id")
        if not isinstance(identifier, str | int | float | None):
            identifier = None
        method, params = request.get("method"), request.get("params", [])
        try:
            if not isinstance(method, str):
                raise RpcFault(INVALID_REQUEST, "a request must have a method")  # noqa: TRY301 - one place answers
            if not isinstance(params, list):
                raise RpcFault(INVALID_PARAMS, "params must be a list")  # noqa: TRY301 - the same
            answer: dict[str, Any] = {"jsonrpc": "2.0", "id": identifier, "result": await self.handle(method, params)}
        except RpcFault as fault:
            answer = _failure(identifier, fault)
        except ChainError as error:
            answer = _failure(identifier, RpcFault(SERVER_ERROR, str(error), error.as_data()))
        except Exception as error:
            # a bug here, or in the EVM's libraries: the client learns of it, the devnet lives on
            logger.exception("%s failed", method)
            answer = _failure(identifier, RpcFault(INTERNAL_ERROR, f"{type(error).__name__}: {error}"))
        return answer if "id" in request else None

    async def handle(self, method: str, params: list[Any]) -> Any:  # noqa: ANN401, C901, PLR0911 - JSON; one branch a method
        """Answer one method.

        Raises:
            RpcFault: as JSON-RPC says.
            ChainError: the backend's, or TimeReversalError.

        """
        match method:
            case "channeld_clock":
                return self.clock()
            case "channeld_waitClock":
                timeout_s = _number(parameter(params, 1, 25.0), "timeout_s", MAX_WAIT_S)
                revision = parameter(params, 0)
                return await self.wait_clock(revision if isinstance(revision, int) else -1, timeout_s)
            case "channeld_advance":
                return await self.advance(_number(parameter(params, 0), "seconds", MAX_TIME - self.now_ms() / 1000))
            case "channeld_setTime":
                return await self.set_time(round(_number(parameter(params, 0), "unix_seconds", MAX_TIME) * 1000))
            case "channeld_faucet":
                address, wei = data(parameter(params, 0), "address", 20), quantity(parameter(params, 1, 10**20), "wei")
                if wei >= 1 << 110:
                    raise RpcFault(INVALID_PARAMS, "wei must be below 2**110")
                async with self._mining:
                    await self._backend.fund(address, wei, await self._next_block_time())
                return self.clock()
            case "channeld_reorganise":
                depth = whole_depth(parameter(params, 0))
                async with self._mining:
                    await self._backend.reorganise(depth, self.now_ms() // 1000)
                    await self._settle_clock()
                return self.clock()
            case "evm_mine":
                async with self._mining:
                    await self._backend.mine(await self._next_block_time())
                return "0x0"
            case "eth_sendRawTransaction":
                async with self._mining:
                    return await self._backend.send(params, await self._next_block_time())
            case "web3_clientVersion":
                return CLIENT_VERSION
            case "web3_sha3":
                return hexadecimal(keccak256(data(parameter(params, 0))))
            case "net_listening":
                return True
        return await self._backend.answer(method, params, await self._pending_time())


def _number(value: object, name: str, most: float) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, int | float) and good and math.isfinite(value) and 0 <= value <= most:
        return value
    raise RpcFault(INVALID_PARAMS, f"{name} must be a number from 0 to {most:.0f}")


def _failure(identifier: object, fault: RpcFault) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": identifier, "error": fault.as_json()}
