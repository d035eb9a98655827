"""The exact bytes of batches: round trips, one encoding for each, and everything else refused."""

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import ETH, SALT, T0, batches, call, leg, legs, notes, operations, perpetual

from channeld.core import codec
from channeld.core.codec import CodecError
from channeld.core.crypto import keccak256
from channeld.core.errors import ChanneldError, InternalError, InvalidStateError
from channeld.core.operations import (
    MAX_BATCH_DEPTH,
    NAMES,
    Batch,
    CloseChannel,
    MalformedBatchError,
    Mark,
    Operation,
    OperationBoundError,
    Trade,
    Transfer,
    Withdraw,
    decode_batch,
    encode_batch,
    legs_hash,
    operation_fields,
    operation_from_fields,
    wide,
)
from channeld.core.wad import WAD

W = (5).to_bytes(16, "big")
LEG = [2, ETH, T0, W, W, W, 0, 10**17]


def raw(*fields, time=T0 * 1000, salt=SALT):
    """A batch of whatever fields."""
    return msgpack.packb([time, salt, list(fields)], use_bin_type=True)


@given(batches())
@settings(deadline=None)
def test_round_trip(batch):
    encoded = encode_batch(batch)
    assert decode_batch(encoded) == batch
    assert encode_batch(decode_batch(encoded)) == encoded


@given(operations())
@settings(deadline=None)
def test_operations_alone_round_trip_too(operation):
    assert operation_from_fields(codec.decode(codec.encode(operation_fields(operation)))) == operation
    assert operation_fields(operation)[1] in NAMES


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_with_a_typed_error(data):
    with pytest.raises(ChanneldError):
        decode_batch(data)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.binary(max_size=40) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=9),
    max_leaves=30,
)


@given(
    values
    | st.lists(values, min_size=3, max_size=3)
    | st.lists(st.tuples(st.integers(0, 1), st.integers(1, 6), values))
)
def test_any_other_value_is_refused_with_a_typed_error(value):
    for candidate in (value, [T0 * 1000, SALT, value], [T0 * 1000, SALT, [value]]):
        try:
            batch = decode_batch(codec.encode(candidate))
        except (MalformedBatchError, OperationBoundError, InvalidStateError, CodecError):
            continue
        assert encode_batch(batch) == codec.encode(candidate)


def test_wide_integers_are_sixteen_bytes_of_twos_complement():
    assert wide(0) == b"\0" * 16
    assert wide(-1) == b"\xff" * 16
    assert wide((1 << 127) - 1) == b"\x7f" + b"\xff" * 15
    assert wide(-(1 << 127)) == b"\x80" + b"\0" * 15
    for beyond in (1 << 127, -(1 << 127) - 1):
        with pytest.raises(OperationBoundError):
            wide(beyond)


def test_the_known_bytes_of_a_batch():
    batch = Batch(1_750_000_000_123, SALT, (Transfer(1, 5, b"hi"), CloseChannel(0)))
    assert (
        encode_batch(batch).hex()
        == (
            "93"  # three fields
            "cf000001977420dc7b"  # timeMs, the shortest form: uint 64
            "c410" + "5a" * 16 + "92"  # salt, two operations
            "940103c41000000000000000000000000000000005c4026869"
            "920006"
        )
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ([], "must be an array"),
        ([0], "must be an array"),
        (7, "must be an array"),
        ([0, 7], "7 is no operation"),
        ([0, 0], "0 is no operation"),
        ([b"", 3, W, b""], "origin must be an integer"),
        ([True, 3, W, b""], "origin must be an integer"),
        ([0, 3, 5, b""], "units must be bin"),
        ([0, 3, W[1:], b""], "units must be 16 bytes"),
        ([0, 3, W, "text"], "memo must be bin"),
        ([0, 3, W], "must have 2 fields"),
        ([0, 3, W, b"", 0], "must have 2 fields"),
        ([0, 4, W, 3], "depositedB must be bin"),
        ([0, 5], "must have 1 fields"),
        ([0, 6, 0], "must have 0 fields"),
        ([0, 1, 5, W, b""], "legs must be an array"),
        ([0, 1, [LEG[:-1]], W, b""], "leg 0 must have 8 fields"),
        ([0, 1, [[4, *LEG[1:]]], W, b""], "kind must be 0 to 3"),
        ([0, 1, [[True, *LEG[1:]]], W, b""], "kind must be 0 to 3"),
        ([0, 1, [[2, b"ETH", *LEG[2:]]], W, b""], "feed must be 32 bytes"),
        ([0, 1, [LEG], 5, b""], "fee must be bin"),
        ([0, 1, [LEG] * 65, W, b""], "at most 64"),
        ([0, 2, 5, [], [], [], []], "must have 6 fields"),
        ([0, 2, b"", [], [], [], [], []], "time must be an integer"),
        ([0, 2, 5, [b"x"], [], [], [], []], "feed must be 32 bytes"),
        ([0, 2, 5, [], ["x"], [], [], []], "package must be bin"),
        ([0, 2, 5, [], [b""] * 1025, [], [], []], "at most 1024"),
        ([0, 2, 5, [], [], [W], [0], []], "carry must be an integer"),
        ([0, 2, 5, [], [], [], [], [[ETH]]], "flagged pair must have 2 fields"),
        ([0, 2, 5, [], [], [], [], [5]], "flagged pair must be an array"),
    ],
)
def test_malformed_operations_are_named(fields, words):
    with pytest.raises(MalformedBatchError, match=words):
        decode_batch(raw(fields))


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ([2, 6], OperationBoundError),
        ([-1, 6], OperationBoundError),
        ([0, 3, b"\xff" * 16, b""], OperationBoundError),
        ([0, 3, b"\0" * 16, b""], OperationBoundError),
        ([0, 3, W, b"x" * 65], OperationBoundError),
        ([0, 4, b"\xff" * 16, W], OperationBoundError),
        ([0, 1, [], W, b""], OperationBoundError),
        ([0, 1, [[2, ETH, T0, b"\xff" * 16, *LEG[4:]]], W, b""], InvalidStateError),
        ([0, 1, [[0, ETH, T0, b"\0" * 16, W, W, 0, 0]], W, b""], InvalidStateError),
        ([0, 1, [[*LEG[:4], b"\0" * 16, *LEG[5:]]], W, b""], OperationBoundError),
        ([0, 1, [[*LEG[:5], b"\xff" * 16, *LEG[6:]]], W, b""], OperationBoundError),
        ([0, 2, -1, [], [], [], [], []], OperationBoundError),
    ],
)
def test_fields_out_of_bounds_are_named(fields, error):
    with pytest.raises(error):
        decode_batch(raw(fields))


