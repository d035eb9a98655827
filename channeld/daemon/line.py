"""The sequencer's line: operations that wait for a batch, the batches that are out, and what becomes of them.

Rules: operations are proposed in the order in which they came, as many in a batch as go together and as many batches as
the window holds; a MARK, DEPOSIT or CLOSE comes before the others, and goes when nothing else is outstanding, since the
peer may refuse it for reasons that the others do not share. What this desk would not sign it does not propose: a batch
is applied once, judged at our own prices, and signed as it was judged. Where a batch of several is refused, here or by
the peer, its operations are tried one by one; what was built on a refused one is proposed again. No new proposal while
one is unanswered for longer than `proposal_timeout_ms`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import structlog

from channeld.core.acceptance import check_acceptance, nothing_at_risk
from channeld.core.channel import Agreed, ProposeBatch, Step, holds_up, outstanding_bytes, step
from channeld.core.channel.values import MAX_OUTSTANDING_BYTES, NotReadyError
from channeld.core.errors import ChanneldError, InternalError
from channeld.core.operations import Batch, CloseChannel, Deposit, Mark, Operation, encode_batch
from channeld.core.transition import Applied, apply
from channeld.daemon.offer_book import retrieved
from channeld.daemon.runner import Runner
from channeld.daemon.services import NoAnswerError
from channeld.desk.offers import OfferRefusedError

if TYPE_CHECKING:
    from channeld.core.channel import Half
    from channeld.core.risk_arrays import Standing
    from channeld.core.state import Body

log = structlog.get_logger(__name__)

MOST_OPERATIONS = 128
# proposals made in one go before the loop has its turn, so that what is signed is on its way meanwhile
MOST_AT_ONCE = 8
# a MARK is exempt from the margin check, a CLOSE must be its channel's last, a DEPOSIT may be early for the peer
ALONE = (Mark, CloseChannel, Deposit)


class _WindowFullError(NotReadyError):
    """What is outstanding leaves no room for this batch; it goes once some of it is answered."""


@dataclass
class Queued:
    """(sequencer) An operation that waits for a batch. valid_until_ms: of the offer that it came from, else 0.

    A cancelled future takes it out of the line again, as long as it has not been proposed. alone: in a batch of its
    own.
    """

    operation: Operation
    done: asyncio.Future[int]
    valid_until_ms: int = 0
    alone: bool = False

    @property
    def first(self) -> bool:
        """Whether it goes before the others, and by itself."""
        return type(self.operation) in ALONE


@dataclass(slots=True)
class Flight:
    """The operations of a proposal that is out, and when it was made (milliseconds)."""

    operations: list[Queued]
    since_ms: int


@dataclass
class Line(Runner):
    """A channel with its line of operations."""

    queue: deque[Queued] = field(default_factory=deque)
    flying: dict[int, Flight] = field(default_factory=dict)
    most_operations: int = MOST_OPERATIONS
    proposal_timeout_ms: int = 5_000
    proposed_at_ms: int = 0
    """When the oldest proposal that is outstanding was made, or the last answer came."""

    def enqueue(self, operation: Operation, valid_until_ms: int = 0, *, alone: bool = False) -> asyncio.Future[int]:
        """(sequencer) Put an operation in line; the future gives the version that holds it, or the error.

        Cancelling the future takes the operation out of the line, unless it has been proposed already.
        """
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.add_done_callback(retrieved)
        frozen = self.effects.working.frozen
        if frozen:
            future.set_exception(self.broken or NotReadyError(f"the channel is frozen: {frozen}"))
            return future
        queued = Queued(operation, future, valid_until_ms, alone or isinstance(operation, ALONE))
        if queued.first:
            ahead = next((n for n, q in enumerate(self.queue) if not q.first), len(self.queue))
            self.queue.insert(ahead, queued)
        else:
            self.queue.append(queued)
        return future

    def proposed(self, future: asyncio.Future[int]) -> bool:
        """Whether the operation of a future is in a proposal that has no answer yet."""
        return any(queued.done is future for flight in self.flying.values() for queued in flight.operations)

    async def submit(self, operation: Operation, wait_s: float | None = None) -> int:
        """(sequencer) Have an operation of our own co-signed; the version that holds it.

        Raises:
            NoAnswerError: not within wait_s. What had not been proposed by then never will be.
            ChanneldError: refused here or by the peer.
        """
        future = self.enqueue(operation)
        try:
            async with asyncio.timeout(wait_s):
                await self.pump()
                return await asyncio.shield(future)
        except TimeoutError:
            if self.proposed(future):
                raise NoAnswerError("it is proposed and signed by us; the peer may still sign it") from None
            why = holds_up(self.effects.working) or "its turn"
            raise NoAnswerError(f"it was not proposed, and will not be: the channel waits for {why}") from None
        finally:
            future.cancel()

    async def pump(self) -> None:
        """Propose what waits, if the channel is free."""
        await self.tasks.whole(self._pumped())

    async def _pumped(self) -> None:
        async with self.lock:
            try:
                await self._go_on()
            finally:
                self.flush()

    def _free(self) -> bool:
        """Whether the head of the line may be proposed now."""
        channel = self.effects.working
        if not channel.sequencer or self.broken is not None or holds_up(channel) or self.services.hold():
            return False
        if not channel.proposals:
            return True
        if self.services.clock.now_ms() - self.proposed_at_ms > self.proposal_timeout_ms:
            return False
        # what goes by itself is the only one out
        return not self.queue[0].first and not (len(self.flying) == 1 and self._only_out().first)

    def _only_out(self) -> Queued:
        return next(iter(self.flying.values())).operations[0]

    async def _go_on(self) -> None:
        made = 0
        while self.queue and self._free():
            if made == MOST_AT_ONCE:
                asyncio.get_running_loop().call_soon(self._pump_soon)
                return
            chosen = self._choose()
            if chosen:
                if not await self._propose(chosen):
                    return
                self.flush()
                made += 1

    def _pump_soon(self) -> None:
        self.tasks.start(self._pumped())

    def _lapsed(self, queued: Queued, now_ms: int) -> bool:
        """Whether its caller has gone, or the life of its offer has ended."""
        if queued.valid_until_ms and queued.valid_until_ms < now_ms and not queued.done.done():
            queued.done.set_exception(OfferRefusedError("the offer's life ended before it could be proposed"))
        return queued.done.done()

    def _choose(self) -> list[Queued]:
        """The head of the line as one batch; what is over is taken out."""
        now, queue = self.services.clock.now_ms(), self.queue
        chosen: list[Queued] = []
        while queue and len(chosen) < self.most_operations:
            if self._lapsed(queue[0], now):
                queue.popleft()
                continue
            if chosen and (chosen[0].alone or queue[0].alone):
                break
            chosen.append(queue.popleft())
        return chosen

    async def _propose(self, chosen: list[Queued]) -> bool:
        """Propose these as one batch; where that cannot be, those that can, and tell the others why.

        Returns:
            whether it makes sense to go on with the line now.
        """
        made: Step | None = None
        try:
            made = await self._tried([q.operation for q in chosen])
        except _WindowFullError:
            self.queue.extendleft(reversed(chosen))
            return False
        except ChanneldError as error:
            if len(chosen) == 1:
                self._refuse(chosen[0], error)
                return True
            chosen = await self._one_by_one(chosen)
            made = await self._tried([q.operation for q in chosen]) if chosen else None
        except Exception as error:
            # a bug must not leave callers waiting for ever
            log.exception("a batch could not be tried", channel=self.id.hex()[:8])
            for queued in chosen:
                self._refuse(queued, InternalError(f"it could not be tried: {type(error).__name__}"))
        if made is None:
            return True
        if any(q.done.done() for q in chosen):
            # whoever gave up while it was tried is taken at their word
            self.queue.extendleft(q for q in reversed(chosen) if not q.done.done())
            return True
        await self._send_out(chosen, made)
        return True

    async def _send_out(self, chosen: list[Queued], made: Step) -> None:
        now = self.services.clock.now_ms()
        channel = self.effects.working
        version = channel.tip.version + 1
        self.flying[version] = Flight(chosen, now)
        if not channel.proposals:
            self.proposed_at_ms = now
        try:
            await self._take(made)
        except ChanneldError as error:
            # told to whoever asked; the peer, whose message may have led here, has no part in it
            log.warning("not proposed", channel=self.id.hex()[:8], version=version, why=str(error))
            self._land(version, error)

    def _refuse(self, queued: Queued, error: ChanneldError) -> None:
        if not queued.done.done():
            queued.done.set_exception(error)

    async def _one_by_one(self, queued: list[Queued]) -> list[Queued]:
        kept: list[Queued] = []
        for item in queued:
            if item.done.done():
                continue
            try:
                await self._tried([*(q.operation for q in kept), item.operation])
            except ChanneldError as error:
                self._refuse(item, error)
            else:
                kept.append(item)
        return [item for item in kept if not item.done.done()]

    async def _tried(self, operations: list[Operation]) -> Step:
        """The step that proposes these operations, if the machine makes it and our own margin check passes."""
        channel = self.effects.working
        now = max(self.services.clock.now_ms(), self._newest_ms())
        batch = Batch(now, self.services.salt(), tuple(operations))
        raw = encode_batch(batch)
        if channel.proposals and outstanding_bytes(channel) + len(raw) > MAX_OUTSTANDING_BYTES:
            raise _WindowFullError("it waits for the peer's signatures: one message must hold all that is outstanding")
        made = step(channel, ProposeBatch(raw, batch))
        draft = made.channel.draft
        if draft is None:
            raise InternalError("a batch was taken without a state of it")
        if not nothing_at_risk(channel.tip.body, draft.applied.state.body):
            await self._margin(channel.tip.body, draft.applied)
        return made

    def _newest_ms(self) -> int:
        """The time of the newest batch, agreed or out."""
        proposals = self.effects.working.proposals
        return max(self.last_time_ms, proposals[-1].applied.batch.time_ms) if proposals else self.last_time_ms

    async def _margin(self, before: Body, applied: Applied) -> tuple[Standing, Standing] | None:
        operations = applied.batch.operations
        if len(operations) == 1 and type(operations[0]) in ALONE:
            return None
        terms = self.first.terms
        prices = await self.book.prices(terms, before, applied.batch.time_ms)
        standings = check_acceptance(terms, before, applied.state.body, operations, prices)
        self.own.check(terms, before, applied.state.body, operations, prices)
        return standings

    async def rehearse(self, operations: tuple[Operation, ...]) -> tuple[Applied, tuple[Standing, Standing] | None]:
        """What operations would lead to from our tip, and both parties' margin then, at our own prices.

        Raises:
            ChanneldError: they break a rule of the protocol, or a party would stand below its margin.
        """
        before = self.effects.working.tip
        batch = Batch(max(self.services.clock.now_ms(), self._newest_ms()), b"\0" * 16, operations)
        applied = apply(self.first.terms, before, encode_batch(batch), before.version + 1)
        return applied, await self._margin(before.body, applied)

    # ------------------------------------------------------------------------------------------------- the answer

    def _agreed(self, event: Agreed) -> None:
        super()._agreed(event)
        now = self.services.clock.now_ms()
        flight = self.flying.get(event.applied.state.version)
        if flight is not None:
            self.services.updated((now - flight.since_ms) / 1000)
        self.proposed_at_ms = now
        self._land(event.applied.state.version, None)
        if event.voided:
            error = OfferRefusedError(f"the peer refused: {event.reason}", peer_code=event.code)
            again: list[Queued] = []
            for half in event.voided:
                again.extend(self._void(half, error, event.rejected))
            self.queue.extendleft(reversed(again))

    def _land(self, version: int, error: ChanneldError | None) -> None:
        flight = self.flying.pop(version, None)
        for queued in flight.operations if flight is not None else ():
            if not queued.done.done():
                if error is None:
                    queued.done.set_result(version)
                else:
                    queued.done.set_exception(error)

    def _void(self, half: Half, error: ChanneldError, rejected: int) -> list[Queued]:
        """What of a voided proposal is to be proposed again: all that was built on a refused one, for it has no fault.

        A refused batch of several operations is proposed again one by one: one must not take down the others.
        """
        flight = self.flying.get(half.version)
        if flight is None:
            return []
        if rejected and half.version != rejected:
            del self.flying[half.version]
            return flight.operations
        if len(flight.operations) < 2:
            self._land(half.version, error)
            return []
        del self.flying[half.version]
        return [replace(queued, alone=True) for queued in flight.operations]

    def _fail_waiting(self, error: ChanneldError) -> None:
        waiting = [*self.queue, *(queued for flight in self.flying.values() for queued in flight.operations)]
        self.queue.clear()
        self.flying.clear()
        for queued in waiting:
            self._refuse(queued, error)
        super()._fail_waiting(error)
