"""docs/tutorial.md is run as it stands, command by command, with real processes; only its ports are moved."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("e2e")]

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
PORTS = ("8545", "9800", "9600", "9601", "9700", "9701")


def script():
    """The tutorial's blocks in order, on free ports, stopping at the first command that fails."""
    text = "".join(BLOCK.findall(TUTORIAL.read_text(encoding="utf-8")))
    with contextlib.ExitStack() as stack:
        for port in PORTS:
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            assert port in text
            text = re.sub(rf"\b{port}\b", str(probe.getsockname()[1]), text)
    return "set -eux -o pipefail\n" + text


def test_the_tutorial_runs(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CHANNELD_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    try:
        done = subprocess.run(
            ["bash", "-c", script()],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    finally:
        for file in tmp_path.rglob("*.pid"):
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(int(file.read_text()), signal.SIGKILL)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    paid = [line for line in done.stdout.splitlines() if re.fullmatch(r"\d+\.\d+", line)]
    assert len(paid) == 2
    assert sum(map(Decimal, paid)) == 500_000
    assert "Traceback" not in done.stderr
    assert "initial margin" in done.stderr
