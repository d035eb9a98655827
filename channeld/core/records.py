"""Durable records: what a desk must find again after a crash, and the interface of the room that keeps them.

Rules: writes are data. The channel machine emits them inside its Persist effects; the shell hands a sequence of them to
`Store.commit`, which returns when all of them are durable, or raises and none of them is. Nothing signed leaves the
process before the commit that holds it has returned. Co-signed states, batches and signatures are written once: the
same record again is accepted and changes nothing, a different one under the same key is refused. Versions are protocol
versions and must fit 63 bits here. Times are Unix milliseconds. The byte encodings of Terms and Body are those of
core/record_encoding.py.

    StoreError 6000
     |-- DoubleSignError 6001         two digests for one version, or a version below one signed      (fault: self)
     |-- RecordConflictError 6002     another record is already durable under this key                (fault: self)
     |-- UnknownRecordError 6003      a channel that this store does not hold
     |-- RecordValueError 6004        a value that no record may have                                 (fault: self)
     |-- RecordDecodeError 6005       stored bytes that are no Terms or Body
     '-- 6010-6029: opening, disk, server and lock; in the store room
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from channeld.core.errors import Fault, StoreError
from channeld.core.evolve import maker
from channeld.core.record_encoding import RecordDecodeError, decode_body, decode_terms, encode_body, encode_terms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from channeld.core.state import Body

__all__ = [
    "MAX_VERSION",
    "RISING_KINDS",
    "SIGNED_CLOSE",
    "SIGNED_RESUME",
    "SIGNED_STATE",
    "SIGNED_WITHDRAWAL",
    "AppendEvent",
    "BatchRecord",
    "ChannelRecord",
    "ChannelSnapshot",
    "CosignedState",
    "DoubleSignError",
    "DropDocument",
    "DropEvents",
    "DropProposals",
    "DropRejections",
    "EventRecord",
    "MessageRecord",
    "PutBatch",
    "PutChannel",
    "PutDocument",
    "PutProposal",
    "PutRejection",
    "PutSigned",
    "PutState",
    "RecordConflictError",
    "RecordDecodeError",
    "RecordValueError",
    "SetStatus",
    "SignedRecord",
    "Store",
    "UnknownRecordError",
    "Write",
    "decode_body",
    "decode_terms",
    "encode_body",
    "encode_terms",
]

MAX_VERSION = (1 << 63) - 1

# Kinds of signature. Each has its own versions; the signer refuses two digests for one (channel, kind, version).
SIGNED_STATE = "state"  # version: the state's version. Must rise.
SIGNED_WITHDRAWAL = "withdrawal"  # version: the state's version. Must rise.
SIGNED_CLOSE = "close"  # version: the Close's validUntil, since a lapsed Close of one state may be followed by another
SIGNED_RESUME = "resume"  # version: the Resume's validUntil, for the same reason
RISING_KINDS = frozenset({SIGNED_STATE, SIGNED_WITHDRAWAL})


class DoubleSignError(StoreError):
    """The signer was asked for a second digest at one version, or for a version at or below one already signed."""

    code = 6001
    fault = Fault.SELF
    advice = "Nothing was signed. The channel is frozen: keep the data directory as it is and report the log."


class RecordConflictError(StoreError):
    """A different record is already durable under this key. Nothing was changed."""

    code = 6002
    fault = Fault.SELF
    advice = "The channel is frozen: keep the data directory as it is and report the log."


class UnknownRecordError(StoreError):
    """A channel that this store does not hold."""

    code = 6003
    fault = Fault.USER
    advice = "List the channels of this desk with `channeld channel list`."


class RecordValueError(StoreError):
    """A value that no record may have, such as a channel id that is not 32 bytes."""

    code = 6004
    fault = Fault.SELF
    advice = "This is a bug: nothing was stored; report the log."


def _require(condition: bool, rule: str) -> None:  # noqa: FBT001 - an assertion with a typed error
    if not condition:
        raise RecordValueError(rule)


def _channel(value: bytes) -> None:
    _require(isinstance(value, bytes) and len(value) == 32, "a channel id must be 32 bytes")


def _version(value: int) -> None:
    _require(
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_VERSION,
        "a version must lie in 0..2**63-1",
    )


def _bytes(value: bytes, size: int, name: str) -> None:
    _require(isinstance(value, bytes) and len(value) == size, f"{name} must be {size} bytes")


# --- records ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChannelRecord:
    """A channel of this desk. channel: 32 bytes; peer: the other signer's address; side: ours, 0 for a, 1 for b.

    terms: `encode_terms`; chain_id and adjudicator: the EIP-712 domain; opened_at: milliseconds.
    """

    channel: bytes
    peer: bytes
    side: int
    terms: bytes
    chain_id: int
    adjudicator: bytes
    status: str
    opened_at: int

    def __post_init__(self) -> None:
        """Refuse what is no channel."""
        _channel(self.channel)
        _bytes(self.peer, 20, "peer")
        _bytes(self.adjudicator, 20, "adjudicator")
        _require(self.side in (0, 1), "side must be 0 (a) or 1 (b)")
        _version(self.chain_id)
        _version(self.opened_at)
        _require(isinstance(self.terms, bytes) and isinstance(self.status, str), "terms are bytes, status is a text")


@dataclass(frozen=True, slots=True)
class CosignedState:
    """A state with both signatures. body: `encode_body`, or None where only the signatures were kept."""

    channel: bytes
    version: int
    body_hash: bytes
    signature_a: bytes
    signature_b: bytes
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """A batch of a channel, byte for byte as it travelled."""

    channel: bytes
    version: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class MessageRecord:
    """An outstanding message of ours (a proposal or a rejection), byte for byte as it is to be sent again."""

    version: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class SignedRecord:
    """What our signer signed. digest: 32 bytes; signature: 65 bytes."""

    channel: bytes
    kind: str
    version: int
    digest: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One entry of the desk's event log. data: JSON text."""

    sequence: int
    time_ms: int
    kind: str
    channel: bytes | None
    data: str


