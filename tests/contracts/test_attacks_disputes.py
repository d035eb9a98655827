"""The cheater, part two: margin calls, hidden bodies, griefing, tokens that call back. See docs/attacks.md."""

import dataclasses

import pytest
from attack_support import (
    CHEATER,
    HONEST,
    NO_STATE,
    ONE,
    SIGNER_B,
    USUAL,
    A,
    B,
    call_margin,
    moved,
    paid,
    prove,
    shown,
    to_settlement,
)
from contracts_harness import (
    ETH,
    KEEPER,
    NOW,
    PAYOUTS,
    Account,
    Channel,
    World,
    make_terms,
    perpetual,
    refused,
)

from channeld.core import eip712
from channeld.core.settlement import fix_time
from channeld.core.wad import DAY, WAD


@pytest.fixture
def court(funded):
    """The Adjudicator."""
    return funded.world.adjudicator


# --- margin calls ----------------------------------------------------------------------------------------------------


def judged(channel, body, price, *, sender=HONEST, state=None):
    """A margin call on a body, tested at a price and settled there or at the usual one; the settlement's event."""
    call = call_margin(channel, state or channel.sign_state(1, body), sender)
    d = to_settlement(channel)
    prove(channel, call, price)
    prove(channel, d)
    channel.world.adjudicator.test(channel.terms, body, 0)
    return channel.settle(body)


# long 1 ETH: scan 10%, so that maintenance is 2 * 10% * 35%, or a tenth, of the price: 300 at 3000
LONG = (perpetual(ETH, WAD, 3000 * WAD),)


def test_a_margin_call_on_a_solvent_party_costs_it_nothing(funded):
    settled = judged(funded, moved(funded, 0, LONG), 2900 * 10**8, sender=CHEATER)
    assert (settled.penalty, settled.call, settled.profit) == (0, 255, 0)
    assert paid(funded) == (1000 * ONE, 600 * ONE)


def test_a_margin_call_on_a_party_in_default_closes_it_out_there(funded):
    settled = judged(funded, moved(funded, 0, LONG), 2150 * 10**8)
    # a has 150 and needs 215 or so; b gains 850 and the penalty of 3% of what a needs
    assert (settled.call, settled.profit) == (0, -850 * ONE)
    assert -7 * ONE < settled.penalty < -6 * ONE
    assert settled.to_a == 150 * ONE + settled.penalty


def test_a_self_serving_margin_call_judges_its_caller_too(funded):
    # the cheater, short and ruined at L, calls hoping for a close-out at that fix: it is its own default
    settled = judged(funded, moved(funded, 0, LONG), 3500 * 10**8, sender=CHEATER)
    assert (settled.call, settled.profit) == (0, 500 * ONE)
    assert settled.penalty > 0
    assert paid(funded) == (1500 * ONE + settled.penalty, 100 * ONE - settled.penalty)


def test_a_margin_call_cannot_name_a_time_that_is_known(funded):
    cure = funded.terms.cure_period
    call = call_margin(funded, NO_STATE, CHEATER)
    assert call >= NOW + cure
    # nor can one be added for each moment: one at a time, four in all
    for n in range(4):
        with refused("CallPending"):
            call_margin(funded, NO_STATE, SIGNER_B)
        funded.world.chain.set_time(call + 1)
        if n < 3:
            call = call_margin(funded, NO_STATE, SIGNER_B)
    with refused("TooManyCalls"):
        call_margin(funded, NO_STATE, CHEATER)
    assert call_margin(funded, NO_STATE, HONEST) > call
    with refused("NotAParty"):
        call_margin(funded, NO_STATE, KEEPER)


def test_a_margin_call_by_a_superseded_state_is_judged_on_the_last(funded, court):
    ruined, even = moved(funded, 990 * ONE, LONG), moved(funded, 0)
    call = call_margin(funded, funded.sign_state(1, ruined), CHEATER)
    court.refute(funded.id, *funded.sign_state(2, even), sender=HONEST)
    assert court.margin_call(funded.id, 1, 0).time == call
    to_settlement(funded)
    prove(funded, call)
    with refused("BodyNotOnRecord"):
        court.test(funded.terms, ruined, 0)
    court.test(funded.terms, even, 0)
    settled = funded.settle(even)
    assert (settled.penalty, settled.to_a) == (0, 1000 * ONE)


def test_a_deposit_after_the_time_of_a_call_does_not_cure_it(funded, court):
    body = moved(funded, 0, LONG)
    call = call_margin(funded, funded.sign_state(1, body))
    d = to_settlement(funded)
    prove(funded, call, 2150 * 10**8)
    prove(funded, d)
    funded.world.fund(funded.id, 0, 5000 * ONE)
    court.test(funded.terms, body, 0)
    settled = funded.settle(body)
    assert settled.penalty < 0
    # and it is its depositor's all the same
    assert settled.to_a == 5150 * ONE + settled.penalty


