# noqa: INP001 - a script, no package
# ruff: noqa: ANN401 - pytest's and the compiler's objects have no types to name here
"""Mutation testing of the contracts: how many small wrong changes of their sources do the tests notice?

    python scripts/mutate_contracts.py --list --contract FixBook          the mutants
    nice python scripts/mutate_contracts.py --contract FixBook --jobs 2 --json fixbook.json    run them all
    (the same) --resume                                                   go on where that was stopped
    python scripts/mutate_contracts.py --sample 300 --seed 1 --json results.json
    python scripts/mutate_contracts.py --only 1a2b3c4d                    one, with the tests' own report
    python scripts/mutate_contracts.py --sample 40 --check-compiler       is the quick compiler the plain one?

Rules: the working tree stays as it is. pytest collects the tests once and runs them unmutated; every mutant is a fork
of that process, which compiles what the mutant changes (scripts/incremental_vyper.py), puts the code in the place of
the artifact that the tests deploy, and runs the tests until one fails, those first that killed others in the same
function. A mutant that does not compile, or compiles to the code it was, is no mutant; one that compiles to the code
of another shares its fate. One that outlives its time, counted in the processor's seconds, is killed: it loops. Tests
that would notice any change of code whatever it does (gas figures, committed artifacts) take no part, and neither
does one that reads the sources. docs/mutation.md has the figures.
"""

from __future__ import annotations

import argparse
import functools
import gc
import hashlib
import json
import math
import os
import random
import resource
import select
import signal
import sys
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cbor2
import pytest
from contract_mutants import Mutant, mutants
from incremental_vyper import Incremental, Refused, Whole, bare

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
    code: str = ""
    plainly: bool = False


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
    save: Callable[[], None] = lambda: None


