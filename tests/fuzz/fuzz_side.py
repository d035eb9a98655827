"""One end of a channel: the real machine, effect queue and guard, over a disk of which only finished writes stay.

Rules: what the daemon's runner does, in its order, and no more. Signatures are made at once; records, messages and news
pass through the queue; a message is released by a finished write and goes into the session that stands then. A crash
leaves the records alone.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from fuzz_model import Money, Violation, require

from channeld.core import records, wire
from channeld.core.channel import (
    Accepted,
    Agreed,
    Channel,
    CoSigned,
    Decide,
    EffectQueue,
    ExitReady,
    Freeze,
    Frozen,
    Input,
    Lost,
    Received,
    Refused,
    Send,
    Sign,
    Signed,
    fresh,
    lost_mark,
    restore,
    restore_exit,
    step,
)
from channeld.core.channel.exits import CLOSE, EXIT_DOCUMENT
from channeld.core.channel.recovery import BASE_DOCUMENT
from channeld.core.channel.values import LOST_DOCUMENT, BodyUnknownError, NotReadyError
from channeld.core.codec import decode
from channeld.core.errors import ChanneldError, PeerError, RuleError
from channeld.core.journal import replay
from channeld.core.operations import Deposit, decode_batch
from channeld.core.state import State, genesis
from channeld.core.transition import Applied, apply

if TYPE_CHECKING:
    from fuzz_world import Link, Node

    from channeld.daemon.signer import GuardedSigner

CLOCK_TOLERANCE_MS = 2_000
KINDS = ("", "withdrawal", "close")


def run(coroutine):
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise Violation("the guard waits for something")


class Records:
    """The durable records of one side, as the store keeps them: bytes, by key, written once where they must be."""

    __slots__ = ("batches", "body", "documents", "highest", "proposals", "rejections", "signed_", "states")

    def __init__(self) -> None:
        self.states: dict[int, tuple[bytes, bytes, bytes]] = {}
        self.body: tuple[int, bytes] = (0, b"")
        self.batches: dict[int, bytes] = {}
        self.proposals: dict[int, bytes] = {}
        self.rejections: dict[int, bytes] = {}
        self.signed_: dict[tuple[str, int], tuple[bytes, bytes]] = {}
        self.highest: dict[str, int] = {}
        self.documents: dict[tuple[str, str], bytes] = {}

    def copy(self) -> Records:
        other = Records.__new__(Records)
        other.body = self.body
        for name in ("states", "batches", "proposals", "rejections", "signed_", "highest", "documents"):
            setattr(other, name, dict(getattr(self, name)))
        return other

    def same_as(self, other: Records) -> bool:
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    # what the guard reads, as from any store

    async def highest_signed(self, channel: bytes, kind: str = records.SIGNED_STATE) -> records.SignedRecord | None:
        version = self.highest.get(kind)
        return None if version is None else await self.signed(channel, version, kind)

    async def signed(
        self, channel: bytes, version: int, kind: str = records.SIGNED_STATE
    ) -> records.SignedRecord | None:
        found = self.signed_.get((kind, version))
        return None if found is None else records.SignedRecord(channel, kind, version, *found)

    def apply(self, write: records.Write) -> None:
        match write:
            case records.PutSigned():
                self._put_signed(write)
            case records.PutState(state):
                kept = (state.body_hash, state.signature_a, state.signature_b)
                require(self.states.setdefault(state.version, kept) == kept, "another state is stored under a version")
                body = write.body_bytes()
                if body is not None and state.version >= self.body[0]:
                    self.body = (state.version, body)
            case records.PutBatch(_, version, raw):
                require(self.batches.setdefault(version, raw) == raw, "another batch is stored under a version")
            case records.PutProposal(_, version, raw):
                self.proposals[version] = raw
            case records.PutRejection(_, version, raw):
                self.rejections[version] = raw
            case records.DropProposals(_, first, last):
                self.proposals = {v: raw for v, raw in self.proposals.items() if not first <= v <= last}
            case records.DropRejections(_, first, last):
                self.rejections = {v: raw for v, raw in self.rejections.items() if not first <= v <= last}
            case records.PutDocument(kind, key, value):
                self.documents[kind, key] = value
            case records.DropDocument(kind, key):
                self.documents.pop((kind, key), None)
            case _:
                raise Violation(f"the machine writes a {type(write).__name__}")

    def _put_signed(self, write: records.PutSigned) -> None:
        kept = (write.digest, write.signature)
        known = self.signed_.get((write.kind, write.version))
        if known is None:
            top = self.highest.get(write.kind, -1)
            require(
                write.kind not in records.RISING_KINDS or write.version > top,
                f"the store is given a {write.kind} of {write.version} below {top}",
            )
            self.signed_[write.kind, write.version] = kept
            self.highest[write.kind] = max(write.version, top)
        else:
            require(known == kept, f"the store is given a second {write.kind} at {write.version}")


class Side:
    """One end of one channel."""

    def __init__(self, link: Link, node: Node, number: int) -> None:
        self.link = link
        self.node = node
        self.number = number
        self.channel_id = link.channel_id
        self.disk = Records()
        self.queue: EffectQueue | None = None
        self.guard: GuardedSigner | None = None
        self.decisions: deque[Decide] = deque()
        self.attached = 0
        self.money_version = 0
        self.view = (0, 0)
        self.asked: set[int] = set()
        self.lost_since = 0
        self.taken = 0
        self.frozen_by: ChanneldError | None = None
        # set back without a word, and has not found out yet
        self.silent = False

    @property
    def up(self) -> bool:
        return self.queue is not None

    @property
    def channel(self) -> Channel:
        return self.queue.working

    # ---- life

    def start(self) -> None:
        """From the disk alone, as daemon/loading.py does."""
        link, disk = self.link, self.disk
        self.guard = self.link.world.hooks.guard(self)
        start = fresh(link.domain, link.terms, self.channel_id, self.number)
        latest = None
        version, raw = disk.body
        if disk.states:
            newest = max(disk.states)
            require(newest == version, "the body of the newest state is not kept")
            hashed, signature_a, signature_b = disk.states[newest]
            latest = CoSigned(
                State(self.channel_id, version, records.decode_body(raw)), hashed, signature_a, signature_b
            )
        voiding = [wire.unpack(raw) for _, raw in sorted(disk.rejections.items())]
        rejection = next((m for m in reversed(voiding) if isinstance(m, wire.Reject)), None)
        leap = next((m for m in reversed(voiding) if isinstance(m, wire.Recover)), None)
        exits = tuple(
            restore_exit(start, key.split("/")[-1], value, self._transition(decode(value)[0]))
            for (kind, key), value in sorted(disk.documents.items())
            if kind == EXIT_DOCUMENT
        )
        proposals = tuple(wire.unpack(raw) for raw in disk.proposals.values())
        lost = disk.documents.get((LOST_DOCUMENT, self.channel_id.hex()))
        channel = restore(start, latest, proposals, rejection, exits, recovery=leap, lost=lost)
        self.queue = self.link.world.hooks.queue(channel)
        self.money_version = channel.latest.state.version
        self.attached = 0
        self.taken = 0
        self.decisions.clear()
        self.lost_since = link.world.now_ms if lost is not None else 0
        self.frozen_by = None
        self.look()

    def _journal(self, last: int) -> tuple[State, list[tuple[int, bytes]]]:
        start = genesis(self.channel_id)
        for (kind, key), raw in sorted(self.disk.documents.items()):
            number = int(key.split("/")[-1]) if kind == BASE_DOCUMENT else last + 1
            if number <= last:
                start = State(self.channel_id, number, records.decode_body(raw))
        return start, [(v, raw) for v, raw in sorted(self.disk.batches.items()) if start.version < v <= last]

    def _transition(self, version: int) -> Applied:
        start, journal = self._journal(version)
        require(journal and journal[-1][0] == version, "a document's batch is missing")
        before = replay(self.link.terms, self.channel_id, journal[:-1], start)
        return apply(self.link.terms, before, journal[-1][1], version)

    def check_journal(self) -> None:
        latest = self.queue.durable.latest
        start, journal = self._journal(latest.state.version)
        require(
            replay(self.link.terms, self.channel_id, journal, start) == latest.state,
            "the journal does not lead to the co-signed state",
        )

    def crash(self) -> None:
        self.queue = None
        self.decisions.clear()
        self.attached = 0

    def restore(self, copy: Records, *, declared: bool) -> None:
        self.disk = copy.copy()
        if declared:
            self.disk.apply(lost_mark(self.channel_id))
        self.start()

    # ---- the machine

    def feed(self, event: Input) -> bool:
        """One input. False where it was refused: nothing has changed then."""
        before = self.queue.working
        try:
            done = step(before, event)
        except (NotReadyError, RuleError) as error:
            if isinstance(event, Received):
                raise Violation(f"a message led to {error!r}, which is the desk's own") from error
            self.link.world.count(type(error).__name__)
            return False
        except PeerError as error:
            self.link.faulted(self, error)
            return False
        done = self.link.world.hooks.stepped(self, done)
        for effect in self.queue.add(done):
            if isinstance(effect, Sign):
                if not self._sign(effect):
                    return False
            else:
                self.decisions.append(effect)
        self.flush()
        return True

    def _sign(self, effect: Sign) -> bool:
        kind = effect.purpose if effect.purpose in KINDS else records.SIGNED_STATE
        version = effect.version
        channel = self.queue.working
        leap = effect.purpose in {"leap", "land"}
        if kind == records.SIGNED_STATE:
            require(leap or not channel.recovering, f"{effect.purpose} is signed while states are lost")
            require(not channel.frozen, f"{effect.purpose} is signed while frozen")
            require(self.link.chain.record is None or not self.link.seen[self.number], "signed in a dispute")
        elif kind == "close":
            version = next(e.document.valid_until for e in channel.exits if e.kind == CLOSE)
        self.link.truth.signs(self.number, kind, version, effect.digest, self.link.world.now_ms // 1000)
        try:
            signature = run(self.guard.sign(self.channel_id, kind, version, effect.digest, leap=leap))
        except ChanneldError as error:
            raise Violation(f"the guard refuses {effect.purpose} of {effect.version}: {error}") from error
        return self.feed(Signed(effect.purpose, effect.version, signature))

    # ---- the disk

    def flush(self) -> None:
        """Begin the next write where none is under way; what needs no write is let go at once."""
        queue = self.queue
        while not queue.flying:
            group = queue.take()
            if group is None:
                return
            self.group = group
            if group.writes:
                return
            self.release(queue.done())

    def finish(self) -> None:
        """The write under way is durable."""
        self.put(self.group.writes)
        self.release(self.queue.done())
        if self.queue is not None:
            self.flush()

    def put(self, writes: tuple[records.Write, ...]) -> None:
        """Records become durable, all of them."""
        truth, disk = self.link.truth, self.disk
        batches = {write.version for write in writes if isinstance(write, records.PutBatch)}
        for write in writes:
            disk.apply(write)
            match write:
                case records.PutBatch(_, version, raw):
                    before = truth.money[self.money_version]
                    truth.moved(version, before.after(decode_batch(raw).operations))
                    self.money_version = version
                case records.PutSigned():
                    truth.signed(self.number, write.kind, write.version, write.digest)
                case records.PutState(state) if state.version not in batches:
                    # taken from elsewhere: somebody has held it, so its money is known
                    require(state.version in truth.money, "a state is taken that nobody agreed to")
                    self.money_version = state.version
                case _:
                    pass
        for write in writes:
            if isinstance(write, records.PutState):
                truth.cosigned(write.state.version, write.state.body_hash)
                require(
                    write.body is None or Money.of(write.body) == truth.money[write.state.version],
                    f"the money of version {write.state.version} is not what its operations make",
                )

    def fail(self, *, applied: bool) -> None:
        """The disk fails under the write; nobody knows whether it is durable. The process ends."""
        if applied:
            self.put(self.group.writes)
        durable = self.queue.failed()
        if not applied:
            version = max(self.disk.states, default=0)
            require(durable.latest.state.version == version, "what is taken back is not what the disk holds")
        require(self.queue.take() is None, "a queue that failed goes on")

    # ---- what leaves

    def release(self, released: list) -> None:
        for effect in released:
            if isinstance(effect, Send):
                self._durable(effect.message)
                self.link.send(self, effect.message)
            else:
                self._told(effect.event)

    def _durable(self, message: wire.Message) -> None:
        match message:
            case wire.Propose() | wire.Accept() | wire.Reject():
                self._signature(message.version, message.signature)
            case wire.Recover():
                if message.signature_first:
                    self._signature(message.version, message.signature_first)
            case wire.Document(_, document):
                self._document(document)
            case wire.Sync():
                require(message.version <= max(self.disk.states, default=0), "a state is shown that is not durable")
                if message.version:
                    kept = self.disk.states[message.version]
                    require(kept[1:] == (message.signature_a, message.signature_b), "other signatures are shown")
                for proposal in message.proposals:
                    self._signature(proposal.version, proposal.signature)
                if message.rejection is not None:
                    self._signature(message.rejection.version, message.rejection.signature)
                if message.recovery is not None:
                    self._signature(message.recovery.version, message.recovery.signature_first)
                for document in message.documents:
                    self._document(document)

    def _signature(self, version: int, signature: bytes) -> None:
        kept = self.disk.signed_.get((records.SIGNED_STATE, version))
        require(kept is not None, f"version {version} is sent before its signature is durable")
        require(kept[1] == signature, f"version {version} is sent with another signature than is durable")

    def _document(self, document: wire.SignedDocument) -> None:
        kind = KINDS[document.kind]
        value = self.disk.documents.get((EXIT_DOCUMENT, f"{self.channel_id.hex()}/{kind}"))
        if value is None or decode(value)[0] != document.version:
            # a later one has taken its place meanwhile; that it was durable is in the signer's record
            require(
                any(k == kind and kept[1] == document.signature for (k, _), kept in self.disk.signed_.items()),
                "a document is sent before it is durable",
            )
            return
        require(decode(value)[1 + self.number] == document.signature, "a document is sent before it is durable")

    def _told(self, event: object) -> None:
        world = self.link.world
        world.count(type(event).__name__)
        match event:
            case Agreed(applied, voided, _, _):
                require(applied.state.version in self.disk.batches, "news of a state that is not durable")
                if voided:
                    world.count("voided")
                for operation in applied.batch.operations:
                    if operation.origin == self.number and not self.channel.sequencer:
                        self.asked.discard(id_of(operation))
            case ExitReady(document):
                world.count("exit " + KINDS[document.kind])
            case Lost():
                self.silent = False
                self.lost_since = self.lost_since or world.now_ms
            case Frozen(error, _):
                if error is not None:
                    self.frozen_by = error
                    require(
                        isinstance(error, BodyUnknownError) and self.link.set_back == {0, 1},
                        f"side {self.number} is frozen by what no fault explains: {error}",
                    )

    # ---- the desk

    def decide(self, *, accept: bool) -> None:
        ask = self.decisions.popleft()
        answer: Accepted | Refused | None = None
        if ask.half is not None and accept and self._fine(ask):
            answer = Accepted(ask.version)
        else:
            code = ask.error.code if ask.error is not None else 1
            answer = Refused(ask.version, self.link.world.empty_batch(), code, "no")
            self.link.world.count("refused")
        self.feed(answer)

    def _fine(self, ask: Decide) -> bool:
        batch = ask.half.applied.batch
        if not batch.operations:
            return abs(batch.time_ms - self.link.world.now_ms) <= CLOCK_TOLERANCE_MS
        for operation in batch.operations:
            if isinstance(operation, Deposit):
                totals = (operation.deposited_a, operation.deposited_b)
                if totals[0] > self.view[0] or totals[1] > self.view[1]:
                    return False
            elif operation.origin == self.number and id_of(operation) not in self.asked:
                return False
        return True

    def look(self) -> None:
        """See the chain: deposits that are final, a dispute, the end."""
        if not self.up:
            return
        chain = self.link.chain
        self.view = tuple(chain.deposits)
        if (chain.record is not None or chain.ended) and not self.channel.frozen:
            self.link.seen[self.number] = True
            self.queue_freeze()
        if chain.record is not None:
            self.link.seen[self.number] = True
            durable = max(self.disk.states, default=0)
            chain.refute(durable, self.link.world.now_ms // 1000)

    def queue_freeze(self) -> None:
        done = step(self.queue.working, Freeze("a dispute runs"))
        self.queue.add(done)
        self.flush()


def id_of(operation: object) -> int:
    """What tells one request from another here: requests are transfers, each of its own amount."""
    return getattr(operation, "units", 0)
