"""Contract against model: every step is done by both, and both must say the same. Shared by the property tests.

Rules: `Arena` is one chain with several tokens and channels; `Duel` is one channel. A step that the model refuses must
be refused by the contract under the same name and change nothing; one that it takes must give the same event, records
and token movements. What a token does is modelled here too (`Purse`), so that what is held and what arrives is checked
to the unit.
"""

from __future__ import annotations

import contextlib
from dataclasses import astuple, dataclass, field, replace
from typing import Any

import adjudicator_model as model
from contracts_harness import (
    BTC,
    ETH,
    KEEPER,
    NOW,
    ORACLE_KEYS,
    PAYOUTS,
    USD,
    Chain,
    Channel,
    Contract,
    Reverted,
    World,
    make_market,
    make_oracle,
    make_terms,
)

from channeld.core import settlement
from channeld.core.packages import DataPoint, sign_package
from channeld.core.settlement import fixes_needed
from channeld.core.wad import DAY, WAD

PLAIN, SILENT, REFUSES, DENIES, FEE, CALLS_BACK, BLOCKS = range(7)
NOBODY = b"\0" * 20
EXPIRIES = (NOW + 7200, NOW + DAY)
PRICES = {ETH: 3000 * 10**8, BTC: 60_000 * 10**8, USD: 10**8}


def text(address: bytes) -> str:
    return "0x" + address.hex()


@dataclass
class Purse:
    """A token and what it does: who has what."""

    contract: Contract
    decimals: int
    mode: int = PLAIN
    target: bytes = NOBODY
    wallets: dict[bytes, int] = field(default_factory=dict)
    held: dict[bytes, int] = field(default_factory=dict)

    def misbehave(self, mode: int, target: bytes = NOBODY) -> None:
        self.contract.set_mode(mode, target, b"")
        self.mode, self.target = mode, target

    def arrives(self, amount: int, to: bytes = NOBODY) -> int | None:
        """What of a transfer arrives; None where nothing moves."""
        if self.mode == REFUSES or (self.mode == BLOCKS and to == self.target):
            return None
        return amount - amount // 100 if self.mode == FEE else amount

    def push(self, to: bytes, amount: int) -> None:
        if amount:
            arriving = self.arrives(amount, to)
            if arriving is None:
                self.held[to] = self.held.get(to, 0) + amount
            else:
                self.wallets[to] = self.wallets.get(to, 0) + arriving


@dataclass(repr=False)
class Duel:
    """One channel on the contract and in the model."""

    arena: Arena
    purse: Purse
    real: Channel
    state: model.Channel | None = None
    bodies: dict[int, Any] = field(default_factory=dict)

    @property
    def terms(self):
        return self.real.terms

    @property
    def id(self) -> bytes:
        return self.real.id

    def signed(self, version: int) -> tuple[int, bytes, bytes]:
        """A version with the hash of its one body and both signatures."""
        return self.real.sign_state(version, self.bodies[version])

    def on_record(self):
        """The body on record in the dispute."""
        return self.bodies[self.state.dispute.version]

    def step(self, name: str, *args: Any, sender: bytes = KEEPER) -> str | None:
        """One call, by both; the name of the refusal, or None."""
        return self.arena.step(self, name, args, sender)

    def needed(self) -> list[tuple[bytes, int]]:
        """Every fix that a test or the close-out of the body on record may ask for."""
        dispute = self.state.dispute
        times = [self.state.fix_time, *(call.time for call in dispute.calls)]
        return list(dict.fromkeys(key for t in times for key in fixes_needed(self.terms, self.on_record(), t)))

    def check(self) -> None:
        """The contract's records are the model's."""
        record, dispute = self.real.record, self.real.dispute
        state = self.state
        assert (record.deposited_a, record.deposited_b, record.paid_a, record.paid_b) == state.ledger.totals
        assert (record.phase, record.floor_version, record.floor_hash) == (
            state.phase,
            state.floor_version,
            state.floor_hash,
        )
        assert state.ledger.pot >= 0
        assert dispute.number == state.dispute.number
        assert dispute.deadline == state.dispute.deadline
        assert dispute.calls == len(state.dispute.calls)
        shown = state.dispute.shown
        assert (dispute.shown_version, dispute.window_end) == ((shown.version, shown.end) if shown else (0, 0))
        for index, call in enumerate(state.dispute.calls):
            self._check_call(index, call)
        if state.phase == model.DISPUTED:
            assert (dispute.version, dispute.body_hash) == (state.dispute.version, state.dispute.body_hash)

    def _check_call(self, index: int, call: model.MarginCall) -> None:
        found, verdict = self.arena.adjudicator.margin_call(self.id, self.state.dispute.number, index), call.verdict
        assert (found.party, found.time, found.tested) == (call.side, call.time, verdict is not None)
        if verdict:
            assert (found.below_a, found.below_b) == verdict.below
            assert (found.weight, found.complete) == (verdict.weight, verdict.complete)
            assert found.penalty == abs(verdict.penalty)
        if self.arena.chain.now > call.time:
            assert (found.deposited_a, found.deposited_b) == self.state.deposited_at(call.time)


