"""What a desk never wants to sign, whoever asks: limits on terms and on the book, above any policy and any person.

Rules: the default limits nothing. A book beyond a limit may still be reduced: a trade is refused only where it takes
the book further beyond. Notional and vega are of the whole channel, at the desk's own prices; vega by integers, as the
difference that one vol point makes.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from channeld.core.crypto import checksum_address
from channeld.core.errors import RuleError
from channeld.core.instruments import instrument_name
from channeld.core.operations import Trade
from channeld.core.valuation import value
from channeld.core.wad import WAD, format_decimal, sdiv

if TYPE_CHECKING:
    from channeld.core.acceptance import Prices
    from channeld.core.operations import Leg, Operation
    from channeld.core.state import Body
    from channeld.core.terms import Market, Terms

VOL_POINT = WAD // 100


class BeyondLimitsError(RuleError):
    """Terms or a trade that this desk's own limits never allow."""

    code = 2408
    advice = "The limits stand in the desk's configuration under [limits]; trade smaller, or have them changed there."


@dataclass(frozen=True, slots=True)
class Limits:
    """None, and zero periods, limit nothing.

    max_notional: wads, the sum of |size| * spot over the channel's book. max_vega: wads that one vol point moves the
    book's value, either way. instruments: patterns that a trade's instruments must fit. oracle_signers: addresses (20
    bytes) among which the terms' signers must be. Periods in seconds.
    """

    max_notional: int | None = None
    max_vega: int | None = None
    instruments: tuple[str, ...] | None = None
    oracle_signers: frozenset[bytes] | None = None
    min_challenge_period: int = 0
    min_cure_period: int = 0

    @property
    def on_books(self) -> bool:
        """Whether anything here concerns trades."""
        return self.max_notional is not None or self.max_vega is not None or self.instruments is not None


def check_terms(limits: Limits, terms: Terms) -> None:
    """Refuse terms beyond the limits.

    Raises:
        BeyondLimitsError: naming the limit.
    """
    for name, given, least in (
        ("challenge period", terms.challenge_period, limits.min_challenge_period),
        ("cure period", terms.cure_period, limits.min_cure_period),
    ):
        if given < least:
            raise BeyondLimitsError(f"the terms' {name} of {given} s is below this desk's least, {least} s")
    strangers = set(terms.oracle.signers) - limits.oracle_signers if limits.oracle_signers is not None else set()
    if strangers:
        raise BeyondLimitsError(f"the oracle's signer {checksum_address(min(strangers))} is none that this desk allows")


def notional(body: Body, prices: Prices) -> int:
    """The sum of |size| * spot over the positions whose feed has a print, wads."""
    return sum(abs(p.size) * prices.spots.get(p.instrument.feed, 0) // WAD for p in body.positions)


def vega(body: Body, prices: Prices) -> int:
    """What the book gains for a when every vol rises by a point from what is agreed, a wad."""
    total = 0
    for p in body.positions:
        i = p.instrument
        spot = prices.spots.get(i.feed)
        if not i.is_option or spot is None or i.expiry <= prices.time:
            continue
        tau = i.expiry - prices.time
        low, high = (value(i.kind, spot, i.strike, p.carry, vol, tau) for vol in (p.vol, p.vol + VOL_POINT))
        total += sdiv(p.size * (high - low), WAD)
    return total


def check_book(limits: Limits, before: Body, after: Body, operations: tuple[Operation, ...], prices: Prices) -> None:
    """Refuse trades that take the book beyond a limit, or further beyond one.

    Raises:
        BeyondLimitsError: naming the limit and the figures.
    """
    trades = [op for op in operations if isinstance(op, Trade)]
    if not trades or not limits.on_books:
        return
    if limits.instruments is not None:
        for leg in (leg for trade in trades for leg in trade.legs):
            name = instrument_name(leg.instrument)
            if not any(fnmatchcase(name, pattern) for pattern in limits.instruments) and _adds(before, after, leg):
                raise BeyondLimitsError(f"{name} is not among the instruments that this desk ever trades")
    for name, limit, measure in (
        ("notional", limits.max_notional, notional),
        ("vega", limits.max_vega, vega),
    ):
        if limit is None:
            continue
        then, was = abs(measure(after, prices)), abs(measure(before, prices))
        if then > limit and then > was:
            raise BeyondLimitsError(
                f"the book's {name} of {format_decimal(then, places=2)} would be beyond this desk's limit of "
                f"{format_decimal(limit, places=2)}"
            )


def _adds(before: Body, after: Body, leg: Leg) -> bool:
    """Whether a leg's instrument is held in a larger size afterwards, or the other way round."""
    instrument = leg.instrument
    was = next((p.size for p in before.positions if p.instrument == instrument), 0)
    now = next((p.size for p in after.positions if p.instrument == instrument), 0)
    return abs(now) > abs(was) or now * was < 0


def in_words(terms: Terms, side: int) -> list[str]:
    """What terms mean, in sentences with numbers, for the desk that is `side` (0 for a, 1 for b)."""
    oracle = terms.oracle
    money = (
        f"Both deposit the token {checksum_address(terms.collateral)}; whatever is paid goes to the payout addresses, "
        f"ours {checksum_address(terms.party(side).payout)}, and nowhere else. None of this can be changed later."
    )
    markets = [_market_in_words(market, terms.initial_factor) for market in terms.markets]
    default = (
        "Below what must be kept, margin may be called on chain: whoever is still below "
        f"{_span(terms.cure_period)} later, deposits until then included, is closed out at that time's fix and pays "
        f"{_percent(terms.closeout_penalty)} of its margin to the other."
    )
    end = (
        f"Either side may end the channel: the other has {_span(terms.challenge_period)} to answer with a newer state. "
        "Be away for no longer without a watchtower."
    )
    prices = (
        f"A price is the median of at least {oracle.quorum} of {len(oracle.signers)} signers, every {oracle.tick} s; "
        f"expiries and close-outs take the mean of {oracle.samples} of them, {oracle.sample_gap} s apart. With prices "
        f"older than {_span(oracle.max_age)} no risk is added; without a fix the marks are paid, "
        f"{_span(oracle.grace)} later."
    )
    order = "We order the batches." if terms.sequencer == side else "The peer orders the batches."
    return [money, *markets, default, end, prices, order]


def _market_in_words(market: Market, initial_factor: int) -> str:
    symbol = market.feed.rstrip(b"\0").decode("ascii", "replace")
    maintenance = market.price_scan * 100_000 // WAD
    initial = maintenance * initial_factor // WAD
    return (
        f"{symbol}: margin covers a move of {_percent(market.price_scan)} in the price with vols up by "
        f"{_percent(market.vol_up)} or down by {_percent(market.vol_down)}. 100,000 of a perpetual needs "
        f"{initial:,} to be opened and {maintenance:,} to be kept."
    )


def _percent(fraction: int) -> str:
    return format_decimal(fraction * 100) + "%"


def _span(seconds: int) -> str:
    for size, word in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds % size == 0 and seconds >= size:
            count = seconds // size
            return f"{count} {word}{'s' if count > 1 else ''}"
    return f"{seconds} s"
