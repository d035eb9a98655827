# pragma version 0.4.3
# pragma nonreentrancy on
"""
@title Custody
@license Apache-2.0
@notice What the Adjudicator's functions are made of: its events, its storage, the checks of phase, time, signatures and bodies, and
        the transitions that more than one function makes. No external function; the Adjudicator alone uses it.
@dev A record is packed by hand: modules/records.vy. Every function here checks, then writes, then logs, then calls the token.
"""

from modules import close_out
from modules import payouts
from modules import records
from modules import refusals
from modules import typed_data

uses: payouts


interface Token:
    def balanceOf(owner: address) -> uint256: view


interface Rules:
    def check(terms: typed_data.Terms) -> bool: view
    def profit(
        engine: address, book: address, terms: typed_data.Terms, body: typed_data.Body, t: uint64
    ) -> (int256, bool): view
    def judge(
        engine: address,
        book: address,
        terms: typed_data.Terms,
        body: typed_data.Body,
        t: uint64,
        known: uint256,
        deposits: uint256,
        paid: uint256,
    ) -> close_out.Verdict: view


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


event Anchored:
    channel: indexed(bytes32)
    caller: indexed(address)
    version: uint64
    body_hash: bytes32
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


event MarginCalled:
    channel: indexed(bytes32)
    dispute: indexed(uint32)
    caller: indexed(address)
    party: uint8
    call: uint8
    time: uint64


event Resumed:
    channel: indexed(bytes32)
    resume: typed_data.Resume
    version: uint64
    body_hash: bytes32
    sigs: Bytes[130]


event Tested:
    channel: indexed(bytes32)
    dispute: indexed(uint32)
    caller: indexed(address)
    call: uint8
    time: uint64
    verdict: close_out.Verdict


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
    penalty: int256
    call: uint8
    to_a: uint256
    to_b: uint256


event Shown:
    channel: indexed(bytes32)
    dispute: indexed(uint32)
    caller: indexed(address)
    version: uint64
    body_hash: bytes32
    window_end: uint64
    sigs: Bytes[130]


event Released:
    channel: indexed(bytes32)
    dispute: indexed(uint32)
    caller: indexed(address)
    to_a: uint256
    to_b: uint256


RISK_ENGINE: public(immutable(address))
FIX_BOOK: public(immutable(address))
RULES: public(immutable(address))
# the chain id is read once: after a fork of the chain, the channels stay with this id
DOMAIN_SEPARATOR: public(immutable(bytes32))

_records: HashMap[bytes32, records.Record]
# (channel, number of the dispute, index) -> margin call, in the order of calling, which is that of their times
_calls: HashMap[bytes32, records.Call]


@deploy
def __init__(risk_engine: address, fix_book: address, rules: address):
    """
    @notice Takes the three contracts that it asks, for ever.
    @param risk_engine The RiskEngine.
    @param fix_book The FixBook.
    @param rules The Rules.
    """
    RISK_ENGINE = risk_engine
    FIX_BOOK = fix_book
    RULES = rules
    DOMAIN_SEPARATOR = typed_data._domain_separator(chain.id, self)


@internal
@pure
def _check_alive(vault: uint256):
    """
    @notice Refuses a channel that was never opened, or has ended.
    """
    if vault == 0:
        refusals._refuse(convert(method_id("UnknownChannel()", output_type=bytes4), uint256))
    if vault >> records.PHASE == records.ENDED:
        refusals._refuse(convert(method_id("ChannelEnded()", output_type=bytes4), uint256))


@internal
@pure
def _check_open(vault: uint256):
    """
    @notice Refuses a channel that is not open, or in a dispute.
    """
    self._check_alive(vault)
    if vault >> records.PHASE != records.OPEN:
        refusals._refuse(convert(method_id("InDispute()", output_type=bytes4), uint256))


@internal
@pure
def _check_disputed(vault: uint256):
    """
    @notice Refuses a channel that is in no dispute.
    """
    self._check_alive(vault)
    if vault >> records.PHASE != records.DISPUTED:
        refusals._refuse(convert(method_id("NotInDispute()", output_type=bytes4), uint256))


@internal
@view
def _disputed(terms: typed_data.Terms) -> (bytes32, uint256):
    """
    @notice The channel of terms, which must be in a dispute, and its fix time D.
    """
    channel: bytes32 = typed_data._digest(DOMAIN_SEPARATOR, typed_data._terms_hash(terms))
    vault: uint256 = self._records[channel].vault
    self._check_disputed(vault)
    return channel, records._tick(
        ((vault >> 160) & records.MASK_64)
        + convert(terms.oracle.samples, uint256) * convert(terms.oracle.sampleGap, uint256),
        convert(terms.oracle.tick, uint256),
    )


@internal
@view
def _check_before_deadline(vault: uint256):
    """
    @notice Refuses a channel that is in no dispute, or whose deadline is reached.
    """
    self._check_disputed(vault)
    if block.timestamp >= (vault >> 160) & records.MASK_64:
        refusals._refuse(convert(method_id("DeadlinePassed()", output_type=bytes4), uint256))


