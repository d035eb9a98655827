"""`anchor`, `anchor_many` and `resume`: floors rise by signatures, never fall, and a dispute may end by agreement."""

import pytest
from contracts_harness import KEEPER, NOW, PAYOUTS, Account, Channel, Reverted, make_terms, refused

from channeld.core import eip712

ONE = 1_000_000


def state(channel, version):
    """A signed state in which `version` units have moved."""
    a, b = Account(1000 * ONE - version, 1000 * ONE, 0), Account(600 * ONE + version, 600 * ONE, 0)
    return channel.sign_state(version, channel.body(a, b))


def test_an_anchor_raises_the_floor(funded):
    adjudicator = funded.world.adjudicator
    version, body_hash, sigs = state(funded, 7)
    adjudicator.anchor(funded.id, version, body_hash, sigs)
    event = adjudicator.event("Anchored")
    assert (event.channel, event.version, event.body_hash, event.sigs) == (funded.id, 7, body_hash, sigs)
    assert event.caller == "0x" + KEEPER.hex()
    assert (funded.record.floor_version, funded.record.floor_hash) == (7, body_hash)
    for lower in (7, 6, 0):
        with refused("VersionNotHigher"):
            adjudicator.anchor(funded.id, *state(funded, lower))
    adjudicator.anchor(funded.id, *state(funded, 8))
    challenged = funded.challenge(3)
    assert (challenged.version, challenged.body_hash) == (8, state(funded, 8)[1])


def test_anchors_that_are_refused(funded):
    adjudicator = funded.world.adjudicator
    version, body_hash, sigs = state(funded, 7)
    with refused("SignaturesMissing"):
        adjudicator.anchor(funded.id, version, body_hash, b"")
    with refused("InvalidSignatureA"):
        adjudicator.anchor(funded.id, 8, body_hash, sigs)
    with refused("InvalidSignatureB"):
        adjudicator.anchor(funded.id, version, body_hash, sigs[:65] * 2)
    with refused("UnknownChannel"):
        adjudicator.anchor(b"\x01" * 32, version, body_hash, sigs)
    funded.challenge()
    with refused("InDispute"):
        adjudicator.anchor(funded.id, version, body_hash, sigs)
    adjudicator.close(*funded.sign_close(0, Account(), Account()))
    with refused("ChannelEnded"):
        adjudicator.anchor(funded.id, version, body_hash, sigs)


def test_many_anchors_skip_what_has_no_effect(funded):
    world = funded.world
    others = [Channel(world, make_terms(world.token.address, salt=bytes([i]) * 32)).open() for i in range(1, 4)]
    others[0].challenge()
    others[1].world.adjudicator.close(*others[1].sign_close(0, Account(), Account()))
    unopened = Channel(world, make_terms(world.token.address, salt=b"\x0e" * 32))
    batch = [(c.id, *state(c, 5)) for c in (funded, *others, unopened)]
    batch += [(funded.id, *state(funded, 5)), (funded.id, *state(funded, 4)), (others[2].id, *state(others[2], 9))]
    world.adjudicator.anchor_many(batch)
    anchored = [(e.channel, e.version) for e in world.adjudicator.events if e.name == "Anchored"]
    assert anchored == [(funded.id, 5), (others[2].id, 5), (others[2].id, 9)]
    assert [c.record.floor_version for c in (funded, *others)] == [5, 0, 0, 9]
    # one bad signature reverts the whole
    version, body_hash, sigs = state(funded, 6)
    with refused("InvalidSignatureB"):
        world.adjudicator.anchor_many(
            [(others[2].id, *state(others[2], 10)), (funded.id, version, body_hash, sigs[:65] * 2)]
        )
    assert others[2].record.floor_version == 9


def test_thirty_two_anchors_fit(funded):
    funded.world.adjudicator.anchor_many([(funded.id, *state(funded, i + 1)) for i in range(32)])
    assert funded.record.floor_version == 32
    with pytest.raises(Reverted):
        funded.world.adjudicator.anchor_many([(funded.id, *state(funded, i + 1)) for i in range(33)])


