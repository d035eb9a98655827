"""Hubs: one link per peer, whoever dials; lost and found; peers that come and go at run time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from link_support import CHEATER, HIGH, LOW, MAKER, TAKER, ManualTimers, soon

from channeld.core.codec import NotEncodableError
from channeld.transport.errors import (
    BadPeerConfigurationError,
    DuplicateLinkError,
    GarbageError,
    LinkBrokenError,
    LinkClosedError,
    NotConnectedError,
    RefusedError,
    WrongPeerError,
)
from channeld.transport.hub import PeerHub
from channeld.transport.link import Limits


class Desk:
    """A hub that records what it is told."""

    def __init__(self, identity, timers=None, limits: Limits | None = None) -> None:
        self.address = identity.address
        self.timers = timers or ManualTimers()
        self.events: list[tuple] = []
        self.changed = asyncio.Condition()
        self.on_message = None
        self.hub = PeerHub(
            identity,
            on_connected=lambda peer: self.note("connected", peer),
            on_message=self.message,
            on_lost=lambda peer, reason: self.note("lost", peer, reason),
            timers=self.timers,
            limits=limits or Limits(close_timeout=0.2),
            uniform=lambda: 1.0,
        )

    async def message(self, peer: bytes, message: list) -> None:
        await self.note("message", peer, message)
        if self.on_message is not None:
            await self.on_message(peer, message)

    async def note(self, *event) -> None:
        async with self.changed:
            self.events.append(event)
            self.changed.notify_all()

    async def until(self, condition) -> None:
        async with self.changed:
            await soon(self.changed.wait_for(condition))

    def count(self, kind: str) -> int:
        return sum(event[0] == kind for event in self.events)

    async def connected(self, times: int = 1) -> None:
        await self.until(lambda: self.count("connected") >= times)

    async def lost(self, times: int = 1):
        await self.until(lambda: self.count("lost") >= times)
        return [event for event in self.events if event[0] == "lost"][-1][2]

    async def received(self, times: int) -> list:
        await self.until(lambda: self.count("message") >= times)
        return [event[2] for event in self.events if event[0] == "message"]

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.hub.port}"


@asynccontextmanager
async def desks(*identities, timers=None, limits=None):
    before = asyncio.all_tasks()
    all_desks = [Desk(identity, timers, limits) for identity in identities]
    for desk in all_desks:
        await desk.hub.start()
    try:
        yield all_desks
    finally:
        for desk in all_desks:
            await soon(desk.hub.stop())
        for desk in all_desks:
            assert desk.count("connected") == desk.count("lost")
        await asyncio.sleep(0)
        assert asyncio.all_tasks() <= before | {asyncio.current_task()}


def introduce(left: Desk, right: Desk, *, both: bool = False) -> None:
    """The left desk dials the right one; with `both`, each dials the other."""
    right.hub.add_peer(left.address, left.url if both else None)
    left.hub.add_peer(right.address, right.url)


async def turns(condition) -> None:
    """Turns of the loop, until a condition that no callback announces."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - nothing announces it, and no time passes
            await asyncio.sleep(0)


async def turn_until(timers: ManualTimers, awaitable) -> None:
    """Let time pass, a second for each turn of the loop, until something has happened."""
    task = asyncio.ensure_future(awaitable)
    for _ in range(5000):
        if task.done():
            break
        timers.advance(0.05)
        await asyncio.sleep(0)
    await soon(task)


@pytest.mark.parametrize("dialer", [LOW, HIGH])
async def test_messages_pass_whichever_side_dials(dialer):
    other = HIGH if dialer is LOW else LOW
    async with desks(dialer, other) as (left, right):
        introduce(left, right)
        await left.connected()
        await right.connected()
        for number in range(1, 50):
            await left.hub.send(right.address, [1, number])
            await right.hub.send(left.address, [2, number])
        assert await right.received(49) == [[1, number] for number in range(1, 50)]
        assert await left.received(49) == [[2, number] for number in range(1, 50)]
        assert left.hub.connected(right.address)
        assert left.hub.last_error(right.address) is None
        with pytest.raises(NotEncodableError):
            await left.hub.send(right.address, [0])


