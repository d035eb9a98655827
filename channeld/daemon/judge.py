"""The follower's judgement of a proposal: clock, own requests, policy, chain, marks, margin. Reads; changes nothing.

Rules: docs/protocol.md, section 9, "what a follower checks". The first thing that does not hold is the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from channeld.core.acceptance import check_acceptance
from channeld.core.errors import RuleError
from channeld.core.operations import Deposit, Mark, Operation, Trade
from channeld.desk.marks import MarkRefusedError, check_mark
from channeld.desk.offers import Status, operation_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from channeld.core.state import State
    from channeld.core.terms import Terms
    from channeld.core.transition import Applied
    from channeld.daemon.prices import PriceBook
    from channeld.desk.bands import Bands
    from channeld.desk.offers import OfferRecord
    from channeld.desk.own_vols import OwnVols

CLOCK_TOLERANCE_MS = 2_000


class WrongTimeError(RuleError):
    """A batch's time is more than two seconds from our clock, or before its predecessor's."""

    code = 2213
    advice = "Synchronise both machines' clocks."


class NotRequestedError(RuleError):
    """The sequencer put an operation under our name that we did not ask for, or asked for once already."""

    code = 2214


class NotAgreedError(RuleError):
    """The sequencer put a trade into a batch that we have not agreed to."""

    code = 2215
    advice = "Trades need the other side's agreement first: offer it, and wait for the answer."


class DepositNotFinalError(RuleError):
    """A DEPOSIT acknowledges more than is final on our view of the chain."""

    code = 2216
    advice = "Wait for the confirmations that both desks have configured."


@dataclass(frozen=True, slots=True)
class View:
    """What the follower knows when it judges.

    deposits: totals of a and b final on chain, units. bands: what it signs in a MARK, the present and those told.
    own: its own vols.
    """

    now_ms: int
    last_time_ms: int
    side: int
    offers: Mapping[bytes, OfferRecord]
    deposits: tuple[int, int]
    bands: tuple[Bands, ...]
    own: OwnVols


async def judge(terms: Terms, before: State, applied: Applied, view: View, book: PriceBook) -> None:
    """Raise the reason why a proposal is not signed; return where it may be.

    Raises:
        RuleError, OracleError: with its own code; the proposal is to be rejected with it.
    """
    batch = applied.batch
    if abs(batch.time_ms - view.now_ms) > CLOCK_TOLERANCE_MS:
        raise WrongTimeError(f"the batch is {batch.time_ms - view.now_ms} ms from our clock")
    if batch.time_ms < view.last_time_ms:
        raise WrongTimeError("the batch is older than its predecessor")
    used: set[bytes] = set()
    traded = False
    for operation in batch.operations:
        key = operation_key(operation)
        _check_operation(operation, key, view)
        if key in used and (operation.origin == view.side or isinstance(operation, Trade)):
            raise NotAgreedError("one offer stands twice in a batch")
        used.add(key)
        traded = traded or isinstance(operation, Trade)
        if isinstance(operation, Mark):
            if traded:
                # it would be of another book than the one before the batch, which is what it is judged by
                raise MarkRefusedError("a MARK must stand before the trades of its batch")
            oldest = view.now_ms // 1000 - terms.oracle.max_age
            if operation.time < oldest:
                raise WrongTimeError(f"the MARK is of {operation.time}, older than the terms' maxAge")
            material = await book.material(terms, before.body, operation.time)
            check_mark(terms, before.body, operation, material, view.bands)
    prices = await book.prices(terms, before.body, view.now_ms)
    check_acceptance(terms, before.body, applied.state.body, batch.operations, prices)
    view.own.check(terms, before.body, applied.state.body, batch.operations, prices)


def _check_operation(operation: Operation, key: bytes, view: View) -> None:
    offer = view.offers.get(key)
    match operation:
        case Deposit() | Mark() if operation.origin == view.side:
            raise NotRequestedError("the sequencer's own operation under our name")
        case Deposit(_, total_a, total_b):
            final_a, final_b = view.deposits
            if total_a > final_a or total_b > final_b:
                raise DepositNotFinalError(
                    f"the batch acknowledges {total_a} and {total_b} units; final here are {final_a} and {final_b}"
                )
        case Mark():
            return
        case _ if operation.origin == view.side:
            if offer is None or not offer.ours or offer.status not in {Status.PENDING, Status.AGREED}:
                raise NotRequestedError("an operation under our name that we did not ask for")
            if view.now_ms > offer.valid_until_ms:
                raise NotRequestedError("an operation of ours whose life is over")
        case Trade():
            if offer is None or offer.ours or offer.status is not Status.AGREED:
                raise NotAgreedError("a trade that we have not agreed to")
            if view.now_ms > offer.valid_until_ms:
                raise NotAgreedError("a trade whose offer's life is over")
        case _:
            # what the sequencer takes from its own side needs no agreement: a payment to us, a withdrawal within its
            # margin, a close of an empty book
            return
