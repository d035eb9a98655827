import contextlib

import pytest
from aiohttp import web

from channeld.chain.errors import (
    ChainUnreachableError,
    InsufficientFundsError,
    MalformedResponseError,
    RevertError,
    RpcError,
    TransactionRefusedError,
    WrongChainIdError,
)
from channeld.chain.rpc import ChainRpc

RESULT = '{"jsonrpc":"2.0","id":1,"result":%s}'
ERROR = '{"jsonrpc":"2.0","id":1,"error":%s}'


@contextlib.asynccontextmanager
async def node(*answers, **options):
    """A node that gives these answers one after the other, the last one for ever: (status, text)."""
    left = list(answers)
    seen = []

    async def handle(request):
        seen.append(await request.json())
        status, text = left.pop(0) if len(left) > 1 else left[0]
        return web.Response(status=status, text=text)

    application = web.Application()
    application.router.add_post("/", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with ChainRpc(url, **({"backoff_s": 0.001} | options)) as client:
            yield client, seen
    finally:
        await runner.cleanup()


async def test_an_overloaded_node_is_asked_again():
    async with node((503, ""), (429, ""), (200, RESULT % '"0x5"')) as (client, seen):
        assert await client.block_number() == 5
        assert len(seen) == 3


async def test_it_gives_up_after_all_attempts():
    async with node((502, ""), attempts=3) as (client, seen):
        with pytest.raises(ChainUnreachableError, match="502"):
            await client.block_number()
        assert len(seen) == 3


async def test_an_error_is_an_answer_and_final():
    async with node((200, ERROR % '{"code":-32000,"message":"no"}')) as (client, seen):
        with pytest.raises(RpcError) as caught:
            await client.block_number()
        assert caught.value.rpc_code == -32000
        assert len(seen) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ftp://somewhere", "nonsense", ""])
async def test_urls_where_nothing_answers(url):
    async with ChainRpc(url, attempts=2, backoff_s=0.001) as client:
        with pytest.raises(ChainUnreachableError):
            await client.chain_id()


@pytest.mark.parametrize(
    "text",
    ["hello", "[]", "{}", '{"error":5}', RESULT % '"5"', RESULT % "null", RESULT % "{}", RESULT % '"0xzz"'],
)
async def test_malformed_answers(text):
    async with node((200, text)) as (client, _):
        with pytest.raises(MalformedResponseError):
            await client.chain_id()


@pytest.mark.parametrize("text", [RESULT % "{}", RESULT % '{"number":"0x1"}', RESULT % "7"])
async def test_malformed_headers_receipts_and_logs(text):
    async with node((200, text)) as (client, _):
        for call in (client.header(), client.receipt(b"\1" * 32), client.logs([], 0, 1)):
            with pytest.raises(MalformedResponseError):
                await call


async def test_wrong_chain_id(rpc):
    await rpc.require_chain_id(31_337)
    with pytest.raises(WrongChainIdError, match="31337"):
        await rpc.require_chain_id(1)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ('{"code":3,"message":"execution reverted: no","data":"0x"}', "no"),
        ('{"code":-32000,"message":"execution reverted"}', "no reason given"),
        ('{"code":3,"message":"execution reverted","data":"0x4e487b71' + f'{0x11:064x}"}}', "arithmetic overflow"),
        (
            (f'{{"code":3,"message":"execution reverted","data":"0x08c379a0{32:064x}{5:064x}{b"hello".hex():0<64}"}}'),
            "hello",
        ),
        ('{"code":3,"message":"execution reverted","data":"0x01020304"}', "custom error 0x01020304"),
        ('{"code":3,"message":"execution reverted","data":7}', "no reason given"),
    ],
)
async def test_reverts_carry_their_reason(error, reason):
    async with node((200, ERROR % error)) as (client, _):
        with pytest.raises(RevertError) as caught:
            await client.call(b"\1" * 20, b"")
        assert caught.value.reason == reason


async def test_refused_transactions_are_told_apart():
    async with node((200, ERROR % '{"code":-32000,"message":"nonce too low"}')) as (client, _):
        with pytest.raises(TransactionRefusedError):
            await client.send_raw(b"\2")
    async with node((200, ERROR % '{"code":-32003,"message":"Insufficient funds for gas"}')) as (client, _):
        with pytest.raises(InsufficientFundsError):
            await client.send_raw(b"\2", sender=b"\1" * 20)
        with pytest.raises(InsufficientFundsError):
            await client.estimate_gas(b"\1" * 20, None, b"")


async def test_no_devnet_has_no_clock():
    async with node((200, ERROR % '{"code":-32601,"message":"no such method"}')) as (client, _):
        assert await client.devnet_clock() is None
        assert await client.priority_fee() == 10**9
