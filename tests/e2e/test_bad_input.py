"""What bad input gets, by the real command line at two desks that run: one clear error, and nothing has changed.

Each test says what is given, the exit code (docs/exit-codes.md) and words of the message: what is wrong, what to do.
"""

from __future__ import annotations

import contextlib
import errno
import json
import secrets
import shutil
import socket
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from channeld.cli import devtools, setup, terms_file
from channeld.cli.client import DevnetClient
from channeld.cli.errors import ServiceError
from channeld.cli.processes import answers, free_port
from channeld.core.crypto import address_of, checksum_address
from channeld.core.packages import DataPoint, sign_package
from channeld.core.terms import feed_id

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("e2e")]

OTHER_CHAIN = 4242
PASSWORD = "one of a test"


@pytest.fixture
def unchanged(desks):
    """Both desks hold afterwards exactly what they held before, and their daemons answer."""
    before = desks.state()
    yield
    with contextlib.suppress(ServiceError):  # a desk may look again at its chain or its peer first
        desks.world.wait(lambda: desks.state() == before, "the state as it was before the bad input", 5)
    assert desks.state() == before


def refused(result, code, *words):
    """One clear error: its exit code, what is wrong, what to do; no traceback."""
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert result.stdout == ""
    for word in ("error: ", "what to do: ", *words):
        assert word in result.stderr, result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        pytest.param(("ETH-PRP", "1", "3000"), 11, ("ETH-PRP", "ETH-PERP"), id="misspelt"),
        pytest.param(("DOGE-PERP", "1", "3000"), 12, ("DOGE",), id="no market of the terms"),
        pytest.param(("ETH-31FEB31-3000-C", "1", "10"), 11, ("31FEB31",), id="no day of the calendar"),
        pytest.param(("ETH-PERP", "1,5", "3000"), 11, ("1,5",), id="a comma in a size"),
        pytest.param(("ETH-PERP", "1", "3e3"), 11, ("3e3",), id="an exponent in a price"),
        pytest.param(("ETH-PERP", "1", "0." + "1" * 19), 11, ("0.1111",), id="too many places"),
        pytest.param(("ETH-24DEC30-3000-C", "1", "10", "--vol", "0.6"), 12, ("expir",), id="expired"),
        pytest.param(("ETH-PERP", "1", "3000", "--reference", "x" * 49), 11, ("49", "48"), id="a long reference"),
    ],
)
@pytest.mark.usefixtures("unchanged")
def test_a_trade_that_cannot_be(desks, arguments, code, words):
    refused(desks.run("trade", "maker", *arguments, "--data", desks.world.taker.folder), code, *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("transfer", "maker", "1.0000001"), ("1.0000001",)),
        (("transfer", "maker", "1", "--memo", "ü" * 25), ("50", "48")),
        (("channel", "deposit", "maker", "plenty"), ("plenty",)),
        (("channel", "withdraw", "maker", "-"), ("'-'",)),
        (("policy", "maker", "--price-band", "wide"), ("wide",)),
        (("margin", "maker", "--price", "ETH=0"), ("ETH",)),
    ],
)
@pytest.mark.usefixtures("unchanged")
def test_a_malformed_amount(desks, arguments, words):
    refused(desks.run(*arguments, "--data", desks.world.taker.folder), 11, *words)


@pytest.mark.usefixtures("unchanged")
def test_an_unknown_and_an_altered_hash_of_terms(desks):
    """The taker accepts what it computed from its own copy; the maker proposed other terms."""
    world = desks.world
    taker = world.taker.folder
    unknown = "0x" + secrets.token_hex(32)
    refused(desks.run("channel", "accept", unknown, "--wait", "0", "--data", taker), 11, unknown, "proposals")
    ours = world.directory / "takers-own-copy.toml"
    text = (world.directory / "terms.toml").read_text(encoding="utf-8")
    ours.write_text(text.replace('initial_factor = "1.2"', 'initial_factor = "1.5"'), encoding="utf-8")
    told = desks.run("hash", "terms", ours, "--deployment", taker / "deployment.json", "--id")
    altered = told.stdout.strip()
    assert altered != world.channel
    refused(desks.run("channel", "accept", altered, "--wait", "0", "--data", taker), 11, altered, "proposals")
    refused(desks.run("channel", "accept", "0x1234", "--wait", "0", "--data", taker), 11)


