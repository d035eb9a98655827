"""What a channel at work needs of the daemon around it, and what it says when that is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from channeld.core.errors import ChanneldError, Fault, PeerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from contextlib import AbstractContextManager

    from channeld.core import records, wire
    from channeld.core.channel import Exit
    from channeld.core.transition import Applied


class NothingSignedError(ChanneldError):
    """This desk signs nothing now, for lack of a fresh view of the chain."""

    code = 3340
    fault = Fault.CHAIN
    advice = "Check the chain's endpoint with `channeld status`; it goes on by itself once the chain answers."


class NoAnswerError(PeerError):
    """The peer did not answer in time."""

    code = 3341
    advice = "Look at the channel's version before asking again; `channeld status` tells whether the peer is connected."


class Clock(Protocol):
    """What tells the time."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        ...


class Signer(Protocol):
    """What signs, behind the rules of signer.py."""

    def sign_now(self, channel: bytes, kind: str, version: int, digest: bytes, *, leap: bool = False) -> bytes | None:
        """A signature where it can be made at once, else None."""
        ...

    async def sign(self, channel: bytes, kind: str, version: int, digest: bytes, *, leap: bool = False) -> bytes:
        """A signature. Errors as `GuardedSigner.sign`."""
        ...


@dataclass(frozen=True)
class Services:
    """What an actor needs of the daemon around it.

    hold: why nothing may be signed now, empty where it may. fresh: returns once it may.
    post: gives a message to the peer's session, with its bytes where they are made already; what is lost with a
    session is healed by the next one's exchange. told: an event of a channel that is durable already.
    agreed: a state is co-signed and durable.
    updated: takes the seconds from a proposal to its co-signed state. committing: measures a commit.
    deposits: totals of a and b final on chain, read now (units).
    """

    store: records.Store
    clock: Clock
    signer: Signer
    post: Callable[[bytes, wire.Message, bytes], None]
    emit: Callable[..., Coroutine[Any, Any, None]]
    salt: Callable[[], bytes]
    exit_ready: Callable[[bytes, Exit], Coroutine[Any, Any, None]]
    told: Callable[[str, bytes, Mapping[str, Any]], None]
    agreed: Callable[[bytes, Applied], None]
    hold: Callable[[], str]
    fresh: Callable[[], Awaitable[None]]
    updated: Callable[[float], None]
    committing: Callable[[], AbstractContextManager[None]]
    deposits: Callable[[], Awaitable[tuple[int, int]]]
