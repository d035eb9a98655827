# pragma version 0.4.3
# pragma nonreentrancy on
"""
@title Adjudicator
@license Apache-2.0
@notice Custody and disputes of all channels, nothing else (docs/protocol.md, section 11; docs/contracts.md).
        Two parties lock collateral, trade by co-signing states off chain, and are paid here: by a signed Close, or,
        when one of them disappears or cheats, by the highest co-signed state that anybody shows, at oracle fixes.
        No owner, no upgrade, no pause, no fee.
@dev Valuation and margin live in RiskEngine, fixes in FixBook, the rules for terms and close-outs in Rules; Lens reads.
     One transient lock covers every external function, views included: no call that a token makes back can see or change
     a half-made transition. Custom errors are raised by selector; contracts/compile.py lists them in the ABI.
     What more than one function does is in modules/custody.vy; a channel's record is packed by hand: modules/records.vy.
"""

from modules import close_out
from modules import custody
from modules import payouts
from modules import records
from modules import refusals
from modules import typed_data

initializes: payouts
initializes: custody[payouts := payouts]

exports: (
    custody.RISK_ENGINE,
    custody.FIX_BOOK,
    custody.RULES,
    custody.DOMAIN_SEPARATOR,
    payouts.claim,
    payouts.held,
)

# states in one anchor_many
MAX_ANCHORS: constant(uint256) = 32
# the last way out: where nobody has shown any body this long after D
RELEASE_DELAY: constant(uint256) = 180 * 86_400


@deploy
def __init__(risk_engine: address, fix_book: address, rules: address):
    """
    @notice Takes the three contracts that it asks, for ever.
    @param risk_engine The RiskEngine.
    @param fix_book The FixBook.
    @param rules The Rules.
    """
    custody.__init__(risk_engine, fix_book, rules)


# -------------------------------------------------------------------------------------------------------------- opening


@external
def open(terms: typed_data.Terms) -> bytes32:
    """
    @notice Records a channel. Anyone may: the id binds every term, so that being first changes nothing.
    @dev Refuses terms that could not be enforced. More than 9 oracle signers or 8 markets do not decode.
    @param terms The terms.
    @return The channel id: the EIP-712 digest of the terms.
    """
    # true, or reverts
    assert staticcall custody.Rules(custody.RULES).check(terms)
    channel: bytes32 = typed_data._digest(custody.DOMAIN_SEPARATOR, typed_data._terms_hash(terms))
    if custody._records[channel].vault != 0:
        refusals._refuse(convert(method_id("AlreadyOpened()", output_type=bytes4), uint256))
    custody._records[channel].a = convert(terms.a.signer, uint256) | (
        convert(terms.challengePeriod, uint256) << 224
    )
    custody._records[channel].b = convert(terms.b.signer, uint256)
    custody._records[channel].payout_a = convert(terms.a.payout, uint256) | (
        convert(terms.curePeriod, uint256) << 160 | convert(terms.oracle.tick, uint256) << 192
    )
    custody._records[channel].payout_b = terms.b.payout
    custody._records[channel].vault = convert(terms.collateral, uint256) | (records.OPEN << records.PHASE)
    log custody.Opened(channel=channel, signer_a=terms.a.signer, signer_b=terms.b.signer, terms=terms)
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
    custody._deposit(channel, party, amount, other_at_least)


