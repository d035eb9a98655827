"""Benchmark of quotes: a taker asks two makers, takes the best, and waits until the trade is co-signed and durable.

Rules: three processes over loopback, each with its own link, database and actors, as a desk runs them; the makers quote
by a quoter that values and checks margin as any would. A round is: the request, two firm quotes, each durable before it
is sent, the taking, durable with both signatures, and the TRADE in a state that both have signed. The taker's database
has it when the round ends; the maker's had it before it answered, or has as the sequencer by the acceptance. Only the
chain is a stand-in, as in bench.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from channeld.core import records, wire
from channeld.core.channel import fresh
from channeld.core.crypto import address_of, keccak256
from channeld.core.eip712 import channel_id
from channeld.core.errors import ChanneldError, InternalError
from channeld.core.operations import Deposit
from channeld.core.terms import Party
from channeld.core.wad import WAD
from channeld.daemon import bench
from channeld.daemon.actor import Actor
from channeld.daemon.metrics import Metrics
from channeld.daemon.prices import PriceBook
from channeld.daemon.rfq import RfqDesk, TwoWay
from channeld.daemon.services import Services
from channeld.daemon.signer import GuardedSigner
from channeld.desk.combos import parse_combo
from channeld.desk.quotes import Way
from channeld.store import open_store
from channeld.transport.handshake import Identity
from channeld.transport.hub import PeerHub

if TYPE_CHECKING:
    from channeld.core.terms import Terms
    from channeld.core.transition import Applied
    from channeld.daemon.node import Node
    from channeld.desk.quotes import QuoteRequest

MAKERS = 2
LOOK_AGAIN_S = 0.02
_TAKER = keccak256(b"channeld bench rfq taker")
_MAKERS = tuple(keccak256(b"channeld bench rfq maker %d" % n) for n in range(MAKERS))


def _terms(maker: int) -> Terms:
    """The maker is a, and orders."""
    a, b = address_of(_MAKERS[maker]), address_of(_TAKER)
    return replace(bench.bench_terms(), a=Party(a, b"\xa1" * 20), b=Party(b, b"\xb2" * 20))


class _Quoter:
    """Quotes a spread around the price that the bench's oracle signs; each maker its own."""

    def __init__(self, half: int) -> None:
        self._half = half

    async def quote(self, actor: Actor, request: QuoteRequest) -> TwoWay:
        now = actor.services.clock.now_ms()
        prices = await actor.book.prices(actor.channel.terms, actor.channel.tip.body, now)
        middle = prices.spots[request.combo.legs[0].instrument.feed]
        return TwoWay(middle - self._half, middle + self._half, request.size)


class _Host:
    """A desk without a chain, with what quotes need of a node."""

    def __init__(self, key: bytes, directory: Path, name: str) -> None:
        self._key, self._directory, self._name = key, directory, name
        self.actors: dict[bytes, Actor] = {}
        self.clock = bench._Clock()  # noqa: SLF001 - the other half of these benchmarks
        self.metrics = Metrics()
        self.rfq = RfqDesk(cast("Node", self))
        self._news = asyncio.Event()

    async def news(self) -> None:
        """Wait for the next message of a peer; not for long, since what it leads to is durable a moment later."""
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), LOOK_AGAIN_S)

    def name(self, peer: bytes) -> str:
        return peer.hex()

    async def start(self, makers: tuple[int, ...], *, listen: bool, ports: tuple[int, ...] = ()) -> None:
        self.store = await open_store(self._directory / f"{self._name}.db")
        self.signer = GuardedSigner(self._key, self.store)
        self.hub = PeerHub(
            Identity(self.signer.address, secrets.token_bytes(32), self.signer.sign_plain),
            on_connected=self._connected,
            on_message=self._message,
            on_lost=self._lost,
        )
        for maker in makers:
            await self._channel(_terms(maker))
        for number, actor in enumerate(self.actors.values()):
            self.hub.add_peer(actor.peer, f"ws://127.0.0.1:{ports[number]}" if ports else None)
        await self.hub.start("127.0.0.1" if listen else None, 0)

    async def _channel(self, terms: Terms) -> None:
        domain = bench._DOMAIN  # noqa: SLF001 - the other half of these benchmarks
        channel = channel_id(domain, terms)
        side = 0 if terms.a.signer == self.signer.address else 1
        peer, raw = terms.party(1 - side).signer, records.encode_terms(terms)
        record = records.ChannelRecord(
            channel, peer, side, raw, domain.chain_id, domain.adjudicator, "open", self.clock.now_ms()
        )
        await self.store.commit([records.PutChannel(record)])
        services = Services(
            store=self.store,
            clock=self.clock,
            signer=self.signer,
            post=self.post,
            emit=self.emit,
            salt=lambda: secrets.token_bytes(16),
            exit_ready=bench._nothing,  # noqa: SLF001 - as above
            told=bench._told,  # noqa: SLF001 - as above
            agreed=self._agreed,
            hold=lambda: "",
            fresh=bench._at_once,  # noqa: SLF001 - as above
            updated=self.metrics.update_seconds.observe,
            committing=self.metrics.committing,
            deposits=bench._deposits,  # noqa: SLF001 - as above
        )
        signed = bench._SignedPrices()  # noqa: SLF001 - as above
        actor = Actor(services, record, fresh(domain, terms, channel, side), PriceBook(terms.oracle, signed, signed))
        actor.deposits = (bench.FUNDS, bench.FUNDS)
        self.actors[channel] = actor

    async def send(self, peer: bytes, message: wire.Message) -> None:
        self.post(peer, message, b"")

    def post(self, peer: bytes, message: wire.Message, packed: bytes) -> None:
        with contextlib.suppress(ChanneldError):
            self.hub.post(peer, packed or wire.pack(message))

    async def emit(self, kind: str, channel: bytes | None = None, /, **data: object) -> None:
        if kind in {"alert", "batch_refused", "own_quote_refused", "quote_refused", "rfq_received"}:
            sys.stderr.write(f"{kind}: {data}\n")
        event = records.AppendEvent(self.clock.now_ms(), kind, channel, json.dumps(data, default=str))
        await self.store.commit([event])

    def _agreed(self, channel: bytes, applied: Applied) -> None:
        self.actors[channel].tasks.start(self.rfq.agreed(channel, applied))

    def _of(self, peer: bytes) -> Actor:
        return next(actor for actor in self.actors.values() if actor.peer == peer)

    async def _connected(self, peer: bytes) -> None:
        await self._of(peer).session(up=True)

    async def _message(self, peer: bytes, array: list[Any]) -> None:
        actor, message = self._of(peer), wire.from_wire(array)
        if isinstance(message, wire.OfferReply):
            await actor.offer_answered(message)
        elif isinstance(message, wire.RequestQuote | wire.GiveQuote | wire.TakeQuote | wire.PassQuote):
            await self.rfq.route(actor, message)
        else:
            await actor.receive(message)
        self._news.set()

    async def _lost(self, peer: bytes, reason: ChanneldError) -> None:
        del reason
        await self._of(peer).session(up=False)

    async def stop(self) -> None:
        await self.hub.stop()
        await self.rfq.stop()
        for actor in self.actors.values():
            await actor.finish()
        await self.store.close()


