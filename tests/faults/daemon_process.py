"""A daemon's process that has loaded its modules and waits for a line before it runs, so that a restart is quick.

Usage: daemon_process.py DIRECTORY, with CHANNELD_PASSWORD. What runs after the line is all of `channeld run`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from channeld.chain import deployment, keystore  # noqa: F401 - loaded ahead
from channeld.daemon import node  # noqa: F401 - loaded ahead
from channeld.daemon.config import load
from channeld.daemon.main import run

if __name__ == "__main__":
    sys.stdin.readline()
    run(load(Path(sys.argv[1]), flags={}), os.environ["CHANNELD_PASSWORD"], print)
