"""Noise_XX_25519_ChaChaPoly_BLAKE2b, revision 34 of the Noise specification, on PyNaCl's primitives.

Rules: the names and steps are those of the specification, so that it can be read beside this file. No input or output:
bytes in, bytes out. Every failure is a TransportError, after which the object is of no further use. Keys live in one
session; there is no rekey, a new connection has new keys.

On top, `Session` cuts an ordered sequence of records (up to 1 MiB each) into transport messages (up to 65535 bytes
each) and puts them together again: each record is preceded by its length in four bytes, big-endian; a transport message
may hold several records, or a part of one.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from nacl import bindings
from nacl.exceptions import CryptoError
from nacl.utils import random as random_bytes

from channeld.transport.errors import GarbageError, HandshakeError, NonceExhaustedError, TamperedFrameError

if TYPE_CHECKING:
    from collections.abc import Iterable

PROTOCOL_NAME = b"Noise_XX_25519_ChaChaPoly_BLAKE2b"
KEY_BYTES = 32
HASH_BYTES = 64
TAG_BYTES = 16
MAX_MESSAGE = 65535
MAX_PLAINTEXT = MAX_MESSAGE - TAG_BYTES
MAX_RECORD = 1 << 20
LENGTH_BYTES = 4
MAX_NONCE = (1 << 64) - 1  # reserved by the specification; never used to encrypt

# XX: the steps (the specification's tokens) that each message takes before its payload. The initiator sends the first.
_PATTERN: tuple[tuple[str, ...], ...] = (("e",), ("e", "ee", "s", "es"), ("s", "se"))
_encrypt = bindings.crypto_aead_chacha20poly1305_ietf_encrypt
_decrypt = bindings.crypto_aead_chacha20poly1305_ietf_decrypt


def public_key(private: bytes) -> bytes:
    """The Curve25519 public key (32 bytes) of a private key (32 bytes)."""
    return bindings.crypto_scalarmult_base(private)


def _dh(private: bytes, public: bytes) -> bytes:
    """The shared secret; a public key of small order, which would make it all zeros, is refused."""
    try:
        shared = bindings.crypto_scalarmult(private, public)
    except CryptoError as error:
        raise HandshakeError("the peer's Curve25519 key is of small order") from error
    if not any(shared):
        raise HandshakeError("the peer's Curve25519 key is of small order")
    return shared


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data).digest()


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "blake2b")


def _hkdf(chaining_key: bytes, material: bytes) -> tuple[bytes, bytes]:
    """The two outputs of the specification's HKDF."""
    temp = _hmac(chaining_key, material)
    first = _hmac(temp, b"\x01")
    return first, _hmac(temp, first + b"\x02")


class CipherState:
    """A key and the number of the next message under it."""

    __slots__ = ("_key", "nonce")

    def __init__(self, key: bytes | None = None) -> None:
        """Hold a key (32 bytes), or none yet."""
        self._key = key
        self.nonce = 0

    def has_key(self) -> bool:
        """Whether there is a key; without one, text passes in clear (the first handshake message)."""
        return self._key is not None

    def _next_nonce(self) -> bytes:
        if self.nonce >= MAX_NONCE:
            raise NonceExhaustedError("this session has used all its nonces")
        return b"\0\0\0\0" + self.nonce.to_bytes(8, "little")

    def encrypt_with_ad(self, associated: bytes, plaintext: bytes) -> bytes:
        """The ciphertext and its 16-byte tag.

        Raises:
            NonceExhaustedError: after 2**64 - 1 messages.

        """
        if self._key is None:
            return plaintext
        ciphertext = _encrypt(plaintext, associated, self._next_nonce(), self._key)
        self.nonce += 1
        return ciphertext

    def decrypt_with_ad(self, associated: bytes, ciphertext: bytes) -> bytes:
        """The plaintext. A failure does not move the nonce.

        Raises:
            TamperedFrameError: not what was encrypted as the next message under this key.
            NonceExhaustedError: after 2**64 - 1 messages.

        """
        if self._key is None:
            return ciphertext
        nonce = self._next_nonce()
        if len(ciphertext) < TAG_BYTES:
            raise TamperedFrameError(f"a frame of {len(ciphertext)} bytes is too short to be authentic")
        try:
            plaintext = _decrypt(ciphertext, associated, nonce, self._key)
        except CryptoError as error:
            raise TamperedFrameError("a frame is not authentic") from error
        self.nonce += 1
        return plaintext


