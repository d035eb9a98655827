"""Margin calls between two daemons: met by a top-up, by a reduction, not met and judged on chain, and ended by both."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from desk_world import ETH, TOKENS, alerted, events_of, only_actor, two_desks

from channeld.core.channel import DISPUTING, Freeze
from channeld.core.channel.values import NotReadyError
from channeld.core.operations import Transfer
from channeld.core.settlement import MarginCall, fix_time, fixes_needed, judge, settle_with_calls
from channeld.core.wad import WAD
from channeld.daemon.margin_desk import TOP_UP_SETTLES_MS
from channeld.daemon.resuming import CannotResumeError

DEPOSIT = 250_000 * TOKENS


def settings(desk, **changes):
    """Change [margin] of one desk."""
    node = desk.node
    node.config = msgspec.structs.replace(node.config, margin=msgspec.structs.replace(node.config.margin, **changes))


async def with_book(world, size="1000"):
    """The maker is long ETH, so that the maker loses when it falls."""
    await world.open()
    await world.taker.call("policy_set", peer="maker", auto_accept=True)
    legs = [{"instrument": "ETH-PERP", "size": size, "price": "3000"}]
    assert (await world.maker.call("trade", channel="taker", legs=legs))["status"] == "done"


async def fall(world, price=2820):
    """ETH falls; the prints of the new price are there."""
    world.price(ETH, price)
    await world.advance(20)


async def calls(desk):
    return await desk.call("calls")


async def state_is(desk, wanted):
    return [row["state"] for row in await calls(desk)][:1] == [wanted]


async def test_a_call_is_agreed_met_by_a_top_up_and_cured(tmp_path):
    async with two_desks(tmp_path) as world:
        await with_book(world)
        settings(world.maker, top_up_limit="500000")
        await fall(world)
        await world.taker.until(lambda: state_is(world.taker, "cured"), "the cure")
        (ours,) = await calls(world.taker)
        assert ours["party"] == "peer"
        # 1,000 ETH at 2,820: 180,000 lost of 250,000; maintenance 6% and initial 1.2 times as much of 2,820,000
        assert float(ours["maintenance"]) == pytest.approx(169_200, abs=1_000)
        assert float(ours["amount"]) == pytest.approx(203_040 - 70_000, abs=1_000)
        await world.maker.until(lambda: state_is(world.maker, "cured"), "the cure at the party called")
        (theirs,) = await calls(world.maker)
        assert theirs["id"] == ours["id"]
        assert theirs["agreed"] == theirs["amount"]
        told = [e["state"] for e in await events_of(world.maker, "margin_call")]
        assert told[:2] == ["issued", "agreed in full"]
        assert told[-1] == "cured"
        (top_up,) = await events_of(world.maker, "top_up")
        assert top_up["amount"] == ours["amount"]
        assert await world.status(world.maker, "open")


async def test_a_top_up_on_its_way_is_not_sent_again_after_a_restart(tmp_path):
    async with two_desks(tmp_path) as world:
        await with_book(world)
        maker = world.maker
        stuck = asyncio.Event()

        async def waits(*_):
            await stuck.wait()

        maker.node.chain.deposit = waits
        settings(maker, top_up_limit="500000")
        await fall(world)
        await maker.until(lambda: events_of(maker, "top_up"), "the top-up")
        await maker.node.stop()
        await maker.start()
        settings(maker, top_up_limit="500000")
        actor = only_actor(maker)
        await maker.until(lambda: actor.channel.synced, "the exchange")
        now_ms = world.clock.now_ms()
        # what is wanted is on its way: nothing more is sent until it had its time to be mined
        assert await maker.node.margin.top_up(actor, TOKENS, now_ms)
        assert len(await events_of(maker, "top_up")) == 1
        maker.node.chain.deposit = waits
        assert await maker.node.margin.top_up(actor, TOKENS, now_ms + TOP_UP_SETTLES_MS)
        assert [row["amount"] for row in await events_of(maker, "top_up")][-1] == "1"


async def test_a_top_up_beyond_the_limit_is_not_made_and_a_reduction_cures(tmp_path):
    async with two_desks(tmp_path) as world:
        await with_book(world)
        settings(world.maker, top_up_limit="1000", reductions="propose")
        settings(world.taker, reductions="agree")
        await fall(world)
        await world.taker.until(lambda: state_is(world.taker, "cured"), "the cure")
        body = only_actor(world.taker).state.body
        (position,) = body.positions
        # at initial margin a quarter is not enough: 7.2% of 750 ETH is more than the 70,000 that are left
        assert position.size == 250 * WAD
        assert await alerted(world.maker, "of today's limit")
        assert not await events_of(world.maker, "top_up")
        assert body.a.balance + body.b.balance == 2 * DEPOSIT


async def test_nothing_is_called_on_chain_by_default_and_calls_survive_a_restart(tmp_path):
    async with two_desks(tmp_path) as world:
        await with_book(world)
        await fall(world)
        await world.taker.until(lambda: state_is(world.taker, "agreed in full"), "the answer")
        before = await calls(world.taker)
        await world.taker.node.stop()
        world.taker.flags["peers.listen"] = f"127.0.0.1:{world.port}"
        await world.taker.start()
        assert await calls(world.taker) == before
        await world.rpc.advance(700)
        await world.taker.until(lambda: alerted(world.taker, "is in default"), "the alert")
        assert "expired" in [row["state"] for row in await calls(world.taker)]
        assert await world.status(world.taker, "open")


async def default(world, price=2820):
    """A call that is not met: the taker's daemon calls margin on chain by itself; the body on record, and L."""
    settings(world.taker, auto_call="call")
    await fall(world, price)
    await world.taker.until(lambda: state_is(world.taker, "agreed in full"), "the call")
    await world.advance(610)
    for desk in (world.maker, world.taker):
        await desk.until(lambda d=desk: world.status(d, "disputed"), "the call on chain")
    chain, actor = world.taker.node.chain, only_actor(world.taker)
    dispute = await chain.adjudicator.dispute_record(actor.id)
    called = await chain.adjudicator.margin_call(actor.id, dispute.number, 0)
    assert called.party == 1
    return dispute, called


