"""Write docs/margin.md: what structures need here, beside Deribit's portfolio margin and Derive's PMRM.

    python scripts/make_margin.py            computes and writes the page
    python scripts/make_margin.py --check    exits with 1 where the page is not what this would write

Rules: our figures are core's integers. The others' rules are modelled here from what they publish (the page names the
sources and every simplification) in floats, and rounded to whole dollars, so that the page is the same everywhere;
tests/test_margin_page.py holds the models to the others' own published figures.
"""  # noqa: INP001 - a script, no package

from __future__ import annotations

import math
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from channeld.core.greeks import greeks
from channeld.core.margin import both
from channeld.core.state import Account, Body, Instrument, Kind, Position
from channeld.core.terms import Market, Oracle, Party, Terms, feed_id
from channeld.core.valuation import value
from channeld.core.wad import DAY, WAD, YEAR

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "margin.md"
BTC = feed_id("BTC")
NOW = 1_750_000_000
SPOT = 60_000
SIZE = 100
# days to expiry, vol in percent: one vol for each expiry
WEEK, MONTH, QUARTER = (7, 55), (30, 50), (90, 48)


@dataclass(frozen=True)
class Leg:
    """A holding: kind, strike (0 where none), size in BTC, days to expiry (0 for a perpetual), vol as a fraction."""

    kind: Kind
    strike: int
    size: int
    days: int = 0
    vol: float = 0.0

    def price(self, spot: float, vol: float | None = None) -> float:
        """Its value at a spot and a vol; carries are zero here."""
        strike = self.strike or 1.0
        return greeks(self.kind, spot, strike, 0.0, self.clamped(vol), self.days * DAY).price

    def delta(self) -> float:
        """Per unit of spot."""
        return greeks(self.kind, SPOT, self.strike or 1.0, 0.0, self.clamped(None), self.days * DAY).delta

    def clamped(self, vol: float | None) -> float:
        """A vol within what a price is defined for."""
        return min(max(self.vol if vol is None else vol, 0.01), 10.0)

    @property
    def is_option(self) -> bool:
        """Whether it is a call or a put."""
        return self.kind >= Kind.CALL


def _perpetual(size: int) -> Leg:
    return Leg(Kind.PERPETUAL, 0, size)


def _future(size: int, term: tuple[int, int]) -> Leg:
    return Leg(Kind.FUTURE, 0, size, term[0])


def _call(strike: int, size: int, term: tuple[int, int]) -> Leg:
    return Leg(Kind.CALL, strike, size, term[0], term[1] / 100)


def _put(strike: int, size: int, term: tuple[int, int]) -> Leg:
    return Leg(Kind.PUT, strike, size, term[0], term[1] / 100)


N = SIZE
STRUCTURES: dict[str, tuple[Leg, ...]] = {
    "long perpetual": (_perpetual(N),),
    "long perpetual, short 30-day future": (_perpetual(N), _future(-N, MONTH)),
    "long 60,000 call, 30 days": (_call(60_000, N, MONTH),),
    "short 60,000 call, 30 days": (_call(60_000, -N, MONTH),),
    "short 54,000 put, 30 days": (_put(54_000, -N, MONTH),),
    "short 60,000 straddle, 7 days": (_call(60_000, -N, WEEK), _put(60_000, -N, WEEK)),
    "short 51,000/69,000 strangle, 30 days": (_put(51_000, -N, MONTH), _call(69_000, -N, MONTH)),
    "short 120,000 call, 90 days": (_call(120_000, -N, QUARTER),),
    "long 60,000/66,000 call spread, 30 days": (_call(60_000, N, MONTH), _call(66_000, -N, MONTH)),
    "short 54,000/48,000 put spread, 30 days": (_put(54_000, -N, MONTH), _put(48_000, N, MONTH)),
    "short iron condor 48/54/66/72, 30 days": (
        _put(48_000, N, MONTH),
        _put(54_000, -N, MONTH),
        _call(66_000, -N, MONTH),
        _call(72_000, N, MONTH),
    ),
    "long butterfly 54/60/66, 30 days": (
        _call(54_000, N, MONTH),
        _call(60_000, -2 * N, MONTH),
        _call(66_000, N, MONTH),
    ),
    "long box 54/66, 30 days": (
        _call(54_000, N, MONTH),
        _put(54_000, -N, MONTH),
        _call(66_000, -N, MONTH),
        _put(66_000, N, MONTH),
    ),
    "conversion at 60,000, 30 days": (_future(N, MONTH), _call(60_000, -N, MONTH), _put(60_000, N, MONTH)),
    "covered call: long perpetual, short 66,000 call": (_perpetual(N), _call(66_000, -N, MONTH)),
    "calendar: long 90-day, short 7-day 60,000 straddle": (
        _call(60_000, N, QUARTER),
        _put(60_000, N, QUARTER),
        _call(60_000, -N, WEEK),
        _put(60_000, -N, WEEK),
    ),
}

