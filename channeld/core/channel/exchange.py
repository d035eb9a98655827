"""Restarts and new sessions: from records to a channel, and the exchange that brings both sides to one state."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from channeld.core import records, wire
from channeld.core.channel.agree import reject_message, rejection_of, take
from channeld.core.channel.events import Decide, Frozen, Notify, Persist, Ready, Step
from channeld.core.channel.exits import on_document, sign_exits
from channeld.core.channel.proposals import on_propose, on_reject
from channeld.core.channel.values import (
    NO_SIGNATURE,
    Channel,
    CoSigned,
    EquivocationError,
    Exit,
    Half,
    LostStatesError,
    ProtocolFaultError,
    check_signature,
    digest_of,
    make_half,
)
from channeld.core.eip712 import Domain, body_hash, state_digest
from channeld.core.errors import ChanneldError, InternalError
from channeld.core.state import genesis

if TYPE_CHECKING:
    from channeld.core.terms import Terms


def fresh(domain: Domain, terms: Terms, channel: bytes, side: int) -> Channel:
    """A channel at version 0."""
    start = genesis(channel)
    return Channel(domain, terms, channel, side, CoSigned(start, body_hash(start.body), NO_SIGNATURE, NO_SIGNATURE))


def restore(
    channel: Channel,
    latest: CoSigned | None,
    proposals: tuple[wire.Propose, ...],
    rejection: wire.Reject | None,
    exits: tuple[Exit, ...],
) -> Channel:
    """The value after a restart, from what was durable: `channel` is `fresh`, the rest as recorded.

    Raises:
        InternalError: the records do not fit together.
    """
    if latest is not None:
        channel = replace(channel, latest=latest)
    halves: list[Half] = []
    try:
        for message in sorted(proposals, key=lambda m: m.version):
            if message.version > channel.latest.state.version:
                tip = halves[-1].applied.state if halves else channel.latest.state
                half = make_half(channel, tip, message.batch, message.version, message.signature)
                check_signature(channel, channel.side, digest_of(channel, half), half.signature, "our own proposal")
                halves.append(half)
        voiding = None
        if rejection is not None and rejection.version > channel.latest.state.version:
            voiding = rejection_of(channel, rejection)
            check_signature(channel, channel.side, digest_of(channel, voiding), voiding.signature, "our own rejection")
    except ChanneldError as error:
        raise InternalError(f"the records of channel 0x{channel.id.hex()} do not fit together: {error}") from error
    return replace(channel, proposals=tuple(halves), rejection=voiding, exits=exits)


def sync_message(channel: Channel) -> wire.Sync:
    """What this side shows at the start of a session."""
    latest = channel.latest
    version = latest.state.version
    proposals = channel.proposals if channel.sequencer else ()
    return wire.Sync(
        channel.id,
        version,
        records.encode_body(latest.state.body) if version else b"",
        latest.signature_a,
        latest.signature_b,
        tuple(wire.Propose(channel.id, h.version, h.batch, h.signature) for h in proposals),
        reject_message(channel, channel.rejection) if channel.rejection else None,
        tuple(
            wire.SignedDocument(e.kind, e.document.version, e.signature(channel.side))
            for e in channel.exits
            if e.signature(channel.side)
        ),
    )


def on_sync(channel: Channel, message: wire.Sync) -> Step:
    """Take the peer's half of the exchange: catch up, then handle all that it has outstanding.

    The order matters, since the shell carries effects out one by one and each may lead to further steps: first what is
    co-signed already, then the documents that belong to it, last what is still to be decided.
    """
    if not channel.connected or channel.synced:
        raise ProtocolFaultError("a second exchange came within one session")
    done = Step(replace(channel, synced=True))
    ours = channel.latest.state.version
    if message.version:
        theirs = _verified(channel, message)
        if message.version == ours and theirs != channel.latest.body_hash:
            return _freeze(
                done.channel,
                EquivocationError(f"two states of version {ours} carry both signatures: the peer's differs"),
            )
        if message.version > ours:
            found = _outstanding(channel, message.version, theirs)
            if not found:
                return _freeze(
                    done.channel,
                    LostStatesError(
                        f"the peer shows version {message.version} with our signature; our records end at {ours}"
                    ),
                )
            done = _catch_up(done.channel, message, found)
    for document in message.documents:
        done = _then(done, on_document(done.channel, document))
    done = Step(done.channel, (*done.effects, *sign_exits(done.channel, done.channel.exits)))
    for proposal in message.proposals:
        done = _then(done, on_propose(done.channel, proposal))
        if any(isinstance(e, Decide) and e.half is None for e in done.effects):
            break  # it will be voided, and with it all that is built on it
    if message.rejection is not None:
        done = _then(done, on_reject(done.channel, message.rejection))
    return Step(done.channel, (*done.effects, Notify(Ready())))


def _freeze(channel: Channel, error: ChanneldError) -> Step:
    return Step(replace(channel, frozen=str(error)), (Notify(Frozen(error, str(error))),))


def _then(done: Step, following: Step) -> Step:
    return Step(following.channel, (*done.effects, *following.effects))


def _verified(channel: Channel, message: wire.Sync) -> bytes:
    """The hash of the body that the peer shows with both signatures."""
    try:
        hashed = body_hash(records.decode_body(message.body))
    except records.RecordDecodeError as error:
        raise ProtocolFaultError(f"the body of version {message.version} in the exchange is none: {error}") from error
    digest = state_digest(channel.domain, channel.id, message.version, hashed)
    for side, signature in enumerate((message.signature_a, message.signature_b)):
        check_signature(channel, side, digest, signature, f"version {message.version} in the exchange")
    return hashed


def _outstanding(channel: Channel, version: int, hashed: bytes) -> tuple[Half, ...]:
    """Ours that lead up to the state the peer shows; empty where it is none of them."""
    waiting = channel.proposals if channel.sequencer else ((channel.rejection,) if channel.rejection else ())
    found = next((i for i, h in enumerate(waiting) if h.version == version and h.body_hash == hashed), None)
    return () if found is None else waiting[: found + 1]


def _catch_up(channel: Channel, message: wire.Sync, found: tuple[Half, ...]) -> Step:
    """The peer signed what we had outstanding, and we had not heard of it.

    One Persist for all of it: were some of it durable and the rest not, what is outstanding would build on a state that
    no record holds.
    """
    durable: list[records.Write] = []
    news: list[Notify] = []
    after = channel
    for half in found:
        last = half.version == message.version
        second = (message.signature_a, message.signature_b)[1 - channel.side] if last else NO_SIGNATURE
        taken = take(after, half, second, after.proposals[1:] if channel.sequencer else ())
        after = taken.channel
        durable.extend(taken.durable)
        news.append(taken.news)
    return Step(after, (Persist(tuple(durable)), *news))
