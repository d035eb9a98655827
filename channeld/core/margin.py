"""Margin: eighteen scenarios per market, maintenance and initial margin, equity. docs/protocol.md, section 6.

Rules: integers alone, in wads, rounded as docs/arithmetic.md, section 5 says: profits of a scenario round down for the
party they are computed for, requirements round up. Both parties compute the same integers for each side. Scan risk is
exactly zero for boxes and conversions, exactly sub-additive over books, and homogeneous up to the rounding of the last
place. A report keeps every scenario of every market, so that each figure can be explained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from channeld.core.errors import InputError
from channeld.core.fixedpoint import exp_q, ln_q
from channeld.core.state import MAX_PRICE, Kind
from channeld.core.terms import ZERO_FEED, feed_symbol
from channeld.core.valuation import (
    OutOfDomainError,
    clamp_tau,
    deviation_q,
    drift_q,
    option_value,
    profit,
    to_units,
)
from channeld.core.wad import DAY, WAD, sdiv

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from channeld.core.state import Body, Position
    from channeld.core.terms import Market, Terms

# a scenario's price is never below a twentieth of the spot
_FLOOR_DIVISOR = 20
EXTREME_WEIGHT = WAD * 35 // 100
# what is near for maintenance and for initial margin, seconds
NEAR_MAINTENANCE, NEAR_INITIAL = DAY, 2 * DAY


class MissingPriceError(InputError):
    """A market of the book has no price."""

    code = 1101
    advice = "Give a price for every feed of the open positions, or wait for the oracle's next print."


class UnknownMarketError(InputError):
    """A position's feed is not among the markets of the terms, so nothing says what it must be margined at."""

    code = 1102
    advice = "Check that the body belongs to these terms."


@dataclass(frozen=True, slots=True)
class Scenario:
    """One of the eighteen. price: the scenario's spot, a wad; vol_factor and weight: wads; label: for people."""

    label: str
    price: int
    vol_factor: int
    weight: int


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """What a party gains in one scenario, wads at full weight.

    profit: the whole book of the market; without_near: without what expires within one day; without_near_initial:
    without what expires within two days (the initial margin's).
    """

    scenario: Scenario
    profit: int
    without_near: int
    without_near_initial: int

    @property
    def weighted(self) -> int:
        """The whole book's profit times the scenario's weight, a wad."""
        return _weighted(self.profit, self.scenario.weight)


@dataclass(frozen=True, slots=True)
class MarketMargin:
    """One market's requirement of one party; wads. worst: the index of the scenario that decided the scan risk.

    near_counts says that the book without what is near was the worse one.
    """

    feed: bytes
    price: int
    scan_risk: int
    spread_charge: int
    maintenance: int
    worst_loss: int
    initial: int
    worst: int
    near_counts: bool
    scenarios: tuple[ScenarioResult, ...]


@dataclass(frozen=True, slots=True)
class MarginReport:
    """One party's margin. side: 0 for a, 1 for b; wads, but for the units named so.

    profit: since the marks, the party's own view; profit_units: the same in units, counted in equity_units.
    """

    side: int
    equity: int
    initial: int
    maintenance: int
    profit: int
    profit_units: int
    equity_units: int
    markets: tuple[MarketMargin, ...]

    @property
    def free(self) -> int:
        """Equity above the initial margin (wad); negative when there is none."""
        return self.equity - self.initial


