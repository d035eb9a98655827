"""The PostgreSQL store: the suite, answers as SQLite's, group commit, migrations, what it does not open."""

import asyncio
import contextlib
import os
from urllib.parse import urlsplit

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_conformance import CHANNEL, OTHER, SIGNATURE_A, DurableConformance, channel_record, digest, signed, state

from channeld.core import records
from channeld.core.errors import StoreError
from channeld.core.records import AppendEvent, PutChannel, PutDocument, RecordValueError
from channeld.store import MemoryStore, evict, open_store
from channeld.store import schema as sqlite_schema
from channeld.store.errors import (
    CorruptStoreError,
    ForeignDatabaseError,
    MigrationError,
    NewerSchemaError,
    ReadOnlyStoreError,
    StoreLockedError,
    StoreUnavailableError,
    UnsafeServerError,
)
from channeld.store.postgresql import schema
from channeld.store.postgresql import store as room
from channeld.store.postgresql.schema import MIGRATIONS
from channeld.store.postgresql.server import parse_location

pytestmark = [pytest.mark.postgresql, pytest.mark.xdist_group("postgresql")]


class TestPostgresqlStore(DurableConformance):
    @pytest.fixture
    def open_store(self, desk_url):
        url = desk_url()

        async def factory():
            return await open_store(url)

        return factory


@contextlib.asynccontextmanager
async def session(url):
    """A plain connection to the desk's schema, as an operator's psql."""
    location = parse_location(url)
    connection = await asyncpg.connect(location.dsn, server_settings={"search_path": f'"{location.schema}"'})
    try:
        yield connection
    finally:
        await connection.close()


# --- the same answers as the other stores ---

channels = st.sampled_from([CHANNEL, OTHER])
versions = st.integers(1, 4)
values = st.sampled_from([b"", b"one", b"two"])
kinds = st.sampled_from([records.SIGNED_STATE, records.SIGNED_WITHDRAWAL, records.SIGNED_CLOSE])
keys = st.sampled_from(["a", "a%", "ab", "ä", ""])
writes = st.one_of(
    st.builds(PutChannel, st.builds(channel_record, channels, st.sampled_from(["open", "closed"]), st.just(0))),
    st.builds(PutChannel, st.builds(channel_record, channels, st.just("open"), st.integers(0, 1))),
    st.builds(records.SetStatus, channels, st.sampled_from(["open", "frozen"])),
    st.builds(
        lambda channel, version, body, mark: records.PutState(state(version, body=body, channel=channel, mark=mark)),
        channels,
        versions,
        st.none() | values,
        st.sampled_from([0, 0, 9]),
    ),
    st.builds(records.PutBatch, channels, versions, values),
    st.builds(records.PutProposal, channels, versions, values),
    st.builds(records.DropProposals, channels, versions, versions),
    st.builds(records.PutRejection, channels, versions, values),
    st.builds(records.DropRejections, channels, versions, versions),
    st.builds(
        records.PutSigned, channels, st.integers(1, 9), st.integers(0, 1).map(digest), st.just(SIGNATURE_A), kinds
    ),
    st.builds(PutDocument, st.sampled_from(["x", "y"]), keys, values),
    st.builds(records.DropDocument, st.sampled_from(["x", "y"]), keys),
    st.builds(AppendEvent, st.integers(0, 9), st.just("alert"), st.none() | channels),
    st.builds(records.DropEvents, st.integers(0, 50)),
)


async def everything(store):
    answers = [await store.channels(), await store.events()]
    for kind in ("x", "y"):
        answers += [await store.documents(kind), await store.documents(kind, "a"), await store.document(kind, "a%")]
    for record in answers[0]:
        answers += [await store.load_channel(record.channel), await store.states(record.channel)]
        answers += [await store.batches(record.channel, 2, 3), await store.events(channel=record.channel)]
        answers += [await store.state(record.channel, 2)]
    for channel in (CHANNEL, OTHER):
        for kind in records.SIGNED_STATE, records.SIGNED_CLOSE:
            answers += [await store.highest_signed(channel, kind), await store.signed(channel, 2, kind)]
    return answers


async def commit_all(store, commits):
    outcomes = await asyncio.gather(*map(store.commit, commits), return_exceptions=True)
    assert all(isinstance(outcome, tuple | StoreError) for outcome in outcomes), outcomes
    return [o if isinstance(o, tuple) else (type(o), str(o), o.details) for o in outcomes]


def test_it_answers_as_the_store_in_memory_does(desk_url):
    with asyncio.Runner() as runner:
        model, store = MemoryStore(), runner.run(open_store(desk_url()))

        @settings(max_examples=60, deadline=None, database=None)
        @given(st.lists(st.lists(writes, max_size=5), max_size=6))
        def alike(commits):
            expected = runner.run(commit_all(model, commits))
            assert runner.run(commit_all(store, commits)) == expected
            assert runner.run(everything(store)) == runner.run(everything(model))

        try:
            alike()
            runner.run(store.check())
        finally:
            runner.run(store.close())
            runner.run(model.close())


