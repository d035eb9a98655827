"""A real daemon's API on a free port, and a wire to it that tests can cut."""

from __future__ import annotations

import asyncio
import contextlib

from channeld_client import Desk

from channeld.daemon.api import ApiServer

OWNER = "o" * 43
PATIENCE_S = 60.0


@contextlib.asynccontextmanager
async def served(desk, port=0):
    """The URL of a desk's API."""
    server = ApiServer(desk.node, OWNER)
    await server.start("127.0.0.1", port)
    try:
        yield f"http://127.0.0.1:{server._runner.addresses[0][1]}"
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def client_of(desk, **options):
    """A client of a desk of the world."""
    async with served(desk) as url, Desk(url, OWNER, **options) as client:
        yield client


class Wire:
    """A TCP relay. `budget`: bytes towards the client before a connection is cut, from an iterator; None for never.

    `eat_answers`: requests pass, answers do not, and the connection is cut.
    """

    def __init__(self, port, budget=None):
        self._port, self._budget = port, budget
        self.cut = 0
        self.eat_answers = False
        self._server = None
        self._tasks = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _relay(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        upstream = None
        try:
            up_reader, upstream = await asyncio.open_connection("127.0.0.1", self._port)
            left = next(self._budget) if self._budget is not None else None
            pumps = [
                asyncio.create_task(self._pump(reader, upstream, None)),
                asyncio.create_task(self._pump(up_reader, writer, left, answers=True)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass
        finally:
            for end in (writer, upstream):
                if end is not None:
                    end.transport.abort()

    async def _pump(self, reader, writer, left, *, answers=False):
        while data := await reader.read(1024):
            if answers and self.eat_answers:
                self.cut += 1
                return
            if left is not None and len(data) >= left:
                writer.write(data[:left])
                await writer.drain()
                self.cut += 1
                return
            left = left - len(data) if left is not None else None
            writer.write(data)
            await writer.drain()
