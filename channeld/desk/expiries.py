"""What is about to expire: how far from the strike, and whether the last hours decide everything (pin risk).

Rules: advisory; floats tell, nothing is settled by them. An option is pinned where the spot lies within one standard
deviation of its strike for the time that is left, by its agreed vol, or within half a percent: whether it ends in the
money, and with it the delta of its whole size, is open until the fix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from channeld.core.valuation import value_position
from channeld.core.wad import WAD, YEAR

if TYPE_CHECKING:
    from channeld.core.acceptance import Prices
    from channeld.core.state import Body, Instrument

SOON_S = 86_400
LEAST_PIN = 0.005


@dataclass(frozen=True, slots=True)
class Expiring:
    """A position that expires soon, as one side holds it. Wads, but for the ratios.

    size: positive is held long. value: of the whole size at the newest print. distance: spot / strike - 1; deviation:
    one standard deviation of the spot until the expiry, as a fraction. Both None for a future.
    """

    instrument: Instrument
    size: int
    seconds: int
    spot: int
    value: int
    distance: float | None
    deviation: float | None
    pinned: bool


def expiring(body: Body, side: int, prices: Prices, within_s: int = SOON_S) -> list[Expiring]:
    """What expires within so many seconds, the soonest first; positions whose feed has no print are left out."""
    sign = -1 if side else 1
    found = []
    for p in body.positions:
        i = p.instrument
        left = i.expiry - prices.time
        spot = prices.spots.get(i.feed)
        if not i.expiry or spot is None or not 0 < left <= within_s:
            continue
        worth = sign * p.size * value_position(p, spot, prices.time) // WAD
        distance = deviation = None
        pinned = False
        if i.is_option:
            distance = spot / i.strike - 1
            deviation = p.vol / WAD * math.sqrt(left / YEAR)
            pinned = abs(math.log(spot / i.strike)) <= max(deviation, LEAST_PIN)
        found.append(Expiring(i, sign * p.size, left, spot, worth, distance, deviation, pinned))
    return sorted(found, key=lambda one: (one.seconds, one.instrument.feed, one.instrument.strike))
