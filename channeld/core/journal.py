"""The journal: a hash chain over every batch of a channel, and the replay that proves every balance.

Rules: `journal' = keccak256(journal || uint64_be(version) || keccak256(batch))`, where `batch` is the exact byte string
that travelled, `version` that of the state the batch makes, and `journal` that of the state it was built on; that of
version 0 is the channel id. Whoever holds the batches can replay a channel from version 0, with nobody's help.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from channeld.core.errors import ChanneldError, RuleError
from channeld.core.state import State, genesis
from channeld.core.transition import apply, next_journal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from channeld.core.terms import Terms

__all__ = ["JournalMismatchError", "ReplayError", "next_journal", "replay", "verify"]


class ReplayError(RuleError):
    """A batch of a journal does not apply to the state before it; details name the version and the rule broken."""

    code = 2160
    advice = "The journal is incomplete, out of order or altered from that version on; fetch it again from a backup."


class JournalMismatchError(RuleError):
    """A replay does not end at the state it should: batches are missing, added or altered."""

    code = 2161
    advice = "Compare the batches with the counterparty's, from version 1 on."


def replay(terms: Terms, channel: bytes, batches: Iterable[tuple[int, bytes]], start: State | None = None) -> State:
    """The state that (version, exact bytes) pairs make from version 0, in order of versions.

    `start` is a co-signed state to begin from instead, where the batches before it are lost (docs/protocol.md, 9.8).
    Superseded proposals are no part of a journal: only what both signed is. Versions may leave gaps.

    Raises:
        ReplayError: naming the version that breaks, with the cause.

    """
    state = start if start is not None else genesis(channel)
    for version, raw in batches:
        try:
            state = apply(terms, state, raw, version).state
        except ChanneldError as error:
            raise ReplayError(
                f"version {version} does not follow from version {state.version}: {error}",
                version=version,
                cause_code=error.code,
                cause=type(error).__name__,
            ) from error
    return state


def verify(terms: Terms, batches: Iterable[tuple[int, bytes]], expected: State, start: State | None = None) -> State:
    """Replay from version 0 and hold the outcome to an expected (co-signed) state; the replayed state.

    Raises:
        ReplayError: a batch does not apply.
        JournalMismatchError: the replay ends elsewhere; the message names the first field that differs.

    """
    state = replay(terms, expected.channel, batches, start)
    if state == expected:
        return state
    pairs = [("version", state.version, expected.version)]
    pairs += [
        (name, getattr(state.body, name), getattr(expected.body, name))
        for name in ("journal", "as_of", "collateral_mark", "a", "b", "positions")
    ]
    name, found, wanted = next(pair for pair in pairs if pair[1] != pair[2])
    raise JournalMismatchError(
        f"the replay ends at version {state.version} with {name} = {_shown(found)}, where {_shown(wanted)} is signed",
        version=state.version,
        field=name,
    )


def _shown(value: object) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else repr(value)
