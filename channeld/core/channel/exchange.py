"""Restarts and new sessions: from records to a channel, and the exchange that brings both sides to one state."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from channeld.core import records, wire
from channeld.core.channel.agree import agree, reject_message, rejection_of
from channeld.core.channel.events import Frozen, Notify, Ready, Sign, Step
from channeld.core.channel.exits import on_document, purpose_of
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
                halves.append(make_half(channel, tip, message.batch, message.version, message.signature))
        voiding = None
        if rejection is not None and rejection.version > channel.latest.state.version:
            voiding = rejection_of(channel, rejection)
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
    """Take the peer's half of the exchange: catch up, then handle all that it has outstanding."""
    if not channel.connected or channel.synced:
        raise ProtocolFaultError("a second exchange came within one session")
    done = Step(replace(channel, synced=True))
    ours = channel.latest.state.version
    if message.version:
        theirs = _verified(channel, message)
        if message.version == ours and theirs != channel.latest.body_hash:
            error = EquivocationError(f"two states of version {ours} carry both signatures")
            return Step(replace(channel, frozen=str(error)), (Notify(Frozen(error, str(error))),))
        if message.version > ours:
            done = _catch_up(done.channel, message, theirs)
            if done.channel.frozen:
                return done
    for proposal in message.proposals:
        done = _then(done, on_propose(done.channel, proposal))
        if any(isinstance(e, Decide) and e.half is None for e in done.effects):
            break  # it will be voided, and with it all that is built on it
    if message.rejection is not None:
        done = _then(done, on_reject(done.channel, message.rejection))
    for document in message.documents:
        done = _then(done, on_document(done.channel, document))
    unsigned = tuple(
        Sign(purpose_of(e), e.document.version, e.digest) for e in done.channel.exits if not e.signature(channel.side)
    )
    signing = {(e.purpose, e.version) for e in done.effects if isinstance(e, Sign)}
    missing = tuple(s for s in unsigned if (s.purpose, s.version) not in signing)
    return Step(done.channel, (*done.effects, *missing, Notify(Ready())))


def _then(done: Step, following: Step) -> Step:
    return Step(following.channel, (*done.effects, *following.effects))


def _verified(channel: Channel, message: wire.Sync) -> bytes:
    """The hash of the body that the peer shows with both signatures."""
    hashed = body_hash(records.decode_body(message.body))
    digest = state_digest(channel.domain, channel.id, message.version, hashed)
    for side, signature in enumerate((message.signature_a, message.signature_b)):
        check_signature(channel, side, digest, signature, f"version {message.version} in the exchange")
    return hashed


def _catch_up(channel: Channel, message: wire.Sync, theirs: bytes) -> Step:
    """The peer holds a higher co-signed state: one of our outstanding, or proof that we have lost states."""
    outstanding = channel.proposals if channel.sequencer else ((channel.rejection,) if channel.rejection else ())
    found = next((i for i, h in enumerate(outstanding) if h.version == message.version and h.body_hash == theirs), None)
    if found is None:
        error = LostStatesError(
            f"the peer shows version {message.version} with our signature; our records end at "
            f"{channel.latest.state.version}"
        )
        return Step(replace(channel, frozen=str(error)), (Notify(Frozen(error, str(error))),))
    done = Step(channel)
    for half in outstanding[: found + 1]:
        last = half.version == message.version
        second = (message.signature_a, message.signature_b)[1 - channel.side] if last else NO_SIGNATURE
        rest = outstanding[outstanding.index(half) + 1 :] if channel.sequencer else ()
        done = _then(done, agree(done.channel, half, second, rest, ()))
    return done
