import asyncio
import json

import aiohttp
import pytest
from chain_support import START_TIME, DevnetThread, need_anvil, role_key

from channeld.chain.clock import DevnetClock
from channeld.chain.devnet import Devnet
from channeld.chain.errors import (
    ChainStartError,
    ChainUnreachableError,
    NoTimeControlError,
    RevertError,
    RpcError,
    WrongChainIdError,
)
from channeld.chain.rpc import ChainRpc
from channeld.core.crypto import keccak256


async def post(url, body):
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body if isinstance(body, bytes) else json.dumps(body)) as response,
    ):
        text = await response.text()
        return json.loads(text) if text else None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"\xff\xfe", -32700),
        (b"[" * 100_000, -32700),
        (b"[]", -32600),
        (b"7", -32600),
        (b'{"id":1}', -32600),
        (b'{"id":1,"method":7}', -32600),
        (b'{"id":1,"method":"eth_chainId","params":{}}', -32602),
        (b'{"id":1,"method":"eth_noSuch"}', -32601),
        (b'{"id":1,"method":"evm_increaseTime","params":[5]}', -32601),
        (b'{"id":1,"method":"channeld_advance"}', -32602),
        (b'{"id":1,"method":"channeld_advance","params":[-1]}', -32602),
        (b'{"id":1,"method":"channeld_advance","params":["1"]}', -32602),
        (b'{"id":1,"method":"channeld_advance","params":[true]}', -32602),
        (b'{"id":1,"method":"channeld_advance","params":[1e300]}', -32602),
        (b'{"id":1,"method":"channeld_setTime","params":[1]}', -32000),
        (b'{"id":1,"method":"channeld_faucet","params":["0x12"]}', -32602),
        (b'{"id":1,"method":"channeld_faucet","params":["0x1111111111111111111111111111111111111111","zzz"]}', -32602),
    ],
)
async def test_bad_requests_get_json_rpc_errors(devnet_url, rpc, body, code):
    before = await rpc.header()
    answer = await post(devnet_url, body)
    assert answer["jsonrpc"] == "2.0"
    assert answer["error"]["code"] == code
    assert answer["error"]["message"]
    assert await rpc.header() == before


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("eth_sendRawTransaction", ["0x"]),
        ("eth_sendRawTransaction", ["0x02deadbeef"]),
        ("eth_sendRawTransaction", ["hello"]),
        ("eth_sendRawTransaction", []),
        ("eth_getBalance", ["0x12", "latest"]),
        ("eth_getBalance", ["0x" + "11" * 20, "0xffffffff"]),
        ("eth_call", [5, "latest"]),
        ("eth_getLogs", [5]),
        ("eth_getTransactionReceipt", ["0x12"]),
    ],
)
async def test_bad_parameters_get_errors_and_change_nothing(devnet_url, rpc, method, params):
    before = await rpc.header()
    answer = await post(devnet_url, {"jsonrpc": "2.0", "id": "x", "method": method, "params": params})
    assert answer["id"] == "x"
    assert answer["error"]["message"]
    assert await rpc.header() == before


