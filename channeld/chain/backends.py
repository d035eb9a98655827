"""What a devnet can stand on: the embedded chain, an anvil it starts, or a development node at a URL.

Rules: a backend answers Ethereum's methods and mines at the timestamp it is told, never by itself. The devnet calls
`send`, `mine`, `fund` and `reorganise` one at a time. A node whose time cannot be set is refused at the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import aiohttp

from channeld.chain.embedded import FAUCET_KEY, GAS_LIMIT, EmbeddedChain
from channeld.chain.errors import ChainStartError, ChainUnreachableError, NoTimeControlError, WrongChainIdError
from channeld.chain.jsonrpc import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    SERVER_ERROR,
    RpcFault,
    data,
    hexadecimal,
    parameter,
)

START_TIMEOUT_S = 30.0
MINE_TIMEOUT_S = 30.0
EXECUTED = frozenset(
    {
        "eth_call",
        "eth_estimateGas",
        "eth_getBalance",
        "eth_getCode",
        "eth_getStorageAt",
        "eth_getTransactionCount",
    }
)
# a proxied node's own time control would break the devnet's clock: only these pass
PASSED = ("eth_", "net_", "web3_", "debug_", "trace_")


class Backend(Protocol):
    """What stands behind a devnet."""

    async def start(self) -> int:
        """Start; returns the latest block's timestamp, Unix seconds."""
        ...

    async def stop(self) -> None:
        """Stop, and end what was started."""
        ...

    async def chain_id(self) -> int:
        """The chain id."""
        ...

    async def latest(self) -> int:
        """The latest block's timestamp, Unix seconds."""
        ...

    async def answer(self, method: str, params: list[Any], timestamp: int) -> Any:  # noqa: ANN401 - JSON
        """Answer a read; `timestamp` is what the next block would have."""
        ...

    async def send(self, params: list[Any], timestamp: int) -> Any:  # noqa: ANN401 - JSON
        """Take eth_sendRawTransaction's parameters and mine it at `timestamp`."""
        ...

    async def mine(self, timestamp: int) -> None:
        """Mine an empty block at `timestamp`, Unix seconds."""
        ...

    async def fund(self, address: bytes, wei: int, timestamp: int) -> None:
        """Give `wei` of native currency to an address."""
        ...

    async def reorganise(self, depth: int, timestamp: int) -> None:
        """Replace the last `depth` blocks."""
        ...


class EmbeddedBackend:
    """The embedded chain, its EVM in one worker thread so that long polls are answered meanwhile."""

    def __init__(self, chain_id: int, start_time: int, gas_limit: int = GAS_LIMIT) -> None:
        """Name the chain's id, its genesis time (Unix seconds) and its block gas limit."""
        self._chain_id, self._start_time, self._gas_limit = chain_id, start_time, gas_limit
        self._chain: EmbeddedChain | None = None
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="evm")

    @property
    def chain(self) -> EmbeddedChain:
        """The chain, once started."""
        if self._chain is None:
            raise ChainStartError("the embedded chain has not been started")
        return self._chain

    async def _work(self, function: Any, *args: Any) -> Any:  # noqa: ANN401 - whatever the function takes and returns
        return await asyncio.get_running_loop().run_in_executor(self._worker, function, *args)

    async def start(self) -> int:
        """Make the chain, in the worker: its imports take a second."""
        self._chain = await self._work(EmbeddedChain, self._chain_id, self._start_time, self._gas_limit)
        return self.chain.timestamp

    async def stop(self) -> None:
        """End the worker."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    async def chain_id(self) -> int:
        """The chain id."""
        return self._chain_id

    async def latest(self) -> int:
        """The latest block's timestamp."""
        return self.chain.timestamp

    async def answer(self, method: str, params: list[Any], timestamp: int) -> Any:  # noqa: ANN401 - JSON
        """Answer a read, in the worker where it needs the EVM or the state."""
        if method in EXECUTED:
            return await self._work(self.chain.execute, method, params, timestamp)
        return self.chain.read(method, params)

    async def send(self, params: list[Any], timestamp: int) -> Any:  # noqa: ANN401 - JSON
        """Mine a signed transaction."""
        return await self._work(self.chain.apply, data(parameter(params, 0), "transaction"), timestamp)

    async def mine(self, timestamp: int) -> None:
        """Mine an empty block."""
        await self._work(self.chain.mine, timestamp)

    async def fund(self, address: bytes, wei: int, timestamp: int) -> None:
        """Send from the faucet's account, in a block of its own."""
        raw = await self._work(self._funding, address, wei, timestamp)
        await self._work(self.chain.apply, raw, timestamp)

    def _funding(self, address: bytes, wei: int, timestamp: int) -> bytes:
        from eth_account import Account  # noqa: PLC0415 - slow to import; in the worker

        account: Any = Account.from_key(FAUCET_KEY)
        nonce = self.chain.execute("eth_getTransactionCount", [account.address], timestamp)
        transaction = {
            "chainId": self._chain_id,
            "nonce": int(nonce, 16),
            "to": address,
            "value": wei,
            "gas": 100_000,
            "maxFeePerGas": 10**12,
            "maxPriorityFeePerGas": 1,
        }
        return bytes(account.sign_transaction(transaction).raw_transaction)

    async def reorganise(self, depth: int, timestamp: int) -> None:
        """Replace the last `depth` blocks by empty ones."""
        await self._work(self.chain.reorganise, depth, timestamp)


