# pragma version 0.4.3
"""
@title Typed data of channeld
@license Apache-2.0
@notice The EIP-712 structs of docs/protocol.md, section 3, and their hashes. Stateless: no storage, no external function.
@dev Field names are the protocol's own. Hashes are `hashStruct`: the type hash followed by the ABI encoding of the
     members, arrays and nested structs replaced by their hashes. Static structs are encoded in place, which is why
     `abi_encode(TYPEHASH, struct)` is exactly what EIP-712 asks for them.
"""

MAX_SIGNERS: constant(uint256) = 9
MAX_MARKETS: constant(uint256) = 8
MAX_POSITIONS: constant(uint256) = 64


struct Party:
    signer: address
    payout: address


struct Oracle:
    signers: DynArray[address, MAX_SIGNERS]
    quorum: uint8
    tick: uint32
    samples: uint8
    sampleGap: uint32
    maxAge: uint32
    grace: uint32


struct Market:
    feed: bytes32
    priceScan: uint64
    volUp: uint64
    volDown: uint64
    wingCover: uint64
    spreadCharge: uint64


struct Terms:
    a: Party
    b: Party
    collateral: address
    decimals: uint8
    collateralFeed: bytes32
    haircut: uint64
    oracle: Oracle
    markets: DynArray[Market, MAX_MARKETS]
    initialFactor: uint64
    closeoutPenalty: uint64
    challengePeriod: uint32
    curePeriod: uint32
    sequencer: uint8
    salt: bytes32


struct Account:
    balance: uint128
    deposited: uint128
    withdrawn: uint128


struct Position:
    kind: uint8
    feed: bytes32
    expiry: uint64
    strike: uint128
    size: int128
    mark: uint128
    carry: int64
    vol: uint64


struct Body:
    asOf: uint64
    collateralMark: uint128
    journal: bytes32
    a: Account
    b: Account
    positions: DynArray[Position, MAX_POSITIONS]


struct Withdrawal:
    channel: bytes32
    version: uint64
    bodyHash: bytes32
    withdrawnA: uint128
    withdrawnB: uint128


struct Close:
    channel: bytes32
    version: uint64
    validUntil: uint64
    a: Account
    b: Account


struct Resume:
    channel: bytes32
    dispute: uint32
    validUntil: uint64


# a co-signed state to raise a floor with; not signed as such
struct Anchor:
    channel: bytes32
    version: uint64
    bodyHash: bytes32
    sigs: Bytes[130]


DOMAIN_TYPEHASH: constant(bytes32) = keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
PARTY_TYPEHASH: constant(bytes32) = keccak256("Party(address signer,address payout)")
ORACLE_TYPEHASH: constant(bytes32) = keccak256("Oracle(address[] signers,uint8 quorum,uint32 tick,uint8 samples,uint32 sampleGap,uint32 maxAge,uint32 grace)")
MARKET_TYPEHASH: constant(bytes32) = keccak256("Market(bytes32 feed,uint64 priceScan,uint64 volUp,uint64 volDown,uint64 wingCover,uint64 spreadCharge)")
TERMS_TYPEHASH: constant(bytes32) = keccak256("Terms(Party a,Party b,address collateral,uint8 decimals,bytes32 collateralFeed,uint64 haircut,Oracle oracle,Market[] markets,uint64 initialFactor,uint64 closeoutPenalty,uint32 challengePeriod,uint32 curePeriod,uint8 sequencer,bytes32 salt)Market(bytes32 feed,uint64 priceScan,uint64 volUp,uint64 volDown,uint64 wingCover,uint64 spreadCharge)Oracle(address[] signers,uint8 quorum,uint32 tick,uint8 samples,uint32 sampleGap,uint32 maxAge,uint32 grace)Party(address signer,address payout)")
ACCOUNT_TYPEHASH: constant(bytes32) = keccak256("Account(uint128 balance,uint128 deposited,uint128 withdrawn)")
POSITION_TYPEHASH: constant(bytes32) = keccak256("Position(uint8 kind,bytes32 feed,uint64 expiry,uint128 strike,int128 size,uint128 mark,int64 carry,uint64 vol)")
BODY_TYPEHASH: constant(bytes32) = keccak256("Body(uint64 asOf,uint128 collateralMark,bytes32 journal,Account a,Account b,Position[] positions)Account(uint128 balance,uint128 deposited,uint128 withdrawn)Position(uint8 kind,bytes32 feed,uint64 expiry,uint128 strike,int128 size,uint128 mark,int64 carry,uint64 vol)")
STATE_TYPEHASH: constant(bytes32) = keccak256("State(bytes32 channel,uint64 version,Body body)Account(uint128 balance,uint128 deposited,uint128 withdrawn)Body(uint64 asOf,uint128 collateralMark,bytes32 journal,Account a,Account b,Position[] positions)Position(uint8 kind,bytes32 feed,uint64 expiry,uint128 strike,int128 size,uint128 mark,int64 carry,uint64 vol)")
WITHDRAWAL_TYPEHASH: constant(bytes32) = keccak256("Withdrawal(bytes32 channel,uint64 version,bytes32 bodyHash,uint128 withdrawnA,uint128 withdrawnB)")
CLOSE_TYPEHASH: constant(bytes32) = keccak256("Close(bytes32 channel,uint64 version,uint64 validUntil,Account a,Account b)Account(uint128 balance,uint128 deposited,uint128 withdrawn)")

