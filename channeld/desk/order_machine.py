"""The order machine: what becomes of orders, as events.

Theory: all state is what `apply` makes of the events so far; a method decides, applies its events and returns them. The
shell makes them durable before it acts on any of them: a Routed event is an order to send one TRADE, and what became of
it comes back as `filled` or `failed` under the same route. So a restart from the journal knows every order and every
route on its way, and asks the channels what became of those; a route has one end, and a second word about it changes
nothing.

Rules:
* Filled plus on its way never exceeds the size; no route is priced worse than the limit.
* reduce-only: a route is at most what it takes to flatten its channel's position, with all that is on its way there on
  the same side counted in; while one is on its way, nothing else on that side passes beyond that bound either.
* OCO: of a group, one order at most has anything on its way or filled; the first fill stops the others.
* Bracket: the exits sleep until their entry has filled, and trade no more than it has; the first fill of an exit stops
  the other exit, and what is left of the entry.
* A trailing stop's extreme only ratchets.
* An order that is stopped routes nothing more, and ends when what is on its way has an answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from channeld.core.errors import Fault, InputError, RuleError
from channeld.core.wad import WAD, format_decimal
from channeld.desk.order_types import (
    LIVE,
    Armed,
    Awakened,
    Bounded,
    Ended,
    Event,
    Failed,
    Filled,
    Force,
    OrderSpec,
    Placed,
    Ratcheted,
    Rested,
    Routed,
    Side,
    Source,
    Status,
    Stopped,
    Triggered,
    TriggerKind,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from channeld.core.state import Instrument
    from channeld.desk.aggregated_book import AggregatedBook, Slice

MAX_LIVE: Final = 10_000


class OrderRefusedError(InputError):
    """An order, or a group of orders, that this desk does not take."""

    code = 1228
    advice = "docs/orders.md lists what goes with what."


class LabelUsedError(InputError):
    """The label belongs to another order already."""

    code = 1229
    advice = "Use a new label; the same order sent again under its own label changes nothing."


class UnknownOrderError(InputError):
    """There is no such order."""

    code = 1230
    advice = "List the orders with `channeld order list`."


class RestingGoneError(RuleError):
    """A peer wants to trade on a quote of this desk whose order has nothing left, or may not trade so much."""

    code = 2450
    fault = Fault.USER
    advice = "Look at the peer's newest market and ask again."


@dataclass(slots=True)
class Route:
    """A part of an order on its way."""

    order: int
    route: bytes
    channel: bytes
    size: int
    price: int
    resting: bool
    time_ms: int


@dataclass(slots=True)
class Order:
    """An order and what has become of it. limit: None while a market order has not met the book. Sizes are wads.

    spent: filled size times price, in wads of wads, so that the average price is exact.
    """

    number: int
    spec: OrderSpec
    status: Status
    placed_ms: int
    parent: int = 0
    group: int = 0
    limit: int | None = None
    extreme: int | None = None
    rested: bool = False
    filled: int = 0
    working: int = 0
    spent: int = 0
    stopping: Status | None = None
    reason: str = ""
    ended_ms: int = 0
    fills: list[tuple[bytes, bytes, int, int, int]] = field(default_factory=list)

    @property
    def live(self) -> bool:
        """Whether anything may become of it still."""
        return self.status in LIVE

    @property
    def average_price(self) -> int | None:
        """Of what is filled, wads, rounded down."""
        return self.spent // self.filled if self.filled else None


class Blotter:
    """All orders of a desk."""

    def __init__(self, fresh_route: Callable[[], bytes]) -> None:
        """Empty. fresh_route: 16 bytes that nobody can guess, new at each call."""
        self._fresh_route = fresh_route
        self.orders: dict[int, Order] = {}
        self.routes: dict[bytes, Route] = {}
        self._labels: dict[str, int] = {}
        self._groups: dict[int, list[int]] = {}
        self._children: dict[int, list[int]] = {}
        self._live: dict[int, Order] = {}
        self._busy: dict[tuple[bytes, Instrument, Side], int] = {}
        self._reducing: dict[tuple[bytes, Instrument, Side], int] = {}
        self.last_number = 0

    def restore(self, events: Iterable[Event]) -> None:
        """Take what the journal holds."""
        for event in events:
            self.apply(event)

    def order(self, number: int) -> Order:
        """An order.

        Raises:
            UnknownOrderError: there is none of this number.
        """
        found = self.orders.get(number)
        if found is None:
            raise UnknownOrderError(f"there is no order {number}")
        return found

    def by_label(self, label: str) -> Order:
        """The order of a label.

        Raises:
            UnknownOrderError: there is none.
        """
        number = self._labels.get(label)
        if number is None:
            raise UnknownOrderError(f"there is no order labelled {label!r}")
        return self.orders[number]

    def live(self) -> Iterator[Order]:
        """The orders that something may become of, in the order in which they came."""
        return iter(list(self._live.values()))

    # ------------------------------------------------------------------------------------------------- placing

    def place(self, spec: OrderSpec, now_ms: int) -> tuple[int, tuple[Event, ...]]:
        """Take an order; its number. The same order again under its label gives the same number and no events.

        Raises:
            LabelUsedError, OrderRefusedError: nothing changed.
        """
        numbers, events = self._place(((spec, 0),), now_ms, oco=False)
        return numbers[0], events

    def place_oco(self, first: OrderSpec, second: OrderSpec, now_ms: int) -> tuple[tuple[int, ...], tuple[Event, ...]]:
        """Take two orders of which one cancels the other.

        Raises:
            LabelUsedError, OrderRefusedError: nothing changed.
        """
        self._check_exits(first, second)
        return self._place(((first, 0), (second, 0)), now_ms, oco=True)

    def place_bracket(
        self, entry: OrderSpec, take: OrderSpec, stop: OrderSpec, now_ms: int
    ) -> tuple[tuple[int, ...], tuple[Event, ...]]:
        """Take an entry and its two exits, which sleep until it fills, and of which one cancels the other.

        Raises:
            LabelUsedError, OrderRefusedError: nothing changed.
        """
        self._check_exits(take, stop)
        for exit_ in (take, stop):
            if exit_.instrument != entry.instrument or exit_.side is entry.side or exit_.size != entry.size:
                raise OrderRefusedError("the exits of a bracket trade its entry's instrument and size the other way")
            if not exit_.reduce_only:
                raise OrderRefusedError("the exits of a bracket are reduce-only")
        return self._place(((entry, 0), (take, 1), (stop, 1)), now_ms, oco=True)

    @staticmethod
    def _check_exits(first: OrderSpec, second: OrderSpec) -> None:
        if first.instrument != second.instrument:
            raise OrderRefusedError("orders of which one cancels the other are in one instrument")
        if first.post_only or second.post_only:
            raise OrderRefusedError("an order that another cancels cannot be shown: a peer could fill both at once")

    def _place(
        self, specs: tuple[tuple[OrderSpec, int], ...], now_ms: int, *, oco: bool
    ) -> tuple[tuple[int, ...], tuple[Event, ...]]:
        labels = [spec.label for spec, _ in specs]
        if len(set(labels)) != len(labels):
            raise LabelUsedError("each order of a group needs a label of its own")
        known = [self._labels.get(label) for label in labels]
        if any(known):
            same = all(
                number and self.orders[number].spec == spec for number, (spec, _) in zip(known, specs, strict=True)
            )
            if not same:
                raise LabelUsedError(f"the label {labels[0]!r} belongs to another order")
            return tuple(number for number in known if number), ()
        if len(self._live) + len(specs) > MAX_LIVE:
            raise OrderRefusedError(f"{len(self._live)} orders are live already")
        for spec, _ in specs:
            if spec.force is Force.GTD and spec.until_ms < now_ms:
                raise OrderRefusedError("the order's end has passed")
        entry = self.last_number + 1
        group = entry if oco else 0
        events: list[Event] = []
        for spec, sleeps in specs:
            in_group = group if not any(s for _, s in specs) or sleeps else 0
            self._do(events, Placed(self.last_number + 1, spec, entry if sleeps else 0, in_group, now_ms))
        return tuple(event.order for event in events), tuple(events)

    # ------------------------------------------------------------------------------------------------- working

    def work(
        self, book: AggregatedBook, positions: Callable[[bytes, Instrument], int], now_ms: int
    ) -> tuple[Event, ...]:
        """Route what can be traded now. positions: this desk's own size in a channel (wads, positive is long)."""
        events: list[Event] = []
        for order in self.live():
            if order.status is Status.OPEN and order.stopping is None and self._open(order):
                self._work(order, book, positions, now_ms, events)
        return tuple(events)

    def _work(
        self,
        order: Order,
        book: AggregatedBook,
        positions: Callable[[bytes, Instrument], int],
        now_ms: int,
        events: list[Event],
    ) -> None:
        spec = order.spec
        if spec.post_only:
            self._rest(order, book, now_ms, events)
            return
        if self._blocked(order):
            return
        once = spec.force in {Force.IOC, Force.FOK}
        if order.limit is None:
            best = book.best(spec.instrument, spec.side, now_ms)
            if best is not None:
                self._do(events, Bounded(order.number, max(1, best + spec.side * (best * spec.slippage // WAD))))
        if order.limit is not None:
            caps = self.caps(order, book.channels(spec.instrument), positions)
            for slice_ in self._slices(order, book, caps, now_ms):
                book.take(spec.instrument, spec.side, slice_)
                route = self._fresh_route()
                self._do(
                    events,
                    Routed(
                        order.number, route, slice_.channel, slice_.size, slice_.price, resting=False, time_ms=now_ms
                    ),
                )
        if once:
            self._stop(order, Status.CANCELLED, "what is left found no price", now_ms, events)

    def _slices(self, order: Order, book: AggregatedBook, caps: Mapping[bytes, int], now_ms: int) -> tuple[Slice, ...]:
        spec, limit = order.spec, order.limit or 0
        asked = (spec.instrument, int(spec.side), self._open(order), limit, now_ms, caps)
        if spec.force is not Force.FOK:
            return book.sweep(*asked).slices
        whole = book.whole(*asked)
        return (whole,) if whole is not None else ()

    def _rest(self, order: Order, book: AggregatedBook, now_ms: int, events: list[Event]) -> None:
        """A post-only order that comes to a market it would take from is refused; else it is shown."""
        if order.rested:
            return
        side, limit = order.spec.side, order.spec.limit
        best = book.best(order.spec.instrument, side, now_ms)
        if best is not None and side * best <= side * limit:
            self._stop(order, Status.REJECTED, f"it would take at {format_decimal(best)}", now_ms, events)
        else:
            self._do(events, Rested(order.number))

    def shown(self, channel: bytes) -> tuple[Order, ...]:
        """The orders whose price and size a channel's peer sees."""
        return tuple(
            order
            for order in self._live.values()
            if order.rested and order.stopping is None and (not order.spec.channels or channel in order.spec.channels)
        )

    def shown_size(self, order: Order, channel: bytes, positions: Callable[[bytes, Instrument], int]) -> int:
        """How much of a resting order a channel's peer may take now (wads)."""
        return max(0, min(self._open(order), self.caps(order, (channel,), positions).get(channel, 0)))

    def reserve(
        self,
        number: int,
        route: bytes,
        channel: bytes,
        size: int,
        positions: Callable[[bytes, Instrument], int],
        now_ms: int,
    ) -> tuple[Event, ...]:
        """A peer takes a resting order, in part or whole: set it aside under a route, whose end comes like any other's.

        Raises:
            RestingGoneError: so much is not there, or may not be traded in this channel.
            UnknownOrderError: there is no such order.
        """
        order = self.order(number)
        if route in self.routes:
            return ()
        resting = order.status is Status.OPEN and order.rested and order.stopping is None
        if not resting or not 0 < size <= self.shown_size(order, channel, positions):
            raise RestingGoneError(f"order {number} has not {format_decimal(size)} left to trade here")
        events: list[Event] = []
        limit = order.spec.limit
        self._do(events, Routed(number, route, channel, size, limit, resting=True, time_ms=now_ms))
        return tuple(events)

    def caps(
        self, order: Order, channels: Iterable[bytes], positions: Callable[[bytes, Instrument], int]
    ) -> dict[bytes, int]:
        """The most that an order may trade in each channel now, beside margin (wads)."""
        spec = order.spec
        found = {}
        for channel in channels:
            if spec.channels and channel not in spec.channels:
                continue
            key = (channel, spec.instrument, spec.side)
            room = self._open(order)
            if spec.reduce_only or self._reducing.get(key):
                flat = max(0, -spec.side * positions(channel, spec.instrument))
                room = min(room, max(0, flat - self._busy.get(key, 0)))
            found[channel] = room
        return found

    # ------------------------------------------------------------------------------------------------- outcomes

    def filled(self, route: bytes, version: int, now_ms: int) -> tuple[Event, ...]:
        """A route is co-signed in a version of its channel."""
        on_way = self.routes.get(route)
        if on_way is None:
            return ()
        events: list[Event] = []
        order = self.orders[on_way.order]
        self._do(events, Filled(order.number, route, version, now_ms))
        for child in self._children.get(order.number, ()):
            if self.orders[child].status is Status.DORMANT:
                self._do(events, Awakened(child))
        for other in self._others(order):
            self._stop(other, Status.CANCELLED, f"order {order.number} filled", now_ms, events)
        if order.parent:
            entry = self.orders[order.parent]
            self._stop(entry, Status.CANCELLED, f"its exit, order {order.number}, filled", now_ms, events)
        self._settle(order, now_ms, events)
        return tuple(events)

    def failed(self, route: bytes, reason: str, now_ms: int) -> tuple[Event, ...]:
        """A route came to nothing; what it held can be routed again."""
        on_way = self.routes.get(route)
        if on_way is None:
            return ()
        events: list[Event] = []
        self._do(events, Failed(on_way.order, route, reason))
        self._settle(self.orders[on_way.order], now_ms, events)
        return tuple(events)

    # ------------------------------------------------------------------------------------------------- the market

    def observe(self, source: Source, what: bytes | Instrument, price: int, now_ms: int) -> tuple[Event, ...]:
        """A price of an index (by its feed), a mark or a last trade (by the instrument): triggers follow it."""
        events: list[Event] = []
        for order in self.live():
            trigger = order.spec.trigger
            if order.status is not Status.ARMED or order.stopping is not None or trigger is None:
                continue
            watched = order.spec.instrument.feed if source is Source.INDEX else order.spec.instrument
            if trigger.source is not source or watched != what:
                continue
            side = order.spec.side
            if trigger.kind is TriggerKind.TRAIL and order.extreme is None:
                if trigger.arms(side, price):
                    self._do(events, Armed(order.number, price))
            elif trigger.kind is TriggerKind.TRAIL and trigger.better(side, price, order.extreme or 0):
                self._do(events, Ratcheted(order.number, price))
            elif trigger.fires(side, price, order.extreme or 0):
                self._do(events, Triggered(order.number, price, now_ms))
        return tuple(events)

    def tick(self, now_ms: int) -> tuple[Event, ...]:
        """The clock: orders with an end come to it."""
        events: list[Event] = []
        for order in self.live():
            if order.spec.force is Force.GTD and order.spec.until_ms < now_ms:
                self._stop(order, Status.EXPIRED, "its time is over", now_ms, events)
        return tuple(events)

    def cancel(self, number: int, now_ms: int, reason: str = "by the desk") -> tuple[Event, ...]:
        """Stop an order; nothing where it is over or stopped already.

        Raises:
            UnknownOrderError: there is none of this number.
        """
        events: list[Event] = []
        self._stop(self.order(number), Status.CANCELLED, reason, now_ms, events)
        return tuple(events)

    def disconnected(self, now_ms: int, reason: str) -> tuple[Event, ...]:
        """Whoever placed them is gone: the orders that asked for it are stopped."""
        events: list[Event] = []
        for order in self.live():
            if order.spec.cancel_on_disconnect:
                self._stop(order, Status.CANCELLED, reason, now_ms, events)
        return tuple(events)

    # ------------------------------------------------------------------------------------------------- inside

    def _do(self, events: list[Event], event: Event) -> None:
        self.apply(event)
        events.append(event)

    def _target(self, order: Order) -> int:
        """How much an order may fill in all: an exit no more than its entry has."""
        return min(order.spec.size, self.orders[order.parent].filled) if order.parent else order.spec.size

    def _open(self, order: Order) -> int:
        return max(0, self._target(order) - order.filled - order.working)

    def _others(self, order: Order) -> list[Order]:
        return [self.orders[n] for n in self._groups.get(order.group, ()) if n != order.number] if order.group else []

    def _blocked(self, order: Order) -> bool:
        """Whether another of its group has anything on its way, or filled."""
        return any(other.working or other.filled for other in self._others(order))

    def _stop(self, order: Order, status: Status, reason: str, now_ms: int, events: list[Event]) -> None:
        if order.live and order.stopping is None:
            self._do(events, Stopped(order.number, status, reason))
            self._settle(order, now_ms, events)

    def _settle(self, order: Order, now_ms: int, events: list[Event]) -> None:
        """End an order that nothing can become of any more."""
        if not order.live or order.working:
            return
        entry_over = not order.parent or not self.orders[order.parent].live
        if entry_over and 0 < self._target(order) <= order.filled:
            self._do(events, Ended(order.number, Status.FILLED, "", now_ms))
        elif order.stopping is not None:
            self._do(events, Ended(order.number, order.stopping, order.reason, now_ms))
        if order.live:
            return
        for number in self._children.get(order.number, ()):
            child = self.orders[number]
            if child.live and not order.filled:
                self._stop(child, Status.CANCELLED, f"its entry, order {order.number}, did not fill", now_ms, events)
            else:
                self._settle(child, now_ms, events)

    def apply(self, event: Event) -> None:
        """What an event makes of the state; nothing is decided here."""
        if isinstance(event, Placed):
            self._placed(event)
            return
        order = self.orders[event.order]
        match event:
            case Awakened():
                order.status = Status.ARMED if order.spec.trigger is not None else Status.OPEN
            case Armed(_, extreme) | Ratcheted(_, extreme):
                order.extreme = extreme
            case Triggered():
                order.status = Status.OPEN
            case Bounded(_, limit):
                order.limit = limit
            case Rested():
                order.rested = True
            case Routed():
                self._routed(order, event)
            case Filled():
                on_way = self._land(event.route)
                order.filled += on_way.size
                order.spent += on_way.size * on_way.price
                order.fills.append((event.route, on_way.channel, on_way.size, on_way.price, event.version))
            case Failed():
                self._land(event.route)
            case Stopped(_, status, reason):
                order.stopping, order.reason = status, reason
            case Ended(_, status, reason, time_ms):
                order.status, order.reason, order.ended_ms = status, reason, time_ms
                self._live.pop(order.number, None)

    def _placed(self, event: Placed) -> None:
        spec = event.spec
        status = Status.DORMANT if event.parent else Status.ARMED if spec.trigger is not None else Status.OPEN
        limit = spec.limit or None
        order = Order(event.order, spec, status, event.time_ms, event.parent, event.group, limit)
        self.orders[order.number] = self._live[order.number] = order
        self._labels[spec.label] = order.number
        self.last_number = max(self.last_number, order.number)
        if order.group:
            self._groups.setdefault(order.group, []).append(order.number)
        if order.parent:
            self._children.setdefault(order.parent, []).append(order.number)

    def _routed(self, order: Order, event: Routed) -> None:
        on_way = Route(order.number, event.route, event.channel, event.size, event.price, event.resting, event.time_ms)
        self.routes[event.route] = on_way
        order.working += event.size
        self._count(order, on_way, event.size)

    def _land(self, route: bytes) -> Route:
        on_way = self.routes.pop(route)
        order = self.orders[on_way.order]
        order.working -= on_way.size
        self._count(order, on_way, -on_way.size)
        return on_way

    def _count(self, order: Order, on_way: Route, size: int) -> None:
        key = (on_way.channel, order.spec.instrument, order.spec.side)
        self._busy[key] = self._busy.get(key, 0) + size
        if order.spec.reduce_only:
            self._reducing[key] = self._reducing.get(key, 0) + size
