"""The codec: one encoding per value, and nothing but a CodecError for any bytes."""

from __future__ import annotations

import enum
import time

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channeld.core import codec
from channeld.core.codec import (
    CodecError,
    ForbiddenTypeError,
    MalformedEncodingError,
    NotCanonicalError,
    NotEncodableError,
    TooDeepError,
    TooLargeError,
    decode,
    encode,
)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**64 - 1)
    | st.binary(max_size=300)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=20), max_leaves=60)


@given(VALUES)
def test_every_value_comes_back_from_its_bytes(value):
    assert decode(encode(value)) == value


@given(st.binary(max_size=400))
@settings(max_examples=500)
def test_random_bytes_decode_to_what_encodes_to_them_or_are_refused(raw):
    try:
        value = decode(raw)
    except CodecError:
        return
    assert encode(value) == raw


@given(VALUES, st.data())
def test_an_altered_encoding_is_another_value_or_refused(value, data):
    raw = bytearray(encode(value))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        other = decode(bytes(raw))
    except CodecError:
        return
    assert encode(other) == raw


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", MalformedEncodingError),
        (b"\xc1", MalformedEncodingError),
        (b"\x92\x00", MalformedEncodingError),
        (b"\x00\x00", MalformedEncodingError),
        (b"\xa1\xff", MalformedEncodingError),
        (b"\xa3\xed\xa0\x80", MalformedEncodingError),
        (b"\xc6\xff\xff\xff\xff", MalformedEncodingError),
        (b"\xcc\x01", NotCanonicalError),
        (b"\xd0\x01", NotCanonicalError),
        (b"\xd9\x01a", NotCanonicalError),
        (b"\xc5\x00\x01a", NotCanonicalError),
        (b"\xdc\x00\x01\x00", NotCanonicalError),
        (b"\x80", ForbiddenTypeError),
        (b"\x81\x00\x00", ForbiddenTypeError),
        (b"\x91\x80", ForbiddenTypeError),
        (b"\xd4\x05\x00", ForbiddenTypeError),
        (b"\xc7\x00\x05", ForbiddenTypeError),
        (b"\xd6\xff\x00\x00\x00\x00", ForbiddenTypeError),
        (b"\xcb" + bytes(8), ForbiddenTypeError),
        (b"\x91\xca" + bytes(4), ForbiddenTypeError),
        (b"\xdd\xff\xff\xff\xff", TooLargeError),
        (b"\x91" * 17 + b"\x00", TooDeepError),
        (b"\x91" * 5000 + b"\x00", TooDeepError),
    ],
)
def test_what_is_refused_and_why(raw, error):
    with pytest.raises(error):
        decode(raw)


def test_limits_are_inclusive():
    assert decode(b"\x91" * 16 + b"\x00") is not None
    assert decode(b"\xc4\x01x", max_size=3) == b"x"
    with pytest.raises(TooLargeError):
        decode(b"\xc4\x01x", max_size=2)
    with pytest.raises(TooDeepError):
        decode(encode([[1]]), max_depth=1)
    assert decode(encode(list(range(codec.MAX_ELEMENTS)))) == list(range(codec.MAX_ELEMENTS))
    with pytest.raises(NotEncodableError):
        encode([0] * (codec.MAX_ELEMENTS + 1))


@pytest.mark.parametrize(
    "value",
    [2**64, -(2**63) - 1, 1.0, [1.5], {}, [{}], "\ud800", object(), [msgpack.Timestamp(1)], bytearray(b"x")],
)
def test_what_cannot_be_encoded_is_refused_and_leaves_the_encoder_sound(value):
    with pytest.raises(NotEncodableError):
        encode(value)
    assert encode([1]) == b"\x91\x01"


def test_self_containing_and_deep_values_are_refused():
    loop: list = []
    loop.append(loop)
    with pytest.raises(NotEncodableError):
        encode(loop)


def test_tuples_and_enumerations_encode_as_what_they_are():
    kind = enum.IntEnum("kind", {"CALL": 2})
    assert encode((kind.CALL, (b"x",))) == encode([2, [b"x"]])


def test_arrays_that_claim_much_cost_little():
    began = time.perf_counter()
    with pytest.raises(CodecError):
        decode(b"\xdc\x0f\xff" * 1000)
    assert time.perf_counter() - began < 2
