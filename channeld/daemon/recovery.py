"""A desk that has lost states: when it may go on, and what people hear of it. The rules are core/channel/recovery.py's.

Rules: no Close that this desk may have signed and forgotten can still be used when it signs again, so a desk that has
lost states waits for CLOSE_LIFETIME_S and the tolerance of clocks, from its start or from the moment it finds out. The
chain is asked before: where it shows a version above every body that could be found, nothing is signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from channeld.core.channel import DeclareLoss, Recover
from channeld.core.channel.exits import CLOSE_LIFETIME
from channeld.core.channel.recovery import leap_version
from channeld.core.channel.values import LEAP
from channeld.core.operations import Batch, encode_batch

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from channeld.core.channel import Lost
    from channeld.daemon.runner import Runner

log = structlog.get_logger(__name__)

RESTORED = "restored"
WAIT_MS = (CLOSE_LIFETIME + 10) * 1000
ASK_AGAIN_MS = 10_000


@dataclass
class Recovery:
    """Where one channel stands. Milliseconds of the desk's clock; 0 for not yet."""

    since_ms: int = 0
    asked_ms: int = 0

    async def told(self, actor: Runner, event: Lost) -> None:
        """The machine finds that states are lost, or says so again in a new session."""
        now = actor.services.clock.now_ms()
        if self.since_ms:
            return
        self.since_ms = now
        actor.previous = event.latest.body
        log.warning("states are lost", channel=actor.id.hex()[:8], held=event.held, found=event.latest.version)
        await actor.services.emit(
            "alert",
            actor.id,
            severity="critical",
            cause="lost states",
            code=event.error.code,
            message=f"{event.error}; nothing is signed for {WAIT_MS // 60_000} minutes, then both desks go on above it",
        )

    async def look(self, actor: Runner, now_ms: int, seen: int) -> None:
        """Go on where it is time. seen: the highest version that the chain or a tower shows."""
        channel = actor.channel
        if not channel.lost:
            self.since_ms = 0
            return
        self.since_ms = self.since_ms or now_ms
        ready = channel.synced and not channel.frozen and channel.closing is None and channel.draft is None
        if not ready or now_ms < max(self.since_ms + WAIT_MS, self.asked_ms + ASK_AGAIN_MS):
            return
        self.asked_ms = now_ms
        batch = encode_batch(Batch(max(now_ms, actor.last_time_ms), actor.services.salt(), ()))
        if seen <= channel.latest.state.version and leap_version(batch) < channel.latest.state.version + LEAP:
            return  # the last recovery is less than 35 minutes old
        await actor.feed(Recover(batch, seen))


async def declare_restored(folder: Path, actors: Iterable[Runner]) -> None:
    """Where `channeld run --restored` has left its mark, every channel that lives is told that its records are old."""
    mark = folder / RESTORED
    if not mark.exists():
        return
    for actor in actors:
        if actor.record.status != "closed":
            await actor.feed(DeclareLoss("the operator says that the database is an older copy"))
    # gone only now that all of it is durable
    mark.unlink()
