"""Orders as a desk writes them, and the events that make their history.

Rules: an order is frozen data; what becomes of it is told by events alone, each of which can be journaled as JSON and
read back. Prices and sizes are wads and positive; which way an order trades is its side. What cannot be an order is
refused when it is made, with the field's name; what depends on other orders or on the market is the machine's to judge
(desk/order_machine.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any, Final

from channeld.core.errors import ChanneldError, InputError, StoreError
from channeld.core.instruments import instrument_name, parse_instrument
from channeld.core.wad import WAD

if TYPE_CHECKING:
    from channeld.core.state import Instrument

MAX_SIZE: Final = 1 << 95
MAX_PRICE: Final = 1 << 96
MAX_LABEL: Final = 64
MAX_CHANNELS: Final = 64


class OrderSpecError(InputError):
    """An order whose fields do not go together."""

    code = 1227
    advice = "Correct the named field; docs/orders.md lists what goes with what."


class OrderJournalError(StoreError):
    """A record of the order journal that does not read as an event."""

    code = 6035
    advice = "Keep the data directory as it is and report the log; no order is worked until the journal reads again."


class Side(IntEnum):
    """Which way an order trades."""

    BUY = 1
    SELL = -1


class Kind(StrEnum):
    """How an order's worst price is found."""

    LIMIT = "limit"
    MARKET = "market"  # the best price when it first meets the book, worsened by the slippage allowed


class Force(StrEnum):
    """How long an order works."""

    IOC = "ioc"  # takes what is there, once
    FOK = "fok"  # whole, in one channel and one TRADE, or not at all
    GTC = "gtc"
    GTD = "gtd"


class Source(StrEnum):
    """Which price moves a trigger."""

    INDEX = "index"  # the oracle's newest print of the feed
    MARK = "mark"  # the desk's own value of the instrument at that print
    LAST = "last"  # the price of this desk's last fill in the instrument


class TriggerKind(StrEnum):
    """When a trigger fires, for a sell (a buy's is the mirror image)."""

    STOP = "stop"  # at or below its price
    TAKE = "take"  # at or above its price
    TRAIL = "trail"  # `distance` below the highest price since it was armed


class Status(StrEnum):
    """Where an order stands."""

    DORMANT = "dormant"  # waits for the entry of its bracket
    ARMED = "armed"  # waits for its trigger
    OPEN = "open"
    FILLED = "filled"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REJECTED = "rejected"


LIVE: Final = frozenset({Status.DORMANT, Status.ARMED, Status.OPEN})


def _check(condition: bool, field: str, why: str) -> None:  # noqa: FBT001 - an assertion with a typed error
    if not condition:
        raise OrderSpecError(f"{field}: {why}", field=field)


@dataclass(frozen=True, slots=True)
class Trigger:
    """What an order waits for. price: wads; for a trailing stop the price that arms it, 0 for at once.

    distance: of a trailing stop, wads, or with `relative` a wad fraction of the extreme.
    """

    kind: TriggerKind
    source: Source
    price: int = 0
    distance: int = 0
    relative: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no trigger."""
        trailing = self.kind is TriggerKind.TRAIL
        _check(0 <= self.price < MAX_PRICE, "trigger.price", "must be positive and below 2**96 wads")
        _check(trailing or self.price > 0, "trigger.price", "a stop or take-profit needs a price")
        _check(trailing == (self.distance > 0), "trigger.distance", "a trailing stop, and no other, has a distance")
        _check(0 <= self.distance < MAX_PRICE, "trigger.distance", "must be below 2**96 wads")
        _check(trailing or not self.relative, "trigger.relative", "belongs to trailing stops")
        _check(not self.relative or self.distance < WAD, "trigger.distance", "a relative distance is below 1")

    def better(self, side: Side, price: int, extreme: int) -> bool:
        """(trailing) Whether a price is a new extreme: higher for a sell, lower for a buy."""
        return price > extreme if side is Side.SELL else price < extreme

    def level(self, side: Side, extreme: int) -> int:
        """The price that fires it; of a trailing stop behind the extreme, never beyond what it was."""
        if self.kind is not TriggerKind.TRAIL:
            return self.price
        gap = extreme * self.distance // WAD if self.relative else self.distance
        return extreme - gap if side is Side.SELL else extreme + gap

    def arms(self, side: Side, price: int) -> bool:
        """(trailing) Whether a price is at or beyond the one that arms it, on the side of the profit."""
        return not self.price or (price >= self.price if side is Side.SELL else price <= self.price)

    def fires(self, side: Side, price: int, extreme: int) -> bool:
        """Whether a price fires it."""
        level = self.level(side, extreme)
        falling = (side is Side.SELL) == (self.kind is not TriggerKind.TAKE)
        return price <= level if falling else price >= level


@dataclass(frozen=True, slots=True)
class OrderSpec:
    """An order as it was asked for.

    label: the client's own name, used once; the same order under it again is the same order. limit: the worst price,
    wads, 0 for a market order. slippage: of a market order, a wad fraction. until_ms: the last millisecond of a GTD.
    post_only: never takes; shown to peers as a quote. reduce_only: never increases a position of any channel.
    channels: the channels it may trade in; none named, all.
    """

    label: str
    instrument: Instrument
    side: Side
    size: int
    kind: Kind = Kind.LIMIT
    limit: int = 0
    slippage: int = 0
    force: Force = Force.GTC
    until_ms: int = 0
    post_only: bool = False
    reduce_only: bool = False
    cancel_on_disconnect: bool = False
    trigger: Trigger | None = None
    channels: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no order.

        Raises:
            OrderSpecError: naming the field.
        """
        _check(0 < len(self.label) <= MAX_LABEL and self.label.isprintable(), "label", "has 1 to 64 characters")
        _check(0 < self.size < MAX_SIZE, "size", "must be positive and below 2**95 wads")
        market = self.kind is Kind.MARKET
        _check(market == (self.limit == 0), "limit", "a limit order, and no other, has a limit")
        _check(0 <= self.limit < MAX_PRICE, "limit", "must be below 2**96 wads")
        _check(0 <= self.slippage < WAD, "slippage", "lies in 0..1")
        _check(market or not self.slippage, "slippage", "belongs to market orders")
        _check((self.force is Force.GTD) == (self.until_ms > 0), "until_ms", "a GTD order, and no other, has an end")
        _check(self.until_ms < 1 << 63, "until_ms", "is beyond the calendar")
        _check(
            not self.post_only or (not market and self.force in {Force.GTC, Force.GTD}),
            "post_only",
            "goes with limit orders that last",
        )
        _check(len(self.channels) <= MAX_CHANNELS, "channels", f"at most {MAX_CHANNELS}")


