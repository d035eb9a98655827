"""Two daemons under load that are killed again and again, and the books that are compared afterwards.

Rules: the daemons are real processes (`channeld run`), killed by SIGKILL; the load comes in by the API, as a desk's own
programs would send it. Every operation carries a mark of its own, so that it can be counted in the journal. Databases
are read as they are on disk, past the daemons. Whatever is waited for has a condition and a deadline.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from channeld.cli.demo.timeline import Timeline
from channeld.cli.demo.trading import Day
from channeld.cli.demo.world import World
from channeld.cli.errors import RemoteError, ServiceError, UnreachableError
from channeld.cli.output import OUT
from channeld.cli.processes import answers, die_with_parent
from channeld.core import records
from channeld.core.crypto import verify
from channeld.core.eip712 import Domain, body_hash, state_digest
from channeld.core.journal import replay
from channeld.core.operations import Trade, Transfer, decode_batch
from channeld.daemon.requests import NotConnectedPeerError

HEAL_S = 45.0
CALL_S = 6.0
NOT_BEGUN = {NotConnectedPeerError.code}
INSTRUMENT = "ETH-PERP"
MARK_BYTES = 12


@dataclass
class Operations:
    """What was asked of the API, by each operation's mark: a version, a refusal, or no answer."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    asked: set[bytes] = field(default_factory=set)
    done: dict[bytes, int] = field(default_factory=dict)
    refused: dict[bytes, str] = field(default_factory=dict)
    # what callers were told instead of a result, by error code
    codes: Counter = field(default_factory=Counter)
    numbers: itertools.count = field(default_factory=itertools.count)
    moved: threading.Condition = field(default_factory=threading.Condition)

    def begin(self, letter):
        """A mark (12 ASCII characters) that no other operation has."""
        mark = f"<{letter}{next(self.numbers):09d}>".encode()
        with self.lock:
            self.asked.add(mark)
        return mark

    def answered(self, mark, version):
        with self.lock:
            self.done[mark] = version
        with self.moved:
            self.moved.notify_all()


class Load(threading.Thread):
    """One caller of one desk's API, who asks again and again until told to stop."""

    def __init__(self, all_of_it, desk, kind):
        super().__init__(name=f"{desk.name} {kind}", daemon=True)
        self.world, self.operations, self.stop = all_of_it.world, all_of_it.operations, all_of_it.stop
        self.desk, self.kind, self.running = desk, kind, all_of_it.running[desk.name]
        self.turn = 0
        self.error = None

    def run(self):
        try:
            while not self.stop.is_set():
                if not self.running.wait(0.2):
                    continue
                self.turn += 1
                try:
                    getattr(self, self.kind)()
                except UnreachableError:
                    self.operations.codes["no answer"] += 1
                    # the daemon is dead, or it died with our answer: it will be back
                    self.stop.wait(0.05)
                except RemoteError as error:
                    self.operations.codes[error.remote_code] += 1
                    self.stop.wait(0.05)
        except BaseException as error:
            self.error = error
            raise

    def transfer(self):
        transfer(self.world, self.desk, self.operations)

    def trade(self):
        """Buys and sells the perpetual in turn; the peer's policy agrees by itself."""
        mark = self.operations.begin("p")
        size = "0.01" if self.turn % 2 else "-0.01"
        leg = {"instrument": INSTRUMENT, "size": size, "price": "3000"}
        with refusals(self.operations, mark):
            told = self.desk.call(
                "private/trade",
                channel=self.world.channel,
                legs=[leg],
                reference=mark.decode(),
                wait_s=CALL_S / 2,
                timeout=CALL_S,
            )
            if told["status"] == "done":
                self.operations.answered(mark, told["version"])
            elif told["status"] == "rejected":
                self.operations.refused[mark] = told["reason"]

    def mark(self):
        """MARKs the book; ticks are ten seconds apart, so it asks now and then."""
        self.desk.call("private/mark", channel=self.world.channel, timeout=CALL_S * 2)
        self.stop.wait(2)


@contextlib.contextmanager
def refusals(operations, mark):
    """Note an operation that the daemon refused before it offered it to anybody."""
    try:
        yield
    except RemoteError as error:
        if error.remote_code in NOT_BEGUN:
            operations.refused[mark] = str(error)
        raise


def transfer(world, desk, operations):
    """One payment of a cent; its version."""
    mark = operations.begin("t")
    with refusals(operations, mark):
        told = desk.call("private/transfer", channel=world.channel, amount="0.01", memo=mark.decode(), timeout=CALL_S)
    operations.answered(mark, told["version"])
    return told["version"]