@external
def deposit_with_permit(
    channel: bytes32,
    party: uint8,
    amount: uint256,
    other_at_least: uint256,
    deadline: uint256,
    v: uint8,
    r: bytes32,
    s: bytes32,
):
    """
    @notice `deposit`, with the caller's EIP-2612 permit for the amount. A permit that fails is ignored: somebody may have
            sent it before (it is public), and then the allowance is there.
    @param channel The channel id.
    @param party 0 for a, 1 for b.
    @param amount Units to pull from the caller.
    @param other_at_least Reverts where the other party's total is below this.
    @param deadline The permit's own, Unix seconds.
    @param v Of the permit's signature.
    @param r Of the permit's signature.
    @param s Of the permit's signature.
    """
    # nothing here on what it comes to: the transfer that follows tells
    success: bool = raw_call(
        records._address(custody._records[channel].vault),
        abi_encode(
            msg.sender,
            self,
            amount,
            deadline,
            v,
            r,
            s,
            method_id=method_id("permit(address,address,uint256,uint256,uint8,bytes32,bytes32)"),
        ),
        revert_on_failure=False,
    )
    custody._deposit(channel, party, amount, other_at_least)


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
    vault: uint256 = custody._records[channel].vault
    custody._check_open(vault)
    word: uint256 = custody._records[channel].a
    custody._check_signatures(
        typed_data._withdrawal_hash(withdrawal), sigs, word, custody._records[channel].b
    )

    account_a: uint256 = custody._records[channel].account_a
    account_b: uint256 = custody._records[channel].account_b
    total_a: uint256 = convert(withdrawal.withdrawnA, uint256)
    total_b: uint256 = convert(withdrawal.withdrawnB, uint256)
    to_a: uint256 = total_a - min(total_a, account_a >> 128)
    to_b: uint256 = total_b - min(total_b, account_b >> 128)
    if to_a + to_b > records._pot(account_a, account_b):
        refusals._refuse(convert(method_id("PotShort()", output_type=bytes4), uint256))

    version: uint256 = convert(withdrawal.version, uint256)
    if version > (word >> 160) & records.MASK_64:
        custody._records[channel].a = (word & ~records.VERSION) | (version << 160)
        custody._records[channel].floor_hash = withdrawal.bodyHash
    log custody.Withdrawn(channel=channel, withdrawal=withdrawal, to_a=to_a, to_b=to_b, sigs=sigs)
    custody._pay(channel, vault, account_a, account_b, to_a, to_b)


@external
def anchor(channel: bytes32, version: uint64, body_hash: bytes32, sigs: Bytes[130]):
    """
    @notice Raises the floor to a co-signed state. Anyone, outside a dispute. States below the floor can never be used again.
    @param channel The channel id.
    @param version The version of the co-signed state; refused at or below the floor.
    @param body_hash hashStruct of its body.
    @param sigs a's signature of the state and b's.
    """
    vault: uint256 = custody._records[channel].vault
    custody._check_open(vault)
    if not custody._anchor(channel, version, body_hash, sigs):
        refusals._refuse(convert(method_id("VersionNotHigher()", output_type=bytes4), uint256))


@external
def anchor_many(anchors: DynArray[typed_data.Anchor, MAX_ANCHORS]):
    """
    @notice Raises the floors of many channels. What has no effect is skipped (a channel that is not open, a version at or
            below the floor), so that no counterparty can make the others' fail; a bad signature reverts the whole.
    @param anchors The co-signed states.
    """
    for item: typed_data.Anchor in anchors:
        if custody._records[item.channel].vault >> records.PHASE == records.OPEN:
            custody._anchor(item.channel, item.version, item.bodyHash, item.sigs)


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
    custody._party_of_caller(channel)
    vault: uint256 = custody._records[channel].vault
    custody._check_open(vault)
    custody._challenge(channel, vault, version, body_hash, sigs)


