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


def test_bench_book_measures_updates_and_matches():
    command = [sys.executable, "-m", "channeld.cli.main", "bench", "book", "--json", "--count", "500", "--orders", "50"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    told = json.loads(done.stdout)
    assert told["updates"] == 500
    assert told["matches"] == told["orders"] == 50
    assert told["updates_per_s"] > 0
    assert told["matches_per_s"] > 0
    assert {"fsync", "machine", "bound_per_s", "ratio", "p50_ms", "p99_ms"} <= told.keys()


def test_bench_rfq_measures_a_round_between_three_processes():
    command = [sys.executable, "-m", "channeld.cli.main", "bench", "rfq", "--json", "--count", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    told = json.loads(done.stdout)
    assert told["trades"] == 10
    assert 0 < told["p50_ms"] <= told["p99_ms"]
    assert {"fsync", "machine", "bound_per_s", "ratio"} <= told.keys()