@pytest.mark.usefixtures("unchanged")
def test_terms_of_other_desks(desks):
    world = desks.world
    stranger = checksum_address(address_of(secrets.token_bytes(32)))
    path = world.directory / "strangers.toml"
    text = (world.directory / "terms.toml").read_text(encoding="utf-8")
    path.write_text(text.replace(world.taker.address, stranger), encoding="utf-8")
    result = desks.run("channel", "open", "taker", path, "--data", world.maker.folder)
    assert result.returncode in (11, 12), result.stderr
    refused(result, result.returncode, "terms")


@pytest.mark.parametrize("size", [1, 64, 5000, 200_000])
@pytest.mark.usefixtures("unchanged")
def test_random_bytes_to_the_port_for_peers(desks, size):
    """They end their own connection with an error in the log, and nothing else."""
    world = desks.world
    for content in (secrets.token_bytes(size), upgrade() + frame(secrets.token_bytes(size))):
        with socket.create_connection(("127.0.0.1", world.maker.peer_port), timeout=10) as client:
            client.settimeout(30)
            answer = spoken(client, content)
        assert b"Traceback" not in answer
    log = world.maker.child.log.read_text(encoding="utf-8")
    assert "Traceback" not in log
    assert desks.run("status", "--data", world.maker.folder).returncode == 0


def upgrade():
    """The head of a WebSocket connection."""
    return (
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )


def frame(content):
    """A masked binary WebSocket frame, as a client sends it; the mask is zero."""
    size = len(content)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 1 << 16:
        length = bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([0x80 | 127]) + size.to_bytes(8, "big")
    return b"\x82" + length + bytes(4) + content


def spoken(client, content):
    """Send bytes and read until the other side ends the connection; what it said."""
    said = b""
    try:
        client.sendall(content)
        client.shutdown(socket.SHUT_WR)
        while part := client.recv(4096):
            said += part
    except OSError as error:
        # it hung up while we still spoke; a time-out is something else
        if error.errno not in {errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN}:
            raise
    return said


@pytest.mark.usefixtures("unchanged")
def test_packages_by_a_wrong_signer_are_named_by_decode(desks, tmp_path):
    world = desks.world
    key = secrets.token_bytes(32)
    path = tmp_path / "packages.hex"
    path.write_text(
        sign_package(key, 1_924_588_800_000, [DataPoint(feed_id("ETH"), 3000 * 10**8)]).hex(), encoding="ascii"
    )
    assert desks.run("oracle", "decode", path).returncode == 0
    result = desks.run("oracle", "decode", path, "--terms", world.directory / "terms.toml")
    assert result.returncode == 14
    assert "Traceback" not in result.stderr
    assert f"error: {checksum_address(address_of(key))} is no signer of the terms' oracle" in result.stderr
    assert "what to do: Use packages of the signers that the channel's terms name." in result.stderr
    told = json.loads(desks.run("oracle", "decode", path, "--terms", world.directory / "terms.toml", "--json").stdout)
    assert told["medians"] == []
    assert told["packages"][0]["errors"][0]["name"] == "UnknownSignerError"


def test_a_mark_from_an_oracle_with_wrong_signers(desks):
    """A channel whose terms name other signers than those that the desks' oracle service signs with."""
    world = desks.world
    path = world.directory / "other-signers.toml"
    text = terms_file.write(
        template="tight",
        a=f"{world.maker.address}/{world.maker.payout}",
        b=f"{world.taker.address}/{world.taker.payout}",
        collateral=world.token,
        decimals=6,
        oracle_signers=[checksum_address(address_of(secrets.token_bytes(32))) for _ in range(3)],
    )
    terms_file.save(path, text)
    maker, taker = world.maker.folder, world.taker.folder
    told = desks.run("channel", "open", "taker", path, "--data", maker, "--json")
    other = json.loads(told.stdout)["hash"]
    assert desks.run("channel", "accept", other, "--data", taker).returncode == 0
    before = world.maker.call("private/channel", channel=other)["body"]
    marked = desks.run("mark", other, "--data", maker)
    refused(marked, 14, "signer")
    traded = desks.run("trade", other, "ETH-PERP", "1", "3000", "--data", taker)
    refused(traded, 12, "no print of ETH")
    assert world.maker.call("private/channel", channel=other)["body"] == before


