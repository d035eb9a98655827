"""Proposing, accepting, rejecting: what the sequencer and the follower do with half-signed states."""

from __future__ import annotations

from channeld.core import records, wire
from channeld.core.channel.agree import agree, reject_message, rejection_of
from channeld.core.channel.events import Decide, Persist, ProposeBatch, Refused, Send, Sign, Signed, Step
from channeld.core.channel.exits import exit_signed
from channeld.core.channel.recovery import accept_leap, leap_signed
from channeld.core.channel.values import (
    MAX_OUTSTANDING_BYTES,
    WINDOW,
    Channel,
    NotReadyError,
    ProtocolFaultError,
    after,
    check_signature,
    half_with,
    make_half,
    waiting_for,
    with_changes,
)
from channeld.core.errors import ChanneldError, InternalError


def holds_up(channel: Channel) -> str:
    """(sequencer) What keeps the next proposal back, in words; empty where it may be made now.

    Proposals that are outstanding do not, up to the window and to what one message of the exchange can hold.
    """
    if channel.proposals and channel.sequencer and channel.synced and not channel.frozen:
        if channel.recovering or channel.closing is not None:
            return waiting_for(channel)
        if len(channel.proposals) >= WINDOW:
            return "the peer's signatures: the window is full"
        if outstanding_bytes(channel) >= MAX_OUTSTANDING_BYTES:
            return "the peer's signatures: what is outstanding is as large as one message"
    elif awaited := waiting_for(channel):
        return awaited
    return f"our signature on version {channel.draft.version}" if channel.draft is not None else ""


def outstanding_bytes(channel: Channel) -> int:
    """Bytes of the batches of all outstanding proposals."""
    proposals = channel.proposals
    return proposals[-1].through - proposals[0].through + len(proposals[0].batch) if proposals else 0


# --- the sequencer


def propose(channel: Channel, event: ProposeBatch) -> Step:
    """(sequencer) Draft the next state from a batch and ask for its signature."""
    if not channel.sequencer:
        raise NotReadyError("only the sequencer proposes; the follower's operations travel as offers")
    if awaited := holds_up(channel):
        raise NotReadyError(f"channel 0x{channel.id.hex()[:8]} waits for {awaited}")
    size = outstanding_bytes(channel) + len(event.batch)
    if size > MAX_OUTSTANDING_BYTES:
        raise NotReadyError(
            f"the outstanding proposals would take {size} bytes; at most {MAX_OUTSTANDING_BYTES}, so that one message "
            "of the exchange holds them all"
        )
    tip = channel.tip
    half = make_half(channel, tip, event.batch, tip.version + 1, decoded=event.decoded)
    if channel.proposals and (half.applied.closing or channel.proposals[-1].applied.closing):
        raise NotReadyError("a close is signed with no proposal outstanding")
    return Step(with_changes(channel, draft=half), (Sign("propose", half.version, half.digest),))


def on_accept(channel: Channel, message: wire.Accept) -> Step:
    """The second signature on what is outstanding."""
    if channel.recovery is not None and channel.recovery.version == message.version:
        half, rest = channel.recovery, channel.proposals[:0]
    elif channel.recovering and message.version > channel.latest.state.version:
        raise ProtocolFaultError(f"version {message.version} was accepted while states are lost")
    elif channel.sequencer:
        first = channel.proposals[0] if channel.proposals else None
        if first is None or first.version != message.version:
            if message.version <= channel.latest.state.version:
                return Step(channel)
            raise ProtocolFaultError(f"version {message.version} was accepted, which is not outstanding")
        half, rest = first, channel.proposals[1:]
    else:
        half_or_none = channel.rejection
        if half_or_none is None or half_or_none.version != message.version:
            if message.version <= channel.latest.state.version:
                return Step(channel)
            raise ProtocolFaultError(f"version {message.version} was confirmed, which is not outstanding")
        half, rest = half_or_none, ()
    check_signature(channel, 1 - channel.side, half.digest, message.signature, f"version {half.version}")
    return agree(channel, half, message.signature, rest, ())


def on_reject(channel: Channel, message: wire.Reject) -> Step:
    """(sequencer) The follower voids what is outstanding and offers the empty state."""
    if not channel.sequencer:
        raise ProtocolFaultError("only the follower rejects")
    if message.version <= channel.latest.state.version or channel.frozen or channel.recovering:
        return Step(channel)
    if channel.closing is not None:
        raise ProtocolFaultError("a rejection came while a close is agreed, when nothing is outstanding")
    half = rejection_of(channel, message)
    check_signature(channel, 1 - channel.side, half.digest, message.signature, "a rejection")
    return Step(with_changes(channel, draft=half), (Sign("confirm", half.version, half.digest),))


# --- the follower


