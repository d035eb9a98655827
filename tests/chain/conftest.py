"""Fixtures: a devnet in a thread, reached over HTTP, on the embedded chain and, where installed, on anvil."""

from __future__ import annotations

import asyncio

import pytest
from chain_support import START_TIME, DevnetThread, World, need_anvil, role_key

from channeld.chain.contracts import Token
from channeld.chain.deployment import deploy, deploy_test_token
from channeld.chain.rpc import ChainRpc
from channeld.chain.transactions import LocalSigner, TransactionManager

BACKENDS = ["embedded", pytest.param("anvil", marks=pytest.mark.anvil)]


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


@pytest.fixture
async def managers(rpc):
    """A funded transaction manager per role."""
    chain_id = await rpc.chain_id()
    made = {}
    for role in ("maker", "taker", "deployer"):
        made[role] = TransactionManager(rpc, LocalSigner(role_key(role)), chain_id=chain_id, poll_s=0.005)
        await rpc.faucet(made[role].address, 10**19)
    return made


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
