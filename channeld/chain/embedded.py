"""The embedded chain: eth-tester's py-evm chain with an index of its own, answering Ethereum's JSON-RPC methods.

Rules: eth-tester and py-evm are imported here alone, when a chain is made. Nothing here is thread-safe: the devnet runs
`apply`, `mine`, `reorganise` and `execute` in one worker thread, one at a time; reads of the index run anywhere. Every
transaction is mined at once, in a block of its own, at the timestamp the devnet gives.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any

from channeld.chain.errors import ChainStartError
from channeld.chain.jsonrpc import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    REVERTED,
    SERVER_ERROR,
    RpcFault,
    data,
    hexadecimal,
    parameter,
    quantity,
)
from channeld.core.crypto import address_of, keccak256

FAUCET_KEY = keccak256(b"channeld devnet faucet")
GAS_LIMIT = 60_000_000
_FUNDS = 10**36
_PRIORITY_FEE = 10**9
_ERROR_STRING = bytes.fromhex("08c379a0")
_NONCE = re.compile(r"nonce: Expected (\d+), but got (\d+)")


class EmbeddedChain:
    """One chain in memory. Blocks are kept as the JSON that clients get, so that reads cost nothing."""

    def __init__(self, chain_id: int, start_time: int, gas_limit: int = GAS_LIMIT) -> None:
        """Make the genesis block at `start_time` (Unix seconds).

        Raises:
            ChainStartError: eth-tester or py-evm is not installed.

        """
        try:
            from eth.vm.spoof import SpoofTransaction  # noqa: PLC0415 - an optional dependency, and slow to import
            from eth_tester.backends.pyevm.main import (  # noqa: PLC0415 - the same
                get_default_genesis_params,
                setup_tester_chain,
            )
        except ImportError as error:
            message = f"the embedded chain needs eth-tester with py-evm: {error}"
            raise ChainStartError(message) from error
        self.chain_id = chain_id
        self._spoof = SpoofTransaction
        state = {address_of(FAUCET_KEY): {"balance": _FUNDS, "nonce": 0, "code": b"", "storage": {}}}
        params = get_default_genesis_params({"timestamp": start_time, "gas_limit": gas_limit})
        _, chain = setup_tester_chain(params, state)
        chain.chain_id = chain_id
        self._chain: Any = chain
        self._headers: list[Any] = [chain.get_canonical_head()]
        self._blocks: list[dict[str, Any]] = [self._describe(chain.get_canonical_block_by_number(0), [])]
        self._logs: list[list[dict[str, Any]]] = [[]]
        self._numbers: dict[str, int] = {self._blocks[0]["hash"]: 0}
        self._transactions: dict[str, dict[str, Any]] = {}
        self._receipts: dict[str, dict[str, Any]] = {}
        self._salt = 0

    # -- the head ----------------------------------------------------------------------------------------------------

    @property
    def number(self) -> int:
        """The latest block's number."""
        return len(self._blocks) - 1

    @property
    def timestamp(self) -> int:
        """The latest block's timestamp, Unix seconds."""
        return int(self._headers[-1].timestamp)

    # -- changes: in the worker thread, one at a time ----------------------------------------------------------------

    def apply(self, raw: bytes, timestamp: int) -> str:
        """Mine a signed transaction in a block at `timestamp`; returns its hash.

        Raises:
            RpcFault: it is malformed, or cannot be included. Nothing has changed then.

        """
        self._chain.set_header_timestamp(timestamp)
        try:
            transaction = self._chain.get_vm().get_transaction_builder().decode(raw)
            sender = transaction.sender
        except Exception as error:
            # rlp, eth-keys and py-evm each raise their own
            raise RpcFault(SERVER_ERROR, f"failed to decode signed transaction: {error}") from error
        transaction_hash = hexadecimal(transaction.hash)
        if transaction_hash in self._receipts:
            raise RpcFault(SERVER_ERROR, "already known")
        if transaction.chain_id != self.chain_id:
            found = transaction.chain_id
            raise RpcFault(SERVER_ERROR, f"invalid chain id for signer: have {found} want {self.chain_id}")
        try:
            _, receipt, computation = self._chain.apply_transaction(transaction)
        except Exception as error:
            # validation errors of several libraries; py-evm has not moved its head
            raise RpcFault(SERVER_ERROR, _refusal(str(error))) from error
        self._seal([(transaction, sender, receipt, computation)])
        return transaction_hash

    def mine(self, timestamp: int) -> None:
        """Mine an empty block at `timestamp` (Unix seconds)."""
        self._chain.set_header_timestamp(timestamp)
        self._seal([])

    def reorganise(self, depth: int, timestamp: int) -> None:
        """Replace the last `depth` blocks by as many empty ones and one more, from `timestamp` on.

        Raises:
            RpcFault: the chain is not longer than `depth`.

        """
        if not 1 <= depth <= self.number:
            raise RpcFault(INVALID_PARAMS, f"cannot replace {depth} of {self.number} blocks")
        keep = len(self._blocks) - depth
        for block in self._blocks[keep:]:
            del self._numbers[block["hash"]]
            for transaction_hash in block["transactions"]:
                self._transactions.pop(transaction_hash, None)
                self._receipts.pop(transaction_hash, None)
        del self._blocks[keep:], self._headers[keep:], self._logs[keep:]
        self._chain.header = self._chain.create_header_from_parent(self._headers[-1])
        for _ in range(depth + 1):
            self.mine(max(timestamp, self.timestamp + 1))

    def _seal(self, included: list[tuple[Any, bytes, Any, Any]]) -> None:
        self._salt += 1
        # prevrandao: deterministic, and different in each block that was ever made, replaced ones included
        block = self._chain.mine_block(
            coinbase=b"\0" * 20, mix_hash=keccak256(self._salt.to_bytes(32, "big")), blob_gas_used=0
        )
        header = block.header
        description = self._describe(block, [hexadecimal(entry[0].hash) for entry in included])
        where = {"blockHash": description["hash"], "blockNumber": description["number"]}
        logs: list[dict[str, Any]] = []
        for index, (transaction, sender, receipt, computation) in enumerate(included):
            place = where | {"transactionIndex": hex(index)}
            entry = _transaction(transaction, sender, header.base_fee_per_gas) | place
            own = [
                {
                    "address": hexadecimal(log.address),
                    "topics": ["0x" + topic.to_bytes(32, "big").hex() for topic in log.topics],
                    "data": hexadecimal(log.data),
                    "logIndex": hex(len(logs) + position),
                    "transactionHash": entry["hash"],
                    "blockTimestamp": description["timestamp"],
                    "removed": False,
                }
                | place
                for position, log in enumerate(receipt.logs)
            ]
            logs.extend(own)
            self._transactions[entry["hash"]] = entry
            self._receipts[entry["hash"]] = place | {
                "transactionHash": entry["hash"],
                "from": entry["from"],
                "to": entry["to"],
                "type": entry["type"],
                "status": "0x0" if computation.is_error else "0x1",
                "gasUsed": hex(receipt.gas_used),
                "cumulativeGasUsed": hex(receipt.gas_used),
                "effectiveGasPrice": entry["gasPrice"],
                "contractAddress": None if transaction.to else hexadecimal(computation.msg.storage_address),
                "logs": own,
                "logsBloom": "0x" + receipt.bloom.to_bytes(256, "big").hex(),
            }
        self._headers.append(header)
        self._logs.append(logs)
        self._numbers[description["hash"]] = len(self._blocks)
        self._blocks.append(description)

    @staticmethod
    def _describe(block: Any, hashes: list[str]) -> dict[str, Any]:  # noqa: ANN401 - py-evm is untyped
        header = block.header
        return {
            "number": hex(header.block_number),
            "hash": hexadecimal(header.hash),
            "parentHash": hexadecimal(header.parent_hash),
            "nonce": hexadecimal(header.nonce),
            "sha3Uncles": hexadecimal(header.uncles_hash),
            "logsBloom": "0x" + header.bloom.to_bytes(256, "big").hex(),
            "transactionsRoot": hexadecimal(header.transaction_root),
            "receiptsRoot": hexadecimal(header.receipt_root),
            "stateRoot": hexadecimal(header.state_root),
            "miner": hexadecimal(header.coinbase),
            "difficulty": "0x0",
            "totalDifficulty": "0x0",
            "mixHash": hexadecimal(header.mix_hash),
            "extraData": hexadecimal(header.extra_data),
            "size": "0x400",
            "gasLimit": hex(header.gas_limit),
            "gasUsed": hex(header.gas_used),
            "timestamp": hex(header.timestamp),
            "baseFeePerGas": hex(header.base_fee_per_gas),
            "transactions": hashes,
            "uncles": [],
        }

    # -- execution: in the worker thread -----------------------------------------------------------------------------

    def execute(self, method: str, params: list[Any], timestamp: int) -> Any:  # noqa: ANN401 - JSON
        """Answer a method that needs the state or the EVM; `timestamp` is what the next block would have.

        Raises:
            RpcFault: a revert (code 3), or bad parameters.

        """
        if method == "eth_call":
            return self._call(parameter(params, 0), parameter(params, 1, "latest"), timestamp)
        if method == "eth_estimateGas":
            # estimated as of the next block, where the transaction will run
            return self._estimate(parameter(params, 0), parameter(params, 1, "pending"), timestamp)
        address = data(parameter(params, 0), "address", 20)
        if method == "eth_getStorageAt":
            state = self._state(parameter(params, 2, "latest"), timestamp)
            slot = quantity(parameter(params, 1), "slot")
            return "0x" + state.get_storage(address, slot).to_bytes(32, "big").hex()
        state = self._state(parameter(params, 1, "latest"), timestamp)
        read = {"eth_getBalance": "get_balance", "eth_getCode": "get_code", "eth_getTransactionCount": "get_nonce"}
        return hexadecimal(getattr(state, read[method])(address))

    def _state(self, block: object, timestamp: int) -> Any:  # noqa: ANN401 - py-evm is untyped
        header = self._chain.header.copy(timestamp=timestamp) if block == "pending" else self._headers[self.find(block)]
        return self._chain.get_vm(header.copy(base_fee_per_gas=0)).state

    def _run(self, request: object, block: object, timestamp: int, gas: int | None = None) -> tuple[Any, int, bytes]:
        if not isinstance(request, dict):
            raise RpcFault(INVALID_PARAMS, "the transaction must be an object")
        state = self._state(block, timestamp)
        limit = int(self._headers[-1].gas_limit)
        if gas is None:
            gas = min(quantity(request["gas"], "gas"), limit) if request.get("gas") is not None else limit
        sender = data(request.get("from") or "0x" + "00" * 20, "from", 20)
        payload = data(request.get("input") or request.get("data") or "0x", "input")
        unsigned = self._chain.get_transaction_builder().new_unsigned_dynamic_fee_transaction(
            chain_id=self.chain_id,
            nonce=state.get_nonce(sender),
            max_priority_fee_per_gas=0,
            max_fee_per_gas=0,
            gas=gas,
            to=data(request["to"], "to", 20) if request.get("to") else b"",
            value=quantity(request.get("value") or 0, "value"),
            data=payload,
            access_list=(),
        )
        try:
            computation = state.apply_transaction(self._spoof(unsigned, from_=sender))
        except Exception as error:
            raise RpcFault(SERVER_ERROR, _refusal(str(error))) from error
        return computation, gas, payload

    def _call(self, request: object, block: object, timestamp: int) -> str:
        computation, _, _ = self._run(request, block, timestamp)
        _raise_failure(computation)
        return hexadecimal(computation.output)

    def _estimate(self, request: object, block: object, timestamp: int) -> str:
        computation, gas, payload = self._run(request, block, timestamp)
        _raise_failure(computation)
        # what was spent before refunds; inner calls keep back a 64th of what there is, and contracts may ask for
        # more than they use: grow until it runs
        spent = gas - computation.get_gas_remaining()
        tokens = 4 * len(payload) - 3 * payload.count(0)
        estimate = max(spent, 21_000 + 10 * tokens)
        while estimate < gas:
            computation, _, _ = self._run(request, block, timestamp, estimate)
            if not computation.is_error:
                break
            estimate = min(gas, estimate + estimate // 4 + 3_000)
        return hex(estimate)

    # -- reads of the index ------------------------------------------------------------------------------------------

    def find(self, block: object) -> int:
        """The number of a block from a tag, a quantity, or an EIP-1898 object.

        Raises:
            RpcFault: there is no such block.

        """
        if block in ("latest", "safe", "finalized", "pending", None):
            return self.number
        if block == "earliest":
            return 0
        if isinstance(block, dict):
            if "blockHash" in block:
                number = self._numbers.get(str(block["blockHash"]).lower())
                if number is None:
                    raise RpcFault(SERVER_ERROR, "header for hash not found")
                return number
            block = block.get("blockNumber")
        number = quantity(block, "block")
        if number > self.number:
            raise RpcFault(SERVER_ERROR, "header not found")
        return number

    def read(self, method: str, params: list[Any]) -> Any:  # noqa: ANN401, C901, PLR0911 - JSON; one branch a method
        """Answer a method from the index.

        Raises:
            RpcFault: bad parameters, or an unknown method.

        """
        match method:
            case "eth_chainId":
                return hex(self.chain_id)
            case "net_version":
                return str(self.chain_id)
            case "eth_blockNumber":
                return hex(self.number)
            case "eth_getBlockByNumber":
                with contextlib.suppress(RpcFault):
                    return self._block(self.find(_block_parameter(params)), parameter(params, 1, False))
                return None
            case "eth_getBlockByHash":
                number = self._numbers.get(hexadecimal(data(parameter(params, 0), "hash", 32)))
                return None if number is None else self._block(number, parameter(params, 1, False))
            case "eth_getTransactionReceipt":
                return self._receipts.get(hexadecimal(data(parameter(params, 0), "hash", 32)))
            case "eth_getTransactionByHash":
                return self._transactions.get(hexadecimal(data(parameter(params, 0), "hash", 32)))
            case "eth_getLogs":
                return self._filter(parameter(params, 0))
            case "eth_gasPrice":
                return hex(self._chain.header.base_fee_per_gas + _PRIORITY_FEE)
            case "eth_maxPriorityFeePerGas":
                return hex(_PRIORITY_FEE)
            case "eth_feeHistory":
                return self._fee_history(params)
            case "eth_syncing":
                return False
            case "eth_accounts":
                return []
        raise RpcFault(METHOD_NOT_FOUND, f"the method {method} does not exist/is not available")

    def _block(self, number: int, full: object) -> dict[str, Any]:
        block = self._blocks[number]
        return block | {"transactions": [self._transactions[h] for h in block["transactions"]]} if full else block

    def _filter(self, query: object) -> list[dict[str, Any]]:
        if not isinstance(query, dict):
            raise RpcFault(INVALID_PARAMS, "the filter must be an object")
        if query.get("blockHash") is not None:
            first = last = self.find({"blockHash": query["blockHash"]})
        else:
            first, last = (self._bound(query.get(name)) for name in ("fromBlock", "toBlock"))
            if first > last:
                raise RpcFault(INVALID_PARAMS, "invalid block range params")
        addresses = query.get("address")
        wanted = None
        if addresses is not None:
            listed = addresses if isinstance(addresses, list) else [addresses]
            wanted = {hexadecimal(data(address, "address", 20)) for address in listed}
        topics = query.get("topics") or []
        if not isinstance(topics, list):
            raise RpcFault(INVALID_PARAMS, "topics must be a list")
        rows = [
            None if t is None else {hexadecimal(data(x, "topic", 32)) for x in (t if isinstance(t, list) else [t])}
            for t in topics
        ]
        return [
            log
            for logs in self._logs[first : last + 1]
            for log in logs
            if (not wanted or log["address"] in wanted)
            and len(rows) <= len(log["topics"])
            and all(not row or topic in row for row, topic in zip(rows, log["topics"], strict=False))
        ]

    def _bound(self, block: object) -> int:
        # a range may end beyond the head
        if isinstance(block, str) and block.startswith("0x"):
            return min(quantity(block, "block"), self.number + 1)
        return self.find(block)

    def _fee_history(self, params: list[Any]) -> dict[str, Any]:
        newest = self.find(parameter(params, 1, "latest"))
        count = max(1, min(quantity(parameter(params, 0), "blockCount"), 1024, newest + 1))
        percentiles = parameter(params, 2, [])
        headers = self._headers[newest - count + 1 : newest + 1]
        following = self._headers[newest + 1] if newest < self.number else self._chain.header
        return {
            "oldestBlock": hex(newest - count + 1),
            "baseFeePerGas": [hex(h.base_fee_per_gas) for h in [*headers, following]],
            "gasUsedRatio": [h.gas_used / h.gas_limit for h in headers],
            "reward": [[hex(_PRIORITY_FEE)] * len(percentiles) for _ in headers],
        }


def _block_parameter(params: list[Any]) -> object:
    return parameter(params, 0, "latest")


def _transaction(transaction: Any, sender: bytes, base_fee: int) -> dict[str, Any]:  # noqa: ANN401 - py-evm is untyped
    kind = int(getattr(transaction, "type_id", None) or 0)
    entry: dict[str, Any] = {
        "hash": hexadecimal(transaction.hash),
        "type": hex(kind),
        "nonce": hex(transaction.nonce),
        "from": hexadecimal(sender),
        "to": hexadecimal(transaction.to) if transaction.to else None,
        "value": hex(transaction.value),
        "gas": hex(transaction.gas),
        "input": hexadecimal(transaction.data),
        "chainId": hex(transaction.chain_id),
        "r": hex(transaction.r),
        "s": hex(transaction.s),
    }
    if kind >= 2:
        tip = min(transaction.max_priority_fee_per_gas, transaction.max_fee_per_gas - base_fee)
        entry |= {
            "maxFeePerGas": hex(transaction.max_fee_per_gas),
            "maxPriorityFeePerGas": hex(transaction.max_priority_fee_per_gas),
            "gasPrice": hex(base_fee + tip),
        }
    else:
        entry["gasPrice"] = hex(transaction.gas_price)
    if kind:
        entry |= {"accessList": [], "yParity": hex(transaction.y_parity), "v": hex(transaction.y_parity)}
    else:
        entry["v"] = hex(transaction.v)
    return entry


def _refusal(text: str) -> str:
    """Geth's words for py-evm's: clients tell these cases apart by their words."""
    nonce = _NONCE.search(text)
    if nonce:
        state, found = int(nonce[1]), int(nonce[2])
        return f"nonce too {'low' if found < state else 'high'}: next nonce {state}, tx nonce {found}"
    if "does not have enough balance" in text or "cannot afford" in text.lower():
        return f"insufficient funds for gas * price + value: {text}"
    if "max fee per gas" in text:
        return f"max fee per gas less than block base fee: {text}"
    if "intrinsic" in text.lower() or "insufficient gas" in text.lower():
        return f"intrinsic gas too low: {text}"
    return text


def _raise_failure(computation: Any) -> None:  # noqa: ANN401 - py-evm is untyped
    if not computation.is_error:
        return
    error = computation.error
    if type(error).__name__ != "Revert":
        raise RpcFault(SERVER_ERROR, f"{type(error).__name__}: {error}")
    raw = error.args[0] if error.args and isinstance(error.args[0], bytes) else b""
    raise RpcFault(REVERTED, revert_message(raw), hexadecimal(raw))


def revert_message(raw: bytes) -> str:
    """Geth's message of a revert: "execution reverted", and the reason of an Error(string)."""
    if raw[:4] == _ERROR_STRING and len(raw) >= 68:
        size = int.from_bytes(raw[36:68], "big")
        return f"execution reverted: {raw[68 : 68 + size].decode('utf-8', 'replace')}"
    return "execution reverted"
