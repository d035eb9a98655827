"""A deterministic shell around the channel machine: real store, real keys, a link that loses what it is told to lose.

It carries out effects in order, as the daemon does, and watches while it does: that nothing is sent before it is
durable, that no key signs two digests for one version or below one it signed, that a frozen side signs no state. A
fuse makes a side crash between any two effects; what is left then is its store.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from strategies import DOMAIN, MAKER, TAKER, make_terms

from channeld.core import records, wire
from channeld.core.channel import (
    Accepted,
    Agreed,
    Channel,
    Connected,
    CoSigned,
    Decide,
    Disconnected,
    ExitReady,
    Frozen,
    Input,
    Lost,
    Notify,
    Persist,
    Ready,
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
from channeld.core.channel.exits import EXIT_DOCUMENT
from channeld.core.channel.recovery import BASE_DOCUMENT
from channeld.core.channel.values import LOST_DOCUMENT
from channeld.core.codec import decode
from channeld.core.eip712 import channel_id
from channeld.core.journal import verify
from channeld.core.operations import Batch, encode_batch
from channeld.core.state import State, genesis
from channeld.core.transition import Applied, apply
from channeld.daemon.signer import GuardedSigner
from channeld.store.memory import MemoryStore

TERMS = make_terms()
CHANNEL = channel_id(DOMAIN, TERMS)
KEYS = (MAKER, TAKER)
DOCUMENTS = {"withdrawal", "close"}


class Crash(Exception):  # noqa: N818 - no error: the process dies here
    """The power goes."""


def run(coroutine):
    """The result of a coroutine that never waits: the store of these tests is memory."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("the coroutine waits for something")


@dataclass
class Clock:
    """Milliseconds, moved by hand; salts that never repeat."""

    now_ms: int = 1_750_000_000_000
    salts: int = 0

    def batch(self, *operations) -> bytes:
        self.salts += 1
        self.now_ms += 7
        return encode_batch(Batch(self.now_ms, self.salts.to_bytes(16, "big"), operations))


