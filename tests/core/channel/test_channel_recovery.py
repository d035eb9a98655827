"""Lost states: what a side that was set back does, what its peer signs for it, and what neither can be brought to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from channel_examples import KEYS, news, propose, reconnect, unchanged, versions
from channel_shell import CHANNEL, TERMS, Crash, Pair, run
from strategies import DOMAIN

from channeld.core import records, wire
from channeld.core.channel import (
    WINDOW,
    Accepted,
    Agreed,
    CloseExpired,
    Connected,
    DeclareLoss,
    Disconnected,
    Found,
    Frozen,
    Lost,
    ProposeBatch,
    Received,
    Recover,
    Refused,
    step,
    waiting_for,
)
from channeld.core.channel.recovery import LEAP_SHIFT, leap_version
from channeld.core.channel.values import LEAP, BodyUnknownError, LostStatesError, NotReadyError, ProtocolFaultError
from channeld.core.crypto import sign_digest
from channeld.core.eip712 import body_hash, state_digest
from channeld.core.operations import Batch, CloseChannel, Transfer, Withdraw, encode_batch
from channeld.core.transition import apply

BOTH = pytest.mark.parametrize("number", [0, 1], ids=["sequencer", "follower"])


def trade_on(pair: Pair, count: int = 3) -> None:
    for units in range(1, count + 1):
        propose(pair, Transfer(0, units))
        pair.settle()


def go_on(pair: Pair, number: int, seen: int = 0) -> None:
    """The desk that lost states, if it has, has waited long enough."""
    pair.clock.now_ms += 2_100_000
    if pair.sides[number].channel.lost:
        pair.feed(pair.sides[number], Recover(pair.clock.batch(), seen))
    pair.settle()


def set_back(pair: Pair, number: int, copy: bytes, *, told: bool) -> None:
    pair.drop()
    pair.sides[number].restore(copy, told=told)
    reconnect(pair)


def recovered(pair: Pair, base: int) -> None:
    """Both stand on one leap above `base`, with its content, and go on."""
    sides = pair.sides
    version = sides[0].latest.version
    assert versions(pair) == (version, version)
    assert version >= base + LEAP
    assert version % (1 << LEAP_SHIFT) == 0
    for side in sides:
        assert not side.channel.lost
        assert side.channel.recovery is None
        assert side.stored_rejections() == ()
    assert sides[0].channel.latest == sides[1].channel.latest
    propose(pair, Transfer(1, 1))
    pair.settle()
    assert versions(pair) == (version + 1, version + 1)
    for side in sides:
        side.check_journal()
        side.crash()
        side.start()
        assert side.latest.version == version + 1
        assert not side.channel.lost
    reconnect(pair)
    assert not any(side.channel.frozen for side in sides)


@BOTH
@pytest.mark.parametrize("told", [True, False])
def test_who_was_set_back_goes_on_far_above(pair, number, told):
    copy = pair.sides[number].backup()
    trade_on(pair)
    body = pair.sequencer.latest.body
    set_back(pair, number, copy, told=told)
    loser, keeper = pair.sides[number], pair.sides[1 - number]
    assert loser.channel.lost
    assert loser.latest.version == 4
    (told_of, *_) = news(loser, Lost)
    assert isinstance(told_of.error, LostStatesError)
    assert not keeper.channel.lost
    assert waiting_for(loser.channel) == "the recovery of lost states"
    go_on(pair, number)
    assert (loser.latest.body.a, loser.latest.body.b) == (body.a, body.b)
    recovered(pair, 4)


@BOTH
def test_nothing_else_is_signed_before_it(pair, number):
    copy = pair.sides[number].backup()
    trade_on(pair)
    set_back(pair, number, copy, told=False)
    signed = dict(pair.sides[number].signed)
    if number == 0:
        unchanged(pair.sequencer, ProposeBatch(pair.clock.batch()), NotReadyError, "the recovery of lost states")
    else:
        propose(pair, Transfer(0, 9))
        pair.settle()
    assert pair.sides[number].signed == signed
    assert versions(pair) == (4, 4)
    # nor after it has restarted: the mark is durable with the state that it took
    pair.sides[number].crash()
    pair.drop()
    reconnect(pair)
    assert pair.sides[number].channel.lost
    assert pair.sides[number].signed == signed
    go_on(pair, number)
    recovered(pair, 4)


def test_who_has_lost_nothing_signs_first(pair):
    copy = pair.follower.backup()
    trade_on(pair)
    set_back(pair, 1, copy, told=True)
    pair.clock.now_ms += 610_000
    pair.feed(pair.follower, Recover(pair.clock.batch()))
    pair.deliver(1)
    (first,) = [m for m in pair.sequencer.sent if isinstance(m, wire.Recover)]
    assert first.signature_first
    version = first.version
    assert ("state", version) not in pair.follower.signed
    assert waiting_for(pair.sequencer.channel) == "the peer's signature under a recovery"
    unchanged(pair.sequencer, ProposeBatch(pair.clock.batch()), NotReadyError, "under a recovery")
    pair.settle()
    recovered(pair, 4)


@BOTH
@pytest.mark.parametrize("who", [0, 1], ids=["loser", "keeper"])
@pytest.mark.parametrize("fuse", range(8))
def test_every_crash_of_a_recovery_heals(pair, number, who, fuse):
    copy = pair.sides[number].backup()
    trade_on(pair)
    set_back(pair, number, copy, told=False)
    victim = pair.sides[number if who == 0 else 1 - number]
    victim.fuse = fuse
    go_on(pair, number)
    pair.drop()
    victim.fuse = None
    reconnect(pair)
    if pair.sides[number].channel.lost:
        go_on(pair, number)
    recovered(pair, 4)


@BOTH
@pytest.mark.parametrize("fuse", range(4))
def test_a_crash_while_the_peers_state_is_taken_forgets_nothing(pair, number, fuse):
    copy = pair.sides[number].backup()
    trade_on(pair)
    pair.drop()
    pair.sides[number].restore(copy, told=False)
    pair.connect()
    pair.sides[number].fuse = fuse
    pair.settle()
    pair.sides[number].fuse = None
    pair.drop()
    reconnect(pair)
    assert pair.sides[number].channel.lost
    go_on(pair, number)
    recovered(pair, 4)


def test_a_first_signature_is_repeated_byte_for_byte(pair):
    copy = pair.follower.backup()
    trade_on(pair)
    set_back(pair, 1, copy, told=True)
    for _ in range(3):
        pair.clock.now_ms += 610_000
        # asked again with another batch: the one it has signed is all that it gives
        ask = replace(leap(pair, 1), signature_first=b"")
        pair.sequencer.feed(Received(ask))
        pair.drop()
        pair.sequencer.crash()
        reconnect(pair)
    firsts = {m for m in pair.sequencer.sent if isinstance(m, wire.Recover)}
    assert firsts
    firsts |= {m.recovery for m in pair.sequencer.sent if isinstance(m, wire.Sync) and m.recovery}
    assert len(firsts) == 1
    # the loser did not ask for it since it was set back: it is no more than a state to go on from
    go_on(pair, 1)
    (first,) = firsts
    assert versions(pair) == (first.version, first.version)
    assert pair.follower.channel.lost
    go_on(pair, 1)
    recovered(pair, first.version)


@pytest.mark.parametrize("higher", [0, 1], ids=["sequencer newer", "follower newer"])
def test_both_set_back_go_on_from_the_higher_of_the_two(pair, higher):
    copies = [side.backup() for side in pair.sides]
    trade_on(pair, 2)
    copies[higher] = pair.sides[higher].backup()
    trade_on(pair, 2)
    pair.drop()
    for side, copy in zip(pair.sides, copies, strict=True):
        side.restore(copy)
    reconnect(pair)
    assert versions(pair) == (3, 3)
    assert all(side.channel.lost for side in pair.sides)
    # who showed the higher one signs first, whoever is ready first
    go_on(pair, higher)
    assert versions(pair) == (3, 3)
    go_on(pair, 1 - higher)
    recovered(pair, 3)
    assert [bool([m for m in s.sent if isinstance(m, wire.Recover) and m.signature_first]) for s in pair.sides] == [
        higher == 0,
        higher == 1,
    ]


def test_both_set_back_to_the_same_state(pair):
    copies = [side.backup() for side in pair.sides]
    trade_on(pair, 2)
    pair.drop()
    for side, copy in zip(pair.sides, copies, strict=True):
        side.restore(copy)
    reconnect(pair)
    go_on(pair, 1)
    assert versions(pair) == (1, 1)
    go_on(pair, 0)
    go_on(pair, 1)
    recovered(pair, 1)


@BOTH
def test_a_second_loss_goes_higher_still(pair, number):
    copy = pair.sides[number].backup()
    trade_on(pair)
    set_back(pair, number, copy, told=False)
    go_on(pair, number)
    first = pair.sequencer.latest.version
    trade_on(pair, 2)
    set_back(pair, number, copy, told=False)
    assert pair.sides[number].latest.version == first + 2
    go_on(pair, number)
    recovered(pair, first + 2)


def test_a_loser_that_is_set_back_after_it_signed_signs_again_above(pair):
    copy = pair.follower.backup()
    trade_on(pair)
    set_back(pair, 1, copy, told=True)
    pair.clock.now_ms += 610_000
    pair.feed(pair.follower, Recover(pair.clock.batch()))
    pair.deliver(1)
    pair.deliver(0)  # the follower has signed the leap, its answer is lost
    leap = pair.follower.latest.version
    pair.drop()
    pair.follower.restore(copy, told=False)
    reconnect(pair)
    assert pair.follower.channel.offered.version == leap
    go_on(pair, 1)
    assert versions(pair) == (leap, leap)
    # what it may have signed above that leap is lost as well
    assert pair.follower.channel.lost
    go_on(pair, 1)
    recovered(pair, leap)


def test_a_leap_that_is_older_than_a_loss_does_not_end_it(pair):
    """Found by the fuzzer: what was signed above the leap, and lost with the copy, would have been signed again."""
    copies = [side.backup() for side in pair.sides]
    pair.drop()
    for side, copy in zip(pair.sides, copies, strict=True):
        side.restore(copy)
    reconnect(pair)
    go_on(pair, 1)
    pair.clock.now_ms += 2_100_000
    pair.feed(pair.sequencer, Recover(pair.clock.batch()))
    first = pair.sequencer.channel.recovery.version
    copy = pair.sequencer.backup()
    pair.settle()
    assert versions(pair) == (first, first)
    propose(pair, Transfer(0, 1))
    pair.drop()
    pair.sequencer.restore(copy)
    assert pair.sequencer.channel.recovery is None
    reconnect(pair)
    assert versions(pair) == (first, first)
    assert pair.sequencer.channel.lost
    go_on(pair, 0)
    recovered(pair, first)


def test_a_second_recovery_is_asked_for_half_an_hour_after_the_first(pair):
    copy = pair.follower.backup()
    trade_on(pair)
    set_back(pair, 1, copy, told=True)
    go_on(pair, 1)
    set_back(pair, 1, copy, told=True)
    pair.clock.now_ms += 610_000
    unchanged(pair.follower, Recover(pair.clock.batch()), NotReadyError, "made just now")
    go_on(pair, 1)
    assert not pair.follower.channel.lost


def test_a_higher_state_than_the_one_a_recovery_builds_on_makes_its_signer_a_loser(pair):
    """Its first signature lies above that state; it may not sign what follows it, and the next leap is higher."""
    copy = pair.follower.backup()
    pair.follower.postpone = True
    propose(pair, Transfer(0, 1))
    pair.deliver(0)
    pair.follower.decide()
    newer = pair.follower.backup()  # version 2 is co-signed here, and the sequencer has not heard
    pair.drop()
    pair.follower.restore(copy)
    reconnect(pair)
    pair.clock.now_ms += 610_000
    pair.feed(pair.follower, Recover(pair.clock.batch()))
    pair.deliver(1)
    low = pair.sequencer.channel.recovery.version
    pair.drop()
    pair.follower.restore(newer)
    reconnect(pair)
    assert versions(pair) == (2, 2)
    assert pair.sequencer.channel.lost
    assert pair.sequencer.channel.recovery is None
    for _ in range(3):
        go_on(pair, 0)
        go_on(pair, 1)
    assert pair.sequencer.latest.version > low
    recovered(pair, 2)


def test_what_is_outstanding_is_superseded(pair):
    copy = pair.follower.backup()
    pair.follower.postpone = True
    for units in (1, 2, 3):
        propose(pair, Transfer(0, units))
    set_back(pair, 1, copy, told=True)
    go_on(pair, 1)
    agreed = news(pair.sequencer, Agreed)[-1]
    assert [half.version for half in agreed.voided] == [2, 3, 4]
    assert "superseded" in agreed.reason
    recovered(pair, 1)


def test_a_rejection_that_was_sent_and_lost_is_superseded(pair):
    copy = pair.follower.backup()
    propose(pair, Transfer(0, 1))
    pair.follower.refuse = True
    pair.deliver(0)
    rejected = pair.follower.channel.rejection.version
    assert rejected == 1 + WINDOW + 1
    pair.drop()
    pair.follower.restore(copy)
    reconnect(pair)
    assert versions(pair) == (1, 1)
    go_on(pair, 1)
    recovered(pair, 1)


def test_documents_that_were_half_signed_are_not_signed_again(pair):
    propose(pair, Withdraw(1, 5))
    pair.deliver(0)
    copy = pair.follower.backup()
    pair.settle()
    complete = pair.sequencer.channel.exits[0]
    assert complete.complete
    set_back(pair, 1, copy, told=True)
    go_on(pair, 1)
    assert pair.follower.channel.exits == ()
    recovered(pair, 2)
    propose(pair, Withdraw(1, 5))
    pair.settle()
    (document,) = pair.follower.channel.exits
    assert document.complete
    assert document.document.withdrawn_b == 10


def test_a_close_that_may_still_be_used_is_waited_for(pair):
    copy = pair.sequencer.backup()
    propose(pair, CloseChannel(0))
    pair.settle()
    set_back(pair, 0, copy, told=False)
    pair.feed(pair.sequencer, Recover(pair.clock.batch()))
    pair.settle()
    assert pair.follower.channel.recovery is None
    pair.clock.now_ms += 610_000
    pair.feed(pair.follower, CloseExpired())
    go_on(pair, 0)
    recovered(pair, 2)


# ---- states from elsewhere -------------------------------------------------------------------------------------------


def shown(side, version=None) -> Found:
    state = side.channel.latest
    raw = records.encode_body(state.state.body)
    return Found(version or state.state.version, raw, state.signature_a, state.signature_b)


def test_a_backup_newer_than_what_the_peer_shows_is_taken(pair):
    """The peer hides what it has: the states that backup or tower hold are shown to it."""
    copies = [side.backup() for side in pair.sides]
    trade_on(pair)
    newest = shown(pair.follower)
    pair.drop()
    for side, copy in zip(pair.sides, copies, strict=True):
        side.restore(copy)
    pair.follower.feed(newest)
    assert pair.follower.latest.version == 4
    reconnect(pair)
    assert versions(pair) == (4, 4)
    go_on(pair, 0)
    go_on(pair, 1)
    go_on(pair, 0)
    recovered(pair, 4)


def test_what_is_found_is_checked_and_taken_between_sessions_alone(pair):
    trade_on(pair)
    state = shown(pair.follower)
    for event in (state, DeclareLoss("an old copy")):
        unchanged(pair.sequencer, event, NotReadyError, "between sessions")
    pair.drop()
    for bad in (replace(state, version=5), replace(state, body=b"\xc0"), replace(state, signature_a=b"\1" * 65)):
        with pytest.raises((ProtocolFaultError, Exception)):
            step(pair.sequencer.channel, bad)
    assert step(pair.sequencer.channel, state).effects == ()


def test_a_version_on_chain_above_every_body_means_a_dispute(pair):
    copy = pair.follower.backup()
    trade_on(pair)
    set_back(pair, 1, copy, told=True)
    signed = dict(pair.follower.signed)
    go_on(pair, 1, seen=5)
    assert pair.follower.signed == signed
    (told,) = news(pair.follower, Frozen)
    assert isinstance(told.error, BodyUnknownError)
    assert versions(pair) == (4, 4)


def test_a_version_on_chain_whose_body_is_there_stands_in_no_way(pair):
    copy = pair.follower.backup()
    trade_on(pair)
    set_back(pair, 1, copy, told=True)
    go_on(pair, 1, seen=4)
    recovered(pair, 4)


# ---- what a peer may try ---------------------------------------------------------------------------------------------


def leap(pair: Pair, side: int, *, base=None, batch: bytes | None = None, version: int | None = None) -> wire.Recover:
    """A leap that the side's key signs, whatever its machine says."""
    before = base or pair.sides[side].latest
    raw = batch or pair.clock.batch()
    number = version or leap_version(raw)
    after = apply(TERMS, before, raw, number).state
    return wire.Recover(
        CHANNEL, number, raw, sign_digest(KEYS[side], state_digest(DOMAIN, CHANNEL, number, body_hash(after.body)))
    )


