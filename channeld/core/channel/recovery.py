"""Recovery of lost states: how a side whose records are old goes on with its peer. docs/protocol.md, 9.8.

Theory. A side that has lost states may have signed anything up to W + 1 above the highest that anybody can show, and
does not know what. It signs nothing, until both have signed one empty batch so far above (LEAP) that all of it is
superseded. Rules:

  1. Lost is durable, in the commit that takes the peer's state, and ends in the commit of the leap's second signature,
     where that leap was asked for since. An older one, which a later loss may have forgotten, is no more than a base.
  2. Only content that is co-signed is signed again: the leap builds on the highest co-signed state either can show, and
     changes nothing in it. Whoever asks for a leap gains no more than by a rejection.
  3. Who has lost nothing signs first, so that it cannot wait and choose: the loser's signature completes the leap. Of
     two losers the one that showed the higher state signs first; of equal ones the sequencer.
  4. The first signature is durable and repeated byte for byte, like a rejection. Where a higher state turns up before
     it is completed, its signer has signed above that too: it counts as a loser then, and the next leap is higher.
  5. A leap's version is its batch's second, shifted, whatever it builds on: it lies LEAP above its base, and one that
     is asked for later lies above all that were asked for before, whoever has forgotten them.
  6. A loser may have signed a Close that it does not remember: the desk says when none can be used any more (Recover).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from channeld.core import records, wire
from channeld.core.channel.agree import catch_up, outstanding
from channeld.core.channel.events import (
    Decide,
    DeclareLoss,
    Found,
    Frozen,
    Lost,
    Notify,
    Persist,
    Recover,
    Send,
    Sign,
    Step,
)
from channeld.core.channel.exits import drop_exit
from channeld.core.channel.values import (
    LEAP,
    LOST_DOCUMENT,
    BodyUnknownError,
    Channel,
    CoSigned,
    EquivocationError,
    Half,
    LostStatesError,
    NotReadyError,
    ProtocolFaultError,
    check_signature,
    make_half,
)
from channeld.core.codec import decode, encode
from channeld.core.eip712 import body_hash, state_digest
from channeld.core.errors import ChanneldError, InternalError
from channeld.core.operations import decode_batch
from channeld.core.state import State

if TYPE_CHECKING:
    from channeld.core.channel.events import Effect
    from channeld.core.state import Body

BASE_DOCUMENT = "base"
LEAP_SHIFT = 21
"""A second is worth 2**21 versions, more than any channel makes in one; below 2**53 until the year 2106."""


def lost_mark(channel: bytes, since: int = 0) -> records.Write:
    """The record that says: these records are old, sign nothing but a recovery. A restore from a backup writes it.

    since: the first leap that was asked for because of this loss; 0 before one was.
    """
    return records.PutDocument(LOST_DOCUMENT, channel.hex(), encode([since]))


def read_lost_mark(raw: bytes) -> int:
    """The `since` of a mark."""
    (since,) = decode(raw)
    return int(since)


def base_key(channel: bytes, version: int) -> str:
    """Where the body of a state is kept whose journal this side does not hold, so that a replay can begin there."""
    return f"{channel.hex()}/{version:020d}"


def leap_version(batch: bytes) -> int:
    """The version of the leap that a batch makes: it depends on its second alone."""
    return decode_batch(batch).time_ms // 1000 << LEAP_SHIFT


def leap_of(channel: Channel, batch: bytes, version: int | None = None) -> Half:
    """The leap that a batch makes from our highest co-signed state.

    Raises:
        ProtocolFaultError: the batch is not empty, the version is not the batch's, or not far enough above our state.
        RuleError: the batch does not apply.
    """
    base, leap = channel.latest.state.version, leap_version(batch)
    if leap < base + LEAP or (version is not None and version != leap):
        raise ProtocolFaultError(
            f"a recovery from version {base} must offer {leap} by its second and at least {base + LEAP}, not {version}"
        )
    half = make_half(channel, channel.latest.state, batch, leap)
    if half.applied.batch.operations:
        raise ProtocolFaultError("a recovery's batch must be empty")
    return half


def leap_message(channel: Channel, half: Half) -> wire.Recover:
    """A leap as its first signer sends it, and sends it again."""
    return wire.Recover(channel.id, half.version, half.batch, half.signature)


# --- finding it


def take_shown(channel: Channel, version: int, body: bytes, pair: tuple[bytes, bytes]) -> Step:
    """Hold a state that somebody shows to ours: take what is higher, and see whether it proves that we have lost some.

    Raises:
        ProtocolFaultError, WrongSignatureError: it is no state of this channel with both signatures.
    """
    if not version:
        return Step(channel)
    shown = _verified(channel, version, body, pair)
    ours = channel.latest
    if version == ours.state.version and shown.body_hash != ours.body_hash:
        error = EquivocationError(f"two states of version {version} carry both signatures: the other one differs")
        return Step(replace(channel, frozen=str(error)), (Notify(Frozen(error, str(error))),))
    if version <= ours.state.version:
        return Step(channel)
    found = outstanding(channel, version, shown.body_hash)
    if not found:
        return _adopt(channel, shown)
    leapt = channel.recovery is not None and found[-1].leap_by is None
    done = catch_up(channel, found, pair[1 - channel.side])
    if not leapt:
        return done
    # rule 4: what we signed first lies above this state, and builds on a lower one
    return _join(done, lose(done.channel, "a higher state turned up than the one that our recovery builds on"))


def _verified(channel: Channel, version: int, raw: bytes, pair: tuple[bytes, bytes]) -> CoSigned:
    try:
        body: Body = records.decode_body(raw)
    except records.RecordDecodeError as error:
        raise ProtocolFaultError(f"the body of version {version} that is shown is none: {error}") from error
    hashed = body_hash(body)
    digest = state_digest(channel.domain, channel.id, version, hashed)
    for side, signature in enumerate(pair):
        check_signature(channel, side, digest, signature, f"version {version} that is shown")
    return CoSigned(State(channel.id, version, body), hashed, *pair)


def _adopt(channel: Channel, shown: CoSigned) -> Step:
    """A state with our signature that our records lack: taken, and the loss is durable with it."""
    state = shown.state
    kept = records.CosignedState(channel.id, state.version, shown.body_hash, shown.signature_a, shown.signature_b)
    stale = (*channel.proposals, *((channel.rejection,) if channel.rejection else ()))
    last = max((state.version, *(h.version for h in stale)))
    writes = (
        records.PutState(kept, state.body),
        records.PutDocument(BASE_DOCUMENT, base_key(channel.id, state.version), records.encode_body(state.body)),
        # named by what is held: what is proposed later must not fall under it, in whatever order they become durable
        records.DropProposals(channel.id, last=last),
        *((records.DropRejections(channel.id, last=channel.rejection.version),) if channel.rejection else ()),
    )
    reason = f"version {state.version} with our signature is shown; our records end at {channel.latest.state.version}"
    return lose(replace(channel, latest=shown, proposals=(), rejection=None), reason, writes, channel)


def lose(channel: Channel, reason: str, writes: tuple[records.Write, ...] = (), before: Channel | None = None) -> Step:
    """From here on nothing is signed but a recovery; half-made documents may have been signed and lost as well."""
    held = (before or channel).latest.state.version
    gone = tuple(e for e in channel.exits if not e.complete)
    void = channel.recovery.version if channel.recovery is not None else 0
    voided = (records.DropRejections(channel.id, void, void),) if void else ()
    marked = replace(
        channel,
        lost=True,
        since=0,
        recovery=None,
        draft=None,
        asked=None,
        offered=None,
        exits=tuple(e for e in channel.exits if e.complete),
    )
    durable = (
        *writes,
        *voided,
        *(drop_exit(channel, e) for e in gone),
        lost_mark(channel.id),
    )
    news = Lost(channel.latest.state, held, LostStatesError(reason))
    return Step(marked, (Persist(durable), Notify(news)))


def on_desk(channel: Channel, event: DeclareLoss | Found | Recover) -> Step:
    """What the desk knows of lost states. Losses and states from elsewhere are told between sessions alone."""
    if isinstance(event, Recover):
        return recover(channel, event)
    if channel.connected:
        raise NotReadyError("what is lost, or found elsewhere, is taken between sessions: end this one first")
    if isinstance(event, DeclareLoss):
        return lose(channel, event.reason)
    return take_shown(channel, event.version, event.body, (event.signature_a, event.signature_b))


# --- the exchange


def sync_lost(done: Step, message: wire.Sync) -> Step:
    """The rest of an exchange in which this side knows that it has lost states: nothing is signed."""
    channel = done.channel
    told = any(isinstance(e, Notify) and isinstance(e.event, Lost) for e in done.effects)
    if not told:
        news = Lost(channel.latest.state, channel.latest.state.version, LostStatesError("a recovery is not finished"))
        done = Step(channel, (*done.effects, Notify(news)))
    half = fitting(channel, message.recovery)
    return done if half is None else Step(replace(channel, offered=half), done.effects)


def fitting(channel: Channel, message: wire.Recover | None) -> Half | None:
    """The leap that the peer has signed and shows, where it builds on our state; one on another is out of date."""
    if message is None or not message.signature_first or message.version <= channel.latest.state.version:
        return None
    try:
        return _signed_by_peer(channel, leap_of(channel, message.batch, message.version), message)
    except ChanneldError:
        return None


def _signed_by_peer(channel: Channel, half: Half, message: wire.Recover) -> Half:
    peer = 1 - channel.side
    check_signature(channel, peer, half.digest, message.signature_first, "a recovery")
    return replace(half, signature=message.signature_first, leap_by=peer)


# --- going on


def recover(channel: Channel, event: Recover) -> Step:
    """(who has lost states) The desk is ready: complete the leap that the peer has signed, or ask it to sign one."""
    if not channel.lost:
        raise NotReadyError("no states are lost here")
    if channel.frozen or not channel.synced or channel.closing is not None:
        raise NotReadyError("a recovery needs the exchange of a session, no dispute, and no close that may be used")
    if event.seen > channel.latest.state.version:
        highest = channel.latest.state.version
        error = BodyUnknownError(
            f"version {event.seen} is known to chain or tower; the highest body found is of version {highest}",
            seen=event.seen,
            found=highest,
        )
        return Step(replace(channel, frozen=str(error)), (Notify(Frozen(error, str(error))),))
    base = channel.latest.state.version
    if leap_version(event.batch) < base + LEAP:
        raise NotReadyError(f"the next recovery above version {base} is to be asked for later: one was made just now")
    half = leap_of(channel, event.batch)
    since = channel.since or half.version
    willing = replace(channel, willing=True, since=since)
    effects: tuple[Effect, ...] = () if channel.since else (Persist((lost_mark(channel.id, since),)),)
    if channel.offered is not None:
        following = _land(willing, channel.offered)
    elif channel.recovery is not None:
        following = Step(willing)
    elif channel.asked is not None and channel.leads:
        following = _sign_first(willing, half)
    else:
        following = Step(willing, (Send(leap_message(channel, half)),))
    return Step(following.channel, (*effects, *following.effects))


def _land(channel: Channel, half: Half) -> Step:
    sign = Sign("land", half.version, half.digest)
    return Step(replace(channel, draft=half, offered=None), (sign,))


def _sign_first(channel: Channel, half: Half) -> Step:
    half = replace(half, leap_by=channel.side)
    sign = Sign("leap", half.version, half.digest)
    return Step(replace(channel, draft=half, asked=None), (sign,))


def on_recover(channel: Channel, message: wire.Recover) -> Step:
    """The peer asks for a leap, or has signed the one we asked for."""
    if channel.frozen or message.version <= channel.latest.state.version:
        return Step(channel)
    if channel.recovery is not None and not message.signature_first:
        return Step(channel, (Send(leap_message(channel, channel.recovery)),))
    half = leap_of(channel, message.batch, message.version)
    if message.signature_first:
        if not channel.lost or channel.recovery is not None:
            raise ProtocolFaultError("the peer signed a recovery that nobody asked for")
        half = _signed_by_peer(channel, half, message)
        return _land(channel, half) if channel.willing else Step(replace(channel, offered=half))
    if channel.closing is not None or (channel.lost and not channel.leads):
        return Step(channel)  # it asks again
    if not channel.lost:
        return Step(replace(channel, asked=half), (Decide(half.version, channel.latest.state, half),))
    return _sign_first(channel, half) if channel.willing else Step(replace(channel, asked=half))


def accept_leap(channel: Channel, half: Half) -> Step:
    """The desk finds no fault with the leap that the peer asks for: sign it first."""
    if not channel.synced or channel.frozen or channel.closing is not None or channel.recovering:
        return Step(channel)
    return _sign_first(channel, half)


def leap_signed(channel: Channel, half: Half, own: records.Write) -> Step:
    """Our first signature under a leap: durable, then sent; from here on nothing else is."""
    if half.leap_by != channel.side:
        raise InternalError("a leap is signed first by the side that it names")
    message = leap_message(channel, half)
    write = records.PutRejection(channel.id, half.version, wire.pack(message))
    effects: tuple[Effect, ...] = (Persist((own, write)), Send(message))
    return Step(replace(channel, recovery=half), effects)


def _join(done: Step, following: Step) -> Step:
    return Step(following.channel, (*done.effects, *following.effects))
