"""The order of a channel's effects: what waits for the disk, and what the disk lets go.

Theory. A step's signatures and judgements are carried out at once; its records, messages and news go into one queue, in
order. The shell takes all that waits as one group, commits the group's records together (one fsync serves them all),
and only then sends and tells what stood in the group. Meanwhile the machine goes on: `working` is the value that the
next step builds on, `durable` the newest one whose records are all on disk. Whatever leaves the process, to the peer,
to the chain or to people, follows from `durable` or was released by `done`.

Rules of this file:
  1. A message or news is released only once every record queued before it is durable.
  2. At most one group is under way; groups become durable in the order in which they were queued.
  3. Once a group has failed nothing is released any more: `failed` gives the value that the disk is known to hold.
  4. A message belongs to the session in which it was said: with the end of one, and with the exchange that opens the
     next, what waits to be sent is dropped, since the peer would take it for a fault there.
  5. Pure: no clock, no task, no store; the shell commits and says how it went.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from channeld.core import records
from channeld.core.channel.events import Decide, Notify, Persist, Send, Sign
from channeld.core.errors import InternalError
from channeld.core.wire import Sync

if TYPE_CHECKING:
    from collections.abc import Iterable

    from channeld.core.channel.events import Step
    from channeld.core.channel.values import Channel

Released = Send | Notify


@dataclass(frozen=True, slots=True)
class Group:
    """What becomes durable together: the records, the channel as it is once they are, and what is let go then.

    `released` is to be looked at, for what else belongs into the commit; `done` gives it to be acted on.
    """

    writes: tuple[records.Write, ...]
    channel: Channel
    released: tuple[Released, ...] = ()


class EffectQueue:
    """The effects of one channel between its machine and the world."""

    def __init__(self, channel: Channel) -> None:
        """Begin with a value that is durable as it stands."""
        self.working = channel
        self.durable = channel
        self._writes: list[records.Write] = []
        self._released: list[Released] = []
        self._flight: Group | None = None
        self._broken = False

    @property
    def waiting(self) -> bool:
        """Whether something is queued that is in no group yet."""
        return bool(self._writes or self._released)

    @property
    def flying(self) -> bool:
        """Whether a group is under way."""
        return self._flight is not None

    @property
    def behind(self) -> bool:
        """Whether `durable` is older than `working`."""
        return self._flight is not None or bool(self._writes)

    def add(self, step: Step, extra: Iterable[records.Write] = ()) -> tuple[Sign | Decide, ...]:
        """Take a step: its value at once, its records, messages and news in their order.

        `extra` are records of the desk's own that must be durable with the step's.

        Returns:
            what the shell must carry out now: signatures and judgements, in order.

        Raises:
            InternalError: a group has failed; nothing more is taken.
        """
        if self._broken:
            raise InternalError("the records of this channel can no longer be kept; nothing is queued")
        if self.working.connected and not step.channel.connected:
            self._hush()
        self.working = step.channel
        now: list[Sign | Decide] = []
        for effect in step.effects:
            kind = type(effect)
            if kind is Persist:
                self._writes.extend(effect.writes)  # type: ignore[union-attr]
            elif kind is Sign or kind is Decide:
                now.append(effect)  # type: ignore[arg-type]
            else:
                if kind is Send and type(effect.message) is Sync:  # type: ignore[union-attr]
                    self._hush()
                self._released.append(effect)  # type: ignore[arg-type]
        self._writes.extend(extra)
        if not self.behind:
            self.durable = step.channel
        return tuple(now)

    def _hush(self) -> None:
        """The session is gone: what was to be said in it is not said any more."""
        self._released = [effect for effect in self._released if type(effect) is not Send]
        if self._flight is not None:
            kept = tuple(effect for effect in self._flight.released if type(effect) is not Send)
            self._flight = replace(self._flight, released=kept)

    def replace_working(self, channel: Channel) -> None:
        """Change the value without effects, as a freeze by the shell does."""
        self.working = channel
        if not self.behind:
            self.durable = channel

    def take(self) -> Group | None:
        """All that waits, as the next group; None where nothing waits or a group is under way.

        A group without records may be called done at once.
        """
        if self._flight is not None or not self.waiting or self._broken:
            return None
        self._flight = Group(coalesced(self._writes), self.working, tuple(self._released))
        self._writes, self._released = [], []
        return self._flight

    def done(self) -> tuple[Released, ...]:
        """The group under way is durable: what it lets go, in order."""
        if self._flight is None:
            raise InternalError("no group is under way")
        group, self._flight = self._flight, None
        self.durable = self.working if not self._writes else group.channel
        return group.released

    def failed(self) -> Channel:
        """The group under way is not durable, or nobody knows: nothing is released; the value known to be durable."""
        self._broken = True
        self._flight = None
        self._writes, self._released = [], []
        self.working = self.durable
        return self.durable


def coalesced(writes: list[records.Write]) -> tuple[records.Write, ...]:
    """The same records with what the later ones make needless left out, for one commit.

    Of co-signed states the newest keeps its body; ranges dropped from the outstanding become one, and come last: what
    is proposed in a group was never accepted in it, since it has not left yet.
    """
    if len(writes) < 3:
        return tuple(writes)
    kept: list[records.Write] = []
    bodies: dict[bytes, int] = {}
    drops: dict[tuple[type, bytes], records.DropProposals | records.DropRejections] = {}
    for write in writes:
        kind = type(write)
        if kind is records.PutSigned or kind is records.PutBatch or kind is records.PutProposal:
            kept.append(write)
            continue
        if isinstance(write, records.PutState):
            channel = write.state.channel
            if write.body is not None:
                if channel in bodies:
                    kept[bodies[channel]] = records.PutState(kept[bodies[channel]].state)  # type: ignore[union-attr]
                bodies[channel] = len(kept)
        elif isinstance(write, records.DropProposals | records.DropRejections) and not write.first:
            held = drops.get((type(write), write.channel))
            if held is None or held.last < write.last:
                drops[type(write), write.channel] = write
            continue
        kept.append(write)
    return (*kept, *drops.values())
