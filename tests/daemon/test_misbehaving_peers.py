"""A counterparty that breaks the rules: refused with a code, nothing changed, and the desk trades on."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace

import pytest
from desk_world import BTC, ETH, TOKENS, alerted, events_of, only_actor, refused_with, two_desks

from channeld.core import wire
from channeld.core.channel import WINDOW, ProposeBatch
from channeld.core.instruments import parse_instrument
from channeld.core.operations import Batch, CloseChannel, Deposit, Leg, Mark, Trade, Transfer, Withdraw, encode_batch
from channeld.core.wad import WAD
from channeld.daemon.marking import mark
from channeld.desk.marks import Material, Surface, build_mark
from channeld.desk.offers import Status, make_offer

PERP = parse_instrument("ETH-PERP")
LEG = {"instrument": "ETH-PERP", "size": "1", "price": "3000"}


def batch(world, *operations, skew_ms=0):
    now = max(world.maker.node.clock.now_ms(), only_actor(world.maker).last_time_ms)
    return encode_batch(Batch(now + skew_ms, secrets.token_bytes(16), tuple(operations)))


async def propose(world, raw):
    """The maker, who orders, signs and proposes a batch without any check of its own but the protocol's."""
    actor = only_actor(world.maker)
    before = actor.state.version
    await actor.feed(ProposeBatch(raw))
    await world.maker.until(lambda: actor.state.version > before, "an answer")
    return actor.state.version - before


async def trades_on(world):
    """The channel works: a payment and a trade."""
    await world.taker.call("policy_set", peer="maker", auto_accept=True)
    assert (await world.maker.call("transfer", channel="taker", amount="1"))["version"]
    done = await world.maker.call("trade", channel="taker", legs=[LEG])
    assert done["status"] == "done", done
    assert (await world.taker.call("audit", channel="maker"))["replayed"]


CHEATS = {
    "a trade we never agreed to": (2215, lambda: [Trade(0, (Leg(PERP, WAD, 3000 * WAD, 0, 0),), 0, b"")]),
    "a payment under our name": (2214, lambda: [Transfer(1, 5, b"")]),
    "a trade under our name": (2214, lambda: [Trade(1, (Leg(PERP, WAD, 3000 * WAD, 0, 0),), 0, b"")]),
    "a withdrawal under our name": (2214, lambda: [Withdraw(1, 5)]),
    "a close under our name": (2214, lambda: [CloseChannel(1)]),
    "a deposit under our name": (2214, lambda: [Deposit(1, 250_000 * TOKENS, 250_001 * TOKENS)]),
    "a deposit beyond what is final": (2216, lambda: [Deposit(0, 250_001 * TOKENS, 250_000 * TOKENS)]),
}