def test_a_wrong_password(desks):
    world = desks.world
    for arguments in (("run",), ("deploy",)):
        folder = world.directory / f"copy-for-{arguments[0]}"
        folder.mkdir()
        for name in ("channeld.toml", "keystore.json"):
            shutil.copy(world.maker.folder / name, folder / name)
        listing = sorted(folder.iterdir())
        result = desks.run(*arguments, "--data", folder, password="not it")
        refused(result, 17, "password")
        assert "not it" not in result.stderr
        assert sorted(folder.iterdir()) == listing


@pytest.mark.usefixtures("unchanged")
def test_a_second_daemon_on_the_same_database(desks):
    world = desks.world
    ports = ("--set", f"api.listen=127.0.0.1:{free_port()}", "--set", f"peers.listen=127.0.0.1:{free_port()}")
    result = desks.run("run", "--data", world.maker.folder, *ports, password=world.maker.password)
    refused(result, 16, str(world.maker.child.process.pid), "daemon.lock", "Stop the other daemon")


@pytest.fixture
def elsewhere(desks):
    """A devnet with another chain id."""
    url = f"http://127.0.0.1:{free_port()}"
    chain = desks.world.cast.start(
        "elsewhere", ["devnet", "--port", url.rsplit(":", 1)[1], "--chain-id", str(OTHER_CHAIN)]
    )
    chain.wait_ready(answers(url + "/healthz"))
    yield url
    desks.world.cast.children.remove(chain)
    chain.kill()


@pytest.mark.usefixtures("unchanged")
def test_a_deployment_of_another_chain(desks, elsewhere, tmp_path):
    """It is adopted by no desk, and no daemon works with it."""
    world = desks.world
    folder = tmp_path / "desk"
    settings = {
        **setup.settings_for_devnet(devnet=True),
        "chain.urls": [elsewhere],
        "oracle.urls": [world.oracle],
        "api.listen": f"127.0.0.1:{free_port()}",
        "peers.listen": f"127.0.0.1:{free_port()}",
    }
    address, _ = setup.create_desk(folder, settings, PASSWORD, iterations=4096)
    theirs = world.maker.folder / "deployment.json"
    both = (str(OTHER_CHAIN), str(json.loads(theirs.read_text(encoding="utf-8"))["chain_id"]))
    adopted = desks.run("deploy", "--data", folder, "--adopt", theirs, password=PASSWORD)
    refused(adopted, 15, *both)
    assert not (folder / "deployment.json").exists()
    shutil.copy(theirs, folder / "deployment.json")
    refused(desks.run("run", "--data", folder, password=PASSWORD), 15, *both)
    # a deployment that claims the right chain, with no code there
    (folder / "deployment.json").unlink()
    lying = tmp_path / "deployment.json"
    lying.write_text(theirs.read_text(encoding="utf-8").replace(both[1], both[0]), encoding="utf-8")
    refused(
        desks.run("deploy", "--data", folder, "--adopt", lying, password=PASSWORD), 15, "there is no", "on chain 4242"
    )
    DevnetClient(elsewhere).call("channeld_faucet", address, hex(10**20))
    assert devtools.deploy_token(elsewhere, "USDC", 6)
    assert not (folder / "deployment.json").exists()


