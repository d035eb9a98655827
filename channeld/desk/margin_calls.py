"""Margin calls between desks: who is short, of how much, and the life of a call. A pure state machine.

Rules: a call is issued by a party whose counterparty stands below maintenance margin (MM), for what brings it back to
initial margin (IM). The states are those that the ISDA CDM names. TRANSITIONS is the whole machine; a call in a final
state never leaves it. The called party's own figure decides what it agrees to; what both agree on, the undisputed
amount, is delivered first. Amounts are units of the collateral: required amounts round up, so that a delivery always
suffices; what is given back rounds down. Money moves elsewhere: by deposits on chain, by trades, by judgement on chain.

A call does not bind the chain: there the whole of MM counts, without threshold or minimum, at the fix of its own time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from channeld.core.errors import InputError, PeerError, RuleError
from channeld.core.margin import both
from channeld.core.settlement import equity_on_chain
from channeld.core.terms import ZERO_FEED
from channeld.core.wad import WAD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from channeld.core.acceptance import Prices
    from channeld.core.state import Body
    from channeld.core.terms import Terms

ID_BYTES = 16
DEFAULT_LIFETIME_S = 600
MOST_LIFETIME_S = 86_400


class CallStateError(RuleError):
    """A margin call is not in a state in which this can happen to it."""

    code = 2400
    advice = "`channeld calls` shows where each call stands; a call that is cured or expired is over."


class UnknownCallError(InputError):
    """There is no such margin call."""

    code = 2401
    advice = "`channeld calls` lists them."


class BadCallError(PeerError):
    """A peer's margin call that makes no sense: no amount, a deadline in the past, or figures that need no call."""

    code = 2402
    advice = "Compare both desks' figures with `channeld margin`."


class WorthlessCollateralError(RuleError):
    """The collateral counts for nothing after its haircut, so that no amount of it cures anything."""

    code = 2403


class CallState(StrEnum):
    """Where a call stands; the words of the ISDA CDM."""

    ISSUED = "issued"
    AGREED = "agreed in full"
    PARTLY = "partly agreed"
    DISPUTED = "disputed"
    DELIVERED = "delivered"
    CURED = "cured"
    EXPIRED = "expired"


S = CallState
TRANSITIONS: Mapping[CallState, frozenset[CallState]] = {
    S.ISSUED: frozenset({S.AGREED, S.PARTLY, S.DISPUTED, S.DELIVERED, S.CURED, S.EXPIRED}),
    S.AGREED: frozenset({S.DELIVERED, S.CURED, S.EXPIRED}),
    S.PARTLY: frozenset({S.DELIVERED, S.CURED, S.EXPIRED}),
    S.DISPUTED: frozenset({S.DELIVERED, S.CURED, S.EXPIRED}),
    S.DELIVERED: frozenset({S.CURED, S.EXPIRED}),
    S.CURED: frozenset(),
    S.EXPIRED: frozenset(),
}
OPEN = frozenset(state for state, after in TRANSITIONS.items() if after)


# --- who stands where ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Standing:
    """A party at the newest prices, its deposits on chain counted whether acknowledged or not. Wads, but for `units`.

    side: 0 for a, 1 for b. units: its equity in the collateral; negative where it owes more than it has.
    """

    side: int
    equity: int
    maintenance: int
    initial: int
    units: int

    @property
    def below(self) -> bool:
        """Below maintenance margin: what the chain would judge a default."""
        return self.equity < self.maintenance

    @property
    def thin(self) -> bool:
        """At or above maintenance, but below initial margin: a warning."""
        return self.maintenance <= self.equity < self.initial

    @property
    def insolvent(self) -> bool:
        """A MARK at these prices would make its balance negative: nothing is left to wait for."""
        return self.units < 0


def standings(
    terms: Terms, body: Body, prices: Prices, deposited: tuple[int, int], paid: tuple[int, int]
) -> tuple[Standing, Standing]:
    """Both parties at `prices`; deposited and paid: units on chain, of a and b, ever.

    Equity is the chain's own: balance + profit + (deposits - acknowledged) + (withdrawn - paid out); docs/protocol.md,
    section 6.

    Raises:
        MissingPriceError: a feed of the book has no price.
    """
    reports = both(terms, body, prices.spots, prices.time, prices.collateral, prices.fixes)
    found = []
    for report in reports:
        account = body.account(report.side)
        extra = (deposited[report.side] - account.deposited) + (account.withdrawn - paid[report.side])
        equity = equity_on_chain(
            terms, account, report.profit_units, deposited[report.side], paid[report.side], prices.collateral
        )
        units = report.equity_units + extra
        found.append(Standing(report.side, equity, report.maintenance, report.initial, units))
    return found[0], found[1]


