"""MARKs as the sequencer: when one is due, and what is told where none can be made.

Rules: one MARK at a time for a channel. A MARK that the oracle blocks is tried again after a pause, and is an alert
once it has been blocked for longer than a mark is due. Besides the interval, a MARK is due as soon as what is unsettled
at the newest prints exceeds a tenth of the smaller balance, and when something has expired.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from channeld.core.channel import holds_up
from channeld.core.errors import ChanneldError, OracleError
from channeld.core.operations import Mark
from channeld.core.refusals import NegativeBalanceError
from channeld.core.transition import is_expired
from channeld.core.valuation import profit, to_units
from channeld.desk.marks import MarkBlockedError, build_mark

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from channeld.daemon.actor import Actor

log = structlog.get_logger(__name__)

AGAIN_MS = 1_000


TENTH = 10


def much_unsettled(actor: Actor, t: int) -> bool:
    """Whether the profit since the marks, at the newest prints and time t (seconds), exceeds a tenth of a balance."""
    body, spots = actor.state.body, actor.book.spots
    if any(p.instrument.feed not in spots for p in body.positions):
        return False
    gain = to_units(
        profit(body, [spots[p.instrument.feed] for p in body.positions], t), actor.channel.terms, body.collateral_mark
    )
    return abs(gain) * TENTH > min(body.a.balance, body.b.balance)


def mark_due(actor: Actor, now_ms: int, interval_s: int, *, unsettled: bool = False) -> bool:
    """Whether the sequencer should mark: the interval has passed, something has expired, or much is unsettled."""
    body = actor.state.body
    channel = actor.channel
    if not channel.sequencer or not body.positions or actor.services.hold():
        return False
    # what is outstanding does not matter: a MARK takes its turn before all that waits in line
    held = holds_up(actor.effects.working)
    if held and not actor.effects.working.proposals:
        return False
    if any(isinstance(q.operation, Mark) for q in actor.queue):
        return False
    tick = actor.book.latest_tick(now_ms)
    expired = any(is_expired(p.instrument, tick) for p in body.positions)
    return tick > body.as_of and (expired or unsettled or now_ms // 1000 - body.as_of >= interval_s)


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
            operation = build_mark(terms, body, t, material, actor.surface, actor.channel.side, actor.peer_bands)
        except MarkBlockedError as error:
            blocked = blocked or error
            continue
        return await actor.submit(operation, wait_s)
    raise blocked or MarkBlockedError("the book is marked at the newest tick already")


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
    _seen: tuple[object, ...] = ()
    _much: bool = False

    def look(self, now_ms: int) -> None:
        """Begin a MARK where one is due and none is on its way."""
        if (self.task is not None and not self.task.done()) or now_ms < self._again_ms:
            return
        if mark_due(self.actor, now_ms, self.interval_s, unsettled=self._unsettled()):
            self.task = asyncio.create_task(self._mark())

    def _unsettled(self) -> bool:
        """`much_unsettled`, computed once for each state and print."""
        actor = self.actor
        key = (actor.state.version, tuple(sorted(actor.book.printed.items())))
        if key != self._seen:
            self._seen = key
            newest = max(actor.book.printed.values(), default=0)
            self._much = newest > actor.state.body.as_of and much_unsettled(actor, newest)
        return self._much

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
