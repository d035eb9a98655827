"""What must be true, kept apart from the code under test: who has signed what, what is co-signed, whose money is where.

Rules: nothing here asks the machine. Money follows from operations by a few lines of plain arithmetic; signatures are
remembered for ever, whatever the disks forget; the chain takes the higher version. A thing that must not be raises
Violation, whose text is what the fuzzer found.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from channeld.core.operations import CloseChannel, Deposit, Trade, Transfer, Withdraw
from channeld.core.wad import WAD

if TYPE_CHECKING:
    from channeld.core.operations import Operation
    from channeld.core.state import Body

UNIT_WADS = 10**12
"""Wads in a unit of six decimals."""


class Violation(AssertionError):  # noqa: N818 - what is violated is not this program
    """Something that must never be, was."""


def require(condition: object, text: str) -> None:
    if not condition:
        raise Violation(text)


# --- money


@dataclass(frozen=True, slots=True)
class Money:
    """Both accounts in units, and the one perpetual that is traded here: whole contracts, marked in whole dollars."""

    balance: tuple[int, int] = (0, 0)
    deposited: tuple[int, int] = (0, 0)
    withdrawn: tuple[int, int] = (0, 0)
    size: int = 0
    mark: int = 0

    def after(self, operations: tuple[Operation, ...]) -> Money:
        now = self
        for operation in operations:
            now = now._one(operation)
        return now

    def _one(self, operation: Operation) -> Money:
        a, b = self.balance
        match operation:
            case Deposit(_, total_a, total_b):
                grown = (a + total_a - self.deposited[0], b + total_b - self.deposited[1])
                return Money(grown, (total_a, total_b), self.withdrawn, self.size, self.mark)
            case Transfer(origin, units):
                sign = -1 if origin == 0 else 1
                return Money((a + sign * units, b - sign * units), *self._rest())
            case Withdraw(origin, units):
                left = (a - units, b) if origin == 0 else (a, b - units)
                gone = tuple(w + (units if side == origin else 0) for side, w in enumerate(self.withdrawn))
                return Money(left, self.deposited, gone, self.size, self.mark)
            case Trade(_, (leg,)):
                size, price = leg.size_delta // WAD, leg.price // WAD
                if self.size == 0:
                    return Money(self.balance, self.deposited, self.withdrawn, size, price)
                gain = size * (self.mark - price) * WAD // UNIT_WADS
                total = self.size + size
                mark = self.mark if total else 0
                return Money((a + gain, b - gain), self.deposited, self.withdrawn, total, mark)
            case CloseChannel():
                return self
            case _:
                raise Violation(f"{operation} is not modelled")

    def _rest(self) -> tuple[tuple[int, int], tuple[int, int], int, int]:
        return self.deposited, self.withdrawn, self.size, self.mark

    @classmethod
    def of(cls, body: Body) -> Money:
        size, mark = 0, 0
        for position in body.positions:
            size, mark = position.size // WAD, position.mark // WAD
        return cls(
            (body.a.balance, body.b.balance),
            (body.a.deposited, body.b.deposited),
            (body.a.withdrawn, body.b.withdrawn),
            size,
            mark,
        )


# --- one channel as the world knows it


@dataclass(slots=True)
class Truth:
    """Everything about one channel that no disk can forget."""

    money: dict[int, Money] = field(default_factory=lambda: {0: Money()})
    hashes: dict[int, bytes] = field(default_factory=dict)
    # of each side: what became durable or left, and the highest state among it
    digests: tuple[dict[tuple[str, int], bytes], dict[tuple[str, int], bytes]] = field(default_factory=lambda: ({}, {}))
    highest: list[int] = field(default_factory=lambda: [0, 0])
    highest_document: list[int] = field(default_factory=lambda: [0, 0])
    # until when (seconds) a Close of each side's may still be used, whatever that side remembers
    close_until: list[int] = field(default_factory=lambda: [0, 0])

    def signs(self, side: int, kind: str, version: int, digest: bytes, now: int) -> None:
        """A key is used: never for two digests of a version, never below one that was used before."""
        known = self.digests[side].get((kind, version))
        if known is not None:
            require(known == digest, f"side {side} signs a second {kind} at {version}")
            return
        if kind == "state":
            require(version > self.highest[side], f"side {side} signs {version} below {self.highest[side]}")
            require(now > self.close_until[side], f"side {side} signs {version} while its Close can still be used")
        elif kind == "withdrawal":
            top = self.highest_document[side]
            require(version > top, f"side {side} signs a withdrawal of {version} below {top}")

    def signed(self, side: int, kind: str, version: int, digest: bytes) -> None:
        """A signature is durable, or has left: from now on it binds its side."""
        known = self.digests[side].setdefault((kind, version), digest)
        require(known == digest, f"side {side} keeps a second {kind} of {version}")
        if kind == "state":
            self.highest[side] = max(self.highest[side], version)
        elif kind == "withdrawal":
            self.highest_document[side] = max(self.highest_document[side], version)
        else:
            self.close_until[side] = max(self.close_until[side], version)

    def cosigned(self, version: int, hashed: bytes) -> None:
        known = self.hashes.setdefault(version, hashed)
        require(known == hashed, f"two bodies of version {version} are co-signed")

    def moved(self, version: int, money: Money) -> None:
        known = self.money.setdefault(version, money)
        require(known == money, f"the two sides do not have the same money at version {version}")


# --- the chain


@dataclass(slots=True)
class Chain:
    """One channel in the contract: deposits, the floor, a dispute, the end."""

    deposits: list[int] = field(default_factory=lambda: [0, 0])
    paid: list[int] = field(default_factory=lambda: [0, 0])
    floor: int = 0
    record: int | None = None
    deadline: int = 0
    ended: bool = False

    def withdraw(self, version: int, totals: tuple[int, int]) -> None:
        if self.ended or self.record is not None:
            return
        due = [max(0, total - paid) for total, paid in zip(totals, self.paid, strict=True)]
        require(sum(self.deposits) - sum(self.paid) >= sum(due), "a withdrawal that was signed finds the pot short")
        self.paid = [paid + more for paid, more in zip(self.paid, due, strict=True)]
        self.floor = max(self.floor, version)

    def challenge(self, version: int, now: int, period: int) -> bool:
        if self.ended or self.record is not None:
            return False
        self.record, self.deadline = max(version, self.floor), now + period
        return True

    def refute(self, version: int, now: int) -> None:
        if self.record is not None and not self.ended and now < self.deadline and version > self.record:
            self.record = version

    def settle(self, money: Money) -> tuple[int, int]:
        """What a and b are paid; the twin of the contract's formula for a book that closes at its marks."""
        self.ended = True
        pot = sum(self.deposits) - sum(self.paid)
        due = money.balance[0] + self.deposits[0] - money.deposited[0] + money.withdrawn[0] - self.paid[0]
        first = min(max(due, 0), pot)
        return first, pot - first
