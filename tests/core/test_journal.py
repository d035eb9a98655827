"""The journal: replay proves every balance, and names the version that breaks."""

import pytest
from strategies import ETH, T0, Desk, call, dollars, leg, perpetual

from channeld.core.crypto import keccak256
from channeld.core.journal import JournalMismatchError, ReplayError, next_journal, replay, verify
from channeld.core.operations import Trade, Transfer
from channeld.core.state import genesis
from channeld.core.transition import apply


@pytest.fixture
def desk():
    desk = Desk()
    desk.do(Trade(0, (leg(call(), 5, 150), leg(perpetual(), -1, 3000))), at=T0)
    desk.mark(T0 + 10, {ETH: dollars(3100)})
    desk.do(Transfer(1, 77), at=T0 + 11)
    return desk


def test_the_formula():
    journal, raw = b"\x11" * 32, b"any bytes"
    assert next_journal(journal, 5, raw) == keccak256(journal + bytes(7) + b"\x05" + keccak256(raw))


def test_replay_makes_the_same_state(desk):
    assert replay(desk.terms, desk.state.channel, desk.journal) == desk.state
    assert verify(desk.terms, desk.journal, desk.state) == desk.state


def test_nothing_replays_to_version_zero(desk):
    assert replay(desk.terms, desk.state.channel, []) == genesis(desk.state.channel)


def test_versions_may_leave_gaps(desk):
    raw = desk.raw(Transfer(0, 1), at=T0 + 12)
    after = apply(desk.terms, desk.state, raw, 70).state
    assert replay(desk.terms, desk.state.channel, [*desk.journal, (70, raw)]) == after


def test_a_broken_batch_is_named_by_its_version(desk):
    version, raw = desk.journal[2]
    damaged = [*desk.journal[:2], (version, raw[:-1]), *desk.journal[3:]]
    with pytest.raises(ReplayError, match="version 3 does not follow from version 2") as caught:
        replay(desk.terms, desk.state.channel, damaged)
    assert caught.value.details["version"] == 3
    assert caught.value.details["cause"] == "MalformedEncodingError"


def test_versions_out_of_order_are_named(desk):
    with pytest.raises(ReplayError, match="version 1 does not follow from version 2") as caught:
        replay(desk.terms, desk.state.channel, [*desk.journal[:2], desk.journal[0]])
    assert caught.value.details["cause"] == "VersionError"


def test_a_rule_broken_later_is_named(desk):
    raw = desk.raw(Transfer(0, 10**30), at=T0 + 12)
    with pytest.raises(ReplayError, match="none may be negative"):
        replay(desk.terms, desk.state.channel, [*desk.journal, (5, raw)])


@pytest.mark.parametrize("left_out", [0, 3])
def test_a_batch_left_out_is_found(desk, left_out):
    kept = [entry for n, entry in enumerate(desk.journal) if n != left_out]
    with pytest.raises((ReplayError, JournalMismatchError)):
        verify(desk.terms, kept, desk.state)


def test_an_altered_memo_that_moves_no_money_is_found(desk):
    other = desk.raw(Transfer(1, 77, b"altered"), at=T0 + 11)
    with pytest.raises(JournalMismatchError, match="journal") as caught:
        verify(desk.terms, [*desk.journal[:3], (4, other)], desk.state)
    assert caught.value.details["field"] == "journal"


def test_another_channel_ends_elsewhere(desk):
    other = replay(desk.terms, b"\x22" * 32, desk.journal)
    assert other.body.a == desk.body.a
    assert other.body.journal != desk.body.journal
