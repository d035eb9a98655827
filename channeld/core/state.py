"""State: accounts, positions, bodies. An instance that exists is valid by itself.

Rules: the classes are the EIP-712 structs of docs/protocol.md, field for field. Sizes and money are from a's point of
view. Bounds are those of section 2, checked at construction; conservation is checked by `Body`. Rules that need the
terms (feeds within the markets, expiries on ticks) are the transition's.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from enum import IntEnum

from channeld.core.errors import InvalidStateError
from channeld.core.wad import WAD

MAX_POSITIONS = 64
MAX_FEED_EXPIRIES = 16
MAX_SIZE = 1 << 95
MAX_PRICE = 1 << 96
MAX_MARK = 1 << 100
MAX_CARRY = 5 * WAD
MIN_VOL, MAX_VOL = WAD // 100, 10 * WAD
ADDRESS_BYTES, WORD_BYTES = 20, 32
_U128 = 1 << 128
_U64 = 1 << 64


class Kind(IntEnum):
    """Kinds of instrument."""

    PERPETUAL = 0
    FUTURE = 1
    CALL = 2
    PUT = 3


def check(condition: bool, rule: str) -> None:  # noqa: FBT001 - an assertion with a typed error
    """Raise InvalidStateError naming the rule unless it holds."""
    if not condition:
        raise InvalidStateError(rule)


@dataclass(frozen=True, slots=True)
class Account:
    """One side's collateral, in units. Conservation ties both sides together; see Body."""

    balance: int = 0
    deposited: int = 0
    withdrawn: int = 0

    def __post_init__(self) -> None:
        """Refuse anything outside uint128."""
        if not 0 <= self.balance < _U128:
            raise InvalidStateError("a balance must not be negative nor exceed 128 bits")
        if not (0 <= self.deposited < _U128 and 0 <= self.withdrawn < _U128):
            raise InvalidStateError("deposited and withdrawn must be uint128")


@dataclass(frozen=True, slots=True)
class Instrument:
    """What is traded. `strike` is a wad, zero for kinds 0 and 1; `expiry` in Unix seconds, zero for kind 0."""

    kind: Kind
    feed: bytes
    expiry: int
    strike: int
    key: tuple[int, bytes, int, int] = field(init=False, repr=False, compare=False)
    """The sort key of positions: (kind, feed, expiry, strike)."""

    def __post_init__(self) -> None:
        """Refuse strikes and expiries that do not fit the kind."""
        object.__setattr__(self, "key", (int(self.kind), self.feed, self.expiry, self.strike))
        check(isinstance(self.feed, bytes) and len(self.feed) == WORD_BYTES, "a feed must be 32 bytes")
        check(0 <= self.expiry < _U64, "expiry must be a uint64")
        check(
            (self.kind == Kind.PERPETUAL) == (self.expiry == 0), "expiry must be zero for a perpetual, and only there"
        )
        if self.kind >= Kind.CALL:
            check(1 <= self.strike < MAX_PRICE, "an option's strike must lie in 1..2**96-1")
        else:
            check(self.strike == 0, "only options have a strike")

    @property
    def is_option(self) -> bool:
        """Whether it is a call or a put."""
        return self.kind >= Kind.CALL


@dataclass(frozen=True, slots=True)
class Position:
    """An open position. size, mark, carry and vol are wads; size > 0 means a is long.

    `hashed` is its hashStruct once it was asked for (core/eip712.py): a function of the other fields, kept with them.
    """

    instrument: Instrument
    size: int
    mark: int
    carry: int
    vol: int
    hashed: bytes = field(default=b"", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse anything outside the bounds of section 2."""
        if self.size == 0 or not -MAX_SIZE < self.size < MAX_SIZE:
            raise InvalidStateError("a position's size must be non-zero and below 2**95")
        if not 0 <= self.mark < MAX_MARK:
            raise InvalidStateError("a mark must lie in 0..2**100-1")
        if not -MAX_CARRY <= self.carry <= MAX_CARRY:
            raise InvalidStateError("a carry must lie within +-500%")
        if self.instrument.kind >= Kind.CALL:
            if not MIN_VOL <= self.vol <= MAX_VOL:
                raise InvalidStateError("an option's vol must lie in 1%..1000%")
        elif self.vol != 0:
            raise InvalidStateError("only options have a vol")

    @property
    def key(self) -> tuple[int, bytes, int, int]:
        """The sort key (kind, feed, expiry, strike)."""
        return self.instrument.key


@dataclass(frozen=True, slots=True)
class Body:
    """What a state says. asOf in seconds; collateralMark a wad; journal 32 bytes."""

    as_of: int
    collateral_mark: int
    journal: bytes
    a: Account
    b: Account
    positions: tuple[Position, ...]

    def __post_init__(self) -> None:
        """Refuse a body that does not conserve, is not sorted, or whose positions disagree on carry or vol."""
        self.check_accounts()
        if self.positions:
            self._check_book()

    def check_accounts(self) -> None:
        """Refuse a body that does not conserve; all that is checked of one whose positions are those of another."""
        a, b = self.a, self.b
        check(0 <= self.as_of < _U64, "asOf must be a uint64")
        check(0 < self.collateral_mark < MAX_PRICE, "collateralMark must lie in 1..2**96-1")
        check(len(self.journal) == WORD_BYTES, "journal must be 32 bytes")
        check(
            a.balance + b.balance == a.deposited + b.deposited - a.withdrawn - b.withdrawn,
            "balances must equal deposits less withdrawals",
        )

    def _check_book(self) -> None:
        check(len(self.positions) <= MAX_POSITIONS, f"at most {MAX_POSITIONS} positions")
        keys = [p.key for p in self.positions]
        check(
            all(x < y for x, y in itertools.pairwise(keys)),
            "positions must ascend by kind, feed, expiry, strike",
        )
        carries: dict[tuple[bytes, int], int] = {}
        vols: dict[tuple[bytes, int, int], int] = {}
        for position in self.positions:
            i = position.instrument
            check(
                carries.setdefault((i.feed, i.expiry), position.carry) == position.carry,
                "one carry for one (feed, expiry)",
            )
            if i.is_option:
                check(
                    vols.setdefault((i.feed, i.expiry, i.strike), position.vol) == position.vol,
                    "one vol for one strike",
                )
        check(len(carries) <= MAX_FEED_EXPIRIES, f"at most {MAX_FEED_EXPIRIES} distinct (feed, expiry) pairs")

    def account(self, side: int) -> Account:
        """Account a for 0, b for 1."""
        return self.b if side else self.a

    def position(self, key: tuple[int, bytes, int, int]) -> Position | None:
        """The position of an instrument key, or None."""
        return next((p for p in self.positions if p.key == key), None)


@dataclass(frozen=True, slots=True)
class State:
    """A body at a version of a channel; what both parties sign."""

    channel: bytes
    version: int
    body: Body


def genesis(channel: bytes) -> State:
    """Version 0: implicit, never signed; journal is the channel id."""
    return State(channel, 0, Body(0, WAD, channel, Account(), Account(), ()))
