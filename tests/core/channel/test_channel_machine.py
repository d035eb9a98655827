"""Two machines, a link that loses, power that goes: whatever happens, nothing is signed twice and all heals.

CHANNELD_MACHINE_EXAMPLES=2000 runs it long, on fresh random seeds.
"""

from __future__ import annotations

import os
from collections import Counter

from channel_shell import Crash, Pair
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from strategies import leg, perpetual

from channeld.core.channel import Agreed, CloseExpired, Freeze, ProposeBatch
from channeld.core.errors import RuleError
from channeld.core.operations import CloseChannel, Deposit, Trade, Transfer, Withdraw

EXAMPLES = int(os.environ.get("CHANNELD_MACHINE_EXAMPLES", "0"))
COUNTS: Counter[str] = Counter()

sides = st.integers(0, 1)
# mostly none: a crash ends what it interrupts, so the fuse counts the effects before it
fuses = st.sampled_from([None] * 8 + list(range(8)))
rarely = st.integers(0, 7).map(lambda n: n == 5)
units = st.integers(1, 1000)
operations = st.one_of(
    st.tuples(st.just("deposit"), units, units),
    st.tuples(st.just("transfer"), sides, units),
    st.tuples(st.just("trade"), sides, st.sampled_from([-1, 1])),
    st.tuples(st.just("withdraw"), sides, units),
)