# ----------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Event:
    """The root. order: its number, from 1 on, never used again."""

    order: int


@dataclass(frozen=True, slots=True)
class Placed(Event):
    """An order is taken. parent: the entry of its bracket; group: what cancels one another (OCO); 0 for none."""

    spec: OrderSpec
    parent: int
    group: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class Awakened(Event):
    """The entry of its bracket has filled in part: it waits no longer for it."""


@dataclass(frozen=True, slots=True)
class Armed(Event):
    """(trailing) Follows the price from here on."""

    extreme: int


@dataclass(frozen=True, slots=True)
class Ratcheted(Event):
    """(trailing) A new extreme."""

    extreme: int


@dataclass(frozen=True, slots=True)
class Triggered(Event):
    """Its trigger fired at a price: it works from here on."""

    price: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class Bounded(Event):
    """(market) Its worst price is fixed."""

    limit: int


@dataclass(frozen=True, slots=True)
class Rested(Event):
    """(post-only) It met no price when it came, and is shown to peers from here on."""


@dataclass(frozen=True, slots=True)
class Routed(Event):
    """A part of it is on its way to one channel as one TRADE, all or none of it. resting: a peer took our quote."""

    route: bytes
    channel: bytes
    size: int
    price: int
    resting: bool
    time_ms: int


@dataclass(frozen=True, slots=True)
class Filled(Event):
    """A route is co-signed, in a version of its channel."""

    route: bytes
    version: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """A route came to nothing."""

    route: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Stopped(Event):
    """Nothing more of it is routed; it ends as `status` once what is on its way has an answer."""

    status: Status
    reason: str


@dataclass(frozen=True, slots=True)
class Ended(Event):
    """Over."""

    status: Status
    reason: str
    time_ms: int


_EVENTS: Final[dict[str, type[Event]]] = {
    cls.__name__.lower(): cls
    for cls in (Placed, Awakened, Armed, Ratcheted, Triggered, Bounded, Rested, Routed, Filled, Failed, Stopped, Ended)
}


def spec_data(spec: OrderSpec) -> dict[str, Any]:
    """An order as JSON data; wads as integers."""
    data: dict[str, Any] = {f.name: getattr(spec, f.name) for f in fields(spec)}
    data["instrument"] = instrument_name(spec.instrument)
    data["side"] = int(spec.side)
    data["channels"] = [channel.hex() for channel in spec.channels]
    data["trigger"] = None if spec.trigger is None else {f.name: getattr(spec.trigger, f.name) for f in fields(Trigger)}
    return data


def read_spec(data: dict[str, Any]) -> OrderSpec:
    """An order from its data."""
    trigger = data["trigger"]
    if trigger is not None:
        kinds = {"kind": TriggerKind(trigger["kind"]), "source": Source(trigger["source"])}
        trigger = Trigger(**{**trigger, **kinds})
    return OrderSpec(
        **{
            **data,
            "instrument": parse_instrument(data["instrument"]),
            "side": Side(data["side"]),
            "kind": Kind(data["kind"]),
            "force": Force(data["force"]),
            "trigger": trigger,
            "channels": tuple(bytes.fromhex(channel) for channel in data["channels"]),
        }
    )


def event_data(event: Event) -> dict[str, Any]:
    """An event as JSON data."""
    data: dict[str, Any] = {"event": type(event).__name__.lower()}
    for f in fields(event):
        value = getattr(event, f.name)
        data[f.name] = value.hex() if isinstance(value, bytes) else value
    if isinstance(event, Placed):
        data["spec"] = spec_data(event.spec)
    return data


def read_event(data: dict[str, Any]) -> Event:
    """An event from its data.

    Raises:
        OrderJournalError: it is none.
    """
    try:
        values = dict(data)
        cls = _EVENTS[values.pop("event")]
        for name in ("route", "channel"):
            if name in values:
                values[name] = bytes.fromhex(values[name])
        if "status" in values:
            values["status"] = Status(values["status"])
        if "spec" in values:
            values["spec"] = read_spec(values["spec"])
        return cls(**values)
    except (KeyError, TypeError, ValueError, AttributeError, ChanneldError) as error:
        raise OrderJournalError(f"the order journal holds no event here: {error}") from error


def pack_events(events: tuple[Event, ...]) -> bytes:
    """Events of one commit, for the journal."""
    return json.dumps([event_data(event) for event in events], separators=(",", ":")).encode()


def unpack_events(raw: bytes) -> tuple[Event, ...]:
    """Events of one commit.

    Raises:
        OrderJournalError: they are none.
    """
    try:
        found = json.loads(raw)
    except ValueError as error:
        raise OrderJournalError(f"the order journal holds no JSON here: {error}") from error
    if not isinstance(found, list):
        raise OrderJournalError("the order journal holds no list of events here")
    return tuple(read_event(data) for data in found)