# --- groups ---


async def test_commits_that_wait_together_share_one_transaction(desk_url):
    async with await open_store(desk_url()) as store:
        write, groups = store._write, []

        def counted(group):
            groups.append(len(group))
            return write(group)

        store._write = counted
        await asyncio.gather(*(store.commit([AppendEvent(n, "alert")]) for n in range(500)))
        assert sum(groups) == 500
        assert len(groups) < 50


async def test_a_queue_that_is_full_makes_callers_wait_and_loses_nothing(desk_url, monkeypatch):
    monkeypatch.setattr(room, "QUEUE_LIMIT", 4)
    monkeypatch.setattr(room, "GROUP_LIMIT", 3)
    async with await open_store(desk_url()) as store:
        pending = [asyncio.ensure_future(store.commit([AppendEvent(n, "alert")])) for n in range(50)]
        await asyncio.wait(pending, timeout=0)
        assert store._room.locked()
        await asyncio.gather(*pending)
        assert [e.time_ms for e in await store.events()] == list(range(50))


async def test_a_cancelled_commit_disturbs_nobody(desk_url):
    async with await open_store(desk_url()) as store:
        first = asyncio.ensure_future(store.commit([AppendEvent(1, "alert")]))
        second = asyncio.ensure_future(store.commit([AppendEvent(2, "alert")]))
        await asyncio.wait([first, second], timeout=0)
        first.cancel()
        await second
        await store.commit([AppendEvent(3, "alert")])
        assert {e.time_ms for e in await store.events()} >= {2, 3}