class Loop:
    """The plugin that runs mutants where pytest would run its tests."""

    def __init__(self, plan: Plan) -> None:
        """For one run."""
        self.plan = plan
        self.failed = ""
        # by test, and by the mutant's file and function and test
        self.kills: Counter[str] = Counter()
        self.kills_near: Counter[tuple[str, str, str]] = Counter()
        self.timings: dict[str, float] = {}
        self.base: dict[str, Any] = {}
        self.incremental: Any = None
        self.plainly = False
        # seconds of processor time that a mutant has, and a tenth of what it has by the clock
        self.limit = 0
        # what became of a mutant, by a hash of its code
        self.known: dict[str, Outcome] = {}

    def pytest_sessionstart(self) -> None:
        """No database, no shrinking (the first failure is enough), always the same examples."""
        from hypothesis import Phase, settings  # noqa: PLC0415 - pytest's plugin must be the first to import it

        phases = [Phase.explicit, Phase.generate]
        settings.register_profile("mutation", database=None, derandomize=True, deadline=None, phases=phases)
        settings.load_profile("mutation")

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
        self.base = sys.modules["contracts_harness"].artifact(plan.contract)
        self.incremental = compiled(plan)
        if bare(self.base["bytecode"]) != bare(self.incremental.code):
            raise session.Interrupted("the artifact is not that of the sources: run contracts/compile.py first")
        self._baseline(session)
        self.limit = 30 + math.ceil(6 * sum(plan.durations.values()))
        for outcome in plan.outcomes:
            self._learn(outcome)
        waiting, running = deque(plan.mutants), {}
        end = time.monotonic() + plan.seconds
        gc.collect()
        gc.freeze()
        while waiting or running:
            if time.monotonic() > end:
                waiting.clear()
            while waiting and len(running) < plan.jobs:
                mutant = waiting.popleft()
                order = self._order(session.items, mutant)
                child = self._fork(functools.partial(self._run_mutant, session, mutant, order))
                running[child[1]] = (mutant, child[0], time.monotonic())
            ready, _, _ = select.select(list(running), [], [], 1.0)
            for pipe, (mutant, pid, begun) in list(running.items()):
                late = time.monotonic() - begun > 10 * self.limit
                if late and pipe not in ready:
                    os.kill(pid, signal.SIGKILL)
                if late or pipe in ready:
                    del running[pipe]
                    answer = _collect((pid, pipe))
                    self._note(mutant, answer, time.monotonic() - begun)
        return True

    def _baseline(self, session: Any) -> None:
        """All tests must pass, here and then in a fork; what they cost there is what they cost a mutant.

        Here first, so that every fork starts with what the tests make once (other contracts compiled, artifacts read).
        """
        run = functools.partial(self._run_baseline, session)
        works = [run, lambda: _collect(self._fork(run))]
        # a run that is resumed has seen already that forks do as their parent
        for work in works[:1] if self.plan.outcomes else works:
            self.timings = {}
            answer = work()
            if answer.get("status") != "survived":
                raise session.Interrupted(f"a test fails without any mutation: {answer.get('by')}")
        self.plan.durations = self.plan.durations or answer["durations"]

    def _learn(self, outcome: Outcome) -> None:
        """Count a kill for the order of tests to come; remember the code."""
        if outcome.status == "killed":
            self.kills[outcome.by] += 1
            self.kills_near[outcome.mutant.file, outcome.mutant.function, outcome.by] += 1
        if outcome.code and outcome.by != "crash":
            self.known.setdefault(outcome.code, outcome)

    def _note(self, mutant: Mutant, answer: dict[str, Any], seconds: float) -> None:
        found = (answer["status"], answer.get("by", ""), round(seconds, 2), answer.get("code", ""))
        outcome = Outcome(mutant, *found, answer.get("plainly", False))
        self._learn(outcome)
        self.plan.outcomes.append(outcome)
        if len(self.plan.outcomes) % 10 == 0:
            self.plan.save()
        if outcome.status == "survived" or outcome.by in ("crash", "time limit"):
            sys.stdout.write(f"{outcome.status.upper()} {outcome.by} {mutant}\n")
        if len(self.plan.outcomes) % 50 == 0:
            sys.stdout.write(f"... {len(self.plan.outcomes)} of {len(self.plan.mutants)}\n")
        sys.stdout.flush()

    def _order(self, items: Sequence[Any], mutant: Mutant) -> list[Any]:
        """The likeliest killers first, by what each killed so far, here above all, for the time it takes."""
        durations = self.plan.durations

        def worth(item: Any) -> float:
            name = item.nodeid.removeprefix("tests/contracts/")
            near = self.kills_near[mutant.file, mutant.function, name]
            return (20 * near + self.kills[name] + 0.2) / (durations.get(item.nodeid, 1.0) + 0.03)

        return sorted(items, key=worth, reverse=True)

    def _fork(self, work: Callable[[], dict[str, Any]]) -> tuple[int, int]:
        """Run something in a fork; (its process id, the pipe its answer comes from)."""
        sys.stdout.flush()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid:
            os.close(writer)
            return pid, reader
        answer: dict[str, Any] = {"status": "killed", "by": "crash"}
        gc.disable()  # a mutant's life is short
        if self.limit:
            resource.setrlimit(resource.RLIMIT_CPU, (self.limit, self.limit + 5))
        try:
            os.close(reader)
            if not self.plan.verbose:
                quiet = os.open(os.devnull, os.O_WRONLY)
                os.dup2(quiet, 1)
                os.dup2(quiet, 2)
            answer = work() | {"plainly": self.plainly}
        finally:
            try:
                os.write(writer, json.dumps(answer).encode())
            finally:
                os._exit(0)

    def _compiled(self, mutant: Mutant) -> dict[str, Any]:
        """The artifact with the mutant's code in it."""
        try:
            code = self.incremental.mutant(mutant)
        except Whole:
            self.plainly = True
            code = self.incremental.plain(mutant)
        # one of the RiskEngine's tests looks into its code, which follows the same constructor here
        start = self.base["bytecode"].index(self.base["runtime"].removeprefix("0x"))
        end = start + 2 * cbor2.loads(bytes.fromhex(code[-2 * int(code[-4:], 16) : -4]))[1]
        return self.base | {"bytecode": code, "runtime": "0x" + code[start:end]}

    def _run_baseline(self, session: Any) -> dict[str, Any]:
        self._deploys(self.base)
        answer = self._run(session, session.items)
        return answer | {"durations": self.timings}

    def _run_mutant(self, session: Any, mutant: Mutant, order: list[Any]) -> dict[str, Any]:
        try:
            artifact = self._compiled(mutant)
        except Refused as error:
            return {"status": "none", "by": f"does not compile: {error}"}
        except Exception as error:  # noqa: BLE001 - whatever the compiler says, this is no mutant
            return {"status": "none", "by": f"does not compile: {type(error).__name__}"}
        text = bare(artifact["bytecode"])
        if text == bare(self.base["bytecode"]):
            return {"status": "none", "by": "same code"}
        code = hashlib.sha256(text.encode()).hexdigest()[:16]
        if code in self.known:
            known = self.known[code]
            return {"status": known.status, "by": known.by, "code": code}
        self._deploys(artifact)
        return self._run(session, order) | {"code": code}

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


