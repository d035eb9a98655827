"""Backups: every byte counts; made beside a running desk, and restored to one that asks its peer first."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import shutil
import sqlite3
import time

import pytest
from desk_world import only_actor, two_desks
from hypothesis import given, settings
from hypothesis import strategies as st

from channeld.chain.keystore import create_keystore
from channeld.daemon import backup, backup_file, doctor
from channeld.daemon.backup_file import (
    FRAME,
    BackupError,
    BackupExistsError,
    BackupIncompleteError,
    BackupUnsupportedError,
    DamagedBackupError,
    NotABackupError,
    StaleRecordsError,
    UnsoundBackupError,
    WrongBackupPasswordError,
    seal,
    unseal,
)
from channeld.daemon.config import annotated_sample, load
from channeld.daemon.high_water import FILE as HIGH_WATER

CHEAP = {"operations": 1, "memory_kib": 8}
SECRET = "a backup's password"


def sealed(content, password=SECRET):
    out = io.BytesIO()
    seal(out, content, password, **CHEAP)
    return out.getvalue()


def opened(raw, password=SECRET):
    return b"".join(unseal(io.BytesIO(raw), password))


@pytest.mark.parametrize("size", [0, 1, FRAME - 1, FRAME, FRAME + 1, 3 * FRAME])
def test_what_was_sealed_opens_and_nothing_of_it_shows(size):
    content = bytes(range(256)) * (size // 256 + 1)
    raw = sealed([content[:size]])
    assert opened(raw) == content[:size]
    assert size < 256 or content[:64] not in raw


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=FRAME), max_size=5))
def test_chunks_of_any_size_open_as_one_stream(chunks):
    assert opened(sealed(chunks)) == b"".join(chunks)


RAW = sealed([b"x" * 100, b"y" * (2 * FRAME)])


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, len(RAW) - 1), flip=st.integers(1, 255))
def test_any_altered_byte_is_found(at, flip):
    altered = bytearray(RAW)
    altered[at] ^= flip
    # a cost that is merely higher would be paid before it is found out: those bytes are bounded, and tested below
    if len(backup_file.MAGIC) + 16 <= at < len(backup_file.MAGIC) + 24:
        return
    with pytest.raises((NotABackupError, WrongBackupPasswordError, DamagedBackupError)):
        opened(bytes(altered))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_anything_cut_off_put_in_or_exchanged_is_found(data):
    at = data.draw(st.integers(0, len(RAW) - 1))
    with pytest.raises(BackupError):
        opened(RAW[:at])
    with pytest.raises(DamagedBackupError):
        opened(RAW + data.draw(st.binary(min_size=1, max_size=9)))


def test_frames_cannot_be_left_out_or_exchanged():
    front = len(backup_file.MAGIC) + 16 + 8 + 24
    frame = 4 + FRAME + 17
    first, second, rest = RAW[front : front + frame], RAW[front + frame : front + 2 * frame], RAW[front + 2 * frame :]
    for order in (first + rest, second + first + rest, first + first + second + rest, second + rest):
        with pytest.raises((DamagedBackupError, WrongBackupPasswordError)):
            opened(RAW[:front] + order)


def test_a_wrong_password_and_a_cost_that_nobody_wrote():
    with pytest.raises(WrongBackupPasswordError):
        opened(RAW, "another")
    with pytest.raises(BackupError, match="empty"):
        sealed([b"x"], "")
    at = len(backup_file.MAGIC) + 16
    for cost in ((0, 8), (11, 8), (1, 7), (1, 1 << 31)):
        asks = cost[0].to_bytes(4, "big") + cost[1].to_bytes(4, "big")
        with pytest.raises(NotABackupError):
            opened(RAW[:at] + asks + RAW[at + 8 :])


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("keystore.json", True),
        ("packages/ETH/1900000000.hex", True),
        ("api.token", False),
        ("../keystore.json", False),
        ("packages/../../x", False),
        ("packages/ETH/..", False),
        ("/etc/passwd", False),
        ("packages//x", False),
        ("", False),
        (7, False),
    ],
)
def test_names_are_of_a_list(name, known):
    assert backup.known_name(name) is known


MANIFEST = {
    "format": 1,
    "desk": "maker",
    "address": "0x" + "00" * 20,
    "created_ms": 1,
    "files": [{"name": "keystore.json", "size": 2}, {"name": "channeld.toml", "size": 0}],
}


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"files": []},
        {"files": [*MANIFEST["files"], {"name": "../x", "size": 1}]},
        {"files": [*MANIFEST["files"], {"name": "keystore.json", "size": 1}]},
        {"files": [*MANIFEST["files"], {"name": "channeld.db", "size": -1}]},
        {"files": 7},
        {"created_ms": "now"},
        {"address": "0x" + "11" * 20},
    ],
)
def test_a_manifest_that_does_not_fit_restores_nothing(tmp_path, change):
    content = json.dumps({**MANIFEST, **change}).encode() + b"\n" + b"{}"
    (tmp_path / "wrong").write_bytes(sealed([content]))
    for work in (
        lambda: backup.verify_backup(tmp_path / "wrong", SECRET),
        lambda: backup.restore(tmp_path / "wrong", SECRET, tmp_path / "desk"),
    ):
        with pytest.raises(UnsoundBackupError):
            work()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wrong"]


@pytest.mark.parametrize("left", [b"", b"{", b"{}}"])
def test_more_or_less_than_the_manifest_says_is_damage(tmp_path, left):
    (tmp_path / "wrong").write_bytes(sealed([json.dumps(MANIFEST).encode() + b"\n" + left]))
    with pytest.raises((DamagedBackupError, UnsoundBackupError)):
        backup.verify_backup(tmp_path / "wrong", SECRET)


# --- desks ----------------------------------------------------------------------------------------------------------


def as_an_operator_has_it(desk):
    """The desk's directory with a keystore and settings in it, as `channeld init` makes one; its configuration."""
    if not (desk.folder / "keystore.json").exists():
        create_keystore(desk.folder / "keystore.json", "the keystore's", desk.key, iterations=2)
    config = load(None, flags=desk.flags, environment={})
    (desk.folder / "channeld.toml").write_text(annotated_sample(config), encoding="utf-8")
    return load(desk.folder, environment={})


