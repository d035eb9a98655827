"""The light peer's log: what was appended is there, whole and in order; what is damaged is an error, never a guess."""

from __future__ import annotations

import asyncio

import pytest
from channeld_client.light.log import FileLog, LogDamagedError, LogStore, MemoryLog, _packed, _unpacked
from hypothesis import given, settings
from hypothesis import strategies as st

from channeld.core import records
from channeld.core.codec import decode, encode
from channeld.core.records import DoubleSignError, PutChannel, PutDocument, PutSigned

CHANNEL = b"\1" * 32
RECORD = records.ChannelRecord(CHANNEL, b"\2" * 20, 1, b"terms", 1, b"\3" * 20, "open", 5)
WRITES = [
    PutChannel(RECORD),
    records.SetStatus(CHANNEL, "closed"),
    records.PutState(records.CosignedState(CHANNEL, 3, b"\4" * 32, b"\5" * 65, b"\6" * 65, b"body")),
    records.PutBatch(CHANNEL, 3, b"batch"),
    records.PutProposal(CHANNEL, 4, b"raw"),
    records.DropProposals(CHANNEL, 1, 9),
    records.PutRejection(CHANNEL, 4, b"raw"),
    records.DropRejections(CHANNEL),
    PutSigned(CHANNEL, 3, b"\7" * 32, b"\10" * 65),
    PutDocument("kind", "key", b"value"),
    records.DropDocument("kind", "key"),
    records.AppendEvent(5, "note", CHANNEL, "{}"),
    records.DropEvents(1),
]


@pytest.mark.parametrize("write", WRITES, ids=lambda write: type(write).__name__)
def test_every_write_comes_back_as_it_was(write):
    assert _unpacked(decode(encode(_packed(write)))) == write


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=8), st.integers(0, 60))
def test_a_crash_within_the_last_append_costs_what_nobody_was_told_of(tmp_path_factory, kept, cut):
    path = tmp_path_factory.mktemp("log") / "log"

    async def run():
        log = FileLog(path)
        await log.read()
        for record in kept:
            await log.append(record)
        whole = path.stat().st_size
        await log.append(b"x" * 60)
        await log.close()
        raw = path.read_bytes()
        path.write_bytes(raw[: whole + cut])
        again = FileLog(path)
        assert await again.read() == kept
        await again.append(b"after")
        await again.close()
        third = FileLog(path)
        assert await third.read() == [*kept, b"after"]
        await third.close()

    asyncio.run(run())


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_byte_that_changes_before_the_last_record_is_found(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("log") / "log"

    async def run():
        log = FileLog(path)
        await log.read()
        for number in range(4):
            await log.append(bytes([number]) * 30)
        await log.close()
        raw = bytearray(path.read_bytes())
        # sizes excepted: one that points beyond the end looks like a crash, and only the log's end is lost then
        start = len(b"channeld-light-1\n")
        place = data.draw(st.integers(start, len(raw) - 39))
        inside = (place - start) % 38
        raw[place] ^= data.draw(st.integers(1, 255))
        path.write_bytes(raw)
        again = FileLog(path)
        if inside >= 4:
            with pytest.raises(LogDamagedError):
                await again.read()
        await again.close()

    asyncio.run(run())


async def test_two_peers_cannot_share_a_log(tmp_path):
    one, two = FileLog(tmp_path / "log"), FileLog(tmp_path / "log")
    await one.read()
    with pytest.raises(LogDamagedError, match="in use"):
        await two.read()
    await two.close()
    await one.close()
    (tmp_path / "other").write_bytes(b"something else")
    with pytest.raises(LogDamagedError):
        await FileLog(tmp_path / "other").read()


async def test_what_was_signed_binds_after_a_restart():
    log = MemoryLog()
    store = LogStore(log)
    await store.load()
    await store.commit([PutChannel(RECORD), PutSigned(CHANNEL, 3, b"\7" * 32, b"\10" * 65)])
    with pytest.raises(DoubleSignError):
        await store.commit([PutSigned(CHANNEL, 3, b"\11" * 32, b"\10" * 65)])
    again = LogStore(log)
    await again.load()
    with pytest.raises(DoubleSignError):
        await again.commit([PutSigned(CHANNEL, 2, b"\11" * 32, b"\10" * 65)])
    assert (await again.highest_signed(CHANNEL)).version == 3
    assert len(log.records) == 1


async def test_a_log_that_fails_stops_everything():
    class Full(MemoryLog):
        async def append(self, record):
            del record
            raise OSError(28, "no space left")

    store = LogStore(Full())
    await store.load()
    with pytest.raises(OSError, match="space"):
        await store.commit([PutChannel(RECORD)])
    with pytest.raises(records.StoreError):
        await store.commit([PutDocument("a", "b", b"c")])
    broken = MemoryLog()
    broken.records = [b"\xc1"]
    with pytest.raises(LogDamagedError):
        await LogStore(broken).load()
