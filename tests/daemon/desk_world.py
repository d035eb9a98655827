"""Two desks, a devnet and an oracle in one process: real sockets, real EVM, real databases, the devnet's clock."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from channeld.chain.clock import DevnetClock
from channeld.chain.contracts import Token
from channeld.chain.deployment import deploy, deploy_test_token, write_deployment
from channeld.chain.devnet import Devnet
from channeld.chain.rpc import ChainRpc
from channeld.chain.transactions import LocalSigner, TransactionManager
from channeld.cli.audit import write_audit
from channeld.core.audit import audit_lines
from channeld.core.crypto import address_of, checksum_address
from channeld.core.files import terms_to_json
from channeld.core.terms import ZERO_FEED, Market, Oracle, Party, Terms, feed_id
from channeld.core.wad import WAD
from channeld.daemon.config import load
from channeld.daemon.methods import Methods
from channeld.daemon.node import Node
from channeld.oracle.service import OracleService, Serving, devnet_signer_keys
from channeld.oracle.sources import ManualSource

if TYPE_CHECKING:
    from pathlib import Path

ETH, BTC = feed_id("ETH"), feed_id("BTC")
TOKENS = 10**6
PATIENCE_S = 60.0


@dataclass
class Desk:
    """A desk: its node and its methods."""

    name: str
    key: bytes
    payout: bytes
    folder: Path
    flags: dict[str, Any]
    node: Node = field(init=False)
    methods: Methods = field(init=False)

    @property
    def address(self) -> bytes:
        return address_of(self.key)

    async def start(self) -> None:
        self.node = Node(load(None, flags=self.flags, environment={}), self.key)
        await self.node.start()
        self.methods = Methods(self.node)

    async def call(self, method: str, **params: Any) -> Any:
        return await self.methods.call(method if "/" in method else f"private/{method}", params)

    async def until(self, condition, what: str = "a condition") -> None:
        """Wait on news until it holds."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not await _value(condition):
                    await self.node.news(0.2)
        except TimeoutError:
            raise AssertionError(f"{self.name}: waited in vain for {what}") from None


async def _value(condition) -> Any:
    result = condition()
    return await result if asyncio.iscoroutine(result) else result


