"""The contracts on a real EVM (revm), spoken to by name; and one channel with everything a test needs to sign for it.

Rules: every call is a transaction of its own. What a contract refuses is raised as `Reverted` with its error's name.
Time is set, never waited for.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from eth_abi import decode, encode
from pyrevm import EVM, BlockEnv

from channeld.core import crypto, eip712
from channeld.core.packages import DataPoint, sign_package
from channeld.core.state import Account, Body, Instrument, Kind, Position, genesis
from channeld.core.terms import Market, Oracle, Party, Terms, feed_id
from channeld.core.wad import WAD

ROOT = Path(__file__).resolve().parents[2]
NOW = 1_750_000_000  # a tick
GAS_LIMIT = 12_000_000
DEPLOYER = b"\xde" * 20
KEEPER = b"\x4e" * 20
ETH, BTC, USD = feed_id("ETH"), feed_id("BTC"), feed_id("USD")


class Reverted(Exception):  # noqa: N818 - what happened, in the EVM's word
    """A call that was refused. `str` is the custom error's name, or the reason, or the raw data in hexadecimal."""


@functools.cache
def compiler():
    """contracts/compile.py as a module."""
    spec = importlib.util.spec_from_file_location("channeld_contracts_compile", ROOT / "contracts" / "compile.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def artifact(name: str) -> dict[str, Any]:
    """A committed artifact by name; what is not committed (test tokens) is compiled."""
    path = ROOT / "channeld" / "chain" / "artifacts" / f"{name}.json"
    if path.is_file():
        return json.loads(path.read_text())
    return compiler().compile_source(f"testing/{name}.vy")


def abi_type(entry: dict[str, Any]) -> str:
    """The canonical type of an ABI entry, tuples spelled out."""
    kind = entry["type"]
    if not kind.startswith("tuple"):
        return kind
    return "(" + ",".join(abi_type(part) for part in entry["components"]) + ")" + kind[5:]


@functools.cache
def error_names() -> dict[bytes, str]:
    """Custom errors of all contracts by selector."""
    names = {}
    for contract in ("Adjudicator", "FixBook", "RiskEngine", "Rules", "Lens"):
        for entry in artifact(contract)["abi"]:
            if entry["type"] == "error":
                names[crypto.keccak256(f"{entry['name']}()".encode())[:4]] = entry["name"]
    return names


def plain(value: Any) -> Any:
    """Structs of core as the tuples that the ABI encoder wants."""
    match value:
        case Terms():
            names = "a b collateral decimals collateral_feed haircut oracle markets initial_factor closeout_penalty"
            names += " challenge_period cure_period sequencer salt"
        case Party():
            names = "signer payout"
        case Oracle():
            names = "signers quorum tick samples sample_gap max_age grace"
        case Market():
            names = "feed price_scan vol_up vol_down wing_cover spread_charge"
        case Account():
            names = "balance deposited withdrawn"
        case Body():
            names = "as_of collateral_mark journal a b positions"
        case Position():
            i = value.instrument
            return (int(i.kind), i.feed, i.expiry, i.strike, value.size, value.mark, value.carry, value.vol)
        case eip712.Withdrawal():
            names = "channel version body_hash withdrawn_a withdrawn_b"
        case eip712.Close():
            names = "channel version valid_until a b"
        case eip712.Resume():
            names = "channel dispute valid_until"
        case tuple() | list():
            return tuple(plain(part) for part in value)
        case _:
            return value
    return tuple(plain(getattr(value, name)) for name in names.split())


@dataclass(frozen=True)
class Event:
    """A decoded event: its name, its arguments by name, and who emitted it."""

    name: str
    args: dict[str, Any]
    address: bytes

    def __getattr__(self, name):
        return self.args[name]


def refused(error: str):
    """Expect a call to be refused with this error."""
    return pytest.raises(Reverted, match=f"^{re.escape(error)}$")


def hexadecimal(address: bytes) -> str:
    return "0x" + address.hex()


class Chain:
    """One EVM."""

    def __init__(self, timestamp: int = NOW, chain_id: int = 1):
        from pyrevm import CfgEnv, Env  # noqa: PLC0415 - only here

        self.evm = EVM(env=Env(cfg=CfgEnv(chain_id=chain_id)), gas_limit=2**62, spec_id="CANCUN")
        self.chain_id, self.number = chain_id, 1
        self.contracts: dict[bytes, Contract] = {}
        self.gas_used = 0
        self.now = 0
        self.set_time(timestamp)

    def set_time(self, timestamp: int) -> None:
        self.now = timestamp
        self.number += 1
        self.evm.set_block_env(BlockEnv(number=self.number, timestamp=timestamp, gas_limit=10**9))

    def advance(self, seconds: int) -> None:
        self.set_time(self.now + seconds)

    def deploy(self, name: str, *args: Any) -> Contract:
        built = artifact(name)
        inputs = next((e["inputs"] for e in built["abi"] if e["type"] == "constructor"), [])
        code = bytes.fromhex(built["bytecode"][2:]) + encode([abi_type(i) for i in inputs], args)
        address = bytes.fromhex(self.evm.deploy(hexadecimal(DEPLOYER), code)[2:])
        contract = Contract(self, address, built["abi"])
        self.contracts[address] = contract
        return contract

    def send(self, sender: bytes, to: bytes, data: bytes, *, static: bool, gas: int) -> tuple[bytes, list[Event]]:
        # each call a transaction: nothing warm, nothing transient left from the one before
        self.evm.reset_transient_storage()
        try:
            out = self.evm.message_call(hexadecimal(sender), hexadecimal(to), data, gas=gas, is_static=static)
        except RuntimeError as error:
            raise Reverted(self._reason(str(error))) from None
        finally:
            self.gas_used = self.evm.result.gas_used
        events = []
        for entry in self.evm.result.logs:
            address = bytes.fromhex(entry.address[2:])
            if address in self.contracts:
                event = self.contracts[address].decode_event(entry)
                if event:
                    events.append(event)
        return bytes(out), events

    def _reason(self, text: str) -> str:
        match = re.search(r"output: 0x([0-9a-f]*)", text)
        data = bytes.fromhex(match.group(1)) if match else b""
        if data[:4] in error_names():
            return error_names()[data[:4]]
        if data[:4] == bytes.fromhex("08c379a0"):
            return decode(["string"], data[4:])[0]
        return data.hex() or text

    @contextmanager
    def anchored(self):
        """Everything done inside is undone at its end."""
        point, now, number = self.evm.snapshot(), self.now, self.number
        try:
            yield
        finally:
            self.evm.revert(point)
            self.set_time(now)
            self.number = number


class Contract:
    """A deployed contract; its functions are attributes, called with sender and gas. A transaction sets `.events`."""

    def __init__(self, chain: Chain, address: bytes, abi: list[dict[str, Any]]):
        self.chain, self.address = chain, address
        self.functions = {e["name"]: e for e in abi if e["type"] == "function"}
        self.event_abis = {}
        for entry in abi:
            if entry["type"] == "event":
                signature = f"{entry['name']}({','.join(abi_type(i) for i in entry['inputs'])})"
                self.event_abis[crypto.keccak256(signature.encode())] = entry
        self.events: list[Event] = []

    def calldata(self, name: str, *args: Any) -> bytes:
        types = [abi_type(i) for i in self.functions[name]["inputs"]]
        selector = crypto.keccak256(f"{name}({','.join(types)})".encode())[:4]
        values = [a.address if isinstance(a, Contract) else plain(a) for a in args]
        return selector + encode(types, values)

    def __getattr__(self, name: str):
        entry = self.functions[name]
        outputs = [abi_type(o) for o in entry["outputs"]]
        static = entry["stateMutability"] in ("view", "pure")

        def call(*args: Any, sender: bytes = KEEPER, gas: int = GAS_LIMIT) -> Any:
            data = self.calldata(name, *args)
            raw, events = self.chain.send(sender, self.address, data, static=static, gas=gas)
            self.events = self.events if static else events
            if not raw:
                return None
            values = decode(outputs, raw)
            if len(values) != 1:
                return values or None
            if entry["outputs"][0]["type"] == "tuple":
                return Event(
                    name,
                    dict(zip((c["name"] for c in entry["outputs"][0]["components"]), values[0], strict=True)),
                    self.address,
                )
            return values[0]

        return call

    def decode_event(self, entry: Any) -> Event | None:
        topics, data = entry.data
        abi = self.event_abis.get(bytes(topics[0]))
        if abi is None:
            return None
        indexed = [i for i in abi["inputs"] if i["indexed"]]
        rest = [i for i in abi["inputs"] if not i["indexed"]]
        args = {i["name"]: decode([abi_type(i)], bytes(t))[0] for i, t in zip(indexed, topics[1:], strict=True)}
        args |= {i["name"]: v for i, v in zip(rest, decode([abi_type(i) for i in rest], data), strict=True)}
        return Event(abi["name"], args, self.address)

    def event_inputs(self, name: str) -> list[dict[str, Any]]:
        """What the ABI says of an event's inputs."""
        return next(entry["inputs"] for entry in self.event_abis.values() if entry["name"] == name)

    def event(self, name: str) -> Event:
        """The one event of that name in the last transaction."""
        (found,) = [e for e in self.events if e.name == name]
        return found


def key(number: int) -> bytes:
    return crypto.keccak256(b"test key %d" % number)


KEYS = (key(0), key(1))
PAYOUTS = (b"\xaa" * 20, b"\xbb" * 20)
ORACLE_KEYS = tuple(sorted((key(100 + i) for i in range(3)), key=crypto.address_of))


def make_oracle(**changes: Any) -> Oracle:
    values = {
        "signers": tuple(crypto.address_of(k) for k in ORACLE_KEYS),
        "quorum": 2,
        "tick": 10,
        "samples": 1,
        "sample_gap": 0,
        "max_age": 60,
        "grace": 3700,
    }
    return Oracle(**(values | changes))


def make_market(feed: bytes) -> Market:
    return Market(feed, WAD // 10, 6 * WAD // 10, 35 * WAD // 100, WAD // 50, WAD // 200)


def make_terms(collateral: bytes, **changes: Any) -> Terms:
    values = {
        "a": Party(crypto.address_of(KEYS[0]), PAYOUTS[0]),
        "b": Party(crypto.address_of(KEYS[1]), PAYOUTS[1]),
        "collateral": collateral,
        "decimals": 6,
        "collateral_feed": b"\0" * 32,
        "haircut": 0,
        "oracle": make_oracle(),
        "markets": (make_market(BTC), make_market(ETH)),
        "initial_factor": 13 * WAD // 10,
        "closeout_penalty": 3 * WAD // 100,
        "challenge_period": 86_400,
        "cure_period": 3600,
        "sequencer": 0,
        "salt": b"\x5a" * 32,
    }
    return Terms(**(values | changes))


def perpetual(feed: bytes, size: int, mark: int, carry: int = 0) -> Position:
    return Position(Instrument(Kind.PERPETUAL, feed, 0, 0), size, mark, carry, 0)


def option(
    kind: Kind, feed: bytes, expiry: int, strike: int, size: int, mark: int, *, vol: int = WAD // 2, carry: int = 0
) -> Position:
    return Position(Instrument(kind, feed, expiry, strike), size, mark, carry, vol)


@dataclass
class World:
    """The contracts and a token."""

    chain: Chain
    engine: Contract
    book: Contract
    adjudicator: Contract
    token: Contract
    rules: Contract
    lens: Contract

    @classmethod
    def make(
        cls, contract: str = "TestToken", token_args: tuple[Any, ...] = ("Test", "TST", 6), **kwargs: Any
    ) -> World:
        chain = Chain(**kwargs)
        return cls.on(chain, chain.deploy(contract, *token_args))

    @classmethod
    def on(cls, chain: Any, token: Contract) -> World:
        """The contracts on a chain, and a token of it."""
        engine, book, rules = (chain.deploy(name) for name in ("RiskEngine", "FixBook", "Rules"))
        adjudicator = chain.deploy("Adjudicator", engine.address, book.address, rules.address)
        lens = chain.deploy("Lens", adjudicator.address)
        return cls(chain, engine, book, adjudicator, token, rules, lens)

    def another_adjudicator(self) -> Contract:
        """A second Adjudicator that asks the same contracts."""
        return self.chain.deploy("Adjudicator", self.engine.address, self.book.address, self.rules.address)

    def fund(self, channel: bytes, side: int, amount: int, *, caller: bytes = KEEPER, at_least: int = 0) -> Event:
        """Mint, approve and deposit."""
        self.token.mint(caller, amount)
        self.token.approve(self.adjudicator.address, amount, sender=caller)
        self.adjudicator.deposit(channel, side, amount, at_least, sender=caller)
        return self.adjudicator.event("Deposited")

    def prove(self, terms: Terms, feed: bytes, t: int, prices: list[int], keys: tuple[bytes, ...] = ORACLE_KEYS):
        """Prove a fix of one sample, one price (8 decimals) per key."""
        packages = [sign_package(k, t * 1000, [DataPoint(feed, p)]) for k, p in zip(keys, prices, strict=False)]
        return self.book.prove_fix(terms.oracle, feed, t, b"".join(packages))


@dataclass
class Channel:
    """A channel and both its keys."""

    world: World
    terms: Terms
    keys: tuple[bytes, bytes] = KEYS
    id: bytes = b""
    domain: eip712.Domain = field(init=False)

    def __post_init__(self):
        self.domain = eip712.Domain(self.world.chain.chain_id, self.world.adjudicator.address)
        self.id = eip712.channel_id(self.domain, self.terms)

    def open(self) -> Channel:
        assert self.world.adjudicator.open(self.terms) == self.id
        return self

    def open_unchecked(self) -> Channel:
        """Open, on a chain that does not say what a transaction returns."""
        self.world.adjudicator.open(self.terms)
        return self

    @property
    def genesis(self) -> Body:
        return genesis(self.id).body

    @property
    def record(self) -> Event:
        return self.world.adjudicator.channel_record(self.id)

    @property
    def dispute(self) -> Event:
        return self.world.adjudicator.dispute_record(self.id)

    def body(
        self,
        a: Account,
        b: Account,
        positions: tuple[Position, ...] = (),
        *,
        as_of: int = NOW,
        collateral_mark: int = WAD,
        journal: bytes = b"\x01" * 32,
    ) -> Body:
        return Body(as_of, collateral_mark, journal, a, b, positions)

    def both(self, digest: bytes) -> bytes:
        return crypto.sign_digest(self.keys[0], digest) + crypto.sign_digest(self.keys[1], digest)

    def sign_state(self, version: int, body: Body) -> tuple[int, bytes, bytes]:
        """(version, body hash, both signatures)."""
        body_hash = eip712.body_hash(body)
        return version, body_hash, self.both(eip712.state_digest(self.domain, self.id, version, body_hash))

    def sign_withdrawal(self, version: int, withdrawn_a: int, withdrawn_b: int, body_hash: bytes = b"\x07" * 32):
        value = eip712.Withdrawal(self.id, version, body_hash, withdrawn_a, withdrawn_b)
        return value, self.both(eip712.withdrawal_digest(self.domain, value))

    def sign_close(self, version: int, a: Account, b: Account, valid_until: int | None = None):
        value = eip712.Close(self.id, version, self.world.chain.now if valid_until is None else valid_until, a, b)
        return value, self.both(eip712.close_digest(self.domain, value))

    def sign_resume(self, dispute: int, valid_until: int | None = None):
        value = eip712.Resume(self.id, dispute, self.world.chain.now if valid_until is None else valid_until)
        return value, self.both(eip712.resume_digest(self.domain, value))

    def call_margin(self, version: int = 0, body: Body | None = None, *, sender: bytes = PAYOUTS[0]) -> Event:
        """Call margin, with a co-signed body where one is given."""
        args = self.sign_state(version, body) if body else (version, b"\0" * 32, b"")
        self.world.adjudicator.call_margin(self.id, *args, sender=sender)
        return self.world.adjudicator.event("MarginCalled")

    def test(self, body: Body, call: int = 0) -> Event:
        """Judge a margin call; the verdict by name, the event's fields beside it."""
        self.world.adjudicator.test(self.terms, body, call)
        event = self.world.adjudicator.event("Tested")
        (shape,) = [i for i in self.world.adjudicator.event_inputs("Tested") if i["name"] == "verdict"]
        names = [part["name"] for part in shape["components"]]
        return Event("Tested", event.args | dict(zip(names, event.verdict, strict=True)), event.address)

    def margin_call(self, call: int = 0, dispute: int = 1) -> Event:
        return self.world.adjudicator.margin_call(self.id, dispute, call)

    def challenge(self, version: int = 0, body: Body | None = None, *, sender: bytes = PAYOUTS[0]) -> Event:
        """Challenge with a co-signed body, or without anything at the floor."""
        args = self.sign_state(version, body) if body else (version, b"\0" * 32, b"")
        self.world.adjudicator.challenge(self.id, *args, sender=sender)
        return self.world.adjudicator.event("Challenged")

    def settle(self, body: Body) -> Event:
        self.world.adjudicator.settle(self.terms, body)
        return self.world.adjudicator.event("Settled")
