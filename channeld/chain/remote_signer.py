"""A remote signer of transactions: Web3Signer's eth_signTransaction, and whatever speaks it (HSM, vault, hardware).

Rules: the key stays where it is. What comes back is believed only after it was decoded: it must be the very
transaction that was asked for, signed by the address that was named. Nothing is sent from here.
"""

from __future__ import annotations

import asyncio
from typing import Any

from channeld.chain.errors import RpcError
from channeld.chain.rpc import ChainRpc, to_hex
from channeld.core.crypto import checksum_address
from channeld.core.errors import ChainError

_QUANTITIES = ("chainId", "nonce", "value", "gas", "maxFeePerGas", "maxPriorityFeePerGas")


class RemoteSignerError(ChainError):
    """The remote signer refuses, or signed something else than it was asked to. Nothing was sent."""

    code = 5202
    advice = "See the signer's log: it must hold the key of this address, serve this chain, and allow the transaction."


class RemoteSigner:
    """A `TransactionSigner` at a URL."""

    def __init__(self, url: str, address: bytes, *, timeout_s: float = 60.0) -> None:
        """Name the signer and the address (20 bytes) whose key it holds; timeout_s allows for a person's approval."""
        self._rpc = ChainRpc(url, timeout_s=timeout_s, attempts=1)
        self._address = address

    @property
    def address(self) -> bytes:
        """The sender, 20 bytes."""
        return self._address

    async def close(self) -> None:
        """Close the connection."""
        await self._rpc.close()

    async def sign_transaction(self, transaction: dict[str, Any]) -> bytes:
        """The raw signed transaction.

        Raises:
            RemoteSignerError: it refuses, or what it returns is another transaction, or another key's.
            ChainUnreachableError, MalformedResponseError: it does not answer.

        """
        asked = {name: hex(transaction[name]) for name in _QUANTITIES}
        asked |= {"from": to_hex(self._address), "data": to_hex(transaction["data"]), "type": "0x2"}
        if "to" in transaction:
            asked["to"] = to_hex(transaction["to"])
        try:
            answer = await self._rpc.request("eth_signTransaction", asked, once=True)
        except RpcError as error:
            message = f"the signer at {self._rpc.url} refuses: {error}"
            raise RemoteSignerError(message) from error
        # Web3Signer answers with the raw transaction, geth's clef with an object that holds it
        text = answer.get("raw") if isinstance(answer, dict) else answer
        try:
            raw = bytes.fromhex(str(text).removeprefix("0x"))
            await asyncio.to_thread(_check, raw, transaction, self._address)
        except (ValueError, TypeError, KeyError) as error:
            message = f"the signer at {self._rpc.url} did not sign what it was asked to: {error}"
            raise RemoteSignerError(message) from error
        return raw


def _check(raw: bytes, asked: dict[str, Any], address: bytes) -> None:
    """Refuse a signed transaction that differs from the one asked for in any field, or in its signer."""
    from eth_account import Account  # noqa: PLC0415 - slow to import
    from eth_account.typed_transactions.typed_transaction import TypedTransaction  # noqa: PLC0415 - the same
    from hexbytes import HexBytes  # noqa: PLC0415 - the same

    if raw[:1] != b"\x02":
        raise ValueError("it is no EIP-1559 transaction")
    found = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
    for name in _QUANTITIES:
        if int(found[name]) != asked[name]:
            message = f"{name} is {found[name]}, not {asked[name]}"
            raise ValueError(message)
    if bytes(found["data"]) != asked["data"] or bytes(found["to"]) != asked.get("to", b""):
        raise ValueError("it goes elsewhere, or carries other data")
    if found.get("accessList"):
        raise ValueError("it carries an access list")
    signer = Account.recover_transaction(HexBytes(raw))
    if signer != checksum_address(address):
        message = f"it is signed by {signer}"
        raise ValueError(message)
