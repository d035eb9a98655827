"""Several sources as one, and several archives as one: what a fix needs must not depend on one disk or one service.

Rules: what an archive has counts wherever it is read from; every archive gets what is put, and one that lacks what
another has is given it at the next reading. Only where all fail is it a failure; each failing one is reported once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from channeld.core.errors import OracleError
from channeld.oracle.client import ArchiveError, Gathering, PackagesNotYetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from channeld.core.terms import Oracle
    from channeld.oracle.client import Archive, PackageSource

log = structlog.get_logger(__name__)


class RedundantArchive:
    """Archives that each keep everything. At least one."""

    def __init__(self, archives: Sequence[Archive]) -> None:
        """The archives, the fastest first."""
        self._archives = list(archives)
        self._failing: set[int] = set()

    def _told(self, index: int, error: ArchiveError | None) -> None:
        """Log a failure when it begins, and its end."""
        if error is None:
            self._failing.discard(index)
        elif index not in self._failing:
            self._failing.add(index)
            log.warning("an archive of packages fails; others keep them", archive=index, why=str(error))

    @property
    def failing(self) -> int:
        """How many archives failed when they were last used."""
        return len(self._failing)

    async def put(self, feed: bytes, t: int, packages: Iterable[bytes]) -> None:
        """Keep packages in every archive. Raises ArchiveError where none could."""
        given = list(packages)
        last: ArchiveError | None = None
        kept = 0
        for index, archive in enumerate(self._archives):
            try:
                await archive.put(feed, t, given)
            except ArchiveError as error:
                last = error
                self._told(index, error)
            else:
                kept += 1
                self._told(index, None)
        if not kept and last is not None:
            raise last

    async def get(self, feed: bytes, t: int) -> list[bytes]:
        """What any archive has, merged; the others are given what they lack. Raises ArchiveError where all fail."""
        found: dict[int, list[bytes]] = {}
        last: ArchiveError | None = None
        for index, archive in enumerate(self._archives):
            try:
                found[index] = await archive.get(feed, t)
                self._told(index, None)
            except ArchiveError as error:
                last = error
                self._told(index, error)
        if not found and last is not None:
            raise last
        merged = list(dict.fromkeys(raw for packages in found.values() for raw in packages))
        for index, packages in found.items():
            if len(set(packages)) < len(merged):
                try:
                    await self._archives[index].put(feed, t, merged)
                except ArchiveError as error:
                    self._told(index, error)
        return merged


class MergedPackages:
    """Sources of different kinds as one: asked in order until every signer has been heard."""

    def __init__(self, oracle: Oracle, sources: Sequence[PackageSource]) -> None:
        """The sources, the preferred first. At least one."""
        self._oracle = oracle
        self._sources = list(sources)

    async def packages(self, feed: bytes, t: int) -> list[bytes]:
        """As PackageSource."""
        gathering = Gathering(self._oracle, feed, t)
        failures: list[OracleError] = []
        for source in self._sources:
            if gathering.complete:
                break
            try:
                gathering.add(await source.packages(feed, t))
            except OracleError as error:
                failures.append(error)
        if gathering.result():
            return gathering.result()
        if failures and all(isinstance(error, PackagesNotYetError) for error in failures):
            raise failures[0]
        raise gathering.unavailable([str(error) for error in failures])
