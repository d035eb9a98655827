"""What a tower watches, and by whose leave: channels, the highest state of each, owners and their quotas.

Rules: a higher version replaces a lower one and never the other way round; both signatures are checked before anything
is kept; nothing is answered for before it is durable. There is no way to have a channel forgotten: a stolen key could
use it. A channel leaves when it has ended on chain. Owners are served by list, or anybody is where the operator says
so, up to a number of channels each and in all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from channeld.core import records
from channeld.core.eip712 import channel_id
from channeld.core.errors import ChanneldError
from channeld.core.files import address_from_text, terms_from_json, terms_to_json
from channeld.tower.errors import (
    ConflictingStateError,
    ForeignChannelError,
    NotAdmittedError,
    NotWatchedError,
    OtherTowerContractsError,
    OverQuotaError,
    OwnersFileError,
)
from channeld.tower.protocol import NOTHING, Held, check_held

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from channeld.core.eip712 import Domain
    from channeld.core.terms import Terms

CHANNEL, STATE, DOMAIN = "tower_channel", "tower_state", "tower_domain"
DEFAULT_QUOTA = 100
DEFAULT_CAPACITY = 100_000


class Documents(Protocol):
    """What the ledger needs of a store: store/sqlite.py is one."""

    async def commit(self, writes: Sequence[records.Write]) -> tuple[int, ...]:
        """All writes durable, or none."""
        ...

    async def documents(self, kind: str, prefix: str = "") -> tuple[tuple[str, bytes], ...]:
        """The documents of a kind."""
        ...

    async def document(self, kind: str, key: str) -> bytes | None:
        """One document."""
        ...


@dataclass
class Watched:
    """A channel that is watched. owners: the parties that asked for it. ended: it is over on chain, for good.

    held: the highest state brought, which refutes. durable: the highest that survives a crash, which has receipts.
    """

    channel: bytes
    terms: Terms
    owners: frozenset[bytes]
    held: Held = NOTHING
    durable: Held = NOTHING
    ended: bool = False


@dataclass(frozen=True)
class Owners:
    """Who is served. quotas: channels by owner. anyone: the quota of whoever is not listed; 0 serves nobody else."""

    quotas: Mapping[bytes, int] = field(default_factory=dict)
    anyone: int = 0
    capacity: int = DEFAULT_CAPACITY

    def quota(self, owner: bytes) -> int:
        """How many channels an owner may have; 0 where it is not served."""
        return self.quotas.get(owner, self.anyone)


def read_owners(path: Path, *, anyone: int = 0, capacity: int = DEFAULT_CAPACITY) -> Owners:
    """The owners in a file: an address a line, and a number of channels after it (100 where there is none).

    Raises:
        OwnersFileError: it cannot be read, naming the line.

    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OwnersFileError(f"the owners' file {path} cannot be read: {error}") from error
    quotas: dict[bytes, int] = {}
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            quotas[address_from_text(words[0])] = int(words[1]) if len(words) > 1 else DEFAULT_QUOTA
        except (ChanneldError, ValueError) as error:
            raise OwnersFileError(f"{path}, line {number}: {error}", line=number) from error
        if len(words) > 2 or not 0 <= quotas[address_from_text(words[0])] <= DEFAULT_CAPACITY:
            raise OwnersFileError(f"{path}, line {number}: an address and a number of channels, no more", line=number)
    return Owners(quotas, anyone, capacity)


