"""The order of effects: nothing is let go before what stands before it is durable; a group commits what matters."""

from __future__ import annotations

from dataclasses import replace

import pytest
from channel_shell import CHANNEL, TERMS
from hypothesis import given
from hypothesis import strategies as st
from strategies import DOMAIN

from channeld.core import records, wire
from channeld.core.channel import EffectQueue, Notify, Persist, Ready, Send, Sign, Step, coalesced, fresh
from channeld.core.eip712 import body_hash
from channeld.core.errors import InternalError
from channeld.core.state import genesis

FRESH = fresh(DOMAIN, TERMS, CHANNEL, 0)


def value(number):
    """A channel that is told apart by its reason."""
    return fresh(DOMAIN, TERMS, CHANNEL, number % 2)


def persist(number):
    return Persist((records.PutBatch(CHANNEL, number, b"%d" % number),))


def send(number):
    return Send(wire.AcceptTerms(number.to_bytes(32, "big")))


class Disk:
    """What a shell does: takes groups, commits them or not, and notes what was let go against what is durable."""

    def __init__(self):
        self.queue = EffectQueue(FRESH)
        self.added, self.durable, self.sent = [], set(), []
        self.group = None

    def release(self, effects):
        for effect in effects:
            if isinstance(effect, Send):
                number = int.from_bytes(effect.message.channel, "big")
                before = {n for n in self.added if n < number}
                assert before <= self.durable, "a message left before what stood before it was durable"
                self.sent.append(number)

    def take(self):
        if self.group is None:
            self.group = self.queue.take()

    def finish(self):
        if self.group is not None:
            self.durable |= {w.version for w in self.group.writes}
            self.group = None
            self.release(self.queue.done())


@given(st.lists(st.sampled_from(["persist", "send", "both", "take", "finish"]), max_size=60))
def test_nothing_is_let_go_before_all_that_stands_before_it_is_durable(moves):
    disk, expected = Disk(), []
    for number, move in enumerate(moves, 1):
        effects = {"persist": (persist(number),), "send": (send(number),), "both": (persist(number), send(number))}
        if move in effects:
            if move != "send":
                disk.added.append(number)
            if move != "persist":
                expected.append(number)
            disk.queue.add(Step(FRESH, effects[move]))
        elif move == "take":
            disk.take()
        else:
            disk.finish()
    for _ in range(3):
        disk.finish()
        disk.take()
    assert disk.sent == expected, "all is sent once, in order"
    assert not disk.queue.behind


def test_the_durable_value_follows_the_groups():
    queue = EffectQueue(FRESH)
    first, second = value(1), value(2)
    assert queue.add(Step(first, (Sign("accept", 1, b""),))) == (Sign("accept", 1, b""),)
    assert queue.durable is first, "nothing to write: it is as good as durable"
    queue.add(Step(second, (persist(1), Notify(Ready()))))
    assert queue.working is second
    assert queue.durable is first
    group = queue.take()
    assert group.channel is second
    assert queue.take() is None, "one group at a time"
    assert group.released == (Notify(Ready()),)
    assert queue.done() == group.released
    assert queue.durable is second


def test_after_a_failed_group_nothing_more_is_taken():
    queue = EffectQueue(FRESH)
    queue.add(Step(value(1), (persist(1), send(1))))
    queue.take()
    queue.add(Step(value(2), (send(2),)))
    assert queue.failed() is FRESH
    assert queue.working is FRESH
    assert not queue.waiting
    with pytest.raises(InternalError):
        queue.add(Step(value(3), (send(3),)))


def test_of_many_states_in_a_group_the_newest_keeps_its_body():
    body = genesis(CHANNEL).body
    states = [records.CosignedState(CHANNEL, n, body_hash(body), bytes(65), bytes(65)) for n in range(1, 4)]
    writes = []
    for state in states:
        writes += [records.PutState(state, body), records.DropProposals(CHANNEL, last=state.version)]
    kept = coalesced(writes)
    assert [w.body_bytes() for w in kept[:3]] == [None, None, records.encode_body(body)]
    assert kept[3:] == (records.DropProposals(CHANNEL, last=3),)


def test_a_range_with_a_beginning_stays_where_it_is():
    writes = [
        records.DropProposals(CHANNEL, first=2, last=3),
        records.PutProposal(CHANNEL, 3, b"x"),
        records.DropRejections(CHANNEL, last=1),
    ]
    assert coalesced(writes) == tuple(writes)


@pytest.mark.parametrize("flying", [False, True])
@pytest.mark.parametrize("how", ["the session ends", "another begins"])
def test_what_belongs_to_a_session_is_not_said_in_the_next(how, flying):
    """A slow disk and a quick new session: the peer would take it for a fault, and end that one too."""
    connected = replace(FRESH, connected=True)
    queue = EffectQueue(connected)
    queue.add(Step(connected, (persist(1), send(2), Notify(Ready()))))
    if flying:
        queue.take()
    sync = Send(wire.Sync(CHANNEL, 0, b"", b"", b"", (), None, ()))
    queue.add(Step(FRESH, ()) if how == "the session ends" else Step(connected, (sync,)))
    released = []
    for _ in range(2):
        queue.take()
        if queue.flying:
            released.extend(queue.done())
    assert [type(e) for e in released if not isinstance(e, Notify)] == ([] if how == "the session ends" else [Send])
    assert [e for e in released if isinstance(e, Notify)] == [Notify(Ready())]