def required_units(terms: Terms, target: int, collateral_price: int) -> int:
    """The least equity in units that counts for at least `target` (wad, at or above zero).

    The inverse of `margin.to_wad_equity`, rounded up.

    Raises:
        WorthlessCollateralError: after its haircut the collateral counts for nothing.
    """
    if target <= 0:
        return 0
    if terms.collateral_feed == ZERO_FEED:
        return _ceil_div(target, 10 ** (18 - terms.decimals))
    rate = collateral_price * (WAD - terms.haircut) // WAD
    if rate <= 0:
        raise WorthlessCollateralError("the collateral counts for nothing after its haircut")
    return _ceil_div(target * 10**terms.decimals, rate)


def _ceil_div(x: int, y: int) -> int:
    return -(-x // y)


# --- how much ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallTerms:
    """A desk's own terms of calling. threshold, minimum, rounding: units of the collateral; lifetime_s: seconds.

    threshold: a shortfall up to it is not called. minimum: the minimum transfer amount. rounding: calls are for
    multiples of it. The lifetime belongs into the ten minutes that the templates' scan ranges allow for (section 6).
    """

    threshold: int = 0
    minimum: int = 0
    rounding: int = 1
    lifetime_s: int = DEFAULT_LIFETIME_S


def delivery_amount(shortfall: int, terms: CallTerms) -> int:
    """What is called for a shortfall (units): what exceeds the threshold, if it reaches the minimum, rounded up."""
    exposure = shortfall - terms.threshold
    if exposure <= 0 or exposure < terms.minimum:
        return 0
    return -(-exposure // terms.rounding) * terms.rounding


def return_amount(excess: int, terms: CallTerms) -> int:
    """What may be given back of an excess (units): nothing below the minimum, and rounded down."""
    if excess <= 0 or excess < terms.minimum:
        return 0
    return excess // terms.rounding * terms.rounding


def shortfall(terms: Terms, standing: Standing, collateral_price: int, *, target: int | None = None) -> int:
    """The units that a party lacks to its initial margin, or to another target (wad); zero where nothing is lacking.

    Raises:
        WorthlessCollateralError: no amount would do.
    """
    goal = standing.initial if target is None else target
    if standing.equity >= goal:
        return 0
    return max(0, required_units(terms, goal, collateral_price) - standing.units)


def excess(terms: Terms, standing: Standing, collateral_price: int, *, keep: int) -> int:
    """The units above `keep` (a wad fraction, at or above one) times initial margin; zero where there is none."""
    need = required_units(terms, -(-standing.initial * keep // WAD), collateral_price)
    return max(0, standing.units - need)


# --- the life of a call -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """A margin call. Amounts in units, figures in wads, times in Unix seconds.

    ours: whether this desk issued it. side: the party called (0 for a, 1 for b). version, as_of: the state it looks at.
    amount: what is called; agreed: what the called party agrees to; delivered: what has come since `baseline`, the
    deposits on chain when it was issued. reason: why it stands where it does, for people.
    """

    id: bytes
    ours: bool
    side: int
    version: int
    as_of: int
    issued: int
    deadline: int
    amount: int
    equity: int
    maintenance: int
    initial: int
    baseline: int
    state: CallState = CallState.ISSUED
    agreed: int = 0
    delivered: int = 0
    reason: str = ""

    @property
    def open(self) -> bool:
        """Whether anything can still happen to it."""
        return self.state in OPEN

    def at(self, state: CallState, reason: str, **changes: int) -> Call:
        """The call in a later state.

        Raises:
            CallStateError: the machine has no such transition.
        """
        if state not in TRANSITIONS[self.state]:
            raise CallStateError(f"a margin call that is {self.state} cannot become {state}")
        fields: dict[str, Any] = {"state": state, "reason": reason, **changes}
        return replace(self, **fields)


def issue(
    terms: Terms, standing: Standing, prices: Prices, calling: CallTerms, *, call_id: bytes, version: int, baseline: int
) -> Call | None:
    """A call to a party below maintenance margin; None where none is due, by figures, threshold or minimum."""
    if not standing.below:
        return None
    amount = delivery_amount(shortfall(terms, standing, prices.collateral), calling)
    if amount == 0:
        return None
    return Call(
        call_id,
        ours=True,
        side=standing.side,
        version=version,
        as_of=prices.time,
        issued=prices.time,
        deadline=prices.time + calling.lifetime_s,
        amount=amount,
        equity=standing.equity,
        maintenance=standing.maintenance,
        initial=standing.initial,
        baseline=baseline,
    )


def check_received(call: Call, now: int) -> None:
    """Refuse a peer's call that makes no sense.

    Raises:
        BadCallError: naming what.
    """
    if call.amount <= 0:
        raise BadCallError("a margin call without an amount")
    if not now < call.deadline <= now + MOST_LIFETIME_S:
        raise BadCallError(f"the call's deadline {call.deadline} is over, or more than a day ahead")
    if call.equity >= call.maintenance:
        raise BadCallError("by the call's own figures no margin is lacking")


def answer(call: Call, own_amount: int) -> Call:
    """What the called party says, given what it lacks by its own figures (units, rounded as it calls itself).

    Agreed in full where its own figure is as high; partly where it is lower; disputed where it lacks nothing.

    Raises:
        CallStateError: it has been answered already, or is over.
    """
    agreed = min(max(own_amount, 0), call.amount)
    if agreed == call.amount:
        return call.at(CallState.AGREED, "by the called party's own figures as well", agreed=agreed)
    if agreed == 0:
        return call.at(CallState.DISPUTED, "by its own figures the called party lacks nothing", agreed=0)
    return call.at(CallState.PARTLY, "by its own figures the called party lacks less", agreed=agreed)


def observe(call: Call, standing: Standing, deposited: int, now: int) -> Call:
    """The call after a look at its party: delivered, cured, expired, or as it was. Asked again it changes nothing.

    deposited: units on chain of the party called. Cured is who stands at initial margin again or has delivered the
    whole amount; at the deadline, who is no longer below maintenance margin, for whatever reason.
    """
    if not call.open:
        return call
    came = max(call.delivered, deposited - call.baseline, 0)
    call = replace(call, delivered=came)
    if standing.equity >= standing.initial:
        return call.at(CallState.CURED, "equity is at initial margin again")
    if came >= call.amount:
        return call.at(CallState.CURED, "the whole amount has come")
    if now >= call.deadline:
        if not standing.below:
            return call.at(CallState.CURED, "at the deadline equity is above maintenance margin")
        return call.at(CallState.EXPIRED, "the deadline passed and equity is below maintenance margin")
    if call.state is not CallState.DELIVERED and call.agreed and came >= call.agreed:
        return call.at(CallState.DELIVERED, "the undisputed amount has come")
    return call


def undelivered(call: Call) -> int:
    """The undisputed units that have not come yet."""
    return max(0, call.agreed - call.delivered) if call.open else 0


# --- records ------------------------------------------------------------------------------------------------------

_AMOUNTS = ("amount", "equity", "maintenance", "initial", "baseline", "agreed", "delivered")


def to_data(call: Call) -> dict[str, Any]:
    """For the store and for people: amounts and figures as decimal integers in text."""
    return {
        "id": call.id.hex(),
        "ours": call.ours,
        "side": call.side,
        "version": call.version,
        "as_of": call.as_of,
        "issued": call.issued,
        "deadline": call.deadline,
        "state": str(call.state),
        "reason": call.reason,
        **{name: str(getattr(call, name)) for name in _AMOUNTS},
    }


def from_data(data: dict[str, Any]) -> Call:
    """A call as it was recorded."""
    whole = {name: int(data[name]) for name in (*_AMOUNTS, "side", "version", "as_of", "issued", "deadline")}
    return Call(
        id=bytes.fromhex(data["id"]),
        ours=bool(data["ours"]),
        state=CallState(data["state"]),
        reason=str(data["reason"]),
        **whole,
    )
