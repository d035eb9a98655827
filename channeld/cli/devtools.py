"""What a development chain needs besides a clock: tokens that anybody can mint, contracts, funded keys.

Rules: keys made here live for one call and are worth nothing: they are funded by the devnet's faucet. Each function is
synchronous and does its own short piece of asynchronous work.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any

from channeld.chain.contracts import Token, address_bytes
from channeld.chain.deployment import deploy, deploy_test_token
from channeld.chain.rpc import ChainRpc
from channeld.chain.transactions import LocalSigner, TransactionManager
from channeld.core.crypto import address_of, checksum_address
from channeld.core.wad import format_decimal, parse_decimal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from channeld.chain.deployment import Deployment

GAS_MONEY = 10**20


def _with_funded_key(url: str, work: Callable[[TransactionManager], Awaitable[Any]]) -> Any:  # noqa: ANN401 - of `work`
    async def go() -> Any:  # noqa: ANN401 - the same
        async with ChainRpc(url) as rpc:
            key = secrets.token_bytes(32)
            await rpc.faucet(address_of(key), GAS_MONEY)
            manager = TransactionManager(rpc, LocalSigner(key), chain_id=await rpc.chain_id(), poll_s=0.02)
            return await work(manager)

    return asyncio.run(go())


def deploy_contracts(url: str) -> Deployment:
    """Deploy the contracts from a key of the devnet's faucet; raises as chain.deployment.deploy."""
    result: Deployment = _with_funded_key(url, deploy)
    return result


def deploy_token(url: str, symbol: str, decimals: int) -> str:
    """Deploy a token that anybody can mint; its address."""

    async def work(manager: TransactionManager) -> bytes:
        return await deploy_test_token(manager, symbol, symbol, decimals)

    return checksum_address(_with_funded_key(url, work))


def mint(url: str, token: str, address: str, amount: str) -> str:
    """Mint tokens, the amount a decimal string; what the address holds then.

    Raises:
        ChanneldError: no such token, or an amount it cannot express.

    """

    async def work(manager: TransactionManager) -> str:
        contract = Token(manager.rpc, address_bytes(token))
        decimals = await contract.decimals()
        await manager.transact(contract.mint(address_bytes(address), parse_decimal(amount, decimals)))
        return format_decimal(await contract.balance_of(address_bytes(address)), decimals)

    result: str = _with_funded_key(url, work)
    return result


def balance(url: str, token: str, address: str) -> str:
    """What an address holds of a token, as a decimal string."""

    async def go() -> str:
        async with ChainRpc(url) as rpc:
            contract = Token(rpc, address_bytes(token))
            return format_decimal(await contract.balance_of(address_bytes(address)), await contract.decimals())

    return asyncio.run(go())


def balances(url: str, token: str, addresses: list[str]) -> list[int]:
    """What addresses hold of a token, in its units."""

    async def go() -> list[int]:
        async with ChainRpc(url) as rpc:
            contract = Token(rpc, address_bytes(token))
            return [await contract.balance_of(address_bytes(one)) for one in addresses]

    return asyncio.run(go())