@dataclass
class Side:
    """One desk. `disk` outlives crashes, all else does not; `exposed` is the world's memory of what left it."""

    number: int
    clock: Clock
    terms: object = TERMS
    disk: MemoryStore = field(default_factory=MemoryStore)
    channel: Channel | None = None
    outbox: deque[bytes] = field(default_factory=deque)
    postponed: deque[Decide] = field(default_factory=deque)
    events: list[object] = field(default_factory=list)
    sent: list[wire.Message] = field(default_factory=list)
    exposed: dict[tuple[str, int], bytes] = field(default_factory=dict)
    signed: dict[tuple[str, int], bytes] = field(default_factory=dict)
    fuse: int | None = None
    crashes: int = 0
    refuse: bool = False
    postpone: bool = False

    def __post_init__(self) -> None:
        self.id = channel_id(DOMAIN, self.terms)
        record = records.ChannelRecord(self.id, b"\x02" * 20, self.number, b"", 31337, b"\x03" * 20, "open", 1)
        run(self.disk.commit([records.PutChannel(record)]))
        self.start()

    # ---- life

    @property
    def up(self) -> bool:
        return self.channel is not None

    @property
    def latest(self) -> State:
        return self.channel.latest.state

    def start(self) -> None:
        """From the disk alone."""
        self.signer = GuardedSigner(KEYS[self.number], self.disk)
        self.fuse, self.refuse, self.postpone = None, False, False
        self.outbox.clear()
        self.postponed.clear()
        self.signed = {(r.kind, r.version): r.digest for r in self.all_signed()}
        snapshot = run(self.disk.load_channel(self.id))
        start = fresh(DOMAIN, self.terms, self.id, self.number)
        latest = None
        if snapshot.state is not None:
            s = snapshot.state
            body = records.decode_body(s.body)
            latest = CoSigned(State(self.id, s.version, body), s.body_hash, s.signature_a, s.signature_b)
        proposals = tuple(wire.unpack(m.raw) for m in snapshot.proposals)
        voiding = [wire.unpack(m.raw) for m in snapshot.rejections]
        rejection = next((m for m in voiding if isinstance(m, wire.Reject)), None)
        leap = next((m for m in voiding if isinstance(m, wire.Recover)), None)
        lost = run(self.disk.document(LOST_DOCUMENT, self.id.hex()))
        exits = tuple(
            restore_exit(start, key.split("/")[-1], raw, self.transition(decode(raw)[0]))
            for key, raw in run(self.disk.documents(EXIT_DOCUMENT, self.id.hex()))
        )
        self.channel = restore(start, latest, proposals, rejection, exits, recovery=leap, lost=lost)

    def transition(self, version: int) -> Applied:
        """The transition that made a version, replayed from version 0."""
        state = self.base()
        for batch in run(self.disk.batches(self.id, state.version + 1, version)):
            applied = apply(self.terms, state, batch.raw, batch.version)
            state = applied.state
        assert applied.state.version == version
        return applied

    def base(self) -> State:
        """Where the journal on the disk begins: at version 0, or at the last state taken after a loss."""
        start = genesis(self.id)
        for key, raw in run(self.disk.documents(BASE_DOCUMENT, self.id.hex())):
            start = State(self.id, int(key.split("/")[-1]), records.decode_body(raw))
        return start

    def backup(self) -> bytes:
        """A copy of the disk."""
        return self.disk._connection.serialize()

    def restore(self, copy: bytes, *, told: bool = True) -> None:
        """The disk is an older one. told: the restore writes the mark, as the desk's own tool does."""
        if self.up:
            self.crash()
        self.disk = MemoryStore()
        self.disk._connection.deserialize(copy)
        if told:
            run(self.disk.commit([lost_mark(self.id)]))
        self.start()

    def crash(self) -> None:
        self.channel, self.fuse = None, None
        self.outbox.clear()
        self.postponed.clear()

    def all_signed(self) -> list[records.SignedRecord]:
        rows = self.disk._connection.execute("SELECT * FROM signed")
        return [records.SignedRecord(*row) for row in rows]

    def _burn(self) -> None:
        if self.fuse is not None:
            if self.fuse == 0:
                self.crashes += 1
                raise Crash
            self.fuse -= 1

    # ---- the effects

    def feed(self, event: Input) -> None:
        """One input to its end; a Crash leaves the disk alone behind."""
        try:
            self._feed(event)
        except Crash:
            self.crash()
            raise

    def _feed(self, event: Input) -> None:
        done = step(self.channel, event)
        self.channel = done.channel
        for effect in done.effects:
            self._burn()
            match effect:
                case Sign(purpose, version, digest):
                    signature = self._sign(purpose, version, digest)
                    self._burn()
                    self._feed(Signed(purpose, version, signature))
                case Persist(writes):
                    run(self.disk.commit(writes))
                case Send(message):
                    self._send(message)
                case Decide():
                    if self.postpone or self.postponed:
                        self.postponed.append(effect)
                    else:
                        self._feed(self.verdict(effect))
                case Notify(news):
                    self._notified(news)

    def _sign(self, purpose: str, version: int, digest: bytes) -> bytes:
        kind = purpose if purpose in DOCUMENTS else records.SIGNED_STATE
        assert not (self.channel.frozen and purpose != "close"), f"{purpose} signed while frozen"
        if kind == records.SIGNED_STATE:
            assert self.channel.closing is None, "a state was signed while a close is alive"
        if purpose == "close":
            version = self.channel.closing.valid_until
        known = self.signed.setdefault((kind, version), digest)
        assert known == digest, f"two digests for {kind} {version}"
        if kind in records.RISING_KINDS:
            assert version == max(v for k, v in self.signed if k == kind), f"{kind} {version} below one signed"
        leap = purpose in {"leap", "land"}
        assert leap or not (self.channel.lost or self.channel.recovery), f"{purpose} signed with states lost"
        return run(self.signer.sign(self.id, kind, version, digest, leap=leap))

    def _durable(self, kind: str, version: int, signature: bytes) -> None:
        record = run(self.disk.signed(self.id, version, kind))
        assert record is not None, f"{kind} {version} was sent before its signature was durable"
        assert record.signature == signature, f"{kind} {version} was sent with another signature than is durable"
        known = self.exposed.setdefault((kind, version), record.digest)
        assert known == record.digest, f"two digests of {kind} {version} left the process"

    def _document_durable(self, document: wire.SignedDocument) -> None:
        kind = ("", "withdrawal", "close")[document.kind]
        value = decode(run(self.disk.document(EXIT_DOCUMENT, f"{self.id.hex()}/{kind}")))
        assert value[0] == document.version
        assert value[1 + self.number] == document.signature, "a document was sent before it was durable"

    def _send(self, message: wire.Message) -> None:
        match message:
            case wire.Propose(_, version, _, signature) | wire.Accept(_, version, signature):
                self._durable("state", version, signature)
            case wire.Reject():
                self._durable("state", message.version, message.signature)
            case wire.Recover() if message.signature_first:
                self._durable("state", message.version, message.signature_first)
            case wire.Document(_, document):
                self._document_durable(document)
            case wire.Sync():
                stored = run(self.disk.state(self.id))
                assert (stored.version if stored else 0) == message.version
                for proposal in message.proposals:
                    self._durable("state", proposal.version, proposal.signature)
                if message.rejection:
                    self._durable("state", message.rejection.version, message.rejection.signature)
                if message.recovery:
                    self._durable("state", message.recovery.version, message.recovery.signature_first)
                for document in message.documents:
                    self._document_durable(document)
        self.sent.append(message)
        if self.channel.connected:
            self.outbox.append(wire.pack(message))

    def _notified(self, news: Agreed | ExitReady | Ready | Frozen | Lost) -> None:
        if isinstance(news, Agreed):
            kept = run(self.disk.batches(self.id, news.applied.state.version, news.applied.state.version))
            assert kept, "told before it was durable"
        if isinstance(news, ExitReady):
            kind = "close" if news.exit.kind == wire_close() else "withdrawal"
            value = decode(run(self.disk.document(EXIT_DOCUMENT, f"{self.id.hex()}/{kind}")))
            assert value == [news.exit.document.version, news.exit.signature_a, news.exit.signature_b]
        self.events.append(news)

    # ---- the desk

    def verdict(self, ask: Decide) -> Accepted | Refused:
        if ask.half is None or self.refuse:
            code = ask.error.code if ask.error else 1
            return Refused(ask.version, self.clock.batch(), code, str(ask.error or "not wanted"))
        return Accepted(ask.version)

    def decide(self) -> None:
        """Answer the oldest postponed question; a refusal voids those after it."""
        ask = self.postponed.popleft()
        if self.refuse:
            self.postponed.clear()
        self.feed(self.verdict(ask))

    # ---- what is durable

    def stored_version(self) -> int:
        stored = run(self.disk.state(self.id))
        return stored.version if stored else 0

    def stored_hashes(self) -> dict[int, bytes]:
        return {s.version: s.body_hash for s in run(self.disk.states(self.id))}

    def stored_rejections(self) -> tuple[int, ...]:
        return tuple(m.version for m in run(self.disk.load_channel(self.id)).rejections)

    def check_journal(self) -> None:
        """The batches on the disk make the co-signed state, from version 0."""
        start = self.base()
        pairs = [(b.version, b.raw) for b in run(self.disk.batches(self.id, start.version + 1))]
        verify(self.terms, pairs, self.latest, start)


