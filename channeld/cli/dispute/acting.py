"""What the sending commands do once their transactions are planned; and `watch`, which plans by itself.

Rules: what is shown is what would be sent. Nothing is signed under --dry-run or --unsigned. A refusal by the contract
ends a single command; `watch` tells it, looks again, and goes on, since the other side may simply have been first.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import typer

from channeld.chain.contracts import Phase, load_artifact
from channeld.chain.endpoints import EndpointsDisagreeError
from channeld.chain.keystore import load_keystore
from channeld.chain.remote_signer import RemoteSigner
from channeld.chain.transactions import LocalSigner
from channeld.cli.dispute.words import local, step_words, when
from channeld.cli.errors import CommandError
from channeld.cli.output import OUT, facts, note, say
from channeld.cli.passwords import password
from channeld.core.crypto import checksum_address
from channeld.core.dispute import Unknown, Wait
from channeld.core.errors import ChainError, ChanneldError
from channeld.core.wad import format_decimal
from channeld.daemon.emergency.sending import Costed, NoSenderError, cost, eip681, send

if TYPE_CHECKING:
    from channeld.chain.transactions import TransactionSigner
    from channeld.cli.dispute.options import How
    from channeld.daemon.emergency.case import Case, Facts, Planned


def open_signer(how: How, sender: bytes) -> TransactionSigner:
    """What signs, as the options say.

    Raises:
        NoSenderError: they name nothing.
        CommandError: the keystore holds another key than --from says.
        SetupError: the keystore cannot be opened.

    """
    if how.keystore is not None:
        signer = LocalSigner(load_keystore(how.keystore, password(how.password_file)))
        if signer.address != sender:
            held, asked = checksum_address(signer.address), checksum_address(sender)
            message = f"the keystore holds {held}, and the transaction is to be sent from {asked}"
            raise CommandError(message, advice="Leave --from away, or use the keystore of that address.")
        return signer
    if how.signer is not None:
        return RemoteSigner(how.signer, sender)
    raise NoSenderError("nothing was named that could sign the transaction")


def _shown(costed: list[Costed]) -> list[dict[str, Any]]:
    rows = []
    for one in costed:
        functions = {**load_artifact("Adjudicator").abi.functions, **load_artifact("FixBook").abi.functions}
        rows.append({**one.as_data(), "eip681": eip681(one, functions[one.planned.call.label].inputs)})
    return rows


async def act(case: Case, how: How, planned: list[Planned]) -> dict[str, Any]:
    """Cost the transactions and do with them what the options say; plain data about it.

    Raises:
        ChanneldError: the contract would refuse one, it costs too much, or nothing can sign.

    """
    sender = how.address(case.bundle)
    costed = await cost(case.rpc, sender, planned, how.most)
    rows = _shown(costed)
    result: dict[str, Any] = {"transactions": rows, "sent": []}
    for one in costed:
        say(
            f"{one.planned.words}: from {checksum_address(sender)}, {one.gas} gas, at most {format_decimal(one.most)} "
            f"in native currency" + (f", by {local(one.planned.by)}" if one.planned.by else "")
        )
    if how.unsigned:
        if not OUT.machine:
            for row in rows:
                facts("unsigned", {name: value for name, value in row.items() if value is not None})
        return result
    if how.dry_run:
        say("dry run: the contract would accept this now; nothing was signed")
        return result
    signer = open_signer(how, sender)
    try:
        _confirm(how)
        receipts = await send(case, signer, costed, max_fee=how.most, confirmations=how.confirmations, told=say)
    finally:
        if isinstance(signer, RemoteSigner):
            await signer.close()
    result["sent"] = [
        {"tx": "0x" + r.transaction_hash.hex(), "block": r.block_number, "gas_used": r.gas_used} for r in receipts
    ]
    found = await case.facts()
    result["phase"] = found.phase.name.lower()
    if found.phase is Phase.DISPUTED:
        result |= {"deadline": found.dispute.deadline, "on_record": found.dispute.version}
        say(f"version {found.dispute.version} is on record; deadline {when(found.dispute.deadline, found.time)}")
    return result


def _confirm(how: How) -> None:
    """Ask, where somebody can answer."""
    if how.yes or OUT.machine or not sys.stdin.isatty():
        return
    if not typer.confirm("Send?"):
        raise typer.Abort


async def follow(case: Case, how: How, interval_s: float, patience_s: float, *, until_paid: bool) -> dict[str, Any]:
    """Look, do what is due, and look again, until the channel has ended; plain data about the end.

    Raises:
        NoSenderError, SetupError: nothing can sign.

    """
    sender = how.address(case.bundle)
    watching_only = how.dry_run or how.unsigned
    signer = None if watching_only else open_signer(how, sender)
    loop = asyncio.get_running_loop()
    begin, told = loop.time(), ""
    found: Facts | None = None
    done: list[str] = []
    try:
        while True:
            try:
                found = await case.facts()
                # what is due is done on either's word: it costs gas where that was wrong, and money where it waits
                case.rpc.require_agreement()
            except EndpointsDisagreeError as error:
                told = _tell(f"the chain: {error}", told)
            except ChainError as error:
                told = _tell(f"the chain: {error}", told)
                found = None
            if found is not None:
                if found.phase is Phase.ENDED and until_paid:
                    return _end(case, found, done)
                try:
                    told = await _step(case, how, signer, found, told, done)
                except ChanneldError as error:
                    told = _tell(f"not done, and tried again: {error}", told)
            if patience_s and loop.time() - begin > patience_s:
                return _end(case, found or await case.facts(), done)
            await asyncio.sleep(interval_s)
    finally:
        if isinstance(signer, RemoteSigner):
            await signer.close()


def _tell(text: str, before: str) -> str:
    """Say something that was not said just before."""
    if text != before:
        note(text)
    return text


async def _step(
    case: Case, how: How, signer: TransactionSigner | None, found: Facts, told: str, done: list[str]
) -> str:
    if found.phase is not Phase.DISPUTED:
        return _tell(f"the channel is {found.phase.name.lower()}: watching for a challenge", told)
    step = await case.next(found)
    words, _ = step_words(step)
    if isinstance(step, Wait | Unknown):
        return _tell(words, told)
    told = _tell(words, told)
    for planned in await case.plan(found, step):
        costed = await cost(case.rpc, how.address(case.bundle), [planned], how.most)
        if signer is None:
            for row in _shown(costed):
                told = _tell(f"due now: {row['description']}; data {row['data'][:74]}…", told)
            continue
        await send(case, signer, costed, max_fee=how.most, confirmations=how.confirmations, told=note)
        done.append(planned.words)
    return told


def _end(case: Case, found: Facts, done: list[str]) -> dict[str, Any]:
    decimals, record = case.bundle.terms.decimals, found.record
    return {
        "phase": found.phase.name.lower(),
        "paid": {"a": format_decimal(record.paid_a, decimals), "b": format_decimal(record.paid_b, decimals)},
        "done": done,
    }
