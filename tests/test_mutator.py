"""The mutator of the contracts: what it changes, what it leaves alone, that its names last; that its runner runs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from vyper.ast.parse import parse_to_ast

ROOT = Path(__file__).resolve().parents[1]
SOURCE = '''# pragma version 0.4.3
# pragma nonreentrancy on
"""
@title 1 + 1
"""

struct Account:
    a: uint256
    b: uint256

event Paid:
    to_a: uint256

MASK_128: constant(uint256) = 2**128 - 1
LIMIT: constant(uint256) = 7
_paid: HashMap[bytes32, uint256]


@internal
def _pay(channel: bytes32, account_a: uint256, account_b: uint256, to_a: uint256) -> (uint256, uint256):
    """
    @notice if 1 < 2
    """
    if to_a >= LIMIT or account_a == 0:
        raw_revert(method_id("TooMuch()"))
    rest: uint256 = (account_a & MASK_128) - to_a
    for i: uint256 in range(to_a, bound=10):
        rest += unsafe_mul(min(i, to_a), 3)
    self._paid[channel] = rest  # 5 + 5
    log Paid(to_a=to_a)
    return rest if not (to_a > 0) else account_b >> 128, account_b
'''


@pytest.fixture(scope="module")
def module():
    name = "contract_mutants"
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    spec.loader.exec_module(loaded)
    yield loaded
    del sys.modules[name]


def changes(module, line):
    """(kind, old, new) of the mutants on the line that holds a text."""
    number = next(n for n, text in enumerate(SOURCE.splitlines(), 1) if line in text)
    return {(m.kind, m.old, m.new) for m in module.mutants("x.vy", SOURCE) if m.line == number}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nonreentrancy", {("lock removed", "on", "off")}),
        ("LIMIT: ", {("constant plus one", "7", "8"), ("constant minus one", "7", "6")}),
        # a power's base stays
        (
            "MASK_128: ",
            {
                ("operator", "-", "+"),
                ("constant plus one", "128", "129"),
                ("constant minus one", "128", "127"),
                ("constant plus one", "1", "2"),
                ("constant minus one", "1", "0"),
            },
        ),
        (
            "if to_a",
            {
                ("comparison", ">=", ">"),
                ("comparison", ">=", "<"),
                ("comparison", "==", "!="),
                ("logic", "or", "and"),
                ("swapped name", "to_a", "to_b"),
                ("swapped name", "account_a", "account_b"),
                ("constant plus one", "0", "1"),
                ("constant minus one", "0", "-1"),
                ("condition negated", "to_a >= LIMIT or account_a == 0", "not (to_a >= LIMIT or account_a == 0)"),
                (
                    "guard removed",
                    'if to_a >= LIMIT or account_a == 0:\n        raw_revert(method_id("TooMuch()"))',
                    "pass",
                ),
            },
        ),
        # the method's name in a refusal is left to the tests of refusals
        ("raw_revert", set()),
        (
            "rest: uint256",
            {
                ("operator", "&", "|"),
                ("operator", "-", "+"),
                ("deposited for paid", "account_a & MASK_128", "(account_a >> 128)"),
                ("swapped name", "account_a", "account_b"),
                ("swapped name", "to_a", "to_b"),
                ("swapped name", "MASK_128", "MASK_64"),
            },
        ),
        (
            "for i",
            {
                ("swapped name", "to_a", "to_b"),
                # a larger bound only costs
                ("constant minus one", "10", "9"),
            },
        ),
        (
            "rest +=",
            {
                ("statement removed", "rest += unsafe_mul(min(i, to_a), 3)", "pass"),
                ("assignment operator", "+=", "-="),
                ("function", "unsafe_mul", "unsafe_div"),
                ("function", "min", "max"),
                ("swapped name", "to_a", "to_b"),
                ("constant plus one", "3", "4"),
                ("constant minus one", "3", "2"),
            },
        ),
        ("self._paid", {("statement removed", "self._paid[channel] = rest", "pass")}),
        ("log Paid", {("statement removed", "log Paid(to_a=to_a)", "pass"), ("swapped name", "to_a", "to_b")}),
    ],
)
def test_what_changes_on_a_line(module, line, expected):
    assert changes(module, line) == expected


def test_the_last_line_of_a_function_changes_too(module):
    found = changes(module, "return rest")
    assert ("sign, complement or negation dropped", "not (to_a > 0)", "(to_a > 0)") in found
    assert ("comparison", ">", "<=") in found
    assert ("paid for deposited", "account_b >> 128", f"(account_b & {2**128 - 1})") in found
    assert any(kind == "swapped elements" for kind, _, _ in found)


def test_each_mutant_is_one_change_that_still_parses(module):
    found = module.mutants("x.vy", SOURCE)
    assert len({m.id for m in found}) == len(found)
    for mutant in found:
        text = mutant.applied(SOURCE)
        assert text != SOURCE
        assert SOURCE[mutant.start : mutant.end] == mutant.old
        assert text[: mutant.start] + mutant.old + text[mutant.start + len(mutant.new) :] == SOURCE
        parse_to_ast(text)


def test_names_last_when_other_lines_move(module):
    longer = SOURCE.replace("_paid: HashMap", "OTHER: constant(uint256) = 9\n_paid: HashMap")
    before = {m.id for m in module.mutants("x.vy", SOURCE)}
    after = {m.id for m in module.mutants("x.vy", longer)}
    assert before < after
    assert len(after - before) == 2
    assert not before & {m.id for m in module.mutants("y.vy", SOURCE)}


@pytest.mark.parametrize("path", sorted((ROOT / "contracts").glob("**/*.vy")), ids=lambda p: p.stem)
def test_the_sources_have_mutants_each_with_its_own_name(module, path):
    found = module.mutants(path.name, path.read_text())
    assert len({m.id for m in found}) == len(found) > 0


def mutate(*arguments):
    """Run the script; what its last line says."""
    command = [sys.executable, ROOT / "scripts" / "mutate_contracts.py", *arguments]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_quick_compiler_makes_what_the_compiler_makes():
    # of several modules, and with a constant, which is left to the compiler
    found = mutate("--contract", "Rules", "--sample", "8", "--seed", "7", "--check-compiler")
    assert found.pop("contract") == "Rules"
    assert sum(found.values()) == 8
    assert found["same"] >= 4
    assert "DIFFERENT" not in found


@pytest.mark.slow
def test_a_few_mutants_of_the_fix_book_meet_their_tests(tmp_path):
    results = tmp_path / "results.json"
    sample = ("--contract", "FixBook", "--sample", "8", "--seed", "5", "--json", results)
    mutate(*sample)
    whole = json.loads(results.read_text())
    assert whole["figures"]["run"] == len(whole["outcomes"]) == 8
    assert whole["figures"]["killed"] >= 6
    by = {o["by"] for o in whole["outcomes"] if o["status"] == "killed"}
    assert all(name.startswith(("test_fix_book.py::", "test_mutation_kills.py::")) for name in by)

    # cut short, and gone on with: the same fates
    results.write_text(json.dumps(whole | {"outcomes": whole["outcomes"][:5]}))
    mutate(*sample, "--resume")
    again = json.loads(results.read_text())
    fates = [{o["mutant"]["id"]: o["status"] for o in found["outcomes"]} for found in (whole, again)]
    assert fates[0] == fates[1]
    assert again["outcomes"][:5] == whole["outcomes"][:5]
