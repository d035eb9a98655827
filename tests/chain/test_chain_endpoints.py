"""Several endpoints: failover, and the comparison that finds who lies or lags. The chain behind them is real."""

import contextlib

import pytest
from chain_support import role_key
from faulty_endpoint import FaultyEndpoint

from channeld.chain.endpoints import ChainEndpoints, EndpointsDisagreeError
from channeld.chain.errors import ChainUnreachableError, RevertError, WrongChainIdError
from channeld.chain.transactions import LocalSigner, TransactionManager


@pytest.fixture
async def set_of(devnet_url):
    """Make so many faulty endpoints in front of the chain, and a client of them."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(count):
            faulty = [await stack.enter_async_context(FaultyEndpoint(devnet_url)) for _ in range(count)]
            client = ChainEndpoints([one.url for one in faulty], attempts=2, backoff_s=0.001, depth=1)
            stack.push_async_callback(client.close)
            return faulty, client

        yield make


async def mine(rpc, blocks):
    for _ in range(blocks):
        await rpc.request("evm_mine")


async def test_one_that_falls_silent_is_replaced_by_the_next(set_of):
    (first, second), rpc = await set_of(2)
    head = await rpc.block_number()
    assert (rpc.url, second.asked) == (first.url, 0)
    first.silent = True
    assert await rpc.block_number() == head
    assert rpc.url == second.url
    assert "503" in rpc.endpoints[0].trouble
    second.silent = True
    with pytest.raises(ChainUnreachableError, match="none of 2"):
        await rpc.block_number()
    first.silent = False
    assert await rpc.block_number() == head
    assert await rpc.compare(force=True)
    assert not rpc.endpoints[0].trouble
    assert "does not answer" in rpc.endpoints[1].trouble


async def test_a_revert_is_an_answer_and_asks_nobody_else(set_of, world):
    (_, second), rpc = await set_of(2)
    call = world.adjudicator.claim(world.token.address, role_key("pauper")[:20])
    with pytest.raises(RevertError, match="NothingHeld"):
        await rpc.call(call.to, call.data)
    assert second.asked == 0


async def test_of_three_the_one_that_lies_is_named_and_left(set_of, rpc):
    (liar, _, _), client = await set_of(3)
    await mine(rpc, 3)
    liar.lies_from = 0
    assert await client.compare(force=True)
    assert "another block" in client.endpoints[0].trouble
    assert client.url != liar.url
    before = liar.asked
    assert (await client.header()).hash == (await rpc.header()).hash
    assert liar.asked == before
    liar.lies_from = None
    assert await client.compare(force=True)
    assert not client.endpoints[0].trouble


async def test_of_two_nobody_is_believed_and_a_transaction_goes_to_both(set_of, rpc, world):
    (liar, honest), client = await set_of(2)
    await mine(rpc, 3)
    liar.lies_from = 1
    assert not await client.compare(force=True)
    with pytest.raises(EndpointsDisagreeError, match="different blocks"):
        client.require_agreement()
    # a liar that drops transactions does not keep them from the chain
    liar.forgets = 10
    manager = TransactionManager(client, LocalSigner(role_key("maker")), chain_id=31_337, poll_s=0.005)
    receipt = await manager.transact(world.token.mint(manager.address, 1))
    assert receipt.succeeded
    assert honest.asked
    liar.lies_from = None
    assert await client.compare(force=True)
    client.require_agreement()


async def test_one_that_lags_is_left_and_found_again(set_of, rpc):
    (slow, _), client = await set_of(2)
    await mine(rpc, 8)
    slow.lag = 6
    assert await client.compare(force=True)
    assert client.endpoints[0].trouble == "lags 6 blocks behind"
    assert await client.block_number() == await rpc.block_number()
    slow.lag = 2
    assert await client.compare(force=True)
    assert not client.endpoints[0].trouble


async def test_one_alone_ahead_of_two_is_not_believed(set_of):
    (_, boaster, _), client = await set_of(3)
    boaster.ahead = 50
    assert await client.compare(force=True)
    assert "50 blocks ahead" in client.endpoints[1].trouble


async def test_a_head_from_the_future_is_no_head(set_of, rpc):
    _, client = await set_of(2)
    now = (await rpc.header()).timestamp
    assert await client.compare(now - 100, force=True)
    assert not any(one.trouble for one in client.endpoints)
    await client.compare(now - 1_000, force=True)
    assert all("in the future" in one.trouble for one in client.endpoints)


async def test_another_chain_is_left_where_a_majority_says_so(set_of):
    (stranger, _, _), client = await set_of(3)
    stranger.chain_id = 1
    assert await client.compare(force=True)
    assert client.endpoints[0].trouble == "serves chain 1, not 31337"
    assert await client.chain_id() == 31_337
    (stranger, _), client = await set_of(2)
    stranger.chain_id = 1
    with pytest.raises(WrongChainIdError):
        await client.compare(force=True)


async def test_comparisons_are_not_made_more_often_than_asked(set_of):
    (first, _), client = await set_of(2)
    await client.compare(force=True)
    before = first.asked
    await client.compare()
    assert first.asked == before
