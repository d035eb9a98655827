# pragma version 0.4.3
# pragma nonreentrancy off
"""
@title Lens
@license Apache-2.0
@notice What people and programs ask of the contracts: the fixes a body needs, what `settle` would pay now and why, margin at given
        prices. Reads alone; nothing depends on it, and no money is near it.
@dev The Adjudicator's records are views of its own (channel_record, dispute_record, margin_call).
"""

from modules import close_out
from modules import records
from modules import typed_data


interface Adjudicator:
    def DOMAIN_SEPARATOR() -> bytes32: view
    def RISK_ENGINE() -> address: view
    def FIX_BOOK() -> address: view
    def RULES() -> address: view
    def channel_record(channel: bytes32) -> records.ChannelRecord: view
    def dispute_record(channel: bytes32) -> records.DisputeRecord: view
    def margin_call(channel: bytes32, dispute: uint32, call: uint256) -> records.MarginCall: view


interface Rules:
    def profit(
        engine: address, book: address, terms: typed_data.Terms, body: typed_data.Body, t: uint64
    ) -> (int256, bool): view
    def fixes(
        book: address, terms: typed_data.Terms, body: typed_data.Body, t: uint64
    ) -> DynArray[close_out.Fix, close_out.MAX_FIXES]: view


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
    def initial(
        markets: DynArray[typed_data.Market, typed_data.MAX_MARKETS],
        positions: DynArray[typed_data.Position, typed_data.MAX_POSITIONS],
        prices: DynArray[uint256, typed_data.MAX_MARKETS],
        t: uint64,
        initial_factor: uint64,
    ) -> (uint256, uint256): view


interface FixBook:
    def fix(oracle_hash: bytes32, feed: bytes32, t: uint64) -> (uint256, uint256): view


# What settle would do now. `reason` is the error it would revert with, empty where it pays; `until` the time at which that reason
# ends of itself, zero where none does. The amounts are those at what is proven and tested by now.
struct SettlementQuote:
    reason: String[32]
    until: uint64
    fix_time: uint64
    call: uint8
    complete: bool
    profit: int256
    penalty: int256
    to_a: uint256
    to_b: uint256


struct MarketMargin:
    feed: bytes32
    maintenance_a: uint256
    maintenance_b: uint256
    initial_a: uint256
    initial_b: uint256


# wads
struct Margin:
    equity_a: int256
    equity_b: int256
    maintenance_a: uint256
    maintenance_b: uint256
    initial_a: uint256
    initial_b: uint256
    markets: DynArray[MarketMargin, typed_data.MAX_MARKETS]


ADJUDICATOR: public(immutable(address))
RISK_ENGINE: public(immutable(address))
FIX_BOOK: public(immutable(address))
RULES: public(immutable(address))
DOMAIN_SEPARATOR: public(immutable(bytes32))


@deploy
def __init__(adjudicator: address):
    """
    @notice Takes the Adjudicator, and asks it for the others.
    @param adjudicator The Adjudicator.
    """
    ADJUDICATOR = adjudicator
    RISK_ENGINE = staticcall Adjudicator(adjudicator).RISK_ENGINE()
    FIX_BOOK = staticcall Adjudicator(adjudicator).FIX_BOOK()
    RULES = staticcall Adjudicator(adjudicator).RULES()
    DOMAIN_SEPARATOR = staticcall Adjudicator(adjudicator).DOMAIN_SEPARATOR()


@external
@view
def channel_id(terms: typed_data.Terms) -> bytes32:
    """
    @notice The channel id of terms on the Adjudicator, opened or not.
    @param terms The terms.
    @return The EIP-712 digest of the terms.
    """
    return self._channel_id(terms)


@external
@view
def fixes_needed(
    terms: typed_data.Terms, body: typed_data.Body, t: uint64
) -> DynArray[close_out.Fix, close_out.MAX_FIXES]:
    """
    @notice The fixes that a close-out of a body at t takes, or a margin call's test with L = t: each once, in the order of the book,
            the collateral's own last; with the price (a wad) and the weight that are proven, zeros where none is.
    @param terms The terms.
    @param body The body.
    @param t The time, Unix seconds.
    @return The fixes; none for an empty book.
    """
    return staticcall Rules(RULES).fixes(FIX_BOOK, terms, body, t)


