"""Prove the payment function of the Adjudicator: total, conserving, within the pot, monotone in the profit.

`python scripts/prove_payment.py` prints every theorem and fails unless all are proven; it takes about a second.

Rules: what is proven is the contract's own text. `_entitlement` and `_pot` are read from contracts/modules/records.vy
and executed symbolically with Vyper's checked arithmetic: each intermediate result must be shown to fit its type, or
the theorem "total" fails. A construct that the reader does not know stops it. The solver is z3, over the integers, for
every value of every field within the bounds that the contract itself holds, which are written in `Case`.
"""  # noqa: INP001 - a script, no package

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import z3

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "contracts" / "modules" / "records.vy"
CLOSE_OUT = ROOT / "contracts" / "modules" / "close_out.vy"
RANGES = {"uint256": (0, 2**256 - 1), "int256": (-(2**255), 2**255 - 1), "uint128": (0, 2**128 - 1)}
MASK_128 = 2**128 - 1
TIMEOUT_MS = 60_000


class NotProvenError(Exception):
    """A theorem that the solver refutes, or does not decide; or a source that this reader does not know."""


def function_source(name: str, text: str) -> str:
    """The text of one function of a Vyper module; its syntax is Python's.

    Raises:
        NotProvenError: there is no such function.

    """
    start = text.find(f"def {name}(")
    if start < 0:
        raise NotProvenError(f"no function {name} in the source")
    lines = text[start:].splitlines()
    body = [line for i, line in enumerate(lines) if i == 0 or line.startswith((" ", ")")) or not line]
    end = next((i for i, line in enumerate(lines) if i and line and not line.startswith((" ", ")"))), len(lines))
    return "\n".join(body[:end])


def constant(name: str, text: str) -> int:
    """The value that a Vyper module gives a constant.

    Raises:
        NotProvenError: there is no such constant.

    """
    for line in text.splitlines():
        if line.startswith(f"{name}: constant("):
            return int(eval(line.split("=", 1)[1], {"__builtins__": {}}))  # noqa: S307 - arithmetic of our own source
    raise NotProvenError(f"no constant {name} in the source")


@dataclass
class Execution:
    """Symbolic execution of straight-line Vyper: a value and its type for every expression, and what must not overflow.

    obligations: one formula for each intermediate result that Vyper checks at run time; all hold, or the call reverts.
    """

    text: str
    names: dict[str, tuple[Any, str]]
    obligations: list[Any] = field(default_factory=list)

    def call(self, name: str) -> Any:  # noqa: ANN401 - a z3 term
        """The term that a function returns, its parameters taken from the names."""
        (function,) = ast.parse(function_source(name, self.text)).body
        outer, self.names = self.names, dict(self.names)
        for statement in function.body:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                continue
            if isinstance(statement, ast.AnnAssign):
                self.names[statement.target.id] = self.evaluate(statement.value)
            elif isinstance(statement, ast.Return):
                result = self.evaluate(statement.value)[0]
                self.names = outer
                return result
            else:
                raise NotProvenError(f"a statement that this reader does not know: {ast.unparse(statement)}")
        raise NotProvenError(f"{name} returns nothing")

    def checked(self, value: Any, kind: str) -> tuple[Any, str]:  # noqa: ANN401 - a z3 term
        """A result that reverts outside its type."""
        lowest, highest = RANGES[kind]
        self.obligations.append(z3.And(value >= lowest, value <= highest))
        return value, kind

    def evaluate(self, node: Any) -> tuple[Any, str]:  # noqa: ANN401 - any expression
        """The term of an expression, and its type ("literal" for a number)."""
        match node:
            case ast.Constant(value=int()):
                return z3.IntVal(node.value), "literal"
            case ast.Name():
                return self._name(node.id)
            case ast.Attribute():
                return self._name(ast.unparse(node))
            case ast.BinOp():
                return self._operation(node)
            case ast.Call(func=ast.Name(id="convert"), args=[value, ast.Name(id=kind)]):
                return self.checked(self.evaluate(value)[0], kind)
            case ast.Call(func=ast.Name(id="max" | "min" as which), args=[left, right]):
                (x, first), (y, second) = self.evaluate(left), self.evaluate(right)
                kind = second if first == "literal" else first
                return (z3.If(x >= y, x, y) if which == "max" else z3.If(x <= y, x, y)), kind
            case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=name)):
                parameters = [a.arg for a in ast.parse(function_source(name, self.text)).body[0].args.args]
                if [ast.unparse(a) for a in node.args] != parameters:
                    raise NotProvenError(f"{name} is called with other names than its own")
                return self.call(name), "uint256"
        raise NotProvenError(f"an expression that this reader does not know: {ast.unparse(node)}")

    def _name(self, name: str) -> tuple[Any, str]:
        if name == "MASK_128":
            return z3.IntVal(constant("MASK_128", self.text)), "literal"
        if name not in self.names:
            raise NotProvenError(f"a name that this reader does not know: {name}")
        return self.names[name]

    def _operation(self, node: ast.BinOp) -> tuple[Any, str]:
        (x, first), (y, second) = self.evaluate(node.left), self.evaluate(node.right)
        kind = second if first == "literal" else first
        match node.op:
            case ast.Add():
                return self.checked(x + y, kind)
            case ast.Sub():
                return self.checked(x - y, kind)
            case ast.BitAnd() if z3.simplify(y).as_long() == MASK_128:
                return x % 2**128, kind
            case ast.RShift() if z3.simplify(y).as_long() < 256:
                return x / 2 ** z3.simplify(y).as_long(), kind
        raise NotProvenError(f"an operation that this reader does not know: {ast.unparse(node)}")


