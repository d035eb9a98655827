"""Benchmarks of the aggregated book and the order machine: one process, no sockets, no disk.

Rules: what is measured is what a desk runs for every streamed quote and every order. An update is counted with the best
price of its side read after it, since a quote that nobody can see yet is not applied. A match is one order that is
placed, swept across the book, and told of its fills, with its events packed as they are journaled; the disk is the
journal's own limit and is measured by `channeld bench updates`. The bound is a dictionary store of the same keys.
"""

from __future__ import annotations

import random
import time
from itertools import count
from pathlib import Path
from typing import Any, Final

from channeld.core.instruments import parse_instrument
from channeld.core.wad import WAD
from channeld.daemon.bench import machine, measure_fsync
from channeld.desk.aggregated_book import AggregatedBook, Levels
from channeld.desk.order_machine import Blotter
from channeld.desk.order_types import OrderSpec, Routed, Side, pack_events

PEERS: Final = 8
INSTRUMENTS: Final = 100
LEVELS: Final = 3
SIZE: Final = 50 * WAD
_FOREVER: Final = 1 << 60


def _quotes(number: int) -> list[tuple[bytes, int, Levels, Levels]]:
    """Markets of three levels around a wandering middle: channel, instrument's number, bids, asks."""
    rng = random.Random(6)  # noqa: S311 - prices of a benchmark
    middles = [3_000 + 10 * n for n in range(INSTRUMENTS)]
    found = []
    for _ in range(number):
        peer, which = rng.randrange(PEERS), rng.randrange(INSTRUMENTS)
        middles[which] += rng.randint(-2, 2)
        middle, half = middles[which], rng.randint(1, 3)
        bids = tuple(((middle - half - n) * WAD, SIZE) for n in range(LEVELS))
        asks = tuple(((middle + half + n) * WAD, SIZE) for n in range(LEVELS))
        found.append((bytes([peer]) * 32, which, bids, asks))
    return found


def bench_book(updates: int, orders: int) -> dict[str, Any]:
    """Quote updates and order matches per second; the figures."""
    instruments = [parse_instrument(f"ETH-27DEC30-{1_000 + 10 * n}-C") for n in range(INSTRUMENTS)]
    book, quotes = AggregatedBook(), _quotes(updates)
    for peer in range(PEERS):
        for instrument in instruments:
            book.set_capacity(bytes([peer]) * 32, instrument, 10**6 * WAD, 10**6 * WAD)
    began = time.perf_counter()
    for sequence, (channel, which, bids, asks) in enumerate(quotes):
        instrument = instruments[which]
        book.update(channel, instrument, sequence + 1, bids, asks, _FOREVER)
        book.best(instrument, 1 if sequence % 2 else -1, 0)
    took = time.perf_counter() - began
    plain: dict[tuple[bytes, int], Any] = {}
    began = time.perf_counter()
    for channel, which, bids, asks in quotes:
        plain[channel, which] = (bids, asks)
    bound = len(quotes) / (time.perf_counter() - began)
    return {
        "updates": updates,
        "updates_per_s": round(updates / took, 1),
        "bound_per_s": round(bound, 1),
        "ratio": round(updates / took / bound, 4),
        **_matches(book, instruments, quotes, orders),
        "peers": PEERS,
        "instruments": INSTRUMENTS,
        "levels": LEVELS,
        "fsync": measure_fsync(Path.cwd()),
        "machine": machine(),
    }


def _matches(
    book: AggregatedBook, instruments: list[Any], quotes: list[tuple[bytes, int, Levels, Levels]], orders: int
) -> dict[str, Any]:
    numbers, latencies, routes, filled = count(1), [], 0, 0
    blotter = Blotter(lambda: next(numbers).to_bytes(16, "big"))
    sequence = len(quotes) + 1
    began = time.perf_counter()
    for number in range(orders):
        at = time.perf_counter()
        channel, which, bids, asks = quotes[number % len(quotes)]
        instrument = instruments[which]
        # the market moves under the orders, as a stream does; what they took is offered anew
        book.update(channel, instrument, sequence + number, bids, asks, _FOREVER)
        side = Side.BUY if number % 2 else Side.SELL
        best = book.best(instrument, side, 0)
        size = SIZE if best is not None else WAD
        spec = OrderSpec(f"bench {number}", instrument, side, size, limit=(best or bids[0][0]))
        placed, events = blotter.place(spec, 0)
        found = blotter.work(book, lambda _c, _i: 0, 0)
        done = [e for r in found if isinstance(r, Routed) for e in blotter.filled(r.route, 1, 0)]
        rest = blotter.cancel(placed, 0)
        pack_events((*events, *found, *done, *rest))
        routes += sum(isinstance(event, Routed) for event in found)
        filled += blotter.order(placed).filled > 0
        latencies.append(time.perf_counter() - at)
    took = time.perf_counter() - began
    latencies.sort()
    return {
        "orders": orders,
        "matches": filled,
        "matches_per_s": round(orders / took, 1),
        "routes": routes,
        "p50_ms": round(latencies[orders // 2] * 1000, 4),
        "p99_ms": round(latencies[orders * 99 // 100] * 1000, 4),
    }
