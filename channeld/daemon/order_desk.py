"""Orders at work: the journal around the order machine, the routes it sends, and what comes back.

Rules: events are durable before anything they say is done; one lock holds from the decision to the commit, so nothing
is decided on what is not durable. A route is an offer under the route's own id, so that a restart finds in the
channel's offers and journal what became of it; one that is in neither was never sent. What a peer takes of a resting
order is set aside, durably, before it is agreed to. After a failure of the journal nothing is worked any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from channeld.core import records
from channeld.core.crypto import keccak256
from channeld.core.errors import ChanneldError, StoreError
from channeld.core.instruments import instrument_name
from channeld.core.operations import Leg, Trade, decode_batch
from channeld.core.wad import format_decimal
from channeld.daemon.leg_values import fair_value, leg_parameters
from channeld.daemon.streams import Streams
from channeld.desk.aggregated_book import AggregatedBook
from channeld.desk.markets import market_of, market_reference
from channeld.desk.offers import OfferRecord, Status, make_offer
from channeld.desk.order_machine import Blotter, Order
from channeld.desk.order_types import (
    Filled,
    Ratcheted,
    Routed,
    Source,
    pack_events,
    unpack_events,
)
from channeld.desk.order_types import Status as OrderStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from channeld.core.state import Instrument
    from channeld.core.transition import Applied
    from channeld.daemon.actor import Actor
    from channeld.daemon.node import Node
    from channeld.desk.order_types import Event

log = structlog.get_logger(__name__)

JOURNAL: Final = "order_journal"
ROUTE_LIFE_MS: Final = 10_000
WORK_EVERY_MS: Final = 200


class OrderDesk:
    """The orders of a node."""

    def __init__(self, node: Node) -> None:
        """Nothing placed."""
        self._node = node
        self.book = AggregatedBook()
        self.blotter = Blotter(lambda: secrets.token_bytes(16))
        self.streams = Streams(node, self.book, self._resting)
        self.broken: StoreError | None = None
        self.cancel_at_ms = 0
        self._lock = asyncio.Lock()
        self._sequence = 0
        self._parts: dict[bytes, list[bytes]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._again_ms = 0
        self._cycle: asyncio.Task[Any] | None = None

    # ------------------------------------------------------------------------------------------------- life

    async def load(self) -> None:
        """Read the journal, and learn what became of the routes that were on their way.

        Raises:
            OrderJournalError: it does not read.
        """
        for key, raw in await self._node.store.documents(JOURNAL):
            self.blotter.restore(unpack_events(raw))
            self._sequence = int(key)
        await self._commit(self.blotter.disconnected(self._now(), "the daemon was started again"))
        landed = await self._journaled({route.channel for route in self.blotter.routes.values()})
        for route in list(self.blotter.routes.values()):
            actor = self._node.actors.get(route.channel)
            offers = list(actor.offers) if actor is not None else []
            known = [*landed, *(offer.id for offer in offers)]
            offer_id = route.route
            if route.resting:
                offer_id = next((one for one in known if _part(one, route.order) == route.route), b"")
            offer = next((one for one in offers if one.id == offer_id), None)
            if offer_id in landed:
                await self._commit(self.blotter.filled(route.route, landed[offer_id], self._now()))
            elif offer is None or actor is None or offer.status in {Status.REFUSED, Status.DONE}:
                await self._commit(self.blotter.failed(route.route, "it was never sent, or has lapsed", self._now()))
            elif offer.ours:
                self._await(route.route, actor.offers.expect(offer))
            else:
                self._parts.setdefault(offer_id, []).append(route.route)

    async def _journaled(self, channels: Iterable[bytes]) -> dict[bytes, int]:
        """The versions of the trades of channels, by the offer's id at the head of their reference."""
        found: dict[bytes, int] = {}
        for channel in channels:
            for batch in await self._node.store.batches(channel):
                for operation in decode_batch(batch.raw).operations:
                    if isinstance(operation, Trade):
                        found[operation.reference[:16]] = batch.version
        return found

    async def stop(self) -> None:
        """End what runs; the journal has the rest."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _now(self) -> int:
        return self._node.clock.now_ms()

    def background(self, work: Any) -> asyncio.Task[Any]:  # noqa: ANN401 - any coroutine
        """Run on its own, until it ends or the desk stops."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.warning("orders: a task failed", why=repr(task.exception()))

    # ------------------------------------------------------------------------------------------------- the journal

    async def _commit(self, events: tuple[Event, ...]) -> None:
        """Make events durable, then tell people. Where the journal fails, nothing is worked any more."""
        if not events:
            return
        self._sequence += 1
        write = records.PutDocument(JOURNAL, f"{self._sequence:016d}", pack_events(events))
        try:
            await self._node.store.commit([write])
        except StoreError as error:
            self.broken = error
            raise
        for number in dict.fromkeys(event.order for event in events if not isinstance(event, Ratcheted)):
            await self._node.emit("order", None, **order_data(self.blotter.order(number)))

    async def do(self, decide: Callable[[], tuple[Event, ...]]) -> tuple[Event, ...]:
        """Decide, make durable, act.

        Raises:
            ChanneldError: the machine refused, and nothing changed.
            StoreError: the journal failed; nothing was acted on, and nothing is worked any more.
        """
        async with self._lock:
            return await self._decided(decide)

    async def _decided(self, decide: Callable[[], tuple[Event, ...]]) -> tuple[Event, ...]:
        if self.broken is not None:
            raise self.broken
        events = decide()
        await self._commit(events)
        for event in events:
            if isinstance(event, Routed) and not event.resting:
                self.background(self._send(event))
        return events

    # ------------------------------------------------------------------------------------------------- working

    def positions(self, channel: bytes, instrument: Instrument) -> int:
        """This desk's own size in a channel, co-signed (wads)."""
        actor = self._node.actors[channel]
        held = actor.state.body.position(instrument.key)
        if held is None:
            return 0
        return -held.size if actor.channel.side else held.size

    def _resting(self, channel: bytes) -> list[tuple[Instrument, int, int, int]]:
        return [
            (order.spec.instrument, int(order.spec.side), order.spec.limit, self._shown_size(order, channel))
            for order in self.blotter.shown(channel)
        ]

    def _shown_size(self, order: Order, channel: bytes) -> int:
        return self.blotter.shown_size(order, channel, self.positions)

    async def work(self) -> None:
        """One look: the clock, the prices, the book; then what is shown to peers."""
        now = self._now()
        if self.cancel_at_ms and now >= self.cancel_at_ms:
            self.cancel_at_ms = 0
            await self.do(lambda: self.blotter.disconnected(now, "the client was not heard of in time"))
        await self._observe(now)
        await self.do(lambda: (*self.blotter.tick(now), *self.blotter.work(self.book, self.positions, now)))
        await self._resting_over()
        await self.streams.publish(now)

    def due(self, now_ms: int) -> None:
        """The ticker: one look at a time."""
        if now_ms >= self._again_ms and (self._cycle is None or self._cycle.done()) and self.broken is None:
            self._again_ms = now_ms + WORK_EVERY_MS
            self._cycle = self.background(self.work())

    def soon(self) -> None:
        """Something changed: look at once, unless a look is under way, which the ticker follows."""
        if (self._cycle is None or self._cycle.done()) and self.broken is None:
            self._cycle = self.background(self.work())

    async def _observe(self, now: int) -> None:
        """Tell the triggers of the prices they wait for."""
        waiting = [o for o in self.blotter.live() if o.status is OrderStatus.ARMED and o.spec.trigger is not None]
        for feed in {o.spec.instrument.feed for o in waiting}:
            actor = self._market_of(feed)
            if actor is None:
                continue
            prices = await actor.book.prices(actor.channel.terms, actor.state.body, now)
            spot = prices.spots.get(feed)
            if spot is None or now // 1000 - prices.printed[feed] > actor.channel.terms.oracle.max_age:
                continue  # a stale price fires nothing
            await self.do(partial(self.blotter.observe, Source.INDEX, feed, spot, now))
            for instrument in {o.spec.instrument for o in waiting if o.spec.instrument.feed == feed}:
                with contextlib.suppress(ChanneldError):
                    mark = fair_value(actor, instrument, prices)
                    await self.do(partial(self.blotter.observe, Source.MARK, instrument, mark, now))

    def _market_of(self, feed: bytes) -> Actor | None:
        found = [a for a in self._node.actors.values() if feed in a.channel.terms.feeds and a.record.status == "open"]
        return found[0] if found else None

    # ------------------------------------------------------------------------------------------------- routes

    async def _send(self, event: Routed) -> None:
        """Offer one route to its channel's peer."""
        actor = self._node.actors.get(event.channel)
        spec = self.blotter.order(event.order).spec
        try:
            if actor is None or not actor.channel.synced:
                await self._failed(event.route, "the channel is not connected")
                return
            line = self.book.line(event.channel, spec.instrument)
            carry, vol = await leg_parameters(actor, spec.instrument, event.price)
            size = int(spec.side) * event.size
            leg = Leg(spec.instrument, -size if actor.channel.side else size, event.price, carry, vol)
            reference = market_reference(line.sequence if line is not None else 0)
            trade = Trade(actor.channel.side, (leg,), 0, reference)
            await actor.consider((trade,))
            offer = make_offer(trade, event.route, self._now() + ROUTE_LIFE_MS)
            self._await(event.route, await actor.offer(offer))
        except StoreError:
            raise  # whether it was sent is found at the next start
        except ChanneldError as error:
            await self._failed(event.route, str(error))

    def _await(self, route: bytes, future: asyncio.Future[int]) -> None:
        self.background(self._answer(route, future))

    async def _answer(self, route: bytes, future: asyncio.Future[int]) -> None:
        try:
            version = await asyncio.shield(future)
        except ChanneldError as error:
            await self._failed(route, str(error))
        else:
            await self._filled(route, version)

    async def _filled(self, route: bytes, version: int) -> None:
        now = self._now()
        on_way = self.blotter.routes.get(route)
        events = await self.do(lambda: self.blotter.filled(route, version, now))
        if on_way is not None and any(isinstance(event, Filled) for event in events):
            instrument = self.blotter.order(on_way.order).spec.instrument
            await self.do(lambda: self.blotter.observe(Source.LAST, instrument, on_way.price, now))
            self.soon()

    async def _failed(self, route: bytes, reason: str) -> None:
        now = self._now()
        await self.do(lambda: self.blotter.failed(route, reason[:256], now))

    def agreed(self, channel: bytes, applied: Applied) -> None:
        """A state is co-signed: resting orders that it trades are filled; margins are measured anew."""
        for operation in applied.batch.operations:
            if isinstance(operation, Trade):
                for part in self._parts.pop(operation.reference[:16], []):
                    self.background(self._filled(part, applied.state.version))
        actor = self._node.actors.get(channel)
        if actor is not None:
            for instrument in self.book.instruments():
                if self.book.line(channel, instrument) is not None:
                    self.background(self.streams.measure(actor, instrument, self._now(), again=True))

    # ------------------------------------------------------------------------------------------------- what peers take

    def is_hit(self, trade: Trade) -> bool:
        """Whether a peer's trade is on a market of ours."""
        return market_of(trade) is not None

    async def hit(self, actor: Actor, offer: OfferRecord, trade: Trade) -> None:
        """A peer trades on our market: set aside what it takes, then agree.

        Raises:
            MarketGoneError: it is not there any more; the offer is to be refused.
            ChanneldError: it cannot be agreed to.
        """
        now = self._now()
        async with self._lock:
            side, levels = self.streams.hit(actor, trade, now)
            parts = self._allocate(actor.id, trade.legs[0].instrument, side, levels)
            reserved: list[bytes] = []

            def decide() -> tuple[Event, ...]:
                events: list[Event] = []
                for number, size in parts:
                    route = _part(offer.id, number)
                    events += self.blotter.reserve(number, route, actor.id, size, self.positions, now)
                    reserved.append(route)
                return tuple(events)

            self._parts[offer.id] = reserved
            await self._decided(decide)
            self._use_own(trade.legs[0].instrument, side, levels, sum(size for _, size in parts))
        try:
            await actor.agree_to(offer)
        except ChanneldError as error:
            for route in self._parts.pop(offer.id, []):
                await self._failed(route, str(error))
            raise

    def _allocate(self, channel: bytes, instrument: Instrument, side: int, levels: Any) -> list[tuple[int, int]]:  # noqa: ANN401 - levels
        """Which resting orders give how much of the levels that a peer takes; what is left comes from own markets."""
        wanted = dict(levels)
        found = []
        for order in self.blotter.shown(channel):
            spec = order.spec
            if spec.instrument != instrument or int(spec.side) != -side or spec.limit not in wanted:
                continue
            part = min(wanted[spec.limit], self._shown_size(order, channel))
            if part:
                wanted[spec.limit] -= part
                found.append((order.number, part))
        return found

    def _use_own(self, instrument: Instrument, side: int, levels: Any, resting: int) -> None:  # noqa: ANN401 - levels
        """Markets set by hand or agent shrink by what was taken of them, until they are set anew."""
        left = sum(size for _, size in levels) - resting
        for (source, held), market in list(self.streams.own.items()):
            if held != instrument or not left:
                continue
            rest = []
            for price, size in market.asks if side == 1 else market.bids:
                gone = min(size, left) if any(price == p for p, _ in levels) else 0
                left -= gone
                if size > gone:
                    rest.append((price, size - gone))
            if side == 1:
                market.asks = tuple(rest)
            else:
                market.bids = tuple(rest)
            if not market.bids and not market.asks:
                del self.streams.own[source, held]

    async def _resting_over(self) -> None:
        """What was set aside for a peer's trade that came to nothing is free again."""
        for offer_id, routes in list(self._parts.items()):
            channel = next((self.blotter.routes[r].channel for r in routes if r in self.blotter.routes), None)
            actor = self._node.actors.get(channel) if channel is not None else None
            offer = actor.offers.by_id(offer_id) if actor is not None else None
            if offer is not None and offer.status in {Status.AGREED, Status.DONE}:
                continue  # it may land yet: an offer is dropped only when it no longer can
            del self._parts[offer_id]
            for route in routes:
                await self._failed(route, "the peer's trade came to nothing")

    # ------------------------------------------------------------------------------------------------- sessions

    def lost(self, channel: bytes) -> None:
        """A session is gone: its markets are too."""
        self.streams.forget(channel)