class Case:
    """One channel at its end, in symbols, with the bounds that the contract holds.

    signed_*: a's account in the enforced state, any three uint128. The deposits of both sum to at most 2**128 - 1
    (`deposit` refuses more), and what was paid does not exceed them (the bounds that a payment is shown to keep).
    The gain is a profit and a penalty, each cut to MAX_AMOUNT wads before it becomes units, at most 10**18 a wad.
    """

    def __init__(self, text: str, gain_bound: int, tag: str = "") -> None:
        """Make the symbols."""
        self.text = text
        self.balance, self.deposited, self.withdrawn = z3.Ints(f"balance{tag} deposited{tag} withdrawn{tag}")
        self.deposited_a, self.deposited_b, self.paid_a, self.paid_b = z3.Ints("deposited_a deposited_b paid_a paid_b")
        self.gain = z3.Int(f"gain{tag}")
        fields = (self.balance, self.deposited, self.withdrawn)
        totals = (self.deposited_a, self.deposited_b, self.paid_a, self.paid_b)
        self.bounds = [z3.And(x >= 0, x <= MASK_128) for x in (*fields, *totals)]
        self.bounds += [
            self.deposited_a + self.deposited_b <= MASK_128,
            self.paid_a + self.paid_b <= self.deposited_a + self.deposited_b,
            self.gain >= -gain_bound,
            self.gain <= gain_bound,
        ]
        self.names = {
            "signed.balance": (self.balance, "uint128"),
            "signed.deposited": (self.deposited, "uint128"),
            "signed.withdrawn": (self.withdrawn, "uint128"),
            "gain": (self.gain, "int256"),
            "account_a": (self.deposited_a + self.paid_a * 2**128, "uint256"),
            "account_b": (self.deposited_b + self.paid_b * 2**128, "uint256"),
        }
        execution = Execution(text, self.names)
        self.to_a = execution.call("_entitlement")
        self.pot = execution.call("_pot")
        # Vyper's own subtraction, which reverts below zero
        self.to_b, _ = execution.checked(self.pot - self.to_a, "uint256")
        self.obligations = execution.obligations


def prove(name: str, hypotheses: list[Any], theorem: Any) -> str:  # noqa: ANN401 - a z3 formula
    """The name of a theorem that holds wherever the hypotheses do.

    Raises:
        NotProvenError: with the solver's counterexample, or that it found none in time.

    """
    solver = z3.Solver()
    solver.set("timeout", TIMEOUT_MS)
    solver.add(*hypotheses, z3.Not(theorem))
    result = solver.check()
    if result == z3.unsat:
        return name
    found = f"\n{solver.model()}" if result == z3.sat else ""
    raise NotProvenError(f"not proven ({result}): {name}{found}")


