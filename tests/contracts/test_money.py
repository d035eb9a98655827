"""`deposit`, `withdraw`, `close` and `claim`: what moves, and what is refused."""

from contracts_harness import KEEPER, NOW, PAYOUTS, Account, Channel, make_terms, refused

from channeld.core import eip712

ONE = 1_000_000


def paid(channel):
    return tuple(channel.world.token.balanceOf(payout) for payout in PAYOUTS)


# -------------------------------------------------------------------------------------------------------------- deposit


def test_anyone_deposits_for_a_party_in_steps(channel):
    first = channel.world.fund(channel.id, 0, 5 * ONE)
    assert (first.party, first.received, first.deposited_a, first.deposited_b) == (0, 5 * ONE, 5 * ONE, 0)
    assert first.caller == "0x" + KEEPER.hex()
    channel.world.fund(channel.id, 0, ONE)
    last = channel.world.fund(channel.id, 1, 3 * ONE, caller=b"\x12" * 20)
    assert (last.party, last.received, last.deposited_a, last.deposited_b) == (1, 3 * ONE, 6 * ONE, 3 * ONE)
    assert (channel.record.deposited_a, channel.record.deposited_b) == (6 * ONE, 3 * ONE)
    assert channel.world.token.balanceOf(channel.world.adjudicator.address) == 9 * ONE


def test_a_deposit_waits_for_the_other_partys(channel):
    with refused("OtherDepositMissing"):
        channel.world.fund(channel.id, 1, ONE, at_least=1)
    channel.world.fund(channel.id, 0, 5)
    with refused("OtherDepositMissing"):
        channel.world.fund(channel.id, 1, ONE, at_least=6)
    channel.world.fund(channel.id, 1, ONE, at_least=5)
    with refused("OtherDepositMissing"):
        channel.world.fund(channel.id, 0, ONE, at_least=ONE + 1)
    channel.world.fund(channel.id, 0, ONE, at_least=ONE)


def test_deposits_that_are_refused(channel):
    world = channel.world
    with refused("UnknownChannel"):
        world.fund(b"\x01" * 32, 0, ONE)
    with refused("InvalidParty"):
        world.fund(channel.id, 2, ONE)
    with refused("NothingReceived"):
        world.fund(channel.id, 0, 0)
    with refused("allowance too low"):
        world.adjudicator.deposit(channel.id, 0, ONE, 0, sender=b"\x13" * 20)


def test_deposits_of_both_stay_within_128_bits(channel):
    channel.world.fund(channel.id, 0, 2**127)
    with refused("DepositTooLarge"):
        channel.world.fund(channel.id, 1, 2**127)
    with refused("DepositTooLarge"):
        channel.world.fund(channel.id, 1, 2**255)
    channel.world.fund(channel.id, 1, 2**127 - 1)
    record = channel.record
    assert record.deposited_a + record.deposited_b == 2**128 - 1
    channel.world.adjudicator.close(*channel.sign_close(1, Account(), Account()))
    assert paid(channel) == (2**127, 2**127 - 1)


def test_one_deposit_may_fill_the_128_bits(channel):
    channel.world.fund(channel.id, 1, 2**128 - 1)
    assert channel.record.deposited_b == 2**128 - 1


def test_deposits_are_taken_in_a_dispute_until_the_end(funded):
    challenged = funded.challenge()
    funded.world.chain.set_time(challenged.deadline + 1000)
    funded.world.fund(funded.id, 1, ONE)
    settled = funded.settle(funded.genesis)
    assert (settled.to_a, settled.to_b) == (1000 * ONE, 601 * ONE)
    with refused("ChannelEnded"):
        funded.world.fund(funded.id, 1, ONE)


# ------------------------------------------------------------------------------------------------------------- withdraw


def test_a_withdrawal_pays_the_difference_and_raises_the_floor(funded):
    adjudicator = funded.world.adjudicator
    value, sigs = funded.sign_withdrawal(3, 10 * ONE, 0)
    adjudicator.withdraw(value, sigs)
    event = adjudicator.event("Withdrawn")
    assert (event.channel, event.to_a, event.to_b, event.sigs) == (funded.id, 10 * ONE, 0, sigs)
    assert event.withdrawal == (funded.id, 3, value.body_hash, 10 * ONE, 0)
    assert (funded.record.floor_version, funded.record.floor_hash) == (3, value.body_hash)
    adjudicator.withdraw(*funded.sign_withdrawal(4, 12 * ONE, 7, b"\x08" * 32))
    assert paid(funded) == (12 * ONE, 7)
    assert (funded.record.paid_a, funded.record.paid_b) == (12 * ONE, 7)
    # the earlier one again: nothing to pay, and the floor stays
    adjudicator.withdraw(value, sigs)
    assert paid(funded) == (12 * ONE, 7)
    assert (funded.record.floor_version, funded.record.floor_hash) == (4, b"\x08" * 32)
    # two bodies of one version were never to be signed; the floor that stands, stands
    adjudicator.withdraw(*funded.sign_withdrawal(4, 0, 0, b"\x09" * 32))
    assert funded.record.floor_hash == b"\x08" * 32


