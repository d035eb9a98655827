# pragma version 0.4.3
# pragma nonreentrancy on
"""
@title Adjudicator
@license Apache-2.0
@notice Custody and disputes of all channels, nothing else (docs/protocol.md, section 11; docs/contracts.md walks through it).
        Two parties lock collateral, trade by co-signing states off chain, and are paid here: by a signed Close, or, when
        one of them disappears or cheats, by the highest co-signed state that anybody shows, at oracle fixes.
        No owner, no upgrade, no pause, no fee.
@dev Valuation lives in RiskEngine, fixes in FixBook. One transient lock covers every external function, views included:
     no call that a token makes back can see or change a half-made transition.
     Custom errors are raised by selector; contracts/compile.py lists them in the ABI.
     A record is packed by hand into words, so that what a dispute writes is mostly words that `open` has paid for:
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


interface RiskEngine:
    def profit(
        as_of: uint64,
        positions: DynArray[typed_data.Position, typed_data.MAX_POSITIONS],
        spots: DynArray[uint256, typed_data.MAX_POSITIONS],
        t: uint64,
    ) -> int256: view


interface FixBook:
    def fix(oracle_hash: bytes32, feed: bytes32, t: uint64) -> (uint256, uint256): view


interface Token:
    def balanceOf(owner: address) -> uint256: view


event Opened:
    channel: indexed(bytes32)
    signer_a: indexed(address)
    signer_b: indexed(address)
    terms: typed_data.Terms


event Deposited:
    channel: indexed(bytes32)
    party: indexed(uint8)
    caller: indexed(address)
    received: uint256
    deposited_a: uint256
    deposited_b: uint256


event Withdrawn:
    channel: indexed(bytes32)
    withdrawal: typed_data.Withdrawal
    to_a: uint256
    to_b: uint256
    sigs: Bytes[130]


event Challenged:
    channel: indexed(bytes32)
    dispute: indexed(uint32)
    caller: indexed(address)
    version: uint64
    body_hash: bytes32
    deadline: uint64
    sigs: Bytes[130]


event Refuted:
    channel: indexed(bytes32)
    dispute: indexed(uint32)
    caller: indexed(address)
    version: uint64
    body_hash: bytes32
    deadline: uint64
    sigs: Bytes[130]


event Closed:
    channel: indexed(bytes32)
    close: typed_data.Close
    to_a: uint256
    to_b: uint256
    sigs: Bytes[130]


event Settled:
    channel: indexed(bytes32)
    dispute: indexed(uint32)
    caller: indexed(address)
    version: uint64
    body_hash: bytes32
    fix_time: uint64
    complete: bool
    profit: int256
    to_a: uint256
    to_b: uint256


event Held:
    token: indexed(address)
    payee: indexed(address)
    amount: uint256


event Claimed:
    token: indexed(address)
    payee: indexed(address)
    to: indexed(address)
    amount: uint256


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


# phases of a channel; zero where there is none
OPEN: constant(uint256) = 1
DISPUTED: constant(uint256) = 2
ENDED: constant(uint256) = 3

# fields of the packed words
ADDRESS: constant(uint256) = 2**160 - 1
MASK_64: constant(uint256) = 2**64 - 1
MASK_128: constant(uint256) = 2**128 - 1
VERSION: constant(uint256) = MASK_64 << 160
DEADLINE_AND_PHASE: constant(uint256) = max_value(uint256) - ADDRESS

WAD: constant(uint256) = 10**18
MAX_PACKAGES: constant(uint256) = 45
MAX_PROFIT: constant(int256) = 2**190

# What a token may burn in a payout. A payout starts only with gas for the whole of it (63/64 of what is left reaches a
# call), so that no caller can make a transfer fail, or its outcome unreadable, by sending too little.
TRANSFER_GAS: constant(uint256) = 300_000
BALANCE_GAS: constant(uint256) = 100_000
PAYOUT_GAS: constant(uint256) = 550_000

RISK_ENGINE: public(immutable(address))
FIX_BOOK: public(immutable(address))
# the chain id is read once: after a fork of the chain, the channels stay with this id
DOMAIN_SEPARATOR: public(immutable(bytes32))

_records: HashMap[bytes32, Record]
# token -> payee -> what could not be pushed
_held: HashMap[address, HashMap[address, uint256]]


@deploy
def __init__(risk_engine: address, fix_book: address):
    """
    @notice Takes the two contracts that it asks, for ever.
    @param risk_engine The RiskEngine.
    @param fix_book The FixBook.
    """
    RISK_ENGINE = risk_engine
    FIX_BOOK = fix_book
    DOMAIN_SEPARATOR = typed_data._domain_separator(chain.id, self)


# ---------------------------------------------------------------------------------------------------------------- opening


@external
def open(terms: typed_data.Terms) -> bytes32:
    """
    @notice Records a channel. Anyone may; the id binds every term, so that opening in front of somebody changes nothing.
    @dev Refuses terms that could not be enforced. More than 9 oracle signers or 8 markets do not decode.
    @param terms The terms.
    @return The channel id: the EIP-712 digest of the terms.
    """
    channel: bytes32 = self._check_terms(terms)
    if self._records[channel].vault != 0:
        raw_revert(method_id("AlreadyOpened()"))
    self._records[channel].a = convert(terms.a.signer, uint256) | (
        convert(terms.challengePeriod, uint256) << 224
    )
    self._records[channel].b = convert(terms.b.signer, uint256)
    self._records[channel].payout_a = terms.a.payout
    self._records[channel].payout_b = terms.b.payout
    self._records[channel].vault = convert(terms.collateral, uint256) | (OPEN << 224)
    log Opened(channel=channel, signer_a=terms.a.signer, signer_b=terms.b.signer, terms=terms)
    return channel


@internal
@view
def _check_terms(terms: typed_data.Terms) -> bytes32:
    """
    @notice Refuses terms that could not be enforced.
    @return The channel id.
    """
    if terms.a.signer == empty(address) or terms.b.signer == empty(address):
        raw_revert(method_id("ZeroSigner()"))
    if terms.a.signer == terms.b.signer:
        raw_revert(method_id("EqualSigners()"))
    if terms.a.payout == empty(address) or terms.b.payout == empty(address):
        raw_revert(method_id("ZeroPayout()"))
    if terms.sequencer > 1:
        raw_revert(method_id("InvalidSequencer()"))
    if convert(terms.haircut, uint256) > WAD:
        raw_revert(method_id("HaircutAboveOne()"))
    if convert(terms.initialFactor, uint256) < WAD:
        raw_revert(method_id("InitialFactorBelowOne()"))
    if terms.challengePeriod == 0:
        raw_revert(method_id("ZeroChallengePeriod()"))
    if terms.curePeriod == 0:
        raw_revert(method_id("ZeroCurePeriod()"))
    if terms.curePeriod > terms.challengePeriod:
        raw_revert(method_id("CurePeriodAboveChallengePeriod()"))

    # an oracle whose fixes can be proven, and not by a minority
    signers: uint256 = len(terms.oracle.signers)
    quorum: uint256 = convert(terms.oracle.quorum, uint256)
    samples: uint256 = convert(terms.oracle.samples, uint256)
    tick: uint256 = convert(terms.oracle.tick, uint256)
    gap: uint256 = convert(terms.oracle.sampleGap, uint256)
    grace: uint256 = convert(terms.oracle.grace, uint256)
    cure: uint256 = convert(terms.curePeriod, uint256)
    if quorum > signers:
        raw_revert(method_id("QuorumAboveSigners()"))
    if 2 * quorum <= signers:
        raw_revert(method_id("QuorumNoMajority()"))
    previous: uint256 = 0
    for signer: address in terms.oracle.signers:
        if convert(signer, uint256) <= previous:
            raw_revert(method_id("OracleSignersUnsorted()"))
        previous = convert(signer, uint256)
    if samples == 0:
        raw_revert(method_id("ZeroSamples()"))
    if signers * samples > MAX_PACKAGES:
        raw_revert(method_id("TooManyPackages()"))
    if tick == 0:
        raw_revert(method_id("ZeroTick()"))
    if gap % tick != 0:
        raw_revert(method_id("SampleGapNotTicks()"))
    if gap == 0 and samples > 1:
        raw_revert(method_id("ZeroSampleGap()"))
    if samples * gap > cure:
        raw_revert(method_id("SamplesBeyondCurePeriod()"))
    if grace == 0:
        raw_revert(method_id("ZeroGrace()"))
    if grace < cure + tick:
        raw_revert(method_id("GraceTooShort()"))

    # markets, each feed once
    if len(terms.markets) == 0:
        raw_revert(method_id("NoMarkets()"))
    previous = 0
    for market: typed_data.Market in terms.markets:
        if market.feed == empty(bytes32):
            raw_revert(method_id("ZeroFeed()"))
        if convert(market.feed, uint256) <= previous:
            raw_revert(method_id("MarketsUnsorted()"))
        previous = convert(market.feed, uint256)
        if convert(market.volDown, uint256) > WAD:
            raw_revert(method_id("VolDownAboveOne()"))
        if market.feed == terms.collateralFeed and terms.haircut < market.priceScan:
            raw_revert(method_id("HaircutBelowPriceScan()"))

    # the token, as it says itself
    token: address = terms.collateral
    decimals: uint8 = terms.decimals
    if not token.is_contract:
        raw_revert(method_id("CollateralWithoutCode()"))
    if decimals < 6 or decimals > 18:
        raw_revert(method_id("DecimalsOutOfRange()"))
    success: bool = False
    answer: Bytes[32] = b""
    success, answer = raw_call(
        token,
        method_id("decimals()"),
        max_outsize=32,
        is_static_call=True,
        revert_on_failure=False,
    )
    if not success or len(answer) != 32 or convert(answer, uint256) != convert(decimals, uint256):
        raw_revert(method_id("DecimalsMismatch()"))
    return self._channel_id(terms)


# ---------------------------------------------------------------------------------------------------------------- funding


@external
def deposit(channel: bytes32, party: uint8, amount: uint256, other_at_least: uint256):
    """
    @notice Pulls tokens from the caller for a party and credits what arrived. Any time before the end, also in a dispute.
    @dev What is deposited and not yet acknowledged in a state belongs to its depositor in every settlement.
    @param channel The channel id.
    @param party 0 for a, 1 for b.
    @param amount Units to pull from the caller, who has approved them.
    @param other_at_least Reverts where the other party's total is below this: a reorganisation took its deposit away.
    """
    vault: uint256 = self._records[channel].vault
    self._check_alive(vault)
    if party > 1:
        raw_revert(method_id("InvalidParty()"))
    word_a: uint256 = self._records[channel].account_a
    word_b: uint256 = self._records[channel].account_b
    other: uint256 = (word_b if party == 0 else word_a) & MASK_128
    if other < other_at_least:
        raw_revert(method_id("OtherDepositMissing()"))

    token: address = self._address(vault)
    before: uint256 = staticcall Token(token).balanceOf(self)
    # what it returns says nothing that the balance does not say better
    raw_call(
        token,
        abi_encode(
            msg.sender, self, amount, method_id=method_id("transferFrom(address,address,uint256)")
        ),
    )
    balance: uint256 = staticcall Token(token).balanceOf(self)
    if balance <= before:
        raw_revert(method_id("NothingReceived()"))
    received: uint256 = balance - before
    # the sum of both stays within 128 bits, and so does everything that can ever be paid out
    deposited_a: uint256 = word_a & MASK_128
    deposited_b: uint256 = word_b & MASK_128
    if received > MASK_128 or deposited_a + deposited_b + received > MASK_128:
        raw_revert(method_id("DepositTooLarge()"))
    if party == 0:
        deposited_a += received
        self._records[channel].account_a = word_a + received
    else:
        deposited_b += received
        self._records[channel].account_b = word_b + received
    log Deposited(
        channel=channel,
        party=party,
        caller=msg.sender,
        received=received,
        deposited_a=deposited_a,
        deposited_b=deposited_b,
    )


@external
def withdraw(withdrawal: typed_data.Withdrawal, sigs: Bytes[130]):
    """
    @notice Pays each party what a co-signed Withdrawal allows in total and was not paid before. Outside a dispute.
    @dev Totals are cumulative: a Withdrawal used twice, or after a later one, pays nothing. The state it names becomes the
         floor, so that no state that does not count it can be settled any more; a lower version leaves the floor.
    @param withdrawal The totals, with the version and the body hash of the state that counts them.
    @param sigs a's signature and b's.
    """
    channel: bytes32 = withdrawal.channel
    vault: uint256 = self._records[channel].vault
    self._check_alive(vault)
    if vault >> 224 != OPEN:
        raw_revert(method_id("InDispute()"))
    word: uint256 = self._records[channel].a
    self._check_signatures(
        typed_data._withdrawal_hash(withdrawal), sigs, word, self._records[channel].b
    )

    account_a: uint256 = self._records[channel].account_a
    account_b: uint256 = self._records[channel].account_b
    total_a: uint256 = convert(withdrawal.withdrawnA, uint256)
    total_b: uint256 = convert(withdrawal.withdrawnB, uint256)
    to_a: uint256 = total_a - min(total_a, account_a >> 128)
    to_b: uint256 = total_b - min(total_b, account_b >> 128)
    if to_a + to_b > self._pot(account_a, account_b):
        raw_revert(method_id("PotShort()"))

    version: uint256 = convert(withdrawal.version, uint256)
    if version > (word >> 160) & MASK_64:
        self._records[channel].a = (word & ~VERSION) | (version << 160)
        self._records[channel].floor_hash = withdrawal.bodyHash
    log Withdrawn(channel=channel, withdrawal=withdrawal, to_a=to_a, to_b=to_b, sigs=sigs)
    self._pay(channel, vault, account_a, account_b, to_a, to_b)


# --------------------------------------------------------------------------------------------------------------- disputes


@external
def challenge(channel: bytes32, version: uint64, body_hash: bytes32, sigs: Bytes[130]):
    """
    @notice Starts a dispute. The version it starts at can be replaced by higher ones until the deadline.
    @dev The chain learns a hash, never a position. The caller must be a party's signer or payout address: one who has lost
         its hot key leaves from its cold one.
    @param channel The channel id.
    @param version The version of a co-signed state. At or below the floor, the dispute starts at the floor, and
           `body_hash` and `sigs` are not looked at.
    @param body_hash hashStruct of that state's body.
    @param sigs a's signature of the state and b's.
    """
    vault: uint256 = self._records[channel].vault
    self._check_alive(vault)
    if vault >> 224 != OPEN:
        raw_revert(method_id("InDispute()"))
    word_a: uint256 = self._records[channel].a
    word_b: uint256 = self._records[channel].b
    if (
        msg.sender != self._address(word_a)
        and msg.sender != self._address(word_b)
        and msg.sender != self._records[channel].payout_a
        and msg.sender != self._records[channel].payout_b
    ):
        raw_revert(method_id("NotAParty()"))

    start: uint256 = convert(version, uint256)
    start_hash: bytes32 = body_hash
    shown: Bytes[130] = b""
    floor_version: uint256 = (word_a >> 160) & MASK_64
    if start > floor_version:
        self._check_signatures(
            typed_data._state_hash(channel, version, body_hash), sigs, word_a, word_b
        )
        shown = sigs
    else:
        start = floor_version
        start_hash = self._floor_hash(channel, floor_version)

    deadline: uint256 = block.timestamp + (word_a >> 224)
    number: uint256 = (word_b >> 224) + 1
    self._records[channel].b = (word_b & ADDRESS) | (start << 160) | (number << 224)
    self._records[channel].vault = (vault & ADDRESS) | (deadline << 160) | (DISPUTED << 224)
    self._records[channel].record_hash = start_hash
    log Challenged(
        channel=channel,
        dispute=convert(number, uint32),
        caller=msg.sender,
        version=convert(start, uint64),
        body_hash=start_hash,
        deadline=convert(deadline, uint64),
        sigs=shown,
    )


@external
def refute(channel: bytes32, version: uint64, body_hash: bytes32, sigs: Bytes[130]):
    """
    @notice Replaces the version on record by a strictly higher co-signed one. Anyone, strictly before the deadline, which
            stays where it is.
    @param channel The channel id.
    @param version The version of the co-signed state.
    @param body_hash hashStruct of its body.
    @param sigs a's signature of the state and b's.
    """
    vault: uint256 = self._records[channel].vault
    self._check_disputed(vault)
    deadline: uint256 = (vault >> 160) & MASK_64
    if block.timestamp >= deadline:
        raw_revert(method_id("DeadlinePassed()"))
    word_b: uint256 = self._records[channel].b
    higher: uint256 = convert(version, uint256)
    if higher <= (word_b >> 160) & MASK_64:
        raw_revert(method_id("VersionNotHigher()"))
    self._check_signatures(
        typed_data._state_hash(channel, version, body_hash), sigs, self._records[channel].a, word_b
    )
    self._records[channel].b = (word_b & ~VERSION) | (higher << 160)
    self._records[channel].record_hash = body_hash
    log Refuted(
        channel=channel,
        dispute=convert(word_b >> 224, uint32),
        caller=msg.sender,
        version=version,
        body_hash=body_hash,
        deadline=convert(deadline, uint64),
        sigs=sigs,
    )


# ----------------------------------------------------------------------------------------------------------------- ending


@external
def close(close: typed_data.Close, sigs: Bytes[130]):
    """
    @notice Pays both parties what they signed, at once, and ends the channel, overriding any dispute.
    @param close The accounts of both at a version, which is at or above the floor and the record; good to `validUntil`,
           inclusive.
    @param sigs a's signature and b's.
    """
    channel: bytes32 = close.channel
    vault: uint256 = self._records[channel].vault
    self._check_alive(vault)
    if block.timestamp > convert(close.validUntil, uint256):
        raw_revert(method_id("CloseExpired()"))
    word_a: uint256 = self._records[channel].a
    word_b: uint256 = self._records[channel].b
    version: uint256 = convert(close.version, uint256)
    if version < (word_a >> 160) & MASK_64:
        raw_revert(method_id("BelowFloor()"))
    if vault >> 224 != OPEN and version < (word_b >> 160) & MASK_64:
        raw_revert(method_id("BelowRecord()"))
    self._check_signatures(typed_data._close_hash(close), sigs, word_a, word_b)

    account_a: uint256 = self._records[channel].account_a
    account_b: uint256 = self._records[channel].account_b
    to_a: uint256 = self._entitlement(close.a, 0, account_a, account_b)
    to_b: uint256 = self._pot(account_a, account_b) - to_a
    self._records[channel].vault = (vault & ADDRESS) | (ENDED << 224)
    log Closed(channel=channel, close=close, to_a=to_a, to_b=to_b, sigs=sigs)
    self._pay(channel, vault, account_a, account_b, to_a, to_b)


@external
def settle(terms: typed_data.Terms, body: typed_data.Body):
    """
    @notice Pays by the state on record and ends the channel. Anyone, from the fix time D on: D is the first tick at or
            after deadline + samples * sampleGap.
    @dev At once where every fix needed is complete; from D + grace with the fixes that are proven, positions that lack
         theirs at their marks. An empty book needs no fix.
    @param terms The channel's terms.
    @param body The body on record.
    """
    self._settle(terms, body)


@external
def claim(token: address, to: address):
    """
    @notice Sends what could not be pushed to the caller earlier; reverts while the token still refuses.
    @param token The token.
    @param to Where to.
    """
    amount: uint256 = self._held[token][msg.sender]
    if amount == 0:
        raw_revert(method_id("NothingHeld()"))
    self._held[token][msg.sender] = 0
    if not self._transfer(token, to, amount):
        raw_revert(method_id("TransferFailed()"))
    log Claimed(token=token, payee=msg.sender, to=to, amount=amount)


# ------------------------------------------------------------------------------------------------------------------ views


@external
@view
def channel_id(terms: typed_data.Terms) -> bytes32:
    """
    @notice The channel id of terms on this contract, opened or not.
    """
    return self._channel_id(terms)


@external
@view
def channel_record(channel: bytes32) -> ChannelRecord:
    """
    @notice What is recorded of a channel. Phase 0: never opened; 1: open; 2: in a dispute; 3: ended.
            The floor's hash is that of the implicit body while the floor is version 0.
    """
    record: Record = self._records[channel]
    floor_version: uint256 = (record.a >> 160) & MASK_64
    return ChannelRecord(
        phase=convert(record.vault >> 224, uint8),
        collateral=self._address(record.vault),
        signer_a=self._address(record.a),
        payout_a=record.payout_a,
        signer_b=self._address(record.b),
        payout_b=record.payout_b,
        challenge_period=convert(record.a >> 224, uint32),
        deposited_a=record.account_a & MASK_128,
        paid_a=record.account_a >> 128,
        deposited_b=record.account_b & MASK_128,
        paid_b=record.account_b >> 128,
        floor_version=convert(floor_version, uint64),
        floor_hash=self._floor_hash(channel, floor_version),
    )


@external
@view
def dispute_record(channel: bytes32) -> DisputeRecord:
    """
    @notice The channel's latest dispute; its number is 0 where there was none, its deadline 0 where a Close ended it.
    """
    word: uint256 = self._records[channel].b
    return DisputeRecord(
        number=convert(word >> 224, uint32),
        version=convert((word >> 160) & MASK_64, uint64),
        body_hash=self._records[channel].record_hash,
        deadline=convert((self._records[channel].vault >> 160) & MASK_64, uint64),
    )


@external
@view
def held(token: address, payee: address) -> uint256:
    """
    @notice Units of a token that a payee can claim.
    """
    return self._held[token][payee]


# --------------------------------------------------------------------------------------------------------------- internal


@internal
@view
def _channel_id(terms: typed_data.Terms) -> bytes32:
    """
    @notice The EIP-712 digest of the terms.
    """
    return typed_data._digest(DOMAIN_SEPARATOR, typed_data._terms_hash(terms))


@internal
@pure
def _address(word: uint256) -> address:
    """
    @notice The address in the low bits of a packed word.
    """
    return convert(word & ADDRESS, address)


@internal
@pure
def _check_alive(vault: uint256):
    """
    @notice Refuses a channel that was never opened, or has ended.
    """
    if vault == 0:
        raw_revert(method_id("UnknownChannel()"))
    if vault >> 224 == ENDED:
        raw_revert(method_id("ChannelEnded()"))


@internal
@pure
def _check_disputed(vault: uint256):
    """
    @notice Refuses a channel that is in no dispute.
    """
    self._check_alive(vault)
    if vault >> 224 != DISPUTED:
        raw_revert(method_id("NotInDispute()"))


@internal
@view
def _check_signatures(struct_hash: bytes32, sigs: Bytes[130], word_a: uint256, word_b: uint256):
    """
    @notice Refuses unless both signers signed the struct: a's 65 bytes first, then b's.
    """
    if len(sigs) != 130:
        raw_revert(method_id("SignaturesMissing()"))
    digest: bytes32 = typed_data._digest(DOMAIN_SEPARATOR, struct_hash)
    signer: address = typed_data._recover(
        digest,
        convert(extract32(sigs, 0), uint256),
        convert(extract32(sigs, 32), uint256),
        convert(extract32(sigs, 33), uint256) & 255,
    )
    if signer == empty(address) or signer != self._address(word_a):
        raw_revert(method_id("InvalidSignatureA()"))
    signer = typed_data._recover(
        digest,
        convert(extract32(sigs, 65), uint256),
        convert(extract32(sigs, 97), uint256),
        convert(extract32(sigs, 98), uint256) & 255,
    )
    if signer == empty(address) or signer != self._address(word_b):
        raw_revert(method_id("InvalidSignatureB()"))


@internal
@view
def _floor_hash(channel: bytes32, version: uint256) -> bytes32:
    """
    @notice The body hash of the floor; that of the implicit body where it is version 0.
    """
    if version == 0:
        return typed_data._genesis_hash(channel)
    return self._records[channel].floor_hash


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
def _settle(terms: typed_data.Terms, body: typed_data.Body):
    """
    @notice Judges and pays by the body on record.
    """
    channel: bytes32 = self._channel_id(terms)
    vault: uint256 = self._records[channel].vault
    self._check_disputed(vault)
    body_hash: bytes32 = typed_data._body_hash(body)
    if body_hash != self._records[channel].record_hash:
        raw_revert(method_id("BodyNotOnRecord()"))
    t: uint256 = self._fix_time(terms, (vault >> 160) & MASK_64)
    if block.timestamp < t:
        raw_revert(method_id("FixTimeNotReached()"))

    profit: int256 = 0
    complete: bool = True
    if len(body.positions) != 0:
        profit, complete = self._close_out(terms, body, convert(t, uint64))
    if not complete and block.timestamp < t + convert(terms.oracle.grace, uint256):
        raw_revert(method_id("FixesIncomplete()"))

    word_b: uint256 = self._records[channel].b
    account_a: uint256 = self._records[channel].account_a
    account_b: uint256 = self._records[channel].account_b
    to_a: uint256 = self._entitlement(body.a, profit, account_a, account_b)
    to_b: uint256 = self._pot(account_a, account_b) - to_a
    self._records[channel].vault = (vault & (ADDRESS | VERSION)) | (ENDED << 224)
    log Settled(
        channel=channel,
        dispute=convert(word_b >> 224, uint32),
        caller=msg.sender,
        version=convert((word_b >> 160) & MASK_64, uint64),
        body_hash=body_hash,
        fix_time=convert(t, uint64),
        complete=complete,
        profit=profit,
        to_a=to_a,
        to_b=to_b,
    )
    self._pay(channel, vault, account_a, account_b, to_a, to_b)


@internal
@view
def _close_out(
    terms: typed_data.Terms, body: typed_data.Body, t: uint64
) -> (int256, bool):
    """
    @notice a's profit since the marks at the fixes for t, in units, and whether every fix that this needs is complete.
    @dev A position that expired by t takes its own expiry's fix; one without its fix, and the collateral without its own,
         stays at its mark.
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
            price, weight = staticcall FixBook(FIX_BOOK).fix(oracle_hash, position.feed, at)
            last_feed = position.feed
            last_time = at
            if weight < full:
                complete = False
        spots.append(price)
    profit: int256 = staticcall RiskEngine(RISK_ENGINE).profit(body.asOf, body.positions, spots, t)
    # within the bounds of a state this changes nothing; beyond them it keeps what follows from overflowing
    profit = max(min(profit, MAX_PROFIT), -MAX_PROFIT)
    decimals: uint256 = convert(terms.decimals, uint256)
    if terms.collateralFeed == empty(bytes32):
        return profit // convert(10 ** (18 - decimals), int256), complete
    price, weight = staticcall FixBook(FIX_BOOK).fix(oracle_hash, terms.collateralFeed, t)
    if weight < full:
        complete = False
    if weight == 0:
        price = convert(body.collateralMark, uint256)
    return (
        profit * convert(10**decimals, int256) // convert(max(price, 1), int256),
        complete,
    )


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
    @notice What a is due at the end: balance + gain + (on-chain deposits - deposited) + (withdrawn - paid out), clamped to
            [0, pot]; b is due the rest. By conservation nothing is left over.
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