def payment_theorems(text: str, gain_bound: int) -> list[str]:
    """What holds of `_entitlement` and `_pot` as the text of records.vy has them."""
    one, two = Case(text, gain_bound), Case(text, gain_bound, "'")
    same = [one.balance == two.balance, one.deposited == two.deposited, one.withdrawn == two.withdrawn]
    pair = [*one.bounds, *two.bounds]
    due = (
        one.balance + one.gain + one.deposited_a - one.deposited + one.withdrawn - one.paid_a
    )  # docs/protocol.md, section 11
    pot = one.deposited_a + one.deposited_b - one.paid_a - one.paid_b
    b = z3.Ints("b_balance b_deposited b_withdrawn")
    due_b = b[0] - one.gain + one.deposited_b - b[1] + b[2] - one.paid_b
    conserves = one.balance + b[0] == one.deposited + b[1] - one.withdrawn - b[2]
    extra, side = z3.Ints("extra side")
    return [
        prove("total: no state, gain, deposit or payment makes it revert", one.bounds, z3.And(*one.obligations)),
        prove("the pot is everything deposited less everything paid", one.bounds, one.pot == pot),
        prove(
            "within the pot: neither is paid less than nothing, nor more than the pot",
            one.bounds,
            z3.And(one.to_a >= 0, one.to_a <= pot, one.to_b >= 0, one.to_b <= pot),
        ),
        prove("conserving: both together are paid the pot, to the unit", one.bounds, one.to_a + one.to_b == pot),
        prove(
            "a is paid what the protocol says, wherever the pot has it",
            [*one.bounds, due >= 0, due <= pot],
            one.to_a == due,
        ),
        prove(
            "a is paid nothing below zero, and all beyond the pot",
            one.bounds,
            z3.And(z3.Implies(due < 0, one.to_a == 0), z3.Implies(due > pot, one.to_a == pot)),
        ),
        prove(
            "symmetric: the same formula from b's side gives b the rest",
            [*one.bounds, conserves],
            z3.Implies(z3.And(due >= 0, due_b >= 0), one.to_b == due_b),
        ),
        prove(
            "monotone: a greater profit never pays a less", [*pair, *same, one.gain <= two.gain], one.to_a <= two.to_a
        ),
        prove(
            "and never more than the difference",
            [*pair, *same, one.gain <= two.gain],
            two.to_a - one.to_a <= two.gain - one.gain,
        ),
        prove(
            "a penalty takes from one what it gives the other, and no more than was there",
            [*pair, *same, extra >= 0, two.gain == one.gain - extra],
            z3.And(two.to_a <= one.to_a, one.to_a - two.to_a == two.to_b - one.to_b),
        ),
        prove(
            "the bounds are kept by a payment: what is paid never exceeds what was deposited, nor 128 bits",
            one.bounds,
            z3.And(
                one.paid_a + one.to_a + one.paid_b + one.to_b <= one.deposited_a + one.deposited_b,
                one.paid_a + one.to_a <= MASK_128,
                one.paid_b + one.to_b <= MASK_128,
            ),
        ),
        prove(
            "a deposit later acknowledged changes nothing: it is the depositor's before and after",
            [
                *pair,
                one.withdrawn == two.withdrawn,
                one.gain == two.gain,
                side >= 0,
                two.balance == one.balance + side,
                two.deposited == one.deposited + side,
            ],
            one.to_a == two.to_a,
        ),
    ]


def conversion_theorems(max_amount: int) -> list[str]:
    """What holds of the conversion of the profit (wads) to units, as close_out.vy does it after cutting it."""
    x, y, p, q, c = z3.Ints("x y p q c")

    def quotient(n: Any, d: Any, r: Any) -> Any:  # noqa: ANN401 - the EVM's SDIV: r is n / d toward zero, d > 0
        return z3.If(n >= 0, z3.And(r * d <= n, n < r * d + d), z3.And(r * d >= n, n > r * d - d))

    done = []
    for decimals in range(6, 19):
        scale = 10 ** (18 - decimals)
        units = [quotient(x, scale, p), quotient(y, scale, q), x <= y]
        done.append(prove(f"{decimals} decimals: units grow with the profit", units, p <= q))
        cut = [x >= -max_amount, x <= max_amount]
        fits = z3.And(x * 10**decimals >= -(2**255), x * 10**decimals < 2**255)
        done.append(
            prove(f"{decimals} decimals: the profit in units of a priced collateral does not overflow", cut, fits)
        )
    # by what the price is does not matter: for every positive divisor, from n1 <= n2 follows q1 <= q2
    step = [quotient(x, c, p), quotient(y, c, q), x <= y, c >= 1]
    lemma = z3.Implies(p >= q + 1, p * c >= q * c + c)
    done.append(prove("units of a priced collateral grow with the profit, at every price", [*step, lemma], p <= q))
    return done


def main() -> int:
    """Prove everything, and say what was proven."""
    text = RECORDS.read_text()
    max_amount = constant("MAX_AMOUNT", CLOSE_OUT.read_text())
    try:
        proven = payment_theorems(text, 2 * max_amount * 10**18) + conversion_theorems(max_amount)
    except NotProvenError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write("".join(f"proven  {name}\n" for name in proven))
    return 0


if __name__ == "__main__":
    sys.exit(main())
