"""The API's methods about trading and risk: trades, offers, policy, marks, positions, margin."""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from channeld.core import records
from channeld.core.describe import leg_data, operation_data
from channeld.core.errors import ChanneldError, InputError
from channeld.core.instruments import instrument_name, parse_feed, parse_instrument
from channeld.core.operations import Leg, Trade
from channeld.core.terms import feed_symbol
from channeld.core.wad import format_decimal, parse_decimal
from channeld.daemon import views
from channeld.daemon.by_policy import adopt_policy, policy_from
from channeld.daemon.mark_desk import surface_rows
from channeld.daemon.marking import mark
from channeld.daemon.node import POLICY
from channeld.daemon.parameters import MAX_WAIT_S, BadParameterError, Json, Params, note, objects, seconds, take
from channeld.daemon.policy_settings import policy_data, policy_of
from channeld.daemon.requests import MAX_NOTE, Requests
from channeld.desk.offers import DEFAULT_LIFETIME_MS, OfferRecord, Status, UnknownOfferError, make_offer
from channeld.desk.policy import Policy
from channeld.desk.pricing import implied_vol, premium_of

if TYPE_CHECKING:
    from channeld.core.acceptance import Prices
    from channeld.core.state import Body
    from channeld.daemon.actor import Actor

ACCEPT_WAIT_S = 10.0
MAX_REASON = 256


class NoPriceError(InputError):
    """The oracle has no recent print of a feed."""

    code = 1208
    advice = "Check the oracle with `channeld status`."


