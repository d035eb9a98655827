# pragma version 0.4.3
# pragma nonreentrancy on
"""
@title Adjudicator
@license Apache-2.0
@notice Custody and disputes of all channels, nothing else (docs/protocol.md, section 11; docs/contracts.md).
        Two parties lock collateral, trade by co-signing states off chain, and are paid here: by a signed Close, or,
        when one of them disappears or cheats, by the highest co-signed state that anybody shows, at oracle fixes.
        No owner, no upgrade, no pause, no fee.
@dev Valuation lives in RiskEngine, fixes in FixBook. One transient lock covers every external function, views included:
     no call that a token makes back can see or change a half-made transition.
     Custom errors are raised by selector; contracts/compile.py lists them in the ABI.
     A channel's record is packed by hand: modules/records.vy.
"""

from modules import close_out
from modules import payouts
from modules import records
from modules import terms_rules
from modules import typed_data

initializes: payouts

exports: (payouts.claim, payouts.held)


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


RISK_ENGINE: public(immutable(address))
FIX_BOOK: public(immutable(address))
# the chain id is read once: after a fork of the chain, the channels stay with this id
DOMAIN_SEPARATOR: public(immutable(bytes32))

_records: HashMap[bytes32, records.Record]


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


# -------------------------------------------------------------------------------------------------------------- opening


@external
def open(terms: typed_data.Terms) -> bytes32:
    """
    @notice Records a channel. Anyone may: the id binds every term, so that being first changes nothing.
    @dev Refuses terms that could not be enforced. More than 9 oracle signers or 8 markets do not decode.
    @param terms The terms.
    @return The channel id: the EIP-712 digest of the terms.
    """
    terms_rules._check(terms)
    channel: bytes32 = self._channel_id(terms)
    if self._records[channel].vault != 0:
        raw_revert(method_id("AlreadyOpened()"))
    self._records[channel].a = convert(terms.a.signer, uint256) | (
        convert(terms.challengePeriod, uint256) << 224
    )
    self._records[channel].b = convert(terms.b.signer, uint256)
    self._records[channel].payout_a = terms.a.payout
    self._records[channel].payout_b = terms.b.payout
    self._records[channel].vault = convert(terms.collateral, uint256) | (records.OPEN << 224)
    log Opened(channel=channel, signer_a=terms.a.signer, signer_b=terms.b.signer, terms=terms)
    return channel


# -------------------------------------------------------------------------------------------------------------- funding


@external
def deposit(channel: bytes32, party: uint8, amount: uint256, other_at_least: uint256):
    """
    @notice Pulls tokens from the caller for a party and credits what arrived. Any time before the end.
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
    other: uint256 = (word_b if party == 0 else word_a) & records.MASK_128
    if other < other_at_least:
        raw_revert(method_id("OtherDepositMissing()"))

    token: address = records._address(vault)
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
    deposited_a: uint256 = word_a & records.MASK_128
    deposited_b: uint256 = word_b & records.MASK_128
    if received > records.MASK_128 or deposited_a + deposited_b + received > records.MASK_128:
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
    @dev Totals are cumulative: a Withdrawal used twice, or after a later one, pays nothing. The state it names becomes
         the floor, so that no state that does not count it can be settled any more; a lower version leaves the floor.
    @param withdrawal The totals, with the version and the body hash of the state that counts them.
    @param sigs a's signature and b's.
    """
    channel: bytes32 = withdrawal.channel
    vault: uint256 = self._records[channel].vault
    self._check_alive(vault)
    if vault >> 224 != records.OPEN:
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
    if to_a + to_b > records._pot(account_a, account_b):
        raw_revert(method_id("PotShort()"))

    version: uint256 = convert(withdrawal.version, uint256)
    if version > (word >> 160) & records.MASK_64:
        self._records[channel].a = (word & ~records.VERSION) | (version << 160)
        self._records[channel].floor_hash = withdrawal.bodyHash
    log Withdrawn(channel=channel, withdrawal=withdrawal, to_a=to_a, to_b=to_b, sigs=sigs)
    self._pay(channel, vault, account_a, account_b, to_a, to_b)


