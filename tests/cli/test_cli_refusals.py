"""What bad input gets at the command line: one clear error, an exit code by class of fault, nothing changed."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

CONFIG = '[api]\nlisten = "127.0.0.1:{port}"\n'


class Answering(BaseHTTPRequestHandler):
    """A daemon that gives one prepared answer and remembers what it was asked."""

    answer: object = None
    status = 200
    asked: list[dict]

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).asked.append({"request": json.loads(body), "token": self.headers.get("Authorization")})
        content = self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments):
        """Keep the tests' output clean."""


@pytest.fixture
def daemon(tmp_path):
    """A data directory whose daemon answers what a test says."""
    kind = type("Prepared", (Answering,), {"asked": []})
    server = HTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    folder = tmp_path / "desk"
    folder.mkdir()
    (folder / "channeld.toml").write_text(CONFIG.format(port=server.server_port), encoding="utf-8")
    (folder / "api.token").write_text("secret\n", encoding="ascii")
    kind.folder = folder
    yield kind
    server.shutdown()
    server.server_close()
    thread.join()


def result_of(value):
    return {"jsonrpc": "2.0", "id": 1, "result": value}


def test_a_directory_that_is_no_desk(cli, clear, tmp_path):
    clear(cli("status", "--data", tmp_path), 11, "channeld init")


def test_a_daemon_that_does_not_run(cli, clear, tmp_path):
    (tmp_path / "channeld.toml").write_text(CONFIG.format(port=1), encoding="utf-8")
    clear(cli("status", "--data", tmp_path), 3, "channeld run")


def test_a_configuration_that_is_no_toml(cli, clear, tmp_path):
    (tmp_path / "channeld.toml").write_text("[api", encoding="utf-8")
    clear(cli("status", "--data", tmp_path), 11, "channeld.toml")


@pytest.mark.parametrize("answer", [b"", b"hello", b"[]", b"{}", b'{"error": 7}', b"\xff"])
def test_something_else_that_answers(cli, clear, daemon, answer):
    daemon.answer = answer
    clear(cli("status", "--data", daemon.folder), 3)


def test_a_wrong_token(cli, clear, daemon):
    daemon.status, daemon.answer = 401, b"no"
    clear(cli("status", "--data", daemon.folder), 3, "token")
    assert daemon.asked[0]["token"] == "Bearer secret"


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [(1001, 11), (2210, 12), (3321, 13), (4001, 14), (5001, 15), (6001, 16), (7001, 17), (9000, 19)],
)
def test_a_daemon_s_error_keeps_its_code_and_advice(cli, clear, daemon, code, exit_code):
    data = {"code": code, "name": "SomeError", "fault": "user", "advice": "Do that.", "details": {"equity": "12.5"}}
    daemon.answer = {"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": "It is so.", "data": data}}
    clear(cli("positions", "--data", daemon.folder), exit_code, "It is so.", "Do that.", "equity: 12.5")
    shown = cli("positions", "--data", daemon.folder, "--json")
    assert shown.stdout == ""
    error = json.loads(shown.stderr)["error"]
    assert (error["code"], error["name"], error["details"]) == (code, "SomeError", {"equity": "12.5"})


@pytest.mark.parametrize(
    "arguments",
    [
        ("peer", "ETH-PRP", "10", "3000"),
        ("peer", "ETH-31FEB30-3000-C", "10", "3000"),
        ("peer", "ETH-PERP", "ten", "3000"),
        ("peer", "ETH-PERP", "0", "3000"),
        ("peer", "ETH-PERP", "10", "3,000"),
        ("peer", "ETH-PERP", "10", "3000", "--vol", "high"),
        ("peer", "ETH-PERP", "10"),
        ("peer",),
        ("peer", "--leg", "ETH-PERP 10"),
        ("peer", "--leg", "ETH-PERP 10 3000 volume=3"),
        ("peer", "--leg", "ETH-PERP 10 3000 0.65"),
        ("peer", "ETH-PERP", "10", "3000", "--fee", "1e3"),
    ],
)
def test_a_malformed_trade_never_travels(cli, clear, daemon, arguments):
    clear(cli("trade", *arguments, "--data", daemon.folder), 11)
    assert daemon.asked == []


