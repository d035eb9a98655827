"""Trade confirmations: one file that proves, to anybody and offline, that both parties signed a trade.

Theory. Both sign the hash of a body, and the body holds the journal: keccak256(journal before || version ||
keccak256(batch)). So the exact bytes of the batch, the journal before it, the body and two signatures prove that this
batch is the newest of the state that both signed; nothing else of the channel is shown.

Rules: a confirmation is canonical JSON, read strictly. Its number names the trades of one batch in one channel and
nothing else: the hash of channel, version and batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from channeld.core.crypto import SignatureError, checksum_address, keccak256, verify
from channeld.core.describe import operation_data
from channeld.core.eip712 import Domain, body_hash, channel_id, state_digest
from channeld.core.errors import ChanneldError, InputError
from channeld.core.files import address_from_text, body_from_json, body_to_json, terms_from_json, terms_to_json
from channeld.core.journal import next_journal
from channeld.core.operations import Trade, decode_batch

if TYPE_CHECKING:
    from channeld.core.audit import AuditReport, Proven
    from channeld.core.operations import Batch
    from channeld.core.state import Body
    from channeld.core.terms import Terms

FORMAT = 1
MAX_BYTES = 4 << 20
FIELDS = (
    "channeld_confirmation",
    "number",
    "chain_id",
    "adjudicator",
    "terms",
    "version",
    "journal_before",
    "batch",
    "body",
    "signature_a",
    "signature_b",
)


class BadConfirmationError(InputError):
    """A file that confirms nothing: malformed, altered, or not signed by both."""

    code = 2551
    advice = "Ask for the confirmation again, from either side; docs/paper.md says what it must hold."


class NotConfirmedError(InputError):
    """There is no confirmation of such a version."""

    code = 2552
    advice = (
        "`channeld statement` lists the trades by version; what a later version's signatures cover has none of its own."
    )


@dataclass(frozen=True, slots=True)
class Confirmation:
    """A batch that trades, and the state that both signed over it."""

    domain: Domain
    terms: Terms
    version: int
    journal_before: bytes
    raw: bytes
    body: Body
    signature_a: bytes
    signature_b: bytes

    @classmethod
    def of(cls, report: AuditReport, proven: Proven) -> Confirmation:
        """Of a batch of an audit file.

        Raises:
            NotConfirmedError: it trades nothing, or its own state is not signed by both.
        """
        version = proven.applied.state.version
        if not any(isinstance(op, Trade) for op in proven.applied.batch.operations):
            raise NotConfirmedError(f"version {version} holds no trade")
        if not all(proven.signatures):
            raise NotConfirmedError(f"a later version's signatures cover version {version}: the audit file proves it")
        return cls(
            report.domain,
            report.terms,
            version,
            proven.before.body.journal,
            proven.raw,
            proven.applied.state.body,
            *proven.signatures,
        )

    @property
    def channel(self) -> bytes:
        """The channel's id."""
        return channel_id(self.domain, self.terms)

    @property
    def number(self) -> bytes:
        """The confirmation's number: keccak256(channel || version (8, big-endian) || keccak256(batch))."""
        return keccak256(self.channel + self.version.to_bytes(8, "big") + keccak256(self.raw))

    @property
    def batch(self) -> Batch:
        """The batch."""
        return decode_batch(self.raw)

    def as_file(self) -> dict[str, Any]:
        """What is written."""
        return {
            "channeld_confirmation": FORMAT,
            "number": "0x" + self.number.hex(),
            "chain_id": self.domain.chain_id,
            "adjudicator": checksum_address(self.domain.adjudicator),
            "terms": terms_to_json(self.terms),
            "version": self.version,
            "journal_before": "0x" + self.journal_before.hex(),
            "batch": "0x" + self.raw.hex(),
            "body": body_to_json(self.body),
            "signature_a": "0x" + self.signature_a.hex(),
            "signature_b": "0x" + self.signature_b.hex(),
        }

    def as_data(self, side: int = 0) -> dict[str, Any]:
        """For people: what was traded, as a side sees it."""
        batch, decimals = self.batch, self.terms.decimals
        return {
            "number": "0x" + self.number.hex(),
            "channel": "0x" + self.channel.hex(),
            "version": self.version,
            "time_ms": batch.time_ms,
            "a": checksum_address(self.terms.a.signer),
            "b": checksum_address(self.terms.b.signer),
            "seen_from": "ab"[side],
            "trades": [operation_data(op, side, decimals) for op in batch.operations if isinstance(op, Trade)],
            "body_hash": "0x" + body_hash(self.body).hex(),
            "signature_a": "0x" + self.signature_a.hex(),
            "signature_b": "0x" + self.signature_b.hex(),
        }

    def check(self) -> None:
        """Hold the batch to the body, and the body to both signatures.

        Raises:
            BadConfirmationError: one of them does not fit.
        """
        if next_journal(self.journal_before, self.version, self.raw) != self.body.journal:
            raise BadConfirmationError("the body that was signed is not that of this batch")
        if not any(isinstance(op, Trade) for op in self.batch.operations):
            raise BadConfirmationError("the batch trades nothing")
        digest = state_digest(self.domain, self.channel, self.version, body_hash(self.body))
        for name, signature, party in (
            ("a", self.signature_a, self.terms.a),
            ("b", self.signature_b, self.terms.b),
        ):
            try:
                verify(digest, signature, party.signer)
            except SignatureError as error:
                raise BadConfirmationError(f"{name} has not signed it: {error}") from error


def read_confirmation(value: object) -> Confirmation:
    """A confirmation from the parsed JSON of its file, checked in full.

    Raises:
        BadConfirmationError: it confirms nothing, and why.
    """
    if not isinstance(value, dict) or tuple(value) != FIELDS or value["channeld_confirmation"] != FORMAT:
        raise BadConfirmationError(f"a confirmation has the fields {', '.join(FIELDS)}, in this order")
    try:
        found = Confirmation(
            Domain(_integer(value["chain_id"]), address_from_text(value["adjudicator"])),
            terms_from_json(value["terms"]),
            _integer(value["version"]),
            _bytes(value["journal_before"], 32),
            _bytes(value["batch"]),
            body_from_json(value["body"]),
            _bytes(value["signature_a"], 65),
            _bytes(value["signature_b"], 65),
        )
        found.check()
        number = _bytes(value["number"], 32)
    except BadConfirmationError:
        raise
    except (ChanneldError, ValueError, TypeError) as error:
        raise BadConfirmationError(f"it cannot be read: {error}") from error
    if number != found.number:
        raise BadConfirmationError(f"its number should be 0x{found.number.hex()}")
    return found


def _integer(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise BadConfirmationError("a number of it is none of 64 bits")
    return value


def _bytes(value: object, size: int | None = None) -> bytes:
    if not isinstance(value, str) or not value.startswith("0x") or value != value.lower():
        raise BadConfirmationError("bytes are written as 0x and digits")
    raw = bytes.fromhex(value[2:])
    if size is not None and len(raw) != size:
        raise BadConfirmationError(f"{len(raw)} bytes where {size} belong")
    return raw
