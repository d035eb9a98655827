"""Requests for quote at a desk: asking, quoting, taking, and the evidence of promises that were broken.

Rules: a quote is durable before it is sent, and so is its taking, with both signatures. What a peer takes of ours is
agreed to without asking anybody, where desk/quotes.py lets it be taken and the margin of both holds: it becomes an
agreed offer in the same commit that uses the quote up. Requests and quotes that nobody took bind nobody and are not
kept. A peer may have so many requests open, and no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from channeld.core import records, wire
from channeld.core.crypto import SignatureError, verify
from channeld.core.errors import ChanneldError, InputError, PeerError, StoreError
from channeld.core.operations import Batch, Trade, decode_batch, encode_batch
from channeld.daemon.leg_values import quoted_trade
from channeld.desk.offers import OfferRecord, OfferRefusedError, Status, read_offer
from channeld.desk.quotes import (
    BadQuoteError,
    FirmQuote,
    GivenQuote,
    GivenQuotes,
    NotQuotableError,
    QuoteExpiredError,
    QuoteRefusedError,
    QuoteRequest,
    QuoteStatus,
    QuoteUsedError,
    Reading,
    TakenQuote,
    Way,
    best_of,
    check_answer,
    read_quote,
    read_request,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from channeld.core.transition import Applied
    from channeld.daemon.actor import Actor
    from channeld.daemon.node import Node
    from channeld.desk.combos import Combo

log = structlog.get_logger(__name__)

GIVEN_DOCUMENT, TAKEN_DOCUMENT = "quote_given", "quote_taken"
MOST_REQUESTS: Final = 256
MOST_QUOTES: Final = 256
TAKE_LIFE_MS: Final = 15_000
KEEP_MS: Final = 3_600_000
FORGET_EVERY_MS: Final = 60_000


class UnknownRfqError(InputError):
    """There is no such request, or no such quote to take."""

    code = 1231
    advice = "List requests and quotes with `channeld quote list`."


class NobodyToAskError(InputError):
    """No channel can be asked for a quote now."""

    code = 1232
    advice = "Check the peers with `channeld peer list` and the channels with `channeld channel list`."


class TooManyRequestsError(PeerError):
    """A peer has more requests open than this desk keeps."""

    code = 3348
    advice = "Wait until earlier requests are over."


@dataclass(frozen=True, slots=True)
class TwoWay:
    """A maker's prices of one unit of a combo, wads; None for no price. sizes: of the combo, wads."""

    bid: int | None
    ask: int | None
    size: int
    valid_for_s: int = 30


class Quoter(Protocol):
    """What answers requests by itself."""

    async def quote(self, actor: Actor, request: QuoteRequest) -> TwoWay | None:
        """Prices, or None to leave the request to a person."""
        ...


@dataclass(frozen=True, slots=True)
class Received:
    """A quote that a peer gave us."""

    quote: FirmQuote
    signature: bytes
    channel: bytes
    reading: Reading


@dataclass
class OurRequest:
    """A request of ours. waiting: the channels that have not answered; passed: why those give no quote."""

    request: QuoteRequest
    channels: tuple[bytes, ...]
    waiting: set[bytes]
    quotes: dict[bytes, Received] = field(default_factory=dict)
    passed: dict[bytes, str] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def answered(self, channel: bytes) -> None:
        """One channel has spoken."""
        self.waiting.discard(channel)
        self.news.set()


@dataclass
class TheirRequest:
    """A peer's request."""

    request: QuoteRequest
    actor: Actor


