# noqa: INP001 - a script's own module, in no package
# ruff: noqa: ANN401 - the nodes of the compiler's tree have no types
"""Mutants of a Vyper source: one small wrong change each, made in the text where the syntax tree says it stands.

Rules: pure (text in, mutants out), deterministic, and in the order of the source. A mutant's id is a hash of its file,
its function, the kind of change, the line and what replaces what: it stays when other lines move. Only what runs is
mutated: bodies of functions, values of constants, and the pragma that locks every entry. Types, signatures, structs,
events, imports and texts that people read are left alone: changing them changes the interface, or nothing. A power's
base is left alone too: its exponent varies. scripts/mutate_contracts.py compiles the mutants and runs the tests.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import vyper.ast as vy
from vyper.ast.parse import parse_to_ast

if TYPE_CHECKING:
    from collections.abc import Iterator

COMPARISONS = {
    vy.Lt: ("<", ("<=", ">=")),
    vy.LtE: ("<=", ("<", ">")),
    vy.Gt: (">", (">=", "<=")),
    vy.GtE: (">=", (">", "<")),
    vy.Eq: ("==", ("!=",)),
    vy.NotEq: ("!=", ("==",)),
}
ARITHMETIC = {
    vy.Add: ("+", "-"),
    vy.Sub: ("-", "+"),
    vy.Mult: ("*", "//"),
    vy.FloorDiv: ("//", "*"),
    vy.Mod: ("%", "*"),
    vy.BitAnd: ("&", "|"),
    vy.BitOr: ("|", "&"),
    vy.BitXor: ("^", "&"),
    vy.LShift: ("<<", ">>"),
    vy.RShift: (">>", "<<"),
}
FUNCTIONS = {
    "unsafe_add": "unsafe_sub",
    "unsafe_sub": "unsafe_add",
    "unsafe_mul": "unsafe_div",
    "unsafe_div": "unsafe_mul",
    "min": "max",
    "max": "min",
}
COMMUTATIVE = {"unsafe_add", "unsafe_mul", "min", "max"}
# names that a tired eye confuses; those in _a and _b are swapped by rule
CONFUSED = dict(
    pair
    for one, other in (
        ("a", "b"),
        ("withdrawnA", "withdrawnB"),
        ("deposited", "withdrawn"),
        ("signer", "payout"),
        ("floor_hash", "record_hash"),
        ("challengePeriod", "curePeriod"),
        ("volUp", "volDown"),
        ("vol_up", "vol_down"),
        ("v_up", "v_down"),
        ("up", "down"),
        ("longs", "shorts"),
        ("lowest", "highest"),
        ("whole", "later"),
        ("any_near", "any_soon"),
        ("spot", "strike"),
        ("OPEN", "DISPUTED"),
        ("MASK_64", "MASK_128"),
    )
    for pair in ((one, other), (other, one))
)


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Attributes:
        id: The stable name.
        file: The source, relative to contracts/.
        line: Where, from 1.
        function: The function it is in; empty for a constant or a pragma.
        kind: The kind of change.
        start: The first character replaced.
        end: The character after the last.
        old: The text replaced.
        new: What replaces it.
    """

    id: str
    file: str
    line: int
    function: str
    kind: str
    start: int
    end: int
    old: str
    new: str

    def applied(self, text: str) -> str:
        """The mutated source."""
        return text[: self.start] + self.new + text[self.end :]

    def __str__(self) -> str:
        """One line for people."""
        shorten = lambda t: re.sub(r"\s+", " ", t)[:70]  # noqa: E731 - one line, used here alone
        return f"{self.id} {self.file}:{self.line} {self.kind}: {shorten(self.old)} -> {shorten(self.new)}"


