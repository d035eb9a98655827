"""The replay of a crash: what it asserts by itself, on the worst hours, and that its page has the tables it makes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import crash_replay

pytestmark = pytest.mark.skipif(
    not crash_replay.DATA.exists(), reason=f"{crash_replay.DATA} is not there: market data are not part of the project"
)


def test_the_worst_hours_of_may_2021():
    met, missed = crash_replay.runs(crash_replay.DATA, short=True)
    for one in (met, missed):
        assert one.calls
        assert sum(one.paid) == 2 * one.deposit + one.topped_up
        assert min(one.paid) >= 0
        assert one.on_chain["below"] == ["a"]
        assert one.on_chain["penalty"] > 0
        assert one.marks == len(one.rows)
    assert met.topped_up > 0
    assert missed.topped_up == 0
    # whoever is called early and does nothing is closed out early, and still covers its loss
    assert missed.on_chain["time"] < met.on_chain["time"]
    assert missed.short == 0
    assert met.short > 0
    # the page was made by the same code
    page = crash_replay.PAGE.read_text(encoding="utf-8")
    assert "| tight | does nothing |" in page


def test_the_plots_are_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    made = crash_replay.plot(crash_replay.runs(crash_replay.DATA, short=True), tmp_path)
    assert len(made) == 2
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in made)
