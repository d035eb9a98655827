"""What a desk's blob holds comes back as it was, to that desk alone, and no altered byte goes unnoticed."""

from __future__ import annotations

import hashlib
import hmac
import zlib
from pathlib import Path

import pytest
from desk_world import Desk, make_terms
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl import bindings

from channeld.core import records
from channeld.core.codec import decode
from channeld.core.crypto import sign_digest
from channeld.core.eip712 import Domain, body_hash, channel_id, state_digest
from channeld.core.state import Account, Body
from channeld.core.wad import WAD
from channeld.core.wire import MAX_BLOB
from channeld.daemon.backup_file import UnsoundBackupError
from channeld.daemon.blob_format import (
    AlteredBlobError,
    BlobTooLargeError,
    Content,
    KeptChannel,
    open_blob,
    seal_blob,
)

MAKER, TAKER, OTHER = (Desk(n, bytes([i]) * 32, bytes([i]) * 20, Path(), {}) for i, n in enumerate("mto", 1))
DOMAIN = Domain(31337, b"\x05" * 20)
TERMS = make_terms(MAKER, TAKER, b"\x06" * 20, tuple(sorted(d.address for d in (MAKER, TAKER, OTHER))))
CHANNEL = channel_id(DOMAIN, TERMS)
RECORD = records.ChannelRecord(
    CHANNEL, TAKER.address, 0, records.encode_terms(TERMS), DOMAIN.chain_id, DOMAIN.adjudicator, "open", 7
)
SALT = b"\x5a" * 32


def state(version, amount, key_b=TAKER.key):
    """A state of the channel with both signatures: `amount` units on either side."""
    body = Body(1_700_000_000, WAD, b"\x0a" * 32, Account(amount, amount, 0), Account(amount, amount, 0), ())
    digest = state_digest(DOMAIN, CHANNEL, version, body_hash(body))
    pair = sign_digest(MAKER.key, digest), sign_digest(key_b, digest)
    return records.CosignedState(CHANNEL, version, body_hash(body), *pair, records.encode_body(body))


names = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
contents = st.builds(
    Content,
    st.integers(0, 1 << 62),
    names,
    names,
    st.lists(st.tuples(st.binary(min_size=20, max_size=20), names, names), max_size=3).map(tuple),
    st.lists(
        st.builds(
            KeptChannel,
            st.just(RECORD),
            st.booleans(),
            st.integers(0, 1 << 62),
            st.none() | st.builds(state, st.integers(1, 1 << 60), st.integers(0, 1 << 100)),
        ),
        max_size=2,
    ).map(tuple),
)
numbers = st.integers(0, (1 << 64) - 1)


def sealed(content, number=9, salt=SALT):
    return seal_blob(MAKER.key, salt, MAKER.address, TAKER.address, number, content)


def opened(blob, number=9):
    return open_blob(MAKER.key, MAKER.address, TAKER.address, number, blob)


@given(contents, numbers, st.binary(min_size=32, max_size=32))
@settings(max_examples=60, deadline=None)
def test_a_blob_comes_back_as_it_was(content, number, salt):
    blob = sealed(content, number, salt)
    assert opened(blob, number) == content
    # of its size a peer learns steps of 4 KiB
    assert (len(blob) - 1 - 32 - 16) % 4096 == 0


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_no_altered_byte_goes_unnoticed(data):
    blob = sealed(Content(1, "desk", "", (), (KeptChannel(RECORD, False, 4, state(3, 5)),)))
    place = data.draw(st.integers(0, len(blob) - 1))
    flip = data.draw(st.integers(1, 255))
    with pytest.raises(AlteredBlobError):
        opened(blob[:place] + bytes([blob[place] ^ flip]) + blob[place + 1 :])
    with pytest.raises(AlteredBlobError):
        opened(blob[:place])


@given(st.binary(max_size=200), numbers)
@settings(max_examples=80, deadline=None)
def test_bytes_of_a_stranger_are_no_blob(raw, number):
    with pytest.raises(AlteredBlobError):
        opened(raw, number)


def test_a_blob_is_of_one_desk_one_peer_and_one_number():
    blob = sealed(Content(1, "desk", "", (), ()))
    for key, desk, peer, number in (
        (OTHER.key, MAKER.address, TAKER.address, 9),
        (MAKER.key, OTHER.address, TAKER.address, 9),
        (MAKER.key, MAKER.address, OTHER.address, 9),
        (MAKER.key, MAKER.address, TAKER.address, 8),
    ):
        with pytest.raises(AlteredBlobError):
            open_blob(key, desk, peer, number, blob)


def test_a_state_that_both_have_not_signed_is_found_out():
    forged = KeptChannel(RECORD, False, 4, state(3, 5, OTHER.key))
    with pytest.raises(UnsoundBackupError, match="not signed by both"):
        opened(sealed(Content(1, "desk", "", (), (forged,))))
    of_another = open_blob, (MAKER.key, MAKER.address, OTHER.address, 9)
    blob = seal_blob(MAKER.key, SALT, MAKER.address, OTHER.address, 9, Content(1, "", "", (), (forged,)))
    with pytest.raises(UnsoundBackupError, match="no channel of this desk with this peer"):
        of_another[0](*of_another[1], blob)


def test_what_no_peer_keeps_is_not_sealed():
    noise = b"".join(hashlib.sha256(bytes([i % 256, i // 256])).digest() for i in range(MAX_BLOB // 32)).hex()
    with pytest.raises(BlobTooLargeError):
        sealed(Content(1, noise, noise, (), ()))


def test_the_bytes_are_those_that_the_page_describes():
    """By RFC 5869 and RFC 8439, put together here anew from docs/protocol.md, 9.13."""
    content = Content(
        1, "desk", "{}", ((TAKER.address, "taker", "ws://host:1"),), (KeptChannel(RECORD, True, 4, None),)
    )
    blob = sealed(content, 9)
    bound = b"\x01" + MAKER.address + TAKER.address + (9).to_bytes(8, "big")
    extracted = hmac.new(blob[1:33], MAKER.key, hashlib.sha256).digest()
    key = hmac.new(extracted, b"channeld peer blob" + bound + b"\x01", hashlib.sha256).digest()
    plain = bindings.crypto_aead_chacha20poly1305_ietf_decrypt(blob[33:], bound, bytes(12), key)
    packed = zlib.decompress(plain[4 : 4 + int.from_bytes(plain[:4], "big")])
    row = [31337, DOMAIN.adjudicator, 0, RECORD.terms, "open", 7, True, 4, 0, b"", b"", b""]
    assert decode(packed) == [1, "desk", "{}", [[TAKER.address, "taker", "ws://host:1"]], [row]]
