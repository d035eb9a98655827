"""A light peer's view of the chain, and the transactions that a wallet sends.

Rules: the contracts' code is compared byte for byte before anything is signed for them. What counts is what is
`confirmations` blocks deep. A view older than `max_age_s` stops all signing. Nothing is sent from here: transactions
are made, and the wallet sends them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from channeld.chain.contracts import Adjudicator, Phase, Token
from channeld.chain.deployment import check_collateral, verify_adjudicator
from channeld.core.eip712 import Close, Domain
from channeld.core.errors import ChanneldError

if TYPE_CHECKING:
    from channeld.chain.contracts import Call, ChannelRecord
    from channeld.chain.rpc import ChainRpc
    from channeld.core.channel import Exit
    from channeld.core.terms import Terms
    from channeld.daemon.services import Clock


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction for the wallet to send. what: in words."""

    to: bytes
    data: bytes
    chain_id: int
    what: str
    value: int = 0


class ChainView:
    """What the chain says of some channels, looked at again and again."""

    def __init__(self, rpc: ChainRpc, clock: Clock, *, confirmations: int, max_age_s: float) -> None:
        """Nothing is asked yet."""
        self._rpc, self._clock = rpc, clock
        self._confirmations, self._max_age_ms = confirmations, int(max_age_s * 1000)
        self._seen_ms = 0
        self._looked = asyncio.Event()
        self.domains: dict[bytes, Domain] = {}
        self.known: dict[bytes, ChannelRecord] = {}
        self.trouble = ""

    async def check(self, domain: Domain, terms: Terms) -> None:
        """Refuse contracts that are not this release's, and collateral that is not what the terms say.

        Raises:
            ChainError: naming what differs.
        """
        await verify_adjudicator(self._rpc, domain)
        await check_collateral(self._rpc, terms)

    async def look(self) -> None:
        """Look once. Raises ChainError; the view then grows old."""
        header = await self._rpc.header()
        block = header.number - self._confirmations
        for channel, domain in list(self.domains.items()):
            if block >= 0:
                at = block if self._confirmations else "latest"
                self.known[channel] = await Adjudicator(self._rpc, domain.adjudicator).channel_record(channel, block=at)
        self._seen_ms = self._clock.now_ms()
        waiting, self._looked = self._looked, asyncio.Event()
        waiting.set()

    async def follow(self, channel: bytes, domain: Domain) -> None:
        """Look at a channel from now on."""
        self.domains[channel] = domain
        try:
            await self.look()
        except ChanneldError as error:
            self.trouble = str(error)

    def stale(self, channel: bytes) -> str:
        """Why nothing may be signed now; empty where it may."""
        age = self._clock.now_ms() - self._seen_ms
        if not self._seen_ms or channel not in self.known:
            return "the channel has not been read from the chain yet"
        return f"the view of the chain is {age // 1000} s old" if age > self._max_age_ms else ""

    async def fresh(self, channel: bytes) -> None:
        """Return once `stale` is empty."""
        while self.stale(channel):
            await self._looked.wait()

    async def deposits(self, channel: bytes) -> tuple[int, int]:
        """Totals of a and b that are final, units, read now."""
        await self.look()
        record = self.known[channel]
        return record.deposited_a, record.deposited_b

    def disputed(self, channel: bytes) -> bool:
        """Whether a dispute runs, or has ended the channel."""
        record = self.known.get(channel)
        return record is not None and record.phase in {Phase.DISPUTED, Phase.ENDED}

    # ------------------------------------------------------------------------------------------------- transactions

    def _made(self, domain: Domain, call: Call, what: str) -> Transaction:
        return Transaction(call.to, call.data, domain.chain_id, what)

    def open(self, domain: Domain, terms: Terms) -> Transaction:
        """Record the channel on chain; anybody may send it, once."""
        return self._made(domain, Adjudicator(self._rpc, domain.adjudicator).open(terms), "open the channel")

    def deposit(self, domain: Domain, terms: Terms, channel: bytes, side: int, units: int) -> list[Transaction]:
        """Allow the contract to take the tokens, and have it take them."""
        adjudicator = Adjudicator(self._rpc, domain.adjudicator)
        approve = Token(self._rpc, terms.collateral).approve(domain.adjudicator, units)
        return [
            self._made(domain, approve, f"allow the channel's contract to take {units} units"),
            self._made(domain, adjudicator.deposit(channel, side, units), f"deposit {units} units"),
        ]

    def exit(self, domain: Domain, document: Exit) -> Transaction:
        """Take a Withdrawal or Close with both signatures to the chain; anybody may."""
        adjudicator, sigs = Adjudicator(self._rpc, domain.adjudicator), document.signature_a + document.signature_b
        inner = document.document
        if isinstance(inner, Close):
            return self._made(domain, adjudicator.close(inner, sigs), "end the channel as both have signed")
        return self._made(domain, adjudicator.withdraw(inner, sigs), "pay out what both have signed")
