"""Terms of new channels: proposed, accepted by their hash, and begun once by each side.

Rules: nothing of a peer's is opened without a person's word. Terms that cannot become a channel of ours and the peer's
are refused where they arrive, and the peer is told why. A channel is begun once, whatever is repeated or lost.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from channeld.core import records, wire
from channeld.core.channel import fresh
from channeld.core.crypto import checksum_address
from channeld.core.eip712 import Domain, channel_id
from channeld.core.errors import ChanneldError, InputError, PeerError
from channeld.daemon.chain_desk import OPENER

if TYPE_CHECKING:
    from channeld.core.terms import Terms
    from channeld.daemon.actor import Actor
    from channeld.daemon.node import Node

PROPOSAL = "terms"
MOST_WAITING = 32


class NotOurTermsError(InputError):
    """Terms that do not fit this desk, its peer or its contracts."""

    code = 1206
    advice = "Correct the terms file; both desks must agree on every field."


class UnacceptableTermsError(PeerError):
    """A peer proposed terms that can be no channel of ours and its own here."""

    code = 3332
    advice = "Compare chain, contracts, signers and every field of the terms with the peer."


class UnknownTermsError(PeerError):
    """A peer accepts terms that we have not proposed to it."""

    code = 3331
    advice = "Both desks must use the same terms, salt included: propose them again and compare the hashes."


class UnknownChannelOfPeerError(PeerError):
    """A peer speaks of a channel that this desk does not have with it."""

    code = 3330
    advice = "One desk has lost its data directory, or the terms differ: compare the channels' ids on both sides."


class Proposals:
    """The terms that wait, ours and the peers', by the id of the channel that they would make."""

    def __init__(self, node: Node) -> None:
        """Nothing known yet."""
        self._node = node
        self._lock = asyncio.Lock()
        self.known: dict[bytes, dict[str, Any]] = {}

    async def load(self) -> None:
        """Read what is durable."""
        for key, raw in await self._node.store.documents(PROPOSAL):
            self.known[bytes.fromhex(key)] = json.loads(raw)

    def _write(self, channel: bytes, proposal: dict[str, Any]) -> records.PutDocument:
        return records.PutDocument(PROPOSAL, channel.hex(), json.dumps(proposal).encode())

    async def keep(self, channel: bytes, proposal: dict[str, Any]) -> None:
        """Make a proposal, or its new status, durable."""
        await self._node.store.commit([self._write(channel, proposal)])
        self.known[channel] = proposal

    async def propose(self, peer: bytes, terms: Terms) -> bytes:
        """Propose terms to a peer; the id of the channel that they would make. Sent again at each session."""
        deployment = self._node.chain.deployment
        channel = channel_id(deployment.domain, terms)
        raw = records.encode_terms(terms)
        if channel not in self.known:
            proposal = {
                "peer": peer.hex(),
                "direction": "out",
                "status": "pending",
                "chain_id": deployment.chain_id,
                "adjudicator": deployment.adjudicator.hex(),
                "terms": raw.hex(),
            }
            await self.keep(channel, proposal)
        await self._node.send(peer, wire.ProposeTerms(deployment.chain_id, deployment.adjudicator, raw))
        return channel

    async def resend(self, peer: bytes) -> None:
        """At a new session: what may not have arrived."""
        for channel, proposal in list(self.known.items()):
            if proposal["peer"] != peer.hex():
                continue
            way = (proposal["status"], proposal["direction"])
            if way == ("pending", "out"):
                adjudicator = bytes.fromhex(proposal["adjudicator"])
                terms = bytes.fromhex(proposal["terms"])
                await self._node.send(peer, wire.ProposeTerms(proposal["chain_id"], adjudicator, terms))
            if way == ("accepted", "in") and channel in self._node.actors:
                await self._node.send(peer, wire.AcceptTerms(channel))

    async def proposed(self, peer: bytes, message: wire.ProposeTerms) -> None:
        """A peer proposes terms: kept for a person, or refused with the reason."""
        try:
            channel = self._acceptable(peer, message)
        except ChanneldError as error:
            await self._node.send(peer, wire.Failure(b"\0" * 32, error.code, str(error)[: wire.MAX_TEXT]))
            await self._node.emit("channel_proposal_refused", None, code=error.code, reason=str(error))
            return
        if channel in self.known or channel in self._node.actors:
            return
        proposal = {
            "peer": peer.hex(),
            "direction": "in",
            "status": "pending",
            "chain_id": message.chain_id,
            "adjudicator": message.adjudicator.hex(),
            "terms": message.terms.hex(),
        }
        await self.keep(channel, proposal)
        await self._node.emit("channel_proposed", channel, peer=self._node.name(peer))

    def _acceptable(self, peer: bytes, message: wire.ProposeTerms) -> bytes:
        terms = records.decode_terms(message.terms)
        domain = Domain(message.chain_id, message.adjudicator)
        if {terms.a.signer, terms.b.signer} != {self._node.signer.address, peer}:
            raise UnacceptableTermsError("the signers of the terms are not our two desks")
        self.check_domain(domain)
        channel = channel_id(domain, terms)
        waiting = sum(
            p["peer"] == peer.hex() and p["direction"] == "in" and p["status"] == "pending" for p in self.known.values()
        )
        if channel not in self.known and waiting >= MOST_WAITING:
            raise UnacceptableTermsError(f"{waiting} proposals of this peer wait for an answer already")
        return channel

    def check_domain(self, domain: Domain) -> None:
        """Raise UnacceptableTermsError where terms are of other contracts than ours; nothing where we have none yet."""
        if not self._node.chain.ready:
            return
        ours = self._node.chain.deployment.domain
        if domain != ours:
            raise UnacceptableTermsError(
                f"the terms are of the Adjudicator {checksum_address(domain.adjudicator)} on chain {domain.chain_id}; "
                f"ours is {checksum_address(ours.adjudicator)} on chain {ours.chain_id}"
            )

    async def accepted(self, peer: bytes, channel: bytes) -> None:
        """A peer accepts terms of ours: the channel begins, and we open it on chain."""
        proposal = self.known.get(channel)
        if proposal is None or proposal["direction"] != "out" or proposal["peer"] != peer.hex():
            error = UnknownTermsError("we have proposed no terms with this hash")
            await self._node.send(peer, wire.Failure(channel, error.code, str(error)))
            return
        if channel not in self._node.actors:
            await self.begin(channel, opener=True)
            await self._node.emit("channel_accepted", channel, peer=self._node.name(peer))

    async def begin(self, channel: bytes, *, opener: bool) -> Actor:
        """Both have agreed on the terms: the channel exists here, at version 0; durable together with the word."""
        node = self._node
        async with self._lock:
            if channel in node.actors:
                return node.actors[channel]
            proposal = self.known[channel]
            peer = bytes.fromhex(proposal["peer"])
            raw_terms = bytes.fromhex(proposal["terms"])
            terms = records.decode_terms(raw_terms)
            side = 0 if terms.a.signer == node.signer.address else 1
            adjudicator = bytes.fromhex(proposal["adjudicator"])
            now = node.clock.now_ms()
            record = records.ChannelRecord(
                channel, peer, side, raw_terms, proposal["chain_id"], adjudicator, "opening", now
            )
            accepted = {**proposal, "status": "accepted"}
            writes: list[records.Write] = [records.PutChannel(record), self._write(channel, accepted)]
            if opener:
                writes.append(records.PutDocument(OPENER, channel.hex(), b"1"))
            await node.store.commit(writes)
            self.known[channel] = accepted
            actor = await node.add_actor(record, fresh(Domain(record.chain_id, adjudicator), terms, channel, side))
        if not opener:
            await node.send(peer, wire.AcceptTerms(channel))
        if node.hub.connected(peer):
            await actor.session(up=True)
        return actor
