"""Helpers of the chain room's tests: devnets in threads, roles and their keys, terms and signatures."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from channeld.chain.contracts import Adjudicator, FixBook, Lens, Token
from channeld.chain.devnet import Devnet
from channeld.core.crypto import address_of, keccak256, sign_digest
from channeld.core.terms import Market, Oracle, Party, Terms, feed_id
from channeld.core.wad import WAD

if TYPE_CHECKING:
    from channeld.chain.deployment import Deployment
    from channeld.chain.rpc import ChainRpc

START_TIME = 1_900_000_000


def role_key(role):
    """The private key of a role."""
    return keccak256(b"key of the " + role.encode())


class DevnetThread:
    """A devnet on an event loop of its own, so that every test may have its own loop."""

    def __init__(self, backend, **options):
        self.devnet = Devnet(backend, **options)
        self.loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._failure = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self.devnet.start())
        except Exception as error:  # noqa: BLE001 - raised again by the fixture
            self._failure = error
            self._ready.set()
            return
        self._ready.set()
        self.loop.run_forever()
        self.loop.run_until_complete(self.devnet.stop())
        self.loop.close()

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(60)
        if self._failure is not None:
            raise self._failure
        return self.devnet.url

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(30)


def need_anvil():
    if shutil.which("anvil") is None:
        pytest.skip("anvil is not on the PATH (npm: @foundry-rs/anvil)")


@dataclass
class World:
    rpc: ChainRpc
    deployment: Deployment
    token: Token
    managers: dict

    @property
    def adjudicator(self):
        return Adjudicator(self.rpc, self.deployment.adjudicator)

    @property
    def fix_book(self):
        return FixBook(self.rpc, self.deployment.fix_book)

    @property
    def lens(self):
        return Lens(self.rpc, self.deployment.lens)


_salts = itertools.count(1)
ORACLE_KEYS = tuple(role_key(f"oracle signer {number}") for number in range(3))
PAYOUTS = (b"\xa1" * 20, b"\xb2" * 20)


def example_terms(collateral, *, salt=None, markets=("BTC", "ETH")):
    """Terms between maker (a) and taker (b); a fresh salt each time."""
    signers = tuple(sorted(address_of(key) for key in ORACLE_KEYS))
    return Terms(
        a=Party(address_of(role_key("maker")), PAYOUTS[0]),
        b=Party(address_of(role_key("taker")), PAYOUTS[1]),
        collateral=collateral,
        decimals=6,
        collateral_feed=bytes(32),
        haircut=0,
        oracle=Oracle(signers, 2, 10, 2, 60, 60, 7_200),
        markets=tuple(Market(feed_id(m), WAD // 9, WAD // 2, WAD // 3, WAD // 50, WAD // 200) for m in markets),
        initial_factor=13 * WAD // 10,
        closeout_penalty=3 * WAD // 100,
        challenge_period=86_400,
        cure_period=3_600,
        sequencer=0,
        salt=(next(_salts) if salt is None else salt).to_bytes(32, "big"),
    )


def both_sign(digest):
    """sigs: the maker's signature, then the taker's."""
    return sign_digest(role_key("maker"), digest) + sign_digest(role_key("taker"), digest)