async def test_what_the_sequencer_makes_up_is_refused_and_nothing_changes(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        for what, (code, operations) in CHEATS.items():
            before = only_actor(world.taker).state.body
            assert await propose(world, batch(world, *operations())) == WINDOW + 1, what
            assert await refused_with(world.taker, code), what
            after = only_actor(world.taker).state.body
            assert (after.a, after.b, after.positions) == (before.a, before.b, before.positions), what
        await trades_on(world)


@pytest.mark.parametrize("skew_ms", [-2_500, 3_500])
async def test_a_batch_of_another_time_is_refused(tmp_path, skew_ms):
    async with two_desks(tmp_path) as world:
        await world.open()
        only_actor(world.maker).last_time_ms = 0
        assert await propose(world, batch(world, Transfer(0, 5, b""), skew_ms=skew_ms)) == WINDOW + 1
        assert await refused_with(world.taker, 2213)
        await trades_on(world)


async def test_a_batch_beyond_margin_is_refused_by_the_follower_itself(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open("1000")
        taker = only_actor(world.taker)
        trade = Trade(0, (Leg(PERP, 100 * WAD, 3000 * WAD, 0, 0),), 0, b"\1" * 16)
        offer = make_offer(trade, b"\2" * 16, world.taker.node.clock.now_ms() + 30_000)
        # agreed to by a person who looked at the price alone
        await taker.offers.keep(type(offer)(offer.raw, ours=False, status=Status.AGREED))
        assert await propose(world, batch(world, offer.operation)) == WINDOW + 1
        assert await refused_with(world.taker, 2210)
        assert not taker.state.body.positions


async def test_an_agreed_trade_cannot_be_put_twice(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        await world.taker.call("policy_set", peer="maker", auto_accept=True)
        await world.maker.call("trade", channel="taker", legs=[LEG])
        taker = only_actor(world.taker)
        (done,) = [o for o in taker.offers if o.status is Status.DONE]
        assert await propose(world, batch(world, done.operation)) == WINDOW + 1
        assert await refused_with(world.taker, 2215)
        assert taker.state.body.positions[0].size == WAD


async def test_a_mark_must_show_all_that_the_follower_holds(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        await world.taker.call("policy_set", peer="maker", auto_accept=True)
        for name, price in (("ETH-PERP", "3000"), ("BTC-PERP", "60000")):
            leg = {"instrument": name, "size": "1", "price": price}
            assert (await world.maker.call("trade", channel="taker", legs=[leg]))["status"] == "done"
        await world.advance(20)
        actor = only_actor(world.maker)
        terms = actor.channel.terms

        async def forged(change):
            body = actor.state.body
            t = actor.book.latest_tick(world.maker.node.clock.now_ms())
            material = await actor.book.material(terms, body, t)
            assert all(len(packages) == 3 for packages in material.prints.values())
            return build_mark(terms, body, t, Material(change(material.prints), {}), Surface(), 0)

        without_btc = await forged(lambda prints: {ETH: prints[ETH], BTC: ()})
        assert without_btc.feeds == (ETH,)
        fewer = await forged(lambda prints: {feed: packages[:2] for feed, packages in prints.items()})
        honest = await forged(lambda prints: prints)
        crazy = replace(honest, carries=tuple(carry + WAD for carry in honest.carries))
        for operation in (without_btc, fewer, crazy):
            assert await propose(world, batch(world, operation)) == WINDOW + 1
        assert len([e for e in await events_of(world.taker, "batch_refused") if e["code"] == 2212]) == 3
        ours = await forged(lambda prints: prints)
        under_our_name = Mark(1, ours.time, ours.feeds, ours.packages, ours.carries, ours.vols, ours.flagged)
        assert await propose(world, batch(world, under_our_name)) == WINDOW + 1
        assert await refused_with(world.taker, 2214)
        assert await mark(actor) == actor.state.version


async def test_a_mark_after_a_trade_in_one_batch_is_refused(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        await world.taker.call("policy_set", peer="maker", auto_accept=True)
        await world.maker.call("trade", channel="taker", legs=[LEG])
        taker = only_actor(world.taker)
        await world.advance(20)
        trade = Trade(0, (Leg(PERP, WAD, 3000 * WAD, 0, 0),), 0, b"")
        offer = make_offer(trade, b"\3" * 16, world.taker.node.clock.now_ms() + 30_000)
        await taker.offers.keep(type(offer)(offer.raw, ours=False, status=Status.AGREED))
        actor = only_actor(world.maker)
        t = actor.book.latest_tick(world.maker.node.clock.now_ms())
        packages = await actor.book.print_of(ETH, t)
        marked = Mark(0, t, (ETH,), packages, (0,), (0,), ())
        assert await propose(world, batch(world, offer.operation, marked)) == WINDOW + 1
        assert await refused_with(world.taker, 2212)
        assert taker.state.body.positions[0].size == WAD


async def test_messages_that_make_no_sense_cost_the_session_and_no_more(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        channel = only_actor(maker).id
        junk = [
            [99, b"x"],
            [2, b"short", 1, b"", b""],
            [2, channel, 10**6, b"\xff\xff", b"\1" * 65],
            [3, channel, 10**6, b"\1" * 65],
            [5, channel, [1, 10**6, b"\1" * 65]],
            [10, channel, b"\xc1\xc1"],
            [1, channel, 0, b"", b"", b"", [], None, []],
        ]
        version = only_actor(taker).state.version
        for number, message in enumerate(junk, 1):
            for desk in (maker, taker):
                await desk.until(lambda d=desk: only_actor(d).channel.synced, "the exchange")
            await maker.node.hub.send(taker.address, message)
            await taker.until(lambda n=number: _refused(taker, n), "the refusal")
            await taker.until(lambda: not only_actor(taker).channel.synced, "the end of the session")
            await maker.until(lambda: not only_actor(maker).channel.synced, "the end of the session")
        for desk in (maker, taker):
            await desk.until(lambda d=desk: only_actor(d).channel.synced, "the exchange")
        assert only_actor(taker).state.version == version
        await trades_on(world)


async def _refused(desk, times):
    return len(await events_of(desk, "message_refused")) == times


async def test_a_channel_that_one_side_does_not_know_is_told_to_both(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        await maker.node.send(taker.address, wire.Accept(b"\7" * 32, 1, b"\1" * 65))
        await maker.until(lambda: alerted(maker, "reports about channel 0x07070707"), "the peer's word")
        await taker.until(lambda: alerted(taker, "maker speaks of channel 0x07070707"), "the alert")
        for _ in range(5):
            await maker.node.send(taker.address, wire.Accept(b"\7" * 32, 1, b"\1" * 65))
        await trades_on(world)
        assert sum("0x07070707" in str(a["message"]) for a in taker.node.alerts) == 1


async def test_offers_are_taken_once_in_time_and_in_form(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        actor = only_actor(maker)
        now = maker.node.clock.now_ms()
        trade = Trade(0, (Leg(PERP, WAD, 3000 * WAD, 0, 0),), 0, b"")
        good = make_offer(trade, b"\1" * 16, now + 30_000)
        two = encode_batch(Batch(now + 30_000, b"\2" * 16, (Transfer(0, 1, b"\2" * 16), Transfer(0, 2, b"\2" * 16))))
        bad = {
            "two operations": two,
            "not of its maker": encode_batch(Batch(now + 30_000, b"\3" * 16, (Transfer(1, 1, b"\3" * 16),))),
            "no id": encode_batch(Batch(now + 30_000, b"\4" * 16, (Transfer(0, 1, b""),))),
            "over": make_offer(trade, b"\5" * 16, now - 60_000).raw,
            "too long": make_offer(trade, b"\6" * 16, now + 3_600_000).raw,
        }
        for raw in bad.values():
            await maker.node.send(taker.address, wire.Offer(actor.id, raw))
        for _ in range(3):
            await maker.node.send(taker.address, wire.Offer(actor.id, good.raw))
        await taker.until(lambda: taker.call("offers"), "the one good offer")
        assert [o["id"] for o in await taker.call("offers")] == [good.id.hex()]
        assert taker.node.hub.connected(maker.address)
        await actor.offers.keep(good)
        both = await asyncio.gather(
            taker.call("offer_accept", id=good.id.hex()),
            taker.call("offer_accept", id=good.id.hex()),
            return_exceptions=True,
        )
        assert sorted(type(one).__name__ for one in both) == ["UnknownOfferError", "dict"]
        assert only_actor(taker).state.body.positions[0].size == WAD


async def test_two_people_cannot_accept_one_offer_twice_at_the_sequencers_desk(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        await taker.call("trade", channel="maker", legs=[LEG], wait_s=0)
        await maker.until(lambda: maker.call("offers"), "the offer")
        (offer,) = await maker.call("offers")
        both = await asyncio.gather(
            *(maker.call("offer_accept", id=offer["id"]) for _ in range(3)), return_exceptions=True
        )
        assert sorted(type(one).__name__ for one in both) == ["UnknownOfferError", "UnknownOfferError", "dict"]
        assert only_actor(maker).state.body.positions[0].size == -WAD


async def test_terms_of_other_contracts_are_refused_where_they_arrive(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        other = wire.ProposeTerms(1, b"\5" * 20, only_actor(maker).record.terms)
        await maker.node.send(taker.address, other)
        await maker.until(lambda: alerted(maker, "Adjudicator"), "the peer's reason")
        await taker.until(lambda: events_of(taker, "channel_proposal_refused"), "the event")
        assert len(taker.node.proposals.known) == 1
