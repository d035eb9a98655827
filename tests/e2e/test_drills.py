"""The runbook's drills: its commands as they stand on the page, on real processes and a real chain, to the unit."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from dispute_world import ETH, PAYOUT_KEYS, START, UNITS, World, book, keystore, role_key
from drill_support import FaultyThread, Shell, commands, every_drill, wait_for

from channeld.chain.transactions import GWEI
from channeld.cli.client import DevnetClient
from channeld.cli.processes import Cast, answers, free_port
from channeld.core.crypto import address_of
from channeld.core.eip712 import body_hash
from channeld.core.settlement import (
    MarginCall,
    call_time,
    entitlement,
    fix_time,
    judge,
    settle_amounts,
    settle_with_calls,
)
from channeld.core.wad import WAD

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("drills")]

CHAINS = [
    "embedded",
    pytest.param(
        "anvil",
        marks=[pytest.mark.anvil, pytest.mark.skipif(shutil.which("anvil") is None, reason="anvil is not installed")],
    ),
]
WITH_DAEMONS = {"vanish", "disk-lost", "disk-from-peer"}
HERE = {"cheat", "key-lost", "oracle-dead", "rpc-lies", "reorganisation", "gas", "both", "margin"}


@pytest.fixture(scope="module", params=CHAINS)
def chain(request, tmp_path_factory):
    """A devnet as a process of its own, with contracts on it."""
    with Cast(tmp_path_factory.mktemp("drills")) as cast:
        port = free_port()
        arguments = ["devnet", "--port", str(port), "--backend", request.param, "--start-time", str(START)]
        url = f"http://127.0.0.1:{port}"
        cast.start("devnet", arguments).wait_ready(answers(url + "/healthz"))
        world = World(url)
        world.devnet, world.backend = DevnetClient(url), request.param
        yield world


class Drill:
    """One channel, the maker's bundle of its newest state, and the page's variables."""

    def __init__(self, chain, folder, *, size=20, version=7, **terms):
        self.chain = chain
        self.case = chain.open(**terms)
        self.body = book(chain.now(), size=size, balance=UNITS - 12_345)
        self.bundle = self.case.bundle(version, self.body)
        path = self.case.write(folder / "bundle.json", self.bundle)
        _, keys, _, secret = keystore(folder, role_key("maker"), "hot")
        _, cold, *_ = keystore(folder, PAYOUT_KEYS[0], "cold")
        self.packages = folder / "packages"
        self.packages.mkdir()
        self.shell = Shell(
            bundle=path,
            rpc=chain.url,
            keystore=keys,
            password_file=secret,
            payout_keystore=cold,
            folder=self.packages,
            oracle="http://127.0.0.1:9",
        )

    @property
    def fix_at(self):
        return fix_time(self.case.terms, self.case.dispute().deadline)

    def theirs(self, version=3):
        """What the taker challenges with: an older state."""
        old = book(self.chain.now(), size=1, balance=UNITS + 10**9)
        bundle = self.case.bundle(version, old)
        self.chain.send(
            role_key("taker"), lambda a: a.challenge(self.case.channel, version, body_hash(old), bundle.sigs)
        )

    def due(self, price=2_900, at=None):
        """What settlement pays to a and b."""
        at = at or self.fix_at
        fixes = {(ETH, at): price * WAD} if price else {}
        return settle_amounts(self.case.terms, self.body, fixes, at, UNITS, UNITS, 0, 0)

    def pass_time(self, price=2_900):
        """The challenge period passes, and the oracle's packages are there."""
        at = self.fix_at
        if price:
            self.case.packages(self.packages, at, price)
        self.chain.advance_to(at + 1)
        return at


def test_every_drill_of_the_page_is_run():
    assert set(every_drill()) == WITH_DAEMONS | HERE


def test_the_counterparty_cheats(chain, tmp_path):
    drill = Drill(chain, tmp_path)
    drill.theirs()
    refute, watch = commands("cheat")
    assert "version 7 is on record" in drill.shell.run(refute)
    watching = drill.shell.start(watch)
    drill.pass_time()
    expected = drill.due()
    drill.shell.end(watching)
    assert drill.case.paid() == expected


def test_the_hot_key_is_lost(chain, tmp_path):
    drill = Drill(chain, tmp_path)
    challenge, watch = commands("key-lost")
    before = chain.balance(address_of(PAYOUT_KEYS[0]))
    drill.shell.run(challenge)
    watching = drill.shell.start(watch)
    drill.pass_time(3_050)
    expected = drill.due(3_050)
    drill.shell.end(watching)
    assert drill.case.paid() == expected
    assert chain.balance(address_of(PAYOUT_KEYS[0])) - before == expected[0]


def test_the_oracle_is_dead(chain, tmp_path):
    drill = Drill(chain, tmp_path)
    challenge, watch = commands("oracle-dead")
    drill.shell.run(challenge)
    at = drill.pass_time(price=None)
    watching = drill.shell.start(watch)
    chain.advance_to(at + drill.case.terms.oracle.grace)
    drill.shell.end(watching)
    stand = entitlement(drill.body.a, 0, deposited_a=UNITS, deposited_b=UNITS, paid_a=0, paid_b=0)
    assert drill.case.paid() == drill.due(price=None, at=at) == stand


