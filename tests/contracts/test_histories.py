"""Random histories: what the contract pays is what core/settlement says, and nothing is ever lost or made."""

from __future__ import annotations

from dataclasses import dataclass, field

from contracts_harness import (
    BTC,
    ETH,
    NOW,
    ORACLE_KEYS,
    PAYOUTS,
    Account,
    Channel,
    Kind,
    Reverted,
    World,
    make_terms,
    option,
    perpetual,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from channeld.core import eip712
from channeld.core.settlement import Ledger, PotShortError, fix_time, fixes_needed
from channeld.core.wad import DAY, WAD

UNITS = st.one_of(st.integers(0, 5), st.integers(0, 10**10), st.integers(0, 2**100))
ACCOUNTS = st.builds(Account, UNITS, UNITS, UNITS)
EXPIRY = NOW + DAY + 3600


@st.composite
def books(draw):
    """A few positions, within the bounds."""
    size = st.one_of(st.integers(-(10**19), 10**19), st.integers(-(2**95) + 1, 2**95 - 1)).filter(bool)
    mark = st.one_of(st.integers(0, 10**23), st.integers(0, 2**100 - 1))
    carry, vol = draw(st.integers(-5 * WAD, 5 * WAD)), draw(st.integers(WAD // 100, 10 * WAD))
    candidates = [
        lambda: perpetual(ETH, draw(size), draw(mark), carry),
        lambda: option(Kind.FUTURE, BTC, EXPIRY + DAY, 0, draw(size), draw(mark), vol=0, carry=carry),
        lambda: option(Kind.CALL, ETH, EXPIRY, 3000 * WAD, draw(size), draw(mark), vol=vol, carry=carry),
        lambda: option(Kind.PUT, BTC, EXPIRY + DAY, 60_000 * WAD, draw(size), draw(mark), vol=vol, carry=carry),
        lambda: option(Kind.PUT, ETH, EXPIRY, 3000 * WAD, draw(size), draw(mark), vol=vol, carry=carry),
    ]
    return tuple(make() for make in candidates if draw(st.booleans()))


@dataclass
class Side:
    """What the model knows of one channel."""

    channel: Channel
    ledger: Ledger = field(default_factory=Ledger)
    floor: int = 0
    phase: int = 1
    version: int = 0
    deadline: int = 0
    bodies: dict = field(default_factory=dict)


class Histories(RuleBasedStateMachine):
    """Two channels with one token, the model beside each."""

    @initialize()
    def begin(self):
        self.world = World.make()
        self.sides = []
        self.fixes = {}
        for salt in (b"\x01", b"\x02"):
            channel = Channel(self.world, make_terms(self.world.token.address, salt=salt * 32)).open()
            side = Side(channel)
            side.bodies[0] = channel.genesis
            self.sides.append(side)

    def signed(self, side, version, draw):
        """The one body of a version, signed: both parties sign only one."""
        if version not in side.bodies:
            a = draw.draw(ACCOUNTS)
            b_deposited = draw.draw(UNITS)
            # conservation: b's balance is what is left, and where that is negative a has deposited more
            left = a.deposited + b_deposited - a.withdrawn - a.balance
            a = Account(a.balance, a.deposited + max(0, -left), a.withdrawn)
            b = Account(max(0, left), b_deposited, 0)
            side.bodies[version] = side.channel.body(a, b, draw.draw(books()))
        return side.channel.sign_state(version, side.bodies[version])

    def attempt(self, expected, call, *args, **kwargs):
        """Call, and see that it is refused exactly when and as the model says."""
        try:
            call(*args, **kwargs)
        except Reverted as refusal:
            outcome = str(refusal)
        else:
            outcome = None
        assert outcome == expected
        return outcome is None

    which = st.sampled_from([0, 1])
    versions = st.integers(0, 6)

    @rule(which=which, party=which, amount=st.one_of(st.integers(1, 9), st.integers(1, 10**10), st.integers(1, 2**99)))
    def deposit(self, which, party, amount):
        side = self.sides[which]
        expected = "ChannelEnded" if side.phase == 3 else None
        if self.attempt(expected, self.world.fund, side.channel.id, party, amount):
            side.ledger = side.ledger.deposit(party, amount)

    @rule(which=which, version=versions, a=UNITS, b=UNITS, draw=st.data())
    def withdraw(self, which, version, a, b, draw):
        side = self.sides[which]
        _, body_hash, _ = self.signed(side, version, draw)
        value, sigs = side.channel.sign_withdrawal(version, a, b, body_hash)
        try:
            after, expected = side.ledger.withdraw(value), None
        except PotShortError:
            after, expected = side.ledger, "PotShort"
        if side.phase != 1:
            expected = {2: "InDispute", 3: "ChannelEnded"}[side.phase]
        if self.attempt(expected, self.world.adjudicator.withdraw, value, sigs):
            side.ledger = after
            side.floor = max(side.floor, version)

    @rule(which=which, version=versions, draw=st.data())
    def challenge(self, which, version, draw):
        side = self.sides[which]
        args = self.signed(side, version, draw)
        expected = {1: None, 2: "InDispute", 3: "ChannelEnded"}[side.phase]
        call = self.world.adjudicator.challenge
        if self.attempt(expected, call, side.channel.id, *args, sender=PAYOUTS[which]):
            side.phase, side.version = 2, max(version, side.floor)
            side.deadline = self.world.chain.now + side.channel.terms.challenge_period

    @rule(which=which, version=versions, draw=st.data())
    def refute(self, which, version, draw):
        side = self.sides[which]
        args = self.signed(side, version, draw)
        expected = {1: "NotInDispute", 3: "ChannelEnded"}.get(side.phase)
        if side.phase == 2:
            expected = "VersionNotHigher" if version <= side.version else None
            expected = "DeadlinePassed" if self.world.chain.now >= side.deadline else expected
        if self.attempt(expected, self.world.adjudicator.refute, side.channel.id, *args):
            side.version = version

    @rule(seconds=st.sampled_from([1, 10, 3600, 86_390, 90_000]))
    def advance(self, seconds):
        self.world.chain.advance(seconds)

    @rule(which=which, count=st.integers(2, 3), price=st.integers(1, 2**72), only=st.integers(0, 3))
    def prove(self, which, count, price, only):
        side = self.sides[which]
        if side.phase != 2:
            return
        t = fix_time(side.channel.terms, side.deadline)
        for i, (feed, at) in enumerate(fixes_needed(side.channel.terms, side.bodies[side.version], t)):
            if at <= self.world.chain.now and only in (3, i):
                found = self.world.prove(side.channel.terms, feed, at, [price] * 3, ORACLE_KEYS[:count])
                if self.fixes.get((feed, at), (0, 0))[1] < count:
                    self.fixes[feed, at] = (min(price * 10**10, 2**96 - 1), count)
                assert found == self.fixes[feed, at]

    @rule(which=which)
    def settle(self, which):
        side = self.sides[which]
        terms, now = side.channel.terms, self.world.chain.now
        body = side.bodies[side.version]
        expected = {1: "NotInDispute", 3: "ChannelEnded"}.get(side.phase)
        t = fix_time(terms, side.deadline)
        needed = fixes_needed(terms, body, t)
        complete = all(self.fixes.get(k, (0, 0))[1] == 3 for k in needed)
        if side.phase == 2:
            if now < t:
                expected = "FixTimeNotReached"
            elif not complete and now < t + terms.oracle.grace:
                expected = "FixesIncomplete"
        if self.attempt(expected, self.world.adjudicator.settle, terms, body):
            event = self.world.adjudicator.event("Settled")
            side.ledger = side.ledger.settle(terms, body, {k: v for k, (v, _) in self.fixes.items()}, t)
            side.phase = 3
            assert (event.version, event.fix_time, event.complete) == (side.version, t, complete)
            assert side.ledger.pot == 0

    @rule(which=which, count=st.integers(2, 3), price=st.integers(1, 2**72), only=st.integers(0, 5), wait=st.booleans())
    def finish(self, which, count, price, only, wait):
        """The ways to an end, taken at once: chance alone seldom gets there."""
        side = self.sides[which]
        if side.phase == 2:
            t = fix_time(side.channel.terms, side.deadline)
            self.world.chain.set_time(max(self.world.chain.now, t + wait * side.channel.terms.oracle.grace))
            self.prove(which, count, price, min(only, 3))
            self.settle(which)

    @rule(which=which, version=versions, a=ACCOUNTS, late=st.integers(0, 4))
    def close(self, which, version, a, late):
        side = self.sides[which]
        if late:  # closes end a history: keep them rare
            return
        value, sigs = side.channel.sign_close(version, a, Account())
        expected = "ChannelEnded" if side.phase == 3 else None
        if expected is None:
            expected = "BelowRecord" if side.phase == 2 and version < side.version else expected
            expected = "BelowFloor" if version < side.floor else expected
        if self.attempt(expected, self.world.adjudicator.close, value, sigs):
            side.ledger = side.ledger.close(value)
            side.phase = 3
            side.deadline = 0

    @invariant()
    def the_record_is_the_model(self):
        if not getattr(self, "sides", None):
            return
        for side in self.sides:
            record = side.channel.record
            assert (record.deposited_a, record.deposited_b, record.paid_a, record.paid_b) == side.ledger.totals
            assert (record.phase, record.floor_version) == (side.phase, side.floor)
            assert record.floor_hash == eip712.body_hash(side.bodies[side.floor])
            assert side.ledger.pot >= 0
            assert side.channel.dispute.deadline == side.deadline

    @invariant()
    def no_token_is_lost_or_made(self):
        if not getattr(self, "sides", None):
            return
        token = self.world.token
        assert token.balanceOf(self.world.adjudicator.address) == sum(side.ledger.pot for side in self.sides)
        assert token.balanceOf(PAYOUTS[0]) == sum(side.ledger.paid_a for side in self.sides)
        assert token.balanceOf(PAYOUTS[1]) == sum(side.ledger.paid_b for side in self.sides)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
