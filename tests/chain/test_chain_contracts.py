"""The bindings against the contracts: every call, record and event of a channel's two ends."""

from chain_support import ORACLE_KEYS, PAYOUTS, both_sign, example_terms

from channeld.chain import events
from channeld.chain.contracts import Phase, RiskEngine
from channeld.chain.watcher import Cursor, Watcher
from channeld.core.eip712 import (
    Close,
    Withdrawal,
    body_hash,
    channel_id,
    close_digest,
    oracle_hash,
    state_digest,
    withdrawal_digest,
)
from channeld.core.packages import DataPoint, sign_package
from channeld.core.state import Account, Body, Instrument, Kind, Position
from channeld.core.terms import feed_id
from channeld.core.wad import WAD

ETH = feed_id("ETH")


async def open_and_fund(world, amount):
    maker, taker = world.managers["maker"], world.managers["taker"]
    terms = example_terms(world.token.address)
    await maker.transact(world.adjudicator.open(terms))
    channel = channel_id(world.deployment.domain, terms)
    for party, manager in enumerate((maker, taker)):
        await manager.transact(world.token.mint(manager.address, amount))
        await manager.transact(world.token.approve(world.deployment.adjudicator, amount))
        assert await world.token.allowance(manager.address, world.deployment.adjudicator) == amount
        await manager.transact(world.adjudicator.deposit(channel, party, amount, amount * party))
    return terms, channel


def watch(world, block):
    return Watcher(world.rpc, [world.deployment.adjudicator, world.deployment.fix_book], Cursor.begin(block))


async def test_open_deposit_withdraw_close(world):
    watcher = watch(world, await world.rpc.block_number() + 1)
    maker = world.managers["maker"]
    before = [await world.token.balance_of(payout) for payout in PAYOUTS]
    terms, channel = await open_and_fund(world, 1_000)
    assert await world.lens.channel_id(terms) == channel
    record = await world.adjudicator.channel_record(channel)
    assert (record.phase, record.collateral) == (Phase.OPEN, terms.collateral)
    assert (record.signer_a, record.payout_a, record.signer_b, record.payout_b) == (
        terms.a.signer,
        terms.a.payout,
        terms.b.signer,
        terms.b.payout,
    )
    assert (record.deposited_a, record.deposited_b, record.paid_a, record.paid_b) == (1_000, 1_000, 0, 0)
    assert record.challenge_period == terms.challenge_period
    assert (await world.adjudicator.channel_record(b"\7" * 32)).phase is Phase.NONE
    assert (await world.adjudicator.dispute_record(channel)).number == 0

    withdrawal = Withdrawal(channel, 3, b"\3" * 32, 100, 0)
    withdrawal_sigs = both_sign(withdrawal_digest(world.deployment.domain, withdrawal))
    await maker.transact(world.adjudicator.withdraw(withdrawal, withdrawal_sigs))
    now = (await world.rpc.header()).timestamp
    close = Close(channel, 4, now + 600, Account(1_100, 1_000, 100), Account(800, 1_000, 0))
    close_sigs = both_sign(close_digest(world.deployment.domain, close))
    await maker.transact(world.adjudicator.close(close, close_sigs))
    assert (await world.adjudicator.channel_record(channel)).phase is Phase.ENDED
    after = [await world.token.balance_of(payout) for payout in PAYOUTS]
    assert [x - y for x, y in zip(after, before, strict=True)] == [1_200, 800]

    found = await watcher.poll()
    assert [type(event).__name__ for event in found] == ["Opened", "Deposited", "Deposited", "Withdrawn", "Closed"]
    opened, first, second, withdrawn, closed = found
    assert (opened.channel, opened.terms, opened.signer_b) == (channel, terms, terms.b.signer)
    assert (first.party, first.caller, first.received, first.deposited_a) == (0, maker.address, 1_000, 1_000)
    assert (second.party, second.deposited_a, second.deposited_b) == (1, 1_000, 1_000)
    assert (withdrawn.withdrawal, withdrawn.to_a, withdrawn.sigs) == (withdrawal, 100, withdrawal_sigs)
    assert (closed.close, closed.to_a, closed.to_b, closed.sigs) == (close, 1_100, 800, close_sigs)
    for event in found:
        assert (await world.rpc.header(event.at.block_number)).timestamp == event.at.time


async def test_challenge_refute_prove_settle(world):
    watcher = watch(world, await world.rpc.block_number() + 1)
    maker, taker = world.managers["maker"], world.managers["taker"]
    terms, channel = await open_and_fund(world, 10_000_000_000)
    domain = world.deployment.domain
    now = (await world.rpc.header()).timestamp
    call = Instrument(Kind.CALL, ETH, (now // 10 + 100_000) * 10, 3_000 * WAD)
    perpetual = Instrument(Kind.PERPETUAL, ETH, 0, 0)
    accounts = (Account(10**10, 10**10, 0), Account(10**10, 10**10, 0))
    positions = (
        Position(perpetual, WAD, 3_000 * WAD, WAD // 10, 0),
        Position(call, -WAD, 100 * WAD, 0, WAD // 2),
    )
    body = Body(now, WAD, b"\5" * 32, *accounts, positions)
    old = state_digest(domain, channel, 1, b"\1" * 32)
    new = state_digest(domain, channel, 2, body_hash(body))
    await maker.transact(world.adjudicator.challenge(channel, 1, b"\1" * 32, both_sign(old)))
    dispute = await world.adjudicator.dispute_record(channel)
    assert (dispute.number, dispute.version, dispute.body_hash) == (1, 1, b"\1" * 32)
    await taker.transact(world.adjudicator.refute(channel, 2, body_hash(body), both_sign(new)))
    dispute = await world.adjudicator.dispute_record(channel)
    assert (dispute.version, dispute.body_hash) == (2, body_hash(body))
    assert (await world.adjudicator.channel_record(channel)).phase is Phase.DISPUTED

    fix_time = -(-(dispute.deadline + 120) // 10) * 10
    await world.rpc.set_time(fix_time)
    packages = b"".join(
        sign_package(key, (fix_time - back) * 1000, [DataPoint(ETH, 3_100 * 10**8)])
        for back in (0, 60)
        for key in ORACLE_KEYS
    )
    await taker.transact(world.fix_book.prove_fix(terms.oracle, ETH, fix_time, packages))
    assert await world.fix_book.fix(oracle_hash(terms.oracle), ETH, fix_time) == (3_100 * WAD, 6)
    engine = RiskEngine(world.rpc, world.deployment.risk_engine)
    profit = await engine.profit(body, [3_100 * WAD, 3_100 * WAD], fix_time)
    assert await engine.value(0, 5 * WAD, 0, 0, 0, 0) == 5 * WAD
    await maker.transact(world.adjudicator.settle(terms, body))

    found = await watcher.poll()
    challenged, refuted, proven, settled = found[3:]
    assert (challenged.version, challenged.deadline, challenged.sigs) == (1, dispute.deadline, both_sign(old))
    assert (refuted.version, refuted.caller, refuted.sigs) == (2, taker.address, both_sign(new))
    assert isinstance(proven, events.FixProven)
    assert (proven.feed, proven.t, proven.value, proven.weight) == (ETH, fix_time, 3_100 * WAD, 6)
    assert isinstance(settled, events.Settled)
    assert (settled.version, settled.fix_time, settled.complete) == (2, fix_time, True)
    units = profit // 10**12 if profit >= 0 else -(-profit // 10**12)
    assert (settled.profit, settled.to_a) == (units, 10**10 + units)
    assert settled.to_a + settled.to_b == 2 * 10**10
