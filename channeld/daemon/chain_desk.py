"""The desk's dealings with the chain: opening, deposits, withdrawals, closes; disputes stand in disputes.py.

Rules: an address is trusted after its chain id and code hash were checked, and again before money moves. What is to be
done is derived at each look from the chain, the clock and the durable record, so a restart in the middle goes on; what
the chain refuses is tried again at the next look. A look that fails half way loses nothing: events stay untold and
channels unread until they are told and read, and a channel that is not read signs nothing. One channel's trouble is
its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import structlog

from channeld.chain.contracts import Adjudicator, ChannelRecord, DisputeRecord, FixBook, Phase, Token
from channeld.chain.deployment import check_collateral, read_deployment, verify_deployment
from channeld.chain.errors import CursorError, NotDeployedError, RevertError, TransactionRevertedError
from channeld.chain.events import ChainEvent, Closed, FixProven, Held, Reorganised, Settled
from channeld.chain.transactions import Deadline, Fees, LocalSigner, TransactionManager
from channeld.chain.watcher import Cursor, Watcher, parse_cursor
from channeld.core import records
from channeld.core.channel import DISPUTED, CloseExpired, Freeze, Thaw
from channeld.core.crypto import checksum_address
from channeld.core.eip712 import Close, Withdrawal, oracle_hash
from channeld.core.errors import ChanneldError, InputError, SetupError, StoreError
from channeld.core.terms import feed_symbol
from channeld.daemon.chain_events import described
from channeld.daemon.disputes import Disputes
from channeld.daemon.reserve import GasReserve
from channeld.daemon.services import NothingSignedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from pathlib import Path

    from channeld.chain.contracts import Call
    from channeld.chain.deployment import Deployment
    from channeld.chain.rpc import ChainRpc, Receipt
    from channeld.chain.transactions import Pending
    from channeld.core.channel import Exit
    from channeld.daemon.actor import Actor
    from channeld.daemon.services import Clock

CONTRACTS_WAIT_S = 5.0
log = structlog.get_logger(__name__)

CURSOR = "cursor"
OPENER = "opener"
PAID = "paid"
CLOSE_BY_FOLLOWER_AFTER_S = 60
CLOSE_LIFETIME_S = 600
ALERT_AFTER_FAILURES = 3
MINED_WAIT_S = 45.0


class OtherContractsError(SetupError):
    """deployment.json names other contracts, or another chain, than those that hold this desk's channels."""

    code = 7051
    advice = "Put the deployment.json of the channels back; a new deployment needs a data directory of its own."


class NotOpenOnChainError(InputError):
    """The channel is not open on chain: not yet, or no more."""

    code = 1261
    advice = "`channeld channel show` tells where it stands; wait until it is open, or open another."


