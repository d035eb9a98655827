"""Reductions while margin is called: proposed to the peer, and agreed to by itself where that is configured.

Rules: the smallest quarter of the book that brings the called party back to initial margin is proposed, the whole of it
where none does; one proposal for a call at a time. A peer's is agreed to without a person only while a call is open.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import structlog

from channeld.core.channel import waiting_for
from channeld.core.errors import ChanneldError
from channeld.core.wad import parse_decimal
from channeld.desk.offers import DEFAULT_LIFETIME_MS, make_offer
from channeld.desk.reductions import STEPS, fair_reduction, reduction

if TYPE_CHECKING:
    from channeld.core.acceptance import Prices
    from channeld.core.operations import Trade
    from channeld.daemon.actor import Actor
    from channeld.daemon.node import Node
    from channeld.desk.margin_calls import Call

log = structlog.get_logger(__name__)


class Reductions:
    """The reductions of one node's channels."""

    def __init__(self, node: Node) -> None:
        """Nothing is proposed yet."""
        self._node = node
        self._again_ms: dict[bytes, int] = {}

    async def propose(self, actor: Actor, call: Call) -> None:
        """Offer the peer the least reduction that cures a call; nothing while an earlier one may be answered."""
        now_ms = self._node.clock.now_ms()
        if now_ms < self._again_ms.get(actor.id, 0) or not actor.channel.synced or waiting_for(actor.channel):
            return
        prices = await self._node.margin.prices(actor, actor.state.body, now_ms)
        if prices is None:
            return
        trade = await self._least(actor, call.side, prices)
        if trade is None:
            return
        self._again_ms[actor.id] = now_ms + DEFAULT_LIFETIME_MS
        offer = make_offer(trade, secrets.token_bytes(16), now_ms + DEFAULT_LIFETIME_MS)
        await actor.offer(offer)
        await self._node.emit("reduction_proposed", actor.id, id=offer.id.hex(), legs=len(trade.legs))

    async def _least(self, actor: Actor, side: int, prices: Prices) -> Trade | None:
        """The smallest quarter after which the side stands at initial margin; else all of it."""
        last: Trade | None = None
        for steps in range(1, STEPS + 1):
            trade = reduction(actor.state.body, prices, actor.channel.side, steps)
            if trade is None:
                continue
            try:
                _, reports = await actor.consider((trade,))
            except ChanneldError as error:
                log.info("a reduction is not possible", channel=actor.id.hex()[:8], quarters=steps, why=str(error))
                continue
            last = trade
            if reports is not None and reports[side].equity >= reports[side].initial:
                return trade
        return last

    async def agrees(self, actor: Actor, trade: Trade) -> bool:
        """Whether a peer's trade is a fair reduction that our settings agree to without a person."""
        settings = self._node.config.margin
        if settings.reductions != "agree" or not self._node.margin.open_calls(actor):
            return False
        body = actor.state.body
        prices = await self._node.margin.prices(actor, body, self._node.clock.now_ms())
        if prices is None:
            return False
        return fair_reduction(body, trade, actor.channel.side, prices, parse_decimal(settings.reduction_band))
