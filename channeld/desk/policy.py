"""Policy: what a desk agrees to by itself, what waits for a person, what it refuses. Default: deny.

Rules: nothing is signed outside policy. A trade offered by a peer is agreed to without a person only where that peer's
policy says so, within its limits; all else waits. Marks are judged by bands around the agreed vols and carries.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from channeld.core.errors import InputError
from channeld.core.instruments import instrument_name
from channeld.core.terms import feed_symbol
from channeld.core.wad import WAD, format_decimal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from channeld.core.operations import Leg, Trade

DEFAULT_VOL_BAND = WAD // 10
DEFAULT_CARRY_BAND = WAD // 2


class OutsidePolicyError(InputError):
    """An operation that this desk's policy does not agree to by itself; a person may."""

    code = 1250
    advice = "A person at the desk may agree with `channeld trade accept`, or widen the policy with `channeld policy`."


@dataclass(frozen=True, slots=True)
class Policy:
    """What is agreed to by itself from one peer.

    auto_accept: agree to trades within the limits without a person.
    max_notional: wads of spot times size over all legs; None for no limit.
    instruments: names or patterns such as ETH-*; None for any.
    price_band: how much a trade may give away at this desk's own values, as a wad fraction of its notional.
    vol_band, carry_band: how far a MARK may move a vol or a carry from what was agreed (wads).
    """

    auto_accept: bool = False
    max_notional: int | None = None
    instruments: tuple[str, ...] | None = None
    price_band: int | None = None
    vol_band: int = DEFAULT_VOL_BAND
    carry_band: int = DEFAULT_CARRY_BAND


def notional(legs: tuple[Leg, ...], spots: Mapping[bytes, int]) -> int:
    """Sum over the legs of |size| * spot, wads."""
    return sum(abs(leg.size_delta) * spots.get(leg.instrument.feed, 0) // WAD for leg in legs)


def check_trade(policy: Policy, trade: Trade, spots: Mapping[bytes, int], edge: int) -> None:
    """Refuse what a person must decide. `edge`: wads that this desk gives away at its own values, negative for a gain.

    The trade is the peer's, so its origin is the peer's side; a fee that this desk would pay is for a person.

    Raises:
        OutsidePolicyError: naming the limit.
    """
    if not policy.auto_accept:
        raise OutsidePolicyError("trades of this peer wait for a person")
    if policy.instruments is not None:
        for leg in trade.legs:
            name = instrument_name(leg.instrument)
            if not any(fnmatchcase(name, pattern) for pattern in policy.instruments):
                raise OutsidePolicyError(f"{name} is not among the instruments that the policy allows")
    if trade.fee and (trade.fee > 0) == (trade.origin == 1):
        raise OutsidePolicyError(f"the trade asks this desk for a fee of {abs(trade.fee)} units")
    unpriced = sorted({feed_symbol(leg.instrument.feed) for leg in trade.legs if leg.instrument.feed not in spots})
    if unpriced and (policy.max_notional is not None or policy.price_band is not None):
        raise OutsidePolicyError(f"there is no price of {', '.join(unpriced)} to judge the trade by")
    total = notional(trade.legs, spots)
    if policy.max_notional is not None and total > policy.max_notional:
        raise OutsidePolicyError(
            f"the notional of {format_decimal(total, places=2)} is above the policy's "
            f"{format_decimal(policy.max_notional, places=2)}"
        )
    if policy.price_band is not None and edge > total * policy.price_band // WAD:
        raise OutsidePolicyError(
            f"at our own values the trade gives away {format_decimal(edge, places=2)}, more than the policy allows"
        )