@internal
def _pay(
    channel: bytes32,
    vault: uint256,
    account_a: uint256,
    account_b: uint256,
    to_a: uint256,
    to_b: uint256,
):
    """
    @notice Counts what is paid, then pushes it to the payout addresses, or holds it for `claim`.
    """
    token: address = self._address(vault)
    if to_a != 0:
        self._records[channel].account_a = account_a + (to_a << 128)
    if to_b != 0:
        self._records[channel].account_b = account_b + (to_b << 128)
    if to_a != 0:
        self._push(token, self._records[channel].payout_a, to_a)
    if to_b != 0:
        self._push(token, self._records[channel].payout_b, to_b)


@internal
def _push(token: address, payee: address, amount: uint256):
    """
    @notice Sends tokens to a payee; holds them where the token refuses. Never reverts but for too little gas.
    """
    if not self._transfer(token, payee, amount):
        self._held[token][payee] += amount
        log Held(token=token, payee=payee, amount=amount)


@internal
def _transfer(token: address, to: address, amount: uint256) -> bool:
    """
    @notice Sends tokens and says whether they went.
    @dev Returned data is cut at 32 bytes and gas is bounded: neither a return bomb nor a loop reaches further than here.
         A token that answers nothing, or true, has paid. One that answers anything else has paid only if the balance fell:
         there are tokens that move and say false, and holding that amount too would take it from other channels.
    """
    if msg.gas < PAYOUT_GAS:
        raw_revert(method_id("TooLittleGas()"))
    before: uint256 = self._balance(token)
    success: bool = False
    answer: Bytes[32] = b""
    success, answer = raw_call(
        token,
        abi_encode(to, amount, method_id=method_id("transfer(address,uint256)")),
        max_outsize=32,
        gas=TRANSFER_GAS,
        revert_on_failure=False,
    )
    if not success or not token.is_contract:
        return False
    if len(answer) == 0 or (len(answer) == 32 and convert(answer, uint256) == 1):
        return True
    return self._balance(token) < before


@internal
@view
def _balance(token: address) -> uint256:
    """
    @notice This contract's balance of a token; zero where the token does not say.
    """
    success: bool = False
    answer: Bytes[32] = b""
    success, answer = raw_call(
        token,
        abi_encode(self, method_id=method_id("balanceOf(address)")),
        max_outsize=32,
        gas=BALANCE_GAS,
        is_static_call=True,
        revert_on_failure=False,
    )
    if not success or len(answer) != 32:
        return 0
    return convert(answer, uint256)
