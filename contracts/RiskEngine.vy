# pragma version 0.4.3
# pragma evm-version cancun
# pragma optimize gas
"""
@title RiskEngine: what positions are worth
@license Apache-2.0
@notice Valuation of perpetuals, futures, calls and puts, and the profit of a book since its marks. Stateless and pure:
    no owner, no storage, no call to anybody.
@dev The twin of channeld/core/fixedpoint.py and valuation.py, integer for integer; docs/arithmetic.md defines every step,
    and tests/vectors/valuation.json pins them. Prices, strikes, sizes, vols, carries, values and profits are wads (1e18);
    times and tau are seconds. "q" numbers are scaled by 2**80.

    Why unchecked arithmetic is safe: docs/arithmetic.md, section 6 gives the largest magnitude of every product under
    the bounds of docs/protocol.md, section 2; none reaches 2**255. Inputs beyond those bounds (two parties may co-sign
    nonsense) wrap silently rather than revert: `profit` is total over its argument types, so no book can lock the money
    of its own channel. `value` is for people and refuses what is out of bounds.
"""

struct Position:
    kind: uint8
    feed: bytes32
    expiry: uint64
    strike: uint128
    size: int128
    mark: uint128
    carry: int64
    vol: uint64


PERPETUAL: constant(uint8) = 0
FUTURE: constant(uint8) = 1
PUT: constant(uint8) = 3

WAD: constant(uint256) = 10**18
WAD_SIGNED: constant(int256) = 10**18
YEAR: constant(uint256) = 31_536_000
YEAR_SIGNED: constant(int256) = 31_536_000
MAX_TAU: constant(uint256) = 5 * 31_536_000
MIN_VOL: constant(uint256) = 10**16
MAX_VOL: constant(uint256) = 10**19
MAX_CARRY: constant(int256) = 5 * 10**18
MAX_SPOT: constant(uint256) = 2**96 - 1

ONE: constant(uint256) = 2**80
MAX_DRIFT: constant(int256) = 2 * 2**80
# YEAR * WAD
DRIFT_DIVISOR: constant(int256) = 31_536_000 * 10**18
# ln 2, scaled by 2**80 and by 2**96; the square root of 2, scaled by 2**110
LN2: constant(int256) = 837963523372001241319908
LN2_96: constant(int256) = 54916777467707473351141471128
SQRT2_110: constant(int256) = 1835754159301792232857008151837349
# 128.5 ln 2: makes the dividend of exp's range reduction positive, and rounds it to the nearest
EXP_OFFSET: constant(int256) = 128 * 837963523372001241319908 + 418981761686000620659954
# exp(-z * z / 2) vanishes from here on
TAIL_END: constant(uint256) = 11 * 2**80


# ---------------------------------------------------------------------------------------------------------- fixed point


@internal
@pure
def _exp(x: int256) -> uint256:
    """
    @notice exp(x), x and the result scaled by 2**80; exactly 2**80 at zero.
    @dev Range reduction by powers of two, then the [7/7] Pade approximant. Domain: -88 <= x / 2**80 <= 2.
    @param x The exponent.
    @return exp(x).
    """
    k: int256 = unsafe_div(unsafe_add(x, EXP_OFFSET), LN2)
    r: int256 = unsafe_sub(x, unsafe_mul(unsafe_sub(k, 128), LN2))
    t: int256 = unsafe_mul(r, r) >> 80
    even: int256 = unsafe_add(
        unsafe_mul(
            unsafe_add(
                unsafe_mul(unsafe_add(unsafe_mul(56, t), 25200 * 2**80), t) >> 80,
                1995840 * 2**80,
            ),
            t,
        ) >> 80,
        17297280 * 2**80,
    )
    odd: int256 = unsafe_mul(
        unsafe_add(
            unsafe_mul(
                unsafe_add(unsafe_mul(unsafe_add(t, 1512 * 2**80), t) >> 80, 277200 * 2**80),
                t,
            ) >> 80,
            8648640 * 2**80,
        ),
        r,
    ) >> 80
    quotient: int256 = unsafe_div(unsafe_add(even, odd) << 112, unsafe_sub(even, odd))
    return convert(convert(quotient >> convert(convert(unsafe_sub(160, k), bytes32), uint256), bytes32), uint256)


