"""`channeld demo`: real processes, a real chain, and payouts that are equal to the last unit."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from channeld.cli.processes import accepts, free_port

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
    "default": {"trade", "margin_call", "answered", "reduction_proposed", "margin_called", "tested", "settled", "paid"},
    "oracle-dead": {"trade", "challenged", "killed", "waiting", "settled", "paid"},
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


def lived(scenario, chain, keep):
    """Run a scenario, hold it to what every scenario must show, and give what it printed."""
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
    return told


@pytest.mark.parametrize("chain", CHAINS)
def test_two_desks_live_through_three_days(chain, tmp_path):
    """A refused trade shows the figures and a reducing one passes; marks carry funding; the journal replays."""
    events = lived("coop", chain, tmp_path / "demo")["events"]
    refused = next(one for one in events if one["kind"] == "trade_refused")
    assert {"equity", "initial_margin", "maintenance_margin"} <= set(refused["details"])
    assert Decimal(refused["details"]["equity"]) < Decimal(refused["details"]["initial_margin"])
    after = events[events.index(refused) + 1]
    assert after["kind"] == "reduced"
    assert after["version"] > refused["version"]
    marks = [one for one in events if one["kind"] in ("marked", "expired")]
    assert len(marks) >= 5
    assert any(Decimal(one["funding"]) != 0 for one in marks)
    kinds = [one["kind"] for one in events]
    assert kinds.count("audited") == 2
    assert kinds.index("audited") < kinds.index("closed")


@pytest.mark.parametrize("chain", CHAINS)
def test_a_margin_call_that_is_not_met_is_judged_on_chain(chain, tmp_path):
    events = lived("default", chain, tmp_path / "demo")["events"]
    (tested,) = [one["event"] for one in events if one["kind"] == "tested"]
    assert tested["below"] == ["b"]
    assert Decimal(tested["equity_b"]) < Decimal(tested["margin_b"])
    assert int(tested["penalty_units"]) > 0


def test_without_an_oracle_the_balances_are_paid_after_the_grace(tmp_path):
    events = lived("oracle-dead", "embedded", tmp_path / "demo")["events"]
    kinds = [one["kind"] for one in events]
    assert kinds.index("killed") < kinds.index("waiting") < kinds.index("settled")


@pytest.mark.parametrize("chain", CHAINS)
def test_a_desk_that_vanishes_is_alerted_and_challenged(chain, tmp_path):
    events = lived("vanish", chain, tmp_path / "demo")["events"]
    kinds = [one["kind"] for one in events]
    order = ["killed", "lost", "alert", "challenged", "deadline", "fixed", "settled", "paid"]
    assert [kind for kind in kinds if kind in order] == order
    alert = next(one for one in events if one["kind"] == "alert")
    assert alert["event"]["severity"] == "critical"


@pytest.mark.parametrize("chain", CHAINS)
def test_a_cheat_is_refuted(chain, tmp_path):
    events = lived("cheat", chain, tmp_path / "demo")["events"]
    cheat = next(one for one in events if one["kind"] == "cheat")
    refuted = next(one for one in events if one["kind"] == "refuted")
    assert cheat["version"] < cheat["newest"] <= refuted["version"]


@pytest.mark.anvil
@pytest.mark.skipif(shutil.which("anvil") is None, reason="anvil is not installed")
def test_a_development_node_at_a_url(tmp_path):
    port = free_port()
    node = subprocess.Popen(
        ["anvil", "--port", str(port), "--silent"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while not accepts("127.0.0.1", port)():
            assert node.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        lived("coop", f"http://127.0.0.1:{port}", tmp_path / "demo")
    finally:
        node.kill()
        node.wait()


class WithoutTimeControl(BaseHTTPRequestHandler):
    """A node that answers as nodes do, and knows no method that sets the time."""

    ANSWERS: ClassVar[dict] = {
        "eth_chainId": "0x1",
        "net_version": "1",
        "eth_blockNumber": "0x10",
        "eth_getBlockByNumber": {"number": "0x10", "timestamp": "0x68000000", "hash": "0x" + "11" * 32},
        "web3_clientVersion": "a node",
    }

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = {"jsonrpc": "2.0", "id": asked.get("id")}
        if asked["method"] in self.ANSWERS:
            answer["result"] = self.ANSWERS[asked["method"]]
        else:
            answer["error"] = {"code": -32601, "message": f"the method {asked['method']} does not exist"}
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments):
        """Keep the tests' output clean."""


def test_a_chain_without_time_control_is_refused(tmp_path):
    server = HTTPServer(("127.0.0.1", 0), WithoutTimeControl)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    keep = tmp_path / "demo"
    try:
        done = subprocess.run(
            command("--chain", f"http://127.0.0.1:{server.server_port}", "--keep", str(keep)),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert done.returncode == 11, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "time" in done.stderr.split("what to do:")[0]
    assert "--chain embedded" in done.stderr
    assert processes_of(keep) == []


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
