"""Batches of operations, and the exact bytes in which they travel.

Rules: a batch is one canonical MessagePack value (core/codec.py) `[timeMs, salt, [operation, ...]]`, an operation
`[origin, code, ...]` (docs/protocol-operations.md has every form). Fields of 128 bits always travel as 16 bytes of bin,
big-endian, two's complement, so that they lie in -2**127..2**127-1; ids as fixed-length bin; all else as MessagePack
integers. An instance that exists is within its types and bounds by itself, and has one encoding; what depends on terms
or state is the transition's to judge (core/transition.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NoReturn

from channeld.core.codec import MAX_SIZE, decode, encode, encode_checked
from channeld.core.crypto import keccak256
from channeld.core.errors import InternalError, RuleError
from channeld.core.evolve import maker
from channeld.core.state import MAX_CARRY, MAX_PRICE, MAX_VOL, MIN_VOL, Instrument, Kind

MAX_BATCH_BYTES = MAX_SIZE
MAX_BATCH_DEPTH = 5
MAX_OPERATIONS = 256
MAX_LEGS = 64
MAX_PACKAGES = 1024
MAX_PACKAGE_BYTES = 4096
MAX_NOTE_BYTES = 64
SALT_BYTES = 16
WIDE_BYTES = 16
FEED_BYTES = 32
MAX_DELTA = 1 << 96
"""A leg may turn a book from one bound of size to the other; both sizes lie below 2**95."""
_WIDE = 1 << 127
_U64 = 1 << 64


class MalformedBatchError(RuleError):
    """A batch, or an operation in it, does not have the form that docs/protocol-operations.md gives it."""

    code = 2110
    advice = "Compare the batch with docs/protocol-operations.md; the peer may speak another protocol version."


class OperationBoundError(RuleError):
    """A field of an operation lies outside its bounds (docs/protocol.md, section 2)."""

    code = 2111
    advice = "The named field must lie within the bounds of docs/protocol.md, section 2."


def _bound(condition: bool, rule: str) -> None:  # noqa: FBT001 - an assertion with a typed error
    if not condition:
        raise OperationBoundError(rule)


def _malformed(rule: str) -> NoReturn:
    raise MalformedBatchError(rule)


def _integer(value: object, low: int, high: int, name: str) -> None:
    """Refuse anything but an int in low..high; a bool is no int here."""
    _bound(
        type(value) is int and low <= value <= high,
        f"{name} must be an integer in {low}..{high}, not {value!r}",
    )


def _note(value: object, name: str) -> None:
    _bound(isinstance(value, bytes) and len(value) <= MAX_NOTE_BYTES, f"{name} must be at most {MAX_NOTE_BYTES} bytes")


def check_carry(value: object, name: str) -> None:
    """Refuse a carry beyond +-500% a year (a wad).

    Raises:
        OperationBoundError: naming the field.

    """
    _integer(value, -MAX_CARRY, MAX_CARRY, name)


def check_vol(value: object, name: str, *, option: bool) -> None:
    """Refuse an option's vol outside 1%..1000% (a wad), and any vol but zero elsewhere.

    Raises:
        OperationBoundError: naming the field.

    """
    if option:
        _integer(value, MIN_VOL, MAX_VOL, name)
    else:
        _integer(value, 0, 0, name)


@dataclass(frozen=True, slots=True)
class Leg:
    """One instrument of a TRADE. All wads; size_delta > 0 means a buys.

    carry and vol are proposals: used where none is agreed yet for the (feed, expiry) and strike.
    """

    instrument: Instrument
    size_delta: int
    price: int
    carry: int
    vol: int

    def __post_init__(self) -> None:
        """Refuse what lies outside the bounds of section 2."""
        _integer(self.size_delta, 1 - MAX_DELTA, MAX_DELTA - 1, "sizeDelta")
        _bound(self.size_delta != 0, "sizeDelta must not be zero")
        _integer(self.price, 0, MAX_PRICE - 1, "price")
        check_carry(self.carry, "carry")
        check_vol(self.vol, "vol", option=self.instrument.is_option)


@dataclass(frozen=True, slots=True)
class Operation:
    """What every operation has: `origin`, 0 for a and 1 for b, who asked for it."""

    code: ClassVar[int] = 0
    origin: int

    def check_origin(self) -> None:
        """Refuse an origin other than 0 and 1."""
        _integer(self.origin, 0, 1, "origin")


@dataclass(frozen=True, slots=True)
class Trade(Operation):
    """TRADE: all legs or none. `fee` in units, paid by a when positive; `reference` has no effect."""

    code: ClassVar[int] = 1
    legs: tuple[Leg, ...]
    fee: int = 0
    reference: bytes = b""

    def __post_init__(self) -> None:
        """Refuse no legs, too many, a fee beyond 128 bits and a long reference."""
        self.check_origin()
        _bound(1 <= len(self.legs) <= MAX_LEGS, f"a TRADE must have 1 to {MAX_LEGS} legs, not {len(self.legs)}")
        _integer(self.fee, -_WIDE, _WIDE - 1, "fee")
        _note(self.reference, "reference")


@dataclass(frozen=True, slots=True)
class Mark(Operation):
    """MARK: re-marks the book at time `time` (Unix seconds).

    feeds: the feeds it carries, ascending; each needs its print at `time` among the packages, the collateral's too.
    packages: signed RedStone packages: the prints, and the samples of the fix of every (feed, expiry) that expires.
    carries, vols: of every position on the feeds carried, in position order, once what expired has gone; vol 0 for
    perpetuals and futures.
    flagged: the (feed, expiry) pairs, ascending, settled at their marks because their fix has no quorum.
    """

    code: ClassVar[int] = 2
    time: int
    feeds: tuple[bytes, ...]
    packages: tuple[bytes, ...]
    carries: tuple[int, ...] = ()
    vols: tuple[int, ...] = ()
    flagged: tuple[tuple[bytes, int], ...] = ()

    def __post_init__(self) -> None:
        """Refuse fields outside their types, and feeds or pairs that do not ascend."""
        self.check_origin()
        _integer(self.time, 0, _U64 - 1, "time")
        for feed in self.feeds:
            _bound(isinstance(feed, bytes) and len(feed) == FEED_BYTES, "a feed must be 32 bytes")
        _bound(_ascending(self.feeds), "the feeds of a MARK must ascend without repeats")
        _bound(len(self.packages) <= MAX_PACKAGES, f"a MARK holds at most {MAX_PACKAGES} packages")
        for package in self.packages:
            _bound(
                isinstance(package, bytes) and len(package) <= MAX_PACKAGE_BYTES,
                f"a package must be at most {MAX_PACKAGE_BYTES} bytes",
            )
        _bound(len(self.carries) == len(self.vols), "a MARK has one vol for every carry, in position order")
        for carry in self.carries:
            check_carry(carry, "carry")
        for vol in self.vols:
            _integer(vol, 0, MAX_VOL, "vol")
        for feed, expiry in self.flagged:
            _bound(isinstance(feed, bytes) and len(feed) == FEED_BYTES, "a feed must be 32 bytes")
            _integer(expiry, 1, _U64 - 1, "expiry")
        _bound(_ascending(self.flagged), "the flagged pairs of a MARK must ascend without repeats")


@dataclass(frozen=True, slots=True)
class Transfer(Operation):
    """TRANSFER: `units` of collateral, at least 1, from its origin to the other; `memo` has no effect."""

    code: ClassVar[int] = 3
    units: int
    memo: bytes = b""

    def __post_init__(self) -> None:
        """Refuse fewer than one unit, more than 127 bits, and a long memo."""
        self.check_origin()
        _integer(self.units, 1, _WIDE - 1, "units")
        _note(self.memo, "memo")


@dataclass(frozen=True, slots=True)
class Deposit(Operation):
    """DEPOSIT: acknowledges both parties' cumulative deposits on chain, in units."""

    code: ClassVar[int] = 4
    deposited_a: int
    deposited_b: int

    def __post_init__(self) -> None:
        """Refuse totals outside 0..2**127-1."""
        self.check_origin()
        _integer(self.deposited_a, 0, _WIDE - 1, "depositedA")
        _integer(self.deposited_b, 0, _WIDE - 1, "depositedB")


