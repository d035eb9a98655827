"""Greeks: advisory floats for people and limits; they never settle anything.

Rules: floats and the standard library's math alone. Black-76, undiscounted, on the forward spot * exp(carry * tau), as
in docs/protocol.md, section 5. Units: prices in the currency of the spot; vols and carries as fractions (0.65 is 65%);
tau in seconds. Source of the formulas: Black, "The pricing of commodity contracts" (1976); Hull, "Options, futures and
other derivatives", on futures options.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from channeld.core.errors import InputError
from channeld.core.state import Kind
from channeld.core.wad import DAY, YEAR

_MIN_PRICE, _MAX_PRICE = 1e-18, 2.0**96 / 1e18
_MAX_TAU = 5.0 * YEAR
_MAX_CARRY = 5.0
_MAX_DRIFT = 2.0
_MIN_VOL, _MAX_VOL = 0.01, 10.0


class GreeksDomainError(InputError):
    """A number for which the greeks are not defined, or which is not a finite number at all."""

    code = 1103
    advice = "Give finite numbers: spot above 0, strike above 0 for options, vol within 1%..1000%, carry within +-500%."


@dataclass(frozen=True, slots=True)
class Greeks:
    """Per unit of the instrument. price and theta in the spot's currency.

    delta: per unit of spot. gamma: delta per unit of spot. vega: per vol point (0.01). theta: per day that passes, the
    spot standing still (for a perpetual, its funding at the carry). rho: per point (0.01) of carry. vanna: delta per
    vol point. volga: vega per vol point.
    """

    price: float
    delta: float
    gamma: float
    vega: float
    theta: float
    rho: float = 0.0
    vanna: float = 0.0
    volga: float = 0.0


def _check(condition: bool, message: str) -> None:  # noqa: FBT001 - an assertion with a typed error
    if not condition:
        raise GreeksDomainError(message)


def _number(name: str, value: float, low: float, high: float) -> float:
    """The value as a finite float within [low, high], else the typed error."""
    ok = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    _check(ok, f"{name} must be a number within {low:g}..{high:g}, not {value!r}")
    return float(value)


def _density(x: float) -> float:
    return math.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _distribution(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def greeks(kind: int, spot: float, strike: float, carry: float, vol: float, tau: float) -> Greeks:
    """Price and greeks of one unit. tau in seconds (negative counts as zero), clamped to five years.

    Raises:
        GreeksDomainError: an unknown kind; spot not above 0; for options, strike not above 0 or vol outside 1%..1000%;
            |carry| above 5; anything not finite.

    """
    _check(kind in tuple(Kind), f"a kind must be 0 (perpetual), 1 (future), 2 (call) or 3 (put), not {kind!r}")
    spot = _number("spot", spot, _MIN_PRICE, _MAX_PRICE)
    carry = _number("carry", carry, -_MAX_CARRY, _MAX_CARRY)
    tau = min(max(_number("tau", tau, -(2.0**64), 2.0**64), 0.0), _MAX_TAU)
    if kind == Kind.PERPETUAL:
        return Greeks(spot, 1.0, 0.0, 0.0, -spot * carry * DAY / YEAR)
    years = tau / YEAR
    drift = carry * years
    clamped = abs(drift) > _MAX_DRIFT
    growth = math.exp(math.copysign(min(abs(drift), _MAX_DRIFT), drift))
    forward = spot * growth
    # what a day takes from the forward, the spot standing still; nothing where the drift is clamped
    forward_decay = 0.0 if clamped or years == 0 else -carry * forward * DAY / YEAR
    # what a point of carry adds to the forward
    forward_rho = 0.0 if clamped else forward * years / 100
    if kind == Kind.FUTURE:
        return Greeks(forward, growth, 0.0, 0.0, forward_decay, forward_rho)
    return _option(kind, (forward, growth, forward_decay, forward_rho), (strike, vol, years))


def _option(kind: int, underlying: tuple[float, float, float, float], contract: tuple[float, float, float]) -> Greeks:
    """A call's or put's greeks, at expiry those of its payoff."""
    forward, growth, forward_decay, forward_rho = underlying
    strike, vol, years = contract
    strike = _number("strike", strike, _MIN_PRICE, _MAX_PRICE)
    vol = _number("vol", vol, _MIN_VOL, _MAX_VOL)
    sign = 1.0 if kind == Kind.CALL else -1.0
    deviation = vol * math.sqrt(years)
    if deviation == 0:
        price = max(sign * (forward - strike), 0.0)
        return Greeks(price, sign * growth if price else 0.0, 0.0, 0.0, 0.0, sign * forward_rho if price else 0.0)
    d1 = (math.log(forward) - math.log(strike)) / deviation + deviation / 2
    d2 = d1 - deviation
    # by parity from the out-of-the-money side, where nothing cancels
    outside = 1.0 if forward <= strike else -1.0
    price = max(outside * (forward * _distribution(outside * d1) - strike * _distribution(outside * d2)), 0.0) + max(
        sign * (forward - strike), 0.0
    )
    forward_delta = sign * _distribution(sign * d1)
    density = _density(d1)
    vega = forward * density * math.sqrt(years) / 100
    return Greeks(
        price=price,
        delta=forward_delta * growth,
        gamma=density / (forward * deviation) * growth * growth,
        vega=vega,
        theta=forward_delta * forward_decay - forward * density * vol / (2 * math.sqrt(years)) * DAY / YEAR,
        rho=forward_delta * forward_rho,
        vanna=-density * d2 / vol * growth / 100,
        volga=vega * d1 * d2 / vol / 100,
    )
