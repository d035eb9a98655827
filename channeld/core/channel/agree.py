"""The one place where a half-signed state becomes a co-signed one, and what a rejection looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from channeld.core import records, wire
from channeld.core.channel.events import Agreed, Effect, Notify, Persist, Send, Step
from channeld.core.channel.exits import drop_exit, exits_of, put_exit, sign_exits
from channeld.core.channel.values import (
    LOST_DOCUMENT,
    NO_SIGNATURE,
    WINDOW,
    Channel,
    CoSigned,
    Half,
    LostStatesError,
    ProtocolFaultError,
    half_with,
    make_half,
    with_changes,
)

if TYPE_CHECKING:
    from channeld.core.channel.values import Exit

SUPERSEDED = "a recovery of lost states superseded it"


@dataclass(frozen=True, slots=True)
class Taken:
    """A state become co-signed: the next value, what must be durable before it is told, and the documents it asks."""

    channel: Channel
    durable: tuple[records.Write, ...]
    news: Notify
    exits: tuple[Exit, ...]


def take(channel: Channel, half: Half, second_signature: bytes, rest: tuple[Half, ...]) -> Taken:
    """What follows once the state of `half` has both signatures: the value, its records, and the news of it.

    `half.signature` is its proposer's: the sequencer's, or for a rejection the follower's. `second_signature` is empty
    for a state that the peer accepted on a session now lost: the exchange shows that of a later one.
    """
    proposer = (1 - channel.terms.sequencer) if half.voiding else channel.terms.sequencer
    if half.leap_by is not None:
        return _landed(channel, half, second_signature)
    pair = (half.signature, second_signature) if proposer == 0 else (second_signature, half.signature)
    agreed = CoSigned(half.applied.state, half.body_hash, *pair)
    voided = channel.proposals if half.voiding else ()
    added = exits_of(channel, half)
    exits = channel.exits
    if added:
        exits = (*(e for e in exits if e.kind not in {x.kind for x in added}), *added)
    after = with_changes(channel, latest=agreed, proposals=rest, rejection=None, exits=exits)
    durable: list[records.Write] = []
    if second_signature:
        # without its second signature a state is no record; the batches in between complete the journal all the same
        state = records.made_state(channel.id, half.version, half.body_hash, *pair, None)
        durable.append(records.PutState(state, agreed.state.body))
    durable.append(records.made_batch(channel.id, half.version, half.batch))
    if channel.sequencer:
        durable.append(records.DropProposals(channel.id, last=half.version))
    elif channel.rejection is not None or half.voiding:
        durable.append(records.DropRejections(channel.id, last=half.version))
    durable.extend(put_exit(channel, e) for e in added)
    return Taken(
        after, tuple(durable), Notify(Agreed(half.applied, voided, half.code, half.reason, half.rejected)), added
    )


def _landed(channel: Channel, half: Half, second_signature: bytes) -> Taken:
    """What follows once a recovery's leap has both signatures: all that was outstanding or lost is superseded.

    A loss that is younger than the leap does not end with it: what was signed since then may be lost as well.
    """
    still_lost = channel.lost and not 0 < channel.since <= half.version
    pair = (half.signature, second_signature) if half.leap_by == 0 else (second_signature, half.signature)
    agreed = CoSigned(half.applied.state, half.body_hash, *pair)
    gone = tuple(e for e in channel.exits if not e.complete)
    after = with_changes(
        channel,
        latest=agreed,
        proposals=(),
        rejection=None,
        recovery=None,
        lost=still_lost,
        since=channel.since if still_lost else 0,
        asked=None,
        offered=None,
        exits=tuple(e for e in channel.exits if e.complete),
    )
    durable = (
        records.PutState(records.CosignedState(channel.id, half.version, half.body_hash, *pair), agreed.state.body),
        records.PutBatch(channel.id, half.version, half.batch),
        records.DropProposals(channel.id, last=half.version),
        records.DropRejections(channel.id, last=half.version),
        *(drop_exit(channel, e) for e in gone),
        *((records.DropDocument(LOST_DOCUMENT, channel.id.hex()),) if channel.lost and not still_lost else ()),
    )
    return Taken(after, durable, Notify(Agreed(half.applied, channel.proposals, LostStatesError.code, SUPERSEDED)), ())


def outstanding(channel: Channel, version: int, hashed: bytes) -> tuple[Half, ...]:
    """Ours that lead up to a state that is shown with both signatures; empty where it is none of them."""
    single = tuple((h,) for h in (channel.rejection, channel.recovery) if h is not None)
    for waiting in (channel.proposals if channel.sequencer else (), *single):
        found = next((i for i, h in enumerate(waiting) if h.version == version and h.body_hash == hashed), None)
        if found is not None:
            return waiting[: found + 1]
    return ()


def catch_up(channel: Channel, found: tuple[Half, ...], second_signature: bytes) -> Step:
    """The peer signed what we had outstanding, and we had not heard of it.

    One Persist for all of it: were some of it durable and the rest not, what is outstanding would build on a state that
    no record holds.
    """
    durable: list[records.Write] = []
    news: list[Notify] = []
    after = channel
    for half in found:
        second = second_signature if half is found[-1] else NO_SIGNATURE
        taken = take(after, half, second, after.proposals[1:] if channel.sequencer else ())
        after = taken.channel
        durable.extend(taken.durable)
        news.append(taken.news)
    return Step(after, (Persist(tuple(durable)), *news))


def agree(
    channel: Channel,
    half: Half,
    second_signature: bytes,
    rest: tuple[Half, ...],
    writes: tuple[records.Write, ...],
    reply: wire.Message | None = None,
) -> Step:
    """The state of `half` has both signatures: durable first, then told, then the documents it calls for."""
    taken = take(channel, half, second_signature, rest)
    effects: list[Effect] = [Persist((*writes, *taken.durable))]
    if reply is not None:
        effects.append(Send(reply))
    effects.append(taken.news)
    effects.extend(sign_exits(taken.channel, taken.exits))
    return Step(taken.channel, tuple(effects))


def rejection_of(channel: Channel, message: wire.Reject) -> Half:
    """The empty state of a rejection, which must build on our own highest co-signed state."""
    expected = channel.latest.state.version + WINDOW + 1
    if message.version != expected:
        raise ProtocolFaultError(
            f"a rejection must offer version {expected}, not {message.version}: it builds on another state than ours"
        )
    half = make_half(channel, channel.latest.state, message.batch, message.version, message.signature)
    if half.applied.batch.operations:
        raise ProtocolFaultError("a rejection's batch must be empty")
    return half_with(half, voiding=True, code=message.code, reason=message.reason, rejected=message.rejected)


def reject_message(channel: Channel, half: Half) -> wire.Reject:
    """A rejection as it travels, and travels again after a lost session."""
    return wire.Reject(channel.id, half.rejected, half.code, half.reason, half.version, half.batch, half.signature)
