"""The desk's watchtowers: every co-signed state is brought to each, and each must show that it is alive and current.

Rules: nothing here stands in the way of a trade. A channel that has a new state is marked; one task for each tower
brings the newest state of what is marked, so that what piles up is sent once. A receipt is kept durably: with the next
one it is the evidence against a tower that forgets. A tower that is silent, late, blind or false is an alert, once each
time it begins. A state above all that this desk's key has signed by its own record is proof that records were lost:
it is declared, and what the tower shows counts in the recovery
(core/channel/recovery.py): nothing is signed below it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import structlog

from channeld.core import records
from channeld.core.channel import DeclareLoss
from channeld.core.crypto import checksum_address
from channeld.core.errors import ChanneldError, StoreError
from channeld.tower.client import TowerClient
from channeld.tower.errors import (
    BadReceiptError,
    ConflictingStateError,
    NotWatchedError,
    TowerBlindError,
    TowerBrokeItsWordError,
)
from channeld.tower.protocol import MAX_ITEMS, ZERO_HASH, Held, parse_tower, receipt_from_json, receipt_to_json

if TYPE_CHECKING:
    from channeld.core.eip712 import Domain
    from channeld.core.terms import Terms
    from channeld.daemon.actor import Actor
    from channeld.daemon.node import Node
    from channeld.tower.client import Answer
    from channeld.tower.protocol import Receipt, TowerName

log = structlog.get_logger(__name__)

RECEIPT, EVIDENCE, SHOWN = "tower_receipt", "tower_evidence", "tower_shown"
PAUSE_S = 0.05
AGAIN_S = (1.0, 2.0, 5.0, 10.0, 30.0)
WATCHED = {"opening", "open", "disputed"}


def held_of(actor: Actor) -> Held:
    """The newest co-signed state of a channel, without its body."""
    latest = actor.channel.latest
    return Held(latest.state.version, latest.body_hash, latest.signature_a, latest.signature_b)


class Link:
    """One tower, as one desk knows it."""

    def __init__(self, node: Node, name: TowerName) -> None:
        """Nothing is sent before `run`."""
        settings = node.config.tower
        self.name = name
        self._node, self._settings = node, settings
        self.client = TowerClient(
            name,
            node.signer.address,
            node.signer.sign_plain,
            node.clock.now_ms,
            timeout_s=settings.request_timeout,
        )
        self._marked: dict[bytes, float] = {}
        self._registered: set[bytes] = set()
        self._news = asyncio.Event()
        self._told: set[str] = set()
        self._checked_s = 0.0
        self._failures = 0
        self._bad = False
        self._begun_s = 0.0
        self.refused: dict[bytes, str] = {}
        self.trouble = "not reached yet"
        self.shown_s = 0.0
        self.blocks_behind = 0

    # ------------------------------------------------------------------------------------------------- what is asked

    def mark(self, channel: bytes) -> None:
        """A channel has a new state."""
        self._marked.setdefault(channel, _now_s())
        self._news.set()

    def current(self, actor: Actor) -> bool:
        """Whether the tower has lately shown, with a fresh view of the chain, that it has the newest state."""
        receipt = self.client.receipts.get(actor.id)
        return (
            receipt is not None
            and actor.id in self._registered
            and not self.trouble
            and _now_s() - self.shown_s <= self._settings.stale_after
            and _covers(receipt, actor)
        )

    def data(self) -> dict[str, Any]:
        """What `status` shows of it."""
        actors = [actor for actor in self._node.actors.values() if actor.record.status in WATCHED]
        return {
            "tower": str(self.name),
            "address": checksum_address(self.name.address),
            "trouble": self.trouble,
            "age_s": round(_now_s() - self.shown_s, 1) if self.shown_s else None,
            "blocks_behind": self.blocks_behind,
            "channels": [
                {
                    "channel": "0x" + actor.id.hex(),
                    "version": self.client.receipts[actor.id].version if actor.id in self.client.receipts else None,
                    "current": self.current(actor),
                    "refused": self.refused.get(actor.id, ""),
                }
                for actor in actors
            ],
        }

    # ------------------------------------------------------------------------------------------------- what is done

    async def run(self) -> None:
        """Bring what is marked, check what is there, for ever."""
        await self._load()
        while True:
            if self._failures:
                await asyncio.sleep(min(AGAIN_S[min(self._failures, len(AGAIN_S)) - 1], self._settings.check_interval))
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), self._settings.check_interval)
            self._news.clear()
            try:
                await self.once()
            except Exception:
                log.exception("a watchtower's turn failed", tower=self.name.url)
                self._failures += 1
            # what comes within a moment goes together
            await asyncio.sleep(PAUSE_S)

    async def once(self) -> None:
        """One turn."""
        self._bad = False
        try:
            await self._bring()
            if _now_s() - self._checked_s >= self._settings.check_interval:
                await self._check()
        except ChanneldError as error:
            if not self._failures:
                log.warning("a watchtower fails", tower=self.name.url, code=error.code, why=str(error))
            self._bad, self.trouble = True, str(error)
        self._failures = self._failures + 1 if self._bad else 0
        await self._judge()

    async def _load(self) -> None:
        """The receipts of earlier runs: a tower must not fall behind them."""
        for key, raw in await self._node.store.documents(RECEIPT, self.name.address.hex() + "/"):
            try:
                self.client.receipts[bytes.fromhex(key.partition("/")[2])] = receipt_from_json(json.loads(raw))
            except (BadReceiptError, ValueError) as error:
                log.warning("a kept receipt is unreadable", tower=self.name.url, why=str(error))
        for actor in self._node.actors.values():
            self.mark(actor.id)

    def _watched(self, channels: list[bytes]) -> list[tuple[Domain, Terms, bytes, Held]]:
        actors = [self._node.actors[channel] for channel in channels if channel in self._node.actors]
        return [
            (actor.channel.domain, actor.channel.terms, actor.id, held_of(actor))
            for actor in actors
            if actor.record.status in WATCHED
        ]

    async def _bring(self) -> None:
        """Register what is new, and bring the newest state of what is marked."""
        taken, self._marked = self._marked, {}
        try:
            states = []
            for domain, terms, channel, held in self._watched(list(taken)):
                if channel not in self._registered:
                    await self._register(domain, terms, channel)
                if channel in self._registered and held.version:
                    states.append((domain, terms, channel, held))
            for first in range(0, len(states), MAX_ITEMS):
                part = states[first : first + MAX_ITEMS]
                await self._take(part, await self.client.put(part))
        except BaseException:
            for channel, since in taken.items():
                self._marked[channel] = min(since, self._marked.get(channel, since))
            raise

    async def _register(self, domain: Domain, terms: Terms, channel: bytes) -> None:
        try:
            await self.client.register(domain, terms, channel)
        except (TowerBrokeItsWordError, BadReceiptError) as error:
            await self._false(channel, error)
        except ChanneldError as error:
            if error.code in {3405, 3407}:
                # of this channel alone: the others go on
                self.refused[channel] = str(error)
                return
            raise
        self.refused.pop(channel, None)
        self._registered.add(channel)

    async def _check(self) -> None:
        """Have the tower show what it holds of every channel."""
        asked = self._watched(list(self._node.actors))
        known = [one for one in asked if one[2] in self._registered]
        for one in asked:
            if one[2] not in self._registered:
                self.mark(one[2])
        for first in range(0, len(known), MAX_ITEMS):
            part = known[first : first + MAX_ITEMS]
            await self._take(part, await self.client.check(part))
        self._checked_s = _now_s()

    async def _take(self, asked: list[tuple[Domain, Terms, bytes, Held]], answers: list[Answer]) -> None:
        """What the tower says of each channel."""
        writes: list[records.Write] = []
        ours = self._node.chain.view["block"]
        for (_, _, channel, held), answer in zip(asked, answers, strict=True):
            if answer.receipt is not None:
                key = f"{self.name.address.hex()}/{channel.hex()}"
                writes.append(records.PutDocument(RECEIPT, key, json.dumps(receipt_to_json(answer.receipt)).encode()))
                self.blocks_behind = max(0, ours - answer.receipt.block)
                if answer.receipt.version < held.version:
                    self.mark(channel)
            if answer.state is not None:
                await self._shown(channel, answer.state)
            if isinstance(answer.error, NotWatchedError):
                self._registered.discard(channel)
                self.mark(channel)
            elif answer.error is not None:
                self.mark(channel)
                await self._false(channel, answer.error)
        if writes:
            try:
                await self._node.store.commit(writes)
            except StoreError as error:
                log.warning("receipts could not be kept", why=str(error))
        if not self._bad:
            self.shown_s = _now_s()
            self.trouble = ""
        if self.blocks_behind > self._settings.max_lag:
            self.trouble = str(TowerBlindError(f"its newest block is {self.blocks_behind} behind ours"))

    async def _false(self, channel: bytes, error: ChanneldError) -> None:
        """The tower says what cannot be: evidence is kept, a person is told, and it counts for nothing."""
        self.trouble, self._bad = str(error), True
        key = f"{self.name.address.hex()}/{channel.hex()}/{error.code}"
        if key in self._told:
            return
        self._told.add(key)
        shown = {"tower": str(self.name), **error.as_data(), "details": error.details}
        data = json.dumps(shown, default=str).encode()
        with contextlib.suppress(StoreError):
            await self._node.store.commit([records.PutDocument(EVIDENCE, key, data)])
        severity = "critical" if isinstance(error, TowerBrokeItsWordError | ConflictingStateError) else "warning"
        message = f"watchtower {self.name.url}: {error}"
        await self._node.emit("alert", channel, severity=severity, code=error.code, message=message)

    async def _shown(self, channel: bytes, held: Held) -> None:
        """The tower has a higher state than ours, with both signatures: on its way to us, or lost by us."""
        actor = self._node.actors[channel]
        if actor.channel.recovering:
            # what may have been signed and lost lies below the leap that is being agreed; who has lost must know of it
            await self._keep_shown(actor, held)
            return
        signed = await self._node.store.highest_signed(channel, records.SIGNED_STATE)
        if held.version <= max(signed.version if signed else 0, actor.channel.latest.state.version):
            return
        await self._keep_shown(actor, held)
        reason = f"a watchtower shows version {held.version}, which this desk's key has signed and its records have not"
        log.critical("states are lost", channel=channel.hex()[:8], shown=held.version)
        # losses are declared between sessions; the next one begins with what is known then
        await self._node.hub.remove_peer(actor.peer)
        await actor.session(up=False)
        try:
            await actor.feed(DeclareLoss(reason))
        finally:
            self._node.hub.add_peer(actor.peer, self._node.peers[actor.peer]["url"] or None)

    async def _keep_shown(self, actor: Actor, held: Held) -> None:
        """The highest state that towers have shown: more than the peer may wish to show, and enough to refute with."""
        if held.version <= max(actor.channel.latest.state.version, self._node.towers.shown.get(actor.id, 0)):
            return
        self._node.towers.shown[actor.id] = held.version
        value = [held.version, held.body_hash.hex(), held.signature_a.hex(), held.signature_b.hex()]
        with contextlib.suppress(StoreError):
            await self._node.store.commit([records.PutDocument(SHOWN, actor.id.hex(), json.dumps(value).encode())])

    # ------------------------------------------------------------------------------------------------- what is told

    async def _judge(self) -> None:
        """An alert when the tower stops being of use, and an event when it is again."""
        now = _now_s()
        limit = self._settings.stale_after
        oldest = min(self._marked.values(), default=now)
        asked = any(actor.record.status in WATCHED for actor in self._node.actors.values())
        begun = self.shown_s or self._begun_s
        silent = asked and now - begun > limit
        late = bool(self._marked) and now - oldest > limit
        blind = self.blocks_behind > self._settings.max_lag
        await self._once("silent", holds=silent, message=f"has not answered for {now - begun:.0f} s: {self.trouble}")
        await self._once("late", holds=late and not silent, message=f"lacks the newest state for {now - oldest:.0f} s")
        await self._once("blind", holds=blind, message=f"has not seen the chain's last {self.blocks_behind} blocks")
        await self._once(
            "refuses", holds=bool(self.refused), message=f"refuses: {next(iter(self.refused.values()), '')}"
        )

    def begin(self) -> None:
        """The desk has started: silence counts from here."""
        self._begun_s = _now_s()

    async def _once(self, cause: str, *, holds: bool, message: str) -> None:
        if holds and cause not in self._told:
            self._told.add(cause)
            text = f"watchtower {self.name.url} {message}"
            await self._node.emit("alert", None, severity="warning", cause=f"tower {cause}", message=text)
        elif not holds and cause in self._told:
            self._told.discard(cause)
            await self._node.emit("tower_recovered", None, tower=str(self.name), cause=cause)


class Towers:
    """All towers of a desk."""

    def __init__(self, node: Node) -> None:
        """Prepare; `start` begins."""
        self._node = node
        self.links: list[Link] = []
        self.shown: dict[bytes, int] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to bring and to check."""
        for key, raw in await self._node.store.documents(SHOWN):
            self.shown[bytes.fromhex(key)] = json.loads(raw)[0]
        for text in self._node.config.tower.towers:
            link = Link(self._node, parse_tower(text))
            link.begin()
            self.links.append(link)
            self._tasks.append(asyncio.create_task(link.run(), name=f"tower {link.name.url}"))

    def agreed(self, channel: bytes) -> None:
        """A state was co-signed. Costs a look into a table for each tower."""
        for link in self.links:
            link.mark(channel)

    def refuting(self, actor: Actor) -> bool:
        """Whether some tower would refute for this channel now, with its newest state."""
        return any(link.current(actor) for link in self.links)

    async def check(self) -> None:
        """Ask every tower now."""
        for link in self.links:
            link._checked_s = 0.0  # noqa: SLF001 - one module
        await asyncio.gather(*(link.once() for link in self.links))

    def data(self) -> list[dict[str, Any]]:
        """What `status` shows."""
        return [link.data() for link in self.links]

    async def stop(self) -> None:
        """Bring what is still marked, for a moment, and end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in self.links:
            with contextlib.suppress(TimeoutError, ChanneldError):
                async with asyncio.timeout(2.0):
                    if link._marked and not link._failures:  # noqa: SLF001 - one module
                        await link._bring()  # noqa: SLF001 - the same
            await link.client.close()


def _covers(receipt: Receipt, actor: Actor) -> bool:
    """Whether the tower has the newest state, or a higher one of the peer's that is on its way to us."""
    latest = actor.channel.latest
    version, hashed = latest.state.version, latest.body_hash if latest.state.version else ZERO_HASH
    return receipt.version > version or (receipt.version, receipt.body_hash) == (version, hashed)


def _now_s() -> float:
    """Real time, whatever a devnet's clock says: a tower is asked in real time."""
    return asyncio.get_running_loop().time()
