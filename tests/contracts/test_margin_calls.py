"""`call_margin`, `test` and what `settle` makes of them: every verdict and every payout is core/settlement's figure."""

import pytest
from contracts_harness import (
    BTC,
    ETH,
    KEEPER,
    KEYS,
    NOW,
    PAYOUTS,
    USD,
    Account,
    Channel,
    Kind,
    World,
    make_market,
    make_oracle,
    make_terms,
    option,
    perpetual,
    refused,
)

from channeld.core import crypto, eip712
from channeld.core.settlement import (
    FixMissingError,
    MarginCall,
    call_time,
    fix_time,
    fixes_needed,
    judge,
    may_settle,
    settle_with_calls,
)
from channeld.core.settlement import Verdict as ModelVerdict
from channeld.core.wad import DAY, WAD

ONE = 1_000_000
A, B = Account(1000 * ONE, 1000 * ONE, 0), Account(600 * ONE, 600 * ONE, 0)
DEADLINE = NOW + 86_400
L = NOW + 3600
TOTALS = (1000 * ONE, 600 * ONE, 0, 0)


def book(channel, size=2):
    """A perpetual on ETH at 3000, long for a: its maintenance margin is about a tenth of its value."""
    return channel.body(A, B, (perpetual(ETH, size * WAD, 3000 * WAD),))


def prove(channel, t, price, count=3, feed=ETH):
    """Prove ETH's fix for t; what the model knows of it."""
    return {(feed, t): channel.world.prove(channel.terms, feed, t, [price * 10**8] * count)}


def values(fixes):
    return {key: value for key, (value, _) in fixes.items()}


def verdict_of(tested):
    names = "below_a below_b complete weight equity_a equity_b margin_a margin_b penalty"
    return ModelVerdict(*(getattr(tested, name) for name in names.split()))


# ---------------------------------------------------------------------------------------------------------- call_margin


def test_a_margin_call_is_a_challenge_where_there_is_none(funded):
    body = book(funded)
    called = funded.call_margin(3, body, sender=PAYOUTS[1])
    assert (called.channel, called.dispute, called.party, called.call, called.time) == (funded.id, 1, 1, 0, L)
    assert called.caller == "0x" + PAYOUTS[1].hex()
    challenged = funded.world.adjudicator.event("Challenged")
    assert (challenged.version, challenged.deadline) == (3, DEADLINE)
    record = funded.margin_call()
    assert (record.party, record.time, record.tested) == (1, L, False)
    assert (funded.dispute.calls, funded.record.phase) == (1, 2)


def test_at_the_floor_a_call_needs_no_signatures(funded):
    assert funded.call_margin().call == 0
    assert funded.dispute.body_hash == eip712.body_hash(funded.genesis)


@pytest.mark.parametrize(
    ("sender", "party"),
    [(crypto.address_of(KEYS[0]), 0), (PAYOUTS[0], 0), (crypto.address_of(KEYS[1]), 1), (PAYOUTS[1], 1)],
)
def test_each_address_of_a_party_calls_for_it(funded, sender, party):
    assert funded.call_margin(sender=sender).party == party


def test_nobody_else_calls(funded):
    with refused("NotAParty"):
        funded.call_margin(sender=KEEPER)
    with refused("UnknownChannel"):
        funded.world.adjudicator.call_margin(b"\x01" * 32, 0, bytes(32), b"", sender=PAYOUTS[0])
    funded.world.adjudicator.close(*funded.sign_close(0, Account(), Account()))
    with refused("ChannelEnded"):
        funded.call_margin()


def test_one_payout_address_for_both_calls_for_a_and_the_signers_for_themselves(world):
    from channeld.core.terms import Party  # noqa: PLC0415 - only here

    parties = [Party(crypto.address_of(k), PAYOUTS[0]) for k in KEYS]
    channel = Channel(world, make_terms(world.token.address, a=parties[0], b=parties[1])).open()
    assert channel.call_margin(sender=PAYOUTS[0]).party == 0
    assert channel.call_margin(sender=parties[1].signer).party == 1