async def made(desk, path):
    config = as_an_operator_has_it(desk)
    return await asyncio.to_thread(backup.create, config, path, SECRET, **CHEAP)


async def test_a_desk_is_restored_and_asks_its_peer_before_it_signs(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        port = taker.node.hub.port
        await maker.call("transfer", channel=world.channel, amount="1")
        # beside the running daemon
        told = (await made(maker, tmp_path / "a.backup")).as_data()
        version = only_actor(maker).state.version
        assert [(c["status"], c["version"]) for c in told["channels"]] == [("open", version)]
        assert told["database"]
        noted = json.loads((maker.folder / "last-backup.json").read_text())
        assert (noted["file"], noted["channels"]) == (str(tmp_path / "a.backup"), told["channels"])
        await maker.call("transfer", channel=world.channel, amount="2")
        await taker.until(lambda: only_actor(taker).state.version == version + 1, "the payment")
        await maker.node.stop()
        # the disk is lost
        shutil.rmtree(maker.folder)
        await asyncio.to_thread(backup.restore, tmp_path / "a.backup", SECRET, maker.folder)
        assert (maker.folder / "keystore.json").stat().st_mode & 0o777 == 0o600
        assert load(maker.folder, environment={}).data_path == maker.folder
        await maker.start()
        assert only_actor(maker).state.version == version
        assert only_actor(maker).channel.lost
        await maker.until(lambda: only_actor(maker).state.version == version + 1, "what the peer shows")
        assert only_actor(maker).channel.lost
        await world.advance(700)
        await maker.until(lambda: not only_actor(maker).channel.lost, "the recovery")
        assert only_actor(maker).state.version > version + 2**32
        await maker.call("transfer", channel=world.channel, amount="4")
        assert taker.node.hub.port == port
        assert only_actor(maker).state.body.b.balance == 250_007 * 10**6


async def test_an_older_database_put_back_is_refused_unless_it_is_declared(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        maker = world.maker
        old = tmp_path / "old.db"
        with (
            contextlib.closing(sqlite3.connect(maker.folder / "channeld.db")) as source,
            contextlib.closing(sqlite3.connect(old)) as copy,
        ):
            source.backup(copy)
        await maker.call("transfer", channel=world.channel, amount="1")
        version = only_actor(maker).state.version
        await maker.node.stop()
        assert set(json.loads((maker.folder / HIGH_WATER).read_text()).values()) == {version}
        for name in ("channeld.db", "channeld.db-wal", "channeld.db-shm"):
            (maker.folder / name).unlink(missing_ok=True)
        shutil.copy(old, maker.folder / "channeld.db")
        with pytest.raises(StaleRecordsError, match=f"has signed version {version}"):
            await maker.start()
        (maker.folder / "restored").touch()
        await maker.start()
        assert only_actor(maker).channel.lost
        await maker.node.stop()
        # a mark that says nothing stands in nobody's way
        (maker.folder / HIGH_WATER).write_text("[1")
        await maker.start()
        assert only_actor(maker).channel.lost


async def test_what_stands_in_the_way_of_a_backup(tmp_path):
    async with two_desks(tmp_path) as world:
        maker = world.maker
        config = as_an_operator_has_it(maker)
        await made(maker, tmp_path / "one")
        with pytest.raises(BackupExistsError):
            await made(maker, tmp_path / "one")
        with pytest.raises(BackupExistsError):
            await asyncio.to_thread(backup.restore, tmp_path / "one", SECRET, maker.folder)
        on_postgresql = load(maker.folder, flags={"desk.store": "postgresql://x@localhost/x"}, environment={})
        with pytest.raises(BackupUnsupportedError):
            backup.create(on_postgresql, tmp_path / "two", SECRET, **CHEAP)
        kept = await asyncio.to_thread(
            lambda: backup.create(on_postgresql, tmp_path / "two", SECRET, without_database=True, **CHEAP)
        )
        assert not kept.as_data()["database"]
        (maker.folder / "keystore.json").unlink()
        with pytest.raises(BackupIncompleteError, match=r"keystore\.json"):
            backup.create(config, tmp_path / "three", SECRET, **CHEAP)
        assert not (tmp_path / "three").exists()


async def test_a_backup_whose_records_do_not_prove_themselves_is_not_sound(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        maker = world.maker
        config = as_an_operator_has_it(maker)
        await maker.node.stop()
        with contextlib.closing(sqlite3.connect(maker.folder / "channeld.db")) as database:
            database.execute("UPDATE states SET signature_b = signature_a")
            database.commit()
        with pytest.raises(UnsoundBackupError, match="not signed by both"):
            await asyncio.to_thread(lambda: backup.create(config, tmp_path / "a", SECRET, **CHEAP))
        assert not (tmp_path / "a").exists()


def test_the_doctor_reads_the_age_of_the_last_backup(tmp_path):
    assert (doctor.backup(tmp_path, live=True).level, doctor.backup(tmp_path, live=False).level) == ("warning", "ok")
    note = tmp_path / backup.NOTE
    for hours, level in ((1, "ok"), (49, "warning")):
        note.write_text(json.dumps({"created_ms": int((time.time() - hours * 3600) * 1000)}))
        found = doctor.backup(tmp_path, live=True)
        assert (found.level, found.found) == (level, f"made {hours}.0 hours ago")
    for spoilt in ("", "[]", '{"created_ms": null}'):
        note.write_text(spoilt)
        assert doctor.backup(tmp_path, live=False).level == "warning"
