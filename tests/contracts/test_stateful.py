"""Many channels, tokens, honest and cheating parties: what must hold whatever anybody does.

CI takes a few thousand steps; CHANNELD_PROFILE=nightly takes 100,000. A step is one transaction on the EVM, done by the
contract and by the model alike (duel.py); forks are undone on both.
"""

import contextlib
import os
from collections import Counter
from typing import ClassVar

import adjudicator_model as model
from contracts_harness import KEEPER, PAYOUTS
from duel import BLOCKS, DENIES, FEE, PLAIN, PRICES, REFUSES, SILENT, Arena, Duel
from duel_moves import (
    prove_everything,
    random_call,
    random_judgement,
    random_proof,
    random_time,
    signed_body,
    signers_addresses,
)
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

NIGHTLY = os.environ.get("CHANNELD_PROFILE") == "nightly"
WANTED = int(os.environ.get("CHANNELD_STEPS", "100000" if NIGHTLY else "1500"))
CHANNELS = 5
which = st.integers(0, CHANNELS - 1)


class Desks(RuleBasedStateMachine):
    """Five channels of the same two desks on three tokens."""

    taken = 0
    # (whether a margin call decided, who was paid a penalty) -> how often
    decided: ClassVar[Counter] = Counter()

    def __init__(self):
        super().__init__()
        self.arena = None

    @initialize()
    def begin(self):
        self.arena = Arena.make(CHANNELS)
        self.floors = [0] * CHANNELS
        self.times = [None] * CHANNELS

    def duel(self, index: int) -> Duel:
        return self.arena.duels[index]

    # --- what anybody may do -----------------------------------------------------------------------------------------

    @rule(index=which, data=st.data())
    def anybody_calls(self, index, data):
        name, args, sender = random_call(self.duel(index), data)
        self.duel(index).step(name, *args, sender=sender)

    @rule(index=which, data=st.data())
    def the_cheater_calls_again(self, index, data):
        name, args, sender = random_call(self.duel(index), data)
        self.duel(index).step(name, *args, sender=sender)

    @rule(index=which, party=st.sampled_from([0, 1]), tokens=st.integers(1, 2000))
    def a_party_deposits(self, index, party, tokens):
        duel = self.duel(index)
        duel.step("deposit", party, tokens * 10**duel.purse.decimals, 0)

    @rule(index=which, data=st.data())
    def packages_are_proven(self, index, data):
        random_proof(self.duel(index), data)

    @rule(index=which, data=st.data())
    def a_dispute_goes_on(self, index, data):
        random_judgement(self.duel(index), data)

    @rule(data=st.data())
    def time_passes(self, data):
        self.arena.chain.set_time(random_time(self.arena, data))

    @rule(
        index=which,
        mode=st.sampled_from([PLAIN, PLAIN, SILENT, REFUSES, DENIES, FEE, BLOCKS]),
        payee=st.sampled_from(PAYOUTS),
    )
    def a_token_changes(self, index, mode, payee):
        self.duel(index).purse.misbehave(mode, payee)

    @rule(index=which, payee=st.sampled_from(PAYOUTS))
    def a_payee_claims(self, index, payee):
        self.arena.claim(self.duel(index).purse, payee)

    # --- what must always be possible --------------------------------------------------------------------------------

    @rule(
        index=which,
        side=st.sampled_from([0, 1]),
        front_run=st.sampled_from(["", "challenge", "call_margin"]),
        data=st.data(),
    )
    def an_honest_party_enforces_its_latest_state(self, index, side, front_run, data):
        """One transaction for the state, one for each fix, one for each test, one for the payment."""
        duel, arena = self.duel(index), self.arena
        if duel.state.phase == model.ENDED:
            return
        version = max(*duel.bodies, duel.state.floor_version + 1, duel.state.dispute.version)
        signed = signed_body(duel, version, data)
        with arena.fork():
            honest, cheater = signers_addresses(duel)[side], signers_addresses(duel)[1 - side]
            if duel.state.phase == model.OPEN and front_run:
                old = data.draw(st.integers(0, version), "old version")
                assert duel.step(front_run, *signed_body(duel, old, data), sender=cheater) is None
            if duel.state.phase == model.OPEN:
                assert duel.step("challenge", *signed, sender=honest) is None
            elif arena.chain.now < duel.state.dispute.deadline and duel.state.dispute.version < version:
                assert duel.step("refute", *signed, sender=honest) is None
            enforced = duel.state.dispute.version
            assert enforced == version or arena.chain.now >= duel.state.dispute.deadline
            self.finish(duel, honest)
            assert arena.adjudicator.event("Settled").version == enforced

    def finish(self, duel: Duel, sender: bytes) -> None:
        """Prove, test and settle: a number of transactions that only the fixes and the calls decide."""
        arena, calls = self.arena, duel.state.dispute.calls
        before, fixes = arena.steps, len(duel.needed())
        arena.at_least(max([duel.state.fix_time, *(call.time + 1 for call in calls)]))
        prove_everything(duel)
        tested = 0
        for i, call in enumerate(calls):
            if call.verdict is None or not call.verdict.complete:
                assert duel.step("test", duel.on_record(), i, sender=sender) is None
                tested += 1
        assert duel.step("settle", duel.on_record(), sender=sender) is None
        assert duel.state.ledger.pot == 0
        assert arena.steps - before == fixes + tested + 1

    @rule(index=which, prices=st.permutations([60, 95, 140]), caller=st.sampled_from([0, 1]), data=st.data())
    def caller_order_timing_and_subset_change_nothing(self, index, prices, caller, data):
        """A dispute with margin calls ends alike whoever proves, tests and settles, when, and in which order."""
        duel, arena = self.duel(index), self.arena
        with arena.fork():
            if duel.state.phase == model.OPEN:
                for party in (0, 1):
                    duel.step("deposit", party, data.draw(st.integers(1, 2000)) * 10**duel.purse.decimals, 0)
            version = data.draw(st.integers(0, 6), "version")
            duel.step("call_margin", *signed_body(duel, version, data), sender=signers_addresses(duel)[caller])
            for wait in data.draw(st.lists(st.sampled_from([0, 30, 700]), max_size=2), "further calls"):
                caller = 1 - caller
                arena.chain.advance(wait)
                duel.step("call_margin", 0, bytes(32), b"", sender=PAYOUTS[caller])
            if duel.state.phase == model.DISPUTED:
                signed_body(duel, duel.state.dispute.version, data)
                self.two_ways(duel, prices, data)

    @rule(index=which, data=st.data())
    def every_door_opens_at_its_moment(self, index, data):
        """A second too early and in time; step() compares with the model what comes of either."""
        duel, arena = self.duel(index), self.arena
        with arena.fork():
            version, body_hash, sigs = signed_body(duel, data.draw(st.integers(0, 6), "version"), data)
            duel.step("call_margin", version, body_hash, sigs, sender=PAYOUTS[0])
            if (index + version) % 2 == 0 and duel.state.dispute.deadline:
                arena.at_least(duel.state.dispute.deadline - 1)
                duel.step("call_margin", 0, bytes(32), b"", sender=PAYOUTS[1])
            dispute, d, grace = duel.state.dispute, duel.state.fix_time, duel.state.grace
            if duel.state.phase != model.DISPUTED:
                return
            signed_body(duel, dispute.version, data)
            body = duel.on_record()
            last = (version, duel.bodies[version], sigs)
            doors = [(dispute.deadline, "refute", duel.signed(dispute.version)), (d + 2 * grace, "settle_last", last)]
            doors += [(d + 2 * grace + 1, "settle_last", last), (d + 3 * grace, "settle_last", last)]
            for n, call in enumerate(dispute.calls):
                doors += [(call.time + k, "deposit", (n % 2, 10**6, 0)) for k in (-1, 0, 1)]
                doors += [(max(call.time + 1, dispute.deadline), "test", (body, n))]
            doors += [(d, "settle", (body,)), (d + grace, "settle", (body,)), (d + model.RELEASE_AFTER, "release", ())]
            moments = [(time + early, name, args) for time, name, args in doors for early in (-1, 0)]
            for moment, name, args in sorted(moments, key=lambda door: door[0]):
                if moment >= arena.chain.now:
                    arena.chain.set_time(moment)
                    prove_everything(duel)
                    with arena.fork() if name in {"settle", "release"} else contextlib.nullcontext():
                        duel.step(name, *args)

    def two_ways(self, duel: Duel, prices, data) -> None:
        arena, dispute = self.arena, duel.state.dispute
        start = max([duel.state.fix_time, arena.chain.now, *(call.time + 1 for call in dispute.calls)])
        end = duel.state.fix_time + duel.state.grace
        if start >= end:
            return
        subset = data.draw(st.sampled_from([[0, 1], [1, 2], [2, 0]]), "subset")
        order = data.draw(st.permutations(range(len(dispute.calls))), "order")
        later = data.draw(st.integers(start, end - 1), "settled at")
        paid = []
        for cheats in (False, True):
            with arena.fork():
                arena.at_least(start)
                if cheats:
                    for fix in duel.needed():
                        arena.prove(duel, fix, self.at(fix, prices), subset)
                    for i in order:
                        duel.step("test", duel.on_record(), i, sender=PAYOUTS[1])
                    duel.step("settle", duel.on_record(), sender=PAYOUTS[1])
                if duel.state.phase == model.DISPUTED:
                    arena.at_least(later if cheats else start)
                    for fix in duel.needed():
                        arena.prove(duel, fix, self.at(fix, prices), [2, 1, 0] if cheats else [0, 1, 2])
                    for i in order if cheats else range(len(order)):
                        duel.step("test", duel.on_record(), i, sender=KEEPER)
                    assert duel.step("settle", duel.on_record(), sender=PAYOUTS[0]) is None
                event = arena.adjudicator.event("Settled")
                paid.append((event.to_a, event.to_b, event.fix_time, event.penalty))
        assert paid[0] == paid[1]
        Desks.decided[event.call != 255, (event.penalty > 0) - (event.penalty < 0)] += 1

    @staticmethod
    def at(fix, percents):
        return [PRICES[fix[0]] * percent // 100 for percent in percents]

    # --- what must always be so --------------------------------------------------------------------------------------

    @invariant()
    def tokens_held_are_pots_and_held_payouts(self):
        self.arena.check_tokens()

    @invariant()
    def nobody_is_paid_more_than_was_there(self):
        for duel in self.arena.duels:
            record = duel.real.record
            assert record.paid_a + record.paid_b <= record.deposited_a + record.deposited_b
            assert (
                record.phase != model.ENDED or record.paid_a + record.paid_b == record.deposited_a + record.deposited_b
            )

    @invariant()
    def floors_never_fall(self):
        for i, duel in enumerate(self.arena.duels):
            floor = duel.real.record.floor_version
            assert floor >= self.floors[i]
            self.floors[i] = floor

    @invariant()
    def no_time_of_a_dispute_moves(self):
        for i, duel in enumerate(self.arena.duels):
            dispute = duel.real.dispute
            if duel.state.phase != model.DISPUTED:
                continue
            call = self.arena.adjudicator.margin_call
            times = [dispute.deadline, *(call(duel.id, dispute.number, n).time for n in range(dispute.calls))]
            number, known = self.times[i] or (0, [])
            assert number != dispute.number or times[: len(known)] == known
            self.times[i] = (dispute.number, times)

    def teardown(self):
        """Either party alone ends every channel in bounded time, whatever it knows and whatever the others do."""
        if self.arena is None:
            return
        for i, duel in enumerate(self.arena.duels):
            choice = self.arena.steps + i
            if duel.state.phase != model.ENDED:
                with self.arena.fork():
                    self.leave(duel, choice % 2, choice % 5)
        Desks.taken += self.arena.steps

    def leave(self, duel: Duel, side: int, knows: int) -> None:
        """The oracle is silent, the token is as it is. knows: the record's body, its own, the floor's, none."""
        arena, alone = self.arena, PAYOUTS[side]
        start = arena.chain.now
        if duel.state.phase == model.OPEN:
            assert duel.step("challenge", 0, bytes(32), b"", sender=alone) is None
            if knows != 2 and len(duel.bodies) > 1 and max(duel.bodies) > duel.state.dispute.version:
                # the peer refutes with a state that it then hides
                duel.step("refute", *duel.signed(max(duel.bodies)), sender=PAYOUTS[1 - side])
        d, grace, version = duel.state.fix_time, duel.state.grace, duel.state.dispute.version
        shown = duel.state.dispute.shown
        if knows == 0 and version in duel.bodies:
            arena.at_least(d + grace)
            assert duel.step("settle", duel.bodies[version], sender=alone) is None
            bound = d + grace
        elif knows == 3 and shown is None:
            bound = d + model.RELEASE_AFTER
            arena.at_least(bound)
            assert duel.step("release", sender=alone) is None
        else:
            arena.at_least(d + 2 * grace)
            if shown is None:
                own = [v for v in duel.bodies if v >= duel.state.floor_version]
                known = min(own) if knows == 2 else max(own)
                begun = arena.chain.now
                assert duel.step("settle_last", *self.last(duel, known), sender=alone) is None
                bound = begun + grace
            else:
                bound = shown.end
            arena.at_least(duel.state.dispute.shown.end)
            # what was shown is public
            known = duel.state.dispute.shown.version
            assert duel.step("settle_last", *self.last(duel, known), sender=alone) is None
        assert duel.state.phase == model.ENDED
        assert duel.state.ledger.pot == 0
        assert arena.chain.now <= max(bound, start)
        arena.check_tokens()

    @staticmethod
    def last(duel: Duel, version: int):
        _, _, sigs = duel.signed(version)
        return version, duel.bodies[version], sigs


def test_whatever_anybody_does():
    """Runs until the steps wanted are taken; `-s` prints how many."""
    Desks.taken = 0
    rounds = 0
    while Desks.taken < WANTED:
        run_state_machine_as_test(
            Desks,
            settings=settings(
                max_examples=100 if NIGHTLY else 20,
                stateful_step_count=50,
                deadline=None,
                derandomize=not NIGHTLY,
                database=None,
                phases=(Phase.generate, Phase.shrink) if NIGHTLY else (Phase.generate,),
                suppress_health_check=list(HealthCheck),
            ),
        )
        rounds += 1
        print(f"{Desks.taken} steps", flush=True)  # noqa: T201 - asked for with -s
        assert rounds <= 100
    assert {call for call, _ in Desks.decided} == {False, True}
    assert {penalty for _, penalty in Desks.decided} > {0}
    print(f"{Desks.taken} steps in {rounds} rounds, {dict(Desks.decided)}")  # noqa: T201 - asked for with -s
