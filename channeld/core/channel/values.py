"""What one side knows of a channel: co-signed states, halves, exits, and the value that holds them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from channeld.core.crypto import SignatureError, verify
from channeld.core.eip712 import Close, Domain, Withdrawal, body_hash, state_digest
from channeld.core.errors import ChanneldError, PeerError, RuleError
from channeld.core.evolve import evolver
from channeld.core.transition import Applied, apply

if TYPE_CHECKING:
    from channeld.core.operations import Batch
    from channeld.core.state import State
    from channeld.core.terms import Terms

WINDOW = 64
LEAP = 1 << 32
"""How far above the highest state that can be found a side goes on that has lost states, at least."""
MAX_OUTSTANDING_BYTES = 896 << 10
"""Of the batches of all outstanding proposals: a Sync shows them in one message, which holds at most 1 MiB."""
NO_SIGNATURE = b""
LOST_DOCUMENT = "lost"
DISPUTED = "a dispute runs on chain"
DISPUTING = "this desk disputes on chain"


class NotReadyError(RuleError):
    """The channel cannot sign now: not connected, closing, frozen, or waiting for the other side."""

    code = 3110
    advice = "Try again once the peer is connected and nothing is outstanding; `channeld status` tells."


class ProtocolFaultError(PeerError):
    """The peer sent a message that the protocol does not allow at this point. The session ends, nothing changes."""

    code = 3111
    advice = "Compare the programs' versions; if it persists, stop trading and challenge with the last co-signed state."


class WrongSignatureError(PeerError):
    """The peer's signature is not its signer's over the state that follows."""

    code = 3112
    advice = "The two sides compute different states or the peer lost its key; nothing was accepted."


class EquivocationError(PeerError):
    """The peer holds two different states with both signatures at one version. The channel is frozen."""

    code = 3113
    advice = "Keep the data directory: it is evidence. Challenge with the highest co-signed state."


class LostStatesError(ChanneldError):
    """This side's own signature proves a state that its database does not hold: nothing is signed but a recovery."""

    code = 3114
    advice = (
        "It recovers by itself with the peer (docs/protocol.md, 9.8). A newer copy of the database is better still."
    )


class BodyUnknownError(ChanneldError):
    """Chain or tower show a version above every body that could be found. No state is signed: dispute."""

    code = 3120
    advice = "Find the newest database, or challenge: the peer must then show the body on record to be paid."


@dataclass(frozen=True, slots=True)
class CoSigned:
    """A state with both signatures (empty at version 0, which is implicit)."""

    state: State
    body_hash: bytes
    signature_a: bytes
    signature_b: bytes

    def signature(self, side: int) -> bytes:
        """The signature of a (0) or b (1)."""
        return self.signature_b if side else self.signature_a


@dataclass(frozen=True)
class Half:
    """A state that follows from a batch, with its proposer's signature once it is made.

    digest: what is signed. leap_by: of a recovery's empty state, the side that signs it first; None for any other.
    through: bytes of its batch and of those that stood before it when it was proposed, so that a sum costs nothing.
    """

    applied: Applied
    batch: bytes
    body_hash: bytes
    digest: bytes
    signature: bytes = NO_SIGNATURE
    voiding: bool = False
    leap_by: int | None = None
    code: int = 0
    reason: str = ""
    rejected: int = 0
    through: int = 0

    @property
    def version(self) -> int:
        """The version of the state."""
        return self.applied.state.version


@dataclass(frozen=True, slots=True)
class Exit:
    """A Withdrawal or Close of a co-signed version, and the signatures on it so far."""

    kind: int
    document: Withdrawal | Close
    digest: bytes
    signature_a: bytes = NO_SIGNATURE
    signature_b: bytes = NO_SIGNATURE

    @property
    def complete(self) -> bool:
        """Whether both have signed, so that anybody may take it to the chain."""
        return bool(self.signature_a and self.signature_b)

    def signature(self, side: int) -> bytes:
        """The signature of a (0) or b (1)."""
        return self.signature_b if side else self.signature_a

    def signed(self, side: int, signature: bytes) -> Exit:
        """With a side's signature."""
        return replace(self, signature_b=signature) if side else replace(self, signature_a=signature)


