# pragma version 0.4.3
"""
@title Closing a book out, and judging it
@license Apache-2.0
@notice Which fix each position takes, what the book then comes to, and who is below maintenance margin. Stateless; its twin
        is channeld/core/settlement.py, to the unit.
"""

from modules import typed_data


interface RiskEngine:
    def profit(
        as_of: uint64,
        positions: DynArray[typed_data.Position, typed_data.MAX_POSITIONS],
        spots: DynArray[uint256, typed_data.MAX_POSITIONS],
        t: uint64,
    ) -> int256: view
    def margin(
        markets: DynArray[typed_data.Market, typed_data.MAX_MARKETS],
        positions: DynArray[typed_data.Position, typed_data.MAX_POSITIONS],
        prices: DynArray[uint256, typed_data.MAX_MARKETS],
        t: uint64,
    ) -> (uint256, uint256): view


interface FixBook:
    def fix(oracle_hash: bytes32, feed: bytes32, t: uint64) -> (uint256, uint256): view


# no body within the bounds of docs/protocol.md, section 2, comes near
MAX_AMOUNT: constant(int256) = 2**190
ONE: constant(uint256) = 10**18
# one fix a position, and the collateral's
MAX_FIXES: constant(uint256) = 65


struct Fix:
    feed: bytes32
    at: uint64
    price: uint256
    weight: uint256


# the fixes that a book takes at a time, each once, the collateral's among them; and each position's price
struct Fixes:
    list: DynArray[Fix, MAX_FIXES]
    spots: DynArray[uint256, typed_data.MAX_POSITIONS]
    # zero where the terms name no collateral feed, or its fix is not proven
    collateral: uint256
    # of all fixes together
    weight: uint256
    complete: bool
    missing: bool


# what a margin call's test finds; equities and margins are wads, the penalty is in units
struct Verdict:
    below_a: bool
    below_b: bool
    complete: bool
    weight: uint256
    equity_a: int256
    equity_b: int256
    margin_a: uint256
    margin_b: uint256
    penalty: uint256


@internal
@view
def _fixes(
    book: address, terms: typed_data.Terms, body: typed_data.Body, t: uint64
) -> Fixes:
    """
    @notice The fixes of a book at a time: a position that expired by t takes its own expiry's. An empty book needs none.
    @param book The FixBook.
    @param terms The terms.
    @param body The body.
    @param t The time.
    """
    found: Fixes = empty(Fixes)
    found.complete = True
    if len(body.positions) == 0:
        return found
    oracle_hash: bytes32 = typed_data._oracle_hash(terms.oracle)
    full: uint256 = len(terms.oracle.signers) * convert(terms.oracle.samples, uint256)
    at: uint64 = 0
    feed: bytes32 = empty(bytes32)
    # positions are sorted: neighbours mostly share their fix
    latest: uint256 = 0
    for i: uint256 in range(len(body.positions) + 1, bound=MAX_FIXES):
        if i == len(body.positions):
            feed = terms.collateralFeed
            if feed == empty(bytes32):
                break
            at = t
        else:
            feed = body.positions[i].feed
            at = t
            if body.positions[i].kind != 0 and body.positions[i].expiry <= t:
                at = body.positions[i].expiry
        count: uint256 = len(found.list)
        known: bool = (
            count != 0 and found.list[latest].feed == feed and found.list[latest].at == at
        )
        if not known:
            latest = count
            for j: uint256 in range(count, bound=MAX_FIXES):
                if found.list[j].feed == feed and found.list[j].at == at:
                    latest = j
                    known = True
                    break
        if not known:
            price: uint256 = 0
            weight: uint256 = 0
            price, weight = staticcall FixBook(book).fix(oracle_hash, feed, at)
            found.list.append(Fix(feed=feed, at=at, price=price, weight=weight))
            found.weight += weight
            if weight < full:
                found.complete = False
            if weight == 0:
                found.missing = True
        if i == len(body.positions):
            found.collateral = found.list[latest].price
        else:
            found.spots.append(found.list[latest].price)
    return found


@internal
@view
def _profit(
    engine: address, terms: typed_data.Terms, body: typed_data.Body, found: Fixes, t: uint64
) -> int256:
    """
    @notice a's profit since the marks at these fixes, in units. A position without its fix, and the collateral without
            its own, stays at its mark.
    @param engine The RiskEngine.
    @param terms The terms.
    @param body The body.
    @param found Its fixes for t.
    @param t The time.
    """
    if len(body.positions) == 0:
        return 0
    profit: int256 = staticcall RiskEngine(engine).profit(body.asOf, body.positions, found.spots, t)
    price: uint256 = found.collateral
    if price == 0:
        price = convert(body.collateralMark, uint256)
    return self._units(terms, profit, price)


