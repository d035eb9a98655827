"""A case: one bundle and one chain. What stands on chain, what comes next, and the calls that do it.

Rules: nothing is stored; every question is answered from the bundle, the chain as it stands, and the packages at hand,
so that it can be asked again after any interruption. Contracts are checked byte for byte before anything else. The
chain's own time decides. Amounts are units of the collateral, prices wads, times Unix seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from channeld.chain.contracts import Adjudicator, FixBook, Phase
from channeld.chain.deployment import verify_adjudicator
from channeld.core.dispute import (
    DisputeView,
    JudgeCall,
    NextStep,
    ProveFixes,
    Refute,
    Release,
    Settle,
    ShowLast,
    next_step,
)
from channeld.core.eip712 import body_hash, oracle_hash
from channeld.core.errors import InputError, OracleError
from channeld.core.packages import Fix, fix_price
from channeld.core.settlement import (
    FixKey,
    MarginCall,
    Verdict,
    deciding,
    entitlement,
    fix_time,
    fixes_needed,
    settle_with_calls,
)
from channeld.core.terms import feed_symbol
from channeld.oracle.client import fix_packages

if TYPE_CHECKING:
    from channeld.chain.contracts import Call, ChannelRecord, DisputeRecord, MarginCallRecord
    from channeld.chain.rpc import ChainRpc
    from channeld.core.bundle import Bundle
    from channeld.core.eip712 import Resume
    from channeld.core.state import Body
    from channeld.oracle.client import PackageSource


class NothingToDoError(InputError):
    """The chain would refuse this now, or it would change nothing; the message says why."""

    code = 1410
    advice = "`channeld dispute status` shows where the dispute stands and what to do next."


class StaleBundleError(InputError):
    """The chain knows a later version than the bundle holds."""

    code = 1411
    advice = "Look for a newer bundle, backup or watchtower receipt before acting; what settles is the chain's version."


class NoPackagesError(InputError):
    """The oracle packages of a fix are not at hand."""

    code = 1412
    advice = "Give --oracle URL or --packages FOLDER; the packages may also come from your counterparty, or anybody."


@dataclass(frozen=True, slots=True)
class Facts:
    """What the chain says now. time: of its newest block. calls: the dispute's margin calls, with their records."""

    block: int
    time: int
    record: ChannelRecord
    dispute: DisputeRecord
    calls: tuple[MarginCallRecord, ...]
    body: Body | None

    @property
    def phase(self) -> Phase:
        """The channel's phase."""
        return self.record.phase

    @property
    def judged(self) -> tuple[MarginCall, ...]:
        """The margin calls as the core judges them."""
        return tuple(
            MarginCall(
                call.time,
                Verdict(call.below_a, call.below_b, call.complete, call.weight, penalty=call.penalty)
                if call.tested
                else None,
            )
            for call in self.calls
        )

    @property
    def totals(self) -> tuple[int, int, int, int]:
        """Deposits and payments of both, units, in the order of core.settlement."""
        r = self.record
        return r.deposited_a, r.deposited_b, r.paid_a, r.paid_b


@dataclass(frozen=True, slots=True)
class Planned:
    """A transaction to send: in words, the call, and by when it must be mined (0: whenever)."""

    words: str
    call: Call
    by: int = 0


