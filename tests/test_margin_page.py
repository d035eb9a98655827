"""docs/margin.md is what its script makes, and the models of others in it give the others' own published figures."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from channeld.core.state import Kind

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_margin", ROOT / "scripts" / "make_margin.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_margin"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["make_margin"]


def test_the_page_is_what_the_script_makes(script):
    assert script.PAGE.read_text(encoding="utf-8") == script.page(), "run: python scripts/make_margin.py"


def test_deribits_worked_example_comes_out(script):
    """private/pme/simulate, its response example: a perpetual and a future of eleven days, in coin."""
    legs = (script.Leg(Kind.PERPETUAL, 0, 0.314538364), script.Leg(Kind.FUTURE, 0, -0.001187534, 11))
    model = script.Deribit()
    # a loss in dollars at a fall of 16% is this much coin at the price it is then
    worst = script.deribit_worst(legs, model) / (script.SPOT * 0.84)
    assert worst == pytest.approx(0.05968587238095239, rel=1e-12)
    maintenance, initial = script.deribit(legs, model)
    roll = (initial - script.deribit_worst(legs, model)) / script.SPOT
    assert roll == pytest.approx(0.00315725898, rel=1e-9)
    assert worst + roll == pytest.approx(0.06284313098, abs=1e-9)
    assert 0.8 * (worst + roll) == pytest.approx(0.050274504784, abs=1e-9)
    assert maintenance == pytest.approx(0.8 * initial)


def test_derives_scenarios_are_the_23_of_its_documentation(script):
    assert len(script.DERIVE_SCENARIOS) == 23
    assert script.DERIVE_SCENARIOS[0] == (0.2, 1)
    assert script.DERIVE_SCENARIOS[-1] == (-0.2, 1)
    inner = set(script.DERIVE_SCENARIOS[1:-1])
    assert inner == {(round(k * 0.05, 2), d) for k in range(-3, 4) for d in (1, 0, -1)}


def test_derive_by_hand(script):
    # a perpetual: 20% of 6,000,000, and 3% of contingency; a quarter more at first
    assert script.derive((script.Leg(Kind.PERPETUAL, 0, 100),)) == pytest.approx((1_380_000, 1_725_000))
    # net shorts are counted strike by strike: the box has none
    box = script.STRUCTURES["long box 54/66, 30 days"]
    worth = 100 * 12_000
    discount = 0.95 * 2.718281828459045 ** (-30 / 365 * 0.12)
    assert script.derive(box)[0] == pytest.approx(worth * (1 - discount))


def test_defined_risk_is_bounded_here_in_every_template(script):
    for name, legs in script.STRUCTURES.items():
        most = script.most_it_can_lose(legs)
        for template in script.TEMPLATES:
            maintenance, initial = script.ours(legs, template)
            assert 0 <= maintenance <= initial
            if most is not None:
                assert initial <= most + 1e-6, (name, template)
    for name in ("long box 54/66, 30 days", "conversion at 60,000, 30 days"):
        assert script.ours(script.STRUCTURES[name], "standard") == (0, 0)
