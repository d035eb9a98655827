"""Tokens that misbehave: no payout reverts the whole, nobody takes what is another channel's, no call back gets in."""

import pytest
from contracts_harness import PAYOUTS, Account, Channel, Reverted, World, make_terms, refused

ONE = 1_000_000
PLAIN, SILENT, REFUSES, DENIES, FEE, CALLS_BACK, BLOCKS, BOMBS, BURNS_GAS, ANSWERS_HEAP = range(10)
NOBODY = b"\0" * 20


def odd(mode: int = PLAIN, decimals: int = 6) -> Channel:
    """A channel on an odd token: a has 1000, b 600, and another channel on the same token holds 5000 more."""
    world = World.make("OddToken", (decimals, PLAIN))
    other = Channel(world, make_terms(world.token.address, decimals=decimals, salt=b"\x0f" * 32)).open()
    world.fund(other.id, 0, 5000 * ONE)
    channel = Channel(world, make_terms(world.token.address, decimals=decimals)).open()
    world.token.set_mode(mode, NOBODY, b"")
    world.fund(channel.id, 0, 1000 * ONE)
    world.fund(channel.id, 1, 600 * ONE)
    return channel


def balances(channel):
    token, adjudicator = channel.world.token, channel.world.adjudicator
    return (
        *(token.balanceOf(payout) for payout in PAYOUTS),
        *(adjudicator.held(token.address, payout) for payout in PAYOUTS),
    )


def close(channel):
    channel.world.adjudicator.close(*channel.sign_close(5, Account(), Account()))
    return balances(channel)


@pytest.mark.parametrize("mode", [SILENT, DENIES, ANSWERS_HEAP])
def test_tokens_that_move_are_believed_whatever_they_say(mode):
    channel = odd(mode)
    assert close(channel) == (1000 * ONE, 600 * ONE, 0, 0)


@pytest.mark.parametrize("decimals", [6, 8, 18])
def test_decimals(decimals):
    assert close(odd(decimals=decimals)) == (1000 * ONE, 600 * ONE, 0, 0)


