"""One suite for every store: subclass `StoreConformance` with a fixture `open_store` that opens (and reopens) one.

`open_store()` returns an opened store; stores that survive a close see, when opened again, all that was acknowledged.
"""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from channeld.core import records
from channeld.core.errors import Fault
from channeld.core.records import (
    AppendEvent,
    ChannelRecord,
    CosignedState,
    DoubleSignError,
    DropDocument,
    DropEvents,
    DropProposals,
    DropRejections,
    MessageRecord,
    PutBatch,
    PutChannel,
    PutDocument,
    PutProposal,
    PutRejection,
    PutSigned,
    PutState,
    RecordConflictError,
    RecordValueError,
    SetStatus,
    Store,
    UnknownRecordError,
)
from channeld.store.errors import StoreClosedError

CHANNEL, OTHER, UNKNOWN = b"\x11" * 32, b"\x22" * 32, b"\x33" * 32
SIGNATURE_A, SIGNATURE_B = b"\xaa" * 65, b"\xbb" * 65

OpenStore = Callable[[], Awaitable[Store]]


def channel_record(channel: bytes = CHANNEL, status: str = "opening", side: int = 0) -> ChannelRecord:
    return ChannelRecord(channel, b"\x02" * 20, side, b"terms", 31337, b"\x03" * 20, status, 1_700_000_000_000)


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def state(version: int, *, body: bytes | None = b"body", channel: bytes = CHANNEL, mark: int = 0) -> CosignedState:
    return CosignedState(channel, version, digest(version + mark), SIGNATURE_A, SIGNATURE_B, body)


def signed(version: int, number: int | None = None, kind: str = records.SIGNED_STATE) -> PutSigned:
    return PutSigned(CHANNEL, version, digest(version if number is None else number), SIGNATURE_A, kind)


