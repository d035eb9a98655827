"""A tower's eyes and hand on the chain: it sees challenges with old states, and refutes them by itself.

Rules: a challenge is answered from the newest block on, before it is final: refuting early harms nobody. What is to be
done is derived at each look from the chain and from what is held, so that a restart, also between a challenge and its
refutation, and a reorganisation that takes a refutation away, need nothing of their own. A channel that could not be
read is read again at the next look; a channel that is disputed is read at every look. Where packages are at hand the
fixes of all the terms' feeds are proven: which of them a book needs a tower does not know.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import structlog

from channeld.chain.contracts import Adjudicator, FixBook, Phase
from channeld.chain.errors import RevertError, TransactionRevertedError
from channeld.chain.events import Challenged, Reorganised
from channeld.chain.watcher import Cursor, Watcher
from channeld.core.eip712 import oracle_hash
from channeld.core.errors import ChanneldError, OracleError
from channeld.core.packages import fix_price
from channeld.core.settlement import fix_time
from channeld.core.terms import ZERO_FEED

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from channeld.chain.contracts import ChannelRecord, DisputeRecord
    from channeld.chain.deployment import Deployment
    from channeld.chain.rpc import ChainRpc, Receipt
    from channeld.chain.transactions import TransactionManager
    from channeld.core.terms import Oracle
    from channeld.tower.ledger import Ledger, Watched

log = structlog.get_logger(__name__)

AT_ONCE = 16


class Fixes(Protocol):
    """Where the packages of a fix come from."""

    async def __call__(self, oracle: Oracle, feed: bytes, t: int) -> tuple[bytes, ...]:
        """The packages of fix(feed, t), in canonical order. Raises OracleError where there are none."""
        ...


@dataclass
class Counts:
    """What a tower has done. slowest_blocks: the most blocks between a challenge seen and its refutation mined."""

    challenges: int = 0
    refuted: int = 0
    late: int = 0
    failed: int = 0
    proven: int = 0
    slowest_blocks: int = 0


@dataclass
class _Case:
    """A dispute that is followed. seen_block: where its challenge stands, or where it was first seen."""

    number: int
    seen_block: int
    too_late: bool = False
    proven: set[tuple[bytes, int]] = field(default_factory=set)


class Guard:
    """Watches the ledger's channels on chain."""

    def __init__(
        self,
        rpc: ChainRpc,
        deployment: Deployment,
        transactions: TransactionManager,
        ledger: Ledger,
        *,
        confirmations: int,
        within_blocks: int,
        fixes: Fixes | None = None,
        now_s: Callable[[], int],
    ) -> None:
        """Bind.

        Args:
            rpc: the chain.
            deployment: the contracts, checked.
            transactions: sends what is to be done, and pays for it.
            ledger: the channels.
            confirmations: blocks on top of the end of a channel before it is forgotten.
            within_blocks: a refutation mined later than so many blocks after its challenge is reported.
            fixes: where the packages of fixes come from; None proves none.
            now_s: the time, Unix seconds, for what the newest block does not tell yet.

        """
        self._rpc, self._deployment, self._transactions, self._ledger = rpc, deployment, transactions, ledger
        self._confirmations, self._within_blocks, self._fixes, self._now_s = (
            confirmations,
            within_blocks,
            fixes,
            now_s,
        )
        self._adjudicator = Adjudicator(rpc, deployment.adjudicator)
        self._fix_book = FixBook(rpc, deployment.fix_book)
        self._watcher: Watcher | None = None
        self._unread: set[bytes] = set()
        self._cases: dict[bytes, _Case] = {}
        self._ending: set[bytes] = set()
        self._busy: dict[bytes, asyncio.Task[None]] = {}
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self.counts = Counts()
        self.block = 0
        self.block_time = 0

    def registered(self, channel: bytes) -> None:
        """A channel has come: it is read at the next look."""
        self._unread.add(channel)

    @property
    def disputed(self) -> int:
        """How many channels are disputed now."""
        return len(self._cases)

    async def look(self) -> None:
        """One look at the chain, and what follows from it; refutations go on in the background.

        Raises:
            ChainError: the endpoint; what was not read is read at the next look.
        """
        if self._watcher is None:
            # every live channel is read once; from here on, those that something happens to
            head = await self._rpc.header()
            addresses = [self._deployment.adjudicator, self._deployment.fix_book]
            self._watcher = Watcher(self._rpc, addresses, Cursor.begin(head.number), confirmations=1)
            self._unread |= {watched.channel for watched in self._ledger.live()}
        while True:
            before = self._watcher.view
            events = await self._watcher.poll()
            for event in events:
                channel = getattr(event, "channel", b"")
                if isinstance(event, Reorganised):
                    self._unread |= {watched.channel for watched in self._ledger.live()}
                elif channel in self._ledger.channels:
                    self._unread.add(channel)
                    if isinstance(event, Challenged):
                        self._case(channel, event.dispute, event.at.block_number)
            view = self._watcher.view
            if view is None or view is before or view.behind == 0:
                break
        if view is not None:
            self.block, self.block_time = view.block, view.time
        await self._read()

    def _case(self, channel: bytes, number: int, block: int) -> _Case:
        case = self._cases.get(channel)
        if case is None or case.number != number:
            case = self._cases[channel] = _Case(number, block)
            self.counts.challenges += 1
            log.warning("a dispute runs", channel="0x" + channel.hex(), dispute=number, block=block)
        return case

    async def _read(self) -> None:
        for channel in list(self._unread | self._cases.keys() | self._ending):
            watched = self._ledger.channels[channel]
            record = await self._adjudicator.channel_record(channel)
            self._unread.discard(channel)
            match record.phase:
                case Phase.DISPUTED:
                    self._start(watched, record)
                case Phase.ENDED:
                    self._cases.pop(channel, None)
                    self._ending.add(channel)
                    await self._end(watched)
                case _:
                    self._cases.pop(channel, None)
                    self._ending.discard(channel)

    async def _end(self, watched: Watched) -> None:
        """A channel whose end stands deep enough is over."""
        block = max(0, self.block - self._confirmations)
        if block == self.block or (await self._adjudicator.channel_record(watched.channel, block=block)).phase is (
            Phase.ENDED
        ):
            await self._ledger.end(watched.channel)
            self._ending.discard(watched.channel)
            self._busy.pop(watched.channel, None)
            log.info("a channel has ended", channel="0x" + watched.channel.hex())

    def _start(self, watched: Watched, record: ChannelRecord) -> None:
        running = self._busy.get(watched.channel)
        if running is None or running.done():
            self._busy[watched.channel] = asyncio.create_task(self._guarded(watched, self._answer(watched, record)))

    async def _guarded(self, watched: Watched, work: Coroutine[Any, Any, None]) -> None:
        try:
            async with self._at_once:
                await work
        except ChanneldError as error:
            # tried again at the next look
            self.counts.failed += 1
            told = {"channel": "0x" + watched.channel.hex(), "code": error.code, "why": str(error)}
            log.error("not done on chain yet", **told)  # noqa: TRY400 - a typed error says what its traceback would
        except Exception:
            self.counts.failed += 1
            log.exception("a dispute's step failed", channel="0x" + watched.channel.hex())

    async def _answer(self, watched: Watched, record: ChannelRecord) -> None:
        dispute = await self._adjudicator.dispute_record(watched.channel)
        case = self._case(watched.channel, dispute.number, self.block)
        now = max(self.block_time, self._now_s())
        held = watched.held
        higher = held.version > max(dispute.version, record.floor_version)
        # by the chain's own time: a clock of ours that is fast must not keep us from trying
        if higher and self.block_time < dispute.deadline and not case.too_late:
            await self._refute(watched, case, dispute)
        elif now >= dispute.deadline and self._fixes is not None:
            await self._prove(watched, case, dispute, now)

    async def _refute(self, watched: Watched, case: _Case, dispute: DisputeRecord) -> None:
        held = watched.held
        call = self._adjudicator.refute(watched.channel, held.version, held.body_hash, held.signatures)
        try:
            receipt = await self._transactions.transact(call)
        except (RevertError, TransactionRevertedError):
            after = await self._adjudicator.dispute_record(watched.channel)
            if (after.number, after.version) != (dispute.number, dispute.version):
                return  # somebody else has refuted it, or it is over: coming second is harmless
            if self._now_s() < dispute.deadline:
                raise
            case.too_late = True
            self.counts.late += 1
            log.critical("the deadline has passed with an old version", channel="0x" + watched.channel.hex())
            return
        self._refuted(watched, case, dispute, receipt)

    def _refuted(self, watched: Watched, case: _Case, dispute: DisputeRecord, receipt: Receipt) -> None:
        took = receipt.block_number - case.seen_block
        self.counts.refuted += 1
        self.counts.slowest_blocks = max(self.counts.slowest_blocks, took)
        shown = {
            "channel": "0x" + watched.channel.hex(),
            "old": dispute.version,
            "version": watched.held.version,
            "blocks": took,
            "gas": receipt.gas_used,
        }
        if took > self._within_blocks:
            self.counts.late += 1
            log.error("refuted, but late", within=self._within_blocks, **shown)
        else:
            log.warning("refuted", **shown)

    async def _prove(self, watched: Watched, case: _Case, dispute: DisputeRecord, now: int) -> None:
        """Prove the fixes that the dispute may need, at D and at the times of its margin calls."""
        oracle = watched.terms.oracle
        times = {fix_time(watched.terms, dispute.deadline)}
        for index in range(dispute.calls):
            times.add((await self._adjudicator.margin_call(watched.channel, dispute.number, index)).time)
        feeds = [market.feed for market in watched.terms.markets]
        if watched.terms.collateral_feed not in {ZERO_FEED, *feeds}:
            feeds.append(watched.terms.collateral_feed)
        for time in sorted(t for t in times if t <= now):
            for feed in feeds:
                if (feed, time) not in case.proven and await self._prove_one(oracle, feed, time):
                    case.proven.add((feed, time))

    async def _prove_one(self, oracle: Oracle, feed: bytes, time: int) -> bool:
        """Whether nothing better can come: the fix on chain is complete."""
        assert self._fixes is not None  # noqa: S101 - asked only then
        key = oracle_hash(oracle)
        complete = len(oracle.signers) * oracle.samples
        known = (await self._fix_book.fix(key, feed, time))[1]
        if known >= complete:
            return True
        try:
            packages = await self._fixes(oracle, feed, time)
            weight = fix_price(oracle, feed, time, packages).weight
        except OracleError as error:
            log.info("no fix to prove", feed=feed.rstrip(b"\0").decode(), time=time, why=str(error))
            return False
        if weight <= known:
            return False
        try:
            await self._transactions.transact(self._fix_book.prove_fix(oracle, feed, time, b"".join(packages)))
        except (RevertError, TransactionRevertedError):
            if (await self._fix_book.fix(key, feed, time))[1] < weight:
                raise
        else:
            self.counts.proven += 1
            log.info("fix proven", feed=feed.rstrip(b"\0").decode(), time=time, weight=weight)
        return weight >= complete

    async def settle(self) -> None:
        """Wait for what runs in the background; for tests and shutdown."""
        while running := [task for task in self._busy.values() if not task.done()]:
            await asyncio.gather(*running, return_exceptions=True)

    async def stop(self) -> None:
        """End what runs. What was sent is mined without us; the next start looks anew."""
        for task in self._busy.values():
            task.cancel()
        await asyncio.gather(*self._busy.values(), return_exceptions=True)
