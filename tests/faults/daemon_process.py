"""Starts a desk's daemon again and again, each in a process of its own, forked from one that has loaded the modules.

Usage: daemon_process.py DIRECTORY, with CHANNELD_PASSWORD. Lines on its input: `run` starts the daemon (all of what
`channeld run` runs) and prints its process id; `gone` waits until it has ended, and prints a line.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from channeld.cli.processes import die_with_parent
from channeld.daemon.config import load
from channeld.daemon.main import run


def daemon(folder):
    """Run the daemon in this process, and end it."""
    os.dup2(2, 1)
    code = 1
    try:
        die_with_parent()
        run(load(folder, flags={}), os.environ["CHANNELD_PASSWORD"], print)
        code = 0
    except BaseException:  # noqa: BLE001 - the end of a process
        traceback.print_exc()
    finally:
        os._exit(code)


def main():
    child = 0
    while line := os.read(0, 5):
        if line == b"run.\n":
            child = os.fork()
            if not child:
                daemon(Path(sys.argv[1]))
            print(child, flush=True)  # noqa: T201 - the answer
        else:
            os.waitpid(child, 0)
            print("gone", flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
