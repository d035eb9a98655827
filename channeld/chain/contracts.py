"""Bindings of the contracts: calls to send, records to read, events to decode, all with the core's own types.

Rules: a `Call` is data; sending it is transactions.py's. Amounts are in units of the collateral, times in Unix seconds.
Signatures travel as `sigs`, a's 65 bytes and then b's. An event holds where it stands on the chain in `at`.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from enum import IntEnum
from importlib import resources
from typing import TYPE_CHECKING, Any

from channeld.chain.abi import KNOWN_ERRORS, Abi, Function
from channeld.chain.errors import ArtifactError
from channeld.core.crypto import keccak256

if TYPE_CHECKING:
    from collections.abc import Mapping

    from channeld.chain.rpc import Block, ChainRpc
    from channeld.core.eip712 import Close, Withdrawal
    from channeld.core.state import Account, Body, Position
    from channeld.core.terms import Market, Oracle, Party, Terms

NAMES = ("Adjudicator", "FixBook", "RiskEngine", "TestToken")


@dataclass(frozen=True)
class Artifact:
    """A compiled contract. `runtime` is the code without its immutables, which follow it; `bytecode` deploys it."""

    name: str
    abi: Abi
    bytecode: bytes
    runtime: bytes
    immutables: tuple[str, ...]

    def deployed_code(self, immutables: Mapping[str, bytes]) -> bytes:
        """The code that stands on chain, given its immutables by name: values of at most 32 bytes, padded on the left.

        Raises:
            ArtifactError: an immutable is not given.

        """
        try:
            return self.runtime + b"".join(immutables[name].rjust(32, b"\0") for name in self.immutables)
        except KeyError as error:
            message = f"the compiled {self.name} has an immutable unknown to this release: {error}"
            raise ArtifactError(message) from error


def parse_artifact(name: str, text: str) -> Artifact:
    """An artifact from its JSON. Its custom errors become known to every RevertError.

    Raises:
        ArtifactError: malformed.

    """
    try:
        document = json.loads(text)
        code = {key: bytes.fromhex(document[key].removeprefix("0x")) for key in ("bytecode", "runtime")}
        # Vyper appends immutables in words, in the order of their offsets
        immutables = sorted((int(entry["offset"]), str(entry["name"])) for entry in document["immutables"])
        artifact = Artifact(name, Abi(document["abi"]), **code, immutables=tuple(entry for _, entry in immutables))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        message = f"the compiled {name} is malformed: {error}"
        raise ArtifactError(message) from error
    for entry in document["abi"]:
        if entry.get("type") == "error":
            KNOWN_ERRORS[keccak256(f"{entry['name']}()".encode())[:4]] = str(entry["name"])
    return artifact


@functools.cache
def load_artifact(name: str) -> Artifact:
    """The compiled contract of this release.

    Raises:
        ArtifactError: missing or malformed.

    """
    try:
        text = (resources.files("channeld.chain") / "artifacts" / f"{name}.json").read_text(encoding="utf-8")
    except OSError as error:
        message = f"the compiled {name} is missing"
        raise ArtifactError(message) from error
    return parse_artifact(name, text)


@dataclass(frozen=True, slots=True)
class Call:
    """A call to send: `label` names it in logs and errors."""

    to: bytes
    data: bytes
    label: str


# -- the core's structs as ABI tuples --------------------------------------------------------------------------------


def _party(party: Party) -> tuple[Any, ...]:
    return (party.signer, party.payout)


def oracle_tuple(oracle: Oracle) -> tuple[Any, ...]:
    """Oracle as the ABI has it."""
    return (
        list(oracle.signers),
        oracle.quorum,
        oracle.tick,
        oracle.samples,
        oracle.sample_gap,
        oracle.max_age,
        oracle.grace,
    )


def _market(market: Market) -> tuple[Any, ...]:
    return (
        market.feed,
        market.price_scan,
        market.vol_up,
        market.vol_down,
        market.wing_cover,
        market.spread_charge,
    )


def terms_tuple(terms: Terms) -> tuple[Any, ...]:
    """Terms as the ABI has them."""
    return (
        _party(terms.a),
        _party(terms.b),
        terms.collateral,
        terms.decimals,
        terms.collateral_feed,
        terms.haircut,
        oracle_tuple(terms.oracle),
        [_market(market) for market in terms.markets],
        terms.initial_factor,
        terms.closeout_penalty,
        terms.challenge_period,
        terms.cure_period,
        terms.sequencer,
        terms.salt,
    )


def _account(account: Account) -> tuple[int, int, int]:
    return (account.balance, account.deposited, account.withdrawn)


def position_tuple(position: Position) -> tuple[Any, ...]:
    """Position as the ABI has it."""
    i = position.instrument
    return (int(i.kind), i.feed, i.expiry, i.strike, position.size, position.mark, position.carry, position.vol)


def body_tuple(body: Body) -> tuple[Any, ...]:
    """Body as the ABI has it."""
    positions = [position_tuple(position) for position in body.positions]
    return (body.as_of, body.collateral_mark, body.journal, _account(body.a), _account(body.b), positions)


def withdrawal_tuple(w: Withdrawal) -> tuple[Any, ...]:
    """Withdrawal as the ABI has it."""
    return (w.channel, w.version, w.body_hash, w.withdrawn_a, w.withdrawn_b)


def close_tuple(close: Close) -> tuple[Any, ...]:
    """Close as the ABI has it."""
    return (close.channel, close.version, close.valid_until, _account(close.a), _account(close.b))


# -- records ---------------------------------------------------------------------------------------------------------


class Phase(IntEnum):
    """The phases of a channel on chain."""

    NONE = 0
    OPEN = 1
    DISPUTED = 2
    ENDED = 3


@dataclass(frozen=True, slots=True)
class ChannelRecord:
    """What the Adjudicator records of a channel."""

    phase: Phase
    collateral: bytes
    signer_a: bytes
    payout_a: bytes
    signer_b: bytes
    payout_b: bytes
    challenge_period: int
    deposited_a: int
    paid_a: int
    deposited_b: int
    paid_b: int
    floor_version: int
    floor_hash: bytes


@dataclass(frozen=True, slots=True)
class DisputeRecord:
    """A channel's latest dispute; number 0 where there was none. deadline in Unix seconds, 0 where a Close ended it."""

    number: int
    version: int
    body_hash: bytes
    deadline: int


