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
    from collections.abc import Mapping, Sequence

    from channeld.chain.rpc import Block, ChainRpc
    from channeld.core.eip712 import Close, Resume, Withdrawal
    from channeld.core.state import Account, Body, Position
    from channeld.core.terms import Market, Oracle, Party, Terms

NAMES = ("Adjudicator", "FixBook", "RiskEngine", "Rules", "Lens", "TestToken")


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


def resume_tuple(resume: Resume) -> tuple[Any, ...]:
    """Resume as the ABI has it."""
    return (resume.channel, resume.dispute, resume.valid_until)


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
    """A channel's latest dispute; number 0 where there was none. Times in Unix seconds.

    deadline: 0 where a Close ended it. calls: margin calls so far. shown_version, shown_hash, window_end: the highest
    body shown to settle_last, and the end of its window; zeros while nobody has shown any.
    """

    number: int
    version: int
    body_hash: bytes
    deadline: int
    calls: int
    shown_version: int
    shown_hash: bytes
    window_end: int


@dataclass(frozen=True, slots=True)
class MarginCallRecord:
    """A margin call of a dispute. party: 0 for a, 1 for b, who called. time: its L, Unix seconds.

    The verdict (below_a, below_b, complete, weight, penalty in units) means nothing while it is not tested.
    deposited_a and deposited_b: units up to L, so far while L is not past.
    """

    party: int
    time: int
    tested: bool
    below_a: bool
    below_b: bool
    complete: bool
    weight: int
    deposited_a: int
    deposited_b: int
    penalty: int


@dataclass(frozen=True, slots=True)
class Permit:
    """An EIP-2612 permit of the depositor's. deadline in Unix seconds; v is 27 or 28."""

    deadline: int
    v: int
    r: bytes
    s: bytes


@dataclass(frozen=True, slots=True)
class Anchor:
    """A co-signed state to raise a floor with."""

    channel: bytes
    version: int
    body_hash: bytes
    sigs: bytes


@dataclass(frozen=True, slots=True)
class NeededFix:
    """A fix that a body needs: feed and time; the price (a wad) and weight that are proven, zeros where none is."""

    feed: bytes
    time: int
    price: int
    weight: int


@dataclass(frozen=True, slots=True)
class SettlementQuote:
    """What settle would do now. reason: the error it would revert with, empty where it pays.

    until: when that reason ends of itself (Unix seconds; 0: never). call: the deciding margin call, 255 for none.
    profit and penalty are a's gains, in units, at what is proven and tested by now; to_a and to_b what follows of them.
    """

    reason: str
    until: int
    fix_time: int
    call: int
    complete: bool
    profit: int
    penalty: int
    to_a: int
    to_b: int


@dataclass(frozen=True, slots=True)
class MarketMargin:
    """One market's margin of both parties, wads."""

    feed: bytes
    maintenance_a: int
    maintenance_b: int
    initial_a: int
    initial_b: int


@dataclass(frozen=True, slots=True)
class Margin:
    """Equity and margin of both parties, wads."""

    equity_a: int
    equity_b: int
    maintenance_a: int
    maintenance_b: int
    initial_a: int
    initial_b: int
    markets: tuple[MarketMargin, ...]


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

    def deposit_with_permit(
        self, channel: bytes, party: int, amount: int, permit: Permit, other_at_least: int = 0
    ) -> Call:
        """`deposit` with the caller's permit, which may fail where the allowance is there."""
        signed = (permit.deadline, permit.v, permit.r, permit.s)
        return self.make("deposit_with_permit", channel, party, amount, other_at_least, *signed)

    def anchor(self, anchor: Anchor) -> Call:
        """Raise the floor to a co-signed state."""
        return self.make("anchor", anchor.channel, anchor.version, anchor.body_hash, anchor.sigs)

    def anchor_many(self, anchors: Sequence[Anchor]) -> Call:
        """Raise the floors of up to 32 channels; what has no effect is skipped."""
        rows = [(anchor.channel, anchor.version, anchor.body_hash, anchor.sigs) for anchor in anchors]
        return self.make("anchor_many", rows)

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

    def call_margin(self, channel: bytes, version: int, body_hash: bytes, sigs: bytes) -> Call:
        """Call margin, with a challenge or a refutation where that is due; sigs may be empty where it is not."""
        return self.make("call_margin", channel, version, body_hash, sigs)

    def resume(self, resume: Resume, sigs: bytes) -> Call:
        """End a dispute by agreement, and go on."""
        return self.make("resume", resume_tuple(resume), sigs)

    def test(self, terms: Terms, body: Body, call: int) -> Call:
        """Judge the margin call of that index on the body on record."""
        return self.make("test", terms_tuple(terms), body_tuple(body), call)

    def settle_last(self, terms: Terms, version: int, body: Body, sigs: bytes) -> Call:
        """Show a co-signed body where nobody shows the one on record; after the window, pay by the highest shown."""
        return self.make("settle_last", terms_tuple(terms), version, body_tuple(body), sigs)

    def release(self, terms: Terms) -> Call:
        """Give each party its deposits back, 180 days after D, where nobody has shown any body."""
        return self.make("release", terms_tuple(terms))

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

    async def margin_call(
        self, channel: bytes, dispute: int, call: int, *, block: Block = "latest"
    ) -> MarginCallRecord:
        """A margin call of a dispute."""
        (row,) = await self.read("margin_call", channel, dispute, call, block=block)
        return MarginCallRecord(*row)

    async def risk_engine(self) -> bytes:
        """The RiskEngine's address."""
        return bytes((await self.read("RISK_ENGINE"))[0])

    async def fix_book(self) -> bytes:
        """The FixBook's address."""
        return bytes((await self.read("FIX_BOOK"))[0])

    async def rules(self) -> bytes:
        """The Rules' address."""
        return bytes((await self.read("RULES"))[0])


class Lens(Contract):
    """What can be asked of the contracts beyond their records."""

    artifact_name = "Lens"

    async def channel_id(self, terms: Terms) -> bytes:
        """The channel id that the contracts compute for terms."""
        return bytes((await self.read("channel_id", terms_tuple(terms)))[0])

    async def fixes_needed(self, terms: Terms, body: Body, t: int, *, block: Block = "latest") -> tuple[NeededFix, ...]:
        """The fixes that a close-out of a body at t takes, with what is proven of them."""
        (rows,) = await self.read("fixes_needed", terms_tuple(terms), body_tuple(body), t, block=block)
        return tuple(NeededFix(*row) for row in rows)

    async def quote_settlement(self, terms: Terms, body: Body, *, block: Block = "latest") -> SettlementQuote:
        """What settle would pay now, and why."""
        (row,) = await self.read("quote_settlement", terms_tuple(terms), body_tuple(body), block=block)
        return SettlementQuote(*row)

    async def margin(
        self, terms: Terms, body: Body, prices: Mapping[bytes, int], t: int, collateral_price: int
    ) -> Margin:
        """Equity and margin of both parties at prices (wads) by feed, as the contracts compute them.

        Raises:
            RevertError: a market of the book has no price (MissingPrice), or a position's feed is none of the markets'.

        """
        given = [prices.get(market.feed, 0) for market in terms.markets]
        (row,) = await self.read("margin", terms_tuple(terms), body_tuple(body), given, t, collateral_price)
        names = ("equity_a", "equity_b", "maintenance_a", "maintenance_b", "initial_a", "initial_b")
        markets = tuple(MarketMargin(*market) for market in row[6])
        return Margin(**dict(zip(names, row[:6], strict=True)), markets=markets)


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
