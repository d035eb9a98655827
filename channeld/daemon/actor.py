"""One channel at work: runs the machine, carries out its effects in order, and feeds it the desk's operations.

Rules: inputs are handled one after the other under one lock, each to its end even where its caller is cancelled;
Persist is awaited before anything later is done; what an operation changes in the offers is durable in the same commit
as the state that holds it. Without a fresh view of the chain nothing of the peer's is taken, since the answer would be
a signature. A store that fails breaks the channel: it goes back to what was durable before, sends nothing any more,
and is left to the chain.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from channeld.core import records, wire
from channeld.core.acceptance import check_acceptance
from channeld.core.channel import (
    Accepted,
    Agreed,
    Channel,
    Connected,
    Decide,
    Disconnected,
    ExitReady,
    Freeze,
    Frozen,
    Input,
    Lost,
    Notify,
    Persist,
    ProposeBatch,
    Ready,
    Received,
    Refused,
    Send,
    Sign,
    Signed,
    step,
    waiting_for,
)
from channeld.core.channel.values import NotReadyError
from channeld.core.errors import ChainError, ChanneldError, InternalError, StoreError
from channeld.core.operations import Batch, CloseChannel, Deposit, Mark, Operation, decode_batch, encode_batch
from channeld.core.state import genesis
from channeld.core.transition import Applied, apply
from channeld.daemon.judge import View, judge
from channeld.daemon.offer_book import OfferBook, retrieved
from channeld.daemon.recovery import Recovery
from channeld.daemon.services import NoAnswerError
from channeld.desk.bands import Bands
from channeld.desk.marks import Surface
from channeld.desk.offers import OfferRecord, OfferRefusedError, Status, UnknownOfferError, operation_key
from channeld.desk.own_vols import OwnVols
from channeld.desk.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from channeld.core.channel import Half
    from channeld.core.risk_arrays import Standing
    from channeld.core.state import Body, State
    from channeld.daemon.prices import PriceBook
    from channeld.daemon.services import Services

log = structlog.get_logger(__name__)
T = TypeVar("T")

MAX_BATCH_OPERATIONS = 16
LOOK_AGAIN_S = 2.0
DEPOSIT_AGAIN_MS = 250
DEPOSIT_AGAIN_MOST_MS = 30_000
# a MARK is exempt from the margin check, a CLOSE must be its channel's last, a DEPOSIT may be early for the peer
ALONE = (Mark, CloseChannel, Deposit)


@dataclass
class Queued:
    """(sequencer) An operation that waits for a batch. valid_until_ms: of the offer that it came from, else 0.

    A cancelled future takes it out of the line again, as long as it has not been proposed.
    """

    operation: Operation
    done: asyncio.Future[int]
    valid_until_ms: int = 0
    alone: bool = False


@dataclass
class Actor:
    """A channel of this desk."""

    services: Services
    record: records.ChannelRecord
    channel: Channel
    book: PriceBook
    policy: Policy = field(default_factory=Policy)
    surface: Surface = field(default_factory=Surface)
    own: OwnVols = field(default_factory=OwnVols)
    bands: tuple[Bands, ...] = ()
    peer_bands: Bands | None = None
    deposits: tuple[int, int] = (0, 0)
    queue: deque[Queued] = field(default_factory=deque)
    flying: dict[int, list[Queued]] = field(default_factory=dict)
    last_time_ms: int = 0
    previous: Body | None = None
    proposed_at_ms: int = 0
    broken: StoreError | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    offers: OfferBook = field(init=False)
    recovery: Recovery = field(default_factory=Recovery)
    _running: set[asyncio.Task[Any]] = field(default_factory=set)
    _deposit_again: tuple[int, int] = (0, DEPOSIT_AGAIN_MS)

    def __post_init__(self) -> None:
        """Bind the offers to the store."""
        self.offers = OfferBook(self.record.channel, self.services.store.commit)

    @property
    def id(self) -> bytes:
        """The channel's id."""
        return self.channel.id

    @property
    def peer(self) -> bytes:
        """The peer's signer address."""
        return self.record.peer

    @property
    def state(self) -> State:
        """The highest co-signed state."""
        return self.channel.latest.state

    # ------------------------------------------------------------------------------------------------- the machine

    async def _whole(self, work: Coroutine[Any, Any, T]) -> T:
        """Carry work to its end, whatever becomes of the caller: half an input's effects are worse than none."""
        return await asyncio.shield(self.background(work))

    def background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Carry work to its end on its own."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # taken, so that a caller who has gone does not leave a complaint of the loop

    async def finish(self) -> None:
        """Wait for what has begun; for shutdown."""
        while self._running:
            await asyncio.gather(*self._running, return_exceptions=True)

    async def feed(self, event: Input) -> None:
        """Handle one input to its end, then propose what waits.

        Raises:
            PeerError, RuleError: the input was refused; nothing changed.
            StoreError: nothing was sent; the channel is broken.
        """
        await self._whole(self._fed(event))

    async def _fed(self, event: Input) -> None:
        async with self.lock:
            await self._feed(event)
            await self._pump()

    async def _feed(self, event: Input) -> None:
        before = self.channel
        done = step(before, event)
        self.channel = done.channel
        stored = False
        for effect in done.effects:
            match effect:
                case Sign(purpose, version, digest):
                    signature = await self._sign(purpose, version, digest)
                    await self._feed(Signed(purpose, version, signature))
                case Persist(writes):
                    try:
                        with self.services.committing():
                            await self.services.store.commit([*writes, *self._offers_done(writes)])
                    except StoreError as error:
                        await self._break(error, done.channel if stored else before)
                        raise
                    stored = True
                case Send(message):
                    if self.broken is None:
                        await self.services.send(self.peer, message)
                case Decide():
                    await self._feed(await self._judge(effect))
                case Notify(event_of_channel):
                    await self._notify(event_of_channel)

    async def _sign(self, purpose: str, version: int, digest: bytes) -> bytes:
        kind = purpose if purpose in {"withdrawal", "close"} else records.SIGNED_STATE
        if purpose == "close" and self.channel.closing is not None:
            version = self.channel.closing.valid_until
        try:
            leap = purpose in {"leap", "land"}
            return await self.services.signer.sign(self.id, kind, version, digest, leap=leap)
        except ChanneldError as error:
            await self._freeze(f"the signer refused: {error}")
            raise

    async def _break(self, error: StoreError, durable: Channel) -> None:
        """The store failed: what is in memory may be ahead of the disk, so it is taken back, and nothing is sent."""
        self.broken = error
        reason = f"the store failed: {error}"
        self.channel = replace(durable, frozen=reason, connected=False, synced=False, draft=None)
        self._fail_waiting(error)
        await self.services.emit("alert", self.id, severity="critical", message=f"channel frozen: {reason}")

    async def _freeze(self, reason: str) -> None:
        self.channel = step(self.channel, Freeze(reason)).channel
        await self._frozen(reason)

    async def _frozen(self, reason: str) -> None:
        self._fail_waiting(NotReadyError(f"the channel is frozen: {reason}"))
        await self.services.emit("alert", self.id, severity="critical", message=f"channel frozen: {reason}")

    def _fail_waiting(self, error: ChanneldError) -> None:
        """Nothing more will be signed: whoever waits is told at once."""
        waiting = [*self.queue, *(queued for flight in self.flying.values() for queued in flight)]
        self.queue.clear()
        self.flying.clear()
        for queued in waiting:
            if not queued.done.done():
                queued.done.set_exception(error)
        self.offers.fail_all(error)

    def _offers_done(self, writes: tuple[records.Write, ...]) -> list[records.Write]:
        """The offers that batches fulfil are done in the same commit, so that none is ever fulfilled twice."""
        raws = [write.raw for write in writes if isinstance(write, records.PutBatch)]
        found = (self.offers.done(operation_key(op)) for raw in raws for op in decode_batch(raw).operations)
        return [write for write in found if write is not None]

    async def _judge(self, ask: Decide) -> Accepted | Refused:
        now = self.services.clock.now_ms()
        try:
            if ask.half is None:
                raise ask.error or InternalError("a batch without a state and without an error")
            await self._see_deposits(ask.half.applied)
            bands = self.bands or (Bands(vol_band=self.policy.vol_band, carry_band=self.policy.carry_band),)
            view = View(now, self.last_time_ms, self.channel.side, self.offers.records, self.deposits, bands, self.own)
            await judge(self.channel.terms, ask.before, ask.half.applied, view, self.book)
        except ChanneldError as error:
            log.warning(
                "proposal refused", channel=self.id.hex()[:8], version=ask.version, code=error.code, why=str(error)
            )
            await self.services.emit("batch_refused", self.id, version=ask.version, code=error.code, reason=str(error))
            empty = encode_batch(Batch(max(now, self.last_time_ms), self.services.salt(), ()))
            return Refused(ask.version, empty, error.code, str(error)[: wire.MAX_TEXT])
        return Accepted(ask.version)

    async def _see_deposits(self, applied: Applied) -> None:
        """The sequencer may have seen a deposit a moment earlier than we have: look once more before refusing it."""
        for operation in applied.batch.operations:
            if not isinstance(operation, Deposit):
                continue
            if operation.deposited_a > self.deposits[0] or operation.deposited_b > self.deposits[1]:
                with contextlib.suppress(ChainError, TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN_S):
                        self.deposits = await self.services.deposits()

    async def _notify(self, event: Agreed | ExitReady | Ready | Frozen | Lost) -> None:
        match event:
            case Lost():
                await self.recovery.told(self, event)
            case Agreed(applied, voided, code, reason):
                await self._agreed(applied)
                for half in voided:
                    self._void(half, OfferRefusedError(f"the peer refused: {reason}", peer_code=code))
            case ExitReady(document):
                await self.services.exit_ready(self.id, document)
            case Ready():
                await self._resend_offers()
            case Frozen(error, reason):
                log.warning("channel frozen", channel=self.id.hex()[:8], why=reason, code=error.code if error else 0)
                if error is not None:
                    await self._frozen(reason)
                else:
                    # the chain says so, and has its own events and alerts: an ordinary end is none
                    self._fail_waiting(NotReadyError(f"the channel is frozen: {reason}"))

    async def _agreed(self, applied: Applied) -> None:
        now = self.services.clock.now_ms()
        self.last_time_ms = max(self.last_time_ms, applied.batch.time_ms)
        version = applied.state.version
        if version in self.flying:
            self.services.updated((now - self.proposed_at_ms) / 1000)
        self._land(version, None)
        for operation in applied.batch.operations:
            self.offers.land(operation_key(operation), version)
            if isinstance(operation, Deposit):
                self._deposit_again = (0, DEPOSIT_AGAIN_MS)
        before, self.previous = self.previous or genesis(self.id).body, applied.state.body
        await self.services.agreed(self.id, before, applied)
        await self.services.emit(
            "state_signed",
            self.id,
            version=version,
            operations=len(applied.batch.operations),
            as_of=applied.state.body.as_of,
        )

    def _land(self, version: int, error: ChanneldError | None) -> None:
        for queued in self.flying.pop(version, []):
            if not queued.done.done():
                if error is None:
                    queued.done.set_result(version)
                else:
                    queued.done.set_exception(error)

    def _void(self, half: Half, error: ChanneldError) -> None:
        """A refused batch of several operations is proposed again one by one: one must not take down the others."""
        flight = self.flying.get(half.version, [])
        if len(flight) < 2:
            self._land(half.version, error)
            return
        del self.flying[half.version]
        self.queue.extendleft(replace(queued, alone=True) for queued in reversed(flight))

    # ------------------------------------------------------------------------------------------------- proposing

    def enqueue(self, operation: Operation, valid_until_ms: int = 0) -> asyncio.Future[int]:
        """(sequencer) Put an operation in line; the future gives the version that holds it, or the error.

        Cancelling the future takes the operation out of the line, unless it has been proposed already.
        """
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.add_done_callback(retrieved)
        if self.channel.frozen:
            future.set_exception(self.broken or NotReadyError(f"the channel is frozen: {self.channel.frozen}"))
        else:
            self.queue.append(Queued(operation, future, valid_until_ms, isinstance(operation, ALONE)))
        return future

    def proposed(self, future: asyncio.Future[int]) -> bool:
        """Whether the operation of a future is in a proposal that has no answer yet."""
        return any(queued.done is future for flight in self.flying.values() for queued in flight)

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
            raise NoAnswerError(
                f"it was not proposed, and will not be: the channel waits for {waiting_for(self.channel) or 'its turn'}"
            ) from None
        finally:
            future.cancel()

    async def pump(self) -> None:
        """Propose what waits, if the channel is free."""
        await self._whole(self._pumped())

    async def _pumped(self) -> None:
        async with self.lock:
            await self._pump()

    def _free(self) -> bool:
        channel = self.channel
        return channel.sequencer and channel.draft is None and not waiting_for(channel) and not self.services.hold()

    async def _pump(self) -> None:
        while self.queue and self._free():
            chosen = await self._choose()
            if not chosen:
                continue
            now = max(self.services.clock.now_ms(), self.last_time_ms)
            raw = encode_batch(Batch(now, self.services.salt(), tuple(q.operation for q in chosen)))
            version = self.channel.tip.version + 1
            self.flying[version] = chosen
            self.proposed_at_ms = now
            try:
                await self._feed(ProposeBatch(raw))
            except ChanneldError as error:
                # told to whoever asked; the peer, whose message may have led here, has no part in it
                log.warning("not proposed", channel=self.id.hex()[:8], version=version, why=str(error))
                self._land(version, error)

    def _lapsed(self, queued: Queued, now_ms: int) -> bool:
        """Whether its caller has gone, or the life of its offer has ended."""
        if not queued.done.done() and queued.valid_until_ms and queued.valid_until_ms < now_ms:
            queued.done.set_exception(OfferRefusedError("the offer's life ended before it could be proposed"))
        return queued.done.done()

    async def _choose(self) -> list[Queued]:
        """The head of the queue as one batch; what cannot be is taken out and told why."""
        now = self.services.clock.now_ms()
        chosen: list[Queued] = []
        while self.queue and len(chosen) < MAX_BATCH_OPERATIONS:
            if self._lapsed(self.queue[0], now):
                self.queue.popleft()
                continue
            if chosen and (chosen[0].alone or self.queue[0].alone):
                break
            chosen.append(self.queue.popleft())
        try:
            if chosen:
                await self.rehearse(tuple(q.operation for q in chosen))
        except ChanneldError:
            return await self._one_by_one(chosen)
        except Exception as error:
            # a bug must not leave callers waiting for ever
            log.exception("a batch could not be tried", channel=self.id.hex()[:8])
            for queued in chosen:
                if not queued.done.done():
                    queued.done.set_exception(InternalError(f"it could not be tried: {type(error).__name__}"))
            return []
        # whoever gave up while it was tried is taken at their word
        return chosen if not any(q.done.done() for q in chosen) else await self._one_by_one(chosen)

    async def _one_by_one(self, queued: list[Queued]) -> list[Queued]:
        kept: list[Queued] = []
        for item in queued:
            if item.done.done():
                continue
            try:
                await self.rehearse((*(q.operation for q in kept), item.operation))
            except ChanneldError as error:
                if not item.done.done():
                    item.done.set_exception(error)
            else:
                kept.append(item)
        return [item for item in kept if not item.done.done()]

    async def rehearse(self, operations: tuple[Operation, ...]) -> tuple[Applied, tuple[Standing, Standing] | None]:
        """What operations would lead to from our tip, and both parties' margin then, at our own prices.

        Raises:
            ChanneldError: they break a rule of the protocol, or a party would stand below its margin.
        """
        now = max(self.services.clock.now_ms(), self.last_time_ms)
        before = self.channel.tip
        raw = encode_batch(Batch(now, b"\0" * 16, operations))
        applied = apply(self.channel.terms, before, raw, before.version + 1)
        if any(isinstance(op, ALONE) for op in operations):
            return applied, None
        prices = await self.book.prices(self.channel.terms, before.body, now)
        reports = check_acceptance(self.channel.terms, before.body, applied.state.body, operations, prices)
        self.own.check(self.channel.terms, before.body, applied.state.body, operations, prices)
        return applied, reports

    # ------------------------------------------------------------------------------------------------- offers

    async def _resend_offers(self) -> None:
        """On a new session what we offered and was not settled is offered again; the receiver knows it by its id."""
        now = self.services.clock.now_ms()
        for offer in self.offers:
            if offer.ours and offer.status is Status.PENDING and offer.valid_until_ms > now:
                await self.services.send(self.peer, wire.Offer(self.id, offer.raw))

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
        await self.services.send(self.peer, wire.Offer(self.id, offer.raw))
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
        if self.channel.frozen:
            raise NotReadyError(f"the channel is frozen: {self.channel.frozen}")
        await self.offers.keep(offer.at(Status.AGREED), also)
        future = None
        if self.channel.sequencer:
            future = self.enqueue_agreed(offer)
        await self.services.send(self.peer, wire.OfferReply(self.id, offer.id, 0, ""))
        if self.channel.sequencer:
            await self.pump()
        return future

    def _tell_refused(self, offer: OfferRecord, future: asyncio.Future[int]) -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, ChanneldError) and self.broken is None:
            self.background(self.refuse_offer(offer, error))

    async def refuse_offer(self, offer: OfferRecord, error: ChanneldError) -> None:
        """Refuse a peer's offer with a reason."""
        await self.offers.keep(offer.at(Status.REFUSED))
        await self.reply_refused(offer.id, error)

    async def reply_refused(self, offer_id: bytes, error: ChanneldError) -> None:
        """Tell the peer why an offer is refused."""
        reason = str(error)[: wire.MAX_TEXT]
        await self.services.send(self.peer, wire.OfferReply(self.id, offer_id, error.code or 1, reason))

    async def expire_offers(self, now_ms: int) -> None:
        """Forget what is over: in the line, and among the offers."""
        if any(self._lapsed(queued, now_ms) for queued in self.queue):
            self.queue = deque(queued for queued in self.queue if not queued.done.done())
        await self.offers.expire(now_ms, {operation_key(q.operation) for f in self.flying.values() for q in f})

    # ------------------------------------------------------------------------------------------------- housekeeping

    async def session(self, *, up: bool) -> None:
        """A session with the peer stands, or is gone. Told twice, it is heard once."""
        if self.broken is None and up != self.channel.connected:
            self.proposed_at_ms = self.services.clock.now_ms()
            await self.feed(Connected() if up else Disconnected())

    async def receive(self, message: wire.Message) -> None:
        """A message of the peer about this channel; waits for a fresh view of the chain, as any answer is signed.

        Raises:
            PeerError: the message is not allowed here; the session must end.
            StoreError: this channel is broken.
        """
        await self._whole(self._received(message))

    async def _received(self, message: wire.Message) -> None:
        while True:
            await self.services.fresh()
            async with self.lock:
                if self.services.hold():
                    continue
                if self.broken is not None:
                    raise self.broken
                await self._feed(Received(message))
                await self._pump()
                return

    def chain_deposits(self, total_a: int, total_b: int) -> None:
        """Deposits final on our chain; as the sequencer acknowledge what is new, without holding up the caller."""
        self.deposits = (total_a, total_b)
        tip = self.channel.tip.body
        new = total_a > tip.a.deposited or total_b > tip.b.deposited
        now = self.services.clock.now_ms()
        again, pause = self._deposit_again
        if not self.channel.sequencer or not new or now < again or waiting_for(self.channel):
            return
        if any(isinstance(q.operation, Deposit) for q in self.queue):
            return
        # where the peer has not seen the deposit final yet it refuses; it is asked again, less and less often
        self._deposit_again = (now + pause, min(2 * pause, DEPOSIT_AGAIN_MOST_MS))
        self.enqueue(Deposit(self.channel.side, max(total_a, tip.a.deposited), max(total_b, tip.b.deposited)))
        self.background(self._pumped())