@BOTH
def test_a_recovery_nobody_asked_for_is_a_fault(pair, number):
    unchanged(pair.sides[number], Received(leap(pair, 1 - number)), ProtocolFaultError, "nobody asked for")


@BOTH
def test_a_recovery_must_be_empty_and_follow_from_our_state(pair, number):
    victim = pair.sides[number]
    for bad in (
        leap(pair, 1 - number, batch=pair.clock.batch(Transfer(0, 1))),
        leap(pair, 1 - number, version=1 + LEAP),
        leap(pair, 1 - number, version=2),
        leap(pair, 1 - number, batch=encode_batch(Batch(2_000_000, b"\0" * 16, ()))),
    ):
        unchanged(victim, Received(replace(bad, signature_first=b"")), ProtocolFaultError, "recovery")
    assert not victim.channel.lost


def test_a_wrong_signature_under_a_recovery_is_refused(pair):
    copy = pair.follower.backup()
    trade_on(pair)
    set_back(pair, 1, copy, told=True)
    good = leap(pair, 0)
    unchanged(pair.follower, Received(replace(good, signature_first=sign_digest(b"\7" * 32, b"\1" * 32))), Exception)
    other = leap(pair, 0)
    unchanged(pair.follower, Received(replace(good, signature_first=other.signature_first)), Exception, "recovery")


