"""The follower's judgement of a proposal: clock, own requests, policy, chain, marks, margin. Reads; changes nothing.

Rules: docs/protocol.md, section 9, "what a follower checks". The first thing that does not hold is the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from channeld.core.acceptance import check_acceptance, nothing_at_risk
from channeld.core.errors import RuleError
from channeld.core.operations import Deposit, Mark, Operation, Trade
from channeld.desk.marks import MarkRefusedError, check_mark
from channeld.desk.offers import Status

if TYPE_CHECKING:
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


_OPEN = frozenset({Status.PENDING, Status.AGREED})


class Offers(Protocol):
    """The offers of a channel."""

    def find(self, operation: Operation) -> OfferRecord | None:
        """The offer of exactly this operation, or None."""
        ...


@dataclass(frozen=True, slots=True)
class View:
    """What the follower knows when it judges.

    deposits: totals of a and b final on chain, units. bands: what it signs in a MARK, the present and those told.
    own: its own vols.
    """

    now_ms: int
    last_time_ms: int
    side: int
    offers: Offers
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
        offer = _check_operation(operation, view)
        if offer is not None:
            if offer.id in used:
                raise NotAgreedError("one offer stands twice in a batch")
            used.add(offer.id)
        traded = traded or type(operation) is Trade
        if type(operation) is Mark:
            if traded:
                # it would be of another book than the one before the batch, which is what it is judged by
                raise MarkRefusedError("a MARK must stand before the trades of its batch")
            oldest = view.now_ms // 1000 - terms.oracle.max_age
            if operation.time < oldest:
                raise WrongTimeError(f"the MARK is of {operation.time}, older than the terms' maxAge")
            material = await book.material(terms, before.body, operation.time)
            check_mark(terms, before.body, operation, material, view.bands)
    if nothing_at_risk(before.body, applied.state.body):
        return
    prices = await book.prices(terms, before.body, view.now_ms)
    check_acceptance(terms, before.body, applied.state.body, batch.operations, prices)
    view.own.check(terms, before.body, applied.state.body, batch.operations, prices)


def _check_operation(operation: Operation, view: View) -> OfferRecord | None:
    """The offer that an operation fulfils, where it must have one; refuses what we have not asked for or agreed to."""
    kind = type(operation)
    if operation.origin == view.side:
        if kind is Deposit or kind is Mark:
            raise NotRequestedError("the sequencer's own operation under our name")
        offer = view.offers.find(operation)
        if offer is None or not offer.ours or offer.status not in _OPEN:
            raise NotRequestedError("an operation under our name that we did not ask for")
        if view.now_ms > offer.valid_until_ms:
            raise NotRequestedError("an operation of ours whose life is over")
        return offer
    if kind is Trade:
        offer = view.offers.find(operation)
        if offer is None or offer.ours or offer.status is not Status.AGREED:
            raise NotAgreedError("a trade that we have not agreed to")
        if view.now_ms > offer.valid_until_ms:
            raise NotAgreedError("a trade whose offer's life is over")
        return offer
    if isinstance(operation, Deposit):
        final_a, final_b = view.deposits
        if operation.deposited_a > final_a or operation.deposited_b > final_b:
            raise DepositNotFinalError(
                f"the batch acknowledges {operation.deposited_a} and {operation.deposited_b} units; final here are "
                f"{final_a} and {final_b}"
            )
    # what else the sequencer takes from its own side needs no agreement: a payment to us, a withdrawal within its
    # margin, a close of an empty book
    return None
