"""Commands that need no daemon: value, hash, margin of a file, oracle decode; and the bad input they get."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from eth_account.messages import encode_typed_data
from eth_utils import keccak
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from channeld.cli.main import app
from channeld.cli.terms_file import read
from channeld.core import eip712
from channeld.core.crypto import checksum_address
from channeld.core.files import body_to_json, state_to_json, terms_to_json
from channeld.core.margin import both
from channeld.core.state import Account, Body, Instrument, Kind, Position, State
from channeld.core.terms import feed_id
from channeld.core.valuation import value
from channeld.core.wad import WAD, format_decimal

ADJUDICATOR = "0x3333333333333333333333333333333333333333"
ETH, BTC = feed_id("ETH"), feed_id("BTC")
EXPIRY = 1_924_588_800
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def address(digit):
    return "0x" + digit * 40


@pytest.fixture
def terms_path(tmp_path, cli):
    path = tmp_path / "terms.toml"
    result = cli(
        *("channel", "template", path, "--template", "tight", "--collateral", address("5")),
        *("--a", f"{address('1')}/{address('7')}", "--b", address("2")),
        *("--oracle-signer", address("9"), "--oracle-signer", address("8"), "--oracle-signer", address("6")),
    )
    assert result.exit_code == 0, result.stderr
    return path


@pytest.fixture
def terms(terms_path):
    return read(terms_path)


@pytest.fixture
def body():
    units = 10**6
    return Body(
        EXPIRY - 86_400 * 10,
        WAD,
        b"\x11" * 32,
        Account(250_000 * units, 250_000 * units, 0),
        Account(250_000 * units, 250_000 * units, 0),
        (
            Position(Instrument(Kind.PERPETUAL, BTC, 0, 0), -2 * WAD, 95_000 * WAD, WAD // 10, 0),
            Position(Instrument(Kind.CALL, ETH, EXPIRY, 3_000 * WAD), -100 * WAD, 120 * WAD, 0, WAD * 65 // 100),
        ),
    )


# --- value ---------------------------------------------------------------------------------------------------------


def test_value_is_the_core_s_to_the_wad(cli):
    arguments = ("--spot", "3000.5", "--strike", "3100", "--vol", "0.65", "--carry", "0.05", "--tau", "864000")
    result = cli("value", "--kind", "call", *arguments, "--json")
    told = json.loads(result.stdout)
    assert set(told) == {"price", "price_wad", "delta", "gamma", "vega", "theta", "rho", "vanna", "volga"}
    exact = value(Kind.CALL, 30005 * WAD // 10, 3100 * WAD, WAD // 20, WAD * 65 // 100, 864_000)
    assert told["price_wad"] == str(exact)
    assert told["price"] == format_decimal(exact)
    assert all(isinstance(one, str) for one in told.values())
    assert 0 < float(told["delta"]) < 1
    assert float(told["theta"]) < 0 < float(told["vega"])


def test_value_takes_a_negative_carry_and_kinds_without_strike(cli):
    future = json.loads(
        cli("value", "--kind", "future", "--spot", "100", "--carry", "-0.1", "--tau", "31536000", "--json").stdout
    )
    assert future["price_wad"] == str(value(Kind.FUTURE, 100 * WAD, 0, -WAD // 10, 0, 31_536_000))
    perpetual = json.loads(cli("value", "--kind", "perpetual", "--spot", "3000", "--json").stdout)
    assert perpetual["price"] == "3000"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--kind", "call", "--spot", "3000"), "--strike"),
        (("--kind", "swap", "--spot", "3000"), "swap"),
        (("--kind", "call", "--spot", "3e3", "--strike", "1", "--vol", "1"), "3e3"),
        (("--kind", "call", "--spot", "nan", "--strike", "1", "--vol", "1"), "nan"),
        (("--kind", "put", "--spot", "3000", "--strike", "0", "--vol", "1"), ""),
        (("--kind", "call", "--spot", "-1", "--strike", "1", "--vol", "1"), ""),
        (("--kind", "perpetual", "--spot", "9" * 40), ""),
    ],
)
def test_value_refuses_what_it_cannot_price(cli, clear, arguments, word):
    clear(cli("value", *arguments), 11, word)


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=12))
def test_a_number_that_is_none_is_always_a_clear_error(text):
    result = CliRunner().invoke(app, ["value", "--kind", "perpetual", "--spot", text, "--json"])
    assert result.exit_code in (0, 2, 11)
    if result.exit_code == 0:
        assert json.loads(result.stdout)["price"]


# --- hash ----------------------------------------------------------------------------------------------------------


def test_hashes_of_terms_agree_with_the_core_and_with_eth_account(cli, terms_path, terms):
    domain = eip712.Domain(31_337, bytes.fromhex(ADJUDICATOR[2:]))
    options = ("--chain-id", "31337", "--adjudicator", ADJUDICATOR)
    told = json.loads(cli("hash", "terms", terms_path, *options, "--json").stdout)
    assert told["terms_hash"] == "0x" + eip712.terms_hash(terms).hex()
    assert told["channel"] == "0x" + eip712.channel_id(domain, terms).hex()
    typed = json.loads(cli("hash", "terms", terms_path, *options, "--typed-data").stdout)
    signable = encode_typed_data(full_message=typed)
    assert told["channel"] == "0x" + keccak(b"\x19" + signable.version + signable.header + signable.body).hex()


def test_json_and_toml_terms_hash_alike(cli, terms_path, terms, tmp_path):
    path = tmp_path / "terms.json"
    path.write_text(json.dumps({"terms": terms_to_json(terms)}), encoding="utf-8")
    hashes = [json.loads(cli("hash", "terms", one, "--json").stdout) for one in (path, terms_path)]
    assert hashes[0] == hashes[1]
    assert "channel" not in hashes[0]


def test_hashes_of_body_and_state(cli, body, tmp_path):
    state = State(b"\x22" * 32, 7, body)
    path = tmp_path / "state.json"
    domain = {"chainId": 1, "verifyingContract": ADJUDICATOR}
    path.write_text(json.dumps({"domain": domain, "state": state_to_json(state)}), encoding="utf-8")
    told = json.loads(cli("hash", "state", path, "--json").stdout)
    expected = eip712.body_hash(body)
    assert told["body_hash"] == "0x" + expected.hex()
    digest = eip712.state_digest(eip712.Domain(1, bytes.fromhex(ADJUDICATOR[2:])), state.channel, 7, expected)
    assert told["digest"] == "0x" + digest.hex()
    typed = json.loads(cli("hash", "state", path, "--typed-data").stdout)
    signable = encode_typed_data(full_message=typed)
    assert told["digest"] == "0x" + keccak(b"\x19" + signable.version + signable.header + signable.body).hex()
    alone = tmp_path / "body.json"
    alone.write_text(json.dumps(body_to_json(body)), encoding="utf-8")
    assert json.loads(cli("hash", "body", alone, "--json").stdout) == {"body_hash": "0x" + expected.hex()}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe\x00", b'{"terms": 7}', b'{"a": {}}', b"[" * 100_000, b"null"]
)
@pytest.mark.parametrize("command", [("hash", "terms"), ("hash", "body"), ("hash", "state"), ("margin",)])
def test_random_files_get_a_clear_error(cli, clear, tmp_path, content, command):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    clear(cli(*command, path), 11)


def test_a_missing_file_is_named(cli, clear, tmp_path):
    clear(cli("hash", "terms", tmp_path / "nowhere.json"), 11, "nowhere.json")


def test_typed_data_without_a_domain_is_refused(cli, clear, terms_path):
    clear(cli("hash", "terms", terms_path, "--typed-data"), 11, "--chain-id")


# --- terms files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", ["tight", "standard", "conservative"])
def test_every_template_makes_terms(cli, tmp_path, template):
    path = tmp_path / "terms.toml"
    result = cli(
        *("channel", "template", path, "--template", template, "--collateral", address("5"), "--a", address("1")),
        *("--b", address("2"), "--oracle-signer", address("9"), "--json"),
    )
    assert result.exit_code == 0, result.stderr
    assert cli("hash", "terms", path).exit_code == 0


def test_the_templates_hold_the_protocol_s_figures(terms):
    assert (terms.cure_period, terms.challenge_period) == (900, 86_400)
    assert [format_decimal(market.price_scan) for market in terms.markets] == ["0.05", "0.06"]
    assert terms.initial_factor == WAD * 12 // 10
    assert checksum_address(terms.a.payout) == checksum_address(bytes.fromhex("77" * 20))
    assert terms.oracle.signers == tuple(sorted(terms.oracle.signers))


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("cure_period = 900", "cure_period = 0", 12),
        ("quorum = 2", "quorum = 1", 12),
        ('initial_factor = "1.2"', "initial_factor = 1.2", 11),
        ('initial_factor = "1.2"', 'initial_factor = "one"', 11),
        ('initial_factor = "1.2"', "", 11),
        ('sequencer = "a"', 'sequencer = "c"', 11),
        ("[oracle]", "[orakel]", 11),
        ("[a]", "[a", 11),
        (address("1"), address("z"), 11),
        ("tick = 10", 'tick = "10"', 11),
        ("tick = 10", "tick = 10\ntack = 1", 11),
    ],
)
def test_a_wrong_terms_file_is_refused_by_name(cli, clear, terms_path, old, new, code):
    text = terms_path.read_text(encoding="utf-8")
    assert old in text
    terms_path.write_text(text.replace(old, new), encoding="utf-8")
    clear(cli("hash", "terms", terms_path), code)


def test_a_template_never_writes_over_a_file(cli, clear, terms_path):
    before = terms_path.read_bytes()
    result = cli(
        *("channel", "template", terms_path, "--collateral", address("5"), "--a", address("1"), "--b", address("2")),
        *("--oracle-signer", address("9")),
    )
    clear(result, 11, "exists already")
    assert terms_path.read_bytes() == before


# --- margin --------------------------------------------------------------------------------------------------------


def test_margin_of_a_file_shows_both_parties_and_every_scenario(cli, terms, body, tmp_path):
    path = tmp_path / "margin.json"
    time = body.as_of + 60
    content = {
        "terms": terms_to_json(terms),
        "body": body_to_json(body),
        "prices": {"ETH": "3010.5", "BTC": "95100"},
        "time": time,
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    told = json.loads(cli("margin", path, "--json").stdout)
    reports = both(terms, body, {ETH: 30105 * WAD // 10, BTC: 95_100 * WAD}, time, WAD)
    for name, report in zip("ab", reports, strict=True):
        assert told[name]["equity"] == format_decimal(report.equity)
        assert told[name]["initial_margin"] == format_decimal(report.initial)
        assert told[name]["maintenance_margin"] == format_decimal(report.maintenance)
        assert [len(market["scenarios"]) for market in told[name]["markets"]] == [18, 18]
    drawn = cli("margin", path)
    assert drawn.exit_code == 0
    assert "Scenarios of a on ETH" in drawn.stdout


def test_margin_without_a_price_names_the_feed(cli, clear, terms, body, tmp_path):
    path = tmp_path / "margin.json"
    content = {"terms": terms_to_json(terms), "body": body_to_json(body), "prices": {"ETH": "3010"}, "time": 1}
    path.write_text(json.dumps(content), encoding="utf-8")
    clear(cli("margin", path), 11, "BTC")


# --- oracle decode -------------------------------------------------------------------------------------------------


def test_decode_shows_real_packages(cli):
    path = SHARED / "redstone_3sig_ETH_BTC.hex"
    if not path.exists():
        pytest.skip("../shared/data is not here")
    told = json.loads(cli("oracle", "decode", path, "--json").stdout)
    assert {(one["feed"], one["median"]) for one in told["medians"]} == {("ETH", "3418.99770128"), ("BTC", "63717.5")}
    assert len(told["packages"]) == 6
    assert cli("oracle", "decode", path).exit_code == 0


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200))
def test_decode_of_random_bytes_never_fails_unexpectedly(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("decode") / "packages.bin"
    path.write_bytes(content)
    result = CliRunner().invoke(app, ["oracle", "decode", str(path), "--json"])
    assert result.exit_code in (0, 14)
    assert "errors" in json.loads(result.stdout)
