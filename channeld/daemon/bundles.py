"""Bundles of a desk's channels: made from a channel at work or from a database, and kept up to date in a folder.

Rules: a bundle is written off the hot path, whole or not at all, and at most once in `interval`: what was signed
meanwhile is in the next one, the latest wins. A failure is an alert and stops nothing; it is tried again with the next
state. A file is named after its channel and replaced in place, so that a folder holds the newest of each.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
from typing import TYPE_CHECKING, Any

import structlog

from channeld.core.bundle import Bundle, HalfSigned, bundle_text, check_bundle
from channeld.core.errors import ChanneldError, Fault, InputError, OracleError
from channeld.core.records import decode_terms
from channeld.core.transition import is_expired
from channeld.daemon.loading import load_channel
from channeld.store import open_store
from channeld.store.opening import is_postgresql
from channeld.store.reading import SqliteReader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from channeld.core.channel import Channel
    from channeld.core.records import ChannelRecord
    from channeld.daemon.actor import Actor

log = structlog.get_logger(__name__)

COMMAND_TIMEOUT_S = 60.0


class BundleExportError(InputError):
    """A bundle could not be written, or the command that takes it failed."""

    code = 1404
    fault = Fault.DISK
    advice = "Check bundle.folder and bundle.command; it is tried again with the next state."


class NoSuchChannelError(InputError):
    """The database holds no such channel, or several that begin so."""

    code = 1405
    advice = "Name one of the channels listed; without a name the only channel is taken."


def bundle_of(channel: Channel, packages: tuple[bytes, ...] = (), made_ms: int = 0) -> Bundle:
    """The bundle of a channel as it stands, with the states that this side alone has signed."""
    latest, halves = channel.latest, []
    for half in (*channel.proposals, channel.rejection, channel.recovery):
        if half is not None and half.signature:
            ours = ("signature_b" if channel.side else "signature_a", half.signature)
            halves.append(HalfSigned(half.applied.state, **dict([ours])))
    return check_bundle(
        Bundle(
            channel.domain,
            channel.terms,
            channel.side,
            latest.state,
            latest.signature_a,
            latest.signature_b,
            tuple(halves),
            packages,
            made_ms,
        )
    )


async def actor_bundle(actor: Actor, now_ms: int) -> Bundle:
    """The bundle of a channel at work, with the packages of every fix that its expired positions need."""
    keys = {
        (p.instrument.feed, p.instrument.expiry)
        for p in actor.state.body.positions
        if is_expired(p.instrument, now_ms // 1000)
    }
    packages: list[bytes] = []
    for feed, expiry in sorted(keys):
        with contextlib.suppress(OracleError):
            packages += (await actor.book.fix_of(feed, expiry))[0]
    return await asyncio.to_thread(bundle_of, actor.channel, tuple(packages), now_ms)


async def bundle_from_database(location: Path | str, wanted: str, made_ms: int) -> Bundle:
    """The bundle of a channel in a database, without a daemon. A SQLite file is read only, even where one is running.

    wanted: a channel id or its beginning; empty for the only one.

    Raises:
        NoSuchChannelError: none, or several.
        StoreError: the database cannot be read; a PostgreSQL one must have no daemon.

    """
    store = await open_store(location) if is_postgresql(location) else SqliteReader(_path(location))
    try:
        record = _chosen(await store.channels(), wanted)
        ours = decode_terms(record.terms).party(record.side).signer
        reading: Any = _WithoutDocuments(store)  # all of a store that is read here
        channel, _ = await load_channel(reading, record, ours)
    finally:
        await store.close()
    return bundle_of(channel, (), made_ms)


def _path(location: Path | str) -> Path:
    from pathlib import Path  # noqa: PLC0415 - only where a text is given

    return Path(str(location).removeprefix("sqlite://"))


class _WithoutDocuments:
    """A store whose documents (offers, exits) are of no use to a bundle."""

    def __init__(self, store: object) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def documents(self, kind: str, prefix: str = "") -> tuple[tuple[str, bytes], ...]:
        """None."""
        del kind, prefix
        return ()


def _chosen(channels: tuple[ChannelRecord, ...], wanted: str) -> ChannelRecord:
    found = [record for record in channels if ("0x" + record.channel.hex()).startswith(wanted.lower())]
    if len(found) == 1:
        return found[0]
    known = ", ".join("0x" + record.channel.hex()[:16] for record in channels) or "none"
    how = f"{len(found)} channels begin with {wanted}" if wanted else f"it holds {len(found)} channels"
    raise NoSuchChannelError(f"{how}; the channels are: {known}")


def write_bundle(folder: Path, bundle: Bundle) -> Path:
    """Write a bundle into a folder under its channel's name, durable and whole; its path.

    Raises:
        BundleExportError: the folder cannot be written.

    """
    path = folder / f"0x{bundle.channel.hex()}.bundle.json"
    temporary = folder / f".{path.name}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(bundle_text(bundle))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror or error}"
        raise BundleExportError(message, file=str(path)) from error
    return path


class BundleExport:
    """Keeps a folder's bundles up to date while the daemon runs."""

    def __init__(
        self,
        actors: Mapping[bytes, Actor],
        folder: Path,
        command: str,
        interval_s: float,
        now_ms: Callable[[], int],
        emit: Callable[..., Awaitable[None]],
    ) -> None:
        """Prepare; `run` works. command: what is started with a bundle's path as its last argument, or empty."""
        self._actors, self._folder, self._command = actors, folder, shlex.split(command)
        self._interval_s, self._now_ms, self._emit = interval_s, now_ms, emit
        self._due: set[bytes] = set()
        self._wake = asyncio.Event()
        self._failing = False
        self.written = 0

    def touch(self, channel: bytes) -> None:
        """A channel has a new state: write it soon. Costs nothing where it is called."""
        self._due.add(channel)
        self._wake.set()

    def pending(self, channel: bytes) -> bool:
        """Whether a channel has a state that is not written yet."""
        return channel in self._due

    async def run(self) -> None:
        """Write what is due, for ever; everything once at the start."""
        self._due.update(self._actors)
        while True:
            due, self._due = self._due, set()
            self._wake.clear()
            for channel in due:
                await self._write(channel)
            await asyncio.sleep(self._interval_s)
            await self._wake.wait()

    async def _write(self, channel: bytes) -> None:
        actor = self._actors.get(channel)
        if actor is None:
            return
        try:
            bundle = await actor_bundle(actor, self._now_ms())
            path = await asyncio.to_thread(write_bundle, self._folder, bundle)
            if self._command:
                await self._hand_over(path)
            self.written += 1
        except ChanneldError as error:
            self._due.add(channel)
            if not self._failing:
                message = f"bundles are not exported: {error}"
                await self._emit("alert", channel, severity="warning", code=error.code, message=message)
            self._failing = True
        else:
            self._failing = False

    async def _hand_over(self, path: Path) -> None:
        nowhere = asyncio.subprocess.DEVNULL
        try:
            child = await asyncio.create_subprocess_exec(
                *self._command, str(path), stdin=nowhere, stdout=nowhere, stderr=asyncio.subprocess.PIPE
            )
        except OSError as error:
            message = f"{self._command[0]} cannot be started: {error.strerror}"
            raise BundleExportError(message) from error
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                _, told = await child.communicate()
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            if isinstance(error, TimeoutError):
                message = f"{self._command[0]} did not end within {COMMAND_TIMEOUT_S:.0f} s"
                raise BundleExportError(message) from error
            raise
        if child.returncode:
            words = told.decode("utf-8", "replace").strip()[-200:]
            message = f"{self._command[0]} ended with status {child.returncode}: {words}"
            raise BundleExportError(message)
