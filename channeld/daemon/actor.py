"""One channel at work: its machine, its line of operations, and the offers that the two desks make each other.

Rules: those of runner.py (inputs, durability) and line.py (proposing). An offer's new status is durable before it is
acted on; what was agreed to is put into a state once, by the sequencer.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from channeld.core import wire
from channeld.core.channel import Agreed, Connected, Disconnected, holds_up
from channeld.core.channel.values import NotReadyError
from channeld.core.errors import ChanneldError
from channeld.core.operations import Deposit
from channeld.daemon.by_policy import check_price
from channeld.daemon.line import Line
from channeld.desk.offers import OfferRecord, OfferRefusedError, Status, UnknownOfferError, operation_key

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from channeld.core import records
    from channeld.core.operations import Operation
    from channeld.core.risk_arrays import Standing
    from channeld.core.transition import Applied

DEPOSIT_AGAIN_MS = 250
DEPOSIT_AGAIN_MOST_MS = 30_000


@dataclass
class Actor(Line):
    """A channel of this desk."""

    _deposit_again: tuple[int, int] = field(default=(0, DEPOSIT_AGAIN_MS))

    async def consider(self, operations: tuple[Operation, ...]) -> tuple[Applied, tuple[Standing, Standing] | None]:
        """Rehearse what somebody decides on now, its price included.

        Raises:
            ChanneldError: as `rehearse`.
            BeyondPolicyError: it gives away more than the policy with this peer ever allows.
        """
        found = await self.rehearse(operations)
        await check_price(self, operations, self.services.clock.now_ms())
        return found

    # ------------------------------------------------------------------------------------------------- offers

    def _resend_offers(self) -> None:
        """On a new session what we offered and was not settled is offered again; the receiver knows it by its id."""
        now = self.services.clock.now_ms()
        for offer in self.offers:
            if offer.ours and offer.status is Status.PENDING and offer.valid_until_ms > now:
                self.services.post(self.peer, wire.Offer(self.id, offer.raw), b"")

    async def offer(self, offer: OfferRecord) -> asyncio.Future[int]:
        """Make an offer of ours durable and send it; the future gives the version, or the peer's refusal.

        Raises:
            SameRequestError: the same operation is on its way already.
        """
        future = self.offers.expect(offer)
        try:
            await self.offers.keep(offer)
        except ChanneldError as error:
            self.offers.fail(offer.key, error)
            raise
        self.services.post(self.peer, wire.Offer(self.id, offer.raw), b"")
        return future

    async def offer_answered(self, reply: wire.OfferReply) -> None:
        """The peer agrees to an offer of ours, or refuses it. An answer after the offer's life changes nothing."""
        offer = self.offers.by_id(reply.offer)
        if offer is None or not offer.ours or offer.status is not Status.PENDING:
            return
        if reply.code:
            await self.offers.keep(offer.at(Status.REFUSED))
            self.offers.fail(offer.key, OfferRefusedError(f"the peer refused: {reply.reason}", peer_code=reply.code))
            return
        if offer.valid_until_ms < self.services.clock.now_ms():
            return
        await self.offers.keep(offer.at(Status.AGREED))
        if self.channel.sequencer:
            self.enqueue_agreed(offer)
            await self.pump()

    def enqueue_agreed(self, offer: OfferRecord) -> asyncio.Future[int]:
        """(sequencer) Put an offer that is agreed in line; whoever made it is told where it cannot be done."""
        future = self.enqueue(offer.operation, offer.valid_until_ms)
        if offer.ours:
            future.add_done_callback(lambda f: self._pass_on(offer.key, f))
        else:
            future.add_done_callback(lambda f: self._tell_refused(offer, f))
        return future

    def _pass_on(self, key: bytes, future: asyncio.Future[int]) -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, ChanneldError):
            self.offers.fail(key, error)

    async def agree_to(self, offer: OfferRecord, also: Sequence[records.Write] = ()) -> asyncio.Future[int] | None:
        """Agree to a peer's offer: as the sequencer put it in line, as the follower sign it once it is proposed.

        also: what becomes durable together with the agreement.

        Raises:
            UnknownOfferError: it has been answered already, or its life is over.
            NotReadyError: the channel is frozen.
        """
        known = self.offers.get(offer.key)
        # an earlier offer of the same operation (a withdrawal, a close) that is over stands in the way of nothing
        same = known is not None and (known.id == offer.id or known.status is Status.AGREED)
        if known is not None and same and known.status is not Status.PENDING:
            raise UnknownOfferError(f"the offer {offer.id.hex()} is {known.status} already")
        if offer.valid_until_ms < self.services.clock.now_ms():
            raise UnknownOfferError(f"the life of the offer {offer.id.hex()} is over")
        frozen = self.effects.working.frozen
        if frozen:
            raise NotReadyError(f"the channel is frozen: {frozen}")
        await self.offers.keep(offer.at(Status.AGREED), also)
        future = None
        if self.channel.sequencer:
            future = self.enqueue_agreed(offer)
        self.services.post(self.peer, wire.OfferReply(self.id, offer.id, 0, ""), b"")
        if self.channel.sequencer:
            await self.pump()
        return future

    def _tell_refused(self, offer: OfferRecord, future: asyncio.Future[int]) -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, ChanneldError) and self.broken is None:
            self.tasks.start(self.refuse_offer(offer, error))

    async def refuse_offer(self, offer: OfferRecord, error: ChanneldError) -> None:
        """Refuse a peer's offer with a reason."""
        await self.offers.keep(offer.at(Status.REFUSED))
        await self.reply_refused(offer.id, error)

    async def reply_refused(self, offer_id: bytes, error: ChanneldError) -> None:
        """Tell the peer why an offer is refused."""
        reason = str(error)[: wire.MAX_TEXT]
        self.services.post(self.peer, wire.OfferReply(self.id, offer_id, error.code or 1, reason), b"")

    async def expire_offers(self, now_ms: int) -> None:
        """Forget what is over: in the line, and among the offers."""
        if not self.queue and not self.offers.records:
            return
        if any(self._lapsed(queued, now_ms) for queued in self.queue):
            self.queue = deque(queued for queued in self.queue if not queued.done.done())
        await self.offers.expire(
            now_ms, {operation_key(q.operation) for f in self.flying.values() for q in f.operations}
        )

    # ------------------------------------------------------------------------------------------------- housekeeping

    async def session(self, *, up: bool) -> None:
        """A session with the peer stands, or is gone. Told twice, it is heard once."""
        if self.broken is None and up != self.effects.working.connected:
            self.proposed_at_ms = self.services.clock.now_ms()
            await self.feed(Connected() if up else Disconnected())

    def chain_deposits(self, total_a: int, total_b: int) -> None:
        """Deposits final on our chain; as the sequencer acknowledge what is new, without holding up the caller."""
        self.deposits = (total_a, total_b)
        tip = self.effects.working.tip.body
        new = total_a > tip.a.deposited or total_b > tip.b.deposited
        now = self.services.clock.now_ms()
        again, pause = self._deposit_again
        if not self.channel.sequencer or not new or now < again or holds_up(self.effects.working):
            return
        if any(isinstance(q.operation, Deposit) for q in self.queue):
            return
        # where the peer has not seen the deposit final yet it refuses; it is asked again, less and less often
        self._deposit_again = (now + pause, min(2 * pause, DEPOSIT_AGAIN_MOST_MS))
        self.enqueue(Deposit(self.channel.side, max(total_a, tip.a.deposited), max(total_b, tip.b.deposited)))
        self.tasks.start(self._pumped())

    def _agreed(self, event: Agreed) -> None:
        super()._agreed(event)
        if any(type(op) is Deposit for op in event.applied.batch.operations):
            self._deposit_again = (0, DEPOSIT_AGAIN_MS)
