"""What is due by the clock in each channel, and what a person must hear of: silent peers, unanswered proposals, oracle.

Rules: each channel has its own turn, so that a slow one does not hold up the others. An alert is given once for each
time that its cause begins, and again when it has gone and come back.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from channeld.core.errors import ChanneldError
from channeld.core.terms import feed_symbol
from channeld.daemon.marking import Marker
from channeld.daemon.metrics import channel_label

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from channeld.daemon.actor import Actor
    from channeld.daemon.node import Node

log = structlog.get_logger(__name__)

CHALLENGE_AGAIN_MS = 10_000
# channels that have their turn at one tick
MOST_TURNS = 100
STATUSES = ("opening", "open", "disputed", "closed")


class Watch:
    """Looks after the channels of one node."""

    def __init__(self, node: Node) -> None:
        """Nothing is watched before the first tick."""
        self._node = node
        self._turns: dict[bytes, asyncio.Task[None]] = {}
        self._markers: dict[bytes, Marker] = {}
        self._challenges: dict[bytes, asyncio.Task[None]] = {}
        self._challenge_again_ms: dict[bytes, int] = {}
        self._next = 0
        self._told: set[tuple[bytes, str]] = set()

    def tasks(self) -> list[asyncio.Task[None]]:
        """What runs now; for shutdown."""
        marking = [m.task for m in self._markers.values() if m.task is not None]
        return [*self._turns.values(), *self._challenges.values(), *marking]

    def tick(self, now_ms: int) -> None:
        """Give channels their turn, unless their last one still runs: all of them, or of very many some at each tick.

        So that a desk with a thousand channels does not spend its time looking whether something is due.
        """
        alive = [(channel, actor) for channel, actor in self._node.actors.items() if actor.record.status != "closed"]
        if len(alive) > MOST_TURNS:
            self._next %= len(alive)
            alive = [*alive[self._next :], *alive[: self._next]][:MOST_TURNS]
            self._next += MOST_TURNS
        for channel, actor in alive:
            running = self._turns.get(channel)
            if running is None or running.done():
                self._turns[channel] = asyncio.create_task(self._turn(actor, now_ms))

    async def _turn(self, actor: Actor, now_ms: int) -> None:
        # called one by one: a stop in between leaves none begun and never awaited
        works = (self._offers, self._recovery, self._proposal, self._peer, self._oracle, self._mark)
        for work in (self._node.marks.look, *works, self._margin, self._node.expiries.look, self._node.offline.measure):
            await self._quietly(actor, work(actor, now_ms))

    async def _quietly(self, actor: Actor, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except ChanneldError as error:
            log.warning("a tick failed", channel=actor.id.hex()[:8], code=error.code, why=str(error))
        except Exception:
            log.exception("a tick failed", channel=actor.id.hex()[:8])

    async def _once(self, actor: Actor, what: str, *, holds: bool, severity: str = "warning", message: str) -> None:
        """An alert when a cause begins."""
        key = (actor.id, what)
        if not holds:
            self._told.discard(key)
        elif key not in self._told:
            self._told.add(key)
            await self._node.emit("alert", actor.id, severity=severity, cause=what, message=message)

    def peer_is_back(self, channel: bytes) -> None:
        """A session stands again: a silence after it is another one, however soon it begins."""
        self._told.discard((channel, "unreachable peer"))

    # ------------------------------------------------------------------------------------------------- what is due

    async def _offers(self, actor: Actor, now_ms: int) -> None:
        await actor.expire_offers(now_ms)
        if actor.queue:
            await actor.pump()

    async def _recovery(self, actor: Actor, now_ms: int) -> None:
        """Lost states: the chain has been asked, or nothing is done."""
        known = self._node.chain.known.get(actor.id)
        if known is None or known.record is None or self._node.chain.stale(actor.id):
            return
        seen = max(known.record.floor_version, self._node.towers.shown.get(actor.id, 0))
        await actor.recovery.look(actor, now_ms, seen)
        if actor.channel.lost and seen > actor.state.version:
            self._go_to_chain(actor, now_ms)

    async def _mark(self, actor: Actor, now_ms: int) -> None:
        marker = self._markers.get(actor.id)
        if marker is None:
            settings = self._node.config.channel
            marker = Marker(
                actor, int(settings.mark_interval), settings.proposal_timeout * 4, self._node.margin.mark_negative
            )
            self._markers[actor.id] = marker
        marker.look(now_ms)

    async def _margin(self, actor: Actor, now_ms: int) -> None:
        await self._node.margin.look(actor, now_ms)

    async def _proposal(self, actor: Actor, now_ms: int) -> None:
        outstanding = actor.channel.proposals if actor.channel.sequencer else ()
        waited = now_ms - actor.proposed_at_ms
        holds = bool(outstanding) and actor.channel.synced and not actor.channel.frozen
        version = outstanding[0].version if outstanding else 0
        await self._once(
            actor,
            "unanswered proposal",
            holds=holds and waited > self._node.config.channel.proposal_timeout * 1000,
            message=f"version {version} is unanswered for {waited / 1000:.0f} s; no new risk is taken",
        )

    async def _peer(self, actor: Actor, now_ms: int) -> None:
        """An unreachable peer is an alert, then, by policy, a challenge."""
        node = self._node
        lost = node.lost_at_ms.get(actor.peer)
        silent_ms = now_ms - lost if lost is not None else 0
        gone = (
            lost is not None and actor.record.status == "open" and silent_ms >= node.config.channel.dispute_after * 1000
        )
        message = f"{node.name(actor.peer)} has been unreachable for {silent_ms // 1000} s"
        await self._once(actor, "unreachable peer", holds=gone, severity="critical", message=message)
        if gone:
            self._go_to_chain(actor, now_ms)

    def _go_to_chain(self, actor: Actor, now_ms: int) -> None:
        """Challenge, where the desk is so configured and there is something to lose."""
        node = self._node
        if node.config.channel.auto_dispute != "challenge" or actor.record.status != "open":
            return
        known = node.chain.known.get(actor.id)
        deposited = (
            known is not None and known.record is not None and known.record.deposited_a + known.record.deposited_b
        )
        running = self._challenges.get(actor.id)
        again = self._challenge_again_ms.get(actor.id, 0)
        if deposited and now_ms >= again and (running is None or running.done()) and not node.chain.stale(actor.id):
            self._challenge_again_ms[actor.id] = now_ms + CHALLENGE_AGAIN_MS
            self._challenges[actor.id] = asyncio.create_task(self._quietly(actor, self._challenge(actor)))

    async def _challenge(self, actor: Actor) -> None:
        try:
            await self._node.chain.disputes.challenge(actor)
        except ChanneldError as error:
            message = f"the challenge failed, and is tried again: {error}"
            await self._once(actor, "challenge fails", holds=True, severity="critical", message=message)
            raise
        self._told.discard((actor.id, "challenge fails"))

    async def _oracle(self, actor: Actor, now_ms: int) -> None:
        """Keep prices warm, capture what has expired, and say when the oracle falls silent."""
        body = actor.state.body
        if not body.positions:
            return
        await actor.book.capture(body, now_ms)
        feeds = sorted({p.instrument.feed for p in body.positions})
        for feed in feeds:
            await actor.book.refresh(feed, now_ms)
        printed = actor.book.printed
        limit = self._node.config.oracle.stale_after
        tick = actor.book.latest_tick(now_ms)
        late = [feed for feed in feeds if tick - printed.get(feed, 0) > limit]
        names = ", ".join(map(feed_symbol, late))
        await self._once(actor, "stale prices", holds=bool(late), message=f"no print of {names} for {limit:.0f} s")

    # ------------------------------------------------------------------------------------------------- gauges

    def gauges(self, now_ms: int) -> None:
        """Read what `GET /metrics` shows."""
        node, metrics = self._node, self._node.metrics
        for address, peer in node.peers.items():
            metrics.peer_connected.labels(peer=peer["name"]).set(node.hub.connected(address))
        metrics.chain_block.set(node.chain.view["block"])
        metrics.chain_age_seconds.set(node.chain.age_s())
        metrics.store_poisoned.set(node.store.poisoned is not None)
        for status in STATUSES:
            count = sum(a.record.status == status for a in node.actors.values())
            metrics.channel_status.labels(status=status).set(count)
        metrics.disputes_open.set(sum(a.record.status == "disputed" for a in node.actors.values()))
        for actor in node.actors.values():
            if actor.record.status == "closed":
                metrics.forget_channel(actor.id)
                continue
            label = channel_label(actor.id)
            metrics.proposals_outstanding.labels(channel=label).set(len(actor.channel.proposals))
            metrics.safe_offline_until.labels(channel=label).set(node.offline.until(actor, now_ms))
            for feed, t in actor.book.printed.items():
                metrics.oracle_age_seconds.labels(feed=feed_symbol(feed)).set(now_ms / 1000 - t)
