"""The transaction manager: one sender, its nonces in order, fees that rise until a transaction is mined.

Rules: one manager per sending key and process. Nonces are given out under one lock, and a nonce whose transaction was
refused is given again. Gas is estimated before anything is signed, so that what would revert is refused at no cost.
Once signed, an intent keeps its nonce, and so has one effect at most: what may not have arrived is sent again, byte for
byte, and what is not mined in time is replaced at a higher fee. What is awaited is the receipt, at the confirmations
configured, on the chain as it stands then; what a reorganisation took away is sent again.

Fees end at the cap; a transaction with a deadline may go beyond it, up to its own budget, and rises the faster the
nearer the deadline is. Whatever stands before it at a lower nonce is raised with it, since it could not be mined alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from channeld.chain.errors import (
    ChainUnreachableError,
    InsufficientFundsError,
    RevertError,
    RpcError,
    TransactionNotMinedError,
    TransactionRefusedError,
    TransactionRevertedError,
)
from channeld.core.crypto import address_of, keccak256

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from channeld.chain.contracts import Call
    from channeld.chain.rpc import ChainRpc, Receipt

GWEI = 10**9
# nodes take a replacement from +10% on
LEAST_BUMP_PERCENT = 10
# how much of the time that is left to a deadline one attempt may take
ATTEMPTS_TO_DEADLINE = 8
# sent transactions that are remembered, to be sent again after a reorganisation
REMEMBERED = 256
PLAIN_GAS = 21_000


class TransactionSigner(Protocol):
    """What signs transactions: a local key here, a remote signer elsewhere."""

    @property
    def address(self) -> bytes:
        """The sender, 20 bytes."""
        ...

    def sign_transaction(self, transaction: dict[str, Any]) -> bytes | Awaitable[bytes]:
        """The raw signed transaction, at once or awaited.

        Raises:
            ChanneldError: of a remote signer; nothing was signed.

        """
        ...


class LocalSigner:
    """A key in this process."""

    def __init__(self, private_key: bytes) -> None:
        """Hold the key (32 bytes)."""
        self._key = private_key
        self._address = address_of(private_key)

    @property
    def address(self) -> bytes:
        """The sender, 20 bytes."""
        return self._address

    def sign_transaction(self, transaction: dict[str, Any]) -> bytes:
        """The raw signed transaction."""
        from eth_account import Account  # noqa: PLC0415 - slow to import

        account: Any = Account
        return bytes(account.sign_transaction(transaction, self._key).raw_transaction)


@dataclass(frozen=True, slots=True)
class Fees:
    """How fees are chosen, wei per gas; bump_percent: the rise at a replacement. The cap holds for those too."""

    cap: int = 500 * GWEI
    priority_floor: int = 1
    bump_percent: int = 25


@dataclass(frozen=True, slots=True)
class Deadline:
    """By when a transaction must be mined (Unix seconds of the chain), and what its gas may cost for that (wei)."""

    time: int
    budget: int


@dataclass
class Pending:
    """A transaction on its way: one nonce, one or more hashes (replacements). mined: its receipt was seen."""

    label: str
    nonce: int
    transaction: dict[str, Any]
    raw: bytes
    hashes: list[bytes] = field(default_factory=list)
    arrived: bool = False
    mined: bool = False
    deadline: Deadline | None = None

    @property
    def hash(self) -> bytes:
        """The latest hash."""
        return self.hashes[-1]


class TransactionManager:
    """Sends the transactions of one key."""

    def __init__(
        self,
        rpc: ChainRpc,
        signer: TransactionSigner,
        *,
        chain_id: int,
        confirmations: int = 1,
        gas_margin_percent: int = 120,
        fees: Fees | None = None,
        poll_s: float = 0.05,
        replace_after_s: float = 45.0,
        timeout_s: float = 600.0,
    ) -> None:
        """Bind to a chain and a key.

        Args:
            rpc: the chain.
            signer: the sending key.
            chain_id: what every signature binds to.
            confirmations: blocks that must hold a transaction, its own counted; 1 is "mined".
            gas_margin_percent: the gas limit in percent of the estimate.
            fees: how fees are chosen.
            poll_s: the first pause between two looks for a receipt; it grows to 2 s.
            replace_after_s: a transaction not mined for this long is replaced at a higher fee (real seconds).
            timeout_s: when to give up waiting (real seconds).

        """
        self.rpc, self.signer, self.chain_id = rpc, signer, chain_id
        self.confirmations = max(1, confirmations)
        self._gas_margin_percent, self._fees = gas_margin_percent, fees or Fees()
        self._poll_s, self._replace_after_s, self._timeout_s = poll_s, replace_after_s, timeout_s
        self._lock = asyncio.Lock()
        self._next_nonce: int | None = None
        self._sent: dict[int, Pending] = {}

    @property
    def address(self) -> bytes:
        """The sender, 20 bytes."""
        return self.signer.address

    async def transact(self, call: Call, *, value: int = 0, deadline: Deadline | None = None) -> Receipt:
        """Send a call and wait until it is confirmed; value in wei.

        Raises:
            RevertError: the contract refuses it; nothing was sent.
            TransactionRevertedError: it was mined and reverted.
            InsufficientFundsError, TransactionRefusedError, TransactionNotMinedError, ChainUnreachableError: as named.

        """
        return await self.wait(await self.send(call, value=value, deadline=deadline))

    async def send(
        self, call: Call, *, value: int = 0, gas: int | None = None, deadline: Deadline | None = None
    ) -> Pending:
        """Estimate, sign and send a call; does not wait for it. Errors as `transact`."""
        return await self._send(call.to, call.data, call.label, value, gas, deadline)

    async def deploy(self, initcode: bytes, label: str) -> Receipt:
        """Deploy a contract and wait; its address is the receipt's `contract`. Errors as `transact`."""
        return await self.wait(await self._send(None, initcode, f"deploy {label}", 0, None))

    async def _send(
        self, to: bytes | None, data: bytes, label: str, value: int, gas: int | None, deadline: Deadline | None = None
    ) -> Pending:
        if gas is None:
            estimate = await self.rpc.estimate_gas(self.address, to, data, value)
            header = await self.rpc.header()
            gas = min(estimate * self._gas_margin_percent // 100, header.gas_limit)
        async with self._lock:
            for attempt in range(3):
                priority, most = await self._prices(self._cap(gas, deadline))
                nonce = await self._nonce()
                transaction: dict[str, Any] = {
                    "type": 2,
                    "chainId": self.chain_id,
                    "nonce": nonce,
                    "value": value,
                    "data": data,
                    "gas": gas,
                    "maxFeePerGas": most,
                    "maxPriorityFeePerGas": priority,
                }
                if to is not None:
                    transaction["to"] = to
                raw = await self._sign(transaction)
                pending = Pending(label, nonce, transaction, raw, [keccak256(raw)], deadline=deadline)
                try:
                    await self._broadcast(pending)
                except TransactionRefusedError as error:
                    # somebody else used this key, or the fee rose while we looked: look again
                    self._next_nonce = None
                    if attempt == 2 or not any(word in str(error).lower() for word in ("nonce", "fee")):
                        raise
                    continue
                except InsufficientFundsError:
                    self._next_nonce = None
                    raise
                self._next_nonce = nonce + 1
                self._remember(pending)
                return pending
        message = f"the node would not take {label}"  # pragma: no cover - the loop returns or raises
        raise TransactionRefusedError(message)  # pragma: no cover - the same

    async def _sign(self, transaction: dict[str, Any]) -> bytes:
        signed = self.signer.sign_transaction(transaction)
        return signed if isinstance(signed, bytes) else await signed

    def _remember(self, pending: Pending) -> None:
        self._sent[pending.nonce] = pending
        while len(self._sent) > REMEMBERED:
            del self._sent[min(self._sent)]

    def _cap(self, gas: int, deadline: Deadline | None) -> int:
        """The most wei per gas: the cap of all, or what a deadline's budget pays for where that is more."""
        return self._fees.cap if deadline is None else max(self._fees.cap, deadline.budget // max(1, gas))

    async def _broadcast(self, pending: Pending) -> None:
        try:
            await self.rpc.send_raw(pending.raw, sender=self.address)
        except ChainUnreachableError:
            # it may have arrived all the same: wait() finds out, and sends the same bytes again
            return
        except TransactionRefusedError:
            # "already known", or "nonce too low" of itself: an earlier attempt arrived though its answer did not
            if not await self.rpc.knows(pending.hash):
                raise
        pending.arrived = True

    async def _nonce(self) -> int:
        counted = await self.rpc.transaction_count(self.address, "pending")
        expected = self._next_nonce or 0
        # a node behind a balancer may not know our last transactions yet; after a deep reorganisation none does
        for nonce in range(counted, expected):
            gone = self._sent.get(nonce)
            if gone is None:
                return nonce
            # refused: mined after all, or no funds, of which whoever sends next is told
            with contextlib.suppress(TransactionRefusedError, InsufficientFundsError):
                await self._again(gone)
        return max(counted, expected)

    async def _again(self, pending: Pending) -> None:
        """Send what was sent before; at today's fees, where those of then are too low."""
        try:
            await self._broadcast(pending)
        except TransactionRefusedError as error:
            if "fee" not in str(error).lower():
                raise
            await self._raise_to(pending, *await self._prices(self._cap(pending.transaction["gas"], pending.deadline)))

    async def _prices(self, cap: int) -> tuple[int, int]:
        header = await self.rpc.header()
        priority = max(await self.rpc.priority_fee(), self._fees.priority_floor)
        most = min(2 * header.base_fee + priority, cap)
        if header.base_fee > most:
            message = f"the chain asks {header.base_fee} wei per gas, above the cap of {most}"
            raise TransactionRefusedError(message)
        return min(priority, most), most

    async def wait(self, pending: Pending) -> Receipt:
        """Wait until a transaction is mined and confirmed, replacing it where it is stuck.

        An endpoint that does not answer is asked again until the time is up.

        Raises:
            TransactionRevertedError: it was mined and reverted.
            TransactionNotMinedError: not in time, or another transaction has taken its nonce.

        """
        loop = asyncio.get_running_loop()
        begin = replaced = loop.time()
        pause = self._poll_s
        while True:
            with contextlib.suppress(ChainUnreachableError):
                receipt = await self._find(pending)
                if receipt is not None:
                    pending.mined = True
                    if await self._confirmed(receipt):
                        break
                    replaced = loop.time()
                elif pending.mined or not pending.arrived:
                    pending.mined = False
                    await self._again(pending)
                elif loop.time() - replaced > await self._patience(pending):
                    await self._replace(pending)
                    replaced = loop.time()
            if loop.time() - begin > self._timeout_s:
                message = f"{pending.label} was not confirmed within {self._timeout_s:.0f} s"
                raise TransactionNotMinedError(message, transaction="0x" + pending.hash.hex(), nonce=pending.nonce)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 2.0)
        if not receipt.succeeded:
            reason = await self._why(pending, receipt)
            message = f"{pending.label} was mined and reverted: {reason}"
            raise TransactionRevertedError(message, reason=reason, transaction="0x" + receipt.transaction_hash.hex())
        return receipt

    async def _find(self, pending: Pending) -> Receipt | None:
        for transaction_hash in reversed(pending.hashes):
            receipt = await self.rpc.receipt(transaction_hash)
            if receipt is not None:
                return receipt
        return None

    async def _confirmed(self, receipt: Receipt) -> bool:
        if self.confirmations == 1:
            return True
        return await self.rpc.block_number() - receipt.block_number + 1 >= self.confirmations

    async def _patience(self, pending: Pending) -> float:
        """How long to wait for an attempt to be mined, seconds: a part of what is left to the deadline at most."""
        if pending.deadline is None:
            return self._replace_after_s
        left = pending.deadline.time - (await self.rpc.header()).timestamp
        return min(self._replace_after_s, max(left / ATTEMPTS_TO_DEADLINE, self._poll_s))

    async def _replace(self, pending: Pending) -> None:
        mined = await self.rpc.transaction_count(self.address)
        if mined > pending.nonce and await self._find(pending) is None:
            message = f"another transaction of 0x{self.address.hex()} has taken the nonce of {pending.label}"
            raise TransactionNotMinedError(message, transaction="0x" + pending.hash.hex(), nonce=pending.nonce)
        before = pending.transaction
        base_fee = (await self.rpc.header()).base_fee
        priority = before["maxPriorityFeePerGas"] * (100 + self._fees.bump_percent) // 100 + 1
        wanted = max(before["maxFeePerGas"] * (100 + self._fees.bump_percent) // 100 + 1, 2 * base_fee + priority)
        most = min(wanted, self._cap(before["gas"], pending.deadline))
        for nonce in range(mined, pending.nonce):
            await self._unblock(nonce, min(priority, most), most, urgent=pending.deadline is not None)
        # no node takes a smaller rise; what is at its cap stays as it is
        if most * 100 >= before["maxFeePerGas"] * (100 + LEAST_BUMP_PERCENT):
            await self._raise_to(pending, min(priority, most), most)

    async def _raise_to(self, pending: Pending, priority: int, most: int) -> None:
        raised = pending.transaction | {"maxFeePerGas": most, "maxPriorityFeePerGas": priority}
        raw = await self._sign(raised)
        # "nonce too low": one of them has just been mined; "underpriced" or no funds: the next round tries again
        with contextlib.suppress(TransactionRefusedError, InsufficientFundsError):
            await self.rpc.send_raw(raw, sender=self.address)
            pending.transaction, pending.raw = raised, raw
            pending.hashes.append(keccak256(raw))

    async def _unblock(self, nonce: int, priority: int, most: int, *, urgent: bool) -> None:
        """Raise an earlier transaction that keeps a later one from being mined.

        One that this process does not know, of an earlier life, gives way to an empty one where the later is urgent:
        what it was for is derived again.
        """
        earlier = self._sent.get(nonce)
        if earlier is not None:
            if most * 100 >= earlier.transaction["maxFeePerGas"] * (100 + LEAST_BUMP_PERCENT):
                await self._raise_to(earlier, priority, most)
        elif urgent:
            empty = {
                "type": 2,
                "chainId": self.chain_id,
                "nonce": nonce,
                "to": self.address,
                "value": 0,
                "data": b"",
                "gas": PLAIN_GAS,
                "maxFeePerGas": most,
                "maxPriorityFeePerGas": priority,
            }
            with contextlib.suppress(TransactionRefusedError, InsufficientFundsError):
                await self.rpc.send_raw(await self._sign(empty), sender=self.address)

    async def _why(self, pending: Pending, receipt: Receipt) -> str:
        to = pending.transaction.get("to")
        if to is None:
            return "the deployment failed"
        try:
            await self.rpc.call(to, pending.transaction["data"], sender=self.address, block=receipt.block_number)
        except RevertError as error:
            return error.reason
        except RpcError as error:
            return str(error)
        return "it would succeed now: what it relied on had changed, or the gas ran out"
