"""What a position is worth, and what a has gained since the marks: docs/arithmetic.md, sections 3 and 4.

Rules: integers alone, and total: no input within the bounds of docs/protocol.md, section 2, raises.
contracts/RiskEngine.vy computes the same integers. Prices, strikes, vols, carries and values are wads; times and tau
are seconds; sizes and profits are from a's point of view. Put and call differ by exactly forward - strike, so
conversions and boxes are worth exactly their parity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from channeld.core.errors import InputError
from channeld.core.fixedpoint import ONE, TAIL_END, exp_q, ln_q, sqrt_years_q, tail_q
from channeld.core.state import MAX_CARRY, MAX_PRICE, MAX_VOL, MIN_VOL, Kind
from channeld.core.terms import ZERO_FEED
from channeld.core.wad import WAD, YEAR, sdiv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from channeld.core.state import Body, Position
    from channeld.core.terms import Terms

MAX_TAU = 5 * YEAR
# |carry * tau / YEAR| is clamped here: a forward is at most exp(2) times its spot
MAX_DRIFT = 2 * ONE
_DRIFT_DIVISOR = YEAR * WAD


class OutOfDomainError(InputError):
    """A price, strike, vol, carry or time outside the protocol's bounds, or not an integer."""

    code = 1100
    advice = "Give integers within the bounds of docs/protocol.md, section 2: prices and strikes are wads below 2**96."


def clamp_tau(seconds: int) -> int:
    """A time to expiry in seconds, clamped to [0, 5 * YEAR]."""
    return min(max(seconds, 0), MAX_TAU)


def clamp_vol(vol: int) -> int:
    """A volatility (wad), clamped to [1%, 1000%]."""
    return min(max(vol, MIN_VOL), MAX_VOL)


def drift_q(carry: int, tau: int) -> int:
    """clamp(carry * tau / YEAR, -2, 2), scaled by ONE: the logarithm of forward / spot. tau is clamped already."""
    return min(max(sdiv(carry * tau << 80, _DRIFT_DIVISOR), -MAX_DRIFT), MAX_DRIFT)


def deviation_q(vol: int, tau: int) -> int:
    """A volatility (wad) times sqrt(tau / YEAR), scaled by ONE; vol is clamped here, tau is clamped already."""
    return clamp_vol(vol) * sqrt_years_q(tau) // WAD


def time_value(low: int, h: int, v: int) -> int:
    """The out-of-the-money option's value (a wad in [0, low]): what a call or put is worth above its intrinsic value.

    low is min(forward, strike), a wad; h = |ln(forward / strike)| and v = vol * sqrt(tau), both scaled by ONE, v > 0.

    Black-76 with u = h / v and w = v / 2 is low * N(w - u) - high * N(-w - u); since high * n(u + w) = low * n(u - w),
    one exponential serves both terms, and nothing cancels where the value is small.
    """
    u = (h << 80) // v
    w = v >> 1
    z = abs(u - w)
    if z >= TAIL_END:
        return 0 if u >= w else low
    e = exp_q(-(z * z >> 81))
    if u >= w:
        return low * (e * (tail_q(z) - tail_q(u + w)) >> 80) >> 80
    return low - (low * (e * (tail_q(z) + tail_q(u + w)) >> 80) >> 80)


def option_value(kind: int, forward_price: int, strike: int, moneyness: int, deviation: int) -> int:
    """A call's or put's value (wad) from its forward and strike (wads), ln(forward/strike) and vol*sqrt(tau) (by ONE).

    The intrinsic value where deviation or forward is zero.
    """
    gain = forward_price - strike
    low = forward_price if gain < 0 else strike
    extra = time_value(low, abs(moneyness), deviation) if deviation and low else 0
    if kind == Kind.PUT:
        gain = -gain
    return extra + gain if gain > 0 else extra


def _check_market(spot: int, carry: int, tau: int) -> None:
    if not (isinstance(spot, int) and 0 <= spot < MAX_PRICE):
        raise OutOfDomainError(f"a spot must be an integer in 0..2**96-1, not {spot!r}", spot=spot)
    if not (isinstance(carry, int) and -MAX_CARRY <= carry <= MAX_CARRY):
        raise OutOfDomainError(f"a carry must be a wad within +-500%, not {carry!r}", carry=carry)
    if not isinstance(tau, int):
        raise OutOfDomainError(f"a time to expiry must be an integer of seconds, not {tau!r}", tau=tau)


def forward(spot: int, carry: int, tau: int) -> int:
    """The forward (wad) of a spot (wad) at an annualised basis (wad) over tau seconds: spot * exp(carry * tau / YEAR).

    Raises:
        OutOfDomainError: spot outside 0..2**96-1, or |carry| above 500%.

    """
    _check_market(spot, carry, tau)
    return spot * exp_q(drift_q(carry, clamp_tau(tau))) >> 80