class TradingMethods(Requests):
    """Trades, offers, policy, marks, positions and margin."""

    async def trade(self, params: Params) -> Json:
        """Offer a trade to the peer, after our own margin check of both sides."""
        actor = self._actor(params)
        side, decimals = actor.channel.side, actor.channel.terms.decimals
        given = objects(take(params, "legs", list), "legs")
        fee = parse_decimal(take(params, "fee", str, "0"), decimals)
        reference = note(take(params, "reference", str, ""), "reference", MAX_NOTE)
        wait_s = seconds(take(params, "wait_s", (int, float, str), 10.0))
        self._need_peer(actor)
        legs = await self._legs(actor, given)
        trade = Trade(side, legs, -fee if side else fee, reference)
        try:
            before = self._reports(actor, await self._prices(actor))[side].initial if actor.state.body.positions else 0
            _, reports = await actor.consider((trade,))
        except ChanneldError as error:
            details = {**error.details, "code": error.code, "reason": str(error)}
            await self.node.emit("trade_refused", actor.id, **details)
            raise
        premium = premium_of(legs, side)
        lose = premium.most_you_can_lose
        told = {
            "cash_now": "0",
            "value_of_premium": format_decimal(premium.premium, places=2),
            "margin_now": format_decimal(reports[side].initial - before if reports else 0, places=2),
            "most_you_can_lose": format_decimal(lose, places=2) if lose is not None else None,
        }
        offer = make_offer(trade, secrets.token_bytes(16), self.node.clock.now_ms() + DEFAULT_LIFETIME_MS)
        future = await actor.offer(offer)
        result = {"id": offer.id.hex(), "premium": told, "legs": [leg_data(leg, side) for leg in legs]}
        try:
            version = await asyncio.wait_for(asyncio.shield(future), wait_s)
        except TimeoutError:
            return {**result, "status": "pending", "valid_until_ms": offer.valid_until_ms}
        except ChanneldError as error:
            code = error.details.get("peer_code", error.code)
            return {**result, "status": "rejected", "reason": str(error), "code": code}
        return {**result, "status": "done", "version": version}

    async def _legs(self, actor: Actor, given: list[Params]) -> tuple[Leg, ...]:
        """The legs of the caller's view, with the carry and vol already agreed, those given, or implied ones."""
        terms, body = actor.channel.terms, actor.channel.tip.body
        prices = await actor.book.prices(terms, body, self.node.clock.now_ms())
        return tuple(leg_from(raw, body, prices, actor.channel.side) for raw in given)

    async def offers(self, _: Params) -> Json:
        """Offers that wait: the peers' for us, ours for the peers."""
        rows = []
        now = self.node.clock.now_ms()
        for actor in self.node.actors.values():
            for offer in actor.offers:
                if offer.status is not Status.PENDING or offer.valid_until_ms < now:
                    continue
                data = operation_data(offer.operation, actor.channel.side, actor.channel.terms.decimals)
                rows.append(
                    {
                        "id": offer.id.hex(),
                        "peer": self.node.name(actor.peer),
                        "channel": "0x" + actor.id.hex(),
                        "direction": "out" if offer.ours else "in",
                        "valid_until_ms": offer.valid_until_ms,
                        **data,
                    }
                )
        return rows

    def _offer(self, params: Params) -> tuple[Actor, OfferRecord]:
        identifier = take(params, "id", str)
        now = self.node.clock.now_ms()
        for actor in self.node.actors.values():
            for offer in actor.offers:
                waits = not offer.ours and offer.status is Status.PENDING and offer.valid_until_ms >= now
                if waits and offer.id.hex() == identifier:
                    return actor, offer
        raise UnknownOfferError(f"no offer {identifier} waits for us")

    async def offer_accept(self, params: Params) -> Json:
        """Agree to a peer's offer by hand."""
        actor, offer = self._offer(params)
        self._need_peer(actor)
        await actor.consider((offer.operation,))
        landed = await self._agreed(actor, offer)
        if landed is None:
            return {"id": offer.id.hex(), "status": "agreed", "version": None}
        return {"id": offer.id.hex(), "status": "done", "version": landed}

    async def _agreed(self, actor: Actor, offer: OfferRecord) -> int | None:
        """Agree, and wait a little for the version that holds it."""
        future = await actor.agree_to(offer)
        if future is not None:
            try:
                return await asyncio.wait_for(asyncio.shield(future), ACCEPT_WAIT_S)
            except TimeoutError:
                return None
        end = asyncio.get_running_loop().time() + ACCEPT_WAIT_S
        while asyncio.get_running_loop().time() < end:
            held = actor.offers.get(offer.key)
            if held is not None and held.status is Status.DONE:
                return actor.state.version
            await self.node.news(0.1)
        return None

    async def offer_reject(self, params: Params) -> Json:
        """Refuse a peer's offer by hand."""
        actor, offer = self._offer(params)
        reason = take(params, "reason", str, "refused by the desk")
        await actor.refuse_offer(offer, InputError(reason[:MAX_REASON]))
        return {"id": offer.id.hex(), "status": "refused"}

    async def policy_set(self, params: Params) -> Json:
        """What is agreed to by itself from a peer, what waits, and what is never signed."""
        peer = self._peer(params)
        policy = policy_of(params)
        stored = json.dumps(asdict(policy))
        await self.node.store.commit([records.PutDocument(POLICY, peer.hex(), stored.encode())])
        for actor in self.node.actors.values():
            if actor.peer == peer:
                adopt_policy(actor, json.loads(stored))
        return {"peer": self.node.name(peer), **policy_data(policy)}

    async def policy(self, params: Params) -> Json:
        """The policy with a peer, or with all who have one."""
        documents = dict(await self.node.store.documents(POLICY))
        chosen = [self._peer(params).hex()] if params.get("peer") is not None else sorted(documents)
        rows = []
        for key in chosen:
            raw = documents.get(key)
            policy = policy_from(json.loads(raw)) if raw is not None else Policy()
            rows.append({"peer": self.node.name(bytes.fromhex(key)), **policy_data(policy)})
        return rows

    # ------------------------------------------------------------------------------------------------- risk

    async def mark(self, params: Params) -> Json:
        """MARK now; only the sequencer can."""
        actor = self._actor(params)
        self._need_peer(actor)
        if not actor.channel.sequencer:
            raise BadParameterError("the sequencer marks; ask the peer's desk")
        version = await mark(actor, MAX_WAIT_S / 2)
        body = actor.state.body
        marks = {instrument_name(p.instrument): format_decimal(p.mark, places=6) for p in body.positions}
        return {"version": version, "as_of": body.as_of, "prices": marks}

    async def vols_set(self, params: Params) -> Json:
        """The desk's own vols and carries, for the MARKs it proposes."""
        chosen = [self._actor(params)] if params.get("channel") is not None else list(self.node.actors.values())
        vols = objects(take(params, "vols", list, []), "vols")
        carries = objects(take(params, "carries", list, []), "carries")
        data: dict[str, Any] = {
            "vols": {take(one, "instrument", str): take(one, "vol", str) for one in vols},
            "carries": {take(one, "instrument", str): take(one, "carry", str) for one in carries},
        }
        for actor in chosen:
            await self.node.marks.set_surface(actor, data, whole=False)
        return {"vols": len(vols), "carries": len(carries), "channels": len(chosen)}

    async def surface_set(self, params: Params) -> Json:
        """The whole surface of this desk in a channel: vols, carries, smiles and funding by index."""
        actor = self._actor(params)
        await self.node.marks.set_surface(actor, take(params, "surface", dict), whole=True)
        return await self.surface({"channel": "0x" + actor.id.hex()})

    async def surface(self, params: Params) -> Json:
        """The desk's own surface in a channel, and what is agreed beside it."""
        actor = self._actor(params)
        return {"surface": self.node.marks.surface_of(actor), "positions": surface_rows(actor)}

    async def positions(self, params: Params) -> Json:
        """Open positions, as this desk holds them."""
        chosen = [self._actor(params)] if params.get("channel") is not None else list(self.node.actors.values())
        rows: list[dict[str, Json]] = []
        for actor in chosen:
            prices = await self._prices(actor)
            rows.extend(views.position_data(actor, position, prices) for position in actor.state.body.positions)
        return rows

    async def margin(self, params: Params) -> Json:
        """Both parties' margin, at the newest prints or at given prices."""
        actor = self._actor(params)
        given = take(params, "prices", dict, {})
        if len(given) > len(actor.channel.terms.markets):
            raise BadParameterError("'prices' names more feeds than the channel has markets")
        asked = {parse_feed(name): _price(name, text) for name, text in given.items()}
        prices = await self._prices(actor)
        prices = replace(prices, spots={**prices.spots, **asked})
        return views.margins_data(self._reports(actor, prices), actor, prices)


