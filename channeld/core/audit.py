"""The audit file: everything that leads from version 0 to a balance, checked offline by whoever trusts neither side.

Rules: one JSON object a line, each in its one canonical form and each with a check that chains it to the lines before,
so that a byte that was altered, added or left out is found and its line named. That alone proves nothing about the
money, since anybody can compute checks. The proof is that the terms hash to the channel id, every batch applies to the
state before it, and every state hashes to what both parties have signed. Whoever holds the file and the two signers'
addresses needs nothing else. Lines are taken one by one: a journal of any length takes the memory of one state.

    {"channeld_audit":1,"chain_id":..,"adjudicator":..,"channel":..,"terms":{..},"base":null,"check":..}
    {"version":..,"batch":..,"body_hash":..,"signature_a":..,"signature_b":..,"check":..}         one for each version
    {"end":{"version":..,"batches":..,"body":{..}},"check":..}

`base` is the co-signed state that a side begins from whose records before it are lost (docs/protocol.md, 9.8); null is
version 0. Signatures may be empty where a later version's cover the state: the journal's hash binds every batch before.
check = the first 16 bytes of keccak256(check of the line before || the line without its check).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from channeld.core.crypto import SignatureError, checksum_address, keccak256, verify
from channeld.core.eip712 import Domain, body_hash, channel_id, state_digest
from channeld.core.errors import ChanneldError, InputError
from channeld.core.files import address_from_text, body_from_json, body_to_json, terms_from_json, terms_to_json
from channeld.core.operations import Mark, Trade, Transfer
from channeld.core.state import State, genesis
from channeld.core.strict_json import read_json
from channeld.core.transition import apply
from channeld.core.wad import format_decimal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from channeld.core.state import Body
    from channeld.core.terms import Terms
    from channeld.core.transition import Applied

FORMAT = 1
MAX_LINE = 4 << 20
_CHECK_BYTES = 16
_CHECK = ',"check":"'
_MAX_VERSION = (1 << 64) - 1


class AuditError(InputError):
    """An audit file that proves nothing."""

    code = 1450
    advice = "Ask for the file again, from either side; docs/audit.md says what each line must hold."


class AuditFormatError(AuditError):
    """A line that is not in the one form it can have."""

    code = 1451


class AuditCheckError(AuditError):
    """A line that was altered, or that does not belong behind the one before it."""

    code = 1452


class AuditTermsError(AuditError):
    """Terms that do not make the channel that the file is about."""

    code = 1453


class AuditBatchError(AuditError):
    """A batch that does not follow from the state before it."""

    code = 1454


class AuditStateError(AuditError):
    """A state that is not what its batch makes of the one before."""

    code = 1455


class AuditSignatureError(AuditError):
    """A signature that is not by the party's key over the state."""

    code = 1456


class AuditIncompleteError(AuditError):
    """The file ends before its end, or goes on after it."""

    code = 1457


@dataclass(frozen=True, slots=True)
class AuditState:
    """A co-signed state without its body; empty signatures where a later version's cover it."""

    version: int
    body_hash: bytes
    signature_a: bytes
    signature_b: bytes


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True)


def _hex(raw: bytes) -> str:
    return "0x" + raw.hex()


