"""Bundles from a daemon: on demand, after every state, and from a database without the daemon."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys

import pytest
from desk_world import alerted, only_actor, two_desks

from channeld.core.bundle import bundle_from_json, check_bundle
from channeld.core.codec import decode
from channeld.core.errors import StoreError
from channeld.core.wire import Propose
from channeld.daemon.bundles import BundleExport, NoSuchChannelError, bundle_from_database, write_bundle
from channeld.transport.hub import PeerHub

TRADE = {"instrument": "ETH-PERP", "size": "1", "price": "3000"}


def read(path):
    return bundle_from_json(json.loads(path.read_text(encoding="utf-8")))


async def test_the_api_gives_a_bundle_that_holds_what_both_have_signed(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        for side, desk in enumerate((world.maker, world.taker)):
            bundle = bundle_from_json(await desk.call("bundle", channel=world.channel))
            latest = only_actor(desk).channel.latest
            assert (bundle.side, bundle.version, bundle.state) == (side, 2, latest.state)
            assert bundle.sigs == latest.signature_a + latest.signature_b
            assert bundle.halves == ()


async def test_after_every_state_a_folder_and_a_command_have_the_newest(tmp_path):
    carried = tmp_path / "carried.jsonl"
    script = tmp_path / "carry.py"
    script.write_text(
        f"import json, sys\nstate = json.load(open(sys.argv[1]))['state']\n"
        f"open({str(carried)!r}, 'a').write(str(state['version']) + '\\n')\n"
    )
    command = f"{sys.executable} {script}"
    async with two_desks(tmp_path, bundle__folder="bundles", bundle__command=command, bundle__interval=0.05) as world:
        await world.open()
        maker = world.maker
        path = maker.folder / "bundles" / f"{world.channel}.bundle.json"
        version = 0
        for _ in range(3):
            version = (await maker.call("transfer", channel="taker", amount="5"))["version"]
        export = maker.node.bundles
        async with asyncio.timeout(60):
            while export._due or not path.exists() or read(path).version < version:  # noqa: ASYNC110 - it writes by itself
                await asyncio.sleep(0.02)
        assert read(path).state == only_actor(maker).state
        assert path.stat().st_mode & 0o777 == 0o600
        async with asyncio.timeout(60):
            while not carried.exists() or str(version) not in carried.read_text().split():  # noqa: ASYNC110 - the same
                await asyncio.sleep(0.02)
        assert not [one for one in path.parent.iterdir() if one != path]


async def test_a_folder_that_fails_is_one_alert_and_stops_nothing(tmp_path):
    async with two_desks(tmp_path, bundle__folder="/dev/null/nowhere", bundle__interval=0.02) as world:
        await world.open()
        maker = world.maker
        await maker.until(lambda: alerted(maker, "bundles are not exported"), "the alert")
        for _ in range(2):
            await maker.call("transfer", channel="taker", amount="5")
        assert sum("bundles are not exported" in str(alert["message"]) for alert in maker.node.alerts) == 1


async def test_states_that_come_together_are_written_once(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        maker = world.maker

        async def emit(*_, **__):
            raise AssertionError

        export = BundleExport(maker.node.actors, tmp_path / "out", "", 0.01, lambda: 1, emit)
        running = asyncio.create_task(export.run())
        for _ in range(500):
            export.touch(only_actor(maker).id)
        async with asyncio.timeout(60):
            while not export.written:  # noqa: ASYNC110 - it writes by itself
                await asyncio.sleep(0.005)
        await asyncio.sleep(0)
        assert export.written <= 2
        running.cancel()


async def test_from_a_database_beside_a_daemon_that_hangs_and_from_a_copy(tmp_path, monkeypatch):
    async with two_desks(tmp_path) as world:
        await world.open()
        maker = world.maker
        # a proposal that the taker never answers: its body is in the bundle, since the taker may bring it to the chain
        real = PeerHub.post

        def lost(hub, peer, record):
            if decode(record)[0] != Propose.TYPE:
                real(hub, peer, record)

        monkeypatch.setattr(PeerHub, "post", lost)
        asking = asyncio.ensure_future(maker.call("transfer", channel="taker", amount="5"))
        await maker.until(lambda: only_actor(maker).channel.proposals, "the proposal")
        bundle = await bundle_from_database(maker.folder / "channeld.db", "", 7)
        assert (bundle.version, [half.state.version for half in bundle.halves]) == (2, [3])
        assert bundle.halves[0].signature_a
        assert not bundle.halves[0].signature_b
        assert check_bundle(bundle).made_ms == 7
        copy = tmp_path / "copy"
        copy.mkdir()
        for name in ("channeld.db", "channeld.db-wal"):
            shutil.copy(maker.folder / name, copy / name)
        assert await bundle_from_database(copy / "channeld.db", world.channel[:12], 7) == bundle
        with pytest.raises(NoSuchChannelError, match="0 channels begin"):
            await bundle_from_database(copy / "channeld.db", "0xdead", 7)
        asking.cancel()
    with pytest.raises(StoreError):
        await bundle_from_database(tmp_path / "nothing.db", "", 7)
    assert read(write_bundle(tmp_path / "out", bundle)) == bundle
