"""The transitions of the machine; its theory and rules are in the package's header."""

from __future__ import annotations

from dataclasses import replace

from channeld.core import wire
from channeld.core.channel.events import (
    Accepted,
    CloseExpired,
    Connected,
    DeclareLoss,
    Disconnected,
    Found,
    Freeze,
    Frozen,
    Input,
    Notify,
    Persist,
    ProposeBatch,
    Received,
    Recover,
    Refused,
    Send,
    Signed,
    Step,
    Thaw,
)
from channeld.core.channel.exchange import on_sync, sync_message
from channeld.core.channel.exits import drop_exit, on_document
from channeld.core.channel.proposals import (
    accept,
    decide_again,
    on_accept,
    on_propose,
    on_reject,
    propose,
    refuse,
    signed,
)
from channeld.core.channel.recovery import on_desk, on_recover
from channeld.core.channel.values import DISPUTED, DISPUTING, Channel, ProtocolFaultError
from channeld.core.eip712 import Close


def step(channel: Channel, event: Input) -> Step:
    """The next value of the channel and the effects of one input.

    Raises:
        PeerError: the peer broke the protocol; the channel given stands.
        NotReadyError, RuleError: the desk asked for what cannot be done now, or breaks a rule.
    """
    match event:
        case Received(message):
            return _received(channel, message)
        case Signed():
            return signed(channel, event)
        case Connected():
            # a new session may take the place of one whose end nobody told
            return Step(_quiet(channel, connected=True), (Send(sync_message(channel)),))
        case Disconnected():
            return Step(_quiet(channel, connected=False))
        case ProposeBatch():
            return propose(channel, event)
        case Accepted(version):
            return accept(channel, version)
        case Refused():
            return refuse(channel, event)
        case Freeze() | Thaw():
            return _freeze(channel, event)
        case CloseExpired():
            gone = tuple(e for e in channel.exits if isinstance(e.document, Close))
            drops = tuple(drop_exit(channel, e) for e in gone)
            kept_exits = tuple(e for e in channel.exits if e not in gone)
            open_again = replace(channel, exits=kept_exits)
            return Step(open_again, (Persist(drops), *decide_again(open_again)) if drops else ())
        case DeclareLoss() | Found() | Recover():
            return on_desk(channel, event)


def _freeze(channel: Channel, event: Freeze | Thaw) -> Step:
    """What froze for another reason than a dispute is not thawed by the end of one."""
    by_dispute = channel.frozen in (DISPUTED, DISPUTING)
    if isinstance(event, Thaw):
        return Step(replace(channel, frozen="") if by_dispute else channel)
    kept = channel.frozen if channel.frozen and not by_dispute else event.reason
    return Step(replace(channel, frozen=kept), (Notify(Frozen(None, event.reason)),))


def _quiet(channel: Channel, *, connected: bool) -> Channel:
    """Between sessions: a follower's undecided proposals are forgotten, since the sequencer sends them again."""
    kept = channel.proposals if channel.sequencer else ()
    return replace(
        channel,
        connected=connected,
        synced=False,
        leads=False,
        willing=False,
        asked=None,
        offered=None,
        draft=None,
        proposals=kept,
    )


def _received(channel: Channel, message: wire.Message) -> Step:
    if type(message) is wire.Sync:
        return on_sync(channel, message)
    if not channel.synced:
        raise ProtocolFaultError(f"{type(message).__name__} came before the exchange of this session")
    match message:
        case wire.Propose():
            return on_propose(channel, message)
        case wire.Accept():
            return on_accept(channel, message)
        case wire.Reject():
            return on_reject(channel, message)
        case wire.Recover():
            return on_recover(channel, message)
        case wire.Document(_, document):
            return on_document(channel, document)
        case _:
            raise ProtocolFaultError(f"{type(message).__name__} is not a channel's message")
