"""Requests for quote, firm quotes, and what becomes of them (docs/protocol.md, sections 3 and 12).

Theory: a quote is the TRADE that it will become, whole: its legs, its fee, and a reference that is the quote's id and
nothing else, so that the `legsHash` which the maker signs binds every byte. Who takes it sends an offer whose id is
the quote's and signs the same Quote; with both signatures either can show what the other had promised and accepted.

Rules:
* A quote can be taken by its exact trade, until its last second, once; and of all quotes that a maker gave to one
  request in one channel, one. The same taking again changes nothing.
* The maker has no last look: what it signed, and what is in time and unused, it agrees to, if both parties' margin
  holds. A refusal of such a quote is recorded by the taker with both signatures.
* A quote answers its request: the same legs in the same ratios, the side that was asked for, all of the size where the
  request is all-or-none, else at most that. Quotes are taken whole; in parts, by taking quotes of several makers.
* A request binds nobody.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from channeld.core.codec import decode, encode
from channeld.core.eip712 import Domain, Quote, quote_digest
from channeld.core.errors import ChanneldError, Fault, PeerError, RuleError
from channeld.core.operations import Trade, legs_hash, operation_fields, operation_from_fields, wide
from channeld.core.state import Instrument, Kind
from channeld.core.wad import WAD, format_decimal
from channeld.desk.combos import Combo, ComboLeg, combo_name

if TYPE_CHECKING:
    from collections.abc import Iterable

ID_BYTES: Final = 16
DEFAULT_LIFETIME_MS: Final = 300_000
MAX_LIFETIME_MS: Final = 600_000
MAX_REQUEST_BYTES: Final = 4_096
MAX_QUOTE_BYTES: Final = 8_192
_MAX_SIZE: Final = 1 << 95


class BadQuoteError(PeerError):
    """A request or a quote of a peer that is malformed, does not fit what was asked, or is not signed by it."""

    code = 3346
    advice = "Nothing was agreed. The peer's quoting program is wrong; its operator must correct it."


class QuoteRefusedError(PeerError):
    """The maker refused its own firm quote, in time and unused, or did not answer."""

    code = 3347
    advice = "It is recorded with both signatures: `private/quotes_broken` shows it. Ask another maker."


class QuoteExpiredError(RuleError):
    """The quote's last second has passed."""

    code = 2451
    advice = "Ask for a new quote."


class QuoteUsedError(RuleError):
    """The quote, or another of the same answer, has been taken already."""

    code = 2452
    advice = "A quote is good for one trade: ask for a new one."


class QuoteAlteredError(RuleError):
    """What is to be traded is not what the quote says."""

    code = 2453
    advice = "A quote is taken as it is, whole."


class UnknownQuoteError(RuleError):
    """This desk has given no such quote."""

    code = 2454
    advice = "The desk that gave it may have lost its records, or the id is mistyped."


class NotQuotableError(RuleError):
    """This desk gives no such quote: its request is over, or the answer does not fit it."""

    code = 2455
    fault = Fault.USER
    advice = "List the open requests with `channeld quote list`."


class Way(IntEnum):
    """What the one who asks wants to do; unsaid, makers quote both ways."""

    TWO_WAY = 0
    BUY = 1
    SELL = 2


class QuoteStatus(StrEnum):
    """Where a quote stands."""

    FIRM = "firm"
    TAKEN = "taken"
    DONE = "done"
    REFUSED = "refused"
    VOID = "void"


def _check(condition: bool, rule: str) -> None:  # noqa: FBT001 - an assertion with a typed error
    if not condition:
        raise BadQuoteError(rule)


@dataclass(frozen=True, slots=True)
class QuoteRequest:
    """What is asked. rfq: 16 bytes; size: of the combo, wads, positive; valid_until_ms: the end of the request."""

    rfq: bytes
    combo: Combo
    size: int
    way: Way
    all_or_none: bool
    valid_until_ms: int

    def __post_init__(self) -> None:
        """Refuse what is no request."""
        _check(len(self.rfq) == ID_BYTES, "a request's id has 16 bytes")
        _check(0 < self.size < _MAX_SIZE, "a request's size lies in 1..2**95-1 wads")
        _check(0 <= self.valid_until_ms < 1 << 63, "a request's end is beyond the calendar")
        self.combo.sizes(self.size)

    def encode(self) -> bytes:
        """As it travels."""
        legs = [
            [
                int(leg.instrument.kind),
                leg.instrument.feed,
                leg.instrument.expiry,
                wide(leg.instrument.strike),
                wide(leg.ratio),
            ]
            for leg in self.combo.legs
        ]
        return encode([self.rfq, legs, wide(self.size), int(self.way), self.all_or_none, self.valid_until_ms])


