"""Packages from RedStone's gateways: their JSON over HTTP, turned back into the bytes that were signed.

Rules: a gateway is trusted for nothing. Its JSON is not what was signed: every package is built again, byte for byte,
and judged by its signature as any other (Gathering). Several gateways are asked in order, the one that served last
first, until every signer has been heard; each answer is bounded in size, nesting and time. An answer holds all feeds of
its moment, so one with every signer is kept for a while and asked for once.

Request: GET BASE/data-packages/historical/SERVICE/MILLISECONDS. Answer: {feed: [{timestampMilliseconds, signature
(base64 of r, s, v), dataPoints: [{dataFeedId, value}]}]}. A value is a JavaScript number that its signer wrote with 8
decimals (Number.toFixed), which is done here from the same double. Source: redstone-finance/redstone-oracles-monorepo,
packages/cache-service and packages/protocol.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import OrderedDict
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from channeld.core.errors import ChanneldError
from channeld.core.package_codec import DataPoint, MalformedPackageError, Package, encode_package
from channeld.core.strict_json import read_json
from channeld.core.terms import feed_id, feed_symbol
from channeld.oracle.client import HttpSource, PackagesUnavailableError, read_limited

if TYPE_CHECKING:
    from collections.abc import Sequence

    from channeld.core.terms import Oracle

SERVICE = "redstone-primary-prod"
MAX_GATEWAY_ANSWER = 16 << 20
MOST_KEPT = 16
MOST_PACKAGES = 64
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
_EIGHT = Decimal(1).scaleb(-8)
_MOST_VALUE = Decimal(10) ** 40


def value_of(number: object) -> int:
    """A value with 8 decimals, from the JSON number (or its text) of a gateway.

    Raises:
        MalformedPackageError: it is no positive finite number.
    """
    if isinstance(number, bool) or not isinstance(number, int | str):
        raise MalformedPackageError(f"a value must be a number, not {type(number).__name__}")
    if isinstance(number, str) and not _NUMBER.fullmatch(number):
        raise MalformedPackageError(f"a value is no number: {number[:40]!r}")
    try:
        exact = Decimal(number) if isinstance(number, int) else Decimal(float(number))
        if not 0 < exact < _MOST_VALUE:
            raise MalformedPackageError("a value must be positive and finite")
        return int(exact.quantize(_EIGHT, ROUND_HALF_UP).scaleb(8))
    except (ValueError, InvalidOperation, OverflowError) as error:
        raise MalformedPackageError(f"a value is no number: {str(number)[:40]!r}") from error


def _feed(name: object) -> bytes:
    if not isinstance(name, str):
        raise MalformedPackageError("a feed's id must be a text")
    if name.startswith("0x") and len(name) == 66:
        try:
            return bytes.fromhex(name[2:])
        except ValueError as error:
            raise MalformedPackageError(f"{name!r} is no feed") from error
    return feed_id(name)


def package_of(row: object) -> bytes:
    """The signed package of one entry of a gateway's answer, its points in the order of their feeds, as was signed.

    Raises:
        OracleError, InvalidTermsError: the entry is none.
    """
    if not isinstance(row, dict):
        raise MalformedPackageError("a package must be an object")
    points, at, signature = row.get("dataPoints"), row.get("timestampMilliseconds"), row.get("signature")
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        raise MalformedPackageError("a package has no list of data points")
    if not isinstance(at, int) or isinstance(at, bool) or not isinstance(signature, str):
        raise MalformedPackageError("a package lacks its time or its signature")
    try:
        signed = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedPackageError("a signature is not base64") from error
    found = [DataPoint(_feed(point.get("dataFeedId")), value_of(point.get("value"))) for point in points]
    found.sort(key=lambda point: point.feed)
    return encode_package(Package(tuple(found), at, signature=signed))


def packages_of(answer: object, feed: bytes) -> tuple[list[bytes], list[str]]:
    """The packages of a feed in a gateway's answer, and why entries were dropped."""
    if not isinstance(answer, dict):
        raise MalformedPackageError("the answer is no object of feeds")
    symbol = feed_symbol(feed)
    rows = [row for key in (symbol, "0x" + feed.hex()) for row in _list(answer.get(key))]
    packages, dropped = [], []
    for row in rows[:MOST_PACKAGES]:
        try:
            packages.append(package_of(row))
        except ChanneldError as error:
            dropped.append(str(error))
    return packages, dropped


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


class GatewayPackages(HttpSource):
    """Packages from gateways at several base URLs, such as https://oracle-gateway-1.a.redstone.finance."""

    def __init__(self, oracle: Oracle, urls: Sequence[str], *, service: str = SERVICE, timeout_s: float = 5.0) -> None:
        """Take base URLs and the name of the data service; nothing is asked yet. timeout_s bounds each request."""
        super().__init__(oracle, urls, timeout_s=timeout_s)
        self._service = service
        self._kept: OrderedDict[tuple[str, int], object] = OrderedDict()

    async def _offered(self, url: str, feed: bytes, t: int) -> tuple[list[bytes], list[str]]:
        return packages_of(await self._answer(url, t, feed), feed)

    async def _answer(self, url: str, t: int, feed: bytes) -> object:
        kept = self._kept.get((url, t))
        if kept is not None and len(packages_of(kept, feed)[0]) >= len(self._oracle.signers):
            return kept
        answer = await self._ask(url, t)
        self._kept[url, t] = answer
        self._kept.move_to_end((url, t))
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return answer

    async def _ask(self, url: str, t: int) -> object:
        path = f"{url}/data-packages/historical/{self._service}/{t * 1000}"
        async with self._session().get(path, allow_redirects=False) as response:
            body = await read_limited(response, MAX_GATEWAY_ANSWER)
            if response.status != 200:
                raise PackagesUnavailableError(f"HTTP {response.status}")
            try:
                return read_json(body)
            except ValueError as error:
                raise MalformedPackageError(f"the answer is no JSON: {error}") from error
