"""What two daemons say to each other inside a session: MessagePack arrays `[type, ...]`, one class each.

Rules: a message is a frozen dataclass; its fields, in order, follow its type number on the wire. Decoding is strict: a
wrong count, type, size or range is a WireError and the session ends. Nothing here is trusted: signatures and hashes are
checked by the machine that takes the message. Types 1-9 are the channel's, 10-19 requests, offers and
quotes, 20-29 terms, 40-49 margin calls and the end of disputes, 50-59 what each desk keeps for the other.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from typing import Any, ClassVar, TypeVar

from channeld.core.codec import decode, encode, encode_checked
from channeld.core.errors import PeerError

MAX_BATCH = 1 << 20
MAX_TEXT = 512
MAX_OUTSTANDING = 64
MAX_BLOB = 512 << 10
"""Of the sealed blob that a desk keeps for each of its peers, in bytes."""
_U64 = 1 << 64


class WireError(PeerError):
    """The peer sent a message that makes no sense. The session ends; no channel changes."""

    code = 3100
    advice = "The peer runs another program or a broken one; compare versions with its operator."


REGISTRY: dict[int, type[Message]] = {}
M = TypeVar("M", bound="type[Message]")


@dataclass(frozen=True, slots=True)
class Message:
    """The root of all messages."""

    TYPE: ClassVar[int] = 0


def _register(cls: M) -> M:
    REGISTRY[cls.TYPE] = cls
    return cls


@dataclass(frozen=True, slots=True)
class SignedDocument:
    """A side's signature on a Withdrawal (kind 1) or Close (kind 2) that belongs to a co-signed version."""

    kind: int
    version: int
    signature: bytes


@_register
@dataclass(frozen=True, slots=True)
class Sync(Message):
    """Opens a channel on a new session: the sender's highest co-signed state and all that is outstanding.

    `proposals`, `rejection` and `recovery` are the exact messages as they were first sent, encoded as arrays.
    `documents` are the sender's own signatures on withdrawals and closes that may still be wanted. At version 0 body
    and signatures are empty.
    """

    TYPE: ClassVar[int] = 1
    channel: bytes
    version: int
    body: bytes
    signature_a: bytes
    signature_b: bytes
    proposals: tuple[Propose, ...]
    rejection: Reject | None
    documents: tuple[SignedDocument, ...]
    recovery: Recover | None = None


@_register
@dataclass(frozen=True, slots=True)
class Propose(Message):
    """The sequencer's next state: the batch as it will be journaled, and its signature on the resulting state."""

    TYPE: ClassVar[int] = 2
    channel: bytes
    version: int
    batch: bytes
    signature: bytes


@_register
@dataclass(frozen=True, slots=True)
class Accept(Message):
    """The other signature on a proposed state (or, from the sequencer, on a rejection's empty state)."""

    TYPE: ClassVar[int] = 3
    channel: bytes
    version: int
    signature: bytes


@_register
@dataclass(frozen=True, slots=True)
class Reject(Message):
    """Voids proposal `rejected` and all built on it; offers the empty batch of docs/protocol.md section 9."""

    TYPE: ClassVar[int] = 4
    channel: bytes
    rejected: int
    code: int
    reason: str
    version: int
    batch: bytes
    signature: bytes


@_register
@dataclass(frozen=True, slots=True)
class Document(Message):
    """One side's signature on a Withdrawal (kind 1) or Close (kind 2) of a co-signed version."""

    TYPE: ClassVar[int] = 5
    channel: bytes
    document: SignedDocument


@_register
@dataclass(frozen=True, slots=True)
class Recover(Message):
    """The empty batch above lost states. Without a signature it asks the receiver to sign first; with it, it is that.

    Accept is the second signature.
    """

    TYPE: ClassVar[int] = 6
    channel: bytes
    version: int
    batch: bytes
    signature_first: bytes


