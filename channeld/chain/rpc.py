"""The chain's JSON-RPC as the daemon uses it: a slim client over aiohttp, with typed answers and typed errors.

Rules: every call has a timeout. Reads, and the sending of a signed transaction (the same bytes have one effect however
often they arrive), are retried with backoff where the endpoint does not answer or is overloaded; an answer, an error
included, is final. Addresses and hashes are bytes here. Nothing of web3 is imported.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import aiohttp

from channeld.chain.abi import revert_reason
from channeld.chain.errors import (
    ChainUnreachableError,
    InsufficientFundsError,
    MalformedResponseError,
    RevertError,
    RpcError,
    TransactionRefusedError,
    WrongChainIdError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

Block = int | str
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Header:
    """A block's header. timestamp in Unix seconds; base_fee and gas_limit in wei and gas."""

    number: int
    hash: bytes
    parent_hash: bytes
    timestamp: int
    base_fee: int
    gas_limit: int


@dataclass(frozen=True, slots=True)
class Log:
    """An event as the chain has it."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes
    block_number: int
    block_hash: bytes
    transaction_hash: bytes
    log_index: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a transaction that was mined."""

    transaction_hash: bytes
    block_number: int
    block_hash: bytes
    succeeded: bool
    gas_used: int
    contract: bytes | None
    logs: tuple[Log, ...]


def to_hex(value: int | bytes) -> str:
    """A JSON-RPC quantity from an integer, a datum from bytes."""
    return hex(value) if isinstance(value, int) else "0x" + value.hex()


def _block(block: Block) -> str:
    return hex(block) if isinstance(block, int) else block


def _raw(value: str) -> bytes:
    if not value.startswith("0x"):
        raise ValueError(value)
    return bytes.fromhex(value[2:])


def _number(text: str) -> int:
    if not text.startswith("0x"):
        raise ValueError(text)
    return int(text, 16)


def parse_log(entry: dict[str, Any]) -> Log:
    """A Log from its JSON."""
    return Log(
        address=_raw(entry["address"]),
        topics=tuple(_raw(topic) for topic in entry["topics"]),
        data=_raw(entry["data"]),
        block_number=_number(entry["blockNumber"]),
        block_hash=_raw(entry["blockHash"]),
        transaction_hash=_raw(entry["transactionHash"]),
        log_index=_number(entry["logIndex"]),
    )


def _parse_logs(entries: object) -> list[Log]:
    if not isinstance(entries, list):
        raise TypeError("not a list")
    return [parse_log(entry) for entry in entries]


def _parse_header(entry: dict[str, Any]) -> Header:
    return Header(
        number=_number(entry["number"]),
        hash=_raw(entry["hash"]),
        parent_hash=_raw(entry["parentHash"]),
        timestamp=_number(entry["timestamp"]),
        base_fee=_number(entry.get("baseFeePerGas") or "0x0"),
        gas_limit=_number(entry["gasLimit"]),
    )


def _parse_receipt(entry: dict[str, Any]) -> Receipt:
    return Receipt(
        transaction_hash=_raw(entry["transactionHash"]),
        block_number=_number(entry["blockNumber"]),
        block_hash=_raw(entry["blockHash"]),
        succeeded=_number(entry["status"]) == 1,
        gas_used=_number(entry["gasUsed"]),
        contract=_raw(entry["contractAddress"]) if entry.get("contractAddress") else None,
        logs=tuple(parse_log(log) for log in entry["logs"]),
    )


