"""`channeld bench`: two real processes and real disks; only that it measures, never how fast."""

from __future__ import annotations

import json
import subprocess
import sys


def test_bench_updates_measures_states_and_the_machines_own_bound():
    command = [
        sys.executable,
        "-m",
        "channeld.cli.main",
        "bench",
        "updates",
        "--json",
        "--count",
        "20",
        "--singles",
        "5",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    told = json.loads(done.stdout)
    assert told["states"] == 20
    assert 0 < told["ratio"] < 1
    assert 0 < told["p50_ms"] <= told["p99_ms"]
    assert told["bound_per_s"] > 0
    assert {"fsync", "machine", "states_per_s"} <= told.keys()