@_register
@dataclass(frozen=True, slots=True)
class Offer(Message):
    """An operation that the sender wants in the channel, for the receiver to agree to.

    `batch` holds exactly one operation; its time is the end of the offer's life (milliseconds), its salt the offer's
    id.
    From the follower it is also the request that the sequencer puts it into a batch.
    """

    TYPE: ClassVar[int] = 10
    channel: bytes
    batch: bytes


@_register
@dataclass(frozen=True, slots=True)
class OfferReply(Message):
    """The receiver's answer to an offer: agreed (code 0), or refused with the error's code and text."""

    TYPE: ClassVar[int] = 11
    channel: bytes
    offer: bytes
    code: int
    reason: str


@_register
@dataclass(frozen=True, slots=True)
class RequestQuote(Message):
    """The sender wants prices: `request` is that of desk/quotes.py, canonical MessagePack. Binds nobody."""

    TYPE: ClassVar[int] = 12
    channel: bytes
    request: bytes


@_register
@dataclass(frozen=True, slots=True)
class GiveQuote(Message):
    """A firm quote: `quote` is that of desk/quotes.py; the signature is the sender's on the typed data Quote."""

    TYPE: ClassVar[int] = 13
    channel: bytes
    quote: bytes
    signature: bytes


@_register
@dataclass(frozen=True, slots=True)
class TakeQuote(Message):
    """Takes a quote of the receiver: an offer whose id is the quote's, and the sender's signature on the same Quote.

    Answered by an OfferReply.
    """

    TYPE: ClassVar[int] = 14
    channel: bytes
    batch: bytes
    signature: bytes


@_register
@dataclass(frozen=True, slots=True)
class PassQuote(Message):
    """No quote comes for a request (its id in `offer`), or the one who asked wants none any more."""

    TYPE: ClassVar[int] = 15
    channel: bytes
    offer: bytes
    code: int
    reason: str


@_register
@dataclass(frozen=True, slots=True)
class StreamMarket(Message):
    """The sender's two-way market in one instrument: `market` is that of desk/markets.py. Not signed."""

    TYPE: ClassVar[int] = 16
    channel: bytes
    market: bytes


@_register
@dataclass(frozen=True, slots=True)
class ProposeTerms(Message):
    """Terms of a new channel, for the receiver's operator to accept by hash."""

    TYPE: ClassVar[int] = 20
    chain_id: int
    adjudicator: bytes
    terms: bytes


@_register
@dataclass(frozen=True, slots=True)
class AcceptTerms(Message):
    """Agreement to terms, by their channel id."""

    TYPE: ClassVar[int] = 21
    channel: bytes


@_register
@dataclass(frozen=True, slots=True)
class Failure(Message):
    """Tells the peer why its message was refused. For its log and its operator; changes nothing."""

    TYPE: ClassVar[int] = 30
    channel: bytes
    code: int
    reason: str


@_register
@dataclass(frozen=True, slots=True)
class MarginNotice(Message):
    """A margin call: the sender holds the receiver below maintenance margin at `version`, at prices of `as_of`.

    call: the call's id. deadline: Unix seconds. figures: `pack_figures` of the amount called (units) and of the
    receiver's equity, maintenance and initial margin as the sender computes them (wads). Binds nobody.
    """

    TYPE: ClassVar[int] = 40
    channel: bytes
    call: bytes
    version: int
    as_of: int
    deadline: int
    figures: bytes


@_register
@dataclass(frozen=True, slots=True)
class MarginAnswer(Message):
    """The answer to a margin call: figures as the receiver of the call computes them, the amount it agrees to first."""

    TYPE: ClassVar[int] = 41
    channel: bytes
    call: bytes
    figures: bytes


@_register
@dataclass(frozen=True, slots=True)
class ResumeOffer(Message):
    """The sender's signature on Resume(channel, dispute, valid_until): both together end a dispute."""

    TYPE: ClassVar[int] = 42
    channel: bytes
    dispute: int
    valid_until: int
    signature: bytes