@dataclass
class OnChain:
    """What is known of a channel on chain."""

    record: ChannelRecord | None = None
    dispute: DisputeRecord | None = None

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
        blocks_keep_time: bool = False,
        fees: Fees | None = None,
        replace_after_s: float = 45.0,
        reserve: int = 0,
        dispute_budget: int = 0,
        transacted: Callable[[str, str], None] = lambda _label, _outcome: None,
        on_resumed: Callable[[Actor], Awaitable[None]] | None = None,
    ) -> None:
        """Prepare; the contracts are looked for by `look`, once their file is there.

        fees, replace_after_s: how transactions are paid, and when one that is not mined is replaced (seconds).
        reserve: what the key must hold for new risk to be taken, wei. dispute_budget: what a transaction of a dispute
        may cost to be in time, wei.
        blocks_keep_time: the chain makes blocks all the time, so that an old newest block is an old view.
        """
        self.rpc = rpc
        self.store = store
        self.clock = clock
        self.emit = emit
        self.actors: dict[bytes, Actor] = {}
        self.known: dict[bytes, OnChain] = {}
        self.disputes = Disputes(self)
        self._key = private_key
        self._file = deployment_file
        self._confirmations = confirmations
        self._max_view_age_ms = max_view_age_s * 1000
        self._blocks_keep_time = blocks_keep_time
        self._fees, self._replace_after_s = fees or Fees(), replace_after_s
        self.reserve, self._dispute_budget = GasReserve(reserve, emit), dispute_budget
        self._transacted = transacted
        self.on_resumed: Callable[[Actor], Awaitable[None]] = on_resumed or _nothing_to_do
        self._deployment: Deployment | None = None
        self._watcher: Watcher | None = None
        self._transactions: TransactionManager | None = None
        self._busy: set[tuple[bytes, str]] = set()
        self._failures: dict[tuple[bytes, str], int] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._unread: set[bytes] = set()
        self._untold: deque[ChainEvent] = deque()
        self._seen_ms = 0
        self._looked = asyncio.Event()
        self._stopping = False
        self._confirmed_time = (-1, 0)

    # ------------------------------------------------------------------------------------------------- contracts

    @property
    def deployment(self) -> Deployment:
        """The checked contracts. Raises NotDeployedError where there are none yet."""
        if self._deployment is None:
            raise NotDeployedError(
                "this desk has no contracts yet",
                advice="Deploy them, or record where they are, with `channeld deploy`; `channeld status` tells more.",
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
                fees=self._fees,
                replace_after_s=self._replace_after_s,
            )
        return self._transactions

    async def contracts(self) -> Deployment:
        """The checked contracts; where their file has just been written, wait for the look that checks them.

        Raises:
            NotDeployedError: there is no such file, or its contracts did not pass.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONTRACTS_WAIT_S):
                while not self.ready and self._file.exists():  # noqa: ASYNC110 - looks come by themselves, in fractions of a second
                    await asyncio.sleep(0.02)
        return self.deployment

    @property
    def ready(self) -> bool:
        """Whether the contracts are known and checked."""
        return self._deployment is not None

    async def connect(self) -> bool:
        """Read deployment.json and check what stands there; False while the file is missing.

        Raises:
            ChainError: the file, the chain or the code there is wrong, naming what.
            OtherContractsError: a channel of this desk is of other contracts.
        """
        if self._deployment is not None:
            return True
        if not self._file.exists():
            return False
        deployment = read_deployment(self._file)
        for actor in self.actors.values():
            domain = actor.channel.domain
            if domain != deployment.domain:
                raise OtherContractsError(
                    f"channel 0x{actor.id.hex()[:8]} is of the Adjudicator {checksum_address(domain.adjudicator)} on "
                    f"chain {domain.chain_id}; deployment.json names {checksum_address(deployment.adjudicator)} on "
                    f"chain {deployment.chain_id}"
                )
        await verify_deployment(self.rpc, deployment)
        raw = await self.store.document(CURSOR, _cursor_key(deployment))
        cursor = Cursor.begin(deployment.block)
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

    # ------------------------------------------------------------------------------------------------- freshness

    def stale(self, channel: bytes | None = None) -> str:
        """Why nothing may be signed (in a channel) for lack of a fresh view of the chain; empty where it is fresh."""
        if self._seen_ms == 0:
            return "the chain has not been seen yet"
        now = self.clock.now_ms()
        age = now - self._seen_ms
        if self._blocks_keep_time:
            age = max(age, now - self.view["time"] * 1000)
        if age > self._max_view_age_ms:
            return f"the view of the chain is {age // 1000} s old"
        if channel is not None and (channel in self._unread or (channel in self.actors and channel not in self.known)):
            return "the channel has not been read from the chain yet"
        return ""

    async def fresh(self, channel: bytes) -> None:
        """Return once `stale` is empty.

        Raises:
            NothingSignedError: the desk stops before.
        """
        while why := self.stale(channel):
            if self._stopping:
                raise NothingSignedError(f"this desk stops; {why}")
            await self._looked.wait()

    def age_s(self) -> float:
        """Seconds since the chain was last seen; 0 before."""
        return (self.clock.now_ms() - self._seen_ms) / 1000 if self._seen_ms else 0.0

    @property
    def view(self) -> dict[str, int]:
        """Block and time of the last look."""
        seen = self._watcher.view if self._watcher else None
        return {"block": seen.block if seen else 0, "time": seen.time if seen else 0}

    async def paid(self, channel: bytes) -> tuple[int, int] | None:
        """What a and b were paid at the end of a channel, units; None before."""
        raw = await self.store.document(PAID, channel.hex())
        if raw is None:
            return None
        to_a, to_b = json.loads(raw)
        return int(to_a), int(to_b)

    # ------------------------------------------------------------------------------------------------- looking

    async def look(self) -> None:
        """One look at the chain: learn what happened, then do what is due.

        Raises:
            ChainError: the endpoint; what was learnt stays, the rest is learnt at the next look.
        """
        try:
            agreed = await self.rpc.compare(self.clock.now_ms() // 1000)
            if not await self.connect() or self._watcher is None:
                return
            await self._read(self._watcher, believed=agreed)
            sender = self.transactions.address
            await self.reserve.look(sender, await self.rpc.balance(sender) if self.reserve.wei else 0)
        finally:
            looked, self._looked = self._looked, asyncio.Event()
            looked.set()
        for channel, actor in list(self.actors.items()):
            try:
                await self._due(channel, actor)
            except ChanneldError as error:
                await self._not_done(channel, "look", error)
            except Exception:
                log.exception("what is due on chain failed", channel=channel.hex()[:8])
        # what is due was done, on either endpoint's word; nothing new is signed on it
        self.rpc.require_agreement()

    async def _read(self, watcher: Watcher, *, believed: bool) -> None:
        started = self.clock.now_ms()
        while True:
            before = watcher.view
            events = await watcher.poll()
            self._untold.extend(events)
            self._unread |= {e.channel for e in events if hasattr(e, "channel")} & self.actors.keys()
            if any(isinstance(e, Reorganised) for e in events):
                self._unread |= self.actors.keys()
            if watcher.view is None or watcher.view is before:
                break  # the chain changed while it was read: the next look sees it
            if watcher.view.behind == 0:
                self._seen_ms = started if believed else self._seen_ms
                break
        self._unread |= self.actors.keys() - self.known.keys()
        trouble: ChanneldError | None = None
        for channel in list(self._unread):
            try:
                await self.learn(channel)
            except ChanneldError as error:
                trouble = error
            else:
                self._unread.discard(channel)
        told = bool(self._untold)
        while self._untold:
            await self._tell(self._untold[0])
            self._untold.popleft()
        if told and not self._unread:
            value = json.dumps(watcher.cursor.as_data()).encode()
            await self._commit(records.PutDocument(CURSOR, _cursor_key(self.deployment), value))
        if trouble is not None:
            raise trouble

    async def _commit(self, *writes: records.Write) -> None:
        """Keep what can be learnt again from the chain: a store that fails must not end a dispute's defence."""
        try:
            await self.store.commit(writes)
        except StoreError as error:
            log.warning("not kept", why=str(error))

    async def deposits(self, channel: bytes) -> tuple[int, int]:
        """Totals of a and b that are final now, units; read from the chain."""
        block = max(0, await self.rpc.block_number() - self._confirmations)
        record = await self.adjudicator.channel_record(channel, block=block)
        return record.deposited_a, record.deposited_b

    async def learn(self, channel: bytes) -> None:
        """Read a channel's record as of the confirmed block."""
        view = self._watcher.view if self._watcher else None
        block = view.confirmed_block if view else "latest"
        record = await self.adjudicator.channel_record(channel, block=block)
        dispute = await self.adjudicator.dispute_record(channel, block=block)
        known = self.known.setdefault(channel, OnChain())
        earlier = known.dispute.number if known.dispute else 0
        known.record, known.dispute = record, dispute
        actor = self.actors[channel]
        status = actor.record.status
        match known.phase:
            case Phase.OPEN if status == "opening":
                await self._status(actor, "open")
                await self.emit("channel_opened", channel)
            case Phase.OPEN if status == "disputed" and dispute.deadline == 0 and dispute.number >= max(earlier, 1):
                await self._resumed(actor, dispute.number)
            case Phase.OPEN if status in {"disputed", "closed"}:
                # the chain took it back; what was frozen stays so until a person has looked
                await self._status(actor, "open")
                await self._alert(channel, "a reorganisation took back the end of the channel; restart to go on")
            case Phase.NONE if status not in {"opening", "closed"}:
                await self._status(actor, "opening")
                await self._alert(channel, "a reorganisation took back the opening of the channel")
            case Phase.DISPUTED if status != "disputed":
                await self._status(actor, "disputed")
                await actor.feed(Freeze(DISPUTED))
            case Phase.ENDED if status != "closed":
                await self._status(actor, "closed")
                await actor.feed(Freeze("the channel has ended on chain"))
            case _:
                pass
        body = actor.state.body
        if known.phase is Phase.OPEN and (
            record.deposited_a < body.a.deposited or record.deposited_b < body.b.deposited
        ):
            await self._alert(channel, "the chain holds fewer deposits than are signed for: do not trade on")

    async def _resumed(self, actor: Actor, dispute: int) -> None:
        """Both ended the dispute by agreement, and that is final: trading goes on."""
        await self._status(actor, "open")
        self.disputes.ended(actor.id)
        await actor.feed(Thaw())
        await self.emit("resumed", actor.id, dispute=dispute, version=actor.state.version)
        await self.on_resumed(actor)

    def reread(self, channel: bytes) -> None:
        """Have a channel read again at the next look, whether or not an event tells of it."""
        self._unread.add(channel)

    async def _alert(self, channel: bytes | None, message: str) -> None:
        await self.emit("alert", channel, severity="critical", message=message)

    async def _status(self, actor: Actor, status: str) -> None:
        actor.record = replace(actor.record, status=status)
        await self._commit(records.SetStatus(actor.id, status))

    async def _tell(self, event: ChainEvent) -> None:
        """Events for people and programs, of our own channels alone."""
        match event:
            case FixProven():
                if event.oracle_hash in {oracle_hash(actor.channel.terms.oracle) for actor in self.actors.values()}:
                    feed = feed_symbol(event.feed)
                    await self.emit("fix_proven", None, feed=feed, time=event.t, weight=event.weight)
            case Held():
                payouts = {actor.channel.terms.party(actor.channel.side).payout for actor in self.actors.values()}
                if event.payee in payouts:
                    held = f"a payout of {event.amount} units to {checksum_address(event.payee)} is held for claim"
                    await self._alert(None, held)
            case Reorganised():
                log.warning("the chain was reorganised", after_block=event.at.block_number)
                await self.emit("reorganised", None, after_block=event.at.block_number)
            case _:
                channel = getattr(event, "channel", b"")
                if channel not in self.actors:
                    return
                if isinstance(event, Settled | Closed):
                    value = json.dumps([event.to_a, event.to_b]).encode()
                    await self._commit(records.PutDocument(PAID, channel.hex(), value))
                for kind, data in described(event):
                    await self.emit(kind, channel, **data)

    # ------------------------------------------------------------------------------------------------- acting

    async def _due(self, channel: bytes, actor: Actor) -> None:
        """What the channel needs on chain now."""
        known = self.known.get(channel)
        if known is None or known.record is None or channel in self._unread:
            return
        match known.phase:
            case Phase.NONE:
                if await self.store.document(OPENER, channel.hex()) is not None:
                    self.start(channel, "open", self._open(actor))
            case Phase.OPEN:
                actor.chain_deposits(known.record.deposited_a, known.record.deposited_b)
                await self._exits_due(channel, actor, known.record)
            case Phase.DISPUTED:
                self.start(channel, "dispute", self.disputes.advance(actor))
            case _:
                return

    def start(self, channel: bytes, what: str, work: Coroutine[Any, Any, object]) -> None:
        """Do something that takes transactions, once at a time, without holding up the looking."""
        if (channel, what) in self._busy or self._stopping:
            work.close()
            return
        self._busy.add((channel, what))
        self._run(self._guarded(channel, what, work))

    def _run(self, work: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guarded(self, channel: bytes, what: str, work: Coroutine[Any, Any, object]) -> None:
        try:
            await work
        except ChanneldError as error:
            await self._not_done(channel, what, error)
        except Exception:
            log.exception("a chain task failed", channel=channel.hex()[:8], what=what)
        else:
            self._failures.pop((channel, what), None)
        finally:
            self._busy.discard((channel, what))

    async def _not_done(self, channel: bytes, what: str, error: ChanneldError) -> None:
        """Tried again at the next look: the other side may have done it, or the chain may not be there yet."""
        log.info("not done on chain yet", channel=channel.hex()[:8], what=what, why=str(error), code=error.code)
        times = self._failures.get((channel, what), 0) + 1
        self._failures[channel, what] = times
        if isinstance(error, RevertError | TransactionRevertedError):
            self._unread.add(channel)
        if times == ALERT_AFTER_FAILURES:
            severity = "critical" if what == "dispute" else "warning"
            message = f"{what} on chain fails, and is tried again: {error}"
            await self.emit("alert", channel, severity=severity, code=error.code, message=message)

    async def drain(self) -> None:
        """End what was started, and let those go who wait for a fresh view; for shutdown."""
        self._stopping = True
        self._looked.set()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def transact(self, call: Call, by: int = 0) -> Receipt:
        """Send a call and wait until it is confirmed. Errors as `TransactionManager.transact`.

        by: a deadline (Unix seconds) for which the dispute's budget may be spent; 0 for none.
        """
        try:
            receipt = await self.transactions.transact(call, deadline=self._deadline(by))
        except ChanneldError as error:
            self._transacted(call.label, str(error.code))
            raise
        self._transacted(call.label, "done")
        return receipt

    def _deadline(self, by: int) -> Deadline | None:
        return Deadline(by, self._dispute_budget) if by else None

    async def send(self, call: Call, by: int = 0) -> Pending:
        """Send a call; it is followed to its confirmations in the background. Raises where nothing was sent."""
        try:
            pending = await self.transactions.send(call, deadline=self._deadline(by))
        except ChanneldError as error:
            self._transacted(call.label, str(error.code))
            raise
        self._run(self._follow(pending))
        return pending

    async def _follow(self, pending: Pending) -> None:
        try:
            await self.transactions.wait(pending)
        except ChanneldError as error:
            self._transacted(pending.label, str(error.code))
            await self._alert(None, f"{pending.label} was sent and failed: {error}")
        else:
            self._transacted(pending.label, "done")

    async def mined(self, pending: Pending) -> bytes | None:
        """The hash under which a transaction was mined; None where it is still on its way after a while.

        Raises:
            TransactionRevertedError: it was mined and reverted.
        """
        pause = 0.02
        end = asyncio.get_running_loop().time() + MINED_WAIT_S
        while asyncio.get_running_loop().time() < end:
            for transaction in reversed(pending.hashes):
                receipt = await self.rpc.receipt(transaction)
                if receipt is None:
                    continue
                if not receipt.succeeded:
                    shown = "0x" + transaction.hex()
                    message = f"{pending.label} was mined and reverted"
                    raise TransactionRevertedError(message, reason="", transaction=shown)
                return transaction
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)
        return None

    async def _open(self, actor: Actor) -> None:
        await check_collateral(self.rpc, actor.channel.terms)
        await self.transact(self.adjudicator.open(actor.channel.terms))
        self._unread.add(actor.id)

    async def _exits_due(self, channel: bytes, actor: Actor, record: ChannelRecord) -> None:
        now = self.clock.now_ms() // 1000
        side = actor.channel.side
        for document in actor.channel.exits:
            inner = document.document
            if isinstance(inner, Close):
                made = inner.valid_until - CLOSE_LIFETIME_S
                ours = actor.channel.sequencer or now > made + CLOSE_BY_FOLLOWER_AFTER_S
                if await self._confirmed() > inner.valid_until:
                    await actor.feed(CloseExpired())
                elif document.complete and ours and now <= inner.valid_until:
                    self.start(channel, "close", self._exit(actor, document))
            elif document.complete:
                paid = record.paid_b if side else record.paid_a
                if (inner.withdrawn_b if side else inner.withdrawn_a) > paid:
                    self.start(channel, "withdraw", self._exit(actor, document))

    async def _confirmed(self) -> int:
        """The time of the newest confirmed block: what is not on chain by then never was in time."""
        view = self._watcher.view if self._watcher else None
        if view is None:
            return 0
        if self._confirmed_time[0] != view.confirmed_block:
            header = await self.rpc.find_header(view.confirmed_block)
            if header is None:
                return 0
            self._confirmed_time = (view.confirmed_block, header.timestamp)
        return self._confirmed_time[1]

    async def _exit(self, actor: Actor, document: Exit) -> None:
        signatures = document.signature_a + document.signature_b
        inner = document.document
        if isinstance(inner, Withdrawal):
            await self.transact(self.adjudicator.withdraw(inner, signatures))
        else:
            await self.transact(self.adjudicator.close(inner, signatures), by=inner.valid_until)
        self._unread.add(actor.id)

    def check_open(self, actor: Actor) -> None:
        """Raise NotOpenOnChainError unless the channel stands open (or disputed) on chain."""
        known = self.known.get(actor.id)
        if known is None or known.phase not in {Phase.OPEN, Phase.DISPUTED}:
            where = known.phase.name.lower() if known else "not yet read"
            raise NotOpenOnChainError(f"channel 0x{actor.id.hex()[:8]} is not open on chain: {where}")

    async def deposit(self, actor: Actor, units: int) -> tuple[bytes, bool]:
        """Approve and deposit `units` for this desk's side, from its own account: the transaction, whether it is mined.

        Raises:
            NotOpenOnChainError: the channel is not open.
            ChainError: the contracts are not what they should be, or the chain refuses.
        """
        self.check_open(actor)
        await verify_deployment(self.rpc, self.deployment)
        await check_collateral(self.rpc, actor.channel.terms)
        token = Token(self.rpc, actor.channel.terms.collateral)
        if await token.allowance(self.transactions.address, self.deployment.adjudicator) < units:
            await self.mined(await self.send(token.approve(self.deployment.adjudicator, units)))
        record = self.known[actor.id].record
        side = actor.channel.side
        other = (record.deposited_a if side else record.deposited_b) if record else 0
        pending = await self.send(self.adjudicator.deposit(actor.id, side, units, other))
        transaction = await self.mined(pending)
        return transaction or pending.hash, transaction is not None


async def _nothing_to_do(_: Actor) -> None:
    """Nobody waits for the end of a dispute."""


def _cursor_key(deployment: Deployment) -> str:
    """A cursor is of one deployment on one chain."""
    return f"{deployment.chain_id}/{deployment.adjudicator.hex()}"
