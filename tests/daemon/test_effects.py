"""The order of effects: nothing is told before it is durable, and nothing at all once a commit has failed."""

from __future__ import annotations

import asyncio

from channeld.core import wire
from channeld.core.errors import StoreError
from channeld.core.records import PutDocument
from channeld.daemon.effects import MOST_QUEUED, EffectQueue


class Disk:
    """A store that commits when it is told to."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.gate = asyncio.Event()
        self.fail = False

    async def commit(self, writes):
        await self.gate.wait()
        if self.fail:
            raise StoreError("no space left")
        self.log.append("commit " + " ".join(w.key for w in writes))

    async def send(self, message):
        self.log.append(f"send {message.version}")

    async def failed(self, error):
        self.log.append(f"failed {error}")


def _write(key):
    return PutDocument("test", str(key), b"")


def _accept(version):
    return wire.Accept(b"\1" * 32, version, b"\2" * 65)


def _queue(disk):
    return EffectQueue(disk.commit, disk.send, disk.failed)


async def test_a_message_leaves_after_all_that_was_written_before_it():
    disk = Disk()
    queue = _queue(disk)
    queue.persist([_write(1)])
    queue.tell(_accept(1))
    await asyncio.sleep(0)
    assert disk.log == []
    queue.persist([_write(2)])
    queue.tell(_accept(2))
    queue.persist([_write(3)])
    disk.gate.set()
    await queue.drained()
    assert disk.log == ["commit 1", "send 1", "commit 2 3", "send 2"]


async def test_nothing_leaves_once_a_commit_has_failed():
    disk = Disk()
    disk.fail = True
    disk.gate.set()
    queue = _queue(disk)
    queue.persist([_write(1)])
    queue.tell(_accept(1))
    await queue.drained()
    disk.fail = False
    queue.persist([_write(2)])
    queue.tell(_accept(2))
    await queue.drained()
    assert disk.log == ["failed no space left"]
    assert queue.error is not None


async def test_actions_keep_their_place_among_the_messages():
    disk = Disk()
    disk.gate.set()
    queue = _queue(disk)

    async def action():
        disk.log.append("action")

    queue.persist([_write(1)])
    queue.tell(_accept(1))
    queue.then(action)
    queue.tell(_accept(2))
    await queue.drained()
    assert disk.log == ["commit 1", "send 1", "action", "send 2"]


async def test_whoever_feeds_too_fast_is_held_back():
    disk = Disk()
    queue = _queue(disk)
    queue.persist([_write(0)])
    await asyncio.sleep(0)
    queue.persist([_write(i) for i in range(MOST_QUEUED + 1)])
    held = asyncio.ensure_future(queue.room())
    await asyncio.sleep(0)
    assert not held.done()
    disk.gate.set()
    await queue.drained()
    await asyncio.wait_for(held, 1)
