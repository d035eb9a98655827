# pragma version 0.4.3
# pragma evm-version cancun
# pragma optimize gas
"""
@title RiskEngine: what positions are worth, and the margin they need
@license Apache-2.0
@notice Valuation of perpetuals, futures, calls and puts, the profit of a book since its marks, and the margin of both
    parties. Stateless and pure: no owner, no storage, no call to anybody.
@dev The twin of channeld/core/valuation.py and margin.py, integer for integer; docs/arithmetic.md defines every step, and
    tests/vectors/valuation.json pins them. Prices, strikes, sizes, vols, carries, values, profits and margins are wads
    (1e18); times and tau are seconds. "q" numbers are scaled by 2**80.

    Why unchecked arithmetic is safe: docs/arithmetic.md, section 6 gives the largest magnitude of every product under
    the bounds of docs/protocol.md, section 2; none reaches 2**255. Inputs beyond those bounds (two parties may co-sign
    nonsense) wrap silently rather than revert: `profit` is total over its argument types, so no book can lock the money
    of its own channel, and `margin` refuses a missing price and an unknown market alone. `value` is for people and
    refuses what is out of bounds.
"""

from modules import risk_arithmetic as arithmetic
from modules import risk_margin as margins


PERPETUAL: constant(uint8) = 0
FUTURE: constant(uint8) = 1
PUT: constant(uint8) = 3

WAD: constant(uint256) = 10**18
WAD_SIGNED: constant(int256) = 10**18
YEAR: constant(uint256) = 31_536_000
YEAR_SIGNED: constant(int256) = 31_536_000
MAX_TAU: constant(uint256) = 5 * 31_536_000
MAX_CARRY: constant(int256) = 5 * 10**18
MAX_SPOT: constant(uint256) = 2**96 - 1


@external
@pure
def value(kind: uint8, spot: uint256, strike: uint256, carry: int256, vol: uint256, tau: uint256) -> uint256:
    """
    @notice The value of one unit of an instrument, a wad: spot, forward, or undiscounted Black-76 on the forward.
    @dev Reverts on what docs/protocol.md, section 2 excludes, and on nothing else.
    @param kind 0 perpetual, 1 future, 2 call, 3 put.
    @param spot The spot price, a wad below 2**96.
    @param strike The strike, a wad in 1..2**96-1; ignored for kinds 0 and 1.
    @param carry The annualised basis, a wad within +-5e18; ignored for kind 0.
    @param vol The volatility, a wad, clamped to [1%, 1000%]; ignored for kinds 0 and 1.
    @param tau Seconds to expiry, clamped to five years; at zero an option is worth its intrinsic value.
    @return The value.
    """
    if kind > PUT:
        raw_revert(method_id("UnknownKind()"))
    if spot > MAX_SPOT:
        raw_revert(method_id("SpotOutOfBounds()"))
    if carry > MAX_CARRY or carry < -MAX_CARRY:
        raw_revert(method_id("CarryOutOfBounds()"))
    if kind == PERPETUAL:
        return spot
    seconds: uint256 = min(tau, MAX_TAU)
    drift: int256 = arithmetic._drift(carry, seconds)
    forward: uint256 = unsafe_mul(spot, arithmetic._exp(drift)) >> 80
    if kind == FUTURE:
        return forward
    if strike == 0 or strike > MAX_SPOT:
        raw_revert(method_id("StrikeOutOfBounds()"))
    moneyness: int256 = 0
    if forward != 0:
        moneyness = unsafe_sub(unsafe_add(arithmetic._ln(spot), drift), arithmetic._ln(strike))
    root: uint256 = isqrt(unsafe_div(seconds << 160, YEAR))
    return arithmetic._option(kind, forward, strike, moneyness, arithmetic._deviation(vol, root))


