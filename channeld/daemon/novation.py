"""Novation and rolling: positions that leave one channel and begin in another, at prices that cancel.

Theory. A channel's state binds two parties, so what three agree to, or two in two channels, is two states, and no
protocol between them makes one of two states. The desk in the middle, which stays in the position, asks for firm
quotes (EIP-712, desk/quotes.py) in both channels: to close here, to open there. Each quote is its maker's consent, and
binds it until its last second. Only with all of them in hand does it take any, and it takes all of them in one commit:
after a crash either all are sent again or none was taken. What is left is that a maker refuses what it has signed, or
stands below its margin by then: the alert, both signatures and docs/protocol.md, 9.14, say where that leaves whom.

Rules: never for more than the cost that was allowed, all parts together; nothing is taken where one quote is missing.
Only open positions move, no more than is there; what has expired stays for its settlement.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from channeld.core import records
from channeld.core.errors import ChanneldError, InputError
from channeld.core.instruments import instrument_name
from channeld.core.state import Kind
from channeld.core.wad import WAD, format_decimal
from channeld.daemon.rfq import TAKE_LIFE_MS
from channeld.desk.combos import MAX_COMBO_LEGS, MAX_RATIO, Combo, ComboLeg
from channeld.desk.quotes import QuoteStatus, Way

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from channeld.core.state import Instrument
    from channeld.daemon.actor import Actor
    from channeld.daemon.node import Node
    from channeld.daemon.rfq import OurRequest, Received

NOVATION: Final = "novation"
OVER_MS: Final = 4 * TAKE_LIFE_MS
MOST_LEGS: Final = MAX_COMBO_LEGS


class CannotNovateError(InputError):
    """What should move is not there, or cannot begin in the other channel."""

    code = 1268
    advice = (
        "`channeld positions` shows what is open; the other channel must be open, of the same collateral and feeds."
    )


@dataclass(frozen=True, slots=True)
class Part:
    """One pair of requests: the same combo closed in one channel and opened in the other."""

    closing: OurRequest
    opening: OurRequest

    def quotes(self) -> tuple[Received, Received] | None:
        """The two quotes for all of it; None where one is missing."""
        found = [
            next((q for q in ours.quotes.values() if q.reading.size == ours.request.size), None)
            for ours in (self.closing, self.opening)
        ]
        first, second = found
        return (first, second) if first is not None and second is not None else None


def combos(moves: Sequence[tuple[Instrument, int]]) -> list[tuple[Combo, int]]:
    """Positions (our sizes, wads) as combos and how much of each we hold: negative where it is sold.

    One alone is itself; several are one combo of all of them.

    Raises:
        CannotNovateError: sizes that differ too much for one combo.
    """
    if len(moves) == 1:
        ((instrument, size),) = moves
        return [(Combo((ComboLeg(instrument, WAD),)), size)]
    found = []
    ordered = sorted(moves, key=lambda move: move[0].key)
    for at in range(0, len(ordered), MOST_LEGS):
        part = ordered[at : at + MOST_LEGS]
        scale = 1
        while max(abs(size) for _, size in part) > MAX_RATIO * scale:
            scale *= 10
        if any(size % scale for _, size in part):
            raise CannotNovateError("these sizes differ too much to move as one: move them one by one")
        combo = Combo(tuple(ComboLeg(instrument, size // scale) for instrument, size in part))
        found.append((combo, WAD * scale))
    return found


class Novations:
    """The novations of one node that are on their way."""

    def __init__(self, node: Node) -> None:
        """None yet."""
        self._node = node
        self._groups: dict[str, tuple[tuple[bytes, ...], int]] = {}

    async def load(self) -> None:
        """Read what was taken before a restart; after the quotes."""
        for key, raw in await self._node.store.documents(NOVATION):
            data = json.loads(raw)
            self._groups[key] = tuple(map(bytes.fromhex, data["quotes"])), int(data["time_ms"])

    def moves(
        self, source: Actor, target: Actor, wanted: Mapping[Instrument, int] | None
    ) -> list[tuple[Instrument, int]]:
        """The positions to move, as sizes of ours; wanted: how much of which (wads, no signs), None for the book.

        Raises:
            CannotNovateError: nothing to move, more than there is, or no room for it in the other channel.
        """
        if source.id == target.id:
            raise CannotNovateError("a position moves from one channel to another")
        here, there = source.channel.terms, target.channel.terms
        if (here.collateral, here.decimals) != (there.collateral, there.decimals):
            raise CannotNovateError("the two channels have different collateral")
        sign = -1 if source.channel.side else 1
        now = self._node.clock.now_ms() // 1000
        held = {
            p.instrument: sign * p.size
            for p in source.channel.tip.body.positions
            if p.instrument.kind == Kind.PERPETUAL or p.instrument.expiry > now
        }
        chosen = wanted if wanted is not None else {instrument: abs(size) for instrument, size in held.items()}
        found = []
        for instrument, size in chosen.items():
            there_is = held.get(instrument, 0)
            if not 0 < size <= abs(there_is):
                name = instrument_name(instrument)
                raise CannotNovateError(
                    f"{format_decimal(abs(there_is))} of {name} is open, not {format_decimal(size)}"
                )
            if there.market(instrument.feed) is None:
                raise CannotNovateError(f"{instrument_name(instrument)} is of no market of the other channel")
            found.append((instrument, size if there_is > 0 else -size))
        if not found:
            raise CannotNovateError("there is no open position to move")
        return found

    async def ask(
        self, source: Actor, target: Actor, moves: Sequence[tuple[Instrument, int]], until_ms: int
    ) -> list[Part]:
        """Ask for the quotes of both channels."""
        rfq, found = self._node.rfq, []
        for combo, held in combos(moves):
            closing, opening = (Way.SELL, Way.BUY) if held > 0 else (Way.BUY, Way.SELL)
            found.append(
                Part(
                    await rfq.ask(combo, abs(held), closing, [source], until_ms, all_or_none=True),
                    await rfq.ask(combo, abs(held), opening, [target], until_ms, all_or_none=True),
                )
            )
        return found

    async def take(self, pairs: Sequence[tuple[Received, Received]]) -> tuple[asyncio.Future[int], ...]:
        """Take all of these quotes together; what becomes of them is watched, and told where it is not all of them."""
        several = [received for pair in pairs for received in pair]
        key, now = secrets.token_hex(8), self._node.clock.now_ms()
        ids = tuple(received.quote.id for received in several)
        data = {"quotes": [one.hex() for one in ids], "time_ms": now}
        write = records.PutDocument(NOVATION, key, json.dumps(data).encode())
        futures = await self._node.rfq.take_together(several, [write])
        self._groups[key] = ids, now
        return futures

    async def look(self, now_ms: int) -> None:
        """What has ended is forgotten; what has ended in part alone is an alert."""
        for key, (ids, since) in list(self._groups.items()):
            taken = [self._node.rfq.taken.get(one) for one in ids]
            done = [one for one in taken if one is not None and one.status is QuoteStatus.DONE]
            if len(done) < len(ids) and now_ms < since + OVER_MS:
                continue
            del self._groups[key]
            await self._node.store.commit([records.DropDocument(NOVATION, key)])
            if done and len(done) < len(ids):
                names = sorted(
                    {self._node.name(self._node.actors[t.channel].peer) for t in taken if t not in done and t}
                )
                message = (
                    f"a novation is done in part: {len(done)} of {len(ids)} trades; not those with {', '.join(names)}. "
                    "Trade the rest anew; `channeld quote broken` has the signatures of what was refused"
                )
                await self._node.emit("alert", None, severity="critical", cause="novation", message=message)


def cost(pairs: Sequence[tuple[Received, Received]]) -> int:
    """What we pay for both sides of all of it together, wads, rounded up; negative where we are paid."""
    return -(-sum(received.reading.cost for pair in pairs for received in pair) // WAD)


def check_price(pairs: Sequence[tuple[Received, Received]], price: int) -> None:
    """That each quote is at this price a unit (wads) or better for us.

    Raises:
        CannotNovateError: one is worse.
    """
    for reading in (received.reading for pair in pairs for received in pair):
        if reading.cost > (price if reading.buys else -price) * reading.size:
            to = "buy" if reading.buys else "sell"
            raise CannotNovateError(f"quoted at {format_decimal(reading.price)} to {to}, not {format_decimal(price)}")


async def answered(parts: Sequence[Part], wait_s: float) -> None:
    """Wait until every request has its answer, `wait_s` seconds at most."""
    waiting = [ours for part in parts for ours in (part.closing, part.opening)]
    try:
        async with asyncio.timeout(wait_s):
            for ours in waiting:
                while ours.waiting:
                    ours.news.clear()
                    await ours.news.wait()
    except TimeoutError:
        return


async def landed(futures: Sequence[asyncio.Future[int]], wait_s: float) -> list[int | ChanneldError | None]:
    """What became of each: its version, why there is none, or None where nobody knows yet."""
    await asyncio.wait(futures, timeout=wait_s)
    found: list[int | ChanneldError | None] = []
    for future in futures:
        error = future.exception() if future.done() and not future.cancelled() else None
        if isinstance(error, ChanneldError):
            found.append(error)
        else:
            found.append(future.result() if future.done() and not future.cancelled() and error is None else None)
    return found
