"""`settle_last` and `release`: the ways out where nobody shows the body on record. Nothing is ever locked."""

import pytest
from contracts_harness import ETH, KEEPER, NOW, PAYOUTS, Account, perpetual, refused

from channeld.core import eip712
from channeld.core.settlement import fix_time, release_amounts, settle_amounts
from channeld.core.wad import DAY, WAD

ONE = 1_000_000
DEADLINE = NOW + 86_400
HIDDEN = 9


def state(channel, moved, positions=()):
    """A body in which a has paid b some tokens."""
    a, b = Account((1000 - moved) * ONE, 1000 * ONE, 0), Account((600 + moved) * ONE, 600 * ONE, 0)
    return channel.body(a, b, positions)


@pytest.fixture
def hidden(funded):
    """A dispute on a version whose body nobody shows, at the time when settle_last opens."""
    funded.world.adjudicator.anchor(funded.id, *funded.sign_state(3, state(funded, 3)))
    funded.challenge(HIDDEN, state(funded, 500))
    funded.world.chain.set_time(opens(funded))
    return funded


def opens(channel):
    return fix_time(channel.terms, DEADLINE) + 2 * channel.terms.oracle.grace


def show(channel, version, body, sigs=None, name="Shown"):
    if sigs is None:
        sigs = channel.sign_state(version, body)[2]
    channel.world.adjudicator.settle_last(channel.terms, version, body, sigs)
    return channel.world.adjudicator.event(name)


def test_a_body_shown_opens_a_window_and_is_paid_after_it(hidden):
    body = state(hidden, 50)
    now, grace = hidden.world.chain.now, hidden.terms.oracle.grace
    shown = show(hidden, 5, body)
    assert (shown.channel, shown.dispute, shown.version, shown.window_end) == (hidden.id, 1, 5, now + grace)
    assert (shown.body_hash, shown.caller) == (eip712.body_hash(body), "0x" + KEEPER.hex())
    assert shown.sigs == hidden.sign_state(5, body)[2]
    dispute = hidden.dispute
    assert (dispute.shown_version, dispute.shown_hash, dispute.window_end) == (5, shown.body_hash, now + grace)
    assert (dispute.version, dispute.deadline) == (HIDDEN, DEADLINE)
    hidden.world.chain.set_time(now + grace - 1)
    with refused("VersionNotHigher"):
        show(hidden, 5, body)
    hidden.world.chain.set_time(now + grace)
    settled = show(hidden, 5, body, b"", "Settled")
    assert (settled.version, settled.body_hash, settled.call, settled.penalty) == (5, shown.body_hash, 255, 0)
    assert (settled.to_a, settled.to_b) == (950 * ONE, 650 * ONE)
    assert settled.fix_time == fix_time(hidden.terms, DEADLINE)
    assert hidden.record.phase == 3
    with refused("ChannelEnded"):
        show(hidden, 5, body)


def test_higher_versions_replace_in_the_window_and_do_not_move_its_end(hidden):
    end = show(hidden, 4, state(hidden, 40)).window_end
    hidden.world.chain.set_time(end - 1)
    # above the record too: it is co-signed, and nobody came with it before
    for version in (5, HIDDEN + 1):
        assert show(hidden, version, state(hidden, version)).window_end == end
    for lower in (4, 5, HIDDEN + 1):
        with refused("VersionNotHigher"):
            show(hidden, lower, state(hidden, lower))
    hidden.world.chain.set_time(end)
    for version, body in ((HIDDEN + 2, state(hidden, 11)), (5, state(hidden, 5)), (HIDDEN + 1, state(hidden, 5))):
        with refused("BodyNotShown"):
            show(hidden, version, body)
    assert show(hidden, HIDDEN + 1, state(hidden, HIDDEN + 1), b"", "Settled").to_a == 990 * ONE


def test_the_floors_own_body_needs_no_signatures(hidden):
    with refused("BelowFloor"):
        show(hidden, 2, state(hidden, 2))
    with refused("BodyNotOnRecord"):
        show(hidden, 3, state(hidden, 4), b"")
    shown = show(hidden, 3, state(hidden, 3), b"junk")
    assert (shown.version, shown.sigs) == (3, b"")
    hidden.world.chain.set_time(shown.window_end)
    assert show(hidden, 3, state(hidden, 3), b"", "Settled").to_a == 997 * ONE


def test_the_implicit_body_is_the_floor_of_a_channel_without_one(funded):
    funded.challenge(HIDDEN, state(funded, 500))
    funded.world.chain.set_time(opens(funded))
    end = show(funded, 0, funded.genesis, b"").window_end
    funded.world.chain.set_time(end)
    settled = show(funded, 0, funded.genesis, b"", "Settled")
    assert (settled.version, settled.to_a, settled.to_b) == (0, 1000 * ONE, 600 * ONE)


def test_settle_last_waits_for_twice_the_grace(funded):
    with refused("NotInDispute"):
        show(funded, 5, state(funded, 5))
    funded.challenge(HIDDEN, state(funded, 500))
    funded.world.chain.set_time(opens(funded) - 1)
    with refused("LastNotReached"):
        show(funded, 5, state(funded, 5))
    funded.world.chain.set_time(opens(funded))
    body = state(funded, 5)
    sigs = funded.sign_state(5, body)[2]
    with refused("SignaturesMissing"):
        show(funded, 5, body, b"")
    with refused("InvalidSignatureA"):
        show(funded, 6, body, sigs)
    with refused("InvalidSignatureB"):
        show(funded, 5, body, sigs[:65] * 2)
    assert show(funded, 5, body).version == 5


