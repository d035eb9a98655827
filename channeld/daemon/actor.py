"""One channel at work: runs the machine, carries out its effects in order, and feeds it the desk's operations.

Rules: inputs are handled one after the other under one lock; Persist is awaited before anything later is done; what an
operation changes in the offers is durable in the same commit as the state that holds it. A store that fails freezes the
channel: what is in memory may be ahead of the disk, and nothing of it has been sent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

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
from channeld.core.errors import ChanneldError, Fault, InternalError, StoreError
from channeld.core.operations import Batch, CloseChannel, Deposit, Mark, Operation, decode_batch, encode_batch
from channeld.core.state import genesis
from channeld.core.transition import Applied, apply, is_expired
from channeld.daemon.judge import View, judge
from channeld.desk.marks import MarkBlockedError, Surface, build_mark
from channeld.desk.offers import OfferRecord, OfferRefusedError, Status, operation_key
from channeld.desk.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from channeld.core.channel import Exit
    from channeld.core.margin import MarginReport
    from channeld.core.state import Body, State
    from channeld.daemon.prices import PriceBook
    from channeld.daemon.signer import GuardedSigner

log = structlog.get_logger(__name__)

OFFER_DOCUMENT = "offer"
MAX_BATCH_OPERATIONS = 16
DEPOSIT_AGAIN_MS = 1_000


class NothingSignedError(ChanneldError):
    """This desk signs nothing now, for lack of a fresh view of the chain."""

    code = 3340
    fault = Fault.CHAIN
    advice = "Check the chain's endpoint with `channeld status`; it goes on by itself once the chain answers."


class Clock(Protocol):
    """What tells the time."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        ...


@dataclass(frozen=True)
class Services:
    """What an actor needs of the daemon around it."""

    store: records.Store
    clock: Clock
    signer: GuardedSigner
    send: Callable[[bytes, wire.Message], Awaitable[None]]
    emit: Callable[..., Awaitable[None]]
    salt: Callable[[], bytes]
    exit_ready: Callable[[bytes, Exit], Awaitable[None]]
    agreed: Callable[[bytes, Body, Applied], Awaitable[None]]
    hold: Callable[[], str]


@dataclass
class Queued:
    """(sequencer) An operation that waits for a batch. `offer` is the id of the offer that it came from, if any."""

    operation: Operation
    done: asyncio.Future[int]
    offer: bytes = b""


