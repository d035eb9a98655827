"""Disputes, carried through to payment: challenge, refute, prove fixes, settle; each step again after a restart.

Rules: the plan is core/dispute.py's, asked anew at each look; nothing of it is stored. A counterparty's challenge with
an old state is answered without being asked. Bodies that the store no longer holds are replayed from the journal and
trusted where they hash to what is on record. What the chain refuses because the other side was first is no failure.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from channeld.chain.contracts import Phase
from channeld.chain.errors import RevertError, TransactionRevertedError
from channeld.core import records
from channeld.core.channel import DISPUTING, Freeze
from channeld.core.dispute import (
    DisputeView,
    JudgeCall,
    ProveFixes,
    Refute,
    Release,
    Settle,
    ShowLast,
    Unknown,
    Wait,
    next_step,
)
from channeld.core.eip712 import body_hash, oracle_hash
from channeld.core.errors import ChanneldError, InputError
from channeld.core.journal import replay
from channeld.core.settlement import MarginCall, Verdict, fix_time, fixes_needed
from channeld.core.state import genesis
from channeld.daemon.loading import journal_of

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from channeld.chain.contracts import Call, DisputeRecord, MarginCallRecord
    from channeld.chain.transactions import Pending
    from channeld.core.eip712 import Resume
    from channeld.core.state import Body
    from channeld.daemon.actor import Actor
    from channeld.daemon.chain_desk import ChainDesk

log = structlog.get_logger(__name__)

FixKey = tuple[bytes, int]


@dataclass(frozen=True)
class Seen:
    """A dispute as it was read last: its number, the hash on record, its margin calls, and what `next_step` needs."""

    number: int
    body_hash: bytes
    calls: tuple[MarginCallRecord, ...]
    view: DisputeView


class UnknownVersionError(InputError):
    """No co-signed state of that version is held."""

    code = 1260
    advice = "`channeld channel show` tells the versions; give one of them, or none for the newest."


class Disputes:
    """The disputes of one desk's channels."""

    def __init__(self, chain: ChainDesk) -> None:
        """Act through the chain desk."""
        self._chain = chain
        self._bodies: dict[tuple[bytes, bytes], Body] = {}
        # channels whose old state this desk has shown on purpose, which a devnet alone allows: not refuted by itself
        self._old_shown: set[bytes] = set()
        self._told_unknown: set[bytes] = set()
        self.seen: dict[bytes, Seen] = {}

    async def challenge(self, actor: Actor, version: int | None = None) -> bytes:
        """Start a dispute with a co-signed state, the newest unless a version is given; the transaction's hash.

        The channel is frozen first, so that nothing is signed that the dispute does not know; where nothing could be
        sent it goes on.

        Raises:
            UnknownVersionError: none of that version is held.
            NotOpenOnChainError: there is nothing to dispute on chain.
            ChainError: the chain refuses.
        """
        chain = self._chain
        chain.check_open(actor)
        latest = actor.channel.latest
        if version is None or version == latest.state.version:
            number, hashed, signatures = latest.state.version, latest.body_hash, latest.signature_a + latest.signature_b
        else:
            state = await chain.store.state(actor.id, version)
            if state is None:
                raise UnknownVersionError(f"no co-signed state of version {version} is held")
            number, hashed, signatures = version, state.body_hash, state.signature_a + state.signature_b
            self._old_shown.add(actor.id)
        frozen_before = actor.channel.frozen
        if not frozen_before:
            await actor.feed(Freeze(DISPUTING))
            latest = actor.channel.latest
            if version is None and latest.state.version > number:
                number, hashed = latest.state.version, latest.body_hash
                signatures = latest.signature_a + latest.signature_b
        pending = await self._raise(
            actor, chain.adjudicator.challenge(actor.id, number, hashed, signatures), frozen_before
        )
        mined = await chain.mined(pending)
        await chain.emit("challenged", actor.id, version=number)
        return mined or pending.hash

    async def _raise(self, actor: Actor, call: Call, frozen_before: str) -> Pending:
        """Send what begins a dispute; the channel goes on as before where nothing could be sent."""
        chain, known = self._chain, self._chain.known.get(actor.id)
        dispute = known.dispute if known is not None and known.phase is Phase.DISPUTED else None
        try:
            return await chain.send(call, by=dispute.deadline if dispute is not None else 0)
        except ChanneldError:
            known = chain.known.get(actor.id)
            if actor.broken is None and known is not None and known.phase is Phase.OPEN:
                await actor.thaw(frozen_before)
            raise

    async def call_margin(self, actor: Actor) -> bytes:
        """Call margin on chain with the newest co-signed state: a dispute where there is none; the transaction's hash.

        L, the time at which both parties are judged, is the terms' curePeriod from the block on. As `challenge` does it
        freezes the channel first.

        Raises:
            NotOpenOnChainError: there is nothing to dispute on chain.
            ChainError: the chain refuses; it does where our last call's L is not past, and after four calls.
        """
        chain = self._chain
        chain.check_open(actor)
        frozen_before = actor.channel.frozen
        if not frozen_before:
            await actor.feed(Freeze(DISPUTING))
        latest = actor.channel.latest
        call = chain.adjudicator.call_margin(
            actor.id, latest.state.version, latest.body_hash, latest.signature_a + latest.signature_b
        )
        pending = await self._raise(actor, call, frozen_before)
        mined = await chain.mined(pending)
        await chain.emit("margin_called", actor.id, version=latest.state.version)
        chain.reread(actor.id)
        return mined or pending.hash

    async def resume(self, actor: Actor, document: Resume, signatures: bytes) -> None:
        """End a dispute by what both have signed; coming second is harmless.

        Raises:
            ChainError: the chain refuses, and the dispute still runs.
        """
        chain = self._chain
        try:
            await chain.transact(chain.adjudicator.resume(document, signatures), by=document.valid_until)
        except (RevertError, TransactionRevertedError):
            record = await chain.adjudicator.channel_record(actor.id)
            if record.phase is Phase.DISPUTED:
                raise
        chain.reread(actor.id)

    def ended(self, channel: bytes) -> None:
        """Forget a dispute that was ended by agreement: the next one is another."""
        self.seen.pop(channel, None)
        self._old_shown.discard(channel)
        self._told_unknown.discard(channel)

    async def body_on_record(self, actor: Actor, version: int, hashed: bytes) -> Body | None:
        """The body of a version with that hash, where we hold it or can replay it."""
        if version == 0:
            return genesis(actor.id).body
        key = (actor.id, hashed)
        if key not in self._bodies:
            found = await self._find_body(actor, version, hashed)
            if found is None:
                return None
            self._bodies[key] = found
        return self._bodies[key]

    async def _find_body(self, actor: Actor, version: int, hashed: bytes) -> Body | None:
        channel = actor.channel
        halves = [*channel.proposals, *(h for h in (channel.rejection, channel.recovery) if h is not None)]
        if channel.latest.body_hash == hashed:
            return channel.latest.state.body
        for half in halves:
            # half-signed by us, and the peer took the other signature to the chain alone
            if half.body_hash == hashed:
                return half.applied.state.body
        state = await self._chain.store.state(actor.id, version)
        if state is not None and state.body is not None and state.body_hash == hashed:
            return records.decode_body(state.body)
        start, journal = await journal_of(self._chain.store, actor.id, version)
        if start.version != version and (not journal or journal[-1][0] != version):
            return None
        replayed = await asyncio.to_thread(replay, channel.terms, actor.id, journal, start)
        return replayed.body if body_hash(replayed.body) == hashed else None

    async def view(self, actor: Actor) -> tuple[DisputeView, DisputeRecord]:
        """What `next_step` needs, read now."""
        chain = self._chain
        dispute = await chain.adjudicator.dispute_record(actor.id)
        terms = actor.channel.terms
        now = max(chain.view["time"], chain.clock.now_ms() // 1000)
        body = await self.body_on_record(actor, dispute.version, dispute.body_hash)
        known: dict[FixKey, int] = {}
        held: dict[FixKey, int] = {}
        called = tuple([await chain.adjudicator.margin_call(actor.id, dispute.number, i) for i in range(dispute.calls)])
        calls = tuple(_call(one) for one in called)
        if body is not None:
            book = oracle_hash(terms.oracle)
            times = [fix_time(terms, dispute.deadline), *(call.time for call in calls)]
            needed = {key for t in times if t <= now for key in fixes_needed(terms, body, t)}
            for feed, time in sorted(needed):
                # asked for, and so archived, as soon as its time has come: the signers forget, and the deadline is far
                _, fix = await actor.book.fix_of(feed, time)
                held[feed, time] = fix.weight if fix else 0
                if now >= dispute.deadline:
                    known[feed, time] = (await chain.fix_book.fix(book, feed, time))[1]
        record = chain.known.get(actor.id)
        view = DisputeView(
            now,
            dispute.version,
            dispute.deadline,
            actor.state.version,
            body,
            known,
            held,
            calls,
            record.record.floor_version if record and record.record else 0,
            dispute.shown_version,
            dispute.window_end,
        )
        self.seen[actor.id] = Seen(dispute.number, dispute.body_hash, called, view)
        return view, dispute

    async def next_step(self, actor: Actor) -> tuple[str, Body | None]:
        """What this desk does next in a dispute, in words, and the body on record where we hold it."""
        view, _ = await self.view(actor)
        match next_step(actor.channel.terms, view):
            case Refute():
                return f"refute with version {view.ours}", view.body
            case Wait(until, why):
                return f"wait until {until} for {why}", view.body
            case ProveFixes(fixes):
                return f"prove {len(fixes)} fixes", view.body
            case JudgeCall(index):
                return f"have margin call {index} tested", view.body
            case Settle():
                return "settle", view.body
            case ShowLast():
                return f"show version {view.ours} in place of the body that nobody shows", None
            case Release():
                return "have the deposits released", None
            case Unknown():
                return "the body on record is not ours to show; the counterparty must settle", None

    async def proven(self, actor: Actor, body: Body, at: int) -> dict[FixKey, int | None]:
        """The fixes on chain that a settlement at `at` needs; None where one is missing."""
        book = oracle_hash(actor.channel.terms.oracle)
        found: dict[FixKey, int | None] = {}
        for feed, time in fixes_needed(actor.channel.terms, body, at):
            value, weight = await self._chain.fix_book.fix(book, feed, time)
            found[feed, time] = value if weight else None
        return found

    async def advance(self, actor: Actor) -> None:
        """Do the next step, if it is time for one."""
        chain = self._chain
        view, _ = await self.view(actor)
        terms = actor.channel.terms
        latest = actor.channel.latest
        match next_step(terms, view):
            case Refute() if actor.id in self._old_shown:
                return
            case Refute():
                signatures = latest.signature_a + latest.signature_b
                await self._first_or_second(
                    chain.transact(
                        chain.adjudicator.refute(actor.id, latest.state.version, latest.body_hash, signatures),
                        by=view.deadline,
                    ),
                    actor,
                )
            case ProveFixes(fixes):
                await self._prove(actor, fixes, fix_time(terms, view.deadline) + terms.oracle.grace)
            case Settle() if view.body is not None:
                await self._first_or_second(chain.transact(chain.adjudicator.settle(terms, view.body)), actor)
            case JudgeCall(index) if view.body is not None:
                by = fix_time(terms, view.deadline) + terms.oracle.grace
                await chain.transact(chain.adjudicator.test(terms, view.body, index), by=by)
            case ShowLast():
                latest = actor.channel.latest
                signatures = latest.signature_a + latest.signature_b
                call = chain.adjudicator.settle_last(terms, latest.state.version, latest.state.body, signatures)
                await self._first_or_second(chain.transact(call), actor)
            case Release():
                await self._first_or_second(chain.transact(chain.adjudicator.release(terms)), actor)
            case Unknown() if actor.id not in self._told_unknown:
                self._told_unknown.add(actor.id)
                await chain.emit(
                    "alert",
                    actor.id,
                    severity="critical",
                    message=f"the chain has version {view.version}, whose body this desk does not hold",
                )
            case _:
                return

    async def _prove(self, actor: Actor, fixes: tuple[FixKey, ...], by: int) -> None:
        """Prove what we hold of each before `by`; one that fails does not keep the others from the chain."""
        chain, oracle = self._chain, actor.channel.terms.oracle
        trouble: ChanneldError | None = None
        for feed, time in fixes:
            packages, _ = await actor.book.fix_of(feed, time)
            if not packages:
                continue
            try:
                await chain.transact(chain.fix_book.prove_fix(oracle, feed, time, b"".join(packages)), by=by)
            except RevertError as error:
                known = (await chain.fix_book.fix(oracle_hash(oracle), feed, time))[1]
                if known < len(packages):
                    trouble = error
            except ChanneldError as error:
                trouble = error
        if trouble is not None:
            raise trouble

    async def _first_or_second(self, work: Awaitable[object], actor: Actor) -> None:
        """Do a step that the other side may be doing at the same time: coming second is harmless."""
        before = await self._chain.adjudicator.dispute_record(actor.id)
        try:
            await work
        except RevertError:
            after = await self._chain.adjudicator.dispute_record(actor.id)
            record = await self._chain.adjudicator.channel_record(actor.id)
            if after.version == before.version and record.phase is Phase.DISPUTED:
                raise
        await self._chain.learn(actor.id)


def _call(record: MarginCallRecord) -> MarginCall:
    """A margin call as the core judges it."""
    verdict = Verdict(record.below_a, record.below_b, record.complete, record.weight, penalty=record.penalty)
    return MarginCall(record.time, verdict if record.tested else None)
