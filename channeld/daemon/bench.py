"""Benchmarks of the engine: two processes, real links, a real disk, the actors of the product; no chain.

Rules: what is measured is what a desk runs: PeerHub over loopback, SQLite with synchronous=FULL, the guarded signer,
the follower's judgement with margin at signed prices, events. Only the chain is a stand-in: its view is always fresh,
and the deposits that it would show are given. The machine's own bound is measured in the same run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from channeld.core import records, wire
from channeld.core.channel import fresh
from channeld.core.crypto import address_of, keccak256, sign_digest, verify
from channeld.core.eip712 import Domain, channel_id
from channeld.core.errors import ChanneldError, InternalError
from channeld.core.instruments import parse_instrument
from channeld.core.operations import Deposit, Leg, Operation, Trade, Transfer
from channeld.core.packages import DataPoint, sign_package
from channeld.core.terms import ZERO_FEED, Market, Oracle, Party, Terms
from channeld.core.wad import WAD
from channeld.daemon.actor import Actor
from channeld.daemon.metrics import Metrics
from channeld.daemon.prices import PriceBook
from channeld.daemon.services import Services
from channeld.daemon.signer import GuardedSigner
from channeld.daemon.tuning import tune
from channeld.desk.offers import Status, make_offer
from channeld.store import open_store
from channeld.transport.handshake import Identity
from channeld.transport.hub import PeerHub

if TYPE_CHECKING:
    from collections.abc import Mapping

    from channeld.core.channel import Exit
    from channeld.core.transition import Applied

UPDATES, TRADES = "updates", "trades"
FUNDS = 10**15
TRADES_PER_STATE = 128
SIGNED_PIECES = 2_000
FSYNC_WRITES = 200
_PRICE = 3_000 * WAD
_KEYS = (keccak256(b"channeld bench a"), keccak256(b"channeld bench b"))
_ORACLE_KEYS = tuple(sorted((keccak256(b"channeld bench oracle %d" % n) for n in range(3)), key=address_of))
_DOMAIN = Domain(31337, b"\xad" * 20)
_INSTRUMENT = parse_instrument("ETH-PERP")


def bench_terms() -> Terms:
    """Terms of the two desks of a benchmark: one market, collateral of 6 decimals."""
    scan, up, down = 11 * WAD // 100, 6 * WAD // 10, 35 * WAD // 100
    return Terms(
        a=Party(address_of(_KEYS[0]), b"\xa1" * 20),
        b=Party(address_of(_KEYS[1]), b"\xb2" * 20),
        collateral=b"\xcc" * 20,
        decimals=6,
        collateral_feed=ZERO_FEED,
        haircut=0,
        oracle=Oracle(tuple(map(address_of, _ORACLE_KEYS)), 2, 1, 1, 0, 60, 3601),
        markets=(Market(_INSTRUMENT.feed, scan, up, down, 2 * WAD // 100, WAD // 200),),
        initial_factor=13 * WAD // 10,
        closeout_penalty=3 * WAD // 100,
        challenge_period=86_400,
        cure_period=3_600,
        sequencer=0,
        salt=b"\x01" * 32,
    )


class _Clock:
    """The system's."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class _SignedPrices:
    """A package source in this process: one price, signed by all signers of the oracle."""

    async def packages(self, feed: bytes, t: int) -> list[bytes]:
        point = (DataPoint(feed, _PRICE // 10**10),)
        return [sign_package(key, t * 1000, point) for key in _ORACLE_KEYS]


@dataclass
class Desk:
    """One side of the benchmark."""

    side: int
    directory: Path
    store_url: str = ""
    channels: int = 1
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    actors: dict[bytes, Actor] = field(default_factory=dict)

    async def start(self, peer_url: str | None) -> None:
        """Open the store, begin the channels, listen or dial."""
        key = _KEYS[self.side]
        self.clock = _Clock()
        self.metrics = Metrics()
        self.store = await open_store(self._location())
        signer = GuardedSigner(key, self.store)
        peer = bench_terms().party(1 - self.side).signer
        self.hub = PeerHub(
            Identity(signer.address, secrets.token_bytes(32), signer.sign_plain),
            on_connected=self._connected,
            on_message=self._message,
            on_lost=self._lost,
        )
        services = Services(
            store=self.store,
            clock=self.clock,
            signer=signer,
            post=self._post,
            emit=self._emit,
            salt=lambda: secrets.token_bytes(16),
            exit_ready=_nothing,
            told=_told,
            agreed=_agreed,
            hold=lambda: "",
            fresh=_at_once,
            updated=self.metrics.update_seconds.observe,
            committing=self.metrics.committing,
            deposits=_deposits,
        )
        book = PriceBook(bench_terms().oracle, _SignedPrices(), _SignedPrices())
        for number in range(self.channels):
            await self._begin(replace(bench_terms(), salt=number.to_bytes(32, "big")), peer, services, book)
        self.actor = next(iter(self.actors.values()))
        self.hub.add_peer(peer, peer_url)
        await self.hub.start("127.0.0.1" if peer_url is None else None, 0)

    def _location(self) -> Path | str:
        """A file of this side, or a schema of its own on the server."""
        if not self.store_url:
            return self.directory / f"{self.side}.db"
        schema = f"bench_{self.directory.name[-8:]}_{self.side}".lower().replace("-", "_")
        return f"{self.store_url}{'&' if '?' in self.store_url else '?'}schema={schema}"

    async def _begin(self, terms: Terms, peer: bytes, services: Services, book: PriceBook) -> None:
        channel = channel_id(_DOMAIN, terms)
        record = records.ChannelRecord(
            channel,
            peer,
            self.side,
            records.encode_terms(terms),
            _DOMAIN.chain_id,
            _DOMAIN.adjudicator,
            "open",
            self.clock.now_ms(),
        )
        await self.store.commit([records.PutChannel(record)])
        actor = Actor(services, record, fresh(_DOMAIN, terms, channel, self.side), book)
        actor.deposits = (FUNDS, FUNDS)
        self.actors[channel] = actor

    async def stop(self) -> None:
        """End links, finish what began, close the store."""
        await self.hub.stop()
        for actor in self.actors.values():
            await actor.finish()
        await self.store.close()

    def _post(self, peer: bytes, message: wire.Message, packed: bytes) -> None:
        with contextlib.suppress(ChanneldError):
            self.hub.post(peer, packed or wire.pack(message))

    async def _emit(self, kind: str, channel: bytes | None = None, /, **data: object) -> None:
        if kind in {"alert", "batch_refused"}:
            sys.stderr.write(f"{kind}: {data}\n")
        event = records.AppendEvent(self.clock.now_ms(), kind, channel, json.dumps(data, default=str))
        await self.store.commit([event])

    async def _connected(self, peer: bytes) -> None:
        del peer
        for actor in self.actors.values():
            await actor.session(up=True)

    async def _message(self, peer: bytes, array: list[Any]) -> None:
        del peer
        message = wire.from_wire(array)
        await self.actors[message.channel].receive(message)  # type: ignore[attr-defined]
        if not self.ready.is_set() and all(a.effects.working.synced for a in self.actors.values()):
            self.ready.set()

    async def _lost(self, peer: bytes, reason: ChanneldError) -> None:
        del peer, reason
        for actor in self.actors.values():
            await actor.session(up=False)


def _told(kind: str, channel: bytes, data: Mapping[str, Any]) -> None:
    del kind, channel, data


def _agreed(channel: bytes, applied: Applied) -> None:
    del channel, applied


async def _nothing(channel: bytes, document: Exit) -> None:
    del channel, document


async def _at_once() -> None:
    return


async def _deposits() -> tuple[int, int]:
    return FUNDS, FUNDS


# ----------------------------------------------------------------------------------------------------- operations


def _payment(number: int) -> Operation:
    return Transfer(0, 1, number.to_bytes(8, "big"))


def _trade(number: int) -> Trade:
    size = WAD if number % 2 else -WAD
    return Trade(0, (Leg(_INSTRUMENT, size, _PRICE, 0, 0),), 0, number.to_bytes(16, "big"))


def _agree_to_trades(desk: Desk, count: int) -> None:
    """(follower) Agree to the trades beforehand: offers and their answers are not what is measured."""
    until = desk.clock.now_ms() + 3_600_000
    for number in range(count):
        offer = make_offer(_trade(number), number.to_bytes(16, "big"), until)
        desk.actor.offers.restore(type(offer)(offer.raw, ours=False, status=Status.AGREED))


def _offered(number: int) -> Operation:
    """(sequencer) The same trade as the follower's record has it."""
    return make_offer(_trade(number), number.to_bytes(16, "big"), 0).operation


# ----------------------------------------------------------------------------------------------------- the bound


def machine_bound() -> float:
    """States per second that signing once and verifying once would allow on one core of this machine."""
    key, digest = _KEYS[0], keccak256(b"bound")
    signer, took = address_of(key), []
    for number in range(SIGNED_PIECES):
        digest = keccak256(digest + number.to_bytes(8, "big"))
        began = time.perf_counter()
        verify(digest, sign_digest(key, digest), signer)
        took.append(time.perf_counter() - began)
    return 1 / statistics.fmean(sorted(took)[: SIGNED_PIECES * 9 // 10])


def measure_fsync(directory: Path) -> dict[str, float]:
    """Milliseconds of one write of 4 KiB and fdatasync, at the end of a file."""
    took = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(FSYNC_WRITES):
            began = time.perf_counter()
            os.write(file.fileno(), b"\0" * 4096)
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    took.sort()
    return {"p50_ms": round(took[len(took) // 2], 3), "p99_ms": round(took[len(took) * 99 // 100], 3)}


def resident_mb() -> float:
    """What this process has in memory now, MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def machine() -> dict[str, Any]:
    """What it ran on."""
    model = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return {
        "cpu": model or platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_1m": round(load, 2),
    }


# ----------------------------------------------------------------------------------------------------- the two sides


async def _follow(plan: dict[str, Any]) -> None:
    desk = Desk(1, Path(plan["directory"]), plan["store"], plan["channels"])
    await desk.start(None)
    if plan["kind"] == TRADES:
        _agree_to_trades(desk, plan["count"])
    sys.stdout.write(f"{desk.hub.port}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    sys.stdout.write(json.dumps({"resident_mb": resident_mb()}) + "\n")
    await desk.stop()


async def _lead(plan: dict[str, Any]) -> dict[str, Any]:
    desk = Desk(0, Path(plan["directory"]), plan["store"], plan["channels"])
    await desk.start(f"ws://127.0.0.1:{plan['port']}")
    async with asyncio.timeout(120):
        await desk.ready.wait()
    actor = desk.actor
    funded = [a.enqueue(Deposit(0, FUNDS, FUNDS)) for a in desk.actors.values()]
    for each in desk.actors.values():
        await each.pump()
    async with asyncio.timeout(120):
        await asyncio.gather(*funded)
    found: dict[str, Any] = {}
    if plan["kind"] == UPDATES:
        latencies = []
        for number in range(plan["singles"]):
            began = time.perf_counter()
            await actor.submit(_payment(number), 10)
            latencies.append((time.perf_counter() - began) * 1000)
        latencies = sorted(latencies) or [0.0]
        found["p50_ms"] = round(latencies[len(latencies) // 2], 3)
        found["p99_ms"] = round(latencies[len(latencies) * 99 // 100], 3)
        operations = [_payment(plan["singles"] + n) for n in range(plan["count"])]
    else:
        operations = [_offered(n) for n in range(plan["count"])]
        actor.most_operations = TRADES_PER_STATE
    first = actor.state.version
    spent, own = time.process_time(), time.thread_time()
    began = time.perf_counter()
    waiting = [actor.enqueue(operation, alone=plan["kind"] == UPDATES) for operation in operations]
    await actor.pump()
    async with asyncio.timeout(600):
        await asyncio.gather(*waiting)
    took = time.perf_counter() - began
    states = actor.state.version - first
    found["processor_us_per_state"] = round((time.process_time() - spent) * 1e6 / states, 1)
    found["of_it_event_loop_us"] = round((time.thread_time() - own) * 1e6 / states, 1)
    found |= {"states": states, "states_per_s": round(states / took, 1), "seconds": round(took, 3)}
    if plan["kind"] == TRADES:
        found["operations_per_s"] = round(plan["count"] / took, 1)
    found["resident_mb"] = resident_mb()
    await desk.stop()
    return found


def _run(work: Any) -> Any:  # noqa: ANN401 - a coroutine and its result
    import uvloop  # noqa: PLC0415 - not on every system

    return uvloop.run(work)


def worker(plan: dict[str, Any]) -> None:
    """One of the two processes; the sequencer prints its figures."""
    import structlog  # noqa: PLC0415 - only to quieten it

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    tune()
    work = _follow if plan["role"] == "follower" else _lead
    profile = plan.get("profile")
    if not profile:
        found = _run(work(plan))
    else:
        import cProfile  # noqa: PLC0415 - only where asked for

        profiler = cProfile.Profile(time.thread_time)
        found = profiler.runcall(_run, work(plan))
        profiler.dump_stats(f"{profile}.{plan['role']}")
    if found is not None:
        sys.stdout.write(json.dumps(found) + "\n")


def _start(plan: dict[str, Any]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "channeld.daemon.bench", json.dumps(plan)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ourselves


def bench(
    kind: str,
    count: int,
    singles: int,
    directory: Path | None = None,
    profile: str = "",
    store: str = "",
    channels: int = 1,
) -> dict[str, Any]:
    """Run a benchmark; its figures.

    Args:
        kind: "updates" (one TRANSFER per state) or "trades" (many TRADEs per state).
        count: operations sent pipelined.
        singles: operations sent one at a time, for the latency.
        directory: where the databases are put; a temporary directory here by default.
        profile: prefix of cProfile files, one per process; empty for none.
        store: URL of a PostgreSQL server; empty for SQLite files in the directory.
        channels: open in both daemons; all that is measured happens in the first.

    Raises:
        InternalError: one of the two processes failed.
    """
    with tempfile.TemporaryDirectory(prefix="channeld-bench-", dir=directory or Path.cwd()) as made:
        plan = {"kind": kind, "count": count, "singles": singles, "directory": made, "profile": profile}
        plan |= {"store": store, "channels": channels}
        follower = _start({**plan, "role": "follower"})
        leader = None
        try:
            port = (follower.stdout.readline() if follower.stdout else "").strip()
            if not port.isdigit():
                raise InternalError("the benchmark's follower did not start")
            leader = _start({**plan, "role": "sequencer", "port": int(port)})
            answer, _ = leader.communicate(timeout=900)
            if leader.returncode:
                raise InternalError("the benchmark's sequencer failed")
            told, _ = follower.communicate("\n", timeout=30)
        finally:
            for process in (leader, follower):
                if process is not None and process.poll() is None:
                    process.kill()
                    process.wait()
        found: dict[str, Any] = json.loads(answer.splitlines()[-1])
        found["resident_mb"] = max(found["resident_mb"], json.loads(told.splitlines()[-1])["resident_mb"])
        found["store"] = "PostgreSQL" if store else "SQLite, synchronous=FULL"
        bound = machine_bound()
        found["bound_per_s"] = round(bound, 1)
        found["ratio"] = round(found["states_per_s"] / bound, 3)
        found["fsync"] = measure_fsync(Path(made))
    found["machine"] = machine()
    return found


def bench_channels(channels: int, count: int, directory: Path | None = None, store: str = "") -> dict[str, Any]:
    """One channel at full speed, alone and then among many in the same two daemons; memory with all of them open.

    Raises:
        InternalError: one of the processes failed.
    """
    alone = bench(UPDATES, count, 0, directory, store=store)
    among = bench(UPDATES, count, 0, directory, store=store, channels=channels)
    return {
        "channels": channels,
        "states_per_s": among["states_per_s"],
        "alone_states_per_s": alone["states_per_s"],
        "of_speed_alone": round(among["states_per_s"] / alone["states_per_s"], 3),
        "resident_mb": among["resident_mb"],
        "alone_resident_mb": alone["resident_mb"],
        **{key: among[key] for key in ("store", "bound_per_s", "ratio", "fsync", "machine")},
    }


if __name__ == "__main__":
    worker(json.loads(sys.argv[1]))
