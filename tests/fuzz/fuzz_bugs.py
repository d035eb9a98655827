"""Bugs to be found: each takes the place of something that the project relies on, for as long as its context lasts.

They are the mistakes that other channel engines have made, or that this one could make in a change that looks harmless.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING
from unittest.mock import patch

from fuzz_world import KEYS, Hooks

from channeld.core import records
from channeld.core.channel import CoSigned, EffectQueue, Persist, Send, agree, exchange, proposals, recovery, values
from channeld.core.eip712 import body_hash
from channeld.core.state import State
from channeld.daemon.signer import GuardedSigner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fuzz_side import Side

    from channeld.core.channel import Channel, Step

LEAP_UNIT = 1 << recovery.LEAP_SHIFT
step_module = import_module("channeld.core.channel.step")


def _without(done: Step, unwanted: Callable[[records.Write], bool]) -> Step:
    """A step whose records lack some."""
    effects = tuple(
        Persist(tuple(w for w in e.writes if not unwanted(w))) if isinstance(e, Persist) else e for e in done.effects
    )
    return replace(done, effects=effects)


@contextmanager
def _steps(change: Callable[[Channel, object, Step], Step]) -> Iterator[Hooks]:
    """Every step of the machine comes out changed."""
    real = step_module.step

    def bad(channel: Channel, event: object) -> Step:
        return change(channel, event, real(channel, event))

    with patch("fuzz_side.step", bad):
        yield Hooks()


@contextmanager
def _patched(owner: object, name: str, value: object) -> Iterator[Hooks]:
    with patch.object(owner, name, value):
        yield Hooks()


# --- the shell


@contextmanager
def sends_before_it_is_durable() -> Iterator[Hooks]:
    class Bad(Hooks):
        def stepped(self, side: Side, done: Step) -> Step:
            for effect in done.effects:
                if isinstance(effect, Send):
                    side.release([effect])
            return replace(done, effects=tuple(e for e in done.effects if not isinstance(e, Send)))

    yield Bad()


@contextmanager
def says_in_one_session_what_belongs_to_another() -> Iterator[Hooks]:
    """This one was there too, until the fuzzer was built: a slow disk and a quick new session."""

    class Late(EffectQueue):
        def _hush(self) -> None:
            pass

    class Bad(Hooks):
        def queue(self, channel: Channel) -> EffectQueue:
            return Late(channel)

    yield Bad()


@contextmanager
def releases_what_has_failed() -> Iterator[Hooks]:
    class Stubborn(EffectQueue):
        def failed(self):
            self._flight = None
            return self.working

    class Bad(Hooks):
        def queue(self, channel: Channel) -> EffectQueue:
            return Stubborn(channel)

    yield Bad()


@contextmanager
def forgets_what_it_signed_on_restart() -> Iterator[Hooks]:
    """The guard begins anew, and the outstanding is not kept: one alone is caught by the other."""

    class Blank:
        async def highest_signed(self, *_key: object) -> None:
            return None

        async def signed(self, *_key: object) -> None:
            return None

    class Bad(Hooks):
        def guard(self, side: Side) -> GuardedSigner:
            return GuardedSigner(KEYS[side.node.number], Blank())

    def change(_channel: Channel, _event: object, done: Step) -> Step:
        return _without(done, lambda w: isinstance(w, records.PutProposal))

    with _steps(change):
        yield Bad()


# --- the machine


def keeps_no_rejection():
    return _steps(lambda _c, _e, done: _without(done, lambda w: isinstance(w, records.PutRejection)))


def keeps_no_proposal():
    return _steps(lambda _c, _e, done: _without(done, lambda w: isinstance(w, records.PutProposal)))


def keeps_no_mark_of_a_loss():
    def unwanted(write: records.Write) -> bool:
        return isinstance(write, records.PutDocument) and write.kind == recovery.LOST_DOCUMENT

    return _steps(lambda _c, _e, done: _without(done, unwanted))


def persists_the_answer_without_the_state():
    def change(channel: Channel, _event: object, done: Step) -> Step:
        follower = not channel.sequencer
        return _without(done, lambda w: follower and isinstance(w, records.PutState) and w.state.version % 3 == 0)

    return _steps(change)


def takes_an_older_state_from_an_exchange():
    real = recovery.take_shown

    def bad(channel: Channel, version: int, body: bytes, pair: tuple[bytes, bytes]) -> Step:
        if 0 < version < channel.latest.state.version:
            decoded = records.decode_body(body)
            older = CoSigned(State(channel.id, version, decoded), body_hash(decoded), *pair)
            return recovery.Step(replace(channel, latest=older, proposals=()))
        return real(channel, version, body, pair)

    return _patched(exchange, "take_shown", bad)


def ends_a_loss_by_an_older_leap():
    """This one was not planted: it was there, and the fuzzer found it on its first day."""

    def change(channel: Channel, _event: object, done: Step) -> Step:
        after = done.channel
        landed = (
            after.latest.state.version > channel.latest.state.version and not after.latest.state.version % LEAP_UNIT
        )
        return replace(done, channel=replace(after, lost=False)) if landed else done

    return _steps(change)


def ignores_a_proven_loss():
    """The state that the peer shows is taken, and signing goes on above it at once."""
    real = recovery.lose

    def bad(channel: Channel, reason: str, writes=(), before=None) -> Step:
        done = real(channel, reason, writes, before)
        kept = _without(done, lambda w: isinstance(w, records.PutDocument) and w.kind == recovery.LOST_DOCUMENT)
        return replace(kept, channel=replace(kept.channel, lost=False))

    return _patched(recovery, "lose", bad)


def leaps_by_a_fixed_distance():
    return _patched(recovery, "leap_version", lambda _batch: 7 << 52)


def leaps_too_short():
    return _patched(recovery, "leap_version", lambda _batch: 300)


def rejects_too_near():
    """The empty state lies within the window: a proposal that comes after it has its version."""
    return _two((proposals, agree), "WINDOW", 0)


@contextmanager
def _two(owners: tuple[object, ...], name: str, value: object) -> Iterator[Hooks]:
    with patch.object(owners[0], name, value), patch.object(owners[1], name, value):
        yield Hooks()


def shows_nothing_outstanding():
    real = exchange.sync_message

    def bad(channel: Channel):
        return replace(real(channel), proposals=(), rejection=None, recovery=None)

    return _patched(step_module, "sync_message", bad)


def keeps_undecided_proposals_over_a_session():
    return _patched(
        step_module,
        "_quiet",
        lambda channel, *, connected: replace(channel, connected=connected, synced=False, draft=None),
    )


def signs_while_a_close_is_alive():
    return _patched(values.Channel, "closing", None)


def pays_a_transfer_twice():
    """The two sides agree, and are both wrong."""
    from channeld.core import transition  # noqa: PLC0415 - patched below
    from channeld.core.operations import Transfer  # noqa: PLC0415 - the same

    real = transition.apply

    def bad(*arguments, **named):
        applied = real(*arguments, **named)
        extra = sum(op.units * (1 - 2 * op.origin) for op in applied.batch.operations if isinstance(op, Transfer))
        a, b = applied.state.body.a, applied.state.body.b
        if a.balance < extra or b.balance < -extra:
            return applied
        body = replace(
            applied.state.body, a=replace(a, balance=a.balance - extra), b=replace(b, balance=b.balance + extra)
        )
        return replace(applied, state=replace(applied.state, body=body))

    return _patched(values, "apply", bad)


BUGS = (
    sends_before_it_is_durable,
    says_in_one_session_what_belongs_to_another,
    releases_what_has_failed,
    forgets_what_it_signed_on_restart,
    keeps_no_rejection,
    keeps_no_proposal,
    keeps_no_mark_of_a_loss,
    persists_the_answer_without_the_state,
    takes_an_older_state_from_an_exchange,
    ends_a_loss_by_an_older_leap,
    ignores_a_proven_loss,
    leaps_by_a_fixed_distance,
    leaps_too_short,
    rejects_too_near,
    shows_nothing_outstanding,
    keeps_undecided_proposals_over_a_session,
    signs_while_a_close_is_alive,
    pays_a_transfer_twice,
)
