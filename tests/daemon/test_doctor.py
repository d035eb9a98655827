"""The doctor finds what was broken on purpose, and nothing where all is well."""

from __future__ import annotations

import sys
from pathlib import Path

from desk_world import only_actor, two_desks

from channeld.daemon.config import load
from channeld.daemon.doctor import disk, endpoints, examine_from_outside, worst

sys.path.insert(0, str(Path(__file__).parent.parent / "chain"))
from faulty_endpoint import FaultyEndpoint


async def levels(desk):
    """The level of each check, and what was found."""
    told = await desk.call("doctor")
    return {one["check"]: (one["level"], one["found"]) for one in told["findings"]}, told["worst"]


async def test_a_healthy_desk_and_then_each_of_its_troubles(tmp_path):
    async with two_desks(tmp_path, bundle__folder="bundles", bundle__interval=0.05) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        await maker.until(lambda: maker.node.bundles.written, "a bundle")
        await maker.until(lambda: not maker.node.bundles.pending(only_actor(maker).id), "the newest bundle")
        await maker.until(lambda: maker.node.chain.reserve.held, "the reserve")
        found, how = await levels(maker)
        bad = {check: finding for check, finding in found.items() if finding[0] not in ("ok", "warning")}
        assert not bad, bad
        assert how in ("ok", "warning")
        channel = next(name for name in found if name.startswith("channel 0x"))
        assert found[channel] == ("ok", f"open, version {only_actor(maker).state.version}")
        assert found["gas reserve"][0] == "ok"

        maker.node.chain.reserve.wei = 10**24
        await maker.until(lambda: maker.node.chain.reserve.why, "the empty reserve")
        for feed in maker.node._books.values():
            feed._prints = {feed_id: (t - 10_000, price) for feed_id, (t, price) in feed._prints.items()}
        (maker.folder / "bundles" / f"{world.channel}.bundle.json").unlink()
        await taker.node.stop()
        await maker.until(lambda: not maker.node.hub.connected(taker.address), "the end of the link")
        found, how = await levels(maker)
        assert how == "critical"
        assert found["gas reserve"][0] == "critical"
        assert found[next(name for name in found if name.startswith("bundle of"))][0] == "warning"
        assert "away" in found[channel][1]

        await maker.call("challenge", channel="taker")
        await maker.until(lambda: world.status(maker, "disputed"), "the dispute")
        found, _ = await levels(maker)
        assert found[channel][0] == "warning"
        assert "left" in found[channel][1]
        await world.rpc.advance(86_400 - 600)
        await maker.until(lambda: maker.node.clock.now_ms() > world.devnet.now_ms() - 100, "the clock")
        found, _ = await levels(maker)
        assert found[channel][0] == "critical"


async def test_endpoints_that_lag_or_are_silent_are_named(tmp_path):
    async with two_desks(tmp_path) as world, FaultyEndpoint(world.devnet.url) as slow:
        for _ in range(8):
            await world.rpc.request("evm_mine")
        slow.lag = 6
        found = await endpoints([world.devnet.url, slow.url, "http://127.0.0.1:1"], 2.0, None)
        assert [one.level for one in found] == ["ok", "warning", "warning"]
        assert "lags 6" in found[1].found
        now = (await world.rpc.header()).timestamp
        old = await endpoints([world.devnet.url], 2.0, now + 1_000)
        assert (old[0].level, worst(old)) == ("critical", "critical")
        ahead = await endpoints([world.devnet.url], 2.0, now - 60)
        assert "clock is behind" in ahead[0].advice
        silent = await endpoints(["http://user:secret@127.0.0.1:1/key"], 2.0, None)
        assert "nothing and defends nothing" in silent[0].advice


async def test_without_a_daemon_what_can_be_seen_is_looked_at(tmp_path):
    async with two_desks(tmp_path) as world:
        flags = {**world.maker.flags, "oracle.urls": "http://127.0.0.1:1"}
        found = {f.check: f for f in await examine_from_outside(load(None, flags=flags, environment={}))}
        assert found["daemon"].level == "critical"
        assert found["deployment.json"].level == "ok"
        assert found["keystore.json"].level == "critical"
        assert found["oracle http://127.0.0.1:1"].level == "warning"
        assert found["disk sync"].found.endswith(" ms")
    assert [one.level for one in disk(tmp_path / "nowhere")] == ["critical"]
