"""A tower's door: signed requests over HTTP POST, each answered with receipts.

Rules: a body is bounded before it is read, a sender's requests are counted before anything of them is checked, and an
owner's once its signature is good; whoever is not an owner learns nothing of any channel. Nothing is answered for
before it is durable. Whatever goes wrong is a typed error as JSON, never a traceback. Requests are authentic without
TLS; where it is wanted, put a reverse proxy in front.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web

from channeld.core.crypto import ADDRESS_BYTES, SignatureError, checksum_address, keccak256, verify
from channeld.core.eip712 import Domain
from channeld.core.errors import ChanneldError, InternalError, StoreError
from channeld.core.files import terms_from_json
from channeld.tower import protocol
from channeld.tower.errors import (
    ForeignChannelError,
    MalformedTowerRequestError,
    NotAdmittedError,
    RepeatedRequestError,
    RequestSignatureError,
    TooManyRequestsError,
    TowerError,
    TowerUnableError,
)
from channeld.tower.protocol import Check, Put, Receipt, Register, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from channeld.tower.ledger import Ledger, Watched

log = structlog.get_logger(__name__)

MOST_SENDERS = 10_000
_STATUS = {NotAdmittedError: 403, RequestSignatureError: 403, TooManyRequestsError: 429, TowerUnableError: 503}


@dataclass(frozen=True)
class Limits:
    """How often a sender (by network address) and an owner may ask: so many a second, and so many at once."""

    sender_rate: float = 20.0
    sender_burst: float = 100.0
    owner_rate: float = 20.0
    owner_burst: float = 100.0


class Buckets:
    """Counts requests by who sends them, in bounded memory: whoever was not heard of for longest is forgotten first."""

    def __init__(self, rate: float, burst: float, now_s: Callable[[], float]) -> None:
        """Allow `burst` requests at once, and `rate` a second. now_s: a clock that only rises, in seconds."""
        self._rate, self._burst, self._now_s = rate, burst, now_s
        self._left: OrderedDict[object, tuple[float, float]] = OrderedDict()

    def take(self, who: object) -> None:
        """Count one request.

        Raises:
            TooManyRequestsError: there were too many.

        """
        now = self._now_s()
        left, then = self._left.pop(who, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._rate)
        self._left[who] = (max(0.0, left - 1), now)
        if len(self._left) > MOST_SENDERS:
            self._left.popitem(last=False)
        if left < 1:
            raise TooManyRequestsError(f"more than {self._rate:g} requests a second")


class Door:
    """Answers owners' requests."""

    def __init__(
        self,
        ledger: Ledger,
        domain: Domain,
        address: bytes,
        sign: Callable[[bytes], bytes],
        *,
        now_ms: Callable[[], int],
        block: Callable[[], int],
        health: Callable[[], dict[str, Any]],
        registered: Callable[[bytes], None] = lambda _channel: None,
        limits: Limits | None = None,
        monotonic_s: Callable[[], float],
    ) -> None:
        """Bind.

        Args:
            ledger: what is watched.
            domain: the contract and chain of its channels.
            address: the tower's own, 20 bytes.
            sign: signs a digest with the tower's key.
            now_ms: the time of receipts, Unix milliseconds.
            block: the newest block seen.
            health: what GET /healthz tells.
            registered: told of every channel that is registered.
            limits: of requests.
            monotonic_s: a clock that only rises, for the limits.

        """
        self._ledger, self._domain, self._address, self._sign = ledger, domain, address, sign
        self._now_ms, self._block, self._health, self._registered = now_ms, block, health, registered
        limits = limits or Limits()
        self._senders = Buckets(limits.sender_rate, limits.sender_burst, monotonic_s)
        self._owners = Buckets(limits.owner_rate, limits.owner_burst, monotonic_s)
        self._numbers: OrderedDict[bytes, int] = OrderedDict()
        self.served = 0
        self.refused = 0

    def application(self) -> web.Application:
        """The HTTP application."""
        app = web.Application(client_max_size=protocol.MAX_BODY)
        app.router.add_post(protocol.PATH, self._post)
        app.router.add_get("/healthz", self._get_health)
        return app

    async def _get_health(self, request: web.Request) -> web.Response:
        try:
            self._senders.take(request.remote)
        except TooManyRequestsError as error:
            return web.json_response({"error": error.as_data()}, status=429)
        told = self._health()
        return web.json_response(told, status=200 if told["status"] == "ok" else 503)

    async def _post(self, request: web.Request) -> web.Response:
        try:
            # counted before it is read: whoever floods costs a look into a table
            self._senders.take(request.remote)
            try:
                body = await request.read()
            except web.HTTPException as error:
                raise MalformedTowerRequestError(f"the request is larger than {protocol.MAX_BODY} bytes") from error
            answer = await self.answer(body, request.headers.get(protocol.SIGNATURE_HEADER, ""))
        except ChanneldError as error:
            self.refused += 1
            status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 400)
            return web.json_response({"error": error.as_data()}, status=status)
        except Exception as error:
            log.exception("a request failed")
            bug = InternalError(f"the request failed: {type(error).__name__}")
            return web.json_response({"error": bug.as_data()}, status=500)
        self.served += 1
        return web.json_response(answer)

    async def answer(self, body: bytes, signature: str) -> dict[str, Any]:
        """The answer to the bytes of a request and the text of its signature.

        Raises:
            TowerError: why it is refused; nothing was kept.

        """
        request = protocol.decode_request(body)
        owner = self._authenticate(request, body, signature)
        hashed = keccak256(body)
        try:
            match request.ask:
                case Register() as ask:
                    return {"results": [await self._register(owner, ask, hashed)]}
                case Put(states):
                    return {"results": [await self._one(self._put(owner, item, hashed)) for item in states]}
                case Check(channels):
                    return {"results": [await self._one(self._check(owner, one, hashed)) for one in channels]}
        except StoreError as error:
            log.critical("the store failed", code=error.code, why=str(error))
            raise TowerUnableError("the tower cannot keep anything now: its store has failed") from error

    def _authenticate(self, request: Request, body: bytes, signature: str) -> bytes:
        owner = protocol.unhex(request.owner, ADDRESS_BYTES, "owner")
        if protocol.unhex(request.tower, ADDRESS_BYTES, "tower") != self._address:
            raise MalformedTowerRequestError(f"the request is for another tower; this is 0x{self._address.hex()}")
        # looked up before the curve is asked: whoever is not on the list costs no more than that
        self._ledger.admit(owner)
        try:
            verify(protocol.request_digest(body), protocol.unhex(signature, 65, protocol.SIGNATURE_HEADER), owner)
        except SignatureError as error:
            raise RequestSignatureError(f"the request is not signed by {checksum_address(owner)}: {error}") from error
        self._owners.take(owner)
        last = self._numbers.get(owner, -1)
        if request.number <= last:
            raise RepeatedRequestError(f"request {request.number} comes after {last}", number=request.number, last=last)
        self._numbers[owner] = request.number
        self._numbers.move_to_end(owner)
        if len(self._numbers) > MOST_SENDERS:
            # its requests could be played again: they change nothing, and tell their own owner's version
            self._numbers.popitem(last=False)
        return owner

    async def _one(self, work: Any) -> dict[str, Any]:  # noqa: ANN401 - a coroutine of a result
        """One item of several: its refusal does not take the others down."""
        try:
            result: dict[str, Any] = await work
        except TowerError as error:
            return {"error": error.as_data()}
        return result

    async def _register(self, owner: bytes, ask: Register, request: bytes) -> dict[str, Any]:
        try:
            domain = Domain(ask.chain_id, protocol.unhex(ask.adjudicator, ADDRESS_BYTES, "adjudicator"))
            terms = terms_from_json(ask.terms)
        except TowerError:
            raise
        except (ChanneldError, RecursionError) as error:
            raise MalformedTowerRequestError(f"the terms cannot be used: {error}") from error
        if domain != self._domain:
            raise ForeignChannelError(
                f"this tower watches 0x{self._domain.adjudicator.hex()} on chain {self._domain.chain_id}"
            )
        watched = await self._ledger.register(owner, domain, terms)
        self._registered(watched.channel)
        return self._with_state(owner, watched, 0, request)

    async def _put(self, owner: bytes, item: protocol.Item, request: bytes) -> dict[str, Any]:
        channel, held = protocol.held_of(item)
        watched = await self._ledger.put(owner, channel, held)
        return self._with_state(owner, watched, held.version, request)

    async def _check(self, owner: bytes, asked: protocol.Asked, request: bytes) -> dict[str, Any]:
        watched = self._ledger.look(owner, protocol.unhex(asked.channel, 32, "channel"))
        return self._with_state(owner, watched, asked.version, request)

    def _with_state(self, owner: bytes, watched: Watched, version: int, request: bytes) -> dict[str, Any]:
        """The receipt, and the state itself where the owner has a lower one: it has lost what its key has signed."""
        told = self._receipt(owner, watched, request)
        if watched.durable.version > version:
            item = protocol.item_of(watched.channel, watched.durable)
            told["state"] = {name: getattr(item, name) for name in item.__struct_fields__}
        return told

    def _receipt(self, owner: bytes, watched: Watched, request: bytes) -> dict[str, Any]:
        held = watched.durable
        blank = Receipt(
            watched.channel, held.version, held.body_hash, owner, self._now_ms(), self._block(), request, b""
        )
        signature = self._sign(protocol.receipt_digest(self._domain, blank))
        return {"receipt": protocol.receipt_to_json(replace(blank, signature=signature)), "ended": watched.ended}
