"""Claiming what a settlement could not push."""

from __future__ import annotations

from typing import TYPE_CHECKING

from channeld.core.crypto import checksum_address
from channeld.core.wad import format_decimal
from channeld.daemon.emergency.case import NothingToDoError, Planned

if TYPE_CHECKING:
    from channeld.daemon.emergency.case import Case


async def plan_claim(case: Case, payee: bytes, to: bytes) -> Planned:
    """Send what is held for a payee to an address of its choice, itself unless one is given.

    Raises:
        NothingToDoError: nothing is held.

    """
    terms = case.bundle.terms
    held = await case.adjudicator.held(terms.collateral, payee)
    if not held:
        raise NothingToDoError(f"nothing is held for {checksum_address(payee)}")
    target = to or payee
    amount = format_decimal(held, terms.decimals)
    return Planned(f"claim {amount} to {checksum_address(target)}", case.adjudicator.claim(terms.collateral, target))
