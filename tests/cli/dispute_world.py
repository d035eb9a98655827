"""A chain with contracts and funded channels, and bundles of them, made by keys that the tests hold: no daemon."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "chain"))
from chain_support import ORACLE_KEYS, DevnetThread, example_terms, need_anvil, role_key

from channeld.chain.contracts import Adjudicator, FixBook, Token
from channeld.chain.deployment import deploy, deploy_test_token
from channeld.chain.keystore import create_keystore
from channeld.chain.rpc import ChainRpc
from channeld.chain.transactions import LocalSigner, TransactionManager
from channeld.core.bundle import Bundle, bundle_text
from channeld.core.crypto import address_of, sign_digest
from channeld.core.eip712 import body_hash, channel_id, state_digest
from channeld.core.packages import DataPoint, sign_package
from channeld.core.state import Account, Body, Instrument, Kind, Position, State
from channeld.core.terms import Party, feed_id
from channeld.core.wad import WAD

ETH = feed_id("ETH")
START = 1_900_000_000
UNITS = 10**10
PASSWORD = "correct horse"
ROLES = ("maker", "taker")
PAYOUT_KEYS = (role_key("maker's cold wallet"), role_key("taker's cold wallet"))

__all__ = ["DevnetThread", "need_anvil"]


def book(now, *, size=20, balance=UNITS):
    """A perpetual on ETH at 3000."""
    held = (Position(Instrument(Kind.PERPETUAL, ETH, 0, 0), size * WAD, 3_000 * WAD, 0, 0),) if size else ()
    return Body(now, WAD, b"\5" * 32, Account(balance, UNITS, 0), Account(2 * UNITS - balance, UNITS, 0), held)


@dataclass
class Case:
    """One funded channel, and what each side can make of it."""

    world: World
    terms: object
    channel: bytes

    def bundle(self, version, body, side=0, **more):
        """The bundle of a version, signed by both."""
        domain = self.world.deployment.domain
        digest = state_digest(domain, self.channel, version, body_hash(body))
        signatures = [sign_digest(role_key(role), digest) for role in ROLES]
        return Bundle(domain, self.terms, side, State(self.channel, version, body), *signatures, **more)

    def write(self, path, bundle):
        path.write_text(bundle_text(bundle), encoding="utf-8")
        return path

    def record(self):
        return self.world.run(
            lambda rpc: Adjudicator(rpc, self.world.deployment.adjudicator).channel_record(self.channel)
        )

    def dispute(self):
        return self.world.run(
            lambda rpc: Adjudicator(rpc, self.world.deployment.adjudicator).dispute_record(self.channel)
        )

    def totals(self):
        r = self.record()
        return r.deposited_a, r.deposited_b, r.paid_a, r.paid_b

    def paid(self):
        r = self.record()
        return r.paid_a, r.paid_b

    def packages(self, folder, t, price, *, signers=3):
        """The packages of the fix of ETH at t, as files in a folder."""
        folder.mkdir(exist_ok=True)
        gap, samples = self.terms.oracle.sample_gap, self.terms.oracle.samples
        lines = [
            "0x" + sign_package(key, (t - i * gap) * 1000, [DataPoint(ETH, price * 10**8)]).hex()
            for i in range(samples)
            for key in ORACLE_KEYS[:signers]
        ]
        (folder / f"at-{t}.hex").write_text("\n".join(lines), encoding="ascii")
        return folder


class World:
    """The chain. Everything here is synchronous, each call on an event loop of its own."""

    def __init__(self, url):
        self.url = url
        self.deployment, self.token = self.run(self._deploy)

    def run(self, work):
        """Work that takes an RPC client."""

        async def go():
            async with ChainRpc(self.url) as rpc:
                return await work(rpc)

        return asyncio.run(go())

    def manager(self, rpc, key):
        return TransactionManager(rpc, LocalSigner(key), chain_id=31_337, poll_s=0.005)

    async def _deploy(self, rpc):
        manager = self.manager(rpc, role_key("deployer of the drills"))
        for key in (role_key("deployer of the drills"), *map(role_key, ROLES), *PAYOUT_KEYS):
            await rpc.faucet(address_of(key), 10**20)
        return await deploy(manager), await deploy_test_token(manager)

    def open(self, **changes):
        """A channel that is open and funded by both."""
        from dataclasses import replace  # noqa: PLC0415 - one use

        terms = example_terms(self.token)
        terms = replace(
            terms,
            a=Party(terms.a.signer, address_of(PAYOUT_KEYS[0])),
            b=Party(terms.b.signer, address_of(PAYOUT_KEYS[1])),
            **changes,
        )

        async def work(rpc):
            adjudicator, token = Adjudicator(rpc, self.deployment.adjudicator), Token(rpc, self.token)
            channel = channel_id(self.deployment.domain, terms)
            for party, role in enumerate(ROLES):
                manager = self.manager(rpc, role_key(role))
                if not party:
                    await manager.transact(adjudicator.open(terms))
                await manager.transact(token.mint(manager.address, UNITS))
                await manager.transact(token.approve(adjudicator.address, UNITS))
                await manager.transact(adjudicator.deposit(channel, party, UNITS))
            return channel

        return Case(self, terms, self.run(work))

    def now(self):
        return self.run(lambda rpc: rpc.header()).timestamp

    def advance_to(self, second):
        return self.run(lambda rpc: rpc.set_time(second))

    def send(self, key, make):
        """Send a call as somebody else; `make` gets the Adjudicator."""
        return self.run(
            lambda rpc: self.manager(rpc, key).transact(make(Adjudicator(rpc, self.deployment.adjudicator)))
        )

    def fix(self, oracle_hash, t):
        return self.run(lambda rpc: FixBook(rpc, self.deployment.fix_book).fix(oracle_hash, ETH, t))

    def balance(self, address):
        return self.run(lambda rpc: Token(rpc, self.token).balance_of(address))


def keystore(folder, key, name):
    """A keystore of a key, and a file with its password."""
    path = folder / f"{name}.json"
    create_keystore(path, PASSWORD, key, iterations=4096)
    secret = folder / "password.txt"
    secret.write_text(PASSWORD + "\n", encoding="utf-8")
    return ("--keystore", path, "--password-file", secret)
