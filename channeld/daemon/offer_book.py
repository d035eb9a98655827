"""The offers of one channel: records by operation, ids, and who waits for what.

Rules: an offer's new status is taken in memory before the first await and is durable before it is acted on, so that two
callers never agree to one offer. Offers that are over are dropped once they can no longer be repeated: a lapsed one is
refused by its time alone. A peer may have so many waiting for a person, and no more.

What a caller who stops waiting leaves behind: a trade's offer stays until its life ends, and `private/offers` shows
it; the peer may agree to it until then. Other requests (transfer, withdraw, close) live just as long as their caller
waits.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from channeld.core import records
from channeld.core.errors import InputError, PeerError
from channeld.core.operations import Trade, Transfer
from channeld.desk.offers import ID_BYTES, OfferRecord, OfferRefusedError, Status, operation_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence

    from channeld.core.errors import ChanneldError
    from channeld.core.operations import Operation

log = structlog.get_logger(__name__)

OFFER_DOCUMENT = "offer"
LANDED_DOCUMENT = "landed"
MOST_WAITING = 256
FEW = 4


class SameRequestError(InputError):
    """The same operation of this desk is on its way already."""

    code = 1253
    advice = "Wait for the first one; the same withdrawal may be asked for again once that is done."


class TooManyOffersError(PeerError):
    """The peer has more offers waiting for a person than this desk keeps."""

    code = 3322
    advice = "Wait for answers, or let earlier offers lapse."


class OfferBook:
    """Offers of both sides, by the exact bytes of their operation."""

    def __init__(self, channel: bytes, commit: Callable[[Sequence[records.Write]], Awaitable[object]]) -> None:
        """Empty; `commit` makes writes durable."""
        self._channel = channel
        self._commit = commit
        self.records: dict[bytes, OfferRecord] = {}
        self._keys: dict[bytes, bytes] = {}
        self._waiting: dict[bytes, asyncio.Future[int]] = {}
        self._landed: dict[int, set[bytes]] = {}

    def __iter__(self) -> Iterator[OfferRecord]:
        """All offers."""
        return iter(list(self.records.values()))

    def restore(self, offer: OfferRecord) -> None:
        """Take a durable record at the start."""
        self.records[offer.key] = offer
        self._keys[offer.id] = offer.key

    def get(self, key: bytes) -> OfferRecord | None:
        """The offer of an operation."""
        return self.records.get(key)

    def by_id(self, offer_id: bytes) -> OfferRecord | None:
        """The offer of an id."""
        return self.records.get(self._keys.get(offer_id, b""))

    def write(self, offer: OfferRecord) -> records.PutDocument:
        """The durable record of an offer."""
        return records.PutDocument(OFFER_DOCUMENT, f"{self._channel.hex()}/{offer.id.hex()}", offer.pack())

    def find(self, operation: Operation) -> OfferRecord | None:
        """The offer of exactly this operation. Trades and payments carry its id; others are found by their bytes."""
        if isinstance(operation, Trade | Transfer):
            note = operation.reference if isinstance(operation, Trade) else operation.memo
            offer = self.by_id(note[:ID_BYTES])
            return offer if offer is not None and offer.operation == operation else None
        return self.records.get(operation_key(operation)) if self.records else None

    def done(self, operations: Sequence[Operation], version: int) -> list[records.Write]:
        """Take the offers of these operations as fulfilled; the records that belong into the commit of their state."""
        if not self.records:
            return []
        found = [offer for offer in map(self.find, operations) if offer is not None]
        fresh = [offer for offer in found if offer.status is not Status.DONE]
        for offer in fresh:
            self.records[offer.key] = offer.at(Status.DONE)
        if len(fresh) <= FEW:
            return [self.write(self.records[offer.key]) for offer in fresh]
        # one record for all of them: their own stay as they are, and are dropped when their life ends
        ids = [offer.id for offer in fresh]
        self._landed[version] = set(ids)
        return [records.PutDocument(LANDED_DOCUMENT, self._landed_key(version), b"".join(ids))]

    def _landed_key(self, version: int) -> str:
        return f"{self._channel.hex()}/{version}"

    def restore_landed(self, key: str, raw: bytes) -> None:
        """Take a durable record of offers that were fulfilled together, after those of the offers themselves."""
        ids = {raw[at : at + ID_BYTES] for at in range(0, len(raw), ID_BYTES)}
        self._landed[int(key.rsplit("/", 1)[-1])] = ids
        for offer_id in ids:
            offer = self.by_id(offer_id)
            if offer is not None:
                self.records[offer.key] = offer.at(Status.DONE)

    async def keep(self, offer: OfferRecord, also: Sequence[records.Write] = ()) -> None:
        """Make an offer, or its new status, durable; `also` in the same commit."""
        self.restore(offer)
        await self._commit([self.write(offer), *also])

    def check_room(self) -> None:
        """Raise TooManyOffersError where the peer has as many waiting as this desk keeps."""
        if len(self.records) >= MOST_WAITING:
            waiting = sum(1 for o in self.records.values() if not o.ours and o.status is Status.PENDING)
            if waiting >= MOST_WAITING:
                raise TooManyOffersError(f"{waiting} offers wait for an answer already")

    # ------------------------------------------------------------------------------------------------- waiting

    def expect(self, offer: OfferRecord) -> asyncio.Future[int]:
        """The version that will hold an offer of ours, or why none does.

        Raises:
            SameRequestError: the same operation is on its way already.
        """
        held = self._waiting.get(offer.key)
        if held is not None and not held.done():
            raise SameRequestError("the same operation is on its way already")
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.add_done_callback(retrieved)
        self._waiting[offer.key] = future
        return future

    def land(self, operations: Sequence[Operation], version: int) -> None:
        """Tell who waits for operations the version that holds them."""
        for operation in operations if self._waiting else ():
            offer = self.find(operation)
            waiter = self._waiting.pop(offer.key, None) if offer is not None else None
            if waiter is not None and not waiter.done():
                waiter.set_result(version)

    def fail(self, key: bytes, error: ChanneldError) -> None:
        """Tell who waits for an operation why it will not be."""
        waiter = self._waiting.pop(key, None)
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def fail_all(self, error: ChanneldError) -> None:
        """Tell everybody."""
        for key in list(self._waiting):
            self.fail(key, error)

    async def expire(self, now_ms: int, busy: Collection[bytes]) -> None:
        """Drop what is over, but for what is in a proposal (`busy`)."""
        over = [o for o in self.records.values() if o.valid_until_ms < now_ms and o.key not in busy]
        if not over:
            return
        drops: list[records.Write] = []
        for offer in over:
            if offer.status in {Status.PENDING, Status.AGREED}:
                self.fail(offer.key, OfferRefusedError("the offer's life ended before the peer agreed"))
            del self.records[offer.key]
            self._keys.pop(offer.id, None)
            drops.append(records.DropDocument(OFFER_DOCUMENT, f"{self._channel.hex()}/{offer.id.hex()}"))
        gone = {offer.id for offer in over}
        for version, ids in list(self._landed.items()):
            ids.difference_update(gone)
            if not ids:
                del self._landed[version]
                drops.append(records.DropDocument(LANDED_DOCUMENT, self._landed_key(version)))
        await self._commit(drops)


def retrieved(future: asyncio.Future[int]) -> None:
    """A caller may have gone; its error is logged, not lost in the loop's own complaint."""
    with contextlib.suppress(asyncio.CancelledError):
        error = future.exception()
        if error is not None:
            log.info("operation refused", why=str(error))