@dataclass(frozen=True, slots=True)
class Withdraw(Operation):
    """WITHDRAW: `units`, at least 1, from its origin's balance to its withdrawn."""

    code: ClassVar[int] = 5
    units: int

    def __post_init__(self) -> None:
        """Refuse fewer than one unit and more than 127 bits."""
        self.check_origin()
        _integer(self.units, 1, _WIDE - 1, "units")


@dataclass(frozen=True, slots=True)
class CloseChannel(Operation):
    """CLOSE: asks both to sign a Close that names the version of its batch."""

    code: ClassVar[int] = 6

    def __post_init__(self) -> None:
        """Refuse an origin other than 0 and 1."""
        self.check_origin()


@dataclass(frozen=True, slots=True)
class Batch:
    """What travels and is hashed into the journal: a time in milliseconds, a salt of 16 bytes, and operations."""

    time_ms: int
    salt: bytes
    operations: tuple[Operation, ...]

    def __post_init__(self) -> None:
        """Refuse fields outside their types, and too many operations."""
        _integer(self.time_ms, 0, _U64 - 1, "timeMs")
        _bound(isinstance(self.salt, bytes) and len(self.salt) == SALT_BYTES, f"salt must be {SALT_BYTES} bytes")
        _bound(
            len(self.operations) <= MAX_OPERATIONS,
            f"a batch holds at most {MAX_OPERATIONS} operations, not {len(self.operations)}",
        )

    @property
    def second(self) -> int:
        """The batch's second: its time in whole Unix seconds, rounded down."""
        return self.time_ms // 1000


