"""The watchtower as a service: its store, its door, its look at the chain, together.

Rules: it starts only on contracts that it has checked, and answers owners only once it has seen the chain. A store that
fails stops the answers (nothing is promised that would not survive) and not the refutations, which need memory and the
chain alone. Errors of the chain are retried for ever.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import structlog
from aiohttp import web

from channeld import __version__
from channeld.chain.deployment import verify_deployment
from channeld.chain.rpc import ChainRpc
from channeld.chain.transactions import Fees, LocalSigner, TransactionManager
from channeld.core.crypto import address_of, checksum_address, sign_digest
from channeld.core.errors import ChanneldError, SetupError
from channeld.store import open_store
from channeld.tower.door import Door, Limits
from channeld.tower.guard import Fixes, Guard
from channeld.tower.ledger import Ledger, Owners

if TYPE_CHECKING:
    from pathlib import Path

    from channeld.chain.clock import Clock
    from channeld.chain.deployment import Deployment

log = structlog.get_logger(__name__)

LOOK_FIRST_S = 30.0
POOR_WEI = 10**16


class TowerListenError(SetupError):
    """The tower's address cannot be used."""

    code = 3433
    advice = "Another program listens there: stop it, or give another port with --listen."


@dataclass(frozen=True)
class Settings:
    """How a tower runs. Times in seconds; confirmations and within_blocks in blocks; poor_wei: gas money to warn at."""

    url: str
    data: Path
    host: str = "127.0.0.1"
    port: int = 9900
    confirmations: int = 12
    within_blocks: int = 10
    poll_s: float = 2.0
    max_view_age_s: float = 180.0
    blocks_keep_time: bool = True
    limits: Limits = field(default_factory=Limits)
    fees: Fees = field(default_factory=Fees)
    poor_wei: int = POOR_WEI


class Tower:
    """`async with Tower(...) as tower: tower.url, tower.address`."""

    def __init__(
        self,
        settings: Settings,
        private_key: bytes,
        deployment: Deployment,
        owners: Owners,
        clock: Clock,
        *,
        fixes: Fixes | None = None,
    ) -> None:
        """Prepare; `start` opens the store and listens. fixes: where packages come from, to prove fixes with."""
        self._settings, self._key, self._deployment, self._clock = settings, private_key, deployment, clock
        self._owners, self._fixes = owners, fixes
        self.address = address_of(private_key)
        self.url = ""
        self._runner: web.AppRunner | None = None
        self._task: asyncio.Task[None] | None = None
        self._seen_ms = 0
        self._trouble = "the chain has not been seen yet"
        self._balance = 0
        self._looked = asyncio.Event()

    async def start(self) -> None:
        """Open, check, look, listen.

        Raises:
            StoreError, ChainError, SetupError: what stands in the way.
        """
        settings = self._settings
        self._rpc = ChainRpc(settings.url)
        try:
            await verify_deployment(self._rpc, self._deployment)
            self._store = await open_store(settings.data / "tower.db", lock_path=settings.data / "tower.lock")
        except BaseException:
            await self._rpc.close()
            raise
        try:
            self.ledger = Ledger(self._store, self._deployment.domain, self._owners)
            await self.ledger.load()
            self.transactions = TransactionManager(
                self._rpc, LocalSigner(self._key), chain_id=self._deployment.chain_id, fees=settings.fees
            )
            self.guard = Guard(
                self._rpc,
                self._deployment,
                self.transactions,
                self.ledger,
                confirmations=settings.confirmations,
                within_blocks=settings.within_blocks,
                fixes=self._fixes,
                now_s=lambda: self._clock.now_ms() // 1000,
            )
            self.door = Door(
                self.ledger,
                self._deployment.domain,
                self.address,
                lambda digest: sign_digest(self._key, digest),
                now_ms=self._clock.now_ms,
                block=lambda: self.guard.block,
                health=self.health,
                registered=self.guard.registered,
                limits=settings.limits,
                monotonic_s=time.monotonic,
            )
            self._task = asyncio.create_task(self._loop(), name="tower")
            await self._listen()
        except BaseException:
            await self.stop()
            raise
        log.info("tower ready", url=self.url, address=checksum_address(self.address), channels=len(self.ledger.live()))

    async def _listen(self) -> None:
        self._runner = web.AppRunner(self.door.application(), access_log=None, handle_signals=False)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._settings.host, self._settings.port).start()
        except OSError as error:
            raise TowerListenError(
                f"the tower cannot listen on {self._settings.host}:{self._settings.port}: {error.strerror}"
            ) from error
        bound: Any = self._runner.addresses[0]
        self.url = f"http://{self._settings.host}:{bound[1]}"

    async def _loop(self) -> None:
        while True:
            try:
                await self.guard.look()
                self._balance = await self._rpc.balance(self.address)
                self._seen_ms, self._trouble = self._clock.now_ms(), ""
            except ChanneldError as error:
                if str(error) != self._trouble:
                    log.warning("the chain", code=error.code, why=str(error))
                self._trouble = str(error)
            except Exception as error:
                log.exception("looking at the chain failed")
                self._trouble = f"looking at the chain failed: {type(error).__name__}"
            looked, self._looked = self._looked, asyncio.Event()
            looked.set()
            await asyncio.sleep(self._settings.poll_s)

    async def looked(self) -> None:
        """Return after a look that begins after this call; for tests."""
        await self._looked.wait()
        await self._looked.wait()

    def health(self) -> dict[str, Any]:
        """What GET /healthz tells: whether it could refute now, and what it has done. No channel is named."""
        now = self._clock.now_ms()
        age = now - self._seen_ms
        if self._settings.blocks_keep_time and self._seen_ms:
            age = max(age, now - self.guard.block_time * 1000)
        trouble = self._trouble
        if not trouble and age > self._settings.max_view_age_s * 1000:
            trouble = f"the view of the chain is {age // 1000} s old"
        if self._store.poisoned is not None:
            trouble = f"the store has failed: {self._store.poisoned}"
        elif not trouble and self._balance < self._settings.poor_wei:
            trouble = f"the key that pays for gas has {self._balance} wei left"
        counts = self.guard.counts
        return {
            "status": trouble or "ok",
            "version": __version__,
            "address": checksum_address(self.address),
            "chain_id": self._deployment.chain_id,
            "adjudicator": checksum_address(self._deployment.adjudicator),
            "time_ms": now,
            "block": self.guard.block,
            "channels": len(self.ledger.live()),
            "disputed": self.guard.disputed,
            "challenges": counts.challenges,
            "refuted": counts.refuted,
            "late": counts.late,
            "failed": counts.failed,
            "fixes_proven": counts.proven,
            "slowest_blocks": counts.slowest_blocks,
            "conflicts": len(self.ledger.conflicts),
            "requests_served": self.door.served,
            "requests_refused": self.door.refused,
        }

    async def stop(self) -> None:
        """Stop; what is durable goes on at the next start."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self.guard.stop()
        await self._rpc.close()
        await self._store.close()

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()
