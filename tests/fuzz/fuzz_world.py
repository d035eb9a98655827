"""The consistency fuzzer: bytes choose what happens among three desks, their links, their disks and a chain.

Rules: a byte names an action, the bytes after it its arguments; any bytes are a run. Maker and taker share one channel,
taker and a third desk another, so that taker's disk serves two. What must hold is checked where it could break: when a
key is used, when records become durable, when a message leaves, when money moves. `heal` ends a run: links and disks
behave again, and within a bounded number of messages both ends of every channel that no fault has ended must agree, and
go on. A run that finds nothing returns; one that does raises Violation.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from fuzz_model import Chain, Truth, Violation, require
from fuzz_side import Records, Side
from strategies import DOMAIN, key, leg, make_terms, perpetual

from channeld.core import wire
from channeld.core.channel import (
    CloseExpired,
    Connected,
    DeclareLoss,
    Disconnected,
    EffectQueue,
    Found,
    ProposeBatch,
    Received,
    Recover,
)
from channeld.core.crypto import address_of
from channeld.core.eip712 import channel_id
from channeld.core.errors import ChanneldError
from channeld.core.operations import Batch, CloseChannel, Deposit, Trade, Transfer, Withdraw, encode_batch
from channeld.core.terms import Party
from channeld.daemon.signer import GuardedSigner

if TYPE_CHECKING:
    from collections.abc import Callable

    from channeld.core.channel import Channel, Step
    from channeld.core.errors import PeerError
    from channeld.core.operations import Operation
    from channeld.core.terms import Terms

KEYS = tuple(key(f"fuzz desk {n}") for n in range(3))
START_MS = 1_750_000_000_000
CHALLENGE_S = 86_400
RECOVERY_WAIT_MS = 610_000
RECOVERY_AGAIN_MS = 2_100_000
PRICES = (3000, 3001, 2999, 3017)
GENERATIONS = 6
MOST_MESSAGES = 2 * 64 + 40
"""What one reunion may take: two Syncs, a window of proposals and their answers, documents, a rejection."""


def _terms(a: int, b: int, sequencer: int, salt: int) -> Terms:
    return make_terms(
        a=Party(address_of(KEYS[a]), b"\xa1" * 20),
        b=Party(address_of(KEYS[b]), b"\xb2" * 20),
        sequencer=sequencer,
        salt=bytes([salt + 1]) * 32,
    )


POOL = {
    (link, number): (
        terms := _terms(link, link + 1, (link + number) % 2, 10 * link + number),
        channel_id(DOMAIN, terms),
    )
    for link in range(2)
    for number in range(GENERATIONS)
}


class Hooks:
    """Where a planted bug takes the place of the real thing."""

    def guard(self, side: Side) -> GuardedSigner:
        return GuardedSigner(KEYS[side.node.number], side.disk)

    def queue(self, channel: Channel) -> EffectQueue:
        return EffectQueue(channel)

    def stepped(self, side: Side, done: Step) -> Step:
        del side
        return done


class Node:
    """A desk: its ends of channels, and what was copied of its disk at some time."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.sides: list[Side] = []
        self.copies: deque[dict[bytes, Records]] = deque(maxlen=3)
        self.up = True