def _ascending(items: tuple[Any, ...]) -> bool:
    return all(items[i] < items[i + 1] for i in range(len(items) - 1))


# ---- encoding ------------------------------------------------------------------------------------------------------


def wide(value: int) -> bytes:
    """A 128-bit field as it travels: 16 bytes, big-endian, two's complement.

    Raises:
        OperationBoundError: beyond -2**127..2**127-1.

    """
    try:
        return value.to_bytes(WIDE_BYTES, "big", signed=True)
    except OverflowError as error:
        raise OperationBoundError(f"{value} does not fit 128 bits") from error


def _leg_fields(leg: Leg) -> list[Any]:
    i = leg.instrument
    return [int(i.kind), i.feed, i.expiry, wide(i.strike), wide(leg.size_delta), wide(leg.price), leg.carry, leg.vol]


def operation_fields(operation: Operation) -> list[Any]:
    """An operation as the array that travels: `[origin, code, ...]`.

    Raises:
        InternalError: not one of the six operations.

    """
    if isinstance(operation, Trade):
        legs = [_leg_fields(leg) for leg in operation.legs]
        return [operation.origin, Trade.code, legs, wide(operation.fee), operation.reference]
    head: list[Any] = [operation.origin, operation.code]
    match operation:
        case Mark():
            return [
                *head,
                operation.time,
                list(operation.feeds),
                list(operation.packages),
                list(operation.carries),
                list(operation.vols),
                [list(pair) for pair in operation.flagged],
            ]
        case Transfer():
            return [*head, wide(operation.units), operation.memo]
        case Deposit():
            return [*head, wide(operation.deposited_a), wide(operation.deposited_b)]
        case Withdraw():
            return [*head, wide(operation.units)]
        case CloseChannel():
            return head
        case _:
            raise InternalError(f"a {type(operation).__name__} is none of the six operations")


def encode_operation(operation: Operation) -> bytes:
    """The exact bytes of an operation, by which a request is told from any other."""
    return encode_checked(operation_fields(operation))


def encode_batch(batch: Batch) -> bytes:
    """The exact bytes of a batch: what travels, what is kept, what the journal hashes.

    Raises:
        OperationBoundError: more than 1 MiB.

    """
    raw = encode_checked([batch.time_ms, batch.salt, [operation_fields(op) for op in batch.operations]])
    _bound(len(raw) <= MAX_BATCH_BYTES, f"a batch of {len(raw)} bytes; at most {MAX_BATCH_BYTES}")
    return raw


def legs_hash(legs: tuple[Leg, ...], fee: int, reference: bytes) -> bytes:
    """What a Quote signs: keccak256 of the canonical `[legs, fee, reference]` of the TRADE it will become."""
    return keccak256(encode([[_leg_fields(leg) for leg in legs], wide(fee), reference]))


# ---- decoding ------------------------------------------------------------------------------------------------------


def _array(value: object, size: int | None, name: str, *, limit: int | None = None) -> list[Any]:
    if type(value) is not list:
        _malformed(f"{name} must be an array, not {type(value).__name__}")
    if size is not None and len(value) != size:
        _malformed(f"{name} must have {size} fields, not {len(value)}")
    if limit is not None and len(value) > limit:
        _malformed(f"{name} must have at most {limit} elements, not {len(value)}")
    return value


