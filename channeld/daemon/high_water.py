"""How far this directory has come: beside the database, so that an older copy of it put back in its place is found out.

Rules: the file is written after the database, from what is durable there, every few seconds and at a stop: it is never
ahead of an honest database. One that is missing or unreadable says nothing. A database below it is refused at the
start, unless its operator says that it is restored. A copy of the whole directory is not found out by this: peers and
towers find that out.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

import structlog

from channeld.core import records
from channeld.daemon.backup_file import StaleRecordsError
from channeld.daemon.recovery import RESTORED

if TYPE_CHECKING:
    from pathlib import Path

    from channeld.core.records import Store

log = structlog.get_logger(__name__)

FILE = "high-water.json"
EVERY_S = 5.0


class HighWater:
    """The versions that a directory has signed."""

    def __init__(self, folder: Path, store: Store) -> None:
        """Nothing is read yet."""
        self._folder, self._store = folder, store
        self._written: dict[str, int] = {}

    def _read(self) -> dict[str, int]:
        try:
            known = json.loads((self._folder / FILE).read_text(encoding="ascii"))
            return {str(channel): int(version) for channel, version in known.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            log.warning("the high-water mark is unreadable", why=str(error))
            return {}

    async def _durable(self) -> dict[str, int]:
        found = {}
        for record in await self._store.channels():
            signed = await self._store.highest_signed(record.channel, records.SIGNED_STATE)
            if signed is not None:
                found[record.channel.hex()] = signed.version
        return found

    async def check(self) -> None:
        """Return only where the database is as far as this directory has been.

        Raises:
            StaleRecordsError: it is older, and no restore was declared.

        """
        if (self._folder / RESTORED).exists():
            return
        known, durable = await asyncio.to_thread(self._read), await self._durable()
        for channel, version in known.items():
            if durable.get(channel, 0) < version:
                raise StaleRecordsError(
                    f"the database knows of version {durable.get(channel, 0)} of 0x{channel[:8]}; this desk has signed "
                    f"version {version} from this directory",
                    channel="0x" + channel,
                    signed=version,
                    database=durable.get(channel, 0),
                )

    async def keep(self) -> None:
        """Write what is durable, where it has changed. A disk that fails costs the mark, not the desk."""
        durable = await self._durable()
        if durable != self._written:
            try:
                await asyncio.to_thread(self._write, durable)
            except OSError as error:
                log.warning("the high-water mark could not be written", why=str(error))
            else:
                self._written = durable

    def _write(self, durable: dict[str, int]) -> None:
        temporary = self._folder / f".{FILE}.new"
        temporary.write_text(json.dumps(durable), encoding="ascii")
        os.replace(temporary, self._folder / FILE)  # noqa: PTH105 - one call, atomic

    async def run(self) -> None:
        """Keep it, for ever."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.keep()
            except Exception as error:  # noqa: BLE001 - a store that has failed says so elsewhere
                log.debug("the high-water mark was not kept", why=str(error))
