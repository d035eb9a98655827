import asyncio
import itertools

import pytest
from chain_support import START_TIME, need_anvil, role_key
from faulty_endpoint import FaultyEndpoint

from channeld.chain.backends import AnvilBackend
from channeld.chain.contracts import Call
from channeld.chain.errors import (
    ChainUnreachableError,
    InsufficientFundsError,
    RevertError,
    TransactionNotMinedError,
    TransactionRefusedError,
    TransactionRevertedError,
)
from channeld.chain.rpc import ChainRpc
from channeld.chain.transactions import GWEI, Deadline, Fees, LocalSigner, TransactionManager


async def test_concurrent_intents_get_nonces_in_order(world):
    maker = world.managers["maker"]
    before = await world.rpc.transaction_count(maker.address)
    held = await world.token.balance_of(maker.address)
    receipts = await asyncio.gather(*(maker.transact(world.token.mint(maker.address, 10**i)) for i in range(6)))
    assert len({receipt.transaction_hash for receipt in receipts}) == 6
    assert all(receipt.succeeded for receipt in receipts)
    assert await world.rpc.transaction_count(maker.address) == before + 6
    assert await world.token.balance_of(maker.address) == held + 111_111


async def test_what_would_revert_is_not_sent(world):
    maker = world.managers["maker"]
    before = await world.rpc.transaction_count(maker.address)
    with pytest.raises(RevertError) as caught:
        await maker.transact(world.adjudicator.claim(world.token.address, maker.address))
    assert caught.value.reason == "NothingHeld"
    assert await world.rpc.transaction_count(maker.address) == before
    assert (await maker.transact(world.token.mint(maker.address, 1))).succeeded


async def test_what_reverts_when_mined_says_why(world):
    maker = world.managers["maker"]
    pending = await maker.send(world.adjudicator.claim(world.token.address, maker.address), gas=200_000)
    with pytest.raises(TransactionRevertedError) as caught:
        await maker.wait(pending)
    assert caught.value.details["reason"] == "NothingHeld"
    assert (await maker.transact(world.token.mint(maker.address, 1))).succeeded


async def test_an_empty_account_cannot_pay(world):
    pauper = TransactionManager(world.rpc, LocalSigner(role_key("pauper")), chain_id=31_337, poll_s=0.005)
    with pytest.raises(InsufficientFundsError) as caught:
        await pauper.send(world.token.mint(pauper.address, 1), gas=100_000)
    assert caught.value.details["address"] == "0x" + pauper.address.hex()


async def test_two_processes_with_one_key_do_not_block_each_other(world):
    first = world.managers["taker"]
    second = TransactionManager(world.rpc, LocalSigner(role_key("taker")), chain_id=31_337, poll_s=0.005)
    for manager in (first, second, second, first):
        assert (await manager.transact(world.token.mint(manager.address, 1))).succeeded


async def test_the_fee_cap_holds(world):
    capped = TransactionManager(
        world.rpc, LocalSigner(role_key("maker")), chain_id=31_337, fees=Fees(cap=1), poll_s=0.005
    )
    with pytest.raises(TransactionRefusedError, match="cap"):
        await capped.transact(world.token.mint(capped.address, 1))


class LossyRpc(ChainRpc):
    """A node that takes the first transactions and forgets them."""

    lose = 0

    async def send_raw(self, raw, *, sender=b""):
        if self.lose:
            self.lose -= 1
            return bytes(32)
        return await super().send_raw(raw, sender=sender)


async def test_a_stuck_transaction_is_replaced_at_a_higher_fee(world, devnet_url):
    async with LossyRpc(devnet_url) as lossy:
        lossy.lose = 1
        manager = TransactionManager(
            lossy, LocalSigner(role_key("maker")), chain_id=31_337, poll_s=0.005, replace_after_s=0.02
        )
        pending = await manager.send(world.token.mint(manager.address, 1))
        first_fee = pending.transaction["maxFeePerGas"]
        receipt = await manager.wait(pending)
        assert receipt.succeeded
        assert len(pending.hashes) == 2
        assert pending.hash == receipt.transaction_hash
        assert pending.transaction["maxFeePerGas"] >= first_fee * 11 // 10
        assert (await manager.transact(world.token.mint(manager.address, 1))).succeeded


async def test_it_gives_up_waiting_and_says_so(world, devnet_url):
    async with LossyRpc(devnet_url) as lossy:
        lossy.lose = 10**6
        manager = TransactionManager(
            lossy, LocalSigner(role_key("maker")), chain_id=31_337, poll_s=0.005, replace_after_s=0.01, timeout_s=0.05
        )
        with pytest.raises(TransactionNotMinedError):
            await manager.transact(world.token.mint(manager.address, 1))


