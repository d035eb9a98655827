"""MARKs as the sequencer: when one is due, and what is told where none can be made.

Rules: one MARK at a time for a channel. A MARK that the oracle blocks is tried again after a pause, and is an alert
once it has been blocked for longer than a mark is due; the desk's own vols and carries move no further in one MARK than
the band that desks have by default.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from channeld.core.channel import waiting_for
from channeld.core.errors import ChanneldError, OracleError
from channeld.core.operations import Mark
from channeld.core.refusals import NegativeBalanceError
from channeld.core.transition import is_expired
from channeld.desk.marks import MarkBlockedError, Surface, build_mark
from channeld.desk.policy import DEFAULT_CARRY_BAND, DEFAULT_VOL_BAND

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from channeld.core.state import Body
    from channeld.daemon.actor import Actor

log = structlog.get_logger(__name__)

AGAIN_MS = 1_000


def mark_due(actor: Actor, now_ms: int, interval_s: int) -> bool:
    """Whether the sequencer should mark: the interval has passed, or something has expired."""
    body = actor.state.body
    channel = actor.channel
    if not channel.sequencer or not body.positions or waiting_for(channel) or actor.services.hold():
        return False
    if any(isinstance(q.operation, Mark) for q in actor.queue):
        return False
    tick = actor.book.latest_tick(now_ms)
    expired = any(is_expired(p.instrument, tick) for p in body.positions)
    return tick > body.as_of and (expired or now_ms // 1000 - body.as_of >= interval_s)


async def mark(actor: Actor, wait_s: float | None = None) -> int:
    """(sequencer) MARK at the newest tick that has prints; the version that holds it.

    Raises:
        MarkBlockedError: the oracle has nothing to mark by.
        NoAnswerError: the peer did not answer within wait_s.
    """
    body, terms = actor.state.body, actor.channel.terms
    newest = actor.book.latest_tick(actor.services.clock.now_ms())
    blocked: MarkBlockedError | None = None
    for t in (newest, newest - terms.oracle.tick):
        if t < body.as_of:
            break
        material = await actor.book.material(terms, body, t)
        try:
            operation = build_mark(terms, body, t, material, banded(actor.surface, body), actor.channel.side)
        except MarkBlockedError as error:
            blocked = blocked or error
            continue
        return await actor.submit(operation, wait_s)
    raise blocked or MarkBlockedError("the book is marked at the newest tick already")


def banded(surface: Surface, body: Body) -> Surface:
    """A desk's own vols and carries, no further from the agreed ones than the default band: more takes more MARKs."""
    vols: dict[tuple[bytes, int, int], int] = {}
    carries: dict[tuple[bytes, int], int] = {}
    for p in body.positions:
        i = p.instrument
        vol = surface.vols.get((i.feed, i.expiry, i.strike))
        if vol is not None:
            vols[i.feed, i.expiry, i.strike] = min(max(vol, p.vol - DEFAULT_VOL_BAND), p.vol + DEFAULT_VOL_BAND)
        carry = surface.carries.get((i.feed, i.expiry))
        if carry is not None:
            low, high = p.carry - DEFAULT_CARRY_BAND, p.carry + DEFAULT_CARRY_BAND
            carries[i.feed, i.expiry] = min(max(carry, low), high)
    return Surface(vols, carries)


@dataclass
class Marker:
    """Marks one channel whenever it is due. interval_s and wait_s: how often, and how long the peer may take."""

    actor: Actor
    interval_s: int
    wait_s: float
    negative: Callable[[Actor], Awaitable[None]] | None = None
    task: asyncio.Task[None] | None = None
    _again_ms: int = 0
    _blocked_since_ms: int = 0
    _told: bool = False

    def look(self, now_ms: int) -> None:
        """Begin a MARK where one is due and none is on its way."""
        if (self.task is not None and not self.task.done()) or now_ms < self._again_ms:
            return
        if mark_due(self.actor, now_ms, self.interval_s):
            self.task = asyncio.create_task(self._mark())

    async def _mark(self) -> None:
        name = self.actor.id.hex()[:8]
        try:
            await mark(self.actor, self.wait_s)
            self._blocked_since_ms, self._told = 0, False
        except OracleError as error:
            await self._blocked(error)
        except ChanneldError as error:
            self._again_ms = self.actor.services.clock.now_ms() + AGAIN_MS
            if isinstance(error, NegativeBalanceError) and self.negative is not None:
                await self.negative(self.actor)
            log.warning("no mark", channel=name, why=str(error), code=error.code)
        except Exception:
            self._again_ms = self.actor.services.clock.now_ms() + AGAIN_MS
            log.exception("marking failed", channel=name)

    async def _blocked(self, error: OracleError) -> None:
        now = self.actor.services.clock.now_ms()
        self._again_ms = now + AGAIN_MS
        self._blocked_since_ms = self._blocked_since_ms or now
        log.info("no mark", channel=self.actor.id.hex()[:8], why=str(error))
        if not self._told and now - self._blocked_since_ms > self.interval_s * 1000:
            self._told = True
            await self.actor.services.emit(
                "alert", self.actor.id, severity="warning", code=error.code, message=f"no MARK can be made: {error}"
            )
