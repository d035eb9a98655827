"""The API's methods about quotes: asking, quoting, taking, and the promises that were broken."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import TYPE_CHECKING

from channeld.core.describe import leg_data
from channeld.core.errors import ChanneldError
from channeld.core.instruments import parse_instrument
from channeld.core.wad import format_decimal, parse_decimal
from channeld.daemon.novation import CannotNovateError, answered, check_price, cost, landed
from channeld.daemon.parameters import BadParameterError, Json, Params, objects, seconds, take
from channeld.daemon.requests import NotConnectedPeerError, Requests
from channeld.daemon.rfq import TwoWay, UnknownRfqError, refusal
from channeld.desk.combos import parse_combo
from channeld.desk.offers import OfferRefusedError
from channeld.desk.quotes import DEFAULT_LIFETIME_MS, MAX_LIFETIME_MS, Way, describe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from channeld.core.state import Instrument
    from channeld.daemon.actor import Actor
    from channeld.daemon.rfq import OurRequest, Received, TheirRequest
    from channeld.desk.quotes import TakenQuote

WAYS = {"two-way": Way.TWO_WAY, "buy": Way.BUY, "sell": Way.SELL}
TAKE_WAIT_S = 10.0
_HEX_ID = re.compile(r"[0-9a-f]{32}")


def hex_id(params: Params, name: str) -> bytes:
    """A parameter of 16 bytes in hexadecimal.

    Raises:
        BadParameterError: it is none.
    """
    text = take(params, name, str)
    if not _HEX_ID.fullmatch(text):
        raise BadParameterError(f"the parameter {name!r} has 32 hexadecimal digits")
    return bytes.fromhex(text)


def positive(params: Params, name: str, default: Json = ...) -> int:
    """A positive decimal as a wad.

    Raises:
        BadParameterError, MalformedNumberError: it is none.
    """
    found = parse_decimal(take(params, name, str, default))
    if not 0 < found < 1 << 95:
        raise BadParameterError(f"the parameter {name!r} must be positive, and below 2**95 wads")
    return found


def optional_price(params: Params, name: str) -> int | None:
    """A decimal as a wad, negative where a combo pays; None where it is not given."""
    text = take(params, name, str, None)
    return None if text is None else parse_decimal(text)


def _wanted(rows: Sequence[Params]) -> dict[Instrument, int]:
    return {parse_instrument(take(row, "instrument", str)): positive(row, "size") for row in rows}


class QuoteMethods(Requests):
    """Requests and quotes."""

    def quote_table(self) -> dict[str, Callable[[Params], Awaitable[Json]]]:
        """The methods by name."""
        return {
            "private/rfq": self.rfq,
            "private/rfqs": self.rfqs,
            "private/quote": self.quote,
            "private/quote_pass": self.quote_pass,
            "private/quote_take": self.quote_take,
            "private/quotes_broken": self.quotes_broken,
            "private/novate": self.novate,
        }

    async def rfq(self, params: Params) -> Json:
        """Ask peers for firm quotes; wait for them a little; take the best where told to."""
        combo = parse_combo(take(params, "instrument", str))
        size = positive(params, "size")
        way = WAYS.get(take(params, "side", str, "two-way"))
        if way is None:
            raise BadParameterError("'side' is buy, sell or two-way")
        auto = take(params, "take_best", str, None)
        if auto is not None and auto not in {"buy", "sell"}:
            raise BadParameterError("'take_best' is buy or sell")
        if auto is not None and way not in {Way.TWO_WAY, WAYS[auto]}:
            raise BadParameterError("'take_best' is not the side that was asked for")
        limit = optional_price(params, "limit")
        lifetime = int(seconds(take(params, "lifetime_s", (int, float, str), 0.0)) * 1000) or DEFAULT_LIFETIME_MS
        wait_s = seconds(take(params, "wait_s", (int, float, str), 5.0))
        node = self.node
        until = node.clock.now_ms() + min(lifetime, MAX_LIFETIME_MS)
        ours = await node.rfq.ask(
            combo,
            size,
            way,
            self._asked(take(params, "peers", list, None)),
            until,
            all_or_none=take(params, "all_or_none", bool, False),
        )
        await self._wait(ours, wait_s)
        result = self._ours(ours)
        if auto is None:
            return {**result, "taken": []}
        chosen = node.rfq.best(ours, buys=auto == "buy", limit=limit)
        taken = await asyncio.gather(*(self._take(received) for received in chosen))
        return {**result, "taken": taken}

    def _asked(self, named: list[Json] | None) -> list[Actor]:
        """The channels of the peers named; of all peers where none is."""
        actors = [a for a in self.node.actors.values() if a.record.status == "open"]
        if named is None:
            return actors
        if not all(isinstance(name, str) for name in named):
            raise BadParameterError("every entry of 'peers' must be a name or an address")
        peers = {self._peer({"peer": name}) for name in named}
        return [actor for actor in actors if actor.peer in peers]

    async def _wait(self, ours: OurRequest, wait_s: float) -> None:
        end = asyncio.get_running_loop().time() + wait_s
        while ours.waiting:
            left = end - asyncio.get_running_loop().time()
            ours.news.clear()
            if left <= 0:
                return
            try:
                await asyncio.wait_for(ours.news.wait(), left)
            except TimeoutError:
                return

    def _ours(self, ours: OurRequest) -> dict[str, Json]:
        quotes = sorted(ours.quotes.values(), key=lambda q: (not q.reading.buys, q.reading.price))
        names = {a.id: self.node.name(a.peer) for a in self.node.actors.values()}
        return {
            **describe(ours.request),
            "asked": [names[channel] for channel in ours.channels],
            "waiting": [names[channel] for channel in ours.channels if channel in ours.waiting],
            "passed": {names[channel]: reason for channel, reason in ours.passed.items()},
            "quotes": [self._received(received) for received in quotes],
        }

    def _received(self, received: Received) -> dict[str, Json]:
        actor = self.node.actors[received.channel]
        quote = received.quote
        taken = self.node.rfq.taken.get(quote.id)
        status = str(taken.status) if taken else "expired" if quote.expired(self.node.clock.now_ms()) else "firm"
        return {
            "id": quote.id.hex(),
            "peer": self.node.name(actor.peer),
            "channel": "0x" + actor.id.hex(),
            "side": "buy" if received.reading.buys else "sell",
            "price": format_decimal(received.reading.price),
            "size": format_decimal(received.reading.size),
            "valid_until_ms": quote.valid_until * 1000 + 999,
            "status": status,
            "legs": [leg_data(leg, actor.channel.side) for leg in quote.trade.legs],
        }

    async def _take(self, received: Received, wait_s: float = TAKE_WAIT_S) -> dict[str, Json]:
        shown = self._received(received)
        try:
            future = await self.node.rfq.take(received)
            version = await asyncio.wait_for(asyncio.shield(future), wait_s)
        except TimeoutError:
            return {**shown, "status": "taken"}
        except OfferRefusedError as error:
            told = refusal(error)
            return {**shown, "status": "refused", "code": told.code, "reason": str(told)}
        except ChanneldError as error:
            return {**shown, "status": "not taken", "code": error.code, "reason": str(error)}
        return {**shown, "status": "done", "version": version}

    async def quote_take(self, params: Params) -> Json:
        """Take a quote that was given to us."""
        received = self.node.rfq.find(hex_id(params, "id"))
        actor = self.node.actors[received.channel]
        if not actor.channel.synced:
            raise NotConnectedPeerError(f"{self.node.name(actor.peer)} is not connected")
        future = await self.node.rfq.take(received)
        shown = self._received(received)
        try:
            version = await asyncio.wait_for(
                asyncio.shield(future), seconds(take(params, "wait_s", (int, float, str), TAKE_WAIT_S))
            )
        except TimeoutError:
            return {**shown, "status": "taken"}
        except OfferRefusedError as error:
            raise refusal(error) from error
        return {**shown, "status": "done", "version": version}

    async def rfqs(self, _: Params) -> Json:
        """Requests: ours with what was quoted, and the peers' that wait for a quote."""
        desk, now = self.node.rfq, self.node.clock.now_ms()
        ours = [self._ours(one) for one in desk.ours.values() if one.request.valid_until_ms >= now]
        theirs = [
            {**describe(one.request), "peer": self.node.name(one.actor.peer), "channel": "0x" + one.actor.id.hex()}
            for one in desk.theirs.values()
            if one.request.valid_until_ms >= now
        ]
        given = [
            {
                "id": one.quote.id.hex(),
                "rfq": one.quote.rfq.hex(),
                "peer": self.node.name(self.node.actors[one.channel].peer),
                "valid_until_ms": one.quote.valid_until * 1000 + 999,
                "status": "expired" if one.status == "firm" and one.quote.expired(now) else str(one.status),
                "legs": [leg_data(leg, self.node.actors[one.channel].channel.side) for leg in one.quote.trade.legs],
            }
            for one in desk.given.held.values()
        ]
        return {"ours": ours, "theirs": theirs, "given": given}

    def _theirs(self, rfq: bytes) -> TheirRequest:
        theirs = self.node.rfq.theirs.get(rfq)
        if theirs is None:
            raise UnknownRfqError(f"no request {rfq.hex()} waits for a quote")
        return theirs

    async def quote(self, params: Params) -> Json:
        """Give firm quotes to a peer's request: a bid, an ask, or both, of one unit."""
        theirs = self._theirs(hex_id(params, "rfq"))
        size = positive(params, "size", format_decimal(theirs.request.size))
        valid_for = int(seconds(take(params, "valid_s", (int, float, str), 30.0)))
        prices = TwoWay(optional_price(params, "bid"), optional_price(params, "ask"), size, valid_for)
        given = await self.node.rfq.quote(theirs, prices)
        return {
            **describe(theirs.request),
            "given": [
                {
                    "id": one.quote.id.hex(),
                    "valid_until_ms": one.quote.valid_until * 1000 + 999,
                    "legs": [leg_data(leg, theirs.actor.channel.side) for leg in one.quote.trade.legs],
                }
                for one in given
            ],
        }

    async def quote_pass(self, params: Params) -> Json:
        """Tell a peer that no quote comes."""
        theirs = self._theirs(hex_id(params, "rfq"))
        await self.node.rfq.pass_on(theirs, take(params, "reason", str, "no quote"))
        return {"rfq": theirs.request.rfq.hex(), "status": "passed"}

    async def novate(self, params: Params) -> Json:
        """Move positions to another channel, by firm quotes of both peers that are taken together or not at all."""
        source, target = self._actor(params), self._actor({"channel": take(params, "to", str)})
        given = take(params, "positions", list, None)
        wanted = None if given is None else _wanted(objects(given, "positions"))
        price, most = optional_price(params, "price"), optional_price(params, "max_cost") or 0
        if price is not None and (wanted is None or len(wanted) != 1):
            raise BadParameterError("'price' is of one position; name it, and no other")
        wait_s = seconds(take(params, "wait_s", (int, float, str), 30.0))
        for actor in (source, target):
            self._need_peer(actor)
        node, until = self.node, self.node.clock.now_ms() + DEFAULT_LIFETIME_MS
        moves = node.novations.moves(source, target, wanted)
        parts = await node.novations.ask(source, target, moves, until)
        await answered(parts, wait_s)
        told = {"parts": [{"close": self._ours(part.closing), "open": self._ours(part.opening)} for part in parts]}
        pairs = [pair for pair in (part.quotes() for part in parts) if pair is not None]
        if len(pairs) < len(parts):
            return {**told, "status": "not quoted", "cost": None, "taken": []}
        if price is not None:
            check_price(pairs, price)
        net = cost(pairs)
        if net > most:
            raise CannotNovateError(
                f"the quotes cost {format_decimal(net)} together, and {format_decimal(most)} was allowed"
            )
        ended = await landed(await node.novations.take(pairs), TAKE_WAIT_S)
        taken = []
        for received, end in zip((r for pair in pairs for r in pair), ended, strict=True):
            row = self._received(received)
            if isinstance(end, OfferRefusedError):
                row |= {"status": "refused", "code": refusal(end).code, "reason": str(refusal(end))}
            elif isinstance(end, ChanneldError):
                row |= {"status": "not done", "code": end.code, "reason": str(end)}
            else:
                row |= {"status": "taken"} if end is None else {"status": "done", "version": end}
            taken.append(row)
        done = sum(row["status"] == "done" for row in taken)
        status = (
            "done" if done == len(taken) else "on its way" if None in ended else "done in part" if done else "refused"
        )
        return {**told, "status": status, "cost": format_decimal(net), "taken": taken}

    async def quotes_broken(self, _: Params) -> Json:
        """Firm quotes that their makers refused: both signatures, and how many by each peer."""
        rows = [self._broken(taken) for taken in self.node.rfq.broken()]
        return {"count": dict(Counter(row["peer"] for row in rows)), "broken": rows}

    def _broken(self, taken: TakenQuote) -> dict[str, Json]:
        actor = self.node.actors[taken.channel]
        typed = taken.quote.typed(taken.channel)
        return {
            "id": taken.quote.id.hex(),
            "peer": self.node.name(actor.peer),
            "time_ms": taken.time_ms,
            "code": taken.code,
            "reason": taken.reason,
            "quote": {
                "channel": "0x" + typed.channel.hex(),
                "quoteId": "0x" + typed.quote_id.hex(),
                "maker": typed.maker,
                "legsHash": "0x" + typed.legs_hash.hex(),
                "validUntil": typed.valid_until,
            },
            "legs": [leg_data(leg, actor.channel.side) for leg in taken.quote.trade.legs],
            "batch": "0x" + taken.batch.hex(),
            "maker_signature": "0x" + taken.maker_signature.hex(),
            "taker_signature": "0x" + taken.taker_signature.hex(),
        }