class AuditWriter:
    """Makes the lines of a file, in order."""

    def __init__(self) -> None:
        """Begin."""
        self._check = b""
        self._batches = 0

    def _line(self, value: dict[str, Any]) -> bytes:
        text = _text(value)
        self._check = keccak256(self._check + text.encode("ascii"))[:_CHECK_BYTES]
        return f'{text[:-1]}{_CHECK}{self._check.hex()}"}}\n'.encode("ascii")

    def head(self, domain: Domain, terms: Terms, base: tuple[AuditState, Body] | None = None) -> bytes:
        """The first line. base: the co-signed state that the journal begins from; None for version 0."""
        value: dict[str, Any] = {
            "channeld_audit": FORMAT,
            "chain_id": domain.chain_id,
            "adjudicator": checksum_address(domain.adjudicator),
            "channel": _hex(channel_id(domain, terms)),
            "terms": terms_to_json(terms),
            "base": None,
        }
        if base is not None:
            state, body = base
            value["base"] = {
                "version": state.version,
                "body": body_to_json(body),
                "signature_a": _hex(state.signature_a),
                "signature_b": _hex(state.signature_b),
            }
        return self._line(value)

    def batch(self, raw: bytes, state: AuditState) -> bytes:
        """The line of a version: the exact bytes that travelled, and what both signed of the state they made."""
        self._batches += 1
        return self._line(
            {
                "version": state.version,
                "batch": _hex(raw),
                "body_hash": _hex(state.body_hash),
                "signature_a": _hex(state.signature_a),
                "signature_b": _hex(state.signature_b),
            }
        )

    def end(self, version: int, body: Body) -> bytes:
        """The last line: the state that all of it leads to."""
        return self._line({"end": {"version": version, "batches": self._batches, "body": body_to_json(body)}})


@dataclass
class Flows:
    """Where one party's balance comes from, units: their sum is the balance."""

    brought_forward: int = 0
    deposits: int = 0
    withdrawals: int = 0
    transfers: int = 0
    trades: int = 0
    marks: int = 0
    mixed: int = 0

    @property
    def total(self) -> int:
        """The balance."""
        return (
            self.brought_forward
            + self.deposits
            + self.withdrawals
            + self.transfers
            + self.trades
            + self.marks
            + self.mixed
        )


@dataclass
class AuditReport:
    """What a file proves. Amounts in units of the collateral."""

    domain: Domain
    terms: Terms
    channel: bytes
    state: State
    base_version: int
    batches: int = 0
    signed: int = 0
    operations: dict[str, int] = field(default_factory=dict)
    flows: tuple[Flows, Flows] = field(default_factory=lambda: (Flows(), Flows()))
    gaps: int = 0
    first_ms: int = 0
    last_ms: int = 0

    def as_data(self) -> dict[str, Any]:
        """Plain data; amounts in whole collateral as decimal strings."""
        body, decimals = self.state.body, self.terms.decimals
        parties = {}
        for side, name in enumerate("ab"):
            account, flows = body.account(side), self.flows[side]
            parties[name] = {
                "signer": checksum_address(self.terms.party(side).signer),
                "balance": format_decimal(account.balance, decimals),
                "deposited": format_decimal(account.deposited, decimals),
                "withdrawn": format_decimal(account.withdrawn, decimals),
                "from": {key: format_decimal(value, decimals) for key, value in vars(flows).items()},
            }
        return {
            "proven": True,
            "chain_id": self.domain.chain_id,
            "adjudicator": checksum_address(self.domain.adjudicator),
            "channel": _hex(self.channel),
            "version": self.state.version,
            "replayed_from": self.base_version,
            "batches": self.batches,
            "signed_by_both": self.signed,
            "versions_left_out": self.gaps,
            "operations": self.operations,
            "first_time_ms": self.first_ms,
            "last_time_ms": self.last_ms,
            "positions": len(body.positions),
            "body_hash": _hex(body_hash(body)),
            "journal": _hex(body.journal),
            "parties": parties,
        }

    def words(self) -> Iterator[str]:
        """The report as sentences."""
        told, state = self.as_data(), self.state
        yield (
            f"Channel {told['channel']} of the Adjudicator {told['adjudicator']} on chain {told['chain_id']}: its "
            f"terms hash to its id. Party a signs with {told['parties']['a']['signer']}, party b with "
            f"{told['parties']['b']['signer']}."
        )
        begin = (
            "version 0, which is empty"
            if not self.base_version
            else f"version {self.base_version}, which both signed; what led to it is not in this file"
        )
        yield (
            f"{self.batches} batches lead from {begin}, to version {state.version}. Each applies by the protocol's "
            f"rules to the state before it. {self.signed} of the states were found signed by both, the newest among "
            "them; the journal's hash in it binds every byte of every batch."
        )
        if self.gaps:
            yield (
                f"{self.gaps} version numbers are left out: proposals that were rejected or superseded, which moved "
                "nothing."
            )
        for name, party in told["parties"].items():
            parts = [f"{key.replace('_', ' ')} {value}" for key, value in party["from"].items() if value != "0"]
            yield f"Party {name}'s balance is {party['balance']}: {', '.join(parts) or 'nothing moved'}."
        held = f"{len(state.body.positions)} positions are open" if state.body.positions else "No position is open"
        yield f"{held}. The balances are right at the marks of that state, and add up to deposits less withdrawals."
        yield "Nothing here was taken on either party's word. It can be proven again anywhere."