@internal
@pure
def _ln(n: uint256) -> int256:
    """
    @notice ln(n) of a plain integer, the result scaled by 2**80.
    @dev n = 2**k * m; atanh of (m - sqrt 2) / (m + sqrt 2) by its [5/5] Pade approximant. Domain: 1 <= n < 2**110.
    @param n The number.
    @return ln(n).
    """
    k: uint256 = 0
    rest: uint256 = n
    if rest >= 2**64:
        rest = rest >> 64
        k = 64
    if rest >= 2**32:
        rest = rest >> 32
        k = unsafe_add(k, 32)
    if rest >= 2**16:
        rest = rest >> 16
        k = unsafe_add(k, 16)
    if rest >= 2**8:
        rest = rest >> 8
        k = unsafe_add(k, 8)
    if rest >= 2**4:
        rest = rest >> 4
        k = unsafe_add(k, 4)
    if rest >= 2**2:
        rest = rest >> 2
        k = unsafe_add(k, 2)
    if rest >= 2:
        k = unsafe_add(k, 1)
    m: int256 = convert(convert(n << unsafe_sub(110, k), bytes32), int256)
    s: int256 = unsafe_div(unsafe_sub(m, SQRT2_110) << 80, unsafe_add(m, SQRT2_110))
    t: int256 = unsafe_mul(s, s) >> 80
    p: int256 = unsafe_sub(19225635 * 2**80, unsafe_mul(327680, t))
    p = unsafe_sub(
        552473922 * 2**80, unsafe_mul(t, unsafe_sub(175855680 * 2**80, unsafe_mul(t, p) >> 80)) >> 80
    )
    p = unsafe_sub(
        305540235 * 2**80, unsafe_mul(t, unsafe_sub(698377680 * 2**80, unsafe_mul(t, p) >> 80)) >> 80
    )
    q: int256 = unsafe_sub(52026975 * 2**80, unsafe_mul(2401245, t))
    q = unsafe_sub(
        758107350 * 2**80, unsafe_mul(t, unsafe_sub(312161850 * 2**80, unsafe_mul(t, q) >> 80)) >> 80
    )
    q = unsafe_sub(
        305540235 * 2**80, unsafe_mul(t, unsafe_sub(800224425 * 2**80, unsafe_mul(t, q) >> 80)) >> 80
    )
    half_steps: int256 = convert(convert(unsafe_add(k << 1, 1), bytes32), int256)
    return unsafe_add(
        unsafe_div(unsafe_mul(unsafe_mul(2, s), p), q),
        unsafe_mul(half_steps, LN2_96) >> 17,
    )


@internal
@pure
def _tail(z: uint256) -> uint256:
    """
    @notice exp(z*z/2) * N(-z), N the standard normal distribution; z and the result scaled by 2**80.
    @dev A ratio of polynomials, P of degree 11 over monic Q of degree 12, by Horner's rule. Domain: 0 <= z / 2**80 <= 34.
    @param z The argument.
    @return The tail.
    """
    # one nested expression each: Horner's accumulator then never leaves the stack, a tenth of a valuation's gas
    p: uint256 = unsafe_add(unsafe_mul(unsafe_add(unsafe_mul(unsafe_add(unsafe_mul(unsafe_add(unsafe_mul(
        unsafe_add(unsafe_mul(unsafe_add(unsafe_mul(unsafe_add(unsafe_mul(unsafe_add(unsafe_mul(unsafe_add(unsafe_mul(
        unsafe_add(unsafe_mul(unsafe_add(unsafe_mul(
        482291623313214264165694, z) >> 80, 17288278276638847479179577
        ), z) >> 80, 304516623555915039452167234
        ), z) >> 80, 3443657842574305543843385583
        ), z) >> 80, 27606662049740049815432016178
        ), z) >> 80, 164113936774075397708280003900
        ), z) >> 80, 736884503086335299406773888169
        ), z) >> 80, 2499097960425086805108068409238
        ), z) >> 80, 6286725361948913577097348708363
        ), z) >> 80, 11225731504484517072226949574138
        ), z) >> 80, 12920756119274847538592841689292
        ), z) >> 80, 7387103254309113884786106612889
    )
    q: uint256 = unsafe_add(unsafe_mul(unsafe_add(unsafe_mul(unsafe_add(unsafe_mul(unsafe_add(unsafe_mul(
        unsafe_add(unsafe_mul(unsafe_add(unsafe_mul(unsafe_add(unsafe_mul(unsafe_add(unsafe_mul(unsafe_add(unsafe_mul(
        unsafe_add(unsafe_mul(unsafe_add(unsafe_mul(
        unsafe_add(z, 43335287147901622446768180), z) >> 80, 764518904521174588879263221
        ), z) >> 80, 8675305403421040127626811790
        ), z) >> 80, 69960531792877851514912220901
        ), z) >> 80, 419917933587385352412260419739
        ), z) >> 80, 1914780643215495854410903493718
        ), z) >> 80, 6658851574685701795201053507499
        ), z) >> 80, 17474724883500153137727780739399
        ), z) >> 80, 33663391812499759020246458414947
        ), z) >> 80, 45088455382025190400616612283280
        ), z) >> 80, 37629623509889384471954904651809
        ), z) >> 80, 14774206508618227769735958276703
    )
    return unsafe_div(p << 80, q)


# ------------------------------------------------------------------------------------------------------------ valuation


