"""Drills that begin with two running desks: both daemons die, one is killed at every step; the payouts are right."""

from __future__ import annotations

import json
import shutil

import pytest
from drill_support import Shell, commands, wait_for

from channeld.cli.demo import expected
from channeld.cli.demo.scenarios import LATER, last_signed
from channeld.cli.demo.timeline import Timeline
from channeld.cli.demo.trading import Day
from channeld.cli.demo.world import DECIMALS, DEPOSIT, World
from channeld.cli.output import OUT
from channeld.cli.processes import Cast
from channeld.core.bundle import bundle_from_json
from channeld.core.settlement import fix_time
from channeld.core.wad import parse_decimal

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


def test_the_daemon_is_killed_at_every_step_of_a_dispute(begun):
    world, _ = begun
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