@dataclass(frozen=True, slots=True)
class ChannelSnapshot:
    """Everything the machine needs to resume a channel.

    state: the newest co-signed state, None before the first. snapshot: the newest co-signed state whose body was stored
    (the same one, unless `PutState.body` was left out); batches: those above the snapshot's version, ascending, from
    which the newest body is replayed. proposals and rejections: ours, outstanding, ascending. signed: every signature
    of kind SIGNED_STATE above the newest co-signed version, ascending. highest_signed: over SIGNED_STATE, 0 for none.
    """

    record: ChannelRecord
    state: CosignedState | None
    snapshot: CosignedState | None
    batches: tuple[BatchRecord, ...]
    proposals: tuple[MessageRecord, ...]
    rejections: tuple[MessageRecord, ...]
    signed: tuple[SignedRecord, ...]
    highest_signed: int


# --- writes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PutChannel:
    """A new channel. Again with the same id: only `status` may differ, and is updated."""

    record: ChannelRecord


@dataclass(frozen=True, slots=True)
class SetStatus:
    """Change the status of a channel that exists."""

    channel: bytes
    status: str

    def __post_init__(self) -> None:
        """Refuse a malformed channel id."""
        _channel(self.channel)
        _require(isinstance(self.status, str), "a status is a text")


@dataclass(frozen=True, slots=True)
class PutState:
    """A co-signed state. Its signatures are kept for ever; its body, where given, replaces the body of an older one.

    The body may be given as it is (`body`) and not yet encoded: of many states in one commit only the newest is.
    """

    state: CosignedState
    body: Body | None = None

    def __post_init__(self) -> None:
        """Refuse a malformed state."""
        s = self.state
        if (
            type(s.channel) is type(s.body_hash) is type(s.signature_a) is type(s.signature_b) is bytes
            and len(s.channel) == len(s.body_hash) == 32
            and len(s.signature_a) == len(s.signature_b) == 65
            and type(s.version) is int
            and 0 <= s.version <= MAX_VERSION
            and (s.body is None or type(s.body) is bytes)
        ):
            return
        _channel(self.state.channel)
        _version(self.state.version)
        _bytes(self.state.body_hash, 32, "body_hash")
        _bytes(self.state.signature_a, 65, "signature_a")
        _bytes(self.state.signature_b, 65, "signature_b")
        _require(self.state.body is None or isinstance(self.state.body, bytes), "a body is bytes")

    @property
    def has_body(self) -> bool:
        """Whether a body is given, encoded or not."""
        return self.body is not None or self.state.body is not None

    def body_bytes(self) -> bytes | None:
        """The body as it is kept, `encode_body`; None where it is left out."""
        return self.state.body if self.body is None else encode_body(self.body)


