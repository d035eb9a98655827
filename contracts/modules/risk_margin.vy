# pragma version 0.4.3
"""
@title The margin of RiskEngine
@license Apache-2.0
@notice Eighteen scenarios per market, and what both parties must hold against them. Pure: no storage, no external function.
@dev The twin of channeld/core/margin.py, integer for integer; docs/arithmetic.md, section 5, defines every step. All
    figures are wads (1e18), times are seconds, "q" numbers are scaled by 2**80.

    One valuation serves both parties, and every scenario is valued with what its neighbours share: a logarithm per price
    and per strike, a forward per price and expiry, a square root per expiry.

    Why unchecked arithmetic is safe within the bounds of docs/protocol.md, section 2: docs/arithmetic.md, section 6, and the
    comments here; no figure reaches 2**255. Beyond the bounds figures wrap and nothing reverts, but for the three errors
    that `_requirements` names. Every index below is less than its array's length by the loop that makes it.
"""

from modules import risk_arithmetic as arithmetic


struct Position:
    kind: uint8
    feed: bytes32
    expiry: uint64
    strike: uint128
    size: int128
    mark: uint128
    carry: int64
    vol: uint64


struct Market:
    feed: bytes32
    priceScan: uint64
    volUp: uint64
    volDown: uint64
    wingCover: uint64
    spreadCharge: uint64


# what one book of a market (the whole one, or one without what is near) may cost each party: at the scenarios' weights,
# and at full weight
struct Scan:
    a: uint256
    b: uint256
    worst_a: uint256
    worst_b: uint256


struct Requirements:
    maintenance_a: uint256
    maintenance_b: uint256
    initial_a: uint256
    initial_b: uint256


MAX_POSITIONS: constant(uint256) = 64
MAX_MARKETS: constant(uint256) = 8

PERPETUAL: constant(uint8) = 0
FUTURE: constant(uint8) = 1
PUT: constant(uint8) = 3

WAD: constant(uint256) = 10**18
YEAR: constant(uint256) = 31_536_000
DAY: constant(uint256) = 86_400
MAX_TAU: constant(uint256) = 5 * 31_536_000
MAX_SPOT: constant(uint256) = 2**96 - 1
EXTREME_WEIGHT: constant(uint256) = 35 * 10**16

# A market's prices: moves of 0, 1, -1, 2, -2, 3, -3 thirds of a scan (the first seven, each with vols up and down), of 6 and
# -6 thirds, threefold and a third (the last four, vols up). A market's scenarios: the first seven prices with vols up,
# then with vols down, all at full weight, then the last four.
PRICES: constant(uint256) = 11
ORDINARY: constant(uint256) = 7
SCENARIOS: constant(uint256) = 18
FULL_WEIGHT: constant(uint256) = 14
MOVES: constant(int256[9]) = [0, 1, -1, 2, -2, 3, -3, 6, -6]


@internal
@pure
def _scenario_prices(spot: uint256, price_scan: uint256) -> uint256[PRICES]:
    """
    @notice The eleven prices of a market's scenarios; the first is the spot. None is below a twentieth of it.
    @dev spot < 2**96 and price_scan < 2**64, so a product stays below 2**164 and a price below 2**102.
    @param spot The spot, a wad, at least 1.
    @param price_scan The scan range, a fraction of the spot, a wad.
    @return The prices, wads.
    """
    prices: uint256[PRICES] = empty(uint256[PRICES])
    lowest: uint256 = unsafe_div(unsafe_add(spot, 19), 20)
    scan: int256 = convert(price_scan, int256)
    i: uint256 = 0
    for thirds: int256 in MOVES:
        factor: int256 = max(unsafe_add(3 * 10**18, unsafe_mul(thirds, scan)), 0)
        prices[i] = max(unsafe_div(unsafe_mul(spot, convert(factor, uint256)), 3 * WAD), lowest)
        i = unsafe_add(i, 1)
    prices[9] = unsafe_mul(3, spot)
    prices[10] = max(unsafe_div(spot, 3), lowest)
    return prices