RESUME_TYPEHASH: constant(bytes32) = keccak256("Resume(bytes32 channel,uint32 dispute,uint64 validUntil)")

ONE: constant(uint256) = 10**18
# a low s is at most half the curve's order
HALF_ORDER: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168


@internal
@view
def _domain_separator(chain_id: uint256, adjudicator: address) -> bytes32:
    """
    @notice The hashStruct of the EIP-712 domain.
    """
    return keccak256(
        abi_encode(DOMAIN_TYPEHASH, keccak256("channeld"), keccak256("1"), chain_id, adjudicator)
    )


@internal
@pure
def _digest(domain_separator: bytes32, struct_hash: bytes32) -> bytes32:
    """
    @notice What is signed: keccak256(0x1901 || domain separator || hashStruct).
    """
    return keccak256(concat(x"1901", domain_separator, struct_hash))


@internal
@pure
def _oracle_hash(oracle: Oracle) -> bytes32:
    """
    @notice hashStruct(Oracle): the name under which fixes are recorded.
    """
    # the ABI encoding of the array, less its offset and its length, is the array's EIP-712 encoding
    signers: bytes32 = keccak256(slice(abi_encode(oracle.signers), 64, 32 * len(oracle.signers)))
    return keccak256(
        abi_encode(
            ORACLE_TYPEHASH,
            signers,
            oracle.quorum,
            oracle.tick,
            oracle.samples,
            oracle.sampleGap,
            oracle.maxAge,
            oracle.grace,
        )
    )


@internal
@pure
def _terms_hash(terms: Terms) -> bytes32:
    """
    @notice hashStruct(Terms).
    """
    hashes: DynArray[bytes32, MAX_MARKETS] = []
    for market: Market in terms.markets:
        hashes.append(keccak256(abi_encode(MARKET_TYPEHASH, market)))
    return keccak256(
        abi_encode(
            TERMS_TYPEHASH,
            keccak256(abi_encode(PARTY_TYPEHASH, terms.a)),
            keccak256(abi_encode(PARTY_TYPEHASH, terms.b)),
            terms.collateral,
            terms.decimals,
            terms.collateralFeed,
            terms.haircut,
            self._oracle_hash(terms.oracle),
            keccak256(slice(abi_encode(hashes), 64, 32 * len(hashes))),
            terms.initialFactor,
            terms.closeoutPenalty,
            terms.challengePeriod,
            terms.curePeriod,
            terms.sequencer,
            terms.salt,
        )
    )


@internal
@pure
def _body_hash(body: Body) -> bytes32:
    """
    @notice hashStruct(Body): what both parties sign, at a version.
    """
    hashes: DynArray[bytes32, MAX_POSITIONS] = []
    for position: Position in body.positions:
        hashes.append(keccak256(abi_encode(POSITION_TYPEHASH, position)))
    return keccak256(
        abi_encode(
            BODY_TYPEHASH,
            body.asOf,
            body.collateralMark,
            body.journal,
            keccak256(abi_encode(ACCOUNT_TYPEHASH, body.a)),
            keccak256(abi_encode(ACCOUNT_TYPEHASH, body.b)),
            keccak256(slice(abi_encode(hashes), 64, 32 * len(hashes))),
        )
    )


@internal
@pure
def _genesis_hash(channel: bytes32) -> bytes32:
    """
    @notice The hash of the implicit body of version 0: accounts zero, no positions, asOf 0, collateralMark one,
            journal the channel id.
    """
    account: bytes32 = keccak256(
        abi_encode(ACCOUNT_TYPEHASH, empty(uint256), empty(uint256), empty(uint256))
    )
    return keccak256(
        abi_encode(
            BODY_TYPEHASH, empty(uint256), ONE, channel, account, account, keccak256(b"")
        )
    )


@internal
@pure
def _state_hash(channel: bytes32, version: uint64, body_hash: bytes32) -> bytes32:
    """
    @notice hashStruct(State) from the body's hash alone.
    """
    return keccak256(abi_encode(STATE_TYPEHASH, channel, version, body_hash))


@internal
@pure
def _withdrawal_hash(withdrawal: Withdrawal) -> bytes32:
    """
    @notice hashStruct(Withdrawal).
    """
    return keccak256(abi_encode(WITHDRAWAL_TYPEHASH, withdrawal))


@internal
@pure
def _close_hash(close: Close) -> bytes32:
    """
    @notice hashStruct(Close).
    """
    return keccak256(
        abi_encode(
            CLOSE_TYPEHASH,
            close.channel,
            close.version,
            close.validUntil,
            keccak256(abi_encode(ACCOUNT_TYPEHASH, close.a)),
            keccak256(abi_encode(ACCOUNT_TYPEHASH, close.b)),
        )
    )


@internal
@pure
def _resume_hash(resume: Resume) -> bytes32:
    """
    @notice hashStruct(Resume).
    """
    return keccak256(abi_encode(RESUME_TYPEHASH, resume))


@internal
@view
def _recover(digest: bytes32, r: uint256, s: uint256, v: uint256) -> address:
    """
    @notice The signer of a digest; the zero address for what is no signature: high s, a v other than 27 and 28, zeros.
    @dev Whether the signer has code is never asked: a signature that holds today holds for ever.
    """
    if s > HALF_ORDER or (v != 27 and v != 28):
        return empty(address)
    return ecrecover(digest, v, r, s)
