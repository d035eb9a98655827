"""`channeld bench risk`: margin checks and risk grids on this machine, and the same grid by others in the same run.

Rules: figures, no tests. What is measured is what the daemon runs: core.acceptance over its cache of risk arrays, and
desk.grid. The others are measured where they are installed, each in the way its makers document, setting up excluded;
all get the same numbers and their results are compared with ours.
"""

from __future__ import annotations

import importlib
import math
import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from channeld.core.acceptance import Prices, check_acceptance, valuation_time
from channeld.core.errors import InternalError
from channeld.core.margin import both
from channeld.core.operations import Leg, Trade
from channeld.core.risk_arrays import RiskCache, pack, unpack
from channeld.core.state import Account, Body, Instrument, Kind, Position
from channeld.core.valuation import value
from channeld.core.wad import DAY, WAD, YEAR
from channeld.daemon.bench import bench_terms, machine
from channeld.desk.grid import Floats, GridBook, cross, values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from channeld.core.terms import Terms

POSITIONS, EXPIRIES = 64, 8
GRID_POSITIONS, PRICE_MOVES, VOL_MOVES = 1_000, 11, 3
_NOW = 1_750_000_000
_SPOT = 3_000 * WAD
_STEP = WAD // 1000
_FUNDS = 10**15
_REPEATS = 30
_ROUND = 250
_AGREES = 1e-6

Found = dict[str, Any]


def _instrument(terms: Terms, n: int) -> Position:
    expiry = _NOW + (30 + 20 * (n % EXPIRIES)) * DAY
    kind = Kind.PUT if n % 2 else Kind.CALL
    instrument = Instrument(kind, terms.markets[0].feed, expiry, (2_000 + 30 * n) * WAD)
    vol, carry = WAD * (50 + n % 30) // 100, WAD // 20
    mark = value(kind, _SPOT, instrument.strike, carry, vol, expiry - _NOW)
    return Position(instrument, (1 if n % 3 else -1) * WAD, mark, carry, vol)


def _body(positions: tuple[Position, ...]) -> Body:
    return Body(_NOW, WAD, bytes(32), Account(_FUNDS, 2 * _FUNDS, 0), Account(_FUNDS, 0, 0), positions)


def bench_book(terms: Terms) -> Body:
    """64 options over eight expiries, none of whose values is cut off."""
    return _body(tuple(sorted((_instrument(terms, n) for n in range(POSITIONS)), key=lambda p: p.key)))


def _milliseconds(work: Callable[[], object], repeats: int = _REPEATS) -> float:
    """The best of some runs, after one to warm up: whatever else the machine does can only add."""
    work()
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return min(took) * 1000


def _chain(before: Body, count: int) -> Iterator[tuple[Body, Body, tuple[Trade, ...]]]:
    """Trades in instruments that the book holds, one after the other: the book before, the book after, the batch."""
    for number in range(count):
        at = number * 7 % POSITIONS
        held = before.positions[at]
        traded = Position(held.instrument, held.size + _STEP, held.mark, held.carry, held.vol)
        after = _body((*before.positions[:at], traded, *before.positions[at + 1 :]))
        yield before, after, (Trade(0, (Leg(held.instrument, _STEP, held.mark, held.carry, held.vol),)),)
        before = after


