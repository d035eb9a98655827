"""Oracle packages for a case: those in the bundle, those in a folder, those that services still have.

Rules: nothing is trusted for where it comes from: every package is judged as any other. What services give is kept in
the folder, where one is named, since signers forget; the bundle is asked first, then the folder, then the services.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from channeld.oracle.client import ArchivedPackages, FolderArchive, FolderPackages, Gathering, HttpPackages

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from channeld.core.bundle import Bundle
    from channeld.core.terms import Oracle
    from channeld.oracle.client import PackageSource


class GivenPackages:
    """Packages at hand, of any feed and time."""

    def __init__(self, oracle: Oracle, packages: Iterable[bytes]) -> None:
        """Hold them; they are judged when asked for."""
        self._oracle, self._packages = oracle, tuple(packages)

    async def packages(self, feed: bytes, t: int) -> list[bytes]:
        """As PackageSource."""
        gathering = Gathering(self._oracle, feed, t)
        gathering.add(self._packages)
        if not gathering.result():
            raise gathering.unavailable(["not among the packages at hand"])
        return gathering.result()


class MemoryArchive:
    """An archive that lasts as long as the process, where no folder was named."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._kept: dict[tuple[bytes, int], list[bytes]] = {}

    async def put(self, feed: bytes, t: int, packages: Iterable[bytes]) -> None:
        """Keep packages."""
        kept = self._kept.setdefault((feed, t), [])
        kept += [raw for raw in packages if raw not in kept]

    async def get(self, feed: bytes, t: int) -> list[bytes]:
        """What is kept."""
        return list(self._kept.get((feed, t), ()))


class CasePackages:
    """A `PackageSource` of all that is at hand. close() it."""

    def __init__(self, bundle: Bundle, folder: Path | None, urls: Sequence[str]) -> None:
        """Nothing is asked yet. urls: oracle services."""
        oracle = bundle.terms.oracle
        sources: list[PackageSource] = [GivenPackages(oracle, bundle.packages)]
        self._http = HttpPackages(oracle, urls) if urls else None
        if folder is not None:
            sources.append(FolderPackages(oracle, folder))
        if self._http is not None:
            sources.append(self._http)
        archive = MemoryArchive() if folder is None else FolderArchive(folder)
        self._all = ArchivedPackages(oracle, sources, archive)

    async def packages(self, feed: bytes, t: int) -> list[bytes]:
        """As PackageSource."""
        return await self._all.packages(feed, t)

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.close()
