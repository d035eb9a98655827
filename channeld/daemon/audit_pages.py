"""What an audit file is made of, page by page, from the store. The file itself is core/audit.py's.

Rules: a page takes the memory of a page, whatever the length of the journal. It begins where the records of this desk
begin: at version 0, or at the state taken when earlier ones were lost. The same pages come from a store that no daemon
holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from channeld.core import records
from channeld.core.channel.recovery import BASE_DOCUMENT
from channeld.core.crypto import checksum_address
from channeld.core.files import body_to_json, terms_to_json

if TYPE_CHECKING:
    from channeld.core.channel import Channel

MOST_AUDITED = 500


async def audit_page(store: records.Store, channel: Channel, after: int, last: int, limit: int) -> dict[str, Any]:
    """At most `limit` versions above `after` and up to `last`; `next` is 0 where there are no more."""
    base = await _base(store, channel.id, last)
    begin = max(after, int(base["version"]) if base else 0)
    batches = await store.batches(channel.id, begin + 1, last, max(1, limit))
    states: dict[int, records.CosignedState] = {}
    if batches:
        found = await store.states(channel.id, batches[0].version, batches[-1].version)
        states = {state.version: state for state in found}
    rows = []
    for batch in batches:
        state = states.get(batch.version)
        rows.append(
            {
                "version": batch.version,
                "batch": "0x" + batch.raw.hex(),
                "body_hash": "0x" + state.body_hash.hex() if state else "",
                "signature_a": "0x" + state.signature_a.hex() if state else "",
                "signature_b": "0x" + state.signature_b.hex() if state else "",
            }
        )
    more = bool(batches) and batches[-1].version < last
    return {
        "chain_id": channel.domain.chain_id,
        "adjudicator": checksum_address(channel.domain.adjudicator),
        "channel": "0x" + channel.id.hex(),
        "terms": terms_to_json(channel.terms),
        "base": base,
        "until": last,
        "rows": rows,
        "next": batches[-1].version if more else 0,
    }


async def _base(store: records.Store, channel: bytes, last: int) -> dict[str, Any] | None:
    """The co-signed state that these records begin from, where those before it are lost."""
    newest = None
    for key, raw in await store.documents(BASE_DOCUMENT, channel.hex()):
        version = int(key.split("/")[-1])
        if version <= last and (newest is None or version > newest[0]):
            newest = (version, raw)
    if newest is None:
        return None
    state = await store.state(channel, newest[0])
    if state is None:
        return None
    return {
        "version": newest[0],
        "body": body_to_json(records.decode_body(newest[1])),
        "signature_a": "0x" + state.signature_a.hex(),
        "signature_b": "0x" + state.signature_b.hex(),
    }
