"""Drills that begin with two running desks: both daemons die, one is killed at every step; the payouts are right."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3

import pytest
from drill_support import Shell, commands, wait_for

from channeld.chain.keystore import load_keystore
from channeld.cli.demo import expected
from channeld.cli.demo.scenarios import LATER, last_signed
from channeld.cli.demo.timeline import Timeline
from channeld.cli.demo.trading import Day
from channeld.cli.demo.world import DECIMALS, DEPOSIT, World
from channeld.cli.output import OUT
from channeld.cli.processes import Cast
from channeld.core.bundle import bundle_from_json
from channeld.core.channel.values import LEAP
from channeld.core.settlement import fix_time
from channeld.core.wad import parse_decimal
from channeld.daemon.blob_format import open_blob
from channeld.daemon.peer_blobs import THEIRS

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("drills")]

CHAINS = [
    "embedded",
    pytest.param(
        "anvil",
        marks=[pytest.mark.anvil, pytest.mark.skipif(shutil.which("anvil") is None, reason="anvil is not installed")],
    ),
]
UNITS = parse_decimal(DEPOSIT, DECIMALS)


@pytest.fixture
def begun(tmp_path, request):
    """Two desks with an open book; the maker keeps its bundle in a folder elsewhere."""
    before, OUT.machine = OUT.machine, True
    elsewhere = tmp_path / "elsewhere"
    try:
        with Cast(tmp_path / "desks") as cast:
            world = World(cast, tmp_path / "desks", getattr(request, "param", "embedded"))
            day = Day(world, Timeline(world.now_ms))
            settings = {
                "bundle.folder": str(elsewhere),
                "bundle.interval": 0.1,
                "peers.backup_interval": 1.0,
                "channel.mark_interval": 86_400,
                "channel.dispute_after": 86_400 * 30,
            }
            day.begin(**settings)
            day.open_positions()
            yield world, elsewhere
    finally:
        OUT.machine = before


def newest_bundle(world, elsewhere):
    """The maker's bundle of what both have signed last."""
    _, version = last_signed(world, world.maker)
    path = elsewhere / f"{world.channel}.bundle.json"

    def written():
        bundle = bundle_from_json(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None
        return bundle if bundle is not None and bundle.version >= version else None

    return wait_for(written), path


def paid(world):
    """What the payout addresses hold, units."""
    from channeld.cli import devtools  # noqa: PLC0415 - heavy

    return tuple(
        parse_decimal(devtools.balance(world.devnet.url, world.token, desk.payout), DECIMALS) for desk in world.desks
    )


@pytest.mark.parametrize("begun", CHAINS, indirect=True)
def test_the_counterparty_is_gone_and_our_disk_is_lost(begun, tmp_path):
    world, elsewhere = begun
    bundle, path = newest_bundle(world, elsewhere)
    # our key and our bundle survive, elsewhere; everything else of both desks is gone
    keys = shutil.copy(world.maker.folder / "keystore.json", tmp_path / "keystore.json")
    secret = tmp_path / "password.txt"
    secret.write_text(world.maker.password, encoding="utf-8")
    for desk in world.desks:
        desk.child.kill()
        shutil.rmtree(desk.folder)
    shell = Shell(
        bundle=path,
        rpc=world.devnet.url,
        oracle=world.oracle,
        folder=tmp_path / "packages",
        keystore=keys,
        password_file=secret,
    )
    status, challenge, watch = commands("disk-lost")
    assert commands("vanish") == [challenge, watch]
    assert "No dispute runs" in shell.run(status)
    shell.run(challenge)
    watching = shell.start(watch)
    told = json.loads(shell.run(status + " --json"))
    at = fix_time(bundle.terms, int(told["deadline"]))
    world.devnet.set_time(at + LATER)
    shell.end(watching)
    _, amounts = expected.settlement(world.oracle, bundle.terms, bundle.state.body, at, (UNITS, UNITS))
    assert paid(world) == amounts


def recovered_from_the_peer(world, folder):
    """The maker's disk is lost; by the page's commands it goes on from the blob that the taker kept."""
    maker, taker = world.maker, world.taker
    body, version = last_signed(world, maker)
    wait_for(lambda: blob_version(maker, taker) == version)
    maker.child.kill()
    world.killed = maker.child
    kept = [shutil.copy(maker.folder / name, folder / name) for name in ("keystore.json", "channeld.toml")]
    secret = folder / "password.txt"
    secret.write_text(maker.password, encoding="utf-8")
    shutil.rmtree(maker.folder)
    shell = Shell(
        data=maker.folder,
        keystore=kept[0],
        settings=kept[1],
        password_file=secret,
        peer=taker.address,
        peer_url=f"ws://127.0.0.1:{taker.peer_port}",
    )
    copy, from_peer = commands("disk-from-peer")
    shell.run(copy)
    assert world.channel[:14] in shell.run(from_peer)
    world.start_desk(maker)
    world.ready(maker)
    # told in the exchange with the peer: from then on it waits for ten minutes
    wait_for(lambda: any(e.get("cause") == "lost states" for e in maker.call("private/events")["events"]))
    assert int(world.see()["version"]) == version
    world.advance_to(world.now_ms() // 1000 + 700)
    wait_for(lambda: min(int(world.see(desk)["version"]) for desk in world.desks) > LEAP)
    maker.call("private/transfer", channel=world.channel, amount="1")
    again, later = last_signed(world, maker)
    assert later > LEAP
    assert again.a.balance == body.a.balance - 10**DECIMALS
    assert (again.b.balance, again.positions) == (body.b.balance + 10**DECIMALS, body.positions)
    world.cast.children.remove(world.killed)


def blob_version(owner, keeper):
    """The version in the blob that a keeper's database holds, as the owner's key opens it; None without one."""
    with contextlib.closing(sqlite3.connect(f"file:{keeper.folder / 'channeld.db'}?mode=ro", uri=True)) as database:
        row = database.execute("SELECT value FROM documents WHERE kind = ?", (THEIRS,)).fetchone()
    if row is None:
        return None
    key = load_keystore(owner.folder / "keystore.json", owner.password)
    ours, theirs = (bytes.fromhex(desk.address[2:]) for desk in (owner, keeper))
    content = open_blob(key, ours, theirs, int.from_bytes(row[0][:8], "big"), row[0][8:])
    return content.channels[0].state.version if content.channels and content.channels[0].state else None


def test_a_desk_whose_disk_was_lost_is_killed_at_every_step_of_a_dispute(begun, tmp_path):
    world, _ = begun
    recovered_from_the_peer(world, tmp_path)
    world.taker.child.kill()
    maker, terms = world.maker, world.terms
    body, version = last_signed(world, maker)
    kills = []

    def again(step):
        """SIGKILL, and the next life."""
        kills.append(step)
        maker.child.kill()
        world.start_desk(maker)
        world.ready(maker)

    def dispute():
        told = maker.call("private/dispute", channel=world.channel)
        return told if told.get("dispute") else None

    world.killed = world.taker.child
    maker.call("private/challenge", channel=world.channel, timeout=120)
    again("challenged")
    told = wait_for(dispute)
    assert told["on_record"] == version
    world.cast.children.remove(world.taker.child)
    at = fix_time(terms, int(told["deadline"]))
    again("before the deadline")
    world.devnet.set_time(int(told["deadline"]) + LATER)
    wait_for(lambda: int(maker.call("public/time")["time_ms"]) // 1000 > int(told["deadline"]))
    again("after the deadline")
    world.devnet.set_time(at + LATER)
    # the steps after the fix time take the daemon a moment each: it is killed in the middle of them, again and again
    for step in range(3):
        wait_for(lambda step=step: proven(world) >= step or ended(world))
        again(f"with {step} fixes proven")
    wait_for(lambda: ended(world))
    again("paid")
    wait_for(lambda: maker.call("private/channels")[0]["status"] == "closed")
    _, amounts = expected.settlement(world.oracle, terms, body, at, (UNITS, UNITS))
    assert paid(world) == amounts
    assert len(kills) == 7


def proven(world):
    """How many fixes stand on chain, by the maker's events."""
    events = world.maker.call("private/events")["events"]
    return len({(e["feed"], e["time"]) for e in events if e["kind"] == "fix_proven"})


def ended(world):
    """Whether the payout addresses have been paid."""
    return sum(paid(world)) > 0
