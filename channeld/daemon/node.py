"""The node: one desk's daemon. Wires the rooms, keeps them running, and routes what peers, chain and people bring.

Rules: everything that must survive is in the store before it is acted on; nothing here decides money, the core does.
One ticker drives all that is due by the clock, so that on a devnet a jump of days is handled like the passing of time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from channeld import __version__
from channeld.chain.clock import DevnetClock, SystemClock
from channeld.chain.rpc import ChainRpc
from channeld.core import records, wire
from channeld.core.channel import CoSigned, fresh, restore, restore_exit
from channeld.core.channel.exits import EXIT_DOCUMENT
from channeld.core.crypto import checksum_address
from channeld.core.eip712 import Domain, channel_id, oracle_hash
from channeld.core.errors import ChanneldError, InternalError, OracleError
from channeld.core.journal import replay
from channeld.core.operations import Trade, decode_batch
from channeld.core.state import State, genesis
from channeld.core.transition import Applied, apply
from channeld.daemon.actor import OFFER_DOCUMENT, Actor, Services
from channeld.daemon.chain_desk import OPENER, ChainDesk
from channeld.daemon.metrics import Metrics
from channeld.daemon.prices import PriceBook
from channeld.daemon.signer import GuardedSigner
from channeld.daemon.views import describe_agreed
from channeld.desk.offers import OfferRecord, Status, read_offer
from channeld.desk.policy import OutsidePolicyError, Policy, check_trade
from channeld.desk.pricing import edge_given
from channeld.oracle.client import ArchivedPackages, FolderArchive, HttpPackages
from channeld.store.sqlite import SqliteStore
from channeld.transport.handshake import PROTOCOL_VERSION, Identity
from channeld.transport.hub import PeerHub

if TYPE_CHECKING:
    from pathlib import Path

    from channeld.core.channel import Exit
    from channeld.core.state import Body
    from channeld.core.terms import Oracle, Terms
    from channeld.daemon.config import Config

log = structlog.get_logger(__name__)

PEER, PROPOSAL, POLICY = "peer", "terms", "policy"
TICK_S = 0.2


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
        self.proposals: dict[bytes, dict[str, Any]] = {}
        self.lost_at_ms: dict[bytes, int] = {}
        self.alerts: list[dict[str, Any]] = []
        self.stopping = asyncio.Event()
        self.metrics = Metrics()
        self.metrics.build.labels(version=__version__, protocol=str(PROTOCOL_VERSION)).set(1)
        self._news = asyncio.Event()
        self._books: dict[bytes, PriceBook] = {}
        self._sources: list[HttpPackages] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._marking: dict[bytes, asyncio.Task[None]] = {}
        self._told_lost: set[bytes] = set()

    # ------------------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        """Open the store, check the chain, load the channels, and begin.

        Raises:
            StoreError, ChainError, SetupError: what stands in the way; nothing was signed.
        """
        config = self.config
        self.store = await SqliteStore.open(self.data / "channeld.db", lock_path=self.data / "daemon.lock")
        try:
            if config.chain.clock == "devnet":
                self.clock = DevnetClock(config.chain.urls[0])
                await self.clock.start()
            self.rpc = ChainRpc(config.chain.urls[0], timeout_s=config.chain.request_timeout)
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
            )
            self.hub = PeerHub(
                Identity(self.signer.address, secrets.token_bytes(32), self.signer.sign_plain),
                on_connected=self._on_connected,
                on_message=self._on_message,
                on_lost=self._on_lost,
            )
            await self._load()
            address = config.peer_address
            await self.hub.start(address.host if address else None, address.port if address else 0)
        except BaseException:
            await self.stop()
            raise
        self._tasks = [
            asyncio.create_task(self._chain_loop(), name="chain"),
            asyncio.create_task(self._ticker(), name="ticker"),
        ]

    async def stop(self) -> None:
        """Stop everything; what is durable goes on at the next start."""
        tasks = [*self._tasks, *self._marking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if hasattr(self, "hub"):
            await self.hub.stop()
        if hasattr(self, "chain"):
            await self.chain.drain()
        for source in self._sources:
            await source.close()
        if hasattr(self, "rpc"):
            await self.rpc.close()
        if isinstance(self.clock, DevnetClock):
            await self.clock.stop()
        await self.store.close()

    async def _load(self) -> None:
        for key, raw in await self.store.documents(PEER):
            address = bytes.fromhex(key)
            self.peers[address] = json.loads(raw)
            self.hub.add_peer(address, self.peers[address]["url"] or None)
            self.lost_at_ms[address] = self.clock.now_ms()
        for key, raw in await self.store.documents(PROPOSAL):
            self.proposals[bytes.fromhex(key)] = json.loads(raw)
        for record in await self.store.channels():
            await self._load_channel(record)

    async def _load_channel(self, record: records.ChannelRecord) -> None:
        terms = records.decode_terms(record.terms)
        domain = Domain(record.chain_id, record.adjudicator)
        start = fresh(domain, terms, record.channel, record.side)
        snapshot = await self.store.load_channel(record.channel)
        latest, last = await self._latest(terms, record.channel, snapshot)
        exits = await self._exits(terms, start.id, latest)
        proposals = tuple(m for m in map(_unpack, snapshot.proposals) if isinstance(m, wire.Propose))
        rejection = next((m for m in map(_unpack, snapshot.rejections[-1:]) if isinstance(m, wire.Reject)), None)
        channel = restore(start, latest, proposals, rejection, ())
        channel = replace(channel, exits=tuple(restore_exit(channel, kind, raw, a) for kind, raw, a in exits))
        if record.status in {"disputed", "closed"}:
            channel = replace(channel, frozen="a dispute runs, or the channel has ended on chain")
        actor = await self._actor(record, channel)
        actor.last_time_ms = last.batch.time_ms if last else 0
        actor.previous = actor.state.body
        for key, raw in await self.store.documents(OFFER_DOCUMENT, record.channel.hex()):
            offer = OfferRecord.unpack(raw)
            actor.offers[offer.key] = offer
            log.debug("offer restored", key=key, status=str(offer.status))

    async def _latest(
        self, terms: Terms, channel: bytes, snapshot: records.ChannelSnapshot
    ) -> tuple[CoSigned | None, Applied | None]:
        """The newest co-signed state, and the transition that made it."""
        state = snapshot.state
        if state is None or state.body is None:
            if state is not None:
                raise InternalError(f"the body of version {state.version} is missing from the store")
            return None, None
        body = records.decode_body(state.body)
        newest = CoSigned(State(channel, state.version, body), state.body_hash, state.signature_a, state.signature_b)
        return newest, await self._transition(terms, channel, state.version)

    async def _transition(self, terms: Terms, channel: bytes, version: int) -> Applied | None:
        """The transition that made a version, from its predecessor's body."""
        batches = await self.store.batches(channel, version, version)
        before = [s for s in await self.store.states(channel, 0, version - 1) if s.body is not None][-1:]
        base = (
            State(channel, before[0].version, records.decode_body(before[0].body or b""))
            if before
            else genesis(channel)
        )
        between = await self.store.batches(channel, base.version + 1, version - 1)
        for batch in between:
            base = apply(terms, base, batch.raw, batch.version).state
        return apply(terms, base, batches[0].raw, version) if batches else None

    async def _exits(self, terms: Terms, channel: bytes, latest: CoSigned | None) -> list[tuple[str, bytes, Applied]]:
        found = []
        for key, raw in await self.store.documents(EXIT_DOCUMENT, channel.hex()):
            kind = key.split("/")[-1]
            version = int(_first(raw))
            made = await self._transition(terms, channel, version)
            if made is not None and latest is not None:
                found.append((kind, raw, made))
        return found

    async def _actor(self, record: records.ChannelRecord, channel: Any) -> Actor:  # noqa: ANN401 - core.channel.Channel
        services = Services(
            store=self.store,
            clock=self.clock,
            signer=self.signer,
            send=self.send,
            emit=self.emit,
            salt=lambda: secrets.token_bytes(16),
            exit_ready=self._exit_ready,
            agreed=self._agreed,
            hold=self.chain.stale,
        )
        actor = Actor(services, record, channel, self.book(channel.terms.oracle))
        raw = await self.store.document(POLICY, record.peer.hex())
        if raw is not None:
            actor.policy = policy_from(json.loads(raw))
        self.actors[record.channel] = actor
        if record.status != "closed":
            self.chain.actors[record.channel] = actor
        return actor

    def book(self, oracle: Oracle) -> PriceBook:
        """The prices of an oracle, one book for all channels with it."""
        key = oracle_hash(oracle)
        if key not in self._books:
            live = HttpPackages(oracle, self.config.oracle.urls, timeout_s=self.config.oracle.request_timeout)
            self._sources.append(live)
            archive = FolderArchive(self.data / "packages")
            self._books[key] = PriceBook(oracle, live, ArchivedPackages(oracle, [live], archive))
        return self._books[key]

    # ------------------------------------------------------------------------------------------------- events

    async def emit(self, kind: str, channel: bytes | None = None, **data: object) -> None:
        """Record an event and wake those who wait for news."""
        now = self.clock.now_ms()
        await self.store.commit([records.AppendEvent(now, kind, channel, json.dumps(data, default=str))])
        self._count(kind, channel, data)
        if kind == "alert":
            self.alerts = [*self.alerts[-99:], {"time_ms": now, **data}]
            log.warning("alert", channel=channel.hex()[:8] if channel else "", **data)
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _count(self, kind: str, channel: bytes | None, data: dict[str, Any]) -> None:
        """Metrics follow the events."""
        match kind:
            case "state_signed" if channel is not None:
                self.metrics.cosigned(channel, data["version"])
            case "batch_refused":
                self.metrics.batches_refused.labels(code=str(data["code"])).inc()
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
        for address, peer in self.peers.items():
            self.metrics.peer_connected.labels(peer=peer["name"]).set(self.hub.connected(address))
        self.metrics.chain_block.set(self.chain.view["block"])
        self.metrics.chain_age_seconds.set(self.chain.age_s())
        self.metrics.store_poisoned.set(self.store.poisoned is not None)
        self.metrics.disputes_open.set(sum(a.record.status == "disputed" for a in self.actors.values()))
        return self.metrics.exposition()

    async def news(self, timeout_s: float) -> None:
        """Wait for the next event, at most so long."""
        waiting = self._news
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(waiting.wait(), timeout_s)

    async def _agreed(self, channel: bytes, before: Body, applied: Applied) -> None:
        """Events of a co-signed state, as a desk speaks of them."""
        for kind, data in describe_agreed(self.actors[channel].channel, before, applied):
            await self.emit(kind, channel, **data)

    async def _exit_ready(self, channel: bytes, document: Exit) -> None:
        await self.emit("exit_ready", channel, version=document.document.version, exit=document.kind)

    # ------------------------------------------------------------------------------------------------- peers

    async def add_peer(self, name: str, address: bytes, url: str) -> None:
        """Allow a peer, durably, and connect to it."""
        self.peers[address] = {"name": name, "url": url}
        await self.store.commit([records.PutDocument(PEER, address.hex(), json.dumps(self.peers[address]).encode())])
        self.lost_at_ms.setdefault(address, self.clock.now_ms())
        self.hub.add_peer(address, url or None)

    async def send(self, peer: bytes, message: wire.Message) -> None:
        """Give a message to the session; without one it is lost, and the next exchange heals."""
        try:
            await self.hub.send(peer, wire.to_wire(message))
        except ChanneldError as error:
            log.debug("not sent", peer=peer.hex()[:8], message=type(message).__name__, why=str(error))

    async def _on_connected(self, peer: bytes) -> None:
        self.lost_at_ms.pop(peer, None)
        self._told_lost.discard(peer)
        await self.emit(
            "peer_connected", None, peer=self.peers.get(peer, {}).get("name", ""), address=checksum_address(peer)
        )
        # terms first: a channel must be known to both before its exchange
        for channel, proposal in list(self.proposals.items()):
            if proposal["peer"] == peer.hex():
                await self._resend_proposal(peer, channel, proposal)
        for actor in list(self.actors.values()):
            if actor.peer == peer and actor.record.status != "closed":
                await actor.session(up=True)

    async def _resend_proposal(self, peer: bytes, channel: bytes, proposal: dict[str, Any]) -> None:
        if proposal["status"] == "pending" and proposal["direction"] == "out":
            await self.send(
                peer,
                wire.ProposeTerms(
                    proposal["chain_id"], bytes.fromhex(proposal["adjudicator"]), bytes.fromhex(proposal["terms"])
                ),
            )
        if proposal["status"] == "accepted" and proposal["direction"] == "in":
            await self.send(peer, wire.AcceptTerms(channel))

    async def _on_lost(self, peer: bytes, reason: ChanneldError) -> None:
        self.lost_at_ms.setdefault(peer, self.clock.now_ms())
        for actor in list(self.actors.values()):
            if actor.peer == peer:
                await actor.session(up=False)
        if not self.stopping.is_set():
            await self.emit("peer_lost", None, peer=self.peers.get(peer, {}).get("name", ""), reason=str(reason))

    async def _on_message(self, peer: bytes, array: list[Any]) -> None:
        """One message. What breaks the protocol ends the session; the hub tells the peer the code and the text."""
        message = wire.from_wire(array)
        try:
            await self._route(peer, message)
        except ChanneldError as error:
            log.warning(
                "message refused", peer=peer.hex()[:8], message=type(message).__name__, code=error.code, why=str(error)
            )
            await self.emit("message_refused", None, code=error.code, reason=str(error))
            raise

    async def _route(self, peer: bytes, message: wire.Message) -> None:
        match message:
            case wire.ProposeTerms():
                await self._terms_proposed(peer, message)
            case wire.AcceptTerms(channel):
                await self._terms_accepted(peer, channel)
            case wire.Failure():
                log.warning("the peer reports", code=message.code, reason=message.reason)
            case _:
                actor = self.actors.get(getattr(message, "channel", b""))
                if actor is None or actor.peer != peer:
                    await self.send(
                        peer, wire.Failure(getattr(message, "channel", b"\0" * 32), 3330, "no such channel")
                    )
                    return
                if isinstance(message, wire.Offer):
                    await self._offered(actor, message)
                elif isinstance(message, wire.OfferReply):
                    await actor.offer_answered(message)
                else:
                    await actor.receive(message)

    # ------------------------------------------------------------------------------------------------- terms

    async def keep_proposal(self, channel: bytes, proposal: dict[str, Any]) -> None:
        """Make a proposal of terms, or its new status, durable."""
        self.proposals[channel] = proposal
        await self.store.commit([records.PutDocument(PROPOSAL, channel.hex(), json.dumps(proposal).encode())])

    async def _terms_proposed(self, peer: bytes, message: wire.ProposeTerms) -> None:
        terms = records.decode_terms(message.terms)
        domain = Domain(message.chain_id, message.adjudicator)
        channel = channel_id(domain, terms)
        if channel in self.proposals or channel in self.actors:
            return
        if len([p for p in self.proposals.values() if p["status"] == "pending"]) > 100:
            log.warning("too many proposals wait; one more is dropped", peer=peer.hex()[:8])
            return
        proposal = {
            "peer": peer.hex(),
            "direction": "in",
            "status": "pending",
            "chain_id": message.chain_id,
            "adjudicator": message.adjudicator.hex(),
            "terms": message.terms.hex(),
        }
        await self.keep_proposal(channel, proposal)
        await self.emit("channel_proposed", channel, peer=self.peers[peer]["name"])

    async def _terms_accepted(self, peer: bytes, channel: bytes) -> None:
        proposal = self.proposals.get(channel)
        if proposal is None or proposal["direction"] != "out" or bytes.fromhex(proposal["peer"]) != peer:
            await self.send(peer, wire.Failure(channel, 3331, "we have proposed no terms with this hash"))
            return
        if channel not in self.actors:
            await self.keep_proposal(channel, {**proposal, "status": "accepted"})
            await self.begin_channel(channel, proposal, opener=True)
            await self.emit("channel_accepted", channel, peer=self.peers[peer]["name"])

    async def begin_channel(self, channel: bytes, proposal: dict[str, Any], *, opener: bool) -> Actor:
        """Both have agreed on the terms: the channel exists here, at version 0."""
        peer = bytes.fromhex(proposal["peer"])
        raw_terms = bytes.fromhex(proposal["terms"])
        terms = records.decode_terms(raw_terms)
        side = 0 if terms.a.signer == self.signer.address else 1
        adjudicator = bytes.fromhex(proposal["adjudicator"])
        record = records.ChannelRecord(
            channel, peer, side, raw_terms, proposal["chain_id"], adjudicator, "opening", self.clock.now_ms()
        )
        writes: list[records.Write] = [records.PutChannel(record)]
        if opener:
            writes.append(records.PutDocument(OPENER, channel.hex(), b"1"))
        await self.store.commit(writes)
        actor = await self._actor(record, fresh(Domain(record.chain_id, adjudicator), terms, channel, side))
        if not opener:
            await self.send(peer, wire.AcceptTerms(channel))
        if self.hub.connected(peer):
            await actor.session(up=True)
        return actor

    # ------------------------------------------------------------------------------------------------- offers

    async def _offered(self, actor: Actor, message: wire.Offer) -> None:
        """A peer's offer: known ones are answered again, trades go to policy, the rest is judged at once."""
        now = self.clock.now_ms()
        batch = decode_batch(message.batch)
        known = actor.by_id(batch.salt)
        if known is not None:
            if known.status in {Status.AGREED, Status.DONE}:
                await self.send(actor.peer, wire.OfferReply(actor.id, known.id, 0, ""))
            return
        offer = read_offer(message.batch, 1 - actor.channel.side, now)
        try:
            await actor.rehearse((offer.operation,))
            if isinstance(offer.operation, Trade):
                await self._by_policy(actor, offer.operation)
        except OutsidePolicyError as error:
            await actor.keep_offer(offer)
            await self.emit("offer_received", actor.id, id=offer.id.hex(), why_it_waits=str(error))
            return
        except ChanneldError as error:
            await actor.keep_offer(offer)
            await actor.refuse_offer(offer, error)
            await self.emit("offer_refused", actor.id, id=offer.id.hex(), code=error.code, reason=str(error))
            return
        await actor.agree_to(offer)

    async def _by_policy(self, actor: Actor, trade: Trade) -> None:
        prices = await actor.book.prices(actor.channel.terms, actor.state.body, self.clock.now_ms())
        if any(leg.instrument.feed not in prices.spots for leg in trade.legs):
            raise OutsidePolicyError("there is no print of the instrument's feed to judge the price by")
        edge = edge_given(trade.legs, actor.channel.side, prices.spots, prices.time)
        check_trade(actor.policy, trade, prices.spots, edge)

    # ------------------------------------------------------------------------------------------------- loops

    async def _chain_loop(self) -> None:
        """Look at the chain, for ever. A chain that does not answer is reported once, and asked again."""
        troubled = False
        while True:
            try:
                await self.chain.look()
                troubled = False
            except ChanneldError as error:
                if not troubled:
                    await self.emit("alert", None, severity="warning", message=f"chain: {error}")
                troubled = True
            except Exception:
                log.exception("looking at the chain failed")
            await asyncio.sleep(self.config.chain.poll_interval)

    async def _ticker(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self._tick(self.clock.now_ms())
            except ChanneldError as error:
                log.warning("a tick failed", code=error.code, why=str(error))
            except Exception:
                log.exception("a tick failed")

    async def _tick(self, now_ms: int) -> None:
        for channel, actor in list(self.actors.items()):
            if actor.record.status == "closed":
                continue
            await actor.expire_offers(now_ms)
            await actor.pump()
            await self._watch_proposal(actor, now_ms)
            await self._watch_peer(actor, now_ms)
            running = self._marking.get(channel)
            if (running is None or running.done()) and actor.mark_due(now_ms, int(self.config.channel.mark_interval)):
                self._marking[channel] = asyncio.create_task(self._mark(actor))

    async def _mark(self, actor: Actor) -> None:
        try:
            await asyncio.wait_for(actor.mark(), self.config.channel.proposal_timeout * 4)
        except OracleError as error:
            log.info("no mark", channel=actor.id.hex()[:8], why=str(error))
        except (ChanneldError, TimeoutError) as error:
            log.warning("no mark", channel=actor.id.hex()[:8], why=str(error) or "the peer does not answer")

    async def _watch_proposal(self, actor: Actor, now_ms: int) -> None:
        if not actor.channel.sequencer or not actor.channel.proposals:
            return
        waited = now_ms - actor.proposed_at_ms
        key = actor.id + b"proposal"
        if waited > self.config.channel.proposal_timeout * 1000 and actor.peer not in self.lost_at_ms:
            if key not in self._told_lost:
                self._told_lost.add(key)
                version = actor.channel.proposals[0].version
                await self.emit(
                    "alert",
                    actor.id,
                    severity="warning",
                    message=f"version {version} is unanswered for {waited / 1000:.0f} s; no new risk is taken",
                )
        else:
            self._told_lost.discard(key)

    async def _watch_peer(self, actor: Actor, now_ms: int) -> None:
        """An unreachable peer is an alert, then, by policy, a challenge."""
        lost = self.lost_at_ms.get(actor.peer)
        if lost is None or actor.record.status != "open" or now_ms - lost < self.config.channel.dispute_after * 1000:
            return
        if actor.id in self._told_lost:
            return
        self._told_lost.add(actor.id)
        name = self.peers.get(actor.peer, {}).get("name", "")
        silent = (now_ms - lost) // 1000
        await self.emit("alert", actor.id, severity="critical", message=f"{name} has been unreachable for {silent} s")
        if self.config.channel.auto_dispute == "challenge" and actor.state.version > 0:
            try:
                await self.chain.challenge(actor)
            except ChanneldError as error:
                self._told_lost.discard(actor.id)
                log.warning("the challenge failed; it is tried again", why=str(error))


def _unpack(message: records.MessageRecord) -> wire.Message:
    return wire.unpack(message.raw)


def _first(raw: bytes) -> int:
    from channeld.core.codec import decode  # noqa: PLC0415 - one use

    return int(decode(raw)[0])


def policy_from(data: dict[str, Any]) -> Policy:
    """A policy from its stored form."""
    instruments = data.get("instruments")
    return Policy(**{**data, "instruments": tuple(instruments) if instruments is not None else None})


async def expected_state(actor: Actor, store: records.Store) -> State:
    """The state that replaying every batch from version 0 gives; for audits."""
    batches = [(b.version, b.raw) for b in await store.batches(actor.id)]
    return replay(actor.channel.terms, actor.id, batches)
