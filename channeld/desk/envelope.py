"""An envelope around trades: instruments, sizes, notional, greeks of a trade and of the channel after it, price.

Rules: integers and the settlement valuation, since it decides what is signed. Greeks are differences over a move of 1%
of spot, in money, so that one number holds for every feed; the feeds' absolute values are added, for a long in one is
no hedge of a short in another. A book outside may still be reduced: what is measured of the whole channel is refused
only where a trade takes it further out. A None limits nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from channeld.core.instruments import instrument_name
from channeld.core.state import MAX_VOL, Kind
from channeld.core.terms import feed_symbol
from channeld.core.valuation import value
from channeld.core.wad import WAD, format_decimal, sdiv

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from channeld.core.operations import Leg, Trade
    from channeld.core.state import Body, Instrument

VOL_POINT = WAD // 100


class Holding(NamedTuple):
    """What greeks need of a position or a leg, wads; the size from any one side."""

    instrument: Instrument
    size: int
    carry: int
    vol: int


class Greeks(NamedTuple):
    """Money, wads. delta: times spot; gamma: what that gains in a move of 1%; vega: for a vol point."""

    delta: int
    gamma: int
    vega: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """Limits on a trade, and on the channel after it. All wads; money in the quote currency.

    instruments: names or patterns such as ETH-*. sizes: most |size| of a leg, by pattern; the first that fits counts.
    max_notional: of one trade, |size| * spot over its legs. price_band: most that a trade may give away at the desk's
    own values, as a fraction of its notional. trade_*: most of one trade's greeks. channel_*: of the book after it.
    """

    instruments: tuple[str, ...] | None = None
    sizes: tuple[tuple[str, int], ...] = ()
    max_notional: int | None = None
    price_band: int | None = None
    trade_delta: int | None = None
    trade_gamma: int | None = None
    trade_vega: int | None = None
    channel_delta: int | None = None
    channel_gamma: int | None = None
    channel_vega: int | None = None

    @property
    def on_trade_greeks(self) -> bool:
        """Whether a trade's own greeks are limited."""
        return any(x is not None for x in (self.trade_delta, self.trade_gamma, self.trade_vega))

    @property
    def on_channel(self) -> bool:
        """Whether the greeks of the channel are limited."""
        return any(x is not None for x in (self.channel_delta, self.channel_gamma, self.channel_vega))

    @property
    def needs_prices(self) -> bool:
        """Whether anything here is judged by prices."""
        priced = self.max_notional is not None or self.price_band is not None
        return priced or self.on_trade_greeks or self.on_channel


