"""What a desk has its peers keep for it: one sealed blob each, of which a peer learns the size, in steps, and the age.

Rules: the key is the desk's alone, by HKDF-SHA256 from its hot key, and another for every blob, since 32 random bytes
go into it: no nonce can meet one key twice. Desk, peer and number are authenticated with the content, so that a blob of
another peer, of another desk or under another number does not open. What is opened was written by this desk; it is
checked all the same, every state against both signatures. Sizes are bounded before anything is unpacked.

    blob = 1 (format) || salt (32) || ChaCha20-Poly1305 (RFC 8439) of the content, nonce 0, bound to
           format || desk (20) || peer (20) || number (8, big-endian)
    key = HKDF-SHA256(input = hot key, salt = salt, info = "channeld peer blob" || the same bytes)
    content = length (4, big-endian) || zlib of MessagePack, filled with zeros to a multiple of 4096

    [time_ms, desk's name, deployment.json, [[peer, name, url], ...],
     [[chain_id, adjudicator, side, terms, status, opened_at, opener, signed, version, body, signature a, b], ...]]

BackupError 1480
 |-- AlteredBlobError 1489      |-- BlobTooLargeError 1490      '-- NoBlobError 1491
"""

from __future__ import annotations

import hmac
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nacl import bindings
from nacl.exceptions import CryptoError

from channeld.core import records
from channeld.core.codec import MAX_ELEMENTS, decode, encode
from channeld.core.crypto import SignatureError, verify
from channeld.core.eip712 import Domain, body_hash, channel_id, state_digest
from channeld.core.errors import ChanneldError, Fault
from channeld.core.wire import MAX_BLOB
from channeld.daemon.backup_file import BackupError, UnsoundBackupError

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT = b"\x01"
SALT_BYTES = 32
STEP = 4096
MAX_CONTENT = 16 << 20
_INFO = b"channeld peer blob"
_NONCE = bytes(12)
_LENGTH = 4


class AlteredBlobError(BackupError):
    """A blob that a peer gives back is not one that this desk made for it: altered, or of another key."""

    code = 1489
    fault = Fault.PEER
    advice = "This peer keeps no backup for you that can be used: rely on other copies, and ask its operator."


class BlobTooLargeError(BackupError):
    """All that a peer should keep for this desk does not fit into a blob."""

    code = 1490
    advice = "Close channels that are done with; back this desk up by `channeld backup create` meanwhile."


class NoBlobError(BackupError):
    """The peer gives no blob back."""

    code = 1491
    fault = Fault.PEER
    advice = "Ask another peer, or restore a backup. This peer kept none, or withholds it."


@dataclass(frozen=True)
class KeptChannel:
    """A channel as a blob holds it. signed: the highest version this desk's key has signed; opener: it opens on chain.

    state: None at version 0.
    """

    record: records.ChannelRecord
    opener: bool
    signed: int
    state: records.CosignedState | None


@dataclass(frozen=True)
class Content:
    """What a blob holds. time_ms: when it was made; peers: (address, name, URL or empty)."""

    time_ms: int
    desk: str
    deployment: str
    peers: tuple[tuple[bytes, str, str], ...]
    channels: tuple[KeptChannel, ...]


def _key(hot_key: bytes, salt: bytes, bound: bytes) -> bytes:
    """RFC 5869 with SHA-256: 32 bytes are one block."""
    extracted = hmac.digest(salt, hot_key, "sha256")
    return hmac.digest(extracted, _INFO + bound + b"\x01", "sha256")


def _bound(desk: bytes, peer: bytes, number: int) -> bytes:
    return FORMAT + desk + peer + number.to_bytes(8, "big")


def seal_blob(hot_key: bytes, salt: bytes, desk: bytes, peer: bytes, number: int, content: Content) -> bytes:
    """The blob of a content. desk, peer: signer addresses; salt: 32 bytes that are random, never used before.

    Raises:
        BlobTooLargeError: it would be larger than any peer keeps.
    """
    packed = zlib.compress(_packed(content))
    plain = len(packed).to_bytes(_LENGTH, "big") + packed
    plain += bytes(-len(plain) % STEP)
    if len(plain) + len(FORMAT) + SALT_BYTES + bindings.crypto_aead_chacha20poly1305_ietf_ABYTES > MAX_BLOB:
        raise BlobTooLargeError(f"{len(content.channels)} channels take {len(plain)} bytes; at most {MAX_BLOB}")
    bound = _bound(desk, peer, number)
    sealed = bindings.crypto_aead_chacha20poly1305_ietf_encrypt(plain, bound, _NONCE, _key(hot_key, salt, bound))
    return FORMAT + salt + sealed