def test_a_deposit_in_the_block_of_the_call_cures_it(funded, court):
    body = moved(funded, 0, LONG)
    call = call_margin(funded, funded.sign_state(1, body))
    funded.world.chain.set_time(call)
    funded.world.fund(funded.id, 0, 100 * ONE)
    d = to_settlement(funded)
    prove(funded, call, 2150 * 10**8)
    prove(funded, d)
    court.test(funded.terms, body, 0)
    assert funded.settle(body).penalty == 0


def test_a_verdict_by_light_fixes_gives_way_to_the_heavier(funded, court):
    body = moved(funded, 0, LONG)
    call = call_margin(funded, funded.sign_state(1, body), CHEATER)
    d = to_settlement(funded)
    prove(funded, d)
    shown(funded, call, [1500 * 10**8, 1500 * 10**8, 1500 * 10**8], [0, 1])
    court.test(funded.terms, body, 0, sender=CHEATER)
    assert court.margin_call(funded.id, 1, 0).below_a
    with refused("CallsUntested"):
        court.settle(funded.terms, body, sender=CHEATER)
    with refused("NotHeavier"):
        court.test(funded.terms, body, 0, sender=CHEATER)
    shown(funded, call, [1500 * 10**8, USUAL, USUAL], [0, 1, 2])
    court.test(funded.terms, body, 0)
    settled = funded.settle(body)
    assert (settled.penalty, settled.call, settled.to_a) == (0, 255, 1000 * ONE)


def test_a_penalty_beyond_the_pot_takes_what_is_there(world):
    terms = make_terms(world.token.address, closeout_penalty=2**64 - 1)
    channel = Channel(world, terms).open()
    world.fund(channel.id, 0, 1000 * ONE)
    world.fund(channel.id, 1, 600 * ONE)
    settled = judged(channel, moved(channel, 0, LONG), 2150 * 10**8)
    assert settled.penalty < -1600 * ONE
    assert paid(channel) == (0, 1600 * ONE)


# --- hiding, blocking, griefing --------------------------------------------------------------------------------------


def test_a_refutation_whose_body_is_never_shown_locks_nothing(funded, court):
    mine, hidden = moved(funded, 0), moved(funded, 1)
    court.challenge(funded.id, *funded.sign_state(4, mine), sender=HONEST)
    funded.world.chain.set_time(funded.dispute.deadline - 1)
    court.refute(funded.id, *funded.sign_state(5, hidden), sender=CHEATER)
    d, grace = fix_time(funded.terms, funded.dispute.deadline), funded.terms.oracle.grace
    funded.world.chain.set_time(d + 2 * grace)
    version, _, sigs = funded.sign_state(4, mine)
    court.settle_last(funded.terms, version, mine, sigs, sender=HONEST)
    # lower ones come too late; the channel is paid by the highest shown
    with refused("VersionNotHigher"):
        court.settle_last(
            funded.terms, 3, moved(funded, 500), funded.sign_state(3, moved(funded, 500))[2], sender=CHEATER
        )
    funded.world.chain.advance(grace)
    with refused("BodyNotShown"):
        court.settle_last(funded.terms, 5, hidden, funded.sign_state(5, hidden)[2], sender=CHEATER)
    court.settle_last(funded.terms, version, mine, b"", sender=HONEST)
    assert paid(funded) == (1000 * ONE, 600 * ONE)


def test_hidden_bodies_are_paid_when_shown_and_released_when_not(funded, court):
    hidden = moved(funded, 300 * ONE)
    court.challenge(funded.id, *funded.sign_state(5, hidden), sender=CHEATER)
    d, grace = fix_time(funded.terms, funded.dispute.deadline), funded.terms.oracle.grace
    with funded.world.chain.anchored():
        # nobody ever shows anything: everybody's own deposits come back
        funded.world.chain.set_time(d + 180 * DAY)
        court.release(funded.terms, sender=HONEST)
        assert paid(funded) == (1000 * ONE, 600 * ONE)
    # the floor's own body opens the window for whoever has nothing else, and keeps `release` shut
    funded.world.chain.set_time(d + 180 * DAY - 1)
    court.settle_last(funded.terms, 0, funded.genesis, b"", sender=HONEST)
    funded.world.chain.advance(1)
    with refused("BodyShown"):
        court.release(funded.terms)
    # the body on record wins until payment
    with funded.world.chain.anchored():
        court.settle(funded.terms, hidden)
        assert paid(funded) == (700 * ONE, 900 * ONE)
    funded.world.chain.advance(grace)
    court.settle_last(funded.terms, 0, funded.genesis, b"")
    assert paid(funded) == (1000 * ONE, 600 * ONE)


def test_a_floor_raised_in_front_of_a_challenge_does_not_stop_it(funded, court):
    mine = funded.sign_state(4, moved(funded, 4))
    for front, expected in ((3, 4), (4, 4), (5, 5)):
        for way in ("anchor", "withdraw"):
            with funded.world.chain.anchored():
                body = moved(funded, front)
                if way == "anchor":
                    court.anchor(funded.id, *funded.sign_state(front, body), sender=CHEATER)
                else:
                    court.withdraw(*funded.sign_withdrawal(front, 0, 0, eip712.body_hash(body)), sender=CHEATER)
                court.challenge(funded.id, *mine, sender=HONEST)
                assert funded.dispute.version == expected
                to_settlement(funded)
                assert funded.settle(moved(funded, expected)).to_a == 1000 * ONE - expected


