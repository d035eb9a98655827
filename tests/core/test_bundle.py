"""Bundles read back as they were written; any change of any byte is refused, with its field or by the checksum."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import DOMAIN, T0, Desk, bodies, call, key, leg, make_terms, packages, perpetual

from channeld.core.bundle import (
    Bundle,
    BundleChecksumError,
    BundleFormatError,
    BundleSignatureError,
    BundleVersionError,
    HalfSigned,
    _checksum,
    bundle_from_json,
    bundle_text,
    bundle_to_json,
    check_bundle,
)
from channeld.core.crypto import address_of, sign_digest
from channeld.core.eip712 import body_hash, channel_id, state_digest
from channeld.core.errors import ChanneldError
from channeld.core.operations import Trade
from channeld.core.state import State, genesis
from channeld.core.terms import Party

KEYS = (key("bundle a"), key("bundle b"))
TERMS = replace(make_terms(), a=Party(address_of(KEYS[0]), b"\xa1" * 20), b=Party(address_of(KEYS[1]), b"\xb2" * 20))
CHANNEL = channel_id(DOMAIN, TERMS)


def signed_by(side, version, body):
    return sign_digest(KEYS[side], state_digest(DOMAIN, CHANNEL, version, body_hash(body)))


def bundle_of(version, body, **changes):
    signatures = (signed_by(0, version, body), signed_by(1, version, body))
    return Bundle(DOMAIN, TERMS, 0, State(CHANNEL, version, body), *signatures, **changes)


def example():
    desk = Desk()
    desk.do(Trade(0, (leg(call(), 5, 150), leg(perpetual(), 1, 3000))), at=T0)
    later = desk.body
    half = HalfSigned(State(CHANNEL, 8, later), signature_a=signed_by(0, 8, later))
    return bundle_of(7, desk.body, halves=(half,), packages=packages(b"ETH".ljust(32, b"\0"), T0, 3000), made_ms=5)


@given(st.integers(1, (1 << 63) - 1), bodies(), bodies(), st.integers(0, 1))
@settings(max_examples=25, deadline=None)
def test_a_bundle_reads_back(version, body, other, side):
    half = HalfSigned(State(CHANNEL, version + 1, other), signature_b=signed_by(1, version + 1, other))
    bundle = replace(bundle_of(version, body, halves=(half,), packages=(b"\1\2",), made_ms=version), side=side)
    assert bundle_from_json(json.loads(bundle_text(bundle))) == bundle
    assert bundle.body_with_hash(body_hash(other)).body == other
    assert bundle.body_with_hash(b"\7" * 32) is None


def test_version_0_needs_no_signature_and_has_none():
    start = Bundle(DOMAIN, TERMS, 1, genesis(CHANNEL))
    assert bundle_from_json(json.loads(bundle_text(start))) == start
    assert start.sigs == b""
    with pytest.raises(BundleFormatError, match="version 0"):
        check_bundle(replace(start, signature_a=b"\1" * 65))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_changed_byte_is_found(data):
    text = bundle_text(example())
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from('0123456789abcdefgABC"{}[]:, xX'))
    changed = text[:place] + letter + text[place + 1 :]
    try:
        parsed = json.loads(changed)
    except ValueError:
        return
    if parsed == json.loads(text):
        return
    with pytest.raises(ChanneldError):
        bundle_from_json(parsed)


def resealed(**changes):
    data = {**bundle_to_json(example()), **changes}
    return {**data, "checksum": _checksum(data)}


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"format": "zip"}, BundleFormatError, "format"),
        ({"formatVersion": 2}, BundleVersionError, "format 2"),
        ({"formatVersion": "1"}, BundleFormatError, "formatVersion"),
        ({"more": 1}, BundleFormatError, "bundle.more"),
        ({"side": "c"}, BundleFormatError, "side"),
        ({"madeMs": -1}, BundleFormatError, "madeMs"),
        ({"domain": {"chainId": 1}}, BundleFormatError, "domain.verifyingContract"),
        ({"domain": {"chainId": 2, "verifyingContract": "0x" + "33" * 20}}, BundleFormatError, "state.channel"),
        ({"signatureA": "0x"}, BundleSignatureError, "signatureA"),
        ({"signatureA": bundle_to_json(example())["signatureB"]}, BundleSignatureError, "signatureA"),
        ({"signatureB": "0x00"}, BundleFormatError, "signatureB"),
        ({"packages": ["0x0"]}, BundleFormatError, "packages"),
        ({"packages": "0x00"}, BundleFormatError, "packages"),
        ({"halfSigned": [{}]}, BundleFormatError, "halfSigned"),
        ({"terms": {}}, BundleFormatError, "terms.a"),
    ],
)
def test_what_is_wrong_is_named(changes, error, words):
    with pytest.raises(error, match=words):
        bundle_from_json(resealed(**changes))


def test_a_half_signed_state_must_be_signed_by_one_of_the_two():
    bundle = example()
    stranger = sign_digest(key("stranger"), b"\1" * 32)
    for half, words in (
        (replace(bundle.halves[0], signature_a=stranger), "signatureA"),
        (replace(bundle.halves[0], signature_a=b""), "no signature"),
        (replace(bundle.halves[0], state=replace(bundle.halves[0].state, channel=b"\1" * 32)), "another channel"),
    ):
        with pytest.raises((BundleSignatureError, BundleFormatError), match=words):
            check_bundle(replace(bundle, halves=(half,)))


def test_without_the_checksum_nothing_is_read():
    data = bundle_to_json(example())
    with pytest.raises(BundleChecksumError):
        bundle_from_json({**data, "madeMs": 6})
    for junk in (None, [], "x", {}, {"format": "channeld-bundle"}):
        with pytest.raises(BundleFormatError):
            bundle_from_json(junk)
