"""Restarts and new sessions: from records to a channel, and the exchange that brings both sides to one state."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from channeld.core import records, wire
from channeld.core.channel.agree import reject_message, rejection_of
from channeld.core.channel.events import Decide, Notify, Ready, Step
from channeld.core.channel.exits import on_document, sign_exits
from channeld.core.channel.proposals import on_propose, on_reject
from channeld.core.channel.recovery import fitting, leap_message, leap_of, lose, read_lost_mark, sync_lost, take_shown
from channeld.core.channel.values import (
    NO_SIGNATURE,
    Channel,
    CoSigned,
    Exit,
    Half,
    ProtocolFaultError,
    after,
    check_signature,
    make_half,
)
from channeld.core.eip712 import Domain, body_hash
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
    *,
    recovery: wire.Recover | None = None,
    lost: bytes | None = None,
) -> Channel:
    """The value after a restart, from what was durable: `channel` is `fresh`, the rest as recorded.

    lost: the mark of a loss. A leap that was signed before it is left out: the loss may hide what was signed above.

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
                check_signature(channel, channel.side, half.digest, half.signature, "our own proposal")
                halves.append(after(tuple(halves), half))
        voiding = None
        if rejection is not None and rejection.version > channel.latest.state.version:
            voiding = rejection_of(channel, rejection)
            check_signature(channel, channel.side, voiding.digest, voiding.signature, "our own rejection")
        leap, since = None, 0 if lost is None else read_lost_mark(lost)
        if lost is not None and recovery is not None and not 0 < since <= recovery.version:
            recovery = None
        if recovery is not None and recovery.version > channel.latest.state.version:
            leap = leap_of(channel, recovery.batch, recovery.version)
            leap = replace(leap, signature=recovery.signature_first, leap_by=channel.side)
            check_signature(channel, channel.side, leap.digest, leap.signature, "our own recovery")
    except ChanneldError as error:
        raise InternalError(f"the records of channel 0x{channel.id.hex()} do not fit together: {error}") from error
    return replace(
        channel,
        proposals=tuple(halves),
        rejection=voiding,
        recovery=leap,
        lost=lost is not None,
        since=since,
        exits=exits,
    )


def sync_message(channel: Channel) -> wire.Sync:
    """What this side shows at the start of a session."""
    latest = channel.latest
    version = latest.state.version
    quiet = channel.recovering
    proposals = channel.proposals if channel.sequencer and not quiet else ()
    return wire.Sync(
        channel.id,
        version,
        records.encode_body(latest.state.body) if version else b"",
        latest.signature_a,
        latest.signature_b,
        tuple(wire.Propose(channel.id, h.version, h.batch, h.signature) for h in proposals),
        reject_message(channel, channel.rejection) if channel.rejection and not quiet else None,
        tuple(
            wire.SignedDocument(e.kind, e.document.version, e.signature(channel.side))
            for e in channel.exits
            if e.signature(channel.side) and not quiet
        ),
        leap_message(channel, channel.recovery) if channel.recovery else None,
    )


def on_sync(channel: Channel, message: wire.Sync) -> Step:
    """Take the peer's half of the exchange: catch up, then handle all that it has outstanding.

    The order matters, since the shell carries effects out one by one and each may lead to further steps: first what is
    co-signed already, then the documents that belong to it, last what is still to be decided.
    """
    if not channel.connected or channel.synced:
        raise ProtocolFaultError("a second exchange came within one session")
    ours = channel.latest.state.version
    leads = message.version < ours or (message.version == ours and channel.sequencer)
    ready = replace(channel, synced=True, leads=leads)
    done = take_shown(ready, message.version, message.body, (message.signature_a, message.signature_b))
    if done.channel.frozen and not channel.frozen:
        return done
    if not done.channel.lost and fitting(done.channel, message.recovery) is not None:
        # the peer signed a leap that only we can have asked for
        done = _then(done, lose(done.channel, "the peer shows a recovery that we have asked for"))
    if done.channel.lost:
        return sync_lost(done, message)
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


def _then(done: Step, following: Step) -> Step:
    return Step(following.channel, (*done.effects, *following.effects))
