"""`channeld explain` knows every error; `channeld doctor` looks from outside where no daemon runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from channeld.cli.care import explanation

ERRORS = Path(__file__).parents[2] / "docs" / "errors.md"
CODES = [int(code) for code in re.findall(r"^\| (\d+) \|", ERRORS.read_text(encoding="utf-8"), re.MULTILINE)]


def test_explain_knows_every_error_of_the_page(cli):
    assert len(CODES) > 100
    page = ERRORS.read_text(encoding="utf-8")
    for code in CODES:
        told = explanation(code)
        assert (told["code"], told["exit_code"]) == (code, 10 + code // 1000)
        assert told["what"]
        assert f"| {code} | {told['name']} | {told['fault']} |" in page
    done = cli("explain", CODES[0], "--json")
    assert json.loads(done.stdout) == explanation(CODES[0])


def test_explain_for_people(cli):
    done = cli("explain", "5201")
    assert "5201 EndpointsDisagreeError" in done.stdout
    assert "Add a third endpoint" in done.stdout


@pytest.mark.parametrize("code", ["4242", "-1"])
def test_a_code_that_is_none_names_those_near_it(cli, code):
    done = cli("explain", "--json", "--", code)
    assert done.exit_code == 11
    assert "Near it are" in json.loads(done.stderr)["error"]["advice"]


def test_doctor_without_a_daemon(cli, tmp_path):
    (tmp_path / "channeld.toml").write_text(
        '[chain]\nurls = ["http://127.0.0.1:1"]\n[api]\nlisten = "127.0.0.1:1"\n[oracle]\nurls = ["http://127.0.0.1:1"]\n'
    )
    done = cli("doctor", "--data", tmp_path, "--json")
    assert done.exit_code == 1, done.stderr
    told = json.loads(done.stdout)
    assert told["worst"] == "critical"
    levels = {one["check"]: one["level"] for one in told["findings"]}
    assert levels["rpc"] == levels["daemon"] == levels["keystore.json"] == "critical"
    shown = cli("doctor", "--data", tmp_path)
    assert "does not run" in shown.stdout
    assert "Traceback" not in shown.stdout + shown.stderr
