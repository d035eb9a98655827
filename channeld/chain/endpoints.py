"""Several JSON-RPC endpoints as one: failover where one does not answer, comparison where one may lie or lag.

Rules: an endpoint is believed as far as the others bear it out. `compare` asks each for its chain id, its head, and the
hash of a block at a depth where no honest two differ. Set aside is one that serves another chain, is silent, lags
behind the others, runs ahead of them alone, or has another hash than the majority. Where no majority has one hash,
nobody is believed: `disagreement` says so, and a daemon signs nothing new on such a view. Each is then heard in turn,
so that none can hide a dispute, and what must reach the chain does, since a transaction goes to every endpoint that
answers. Two endpoints show a contradiction; it takes three to say who lies. Lag is in blocks, times are Unix seconds.

All endpoints may lag together, or be run by one liar: `max_view_age` of the daemon, and more than one provider, are
what helps there.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from channeld.chain.errors import ChainUnreachableError, MalformedResponseError, RpcError, WrongChainIdError
from channeld.chain.rpc import ChainRpc
from channeld.core.errors import ChainError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from channeld.chain.rpc import Header

COMPARE_EVERY_S = 10.0
MAX_LAG = 3
# a head further in the future than this, against the clock, is no head
FUTURE_S = 120
SEND = "eth_sendRawTransaction"
# what providers answer when they are overloaded: another endpoint may serve
_EXHAUSTED = frozenset({-32005, -32016, -32029, 429})


class EndpointsDisagreeError(ChainError):
    """The endpoints contradict each other, and no majority says who is right."""

    code = 5201
    advice = (
        "Nothing is signed meanwhile. Add a third endpoint of another provider under chain.urls, or remove the liar."
    )


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint as it was last found. trouble: why it is set aside; empty where it is used. head: its last block."""

    url: str
    trouble: str = ""
    chain_id: int = 0
    head: int = 0
    time: int = 0