@dataclass(frozen=True, slots=True)
class Proven:
    """One batch of a file as it was proven: the exact bytes, what they were applied to, and what they made.

    signatures: of a and b over the state made; empty where a later version's cover it.
    """

    raw: bytes
    before: State
    applied: Applied
    body_hash: bytes
    signatures: tuple[bytes, bytes]


class Auditor:
    """Takes the lines of a file, one by one; `finish` gives the report."""

    def __init__(self, seen: Callable[[AuditReport, Proven], None] | None = None) -> None:
        """Nothing is known yet. seen: is shown every batch once it is proven."""
        self._seen = seen
        self._number = 0
        self._check = b""
        self._report: AuditReport | None = None
        self._ended = False
        self._signed_at = 0

    def _where(self, version: int | None = None) -> str:
        return f"line {self._number}" + (f" (version {version})" if version is not None else "")

    @property
    def state(self) -> State:
        """The state that the lines so far lead to.

        Raises:
            AuditIncompleteError: not even the first line has come.

        """
        if self._report is None:
            raise AuditIncompleteError("the file has no first line")
        return self._report.state

    def next_hash(self, raw: bytes, version: int) -> bytes:
        """The body hash that a batch makes of the state so far, for a writer. Errors as `apply`."""
        assert self._report is not None  # noqa: S101 - a writer's first line is the head
        return body_hash(apply(self._report.terms, self._report.state, raw, version).state.body)

    def take(self, line: bytes) -> None:
        """The next line, its newline included.

        Raises:
            AuditError: naming the line, and the version where there is one, and what is wrong with it.

        """
        self._number += 1
        value = self._opened(line)
        if self._ended:
            raise AuditIncompleteError(f"{self._where()} comes after the end", line=self._number)
        if self._report is None:
            self._report = self._head(value)
        elif "end" in value:
            self._end(self._report, value)
        else:
            self._batch(self._report, value)

    def _opened(self, line: bytes) -> dict[str, Any]:
        """The object of a line, in canonical form and bound to the lines before it."""
        if len(line) > MAX_LINE:
            raise AuditFormatError(f"{self._where()} is longer than {MAX_LINE} bytes", line=self._number)
        try:
            text = line.decode("ascii")
            value = read_json(text)
            canonical = isinstance(value, dict) and _text(value) + "\n" == text
        except (ValueError, RecursionError):
            canonical = False
        if not canonical or not isinstance(value.get("check"), str) or next(reversed(value)) != "check":
            raise AuditFormatError(
                f"{self._where()} is not in canonical form: it was altered, cut short, or is no line of an audit file",
                line=self._number,
            )
        given = value.pop("check")
        self._check = keccak256(self._check + _text(value).encode("ascii"))[:_CHECK_BYTES]
        if given != self._check.hex():
            raise AuditCheckError(
                f"{self._where()} was altered, or lines before it are missing: its check is {given[:40]!r}, and should "
                f"be {self._check.hex()}",
                line=self._number,
            )
        opened: dict[str, Any] = value
        return opened

    def _fields(self, value: Any, names: Sequence[str]) -> list[Any]:  # noqa: ANN401 - parsed JSON
        if not isinstance(value, dict) or list(value) != list(names):
            raise AuditFormatError(
                f"{self._where()} must have the fields {', '.join(names)}, in this order", line=self._number
            )
        return [value[name] for name in names]

    def _bytes(self, text: object, sizes: Sequence[int] | None, name: str) -> bytes:
        try:
            if not isinstance(text, str) or not text.startswith("0x") or text != text.lower():
                raise ValueError  # noqa: TRY301 - one place answers
            raw = bytes.fromhex(text[2:])
        except ValueError:
            raw = None
        if raw is None or (sizes is not None and len(raw) not in sizes):
            raise AuditFormatError(f"{self._where()}: {name} is not what it must be", line=self._number, field=name)
        return raw

    def _integer(self, value: object, name: str) -> int:
        if type(value) is not int or not 0 <= value <= _MAX_VERSION:
            raise AuditFormatError(
                f"{self._where()}: {name} must be an integer of 64 bits", line=self._number, field=name
            )
        return value

    def _head(self, value: dict[str, Any]) -> AuditReport:
        names = ("channeld_audit", "chain_id", "adjudicator", "channel", "terms", "base")
        number, chain_id, adjudicator, channel_text, terms_data, base = self._fields(value, names)
        if number != FORMAT:
            raise AuditFormatError(f"{self._where()}: this program reads audit files of format {FORMAT}", line=1)
        channel = self._bytes(channel_text, (32,), "channel")
        try:
            domain = Domain(self._integer(chain_id, "chain_id"), address_from_text(adjudicator))
            terms = terms_from_json(terms_data)
            made = channel_id(domain, terms)
        except AuditError:
            raise
        except ChanneldError as error:
            raise AuditTermsError(f"{self._where()}: the terms cannot be read: {error}", line=self._number) from error
        if made != channel:
            raise AuditTermsError(
                f"{self._where()}: these terms make channel {_hex(made)}, not {_hex(channel)}", line=self._number
            )
        state = genesis(channel) if base is None else self._base(domain, terms, channel, base)
        report = AuditReport(domain, terms, channel, state, state.version)
        for side in (0, 1):
            report.flows[side].brought_forward = state.body.account(side).balance
        return report

    def _base(self, domain: Domain, terms: Terms, channel: bytes, data: object) -> State:
        version, body, a, b = self._fields(data, ("version", "body", "signature_a", "signature_b"))
        state = State(channel, self._integer(version, "base.version"), self._body(body))
        signatures = (self._bytes(a, (65,), "signature_a"), self._bytes(b, (65,), "signature_b"))
        self._signatures(domain, terms, state.version, channel, body_hash(state.body), signatures)
        self._signed_at = state.version
        return state

    def _body(self, data: Any) -> Body:  # noqa: ANN401 - parsed JSON
        try:
            return body_from_json(data)
        except ChanneldError as error:
            raise AuditFormatError(f"{self._where()}: the body cannot be read: {error}", line=self._number) from error

    def _signatures(
        self, domain: Domain, terms: Terms, version: int, channel: bytes, hashed: bytes, signatures: tuple[bytes, bytes]
    ) -> None:
        digest = state_digest(domain, channel, version, hashed)
        for side, name in enumerate("ab"):
            try:
                verify(digest, signatures[side], terms.party(side).signer)
            except SignatureError as error:
                raise AuditSignatureError(
                    f"{self._where(version)}: the signature of {name} is not good: {error}",
                    line=self._number,
                    version=version,
                ) from error

    def _batch(self, report: AuditReport, value: dict[str, Any]) -> None:
        names = ("version", "batch", "body_hash", "signature_a", "signature_b")
        number, batch, hash_text, a, b = self._fields(value, names)
        version = self._integer(number, "version")
        raw, hashed = self._bytes(batch, None, "batch"), self._bytes(hash_text, (32,), "body_hash")
        signatures = (self._bytes(a, (0, 65), "signature_a"), self._bytes(b, (0, 65), "signature_b"))
        before = report.state
        if version <= before.version:
            raise AuditBatchError(
                f"{self._where(version)} comes after version {before.version}", line=self._number, version=version
            )
        try:
            applied = apply(report.terms, before, raw, version)
        except ChanneldError as error:
            raise AuditBatchError(
                f"{self._where(version)}: the batch does not follow from version {before.version}: {error}",
                line=self._number,
                version=version,
                cause_code=error.code,
            ) from error
        made = body_hash(applied.state.body)
        if made != hashed:
            raise AuditStateError(
                f"{self._where(version)}: the batch makes the body {_hex(made)}, and the file says {_hex(hashed)}",
                line=self._number,
                version=version,
            )
        if any(signatures):
            self._signatures(report.domain, report.terms, version, report.channel, hashed, signatures)
            self._signed_at = version
            report.signed += 1
        report.gaps += version - before.version - 1
        report.batches += 1
        report.first_ms = report.first_ms or applied.batch.time_ms
        report.last_ms = applied.batch.time_ms
        _count(report, applied, before.body)
        report.state = applied.state
        if self._seen is not None:
            self._seen(report, Proven(raw, before, applied, made, signatures))

    def _end(self, report: AuditReport, value: dict[str, Any]) -> None:
        (end,) = self._fields(value, ("end",))
        version, batches, body = self._fields(end, ("version", "batches", "body"))
        counted = (self._integer(version, "version"), self._integer(batches, "batches"))
        if counted != (report.state.version, report.batches):
            raise AuditIncompleteError(
                f"{self._where()}: {counted[1]} batches to version {counted[0]} were written; {report.batches} to "
                f"version {report.state.version} are here",
                line=self._number,
            )
        if self._body(body) != report.state.body:
            raise AuditStateError(f"{self._where()}: the last body is not what the batches make", line=self._number)
        if self._signed_at != report.state.version:
            raise AuditSignatureError(
                f"{self._where()}: the newest state, version {report.state.version}, is not signed by both",
                line=self._number,
                version=report.state.version,
            )
        self._ended = True

    def finish(self) -> AuditReport:
        """What the file proves.

        Raises:
            AuditIncompleteError: it has no end.

        """
        if self._report is None or not self._ended:
            raise AuditIncompleteError(f"the file ends after line {self._number}, before its end", line=self._number)
        return self._report