def _incremental(terms: Terms, count: int) -> Found:
    """Checks of a chain of trades, from the two books to the verdict; the chain is made before the clock runs."""
    cache = RiskCache(terms)
    feed = terms.markets[0].feed
    prices = Prices(_NOW, {feed: _SPOT}, {feed: _NOW}, WAD, {}, risk=cache)
    book = bench_book(terms)
    took = []
    for _ in range(max(3, count // _ROUND)):
        chain = list(_chain(book, _ROUND))
        check_acceptance(terms, *chain[0], prices)  # the first one of all makes the arrays
        for before, after, batch in chain:
            began = time.perf_counter()
            check_acceptance(terms, before, after, batch, prices)
            took.append(time.perf_counter() - began)
        book = chain[-1][1]
    reports = both(terms, book, {feed: _SPOT}, valuation_time(terms, _NOW), WAD)
    if [tuple(one) for one in cache.book(book).parties] != [(r.equity, r.initial, r.maintenance) for r in reports]:
        raise InternalError("the risk arrays and the margin differ")
    took.sort()
    return {
        "incremental_us": round(statistics.median(took) * 1e6, 2),
        "incremental_p99_us": round(took[len(took) * 99 // 100] * 1e6, 2),
        "full_check_ms": round(_milliseconds(lambda: both(terms, book, {feed: _SPOT}, _NOW, WAD), 9), 3),
    }


def _new_prints(terms: Terms) -> Found:
    """The whole book at prints it has not seen: every value anew, and both parties' margin."""
    body, feed = bench_book(terms), terms.markets[0].feed
    cache = RiskCache(terms)
    took = []
    for number in range(_REPEATS):
        spots = {feed: _SPOT + number * WAD}
        began = time.perf_counter()
        cache.at(_NOW, spots, WAD, {}).book(body)
        took.append(time.perf_counter() - began)
    return {"exact_book_ms": round(statistics.median(took) * 1000, 3), "exact_book_best_ms": round(min(took) * 1000, 3)}


def _bound() -> float:
    """Checks per second if a check were its large integers alone: a product, a sum, and the lanes read once."""
    one, two = pack([10**40 + n for n in range(18)]), pack([-(10**40) - n for n in range(18)])
    rounds = 2_000
    took = []
    for _ in range(9):
        began = time.perf_counter()
        for _ in range(rounds):
            unpack(one + _STEP * two)
        took.append((time.perf_counter() - began) / rounds)
    return 1 / min(took)


def grid_book(count: int = GRID_POSITIONS) -> GridBook:
    """Options of many strikes, vols and expiries; the same at every run."""
    n = np.arange(count, dtype=np.float64)
    return GridBook(
        kinds=np.where(n % 2 > 0, float(Kind.PUT), float(Kind.CALL)),
        sizes=(n % 21 - 10.0) / 2,
        spots=np.full(count, 3_000.0),
        strikes=1_500.0 + (n * 37 % 300) * 15.0,
        carries=np.full(count, 0.05),
        vols=0.3 + (n * 13 % 90) / 100,
        left=(1 + n * 29 % 365) * float(DAY),
    )


def _moves() -> tuple[list[float], list[float]]:
    return cross(
        [(k - PRICE_MOVES // 2) / 10 for k in range(PRICE_MOVES)],
        [(k - VOL_MOVES // 2) * 0.3 for k in range(VOL_MOVES)],
    )


class _Cells:
    """The grid's cells spelled out for those who take one number per option: flat, position by position."""

    def __init__(self, book: GridBook) -> None:
        price_factors, vol_factors = map(np.asarray, _moves())
        years = book.left / YEAR
        forwards = book.spots * np.exp(book.carries * years)
        shape = (book.kinds.size, price_factors.size)

        def flat(matrix: Floats) -> Floats:
            found: Floats = np.ascontiguousarray(np.broadcast_to(matrix, shape)).reshape(-1)
            return found

        self.shape = shape
        self.call = flat(book.kinds[:, None] == Kind.CALL) > 0
        self.forward = flat(forwards[:, None] * price_factors)
        self.spot = flat(book.spots[:, None] * price_factors)
        self.strike = flat(book.strikes[:, None])
        self.vol = flat(book.vols[:, None] * vol_factors)
        self.years = flat(years[:, None])


def _quantlib(cells: _Cells, book: GridBook) -> Found:
    """QuantLib: its formula called for every cell, and its analytic engine with quotes moved from cell to cell."""
    ql = importlib.import_module("QuantLib")
    kinds = [ql.Option.Call if call else ql.Option.Put for call in cells.call]
    deviations = (cells.vol * np.sqrt(cells.years)).tolist()
    strikes, forwards = cells.strike.tolist(), cells.forward.tolist()

    def formula() -> list[float]:
        return [
            ql.blackFormula(kind, strike, forward, deviation)
            for kind, strike, forward, deviation in zip(kinds, strikes, forwards, deviations, strict=True)
        ]

    today = ql.Date(1, 1, 2025)
    ql.Settings.instance().evaluationDate = today
    days, calendar = ql.Actual365Fixed(), ql.NullCalendar()
    spot = ql.SimpleQuote(3_000.0)
    options = []
    for n in range(book.kinds.size):
        vol = ql.SimpleQuote(float(book.vols[n]))
        # undiscounted, as here: no rate, and the carry as a negative dividend
        dividend = ql.YieldTermStructureHandle(ql.FlatForward(today, -float(book.carries[n]), days))
        process = ql.BlackScholesMertonProcess(
            ql.QuoteHandle(spot),
            dividend,
            ql.YieldTermStructureHandle(ql.FlatForward(today, 0.0, days)),
            ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, calendar, ql.QuoteHandle(vol), days)),
        )
        payoff = ql.PlainVanillaPayoff(
            ql.Option.Call if book.kinds[n] == Kind.CALL else ql.Option.Put, float(book.strikes[n])
        )
        option = ql.VanillaOption(payoff, ql.EuropeanExercise(today + round(float(book.left[n]) / DAY)))
        option.setPricingEngine(ql.AnalyticEuropeanEngine(process))
        options.append((option, vol, float(book.vols[n])))
    price_factors, vol_factors = _moves()

    def engine() -> float:
        total = 0.0
        for price_factor, vol_factor in zip(price_factors, vol_factors, strict=True):
            spot.setValue(3_000.0 * price_factor)
            for option, vol, base in options:
                vol.setValue(base * vol_factor)
                total += option.NPV()
        return total

    return {
        "quantlib_formula": (formula, f"QuantLib {ql.__version__}: blackFormula for each cell"),
        "quantlib_engine": (engine, f"QuantLib {ql.__version__}: AnalyticEuropeanEngine, quotes moved"),
    }


def _fast_vollib(cells: _Cells, _: GridBook) -> Found:
    module = importlib.import_module("fast_vollib")
    flags = np.where(cells.call, "c", "p")
    zero = np.zeros(cells.years.size)

    def grid() -> Any:  # noqa: ANN401 - whatever it returns
        return module.fast_black(
            flags, cells.forward, cells.strike, cells.years, zero, cells.vol, return_as="numpy", backend="numpy"
        )

    return {"fast_vollib": (grid, f"fast-vollib {module.__version__}: fast_black, its numpy backend")}


def _vollib(cells: _Cells, _: GridBook) -> Found:
    black = importlib.import_module("vollib.black").undiscounted_black
    flags = np.where(cells.call, "c", "p").tolist()
    columns = [column.tolist() for column in (cells.forward, cells.strike, cells.vol, cells.years)]

    def grid() -> list[float]:
        return [
            black(forward, strike, vol, years, flag)
            for flag, forward, strike, vol, years in zip(flags, *columns, strict=True)
        ]

    return {"vollib": (grid, "vollib: undiscounted_black for each cell")}


def _peers(book: GridBook, ours: Floats) -> Found:
    """Milliseconds of the same grid by those that are installed, and how far their values are from ours."""
    cells = _Cells(book)
    found: Found = {}
    for name, make in (("QuantLib", _quantlib), ("fast_vollib", _fast_vollib), ("vollib", _vollib)):
        try:
            works = make(cells, book)
        except ImportError:
            found[name.lower()] = {"ms": None, "what": f"not installed: pip install {name.replace('_', '-')}"}
            continue
        for key, (work, what) in works.items():
            result = work()
            theirs = float(np.sum(np.asarray(result, dtype=np.float64)))
            if not math.isclose(theirs, float(np.sum(ours)), rel_tol=_AGREES):
                raise InternalError(f"{what} disagrees: {theirs!r} in sum, ours {float(np.sum(ours))!r}")
            found[key] = {"ms": round(_milliseconds(work, 5), 3), "what": what}
    return found


def bench_risk(count: int = 5_000) -> Found:
    """The figures of `channeld bench risk`; count: incremental checks.

    Raises:
        InternalError: two ways to the same number differ.
    """
    terms = bench_terms()
    found = _incremental(terms, count) | _new_prints(terms)
    book, moves = grid_book(), _moves()
    ours = values(book, *moves)
    found["grid_ms"] = round(_milliseconds(lambda: values(book, *moves)), 3)
    found["grid"] = f"{GRID_POSITIONS} positions x {len(moves[0])} scenarios"
    found["peers"] = _peers(book, ours)
    bound = _bound()
    found["checks_per_s"] = round(1e6 / found["incremental_us"], 1)
    found["bound_per_s"] = round(bound, 1)
    found["ratio"] = round(found["checks_per_s"] / bound, 3)
    found["machine"] = machine()
    return found
