"""Keccak and ECDSA: the only place that touches a curve or a hash.

Rules: a signature is 65 bytes r || s || v with v 27 or 28, low-s, r and s non-zero; anything else is refused before the
curve is asked. Signatures are plain ECDSA over a 32-byte digest; no prefix is ever added here. Keccak is the C
implementation where it is installed, else the portable one; the two agree, and a test holds them to it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from coincurve import PrivateKey, PublicKey

from channeld.core.errors import InputError, RuleError

CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
HALF_ORDER = CURVE_ORDER // 2
SIGNATURE_BYTES = 65
DIGEST_BYTES = 32
ADDRESS_BYTES = 20
_V_BASE = 27


class SignatureError(RuleError):
    """A signature that is malformed, malleable, or not by the key it must be by."""

    code = 2100
    advice = "The signature must be 65 bytes r||s||v, low-s, v 27 or 28, by the named signer over the named digest."


class PrivateKeyError(InputError):
    """Bytes that are not a private key of the curve."""

    code = 1011
    advice = "A private key is 32 bytes, between 1 and the curve's order less one."


def _load_keccak() -> tuple[Any, bool]:
    try:
        from sha3 import keccak_256  # noqa: PLC0415 - optional: the fast build is an extra
    except ImportError:
        from Crypto.Hash import keccak  # noqa: PLC0415 - the fallback is imported only where it is needed

        return lambda data: keccak.new(digest_bits=256, data=data), False
    return keccak_256, True


_keccak, FAST_KECCAK = _load_keccak()


def keccak256(data: bytes) -> bytes:
    """The 32-byte Keccak-256 of data (Ethereum's, not SHA3-256)."""
    digest: bytes = _keccak(data).digest()
    return digest


@lru_cache(maxsize=64)
def _key(private_key: bytes) -> PrivateKey:
    """The curve's key object. Kept, because building one costs as much as signing with it."""
    if not isinstance(private_key, bytes) or len(private_key) != DIGEST_BYTES:
        raise PrivateKeyError("a private key must be 32 bytes")
    if not 0 < int.from_bytes(private_key, "big") < CURVE_ORDER:
        raise PrivateKeyError("a private key must lie between 1 and the curve's order less one")
    return PrivateKey(private_key)


@lru_cache(maxsize=4096)
def _address_of_point(point: bytes) -> bytes:
    """The address of an uncompressed public key. Kept: the same few keys sign again and again."""
    return keccak256(point[1:])[12:]


def _address(public_key: PublicKey) -> bytes:
    return _address_of_point(public_key.format(compressed=False))


@lru_cache(maxsize=64)
def address_of(private_key: bytes) -> bytes:
    """The 20-byte address of a private key.

    Raises:
        PrivateKeyError: not a key of the curve.

    """
    return _address(_key(private_key).public_key)


def sign_digest(private_key: bytes, digest: bytes) -> bytes:
    """Sign a 32-byte digest: 65 bytes r || s || v, deterministic (RFC 6979), low-s.

    Raises:
        PrivateKeyError: not a key of the curve.
        SignatureError: the digest is not 32 bytes.

    """
    _check_digest(digest)
    raw: bytes = _key(private_key).sign_recoverable(digest, hasher=None)
    if raw[64] > 1:  # r beyond the order: one chance in 2**127, and no v of 27 or 28 can say it
        raise SignatureError("this digest has no signature with v 27 or 28")
    return raw[:64] + bytes((raw[64] + _V_BASE,))


def check_signature_form(signature: bytes) -> None:
    """Refuse what no honest signer produces, without asking the curve.

    Raises:
        SignatureError: not 65 bytes, v other than 27 or 28, r or s zero or beyond the order, or a high s.

    """
    if not isinstance(signature, bytes) or len(signature) != SIGNATURE_BYTES:
        size = len(signature) if isinstance(signature, bytes) else 0
        raise SignatureError(f"a signature must be {SIGNATURE_BYTES} bytes, not {size}", size=size)
    r, s, v = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"), signature[64]
    if v not in (27, 28):
        raise SignatureError(f"a signature's v must be 27 or 28, not {v}", v=v)
    if not 0 < r < CURVE_ORDER:
        raise SignatureError("a signature's r must lie between 1 and the curve's order less one")
    if not 0 < s <= HALF_ORDER:
        raise SignatureError("a signature's s must be non-zero and low")


def recover(digest: bytes, signature: bytes) -> bytes:
    """The 20-byte address whose key signed the digest.

    Raises:
        SignatureError: malformed, malleable, or by no key at all.

    """
    _check_digest(digest)
    check_signature_form(signature)
    try:
        public_key = PublicKey.from_signature_and_message(
            signature[:64] + bytes((signature[64] - _V_BASE,)), digest, hasher=None
        )
    except Exception as error:  # coincurve raises a bare Exception where r is on no point
        raise SignatureError("no key could have made this signature") from error
    return _address(public_key)


def verify(digest: bytes, signature: bytes, signer: bytes) -> None:
    """Return only if `signer` (a 20-byte address) signed the digest.

    Raises:
        SignatureError: malformed, malleable, or by another key; its details name both.

    """
    found = recover(digest, signature)
    if found != signer:
        raise SignatureError(
            f"signed by 0x{found.hex()}, not by 0x{signer.hex()}",
            found="0x" + found.hex(),
            expected="0x" + signer.hex(),
        )


def checksum_address(address: bytes) -> str:
    """An address as people read it: 0x and 40 hexadecimal digits in the mixed case of EIP-55."""
    text = address.hex()
    digest = keccak256(text.encode()).hex()
    return "0x" + "".join(c.upper() if int(d, 16) > 7 else c for c, d in zip(text, digest, strict=False))


def _check_digest(digest: bytes) -> None:
    if not isinstance(digest, bytes) or len(digest) != DIGEST_BYTES:
        raise SignatureError(f"a digest must be {DIGEST_BYTES} bytes")