@internal
@pure
def _units(terms: typed_data.Terms, amount: int256, price: uint256) -> int256:
    """
    @notice An amount of money (a wad) in units of the collateral, truncated toward zero.
    @param terms The terms.
    @param amount The money.
    @param price The collateral's price, a wad; not looked at where the terms name no collateral feed.
    """
    # within the bounds of a state this changes nothing; beyond them it keeps what follows from overflowing
    cut: int256 = max(min(amount, MAX_AMOUNT), -MAX_AMOUNT)
    decimals: uint256 = convert(terms.decimals, uint256)
    if terms.collateralFeed == empty(bytes32):
        return cut // convert(10 ** (18 - decimals), int256)
    return cut * convert(10**decimals, int256) // convert(max(price, 1), int256)


@internal
@pure
def _equity(
    terms: typed_data.Terms,
    signed: typed_data.Account,
    gain: int256,
    deposited: uint256,
    paid: uint256,
    price: uint256,
) -> int256:
    """
    @notice A party's equity on chain, a wad: balance + gain + (deposits up to L - deposited) + (withdrawn - paid out), valued
            after the haircut where the terms name a collateral feed.
    @param terms The terms.
    @param signed The party's account in the state.
    @param gain Its profit, units.
    @param deposited Its deposits on chain up to L, units.
    @param paid What was paid out to it, units.
    @param price The collateral's price, a wad.
    """
    units: int256 = (
        convert(signed.balance, int256)
        + gain
        + convert(deposited, int256)
        - convert(signed.deposited, int256)
        + convert(signed.withdrawn, int256)
        - convert(paid, int256)
    )
    decimals: uint256 = convert(terms.decimals, uint256)
    if terms.collateralFeed == empty(bytes32):
        return units * convert(10 ** (18 - decimals), int256)
    rate: uint256 = price * (ONE - convert(terms.haircut, uint256)) // ONE
    return units * convert(rate, int256) // convert(10**decimals, int256)


@internal
@view
def _judge(
    engine: address,
    book: address,
    terms: typed_data.Terms,
    body: typed_data.Body,
    t: uint64,
    known: uint256,
    deposits: uint256,
    paid: uint256,
) -> Verdict:
    """
    @notice Who is below maintenance margin at the fixes for t, and what one who is so alone pays the other.
    @dev Every fix must be proven. An empty book is never below: balances are not negative.
    @param engine The RiskEngine.
    @param book The FixBook.
    @param terms The terms.
    @param body The body on record.
    @param t The call's time L.
    @param known What the fixes' weight must exceed; max_value where the call was not tested yet.
    @param deposits Deposited by a (128) | by b (128), up to L.
    @param paid Paid out to a (128) | to b (128).
    """
    verdict: Verdict = empty(Verdict)
    found: Fixes = self._fixes(book, terms, body, t)
    if found.missing:
        raw_revert(method_id("FixMissing()"))
    if known != max_value(uint256) and found.weight <= known:
        raw_revert(method_id("NotHeavier()"))
    verdict.complete = found.complete
    verdict.weight = found.weight
    if len(body.positions) == 0:
        return verdict

    prices: DynArray[uint256, typed_data.MAX_MARKETS] = []
    for market: typed_data.Market in terms.markets:
        price: uint256 = 0
        for fix: Fix in found.list:
            if fix.feed == market.feed and fix.at == t:
                price = fix.price
                break
        prices.append(price)
    verdict.margin_a, verdict.margin_b = staticcall RiskEngine(engine).margin(
        terms.markets, body.positions, prices, t
    )
    gain: int256 = self._profit(engine, terms, body, found, t)
    low: uint256 = 2**128 - 1
    verdict.equity_a = self._equity(
        terms, body.a, gain, deposits & low, paid & low, found.collateral
    )
    verdict.equity_b = self._equity(
        terms, body.b, -gain, deposits >> 128, paid >> 128, found.collateral
    )
    verdict.below_a = verdict.equity_a < convert(verdict.margin_a, int256)
    verdict.below_b = verdict.equity_b < convert(verdict.margin_b, int256)
    if verdict.below_a != verdict.below_b:
        margin: uint256 = verdict.margin_a if verdict.below_a else verdict.margin_b
        penalty: uint256 = convert(terms.closeoutPenalty, uint256) * margin // ONE
        verdict.penalty = convert(
            self._units(terms, convert(penalty, int256), found.collateral), uint256
        )
    return verdict