def test_both_resume_and_the_channel_goes_on(funded):
    adjudicator = funded.world.adjudicator
    funded.call_margin(*(4, funded.body(Account(1, 1, 0), Account())))
    adjudicator.refute(funded.id, *state(funded, 5))
    funded.world.chain.set_time(NOW + 86_399)
    value, sigs = funded.sign_resume(1)
    adjudicator.resume(value, sigs)
    event = adjudicator.event("Resumed")
    assert (event.channel, event.resume, event.version) == (funded.id, (funded.id, 1, NOW + 86_399), 5)
    assert (event.body_hash, event.sigs) == (state(funded, 5)[1], sigs)
    assert (funded.record.phase, funded.record.floor_version, funded.record.floor_hash) == (1, 5, event.body_hash)
    dispute = funded.dispute
    assert (dispute.number, dispute.deadline, dispute.calls) == (1, 0, 0)
    with refused("NotInDispute"):
        adjudicator.resume(value, sigs)
    # what is outside a dispute works again, and the next dispute has the next number and no calls
    adjudicator.withdraw(*funded.sign_withdrawal(6, 5, 0))
    adjudicator.anchor(funded.id, *state(funded, 7))
    challenged = funded.challenge(6)
    assert (challenged.dispute, challenged.version, funded.dispute.calls) == (2, 7, 0)
    funded.world.chain.advance(1)
    with refused("OtherDispute"):
        adjudicator.resume(*funded.sign_resume(1))
    with refused("OtherDispute"):
        adjudicator.resume(*funded.sign_resume(3))
    assert funded.call_margin(7).call == 0
    assert funded.margin_call(0, 1).time != funded.margin_call(0, 2).time


def test_resuming_at_the_floor_leaves_it(funded):
    adjudicator = funded.world.adjudicator
    funded.challenge()
    adjudicator.resume(*funded.sign_resume(1))
    assert (funded.record.floor_version, funded.record.floor_hash) == (0, eip712.body_hash(funded.genesis))
    adjudicator.anchor(funded.id, *state(funded, 7))
    funded.challenge()
    adjudicator.resume(*funded.sign_resume(2))
    assert (funded.record.floor_version, funded.record.floor_hash) == (7, state(funded, 7)[1])


def test_resumes_that_are_refused(funded):
    adjudicator = funded.world.adjudicator
    value, sigs = funded.sign_resume(1, NOW + 10**6)
    with refused("NotInDispute"):
        adjudicator.resume(value, sigs)
    deadline = funded.challenge().deadline
    with refused("SignaturesMissing"):
        adjudicator.resume(value, b"")
    with refused("InvalidSignatureA"):
        adjudicator.resume(value, sigs[65:] + sigs[:65])
    with refused("InvalidSignatureB"):
        adjudicator.resume(value, sigs[:65] * 2)
    with refused("InvalidSignatureA"):
        adjudicator.resume(eip712.Resume(funded.id, 1, NOW + 10**6 + 1), sigs)
    with refused("UnknownChannel"):
        adjudicator.resume(eip712.Resume(b"\x01" * 32, 1, NOW + 10**6), sigs)
    late = funded.sign_resume(1, NOW + 5)
    funded.world.chain.set_time(NOW + 6)
    with refused("ResumeExpired"):
        adjudicator.resume(*late)
    with funded.world.chain.anchored():
        # inclusive
        funded.world.chain.set_time(NOW + 5)
        adjudicator.resume(*late)
    funded.world.chain.set_time(deadline)
    with refused("DeadlinePassed"):
        adjudicator.resume(value, sigs)
    adjudicator.close(*funded.sign_close(0, Account(), Account()))
    with refused("ChannelEnded"):
        adjudicator.resume(value, sigs)
    assert funded.world.token.balanceOf(PAYOUTS[0]) == 1000 * ONE
