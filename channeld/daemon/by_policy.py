"""A peer's trade before this desk's policy: judged at our own prices and vols, never at what the peer wrote into it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from channeld.desk.policy import OutsidePolicyError, Policy, check_trade
from channeld.desk.pricing import edge_given

if TYPE_CHECKING:
    from channeld.core.operations import Trade
    from channeld.daemon.actor import Actor


def policy_from(data: dict[str, Any]) -> Policy:
    """A policy from its stored form."""
    instruments = data.get("instruments")
    return Policy(**{**data, "instruments": tuple(instruments) if instruments is not None else None})


async def check_by_policy(actor: Actor, trade: Trade, now_ms: int) -> None:
    """Return where this desk agrees to a peer's trade by itself, at its own prices and vols.

    Raises:
        OutsidePolicyError: a person must decide, and why.
    """
    prices = await actor.book.prices(actor.channel.terms, actor.state.body, now_ms)
    if any(leg.instrument.feed not in prices.spots for leg in trade.legs):
        raise OutsidePolicyError("there is no print of the instrument's feed to judge the price by")
    # an option is judged by the vol agreed or our own; the one that the peer wrote into the leg proves nothing
    book = actor.channel.tip.body.positions
    vols = {(p.instrument.feed, p.instrument.expiry, p.instrument.strike): p.vol for p in book}
    keys = [(leg.instrument.feed, leg.instrument.expiry, leg.instrument.strike) for leg in trade.legs]
    for leg, key in zip(trade.legs, keys, strict=True):
        own = actor.surface.vol(leg.instrument, prices.spots[leg.instrument.feed], leg.carry, prices.time)
        if own is not None:
            vols[key] = own
    if actor.policy.price_band is not None and any(
        leg.instrument.is_option and key not in vols for leg, key in zip(trade.legs, keys, strict=True)
    ):
        raise OutsidePolicyError("we have no vol of our own to judge the option's price by")
    legs = tuple(
        replace(leg, vol=vols.get(key, leg.vol)) if leg.instrument.is_option else leg
        for leg, key in zip(trade.legs, keys, strict=True)
    )
    edge = edge_given(legs, actor.channel.side, prices.spots, prices.time)
    check_trade(actor.policy, trade, prices.spots, edge)