class DeafRpc(ChainRpc):
    """A node whose answer to the first transactions is lost, whether they arrived or not."""

    arrives = True
    deaf = 0

    async def send_raw(self, raw, *, sender=b""):
        if not self.deaf:
            return await super().send_raw(raw, sender=sender)
        self.deaf -= 1
        if self.arrives:
            await super().send_raw(raw, sender=sender)
        message = "no answer"
        raise ChainUnreachableError(message)


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_lost_answer_never_sends_an_intent_twice(world, devnet_url, arrives):
    async with DeafRpc(devnet_url) as rpc:
        rpc.arrives, rpc.deaf = arrives, 1
        manager = TransactionManager(rpc, LocalSigner(role_key("maker")), chain_id=31_337, poll_s=0.005)
        before = await world.token.balance_of(manager.address)
        receipt = await manager.transact(world.token.mint(manager.address, 7))
        assert receipt.succeeded
        assert await world.token.balance_of(manager.address) == before + 7
        assert (await manager.transact(world.token.mint(manager.address, 1))).succeeded


async def test_another_transaction_takes_the_nonce(world, devnet_url):
    async with LossyRpc(devnet_url) as lossy:
        lossy.lose = 10**6
        manager = TransactionManager(
            lossy, LocalSigner(role_key("taker")), chain_id=31_337, poll_s=0.005, replace_after_s=0.02
        )
        pending = await manager.send(world.token.mint(manager.address, 1))
        await world.managers["taker"].transact(world.token.mint(manager.address, 2))
        with pytest.raises(TransactionNotMinedError, match="nonce"):
            await manager.wait(pending)


async def test_confirmations_are_awaited(world):
    manager = TransactionManager(
        world.rpc, LocalSigner(role_key("maker")), chain_id=31_337, confirmations=3, poll_s=0.005
    )
    waiting = asyncio.create_task(manager.transact(world.token.mint(manager.address, 1)))
    begin = await world.rpc.block_number()
    async with asyncio.timeout(60):
        while await world.rpc.block_number() == begin:  # noqa: ASYNC110 - what is awaited is another process's
            await asyncio.sleep(0.005)
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    await world.rpc.request("evm_mine")
    await world.rpc.request("evm_mine")
    receipt = await asyncio.wait_for(waiting, 10)
    assert await world.rpc.block_number() - receipt.block_number + 1 >= 3


async def test_a_call_to_nothing(world):
    receipt = await world.managers["maker"].transact(Call(b"\x44" * 20, b"", "send"), value=3)
    assert receipt.succeeded
    assert await world.rpc.balance(b"\x44" * 20) >= 3


@pytest.fixture
async def dear(devnet_url):
    """A node whose gas has a price, in front of the chain; and a maker of managers on it."""
    async with FaultyEndpoint(devnet_url) as node, ChainRpc(node.url) as rpc:

        def manager(role="maker", **options):
            given = {"poll_s": 0.002, "replace_after_s": 0.01, "timeout_s": 20.0, **options}
            return TransactionManager(rpc, LocalSigner(role_key(role)), chain_id=31_337, **given)

        yield node, manager


async def in_an_hour(world):
    return Deadline((await world.rpc.header()).timestamp + 3_600, 10**18)


async def test_a_tenfold_rise_of_gas_before_the_deadline_is_paid_from_the_budget(world, dear):
    node, manager = dear
    maker = manager(fees=Fees(cap=50 * GWEI))
    node.base_fee, node.spike = 20 * GWEI, 200 * GWEI
    held = await world.token.balance_of(maker.address)
    pending = await maker.send(world.token.mint(maker.address, 7), gas=100_000, deadline=await in_an_hour(world))
    assert (await maker.wait(pending)).succeeded
    assert node.prices[0] < 200 * GWEI <= node.prices[-1]
    assert all(later * 10 >= earlier * 11 for earlier, later in itertools.pairwise(node.prices))
    assert pending.transaction["gas"] * pending.transaction["maxFeePerGas"] <= pending.deadline.budget
    assert await world.token.balance_of(maker.address) == held + 7


async def test_a_budget_is_never_exceeded(world, dear):
    node, manager = dear
    maker = manager(fees=Fees(cap=50 * GWEI), timeout_s=0.3)
    node.base_fee, node.spike = 20 * GWEI, 2_000 * GWEI
    deadline = Deadline((await world.rpc.header()).timestamp + 3_600, 100_000 * 1_000 * GWEI)
    pending = await maker.send(world.token.mint(maker.address, 7), gas=100_000, deadline=deadline)
    with pytest.raises(TransactionNotMinedError):
        await maker.wait(pending)
    assert max(node.prices) == 1_000 * GWEI
    node.base_fee = 20 * GWEI
    assert (await maker.wait(pending)).succeeded


async def test_without_a_deadline_fees_end_at_the_cap_and_wait_until_gas_falls(world, dear):
    node, manager = dear
    maker = manager(fees=Fees(cap=70 * GWEI))
    node.base_fee, node.spike = 20 * GWEI, 200 * GWEI
    pending = await maker.send(world.token.mint(maker.address, 1), gas=100_000)
    waiting = asyncio.create_task(maker.wait(pending))
    async with asyncio.timeout(60):
        while node.prices[-1] < 70 * GWEI:  # noqa: ASYNC110 - fees rise by themselves
            await asyncio.sleep(0.002)
        node.base_fee = 60 * GWEI
        assert (await waiting).succeeded
    assert max(node.prices) == 70 * GWEI