def test_the_body_on_record_wins_until_payment(hidden):
    end = show(hidden, 5, state(hidden, 50)).window_end
    hidden.world.chain.set_time(end + 1000)
    assert hidden.settle(state(hidden, 500)).to_a == 500 * ONE
    with refused("ChannelEnded"):
        show(hidden, 5, state(hidden, 50), b"")


def test_the_body_on_record_can_be_shown_there_too(hidden):
    body = state(hidden, 500)
    end = show(hidden, HIDDEN, body).window_end
    hidden.world.chain.set_time(end)
    assert show(hidden, HIDDEN, body, b"", "Settled").to_a == 500 * ONE


def test_settle_last_pays_at_the_fixes_for_d_and_knows_no_margin_call(funded):
    body = state(funded, 0, (perpetual(ETH, 2 * WAD, 3000 * WAD),))
    funded.call_margin(HIDDEN, state(funded, 500))
    d = fix_time(funded.terms, DEADLINE)
    funded.world.chain.set_time(opens(funded))
    with funded.world.chain.anchored():
        # no fix at all: at the marks
        funded.world.chain.set_time(show(funded, 5, body).window_end)
        settled = show(funded, 5, body, b"", "Settled")
        assert (settled.complete, settled.profit, settled.to_a) == (False, 0, 1000 * ONE)
    value, _ = funded.world.prove(funded.terms, ETH, d, [2800 * 10**8] * 3)
    funded.world.prove(funded.terms, ETH, funded.margin_call().time, [2000 * 10**8] * 3)
    funded.world.chain.set_time(show(funded, 5, body).window_end)
    settled = show(funded, 5, body, b"", "Settled")
    assert (settled.call, settled.complete, settled.fix_time) == (255, True, d)
    assert (settled.to_a, settled.to_b) == settle_amounts(
        funded.terms, body, {(ETH, d): value}, d, 1000 * ONE, 600 * ONE, 0, 0
    )


def test_a_close_ends_it_at_any_time(hidden):
    show(hidden, 5, state(hidden, 50))
    hidden.world.adjudicator.close(*hidden.sign_close(HIDDEN, Account(1, 1000 * ONE, 0), Account()))
    assert hidden.world.token.balanceOf(PAYOUTS[0]) == 1


# -------------------------------------------------------------------------------------------------------------- release


def test_after_180_days_everybody_gets_its_deposits_back(hidden):
    d = fix_time(hidden.terms, DEADLINE)
    hidden.world.fund(hidden.id, 1, 5 * ONE)
    hidden.world.chain.set_time(d + 180 * DAY - 1)
    with refused("ReleaseNotReached"):
        hidden.world.adjudicator.release(hidden.terms)
    hidden.world.chain.set_time(d + 180 * DAY)
    hidden.world.adjudicator.release(hidden.terms)
    event = hidden.world.adjudicator.event("Released")
    assert (event.channel, event.dispute, event.caller) == (hidden.id, 1, "0x" + KEEPER.hex())
    assert (event.to_a, event.to_b) == release_amounts(1000 * ONE, 605 * ONE, 0, 0) == (1000 * ONE, 605 * ONE)
    assert [hidden.world.token.balanceOf(p) for p in PAYOUTS] == [1000 * ONE, 605 * ONE]
    assert hidden.record.phase == 3
    with refused("ChannelEnded"):
        hidden.world.adjudicator.release(hidden.terms)


@pytest.mark.parametrize(("paid_a", "paid_b"), [(300, 0), (1300, 0), (0, 900), (1600, 0), (0, 0)])
def test_what_was_paid_is_counted_and_the_pot_is_the_limit(funded, paid_a, paid_b):
    funded.world.adjudicator.withdraw(*funded.sign_withdrawal(2, paid_a * ONE, paid_b * ONE))
    funded.challenge(HIDDEN, state(funded, 500))
    funded.world.chain.set_time(fix_time(funded.terms, DEADLINE) + 180 * DAY)
    funded.world.adjudicator.release(funded.terms)
    event = funded.world.adjudicator.event("Released")
    expected = release_amounts(1000 * ONE, 600 * ONE, paid_a * ONE, paid_b * ONE)
    assert (event.to_a, event.to_b) == expected
    assert sum(expected) == (1600 - paid_a - paid_b) * ONE


def test_no_release_once_a_body_was_shown(hidden):
    body = state(hidden, 50)
    show(hidden, 5, body)
    hidden.world.chain.set_time(fix_time(hidden.terms, DEADLINE) + 180 * DAY)
    with refused("BodyShown"):
        hidden.world.adjudicator.release(hidden.terms)
    assert show(hidden, 5, body, b"", "Settled").to_a == 950 * ONE


def test_a_window_opened_in_the_last_second_holds_the_release_up(hidden):
    hidden.world.chain.set_time(fix_time(hidden.terms, DEADLINE) + 180 * DAY)
    end = show(hidden, 5, state(hidden, 50)).window_end
    with refused("BodyShown"):
        hidden.world.adjudicator.release(hidden.terms)
    hidden.world.chain.set_time(end)
    show(hidden, 5, state(hidden, 50), b"", "Settled")


def test_release_is_for_disputes_alone(funded):
    funded.world.chain.advance(10_000 * DAY)
    with refused("NotInDispute"):
        funded.world.adjudicator.release(funded.terms)
