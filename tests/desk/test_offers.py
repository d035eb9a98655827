"""Offers: one operation, from its own side, in time; each with an id that makes it like no other."""

from __future__ import annotations

import pytest
from strategies import T0, leg, perpetual

from channeld.core.codec import CodecError
from channeld.core.errors import RuleError
from channeld.core.operations import Batch, CloseChannel, Deposit, Trade, Transfer, Withdraw, encode_batch
from channeld.desk.offers import (
    MAX_LIFETIME_MS,
    BadOfferError,
    OfferRecord,
    Status,
    identified,
    make_offer,
    operation_key,
    read_offer,
)

NOW = T0 * 1000
ID, OTHER_ID = b"\x01" * 16, b"\x02" * 16
TRADE = Trade(1, (leg(perpetual(), 1, 3000),), 0, b"ours")


def raw(*operations, until: int = NOW + 1000, offer_id: bytes = ID) -> bytes:
    return encode_batch(Batch(until, offer_id, operations))


def test_what_is_made_can_be_read():
    ours = make_offer(TRADE, ID, NOW + 1000)
    assert ours.ours
    theirs = read_offer(ours.raw, 1, NOW)
    assert not theirs.ours
    assert (theirs.id, theirs.valid_until_ms, theirs.status) == (ID, NOW + 1000, Status.PENDING)
    assert theirs.operation == Trade(1, TRADE.legs, 0, ID + b"ours")
    assert theirs.key == ours.key == operation_key(theirs.operation)


def test_no_two_offers_are_alike():
    first, second = (make_offer(TRADE, i, NOW + 1000) for i in (ID, OTHER_ID))
    assert first.key != second.key
    assert identified(Transfer(0, 5, b"rent"), ID).memo == ID + b"rent"
    assert identified(Withdraw(0, 5), ID) == Withdraw(0, 5)


@pytest.mark.parametrize("operation", [Withdraw(1, 5), CloseChannel(1), Deposit(1, 5, 5)])
def test_operations_without_a_note_are_offered_as_they_are(operation):
    assert read_offer(make_offer(operation, ID, NOW).raw, 1, NOW).operation == operation


def test_it_lives_up_to_its_last_millisecond():
    assert read_offer(raw(Withdraw(1, 5), until=NOW), 1, NOW).valid_until_ms == NOW
    with pytest.raises(BadOfferError, match="life is over"):
        read_offer(raw(Withdraw(1, 5), until=NOW - 1), 1, NOW)


def test_it_may_not_live_too_long():
    assert read_offer(raw(Withdraw(1, 5), until=NOW + MAX_LIFETIME_MS), 1, NOW)
    with pytest.raises(BadOfferError, match="at most 600 s"):
        read_offer(raw(Withdraw(1, 5), until=NOW + MAX_LIFETIME_MS + 1), 1, NOW)


@pytest.mark.parametrize("operations", [(), (Withdraw(1, 5), Withdraw(1, 5)), (Withdraw(0, 5),)])
def test_it_holds_one_operation_of_its_own_side(operations):
    with pytest.raises(BadOfferError, match="one operation, of the side that makes it"):
        read_offer(raw(*operations), 1, NOW)


@pytest.mark.parametrize("operation", [TRADE, Transfer(1, 5, b"rent"), Transfer(1, 5, OTHER_ID)])
def test_its_id_stands_at_the_head_of_its_note(operation):
    with pytest.raises(BadOfferError, match="must begin with its offer's id"):
        read_offer(raw(operation), 1, NOW)


@pytest.mark.parametrize("junk", [b"", b"\xff", b"\x90", b"\x93\x01\x02\x03", raw(Withdraw(1, 5))[:-1]])
def test_junk_is_a_typed_error(junk):
    with pytest.raises((CodecError, RuleError)):
        read_offer(junk, 1, NOW)


def test_a_note_that_leaves_no_room_for_the_id_is_refused():
    assert make_offer(Transfer(0, 1, b"x" * 48), ID, NOW)
    with pytest.raises(RuleError, match="64 bytes"):
        make_offer(Transfer(0, 1, b"x" * 49), ID, NOW)


@pytest.mark.parametrize("status", list(Status))
def test_records_survive(status):
    record = make_offer(TRADE, ID, NOW).at(status)
    assert record.status is status
    assert OfferRecord.unpack(record.pack()) == record
