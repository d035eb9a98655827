"""What the Adjudicator pays, and when: its pure twin, to the unit.

Rules: docs/protocol.md, section 11, "What settles" and "Payment"; contracts/Adjudicator.vy computes the same integers.
Amounts are units of the collateral, times Unix seconds, prices wads. Every amount is computed once from a's point of
view; b gets the rest of the pot, so that nothing is left over and no input can make it fail. A margin call's penalty
joins a's gain where `entitlement` takes it.

A dispute's way to its payment: its margin calls are tested (`judge`), the first verdict that finds a party below
decides the time and the penalty (`deciding`), the book is closed out there (`settle_with_calls`). Where nobody shows
the body on record, `settle_amounts` at D pays by another (settle_last), or `release_amounts` without any.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from channeld.core.errors import Fault, RuleError
from channeld.core.margin import both, to_wad_equity
from channeld.core.state import Account, Kind
from channeld.core.terms import ZERO_FEED
from channeld.core.valuation import profit, to_units
from channeld.core.wad import DAY, WAD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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


class FixMissingError(RuleError):
    """A margin call's test lacks a fix; the contract reverts with FixMissing."""

    code = 2301
    fault = Fault.USER
    advice = "Prove the fix first: channeld keeps the packages of every fix it may need."


MAX_CALLS = 8
CALLS_OF_PARTY = 4
NO_CALL = 255
RELEASE_DELAY = 180 * DAY


def call_time(terms: Terms, now: int) -> int:
    """L, the time of a margin call made now: the first tick at or after now + curePeriod (seconds)."""
    tick = terms.oracle.tick
    return -(-(now + terms.cure_period) // tick) * tick


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


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a margin call's test finds. Equities and margins are wads; the penalty is in units, of the one below alone.

    weight: the packages of all fixes used, each fix once. complete: every one of them has all its packages.
    """

    below_a: bool
    below_b: bool
    complete: bool
    weight: int
    equity_a: int = 0
    equity_b: int = 0
    margin_a: int = 0
    margin_b: int = 0
    penalty: int = 0


@dataclass(frozen=True, slots=True)
class MarginCall:
    """A margin call of a dispute. time: its L (seconds); verdict: None while it is not tested."""

    time: int
    verdict: Verdict | None = None


def equity_on_chain(terms: Terms, signed: Account, gain: int, deposited: int, paid: int, collateral_price: int) -> int:
    """A party's equity at L (wad): balance + gain + (deposits up to L - deposited) + (withdrawn - paid out).

    gain, deposited (on chain, up to L) and paid in units; collateral_price a wad, used where the terms name its feed,
    after the haircut. docs/protocol.md, section 6.
    """
    units = signed.balance + gain + (deposited - signed.deposited) + (signed.withdrawn - paid)
    return to_wad_equity(units, terms, collateral_price)


def judge(
    terms: Terms,
    body: Body,
    fixes: Mapping[FixKey, tuple[int, int]],
    t: int,
    deposited_a: int,
    deposited_b: int,
    paid_a: int,
    paid_b: int,
) -> Verdict:
    """A margin call's test at t, its L (seconds), on the body on record: who is below maintenance margin.

    fixes: (value as a wad, weight) by (feed, time). deposited_a, deposited_b: units in blocks up to t; paid: ever.

    Raises:
        FixMissingError: a fix that `fixes_needed` names is not proven.
        UnknownMarketError: a position's feed is none of the terms' markets.

    """
    needed = fixes_needed(terms, body, t)
    for feed, at in needed:
        if fixes.get((feed, at), (0, 0))[1] == 0:
            raise FixMissingError(f"the fix of {feed.rstrip(bytes(1))!r} at {at} is not proven", time=at)
    full = len(terms.oracle.signers) * terms.oracle.samples
    complete, weight = all(fixes[key][1] >= full for key in needed), sum(fixes[key][1] for key in needed)
    if not body.positions:
        return Verdict(below_a=False, below_b=False, complete=True, weight=0)
    values = {key: fixes[key][0] for key in needed}
    collateral = values.get((terms.collateral_feed, t), WAD)
    prices = {feed: value for (feed, at), value in values.items() if at == t}
    report_a, report_b = both(terms, body, prices, t, collateral, values)
    margin_a, margin_b = report_a.maintenance, report_b.maintenance
    gain = close_out(terms, body, values, t)
    equity_a = equity_on_chain(terms, body.a, gain, deposited_a, paid_a, collateral)
    equity_b = equity_on_chain(terms, body.b, -gain, deposited_b, paid_b, collateral)
    below_a, below_b = equity_a < margin_a, equity_b < margin_b
    penalty = 0
    if below_a != below_b:
        margin = margin_a if below_a else margin_b
        penalty = to_units(terms.closeout_penalty * margin // WAD, terms, collateral)
    return Verdict(below_a, below_b, complete, weight, equity_a, equity_b, margin_a, margin_b, penalty)


def deciding(body: Body, calls: Sequence[MarginCall]) -> tuple[int, int]:
    """(index of the call that decides, a's gain by its penalty in units); (NO_CALL, 0) where none finds a party below.

    calls: in the order of calling, which is that of their times. Untested ones are void; an empty book needs none.
    """
    for index, call in enumerate(calls if body.positions else ()):
        verdict = call.verdict
        if verdict is not None and (verdict.below_a or verdict.below_b):
            return index, -verdict.penalty if verdict.below_a else verdict.penalty
    return NO_CALL, 0


def may_settle(
    terms: Terms, body: Body, deadline: int, calls: Sequence[MarginCall], weights: Mapping[FixKey, int], now: int
) -> str:
    """What `settle` would refuse with now (the contract's error), or nothing.

    weights: of the fixes that are proven. FixTimeNotReached before D; before D + grace CallsUntested, where a call has
    no verdict by complete fixes, and FixesIncomplete, where the close-out lacks a complete fix.
    """
    d = fix_time(terms, deadline)
    if now < d:
        return "FixTimeNotReached"
    if now >= d + terms.oracle.grace or not body.positions:
        return ""
    if any(call.verdict is None or not call.verdict.complete for call in calls):
        return "CallsUntested"
    index, _ = deciding(body, calls)
    t = d if index == NO_CALL else calls[index].time
    full = len(terms.oracle.signers) * terms.oracle.samples
    return "FixesIncomplete" if any(weights.get(key, 0) < full for key in fixes_needed(terms, body, t)) else ""


def settle_with_calls(
    terms: Terms,
    body: Body,
    fixes: Mapping[FixKey, int | None],
    deadline: int,
    calls: Sequence[MarginCall],
    deposited_a: int,
    deposited_b: int,
    paid_a: int,
    paid_b: int,
) -> tuple[int, int]:
    """What `settle` pays to a and b (units) in a dispute with this deadline (seconds) and these margin calls."""
    index, penalty = deciding(body, calls)
    t = fix_time(terms, deadline) if index == NO_CALL else calls[index].time
    gain = close_out(terms, body, fixes, t) + penalty
    return entitlement(body.a, gain, deposited_a=deposited_a, deposited_b=deposited_b, paid_a=paid_a, paid_b=paid_b)


def release_amounts(deposited_a: int, deposited_b: int, paid_a: int, paid_b: int) -> tuple[int, int]:
    """What `release` gives to a and b (units): a its deposits less what was paid to it, within the pot; b the rest."""
    return entitlement(Account(), 0, deposited_a=deposited_a, deposited_b=deposited_b, paid_a=paid_a, paid_b=paid_b)


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
