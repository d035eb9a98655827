"""A light peer that dies at any append of its log, before or after it was kept: it comes back, and both sides agree."""

from __future__ import annotations

import asyncio
import contextlib

from channeld_client.light import MemoryLog
from light_support import CALL, light_world

from channeld.core.channel.values import LEAP
from channeld.core.errors import ChanneldError

# a round of trading appends some seven times, fewer where commits are grouped
STEPS = 12


class PowerLossError(OSError):
    """The machine is gone."""


class Crashing(MemoryLog):
    """A log whose machine loses power at the append of a number; `kept`: that one still reached the disk."""

    def __init__(self, kept_before, at, *, kept):
        super().__init__()
        self.records = list(kept_before)
        self.gone = False
        self._left, self._kept = at, kept

    async def append(self, record):
        await asyncio.sleep(0)
        if self.gone or not self._left:
            if self._kept and not self.gone:
                self.records.append(record)
            self.gone = True
            raise PowerLossError
        self._left -= 1
        await super().append(record)


async def some_trading(light, peer, direction):
    """A trade, a payment each way and a trade back, as far as it comes."""
    for work in (
        lambda: peer.trade([{**CALL, "size": f"{direction}"}], wait_s=8),
        lambda: peer.pay("0.000001", wait_s=8),
        lambda: light.maker.call("transfer", channel="taker", amount="0.000001"),
    ):
        if light.log.gone:
            return
        doing = asyncio.ensure_future(work())
        # whoever waits for a dead wallet is not waited for
        await peer.until(lambda d=doing: d.done() or light.log.gone)
        if not doing.done():
            doing.cancel()
        with contextlib.suppress(asyncio.CancelledError, ChanneldError, PowerLossError):
            await doing


async def test_power_that_fails_at_any_append_costs_nothing(tmp_path):
    async with light_world(tmp_path) as light:
        async with light.peer() as peer:
            await light.opened(peer)
        records = light.log.records
        died = 0
        for step in range(STEPS):
            light.log = Crashing(records, step // 2, kept=bool(step % 2))
            with contextlib.suppress(PowerLossError):
                async with light.peer() as peer:
                    await peer.until(lambda: not peer.status()["waits_for"] or light.log.gone)
                    await some_trading(light, peer, 1 if step % 4 < 2 else -1)
            died += light.log.gone
            records = light.log.records
            # it comes back from what was kept, and both go on
            light.log = MemoryLog()
            light.log.records = list(records)
            async with light.peer() as peer:
                await peer.until(lambda: peer.actor().channel.synced)
                before = peer.status()["version"]
                await peer.pay("0.000001")
                await light.level(peer)
                state = peer.actor().state
                assert state == light.desk_actor.state
                assert state.version > before
                assert not peer.actor().channel.lost
                assert await peer.audit() == state.version
            records = light.log.records
        assert died >= 4
        assert not any("lost states" in str(alert) for alert in light.maker.node.alerts)


async def test_an_older_copy_of_the_log_is_found_out_and_both_go_on(tmp_path):
    async with light_world(tmp_path) as light:
        async with light.peer() as peer:
            await light.opened(peer)
            old = list(light.log.records)
            await peer.trade([CALL], wait_s=60)
            await peer.pay("2", wait_s=60)
            await light.level(peer)
            held = peer.status()
        light.log = MemoryLog()
        light.log.records = old
        async with light.peer() as peer:
            await peer.until(lambda: peer.status()["version"] == held["version"])
            assert peer.status()["positions"] == held["positions"]
            assert peer.status()["waits_for"] == "the recovery of lost states"
            await light.advance(300, peer)
            with contextlib.suppress(ChanneldError):
                await peer.pay("1", wait_s=1)
            assert peer.status()["version"] == held["version"]
            await light.advance(400, peer)
            await peer.until(lambda: peer.status()["version"] > LEAP, timeout_s=120)
            await light.level(peer)
            assert peer.status()["balance"] == held["balance"]
            assert "recovery" in {shown.kind for shown in light.owner.shown}
            await peer.pay("1", wait_s=60)
            await light.level(peer)
            assert await peer.audit() == peer.status()["version"]