async def test_a_call_not_met_is_made_on_chain_by_itself_and_carried_through_to_the_unit(tmp_path):
    async with two_desks(tmp_path) as world:
        await with_book(world)
        dispute, called = await default(world)
        body = only_actor(world.taker).state.body
        # at L the price is another one than at the end, and the packages are asked for long before the deadline
        await world.advance(called.time - world.clock.now_ms() // 1000 + 15)
        seen, channel = world.taker.node.chain.disputes.seen, only_actor(world.taker).id
        await world.taker.until(
            lambda: channel in seen and seen[channel].view.held.get((ETH, called.time)) == 9, "the packages of L"
        )
        world.price(ETH, 3500)
        await world.advance(86_400)
        for desk in (world.maker, world.taker):
            await desk.until(lambda d=desk: world.status(d, "closed"), "the settlement")
        at = fix_time(world.terms, dispute.deadline)
        fixes = dict.fromkeys(fixes_needed(world.terms, body, called.time), (2820 * WAD, 9))
        fixes |= dict.fromkeys(fixes_needed(world.terms, body, at), (3500 * WAD, 9))
        totals = (DEPOSIT, DEPOSIT, 0, 0)
        verdict = judge(world.terms, body, fixes, called.time, *totals)
        assert verdict.below_a
        assert verdict.penalty > 0
        values = {key: value for key, (value, _) in fixes.items()}
        expected = settle_with_calls(
            world.terms, body, values, dispute.deadline, [MarginCall(called.time, verdict)], *totals
        )
        paid = await world.paid()
        assert (paid["a"], paid["b"]) == expected
        assert paid["a"] + paid["b"] == 2 * DEPOSIT


async def resumed(world, desk):
    """The dispute has ended by agreement, and the desk trades on."""
    await desk.until(lambda: events_of(desk, "resumed"), "the end of the dispute")
    assert await world.status(desk, "open")
    await desk.until(lambda: only_actor(desk).channel.synced, "the exchange")


async def test_the_party_called_tops_up_before_l_both_resume_and_trade_on(tmp_path):
    async with two_desks(tmp_path) as world:
        await with_book(world)
        _, called = await default(world)
        settings(world.maker, top_up_limit="500000")
        await world.maker.until(lambda: events_of(world.maker, "top_up"), "the top-up")
        assert world.clock.now_ms() // 1000 < called.time
        for desk in (world.maker, world.taker):
            settings(desk, auto_resume="agree")
        await world.advance(20)
        for desk in (world.maker, world.taker):
            await resumed(world, desk)
        await world.maker.until(lambda: only_actor(world.maker).state.body.a.deposited > DEPOSIT, "the deposit")
        for desk, peer in ((world.taker, "maker"), (world.maker, "taker")):
            assert (await desk.call("transfer", channel=peer, amount="1"))["version"]
        await world.advance(86_400)
        assert await world.status(world.maker, "open")


async def test_who_owes_more_than_it_has_is_called_on_chain_at_once(tmp_path):
    async with two_desks(tmp_path) as world:
        await with_book(world)
        settings(world.taker, auto_call="call")
        await fall(world, 2700)
        for desk in (world.maker, world.taker):
            await desk.until(lambda d=desk: world.status(d, "disputed"), "the call on chain")
        assert await alerted(world.taker, "owes more than its whole balance")
        assert world.clock.now_ms() // 1000 < 600 + only_actor(world.taker).state.body.as_of


async def test_a_second_call_follows_one_that_was_cured(tmp_path):
    async with two_desks(tmp_path) as world:
        await with_book(world)
        _, called = await default(world)
        await world.maker.call("deposit", channel="taker", amount="200000")
        await world.advance(called.time - world.clock.now_ms() // 1000 + 15)
        chain, actor = world.taker.node.chain, only_actor(world.taker)
        assert (await chain.adjudicator.dispute_record(actor.id)).calls == 1
        world.price(ETH, 2600)
        await world.advance(30)
        await world.taker.until(lambda: _calls_on_chain(world, 2), "the second call")


async def _calls_on_chain(world, wanted):
    chain, actor = world.taker.node.chain, only_actor(world.taker)
    return (await chain.adjudicator.dispute_record(actor.id)).calls == wanted


async def test_what_cannot_be_resumed_is_refused(tmp_path):
    async with two_desks(tmp_path) as world:
        await with_book(world, "10")
        with pytest.raises(CannotResumeError, match="no dispute"):
            await world.maker.call("resume", channel="taker")
        await world.maker.call("challenge", channel="taker")
        for desk in (world.maker, world.taker):
            await desk.until(lambda d=desk: world.status(d, "disputed"), "the dispute")
            await desk.until(lambda d=desk: d.node.chain.disputes.seen, "a look at the dispute")
        told = await world.taker.call("resume", channel="maker")
        assert told["status"] == "offered"
        await world.maker.until(lambda: events_of(world.maker, "resume_offered"), "the offer")
        assert await world.status(world.maker, "disputed")
        told = await world.maker.call("resume", channel="taker")
        assert told["status"] == "both have signed"
        for desk in (world.maker, world.taker):
            await resumed(world, desk)
        assert (await world.taker.call("transfer", channel="maker", amount="1"))["version"]


async def test_a_proposal_outstanding_when_the_dispute_began_is_settled_after_the_resume(tmp_path):
    async with two_desks(tmp_path) as world:
        await with_book(world, "10")
        maker, taker = only_actor(world.maker), only_actor(world.taker)
        # the follower signs no more, and the sequencer does not know it yet
        await taker.feed(Freeze(DISPUTING))
        outstanding = maker.enqueue(Transfer(0, 5))
        await maker.pump()
        await maker.calm()
        assert maker.channel.proposals
        await world.taker.call("challenge", channel="maker")
        for desk in (world.maker, world.taker):
            await desk.until(lambda d=desk: world.status(d, "disputed"), "the dispute")
            await desk.until(lambda d=desk: d.node.chain.disputes.seen, "a look at the dispute")
        await world.maker.call("resume", channel="taker")
        await world.taker.until(lambda: events_of(world.taker, "resume_offered"), "the offer")
        await world.taker.call("resume", channel="maker")
        for desk in (world.maker, world.taker):
            await resumed(world, desk)
        assert isinstance(outstanding.exception(), NotReadyError)
        done = (await world.taker.call("transfer", channel="maker", amount="1"))["version"]
        assert done > 3
        await world.maker.until(lambda: maker.state.body == taker.state.body, "the same state at both desks")
