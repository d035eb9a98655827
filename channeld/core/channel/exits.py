"""Withdrawals and closes: what both sign for the chain once the state that calls for it is co-signed.

Rules: a document follows from its batch alone, so both sides make the same one; it is durable with that state; a Close
ends ten minutes after its batch's second, and while it may still be used no state is signed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from channeld.core import records, wire
from channeld.core.channel.events import Effect, ExitReady, Notify, Persist, Send, Sign, Signed, Step
from channeld.core.channel.values import Channel, Exit, Half, ProtocolFaultError, check_signature
from channeld.core.codec import decode, encode
from channeld.core.eip712 import Close, Withdrawal, body_hash, close_digest, withdrawal_digest
from channeld.core.errors import InternalError
from channeld.core.operations import Withdraw

if TYPE_CHECKING:
    from channeld.core.transition import Applied

# --- withdrawals and closes

CLOSE_LIFETIME = 600
WITHDRAWAL, CLOSE = 1, 2
EXIT_DOCUMENT = "exit"


def purpose_of(document: Exit) -> str:
    """The name of a document's kind, as in Sign effects and in the signer's record."""
    return "close" if document.kind == CLOSE else "withdrawal"


def exits_of(channel: Channel, half: Half) -> tuple[Exit, ...]:
    """The documents that a co-signed batch calls for. A Close lives ten minutes from its batch's second."""
    body, version = half.applied.state.body, half.version
    if half.applied.closing:
        close = Close(channel.id, version, half.applied.batch.time_ms // 1000 + CLOSE_LIFETIME, body.a, body.b)
        return (Exit(CLOSE, close, close_digest(channel.domain, close)),)
    if any(type(op) is Withdraw for op in half.applied.batch.operations):
        out = Withdrawal(channel.id, version, half.body_hash, body.a.withdrawn, body.b.withdrawn)
        return (Exit(WITHDRAWAL, out, withdrawal_digest(channel.domain, out)),)
    return ()


def sign_exits(channel: Channel, wanted: tuple[Exit, ...]) -> tuple[Sign, ...]:
    """Ask for our signature on each document that lacks it. While frozen (a dispute runs) nothing but a Close."""
    return tuple(
        Sign(purpose_of(e), e.document.version, e.digest)
        for e in wanted
        if not e.signature(channel.side) and (not channel.frozen or isinstance(e.document, Close))
    )


def _exit_key(channel: Channel, document: Exit) -> str:
    return f"{channel.id.hex()}/{purpose_of(document)}"


def put_exit(channel: Channel, document: Exit) -> records.Write:
    """The durable record of a document and the signatures on it so far."""
    value = encode([document.document.version, document.signature_a, document.signature_b])
    return records.PutDocument(EXIT_DOCUMENT, _exit_key(channel, document), value)


def drop_exit(channel: Channel, document: Exit) -> records.Write:
    """Forget a document that has lapsed."""
    return records.DropDocument(EXIT_DOCUMENT, _exit_key(channel, document))


def _signing_version(document: Exit) -> int:
    """The number under which the signer's record keeps a document: a Close by its end, since it may be made again."""
    return document.document.valid_until if isinstance(document.document, Close) else document.document.version


def restore_exit(channel: Channel, kind: str, raw: bytes, half: Applied) -> Exit:
    """The document of a kind as recorded; `half` is the transition of its version, replayed from the journal.

    Raises:
        InternalError: the record does not belong to that version.
    """
    version, signature_a, signature_b = decode(raw)
    made = exits_of(channel, Half(half, b"", body_hash(half.state.body), b""))
    found = next((e for e in made if purpose_of(e) == kind and e.document.version == version), None)
    if found is None:
        raise InternalError(f"the recorded {kind} of version {version} does not follow from its batch")
    return replace(found, signature_a=signature_a, signature_b=signature_b)


def _store_exit(channel: Channel, document: Exit) -> Channel:
    return replace(channel, exits=tuple(document if e.kind == document.kind else e for e in channel.exits))


def exit_signed(channel: Channel, event: Signed) -> Step:
    """Our signature on a document is made: durable, then sent."""
    document = next((e for e in channel.exits if purpose_of(e) == event.purpose), None)
    if document is None or document.document.version != event.version:
        return Step(channel)
    signed = document.signed(channel.side, event.signature)
    own = records.PutSigned(channel.id, _signing_version(signed), signed.digest, event.signature, event.purpose)
    message = wire.Document(channel.id, wire.SignedDocument(signed.kind, event.version, event.signature))
    effects: list[Effect] = [Persist((own, put_exit(channel, signed))), Send(message)]
    if signed.complete:
        effects.append(Notify(ExitReady(signed)))
    return Step(_store_exit(channel, signed), tuple(effects))


def on_document(channel: Channel, message: wire.SignedDocument) -> Step:
    """The peer's signature on a document."""
    document = next((e for e in channel.exits if e.kind == message.kind), None)
    if document is None or document.document.version != message.version:
        if message.version <= channel.latest.state.version:
            return Step(channel)
        raise ProtocolFaultError(f"a document of version {message.version} was signed, which is not agreed")
    peer = 1 - channel.side
    check_signature(channel, peer, document.digest, message.signature, f"the {purpose_of(document)}")
    if document.signature(peer):
        return Step(channel)
    signed = document.signed(peer, message.signature)
    effects: list[Effect] = [Persist((put_exit(channel, signed),))]
    if signed.complete:
        effects.append(Notify(ExitReady(signed)))
    return Step(_store_exit(channel, signed), tuple(effects))
