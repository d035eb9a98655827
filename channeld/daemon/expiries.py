"""Expiries: warned of a day and an hour before, and reported position by position once they are settled.

Rules: each position is warned of once for each of the two times. The report is made of the events that the settling
MARK has left, so it needs no records of its own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from channeld.core.instruments import instrument_name
from channeld.core.wad import format_decimal
from channeld.daemon.parameters import take
from channeld.daemon.requests import Requests
from channeld.desk.expiries import SOON_S, expiring

if TYPE_CHECKING:
    from channeld.core.records import EventRecord
    from channeld.core.state import Instrument
    from channeld.daemon.actor import Actor
    from channeld.daemon.node import Node
    from channeld.daemon.parameters import Json, Params
    from channeld.desk.expiries import Expiring

STAGES = ((3_600, "within the hour"), (SOON_S, "within a day"))
LOOK_MS = 5_000
MOST_EVENTS = 1_000
LONGEST_S = 366 * 86_400


class Expiries:
    """The expiries of one node's channels."""

    def __init__(self, node: Node) -> None:
        """Nobody has been warned yet."""
        self._node = node
        self._told: set[tuple[bytes, Instrument, int]] = set()
        self._looked_ms: dict[bytes, int] = {}

    async def look(self, actor: Actor, now_ms: int) -> None:
        """Warn of what is about to expire."""
        last = self._looked_ms.get(actor.id, 0)
        second = now_ms // 1000
        soon = any(0 < p.instrument.expiry - second <= SOON_S for p in actor.state.body.positions)
        if last <= now_ms < last + LOOK_MS or not soon:
            return
        self._looked_ms[actor.id] = now_ms
        prices = await actor.book.prices(actor.channel.terms, actor.state.body, now_ms)
        for one in expiring(actor.state.body, actor.channel.side, prices):
            stage = next(least for least, _ in STAGES if one.seconds <= least)
            if (actor.id, one.instrument, stage) in self._told:
                continue
            self._told.add((actor.id, one.instrument, stage))
            await self._node.emit("expiring", actor.id, **expiring_data(one))
            if one.pinned:
                words = dict(STAGES)[stage]
                message = (
                    f"{instrument_name(one.instrument)} expires {words} and is pinned: the spot of "
                    f"{format_decimal(one.spot, places=2)} is {one.distance or 0:+.2%} from its strike"
                )
                await self._node.emit("alert", actor.id, severity="warning", cause="pin risk", message=message)


def expiring_data(one: Expiring) -> dict[str, Json]:
    """A position about to expire, for people and programs."""
    return {
        "instrument": instrument_name(one.instrument),
        "size": format_decimal(one.size),
        "expiry": one.instrument.expiry,
        "seconds": one.seconds,
        "spot": format_decimal(one.spot, places=2),
        "value": format_decimal(one.value, places=2),
        "distance": None if one.distance is None else f"{one.distance:.6f}",
        "one_deviation": None if one.deviation is None else f"{one.deviation:.6f}",
        "pinned": one.pinned,
    }


class ExpiryMethods(Requests):
    """The API's method about expiries."""

    async def expiries(self, params: Params) -> Json:
        """What expires soon, with its pin risk, and how what has expired was settled."""
        chosen = [self._actor(params)] if params.get("channel") is not None else list(self.node.actors.values())
        within_s = min(max(take(params, "within_s", int, SOON_S), 0), LONGEST_S)
        rows: list[Json] = []
        for actor in chosen:
            if actor.record.status == "closed":
                continue
            prices = await self._prices(actor)
            found = expiring(actor.state.body, actor.channel.side, prices, within_s)
            rows += [{"channel": "0x" + actor.id.hex(), **expiring_data(one)} for one in found]
        return {"expiring": rows, "settled": await self._settled({actor.id for actor in chosen})}

    async def _settled(self, channels: set[bytes]) -> list[Json]:
        """The settlement of each position, the newest last."""
        rows: list[Json] = []
        for channel in sorted(channels):
            events = await self.node.store.events(0, MOST_EVENTS, channel)
            while len(events) == MOST_EVENTS:
                later = await self.node.store.events(events[-1].sequence, MOST_EVENTS, channel)
                if not later:
                    break
                rows += _rows(channel, events)
                events = later
            rows += _rows(channel, events)
        return rows


def _rows(channel: bytes, events: tuple[EventRecord, ...]) -> list[Json]:
    return [
        {"channel": "0x" + channel.hex(), "time_ms": event.time_ms, **json.loads(event.data)}
        for event in events
        if event.kind == "expired_settled"
    ]
