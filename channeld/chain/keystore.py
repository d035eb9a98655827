"""Keystores: one hot key in one file, keystore v3 (scrypt), mode 0600.

Rules: a key leaves this module only as the bytes that `load` returns; passwords and keys never appear in messages. A
file is written whole or not at all and never over another. Where a password comes from is the caller's business. This
module must not import web3.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from typing import TYPE_CHECKING, Any

from channeld.core.errors import SetupError

if TYPE_CHECKING:
    from pathlib import Path

KEY_BYTES = 32
MODE = 0o600


class KeystoreMissingError(SetupError):
    """There is no keystore at the path."""

    code = 7100
    advice = "Run `channeld init`, or name the right data directory."


class KeystoreCorruptError(SetupError):
    """The file is no keystore v3."""

    code = 7101
    advice = "Restore the file from its backup."


class WrongPasswordError(SetupError):
    """The password does not open the keystore."""

    code = 7102
    advice = "Give the password that the keystore was made with; nothing was changed."


class KeystoreExistsError(SetupError):
    """There is a keystore at the path already."""

    code = 7103
    advice = "Use the keystore that is there, or name another directory; a key is never overwritten."


class KeystoreUnreadableError(SetupError):
    """The file cannot be read or written."""

    code = 7104
    advice = "Check the owner and the mode of the file and of its directory."


class BadKeyError(SetupError):
    """A private key that secp256k1 does not know, or an empty password."""

    code = 7105
    advice = "Give a private key of 32 bytes and a password that is not empty."


def create_keystore(
    path: Path, password: str, private_key: bytes | None = None, *, iterations: int | None = None
) -> bytes:
    """Encrypt a private key (a new one where none is given) into a new file of mode 0600; returns its address.

    `iterations` is scrypt's work factor n, a power of two; the default is that of the standard (about a second), and
    tests use a small one.

    Raises:
        KeystoreExistsError: there is a file at `path`.
        KeystoreUnreadableError: the file cannot be written.
        BadKeyError: the key is none, or the password is empty.

    """
    from eth_account import Account  # noqa: PLC0415 - slow to import, and not needed by most commands

    if not password:
        message = "the password of a keystore must not be empty"
        raise BadKeyError(message)
    if path.exists():
        message = f"there is a keystore at {path} already"
        raise KeystoreExistsError(message)
    key = secrets.token_bytes(KEY_BYTES) if private_key is None else private_key
    try:
        document = Account.encrypt(key, password, kdf="scrypt", iterations=iterations)
        address = bytes.fromhex(document["address"].removeprefix("0x"))
    except Exception as error:  # noqa: BLE001 - see below
        # eth-account lets the errors of three libraries through; none may show the key
        message = f"the private key is not one ({type(error).__name__})"
        raise BadKeyError(message) from None
    try:
        _write_new(path, json.dumps(document, indent=2) + "\n")
    except FileExistsError as error:
        message = f"there is a keystore at {path} already"
        raise KeystoreExistsError(message) from error
    except OSError as error:
        message = f"cannot write the keystore {path}: {error.strerror}"
        raise KeystoreUnreadableError(message) from error
    return address


def _write_new(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # a link, unlike a rename, refuses to replace what another process has just put there
        os.link(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        message = f"there is no keystore at {path}"
        raise KeystoreMissingError(message) from error
    except OSError as error:
        message = f"cannot read the keystore {path}: {error.strerror}"
        raise KeystoreUnreadableError(message) from error
    except ValueError as error:
        message = f"{path} is not a keystore: it is not JSON"
        raise KeystoreCorruptError(message) from error
    if not isinstance(document, dict) or document.get("version") != 3 or not isinstance(document.get("crypto"), dict):
        message = f"{path} is not a keystore of version 3"
        raise KeystoreCorruptError(message)
    if document["crypto"].get("cipher") != "aes-128-ctr":
        # eth-account takes the name for granted
        message = f"{path} is not a keystore of version 3 with the cipher aes-128-ctr"
        raise KeystoreCorruptError(message)
    return document


def keystore_address(path: Path) -> bytes:
    """The address that a keystore file names, 20 bytes, without a password. `load_keystore` proves it.

    Raises:
        KeystoreMissingError, KeystoreUnreadableError, KeystoreCorruptError: as named.

    """
    text = _read(path).get("address")
    with contextlib.suppress(ValueError, AttributeError):
        address = bytes.fromhex(str(text).removeprefix("0x"))
        if len(address) == 20:
            return address
    message = f"{path} names no address"
    raise KeystoreCorruptError(message)


def load_keystore(path: Path, password: str) -> bytes:
    """The private key of a keystore, 32 bytes.

    Raises:
        KeystoreMissingError, KeystoreUnreadableError, KeystoreCorruptError, WrongPasswordError: as named.

    """
    from eth_account import Account  # noqa: PLC0415 - slow to import, and not needed by most commands

    document = _read(path)
    try:
        key = bytes(Account.decrypt(document, password))
    except ValueError as error:
        if "MAC mismatch" in str(error):
            message = f"the password does not open the keystore {path}"
            raise WrongPasswordError(message) from None
        message = f"{path} is not a keystore that can be opened: {error}"
        raise KeystoreCorruptError(message) from None
    except Exception as error:  # noqa: BLE001 - see below
        # a field that is missing, or of the wrong type, deep inside the decryption
        message = f"{path} is not a keystore that can be opened ({type(error).__name__})"
        raise KeystoreCorruptError(message) from None
    if len(key) != KEY_BYTES or Account.from_key(key).address[2:].lower() != keystore_address(path).hex():
        message = f"the key in {path} is not that of the address it names"
        raise KeystoreCorruptError(message)
    return key
