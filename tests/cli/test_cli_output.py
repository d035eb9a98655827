"""What people see: figures grouped and never broken, lines that fit the terminal, no colour codes where it is none."""

from __future__ import annotations

import contextlib
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from channeld.cli.demo.timeline import Timeline
from channeld.cli.output import OUT, facts, people, table

DAY = 1_924_437_600_000


@pytest.mark.parametrize(
    ("amount", "places", "shown"),
    [
        ("250000", None, "250,000"),
        ("-1234567.5", None, "-1,234,567.5"),
        ("-1234567.5", 2, "-1,234,567.50"),
        ("0.129", 2, "0.12"),
        ("-0.001", 2, "0.00"),
        ("-0.01", 2, "-0.01"),
        ("", 2, ""),
        ("0x12", 2, "0x12"),
        ("1e3", 2, "1e3"),
        (None, 2, None),
        (7, 2, 7),
    ],
)
def test_a_decimal_string_for_people(amount, places, shown):
    assert people(amount, places) == shown


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6))
def test_without_places_not_a_digit_is_lost(number):
    text = format(number, "f")
    shown = people(text).replace(",", "")
    assert shown == (text if number else text.removeprefix("-"))


@pytest.fixture
def columns(monkeypatch):
    """Set the width of the terminal."""
    monkeypatch.setattr(OUT, "machine", False)
    return lambda width: monkeypatch.setenv("COLUMNS", str(width))


@pytest.mark.parametrize("width", [90, 100, 116, 140])
def test_the_timeline_fits_the_terminal(columns, capsys, width):
    columns(width)
    timeline = Timeline(lambda: DAY)
    timeline.title("channeld demo", ("a line",))
    words = "marked at ETH 3,042.50, BTC 95,820.00: taker gains 4,465.95"
    cash = ("-1246784.041234", "253215.95")
    timeline.event("maker", words, kind="marked", cash=cash, version=12345, more=("premium " * 20,))
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) < width for line in lines), lines
    assert all(line == line.rstrip() for line in lines)
    assert "\x1b" not in "".join(lines)
    assert any("-1,246,784.04    253,215.95   12345" in line for line in lines)
    told = [line[18 : 18 + max(30, min(60, width - 56))] for line in lines]
    assert words in " ".join(" ".join(told).split())


def test_figures_in_a_table_are_never_broken(columns, capsys):
    columns(60)
    rows = [("ETH-27DEC30-3000-C", "1,234,567.8901", "words that may go on in the next line " * 3)]
    table("Positions", ("!instrument", ">value", "remark"), rows)
    shown = capsys.readouterr().out
    assert "ETH-27DEC30-3000-C" in shown
    assert "1,234,567.8901" in shown


@given(st.text(max_size=20))
@example("\x1b[2J\x1b[1;1Happroved")
@example("size \u202e0001")
@example("one\n  margin  none")
def test_a_stranger_s_words_do_nothing_to_the_terminal(words):
    """A reference comes from the peer, and is drawn beside figures that a person decides on."""
    with contextlib.redirect_stdout(io.StringIO()) as drawn:
        facts("", {"reference": words})
        table("Offers", ("reference",), [(words,)])
    shown = drawn.getvalue()
    assert all(c.isprintable() or c == "\n" for c in shown)
    # in a list of facts not even a new line
    assert shown.split("\n")[0].startswith("  reference  ")
    assert shown.split("\n")[1].startswith("Offers")
