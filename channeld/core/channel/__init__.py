"""The two-party channel machine: how two desks agree on one state after another. Pure: input in, effects out.

Theory. One side, the sequencer, proposes; the other, the follower, accepts or rejects (docs/protocol.md, section 9).
A `Channel` value holds what this side knows: the highest co-signed state, what is outstanding, and which signatures are
being made. `step(channel, input)` returns the next value and effects, which the shell carries out in order:

    Sign      make a signature; the shell answers with `Signed`. The key's own guard refuses what breaks a signing rule.
    Persist   write records durably before any later effect of the same list.
    Send      give a message to the session; what is lost with a session is healed by the exchange at the next one.
    Decide    (follower) check a proposal by policy, margin, clock and chain; the answer is `Accepted` or `Refused`.
    Notify    tell the desk what happened.

Rules of this file:
  1. Nothing is proposed, accepted or rejected before the exchange of `Sync` on the present session.
  2. Persist stands before Send wherever a signature is in the message.
  3. An input that breaks a rule raises; the caller keeps the channel it had. Faults of the peer are PeerErrors.
  4. A follower's undecided proposals are not durable: the sequencer sends them again, byte for byte.
  5. What is awaited is derived from the value (`waiting_for`), never stored.
"""

from __future__ import annotations

from channeld.core.channel.events import (
    Accepted,
    Agreed,
    CloseExpired,
    Connected,
    Decide,
    DeclareLoss,
    Disconnected,
    Effect,
    ExitReady,
    Found,
    Freeze,
    Frozen,
    Input,
    Lost,
    Notify,
    Persist,
    ProposeBatch,
    Ready,
    Received,
    Recover,
    Refused,
    Send,
    Sign,
    Signed,
    Step,
    Thaw,
)
from channeld.core.channel.exchange import fresh, restore
from channeld.core.channel.exits import restore_exit
from channeld.core.channel.proposals import holds_up, outstanding_bytes
from channeld.core.channel.queue import EffectQueue, Group, coalesced
from channeld.core.channel.recovery import lost_mark
from channeld.core.channel.step import step
from channeld.core.channel.values import DISPUTED, DISPUTING, WINDOW, Channel, CoSigned, Exit, Half, waiting_for

__all__ = [
    "DISPUTED",
    "DISPUTING",
    "WINDOW",
    "Accepted",
    "Agreed",
    "Channel",
    "CloseExpired",
    "CoSigned",
    "Connected",
    "Decide",
    "DeclareLoss",
    "Disconnected",
    "Effect",
    "EffectQueue",
    "Exit",
    "ExitReady",
    "Found",
    "Freeze",
    "Frozen",
    "Group",
    "Half",
    "Input",
    "Lost",
    "Notify",
    "Persist",
    "ProposeBatch",
    "Ready",
    "Received",
    "Recover",
    "Refused",
    "Send",
    "Sign",
    "Signed",
    "Step",
    "Thaw",
    "coalesced",
    "fresh",
    "holds_up",
    "lost_mark",
    "outstanding_bytes",
    "restore",
    "restore_exit",
    "step",
    "waiting_for",
]
