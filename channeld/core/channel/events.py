"""Inputs and effects of the machine: plain data, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from channeld.core import records, wire
    from channeld.core.channel.values import Channel, Exit, Half
    from channeld.core.errors import ChanneldError
    from channeld.core.operations import Batch
    from channeld.core.state import State
    from channeld.core.transition import Applied

# What the shell tells the machine.


@dataclass(frozen=True, slots=True)
class Connected:
    """A session with the peer stands."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The session is gone."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message of the peer about this channel."""

    message: wire.Message


@dataclass(frozen=True, slots=True)
class ProposeBatch:
    """(sequencer) The desk wants this batch as the next state. decoded: what its bytes were made of, if at hand."""

    batch: bytes
    decoded: Batch | None = None


@dataclass(frozen=True, slots=True)
class Signed:
    """The answer to a Sign effect."""

    purpose: str
    version: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """(follower) The answer to Decide: the proposal may be signed."""

    version: int


@dataclass(frozen=True, slots=True)
class Refused:
    """(follower) The answer to Decide: void it. `batch` is an encoded empty batch (the shell's time and salt)."""

    version: int
    batch: bytes
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Freeze:
    """Sign no more states: a dispute runs, or this side's records cannot be trusted."""

    reason: str


@dataclass(frozen=True, slots=True)
class Thaw:
    """The dispute has ended by a Resume that is final: states are signed again. What froze otherwise stays frozen."""


@dataclass(frozen=True, slots=True)
class CloseExpired:
    """The Close's validUntil is past and final on chain without a payment: the channel goes on."""


@dataclass(frozen=True, slots=True)
class DeclareLoss:
    """These records are older than what this side may have signed: they come from a backup, or its blob says so."""

    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """A state from elsewhere than the peer's exchange: a backup, a tower, a peer's blob, the chain. Between sessions.

    body: `records.encode_body`. Nothing of it is trusted.
    """

    version: int
    body: bytes
    signature_a: bytes
    signature_b: bytes


@dataclass(frozen=True, slots=True)
class Recover:
    """(who has lost states) Go on above them: every other source has been asked, and no lost Close can still be used.

    batch: an encoded empty batch (the shell's time and salt). seen: the highest version that chain or towers show.
    """

    batch: bytes
    seen: int = 0


Input = (
    Connected
    | Disconnected
    | Received
    | ProposeBatch
    | Signed
    | Accepted
    | Refused
    | Freeze
    | Thaw
    | CloseExpired
    | DeclareLoss
    | Found
    | Recover
)


@dataclass(frozen=True, slots=True)
class Sign:
    """Sign `digest`. purpose: propose, accept, reject, confirm (states); withdrawal, close (documents).

    leap, land (states): a recovery's, first and second signature; they alone may be far above the last.
    """

    purpose: str
    version: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Persist:
    """Make the records durable before going on."""

    writes: tuple[records.Write, ...]


@dataclass(frozen=True, slots=True)
class Send:
    """Give the message to the session, if it stands. packed: its bytes, where they were made for a record already."""

    message: wire.Message
    packed: bytes = b""


@dataclass(frozen=True, slots=True)
class Decide:
    """(follower) Judge this proposal, which builds on `before`; or (either) the leap that a peer asks for.

    `half` is None where the batch itself breaks a rule, named by `error`: the only answer is Refused.
    """

    version: int
    before: State
    half: Half | None
    error: ChanneldError | None = None


@dataclass(frozen=True, slots=True)
class Agreed:
    """A state has both signatures and is durable here.

    voided: proposals that its rejection voided; rejected: the version of the one that was refused, with code and
    reason; what was built on it has no fault of its own.
    """

    applied: Applied
    voided: tuple[Half, ...] = ()
    code: int = 0
    reason: str = ""
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class ExitReady:
    """A Withdrawal or Close has both signatures: take it to the chain."""

    exit: Exit


@dataclass(frozen=True, slots=True)
class Ready:
    """The exchange of this session is done: the desk may propose."""


@dataclass(frozen=True, slots=True)
class Frozen:
    """The channel signs no more states."""

    error: ChanneldError | None
    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """This side's records are old. Told when it is found, and in each session until a recovery is agreed.

    latest: the highest state that could be found so far; `held`: the version at which our own records ended.
    """

    latest: State
    held: int
    error: ChanneldError


@dataclass(frozen=True, slots=True)
class Notify:
    """Tell the desk."""

    event: Agreed | ExitReady | Ready | Frozen | Lost


Effect = Sign | Persist | Send | Decide | Notify


@dataclass(frozen=True, slots=True)
class Step:
    """The next value of the channel, and what the shell must do, in order."""

    channel: Channel
    effects: tuple[Effect, ...] = ()
