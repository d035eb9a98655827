"""A desk whose database is an older copy: it signs nothing, takes what the peer shows, waits, and goes on far above."""

from __future__ import annotations

import sqlite3

import pytest
from desk_world import alerted, audited, only_actor, two_desks

from channeld.core.operations import Transfer
from channeld.daemon.services import NoAnswerError

LEAP = 1 << 32


def copied(path, target) -> None:
    """A sound copy of a database that is at rest."""
    with sqlite3.connect(path) as source, sqlite3.connect(target) as copy:
        source.backup(copy)
    source.close()
    copy.close()


@pytest.mark.parametrize("told", [True, False], ids=["declared", "found out"])
async def test_a_desk_that_runs_an_older_copy_goes_on_with_its_peer(tmp_path, told):
    async with two_desks(tmp_path) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        await maker.call("transfer", channel=world.channel, amount="1")
        await maker.node.stop()
        database, old = maker.folder / "channeld.db", tmp_path / "old.db"
        copied(database, old)
        await maker.start()
        await maker.until(lambda: only_actor(maker).channel.synced, "the exchange")
        for amount in ("2", "4"):
            await maker.call("transfer", channel=world.channel, amount=amount)
        version = only_actor(maker).state.version
        assert only_actor(taker).state.version == version
        await maker.node.stop()
        # as if the whole directory were a copy: the mark beside the database is as old
        for name in ("channeld.db", "channeld.db-wal", "channeld.db-shm", "high-water.json"):
            (maker.folder / name).unlink(missing_ok=True)
        copied(old, database)
        if told:
            (maker.folder / "restored").touch()
        await maker.start()
        assert only_actor(maker).state.version == version - 2
        assert only_actor(maker).channel.lost is told
        assert not (maker.folder / "restored").exists()
        await maker.until(lambda: only_actor(maker).state.version == version, "the peer's state")
        assert only_actor(maker).channel.lost
        assert await alerted(maker, "nothing is signed for 10 minutes")
        with pytest.raises(NoAnswerError, match="the recovery of lost states"):
            await only_actor(maker).submit(Transfer(0, 8), wait_s=0.2)
        # over a restart too
        await maker.node.stop()
        await maker.start()
        await maker.until(lambda: only_actor(maker).channel.synced, "the exchange")
        assert only_actor(maker).channel.lost
        await world.advance(300)
        await maker.node.watch._recovery(only_actor(maker), maker.node.clock.now_ms())
        assert only_actor(maker).state.version == version
        await world.advance(400)
        await maker.until(lambda: only_actor(maker).state.version > LEAP, "the leap")
        await taker.until(lambda: only_actor(taker).state.version > LEAP, "the leap")
        await maker.call("transfer", channel=world.channel, amount="16")
        for desk in (maker, taker):
            await desk.until(lambda d=desk: only_actor(d).state.body.b.balance == 250_023 * 10**6, "the payment")
            assert not only_actor(desk).channel.lost
            assert (await desk.call("audit", channel=world.channel))["replayed"]
        assert (await maker.call("audit", channel=world.channel))["replayed_from"] == version
        assert (await taker.call("audit", channel=world.channel))["replayed_from"] == 0
        # a file of either side proves the same state; the loser's from what it took on, with both signatures
        ours = await audited(maker, world.channel, tmp_path / "maker.audit")
        theirs = await audited(taker, world.channel, tmp_path / "taker.audit")
        assert ours.state == theirs.state == only_actor(maker).state
        assert (ours.base_version, theirs.base_version) == (version, 0)
        assert [f.total for f in ours.flows] == [f.total for f in theirs.flows]
