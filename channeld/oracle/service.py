"""The signing service: RedStone packages for every tick that the clock has reached, over HTTP.

Rules: one (feed, tick) has one price and therefore one set of packages: they are signed on demand, deterministically,
and remembered. Times in the future of the clock, and times that are no tick, are refused. One feed in a package, one
package per signer, signers ascending. Errors are JSON, {"error": ChanneldError.as_data()}, never a traceback. Keys come
from keystores; derived ones, which anybody can derive, only where devnet is asked for in so many words. Misbehaviour is
for tests and demonstrations, and as explicit.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

from aiohttp import web

from channeld.core.crypto import address_of, checksum_address, keccak256
from channeld.core.errors import ChanneldError, Fault, OracleError
from channeld.core.packages import VALUE_DECIMALS, DataPoint, sign_package
from channeld.core.strict_json import read_json
from channeld.core.terms import MAX_SIGNERS, feed_id, feed_symbol
from channeld.core.wad import format_decimal
from channeld.oracle.sources import ManualSource, PriceSource, PriceUnavailableError, UnknownFeedError, parse_price

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

MAX_FEEDS = 16
REMEMBERED = 16_384
MAX_BODY = 4_096
_DEVNET_LABEL = b"channeld devnet oracle signer "


class TimeNotReachedError(OracleError):
    """Packages of a time that the service's clock has not reached."""

    code = 4054
    fault = Fault.USER
    advice = "Ask again when the time is reached."


class NotATickError(OracleError):
    """A time that is no multiple of the service's tick."""

    code = 4055
    fault = Fault.USER
    advice = "Ask for a multiple of the tick since the epoch."


class MalformedRequestError(OracleError):
    """A request whose parameters are missing or not what they must be."""

    code = 4056
    fault = Fault.USER
    advice = "See docs/oracle.md for the parameters."


class SignerKeysError(OracleError):
    """The service has no usable set of signer keys."""

    code = 4057
    fault = Fault.USER
    advice = "Give a directory of keystores, one for each signer; --devnet derives keys that are worth nothing."


class ServiceClock(Protocol):
    """Whatever tells the time."""

    def now_ms(self) -> int:
        """The time, in milliseconds since the epoch."""
        ...


@dataclass(frozen=True)
class Misbehaviour:
    """What signers do wrong, by their index among the ascending signers. skew: basis points added to the price."""

    silent: frozenset[int] = frozenset()
    skew: Mapping[int, int] = field(default_factory=dict)


def devnet_signer_keys(count: int) -> list[bytes]:
    """Keys that anybody can derive: for devnets and tests alone."""
    return [keccak256(_DEVNET_LABEL + str(i).encode("ascii")) for i in range(count)]


def signer_keys(
    *,
    devnet: bool,
    count: int = 3,
    directory: Path | None = None,
    open_keystore: Callable[[Path], bytes] | None = None,
) -> list[bytes]:
    """The service's private keys: of every *.json keystore in a directory, or derived, with `devnet` only.

    open_keystore decrypts one file (the keystore code belongs to another room); its errors pass through.

    Raises:
        SignerKeysError: neither or both are asked for, or the directory holds none, too many or repeated keys.

    """
    if devnet:
        if directory is not None:
            raise SignerKeysError("--devnet derives its keys; a keystore directory was given as well")
        if not 1 <= count <= MAX_SIGNERS:
            raise SignerKeysError(f"{count} signers: must be 1 to {MAX_SIGNERS}")
        return devnet_signer_keys(count)
    if directory is None or open_keystore is None:
        raise SignerKeysError("no keystore directory was given")
    files = sorted(directory.glob("*.json"))
    if not 1 <= len(files) <= MAX_SIGNERS:
        raise SignerKeysError(f"{directory} holds {len(files)} keystores; there must be 1 to {MAX_SIGNERS}")
    return [open_keystore(file) for file in files]


