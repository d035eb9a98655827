"""The signer's record against its rule, over random requests: never two digests at one version, never one below."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from store_conformance import CHANNEL, digest, signed

from channeld.core.records import SIGNED_CLOSE, SIGNED_STATE, DoubleSignError
from channeld.store.memory import MemoryStore

requests = st.tuples(st.integers(0, 6), st.integers(0, 2), st.sampled_from([SIGNED_STATE, SIGNED_CLOSE]))


@given(st.lists(st.lists(requests, min_size=1, max_size=3), max_size=12))
def test_the_record_never_breaks_its_rule(commits):
    async def run():
        store = MemoryStore()
        model = {SIGNED_STATE: {}, SIGNED_CLOSE: {}}
        for commit in commits:
            trial = {kind: dict(versions) for kind, versions in model.items()}
            allowed = True
            for version, number, kind in commit:
                known = trial[kind]
                if version in known:
                    allowed &= known[version] == number
                elif kind == SIGNED_STATE and version <= max(known, default=-1):
                    allowed = False
                known.setdefault(version, number)
            try:
                await store.commit([signed(version, number, kind) for version, number, kind in commit])
            except DoubleSignError:
                assert not allowed
            else:
                assert allowed
                model = trial
            for kind, known in model.items():
                top = await store.highest_signed(CHANNEL, kind)
                assert (top.version if top else None) == max(known, default=None)
                for version, number in known.items():
                    assert (await store.signed(CHANNEL, version, kind)).digest == digest(number)
        await store.close()

    asyncio.run(run())
