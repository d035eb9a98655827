"""How fast a store commits: the same figures for every store.

python tests/store/store_speed.py LOCATION [--seconds S] [--callers N ...] [--json]

LOCATION is a path or URL as `open_store` takes it; a fresh one, since its records stay. One commit is what a desk
stores for one co-signed version: a batch of 400 bytes, its own signature, and the state with a body of 600 bytes. With
one caller the figures are those of one commit at a time; with many, each has a channel of its own and one commit
waiting. Beside them: what appending 16 KB and fdatasync take on the disk of the temporary directory, in the same run.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time

import uvloop

from channeld.core.records import ChannelRecord, CosignedState, PutBatch, PutChannel, PutSigned, PutState
from channeld.store import open_store

A, B = b"\xaa" * 65, b"\xbb" * 65


async def measure(store, run: int, callers: int, seconds: float) -> dict[str, float]:
    """Commits of `callers` at once for some seconds."""
    channels = [(run << 32 | number).to_bytes(32, "big") for number in range(callers)]
    await store.commit(
        [PutChannel(ChannelRecord(c, b"\x02" * 20, 0, b"terms", 31337, b"\x03" * 20, "open", 0)) for c in channels]
    )
    took: list[float] = []
    begin = time.perf_counter()

    async def caller(channel: bytes) -> None:
        version = 0
        now = time.perf_counter()
        while now < begin + seconds:
            version += 1
            digest = version.to_bytes(32, "big")
            await store.commit(
                [
                    PutBatch(channel, version, bytes(400)),
                    PutSigned(channel, version, digest, A),
                    PutState(CosignedState(channel, version, digest, A, B, bytes(600))),
                ]
            )
            before, now = now, time.perf_counter()
            took.append(now - before)

    await asyncio.gather(*map(caller, channels))
    elapsed = time.perf_counter() - begin
    took.sort()
    return {
        "callers": callers,
        "commits_per_s": round(len(took) / elapsed),
        "p50_ms": round(took[len(took) // 2] * 1e3, 3),
        "p99_ms": round(took[len(took) * 99 // 100] * 1e3, 3),
    }


def disk_ms() -> float:
    """The median of appending 16 KB and fdatasync, in milliseconds."""
    took = []
    with tempfile.TemporaryFile(buffering=0) as file:
        for _ in range(200):
            before = time.perf_counter()
            file.write(bytes(16384))
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - before)
    return round(sorted(took)[100] * 1e3, 3)


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("location")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    disk = disk_ms()
    store = await open_store(options.location)
    try:
        figures = [await measure(store, run, n, options.seconds) for run, n in enumerate(options.callers, 1)]
    finally:
        await store.close()
    if options.json:
        print(json.dumps({"disk_ms": disk, "figures": figures}))  # noqa: T201 - a program's output
        return
    print(f"append and fdatasync: {disk} ms")  # noqa: T201 - the same
    for f in figures:
        print("{callers:4} callers: {commits_per_s:6} commits/s, p50 {p50_ms} ms, p99 {p99_ms} ms".format(**f))  # noqa: T201 - the same


if __name__ == "__main__":
    uvloop.run(main())  # as the daemon does
