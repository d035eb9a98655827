# noqa: INP001 - a script, no package
# ruff: noqa: ANN401 - pytest's and the compiler's objects have no types to name here
"""Mutation testing of the contracts: how many small wrong changes of their sources do the tests notice?

    python scripts/mutate_contracts.py --list --contract FixBook          the mutants
    nice python scripts/mutate_contracts.py --contract FixBook --jobs 2   run them all
    python scripts/mutate_contracts.py --sample 300 --seed 1 --json results.json
    python scripts/mutate_contracts.py --only 1a2b3c4d                    one, with the tests' own report

Rules: the working tree stays as it is. pytest collects the tests once; every mutant is a fork of that process, which
compiles the mutated contract, puts it in the place of the artifact that the tests deploy, and runs the tests until one
fails. A mutant that does not compile, or compiles to the code it was, is no mutant. One that outlives its time is
killed: it loops. Tests that would notice any change of code whatever it does (gas figures, committed artifacts) take no
part, and neither does one that reads the sources. docs/mutation.md has the figures.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import select
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from contract_mutants import Mutant, mutants

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests" / "contracts"
# no part of a kill suite: they notice any change of code (artifacts, gas), read the sources or the documents, or take
# minutes where the others take seconds (the state machine: what it would kill besides only makes the figures better)
LEFT_OUT = {
    "test_artifacts.py",
    "test_gas.py",
    "test_natspec.py",
    "test_payment_proof.py",
    "test_stateful.py",
}
LEFT_OUT_NAMES = ("test_gas", "code_fits", "of_the_table", "in_the_table")
# the tests of a contract, where they are not all but those of the other two
SUITES = {
    "RiskEngine": ("test_risk_engine.py", "test_risk_margin.py", "test_mutation_kills.py"),
    "FixBook": ("test_fix_book.py", "test_mutation_kills.py"),
}
NOT_OF_THE_OTHERS = {"test_risk_engine.py", "test_risk_margin.py", "test_fix_book.py"}
# what is mutated in each contract; of a module that several import, the one that runs most of it
CONTRACTS = {
    "RiskEngine": ("RiskEngine.vy", "modules/risk_arithmetic.vy", "modules/risk_margin.vy"),
    "FixBook": ("FixBook.vy",),
    "Rules": ("Rules.vy", "modules/close_out.vy", "modules/terms_rules.vy"),
    "Adjudicator": (
        "Adjudicator.vy",
        "modules/custody.vy",
        "modules/payouts.vy",
        "modules/records.vy",
        "modules/typed_data.vy",
    ),
}


@dataclass
class Outcome:
    """What became of a mutant: killed (by whom), survived, or none (by what the compiler says)."""

    mutant: Mutant
    status: str
    by: str = ""
    seconds: float = 0.0


@dataclass
class Plan:
    """What to run: the mutants of one contract against its tests."""

    contract: str
    path: str
    mutants: list[Mutant]
    jobs: int
    verbose: bool
    sources: dict[str, str]
    seconds: float = float("inf")
    outcomes: list[Outcome] = field(default_factory=list)
    durations: dict[str, float] = field(default_factory=dict)


def fast_compiler() -> None:
    """Halves the time of a compilation without changing what it makes, which the baseline checks.

    The optimizer visits what it has settled already again and again, and every node's text is made for messages.
    """
    from vyper.codegen.ir_node import IRnode  # noqa: PLC0415 - slow to import, and not needed to list mutants
    from vyper.ir import optimizer  # noqa: PLC0415 - the same

    original = optimizer._optimize  # noqa: SLF001 - the compiler offers no other place
    # the operators whose operands it treats in their own way
    sensitive = {"iszero", "if", "assert"}

    def settled(node: Any, parent: Any) -> tuple[bool, Any]:
        key = parent.value if parent is not None and parent.value in sensitive else ""
        if key in node.__dict__.get("_settled", ()):
            return False, node
        changed, result = original(node, parent)
        if not changed:
            result.__dict__.setdefault("_settled", set()).add(key)
        return changed, result

    optimizer._optimize = settled  # noqa: SLF001 - as above
    IRnode.__repr__ = lambda _: ""


class Loop:
    """The plugin that runs mutants where pytest would run its tests."""

    def __init__(self, plan: Plan) -> None:
        """For one run."""
        self.plan = plan
        self.failed = ""
        self.kills: Counter[str] = Counter()
        self.timings: dict[str, float] = {}
        self.base: dict[str, Any] = {}

    def pytest_sessionstart(self) -> None:
        """No database, no shrinking (the first failure is enough), always the same examples."""
        from hypothesis import Phase, settings  # noqa: PLC0415 - pytest's plugin must be the first to import it

        phases = [Phase.explicit, Phase.generate]
        settings.register_profile("mutation", database=None, derandomize=True, deadline=None, phases=phases)
        settings.load_profile("mutation")
        fast_compiler()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        """Drop what would notice any change of code."""
        out = [i for i in items if any(part in i.name for part in LEFT_OUT_NAMES)]
        items[:] = [i for i in items if i not in out]
        config.hook.pytest_deselected(items=out)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        """Remember the first test that fails, and how long each takes."""
        self.timings[report.nodeid] = self.timings.get(report.nodeid, 0.0) + report.duration
        if report.failed and not self.failed:
            self.failed = report.nodeid
            if self.plan.verbose:
                sys.stderr.write(f"{report.longreprtext}\n")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: Any) -> bool:
        """The baseline, then every mutant in a process of its own."""
        plan = self.plan
        if session.testsfailed or session.shouldfail:
            raise session.Interrupted("the tests do not collect")
        self.base = self._compile(None)
        if _code(self.base) != _code(sys.modules["contracts_harness"].artifact(plan.contract)):
            raise session.Interrupted("the artifact is not that of the sources: run contracts/compile.py first")
        answer = _collect(self._fork(lambda: self._run_baseline(session)))
        if answer.get("status") != "survived":
            raise session.Interrupted(f"a test fails without any mutation: {answer.get('by')}")
        plan.durations = answer["durations"]
        limit = 30 + 6 * sum(plan.durations.values())
        waiting, running = deque(plan.mutants), {}
        end = time.monotonic() + plan.seconds
        while waiting or running:
            if time.monotonic() > end:
                waiting.clear()
            while waiting and len(running) < plan.jobs:
                mutant = waiting.popleft()
                order = self._order(session.items)
                child = self._fork(functools.partial(self._run_mutant, session, mutant, order))
                running[child[1]] = (mutant, child[0], time.monotonic())
            ready, _, _ = select.select(list(running), [], [], 1.0)
            for pipe, (mutant, pid, begun) in list(running.items()):
                late = time.monotonic() - begun > limit
                if late and pipe not in ready:
                    os.kill(pid, signal.SIGKILL)
                if late or pipe in ready:
                    del running[pipe]
                    answer = _collect((pid, pipe))
                    self._note(mutant, answer, "time limit" if late else "crash", time.monotonic() - begun)
        return True

    def _note(self, mutant: Mutant, answer: dict[str, Any], otherwise: str, seconds: float) -> None:
        outcome = Outcome(
            mutant, answer.get("status", "killed"), answer.get("by", "" if answer else otherwise), round(seconds, 2)
        )
        if outcome.status == "killed":
            self.kills[outcome.by] += 1
        self.plan.outcomes.append(outcome)
        if outcome.status == "survived" or outcome.by in ("crash", "time limit"):
            sys.stdout.write(f"{outcome.status.upper()} {outcome.by} {mutant}\n")
        if len(self.plan.outcomes) % 50 == 0:
            sys.stdout.write(f"... {len(self.plan.outcomes)} of {len(self.plan.mutants)}\n")
        sys.stdout.flush()

    def _order(self, items: Sequence[Any]) -> list[Any]:
        """The likeliest killers first, by what each killed so far for the time it takes."""
        durations = self.plan.durations
        return sorted(items, key=lambda i: -(self.kills[i.nodeid] + 0.2) / (durations.get(i.nodeid, 1.0) + 0.03))

    def _fork(self, work: Callable[[], dict[str, Any]]) -> tuple[int, int]:
        """Run something in a fork; (its process id, the pipe its answer comes from)."""
        sys.stdout.flush()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid:
            os.close(writer)
            return pid, reader
        answer: dict[str, Any] = {}
        try:
            os.close(reader)
            if not self.plan.verbose:
                quiet = os.open(os.devnull, os.O_WRONLY)
                os.dup2(quiet, 1)
                os.dup2(quiet, 2)
            answer = work()
        finally:
            os.write(writer, json.dumps(answer).encode())
            os._exit(0)

    def _compile(self, mutant: Mutant | None) -> dict[str, Any]:
        """The artifact, of the sources as they were at the start and with the mutant in them."""
        compiler = sys.modules["contracts_harness"].compiler()
        with tempfile.TemporaryDirectory() as folder:
            for name, text in self.plan.sources.items():
                target = Path(folder) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                changed = mutant.applied(text) if mutant and mutant.file == name else text
                target.write_text(changed, encoding="utf-8")
            compiler.CONTRACTS = Path(folder)
            try:
                if mutant is None:
                    return compiler.compile_source(self.plan.path, compiler.SOURCES[self.plan.path])
                return self.base | self._code_of(compiler, Path(folder))
            finally:
                compiler.CONTRACTS = ROOT / "contracts"

    def _code_of(self, compiler: Any, folder: Path) -> dict[str, str]:
        """The code alone, with the artifacts' settings: a third of the time of all that an artifact has."""
        # one of the RiskEngine's tests looks into its code
        formats = ["bytecode", "bytecode_runtime"] if self.plan.contract == "RiskEngine" else ["bytecode"]
        bundle = compiler.FilesystemInputBundle([folder])
        settings = compiler.Settings(optimize=compiler.SOURCES[self.plan.path], evm_version=compiler.EVM_VERSION)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = compiler.compile_from_file_input(
                bundle.load_file(Path(self.plan.path)), input_bundle=bundle, settings=settings, output_formats=formats
            )
        return {"bytecode": made["bytecode"]} | ({"runtime": made["bytecode_runtime"]} if formats[1:] else {})

    def _run_baseline(self, session: Any) -> dict[str, Any]:
        self._deploys(self.base)
        answer = self._run(session, session.items)
        return answer | {"durations": self.timings}

    def _run_mutant(self, session: Any, mutant: Mutant, order: list[Any]) -> dict[str, Any]:
        try:
            artifact = self._compile(mutant)
        except Exception as error:  # noqa: BLE001 - whatever the compiler says, this is no mutant
            return {"status": "none", "by": f"does not compile: {type(error).__name__}"}
        if _code(artifact) == _code(self.base):
            return {"status": "none", "by": "same code"}
        self._deploys(artifact)
        return self._run(session, order)

    def _run(self, session: Any, items: Sequence[Any]) -> dict[str, Any]:
        """Run tests until one fails."""
        for item, following in zip(items, [*items[1:], None], strict=True):
            session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.failed:
                return {"status": "killed", "by": self.failed.removeprefix("tests/contracts/")}
        return {"status": "survived"}

    def _deploys(self, built: dict[str, Any]) -> None:
        """Put an artifact where the tests look for theirs, and renew the chains that modules have made already."""
        harness = sys.modules["contracts_harness"]
        committed = harness.artifact

        def artifact(name: str) -> dict[str, Any]:
            return built if name == self.plan.contract else committed(name)

        replaced: list[tuple[Any, Any]] = [(committed, artifact)]
        if self.plan.contract == "RiskEngine" and "risk_harness" in sys.modules:
            replaced.append((sys.modules["risk_harness"].engine_artifact, lambda: built))
        harness.error_names.cache_clear()
        for module in list(sys.modules.values()):
            if Path(getattr(module, "__file__", None) or "/").parent != TESTS:
                continue
            for name, value in list(vars(module).items()):
                for old, new in replaced:
                    if value is old:
                        setattr(module, name, new)
        for module in list(sys.modules.values()):
            if Path(getattr(module, "__file__", None) or "/").parent == TESTS:
                for name, value in list(vars(module).items()):
                    if type(value).__name__ == "World":
                        setattr(module, name, type(value).make())


