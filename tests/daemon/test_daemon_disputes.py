"""Disputes through the daemons: both at once, restarts at each step, missing signers, expired options; to the unit."""

from __future__ import annotations

import pytest
from desk_world import BTC, ETH, TOKENS, alerted, events_of, only_actor, two_desks

from channeld.core.channel import Freeze
from channeld.core.settlement import fix_time, settle_amounts
from channeld.core.wad import WAD, parse_decimal
from channeld.daemon.chain_desk import NotOpenOnChainError
from channeld.oracle.service import Misbehaviour

DEPOSIT = 250_000 * TOKENS
CALL = {"instrument": "ETH-27DEC30-3000-C", "size": "10", "price": "1200"}
PERPETUAL = {"instrument": "BTC-PERP", "size": "-0.5", "price": "60000", "carry": "0.05"}


async def with_book(world, *legs):
    await world.open()
    await world.taker.call("policy_set", peer="maker", auto_accept=True)
    for leg in legs:
        done = await world.maker.call("trade", channel="taker", legs=[leg])
        assert done["status"] == "done", done


async def disputed(world, *desks):
    for desk in desks or (world.maker, world.taker):
        await desk.until(lambda d=desk: world.status(d, "disputed"), "the dispute")


async def closed(world, *desks):
    for desk in desks or (world.maker, world.taker):
        await desk.until(lambda d=desk: world.status(d, "closed"), "the payment")


async def paid(world):
    money = await world.paid()
    return money["a"], money["b"]


async def test_both_daemons_settle_at_once_and_the_payment_is_exact(tmp_path):
    async with two_desks(tmp_path) as world:
        await with_book(world, CALL, PERPETUAL)
        world.price(ETH, 3300)
        world.price(BTC, 61_000)
        await world.taker.call("challenge", channel="maker")
        await disputed(world)
        told = await world.maker.call("dispute", channel="taker")
        body, at = only_actor(world.maker).state.body, told["fix_time"]
        await world.advance(86_400 + 400)
        await closed(world)
        fixes = {(ETH, at): 3300 * WAD, (BTC, at): 61_000 * WAD}
        expected = settle_amounts(world.terms, body, fixes, at, DEPOSIT, DEPOSIT, 0, 0)
        assert await paid(world) == expected
        # the record says that the channel has ended before the event that says with what
        await world.maker.until(lambda: events_of(world.maker, "settled"), "the event")
        shown = await world.maker.call("channel", channel=world.channel)
        assert tuple(parse_decimal(shown["paid"][side], 6) for side in "ab") == expected
        for desk in (world.maker, world.taker):
            assert await alerted(desk, "a dispute was raised")
            assert not await alerted(desk, "fails")


async def test_a_restart_at_each_step_goes_on_to_payment(tmp_path):
    async with two_desks(tmp_path) as world:
        await with_book(world, CALL)
        maker, taker = world.maker, world.taker

        async def restart():
            await maker.node.stop()
            await maker.start()

        await taker.node.stop()
        world.price(ETH, 3100)
        await maker.call("challenge", channel="taker")
        await restart()
        await disputed(world, maker)
        body = only_actor(maker).state.body
        await world.rpc.advance(80_000)
        await restart()
        assert (await maker.call("channels"))[0]["status"] == "disputed"
        await maker.until(lambda: maker.node.chain.known, "a look at the chain")
        at = (await maker.call("dispute", channel=world.channel))["fix_time"]
        await world.rpc.advance(7_000)
        await maker.until(lambda: events_of(maker, "fix_proven"), "the fix")
        await restart()
        await closed(world, maker)
        expected = settle_amounts(world.terms, body, {(ETH, at): 3100 * WAD}, at, DEPOSIT, DEPOSIT, 0, 0)
        assert await paid(world) == expected


async def test_a_dispute_before_anything_was_signed_returns_the_deposits(tmp_path):
    async with two_desks(tmp_path) as world:
        # the taker never sees a deposit as final: nothing is acknowledged, nothing is signed
        await world.open(acknowledge=False)
        await world.taker.node.stop()
        version = only_actor(world.maker).state.version
        await world.maker.call("challenge", channel=world.channel, version=None)
        await disputed(world, world.maker)
        await world.rpc.advance(86_400 + 400)
        await closed(world, world.maker)
        assert version == 0
        assert await paid(world) == (DEPOSIT, DEPOSIT)


async def test_with_a_silent_signer_it_is_settled_only_after_the_grace(tmp_path):
    async with two_desks(tmp_path) as world:
        await with_book(world, CALL)
        world.service.misbehaviour = Misbehaviour(silent=frozenset({2}))
        await world.taker.call("challenge", channel="maker")
        await disputed(world)
        body = only_actor(world.maker).state.body
        at = (await world.maker.call("dispute", channel="taker"))["fix_time"]
        await world.advance(86_400 + 400)
        await world.maker.until(lambda: events_of(world.maker, "fix_proven"), "the fix")
        assert (await world.maker.call("dispute", channel="taker"))["next_step"].startswith("wait until")
        assert await world.status(world.maker, "disputed")
        await world.advance(world.terms.oracle.grace)
        await closed(world)
        expected = settle_amounts(world.terms, body, {(ETH, at): 3000 * WAD}, at, DEPOSIT, DEPOSIT, 0, 0)
        assert await paid(world) == expected
        await world.maker.until(lambda: events_of(world.maker, "settled"), "the event")
        (told,) = await events_of(world.maker, "settled")
        assert told["complete"] is False


