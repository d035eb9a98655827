"""The desk's dealings with the chain: opening, deposits, withdrawals, closes, and disputes carried through to payment.

Rules: an address is trusted after its chain id and code hash were checked, and again before money moves. What is to be
done is derived at each look from the chain, the clock and the durable record, so a restart in the middle goes on; what
the chain refuses is tried again at the next look. A counterparty's challenge is answered without being asked.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import structlog

from channeld.chain.contracts import Adjudicator, ChannelRecord, DisputeRecord, FixBook, Phase, Token
from channeld.chain.deployment import check_collateral, read_deployment, verify_deployment
from channeld.chain.errors import CursorError, NotDeployedError
from channeld.chain.events import (
    ChainEvent,
    Challenged,
    Closed,
    Deposited,
    FixProven,
    Held,
    Opened,
    Refuted,
    Settled,
    Withdrawn,
)
from channeld.chain.transactions import LocalSigner, TransactionManager
from channeld.chain.watcher import Cursor, Watcher, parse_cursor
from channeld.core import records
from channeld.core.channel import CloseExpired, Freeze
from channeld.core.dispute import DisputeView, ProveFixes, Refute, Settle, Unknown, Wait, next_step
from channeld.core.eip712 import Close, Withdrawal, oracle_hash
from channeld.core.errors import ChanneldError, InputError
from channeld.core.settlement import fix_time, fixes_needed
from channeld.core.state import genesis

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from channeld.chain.deployment import Deployment
    from channeld.chain.rpc import ChainRpc, Receipt
    from channeld.core.channel import Exit
    from channeld.core.state import Body
    from channeld.daemon.actor import Actor, Clock

log = structlog.get_logger(__name__)

CURSOR = ("cursor", "chain")
OPENER = "opener"
CLOSE_BY_FOLLOWER_AFTER_S = 60


class UnknownVersionError(InputError):
    """No co-signed state of that version is held."""

    code = 1260
    advice = "`channeld channel show` tells the versions; give one of them, or none for the newest."


@dataclass
class OnChain:
    """What is known of a channel on chain."""

    record: ChannelRecord | None = None
    dispute: DisputeRecord | None = None
    paid: tuple[int, int] | None = None
    told: set[str] = field(default_factory=set)

    @property
    def phase(self) -> Phase:
        """The channel's phase."""
        return self.record.phase if self.record else Phase.NONE