class ChainEndpoints(ChainRpc):
    """A client of several endpoints, used like that of one. `url` names the one in use."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        timeout_s: float = 20.0,
        attempts: int = 4,
        backoff_s: float = 0.1,
        max_lag: int = MAX_LAG,
        depth: int = 1,
        compare_every_s: float = COMPARE_EVERY_S,
    ) -> None:
        """Name the endpoints, the preferred ones first; nothing is asked yet.

        Args:
            urls: one or more.
            timeout_s: what one attempt at one endpoint may take.
            attempts: rounds through all endpoints before a call fails.
            backoff_s: the first pause between two rounds, doubled with each.
            max_lag: blocks that an endpoint may stand behind the others, or alone before them.
            depth: how far below the lowest head hashes are compared: the confirmations that are waited for.
            compare_every_s: the least time between two comparisons (real seconds).

        """
        super().__init__(urls[0], timeout_s=timeout_s, attempts=attempts, backoff_s=backoff_s)
        self._clients = [ChainRpc(url, timeout_s=timeout_s, attempts=1) for url in urls]
        self.endpoints = [Endpoint(url) for url in urls]
        self.disagreement = ""
        self._current = 0
        self._max_lag, self._depth, self._compare_every_s = max_lag, max(0, depth), compare_every_s
        self._compared_at = -1e9

    async def close(self) -> None:
        """Close the connections to all."""
        for client in self._clients:
            await client.close()

    # -- asking ------------------------------------------------------------------------------------------------------

    async def request(self, method: str, *params: object, once: bool = False) -> Any:  # noqa: ANN401 - JSON
        """As ChainRpc.request, at the endpoint in use; at another where that does not answer, and in rounds."""
        if method == SEND:
            return await self._send_to_all(params)
        if once:
            return await self._clients[self._current].request(method, *params, once=True)
        pause, failure = self._backoff_s, ChainUnreachableError("no endpoint was asked")
        for attempt in range(self._attempts):
            if attempt:
                await asyncio.sleep(pause)
                pause = min(2 * pause, 5.0)
            for index in self._in_order():
                try:
                    result = await self._clients[index].request(method, *params)
                except (ChainUnreachableError, MalformedResponseError) as error:
                    failure = self._failed(index, error)
                except RpcError as error:
                    if error.rpc_code not in _EXHAUSTED:
                        raise
                    failure = self._failed(index, ChainUnreachableError(str(error)))
                else:
                    self._use(index)
                    return result
        message = f"none of {len(self._clients)} endpoints answers {method}: {failure}"
        raise ChainUnreachableError(message, url=self.url)

    def _in_order(self) -> list[int]:
        """The endpoint in use, then the others that are believed, then those that were merely silent."""
        others = [index for index in range(len(self._clients)) if index != self._current]
        believed = [index for index in others if not self.endpoints[index].trouble]
        silent = [index for index in others if self.endpoints[index].trouble.startswith("does not answer")]
        first = [self._current] if not self.endpoints[self._current].trouble else []
        return first + believed + silent or [self._current]

    def _failed(self, index: int, error: ChainError) -> ChainUnreachableError:
        self.endpoints[index] = replace(self.endpoints[index], trouble=f"does not answer: {error}")
        return ChainUnreachableError(str(error), url=self.endpoints[index].url)

    def _use(self, index: int) -> None:
        if self.endpoints[index].trouble:
            self.endpoints[index] = replace(self.endpoints[index], trouble="")
        self._current, self.url = index, self.endpoints[index].url

    async def _send_to_all(self, params: tuple[object, ...]) -> Any:  # noqa: ANN401 - JSON
        """Give a signed transaction to every endpoint, whatever is thought of it: one that takes it is enough."""
        order = [self._current, *(i for i in range(len(self._clients)) if i != self._current)]
        answers = await asyncio.gather(
            *(self._clients[index].request(SEND, *params) for index in order), return_exceptions=True
        )
        for answer in answers:
            if not isinstance(answer, BaseException):
                return answer
        told = [error for error in answers if isinstance(error, RpcError)]
        for error in [*told, *answers]:
            if isinstance(error, BaseException):
                raise error
        raise ChainUnreachableError("no endpoint was asked")  # pragma: no cover - there is one at least

    # -- comparing ---------------------------------------------------------------------------------------------------

    async def compare(self, now: int | None = None, *, force: bool = False) -> bool:
        """Compare the endpoints, if the last comparison is old enough; whether those in use agree.

        now: the time by the caller's clock (Unix seconds), against heads from the future; None for no such check.

        Raises:
            ChainUnreachableError: none answers.
            WrongChainIdError: those that answer serve several chains, and none is the majority's.

        """
        loop = asyncio.get_running_loop()
        if force or loop.time() - self._compared_at >= self._compare_every_s:
            self._compared_at = loop.time()
            await self._compare(now)
        return not self.disagreement

    def require_agreement(self) -> None:
        """Refuse to go on while the endpoints contradict each other.

        Raises:
            EndpointsDisagreeError: with what they say.

        """
        if self.disagreement:
            raise EndpointsDisagreeError(self.disagreement)

    async def _compare(self, now: int | None) -> None:
        found = await asyncio.gather(*(self._look(client) for client in self._clients))
        self.endpoints = [endpoint for endpoint, _ in found]
        heads = {index: header for index, (_, header) in enumerate(found) if header is not None}
        if not heads:
            message = f"none of {len(self._clients)} endpoints answers: {self.endpoints[0].trouble}"
            raise ChainUnreachableError(message, url=self.url)
        self._by_chain(heads)
        if now is not None:
            for index in [i for i, header in heads.items() if header.timestamp > now + FUTURE_S]:
                self._aside(index, heads, f"its newest block is {heads[index].timestamp - now} s in the future")
        self._alone_ahead(heads)
        await self._by_hash(heads)
        self._laggards(heads)
        if self.disagreement:
            # each is heard in turn, so that none can hide a dispute for long
            later = [index for index in heads if index > self._current]
            self._use(min(later or heads))
        elif heads and self._current not in heads:
            self._use(min(heads))

    async def _look(self, client: ChainRpc) -> tuple[Endpoint, Header | None]:
        try:
            chain_id, header = await client.chain_id(), await client.header()
        except ChainError as error:
            return Endpoint(client.url, f"does not answer: {error}"), None
        return Endpoint(client.url, "", chain_id, header.number, header.timestamp), header

    def _aside(self, index: int, heads: dict[int, Header], why: str) -> None:
        heads.pop(index, None)
        self.endpoints[index] = replace(self.endpoints[index], trouble=why)

    def _by_chain(self, heads: dict[int, Header]) -> None:
        counted = Counter(self.endpoints[index].chain_id for index in heads)
        (chain_id, most), *rest = counted.most_common()
        if rest and rest[0][1] == most:
            told = ", ".join(f"{self.endpoints[i].url} serves {self.endpoints[i].chain_id}" for i in heads)
            message = f"the endpoints are of several chains: {told}"
            raise WrongChainIdError(message)
        for index in list(heads):
            if self.endpoints[index].chain_id != chain_id:
                self._aside(index, heads, f"serves chain {self.endpoints[index].chain_id}, not {chain_id}")

    def _alone_ahead(self, heads: dict[int, Header]) -> None:
        """Set aside who is far ahead of two or more others: blocks that nobody else has seen."""
        numbers = sorted(header.number for header in heads.values())
        if len(numbers) > 2 and numbers[-1] - numbers[-2] > self._max_lag:
            index = max(heads, key=lambda i: heads[i].number)
            self._aside(index, heads, f"is {numbers[-1] - numbers[-2]} blocks ahead of all others")

    def _laggards(self, heads: dict[int, Header]) -> None:
        """Set aside who lags; that the others build on its blocks has been seen before."""
        highest = max((header.number for header in heads.values()), default=0)
        for index in list(heads):
            behind = highest - heads[index].number
            if behind > self._max_lag and not self.disagreement:
                self._aside(index, heads, f"lags {behind} blocks behind")

    async def _by_hash(self, heads: dict[int, Header]) -> None:
        self.disagreement = ""
        if len(heads) < 2:
            return
        height = max(0, min(header.number for header in heads.values()) - self._depth)
        hashes: dict[int, bytes] = {}
        for index in list(heads):
            try:
                header = await self._clients[index].find_header(height)
            except ChainError as error:
                self._aside(index, heads, f"does not answer: {error}")
                continue
            hashes[index] = header.hash if header else b""
        counted = Counter(hashes.values()).most_common()
        if len(counted) < 2:
            return
        if counted[0][1] * 2 <= len(hashes):
            told = ", ".join(f"{self.endpoints[i].url} has {h.hex()[:16] or 'none'}" for i, h in hashes.items())
            self.disagreement = f"the endpoints have different blocks at height {height}: {told}"
            return
        for index, found in hashes.items():
            if found != counted[0][0]:
                self._aside(index, heads, f"has another block at height {height} than {counted[0][1]} others")


def chain_client(urls: Sequence[str], timeout_s: float, depth: int) -> ChainRpc:
    """The client of the chain: of one endpoint, or of several that are compared at that depth (blocks)."""
    if len(urls) == 1:
        return ChainRpc(urls[0], timeout_s=timeout_s)
    return ChainEndpoints(urls, timeout_s=timeout_s, depth=depth)
