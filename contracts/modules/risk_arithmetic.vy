# pragma version 0.4.3
"""
@title The arithmetic of RiskEngine
@license Apache-2.0
@notice Fixed-point exp, ln and normal tail, and Black-76 on them. Pure: no storage, no external function.
@dev The twin of channeld/core/fixedpoint.py and of the formulas of valuation.py, integer for integer; docs/arithmetic.md,
    sections 2 and 3, defines every step and section 6 says why unchecked arithmetic is safe within the bounds. Beyond them
    everything wraps and nothing reverts. Prices, strikes, vols, carries and values are wads (1e18); tau is seconds; "q"
    numbers are scaled by 2**80.
"""

PUT: constant(uint8) = 3

WAD: constant(uint256) = 10**18
YEAR: constant(uint256) = 31_536_000
MIN_VOL: constant(uint256) = 10**16
MAX_VOL: constant(uint256) = 10**19

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
