"""Blobs that desks keep for each other: a disk is lost and comes back, and a peer that returns what it should not."""

from __future__ import annotations

import sqlite3

import pytest
from desk_world import PATIENCE_S, alerted, audited, only_actor, two_desks

from channeld.core import records, wire
from channeld.core.channel.values import ProtocolFaultError
from channeld.core.operations import Transfer
from channeld.daemon import blob_recovery
from channeld.daemon.blob_format import AlteredBlobError, NoBlobError, open_blob
from channeld.daemon.config import load
from channeld.daemon.peer_blobs import THEIRS, ForgottenChannelError, OldBlobError
from channeld.daemon.services import NoAnswerError

LEAP = 1 << 32
DATABASE = ("channeld.db", "channeld.db-wal", "channeld.db-shm")


async def kept(keeper, owner):
    """What a desk keeps for another: (number, blob)."""
    raw = await keeper.node.store.document(THEIRS, owner.address.hex())
    return None if raw is None else (int.from_bytes(raw[:8], "big"), raw[8:])


async def content_of(keeper, owner):
    """What is in it, as its owner alone can read it; None without one."""
    found = await kept(keeper, owner)
    return None if found is None else open_blob(owner.key, owner.address, keeper.address, *found)


async def covered(keeper, owner):
    """Whether the blob holds the owner's newest state."""
    content = await content_of(keeper, owner)
    states = [one.state for one in content.channels] if content else []
    return states != [] and states[0] is not None and states[0].version == only_actor(owner).state.version


async def put(keeper, owner, value):
    """Have a keeper hold something else; the number is not looked at there before its next start."""
    write = records.PutDocument(THEIRS, owner.address.hex(), value)
    await keeper.node.store.commit([write])


def copied(path, target):
    """A sound copy of a database that is at rest."""
    with sqlite3.connect(path) as source, sqlite3.connect(target) as copy:
        source.backup(copy)
    source.close()
    copy.close()


async def recovered(owner, keeper, url):
    """The owner's directory made again from what the keeper gives back."""
    config = load(None, flags=owner.flags, environment={})
    return await blob_recovery.recover(config, owner.key, keeper.address, url, patience_s=PATIENCE_S)


async def both_go_on(world, total):
    """Ten minutes later both are far above what may have been lost; a payment of 1 arrives, and b has `total` then."""
    maker, taker = world.maker, world.taker
    await world.advance(700)
    for desk in (maker, taker):
        await desk.until(lambda d=desk: only_actor(d).state.version > LEAP, "the leap")
    await maker.call("transfer", channel=world.channel, amount="1")
    for desk in (maker, taker):
        await desk.until(lambda d=desk: only_actor(d).state.body.b.balance == total * 10**6, "the payment")
        assert not only_actor(desk).channel.lost
    assert only_actor(maker).state.body == only_actor(taker).state.body


@pytest.mark.parametrize("late", [False, True], ids=["the newest", "two payments old"])
async def test_a_lost_disk_is_made_again_of_the_peer_s_blob(tmp_path, late):
    async with two_desks(tmp_path, peers__backup_interval=0.05) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        await maker.call("transfer", channel=world.channel, amount="1")
        await maker.until(lambda: covered(taker, maker), "a blob of the newest state")
        if late:
            maker.node.blobs.touch = lambda _: None
            for amount in ("2", "4"):
                await maker.call("transfer", channel=world.channel, amount=amount)
        version = only_actor(maker).state.version
        content = await content_of(taker, maker)
        assert content.channels[0].state.version == version - 2 * late
        await maker.node.stop()
        for path in maker.folder.iterdir():
            path.unlink()

        found = await recovered(maker, taker, f"ws://127.0.0.1:{world.port}")
        (told,) = found.as_data()["channels"]
        assert told["channel"] == world.channel
        assert (told["recovered"], told["version"]) == (True, version - 2 * late)
        await maker.start()
        assert only_actor(maker).record.terms == only_actor(taker).record.terms
        assert only_actor(maker).channel.lost
        # the peer's address came back as well: nobody adds it again
        await maker.until(lambda: only_actor(maker).channel.synced, "the exchange")
        await maker.until(lambda: only_actor(maker).state.version == version, "the newest state")
        with pytest.raises(NoAnswerError, match="the recovery of lost states"):
            await only_actor(maker).submit(Transfer(0, 8), wait_s=0.2)
        assert only_actor(maker).state.version == version
        await both_go_on(world, 250_001 + 6 * late + 1)
        assert (await audited(maker, world.channel, tmp_path / "maker.audit")).base_version == version
        # and the recovered desk gives blobs again, above the one that it came from
        await maker.until(lambda: covered(taker, maker), "a blob of the newest state")


