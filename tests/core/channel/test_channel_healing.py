"""The channel machine by example: exchanges, documents, restarts; every crash point healed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from channel_examples import WRONG, forged, news, propose, reconnect, unchanged, versions
from channel_shell import CHANNEL, KEYS, TERMS, Crash, run
from strategies import DOMAIN, leg, perpetual

from channeld.core import records, wire
from channeld.core.channel import (
    WINDOW,
    Accepted,
    CloseExpired,
    Connected,
    CoSigned,
    Decide,
    ExitReady,
    Freeze,
    Frozen,
    Persist,
    ProposeBatch,
    Ready,
    Received,
    Refused,
    Send,
    Signed,
    fresh,
    restore,
    restore_exit,
    step,
    waiting_for,
)
from channeld.core.channel.values import (
    EquivocationError,
    NotReadyError,
    ProtocolFaultError,
)
from channeld.core.codec import encode
from channeld.core.crypto import sign_digest, verify
from channeld.core.eip712 import body_hash, close_digest, state_digest, withdrawal_digest
from channeld.core.errors import InternalError, RuleError
from channeld.core.operations import Batch, CloseChannel, Trade, Transfer, Withdraw, encode_batch
from channeld.core.transition import apply

# ---- the exchange ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fuse", range(10))
@pytest.mark.parametrize("who", ["sequencer", "follower"])
def test_every_crash_of_an_agreement_heals(pair, fuse, who):
    getattr(pair, who).fuse = fuse
    for units in (1, 2, 3):
        if pair.sequencer.up:
            propose(pair, Transfer(0, units))
    pair.settle()
    pair.drop()
    for side in pair.sides:
        side.fuse = None
    reconnect(pair)
    assert pair.sequencer.channel.latest == pair.follower.channel.latest
    assert pair.sequencer.channel.proposals == ()


@pytest.mark.parametrize("fuse", range(8))
def test_a_sequencer_that_crashes_while_catching_up_catches_up(pair, fuse):
    """What is durable of a catch-up is all of it or nothing: a later proposal builds on an earlier one."""
    for operation in (Transfer(0, 1), Withdraw(1, 2), Transfer(0, 3)):
        propose(pair, operation)
    for _ in range(3):
        pair.deliver(0)
    pair.drop()
    pair.connect()
    pair.sequencer.fuse = fuse
    pair.settle()
    pair.sequencer.fuse = None
    reconnect(pair)
    assert versions(pair) == (4, 4)
    assert pair.sequencer.channel.frozen == ""
    assert pair.sequencer.channel.exits == pair.follower.channel.exits
    assert pair.sequencer.channel.exits[0].complete
    pair.sequencer.check_journal()


def test_a_session_that_replaces_another_needs_no_farewell(pair):
    pair.follower.postpone = True
    propose(pair, Transfer(0, 1))
    pair.deliver(0)
    pair.drop(told=())
    pair.follower.postpone = False
    pair.connect()
    pair.settle()
    assert versions(pair) == (2, 2)


def test_two_states_of_one_version_freeze(pair):
    other = replace(pair.sequencer.latest.body, journal=b"\x99" * 32)
    digest = state_digest(DOMAIN, CHANNEL, 1, body_hash(other))
    pair.drop()
    pair.follower.feed(Connected())
    signatures = [sign_digest(key, digest) for key in KEYS]
    pair.follower.feed(Received(wire.Sync(CHANNEL, 1, records.encode_body(other), *signatures, (), None, ())))
    assert "two states of version 1" in pair.follower.channel.frozen
    (told,) = news(pair.follower, Frozen)
    assert isinstance(told.error, EquivocationError)


def test_a_frozen_side_signs_nothing(pair):
    pair.sequencer.feed(Freeze("a dispute runs"))
    unchanged(pair.sequencer, ProposeBatch(pair.clock.batch()), NotReadyError, "frozen: a dispute runs")
    message = forged(pair, pair.clock.batch())
    pair.follower.feed(Freeze("a dispute runs"))
    assert step(pair.follower.channel, Received(message)).effects == ()
    reject = wire.Reject(CHANNEL, 2, 1, "", 66, pair.clock.batch(), WRONG)
    assert step(pair.sequencer.channel, Received(reject)).effects == ()


def test_a_frozen_sequencer_still_takes_what_was_agreed(pair):
    propose(pair, Withdraw(0, 1))
    pair.sequencer.feed(Freeze("a dispute runs"))
    pair.settle()
    assert versions(pair) == (2, 2)
    assert pair.sequencer.channel.exits[0].signature(0) == b""
    # nor in a new session
    pair.drop()
    pair.connect()
    pair.settle()
    assert pair.sequencer.channel.exits[0].signature(0) == b""


# ---- documents -------------------------------------------------------------------------------------------------------


def test_a_withdrawal_is_signed_once_its_state_is_co_signed(pair):
    propose(pair, Withdraw(1, 400))
    assert not any("withdrawal" in {k for k, _ in side.signed} for side in pair.sides)
    pair.deliver(0)
    assert ("withdrawal", 2) in pair.follower.signed
    assert ("withdrawal", 2) not in pair.sequencer.signed
    pair.settle()
    for side in pair.sides:
        (ready,) = news(side, ExitReady)
        document = ready.exit.document
        assert (document.withdrawn_a, document.withdrawn_b, document.version) == (0, 400, 2)
        assert document.body_hash == side.channel.latest.body_hash
        digest = withdrawal_digest(DOMAIN, document)
        verify(digest, ready.exit.signature_a, TERMS.a.signer)
        verify(digest, ready.exit.signature_b, TERMS.b.signer)


def test_a_later_withdrawal_takes_the_place_of_an_earlier(pair):
    propose(pair, Withdraw(1, 400))
    propose(pair, Withdraw(0, 5))
    pair.settle()
    for side in pair.sides:
        (kept,) = side.channel.exits
        assert kept.complete
        assert (kept.document.version, kept.document.withdrawn_a, kept.document.withdrawn_b) == (3, 5, 400)


def test_a_withdrawal_that_an_exchange_overtakes_is_not_kept_in_its_place(pair):
    """The follower crashes before it signs the first; the exchange brings that one's signature and the second batch."""
    propose(pair, Withdraw(1, 400))
    pair.deliver(0)
    pair.deliver(1)  # the sequencer agrees, and signs its half
    pair.follower.crash()
    propose(pair, Withdraw(0, 5))
    pair.drop()
    reconnect(pair)
    assert versions(pair) == (3, 3)
    for side in pair.sides:
        side.crash()
        side.start()
        (kept,) = side.channel.exits
        assert kept.complete
        assert kept.document.version == 3