class StoreConformance:
    """What every store does."""

    @pytest.fixture
    async def store(self, open_store: OpenStore):
        store = await open_store()
        await store.commit([PutChannel(channel_record())])
        yield store
        await store.close()

    # --- channels ---

    async def test_a_new_channel_has_nothing(self, store):
        loaded = await store.load_channel(CHANNEL)
        assert loaded.record == channel_record()
        assert (loaded.state, loaded.snapshot, loaded.highest_signed) == (None, None, 0)
        assert loaded.batches == loaded.proposals == loaded.rejections == loaded.signed == ()

    async def test_channels_come_in_the_order_they_were_stored(self, store):
        await store.commit([PutChannel(channel_record(b"\x05" * 32, side=1)), PutChannel(channel_record(b"\x04" * 32))])
        assert [r.channel[0] for r in await store.channels()] == [0x11, 5, 4]

    async def test_status_changes_and_particulars_do_not(self, store):
        await store.commit([SetStatus(CHANNEL, "open")])
        assert (await store.channels())[0].status == "open"
        await store.commit([PutChannel(channel_record(status="closed"))])
        assert (await store.channels())[0].status == "closed"
        with pytest.raises(RecordConflictError):
            await store.commit([PutChannel(channel_record(side=1))])
        assert (await store.channels()) == (channel_record(status="closed"),)

    async def test_an_unknown_channel_is_refused_everywhere(self, store):
        for write in (
            SetStatus(UNKNOWN, "open"),
            PutState(state(1, channel=UNKNOWN)),
            PutBatch(UNKNOWN, 1, b""),
            PutProposal(UNKNOWN, 1, b""),
            PutRejection(UNKNOWN, 1, b""),
            DropProposals(UNKNOWN),
        ):
            with pytest.raises(UnknownRecordError, match="3333"):
                await store.commit([write])
        for read in (store.load_channel, store.state, store.states, store.batches):
            with pytest.raises(UnknownRecordError):
                await read(UNKNOWN)

    async def test_a_channel_stored_and_refused_in_one_commit_is_not_there_afterwards(self, store):
        with pytest.raises(UnknownRecordError):
            await store.commit(
                [PutChannel(channel_record(OTHER)), SetStatus(OTHER, "open"), SetStatus(UNKNOWN, "open")]
            )
        with pytest.raises(UnknownRecordError):
            await store.commit([PutBatch(OTHER, 1, b"batch")])

    # --- states, batches, messages ---

    async def test_newest_state_is_the_snapshot_and_older_signatures_stay(self, store):
        for version in (1, 2, 3):
            await store.commit([PutBatch(CHANNEL, version, b"batch%d" % version), PutState(state(version))])
        loaded = await store.load_channel(CHANNEL)
        assert loaded.state == loaded.snapshot == state(3)
        assert loaded.batches == ()
        assert await store.states(CHANNEL) == (state(1, body=None), state(2, body=None), state(3))
        assert await store.states(CHANNEL, 2, 2) == (state(2, body=None),)
        assert await store.state(CHANNEL) == state(3)
        assert await store.state(CHANNEL, 1) == state(1, body=None)
        assert await store.state(CHANNEL, 9) is None
        assert [b.raw for b in await store.batches(CHANNEL)] == [b"batch1", b"batch2", b"batch3"]
        assert [b.version for b in await store.batches(CHANNEL, 2)] == [2, 3]
        assert [b.version for b in await store.batches(CHANNEL, 2, limit=1)] == [2]
        assert [b.version for b in await store.batches(CHANNEL, limit=0)] == []
        assert [b.version for b in await store.batches(CHANNEL, limit=9)] == [1, 2, 3]

    async def test_a_state_without_body_leaves_the_snapshot_and_its_batches_to_replay(self, store):
        for version in (1, 2, 3, 4):
            body = b"body2" if version == 2 else None
            await store.commit([PutBatch(CHANNEL, version, b"b%d" % version), PutState(state(version, body=body))])
        loaded = await store.load_channel(CHANNEL)
        assert loaded.state == state(4, body=None)
        assert loaded.snapshot == state(2, body=b"body2")
        assert [(b.version, b.raw) for b in loaded.batches] == [(3, b"b3"), (4, b"b4")]

    async def test_an_older_state_never_replaces_the_snapshot(self, store):
        await store.commit([PutState(state(5, body=b"new"))])
        await store.commit([PutState(state(4, body=b"old"))])
        assert (await store.load_channel(CHANNEL)).snapshot == state(5, body=b"new")

    async def test_what_is_written_once_may_be_repeated_but_not_changed(self, store):
        puts = [
            (PutState(state(1)), PutState(state(1, mark=7))),
            (PutBatch(CHANNEL, 1, b"one"), PutBatch(CHANNEL, 1, b"two")),
            (PutProposal(CHANNEL, 1, b"one"), PutProposal(CHANNEL, 1, b"two")),
            (PutRejection(CHANNEL, 1, b"one"), PutRejection(CHANNEL, 1, b"two")),
        ]
        for write, changed in puts:
            await store.commit([write])
            await store.commit([write])
            with pytest.raises(RecordConflictError) as refused:
                await store.commit([changed])
            assert refused.value.fault is Fault.SELF
            assert refused.value.details["version"] == 1
        loaded = await store.load_channel(CHANNEL)
        assert loaded.state == state(1)
        assert loaded.proposals == loaded.rejections == (MessageRecord(1, b"one"),)

    async def test_outstanding_messages_are_dropped_by_range(self, store):
        await store.commit([PutProposal(CHANNEL, v, b"p%d" % v) for v in (4, 2, 3, 1)])
        await store.commit([PutRejection(CHANNEL, 66, b"r")])
        await store.commit([DropProposals(CHANNEL, last=2)])
        loaded = await store.load_channel(CHANNEL)
        assert [p.version for p in loaded.proposals] == [3, 4]
        assert loaded.rejections == (MessageRecord(66, b"r"),)
        await store.commit([DropProposals(CHANNEL, first=4), DropRejections(CHANNEL)])
        loaded = await store.load_channel(CHANNEL)
        assert loaded.proposals == (MessageRecord(3, b"p3"),)
        assert loaded.rejections == ()

    # --- the signer ---

    async def test_one_digest_for_one_version(self, store):
        await store.commit([signed(1), signed(2)])
        await store.commit([signed(2)])
        for version in (1, 2):
            with pytest.raises(DoubleSignError, match=f"version {version}") as refused:
                await store.commit([signed(version, 99)])
            assert refused.value.fault is Fault.SELF
        assert (await store.signed(CHANNEL, 2)).digest == digest(2)
        assert (await store.load_channel(CHANNEL)).highest_signed == 2

    async def test_never_below_a_version_signed(self, store):
        await store.commit([signed(5)])
        with pytest.raises(DoubleSignError, match="version 5"):
            await store.commit([signed(4)])
        await store.commit([signed(6)])
        await store.commit([signed(5)])
        assert await store.signed(CHANNEL, 4) is None

    async def test_two_digests_within_one_commit_are_refused_too(self, store):
        with pytest.raises(DoubleSignError):
            await store.commit([signed(7), signed(7, 8)])
        assert await store.signed(CHANNEL, 7) is None

    async def test_kinds_of_signature_have_their_own_versions(self, store):
        await store.commit([signed(9)])
        await store.commit([signed(3, kind=records.SIGNED_WITHDRAWAL)])
        await store.commit([signed(800, kind=records.SIGNED_CLOSE), signed(700, kind=records.SIGNED_CLOSE)])
        with pytest.raises(DoubleSignError):
            await store.commit([signed(700, 1, kind=records.SIGNED_CLOSE)])
        assert (await store.highest_signed(CHANNEL)).version == 9
        assert (await store.highest_signed(CHANNEL, records.SIGNED_CLOSE)).version == 800
        assert (await store.highest_signed(CHANNEL, records.SIGNED_RESUME)) is None
        assert (await store.load_channel(CHANNEL)).highest_signed == 9

    async def test_signatures_above_the_newest_state_are_loaded(self, store):
        await store.commit([signed(v) for v in (1, 2, 3)])
        await store.commit([PutState(state(1))])
        assert [s.version for s in (await store.load_channel(CHANNEL)).signed] == [2, 3]

    async def test_the_signer_may_know_a_channel_before_the_desk_does(self, store):
        await store.commit([PutSigned(UNKNOWN, 1, digest(1), SIGNATURE_A)])
        assert (await store.highest_signed(UNKNOWN)).version == 1

    # --- documents and events ---

    async def test_documents_are_replaced_listed_by_prefix_and_dropped(self, store):
        assert await store.document("peer", "maker") is None
        await store.commit([PutDocument("peer", "maker", b"1"), PutDocument("policy", "maker", b"2")])
        await store.commit([PutDocument("peer", "maker", b"3")])
        assert await store.document("peer", "maker") == b"3"
        await store.commit([PutDocument("package", key, b"") for key in ("ETH/2", "ETH/10", "BTC/1", "ETH", "eth/1")])
        assert [k for k, _ in await store.documents("package", "ETH/")] == ["ETH/10", "ETH/2"]
        assert [k for k, _ in await store.documents("package")] == ["BTC/1", "ETH", "ETH/10", "ETH/2", "eth/1"]
        await store.commit([DropDocument("peer", "maker"), DropDocument("peer", "nobody")])
        assert await store.documents("peer") == ()
        assert await store.document("policy", "maker") == b"2"

    async def test_a_prefix_has_no_wildcards(self, store):
        await store.commit([PutDocument("x", "a%", b""), PutDocument("x", "ab", b""), PutDocument("x", "a_", b"")])
        assert [k for k, _ in await store.documents("x", "a%")] == ["a%"]

    async def test_events_are_numbered_in_order_and_filtered(self, store):
        first = await store.commit([AppendEvent(1, "peer_connected"), AppendEvent(2, "alert", CHANNEL, '{"a":1}')])
        second = await store.commit([AppendEvent(3, "alert", OTHER)])
        assert first[0] < first[1] < second[0]
        everything = await store.events()
        assert [(e.sequence, e.kind) for e in everything] == [
            (first[0], "peer_connected"),
            (first[1], "alert"),
            (second[0], "alert"),
        ]
        assert everything[1].data == '{"a":1}'
        assert everything[1].time_ms == 2
        assert await store.events(first[0], 1) == everything[1:2]
        assert await store.events(channel=CHANNEL) == everything[1:2]
        assert await store.events(second[0]) == ()

    async def test_event_numbers_are_never_used_again(self, store):
        (last,) = await store.commit([AppendEvent(1, "alert")])
        await store.commit([DropEvents(last)])
        assert await store.events() == ()
        assert (await store.commit([AppendEvent(1, "alert")]))[0] > last

    # --- atomicity ---

    async def test_all_of_a_commit_or_nothing(self, store):
        await store.commit([signed(3)])
        with pytest.raises(DoubleSignError):
            await store.commit(
                [PutState(state(4)), PutBatch(CHANNEL, 4, b"b"), AppendEvent(1, "state_signed"), signed(3, 9)]
            )
        assert await store.state(CHANNEL) is None
        assert await store.batches(CHANNEL) == ()
        assert await store.events() == ()

    async def test_one_refusal_among_many_commits_touches_no_other(self, store):
        await store.commit([signed(1)])
        outcomes = await asyncio.gather(
            *(
                store.commit([PutDocument("x", f"{n:03}", b""), signed(1, 1 if n % 7 else 1000 + n)])
                for n in range(100)
            ),
            return_exceptions=True,
        )
        refused = {n for n, outcome in enumerate(outcomes) if isinstance(outcome, DoubleSignError)}
        assert refused == set(range(0, 100, 7))
        assert all(outcome == () for n, outcome in enumerate(outcomes) if n not in refused)
        assert {int(k) for k, _ in await store.documents("x")} == set(range(100)) - refused

    async def test_concurrent_commits_are_applied_in_the_order_of_their_calls(self, store):
        sequences = await asyncio.gather(*(store.commit([AppendEvent(n, "alert")]) for n in range(200)))
        assert list(sequences) == sorted(sequences)
        assert [e.time_ms for e in await store.events()] == list(range(200))

    async def test_nothing_to_write_is_fine(self, store):
        assert await store.commit([]) == ()

    async def test_what_is_no_record_is_refused_and_the_store_goes_on(self, store):
        for write in ("nonsense", PutDocument("x", "\ud800", b""), DropDocument("x", object())):
            with pytest.raises(RecordValueError):
                await store.commit([PutDocument("x", "y", b""), write])
        assert await store.document("x", "y") is None
        await store.commit([PutDocument("x", "y", b"1")])
        assert await store.document("x", "y") == b"1"

    # --- end ---

    async def test_closed_means_closed(self, open_store):
        store = await open_store()
        await store.close()
        await store.close()
        with pytest.raises(StoreClosedError):
            await store.commit([AppendEvent(1, "alert")])
        with pytest.raises(StoreClosedError):
            await store.channels()