@_register
@dataclass(frozen=True, slots=True)
class MarkBands(Message):
    """(follower) The vols and carries that it signs in a MARK; `bands` as docs/protocol.md, 9.12, says."""

    TYPE: ClassVar[int] = 43
    channel: bytes
    bands: bytes


@_register
@dataclass(frozen=True, slots=True)
class GiveBlob(Message):
    """The sender's sealed blob, for the receiver to keep in place of the last; answered by BlobKept once durable.

    number: rises with every blob of the sender. Nobody but the sender can read it (docs/protocol.md, 9.13).
    """

    TYPE: ClassVar[int] = 50
    number: int
    blob: bytes


@_register
@dataclass(frozen=True, slots=True)
class BlobKept(Message):
    """The receiver's blob of this number is durable at the sender."""

    TYPE: ClassVar[int] = 51
    number: int


@_register
@dataclass(frozen=True, slots=True)
class ReturnBlob(Message):
    """First in each session, where one is kept: the receiver's own newest blob, given back."""

    TYPE: ClassVar[int] = 52
    number: int
    blob: bytes


FIGURE_BYTES = 16
FIGURES = 4


def pack_figures(amount: int, equity: int, maintenance: int, initial: int) -> bytes:
    """Four integers of at most 127 bits and a sign, big-endian, two's complement; larger ones are cut to that."""
    most = (1 << 127) - 1
    values = (min(max(value, -most), most) for value in (amount, equity, maintenance, initial))
    return b"".join(value.to_bytes(FIGURE_BYTES, "big", signed=True) for value in values)


def unpack_figures(raw: bytes) -> tuple[int, int, int, int]:
    """The four integers of `pack_figures`."""
    parts = (raw[i : i + FIGURE_BYTES] for i in range(0, FIGURES * FIGURE_BYTES, FIGURE_BYTES))
    amount, equity, maintenance, initial = (int.from_bytes(part, "big", signed=True) for part in parts)
    return amount, equity, maintenance, initial


_FIXED_BYTES = {"channel": (32,), "adjudicator": (20,), "offer": (16,), "signature": (65,)}
_FIXED_BYTES |= {"call": (16,), "figures": (FIGURES * FIGURE_BYTES,)}
_OPTIONAL_BYTES = {"signature_a": (0, 65), "signature_b": (0, 65), "signature_first": (0, 65)}
_INTEGERS = {"version": _U64, "rejected": _U64, "code": 1 << 31, "chain_id": _U64, "kind": 3}
_INTEGERS |= {"number": _U64, "as_of": _U64, "deadline": _U64, "valid_until": _U64, "dispute": 1 << 32}


def to_wire(message: Message) -> list[Any]:
    """The message as the array that travels."""
    return [message.TYPE, *(_out(getattr(message, f.name)) for f in fields(message))]


def pack(message: Message) -> bytes:
    """The message as bytes: what travels, and what is recorded."""
    # the two of every state, whose fields the machine has made: written at once
    if type(message) is Propose:
        return encode_checked([Propose.TYPE, message.channel, message.version, message.batch, message.signature])
    if type(message) is Accept:
        return encode_checked([Accept.TYPE, message.channel, message.version, message.signature])
    return encode(to_wire(message))


def unpack(raw: bytes) -> Message:
    """The message of recorded bytes.

    Raises:
        CodecError, WireError: they are not one.
    """
    return from_wire(decode(raw, 4 * MAX_BATCH))


def _out(value: Any) -> Any:  # noqa: ANN401 - any field of any message
    if isinstance(value, Message):
        return to_wire(value)
    if isinstance(value, SignedDocument):
        return list(astuple(value))
    return [_out(v) for v in value] if isinstance(value, tuple) else value


