"""The ledger as a state machine: the highest state wins, quotas hold, a restart loses nothing answered for."""

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tower_support import DOMAIN, MAKER, STRANGER, TAKER, channel_of, held_of, role, terms_of

from channeld.core.eip712 import Domain
from channeld.core.errors import StoreError
from channeld.store.errors import DiskFullError
from channeld.store.memory import MemoryStore
from channeld.tower.errors import (
    BadStateSignaturesError,
    ConflictingStateError,
    ForeignChannelError,
    NotWatchedError,
    OtherTowerContractsError,
    OverQuotaError,
    OwnersFileError,
)
from channeld.tower.ledger import Ledger, Owners, read_owners

TERMS = [terms_of(salt) for salt in range(4)]
CHANNELS = [channel_of(terms) for terms in TERMS]
OWNERS = Owners({MAKER: 2, TAKER: 3}, capacity=3)
STATES = {(n, version): held_of(CHANNELS[n], version) for n in range(4) for version in range(1, 6)}
QUOTAS = {MAKER: 2, TAKER: 3}


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.store = MemoryStore()
        self.owned = {MAKER: set(), TAKER: set()}
        self.ended = set()
        self.highest = dict.fromkeys(range(4), 0)
        self.restart()

    def do(self, work):
        return self.loop.run_until_complete(work)

    @rule()
    def restart(self):
        self.ledger = Ledger(self.store, DOMAIN, OWNERS)
        self.do(self.ledger.load())

    def _live(self, owner=None):
        known = self.owned[owner] if owner else self.owned[MAKER] | self.owned[TAKER]
        return known - self.ended

    @rule(owner=st.sampled_from((MAKER, TAKER)), n=st.integers(0, 3))
    def register(self, owner, n):
        fits = len(self._live(owner)) < QUOTAS[owner]
        room = n in self.owned[MAKER] | self.owned[TAKER] or len(self._live()) < 3
        if n in self.owned[owner] or (fits and room):
            self.do(self.ledger.register(owner, DOMAIN, TERMS[n]))
            self.owned[owner].add(n)
        else:
            with pytest.raises(OverQuotaError):
                self.do(self.ledger.register(owner, DOMAIN, TERMS[n]))

    @rule(owner=st.sampled_from((MAKER, TAKER)), n=st.integers(0, 3), version=st.integers(1, 5))
    def put(self, owner, n, version):
        if n not in self.owned[owner]:
            with pytest.raises(NotWatchedError):
                self.do(self.ledger.put(owner, CHANNELS[n], STATES[n, version]))
            return
        self.highest[n] = max(self.highest[n], version)
        watched = self.do(self.ledger.put(owner, CHANNELS[n], STATES[n, version]))
        assert watched.durable == STATES[n, self.highest[n]]

    @rule(n=st.integers(0, 3), version=st.integers(1, 5), forger=st.sampled_from(("maker", "stranger")))
    def forge(self, n, version, forger):
        """A state that one of the two has not signed is never kept."""
        if n in self.owned[MAKER] and version > self.highest[n]:
            with pytest.raises(BadStateSignaturesError):
                self.do(self.ledger.put(MAKER, CHANNELS[n], held_of(CHANNELS[n], version, keys=("maker", forger))))

    @rule(n=st.integers(0, 3))
    def conflict(self, n):
        """Two bodies of one version, both signed by both: the first stays."""
        if n in self.owned[MAKER] and self.highest[n]:
            other = held_of(CHANNELS[n], self.highest[n], b"\7" * 32)
            with pytest.raises(ConflictingStateError):
                self.do(self.ledger.put(MAKER, CHANNELS[n], other))

    @rule(n=st.integers(0, 3))
    def end(self, n):
        if n in self.owned[MAKER] | self.owned[TAKER]:
            self.do(self.ledger.end(CHANNELS[n]))
            self.ended.add(n)

    @invariant()
    def the_model_is_the_ledger(self):
        assert {w.channel for w in self.ledger.live()} == {CHANNELS[n] for n in self._live()}
        for n, version in self.highest.items():
            watched = self.ledger.channels.get(CHANNELS[n])
            assert (watched.durable.version if watched else 0) == version
            if watched:
                assert watched.owners == {owner for owner, known in self.owned.items() if n in known}

    def teardown(self):
        self.loop.close()


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


async def ledger_with(store, owners=OWNERS):
    ledger = Ledger(store, DOMAIN, owners)
    await ledger.load()
    return ledger


async def test_a_stranger_registers_nothing_and_learns_nothing():
    ledger = await ledger_with(MemoryStore(), Owners(anyone=5))
    await ledger.register(MAKER, DOMAIN, TERMS[0])
    with pytest.raises(ForeignChannelError):
        await ledger.register(STRANGER, DOMAIN, TERMS[0])
    for channel in (CHANNELS[0], CHANNELS[1]):
        with pytest.raises(NotWatchedError):
            ledger.look(STRANGER, channel)
    # a party that did not ask for it itself is no owner of it either
    with pytest.raises(NotWatchedError):
        ledger.look(TAKER, CHANNELS[0])


@pytest.mark.parametrize("domain", [Domain(1, DOMAIN.adjudicator), Domain(DOMAIN.chain_id, b"\xbb" * 20)])
async def test_another_contract_is_refused_and_so_are_its_records(domain):
    store = MemoryStore()
    ledger = await ledger_with(store)
    with pytest.raises(ForeignChannelError):
        await ledger.register(MAKER, domain, TERMS[0])
    with pytest.raises(OtherTowerContractsError):
        await Ledger(store, domain, OWNERS).load()


async def test_what_could_not_be_kept_is_not_answered_for():
    store = MemoryStore()
    ledger = await ledger_with(store)
    await ledger.register(MAKER, DOMAIN, TERMS[0])
    await ledger.put(MAKER, CHANNELS[0], STATES[0, 1])
    store.fail_with = DiskFullError("no room")
    for _ in range(2):
        with pytest.raises(StoreError):
            await ledger.put(MAKER, CHANNELS[0], STATES[0, 2])
    watched = ledger.look(MAKER, CHANNELS[0])
    # it refutes with what it was told, and has a receipt for what it could keep
    assert (watched.held.version, watched.durable.version) == (2, 1)


async def test_two_puts_at_once_are_both_durable_when_answered():
    store = MemoryStore()
    ledger = await ledger_with(store)
    await ledger.register(MAKER, DOMAIN, TERMS[0])
    await asyncio.gather(*(ledger.put(MAKER, CHANNELS[0], STATES[0, v]) for v in (3, 1, 5, 5, 2, 4)))
    again = await ledger_with(store)
    assert again.look(MAKER, CHANNELS[0]).durable == STATES[0, 5]


def test_the_owners_file(tmp_path):
    path = tmp_path / "owners.txt"
    path.write_text(f"# desks\n0x{MAKER.hex()}\n0x{TAKER.hex()} 7  # a customer\n\n")
    owners = read_owners(path, anyone=1)
    assert [owners.quota(owner) for owner in (MAKER, TAKER, role("other"))] == [100, 7, 1]
    for wrong in ("0x12 3", f"0x{MAKER.hex()} many", f"0x{MAKER.hex()} 1 2", f"0x{MAKER.hex()} -1"):
        path.write_text(wrong)
        with pytest.raises(OwnersFileError, match="line 1"):
            read_owners(path)
    with pytest.raises(OwnersFileError):
        read_owners(tmp_path / "none")
