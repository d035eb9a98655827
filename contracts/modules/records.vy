# pragma version 0.4.3
"""
@title A channel's record
@license Apache-2.0
@notice How a channel is recorded, and what its accounts entitle to. Stateless: the Adjudicator holds the records.
@dev Packed by hand into words, so that what a dispute writes is mostly words that `open` has paid for:
       a            signer (160) | floor version (64) | challenge period (32)
       b            signer (160) | version on record (64) | number of the latest dispute (32)
       payout_a     payout address
       payout_b     payout address
       vault        collateral (160) | deadline (64) | phase (8)
       account_a    deposited (128) | paid out (128)
       account_b    deposited (128) | paid out (128)
       floor_hash   body hash of the floor; zero while the floor is version 0
       record_hash  body hash on record
"""

from modules import typed_data

# phases of a channel; zero where there is none
OPEN: constant(uint256) = 1
DISPUTED: constant(uint256) = 2
ENDED: constant(uint256) = 3

# fields of the packed words
ADDRESS: constant(uint256) = 2**160 - 1
MASK_64: constant(uint256) = 2**64 - 1
MASK_128: constant(uint256) = 2**128 - 1
VERSION: constant(uint256) = MASK_64 << 160


struct ChannelRecord:
    phase: uint8
    collateral: address
    signer_a: address
    payout_a: address
    signer_b: address
    payout_b: address
    challenge_period: uint32
    deposited_a: uint256
    paid_a: uint256
    deposited_b: uint256
    paid_b: uint256
    floor_version: uint64
    floor_hash: bytes32


struct DisputeRecord:
    number: uint32
    version: uint64
    body_hash: bytes32
    deadline: uint64


struct Record:
    a: uint256
    b: uint256
    payout_a: address
    payout_b: address
    vault: uint256
    account_a: uint256
    account_b: uint256
    floor_hash: bytes32
    record_hash: bytes32


@internal
@pure
def _address(word: uint256) -> address:
    """
    @notice The address in the low bits of a packed word.
    """
    return convert(word & ADDRESS, address)





@internal
@pure
def _fix_time(terms: typed_data.Terms, deadline: uint256) -> uint256:
    """
    @notice D: the first tick at or after deadline + samples * sampleGap.
    """
    tick: uint256 = convert(terms.oracle.tick, uint256)
    earliest: uint256 = deadline + convert(terms.oracle.samples, uint256) * convert(
        terms.oracle.sampleGap, uint256
    )
    return (earliest + tick - 1) // tick * tick


@internal
@pure
def _pot(account_a: uint256, account_b: uint256) -> uint256:
    """
    @notice What the channel holds: everything deposited less everything paid out.
    """
    return (
        (account_a & MASK_128)
        + (account_b & MASK_128)
        - (account_a >> 128)
        - (account_b >> 128)
    )


@internal
@pure
def _entitlement(
    signed: typed_data.Account, gain: int256, account_a: uint256, account_b: uint256
) -> uint256:
    """
    @notice What a is due at the end: balance + gain + (on-chain deposits - deposited) + (withdrawn - paid out),
            clamped to [0, pot]; b is due the rest. By conservation nothing is left over.
    @param signed a's account in the state.
    @param gain a's profit, and later less or plus a penalty, in units.
    @param account_a a's account on chain, packed.
    @param account_b b's account on chain, packed.
    """
    due: int256 = (
        convert(signed.balance, int256)
        + gain
        + convert(account_a & MASK_128, int256)
        - convert(signed.deposited, int256)
        + convert(signed.withdrawn, int256)
        - convert(account_a >> 128, int256)
    )
    return min(convert(max(due, 0), uint256), self._pot(account_a, account_b))
