"""Keccak and ECDSA against independent implementations, and every way a signature can be wrong."""

import contextlib
import importlib
import sys

import pytest
from Crypto.Hash import keccak as portable
from eth_keys import keys
from eth_utils import to_checksum_address
from hypothesis import given
from hypothesis import strategies as st
from strategies import MAKER, TAKER

from channeld.core import crypto
from channeld.core.crypto import (
    CURVE_ORDER,
    PrivateKeyError,
    SignatureError,
    address_of,
    checksum_address,
    keccak256,
    recover,
    sign_digest,
    verify,
)

private_keys = st.integers(1, CURVE_ORDER - 1).map(lambda n: n.to_bytes(32, "big"))
digests = st.binary(min_size=32, max_size=32)


def test_keccak_known_values():
    assert keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert keccak256(b"abc").hex() == "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"


@given(st.binary(max_size=400))
def test_keccak_agrees_with_the_portable_one(data):
    assert keccak256(data) == portable.new(digest_bits=256, data=data).digest()


def test_without_the_fast_build_the_fallback_serves(monkeypatch):
    monkeypatch.setitem(sys.modules, "sha3", None)
    hasher, fast = crypto._load_keccak()
    assert not fast
    assert hasher(b"abc").digest() == keccak256(b"abc")
    assert importlib.import_module("channeld.core.crypto") is crypto


def test_address_known_value():
    assert checksum_address(address_of((1).to_bytes(32, "big"))) == "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"


@given(private_keys, digests)
def test_signs_as_eth_keys_does(private_key, digest):
    ours = sign_digest(private_key, digest)
    theirs = keys.PrivateKey(private_key).sign_msg_hash(digest)
    assert ours == theirs.to_bytes()[:64] + bytes((theirs.v + 27,))
    assert (
        recover(digest, ours)
        == address_of(private_key)
        == keys.PrivateKey(private_key).public_key.to_canonical_address()
    )
    verify(digest, ours, address_of(private_key))


@given(st.binary(min_size=20, max_size=20))
def test_checksums_as_eth_utils_does(address):
    assert checksum_address(address) == to_checksum_address(address)


def test_another_signer_is_refused_and_both_are_named():
    digest = keccak256(b"a state")
    with pytest.raises(SignatureError) as caught:
        verify(digest, sign_digest(TAKER, digest), address_of(MAKER))
    assert caught.value.details == {
        "found": "0x" + address_of(TAKER).hex(),
        "expected": "0x" + address_of(MAKER).hex(),
    }


def _parts(signature):
    return signature[:32], signature[32:64], signature[64:]


def test_the_malleable_twin_is_refused():
    digest = keccak256(b"a state")
    r, s, v = _parts(sign_digest(MAKER, digest))
    high = (CURVE_ORDER - int.from_bytes(s, "big")).to_bytes(32, "big")
    with pytest.raises(SignatureError, match="low"):
        recover(digest, r + high + bytes((55 - v[0],)))


_R, _S, _V = _parts(sign_digest(MAKER, keccak256(b"a state")))
_BEYOND = CURVE_ORDER.to_bytes(32, "big")


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        (_R + _S, "65 bytes"),
        (_R + _S + _V + b"\0", "65 bytes"),
        (b"", "65 bytes"),
        (_R + _S + bytes((_V[0] - 27,)), "v must be"),
        (_R + _S + bytes((_V[0] + 4,)), "v must be"),
        (b"\0" * 32 + _S + _V, "r must lie"),
        (_BEYOND + _S + _V, "r must lie"),
        (_R + b"\0" * 32 + _V, "non-zero"),
        (b"\0" * 64 + _V, "r must lie"),
        ((5).to_bytes(32, "big") + _S + _V, "no key"),
    ],
)
def test_malformed_signatures_are_refused(signature, words):
    with pytest.raises(SignatureError, match=words):
        recover(keccak256(b"a state"), signature)


@given(st.binary(max_size=80))
def test_random_bytes_are_refused_or_recovered_never_worse(signature):
    with contextlib.suppress(SignatureError):
        assert len(recover(keccak256(b"x"), signature)) == 20


@pytest.mark.parametrize("bad", [b"", b"\0" * 32, b"\1" * 31, CURVE_ORDER.to_bytes(32, "big"), "text", None])
def test_bad_private_keys_are_refused(bad):
    with pytest.raises(PrivateKeyError):
        address_of(bad)


@pytest.mark.parametrize("digest", [b"", b"\1" * 31, b"\1" * 33, "x" * 32])
def test_a_digest_is_32_bytes(digest):
    with pytest.raises(SignatureError):
        sign_digest(MAKER, digest)
    with pytest.raises(SignatureError):
        recover(digest, b"\1" * 65)
