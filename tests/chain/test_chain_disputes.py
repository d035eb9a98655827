"""The bindings of margin calls, floors, resumption and the last ways out, on a real chain; errors come by name."""

import pytest
from chain_support import ORACLE_KEYS, both_sign
from test_chain_contracts import ETH, open_and_fund, watch

from channeld.chain import events
from channeld.chain.contracts import Anchor, Permit, Phase
from channeld.chain.errors import RevertError
from channeld.core.eip712 import Resume, body_hash, resume_digest, state_digest
from channeld.core.margin import both
from channeld.core.packages import DataPoint, sign_package
from channeld.core.settlement import (
    MarginCall,
    Verdict,
    call_time,
    fix_time,
    fixes_needed,
    judge,
    release_amounts,
    settle_with_calls,
)
from channeld.core.state import Account, Body, Instrument, Kind, Position
from channeld.core.wad import DAY, WAD

UNITS = 10**10
ACCOUNT = Account(UNITS, UNITS, 0)
TOTALS = (UNITS, UNITS, 0, 0)


def book(now, size=20):
    """A perpetual on ETH at 3000: its maintenance margin is about a ninth of its value."""
    position = Position(Instrument(Kind.PERPETUAL, ETH, 0, 0), size * WAD, 3_000 * WAD, 0, 0)
    return Body(now, WAD, b"\5" * 32, ACCOUNT, ACCOUNT, (position,))


def signed(world, channel, version, body):
    digest = state_digest(world.deployment.domain, channel, version, body_hash(body))
    return version, body_hash(body), both_sign(digest)


async def prove(world, terms, t, price):
    packages = b"".join(
        sign_package(key, (t - back) * 1000, [DataPoint(ETH, price * 10**8)]) for back in (0, 60) for key in ORACLE_KEYS
    )
    await world.managers["taker"].transact(world.fix_book.prove_fix(terms.oracle, ETH, t, packages))


async def test_margin_call_test_settle(world):
    watcher = watch(world, await world.rpc.block_number() + 1)
    maker, taker = world.managers["maker"], world.managers["taker"]
    adjudicator = world.adjudicator
    terms, channel = await open_and_fund(world, UNITS)
    body = book((await world.rpc.header()).timestamp)
    await taker.transact(adjudicator.call_margin(channel, *signed(world, channel, 3, body)))
    dispute = await adjudicator.dispute_record(channel)
    call = await adjudicator.margin_call(channel, dispute.number, 0)
    assert (dispute.calls, call.party, call.tested) == (1, 1, False)
    assert call.time == call_time(terms, dispute.deadline - terms.challenge_period)
    assert (call.deposited_a, call.deposited_b) == (UNITS, UNITS)
    with pytest.raises(RevertError, match="CallPending"):
        await taker.transact(adjudicator.call_margin(channel, 0, bytes(32), b""))

    d = fix_time(terms, dispute.deadline)
    await world.rpc.set_time(d)
    quote = await world.lens.quote_settlement(terms, body)
    assert (quote.reason, quote.until) == ("CallsUntested", d + terms.oracle.grace)
    with pytest.raises(RevertError, match="FixMissing"):
        await maker.transact(adjudicator.test(terms, body, 0))
    await prove(world, terms, call.time, 2_600)
    (needed,) = await world.lens.fixes_needed(terms, body, call.time)
    assert ((needed.feed, needed.time),) == fixes_needed(terms, body, call.time)
    assert (needed.price, needed.weight) == (2_600 * WAD, 6)
    await maker.transact(adjudicator.test(terms, body, 0))
    verdict = judge(terms, body, {(ETH, call.time): (2_600 * WAD, 6)}, call.time, *TOTALS)
    assert (verdict.below_a, verdict.below_b) == (True, False)
    call = await adjudicator.margin_call(channel, dispute.number, 0)
    assert (call.tested, call.below_a, call.complete, call.weight) == (True, True, True, 6)
    assert call.penalty == verdict.penalty > 0

    expected = settle_with_calls(
        terms,
        body,
        {(ETH, call.time): 2_600 * WAD},
        dispute.deadline,
        [MarginCall(call.time, verdict)],
        *TOTALS,
    )
    quote = await world.lens.quote_settlement(terms, body)
    assert (quote.reason, quote.call, quote.to_a, quote.to_b) == ("", 0, *expected)
    await maker.transact(adjudicator.settle(terms, body))
    called, proven, tested, settled = (await watcher.poll())[-4:]
    assert isinstance(called, events.MarginCalled)
    assert (called.party, called.call, called.time, called.caller) == (1, 0, call.time, taker.address)
    assert isinstance(proven, events.FixProven)
    assert isinstance(tested, events.Tested)
    names = Verdict.__slots__
    assert [getattr(tested.verdict, name) for name in names] == [getattr(verdict, name) for name in names]
    assert isinstance(settled, events.Settled)
    assert (settled.call, settled.penalty, settled.fix_time) == (0, -verdict.penalty, call.time)
    assert (settled.to_a, settled.to_b) == expected


