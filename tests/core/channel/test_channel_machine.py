"""Two machines, a link that loses, power that goes: whatever happens, nothing is signed twice and all heals.

CHANNELD_MACHINE_EXAMPLES=2000 runs it long, on fresh random seeds.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter

from channel_shell import Crash, Pair
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from strategies import leg, perpetual

from channeld.core.channel import CloseExpired, Freeze, ProposeBatch
from channeld.core.errors import RuleError
from channeld.core.operations import CloseChannel, Deposit, Trade, Transfer, Withdraw

EXAMPLES = int(os.environ.get("CHANNELD_MACHINE_EXAMPLES", "0"))
COUNTS: Counter[str] = Counter()

sides = st.integers(0, 1)
# mostly none: a crash ends what it interrupts, so the fuse counts the effects before it
fuses = st.none() | st.none() | st.integers(0, 7)
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

    @precondition(lambda self: self.pair.sequencer.up)
    @rule(wanted=st.lists(operations, min_size=0, max_size=3), fuse=fuses)
    def propose_batch(self, wanted: list[tuple], fuse: int | None) -> None:
        built = []
        for item in wanted:
            if item[0] != "deposit" or not any(isinstance(op, Deposit) for op in built):
                built.append(self.built(item))
        self.propose(*built, fuse=fuse)

    @precondition(lambda self: self.pair.sequencer.up)
    @rule(fuse=fuses)
    def propose_close(self, fuse: int | None) -> None:
        body = self.pair.sequencer.channel.tip.body
        flat = [Trade(0, (leg(p.instrument, -p.size // 10**18, 3000),)) for p in body.positions]
        self.propose(*flat, CloseChannel(0), fuse=fuse)

    @precondition(lambda self: self.pair.linked)
    @rule(sender=sides, refuse=st.booleans(), postpone=st.booleans(), fuse=fuses, several=st.integers(1, 5))
    def deliver(self, sender: int, refuse: bool, postpone: bool, fuse: int | None, several: int) -> None:  # noqa: FBT001
        target = self.pair.sides[1 - sender]
        target.refuse, target.postpone, target.fuse = refuse, postpone, fuse
        for _ in range(several):
            if self.pair.deliver(sender):
                self.count("delivered")
        target.refuse, target.postpone, target.fuse = False, False, None

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

    @precondition(lambda self: self.pair.linked)
    @rule(told=st.sets(sides))
    def drop(self, told: set[int]) -> None:
        self.pair.drop(tuple(told))

    @precondition(lambda self: not self.pair.linked and all(side.up for side in self.pair.sides))
    @rule(fuse=fuses, side=sides)
    def connect(self, fuse: int | None, side: int) -> None:
        self.pair.sides[side].fuse = fuse
        self.pair.connect()
        self.pair.sides[side].fuse = None

    @precondition(lambda self: all(side.up for side in self.pair.sides))
    @rule(number=sides)
    def crash(self, number: int) -> None:
        self.pair.sides[number].crash()
        self.pair.drop()
        self.count("crashed")

    @rule(number=sides)
    def restart(self, number: int) -> None:
        side = self.pair.sides[number]
        if not side.up:
            side.start()
            self.count("restarted")

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
    @rule(number=sides, really=st.integers(0, 4))
    def freeze(self, number: int, really: int) -> None:
        if really == 0:
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
        for number in (0, 1):
            self.let_lapse(number)
        pair.settle()
        self.check_agreement()
        # and they go on
        before = pair.sequencer.latest.version
        body = pair.sequencer.latest.body
        pair.feed(
            pair.sequencer, ProposeBatch(pair.clock.batch(Deposit(0, body.a.deposited + 1, body.b.deposited)))
        )
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
