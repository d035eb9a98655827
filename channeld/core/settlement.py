"""What the Adjudicator pays, and when: its pure twin, to the unit.

Rules: docs/protocol.md, section 11, "What settles" and "Payment"; contracts/Adjudicator.vy computes the same integers.
Amounts are units of the collateral, times Unix seconds, prices wads. Every amount is computed once from a's point of
view; b gets the rest of the pot, so that nothing is left over and no input can make it fail. A margin call's penalty
joins a's gain where `entitlement` takes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from channeld.core.errors import Fault, RuleError
from channeld.core.state import Account, Kind
from channeld.core.terms import ZERO_FEED
from channeld.core.valuation import profit, to_units

if TYPE_CHECKING:
    from collections.abc import Mapping

    from channeld.core.eip712 import Close, Withdrawal
    from channeld.core.state import Body, Position
    from channeld.core.terms import Terms

FixKey = tuple[bytes, int]
"""A feed (32 bytes) and a time (Unix seconds)."""


class PotShortError(RuleError):
    """A withdrawal of more than the channel holds on chain; the contract reverts with PotShort."""

    code = 2300
    fault = Fault.USER
    advice = "Wait until the deposits that the state counts are on chain, then send the same withdrawal."


def fix_time(terms: Terms, deadline: int) -> int:
    """D, the time of the close-out's fix: the first tick at or after deadline + samples * sampleGap (seconds)."""
    tick = terms.oracle.tick
    earliest = deadline + terms.oracle.samples * terms.oracle.sample_gap
    return -(-earliest // tick) * tick


def _fix_key(position: Position, t: int) -> FixKey:
    """The fix that closes a position out at t: its own expiry's where that has passed."""
    i = position.instrument
    return (i.feed, i.expiry) if i.kind != Kind.PERPETUAL and i.expiry <= t else (i.feed, t)


def fixes_needed(terms: Terms, body: Body, t: int) -> tuple[FixKey, ...]:
    """The (feed, time) of every fix that a close-out at t (seconds) asks for, each once, in the order of the book.

    The collateral's own comes last, where the terms name its feed. An empty book needs none.
    """
    if not body.positions:
        return ()
    keys = [_fix_key(position, t) for position in body.positions]
    if terms.collateral_feed != ZERO_FEED:
        keys.append((terms.collateral_feed, t))
    return tuple(dict.fromkeys(keys))


def close_out(terms: Terms, body: Body, fixes: Mapping[FixKey, int | None], t: int) -> int:
    """What a gains (units) when the book is closed out at t (seconds) at these fixes (wads).

    A position whose fix is absent, None or zero stays at its mark and gains nothing but its funding; the collateral
    without its own is worth collateralMark.
    """
    if not body.positions:
        return 0
    gain = profit(body, [fixes.get(_fix_key(position, t)) for position in body.positions], t)
    collateral = fixes.get((terms.collateral_feed, t)) or body.collateral_mark
    return to_units(gain, terms, collateral)


def entitlement(
    signed: Account, gain: int, *, deposited_a: int, deposited_b: int, paid_a: int, paid_b: int
) -> tuple[int, int]:
    """What a and b are due at the end (units).

    e_a = balance + gain + (on-chain deposits - deposited) + (withdrawn - paid out), clamped to [0, pot]; b: the rest.

    signed: a's account in the state or Close that is enforced. The deposits and payments are the chain's totals.
    """
    pot = deposited_a + deposited_b - paid_a - paid_b
    due = signed.balance + gain + (deposited_a - signed.deposited) + (signed.withdrawn - paid_a)
    to_a = min(max(due, 0), pot)
    return to_a, pot - to_a


def settle_amounts(
    terms: Terms,
    body: Body,
    fixes: Mapping[FixKey, int | None],
    t: int,
    deposited_a: int,
    deposited_b: int,
    paid_a: int,
    paid_b: int,
) -> tuple[int, int]:
    """What `settle` pays to a and b (units), closing out at t (seconds; see `fix_time`) at these fixes (wads)."""
    gain = close_out(terms, body, fixes, t)
    return entitlement(body.a, gain, deposited_a=deposited_a, deposited_b=deposited_b, paid_a=paid_a, paid_b=paid_b)


def close_amounts(close: Close, deposited_a: int, deposited_b: int, paid_a: int, paid_b: int) -> tuple[int, int]:
    """What `close` pays to a and b (units)."""
    return entitlement(close.a, 0, deposited_a=deposited_a, deposited_b=deposited_b, paid_a=paid_a, paid_b=paid_b)


def withdraw_amounts(
    withdrawal: Withdrawal, deposited_a: int, deposited_b: int, paid_a: int, paid_b: int
) -> tuple[int, int]:
    """What `withdraw` pays to a and b (units): max(0, total - paid) each.

    Raises:
        PotShortError: the channel holds less than both together.

    """
    to_a = max(0, withdrawal.withdrawn_a - paid_a)
    to_b = max(0, withdrawal.withdrawn_b - paid_b)
    pot = deposited_a + deposited_b - paid_a - paid_b
    if to_a + to_b > pot:
        raise PotShortError(
            f"{to_a + to_b} units are asked for and the channel holds {pot}", asked=to_a + to_b, pot=pot
        )
    return to_a, to_b


@dataclass(frozen=True, slots=True)
class Ledger:
    """A channel's money on chain, in units: cumulative deposits and payments of both. Each step gives a new one."""

    deposited_a: int = 0
    deposited_b: int = 0
    paid_a: int = 0
    paid_b: int = 0

    @property
    def pot(self) -> int:
        """What the channel holds."""
        return self.deposited_a + self.deposited_b - self.paid_a - self.paid_b

    @property
    def totals(self) -> tuple[int, int, int, int]:
        """(deposited_a, deposited_b, paid_a, paid_b), as the functions of this module take them."""
        return self.deposited_a, self.deposited_b, self.paid_a, self.paid_b

    def deposit(self, side: int, units: int) -> Ledger:
        """After a deposit of what arrived for a (0) or b (1)."""
        if side:
            return replace(self, deposited_b=self.deposited_b + units)
        return replace(self, deposited_a=self.deposited_a + units)

    def pay(self, to_a: int, to_b: int) -> Ledger:
        """After a payment to both, pushed or held for them."""
        return replace(self, paid_a=self.paid_a + to_a, paid_b=self.paid_b + to_b)

    def withdraw(self, withdrawal: Withdrawal) -> Ledger:
        """After a withdrawal.

        Raises:
            PotShortError: the channel holds less.

        """
        return self.pay(*withdraw_amounts(withdrawal, *self.totals))

    def close(self, close: Close) -> Ledger:
        """After a cooperative close."""
        return self.pay(*close_amounts(close, *self.totals))

    def settle(self, terms: Terms, body: Body, fixes: Mapping[FixKey, int | None], t: int) -> Ledger:
        """After a settlement of a body at t."""
        return self.pay(*settle_amounts(terms, body, fixes, t, *self.totals))