def test_the_short_form_of_a_trade_sells_with_a_negative_size(cli, daemon):
    daemon.answer = result_of({"id": "7", "status": "done", "version": 4, "premium": {"most_you_can_lose": None}})
    result = cli(
        "trade", "peer", "eth-27dec30-3000-c".upper(), "-10.50", "120", "--vol", "0.65", "--data", daemon.folder
    )
    assert result.exit_code == 0, result.stderr
    assert "not limited" in result.stdout
    request = daemon.asked[0]["request"]
    assert request["method"] == "private/trade"
    leg = {"instrument": "ETH-27DEC30-3000-C", "size": "-10.50", "price": "120", "vol": "0.65"}
    assert request["params"]["legs"] == [leg]


def test_a_reference_of_48_bytes_travels_and_a_perpetual_has_no_premium(cli, daemon):
    premium = {"value_of_premium": "3000.00", "cash_now": "0", "margin_now": "-1234.50", "most_you_can_lose": None}
    legs = [{"instrument": "ETH-PERP"}]
    daemon.answer = result_of({"id": "7", "status": "done", "version": 4, "premium": premium, "legs": legs})
    result = cli("trade", "peer", "ETH-PERP", "1", "3000", "--reference", "ü" * 24, "--data", daemon.folder)
    assert result.exit_code == 0, result.stderr
    assert daemon.asked[0]["request"]["params"]["reference"] == "ü" * 24
    assert "1,234.50 less" in result.stdout
    assert "premium" not in result.stdout


def test_a_policy_s_limits_travel_and_are_told_in_words(cli, daemon):
    daemon.answer = result_of({"peer": "peer", "words": ["Agreed to by itself, within: ETH-*."]})
    limits = ("--auto-accept", "--max-notional", "1000000", "--price-band", "0.001", "--instrument", "ETH-*")
    result = cli("policy", "peer", *limits, "--data", daemon.folder)
    sent = daemon.asked[0]["request"]["params"]
    assert (sent["price_band"], sent["instruments"]) == ("0.001", ["ETH-*"])
    assert "Agreed to by itself, within: ETH-*." in result.stdout


def test_a_policy_s_file_travels_whole_and_without_options_nothing_is_set(cli, daemon, clear, tmp_path):
    file = tmp_path / "policy.toml"
    file.write_text('auto_accept = true\ntimeout = "1"\n[never]\nchannel_vega = "100"\n')
    daemon.answer = result_of({"peer": "peer", "words": ["one", "two"]})
    assert cli("policy", "peer", "--file", file, "--data", daemon.folder).exit_code == 0
    sent = daemon.asked[-1]["request"]
    assert sent["method"] == "private/policy_set"
    # what the file says wrongly is the daemon's to refuse, so it must reach it
    assert sent["params"] == {"auto_accept": True, "timeout": "1", "never": {"channel_vega": "100"}, "peer": "peer"}
    daemon.answer = result_of([{"peer": "peer", "words": ["every trade waits"]}])
    shown = cli("policy", "--data", daemon.folder)
    assert daemon.asked[-1]["request"]["method"] == "private/policy"
    assert "every trade waits" in shown.stdout
    asked = len(daemon.asked)
    clear(cli("policy", "peer", "--auto-accept", "--file", file, "--data", daemon.folder), 11)
    clear(cli("policy", "--auto-accept", "--data", daemon.folder), 11)
    file.write_text("auto_accept = ")
    assert cli("policy", "peer", "--file", file, "--data", daemon.folder).exit_code != 0
    assert len(daemon.asked) == asked


def test_a_combo_is_one_trade(cli, daemon):
    daemon.answer = result_of({"id": "7", "status": "done", "version": 4})
    legs = ("--leg", "ETH-27DEC30-2900-P 10 90 vol=0.7", "--leg", "ETH-27DEC30-2700-P -10 40 vol=0.7 carry=-0.01")
    assert cli("trade", "peer", *legs, "--data", daemon.folder).exit_code == 0
    sent = daemon.asked[0]["request"]["params"]["legs"]
    assert [leg["size"] for leg in sent] == ["10", "-10"]
    assert sent[1]["carry"] == "-0.01"


def test_a_rejected_trade_is_the_peer_s_fault(cli, daemon):
    daemon.answer = result_of({"id": "7", "status": "rejected", "reason": "too dear"})
    result = cli("trade", "peer", "ETH-PERP", "1", "3000", "--data", daemon.folder)
    assert result.exit_code == 13
    assert "too dear" in result.stdout