class Source:
    """A source and its syntax tree, with the places of nodes as offsets into the text."""

    def __init__(self, file: str, text: str) -> None:
        """Parse it."""
        self.file, self.text = file, text
        self.starts = [0]
        for line in text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.tree = parse_to_ast(text)

    def span(self, node: Any) -> tuple[int, int]:
        """A node's first character and the one after its last."""
        return (
            self.starts[node.lineno - 1] + node.col_offset,
            self.starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def of(self, node: Any) -> str:
        """A node's text."""
        start, end = self.span(node)
        return self.text[start:end]

    def between(self, left: Any, right: Any, symbol: str) -> tuple[int, int]:
        """Where an operator stands, between its operands."""
        start = self.text.index(symbol, self.span(left)[1])
        assert start + len(symbol) <= self.span(right)[0], (self.file, symbol, self.of(left))  # noqa: S101 - a mutator that lies about places must stop
        return start, start + len(symbol)


# kind, first character, the one after the last, new text
Change = tuple[str, int, int, str]


def _is_refusal(function: Any) -> bool:
    """The function that raises the custom errors of contracts that are short of bytes."""
    return getattr(function, "attr", "") == "_refuse"


def _is_guard(node: Any) -> bool:
    """An `if` that only refuses."""
    return (
        not node.orelse
        and len(node.body) == 1
        and isinstance(node.body[0], vy.Expr)
        and isinstance(node.body[0].value, vy.Call)
        and (getattr(node.body[0].value.func, "id", "") == "raw_revert" or _is_refusal(node.body[0].value.func))
    )


def _partner(name: str) -> str | None:
    if name in CONFUSED:
        return CONFUSED[name]
    if name.endswith(("_a", "_b")):
        return name[:-1] + ("b" if name.endswith("a") else "a")
    return None


class Walker:
    """Walks what runs and yields changes as (kind, start, end, new text)."""

    def __init__(self, source: Source) -> None:
        """Of one source."""
        self.source = source

    def statement(self, node: Any) -> Iterator[Change]:  # noqa: C901 - a case for each kind of node
        """The changes of one statement and of all inside it."""
        source = self.source
        start, end = source.span(node)
        match node:
            case vy.If():
                if _is_guard(node):
                    yield "guard removed", start, end, "pass"
                yield from self.condition(node.test)
                yield from self.expression(node.test)
                if not _is_guard(node):
                    for inner in [*node.body, *node.orelse]:
                        yield from self.statement(inner)
            case vy.For():
                yield from self.expression(node.iter)
                for inner in node.body:
                    yield from self.statement(inner)
            case vy.AnnAssign():
                yield from self.expression(node.value)
            case vy.Assign() | vy.AugAssign() | vy.Log() | vy.Expr() | vy.Continue() | vy.Break():
                if not isinstance(node, vy.Expr) or isinstance(node.value, (vy.Call, vy.ExtCall)):
                    yield "statement removed", start, end, "pass"
                if isinstance(node, vy.AugAssign):
                    old, new = ARITHMETIC[type(node.op)]
                    at, to = source.between(node.target, node.value, old + "=")
                    yield "assignment operator", at, to, new + "="
                for inner in (getattr(node, "target", None), getattr(node, "value", None)):
                    if inner is not None:
                        yield from self.expression(inner)
            case vy.Return():
                if node.value is not None:
                    yield from self.expression(node.value)

    def condition(self, node: Any) -> Iterator[Change]:
        """A condition reversed as a whole, where reversing its one comparison does not do that already."""
        if not isinstance(node, vy.Compare) and not (isinstance(node, vy.UnaryOp) and isinstance(node.op, vy.Not)):
            start, end = self.source.span(node)
            yield "condition negated", start, end, f"not ({self.source.of(node)})"

    def expression(self, node: Any) -> Iterator[Change]:  # noqa: C901, PLR0912 - the same
        """The changes of an expression and of all inside it."""
        yield from self.operator(node)
        source = self.source
        start, end = source.span(node)
        match node:
            case vy.Int():
                yield "constant plus one", start, end, str(node.value + 1)
                yield "constant minus one", start, end, str(node.value - 1)
            case vy.NameConstant():
                if node.value in (True, False):
                    yield "truth", start, end, str(not node.value)
            case vy.Name():
                if partner := _partner(node.id):
                    yield "swapped name", start, end, partner
            case vy.Attribute():
                if partner := _partner(node.attr):
                    yield "swapped name", end - len(node.attr), end, partner
                yield from self.expression(node.value)
            case vy.Call():
                yield from self.call(node)
            case vy.BinOp():
                yield from self.expression(node.left) if not isinstance(node.op, vy.Pow) else ()
                yield from self.expression(node.right)
            case vy.Tuple() | vy.List():
                if isinstance(node, vy.Tuple):
                    yield from self.neighbours(node.elements, "swapped elements")
                for inner in node.elements:
                    yield from self.expression(inner)
            case _:
                for name in ("left", "right", "operand", "test", "body", "orelse", "value", "slice"):
                    inner = getattr(node, name, None)
                    if isinstance(inner, vy.VyperNode) and hasattr(inner, "lineno"):
                        yield from self.expression(inner)
                if isinstance(node, vy.BoolOp):
                    for inner in node.values:
                        yield from self.expression(inner)

    def operator(self, node: Any) -> Iterator[Change]:
        """The changes of what stands between or before operands."""
        source = self.source
        start, end = source.span(node)
        match node:
            case vy.Compare():
                old, others = COMPARISONS[type(node.op)]
                at, to = source.between(node.left, node.right, old)
                for new in others:
                    yield "comparison", at, to, new
            case vy.BinOp() if type(node.op) in ARITHMETIC:
                old, new = ARITHMETIC[type(node.op)]
                at, to = source.between(node.left, node.right, old)
                yield "operator", at, to, new
                yield from self.half(node)
            case vy.BoolOp():
                old, new = ("and", "or") if isinstance(node.op, vy.And) else ("or", "and")
                for left, right in pairwise(node.values):
                    at, to = source.between(left, right, old)
                    yield "logic", at, to, new
            case vy.UnaryOp():
                operand = source.of(node.operand)
                yield "sign, complement or negation dropped", start, end, f"({operand})"
            case vy.IfExp():
                test, to = source.span(node.test)
                yield "condition negated", test, to, f"not ({source.of(node.test)})"

    def half(self, node: Any) -> Iterator[Change]:
        """What is deposited for what is paid, in a packed account, and the reverse."""
        left, right = self.source.of(node.left), self.source.of(node.right)
        start, end = self.source.span(node)
        if isinstance(node.op, vy.BitAnd) and right.endswith("MASK_128"):
            yield "deposited for paid", start, end, f"({left} >> 128)"
        if isinstance(node.op, vy.RShift) and right == "128":
            yield "paid for deposited", start, end, f"({left} & {2**128 - 1})"

    def neighbours(self, nodes: list[Any], kind: str) -> Iterator[Change]:
        """Each two neighbours exchanged."""
        for left, right in pairwise(nodes):
            (start, middle), (resume, end) = self.source.span(left), self.source.span(right)
            gap = self.source.text[middle:resume]
            if self.source.of(left) != self.source.of(right):
                yield kind, start, end, self.source.of(right) + gap + self.source.of(left)

    def call(self, node: Any) -> Iterator[Change]:
        """The changes of a call: its name, the order of its arguments, and each of them. Types are left alone."""
        name = getattr(node.func, "id", "")
        if name in ("method_id", "empty"):
            return
        if name == "keccak256" and isinstance(node.args[0], vy.Str):
            start, end = self.source.span(node.args[0])
            yield "text", start, end, self.source.of(node.args[0])[:-2] + '?"'
            return
        if name in FUNCTIONS:
            start, end = self.source.span(node.func)
            yield "function", start, end, FUNCTIONS[name]
        elif isinstance(node.func, vy.Attribute):
            yield from self.expression(node.func)
        if name not in COMMUTATIVE and name != "convert":
            yield from self.neighbours(node.args, "swapped arguments")
        for inner in node.args[:1] if name == "convert" else node.args:
            yield from self.expression(inner)
        for keyword in node.keywords:
            if keyword.arg == "bound":
                # a larger bound only costs; a smaller one refuses
                yield from (c for c in self.expression(keyword.value) if c[0] == "constant minus one")
            else:
                yield from self.expression(keyword.value)


def _changes(source: Source) -> Iterator[tuple[str, Change]]:
    """All changes of a source, each with the function it is in."""
    if found := re.search(r"^# pragma nonreentrancy (on)$", source.text, re.MULTILINE):
        yield "", ("lock removed", found.start(1), found.end(1), "off")
    walker = Walker(source)
    for node in source.tree.get_children():
        if isinstance(node, vy.VariableDecl) and node.is_constant:
            for change in walker.expression(node.value):
                yield "", change
        elif isinstance(node, vy.FunctionDef):
            for inner in node.body:
                if not isinstance(inner, vy.DocStr):
                    for change in walker.statement(inner):
                        yield node.name, change


def mutants(file: str, text: str) -> list[Mutant]:
    """Every mutant of a source, in its order.

    Args:
        file: Its path relative to contracts/, which enters the ids.
        text: The source.
    """
    source = Source(file, text)
    found, seen = [], Counter()
    for function, (kind, start, end, new) in _changes(source):
        line = text.count("\n", 0, start)
        whole = text[source.starts[line] : source.starts[line + 1]].strip()
        key = "|".join((file, function, kind, whole, text[start:end], new))
        seen[key] += 1
        name = hashlib.sha256(f"{key}|{seen[key]}".encode()).hexdigest()[:8]
        found.append(Mutant(name, file, line + 1, function, kind, start, end, text[start:end], new))
    return sorted(found, key=lambda mutant: (mutant.start, mutant.end))