def compiled(plan: Plan) -> Any:
    """A plan's contract, ready to compile mutants of it."""
    import compile as compiler  # noqa: PLC0415 - the script beside the sources is called so

    return Incremental(plan.path, plan.sources, compiler.SOURCES[plan.path], compiler.EVM_VERSION)


def check_compiler(plan: Plan) -> int:
    """Compile mutants both ways, each in a fork; 1 if any differs. No test runs."""
    incremental = compiled(plan)
    count: Counter[str] = Counter()
    for mutant in plan.mutants:
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            os._exit(_compare(incremental, mutant))
        what = ("same", "left to the compiler", "DIFFERENT")[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]
        count[what] += 1
        if what == "DIFFERENT":
            sys.stdout.write(f"DIFFERENT {mutant}\n")
    sys.stdout.write(json.dumps({"contract": plan.contract} | count) + "\n")
    return 1 if count["DIFFERENT"] else 0


def _compare(incremental: Incremental, mutant: Mutant) -> int:
    try:
        quick = incremental.mutant(mutant)
    except Whole:
        return 1
    except Refused:
        quick = ""
    try:
        return 0 if bare(quick) == bare(incremental.plain(mutant)) else 2
    except Exception:  # noqa: BLE001 - whatever it is that the compiler says
        return 2 if quick else 0


def _collect(child: tuple[int, int]) -> dict[str, Any]:
    """A child's answer, and its end: where it died before it could answer, what it died of."""
    pid, pipe = child
    with os.fdopen(pipe, "rb") as file:
        text = file.read()
    _, status = os.waitpid(pid, 0)
    if text:
        answer: dict[str, Any] = json.loads(text)
        return answer
    late = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
    return {"status": "killed", "by": "time limit" if late else "crash"}


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
    # reports are seldom read here
    options += [] if plan.verbose else ["--tb=no"]
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


def options() -> argparse.Namespace:
    """What the command line says."""
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
    parser.add_argument("--json", type=Path, help="write all outcomes there, as they come")
    parser.add_argument(
        "--check-compiler", action="store_true", help="only compare the quick compiler with the plain one"
    )
    parser.add_argument("--resume", action="store_true", help="go on where an earlier run stopped that wrote --json")
    return parser.parse_args()


def main() -> int:
    """List or run; 0 when all ran."""
    arguments = options()
    path, sources = sources_of(arguments.contract)
    chosen = [m for name in CONTRACTS[arguments.contract] for m in mutants(name, sources[name])]
    total = len(chosen)
    if arguments.file:
        chosen = [m for m in chosen if m.file == arguments.file]
    wanted = set(arguments.only.split(",")) if arguments.only else None
    earlier: list[Outcome] = []
    durations: dict[str, float] = {}
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

    if arguments.resume and arguments.json.is_file():
        written = json.loads(arguments.json.read_text())
        old, durations = written["outcomes"], written.get("durations", {})
        texts = {m.id: m for m in chosen}
        earlier += [Outcome(**(o | {"mutant": texts[o["mutant"]["id"]]})) for o in old if o["mutant"]["id"] in texts]
        ran = {o.mutant.id for o in earlier}
        chosen = [m for m in chosen if m.id not in ran]

    verbose = wanted is not None and len(chosen) == 1 and not arguments.resume
    plan = Plan(arguments.contract, path, chosen, arguments.jobs, verbose, sources, 60 * arguments.minutes, earlier)
    plan.durations = durations
    if arguments.check_compiler:
        return check_compiler(plan)
    begun = time.monotonic()

    def save() -> dict[str, Any]:
        spent = {"seconds": round(time.monotonic() - begun), "contract": plan.contract}
        figures = summary(plan.outcomes, total) | spent
        if arguments.json:
            found = {"figures": figures, "durations": plan.durations, "outcomes": [asdict(o) for o in plan.outcomes]}
            new = arguments.json.with_suffix(".new")
            new.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            new.replace(arguments.json)
        return figures

    plan.save = save
    code = run(plan)
    if code:
        return code
    sys.stdout.write(json.dumps(save()) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
