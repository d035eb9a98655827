"""The contracts' events, decoded into frozen dataclasses.

Rules: an event that the ABI knows and this module does not is kept as `OtherEvent`, never dropped. Amounts are in
units, prices are wads, times Unix seconds. `at` says where the event stands; two events are one exactly where block
hash and log index agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from channeld.chain.contracts import address_bytes, load_artifact
from channeld.chain.errors import UnknownLogError
from channeld.core.eip712 import Close, Resume, Withdrawal
from channeld.core.errors import RuleError
from channeld.core.state import Account
from channeld.core.terms import Market, Oracle, Party, Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from channeld.chain.abi import Event
    from channeld.chain.rpc import Log


@dataclass(frozen=True, slots=True)
class Place:
    """Where an event stands; `time` is its block's, Unix seconds."""

    address: bytes
    block_number: int
    block_hash: bytes
    transaction_hash: bytes
    log_index: int
    time: int


@dataclass(frozen=True, slots=True)
class ChainEvent:
    """Any event."""

    at: Place


@dataclass(frozen=True, slots=True)
class Opened(ChainEvent):
    """A channel was opened. `terms` is None where the core would refuse them."""

    channel: bytes
    signer_a: bytes
    signer_b: bytes
    terms: Terms | None


@dataclass(frozen=True, slots=True)
class Deposited(ChainEvent):
    """`received` units arrived for party 0 (a) or 1 (b); the totals are cumulative."""

    channel: bytes
    party: int
    caller: bytes
    received: int
    deposited_a: int
    deposited_b: int


@dataclass(frozen=True, slots=True)
class Withdrawn(ChainEvent):
    """A Withdrawal was paid."""

    channel: bytes
    withdrawal: Withdrawal
    to_a: int
    to_b: int
    sigs: bytes


@dataclass(frozen=True, slots=True)
class Anchored(ChainEvent):
    """A co-signed state became the floor."""

    channel: bytes
    caller: bytes
    version: int
    body_hash: bytes
    sigs: bytes


@dataclass(frozen=True, slots=True)
class Challenged(ChainEvent):
    """A dispute began. `sigs` is empty where it began at the floor."""

    channel: bytes
    dispute: int
    caller: bytes
    version: int
    body_hash: bytes
    deadline: int
    sigs: bytes


@dataclass(frozen=True, slots=True)
class Refuted(ChainEvent):
    """A higher version replaced the one on record."""

    channel: bytes
    dispute: int
    caller: bytes
    version: int
    body_hash: bytes
    deadline: int
    sigs: bytes


@dataclass(frozen=True, slots=True)
class MarginCalled(ChainEvent):
    """A party (0 for a, 1 for b) called margin at `time`, its L; `call` is the call's index in the dispute."""

    channel: bytes
    dispute: int
    caller: bytes
    party: int
    call: int
    time: int


@dataclass(frozen=True, slots=True)
class Resumed(ChainEvent):
    """Both parties ended a dispute by agreement; the version on record is the floor now."""

    channel: bytes
    resume: Resume
    version: int
    body_hash: bytes
    sigs: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a margin call's test found. Equities and margins are wads, the penalty (of one below alone) is in units."""

    below_a: bool
    below_b: bool
    complete: bool
    weight: int
    equity_a: int
    equity_b: int
    margin_a: int
    margin_b: int
    penalty: int


@dataclass(frozen=True, slots=True)
class Tested(ChainEvent):
    """A margin call was judged at the fixes for `time`, its L."""

    channel: bytes
    dispute: int
    caller: bytes
    call: int
    time: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Closed(ChainEvent):
    """A co-signed Close ended the channel. `close` is None where the core would refuse it."""

    channel: bytes
    close: Close | None
    to_a: int
    to_b: int
    sigs: bytes


@dataclass(frozen=True, slots=True)
class Settled(ChainEvent):
    """A body ended the channel at the fixes for `fix_time`. `profit` and `penalty` are a's gains, in units.

    `call` is the index of the margin call that decided, 255 where none did.
    """

    channel: bytes
    dispute: int
    caller: bytes
    version: int
    body_hash: bytes
    fix_time: int
    complete: bool
    profit: int
    penalty: int
    call: int
    to_a: int
    to_b: int


