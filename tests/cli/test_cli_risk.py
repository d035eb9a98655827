"""Scenario of a file as table, JSON, CSV and PNG; margin leg by leg; moves and hostile numbers; what needs a desk."""

from __future__ import annotations

import builtins
import csv
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channeld.cli import risk
from channeld.core.errors import ChanneldError
from channeld.core.files import body_to_json, terms_to_json
from channeld.core.state import Account, Body, Instrument, Kind, Position
from channeld.core.terms import Market, Oracle, Party, Terms, feed_id
from channeld.core.valuation import value
from channeld.core.wad import DAY, WAD

ETH = feed_id("ETH")
T0 = 1_750_000_000
EXPIRY = T0 + 30 * DAY
EXPIRY -= EXPIRY % 10
PNG = b"\x89PNG\r\n\x1a\n"


def option(kind, strike, size):
    vol = WAD * 6 // 10
    mark = value(kind, 3000 * WAD, strike * WAD, 0, vol, EXPIRY - T0)
    return Position(Instrument(kind, ETH, EXPIRY, strike * WAD), size * WAD, mark, 0, vol)


@pytest.fixture
def book(tmp_path):
    """A strangle sold by a, and some perpetuals, in a file."""
    market = Market(ETH, 11 * WAD // 100, 6 * WAD // 10, 35 * WAD // 100, WAD // 50, WAD // 200)
    terms = Terms(
        Party(b"\x01" * 20, b"\x09" * 20),
        Party(b"\x02" * 20, b"\x0a" * 20),
        b"\x31" * 20,
        6,
        bytes(32),
        0,
        Oracle((b"\x21" * 20,), 1, 10, 1, 0, 60, 7200),
        (market,),
        13 * WAD // 10,
        3 * WAD // 100,
        86_400,
        3600,
        0,
        bytes(32),
    )  # fmt: skip - one line per group of fields
    perpetual = Position(Instrument(Kind.PERPETUAL, ETH, 0, 0), 2 * WAD, 3000 * WAD, 0, 0)
    positions = (perpetual, option(Kind.CALL, 3300, -10), option(Kind.PUT, 2700, -10))
    body = Body(T0, WAD, bytes(32), Account(10**11, 2 * 10**11, 0), Account(10**11, 0, 0), positions)
    path = tmp_path / "book.json"
    content = {"terms": terms_to_json(terms), "body": body_to_json(body), "prices": {"ETH": "3000"}, "time": T0}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_scenario_of_a_file_is_the_change_in_value(cli, book):
    told = json.loads(cli("scenario", book, "--spot", "-0.1,0,0.1", "--vol", "0", "--json").stdout)
    exact = 2 * 300 * WAD
    for kind, strike in ((Kind.CALL, 3300), (Kind.PUT, 2700)):
        then, now = (value(kind, s * WAD, strike * WAD, 0, WAD * 6 // 10, EXPIRY - T0) for s in (3300, 3000))
        exact -= 10 * (then - now)
    assert told["profit"][1] == ["0.00"]
    assert float(told["profit"][2][0]) == pytest.approx(exact / WAD, abs=0.006)
    other = json.loads(cli("scenario", book, "--spot", "-0.1,0,0.1", "--vol", "0", "--side", "b", "--json").stdout)
    assert [float(x[0]) for x in other["profit"]] == pytest.approx([-float(x[0]) for x in told["profit"]], abs=0.011)


def test_scenario_draws_a_table_a_csv_and_pictures(cli, book, tmp_path):
    pytest.importorskip("matplotlib")
    table, heat, payoff = (tmp_path / name for name in ("t.csv", "heat.png", "payoff.png"))
    result = cli(
        *("scenario", book, "--spot", "-0.2:0.2:5", "--vol", "-0.5,0,0.5", "--days", "7"),
        *("--csv", table, "--png", heat, "--payoff", payoff),
    )
    assert result.exit_code == 0, result.stderr
    assert "7 days from now" in result.stdout
    assert "Worst" in result.stdout
    rows = list(csv.reader(table.read_text().splitlines()))
    assert rows[0] == ["spot_move", "vol_move -0.5", "vol_move 0", "vol_move 0.5"]
    assert [row[0] for row in rows[1:]] == ["-0.2", "-0.1", "0", "0.1", "0.2"]
    told = json.loads(
        cli("scenario", book, "--spot", "-0.2:0.2:5", "--vol", "-0.5,0,0.5", "--days", "7", "--json").stdout
    )
    assert [row[1:] for row in rows[1:]] == told["profit"]
    for picture in (heat, payoff):
        raw = picture.read_bytes()
        assert raw.startswith(PNG)
        assert len(raw) > 5_000


def test_without_matplotlib_a_picture_is_refused_by_name(cli, clear_error, book, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **named):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **named)

    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    clear_error(cli("scenario", book, "--png", tmp_path / "heat.png"), "channeld[plots]")


@pytest.fixture
def clear_error():
    def check(result, *words):
        assert result.exit_code not in (0, 19), result.stderr
        assert "Traceback" not in result.stderr + result.stdout
        for word in ("error:", *words):
            assert word in result.stderr

    return check


@pytest.mark.parametrize(
    "arguments",
    [
        ("--spot", "nan"),
        ("--spot", "inf"),
        ("--spot", "1e5"),
        ("--spot", ""),
        ("--spot", "-1"),
        ("--spot", "-5:5:3"),
        ("--spot", "0:1:0"),
        ("--spot", "0:1:62"),
        ("--spot", "0:1:-3"),
        ("--spot", "0:1"),
        ("--spot", "9" * 41),
        ("--vol", "-2"),
        ("--vol", "2000"),
        ("--days", "-1"),
        ("--days", "4000"),
        ("--days", "x"),
        ("--side", "c"),
        ("--csv", "/nowhere/at/all.csv"),
        ("--png", "/nowhere/at/all.png"),
    ],
)
def test_hostile_arguments_are_refused_clearly(cli, clear_error, book, arguments):
    clear_error(cli("scenario", book, *arguments))


def test_margin_of_a_file_is_explained_leg_by_leg(cli, book, monkeypatch):
    told = json.loads(cli("margin", book, "--json").stdout)
    for side in "ab":
        (market,) = told[side]["markets"]
        assert len(market["legs"]) == 3
        total = sum(float(leg["weighted"]) for leg in market["legs"])
        assert float(market["scan_risk"]) == pytest.approx(-total, abs=1e-9)
        for leg in market["legs"]:
            gain = float(leg["size"]) * (float(leg["value_then"]) - float(leg["value"]))
            assert float(leg["profit"]) == pytest.approx(gain, abs=1e-9)
    monkeypatch.setenv("COLUMNS", "140")  # a narrow terminal, or a test runner's, cuts the headings of the legs
    drawn = cli("margin", book).stdout
    assert "ETH-PERP" in drawn
    assert "value then" in drawn


def test_an_empty_book_has_scenarios_of_nothing(cli, book):
    content = json.loads(book.read_text())
    content["body"]["positions"] = []
    book.write_text(json.dumps(content))
    told = json.loads(cli("scenario", book, "--json").stdout)
    assert {cell for row in told["profit"] for cell in row} == {"0.00"}


@given(st.text(max_size=30))
def test_any_text_is_moves_or_a_typed_error(text):
    try:
        moves = risk.parse_moves(text, "--spot")
    except ChanneldError:
        return
    assert 1 <= len(moves) <= risk.MOST_MOVES


@pytest.mark.parametrize("command", ["greeks", "limits", "scenario"])
def test_what_needs_a_desk_says_so(cli, clear_error, tmp_path, command):
    clear_error(cli(command, "--data", tmp_path / "none"), "channeld init")
    clear_error(cli("profit", "peer", "--data", tmp_path / "none"), "channeld init")
    clear_error(cli("trade", "what-if", "peer", "ETH-PERP", "1", "3000", "--data", tmp_path / "none"), "channeld init")


def test_bench_risk_has_the_keys_of_its_issue(cli):
    told = json.loads(cli("bench", "risk", "--count", "1", "--json").stdout)
    for name in ("incremental_us", "exact_book_ms", "grid_ms", "bound_per_s", "ratio"):
        assert told[name] > 0
    assert told["peers"]
    assert {"cpu", "python"} <= told["machine"].keys()