async def test_an_earlier_transaction_that_is_stuck_is_raised_with_the_urgent_one(world, dear):
    node, manager = dear
    maker = manager()
    node.base_fee, node.spike = 5 * GWEI, 50 * GWEI
    stuck = await maker.send(world.token.mint(maker.address, 1), gas=100_000)
    urgent = await maker.send(world.token.mint(maker.address, 1), gas=100_000, deadline=await in_an_hour(world))
    assert stuck.transaction["maxFeePerGas"] < 50 * GWEI <= urgent.transaction["maxFeePerGas"]
    assert (await maker.wait(urgent)).succeeded
    assert stuck.transaction["maxFeePerGas"] >= 50 * GWEI
    assert (await maker.wait(stuck)).succeeded


async def test_one_of_an_earlier_life_gives_way_to_the_urgent_one(world, dear):
    node, manager = dear
    node.base_fee, node.spike = 5 * GWEI, 50 * GWEI
    before, held = manager("taker"), await world.token.balance_of(role_key("taker")[:20])
    await before.send(world.token.mint(role_key("taker")[:20], 1), gas=100_000)
    # the process is killed; the next one knows from the node alone that a nonce is taken
    after = manager("taker")
    receipt = await after.transact(world.token.mint(role_key("taker")[:20], 5), deadline=await in_an_hour(world))
    assert receipt.succeeded
    assert await world.token.balance_of(role_key("taker")[:20]) == held + 5


@pytest.mark.usefixtures("managers")
@pytest.mark.parametrize("depth", [1, 3])
async def test_what_a_reorganisation_takes_away_is_sent_again(devnet_url, depth):
    async with ChainRpc(devnet_url) as rpc:
        manager = TransactionManager(
            rpc, LocalSigner(role_key("maker")), chain_id=31_337, confirmations=depth + 1, poll_s=0.002
        )
        to = role_key(f"payee {depth}")[:20]
        waiting = asyncio.create_task(manager.transact(Call(to, b"", "send"), value=3))
        async with asyncio.timeout(60):
            while not await rpc.balance(to):  # noqa: ASYNC110 - what is awaited is another process's
                await asyncio.sleep(0.002)
            await rpc.request("channeld_reorganise", 1)
            while not await rpc.balance(to):  # noqa: ASYNC110 - the same
                await asyncio.sleep(0.002)
            for _ in range(depth):
                await rpc.request("evm_mine")
            receipt = await waiting
        assert receipt.succeeded
        assert await rpc.balance(to) == 3


@pytest.mark.usefixtures("managers")
async def test_after_a_reorganisation_below_the_confirmations_no_nonce_is_left_out(devnet_url):
    async with ChainRpc(devnet_url) as rpc:
        manager = TransactionManager(rpc, LocalSigner(role_key("maker")), chain_id=31_337, poll_s=0.002)
        to = role_key("payee of a deep one")[:20]
        for _ in range(3):
            await manager.transact(Call(to, b"", "send"), value=1)
        await rpc.request("channeld_reorganise", 3)
        assert await rpc.balance(to) in {0, 3}  # an anvil puts them back itself
        assert (await manager.transact(Call(to, b"", "send"), value=10)).succeeded
        assert await rpc.balance(to) == 13


@pytest.mark.anvil
async def test_in_the_pool_of_an_anvil_a_spike_is_outbid_before_the_deadline():
    """A real pool and a real base fee: nothing is mined until it is asked for, and then by what it pays."""
    need_anvil()
    backend = AnvilBackend(31_337, START_TIME)
    await backend.start()
    try:
        async with ChainRpc(backend._url) as rpc:
            key = role_key("maker")
            manager = TransactionManager(
                rpc,
                LocalSigner(key),
                chain_id=31_337,
                fees=Fees(cap=20 * GWEI),
                poll_s=0.005,
                replace_after_s=0.05,
                timeout_s=30,
            )
            await rpc.request("anvil_setBalance", "0x" + manager.address.hex(), hex(10**20))
            await rpc.request("evm_setAutomine", False)
            to = role_key("payee of the pool")[:20]
            deadline = Deadline((await rpc.header()).timestamp + 3_600, 10**17)
            stuck = await manager.send(Call(to, b"", "earlier"), value=1)
            urgent = await manager.send(Call(to, b"", "urgent"), value=2, deadline=deadline)
            spike = 10 * urgent.transaction["maxFeePerGas"]
            await rpc.request("anvil_setNextBlockBaseFeePerGas", hex(spike))
            await rpc.request("evm_mine")
            assert await rpc.balance(to) == 0
            waiting = asyncio.create_task(manager.wait(urgent))
            async with asyncio.timeout(60):
                while not waiting.done():
                    await rpc.request("anvil_setNextBlockBaseFeePerGas", hex(spike))
                    await rpc.request("evm_mine")
                    await asyncio.sleep(0.02)
            assert (await waiting).succeeded
            assert await rpc.balance(to) == 3
            assert len(stuck.hashes) > 1
            assert urgent.transaction["gas"] * urgent.transaction["maxFeePerGas"] <= deadline.budget
    finally:
        await backend.stop()