# ------------------------------------------------------------------------------------------------------------- disputes


@external
def challenge(channel: bytes32, version: uint64, body_hash: bytes32, sigs: Bytes[130]):
    """
    @notice Starts a dispute. The version it starts at can be replaced by higher ones until the deadline.
    @dev The chain learns a hash, never a position. The caller must be a party's signer or payout address: one who has
         lost its hot key leaves from its cold one.
    @param channel The channel id.
    @param version The version of a co-signed state. At or below the floor, the dispute starts at the floor, and
           `body_hash` and `sigs` are not looked at.
    @param body_hash hashStruct of that state's body.
    @param sigs a's signature of the state and b's.
    """
    vault: uint256 = self._records[channel].vault
    self._check_alive(vault)
    if vault >> 224 != records.OPEN:
        raw_revert(method_id("InDispute()"))
    word_a: uint256 = self._records[channel].a
    word_b: uint256 = self._records[channel].b
    if (
        msg.sender != records._address(word_a)
        and msg.sender != records._address(word_b)
        and msg.sender != self._records[channel].payout_a
        and msg.sender != self._records[channel].payout_b
    ):
        raw_revert(method_id("NotAParty()"))

    start: uint256 = convert(version, uint256)
    start_hash: bytes32 = body_hash
    shown: Bytes[130] = b""
    floor_version: uint256 = (word_a >> 160) & records.MASK_64
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
    self._records[channel].b = (word_b & records.ADDRESS) | (start << 160) | (number << 224)
    self._records[channel].vault = (vault & records.ADDRESS) | (deadline << 160) | (records.DISPUTED << 224)
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
    @notice Replaces the version on record by a strictly higher co-signed one. Anyone, strictly before the deadline,
            which stays where it is.
    @param channel The channel id.
    @param version The version of the co-signed state.
    @param body_hash hashStruct of its body.
    @param sigs a's signature of the state and b's.
    """
    vault: uint256 = self._records[channel].vault
    self._check_disputed(vault)
    deadline: uint256 = (vault >> 160) & records.MASK_64
    if block.timestamp >= deadline:
        raw_revert(method_id("DeadlinePassed()"))
    word_b: uint256 = self._records[channel].b
    higher: uint256 = convert(version, uint256)
    if higher <= (word_b >> 160) & records.MASK_64:
        raw_revert(method_id("VersionNotHigher()"))
    self._check_signatures(
        typed_data._state_hash(channel, version, body_hash), sigs, self._records[channel].a, word_b
    )
    self._records[channel].b = (word_b & ~records.VERSION) | (higher << 160)
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


# --------------------------------------------------------------------------------------------------------------- ending


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
    if version < (word_a >> 160) & records.MASK_64:
        raw_revert(method_id("BelowFloor()"))
    if vault >> 224 != records.OPEN and version < (word_b >> 160) & records.MASK_64:
        raw_revert(method_id("BelowRecord()"))
    self._check_signatures(typed_data._close_hash(close), sigs, word_a, word_b)

    account_a: uint256 = self._records[channel].account_a
    account_b: uint256 = self._records[channel].account_b
    to_a: uint256 = records._entitlement(close.a, 0, account_a, account_b)
    to_b: uint256 = records._pot(account_a, account_b) - to_a
    self._records[channel].vault = (vault & records.ADDRESS) | (records.ENDED << 224)
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


# ---------------------------------------------------------------------------------------------------------------- views


@external
@view
def channel_id(terms: typed_data.Terms) -> bytes32:
    """
    @notice The channel id of terms on this contract, opened or not.
    """
    return self._channel_id(terms)


@external
@view
def channel_record(channel: bytes32) -> records.ChannelRecord:
    """
    @notice What is recorded of a channel. Phase 0: never opened; 1: open; 2: in a dispute; 3: ended.
            The floor's hash is that of the implicit body while the floor is version 0.
    """
    record: records.Record = self._records[channel]
    floor_version: uint256 = (record.a >> 160) & records.MASK_64
    return records.ChannelRecord(
        phase=convert(record.vault >> 224, uint8),
        collateral=records._address(record.vault),
        signer_a=records._address(record.a),
        payout_a=record.payout_a,
        signer_b=records._address(record.b),
        payout_b=record.payout_b,
        challenge_period=convert(record.a >> 224, uint32),
        deposited_a=record.account_a & records.MASK_128,
        paid_a=record.account_a >> 128,
        deposited_b=record.account_b & records.MASK_128,
        paid_b=record.account_b >> 128,
        floor_version=convert(floor_version, uint64),
        floor_hash=self._floor_hash(channel, floor_version),
    )


@external
@view
def dispute_record(channel: bytes32) -> records.DisputeRecord:
    """
    @notice The channel's latest dispute; its number is 0 where there was none, its deadline 0 where a Close ended it.
    """
    word: uint256 = self._records[channel].b
    return records.DisputeRecord(
        number=convert(word >> 224, uint32),
        version=convert((word >> 160) & records.MASK_64, uint64),
        body_hash=self._records[channel].record_hash,
        deadline=convert((self._records[channel].vault >> 160) & records.MASK_64, uint64),
    )


# ------------------------------------------------------------------------------------------------------------- internal


@internal
@view
def _channel_id(terms: typed_data.Terms) -> bytes32:
    """
    @notice The EIP-712 digest of the terms.
    """
    return typed_data._digest(DOMAIN_SEPARATOR, typed_data._terms_hash(terms))


@internal
@pure
def _check_alive(vault: uint256):
    """
    @notice Refuses a channel that was never opened, or has ended.
    """
    if vault == 0:
        raw_revert(method_id("UnknownChannel()"))
    if vault >> 224 == records.ENDED:
        raw_revert(method_id("ChannelEnded()"))


@internal
@pure
def _check_disputed(vault: uint256):
    """
    @notice Refuses a channel that is in no dispute.
    """
    self._check_alive(vault)
    if vault >> 224 != records.DISPUTED:
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
    if signer == empty(address) or signer != records._address(word_a):
        raw_revert(method_id("InvalidSignatureA()"))
    signer = typed_data._recover(
        digest,
        convert(extract32(sigs, 65), uint256),
        convert(extract32(sigs, 97), uint256),
        convert(extract32(sigs, 98), uint256) & 255,
    )
    if signer == empty(address) or signer != records._address(word_b):
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
    t: uint256 = records._fix_time(terms, (vault >> 160) & records.MASK_64)
    if block.timestamp < t:
        raw_revert(method_id("FixTimeNotReached()"))

    profit: int256 = 0
    complete: bool = True
    if len(body.positions) != 0:
        profit, complete = close_out._profit(
            RISK_ENGINE, FIX_BOOK, terms, body, convert(t, uint64)
        )
    if not complete and block.timestamp < t + convert(terms.oracle.grace, uint256):
        raw_revert(method_id("FixesIncomplete()"))

    word_b: uint256 = self._records[channel].b
    account_a: uint256 = self._records[channel].account_a
    account_b: uint256 = self._records[channel].account_b
    to_a: uint256 = records._entitlement(body.a, profit, account_a, account_b)
    to_b: uint256 = records._pot(account_a, account_b) - to_a
    self._records[channel].vault = (vault & (records.ADDRESS | records.VERSION)) | (records.ENDED << 224)
    log Settled(
        channel=channel,
        dispute=convert(word_b >> 224, uint32),
        caller=msg.sender,
        version=convert((word_b >> 160) & records.MASK_64, uint64),
        body_hash=body_hash,
        fix_time=convert(t, uint64),
        complete=complete,
        profit=profit,
        to_a=to_a,
        to_b=to_b,
    )
    self._pay(channel, vault, account_a, account_b, to_a, to_b)


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
    token: address = records._address(vault)
    if to_a != 0:
        self._records[channel].account_a = account_a + (to_a << 128)
    if to_b != 0:
        self._records[channel].account_b = account_b + (to_b << 128)
    if to_a != 0:
        payouts._push(token, self._records[channel].payout_a, to_a)
    if to_b != 0:
        payouts._push(token, self._records[channel].payout_b, to_b)