@dataclass
class World:
    """Everything."""

    devnet: Devnet
    clock: DevnetClock
    rpc: ChainRpc
    token: bytes
    source: ManualSource
    oracle_url: str
    terms: Terms
    maker: Desk
    taker: Desk
    service: OracleService
    serving: Serving
    third: Desk | None = None
    channel: str = ""
    port: int = 0

    @property
    def desks(self) -> tuple[Desk, ...]:
        """All that there are."""
        return (self.maker, self.taker, *([self.third] if self.third else []))

    async def advance(self, seconds: float) -> None:
        """Advance the clock of everything, and wait until all have seen it."""
        await self.rpc.advance(seconds)
        target = self.devnet.now_ms() - 50
        for clock in (self.clock, *(desk.node.clock for desk in self.desks)):
            async with asyncio.timeout(PATIENCE_S):
                while clock.now_ms() < target:  # noqa: ASYNC110 - it follows the devnet by itself, within milliseconds
                    await asyncio.sleep(0)

    def price(self, feed: bytes, value: int) -> None:
        """Set a price (whole units of quote) from the next second on."""
        self.source.set_price(feed, value * 10**8, now_ms=self.clock.now_ms())

    async def open(self, amount: str = "250000", *, acknowledge: bool = True) -> None:
        """Peers know each other, the channel is open, both have deposited, and both have signed for it."""
        maker, taker = self.maker, self.taker
        port = self.port = taker.node.hub.port
        await taker.call("peer_add", name="maker", address=checksum_address(maker.address), url="")
        await maker.call(
            "peer_add", name="taker", address=checksum_address(taker.address), url=f"ws://127.0.0.1:{port}"
        )
        await maker.until(lambda: maker.node.hub.connected(taker.address), "the link")
        await maker.until(lambda: maker.node.chain.ready, "the contracts")
        await taker.until(lambda: taker.node.chain.ready, "the contracts")
        told = await maker.call("channel_propose", peer="taker", terms=terms_to_json(self.terms))
        self.channel = told["hash"]
        await taker.until(lambda: taker.node.proposals.known, "the proposal")
        await taker.call("channel_accept", hash=self.channel)
        for desk in (maker, taker):
            await desk.until(lambda d=desk: self.status(d, "open"), "an open channel")
        if not acknowledge:
            await taker.node.hub.remove_peer(maker.address)
            await maker.until(lambda: not maker.node.hub.connected(taker.address), "the end of the link")
        for desk in (maker, taker):
            await desk.call("deposit", channel=self.channel, amount=amount)
        for desk in (maker, taker) if acknowledge else ():
            await desk.until(lambda d=desk: self._funded(d, amount), "acknowledged deposits")

    async def another(self, first: Desk, second: Desk, amount: str = "250000") -> str:
        """A further channel between two desks, open and funded: a successor's, or with the third; its id."""
        if not first.node.hub.connected(second.address):
            await second.call("peer_add", name=first.name, address=checksum_address(first.address), url="")
            url = f"ws://127.0.0.1:{second.node.hub.port}"
            await first.call("peer_add", name=second.name, address=checksum_address(second.address), url=url)
            await first.until(lambda: first.node.hub.connected(second.address), "the link")
        parties = Party(first.address, first.payout), Party(second.address, second.payout)
        terms = replace(self.terms, a=parties[0], b=parties[1], salt=secrets.token_bytes(32))
        told = await first.call("channel_propose", peer=second.name, terms=terms_to_json(terms))
        await second.until(
            lambda: told["hash"] in {"0x" + k.hex() for k in second.node.proposals.known}, "the proposal"
        )
        await second.call("channel_accept", hash=told["hash"])

        async def holds(desk: Desk, name: str, value: str) -> bool:
            rows = await desk.call("channels")
            return any(row["channel"] == told["hash"] and row[name] == value for row in rows)

        for desk in (first, second):
            await desk.until(lambda d=desk: holds(d, "status", "open"), "an open channel")
            await desk.call("deposit", channel=told["hash"], amount=amount)
        for desk in (first, second):
            for name in ("balance", "peer_balance"):
                await desk.until(lambda d=desk, n=name: holds(d, n, amount), "acknowledged deposits")
        return str(told["hash"])

    async def _funded(self, desk: Desk, amount: str) -> bool:
        if not self.channel:
            return False
        row = await desk.call("channel", channel=self.channel)
        return row["balance"] == amount and row["peer_balance"] == amount

    async def status(self, desk: Desk, wanted: str) -> bool:
        rows = await desk.call("channels")
        return bool(rows) and rows[0]["status"] == wanted

    async def paid(self) -> dict[str, int]:
        """The token balances of the payout addresses, units."""
        token = Token(self.rpc, self.token)
        return {
            "a": await token.balance_of(self.terms.a.payout),
            "b": await token.balance_of(self.terms.b.payout),
        }


