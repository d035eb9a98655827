"""Policy: what a desk agrees to by itself, what waits for a person, what it refuses. Default: deny.

Rules: nothing is signed outside policy. A trade offered by a peer is agreed to without a person only where that peer's
policy says so, within its limits; all else waits, or is refused where the policy says so. Delta and vega are those of
the channel's book after the trade, by integers; a trade that takes them nearer to zero passes whatever they are. Marks
are judged by bands around the agreed vols and carries.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from channeld.core.errors import InputError, RuleError
from channeld.core.instruments import instrument_name
from channeld.core.terms import feed_symbol
from channeld.core.wad import WAD, format_decimal
from channeld.desk.limits import deltas, vega

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from channeld.core.acceptance import Prices
    from channeld.core.operations import Leg, Trade
    from channeld.core.state import Body

DEFAULT_VOL_BAND = WAD // 10
DEFAULT_CARRY_BAND = WAD // 2


class OutsidePolicyError(InputError):
    """An operation that this desk's policy does not agree to by itself; a person may."""

    code = 1250
    advice = "A person at the desk may agree with `channeld trade accept`, or widen the policy with `channeld policy`."


class RefusedByPolicyError(RuleError):
    """A trade that this desk's policy for the peer refuses, without asking a person."""

    code = 2560
    advice = "The peer's desk has set this for you: trade something else or less of it, or speak with them."


@dataclass(frozen=True, slots=True)
class Policy:
    """What is agreed to by itself from one peer.

    auto_accept: agree to trades within the limits without a person.
    max_notional: wads of spot times size over all legs; None for no limit.
    instruments: names or patterns such as ETH-*; None for any.
    price_band: how much a trade may give away at this desk's own values, as a wad fraction of its notional.
    max_size: wads, of any one leg.
    max_delta: wads of the underlying, either way, of every feed in the channel's book after the trade.
    max_vega: wads of money that one vol point moves the channel's book after the trade.
    never: names or patterns that are refused whatever else is allowed.
    refuse: what is beyond a limit is refused, where False it waits for a person.
    vol_band, carry_band: how far a MARK may move a vol or a carry from what was agreed (wads).
    """

    auto_accept: bool = False
    max_notional: int | None = None
    instruments: tuple[str, ...] | None = None
    price_band: int | None = None
    max_size: int | None = None
    max_delta: int | None = None
    max_vega: int | None = None
    never: tuple[str, ...] = ()
    refuse: bool = False
    vol_band: int = DEFAULT_VOL_BAND
    carry_band: int = DEFAULT_CARRY_BAND


def notional(legs: tuple[Leg, ...], spots: Mapping[bytes, int]) -> int:
    """Sum over the legs of |size| * spot, wads."""
    return sum(abs(leg.size_delta) * spots.get(leg.instrument.feed, 0) // WAD for leg in legs)


def check_trade(policy: Policy, trade: Trade, spots: Mapping[bytes, int], edge: int) -> None:
    """Refuse what a person must decide. `edge`: wads that this desk gives away at its own values, negative for a gain.

    The trade is the peer's, so its origin is the peer's side; a fee that this desk would pay is for a person.

    Raises:
        OutsidePolicyError: naming the limit: a person must decide.
        RefusedByPolicyError: the policy refuses it.
    """
    for leg in trade.legs:
        name = instrument_name(leg.instrument)
        if any(fnmatchcase(name, pattern) for pattern in policy.never):
            raise RefusedByPolicyError(f"{name} is never traded with this peer")
    with _strict(policy):
        _check_trade(policy, trade, spots, edge)


def check_greeks(policy: Policy, before: Body, after: Body, prices: Prices) -> None:
    """Refuse a trade that takes delta or vega beyond the policy's, or further beyond.

    Raises:
        OutsidePolicyError, RefusedByPolicyError: as `check_trade`.
    """
    with _strict(policy):
        if policy.max_vega is not None:
            was, then = abs(vega(before, prices)), abs(vega(after, prices))
            _check_limit("vega", was, then, policy.max_vega)
        if policy.max_delta is not None:
            held = deltas(before, prices)
            for feed, delta in deltas(after, prices).items():
                _check_limit(f"delta in {feed_symbol(feed)}", abs(held.get(feed, 0)), abs(delta), policy.max_delta)


def _check_limit(name: str, was: int, then: int, most: int) -> None:
    if then > most and then > was:
        shown = format_decimal(then, places=4), format_decimal(most, places=4)
        raise OutsidePolicyError(f"the book's {name} would be {shown[0]}, above the policy's {shown[1]}")


@contextlib.contextmanager
def _strict(policy: Policy) -> Iterator[None]:
    """What would wait for a person is refused, where the policy is to refuse."""
    try:
        yield
    except OutsidePolicyError as error:
        if policy.refuse and policy.auto_accept:
            raise RefusedByPolicyError(str(error)) from error
        raise


def _check_trade(policy: Policy, trade: Trade, spots: Mapping[bytes, int], edge: int) -> None:
    if not policy.auto_accept:
        raise OutsidePolicyError("trades of this peer wait for a person")
    if policy.instruments is not None:
        for leg in trade.legs:
            name = instrument_name(leg.instrument)
            if not any(fnmatchcase(name, pattern) for pattern in policy.instruments):
                raise OutsidePolicyError(f"{name} is not among the instruments that the policy allows")
    largest = max(abs(leg.size_delta) for leg in trade.legs)
    if policy.max_size is not None and largest > policy.max_size:
        raise OutsidePolicyError(
            f"a size of {format_decimal(largest)} is above the policy's {format_decimal(policy.max_size)}"
        )
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