async def test_anchors_and_resume(world):
    watcher = watch(world, await world.rpc.block_number() + 1)
    maker, adjudicator = world.managers["maker"], world.adjudicator
    _, channel = await open_and_fund(world, UNITS)
    body = book((await world.rpc.header()).timestamp)
    anchors = [Anchor(channel, *signed(world, channel, version, body)) for version in (2, 4, 5)]
    await maker.transact(adjudicator.anchor(anchors[1]))
    with pytest.raises(RevertError, match="VersionNotHigher"):
        await maker.transact(adjudicator.anchor(anchors[0]))
    await maker.transact(adjudicator.anchor_many(anchors))
    assert (await adjudicator.channel_record(channel)).floor_version == 5
    await maker.transact(adjudicator.challenge(channel, 0, bytes(32), b""))
    now = (await world.rpc.header()).timestamp
    resume = Resume(channel, 1, now + 600)
    sigs = both_sign(resume_digest(world.deployment.domain, resume))
    with pytest.raises(RevertError, match="InvalidSignatureA"):
        await maker.transact(adjudicator.resume(resume, sigs[65:] + sigs[:65]))
    await maker.transact(adjudicator.resume(resume, sigs))
    assert (await adjudicator.channel_record(channel)).phase is Phase.OPEN
    anchored, second, challenged, resumed = (await watcher.poll())[-4:]
    assert isinstance(anchored, events.Anchored)
    assert isinstance(second, events.Anchored)
    assert isinstance(challenged, events.Challenged)
    assert isinstance(resumed, events.Resumed)
    assert (anchored.version, second.version, resumed.version) == (4, 5, 5)
    assert (anchored.sigs, anchored.body_hash) == (anchors[1].sigs, body_hash(body))
    assert (resumed.resume, resumed.sigs, resumed.body_hash) == (resume, sigs, body_hash(body))


async def test_a_deposit_with_a_permit_that_fails_takes_the_allowance(world):
    maker, adjudicator = world.managers["maker"], world.adjudicator
    _, channel = await open_and_fund(world, UNITS)
    permit = Permit(2**32, 27, b"\1" * 32, b"\1" * 32)
    with pytest.raises(RevertError, match="allowance too low"):
        await maker.transact(adjudicator.deposit_with_permit(channel, 0, 7, permit))
    await maker.transact(world.token.mint(maker.address, 7))
    await maker.transact(world.token.approve(world.deployment.adjudicator, 7))
    await maker.transact(adjudicator.deposit_with_permit(channel, 0, 7, permit, UNITS))
    assert (await adjudicator.channel_record(channel)).deposited_a == UNITS + 7


async def test_hidden_bodies(world):
    watcher = watch(world, await world.rpc.block_number() + 1)
    maker, taker, adjudicator = world.managers["maker"], world.managers["taker"], world.adjudicator
    now = (await world.rpc.header()).timestamp
    terms, channel = await open_and_fund(world, UNITS)
    other_terms, other = await open_and_fund(world, UNITS)
    body = Body(now, WAD, b"\6" * 32, Account(UNITS - 5, UNITS, 0), Account(UNITS + 5, UNITS, 0), ())
    for disputed in (channel, other):
        await taker.transact(adjudicator.challenge(disputed, *signed(world, disputed, 9, book(now))))
    deadline = (await adjudicator.dispute_record(channel)).deadline
    await world.rpc.set_time(fix_time(terms, deadline) + 2 * terms.oracle.grace)
    sigs = signed(world, channel, 4, body)[2]
    await maker.transact(adjudicator.settle_last(terms, 4, body, sigs))
    dispute = await adjudicator.dispute_record(channel)
    assert (dispute.version, dispute.shown_version, dispute.shown_hash) == (9, 4, body_hash(body))
    await world.rpc.set_time(dispute.window_end)
    with pytest.raises(RevertError, match="BodyNotShown"):
        await maker.transact(adjudicator.settle_last(terms, 5, body, sigs))
    await maker.transact(adjudicator.settle_last(terms, 4, body, b""))
    with pytest.raises(RevertError, match="ReleaseNotReached"):
        await maker.transact(adjudicator.release(other_terms))
    await world.rpc.set_time(deadline + terms.oracle.grace + 181 * DAY)
    await maker.transact(adjudicator.release(other_terms))
    shown, settled, released = (await watcher.poll())[-3:]
    assert isinstance(shown, events.Shown)
    assert (shown.version, shown.window_end, shown.sigs, shown.caller) == (4, dispute.window_end, sigs, maker.address)
    assert isinstance(settled, events.Settled)
    assert (settled.version, settled.to_a, settled.call) == (4, UNITS - 5, 255)
    assert isinstance(released, events.Released)
    assert (released.channel, released.to_a, released.to_b) == (other, *release_amounts(*TOTALS))


async def test_the_lens_computes_margin_as_core_does(world):
    terms, _ = await open_and_fund(world, UNITS)
    now = (await world.rpc.header()).timestamp
    body, prices = book(now), {ETH: 2_900 * WAD}
    found = await world.lens.margin(terms, body, prices, now + 60, WAD)
    a, b = both(terms, body, prices, now + 60, WAD)
    assert (found.equity_a, found.maintenance_a, found.initial_a) == (a.equity, a.maintenance, a.initial)
    assert (found.equity_b, found.maintenance_b, found.initial_b) == (b.equity, b.maintenance, b.initial)
    assert [m.maintenance_b for m in found.markets if m.feed == ETH] == [b.maintenance]
    with pytest.raises(RevertError, match="MissingPrice"):
        await world.lens.margin(terms, body, {}, now + 60, WAD)
