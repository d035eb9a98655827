"""Risk arrays, SPAN's way to check a trade by additions: one exact integer per scenario, instrument and unit of size.

Rules: integers alone, the same ones as channeld/core/margin.py to the last digit. An array holds the change in value of
one unit in each scenario before any multiplication by a size; sums of size times array are exact, and are rounded once
for the whole market, where docs/arithmetic.md, section 5, says so. Arrays belong to one print (spot and time), one
carry and one vol: whatever of these changes, they are made anew. Nothing here is remembered between calls but by a
`RiskCache`, which its owner keeps; it is bounded, and what it forgets is computed again.

The eighteen numbers of an array travel as one integer of eighteen lanes of 256 bits, so that adding a position to a
book is one multiplication and one addition. A lane holds a signed sum (below 2**206, docs/arithmetic.md, section 6)
and borrows from the next one where it is negative; a bias of half a lane undoes that when lanes are read, and makes
their bytes sort as the numbers do.

Source of the method: Chicago Mercantile Exchange, "CME SPAN: Standard Portfolio Analysis of Risk" (2019), on risk
arrays; the scenarios are docs/protocol.md's, section 6.
"""

from __future__ import annotations

from collections import deque
from itertools import compress
from operator import is_not
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from channeld.core.fixedpoint import ln_q
from channeld.core.margin import (
    NEAR_INITIAL,
    NEAR_MAINTENANCE,
    MissingPriceError,
    UnknownMarketError,
    ceil_wad,
    check_price,
    scenarios,
    to_wad_equity,
    unit_changes,
)
from channeld.core.state import Kind
from channeld.core.terms import ZERO_FEED, feed_symbol
from channeld.core.valuation import clamp_tau, funding, position_profit, to_units
from channeld.core.wad import WAD, sdiv

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from channeld.core.state import Body, Position
    from channeld.core.terms import Market, Terms

# arrays kept per market and kind at one print; an offer may name any vol, so it must be bounded
MOST_ARRAYS = 1_024
# books kept: those of the batches in flight, which are judged by the one before
MOST_BOOKS = 8
SCENARIOS = 18
_ORDINARY = 14
FAR, SOON, NEAR = 0, 1, 2
_FUTURE = int(Kind.FUTURE)
_LANE_BITS, _LANE_BYTES = 256, 32
_HALF = 1 << (_LANE_BITS - 1)
_BIAS = sum(_HALF << (_LANE_BITS * n) for n in range(SCENARIOS))
_WAD_TWICE = WAD * WAD
_unpack = Struct(f"{_LANE_BYTES}s" * SCENARIOS).unpack
_from_bytes = int.from_bytes


def pack(changes: Sequence[int]) -> int:
    """Eighteen signed numbers, each below 2**255, as one integer; sums and multiples of such add lane by lane."""
    packed = 0
    for change in changes:
        packed = (packed << _LANE_BITS) + change
    return packed


def unpack(packed: int) -> list[int]:
    """The eighteen numbers of a packed integer."""
    lanes = _unpack((packed + _BIAS).to_bytes(_LANE_BYTES * SCENARIOS, "big"))
    return [_from_bytes(lane, "big") - _HALF for lane in lanes]


class RiskArray(NamedTuple):
    """One instrument at one print. now: the value of a unit (wad); packed: its changes (wads); bucket: how near."""

    now: int
    packed: int
    bucket: int


class Standing(NamedTuple):
    """What acceptance asks of a party: equity, initial and maintenance margin, wads."""

    equity: int
    initial: int
    maintenance: int

    @property
    def free(self) -> int:
        """Equity above the initial margin (wad); negative when there is none."""
        return self.equity - self.initial


class MarketArrays:
    """The arrays of one market at one print: spot (a wad) and time t (Unix seconds)."""

    __slots__ = ("_arrays", "_grid", "_logs", "charge_rate", "market", "spot", "t", "weights")

    def __init__(self, market: Market, spot: int, t: int) -> None:
        """Make the grid; arrays are made when first asked for.

        Raises:
            OutOfDomainError: a spot outside 1..2**96-1.
        """
        check_price(market.feed, spot)
        self.market = market
        self.spot = spot
        self.t = t
        self.charge_rate = ceil_wad(market.spread_charge * spot)
        self._grid = scenarios(market, spot)
        # the scenarios that do not count in full, and how much they do
        self.weights = tuple((n, s.weight) for n, s in enumerate(self._grid) if n >= _ORDINARY)
        self._logs = {price: ln_q(price) for price in {spot, *(s.price for s in self._grid)}}
        self._arrays: tuple[dict[tuple[int, int, int, int], RiskArray], ...] = ({}, {}, {}, {})

    def of(self, position: Position) -> RiskArray:
        """The array of a position's instrument at its carry and vol; it has not expired."""
        i = position.instrument
        held = self._arrays[i.kind]
        key = (i.expiry, i.strike, position.vol, position.carry)
        found = held.get(key)
        if found is None:
            left = i.expiry - self.t
            now, changes = unit_changes(position, self.spot, clamp_tau(left), self._grid, self._logs)
            bucket = FAR
            if i.kind != Kind.PERPETUAL:
                bucket = NEAR if left <= NEAR_MAINTENANCE else SOON if left <= NEAR_INITIAL else FAR
            if len(held) >= MOST_ARRAYS:
                held.clear()
            found = held[key] = RiskArray(now, pack(changes), bucket)
        return found


