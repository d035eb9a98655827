"""An endpoint in front of a real chain that lies, lags, keeps silent, forgets, or asks more for gas, as a test says."""

from __future__ import annotations

import aiohttp
from aiohttp import web
from eth_account.typed_transactions import TypedTransaction
from hexbytes import HexBytes


class FaultyEndpoint:
    """A proxy. Use as an async context; its attributes are its faults, and may change at any time.

    silent: HTTP 503 to everything. chain_id: another than the chain's. lag: blocks it stands behind. ahead: blocks it
    claims beyond the head. lies_from: blocks from this height on have made-up hashes. forgets: transactions that it
    takes and drops. base_fee: the base fee it shows, wei; transactions that pay less stay in its pool until it falls.
    spike: what the base fee becomes just as the first transaction arrives. prices: what transactions offered.
    """

    def __init__(self, url):
        self._target = url
        self.silent, self.chain_id, self.lag, self.ahead, self.lies_from = False, None, 0, 0, None
        self.forgets, self.base_fee, self.spike = 0, None, None
        self.pool, self.asked, self.prices = [], 0, []

    async def __aenter__(self):
        self._session = aiohttp.ClientSession()
        application = web.Application(client_max_size=1 << 25)
        application.router.add_post("/", self._post)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()
        await self._session.close()

    async def _ask(self, method, params):
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        async with self._session.post(self._target, json=body) as response:
            return await response.json()

    async def _head(self):
        return int((await self._ask("eth_blockNumber", []))["result"], 16)

    async def _post(self, request):
        self.asked += 1
        if self.silent:
            return web.Response(status=503)
        told = await request.json()
        if self.pool:
            await self._flush()
        answer = await self._answer(told["method"], told["params"])
        return web.json_response({**answer, "id": told["id"]})

    async def _answer(self, method, params):
        if method == "eth_chainId" and self.chain_id is not None:
            return {"jsonrpc": "2.0", "result": hex(self.chain_id)}
        if method == "eth_blockNumber" and (self.lag or self.ahead):
            return {"jsonrpc": "2.0", "result": hex(await self._head() - self.lag + self.ahead)}
        if method == "eth_sendRawTransaction" and self.forgets:
            self.forgets -= 1
            return {"jsonrpc": "2.0", "result": "0x" + "00" * 32}
        if method == "eth_sendRawTransaction" and self.base_fee is not None:
            return await self._into_pool(params)
        if method == "eth_getBlockByNumber":
            return await self._block(params)
        if method == "eth_getTransactionCount" and params[1] == "pending" and self.pool:
            counted = int((await self._ask(method, params))["result"], 16)
            return {"jsonrpc": "2.0", "result": hex(counted + len({nonce for nonce, _, _ in self.pool}))}
        return await self._ask(method, params)

    async def _block(self, params):
        height = params[0]
        if height == "latest":
            height = hex(await self._head() - self.lag)
        answer = await self._ask("eth_getBlockByNumber", [height, *params[1:]])
        block = answer["result"]
        if block is not None:
            if self.ahead:
                block["number"] = hex(int(block["number"], 16) + self.ahead)
            if self.lies_from is not None and int(block["number"], 16) >= self.lies_from:
                block["hash"] = "0x" + "de" * 32
            if self.base_fee is not None:
                block["baseFeePerGas"] = hex(self.base_fee)
        return answer

    async def _into_pool(self, params):
        fields = TypedTransaction.from_bytes(HexBytes(params[0])).as_dict()
        if self.spike is not None:
            self.base_fee, self.spike = self.spike, None
        self.prices.append(fields["maxFeePerGas"])
        self.pool.append((fields["nonce"], fields["maxFeePerGas"], params))
        await self._flush()
        return {"jsonrpc": "2.0", "result": "0x" + "00" * 32}

    async def _flush(self):
        """Mine what pays enough, in the order of nonces, the dearest of each."""
        waiting, self.pool = sorted(self.pool, key=lambda entry: (entry[0], -entry[1])), []
        mined, stuck = -1, False
        for nonce, price, params in waiting:
            if nonce == mined:
                continue  # a cheaper one of the same nonce
            stuck = stuck or (self.base_fee is not None and price < self.base_fee)
            if stuck:
                self.pool.append((nonce, price, params))
                continue
            await self._ask("eth_sendRawTransaction", params)
            mined = nonce
