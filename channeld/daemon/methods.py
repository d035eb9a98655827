"""The API's methods: what a desk can ask of its daemon. Named parameters, decimal strings, milliseconds.

Rules: a method checks its parameters by type and says which one is wrong; what it changes goes through the actor, the
store or the chain desk, which have the rules. `public/` methods need no token; `private/` ones do.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from channeld import __version__
from channeld.chain.contracts import Phase
from channeld.chain.deployment import check_collateral
from channeld.core import records, wire
from channeld.core.crypto import checksum_address
from channeld.core.describe import leg_data, operation_data
from channeld.core.eip712 import Domain, body_hash, channel_id
from channeld.core.errors import ChanneldError, InputError
from channeld.core.files import address_from_text, terms_from_json, terms_to_json
from channeld.core.instruments import instrument_name, parse_instrument
from channeld.core.margin import both
from channeld.core.operations import CloseChannel, Leg, Operation, Trade, Transfer, Withdraw
from channeld.core.settlement import fix_time, settle_amounts
from channeld.core.state import genesis
from channeld.core.terms import feed_id, feed_symbol
from channeld.core.transition import apply
from channeld.core.wad import WAD, format_decimal, parse_decimal
from channeld.daemon import views
from channeld.daemon.node import POLICY, expected_state, policy_from
from channeld.desk.marks import Surface
from channeld.desk.offers import DEFAULT_LIFETIME_MS, Status, UnknownOfferError, make_offer
from channeld.desk.policy import Policy
from channeld.desk.pricing import implied_vol, premium_of
from channeld.transport.handshake import PROTOCOL_VERSION

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from channeld.core.terms import Terms
    from channeld.daemon.actor import Actor
    from channeld.daemon.node import Node

MAX_WAIT_S = 60.0
Params = dict[str, Any]


class BadParameterError(InputError):
    """A parameter is missing, unknown or of the wrong type."""

    code = 1201
    advice = "The method's parameters are listed in docs/api.md."


class UnknownMethodError(InputError):
    """There is no such method."""

    code = 1202
    advice = "The methods are listed in docs/api.md."


class UnknownPeerError(InputError):
    """There is no peer of this name."""

    code = 1203
    advice = "`channeld peer list` shows the peers; add one with `channeld peer add`."


class UnknownChannelError(InputError):
    """No channel matches, or more than one does."""

    code = 1204
    advice = "`channeld channel list` shows the channels; give the whole id where a prefix is not enough."


class UnknownProposalError(InputError):
    """There is no proposal of terms with this hash waiting for us."""

    code = 1205
    advice = "`channeld channel proposals` lists them; both desks must use the same terms, salt included."


class NotOurTermsError(InputError):
    """Terms that do not fit this desk, its peer or its contracts."""

    code = 1206
    advice = "Correct the terms file; both desks must agree on every field."


class NotConnectedPeerError(InputError):
    """The peer is not connected, so nothing can be agreed now."""

    code = 1207
    advice = "Start the peer's daemon, check its address and URL with `channeld peer list`, and try again."


class NoPriceError(InputError):
    """The oracle has no recent print of a feed."""

    code = 1208
    advice = "Check the oracle with `channeld status`."


def take(params: Params, name: str, kind: type | tuple[type, ...], default: Any = ...) -> Any:  # noqa: ANN401 - JSON
    """A parameter of the right type.

    Raises:
        BadParameterError: missing or of another type.
    """
    value = params.get(name)
    if value is None:
        if default is ...:
            raise BadParameterError(f"the parameter {name!r} is missing")
        return default
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise BadParameterError(f"the parameter {name!r} has the wrong type")
    return value


class Methods:
    """All methods, by name."""

    def __init__(self, node: Node) -> None:
        """Bind to the node."""
        self.node = node
        self.table: dict[str, Callable[[Params], Awaitable[Any]]] = {
            "public/time": self.time,
            "private/status": self.status,
            "private/peer_add": self.peer_add,
            "private/peers": self.peers,
            "private/channel_propose": self.channel_propose,
            "private/channel_proposals": self.channel_proposals,
            "private/channel_accept": self.channel_accept,
            "private/channels": self.channels,
            "private/channel": self.channel,
            "private/deposit": self.deposit,
            "private/withdraw": self.withdraw,
            "private/close": self.close,
            "private/trade": self.trade,
            "private/offers": self.offers,
            "private/offer_accept": self.offer_accept,
            "private/offer_reject": self.offer_reject,
            "private/policy_set": self.policy_set,
            "private/transfer": self.transfer,
            "private/mark": self.mark,
            "private/vols_set": self.vols_set,
            "private/positions": self.positions,
            "private/margin": self.margin,
            "private/journal": self.journal,
            "private/audit": self.audit,
            "private/events": self.events,
            "private/challenge": self.challenge,
            "private/dispute": self.dispute,
            "private/shutdown": self.shutdown,
        }

    async def call(self, method: str, params: Params) -> Any:  # noqa: ANN401 - JSON
        """The result of a method.

        Raises:
            ChanneldError: what is wrong, with its code.
        """
        function = self.table.get(method)
        if function is None:
            raise UnknownMethodError(f"there is no method {method!r}")
        return await function(params)

    # ------------------------------------------------------------------------------------------------- looking up

    def _peer(self, params: Params) -> bytes:
        name = take(params, "peer", str)
        for address, peer in self.node.peers.items():
            if peer["name"] == name or checksum_address(address).lower() == name.lower():
                return address
        raise UnknownPeerError(f"there is no peer {name!r}")

    def _name(self, peer: bytes) -> str:
        return self.node.peers.get(peer, {}).get("name", checksum_address(peer))

    def _actor(self, params: Params) -> Actor:
        text = take(params, "channel", str)
        live = [a for a in self.node.actors.values() if a.record.status != "closed"]
        by_name = [a for a in live if self._name(a.peer) == text]
        by_id = [a for a in self.node.actors.values() if ("0x" + a.id.hex()).startswith(text.lower())]
        if text.startswith("0x") and len(text) < 6:
            by_id = []
        found = by_name or (by_id if text.startswith("0x") else [])
        if len(found) != 1:
            how = "no channel" if not found else f"{len(found)} channels"
            raise UnknownChannelError(f"{how} match {text!r}")
        return found[0]

    def _amount(self, params: Params, actor: Actor) -> int:
        units = parse_decimal(take(params, "amount", str), actor.channel.terms.decimals)
        if units < 1:
            raise BadParameterError("the amount must be positive")
        return units

    # ------------------------------------------------------------------------------------------------- the desk

    async def time(self, _: Params) -> Any:  # noqa: ANN401 - JSON
        """The desk's time and the chain's."""
        view = self.node.chain.view
        return {"time_ms": self.node.clock.now_ms(), "chain_time": view["time"], "block": view["block"]}

    async def status(self, _: Params) -> Any:  # noqa: ANN401 - JSON
        """The desk at a glance."""
        node, view = self.node, self.node.chain.view
        deployed = node.chain.ready
        return {
            "name": node.config.desk.name,
            "address": checksum_address(node.signer.address),
            "payout": node.config.desk.payout,
            "version": __version__,
            "protocol": PROTOCOL_VERSION,
            "time_ms": node.clock.now_ms(),
            "chain": {
                "url": node.config.chain.urls[0],
                "chain_id": node.chain.deployment.chain_id if deployed else None,
                "adjudicator": checksum_address(node.chain.deployment.adjudicator) if deployed else None,
                "block": view["block"],
                "time": view["time"],
                "lag_s": max(0, node.clock.now_ms() // 1000 - view["time"]) if view["time"] else None,
                "trouble": node.chain.stale() if deployed else "no contracts yet",
            },
            "peers": await self.peers({}),
            "channels": await self.channels({}),
            "alerts": node.alerts,
        }

    async def peer_add(self, params: Params) -> Any:  # noqa: ANN401 - JSON
        """Allow a peer and connect to it."""
        name = take(params, "name", str)
        address = address_from_text(take(params, "address", str))
        if address == self.node.signer.address:
            raise BadParameterError("this is our own address; a peer has another")
        if any(p["name"] == name and a != address for a, p in self.node.peers.items()):
            raise BadParameterError(f"another peer is called {name!r} already")
        await self.node.add_peer(name, address, take(params, "url", str, ""))
        return {"name": name, "address": checksum_address(address), "connected": self.node.hub.connected(address)}

    async def peers(self, _: Params) -> Any:  # noqa: ANN401 - JSON
        """All peers."""
        rows = []
        for address, peer in self.node.peers.items():
            error = self.node.hub.last_error(address)
            connected = self.node.hub.connected(address)
            row = {
                "name": peer["name"],
                "address": checksum_address(address),
                "url": peer["url"],
                "connected": connected,
            }
            rows.append({**row, "last_error": str(error) if error and not connected else ""})
        return rows

    # ------------------------------------------------------------------------------------------------- channels

    def _check_terms(self, terms: Terms, peer: bytes) -> None:
        """Terms must name this desk and that peer, with our own payout address."""
        ours = self.node.signer.address
        if {terms.a.signer, terms.b.signer} != {ours, peer}:
            raise NotOurTermsError("the terms' signers must be this desk's address and the peer's")
        mine = terms.a if terms.a.signer == ours else terms.b
        if mine.payout != self.node.config.payout_address:
            raise NotOurTermsError(
                f"the terms pay us to {checksum_address(mine.payout)}; our payout address is "
                f"{checksum_address(self.node.config.payout_address)}"
            )

    async def channel_propose(self, params: Params) -> Any:  # noqa: ANN401 - JSON
        """Propose terms to a peer, who accepts them by their hash."""
        peer = self._peer(params)
        terms = terms_from_json(take(params, "terms", dict))
        self._check_terms(terms, peer)
        deployment = self.node.chain.deployment
        await check_collateral(self.node.rpc, terms)
        channel = channel_id(deployment.domain, terms)
        proposal = {
            "peer": peer.hex(),
            "direction": "out",
            "status": "pending",
            "chain_id": deployment.chain_id,
            "adjudicator": deployment.adjudicator.hex(),
            "terms": records.encode_terms(terms).hex(),
        }
        if channel not in self.node.proposals:
            await self.node.keep_proposal(channel, proposal)
        message = wire.ProposeTerms(deployment.chain_id, deployment.adjudicator, records.encode_terms(terms))
        await self.node.send(peer, message)
        return {"hash": "0x" + channel.hex(), "summary": _summary(terms, self.node.signer.address)}

    async def channel_proposals(self, _: Params) -> Any:  # noqa: ANN401 - JSON
        """Proposals of terms, ours and the peers'."""
        return [
            {
                "hash": "0x" + channel.hex(),
                "peer": self._name(bytes.fromhex(p["peer"])),
                "direction": p["direction"],
                "status": p["status"],
                "terms": terms_to_json(records.decode_terms(bytes.fromhex(p["terms"]))),
                "summary": _summary(records.decode_terms(bytes.fromhex(p["terms"])), self.node.signer.address),
            }
            for channel, p in self.node.proposals.items()
        ]

    async def channel_accept(self, params: Params) -> Any:  # noqa: ANN401 - JSON
        """Accept a peer's terms by their hash."""
        text = take(params, "hash", str)
        found = [c for c in self.node.proposals if ("0x" + c.hex()) == text.lower()]
        if not found or self.node.proposals[found[0]]["direction"] != "in":
            raise UnknownProposalError(f"no proposal of a peer has the hash {text}")
        channel, proposal = found[0], self.node.proposals[found[0]]
        if proposal["status"] == "pending":
            terms = records.decode_terms(bytes.fromhex(proposal["terms"]))
            peer = bytes.fromhex(proposal["peer"])
            self._check_terms(terms, peer)
            deployment = self.node.chain.deployment
            domain = Domain(proposal["chain_id"], bytes.fromhex(proposal["adjudicator"]))
            if domain != deployment.domain or channel_id(domain, terms) != channel:
                raise NotOurTermsError(
                    f"the peer's contracts are at 0x{domain.adjudicator.hex()} on chain {domain.chain_id}; ours are at "
                    f"0x{deployment.adjudicator.hex()} on chain {deployment.chain_id}"
                )
            await check_collateral(self.node.rpc, terms)
            await self.node.keep_proposal(channel, {**proposal, "status": "accepted"})
            await self.node.begin_channel(channel, proposal, opener=False)
        return {"channel": "0x" + channel.hex()}

    async def channels(self, _: Params) -> Any:  # noqa: ANN401 - JSON
        """All channels, a line each."""
        return [await self._row(actor) for actor in self.node.actors.values()]

    async def _row(self, actor: Actor) -> dict[str, Any]:
        row = views.channel_row(actor, self.node.chain, self._name(actor.peer))
        try:
            prices = await actor.book.prices(actor.channel.terms, actor.state.body, self.node.clock.now_ms())
            pair = self._reports(actor, prices.spots)
            row["free_equity"] = format_decimal(pair[actor.channel.side].free, places=2)
        except ChanneldError:
            row["free_equity"] = None
        return row

    def _reports(self, actor: Actor, spots: Any, prices: Any = None) -> Any:  # noqa: ANN401 - see callers
        now = self.node.clock.now_ms() // 1000
        body = actor.state.body
        fixes = prices.fixes if prices else {}
        collateral = prices.collateral if prices else body.collateral_mark
        return both(actor.channel.terms, body, spots, now, collateral, fixes)

    async def channel(self, params: Params) -> Any:  # noqa: ANN401 - JSON
        """Everything about one channel."""
        actor = self._actor(params)
        return {**views.channel_data(actor, self.node.chain, self._name(actor.peer)), **await self._row(actor)}

    async def deposit(self, params: Params) -> Any:  # noqa: ANN401 - JSON
        """Deposit collateral from the desk's own account."""
        actor = self._actor(params)
        receipt = await self.node.chain.deposit(actor, self._amount(params, actor))
        return {"tx": "0x" + receipt.transaction_hash.hex(), "status": "mined; it counts once it is final"}

    async def withdraw(self, params: Params) -> Any:  # noqa: ANN401 - JSON
        """Withdraw free collateral to our payout address, with the peer's signature."""
        actor = self._actor(params)
        version = await self._operate(actor, Withdraw(actor.channel.side, self._amount(params, actor)))
        return {"version": version, "status": "signed; it is paid out once both signatures are on chain"}

    async def close(self, params: Params) -> Any:  # noqa: ANN401 - JSON
        """Close cooperatively; the book must be empty."""
        actor = self._actor(params)
        if actor.channel.closing is None:
            version = await self._operate(actor, CloseChannel(actor.channel.side))
        else:
            version = actor.state.version
        return {"version": version, "status": "closing"}

    async def transfer(self, params: Params) -> Any:  # noqa: ANN401 - JSON
        """Pay the peer."""
        actor = self._actor(params)
        memo = take(params, "memo", str, "").encode()
        version = await self._operate(actor, Transfer(actor.channel.side, self._amount(params, actor), memo))
        return {"version": version}

    def _need_peer(self, actor: Actor) -> None:
        if not actor.channel.synced:
            raise NotConnectedPeerError(f"{self._name(actor.peer)} is not connected")

    async def _operate(self, actor: Actor, operation: Operation) -> int:
        """Have one of our own operations co-signed: the sequencer's at once, the follower's by request."""
        self._need_peer(actor)
        await actor.rehearse((operation,))
        if actor.channel.sequencer:
            future = asyncio.ensure_future(actor.submit(operation))
        else:
            offer_id = secrets.token_bytes(16)
            offer = make_offer(operation, offer_id, self.node.clock.now_ms() + DEFAULT_LIFETIME_MS)
            future = await actor.offer(offer)  # type: ignore[assignment]  # both are futures of a version
        try:
            return await asyncio.wait_for(asyncio.shield(future), MAX_WAIT_S / 2)
        except TimeoutError:
            raise NotConnectedPeerError(f"{self._name(actor.peer)} has not answered; it may still do so") from None

    # ------------------------------------------------------------------------------------------------- trading

    async def _legs(self, actor: Actor, given: list[Any]) -> tuple[Leg, ...]:
        """The legs of the caller's view, with the carry and vol already agreed, those given, or implied ones."""
        terms, body = actor.channel.terms, actor.channel.tip.body
        prices = await actor.book.prices(terms, body, self.node.clock.now_ms())
        legs = []
        for raw in given:
            if not isinstance(raw, dict):
                raise BadParameterError("a leg must be an object with instrument, size and price")
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
            legs.append(Leg(instrument, -size if actor.channel.side else size, price, carry, vol))
        return tuple(legs)

    async def trade(self, params: Params) -> Any:  # noqa: ANN401 - JSON
        """Offer a trade to the peer, after our own margin check of both sides."""
        actor = self._actor(params)
        self._need_peer(actor)
        side, decimals = actor.channel.side, actor.channel.terms.decimals
        legs = await self._legs(actor, take(params, "legs", list))
        fee = parse_decimal(take(params, "fee", str, "0"), decimals)
        trade = Trade(side, legs, -fee if side else fee, take(params, "reference", str, "").encode())
        wait_s = min(float(take(params, "wait_s", (int, float), 10.0)), MAX_WAIT_S)
        try:
            before = await self._initial(actor)
            _, reports = await actor.rehearse((trade,))
        except ChanneldError as error:
            await self.node.emit("trade_refused", actor.id, code=error.code, reason=str(error), **error.details)
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
            return {**result, "status": "pending"}
        except ChanneldError as error:
            return {
                **result,
                "status": "rejected",
                "reason": str(error),
                "code": error.details.get("peer_code", error.code),
            }
        return {**result, "status": "done", "version": version}

    async def _initial(self, actor: Actor) -> int:
        prices = await actor.book.prices(actor.channel.terms, actor.state.body, self.node.clock.now_ms())
        pair = self._reports(actor, prices.spots, prices)
        return int(pair[actor.channel.side].initial)

    async def offers(self, _: Params) -> Any:  # noqa: ANN401 - JSON
        """Offers that wait: the peers' for us, ours for the peers."""
        rows = []
        for actor in self.node.actors.values():
            for offer in actor.offers.values():
                if offer.status is not Status.PENDING:
                    continue
                data = operation_data(offer.operation, actor.channel.side, actor.channel.terms.decimals)
                rows.append(
                    {
                        "id": offer.id.hex(),
                        "peer": self._name(actor.peer),
                        "channel": "0x" + actor.id.hex(),
                        "direction": "out" if offer.ours else "in",
                        "valid_until_ms": offer.valid_until_ms,
                        **data,
                    }
                )
        return rows

    def _offer(self, params: Params) -> Any:  # noqa: ANN401 - (actor, offer)
        identifier = take(params, "id", str)
        for actor in self.node.actors.values():
            for offer in actor.offers.values():
                if offer.id.hex() == identifier and not offer.ours and offer.status is Status.PENDING:
                    return actor, offer
        raise UnknownOfferError(f"no offer {identifier} waits for us")

    async def offer_accept(self, params: Params) -> Any:  # noqa: ANN401 - JSON
        """Agree to a peer's offer by hand."""
        actor, offer = self._offer(params)
        self._need_peer(actor)
        await actor.rehearse((offer.operation,))
        before = actor.state.version
        await actor.agree_to(offer)
        for _ in range(100):
            if actor.offers.get(offer.key, offer).status is Status.DONE:
                return {"id": offer.id.hex(), "status": "done", "version": actor.state.version}
            if actor.offers.get(offer.key, offer).status is Status.REFUSED:
                return {"id": offer.id.hex(), "status": "refused", "version": before}
            await self.node.news(0.1)
        return {"id": offer.id.hex(), "status": "agreed", "version": None}

    async def offer_reject(self, params: Params) -> Any:  # noqa: ANN401 - JSON
        """Refuse a peer's offer by hand."""
        actor, offer = self._offer(params)
        reason = take(params, "reason", str, "refused by the desk")
        await actor.refuse_offer(offer, InputError(reason))
        return {"id": offer.id.hex(), "status": "refused"}

    async def policy_set(self, params: Params) -> Any:  # noqa: ANN401 - JSON
        """What is agreed to by itself from a peer."""
        peer = self._peer(params)
        limit = take(params, "max_notional", str, None)
        band = take(params, "price_band", str, None)
        instruments = take(params, "instruments", list, None)
        policy = Policy(
            auto_accept=take(params, "auto_accept", bool, False),
            max_notional=parse_decimal(limit) if limit is not None else None,
            instruments=tuple(map(str, instruments)) if instruments is not None else None,
            price_band=parse_decimal(band) if band is not None else None,
        )
        stored = json.dumps(asdict(policy))
        await self.node.store.commit([records.PutDocument(POLICY, peer.hex(), stored.encode())])
        for actor in self.node.actors.values():
            if actor.peer == peer:
                actor.policy = policy_from(json.loads(stored))
        return {
            "peer": self._name(peer),
            "auto_accept": policy.auto_accept,
            "max_notional": limit,
            "instruments": instruments,
            "price_band": band,
        }

    # ------------------------------------------------------------------------------------------------- risk

    async def mark(self, params: Params) -> Any:  # noqa: ANN401 - JSON
        """MARK now; only the sequencer can."""
        actor = self._actor(params)
        self._need_peer(actor)
        if not actor.channel.sequencer:
            raise BadParameterError("the sequencer marks; ask the peer's desk")
        version = await asyncio.wait_for(actor.mark(), MAX_WAIT_S)
        body = actor.state.body
        marks = {instrument_name(p.instrument): format_decimal(p.mark, places=6) for p in body.positions}
        return {"version": version, "as_of": body.as_of, "prices": marks}

    async def vols_set(self, params: Params) -> Any:  # noqa: ANN401 - JSON
        """The desk's own vols and carries, for the MARKs it proposes."""
        chosen = [self._actor(params)] if params.get("channel") is not None else list(self.node.actors.values())
        vols, carries = take(params, "vols", list, []), take(params, "carries", list, [])
        for actor in chosen:
            new_vols, new_carries = dict(actor.surface.vols), dict(actor.surface.carries)
            for one in vols:
                i = parse_instrument(take(one, "instrument", str))
                new_vols[i.feed, i.expiry, i.strike] = parse_decimal(take(one, "vol", str))
            for one in carries:
                i = parse_instrument(take(one, "instrument", str))
                new_carries[i.feed, i.expiry] = parse_decimal(take(one, "carry", str))
            actor.surface = Surface(new_vols, new_carries)
        return {"vols": len(vols), "carries": len(carries), "channels": len(chosen)}

    async def positions(self, params: Params) -> Any:  # noqa: ANN401 - JSON
        """Open positions, as this desk holds them."""
        chosen = [self._actor(params)] if params.get("channel") is not None else list(self.node.actors.values())
        rows: list[dict[str, Any]] = []
        for actor in chosen:
            body = actor.state.body
            prices = await actor.book.prices(actor.channel.terms, body, self.node.clock.now_ms())
            rows.extend(views.position_data(actor, position, prices) for position in body.positions)
        return rows

    async def margin(self, params: Params) -> Any:  # noqa: ANN401 - JSON
        """Both parties' margin, at the newest prints or at given prices."""
        actor = self._actor(params)
        prices = await actor.book.prices(actor.channel.terms, actor.state.body, self.node.clock.now_ms())
        given = take(params, "prices", dict, {})
        if given:
            asked = {feed_id(str(name)): parse_decimal(str(text)) for name, text in given.items()}
            prices = replace(prices, spots={**prices.spots, **asked})
        return views.margins_data(self._reports(actor, prices.spots, prices), actor, prices)

    # ------------------------------------------------------------------------------------------------- records

    async def journal(self, params: Params) -> Any:  # noqa: ANN401 - JSON
        """Every batch, decoded, with the balances after it."""
        actor = self._actor(params)
        state, rows = genesis(actor.id), []
        for batch in await self.node.store.batches(actor.id):
            state = apply(actor.channel.terms, state, batch.raw, batch.version).state
            balances = (state.body.a.balance, state.body.b.balance)
            rows.append(views.journal_row(batch, actor.channel.side, actor.channel.terms.decimals, balances))
        return rows

    async def audit(self, params: Params) -> Any:  # noqa: ANN401 - JSON
        """Replay every batch from version 0 and compare with what is co-signed."""
        actor = self._actor(params)
        state = await expected_state(actor, self.node.store)
        hashed, decimals = body_hash(state.body), actor.channel.terms.decimals
        latest = actor.channel.latest
        return {
            "replayed": hashed == latest.body_hash and state.version == latest.state.version,
            "versions": len(await self.node.store.batches(actor.id)),
            "version": state.version,
            "body_hash": "0x" + hashed.hex(),
            "expected": {
                "a": format_decimal(state.body.a.balance, decimals),
                "b": format_decimal(state.body.b.balance, decimals),
            },
        }

    async def events(self, params: Params) -> Any:  # noqa: ANN401 - JSON
        """Events after a sequence number; waits for news where asked to."""
        since = take(params, "since", int, 0)
        wait_s = min(float(take(params, "wait_s", (int, float), 0.0)), MAX_WAIT_S)
        channel = self._actor(params).id if params.get("channel") is not None else None
        found = await self.node.store.events(since, 1000, channel)
        if not found and wait_s > 0:
            await self.node.news(wait_s)
            found = await self.node.store.events(since, 1000, channel)
        events = [
            {
                "seq": e.sequence,
                "time_ms": e.time_ms,
                "kind": e.kind,
                "channel": "0x" + e.channel.hex() if e.channel else None,
                **json.loads(e.data),
            }
            for e in found
        ]
        return {"next": found[-1].sequence if found else since, "events": events}

    # ------------------------------------------------------------------------------------------------- disputes

    async def challenge(self, params: Params) -> Any:  # noqa: ANN401 - JSON
        """Start a dispute with the newest co-signed state; on a devnet also with an old one, to show what follows."""
        actor = self._actor(params)
        version = take(params, "version", int, None)
        if version is not None and self.node.config.chain.clock != "devnet":
            raise BadParameterError("an old version can be shown on a devnet alone: it is what a cheater does")
        receipt = await self.node.chain.challenge(actor, version)
        return {"tx": "0x" + receipt.transaction_hash.hex(), "status": "a dispute runs"}

    async def dispute(self, params: Params) -> Any:  # noqa: ANN401 - JSON
        """Where a dispute stands, and what settle would pay."""
        actor = self._actor(params)
        known = self.node.chain.known.get(actor.id)
        if known is None or known.record is None or known.dispute is None or known.dispute.number == 0:
            return {"phase": known.phase.name.lower() if known else "none", "next_step": "none: there is no dispute"}
        record, number = known.record, known.dispute
        terms, decimals = actor.channel.terms, actor.channel.terms.decimals
        at = fix_time(terms, number.deadline)
        told: dict[str, Any] = {
            "phase": known.phase.name.lower(),
            "dispute": number.number,
            "deadline": number.deadline,
            "fix_time": at,
            "on_record": number.version,
            "ours": actor.state.version,
        }
        if known.phase is not Phase.DISPUTED:
            return {**told, "next_step": "none: the channel has ended"}
        step, body = await self.node.chain.next_step(actor)
        quote = None
        if body is not None and self.node.clock.now_ms() // 1000 >= at:
            fixes = await self.node.chain.proven(actor, body, at)
            to_a, to_b = settle_amounts(
                terms, body, fixes, at, record.deposited_a, record.deposited_b, record.paid_a, record.paid_b
            )
            quote = {"a": format_decimal(to_a, decimals), "b": format_decimal(to_b, decimals)}
        return {**told, "next_step": step, "quote": quote}

    async def shutdown(self, _: Params) -> Any:  # noqa: ANN401 - JSON
        """Stop the daemon."""
        self.node.stopping.set()
        return {"status": "stopping"}


def _summary(terms: Terms, ours: bytes) -> dict[str, Any]:
    """Terms in a few words and numbers."""
    side = 0 if terms.a.signer == ours else 1
    return {
        "we_are": "ab"[side],
        "counterparty": checksum_address(terms.party(1 - side).signer),
        "our_payout": checksum_address(terms.party(side).payout),
        "collateral": checksum_address(terms.collateral),
        "markets": [feed_symbol(m.feed) for m in terms.markets],
        "price_scan": {feed_symbol(m.feed): format_decimal(m.price_scan) for m in terms.markets},
        "initial_factor": format_decimal(terms.initial_factor),
        "closeout_penalty": format_decimal(terms.closeout_penalty * 100 * WAD // WAD) + "%",
        "challenge_period_s": terms.challenge_period,
        "cure_period_s": terms.cure_period,
        "oracle": f"{terms.oracle.quorum} of {len(terms.oracle.signers)} signers, every {terms.oracle.tick} s",
        "sequencer": "us" if terms.sequencer == side else "peer",
    }
