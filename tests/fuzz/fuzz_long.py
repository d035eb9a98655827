"""A long run of the consistency fuzzer: `python tests/fuzz/fuzz_long.py --actions 10000000 --seed 7`.

Prints JSON: what was run, how fast, how often everything happened, and what was found. What is found is written beside
the corpus with the bytes that lead to it, and the exit code is 1. A run's bytes follow from seed and number alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "core")]

from fuzz_world import run_bytes  # noqa: E402 - the path comes first


def bytes_of(seed: int, number: int, size: int) -> bytes:
    """The bytes of one run."""
    return random.Random(f"{seed}/{number}").randbytes(size)  # noqa: S311 - a fuzzer's choices


def main() -> int:
    """Run until so many actions are done, or so many seconds are over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--actions", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=2000, help="bytes of one run")
    parser.add_argument("--first", type=int, default=0, help="number of the first run")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--findings", type=Path, default=HERE / "findings")
    chosen = parser.parse_args()
    counts: Counter[str] = Counter()
    begun, actions, runs, found = time.monotonic(), 0, chosen.first, []
    while actions < chosen.actions and time.monotonic() - begun < chosen.seconds and len(found) < 10:
        data = bytes_of(chosen.seed, runs, chosen.size)
        try:
            actions += run_bytes(data, counts=counts)
        except Exception as error:  # noqa: BLE001 - whatever escapes is a finding
            chosen.findings.mkdir(exist_ok=True)
            (chosen.findings / f"{chosen.seed}-{runs}.bin").write_bytes(data)
            found.append({"run": runs, "found": f"{type(error).__name__}: {error}"})
            traceback.print_exc()
        runs += 1
        if runs % 500 == 0:
            sys.stderr.write(f"{actions} actions in {time.monotonic() - begun:.0f} s\n")
    seconds = time.monotonic() - begun
    report = {
        "actions": actions,
        "runs": runs - chosen.first,
        "seed": chosen.seed,
        "size": chosen.size,
        "seconds": round(seconds, 1),
        "actions_per_s": round(actions / seconds),
        "cpu_seconds": round(time.process_time(), 1),
        "happened": dict(counts.most_common()),
        "found": found,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