class OracleService:
    """Signs prices of a source. `packages` is the whole of it; `application` puts it on HTTP."""

    def __init__(
        self,
        keys: Sequence[bytes],
        source: PriceSource,
        clock: ServiceClock,
        *,
        tick: int = 10,
        misbehaviour: Misbehaviour | None = None,
        devnet: bool = False,
    ) -> None:
        """Take private keys, a source and a clock; tick in seconds. devnet opens POST /price on a ManualSource.

        Raises:
            SignerKeysError: no keys, too many, or one twice.

        """
        by_signer = {address_of(key): key for key in keys}
        if not 1 <= len(by_signer) <= MAX_SIGNERS or len(by_signer) != len(keys):
            raise SignerKeysError(f"{len(keys)} keys of {len(by_signer)} signers: must be 1 to {MAX_SIGNERS}, distinct")
        if tick <= 0:
            raise NotATickError(f"a tick of {tick} seconds: must be positive")
        self.signers: tuple[bytes, ...] = tuple(sorted(by_signer))
        self.tick = tick
        self.misbehaviour = misbehaviour or Misbehaviour()
        self._keys = [by_signer[signer] for signer in self.signers]
        self._source = source
        self._clock = clock
        self._devnet = devnet
        self._signed: OrderedDict[tuple[bytes, int, int, int], bytes] = OrderedDict()

    def last_tick_ms(self) -> int:
        """The last tick that the clock has reached, in milliseconds."""
        step = self.tick * 1000
        return self._clock.now_ms() // step * step

    def packages(self, feed: bytes, timestamp_ms: int) -> list[bytes]:
        """The signed packages of a feed at a tick, one for each signer that is not silent, signers ascending.

        Raises:
            NotATickError, TimeNotReachedError: not a time to sign.
            UnknownFeedError, PriceUnavailableError: the source has no price for it.

        """
        if timestamp_ms < 0 or timestamp_ms % (self.tick * 1000):
            raise NotATickError(
                f"{timestamp_ms} ms is no multiple of the tick of {self.tick} s", timestamp_ms=timestamp_ms
            )
        now = self._clock.now_ms()
        if timestamp_ms > now:
            raise TimeNotReachedError(
                f"{timestamp_ms} ms is not reached: it is {now} ms", timestamp_ms=timestamp_ms, now_ms=now
            )
        price = self._source.price(feed, timestamp_ms // 1000)
        wrong = self.misbehaviour
        return [
            self._sign(index, feed, timestamp_ms, max(1, price * (10_000 + wrong.skew.get(index, 0)) // 10_000))
            for index in range(len(self._keys))
            if index not in wrong.silent
        ]

    def _sign(self, index: int, feed: bytes, timestamp_ms: int, value: int) -> bytes:
        key = (feed, timestamp_ms, index, value)
        signed = self._signed.get(key)
        if signed is None:
            signed = sign_package(self._keys[index], timestamp_ms, (DataPoint(feed, value),))
            self._signed[key] = signed
            if len(self._signed) > REMEMBERED:
                self._signed.popitem(last=False)
        return signed

    def set_price(self, feed: bytes, value: int, *, at: int | None = None) -> int:
        """Set a price (8 decimals) on a devnet's manual source; the second from which it counts.

        Raises:
            MalformedRequestError: no devnet, or another kind of source.
            PriceSettingError: as `ManualSource.set_price`.

        """
        if not self._devnet or not isinstance(self._source, ManualSource):
            raise MalformedRequestError("prices are set by hand on a devnet with a manual source alone")
        return self._source.set_price(feed, value, now_ms=self._clock.now_ms(), at=at)

    def application(self) -> web.Application:
        """The HTTP application; docs/oracle.md describes its requests."""
        app = web.Application(middlewares=[_errors_as_json], client_max_size=MAX_BODY)
        app.add_routes(
            [
                web.get("/packages", self._get_packages),
                web.get("/latest", self._get_latest),
                web.get("/signers", self._get_signers),
                web.get("/healthz", self._get_health),
                web.post("/price", self._post_price),
                # The place of RedStone's gateway format (GET /data-packages/latest/{service}); see docs/oracle.md.
            ]
        )
        return app

    async def _get_packages(self, request: web.Request) -> web.Response:
        text = request.query.get("timestamp_ms", "")
        if not (text.isascii() and text.isdigit() and len(text) <= 15):
            raise MalformedRequestError(f"timestamp_ms must be a whole number of milliseconds, not {text!r}")
        return self._answer(_feeds(request), int(text))

    async def _get_latest(self, request: web.Request) -> web.Response:
        return self._answer(_feeds(request), self.last_tick_ms())

    def _answer(self, feeds: list[bytes], timestamp_ms: int) -> web.Response:
        found = [raw for feed in feeds for raw in self.packages(feed, timestamp_ms)]
        return web.json_response({"timestamp_ms": timestamp_ms, "packages": ["0x" + raw.hex() for raw in found]})

    async def _get_signers(self, _: web.Request) -> web.Response:
        return web.json_response(
            {
                "signers": [checksum_address(signer) for signer in self.signers],
                "tick": self.tick,
                "feeds": [feed_symbol(feed) for feed in self._source.feeds()],
            }
        )

    async def _get_health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "time_ms": self._clock.now_ms(), "last_tick_ms": self.last_tick_ms()})

    async def _post_price(self, request: web.Request) -> web.Response:
        try:
            asked = read_json(await request.read())
        except ValueError as error:
            raise MalformedRequestError(f"the body is no JSON: {error}") from error
        if not isinstance(asked, dict) or not {"feed", "price"} <= asked.keys() <= {"feed", "price", "time"}:
            raise MalformedRequestError('the body must be {"feed": ..., "price": ...}, and may hold "time"')
        at = asked.get("time")
        if at is not None and (isinstance(at, bool) or not isinstance(at, int)):
            raise MalformedRequestError(f"time must be whole Unix seconds, not {at!r}")
        value = parse_price(asked["price"])
        counts_from = self.set_price(_feed(asked["feed"]), value, at=at)
        return web.json_response(
            {"feed": asked["feed"], "price": format_decimal(value, VALUE_DECIMALS), "time": counts_from}
        )


def _feed(symbol: object) -> bytes:
    if not isinstance(symbol, str):
        raise MalformedRequestError(f"{symbol!r} is no feed symbol")
    try:
        return feed_id(symbol)
    except ChanneldError as error:
        raise MalformedRequestError(str(error)) from error


def _feeds(request: web.Request) -> list[bytes]:
    feeds = [_feed(symbol) for symbol in request.query.getall("feed", [])]
    if not 1 <= len(feeds) <= MAX_FEEDS or len(set(feeds)) != len(feeds):
        raise MalformedRequestError(f"name 1 to {MAX_FEEDS} different feeds, as feed=ETH&feed=BTC")
    return feeds


_NOT_FOUND = (TimeNotReachedError, PriceUnavailableError, UnknownFeedError)


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    def answer(error: ChanneldError, status: int) -> web.Response:
        return web.json_response({"error": error.as_data()}, status=status)

    try:
        return await handler(request)
    except ChanneldError as error:
        return answer(error, 404 if isinstance(error, _NOT_FOUND) else 400)
    except web.HTTPException as error:
        refused = MalformedRequestError(f"{request.method} {request.path}: {error.reason}")
        return answer(refused, error.status)


class Serving:
    """An OracleService that listens: `async with Serving(service) as serving: serving.url`. Port 0 takes a free one."""

    def __init__(self, service: OracleService, host: str = "127.0.0.1", port: int = 0) -> None:
        """Prepare; nothing listens yet."""
        self._runner = web.AppRunner(service.application(), access_log=None)
        self._host, self._port = host, port
        self.url = ""

    async def start(self) -> str:
        """Listen; the URL.

        Raises:
            OSError: the port cannot be had; the caller names it to its user.

        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        try:
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        address: Any = self._runner.addresses[0]
        self.url = f"http://{self._host}:{address[1]}"
        return self.url

    async def stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()