def value(kind: int, spot: int, strike: int, carry: int, vol: int, tau: int) -> int:
    """The value (wad) of one unit of an instrument; tau in seconds, the rest wads. docs/arithmetic.md, section 3.

    The spot for a perpetual, the forward for a future, undiscounted Black-76 on the forward for a call or put, with vol
    clamped to [1%, 1000%] and tau to [0, 5 years]; the intrinsic value at tau = 0. Within 1e-12 of the forward (and one
    unit of the last place) for strikes of 0.01 to 100 forwards.

    Raises:
        OutOfDomainError: an unknown kind; spot outside 0..2**96-1; |carry| above 500%; for options, a strike outside
            1..2**96-1 or a negative vol.

    """
    _check_market(spot, carry, tau)
    if kind not in (Kind.PERPETUAL, Kind.FUTURE, Kind.CALL, Kind.PUT):
        raise OutOfDomainError(
            f"a kind must be 0 (perpetual), 1 (future), 2 (call) or 3 (put), not {kind!r}", kind=kind
        )
    if kind >= Kind.CALL:
        if not (isinstance(strike, int) and 1 <= strike < MAX_PRICE):
            raise OutOfDomainError(f"a strike must be an integer in 1..2**96-1, not {strike!r}", strike=strike)
        if not (isinstance(vol, int) and vol >= 0):
            raise OutOfDomainError(f"a vol must be a non-negative integer, not {vol!r}", vol=vol)
    return _value(kind, spot, strike, carry, vol, clamp_tau(tau))


def _value(kind: int, spot: int, strike: int, carry: int, vol: int, tau: int) -> int:
    """Value an instrument whose inputs are within bounds, tau clamped."""
    if kind == Kind.PERPETUAL:
        return spot
    drift = drift_q(carry, tau)
    forward_price = spot * exp_q(drift) >> 80
    if kind == Kind.FUTURE:
        return forward_price
    moneyness = ln_q(spot) + drift - ln_q(strike) if forward_price else 0
    return option_value(kind, forward_price, strike, moneyness, deviation_q(vol, tau))


def value_position(position: Position, spot: int, t: int) -> int:
    """The value (wad) of one unit of a position's instrument at a spot (wad) and time t (Unix seconds).

    Raises:
        OutOfDomainError: spot outside 0..2**96-1.

    """
    i = position.instrument
    return value(i.kind, spot, i.strike, position.carry, position.vol, i.expiry - t)


def funding(size: int, mark: int, carry: int, dt: int) -> int:
    """Funding of a perpetual over dt seconds (negative counts as zero), in wads, paid by a when positive.

    sdiv(sdiv(sdiv(size * mark, WAD) * carry, WAD) * dt, YEAR): docs/protocol.md, section 5.
    """
    return sdiv(sdiv(sdiv(size * mark, WAD) * carry, WAD) * max(dt, 0), YEAR)


def position_profit(position: Position, spot: int | None, as_of: int, t: int) -> int:
    """What a gains (wads) on one position from its mark at as_of to t (Unix seconds), funding paid included.

    spot is a wad; None or zero means that there is no fix: the position stays at its mark but still pays its funding. A
    spot above 2**96 - 1 counts as that, as everywhere with oracle values.

    Raises:
        OutOfDomainError: a negative spot.

    """
    i = position.instrument
    gain = 0
    if spot:
        worth = value_position(position, min(spot, MAX_PRICE - 1), t)
        gain = sdiv(position.size * (worth - position.mark), WAD)
    if i.kind == Kind.PERPETUAL:
        gain -= funding(position.size, position.mark, position.carry, t - as_of)
    return gain


def profit(body: Body, spots: Sequence[int | None], t: int) -> int:
    """What a has gained (wads) since the marks of a body, at time t (Unix seconds): docs/protocol.md, section 5.

    spots: one per position, in order, wads; None or zero where there is no fix.

    Raises:
        OutOfDomainError: another number of spots than of positions, or a negative spot.

    """
    if len(spots) != len(body.positions):
        raise OutOfDomainError(f"{len(body.positions)} positions need as many spots, not {len(spots)}")
    return sum(position_profit(p, spot, body.as_of, t) for p, spot in zip(body.positions, spots, strict=True))


def to_units(amount_wad: int, terms: Terms, collateral_price: int) -> int:
    """A signed amount of money (wads) in units of the collateral, truncated toward zero.

    Without a collateral feed 1e18 of money is one token; with one, collateral_price (a wad, at least 1) is its price.

    Raises:
        OutOfDomainError: the terms name a collateral feed and the price is below 1.

    """
    if terms.collateral_feed == ZERO_FEED:
        return sdiv(amount_wad, 10 ** (18 - terms.decimals))
    if collateral_price < 1:
        raise OutOfDomainError(f"the collateral's price must be at least 1, not {collateral_price}")
    return sdiv(amount_wad * 10**terms.decimals, collateral_price)