async def test_desks_that_dial_each_other_at_once_keep_exactly_one_link():
    async with desks(LOW, HIGH) as (left, right):
        introduce(left, right, both=True)
        await left.connected()
        await right.connected()
        # every attempt has come to its end once the only link left is the kept one, on both sides
        for desk in (left, right):
            await turns(lambda hub=desk.hub: len(hub._links) == 1)
        await left.hub.send(right.address, [1, "kept"])
        await right.hub.send(left.address, [1, "kept"])
        assert await right.received(1) == [[1, "kept"]]
        assert await left.received(1) == [[1, "kept"]]
        assert [left.count("connected"), right.count("connected")] == [1, 1]
        assert [left.count("lost"), right.count("lost")] == [0, 0]
        assert next(iter(left.hub._links)).dialed != next(iter(right.hub._links)).dialed


async def test_a_lost_link_is_dialed_again():
    timers = ManualTimers()
    async with desks(MAKER, TAKER, timers=timers) as (left, right):
        introduce(left, right)
        await left.connected()
        await right.connected()
        for round_number in (1, 2, 3):
            next(iter(right.hub._links))._socket.abort()
            assert isinstance(await left.lost(round_number), LinkBrokenError)
            await right.lost(round_number)
            with pytest.raises(NotConnectedError):
                await left.hub.send(right.address, [1])
            await turn_until(timers, left.connected(round_number + 1))
            await right.connected(round_number + 1)
        await left.hub.send(right.address, [1])
        assert await right.received(1) == [[1]]


@pytest.mark.parametrize(("staying", "returning"), [(LOW, HIGH), (HIGH, LOW)])
async def test_a_desk_that_restarts_replaces_a_link_only_the_other_believes_in(staying, returning):
    timers = ManualTimers()
    async with desks(staying, returning, timers=timers) as (stays, first):
        introduce(first, stays)
        await stays.connected()
        await first.connected()
        timers.advance(9)
        async with desks(returning, timers=timers) as (second,):
            second.hub.add_peer(stays.address, stays.url)
            await second.connected()
            await stays.connected(2)
            assert isinstance(await stays.lost(), DuplicateLinkError)
            assert [event[0] for event in stays.events] == ["connected", "lost", "connected"]
            await stays.hub.send(second.address, [1, "new"])
            assert await second.received(1) == [[1, "new"]]
            first.hub.add_peer(stays.address, None)


async def test_a_second_link_while_the_first_is_fresh_is_refused_by_the_deciding_side():
    timers = ManualTimers()
    async with desks(LOW, HIGH, timers=timers) as (low, high):
        introduce(high, low)
        await low.connected()
        await high.connected()
        async with desks(HIGH, timers=timers) as (second,):
            second.hub.add_peer(low.address, low.url)
            await turns(lambda: second.hub.last_error(low.address) is not None)
            assert isinstance(second.hub.last_error(low.address), DuplicateLinkError)
            await low.hub.send(high.address, [1])
            assert await high.received(1) == [[1]]
            assert low.count("lost") == 0


async def test_peers_come_and_go_at_run_time():
    timers = ManualTimers()
    async with desks(MAKER, TAKER, timers=timers) as (left, right):
        left.hub.add_peer(right.address, right.url)
        await turns(lambda: left.hub.last_error(right.address) is not None)
        assert isinstance(left.hub.last_error(right.address), RefusedError)
        right.hub.add_peer(left.address)
        await turn_until(timers, left.connected())
        await right.connected()
        await right.hub.remove_peer(left.address)
        assert right.hub.peers() == []
        assert "removed" in str(await left.lost())
        with pytest.raises(NotConnectedError):
            await right.hub.send(left.address, [1])
        await left.hub.remove_peer(right.address)
        await left.hub.remove_peer(right.address)
        right.hub.add_peer(left.address)
        left.hub.add_peer(right.address, right.url)
        await turn_until(timers, left.connected(2))


async def test_a_corrected_url_is_used_at_once():
    async with desks(MAKER, TAKER, CHEATER) as (left, right, cheater):
        right.hub.add_peer(left.address)
        cheater.hub.add_peer(left.address)
        left.hub.add_peer(right.address, cheater.url)
        await turns(lambda: left.hub.last_error(right.address) is not None)
        assert isinstance(left.hub.last_error(right.address), WrongPeerError)
        left.hub.add_peer(right.address, right.url)
        await left.connected()


