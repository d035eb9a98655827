"""What the legs of a combo are worth to this desk, and the TRADE of a price for the whole.

Rules: carry and vol are those agreed in the channel, else the desk's own, else (of one option alone) the vol that the
price implies. The net price is met exactly; which leg carries the difference from fair values is of no consequence,
since the legs are one trade.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from channeld.core.errors import InputError
from channeld.core.instruments import instrument_name
from channeld.core.operations import Leg, Trade
from channeld.core.terms import feed_symbol
from channeld.core.valuation import value
from channeld.desk.combos import allocate
from channeld.desk.pricing import implied_vol

if TYPE_CHECKING:
    from channeld.core.acceptance import Prices
    from channeld.core.state import Instrument
    from channeld.daemon.actor import Actor
    from channeld.desk.combos import Combo


class NoVolError(InputError):
    """Neither the channel nor this desk has a vol for an option of a combo."""

    code = 1233
    advice = "Set the desk's own vols with `channeld vols`, and quote again."


class NoSpotError(InputError):
    """There is no recent print of a feed to value a leg by."""

    code = 1234
    advice = "Check the oracle with `channeld status`."


def known_parameters(actor: Actor, instrument: Instrument) -> tuple[int, int | None]:
    """The carry and vol of an instrument (wads): agreed, else the desk's own; the vol None where unknown."""
    carry = actor.surface.carries.get((instrument.feed, instrument.expiry), 0)
    vol: int | None = actor.surface.vols.get((instrument.feed, instrument.expiry, instrument.strike))
    for position in actor.channel.tip.body.positions:
        held = position.instrument
        if (held.feed, held.expiry) == (instrument.feed, instrument.expiry):
            carry = position.carry
            if held.is_option and held.strike == instrument.strike:
                vol = position.vol
    return carry, vol if instrument.is_option else 0


def spot_of(prices: Prices, instrument: Instrument) -> int:
    """The newest print of an instrument's feed (wad).

    Raises:
        NoSpotError: there is none.
    """
    spot = prices.spots.get(instrument.feed)
    if spot is None:
        raise NoSpotError(f"there is no print of {feed_symbol(instrument.feed)}")
    return spot


def fair_value(actor: Actor, instrument: Instrument, prices: Prices) -> int:
    """An instrument's value to this desk, wads.

    Raises:
        NoSpotError, NoVolError: it cannot be valued.
    """
    carry, vol = known_parameters(actor, instrument)
    if vol is None:
        vol = actor.surface.vol(instrument, spot_of(prices, instrument), carry, prices.time)
    if vol is None:
        raise NoVolError(f"there is no vol for {instrument_name(instrument)}")
    tau = max(0, instrument.expiry - prices.time) if instrument.expiry else 0
    return value(instrument.kind, spot_of(prices, instrument), instrument.strike, carry, vol, tau)


async def leg_parameters(actor: Actor, instrument: Instrument, price: int) -> tuple[int, int]:
    """The carry and vol (wads) of one leg at a price: agreed, our own, or implied by the price.

    Raises:
        NoSpotError, NoImpliedVolError: there is none.
    """
    carry, vol = known_parameters(actor, instrument)
    if vol is not None:
        return carry, vol
    now = actor.services.clock.now_ms()
    found = await actor.book.prices(actor.channel.terms, actor.channel.tip.body, now)
    spot, tau = spot_of(found, instrument), max(0, instrument.expiry - found.time)
    own = actor.surface.vol(instrument, spot, carry, found.time)
    return carry, own if own is not None else implied_vol(instrument, spot, carry, tau, price)


async def quoted_trade(actor: Actor, combo: Combo, size: int, price: int, now_ms: int, quote_id: bytes) -> Trade:
    """The TRADE by which the peer buys `size` of a combo at `price` a unit (wads; negative sizes sell).

    Raises:
        NoSpotError, NoVolError, NoImpliedVolError, ComboSizeError: it cannot be written.
    """
    taker = 1 - actor.channel.side
    sign = -1 if taker else 1
    terms, body = actor.channel.terms, actor.channel.tip.body
    sizes = dict(combo.sizes(size))
    parameters = {leg.instrument: known_parameters(actor, leg.instrument) for leg in combo.legs}
    if len(combo.legs) == 1:
        (leg,) = combo.legs
        whole = allocate(combo, price, {leg.instrument: 0})
        carry, vol = await leg_parameters(actor, leg.instrument, whole[leg.instrument])
        parameters[leg.instrument] = (carry, vol)
    else:
        found = await actor.book.prices(terms, body, now_ms)
        fair = {leg.instrument: fair_value(actor, leg.instrument, found) for leg in combo.legs}
        whole = allocate(combo, price, fair)
        parameters = {
            instrument: await leg_parameters(actor, instrument, whole[instrument]) for instrument in parameters
        }
    legs = tuple(
        Leg(leg.instrument, sign * sizes[leg.instrument], whole[leg.instrument], carry, vol or 0)
        for leg in combo.legs
        for carry, vol in [parameters[leg.instrument]]
    )
    return Trade(taker, legs, 0, quote_id)
