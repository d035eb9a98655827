"""The guard before the key: what was signed once binds it, whoever asks, and after a restart too."""

from __future__ import annotations

import asyncio

import pytest

from channeld.core.crypto import address_of, keccak256, verify
from channeld.core.records import (
    SIGNED_CLOSE,
    SIGNED_STATE,
    SIGNED_WITHDRAWAL,
    ChannelRecord,
    DoubleSignError,
    PutChannel,
    PutSigned,
)
from channeld.daemon.signer import GuardedSigner, TooFarAboveError
from channeld.store.errors import StoreClosedError
from channeld.store.memory import MemoryStore

KEY = keccak256(b"channeld test key maker")
CHANNEL, OTHER = b"\x11" * 32, b"\x22" * 32


def digest(number: int) -> bytes:
    return keccak256(b"digest %d" % number)


class SlowStore(MemoryStore):
    """Answers once it is let go; several readers wait at once."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.readers = 0

    async def highest_signed(self, channel, kind=SIGNED_STATE):
        self.readers += 1
        if self.readers == 2:
            self.gate.set()
        await self.gate.wait()
        return await super().highest_signed(channel, kind)


async def ready(store: MemoryStore) -> GuardedSigner:
    for channel in (CHANNEL, OTHER):
        await store.commit([PutChannel(ChannelRecord(channel, b"\x02" * 20, 0, b"", 1, b"\x03" * 20, "open", 1))])
    return GuardedSigner(KEY, store)


@pytest.fixture
async def store():
    made = MemoryStore()
    yield made
    await made.close()


@pytest.fixture
async def signer(store):
    return await ready(store)


async def kept(store, signer, version: int, number: int, kind: str = SIGNED_STATE) -> bytes:
    """Signed, and durable."""
    signature = await signer.sign(CHANNEL, kind, version, digest(number))
    await store.commit([PutSigned(CHANNEL, version, digest(number), signature, kind)])
    return signature


async def test_it_signs_with_its_key(signer):
    assert signer.address == address_of(KEY)
    verify(digest(1), await signer.sign(CHANNEL, SIGNED_STATE, 1, digest(1)), signer.address)
    verify(digest(2), signer.sign_plain(digest(2)), signer.address)


async def test_the_same_digest_again_gives_the_same_bytes(store, signer):
    first = await kept(store, signer, 1, 1)
    assert await signer.sign(CHANNEL, SIGNED_STATE, 1, digest(1)) == first
    await kept(store, signer, 5, 5)
    assert await signer.sign(CHANNEL, SIGNED_STATE, 1, digest(1)) == first


async def test_another_digest_for_one_version_is_refused(signer):
    await signer.sign(CHANNEL, SIGNED_STATE, 3, digest(3))
    with pytest.raises(DoubleSignError, match="version 3 is signed already") as caught:
        await signer.sign(CHANNEL, SIGNED_STATE, 3, digest(4))
    assert caught.value.details == {"version": 3, "highest": 3}
    assert caught.value.code == 6001


async def test_a_version_below_one_signed_is_refused(signer):
    await signer.sign(CHANNEL, SIGNED_STATE, 66, digest(66))
    for version in (1, 65, 0):
        with pytest.raises(DoubleSignError, match="version 66 is signed already"):
            await signer.sign(CHANNEL, SIGNED_STATE, version, digest(version))


async def test_a_refusal_leaves_the_guard_where_it_was(signer):
    await signer.sign(CHANNEL, SIGNED_STATE, 3, digest(3))
    for _ in range(2):
        with pytest.raises(DoubleSignError):
            await signer.sign(CHANNEL, SIGNED_STATE, 2, digest(2))
    assert await signer.sign(CHANNEL, SIGNED_STATE, 4, digest(4))


async def test_the_durable_record_binds_after_a_restart(store, signer):
    first = await kept(store, signer, 7, 7)
    again = GuardedSigner(KEY, store)
    with pytest.raises(DoubleSignError):
        await again.sign(CHANNEL, SIGNED_STATE, 7, digest(8))
    with pytest.raises(DoubleSignError):
        await again.sign(CHANNEL, SIGNED_STATE, 6, digest(6))
    assert await again.sign(CHANNEL, SIGNED_STATE, 7, digest(7)) == first


async def test_what_never_became_durable_never_left_and_does_not_bind(store, signer):
    await signer.sign(CHANNEL, SIGNED_STATE, 7, digest(7))
    again = GuardedSigner(KEY, store)
    assert await again.sign(CHANNEL, SIGNED_STATE, 7, digest(8))


async def test_channels_and_kinds_do_not_bind_each_other(signer):
    await signer.sign(CHANNEL, SIGNED_STATE, 9, digest(9))
    assert await signer.sign(OTHER, SIGNED_STATE, 1, digest(1))
    assert await signer.sign(CHANNEL, SIGNED_WITHDRAWAL, 2, digest(2))
    assert await signer.sign(CHANNEL, SIGNED_CLOSE, 1_750_000_000, digest(3))


async def test_two_at_once_cannot_both_sign():
    """Both read the record before either has signed."""
    slow = SlowStore()
    signer = await ready(slow)
    outcomes = await asyncio.gather(
        *(signer.sign(CHANNEL, SIGNED_STATE, 1, digest(n)) for n in (1, 2)), return_exceptions=True
    )
    assert sorted(type(o).__name__ for o in outcomes) == ["DoubleSignError", "bytes"]
    await slow.close()


async def test_a_store_that_cannot_be_read_signs_nothing(store, signer):
    await store.close()
    with pytest.raises(StoreClosedError):
        await signer.sign(CHANNEL, SIGNED_STATE, 1, digest(1))


async def test_far_above_the_last_lies_nothing_but_the_leap_of_a_recovery(store):
    signer = await ready(store)
    await signer.sign(CHANNEL, SIGNED_STATE, 128, digest(1))
    with pytest.raises(TooFarAboveError):
        await signer.sign(CHANNEL, SIGNED_STATE, 257, digest(2))
    # documents have numbers of other kinds: a Close is under its validUntil
    await signer.sign(CHANNEL, SIGNED_CLOSE, 1_750_000_000, digest(3))
    await signer.sign(CHANNEL, SIGNED_STATE, 256, digest(4))
    await signer.sign(CHANNEL, SIGNED_STATE, 1 << 32, digest(5), leap=True)
    for version in (257, 1 << 32):
        with pytest.raises(DoubleSignError):
            await signer.sign(CHANNEL, SIGNED_STATE, version, digest(6), leap=True)