async def _make(plan: dict[str, Any]) -> None:
    maker = plan["maker"]
    host = _Host(_MAKERS[maker], Path(plan["directory"]), f"maker{maker}")
    host.rfq.quoter = _Quoter((maker + 1) * WAD)
    await host.start((maker,), listen=True)
    sys.stdout.write(f"{host.hub.port}\n")
    sys.stdout.flush()
    (actor,) = host.actors.values()
    async with asyncio.timeout(60):
        while not actor.channel.synced:
            await host.news()
    await actor.submit(Deposit(0, bench.FUNDS, bench.FUNDS), 20)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    await host.stop()


async def _ask(plan: dict[str, Any]) -> dict[str, Any]:
    host = _Host(_TAKER, Path(plan["directory"]), "taker")
    await host.start(tuple(range(MAKERS)), listen=False, ports=tuple(plan["ports"]))
    async with asyncio.timeout(60):
        while any(actor.state.version < 1 for actor in host.actors.values()):
            await host.news()
    combo = parse_combo("ETH-PERP")
    latencies: list[float] = []
    for number in range(plan["count"] + plan["warm"]):
        began = time.perf_counter()
        await _round(host, combo, buys=number % 2 == 0)
        if number >= plan["warm"]:
            latencies.append((time.perf_counter() - began) * 1000)
    trades = sum(actor.state.version - 1 for actor in host.actors.values())
    await host.stop()
    latencies.sort()
    return {
        "rfqs": plan["count"],
        "trades": trades,
        "p50_ms": round(latencies[len(latencies) // 2], 3),
        "p99_ms": round(latencies[len(latencies) * 99 // 100], 3),
        "mean_ms": round(sum(latencies) / len(latencies), 3),
    }


async def _round(host: _Host, combo: Any, *, buys: bool) -> None:  # noqa: ANN401 - a Combo
    until = host.clock.now_ms() + 60_000
    way = Way.BUY if buys else Way.SELL
    ours = await host.rfq.ask(combo, WAD, way, list(host.actors.values()), until, all_or_none=True)
    async with asyncio.timeout(10):
        while ours.waiting:
            ours.news.clear()
            await ours.news.wait()
        (best,) = host.rfq.best(ours, buys=buys)[:1]
        await (await host.rfq.take(best))


def worker(plan: dict[str, Any]) -> None:
    """One of the three processes; the taker prints its figures."""
    import structlog  # noqa: PLC0415 - only to quieten it

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    found = bench._run(_make(plan) if plan["role"] == "maker" else _ask(plan))  # noqa: SLF001 - as above
    if found is not None:
        sys.stdout.write(json.dumps(found) + "\n")


def _start(plan: dict[str, Any]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "channeld.daemon.rfq_bench", json.dumps(plan)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ourselves


def bench_rfq(count: int, directory: Path | None = None) -> dict[str, Any]:
    """Measure RFQs; the figures. The bound is what one signature and verification cost, four of each a round.

    Raises:
        InternalError: one of the processes failed.
    """
    with tempfile.TemporaryDirectory(prefix="channeld-bench-", dir=directory or Path.cwd()) as made:
        plan = {"directory": made, "count": count, "warm": min(50, count)}
        processes = [_start({**plan, "role": "maker", "maker": n}) for n in range(MAKERS)]
        try:
            ports = [int((p.stdout.readline() if p.stdout else "").strip() or 0) for p in processes]
            if not all(ports):
                raise InternalError("a maker of the benchmark did not start")
            taker = _start({**plan, "role": "taker", "ports": ports})
            processes.append(taker)
            answer, _ = taker.communicate(timeout=900)
            if taker.returncode:
                raise InternalError("the benchmark's taker failed")
            for process in processes[:MAKERS]:
                process.communicate("\n", timeout=30)
        finally:
            for process in processes:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        found: dict[str, Any] = json.loads(answer)
        bound = bench.machine_bound() / 4
        return {
            **found,
            "bound_per_s": round(bound, 1),
            "ratio": round(1000 / found["mean_ms"] / bound, 4),
            "fsync": bench.measure_fsync(Path(made)),
            "machine": bench.machine(),
        }


if __name__ == "__main__":
    worker(json.loads(sys.argv[1]))