@dataclass(frozen=True, slots=True)
class PutBatch:
    """The batch that led to a version."""

    channel: bytes
    version: int
    raw: bytes

    def __post_init__(self) -> None:
        """Refuse a malformed key."""
        if (
            type(self.channel) is type(self.raw) is bytes
            and len(self.channel) == 32
            and type(self.version) is int
            and 0 <= self.version <= MAX_VERSION
        ):
            return
        _channel(self.channel)
        _version(self.version)
        _require(isinstance(self.raw, bytes), "a batch is bytes")


@dataclass(frozen=True, slots=True)
class PutProposal:
    """A proposal of ours that is outstanding: the raw message."""

    channel: bytes
    version: int
    raw: bytes

    def __post_init__(self) -> None:
        """Refuse a malformed key."""
        if (
            type(self.channel) is type(self.raw) is bytes
            and len(self.channel) == 32
            and type(self.version) is int
            and 0 <= self.version <= MAX_VERSION
        ):
            return
        _channel(self.channel)
        _version(self.version)
        _require(isinstance(self.raw, bytes), "a message is bytes")


@dataclass(frozen=True, slots=True)
class DropProposals:
    """Forget outstanding proposals of versions first..last, both included. Dropping none is fine."""

    channel: bytes
    first: int = 0
    last: int = MAX_VERSION

    def __post_init__(self) -> None:
        """Refuse a malformed range."""
        _channel(self.channel)
        _version(self.first)
        _version(self.last)


@dataclass(frozen=True, slots=True)
class PutRejection:
    """A rejection of ours that is outstanding: the version of the state it carries, and the raw message."""

    channel: bytes
    version: int
    raw: bytes

    def __post_init__(self) -> None:
        """Refuse a malformed key."""
        _channel(self.channel)
        _version(self.version)
        _require(isinstance(self.raw, bytes), "a message is bytes")


@dataclass(frozen=True, slots=True)
class DropRejections:
    """Forget outstanding rejections of versions first..last, both included. Dropping none is fine."""

    channel: bytes
    first: int = 0
    last: int = MAX_VERSION

    def __post_init__(self) -> None:
        """Refuse a malformed range."""
        _channel(self.channel)
        _version(self.first)
        _version(self.last)


@dataclass(frozen=True, slots=True)
class PutSigned:
    """The signer's record of one signature, durable before the signature leaves.

    One digest for one (channel, kind, version), for ever: the same digest again changes nothing, another raises
    DoubleSignError. For kinds in RISING_KINDS a new version must also lie above every version signed before.
    """

    channel: bytes
    version: int
    digest: bytes
    signature: bytes
    kind: str = SIGNED_STATE

    def __post_init__(self) -> None:
        """Refuse a malformed record."""
        if (
            type(self.channel) is type(self.digest) is type(self.signature) is bytes
            and len(self.channel) == len(self.digest) == 32
            and len(self.signature) == 65
            and type(self.version) is int
            and 0 <= self.version <= MAX_VERSION
            and type(self.kind) is str
            and self.kind
        ):
            return
        _channel(self.channel)
        _version(self.version)
        _bytes(self.digest, 32, "digest")
        _bytes(self.signature, 65, "signature")
        _require(isinstance(self.kind, str) and bool(self.kind), "a kind of signature is a text")


@dataclass(frozen=True, slots=True)
class PutDocument:
    """Store a value under (kind, key), replacing what was there."""

    kind: str
    key: str
    value: bytes

    def __post_init__(self) -> None:
        """Refuse what is no document."""
        _require(isinstance(self.kind, str) and isinstance(self.key, str), "kind and key of a document are texts")
        _require(isinstance(self.value, bytes), "a document's value is bytes")