@external
@view
def quote_settlement(terms: typed_data.Terms, body: typed_data.Body) -> SettlementQuote:
    """
    @notice What `settle` would pay now, and why: at which fixes, by which margin call's verdict; or the error it would revert with.
    @param terms The channel's terms.
    @param body The body.
    @return The quote.
    """
    quote: SettlementQuote = empty(SettlementQuote)
    quote.call = convert(records.NO_CALL, uint8)
    channel: bytes32 = self._channel_id(terms)
    record: records.ChannelRecord = staticcall Adjudicator(ADJUDICATOR).channel_record(channel)
    dispute: records.DisputeRecord = staticcall Adjudicator(ADJUDICATOR).dispute_record(channel)
    if record.phase == 0:
        quote.reason = "UnknownChannel"
    elif convert(record.phase, uint256) == records.ENDED:
        quote.reason = "ChannelEnded"
    elif convert(record.phase, uint256) == records.OPEN:
        quote.reason = "NotInDispute"
    elif typed_data._body_hash(body) != dispute.body_hash:
        quote.reason = "BodyNotOnRecord"
    if quote.reason != "":
        return quote

    t: uint256 = records._tick(
        convert(dispute.deadline, uint256)
        + convert(terms.oracle.samples, uint256) * convert(terms.oracle.sampleGap, uint256),
        convert(terms.oracle.tick, uint256),
    )
    patience: uint256 = t + convert(terms.oracle.grace, uint256)
    late: bool = block.timestamp >= patience
    if block.timestamp < t:
        quote.reason = "FixTimeNotReached"
        quote.until = convert(t, uint64)
    quote.fix_time = convert(t, uint64)
    if len(body.positions) != 0:
        for i: uint256 in range(convert(dispute.calls, uint256), bound=records.MAX_CALLS):
            call: records.MarginCall = staticcall Adjudicator(ADJUDICATOR).margin_call(
                channel, dispute.number, i
            )
            if not late and not call.complete and quote.reason == "":
                quote.reason = "CallsUntested"
                quote.until = convert(patience, uint64)
            if quote.call == convert(records.NO_CALL, uint8) and (call.below_a or call.below_b):
                quote.call = convert(i, uint8)
                quote.fix_time = call.time
                quote.penalty = convert(call.penalty, int256)
                if call.below_a:
                    quote.penalty = -quote.penalty
    quote.profit, quote.complete = staticcall Rules(RULES).profit(
        RISK_ENGINE, FIX_BOOK, terms, body, quote.fix_time
    )
    if not quote.complete and not late and quote.reason == "":
        quote.reason = "FixesIncomplete"
        quote.until = convert(patience, uint64)
    account_a: uint256 = record.deposited_a | record.paid_a << 128
    account_b: uint256 = record.deposited_b | record.paid_b << 128
    quote.to_a = records._entitlement(
        body.a, quote.profit + quote.penalty, account_a, account_b
    )
    quote.to_b = records._pot(account_a, account_b) - quote.to_a
    return quote


@external
@view
def margin(
    terms: typed_data.Terms,
    body: typed_data.Body,
    prices: DynArray[uint256, typed_data.MAX_MARKETS],
    t: uint64,
    collateral_price: uint256,
) -> Margin:
    """
    @notice Equity, maintenance and initial margin of both parties at given prices, by market too, as the daemons compute them off
            chain: by the body's own accounts. Wads.
    @dev A position that has expired is valued at its expiry's fix where that is proven, else at its mark. Reverts as the
         RiskEngine's margin does, on a missing price or a position of no market of the terms.
    @param terms The terms.
    @param body The body.
    @param prices One price per market, a wad; zero where the book has nothing that has not expired in it.
    @param t The time, Unix seconds.
    @param collateral_price The collateral's price, a wad; not looked at where the terms name no collateral feed.
    @return The margins.
    """
    result: Margin = empty(Margin)
    oracle_hash: bytes32 = typed_data._oracle_hash(terms.oracle)
    spots: DynArray[uint256, typed_data.MAX_POSITIONS] = []
    for position: typed_data.Position in body.positions:
        spot: uint256 = 0
        if position.kind != 0 and position.expiry <= t:
            weight: uint256 = 0
            spot, weight = staticcall FixBook(FIX_BOOK).fix(
                oracle_hash, position.feed, position.expiry
            )
        else:
            for i: uint256 in range(len(terms.markets), bound=typed_data.MAX_MARKETS):
                if terms.markets[i].feed == position.feed:
                    spot = prices[i]
        spots.append(spot)
    # the whole book: what it refuses is refused here
    result.maintenance_a, result.maintenance_b = staticcall RiskEngine(RISK_ENGINE).margin(
        terms.markets, body.positions, prices, t
    )
    result.initial_a, result.initial_b = staticcall RiskEngine(RISK_ENGINE).initial(
        terms.markets, body.positions, prices, t, terms.initialFactor
    )
    for i: uint256 in range(len(terms.markets), bound=typed_data.MAX_MARKETS):
        positions: DynArray[typed_data.Position, typed_data.MAX_POSITIONS] = []
        for position: typed_data.Position in body.positions:
            if position.feed == terms.markets[i].feed:
                positions.append(position)
        row: MarketMargin = empty(MarketMargin)
        row.feed = terms.markets[i].feed
        row.maintenance_a, row.maintenance_b = staticcall RiskEngine(RISK_ENGINE).margin(
            [terms.markets[i]], positions, [prices[i]], t
        )
        row.initial_a, row.initial_b = staticcall RiskEngine(RISK_ENGINE).initial(
            [terms.markets[i]], positions, [prices[i]], t, terms.initialFactor
        )
        result.markets.append(row)

    gain: int256 = 0
    if len(body.positions) != 0:
        gain = close_out._units(
            terms,
            staticcall RiskEngine(RISK_ENGINE).profit(body.asOf, body.positions, spots, t),
            collateral_price,
        )
    result.equity_a = close_out._equity(
        terms,
        body.a,
        gain,
        convert(body.a.deposited, uint256),
        convert(body.a.withdrawn, uint256),
        collateral_price,
    )
    result.equity_b = close_out._equity(
        terms,
        body.b,
        -gain,
        convert(body.b.deposited, uint256),
        convert(body.b.withdrawn, uint256),
        collateral_price,
    )
    return result


@internal
@view
def _channel_id(terms: typed_data.Terms) -> bytes32:
    """
    @notice The EIP-712 digest of the terms.
    """
    return typed_data._digest(DOMAIN_SEPARATOR, typed_data._terms_hash(terms))