class SymmetricState:
    """The handshake's chaining key and hash."""

    def __init__(self) -> None:
        """Start from the protocol's name, padded to the hash's length."""
        self.hash = PROTOCOL_NAME.ljust(HASH_BYTES, b"\0")
        self._chaining_key = self.hash
        self._cipher = CipherState()

    def mix_key(self, material: bytes) -> None:
        """Mix a shared secret into the keys."""
        self._chaining_key, temp = _hkdf(self._chaining_key, material)
        self._cipher = CipherState(temp[:KEY_BYTES])

    def mix_hash(self, data: bytes) -> None:
        """Mix what was sent into the transcript."""
        self.hash = _hash(self.hash + data)

    def has_key(self) -> bool:
        """Whether what follows is encrypted."""
        return self._cipher.has_key()

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Encrypt under the transcript, and add the result to it."""
        ciphertext = self._cipher.encrypt_with_ad(self.hash, plaintext)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        """Decrypt under the transcript, and add the ciphertext to it."""
        plaintext = self._cipher.decrypt_with_ad(self.hash, ciphertext)
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[CipherState, CipherState]:
        """The two transport ciphers: initiator to responder, and back."""
        first, second = _hkdf(self._chaining_key, b"")
        return CipherState(first[:KEY_BYTES]), CipherState(second[:KEY_BYTES])


class HandshakeState:
    """One side of one XX handshake. Messages are written and read in turn; each object serves once."""

    def __init__(self, *, initiator: bool, prologue: bytes, static: bytes, ephemeral: bytes | None = None) -> None:
        """Begin a handshake.

        Args:
            initiator: whether this side writes the first message.
            prologue: bytes that both sides must agree on.
            static: this side's private static key, 32 bytes.
            ephemeral: its private ephemeral key; None, outside of test vectors, for a random one.

        Raises:
            HandshakeError: a key that is not 32 bytes.

        """
        self._e = random_bytes(KEY_BYTES) if ephemeral is None else ephemeral
        if len(static) != KEY_BYTES or len(self._e) != KEY_BYTES:
            raise HandshakeError("a Curve25519 private key is 32 bytes")
        self.initiator = initiator
        self._s = static
        self.static_public = public_key(static)
        self.remote_static = b""
        self._remote_ephemeral = b""
        self._symmetric = SymmetricState()
        self._symmetric.mix_hash(prologue)
        self._step = 0

    @property
    def hash(self) -> bytes:
        """The transcript's hash so far (64 bytes): of everything written and read."""
        return self._symmetric.hash

    @property
    def finished(self) -> bool:
        """Whether all three messages have passed."""
        return self._step == len(_PATTERN)

    def _begin(self, *, writing: bool) -> tuple[str, ...]:
        if self.finished or ((self._step % 2 == 0) == self.initiator) != writing:
            raise HandshakeError("a handshake message out of turn")
        self._step += 1
        return _PATTERN[self._step - 1]

    def _mix_dh(self, step: str) -> None:
        """The steps ee, es, se: the first letter names the initiator's key, the second the responder's."""
        mine, theirs = (step[0], step[1]) if self.initiator else (step[1], step[0])
        private = self._e if mine == "e" else self._s
        self._symmetric.mix_key(_dh(private, self._remote_ephemeral if theirs == "e" else self.remote_static))

    def write_message(self, payload: bytes) -> bytes:
        """The next message, with its payload.

        Raises:
            HandshakeError: out of turn, too long, or with a key of small order read before.

        """
        parts = []
        for step in self._begin(writing=True):
            if step == "e":
                ephemeral_public = public_key(self._e)
                self._symmetric.mix_hash(ephemeral_public)
                parts.append(ephemeral_public)
            elif step == "s":
                parts.append(self._symmetric.encrypt_and_hash(self.static_public))
            else:
                self._mix_dh(step)
        parts.append(self._symmetric.encrypt_and_hash(payload))
        message = b"".join(parts)
        if len(message) > MAX_MESSAGE:
            raise HandshakeError(f"a handshake message of {len(message)} bytes; at most {MAX_MESSAGE}")
        return message

    def read_message(self, message: bytes) -> bytes:
        """The payload of the next message.

        Raises:
            HandshakeError: out of turn, too short, too long, not authentic, or with a key of small order.

        """
        if len(message) > MAX_MESSAGE:
            raise HandshakeError(f"a handshake message of {len(message)} bytes; at most {MAX_MESSAGE}")
        rest = message
        try:
            for step in self._begin(writing=False):
                if step == "e":
                    self._remote_ephemeral, rest = _take(rest, KEY_BYTES)
                    self._symmetric.mix_hash(self._remote_ephemeral)
                elif step == "s":
                    size = KEY_BYTES + (TAG_BYTES if self._symmetric.has_key() else 0)
                    sealed, rest = _take(rest, size)
                    self.remote_static = self._symmetric.decrypt_and_hash(sealed)
                else:
                    self._mix_dh(step)
            return self._symmetric.decrypt_and_hash(rest)
        except TamperedFrameError as error:
            raise HandshakeError("a handshake message is not authentic") from error

    def session(self) -> Session:
        """The transport session, once all three messages have passed.

        Raises:
            HandshakeError: they have not.

        """
        if not self.finished:
            raise HandshakeError("the handshake is not finished")
        first, second = self._symmetric.split()
        return Session(first, second) if self.initiator else Session(second, first)