@dataclass(frozen=True, slots=True)
class DropDocument:
    """Forget the document at (kind, key). Dropping none is fine."""

    kind: str
    key: str


@dataclass(frozen=True, slots=True)
class AppendEvent:
    """Append to the event log; `commit` returns the sequence number it got. data: JSON text."""

    time_ms: int
    kind: str
    channel: bytes | None = None
    data: str = "{}"

    def __post_init__(self) -> None:
        """Refuse what is no event."""
        _version(self.time_ms)
        _require(isinstance(self.kind, str) and isinstance(self.data, str), "kind and data of an event are texts")
        if self.channel is not None:
            _channel(self.channel)


@dataclass(frozen=True, slots=True)
class DropEvents:
    """Forget events with a sequence number of at most `last`. Sequence numbers are never used again."""

    last: int

    def __post_init__(self) -> None:
        """Refuse a malformed number."""
        _version(self.last)


# What the machine records of every state, from fields that it has made or checked itself: the classes' own checks are
# for everybody else.
made_signed = maker(PutSigned)
made_state = maker(CosignedState)
made_batch = maker(PutBatch)
made_proposal = maker(PutProposal)


Write = (
    PutChannel
    | SetStatus
    | PutState
    | PutBatch
    | PutProposal
    | DropProposals
    | PutRejection
    | DropRejections
    | PutSigned
    | PutDocument
    | DropDocument
    | AppendEvent
    | DropEvents
)


# --- the interface ------------------------------------------------------------------------------------------


class Store(Protocol):
    """The durable records of one desk. Every method may raise StoreError; reads see every commit that has returned."""

    async def commit(self, writes: Sequence[Write]) -> tuple[int, ...]:
        """Make all writes durable, in order, or none. Commits are applied in the order in which they were called.

        Returns:
            the sequence numbers of the AppendEvent writes, in order.

        Raises:
            DoubleSignError, RecordConflictError, UnknownRecordError: by these writes; nothing of them was stored, other
                callers' commits are not touched.
            StoreError: disk or database; the store then refuses every further commit. Whether these writes are durable
                is unknown: they must be treated as if they might be, and nothing they cover may be sent.

        """
        ...

    async def channels(self) -> tuple[ChannelRecord, ...]:
        """All channels, in the order in which they were first stored."""
        ...

    async def load_channel(self, channel: bytes) -> ChannelSnapshot:
        """What the machine needs to resume. Raises UnknownRecordError."""
        ...

    async def state(self, channel: bytes, version: int | None = None) -> CosignedState | None:
        """The co-signed state of a version, or the newest; body is None where it was not kept."""
        ...

    async def states(self, channel: bytes, first: int = 0, last: int = MAX_VERSION) -> tuple[CosignedState, ...]:
        """Co-signed states of versions first..last, ascending."""
        ...

    async def batches(
        self, channel: bytes, first: int = 0, last: int = MAX_VERSION, limit: int | None = None
    ) -> tuple[BatchRecord, ...]:
        """Batches of versions first..last, ascending: the journal; the first `limit` of them where one is given."""
        ...

    async def signed(self, channel: bytes, version: int, kind: str = SIGNED_STATE) -> SignedRecord | None:
        """What our signer signed at a version."""
        ...

    async def highest_signed(self, channel: bytes, kind: str = SIGNED_STATE) -> SignedRecord | None:
        """The signature of the highest version of its kind, or None."""
        ...

    async def document(self, kind: str, key: str) -> bytes | None:
        """The value at (kind, key), or None."""
        ...

    async def documents(self, kind: str, prefix: str = "") -> tuple[tuple[str, bytes], ...]:
        """(key, value) of one kind whose keys begin with prefix, ascending by key."""
        ...

    async def events(self, since: int = 0, limit: int = 1000, channel: bytes | None = None) -> tuple[EventRecord, ...]:
        """Events with a sequence number above `since`, ascending, at most `limit`; of one channel where given."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, release files and lock. Closing twice is fine; later calls raise StoreError."""
        ...
