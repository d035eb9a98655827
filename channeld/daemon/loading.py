"""From durable records to channels at work, at the start of a daemon.

Rules: everything is checked against what it should follow from; what does not fit together stops the start, since a
desk that signs from records it does not understand may sign two states of one version.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from channeld.core import records, wire
from channeld.core.channel import DISPUTED, Channel, CoSigned, fresh, restore, restore_exit
from channeld.core.channel.exits import EXIT_DOCUMENT
from channeld.core.channel.recovery import BASE_DOCUMENT
from channeld.core.channel.values import LOST_DOCUMENT
from channeld.core.codec import decode
from channeld.core.crypto import checksum_address
from channeld.core.eip712 import Domain, body_hash
from channeld.core.errors import InternalError, SetupError
from channeld.core.journal import replay
from channeld.core.operations import decode_batch
from channeld.core.state import State, genesis
from channeld.core.transition import Applied, apply
from channeld.daemon.offer_book import LANDED_DOCUMENT, OFFER_DOCUMENT
from channeld.desk.offers import OfferRecord, Status, operation_key

if TYPE_CHECKING:
    from channeld.core.terms import Terms
    from channeld.daemon.actor import Actor


class OtherKeyError(SetupError):
    """The keystore's key is not the one that signs for this desk's channels."""

    code = 7052
    advice = "Put back the keystore.json that belongs to this data directory; another key needs a directory of its own."


def check_key(record: records.ChannelRecord, terms: Terms, ours: bytes) -> None:
    """Refuse to start with a key that is not the channel's.

    Raises:
        OtherKeyError: naming both addresses.
    """
    signer = terms.party(record.side).signer
    if signer != ours:
        raise OtherKeyError(
            f"channel 0x{record.channel.hex()[:8]} is signed for by {checksum_address(signer)}; the keystore holds "
            f"{checksum_address(ours)}"
        )


async def load_channel(store: records.Store, record: records.ChannelRecord, ours: bytes) -> tuple[Channel, int]:
    """The channel of a record as it was durable, and the time (milliseconds) of its newest batch.

    Raises:
        OtherKeyError: another key signs for it.
        StoreError, InternalError: its records are missing, damaged, or do not fit together.
    """
    terms = records.decode_terms(record.terms)
    check_key(record, terms, ours)
    start = fresh(Domain(record.chain_id, record.adjudicator), terms, record.channel, record.side)
    snapshot = await store.load_channel(record.channel)
    latest, last_time_ms = await _latest(store, record.channel, snapshot)
    proposals = tuple(m for m in map(_unpacked, snapshot.proposals) if isinstance(m, wire.Propose))
    voiding = [_unpacked(m) for m in snapshot.rejections]
    rejection = next((m for m in reversed(voiding) if isinstance(m, wire.Reject)), None)
    leap = next((m for m in reversed(voiding) if isinstance(m, wire.Recover)), None)
    lost = await store.document(LOST_DOCUMENT, record.channel.hex())
    channel = restore(start, latest, proposals, rejection, (), recovery=leap, lost=lost)
    exits = []
    for key, raw in await store.documents(EXIT_DOCUMENT, record.channel.hex()):
        made = await _transition(store, terms, record.channel, int(decode(raw)[0]))
        exits.append(restore_exit(channel, key.split("/")[-1], raw, made))
    channel = replace(channel, exits=tuple(exits))
    if record.status in {"disputed", "closed"}:
        channel = replace(channel, frozen=DISPUTED if record.status == "disputed" else "the channel has ended on chain")
    return channel, last_time_ms


async def load_offers(store: records.Store, actor: Actor) -> None:
    """Give an actor its offers back; the sequencer puts what is agreed and in no proposal yet in line again."""
    for _, raw in await store.documents(OFFER_DOCUMENT, actor.id.hex()):
        actor.offers.restore(OfferRecord.unpack(raw))
    for key, raw in await store.documents(LANDED_DOCUMENT, actor.id.hex()):
        actor.offers.restore_landed(key, raw)
    if not actor.channel.sequencer or actor.channel.frozen:
        return
    proposed = {operation_key(op) for half in actor.channel.proposals for op in half.applied.batch.operations}
    for offer in actor.offers:
        if offer.status is Status.AGREED and offer.key not in proposed:
            actor.enqueue_agreed(offer)


async def _latest(
    store: records.Store, channel: bytes, snapshot: records.ChannelSnapshot
) -> tuple[CoSigned | None, int]:
    state = snapshot.state
    if state is None:
        return None, 0
    if state.body is None:
        raise InternalError(f"the body of version {state.version} is missing from the store")
    body = records.decode_body(state.body)
    if body_hash(body) != state.body_hash:
        raise InternalError(f"the body of version {state.version} in the store is not the one that was signed")
    newest = CoSigned(State(channel, state.version, body), state.body_hash, state.signature_a, state.signature_b)
    batches = await store.batches(channel, state.version, state.version)
    return newest, decode_batch(batches[0].raw).time_ms if batches else 0


async def _transition(store: records.Store, terms: Terms, channel: bytes, version: int) -> Applied:
    """The transition that made a version, replayed from the journal."""
    start, journal = await journal_of(store, channel, version)
    if not journal or journal[-1][0] != version:
        raise InternalError(f"the batch of version {version} is missing from the store")
    before = await asyncio.to_thread(replay, terms, channel, journal[:-1], start)
    return apply(terms, before, journal[-1][1], version)


async def journal_of(
    store: records.Store, channel: bytes, version: int = records.MAX_VERSION
) -> tuple[State, list[tuple[int, bytes]]]:
    """The state that a replay up to a version begins from, and the batches from there on.

    It is version 0, or the last state that was taken from elsewhere because this desk's records had lost those before.
    """
    start = genesis(channel)
    for key, raw in await store.documents(BASE_DOCUMENT, channel.hex()):
        number = int(key.split("/")[-1])
        if number <= version:
            start = State(channel, number, records.decode_body(raw))
    return start, [(b.version, b.raw) for b in await store.batches(channel, start.version + 1, version)]


def _unpacked(message: records.MessageRecord) -> wire.Message:
    return wire.unpack(message.raw)
