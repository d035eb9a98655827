"""Events: in order, each once, whatever happens to the connection; an hour's worth of them with forced disconnects."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random

import pytest
from channeld_client import Desk, EventsLostError, NotAllowedError
from client_support import OWNER, PATIENCE_S, Wire, client_of, served
from desk_world import two_desks

from channeld.core.records import AppendEvent, DropEvents

# CHANNELD_SOAK_HOURS=24 listens for a day's worth
HOUR = 3_600 * int(os.environ.get("CHANNELD_SOAK_HOURS", "1"))


async def write(desk, first, last):
    """Events first..last, several to a commit as at a desk at work."""
    for begin in range(first, last, 20):
        rows = [AppendEvent(begin, "note", None, json.dumps({"n": n})) for n in range(begin, min(begin + 20, last))]
        await desk.node.store.commit(rows)
        desk.node._wake()
        await asyncio.sleep(0)


async def test_an_hour_of_events_through_forced_disconnects_is_heard_once_and_in_order(tmp_path):
    """One event a second for an hour; the wire is cut after few or many bytes, also within a frame and a handshake."""
    chance = random.Random(7)  # noqa: S311 - a test's dice

    def budgets():
        while True:
            yield chance.choice([60, 300, 900, 5_000, 20_000, 40_000])

    async with two_desks(tmp_path) as world, served(world.maker) as url:
        async with Wire(int(url.rpartition(":")[2]), budgets()) as wire, Desk(wire.url, OWNER) as client:
            # the pauses are real ones; the dice make them as short as they can be
            client._random = lambda: 0.0
            stream = client.events(0, kinds=["note"])
            stream._pauses._base = 0.002
            heard = []
            async with asyncio.timeout(10 * PATIENCE_S), stream:
                writing = asyncio.create_task(write(world.maker, 0, HOUR))
                async for event in stream:
                    heard.append((event.seq, event.data["n"]))
                    if event.data["n"] == HOUR - 1:
                        break
                await writing
        assert [n for _, n in heard] == list(range(HOUR))
        assert all(a[0] < b[0] for a, b in itertools.pairwise(heard))
        assert stream.connections > 15
        assert wire.cut > 30


async def test_a_daemon_that_restarts_is_followed(tmp_path):
    async with two_desks(tmp_path) as world:
        async with served(world.maker) as url, Desk(url, OWNER) as client:
            port = int(url.rpartition(":")[2])
            stream = client.events()
            await stream.__aenter__()
            await write(world.maker, 0, 1)
            assert (await anext(stream)).data == {"n": 0}
        await world.maker.node.stop()
        await world.maker.start()
        await write(world.maker, 1, 2)
        async with served(world.maker, port), asyncio.timeout(PATIENCE_S):
            while (event := await anext(stream)).kind != "note":
                pass
            assert event.data == {"n": 1}
            assert stream.connections == 2
            await stream.close()
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
            await client.close()


async def test_from_now_on_means_from_the_moment_it_is_entered(tmp_path):
    async with two_desks(tmp_path) as world, client_of(world.maker) as client:
        await write(world.maker, 0, 5)
        async with asyncio.timeout(PATIENCE_S), client.events(kinds=["note"]) as stream:
            begin = stream.last
            await write(world.maker, 5, 6)
            event = await anext(stream)
            assert event.data == {"n": 5}
            assert event.seq > begin
        async with asyncio.timeout(PATIENCE_S), client.events(event.seq - 2, kinds=["note"]) as stream:
            assert [(await anext(stream)).data["n"] for _ in range(2)] == [4, 5]


async def test_older_records_are_an_error_and_no_silence(tmp_path):
    async with (
        two_desks(tmp_path) as world,
        served(world.maker) as url,
        Wire(int(url.rpartition(":")[2])) as wire,
        Desk(wire.url, OWNER) as client,
        asyncio.timeout(PATIENCE_S),
    ):
        await write(world.maker, 0, 3)
        async with client.events(0, kinds=["note"]) as stream:
            for _ in range(3):
                event = await anext(stream)
            # as after a restore of a copy that ends before
            await world.maker.node.store.commit([DropEvents(event.seq + 10)])
            await stream._drop()
            with pytest.raises(EventsLostError):
                await anext(stream)


async def test_a_token_that_is_revoked_ends_the_stream(tmp_path):
    async with two_desks(tmp_path) as world, served(world.maker) as url, Desk(url, OWNER) as owner:
        made = await owner.token_create(name="risk", scopes=["read"])
        async with Desk(url, made["token"]) as client, asyncio.timeout(PATIENCE_S):
            async with client.events() as stream:
                await owner.token_revoke(token="risk")
                with pytest.raises(NotAllowedError):
                    [event async for event in stream]
            with pytest.raises(NotAllowedError):
                await client.events().__aenter__()
