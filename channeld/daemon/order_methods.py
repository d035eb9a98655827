"""The API's methods about orders, the aggregated book, and the markets that this desk streams."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, TypeVar

from channeld.core.errors import InputError
from channeld.core.instruments import instrument_name, parse_instrument
from channeld.core.wad import format_decimal, parse_decimal
from channeld.daemon.order_desk import order_data
from channeld.daemon.parameters import BadParameterError, Json, Params, objects, seconds, take
from channeld.daemon.quote_methods import positive
from channeld.daemon.requests import Requests
from channeld.daemon.streams import OwnMarket
from channeld.desk.aggregated_book import BUY, SELL, Level, Levels, check_levels
from channeld.desk.order_types import Force, Kind, OrderSpec, Side, Source, Trigger, TriggerKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from enum import StrEnum

    from channeld.core.state import Instrument
    from channeld.desk.order_machine import Order

    E = TypeVar("E", bound=StrEnum)

SIDES = {"buy": Side.BUY, "sell": Side.SELL}
MOST_ORDERS_SHOWN = 1_000


class NoSuchMarketError(InputError):
    """No channel of this desk trades the instrument's feed."""

    code = 1235
    advice = "`channeld channel show` lists the markets of a channel."


def one_of(params: Params, name: str, kind: type[E], default: str) -> E:
    """A parameter that names one of a few.

    Raises:
        BadParameterError: it is none of them.
    """
    text = take(params, name, str, default)
    try:
        return kind(text)
    except ValueError:
        raise BadParameterError(f"{name!r} is one of {', '.join(kind)}") from None


def wad(params: Params, name: str) -> int:
    """A decimal as a wad; 0 where it is not given.

    Raises:
        BadParameterError, MalformedNumberError: negative, or no decimal.
    """
    found = parse_decimal(take(params, name, str, "0"))
    if found < 0:
        raise BadParameterError(f"the parameter {name!r} must not be negative")
    return found


