"""Terms and bodies survive the way to the disk and back; damaged bytes are refused, never misread."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channeld.core import codec
from channeld.core.errors import ChanneldError
from channeld.core.record_encoding import MAX_BODY_BYTES, MAX_TERMS_BYTES
from channeld.core.records import (
    ChannelRecord,
    PutBatch,
    PutSigned,
    RecordDecodeError,
    RecordValueError,
    decode_body,
    decode_terms,
    encode_body,
    encode_terms,
)
from channeld.core.state import MAX_FEED_EXPIRIES, Account, Body, Instrument, Kind, Position
from channeld.core.terms import Market, Oracle, Party, Terms, feed_id
from channeld.core.wad import WAD

FEEDS = [feed_id(symbol) for symbol in ("BTC", "ETH", "SOL")]
U64 = st.integers(0, 2**64 - 1)
U127 = st.integers(0, 2**127 - 1)
addresses = st.binary(min_size=20, max_size=20).filter(any)


@st.composite
def bodies(draw):
    keys = draw(
        st.sets(
            st.tuples(
                st.sampled_from([Kind.PERPETUAL, Kind.FUTURE, Kind.CALL, Kind.PUT]),
                st.sampled_from(FEEDS),
                st.integers(1, 5).map(lambda n: n * (2**63 // 5)),
                st.integers(1, 2**96 - 1),
            ),
            max_size=64,
        )
    )
    unique = {(k, feed, expiry if k else 0, strike if k >= Kind.CALL else 0) for k, feed, expiry, strike in keys}
    sizes = st.integers(-(2**95) + 1, 2**95 - 1).filter(bool)
    carries = st.integers(-5 * WAD, 5 * WAD)
    vols = st.integers(WAD // 100, 10 * WAD)
    carry_of, vol_of, positions = {}, {}, []
    for k, feed, expiry, strike in sorted(unique):
        if (feed, expiry) not in carry_of:
            if len(carry_of) == MAX_FEED_EXPIRIES:
                continue
            carry_of[feed, expiry] = draw(carries)
        if k >= Kind.CALL and (feed, expiry, strike) not in vol_of:
            vol_of[feed, expiry, strike] = draw(vols)
        vol = vol_of[feed, expiry, strike] if k >= Kind.CALL else 0
        mark = draw(st.integers(0, 2**100 - 1))
        positions.append(Position(Instrument(k, feed, expiry, strike), draw(sizes), mark, carry_of[feed, expiry], vol))
    a, b = draw(U127), draw(U127)
    moved = draw(st.integers(-min(a, b), min(a, b)))
    accounts = Account(a + moved, a), Account(b - moved, b)
    mark = draw(st.integers(1, 2**96 - 1))
    return Body(draw(U64), mark, draw(st.binary(min_size=32, max_size=32)), *accounts, tuple(positions))


@st.composite
def terms(draw):
    signers = tuple(sorted(draw(st.sets(addresses, min_size=1, max_size=9))))
    tick, samples = draw(st.integers(1, 60)), draw(st.integers(1, 45 // len(signers)))
    gap = tick * draw(st.integers(1, 5))
    cure = samples * gap + draw(st.integers(0, 1000))
    markets = tuple(
        Market(feed, *(draw(U64) for _ in range(2)), draw(st.integers(0, WAD)), *(draw(U64) for _ in range(2)))
        for feed in sorted(draw(st.sets(st.sampled_from(FEEDS), min_size=1)))
    )
    first, second = draw(st.lists(addresses, min_size=2, max_size=2, unique=True))
    quorum = draw(st.integers(len(signers) // 2 + 1, len(signers)))
    return Terms(
        Party(first, draw(addresses)),
        Party(second, draw(addresses)),
        draw(addresses),
        draw(st.integers(6, 18)),
        bytes(32),
        draw(st.integers(0, WAD)),
        Oracle(signers, quorum, tick, samples, gap, draw(st.integers(0, 2**32 - 1)), cure + tick),
        markets,
        draw(st.integers(WAD, 2**64 - 1)),
        draw(U64),
        cure + draw(st.integers(0, 10_000)),
        cure,
        draw(st.integers(0, 1)),
        draw(st.binary(min_size=32, max_size=32)),
    )


@given(bodies())
def test_a_body_survives(body):
    raw = encode_body(body)
    assert decode_body(raw) == body
    assert len(raw) <= MAX_BODY_BYTES


@given(terms())
def test_terms_survive(value):
    raw = encode_terms(value)
    assert decode_terms(raw) == value
    assert len(raw) <= MAX_TERMS_BYTES


def test_the_widest_values_survive():
    widest = 2**128 - 1
    body = Body(2**64 - 1, 2**96 - 1, b"\xff" * 32, Account(widest, widest), Account(0, widest, widest), ())
    assert decode_body(encode_body(body)) == body


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_with_a_typed_error(raw):
    for decode in (decode_body, decode_terms):
        with pytest.raises(RecordDecodeError):
            decode(raw)


@given(bodies(), st.data())
def test_a_damaged_body_is_refused_or_is_another_valid_body(body, data):
    raw = bytearray(encode_body(body))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        decoded = decode_body(bytes(raw))
    except ChanneldError as error:
        assert isinstance(error, RecordDecodeError)  # noqa: PT017 - either outcome is right
    else:
        assert encode_body(decoded) == bytes(raw)


@pytest.mark.parametrize("index", range(6))
def test_a_field_of_a_wrong_type_is_refused(index):
    body = Body(7, WAD, bytes(32), Account(1, 1), Account(), ())
    for wrong in (None, "text", [], -1, True, b"\1"):
        fields = codec.decode(encode_body(body))
        if index == 5 and wrong == []:
            continue
        fields[index] = wrong
        with pytest.raises(RecordDecodeError):
            decode_body(codec.encode(fields))


def test_records_refuse_what_no_record_may_have():
    good = ChannelRecord(bytes(32), bytes(20), 0, b"", 1, bytes(20), "open", 0)
    for field, wrong in (("channel", b""), ("peer", bytes(19)), ("side", 2), ("chain_id", -1), ("status", 7)):
        with pytest.raises(RecordValueError):
            dataclasses.replace(good, **{field: wrong})
    for make in (
        lambda: PutBatch(bytes(31), 1, b""),
        lambda: PutBatch(bytes(32), 2**63, b""),
        lambda: PutBatch(bytes(32), True, b""),
        lambda: PutSigned(bytes(32), 1, bytes(31), bytes(65)),
        lambda: PutSigned(bytes(32), 1, bytes(32), bytes(64)),
    ):
        with pytest.raises(RecordValueError):
            make()