def on_propose(channel: Channel, message: wire.Propose) -> Step:
    """(follower) A proposal that follows from our tip is put to the desk."""
    if channel.sequencer:
        raise ProtocolFaultError("the follower proposed; only the sequencer does")
    if channel.rejection is not None or message.version <= channel.latest.state.version:
        return Step(channel)
    if channel.frozen or channel.recovering:
        return Step(channel)
    if channel.proposals and channel.proposals[-1].applied.closing:
        raise ProtocolFaultError("a state was proposed on top of a close")
    tip = channel.tip
    if message.version != tip.version + 1:
        raise ProtocolFaultError(f"version {message.version} was proposed where {tip.version + 1} follows")
    if len(channel.proposals) >= WINDOW:
        raise ProtocolFaultError(f"more than {WINDOW} proposals are outstanding")
    try:
        half = make_half(channel, tip, message.batch, message.version, message.signature)
    except ChanneldError as error:
        if channel.closing is not None:
            raise ProtocolFaultError(
                f"while a close is agreed here, a state was proposed that is none: {error}"
            ) from error
        # no state follows from it, so no signature can be checked either: void it, and say which rule it breaks
        return Step(channel, (Decide(message.version, tip, None, error),))
    proposer = 1 - channel.side
    check_signature(channel, proposer, half.digest, message.signature, f"version {half.version}")
    pending = with_changes(channel, proposals=(*channel.proposals, after(channel.proposals, half)))
    if channel.closing is not None:
        # the peer has seen the close lapse before us: decided once it has lapsed here too
        return Step(pending)
    return Step(pending, (Decide(half.version, tip, half),))


def decide_again(channel: Channel) -> tuple[Decide, ...]:
    """(follower) What came while a Close was alive is put to the desk once it has lapsed."""
    if channel.sequencer or channel.frozen or not channel.synced or channel.rejection is not None or channel.recovering:
        return ()
    befores = (channel.latest.state, *(h.applied.state for h in channel.proposals))
    return tuple(Decide(h.version, before, h) for before, h in zip(befores, channel.proposals, strict=False))


def accept(channel: Channel, version: int) -> Step:
    """(follower) The desk agrees: ask for the signature. (Either) To the leap that a peer asks for, likewise."""
    if channel.asked is not None and channel.asked.version == version:
        return accept_leap(channel, channel.asked)
    if channel.recovering:
        return Step(channel)
    if not channel.proposals or channel.proposals[0].version != version or channel.draft is not None:
        return Step(channel)
    if not channel.synced or channel.frozen or channel.closing is not None:
        return Step(channel)
    half = channel.proposals[0]
    return Step(with_changes(channel, draft=half), (Sign("accept", version, half.digest),))


def refuse(channel: Channel, event: Refused) -> Step:
    """(follower) The desk refuses: draft the empty state that voids the proposal and all built on it."""
    if channel.asked is not None and channel.asked.version == event.version:
        return Step(with_changes(channel, asked=None))  # a leap that is not wanted: silence
    if channel.sequencer or channel.rejection is not None or channel.draft is not None or channel.frozen:
        return Step(channel)
    if not channel.synced or channel.closing is not None or channel.recovering:
        return Step(channel)
    if not channel.latest.state.version < event.version <= channel.tip.version + 1:
        return Step(channel)
    half = make_half(channel, channel.latest.state, event.batch, channel.latest.state.version + WINDOW + 1)
    if half.applied.batch.operations:
        raise InternalError("a rejection's batch must be empty")
    half = half_with(half, voiding=True, code=event.code, reason=event.reason, rejected=event.version)
    return Step(with_changes(channel, draft=half), (Sign("reject", half.version, half.digest),))


# --- signatures made here


def signed(channel: Channel, event: Signed) -> Step:
    """A signature was made here: durable, then sent."""
    if event.purpose in ("withdrawal", "close"):
        return exit_signed(channel, event)
    half = channel.draft
    if half is None or half.version != event.version:
        return Step(channel)
    half = half_with(half, signature=half.signature or event.signature)
    idle = with_changes(channel, draft=None)
    own = records.made_signed(channel.id, half.version, half.digest, event.signature, records.SIGNED_STATE)
    match event.purpose:
        case "propose":
            message = wire.Propose(channel.id, half.version, half.batch, event.signature)
            packed = wire.pack(message)
            half = after(channel.proposals, half)
            kept = with_changes(idle, proposals=(*channel.proposals, half))
            write = records.made_proposal(channel.id, half.version, packed)
            return Step(kept, (Persist((own, write)), Send(message, packed)))
        case "reject":
            rejection = reject_message(channel, half)
            kept = with_changes(idle, proposals=(), rejection=half)
            voided = records.PutRejection(channel.id, half.version, wire.pack(rejection))
            return Step(kept, (Persist((own, voided)), Send(rejection)))
        case "accept":
            accept = wire.Accept(channel.id, half.version, event.signature)
            return agree(idle, half, event.signature, channel.proposals[1:], (own,), accept)
        case "leap":
            return leap_signed(idle, half, own)
        case "confirm" | "land":
            accept = wire.Accept(channel.id, half.version, event.signature)
            return agree(idle, half, event.signature, (), (own,), accept)
        case _:
            raise InternalError(f"a signature for {event.purpose!r} was not asked for")
