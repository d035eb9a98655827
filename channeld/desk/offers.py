"""Offers: operations that need the other side's agreement before they are put into a state.

Rules: an offer is a one-operation batch whose salt is its id and whose time ends its life; it is agreed to once, in
time, and matched to what is proposed by the operation's exact bytes. Trades carry their offer's id at the head of their
reference, transfers in their memo, so no two are alike. Records survive restarts; a repeated offer changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from channeld.core.codec import decode, encode
from channeld.core.errors import InputError, PeerError
from channeld.core.operations import Batch, Operation, Trade, Transfer, decode_batch, encode_batch, encode_operation

ID_BYTES = 16
MAX_LIFETIME_MS = 600_000
DEFAULT_LIFETIME_MS = 60_000


class BadOfferError(PeerError):
    """An offer that is malformed, too long-lived, or does not come from its own side."""

    code = 3320


class UnknownOfferError(InputError):
    """There is no such offer waiting."""

    code = 1251
    advice = "List what waits with `channeld trade offers`."


class OfferRefusedError(PeerError):
    """The peer refused an offer, or its life ended before the peer agreed."""

    code = 3321
    advice = "Ask the counterparty, change the price, or trade within its limits."


class Status(StrEnum):
    """Where an offer stands."""

    PENDING = "pending"
    AGREED = "agreed"
    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True)
class OfferRecord:
    """An offer as one side keeps it. `raw` is the one-operation batch; `ours` says who made it.

    Without slots, so that what is decoded is kept: offers are matched to every operation that is signed.
    """

    raw: bytes
    ours: bool
    status: Status = Status.PENDING

    @cached_property
    def batch(self) -> Batch:
        """The one-operation batch."""
        return decode_batch(self.raw)

    @property
    def id(self) -> bytes:
        """16 bytes."""
        return self.batch.salt

    @property
    def operation(self) -> Operation:
        """The operation offered."""
        return self.batch.operations[0]

    @property
    def valid_until_ms(self) -> int:
        """The last millisecond of its life."""
        return self.batch.time_ms

    @cached_property
    def key(self) -> bytes:
        """The operation's exact bytes, by which it is matched."""
        return operation_key(self.operation)

    def at(self, status: Status) -> OfferRecord:
        """With another status."""
        return replace(self, status=status)

    def pack(self) -> bytes:
        """For the store."""
        return encode([self.raw, self.ours, str(self.status)])

    @classmethod
    def unpack(cls, raw: bytes) -> OfferRecord:
        """From the store."""
        batch, ours, status = decode(raw)
        return cls(batch, ours, Status(status))


def operation_key(operation: Operation) -> bytes:
    """The exact bytes of an operation."""
    return encode_operation(operation)


def identified(operation: Operation, offer_id: bytes) -> Operation:
    """The operation with the offer's id at the head of its reference or memo, where it has one."""
    if isinstance(operation, Trade):
        return replace(operation, reference=offer_id + operation.reference)
    if isinstance(operation, Transfer):
        return replace(operation, memo=offer_id + operation.memo)
    return operation


def make_offer(operation: Operation, offer_id: bytes, valid_until_ms: int) -> OfferRecord:
    """An offer of ours."""
    return OfferRecord(encode_batch(Batch(valid_until_ms, offer_id, (identified(operation, offer_id),))), ours=True)


def read_offer(raw: bytes, peer_side: int, now_ms: int) -> OfferRecord:
    """A peer's offer, checked.

    Raises:
        BadOfferError: more or fewer operations than one, the wrong origin, no id in it, or a life too long or over.
        RuleError: the batch is malformed.
    """
    record = OfferRecord(raw, ours=False)
    batch = record.batch
    if len(batch.operations) != 1 or batch.operations[0].origin != peer_side:
        raise BadOfferError("an offer holds one operation, of the side that makes it")
    operation = batch.operations[0]
    if isinstance(operation, Trade) and not operation.reference.startswith(batch.salt):
        raise BadOfferError("a trade's reference must begin with its offer's id")
    if isinstance(operation, Transfer) and not operation.memo.startswith(batch.salt):
        raise BadOfferError("a transfer's memo must begin with its offer's id")
    if batch.time_ms < now_ms:
        raise BadOfferError("the offer's life is over")
    if batch.time_ms > now_ms + MAX_LIFETIME_MS:
        raise BadOfferError(f"an offer lives at most {MAX_LIFETIME_MS // 1000} s")
    return record
