"""Towers on a real chain: old states refuted by themselves, also over a restart; fixes proven; ends noticed."""

import pytest
from tower_support import (
    BTC,
    ETH,
    MAKER,
    ORACLE_KEYS,
    TAKER,
    chain_world,
    client_of,
    held_of,
    role_key,
)

from channeld.chain.contracts import Phase
from channeld.core.crypto import sign_digest
from channeld.core.eip712 import Close, close_digest, oracle_hash
from channeld.core.errors import OracleError
from channeld.core.packages import DataPoint, sign_package
from channeld.core.settlement import fix_time
from channeld.core.state import Account
from channeld.tower.ledger import Owners


@pytest.fixture
async def world():
    async with chain_world() as made:
        yield made


async def put(world, tower, terms, channel, version, name="maker"):
    async with client_of(tower.url, name, world.clock, tower=tower.address) as client:
        await client.register(world.domain, terms, channel)
        return (await client.put([(world.domain, terms, channel, held_of(channel, version, domain=world.domain))]))[0]


async def looked(tower):
    await tower.looked()
    await tower.guard.settle()


async def on_record(world, channel):
    return (await world.adjudicator.dispute_record(channel)).version


async def test_an_old_state_is_refuted_within_a_few_blocks(world, tmp_path):
    terms, channel = await world.open(1)
    async with world.tower(tmp_path) as tower:
        await put(world, tower, terms, channel, 9)
        await world.challenge(channel, held_of(channel, 4, domain=world.domain))
        await looked(tower)
        assert await on_record(world, channel) == 9
        told = tower.health()
        assert (told["challenges"], told["refuted"], told["late"], told["failed"]) == (1, 1, 0, 0)
        assert told["slowest_blocks"] <= 2
        # an honest challenge is left alone
        _, other = await world.open(2)
        await put(world, tower, _, other, 3)
        await world.challenge(other, held_of(other, 3, domain=world.domain))
        await looked(tower)
        assert tower.health()["refuted"] == 1


async def test_a_tower_that_was_down_between_challenge_and_refutation_resumes(world, tmp_path):
    terms, channel = await world.open(1)
    async with world.tower(tmp_path) as tower:
        receipt = (await put(world, tower, terms, channel, 9)).receipt
    await world.challenge(channel, held_of(channel, 4, domain=world.domain))
    await world.rpc.advance(80_000)
    async with world.tower(tmp_path) as tower:
        await looked(tower)
        assert await on_record(world, channel) == 9
        # and it still has what it gave a receipt for
        async with client_of(tower.url, "maker", world.clock, tower=tower.address) as client:
            client.receipts[channel] = receipt
            mine = (world.domain, terms, channel, held_of(channel, 9, domain=world.domain))
            assert (await client.check([mine]))[0].receipt.version == 9


async def test_a_state_that_comes_during_the_dispute_refutes_too(world, tmp_path):
    terms, channel = await world.open(1)
    async with world.tower(tmp_path) as tower:
        await put(world, tower, terms, channel, 4)
        await world.challenge(channel, held_of(channel, 4, domain=world.domain))
        await looked(tower)
        assert await on_record(world, channel) == 4
        await put(world, tower, terms, channel, 6, name="taker")
        await looked(tower)
        assert await on_record(world, channel) == 6


async def test_a_reorganisation_that_takes_the_refutation_away_is_noticed(world, tmp_path):
    terms, channel = await world.open(1)
    async with world.tower(tmp_path) as tower:
        await put(world, tower, terms, channel, 9)
        await world.challenge(channel, held_of(channel, 4, domain=world.domain))
        challenged_at = await world.rpc.block_number()
        await looked(tower)
        assert await on_record(world, channel) == 9

        await world.rpc.request("channeld_reorganise", await world.rpc.block_number() - challenged_at)
        await looked(tower)
        assert await on_record(world, channel) == 9


async def test_many_channels_are_challenged_at_once(world, tmp_path):
    opened = [await world.open(salt) for salt in range(8)]
    async with world.tower(tmp_path, Owners({MAKER: 8})) as tower:
        async with client_of(tower.url, "maker", world.clock, tower=tower.address) as client:
            for terms, channel in opened:
                await client.register(world.domain, terms, channel)
            states = [
                (world.domain, terms, channel, held_of(channel, 9, domain=world.domain)) for terms, channel in opened
            ]
            assert all(answer.receipt for answer in await client.put(states))
        for _, channel in opened:
            await world.challenge(channel, held_of(channel, 2, domain=world.domain))
        await looked(tower)
        assert [await on_record(world, channel) for _, channel in opened] == [9] * 8
        assert tower.health()["slowest_blocks"] <= 20


async def test_a_deadline_that_has_passed_is_said_and_nothing_is_sent(world, tmp_path):
    terms, channel = await world.open(1)
    async with world.tower(tmp_path) as tower:
        await put(world, tower, terms, channel, 9)
    await world.challenge(channel, held_of(channel, 4, domain=world.domain))
    await world.rpc.advance(90_000)
    nonce = await world.rpc.transaction_count(world.managers["tower"].address)
    async with world.tower(tmp_path) as tower:
        await looked(tower)
        await looked(tower)
        assert await on_record(world, channel) == 4
        assert tower.health()["late"] <= 1
        assert await world.rpc.transaction_count(tower.address) == nonce


async def packages(oracle, feed, t):
    if feed == BTC:
        raise OracleError("no such package")
    price = {ETH: 3000}[feed]
    keys = sorted(ORACLE_KEYS, key=lambda key: key)
    times = [t - back * oracle.sample_gap for back in range(oracle.samples)]
    return tuple(sign_package(key, time * 1000, [DataPoint(feed, price * 10**8)]) for time in times for key in keys)


async def test_fixes_are_proven_where_packages_are_at_hand(world, tmp_path):
    terms, channel = await world.open(1)
    async with world.tower(tmp_path, fixes=packages) as tower:
        await put(world, tower, terms, channel, 9)
        await world.challenge(channel, held_of(channel, 9, domain=world.domain))
        deadline = (await world.adjudicator.dispute_record(channel)).deadline
        at = fix_time(terms, deadline)
        await world.rpc.advance(at - (await world.rpc.header()).timestamp + 5)
        await world.clock.wait_until(at * 1000)
        await looked(tower)
        value, weight = await world.fix_book.fix(oracle_hash(terms.oracle), ETH, at)
        assert (value, weight) == (3000 * 10**18, len(ORACLE_KEYS) * terms.oracle.samples)
        assert (await world.fix_book.fix(oracle_hash(terms.oracle), BTC, at))[1] == 0
        assert tower.health()["fixes_proven"] == 1


async def test_a_channel_that_has_ended_makes_room_for_another(world, tmp_path):
    terms, channel = await world.open(1)
    async with world.tower(tmp_path, Owners({MAKER: 1, TAKER: 1})) as tower:
        await put(world, tower, terms, channel, 1)
        now = (await world.rpc.header()).timestamp
        close = Close(channel, 1, now + 500, Account(10**9, 10**9, 0), Account(10**9, 10**9, 0))
        digest = close_digest(world.domain, close)
        signatures = b"".join(sign_digest(role_key(name), digest) for name in ("maker", "taker"))
        await world.managers["maker"].transact(world.adjudicator.close(close, signatures))
        assert (await world.adjudicator.channel_record(channel)).phase is Phase.ENDED
        await looked(tower)
        assert tower.health()["channels"] == 0
        terms, channel = await world.open(2)
        assert (await put(world, tower, terms, channel, 1)).receipt.version == 1