def address_bytes(text: str | bytes) -> bytes:
    """20 bytes from an address as eth-abi gives it."""
    return text if isinstance(text, bytes) else bytes.fromhex(text[2:])


# -- bindings --------------------------------------------------------------------------------------------------------


class Contract:
    """A contract at an address."""

    artifact_name = ""

    def __init__(self, rpc: ChainRpc, address: bytes) -> None:
        """Bind; nothing is asked yet."""
        self.rpc, self.address = rpc, address
        self.abi = load_artifact(self.artifact_name).abi

    def make(self, name: str, *values: Any) -> Call:  # noqa: ANN401 - whatever the ABI holds
        """A call of a function."""
        return Call(self.address, self.abi.functions[name].encode(*values), name)

    async def read(self, name: str, *values: Any, block: Block = "latest") -> tuple[Any, ...]:  # noqa: ANN401 - the same
        """What a view returns.

        Raises:
            RevertError, ChainUnreachableError, MalformedResponseError: as named.

        """
        function = self.abi.functions[name]
        return function.decode(await self.rpc.call(self.address, function.encode(*values), block=block))


class Adjudicator(Contract):
    """Custody and disputes."""

    artifact_name = "Adjudicator"

    def open(self, terms: Terms) -> Call:
        """Record a channel."""
        return self.make("open", terms_tuple(terms))

    def deposit(self, channel: bytes, party: int, amount: int, other_at_least: int = 0) -> Call:
        """Pull `amount` units for party 0 (a) or 1 (b); reverts if the other's total is below `other_at_least`."""
        return self.make("deposit", channel, party, amount, other_at_least)

    def withdraw(self, withdrawal: Withdrawal, sigs: bytes) -> Call:
        """Pay what a co-signed Withdrawal allows."""
        return self.make("withdraw", withdrawal_tuple(withdrawal), sigs)

    def close(self, close: Close, sigs: bytes) -> Call:
        """End the channel by a co-signed Close."""
        return self.make("close", close_tuple(close), sigs)

    def challenge(self, channel: bytes, version: int, body_hash: bytes, sigs: bytes) -> Call:
        """Start a dispute."""
        return self.make("challenge", channel, version, body_hash, sigs)

    def refute(self, channel: bytes, version: int, body_hash: bytes, sigs: bytes) -> Call:
        """Replace the version on record by a higher one."""
        return self.make("refute", channel, version, body_hash, sigs)

    def settle(self, terms: Terms, body: Body) -> Call:
        """Pay by the body on record."""
        return self.make("settle", terms_tuple(terms), body_tuple(body))

    def claim(self, token: bytes, to: bytes) -> Call:
        """Send what could not be pushed to the caller."""
        return self.make("claim", token, to)

    async def channel_record(self, channel: bytes, *, block: Block = "latest") -> ChannelRecord:
        """What is recorded of a channel; phase NONE where it was never opened."""
        (row,) = await self.read("channel_record", channel, block=block)
        phase, collateral, signer_a, payout_a, signer_b, payout_b, *rest = row
        return ChannelRecord(
            Phase(phase),
            address_bytes(collateral),
            address_bytes(signer_a),
            address_bytes(payout_a),
            address_bytes(signer_b),
            address_bytes(payout_b),
            *rest,
        )

    async def dispute_record(self, channel: bytes, *, block: Block = "latest") -> DisputeRecord:
        """A channel's latest dispute."""
        (row,) = await self.read("dispute_record", channel, block=block)
        return DisputeRecord(*row)

    async def held(self, token: bytes, payee: bytes) -> int:
        """Units of a token that a payee can claim."""
        return int((await self.read("held", token, payee))[0])

    async def channel_id(self, terms: Terms) -> bytes:
        """The channel id that the contract computes for terms."""
        return bytes((await self.read("channel_id", terms_tuple(terms)))[0])

    async def risk_engine(self) -> bytes:
        """The RiskEngine's address."""
        return bytes((await self.read("RISK_ENGINE"))[0])

    async def fix_book(self) -> bytes:
        """The FixBook's address."""
        return bytes((await self.read("FIX_BOOK"))[0])


