"""A drill on real processes: the peer cheats while our daemon is down, the tower is killed too, and we are paid right.

docs/tower.md, "Drill", is this test in commands.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess

import pytest

from channeld.chain.keystore import create_keystore
from channeld.cli.demo import expected
from channeld.cli.demo.scenarios import happened, last_signed, paid
from channeld.cli.demo.timeline import Timeline
from channeld.cli.demo.trading import VOL, Day
from channeld.cli.demo.world import DEPOSIT, World, units
from channeld.cli.output import OUT
from channeld.cli.processes import Cast, answers, command_line, free_port
from channeld.core.crypto import address_of, checksum_address
from channeld.core.settlement import fix_time

BACKENDS = ["embedded", pytest.param("anvil", marks=pytest.mark.anvil)]


class TowerProcess:
    """`channeld tower run`, as its operator starts it."""

    def __init__(self, world):
        self.world = world
        self.folder = world.directory / "tower"
        self.port = free_port()
        key = secrets.token_bytes(32)
        self.address = checksum_address(address_of(key))
        self.folder.mkdir()
        create_keystore(self.folder / "keystore.json", "a password", key, iterations=2)
        (self.folder / "owners.txt").write_text("", encoding="utf-8")
        self.child = None

    @property
    def name(self):
        return f"{self.address}@http://127.0.0.1:{self.port}"

    def start(self):
        shutil.copyfile(self.world.maker.folder / "deployment.json", self.folder / "deployment.json")
        arguments = ["tower", "run", "--data", str(self.folder), "--chain", self.world.devnet.url, "--devnet"]
        arguments += ["--listen", f"127.0.0.1:{self.port}", "--anyone", "3", "--confirmations", "0"]
        arguments += ["--poll-interval", "0.1", "--oracle", self.world.oracle]
        self.child = self.world.cast.start("tower", arguments, {"CHANNELD_PASSWORD": "a password"})
        self.child.wait_ready(answers(f"http://127.0.0.1:{self.port}/healthz"))


def check(desk):
    """`channeld tower check`: exit code, and what it says."""
    words = command_line(["tower", "check", "--data", str(desk.folder), "--json"])
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("chain", BACKENDS)
def test_the_peer_cheats_while_we_are_down_and_the_tower_saves_us(tmp_path, chain):
    if chain == "anvil" and shutil.which("anvil") is None:
        pytest.skip("anvil is not on the PATH (npm: @foundry-rs/anvil)")
    before, OUT.machine = OUT.machine, True
    try:
        with Cast(tmp_path) as cast:
            drill(World(cast, tmp_path, chain))
    finally:
        OUT.machine = before


def kill(world, child):
    """SIGKILL; that it is gone is meant."""
    child.kill()
    world.cast.children.remove(child)


def drill(world):
    day = Day(world, Timeline(world.now_ms))
    tower = TowerProcess(world)
    day.begin(**{"tower.towers": [tower.name], "tower.check_interval": 0.5, "channel.mark_interval": 86_400})
    world.devnet.call("channeld_faucet", tower.address)
    tower.start()
    leg = {"instrument": day.call, "size": "40", "price": day.fair(day.call, VOL), "vol": VOL}
    world.maker.call("private/policy_set", peer="taker", auto_accept=True)
    day.trade(world.taker, [leg], "buys calls")
    old = int(world.see()["version"])
    day.mark(world.hour(6))
    body, newest = last_signed(world, world.taker)
    world.wait(lambda: check(world.taker)[0] == 0, "a tower that is current")
    (told,) = check(world.taker)[1]
    assert told["channels"] == [
        {"channel": world.channel, "version": newest, "current": True, "refused": ""},
    ]
    # the taker's daemon is gone, and so is the tower for a while
    kill(world, world.taker.child)
    kill(world, tower.child)
    since = int(world.maker.call("private/events")["next"])
    world.maker.call("private/challenge", channel=world.channel, version=old, timeout=120)
    raised = happened(world, world.maker, ("dispute_raised",), since)
    assert raised["version"] == old < newest
    tower.start()
    refuted = happened(world, world.maker, ("dispute_refuted",), since)
    assert (refuted["version"], refuted["by"]) == (newest, tower.address)
    # the cheater goes too; the taker is back only when the challenge period is over
    kill(world, world.maker.child)
    deadline = int(raised["deadline"])
    world.devnet.advance(deadline + 30 - world.now_ms() // 1000)
    world.start_desk(world.taker)
    world.ready(world.taker)
    world.wait(lambda: "deadline" in world.taker.call("private/dispute", channel=world.channel), "a look at the chain")
    at = fix_time(world.terms, deadline)
    world.advance_to(at + 30, (world.taker,))
    happened(world, world.taker, ("settled",), 0)
    deposits = (units(DEPOSIT), units(DEPOSIT))
    payouts = paid(world, expected.settlement(world.oracle, world.terms, body, at, deposits)[1])
    for one in payouts.values():
        assert one["paid"] == one["expected"]
    assert payouts["b"]["paid"] != payouts["a"]["paid"]
