"""What this desk has its peers keep for it, and keeps for them: blobs given, kept, given back. docs/protocol.md, 9.13.

Rules: of each peer one blob is kept, the newest, of bounded size, written at most once in KEEP_AGAIN_S: a peer can fill
no disk. Ours are made off the hot path, of what is durable, at most once in `peers.backup_interval` and only after
changes; a number is durable before its blob is sent, and rises whatever this desk has forgotten, since it follows the
clock. What a peer gives back opens with our key or counts for nothing. A blob that knows of a higher signature than our
records proves that they are old: the loss is declared before anything of this session is answered.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from channeld.core import records, wire
from channeld.core.channel import DeclareLoss, Found
from channeld.core.channel.values import LostStatesError, ProtocolFaultError
from channeld.core.codec import decode, encode
from channeld.core.errors import ChanneldError, Fault
from channeld.daemon.backup_file import BackupError
from channeld.daemon.blob_format import (
    SALT_BYTES,
    Content,
    KeptChannel,
    NoBlobError,
    open_blob,
    seal_blob,
)
from channeld.daemon.chain_desk import OPENER

if TYPE_CHECKING:
    from channeld.core.channel import CoSigned
    from channeld.daemon.actor import Actor
    from channeld.daemon.node import Node

log = structlog.get_logger(__name__)

OURS, THEIRS = "blob_given", "blob_kept"
OF_BLOBS = frozenset({wire.GiveBlob, wire.BlobKept, wire.ReturnBlob, wire.Sync})
KEEP_AGAIN_S = 10.0
MOST_MISSES = 5
_NUMBER = 8


class OldBlobError(BackupError):
    """A peer gives back an older blob than it has said to keep."""

    code = 1492
    fault = Fault.PEER
    advice = "It has lost its own records, or withholds the newer one: rely on other copies, and ask its operator."


class ForgottenChannelError(BackupError):
    """A blob that a peer gives back holds a channel that this desk does not know."""

    code = 1493
    fault = Fault.DISK
    advice = "This database is an old copy. Stop the daemon and run `channeld backup from-peer`."


@dataclass
class _Peer:
    """Numbers of the blobs between this desk and a peer; 0 for none."""

    given: int = 0
    kept: int = 0
    waiting: bool = False
    misses: int = 0
    theirs: int = 0
    taken_s: float = float("-inf")
    returned: bool = False
    missed: bool = False


@dataclass
class PeerBlobs:
    """The blobs of one node."""

    node: Node
    hot_key: bytes = field(repr=False)
    _peers: dict[bytes, _Peer] = field(default_factory=dict)
    _due: set[bytes] = field(default_factory=set)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def load(self) -> None:
        """Read the numbers that are durable."""
        for key, raw in await self.node.store.documents(OURS):
            one = self._of(bytes.fromhex(key))
            one.given, one.kept = decode(raw)
        for key, raw in await self.node.store.documents(THEIRS):
            self._of(bytes.fromhex(key)).theirs = int.from_bytes(raw[:_NUMBER], "big")

    def _of(self, peer: bytes) -> _Peer:
        return self._peers.setdefault(peer, _Peer())

    def kept_age_s(self, peer: bytes) -> float | None:
        """Seconds since the blob was made that a peer has said to keep; None where it keeps none."""
        kept = self._of(peer).kept
        return (self.node.clock.now_ms() - kept) / 1000 if kept else None

    # ------------------------------------------------------------------------------------------------- ours

    def touch(self, channel: bytes) -> None:
        """A channel has changed: its peer gets a new blob soon. Costs nothing where it is called."""
        actor = self.node.actors.get(channel)
        if actor is not None:
            self._due.add(actor.peer)
            self._wake.set()

    async def run(self) -> None:
        """Give what is due, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            given = False
            for peer in sorted(self._due):
                try:
                    given |= await self._give(peer)
                except ChanneldError as error:
                    given = True  # and tried again as if it had been
                    log.warning("no blob was given", peer=peer.hex()[:8], code=error.code, why=str(error))
                    await self._tell(peer, error)
                except Exception:
                    log.exception("giving a blob failed", peer=peer.hex()[:8])
            if not given:
                continue
            await asyncio.sleep(self.node.config.peers.backup_interval)
            self._due |= {peer for peer, one in self._peers.items() if one.waiting}
            if any(self.node.hub.connected(peer) for peer in self._due):
                self._wake.set()

    async def _give(self, peer: bytes) -> bool:
        """Seal what this peer should keep, and send it; whether it was. Without a session it stays due."""
        node, one = self.node, self._of(peer)
        if not node.hub.connected(peer) or one.misses >= MOST_MISSES:
            return False
        self._due.discard(peer)
        actors = [a for a in node.actors.values() if a.peer == peer and a.record.status != "closed"]
        if not actors:
            one.waiting = False
            return False
        rows = [await self._row(actor) for actor in actors]
        now = node.clock.now_ms()
        number = max(one.given + 1, now)
        peers = tuple((address, known["name"], known["url"]) for address, known in node.peers.items())
        path = node.data / "deployment.json"
        deployment = path.read_text(encoding="utf-8") if path.is_file() else ""

        def made() -> bytes:
            content = Content(now, node.config.desk.name, deployment, peers, tuple(_kept(*row) for row in rows))
            salt = secrets.token_bytes(SALT_BYTES)
            return seal_blob(self.hot_key, salt, node.signer.address, peer, number, content)

        blob = await asyncio.to_thread(made)
        await self._number(peer, number, one.kept)
        one.waiting = True
        await node.send(peer, wire.GiveBlob(number, blob))
        return True

    async def _row(self, actor: Actor) -> tuple[records.ChannelRecord, bool, int, CoSigned]:
        store = self.node.store
        latest = actor.channel.latest
        signed = await store.highest_signed(actor.id, records.SIGNED_STATE)
        opener = actor.record.status == "opening" and await store.document(OPENER, actor.id.hex()) is not None
        return actor.record, opener, signed.version if signed else 0, latest

    async def _number(self, peer: bytes, given: int, kept: int) -> None:
        await self.node.store.commit([records.PutDocument(OURS, peer.hex(), encode([given, kept]))])
        one = self._of(peer)
        one.given, one.kept = given, kept

    # ------------------------------------------------------------------------------------------------- sessions

    async def connected(self, peer: bytes) -> None:
        """A session begins: what is kept for the peer goes back before anything else is said."""
        one = self._of(peer)
        one.returned = one.missed = False
        raw = await self.node.store.document(THEIRS, peer.hex())
        if raw is not None:
            number = int.from_bytes(raw[:_NUMBER], "big")
            await self.node.send(peer, wire.ReturnBlob(number, raw[_NUMBER:]))
        self._due.add(peer)
        self._wake.set()

    def lost(self, peer: bytes) -> None:
        """The session is over. A program that ends it at each blob does not know them: it is not asked for ever."""
        one = self._of(peer)
        one.misses += one.waiting
        if one.misses == MOST_MISSES:
            log.warning("the peer's program keeps no blobs; none is given until the next start", peer=peer.hex()[:8])

    async def takes(self, peer: bytes, message: wire.Message) -> bool:
        """Handle a message of one of OF_BLOBS; whether that is all that it is for.

        Raises:
            ProtocolFaultError: a second blob given back in one session.
            LostStatesError: the blob proves that our records are old; they are declared so, and the session must end.
        """
        one = self._of(peer)
        match message:
            case wire.GiveBlob(number, blob):
                await self._keep(peer, number, blob)
            case wire.BlobKept(number):
                if one.waiting and number == one.given:
                    one.waiting, one.misses = False, 0
                    await self._number(peer, number, number)
            case wire.ReturnBlob(number, blob):
                if one.returned:
                    raise ProtocolFaultError("the peer gives our blob back twice in one session")
                one.returned = True
                await self._returned(peer, number, blob)
            case _:
                # its states: what it keeps for us must have come before
                if one.kept and not one.returned and not one.missed:
                    one.missed = True
                    why = NoBlobError(f"{self.node.name(peer)} does not give back the blob that it kept")
                    await self._tell(peer, why)
                return False
        return True

    async def _keep(self, peer: bytes, number: int, blob: bytes) -> None:
        """Keep the peer's blob in place of its last one. One that comes too soon is not kept; the peer tries again."""
        one, now = self._of(peer), asyncio.get_running_loop().time()
        if number > one.theirs:
            if now - one.taken_s < min(KEEP_AGAIN_S, self.node.config.peers.backup_interval):
                return
            one.taken_s = now
            raw = number.to_bytes(_NUMBER, "big") + blob
            await self.node.store.commit([records.PutDocument(THEIRS, peer.hex(), raw)])
            one.theirs = number
        if number == one.theirs:
            await self.node.send(peer, wire.BlobKept(number))

    async def _returned(self, peer: bytes, number: int, blob: bytes) -> None:
        node, one = self.node, self._of(peer)
        try:
            content = await asyncio.to_thread(open_blob, self.hot_key, node.signer.address, peer, number, blob)
        except BackupError as error:
            await self._tell(peer, error)
            return
        if number < one.kept:
            older = (one.kept - number) / 1000
            await self._tell(
                peer, OldBlobError(f"{node.name(peer)} gives back a blob {older:.0f} s older than it said to keep")
            )
        elif number > one.kept:
            await self._number(peer, max(number, one.given), number)
        lost = False
        for kept in content.channels:
            actor = node.actors.get(kept.record.channel)
            if actor is not None:
                lost |= await self._held_against(actor, kept)
            elif number >= one.kept:
                known = f"{node.name(peer)} keeps a channel 0x{kept.record.channel.hex()[:8]} that is not known here"
                await self._tell(peer, ForgottenChannelError(known))
        if lost:
            raise LostStatesError(f"the blob that {node.name(peer)} kept knows of states that our records have not")

    async def _held_against(self, actor: Actor, kept: KeptChannel) -> bool:
        """Whether the blob shows that the channel's records are old, or a state to a channel that knows it already."""
        if actor.record.status == "closed":
            return False
        durable = await self.node.store.highest_signed(actor.id, records.SIGNED_STATE)
        forgotten = kept.signed > (durable.version if durable else 0) and not actor.channel.lost
        higher = kept.state is not None and kept.state.version > actor.channel.latest.state.version
        if not forgotten and not higher:
            return False
        # losses are declared, and states from elsewhere taken, between sessions; the next one begins with them
        await actor.session(up=False)
        if forgotten:
            log.critical("states are lost", channel=actor.id.hex()[:8], signed=kept.signed)
            reason = f"the blob at the peer knows that this desk has signed version {kept.signed}; its records do not"
            await actor.feed(DeclareLoss(reason))
        if kept.state is not None and kept.state.body is not None:
            state = kept.state
            await actor.feed(Found(state.version, kept.state.body, state.signature_a, state.signature_b))
        return True

    async def _tell(self, peer: bytes, error: ChanneldError) -> None:
        message = f"backup at {self.node.name(peer)}: {error}"
        await self.node.emit("alert", None, severity="warning", cause="peer blob", code=error.code, message=message)


def _kept(record: records.ChannelRecord, opener: bool, signed: int, latest: CoSigned) -> KeptChannel:  # noqa: FBT001 - a row
    state = latest.state
    if not state.version:
        return KeptChannel(record, opener, signed, None)
    body = records.encode_body(state.body)
    shown = records.CosignedState(
        record.channel, state.version, latest.body_hash, latest.signature_a, latest.signature_b, body
    )
    return KeptChannel(record, opener, signed, shown)
