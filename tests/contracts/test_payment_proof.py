"""The payment function is proven, and the proof would notice if it were another one."""

import importlib.util

import pytest
from contracts_harness import ROOT

pytest.importorskip("z3", reason="the solver is in the dev extra")


def _script():
    spec = importlib.util.spec_from_file_location("prove_payment", ROOT / "scripts" / "prove_payment.py")
    module = importlib.util.module_from_spec(spec)
    import sys  # noqa: PLC0415 - a dataclass looks its module up there

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


proof = _script()
TEXT = proof.RECORDS.read_text()
MAX_AMOUNT = proof.constant("MAX_AMOUNT", proof.CLOSE_OUT.read_text())
BOUND = 2 * MAX_AMOUNT * 10**18


def test_total_conserving_within_the_pot_and_monotone():
    assert len(proof.payment_theorems(TEXT, BOUND)) == 12


def test_the_conversion_to_units_is_monotone_and_does_not_overflow():
    assert len(proof.conversion_theorems(MAX_AMOUNT)) == 27


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("- convert(signed.deposited, int256)", "+ convert(signed.deposited, int256)"),
        ("+ convert(signed.withdrawn, int256)", "+ convert(signed.balance, int256)"),
        ("        + gain\n", "        - gain\n"),
        ("max(due, 0)", "due"),
        ("min(convert(max(due, 0), uint256), self._pot(account_a, account_b))", "convert(max(due, 0), uint256)"),
        ("convert(account_a >> 128, int256)", "convert(account_b >> 128, int256)"),
        ("+ (account_b & MASK_128)\n", "- (account_b & MASK_128)\n"),
        ("        - (account_b >> 128)\n", ""),
    ],
)
def test_the_proof_fails_for_another_function(old, new):
    assert TEXT.count(old) == 1
    with pytest.raises(proof.NotProvenError, match="not proven"):
        proof.payment_theorems(TEXT.replace(old, new), BOUND)


def test_bounds_that_are_too_wide_are_refuted():
    with pytest.raises(proof.NotProvenError, match="total"):
        proof.payment_theorems(TEXT, 2**255)
    with pytest.raises(proof.NotProvenError, match="18 decimals"):
        proof.conversion_theorems(2**196)