def test_an_endpoint_lies(chain, tmp_path):
    drill = Drill(chain, tmp_path)
    drill.theirs()
    status, watch = commands("rpc-lies")
    with FaultyThread(chain.url) as liar, FaultyThread(chain.url) as other:
        liar.lies_from, liar.forgets = 0, 10**6
        other.lag = 1
        drill.shell.variables |= {"RPC_LYING": liar.url, "RPC_OTHER": other.url}
        assert "refute" in drill.shell.run(status)
        told = drill.shell.run(status.replace(' --rpc "$RPC_OTHER"', ""), code=15)
        assert "different blocks" in told
        watching = drill.shell.start(watch)
        wait_for(lambda: drill.case.dispute().version == 7)
        drill.pass_time()
        expected = drill.due()
        drill.shell.end(watching)
    assert drill.case.paid() == expected


def test_a_reorganisation_takes_away_a_challenge_and_a_settlement(chain, tmp_path):
    drill = Drill(chain, tmp_path)
    challenge, watch = commands("reorganisation")
    drill.shell.run(challenge)
    take_back(chain, lambda: drill.case.record().phase.name == "OPEN")
    drill.shell.run(challenge, code=None)
    wait_for(lambda: drill.case.record().phase.name == "DISPUTED")
    watching = drill.shell.start(watch)
    drill.pass_time()
    expected = drill.due()
    drill.shell.end(watching)
    assert drill.case.paid() == expected
    take_back(chain, lambda: drill.case.record().phase.name != "ENDED")
    drill.shell.run(watch)
    assert drill.case.paid() == expected


def take_back(chain, gone):
    """Replace the newest block. An anvil puts what it held back into its pool, and mines it again."""
    before = chain.run(lambda rpc: rpc.header())
    chain.devnet.call("channeld_reorganise", 1)
    after = chain.run(lambda rpc: rpc.find_header(before.number))
    assert after is None or after.hash != before.hash
    assert gone() or chain.backend == "anvil"


def test_gas_rises_tenfold_before_the_deadline(chain, tmp_path):
    drill = Drill(chain, tmp_path)
    drill.theirs()
    (refute,) = commands("gas")
    with FaultyThread(chain.url) as node:
        node.base_fee, node.spike = 30 * GWEI, 300 * GWEI
        drill.shell.variables["RPC"] = node.url
        # the deadline is near, so that attempts follow each other
        chain.advance_to(drill.case.dispute().deadline - 45)
        drill.shell.run(refute)
        assert node.prices[0] < 300 * GWEI <= node.prices[-1]
    assert drill.case.dispute().version == 7
    drill.pass_time()
    expected = drill.due()
    drill.shell.variables["RPC"] = chain.url
    drill.shell.run(commands("cheat")[1])
    assert drill.case.paid() == expected


def test_both_sides_challenge_at_once(chain, tmp_path):
    drill = Drill(chain, tmp_path)
    theirs = drill.case.write(
        tmp_path / "theirs.json", replace(drill.case.bundle(5, book(chain.now(), size=1)), side=1)
    )
    _, keys, *_ = keystore(tmp_path / "..", role_key("taker"), f"taker-{drill.case.channel.hex()[:8]}")
    challenge = commands("vanish")[0]
    other = Shell(**{k.lower(): v for k, v in drill.shell.variables.items()})
    other.variables |= {"BUNDLE": str(theirs), "KEYSTORE": str(keys)}
    racing = [drill.shell.start(challenge), other.start(challenge)]
    codes = []
    for process in racing:
        drill.shell.end(process, code=None)
        codes.append(process.returncode)
    assert min(codes) == 0
    assert set(codes) <= {0, 11, 15}
    status, watch = commands("both")
    drill.shell.run(status)
    watching = drill.shell.start(watch)
    wait_for(lambda: drill.case.dispute().version == 7)
    drill.pass_time()
    expected = drill.due()
    drill.shell.end(watching)
    assert drill.case.paid() == expected


def test_a_margin_call_is_judged_at_its_time(chain, tmp_path):
    drill = Drill(chain, tmp_path)
    call, watch = commands("margin")
    drill.shell.run(call)
    dispute = drill.case.dispute()
    called = call_time(drill.case.terms, dispute.deadline - drill.case.terms.challenge_period)
    drill.case.packages(drill.packages, called, 2_540)
    watching = drill.shell.start(watch)
    drill.pass_time(2_540)
    drill.shell.end(watching)
    verdict = judge(drill.case.terms, drill.body, {(ETH, called): (2_540 * WAD, 6)}, called, UNITS, UNITS, 0, 0)
    assert verdict.below_a
    fixes = {(ETH, called): 2_540 * WAD}
    judged = [MarginCall(called, verdict)]
    assert drill.case.paid() == settle_with_calls(
        drill.case.terms, drill.body, fixes, dispute.deadline, judged, UNITS, UNITS, 0, 0
    )