async def test_a_blob_proves_that_records_are_old_where_the_peer_shows_nothing(tmp_path):
    async with two_desks(tmp_path, peers__backup_interval=0.05) as world:
        await world.open()
        maker, cheater = world.maker, world.taker
        for desk in (maker, cheater):
            await desk.node.stop()
            copied(desk.folder / DATABASE[0], tmp_path / f"{desk.name}.db")
            await desk.start()
        # the taker's port is another after each start
        url = f"ws://127.0.0.1:{cheater.node.hub.port}"
        await maker.node.add_peer("taker", cheater.address, url)
        await maker.until(lambda: only_actor(maker).channel.synced, "the exchange")
        for amount in ("2", "4"):
            await maker.call("transfer", channel=world.channel, amount=amount)
        await maker.until(lambda: covered(cheater, maker), "a blob of the newest state")
        version, blob = only_actor(maker).state.version, await kept(cheater, maker)
        # both go back to their copies; of the newest states there is nothing left but the blob
        for desk in (maker, cheater):
            await desk.node.stop()
            for name in (*DATABASE, "high-water.json"):
                (desk.folder / name).unlink(missing_ok=True)
            copied(tmp_path / f"{desk.name}.db", desk.folder / DATABASE[0])
        await cheater.start()
        await put(cheater, maker, blob[0].to_bytes(8, "big") + blob[1])
        await maker.start()
        assert (only_actor(maker).state.version, only_actor(maker).channel.lost) == (version - 2, False)
        await maker.node.add_peer("taker", cheater.address, f"ws://127.0.0.1:{cheater.node.hub.port}")
        for desk in (maker, cheater):
            await desk.until(lambda d=desk: only_actor(d).state.version == version, "the state that only the blob has")
            assert only_actor(desk).channel.lost
        assert await alerted(maker, "nothing is signed for 10 minutes")
        await both_go_on(world, 250_007)


async def test_what_a_peer_gives_back_is_found_out_and_stops_nothing(tmp_path):
    async with two_desks(tmp_path, peers__backup_interval=0.05) as world:
        await world.open()
        maker, keeper = world.maker, world.taker
        await maker.until(lambda: covered(keeper, maker), "a blob")
        old = await kept(keeper, maker)
        await maker.call("transfer", channel=world.channel, amount="1")
        await maker.until(lambda: covered(keeper, maker), "a blob of the newest state")
        await maker.until(lambda: maker.node.blobs._of(keeper.address).kept > old[0], "the word that it is kept")
        number, blob = await kept(keeper, maker)
        theirs = await kept(maker, keeper)
        altered = bytes([*blob[:-1], blob[-1] ^ 1])
        wrong = {
            AlteredBlobError.code: number.to_bytes(8, "big") + altered,
            OldBlobError.code: old[0].to_bytes(8, "big") + old[1],
        }
        # another desk's, the right bytes under another number, no bytes at all: none of them opens
        for value in ((number, theirs[1]), (number + 1, blob), (number, b"")):
            with pytest.raises(AlteredBlobError):
                open_blob(maker.key, maker.address, keeper.address, *value)
        maker.node.blobs.touch = lambda _: None
        maker.node.blobs._give = _nothing
        for code, value in wrong.items():
            await put(keeper, maker, value)
            await maker.node.hub.renew(keeper.address)
            await maker.until(lambda c=code: any(a.get("code") == c for a in maker.node.alerts), f"alert {code}")
        await keeper.node.store.commit([records.DropDocument(THEIRS, maker.address.hex())])
        await maker.node.hub.renew(keeper.address)
        await maker.until(lambda: any(a.get("code") == NoBlobError.code for a in maker.node.alerts), "the alert")
        await maker.until(lambda: only_actor(maker).channel.synced, "the exchange")
        await maker.call("transfer", channel=world.channel, amount="1")
        assert not only_actor(maker).channel.lost
        for code in (*wrong, NoBlobError.code):
            assert sum(a.get("code") == code for a in maker.node.alerts) == 1