class ChainDesk:
    """One desk's view of, and hand on, the Adjudicator."""

    def __init__(
        self,
        rpc: ChainRpc,
        private_key: bytes,
        deployment_file: Path,
        store: records.Store,
        clock: Clock,
        emit: Callable[..., Awaitable[None]],
        *,
        confirmations: int,
        max_view_age_s: float,
    ) -> None:
        """Prepare; the contracts are looked for by `look`, once their file is there."""
        self.rpc = rpc
        self.store = store
        self.clock = clock
        self.emit = emit
        self.actors: dict[bytes, Actor] = {}
        self.known: dict[bytes, OnChain] = {}
        self._key = private_key
        self._file = deployment_file
        self._confirmations = confirmations
        self._max_view_age_ms = max_view_age_s * 1000
        self._deployment: Deployment | None = None
        self._watcher: Watcher | None = None
        self._transactions: TransactionManager | None = None
        self._busy: set[tuple[bytes, str]] = set()
        # channels whose old state this desk has shown on purpose, which a devnet alone allows: not refuted by itself
        self._old_shown: set[bytes] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._seen_ms = 0
        self.trouble = ""

    # ------------------------------------------------------------------------------------------------- contracts

    @property
    def deployment(self) -> Deployment:
        """The checked contracts. Raises NotDeployedError where there are none yet."""
        if self._deployment is None:
            raise NotDeployedError(
                "this desk has no contracts yet",
                advice="Deploy them, or record where they are, with `channeld deploy`.",
            )
        return self._deployment

    @property
    def adjudicator(self) -> Adjudicator:
        """The Adjudicator."""
        return Adjudicator(self.rpc, self.deployment.adjudicator)

    @property
    def fix_book(self) -> FixBook:
        """The FixBook."""
        return FixBook(self.rpc, self.deployment.fix_book)

    @property
    def transactions(self) -> TransactionManager:
        """The transaction manager of the desk's key."""
        if self._transactions is None:
            self._transactions = TransactionManager(
                self.rpc,
                LocalSigner(self._key),
                chain_id=self.deployment.chain_id,
                confirmations=self._confirmations + 1,
            )
        return self._transactions

    @property
    def ready(self) -> bool:
        """Whether the contracts are known and checked."""
        return self._deployment is not None

    async def connect(self) -> bool:
        """Read deployment.json and check what stands there; False while the file is missing."""
        if self._deployment is not None:
            return True
        if not self._file.exists():
            return False
        deployment = read_deployment(self._file)
        await verify_deployment(self.rpc, deployment)
        raw = await self.store.document(*CURSOR)
        cursor = Cursor(deployment.block)
        if raw is not None:
            try:
                cursor = parse_cursor(json.loads(raw))
            except (CursorError, ValueError):
                log.warning("the chain cursor is unreadable; reading again from the deployment")
        self._watcher = Watcher(
            self.rpc,
            [deployment.adjudicator, deployment.fix_book],
            cursor,
            confirmations=self._confirmations + 1,
        )
        self._deployment = deployment
        return True

    def stale(self) -> str:
        """Why nothing may be signed for lack of a fresh view of the chain; empty where it is fresh."""
        age = self.clock.now_ms() - self._seen_ms
        if self._seen_ms == 0:
            return "the chain has not been seen yet"
        return f"the view of the chain is {age // 1000} s old" if age > self._max_view_age_ms else ""

    def age_s(self) -> float:
        """Seconds since the chain was last seen; 0 before."""
        return (self.clock.now_ms() - self._seen_ms) / 1000 if self._seen_ms else 0.0

    @property
    def view(self) -> dict[str, int]:
        """Block and time of the last look."""
        seen = self._watcher.view if self._watcher else None
        return {"block": seen.block if seen else 0, "time": seen.time if seen else 0}

    # ------------------------------------------------------------------------------------------------- looking

    async def look(self) -> None:
        """One look at the chain: learn what happened, then do what is due."""
        if not await self.connect() or self._watcher is None:
            return
        started = self.clock.now_ms()
        events = await self._watcher.poll()
        self._seen_ms = started
        touched = {e.channel for e in events if hasattr(e, "channel")} & self.actors.keys()
        for channel in touched | (self.actors.keys() - self.known.keys()):
            await self._learn(channel)
        for event in events:
            await self._tell(event)
        if events:
            value = json.dumps(self._watcher.cursor.as_data()).encode()
            await self.store.commit([records.PutDocument(*CURSOR, value)])
        for channel, actor in list(self.actors.items()):
            await self._due(channel, actor)

    async def _learn(self, channel: bytes) -> None:
        """Read a channel's record as of the confirmed block."""
        assert self._watcher is not None  # noqa: S101 - `look` has connected
        known = self.known.setdefault(channel, OnChain())
        block = self._watcher.view.confirmed_block if self._watcher.view else "latest"
        known.record = await self.adjudicator.channel_record(channel, block=block)
        known.dispute = await self.adjudicator.dispute_record(channel, block=block)
        actor = self.actors[channel]
        if known.phase is Phase.OPEN and actor.record.status == "opening":
            await self._status(actor, "open")
            await self.emit("channel_opened", channel)
        if known.phase is Phase.DISPUTED and actor.record.status != "disputed":
            await actor.feed(Freeze("a dispute runs on chain"))
            await self._status(actor, "disputed")
        if known.phase is Phase.ENDED and actor.record.status != "closed":
            await actor.feed(Freeze("the channel has ended on chain"))
            await self._status(actor, "closed")

    async def _status(self, actor: Actor, status: str) -> None:
        actor.record = replace(actor.record, status=status)
        await self.store.commit([records.SetStatus(actor.id, status)])

    async def _tell(self, event: ChainEvent) -> None:
        """Events for people and programs."""
        match event:
            case FixProven():
                await self.emit(
                    "fix_proven", None, feed=event.feed.rstrip(b"\0").decode("ascii", "replace"), time=event.t
                )
                return
            case Held():
                await self.emit("alert", None, severity="warning", message="a payout is held for claim")
                return
            case Opened() | Deposited() | Withdrawn() | Challenged() | Refuted() | Settled() | Closed():
                pass
            case _:
                return
        if event.channel not in self.actors:
            return
        channel = event.channel
        match event:
            case Deposited():
                await self.emit(
                    "deposit_final",
                    channel,
                    party="ab"[event.party],
                    units=event.received,
                    deposited_a=event.deposited_a,
                    deposited_b=event.deposited_b,
                )
            case Withdrawn():
                await self.emit("withdrawn", channel, to_a=event.to_a, to_b=event.to_b)
            case Challenged():
                await self.emit(
                    "dispute_raised",
                    channel,
                    dispute=event.dispute,
                    version=event.version,
                    deadline=event.deadline,
                    by="0x" + event.caller.hex(),
                )
                await self.emit(
                    "alert",
                    channel,
                    severity="critical",
                    message=f"a dispute was raised with version {event.version}; deadline {event.deadline}",
                )
            case Refuted():
                await self.emit("dispute_refuted", channel, version=event.version, by="0x" + event.caller.hex())
            case Settled():
                self.known[channel].paid = (event.to_a, event.to_b)
                await self._keep_paid(channel, event.to_a, event.to_b)
                await self.emit(
                    "settled",
                    channel,
                    version=event.version,
                    fix_time=event.fix_time,
                    profit_units=event.profit,
                    to_a=event.to_a,
                    to_b=event.to_b,
                    complete=event.complete,
                )
            case Closed():
                await self._keep_paid(channel, event.to_a, event.to_b)
                await self.emit("closed", channel, to_a=event.to_a, to_b=event.to_b)

    async def _keep_paid(self, channel: bytes, to_a: int, to_b: int) -> None:
        value = json.dumps([to_a, to_b]).encode()
        await self.store.commit([records.PutDocument("paid", channel.hex(), value)])

    # ------------------------------------------------------------------------------------------------- acting

    async def _due(self, channel: bytes, actor: Actor) -> None:
        """What the channel needs on chain now."""
        known = self.known.get(channel)
        if known is None or known.record is None:
            return
        match known.phase:
            case Phase.NONE:
                if await self.store.document(OPENER, channel.hex()) is not None:
                    self._start(channel, "open", self._open(actor))
            case Phase.OPEN:
                await actor.chain_deposits(known.record.deposited_a, known.record.deposited_b)
                await self._exits_due(channel, actor, known.record)
            case Phase.DISPUTED:
                self._start(channel, "dispute", self._advance(actor))
            case _:
                return

    def _start(self, channel: bytes, what: str, work: Awaitable[None]) -> None:
        """Do something that takes transactions, once at a time, without holding up the looking."""
        if (channel, what) in self._busy:
            if asyncio.iscoroutine(work):
                work.close()
            return
        self._busy.add((channel, what))
        task = asyncio.ensure_future(self._guarded(channel, what, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, channel: bytes, what: str, work: Awaitable[None]) -> None:
        try:
            await work
        except ChanneldError as error:
            # tried again at the next look: the other side may have done it, or the chain may not be there yet
            log.info("not done on chain yet", channel=channel.hex()[:8], what=what, why=str(error), code=error.code)
            self.trouble = f"{what}: {error}"
        finally:
            self._busy.discard((channel, what))

    async def drain(self) -> None:
        """Let what was started end; for shutdown."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _open(self, actor: Actor) -> None:
        await check_collateral(self.rpc, actor.channel.terms)
        await self.transactions.transact(self.adjudicator.open(actor.channel.terms))
        await self._learn(actor.id)

    async def _exits_due(self, channel: bytes, actor: Actor, record: ChannelRecord) -> None:
        now = self.clock.now_ms() // 1000
        side = actor.channel.side
        for document in actor.channel.exits:
            inner = document.document
            if isinstance(inner, Close):
                made = inner.valid_until - 600
                ours = actor.channel.sequencer or now > made + CLOSE_BY_FOLLOWER_AFTER_S
                if document.complete and ours and now <= inner.valid_until:
                    self._start(channel, "close", self._close(document))
                elif self.view["time"] > inner.valid_until:
                    await actor.feed(CloseExpired())
            elif document.complete:
                paid = record.paid_b if side else record.paid_a
                if (inner.withdrawn_b if side else inner.withdrawn_a) > paid:
                    self._start(channel, "withdraw", self._withdraw(actor, document))

    async def _close(self, document: Exit) -> None:
        assert isinstance(document.document, Close)  # noqa: S101 - the caller matched it
        await self.transactions.transact(
            self.adjudicator.close(document.document, document.signature_a + document.signature_b)
        )

    async def _withdraw(self, actor: Actor, document: Exit) -> None:
        assert isinstance(document.document, Withdrawal)  # noqa: S101 - the caller matched it
        await self.transactions.transact(
            self.adjudicator.withdraw(document.document, document.signature_a + document.signature_b)
        )
        await self._learn(actor.id)

    async def deposit(self, actor: Actor, units: int) -> Receipt:
        """Approve and deposit `units` for this desk's side, from the desk's own account.

        Raises:
            ChainError: the contracts are not what they should be, or the chain refuses.
        """
        await verify_deployment(self.rpc, self.deployment)
        await check_collateral(self.rpc, actor.channel.terms)
        token = Token(self.rpc, actor.channel.terms.collateral)
        if await token.allowance(self.transactions.address, self.deployment.adjudicator) < units:
            await self.transactions.transact(token.approve(self.deployment.adjudicator, units))
        known = self.known.get(actor.id)
        side = actor.channel.side
        seen = known.record if known else None
        other = (seen.deposited_a if side else seen.deposited_b) if seen else 0
        return await self.transactions.transact(self.adjudicator.deposit(actor.id, side, units, other))

    async def challenge(self, actor: Actor, version: int | None = None) -> Receipt:
        """Start a dispute with a co-signed state, the newest unless a version is given.

        Raises:
            UnknownVersionError: none of that version is held.
            ChainError: the chain refuses.
        """
        latest = actor.channel.latest
        if version is None or version == latest.state.version:
            number, hashed, signatures = latest.state.version, latest.body_hash, latest.signature_a + latest.signature_b
        else:
            state = await self.store.state(actor.id, version)
            if state is None:
                raise UnknownVersionError(f"no co-signed state of version {version} is held")
            number, hashed, signatures = version, state.body_hash, state.signature_a + state.signature_b
            self._old_shown.add(actor.id)
        await actor.feed(Freeze("this desk disputes on chain"))
        receipt = await self.transactions.transact(self.adjudicator.challenge(actor.id, number, hashed, signatures))
        await self.emit("challenged", actor.id, version=number)
        return receipt

    # ------------------------------------------------------------------------------------------------- disputes

    async def body_on_record(self, actor: Actor, version: int) -> Body | None:
        """The body of a version, where we hold it."""
        if version == 0:
            return genesis(actor.id).body
        state = await self.store.state(actor.id, version)
        return records.decode_body(state.body) if state is not None and state.body is not None else None

    async def dispute_view(self, actor: Actor) -> tuple[DisputeView, DisputeRecord]:
        """What `next_step` needs, read now."""
        dispute = await self.adjudicator.dispute_record(actor.id)
        terms = actor.channel.terms
        now = max(self.view["time"], self.clock.now_ms() // 1000)
        body = await self.body_on_record(actor, dispute.version)
        known: dict[tuple[bytes, int], int] = {}
        held: dict[tuple[bytes, int], int] = {}
        at = fix_time(terms, dispute.deadline)
        if body is not None and now >= at:
            book = oracle_hash(terms.oracle)
            for feed, time in fixes_needed(terms, body, at):
                known[feed, time] = (await self.fix_book.fix(book, feed, time))[1]
                _, fix = await actor.book.fix_of(feed, time)
                held[feed, time] = fix.weight if fix else 0
        view = DisputeView(now, dispute.version, dispute.deadline, actor.state.version, body, known, held)
        return view, dispute

    async def next_step(self, actor: Actor) -> tuple[str, Body | None]:
        """What this desk does next in a dispute, in words, and the body on record where we hold it."""
        view, _ = await self.dispute_view(actor)
        match next_step(actor.channel.terms, view):
            case Refute():
                return f"refute with version {view.ours}", view.body
            case Wait(until, why):
                return f"wait until {until} for {why}", view.body
            case ProveFixes(fixes):
                return f"prove {len(fixes)} fixes", view.body
            case Settle():
                return "settle", view.body
            case Unknown():
                return "the body on record is not ours to show; the counterparty must settle", None

    async def proven(self, actor: Actor, body: Body, at: int) -> dict[tuple[bytes, int], int | None]:
        """The fixes on chain that a settlement at `at` needs; None where one is missing."""
        book = oracle_hash(actor.channel.terms.oracle)
        found: dict[tuple[bytes, int], int | None] = {}
        for feed, time in fixes_needed(actor.channel.terms, body, at):
            value, weight = await self.fix_book.fix(book, feed, time)
            found[feed, time] = value if weight else None
        return found

    async def _advance(self, actor: Actor) -> None:
        view, _ = await self.dispute_view(actor)
        terms = actor.channel.terms
        latest = actor.channel.latest
        match next_step(terms, view):
            case Refute() if actor.id in self._old_shown:
                return
            case Refute():
                signatures = latest.signature_a + latest.signature_b
                await self.transactions.transact(
                    self.adjudicator.refute(actor.id, latest.state.version, latest.body_hash, signatures)
                )
                await self._learn(actor.id)
            case ProveFixes(fixes):
                for feed, time in fixes:
                    packages, _ = await actor.book.fix_of(feed, time)
                    await self.transactions.transact(
                        self.fix_book.prove_fix(terms.oracle, feed, time, b"".join(packages))
                    )
            case Settle():
                if view.body is not None:
                    await self.transactions.transact(self.adjudicator.settle(terms, view.body))
                    await self._learn(actor.id)
            case Wait() | Unknown():
                return