@internal
@pure
def _ceil(x: uint256) -> uint256:
    """
    @notice x / WAD, rounded up.
    @param x A figure scaled by WAD once more than the result; below 2**255.
    @return The quotient.
    """
    return unsafe_div(unsafe_add(x, WAD - 1), WAD)


@internal
@pure
def _scan(changes: int256[SCENARIOS], wing_cover: uint256) -> Scan:
    """
    @notice What a book of one market may cost each party.
    @dev A loss is -floor(s * change / WAD), which is ceil(-s * change / WAD): both are monotonic in the change, so at full
        weight only the extremes are divided. |change| < 2**206, a loss < 2**147, a weight < 2**66.
    @param changes The book's change of value in each scenario, from a's point of view, scaled by WAD twice.
    @param wing_cover The weight of the threefold price; that of the third is thrice as much.
    @return The losses, none negative.
    """
    lowest: int256 = 0
    highest: int256 = 0
    for i: uint256 in range(FULL_WEIGHT):
        lowest = min(lowest, changes[i])
        highest = max(highest, changes[i])
    worst_a: uint256 = self._ceil(convert(convert(unsafe_sub(0, lowest), bytes32), uint256))
    worst_b: uint256 = self._ceil(convert(highest, uint256))
    scan: Scan = Scan(a=worst_a, b=worst_b, worst_a=worst_a, worst_b=worst_b)
    weights: uint256[4] = [EXTREME_WEIGHT, EXTREME_WEIGHT, wing_cover, unsafe_mul(3, wing_cover)]
    for i: uint256 in range(4):
        change: int256 = changes[unsafe_add(FULL_WEIGHT, i)]
        if change < 0:
            loss: uint256 = self._ceil(convert(convert(unsafe_sub(0, change), bytes32), uint256))
            scan.worst_a = max(scan.worst_a, loss)
            scan.a = max(scan.a, self._ceil(unsafe_mul(loss, weights[i])))
        elif change > 0:
            loss: uint256 = self._ceil(convert(change, uint256))
            scan.worst_b = max(scan.worst_b, loss)
            scan.b = max(scan.b, self._ceil(unsafe_mul(loss, weights[i])))
    return scan


@internal
@pure
def _initial(maintenance: uint256, base: uint256, worst: uint256, factor: uint256) -> uint256:
    """
    @notice max(maintenance, base, min(factor * base, worst)).
    @dev base < 2**154 and factor < 2**64.
    @param maintenance The maintenance margin.
    @param base The same with near meaning two days.
    @param worst The worst loss at full weight, the spread charge included.
    @param factor A wad, at least 1e18.
    @return The initial margin of a market.
    """
    return max(max(maintenance, base), min(self._ceil(unsafe_mul(factor, base)), worst))


