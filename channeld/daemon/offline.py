"""`safe_offline_until` of every channel: how long this desk may be away. The rule is core/offline.py's.

Rules: margins cost time, so that they are taken at most once in so many seconds, in a thread; where there is no price
to take them at, they count as thin.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from channeld.chain.contracts import Phase
from channeld.core.errors import ChanneldError
from channeld.core.margin import party_margin
from channeld.core.offline import is_thin, safe_offline_until

if TYPE_CHECKING:
    from channeld.daemon.actor import Actor
    from channeld.daemon.node import Node

MEASURE_AGAIN_MS = 15_000


class Offline:
    """How long a desk may be away."""

    def __init__(self, node: Node) -> None:
        """Nothing is measured before the first `measure`."""
        self._node = node
        self._thin: dict[bytes, tuple[int, int, bool]] = {}

    async def measure(self, actor: Actor, now_ms: int, *, at_once: bool = False) -> None:
        """Take the margin again, where the state is another or the last look is old; at once where a person asks."""
        state = actor.state
        version, taken_ms, _ = self._thin.get(actor.id, (-1, 0, True))
        if not state.body.positions:
            self._thin[actor.id] = (state.version, now_ms, False)
            return
        pause = MEASURE_AGAIN_MS if version == state.version else MEASURE_AGAIN_MS // 10
        if not at_once and 0 <= now_ms - taken_ms < pause:
            return
        try:
            terms, side = actor.channel.terms, actor.channel.side
            prices = await actor.book.prices(terms, state.body, now_ms)
            report = await asyncio.to_thread(
                party_margin, terms, state.body, prices.spots, prices.time, side, prices.collateral, prices.fixes
            )
            thin = is_thin(report)
        except ChanneldError:
            thin = True
        self._thin[actor.id] = (state.version, now_ms, thin)

    def until(self, actor: Actor, now_ms: int) -> int:
        """The time until which this desk may be away from a channel without trusting its peer, Unix seconds."""
        known = self._node.chain.known.get(actor.id)
        disputed = known is not None and known.phase is Phase.DISPUTED and known.dispute is not None
        dispute = known.dispute if known is not None and disputed else None
        return safe_offline_until(
            actor.channel.terms,
            now_ms // 1000,
            thin=self._thin.get(actor.id, (0, 0, bool(actor.state.body.positions)))[2],
            refuting=self._node.towers.refuting(actor),
            deadline=dispute.deadline if dispute else 0,
            overtaken=dispute is not None and dispute.version < actor.state.version,
        )