@dataclass
class Actor:
    """A channel of this desk."""

    services: Services
    record: records.ChannelRecord
    channel: Channel
    book: PriceBook
    policy: Policy = field(default_factory=Policy)
    surface: Surface = field(default_factory=Surface)
    deposits: tuple[int, int] = (0, 0)
    offers: dict[bytes, OfferRecord] = field(default_factory=dict)
    waiting: dict[bytes, asyncio.Future[int]] = field(default_factory=dict)
    queue: deque[Queued] = field(default_factory=deque)
    flying: dict[int, list[Queued]] = field(default_factory=dict)
    last_time_ms: int = 0
    previous: Body | None = None
    proposed_at_ms: int = 0
    deposit_again_ms: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

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

    async def feed(self, event: Input) -> None:
        """Handle one input to its end, then propose what waits.

        Raises:
            PeerError, RuleError: the input was refused; nothing changed.
        """
        async with self.lock:
            await self._feed(event)
            await self._pump()

    async def _feed(self, event: Input) -> None:
        done = step(self.channel, event)
        self.channel = done.channel
        for effect in done.effects:
            match effect:
                case Sign(purpose, version, digest):
                    signature = await self._sign(purpose, version, digest)
                    await self._feed(Signed(purpose, version, signature))
                case Persist(writes):
                    await self._persist(writes)
                case Send(message):
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
            return await self.services.signer.sign(self.id, kind, version, digest)
        except ChanneldError as error:
            await self._freeze(f"the signer refused: {error}")
            raise

    async def _persist(self, writes: tuple[records.Write, ...]) -> None:
        extra = [w for write in writes if isinstance(write, records.PutBatch) for w in self._offers_done(write.raw)]
        try:
            await self.services.store.commit([*writes, *extra])
        except StoreError as error:
            self.channel = replace(self.channel, frozen=f"the store failed: {error}")
            raise

    async def _freeze(self, reason: str) -> None:
        self.channel = step(self.channel, Freeze(reason)).channel
        await self.services.emit("alert", self.id, severity="critical", message=f"channel frozen: {reason}")

    def _offers_done(self, raw: bytes) -> list[records.Write]:
        """The offers that a batch fulfils are done in the same commit, so that none is ever fulfilled twice."""
        writes: list[records.Write] = []
        for operation in decode_batch(raw).operations:
            offer = self.offers.get(operation_key(operation))
            if offer is not None and offer.status is not Status.DONE:
                self.offers[offer.key] = offer.at(Status.DONE)
                writes.append(self._offer_write(self.offers[offer.key]))
        return writes

    def _offer_write(self, offer: OfferRecord) -> records.PutDocument:
        return records.PutDocument(OFFER_DOCUMENT, f"{self.id.hex()}/{offer.id.hex()}", offer.pack())

    async def keep_offer(self, offer: OfferRecord) -> None:
        """Make an offer, or its new status, durable."""
        self.offers[offer.key] = offer
        await self.services.store.commit([self._offer_write(offer)])

    async def _judge(self, ask: Decide) -> Accepted | Refused:
        now = self.services.clock.now_ms()
        try:
            held = self.services.hold()
            if held:
                raise NothingSignedError(f"nothing is signed now: {held}")
            if ask.half is None:
                raise ask.error or InternalError("a batch without a state and without an error")
            view = View(now, self.last_time_ms, self.channel.side, self.offers, self.deposits, self.policy)
            await judge(self.channel.terms, ask.before, ask.half.applied, view, self.book)
        except ChanneldError as error:
            log.warning(
                "proposal refused", channel=self.id.hex()[:8], version=ask.version, code=error.code, why=str(error)
            )
            await self.services.emit("batch_refused", self.id, version=ask.version, code=error.code, reason=str(error))
            empty = encode_batch(Batch(max(now, self.last_time_ms), self.services.salt(), ()))
            return Refused(ask.version, empty, error.code, str(error)[: wire.MAX_TEXT])
        return Accepted(ask.version)

    async def _notify(self, event: Agreed | ExitReady | Ready | Frozen) -> None:
        match event:
            case Agreed(applied, voided, code, reason):
                await self._agreed(applied)
                for half in voided:
                    error = OfferRefusedError(f"the peer refused: {reason}", peer_code=code)
                    self._land(half.version, error)
            case ExitReady(document):
                await self.services.exit_ready(self.id, document)
            case Ready():
                await self._resend_offers()
            case Frozen(error, reason):
                await self.services.emit("alert", self.id, severity="critical", message=f"channel frozen: {reason}")
                log.error("channel frozen", channel=self.id.hex()[:8], why=reason, code=error.code if error else 0)

    async def _agreed(self, applied: Applied) -> None:
        self.last_time_ms = max(self.last_time_ms, applied.batch.time_ms)
        version = applied.state.version
        self._land(version, None)
        for operation in applied.batch.operations:
            waiter = self.waiting.pop(operation_key(operation), None)
            if waiter is not None and not waiter.done():
                waiter.set_result(version)
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

    # ------------------------------------------------------------------------------------------------- proposing

    def enqueue(self, operation: Operation, offer: bytes = b"") -> asyncio.Future[int]:
        """(sequencer) Put an operation in line; the future gives the version that holds it, or the error."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_retrieved)
        self.queue.append(Queued(operation, future, offer))
        return future

    async def submit(self, operation: Operation) -> int:
        """(sequencer) Have an operation of our own co-signed; the version that holds it.

        Raises:
            ChanneldError: refused here or by the peer.
        """
        future = self.enqueue(operation)
        await self.pump()
        return await future

    async def pump(self) -> None:
        """Propose what waits, if the channel is free."""
        async with self.lock:
            await self._pump()

    async def _pump(self) -> None:
        while (
            not self.services.hold()
            and self.queue
            and self.channel.sequencer
            and not waiting_for(self.channel)
            and self.channel.draft is None
        ):
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
                self._land(version, error)
                raise

    async def _choose(self) -> list[Queued]:
        """The head of the queue as one batch; what cannot be is taken out and told why.

        MARK and CLOSE go alone: the first is exempt from the margin check, the second must be the last of its channel.
        """
        head = self.queue.popleft()
        chosen = [head]
        if not isinstance(head.operation, Mark | CloseChannel):
            while self.queue and len(chosen) < MAX_BATCH_OPERATIONS:
                if isinstance(self.queue[0].operation, Mark | CloseChannel):
                    break
                chosen.append(self.queue.popleft())
        try:
            await self._check([q.operation for q in chosen])
        except ChanneldError:
            if len(chosen) == 1:
                return await self._one_by_one(chosen)
            return await self._one_by_one(chosen)
        return chosen

    async def _one_by_one(self, queued: list[Queued]) -> list[Queued]:
        kept: list[Queued] = []
        for item in queued:
            try:
                await self._check([*(q.operation for q in kept), item.operation])
            except ChanneldError as error:
                if not item.done.done():
                    item.done.set_exception(error)
            else:
                kept.append(item)
        return kept

    async def _check(self, operations: list[Operation]) -> None:
        await self.rehearse(tuple(operations))

    async def rehearse(
        self, operations: tuple[Operation, ...]
    ) -> tuple[Applied, tuple[MarginReport, MarginReport] | None]:
        """What operations would lead to from our tip, and both parties' margin then, at our own prices.

        Raises:
            ChanneldError: they break a rule of the protocol, or a party would stand below its margin.
        """
        now = max(self.services.clock.now_ms(), self.last_time_ms)
        before = self.channel.tip
        raw = encode_batch(Batch(now, b"\0" * 16, operations))
        applied = apply(self.channel.terms, before, raw, before.version + 1)
        prices = await self.book.prices(self.channel.terms, before.body, now)
        reports = check_acceptance(self.channel.terms, before.body, applied.state.body, operations, prices)
        return applied, reports

    # ------------------------------------------------------------------------------------------------- offers

    async def _resend_offers(self) -> None:
        """On a new session what we offered and was not settled is offered again; the receiver knows it by its id."""
        now = self.services.clock.now_ms()
        for offer in list(self.offers.values()):
            if offer.ours and offer.status is Status.PENDING and offer.valid_until_ms > now:
                await self.services.send(self.peer, wire.Offer(self.id, offer.raw))

    async def offer(self, offer: OfferRecord) -> asyncio.Future[int]:
        """Make an offer of ours durable and send it; the future gives the version, or the peer's refusal."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_retrieved)
        self.waiting[offer.key] = future
        await self.keep_offer(offer)
        await self.services.send(self.peer, wire.Offer(self.id, offer.raw))
        return future

    def by_id(self, offer_id: bytes) -> OfferRecord | None:
        """The offer of an id."""
        return next((o for o in self.offers.values() if o.id == offer_id), None)

    async def offer_answered(self, reply: wire.OfferReply) -> None:
        """The peer agrees to an offer of ours, or refuses it."""
        offer = self.by_id(reply.offer)
        if offer is None or not offer.ours or offer.status is not Status.PENDING:
            return
        if reply.code:
            await self.keep_offer(offer.at(Status.REFUSED))
            self._fail(offer.key, OfferRefusedError(f"the peer refused: {reply.reason}", peer_code=reply.code))
            return
        await self.keep_offer(offer.at(Status.AGREED))
        if self.channel.sequencer:
            future = self.enqueue(offer.operation, offer.id)
            future.add_done_callback(lambda f: self._pass_on(offer.key, f))
            await self.pump()

    def _pass_on(self, key: bytes, future: asyncio.Future[int]) -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, ChanneldError):
            self._fail(key, error)

    def _fail(self, key: bytes, error: ChanneldError) -> None:
        waiter = self.waiting.pop(key, None)
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    async def agree_to(self, offer: OfferRecord) -> None:
        """Agree to a peer's offer: as the sequencer put it in line, as the follower sign it once it is proposed."""
        await self.keep_offer(offer.at(Status.AGREED))
        if self.channel.sequencer:
            future = self.enqueue(offer.operation, offer.id)
            future.add_done_callback(lambda f: self._tell_refused(offer, f))
        await self.services.send(self.peer, wire.OfferReply(self.id, offer.id, 0, ""))
        if self.channel.sequencer:
            await self.pump()

    def _tell_refused(self, offer: OfferRecord, future: asyncio.Future[int]) -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, ChanneldError):
            task = asyncio.ensure_future(self.refuse_offer(offer, error))
            _background.add(task)
            task.add_done_callback(_background.discard)

    async def refuse_offer(self, offer: OfferRecord, error: ChanneldError) -> None:
        """Refuse a peer's offer with a reason."""
        await self.keep_offer(offer.at(Status.REFUSED))
        reason = str(error)[: wire.MAX_TEXT]
        await self.services.send(self.peer, wire.OfferReply(self.id, offer.id, error.code or 1, reason))

    async def expire_offers(self, now_ms: int) -> None:
        """Forget what is over: pending offers lapse, finished ones are dropped once they can no longer be repeated."""
        for key, offer in list(self.offers.items()):
            if offer.valid_until_ms >= now_ms or key in {operation_key(q.operation) for q in self.queue}:
                continue
            if any(operation_key(q.operation) == key for flight in self.flying.values() for q in flight):
                continue
            if offer.status is Status.PENDING or offer.status is Status.AGREED:
                self._fail(key, OfferRefusedError("the offer's life ended before the peer agreed"))
            del self.offers[key]
            await self.services.store.commit(
                [records.DropDocument(OFFER_DOCUMENT, f"{self.id.hex()}/{offer.id.hex()}")]
            )

    # ------------------------------------------------------------------------------------------------- housekeeping

    async def session(self, *, up: bool) -> None:
        """A session with the peer stands, or is gone."""
        await self.feed(Connected() if up else Disconnected())

    async def receive(self, message: wire.Message) -> None:
        """A message of the peer about this channel."""
        await self.feed(Received(message))

    async def chain_deposits(self, total_a: int, total_b: int) -> None:
        """Deposits final on our chain; as the sequencer acknowledge what is new."""
        self.deposits = (total_a, total_b)
        tip = self.channel.tip.body
        new = total_a > tip.a.deposited or total_b > tip.b.deposited
        now = self.services.clock.now_ms()
        if not self.channel.sequencer or not new or now < self.deposit_again_ms or waiting_for(self.channel):
            return
        # where the peer has not seen the deposit final yet it refuses; it is asked again a little later
        self.deposit_again_ms = now + DEPOSIT_AGAIN_MS
        self.enqueue(Deposit(self.channel.side, max(total_a, tip.a.deposited), max(total_b, tip.b.deposited)))
        await self.pump()

    def mark_due(self, now_ms: int, interval_s: int) -> bool:
        """Whether the sequencer should mark: the interval has passed, or something has expired."""
        body = self.state.body
        if not self.channel.sequencer or not body.positions or waiting_for(self.channel):
            return False
        if any(isinstance(q.operation, Mark) for q in self.queue):
            return False
        tick = self.book.latest_tick(now_ms)
        expired = any(is_expired(p.instrument, tick) for p in body.positions)
        return tick > body.as_of and (expired or now_ms // 1000 - body.as_of >= interval_s)

    async def mark(self) -> int:
        """(sequencer) MARK at the newest tick that has prints; the version that holds it.

        Raises:
            MarkBlockedError: the oracle has nothing to mark by.
        """
        body = self.state.body
        newest = self.book.latest_tick(self.services.clock.now_ms())
        blocked: MarkBlockedError | None = None
        for t in (newest, newest - self.channel.terms.oracle.tick):
            if t < body.as_of:
                break
            material = await self.book.material(self.channel.terms, body, t)
            try:
                mark = build_mark(self.channel.terms, body, t, material, self.surface, self.channel.side)
            except MarkBlockedError as error:
                blocked = blocked or error
                continue
            return await self.submit(mark)
        raise blocked or MarkBlockedError("the book is marked at the newest tick already")


_background: set[asyncio.Task[None]] = set()


def _retrieved(future: asyncio.Future[int]) -> None:
    """A caller may have gone; its error is logged, not lost in the loop's own complaint."""
    with contextlib.suppress(asyncio.CancelledError):
        error = future.exception()
        if error is not None:
            log.info("operation refused", why=str(error))
