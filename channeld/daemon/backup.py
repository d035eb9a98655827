"""A desk's backup: what is in it, how it is checked, and how a desk is made of it again.

Rules: the database is copied while the daemon may run, as one consistent snapshot (SQLite's own backup). A backup is
written whole or not at all, proven by reading it back before it counts, and never written over another. It is restored
into a directory that does not exist yet, with the mark that has the daemon declare its records old: it asks peers and
towers first and signs nothing below what they show. The keystore inside stays under its own password; tokens are left
out, and made again. Names in a backup are taken from a list, never as paths.

The content: a line of JSON, the manifest, then the bytes of each file that it names, in its order.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import sqlite3
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from channeld.chain.keystore import keystore_address
from channeld.core import records
from channeld.core.crypto import SignatureError, checksum_address, verify
from channeld.core.eip712 import Domain, body_hash, channel_id, state_digest
from channeld.core.errors import ChanneldError
from channeld.daemon.backup_file import (
    FRAME,
    MEMORY_KIB,
    OPERATIONS,
    BackupExistsError,
    BackupIncompleteError,
    BackupUnsupportedError,
    DamagedBackupError,
    UnsoundBackupError,
    seal,
    unseal,
)
from channeld.daemon.recovery import RESTORED
from channeld.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from channeld.daemon.config import Config

FORMAT = 1
KEYSTORE, SETTINGS, DEPLOYMENT, DATABASE = "keystore.json", "channeld.toml", "deployment.json", "channeld.db"
NOTE = "last-backup.json"
REQUIRED = (KEYSTORE, SETTINGS)
MAX_MANIFEST = 16 << 20
MAX_FILES = 200_000
_PACKAGES = re.compile(r"packages/[A-Za-z0-9_.-]{1,80}/[A-Za-z0-9_.-]{1,80}")
_DATA_DIR = re.compile(r'^(\s*data_dir\s*=\s*)(".*"|\'.*\')\s*$', re.MULTILINE)


@dataclass(frozen=True)
class Backup:
    """What a backup says of itself, and what its records prove."""

    manifest: dict[str, Any]
    channels: list[dict[str, Any]]

    def as_data(self) -> dict[str, Any]:
        """Plain data."""
        files = self.manifest["files"]
        return {
            "format": self.manifest["format"],
            "desk": self.manifest["desk"],
            "address": self.manifest["address"],
            "created_ms": self.manifest["created_ms"],
            "files": len(files),
            "bytes": sum(one["size"] for one in files),
            "database": any(one["name"] == DATABASE for one in files),
            "channels": self.channels,
        }


def known_name(name: object) -> bool:
    """Whether a backup may hold a file of this name."""
    if not isinstance(name, str):
        return False
    parts_are_plain = ".." not in name and all(part not in {"", "."} for part in name.split("/"))
    return name in {KEYSTORE, SETTINGS, DEPLOYMENT, DATABASE} or (
        parts_are_plain and _PACKAGES.fullmatch(name) is not None
    )


# --- making one -----------------------------------------------------------------------------------------------------


def create(
    config: Config,
    target: Path,
    password: str,
    *,
    without_database: bool = False,
    operations: int = OPERATIONS,
    memory_kib: int = MEMORY_KIB,
) -> Backup:
    """Write a backup of a desk, whose daemon may run, and prove it by reading it back.

    Raises:
        BackupExistsError: there is a file at the target.
        BackupIncompleteError: the desk has no keystore, settings or database.
        BackupUnsupportedError: the records are in PostgreSQL, and were not left out.
        UnsoundBackupError: what was read back is not sound: the disk, or the records.
        OSError: a file cannot be read or written.

    """
    if target.exists():
        raise BackupExistsError(f"{target} is there already")
    if config.desk.store and not without_database:
        raise BackupUnsupportedError("this desk's records are in PostgreSQL")
    data = config.data_path
    with tempfile.TemporaryDirectory(prefix="channeld-backup-") as scratch:
        files = _gathered(config, data, Path(scratch), with_database=not without_database)
        manifest = {
            "format": FORMAT,
            "desk": config.desk.name,
            "address": checksum_address(keystore_address(data / KEYSTORE)),
            "created_ms": time.time_ns() // 1_000_000,
            "files": [{"name": name, "size": path.stat().st_size} for name, path in files],
        }
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as out:
                seal(out, _content(manifest, files), password, operations=operations, memory_kib=memory_kib)
                out.flush()
                os.fsync(out.fileno())
            made = verify_backup(temporary, password)
            try:
                target.hardlink_to(temporary)
            except FileExistsError as error:
                raise BackupExistsError(f"{target} is there already") from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
    told = {"created_ms": manifest["created_ms"], "file": str(target.absolute()), "channels": made.channels}
    _write(data / NOTE, json.dumps(told).encode())
    return made


def _gathered(config: Config, data: Path, scratch: Path, *, with_database: bool) -> list[tuple[str, Path]]:
    """The files of a backup; the database as a snapshot of its own."""
    places = [(KEYSTORE, data / KEYSTORE), (DEPLOYMENT, data / DEPLOYMENT)]
    places.insert(1, (SETTINGS, Path(config.source) if config.source else data / SETTINGS))
    missing = [name for name, path in places if name in REQUIRED and not path.is_file()]
    if missing:
        raise BackupIncompleteError(f"{data} has no {' and no '.join(missing)}")
    files = [(name, path) for name, path in places if path.is_file()]
    if with_database:
        if not (data / DATABASE).is_file():
            raise BackupIncompleteError(f"{data} has no {DATABASE}")
        _snapshot(data / DATABASE, scratch / DATABASE)
        files.append((DATABASE, scratch / DATABASE))
    archive = data / "packages"
    if archive.is_dir():
        found = sorted(path for path in archive.rglob("*") if path.is_file())
        named = [(path.relative_to(data).as_posix(), path) for path in found]
        files += [(name, path) for name, path in named if known_name(name)]
    return files


def _snapshot(source: Path, target: Path) -> None:
    """A consistent copy of a database that may be written to at the same time."""
    try:
        with (
            contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=30)) as reading,
            contextlib.closing(sqlite3.connect(target)) as writing,
        ):
            reading.backup(writing)
    except sqlite3.Error as error:
        raise BackupIncompleteError(f"the database {source} cannot be copied: {error}") from error


def _content(manifest: dict[str, Any], files: list[tuple[str, Path]]) -> Iterator[bytes]:
    # the archive of packages may grow meanwhile: what is named is what is written
    yield json.dumps(manifest, separators=(",", ":")).encode() + b"\n"
    for (_, path), named in zip(files, manifest["files"], strict=True):
        left = named["size"]
        with path.open("rb") as file:
            while left:
                chunk = file.read(min(FRAME, left))
                if not chunk:
                    raise BackupIncompleteError(f"{path} became shorter while it was read")
                left -= len(chunk)
                yield chunk


# --- reading one ----------------------------------------------------------------------------------------------------


class _Reader:
    """Bytes of a stream, so many at a time."""

    def __init__(self, frames: Iterator[bytes]) -> None:
        self._frames = frames
        self._held = b""

    def line(self, most: int) -> bytes:
        """Up to a newline."""
        while b"\n" not in self._held:
            if len(self._held) > most:
                raise DamagedBackupError("the manifest is too long")
            self._more()
        line, _, self._held = self._held.partition(b"\n")
        return line

    def _more(self) -> None:
        try:
            self._held += next(self._frames)
        except StopIteration:
            raise DamagedBackupError("the backup holds less than its manifest says") from None

    def take(self, size: int) -> Iterator[bytes]:
        """Exactly `size` bytes."""
        while size:
            if not self._held:
                self._more()
            part, self._held = self._held[:size], self._held[size:]
            size -= len(part)
            yield part

    def end(self) -> None:
        """Nothing is left."""
        if self._held or any(self._frames):
            raise DamagedBackupError("the backup holds more than its manifest says")


def _unpacked(path: Path, password: str, folder: Path) -> dict[str, Any]:
    """Put the files of a backup into a folder; the manifest."""
    with path.open("rb") as source:
        reader = _Reader(unseal(source, password))
        manifest = _manifest(reader.line(MAX_MANIFEST))
        for named in manifest["files"]:
            target = folder / named["name"]
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                for part in reader.take(named["size"]):
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
        reader.end()
    return manifest


def _manifest(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
        files = found["files"]
        sound = (
            found["format"] == FORMAT
            and isinstance(found["desk"], str)
            and isinstance(found["address"], str)
            and type(found["created_ms"]) is int
            and len(files) <= MAX_FILES
            and all(known_name(one["name"]) and type(one["size"]) is int and one["size"] >= 0 for one in files)
            and len({one["name"] for one in files}) == len(files)
            and {one["name"] for one in files} >= set(REQUIRED)
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise UnsoundBackupError("the backup's manifest is not one that this program reads")
    manifest: dict[str, Any] = found
    return manifest


def verify_backup(path: Path, password: str) -> Backup:
    """Open a backup and prove its records: every frame, the database's own structure, the newest states' signatures.

    Raises:
        BackupError: what is wrong with it.
        OSError: it cannot be read.

    """
    with tempfile.TemporaryDirectory(prefix="channeld-backup-") as scratch:
        return _checked(_unpacked(path, password, Path(scratch)), Path(scratch))


def _checked(manifest: dict[str, Any], folder: Path) -> Backup:
    try:
        address = checksum_address(keystore_address(folder / KEYSTORE))
        channels = asyncio.run(_channels(folder)) if (folder / DATABASE).is_file() else []
    except UnsoundBackupError:
        raise
    except ChanneldError as error:
        raise UnsoundBackupError(f"what the backup holds does not fit together: {error}") from error
    if address != manifest["address"]:
        raise UnsoundBackupError("the keystore is of another address than the manifest names")
    return Backup(manifest, channels)


async def _channels(folder: Path) -> list[dict[str, Any]]:
    """Every channel of a database, its newest state proven by both signatures."""
    rows = []
    async with await SqliteStore.open(folder / DATABASE, lock_path=folder / "daemon.lock") as store:
        await store.check()
        for record in await store.channels():
            state = (await store.load_channel(record.channel)).state
            signed = await store.highest_signed(record.channel)
            if state is not None:
                _prove(record, state)
            rows.append(
                {
                    "channel": "0x" + record.channel.hex(),
                    "status": record.status,
                    "version": state.version if state else 0,
                    "signed": signed.version if signed else 0,
                }
            )
    return rows


def _prove(record: records.ChannelRecord, state: records.CosignedState) -> None:
    terms, domain = records.decode_terms(record.terms), Domain(record.chain_id, record.adjudicator)
    shown = f"version {state.version} of 0x{record.channel.hex()[:8]}"
    if channel_id(domain, terms) != record.channel:
        raise UnsoundBackupError(f"the terms of 0x{record.channel.hex()[:8]} do not make its id")
    if state.body is None or body_hash(records.decode_body(state.body)) != state.body_hash:
        raise UnsoundBackupError(f"the body of {shown} is missing, or is not the one that was signed")
    digest = state_digest(domain, record.channel, state.version, state.body_hash)
    try:
        verify(digest, state.signature_a, terms.a.signer)
        verify(digest, state.signature_b, terms.b.signer)
    except SignatureError as error:
        raise UnsoundBackupError(f"{shown} is not signed by both: {error}") from error


# --- a desk made of one ---------------------------------------------------------------------------------------------


def restore(path: Path, password: str, folder: Path) -> Backup:
    """Make a desk of a backup, in a directory that does not exist yet (or is empty). It asks its peers first.

    Raises:
        BackupExistsError: there is something in the directory.
        BackupError: what is wrong with the backup; the directory is not made.
        OSError: something cannot be read or written.

    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BackupExistsError(f"{folder} is there already, and not empty")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        made = Path(scratch) / "desk"
        made.mkdir(mode=0o700)
        backup = _checked(_unpacked(path, password, made), made)
        settings = made / SETTINGS
        # the desk is where its settings are now, whatever directory it had before
        settings.write_text(_DATA_DIR.sub(r'\1""', settings.read_text(encoding="utf-8")), encoding="utf-8")
        for left in ("daemon.lock", f"{DATABASE}-wal", f"{DATABASE}-shm"):
            (made / left).unlink(missing_ok=True)
        _write(made / RESTORED, b"made by channeld backup restore\n")
        if folder.exists():
            folder.rmdir()
        made.rename(folder)
        _sync(folder.parent)
    return backup


def _write(path: Path, raw: bytes) -> None:
    """Write a small file whole, durably, in place of an earlier one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
