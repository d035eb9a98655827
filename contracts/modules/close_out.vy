# pragma version 0.4.3
"""
@title Closing a book out
@license Apache-2.0
@notice Which fix each position takes, and what the book then comes to. Stateless; its twin is core/settlement.py.
"""

from modules import typed_data


interface RiskEngine:
    def profit(
        as_of: uint64,
        positions: DynArray[typed_data.Position, typed_data.MAX_POSITIONS],
        spots: DynArray[uint256, typed_data.MAX_POSITIONS],
        t: uint64,
    ) -> int256: view


interface FixBook:
    def fix(oracle_hash: bytes32, feed: bytes32, t: uint64) -> (uint256, uint256): view


# no body within the bounds of docs/protocol.md, section 2, comes near
MAX_PROFIT: constant(int256) = 2**190


@internal
@view
def _profit(
    engine: address, book: address, terms: typed_data.Terms, body: typed_data.Body, t: uint64
) -> (int256, bool):
    """
    @notice a's profit since the marks at the fixes for t, in units, and whether every fix that this needs is complete.
    @dev A position that expired by t takes its own expiry's fix; one without its fix, and the collateral without its
         own, stays at its mark.
    """
    oracle_hash: bytes32 = typed_data._oracle_hash(terms.oracle)
    full: uint256 = len(terms.oracle.signers) * convert(terms.oracle.samples, uint256)
    complete: bool = True
    spots: DynArray[uint256, typed_data.MAX_POSITIONS] = []
    # positions are sorted: neighbours mostly share their fix
    last_feed: bytes32 = empty(bytes32)
    last_time: uint64 = 0
    price: uint256 = 0
    weight: uint256 = 0
    for position: typed_data.Position in body.positions:
        at: uint64 = position.expiry if position.kind != 0 and position.expiry <= t else t
        if len(spots) == 0 or position.feed != last_feed or at != last_time:
            price, weight = staticcall FixBook(book).fix(oracle_hash, position.feed, at)
            last_feed = position.feed
            last_time = at
            if weight < full:
                complete = False
        spots.append(price)
    profit: int256 = staticcall RiskEngine(engine).profit(body.asOf, body.positions, spots, t)
    # within the bounds of a state this changes nothing; beyond them it keeps what follows from overflowing
    profit = max(min(profit, MAX_PROFIT), -MAX_PROFIT)
    decimals: uint256 = convert(terms.decimals, uint256)
    if terms.collateralFeed == empty(bytes32):
        return profit // convert(10 ** (18 - decimals), int256), complete
    price, weight = staticcall FixBook(book).fix(oracle_hash, terms.collateralFeed, t)
    if weight < full:
        complete = False
    if weight == 0:
        price = convert(body.collateralMark, uint256)
    return (
        profit * convert(10**decimals, int256) // convert(max(price, 1), int256),
        complete,
    )