def _integer(value: object, name: str) -> int:
    if type(value) is not int:
        raise BadQuoteError(f"{name} must be an integer")
    return value


def _wide(value: object, name: str) -> int:
    return int.from_bytes(_bytes(value, 16, name), "big", signed=True)


def _bytes(value: object, size: int, name: str) -> bytes:
    if type(value) is not bytes or len(value) != size:
        raise BadQuoteError(f"{name} must be {size} bytes")
    return value


def _array(value: object, size: int, name: str) -> list[Any]:
    if type(value) is not list or len(value) != size:
        raise BadQuoteError(f"{name} must be an array of {size}")
    return value


def read_instrument(value: object) -> Instrument:
    """An instrument of `[kind, feed, expiry, strike]`.

    Raises:
        BadQuoteError: it is none.
    """
    kind, feed, expiry, strike = _array(value, 4, "an instrument")
    if type(kind) is not int or not 0 <= kind <= max(Kind):
        raise BadQuoteError("an instrument's kind is 0 to 3")
    try:
        return Instrument(
            Kind(kind), _bytes(feed, 32, "a feed"), _integer(expiry, "an expiry"), _wide(strike, "a strike")
        )
    except BadQuoteError:
        raise
    except ChanneldError as error:
        raise BadQuoteError(f"no instrument: {error}") from error


def read_request(raw: bytes, now_ms: int) -> QuoteRequest:
    """A peer's request, checked.

    Raises:
        BadQuoteError, CodecError: it is none, its time is over, or it would live too long.
    """
    rfq, legs, size, way, all_or_none, until = _array(decode(raw, MAX_REQUEST_BYTES), 6, "a request")
    if type(legs) is not list:
        raise BadQuoteError("a request's legs must be an array")
    if type(way) is not int or way not in set(Way) or type(all_or_none) is not bool:
        raise BadQuoteError("a request's side is 0 to 2, and all-or-none a truth value")
    try:
        found = tuple(ComboLeg(read_instrument(_array(leg, 5, "a leg")[:4]), _wide(leg[4], "a ratio")) for leg in legs)
        request = QuoteRequest(
            _bytes(rfq, ID_BYTES, "a request's id"),
            Combo(found),
            _wide(size, "a size"),
            Way(way),
            all_or_none,
            _integer(until, "a request's end"),
        )
    except PeerError:
        raise
    except ChanneldError as error:
        raise BadQuoteError(f"no request: {error}") from error
    _check(now_ms <= request.valid_until_ms, "the request's time is over")
    _check(request.valid_until_ms <= now_ms + MAX_LIFETIME_MS, f"a request lives at most {MAX_LIFETIME_MS // 1000} s")
    return request


@dataclass(frozen=True, slots=True)
class FirmQuote:
    """A quote: the TRADE it becomes, whose reference is the quote's id. valid_until: its last second (Unix)."""

    rfq: bytes
    trade: Trade
    valid_until: int

    @property
    def id(self) -> bytes:
        """16 bytes."""
        return self.trade.reference

    @property
    def maker(self) -> int:
        """The side that gives it; the other takes it, and is the trade's origin."""
        return 1 - self.trade.origin

    def typed(self, channel: bytes) -> Quote:
        """What both sign."""
        trade = self.trade
        return Quote(channel, self.id, self.maker, legs_hash(trade.legs, trade.fee, trade.reference), self.valid_until)

    def digest(self, domain: Domain, channel: bytes) -> bytes:
        """The digest of what both sign."""
        return quote_digest(domain, self.typed(channel))

    def encode(self) -> bytes:
        """As it travels and is kept."""
        return encode([self.rfq, operation_fields(self.trade), self.valid_until])

    def expired(self, now_ms: int) -> bool:
        """Whether its last second has passed."""
        return now_ms // 1000 > self.valid_until