@dataclass(frozen=True)
class Channel:
    """What one side knows of a channel. Built by `fresh` or `restore`, changed by `step` alone.

    lost, since, recovery: this side's records are known to be old; the first leap that was asked for because of it, 0
    before one was; the leap that this side signed first. All are durable.
    leads, willing, asked, offered: of one session: whether this side signs first where both have lost states; whether
    the desk has agreed to go on; the leap that the peer asks for; the leap that the peer has signed.
    """

    domain: Domain
    terms: Terms
    id: bytes
    side: int
    latest: CoSigned
    proposals: tuple[Half, ...] = ()
    rejection: Half | None = None
    recovery: Half | None = None
    draft: Half | None = None
    exits: tuple[Exit, ...] = ()
    connected: bool = False
    synced: bool = False
    lost: bool = False
    since: int = 0
    leads: bool = False
    willing: bool = False
    asked: Half | None = None
    offered: Half | None = None
    frozen: str = ""

    @property
    def sequencer(self) -> bool:
        """Whether this side orders."""
        return self.side == self.terms.sequencer

    @property
    def tip(self) -> State:
        """The state on which the next proposal builds."""
        return self.proposals[-1].applied.state if self.proposals else self.latest.state

    @property
    def recovering(self) -> bool:
        """Whether the next state can only be a leap above all that may have been signed and lost."""
        return self.lost or self.recovery is not None

    @property
    def closing(self) -> Close | None:
        """The Close that this side has undertaken; no state is signed while it may still be used."""
        return next((e.document for e in self.exits if isinstance(e.document, Close)), None)

    def signer(self, side: int) -> bytes:
        """The signer's address of a (0) or b (1)."""
        return self.terms.party(side).signer


def make_half(
    channel: Channel,
    before: State,
    batch: bytes,
    version: int,
    signature: bytes = NO_SIGNATURE,
    decoded: Batch | None = None,
) -> Half:
    """The state that a batch leads to. Raises RuleError where the batch breaks a rule."""
    applied = apply(channel.terms, before, batch, version, decoded)
    hashed = body_hash(applied.state.body)
    return Half(applied, batch, hashed, state_digest(channel.domain, channel.id, version, hashed), signature)


with_changes = evolver(Channel)
"""A channel with the fields named changed. Its class checks nothing, so this is `replace`, four times as fast."""
half_with = evolver(Half)
"""A half-signed state with the fields named changed; the same."""


def after(proposals: tuple[Half, ...], half: Half) -> Half:
    """The half as it stands behind the outstanding proposals."""
    return half_with(half, through=len(half.batch) + (proposals[-1].through if proposals else 0))


def check_signature(channel: Channel, side: int, digest: bytes, signature: bytes, what: str) -> None:
    """Raise WrongSignatureError unless it is the side's signature."""
    try:
        verify(digest, signature, channel.signer(side))
    except SignatureError as error:
        raise WrongSignatureError(f"the peer's signature on {what} is wrong: {error}") from error


def waiting_for(channel: Channel) -> str:
    """What stands between this side and the next state, in words; empty where it may go on."""
    if channel.frozen:
        return f"frozen: {channel.frozen}"
    if not channel.connected:
        return "the peer to connect"
    if not channel.synced:
        return "the peer's exchange"
    if channel.closing is not None:
        return "the close on chain"
    if channel.recovery is not None:
        return "the peer's signature under a recovery"
    if channel.lost:
        return "the recovery of lost states"
    if channel.rejection is not None:
        return "the peer's signature under a rejection"
    if channel.proposals:
        return (
            f"the peer's signature on version {channel.proposals[0].version}" if channel.sequencer else "our decision"
        )
    return ""