def test_a_call_refutes_where_its_version_is_higher(funded):
    adjudicator = funded.world.adjudicator
    deadline = funded.challenge(3, book(funded)).deadline
    funded.world.chain.advance(1000)
    higher = book(funded, 1)
    with refused("SignaturesMissing"):
        adjudicator.call_margin(funded.id, 4, eip712.body_hash(higher), b"", sender=PAYOUTS[0])
    with refused("InvalidSignatureB"):
        version, body_hash, sigs = funded.sign_state(4, higher)
        adjudicator.call_margin(funded.id, version, body_hash, sigs[:65] * 2, sender=PAYOUTS[0])
    called = funded.call_margin(4, higher)
    refuted = adjudicator.event("Refuted")
    assert (refuted.version, refuted.deadline, called.time) == (4, deadline, NOW + 4600)
    # not higher: no refutation, and nothing of it is looked at
    adjudicator.call_margin(funded.id, 4, b"\x99" * 32, b"junk", sender=PAYOUTS[1])
    assert [e.name for e in adjudicator.events] == ["MarginCalled"]
    assert (funded.dispute.version, funded.dispute.deadline) == (4, deadline)
    # a later refutation moves no call
    adjudicator.refute(funded.id, *funded.sign_state(5, book(funded)))
    assert [funded.margin_call(i).time for i in (0, 1)] == [NOW + 4600, NOW + 4600]


