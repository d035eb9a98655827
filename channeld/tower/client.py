"""An owner's side of a watchtower: asks, and believes nothing that the tower's key has not signed.

Rules: every receipt is verified against the tower's address, which the owner knows beforehand, and against the request
that it answers; one that shows less than an earlier one is the tower's fault and is kept as evidence. Answers are
bounded. One request at a time, so that their numbers rise. Errors are typed; a tower that does not answer is one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import msgspec

from channeld.core.crypto import checksum_address, keccak256
from channeld.core.errors import REGISTRY, ChanneldError
from channeld.core.files import terms_to_json
from channeld.tower import protocol
from channeld.tower.errors import (
    BadReceiptError,
    TowerAnswerError,
    TowerBrokeItsWordError,
    TowerError,
    TowerUnreachableError,
)
from channeld.tower.protocol import Asked, Check, Held, Put, Receipt, Register

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from channeld.core.eip712 import Domain
    from channeld.core.terms import Terms
    from channeld.tower.protocol import TowerName

MAX_ANSWER = 1 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tower says of one channel. state: its own, where it is higher than the owner's, both signatures checked.

    receipt is None where it refuses, for the reason in `error`.
    """

    receipt: Receipt | None
    state: Held | None
    error: ChanneldError | None
    ended: bool = False