class OrderMethods(Requests):
    """Orders, book, markets."""

    def order_table(self) -> dict[str, Callable[[Params], Awaitable[Json]]]:
        """The methods by name."""
        return {
            "private/order": self.order,
            "private/order_group": self.order_group,
            "private/order_cancel": self.order_cancel,
            "private/order_cancel_all": self.order_cancel_all,
            "private/order_cancel_after": self.order_cancel_after,
            "private/orders": self.orders,
            "private/book": self.book,
            "private/market_set": self.market_set,
        }

    def _spec(self, params: Params) -> OrderSpec:
        instrument = parse_instrument(take(params, "instrument", str))
        if not any(instrument.feed in a.channel.terms.feeds for a in self.node.actors.values()):
            raise NoSuchMarketError(f"no channel has a market in {instrument_name(instrument)}'s feed")
        side = SIDES.get(take(params, "side", str))
        if side is None:
            raise BadParameterError("'side' is buy or sell")
        kind = one_of(params, "type", Kind, "limit")
        named = take(params, "peers", list, [])
        if not all(isinstance(name, str) for name in named):
            raise BadParameterError("every entry of 'peers' must be a name or an address")
        peers = {self._peer({"peer": name}) for name in named}
        trigger = take(params, "trigger", dict, None)
        return OrderSpec(
            label=take(params, "label", str, "") or secrets.token_hex(8),
            instrument=instrument,
            side=side,
            size=positive(params, "size"),
            kind=kind,
            limit=wad(params, "limit"),
            slippage=wad(params, "slippage"),
            force=one_of(params, "force", Force, "gtc"),
            until_ms=take(params, "until_ms", int, 0),
            post_only=take(params, "post_only", bool, False),
            reduce_only=take(params, "reduce_only", bool, False),
            cancel_on_disconnect=take(params, "cancel_on_disconnect", bool, False),
            trigger=None if trigger is None else _trigger(trigger),
            channels=tuple(a.id for a in self.node.actors.values() if a.peer in peers),
        )

    async def order(self, params: Params) -> Json:
        """Place an order; what becomes of it is told by `private/orders` and by events."""
        spec = self._spec(params)
        desk, now = self.node.orders, self.node.clock.now_ms()
        await desk.do(lambda: desk.blotter.place(spec, now)[1])
        await desk.work()
        return order_data(desk.blotter.by_label(spec.label))

    async def order_group(self, params: Params) -> Json:
        """Place orders that belong together: two of which one cancels the other, or an entry with two exits."""
        kind = take(params, "kind", str)
        specs = [self._spec(one) for one in objects(take(params, "orders", list), "orders")]
        desk, now = self.node.orders, self.node.clock.now_ms()
        if kind == "oco" and len(specs) == 2:
            await desk.do(lambda: desk.blotter.place_oco(specs[0], specs[1], now)[1])
        elif kind == "bracket" and len(specs) == 3:
            await desk.do(lambda: desk.blotter.place_bracket(specs[0], specs[1], specs[2], now)[1])
        else:
            raise BadParameterError("'kind' is oco with two orders, or bracket with three: entry, take-profit, stop")
        await desk.work()
        return [order_data(desk.blotter.by_label(spec.label)) for spec in specs]

    async def order_cancel(self, params: Params) -> Json:
        """Stop an order; what is on its way may still fill."""
        desk = self.node.orders
        label = take(params, "label", str, None)
        number = desk.blotter.by_label(label).number if label is not None else take(params, "id", int)
        now = self.node.clock.now_ms()
        await desk.do(lambda: desk.blotter.cancel(number, now))
        await desk.work()
        return order_data(desk.blotter.order(number))

    async def order_cancel_all(self, _: Params) -> Json:
        """Stop all orders."""
        desk, now = self.node.orders, self.node.clock.now_ms()
        numbers = [order.number for order in desk.blotter.live()]
        await desk.do(lambda: tuple(event for n in numbers for event in desk.blotter.cancel(n, now)))
        await desk.work()
        return {"stopped": len(numbers)}

    async def order_cancel_after(self, params: Params) -> Json:
        """Stop the orders that ask for it unless this is called again in time; 0 ends the watch."""
        wait = seconds(take(params, "seconds", (int, float, str)))
        desk = self.node.orders
        desk.cancel_at_ms = self.node.clock.now_ms() + int(wait * 1000) if wait else 0
        return {"cancel_at_ms": desk.cancel_at_ms or None}

    async def orders(self, params: Params) -> Json:
        """Orders: those that live, or all."""
        every = take(params, "all", bool, False)
        blotter = self.node.orders.blotter
        chosen = list(blotter.orders.values()) if every else list(blotter.live())
        return [self._shown(order) for order in chosen[-MOST_ORDERS_SHOWN:]]

    def _shown(self, order: Order) -> dict[str, Json]:
        names = {a.id: self.node.name(a.peer) for a in self.node.actors.values()}
        fills = [
            {
                "peer": names.get(channel, ""),
                "channel": "0x" + channel.hex(),
                "size": format_decimal(size),
                "price": format_decimal(price),
                "version": version,
                "id": route.hex(),
            }
            for route, channel, size, price, version in order.fills
        ]
        return {**order_data(order), "fills": fills}

    async def book(self, params: Params) -> Json:
        """The aggregated book of an instrument, or the best prices of all that is streamed."""
        desk, now = self.node.orders, self.node.clock.now_ms()
        name = take(params, "instrument", str, None)
        chosen = desk.book.instruments() if name is None else (parse_instrument(name),)
        rows = []
        for instrument in sorted(chosen, key=lambda one: one.key):
            row: dict[str, Json] = {"instrument": instrument_name(instrument)}
            for label, side in (("best_bid", SELL), ("best_ask", BUY)):
                best = desk.book.best(instrument, side, now)
                row[label] = format_decimal(best) if best is not None else None
            if name is not None:
                row["bids"] = [self._level(level) for level in desk.book.depth(instrument, SELL, now)]
                row["asks"] = [self._level(level) for level in desk.book.depth(instrument, BUY, now)]
                row["shown"] = self._own(instrument, now)
            rows.append(row)
        return rows

    def _level(self, level: Level) -> dict[str, Json]:
        actor = self.node.actors[level.channel]
        return {
            "peer": self.node.name(actor.peer),
            "price": format_decimal(level.price),
            "size": format_decimal(level.size),
            "tradable": format_decimal(level.tradable),
        }

    def _own(self, instrument: Instrument, now: int) -> dict[str, Json]:
        shown = {}
        for actor in self.node.actors.values():
            bids, asks = self.node.orders.streams.market_for(actor.id, instrument, now)
            if bids or asks:
                sides = {"bids": bids, "asks": asks}
                shown[self.node.name(actor.peer)] = {
                    side: [{"price": format_decimal(p), "size": format_decimal(s)} for p, s in levels]
                    for side, levels in sides.items()
                }
        return shown

    async def market_set(self, params: Params) -> Json:
        """Stream a market of one's own; empty sides withdraw it. Peers' trades on it are agreed to without a person."""
        instrument = parse_instrument(take(params, "instrument", str))
        bids = _levels(take(params, "bids", list, []), "bids")
        asks = _levels(take(params, "asks", list, []), "asks")
        check_levels(bids, asks)
        named = take(params, "peers", list, [])
        if not all(isinstance(name, str) for name in named):
            raise BadParameterError("every entry of 'peers' must be a name or an address")
        peers = {self._peer({"peer": name}) for name in named}
        channels = tuple(a.id for a in self.node.actors.values() if a.peer in peers)
        valid = seconds(take(params, "valid_s", (int, float, str), 30.0))
        now = self.node.clock.now_ms()
        market = OwnMarket(bids, asks, now + int(valid * 1000), channels)
        desk = self.node.orders
        desk.streams.set_market("hand", instrument, market if bids or asks else None)
        await desk.work()
        return {"instrument": instrument_name(instrument), "valid_until_ms": market.valid_until_ms}


def _trigger(given: Params) -> Trigger:
    return Trigger(
        one_of(given, "kind", TriggerKind, "stop"),
        one_of(given, "source", Source, "mark"),
        wad(given, "price"),
        wad(given, "distance"),
        take(given, "relative", bool, False),
    )


def _levels(given: list[Json], name: str) -> Levels:
    return tuple((wad(one, "price"), positive(one, "size")) for one in objects(given, name))