async def test_an_option_that_expires_in_a_dispute_is_paid_at_its_own_fix(tmp_path):
    async with two_desks(tmp_path) as world:
        second = world.clock.now_ms() // 1000 + 3_000
        expiry = second - second % 10
        await with_book(world, {"instrument": f"ETH-@{expiry}-3000-C", "size": "3", "price": "40"}, PERPETUAL)
        world.price(ETH, 3210)
        await world.taker.call("challenge", channel="maker")
        await disputed(world)
        body = only_actor(world.maker).state.body
        at = (await world.maker.call("dispute", channel="taker"))["fix_time"]
        await world.advance(3_600)
        world.price(ETH, 2500)
        await world.advance(83_000 + 400)
        await closed(world)
        fixes = {(ETH, expiry): 3210 * WAD, (BTC, at): 60_000 * WAD}
        expected = settle_amounts(world.terms, body, fixes, at, DEPOSIT, DEPOSIT, 0, 0)
        assert await paid(world) == expected
        assert expected[0] > DEPOSIT


async def test_an_old_state_that_nobody_refuted_in_time_is_settled_from_the_journal(tmp_path):
    async with two_desks(tmp_path) as world:
        await with_book(world, CALL)
        old, body = only_actor(world.maker).state.version, only_actor(world.maker).state.body
        await world.maker.call("transfer", channel="taker", amount="1000")
        await world.taker.node.stop()
        await world.maker.call("challenge", channel=world.channel, version=old)
        await disputed(world, world.maker)
        at = (await world.maker.call("dispute", channel=world.channel))["fix_time"]
        await world.maker.node.stop()
        await world.rpc.advance(86_400 + 400)
        # the honest desk was away too long: the old state stands, and it must be able to show its body
        await world.taker.start()
        await closed(world, world.taker)
        expected = settle_amounts(world.terms, body, {(ETH, at): 3000 * WAD}, at, DEPOSIT, DEPOSIT, 0, 0)
        assert await paid(world) == expected


async def test_the_follower_takes_the_close_to_the_chain_when_the_sequencer_does_not(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        await world.maker.call("transfer", channel="taker", amount="10")
        chain = world.maker.node.chain
        honest = chain._exits_due

        async def lazy(*_):
            return

        chain._exits_due = lazy
        await world.taker.call("close", channel="maker")
        await world.advance(70)
        await closed(world)
        assert await paid(world) == (DEPOSIT - 10 * TOKENS, DEPOSIT + 10 * TOKENS)
        chain._exits_due = honest


async def test_a_close_that_lapsed_lets_the_channel_go_on(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()

        async def lazy(*_):
            return

        kept = [desk.node.chain._exit for desk in (world.maker, world.taker)]
        for desk in (world.maker, world.taker):
            desk.node.chain._exit = lazy
        await world.taker.call("close", channel="maker")
        for desk in (world.maker, world.taker):
            await desk.until(lambda d=desk: only_actor(d).channel.closing is not None, "the close agreed")
        await world.advance(700)
        for desk in (world.maker, world.taker):
            await desk.until(lambda d=desk: only_actor(d).channel.closing is None, "the end of the close")
        assert (await world.maker.call("transfer", channel="taker", amount="1"))["version"]
        for desk, exit_ in zip((world.maker, world.taker), kept, strict=True):
            desk.node.chain._exit = exit_
        await world.taker.call("close", channel="maker")
        await closed(world)


async def test_what_cannot_be_disputed_is_refused_and_trading_goes_on(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        maker = world.maker
        real = maker.node.chain.send

        async def refuse(*_, **__):
            raise NotOpenOnChainError("no money for gas")

        maker.node.chain.send = refuse
        with pytest.raises(NotOpenOnChainError):
            await maker.call("challenge", channel="taker")
        maker.node.chain.send = real
        assert not only_actor(maker).channel.frozen
        assert (await maker.call("transfer", channel="taker", amount="1"))["version"]
        await maker.call("challenge", channel="taker")
        await disputed(world)
        with pytest.raises(Exception, match="frozen"):
            await maker.call("transfer", channel="taker", amount="1")


async def test_a_second_silence_of_the_peer_alerts_again(tmp_path):
    async with two_desks(tmp_path, channel__dispute_after=100) as world:
        await world.open()
        for times in (1, 2):
            await world.taker.node.stop()
            await world.maker.until(lambda: not world.maker.node.hub.connected(world.taker.address), "the loss")
            await world.rpc.advance(150)
            await world.maker.until(lambda n=times: _silences(world.maker, n), "the alert")
            world.taker.flags["peers.listen"] = f"127.0.0.1:{world.taker.node.hub.port or world.port}"
            await world.taker.start()
            await world.maker.until(lambda: only_actor(world.maker).channel.synced, "the exchange")
        assert not only_actor(world.maker).channel.frozen


async def _silences(desk, times):
    return sum("unreachable" in str(a["message"]) for a in desk.node.alerts) == times


async def test_the_fix_time_is_the_contracts(tmp_path):
    async with two_desks(tmp_path) as world:
        await with_book(world, CALL)
        await world.maker.call("challenge", channel="taker")
        await disputed(world)
        told = await world.maker.call("dispute", channel="taker")
        assert told["fix_time"] == fix_time(world.terms, told["deadline"])
        assert told["quote"] is None
        await only_actor(world.maker).feed(Freeze("once more"))