# ------------------------------------------------------------------------------------------------------------- ours

# docs/protocol.md, section 6, templates, for BTC, percent: priceScan, volUp, volDown, wingCover, spreadCharge (in
# hundredths of a percent), initialFactor
TEMPLATES = {
    "tight": (5, 45, 30, 1, 50, 120),
    "standard": (9, 60, 35, 2, 50, 130),
    "conservative": (16, 75, 45, 3, 100, 150),
}


def _terms(template: str) -> Terms:
    scan, up, down, wing, spread, factor = (WAD * x // 100 for x in TEMPLATES[template])
    return Terms(
        a=Party(b"\x01" * 20, b"\x09" * 20),
        b=Party(b"\x02" * 20, b"\x0a" * 20),
        collateral=b"\x31" * 20,
        decimals=6,
        collateral_feed=bytes(32),
        haircut=0,
        oracle=Oracle((b"\x21" * 20,), 1, 10, 1, 0, 60, 7200),
        markets=(Market(BTC, scan, up, down, wing, spread // 100),),
        initial_factor=factor,
        closeout_penalty=3 * WAD // 100,
        challenge_period=86_400,
        cure_period=3600,
        sequencer=0,
        salt=bytes(32),
    )


def ours(legs: tuple[Leg, ...], template: str) -> tuple[float, float]:
    """Maintenance and initial margin of the holder, in dollars."""
    positions = []
    for leg in legs:
        instrument = Instrument(leg.kind, BTC, NOW + leg.days * DAY if leg.days else 0, leg.strike * WAD)
        vol = round(leg.vol * 100) * WAD // 100
        mark = value(leg.kind, SPOT * WAD, instrument.strike, 0, vol, leg.days * DAY)
        positions.append(Position(instrument, leg.size * WAD, mark, 0, vol))
    body = Body(NOW, WAD, bytes(32), Account(), Account(), tuple(sorted(positions, key=lambda p: p.key)))
    report, _ = both(_terms(template), body, {BTC: SPOT * WAD}, NOW, WAD)
    return report.maintenance / WAD, report.initial / WAD


def most_it_can_lose(legs: tuple[Leg, ...]) -> float | None:
    """The greatest loss from the values now to one expiry; None where there is none, or it has no bound."""
    if len({leg.days for leg in legs}) != 1 or not any(leg.is_option for leg in legs):
        return None
    if sum(leg.size for leg in legs if leg.kind != Kind.PUT) < 0:
        return None

    def payoff(leg: Leg, spot: float) -> float:
        gain = spot - leg.strike
        return max(gain, 0.0) if leg.kind == Kind.CALL else max(-gain, 0.0) if leg.kind == Kind.PUT else spot

    points = [0.0, *(float(leg.strike) for leg in legs), 10.0 * SPOT]
    worst = min(sum(leg.size * (payoff(leg, spot) - leg.price(SPOT)) for leg in legs) for spot in points)
    return max(0.0, -worst)


# ---------------------------------------------------------------------------------------------------------- Deribit


@dataclass(frozen=True)
class Deribit:
    """Parameters under the names of `model_params` of Deribit's private/pme/simulate, for BTC."""

    price_range: float = 0.16
    buckets_count: int = 4
    volatility_range_up: float = 0.5
    volatility_range_down: float = 0.25
    short_term_vega_power: float = 0.3
    long_term_vega_power: float = 0.13
    min_volatility_for_shock_up: float = 0.5
    extended_table_factor: float = 1.0
    extended_dampener: float = 100_000.0
    min_annualised_move: float = 0.01
    annualised_move_risk: float = 0.075
    max_delta_shock: float = 0.1
    delta_total_liq_shock_threshold: float = 20_000_000.0
    mm_factor: float = 0.8


EXTENDED_MOVES = (-0.66, -0.33, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0)


def _stressed(leg: Leg, direction: int, model: Deribit) -> float:
    """A vol in a stress: scaled by (30 / days) to a power, more for short options."""
    if direction == 0 or not leg.is_option:
        return leg.vol
    power = model.short_term_vega_power if leg.days < 30 else model.long_term_vega_power
    scale = (30 / leg.days) ** power
    if direction > 0:
        return max(leg.vol * (1 + model.volatility_range_up * scale), model.min_volatility_for_shock_up)
    return max(leg.vol * (1 - model.volatility_range_down * scale), 0.0)


def _gain(leg: Leg, move: float, direction: int, model: Deribit) -> float:
    return leg.size * (leg.price(SPOT * (1 + move), _stressed(leg, direction, model)) - leg.price(SPOT))


def deribit_worst(legs: tuple[Leg, ...], model: Deribit) -> float:
    """The worst case of the risk matrix and its extended table, as a loss in dollars."""
    steps = range(-model.buckets_count, model.buckets_count + 1)
    results = [0.0]
    for step in steps:
        move = model.price_range * step / model.buckets_count
        results += [sum(_gain(leg, move, direction, model) for leg in legs) for direction in (1, 0, -1)]
    for move in EXTENDED_MOVES:
        edge = math.copysign(model.price_range, move)
        fraction = model.price_range / abs(move) * model.extended_table_factor
        total = sum(
            _gain(leg, move, 1, model) * fraction if leg.is_option else _gain(leg, edge, 1, model) for leg in legs
        )
        # the dampener takes this much from a loss, and makes no gain of it
        results.append(min(total + model.extended_dampener, 0.0))
    return -min(results)


def deribit(legs: tuple[Leg, ...], model: Deribit | None = None) -> tuple[float, float]:
    """Deribit's portfolio margin: maintenance and initial, in dollars."""
    model = model or Deribit()
    deltas: dict[int, float] = defaultdict(float)
    for leg in legs:
        deltas[leg.days] += leg.size * leg.delta()
    roll = sum(
        abs(delta) * SPOT * max(model.min_annualised_move, model.annualised_move_risk * days * DAY / YEAR)
        for days, delta in deltas.items()
    )
    total = abs(sum(deltas.values())) * SPOT
    beyond = max(0.0, total - model.delta_total_liq_shock_threshold)
    shock = beyond * min(model.max_delta_shock, beyond / model.delta_total_liq_shock_threshold * model.max_delta_shock)
    initial = deribit_worst(legs, model) + roll + shock
    return model.mm_factor * initial, initial


# ----------------------------------------------------------------------------------------------------------- Derive


@dataclass(frozen=True)
class Derive:
    """Parameters under the names of Derive's portfolio margin manager, BTC and ETH alike."""

    vol_range_up: float = 0.6
    vol_range_down: float = 0.3
    short_term_power: float = 0.3
    long_term_power: float = 0.13
    dte_floor_days: float = 1.0
    base_static_discount: float = 0.95
    rate_add: float = 0.12
    im_factor: float = 1.25
    perp_percent: float = 0.03
    option_percent: float = 0.02
    basis_move: float = 0.05
    basis_add_factor: float = 1.0
    basis_mult_factor: float = 1.2


DERIVE_SCENARIOS = (
    (0.20, 1),
    *((percent / 100, direction) for percent in range(-15, 20, 5) for direction in (1, 0, -1)),
    (-0.20, 1),
)


def derive(legs: tuple[Leg, ...], model: Derive | None = None) -> tuple[float, float] | None:
    """Derive's PMRM: maintenance and initial, in dollars; None where it lists no such instrument."""
    if any(leg.kind == Kind.FUTURE for leg in legs):
        return None
    model = model or Derive()
    perpetuals = sum(leg.size for leg in legs if leg.kind == Kind.PERPETUAL)
    expiries: dict[int, list[Leg]] = defaultdict(list)
    for leg in legs:
        if leg.is_option:
            expiries[leg.days].append(leg)

    def worth(days: int, move: float, direction: int) -> float:
        power = model.short_term_power if days <= 30 else model.long_term_power
        scale = (30 / max(days, model.dte_floor_days)) ** power
        factor = {1: 1 + model.vol_range_up * scale, 0: 1.0, -1: max(0.0, 1 - model.vol_range_down * scale)}[direction]
        return sum(leg.size * leg.price(SPOT * (1 + move), leg.vol * factor) for leg in expiries[days])

    now = {days: worth(days, 0.0, 0) for days in expiries}
    discounts = {days: model.base_static_discount * math.exp(-days * DAY / YEAR * model.rate_add) for days in expiries}
    results = []
    for move, direction in DERIVE_SCENARIOS:
        result = perpetuals * SPOT * move
        for days, mark in now.items():
            then = worth(days, move, direction)
            result += (then * discounts[days] if then > 0 else then) - mark
        results.append(result)
    basis = 0.0
    for days, mark in now.items():
        worst = min(worth(days, model.basis_move, 0) - mark, worth(days, -model.basis_move, 0) - mark, 0.0)
        basis += worst * (model.basis_add_factor + model.basis_mult_factor * days * DAY / YEAR)
    shorts = 0.0
    for held in expiries.values():
        strikes: dict[int, float] = defaultdict(float)
        for leg in held:
            strikes[leg.strike] += leg.size
        shorts += sum(max(0.0, -net) for net in strikes.values())
    contingency = (abs(perpetuals) * model.perp_percent + shorts * model.option_percent) * SPOT
    maintenance = -min(basis, *results) + contingency
    return maintenance, model.im_factor * maintenance


# ---------------------------------------------------------------------------------------------------------- the page

HEAD = """# Margin beside Deribit's and Derive's

Written by `scripts/make_margin.py`; `scripts/make_margin.py --check` and `tests/test_margin_page.py` fail on a
difference. The method is section 6 of [protocol.md](protocol.md), its integers section 5 of
[arithmetic.md](arithmetic.md). `channeld margin PEER` shows a channel's margin leg by leg, `channeld trade what-if`
what a trade would do to it.

## The table

BTC at 60,000; 100 BTC a leg (6,000,000 of notional); one vol for each expiry: 55% for 7 days, 50% for 30, 48% for 90;
no carry. In dollars, maintenance / initial margin of the holder. "Can lose": the most from today's values to expiry,
where that has a bound.

"""

TAIL = """
## What it shows

* **Defined risk is never charged more than it can lose**, and boxes and conversions need nothing: their scenarios are
  their true values. Derive adds a part of notional for each net short strike and takes a discount off value, so a
  spread there can be charged beyond its worst loss; Deribit's roll shock does the same on a smaller scale.
* **The horizon is the channel's own.** The standard template covers a move of 9% for BTC, since a call is cured within
  an hour; Deribit's matrix covers 16% with an engine that liquidates by itself, Derive's 15% to 20%. A desk that wants
  exchange-like figures takes the conservative template: 16%, four hours.
* **Far options.** All look beyond their matrix: here at three times the spot and a third of it, at the wing cover;
  there by an extended table less a dampener of 100,000 (so that far shorts of a small book are almost free), or by a
  part of notional.
* **Initial over maintenance**: 1.3 here (1.2 to 1.5 by template, and at most the worst loss of any scenario), 1.25 on
  both others.

## How the others are modelled

**Deribit, portfolio margin.** Sources: Deribit's help article
[Portfolio Margin](https://support.deribit.com/hc/en-us/articles/25944756247837-Portfolio-Margin) (matrix, extended
table, dampener), and the parameters and worked example of BTC in the reference of
[private/pme/simulate](https://docs.deribit.com/api-reference/account-management/private-simulate): nine price buckets
over 16% each way; vols up 50% and down 25%, scaled by (30 / days) to the power 0.3, beyond 30 days 0.13, at least 50%
when up; the extended table at vols up; a roll shock of delta; maintenance 0.8 of initial. The worked example comes out
to its last digits (a test). Simplified: settled in dollars and not in coin; the extended table counts options at price
range / move and futures at the edge of the range, as the example shows; the roll shock of an expiry is its delta times
the greater of 1% and 7.5% of the years left; no open orders, no cross-collateral; the delta shock beyond 20 million of
delta is taken as linear, and no book here reaches it.

**Derive, portfolio margin (PMRM).** Sources: Derive's documentation
[Portfolio Margin Parameters](https://docs.derive.xyz/docs/portfolio-margin-parameters-1) (the 23 scenarios,
contingencies, vol shocks), and the published contracts with their mainnet configuration
([derivexyz/v2-core](https://github.com/derivexyz/v2-core), PMRMLib.sol and config-mainnet.sol), of which facts alone
were taken. Simplified: rates of zero, feeds of full confidence, a stable coin at par; options are paid for there, so
what is shown is the requirement beyond their value; no dated futures are listed. Derive has since announced a successor
(PM2) with other scenarios.

Both change their parameters. The figures show how the methods compare, and are no quotation of either.
"""


def _dollars(amount: float) -> str:
    return f"{round(amount):,}".replace("-0", "0")


def _pair(found: tuple[float, float] | None) -> str:
    return "not listed" if found is None else f"{_dollars(found[0])} / {_dollars(found[1])}"


def page() -> str:
    """The page, of integers and of floats rounded to whole dollars."""
    lines = [
        "| structure | can lose | here, tight | here, standard | here, conservative | Deribit | Derive |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, legs in STRUCTURES.items():
        most = most_it_can_lose(legs)
        cells = [
            "" if most is None else _dollars(most),
            *(_pair(ours(legs, template)) for template in TEMPLATES),
            _pair(deribit(legs)),
            _pair(derive(legs)),
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return HEAD + "\n".join(lines) + "\n" + TAIL


def main() -> int:
    """Write the page, or check it."""
    text = page()
    if sys.argv[1:] == ["--check"]:
        same = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text
        told = "docs/margin.md is up to date\n" if same else "docs/margin.md is stale: run scripts/make_margin.py\n"
        sys.stdout.write(told)
        return 0 if same else 1
    PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(f"written: {PAGE.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