def _code(artifact: dict[str, Any]) -> str:
    """What is deployed, less the compiler's note behind it, which holds a hash of the sources."""
    code: str = artifact["bytecode"]
    return code[: len(code) - 2 * int(code[-4:], 16)]


def _collect(child: tuple[int, int]) -> dict[str, Any]:
    """A child's answer, and its end; an empty one where it died before it could answer."""
    pid, pipe = child
    with os.fdopen(pipe, "rb") as file:
        text = file.read()
    os.waitpid(pid, 0)
    return json.loads(text) if text else {}


def sources_of(contract: str) -> tuple[str, dict[str, str]]:
    """A contract's path, and all sources it is made of."""
    sys.path.insert(0, str(ROOT / "contracts"))
    import compile as compiler  # noqa: PLC0415 - the script beside the sources is called so

    sys.path.pop(0)
    path = next(path for path in compiler.SOURCES if Path(path).stem == contract)
    return path, compiler.imported(path)


def suite(contract: str) -> list[str]:
    """The files of the tests that are run against a contract's mutants."""
    names = SUITES.get(contract) or [
        path.name
        for path in sorted(TESTS.glob("test_*.py"))
        if path.name not in LEFT_OUT and path.name not in NOT_OF_THE_OTHERS
    ]
    return [str(TESTS / name) for name in names if (TESTS / name).is_file()]