def from_wire(array: object) -> Message:
    """The message of a decoded array.

    Raises:
        WireError: naming what does not fit.
    """
    quick = _quick(array) if type(array) is list else None
    if quick is not None:
        return quick
    if not isinstance(array, list | tuple) or not array or not isinstance(array[0], int) or isinstance(array[0], bool):
        raise WireError("a message must be an array that starts with its type")
    cls = REGISTRY.get(array[0])
    if cls is None:
        raise WireError(f"message type {array[0]} is unknown")
    names = [f.name for f in fields(cls)]
    if len(array) != len(names) + 1:
        raise WireError(f"{cls.__name__} has {len(names)} fields, not {len(array) - 1}")
    return cls(**{name: _in(cls.__name__, name, value) for name, value in zip(names, array[1:], strict=True)})


def _quick(array: list[Any]) -> Propose | Accept | None:
    """The two messages of every state where they are as they should be, in one look; None for anything else."""
    size = len(array)
    if size == 5 and array[0] == Propose.TYPE:
        batch = array[3]
        if type(batch) is not bytes or len(batch) > MAX_BATCH:
            return None
    elif size != 4 or array[0] != Accept.TYPE:
        return None
    kind, channel, version, signature = array[0], array[1], array[2], array[-1]
    if (
        type(kind) is int
        and type(channel) is bytes
        and len(channel) == 32
        and type(version) is int
        and 0 <= version < _U64
        and type(signature) is bytes
        and len(signature) == 65
    ):
        return Propose(channel, version, batch, signature) if size == 5 else Accept(channel, version, signature)
    return None


def _in(owner: str, name: str, value: Any) -> Any:  # noqa: ANN401 - any field of any message
    where = f"{owner}.{name}"
    if name in _INTEGERS:
        return _integer(where, value, _INTEGERS[name])
    if name in _FIXED_BYTES or name in _OPTIONAL_BYTES:
        sizes = _FIXED_BYTES.get(name) or _OPTIONAL_BYTES[name]
        if not isinstance(value, bytes) or len(value) not in sizes:
            raise WireError(f"{where} must be {' or '.join(map(str, sizes))} bytes")
        return value
    if name == "reason":
        if not isinstance(value, str) or len(value) > MAX_TEXT:
            raise WireError(f"{where} must be a text of at most {MAX_TEXT} characters")
        return value
    if name == "proposals":
        return tuple(_nested(where, v, Propose) for v in _array(where, value, MAX_OUTSTANDING))
    if name in {"rejection", "recovery"}:
        return None if value is None else _nested(where, value, Reject if name == "rejection" else Recover)
    if name == "documents":
        return tuple(_document(where, v) for v in _array(where, value, 4))
    if name == "document":
        return _document(where, value)
    most = MAX_BLOB if name == "blob" else MAX_BATCH
    if not isinstance(value, bytes) or len(value) > most:
        raise WireError(f"{where} must be at most {most} bytes")
    return value


def _integer(where: str, value: object, limit: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < limit:
        raise WireError(f"{where} must be an integer in 0..{limit - 1}")
    return value


def _array(where: str, value: object, limit: int) -> list[Any]:
    if not isinstance(value, list | tuple) or len(value) > limit:
        raise WireError(f"{where} must be an array of at most {limit}")
    return list(value)


def _nested(where: str, value: object, cls: type[Message]) -> Message:
    # the type is checked first: messages do not nest more than once, whatever the array holds
    if not isinstance(value, list | tuple) or not value or value[0] != cls.TYPE:
        raise WireError(f"{where} must hold {cls.__name__} messages")
    return from_wire(value)


def _document(where: str, value: object) -> SignedDocument:
    parts = _array(where, value, 3)
    if len(parts) != 3:
        raise WireError(f"{where} must be [kind, version, signature]")
    kind, version, signature = parts
    return SignedDocument(_integer(where, kind, 3), _integer(where, version, _U64), _in(where, "signature", signature))