@dataclass(repr=False)
class Arena:
    """One chain, several tokens, several channels."""

    chain: Chain
    book: Contract
    adjudicator: Contract
    purses: list[Purse]
    duels: list[Duel]
    fixes: dict[tuple[bytes, bytes, int], model.Fix] = field(default_factory=dict)
    steps: int = 0

    @classmethod
    def make(cls, channels: int = 3) -> Arena:
        """Tokens of 6, 8 and 18 decimals, and channels on them in turn, with terms of several kinds."""
        chain = Chain()
        purses = [Purse(chain.deploy("OddToken", d, PLAIN), d) for d in (6, 8, 18)]
        world = World.on(chain, purses[0].contract)
        arena = cls(chain, world.book, world.adjudicator, purses, [])
        for i in range(channels):
            purse = purses[i % 3]
            real = Channel(replace(world, token=purse.contract), odd_terms(i, purse)).open()
            duel = Duel(arena, purse, real, model.open_channel(real.domain, real.terms))
            duel.bodies[0] = real.genesis
            arena.duels.append(duel)
        return arena

    # --- steps -------------------------------------------------------------------------------------------------------

    def step(self, duel: Duel, name: str, args: tuple[Any, ...], sender: bytes) -> str | None:
        before, tx = duel.state, model.Transaction(self.chain.now, sender)
        given, sent = self._arguments(duel, name, args, sender)
        event = None
        try:
            after, event = model.STEPS[name](before, tx, *given)
            expected = None
        except model.Refused as refusal:
            after, expected = before, str(refusal)
        call = getattr(self.adjudicator, name)
        try:
            call(*sent, sender=sender)
            outcome = None
        except Reverted as refusal:
            outcome = str(refusal)
        assert outcome == expected, f"{name}{args}: the contract says {outcome}, the model {expected}"
        self.steps += 1
        duel.state = after
        if expected is None:
            self._compare_event(event)
            if name in {"test", "settle"}:
                self._compare_core(before, name, *args)
            if name.startswith("deposit"):
                duel.purse.wallets[sender] -= args[1]
            for to, amount in zip((duel.terms.a.payout, duel.terms.b.payout), model.paid(before, after), strict=True):
                duel.purse.push(to, amount)
            assert after.floor_version >= before.floor_version
        duel.check()
        return expected

    def _compare_core(self, before: model.Channel, name: str, body: Any, index: int = 0) -> None:
        """core/settlement.py, which the daemon trusts, says what contract and model say."""
        terms, dispute, totals = before.terms, before.dispute, before.ledger.totals
        known = {(feed, t): fix for (oracle, feed, t), fix in self.fixes.items() if oracle == before.oracle_hash}
        if name == "test":
            t = dispute.calls[index].time
            verdict = settlement.judge(terms, body, known, t, *before.deposited_at(t), *totals[2:])
            assert astuple(verdict) == self.adjudicator.event("Tested").verdict
            return
        calls = [
            settlement.MarginCall(
                call.time,
                call.verdict
                and settlement.Verdict(
                    *call.verdict.below, call.verdict.complete, 0, penalty=abs(call.verdict.penalty)
                ),
            )
            for call in dispute.calls
        ]
        values = {key: fix.value for key, fix in known.items()}
        event = self.adjudicator.event("Settled")
        expected = settlement.settle_with_calls(terms, body, values, dispute.deadline, calls, *totals)
        assert (event.to_a, event.to_b) == expected
        weights = {key: fix.weight for key, fix in known.items()}
        assert not settlement.may_settle(terms, body, dispute.deadline, calls, weights, self.chain.now)

    def _arguments(self, duel: Duel, name: str, args: tuple[Any, ...], sender: bytes):
        """The arguments for the model and for the contract."""
        terms, book = duel.terms, self.fixes
        match name:
            case "deposit" | "deposit_with_permit":
                party, amount, at_least = args[:3]
                duel.purse.contract.mint(sender, amount)
                duel.purse.wallets[sender] = duel.purse.wallets.get(sender, 0) + amount
                duel.purse.contract.approve(self.adjudicator.address, amount, sender=sender)
                arriving = duel.purse.arrives(amount, self.adjudicator.address) or 0
                return (party, arriving, at_least), (duel.id, party, amount, at_least, *args[3:])
            case "anchor" | "challenge" | "refute" | "call_margin":
                return args, (duel.id, *args)
            case "resume":
                value, sigs = args
                return args, ((value.channel, value.dispute, value.valid_until), sigs)
            case "test":
                return (*args, book), (terms, *args)
            case "settle":
                return (*args, book), (terms, *args)
            case "settle_last":
                return (*args, book), (terms, *args)
            case "release":
                return args, (terms, *args)
        return args, args

    def _compare_event(self, event: model.Event) -> None:
        name, expected = event
        emitted = self.adjudicator.event(name)
        assert {key: emitted.args.get(key) for key in expected} == expected, name

    def anchor_many(self, anchors: list[tuple[bytes, int, bytes, bytes]]) -> str | None:
        """Many floors at once."""
        states = {duel.id: duel.state for duel in self.duels}
        try:
            states = model.anchor_many(states, model.Transaction(self.chain.now, KEEPER), anchors)
            expected = None
        except model.Refused as refusal:
            expected = str(refusal)
        try:
            self.adjudicator.anchor_many(anchors)
            outcome = None
        except Reverted as refusal:
            outcome = str(refusal)
        assert outcome == expected
        self.steps += 1
        for duel in self.duels:
            duel.state = states[duel.id]
            duel.check()
        return expected

    def claim(self, purse: Purse, payee: bytes) -> str | None:
        """A payee asks for what is held."""
        amount = purse.held.get(payee, 0)
        arriving = purse.arrives(amount, payee)
        expected = None if amount and arriving is not None else "TransferFailed" if amount else "NothingHeld"
        try:
            self.adjudicator.claim(purse.contract.address, payee, sender=payee)
            outcome = None
        except Reverted as refusal:
            outcome = str(refusal)
        assert outcome == expected
        if expected is None:
            purse.held[payee] = 0
            purse.wallets[payee] = purse.wallets.get(payee, 0) + arriving
        self.steps += 1
        return expected

    def prove(self, duel: Duel, key: tuple[bytes, int], prices: list[int], signers: list[int]) -> str | None:
        """Prove a fix by packages of some signers, in that order, each at its own price, for every sample."""
        feed, t = key
        oracle = duel.terms.oracle
        raw = b"".join(
            sign_package(ORACLE_KEYS[i], (t - s * oracle.sample_gap) * 1000, [DataPoint(feed, prices[i])])
            for s in range(oracle.samples)
            for i in signers
        )
        return self.prove_raw(duel, key, raw)

    def prove_raw(self, duel: Duel, key: tuple[bytes, int], raw: bytes) -> str | None:
        """Prove a fix by any bytes."""
        feed, t = key
        oracle = duel.terms.oracle
        tx = model.Transaction(self.chain.now, KEEPER)
        try:
            self.fixes, standing = model.prove_fix(self.fixes, tx, oracle, feed, t, raw)
            expected = None
        except model.Refused as refusal:
            expected, standing = str(refusal), None
        try:
            found = self.book.prove_fix(oracle, feed, t, raw)
            outcome = None
        except Reverted as refusal:
            outcome, found = str(refusal), None
        assert (outcome, found) == (expected, standing)
        self.steps += 1
        return expected

    # --- forks and time ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def fork(self):
        """Everything done inside is undone at its end, on the chain and in the model."""
        states = [(duel, duel.state) for duel in self.duels]
        purses = [(p, p.mode, p.target, dict(p.wallets), dict(p.held)) for p in self.purses]
        fixes = dict(self.fixes)
        with self.chain.anchored():
            yield
        for duel, state in states:
            duel.state = state
        for purse, mode, target, wallets, held in purses:
            purse.mode, purse.target, purse.wallets, purse.held = mode, target, wallets, held
        self.fixes = fixes

    def at_least(self, time: int) -> None:
        """Let time pass until then."""
        if time > self.chain.now:
            self.chain.set_time(time)

    def interesting_times(self) -> list[int]:
        """Moments at which some rule turns, and their neighbours, still to come."""
        turns: set[int] = set()
        for duel in self.duels:
            state = duel.state
            if state.phase == model.DISPUTED:
                d = state.fix_time
                turns |= {state.dispute.deadline, d, d + state.grace, d + 2 * state.grace, d + model.RELEASE_AFTER}
                turns |= {call.time for call in state.dispute.calls}
                turns |= {state.dispute.shown.end} if state.dispute.shown else set()
        around = {t + offset for t in turns for offset in (-1, 0, 1)}
        return sorted(t for t in around if t > self.chain.now)

    def check_tokens(self) -> None:
        """Tokens held are the pots and what is held for payees; payees have what arrived."""
        for purse in self.purses:
            pots = sum(duel.state.ledger.pot for duel in self.duels if duel.purse is purse)
            assert purse.contract.balanceOf(self.adjudicator.address) == pots + sum(purse.held.values())
            for payee in PAYOUTS:
                assert self.adjudicator.held(purse.contract.address, payee) == purse.held.get(payee, 0)
                assert purse.contract.balanceOf(payee) == purse.wallets.get(payee, 0)


def odd_terms(index: int, purse: Purse):
    """Terms that differ from channel to channel: collateral with a feed, several samples, ticks that do not divide."""
    changes: dict[str, Any] = {
        "decimals": purse.decimals,
        "salt": bytes([index + 1]) * 32,
        "challenge_period": 7200,
        "markets": (make_market(BTC), make_market(ETH), make_market(USD)),
    }
    if index % 3 == 0:
        changes["cure_period"] = 600  # room for every call of both
    if index % 3 == 1:
        changes |= {"collateral_feed": USD, "haircut": WAD // 5}
    if index % 3 == 2:
        changes["oracle"] = make_oracle(samples=2, sample_gap=70, tick=70, grace=3700)
    return make_terms(purse.contract.address, **changes)