async def test_values_that_the_server_refuses_are_their_callers_error_alone(desk_url):
    async with await open_store(desk_url()) as store:
        outcomes = await asyncio.gather(
            store.commit([PutDocument("x", "before", b"")]),
            store.commit([PutDocument("x", os.urandom(5000).hex(), b"")]),  # too long for an index
            store.commit([PutDocument("x", "a\0b", b"")]),
            store.commit([PutDocument("x", "after", b"")]),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [tuple, RecordValueError, RecordValueError, tuple]
        assert [key for key, _ in await store.documents("x")] == ["after", "before"]


# --- several desks, one lock each ---


async def test_desks_share_a_server_each_in_its_own_schema(desk_url):
    maker_url, taker_url = desk_url(), desk_url()
    async with await open_store(maker_url) as maker, await open_store(taker_url) as taker:
        await maker.commit([PutChannel(channel_record()), signed(1)])
        await taker.commit([PutChannel(channel_record(side=1)), signed(1, 2)])
        assert [r.side for r in await maker.channels()] == [0]
        assert [r.side for r in await taker.channels()] == [1]


async def test_a_second_store_on_one_desk_is_refused_at_once_and_told_who_holds_it(desk_url):
    url = desk_url()
    async with await open_store(url) as first:
        with pytest.raises(StoreLockedError, match=f"channeld lock .*:{os.getpid()}.* holds postgresql://") as refused:
            await open_store(url)
        assert "Stop the other daemon" in refused.value.next_step
        await first.commit([AppendEvent(1, "alert")])
    async with await open_store(url) as second:
        assert second.epoch == first.epoch + 1


async def test_a_plain_user_who_may_create_a_schema_is_enough(desk_url):
    url = desk_url()
    async with session(url) as other:
        name = parse_location(url).schema
        await other.execute(f"CREATE ROLE {name}_user LOGIN PASSWORD 'words'")
        try:
            parts = urlsplit(url)
            plain = parts._replace(netloc=f"{name}_user:words@{parts.netloc.rpartition('@')[2]}").geturl()
            with pytest.raises(StoreUnavailableError, match="permission denied") as refused:
                await open_store(plain)
            assert refused.value.details["sqlstate"] == "42501"
            await other.execute(f"CREATE SCHEMA {name} AUTHORIZATION {name}_user")
            async with await open_store(plain) as store:
                assert await store._writer.fetchval("SELECT current_user") == f"{name}_user"
                await store.commit([PutChannel(channel_record()), signed(1), AppendEvent(1, "alert")])
                with pytest.raises(StoreLockedError, match=f":{os.getpid()}"):
                    await open_store(plain)
                assert await evict(plain) == 1
            await other.execute(f"DROP SCHEMA {name} CASCADE")
        finally:
            await other.execute(f"DROP ROLE {name}_user")


# --- what is not opened ---


async def test_a_database_that_does_not_exist(desk_url):
    with pytest.raises(StoreUnavailableError, match="does not exist"):
        await open_store(urlsplit(desk_url())._replace(path="/nowhere").geturl())


async def test_a_session_without_synchronous_commit_is_refused(desk_url):
    with pytest.raises(UnsafeServerError, match="synchronous_commit") as refused:
        await open_store(desk_url() + "&synchronous_commit=off")
    assert refused.value.code == 6023


async def test_what_waits_for_less_is_raised_and_what_waits_for_more_is_kept(desk_url):
    for configured, used in (("local", "on"), ("remote_write", "on"), ("remote_apply", "remote_apply")):
        async with await open_store(desk_url() + f"&synchronous_commit={configured}") as store:
            assert await store._writer.fetchval("SHOW synchronous_commit") == used


async def test_a_read_only_database_is_refused(desk_url):
    with pytest.raises(ReadOnlyStoreError, match="read_only"):
        await open_store(desk_url() + "&default_transaction_read_only=on")


async def test_somebody_elses_schema_is_refused_and_left_alone(desk_url):
    for table in ("letters (text text)", "desk (text text)", "desk (application text, schema_version int)"):
        url = desk_url()
        name = parse_location(url).schema
        async with session(url) as other:
            await other.execute(f'CREATE SCHEMA "{name}"')
            await other.execute(f"CREATE TABLE {table}")
            with pytest.raises(ForeignDatabaseError, match="not those of a channeld desk"):
                await open_store(url)
            tables = await other.fetch("SELECT FROM pg_tables WHERE schemaname = $1", name)
            assert len(tables) == 1


async def test_orphans_are_found_by_check(desk_url):
    url = desk_url()
    async with await open_store(url) as store:
        await store.commit([PutChannel(channel_record()), records.PutState(state(1))])
        await store.check()
        async with session(url) as other:
            await other.execute("DELETE FROM states")
        with pytest.raises(CorruptStoreError, match="snapshots without their state: 1"):
            await store.check()


# --- schema versions ---


def test_both_databases_know_the_same_versions():
    assert len(MIGRATIONS) == len(sqlite_schema.MIGRATIONS)


async def older_desk(url, version):
    """A desk as a program of an older schema left it."""
    location = parse_location(url)
    async with session(url) as other:
        if version == 0:
            await other.execute(f'CREATE SCHEMA "{location.schema}"')
            return
        await schema._migrate(other, location, MIGRATIONS[:version])
        r = channel_record()
        await other.execute(
            "INSERT INTO channels (channel, peer, side, terms, chain_id, adjudicator, status, opened_at) "
            "VALUES ($1,$2,$3,$4,$5,$6,$7,$8)",
            *(r.channel, r.peer, r.side, r.terms, r.chain_id, r.adjudicator, r.status, r.opened_at),
        )
        await other.execute("INSERT INTO signed VALUES ($1,'state',4,$2,$3)", CHANNEL, digest(4), SIGNATURE_A)
        await other.execute("INSERT INTO events VALUES (1,1,'alert',$1,'{}')", CHANNEL)
        await other.execute("UPDATE desk SET last_event = 1")


@pytest.mark.parametrize("version", range(len(MIGRATIONS) + 1))
async def test_a_desk_of_every_older_schema_is_brought_up_to_date(desk_url, version):
    url = desk_url()
    await older_desk(url, version)
    async with await open_store(url) as store:
        assert await store._reader.fetchval("SELECT schema_version FROM desk") == len(MIGRATIONS)
        if version:
            assert await store.channels() == (channel_record(),)
            assert (await store.load_channel(CHANNEL)).highest_signed == 4
            assert len(await store.events(channel=CHANNEL)) == 1
        assert await store.commit([AppendEvent(1, "alert", CHANNEL)]) == (2 if version else 1,)


async def test_a_newer_schema_is_refused_and_left_alone(desk_url):
    url = desk_url()
    async with await open_store(url) as store:
        epoch = store.epoch
    async with session(url) as other:
        await other.execute("UPDATE desk SET schema_version = schema_version + 1")
        with pytest.raises(NewerSchemaError, match=f"schema version {len(MIGRATIONS) + 1}"):
            await open_store(url)
        assert await other.fetchval("SELECT epoch FROM desk") == epoch


async def test_a_step_that_fails_leaves_the_desk_as_it_was(desk_url, monkeypatch):
    url = desk_url()
    async with await open_store(url) as store:
        await store.commit([signed(4)])
    failing = ("DELETE FROM signed", "SELECT 1/0")
    take_over = schema.take_over
    monkeypatch.setattr(
        room, "take_over", lambda session, where, lock: take_over(session, where, lock, (*MIGRATIONS, failing))
    )
    with pytest.raises(MigrationError, match="division by zero"):
        await open_store(url)
    monkeypatch.undo()
    async with await open_store(url) as again:
        assert again.epoch == store.epoch + 1
        assert (await again.highest_signed(CHANNEL)).version == 4
