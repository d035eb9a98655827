"""What the desk knows of prices: the latest prints, the packages of a MARK, and the fixes it may ever need.

Rules: every package was verified by the oracle room before it is seen here. Fixes are archived; passing prints are not.
What is whole (every signer heard) is asked for once; what is missing or partial is asked for again after a pause, which
is as long as the last answer took: a service that hangs does not hold up the desk more than half of the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from channeld.core.acceptance import Prices
from channeld.core.errors import OracleError
from channeld.core.packages import Fix, fix_price, print_price
from channeld.core.risk_arrays import RiskCache
from channeld.core.terms import ZERO_FEED
from channeld.core.transition import is_expired, mark_needs
from channeld.core.wad import WAD
from channeld.desk.marks import Material
from channeld.oracle.client import ArchiveError, fix_packages, print_packages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from channeld.core.state import Body
    from channeld.core.terms import Oracle, Terms
    from channeld.oracle.client import PackageSource

log = structlog.get_logger(__name__)

LOOK_BACK_TICKS = 3
RETRY_S = 0.5
SLOW_S = 1.0
MOST_KEPT = 512
# channels of one oracle whose risk arrays are kept
MOST_CACHES = 64

FixOf = tuple[tuple[bytes, ...], Fix | None]


def _now_s() -> float:
    return asyncio.get_running_loop().time()


async def _asking(ask: Callable[[], Awaitable[tuple[Any, bool]]]) -> tuple[Any, bool]:
    return await ask()


class PriceBook:
    """Prices of one oracle, for the channels whose terms name it."""

    def __init__(self, oracle: Oracle, live: PackageSource, archived: PackageSource) -> None:
        """`live` for passing prints, `archived` for fixes."""
        self._oracle = oracle
        self._live = live
        self._archived = archived
        self.no_new_risk: Callable[[], str] = str
        self._prints: dict[bytes, tuple[int, int]] = {}
        self._answers: OrderedDict[tuple[str, bytes, int], tuple[float, Any]] = OrderedDict()
        self._seen: tuple[Terms, int, dict[bytes, tuple[int, int]], Prices] | None = None
        self._risk: list[tuple[Terms, RiskCache]] = []

    @property
    def printed(self) -> dict[bytes, int]:
        """When the newest print of each feed was made, Unix seconds."""
        return {feed: t for feed, (t, _) in self._prints.items()}

    @property
    def spots(self) -> dict[bytes, int]:
        """The newest print of each feed, wads."""
        return {feed: value for feed, (_, value) in self._prints.items()}

    def latest_tick(self, now_ms: int) -> int:
        """The last tick at or before now, seconds."""
        second = now_ms // 1000
        return second - second % self._oracle.tick

    async def _asked(self, key: tuple[str, bytes, int], ask: Callable[[], Awaitable[tuple[Any, bool]]]) -> Any:  # noqa: ANN401 - what `ask` gives
        """The answer to a question: remembered for ever where it is final, else for a pause."""
        held = self._answers.get(key)
        began = _now_s()
        if held is not None and began < held[0]:
            return held[1]
        # in a task of its own: what is asked over the network times out by its task, which may be that of a reader here
        answer, final = await asyncio.create_task(_asking(ask))
        now = _now_s()
        self._answers[key] = (math.inf if final else now + max(RETRY_S, now - began), answer)
        self._answers.move_to_end(key)
        while len(self._answers) > MOST_KEPT:
            self._answers.popitem(last=False)
        return answer

    async def print_of(self, feed: bytes, t: int) -> tuple[bytes, ...]:
        """The packages of print(feed, t); empty where there is no quorum."""

        async def ask() -> tuple[tuple[bytes, ...], bool]:
            try:
                packages = await print_packages(self._live, self._oracle, feed, t)
            except OracleError:
                return (), False
            return packages, len(packages) == len(self._oracle.signers)

        found: tuple[bytes, ...] = await self._asked(("print", feed, t), ask)
        return found

    async def fix_of(self, feed: bytes, t: int) -> FixOf:
        """The packages of fix(feed, t), archived, and the fix they make; empty and None where there is no quorum."""

        async def ask() -> tuple[FixOf, bool]:
            try:
                packages = await self._fix_packages(feed, t)
                fix = fix_price(self._oracle, feed, t, packages)
            except OracleError:
                return ((), None), False
            return (packages, fix), fix.complete

        found: FixOf = await self._asked(("fix", feed, t), ask)
        return found

    async def _fix_packages(self, feed: bytes, t: int) -> tuple[bytes, ...]:
        try:
            return await fix_packages(self._archived, self._oracle, feed, t)
        except ArchiveError as error:
            # a broken archive must not keep a fix from the chain while the service still has its packages
            log.warning("the archive of packages fails; the fix is not kept", why=str(error))
            return await fix_packages(self._live, self._oracle, feed, t)

    async def refresh(self, feed: bytes, now_ms: int) -> None:
        """Learn the newest print of a feed, looking back a few ticks."""
        newest = self.latest_tick(now_ms)
        for back in range(LOOK_BACK_TICKS):
            t = newest - back * self._oracle.tick
            known = self._prints.get(feed)
            if known is not None and known[0] >= t:
                return
            began = _now_s()
            packages = await self.print_of(feed, t)
            if packages:
                with contextlib.suppress(OracleError):
                    price = print_price(self._oracle, feed, t, packages).value
                    self._prints = {**self._prints, feed: (t, price)}
                    return
            if _now_s() - began > SLOW_S:
                return  # it hangs: older prints would hang as well

    def _must_ask(self, feed: bytes, now_ms: int) -> bool:
        """Whether `refresh` would ask anybody: false where the newest print, or its absence, is known already."""
        newest = self.latest_tick(now_ms)
        known = self._prints.get(feed)
        now = 0.0
        for back in range(LOOK_BACK_TICKS):
            t = newest - back * self._oracle.tick
            if known is not None and known[0] >= t:
                return False
            held = self._answers.get(("print", feed, t))
            now = now or _now_s()
            if held is None or now >= held[0] or held[1]:
                return True
        return False

    async def capture(self, body: Body, now_ms: int) -> None:
        """Archive the fix of every position that has expired, while the signers still have its packages."""
        second = now_ms // 1000
        keys = {(p.instrument.feed, p.instrument.expiry) for p in body.positions if is_expired(p.instrument, second)}
        for feed, expiry in sorted(keys):
            await self.fix_of(feed, expiry)

    def _risk_of(self, terms: Terms) -> RiskCache:
        """The risk arrays of these very terms; a channel keeps its own, so they are found by identity."""
        for held, cache in self._risk:
            if held is terms:
                return cache
        cache = RiskCache(terms)
        self._risk = [(terms, cache), *self._risk][:MOST_CACHES]
        return cache

    async def prices(self, terms: Terms, body: Body, now_ms: int) -> Prices:
        """The desk's own view at now, for every market of the terms and the collateral."""
        second = now_ms // 1000
        expired = any(is_expired(p.instrument, second) for p in body.positions)
        held = self._seen
        if held is not None and not expired and held[0] is terms and held[1] == second and held[2] is self._prints:
            return replace(held[3], no_new_risk=why) if (why := self.no_new_risk()) != held[3].no_new_risk else held[3]
        feeds = set(terms.feeds)
        if terms.collateral_feed != ZERO_FEED:
            feeds.add(terms.collateral_feed)
        late = sorted(feed for feed in feeds if self._must_ask(feed, now_ms))
        if late:
            await asyncio.gather(*(self.refresh(feed, now_ms) for feed in late))
        fixes = {}
        for p in body.positions:
            i = p.instrument
            if is_expired(i, second) and (i.feed, i.expiry) not in fixes:
                _, fix = await self.fix_of(i.feed, i.expiry)
                if fix is not None:
                    fixes[i.feed, i.expiry] = fix.value
        collateral = self._prints.get(terms.collateral_feed, (0, body.collateral_mark))[1]
        found = Prices(
            time=second,
            spots={feed: self._prints[feed][1] for feed in terms.feeds if feed in self._prints},
            printed={feed: self._prints[feed][0] for feed in terms.feeds if feed in self._prints},
            collateral=collateral if terms.collateral_feed != ZERO_FEED else WAD,
            fixes=fixes,
            no_new_risk=self.no_new_risk(),
            risk=self._risk_of(terms),
        )
        whole = all(self._prints.get(feed, (0, 0))[0] >= self.latest_tick(now_ms) for feed in feeds)
        self._seen = (terms, second, self._prints, found) if whole and not expired else None
        return found

    async def material(self, terms: Terms, body: Body, t: int) -> Material:
        """All that a MARK at t may carry."""
        needs = mark_needs(terms, body, t)
        prints = {feed: await self.print_of(feed, t) for feed in needs.prints}
        fixes = {key: (await self.fix_of(*key))[0] for key in needs.fixes}
        return Material(prints, fixes)
