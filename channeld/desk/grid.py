"""Advisory risk grids: thousands of positions in any scenarios, by numpy floats, that draw and advise, never settle.

Rules: floats alone, and nothing here decides about money: margin is core's, in integers. The valuation is that of
docs/arithmetic.md, section 3, in the same form (one exponential for both terms, a rational tail), and within 1e-12 of
the forward of it. Numbers that are not finite, or out of the
protocol's bounds, are refused by name. Vols are clamped to 1%..1000% after a shock, the drift to +-2, as there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from channeld.core.errors import InputError
from channeld.core.state import Kind
from channeld.core.wad import WAD, YEAR

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from channeld.core.state import Position

Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

MAX_CELLS = 50_000_000
MAX_PRICE = 2.0**96 / 1e18
MAX_SIZE = 2.0**95 / 1e18
MIN_VOL, MAX_VOL = 0.01, 10.0
MAX_CARRY, MAX_DRIFT, MAX_YEARS = 5.0, 2.0, 5.0
# exp(z*z/2) * N(-z) on [0, 8.5] as P(z) / Q(z), lowest degree first: the least-squares fit of the relative error
# (1.6e-13 at most) in 60 digits at 120 Chebyshev nodes. Beyond 8.5 what it is multiplied by is below 1e-16.
_TAIL_END = 8.5
_P = (
    1436.51349119039634,
    1580.493719227103534,
    860.3257015776699118,
    281.3593391628580089,
    57.6109730378294233,
    6.998980574690715249,
    0.3989426017020439744,
)
_Q = (
    2873.026982380321752,
    5453.331310529439564,
    4635.266768172085342,
    2298.575448736308424,
    722.8342819965085068,
    145.4078149083521439,
    17.54389302345374805,
)
# cells worked on at a time: their arrays stay in a core's second-level cache
_BLOCK = 16_384


class GridDomainError(InputError):
    """A number that no grid can be made of: not finite, out of bounds, or too many cells."""

    code = 1150
    advice = "Give finite numbers: prices and strikes above 0, vols within 1%..1000%, factors above 0 and at most 1000."


def _numbers(name: str, values: Sequence[float] | Floats, low: float, high: float) -> Floats:
    """The values as a flat array of floats within [low, high].

    Raises:
        GridDomainError: any is not.
    """
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise GridDomainError(f"{name} must be numbers") from error
    if found.ndim != 1:
        raise GridDomainError(f"{name} must be a list of numbers")
    # written so that a NaN, which compares with nothing, is refused
    if not bool(np.all((found >= low) & (found <= high))):
        wrong = found[~((found >= low) & (found <= high))][0]
        raise GridDomainError(f"{name} must lie within {low:g}..{high:g}, not {wrong!r}")
    return found


@dataclass(frozen=True, slots=True)
class GridBook:
    """A book as arrays, one entry per position. Prices in money, vols and carries as fractions, left in seconds.

    kinds: of core's Kind; sizes: signed, the holder's view; spots: of each position's feed; strikes: 0 where none.
    """

    kinds: Floats
    sizes: Floats
    spots: Floats
    strikes: Floats
    carries: Floats
    vols: Floats
    left: Floats

    def __post_init__(self) -> None:
        """Refuse arrays of different lengths and numbers out of bounds.

        Raises:
            GridDomainError: naming what is wrong.
        """
        bounds = {
            "kinds": (0.0, 3.0),
            "sizes": (-MAX_SIZE, MAX_SIZE),
            "spots": (1e-18, MAX_PRICE),
            "strikes": (0.0, MAX_PRICE),
            "carries": (-MAX_CARRY, MAX_CARRY),
            "vols": (0.0, MAX_VOL),
            "left": (-(2.0**64), 2.0**64),
        }
        for name, (low, high) in bounds.items():
            object.__setattr__(self, name, _numbers(name, getattr(self, name), low, high))
        if len({getattr(self, name).size for name in bounds}) != 1:
            raise GridDomainError("a book's arrays must be of one length")
        options = self.kinds >= Kind.CALL
        if bool(np.any(self.kinds != np.floor(self.kinds))):
            raise GridDomainError("a kind must be 0 (perpetual), 1 (future), 2 (call) or 3 (put)")
        if bool(np.any(options & ((self.strikes < 1e-18) | (self.vols < MIN_VOL)))):
            raise GridDomainError("an option needs a strike above 0 and a vol of at least 1%")

    @classmethod
    def of(cls, positions: Iterable[Position], spots: Mapping[bytes, int], t: int, side: int = 0) -> GridBook:
        """The positions as `side` holds them, at spots (wads) and time t (Unix seconds).

        Raises:
            GridDomainError: a feed has no spot, or a number is out of bounds.
        """
        sign = -1 if side else 1
        rows = []
        for p in positions:
            i = p.instrument
            spot = spots.get(i.feed)
            if spot is None:
                raise GridDomainError("a position's feed has no price")
            left = i.expiry - t if i.kind != Kind.PERPETUAL else 0
            rows.append((i.kind, sign * p.size / WAD, spot / WAD, i.strike / WAD, p.carry / WAD, p.vol / WAD, left))
        columns = np.asarray(rows, dtype=np.float64).reshape(-1, 7).T
        return cls(*columns)


def _tail(z: Floats) -> Floats:
    """exp(z*z/2) * N(-z) for z in [0, 8.5]: Mills' ratio over the root of two pi."""
    p = z * _P[6]
    q = z + _Q[6]
    for above, below in zip(_P[5:0:-1], _Q[5:0:-1], strict=True):
        p += above
        p *= z
        q *= z
        q += below
    p += _P[0]
    q *= z
    q += _Q[0]
    p /= q
    return p


