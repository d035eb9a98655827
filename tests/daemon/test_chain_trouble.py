"""An endpoint that fails, a view that is old, a chain that is reorganised: nothing lost, nothing signed blindly."""

from __future__ import annotations

import asyncio

import pytest
from desk_world import TOKENS, alerted, events_of, only_actor, two_desks

from channeld.chain.errors import ChainUnreachableError
from channeld.core.operations import Transfer
from channeld.daemon.chain_desk import NotOpenOnChainError
from channeld.daemon.judge import WrongTimeError
from channeld.daemon.services import NoAnswerError


def cut(desk, *, methods=("header",)):
    """The endpoint answers no more; gives what mends it."""
    rpc = desk.node.rpc
    kept = {name: getattr(rpc, name) for name in methods}

    async def fail(*_, **__):
        raise ChainUnreachableError("nothing answers")

    for name in methods:
        setattr(rpc, name, fail)
    return lambda: [setattr(rpc, name, value) for name, value in kept.items()]


async def test_an_endpoint_that_fails_is_one_alert_and_recovers(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        mend = cut(world.maker)
        await world.maker.until(lambda: alerted(world.maker, "nothing answers"), "the alert")
        looked = world.maker.node.chain._looked
        await looked.wait()
        assert sum("nothing answers" in str(a["message"]) for a in world.maker.node.alerts) == 1
        mend()
        await world.maker.until(lambda: events_of(world.maker, "chain_recovered"), "the recovery")


@pytest.mark.parametrize("blind", ["maker", "taker"])
async def test_with_an_old_view_of_the_chain_nothing_is_signed_and_then_it_goes_on(tmp_path, blind):
    async with two_desks(tmp_path, chain__max_view_age=60) as world:
        await world.open()
        desk = getattr(world, blind)
        actors = [only_actor(world.maker), only_actor(world.taker)]
        before = [actor.channel.latest for actor in actors]
        mend = cut(desk)
        await desk.until(lambda: desk.node.chain_trouble, "the trouble")
        await world.advance(120)
        assert "s old" in desk.node.chain.stale()
        paying = asyncio.ensure_future(world.maker.call("transfer", channel="taker", amount="5"))
        await asyncio.wait({paying}, timeout=0.5)
        assert [actor.channel.latest for actor in actors] == before
        assert only_actor(world.taker).channel.rejection is None
        mend()
        (outcome,) = await asyncio.wait_for(asyncio.gather(paying, return_exceptions=True), 10)
        # it may have come too late for the follower's clock; that is the only reason there may be
        assert isinstance(outcome, dict) or outcome.details["peer_code"] == WrongTimeError.code, outcome
        assert (await world.maker.call("transfer", channel="taker", amount="5"))["version"]


async def test_a_look_that_fails_half_way_loses_no_event(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        taker = world.taker
        mend = cut(taker, methods=("call",))
        await world.maker.call("challenge", channel="taker")
        await taker.until(lambda: taker.node.chain._unread, "the event")
        assert taker.node.chain.stale(only_actor(taker).id)
        mend()
        await taker.until(lambda: world.status(taker, "disputed"), "the dispute")
        await taker.until(lambda: events_of(taker, "dispute_raised"), "the event")
        assert len(await events_of(taker, "dispute_raised")) == 1


async def test_a_reorganisation_that_takes_a_deposit_is_seen_before_it_is_signed_for(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open(acknowledge=False)
        maker = world.maker
        key = only_actor(maker).id
        await maker.until(lambda: maker.node.chain.known[key].record.deposited_b, "both deposits")
        before = maker.node.chain.known[key].record
        assert (before.deposited_a, before.deposited_b) == (250_000 * TOKENS, 250_000 * TOKENS)
        await world.rpc.request("channeld_reorganise", 1)
        await world.rpc.request("evm_mine")
        await maker.until(lambda: events_of(maker, "reorganised"), "the reorganisation")
        await maker.until(lambda: maker.node.chain.known[key].record.deposited_b == 0, "the loss of the deposit")
        assert only_actor(maker).deposits[1] in {0, 250_000 * TOKENS}
        await maker.until(lambda: only_actor(maker).deposits == (250_000 * TOKENS, 0), "the new total")
        assert only_actor(maker).state.version == 0


async def test_deposits_need_a_channel_on_chain(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        await world.maker.call("close", channel="taker")
        await world.maker.until(lambda: world.status(world.maker, "closed"), "the close")
        with pytest.raises(NotOpenOnChainError, match="ended"):
            await world.maker.call("deposit", channel=world.channel, amount="1")


async def test_one_channels_trouble_does_not_block_the_look(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        chain = world.maker.node.chain
        ill = b"\1" * 32

        class Ill:
            id = ill

        chain.actors[ill] = Ill()
        chain.known[ill] = chain.known[only_actor(world.maker).id]
        await chain.look()
        await world.maker.call("deposit", channel="taker", amount="7")
        await world.maker.until(lambda: _balance(world.maker, "250007"), "the deposit")
        del chain.actors[ill]


async def _balance(desk, amount):
    return (await desk.call("channels"))[0]["balance"] == amount


async def test_what_nobody_answers_is_taken_out_of_the_line(tmp_path):
    async with two_desks(tmp_path, channel__proposal_timeout=1) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        actor = only_actor(maker)
        # the follower hears and does not answer
        real, taker.node.hub._on_message = taker.node.hub._on_message, _deaf
        first = asyncio.ensure_future(actor.submit(Transfer(0, 5, b"first"), 0.3))
        with pytest.raises(NoAnswerError, match="is proposed and signed by us"):
            await first
        # once a proposal is unanswered for too long, nothing more is proposed
        await maker.until(lambda: alerted(maker, "is unanswered"), "the alert")
        with pytest.raises(NoAnswerError, match="will not be"):
            await actor.submit(Transfer(0, 7, b"second"), 0.3)
        assert not [q for q in actor.queue if not q.done.done()]
        assert actor.state.version == actor.channel.proposals[0].version - 1
        taker.node.hub._on_message = real
        balance = actor.state.body.b.balance
        taker.flags["peers.listen"] = f"127.0.0.1:{world.port}"
        await taker.node.stop()
        await taker.start()
        await maker.until(lambda: actor.channel.synced and not actor.channel.proposals, "the exchange")
        # the first was half-signed, so it may stand; the second is gone
        assert actor.state.body.b.balance - balance in {0, 5}
        assert (await maker.call("transfer", channel="taker", amount="1"))["version"]
        assert actor.state.body.b.balance - balance in {1_000_000, 1_000_005}


async def _deaf(*_):
    return


async def test_an_offer_that_nobody_took_lapses_and_cannot_be_accepted(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        leg = {"instrument": "ETH-PERP", "size": "1", "price": "3000"}
        told = await world.maker.call("trade", channel="taker", legs=[leg], wait_s=0)
        assert told["status"] == "pending"
        assert [o["id"] for o in await world.maker.call("offers")] == [told["id"]]
        await world.taker.until(lambda: world.taker.call("offers"), "the offer")
        await world.advance(61)
        assert await world.maker.call("offers") == []
        with pytest.raises(Exception, match="no offer"):
            await world.taker.call("offer_accept", id=told["id"])
        assert not only_actor(world.taker).state.body.positions
