"""A real desk and a light peer: one devnet, real sockets, the desk's own database, a wallet that signs typed data."""

from __future__ import annotations

import asyncio
import contextlib
import json

from channeld_client.light import KeyWallet, LightPeer, MemoryLog
from desk_world import PATIENCE_S, only_actor, two_desks

from channeld.chain.contracts import Call
from channeld.chain.transactions import LocalSigner, TransactionManager
from channeld.core.crypto import checksum_address
from channeld.core.files import terms_to_json

CALL = {"instrument": "ETH-27DEC30-3000-C", "size": "10", "price": "1200", "vol": "0.65"}


class Owner:
    """Who looks at what the wallet is to sign: keeps all of it, and refuses what `refuses` says."""

    def __init__(self):
        self.shown = []
        self.refuses = lambda _: False

    async def approve(self, shown):
        self.shown.append(shown)
        return not self.refuses(shown)


class CastWallet:
    """A wallet whose signatures are cast's, from the typed data alone."""

    def __init__(self, key, folder):
        self._inner = KeyWallet(key)
        self._key, self._folder = key, folder
        self.address = self._inner.address

    async def sign_typed_data(self, data):
        path = self._folder / "shown.json"
        path.write_text(json.dumps(data), encoding="utf-8")
        command = (
            "cast",
            "wallet",
            "sign",
            "--private-key",
            "0x" + self._key.hex(),
            "--data",
            "--from-file",
            str(path),
        )
        child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        told, _ = await child.communicate()
        assert child.returncode == 0
        return bytes.fromhex(told.decode().strip()[2:])


class LightWorld:
    """A desk (`maker`) and the wallet's side."""

    def __init__(self, world):
        self.world, self.maker, self.owner, self.log = world, world.maker, Owner(), MemoryLog()
        self.key = world.taker.key
        self.wallet = KeyWallet(self.key)
        self.transactions = TransactionManager(world.rpc, LocalSigner(self.key), chain_id=31337)
        self.port = 0

    def peer(self, **changes):
        given = {
            "desk": self.maker.address,
            "url": f"ws://127.0.0.1:{self.port or self.maker.node.hub.port}",
            "rpc_url": self.world.devnet.url,
            "oracle_urls": [self.world.oracle_url],
            "payout": self.world.terms.b.payout,
            "approve": self.owner.approve,
            "confirmations": 0,
            "look_s": 0.05,
            "devnet": True,
        }
        return LightPeer(self.wallet, self.log, **{**given, **changes})

    async def send(self, *transactions):
        """As the wallet sends them."""
        for one in transactions:
            await self.transactions.transact(Call(one.to, one.data, one.what))

    async def proposed(self, peer):
        """The desk proposes its terms; the hash."""
        wallet = checksum_address(self.wallet.address)
        await self.maker.call("peer_add", name="taker", address=wallet, url="")
        await self.maker.until(lambda: self.maker.node.hub.connected(self.wallet.address), "the link")
        await self.maker.until(lambda: self.maker.node.chain.ready, "the contracts")
        told = await self.maker.call("channel_propose", peer="taker", terms=terms_to_json(self.world.terms))
        self.world.channel = told["hash"]
        refused = "channel_proposal_refused"
        await peer.until(lambda: peer.terms_offered or any(kind == refused for kind, _ in peer.news))
        return told["hash"]

    async def opened(self, peer, amount="250000"):
        """A channel with both deposits counted."""
        identifier = await self.proposed(peer)
        await peer.accept_terms(identifier)
        await self.maker.until(lambda: self.world.status(self.maker, "open"), "an open channel")
        await self.send(*peer.deposit(amount))
        await self.maker.call("deposit", channel="taker", amount=amount)
        await peer.until(lambda: (peer.status()["balance"], peer.status()["desk_balance"]) == (amount, amount))
        await self.level(peer)
        await self.maker.call("policy_set", peer="taker", auto_accept=True)
        return identifier

    async def advance(self, seconds, peer):
        await self.world.rpc.advance(seconds)
        target = self.world.devnet.now_ms() - 50
        for clock in (self.world.clock, self.maker.node.clock, peer.clock):
            async with asyncio.timeout(PATIENCE_S):
                while clock.now_ms() < target:  # noqa: ASYNC110 - it follows the devnet by itself
                    await asyncio.sleep(0)

    async def level(self, peer):
        """Both sides hold the same state: the desk hears of a signature a moment after it was made."""
        wanted = peer.status()["version"]
        await self.maker.until(lambda: self.desk_actor.state.version >= wanted, "the wallet's signature")
        await peer.until(lambda: peer.status()["version"] == self.desk_actor.state.version)

    @property
    def desk_actor(self):
        return only_actor(self.maker)


@contextlib.asynccontextmanager
async def light_world(folder, **flags):
    """A desk and a wallet that do not know each other yet."""
    async with two_desks(folder, channel__mark_interval=86_400, **flags) as world:
        yield LightWorld(world)