@pytest.mark.parametrize("operation", [Withdraw(0, 10), CloseChannel(1)], ids=["withdrawal", "close"])
@pytest.mark.parametrize("who", ["sequencer", "follower"])
@pytest.mark.parametrize("fuse", range(10))
def test_a_document_survives_every_crash(pair, operation, who, fuse):
    propose(pair, operation)
    getattr(pair, who).fuse = fuse
    pair.settle()
    pair.drop()
    for side in pair.sides:
        side.fuse = None
    reconnect(pair)
    assert pair.sequencer.channel.latest == pair.follower.channel.latest
    assert pair.sequencer.channel.exits == pair.follower.channel.exits
    (document,) = pair.sequencer.channel.exits
    assert document.complete
    before = document
    for side in pair.sides:
        side.crash()
        side.start()
        assert side.channel.exits == (before,)


def test_a_close_names_the_balances_and_blocks_until_it_lapses(pair):
    propose(pair, Transfer(0, 100))
    pair.settle()
    at = pair.clock.now_ms + 7
    propose(pair, CloseChannel(0))
    pair.settle()
    for side in pair.sides:
        (ready,) = news(side, ExitReady)
        close = ready.exit.document
        assert (close.version, close.valid_until) == (3, at // 1000 + 600)
        assert (close.a.balance, close.b.balance) == (900, 1100)
        digest = close_digest(DOMAIN, close)
        verify(digest, ready.exit.signature_a, TERMS.a.signer)
        verify(digest, ready.exit.signature_b, TERMS.b.signer)
        assert waiting_for(side.channel) == "the close on chain"
    unchanged(pair.sequencer, ProposeBatch(pair.clock.batch()), NotReadyError, "the close on chain")
    for side in pair.sides:
        side.feed(CloseExpired())
        assert side.channel.closing is None
        side.crash()
        side.start()
        assert side.channel.exits == ()
    pair.connect()
    pair.settle()
    propose(pair, Transfer(1, 1))
    pair.settle()
    assert versions(pair) == (4, 4)


def test_a_follower_decides_what_came_before_the_close_lapsed_once_it_has(pair):
    propose(pair, CloseChannel(0))
    pair.settle()
    pair.sequencer.feed(CloseExpired())
    propose(pair, Transfer(0, 1))
    propose(pair, Transfer(0, 2))
    pair.settle()
    assert versions(pair) == (2, 2)
    assert not any(isinstance(e, Decide) for e in step(pair.follower.channel, Accepted(3)).effects)
    pair.follower.feed(CloseExpired())
    pair.settle()
    assert versions(pair) == (4, 4)


def test_a_bad_batch_while_a_close_is_alive_is_a_fault(pair):
    propose(pair, CloseChannel(0))
    pair.settle()
    message = wire.Propose(CHANNEL, 3, b"\xff", WRONG)
    unchanged(pair.follower, Received(message), ProtocolFaultError, "while a close is agreed")


def test_a_close_lapsing_twice_is_nothing(pair):
    assert step(pair.sequencer.channel, CloseExpired()).effects == ()


def test_a_close_waits_for_what_is_outstanding_and_lets_nothing_follow(pair):
    propose(pair, Transfer(0, 1))
    unchanged(pair.sequencer, ProposeBatch(pair.clock.batch(CloseChannel(0))), NotReadyError, "no proposal outstanding")
    pair.settle()
    propose(pair, CloseChannel(0))
    unchanged(pair.sequencer, ProposeBatch(pair.clock.batch()), NotReadyError, "no proposal outstanding")
    pair.follower.postpone = True
    pair.deliver(0)
    message = forged(pair, pair.clock.batch())
    unchanged(pair.follower, Received(message), ProtocolFaultError, "on top of a close")


def test_no_rejection_is_confirmed_while_a_close_is_alive(pair):
    propose(pair, CloseChannel(0))
    pair.settle()
    batch = pair.clock.batch()
    after = apply(TERMS, pair.follower.latest, batch, 2 + WINDOW + 1).state
    digest = state_digest(DOMAIN, CHANNEL, 67, body_hash(after.body))
    message = wire.Reject(CHANNEL, 3, 1, "", 67, batch, sign_digest(KEYS[1], digest))
    unchanged(pair.sequencer, Received(message), ProtocolFaultError, "a close is agreed")


# ---- restoring -------------------------------------------------------------------------------------------------------


def test_a_restart_restores_what_is_outstanding(pair):
    propose(pair, Trade(0, (leg(perpetual(), 1, 3000),)))
    propose(pair, Transfer(0, 2))
    before = pair.sequencer.channel
    pair.sequencer.crash()
    pair.sequencer.start()
    assert pair.sequencer.channel == replace(before, connected=False, synced=False, leads=False)
    pair.drop()
    pair.connect()
    pair.settle()
    assert versions(pair) == (3, 3)


def test_a_restart_restores_a_rejection(pair):
    propose(pair, Transfer(0, 2))
    pair.follower.refuse = True
    pair.deliver(0)
    before = pair.follower.channel
    pair.follower.crash()
    pair.follower.start()
    assert pair.follower.channel == replace(before, connected=False, synced=False, leads=False)
    sent = [m for m in pair.follower.sent if isinstance(m, wire.Reject)]
    pair.follower.feed(Connected())
    assert pair.follower.sent[-1].rejection == sent[-1]


def test_records_that_do_not_fit_together_are_refused(pair):
    propose(pair, Transfer(0, 2))
    message = next(m for m in reversed(pair.sequencer.sent) if isinstance(m, wire.Propose))
    blank = fresh(DOMAIN, TERMS, CHANNEL, 0)
    latest = pair.sequencer.channel.latest
    for bad in (
        replace(message, version=3),
        replace(message, batch=b"\xff"),
        replace(message, signature=WRONG),
        replace(message, batch=pair.clock.batch(Transfer(0, 3))),
    ):
        with pytest.raises(InternalError, match="do not fit together"):
            restore(blank, latest, (bad,), None, ())
    reject = wire.Reject(CHANNEL, 2, 1, "", 66, pair.clock.batch(), WRONG)
    for worse in (reject, replace(reject, version=70)):
        with pytest.raises(InternalError, match="do not fit together"):
            restore(fresh(DOMAIN, TERMS, CHANNEL, 1), latest, (), worse, ())
    # what the co-signed state has overtaken is left out
    assert restore(blank, latest, (replace(message, version=1),), replace(reject, version=1), ()).proposals == ()


def test_a_recorded_document_that_does_not_follow_is_refused(pair):
    propose(pair, Withdraw(0, 10))
    pair.settle()

    made = pair.sequencer.transition(2)
    for kind, version in (("close", 2), ("withdrawal", 3)):
        with pytest.raises(InternalError, match="does not follow"):
            restore_exit(pair.sequencer.channel, kind, encode([version, b"", b""]), made)


# ---- order of effects ------------------------------------------------------------------------------------------------


def test_persist_stands_before_send_and_news(pair):
    drafting = step(pair.sequencer.channel, ProposeBatch(pair.clock.batch(Transfer(0, 1))))
    (sign,) = drafting.effects
    signature = sign_digest(KEYS[0], sign.digest)
    proposed = step(drafting.channel, Signed("propose", 2, signature))
    assert [type(e) for e in proposed.effects] == [Persist, Send]
    asked = step(pair.follower.channel, Received(proposed.effects[1].message))
    (decide,) = asked.effects
    assert (decide.version, decide.before, decide.error) == (2, pair.follower.latest, None)
    accepting = step(asked.channel, Accepted(2))
    (sign,) = accepting.effects
    accepted = step(accepting.channel, Signed("accept", 2, sign_digest(KEYS[1], sign.digest)))
    assert [type(e).__name__ for e in accepted.effects] == ["Persist", "Send", "Notify"]
    taken = step(proposed.channel, Received(accepted.effects[1].message))
    assert [type(e).__name__ for e in taken.effects] == ["Persist", "Notify"]
    assert taken.channel.latest == accepted.channel.latest
    assert isinstance(taken.channel.latest, CoSigned)


def test_ready_is_told_once_per_session(pair):
    counts = [len(news(side, Ready)) for side in pair.sides]
    pair.drop()
    reconnect(pair)
    assert [len(news(side, Ready)) for side in pair.sides] == [n + 1 for n in counts]


def test_a_crash_leaves_the_disk_alone_behind(pair):
    pair.sequencer.fuse = 1  # signed, and not yet durable
    with pytest.raises(Crash):
        pair.sequencer.feed(ProposeBatch(pair.clock.batch(Transfer(0, 1))))
    pair.sequencer.start()
    assert pair.sequencer.channel.proposals == ()
    assert run(pair.sequencer.disk.highest_signed(CHANNEL)).version == 1
    pair.drop()
    reconnect(pair)
    propose(pair, Transfer(0, 9))
    pair.settle()
    assert pair.follower.latest.body.b.balance == 1009


def test_time_before_as_of_cannot_be_refused_with(pair):
    """A refusal's empty batch must apply too: the shell gives it a time not before the last batch's."""
    propose(pair, Trade(0, (leg(perpetual(), 1, 3000),)))
    pair.settle()
    pair.follower.postpone = True
    propose(pair, Transfer(0, 1))
    pair.deliver(0)
    early = encode_batch(Batch(1, b"\0" * 16, ()))
    unchanged(pair.follower, Refused(3, early, 1, ""), RuleError)
