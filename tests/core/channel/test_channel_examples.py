"""The channel machine by example: agreement, what the desk cannot have, faults of the peer, rejections."""

from __future__ import annotations

from dataclasses import replace

import pytest
from channel_examples import WRONG, forged, news, propose, reconnect, unchanged, versions
from channel_shell import CHANNEL, KEYS, TERMS, Pair
from strategies import DOMAIN

from channeld.core import wire
from channeld.core.channel import (
    WINDOW,
    Accepted,
    Agreed,
    Connected,
    Disconnected,
    Freeze,
    ProposeBatch,
    Received,
    Refused,
    Sign,
    Signed,
    step,
    waiting_for,
)
from channeld.core.channel.values import (
    NotReadyError,
    ProtocolFaultError,
    WrongSignatureError,
)
from channeld.core.crypto import verify
from channeld.core.eip712 import state_digest
from channeld.core.errors import InternalError, PeerError, RuleError
from channeld.core.operations import CloseChannel, Deposit, Transfer, Withdraw

# ---- the way it goes when all goes well ------------------------------------------------------------------------------


def test_both_agree_and_hold_both_signatures(pair):
    propose(pair, Transfer(0, 7))
    assert versions(pair) == (1, 1)
    assert pair.deliver(0)
    assert versions(pair) == (1, 2)
    assert pair.deliver(1)
    assert pair.sequencer.channel.latest == pair.follower.channel.latest
    agreed = pair.sequencer.channel.latest
    digest = state_digest(DOMAIN, CHANNEL, 2, agreed.body_hash)
    verify(digest, agreed.signature_a, TERMS.a.signer)
    verify(digest, agreed.signature_b, TERMS.b.signer)
    assert (agreed.state.body.a.balance, agreed.state.body.b.balance) == (993, 1007)
    assert agreed.signature(0) == agreed.signature_a
    assert [len(news(side, Agreed)) for side in pair.sides] == [2, 2]


def test_b_may_be_the_sequencer():
    pair = Pair(replace(TERMS, sequencer=1))
    pair.connect()
    pair.settle()
    propose(pair, Deposit(1, 5, 6))
    pair.settle()
    pair.follower.refuse = True
    propose(pair, Transfer(1, 1))
    pair.settle()
    assert pair.sequencer.number == 1
    assert versions(pair) == (1 + WINDOW + 1,) * 2
    agreed = pair.follower.channel.latest
    verify(state_digest(DOMAIN, pair.follower.id, 66, agreed.body_hash), agreed.signature_b, TERMS.b.signer)


def test_the_window_holds_64_and_no_more(pair):
    for _ in range(WINDOW):
        propose(pair, Transfer(0, 1))
    with pytest.raises(NotReadyError, match="window is full"):
        propose(pair, Transfer(0, 1))
    assert pair.settle() == 2 * WINDOW
    assert versions(pair) == (1 + WINDOW,) * 2


def test_a_follower_refuses_more_than_the_window(pair):
    pair.follower.postpone = True
    for _ in range(WINDOW):
        propose(pair, Transfer(0, 1))
    for _ in range(WINDOW):
        pair.deliver(0)
    message = forged(pair, pair.clock.batch(Transfer(0, 1)))
    unchanged(pair.follower, Received(message), ProtocolFaultError, "more than 64")


def test_what_is_awaited_is_told_in_words(pair):
    sequencer = pair.sequencer
    assert waiting_for(sequencer.channel) == ""
    propose(pair, Transfer(0, 1))
    assert waiting_for(sequencer.channel) == "the peer's signature on version 2"
    pair.follower.postpone = True
    pair.deliver(0)
    assert waiting_for(pair.follower.channel) == "our decision"
    pair.drop()
    assert waiting_for(sequencer.channel) == "the peer to connect"
    sequencer.feed(Connected())
    assert waiting_for(sequencer.channel) == "the peer's exchange"
    sequencer.feed(Freeze("disk"))
    assert waiting_for(sequencer.channel) == "frozen: disk"


# ---- what the desk asks and cannot have ------------------------------------------------------------------------------


def test_only_the_sequencer_proposes(pair):
    unchanged(pair.follower, ProposeBatch(pair.clock.batch()), NotReadyError, "only the sequencer")


@pytest.mark.parametrize(
    "operation", [Transfer(0, 1001), Withdraw(1, 2000), Deposit(0, 5, 5)], ids=["transfer", "withdraw", "deposit"]
)
def test_a_batch_that_breaks_a_rule_is_not_proposed(pair, operation):
    unchanged(pair.sequencer, ProposeBatch(pair.clock.batch(operation)), RuleError)


def test_nothing_is_proposed_before_the_exchange():
    pair = Pair()
    unchanged(pair.sequencer, ProposeBatch(pair.clock.batch()), NotReadyError, "the peer to connect")
    pair.sequencer.feed(Connected())
    unchanged(pair.sequencer, ProposeBatch(pair.clock.batch()), NotReadyError, "the peer's exchange")