def _take(data: bytes, size: int) -> tuple[bytes, bytes]:
    if len(data) < size:
        raise HandshakeError("a handshake message is too short")
    return data[:size], data[size:]


class Session:
    """Both directions of a finished handshake: records in, transport messages out, and back."""

    def __init__(self, sending: CipherState, receiving: CipherState) -> None:
        """Hold the two ciphers."""
        self._sending, self._receiving = sending, receiving
        self._partial = bytearray()

    @property
    def at_boundary(self) -> bool:
        """Whether no record is half received."""
        return not self._partial

    def encrypt(self, plaintext: bytes) -> bytes:
        """One transport message; at most 65519 bytes of plaintext.

        Raises:
            NonceExhaustedError: after 2**64 - 1 messages.

        """
        if len(plaintext) > MAX_PLAINTEXT:
            raise GarbageError(f"{len(plaintext)} bytes do not fit into a transport message", size=len(plaintext))
        return self._sending.encrypt_with_ad(b"", plaintext)

    def decrypt(self, message: bytes) -> bytes:
        """The plaintext of the next transport message.

        Raises:
            TamperedFrameError: too long, altered, truncated, replayed or out of order.

        """
        if len(message) > MAX_MESSAGE:
            raise TamperedFrameError(f"a frame of {len(message)} bytes; at most {MAX_MESSAGE}", size=len(message))
        return self._receiving.decrypt_with_ad(b"", message)

    def seal(self, records: Iterable[bytes]) -> list[bytes]:
        """Transport messages that carry the records, in order.

        Raises:
            GarbageError: an empty record, or one of more than 1 MiB.
            NonceExhaustedError: after 2**64 - 1 messages.

        """
        parts: list[bytes] = []
        for record in records:
            if not 0 < len(record) <= MAX_RECORD:
                raise GarbageError(f"a record of {len(record)} bytes; at least 1, at most {MAX_RECORD}")
            parts.append(len(record).to_bytes(LENGTH_BYTES, "big"))
            parts.append(record)
        stream = b"".join(parts)
        if len(stream) <= MAX_PLAINTEXT:
            return [self.encrypt(stream)] if stream else []
        return [self.encrypt(stream[at : at + MAX_PLAINTEXT]) for at in range(0, len(stream), MAX_PLAINTEXT)]

    def open(self, message: bytes) -> list[bytes]:
        """The records that a transport message completes.

        Raises:
            TamperedFrameError: not authentic.
            GarbageError: an empty message or record, or a record of more than 1 MiB (seen from its length, before it
                is received).

        """
        plaintext = self.decrypt(message)
        if not plaintext:
            raise GarbageError("an empty frame")
        partial = self._partial
        partial += plaintext
        records, at, end = [], 0, len(partial)
        while end - at >= LENGTH_BYTES:
            size = int.from_bytes(partial[at : at + LENGTH_BYTES], "big")
            if not 0 < size <= MAX_RECORD:
                raise GarbageError(f"a record of {size} bytes; at least 1, at most {MAX_RECORD}", size=size)
            if end - at - LENGTH_BYTES < size:
                break
            records.append(bytes(partial[at + LENGTH_BYTES : at + LENGTH_BYTES + size]))
            at += LENGTH_BYTES + size
        del partial[:at]
        return records
