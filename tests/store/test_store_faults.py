"""Faults, on real processes and real files: SIGKILL while committing, a full disk, a read-only directory."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from channeld.store.errors import ReadOnlyStoreError, StoreLockedError
from channeld.store.sqlite import SqliteStore

VICTIM = Path(__file__).with_name("store_victim.py")
NOBODY = 65534


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(VICTIM), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(*arguments: object) -> list[str]:
    command = [sys.executable, str(VICTIM), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


@pytest.mark.parametrize("acknowledgements", [1, 37, 400, 1500])
async def test_sigkill_while_committing_loses_nothing_acknowledged(tmp_path, acknowledgements):
    path = tmp_path / "channeld.db"
    with start("commit", path) as victim:
        heard = [victim.stdout.readline().strip() for _ in range(acknowledgements)]
        victim.send_signal(signal.SIGKILL)
        heard += [line.strip() for line in victim.stdout]
    assert victim.returncode == -signal.SIGKILL
    async with await SqliteStore.open(path) as store:  # the kernel released the lock
        await store.check()
        left = [key for key, _ in await store.documents("left")]
        right = [key for key, _ in await store.documents("right")]
    assert set(heard) <= set(left)
    assert left == right  # whole commits only
    for name in range(8):  # each caller's commits are a prefix of what it asked for
        own = [key for key in left if key.startswith(f"{name}/")]
        assert own == [f"{name}/{number:07}" for number in range(len(own))]
    # each of eight callers waits for its acknowledgement, so at most one commit of each was durable and not heard of
    assert len(left) - len(heard) <= 8


async def test_a_live_process_keeps_others_out(tmp_path):
    path = tmp_path / "channeld.db"
    with start("commit", path) as victim:
        victim.stdout.readline()
        with pytest.raises(StoreLockedError, match=f"process {victim.pid} holds"):
            await SqliteStore.open(path)
        victim.kill()


async def test_a_disk_without_room_stops_the_store_and_keeps_what_was_acknowledged(tmp_path):
    path = tmp_path / "channeld.db"
    refusal, afterwards = finish("limited", path, 600_000)
    name, acknowledged = refusal.split()
    assert name in {"DiskFullError", "DiskFaultError"}
    assert int(acknowledged) > 10
    assert afterwards == "StorePoisonedError"
    async with await SqliteStore.open(path) as store:
        keys = {int(key) for key, _ in await store.documents("x")}
        assert keys >= set(range(int(acknowledged)))
        assert len(keys) <= int(acknowledged) + 1
        await store.check()


def reachable(path):
    """Let other users through to a directory of the tests."""
    top = Path(tempfile.gettempdir())
    for each in (path, *path.parents):
        if each.is_relative_to(top) and each != top:
            each.chmod(0o755)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
async def test_a_directory_that_may_not_be_entered(tmp_path):
    directory = tmp_path / "closed" / "desk"
    directory.mkdir(parents=True)
    reachable(tmp_path)
    directory.parent.chmod(0o700)
    (answer,) = finish("unprivileged", directory / "channeld.db", NOBODY)
    assert answer == "StoreUnavailableError 6010"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
@pytest.mark.parametrize("existing", [False, True])
async def test_a_directory_that_may_not_be_written(tmp_path, existing):
    directory = tmp_path / "desk"
    directory.mkdir(mode=0o755)
    reachable(tmp_path)
    if existing:
        await (await SqliteStore.open(directory / "channeld.db")).close()
        (directory / "channeld.db").chmod(0o644)
        (directory / "channeld.db.lock").chmod(0o666)
    (answer,) = finish("unprivileged", directory / "channeld.db", NOBODY)
    assert answer in {"ReadOnlyStoreError 6012", "StoreUnavailableError 6010"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_a_directory_that_this_user_may_not_write(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ReadOnlyStoreError, match="Permission denied"):
        await SqliteStore.open(tmp_path / "channeld.db")