async def _nothing(_peer):
    return False


async def test_a_peer_fills_no_disk_and_a_desk_floods_no_peer(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        maker, keeper = world.maker, world.taker
        blobs = keeper.node.blobs
        await maker.until(lambda: kept(keeper, maker), "the first blob")
        number, _ = await kept(keeper, maker)
        for amount in range(1, 6):
            await maker.call("transfer", channel=world.channel, amount=str(amount))
        # one was given when the session began; the next is a minute away, whatever is signed
        assert maker.node.blobs._of(keeper.address).given == number
        assert (await kept(keeper, maker))[0] == number
        for more in range(1, 50):
            assert await blobs.takes(maker.address, wire.GiveBlob(number + more, bytes(wire.MAX_BLOB)))
        assert (await kept(keeper, maker))[0] == number
        with pytest.raises(wire.WireError, match="at most 524288 bytes"):
            wire.from_wire([wire.GiveBlob.TYPE, 1, bytes(wire.MAX_BLOB + 1)])
        # one message of a session may give back, whatever it holds
        blobs._of(maker.address).returned = False
        await blobs.takes(maker.address, wire.ReturnBlob(1, b"nothing of ours"))
        with pytest.raises(ProtocolFaultError, match="twice in one session"):
            await blobs.takes(maker.address, wire.ReturnBlob(2, b"nothing of ours"))


async def test_nothing_comes_of_a_peer_that_kept_nothing(tmp_path):
    async with two_desks(tmp_path, peers__backup_interval=0.05) as world:
        await world.open()
        maker, keeper = world.maker, world.taker
        await maker.until(lambda: covered(keeper, maker), "a blob")
        await maker.node.stop()
        await keeper.node.store.commit([records.DropDocument(THEIRS, maker.address.hex())])
        for name in (*DATABASE, "high-water.json"):
            (maker.folder / name).unlink(missing_ok=True)
        with pytest.raises(NoBlobError, match="keeps no blob"):
            await recovered(maker, keeper, f"ws://127.0.0.1:{world.port}")
        assert not (maker.folder / DATABASE[0]).exists()
        await maker.start()


async def test_a_channel_that_only_the_blob_knows_is_told(tmp_path):
    async with two_desks(tmp_path, peers__backup_interval=0.05) as world:
        await world.open()
        maker, keeper = world.maker, world.taker
        await maker.until(lambda: covered(keeper, maker), "a blob")
        await maker.node.stop()
        for name in (*DATABASE, "high-water.json"):
            (maker.folder / name).unlink(missing_ok=True)
        await maker.start()
        await maker.node.add_peer("taker", keeper.address, f"ws://127.0.0.1:{world.port}")
        code = ForgottenChannelError.code
        await maker.until(lambda: any(a.get("code") == code for a in maker.node.alerts), "the alert")
        # the directory has begun another life; what is missing is put beside it all the same
        await maker.node.stop()
        found = await recovered(maker, keeper, f"ws://127.0.0.1:{world.port}")
        assert [one["recovered"] for one in found.as_data()["channels"]] == [True]
        assert [
            one["recovered"]
            for one in (await recovered(maker, keeper, f"ws://127.0.0.1:{world.port}")).as_data()["channels"]
        ] == [False]
        await maker.start()
        await maker.until(lambda: only_actor(maker).channel.synced, "the exchange")
        assert only_actor(maker).channel.lost
        await both_go_on(world, 250_001)