class TowerClient:
    """One owner's dealings with one tower."""

    def __init__(
        self,
        name: TowerName,
        owner: bytes,
        sign: Callable[[bytes], bytes],
        now_ms: Callable[[], int],
        *,
        timeout_s: float = 10.0,
    ) -> None:
        """Bind.

        Args:
            name: the tower.
            owner: our address, 20 bytes.
            sign: signs a digest with the owner's key.
            now_ms: the time, Unix milliseconds, which the numbers of requests begin at.
            timeout_s: how long one request may take.

        """
        self.name = name
        self._owner, self._sign, self._now_ms = owner, sign, now_ms
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None
        self._number = 0
        self._lock = asyncio.Lock()
        self.receipts: dict[bytes, Receipt] = {}

    async def close(self) -> None:
        """Close the connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __aenter__(self) -> Self:
        """Nothing to begin."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()

    async def register(self, domain: Domain, terms: Terms, channel: bytes) -> Receipt:
        """Have a channel watched.

        Raises:
            TowerError: refused, unreachable, or an answer that is none.

        """
        ask = Register(terms_to_json(terms), domain.chain_id, checksum_address(domain.adjudicator))
        results, request = await self._ask(ask, 1)
        answer = self._read(results[0], domain, terms, channel, 0, request)
        if answer.receipt is None:
            raise answer.error or TowerAnswerError("an answer without a receipt")
        return answer.receipt

    async def put(self, states: Sequence[tuple[Domain, Terms, bytes, Held]]) -> list[Answer]:
        """Bring co-signed states: (domain, terms, channel, state) each; what the tower says of each.

        Raises:
            TowerError: refused as a whole, unreachable, or an answer that is none.

        """
        ask = Put([protocol.item_of(channel, held) for _, _, channel, held in states])
        results, request = await self._ask(ask, len(states))
        return [
            self._judged(result, domain, terms, channel, held, request)
            for result, (domain, terms, channel, held) in zip(results, states, strict=True)
        ]

    async def check(self, channels: Sequence[tuple[Domain, Terms, bytes, Held]]) -> list[Answer]:
        """Ask what the tower holds; the state of each is ours, to compare with.

        Raises:
            TowerError: refused as a whole, unreachable, or an answer that is none.

        """
        ask = Check([Asked("0x" + channel.hex(), held.version) for _, _, channel, held in channels])
        results, request = await self._ask(ask, len(channels))
        return [
            self._judged(result, domain, terms, channel, None, request, held.version)
            for result, (domain, terms, channel, held) in zip(results, channels, strict=True)
        ]

    def _judged(
        self,
        result: Any,  # noqa: ANN401 - JSON
        domain: Domain,
        terms: Terms,
        channel: bytes,
        put: Held | None,
        request: bytes,
        version: int = 0,
    ) -> Answer:
        try:
            answer = self._read(result, domain, terms, channel, put.version if put else version, request)
            got = answer.receipt
            if put is not None and got is not None:
                same = got.version > put.version or (got.version, got.body_hash) == (put.version, put.body_hash)
                if not same:
                    raise TowerBrokeItsWordError(
                        f"the tower took version {put.version} and gives a receipt for version {got.version}",
                        receipt=protocol.receipt_to_json(got),
                    )
        except TowerError as error:
            return Answer(None, None, error)
        return answer

    async def _ask(self, ask: protocol.Operation, count: int) -> tuple[list[Any], bytes]:
        async with self._lock:
            self._number = max(self._number + 1, self._now_ms())
            body = protocol.encode_request(self.name.address, self._owner, self._number, ask)
            signature = "0x" + self._sign(protocol.request_digest(body)).hex()
            status, raw = await self._post(body, signature)
        try:
            answer = msgspec.json.decode(raw)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise TowerAnswerError(f"{self.name.url} does not answer as a tower (HTTP status {status})") from error
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
            raise _told(answer["error"])
        results = answer.get("results") if isinstance(answer, dict) else None
        if not isinstance(results, list) or len(results) != count:
            raise TowerAnswerError(f"{self.name.url} does not answer as a tower (HTTP status {status})")
        return results, keccak256(body)

    async def _post(self, body: bytes, signature: str) -> tuple[int, bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        headers = {protocol.SIGNATURE_HEADER: signature, "Content-Type": "application/json"}
        try:
            async with self._session.post(
                self.name.url + protocol.PATH, data=body, headers=headers, allow_redirects=False
            ) as answer:
                raw = await answer.content.read(MAX_ANSWER)
                if not answer.content.at_eof() and await answer.content.read(1):
                    raise TowerAnswerError(f"{self.name.url} answers with more than {MAX_ANSWER} bytes")
                return answer.status, raw
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TowerUnreachableError(f"{self.name.url} does not answer: {error or type(error).__name__}") from error

    def _read(self, result: Any, domain: Domain, terms: Terms, channel: bytes, version: int, request: bytes) -> Answer:  # noqa: ANN401 - JSON
        """One channel's answer, verified.

        Raises:
            TowerError: it is no answer, not signed by the tower, or shows less than an earlier receipt.

        """
        if not isinstance(result, dict):
            raise TowerAnswerError("an answer must be an object")
        if isinstance(result.get("error"), dict):
            return Answer(None, None, _told(result["error"]))
        receipt = protocol.receipt_from_json(result.get("receipt"))
        protocol.verify_receipt(domain, receipt, self.name.address)
        if (receipt.channel, receipt.owner, receipt.request) != (channel, self._owner, request):
            raise BadReceiptError("a receipt for another channel, owner or request than was asked")
        self._compare(receipt)
        state = None
        if receipt.version > version and "state" in result:
            state = _state(result["state"], domain, terms, receipt)
        if receipt.version > version and state is None:
            raise BadReceiptError(
                f"the tower claims version {receipt.version} of 0x{channel.hex()[:8]} and does not show it"
            )
        return Answer(receipt, state, None, result.get("ended") is True)

    def _compare(self, receipt: Receipt) -> None:
        """What the tower has signed for once it must still hold."""
        earlier = self.receipts.get(receipt.channel)
        if earlier is not None:
            less = receipt.version < earlier.version
            other = receipt.version == earlier.version and receipt.body_hash != earlier.body_hash
            if less or other:
                raise TowerBrokeItsWordError(
                    f"the tower gave a receipt for version {earlier.version} of 0x{receipt.channel.hex()[:8]}, and "
                    f"now holds {'another body' if other else f'version {receipt.version}'}",
                    earlier=protocol.receipt_to_json(earlier),
                    later=protocol.receipt_to_json(receipt),
                )
        self.receipts[receipt.channel] = receipt


def _state(data: object, domain: Domain, terms: Terms, receipt: Receipt) -> Held:
    """The tower's own, higher state."""
    try:
        channel, held = protocol.held_of(msgspec.convert(data, protocol.Item))
    except (msgspec.MsgspecError, TowerError) as error:
        raise TowerAnswerError(f"the tower shows a state that is none: {error}") from error
    if (channel, held.version, held.body_hash) != (receipt.channel, receipt.version, receipt.body_hash):
        raise BadReceiptError("the tower shows another state than its receipt is for")
    protocol.check_held(domain, terms, channel, held)
    return held


def _told(data: dict[str, Any]) -> ChanneldError:
    """The tower's own error, as ours: its class where the code is a tower's, text bounded."""
    code, message = data.get("code"), str(data.get("message"))[:300]
    kind = REGISTRY.get(code) if type(code) is int else None
    if kind is not None and issubclass(kind, TowerError):
        return kind(message)
    return TowerError(f"the tower reports {code}: {message}")