def read_quote(raw: bytes) -> FirmQuote:
    """A quote from its bytes.

    Raises:
        BadQuoteError, CodecError, RuleError: it is none.
    """
    rfq, fields, until = _array(decode(raw, MAX_QUOTE_BYTES), 3, "a quote")
    trade = operation_from_fields(fields)
    if not isinstance(trade, Trade) or len(trade.reference) != ID_BYTES:
        raise BadQuoteError("a quote holds a TRADE whose reference is its id of 16 bytes")
    _check(0 <= _integer(until, "a quote's end") < 1 << 63, "a quote's end is beyond the calendar")
    return FirmQuote(_bytes(rfq, ID_BYTES, "a request's id"), trade, until)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a quote means to the one who asked: whether it buys, how much of the combo, and the cost of one unit.

    size and unit price are wads; cost: of the whole quote, in wads of wads, exact.
    """

    buys: bool
    size: int
    cost: int

    @property
    def price(self) -> int:
        """Of one unit of the combo, wads, rounded down: negative where the taker of a long side is paid."""
        return (self.cost if self.buys else -self.cost) // self.size


def check_answer(request: QuoteRequest, quote: FirmQuote) -> Reading:
    """What a quote means for a request.

    Raises:
        BadQuoteError: it is no answer to it: other legs or ratios, another side, too large, or not all of it.
    """
    _check(quote.rfq == request.rfq, "the quote answers another request")
    trade = quote.trade
    _check(trade.fee == 0, "a quote asks for no fee beside its price")
    keys = [leg.instrument for leg in trade.legs]
    _check(keys == [leg.instrument for leg in request.combo.legs], "the quote's legs are not those asked for")
    sign = -1 if trade.origin else 1
    first, asked = sign * trade.legs[0].size_delta, request.combo.legs[0].ratio
    buys = (first > 0) == (asked > 0)
    size, rest = divmod(abs(first) * WAD, abs(asked))
    _check(not rest, "the quote's size is no size of the combo")
    direction = size if buys else -size
    _check(
        all(
            sign * leg.size_delta * WAD == part.ratio * direction
            for leg, part in zip(trade.legs, request.combo.legs, strict=True)
        ),
        "the quote's legs do not have the ratios asked for",
    )
    wanted = {Way.TWO_WAY: True, Way.BUY: buys, Way.SELL: not buys}[request.way]
    _check(wanted, "the quote is for the other side")
    _check(
        size == request.size if request.all_or_none else size <= request.size, "the quote's size is not the one asked"
    )
    return Reading(buys, size, sum(sign * leg.size_delta * leg.price for leg in trade.legs))


def best_of(readings: Iterable[tuple[bytes, Reading]], size: int, *, buys: bool) -> tuple[bytes, ...]:
    """The quotes to take for `size`, whole, best price first; equal prices by size, then by id.

    A quote that is larger than what is left is passed over: quotes are never taken in part.
    """
    fitting = [(key, one) for key, one in readings if one.buys == buys]
    fitting.sort(key=lambda pair: (Fraction(pair[1].cost, pair[1].size), -pair[1].size, pair[0]))
    chosen, left = [], size
    for key, one in fitting:
        if one.size <= left:
            chosen.append(key)
            left -= one.size
    return tuple(chosen)


@dataclass(frozen=True, slots=True)
class GivenQuote:
    """A quote of ours, as the maker keeps it. batch: the offer that took it, empty before."""

    quote: FirmQuote
    channel: bytes
    signature: bytes
    status: QuoteStatus = QuoteStatus.FIRM
    batch: bytes = b""
    taker_signature: bytes = b""

    def pack(self) -> bytes:
        """For the store."""
        return encode(
            [self.quote.encode(), self.channel, self.signature, str(self.status), self.batch, self.taker_signature]
        )

    @classmethod
    def unpack(cls, raw: bytes) -> GivenQuote:
        """From the store."""
        quote, channel, signature, status, batch, taker = decode(raw)
        return cls(read_quote(quote), channel, signature, QuoteStatus(status), batch, taker)


@dataclass
class GivenQuotes:
    """The quotes that a desk has given. A method changes nothing where it raises; what it returns is to be durable."""

    held: dict[bytes, GivenQuote] = field(default_factory=dict)

    def give(self, given: GivenQuote) -> GivenQuote:
        """A new quote.

        Raises:
            QuoteUsedError: the id was used before, or the request has been traded on.
        """
        if given.quote.id in self.held:
            raise QuoteUsedError("a quote's id is used once")
        used = {QuoteStatus.TAKEN, QuoteStatus.DONE}
        for other in self.held.values():
            if (other.quote.rfq, other.channel) == (given.quote.rfq, given.channel) and other.status in used:
                raise QuoteUsedError("the peer has traded on this request already; it may ask anew")
        self.held[given.quote.id] = given
        return given

    def take(self, channel: bytes, trade: Trade, batch: bytes, signature: bytes, now_ms: int) -> tuple[GivenQuote, ...]:
        """A peer takes a quote: the records that change; none where it took it by the same offer already.

        Raises:
            UnknownQuoteError, QuoteAlteredError, QuoteUsedError, QuoteExpiredError: it cannot be taken.
        """
        given = self.held.get(trade.reference)
        if given is None or given.channel != channel:
            raise UnknownQuoteError(f"no quote {trade.reference.hex()[:32]} was given here")
        if trade != given.quote.trade:
            raise QuoteAlteredError("the trade is not the one that was quoted")
        if given.status in {QuoteStatus.TAKEN, QuoteStatus.DONE} and given.batch == batch:
            return ()
        if given.status is not QuoteStatus.FIRM:
            raise QuoteUsedError(f"the quote is {given.status} already")
        if given.quote.expired(now_ms):
            raise QuoteExpiredError(f"the quote's last second was {given.quote.valid_until}")
        taken = replace(given, status=QuoteStatus.TAKEN, batch=batch, taker_signature=signature)
        changed = [taken]
        for other in self.held.values():
            same = other.quote.rfq == given.quote.rfq and other.channel == channel
            if same and other.quote.id != given.quote.id and other.status is QuoteStatus.FIRM:
                changed.append(replace(other, status=QuoteStatus.VOID))
        self._put(changed)
        return tuple(changed)

    def became(self, quote_id: bytes, status: QuoteStatus) -> tuple[GivenQuote, ...]:
        """What became of a quote that was taken."""
        given = self.held.get(quote_id)
        if given is None or given.status is not QuoteStatus.TAKEN:
            return ()
        changed = [replace(given, status=status)]
        self._put(changed)
        return tuple(changed)

    def forget(self, before_ms: int) -> tuple[bytes, ...]:
        """Drop what nobody can take any more: quotes that were over, and not on their way, before a time; their ids."""
        over = [
            key
            for key, given in self.held.items()
            if given.quote.expired(before_ms) and given.status is not QuoteStatus.TAKEN
        ]
        for key in over:
            del self.held[key]
        return tuple(over)

    def _put(self, changed: Iterable[GivenQuote]) -> None:
        for given in changed:
            self.held[given.quote.id] = given


@dataclass(frozen=True, slots=True)
class TakenQuote:
    """A quote that we have taken, with both signatures. version: the channel's when it was taken, then the trade's."""

    quote: FirmQuote
    channel: bytes
    maker_signature: bytes
    taker_signature: bytes
    batch: bytes
    time_ms: int
    version: int
    status: QuoteStatus = QuoteStatus.TAKEN
    code: int = 0
    reason: str = ""

    def pack(self) -> bytes:
        """For the store."""
        return encode(
            [
                self.quote.encode(),
                self.channel,
                self.maker_signature,
                self.taker_signature,
                self.batch,
                self.time_ms,
                self.version,
                str(self.status),
                self.code,
                self.reason,
            ]
        )

    @classmethod
    def unpack(cls, raw: bytes) -> TakenQuote:
        """From the store."""
        quote, channel, maker, taker, batch, time_ms, version, status, code, reason = decode(raw)
        return cls(read_quote(quote), channel, maker, taker, batch, time_ms, version, QuoteStatus(status), code, reason)


def describe(request: QuoteRequest) -> dict[str, Any]:
    """A request as data."""
    return {
        "rfq": request.rfq.hex(),
        "instrument": combo_name(request.combo),
        "size": format_decimal(request.size),
        "side": request.way.name.lower().replace("_", "-"),
        "all_or_none": request.all_or_none,
        "valid_until_ms": request.valid_until_ms,
    }