class FixBook(Contract):
    """Oracle fixes."""

    artifact_name = "FixBook"

    def prove_fix(self, oracle: Oracle, feed: bytes, t: int, packages: bytes) -> Call:
        """Record a fix from signed packages, one after another."""
        return self.make("prove_fix", oracle_tuple(oracle), feed, t, packages)

    async def fix(self, oracle_hash: bytes, feed: bytes, t: int, *, block: Block = "latest") -> tuple[int, int]:
        """(value as a wad, weight) of the fix on record; (0, 0) where there is none."""
        value, weight = await self.read("fix", oracle_hash, feed, t, block=block)
        return int(value), int(weight)


class RiskEngine(Contract):
    """Valuation."""

    artifact_name = "RiskEngine"

    async def value(self, kind: int, spot: int, strike: int, carry: int, vol: int, tau: int) -> int:
        """The value of one unit of an instrument, a wad. Prices, carry and vol are wads; tau in seconds."""
        return int((await self.read("value", kind, spot, strike, carry, vol, tau))[0])

    async def profit(self, body: Body, spots: list[int], t: int) -> int:
        """Profit of a since the marks, in wads; one spot per position, 0 where there is no fix."""
        positions = [position_tuple(position) for position in body.positions]
        return int((await self.read("profit", body.as_of, positions, spots, t))[0])


_ERC20 = {
    function.name: function
    for function in (
        Function("decimals", (), ("uint8",)),
        Function("symbol", (), ("string",)),
        Function("balanceOf", ("address",), ("uint256",)),
        Function("allowance", ("address", "address"), ("uint256",)),
        Function("approve", ("address", "uint256"), ("bool",)),
        Function("transfer", ("address", "uint256"), ("bool",)),
        Function("mint", ("address", "uint256"), ()),
    )
}


class Token:
    """An ERC-20 token; `mint` is the TestToken's alone."""

    def __init__(self, rpc: ChainRpc, address: bytes) -> None:
        """Bind; nothing is asked yet."""
        self.rpc, self.address = rpc, address

    async def _read(self, name: str, *values: Any) -> Any:  # noqa: ANN401 - the callers cast
        function = _ERC20[name]
        return function.decode(await self.rpc.call(self.address, function.encode(*values)))[0]

    def _make(self, name: str, *values: Any) -> Call:  # noqa: ANN401 - whatever the ABI holds
        return Call(self.address, _ERC20[name].encode(*values), name)

    async def decimals(self) -> int:
        """The token's decimals."""
        return int(await self._read("decimals"))

    async def symbol(self) -> str:
        """The token's symbol."""
        return str(await self._read("symbol"))

    async def balance_of(self, owner: bytes) -> int:
        """Units that an address owns."""
        return int(await self._read("balanceOf", owner))

    async def allowance(self, owner: bytes, spender: bytes) -> int:
        """Units that a spender may pull."""
        return int(await self._read("allowance", owner, spender))

    def approve(self, spender: bytes, amount: int) -> Call:
        """Let a spender pull `amount` units."""
        return self._make("approve", spender, amount)

    def transfer(self, to: bytes, amount: int) -> Call:
        """Send `amount` units."""
        return self._make("transfer", to, amount)

    def mint(self, to: bytes, amount: int) -> Call:
        """Make `amount` units; a TestToken lets anybody."""
        return self._make("mint", to, amount)