def open_blob(hot_key: bytes, desk: bytes, peer: bytes, number: int, blob: bytes) -> Content:
    """The content of a blob that a peer gives back under a number.

    Raises:
        AlteredBlobError: this desk did not make it, for this peer, under this number.
        UnsoundBackupError: it did, and what is in it does not fit together.
    """
    salt, sealed, bound = blob[1 : 1 + SALT_BYTES], blob[1 + SALT_BYTES :], _bound(desk, peer, number)
    tag = bindings.crypto_aead_chacha20poly1305_ietf_ABYTES
    plain = b""
    if blob[:1] == FORMAT and len(salt) == SALT_BYTES and len(sealed) >= tag and len(blob) <= MAX_BLOB:
        try:
            plain = bindings.crypto_aead_chacha20poly1305_ietf_decrypt(
                sealed, bound, _NONCE, _key(hot_key, salt, bound)
            )
        except (CryptoError, ValueError):
            plain = b""
    if len(plain) < _LENGTH:
        raise AlteredBlobError(f"the blob of number {number} is not one that this desk made", number=number)
    size = int.from_bytes(plain[:_LENGTH], "big")
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(plain[_LENGTH : _LENGTH + size], MAX_CONTENT)
        return _content(decode(raw, MAX_CONTENT), desk, peer)
    except UnsoundBackupError:
        raise
    except (zlib.error, ChanneldError, ValueError, TypeError) as error:
        raise UnsoundBackupError(f"what the blob holds does not fit together: {error}") from error


def _packed(content: Content) -> bytes:
    if max(len(content.channels), len(content.peers)) > MAX_ELEMENTS:
        raise BlobTooLargeError(f"{len(content.channels)} channels are more than a blob holds")
    channels = [_row(one) for one in content.channels]
    return encode([content.time_ms, content.desk, content.deployment, [list(p) for p in content.peers], channels])


def _row(kept: KeptChannel) -> list[Any]:
    r, state = kept.record, kept.state
    signed = [state.version, state.body, state.signature_a, state.signature_b] if state else [0, b"", b"", b""]
    return [
        r.chain_id, r.adjudicator, r.side, r.terms, r.status, r.opened_at, kept.opener, kept.signed, *signed
    ]  # fmt: skip


def _content(value: Sequence[Any], desk: bytes, peer: bytes) -> Content:
    time_ms, name, deployment, peers, channels = value
    return Content(
        int(time_ms),
        str(name),
        str(deployment),
        tuple((bytes(address), str(called), str(url)) for address, called, url in peers),
        tuple(_kept(row, desk, peer) for row in channels),
    )


def _kept(row: Sequence[Any], desk: bytes, peer: bytes) -> KeptChannel:
    chain_id, adjudicator, side, raw, status, opened_at, opener, signed, version, body, first, second = row
    domain, terms = Domain(chain_id, adjudicator), records.decode_terms(raw)
    channel = channel_id(domain, terms)
    shown = f"0x{channel.hex()[:8]} in the blob"
    if terms.party(side).signer != desk or terms.party(1 - side).signer != peer:
        raise UnsoundBackupError(f"{shown} is no channel of this desk with this peer")
    record = records.ChannelRecord(channel, peer, side, raw, chain_id, adjudicator, status, opened_at)
    if not version:
        return KeptChannel(record, bool(opener), int(signed), None)
    hashed = body_hash(records.decode_body(body))
    digest = state_digest(domain, channel, version, hashed)
    try:
        verify(digest, first, terms.a.signer)
        verify(digest, second, terms.b.signer)
    except SignatureError as error:
        raise UnsoundBackupError(f"version {version} of {shown} is not signed by both: {error}") from error
    state = records.CosignedState(channel, version, hashed, first, second, body)
    return KeptChannel(record, bool(opener), int(signed), state)
