"""Fixtures: the command in this process (fast), and as a process of its own (as users have it)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from channeld.cli.main import app

CHANNELD = [sys.executable, "-m", "channeld.cli.main"]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("CHANNELD_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def cli():
    """Run the command in this process."""
    runner = CliRunner()

    def run(*arguments):
        return runner.invoke(app, [str(one) for one in arguments])

    return run


@pytest.fixture
def process():
    """Run the command as a process of its own."""

    def run(*arguments, environment=None, timeout=60):
        return subprocess.run(
            [*CHANNELD, *(str(one) for one in arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )

    return run


def assert_clear(result, code, *words):
    """An error that says what is wrong and what to do, with its exit code, and no traceback."""
    told = result.stderr
    assert (result.exit_code if hasattr(result, "exit_code") else result.returncode) == code, told
    assert "Traceback" not in told
    assert "Traceback" not in result.stdout
    for word in ("error:", *words):
        assert word in told
    return told


@pytest.fixture
def clear():
    return assert_clear