def leg_from(raw: Params, body: Body, prices: Prices, side: int) -> Leg:
    """A leg of a trade as the caller sees it, with the carry and vol already agreed, those given, or an implied vol."""
    instrument = parse_instrument(take(raw, "instrument", str))
    size, price = parse_decimal(take(raw, "size", str)), parse_decimal(take(raw, "price", str))
    same = [p for p in body.positions if p.instrument.feed == instrument.feed]
    carries = [p.carry for p in same if p.instrument.expiry == instrument.expiry]
    carry = carries[0] if carries else parse_decimal(take(raw, "carry", str, "0"))
    vol = 0
    if instrument.is_option:
        agreed = [
            p.vol
            for p in same
            if p.instrument.is_option
            and (p.instrument.expiry, p.instrument.strike) == (instrument.expiry, instrument.strike)
        ]
        if agreed:
            vol = agreed[0]
        elif raw.get("vol") is not None:
            vol = parse_decimal(take(raw, "vol", str))
        else:
            spot = prices.spots.get(instrument.feed)
            if spot is None:
                raise NoPriceError(f"there is no print of {feed_symbol(instrument.feed)} to imply a vol from")
            vol = implied_vol(instrument, spot, carry, max(0, instrument.expiry - prices.time), price)
    return Leg(instrument, -size if side else size, price, carry, vol)


def _bounded(text: str, name: str, low: int, high: int) -> int:
    found = parse_decimal(text)
    if not low <= found <= high:
        raise BadParameterError(f"a {name} must lie in {format_decimal(low)}..{format_decimal(high)}")
    return found


def _price(name: str, text: Json) -> int:
    if not isinstance(text, str):
        raise BadParameterError(f"the price of {name!r} must be a decimal text")
    found = parse_decimal(text)
    if not 0 < found < 1 << 96:
        raise BadParameterError(f"the price of {name!r} must be positive and below 2**96 wads")
    return found