def _bin(value: object, name: str, size: int | None = None) -> bytes:
    if type(value) is not bytes:
        _malformed(f"{name} must be bin, not {type(value).__name__}")
    if size is not None and len(value) != size:
        _malformed(f"{name} must be {size} bytes of bin, not {len(value)}")
    return value


def _int(value: object, name: str) -> int:
    if type(value) is not int:
        _malformed(f"{name} must be an integer, not {type(value).__name__}")
    return value


def _wide(value: object, name: str) -> int:
    return int.from_bytes(_bin(value, name, WIDE_BYTES), "big", signed=True)


def _leg(value: object, name: str) -> Leg:
    kind, feed, expiry, strike, delta, price, carry, vol = _array(value, 8, name)
    if type(kind) is not int or not 0 <= kind <= max(Kind):
        _malformed(f"{name}: kind must be 0 to {int(max(Kind))}, not {kind!r}")
    instrument = Instrument(
        Kind(kind),
        _bin(feed, f"{name}: feed", FEED_BYTES),
        _int(expiry, f"{name}: expiry"),
        _wide(strike, f"{name}: strike"),
    )
    return Leg(
        instrument,
        _wide(delta, f"{name}: sizeDelta"),
        _wide(price, f"{name}: price"),
        _int(carry, f"{name}: carry"),
        _int(vol, f"{name}: vol"),
    )


def _trade(origin: int, rest: list[Any], name: str) -> Trade:
    legs, fee, reference = _array(rest, 3, name)
    raw_legs = _array(legs, None, f"{name}: legs", limit=MAX_LEGS)
    return Trade(
        origin,
        tuple(_leg(leg, f"{name}, leg {i}") for i, leg in enumerate(raw_legs)),
        _wide(fee, f"{name}: fee"),
        _bin(reference, f"{name}: reference"),
    )


def _mark(origin: int, rest: list[Any], name: str) -> Mark:
    time, feeds, packages, carries, vols, flagged = _array(rest, 6, name)
    pairs = [_array(pair, 2, f"{name}: flagged pair") for pair in _array(flagged, None, f"{name}: flagged")]
    return Mark(
        origin,
        _int(time, f"{name}: time"),
        tuple(_bin(feed, f"{name}: feed", FEED_BYTES) for feed in _array(feeds, None, f"{name}: feeds")),
        tuple(_bin(p, f"{name}: package") for p in _array(packages, None, f"{name}: packages", limit=MAX_PACKAGES)),
        tuple(_int(carry, f"{name}: carry") for carry in _array(carries, None, f"{name}: carries")),
        tuple(_int(vol, f"{name}: vol") for vol in _array(vols, None, f"{name}: vols")),
        tuple((_bin(f, f"{name}: flagged feed", FEED_BYTES), _int(e, f"{name}: flagged expiry")) for f, e in pairs),
    )


def _transfer(origin: int, rest: list[Any], name: str) -> Transfer:
    units, memo = _array(rest, 2, name)
    return Transfer(origin, _wide(units, f"{name}: units"), _bin(memo, f"{name}: memo"))


def _deposit(origin: int, rest: list[Any], name: str) -> Deposit:
    deposited_a, deposited_b = _array(rest, 2, name)
    return Deposit(origin, _wide(deposited_a, f"{name}: depositedA"), _wide(deposited_b, f"{name}: depositedB"))


def _withdraw(origin: int, rest: list[Any], name: str) -> Withdraw:
    (units,) = _array(rest, 1, name)
    return Withdraw(origin, _wide(units, f"{name}: units"))


def _close(origin: int, rest: list[Any], name: str) -> CloseChannel:
    _array(rest, 0, name)
    return CloseChannel(origin)


_DECODERS = {
    Trade.code: ("TRADE", _trade),
    Mark.code: ("MARK", _mark),
    Transfer.code: ("TRANSFER", _transfer),
    Deposit.code: ("DEPOSIT", _deposit),
    Withdraw.code: ("WITHDRAW", _withdraw),
    CloseChannel.code: ("CLOSE", _close),
}
NAMES: dict[int, str] = {code: name for code, (name, _) in _DECODERS.items()}
"""The protocol's names of the operations, by code."""