class NodeBackend:
    """A development node at a URL, its time set by evm_setNextBlockTimestamp."""

    def __init__(self, url: str, chain_id: int | None = None) -> None:
        """Name the node, and the chain id it must have, where one is expected."""
        self._url, self._expected = url, chain_id
        self._session: aiohttp.ClientSession | None = None

    async def _ask(self, method: str, params: list[Any]) -> Any:  # noqa: ANN401 - JSON
        if self._session is None:
            raise ChainStartError(f"the node at {self._url} has not been started")
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        try:
            async with self._session.post(self._url, json=request) as response:
                answer = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            message = f"the node at {self._url} does not answer: {error or type(error).__name__}"
            raise ChainUnreachableError(message) from error
        if not isinstance(answer, dict) or ("result" not in answer and not isinstance(answer.get("error"), dict)):
            raise RpcFault(INTERNAL_ERROR, f"the node at {self._url} answered nonsense")
        if answer.get("error"):
            error_json = answer["error"]
            raise RpcFault(int(error_json.get("code", 0)), str(error_json.get("message")), error_json.get("data"))
        return answer["result"]

    async def start(self) -> int:
        """Connect, check the chain id, and probe for control of time.

        Raises:
            ChainUnreachableError, WrongChainIdError, NoTimeControlError: as named.

        """
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
        try:
            found = await self.chain_id()
            if self._expected is not None and found != self._expected:
                message = f"the node at {self._url} has chain id {found}, not {self._expected}"
                raise WrongChainIdError(message, found=found, expected=self._expected)  # noqa: TRY301 - cleans up below
            await self._probe()
            return await self.latest()
        except RpcFault as fault:
            await self._disconnect()
            raise ChainUnreachableError(f"the node at {self._url} refuses: {fault.message}") from fault
        except BaseException:
            await self._disconnect()
            raise

    async def _probe(self) -> None:
        wanted = await self.latest() + 1
        try:
            await self.mine(wanted)
            found = await self.latest()
        except RpcFault as fault:
            message = f"the time of the chain at {self._url} cannot be set: {fault.message}"
            raise NoTimeControlError(message) from fault
        if found != wanted:
            message = f"the time of the chain at {self._url} cannot be set: asked for {wanted}, got {found}"
            raise NoTimeControlError(message)

    async def stop(self) -> None:
        """Disconnect."""
        await self._disconnect()

    async def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def chain_id(self) -> int:
        """The node's chain id."""
        return int(await self._ask("eth_chainId", []), 16)

    async def latest(self) -> int:
        """The latest block's timestamp."""
        return int((await self._ask("eth_getBlockByNumber", ["latest", False]))["timestamp"], 16)

    async def answer(self, method: str, params: list[Any], timestamp: int) -> Any:  # noqa: ANN401, ARG002 - JSON; own
        """Pass a read on."""
        if not method.startswith(PASSED):
            raise RpcFault(METHOD_NOT_FOUND, f"the method {method} does not exist/is not available")
        return await self._ask(method, params)

    async def send(self, params: list[Any], timestamp: int) -> Any:  # noqa: ANN401 - JSON
        """Pass a transaction on, to be mined at `timestamp`, and wait until it is."""
        await self._ask("evm_setNextBlockTimestamp", [timestamp])
        sent = await self._ask("eth_sendRawTransaction", params)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MINE_TIMEOUT_S):
                while await self._ask("eth_getTransactionReceipt", [sent]) is None:
                    if not await self._executable(sent):
                        break  # it waits for an earlier nonce
                    await asyncio.sleep(0.005)
        return sent

    async def _executable(self, sent: str) -> bool:
        transaction = await self._ask("eth_getTransactionByHash", [sent])
        if transaction is None:
            return True  # not indexed yet
        count = int(await self._ask("eth_getTransactionCount", [transaction["from"], "latest"]), 16)
        return int(transaction["nonce"], 16) <= count

    async def mine(self, timestamp: int) -> None:
        """Mine an empty block."""
        await self._ask("evm_setNextBlockTimestamp", [timestamp])
        await self._ask("evm_mine", [])

    async def fund(self, address: bytes, wei: int, timestamp: int) -> None:
        """Set the balance where the node can; else send from an account it holds."""
        who = hexadecimal(address)
        balance = int(await self._ask("eth_getBalance", [who, "latest"]), 16)
        for method in ("anvil_setBalance", "hardhat_setBalance"):
            try:
                await self._ask(method, [who, hex(balance + wei)])
            except RpcFault:
                continue
            return
        accounts = await self._ask("eth_accounts", [])
        if not accounts:
            raise RpcFault(SERVER_ERROR, "this node has no faucet")
        await self._ask("evm_setNextBlockTimestamp", [timestamp])
        await self._ask("eth_sendTransaction", [{"from": accounts[0], "to": who, "value": hex(wei)}])

    async def reorganise(self, depth: int, timestamp: int) -> None:  # noqa: ARG002 - the node picks its own times
        """Replace the last `depth` blocks, where the node is an anvil."""
        await self._ask("anvil_reorg", [depth, []])


