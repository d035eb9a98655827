"""Gas by receipt: within the targets, the page that says so up to date, and room under the size limit."""

from __future__ import annotations

import pytest
from contracts_harness import ROOT, artifact
from gas_measurements import CALLDATA_LIMIT, LIMITS, ROWS, Measurement, page


@pytest.fixture(scope="module")
def figures():
    return Measurement().measure()


def test_every_function_is_within_its_target(figures):
    rows = (*ROWS, *LIMITS)
    assert set(figures) == {row.name for row in rows}
    assert not {row.name: figures[row.name] for row in rows if row.target and figures[row.name][0] > row.target}


def test_at_the_limits_every_transaction_fits(figures):
    assert all(figures[row.name][1] <= CALLDATA_LIMIT for row in LIMITS)


def test_the_page_is_up_to_date(figures):
    assert (ROOT / "docs" / "gas.md").read_text() == page(figures), "run scripts/make_gas.py"


def test_every_contract_leaves_room_under_the_size_limit():
    for name in ("Adjudicator", "FixBook", "RiskEngine", "Rules", "Lens"):
        built = artifact(name)
        assert built["runtime_length"] + sum(i["length"] for i in built["immutables"]) <= 24_576