class Machines(RuleBasedStateMachine):
    """One channel between a sequencer and a follower."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()

    def count(self, name: str) -> None:
        COUNTS[name] += 1

    @initialize()
    def begin(self) -> None:
        self.pair.connect()
        self.pair.settle()
        self.pair.feed(self.pair.sequencer, ProposeBatch(self.pair.clock.batch(Deposit(0, 10**9, 10**9))))
        self.pair.settle()

    def built(self, wanted: tuple) -> Deposit | Transfer | Trade | Withdraw:
        body = self.pair.sequencer.channel.tip.body
        match wanted:
            case ("deposit", more_a, more_b):
                return Deposit(0, body.a.deposited + more_a, body.b.deposited + more_b)
            case ("transfer", origin, amount):
                return Transfer(origin, amount)
            case ("trade", origin, size):
                return Trade(origin, (leg(perpetual(), size, 3000 + origin),))
            case (_, origin, amount):
                return Withdraw(origin, amount)

    def propose(self, *batch, fuse: int | None) -> None:
        sequencer = self.pair.sequencer
        sequencer.fuse = fuse
        try:
            self.pair.feed(sequencer, ProposeBatch(self.pair.clock.batch(*batch)))
        except RuleError:  # not ready, or the batch breaks a rule: refused, and nothing has changed
            self.count("refused to propose")
        else:
            self.count("proposed")
        sequencer.fuse = None

    @precondition(lambda self: self.pair.sequencer.up and self.pair.sequencer.channel.synced)
    @rule(
        several=st.lists(st.lists(operations, min_size=0, max_size=3), min_size=1, max_size=4),
        fuse=fuses,
    )
    def propose_batches(self, several: list[list[tuple]], fuse: int | None) -> None:
        for wanted in several:
            if self.pair.sequencer.up:
                self.propose_batch(wanted, fuse)

    def propose_batch(self, wanted: list[tuple], fuse: int | None) -> None:
        built = []
        for item in wanted:
            if item[0] != "deposit" or not any(isinstance(op, Deposit) for op in built):
                built.append(self.built(item))
        self.propose(*built, fuse=fuse)

    @rule(
        several=st.lists(st.lists(operations, max_size=2), max_size=4),
        reach=st.integers(0, 6),
        refuse_at=st.none() | st.integers(0, 5),
        back=st.integers(0, 6),
        ending=st.sampled_from(["", "drop", "drop unheard", "crash 0", "crash 1", "crash both"]),
        fused=sides,
        fuse=st.none() | st.integers(0, 9),
    )
    def round(
        self,
        several: list[list[tuple]],
        reach: int,
        refuse_at: int | None,
        back: int,
        ending: str,
        fused: int,
        fuse: int | None,
    ) -> None:
        """A whole round of proposals and answers, of which a part arrives before something ends it; then a reunion."""
        if not self.pair.linked:
            self.connect(None, 0)
        self.propose_batches(several, None)
        follower = self.pair.follower
        for n in range(reach):
            follower.refuse = n == refuse_at
            self.deliver_one(self.pair.sequencer.number)
        follower.refuse = False
        for _ in range(back):
            self.deliver_one(follower.number)
        if ending.startswith("drop"):
            self.pair.drop(() if ending.endswith("unheard") else (0, 1))
        for number, side in enumerate(self.pair.sides):
            if ending in {f"crash {number}", "crash both"} and side.up:
                side.crash()
        if ending:
            self.pair.drop()
            self.count(ending)
            self.connect(None, 0)
            # the power may go in the middle of the exchange, too
            self.pair.sides[fused].fuse = fuse
            self.deliver_much(fused, 4)
            self.pair.sides[fused].fuse = None
            self.count("crashed in the exchange" if not self.pair.linked else "reunited")

    @precondition(lambda self: self.pair.sequencer.up and self.pair.sequencer.channel.synced)
    @rule(fuse=fuses, really=rarely)
    def propose_close(self, fuse: int | None, really: bool) -> None:  # noqa: FBT001
        if not really:
            return
        body = self.pair.sequencer.channel.tip.body
        flat = [Trade(0, (leg(p.instrument, -p.size // 10**18, 3000),)) for p in body.positions]
        self.propose(*flat, CloseChannel(0), fuse=fuse)

    @precondition(lambda self: self.pair.linked and any(side.outbox for side in self.pair.sides))
    @rule(sender=sides, refuse=st.booleans(), postpone=st.booleans(), fuse=fuses, several=st.integers(1, 5))
    def deliver(self, sender: int, refuse: bool, postpone: bool, fuse: int | None, several: int) -> None:  # noqa: FBT001
        sender = sender if self.pair.sides[sender].outbox else 1 - sender
        target = self.pair.sides[1 - sender]
        target.refuse, target.postpone, target.fuse = refuse, postpone, fuse
        for _ in range(several):
            self.deliver_one(sender)
        target.refuse, target.postpone, target.fuse = False, False, None

    @precondition(lambda self: self.pair.linked and any(side.outbox for side in self.pair.sides))
    @rule(sender=sides, limit=st.integers(1, 40))
    def deliver_much(self, sender: int, limit: int) -> None:
        for _ in range(limit):
            self.deliver_one(sender)
            self.deliver_one(1 - sender)

    def deliver_one(self, sender: int) -> None:
        if self.pair.deliver(sender):
            self.count("delivered")

    @precondition(lambda self: self.pair.follower.postponed)
    @rule(refuse=st.booleans(), fuse=fuses)
    def decide(self, refuse: bool, fuse: int | None) -> None:  # noqa: FBT001
        follower = self.pair.follower
        follower.refuse, follower.fuse = refuse, fuse
        try:
            follower.decide()
        except Crash:
            self.pair.drop()
        follower.refuse, follower.fuse = False, None

    @precondition(lambda self: self.pair.linked and self.pair.sequencer.channel.proposals)
    @rule(told=st.sets(sides), really=rarely)
    def drop(self, told: set[int], really: bool) -> None:  # noqa: FBT001
        if really:
            self.pair.drop(tuple(told))

    @precondition(lambda self: not self.pair.linked)
    @rule(fuse=fuses, side=sides)
    def connect(self, fuse: int | None, side: int) -> None:
        for each in self.pair.sides:
            if not each.up:
                each.start()
                self.count("restarted")
        self.pair.sides[side].fuse = fuse
        self.pair.connect()
        self.pair.sides[side].fuse = None
        self.count("connected")

    @rule(number=sides, really=rarely)
    def crash(self, number: int, really: bool) -> None:  # noqa: FBT001
        if really and self.pair.sides[number].up:
            self.pair.sides[number].crash()
            self.pair.drop()
            self.count("crashed")

    @precondition(lambda self: any(side.up and side.channel.closing for side in self.pair.sides))
    @rule(number=sides, fuse=fuses)
    def lapse(self, number: int, fuse: int | None) -> None:
        self.let_lapse(number, fuse)

    def let_lapse(self, number: int, fuse: int | None = None) -> None:
        side = self.pair.sides[number]
        if not side.up or side.channel.closing is None:
            return
        self.pair.clock.now_ms = max(self.pair.clock.now_ms, (side.channel.closing.valid_until + 1) * 1000)
        side.fuse = fuse
        self.pair.feed(side, CloseExpired())
        side.fuse = None
        self.count("lapsed")

    @precondition(lambda self: all(side.up for side in self.pair.sides))
    @rule(number=sides, really=rarely)
    def freeze(self, number: int, really: bool) -> None:  # noqa: FBT001
        if really and self.pair.sides[number].latest.version % 3 == 0:
            self.pair.feed(self.pair.sides[number], Freeze("a dispute runs"))
            self.count("frozen")

    # ---- what always holds

    @invariant()
    def equal_versions_have_equal_bodies(self) -> None:
        ours, theirs = (side.stored_hashes() for side in self.pair.sides)
        for version in ours.keys() & theirs.keys():
            assert ours[version] == theirs[version]

    @invariant()
    def the_sequencer_is_never_ahead(self) -> None:
        sequencer, follower = self.pair.sequencer, self.pair.follower
        ahead = sequencer.stored_version()
        assert ahead <= follower.stored_version() or ahead in follower.stored_rejections()

    @invariant()
    def memory_is_what_the_disk_says(self) -> None:
        for side in self.pair.sides:
            if side.up:
                assert side.latest.version == side.stored_version()
                assert side.channel.draft is None
                assert side.channel.frozen in {"", "a dispute runs"}

    def teardown(self) -> None:
        pair = self.pair
        for side in pair.sides:
            for event in side.events:
                self.count(type(event).__name__)
                if isinstance(event, Agreed) and event.voided:
                    self.count("voided")
        pair.drop()
        for number, side in enumerate(pair.sides):
            if side.up and (side.channel.frozen or number == 0):
                side.crash()
            if not side.up:
                side.start()
        # one exchange brings both to the same state
        pair.connect()
        assert pair.settle() <= 2 * 64 + 16
        self.check_documents()
        # a second close may be waiting behind the first, on a side that has not seen the first one lapse
        for number in (0, 1, 0, 1):
            self.let_lapse(number)
            pair.settle()
        self.check_agreement()
        # and they go on
        before = pair.sequencer.latest.version
        body = pair.sequencer.latest.body
        pair.feed(pair.sequencer, ProposeBatch(pair.clock.batch(Deposit(0, body.a.deposited + 1, body.b.deposited))))
        assert pair.settle() == 2
        assert pair.sequencer.latest.version == before + 1
        self.check_agreement()
        for side in pair.sides:
            side.check_journal()

    def check_agreement(self) -> None:
        sequencer, follower = self.pair.sequencer.channel, self.pair.follower.channel
        assert not sequencer.frozen
        assert not follower.frozen
        assert sequencer.latest == follower.latest
        assert sequencer.proposals == follower.proposals == ()
        assert sequencer.rejection is follower.rejection is None

    def check_documents(self) -> None:
        """Every document that both hold is complete on both; a Close may have lapsed on one."""
        held = [{e.kind: e for e in side.channel.exits} for side in self.pair.sides]
        assert (1 in held[0]) == (1 in held[1])
        for kind in held[0].keys() & held[1].keys():
            assert held[0][kind] == held[1][kind]
            assert held[0][kind].complete


TestMachines = Machines.TestCase
TestMachines.settings = settings(
    max_examples=EXAMPLES or 80,
    stateful_step_count=100 if EXAMPLES else 40,
    deadline=None,
    derandomize=not EXAMPLES,
    print_blob=True,
)