async def test_batches_and_notifications(devnet_url):
    answers = await post(
        devnet_url,
        [
            {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"},
            {"jsonrpc": "2.0", "method": "eth_chainId"},
            {"jsonrpc": "2.0", "id": 2, "method": "eth_nothing"},
            5,
        ],
    )
    assert [answer["id"] for answer in answers] == [1, 2, None]
    assert answers[0]["result"] == hex(31_337)
    assert answers[1]["error"]["code"] == -32601
    assert await post(devnet_url, {"jsonrpc": "2.0", "method": "eth_chainId"}) is None


async def test_no_block_is_ever_ahead_of_the_clock_and_time_only_grows(rpc, devnet_url):
    async with DevnetClock(devnet_url) as clock:
        previous = await rpc.header()
        assert previous.timestamp >= START_TIME
        for _ in range(5):
            await rpc.request("evm_mine")
            await clock.refresh()
            header = await rpc.header()
            assert previous.timestamp < header.timestamp
            assert header.timestamp * 1000 <= clock.now_ms()
            assert (header.number, header.parent_hash) == (previous.number + 1, previous.hash)
            previous = header
        told = await rpc.advance(1000.5)
        header = await rpc.header()
        assert header.timestamp >= previous.timestamp + 1000
        assert header.timestamp * 1000 <= told["time_ms"]
        target = header.timestamp + 5_000
        told = await rpc.set_time(target)
        assert (await rpc.header()).timestamp in (target, target + 1)
        assert told["controllable"] is True
        with pytest.raises(RpcError):
            await rpc.set_time(target - 10)


async def test_the_long_poll_returns_at_a_jump_or_in_time(rpc):
    clock = await rpc.devnet_clock()
    waiting = asyncio.create_task(rpc.request("channeld_waitClock", clock["revision"], 20))
    late = await rpc.request("channeld_waitClock", clock["revision"], 0.01)
    assert late["revision"] == clock["revision"]
    jump = await rpc.advance(5)
    woken = await asyncio.wait_for(waiting, 5)
    assert woken["revision"] > clock["revision"]
    assert jump["offset_ms"] >= clock["offset_ms"] + 5000
    at_once = await asyncio.wait_for(rpc.request("channeld_waitClock", clock["revision"], 20), 5)
    assert at_once["revision"] == jump["revision"]


async def test_reverts_come_back_as_geth_has_them(devnet_url, world):
    manager = world.managers["maker"]
    call = world.adjudicator.claim(world.token.address, manager.address)
    request = {"from": "0x" + manager.address.hex(), "to": "0x" + call.to.hex(), "data": "0x" + call.data.hex()}
    selector = "0x" + keccak256(b"NothingHeld()")[:4].hex()
    for method, params in (("eth_call", [request, "latest"]), ("eth_estimateGas", [request])):
        answer = await post(devnet_url, {"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        assert answer["error"]["code"] == 3
        assert answer["error"]["message"].startswith("execution reverted")
        assert answer["error"]["data"] == selector
    with pytest.raises(RevertError) as caught:
        await world.rpc.call(call.to, call.data, sender=manager.address)
    assert caught.value.reason == "NothingHeld"


async def test_logs_by_address_topic_and_range(world):
    maker, taker = world.managers["maker"], world.managers["taker"]
    first = await world.rpc.block_number() + 1
    await maker.transact(world.token.mint(maker.address, 5))
    await taker.transact(world.token.mint(taker.address, 7))
    await maker.transact(world.token.transfer(taker.address, 2))
    last = await world.rpc.block_number()
    transfer = keccak256(b"Transfer(address,address,uint256)")
    word = b"\0" * 12
    find = world.rpc.logs
    assert [int.from_bytes(log.data, "big") for log in await find([world.token.address], first, last)] == [5, 7, 2]
    to_taker = await find([world.token.address], first, last, [transfer, None, word + taker.address])
    assert [int.from_bytes(log.data, "big") for log in to_taker] == [7, 2]
    options = [transfer, [word + maker.address, b"\1" * 32]]
    assert len(await find([world.token.address], first, last, options)) == 1
    assert not await find([b"\1" * 20], first, last)
    assert len(await find([world.token.address], last, last)) == 1
    one = to_taker[0]
    receipt = await world.rpc.receipt(one.transaction_hash)
    assert one in receipt.logs
    assert (await world.rpc.header(one.block_number)).hash == one.block_hash


async def test_web3_speaks_to_it(devnet_url):
    web3 = pytest.importorskip("web3")
    client = web3.AsyncWeb3(web3.AsyncHTTPProvider(devnet_url))
    try:
        account = client.eth.account.from_key(role_key("web3"))
        await client.provider.make_request("channeld_faucet", [account.address, hex(10**18)])
        assert await client.is_connected()
        assert await client.eth.chain_id == 31_337
        assert await client.net.version == "31337"
        fees = await client.eth.fee_history(2, "latest", [50])
        assert len(fees["baseFeePerGas"]) >= 2
        block = await client.eth.get_block("latest")
        for tag in ("finalized", "safe", block["hash"], 0):
            assert (await client.eth.get_block(tag))["number"] <= block["number"]
        to = web3.Web3.to_checksum_address("0x" + "22" * 20)
        before = await client.eth.get_balance(to)
        transaction = {
            "chainId": 31_337,
            "from": account.address,
            "to": to,
            "value": 3,
            "nonce": await client.eth.get_transaction_count(account.address, "pending"),
            "gas": await client.eth.estimate_gas({"from": account.address, "to": to, "value": 3}),
            "maxFeePerGas": await client.eth.gas_price * 2,
            "maxPriorityFeePerGas": await client.eth.max_priority_fee,
        }
        assert transaction["gas"] == 21_000
        sent = await client.eth.send_raw_transaction(account.sign_transaction(transaction).raw_transaction)
        receipt = await client.eth.wait_for_transaction_receipt(sent, timeout=10, poll_latency=0.01)
        assert receipt["status"] == 1
        assert (await client.eth.get_transaction(sent))["value"] == 3
        full = await client.eth.get_block(receipt["blockNumber"], full_transactions=True)
        assert full["transactions"][0]["hash"] == sent
        assert await client.eth.get_balance(to) == before + 3
        assert await client.eth.get_balance(to, receipt["blockNumber"] - 1) == before
        assert await client.eth.get_code(to) == b""
        assert await client.eth.get_logs({"fromBlock": receipt["blockNumber"]}) == []
    finally:
        await client.provider.disconnect()


async def test_transactions_that_cannot_be_included_are_refused(rpc, managers):
    signer = managers["maker"].signer
    nonce = await rpc.transaction_count(signer.address)
    good = {
        "type": 2,
        "chainId": 31_337,
        "nonce": nonce,
        "to": b"\x22" * 20,
        "value": 1,
        "gas": 21_000,
        "maxFeePerGas": 10**12,
        "maxPriorityFeePerGas": 1,
    }
    for change in ({"chainId": 1}, {"maxFeePerGas": 1, "maxPriorityFeePerGas": 1}, {"gas": 100}, {"value": 10**30}):
        before = await rpc.block_number()
        with pytest.raises(RpcError if "value" not in change else Exception):
            await rpc.send_raw(signer.sign_transaction(good | change), sender=signer.address)
        assert await rpc.block_number() == before
    sent = await rpc.send_raw(signer.sign_transaction(good))
    assert (await rpc.receipt(sent)).succeeded
    with pytest.raises(RpcError):
        await rpc.send_raw(signer.sign_transaction(good | {"value": 2}))


async def test_a_chain_of_the_past_with_another_id():
    with DevnetThread("embedded", start_time=1_721_130_810, chain_id=421_614, heartbeat_s=None) as url:
        async with ChainRpc(url) as rpc, DevnetClock(url) as clock:
            assert await rpc.chain_id() == 421_614
            assert (await rpc.header()).timestamp == 1_721_130_810
            assert 0 <= clock.now_ms() - 1_721_130_810_000 < 60_000


async def test_the_heartbeat_keeps_an_idle_chain_fresh():
    async with Devnet(heartbeat_s=0.05) as devnet, ChainRpc(devnet.url) as rpc:
        first = await rpc.header()
        async with asyncio.timeout(60):
            while (await rpc.header()).number == first.number:  # noqa: ASYNC110 - what is awaited is another process's
                await asyncio.sleep(0.02)


async def test_a_port_that_is_taken():
    async with Devnet(heartbeat_s=None) as devnet:
        port = int(devnet.url.rpartition(":")[2])
        with pytest.raises(ChainStartError):
            await Devnet(port=port, heartbeat_s=None).start()


async def test_stopping_ends_long_polls():
    devnet = Devnet(heartbeat_s=None)
    async with ChainRpc(await devnet.start(), attempts=1) as rpc:
        waiting = asyncio.create_task(rpc.request("channeld_waitClock", 0, 30))
        await rpc.chain_id()
        await devnet.stop()
        answer = await asyncio.wait_for(asyncio.gather(waiting, return_exceptions=True), 5)
        assert isinstance(answer[0], dict | ChainUnreachableError)


async def test_a_chain_without_time_control_is_refused(devnet_url):
    # a devnet's own front hides the time control of what is behind it, as a public chain has none
    with pytest.raises(NoTimeControlError):
        await Devnet("url", url=devnet_url, heartbeat_s=None).start()


async def test_a_url_that_does_not_answer():
    with pytest.raises(ChainUnreachableError):
        await Devnet("url", url="http://127.0.0.1:1", heartbeat_s=None).start()


async def test_anvil_that_is_not_there():
    with pytest.raises(ChainStartError):
        await Devnet("anvil", anvil="no-such-anvil", heartbeat_s=None).start()


@pytest.mark.anvil
async def test_a_devnet_in_front_of_a_node_at_a_url():
    need_anvil()
    async with Devnet("anvil", start_time=START_TIME, heartbeat_s=None) as inner:
        url = inner._backend._url
        with pytest.raises(WrongChainIdError):
            await Devnet("url", url=url, chain_id=5, heartbeat_s=None).start()
        async with Devnet("url", url=url, heartbeat_s=None) as outer, ChainRpc(outer.url) as rpc:
            assert (await rpc.header()).timestamp * 1000 <= (await rpc.devnet_clock())["time_ms"]
            await rpc.faucet(b"\x33" * 20, 5)
            assert await rpc.balance(b"\x33" * 20) == 5
            before = (await rpc.header()).timestamp
            await rpc.advance(1000)
            assert (await rpc.header()).timestamp >= before + 1000
