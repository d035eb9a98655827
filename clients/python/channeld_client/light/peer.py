"""The light peer: one wallet's channels with one desk, without a daemon.

Rules: the desk orders, the peer follows; terms in which the peer would order are refused. Everything is checked here:
the contracts' code, deposits on the chain, both parties' margin at prices from oracle packages that were verified here,
every package of a MARK, every signature, the journal. What the owner has not asked for or agreed to is not signed.
Amounts are decimal texts in whole collateral, sizes from the wallet's view: positive buys.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from channeld.chain.clock import DevnetClock, SystemClock
from channeld.chain.contracts import Phase
from channeld.chain.rpc import ChainRpc
from channeld.core import records, wire
from channeld.core.bundle import bundle_to_json
from channeld.core.channel import DISPUTED, Channel, Freeze, fresh, waiting_for
from channeld.core.channel.values import NotReadyError
from channeld.core.crypto import checksum_address
from channeld.core.describe import operation_data
from channeld.core.eip712 import Domain, channel_id
from channeld.core.errors import ChanneldError, InputError, PeerError, StoreError
from channeld.core.instruments import instrument_name
from channeld.core.journal import verify
from channeld.core.operations import CloseChannel, Operation, Trade, Transfer, Withdraw, decode_batch
from channeld.core.wad import format_decimal, parse_decimal
from channeld.daemon.bundles import actor_bundle
from channeld.daemon.loading import journal_of, load_channel, load_offers
from channeld.daemon.package_store import StoreArchive
from channeld.daemon.prices import PriceBook
from channeld.daemon.services import NoAnswerError, Services
from channeld.daemon.trading_methods import leg_from
from channeld.daemon.wallet_signer import Shown, Wallet, WalletActor, WalletSigner, operation_words
from channeld.desk.limits import in_words
from channeld.desk.offers import DEFAULT_LIFETIME_MS, OfferRecord, Status, UnknownOfferError, make_offer, read_offer
from channeld.oracle.client import ArchivedPackages, HttpPackages
from channeld.transport.handshake import Identity
from channeld.transport.hub import PeerHub
from channeld.transport.link import Limits
from channeld_client.light.chain import ChainView, Transaction
from channeld_client.light.log import Log, LogStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from channeld.core.channel import Exit
    from channeld.core.terms import Oracle, Terms

LOOK_S = 2.0
MOST_NEWS = 1_000
MOST_TERMS = 32


class NotOurTermsError(InputError):
    """Terms that a light peer does not take: not its keys, not its payout, or it would have to order."""


class UnknownChannelError(InputError):
    """There is no such channel, or several."""


class LightPeer:
    """A wallet's peer: `async with LightPeer(...) as peer`."""

    def __init__(
        self,
        wallet: Wallet,
        log: Log,
        *,
        desk: bytes,
        url: str,
        rpc_url: str,
        oracle_urls: Sequence[str],
        payout: bytes,
        approve: Callable[[Shown], Awaitable[bool]],
        confirmations: int = 12,
        max_view_age_s: float = 120.0,
        look_s: float = LOOK_S,
        devnet: bool = False,
    ) -> None:
        """Nothing is opened yet.

        Args:
            wallet: signs typed data; its address is the signer of the terms.
            log: where records are kept.
            desk: the signer address of the desk, 20 bytes.
            url: the desk's peer address, ws://host:port.
            rpc_url: an endpoint of the chain.
            oracle_urls: services that give the oracle's packages.
            payout: where this side is to be paid, 20 bytes; terms must say so.
            approve: shown everything that is about to be signed; False refuses.
            confirmations: how deep a deposit must be.
            max_view_age_s: nothing is signed with a view of the chain older than this.
            look_s: how often to look at the chain.
            devnet: the clock is that of the development chain.
        """
        self._wallet, self._log = wallet, log
        self.desk, self._url, self._payout = desk, url, payout
        self._oracle_urls, self._look_s = list(oracle_urls), look_s
        self.clock: SystemClock | DevnetClock = DevnetClock(rpc_url) if devnet else SystemClock()
        self._rpc = ChainRpc(rpc_url)
        self.chain = ChainView(self._rpc, self.clock, confirmations=confirmations, max_age_s=max_view_age_s)
        self._approve = approve
        self.store = LogStore(log)
        self.signer = WalletSigner(wallet, self.store, approve)
        self.actors: dict[bytes, WalletActor] = {}
        self.terms_offered: dict[bytes, tuple[Domain, Terms]] = {}
        self.news: deque[tuple[str, dict[str, Any]]] = deque(maxlen=MOST_NEWS)
        """The latest events, (kind, data): as docs/api.md lists them."""
        self._news = asyncio.Event()
        self._sources: list[HttpPackages] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._hub = PeerHub(
            Identity(wallet.address, secrets.token_bytes(32), _no_digest, wallet=self.signer.sign_link),
            on_connected=self._connected,
            on_message=self._received,
            on_lost=self._lost,
            limits=Limits(),
        )

    # ------------------------------------------------------------------------------------------------- life

    async def __aenter__(self) -> Self:
        """Read the log, look at the chain, and connect.

        Raises:
            StoreError: the log cannot be used.
            ChainError: the chain's endpoint.
        """
        try:
            await self.store.load()
            if isinstance(self.clock, DevnetClock):
                await self.clock.start()
            for record in await self.store.channels():
                channel, last_time_ms = await load_channel(self.store, record, self._wallet.address)
                actor = await self._add(record, channel)
                actor.last_time_ms = last_time_ms
                actor.previous = actor.state.body
                await load_offers(self.store, actor)
            self._tasks.append(asyncio.create_task(self._look(), name="light chain"))
            await self._hub.start(None, 0)
            self._hub.add_peer(self.desk, self._url)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()

    async def close(self) -> None:
        """Disconnect; what is durable goes on at the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._hub.stop()
        for actor in self.actors.values():
            await actor.finish()
        for source in self._sources:
            await source.close()
        await self._rpc.close()
        if isinstance(self.clock, DevnetClock):
            await self.clock.stop()
        await self.store.close()

    async def _add(self, record: records.ChannelRecord, channel: Channel) -> WalletActor:
        view, identifier = self.chain, record.channel
        services = Services(
            store=self.store,
            clock=self.clock,
            signer=self.signer,
            post=self._post,
            emit=self._emit,
            salt=lambda: secrets.token_bytes(16),
            exit_ready=self._exit_ready,
            told=self._told,
            agreed=_nothing,
            hold=lambda: view.stale(identifier),
            fresh=lambda: view.fresh(identifier),
            updated=_nothing,
            committing=contextlib.nullcontext,
            deposits=lambda: view.deposits(identifier),
        )
        actor = WalletActor(services, record, channel, self._book(channel.terms.oracle))
        self.actors[identifier] = actor
        self.signer.channels[identifier] = lambda: actor.effects.working
        await view.follow(identifier, channel.domain)
        return actor

    def _book(self, oracle: Oracle) -> PriceBook:
        source = HttpPackages(oracle, self._oracle_urls)
        self._sources.append(source)
        return PriceBook(oracle, source, ArchivedPackages(oracle, [source], StoreArchive(self.store)))

    async def _look(self) -> None:
        """Look at the chain, for ever: deposits, and disputes, which end all signing."""
        while True:
            try:
                await self.chain.look()
                self.chain.trouble = ""
                for identifier, record in list(self.chain.known.items()):
                    actor = self.actors.get(identifier)
                    if actor is None:
                        continue
                    actor.chain_deposits(record.deposited_a, record.deposited_b)
                    if self.chain.disputed(identifier) and not actor.channel.frozen:
                        await actor.feed(Freeze(DISPUTED))
                    await actor.expire_offers(self.clock.now_ms())
                    # where the desk has shown that this log is an old one: once no lost Close can be used any more
                    await actor.recovery.look(actor, self.clock.now_ms(), record.floor_version)
            except ChanneldError as error:
                self.chain.trouble = str(error)
            self._wake()
            await asyncio.sleep(self._look_s)

    # ------------------------------------------------------------------------------------------------- news

    async def _emit(self, kind: str, channel: bytes | None = None, /, **data: object) -> None:
        self._told(kind, channel or b"", data)

    def _told(self, kind: str, channel: bytes, data: Mapping[str, Any]) -> None:
        self.news.append((kind, {"channel": "0x" + channel.hex(), **data}))
        self._wake()

    async def _exit_ready(self, channel: bytes, document: Exit) -> None:
        self._told("exit_ready", channel, {"version": document.document.version, "exit": document.kind})

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def until(self, condition: Callable[[], object], timeout_s: float = 60.0) -> None:
        """Return once a condition holds; it is looked at whenever something happens.

        Raises:
            NoAnswerError: not in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    waiting = self._news
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(waiting.wait(), 0.2)
        except TimeoutError:
            raise NoAnswerError(f"it did not come about within {timeout_s:.0f} s") from None

    # ------------------------------------------------------------------------------------------------- the link

    @property
    def connected(self) -> bool:
        """Whether a session with the desk stands."""
        return self._hub.connected(self.desk)

    def _post(self, peer: bytes, message: wire.Message, packed: bytes) -> None:
        # what is lost with a session is healed by the exchange of the next
        with contextlib.suppress(ChanneldError):
            self._hub.post(peer, packed or wire.pack(message))

    async def _connected(self, peer: bytes) -> None:
        for actor in list(self.actors.values()):
            if not actor.state.version:
                # said again, in case that the desk has not heard it: it begins a channel once
                self._post(peer, wire.AcceptTerms(actor.id), b"")
            await actor.session(up=True)
        self._told("peer_connected", b"", {"address": checksum_address(peer)})

    async def _lost(self, peer: bytes, reason: ChanneldError) -> None:
        for actor in list(self.actors.values()):
            await actor.session(up=False)
        self._told("peer_lost", b"", {"address": checksum_address(peer), "reason": str(reason)})

    async def _received(self, peer: bytes, array: list[Any]) -> None:
        """One message. What breaks the protocol ends the session, as at a daemon."""
        message = wire.from_wire(array)
        match message:
            case wire.ProposeTerms():
                self._proposed(peer, message)
            case wire.Failure(channel, code, reason):
                self._told("alert", channel, {"code": code, "message": f"the desk reports: {reason}"})
            case wire.Offer(channel):
                if actor := self.actors.get(channel):
                    await self._offered(actor, message)
            case wire.OfferReply(channel):
                if actor := self.actors.get(channel):
                    await actor.offer_answered(message)
            case wire.Sync() | wire.Propose() | wire.Accept() | wire.Reject() | wire.Document() | wire.Recover():
                if actor := self.actors.get(message.channel):
                    await actor.receive(message)
            case wire.MarginNotice(channel, _, version):
                self._told("margin_call", channel, {"version": version, "deadline": message.deadline})
            case _:
                return  # quotes, markets, blobs: a light peer takes no part in them
        self._wake()

    # ------------------------------------------------------------------------------------------------- opening

    def _proposed(self, peer: bytes, message: wire.ProposeTerms) -> None:
        terms, domain = records.decode_terms(message.terms), Domain(message.chain_id, message.adjudicator)
        identifier = channel_id(domain, terms)
        try:
            self._check_terms(terms, room=identifier in self.terms_offered or len(self.terms_offered) < MOST_TERMS)
        except NotOurTermsError as error:
            self._post(peer, wire.Failure(b"\0" * 32, error.code, str(error)[: wire.MAX_TEXT]), b"")
            self._told("channel_proposal_refused", identifier, {"code": error.code, "reason": str(error)})
            return
        if identifier not in self.actors:
            self.terms_offered[identifier] = (domain, terms)
            self._told("channel_proposed", identifier, {"in_words": in_words(terms, self._side(terms))})

    def _side(self, terms: Terms) -> int:
        return 0 if terms.a.signer == self._wallet.address else 1

    def _check_terms(self, terms: Terms, *, room: bool) -> None:
        if not room:
            raise NotOurTermsError("too many terms wait for an answer already")
        if {terms.a.signer, terms.b.signer} != {self._wallet.address, self.desk}:
            raise NotOurTermsError("the signers of the terms are not this wallet and the desk")
        side = self._side(terms)
        if terms.party(side).payout != self._payout:
            raise NotOurTermsError(
                f"the terms pay this side to {checksum_address(terms.party(side).payout)}, not to "
                f"{checksum_address(self._payout)}"
            )
        if terms.sequencer == side:
            raise NotOurTermsError("the desk must be the sequencer: a light peer follows")

    async def accept_terms(self, identifier: str) -> str:
        """Accept the desk's terms by their hash (the channel's id); the desk then opens the channel on chain.

        Raises:
            NotOurTermsError: no such terms wait.
            ChainError: the contracts are not this release's, or the collateral is not what the terms say.
        """
        channel = bytes.fromhex(identifier.removeprefix("0x"))
        if channel in self.actors:
            return identifier
        if channel not in self.terms_offered:
            raise NotOurTermsError(f"no terms with the hash {identifier} wait for an answer")
        domain, terms = self.terms_offered[channel]
        await self.chain.check(domain, terms)
        side = self._side(terms)
        record = records.ChannelRecord(
            channel,
            self.desk,
            side,
            records.encode_terms(terms),
            domain.chain_id,
            domain.adjudicator,
            "open",
            self.clock.now_ms(),
        )
        await self.store.commit([records.PutChannel(record)])
        del self.terms_offered[channel]
        actor = await self._add(record, fresh(domain, terms, channel, side))
        self._post(self.desk, wire.AcceptTerms(channel), b"")
        if self.connected:
            await actor.session(up=True)
        return identifier

    # ------------------------------------------------------------------------------------------------- what stands

    def actor(self, channel: str | None = None) -> WalletActor:
        """The channel by its id; the only one without.

        Raises:
            UnknownChannelError: none, or several.
        """
        found = [a for a in self.actors.values() if channel is None or "0x" + a.id.hex() == channel]
        if len(found) != 1:
            raise UnknownChannelError(f"{len(found)} channels match; name one by its id")
        return found[0]

    def status(self, channel: str | None = None) -> dict[str, Any]:
        """Where a channel stands: balances (whole collateral), positions from the wallet's view, what it waits for."""
        actor = self.actor(channel)
        side, decimals, body = actor.channel.side, actor.channel.terms.decimals, actor.state.body
        sign = -1 if side else 1
        return {
            "channel": "0x" + actor.id.hex(),
            "version": actor.state.version,
            "balance": format_decimal(body.account(side).balance, decimals),
            "desk_balance": format_decimal(body.account(1 - side).balance, decimals),
            "positions": [
                {
                    "instrument": instrument_name(p.instrument),
                    "size": format_decimal(sign * p.size),
                    "mark": format_decimal(p.mark),
                }
                for p in body.positions
            ],
            "connected": self.connected,
            "waits_for": waiting_for(actor.channel),
            "chain_trouble": self.chain.trouble or self.chain.stale(actor.id),
        }

    def on_chain(self, channel: str | None = None) -> bool:
        """Whether the channel is open on chain, so that deposits can be made."""
        actor = self.actor(channel)
        known = self.chain.known.get(actor.id)
        return known is not None and known.phase is Phase.OPEN

    def offers(self) -> list[dict[str, Any]]:
        """The desk's offers that wait for `accept_offer`: id, sentence, and what docs/api.md tells of an operation."""
        rows, now = [], self.clock.now_ms()
        for actor in self.actors.values():
            for offer in actor.offers:
                if not offer.ours and offer.status is Status.PENDING and offer.valid_until_ms >= now:
                    data = operation_data(offer.operation, actor.channel.side, actor.channel.terms.decimals)
                    rows.append({"id": offer.id.hex(), "sentence": operation_words(data), **data})
        return rows

    async def bundle(self, channel: str | None = None) -> dict[str, Any]:
        """The dispute bundle (docs/files.md): with it and an RPC URL `channeld dispute` enforces the channel."""
        return bundle_to_json(await actor_bundle(self.actor(channel), self.clock.now_ms()))

    async def audit(self, channel: str | None = None) -> int:
        """Replay the journal from version 0 and compare; the version that it proves.

        Raises:
            RuleError: it does not end at what both have signed.
        """
        actor = self.actor(channel)
        start, journal = await journal_of(self.store, actor.id)
        await asyncio.to_thread(verify, actor.channel.terms, journal, actor.state, start)
        return actor.state.version

    # ------------------------------------------------------------------------------------------------- doing

    async def _offered(self, actor: WalletActor, message: wire.Offer) -> None:
        """A desk's offer: judged at once, then kept for the owner's word."""
        batch = decode_batch(message.batch)
        known = actor.offers.by_id(batch.salt)
        if known is not None:
            if not known.ours and known.raw == message.batch and known.status in {Status.AGREED, Status.DONE}:
                self._post(self.desk, wire.OfferReply(actor.id, known.id, 0, ""), b"")
            return
        try:
            actor.offers.check_room()
            offer = read_offer(message.batch, 1 - actor.channel.side, self.clock.now_ms())
            await actor.rehearse((offer.operation,))
        except StoreError:
            raise
        except ChanneldError as error:
            await actor.reply_refused(batch.salt, error)
            return
        await actor.offers.keep(offer)
        self._told("offer_received", actor.id, {"id": offer.id.hex()})

    def _waiting(self, identifier: str) -> tuple[WalletActor, OfferRecord]:
        now = self.clock.now_ms()
        for actor in self.actors.values():
            for offer in actor.offers:
                waits = not offer.ours and offer.status is Status.PENDING and offer.valid_until_ms >= now
                if waits and offer.id.hex() == identifier:
                    return actor, offer
        raise UnknownOfferError(f"no offer {identifier} waits for us")

    async def accept_offer(self, identifier: str, wait_s: float = 30.0) -> int:
        """Agree to an offer of the desk; the version that holds it.

        Raises:
            UnknownOfferError: it does not wait.
            NoAnswerError: it is agreed, and not co-signed in time.
        """
        actor, offer = self._waiting(identifier)
        await actor.rehearse((offer.operation,))
        await actor.agree_to(offer)

        def done() -> bool:
            held = actor.offers.get(offer.key)
            return held is not None and held.status is Status.DONE

        await self.until(done, wait_s)
        return actor.state.version

    async def refuse_offer(self, identifier: str, reason: str = "refused by the wallet") -> None:
        """Refuse an offer of the desk. Raises UnknownOfferError."""
        actor, offer = self._waiting(identifier)
        await actor.refuse_offer(offer, InputError(reason[:256]))

    async def trade(
        self,
        legs: Sequence[Mapping[str, str]],
        *,
        fee: str = "0",
        reference: str = "",
        channel: str | None = None,
        wait_s: float = 30.0,
    ) -> int:
        """Offer a trade; the version that holds it once the desk has agreed. legs: as for private/trade.

        Raises:
            NoAnswerError: not in time; the offer lives for a minute.
            ChanneldError: refused here or by the desk.
        """
        actor = self.actor(channel)
        side = actor.channel.side
        prices = await actor.book.prices(actor.channel.terms, actor.channel.tip.body, self.clock.now_ms())
        made = tuple(leg_from(dict(leg), actor.channel.tip.body, prices, side) for leg in legs)
        paid = parse_decimal(fee, actor.channel.terms.decimals)
        return await self._operate(actor, Trade(side, made, -paid if side else paid, reference.encode()), wait_s)

    async def pay(self, amount: str, *, memo: str = "", channel: str | None = None, wait_s: float = 30.0) -> int:
        """Pay the desk; the version that holds it. Errors as `trade`."""
        actor = self.actor(channel)
        units = parse_decimal(amount, actor.channel.terms.decimals)
        return await self._operate(actor, Transfer(actor.channel.side, units, memo.encode()), wait_s)

    async def withdraw(self, amount: str, *, channel: str | None = None, wait_s: float = 30.0) -> Transaction:
        """Withdraw free collateral to the payout address: the transaction that pays it, with both signatures.

        The desk sends it too; whoever comes first pays the gas. Errors as `trade`.
        """
        actor = self.actor(channel)
        units = parse_decimal(amount, actor.channel.terms.decimals)
        version = await self._operate(actor, Withdraw(actor.channel.side, units), wait_s)
        return await self._exit(actor, version, wait_s)

    async def end(self, *, channel: str | None = None, wait_s: float = 30.0) -> Transaction:
        """End the channel by agreement, its book being empty: the transaction that pays both. Errors as `trade`."""
        actor = self.actor(channel)
        version = await self._operate(actor, CloseChannel(actor.channel.side), wait_s)
        return await self._exit(actor, version, wait_s)

    async def _exit(self, actor: WalletActor, version: int, wait_s: float) -> Transaction:
        def ready() -> Exit | None:
            known = (e for e in actor.channel.exits if e.complete and e.document.version == version)
            return next(known, None)

        await self.until(ready, wait_s)
        document = ready()
        if document is None:
            raise NoAnswerError("both signatures were there and are gone")
        return self.chain.exit(actor.channel.domain, document)

    async def _operate(self, actor: WalletActor, operation: Operation, wait_s: float) -> int:
        """Ask the desk, who orders, to put an operation of ours into a state."""
        if actor.broken is not None:
            raise actor.broken
        if actor.channel.frozen or actor.channel.closing is not None or not actor.channel.synced:
            raise NotReadyError(f"the channel waits for {waiting_for(actor.channel)}")
        await actor.rehearse((operation,))
        valid_until_ms = self.clock.now_ms() + min(DEFAULT_LIFETIME_MS, int(wait_s * 1000))
        future = await actor.offer(make_offer(operation, secrets.token_bytes(16), valid_until_ms))
        try:
            return await asyncio.wait_for(asyncio.shield(future), wait_s)
        except TimeoutError:
            raise NoAnswerError("the desk has not answered in time") from None

    def deposit(self, amount: str, *, channel: str | None = None) -> list[Transaction]:
        """The transactions that deposit an amount; it counts once it is final for both and the desk has signed it."""
        actor = self.actor(channel)
        terms = actor.channel.terms
        units = parse_decimal(amount, terms.decimals)
        return self.chain.deposit(actor.channel.domain, terms, actor.id, actor.channel.side, units)

    def open(self, *, channel: str | None = None) -> Transaction:
        """The transaction that records the channel, should the desk not send it."""
        actor = self.actor(channel)
        return self.chain.open(actor.channel.domain, actor.channel.terms)


def _nothing(*_: object) -> None:
    """What a daemon counts, a light peer does not."""


def _no_digest(digest: bytes) -> bytes:
    """A wallet signs typed data and never a digest."""
    del digest
    raise PeerError("a light peer dials; it is not dialled")