def test_nothing_is_proposed_while_a_signature_is_being_made(pair):
    drafting = step(pair.sequencer.channel, ProposeBatch(pair.clock.batch()))
    assert [type(e) for e in drafting.effects] == [Sign]
    with pytest.raises(NotReadyError, match="our signature on version 2"):
        step(drafting.channel, ProposeBatch(pair.clock.batch()))


def test_a_session_that_ends_takes_the_draft_with_it(pair):
    drafting = step(pair.sequencer.channel, ProposeBatch(pair.clock.batch()))
    quiet = step(drafting.channel, Disconnected()).channel
    late = step(quiet, Signed("propose", 2, WRONG))
    assert late.channel == quiet
    assert late.effects == ()


def test_a_signature_nobody_asked_for_is_a_bug(pair):
    drafting = step(pair.sequencer.channel, ProposeBatch(pair.clock.batch()))
    with pytest.raises(InternalError):
        step(drafting.channel, Signed("resign", 2, WRONG))


def test_decisions_that_come_late_change_nothing(pair):
    follower = pair.follower.channel
    for answer in (Accepted(2), Accepted(1), Refused(5, pair.clock.batch(), 1, ""), Refused(1, b"", 1, "")):
        assert step(follower, answer).channel == follower
    sequencer = pair.sequencer.channel
    assert step(sequencer, Refused(2, pair.clock.batch(), 1, "")).channel == sequencer


def test_a_refusal_carries_an_empty_batch(pair):
    pair.follower.postpone = True
    propose(pair, Transfer(0, 1))
    pair.deliver(0)
    unchanged(pair.follower, Refused(2, pair.clock.batch(Transfer(1, 5)), 1, ""), InternalError)


# ---- faults of the peer ----------------------------------------------------------------------------------------------


def test_messages_before_the_exchange_are_faults():
    pair = Pair()
    for side in pair.sides:
        side.feed(Connected())
        for message in (
            wire.Accept(CHANNEL, 1, WRONG),
            wire.Propose(CHANNEL, 1, b"", WRONG),
            wire.Reject(CHANNEL, 1, 1, "", 65, b"", WRONG),
            wire.Document(CHANNEL, wire.SignedDocument(1, 1, WRONG)),
        ):
            unchanged(side, Received(message), ProtocolFaultError, "before the exchange")


def test_a_second_exchange_in_a_session_is_a_fault(pair):
    sync = next(m for m in pair.sequencer.sent if isinstance(m, wire.Sync))
    unchanged(pair.follower, Received(sync), ProtocolFaultError, "second exchange")


def test_an_exchange_without_a_session_is_a_fault():
    pair = Pair()
    unchanged(pair.follower, Received(wire.Sync(CHANNEL, 0, b"", b"", b"", (), None, ())), ProtocolFaultError)


def test_roles_are_kept(pair):
    unchanged(pair.sequencer, Received(forged(pair, pair.clock.batch())), ProtocolFaultError, "only the sequencer")
    reject = wire.Reject(CHANNEL, 2, 1, "", 66, pair.clock.batch(), WRONG)
    unchanged(pair.follower, Received(reject), ProtocolFaultError, "only the follower")


def test_messages_of_other_kinds_are_faults(pair):
    unchanged(pair.follower, Received(wire.Offer(CHANNEL, b"")), ProtocolFaultError, "not a channel's message")


def test_a_proposal_out_of_turn_is_a_fault(pair):
    message = replace(forged(pair, pair.clock.batch()), version=3)
    unchanged(pair.follower, Received(message), ProtocolFaultError, "version 3 was proposed where 2 follows")


def test_old_messages_are_passed_over(pair):
    for side in pair.sides:
        for message in (wire.Accept(CHANNEL, 1, WRONG), wire.Document(CHANNEL, wire.SignedDocument(1, 1, WRONG))):
            assert step(side.channel, Received(message)).effects == ()
    assert step(pair.follower.channel, Received(wire.Propose(CHANNEL, 1, b"", WRONG))).effects == ()
    assert step(pair.sequencer.channel, Received(wire.Reject(CHANNEL, 1, 1, "", 1, b"", WRONG))).effects == ()


def test_agreement_to_what_is_not_outstanding_is_a_fault(pair):
    for side in pair.sides:
        unchanged(side, Received(wire.Accept(CHANNEL, 9, WRONG)), ProtocolFaultError, "not outstanding")
        document = wire.Document(CHANNEL, wire.SignedDocument(1, 9, WRONG))
        unchanged(side, Received(document), ProtocolFaultError, "not agreed")


