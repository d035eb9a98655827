"""The event watcher: what the contracts did, in order, and what a reorganisation took back.

Rules: it acts only when polled. Blocks are read once they have the confirmations configured (1: the latest block). It
remembers the hashes of blocks that it read; where one is no longer the chain's it goes back to the latest that still
is, reports `Reorganised`, and reads on from there, so that callers see every event that stands, at least once and in
order. The cursor after a poll is the caller's to store together with what the events changed; a watcher made with it
goes on where that one stood.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from channeld.chain.errors import CursorError
from channeld.chain.events import ChainEvent, Place, Reorganised, decode_event, known_events

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from channeld.chain.abi import Event
    from channeld.chain.rpc import ChainRpc, Header

SPAN = 1_000
MEMORY = 128


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a watcher stands: the next block to read, (number, hash) of blocks read, ascending, and where it began."""

    next_block: int
    hashes: tuple[tuple[int, bytes], ...] = ()
    start: int = 0

    @classmethod
    def begin(cls, block: int) -> Cursor:
        """A cursor that has read nothing and begins at a block: the deployment's."""
        return cls(next_block=block, start=block)

    def as_data(self) -> dict[str, Any]:
        """Plain data, for a store."""
        return {
            "next_block": self.next_block,
            "hashes": [[n, "0x" + h.hex()] for n, h in self.hashes],
            "start": self.start,
        }


def parse_cursor(data: object) -> Cursor:
    """A cursor from plain data.

    Raises:
        CursorError: malformed.

    """
    try:
        if not isinstance(data, dict):
            raise TypeError("not an object")  # noqa: TRY301 - one place translates
        hashes = tuple((int(n), bytes.fromhex(str(h).removeprefix("0x"))) for n, h in data["hashes"])
        cursor = Cursor(int(data["next_block"]), hashes, int(data["start"]))
    except (KeyError, TypeError, ValueError) as error:
        message = f"the watcher's cursor is malformed: {error}"
        raise CursorError(message) from error
    numbers = [n for n, _ in cursor.hashes]
    if (
        min(cursor.next_block, cursor.start) < 0
        or any(len(h) != 32 for _, h in cursor.hashes)
        or numbers != sorted(set(numbers))
    ):
        raise CursorError("the watcher's cursor is malformed")
    return cursor


@dataclass(frozen=True, slots=True)
class ChainView:
    """The chain as of the last poll: the latest block, and the last one read with all its confirmations.

    Times are Unix seconds. `behind` is the number of confirmed blocks that the next polls will read.
    """

    block: int
    hash: bytes
    time: int
    confirmed_block: int
    behind: int


class Watcher:
    """Watches some contracts' events."""

    def __init__(
        self,
        rpc: ChainRpc,
        addresses: Sequence[bytes],
        cursor: Cursor,
        *,
        confirmations: int = 1,
        events: Mapping[bytes, Event] | None = None,
        span: int = SPAN,
    ) -> None:
        """Watch `addresses` from a cursor on.

        Args:
            rpc: the chain.
            addresses: the contracts.
            cursor: where to begin: Cursor.begin(deployment.block), or what an earlier watcher left.
            confirmations: blocks that must stand, an event's own counted, before it is reported; 1 is the latest.
            events: the events by topic; default those of Adjudicator and FixBook.
            span: the most blocks read by one poll.

        """
        self._rpc, self._addresses = rpc, tuple(addresses)
        self._confirmations, self._span = max(1, confirmations), max(1, span)
        self._events = known_events() if events is None else events
        self.cursor = cursor
        self.view: ChainView | None = None

    async def poll(self) -> list[ChainEvent]:
        """The events since the last poll; `cursor` and `view` move on with them, or, on an error, not at all.

        A poll reads at most `span` blocks; `view.behind` says what is left.

        Raises:
            ChainUnreachableError, RpcError, MalformedResponseError: of the endpoint.
            UnknownLogError: a contract watched here emits what no ABI of this release knows.

        """
        head = await self._rpc.header()
        ancestor = await self._ancestor()
        next_block, hashes = self.cursor.next_block, self.cursor.hashes
        found: list[ChainEvent] = []
        if ancestor is not None:
            number, block_hash, time = ancestor
            next_block = max(number + 1, self.cursor.start)
            hashes = tuple(entry for entry in hashes if entry[0] <= number)
            found.append(Reorganised(Place(b"", number, block_hash, b"", 0, time)))
        last = min(head.number - self._confirmations + 1, next_block + self._span - 1)
        if last >= next_block:
            end = await self._rpc.find_header(last)
            if end is None:
                return []
            read = await self._read(next_block, last, end)
            if read is None:
                # the chain changed while it was read: nothing has moved, the next poll sees it
                return []
            found.extend(read)
            hashes = (*hashes, (last, end.hash))[-MEMORY:]
            next_block = last + 1
        confirmed = head.number - self._confirmations + 1
        self.cursor = Cursor(next_block, hashes, self.cursor.start)
        self.view = ChainView(
            head.number, head.hash, head.timestamp, next_block - 1, max(0, confirmed - next_block + 1)
        )
        return found

    async def _ancestor(self) -> tuple[int, bytes, int] | None:
        """Where to go back to, if the last block read is no longer the chain's; else None."""
        for index, (number, block_hash) in enumerate(reversed(self.cursor.hashes)):
            header = await self._rpc.find_header(number)
            if header is not None and header.hash == block_hash:
                return None if index == 0 else (number, block_hash, header.timestamp)
        if not self.cursor.hashes:
            return None
        # deeper than all that is remembered: from the start
        return (max(0, self.cursor.start - 1), b"", 0)

    async def _read(self, first: int, last: int, end: Header) -> list[ChainEvent] | None:
        logs = await self._rpc.logs(self._addresses, first, last)
        times: dict[bytes, int] = {end.hash: end.timestamp}
        for log in logs:
            if log.block_hash not in times:
                header = await self._rpc.find_header(log.block_number)
                if header is None or header.hash != log.block_hash:
                    return None
                times[log.block_hash] = header.timestamp
        again = await self._rpc.find_header(last)
        if again is None or again.hash != end.hash:
            return None
        return [decode_event(log, times[log.block_hash], self._events) for log in logs]
