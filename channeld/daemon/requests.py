"""What the API's methods share: finding peers and channels, and having an operation of our own co-signed."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from channeld.core.acceptance import valuation_time
from channeld.core.channel import waiting_for
from channeld.core.channel.values import NotReadyError
from channeld.core.crypto import checksum_address
from channeld.core.errors import InputError
from channeld.core.margin import both
from channeld.core.wad import parse_decimal
from channeld.daemon.parameters import BadParameterError, Params, take
from channeld.daemon.services import NoAnswerError
from channeld.desk.offers import make_offer

if TYPE_CHECKING:
    from channeld.core.acceptance import Prices
    from channeld.core.margin import MarginReport
    from channeld.core.operations import Operation
    from channeld.daemon.actor import Actor
    from channeld.daemon.node import Node

OPERATION_WAIT_S = 30.0
# a memo or reference is 64 bytes on the wire, of which the offer's id takes 16
MAX_NOTE = 48


class UnknownPeerError(InputError):
    """There is no peer of this name."""

    code = 1203
    advice = "`channeld peer list` shows the peers; add one with `channeld peer add`."


class UnknownChannelError(InputError):
    """No channel matches, or more than one does."""

    code = 1204
    advice = "`channeld channel list` shows the channels; give the whole id where a prefix is not enough."


class NotConnectedPeerError(InputError):
    """The peer is not connected, so nothing can be agreed now."""

    code = 1207
    advice = "Start the peer's daemon, check its address and URL with `channeld peer list`, and try again."


class Requests:
    """The root of the groups of methods. Bound to one node."""

    def __init__(self, node: Node) -> None:
        """Bind to the node."""
        self.node = node

    def _peer(self, params: Params) -> bytes:
        name = take(params, "peer", str)
        for address, peer in self.node.peers.items():
            if peer["name"] == name or checksum_address(address).lower() == name.lower():
                return address
        raise UnknownPeerError(f"there is no peer {name!r}")

    def _actor(self, params: Params) -> Actor:
        text = take(params, "channel", str)
        found = [a for a in self.node.actors.values() if a.record.status != "closed" and self.node.name(a.peer) == text]
        if not found and text.startswith("0x") and len(text) >= 6:
            found = [a for a in self.node.actors.values() if ("0x" + a.id.hex()).startswith(text.lower())]
        if len(found) != 1:
            how = "no channel" if not found else f"{len(found)} channels"
            raise UnknownChannelError(f"{how} match {text!r}")
        return found[0]

    def _amount(self, params: Params, actor: Actor) -> int:
        units = parse_decimal(take(params, "amount", str), actor.channel.terms.decimals)
        if not 1 <= units < 1 << 128:
            raise BadParameterError("the amount must be positive, and of at most 128 bits in units")
        return units

    async def _prices(self, actor: Actor) -> Prices:
        return await actor.book.prices(actor.channel.terms, actor.state.body, self.node.clock.now_ms())

    def _reports(self, actor: Actor, prices: Prices) -> tuple[MarginReport, MarginReport]:
        terms, body = actor.channel.terms, actor.state.body
        t = valuation_time(terms, self.node.clock.now_ms() // 1000)
        return both(terms, body, prices.spots, t, prices.collateral, prices.fixes)

    def _need_peer(self, actor: Actor) -> None:
        """Raise where nothing can be agreed now, and waiting a little would not help."""
        if actor.broken is not None:
            raise actor.broken
        if actor.channel.frozen or actor.channel.closing is not None:
            raise NotReadyError(f"channel 0x{actor.id.hex()[:8]}: {waiting_for(actor.channel)}")
        if not actor.channel.synced:
            raise NotConnectedPeerError(f"{self.node.name(actor.peer)} is not connected")

    async def operate(self, actor: Actor, operation: Operation) -> int:
        """As `_operate`, for what the daemon does by itself."""
        return await self._operate(actor, operation)

    async def _operate(self, actor: Actor, operation: Operation) -> int:
        """Have one of our own operations co-signed: the sequencer's at once, the follower's by request.

        What has no answer in time is not done later: the sequencer takes it out of the line, the follower's request
        has lived as long. Only what is half-signed already may still be.

        Raises:
            NoAnswerError: nobody answered in time.
            ChanneldError: refused here or by the peer.
        """
        self._need_peer(actor)
        await actor.rehearse((operation,))
        if actor.channel.sequencer:
            return await actor.submit(operation, OPERATION_WAIT_S)
        valid_until_ms = self.node.clock.now_ms() + int(OPERATION_WAIT_S * 1000)
        future = await actor.offer(make_offer(operation, secrets.token_bytes(16), valid_until_ms))
        try:
            return await asyncio.wait_for(asyncio.shield(future), OPERATION_WAIT_S)
        except TimeoutError:
            name = self.node.name(actor.peer)
            raise NoAnswerError(f"{name} has not answered; the request's life is over") from None