async def test_a_message_that_its_reader_refuses_ends_the_link_with_the_readers_reason():
    async with desks(MAKER, TAKER) as (left, right):

        async def refuse(_peer, message) -> None:
            raise GarbageError(f"type {message[0]} is unknown")

        right.on_message = refuse
        introduce(left, right)
        await left.connected()
        await left.hub.send(right.address, [99])
        assert isinstance(await right.lost(), GarbageError)
        reason = await left.lost()
        assert isinstance(reason, LinkClosedError)
        assert reason.details["peer_code"] == GarbageError.code
        assert "type 99 is unknown" in str(reason)


async def test_a_bug_in_a_reader_costs_one_link_and_tells_the_peer_nothing_of_it():
    async with desks(MAKER, TAKER, CHEATER) as (left, right, other):

        async def fail(peer, _message) -> None:
            if peer == left.address:
                raise KeyError("a secret")

        right.on_message = fail
        introduce(left, right)
        introduce(other, right)
        await left.connected()
        await other.connected()
        await left.hub.send(right.address, [1])
        assert (await right.lost()).code == 9000
        assert "secret" not in str(await left.lost())
        await other.hub.send(right.address, [1])
        await right.received(2)
        assert right.hub.connected(other.address)


async def test_a_slow_reader_of_one_peer_does_not_hold_up_another():
    async with desks(MAKER, TAKER, CHEATER) as (left, right, other):
        release = asyncio.Event()

        async def dawdle(peer, _message) -> None:
            if peer == left.address:
                await release.wait()

        right.on_message = dawdle
        introduce(left, right)
        introduce(other, right)
        await left.connected()
        await other.connected()
        await left.hub.send(right.address, [1])
        await right.received(1)
        for number in range(1, 20):
            await other.hub.send(right.address, [1, number])
        await right.received(20)
        release.set()


async def test_a_link_may_be_closed_and_its_peer_removed_from_within_a_callback():
    async with desks(MAKER, TAKER) as (left, right):

        async def leave(peer, _message) -> None:
            await right.hub.remove_peer(peer)

        right.on_message = leave
        introduce(left, right)
        await left.connected()
        await left.hub.send(right.address, [1])
        await right.lost()
        await left.lost()


async def test_what_cannot_be_a_peer_is_refused():
    async with desks(MAKER) as (desk,):
        for address, url in ((MAKER.address, None), (b"short", None), (TAKER.address, "http://x")):
            with pytest.raises(BadPeerConfigurationError):
                desk.hub.add_peer(address, url)
        with pytest.raises(NotConnectedError):
            await desk.hub.send(TAKER.address, [1])
        assert desk.hub.peers() == []
        other = Desk(TAKER)
        with pytest.raises(BadPeerConfigurationError):
            await other.hub.start("127.0.0.1", desk.hub.port)
        await other.hub.stop()


async def test_stopping_says_goodbye_and_starting_again_works():
    timers = ManualTimers()
    async with desks(MAKER, TAKER, timers=timers) as (left, right):
        introduce(left, right)
        await left.connected()
        await right.connected()
        port = right.hub.port
        await right.hub.stop()
        assert "shuts down" in str(await left.lost())
        await right.lost()
        await right.hub.start("127.0.0.1", port)
        await turn_until(timers, left.connected(2))
        await right.connected(2)


async def test_callbacks_may_be_plain_functions():
    got = asyncio.get_running_loop().create_future()
    lost: list = []
    plain = PeerHub(
        TAKER,
        on_connected=lambda _peer: None,
        on_message=lambda _peer, message: got.set_result(message),
        on_lost=lambda _peer, reason: lost.append(reason),
        limits=Limits(close_timeout=0.2),
    )
    async with desks(MAKER) as (left,):
        await plain.start()
        plain.add_peer(left.address)
        left.hub.add_peer(TAKER.address, f"ws://127.0.0.1:{plain.port}")
        await left.connected()
        await left.hub.send(TAKER.address, [7])
        assert await soon(got) == [7]
        await plain.stop()
        assert len(lost) == 1
