"""`channeld demo`: real processes, a real chain, and payouts that are equal to the last unit."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("e2e")]

CHAINS = [
    "embedded",
    pytest.param(
        "anvil",
        marks=[pytest.mark.anvil, pytest.mark.skipif(shutil.which("anvil") is None, reason="anvil is not installed")],
    ),
]
EXPECTED_KINDS = {
    "coop": {
        "deployed",
        "connected",
        "opened",
        "deposited",
        "trade",
        "payment",
        "marked",
        "trade_refused",
        "reduced",
        "expired",
        "closed_out",
        "audited",
        "closed",
    },
    "vanish": {"trade", "killed", "alert", "challenged", "deadline", "fixed", "settled", "paid"},
    "cheat": {"trade", "cheat", "refuted", "deadline", "fixed", "settled", "paid"},
}


def command(*arguments):
    return [sys.executable, "-m", "channeld.cli.main", "demo", *arguments]


def processes_of(directory):
    """The processes whose output goes to a file in a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "fd" / "1").readlink().is_relative_to(directory):
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("scenario", ["coop", "vanish", "cheat"])
def test_a_scenario_pays_to_the_unit(scenario, chain, tmp_path):
    keep = tmp_path / "demo"
    began = time.monotonic()
    done = subprocess.run(
        command("--scenario", scenario, "--chain", chain, "--keep", str(keep), "--json"),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    # ninety seconds on two idle cores; CI shares them
    assert time.monotonic() - began < 180
    told = json.loads(done.stdout)
    assert told["scenario"] == scenario
    assert set(told["payouts"]) == {"a", "b"}
    for one in told["payouts"].values():
        assert isinstance(one["paid"], str)
        assert one["paid"] == one["expected"]
    assert sum(Decimal(one["paid"]) for one in told["payouts"].values()) == 500_000
    assert told["payouts"]["a"]["paid"] not in ("0", "250000", "500000")
    kinds = [one["kind"] for one in told["events"]]
    assert EXPECTED_KINDS[scenario] <= set(kinds), kinds
    times = [one["time_ms"] for one in told["events"]]
    assert times == sorted(times)
    assert processes_of(keep) == []


def test_a_refused_trade_shows_the_figures_and_a_reducing_one_passes(tmp_path):
    done = subprocess.run(
        command("--keep", str(tmp_path / "demo"), "--json"), capture_output=True, text=True, timeout=180, check=True
    )
    events = json.loads(done.stdout)["events"]
    refused = next(one for one in events if one["kind"] == "trade_refused")
    assert {"equity", "initial_margin", "maintenance_margin"} <= set(refused["details"])
    assert Decimal(refused["details"]["equity"]) < Decimal(refused["details"]["initial_margin"])
    after = events[events.index(refused) + 1]
    assert after["kind"] == "reduced"
    assert after["version"] > refused["version"]
    marks = [one for one in events if one["kind"] in ("marked", "expired")]
    assert len(marks) >= 5
    assert any(Decimal(one["funding"]) != 0 for one in marks)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_survives_a_demo_that_is_killed(number, tmp_path):
    keep = tmp_path / "demo"
    running = subprocess.Popen(
        command("--keep", str(keep), "--json"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while not (keep / "taker.log").exists():
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert len(processes_of(keep)) > 1
        running.send_signal(number)
        running.wait(timeout=30)
        while processes_of(keep):
            assert time.monotonic() < deadline + 30, processes_of(keep)
            time.sleep(0.05)
    finally:
        running.kill()
        running.wait()
