"""Reading for `channeld dispute`: prices, signatures, fixes, and what a bundle is worth."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from channeld.cli.dispute.words import inspect_data
from channeld.cli.errors import CommandError
from channeld.core.errors import InputError, OracleError
from channeld.core.instruments import parse_feed
from channeld.core.packages import fix_price, print_price
from channeld.core.settlement import entitlement
from channeld.core.terms import ZERO_FEED
from channeld.core.transition import is_expired
from channeld.core.wad import format_decimal, parse_decimal
from channeld.daemon.emergency.packages import CasePackages
from channeld.oracle.client import fix_packages, print_packages

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from channeld.core.bundle import Bundle
    from channeld.daemon.emergency.case import Case, Facts
    from channeld.oracle.client import PackageSource

LOOK_BACK_TICKS = 6


class BadSignatureTextError(InputError):
    """A text that is no signature."""

    code = 1430
    advice = "A signature is 0x and 130 hexadecimal digits: r, s and v, as wallets print it."


def parse_prices(texts: Sequence[str]) -> dict[bytes, int]:
    """Prices (wads) by feed from texts such as ETH=3000.

    Raises:
        CommandError, InputError: malformed.

    """
    prices = {}
    for text in texts:
        feed, equals, number = text.partition("=")
        if not equals or not feed:
            message = f"{text!r} is no price: write FEED=NUMBER, such as ETH=3000"
            raise CommandError(message)
        prices[parse_feed(feed)] = parse_decimal(number)
    return prices


def parse_signatures(*texts: str) -> bytes:
    """Signatures one after another.

    Raises:
        BadSignatureTextError: one is none.

    """
    raw = b""
    for text in texts:
        try:
            one = bytes.fromhex(text.removeprefix("0x"))
        except ValueError:
            one = b""
        if len(one) != 65:
            message = f"{text[:20]!r} is no signature of 65 bytes"
            raise BadSignatureTextError(message)
        raw += one
    return raw


async def inspect_bundle(
    bundle: Bundle,
    given: dict[bytes, int],
    case: Case | None,
    found: Facts | None,
    oracle: Sequence[str] = (),
    folder: Path | None = None,
) -> dict[str, Any]:
    """What a bundle entitles to: at given prices, and for the other feeds at the newest prints that can be had."""
    now = found.time if found is not None else int(time.time())
    if case is not None:
        prices, fixes = await _values(bundle, given, case.packages, now)
        stand = case.as_they_stand(found)
    else:
        source = CasePackages(bundle, folder, oracle)
        try:
            prices, fixes = await _values(bundle, given, source, now)
        finally:
            await source.close()
        body = bundle.state.body
        totals = (body.a.deposited, body.b.deposited, body.a.withdrawn, body.b.withdrawn)
        names = ("deposited_a", "deposited_b", "paid_a", "paid_b")
        stand = entitlement(body.a, 0, **dict(zip(names, totals, strict=True)))
    return inspect_data(bundle, found, prices, fixes, now, stand)


async def _values(
    bundle: Bundle, given: dict[bytes, int], source: PackageSource, now: int
) -> tuple[dict[bytes, int], dict[tuple[bytes, int], int]]:
    oracle, prices = bundle.terms.oracle, dict(given)
    feeds = {p.instrument.feed for p in bundle.state.body.positions}
    if bundle.terms.collateral_feed != ZERO_FEED:
        feeds.add(bundle.terms.collateral_feed)
    newest = now - now % oracle.tick
    for feed in sorted(feeds - prices.keys()):
        for back in range(LOOK_BACK_TICKS):
            t = newest - back * oracle.tick
            try:
                packages = await print_packages(source, oracle, feed, t)
                prices[feed] = print_price(oracle, feed, t, packages).value
            except OracleError:
                continue
            break
    fixes = {}
    for p in bundle.state.body.positions:
        key = (p.instrument.feed, p.instrument.expiry)
        if is_expired(p.instrument, now) and key not in fixes:
            try:
                fixes[key] = fix_price(oracle, *key, await fix_packages(source, oracle, *key)).value
            except OracleError:
                continue
    return prices, fixes


async def fetch(bundle: Bundle, feed: str, at: int, urls: Sequence[str], folder: Path | None) -> dict[str, Any]:
    """Fetch the packages of a fix, keep them, and say what fix they make.

    Raises:
        OracleError: they cannot be had, or make no fix.

    """
    oracle, key = bundle.terms.oracle, parse_feed(feed)
    source = CasePackages(bundle, folder, urls)
    try:
        packages = await fix_packages(source, oracle, key, at)
    finally:
        await source.close()
    fix = fix_price(oracle, key, at, packages)
    return {
        "feed": feed,
        "time": at,
        "price": format_decimal(fix.value),
        "weight": fix.weight,
        "complete": fix.complete,
        "kept_in": str(folder) if folder is not None else "",
        "packages": ["0x" + raw.hex() for raw in packages],
    }
