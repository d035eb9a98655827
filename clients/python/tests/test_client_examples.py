"""The examples, as they stand, against daemons, a chain and an oracle that are processes of their own."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from channeld.cli import devtools, terms_file
from channeld.cli.demo.timeline import Timeline
from channeld.cli.demo.trading import Day
from channeld.cli.demo.world import World
from channeld.cli.output import OUT
from channeld.cli.processes import Cast
from channeld.cli.services import oracle_request
from channeld.core.crypto import address_of, checksum_address
from channeld.core.files import terms_to_json

PACKAGE = Path(__file__).resolve().parents[1]
PATIENCE_S = 180


def start(name, *arguments):
    """An example as a process."""
    command = [sys.executable, str(PACKAGE / "examples" / name), *(str(one) for one in arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=PACKAGE,
        env={"PYTHONPATH": str(PACKAGE), "PATH": "", "PYTHONUNBUFFERED": "1"},
    )


def end(process):
    """What it printed; it must have gone well."""
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == 0, out + err
    return out


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two desks with a channel between them."""
    before, OUT.machine = OUT.machine, True
    directory = tmp_path_factory.mktemp("examples")
    try:
        with Cast(directory) as cast:
            made = World(cast, directory, "embedded")
            day = Day(made, Timeline(made.now_ms))
            day.begin(**{"channel.mark_interval": 86_400})
            made.taker.call("private/policy_set", peer="maker", auto_accept=True)
            yield made
    finally:
        OUT.machine = before


def test_the_client_s_examples_run(world):
    desk = world.maker.folder
    told = end(start("follow.py", "--data", desk, "--count", 4))
    assert "taker: " in told.splitlines()[0]
    numbers = [int(line.split()[0]) for line in told.splitlines()[1:]]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 4
    leg = ("--data", desk, "--channel", "taker", "--instrument", "ETH-PERP", "--size", "1", "--price", "3000")
    assert end(start("trade.py", *leg, "--keep-free", "10000000")).startswith("it would leave ")
    assert end(start("trade.py", *leg)).startswith("done in version ")
    pytest.importorskip("pandas", reason="the extra [pandas] is not installed")
    table = end(start("scenarios.py", "--data", desk, "--channel", "taker"))
    assert len(table.splitlines()) == 1 + 18


def test_a_wallet_trades_with_a_daemon_and_is_paid(world, tmp_path):
    key, payout = secrets.token_bytes(32), checksum_address(secrets.token_bytes(20))
    wallet = checksum_address(address_of(key))
    (tmp_path / "key.hex").write_text(key.hex(), encoding="ascii")
    world.devnet.call("channeld_faucet", wallet, hex(10**20))
    for owner in (wallet, world.maker.address):
        devtools.mint(world.devnet.url, world.token, owner, "20000")
    terms = tmp_path / "terms.toml"
    text = terms_file.write(
        template="tight",
        a=f"{world.maker.address}/{world.maker.payout}",
        b=f"{wallet}/{payout}",
        collateral=world.token,
        decimals=6,
        oracle_signers=oracle_request(world.oracle, "/signers")["signers"],
        quorum=2,
    )
    terms_file.save(terms, text)
    maker = world.maker
    maker.call("private/peer_add", name="wallet", address=wallet)
    maker.call("private/policy_set", peer="wallet", auto_accept=True)
    channel = maker.call("private/channel_propose", peer="wallet", terms=terms_to_json(terms_file.read(terms)))["hash"]
    bundle = tmp_path / "wallet.bundle.json"
    process = start(
        "wallet.py",
        *("--key-file", tmp_path / "key.hex", "--log", tmp_path / "wallet.log", "--bundle", bundle),
        *("--desk", maker.address, "--url", f"ws://127.0.0.1:{maker.peer_port}", "--payout", payout),
        *("--rpc", world.devnet.url, "--oracle", world.oracle, "--devnet", "--confirmations", 0),
        *("--deposit", "10000", "--instrument", "ETH-PERP", "--size", "1", "--price", "3000"),
    )
    try:

        def opened():
            assert process.poll() is None, process.communicate()
            return maker.call("private/channel", channel=channel)["status"] == "open"

        world.wait(opened, "the channel", PATIENCE_S)
        maker.call("private/deposit", channel=channel, amount="10000", timeout=120)
        told = end(process)
    finally:
        process.kill()
    assert "signing a link: " in told
    assert "you buy 1 ETH-PERP at 3000" in told
    assert "ended with 10000" in told
    paid = world.wait(lambda: maker.call("private/channel", channel=channel)["paid"], "the end", PATIENCE_S)
    assert paid["b"] == "10000"
    command = [sys.executable, "-m", "channeld.cli.main", "dispute", "inspect", bundle, "--price", "ETH=3000", "--json"]
    inspected = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert json.loads(inspected.stdout)["version"] == json.loads(bundle.read_text(encoding="utf-8"))["state"]["version"]
