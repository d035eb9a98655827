"""Two desks that run, built once for a module: a devnet, an oracle service, two daemons, each a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from channeld.cli.demo.timeline import Timeline
from channeld.cli.demo.trading import Day
from channeld.cli.demo.world import World
from channeld.cli.output import OUT
from channeld.cli.processes import Cast

# the drills use helpers of these rooms' tests
for room in ("chain", "cli"):
    sys.path.insert(0, str(Path(__file__).parent.parent / room))


class Desks:
    """The running world, and the command line as a desk's operator has it."""

    def __init__(self, world, day):
        self.world = world
        self.day = day

    def run(self, *arguments, password=None, environment=None, timeout=60):
        """`channeld` with arguments, as a process of its own; what it printed and its exit code."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CHANNELD_")}
        secret = {"CHANNELD_PASSWORD": password} if password else {}
        return subprocess.run(
            [sys.executable, "-m", "channeld.cli.main", *(str(one) for one in arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**kept, **secret, **(environment or {})},
        )

    def state(self):
        """What no bad input may change: the co-signed state of both desks, their channels, peers and proposals."""
        return [
            (
                without_time(desk.call("private/channel", channel=self.world.channel)),
                [{**without_time(one), "free_equity": None} for one in desk.call("private/channels")],
                [(one["name"], one["address"], one["connected"]) for one in desk.call("private/peers")],
                desk.call("private/channel_proposals"),
                desk.call("private/offers"),
            )
            for desk in self.world.desks
        ]


def without_time(row):
    """A channel's row without what moves with the clock."""
    return {**row, "safe_offline_until_ms": None}


def quiet(shown):
    """Whether a desk has seen both deposits, on chain and in the state, and waits for nothing."""
    units = str(250_000 * 10**6)
    record = shown["chain"] or {}
    accounts = [shown["body"][side]["balance"] for side in "ab"]
    deposits = [record.get(f"deposited_{side}") for side in "ab"]
    return [str(one) for one in accounts] == deposits == [units, units] and not shown["pending"]


@pytest.fixture(scope="module")
def desks(tmp_path_factory):
    """A channel between two running desks, both deposits counted, and one trade in it."""
    before, OUT.machine = OUT.machine, True
    directory = tmp_path_factory.mktemp("desks")
    try:
        with Cast(directory) as cast:
            world = World(cast, directory, "embedded")
            day = Day(world, Timeline(world.now_ms))
            # marks come when a test asks for one, so that nothing but a test changes the channel
            day.begin(**{"channel.mark_interval": 86_400})
            world.wait(lambda: all(quiet(world.see(desk)) for desk in world.desks), "both desks to have seen all")
            yield Desks(world, day)
    finally:
        OUT.machine = before
