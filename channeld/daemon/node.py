"""The node: one desk's daemon. Wires the rooms, keeps them running, and routes what peers, chain and people bring.

Rules: everything that must survive is in the store before it is acted on; nothing here decides money, the core does.
One ticker drives all that is due by the clock, so that on a devnet a jump of days is handled like the passing of time;
one channel's trouble is its own. Events are for people: one that cannot be kept is still told, and stops nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections import deque
from typing import TYPE_CHECKING, Any

import structlog

from channeld import __version__
from channeld.chain.clock import DevnetClock, SystemClock
from channeld.chain.endpoints import chain_client
from channeld.chain.transactions import GWEI, Fees
from channeld.core import records, wire
from channeld.core.crypto import checksum_address
from channeld.core.eip712 import oracle_hash
from channeld.core.errors import ChanneldError, StoreError
from channeld.core.operations import Trade, decode_batch
from channeld.daemon.actor import Actor
from channeld.daemon.alerting import Alerting
from channeld.daemon.bundles import BundleExport
from channeld.daemon.by_policy import adopt_policy, check_by_policy
from channeld.daemon.chain_desk import ChainDesk
from channeld.daemon.defence import Defence
from channeld.daemon.expiries import Expiries
from channeld.daemon.high_water import HighWater
from channeld.daemon.limit_settings import limits_of
from channeld.daemon.loading import load_channel, load_offers
from channeld.daemon.margin_desk import MarginDesk
from channeld.daemon.mark_desk import MarkDesk
from channeld.daemon.metrics import Metrics
from channeld.daemon.novation import Novations
from channeld.daemon.offline import Offline
from channeld.daemon.operators import Approvals, OperatorLog
from channeld.daemon.order_desk import OrderDesk
from channeld.daemon.package_store import archive, live_source
from channeld.daemon.peer_blobs import OF_BLOBS, PeerBlobs
from channeld.daemon.prices import PriceBook
from channeld.daemon.proposals import Proposals, UnknownChannelOfPeerError
from channeld.daemon.recovery import declare_restored
from channeld.daemon.reductions import Reductions
from channeld.daemon.requests import Requests
from channeld.daemon.resuming import Resuming
from channeld.daemon.rfq import RfqDesk
from channeld.daemon.services import NothingSignedError, Services
from channeld.daemon.signer import GuardedSigner
from channeld.daemon.tokens import Tokens
from channeld.daemon.towers import Towers
from channeld.daemon.watch import Watch
from channeld.desk.offers import BadOfferError, Status, read_offer
from channeld.desk.policy import OutsidePolicyError
from channeld.oracle.client import ArchivedPackages
from channeld.store import open_store
from channeld.store.errors import FencedError, LockLostError
from channeld.transport.handshake import PROTOCOL_VERSION, Identity
from channeld.transport.hub import PeerHub
from channeld.transport.link import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from prometheus_client import Counter

    from channeld.core.channel import Channel, Exit
    from channeld.core.operations import Operation
    from channeld.core.terms import Oracle
    from channeld.core.transition import Applied
    from channeld.daemon.config import Config
    from channeld.daemon.package_store import Connected
    from channeld.store import SqliteStore
    from channeld.store.postgresql.store import PostgresqlStore

log = structlog.get_logger(__name__)

PEER, POLICY = "peer", "policy"
STATES = frozenset({"state_signed", "states_signed"})
WEI = 10**18
TICK_S = 0.2
MOST_ALERTS = 100


class Node:
    """One desk."""

    def __init__(self, config: Config, private_key: bytes) -> None:
        """Prepare; `start` opens files and sockets."""
        self.config = config
        self.data: Path = config.data_path
        self._key = private_key
        self.clock: SystemClock | DevnetClock = SystemClock()
        self.actors: dict[bytes, Actor] = {}
        self.peers: dict[bytes, dict[str, str]] = {}
        self.proposals = Proposals(self)
        self.lost_at_ms: dict[bytes, int] = {}
        self.alerts: deque[dict[str, Any]] = deque(maxlen=MOST_ALERTS)
        self.stopping = asyncio.Event()
        self.failure: ChanneldError | None = None
        self.metrics = Metrics()
        self.metrics.build.labels(version=__version__, protocol=str(PROTOCOL_VERSION)).set(1)
        self.watch = Watch(self)
        self.towers = Towers(self)
        self.offline = Offline(self)
        self.margin, self.defence = MarginDesk(self), Defence(self)
        self.reductions, self.resuming, self.marks = Reductions(self), Resuming(self), MarkDesk(self)
        self.expiries = Expiries(self)
        self.rfq = RfqDesk(self)
        self.novations = Novations(self)
        self.orders = OrderDesk(self)
        self.blobs = PeerBlobs(self, private_key)
        now_ms = lambda: self.clock.now_ms()  # noqa: E731, PLW0108 - the clock is another one once the daemon starts
        self.alerting = Alerting(config.alerts, config.desk.name, now_ms)
        self._news = asyncio.Event()
        self._messages: dict[tuple[bytes, str], Counter] = {}
        self._books: dict[bytes, PriceBook] = {}
        self._sources: list[Connected] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.bundles: BundleExport | None = None
        self._failures_told: set[tuple[bytes, bytes, int]] = set()
        self.chain_trouble = ""
        self._chain_code = 0

    # ------------------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        """Open the store, check the chain, load the channels, and begin.

        Raises:
            StoreError, ChainError, SetupError: what stands in the way; nothing was signed.
        """
        config = self.config
        location = config.desk.store or self.data / "channeld.db"
        self.store: SqliteStore | PostgresqlStore = await open_store(location, lock_path=self.data / "daemon.lock")
        try:
            if config.chain.clock == "devnet":
                self.clock = DevnetClock(config.chain.urls[0])
                await self.clock.start()
            self.rpc = chain_client(config.chain.urls, config.chain.request_timeout, config.chain.confirmations)
            self.signer = GuardedSigner(self._key, self.store)
            self.chain = ChainDesk(
                self.rpc,
                self._key,
                self.data / "deployment.json",
                self.store,
                self.clock,
                self.emit,
                confirmations=config.chain.confirmations,
                max_view_age_s=config.chain.max_view_age,
                blocks_keep_time=config.chain.kind == "live",
                fees=Fees(
                    cap=int(config.gas.max_fee_gwei * GWEI),
                    priority_floor=int(config.gas.priority_fee_gwei * GWEI),
                    bump_percent=config.gas.bump_percent,
                ),
                replace_after_s=config.gas.resend_after,
                reserve=int(config.gas.reserve * WEI),
                dispute_budget=int(config.gas.dispute_budget * WEI),
                transacted=lambda label, outcome: self.metrics.transactions.labels(label, outcome).inc(),
                on_resumed=self._resumed,
            )
            self.hub = PeerHub(
                Identity(self.signer.address, secrets.token_bytes(32), self.signer.sign_plain),
                on_connected=self._on_connected,
                on_message=self._on_message,
                on_lost=self._on_lost,
                limits=Limits(
                    heartbeat_interval=config.peers.heartbeat,
                    heartbeat_timeout=2 * config.peers.heartbeat,
                    reconnect_cap=config.peers.reconnect_max,
                ),
            )
            await self._load()
            address = config.peer_address
            await self.hub.start(address.host if address else None, address.port if address else 0)
        except BaseException:
            await self.stop()
            raise
        if config.bundle.folder:
            settings, now_ms = config.bundle, self.clock.now_ms
            folder = self.data / settings.folder
            self.bundles = BundleExport(self.actors, folder, settings.command, settings.interval, now_ms, self.emit)
            self._tasks.append(asyncio.create_task(self.bundles.run(), name="bundles"))
        self._tasks += [
            asyncio.create_task(self._chain_loop(), name="chain"),
            asyncio.create_task(self._ticker(), name="ticker"),
            asyncio.create_task(self._watch_store(), name="store"),
            asyncio.create_task(self.high_water.run(), name="high water"),
            asyncio.create_task(self.blobs.run(), name="blobs"),
            asyncio.create_task(self.alerting.run(), name="alerts"),
        ]
        await self.towers.start()

    async def stop(self) -> None:
        """Stop everything; what is durable goes on at the next start."""
        self.stopping.set()
        tasks = [*self._tasks, *self.watch.tasks()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if hasattr(self, "chain"):
            await self.chain.drain()
        if hasattr(self, "hub"):
            await self.hub.stop()
        for actor in self.actors.values():
            await actor.finish()
        await self.towers.stop()
        await self.rfq.stop()
        await self.orders.stop()
        if self._tasks:
            with contextlib.suppress(StoreError):
                await self.high_water.keep()
        for source in self._sources:
            await source.close()
        if hasattr(self, "rpc"):
            await self.rpc.close()
        if isinstance(self.clock, DevnetClock):
            await self.clock.stop()
        await self.store.close()

    async def _load(self) -> None:
        self.tokens = Tokens(self.store, self.clock.now_ms)
        await self.tokens.load()
        self.operators = OperatorLog(self.store, self.clock.now_ms)
        await self.operators.load()
        self.approvals = Approvals(self.config.approvals, self.store, self.tokens, self.clock.now_ms)
        await self.approvals.load()
        self.high_water = HighWater(self.data, self.store)
        await self.high_water.check()
        for key, raw in await self.store.documents(PEER):
            address = bytes.fromhex(key)
            self.peers[address] = json.loads(raw)
            self.hub.add_peer(address, self.peers[address]["url"] or None)
            self.lost_at_ms[address] = self.clock.now_ms()
        await self.blobs.load()
        await self.proposals.load()
        await self.margin.load()
        await self.resuming.load()
        for record in await self.store.channels():
            channel, last_time_ms = await load_channel(self.store, record, self.signer.address)
            actor = await self.add_actor(record, channel)
            actor.last_time_ms = last_time_ms
            actor.previous = actor.state.body
            await load_offers(self.store, actor)
        await self.rfq.load()
        await self.novations.load()
        await self.orders.load()
        await declare_restored(self.data, self.actors.values())

    async def add_actor(self, record: records.ChannelRecord, channel: Channel) -> Actor:
        """Put a channel to work."""
        chain = self.chain
        services = Services(
            store=self.store,
            clock=self.clock,
            signer=self.signer,
            post=self.post,
            emit=self.emit,
            salt=lambda: secrets.token_bytes(16),
            exit_ready=self._exit_ready,
            told=self.told,
            agreed=self.agreed,
            hold=lambda: chain.stale(record.channel),
            fresh=lambda: chain.fresh(record.channel),
            updated=self.metrics.update_seconds.observe,
            committing=self.metrics.committing,
            deposits=lambda: chain.deposits(record.channel),
        )
        actor = Actor(services, record, channel, self.book(channel.terms.oracle))
        actor.proposal_timeout_ms = int(self.config.channel.proposal_timeout * 1000)
        raw = await self.store.document(POLICY, record.peer.hex())
        if raw is not None:
            adopt_policy(actor, json.loads(raw))
        await self.marks.load(actor)
        actor.own.limits = limits_of(self.config.limits)
        self.actors[record.channel] = actor
        self.blobs.touch(record.channel)
        if record.status != "closed":
            chain.actors[record.channel] = actor
            self.towers.agreed(record.channel)
        return actor

    def book(self, oracle: Oracle) -> PriceBook:
        """The prices of an oracle, one book for all channels with it."""
        key = oracle_hash(oracle)
        if key not in self._books:
            live, to_close = live_source(oracle, self.config.oracle, self.data)
            self._sources += to_close
            kept = archive(self.config.oracle, self.data, self.store)
            self._books[key] = PriceBook(oracle, live, ArchivedPackages(oracle, [live], kept))
            self._books[key].no_new_risk = lambda: self.chain.reserve.why
        return self._books[key]

    async def operate(self, actor: Actor, operation: Operation) -> int:
        """Have an operation of our own co-signed, as the API's methods do; errors as theirs."""
        return await Requests(self).operate(actor, operation)

    # ------------------------------------------------------------------------------------------------- events

    async def emit(self, kind: str, channel: bytes | None = None, /, **data: object) -> None:
        """Record an event and wake those who wait for news. One that cannot be recorded is told all the same."""
        now = self.clock.now_ms()
        self._count(kind, channel, data)
        if kind == "alert":
            shown = {"channel": "0x" + channel.hex()} if channel else {}
            self.alerts.append({"time_ms": now, **shown, **data})
            self.alerting.offer(self.alerts[-1])
            log.warning("alert", channel=channel.hex()[:8] if channel else "", **_loggable(data))
        try:
            await self.store.commit([records.AppendEvent(now, kind, channel, json.dumps(data, default=str))])
        except StoreError as error:
            log.warning("an event could not be recorded", kind=kind, why=str(error))
        self._wake()

    def _count(self, kind: str, channel: bytes | None, data: Mapping[str, Any]) -> None:
        """Metrics follow the events."""
        match kind:
            case "state_signed" if channel is not None:
                self.metrics.cosigned(channel, data["version"])
            case "batch_refused":
                self.metrics.batches_refused.labels(code=str(data["code"])).inc()
            case "states_signed" if channel is not None:
                self.metrics.cosigned(channel, data["version"], data["states"])
                self.metrics.trades.labels(outcome="done").inc(data["trades"])
            case "trade_done" | "trade_refused":
                self.metrics.trades.labels(outcome=kind.removeprefix("trade_")).inc()
            case "dispute_raised" | "dispute_refuted" | "settled":
                self.metrics.disputes.labels(step=kind.removeprefix("dispute_")).inc()
            case "alert":
                self.metrics.alerts.labels(kind=str(data.get("severity", ""))).inc()
            case _:
                return

    def metrics_text(self) -> bytes:
        """What `GET /metrics` gives; gauges are read now."""
        self.watch.gauges(self.clock.now_ms())
        return self.metrics.exposition()

    async def news(self, timeout_s: float) -> None:
        """Wait for the next event, at most so long."""
        waiting = self._news
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(waiting.wait(), timeout_s)

    def told(self, kind: str, channel: bytes, data: Mapping[str, Any]) -> None:
        """Wake those who wait for news of an event that is durable already."""
        self._count(kind, channel, data)
        if kind in STATES:
            self.towers.agreed(channel)
            self.blobs.touch(channel)
            if self.bundles is not None:
                self.bundles.touch(channel)
        self._wake()

    def agreed(self, channel: bytes, applied: Applied) -> None:
        """A state is co-signed and durable: what else on this desk must know."""
        if self.rfq.concerned(applied):
            self.actors[channel].tasks.start(self.rfq.agreed(channel, applied))
        self.orders.agreed(channel, applied)

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _exit_ready(self, channel: bytes, document: Exit) -> None:
        await self.emit("exit_ready", channel, version=document.document.version, exit=document.kind)

    # ------------------------------------------------------------------------------------------------- peers

    def name(self, peer: bytes) -> str:
        """What this desk calls a peer."""
        return self.peers.get(peer, {}).get("name", checksum_address(peer))

    async def add_peer(self, name: str, address: bytes, url: str) -> None:
        """Allow a peer, durably, and connect to it.

        Raises:
            BadPeerConfigurationError: our own address, or no URL of a peer; nothing changed.
        """
        self.hub.add_peer(address, url or None)
        self.peers[address] = {"name": name, "url": url}
        await self.store.commit([records.PutDocument(PEER, address.hex(), json.dumps(self.peers[address]).encode())])
        if not self.hub.connected(address):
            self.lost_at_ms.setdefault(address, self.clock.now_ms())

    async def send(self, peer: bytes, message: wire.Message) -> None:
        """Give a message to the session; without one it is lost, and the next exchange heals."""
        self.post(peer, message)

    def post(self, peer: bytes, message: wire.Message, packed: bytes = b"") -> None:
        """The same at once; `packed` are the message's bytes, where they are made already."""
        try:
            self.hub.post(peer, packed or wire.pack(message))
            self._passed(peer, "out")
        except ChanneldError as error:
            log.debug("not sent", peer=peer.hex()[:8], message=type(message).__name__, why=str(error))

    def _passed(self, peer: bytes, direction: str) -> None:
        counter = self._messages.get((peer, direction))
        if counter is None:
            counter = self._messages[peer, direction] = self.metrics.peer_messages.labels(self.name(peer), direction)
        counter.inc()

    async def _on_connected(self, peer: bytes) -> None:
        self.lost_at_ms.pop(peer, None)
        self._failures_told = {key for key in self._failures_told if key[0] != peer}
        await self.emit("peer_connected", None, peer=self.name(peer), address=checksum_address(peer))
        await self.blobs.connected(peer)
        # then terms: a channel must be known to both before its exchange
        await self.proposals.resend(peer)
        for actor in list(self.actors.values()):
            if actor.peer == peer and actor.record.status != "closed":
                self.watch.peer_is_back(actor.id)
                await actor.session(up=True)
                self.marks.session(actor)
                await self.margin.resend(actor)
                await self.resuming.resend(actor)

    async def _resumed(self, actor: Actor) -> None:
        """A dispute ended by agreement: what one side says while the other is still frozen is said again."""
        if not actor.channel.sequencer or actor.channel.proposals:
            await self.hub.renew(actor.peer)

    async def _on_lost(self, peer: bytes, reason: ChanneldError) -> None:
        self.lost_at_ms.setdefault(peer, self.clock.now_ms())
        self.blobs.lost(peer)
        for actor in list(self.actors.values()):
            if actor.peer == peer:
                await actor.session(up=False)
                self.orders.lost(actor.id)
        if not self.stopping.is_set():
            await self.emit("peer_lost", None, peer=self.name(peer), reason=str(reason))

    async def _on_message(self, peer: bytes, array: list[Any]) -> None:
        """One message. What breaks the protocol ends the session; the hub tells the peer the code and the text."""
        self._passed(peer, "in")
        kind = "none"
        try:
            message = wire.from_wire(array)
            kind = type(message).__name__
            if type(message) not in OF_BLOBS or not await self.blobs.takes(peer, message):
                await self._route(peer, message)
        except NothingSignedError:
            raise  # this desk stops
        except ChanneldError as error:
            log.warning("message refused", peer=peer.hex()[:8], message=kind, code=error.code, why=str(error))
            await self.emit("message_refused", None, peer=self.name(peer), code=error.code, reason=str(error))
            raise

    async def _route(self, peer: bytes, message: wire.Message) -> None:
        match message:
            case wire.ProposeTerms():
                await self.proposals.proposed(peer, message)
            case wire.AcceptTerms(channel):
                await self.proposals.accepted(peer, channel)
            case wire.Failure():
                await self._peer_reports(peer, message)
            case _:
                channel = getattr(message, "channel", b"\0" * 32)
                actor = self.actors.get(channel)
                if actor is None or actor.peer != peer:
                    error = UnknownChannelOfPeerError(f"no channel 0x{channel.hex()} between us: other terms, or lost")
                    await self.send(peer, wire.Failure(channel, error.code, str(error)))
                    await self._told_once(
                        peer,
                        channel,
                        error.code,
                        f"{self.name(peer)} speaks of channel "
                        f"0x{channel.hex()[:8]}, which this desk does not have with it",
                    )
                elif isinstance(message, wire.Offer):
                    await self._offered(actor, message)
                elif isinstance(message, wire.OfferReply):
                    await actor.offer_answered(message)
                elif isinstance(message, wire.MarginNotice | wire.MarginAnswer):
                    await self.margin.received(actor, message)
                elif isinstance(message, wire.MarkBands):
                    await self.marks.received(actor, message)
                elif isinstance(message, wire.ResumeOffer):
                    await self.resuming.received(actor, message)
                elif isinstance(message, wire.RequestQuote | wire.GiveQuote | wire.TakeQuote | wire.PassQuote):
                    await self.rfq.route(actor, message)
                elif isinstance(message, wire.StreamMarket):
                    await self.orders.streams.received(actor, message.market, self.clock.now_ms())
                    self.orders.soon()
                else:
                    await actor.receive(message)

    async def _peer_reports(self, peer: bytes, message: wire.Failure) -> None:
        """The peer tells us why it refused: for people; changes nothing."""
        shown = "".join(c if c.isprintable() else "?" for c in message.reason)
        where = f" about channel 0x{message.channel.hex()[:8]}" if any(message.channel) else ""
        await self._told_once(peer, message.channel, message.code, f"{self.name(peer)} reports{where}: {shown}")

    async def _told_once(self, peer: bytes, channel: bytes, code: int, message: str) -> None:
        """An alert once in a session: a peer cannot fill the log with it."""
        key = (peer, channel, code)
        if key in self._failures_told or len(self._failures_told) >= 1_000:
            return
        self._failures_told.add(key)
        await self.emit("alert", None, severity="warning", peer=self.name(peer), code=code, message=message)

    # ------------------------------------------------------------------------------------------------- offers

    async def _offered(self, actor: Actor, message: wire.Offer) -> None:
        """A peer's offer: known ones are answered again, trades go to policy, the rest is judged at once."""
        batch = decode_batch(message.batch)
        if self.rfq.ours_is(actor, batch.salt):
            await self.rfq.take_of_ours(actor, message.batch, b"")
            return
        known = actor.offers.by_id(batch.salt)
        if known is not None:
            if not known.ours and known.raw == message.batch and known.status in {Status.AGREED, Status.DONE}:
                await self.send(actor.peer, wire.OfferReply(actor.id, known.id, 0, ""))
            return
        try:
            actor.offers.check_room()
            offer = read_offer(message.batch, 1 - actor.channel.side, self.clock.now_ms())
            twin = actor.offers.get(offer.key)
            if twin is not None and twin.status in {Status.PENDING, Status.AGREED}:
                raise BadOfferError("the same operation is offered already, and has no answer yet")
        except ChanneldError as error:
            # not kept: it is refused again whenever it comes
            await actor.reply_refused(batch.salt, error)
            return
        try:
            await actor.consider((offer.operation,))
            if isinstance(offer.operation, Trade) and self.orders.is_hit(offer.operation):
                await self.orders.hit(actor, offer, offer.operation)
                return
            if isinstance(offer.operation, Trade) and not await self.reductions.agrees(actor, offer.operation):
                await check_by_policy(actor, offer.operation, self.clock.now_ms())
            await actor.agree_to(offer)
        except OutsidePolicyError as error:
            await actor.offers.keep(offer)
            await self.emit("offer_received", actor.id, id=offer.id.hex(), why_it_waits=str(error))
        except StoreError:
            raise
        except ChanneldError as error:
            await actor.refuse_offer(offer, error)
            await self.emit("offer_refused", actor.id, id=offer.id.hex(), code=error.code, reason=str(error))

    # ------------------------------------------------------------------------------------------------- loops

    async def _chain_loop(self) -> None:
        """Look at the chain, for ever. A chain that does not answer is reported once, and asked again."""
        while True:
            try:
                await self.chain.look()
                await self._chain_says()
            except ChanneldError as error:
                await self._chain_says(str(error), error.code)
            except Exception:
                log.exception("looking at the chain failed")
            await asyncio.sleep(self.config.chain.poll_interval)

    async def _chain_says(self, message: str = "", code: int = 0) -> None:
        """An alert at each new kind of trouble, and an event when it is over."""
        before, self._chain_code = self._chain_code, code
        self.chain_trouble = message
        if code and code != before:
            await self.emit("alert", None, severity="warning", code=code, message=f"chain: {message}")
        elif before and not code:
            await self.emit("chain_recovered", None)

    async def _watch_store(self) -> None:
        """Stop at once where another daemon has taken this desk over.

        A desk whose disk failed stays up, frozen, and defends its channels on chain: nothing of that needs the disk.
        """
        error = await self.store.wait_poisoned()
        log.critical("the store takes nothing more", code=error.code, why=str(error))
        if not isinstance(error, FencedError | LockLostError):
            return
        self.failure = error
        self.stopping.set()

    async def _ticker(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.watch.tick(self.clock.now_ms())
            self.rfq.due(self.clock.now_ms())
            await self.novations.look(self.clock.now_ms())
            self.orders.due(self.clock.now_ms())


def _loggable(data: dict[str, object]) -> dict[str, object]:
    """Without the names that a line of the log has already."""
    return {key: value for key, value in data.items() if key not in {"event", "channel", "level", "timestamp"}}