def wire_close() -> int:
    """The number of a Close among documents."""
    return 2


class Pair:
    """Two sides and the link between them. Side a is the sequencer of the default terms."""

    def __init__(self, terms=TERMS) -> None:
        self.clock = Clock()
        self.sides = tuple(Side(n, self.clock, terms) for n in (0, 1))
        self.sequencer = self.sides[terms.sequencer]
        self.follower = self.sides[1 - terms.sequencer]
        self.linked = False
        self.unaware: set[int] = set()

    def connect(self) -> None:
        """A new session; a side that never heard of the old one's end hears of the new one only."""
        self.linked = True
        self.unaware.clear()
        for side in self.sides:
            side.outbox.clear()
            side.postponed.clear()
        for side in self.sides:
            if self.linked:
                self._guard(side, Connected())

    def drop(self, told: tuple[int, ...] = (0, 1)) -> None:
        """The session is gone, and all that was under way."""
        self.linked = False
        for side in self.sides:
            side.outbox.clear()
            if not side.up:
                continue
            if side.number in told:
                side.postponed.clear()
                side.feed(Disconnected())
            else:
                self.unaware.add(side.number)

    def _guard(self, side: Side, event: Input) -> bool:
        """Feed; a crash takes the session with it."""
        try:
            side.feed(event)
        except Crash:
            self.drop()
            return False
        return True

    def deliver(self, sender: int) -> bool:
        """One message, in order. Whether there was one."""
        source, target = self.sides[sender], self.sides[1 - sender]
        if not self.linked or not source.outbox:
            return False
        message = wire.unpack(source.outbox.popleft())
        self._guard(target, Received(message))
        return True

    def settle(self, limit: int = 1000) -> int:
        """Deliver and decide until nothing is under way; how many messages it took."""
        for count in range(limit):
            while self.follower.postponed:
                self.follower.decide()
            if not (self.deliver(0) or self.deliver(1)):
                return count
        raise AssertionError("the two sides never come to rest")

    def feed(self, side: Side, event: Input) -> bool:
        return self._guard(side, event)