class Link:
    """One channel and the way between its ends."""

    def __init__(self, world: World, number: int, generation: int) -> None:
        self.world = world
        self.number = number
        self.generation = generation
        self.terms, self.channel_id = POOL[number, generation]
        self.domain = DOMAIN
        self.truth, self.chain = Truth(), Chain()
        self.session = 0
        self.ways: tuple[deque[bytes], deque[bytes]] = (deque(), deque())
        self.seen = [False, False]
        # which ends were set back since both were last in step; until then the peer's old messages may make no sense
        self.set_back: set[int] = set()
        self.delivered = 0
        self.sides = tuple(Side(self, world.nodes[number + n], n) for n in (0, 1))

    @property
    def sequencer(self) -> Side:
        return self.sides[self.terms.sequencer]

    @property
    def follower(self) -> Side:
        return self.sides[1 - self.terms.sequencer]

    # ---- sessions

    def connect(self) -> None:
        """A new session; each end takes it up when it hears of it. What was under way is lost."""
        self.session += 1
        for way in self.ways:
            way.clear()

    def attach(self, side: Side) -> None:
        if side.up and self.session and side.attached != self.session:
            side.decisions.clear()
            side.attached = self.session
            side.feed(Connected())

    def detach(self, side: Side) -> None:
        if side.up and side.attached:
            side.decisions.clear()
            side.attached = 0
            side.feed(Disconnected())

    def drop(self, told: int = 3) -> None:
        """The session ends; bit n of `told`: whether end n hears of it before the next begins."""
        self.connect()
        for n, side in enumerate(self.sides):
            if told >> n & 1:
                self.detach(side)

    def send(self, side: Side, message: wire.Message) -> None:
        if side.attached == self.session:
            self.ways[side.number].append(wire.pack(message))

    def deliver(self, sender: int) -> bool:
        receiver = self.sides[1 - sender]
        way = self.ways[sender]
        if not way or not receiver.up or receiver.attached != self.session:
            return False
        message = wire.unpack(way.popleft())
        self.delivered += 1
        receiver.feed(Received(message))
        return True

    def faulted(self, side: Side, error: PeerError) -> None:
        """An honest peer's message makes no sense: only where one of the two was set back."""
        require(self.set_back, f"side {side.number} finds a fault with an honest peer: {error!r}")
        self.world.count("session ended by " + type(error).__name__)
        self.drop()

    def in_step(self) -> None:
        """Once both stand on one state and nothing is lost or under way, old copies explain nothing any more."""
        a, b = self.sides
        if (
            self.set_back
            and a.up
            and b.up
            and not a.queue.behind
            and not b.queue.behind
            and a.channel.synced
            and b.channel.synced
            and not a.channel.recovering
            and not b.channel.recovering
            and a.channel.latest == b.channel.latest
            and not any(self.ways)
        ):
            self.set_back.clear()


