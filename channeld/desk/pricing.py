"""Advisory prices for people and policy: implied vols, what a trade gives away, what it can lose.

Rules: integers and the settlement valuation, so that what is shown agrees with what is marked; nothing here settles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from channeld.core.errors import InputError
from channeld.core.state import MAX_VOL, MIN_VOL, Instrument, Kind
from channeld.core.valuation import value
from channeld.core.wad import WAD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from channeld.core.operations import Leg

VOL_STEP = WAD // 10_000


class NoImpliedVolError(InputError):
    """No vol between 1% and 1000% gives the price: it lies outside what an option can be worth."""

    code = 1252
    advice = "Give the vol yourself with --vol, or check the price and which side of the market it is on."


def implied_vol(instrument: Instrument, spot: int, carry: int, tau: int, price: int) -> int:
    """The vol (wad, to the hundredth of a vol point) whose value is nearest a price, by bisection.

    Raises:
        NoImpliedVolError: the price is beyond the values at 1% and 1000%, or the value does not depend on a vol.
    """

    def at(vol: int) -> int:
        return value(instrument.kind, spot, instrument.strike, carry, vol, tau)

    low, high = MIN_VOL // VOL_STEP, MAX_VOL // VOL_STEP
    if at(low * VOL_STEP) == at(high * VOL_STEP):
        raise NoImpliedVolError("the value does not depend on a vol: no option, or nothing is left of its life")
    if not at(low * VOL_STEP) <= price <= at(high * VOL_STEP):
        raise NoImpliedVolError("no vol between 1% and 1000% gives this price at the present spot")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at(middle * VOL_STEP) <= price else (low, middle)
    nearer_high = at(high * VOL_STEP) - price < price - at(low * VOL_STEP)
    return (high if nearer_high else low) * VOL_STEP


@dataclass(frozen=True, slots=True)
class Premium:
    """What a trade means to the desk that makes it, wads; settled to market, so nothing is paid up front.

    premium: sum of size times price, positive when this desk buys value. most_you_can_lose: None where unbounded, or
    where legs of several expiries or of perpetuals and futures make it depend on more than one price.
    """

    premium: int
    most_you_can_lose: int | None


def premium_of(legs: tuple[Leg, ...], side: int) -> Premium:
    """Premium and worst case of the legs, from the point of view of `side`."""
    sign = -1 if side else 1
    sized = [(leg.instrument, sign * leg.size_delta, leg.price) for leg in legs]
    premium = sum(size * price // WAD for _, size, price in sized)
    same = {(i.feed, i.expiry) for i, _, _ in sized}
    if len(same) > 1 or any(not i.is_option for i, _, _ in sized):
        return Premium(premium, None)
    if sum(size for i, size, _ in sized if i.kind == Kind.CALL) < 0:
        return Premium(premium, None)
    strikes = [0, *(i.strike for i, _, _ in sized)]
    worst = min(sum(size * _payoff(i, spot) // WAD for i, size, _ in sized) for spot in strikes)
    return Premium(premium, max(0, premium - worst))


def _payoff(instrument: Instrument, spot: int) -> int:
    if instrument.kind == Kind.CALL:
        return max(0, spot - instrument.strike)
    return max(0, instrument.strike - spot)


def edge_given(legs: tuple[Leg, ...], side: int, spots: Mapping[bytes, int], now: int) -> int:
    """Wads that `side` gives away at the values of the legs' own vols and the present spots; negative for a gain."""
    sign = -1 if side else 1
    total = 0
    for leg in legs:
        i = leg.instrument
        tau = max(0, i.expiry - now) if i.expiry else 0
        fair = value(i.kind, spots[i.feed], i.strike, leg.carry, leg.vol, tau)
        total += sign * leg.size_delta * (leg.price - fair) // WAD
    return total