def test_an_audit_that_fails_exits_with_one(cli, daemon):
    daemon.answer = result_of({"replayed": False, "versions": 3})
    assert cli("audit", "peer", "--data", daemon.folder).exit_code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("channel", "deposit", "peer", "lots"),
        ("channel", "withdraw", "peer", "1e6"),
        ("transfer", "peer", "1_000"),
        ("transfer", "peer", "1", "--memo", "x" * 49),
        ("trade", "peer", "ETH-PERP", "1", "3000", "--reference", "ü" * 25),
        ("policy", "peer", "--price-band", "wide"),
        ("policy", "peer", "--max-notional", "much"),
        ("vols", "--vol", "ETH-PERP"),
        ("vols", "--vol", "ETH-27DEC30-3000-C=high"),
        ("margin", "peer", "--price", "ETH"),
    ],
)
def test_malformed_amounts_never_travel(cli, clear, daemon, arguments):
    clear(cli(*arguments, "--data", daemon.folder), 11)
    assert daemon.asked == []


def test_init_needs_a_password_and_writes_nothing_without_one(process, clear, tmp_path):
    result = process("init", "--data", tmp_path / "desk")
    clear(result, 11, "CHANNELD_PASSWORD")
    assert not (tmp_path / "desk").exists()


def test_init_creates_a_desk_once(process, clear, tmp_path):
    environment = {"CHANNELD_PASSWORD": "correct horse"}
    folder = tmp_path / "desk"
    result = process("init", "--data", folder, "--name", "maker", "--devnet", "--json", environment=environment)
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    held = json.loads((folder / "keystore.json").read_text(encoding="utf-8"))["address"]
    assert told["address"].lower().removeprefix("0x") == held.lower().removeprefix("0x")
    before = (folder / "keystore.json").read_bytes()
    clear(process("init", "--data", folder, environment=environment), 11, "already")
    assert (folder / "keystore.json").read_bytes() == before
    assert (folder / "keystore.json").stat().st_mode & 0o077 == 0
    wrong = process("deploy", "--data", folder, environment={"CHANNELD_PASSWORD": "wrong"})
    clear(wrong, 17, "password")
    assert "wrong" not in wrong.stderr.split("what to do")[0].replace("error: the password", "")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--set", "chain.confirmations=many"), 17),
        (("--set", "chain.conformations=1"), 17),
        (("--set", "chain"), 11),
        (("--payout", "0x12"), 17),
        (("--chain", "ftp://nowhere"), 17),
    ],
)
def test_init_refuses_wrong_settings_and_writes_nothing(process, clear, tmp_path, arguments, code):
    result = process("init", "--data", tmp_path / "desk", *arguments, environment={"CHANNELD_PASSWORD": "x"})
    clear(result, code)
    assert not (tmp_path / "desk").exists()


@pytest.mark.parametrize(
    "arguments", [("--scenario", "lunch"), ("--chain", "mainnet"), ("--keep", "{full}"), ("--keep", "/proc/nowhere/x")]
)
def test_demo_refuses_what_it_does_not_know(cli, clear, tmp_path, arguments):
    (tmp_path / "something").write_text("here", encoding="utf-8")
    clear(cli("demo", *(one.format(full=tmp_path) for one in arguments)), 11)


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve", "--devnet"),
        ("serve", "--price", "ETH=1"),
        ("serve", "--devnet", "--price", "ETH"),
        ("serve", "--devnet", "--price", "ETH=x"),
        ("serve", "--devnet", "--price", "ETH=1", "--synthetic", "ETH=1"),
        ("serve", "--devnet", "--path", "/nowhere.csv"),
    ],
)
def test_an_oracle_without_source_or_keys_does_not_start(cli, arguments):
    result = cli("oracle", *arguments)
    assert result.exit_code in (11, 14)
    assert "Traceback" not in result.stderr
    assert "error:" in result.stderr


def test_a_devnet_that_does_not_answer(cli, clear):
    clear(cli("devnet", "advance", "60", "--chain", "http://127.0.0.1:1"), 3, "channeld devnet")
    clear(cli("oracle", "signers", "--oracle", "http://127.0.0.1:1"), 3, "channeld oracle serve")
    clear(cli("devnet", "clock", "--chain", "127.0.0.1:1"), 11, "http://")
