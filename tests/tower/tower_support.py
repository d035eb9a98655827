"""Helpers of the tower's tests: roles, terms, signed states, a tower in memory, a tower on a real chain."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from channeld.chain.clock import DevnetClock
from channeld.chain.contracts import Adjudicator, FixBook, Token
from channeld.chain.deployment import deploy, deploy_test_token
from channeld.chain.devnet import Devnet
from channeld.chain.rpc import ChainRpc
from channeld.chain.transactions import LocalSigner, TransactionManager
from channeld.core.crypto import address_of, keccak256, sign_digest
from channeld.core.eip712 import Domain, channel_id, state_digest
from channeld.core.terms import Market, Oracle, Party, Terms, feed_id
from channeld.core.wad import WAD
from channeld.tower.client import TowerClient
from channeld.tower.door import Door, Limits
from channeld.tower.ledger import Ledger, Owners
from channeld.tower.protocol import Held, TowerName
from channeld.tower.service import Settings, Tower

if TYPE_CHECKING:
    from channeld.chain.deployment import Deployment

ETH, BTC = feed_id("ETH"), feed_id("BTC")
DOMAIN = Domain(31337, b"\xad" * 20)
COLLATERAL = b"\xc0" * 20


def role_key(role):
    return keccak256(b"key of the " + role.encode())


def role(name):
    return address_of(role_key(name))


MAKER, TAKER, STRANGER, TOWER = (role(name) for name in ("maker", "taker", "stranger", "tower"))
ORACLE_KEYS = tuple(role_key(f"oracle signer {number}") for number in range(3))


def terms_of(salt, collateral=COLLATERAL):
    return Terms(
        a=Party(MAKER, b"\xa1" * 20),
        b=Party(TAKER, b"\xb2" * 20),
        collateral=collateral,
        decimals=6,
        collateral_feed=bytes(32),
        haircut=0,
        oracle=Oracle(tuple(sorted(map(address_of, ORACLE_KEYS))), 2, 10, 2, 60, 60, 7_200),
        markets=tuple(Market(feed, WAD // 9, WAD // 2, WAD // 3, WAD // 50, WAD // 200) for feed in (BTC, ETH)),
        initial_factor=13 * WAD // 10,
        closeout_penalty=3 * WAD // 100,
        challenge_period=86_400,
        cure_period=3_600,
        sequencer=0,
        salt=salt.to_bytes(32, "big"),
    )


def held_of(channel, version, body_hash=None, domain=DOMAIN, keys=("maker", "taker")):
    """A co-signed state without its body."""
    hashed = keccak256(b"body %d" % version) if body_hash is None else body_hash
    digest = state_digest(domain, channel, version, hashed)
    return Held(version, hashed, *(sign_digest(role_key(key), digest) for key in keys))


def channel_of(terms, domain=DOMAIN):
    return channel_id(domain, terms)


class Clock:
    """A clock that a test moves."""

    def __init__(self, now_ms=1_900_000_000_000):
        self.ms = now_ms

    def now_ms(self):
        return self.ms

    def now_s(self):
        return self.ms / 1000


def door_of(store, owners, clock, *, limits=None, domain=DOMAIN):
    """A door without a chain."""
    ledger = Ledger(store, domain, owners)
    return Door(
        ledger,
        domain,
        TOWER,
        lambda digest: sign_digest(role_key("tower"), digest),
        now_ms=clock.now_ms,
        block=lambda: 7,
        health=lambda: {"status": "ok"},
        limits=limits or Limits(1e6, 1e6, 1e6, 1e6),
        monotonic_s=clock.now_s,
    )


def client_of(url, name, clock, *, tower=TOWER, timeout_s=10.0):
    return TowerClient(
        TowerName(tower, url),
        role(name),
        lambda digest: sign_digest(role_key(name), digest),
        clock.now_ms,
        timeout_s=timeout_s,
    )


@dataclass
class ChainWorld:
    """A real chain with the contracts, a token, and managers of each role."""

    devnet: Devnet
    rpc: ChainRpc
    clock: DevnetClock
    deployment: Deployment
    token: bytes
    managers: dict[str, TransactionManager]

    @property
    def adjudicator(self):
        return Adjudicator(self.rpc, self.deployment.adjudicator)

    @property
    def fix_book(self):
        return FixBook(self.rpc, self.deployment.fix_book)

    @property
    def domain(self):
        return self.deployment.domain

    async def open(self, salt, units=10**9):
        """A channel that both have funded: its terms and id."""
        terms = terms_of(salt, self.token)
        channel = channel_id(self.domain, terms)
        await self.managers["maker"].transact(self.adjudicator.open(terms))
        for party, name in enumerate(("maker", "taker")):
            manager = self.managers[name]
            await manager.transact(Token(self.rpc, self.token).approve(self.deployment.adjudicator, units))
            await manager.transact(self.adjudicator.deposit(channel, party, units, 0))
        return terms, channel

    async def challenge(self, channel, held, cheater="taker"):
        call = self.adjudicator.challenge(channel, held.version, held.body_hash, held.signatures)
        return await self.managers[cheater].transact(call)

    def settings(self, folder, **changes: Any) -> Settings:
        kept = {"confirmations": 0, "poll_s": 0.02, "blocks_keep_time": False, "port": 0, "poor_wei": 0}
        return Settings(self.devnet.url, folder, **{**kept, **changes})

    def tower(self, folder, owners=None, fixes=None, **changes: Any) -> Tower:
        owners = owners or Owners({MAKER: 10, TAKER: 10})
        return Tower(
            self.settings(folder, **changes), role_key("tower"), self.deployment, owners, self.clock, fixes=fixes
        )


@contextlib.asynccontextmanager
async def chain_world():
    async with contextlib.AsyncExitStack() as stack:
        devnet = await stack.enter_async_context(Devnet(port=0))
        clock = await stack.enter_async_context(DevnetClock(devnet.url))
        rpc = await stack.enter_async_context(ChainRpc(devnet.url))
        chain_id = await rpc.chain_id()
        managers = {}
        for name in ("maker", "taker", "tower", "deployer"):
            managers[name] = TransactionManager(rpc, LocalSigner(role_key(name)), chain_id=chain_id, poll_s=0.005)
            await rpc.faucet(managers[name].address)
        deployment = await deploy(managers["deployer"])
        token = await deploy_test_token(managers["deployer"])
        for name in ("maker", "taker"):
            await managers["deployer"].transact(Token(rpc, token).mint(role(name), 10**15))
        yield ChainWorld(devnet, rpc, clock, deployment, token, managers)
