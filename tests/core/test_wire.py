"""Peer messages: what goes out comes back; what does not fit is a WireError and nothing else."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channeld.core import wire
from channeld.core.codec import CodecError, encode
from channeld.core.wire import SignedDocument, WireError, from_wire, pack, to_wire, unpack

CHANNEL, SIGNATURE, ADDRESS, OFFER = b"\x11" * 32, b"\x22" * 65, b"\x33" * 20, b"\x44" * 16
PROPOSE = wire.Propose(CHANNEL, 3, b"batch", SIGNATURE)
REJECT = wire.Reject(CHANNEL, 3, 2211, "stale", 67, b"empty", SIGNATURE)
DOCUMENT = SignedDocument(1, 2, SIGNATURE)
EXAMPLES = (
    wire.Sync(CHANNEL, 2, b"body", SIGNATURE, SIGNATURE, (PROPOSE, PROPOSE), REJECT, (DOCUMENT,)),
    wire.Sync(CHANNEL, 0, b"", b"", b"", (), None, ()),
    PROPOSE,
    wire.Accept(CHANNEL, 3, SIGNATURE),
    REJECT,
    wire.Document(CHANNEL, DOCUMENT),
    wire.Recover(CHANNEL, 1 << 33, b"empty", b""),
    wire.Sync(CHANNEL, 0, b"", b"", b"", (), None, (), wire.Recover(CHANNEL, 1 << 33, b"empty", SIGNATURE)),
    wire.Offer(CHANNEL, b"batch"),
    wire.OfferReply(CHANNEL, OFFER, 0, ""),
    wire.ProposeTerms(31337, ADDRESS, b"terms"),
    wire.AcceptTerms(CHANNEL),
    wire.Failure(CHANNEL, 3111, "a second exchange came within one session"),
    wire.MarginNotice(CHANNEL, OFFER, 7, 1_750_000_000, 1_750_000_600, wire.pack_figures(5, -3, 8, 10)),
    wire.MarginAnswer(CHANNEL, OFFER, wire.pack_figures(0, 0, 0, 0)),
    wire.ResumeOffer(CHANNEL, 1, 1_750_000_600, SIGNATURE),
    wire.MarkBands(CHANNEL, b"bands"),
    wire.RequestQuote(CHANNEL, b"request"),
    wire.GiveQuote(CHANNEL, b"quote", SIGNATURE),
    wire.TakeQuote(CHANNEL, b"batch", SIGNATURE),
    wire.PassQuote(CHANNEL, OFFER, 0, ""),
    wire.StreamMarket(CHANNEL, b"market"),
    wire.GiveBlob(1_764_550_000_000, b"sealed"),
    wire.BlobKept(1_764_550_000_000),
    wire.ReturnBlob(1_764_550_000_000, b"sealed"),
)

channels, signatures = st.binary(min_size=32, max_size=32), st.binary(min_size=65, max_size=65)
versions, blobs = st.integers(0, (1 << 64) - 1), st.binary(max_size=64)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
codes = st.integers(0, (1 << 31) - 1)
documents = st.builds(SignedDocument, st.integers(0, 2), versions, signatures)
proposals = st.builds(wire.Propose, channels, versions, blobs, signatures)
rejections = st.builds(wire.Reject, channels, versions, codes, texts, versions, blobs, signatures)
optional = st.just(b"") | signatures
recoveries = st.builds(wire.Recover, channels, versions, blobs, optional)
messages = st.one_of(
    st.builds(
        wire.Sync,
        channels,
        versions,
        blobs,
        optional,
        optional,
        st.lists(proposals, max_size=3).map(tuple),
        st.none() | rejections,
        st.lists(documents, max_size=4).map(tuple),
        st.none() | recoveries,
    ),
    recoveries,
    proposals,
    rejections,
    st.builds(wire.Accept, channels, versions, signatures),
    st.builds(wire.Document, channels, documents),
    st.builds(wire.Offer, channels, blobs),
    st.builds(wire.OfferReply, channels, st.binary(min_size=16, max_size=16), codes, texts),
    st.builds(wire.RequestQuote, channels, blobs),
    st.builds(wire.GiveQuote, channels, blobs, signatures),
    st.builds(wire.TakeQuote, channels, blobs, signatures),
    st.builds(wire.PassQuote, channels, st.binary(min_size=16, max_size=16), codes, texts),
    st.builds(wire.StreamMarket, channels, blobs),
    st.builds(wire.ProposeTerms, versions, st.binary(min_size=20, max_size=20), blobs),
    st.builds(wire.AcceptTerms, channels),
    st.builds(
        wire.MarginNotice,
        channels,
        st.binary(min_size=16, max_size=16),
        versions,
        versions,
        versions,
        st.binary(min_size=64, max_size=64),
    ),
    st.builds(wire.MarginAnswer, channels, st.binary(min_size=16, max_size=16), st.binary(min_size=64, max_size=64)),
    st.builds(wire.MarkBands, channels, blobs),
    st.builds(wire.ResumeOffer, channels, st.integers(0, (1 << 32) - 1), versions, signatures),
    st.builds(wire.Failure, channels, codes, texts),
    st.builds(wire.GiveBlob, versions, st.binary(min_size=1, max_size=64)),
    st.builds(wire.BlobKept, versions),
    st.builds(wire.ReturnBlob, versions, st.binary(min_size=1, max_size=64)),
)
plain = st.one_of(
    st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 64) - 1), st.binary(max_size=70), st.text(max_size=5)
)
anything = st.recursive(plain, lambda inner: st.lists(inner, max_size=6), max_leaves=8)


def test_every_type_has_an_example():
    assert {type(m) for m in EXAMPLES} == set(wire.REGISTRY.values())
    assert {cls.TYPE: cls for cls in wire.REGISTRY.values()} == wire.REGISTRY


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_a_message_comes_back_as_it_went(message):
    array = to_wire(message)
    assert array[0] == message.TYPE
    assert len(array) == 1 + len(fields(message))
    assert from_wire(array) == message
    assert unpack(pack(message)) == message


@given(messages)
@settings(max_examples=200)
def test_any_message_comes_back_as_it_went(message):
    raw = pack(message)
    assert unpack(raw) == message
    assert pack(unpack(raw)) == raw


@given(st.sampled_from(EXAMPLES).map(to_wire), st.data())
@settings(max_examples=150)
def test_a_wrong_field_is_a_wire_error_and_nothing_else(array, data):
    place = data.draw(st.integers(0, len(array) - 1))
    array[place] = data.draw(anything)
    try:
        message = from_wire(array)
    except WireError:
        return
    assert from_wire(to_wire(message)) == message


@given(anything)
@settings(max_examples=150)
def test_random_arrays_are_wire_errors(array):
    try:
        from_wire(array)
    except WireError:
        return
    assert isinstance(array, list)
    assert array[0] in wire.REGISTRY


@given(st.sampled_from(sorted(wire.REGISTRY)), st.lists(anything, max_size=9))
@settings(max_examples=150)
def test_random_fields_are_wire_errors(number, rest):
    try:
        message = from_wire([number, *rest])
    except WireError:
        return
    assert to_wire(message) == [number, *rest]


@given(st.binary(max_size=200))
def test_random_bytes_are_typed_errors(raw):
    with pytest.raises((CodecError, WireError)):
        unpack(b"\xc1" + raw)
    try:
        unpack(raw)
    except (CodecError, WireError):
        return


@pytest.mark.parametrize(
    ("message", "field", "value", "said"),
    [
        (PROPOSE, "channel", b"\x11" * 31, "Propose.channel must be 32 bytes"),
        (PROPOSE, "channel", "1" * 32, "Propose.channel must be 32 bytes"),
        (PROPOSE, "version", -1, "Propose.version must be an integer"),
        (PROPOSE, "version", 1 << 64, "Propose.version must be an integer"),
        (PROPOSE, "version", True, "Propose.version must be an integer"),
        (PROPOSE, "batch", b"\0" * (wire.MAX_BATCH + 1), "Propose.batch must be at most"),
        (PROPOSE, "batch", None, "Propose.batch must be at most"),
        (PROPOSE, "signature", b"", "Propose.signature must be 65 bytes"),
        (REJECT, "signature", b"", "Reject.signature must be 65 bytes"),
        (REJECT, "reason", "x" * 513, "Reject.reason must be a text of at most 512"),
        (REJECT, "reason", b"bytes", "Reject.reason must be a text"),
        (REJECT, "code", 1 << 31, "Reject.code must be an integer"),
        (EXAMPLES[0], "signature_a", b"\0" * 64, "Sync.signature_a must be 0 or 65 bytes"),
        (EXAMPLES[0], "proposals", [to_wire(PROPOSE)] * 65, "Sync.proposals must be an array of at most 64"),
        (EXAMPLES[0], "proposals", [to_wire(REJECT)], "Sync.proposals must hold Propose messages"),
        (EXAMPLES[0], "proposals", [[]], "Sync.proposals must hold Propose messages"),
        (EXAMPLES[0], "proposals", None, "Sync.proposals must be an array"),
        (EXAMPLES[0], "rejection", to_wire(PROPOSE), "Sync.rejection must hold Reject messages"),
        (EXAMPLES[0], "documents", [[1, 2, SIGNATURE]] * 5, "Sync.documents must be an array of at most 4"),
        (EXAMPLES[0], "documents", [[1, 2]], "must be \\[kind, version, signature\\]"),
        (EXAMPLES[5], "document", [3, 2, SIGNATURE], "must be an integer in 0..2"),
        (EXAMPLES[5], "document", [1, 2, b""], "must be 65 bytes"),
        (EXAMPLES[9], "offer", b"", "OfferReply.offer must be 16 bytes"),
        (EXAMPLES[10], "adjudicator", b"", "ProposeTerms.adjudicator must be 20 bytes"),
    ],
)
def test_each_wrong_field_is_named(message, field, value, said):
    array = to_wire(message)
    array[1 + [f.name for f in fields(message)].index(field)] = value
    with pytest.raises(WireError, match=said):
        from_wire(array)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        ([], "starts with its type"),
        (None, "starts with its type"),
        (7, "starts with its type"),
        (b"\x01", "starts with its type"),
        ([True, CHANNEL], "starts with its type"),
        (["1"], "starts with its type"),
        ([99, CHANNEL], "message type 99 is unknown"),
        ([21], "AcceptTerms has 1 fields, not 0"),
        ([21, CHANNEL, CHANNEL], "AcceptTerms has 1 fields, not 2"),
    ],
)
def test_what_is_no_message_is_named(array, said):
    with pytest.raises(WireError, match=said):
        from_wire(array)


def test_messages_nest_once_whatever_an_array_holds():
    array = to_wire(EXAMPLES[1])
    for _ in range(5000):
        outer = to_wire(EXAMPLES[1])
        outer[6] = [array]
        array = outer
    with pytest.raises(WireError, match="must hold Propose"):
        from_wire(array)


def test_recorded_bytes_beyond_the_limit_are_refused():
    with pytest.raises(CodecError):
        unpack(encode([b"\0" * (1 << 20)] * 5))


figure = st.integers(1 - (1 << 127), (1 << 127) - 1)


@given(st.tuples(figure, figure, figure, figure))
def test_figures_come_back_as_they_went(values):
    assert wire.unpack_figures(wire.pack_figures(*values)) == values


def test_figures_beyond_their_bytes_are_cut_to_the_largest():
    most = (1 << 127) - 1
    assert wire.unpack_figures(wire.pack_figures(1 << 200, -(1 << 200), 0, 1)) == (most, -most, 0, 1)
