"""Policy: what a desk agrees to by itself, what waits for a person, what it refuses. Default: deny.

Rules: nothing is signed outside policy. A trade within a peer's envelope is agreed to without a person, where that is
switched on; a trade outside of `never` is refused, whoever asks: the peer, or this desk's own people, orders and
quotes; what lies between waits for a person. Marks are judged by bands around the agreed vols and carries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from channeld.core.errors import InputError, RuleError
from channeld.core.operations import Trade
from channeld.core.wad import WAD
from channeld.desk.envelope import (
    Envelope,
    channel_breach,
    envelope_in_words,
    legs_held,
    price_breach,
    reduced_by,
    trade_breach,
    trade_notional,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from channeld.core.acceptance import Prices
    from channeld.core.operations import Operation
    from channeld.core.state import Body

DEFAULT_VOL_BAND = WAD // 10
DEFAULT_CARRY_BAND = WAD // 2

notional = trade_notional


class OutsidePolicyError(InputError):
    """An operation that this desk's policy does not agree to by itself; a person may."""

    code = 1250
    advice = "A person at the desk may agree with `channeld trade accept`, or widen the policy with `channeld policy`."


class BeyondPolicyError(RuleError):
    """A trade outside what this desk's policy ever allows with a peer, whoever asks."""

    code = 2457
    advice = "Trade smaller or at another price; `channeld policy PEER` shows the limits, and its owner changes them."


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy(Envelope):
    """What is agreed to by itself from one peer: the envelope's limits, where auto_accept is set.

    never: outside of this nothing is signed, whoever asks. vol_band, carry_band: how far a MARK may move a vol or a
    carry from what was agreed (wads).
    """

    auto_accept: bool = False
    never: Envelope | None = None
    vol_band: int = DEFAULT_VOL_BAND
    carry_band: int = DEFAULT_CARRY_BAND


def check_trade(policy: Policy, trade: Trade, spots: Mapping[bytes, int], edge: int, now: int = 0) -> None:
    """Refuse what a person must decide. `edge`: wads that this desk gives away at its own values, negative for a gain.

    The trade is the peer's, so its origin is the peer's side; a fee that this desk would pay is for a person.
    now: Unix seconds, for the greeks.

    Raises:
        OutsidePolicyError: naming the limit.
    """
    if not policy.auto_accept:
        raise OutsidePolicyError("trades of this peer wait for a person")
    if trade.fee and (trade.fee > 0) == (trade.origin == 1):
        raise OutsidePolicyError(f"the trade asks this desk for a fee of {abs(trade.fee)} units")
    why = trade_breach(policy, trade, spots, now) or price_breach(policy, trade, spots, edge)
    if why:
        raise OutsidePolicyError(why)


def check_channel(policy: Policy, before: Body, after: Body, prices: Prices) -> None:
    """Refuse to agree without a person to what takes the channel outside.

    Raises:
        OutsidePolicyError: naming the limit.
    """
    why = channel_breach(policy, before, after, prices.spots, prices.time)
    if why:
        raise OutsidePolicyError(why)


def check_never(never: Envelope, before: Body, after: Body, operations: tuple[Operation, ...], prices: Prices) -> None:
    """Refuse trades that nobody may make; their price is judged elsewhere, once, when they are decided on.

    Raises:
        BeyondPolicyError: naming the limit.
    """
    trades = [op for op in operations if isinstance(op, Trade)]
    if not trades:
        return
    reduced = reduced_by(before, after)
    for trade in trades:
        held = legs_held(trade.legs, before, after)
        why = trade_breach(never, trade, prices.spots, prices.time, held, reduced)
        if why:
            raise BeyondPolicyError(why)
    why = channel_breach(never, before, after, prices.spots, prices.time)
    if why:
        raise BeyondPolicyError(why)


def policy_in_words(policy: Policy) -> list[str]:
    """What happens to a trade with the peer, in sentences."""
    within = "; ".join(envelope_in_words(policy)) or "no limits"
    if policy.auto_accept:
        lines = [f"Agreed to by itself, within: {within}.", "Other trades wait for a person."]
    else:
        lines = ["Nothing is agreed to by itself: every trade waits for a person."]
    beyond = "; ".join(envelope_in_words(policy.never)) if policy.never is not None else ""
    if beyond:
        lines.append(f"Never signed, whoever asks, outside: {beyond}.")
    return lines