def test_a_fee_is_the_payees_and_never_another_channels():
    channel = odd(FEE)
    record = channel.record
    assert (record.deposited_a, record.deposited_b) == (990 * ONE, 594 * ONE)
    assert close(channel) == (990 * ONE * 99 // 100, 594 * ONE * 99 // 100, 0, 0)
    assert channel.world.token.balanceOf(channel.world.adjudicator.address) == 5000 * ONE


def test_a_deposit_that_does_not_arrive_is_refused():
    channel = odd()
    channel.world.token.set_mode(REFUSES, NOBODY, b"")
    with refused("NothingReceived"):
        channel.world.fund(channel.id, 0, ONE)


def test_a_transfer_that_answers_false_is_held_for_both():
    channel = odd()
    channel.world.token.set_mode(REFUSES, NOBODY, b"")
    assert close(channel) == (0, 0, 1000 * ONE, 600 * ONE)
    with refused("TransferFailed"):
        channel.world.adjudicator.claim(channel.world.token.address, PAYOUTS[0], sender=PAYOUTS[0])
    channel.world.token.set_mode(PLAIN, NOBODY, b"")
    elsewhere = b"\x31" * 20
    channel.world.adjudicator.claim(channel.world.token.address, elsewhere, sender=PAYOUTS[0])
    event = channel.world.adjudicator.event("Claimed")
    assert (event.payee, event.to, event.amount) == ("0x" + PAYOUTS[0].hex(), "0x" + elsewhere.hex(), 1000 * ONE)
    assert balances(channel) == (0, 0, 0, 600 * ONE)
    assert channel.world.token.balanceOf(elsewhere) == 1000 * ONE
    with refused("NothingHeld"):
        channel.world.adjudicator.claim(channel.world.token.address, elsewhere, sender=PAYOUTS[0])


@pytest.mark.parametrize("mode", [BLOCKS, BOMBS, BURNS_GAS])
@pytest.mark.parametrize("blocked", [0, 1])
def test_a_blocked_payee_holds_up_nobody(mode, blocked):
    channel = odd()
    channel.world.token.set_mode(mode, PAYOUTS[blocked], b"")
    expected = [1000 * ONE, 600 * ONE, 0, 0]
    expected[blocked], expected[2 + blocked] = 0, expected[blocked]
    assert close(channel) == tuple(expected)
    held = channel.world.adjudicator.event("Held")
    assert (held.payee, held.amount) == ("0x" + PAYOUTS[blocked].hex(), expected[2 + blocked])


def test_a_withdrawal_to_a_blocked_payee_is_held_too():
    channel = odd()
    channel.world.token.set_mode(BLOCKS, PAYOUTS[0], b"")
    channel.world.adjudicator.withdraw(*channel.sign_withdrawal(1, 7, 5))
    channel.world.adjudicator.withdraw(*channel.sign_withdrawal(2, 9, 5))
    assert balances(channel) == (0, 5, 9, 0)
    assert close(channel) == (0, 600 * ONE, 1000 * ONE, 0)


def test_a_caller_cannot_starve_a_payout_of_gas():
    # whatever the gas sent, either the whole reverts or everybody is paid
    channel = odd()
    value = channel.sign_close(1, Account(), Account())
    reached = set()
    for gas in range(60_000, 800_000, 20_000):
        with channel.world.chain.anchored():
            try:
                channel.world.adjudicator.close(*value, gas=gas)
            except Reverted:
                reached.add("reverted")
                continue
            reached.add("paid")
            assert balances(channel) == (1000 * ONE, 600 * ONE, 0, 0)
    assert reached == {"reverted", "paid"}


def test_a_token_without_code_any_more_is_held():
    channel = odd()
    from pyrevm import AccountInfo  # noqa: PLC0415 - only here

    channel.world.chain.evm.insert_account_info("0x" + channel.world.token.address.hex(), AccountInfo(nonce=1))
    channel.world.adjudicator.close(*channel.sign_close(1, Account(), Account()))
    held = [channel.world.adjudicator.held(channel.world.token.address, payout) for payout in PAYOUTS]
    assert held == [1000 * ONE, 600 * ONE]


def test_no_entry_point_can_be_re_entered():
    channel = odd()
    adjudicator, token = channel.world.adjudicator, channel.world.token
    body = channel.body(Account(1000 * ONE, 1000 * ONE, 0), Account(600 * ONE, 600 * ONE, 0))
    second = make_terms(token.address, salt=b"\x5c" * 32)
    entries = {
        "open": (second,),
        "deposit": (channel.id, 0, 1, 0),
        "withdraw": channel.sign_withdrawal(1, 1, 0),
        "close": channel.sign_close(2, Account(), Account()),
        "challenge": (channel.id, *channel.sign_state(2, body)),
        "refute": (channel.id, *channel.sign_state(2, body)),
        "deposit_with_permit": (channel.id, 0, 1, 0, 0, 27, b"\1" * 32, b"\1" * 32),
        "anchor": (channel.id, *channel.sign_state(2, body)),
        "anchor_many": ([(channel.id, *channel.sign_state(2, body))],),
        "call_margin": (channel.id, *channel.sign_state(2, body)),
        "resume": channel.sign_resume(1),
        "test": (channel.terms, body, 0),
        "settle": (channel.terms, body),
        "settle_last": (channel.terms, 0, channel.genesis, b""),
        "release": (channel.terms,),
        "claim": (token.address, PAYOUTS[0]),
        "channel_record": (channel.id,),
        "dispute_record": (channel.id,),
        "held": (token.address, PAYOUTS[0]),
        "margin_call": (channel.id, 1, 0),
    }
    assert set(entries) | {"RISK_ENGINE", "FIX_BOOK", "RULES", "DOMAIN_SEPARATOR"} == set(adjudicator.functions)
    for name, args in entries.items():
        with channel.world.chain.anchored():
            token.set_mode(CALLS_BACK, adjudicator.address, adjudicator.calldata(name, *args))
            adjudicator.withdraw(*channel.sign_withdrawal(3, 5, 0))
            assert token.called_back()
            assert not token.call_succeeded(), name
            assert balances(channel) == (5, 0, 0, 0)
    # and in a deposit
    token.set_mode(CALLS_BACK, adjudicator.address, adjudicator.calldata("held", token.address, PAYOUTS[0]))
    channel.world.fund(channel.id, 0, 7)
    assert not token.call_succeeded()
    assert channel.record.deposited_a == 1000 * ONE + 7


def test_tokens_given_back_in_a_call_back_are_not_paid_twice():
    # the payee sends its payout back from inside the transfer, so that the balance never seems to fall
    channel = odd()
    token, adjudicator = channel.world.token, channel.world.adjudicator
    token.set_mode(CALLS_BACK, token.address, token.calldata("mint", adjudicator.address, 10**9))
    channel.world.adjudicator.withdraw(*channel.sign_withdrawal(1, 5, 0))
    assert balances(channel) == (5, 0, 0, 0)