class RfqDesk:
    """All requests and quotes of a node."""

    def __init__(self, node: Node) -> None:
        """Nothing asked, nothing given."""
        self._node = node
        self.ours: dict[bytes, OurRequest] = {}
        self.theirs: dict[bytes, TheirRequest] = {}
        self.given = GivenQuotes()
        self.taken: dict[bytes, TakenQuote] = {}
        self.quoter: Quoter | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._forget_again_ms = 0

    async def load(self) -> None:
        """Read what is durable; look up in the journals what became of quotes that were on their way."""
        store = self._node.store
        for _, raw in await store.documents(GIVEN_DOCUMENT):
            given = GivenQuote.unpack(raw)
            self.given.held[given.quote.id] = given
        for _, raw in await store.documents(TAKEN_DOCUMENT):
            taken = TakenQuote.unpack(raw)
            self.taken[taken.quote.id] = taken
        for taken in [t for t in self.taken.values() if t.status is QuoteStatus.TAKEN]:
            for batch in await store.batches(taken.channel, taken.version + 1):
                if any(op == taken.quote.trade for op in decode_batch(batch.raw).operations):
                    await self._put_taken(replace(taken, status=QuoteStatus.DONE, version=batch.version))
                    break

    async def stop(self) -> None:
        """End what runs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _background(self, work: Any) -> None:  # noqa: ANN401 - any coroutine
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def route(self, actor: Actor, message: wire.Message) -> None:
        """A peer's message about quotes."""
        match message:
            case wire.RequestQuote(_, request):
                await self._asked(actor, request)
            case wire.GiveQuote(_, quote, signature):
                await self._received(actor, quote, signature)
            case wire.TakeQuote(_, batch, signature):
                await self.take_of_ours(actor, batch, signature)
            case wire.PassQuote(_, rfq, _, reason):
                await self._passed(actor, rfq, reason)

    # ------------------------------------------------------------------------------------------------- the taker

    async def ask(
        self, combo: Combo, size: int, way: Way, actors: Sequence[Actor], until_ms: int, *, all_or_none: bool
    ) -> OurRequest:
        """Ask peers for quotes.

        Raises:
            NobodyToAskError: none of them can be reached now.
        """
        asked = [actor for actor in actors if actor.channel.synced and not actor.channel.frozen]
        if not asked:
            raise NobodyToAskError("no peer of an open channel is connected")
        request = QuoteRequest(secrets.token_bytes(16), combo, size, way, all_or_none, until_ms)
        channels = tuple(actor.id for actor in asked)
        ours = self.ours[request.rfq] = OurRequest(request, channels, set(channels))
        raw = request.encode()
        for actor in asked:
            await self._node.send(actor.peer, wire.RequestQuote(actor.id, raw))
        return ours

    async def _received(self, actor: Actor, raw: bytes, signature: bytes) -> None:
        """A quote for a request of ours; what does not fit ends nothing, and is told to the peer."""
        try:
            quote = read_quote(raw)
            ours = self.ours.get(quote.rfq)
            if ours is None or actor.id not in ours.channels:
                return  # over, or never asked: nobody is bound
            if quote.maker != 1 - actor.channel.side:
                raise BadQuoteError("the quote is not from its own side")
            reading = check_answer(ours.request, quote)
            if len(ours.quotes) >= MOST_QUOTES:
                raise BadQuoteError("more quotes than a request can have")
            try:
                verify(quote.digest(actor.channel.domain, actor.id), signature, actor.peer)
            except SignatureError as error:
                raise BadQuoteError(f"the quote is not signed by its maker: {error}") from error
        except StoreError:
            raise
        except ChanneldError as error:
            await self._node.emit("quote_refused", actor.id, code=error.code, reason=str(error))
            failure = wire.Failure(actor.id, error.code, str(error)[: wire.MAX_TEXT])
            await self._node.send(actor.peer, failure)
            return
        ours.quotes.setdefault(quote.id, Received(quote, signature, actor.id, reading))
        # a two-way answer is two quotes: it is whole when both sides have come
        sides = {q.reading.buys for q in ours.quotes.values() if q.channel == actor.id}
        if ours.request.way is not Way.TWO_WAY or len(sides) > 1:
            ours.answered(actor.id)
        ours.news.set()

    async def _passed(self, actor: Actor, rfq: bytes, reason: str) -> None:
        ours = self.ours.get(rfq)
        if ours is not None and actor.id in ours.waiting:
            ours.passed[actor.id] = "".join(c if c.isprintable() else "?" for c in reason)
            ours.answered(actor.id)
        theirs = self.theirs.get(rfq)
        if theirs is not None and theirs.actor is actor:
            del self.theirs[rfq]

    def best(self, ours: OurRequest, *, buys: bool, limit: int | None = None) -> tuple[Received, ...]:
        """The quotes to take for all that was asked, best first; none worse than `limit` a unit (wads)."""
        now = self._node.clock.now_ms()
        usable = {key: one for key, one in ours.quotes.items() if not one.quote.expired(now) and key not in self.taken}
        sign = 1 if buys else -1
        if limit is not None:
            usable = {k: one for k, one in usable.items() if one.reading.cost <= sign * limit * one.reading.size}
        chosen = best_of(((k, one.reading) for k, one in usable.items()), ours.request.size, buys=buys)
        # of one maker's answer only one quote can be taken
        found: dict[bytes, Received] = {}
        for key in chosen:
            found.setdefault(usable[key].channel, usable[key])
        return tuple(found.values())

    def find(self, quote_id: bytes) -> Received:
        """A quote that was given to us.

        Raises:
            UnknownRfqError: none with this id.
        """
        for ours in self.ours.values():
            if quote_id in ours.quotes:
                return ours.quotes[quote_id]
        raise UnknownRfqError(f"no quote {quote_id.hex()} waits for us")

    async def take(self, received: Received) -> asyncio.Future[int]:
        """Take a quote; the future gives the version of the trade, or why there is none.

        Raises:
            QuoteExpiredError, QuoteUsedError: it cannot be taken any more; nothing was sent.
            ChanneldError: our own check of rules and margin does not allow it.
        """
        (future,) = await self.take_together([received])
        return future

    async def take_together(
        self, several: Sequence[Received], also: Sequence[records.Write] = ()
    ) -> tuple[asyncio.Future[int], ...]:
        """Take quotes of any channels: all of it is durable, in one commit and with `also`, before any is sent.

        After a crash they are all sent again, or none was taken.

        Raises:
            QuoteExpiredError, QuoteUsedError, ChanneldError: as for `take`, of any of them; nothing was sent.
        """
        node = self._node
        trades: dict[bytes, list[Trade]] = {}
        for received in several:
            trades.setdefault(received.channel, []).append(received.quote.trade)
        self._check_free(several)
        for channel, operations in trades.items():
            await node.actors[channel].consider(tuple(operations))
        now = self._check_free(several)
        begun: list[tuple[Actor, OfferRecord, TakenQuote, asyncio.Future[int]]] = []
        for received in several:
            quote, actor = received.quote, node.actors[received.channel]
            batch = encode_batch(Batch(now + TAKE_LIFE_MS, quote.id, (quote.trade,)))
            signature = node.signer.sign_plain(quote.digest(actor.channel.domain, actor.id))
            taken = TakenQuote(quote, actor.id, received.signature, signature, batch, now, actor.state.version)
            offer = OfferRecord(batch, ours=True)
            begun.append((actor, offer, taken, actor.offers.expect(offer)))
            actor.offers.restore(offer)
            self.taken[quote.id] = taken
        writes = [w for actor, offer, taken, _ in begun for w in (actor.offers.write(offer), self._taken_write(taken))]
        try:
            await node.store.commit([*writes, *also])
        except ChanneldError as error:
            for actor, offer, _, _ in begun:
                actor.offers.fail(offer.key, error)
            raise
        for actor, offer, taken, future in begun:
            self._background(self._end_of(taken, future))
            await node.send(actor.peer, wire.TakeQuote(actor.id, offer.raw, taken.taker_signature))
        for rfq in {received.quote.rfq for received in several}:
            await self._tell_others(rfq)
        return tuple(future for *_, future in begun)

    def _check_free(self, several: Sequence[Received]) -> int:
        """The time (milliseconds) at which every one of these may still be taken."""
        now = self._node.clock.now_ms()
        for received in several:
            if received.quote.expired(now):
                raise QuoteExpiredError(f"the quote's last second was {received.quote.valid_until}")
            if received.quote.id in self.taken:
                raise QuoteUsedError("the quote has been taken already")
        return now

    async def _tell_others(self, rfq: bytes) -> None:
        """All that was asked for is taken: the makers whose quotes were not need not keep the request."""
        ours = self.ours.get(rfq)
        if ours is None:
            return
        taken = [q for key, q in ours.quotes.items() if key in self.taken]
        if sum(q.reading.size for q in taken) < ours.request.size:
            return
        chosen = {q.channel for q in taken}
        for channel in ours.channels:
            if channel not in chosen:
                peer = self._node.actors[channel].peer
                await self._node.send(peer, wire.PassQuote(channel, rfq, 0, "traded"))

    async def _end_of(self, taken: TakenQuote, future: asyncio.Future[int]) -> None:
        """What became of a quote that we took: a version, or evidence."""
        await asyncio.wait([future])
        error = None if future.cancelled() else future.exception()
        if error is None:
            return  # `agreed` has kept it
        refused = isinstance(error, OfferRefusedError)
        code = error.details.get("peer_code", error.code) if isinstance(error, ChanneldError) else 0
        status = QuoteStatus.REFUSED if refused else QuoteStatus.VOID
        broken = replace(taken, status=status, code=int(code), reason=str(error)[:256])
        with contextlib.suppress(StoreError):
            await self._put_taken(broken)
        if refused:
            await self._node.emit(
                "firm_quote_refused",
                taken.channel,
                quote=taken.quote.id.hex(),
                peer=self._node.name(self._node.actors[taken.channel].peer),
                code=code,
                reason=str(error),
            )

    def _taken_write(self, taken: TakenQuote) -> records.PutDocument:
        return records.PutDocument(TAKEN_DOCUMENT, taken.quote.id.hex(), taken.pack())

    async def _put_taken(self, taken: TakenQuote) -> None:
        self.taken[taken.quote.id] = taken
        await self._node.store.commit([self._taken_write(taken)])

    # ------------------------------------------------------------------------------------------------- the maker

    async def _asked(self, actor: Actor, raw: bytes) -> None:
        """A peer asks: kept for a person, or answered by the quoter."""
        now = self._node.clock.now_ms()
        request = read_request(raw, now)
        if request.rfq in self.theirs or request.rfq in self.ours:
            return
        self.theirs = {k: t for k, t in self.theirs.items() if t.request.valid_until_ms >= now}
        if sum(t.actor is actor for t in self.theirs.values()) >= MOST_REQUESTS:
            error = TooManyRequestsError(f"{MOST_REQUESTS} requests are open already")
            await self._node.send(actor.peer, wire.PassQuote(actor.id, request.rfq, error.code, str(error)))
            return
        self.theirs[request.rfq] = theirs = TheirRequest(request, actor)
        if self.quoter is not None:
            self._background(self._answer(theirs))
            return
        await self._node.emit("rfq_received", actor.id, rfq=request.rfq.hex(), peer=self._node.name(actor.peer))

    async def _answer(self, theirs: TheirRequest) -> None:
        """By the quoter; what it cannot quote is left to a person, with the reason."""
        actor, request = theirs.actor, theirs.request
        why = ""
        try:
            prices = await self.quoter.quote(actor, request) if self.quoter is not None else None
            if prices is not None:
                await self.quote(theirs, prices)
                return
        except ChanneldError as error:
            why = str(error)
        except Exception:
            log.exception("the quoter failed", rfq=request.rfq.hex())
            why = "the quoter failed"
        await self._node.emit(
            "rfq_received", actor.id, rfq=request.rfq.hex(), peer=self._node.name(actor.peer), why_it_waits=why
        )

    async def quote(self, theirs: TheirRequest, prices: TwoWay) -> tuple[GivenQuote, ...]:
        """Give firm quotes to a request; which sides, by what was asked.

        Raises:
            NotQuotableError: the request is over, or the prices do not fit it.
            ChanneldError: the quote could not be kept: rules, or a party's margin.
        """
        actor, request, node = theirs.actor, theirs.request, self._node
        now = node.clock.now_ms()
        if now > request.valid_until_ms:
            raise NotQuotableError("the request is over")
        if prices.size > request.size or (request.all_or_none and prices.size != request.size):
            raise NotQuotableError("the size quoted does not fit the request")
        if prices.bid is not None and prices.ask is not None and prices.bid > prices.ask:
            raise NotQuotableError("the bid lies above the ask")
        # a taker who buys lifts the ask
        sides = ((Way.BUY, prices.size, prices.ask), (Way.SELL, -prices.size, prices.bid))
        valid_until = now // 1000 + max(1, prices.valid_for_s)
        given = []
        for way, size, price in sides:
            if price is None or request.way not in {Way.TWO_WAY, way}:
                continue
            trade = await quoted_trade(actor, request.combo, size, price, now, secrets.token_bytes(16))
            await actor.consider((trade,))
            quote = FirmQuote(request.rfq, trade, valid_until)
            signature = node.signer.sign_plain(quote.digest(actor.channel.domain, actor.id))
            given.append(GivenQuote(quote, actor.id, signature))
        if not given:
            raise NotQuotableError("no price for the side that was asked for")
        await node.store.commit([self._given_write(self.given.give(one)) for one in given])
        for one in given:
            await node.send(actor.peer, wire.GiveQuote(actor.id, one.quote.encode(), one.signature))
        return tuple(given)

    async def pass_on(self, theirs: TheirRequest, reason: str) -> None:
        """Tell who asked that no quote comes."""
        self.theirs.pop(theirs.request.rfq, None)
        message = wire.PassQuote(theirs.actor.id, theirs.request.rfq, NotQuotableError.code, reason[: wire.MAX_TEXT])
        await self._node.send(theirs.actor.peer, message)

    def ours_is(self, actor: Actor, offer_id: bytes) -> bool:
        """Whether an offer's id is that of a quote that we gave in this channel."""
        given = self.given.held.get(offer_id)
        return given is not None and given.channel == actor.id

    async def take_of_ours(self, actor: Actor, raw: bytes, signature: bytes) -> None:
        """A peer takes a quote of ours: no last look. An offer sent again after a reconnection has no signature."""
        batch = decode_batch(raw)
        known = actor.offers.by_id(batch.salt)
        if known is not None:
            if not known.ours and known.raw == raw and known.status in {Status.AGREED, Status.DONE}:
                actor.services.post(actor.peer, wire.OfferReply(actor.id, known.id, 0, ""), b"")
            return
        now = self._node.clock.now_ms()
        try:
            offer = read_offer(raw, 1 - actor.channel.side, now)
            trade = offer.operation
            if not isinstance(trade, Trade):
                raise BadQuoteError("a quote is taken by a TRADE")
            given = self.given.held.get(batch.salt)
            if signature and given is not None:
                try:
                    verify(given.quote.digest(actor.channel.domain, actor.id), signature, actor.peer)
                except SignatureError as error:
                    raise BadQuoteError(f"the taking is not signed by the taker: {error}") from error
            await actor.rehearse((trade,))
            changed = self.given.take(actor.id, trade, raw, signature, now)
            await actor.agree_to(offer, [self._given_write(one) for one in changed])
            self.theirs.pop(changed[0].quote.rfq if changed else b"", None)
        except StoreError:
            raise
        except ChanneldError as error:
            await actor.reply_refused(batch.salt, error)
            await self._node.emit(
                "own_quote_refused", actor.id, quote=batch.salt.hex(), code=error.code, reason=str(error)
            )

    def _given_write(self, given: GivenQuote) -> records.PutDocument:
        return records.PutDocument(GIVEN_DOCUMENT, given.quote.id.hex(), given.pack())

    # ------------------------------------------------------------------------------------------------- both

    def concerned(self, applied: Applied) -> bool:
        """Whether a state may hold a trade that a quote became: there are quotes, and it trades."""
        if not self.taken and not self.given.held:
            return False
        return any(type(op) is Trade for op in applied.batch.operations)

    async def agreed(self, channel: bytes, applied: Applied) -> None:
        """A state is co-signed: the quotes that it fulfils are done."""
        writes: list[records.Write] = []
        for operation in applied.batch.operations:
            if not isinstance(operation, Trade):
                continue
            taken = self.taken.get(operation.reference)
            if taken is not None and taken.channel == channel:
                done = replace(taken, status=QuoteStatus.DONE, version=applied.state.version, code=0, reason="")
                self.taken[taken.quote.id] = done
                writes.append(self._taken_write(done))
            writes += [self._given_write(one) for one in self.given.became(operation.reference, QuoteStatus.DONE)]
        if writes:
            await self._node.store.commit(writes)

    def due(self, now_ms: int) -> None:
        """Forget what is over, now and then."""
        if now_ms >= self._forget_again_ms:
            self._forget_again_ms = now_ms + FORGET_EVERY_MS
            self._background(self._forget(now_ms))

    async def _forget(self, now_ms: int) -> None:
        self.ours = {k: o for k, o in self.ours.items() if o.request.valid_until_ms + KEEP_MS > now_ms}
        self.theirs = {k: t for k, t in self.theirs.items() if t.request.valid_until_ms >= now_ms}
        gone = self.given.forget(now_ms - KEEP_MS)
        if gone:
            with contextlib.suppress(StoreError):
                await self._node.store.commit([records.DropDocument(GIVEN_DOCUMENT, key.hex()) for key in gone])

    def broken(self) -> tuple[TakenQuote, ...]:
        """The firm quotes that their makers refused, with both signatures."""
        return tuple(taken for taken in self.taken.values() if taken.status is QuoteStatus.REFUSED)


def refusal(error: ChanneldError) -> QuoteRefusedError:
    """A maker's refusal as the one who took the quote is told it."""
    return QuoteRefusedError(str(error), peer_code=error.details.get("peer_code", error.code))