@internal
@view
def _check_body(channel: bytes32, body: typed_data.Body):
    """
    @notice Refuses a body that is not the one on record.
    """
    if typed_data._body_hash(body) != self._records[channel].record_hash:
        refusals._refuse(convert(method_id("BodyNotOnRecord()", output_type=bytes4), uint256))


@internal
@view
def _party_of_caller(channel: bytes32) -> uint256:
    """
    @notice 0 where the caller is a's signer or payout address, 1 for b's; refuses anybody else. Signers go first: they differ.
    """
    self._check_alive(self._records[channel].vault)
    if msg.sender == records._address(self._records[channel].a):
        return 0
    if msg.sender == records._address(self._records[channel].b):
        return 1
    if msg.sender == records._address(self._records[channel].payout_a):
        return 0
    if msg.sender != self._records[channel].payout_b:
        refusals._refuse(convert(method_id("NotAParty()", output_type=bytes4), uint256))
    return 1


@internal
@pure
def _call_key(channel: bytes32, number: uint256, index: uint256) -> bytes32:
    """
    @notice Where a margin call is recorded.
    """
    return keccak256(abi_encode(channel, number, index))


@internal
@pure
def _deposits(account_a: uint256, account_b: uint256) -> uint256:
    """
    @notice The deposits of both in one word.
    """
    return account_a & records.MASK_128 | account_b << 128


@internal
@view
def _check_signatures(struct_hash: bytes32, sigs: Bytes[130], word_a: uint256, word_b: uint256):
    """
    @notice Refuses unless both signers signed the struct: a's 65 bytes first, then b's.
    """
    if len(sigs) != 130:
        refusals._refuse(convert(method_id("SignaturesMissing()", output_type=bytes4), uint256))
    digest: bytes32 = typed_data._digest(DOMAIN_SEPARATOR, struct_hash)
    signer: address = typed_data._recover(
        digest,
        convert(extract32(sigs, 0), uint256),
        convert(extract32(sigs, 32), uint256),
        convert(extract32(sigs, 33), uint256) & 255,
    )
    if signer == empty(address) or signer != records._address(word_a):
        refusals._refuse(convert(method_id("InvalidSignatureA()", output_type=bytes4), uint256))
    signer = typed_data._recover(
        digest,
        convert(extract32(sigs, 65), uint256),
        convert(extract32(sigs, 97), uint256),
        convert(extract32(sigs, 98), uint256) & 255,
    )
    if signer == empty(address) or signer != records._address(word_b):
        refusals._refuse(convert(method_id("InvalidSignatureB()", output_type=bytes4), uint256))


@internal
@view
def _check_state(channel: bytes32, version: uint64, body_hash: bytes32, sigs: Bytes[130]):
    """
    @notice Refuses unless both signers signed the state.
    """
    self._check_signatures(
        typed_data._state_hash(channel, version, body_hash),
        sigs,
        self._records[channel].a,
        self._records[channel].b,
    )


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
def _deposit(channel: bytes32, party: uint8, amount: uint256, other_at_least: uint256):
    """
    @notice Pulls tokens from the caller for a party and credits what arrived.
    """
    vault: uint256 = self._records[channel].vault
    self._check_alive(vault)
    if party > 1:
        refusals._refuse(convert(method_id("InvalidParty()", output_type=bytes4), uint256))
    word_a: uint256 = self._records[channel].account_a
    word_b: uint256 = self._records[channel].account_b
    other: uint256 = (word_b if party == 0 else word_a) & records.MASK_128
    if other < other_at_least:
        refusals._refuse(convert(method_id("OtherDepositMissing()", output_type=bytes4), uint256))

    # what was deposited by now is what counts for the margin calls whose time has passed
    calls: uint256 = (vault >> records.CALLS) & 255
    if calls != 0:
        number: uint256 = self._records[channel].b >> 224
        for i: uint256 in range(calls, bound=records.MAX_CALLS):
            key: bytes32 = self._call_key(channel, number, i)
            word: uint256 = self._calls[key].word
            if word & records.FROZEN == 0 and word & records.MASK_64 < block.timestamp:
                self._calls[key].word = word | records.FROZEN
                self._calls[key].deposits = self._deposits(word_a, word_b)

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
        refusals._refuse(convert(method_id("NothingReceived()", output_type=bytes4), uint256))
    received: uint256 = balance - before
    # the sum of both stays within 128 bits, and so does everything that can ever be paid out
    deposited_a: uint256 = word_a & records.MASK_128
    deposited_b: uint256 = word_b & records.MASK_128
    if received > records.MASK_128 or deposited_a + deposited_b + received > records.MASK_128:
        refusals._refuse(convert(method_id("DepositTooLarge()", output_type=bytes4), uint256))
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


