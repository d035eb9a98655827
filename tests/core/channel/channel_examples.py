"""Builders of the example tests: a pair in step, and what is asked of it again and again."""

from __future__ import annotations

import pytest
from channel_shell import CHANNEL, KEYS, TERMS, Pair
from strategies import DOMAIN

from channeld.core import wire
from channeld.core.channel import (
    ProposeBatch,
)
from channeld.core.crypto import sign_digest
from channeld.core.eip712 import body_hash, state_digest
from channeld.core.transition import apply

WRONG = sign_digest(b"\x07" * 32, b"\x01" * 32)


def versions(pair: Pair) -> tuple[int, int]:
    return pair.sequencer.latest.version, pair.follower.latest.version


def propose(pair: Pair, *operations) -> None:
    pair.feed(pair.sequencer, ProposeBatch(pair.clock.batch(*operations)))


def forged(pair: Pair, raw: bytes, version: int | None = None, key: bytes = KEYS[0]) -> wire.Propose:
    """A proposal that the sequencer's key signs, whatever its machine says of it."""
    before = pair.follower.channel.tip
    number = version or before.version + 1
    after = apply(TERMS, before, raw, number).state
    return wire.Propose(
        CHANNEL, number, raw, sign_digest(key, state_digest(DOMAIN, CHANNEL, number, body_hash(after.body)))
    )


def unchanged(side, event, error, match=".") -> None:
    """An input that is refused leaves the channel as it was."""
    before = side.channel
    with pytest.raises(error, match=match):
        side.feed(event)
    assert side.channel is before


def news(side, kind) -> list:
    return [event for event in side.events if isinstance(event, kind)]


def reconnect(pair: Pair) -> None:
    for side in pair.sides:
        if not side.up:
            side.start()
    pair.connect()
    pair.settle()