@pytest.mark.parametrize("offset", [0, 1, 9, 10])
def test_the_time_of_a_call_is_the_first_tick_after_the_cure_period(funded, offset):
    funded.world.chain.set_time(NOW + offset)
    assert funded.call_margin().time == call_time(funded.terms, NOW + offset) == NOW + 3600 + -(-offset // 10) * 10


def test_a_party_calls_four_times_each_once_its_last_is_past(funded):
    chain = funded.world.chain
    now = NOW
    for index in range(4):
        chain.set_time(now)
        time = funded.call_margin(sender=PAYOUTS[0]).time
        chain.set_time(time)
        with refused("CallPending"):
            funded.call_margin(sender=crypto.address_of(KEYS[0]))
        # the other's calls are its own
        assert funded.call_margin(sender=PAYOUTS[1]).call == 2 * index + 1
        now = max(time, funded.margin_call(2 * index + 1).time) + 1
    chain.set_time(now)
    for sender in PAYOUTS:
        with refused("TooManyCalls"):
            funded.call_margin(sender=sender)
    assert funded.dispute.calls == 8
    assert [funded.margin_call(i).party for i in range(8)] == [0, 1] * 4


def test_a_call_in_the_last_second_has_its_time_after_d(funded):
    body = book(funded)
    funded.challenge(3, body)
    funded.world.chain.set_time(DEADLINE)
    with refused("DeadlinePassed"):
        funded.call_margin()
    funded.world.chain.set_time(DEADLINE - 1)
    time = funded.call_margin().time
    d = fix_time(funded.terms, DEADLINE)
    assert d < time < d + funded.terms.oracle.grace
    funded.world.chain.set_time(d)
    prove(funded, d, 2500)
    with refused("CallsUntested"):
        funded.settle(body)
    with refused("CallTimeNotPassed"):
        funded.test(body)
    funded.world.chain.set_time(time + 1)
    prove(funded, time, 2500)
    assert funded.test(body).below_a
    assert funded.settle(body).fix_time == time


# ----------------------------------------------------------------------------------------------------------------- test


def called(channel, body, *, at=NOW, sender=PAYOUTS[1]):
    """A dispute on a body with one call of b's."""
    channel.world.chain.set_time(at)
    return channel.call_margin(3, body, sender=sender).time


@pytest.mark.parametrize(
    ("price", "size", "bits"),
    [(3000, 1, (False, False)), (2500, 2, (True, False)), (3250, 2, (False, True)), (3000, 7, (True, True))],
)
def test_whoever_is_below_at_the_time_of_the_call_pays(funded, price, size, bits):
    body = book(funded, size)
    time = called(funded, body)
    d = fix_time(funded.terms, DEADLINE)
    funded.world.chain.set_time(d)
    fixes = prove(funded, time, price)
    expected = judge(funded.terms, body, fixes, time, *TOTALS)
    tested = funded.test(body)
    assert verdict_of(tested) == expected
    assert (tested.channel, tested.dispute, tested.call, tested.time) == (funded.id, 1, 0, L)
    assert (tested.caller, tested.complete, tested.weight) == ("0x" + KEEPER.hex(), True, 3)
    assert (tested.below_a, tested.below_b) == bits
    assert bool(tested.penalty) == (bits[0] != bits[1])
    record = funded.margin_call()
    assert (record.tested, record.below_a, record.below_b, record.weight) == (True, *bits, 3)
    assert (record.penalty, record.complete) == (tested.penalty, True)

    calls = [MarginCall(time, expected)]
    # at D the price has come back: whoever was below is closed out at L all the same
    fixes |= prove(funded, d, 3000)
    settled = funded.settle(body)
    assert (settled.to_a, settled.to_b) == settle_with_calls(
        funded.terms, body, values(fixes), DEADLINE, calls, *TOTALS
    )
    below = any(bits)
    assert (settled.fix_time, settled.call) == ((L, 0) if below else (d, 255))
    signed_penalty = tested.penalty * (bits[1] - bits[0])
    assert settled.penalty == signed_penalty
    assert settled.to_a == max(0, 1000 * ONE + (price - 3000) * size * ONE * below + signed_penalty)


def test_the_penalty_is_a_share_of_the_margin_of_the_one_below(funded):
    body = book(funded)
    time = called(funded, body)
    funded.world.chain.set_time(fix_time(funded.terms, DEADLINE))
    prove(funded, time, 2500)
    tested = funded.test(body)
    # ten percent of 5000, three percent of that
    assert (tested.margin_a, tested.penalty) == (500 * WAD, 15 * ONE)
    assert (tested.equity_a, tested.equity_b) == (0, 1600 * WAD)
    assert funded.settle(body).to_a == 0


def test_a_penalty_never_exceeds_the_pot(world):
    terms = make_terms(world.token.address, closeout_penalty=18 * WAD)
    channel = Channel(world, terms).open()
    world.fund(channel.id, 0, 1000 * ONE)
    world.fund(channel.id, 1, 600 * ONE)
    body = book(channel)
    time = called(channel, body)
    world.chain.set_time(fix_time(terms, DEADLINE))
    prove(channel, time, 3250)
    assert channel.test(body).penalty > 1600 * ONE
    settled = channel.settle(body)
    assert (settled.to_a, settled.to_b) == (1600 * ONE, 0)


def test_a_test_waits_for_the_deadline_and_for_the_time_to_pass(funded):
    body = book(funded)
    with refused("NotInDispute"):
        funded.test(body)
    time = called(funded, body)
    funded.world.chain.set_time(time + 1)
    prove(funded, time, 2500)
    with refused("DeadlineNotReached"):
        funded.test(body)
    funded.world.chain.set_time(DEADLINE - 1)
    late = funded.call_margin(sender=PAYOUTS[0]).time
    with refused("DeadlineNotReached"):
        funded.test(body)
    funded.world.chain.set_time(DEADLINE)
    assert funded.test(body).below_a
    with refused("NoSuchCall"):
        funded.test(body, 2)
    with refused("NoSuchCall"):
        funded.test(body, 2**256 - 1)
    with refused("BodyNotOnRecord"):
        funded.test(book(funded, 1))
    funded.world.chain.set_time(late)
    prove(funded, late, 3000)
    with refused("CallTimeNotPassed"):
        funded.test(body, 1)
    funded.world.chain.set_time(late + 1)
    assert funded.test(body, 1).time == late
    funded.world.adjudicator.close(*funded.sign_close(3, A, B))
    with refused("ChannelEnded"):
        funded.test(body)


def test_every_fix_a_test_needs_must_be_proven(world):
    terms = make_terms(
        world.token.address, collateral_feed=USD, haircut=WAD // 5, markets=tuple(map(make_market, (BTC, ETH, USD)))
    )
    channel = Channel(world, terms).open()
    world.fund(channel.id, 0, 1000 * ONE)
    world.fund(channel.id, 1, 600 * ONE)
    body = channel.body(
        A,
        B,
        (
            perpetual(ETH, WAD, 3000 * WAD, WAD // 10),
            option(Kind.CALL, BTC, NOW + 1800, 60_000 * WAD, -(WAD // 100), 900 * WAD),
            option(Kind.PUT, ETH, NOW + 30 * DAY, 2900 * WAD, WAD // 2, 200 * WAD),
        ),
        collateral_mark=98 * WAD // 100,
    )
    time = called(channel, body)
    world.chain.set_time(fix_time(terms, DEADLINE))
    needed = fixes_needed(terms, body, time)
    assert needed == ((ETH, time), (BTC, NOW + 1800), (USD, time))
    fixes = {}
    for (feed, at), price in zip(needed, (2700, 61_000, 1), strict=True):
        with refused("FixMissing"):
            channel.test(body)
        with pytest.raises(FixMissingError):
            judge(terms, body, fixes, time, *TOTALS)
        fixes |= prove(channel, at, price, feed=feed)
    expected = judge(terms, body, fixes, time, *TOTALS)
    assert verdict_of(channel.test(body)) == expected
    assert (expected.weight, expected.below_a, expected.equity_b > 0) == (9, False, True)
    d = fix_time(terms, DEADLINE)
    assert may_settle(terms, body, DEADLINE, [MarginCall(time, expected)], {}, d) == "FixesIncomplete"
    with refused("FixesIncomplete"):
        channel.settle(body)


def test_a_price_of_collateral_after_its_haircut_decides(world):
    terms = make_terms(
        world.token.address, collateral_feed=USD, haircut=WAD // 5, markets=tuple(map(make_market, (BTC, ETH, USD)))
    )
    channel = Channel(world, terms).open()
    world.fund(channel.id, 0, 400 * ONE)
    world.fund(channel.id, 1, 4000 * ONE)
    body = channel.body(
        Account(400 * ONE, 400 * ONE, 0), Account(4000 * ONE, 4000 * ONE, 0), (perpetual(ETH, WAD, 3000 * WAD),)
    )
    time = called(channel, body)
    d = fix_time(terms, DEADLINE)
    world.chain.set_time(d)
    fixes = prove(channel, time, 3000) | {(USD, time): world.prove(terms, USD, time, [90_000_000] * 3)}
    tested = channel.test(body)
    # 400 * 0.9 * 0.8 = 288 of equity against 300 of margin; 9 of penalty are 10 tokens at 0.9
    assert (tested.equity_a, tested.margin_a, tested.penalty) == (288 * WAD, 300 * WAD, 10 * ONE)
    assert verdict_of(tested) == judge(terms, body, fixes, time, 400 * ONE, 4000 * ONE, 0, 0)
    assert channel.settle(body).to_a == 390 * ONE


def test_an_empty_book_needs_no_fix_and_no_test(funded):
    body = funded.body(A, B)
    called(funded, body)
    d = fix_time(funded.terms, DEADLINE)
    funded.world.chain.set_time(d)
    with funded.world.chain.anchored():
        tested = funded.test(body)
        assert (tested.below_a, tested.below_b, tested.complete, tested.weight) == (False, False, True, 0)
        assert verdict_of(tested) == judge(funded.terms, body, {}, L, *TOTALS)
        with refused("NotHeavier"):
            funded.test(body)
    assert funded.settle(body).call == 255


def test_an_account_that_does_not_add_up_finds_nobody_below_in_an_empty_book(funded):
    # co-signed all the same: a acknowledged more than is there
    body = funded.body(Account(0, 5000 * ONE, 0), Account(5000 * ONE, 0, 0))
    called(funded, body)
    funded.world.chain.set_time(DEADLINE)
    assert not funded.test(body).below_a


def test_what_has_expired_counts_in_profit_and_not_in_margin(funded):
    body = funded.body(A, B, (option(Kind.CALL, ETH, NOW + 1800, 3000 * WAD, 3 * WAD, 100 * WAD),))
    time = called(funded, body)
    funded.world.chain.set_time(DEADLINE)
    fixes = prove(funded, NOW + 1800, 3300)
    tested = funded.test(body)
    assert (tested.margin_a, tested.margin_b, tested.equity_a) == (0, 0, 1600 * WAD)
    assert verdict_of(tested) == judge(funded.terms, body, fixes, time, *TOTALS)
    assert (tested.below_a, tested.below_b) == (False, False)


# ------------------------------------------------------------------------------------------------------------- deposits


@pytest.mark.parametrize(("at", "counts"), [(L - 10, True), (L, True), (L + 1, False)])
def test_deposits_count_until_the_time_of_the_call(funded, at, counts):
    body = book(funded)
    time = called(funded, body)
    funded.world.chain.set_time(at)
    funded.world.fund(funded.id, 0, 500 * ONE)
    # another one, later, changes nothing any more
    funded.world.chain.set_time(L + 500)
    funded.world.fund(funded.id, 0, 400 * ONE)
    funded.world.fund(funded.id, 1, 7 * ONE)
    record = funded.margin_call()
    assert (record.deposited_a, record.deposited_b) == ((1500 if counts else 1000) * ONE, 600 * ONE)
    d = fix_time(funded.terms, DEADLINE)
    funded.world.chain.set_time(d)
    fixes = prove(funded, time, 2500) | prove(funded, d, 2900)
    tested = funded.test(body)
    expected = judge(funded.terms, body, fixes, time, (1500 if counts else 1000) * ONE, 600 * ONE, 0, 0)
    assert verdict_of(tested) == expected
    assert tested.below_a == (not counts)
    settled = funded.settle(body)
    totals = (1900 * ONE, 607 * ONE, 0, 0)
    calls = [MarginCall(time, expected)]
    assert (settled.to_a, settled.to_b) == settle_with_calls(
        funded.terms, body, values(fixes), DEADLINE, calls, *totals
    )


def test_each_call_keeps_its_own_deposits(funded):
    body = book(funded)
    chain = funded.world.chain
    first = called(funded, body)
    chain.set_time(NOW + 1800)
    second = funded.call_margin(sender=PAYOUTS[0]).time
    chain.set_time(first + 1)
    funded.world.fund(funded.id, 0, ONE)
    chain.set_time(second + 1)
    funded.world.fund(funded.id, 1, ONE)
    third = funded.call_margin(sender=PAYOUTS[0]).time
    chain.set_time(third + 1)
    funded.world.fund(funded.id, 1, ONE)
    deposits = [(funded.margin_call(i).deposited_a, funded.margin_call(i).deposited_b) for i in range(3)]
    assert deposits == [(1000 * ONE, 600 * ONE), (1001 * ONE, 600 * ONE), (1001 * ONE, 601 * ONE)]


@pytest.mark.parametrize("paid", [(100 * ONE, 0), (0, 100 * ONE), (37 * ONE, 61 * ONE + 1)])
def test_payments_before_the_dispute_count_in_equity(funded, paid):
    funded.world.adjudicator.withdraw(*funded.sign_withdrawal(2, *paid))
    body = funded.body(
        Account(900 * ONE, 1000 * ONE, 100 * ONE), Account(500 * ONE, 600 * ONE, 100 * ONE), book(funded).positions
    )
    time = called(funded, body)
    funded.world.chain.set_time(DEADLINE)
    fixes = prove(funded, time, 3000)
    tested = funded.test(body)
    # withdrawals of 100 each are in the state: what of them was not paid is still theirs
    assert (tested.equity_a, tested.equity_b) == tuple(
        (units - out) * WAD // ONE for units, out in zip((1000 * ONE, 600 * ONE), paid, strict=True)
    )
    assert verdict_of(tested) == judge(funded.terms, body, fixes, time, 1000 * ONE, 600 * ONE, *paid)


# --------------------------------------------------------------------------------------------- verdicts and settlements


def test_the_first_call_that_finds_somebody_below_decides(funded):
    body = book(funded)
    chain = funded.world.chain
    times = [called(funded, body)]
    for index in range(3):
        chain.set_time(times[-1] + 1)
        times.append(funded.call_margin(sender=PAYOUTS[index % 2]).time)
    d = fix_time(funded.terms, DEADLINE)
    chain.set_time(d)
    fixes = {}
    for time, price in zip([*times, d], (3000, 3250, 2500, 2400, 3000), strict=True):
        fixes |= prove(funded, time, price)
    calls = [MarginCall(time, judge(funded.terms, body, fixes, time, *TOTALS)) for time in times]
    # tested in any order
    for index in (3, 0, 2):
        assert verdict_of(funded.test(body, index)) == calls[index].verdict
        with refused("CallsUntested"):
            funded.settle(body)
    assert verdict_of(funded.test(body, 1)) == calls[1].verdict
    settled = funded.settle(body)
    assert (settled.call, settled.fix_time) == (1, times[1])
    assert settled.penalty > 0
    assert (settled.to_a, settled.to_b) == settle_with_calls(
        funded.terms, body, values(fixes), DEADLINE, calls, *TOTALS
    )


def test_two_calls_of_one_time_are_judged_in_the_order_of_calling(funded):
    body = book(funded)
    called(funded, body)
    assert funded.call_margin(sender=PAYOUTS[0]).time == L
    d = fix_time(funded.terms, DEADLINE)
    funded.world.chain.set_time(d)
    prove(funded, L, 2500)
    funded.test(body, 1)
    funded.test(body, 0)
    assert funded.settle(body).call == 0


def test_untested_calls_are_void_from_d_and_grace(funded):
    body = book(funded)
    called(funded, body)
    d = fix_time(funded.terms, DEADLINE)
    chain = funded.world.chain
    chain.set_time(d)
    fixes = prove(funded, d, 2900)
    chain.set_time(d + funded.terms.oracle.grace - 1)
    with refused("CallsUntested"):
        funded.settle(body)
    chain.set_time(d + funded.terms.oracle.grace)
    settled = funded.settle(body)
    assert (settled.fix_time, settled.call, settled.penalty, settled.complete) == (d, 255, 0, True)
    assert (settled.to_a, settled.to_b) == settle_with_calls(
        funded.terms, body, values(fixes), DEADLINE, [MarginCall(L)], *TOTALS
    )


def test_a_verdict_by_lighter_fixes_waits_for_the_grace_and_then_counts(funded):
    body = book(funded)
    time = called(funded, body)
    d = fix_time(funded.terms, DEADLINE)
    chain = funded.world.chain
    chain.set_time(d)
    fixes = prove(funded, time, 2500, count=2) | prove(funded, d, 3000)
    tested = funded.test(body)
    assert (tested.complete, tested.weight, tested.below_a) == (False, 2, True)
    with refused("CallsUntested"):
        funded.settle(body)
    with refused("NotHeavier"):
        funded.test(body)
    chain.set_time(d + funded.terms.oracle.grace)
    settled = funded.settle(body)
    calls = [MarginCall(time, verdict_of(tested))]
    assert (settled.call, settled.complete) == (0, False)
    assert (settled.to_a, settled.to_b) == settle_with_calls(
        funded.terms, body, values(fixes), DEADLINE, calls, *TOTALS
    )


def test_a_heavier_fix_replaces_the_verdict_once_tested_again(funded):
    body = book(funded)
    time = called(funded, body)
    d = fix_time(funded.terms, DEADLINE)
    funded.world.chain.set_time(d)
    prove(funded, time, 2500, count=2)
    assert funded.test(body).below_a
    assert funded.margin_call().penalty > 0
    fixes = prove(funded, time, 3250) | prove(funded, d, 3000)
    # the verdict stands until it is tested again
    with refused("CallsUntested"):
        funded.settle(body)
    tested = funded.test(body)
    assert (tested.below_a, tested.below_b, tested.weight, tested.complete) == (False, True, 3, True)
    with refused("NotHeavier"):
        funded.test(body)
    settled = funded.settle(body)
    calls = [MarginCall(time, verdict_of(tested))]
    assert (settled.to_a, settled.to_b) == settle_with_calls(
        funded.terms, body, values(fixes), DEADLINE, calls, *TOTALS
    )
    assert settled.penalty == tested.penalty > 0


def test_a_heavier_fix_can_clear_a_verdict(funded):
    body = book(funded)
    time = called(funded, body)
    d = fix_time(funded.terms, DEADLINE)
    funded.world.chain.set_time(d)
    prove(funded, time, 2500, count=2)
    funded.test(body)
    prove(funded, time, 3000)
    funded.test(body)
    record = funded.margin_call()
    assert (record.below_a, record.below_b, record.penalty, record.time, record.party) == (False, False, 0, time, 1)
    prove(funded, d, 3000)
    assert funded.settle(body).call == 255


def test_a_deciding_fix_replaced_after_the_verdict_pays_at_the_heavier(funded):
    # from D + grace verdicts count as they stand, or the one below would void its own by proving one more package late
    body = book(funded)
    time = called(funded, body)
    d = fix_time(funded.terms, DEADLINE)
    funded.world.chain.set_time(d)
    prove(funded, time, 2500, count=2)
    tested = funded.test(body)
    fixes = prove(funded, time, 2600)
    funded.world.chain.set_time(d + funded.terms.oracle.grace)
    settled = funded.settle(body)
    calls = [MarginCall(time, verdict_of(tested))]
    assert (settled.fix_time, settled.penalty, settled.complete) == (time, -15 * ONE, True)
    assert (settled.to_a, settled.to_b) == settle_with_calls(
        funded.terms, body, values(fixes), DEADLINE, calls, *TOTALS
    )


def test_a_call_is_judged_on_the_body_that_refuted(funded):
    called(funded, book(funded))
    harmless = book(funded, 1)
    funded.world.adjudicator.refute(funded.id, *funded.sign_state(4, harmless))
    d = fix_time(funded.terms, DEADLINE)
    funded.world.chain.set_time(d)
    prove(funded, L, 2900)
    with refused("BodyNotOnRecord"):
        funded.test(book(funded))
    assert not funded.test(harmless).below_a


def test_a_solvent_partys_own_call_costs_nobody_anything(funded):
    body = book(funded, 1)
    time = called(funded, body, sender=PAYOUTS[0])
    d = fix_time(funded.terms, DEADLINE)
    funded.world.chain.set_time(d)
    fixes = prove(funded, time, 3100) | prove(funded, d, 2950)
    tested = funded.test(body)
    assert (tested.below_a, tested.below_b, tested.penalty) == (False, False, 0)
    settled = funded.settle(body)
    assert (settled.to_a, settled.call) == (950 * ONE, 255)
    assert (
        settled.to_a
        == settle_with_calls(
            funded.terms, body, values(fixes), DEADLINE, [MarginCall(time, verdict_of(tested))], *TOTALS
        )[0]
    )


def test_a_market_that_is_none_of_the_terms_voids_the_call_and_locks_nothing(funded):
    body = funded.body(A, B, (perpetual(USD, WAD, WAD),))
    time = called(funded, body)
    d = fix_time(funded.terms, DEADLINE)
    funded.world.chain.set_time(d)
    prove(funded, time, 2, feed=USD)
    prove(funded, d, 2, feed=USD)
    with refused("UnknownMarket"):
        funded.test(body)
    funded.world.chain.set_time(d + funded.terms.oracle.grace)
    assert funded.settle(body).to_a == 1001 * ONE


def test_samples_weigh_in_a_test():
    world = World.make()
    oracle = make_oracle(samples=3, sample_gap=10)
    channel = Channel(world, make_terms(world.token.address, oracle=oracle)).open()
    world.fund(channel.id, 0, 1000 * ONE)
    world.fund(channel.id, 1, 600 * ONE)
    body = book(channel)
    time = called(channel, body)
    world.chain.set_time(DEADLINE)
    from contracts_harness import ORACLE_KEYS  # noqa: PLC0415 - only here

    from channeld.core.packages import DataPoint, sign_package  # noqa: PLC0415 - only here

    packages = [
        sign_package(key, (time - 10 * i) * 1000, [DataPoint(ETH, (2500 + i) * 10**8)])
        for i in range(3)
        for key in ORACLE_KEYS
    ]
    assert world.book.prove_fix(oracle, ETH, time, b"".join(packages[:8])) == (2501 * WAD, 8)
    assert (channel.test(body).weight, channel.margin_call().complete) == (8, False)
    world.book.prove_fix(oracle, ETH, time, b"".join(packages))
    assert (channel.test(body).weight, channel.margin_call().complete) == (9, True)