@dataclass(frozen=True, slots=True)
class Shown(ChainEvent):
    """A body was shown to settle_last, in place of the one on record; higher ones replace it before `window_end`."""

    channel: bytes
    dispute: int
    caller: bytes
    version: int
    body_hash: bytes
    window_end: int
    sigs: bytes


@dataclass(frozen=True, slots=True)
class Released(ChainEvent):
    """Nobody has shown any body: each party got its deposits back, as far as the pot went."""

    channel: bytes
    dispute: int
    caller: bytes
    to_a: int
    to_b: int


@dataclass(frozen=True, slots=True)
class Held(ChainEvent):
    """A payout could not be pushed and waits for `claim`."""

    token: bytes
    payee: bytes
    amount: int


@dataclass(frozen=True, slots=True)
class Claimed(ChainEvent):
    """A held payout was claimed."""

    token: bytes
    payee: bytes
    to: bytes
    amount: int


@dataclass(frozen=True, slots=True)
class FixProven(ChainEvent):
    """A fix was recorded. `value` is a wad, `weight` the packages it was made of."""

    oracle_hash: bytes
    feed: bytes
    t: int
    value: int
    weight: int


@dataclass(frozen=True, slots=True)
class OtherEvent(ChainEvent):
    """An event that the ABI knows and this module does not, its inputs by name."""

    name: str
    inputs: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Reorganised(ChainEvent):
    """The chain changed after `at.block_number`: what was reported of later blocks is void, what stands follows."""


def _terms(row: tuple[Any, ...]) -> Terms | None:
    a, b, collateral, decimals, feed, haircut, oracle, markets, *rest = row
    signers, *numbers = oracle
    try:
        return Terms(
            Party(*(address_bytes(x) for x in a)),
            Party(*(address_bytes(x) for x in b)),
            address_bytes(collateral),
            decimals,
            feed,
            haircut,
            Oracle(tuple(address_bytes(x) for x in signers), *numbers),
            tuple(Market(*market) for market in markets),
            *rest,
        )
    except RuleError:
        return None


def _close(row: tuple[Any, ...]) -> Close | None:
    channel, version, valid_until, a, b = row
    try:
        return Close(channel, version, valid_until, Account(*a), Account(*b))
    except RuleError:
        return None


_KINDS: dict[str, type[ChainEvent]] = {
    kind.__name__: kind
    for kind in (
        *(Opened, Deposited, Withdrawn, Anchored),
        *(Challenged, Refuted, MarginCalled, Resumed, Tested),
        *(Closed, Settled, Shown, Released),
        *(Held, Claimed, FixProven),
    )
}
_CONVERT: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("Opened", "terms"): _terms,
    ("Withdrawn", "withdrawal"): lambda row: Withdrawal(*row),
    ("Closed", "close"): _close,
    ("Resumed", "resume"): lambda row: Resume(*row),
    ("Tested", "verdict"): lambda row: Verdict(*row),
}


def known_events() -> dict[bytes, Event]:
    """The events of Adjudicator and FixBook, by topic.

    Raises:
        ArtifactError: an artifact is missing.

    """
    return {**load_artifact("Adjudicator").abi.events, **load_artifact("FixBook").abi.events}


def decode_event(log: Log, time: int, events: Mapping[bytes, Event]) -> ChainEvent:
    """An event from a log of a block at `time` (Unix seconds).

    Raises:
        UnknownLogError: the ABI does not know it.

    """
    event = events.get(log.topics[0]) if log.topics else None
    if event is None:
        message = f"log {log.log_index} of block {log.block_number} is of no event we know"
        raise UnknownLogError(message, address="0x" + log.address.hex())
    place = Place(log.address, log.block_number, log.block_hash, log.transaction_hash, log.log_index, time)
    values = event.decode(log.topics, log.data)
    kind = _KINDS.get(event.name)
    if kind is None:
        return OtherEvent(place, event.name, tuple(values.items()))
    converted = {name: _CONVERT.get((event.name, name), lambda value: value)(value) for name, value in values.items()}
    try:
        return kind(place, **converted)
    except TypeError as error:
        message = f"the ABI's {event.name} is not the one this release decodes"
        raise UnknownLogError(message) from error