class AnvilBackend(NodeBackend):
    """An anvil of our own, on a free port."""

    def __init__(self, chain_id: int, start_time: int, *, program: str = "anvil", gas_limit: int = GAS_LIMIT) -> None:
        """Name the chain's id, its genesis time (Unix seconds), the program and the block gas limit."""
        self._port = _free_port()
        super().__init__(f"http://127.0.0.1:{self._port}", chain_id)
        self._program, self._id, self._start_time, self._gas_limit = program, chain_id, start_time, gas_limit
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> int:
        """Start anvil and wait until it answers.

        Raises:
            ChainStartError: there is no such program, or it ended.

        """
        path = shutil.which(self._program)
        if path is None:
            raise ChainStartError(f"{self._program!r} is not on the PATH")
        options = {
            "--host": "127.0.0.1",
            "--port": self._port,
            "--chain-id": self._id,
            "--timestamp": self._start_time,
            "--gas-limit": self._gas_limit,
            "--accounts": 1,
        }
        arguments = [str(part) for pair in options.items() for part in pair]
        nowhere = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(
            path, *arguments, "--silent", stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while True:
                    if self._process.returncode is not None:
                        message = f"{path} ended at once with status {self._process.returncode}"
                        raise ChainStartError(message)  # noqa: TRY301 - cleans up below
                    try:
                        return await super().start()
                    except ChainUnreachableError:
                        await asyncio.sleep(0.05)
        except TimeoutError:
            await self.stop()
            raise ChainStartError(f"{path} does not answer after {START_TIMEOUT_S:.0f} s") from None
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Disconnect, and end anvil."""
        await super().stop()
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        # its whole group: the program may be a wrapper around the real one
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal_number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 5)
                return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def whole_depth(value: object) -> int:
    """A reorganisation's depth from JSON."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise RpcFault(INVALID_PARAMS, "depth must be a positive integer")
    return value