@external
def call_margin(channel: bytes32, version: uint64, body_hash: bytes32, sigs: Bytes[130]):
    """
    @notice Calls margin at L, the first tick at or after now + curePeriod: whoever is below maintenance margin at the fixes for
            L, deposits until then included, can be shown to be so by `test` after the deadline, and is closed out there.
            A challenge as well, where there is no dispute; in one, strictly before the deadline, a refutation where the
            version is higher. Up to four calls a party in a dispute, each once the party's last L is past.
    @dev The order of calling is the order of L, since L never falls with time.
    @param channel The channel id.
    @param version The version of a co-signed state. In a dispute, where it is not above the version on record,
           `body_hash` and `sigs` are not looked at; as for `challenge` outside one.
    @param body_hash hashStruct of that state's body.
    @param sigs a's signature of the state and b's.
    """
    party: uint256 = custody._party_of_caller(channel)
    vault: uint256 = custody._records[channel].vault
    custody._check_alive(vault)
    if vault >> records.PHASE == records.OPEN:
        custody._challenge(channel, vault, version, body_hash, sigs)
        vault = custody._records[channel].vault
    else:
        custody._check_before_deadline(vault)
        if convert(version, uint256) > (custody._records[channel].b >> 160) & records.MASK_64:
            custody._refute(channel, vault, version, body_hash, sigs)

    number: uint256 = custody._records[channel].b >> 224
    calls: uint256 = (vault >> records.CALLS) & 255
    own: uint256 = 0
    for i: uint256 in range(calls, bound=records.MAX_CALLS):
        word: uint256 = custody._calls[custody._call_key(channel, number, i)].word
        if (word >> records.PARTY) & 1 == party:
            own += 1
            if word & records.MASK_64 >= block.timestamp:
                refusals._refuse(convert(method_id("CallPending()", output_type=bytes4), uint256))
    if own == records.CALLS_OF_PARTY:
        refusals._refuse(convert(method_id("TooManyCalls()", output_type=bytes4), uint256))
    periods: uint256 = custody._records[channel].payout_a >> 160
    time: uint256 = records._tick(
        block.timestamp + (periods & records.MASK_32), (periods >> 32) & records.MASK_32
    )
    custody._calls[custody._call_key(channel, number, calls)].word = time | (party << records.PARTY)
    custody._records[channel].vault = vault + (1 << records.CALLS)
    log custody.MarginCalled(
        channel=channel,
        dispute=convert(number, uint32),
        caller=msg.sender,
        party=convert(party, uint8),
        call=convert(calls, uint8),
        time=convert(time, uint64),
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
    vault: uint256 = custody._records[channel].vault
    custody._check_before_deadline(vault)
    custody._refute(channel, vault, version, body_hash, sigs)


@external
def resume(resume: typed_data.Resume, sigs: Bytes[130]):
    """
    @notice Ends a dispute by agreement, strictly before the deadline, and the channel goes on. The version on record becomes
            the floor; the margin calls of the dispute are void.
    @param resume The channel and the number of the dispute, good to `validUntil`, inclusive.
    @param sigs a's signature of it and b's.
    """
    channel: bytes32 = resume.channel
    vault: uint256 = custody._records[channel].vault
    custody._check_before_deadline(vault)
    if block.timestamp > convert(resume.validUntil, uint256):
        refusals._refuse(convert(method_id("ResumeExpired()", output_type=bytes4), uint256))
    word_a: uint256 = custody._records[channel].a
    word_b: uint256 = custody._records[channel].b
    if convert(resume.dispute, uint256) != word_b >> 224:
        refusals._refuse(convert(method_id("OtherDispute()", output_type=bytes4), uint256))
    custody._check_signatures(typed_data._resume_hash(resume), sigs, word_a, word_b)
    version: uint256 = word_b & records.VERSION
    record_hash: bytes32 = custody._records[channel].record_hash
    if version != word_a & records.VERSION:
        custody._records[channel].a = (word_a & ~records.VERSION) | version
        custody._records[channel].floor_hash = record_hash
    custody._records[channel].vault = (vault & records.ADDRESS) | (records.OPEN << records.PHASE)
    log custody.Resumed(
        channel=channel,
        resume=resume,
        version=convert(version >> 160, uint64),
        body_hash=record_hash,
        sigs=sigs,
    )


@external
def test(terms: typed_data.Terms, body: typed_data.Body, call: uint256):
    """
    @notice Judges a margin call: looks at both parties at the fixes for its L, on the body on record. Anyone, from the deadline
            on and once L is past. Every fix it needs must be proven. A call may be judged again by fixes of a
            strictly greater weight alone, so that a lighter fix never decides where a heavier is shown.
    @param terms The channel's terms.
    @param body The body on record.
    @param call The index of the call in the dispute, from 0.
    """
    channel: bytes32 = empty(bytes32)
    t: uint256 = 0
    channel, t = custody._disputed(terms)
    vault: uint256 = custody._records[channel].vault
    if block.timestamp < (vault >> 160) & records.MASK_64:
        refusals._refuse(convert(method_id("DeadlineNotReached()", output_type=bytes4), uint256))
    if call >= (vault >> records.CALLS) & 255:
        refusals._refuse(convert(method_id("NoSuchCall()", output_type=bytes4), uint256))
    custody._check_body(channel, body)
    number: uint256 = custody._records[channel].b >> 224
    key: bytes32 = custody._call_key(channel, number, call)
    word: uint256 = custody._calls[key].word
    time: uint256 = word & records.MASK_64
    # deposits in the block at L still count
    if block.timestamp <= time:
        refusals._refuse(convert(method_id("CallTimeNotPassed()", output_type=bytes4), uint256))
    account_a: uint256 = custody._records[channel].account_a
    account_b: uint256 = custody._records[channel].account_b
    deposits: uint256 = custody._deposits(account_a, account_b)
    if word & records.FROZEN != 0:
        deposits = custody._calls[key].deposits
    known: uint256 = max_value(uint256)
    if word & records.TESTED != 0:
        known = word >> records.WEIGHT
    verdict: close_out.Verdict = staticcall custody.Rules(custody.RULES).judge(
        custody.RISK_ENGINE,
        custody.FIX_BOOK,
        terms,
        body,
        convert(time, uint64),
        known,
        deposits,
        account_a >> 128 | account_b & ~records.MASK_128,
    )
    word = (word & records.KEPT) | records.TESTED | (verdict.weight << records.WEIGHT)
    if verdict.below_a:
        word |= records.BELOW_A
    if verdict.below_b:
        word |= records.BELOW_B
    if verdict.complete:
        word |= records.COMPLETE
    custody._calls[key].word = word
    custody._calls[key].penalty = verdict.penalty
    log custody.Tested(
        channel=channel,
        dispute=convert(number, uint32),
        caller=msg.sender,
        call=convert(call, uint8),
        time=convert(time, uint64),
        verdict=verdict,
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
    vault: uint256 = custody._records[channel].vault
    custody._check_alive(vault)
    if block.timestamp > convert(close.validUntil, uint256):
        refusals._refuse(convert(method_id("CloseExpired()", output_type=bytes4), uint256))
    word_a: uint256 = custody._records[channel].a
    word_b: uint256 = custody._records[channel].b
    version: uint256 = convert(close.version, uint256)
    if version < (word_a >> 160) & records.MASK_64:
        refusals._refuse(convert(method_id("BelowFloor()", output_type=bytes4), uint256))
    if vault >> records.PHASE != records.OPEN and version < (word_b >> 160) & records.MASK_64:
        refusals._refuse(convert(method_id("BelowRecord()", output_type=bytes4), uint256))
    custody._check_signatures(typed_data._close_hash(close), sigs, word_a, word_b)

    account_a: uint256 = custody._records[channel].account_a
    account_b: uint256 = custody._records[channel].account_b
    to_a: uint256 = records._entitlement(close.a, 0, account_a, account_b)
    to_b: uint256 = records._pot(account_a, account_b) - to_a
    custody._records[channel].vault = (vault & records.ADDRESS) | (records.ENDED << records.PHASE)
    log custody.Closed(channel=channel, close=close, to_a=to_a, to_b=to_b, sigs=sigs)
    custody._pay(channel, vault, account_a, account_b, to_a, to_b)


@external
def settle(terms: typed_data.Terms, body: typed_data.Body):
    """
    @notice Pays by the state on record and ends the channel. Anyone, from the fix time D on: D is the first tick at or
            after deadline + samples * sampleGap.
    @dev Before D + grace only where every margin call is tested, and every fix needed complete; from then on with the fixes
         that are proven, positions that lack theirs at their marks, verdicts as they stand, untested calls void. The first
         call that finds a party below decides: the close-out is at its L, and one who is below alone pays the penalty.
         An empty book needs no fix, and no call changes what it comes to.
    @param terms The channel's terms.
    @param body The body on record.
    """
    channel: bytes32 = empty(bytes32)
    t: uint256 = 0
    channel, t = custody._disputed(terms)
    custody._check_body(channel, body)
    if block.timestamp < t:
        refusals._refuse(convert(method_id("FixTimeNotReached()", output_type=bytes4), uint256))
    late: bool = block.timestamp >= t + convert(terms.oracle.grace, uint256)
    decided: uint256 = records.NO_CALL
    penalty: int256 = 0
    if len(body.positions) != 0:
        number: uint256 = custody._records[channel].b >> 224
        for i: uint256 in range((custody._records[channel].vault >> records.CALLS) & 255, bound=records.MAX_CALLS):
            key: bytes32 = custody._call_key(channel, number, i)
            word: uint256 = custody._calls[key].word
            if not late and word & records.COMPLETE == 0:
                refusals._refuse(convert(method_id("CallsUntested()", output_type=bytes4), uint256))
            below: uint256 = word & (records.BELOW_A | records.BELOW_B)
            if decided == records.NO_CALL and below != 0:
                decided = i
                t = word & records.MASK_64
                # zero where both are below
                penalty = convert(custody._calls[key].penalty, int256)
                if below == records.BELOW_A:
                    penalty = -penalty
    custody._pay_body(
        channel,
        terms,
        body,
        t,
        late,
        penalty,
        decided,
        convert((custody._records[channel].b >> 160) & records.MASK_64, uint64),
        custody._records[channel].record_hash,
    )


@external
def settle_last(
    terms: typed_data.Terms, version: uint64, body: typed_data.Body, sigs: Bytes[130]
):
    """
    @notice The way out where nobody shows the body on record. Anyone, from D + 2 * grace on: the first co-signed body above the
            floor, or the floor's own, opens a window of `grace`, in which strictly higher versions replace it. After it,
            the same call with the highest shown pays by it, at the fixes for D, without any margin call. `settle` on the body
            on record stays open, and wins until payment.
    @param terms The channel's terms.
    @param version The version of the body.
    @param body A co-signed body.
    @param sigs a's signature of the state and b's; not looked at for the floor's own, nor at the payment.
    """
    channel: bytes32 = empty(bytes32)
    t: uint256 = 0
    channel, t = custody._disputed(terms)
    grace: uint256 = convert(terms.oracle.grace, uint256)
    if block.timestamp < t + 2 * grace:
        refusals._refuse(convert(method_id("LastNotReached()", output_type=bytes4), uint256))
    body_hash: bytes32 = typed_data._body_hash(body)
    higher: uint256 = convert(version, uint256)
    shown: uint256 = custody._records[channel].shown
    end: uint256 = shown >> 64
    if shown != 0 and block.timestamp >= end:
        if (
            higher != shown & records.MASK_64
            or body_hash != custody._records[channel].shown_hash
        ):
            refusals._refuse(convert(method_id("BodyNotShown()", output_type=bytes4), uint256))
        custody._pay_body(
            channel, terms, body, t, True, 0, records.NO_CALL, version, body_hash
        )
        return

    word_a: uint256 = custody._records[channel].a
    word_b: uint256 = custody._records[channel].b
    floor_version: uint256 = (word_a >> 160) & records.MASK_64
    evidence: Bytes[130] = b""
    if higher < floor_version:
        refusals._refuse(convert(method_id("BelowFloor()", output_type=bytes4), uint256))
    if shown == 0:
        end = block.timestamp + grace
    elif higher <= shown & records.MASK_64:
        refusals._refuse(convert(method_id("VersionNotHigher()", output_type=bytes4), uint256))
    if higher == floor_version:
        if body_hash != custody._floor_hash(channel, floor_version):
            refusals._refuse(convert(method_id("BodyNotOnRecord()", output_type=bytes4), uint256))
    else:
        custody._check_state(channel, version, body_hash, sigs)
        evidence = sigs
    custody._records[channel].shown = higher | end << 64
    custody._records[channel].shown_hash = body_hash
    log custody.Shown(
        channel=channel,
        dispute=convert(word_b >> 224, uint32),
        caller=msg.sender,
        version=version,
        body_hash=body_hash,
        window_end=convert(end, uint64),
        sigs=evidence,
    )


@external
def release(terms: typed_data.Terms):
    """
    @notice The last way out: nobody has shown any body 180 days after D. Each party gets its own deposits less what was paid
            to it, as far as the pot goes.
    @param terms The channel's terms.
    """
    channel: bytes32 = empty(bytes32)
    t: uint256 = 0
    channel, t = custody._disputed(terms)
    if block.timestamp < t + RELEASE_DELAY:
        refusals._refuse(convert(method_id("ReleaseNotReached()", output_type=bytes4), uint256))
    if custody._records[channel].shown != 0:
        refusals._refuse(convert(method_id("BodyShown()", output_type=bytes4), uint256))
    account_a: uint256 = custody._records[channel].account_a
    account_b: uint256 = custody._records[channel].account_b
    to_a: uint256 = records._entitlement(empty(typed_data.Account), 0, account_a, account_b)
    to_b: uint256 = records._pot(account_a, account_b) - to_a
    vault: uint256 = custody._end(channel)
    log custody.Released(
        channel=channel,
        dispute=convert(custody._records[channel].b >> 224, uint32),
        caller=msg.sender,
        to_a=to_a,
        to_b=to_b,
    )
    custody._pay(channel, vault, account_a, account_b, to_a, to_b)


# ---------------------------------------------------------------------------------------------------------------- views


@external
@view
def channel_record(channel: bytes32) -> records.ChannelRecord:
    """
    @notice What is recorded of a channel. Phase 0: never opened; 1: open; 2: in a dispute; 3: ended.
            The floor's hash is that of the implicit body while the floor is version 0.
    @param channel The channel id.
    @return The record.
    """
    record: records.Record = custody._records[channel]
    floor_version: uint256 = (record.a >> 160) & records.MASK_64
    return records.ChannelRecord(
        phase=convert(record.vault >> records.PHASE, uint8),
        collateral=records._address(record.vault),
        signer_a=records._address(record.a),
        payout_a=records._address(record.payout_a),
        signer_b=records._address(record.b),
        payout_b=record.payout_b,
        challenge_period=convert(record.a >> 224, uint32),
        deposited_a=record.account_a & records.MASK_128,
        paid_a=record.account_a >> 128,
        deposited_b=record.account_b & records.MASK_128,
        paid_b=record.account_b >> 128,
        floor_version=convert(floor_version, uint64),
        floor_hash=custody._floor_hash(channel, floor_version),
    )


@external
@view
def dispute_record(channel: bytes32) -> records.DisputeRecord:
    """
    @notice The channel's latest dispute; its number is 0 where there was none, its deadline 0 where a Close or a Resume ended
            it.
    @param channel The channel id.
    @return The dispute.
    """
    word: uint256 = custody._records[channel].b
    vault: uint256 = custody._records[channel].vault
    shown: uint256 = custody._records[channel].shown
    return records.DisputeRecord(
        number=convert(word >> 224, uint32),
        version=convert((word >> 160) & records.MASK_64, uint64),
        body_hash=custody._records[channel].record_hash,
        deadline=convert((vault >> 160) & records.MASK_64, uint64),
        calls=convert((vault >> records.CALLS) & 255, uint8),
        shown_version=convert(shown & records.MASK_64, uint64),
        shown_hash=custody._records[channel].shown_hash,
        window_end=convert(shown >> 64, uint64),
    )


@external
@view
def margin_call(channel: bytes32, dispute: uint32, call: uint256) -> records.MarginCall:
    """
    @notice A margin call of a dispute; all zeros where there is none. Its deposits are those up to its time so far, while that
            is not past or nobody has deposited since.
    @param channel The channel id.
    @param dispute The number of the dispute.
    @param call The index of the call, from 0.
    @return The call, and its verdict where it was tested.
    """
    key: bytes32 = custody._call_key(channel, convert(dispute, uint256), call)
    word: uint256 = custody._calls[key].word
    deposits: uint256 = custody._calls[key].deposits
    if word & records.FROZEN == 0:
        deposits = custody._deposits(
            custody._records[channel].account_a, custody._records[channel].account_b
        )
    return records.MarginCall(
        party=convert((word >> records.PARTY) & 1, uint8),
        time=convert(word & records.MASK_64, uint64),
        tested=word & records.TESTED != 0,
        below_a=word & records.BELOW_A != 0,
        below_b=word & records.BELOW_B != 0,
        complete=word & records.COMPLETE != 0,
        weight=word >> records.WEIGHT,
        deposited_a=deposits & records.MASK_128,
        deposited_b=deposits >> 128,
        penalty=custody._calls[key].penalty,
    )