class Ledger:
    """The channels of one tower, all of one contract."""

    def __init__(self, store: Documents, domain: Domain, owners: Owners) -> None:
        """Bind; `load` reads what is there."""
        self._store = store
        self._domain = domain
        self.owners = owners
        self.channels: dict[bytes, Watched] = {}
        self.conflicts: list[tuple[bytes, int]] = []

    async def load(self) -> None:
        """Read what an earlier run kept.

        Raises:
            OtherTowerContractsError: it is of another contract or chain.
            StoreError: it cannot be read.

        """
        name = f"{self._domain.chain_id}/{self._domain.adjudicator.hex()}"
        known = await self._store.document(DOMAIN, "")
        if known is None:
            await self._store.commit([records.PutDocument(DOMAIN, "", name.encode())])
        elif known.decode() != name:
            raise OtherTowerContractsError(f"the records are of {known.decode()}, the deployment is of {name}")
        for key, raw in await self._store.documents(CHANNEL):
            data = json.loads(raw)
            owners = frozenset(bytes.fromhex(owner) for owner in data["owners"])
            terms = terms_from_json(data["terms"])
            self.channels[bytes.fromhex(key)] = Watched(bytes.fromhex(key), terms, owners, ended=data["ended"])
        for key, raw in await self._store.documents(STATE):
            version, body_hash, signature_a, signature_b = json.loads(raw)
            held = Held(version, bytes.fromhex(body_hash), bytes.fromhex(signature_a), bytes.fromhex(signature_b))
            self.channels[bytes.fromhex(key)].held = held
            self.channels[bytes.fromhex(key)].durable = held

    def live(self) -> list[Watched]:
        """The channels that have not ended."""
        return [watched for watched in self.channels.values() if not watched.ended]

    def count(self, owner: bytes) -> int:
        """How many channels an owner has that have not ended."""
        return sum(owner in watched.owners for watched in self.live())

    def admit(self, owner: bytes) -> None:
        """Return only if an owner is served.

        Raises:
            NotAdmittedError: it is not.

        """
        if self.owners.quota(owner) < 1:
            raise NotAdmittedError(f"0x{owner.hex()} is not an owner of this tower")

    def _own(self, owner: bytes, channel: bytes) -> Watched:
        watched = self.channels.get(channel)
        # whoever is not a party learns nothing, not even whether the channel is watched
        if watched is None or owner not in watched.owners:
            raise NotWatchedError(f"channel 0x{channel.hex()[:8]} is not watched for 0x{owner.hex()[:8]}")
        return watched

    async def register(self, owner: bytes, domain: Domain, terms: Terms) -> Watched:
        """Watch a channel for one of its parties. Doing it again changes nothing.

        Raises:
            ForeignChannelError: another contract or chain, or the owner is no party.
            OverQuotaError: the owner has its number of channels, or the tower is full.
            StoreError: it could not be made durable.

        """
        if domain != self._domain:
            raise ForeignChannelError(
                f"this tower watches 0x{self._domain.adjudicator.hex()} on chain {self._domain.chain_id}"
            )
        if owner not in {terms.a.signer, terms.b.signer}:
            raise ForeignChannelError(f"0x{owner.hex()} signs for neither party of the terms")
        channel = channel_id(domain, terms)
        watched = self.channels.get(channel)
        if watched is not None and owner in watched.owners:
            return watched
        if self.count(owner) >= self.owners.quota(owner):
            raise OverQuotaError(f"0x{owner.hex()} has {self.owners.quota(owner)} channels here already")
        if watched is None and len(self.live()) >= self.owners.capacity:
            raise OverQuotaError(f"this tower is full: {self.owners.capacity} channels")
        watched = self.channels.setdefault(channel, Watched(channel, terms, frozenset()))
        # in memory first: commits keep the order of their calls, so the last one written has all owners
        watched.owners |= {owner}
        await self._keep(watched)
        return watched

    async def _keep(self, watched: Watched) -> None:
        data = {
            "terms": terms_to_json(watched.terms),
            "owners": sorted(owner.hex() for owner in watched.owners),
            "ended": watched.ended,
        }
        await self._store.commit([records.PutDocument(CHANNEL, watched.channel.hex(), json.dumps(data).encode())])

    async def put(self, owner: bytes, channel: bytes, held: Held) -> Watched:
        """Keep a state, if it is higher than what is held; what is held then.

        Raises:
            NotWatchedError: the channel is not watched for this owner.
            BadStateSignaturesError: the two parties have not signed it.
            ConflictingStateError: another body of the same version is held, signed by both as well.
            StoreError: it could not be made durable.

        """
        watched = self._own(owner, channel)
        mine = watched.held
        if held.version > mine.version or (held.version == mine.version and held.body_hash != mine.body_hash):
            check_held(self._domain, watched.terms, channel, held)
            if held.version == mine.version:
                self.conflicts.append((channel, held.version))
                raise ConflictingStateError(
                    f"version {held.version} of 0x{channel.hex()[:8]} is held with another body, signed by both too",
                    version=held.version,
                )
            watched.held = held
        await self._settle(watched)
        return watched

    async def _settle(self, watched: Watched) -> None:
        """Make the highest state durable. Commits keep the order of their calls, so the disk never goes back either."""
        while watched.durable.version < watched.held.version:
            held = watched.held
            value = json.dumps([held.version, held.body_hash.hex(), held.signature_a.hex(), held.signature_b.hex()])
            await self._store.commit([records.PutDocument(STATE, watched.channel.hex(), value.encode())])
            if held.version > watched.durable.version:
                watched.durable = held

    def look(self, owner: bytes, channel: bytes) -> Watched:
        """What is held of an owner's channel.

        Raises:
            NotWatchedError: the channel is not watched for this owner.

        """
        return self._own(owner, channel)

    async def end(self, channel: bytes) -> None:
        """A channel has ended on chain, deep enough to stay so."""
        watched = self.channels[channel]
        watched.ended = True
        await self._keep(watched)
