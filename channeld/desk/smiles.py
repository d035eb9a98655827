"""A desk's own vols as smiles: SVI, or a table by strike or by delta, for an expiry of a feed. Floats, which advise.

Rules: what a smile gives is turned into a wad once, clamped to the protocol's bounds, and only proposed: a vol counts
once both have signed it. Every parameter is checked where it comes in, so that reading a smile never fails. Between the
points of a table total variance is linear in log-moneyness; beyond its ends the vol is flat.

SVI: total variance w(k) = a + b * (rho * (k - m) + sqrt((k - m)**2 + sigma**2)), k = ln(strike / forward). Gatheral,
"A parsimonious arbitrage-free implied volatility parameterization", 2004. Forward deltas N(d1), Black 1976.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from channeld.core.errors import InputError
from channeld.core.instruments import parse_instrument
from channeld.core.state import MAX_CARRY, MAX_VOL, MIN_VOL, Kind
from channeld.core.valuation import clamp_tau
from channeld.core.wad import WAD, YEAR, format_decimal, parse_decimal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NORMAL = NormalDist()
MOST_SMILES, MOST_POINTS = 64, 200
_LEAST_TAU = 60 / YEAR


class SurfaceError(InputError):
    """A vol surface that cannot be used: malformed, out of bounds, or with an arbitrage that its form shows."""

    code = 2406
    advice = "docs/marks.md shows the form; vols are annual, as decimals such as 0.65."


def _finite(value: object, name: str) -> float:
    """A number as float, from a decimal text or a JSON number."""
    try:
        found = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise SurfaceError(f"{name} must be a finite number, not {str(value)[:40]!r}")
    return found


@dataclass(frozen=True, slots=True)
class Svi:
    """Raw SVI of one expiry. Refused where total variance could be negative, or rise faster than 2 in the wings."""

    a: float
    b: float
    rho: float
    m: float
    sigma: float

    def __post_init__(self) -> None:
        """Refuse parameters that no surface can have."""
        if self.b < 0 or abs(self.rho) >= 1 or self.sigma <= 0:
            raise SurfaceError("SVI needs b >= 0, |rho| < 1 and sigma > 0")
        if self.a + self.b * self.sigma * math.sqrt(1 - self.rho**2) < 0:
            raise SurfaceError("SVI's least total variance, a + b * sigma * sqrt(1 - rho**2), is negative")
        if self.b * (1 + abs(self.rho)) > 2:
            raise SurfaceError("SVI's wings rise faster than 2, which no prices allow (Lee 2004)")

    def vol(self, k: float, tau: float) -> float:
        """The annual vol at log-moneyness k, tau in years."""
        away = k - self.m
        variance = self.a + self.b * (self.rho * away + math.hypot(away, self.sigma))
        return math.sqrt(max(variance, 0.0) / tau)


def _between(points: Sequence[tuple[float, float]], k: float, tau: float) -> float:
    """The vol at k: total variance linear between (log-moneyness, vol) points, flat beyond them."""
    if k <= points[0][0]:
        return points[0][1]
    for (k0, v0), (k1, v1) in pairwise(points):
        if k <= k1:
            w0, w1 = v0 * v0 * tau, v1 * v1 * tau
            share = (k - k0) / (k1 - k0) if k1 > k0 else 1.0
            return math.sqrt((w0 + (w1 - w0) * share) / tau)
    return points[-1][1]


@dataclass(frozen=True, slots=True)
class ByStrike:
    """Vols at strikes: ascending (strike in quote currency, vol)."""

    points: tuple[tuple[float, float], ...]

    def vol(self, k: float, tau: float, forward: float) -> float:
        """The vol at log-moneyness k."""
        return _between([(math.log(strike / forward), vol) for strike, vol in self.points], k, tau)


@dataclass(frozen=True, slots=True)
class ByDelta:
    """Vols at forward deltas of calls: (delta in (0, 1), vol). A put's -0.25 is the call's 0.75."""

    points: tuple[tuple[float, float], ...]

    def vol(self, k: float, tau: float) -> float:
        """The vol at log-moneyness k."""
        root = math.sqrt(tau)
        placed = sorted((-NORMAL.inv_cdf(delta) * vol * root + vol * vol * tau / 2, vol) for delta, vol in self.points)
        return _between(placed, k, tau)


Smile = Svi | ByStrike | ByDelta


def smile_vol(smile: Smile, spot: int, strike: int, carry: int, seconds: int) -> int:
    """The vol (wad, within the protocol's bounds) of a strike, from spot, strike and carry (wads); total."""
    if spot <= 0:
        return MIN_VOL
    tau = max(clamp_tau(seconds) / YEAR, _LEAST_TAU)
    drift = min(max(carry / WAD * tau, -2.0), 2.0)
    k = math.log(strike) - math.log(spot) - drift
    forward = spot / WAD * math.exp(drift)
    found = smile.vol(k, tau, forward) if isinstance(smile, ByStrike) else smile.vol(k, tau)
    return min(max(round(found * 10**9) * 10**9, MIN_VOL), MAX_VOL)


def _points(data: object, name: str, least: float, most: float) -> list[tuple[float, float]]:
    if not isinstance(data, dict) or not 1 <= len(data) <= MOST_POINTS:
        raise SurfaceError(f"{name} must hold 1 to {MOST_POINTS} pairs of {name[:-1]} and vol")
    points = []
    for key, value in data.items():
        at, vol = _finite(key, name), _finite(value, f"the vol at {key}")
        if not least < at < most:
            raise SurfaceError(f"{key} of {name} is out of bounds")
        if not MIN_VOL / WAD <= vol <= MAX_VOL / WAD:
            bounds = f"{format_decimal(MIN_VOL)}..{format_decimal(MAX_VOL)}"
            raise SurfaceError(f"the vol {vol} at {key} must lie in {bounds}")
        points.append((at, vol))
    points.sort()
    if len({at for at, _ in points}) != len(points):
        raise SurfaceError(f"{name} has a point twice")
    return points


def _smile(data: Mapping[str, Any]) -> Smile:
    forms = {"svi", "strikes", "deltas"} & data.keys()
    if len(forms) != 1:
        raise SurfaceError("a smile has one of svi, strikes and deltas")
    (form,) = forms
    if form == "svi":
        given = data["svi"]
        names = ("a", "b", "rho", "m", "sigma")
        if not isinstance(given, dict) or set(given) != set(names):
            raise SurfaceError(f"svi has exactly {', '.join(names)}")
        return Svi(**{name: _finite(given[name], name) for name in names})
    if form == "strikes":
        return ByStrike(tuple(_points(data["strikes"], "strikes", 0, 1e12)))
    deltas = _points(data["deltas"], "deltas", -1, 1)
    if any(delta == 0 for delta, _ in deltas):
        raise SurfaceError("0 of deltas is out of bounds")
    calls = sorted((delta if delta > 0 else 1 + delta, vol) for delta, vol in deltas)
    if len({delta for delta, _ in calls}) != len(calls):
        raise SurfaceError("deltas has a point twice: a put's -0.25 is the call's 0.75")
    return ByDelta(tuple(calls))


def read_smiles(rows: object) -> dict[tuple[bytes, int], Smile]:
    """Smiles by (feed, expiry) from their JSON: a list of {"expiry": "ETH-27DEC30", "svi" | "strikes" | "deltas"}.

    Raises:
        SurfaceError: what is wrong; nothing of it is used.
        InstrumentNameError: an expiry that is no future's name.
    """
    if not isinstance(rows, list) or len(rows) > MOST_SMILES:
        raise SurfaceError(f"smiles must be a list of at most {MOST_SMILES}")
    found: dict[tuple[bytes, int], Smile] = {}
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("expiry"), str):
            raise SurfaceError('a smile needs its expiry, as a future is named: "ETH-27DEC30"')
        instrument = parse_instrument(row["expiry"])
        if instrument.kind != Kind.FUTURE:
            raise SurfaceError(f"{row['expiry']} is no expiry: name it as a future, such as ETH-27DEC30")
        if unknown := row.keys() - {"expiry", "svi", "strikes", "deltas"}:
            raise SurfaceError(f"a smile has no {min(unknown)!r}")
        key = (instrument.feed, instrument.expiry)
        if key in found:
            raise SurfaceError(f"{row['expiry']} stands twice")
        found[key] = _smile(row)
    return found


def read_carry(text: object) -> int:
    """A carry (wad) from its decimal text.

    Raises:
        SurfaceError, MalformedNumberError: out of the protocol's bounds, or no decimal.
    """
    if not isinstance(text, str):
        raise SurfaceError("a carry must be a decimal text")
    carry = parse_decimal(text)
    if abs(carry) > MAX_CARRY:
        raise SurfaceError(f"a carry must lie within {format_decimal(MAX_CARRY)} a year")
    return carry
