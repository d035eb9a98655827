"""Fixtures: a devnet in a thread of its own, reached over HTTP, on the embedded chain and, where installed, on anvil."""

from __future__ import annotations

import asyncio
import shutil
import threading
from dataclasses import dataclass

import pytest

from channeld.chain.contracts import Adjudicator, FixBook, Token
from channeld.chain.deployment import Deployment, deploy, deploy_test_token
from channeld.chain.devnet import Devnet
from channeld.chain.rpc import ChainRpc
from channeld.chain.transactions import LocalSigner, TransactionManager
from channeld.core.crypto import keccak256

START_TIME = 1_900_000_000
BACKENDS = ["embedded", pytest.param("anvil", marks=pytest.mark.anvil)]


class DevnetThread:
    """A devnet on an event loop of its own, so that every test may have its own loop."""

    def __init__(self, backend, **options):
        self.devnet = Devnet(backend, **options)
        self.loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._failure = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self.devnet.start())
        except BaseException as error:
            self._failure = error
            self._ready.set()
            return
        self._ready.set()
        self.loop.run_forever()
        self.loop.run_until_complete(self.devnet.stop())
        self.loop.close()

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(60)
        if self._failure is not None:
            raise self._failure
        return self.devnet.url

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(30)


def need_anvil():
    if shutil.which("anvil") is None:
        pytest.skip("anvil is not on the PATH (npm: @foundry-rs/anvil)")


@pytest.fixture(scope="session", params=BACKENDS)
def devnet_url(request):
    if request.param == "anvil":
        need_anvil()
    with DevnetThread(request.param, start_time=START_TIME, heartbeat_s=None) as url:
        yield url


@pytest.fixture
async def rpc(devnet_url):
    async with ChainRpc(devnet_url) as client:
        yield client


def role_key(role):
    return keccak256(b"key of the " + role.encode())


@pytest.fixture
async def managers(rpc):
    """A funded transaction manager per role."""
    chain_id = await rpc.chain_id()
    made = {}
    for role in ("maker", "taker", "deployer"):
        made[role] = TransactionManager(rpc, LocalSigner(role_key(role)), chain_id=chain_id, poll_s=0.005)
        await rpc.faucet(made[role].address, 10**19)
    return made


@dataclass
class World:
    rpc: ChainRpc
    deployment: Deployment
    token: Token
    managers: dict

    @property
    def adjudicator(self):
        return Adjudicator(self.rpc, self.deployment.adjudicator)

    @property
    def fix_book(self):
        return FixBook(self.rpc, self.deployment.fix_book)


@pytest.fixture(scope="session")
def deployed(devnet_url):
    """Contracts and a token of 6 decimals, deployed once per chain."""

    async def run():
        async with ChainRpc(devnet_url) as client:
            manager = TransactionManager(
                client, LocalSigner(role_key("first deployer")), chain_id=await client.chain_id(), poll_s=0.005
            )
            await client.faucet(manager.address)
            return await deploy(manager), await deploy_test_token(manager)

    return asyncio.run(run())


@pytest.fixture
def world(rpc, managers, deployed):
    deployment, token = deployed
    return World(rpc, deployment, Token(rpc, token), managers)
