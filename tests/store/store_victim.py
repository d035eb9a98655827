"""A process for the fault tests: commits to a store and acknowledges on its standard output what is durable.

python store_victim.py commit LOCATION        commit numbered pairs for ever, many at a time; print each acknowledged,
                                              and at the end what refused to go on
python store_victim.py deaf LOCATION          the same, but it does not hear that it lost its lock
python store_victim.py limited PATH BYTES     the same with RLIMIT_FSIZE, until refused; print the refusals' names
python store_victim.py unprivileged PATH UID  open the store as another user; print the refusal's name and code
"""

import asyncio
import os
import resource
import sys

import uvloop

from channeld.core.records import AppendEvent, PutDocument
from channeld.store import open_store
from channeld.store.errors import StoreError
from channeld.store.sqlite import SqliteStore

LEASE_S = 3.0  # the tests wait for it to lapse; shorter ones lapse by themselves on a busy machine


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


async def commit_for_ever(location: str, *, deaf: bool = False) -> None:
    store = await open_store(location, lease_s=LEASE_S)
    if deaf:
        store._lock.on_lost = None

    async def worker(name: int) -> None:
        for number in range(1_000_000):
            key = f"{name}/{number:07}"
            await store.commit([PutDocument("left", key, bytes(200)), PutDocument("right", key, bytes(200))])
            say(key)

    outcomes = await asyncio.gather(*(worker(name) for name in range(8)), return_exceptions=True)
    for outcome in outcomes:
        assert isinstance(outcome, StoreError), outcome
        say(f"refused {type(outcome).__name__} {type(outcome.__cause__).__name__}")
    await store.close()


async def commit_limited(path: str, size: int) -> None:
    store = await SqliteStore.open(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    acknowledged = 0
    try:
        while True:
            await store.commit([PutDocument("x", str(acknowledged), os.urandom(1000))])
            acknowledged += 1
    except StoreError as error:
        say(f"{type(error).__name__} {acknowledged}")
    try:
        await store.commit([AppendEvent(1, "alert")])
    except StoreError as error:
        say(type(error).__name__)
    await store.close()


async def open_as(path: str, user: int) -> None:
    os.setgid(user)
    os.setuid(user)
    try:
        await SqliteStore.open(path)
    except StoreError as error:
        say(f"{type(error).__name__} {error.code}")


if __name__ == "__main__":
    if sys.argv[1] in {"commit", "deaf"}:
        uvloop.run(commit_for_ever(sys.argv[2], deaf=sys.argv[1] == "deaf"))  # as the daemon does
    elif sys.argv[1] == "limited":
        asyncio.run(commit_limited(sys.argv[2], int(sys.argv[3])))
    else:
        asyncio.run(open_as(sys.argv[2], int(sys.argv[3])))