@internal
@pure
def _drift(carry: int256, tau: uint256) -> int256:
    """
    @notice clamp(carry * tau / YEAR, -2, 2), scaled by 2**80.
    @param carry The annualised basis, a wad.
    @param tau Seconds, clamped already.
    @return ln(forward / spot).
    """
    drift: int256 = unsafe_div(
        unsafe_mul(carry, convert(convert(tau, bytes32), int256)) << 80, DRIFT_DIVISOR
    )
    return min(max(drift, -MAX_DRIFT), MAX_DRIFT)


@internal
@pure
def _deviation(vol: uint256, root: uint256) -> uint256:
    """
    @notice vol * sqrt(tau / YEAR), scaled by 2**80.
    @param vol A wad, clamped here to [1%, 1000%].
    @param root sqrt(tau / YEAR), scaled by 2**80.
    @return The standard deviation of the logarithm of the price.
    """
    return unsafe_div(unsafe_mul(min(max(vol, MIN_VOL), MAX_VOL), root), WAD)


@internal
@pure
def _time_value(low: uint256, h: uint256, v: uint256) -> uint256:
    """
    @notice The out-of-the-money option's value, a wad in [0, low].
    @dev Black-76 as low * (one exponential) * (difference of tails): nothing cancels where the value is small.
    @param low min(forward, strike), a wad.
    @param h |ln(forward / strike)|, scaled by 2**80.
    @param v vol * sqrt(tau), scaled by 2**80, above zero.
    @return The value above intrinsic of the call and of the put.
    """
    u: uint256 = unsafe_div(h << 80, v)
    w: uint256 = v >> 1
    if u >= w:
        z: uint256 = unsafe_sub(u, w)
        if z >= TAIL_END:
            return 0
        e: uint256 = self._exp(convert(convert(unsafe_sub(0, unsafe_mul(z, z) >> 81), bytes32), int256))
        return unsafe_mul(low, unsafe_mul(e, unsafe_sub(self._tail(z), self._tail(unsafe_add(u, w)))) >> 80) >> 80
    y: uint256 = unsafe_sub(w, u)
    if y >= TAIL_END:
        return low
    f: uint256 = self._exp(convert(convert(unsafe_sub(0, unsafe_mul(y, y) >> 81), bytes32), int256))
    return unsafe_sub(
        low, unsafe_mul(low, unsafe_mul(f, unsafe_add(self._tail(y), self._tail(unsafe_add(u, w)))) >> 80) >> 80
    )


@internal
@pure
def _option(kind: uint8, forward: uint256, strike: uint256, moneyness: int256, v: uint256) -> uint256:
    """
    @notice A call's or put's value, a wad: intrinsic value plus time value, so that parity is exact.
    @param kind 3 for a put; anything else is a call.
    @param forward The forward, a wad.
    @param strike The strike, a wad.
    @param moneyness ln(forward / strike), scaled by 2**80.
    @param v vol * sqrt(tau), scaled by 2**80; zero means expired.
    @return The value.
    """
    low: uint256 = min(forward, strike)
    extra: uint256 = 0
    if v != 0 and low != 0:
        h: int256 = moneyness
        if h < 0:
            h = unsafe_sub(0, h)
        extra = self._time_value(low, convert(convert(h, bytes32), uint256), v)
    if (kind == PUT) == (forward < strike):
        extra = unsafe_add(extra, unsafe_sub(max(forward, strike), low))
    return extra


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
    drift: int256 = self._drift(carry, seconds)
    forward: uint256 = unsafe_mul(spot, self._exp(drift)) >> 80
    if kind == FUTURE:
        return forward
    if strike == 0 or strike > MAX_SPOT:
        raw_revert(method_id("StrikeOutOfBounds()"))
    moneyness: int256 = 0
    if forward != 0:
        moneyness = unsafe_sub(unsafe_add(self._ln(spot), drift), self._ln(strike))
    root: uint256 = isqrt(unsafe_div(seconds << 160, YEAR))
    return self._option(kind, forward, strike, moneyness, self._deviation(vol, root))


@external
@pure
def profit(as_of: uint64, positions: DynArray[Position, 64], spots: DynArray[uint256, 64], t: uint64) -> int256:
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
    for p: Position in positions:
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
                drift: int256 = self._drift(carry, tau)
                forward = unsafe_mul(spot, self._exp(drift)) >> 80
                ln_forward = unsafe_add(self._ln(spot), drift)
                root = isqrt(unsafe_div(tau << 160, YEAR))
            worth = forward
            if p.kind != FUTURE:
                strike: uint256 = convert(p.strike, uint256)
                moneyness: int256 = unsafe_sub(ln_forward, self._ln(strike))
                worth = self._option(p.kind, forward, strike, moneyness, self._deviation(convert(p.vol, uint256), root))
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


# --------------------------------------------------------------------------------------------------------------- margin
#
# The place of `margin`, the eighteen scenarios of docs/protocol.md, section 6, in integers as docs/arithmetic.md, section 5
# defines them. Each scenario price of a market needs one _ln (eleven per market), each position one _ln of its strike and
# one square root; a scenario's value is then one _option.
