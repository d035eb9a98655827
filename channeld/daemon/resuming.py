"""Ending a dispute by agreement: both sign Resume, either takes it to the chain, and trading goes on once it is final.

Rules (docs/protocol.md, 9.10): a Resume is signed one at a time, at most ten minutes ahead, while the version on record
is our newest co-signed one or a proposal of ours. What is half-signed stays what it was before, a firm offer of its
signer: the exchange of the session that follows settles it. Our signature is durable before it is sent. Where both
offer at once, the sequencer's counts.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import structlog

from channeld.chain.contracts import Phase
from channeld.core import records, wire
from channeld.core.channel import DISPUTED, DISPUTING
from channeld.core.crypto import SignatureError, verify
from channeld.core.eip712 import Resume, resume_digest
from channeld.core.errors import ChanneldError, RuleError
from channeld.core.margin import MissingPriceError

if TYPE_CHECKING:
    from channeld.daemon.actor import Actor
    from channeld.daemon.disputes import Seen
    from channeld.daemon.node import Node

log = structlog.get_logger(__name__)

RESUME = "resume"
LIFETIME_S = 600
LEAST_S = 60
AGAIN_MS = 5_000
TURN_S = 30


class CannotResumeError(RuleError):
    """The dispute cannot be ended by agreement now."""

    code = 2404
    advice = "`channeld dispute status` tells where it stands; a dispute ends by settlement otherwise."


class Resuming:
    """The Resumes of one node's channels."""

    def __init__(self, node: Node) -> None:
        """Nothing is known before `load`."""
        self._node = node
        self._offers: dict[bytes, dict[str, Any]] = {}
        self._again_ms: dict[bytes, int] = {}

    async def load(self) -> None:
        """Read what was signed and not used."""
        for key, raw in await self._node.store.documents(RESUME):
            self._offers[bytes.fromhex(key)] = json.loads(raw)

    # ------------------------------------------------------------------------------------------------- rules

    def _check(self, actor: Actor, seen: Seen | None, dispute: int | None) -> Seen:
        """The dispute, where it may be ended by agreement.

        Raises:
            CannotResumeError: naming what stands in the way.
        """
        known = self._node.chain.known.get(actor.id)
        if known is None or known.phase is not Phase.DISPUTED or seen is None:
            raise CannotResumeError("no dispute runs")
        if self._node.chain.stale(actor.id):
            raise CannotResumeError(f"nothing is signed now: {self._node.chain.stale(actor.id)}")
        if dispute is not None and dispute != seen.number:
            raise CannotResumeError(f"dispute {dispute} is meant, and {seen.number} runs")
        now = self._node.clock.now_ms() // 1000
        if now > seen.view.deadline - LEAST_S:
            raise CannotResumeError("the challenge period is all but over")
        channel = actor.channel
        if actor.broken is not None or channel.frozen not in (DISPUTED, DISPUTING):
            raise CannotResumeError(f"the channel is frozen for another reason: {channel.frozen}")
        ours = {(half.version, half.body_hash) for half in channel.proposals}
        ours.add((channel.latest.state.version, channel.latest.body_hash))
        if (seen.view.version, seen.body_hash) not in ours:
            raise CannotResumeError(
                f"version {seen.view.version} is on record, and {channel.latest.state.version} is our newest"
            )
        if channel.lost or channel.recovery is not None:
            raise CannotResumeError("this side has lost states, or is going on above them")
        if channel.draft is not None or channel.closing is not None:
            raise CannotResumeError("a signature is being made, or a close is agreed")
        return seen

    async def solvent(self, actor: Actor) -> bool:
        """Whether both parties stand at initial margin by our own figures."""
        body = actor.state.body
        if not body.positions:
            return True
        margin = self._node.margin
        prices = await margin.prices(actor, body, self._node.clock.now_ms())
        if prices is None:
            return False
        try:
            return all(standing.equity >= standing.initial for standing in margin.pair(actor, body, prices))
        except MissingPriceError:
            return False

    # ------------------------------------------------------------------------------------------------- acting

    async def agree(self, actor: Actor) -> dict[str, Any]:
        """Sign a Resume: the peer's where it has offered one that lives, else one of our own.

        Raises:
            CannotResumeError: it cannot be signed now.
            StoreError: it could not be kept; nothing was sent.
        """
        seen = self._check(actor, self._node.chain.disputes.seen.get(actor.id), None)
        now = self._node.clock.now_ms() // 1000
        held = self._live(actor, seen, now)
        until = int(held["valid_until"]) if held else min(now + LIFETIME_S, seen.view.deadline - 1)
        document = Resume(actor.id, seen.number, until)
        await self._sign(actor, document, held)
        complete = self._complete(actor)
        return {"dispute": seen.number, "valid_until": until, "status": "both have signed" if complete else "offered"}

    def _live(self, actor: Actor, seen: Seen, now: int) -> dict[str, Any] | None:
        held = self._offers.get(actor.id)
        return held if held and held["dispute"] == seen.number and now <= int(held["valid_until"]) else None

    async def _sign(self, actor: Actor, document: Resume, held: dict[str, Any] | None) -> None:
        side = "ab"[actor.channel.side]
        digest = resume_digest(actor.channel.domain, document)
        async with actor.lock:
            # between inputs: nothing becomes outstanding while it is signed
            self._check(actor, self._node.chain.disputes.seen.get(actor.id), document.dispute)
            signature = await self._node.signer.sign(actor.id, records.SIGNED_RESUME, document.valid_until, digest)
            offer = {**(held or {}), "dispute": document.dispute, "valid_until": document.valid_until}
            offer[side] = signature.hex()
            own = records.PutSigned(actor.id, document.valid_until, digest, signature, records.SIGNED_RESUME)
            await self._node.store.commit([own, self._write(actor.id, offer)])
            self._offers[actor.id] = offer
        await self._send(actor)

    def _write(self, channel: bytes, offer: dict[str, Any]) -> records.PutDocument:
        return records.PutDocument(RESUME, channel.hex(), json.dumps(offer).encode())

    async def _send(self, actor: Actor) -> None:
        offer = self._offers.get(actor.id)
        ours = offer.get("ab"[actor.channel.side]) if offer else None
        if offer is None or not ours:
            return
        await self._node.send(
            actor.peer,
            wire.ResumeOffer(actor.id, offer["dispute"], offer["valid_until"], bytes.fromhex(ours)),
        )

    async def resend(self, actor: Actor) -> None:
        """At a new session: our signature, where it may still be wanted."""
        offer = self._offers.get(actor.id)
        if offer is not None and self._node.clock.now_ms() // 1000 <= int(offer["valid_until"]):
            await self._send(actor)

    def _complete(self, actor: Actor) -> bool:
        offer = self._offers.get(actor.id, {})
        return bool(offer.get("a") and offer.get("b"))

    async def received(self, actor: Actor, message: wire.ResumeOffer) -> None:
        """The peer's signature: kept where it is right and of this dispute; agreed to by itself where so configured.

        Raises:
            CannotResumeError: the signature is wrong.
            StoreError: it could not be kept.
        """
        now = self._node.clock.now_ms() // 1000
        document = Resume(actor.id, message.dispute, message.valid_until)
        digest = resume_digest(actor.channel.domain, document)
        peer = 1 - actor.channel.side
        try:
            verify(digest, message.signature, actor.channel.signer(peer))
        except SignatureError as error:
            raise CannotResumeError(f"the peer's signature on a Resume is wrong: {error}") from error
        if not now <= message.valid_until <= now + LIFETIME_S + LEAST_S:
            return
        held = self._offers.get(actor.id)
        same = held is not None and (held["dispute"], held["valid_until"]) == (message.dispute, message.valid_until)
        ours_lives = held is not None and bool(held.get("ab"[actor.channel.side])) and now <= int(held["valid_until"])
        if not same and ours_lives and actor.channel.sequencer:
            return
        offer = {**(held if same and held else {}), "dispute": message.dispute, "valid_until": message.valid_until}
        offer["ab"[peer]] = message.signature.hex()
        await self._node.store.commit([self._write(actor.id, offer)])
        self._offers[actor.id] = offer
        if not offer.get("ab"[actor.channel.side]):
            await self._node.emit("resume_offered", actor.id, dispute=message.dispute, valid_until=message.valid_until)

    async def look(self, actor: Actor, seen: Seen, now_ms: int) -> None:
        """What is due: take a complete Resume to the chain; offer or agree to one by itself where so configured."""
        offer = self._live(actor, seen, now_ms // 1000)
        if offer is not None and self._complete(actor):
            if not actor.channel.sequencer and now_ms // 1000 < int(offer["valid_until"]) - LIFETIME_S + TURN_S:
                return  # the sequencer's turn first: one transaction is enough
            signatures = bytes.fromhex(offer["a"] + offer["b"])
            document = Resume(actor.id, offer["dispute"], offer["valid_until"])
            chain = self._node.chain
            chain.start(actor.id, "resume", chain.disputes.resume(actor, document, signatures))
            return
        signed = offer is not None and bool(offer.get("ab"[actor.channel.side]))
        wanted = offer is not None or (actor.channel.sequencer and bool(seen.calls) and actor.channel.synced)
        again = self._again_ms.get(actor.id, 0)
        if signed or not wanted or self._node.config.margin.auto_resume != "agree" or now_ms < again:
            return
        if not await self.solvent(actor):
            return
        self._again_ms[actor.id] = now_ms + AGAIN_MS
        try:
            await self.agree(actor)
        except ChanneldError as error:
            log.info("not resumed", channel=actor.id.hex()[:8], why=str(error), code=error.code)
