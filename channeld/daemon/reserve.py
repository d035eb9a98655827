"""The gas reserve: what the hot key must hold so that what is open can be defended on chain.

Rules: below the reserve no new risk is taken; what lowers risk, marks, withdrawals and disputes go on. Amounts are wei.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from channeld.core.crypto import checksum_address
from channeld.core.wad import format_decimal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class GasReserve:
    """Watches one address. `why` is the reason for taking no new risk now; empty where there is none."""

    def __init__(self, wei: int, emit: Callable[..., Awaitable[None]]) -> None:
        """Require so much; 0 requires nothing."""
        self.wei, self._emit = wei, emit
        self.held: int | None = None
        self.why = ""

    async def look(self, address: bytes, held: int) -> None:
        """Take note of what the address holds; an alert where it falls below, an event where it is filled again."""
        self.held, before = held, self.why
        who, figures = checksum_address(address), f"{format_decimal(held)} of {format_decimal(self.wei)} for gas"
        if held >= self.wei:
            self.why = ""
            if before:
                await self._emit("gas_reserve_filled", None, address=who, held=format_decimal(held))
            return
        self.why = f"{who} holds {figures}: too little to defend more"
        if not before:
            message = f"{who} holds {figures}; no new risk is taken until it is filled"
            await self._emit("alert", None, severity="critical", code=5210, message=message)