@BOTH
def test_a_peer_that_pretends_to_have_lost_states_gains_no_more_than_by_a_rejection(pair, number):
    """Asked again and again, with other batches, an honest side signs one leap of one state: the highest it holds."""
    trade_on(pair)
    victim = pair.sides[number]
    body = victim.latest.body
    for _ in range(3):
        victim.feed(Received(replace(leap(pair, 1 - number), signature_first=b"")))
    leaps = [m for m in victim.sent if isinstance(m, wire.Recover)]
    assert len(set(leaps)) == 1
    after = apply(TERMS, victim.latest, leaps[0].batch, leaps[0].version).state
    assert (after.body.a, after.body.b, after.body.positions) == (body.a, body.b, body.positions)
    # an older state cannot be made the base of another
    pair.drop()
    victim.feed(Connected())
    victim.feed(Received(wire.Sync(CHANNEL, 0, b"", b"", b"", (), None, ())))
    assert victim.latest.version == 4
    assert victim.channel.recovery.version == leaps[0].version


def test_a_recovery_the_desk_does_not_want_is_silence(pair):
    ask = replace(leap(pair, 1), signature_first=b"")
    pending = step(pair.sequencer.channel, Received(ask)).channel
    refused = step(pending, Refused(ask.version, pair.clock.batch(), 2213, "the clock"))
    assert refused.effects == ()
    assert refused.channel.asked is None
    assert step(refused.channel, Accepted(ask.version)).effects == ()


