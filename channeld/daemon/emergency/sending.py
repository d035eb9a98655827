"""What becomes of planned transactions: shown, written down unsigned, or sent by a key at hand or a remote signer.

Rules: gas and fee are shown before anything is signed, and a bound on what a transaction may cost is kept at every
replacement. Each transaction is simulated first: what the chain would refuse is told with the contract's reason, and is
never signed. Fees are wei.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from channeld.chain.abi import decode
from channeld.chain.errors import RevertError
from channeld.chain.transactions import Deadline, Fees, TransactionManager
from channeld.core.crypto import checksum_address
from channeld.core.errors import InputError
from channeld.core.wad import format_decimal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from channeld.chain.rpc import ChainRpc, Receipt
    from channeld.chain.transactions import TransactionSigner
    from channeld.daemon.emergency.case import Case, Planned

GAS_MARGIN_PERCENT = 120
REPLACE_AFTER_S = 30.0


class TooDearError(InputError):
    """The gas would cost more than --max-fee allows. Nothing was signed."""

    code = 1420
    advice = "Raise --max-fee, or wait until gas is cheaper, if the deadline allows."


class NoSenderError(InputError):
    """Nothing was named that could sign, or nothing to send from."""

    code = 1421
    advice = "Give --keystore FILE, or --signer URL with --from ADDRESS, or --unsigned to sign elsewhere."


@dataclass(frozen=True, slots=True)
class Costed:
    """A planned transaction with its price: gas, wei per gas at most, and the nonce it would have."""

    planned: Planned
    sender: bytes
    gas: int
    max_fee: int
    priority: int
    nonce: int
    chain_id: int

    @property
    def most(self) -> int:
        """What it costs at most, wei."""
        return self.gas * self.max_fee

    def as_data(self) -> dict[str, Any]:
        """The unsigned transaction as JSON data, for a multisig or an offline signer; quantities in hexadecimal."""
        call = self.planned.call
        return {
            "description": self.planned.words,
            "function": call.label,
            "chainId": hex(self.chain_id),
            "from": checksum_address(self.sender),
            "to": checksum_address(call.to),
            "value": "0x0",
            "data": "0x" + call.data.hex(),
            "nonce": hex(self.nonce),
            "gas": hex(self.gas),
            "maxFeePerGas": hex(self.max_fee),
            "maxPriorityFeePerGas": hex(self.priority),
            "type": "0x2",
            "costsAtMost": format_decimal(self.most),
            "by": self.planned.by or None,
        }


async def cost(rpc: ChainRpc, sender: bytes, planned: list[Planned], max_fee: int | None) -> list[Costed]:
    """Simulate transactions and price them; those after the first are estimated as if alone.

    max_fee: the most that each may cost, wei.

    Raises:
        RevertError: the chain would refuse one now.
        TooDearError: one costs more than max_fee.

    """
    header, suggested = await rpc.header(), await rpc.priority_fee()
    chain_id, nonce = await rpc.chain_id(), await rpc.transaction_count(sender, "pending")
    costed = []
    for index, one in enumerate(planned):
        gas = min(await _estimate(rpc, sender, one) * GAS_MARGIN_PERCENT // 100, header.gas_limit)
        per_gas = 2 * header.base_fee + suggested
        if max_fee is not None and gas * per_gas > max_fee:
            per_gas = max_fee // gas
            if per_gas < header.base_fee + 1:
                need, bound = format_decimal(gas * (header.base_fee + 1)), format_decimal(max_fee)
                message = f"{one.words}: {gas} gas costs {need} now, more than {bound}"
                raise TooDearError(message, gas=gas, needs=need, max_fee=bound)
        costed.append(Costed(one, sender, gas, per_gas, min(suggested, per_gas), nonce + index, chain_id))
    return costed


async def _estimate(rpc: ChainRpc, sender: bytes, planned: Planned) -> int:
    try:
        return await rpc.estimate_gas(sender, planned.call.to, planned.call.data)
    except RevertError as error:
        message = f"the contract would refuse to {planned.words}: {error.reason}"
        raise RevertError(message, reason=error.reason, data=error.data, rpc_code=error.rpc_code) from error


def manager(
    case: Case, signer: TransactionSigner, max_fee: int | None, gas: int, confirmations: int
) -> TransactionManager:
    """A transaction manager for one key whose transactions of so much gas cost at most max_fee (wei) each."""
    fees = Fees() if max_fee is None else Fees(cap=max(1, max_fee // max(gas, 1)))
    return TransactionManager(
        case.rpc,
        signer,
        chain_id=case.bundle.domain.chain_id,
        confirmations=confirmations,
        fees=fees,
        replace_after_s=REPLACE_AFTER_S,
    )


async def send(
    case: Case,
    signer: TransactionSigner,
    costed: list[Costed],
    *,
    max_fee: int | None,
    confirmations: int,
    told: Callable[[str], None],
) -> list[Receipt]:
    """Send transactions one after another, each confirmed before the next.

    Raises:
        ChainError: as TransactionManager.transact.

    """
    receipts = []
    for one in costed:
        sender = manager(case, signer, max_fee, one.gas, confirmations)
        by = one.planned.by
        deadline = Deadline(by, max_fee or 0) if by else None
        pending = await sender.send(one.planned.call, gas=one.gas, deadline=deadline)
        told(f"sent: {one.planned.words} (0x{pending.hash.hex()})")
        receipt = await sender.wait(pending)
        told(f"mined in block {receipt.block_number}: {one.planned.words}, {receipt.gas_used} gas")
        receipts.append(receipt)
    return receipts


def eip681(costed: Costed, inputs: Sequence[str]) -> str | None:
    """The transaction as an ethereum: URI (EIP-681), or None where the standard cannot say it: structs and lists."""
    if any(kind.startswith("(") or kind.endswith("]") for kind in inputs):
        return None
    call = costed.planned.call
    values = decode(inputs, call.data[4:])
    shown = [f"{kind}={'0x' + v.hex() if isinstance(v, bytes) else v}" for kind, v in zip(inputs, values, strict=True)]
    target = f"ethereum:{checksum_address(call.to)}@{costed.chain_id}/{call.label}"
    return target + "?" + "&".join([*shown, f"gasLimit={costed.gas}"])