@internal
@pure
def _requirements(
    markets: DynArray[Market, MAX_MARKETS],
    positions: DynArray[Position, MAX_POSITIONS],
    prices: DynArray[uint256, MAX_MARKETS],
    t: uint256,
    initial_factor: uint256,
) -> Requirements:
    """
    @notice The maintenance and the initial margin of both parties, summed over the markets.
    @dev Reverts with OnePricePerMarket, MissingPrice (zero, in a market with a position that has not expired) and
        UnknownMarket (a position of a feed that is none of the markets'), and with nothing else.
    @param markets The markets of the terms.
    @param positions The book of a body, in its order.
    @param prices One spot per market, a wad; above 2**96 - 1 counts as that.
    @param t When, Unix seconds.
    @param initial_factor A wad.
    @return The requirements, wads.
    """
    if len(prices) != len(markets):
        raw_revert(method_id("OnePricePerMarket()"))
    total: Requirements = empty(Requirements)
    count: uint256 = len(positions)
    of_a_market: uint256 = 0
    m: uint256 = 0
    for market: Market in markets:
        spot: uint256 = min(prices[m], MAX_SPOT)
        m = unsafe_add(m, 1)

        # what all positions of the market share, made when the first is met
        spots: uint256[PRICES] = empty(uint256[PRICES])
        logarithms: int256[PRICES] = empty(int256[PRICES])
        # changes of value by scenario, scaled by WAD twice: of what expires after two days or never, from 18 on of what expires
        # after one, from 36 on within one
        changes: int256[3 * SCENARIOS] = empty(int256[3 * SCENARIOS])
        any_near: bool = False
        any_soon: bool = False
        longs: uint256 = 0
        shorts: uint256 = 0
        # what positions of one expiry share; no position that counts expires at zero
        expiry_known: uint256 = 0
        carry_known: int256 = 0
        forwards: uint256[PRICES] = empty(uint256[PRICES])
        drift: int256 = 0
        root: uint256 = 0
        for i: uint256 in range(count, bound=MAX_POSITIONS):
            if positions[i].feed != market.feed:
                continue
            of_a_market = unsafe_add(of_a_market, 1)
            p: Position = positions[i]
            expiry: uint256 = convert(p.expiry, uint256)
            if p.kind != PERPETUAL and expiry <= t:
                continue
            if spots[0] == 0:
                if spot == 0:
                    raw_revert(method_id("MissingPrice()"))
                spots = self._scenario_prices(spot, convert(market.priceScan, uint256))
                for k: uint256 in range(PRICES):
                    logarithms[k] = arithmetic._ln(spots[k])

            size: int256 = convert(p.size, int256)
            bucket: uint256 = 0
            if p.kind == PERPETUAL:
                expiry_known = 0
                forwards = spots
            else:
                left: uint256 = unsafe_sub(expiry, t)
                if left <= DAY:
                    any_near = True
                    bucket = 2 * SCENARIOS
                elif left <= 2 * DAY:
                    any_soon = True
                    bucket = SCENARIOS
                carry: int256 = convert(p.carry, int256)
                if expiry != expiry_known or carry != carry_known:
                    expiry_known = expiry
                    carry_known = carry
                    tau: uint256 = min(left, MAX_TAU)
                    drift = arithmetic._drift(carry, tau)
                    growth: uint256 = arithmetic._exp(drift)
                    for k: uint256 in range(PRICES):
                        # a price < 2**102 and growth < 2**83
                        forwards[k] = unsafe_mul(spots[k], growth) >> 80
                    root = isqrt(unsafe_div(tau << 160, YEAR))

            if p.kind <= FUTURE:
                if size > 0:
                    longs = unsafe_add(longs, convert(size, uint256))
                else:
                    shorts = unsafe_add(shorts, convert(unsafe_sub(0, size), uint256))
                for k: uint256 in range(PRICES):
                    # |size| < 2**95 and a forward < 2**105
                    difference: uint256 = unsafe_sub(forwards[k], forwards[0])
                    change: int256 = unsafe_mul(size, convert(convert(difference, bytes32), int256))
                    up: uint256 = unsafe_add(bucket, k)
                    if k >= ORDINARY:
                        up = unsafe_add(up, ORDINARY)
                    else:
                        down: uint256 = unsafe_add(up, ORDINARY)
                        changes[down] = unsafe_add(changes[down], change)
                    changes[up] = unsafe_add(changes[up], change)
                continue

            strike: uint256 = convert(p.strike, uint256)
            offset: int256 = unsafe_sub(drift, arithmetic._ln(strike))
            # a vol and a factor are below 2**65
            vol: uint256 = convert(p.vol, uint256)
            vol_up: uint256 = unsafe_div(unsafe_mul(vol, unsafe_add(WAD, convert(market.volUp, uint256))), WAD)
            vol_down: uint256 = unsafe_div(unsafe_mul(vol, unsafe_sub(WAD, convert(market.volDown, uint256))), WAD)
            v_up: uint256 = arithmetic._deviation(vol_up, root)
            v_down: uint256 = arithmetic._deviation(vol_down, root)
            worth_now: uint256 = 0
            for k: uint256 in range(PRICES):
                # as arithmetic._option, with what does not depend on the vol done once
                forward: uint256 = forwards[k]
                low: uint256 = min(forward, strike)
                moneyness: int256 = unsafe_add(logarithms[k], offset)
                if moneyness < 0:
                    moneyness = unsafe_sub(0, moneyness)
                h: uint256 = convert(convert(moneyness, bytes32), uint256)
                intrinsic: uint256 = 0
                if (p.kind == PUT) == (forward < strike):
                    intrinsic = unsafe_sub(max(forward, strike), low)
                if k == 0:
                    worth_now = arithmetic._time_value(low, h, arithmetic._deviation(vol, root))
                    worth_now = unsafe_add(worth_now, intrinsic)
                base: uint256 = unsafe_sub(intrinsic, worth_now)
                up: uint256 = unsafe_add(bucket, k)
                if k >= ORDINARY:
                    up = unsafe_add(up, ORDINARY)
                else:
                    down: uint256 = unsafe_add(up, ORDINARY)
                    worth: uint256 = unsafe_add(base, arithmetic._time_value(low, h, v_down))
                    changes[down] = unsafe_add(changes[down], unsafe_mul(size, convert(convert(worth, bytes32), int256)))
                worth: uint256 = unsafe_add(base, arithmetic._time_value(low, h, v_up))
                changes[up] = unsafe_add(changes[up], unsafe_mul(size, convert(convert(worth, bytes32), int256)))

        if spots[0] == 0:
            # nothing here that has not expired
            continue
        # spreadCharge * spot < 2**160, its quotient times the smaller side < 2**203
        charge: uint256 = self._ceil(
            unsafe_mul(self._ceil(unsafe_mul(convert(market.spreadCharge, uint256), spot)), min(longs, shorts))
        )
        wing_cover: uint256 = convert(market.wingCover, uint256)
        # the book without what expires within two days, then without what expires within one, then whole
        book: int256[SCENARIOS] = empty(int256[SCENARIOS])
        for k: uint256 in range(SCENARIOS):
            book[k] = changes[k]
        far: Scan = self._scan(book, wing_cover)
        later: Scan = far
        if any_soon:
            for k: uint256 in range(SCENARIOS):
                book[k] = unsafe_add(book[k], changes[unsafe_add(SCENARIOS, k)])
            later = self._scan(book, wing_cover)
        whole: Scan = later
        if any_near:
            for k: uint256 in range(SCENARIOS):
                book[k] = unsafe_add(book[k], changes[unsafe_add(2 * SCENARIOS, k)])
            whole = self._scan(book, wing_cover)

        maintenance_a: uint256 = unsafe_add(max(whole.a, later.a), charge)
        maintenance_b: uint256 = unsafe_add(max(whole.b, later.b), charge)
        total.maintenance_a = unsafe_add(total.maintenance_a, maintenance_a)
        total.maintenance_b = unsafe_add(total.maintenance_b, maintenance_b)
        total.initial_a = unsafe_add(
            total.initial_a,
            self._initial(
                maintenance_a,
                unsafe_add(max(whole.a, far.a), charge),
                unsafe_add(max(whole.worst_a, far.worst_a), charge),
                initial_factor,
            ),
        )
        total.initial_b = unsafe_add(
            total.initial_b,
            self._initial(
                maintenance_b,
                unsafe_add(max(whole.b, far.b), charge),
                unsafe_add(max(whole.worst_b, far.worst_b), charge),
                initial_factor,
            ),
        )
    if of_a_market != count:
        raw_revert(method_id("UnknownMarket()"))
    return total
