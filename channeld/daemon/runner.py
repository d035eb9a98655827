"""One channel's machine at work: inputs in, effects carried out, records committed in groups.

Rules: inputs are handled one after the other under one lock, each to its end even where its caller is cancelled. What a
step wants kept, sent and told waits in the machine's queue (core/channel/queue.py): everything that waits becomes one
commit, and leaves only once that is durable; meanwhile the machine goes on. `channel` is what is durable: the chain,
the API and people see nothing else. What an operation changes in the offers, and the events that tell of a state, are
durable in the same commit as the state. A store that fails breaks the channel: it goes back to what was durable before,
sends nothing any more, and is left to the chain.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import structlog

from channeld.core import records, wire
from channeld.core.channel import (
    Accepted,
    Agreed,
    Channel,
    EffectQueue,
    ExitReady,
    Freeze,
    Frozen,
    Input,
    Lost,
    Notify,
    Ready,
    Received,
    Refused,
    Send,
    Sign,
    Signed,
    Step,
    step,
)
from channeld.core.channel.values import NotReadyError
from channeld.core.errors import ChainError, ChanneldError, InternalError, StoreError
from channeld.core.operations import Batch, Deposit, Trade, Transfer, encode_batch
from channeld.core.state import genesis
from channeld.daemon.eager import Background
from channeld.daemon.judge import View, judge
from channeld.daemon.offer_book import OfferBook
from channeld.daemon.recovery import Recovery
from channeld.daemon.views import describe_agreed, describe_many, describe_signed
from channeld.desk.bands import Bands
from channeld.desk.marks import Surface
from channeld.desk.own_vols import OwnVols
from channeld.desk.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from channeld.core.channel import Decide, Group
    from channeld.core.state import Body, State
    from channeld.core.transition import Applied
    from channeld.daemon.prices import PriceBook
    from channeld.daemon.services import Services

log = structlog.get_logger(__name__)

LOOK_AGAIN_S = 2.0
# a commit that holds more operations than this is told as a whole: who wants each of them reads the journal
MOST_TOLD = 32
Told = tuple[str, dict[str, Any]]


@dataclass
class Runner:
    """A channel of this desk: its machine, its effects, its news. `first` is the channel as it was durable."""

    services: Services
    record: records.ChannelRecord
    first: Channel
    book: PriceBook
    policy: Policy = field(default_factory=Policy)
    surface: Surface = field(default_factory=Surface)
    own: OwnVols = field(default_factory=OwnVols)
    bands: tuple[Bands, ...] = ()
    peer_bands: Bands | None = None
    deposits: tuple[int, int] = (0, 0)
    last_time_ms: int = 0
    previous: Body | None = None
    broken: StoreError | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    offers: OfferBook = field(init=False)
    recovery: Recovery = field(default_factory=Recovery)
    tasks: Background = field(default_factory=Background)
    effects: EffectQueue = field(init=False)
    _calm: asyncio.Event = field(default_factory=asyncio.Event)
    _due: bool = False

    def __post_init__(self) -> None:
        """Bind the offers to the store."""
        self.effects = EffectQueue(self.first)
        self.offers = OfferBook(self.record.channel, self.services.store.commit)
        self._calm.set()

    @property
    def id(self) -> bytes:
        """The channel's id."""
        return self.first.id

    @property
    def peer(self) -> bytes:
        """The peer's signer address."""
        return self.record.peer

    @property
    def channel(self) -> Channel:
        """The channel as it is durable."""
        return self.effects.durable

    @property
    def state(self) -> State:
        """The highest co-signed state that is durable."""
        return self.effects.durable.latest.state

    async def finish(self) -> None:
        """Wait for what has begun; for shutdown."""
        await self.tasks.finish()

    # ------------------------------------------------------------------------------------------------- inputs

    async def feed(self, event: Input) -> None:
        """Handle one input to its end, and return once what follows from it is durable.

        Raises:
            PeerError, RuleError: the input was refused; nothing changed.
            StoreError: nothing was sent; the channel is broken.
        """
        if self.broken is not None and isinstance(event, Freeze):
            return  # it signs nothing any more as it is
        await self.tasks.whole(self._fed(event))
        await self.calm()

    async def calm(self) -> None:
        """Return once nothing waits for the disk.

        Raises:
            StoreError: the channel is broken.
        """
        while self.effects.flying or self.effects.waiting:
            await self._calm.wait()
        if self.broken is not None:
            raise self.broken

    async def _fed(self, event: Input) -> None:
        async with self.lock:
            try:
                await self._feed(event)
                await self._go_on()
            finally:
                self.flush()

    async def receive(self, message: wire.Message) -> None:
        """A message of the peer about this channel; waits for a fresh view of the chain, as any answer is signed.

        Raises:
            PeerError: the message is not allowed here; the session must end.
            StoreError: this channel is broken.
        """
        await self.tasks.whole(self._received(message))

    async def _received(self, message: wire.Message) -> None:
        from_peer = Received(message)
        while True:
            await self.services.fresh()
            async with self.lock:
                if self.services.hold():
                    continue
                try:
                    await self._feed(from_peer)
                    await self._go_on()
                finally:
                    self.flush()
                return

    async def _go_on(self) -> None:
        """What follows an input: the sequencer proposes what waits."""

    async def _feed(self, event: Input) -> None:
        if self.broken is not None:
            raise self.broken
        await self._take(step(self.effects.working, event))

    async def _take(self, done: Step) -> None:
        """Adopt a step: sign and judge what it asks for now; the rest waits in the queue."""
        for effect in self.effects.add(done, self._alongside(done)):
            if type(effect) is Sign:
                await self._feed(Signed(effect.purpose, effect.version, await self._sign(effect)))
            else:
                await self._feed(await self._judge(effect))  # type: ignore[arg-type]

    def _alongside(self, done: Step) -> list[records.Write]:
        """What else is durable with a step: the offers that its batches fulfil, so that none is fulfilled twice."""
        writes: list[records.Write] = []
        for effect in done.effects:
            if type(effect) is Notify and type(effect.event) is Agreed:
                batch = effect.event.applied.batch
                self.last_time_ms = max(self.last_time_ms, batch.time_ms)
                writes.extend(self.offers.done(batch.operations, effect.event.applied.state.version))
        return writes

    async def _sign(self, wanted: Sign) -> bytes:
        purpose, version = wanted.purpose, wanted.version
        kind, leap = records.SIGNED_STATE, purpose in {"leap", "land"}
        if purpose in {"withdrawal", "close"}:
            kind, closing = purpose, self.effects.working.closing
            if purpose == "close" and closing is not None:
                version = closing.valid_until
        signer = self.services.signer
        try:
            quick = signer.sign_now(self.id, kind, version, wanted.digest, leap=leap)
            return quick if quick is not None else await signer.sign(self.id, kind, version, wanted.digest, leap=leap)
        except ChanneldError as error:
            await self._freeze(f"the signer refused: {error}")
            raise

    async def _judge(self, ask: Decide) -> Accepted | Refused:
        now = self.services.clock.now_ms()
        try:
            if ask.half is None:
                raise ask.error or InternalError("a batch without a state and without an error")
            await self._see_deposits(ask.half.applied)
            side = self.effects.working.side
            bands = self.bands or (Bands(vol_band=self.policy.vol_band, carry_band=self.policy.carry_band),)
            view = View(now, self.last_time_ms, side, self.offers, self.deposits, bands, self.own)
            await judge(self.effects.working.terms, ask.before, ask.half.applied, view, self.book)
        except ChanneldError as error:
            log.warning(
                "proposal refused", channel=self.id.hex()[:8], version=ask.version, code=error.code, why=str(error)
            )
            told = self.services.emit("batch_refused", self.id, version=ask.version, code=error.code, reason=str(error))
            self.tasks.start(told)
            empty = encode_batch(Batch(max(now, self.last_time_ms), self.services.salt(), ()))
            return Refused(ask.version, empty, error.code, str(error)[: wire.MAX_TEXT])
        return Accepted(ask.version)

    async def _see_deposits(self, applied: Applied) -> None:
        """The sequencer may have seen a deposit a moment earlier than we have: look once more before refusing it."""
        for operation in applied.batch.operations:
            if not isinstance(operation, Deposit):
                continue
            if operation.deposited_a > self.deposits[0] or operation.deposited_b > self.deposits[1]:
                try:
                    self.deposits = await asyncio.wait_for(self.services.deposits(), LOOK_AGAIN_S)
                except (ChainError, TimeoutError):
                    log.debug("the deposits cannot be read now", channel=self.id.hex()[:8])

    # ------------------------------------------------------------------------------------------------- the disk

    def flush(self) -> None:
        """Have what waits committed once the loop has handled all that has come in with it."""
        if self.effects.waiting and not self._due:
            self._due = True
            self._calm.clear()
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Commit what waits, unless a commit is under way: the next one takes it then."""
        self._due = False
        while self.broken is None and (group := self.effects.take()) is not None:
            if group.writes:
                self.tasks.start(self._commit(group, self._events(group)))
                break
            self._release(())
        if not self.effects.flying and not self.effects.waiting:
            self._calm.set()

    async def _commit(self, group: Group, events: list[Told]) -> None:
        now = self.services.clock.now_ms()
        told = [records.AppendEvent(now, kind, self.id, json.dumps(data, default=str)) for kind, data in events]
        try:
            with self.services.committing():
                await self.services.store.commit([*group.writes, *told])
        except StoreError as error:
            await self._break(error)
        except Exception as error:
            log.exception("a commit failed", channel=self.id.hex()[:8])
            await self._break(StoreError(f"a commit failed: {type(error).__name__}: {error}"))
        else:
            self._release(events)
            self._flush()

    def _events(self, group: Group) -> list[Told]:
        """The events of the states in a group, as a desk speaks of them."""
        agreed = [e.event for e in group.released if isinstance(e, Notify) and isinstance(e.event, Agreed)]
        if not agreed:
            return []
        found: list[Told] = []
        many = sum(len(event.applied.batch.operations) + 1 for event in agreed) > MOST_TOLD
        before = self.previous or genesis(self.id).body
        plain: list[Applied] = []
        start = before
        for event in agreed:
            applied = event.applied
            if many and all(isinstance(op, Trade | Transfer) for op in applied.batch.operations):
                plain.append(applied)
            else:
                found.extend(describe_many(self.first, start, plain))
                found.extend(describe_agreed(self.first, before, applied))
                found.append(describe_signed(applied))
                plain, start = [], applied.state.body
            before = applied.state.body
        found.extend(describe_many(self.first, start, plain))
        self.previous = before
        return found

    def _release(self, events: Sequence[Told]) -> None:
        """A group is durable: send what it held, and tell."""
        for effect in self.effects.done():
            if type(effect) is Send:
                self.services.post(self.peer, effect.message, effect.packed)
            else:
                self._notify(effect.event)  # type: ignore[union-attr]
        for kind, data in events:
            self.services.told(kind, self.id, data)

    async def _break(self, error: StoreError) -> None:
        """The store failed: what is in memory may be ahead of the disk, so it is taken back, and nothing is sent."""
        self.broken = error
        reason = f"the store failed: {error}"
        durable = self.effects.failed()
        self.effects.replace_working(replace(durable, frozen=reason, connected=False, synced=False, draft=None))
        self._calm.set()
        self._fail_waiting(error)
        await self.services.emit("alert", self.id, severity="critical", message=f"channel frozen: {reason}")

    # ------------------------------------------------------------------------------------------------- news

    def _notify(self, event: Agreed | ExitReady | Ready | Frozen | Lost) -> None:
        match event:
            case Agreed():
                self._agreed(event)
            case ExitReady(document):
                self.tasks.start(self.services.exit_ready(self.id, document))
            case Ready():
                self._resend_offers()
            case Lost():
                self.tasks.start(self.recovery.told(self, event))
            case Frozen(error, reason):
                log.warning("channel frozen", channel=self.id.hex()[:8], why=reason, code=error.code if error else 0)
                if error is not None:
                    self.tasks.start(self._frozen(reason))
                else:
                    # the chain says so, and has its own events and alerts: an ordinary end is none
                    self._fail_waiting(NotReadyError(f"the channel is frozen: {reason}"))

    def _agreed(self, event: Agreed) -> None:
        """A state is co-signed and durable."""
        self.offers.land(event.applied.batch.operations, event.applied.state.version)
        self.services.agreed(self.id, event.applied)

    def _resend_offers(self) -> None:
        """On a new session."""

    async def _freeze(self, reason: str) -> None:
        self.effects.replace_working(step(self.effects.working, Freeze(reason)).channel)
        await self._frozen(reason)

    async def thaw(self, frozen: str) -> None:
        """Take back a freeze of this desk's own making, to what it was before."""
        async with self.lock:
            await self.calm()
            self.effects.replace_working(replace(self.effects.working, frozen=frozen))

    async def _frozen(self, reason: str) -> None:
        self._fail_waiting(NotReadyError(f"the channel is frozen: {reason}"))
        await self.services.emit("alert", self.id, severity="critical", message=f"channel frozen: {reason}")

    def _fail_waiting(self, error: ChanneldError) -> None:
        """Nothing more will be signed: whoever waits is told at once."""
        self.offers.fail_all(error)