class ChainRpc:
    """A client of one endpoint. Use as an async context, or close() it."""

    def __init__(self, url: str, *, timeout_s: float = 20.0, attempts: int = 4, backoff_s: float = 0.1) -> None:
        """Name the endpoint. timeout_s bounds one attempt; backoff_s is the first pause, doubled with each."""
        self.url = url
        self._timeout_s, self._attempts, self._backoff_s = timeout_s, attempts, backoff_s
        self._session: aiohttp.ClientSession | None = None
        self._ids = itertools.count(1)

    async def __aenter__(self) -> Self:
        """Nothing is asked yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def request(self, method: str, *params: object, once: bool = False) -> Any:  # noqa: ANN401 - JSON
        """The result of one method; `once` for what must not be asked twice.

        Raises:
            ChainUnreachableError: no answer after all attempts.
            MalformedResponseError: what answers does not speak JSON-RPC.
            RevertError: the call reverted, its reason decoded.
            RpcError: the node answered with another error.

        """
        body = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}
        pause, failure = self._backoff_s, "no attempt was made"
        for attempt in range(1 if once else self._attempts):
            if attempt:
                # jitter: two daemons that lost one node do not return in step
                await asyncio.sleep(pause * (0.5 + random.random() / 2))  # noqa: S311 - no secret
                pause = min(pause * 2, 5.0)
            try:
                if self._session is None:
                    self._session = aiohttp.ClientSession()
                limit = aiohttp.ClientTimeout(total=self._timeout_s)
                async with self._session.post(self.url, json=body, timeout=limit) as response:
                    if response.status in _BUSY:
                        failure = f"HTTP status {response.status}"
                        continue
                    answer = await response.json(content_type=None)
            except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
                message = f"{self.url!r} is not an http(s) URL"
                raise ChainUnreachableError(message) from error
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failure = str(error) or type(error).__name__
                continue
            except (ValueError, RecursionError) as error:
                message = f"{self.url} answers {method} with something that is not JSON"
                raise MalformedResponseError(message) from error
            return self._result(method, answer)
        message = f"the chain at {self.url} does not answer {method}: {failure}"
        raise ChainUnreachableError(message, url=self.url)

    def _result(self, method: str, answer: object) -> Any:  # noqa: ANN401 - JSON
        if not isinstance(answer, dict) or ("result" not in answer and not isinstance(answer.get("error"), dict)):
            message = f"{self.url} answers {method} with something that is not JSON-RPC"
            raise MalformedResponseError(message)
        error = answer.get("error")
        if not isinstance(error, dict):
            return answer["result"]
        code, text, data = error.get("code", 0), str(error.get("message", "")), error.get("data")
        if code == 3 or "revert" in text.lower():
            raw = b""
            if isinstance(data, str):
                try:
                    raw = _raw(data)
                except ValueError:
                    raw = b""
            reason = revert_reason(raw) or text.partition("execution reverted:")[2].strip() or "no reason given"
            message = f"the contract refuses: {reason}"
            raise RevertError(message, reason=reason, data=raw, rpc_code=code if isinstance(code, int) else 3)
        message = f"the chain at {self.url} answers {method} with error {code}: {text}"
        raise RpcError(message, rpc_code=code if isinstance(code, int) else 0, data=data)

    async def _parsed(self, parse: Any, method: str, *params: object) -> Any:  # noqa: ANN401 - the caller casts
        result = await self.request(method, *params)
        try:
            return parse(result)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            message = f"{self.url} answers {method} with something malformed: {str(result)[:120]}"
            raise MalformedResponseError(message) from error

    async def _quantity(self, method: str, *params: object) -> int:
        number: int = await self._parsed(_number, method, *params)
        return number

    async def _data(self, method: str, *params: object) -> bytes:
        raw: bytes = await self._parsed(_raw, method, *params)
        return raw

    # -- several endpoints: see endpoints.py ---------------------------------------------------------------------------

    async def compare(self, now: int | None = None, *, force: bool = False) -> bool:  # noqa: ARG002 - one is alone
        """Whether the endpoints agree; one always does."""
        return True

    def require_agreement(self) -> None:
        """Refuse to go on while endpoints contradict each other; one never does."""

    # -- the chain ---------------------------------------------------------------------------------------------------

    async def chain_id(self) -> int:
        """The chain id."""
        return await self._quantity("eth_chainId")

    async def require_chain_id(self, expected: int) -> None:
        """Check the chain id.

        Raises:
            WrongChainIdError: it is another.

        """
        found = await self.chain_id()
        if found != expected:
            message = f"the chain at {self.url} has id {found}, not {expected}"
            raise WrongChainIdError(message, found=found, expected=expected)

    async def block_number(self) -> int:
        """The latest block's number."""
        return await self._quantity("eth_blockNumber")

    async def header(self, block: Block = "latest") -> Header:
        """A block's header.

        Raises:
            RpcError: there is no such block.

        """
        header = await self.find_header(block)
        if header is None:
            message = f"the chain at {self.url} has no block {block}"
            raise RpcError(message)
        return header

    async def find_header(self, block: Block) -> Header | None:
        """A block's header, or None where there is no such block."""
        found: Header | None = await self._parsed(
            lambda entry: None if entry is None else _parse_header(entry), "eth_getBlockByNumber", _block(block), False
        )
        return found

    async def code(self, address: bytes, block: Block = "latest") -> bytes:
        """The code at an address; empty where there is none."""
        return await self._data("eth_getCode", to_hex(address), _block(block))

    async def balance(self, address: bytes, block: Block = "latest") -> int:
        """An address's native balance, wei."""
        return await self._quantity("eth_getBalance", to_hex(address), _block(block))

    async def transaction_count(self, address: bytes, block: Block = "latest") -> int:
        """The next nonce of an address."""
        return await self._quantity("eth_getTransactionCount", to_hex(address), _block(block))

    async def logs(
        self,
        addresses: Sequence[bytes],
        first: int,
        last: int,
        topics: Sequence[bytes | Sequence[bytes] | None] = (),
    ) -> list[Log]:
        """The logs of some contracts in blocks first..last, both included, in order."""
        rows = [
            None if t is None else to_hex(t) if isinstance(t, bytes) else [to_hex(option) for option in t]
            for t in topics
        ]
        query: dict[str, Any] = {"fromBlock": hex(first), "toBlock": hex(last), "topics": rows}
        query["address"] = [to_hex(address) for address in addresses]
        found: list[Log] = await self._parsed(_parse_logs, "eth_getLogs", query)
        return sorted(found, key=lambda log: (log.block_number, log.log_index))

    # -- execution ---------------------------------------------------------------------------------------------------

    async def call(self, to: bytes, data: bytes, *, sender: bytes | None = None, block: Block = "latest") -> bytes:
        """What a contract returns.

        Raises:
            RevertError: it reverts.

        """
        request = {"to": to_hex(to), "input": to_hex(data)}
        if sender is not None:
            request["from"] = to_hex(sender)
        return await self._data("eth_call", request, _block(block))

    async def estimate_gas(self, sender: bytes, to: bytes | None, data: bytes, value: int = 0) -> int:
        """The gas a transaction needs in the next block.

        Raises:
            RevertError: it would revert.
            InsufficientFundsError: the sender cannot pay.

        """
        request = {"from": to_hex(sender), "input": to_hex(data), "value": hex(value)}
        if to is not None:
            request["to"] = to_hex(to)
        try:
            return await self._quantity("eth_estimateGas", request)
        except RevertError:
            raise
        except RpcError as error:
            raise _funds(sender, error) or error from error

    # -- transactions ------------------------------------------------------------------------------------------------

    async def send_raw(self, raw: bytes, *, sender: bytes = b"") -> bytes:
        """Send a signed transaction; returns its hash.

        Raises:
            InsufficientFundsError: the sender cannot pay.
            TransactionRefusedError: the node does not take it (its words are in the message).

        """
        try:
            return await self._data("eth_sendRawTransaction", to_hex(raw))
        except RevertError:
            raise
        except RpcError as error:
            refused = TransactionRefusedError(str(error), rpc_code=error.rpc_code, data=error.data)
            raise _funds(sender, error) or refused from error

    async def receipt(self, transaction_hash: bytes) -> Receipt | None:
        """A transaction's receipt, or None while it is not mined."""
        found: Receipt | None = await self._parsed(
            lambda entry: None if entry is None else _parse_receipt(entry),
            "eth_getTransactionReceipt",
            to_hex(transaction_hash),
        )
        return found

    async def knows(self, transaction_hash: bytes) -> bool:
        """Whether the node has a transaction, mined or waiting."""
        return await self.request("eth_getTransactionByHash", to_hex(transaction_hash)) is not None

    async def priority_fee(self) -> int:
        """A priority fee per gas that gets a transaction mined, wei; 1 gwei where the node has no opinion."""
        try:
            return await self._quantity("eth_maxPriorityFeePerGas")
        except RpcError:
            return 10**9

    # -- a devnet's own methods --------------------------------------------------------------------------------------

    async def devnet_clock(self) -> dict[str, Any] | None:
        """A devnet's clock {time_ms, offset_ms, revision, controllable}, or None where this is no devnet."""
        try:
            clock = await self.request("channeld_clock")
        except RpcError:
            return None
        return clock if isinstance(clock, dict) else None

    async def advance(self, seconds: float) -> dict[str, Any]:
        """Move a devnet's clock forward by `seconds` and mine a block there."""
        clock: dict[str, Any] = await self.request("channeld_advance", seconds, once=True)
        return clock

    async def set_time(self, unix_seconds: float) -> dict[str, Any]:
        """Move a devnet's clock forward to a time (Unix seconds) and mine a block there."""
        clock: dict[str, Any] = await self.request("channeld_setTime", unix_seconds)
        return clock

    async def faucet(self, address: bytes, wei: int = 10**20) -> None:
        """Give an address native currency on a devnet."""
        await self.request("channeld_faucet", to_hex(address), hex(wei), once=True)


def _funds(sender: bytes, error: RpcError) -> InsufficientFundsError | None:
    if "insufficient funds" not in str(error).lower():
        return None
    message = f"0x{sender.hex()} cannot pay for gas and value"
    return InsufficientFundsError(message, address="0x" + sender.hex(), node=str(error))