class DurableConformance(StoreConformance):
    """What every store that outlives its process does, besides."""

    async def test_everything_is_there_after_reopening(self, open_store):
        store = await open_store()
        await store.commit([PutChannel(channel_record())])
        await store.commit([PutBatch(CHANNEL, 1, b"batch"), PutState(state(1)), PutProposal(CHANNEL, 2, b"proposal")])
        await store.commit([signed(2), PutRejection(CHANNEL, 66, b"rejection"), PutDocument("chain", "cursor", b"7")])
        await store.commit([AppendEvent(1, "alert", CHANNEL)])
        before = await store.load_channel(CHANNEL), await store.events(), await store.documents("chain")
        await store.close()
        store = await open_store()
        assert (await store.load_channel(CHANNEL), await store.events(), await store.documents("chain")) == before
        with pytest.raises(DoubleSignError):
            await store.commit([signed(2, 9)])
        await store.close()

    async def test_commits_accepted_before_close_are_finished(self, open_store):
        store = await open_store()
        pending = [asyncio.ensure_future(store.commit([PutDocument("x", str(n), b"")])) for n in range(50)]
        await asyncio.wait(pending, timeout=0)  # lets every one of them reach the writer
        await store.close()
        await asyncio.gather(*pending)
        store = await open_store()
        assert len(await store.documents("x")) == 50
        await store.close()