def _part(offer_id: bytes, number: int) -> bytes:
    """The route of one resting order's part in a peer's trade."""
    return keccak256(offer_id + number.to_bytes(8, "big"))[:16]


def order_data(order: Order) -> dict[str, Any]:
    """An order for people."""
    spec = order.spec
    trigger = spec.trigger
    average = order.average_price
    return {
        "id": order.number,
        "label": spec.label,
        "instrument": instrument_name(spec.instrument),
        "side": spec.side.name.lower(),
        "size": format_decimal(spec.size),
        "type": str(spec.kind),
        "limit": format_decimal(order.limit) if order.limit is not None else None,
        "force": str(spec.force),
        "post_only": spec.post_only,
        "reduce_only": spec.reduce_only,
        "status": str(order.status),
        "filled": format_decimal(order.filled),
        "working": format_decimal(order.working),
        "average_price": format_decimal(average) if average is not None else None,
        "reason": order.reason,
        "group": order.group,
        "entry": order.parent,
        "trigger": None
        if trigger is None
        else {
            "kind": str(trigger.kind),
            "source": str(trigger.source),
            "price": format_decimal(trigger.price),
            "distance": format_decimal(trigger.distance),
            "relative": trigger.relative,
            "level": format_decimal(trigger.level(spec.side, order.extreme)) if order.extreme is not None else None,
        },
    }