def test_an_opening_that_is_front_run_changes_nothing(world):
    channel = Channel(world, make_terms(world.token.address))
    world.adjudicator.open(channel.terms, sender=CHEATER)
    with refused("AlreadyOpened"):
        world.adjudicator.open(channel.terms, sender=HONEST)
    record = channel.record
    assert (record.phase, record.payout_a, record.payout_b) == (1, *("0x" + p.hex() for p in PAYOUTS))
    # with anything changed it is another channel, and nobody deposits there
    changed = dataclasses.replace(channel.terms, a=dataclasses.replace(channel.terms.a, payout=CHEATER))
    assert world.adjudicator.open(changed, sender=CHEATER) != channel.id
    world.fund(channel.id, 0, ONE)
    channel.challenge()
    to_settlement(channel)
    assert channel.settle(channel.genesis).to_a == ONE


def test_dust_deposits_stop_and_shift_nothing(funded, court):
    body = moved(funded, 0, LONG)
    call = call_margin(funded, funded.sign_state(1, body))
    for time in (NOW + 1, call - 1, call, call + 1, call + 2, funded.dispute.deadline + 5):
        funded.world.chain.set_time(time)
        for party in (0, 1):
            funded.world.fund(funded.id, party, 1, caller=KEEPER, at_least=600 * ONE)
            assert funded.world.chain.gas_used < 150_000
    # each snapshot has what came up to L: three units
    found = court.margin_call(funded.id, 1, 0)
    assert (found.deposited_a, found.deposited_b) == (1000 * ONE + 3, 600 * ONE + 3)
    d = to_settlement(funded)
    prove(funded, call, 2900 * 10**8)
    prove(funded, d)
    court.test(funded.terms, body, 0)
    funded.settle(body)
    assert paid(funded) == (1000 * ONE + 6, 600 * ONE + 6)


CALLS_BACK, PLAIN, REFUSES = 5, 0, 2


def test_no_call_that_a_token_makes_back_gets_in():
    world = World.make("OddToken", (6, PLAIN))
    channel = Channel(world, make_terms(world.token.address)).open()
    world.fund(channel.id, 0, 1000 * ONE)
    world.fund(channel.id, 1, 600 * ONE)
    court, token, body = world.adjudicator, world.token, moved(channel, 0)
    signed = channel.sign_state(1, body)
    # what the cheater would do from inside
    inside = [
        ("withdraw", channel.sign_withdrawal(2, 1600 * ONE, 0)),
        ("close", channel.sign_close(9, Account(1600 * ONE, 0, 0), Account(), NOW + 400 * DAY)),
        ("claim", (token.address, CHEATER)),
        ("deposit", (channel.id, 0, 1, 0)),
        ("challenge", (channel.id, *signed)),
        ("call_margin", (channel.id, *signed)),
        ("anchor", (channel.id, *signed)),
        ("settle", (channel.terms, body)),
        ("settle_last", (channel.terms, 1, body, signed[2])),
        ("release", (channel.terms,)),
        ("channel_record", (channel.id,)),
    ]

    def pays(name):
        """Bring the channel to where `name` makes the Adjudicator call the token, and the call."""
        if name == "deposit":
            token.mint(KEEPER, 5)
            token.approve(court.address, 5, sender=KEEPER)
            return (channel.id, 0, 5, 0), KEEPER
        if name == "withdraw":
            return channel.sign_withdrawal(1, 5, 5), KEEPER
        if name == "close":
            return channel.sign_close(5, A, B), KEEPER
        if name == "claim":
            token.set_mode(REFUSES, CHEATER, b"")
            court.close(*channel.sign_close(5, A, B))
            return (token.address, CHEATER), CHEATER
        channel.challenge(1, body)
        d = fix_time(channel.terms, channel.dispute.deadline)
        if name == "settle":
            world.chain.set_time(d)
            return (channel.terms, body), KEEPER
        if name == "release":
            world.chain.set_time(d + 180 * DAY)
            return (channel.terms,), KEEPER
        world.chain.set_time(d + 2 * channel.terms.oracle.grace)
        court.settle_last(channel.terms, 1, body, signed[2])
        world.chain.advance(channel.terms.oracle.grace)
        return (channel.terms, 1, body, b""), KEEPER

    for outer in ("deposit", "withdraw", "close", "claim", "settle", "settle_last", "release"):
        for name, args in inside:
            with world.chain.anchored():
                sent, sender = pays(outer)
                token.set_mode(CALLS_BACK, court.address, court.calldata(name, *args))
                getattr(court, outer)(*sent, sender=sender)
                assert token.called_back(), outer
                assert not token.call_succeeded(), (outer, name)
