import asyncio
import subprocess
import sys

import pytest
from aiohttp import web

from channeld.chain.clock import Clock, DevnetClock, SystemClock
from channeld.chain.errors import ChainUnreachableError, ClockStoppedError, MalformedResponseError


def test_clock_and_keystore_import_neither_web3_nor_the_embedded_chain():
    program = (
        "import sys, channeld.chain.clock, channeld.chain.keystore, channeld.chain.deployment, channeld.chain.watcher\n"
        "heavy = [m for m in ('web3', 'eth_account', 'eth_tester', 'eth', 'eth_abi') if m in sys.modules]\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


async def test_system_clock_waits_until_a_time():
    clock = SystemClock()
    assert isinstance(clock, Clock)
    begin = clock.now_ms()
    await asyncio.wait_for(clock.wait_until(begin + 30), 5)
    assert clock.now_ms() >= begin + 30
    await asyncio.wait_for(clock.wait_until(begin), 5)


async def test_a_jump_reaches_every_clock_within_milliseconds(rpc, devnet_url):
    async with DevnetClock(devnet_url) as first, DevnetClock(devnet_url) as second:
        assert isinstance(first, Clock)
        target = first.now_ms() + 3_600_000
        waits = [asyncio.create_task(clock.wait_until(target)) for clock in (first, second)]
        await asyncio.sleep(0)
        assert not any(wait.done() for wait in waits)
        await rpc.set_time(target // 1000 + 1)
        await asyncio.wait_for(asyncio.gather(*waits), 2)
        assert first.now_ms() >= target
        assert first.offset_ms == second.offset_ms
        assert (await rpc.header()).timestamp * 1000 <= first.now_ms()


async def test_wait_jump_and_refresh(rpc, devnet_url):
    async with DevnetClock(devnet_url) as clock:
        waiting = asyncio.create_task(clock.wait_jump())
        await asyncio.sleep(0)
        await rpc.advance(60)
        await asyncio.wait_for(waiting, 2)
        told = await rpc.advance(60)
        await clock.refresh()
        assert clock.offset_ms == told["offset_ms"]


async def test_a_clock_that_was_not_started_says_so(devnet_url):
    clock = DevnetClock(devnet_url)
    with pytest.raises(ClockStoppedError):
        clock.now_ms()
    await clock.start()
    await clock.start()
    offset = clock.offset_ms
    await clock.stop()
    await clock.stop()
    assert clock.offset_ms == offset
    with pytest.raises(ClockStoppedError):
        await clock.refresh()


async def test_no_devnet_at_the_url():
    with pytest.raises(ChainUnreachableError):
        await DevnetClock("http://127.0.0.1:1").start()


@pytest.mark.parametrize("answer", ['{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no"}}', "hello", "[]"])
async def test_what_answers_is_no_devnet(answer):
    async def handle(_request):
        return web.Response(text=answer)

    application = web.Application()
    application.router.add_post("/", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        with pytest.raises(MalformedResponseError):
            await DevnetClock(f"http://127.0.0.1:{runner.addresses[0][1]}").start()
    finally:
        await runner.cleanup()