@pytest.mark.parametrize(
    "data",
    [
        raw(time=-1),
        raw(salt=b"\0" * 15),
        raw(salt="x" * 16),
        raw(time=b"\0"),
        msgpack.packb([T0, SALT]),
        msgpack.packb([T0, SALT, [], 0]),
        raw(*[[0, 6]] * 257),
    ],
)
def test_malformed_batches(data):
    with pytest.raises((MalformedBatchError, OperationBoundError)):
        decode_batch(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        raw([0, 6])[:-1],
        raw([0, 6]) + b"\0",
        raw([0, 6]).replace(b"\x92\x00\x06", b"\x92\xcc\x00\x06"),  # zero in two bytes
        msgpack.packb({0: 6}),
        raw([0, 6.0]),
        raw([0, 2, 5, [], [], [], [], [[[0]]]]),  # deeper than any batch
        b"\xc6\x7f\xff\xff\xff",
    ],
)
def test_what_is_not_canonical_messagepack_is_the_codecs_to_refuse(data):
    with pytest.raises(CodecError):
        decode_batch(data)


def test_the_deepest_batch_is_as_deep_as_allowed():
    def depth(value):
        return 1 + max((depth(v) for v in value), default=0) if isinstance(value, list) else 0

    mark = Mark(0, 1, (ETH,), (), (), (), ((ETH, 5),))
    assert depth(codec.decode(encode_batch(Batch(1, SALT, (mark,))))) == MAX_BATCH_DEPTH


def test_a_batch_beyond_its_size_is_refused():
    mark = Mark(0, 1, (), (b"x" * 4096,) * 300)
    with pytest.raises(OperationBoundError, match="1048576"):
        encode_batch(Batch(1, SALT, (mark,)))


def test_an_operation_is_one_of_six():
    with pytest.raises(InternalError):
        operation_fields(Operation(0))


def test_a_batchs_second_is_rounded_down():
    assert Batch(1999, SALT, ()).second == 1


@given(st.lists(legs(), min_size=1, max_size=3), st.integers(-(1 << 127), (1 << 127) - 1), notes)
@settings(deadline=None)
def test_legs_hash_is_over_the_trades_own_bytes(drawn, fee, reference):
    trade = Trade(1, tuple(drawn), fee, reference)
    assert legs_hash(trade.legs, fee, reference) == keccak256(codec.encode(operation_fields(trade)[2:]))


def test_legs_hash_binds_order_size_fee_and_reference():
    one, other = leg(call(), 1, 150), leg(perpetual(), 1, 3000)
    hashes = [
        legs_hash((one, other), 0, b""),
        legs_hash((other, one), 0, b""),
        legs_hash((one,), 0, b""),
        legs_hash((one,), 1, b""),
        legs_hash((one,), 0, b"x"),
        legs_hash((leg(call(), -1, 150),), 0, b""),
    ]
    assert len(set(hashes)) == len(hashes)


def test_bools_and_floats_are_no_integers():
    for make in (lambda: Withdraw(0, True), lambda: Withdraw(0, 1.0), lambda: Batch(1.5, SALT, ())):
        with pytest.raises(OperationBoundError):
            make()
    assert Withdraw(0, WAD).units == WAD