def run(plan: Plan) -> int:
    """Run a plan; pytest's exit code."""
    options = ["-p", "no:cacheprovider", "-p", "no:xdist", "-q", "-s", "--no-header", "--rootdir", str(ROOT)]
    return int(pytest.main([*options, *suite(plan.contract)], plugins=[Loop(plan)]))


def summary(outcomes: Sequence[Outcome], total: int) -> dict[str, Any]:
    """The figures of a run."""
    count = Counter(o.status for o in outcomes)
    real = count["killed"] + count["survived"]
    return {
        "mutants": total,
        "run": len(outcomes),
        "no_mutant": count["none"],
        "killed": count["killed"],
        "survived": count["survived"],
        "killed_percent": round(100 * count["killed"] / real, 2) if real else None,
    }


def main() -> int:
    """List or run; 0 when all ran."""
    parser = argparse.ArgumentParser(description="Mutation testing of the contracts.")
    parser.add_argument("--contract", choices=CONTRACTS, default="FixBook", help="which contract, with its modules")
    parser.add_argument("--file", help="only mutants of this source, relative to contracts/")
    parser.add_argument("--list", action="store_true", help="print the mutants, run nothing")
    parser.add_argument("--sample", type=int, help="run that many, drawn by the seed")
    parser.add_argument("--seed", type=int, default=1, help="what draws the sample")
    parser.add_argument("--only", help="run these ids, separated by commas; one alone shows the tests' own report")
    parser.add_argument("--again", type=Path, help="run survivors of an earlier --json file anew (or --only)")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no mutant after so long")
    parser.add_argument("--json", type=Path, help="write all outcomes there")
    arguments = parser.parse_args()

    path, sources = sources_of(arguments.contract)
    chosen = [m for name in CONTRACTS[arguments.contract] for m in mutants(name, sources[name])]
    total = len(chosen)
    if arguments.file:
        chosen = [m for m in chosen if m.file == arguments.file]
    wanted = set(arguments.only.split(",")) if arguments.only else None
    earlier: list[Outcome] = []
    if arguments.again:
        old = json.loads(arguments.again.read_text())["outcomes"]
        wanted = wanted or {o["mutant"]["id"] for o in old if o["status"] == "survived"}
        earlier = [Outcome(Mutant(**o.pop("mutant")), **o) for o in old if o["mutant"]["id"] not in wanted]
    if wanted is not None:
        chosen = [m for m in chosen if m.id in wanted]
    if arguments.sample:
        # in the order drawn, so that a run cut short by --minutes is a sample too
        size = min(arguments.sample, len(chosen))
        chosen = random.Random(arguments.seed).sample(chosen, size)  # noqa: S311 - repeatable, not secret
    if arguments.list:
        sys.stdout.write("".join(f"{m}\n" for m in chosen) + f"{len(chosen)} of {total}\n")
        return 0

    verbose = wanted is not None and len(chosen) == 1
    plan = Plan(arguments.contract, path, chosen, arguments.jobs, verbose, sources, 60 * arguments.minutes)
    begun = time.monotonic()
    code = run(plan)
    if code:
        return code
    plan.outcomes += earlier
    figures = summary(plan.outcomes, total) | {"seconds": round(time.monotonic() - begun), "contract": plan.contract}
    sys.stdout.write(json.dumps(figures) + "\n")
    if arguments.json:
        found = {"figures": figures, "outcomes": [asdict(o) for o in plan.outcomes]}
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
