"""What the desk knows of prices: the latest prints, the packages of a MARK, and the fixes it may ever need.

Rules: every package was verified by the oracle room before it is seen here. Fixes are archived; passing prints are not.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from channeld.core.acceptance import Prices
from channeld.core.errors import OracleError
from channeld.core.packages import Fix, fix_price, print_price
from channeld.core.terms import ZERO_FEED
from channeld.core.transition import is_expired, mark_needs
from channeld.core.wad import WAD
from channeld.desk.marks import Material
from channeld.oracle.client import fix_packages, print_packages

if TYPE_CHECKING:
    from channeld.core.state import Body
    from channeld.core.terms import Oracle, Terms
    from channeld.oracle.client import PackageSource

LOOK_BACK_TICKS = 3


class PriceBook:
    """Prices of one oracle, for the channels whose terms name it."""

    def __init__(self, oracle: Oracle, live: PackageSource, archived: PackageSource) -> None:
        """`live` for passing prints, `archived` for fixes."""
        self._oracle = oracle
        self._live = live
        self._archived = archived
        self._prints: dict[bytes, tuple[int, int]] = {}

    def latest_tick(self, now_ms: int) -> int:
        """The last tick at or before now, seconds."""
        second = now_ms // 1000
        return second - second % self._oracle.tick

    async def print_of(self, feed: bytes, t: int) -> tuple[bytes, ...]:
        """The packages of print(feed, t); empty where there is no quorum."""
        try:
            return await print_packages(self._live, self._oracle, feed, t)
        except OracleError:
            return ()

    async def fix_of(self, feed: bytes, t: int) -> tuple[tuple[bytes, ...], Fix | None]:
        """The packages of fix(feed, t), archived, and the fix they make; empty and None where there is no quorum."""
        try:
            packages = await fix_packages(self._archived, self._oracle, feed, t)
            return packages, fix_price(self._oracle, feed, t, packages)
        except OracleError:
            return (), None

    async def refresh(self, feed: bytes, now_ms: int) -> None:
        """Learn the newest print of a feed, looking back a few ticks."""
        newest = self.latest_tick(now_ms)
        known = self._prints.get(feed)
        for back in range(LOOK_BACK_TICKS):
            t = newest - back * self._oracle.tick
            if known is not None and known[0] >= t:
                return
            packages = await self.print_of(feed, t)
            if packages:
                with contextlib.suppress(OracleError):
                    self._prints[feed] = (t, print_price(self._oracle, feed, t, packages).value)
                    return

    async def prices(self, terms: Terms, body: Body, now_ms: int) -> Prices:
        """The desk's own view at now, for every market of the terms and the collateral."""
        feeds = set(terms.feeds)
        if terms.collateral_feed != ZERO_FEED:
            feeds.add(terms.collateral_feed)
        for feed in sorted(feeds):
            await self.refresh(feed, now_ms)
        second = now_ms // 1000
        fixes = {}
        for p in body.positions:
            i = p.instrument
            if is_expired(i, second) and (i.feed, i.expiry) not in fixes:
                _, fix = await self.fix_of(i.feed, i.expiry)
                if fix is not None:
                    fixes[i.feed, i.expiry] = fix.value
        collateral = self._prints.get(terms.collateral_feed, (0, body.collateral_mark))[1]
        return Prices(
            time=second,
            spots={feed: self._prints[feed][1] for feed in terms.feeds if feed in self._prints},
            printed={feed: self._prints[feed][0] for feed in terms.feeds if feed in self._prints},
            collateral=collateral if terms.collateral_feed != ZERO_FEED else WAD,
            fixes=fixes,
        )

    async def material(self, terms: Terms, body: Body, t: int) -> Material:
        """All that a MARK at t may carry."""
        needs = mark_needs(terms, body, t)
        prints = {feed: await self.print_of(feed, t) for feed in needs.prints}
        fixes = {key: (await self.fix_of(*key))[0] for key in needs.fixes}
        return Material(prints, fixes)