@external
@pure
def profit(as_of: uint64, positions: DynArray[margins.Position, 64], spots: DynArray[uint256, 64], t: uint64) -> int256:
    """
    @notice What party a has gained since the marks, in wads: price changes less funding paid. b's is the negative.
    @dev Total over the argument types, except that there must be one spot per position.
    @param as_of When the positions were marked, Unix seconds.
    @param positions The book of a body, in its order.
    @param spots One price per position, a wad; zero where there is no fix: that position stays at its mark, and a perpetual
        still pays its funding. Above 2**96 - 1 counts as that.
    @param t When to value, Unix seconds.
    @return The profit of a.
    """
    if len(spots) != len(positions):
        raw_revert(method_id("OneSpotPerPosition()"))
    total: int256 = 0
    # positions come sorted, so neighbours often share spot, expiry and carry: what depends on these alone is kept
    # (tau_known is none a valuation can have, so the first future or option computes them)
    tau_known: uint256 = max_value(uint256)
    spot_known: uint256 = 0
    carry_known: int256 = 0
    forward: uint256 = 0
    ln_forward: int256 = 0
    root: uint256 = 0
    i: uint256 = 0
    for p: margins.Position in positions:
        spot: uint256 = min(spots[i], MAX_SPOT)
        i = unsafe_add(i, 1)
        size: int256 = convert(p.size, int256)
        mark: int256 = convert(convert(convert(p.mark, bytes32), uint256), int256)
        carry: int256 = convert(p.carry, int256)
        if p.kind == PERPETUAL and t > as_of:
            charge: int256 = unsafe_div(unsafe_mul(unsafe_div(unsafe_mul(size, mark), WAD_SIGNED), carry), WAD_SIGNED)
            dt: int256 = convert(unsafe_sub(t, as_of), int256)
            total = unsafe_sub(total, unsafe_div(unsafe_mul(charge, dt), YEAR_SIGNED))
        if spot == 0:
            continue
        worth: uint256 = spot
        if p.kind != PERPETUAL:
            tau: uint256 = 0
            if p.expiry > t:
                tau = min(convert(unsafe_sub(p.expiry, t), uint256), MAX_TAU)
            if spot != spot_known or tau != tau_known or carry != carry_known:
                spot_known = spot
                tau_known = tau
                carry_known = carry
                drift: int256 = arithmetic._drift(carry, tau)
                forward = unsafe_mul(spot, arithmetic._exp(drift)) >> 80
                ln_forward = unsafe_add(arithmetic._ln(spot), drift)
                root = isqrt(unsafe_div(tau << 160, YEAR))
            worth = forward
            if p.kind != FUTURE:
                strike: uint256 = convert(p.strike, uint256)
                moneyness: int256 = unsafe_sub(ln_forward, arithmetic._ln(strike))
                worth = arithmetic._option(p.kind, forward, strike, moneyness, arithmetic._deviation(convert(p.vol, uint256), root))
        gain: int256 = unsafe_sub(convert(convert(worth, bytes32), int256), mark)
        total = unsafe_add(total, unsafe_div(unsafe_mul(size, gain), WAD_SIGNED))
    return total


@external
@pure
def to_units(amount: int256, decimals: uint8, collateral_price: uint256) -> int256:
    """
    @notice A signed amount of money in units of the collateral, truncated toward zero.
    @param amount Money, a wad.
    @param decimals The token's decimals, 6..18.
    @param collateral_price The price of the collateral, a wad; zero where the terms name no collateral feed.
    @return Units.
    """
    if collateral_price == 0:
        scale: uint256 = pow_mod256(10, unsafe_sub(18, convert(decimals, uint256)))
        return unsafe_div(amount, convert(convert(scale, bytes32), int256))
    scale: uint256 = pow_mod256(10, convert(decimals, uint256))
    return unsafe_div(
        unsafe_mul(amount, convert(convert(scale, bytes32), int256)), convert(convert(collateral_price, bytes32), int256)
    )


@external
@pure
def margin(
    markets: DynArray[margins.Market, 8],
    positions: DynArray[margins.Position, 64],
    prices: DynArray[uint256, 8],
    t: uint64,
) -> (uint256, uint256):
    """
    @notice The maintenance margin of party a and of party b, wads: eighteen scenarios per market and the spread charge.
    @dev Positions that have expired do not count. Total within the bounds but for three refusals: OnePricePerMarket;
        MissingPrice, where a market with a position that has not expired has the price zero: no fix, so nothing can be
        judged; UnknownMarket, where a position's feed is none of the markets'.
    @param markets The markets of the terms, each feed once.
    @param positions The book of a body, in its order.
    @param prices One spot per market, a wad; zero where there is no fix, above 2**96 - 1 counts as that.
    @param t When, Unix seconds.
    @return The maintenance margins of a and of b, wads.
    """
    required: margins.Requirements = margins._requirements(markets, positions, prices, convert(t, uint256), 0)
    return required.maintenance_a, required.maintenance_b


@external
@pure
def initial(
    markets: DynArray[margins.Market, 8],
    positions: DynArray[margins.Position, 64],
    prices: DynArray[uint256, 8],
    t: uint64,
    initial_factor: uint64,
) -> (uint256, uint256):
    """
    @notice The initial margin of party a and of party b, wads.
    @dev As `margin`; near means two days here.
    @param markets The markets of the terms, each feed once.
    @param positions The book of a body, in its order.
    @param prices One spot per market, a wad; zero where there is none.
    @param t When, Unix seconds.
    @param initial_factor The terms' initialFactor, a wad.
    @return The initial margins of a and of b, wads.
    """
    required: margins.Requirements = margins._requirements(
        markets, positions, prices, convert(t, uint256), convert(initial_factor, uint256)
    )
    return required.initial_a, required.initial_b