def greeks_of(holdings: Iterable[Holding], spots: Mapping[bytes, int], now: int) -> Greeks:
    """The greeks of holdings at spots (wads) and a time (Unix seconds): of each feed, absolute, added up.

    What has expired, or whose feed has no spot, is left out; callers refuse unpriced trades before.
    """
    sums: dict[bytes, list[int]] = {}
    for i, size, carry, vol in holdings:
        spot = spots.get(i.feed)
        if spot is None or (i.expiry and i.expiry <= now):
            continue
        tau = i.expiry - now if i.expiry else 0
        step = max(1, spot // 100)
        low, here, high = (value(i.kind, s, i.strike, carry, vol, tau) for s in (spot - step, spot, spot + step))
        of_feed = sums.setdefault(i.feed, [0, 0, 0])
        of_feed[0] += sdiv(sdiv(size * (high - low), WAD) * spot, 2 * step)
        of_feed[1] += sdiv(sdiv(size * (high - 2 * here + low), WAD) * spot, step)
        if i.kind in {Kind.CALL, Kind.PUT}:
            above = value(i.kind, spot, i.strike, carry, min(vol + VOL_POINT, MAX_VOL), tau)
            of_feed[2] += sdiv(size * (above - here), WAD)
    return Greeks(*(sum(abs(one[n]) for one in sums.values()) for n in range(3)))


def holdings_of(body: Body) -> list[Holding]:
    """A book's positions."""
    return [Holding(p.instrument, p.size, p.carry, p.vol) for p in body.positions]


def legs_held(legs: Iterable[Leg], *bodies: Body) -> list[Holding]:
    """A trade's legs, at the carries and vols of the books, the last one first; where none has them, at their own."""
    carries = {(p.instrument.feed, p.instrument.expiry): p.carry for body in bodies for p in body.positions}
    vols = {(p.instrument.feed, p.instrument.expiry, p.instrument.strike): p.vol for b in bodies for p in b.positions}
    return [
        Holding(
            leg.instrument,
            leg.size_delta,
            carries.get((leg.instrument.feed, leg.instrument.expiry), leg.carry),
            vols.get((leg.instrument.feed, leg.instrument.expiry, leg.instrument.strike), leg.vol),
        )
        for leg in legs
    ]


def fits(name: str, patterns: Iterable[str]) -> bool:
    """Whether an instrument's name is one of the names or patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def trade_notional(legs: Iterable[Leg], spots: Mapping[bytes, int]) -> int:
    """Sum over the legs of |size| * spot, wads."""
    return sum(abs(leg.size_delta) * spots.get(leg.instrument.feed, 0) // WAD for leg in legs)


def trade_breach(
    envelope: Envelope,
    trade: Trade,
    spots: Mapping[bytes, int],
    now: int,
    held: list[Holding] | None = None,
    reduced: frozenset[Instrument] = frozenset(),
) -> str:
    """Why one trade lies outside: instruments, sizes, prices, notional, its greeks; empty where it does not.

    held: the legs with the carries and vols to measure them by; without it, those of the legs. reduced: instruments of
    which less is held afterwards, which may be traded under any patterns.
    """
    for leg in trade.legs:
        name = instrument_name(leg.instrument)
        if envelope.instruments is not None and leg.instrument not in reduced and not fits(name, envelope.instruments):
            return f"{name} is not among the instruments that the policy allows"
        most = next((size for pattern, size in envelope.sizes if fits(name, (pattern,))), None)
        if most is not None and abs(leg.size_delta) > most:
            return (
                f"the size of {format_decimal(abs(leg.size_delta))} {name} is above the policy's {format_decimal(most)}"
            )
    unpriced = sorted({feed_symbol(leg.instrument.feed) for leg in trade.legs if leg.instrument.feed not in spots})
    if unpriced and envelope.needs_prices:
        return f"there is no price of {', '.join(unpriced)} to judge the trade by"
    total = trade_notional(trade.legs, spots)
    if envelope.max_notional is not None and total > envelope.max_notional:
        return _above("notional", total, envelope.max_notional)
    if envelope.on_trade_greeks:
        greeks = greeks_of(held if held is not None else legs_held(trade.legs), spots, now)
        limits = (envelope.trade_delta, envelope.trade_gamma, envelope.trade_vega)
        for name, found, limit in zip(Greeks._fields, greeks, limits, strict=True):
            if limit is not None and found > limit:
                return _above(f"trade's {name}", found, limit)
    return ""


def channel_breach(envelope: Envelope, before: Body, after: Body, spots: Mapping[bytes, int], now: int) -> str:
    """Why the channel lies outside after trades, and further than before; empty where it does not."""
    if not envelope.on_channel:
        return ""
    was, then = (greeks_of(holdings_of(body), spots, now) for body in (before, after))
    limits = (envelope.channel_delta, envelope.channel_gamma, envelope.channel_vega)
    for name, old, new, limit in zip(Greeks._fields, was, then, limits, strict=True):
        if limit is not None and new > limit and new > old:
            return _above(f"channel's {name}", new, limit)
    return ""


def reduced_by(before: Body, after: Body) -> frozenset[Instrument]:
    """The instruments of which a smaller size, or none, is held afterwards, and not the other way round."""
    now = {p.instrument: p.size for p in after.positions}
    was = {p.instrument: p.size for p in before.positions}
    return frozenset(i for i, size in was.items() if abs(now.get(i, 0)) < abs(size) and now.get(i, 0) * size >= 0)


def price_breach(envelope: Envelope, trade: Trade, spots: Mapping[bytes, int], edge: int) -> str:
    """Why a trade's price lies outside. edge: wads that this desk gives away at its own values, negative for a gain."""
    if envelope.price_band is None:
        return ""
    if edge > trade_notional(trade.legs, spots) * envelope.price_band // WAD:
        return f"at our own values the trade gives away {format_decimal(edge, places=2)}, more than the policy allows"
    return ""


def _above(what: str, found: int, limit: int) -> str:
    return f"the {what} of {format_decimal(found, places=2)} is above the policy's {format_decimal(limit, places=2)}"


def envelope_in_words(envelope: Envelope) -> list[str]:
    """Every limit as a phrase; empty where nothing is limited."""

    def money(amount: int) -> str:
        return format_decimal(amount, places=2)

    words = []
    if envelope.instruments is not None:
        words.append("instruments: " + (", ".join(envelope.instruments) or "none"))
    words += [f"at most {format_decimal(size)} of {pattern} in a leg" for pattern, size in envelope.sizes]
    if envelope.max_notional is not None:
        words.append(f"a notional of at most {money(envelope.max_notional)} in a trade")
    if envelope.price_band is not None:
        words.append(f"giving away at most {format_decimal(envelope.price_band * 100)}% of notional at our own values")
    for scope, what in (("trade", "a trade"), ("channel", "the channel after it")):
        for greek, unit in (
            ("delta", "in money"),
            ("gamma", "of delta in money, for a move of 1%"),
            ("vega", "for a vol point"),
        ):
            limit = getattr(envelope, f"{scope}_{greek}")
            if limit is not None:
                words.append(f"{greek} of {what} at most {money(limit)} {unit}")
    return words
