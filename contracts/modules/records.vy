# pragma version 0.4.3
"""
@title A channel's record
@license Apache-2.0
@notice How a channel is recorded, and what its accounts entitle to. Stateless: the Adjudicator holds the records.
@dev Packed by hand into words, so that what a dispute writes is mostly words that `open` has paid for:
       a            signer (160) | floor version (64) | challenge period (32)
       b            signer (160) | version on record (64) | number of the latest dispute (32)
       payout_a     payout address (160) | cure period (32) | tick (32)
       payout_b     payout address
       vault        collateral (160) | deadline (64) | margin calls of the dispute (8) | phase (8)
       account_a    deposited (128) | paid out (128)
       account_b    deposited (128) | paid out (128)
       floor_hash   body hash of the floor; zero while the floor is version 0
       record_hash  body hash on record
       shown        highest version shown to settle_last (64) | end of its window (64); zero while nobody has shown any
       shown_hash   body hash of that version
     A margin call, by channel, dispute and index:
       word         L (64) | TESTED (1) | BELOW_A (1) | BELOW_B (1) | COMPLETE (1) | FROZEN (1) | party (1), at 80 | weight, at 96
       deposits     deposited by a (128) | by b (128), up to L, once FROZEN
       penalty      units, of the one party below; zero otherwise
"""

from modules import typed_data

# phases of a channel; zero where there is none
OPEN: constant(uint256) = 1
DISPUTED: constant(uint256) = 2
ENDED: constant(uint256) = 3

# fields of the packed words
ADDRESS: constant(uint256) = 2**160 - 1
MASK_32: constant(uint256) = 2**32 - 1
MASK_64: constant(uint256) = 2**64 - 1
MASK_128: constant(uint256) = 2**128 - 1
VERSION: constant(uint256) = MASK_64 << 160
# where vault keeps the number of margin calls, and the phase
CALLS: constant(uint256) = 224
PHASE: constant(uint256) = 232

# margin calls: four a party
CALLS_OF_PARTY: constant(uint256) = 4
MAX_CALLS: constant(uint256) = 8
NO_CALL: constant(uint256) = 255
# what is known of a call, in its word
TESTED: constant(uint256) = 1 << 64
BELOW_A: constant(uint256) = 1 << 65
BELOW_B: constant(uint256) = 1 << 66
COMPLETE: constant(uint256) = 1 << 67
FROZEN: constant(uint256) = 1 << 68
PARTY: constant(uint256) = 80
WEIGHT: constant(uint256) = 96
# what stays of the word when a verdict is written
KEPT: constant(uint256) = MASK_64 | FROZEN | (1 << PARTY)


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
    calls: uint8
    shown_version: uint64
    shown_hash: bytes32
    window_end: uint64


struct MarginCall:
    party: uint8
    time: uint64
    tested: bool
    below_a: bool
    below_b: bool
    complete: bool
    weight: uint256
    deposited_a: uint256
    deposited_b: uint256
    penalty: uint256


struct Record:
    a: uint256
    b: uint256
    payout_a: uint256
    payout_b: address
    vault: uint256
    account_a: uint256
    account_b: uint256
    floor_hash: bytes32
    record_hash: bytes32
    shown: uint256
    shown_hash: bytes32


struct Call:
    word: uint256
    deposits: uint256
    penalty: uint256


@internal
@pure
def _address(word: uint256) -> address:
    """
    @notice The address in the low bits of a packed word.
    """
    return convert(word & ADDRESS, address)


@internal
@pure
def _tick(t: uint256, tick: uint256) -> uint256:
    """
    @notice The first tick at or after a time. `open` has seen to it that a tick is not zero.
    """
    return (t + tick - 1) // tick * tick


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
    @param gain a's profit, less or plus a penalty, in units.
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