def _time_values(low: Floats, h: Floats, v: Floats) -> Floats:
    """What options are worth above their intrinsic value; see core.valuation.time_value for the form."""
    u = h / v
    w = 0.5 * v
    n = u.shape[0]
    z = np.empty((2 * n, *u.shape[1:]))
    np.add(u, w, out=z[n:])
    u -= w
    e = u * u
    e *= -0.5
    np.exp(e, out=e)
    np.abs(u, out=z[:n])
    np.minimum(z, _TAIL_END, out=z)
    tails = _tail(z)
    # where u is above w their difference counts, and below it one less their sum, each times e
    extra = np.copysign(tails[:n], u)
    extra -= tails[n:]
    extra *= e
    extra += np.signbit(u)
    extra *= low
    return extra


def values(
    book: GridBook, price_factors: Sequence[float], vol_factors: Sequence[float], elapsed: float = 0.0
) -> Floats:
    """What one unit of every position is worth in every scenario: an array of positions by scenarios.

    Scenario j has every spot times price_factors[j] and every vol times vol_factors[j], `elapsed` seconds from now.

    Raises:
        GridDomainError: factors of different number, not within 1e-6..1000, or too many cells.
    """
    prices = _numbers("price factors", price_factors, 1e-6, 1e3)
    vols = _numbers("vol factors", vol_factors, 0.0, 1e3)
    if not (isinstance(elapsed, int | float) and math.isfinite(elapsed) and abs(elapsed) <= 2.0**64):
        raise GridDomainError(f"the time that passes must be a number of seconds, not {elapsed!r}")
    if prices.size != vols.size:
        raise GridDomainError(f"{prices.size} price factors and {vols.size} vol factors make no scenarios")
    count, scenarios = book.kinds.size, prices.size
    if count * scenarios > MAX_CELLS:
        raise GridDomainError(f"{count} positions in {scenarios} scenarios are more than {MAX_CELLS} cells")
    years = np.clip(book.left - elapsed, 0.0, MAX_YEARS * YEAR) / YEAR
    years[book.kinds == Kind.PERPETUAL] = 0.0
    drift = np.clip(book.carries * years, -MAX_DRIFT, MAX_DRIFT)
    forwards = book.spots * np.exp(drift)
    result = forwards[:, None] * prices[None, :]
    chosen = np.flatnonzero(book.kinds >= Kind.CALL)
    if chosen.size and scenarios:
        moneyness = np.log(forwards[chosen]) - np.log(book.strikes[chosen])
        shifts = np.log(prices)
        roots = np.sqrt(years[chosen])
        signs = np.where(book.kinds[chosen] == Kind.PUT, -1.0, 1.0)
        step = max(1, _BLOCK // scenarios)
        for start in range(0, chosen.size, step):
            part = slice(start, start + step)
            rows = chosen[part]
            strikes = book.strikes[rows, None]
            deviations = book.vols[rows, None] * vols
            np.maximum(deviations, MIN_VOL, out=deviations)
            np.minimum(deviations, MAX_VOL, out=deviations)
            deviations *= roots[part, None]
            # at expiry there is no time value; a deviation of nothing would divide by zero
            np.maximum(deviations, 1e-12, out=deviations)
            gain = result[rows]
            low = np.minimum(gain, strikes)
            gain -= strikes
            gain *= signs[part, None]
            np.maximum(gain, 0.0, out=gain)
            h = moneyness[part, None] + shifts
            gain += _time_values(low, np.abs(h, out=h), deviations)
            result[rows] = gain
    return result


def profits(
    book: GridBook, price_factors: Sequence[float], vol_factors: Sequence[float], elapsed: float = 0.0
) -> Floats:
    """What the holder gains on every position from now in every scenario: size times the change in value.

    Raises:
        GridDomainError: as `values`.
    """
    now = values(book, (1.0,), (1.0,))
    changed = values(book, price_factors, vol_factors, elapsed)
    changed -= now
    changed *= book.sizes[:, None]
    return changed


def cross(price_moves: Sequence[float], vol_moves: Sequence[float]) -> tuple[list[float], list[float]]:
    """Price and vol factors of every pair of relative moves (0.1 is 10% up), the vols varying fastest."""
    pairs = [(1.0 + p, 1.0 + v) for p in price_moves for v in vol_moves]
    return [p for p, _ in pairs], [v for _, v in pairs]
