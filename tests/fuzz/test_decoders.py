"""Decoders of strangers' bytes: by Hypothesis here, by atheris in fuzz_decoders.py."""

from __future__ import annotations

import contextlib
import json

import pytest
from decoders import DECODERS, run, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

from channeld.core import wire
from channeld.core.codec import encode
from channeld.core.errors import ChanneldError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=6) | st.binary(max_size=70),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=20,
)
NEAR = st.one_of(
    st.binary(max_size=300),
    PLAIN.map(encode),
    st.tuples(st.sampled_from(sorted(wire.REGISTRY)), st.lists(PLAIN, max_size=8)).map(lambda m: encode([m[0], *m[1]])),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["terms", "state", "a", "b", "body", "side", "format"]), inner, max_size=5
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode()),
    st.sampled_from(["ETH-PERP", "ETH-27DEC30-3000-C", "-1.50", "1e5", "BTC-31DEC99"]).map(str.encode),
)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(DECODERS) - 1), NEAR)
def test_any_bytes_get_a_typed_error_or_what_is_encoded_to_the_same(number, data):
    run(bytes([number]) + data)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(seeds()), st.data())
def test_bytes_that_are_nearly_right_do_so_too(seed, data):
    changed = bytearray(seed)
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(1, len(changed) - 1))
        changed[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    run(bytes(changed))


def test_the_seeds_are_accepted():
    for seed in seeds():
        DECODERS[seed[0]](seed[1:])


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: decoder.__name__)
def test_rubbish_gets_no_more_than_a_typed_error(decoder):
    for raw in (b"", b"\xff" * 40, b"[" * 5_000, b"\xdd\xff\xff\xff\xff"):
        with contextlib.suppress(ChanneldError):
            decoder(raw)