def test_an_audit_file_is_proven_offline_and_an_altered_byte_is_named(desks, tmp_path):
    """Written by a desk, proven without one."""
    maker, file = desks.world.maker, tmp_path / "maker.audit"
    done = desks.run("audit", "export", desks.world.channel, file, "--data", maker.folder, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    shown = desks.world.see(maker)
    assert (told["version"], told["body_hash"]) == (shown["version"], shown["body_hash"])
    assert [told["parties"][side]["balance"] for side in "ab"] == [shown["balance"], shown["peer_balance"]]
    nowhere = {"CHANNELD_DATA": str(tmp_path / "nowhere")}
    proven = desks.run("audit", "verify", file, "--json", environment=nowhere)
    assert proven.returncode == 0, proven.stderr
    assert json.loads(proven.stdout).items() <= told.items()
    in_words = desks.run("audit", "verify", file, environment=nowhere)
    assert f"balance is {shown['balance']}" in in_words.stdout
    refused(desks.run("audit", "export", desks.world.channel, file, "--data", maker.folder), 11, "is there already")
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    line = raw[: len(raw) // 2].count(b"\n") + 1
    refused(desks.run("audit", "verify", file, environment=nowhere), 11, f"line {line}")
    refused(desks.run("audit", "verify", tmp_path / "none"), 11, "cannot be read")


def _paper_of_both_sides(desks, tmp_path):
    """Statements of a daemon and of a file, reconciled; a confirmation of a trade, checked without a desk."""
    ours, theirs, file = tmp_path / "ours.json", tmp_path / "theirs.json", tmp_path / "audit"
    world, nowhere = desks.world, {"CHANNELD_DATA": str(tmp_path / "nowhere")}
    done = desks.run("statement", world.channel, "--json", "--data", world.maker.folder)
    assert done.returncode == 0, done.stderr
    # a MARK may come at any moment: both are of the time until now
    last = datetime.fromtimestamp(json.loads(done.stdout)["rows"][-1]["time_ms"] / 1000 + 0.001, UTC).isoformat()
    until = ("--until", last)
    for desk, path in ((world.maker, ours), (world.taker, theirs)):
        form = ("--format", "json", "--out", path, *until)
        done = desks.run("statement", world.channel, *form, "--data", desk.folder)
        assert done.returncode == 0, done.stderr
    assert desks.run("audit", "export", world.channel, file, "--data", world.maker.folder).returncode == 0
    agreed = desks.run("reconcile", ours, theirs, "--json", environment=nowhere)
    assert agreed.returncode == 0, agreed.stdout
    assert json.loads(agreed.stdout)["breaks"] == []
    statement = json.loads(ours.read_text())
    again = desks.run("statement", file, "--side", statement["side"], "--json", *until, environment=nowhere)
    assert json.loads(again.stdout) == statement
    lines = desks.run("statement", file, "--format", "csv", *until, environment=nowhere).stdout.splitlines()
    assert len(lines) == 1 + sum(max(1, len(row["legs"])) for row in statement["rows"])
    version = next(row["version"] for row in statement["rows"] if row["kind"] == "trade")
    paper = tmp_path / "trade.json"
    assert desks.run("confirmation", "write", file, version, "--out", paper, environment=nowhere).returncode == 0
    confirmed = desks.run("confirmation", "verify", paper, "--json", environment=nowhere)
    assert json.loads(confirmed.stdout)["version"] == version
    refused(desks.run("confirmation", "write", file, version, "--out", paper, environment=nowhere), 11, "exist")
    changed = statement | {"side": "b" if statement["side"] == "a" else "a"}
    theirs.write_text(json.dumps(changed))
    broken = desks.run("reconcile", ours, theirs, environment=nowhere)
    assert (broken.returncode, "differs" in broken.stdout) == (1, True)
    refused(desks.run("reconcile", ours, file, environment=nowhere), 11, "no JSON")
    refused(desks.run("statement", file, "--day", "yesterday", environment=nowhere), 11, "no time")


def test_the_desks_trade_on_after_all_of_it(desks, tmp_path):
    """Last in this module: the channel works, its journal replays, and both sides' paper agrees."""
    desks.day.open_positions()
    balances = desks.day.audit()
    # a MARK may have come in between
    assert sum(map(Decimal, balances)) == 500_000
    _paper_of_both_sides(desks, tmp_path)
    assert Path(desks.world.maker.folder / "channeld.db").exists()