def test_a_frozen_side_signs_no_recovery(pair):
    copy = pair.follower.backup()
    trade_on(pair)
    set_back(pair, 1, copy, told=True)
    pair.sequencer.channel = replace(pair.sequencer.channel, frozen="a dispute runs")
    go_on(pair, 1)
    assert pair.sequencer.channel.recovery is None
    pair.follower.channel = replace(pair.follower.channel, frozen="a dispute runs")
    unchanged(pair.follower, Recover(pair.clock.batch()), NotReadyError, "no dispute")


def test_a_side_that_lost_nothing_does_not_go_on(pair):
    unchanged(pair.sequencer, Recover(pair.clock.batch()), NotReadyError, "no states are lost")


def test_a_loss_may_be_declared_again(pair):
    pair.drop()
    pair.follower.feed(DeclareLoss("an old copy"))
    assert pair.follower.channel.lost
    pair.follower.feed(DeclareLoss("again"))
    reconnect(pair)
    go_on(pair, 1)
    recovered(pair, 1)


def test_an_acceptance_while_states_are_lost_is_a_fault(pair):
    copy = pair.sequencer.backup()
    trade_on(pair)
    set_back(pair, 0, copy, told=True)
    unchanged(
        pair.sequencer, Received(wire.Accept(CHANNEL, 5, b"\1" * 65)), ProtocolFaultError, "while states are lost"
    )


def test_the_state_of_a_lost_crash_is_the_disks(pair):
    pair.drop()
    copy = pair.follower.backup()
    pair.follower.restore(copy)
    pair.follower.fuse = 0
    with pytest.raises(Crash):
        pair.follower.feed(Connected())
    pair.follower.start()
    assert pair.follower.channel.lost
    assert run(pair.follower.disk.document("lost", CHANNEL.hex())) is not None
    pair.sequencer.feed(Disconnected())