def ceil_wad(x: int) -> int:
    """X / WAD, rounded up: how requirements round."""
    return -(-x // WAD)


def _weighted(pnl: int, weight: int) -> int:
    """A scenario's profit at its weight, rounded down."""
    return pnl * weight // WAD


_MOVES = (0, 1, -1, 2, -2, 3, -3)
_MOVE_LABELS = {
    0: "price unchanged",
    6: "price +2 scans",
    -6: "price -2 scans",
    3: "price +1 scan",
    -3: "price -1 scan",
}


def _move_label(thirds: int) -> str:
    return _MOVE_LABELS.get(thirds) or f"price {thirds:+d}/3 scan"


def scenarios(market: Market, spot: int) -> tuple[Scenario, ...]:
    """The eighteen scenarios of a market at a spot (wad), in the protocol's order.

    A move of k thirds of the scan range has the price spot * max(0, 3 * WAD + k * priceScan) / (3 * WAD), rounded down;
    no price is below a twentieth of the spot, rounded up.
    """
    floor = -(-spot // _FLOOR_DIVISOR)
    up, down = WAD + market.vol_up, WAD - market.vol_down

    def moved(thirds: int) -> int:
        return max(spot * max(0, 3 * WAD + thirds * market.price_scan) // (3 * WAD), floor)

    ordinary = tuple(
        Scenario(f"{_move_label(thirds)}, vols {word}", moved(thirds), factor, WAD)
        for thirds in _MOVES
        for word, factor in (("up", up), ("down", down))
    )
    return (
        *ordinary,
        *(Scenario(f"{_move_label(k)}, vols up", moved(k), up, EXTREME_WEIGHT) for k in (6, -6)),
        Scenario("price times 3, vols up", 3 * spot, up, market.wing_cover),
        Scenario("price divided by 3, vols up", max(spot // 3, floor), up, 3 * market.wing_cover),
    )


def unit_changes(
    position: Position, spot: int, tau: int, grid: Sequence[Scenario], logs: Mapping[int, int]
) -> tuple[int, list[int]]:
    """What one unit of a position's instrument is worth now, and how much more in each scenario: wads, exact.

    tau is clamped already; logs: ln_q of the spot and of every price of the grid. A book's change in a scenario is the
    sum of size times these, so they may be kept for as long as spot, time, carry and vol stay what they are.
    """
    i = position.instrument
    if i.kind == Kind.PERPETUAL:
        return spot, [s.price - spot for s in grid]
    drift = drift_q(position.carry, tau)
    growth = exp_q(drift)
    if i.kind == Kind.FUTURE:
        now = spot * growth >> 80
        return now, [(s.price * growth >> 80) - now for s in grid]
    shift = drift - ln_q(i.strike)

    def worth(price: int, deviation: int) -> int:
        return option_value(i.kind, price * growth >> 80, i.strike, logs[price] + shift, deviation)

    deviations = {
        factor: deviation_q(position.vol * factor // WAD, tau) for factor in {scenario.vol_factor for scenario in grid}
    }
    now = worth(spot, deviation_q(position.vol, tau))
    return now, [worth(s.price, deviations[s.vol_factor]) - now for s in grid]


def _position_changes(
    position: Position, spot: int, tau: int, grid: Sequence[Scenario], logs: Mapping[int, int]
) -> list[int]:
    """Size times the change in value, scaled by WAD twice, in each scenario: a's view."""
    _, changes = unit_changes(position, spot, tau, grid, logs)
    return [position.size * change for change in changes]


@dataclass(frozen=True, slots=True)
class _MarketRisk:
    """A market's scenarios from a's point of view, before any rounding; changes are scaled by WAD twice."""

    market: Market
    spot: int
    grid: tuple[Scenario, ...]
    whole: tuple[int, ...]
    without_near: tuple[int, ...]
    without_near_initial: tuple[int, ...]
    spread_charge: int


def _market_risk(market: Market, positions: Iterable[Position], spot: int, t: int) -> _MarketRisk:
    grid = scenarios(market, spot)
    logs = {price: ln_q(price) for price in {spot, *(s.price for s in grid)}}
    # changes of what expires within one day, within two, and later or never
    near, soon, far = [0] * len(grid), [0] * len(grid), [0] * len(grid)
    longs = shorts = 0
    for position in positions:
        i = position.instrument
        left = i.expiry - t
        changes = _position_changes(position, spot, clamp_tau(left), grid, logs)
        bucket = far
        if i.kind != Kind.PERPETUAL:
            bucket = near if left <= NEAR_MAINTENANCE else soon if left <= NEAR_INITIAL else far
        bucket[:] = [x + y for x, y in zip(bucket, changes, strict=True)]
        if not i.is_option:
            longs += max(position.size, 0)
            shorts += max(-position.size, 0)
    later = [x + y for x, y in zip(soon, far, strict=True)]
    return _MarketRisk(
        market,
        spot,
        grid,
        tuple(x + y for x, y in zip(near, later, strict=True)),
        tuple(later),
        tuple(far),
        ceil_wad(ceil_wad(market.spread_charge * spot) * min(longs, shorts)),
    )


def _scan(results: Iterable[int], grid: Iterable[Scenario]) -> tuple[int, int]:
    """The scan risk (wad) of one book, and the index of the scenario that decides it."""
    losses = [-_weighted(result, scenario.weight) for result, scenario in zip(results, grid, strict=True)]
    worst = max(range(len(losses)), key=losses.__getitem__)
    return max(losses[worst], 0), worst


def _market_margin(risk: _MarketRisk, side: int, initial_factor: int) -> MarketMargin:
    sign = -1 if side else 1
    whole = [sign * x // WAD for x in risk.whole]
    without_near = [sign * x // WAD for x in risk.without_near]
    without_initial = [sign * x // WAD for x in risk.without_near_initial]
    scan, worst = _scan(whole, risk.grid)
    scan_near, worst_near = _scan(without_near, risk.grid)
    scan_initial, _ = _scan(without_initial, risk.grid)
    charge = risk.spread_charge
    maintenance = max(scan, scan_near) + charge
    worst_loss = max(0, -min(whole), -min(without_initial))
    # the initial margin's own maintenance, near meaning two days
    base = max(scan, scan_initial) + charge
    return MarketMargin(
        feed=risk.market.feed,
        price=risk.spot,
        scan_risk=max(scan, scan_near),
        spread_charge=charge,
        maintenance=maintenance,
        worst_loss=worst_loss,
        initial=max(maintenance, base, min(ceil_wad(initial_factor * base), worst_loss + charge)),
        worst=worst if scan >= scan_near else worst_near,
        near_counts=scan_near > scan,
        scenarios=tuple(
            ScenarioResult(*row) for row in zip(risk.grid, whole, without_near, without_initial, strict=True)
        ),
    )


def to_wad_equity(units: int, terms: Terms, collateral_price: int) -> int:
    """What an amount of collateral (units, signed) counts as equity: a wad, after the haircut where there is a feed.

    units * 10**(18 - decimals), or sdiv(units * rate, 10**decimals), rate = collateral_price * (WAD - haircut) // WAD.

    Raises:
        OutOfDomainError: the terms name a collateral feed and its price is outside 1..2**96-1.

    """
    scale: int = 10 ** (18 - terms.decimals)
    if terms.collateral_feed == ZERO_FEED:
        return units * scale
    check_price(terms.collateral_feed, collateral_price)
    return sdiv(units * (collateral_price * (WAD - terms.haircut) // WAD), 10**terms.decimals)


def check_price(feed: bytes, price: int) -> None:
    """Refuse a price (wad) that no market can have.

    Raises:
        OutOfDomainError: no integer in 1..2**96-1.

    """
    if not (isinstance(price, int) and 1 <= price < MAX_PRICE):
        raise OutOfDomainError(f"the price of {feed_symbol(feed)} must lie in 1..2**96-1, not {price!r}", price=price)


def _price_of(position: Position, prices: Mapping[bytes, int]) -> int:
    feed = position.instrument.feed
    price = prices.get(feed)
    if price is None:
        raise MissingPriceError(f"no price for {feed_symbol(feed)}, which the book holds", feed=feed_symbol(feed))
    check_price(feed, price)
    return price


def _risks(terms: Terms, body: Body, prices: Mapping[bytes, int], t: int) -> tuple[_MarketRisk, ...]:
    """Every market with a position that has not expired, in the terms' order."""
    books: dict[bytes, list[Position]] = {}
    for position in body.positions:
        i = position.instrument
        if terms.market(i.feed) is None:
            symbol = feed_symbol(i.feed)
            raise UnknownMarketError(f"the book holds {symbol}, which is no market of the terms", feed=symbol)
        if i.kind == Kind.PERPETUAL or i.expiry > t:
            _price_of(position, prices)
            books.setdefault(i.feed, []).append(position)
    return tuple(
        _market_risk(market, books[market.feed], prices[market.feed], t)
        for market in terms.markets
        if market.feed in books
    )


def _profit(body: Body, prices: Mapping[bytes, int], t: int, fixes: Mapping[tuple[bytes, int], int] | None) -> int:
    """A's profit at t (wads): what has expired at its own fix, or at its mark where that is not known."""
    known = fixes or {}
    spots: list[int | None] = [
        known.get((p.instrument.feed, p.instrument.expiry))
        if p.instrument.kind != Kind.PERPETUAL and p.instrument.expiry <= t
        else _price_of(p, prices)
        for p in body.positions
    ]
    return profit(body, spots, t)


def _report(
    terms: Terms, body: Body, risks: Iterable[_MarketRisk], gain: int, side: int, collateral_price: int
) -> MarginReport:
    sign = -1 if side else 1
    gain_units = sign * to_units(gain, terms, collateral_price)
    units = body.account(side).balance + gain_units
    markets = tuple(_market_margin(risk, side, terms.initial_factor) for risk in risks)
    return MarginReport(
        side=side,
        equity=to_wad_equity(units, terms, collateral_price),
        initial=sum(market.initial for market in markets),
        maintenance=sum(market.maintenance for market in markets),
        profit=sign * gain,
        profit_units=gain_units,
        equity_units=units,
        markets=markets,
    )


def party_margin(
    terms: Terms,
    body: Body,
    prices: Mapping[bytes, int],
    t: int,
    side: int,
    collateral_price: int,
    fixes: Mapping[tuple[bytes, int], int] | None = None,
) -> MarginReport:
    """One party's equity and margin at time t (Unix seconds). side: 0 for a, 1 for b.

    prices: a wad for every feed with a position that has not expired. fixes: by (feed, expiry), for what has expired;
    what has expired without a fix stays at its mark. collateral_price: a wad, used where the terms name its feed.

    Raises:
        MissingPriceError: a feed of the book has no price.
        OutOfDomainError: a price outside 1..2**96-1.
        UnknownMarketError: a position's feed is not among the terms' markets.

    """
    gain = _profit(body, prices, t, fixes)
    return _report(terms, body, _risks(terms, body, prices, t), gain, side, collateral_price)


def both(
    terms: Terms,
    body: Body,
    prices: Mapping[bytes, int],
    t: int,
    collateral_price: int,
    fixes: Mapping[tuple[bytes, int], int] | None = None,
) -> tuple[MarginReport, MarginReport]:
    """Both parties' margin, a's and b's, valuing every position once. Arguments and errors: `party_margin`."""
    gain = _profit(body, prices, t, fixes)
    risks = _risks(terms, body, prices, t)
    a, b = (_report(terms, body, risks, gain, side, collateral_price) for side in (0, 1))
    return a, b
