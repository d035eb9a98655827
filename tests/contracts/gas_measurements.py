"""What each function costs: gasUsed of receipts on py-evm, every transaction in a block of its own, so all is cold.

Conditions: a token of six decimals, payees and contract with balances of it already, accounts without code, three
oracle signers, two markets, the first use of a channel, one payee for `withdraw`. Everything is fixed (time, keys,
addresses), so that the figures are the same everywhere. scripts/make_gas.py writes docs/gas.md from them.
"""

from __future__ import annotations

from dataclasses import dataclass

from contracts_harness import (
    BTC,
    ETH,
    KEYS,
    Account,
    Channel,
    Contract,
    Kind,
    World,
    abi_type,
    artifact,
    key,
    make_market,
    make_oracle,
    make_terms,
    option,
)
from eth_abi import encode
from eth_tester import EthereumTester, PyEVMBackend

from channeld.core import crypto
from channeld.core.packages import DataPoint, sign_package
from channeld.core.settlement import fix_time, fixes_needed
from channeld.core.terms import Oracle, Party, feed_id
from channeld.core.wad import DAY, WAD

# in the far future: py-evm's blocks are never older than the machine's clock
START = 4_000_000_000
ONE = Account(10**15, 10**15, 0)


@dataclass(frozen=True)
class Row:
    """A line of the page: the target and the peers' figures are the issue's."""

    name: str
    target: int | None
    peers: str = "-"
    calldata: int = 0


ROWS = (
    Row("open", 230_000, "Raiden open 111k; Celer open 329k"),
    Row("deposit", 75_000),
    Row("deposit_with_permit", None),
    Row("withdraw, one payee", 115_000),
    Row("anchor, no floor yet", 75_000, "Nitro checkpoint 74k"),
    Row("anchor, a floor exists", 60_000, "Nitro checkpoint 74k"),
    Row("anchor_many, 32 channels' worth", None, "Nitro checkpoint 74k each"),
    Row("close", 112_000, "Nitro conclude 112k; Raiden cooperative settle 112k; Celer cooperative settle 129k"),
    Row("challenge", 95_000, "Nitro challenge 113k; Raiden close 119k; Celer intend settle 107k"),
    Row("refute", 60_000, "Raiden update 91k; Nitro checkpoint 74k"),
    Row("call_margin, a challenge too", None, "none has any"),
    Row("call_margin in a dispute", None, "none has any"),
    Row("resume", None, "Nitro checkpoint 74k"),
    Row("prove_fix, three signers", 80_000),
    Row(
        "test of a call, 32 options",
        3_200_000,
        "none; a scenario margin on chain costs about 1.4M per option elsewhere",
    ),
    Row("test of a call, 64 options", 6_400_000, "the same"),
    Row("settle, empty book", None, "Raiden settle 109k; Celer confirm 80k"),
    Row("settle, 32 options", 450_000, "none settles positions; Raiden settle 109k; Celer confirm 80k"),
    Row("settle, 64 options", None, "the same"),
    Row("settle, 32 options, by a margin call", None, "none has any"),
    Row("settle_last, showing 32 options", None),
    Row("settle_last, paying 32 options", None),
    Row("release", None),
)
LIMITS = (
    Row("prove_fix, 45 packages of 8 feeds", 12_000_000),
    Row("test, 8 markets, 64 positions, 16 pairs", 12_000_000),
    Row("settle, 8 markets, 64 positions, 16 pairs", 12_000_000),
)
CALLDATA_LIMIT = 98_304


class EmbeddedChain:
    """A chain of the harness's shape whose every call is a block of its own."""

    def __init__(self):
        self.tester = EthereumTester(PyEVMBackend())
        self.accounts = [bytes.fromhex(a[2:]) for a in self.tester.get_accounts()]
        self.chain_id = self.tester.backend.chain.chain_id
        self.gas_used = 0
        self.calldata = 0
        self.set_time(START)

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
        self.gas_used, self.calldata = receipt["gas_used"], len(data)
        return receipt

    def deploy(self, name: str, *args) -> Contract:
        built = artifact(name)
        inputs = next((e["inputs"] for e in built["abi"] if e["type"] == "constructor"), [])
        code = bytes.fromhex(built["bytecode"][2:]) + encode([abi_type(i) for i in inputs], args)
        receipt = self.transact(self.accounts[0], None, code, 10_000_000)
        return Contract(self, bytes.fromhex(receipt["contract_address"][2:]), built["abi"])

    def send(self, sender: bytes, to: bytes, data: bytes, *, static: bool, gas: int):
        sender = sender if sender in self.accounts else self.accounts[0]
        if not static:
            self.transact(sender, to, data, gas)
            return b"", []
        fields = {"from": "0x" + sender.hex(), "to": "0x" + to.hex(), "data": "0x" + data.hex(), "gas": gas}
        return bytes.fromhex(self.tester.call(fields)[2:]), []


