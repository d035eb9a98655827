"""Gas by receipt, each transaction cold, on py-evm: printed, and held to the targets.

Six decimals, payees and contract with balances of the token already, three oracle signers, two markets, first use of
the channel, one payee for `withdraw`.
"""

from __future__ import annotations

import pytest
from contracts_harness import (
    BTC,
    ETH,
    KEYS,
    ORACLE_KEYS,
    Account,
    Channel,
    Contract,
    Kind,
    World,
    artifact,
    make_terms,
    option,
)
from eth_abi import encode
from eth_tester import EthereumTester, PyEVMBackend

from channeld.core import crypto
from channeld.core.packages import DataPoint, sign_package
from channeld.core.terms import Party
from channeld.core.wad import DAY, WAD

TARGETS = {
    "open": 230_000,
    "deposit": 75_000,
    "challenge": 95_000,
    "refute": 60_000,
    "withdraw": 115_000,
    "close": 112_000,
    "prove_fix": 80_000,
    "settle of 32 options": 450_000,
    "settle of 64 options": 12_000_000,
}


class EmbeddedChain:
    """A chain of the harness's shape whose every call is a block of its own."""

    def __init__(self):
        self.tester = EthereumTester(PyEVMBackend())
        self.accounts = [bytes.fromhex(a[2:]) for a in self.tester.get_accounts()]
        self.chain_id = self.tester.backend.chain.chain_id
        self.gas_used = 0

    @property
    def now(self) -> int:
        return self.tester.get_block_by_number("pending")["timestamp"]

    def set_time(self, timestamp: int) -> None:
        self.tester.time_travel(timestamp)

    def transact(self, sender: bytes, to: bytes | None, data: bytes, gas: int):
        fields = {"from": "0x" + sender.hex(), "data": "0x" + data.hex(), "gas": gas}
        if to:
            fields["to"] = "0x" + to.hex()
        receipt = self.tester.get_transaction_receipt(self.tester.send_transaction(fields))
        assert receipt["status"] == 1
        self.gas_used = receipt["gas_used"]
        return receipt

    def deploy(self, name: str, *args) -> Contract:
        built = artifact(name)
        inputs = next((e["inputs"] for e in built["abi"] if e["type"] == "constructor"), [])
        code = bytes.fromhex(built["bytecode"][2:]) + encode([i["type"] for i in inputs], args)
        receipt = self.transact(self.accounts[0], None, code, 10_000_000)
        return Contract(self, bytes.fromhex(receipt["contract_address"][2:]), built["abi"])

    def send(self, sender: bytes, to: bytes, data: bytes, *, static: bool, gas: int):
        sender = sender if sender in self.accounts else self.accounts[0]
        fields = {"from": "0x" + sender.hex(), "to": "0x" + to.hex(), "data": "0x" + data.hex(), "gas": gas}
        out = bytes.fromhex(self.tester.call(fields)[2:])
        if not static:
            self.transact(sender, to, data, gas)
        return out, []


@pytest.fixture(scope="module")
def world() -> World:
    chain = EmbeddedChain()
    world = World.on(chain, chain.deploy("TestToken", "Test", "TST", 6))
    for holder in (world.adjudicator.address, *chain.accounts[1:3]):
        world.token.mint(holder, 10**6)
    return world


def fresh(world: World, number: int) -> Channel:
    accounts = world.chain.accounts
    parties = [Party(crypto.address_of(k), payout) for k, payout in zip(KEYS, accounts[1:3], strict=True)]
    terms = make_terms(world.token.address, salt=number.to_bytes(32, "big"), a=parties[0], b=parties[1])
    return Channel(world, terms)


def funded(world: World, number: int) -> Channel:
    channel = fresh(world, number).open()
    world.token.mint(world.chain.accounts[0], 10**16)
    world.token.approve(world.adjudicator.address, 2 * 10**15)
    for side in (0, 1):
        world.adjudicator.deposit(channel.id, side, 10**15, 0)
    return channel


def options(count: int, expiry: int):
    half = count // 4
    return tuple(
        option(
            kind, feed, expiry, (1000 + 100 * i) * WAD + 17, (7 - i) * WAD - 3, 123 * WAD + 456_789 + i, vol=WAD // 3
        )
        for kind in (Kind.CALL, Kind.PUT)
        for feed in (BTC, ETH)
        for i in range(half)
        if (7 - i) * WAD - 3
    )


def test_gas_is_within_the_targets(world):
    chain, measured = world.chain, {}

    def measure(name):
        measured[name] = chain.gas_used

    one = Account(10**15, 10**15, 0)
    channel = fresh(world, 1).open()
    measure("open")
    world.token.mint(chain.accounts[0], 10**16)
    world.token.approve(world.adjudicator.address, 10**16)
    world.adjudicator.deposit(channel.id, 0, 10**15, 0)
    measure("deposit")
    world.adjudicator.deposit(channel.id, 1, 10**15, 0)
    world.adjudicator.challenge(channel.id, *channel.sign_state(5, channel.body(one, one)), sender=chain.accounts[1])
    measure("challenge")
    world.adjudicator.refute(channel.id, *channel.sign_state(9, channel.body(one, one)))
    measure("refute")

    channel = funded(world, 2)
    world.adjudicator.withdraw(*channel.sign_withdrawal(7, 10**9, 0))
    measure("withdraw")
    channel = funded(world, 3)
    world.adjudicator.close(*channel.sign_close(7, Account(10**15 + 5, 10**15, 0), one, chain.now + 600))
    measure("close")

    for count in (32, 64):
        channel = funded(world, 100 + count)
        body = channel.body(one, one, options(count, chain.now // DAY * DAY + 30 * DAY), as_of=chain.now - 60)
        assert len(body.positions) == count
        world.adjudicator.challenge(channel.id, *channel.sign_state(5, body), sender=chain.accounts[1])
        t = -(-channel.dispute.deadline // 10) * 10
        chain.set_time(t + 10)
        for feed, price in ((BTC, 64_000 * 10**8 + 7), (ETH, 3000 * 10**8 + 7)):
            packages = b"".join(sign_package(k, t * 1000, [DataPoint(feed, price)]) for k in ORACLE_KEYS)
            world.book.prove_fix(channel.terms.oracle, feed, t, packages)
            if count == 32:
                measure("prove_fix")
        world.adjudicator.settle(channel.terms, body)
        measure(f"settle of {count} options")

    print()  # noqa: T201 - the figures are the point
    for name, gas in measured.items():
        print(f"{name:>22} {gas:>9,} of {TARGETS[name]:,}")  # noqa: T201 - the same
    assert not {name: gas for name, gas in measured.items() if gas > TARGETS[name]}


def test_every_contract_leaves_room_under_the_size_limit():
    for name in ("Adjudicator", "FixBook", "RiskEngine"):
        built = artifact(name)
        assert built["runtime_length"] + sum(i["length"] for i in built["immutables"]) <= 24_576
