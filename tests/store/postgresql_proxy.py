"""A network between a store and its server, to be cut: a Unix socket that passes bytes on until told otherwise."""

import asyncio
import contextlib
from pathlib import Path
from typing import Self

SOCKET = ".s.PGSQL.5432"


class Proxy:
    """`passing`: "all", "nothing" (a black hole), or "requests" (answers are lost)."""

    def __init__(self, server: Path, directory: Path) -> None:
        """From `directory` (named as host in the URL) to the server's own directory."""
        self.passing = "all"
        self.swallowed = asyncio.Event()
        self._server, self._directory = server, directory
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Listen."""
        self._listener = await asyncio.start_unix_server(self._accept, self._directory / SOCKET)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        self._listener.close()
        await self.cut()
        await self._listener.wait_closed()

    async def cut(self) -> None:
        """End every connection."""
        for writer in self._writers:
            writer.close()
        for writer in self._writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        self._writers.clear()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, beyond = await asyncio.open_unix_connection(self._server / SOCKET)
        self._writers += [writer, beyond]
        for source, sink, kind in ((reader, beyond, "requests"), (behind, writer, "answers")):
            task = asyncio.create_task(self._pass(source, sink, kind))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, kind: str) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if self.passing in ("all", kind):
                    sink.write(data)
                    await sink.drain()
                else:
                    self.swallowed.set()
            sink.close()