def options(count: int, expiry: int):
    """Options on both feeds, calls and puts, long and short."""
    return tuple(
        option(
            kind, feed, expiry, (1000 + 100 * i) * WAD + 17, (7 - i) * WAD - 3, 123 * WAD + 456_789 + i, vol=WAD // 3
        )
        for kind in (Kind.CALL, Kind.PUT)
        for feed in (BTC, ETH)
        for i in range(count // 4)
    )


class Measurement:
    """One chain, on which every figure is taken."""

    def __init__(self):
        self.chain = EmbeddedChain()
        self.world = World.on(self.chain, self.chain.deploy("PermitToken", 6))
        for holder in (self.world.adjudicator.address, *self.chain.accounts[1:3]):
            self.world.token.mint(holder, 10**6)
        self.world.token.mint(self.chain.accounts[0], 10**20)
        self.world.token.approve(self.world.adjudicator.address, 10**20)
        self.figures: dict[str, tuple[int, int]] = {}
        self.salt = 0

    def note(self, name: str) -> None:
        """The last transaction is that line's."""
        self.figures[name] = (self.chain.gas_used, self.chain.calldata)

    def fresh(self, **changes) -> Channel:
        """A channel not yet opened, its payees accounts with tokens."""
        self.salt += 1
        parties = [
            Party(crypto.address_of(k), payout) for k, payout in zip(KEYS, self.chain.accounts[1:3], strict=True)
        ]
        terms = {"salt": self.salt.to_bytes(32, "big"), "a": parties[0], "b": parties[1]}
        return Channel(self.world, make_terms(self.world.token.address, **(terms | changes)))

    def funded(self, **changes) -> Channel:
        """An open channel with deposits of both."""
        channel = self.fresh(**changes).open_unchecked()
        for side in (0, 1):
            self.world.adjudicator.deposit(channel.id, side, 10**15, 0)
        return channel

    def prove(self, terms, feed, t, price, keys):
        packages = b"".join(
            sign_package(k, (t - i * terms.oracle.sample_gap) * 1000, [DataPoint(feed, price)])
            for i in range(terms.oracle.samples)
            for k in keys
        )
        self.world.book.prove_fix(terms.oracle, feed, t, packages)

    def measure(self) -> dict[str, tuple[int, int]]:
        """Every line's gas and bytes of calldata."""
        self._funding()
        self._floors()
        self._disputes()
        for count in (32, 64):
            self._book(count)
        self._last_ways()
        self._limits()
        return self.figures

    def _funding(self) -> None:
        channel = self.fresh().open_unchecked()
        self.note("open")
        self.world.adjudicator.deposit(channel.id, 0, 10**15, 0)
        self.note("deposit")
        channel = self.fresh().open_unchecked()
        # the caller's key is py-evm's own: a permit that fails, and an allowance that suffices, cost the same calls
        self.world.adjudicator.deposit_with_permit(channel.id, 0, 10**15, 0, START * 2, 27, b"\1" * 32, b"\1" * 32)
        self.note("deposit_with_permit")
        channel = self.funded()
        self.world.adjudicator.withdraw(*channel.sign_withdrawal(7, 10**9, 0))
        self.note("withdraw, one payee")
        channel = self.funded()
        close = channel.sign_close(7, Account(10**15 + 5, 10**15, 0), ONE, self.chain.now + 600)
        self.world.adjudicator.close(*close)
        self.note("close")

    def _floors(self) -> None:
        channel = self.funded()
        body = channel.body(ONE, ONE)
        self.world.adjudicator.anchor(channel.id, *channel.sign_state(5, body))
        self.note("anchor, no floor yet")
        self.world.adjudicator.anchor(channel.id, *channel.sign_state(6, body))
        self.note("anchor, a floor exists")
        channels = [self.fresh().open_unchecked() for _ in range(32)]
        self.world.adjudicator.anchor_many([(c.id, *c.sign_state(5, body)) for c in channels])
        self.note("anchor_many, 32 channels' worth")

    def _disputes(self) -> None:
        adjudicator, party = self.world.adjudicator, self.chain.accounts[1]
        channel = self.funded()
        body = channel.body(ONE, ONE)
        adjudicator.challenge(channel.id, *channel.sign_state(5, body), sender=party)
        self.note("challenge")
        adjudicator.refute(channel.id, *channel.sign_state(9, body))
        self.note("refute")
        adjudicator.call_margin(channel.id, 9, bytes(32), b"", sender=party)
        self.note("call_margin in a dispute")
        adjudicator.resume(*channel.sign_resume(1, self.chain.now + 600))
        self.note("resume")
        channel = self.funded()
        adjudicator.call_margin(channel.id, *channel.sign_state(5, body), sender=party)
        self.note("call_margin, a challenge too")
        channel = self.funded()
        adjudicator.challenge(channel.id, *channel.sign_state(5, body), sender=party)
        self.chain.set_time(fix_time(channel.terms, channel.dispute.deadline))
        adjudicator.settle(channel.terms, body)
        self.note("settle, empty book")

    def _prove_both(self, terms, t, keys) -> None:
        from contracts_harness import ORACLE_KEYS  # noqa: PLC0415 - a name for the default alone

        for feed, price in ((BTC, 64_000 * 10**8 + 7), (ETH, 3000 * 10**8 + 7)):
            self.prove(terms, feed, t, price, keys or ORACLE_KEYS)

    def _book(self, count: int) -> None:
        adjudicator, party = self.world.adjudicator, self.chain.accounts[1]
        expiry = self.chain.now // DAY * DAY + 30 * DAY
        for call in (False, True):
            channel = self.funded()
            body = channel.body(ONE, ONE, options(count, expiry), as_of=self.chain.now - 60)
            state = channel.sign_state(5, body)
            (adjudicator.call_margin if call else adjudicator.challenge)(channel.id, *state, sender=party)
            d = fix_time(channel.terms, channel.dispute.deadline)
            self.chain.set_time(d + 10)
            self._prove_both(channel.terms, d, None)
            if count == 32 and not call:
                self.note("prove_fix, three signers")
            if call:
                time = channel.margin_call().time
                self._prove_both(channel.terms, time, None)
                adjudicator.test(channel.terms, body, 0)
                self.note(f"test of a call, {count} options")
            adjudicator.settle(channel.terms, body)
            if not call:
                self.note(f"settle, {count} options")
            elif count == 32:
                self.note("settle, 32 options, by a margin call")

    def _last_ways(self) -> None:
        adjudicator, party = self.world.adjudicator, self.chain.accounts[1]
        channel = self.funded()
        body = channel.body(ONE, ONE, options(32, self.chain.now // DAY * DAY + 30 * DAY), as_of=self.chain.now - 60)
        adjudicator.challenge(channel.id, 9, *channel.sign_state(9, channel.body(ONE, ONE))[1:], sender=party)
        d, grace = fix_time(channel.terms, channel.dispute.deadline), channel.terms.oracle.grace
        self.chain.set_time(d + 2 * grace)
        self._prove_both(channel.terms, d, None)
        adjudicator.settle_last(channel.terms, 5, body, channel.sign_state(5, body)[2])
        self.note("settle_last, showing 32 options")
        self.chain.set_time(channel.dispute.window_end)
        adjudicator.settle_last(channel.terms, 5, body, b"")
        self.note("settle_last, paying 32 options")
        channel = self.funded()
        adjudicator.challenge(channel.id, 9, *channel.sign_state(9, channel.body(ONE, ONE))[1:], sender=party)
        self.chain.set_time(fix_time(channel.terms, channel.dispute.deadline) + 180 * DAY)
        adjudicator.release(channel.terms)
        self.note("release")

    def _limits(self) -> None:
        """Nine signers of five samples; eight markets, 64 positions of 16 pairs (feed, expiry), a collateral feed."""
        adjudicator, party = self.world.adjudicator, self.chain.accounts[1]
        keys = tuple(sorted((key(300 + i) for i in range(9)), key=crypto.address_of))
        oracle: Oracle = make_oracle(
            signers=tuple(map(crypto.address_of, keys)), quorum=5, samples=5, sample_gap=60, tick=10
        )
        feeds = tuple(sorted(feed_id(name) for name in ("ADA", "AVAX", "BNB", "BTC", "DOGE", "ETH", "SOL", "XRP")))
        channel = self.funded(
            oracle=oracle,
            markets=tuple(map(make_market, feeds)),
            collateral_feed=feed_id("USDC"),
            haircut=WAD // 50,
        )
        # one expiry between L and D, one after: the test has them all to margin, the settlement sixteen fixes to find
        expiries = (self.chain.now // 10 * 10 + 12 * 3600, self.chain.now // DAY * DAY + 30 * DAY)
        positions = [
            option(kind, feed, expiry, (2500 + 100 * i) * WAD, (-1) ** i * WAD, 100 * WAD, carry=WAD // 20)
            for kind in (Kind.CALL, Kind.PUT)
            for feed in feeds
            for expiry in expiries
            for i in range(2)
        ]
        body = channel.body(ONE, ONE, tuple(positions), as_of=self.chain.now - 60)
        adjudicator.call_margin(channel.id, *channel.sign_state(5, body), sender=party)
        time = channel.margin_call().time
        self.chain.set_time(fix_time(channel.terms, channel.dispute.deadline) + 10)
        points = [DataPoint(feed, 3000 * 10**8 + 7) for feed in feeds]
        for feed, at in fixes_needed(channel.terms, body, time):
            packages = b"".join(
                sign_package(k, (at - i * 60) * 1000, points if feed in feeds else [DataPoint(feed, 10**8 + 7)])
                for i in range(5)
                for k in keys
            )
            self.world.book.prove_fix(oracle, feed, at, packages)
            if feed in feeds:
                self.note("prove_fix, 45 packages of 8 feeds")
        adjudicator.test(channel.terms, body, 0)
        self.note("test, 8 markets, 64 positions, 16 pairs")
        # the heaviest fixes are those of D
        d = fix_time(channel.terms, channel.dispute.deadline)
        for feed, at in fixes_needed(channel.terms, body, d):
            packages = b"".join(
                sign_package(k, (at - i * 60) * 1000, [DataPoint(feed, 10**8 + 7)]) for i in range(5) for k in keys
            )
            self.world.book.prove_fix(oracle, feed, at, packages)
        adjudicator.settle(channel.terms, body)
        self.note("settle, 8 markets, 64 positions, 16 pairs")


HEADER = """# Gas

Written by `scripts/make_gas.py`; `scripts/make_gas.py --check` and tests/contracts/test_gas.py fail on a difference.

gasUsed of receipts, each transaction in a block of its own (all cold), on py-evm: a token of six decimals, payees and
contract with balances of it, accounts without code, three oracle signers, two markets, the first use of the channel,
one payee for `withdraw`. Targets are those the contracts were built to. The peers' figures are the ones they publish
(Nitro: challenge, checkpoint, conclude; Raiden: open, close, update, settle; Celer: open, intend settle, confirm), of
functions that do the nearest thing: none of theirs values a position or judges a margin.

"""


def table(rows, figures) -> list[str]:
    """Lines of the page."""
    lines = ["| | gas | target | bytes of calldata | elsewhere |", "| --- | ---: | ---: | ---: | --- |"]
    for row in rows:
        gas, calldata = figures[row.name]
        target = f"{row.target:,}" if row.target else "-"
        lines.append(f"| {row.name} | {gas:,} | {target} | {calldata:,} | {row.peers} |")
    return lines


def page(figures: dict[str, tuple[int, int]]) -> str:
    """docs/gas.md."""
    limits = [
        "",
        "## At the limits",
        "",
        "Nine signers of five samples, eight markets and a collateral feed, 64 positions: each function in one",
        f"transaction of at most 12M gas and {CALLDATA_LIMIT:,} bytes of calldata.",
        "",
    ]
    return HEADER + "\n".join([*table(ROWS, figures), *limits, *table(LIMITS, figures)]) + "\n"