class Starter:
    """Starts the daemons of one desk, one after the other; see daemon_process.py."""

    def __init__(self, desk, directory):
        self.log = directory / f"{desk.name}.log"
        self.pid = 0
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("daemon_process.py")), str(desk.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env={**os.environ, "CHANNELD_PASSWORD": desk.password},
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one call of the kernel, no locks
            )

    def ask(self, line):
        self.process.stdin.write(line)
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def start(self):
        self.pid = int(self.ask(b"run.\n"))

    def kill(self, desk):
        """SIGKILL, at first to the daemon of `channeld run`, then to the one started here."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            assert self.ask(b"gone\n") == b"gone\n"
        else:
            desk.child.kill()
        self.pid = 0

    @property
    def alive(self):
        """Whether its daemon runs: nobody but `kill` should have ended it."""
        if not self.pid:
            return True
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(") ")[2][:1] != "Z"
        return False

    def end(self):
        """End the daemon and its starter."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


class KillWorld:
    """The world of a kill test."""

    def __init__(self, cast, directory):
        OUT.machine = True
        self.cast = cast
        self.world = World(cast, directory, "embedded")
        self.day = Day(self.world, Timeline(self.world.now_ms))
        self.operations = Operations()
        self.stop = threading.Event()
        self.loads = []
        # everything that either desk was ever seen to have signed: (desk, kind, version) -> digest and signature
        self.signed = {}
        self.journals = {"maker": {}, "taker": {}}
        self.starters = {}
        self.running = {desk.name: threading.Event() for desk in self.desks}

    @property
    def desks(self):
        return self.world.desks

    def begin(self):
        """Both daemons run, the channel is open and funded, both agree to trades by themselves."""
        self.day.begin()
        for desk, peer in zip(self.desks, reversed(self.desks), strict=True):
            desk.call("private/policy_set", peer=peer.name, auto_accept=True)
            self.running[desk.name].set()
            self.starters[desk.name] = Starter(desk, self.cast.directory)

    def begin_load(self):
        """Payments and trades from both sides, and marks from the sequencer, all at once."""
        kinds = [("transfer", 2), ("trade", 1)]
        callers = [(desk, kind) for desk in self.desks for kind, count in kinds for _ in range(count)]
        for desk, kind in [*callers, (self.world.maker, "mark")]:
            self.loads.append(Load(self, desk, kind))
        for load in self.loads:
            load.start()

    def end_load(self):
        self.stop.set()
        for load in self.loads:
            load.join(timeout=HEAL_S)
            assert not load.is_alive(), f"{load.name} hangs"
            assert load.error is None, f"{load.name}: {load.error!r}"

    def await_progress(self, count):
        """Wait until so many more operations have been acknowledged."""
        wanted = len(self.operations.done) + count
        with self.operations.moved:
            moved = self.operations.moved.wait_for(lambda: len(self.operations.done) >= wanted, HEAL_S)
        assert moved, f"no {count} operations were acknowledged within {HEAL_S} s: {self.shown()}"

    def kill(self, desks):
        """SIGKILL to some daemons at once; then they are started again."""
        for desk in desks:
            self.running[desk.name].clear()
        for desk in desks:
            self.starters[desk.name].kill(desk)
        for desk in desks:
            self.starters[desk.name].start()

    def up(self, desks):
        """Wait until daemons answer."""
        for desk in desks:
            self.until(answers(desk.base + "/healthz"), f"the start of {desk.name}")
            self.running[desk.name].set()

    def end(self):
        """End the daemons."""
        for starter in self.starters.values():
            starter.end()

    def heal(self):
        """Wait until both have agreed on new payments of either side, which needs everything to work again."""
        for desk in self.desks:
            self.until(lambda desk=desk: transfer(self.world, desk, self.operations), f"a payment of {desk.name}")

    def until(self, done, what):
        """Wait until `done` gives something true; a daemon that cannot be reached or refuses is asked again."""
        end, last = time.monotonic() + HEAL_S, None
        while True:
            try:
                found = done()
            except (RemoteError, UnreachableError) as error:
                last, found = error, None
            if found:
                return found
            for desk in self.desks:
                starter = self.starters[desk.name]
                assert starter.alive, f"{desk.name} ended by itself: {starter.log.read_text()[-2000:]}"
            assert time.monotonic() < end, f"{what} did not come within {HEAL_S} s: {last}; {self.shown()}"
            self.stop.wait(0.02)

    def same_version(self):
        """Without load: wait until both are at one version, with nothing on its way; that version."""

        def same():
            one, other = (self.world.see(desk) for desk in self.desks)
            return one["version"] == other["version"] and one["body"] == other["body"] and one["version"]

        return self.until(same, "one version at both")

    def shown(self):
        """How the desks stand, for a failure's message."""
        rows = []
        for desk in self.desks:
            try:
                rows.append((desk.name, desk.call("private/channels", timeout=CALL_S)))
            except (RemoteError, UnreachableError, ServiceError) as error:
                rows.append((desk.name, str(error)))
        return json.dumps(rows)[:2000]

    # ------------------------------------------------------------------------------------------------- the books

    @contextlib.contextmanager
    def book(self, desk):
        """A desk's database as it is on disk, read past its daemon."""
        with contextlib.closing(sqlite3.connect(desk.folder / "channeld.db", timeout=10)) as connection:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("BEGIN")
            yield connection

    def compare(self):
        """Read what is new in both databases, and hold it to all that was read before."""
        for desk in self.desks:
            journal = self.journals[desk.name]
            with self.book(desk) as connection:
                # the newest entries again and again, as these are what a crash could change
                since = max(journal, default=0) - 200
                batches = connection.execute("SELECT version, raw FROM batches WHERE version > ?", (since,)).fetchall()
                signed = connection.execute(
                    "SELECT kind, version, digest, signature FROM signed WHERE version > ?", (since,)
                ).fetchall()
            assert set(dict(batches)) >= {v for v in journal if v > since}, f"{desk.name} lost a version"
            for version, raw in batches:
                assert journal.setdefault(version, raw) == raw, f"{desk.name} changed its batch of version {version}"
            for kind, version, digest, signature in signed:
                before = self.signed.setdefault((desk.name, kind, version), (digest, signature))
                assert before == (digest, signature), f"{desk.name} signed {kind} {version} twice, differently"
        one, other = self.journals["maker"], self.journals["taker"]
        common = min(max(one, default=0), max(other, default=0))
        for version in sorted({*one, *other}):
            if version <= common:
                assert one.get(version) == other.get(version), f"the journals differ at version {version}"

    def audit(self, version):
        """At the end: everything, from version 0, with every signature checked. Gives what there was, to report."""
        self.journals = {"maker": {}, "taker": {}}
        self.compare()
        one, other = self.journals["maker"], self.journals["taker"]
        assert one == other, "the journals differ"
        assert max(one) == version, f"the journals end at {max(one)}, the desks are at {version}"
        for side, desk in enumerate(self.desks):
            self._audit_desk(desk, side, version)
        return self._count(one)

    def _audit_desk(self, desk, side, version):
        with self.book(desk) as connection:
            (channel, raw_terms, chain_id, adjudicator, status) = connection.execute(
                "SELECT channel, terms, chain_id, adjudicator, status FROM channels"
            ).fetchone()
            states = connection.execute(
                "SELECT version, body_hash, signature_a, signature_b FROM states ORDER BY version"
            ).fetchall()
            events = connection.execute("SELECT kind, data FROM events").fetchall()
        terms, domain = records.decode_terms(raw_terms), Domain(chain_id, adjudicator)
        assert status == "open"
        assert not [kind for kind, _ in events if kind.startswith(("dispute", "settle"))]
        alerts = [json.loads(data) for kind, data in events if kind == "alert"]
        assert not [alert for alert in alerts if alert.get("severity") == "critical"]
        state = replay(terms, channel, sorted(self.journals[desk.name].items()))
        assert (state.version, body_hash(state.body)) == (version, states[-1][1]), f"{desk.name}: the replay differs"
        versions, journaled = [row[0] for row in states], sorted(self.journals[desk.name])
        # Of proposals that were answered while a session was lost, the exchange shows the last with both signatures:
        # the sequencer holds its own on the others. The follower, who signs second, holds both on every state.
        covered = sorted(set(journaled) - set(versions))
        assert set(versions) <= set(journaled)
        assert not covered or side == terms.sequencer, f"{desk.name} lacks the states {covered}"
        assert all((desk.name, "state", version) in self.signed for version in covered)
        assert versions[-1] == journaled[-1]
        for number, hashed, *signatures in states:
            digest = state_digest(domain, channel, number, hashed)
            for party, signature in zip((terms.a, terms.b), signatures, strict=True):
                verify(digest, signature, party.signer)
            # what both hold signed must be what the guard's record says we signed, and nothing else
            assert self.signed.get((desk.name, "state", number)) == (digest, signatures[side])

    def _count(self, journal):
        operations, found = self.operations, {}
        kinds = Counter()
        for version, raw in journal.items():
            for operation in decode_batch(raw).operations:
                kinds[type(operation).__name__] += 1
                if isinstance(operation, Transfer | Trade):
                    note = operation.memo if isinstance(operation, Transfer) else operation.reference
                    found.setdefault(note[-MARK_BYTES:], []).append(version)
        twice = {mark: versions for mark, versions in found.items() if len(versions) > 1}
        assert not twice, f"more than once in the journal: {twice}"
        wrong = {m: (v, found.get(m)) for m, v in operations.done.items() if found.get(m) != [v]}
        assert not wrong, f"acknowledged at a version, and not there: {wrong}"
        assert not found.keys() - operations.asked, "operations that nobody asked for"
        undone = {m: operations.refused[m] for m in operations.refused.keys() & found.keys()}
        assert not undone, f"refused, and done all the same: {undone}"
        lost = operations.asked - operations.done.keys() - operations.refused.keys()
        return {
            "versions": len(journal),
            "operations": sum(kinds.values()),
            **kinds,
            "acknowledged": len(operations.done),
            "refused": len(operations.refused),
            "answers_lost": len(lost),
            "answers_lost_and_done": len(lost & found.keys()),
            "errors": operations.codes,
            "signatures_compared": len(self.signed),
        }


def setting(name, default):
    """An integer of the environment."""
    return int(os.environ.get(name) or default)