class _Need(NamedTuple):
    """One market's requirements of a and b, wads."""

    maintenance_a: int
    maintenance_b: int
    initial_a: int
    initial_b: int


class _Sums(NamedTuple):
    """A market's book: sums of size times array, a's view, scaled by WAD twice, packed with the bias; sizes, wads.

    whole: of all that is open; later: without what expires within one day; far: without what does within two.
    longs, shorts: of perpetuals and futures, for the spread charge; open: how many positions there are.
    """

    whole: int
    later: int
    far: int
    longs: int
    shorts: int
    open: int


_EMPTY = _Sums(_BIAS, _BIAS, _BIAS, 0, 0, 0)


def _scan(biased: int, weights: Sequence[tuple[int, int]]) -> tuple[int, int, int, int]:
    """Scan risk of a and b, and the worst loss of each at full weight: wads.

    Floors are monotone, so the worst of all scenarios of one weight decides for them: it alone is divided.
    """
    lanes = _unpack(biased.to_bytes(_LANE_BYTES * SCENARIOS, "big"))
    ordinary = lanes[:_ORDINARY]
    low = _from_bytes(min(ordinary), "big") - _HALF
    high = _from_bytes(max(ordinary), "big") - _HALF
    scan_a = -(low // WAD) if low < 0 else 0
    scan_b = -(-high // WAD) if high > 0 else 0
    # spelled out, not by min and max: this is the innermost step of a check
    for n, weight in weights:
        gain = _from_bytes(lanes[n], "big") - _HALF
        if gain < 0:
            if gain < low:  # noqa: PLR1730 - as said above
                low = gain
            # a product tells of most that no rounding makes them the worst
            if (WAD - gain) * weight > scan_a * _WAD_TWICE:
                loss = -((gain // WAD) * weight // WAD)
                if loss > scan_a:  # noqa: PLR1730 - as said above
                    scan_a = loss
        else:
            if gain > high:  # noqa: PLR1730 - as said above
                high = gain
            if (WAD + gain) * weight > scan_b * _WAD_TWICE:
                loss = -((-gain // WAD) * weight // WAD)
                if loss > scan_b:  # noqa: PLR1730 - as said above
                    scan_b = loss
    return scan_a, scan_b, -(low // WAD) if low < 0 else 0, -(-high // WAD) if high > 0 else 0


def _need(sums: _Sums, arrays: MarketArrays, initial_factor: int) -> _Need:
    """What a market's book requires of a and b."""
    charge = ceil_wad(arrays.charge_rate * min(sums.longs, sums.shorts)) if sums.longs and sums.shorts else 0
    whole = _scan(sums.whole, arrays.weights)
    later = whole if sums.later == sums.whole else _scan(sums.later, arrays.weights)
    far = later if sums.far == sums.later else _scan(sums.far, arrays.weights)
    scan_a, scan_b, loss_a, loss_b = whole
    if far is not whole:
        maintenance_a, maintenance_b = max(scan_a, later[0]) + charge, max(scan_b, later[1]) + charge
        scan_a, scan_b = max(scan_a, far[0]), max(scan_b, far[1])
        loss_a, loss_b = max(loss_a, far[2]), max(loss_b, far[3])
    else:
        maintenance_a, maintenance_b = scan_a + charge, scan_b + charge
    # the initial margin's own maintenance, near meaning two days
    base_a, base_b = scan_a + charge, scan_b + charge
    return _Need(
        maintenance_a,
        maintenance_b,
        max(maintenance_a, base_a, min(-(-initial_factor * base_a // WAD), loss_a + charge)),
        max(maintenance_b, base_b, min(-(-initial_factor * base_b // WAD), loss_b + charge)),
    )


class _Print(NamedTuple):
    """What a cache's figures belong to; wads and Unix seconds."""

    t: int
    spots: Mapping[bytes, int]
    collateral: int
    fixes: Mapping[tuple[bytes, int], int]


class BookRisk(NamedTuple):
    """A body's risk at one print. gain: a's profit since the marks, wads; parties: the standing of a and of b."""

    body: Body
    gain: int
    sums: Mapping[bytes, _Sums]
    needs: Mapping[bytes, _Need]
    parties: tuple[Standing, Standing]


def _difference(old: tuple[Position, ...], new: tuple[Position, ...]) -> tuple[Sequence[Position], Sequence[Position]]:
    """The positions that went and those that came. What stands unchanged is known by being the same object."""
    if old is new:
        return (), ()
    first = 0
    for x, y in zip(old, new, strict=False):
        if x is not y:
            break
        first += 1
    if len(old) == len(new):
        if first == len(old):
            return (), ()
        # what is the same object compares equal at once, so this is the fast way to see that no other changed
        if old[first + 1 :] == new[first + 1 :]:
            return (old[first],), (new[first],)
        changed = list(map(is_not, old, new))
        return tuple(compress(old, changed)), tuple(compress(new, changed))
    end_old, end_new = len(old), len(new)
    while end_old > first and end_new > first and old[end_old - 1] is new[end_new - 1]:
        end_old -= 1
        end_new -= 1
    return old[first:end_old], new[first:end_new]


def _pairs(
    gone: Sequence[Position], come: Sequence[Position]
) -> Iterable[tuple[Position, Position | None, Position | None]]:
    """(either, old, new): old and new together where an instrument only changed its size, so that one array serves."""
    if len(gone) == len(come):
        for x, y in zip(gone, come, strict=True):
            same = x.instrument is y.instrument or x.instrument == y.instrument
            if not same or x.vol != y.vol or x.carry != y.carry:
                break
        else:
            return zip(come, gone, come, strict=True)
    return (*((x, x, None) for x in gone), *((y, None, y) for y in come))


class RiskCache:
    """The arrays and the latest books of one set of terms, at one print at a time. Kept by whoever judges batches."""

    def __init__(self, terms: Terms) -> None:
        """An empty cache: it fills as it is asked."""
        self._terms = terms
        # wads in a unit of collateral that has no feed; 0 where it has one
        self._scale: int = 0 if terms.collateral_feed != ZERO_FEED else 10 ** (18 - terms.decimals)
        self._at = _Print(-1, {}, 0, {})
        self._markets: dict[bytes, MarketArrays] = {}
        self._books: deque[BookRisk] = deque(maxlen=MOST_BOOKS)

    def at(
        self, t: int, spots: Mapping[bytes, int], collateral: int, fixes: Mapping[tuple[bytes, int], int]
    ) -> RiskCache:
        """The cache for a print: time t (Unix seconds), spots and the collateral's price (wads), fixes (wads)."""
        held = self._at
        if held.t != t or held.spots != spots or held.collateral != collateral or held.fixes != fixes:
            self._markets = {
                feed: arrays
                for feed, arrays in self._markets.items()
                if arrays.t == t and arrays.spot == spots.get(feed)
            }
            self._books.clear()
            self._at = _Print(t, dict(spots), collateral, dict(fixes))
        return self

    def book(self, body: Body) -> BookRisk:
        """The risk of a body: as it was found before, or moved from a book that differs in a few positions, or anew.

        Raises:
            MissingPriceError: a feed of the book has no price.
            OutOfDomainError: a price outside 1..2**96-1.
            UnknownMarketError: a position's feed is not among the terms' markets.
        """
        books = self._books
        for held in books:
            if held.body is body:
                return held
        found = None
        for held in books:
            if held.body.as_of == body.as_of:
                gone, come = _difference(held.body.positions, body.positions)
                if len(gone) == 1 == len(come):
                    found = self._resized(held, body, gone[0], come[0])
                if found is None and (len(gone) + len(come) < len(body.positions) or not gone):
                    found = self._moved(held, body, gone, come)
                if found is not None:
                    break
        if found is None:
            found = self._moved(BookRisk(body, 0, {}, {}, _NOBODY), body, (), body.positions)
        books.appendleft(found)
        return found

    def _arrays(self, feed: bytes) -> MarketArrays:
        arrays = self._markets.get(feed)
        if arrays is None:
            market = self._check_market(feed)
            spot = self._at.spots.get(feed)
            if spot is None:
                raise MissingPriceError(
                    f"no price for {feed_symbol(feed)}, which the book holds", feed=feed_symbol(feed)
                )
            arrays = self._markets[feed] = MarketArrays(market, spot, self._at.t)
        return arrays

    def _moved(self, held: BookRisk, body: Body, gone: Sequence[Position], come: Sequence[Position]) -> BookRisk:
        """The book after some positions went and some came; as_of is the same."""
        t, as_of = self._at.t, body.as_of
        gain = held.gain
        sums_of = dict(held.sums)
        touched = set()
        for position, old, new in _pairs(gone, come):
            i = position.instrument
            kind, feed = i.kind, i.feed
            if kind and i.expiry <= t:
                gain += self._expired_profit(new, as_of) - self._expired_profit(old, as_of)
                continue
            arrays = self._markets.get(feed) or self._arrays(feed)
            now, packed, bucket = arrays.of(position)
            whole, later, far, longs, shorts, count = sums_of.get(feed, _EMPTY)
            change = 0
            for one, sign in ((old, -1), (new, 1)):
                if one is None:
                    continue
                size = one.size
                change += sign * size
                count += sign
                gain += sign * sdiv(size * (now - one.mark), WAD)
                if kind <= _FUTURE:
                    if not kind:
                        gain -= sign * funding(size, one.mark, one.carry, t - as_of)
                    if size > 0:
                        longs += sign * size
                    else:
                        shorts -= sign * size
            added = change * packed
            if bucket != NEAR:
                later += added
                if bucket == FAR:
                    far += added
            sums_of[feed] = _Sums(whole + added, later, far, longs, shorts, count)
            touched.add(feed)
        needs_of = dict(held.needs)
        for feed in touched:
            if sums_of[feed].open:
                needs_of[feed] = _need(sums_of[feed], self._markets[feed], self._terms.initial_factor)
            else:
                del sums_of[feed]
                needs_of.pop(feed, None)
        return BookRisk(body, gain, sums_of, needs_of, self._parties(body, gain, needs_of))

    def _resized(self, held: BookRisk, body: Body, old: Position, new: Position) -> BookRisk | None:
        """As `_moved`, where one option alone has changed its size, which is what most trades do; None elsewhere."""
        i = new.instrument
        if i is not old.instrument or i.kind <= _FUTURE or i.expiry <= self._at.t:
            return None
        if new.vol != old.vol or new.carry != old.carry:
            return None
        arrays, (whole, later, far, longs, shorts, count) = self._markets[i.feed], held.sums[i.feed]
        now, packed, bucket = arrays.of(new)
        added = (new.size - old.size) * packed
        if bucket != NEAR:
            later += added
            if bucket == FAR:
                far += added
        gain = held.gain + sdiv(new.size * (now - new.mark), WAD) - sdiv(old.size * (now - old.mark), WAD)
        sums = _Sums(whole + added, later, far, longs, shorts, count)
        needs = {**held.needs, i.feed: _need(sums, arrays, self._terms.initial_factor)}
        return BookRisk(body, gain, {**held.sums, i.feed: sums}, needs, self._parties(body, gain, needs))

    def _expired_profit(self, position: Position | None, as_of: int) -> int:
        """A's profit (wads) on what has expired: at its fix, or none where that is not known."""
        if position is None:
            return 0
        i = position.instrument
        self._check_market(i.feed)
        return position_profit(position, self._at.fixes.get((i.feed, i.expiry)), as_of, self._at.t)

    def _check_market(self, feed: bytes) -> Market:
        market = self._terms.market(feed)
        if market is None:
            symbol = feed_symbol(feed)
            raise UnknownMarketError(f"the book holds {symbol}, which is no market of the terms", feed=symbol)
        return market

    def _parties(self, body: Body, gain: int, needs: Mapping[bytes, _Need]) -> tuple[Standing, Standing]:
        if self._scale:
            units = sdiv(gain, self._scale)
            equity_a = (body.a.balance + units) * self._scale
            equity_b = (body.b.balance - units) * self._scale
        else:
            units = to_units(gain, self._terms, self._at.collateral)
            equity_a = to_wad_equity(body.a.balance + units, self._terms, self._at.collateral)
            equity_b = to_wad_equity(body.b.balance - units, self._terms, self._at.collateral)
        maintenance_a = maintenance_b = initial_a = initial_b = 0
        for mm_a, mm_b, im_a, im_b in needs.values():
            maintenance_a += mm_a
            maintenance_b += mm_b
            initial_a += im_a
            initial_b += im_b
        return Standing(equity_a, initial_a, maintenance_a), Standing(equity_b, initial_b, maintenance_b)


_NOBODY = (Standing(0, 0, 0), Standing(0, 0, 0))