class Case:
    """A bundle against a chain. `check` first."""

    def __init__(self, bundle: Bundle, rpc: ChainRpc, packages: PackageSource) -> None:
        """Bind; nothing is asked yet."""
        self.bundle, self.rpc, self.packages = bundle, rpc, packages
        self.adjudicator = Adjudicator(rpc, bundle.domain.adjudicator)
        self._fix_book: FixBook | None = None
        self._held: dict[FixKey, tuple[tuple[bytes, ...], Fix]] = {}

    async def check(self) -> None:
        """Check chain and contracts.

        Raises:
            ChainError: another chain, other code, no answer, or endpoints that contradict each other.

        """
        await self.rpc.compare()
        self.rpc.require_agreement()
        addresses = await verify_adjudicator(self.rpc, self.bundle.domain)
        self._fix_book = FixBook(self.rpc, addresses["fix_book"])

    @property
    def fix_book(self) -> FixBook:
        """The FixBook that the Adjudicator asks."""
        assert self._fix_book is not None  # noqa: S101 - `check` comes first
        return self._fix_book

    # -- reading -----------------------------------------------------------------------------------------------------

    async def facts(self) -> Facts:
        """What the chain says now, as of one block."""
        await self.rpc.compare()
        head = await self.rpc.header()
        channel, at = self.bundle.channel, head.number
        record = await self.adjudicator.channel_record(channel, block=at)
        dispute = await self.adjudicator.dispute_record(channel, block=at)
        calls = [
            await self.adjudicator.margin_call(channel, dispute.number, index, block=at)
            for index in range(dispute.calls)
        ]
        known = self.bundle.body_with_hash(dispute.body_hash) if dispute.number else None
        return Facts(head.number, head.timestamp, record, dispute, tuple(calls), known.body if known else None)

    async def fix(self, feed: bytes, t: int) -> tuple[tuple[bytes, ...], Fix] | None:
        """The packages at hand for a fix, in the order that the FixBook takes, and the fix they make; None without."""
        oracle, held = self.bundle.terms.oracle, self._held.get((feed, t))
        if held is None or not held[1].complete:
            try:
                packages = await fix_packages(self.packages, oracle, feed, t)
                self._held[feed, t] = (packages, fix_price(oracle, feed, t, packages))
            except OracleError:
                return held
        return self._held[feed, t]

    async def proven(self, feed: bytes, t: int) -> tuple[int, int]:
        """(value as a wad, weight) of a fix on chain."""
        return await self.fix_book.fix(oracle_hash(self.bundle.terms.oracle), feed, t)

    async def view(self, facts: Facts) -> DisputeView:
        """What `next_step` needs."""
        dispute, terms = facts.dispute, self.bundle.terms
        known: dict[FixKey, int] = {}
        held: dict[FixKey, int] = {}
        if facts.body is not None and facts.time >= dispute.deadline:
            times = [fix_time(terms, dispute.deadline), *(call.time for call in facts.calls)]
            for key in sorted({k for t in times if t <= facts.time for k in fixes_needed(terms, facts.body, t)}):
                known[key] = (await self.proven(*key))[1]
                mine = await self.fix(*key)
                held[key] = mine[1].weight if mine else 0
        return DisputeView(
            now=facts.time,
            version=dispute.version,
            deadline=dispute.deadline,
            ours=self.bundle.version,
            body=facts.body,
            known=known,
            held=held,
            calls=facts.judged,
            floor=facts.record.floor_version,
            shown=dispute.shown_version,
            window_end=dispute.window_end,
        )

    async def next(self, facts: Facts) -> NextStep:
        """The next step of a dispute that runs."""
        return next_step(self.bundle.terms, await self.view(facts))

    async def payout(self, facts: Facts) -> tuple[int, int] | None:
        """What `settle` would pay to a and b now (units), at what is proven and tested; None without the body."""
        terms, body = self.bundle.terms, facts.body
        if body is None or facts.phase is not Phase.DISPUTED:
            return None
        deadline = facts.dispute.deadline
        index, _ = deciding(body, facts.judged)
        at = fix_time(terms, deadline) if index >= len(facts.calls) else facts.calls[index].time
        fixes: dict[FixKey, int | None] = {}
        for key in fixes_needed(terms, body, at):
            value, weight = await self.proven(*key)
            fixes[key] = value if weight else None
        return settle_with_calls(terms, body, fixes, deadline, facts.judged, *facts.totals)

    def as_they_stand(self, facts: Facts | None) -> tuple[int, int]:
        """What both are due by the bundle's balances alone (units): its positions at their marks, no fix at all."""
        body = self.bundle.state.body
        if facts is None or facts.phase is Phase.NONE:
            totals = (body.a.deposited, body.b.deposited, body.a.withdrawn, body.b.withdrawn)
        else:
            totals = facts.totals
        names = ("deposited_a", "deposited_b", "paid_a", "paid_b")
        return entitlement(body.a, 0, **dict(zip(names, totals, strict=True)))

    # -- planning ----------------------------------------------------------------------------------------------------

    def challenge(self, facts: Facts) -> Planned:
        """Start a dispute.

        Raises:
            NothingToDoError: the channel is not open, or in dispute already.

        """
        self._need(facts, Phase.OPEN, "start a dispute")
        b = self.bundle
        sigs = b.sigs if b.version > facts.record.floor_version else b""
        words = f"challenge with version {max(b.version, facts.record.floor_version)}"
        call = self.adjudicator.challenge(b.channel, b.version, body_hash(b.state.body), sigs)
        return Planned(words, call)

    def call_margin(self, facts: Facts) -> Planned:
        """Call margin, with a challenge or a refutation where that is due.

        Raises:
            NothingToDoError: the channel has ended, or the deadline is past.

        """
        if facts.phase not in {Phase.OPEN, Phase.DISPUTED}:
            self._need(facts, Phase.OPEN, "call margin")
        if facts.phase is Phase.DISPUTED and facts.time >= facts.dispute.deadline:
            raise NothingToDoError("the deadline is past: margin can no longer be called")
        b, standing = self.bundle, facts.record.floor_version
        if facts.phase is Phase.DISPUTED:
            standing = facts.dispute.version
        sigs = b.sigs if b.version > standing else b""
        by = facts.dispute.deadline if facts.phase is Phase.DISPUTED else 0
        call = self.adjudicator.call_margin(b.channel, b.version, body_hash(b.state.body), sigs)
        return Planned(f"call margin with version {max(b.version, standing)}", call, by)

    def refute(self, facts: Facts) -> Planned:
        """Replace the version on record by the bundle's.

        Raises:
            NothingToDoError: there is no dispute, its deadline is past, or the version on record is ours.
            StaleBundleError: the version on record is higher.

        """
        self._need(facts, Phase.DISPUTED, "refute")
        b, on_record = self.bundle, facts.dispute.version
        if facts.time >= facts.dispute.deadline:
            raise NothingToDoError("the deadline is past: the version on record stands")
        if on_record > b.version:
            raise StaleBundleError(f"the chain has version {on_record}, the bundle {b.version}")
        if on_record == b.version:
            raise NothingToDoError(f"version {on_record} of the bundle is on record already")
        call = self.adjudicator.refute(b.channel, b.version, body_hash(b.state.body), b.sigs)
        return Planned(f"refute version {on_record} with version {b.version}", call, facts.dispute.deadline)

    async def prove(self, feed: bytes, t: int) -> Planned:
        """Prove one fix with the packages at hand.

        Raises:
            NoPackagesError: there are none, or no quorum of them.
            NothingToDoError: what stands on chain weighs as much.

        """
        name, held = feed_symbol(feed), await self.fix(feed, t)
        if held is None:
            raise NoPackagesError(f"no packages make a fix of {name} at {t}", feed=name, time=t)
        packages, fix = held
        _, weight = await self.proven(feed, t)
        if weight >= fix.weight:
            raise NothingToDoError(
                f"the fix of {name} at {t} is proven with {weight} packages; at hand are {fix.weight}"
            )
        call = self.fix_book.prove_fix(self.bundle.terms.oracle, feed, t, b"".join(packages))
        return Planned(f"prove the fix of {name} at {t} with {fix.weight} packages", call)

    async def prove_needed(self, facts: Facts) -> list[Planned]:
        """Prove every fix that the dispute needs by now and that weighs more than what is proven.

        Raises:
            NothingToDoError: there is no dispute, its fixes are not due, or no body or packages are at hand.

        """
        self._need(facts, Phase.DISPUTED, "prove fixes")
        view = await self.view(facts)
        planned = [await self.prove(*key) for key in sorted(view.held) if view.held[key] > view.known[key]]
        if not planned:
            missing = [f"{feed_symbol(f)} at {t}" for (f, t), weight in view.held.items() if not weight]
            why = f"no packages are at hand for {', '.join(missing)}" if missing else "no fix is due that is not proven"
            raise NothingToDoError(
                why if view.held else "no fix is due yet, or the body on record is not in the bundle"
            )
        return planned

    def test(self, facts: Facts, index: int) -> Planned:
        """Have a margin call judged.

        Raises:
            NothingToDoError: no such call, or no body to judge it by.

        """
        self._need(facts, Phase.DISPUTED, "test a margin call")
        if not 0 <= index < len(facts.calls):
            raise NothingToDoError(f"there is no margin call {index}; there are {len(facts.calls)}")
        body = self._body(facts)
        return Planned(f"test margin call {index}", self.adjudicator.test(self.bundle.terms, body, index))

    def settle(self, facts: Facts) -> Planned:
        """Pay by the body on record.

        Raises:
            NothingToDoError: no dispute, too early, or the body is not in the bundle.

        """
        self._need(facts, Phase.DISPUTED, "settle")
        body, at = self._body(facts), fix_time(self.bundle.terms, facts.dispute.deadline)
        if facts.time < at:
            raise NothingToDoError(f"the fix time {at} is not reached", until=at)
        return Planned(f"settle version {facts.dispute.version}", self.adjudicator.settle(self.bundle.terms, body))

    def settle_last(self, facts: Facts) -> Planned:
        """Show the bundle's body where nobody shows the one on record; after the window, be paid by it.

        Raises:
            NothingToDoError: no dispute, or too early.

        """
        self._need(facts, Phase.DISPUTED, "show a body")
        terms = self.bundle.terms
        opens = fix_time(terms, facts.dispute.deadline) + 2 * terms.oracle.grace
        if facts.time < opens:
            raise NothingToDoError(f"bodies other than the one on record can be shown from {opens} on", until=opens)
        b = self.bundle
        call = self.adjudicator.settle_last(terms, b.version, b.state.body, b.sigs)
        return Planned(f"show version {b.version} in place of the body that nobody shows", call)

    def release(self, facts: Facts) -> Planned:
        """Have the deposits given back, where nobody has shown any body for half a year."""
        self._need(facts, Phase.DISPUTED, "release the deposits")
        return Planned("release the deposits", self.adjudicator.release(self.bundle.terms))

    def resume(self, facts: Facts, resume: Resume, sigs: bytes) -> Planned:
        """End the dispute by agreement."""
        self._need(facts, Phase.DISPUTED, "resume")
        words = f"resume: end dispute {resume.dispute} and go on"
        return Planned(words, self.adjudicator.resume(resume, sigs), facts.dispute.deadline)

    async def plan(self, facts: Facts, step: NextStep) -> list[Planned]:
        """The transactions of a step; none for one that waits.

        Raises:
            InputError: a step whose packages or body have gone.

        """
        match step:
            case Refute():
                return [self.refute(facts)]
            case ProveFixes(fixes):
                return [await self.prove(*key) for key in fixes]
            case JudgeCall(index):
                return [self.test(facts, index)]
            case Settle():
                return [self.settle(facts)]
            case ShowLast():
                return [self.settle_last(facts)]
            case Release():
                return [self.release(facts)]
            case _:
                return []

    def _need(self, facts: Facts, phase: Phase, what: str) -> None:
        if facts.phase is phase:
            return
        told = {
            Phase.NONE: "the channel was never opened on this chain",
            Phase.OPEN: "the channel is open, and no dispute runs",
            Phase.DISPUTED: "a dispute runs already",
            Phase.ENDED: "the channel has ended and was paid",
        }[facts.phase]
        raise NothingToDoError(f"cannot {what}: {told}", phase=facts.phase.name.lower())

    def _body(self, facts: Facts) -> Body:
        if facts.body is None:
            raise NothingToDoError(
                f"the body of version {facts.dispute.version}, which is on record, is not in the bundle",
                advice="Find a bundle of that version; without one, settle-last opens two grace periods after the fix.",
            )
        return facts.body
