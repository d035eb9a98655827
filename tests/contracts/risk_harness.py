"""RiskEngine on a real EVM (revm), called by name; and terms, markets and bodies to call it with."""

from __future__ import annotations

import functools

import pyrevm
from contracts_harness import compiler
from eth_abi import decode, encode

from channeld.core.crypto import keccak256
from channeld.core.state import Account, Body, Position
from channeld.core.terms import Market, Oracle, Party, Terms, feed_id
from channeld.core.wad import WAD

DEPLOYER = "0x" + "11" * 20
ETH, BTC = feed_id("ETH"), feed_id("BTC")
MAX = 2**96 - 1
AS_OF = 1_750_000_000
POSITION = "(uint8,bytes32,uint64,uint128,int128,uint128,int64,uint64)"
MARKET = "(bytes32,uint64,uint64,uint64,uint64,uint64)"
_BOOK = [MARKET + "[]", POSITION + "[]", "uint256[]", "uint64"]
SIGNATURES = {
    "value": (["uint8", "uint256", "uint256", "int256", "uint256", "uint256"], ["uint256"]),
    "profit": (["uint64", POSITION + "[]", "uint256[]", "uint64"], ["int256"]),
    "to_units": (["int256", "uint8", "uint256"], ["int256"]),
    "margin": (_BOOK, ["uint256", "uint256"]),
    "initial": ([*_BOOK, "uint64"], ["uint256", "uint256"]),
}
# what a transaction pays before its code runs
TRANSACTION_GAS = 21_000


@functools.cache
def engine_artifact():
    """RiskEngine compiled from its sources, not as committed: what is tested is what is read."""
    return compiler().compile_source("RiskEngine.vy", compiler().SOURCES["RiskEngine.vy"])


class Engine:
    """RiskEngine deployed in a fresh revm with the rules of the Cancun fork."""

    def __init__(self) -> None:
        self.evm = pyrevm.EVM(spec_id="CANCUN")
        self.evm.set_balance(DEPLOYER, 10**30)
        code = engine_artifact()["bytecode"]
        self.address = self.evm.deploy(DEPLOYER, bytes.fromhex(code.removeprefix("0x")))
        self.selectors = {n: keccak256(f"{n}({','.join(a)})".encode())[:4] for n, (a, _) in SIGNATURES.items()}
        self.calldata_bytes = 0

    def raw(self, name: str, *arguments) -> bytes:
        """Call one function; its result as bytes."""
        data = self.selectors[name] + encode(SIGNATURES[name][0], arguments)
        self.calldata_bytes = len(data)
        return bytes(self.evm.message_call(DEPLOYER, self.address, calldata=data, gas=100_000_000))

    def __call__(self, name: str, *arguments):
        """Call one function; its result, a tuple where there are several."""
        found = decode(SIGNATURES[name][1], self.raw(name, *arguments))
        return found if len(found) > 1 else found[0]

    @property
    def gas(self) -> int:
        """What the last call used, the transaction's own 21,000 and its calldata included."""
        return self.evm.result.gas_used


def selector(error: str) -> str:
    """The four bytes of a custom error, as a failed call shows them."""
    return keccak256(error.encode())[:4].hex()


def packed(position: Position) -> tuple:
    """A position as its ABI tuple."""
    i = position.instrument
    return (int(i.kind), i.feed, i.expiry, i.strike, position.size, position.mark, position.carry, position.vol)


def packed_market(market: Market) -> tuple:
    """A market as its ABI tuple."""
    return (
        market.feed,
        market.price_scan,
        market.vol_up,
        market.vol_down,
        market.wing_cover,
        market.spread_charge,
    )


def make_body(positions: tuple[Position, ...]) -> Body:
    """A body with empty accounts."""
    return Body(AS_OF, WAD, bytes(32), Account(), Account(), positions)


def standard_market(feed: bytes = ETH) -> Market:
    """ETH's market in the standard template."""
    return Market(feed, 11 * WAD // 100, 6 * WAD // 10, 35 * WAD // 100, WAD // 50, WAD // 200)


def make_terms(
    decimals: int = 6,
    collateral_feed: bytes = bytes(32),
    markets: tuple[Market, ...] | None = None,
    initial_factor: int = WAD,
) -> Terms:
    """Terms that differ in what valuation and margin see."""
    party_a, party_b = (Party(bytes([n]) * 20, bytes([n + 8]) * 20) for n in (1, 2))
    oracle = Oracle((b"\x21" * 20,), 1, 10, 1, 0, 60, 7200)
    return Terms(
        party_a,
        party_b,
        b"\x31" * 20,
        decimals,
        collateral_feed,
        WAD // 2,
        oracle,
        markets or (standard_market(),),
        initial_factor,
        0,
        86_400,
        3600,
        0,
        bytes(32),
    )  # fmt: skip - one line per group of fields