def make_terms(maker: Desk, taker: Desk, token: bytes, signers: tuple[bytes, ...], sequencer: int = 0) -> Terms:
    """Tight terms of ETH and BTC."""
    percent = WAD // 100
    return Terms(
        a=Party(maker.address, maker.payout),
        b=Party(taker.address, taker.payout),
        collateral=token,
        decimals=6,
        collateral_feed=ZERO_FEED,
        haircut=0,
        oracle=Oracle(signers, 2, 10, 3, 60, 60, 1800),
        markets=(
            Market(BTC, 5 * percent, 45 * percent, 30 * percent, percent, percent // 2),
            Market(ETH, 6 * percent, 45 * percent, 30 * percent, percent, percent // 2),
        ),
        initial_factor=120 * percent,
        closeout_penalty=2 * percent,
        challenge_period=86_400,
        cure_period=900,
        sequencer=sequencer,
        salt=secrets.token_bytes(32),
    )


@contextlib.asynccontextmanager
async def two_desks(
    folder: Path, *, sequencer: int = 0, start_time: int | None = None, third: bool = False, **flags: Any
):
    """A world with two started desks that do not know each other yet. flags: settings, dots as double underscores."""
    async with contextlib.AsyncExitStack() as stack:
        devnet = await stack.enter_async_context(Devnet(port=0, start_time=start_time))
        clock = await stack.enter_async_context(DevnetClock(devnet.url))
        rpc = await stack.enter_async_context(ChainRpc(devnet.url))
        deployer = secrets.token_bytes(32)
        await rpc.faucet(address_of(deployer))
        manager = TransactionManager(rpc, LocalSigner(deployer), chain_id=await rpc.chain_id())
        deployment = await deploy(manager)
        token = await deploy_test_token(manager)
        source = ManualSource({ETH: 3000 * 10**8, BTC: 60_000 * 10**8})
        service = OracleService(devnet_signer_keys(3), source, clock, tick=10, devnet=True)
        serving = await stack.enter_async_context(Serving(service))
        signers = tuple(sorted(address_of(k) for k in devnet_signer_keys(3)))
        desks = []
        for name in ("maker", "taker", "third")[: 3 if third else 2]:
            path = folder / name
            path.mkdir(parents=True)
            payout = secrets.token_bytes(20)
            settings = {
                "desk.name": name,
                "desk.data_dir": str(path),
                "desk.payout": checksum_address(payout),
                "chain.urls": devnet.url,
                "chain.kind": "embedded",
                "chain.clock": "devnet",
                "chain.confirmations": 0,
                "chain.poll_interval": 0.05,
                "oracle.urls": serving.url,
                "peers.listen": "127.0.0.1:0",
                **{key.replace("__", "."): value for key, value in flags.items()},
            }
            desk = Desk(name, secrets.token_bytes(32), payout, path, settings)
            await rpc.faucet(desk.address)
            await manager.transact(Token(rpc, token).mint(desk.address, 1_000_000 * TOKENS))
            write_deployment(path / "deployment.json", deployment)
            desks.append(desk)
        maker, taker, *more = desks
        for desk in desks:
            await desk.start()
            stack.push_async_callback(lambda d=desk: d.node.stop())
        terms = make_terms(maker, taker, token, signers, sequencer)
        yield World(devnet, clock, rpc, token, source, serving.url, terms, maker, taker, service, serving, *more)


def only_actor(desk: Desk):
    """The one channel of a desk."""
    (actor,) = desk.node.actors.values()
    return actor


async def events_of(desk: Desk, kind: str) -> list[dict[str, Any]]:
    """All events of a kind that a desk has recorded."""
    return [e for e in (await desk.call("events"))["events"] if e["kind"] == kind]


async def refused_with(desk: Desk, code: int) -> bool:
    """Whether a desk has refused a batch with a code."""
    return any(e["code"] == code for e in await events_of(desk, "batch_refused"))


async def alerted(desk: Desk, text: str) -> bool:
    """Whether an alert of a desk holds a text."""
    return any(text in str(alert["message"]) for alert in desk.node.alerts)


async def audited(desk: Desk, channel: str, path: Path, *, limit: int = 2):
    """What an audit file of a desk proves, written as the command does it, from pages of `limit` versions."""
    pages, after, until = {}, 0, 0
    while True:
        page = await desk.call("audit_page", channel=channel, after=after, until=until, limit=limit)
        pages[after], until = page, page["until"]
        if not page["next"]:
            break
        after = page["next"]
    written = write_audit(path, lambda begin, _: pages[begin], 0)
    raw = await asyncio.to_thread(path.read_bytes)
    assert audit_lines(raw.splitlines(keepends=True)).as_data() == written.as_data()
    return written
