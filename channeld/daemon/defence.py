"""What margin asks for while a dispute runs: topping up before a call's time, and calling again when a call was cured.

Rules: the body on record decides, with every deposit on chain; figures are our own at the newest prints. The chain
judges at the fix of L, later than now: the aim is initial margin, not the edge of maintenance. A party may call four
times in a dispute, each time once its last L is past; nothing is gained by another call where one that has passed
finds a party below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from channeld.core.errors import ChanneldError
from channeld.core.margin import MissingPriceError
from channeld.core.settlement import CALLS_OF_PARTY, fixes_needed, judge
from channeld.core.wad import format_decimal
from channeld.desk.margin_calls import shortfall

if TYPE_CHECKING:
    from channeld.chain.contracts import MarginCallRecord
    from channeld.core.state import Body
    from channeld.daemon.actor import Actor
    from channeld.daemon.disputes import Seen
    from channeld.daemon.node import Node

LATEST_CALL_S = 30


class Defence:
    """The margin of one node's channels in dispute."""

    def __init__(self, node: Node) -> None:
        """Judge the channels of a node."""
        self._node = node

    async def look(self, actor: Actor, now_ms: int) -> None:
        """One look at a channel in dispute."""
        seen = self._node.chain.disputes.seen.get(actor.id)
        if seen is None or seen.view.body is None:
            return
        body = seen.view.body
        if body.positions and now_ms // 1000 < seen.view.deadline:
            await self._margin(actor, seen, body, now_ms)
        await self._node.resuming.look(actor, seen, now_ms)

    async def _margin(self, actor: Actor, seen: Seen, body: Body, now_ms: int) -> None:
        margin, now, side = self._node.margin, now_ms // 1000, actor.channel.side
        prices = await margin.prices(actor, body, now_ms)
        if prices is None:
            return
        try:
            pair = margin.pair(actor, body, prices)
        except MissingPriceError:
            return
        ours, peer = pair[side], pair[1 - side]
        pending = [call.time for call in seen.calls if call.time > now]
        if pending and ours.equity < ours.initial:
            lacking = shortfall(actor.channel.terms, ours, prices.collateral)
            shown = format_decimal(lacking, actor.channel.terms.decimals)
            await margin.once(
                actor,
                f"called {seen.number}/{min(pending)}",
                message=f"margin is judged on chain at {min(pending)}: {shown} are lacking to initial margin",
            )
            await margin.top_up(actor, lacking, now_ms)
        if margin.settings.auto_call != "call" or not peer.below or now > seen.view.deadline - LATEST_CALL_S:
            return
        if self._may_call(seen, side, now) and not await self._decided(actor, seen, body, now):
            chain = self._node.chain
            chain.start(actor.id, "margin call", chain.disputes.call_margin(actor))

    @staticmethod
    def _may_call(seen: Seen, side: int, now: int) -> bool:
        mine = [call.time for call in seen.calls if call.party == side]
        return len(mine) < CALLS_OF_PARTY and all(time < now for time in mine)

    async def _decided(self, actor: Actor, seen: Seen, body: Body, now: int) -> bool:
        """Whether a call that has passed finds a party below by the fixes that we hold: nothing later counts then."""
        for call in seen.calls:
            # what was read before L does not have the last deposits yet; judged anew at each look, since those may
            # still be seen late
            if call.time >= min(now, seen.view.now):
                continue
            if (call.tested and (call.below_a or call.below_b)) or await self._below(actor, body, call):
                return True
        return False

    async def _below(self, actor: Actor, body: Body, call: MarginCallRecord) -> bool:
        fixes = {}
        for feed, t in fixes_needed(actor.channel.terms, body, call.time):
            _, fix = await actor.book.fix_of(feed, t)
            if fix is None:
                return False
            fixes[feed, t] = (fix.value, fix.weight)
        _, paid = self._node.margin.on_chain(actor, body)
        try:
            verdict = judge(actor.channel.terms, body, fixes, call.time, call.deposited_a, call.deposited_b, *paid)
        except ChanneldError:
            return False
        return verdict.below_a or verdict.below_b
