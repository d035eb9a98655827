"""The command starts quickly, imports nothing heavy, and knows every noun and verb."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from channeld import __version__
from channeld.cli import pure

HEAVY = ("web3", "eth_tester", "eth_account", "aiohttp", "numpy", "uvloop", "coincurve", "msgspec")
COMMANDS = [
    "devnet",
    "devnet advance",
    "devnet token",
    "devnet mint",
    "devnet faucet",
    "devnet clock",
    "oracle serve",
    "oracle decode",
    "oracle set",
    "oracle signers",
    "oracle latest",
    "init",
    "run",
    "deploy",
    "address",
    "devnet balance",
    "stop",
    "peer add",
    "peer list",
    "channel template",
    "channel open",
    "channel proposals",
    "channel accept",
    "channel deposit",
    "channel withdraw",
    "channel close",
    "channel list",
    "channel show",
    "channel journal",
    "trade",
    "trade propose",
    "trade compress",
    "trade novate",
    "channel roll",
    "statement",
    "reconcile",
    "confirmation write",
    "confirmation verify",
    "trade offers",
    "trade accept",
    "trade reject",
    "policy",
    "transfer",
    "mark",
    "vols",
    "positions",
    "margin",
    "status",
    "events",
    "dispute challenge",
    "dispute status",
    "dispute export",
    "dispute inspect",
    "dispute call-margin",
    "dispute refute",
    "dispute prove-fix",
    "dispute test",
    "dispute settle",
    "dispute settle-last",
    "dispute release",
    "dispute resume",
    "dispute claim",
    "dispute watch",
    "dispute fetch-fix",
    "doctor",
    "explain",
    "audit replay",
    "audit export",
    "audit verify",
    "backup create",
    "backup verify",
    "backup restore",
    "token create",
    "token list",
    "token revoke",
    "tower init",
    "tower run",
    "tower status",
    "tower check",
    "hash terms",
    "hash body",
    "hash state",
    "value",
    "demo",
    "version",
]
GROUPS = {"trade", "audit"}


def test_help_imports_nothing_heavy():
    code = (
        "import sys, runpy; sys.argv = ['channeld', '--help']\n"
        "try:\n    runpy.run_module('channeld.cli.main', run_name='__main__')\n"
        "except SystemExit: pass\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip().endswith("LOADED []"), done.stdout[-300:]


def spent(run):
    """The processor's seconds of the children that `run` starts: what else the machine does is no part of them."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_answers_at_once(process):
    framework = [sys.executable, "-c", "import asyncio, typer.main, typer.rich_utils"]
    best = min(spent(lambda: process("--help")) for _ in range(3))
    assert process("--help").returncode == 0
    # half a second on an idle machine; a busy one is measured by what the framework takes to start, drawing included
    assert best < max(0.5, 1.25 * spent(lambda: subprocess.run(framework, check=True)))


@pytest.mark.parametrize(
    ("words", "code", "shown"),
    [
        (["--debug", "version"], 0, "channeld"),
        (["version", "--help"], 0, "Print the version"),
        (["trade", "--help"], 0, "what-if"),
        (["--help", "version"], 0, "positions"),
        (["positons"], 2, "positions"),
        (["hash", "nothing"], 2, "nothing"),
        ([], 2, "positions"),
    ],
)
def test_a_process_knows_the_command_asked_for_and_all_of_them_where_help_is_wanted(process, words, code, shown):
    done = process(*words)
    assert done.returncode == code, done.stderr
    assert shown in done.stdout + done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_json(cli, command):
    result = cli(*command.split(), "--help")
    assert result.exit_code == 0, result.output
    assert command in GROUPS or "--json" in result.output


def test_version_as_data(cli):
    result = cli("version", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"version": __version__}


def test_an_unknown_command_is_a_usage_error(cli):
    result = cli("chanel", "list")
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_the_group_of_a_command_that_fails_unexpectedly_writes_a_file(cli, monkeypatch, clear):
    def broken(*_arguments):
        raise ZeroDivisionError("of no use to users")

    monkeypatch.setattr(pure, "price_and_greeks", broken)
    result = cli("value", "--kind", "call", "--spot", "1", "--strike", "1", "--vol", "1")
    told = clear(result, 19, "ZeroDivisionError", "channeld-traceback-")
    path = Path(told.split("Report it with ")[1].split(";")[0])
    assert "Traceback" in path.read_text(encoding="utf-8")
    path.unlink()
