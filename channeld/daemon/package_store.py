"""Where a daemon's packages come from and where they are kept: from the configuration to sources and archives.

Rules: what a fix needs is kept twice at least: in the data directory, and in the store with the records; and in every
further folder that the configuration names, which belongs on another disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from channeld.core import records
from channeld.core.codec import CodecError, decode, encode
from channeld.core.errors import StoreError
from channeld.oracle.client import ArchiveError, FolderArchive, FolderPackages, HttpPackages
from channeld.oracle.gateway import GatewayPackages
from channeld.oracle.redundant import MergedPackages, RedundantArchive

if TYPE_CHECKING:
    from collections.abc import Iterable

    from channeld.core.terms import Oracle
    from channeld.daemon.config import OracleSettings
    from channeld.oracle.client import PackageSource

PACKAGES = "packages"


class StoreArchive:
    """Packages among the records: a document for each feed and time."""

    def __init__(self, store: records.Store) -> None:
        """Keep them in this store."""
        self._store = store

    @staticmethod
    def _key(feed: bytes, t: int) -> str:
        return f"{feed.hex()}/{t}"

    async def put(self, feed: bytes, t: int, packages: Iterable[bytes]) -> None:
        """Keep packages beside those kept already. Raises ArchiveError."""
        kept = await self.get(feed, t)
        merged = list(dict.fromkeys([*kept, *packages]))
        if len(merged) == len(kept):
            return
        try:
            await self._store.commit([records.PutDocument(PACKAGES, self._key(feed, t), encode(merged))])
        except StoreError as error:
            raise ArchiveError(f"the store does not keep packages: {error}") from error

    async def get(self, feed: bytes, t: int) -> list[bytes]:
        """What is kept; empty where nothing is. Raises ArchiveError."""
        try:
            raw = await self._store.document(PACKAGES, self._key(feed, t))
            return list(decode(raw)) if raw is not None else []
        except (StoreError, CodecError, TypeError) as error:
            raise ArchiveError(f"packages cannot be read from the store: {error}") from error


Connected = HttpPackages | GatewayPackages


def live_source(oracle: Oracle, settings: OracleSettings, data: Path) -> tuple[PackageSource, list[Connected]]:
    """All sources of an oracle as one, and those with connections to close. Folders are relative to `data`."""
    timeout = settings.request_timeout
    open_ones: list[Connected] = []
    sources: list[PackageSource] = []
    if settings.urls:
        open_ones.append(HttpPackages(oracle, settings.urls, timeout_s=timeout))
    if settings.gateways:
        open_ones.append(
            GatewayPackages(oracle, settings.gateways, service=settings.gateway_service, timeout_s=timeout)
        )
    sources += open_ones
    sources += [FolderPackages(oracle, data / folder) for folder in settings.folders]
    return (sources[0] if len(sources) == 1 else MergedPackages(oracle, sources)), open_ones


def archive(settings: OracleSettings, data: Path, store: records.Store) -> RedundantArchive:
    """The data directory, the store, and every folder that is configured besides."""
    folders = [data / "packages", *(Path(data / folder) for folder in settings.archives)]
    return RedundantArchive([FolderArchive(folders[0]), StoreArchive(store), *map(FolderArchive, folders[1:])])
