"""Trades before this desk's policy: judged at our own prices and vols, never at what the peer wrote into them.

Rules: a price is judged once, when somebody decides (to offer, to quote, to take, to agree), and not again when it is
signed: what was firmly promised is not taken back because prices moved. All else of `never` is judged at every
signature (desk/own_vols.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from channeld.core.operations import Trade
from channeld.desk.envelope import Envelope, price_breach
from channeld.desk.policy import BeyondPolicyError, OutsidePolicyError, Policy, check_channel, check_trade
from channeld.desk.pricing import edge_given

if TYPE_CHECKING:
    from collections.abc import Mapping

    from channeld.core.acceptance import Prices
    from channeld.core.operations import Leg, Operation
    from channeld.daemon.actor import Actor

_Key = tuple[bytes, int, int]


def policy_from(data: dict[str, Any]) -> Policy:
    """A policy from its stored form."""
    never = data.get("never")
    return Policy(**{**_plain(data), "never": Envelope(**_plain(never)) if never is not None else None})


def adopt_policy(actor: Actor, data: dict[str, Any]) -> None:
    """Put a policy in its stored form into force in a channel."""
    actor.policy = policy_from(data)
    actor.own.never = actor.policy.never


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    instruments = data.get("instruments")
    return {
        **data,
        "instruments": tuple(instruments) if instruments is not None else None,
        "sizes": tuple((str(pattern), int(size)) for pattern, size in data.get("sizes") or ()),
    }


async def check_by_policy(actor: Actor, trade: Trade, now_ms: int) -> None:
    """Return where this desk agrees to a peer's trade by itself, at its own prices and vols.

    Raises:
        OutsidePolicyError: a person must decide, and why.
    """
    policy = actor.policy
    prices = await actor.book.prices(actor.channel.terms, actor.state.body, now_ms)
    if any(leg.instrument.feed not in prices.spots for leg in trade.legs):
        raise OutsidePolicyError("there is no print of the instrument's feed to judge the price by")
    vols = _vols(actor, trade.legs, prices)
    if policy.price_band is not None or policy.on_trade_greeks or policy.on_channel:
        _check_known(trade.legs, vols)
    legs = _at(trade.legs, vols)
    edge = edge_given(legs, actor.channel.side, prices.spots, prices.time)
    check_trade(policy, replace(trade, legs=legs), prices.spots, edge, prices.time)
    if policy.on_channel:
        applied, _ = await actor.rehearse((trade,))
        before, after = (actor.own.body(b, prices) for b in (actor.channel.tip.body, applied.state.body))
        check_channel(policy, before, after, prices)


async def check_price(actor: Actor, operations: tuple[Operation, ...], now_ms: int) -> None:
    """Refuse what gives away more than this desk's policy ever allows with this peer.

    Raises:
        BeyondPolicyError: it does, or it cannot be judged.
    """
    never = actor.own.never
    if never is None or never.price_band is None:
        return
    for trade in (operation for operation in operations if isinstance(operation, Trade)):
        prices = await actor.book.prices(actor.channel.terms, actor.state.body, now_ms)
        if any(leg.instrument.feed not in prices.spots for leg in trade.legs):
            raise BeyondPolicyError("there is no print of the instrument's feed to judge the price by")
        vols = _vols(actor, trade.legs, prices)
        try:
            _check_known(trade.legs, vols)
        except OutsidePolicyError as error:
            raise BeyondPolicyError(str(error)) from error
        edge = edge_given(_at(trade.legs, vols), actor.channel.side, prices.spots, prices.time)
        why = price_breach(never, trade, prices.spots, edge)
        if why:
            raise BeyondPolicyError(why)


def _key(leg: Leg) -> _Key:
    return leg.instrument.feed, leg.instrument.expiry, leg.instrument.strike


def _vols(actor: Actor, legs: tuple[Leg, ...], prices: Prices) -> dict[_Key, int]:
    """The vols to judge options by: our own, or those agreed; the one that a peer wrote into a leg proves nothing."""
    book = actor.channel.tip.body.positions
    vols = {(p.instrument.feed, p.instrument.expiry, p.instrument.strike): p.vol for p in book}
    for leg in legs:
        own = actor.surface.vol(leg.instrument, prices.spots[leg.instrument.feed], leg.carry, prices.time)
        if own is not None:
            vols[_key(leg)] = own
    return vols


def _check_known(legs: tuple[Leg, ...], vols: Mapping[_Key, int]) -> None:
    if any(leg.instrument.is_option and _key(leg) not in vols for leg in legs):
        raise OutsidePolicyError("we have no vol of our own to judge the option's price by")


def _at(legs: tuple[Leg, ...], vols: Mapping[_Key, int]) -> tuple[Leg, ...]:
    return tuple(replace(leg, vol=vols.get(_key(leg), leg.vol)) if leg.instrument.is_option else leg for leg in legs)
