"""A desk that has lost its records, made again of the blob that a peer keeps for it.

Rules: no daemon runs, and nothing is signed but the proof of identity on the link. The database is made, or completed
by channels that it does not hold; what is there is never changed. Every channel is marked as lost with it: the daemon
asks peers, towers and chain first and signs nothing below what they show (docs/protocol.md, 9.8).
"""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from channeld.chain.deployment import parse_deployment, write_deployment
from channeld.core import records, wire
from channeld.core.channel.recovery import BASE_DOCUMENT, base_key, lost_mark
from channeld.core.codec import encode
from channeld.core.crypto import address_of, checksum_address, sign_digest
from channeld.core.strict_json import read_json
from channeld.daemon.blob_format import NoBlobError, open_blob
from channeld.daemon.chain_desk import OPENER
from channeld.daemon.high_water import FILE
from channeld.daemon.peer_blobs import OURS
from channeld.daemon.recovery import RESTORED
from channeld.store import open_store
from channeld.transport.handshake import Identity
from channeld.transport.hub import PeerHub
from channeld.transport.link import Limits

if TYPE_CHECKING:
    from channeld.daemon.blob_format import Content, KeptChannel
    from channeld.daemon.config import Config

PEER = "peer"
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Recovered:
    """What was made of a blob. made: the channels that were put into the database, which did not hold them."""

    content: Content
    made: frozenset[bytes]

    def as_data(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "created_ms": self.content.time_ms,
            "desk": self.content.desk,
            "peers": [{"address": checksum_address(a), "name": n, "url": u} for a, n, u in self.content.peers],
            "channels": [
                {
                    "channel": "0x" + kept.record.channel.hex(),
                    "status": kept.record.status,
                    "version": kept.state.version if kept.state else 0,
                    "signed": kept.signed,
                    "recovered": kept.record.channel in self.made,
                }
                for kept in self.content.channels
            ],
        }


async def fetch(
    config: Config, key: bytes, peer: bytes, url: str | None, *, patience_s: float = PATIENCE_S
) -> tuple[int, bytes]:
    """The blob that a peer gives back, and its number. Without a URL the peer is waited for where it dials.

    Raises:
        NoBlobError: the peer was reached and has none, or could not be reached in time.
        BadPeerConfigurationError: a URL that is none, or no place to listen at.
    """
    found: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

    def message(_peer: bytes, array: list[Any]) -> None:
        got = wire.from_wire(array)
        if found.done():
            return
        if isinstance(got, wire.ReturnBlob):
            found.set_result((got.number, got.blob))
        else:
            found.set_exception(NoBlobError("the peer keeps no blob for this desk, or withholds it"))

    hub = PeerHub(
        Identity(address_of(key), secrets.token_bytes(32), lambda digest: sign_digest(key, digest)),
        on_connected=lambda _: None,
        on_message=message,
        on_lost=lambda _peer, _reason: None,
        limits=Limits(reconnect_cap=2.0),
    )
    hub.add_peer(peer, url)
    address = config.peer_address if url is None else None
    await hub.start(address.host if address else None, address.port if address else 0)
    try:
        return await asyncio.wait_for(found, patience_s)
    except TimeoutError:
        why = hub.last_error(peer)
        raise NoBlobError(f"the peer gave nothing back in {patience_s:.0f} s" + (f": {why}" if why else "")) from None
    finally:
        await hub.stop()


async def recover(
    config: Config, key: bytes, peer: bytes, url: str | None, *, patience_s: float = PATIENCE_S
) -> Recovered:
    """Ask a peer for this desk's blob, and put what it holds into the desk's directory. No daemon may run on it.

    Raises:
        NoBlobError, AlteredBlobError, UnsoundBackupError: what the peer gives back is of no use; nothing was changed.
        StoreError: the database cannot be opened (a daemon runs), or takes nothing.
    """
    folder = config.data_path
    database = folder / "channeld.db"
    begun = not config.desk.store and not database.exists()
    # taken before the peer is asked: a link of ours would end that of a daemon that runs
    store = await open_store(config.desk.store or database, lock_path=folder / "daemon.lock")
    done = False
    try:
        number, blob = await fetch(config, key, peer, url, patience_s=patience_s)
        content = await asyncio.to_thread(open_blob, key, address_of(key), peer, number, blob)
        there = {record.channel for record in await store.channels()}
        named = {name for name, _ in await store.documents(PEER)}
        writes: list[records.Write] = [records.PutDocument(OURS, peer.hex(), encode([number, number]))]
        for address, name, known_url in content.peers:
            if address.hex() not in named:
                reached = url if address == peer and url else known_url
                value = json.dumps({"name": name, "url": reached}).encode()
                writes.append(records.PutDocument(PEER, address.hex(), value))
        missing = [kept for kept in content.channels if kept.record.channel not in there]
        for kept in missing:
            writes += _writes(kept)
        if there or (folder / FILE).exists():
            # an earlier life of this directory: what is left of it is declared old as a whole
            (folder / RESTORED).touch(mode=0o600)
        await store.commit(writes)
        done = True
    finally:
        await store.close()
        if begun and not done:
            for name in ("channeld.db", "channeld.db-wal", "channeld.db-shm"):
                (folder / name).unlink(missing_ok=True)
    target = folder / "deployment.json"
    if content.deployment and not target.exists():
        write_deployment(target, parse_deployment(_json(content.deployment)))
    return Recovered(content, frozenset(kept.record.channel for kept in missing))


def _writes(kept: KeptChannel) -> list[records.Write]:
    """A channel as it is put into a database that does not hold it: its newest state, and that all else is lost."""
    channel, state = kept.record.channel, kept.state
    writes: list[records.Write] = [records.PutChannel(kept.record)]
    if kept.opener:
        writes.append(records.PutDocument(OPENER, channel.hex(), b"1"))
    if state is not None and state.body is not None:
        writes.append(records.PutState(state))
        writes.append(records.PutDocument(BASE_DOCUMENT, base_key(channel, state.version), state.body))
    return [*writes, lost_mark(channel)]


def _json(text: str) -> object:
    try:
        return read_json(text)
    except ValueError:
        return None