@internal
def _anchor(channel: bytes32, version: uint64, body_hash: bytes32, sigs: Bytes[130]) -> bool:
    """
    @notice Raises the floor of an open channel; False where the version is not above it.
    """
    word_a: uint256 = self._records[channel].a
    higher: uint256 = convert(version, uint256)
    if higher <= (word_a >> 160) & records.MASK_64:
        return False
    self._check_state(channel, version, body_hash, sigs)
    self._records[channel].a = (word_a & ~records.VERSION) | (higher << 160)
    self._records[channel].floor_hash = body_hash
    log Anchored(
        channel=channel, caller=msg.sender, version=version, body_hash=body_hash, sigs=sigs
    )
    return True


@internal
def _challenge(
    channel: bytes32, vault: uint256, version: uint64, body_hash: bytes32, sigs: Bytes[130]
):
    """
    @notice Starts a dispute of an open channel.
    """
    word_a: uint256 = self._records[channel].a
    word_b: uint256 = self._records[channel].b
    start: uint256 = convert(version, uint256)
    start_hash: bytes32 = body_hash
    evidence: Bytes[130] = b""
    floor_version: uint256 = (word_a >> 160) & records.MASK_64
    if start > floor_version:
        self._check_state(channel, version, body_hash, sigs)
        evidence = sigs
    else:
        start = floor_version
        start_hash = self._floor_hash(channel, floor_version)

    deadline: uint256 = block.timestamp + (word_a >> 224)
    number: uint256 = (word_b >> 224) + 1
    self._records[channel].b = (word_b & records.ADDRESS) | (start << 160) | (number << 224)
    self._records[channel].vault = (
        (vault & records.ADDRESS) | (deadline << 160) | (records.DISPUTED << records.PHASE)
    )
    self._records[channel].record_hash = start_hash
    log Challenged(
        channel=channel,
        dispute=convert(number, uint32),
        caller=msg.sender,
        version=convert(start, uint64),
        body_hash=start_hash,
        deadline=convert(deadline, uint64),
        sigs=evidence,
    )


@internal
def _refute(
    channel: bytes32, vault: uint256, version: uint64, body_hash: bytes32, sigs: Bytes[130]
):
    """
    @notice Replaces the version on record by a strictly higher one. No time moves.
    """
    word_b: uint256 = self._records[channel].b
    higher: uint256 = convert(version, uint256)
    if higher <= (word_b >> 160) & records.MASK_64:
        refusals._refuse(convert(method_id("VersionNotHigher()", output_type=bytes4), uint256))
    self._check_state(channel, version, body_hash, sigs)
    self._records[channel].b = (word_b & ~records.VERSION) | (higher << 160)
    self._records[channel].record_hash = body_hash
    log Refuted(
        channel=channel,
        dispute=convert(word_b >> 224, uint32),
        caller=msg.sender,
        version=version,
        body_hash=body_hash,
        deadline=convert((vault >> 160) & records.MASK_64, uint64),
        sigs=sigs,
    )


@internal
def _pay_body(
    channel: bytes32,
    terms: typed_data.Terms,
    body: typed_data.Body,
    t: uint256,
    late: bool,
    penalty: int256,
    decided: uint256,
    version: uint64,
    body_hash: bytes32,
):
    """
    @notice Closes a body out at the fixes for t, pays, and ends the channel.
    """
    profit: int256 = 0
    complete: bool = True
    if len(body.positions) != 0:
        profit, complete = staticcall Rules(RULES).profit(
            RISK_ENGINE, FIX_BOOK, terms, body, convert(t, uint64)
        )
    if not complete and not late:
        refusals._refuse(convert(method_id("FixesIncomplete()", output_type=bytes4), uint256))
    account_a: uint256 = self._records[channel].account_a
    account_b: uint256 = self._records[channel].account_b
    to_a: uint256 = records._entitlement(body.a, profit + penalty, account_a, account_b)
    to_b: uint256 = records._pot(account_a, account_b) - to_a
    vault: uint256 = self._end(channel)
    log Settled(
        channel=channel,
        dispute=convert(self._records[channel].b >> 224, uint32),
        caller=msg.sender,
        version=version,
        body_hash=body_hash,
        fix_time=convert(t, uint64),
        complete=complete,
        profit=profit,
        penalty=penalty,
        call=convert(decided, uint8),
        to_a=to_a,
        to_b=to_b,
    )
    self._pay(channel, vault, account_a, account_b, to_a, to_b)


@internal
def _end(channel: bytes32) -> uint256:
    """
    @notice Ends a channel whose dispute has run its course. Gives its vault word of before.
    """
    vault: uint256 = self._records[channel].vault
    self._records[channel].vault = (vault & ~(255 << records.PHASE)) | (
        records.ENDED << records.PHASE
    )
    return vault


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
        payouts._push(token, records._address(self._records[channel].payout_a), to_a)
    if to_b != 0:
        payouts._push(token, self._records[channel].payout_b, to_b)
