"""The wallet path: what eth-account and cast sign from the typed data alone is accepted by daemons and contract.

Nothing of our own hashing or signing takes part: the wallet sees the typed data, as `channeld hash --typed-data` prints
it, and the digest that the daemon asks for is thrown away.
"""

from __future__ import annotations

import asyncio
import json
import shutil

import pytest
from desk_world import TOKENS, events_of, only_actor, two_desks
from eth_account import Account

from channeld.core.bundle import bundle_from_json
from channeld.core.eip712 import typed_data
from channeld.daemon.signer import GuardedSigner

BUY = {"instrument": "ETH-27DEC30-3000-C", "size": "10", "price": "1200", "vol": "0.65"}


async def by_eth_account(key, data, folder):
    del folder
    return bytes(Account.sign_typed_data(key, full_message=data).signature)


async def by_cast(key, data, folder):
    path = folder / "typed.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    command = ("cast", "wallet", "sign", "--private-key", "0x" + key.hex(), "--data", "--from-file", str(path))
    child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    told, _ = await child.communicate()
    assert child.returncode == 0
    return bytes.fromhex(told.decode().strip()[2:])


class Wallet(GuardedSigner):
    """A signer whose guard is ours and whose signatures are a wallet's, made from the typed data alone."""

    def __init__(self, desk, sign, folder):
        super().__init__(desk.key, desk.node.store)
        self.desk, self.sign_typed, self.folder, self.signed = desk, sign, folder, []

    async def sign(self, channel, kind, version, digest, *, leap=False):
        await super().sign(channel, kind, version, digest, leap=leap)
        machine = self.desk.node.actors[channel].channel
        if kind == "state":
            value = machine.draft.applied.state
        else:
            name = {"withdrawal": "Withdrawal", "close": "Close"}[kind]
            value = next(e.document for e in machine.exits if type(e.document).__name__ == name)
        self.signed.append(type(value).__name__)
        data = typed_data(machine.domain, type(value).__name__, value)
        return await self.sign_typed(self.desk.key, json.loads(json.dumps(data)), self.folder)


TOOLS = [
    by_eth_account,
    pytest.param(
        by_cast, marks=[pytest.mark.cast, pytest.mark.skipif(shutil.which("cast") is None, reason="cast is missing")]
    ),
]


@pytest.fixture
def with_wallets(monkeypatch):
    """Both desks sign by wallets; gives what makes it so, once they run."""

    def equip(world, tool):
        wallets = []
        for desk in (world.maker, world.taker):
            wallet = Wallet(desk, tool, desk.folder)
            wallets.append(wallet)
            monkeypatch.setattr(desk.node, "signer", wallet)
        return wallets

    return equip


@pytest.mark.parametrize("tool", TOOLS)
async def test_states_withdrawals_and_closes_signed_by_wallets(tmp_path, with_wallets, tool):
    async with two_desks(tmp_path, channel__proposal_timeout=30) as world:
        wallets = with_wallets(world, tool)
        await world.open()
        maker, taker = world.maker, world.taker
        await taker.call("policy_set", peer="maker", auto_accept=True)
        assert (await maker.call("trade", channel="taker", legs=[BUY]))["status"] == "done"
        back = {**BUY, "size": "-10"}
        assert (await maker.call("trade", channel="taker", legs=[back]))["status"] == "done"
        await maker.call("withdraw", channel="taker", amount="1000")
        await maker.until(lambda: events_of(maker, "withdrawn"), "the withdrawal on chain")
        await taker.call("close", channel="maker")
        for desk in (maker, taker):
            await desk.until(lambda d=desk: world.status(d, "closed"), "the close on chain")
        assert sum((await world.paid()).values()) == 500_000 * TOKENS
        for wallet in wallets:
            assert {"State", "Withdrawal", "Close"} <= set(wallet.signed)


async def test_a_state_signed_by_wallets_is_enforced_by_the_contract(tmp_path, with_wallets):
    async with two_desks(tmp_path, channel__proposal_timeout=30) as world:
        with_wallets(world, by_eth_account)
        await world.open()
        maker = world.maker
        await maker.call("transfer", channel="taker", amount="1234")
        bundle = bundle_from_json(await maker.call("bundle", channel="taker"))
        await maker.call("challenge", channel="taker")
        await maker.until(lambda: world.status(maker, "disputed"), "the dispute")
        record = await maker.node.chain.adjudicator.dispute_record(only_actor(maker).id)
        assert record.version == bundle.version == only_actor(maker).state.version