def test_wrong_signatures_are_refused_everywhere(pair):
    batch = pair.clock.batch(Transfer(0, 1))
    unchanged(pair.follower, Received(forged(pair, batch, key=KEYS[1])), WrongSignatureError, "version 2")
    propose(pair, Transfer(0, 1))
    unchanged(pair.sequencer, Received(wire.Accept(CHANNEL, 2, WRONG)), WrongSignatureError)
    rejection = wire.Reject(CHANNEL, 2, 1, "", 1 + WINDOW + 1, pair.clock.batch(), WRONG)
    unchanged(pair.sequencer, Received(rejection), WrongSignatureError, "a rejection")
    pair.follower.refuse = True
    pair.deliver(0)
    unchanged(pair.follower, Received(wire.Accept(CHANNEL, 66, WRONG)), WrongSignatureError)


def test_a_wrong_signature_under_a_document_is_refused(pair):
    propose(pair, Withdraw(0, 10))
    pair.deliver(0)
    document = wire.Document(CHANNEL, wire.SignedDocument(1, 2, WRONG))
    unchanged(pair.follower, Received(document), WrongSignatureError, "withdrawal")


@pytest.mark.parametrize("place", ["signature_a", "signature_b", "body", "version"])
def test_a_forged_exchange_is_refused(pair, place):
    pair.drop()
    pair.follower.feed(Connected())
    pair.sequencer.feed(Connected())
    sync = pair.sequencer.sent[-1]
    changed = {"signature_a": WRONG, "signature_b": b"", "body": b"\xc0", "version": 2}
    unchanged(pair.follower, Received(replace(sync, **{place: changed[place]})), PeerError)


# ---- rejections ------------------------------------------------------------------------------------------------------


def test_a_refusal_voids_all_that_is_outstanding(pair):
    for units in (1, 2, 3):
        propose(pair, Transfer(0, units))
    pair.deliver(0)
    pair.follower.refuse = True
    pair.settle()
    assert versions(pair) == (2 + WINDOW + 1,) * 2
    (agreed,) = [e for e in news(pair.sequencer, Agreed) if e.voided]
    assert [half.version for half in agreed.voided] == [3, 4]
    assert (agreed.code, agreed.reason) == (1, "not wanted")
    assert pair.sequencer.latest.body.a.balance == 999
    pair.follower.refuse = False
    propose(pair, Transfer(0, 4))
    pair.settle()
    assert versions(pair) == (2 + WINDOW + 2,) * 2
    for side in pair.sides:
        side.check_journal()


@pytest.mark.parametrize(
    ("operations", "code"),
    [((Transfer(0, 1001),), 2129), ((Deposit(0, 0, 0),), 2131), ((CloseChannel(0), Transfer(0, 1)), 2133)],
)
def test_a_batch_that_breaks_a_rule_is_voided_with_its_code(pair, operations, code):
    pair.follower.feed(Received(wire.Propose(CHANNEL, 2, pair.clock.batch(*operations), WRONG)))
    rejection = pair.follower.sent[-1]
    assert isinstance(rejection, wire.Reject)
    assert (rejection.rejected, rejection.code, rejection.version) == (2, code, 1 + WINDOW + 1)
    # what a broken sequencer built on it is void as well
    pair.follower.feed(Received(wire.Propose(CHANNEL, 3, pair.clock.batch(), WRONG)))
    assert pair.follower.channel.proposals == ()
    pair.settle()
    assert versions(pair) == (66, 66)


def test_bytes_that_are_no_batch_are_voided_too(pair):
    pair.follower.feed(Received(wire.Propose(CHANNEL, 2, b"\xff", WRONG)))
    assert isinstance(pair.follower.sent[-1], wire.Reject)
    pair.settle()
    assert versions(pair) == (66, 66)


def test_a_rejection_on_another_base_is_a_fault(pair):
    propose(pair, Transfer(0, 1))
    batch = pair.clock.batch()
    for version in (1 + WINDOW, 1 + WINDOW + 2, 3):
        unchanged(
            pair.sequencer,
            Received(wire.Reject(CHANNEL, 2, 1, "", version, batch, WRONG)),
            ProtocolFaultError,
            "must offer version 66",
        )


def test_a_rejection_with_operations_is_a_fault(pair):
    message = wire.Reject(CHANNEL, 2, 1, "", 66, pair.clock.batch(Transfer(1, 1)), WRONG)
    unchanged(pair.sequencer, Received(message), ProtocolFaultError, "must be empty")


@pytest.mark.parametrize("fuse", range(12))
@pytest.mark.parametrize("who", ["sequencer", "follower"])
def test_a_rejection_survives_every_crash(pair, fuse, who):
    propose(pair, Transfer(0, 1))
    propose(pair, Transfer(0, 1))
    pair.follower.refuse = True
    getattr(pair, who).fuse = fuse
    pair.settle()
    pair.drop()
    pair.follower.refuse = True
    for side in pair.sides:
        side.fuse = None
    reconnect(pair)
    assert pair.sequencer.channel.latest == pair.follower.channel.latest
    assert not pair.sequencer.channel.proposals
    assert pair.follower.channel.rejection is None