class World:
    """Three desks, two channels."""

    def __init__(self, hooks: Hooks | None = None, counts: Counter[str] | None = None) -> None:
        self.hooks = hooks or Hooks()
        self.counts = counts if counts is not None else Counter()
        self.now_ms = START_MS
        self.salts = 0
        self.units = 0
        self.nodes = tuple(Node(n) for n in range(3))
        self.links: list[Link] = []
        for number in range(2):
            self.links.append(Link(self, number, 0))
        self._wire()
        for link in self.links:
            for side in link.sides:
                side.start()
            self.fund(link)

    def _wire(self) -> None:
        for node in self.nodes:
            node.sides = [side for link in self.links for side in link.sides if side.node is node]

    def fund(self, link: Link) -> None:
        """Both have paid in; where both are there, they begin with a state that says so."""
        link.chain.deposits = [10**9, 10**9]
        if not all(side.up for side in link.sides):
            return
        link.connect()
        for side in link.sides:
            side.look()
            link.attach(side)
        self._rest(link)
        self._propose(link.sequencer, (Deposit(link.terms.sequencer, 10**9, 10**9),))
        self._rest(link)

    def count(self, what: str) -> None:
        self.counts[what] += 1

    # ---- batches

    def batch(self, *operations: Operation) -> bytes:
        self.salts += 1
        self.now_ms += 3
        return encode_batch(Batch(self.now_ms, self.salts.to_bytes(16, "big"), operations))

    def wait_until(self, then_ms: int) -> None:
        """Time passes. No desk is away for the whole of a challenge period: all look at the chain before one ends."""
        if any(link.chain.record is not None and link.chain.deadline * 1000 <= then_ms for link in self.links):
            for node in self.nodes:
                self._start(node)
            for side in (side for link in self.links for side in link.sides):
                while side.queue.flying:
                    side.finish()
                side.look()
        self.now_ms = max(self.now_ms, then_ms)

    def empty_batch(self) -> bytes:
        return self.batch()

    # ---- running bytes

    def run(self, data: bytes) -> int:
        """Carry out what the bytes say; how many actions that were."""
        stream = Stream(data)
        actions = 0
        table = TABLES[stream.byte() % len(TABLES)]
        while stream.left:
            table[stream.byte()](self, stream)
            actions += 1
        return actions

    # ---- actions; each takes its arguments from the stream, and does nothing where it cannot be

    def _link(self, stream: Stream) -> Link:
        return self.links[stream.bits(1)]

    def _side(self, stream: Stream) -> Side:
        return self._link(stream).sides[stream.bits(1)]

    def a_deliver(self, stream: Stream) -> None:
        link = self._link(stream)
        sender = stream.bits(1)
        if not link.deliver(sender):
            link.deliver(1 - sender)

    def a_deliver_much(self, stream: Stream) -> None:
        link = self._link(stream)
        for _ in range(2 + stream.bits(4)):
            for sender in (0, 1):
                link.deliver(sender)
            self._busy(link)

    def _busy(self, link: Link) -> None:
        for side in link.sides:
            if side.up and side.queue.flying:
                side.finish()
            while side.up and side.decisions:
                side.decide(accept=True)
            if side.up and side.queue.flying:
                side.finish()

    def a_finish(self, stream: Stream) -> None:
        side = self._side(stream)
        if side.up and side.queue.flying:
            side.finish()

    def a_fail(self, stream: Stream) -> None:
        side = self._side(stream)
        applied = stream.bits(1) == 1
        if stream.bits(2) == 0 and side.up and side.queue.flying:
            self.count("failed writes")
            side.fail(applied=applied)
            self._crash(side.node)

    def a_propose(self, stream: Stream) -> None:
        link = self._link(stream)
        side = link.sequencer
        if side.up and side.channel.synced:
            operations = tuple(self._operation(link, stream) for _ in range(stream.bits(2)))
            self._propose(side, operations)

    def a_propose_many(self, stream: Stream) -> None:
        link = self._link(stream)
        side = link.sequencer
        count = stream.bits(4)
        count = 70 if count == 15 else count
        for _ in range(count):
            if side.up and side.channel.synced:
                self.units += 1
                self._propose(side, (Transfer(self.units % 2, 1 + self.units % 97),))

    def _propose(self, side: Side, operations: tuple[Operation, ...]) -> None:
        deposits = [op for op in operations if isinstance(op, Deposit)]
        if len(deposits) < 2 and side.feed(ProposeBatch(self.batch(*operations))):
            self.count("proposed")

    def _operation(self, link: Link, stream: Stream) -> Operation:
        kind, origin = stream.bits(3), link.terms.sequencer
        if kind < 3:
            return Transfer(origin, 1 + stream.byte())
        if kind == 3 and link.follower.asked:
            return Transfer(1 - origin, min(link.follower.asked))
        if kind == 4:
            return Withdraw(origin, 1 + stream.byte())
        if kind == 5:
            return Deposit(origin, *link.sequencer.view)
        size = (-3, -1, 1, 2)[stream.bits(2)]
        return Trade(origin, (leg(perpetual(), size, PRICES[stream.bits(2)]),))

    def a_request(self, stream: Stream) -> None:
        """The follower asks for a payment of its own; the sequencer may put it into a batch."""
        link = self._link(stream)
        if link.follower.up and len(link.follower.asked) < 4:
            self.units += 1
            link.follower.asked.add(1000 + self.units)

    def a_close(self, stream: Stream) -> None:
        link = self._link(stream)
        side = link.sequencer
        if stream.bits(2) == 0 and side.up and side.channel.synced:
            body = side.channel.tip.body
            origin = link.terms.sequencer
            flat = tuple(Trade(origin, (leg(p.instrument, -p.size // 10**18, 3000),)) for p in body.positions)
            self._propose(side, (*flat, CloseChannel(origin)))

    def a_decide(self, stream: Stream) -> None:
        side = self._side(stream)
        refuse = stream.bits(4) == 0
        if side.up and side.decisions:
            side.decide(accept=not refuse)

    def _crash(self, node: Node) -> None:
        self.count("crashes")
        node.up = False
        for side in node.sides:
            if side.up:
                side.crash()
            side.link.drop()

    def _start(self, node: Node) -> None:
        if not node.up:
            node.up = True
            for side in node.sides:
                side.start()

    def a_crash(self, stream: Stream) -> None:
        node = self.nodes[stream.bits(2) % 3]
        if node.up and stream.bits(2) == 0:
            self._crash(node)

    def a_start(self, stream: Stream) -> None:
        self._start(self.nodes[stream.bits(2) % 3])

    def a_copy(self, stream: Stream) -> None:
        node = self.nodes[stream.bits(2) % 3]
        if stream.bits(1):
            node.copies.append({side.channel_id: side.disk.copy() for side in node.sides})

    def a_set_back(self, stream: Stream) -> None:
        """The database becomes an older one: declared, or (where the peer can prove it) not."""
        node = self.nodes[stream.bits(2) % 3]
        declared = stream.bits(1) == 1
        which = stream.bits(1)
        if stream.bits(1) or not node.copies:
            return
        copy = node.copies[-1 - which % len(node.copies)]
        if not declared and not all(self._provable(side, copy.get(side.channel_id)) for side in node.sides):
            return
        if any(side.link.sides[1 - side.number].silent for side in node.sides):
            return  # the proof that the other end waits for would be gone: nobody could find out
        self._crash(node)
        self.count("set back, declared" if declared else "set back, silently")
        node.up = True
        for side in node.sides:
            side.link.set_back.add(side.number)
            self.now_ms += 1000
            older = copy.get(side.channel_id, Records())
            side.silent = not declared and (side.silent or not older.same_as(side.disk))
            side.restore(older, declared=declared)

    def _provable(self, side: Side, copy: Records | None) -> bool:
        """Whether the peer's exchange is bound to show that the copy is old."""
        peer = side.link.sides[1 - side.number]
        if copy is None or side.link.set_back or not peer.up:
            return copy is not None and copy.same_as(side.disk)
        shown = max(peer.disk.states, default=0)
        held = max(copy.states, default=0)
        return shown > held and shown not in copy.proposals and shown not in copy.rejections

    def a_drop(self, stream: Stream) -> None:
        link = self._link(stream)
        told = stream.bits(2)
        if stream.bits(1) == 0:
            self.count("dropped links")
            link.drop(told)

    def a_connect(self, stream: Stream) -> None:
        link = self._link(stream)
        if not link.session or any(side.attached != link.session for side in link.sides):
            if not link.session:
                link.connect()
            for side in link.sides:
                link.attach(side)

    def a_reconnect(self, stream: Stream) -> None:
        """A session in the place of another, of whose end nobody has heard."""
        link = self._link(stream)
        if stream.bits(1) == 0:
            self.count("doubled links")
            link.connect()
            link.attach(link.sides[stream.bits(1)])

    def a_attach(self, stream: Stream) -> None:
        link = self._link(stream)
        link.attach(link.sides[stream.bits(1)])

    def a_advance(self, stream: Stream) -> None:
        self.wait_until(self.now_ms + (10, 3_000, 60_000, 700_000)[stream.bits(2)])

    def a_deposit(self, stream: Stream) -> None:
        link = self._link(stream)
        if not link.chain.ended:
            link.chain.deposits[stream.bits(1)] += 1 + stream.byte()

    def a_look(self, stream: Stream) -> None:
        self._side(stream).look()

    def a_lapse(self, stream: Stream) -> None:
        self._lapse(self._side(stream))

    def _lapse(self, side: Side) -> None:
        close = side.channel.closing if side.up else None
        if close is not None and not side.link.chain.ended and close.valid_until * 1000 < self.now_ms:
            self.count("lapsed closes")
            side.feed(CloseExpired())

    def a_recover(self, stream: Stream) -> None:
        self._recover(self._side(stream))

    def _recover(self, side: Side) -> None:
        if not side.up or not side.channel.lost or side.channel.frozen or not side.channel.synced:
            return
        if side.channel.closing is None and self.now_ms >= side.lost_since + RECOVERY_WAIT_MS:
            self.count("asked to recover")
            side.feed(Recover(self.empty_batch(), side.link.chain.floor))

    def a_found(self, stream: Stream) -> None:
        """A copy of the newest database turns up at a desk that was set back."""
        side = self._side(stream)
        if not side.up or side.attached or not side.channel.lost or not side.node.copies:
            return
        copy = side.node.copies[-1].get(side.channel_id)
        if copy is not None and copy.states:
            version, raw = copy.body
            self.count("found elsewhere")
            side.feed(Found(version, raw, *copy.states[version][1:]))

    def a_declare(self, stream: Stream) -> None:
        side = self._side(stream)
        if stream.bits(3) == 0 and side.up and not side.attached:
            side.link.set_back.add(side.number)
            side.lost_since = side.lost_since or self.now_ms
            side.feed(DeclareLoss("the operator is not sure"))

    def a_exit(self, stream: Stream) -> None:
        """A complete document goes to the chain."""
        side = self._side(stream)
        link = side.link
        if not side.up or link.chain.ended:
            return
        for document in side.queue.durable.exits:
            if not document.complete:
                continue
            paper = document.document
            if document.kind == 1:
                self.count("withdrawn")
                link.chain.withdraw(paper.version, (paper.withdrawn_a, paper.withdrawn_b))
            elif self.now_ms <= paper.valid_until * 1000 and paper.version >= max(
                link.chain.floor, link.chain.record or 0
            ):
                self._end(link, paper.version)
                return

    def a_challenge(self, stream: Stream) -> None:
        """A desk goes to the chain: with its newest state, or, cheating, with an old one."""
        side = self._side(stream)
        cheats = stream.bits(1) == 1
        if stream.bits(3) or not side.up or not side.disk.states or side.link.set_back:
            return
        versions = sorted(side.disk.states)
        version = versions[len(versions) // 2] if cheats else versions[-1]
        side.queue_freeze()
        if side.link.chain.challenge(version, self.now_ms // 1000, CHALLENGE_S):
            self.count("challenged with an old state" if version != versions[-1] else "challenged")
            side.link.seen[side.number] = True

    def a_settle(self, stream: Stream) -> None:
        link = self._link(stream)
        if link.chain.record is None or link.chain.ended:
            return
        self.wait_until(link.chain.deadline * 1000)
        version = link.chain.record
        for side in link.sides:
            held = max(side.disk.states, default=0)
            require(version >= held, f"settled at version {version}, where side {side.number} holds {held}")
        self._end(link, version)

    def _end(self, link: Link, version: int) -> None:
        """The channel is paid, and another takes its place."""
        money = link.truth.money.get(version)
        require(money is not None, "paid on a version that nobody agreed to")
        pot = sum(link.chain.deposits) - sum(link.chain.paid)
        paid = link.chain.settle(money)
        require(min(paid) >= 0 and sum(paid) == pot, "the chain pays more or less than it holds")
        self.count("channels ended")
        generation = (link.generation + 1) % GENERATIONS
        index = self.links.index(link)
        self.links[index] = new = Link(self, link.number, generation)
        self._wire()
        for node in self.nodes:
            node.copies.clear()
        for side in new.sides:
            if side.node.up:
                side.start()
        self.fund(new)

    # ---- the end of a run

    def heal(self) -> None:
        """Links and disks behave: every channel comes to rest, agrees, and goes on."""
        for node in self.nodes:
            self._start(node)
        for link in list(self.links):
            for side in link.sides:
                side.look()
            if link.chain.record is not None or any(side.frozen_by for side in link.sides):
                self._dispute_out(link)
            else:
                self._heal(link)

    def _dispute_out(self, link: Link) -> None:
        if link.chain.record is None:
            side = next(s for s in link.sides if s.frozen_by)
            link.chain.challenge(max(side.disk.states, default=0), self.now_ms // 1000, CHALLENGE_S)
        stream = Stream(bytes([self.links.index(link)]))
        self.a_settle(stream)

    def _heal(self, link: Link) -> None:
        rounds = 10
        for _ in range(rounds):
            link.drop()
            for side in link.sides:
                link.attach(side)
            self._rest(link)
            for side in link.sides:
                self._lapse(side)
            if self._agreed(link):
                break
            self.wait_until(self.now_ms + RECOVERY_AGAIN_MS)
            for side in (*link.sides, *link.sides):
                self._lapse(side)
                self._recover(side)
                self._rest(link)
            if any(side.frozen_by for side in link.sides):
                self._dispute_out(link)
                return
        require(self._agreed(link), "the two ends do not come to agree: " + _shown(link))
        sequencer, follower = link.sequencer, link.follower
        for _ in range(2):
            for side in link.sides:
                if side.channel.closing is not None:
                    self.wait_until((side.channel.closing.valid_until + 1) * 1000)
                    self._lapse(side)
            self._rest(link)
        before = sequencer.channel.latest.state.version
        follower.view = sequencer.view = tuple(link.chain.deposits)
        require(
            sequencer.feed(ProposeBatch(self.batch(Deposit(link.terms.sequencer, *link.chain.deposits)))),
            "nothing can be proposed: " + _shown(link),
        )
        self._rest(link)
        require(follower.channel.latest.state.version == before + 1, "the follower does not go on")
        require(sequencer.channel.latest == follower.channel.latest, "they go on apart")
        for side in link.sides:
            side.check_journal()

    def _rest(self, link: Link) -> None:
        """Deliver until nothing is under way; a bounded number of messages."""
        begun = link.delivered
        moved = True
        while moved:
            moved = False
            for sender in (0, 1):
                while link.deliver(sender):
                    moved = True
                    require(link.delivered - begun <= MOST_MESSAGES, "the two ends never come to rest")
            for side in link.sides:
                if side.decisions:
                    side.decide(accept=True)
                    moved = True
                if side.queue.flying:
                    side.finish()
                    moved = True
        link.in_step()

    def _agreed(self, link: Link) -> bool:
        a, b = (side.channel for side in link.sides)
        return (
            a.latest == b.latest
            and not (a.recovering or b.recovering or a.frozen or b.frozen)
            and not (a.proposals or b.proposals or a.rejection or b.rejection)
        )


class Stream:
    """Bytes as choices; zeros once they are used up."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self._bits = 0
        self._held = 0

    @property
    def left(self) -> bool:
        return self.at < len(self.data)

    def byte(self) -> int:
        self._held = 0
        if self.at >= len(self.data):
            return 0
        self.at += 1
        return self.data[self.at - 1]

    def bits(self, count: int) -> int:
        """So many bits: several small choices of one action share a byte."""
        if self._held < count:
            self._bits, self._held = self.byte(), 8
        value = self._bits & ((1 << count) - 1)
        self._bits >>= count
        self._held -= count
        return value


def _shown(link: Link) -> str:
    from channeld.core.channel import waiting_for  # noqa: PLC0415 - for a message alone

    return "; ".join(
        f"{'sequencer' if side is link.sequencer else 'follower'} at {side.channel.latest.state.version}: "
        f"{waiting_for(side.channel) or 'free'}"
        for side in link.sides
    )


WEIGHTS: dict[Callable[[World, Stream], None], int] = {
    World.a_deliver: 66,
    World.a_finish: 52,
    World.a_decide: 30,
    World.a_propose: 24,
    World.a_propose_many: 3,
    World.a_deliver_much: 6,
    World.a_connect: 12,
    World.a_request: 4,
    World.a_start: 8,
    World.a_advance: 6,
    World.a_look: 4,
    World.a_recover: 6,
    World.a_attach: 4,
    World.a_drop: 3,
    World.a_reconnect: 2,
    World.a_crash: 4,
    World.a_fail: 3,
    World.a_copy: 2,
    World.a_set_back: 3,
    World.a_found: 1,
    World.a_declare: 1,
    World.a_deposit: 2,
    World.a_lapse: 2,
    World.a_exit: 2,
    World.a_close: 2,
    World.a_challenge: 1,
    World.a_settle: 1,
}
# the first byte of a run gives it a mood: what happens much oftener in it than in others
MOODS: tuple[dict[Callable[[World, Stream], None], int], ...] = (
    {},
    {World.a_copy: 8, World.a_set_back: 8, World.a_recover: 5, World.a_advance: 4, World.a_found: 3},
    {World.a_copy: 3, World.a_set_back: 6, World.a_recover: 8, World.a_advance: 6, World.a_deliver_much: 4},
    {World.a_copy: 6, World.a_set_back: 6, World.a_crash: 6, World.a_start: 3, World.a_connect: 2},
    {World.a_crash: 6, World.a_fail: 6, World.a_start: 4, World.a_connect: 2},
    {World.a_drop: 8, World.a_reconnect: 8, World.a_attach: 5, World.a_connect: 2},
    {World.a_close: 8, World.a_lapse: 6, World.a_exit: 4, World.a_advance: 3, World.a_crash: 2},
    {World.a_propose_many: 8, World.a_deliver_much: 4, World.a_decide: 2},
    {World.a_challenge: 6, World.a_settle: 6, World.a_look: 4, World.a_deposit: 4, World.a_exit: 4},
)


def _table(mood: dict[Callable[[World, Stream], None], int]) -> tuple[Callable[[World, Stream], None], ...]:
    """256 actions, so that a byte chooses one."""
    weighted = {action: weight * mood.get(action, 1) for action, weight in WEIGHTS.items()}
    total = sum(weighted.values())
    table = [action for action, weight in weighted.items() for _ in range(max(1, weight * 256 // total))]
    return tuple((*table, *[World.a_deliver] * 256)[:256])


TABLES = tuple(map(_table, MOODS))


def run_bytes(data: bytes, hooks: Hooks | None = None, counts: Counter[str] | None = None) -> int:
    """One whole run, healed at its end; how many actions it took.

    Raises:
        Violation: what was found. Any other ChanneldError that escapes is found too.
    """
    world = World(hooks, counts)
    try:
        actions = world.run(data)
        world.heal()
    except ChanneldError as error:
        raise Violation(f"an error escaped: {error!r}") from error
    return actions