def _count(report: AuditReport, applied: Applied, before: Body) -> None:
    """Where the money of one batch came from: what is exact by itself, and the rest to what moved it."""
    kinds = {type(operation) for operation in applied.batch.operations}
    for operation in applied.batch.operations:
        name = type(operation).__name__.lower()
        report.operations[name] = report.operations.get(name, 0) + 1
    after = applied.state.body
    moving = kinds & {Trade, Mark}
    for side, flows in enumerate(report.flows):
        was, now = before.account(side), after.account(side)
        deposited, withdrawn = now.deposited - was.deposited, now.withdrawn - was.withdrawn
        sent = sum(
            operation.units * (-1 if operation.origin == side else 1)
            for operation in applied.batch.operations
            if isinstance(operation, Transfer)
        )
        flows.deposits += deposited
        flows.withdrawals -= withdrawn
        flows.transfers += sent
        rest = now.balance - was.balance - deposited + withdrawn - sent
        if moving == {Trade}:
            flows.trades += rest
        elif moving == {Mark}:
            flows.marks += rest
        else:
            flows.mixed += rest


def audit_lines(lines: Iterable[bytes]) -> AuditReport:
    """What the lines of a file prove.

    Raises:
        AuditError: naming the line and what is wrong with it.

    """
    auditor = Auditor()
    for line in lines:
        auditor.take(line)
    return auditor.finish()