def test_withdrawals_that_are_refused(funded):
    adjudicator = funded.world.adjudicator
    value, sigs = funded.sign_withdrawal(1, 0, 1600 * ONE + 1)
    with refused("PotShort"):
        adjudicator.withdraw(value, sigs)
    value, sigs = funded.sign_withdrawal(1, 5, 5)
    with refused("SignaturesMissing"):
        adjudicator.withdraw(value, sigs[:129])
    with refused("InvalidSignatureA"):
        adjudicator.withdraw(value, sigs[65:] + sigs[:65])
    with refused("InvalidSignatureB"):
        adjudicator.withdraw(value, sigs[:65] + sigs[:65])
    with refused("InvalidSignatureA"):
        adjudicator.withdraw(eip712.Withdrawal(funded.id, 1, value.body_hash, 5, 6), sigs)
    with refused("UnknownChannel"):
        adjudicator.withdraw(eip712.Withdrawal(b"\x01" * 32, 1, value.body_hash, 5, 5), sigs)
    funded.challenge()
    with refused("InDispute"):
        adjudicator.withdraw(value, sigs)
    adjudicator.close(*funded.sign_close(0, Account(), Account()))
    with refused("ChannelEnded"):
        adjudicator.withdraw(value, sigs)


def test_the_whole_pot_can_be_withdrawn_and_filled_again(funded):
    adjudicator = funded.world.adjudicator
    adjudicator.withdraw(*funded.sign_withdrawal(1, 1600 * ONE, 0))
    assert paid(funded) == (1600 * ONE, 0)
    with refused("PotShort"):
        adjudicator.withdraw(*funded.sign_withdrawal(2, 1600 * ONE, 1))
    funded.world.fund(funded.id, 0, 1)
    adjudicator.withdraw(*funded.sign_withdrawal(2, 1600 * ONE, 1))
    assert paid(funded) == (1600 * ONE, 1)


def test_one_channels_signatures_do_not_serve_another(funded):
    other = Channel(funded.world, make_terms(funded.world.token.address, salt=b"\x5b" * 32)).open()
    funded.world.fund(other.id, 0, ONE)
    value, sigs = funded.sign_withdrawal(1, 5, 0)
    with refused("InvalidSignatureA"):
        funded.world.adjudicator.withdraw(eip712.Withdrawal(other.id, 1, value.body_hash, 5, 0), sigs)


# ---------------------------------------------------------------------------------------------------------------- close


def test_a_close_pays_what_was_signed_and_ends_the_channel(funded):
    adjudicator = funded.world.adjudicator
    a, b = Account(900 * ONE, 1000 * ONE, 0), Account(700 * ONE, 600 * ONE, 0)
    value, sigs = funded.sign_close(17, a, b)
    adjudicator.close(value, sigs)
    event = adjudicator.event("Closed")
    assert (event.to_a, event.to_b, event.sigs) == (900 * ONE, 700 * ONE, sigs)
    assert event.close == (funded.id, 17, NOW, (900 * ONE, 1000 * ONE, 0), (700 * ONE, 600 * ONE, 0))
    assert paid(funded) == (900 * ONE, 700 * ONE)
    assert funded.record.phase == 3
    assert funded.record.paid_a + funded.record.paid_b == 1600 * ONE
    with refused("ChannelEnded"):
        adjudicator.close(value, sigs)


def test_what_was_not_acknowledged_belongs_to_its_depositor(funded):
    # the parties acknowledged 10 of a's deposits, and none of b's; 3 units withdrawn in the state were never paid
    a, b = Account(4, 10, 3), Account(3, 0, 0)
    funded.world.adjudicator.close(*funded.sign_close(1, a, b))
    assert paid(funded) == (1000 * ONE - 3, 600 * ONE + 3)


def test_a_close_overrides_a_dispute_at_any_time(funded):
    one, other = Account(1000 * ONE, 1000 * ONE, 0), Account(600 * ONE, 600 * ONE, 0)
    challenged = funded.challenge(5, funded.body(one, other))
    with refused("BelowRecord"):
        funded.world.adjudicator.close(*funded.sign_close(4, one, other))
    funded.world.chain.set_time(challenged.deadline + 10**6)
    funded.world.adjudicator.close(*funded.sign_close(5, one, other))
    assert paid(funded) == (1000 * ONE, 600 * ONE)
    assert funded.dispute.deadline == 0


def test_closes_that_are_refused(funded):
    adjudicator = funded.world.adjudicator
    a, b = Account(1000 * ONE, 1000 * ONE, 0), Account(600 * ONE, 600 * ONE, 0)
    with refused("CloseExpired"):
        adjudicator.close(*funded.sign_close(9, a, b, NOW - 1))
    value, sigs = funded.sign_close(9, a, b)
    with refused("SignaturesMissing"):
        adjudicator.close(value, b"")
    with refused("InvalidSignatureB"):
        adjudicator.close(value, sigs[:65] + sigs[:65])
    forged = eip712.Close(funded.id, 9, NOW, Account(1000 * ONE + 1, 1000 * ONE, 0), b)
    with refused("InvalidSignatureA"):
        adjudicator.close(forged, sigs)
    adjudicator.withdraw(*funded.sign_withdrawal(10, 0, 0))
    with refused("BelowFloor"):
        adjudicator.close(value, sigs)
    with refused("UnknownChannel"):
        adjudicator.close(eip712.Close(b"\x01" * 32, 9, NOW, a, b), sigs)


def test_a_claim_needs_something_held(world):
    with refused("NothingHeld"):
        world.adjudicator.claim(world.token.address, KEEPER)
