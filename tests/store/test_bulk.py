"""Writes applied together leave what the same writes leave one by one, or are refused as they are."""

from __future__ import annotations

import sqlite3

from hypothesis import given, settings
from hypothesis import strategies as st

from channeld.core import records
from channeld.core.errors import StoreError
from channeld.store import bulk
from channeld.store.schema import migrate
from channeld.store.tables import Tables

CHANNELS = (b"\x11" * 32, b"\x22" * 32)
TABLES = ("states", "snapshots", "batches", "outstanding", "signed", "documents", "events")
versions = st.integers(1, 9)
few = st.integers(0, 1).map(lambda n: bytes([n]))
channels = st.sampled_from(CHANNELS)
signatures = few.map(lambda b: b * 65)


def states(channel, version, mark, body):
    hashed = mark * 32
    return records.PutState(records.CosignedState(channel, version, hashed, b"a" * 65, b"b" * 65, body))


one_write = st.one_of(
    st.builds(
        records.PutSigned,
        channels,
        versions,
        few.map(lambda b: b * 32),
        signatures,
        st.sampled_from(["state", "close"]),
    ),
    st.builds(states, channels, versions, few, st.sampled_from([None, b"one", b"two"])),
    st.builds(records.PutBatch, channels, versions, st.sampled_from([b"", b"x", b"longer"])),
    st.builds(records.PutProposal, channels, versions, st.sampled_from([b"p", b"other"])),
    st.builds(records.PutRejection, channels, versions, st.just(b"r")),
    st.builds(records.DropProposals, channels, last=versions),
    st.builds(records.DropRejections, channels, last=versions),
    st.builds(records.PutDocument, st.just("k"), st.sampled_from(["a", "b"]), few),
    st.builds(records.AppendEvent, st.just(1), st.sampled_from(["e", "f"]), channels),
)
# a pipeline's commit: versions that rise, each signed and proposed, the earlier ones agreed
rising = st.integers(2, 30).map(
    lambda n: [
        w
        for v in range(100, 100 + n)
        for w in (
            records.PutSigned(CHANNELS[0], v, bytes([v]) * 32, b"s" * 65),
            records.PutProposal(CHANNELS[0], v, b"%d" % v),
            states(CHANNELS[0], v, b"\x05", b"body %d" % v),
            records.PutBatch(CHANNELS[0], v, b"r" * (v % 7)),
        )
    ]
)


def tables():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    migrate(connection, ":memory:")
    made = Tables(connection)
    for channel in CHANNELS:
        made.apply([records.PutChannel(records.ChannelRecord(channel, b"p" * 20, 0, b"t", 1, b"a" * 20, "open", 1))])
    return connection, made


def content(connection):
    return {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}  # noqa: S608 - constants


def outcome(commits, *, one_by_one):
    """What is left after each commit stands or falls as a whole, and which error each fell by."""
    connection, made = tables()
    errors = []
    for writes in commits:
        connection.execute("BEGIN")
        try:
            for write in [[w] for w in writes] if one_by_one else [writes]:
                made.apply(write)
        except StoreError as error:
            errors.append(type(error))
            connection.execute("ROLLBACK")
            made.forget()
        else:
            errors.append(None)
            connection.execute("COMMIT")
    return errors, content(connection)


@given(st.lists(st.lists(one_write, max_size=24) | rising, max_size=4))
@settings(max_examples=300)
def test_together_as_one_by_one(commits):
    together, alone = outcome(commits, one_by_one=False), outcome(commits, one_by_one=True)
    assert together[1] == alone[1]
    assert [e is None for e in together[0]] == [e is None for e in alone[0]]


def test_a_pipelines_commit_takes_a_few_statements():
    connection, made = tables()
    seen = []
    connection.set_trace_callback(seen.append)
    writes = [records.PutBatch(CHANNELS[0], v, b"raw") for v in range(200)]
    made.apply(writes)
    assert len(seen) <= bulk.FEW
    assert connection.execute("SELECT count(*) FROM batches").fetchone() == (200,)