def operation_from_fields(value: object, name: str = "operation") -> Operation:
    """The operation of an array `[origin, code, ...]`, as `core.codec.decode` gives it; `name` is used in messages.

    Raises:
        MalformedBatchError: wrong form.
        OperationBoundError: a field out of bounds.
        InvalidStateError: an instrument that cannot be.

    """
    if type(value) is not list or len(value) < 2:
        _malformed(f"{name} must be an array [origin, code, ...]")
    origin, code = _int(value[0], f"{name}: origin"), _int(value[1], f"{name}: code")
    known = _DECODERS.get(code)
    if known is None:
        _malformed(f"{name}: {code} is no operation; codes are 1 to {max(_DECODERS)}")
    title, decoder = known
    operation: Operation = decoder(origin, value[2:], f"{name} ({title})")
    return operation


# The usual operations are read twice as fast where they are as they should be, all in one look; whatever is not goes
# through the decoders above, which name what is wrong.

_make_leg, _make_trade, _make_transfer = maker(Leg), maker(Trade), maker(Transfer)


@lru_cache(maxsize=8192)
def _known_instrument(kind: int, feed: bytes, expiry: int, strike: bytes) -> Instrument:
    return Instrument(Kind(kind), feed, expiry, int.from_bytes(strike, "big", signed=True))


def _quick_leg(value: object) -> Leg | None:
    if type(value) is not list or len(value) != 8:
        return None
    kind, feed, expiry, strike, raw_delta, raw_price, carry, vol = value
    if (
        type(kind) is not int
        or not 0 <= kind <= 3
        or type(feed) is not bytes
        or len(feed) != FEED_BYTES
        or type(expiry) is not int
        or not type(strike) is type(raw_delta) is type(raw_price) is bytes
        or not len(strike) == len(raw_delta) == len(raw_price) == WIDE_BYTES
        or type(carry) is not int
        or type(vol) is not int
    ):
        return None
    instrument = _known_instrument(kind, feed, expiry, strike)
    delta = int.from_bytes(raw_delta, "big", signed=True)
    price = int.from_bytes(raw_price, "big", signed=True)
    if not (-MAX_DELTA < delta < MAX_DELTA and delta and 0 <= price < MAX_PRICE and -MAX_CARRY <= carry <= MAX_CARRY):
        return None
    if not (MIN_VOL <= vol <= MAX_VOL if kind >= 2 else vol == 0):
        return None
    return _make_leg(instrument, delta, price, carry, vol)


def _quick(item: object) -> Operation | None:
    """A TRADE or TRANSFER within all its bounds; None for anything else."""
    if type(item) is not list or len(item) < 4 or type(item[0]) is not int or not 0 <= item[0] <= 1:
        return None
    if type(item[1]) is not int or type(item[-1]) is not bytes or len(item[-1]) > MAX_NOTE_BYTES:
        return None
    raw = item[-2]
    if type(raw) is not bytes or len(raw) != WIDE_BYTES:
        return None
    number = int.from_bytes(raw, "big", signed=True)
    if item[1] == Transfer.code and len(item) == 4 and number > 0:
        return _make_transfer(item[0], number, item[3])
    if item[1] != Trade.code or len(item) != 5 or type(item[2]) is not list or not 1 <= len(item[2]) <= MAX_LEGS:
        return None
    found = []
    for value in item[2]:
        leg = _quick_leg(value)
        if leg is None:
            return None
        found.append(leg)
    return _make_trade(item[0], tuple(found), number, item[4])


def decode_batch(raw: bytes) -> Batch:
    """The batch of exactly these bytes.

    Raises:
        CodecError: not canonical MessagePack, beyond 1 MiB, or nested too deeply.
        MalformedBatchError: not the form of a batch; the message names the operation and the field.
        OperationBoundError: a field out of bounds.
        InvalidStateError: an instrument that cannot be, such as a perpetual with an expiry.

    """
    time_ms, salt, operations = _array(decode(raw, MAX_BATCH_BYTES, MAX_BATCH_DEPTH), 3, "a batch")
    items = _array(operations, None, "the operations of a batch", limit=MAX_OPERATIONS)
    return Batch(
        _int(time_ms, "timeMs"),
        _bin(salt, "salt", SALT_BYTES),
        tuple([_quick(item) or operation_from_fields(item, f"operation {i}") for i, item in enumerate(items)]),
    )
