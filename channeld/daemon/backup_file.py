r"""A backup's envelope: argon2id makes the key from a password, libsodium's secretstream seals the content in order.

Rules: nothing is given out before its frame was authenticated; frames cannot be altered, exchanged, repeated or left
out, and the file ends with a frame that says so. What the password costs stands in the clear and is bounded before it
is paid.

    "channeld backup 1\n" || salt (16) || operations (4, big-endian) || KiB of memory (4) || stream header (24)
    then frames: length (4) || sealed bytes; the first is bound to all of the above, the last is tagged FINAL

InputError
 '-- BackupError 1480
      |-- NotABackupError 1481         |-- BackupExistsError 1484
      |-- WrongBackupPasswordError 1482|-- BackupIncompleteError 1485
      |-- DamagedBackupError 1483      |-- BackupUnsupportedError 1486
      '-- StaleRecordsError 1487       '-- UnsoundBackupError 1488
"""

from __future__ import annotations

import secrets
import struct
from typing import TYPE_CHECKING, BinaryIO

from nacl import bindings
from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id

from channeld.core.errors import Fault, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAGIC = b"channeld backup 1\n"
FRAME = 64 * 1024
OPERATIONS, MEMORY_KIB = argon2id.OPSLIMIT_MODERATE, argon2id.MEMLIMIT_MODERATE // 1024
MOST_OPERATIONS, MOST_MEMORY_KIB = 10, 2 * 1024 * 1024
_COST = struct.Struct(">II")
_LENGTH = struct.Struct(">I")
_SALT = argon2id.SALTBYTES
_STREAM = bindings.crypto_secretstream_xchacha20poly1305_HEADERBYTES
_OVERHEAD = bindings.crypto_secretstream_xchacha20poly1305_ABYTES
_FINAL = bindings.crypto_secretstream_xchacha20poly1305_TAG_FINAL
_MESSAGE = bindings.crypto_secretstream_xchacha20poly1305_TAG_MESSAGE


class BackupError(InputError):
    """A backup that cannot be made or used."""

    code = 1480


class NotABackupError(BackupError):
    """The file is no backup of channeld's."""

    code = 1481
    advice = "Name a file that `channeld backup create` wrote."


class WrongBackupPasswordError(BackupError):
    """The password does not open the backup, or its first bytes were altered."""

    code = 1482
    advice = "Give the password that the backup was made with; it is not the keystore's unless you chose so."


class DamagedBackupError(BackupError):
    """The backup was altered, cut short, or has something behind its end."""

    code = 1483
    advice = "Use another backup. Nothing of this one was restored."


class BackupExistsError(BackupError):
    """There is something where the backup or the restored desk would be written."""

    code = 1484
    advice = "Name a file or a directory that does not exist yet; nothing is ever written over."


class BackupIncompleteError(BackupError):
    """The desk lacks something that a backup must hold."""

    code = 1485
    advice = "Name the data directory of a desk; `channeld init` makes one."


class BackupUnsupportedError(BackupError):
    """The desk's records are not in its directory."""

    code = 1486
    advice = "Back the PostgreSQL database up with its own tools, and the directory with --without-database."


class StaleRecordsError(BackupError):
    """The database is older than what this desk has signed from this directory: it is a copy. Nothing was started."""

    code = 1487
    fault = Fault.DISK
    advice = (
        "Put the newest database back. If it is lost, start with `channeld run --restored`: the desk then asks its "
        "peers and towers first, and signs nothing below what they show."
    )


class UnsoundBackupError(BackupError):
    """The backup opens, and what is in it does not fit together."""

    code = 1488
    advice = "Use another backup. Nothing of this one was restored."


def _key(password: str, salt: bytes, operations: int, memory_kib: int) -> bytes:
    size = bindings.crypto_secretstream_xchacha20poly1305_KEYBYTES
    made: bytes = argon2id.kdf(size, password.encode(), salt, opslimit=operations, memlimit=memory_kib * 1024)
    return made


def _frames(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """(frame, whether it is the last) of a stream of bytes."""
    held = b""
    for chunk in chunks:
        held += chunk
        while len(held) > FRAME:
            yield held[:FRAME], False
            held = held[FRAME:]
    yield held, True


def seal(
    out: BinaryIO,
    chunks: Iterable[bytes],
    password: str,
    *,
    operations: int = OPERATIONS,
    memory_kib: int = MEMORY_KIB,
) -> None:
    """Write the sealed form of a stream of bytes. operations, memory_kib: what opening it will cost (argon2id)."""
    if not password:
        raise BackupError("the password of a backup must not be empty")
    salt = secrets.token_bytes(_SALT)
    state = bindings.crypto_secretstream_xchacha20poly1305_state()
    header = bindings.crypto_secretstream_xchacha20poly1305_init_push(
        state, _key(password, salt, operations, memory_kib)
    )
    front = MAGIC + salt + _COST.pack(operations, memory_kib) + header
    out.write(front)
    bound: bytes | None = front
    for frame, last in _frames(chunks):
        sealed = bindings.crypto_secretstream_xchacha20poly1305_push(state, frame, bound, _FINAL if last else _MESSAGE)
        bound = None
        out.write(_LENGTH.pack(len(sealed)))
        out.write(sealed)


def unseal(source: BinaryIO, password: str) -> Iterator[bytes]:
    """The frames of a sealed stream, each authenticated, the end included.

    Raises:
        NotABackupError, WrongBackupPasswordError, DamagedBackupError: as named.

    """
    front = source.read(len(MAGIC) + _SALT + _COST.size + _STREAM)
    if not front.startswith(MAGIC) or len(front) < len(MAGIC) + _SALT + _COST.size + _STREAM:
        raise NotABackupError("the file does not begin as a backup does")
    salt, rest = front[len(MAGIC) : len(MAGIC) + _SALT], front[len(MAGIC) + _SALT :]
    operations, memory_kib = _COST.unpack(rest[: _COST.size])
    if not (1 <= operations <= MOST_OPERATIONS and 8 <= memory_kib <= MOST_MEMORY_KIB):
        raise NotABackupError(f"the backup asks for {operations} rounds over {memory_kib} KiB, which nobody wrote")
    state = bindings.crypto_secretstream_xchacha20poly1305_state()
    bindings.crypto_secretstream_xchacha20poly1305_init_pull(
        state, rest[_COST.size :], _key(password, salt, operations, memory_kib)
    )
    bound: bytes | None = front
    number = 0
    while True:
        sealed = _frame(source, number)
        try:
            frame, tag = bindings.crypto_secretstream_xchacha20poly1305_pull(state, sealed, bound)
        except (CryptoError, ValueError, RuntimeError):
            if number == 0:
                raise WrongBackupPasswordError(
                    "the password does not open the backup, or its beginning was altered"
                ) from None
            raise DamagedBackupError(f"frame {number} of the backup was altered", frame=number) from None
        bound = None
        yield frame
        number += 1
        if tag == _FINAL:
            break
    if source.read(1):
        raise DamagedBackupError("the backup goes on after its end")


def _frame(source: BinaryIO, number: int) -> bytes:
    raw = source.read(_LENGTH.size)
    length = _LENGTH.unpack(raw)[0] if len(raw) == _LENGTH.size else -1
    if not _OVERHEAD <= length <= FRAME + _OVERHEAD:
        raise DamagedBackupError(f"the backup was cut short or altered at frame {number}", frame=number)
    sealed = source.read(length)
    if len(sealed) != length:
        raise DamagedBackupError(f"the backup ends inside frame {number}", frame=number)
    return sealed
