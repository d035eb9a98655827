"""Signers that fall silent or lie, a service that is down, expiries with and without their fix."""

from __future__ import annotations

import pytest
from desk_world import BTC, ETH, alerted, events_of, only_actor, two_desks

from channeld.core.acceptance import StalePriceError
from channeld.core.instruments import parse_instrument
from channeld.core.packages import DataPoint, sign_package
from channeld.core.wad import WAD
from channeld.desk.marks import MarkBlockedError
from channeld.oracle.service import Misbehaviour

LEG = {"instrument": "ETH-PERP", "size": "1", "price": "3000"}


def silence(world, *signers):
    world.service.misbehaviour = Misbehaviour(silent=frozenset(signers))


async def funded(world, *legs):
    await world.open()
    await world.taker.call("policy_set", peer="maker", auto_accept=True)
    for leg in legs:
        done = await world.maker.call("trade", channel="taker", legs=[leg])
        assert done["status"] == "done", done


def as_of(desk):
    return only_actor(desk).state.body.as_of


async def test_one_silent_signer_of_three_stops_nothing(tmp_path):
    async with two_desks(tmp_path) as world:
        await funded(world, LEG)
        silence(world, 1)
        world.price(ETH, 3100)
        await world.advance(70)
        await world.taker.until(lambda: only_actor(world.taker).state.body.positions[0].mark == 3100 * WAD, "the mark")


async def test_without_a_quorum_nothing_is_marked_until_it_is_back(tmp_path):
    async with two_desks(tmp_path) as world:
        await funded(world, LEG)
        before = as_of(world.maker)
        silence(world, 0, 1)
        await world.advance(200)
        with pytest.raises(MarkBlockedError, match="no feed of the book has a print"):
            await world.maker.call("mark", channel="taker")
        await world.maker.until(lambda: alerted(world.maker, "no print of ETH"), "the alert")
        (marker,) = world.maker.node.watch._markers.values()
        await world.maker.until(lambda: marker._blocked_since_ms, "a MARK of its own that is blocked")
        await world.advance(100)
        await world.maker.until(lambda: alerted(world.maker, "no MARK can be made"), "the alert")
        assert as_of(world.maker) == before
        silence(world)
        await world.maker.until(lambda: as_of(world.maker) > before, "the mark")
        assert as_of(world.taker) == as_of(world.maker)


async def test_stale_prices_refuse_more_risk_and_allow_less(tmp_path):
    async with two_desks(tmp_path) as world:
        await funded(world, LEG)
        silence(world, 0, 1, 2)
        await world.advance(300)
        with pytest.raises(StalePriceError):
            await world.maker.call("trade", channel="taker", legs=[LEG])
        closing = {**LEG, "size": "-1"}
        assert (await world.maker.call("trade", channel="taker", legs=[closing]))["status"] == "done"
        assert not only_actor(world.taker).state.body.positions


async def test_a_package_of_a_stranger_counts_for_nothing(tmp_path):
    async with two_desks(tmp_path) as world:
        await funded(world, LEG)
        honest = world.service.packages

        def forged(feed, timestamp_ms):
            stranger = sign_package(b"\5" * 32, timestamp_ms, [DataPoint(feed, 10**8)])
            return [stranger, *honest(feed, timestamp_ms)[:2]]

        world.service.packages = forged
        await world.advance(70)
        await world.maker.until(lambda: as_of(world.maker) > 0 and as_of(world.maker) == as_of(world.taker), "a mark")
        assert only_actor(world.maker).state.body.positions[0].mark == 3000 * WAD
        world.service.packages = lambda feed, timestamp_ms: [forged(feed, timestamp_ms)[0]] * 3
        await world.advance(200)
        with pytest.raises(MarkBlockedError):
            await world.maker.call("mark", channel="taker")


async def test_a_service_that_is_down_blocks_marks_and_trades_and_nothing_else(tmp_path):
    async with two_desks(tmp_path) as world:
        await funded(world, LEG)
        await world.serving.stop()
        await world.advance(200)
        with pytest.raises(MarkBlockedError):
            await world.maker.call("mark", channel="taker")
        with pytest.raises(StalePriceError):
            await world.maker.call("trade", channel="taker", legs=[LEG])
        assert (await world.maker.call("transfer", channel="taker", amount="5"))["version"]
        assert (await world.maker.call("channels"))[0]["status"] == "open"


def option_in(world, seconds):
    """A call that expires at a tick so many seconds ahead, by its name."""
    second = world.clock.now_ms() // 1000 + seconds
    expiry = second - second % 10
    name = f"ETH-@{expiry}-3000-C"
    assert parse_instrument(name).expiry == expiry
    return name, expiry


async def test_an_expiry_is_settled_at_its_fix(tmp_path):
    async with two_desks(tmp_path) as world:
        name, _ = option_in(world, 600)
        await funded(world, {"instrument": name, "size": "2", "price": "20"})
        world.price(ETH, 3250)
        await world.advance(900)
        await world.maker.until(lambda: not only_actor(world.maker).state.body.positions, "the settlement")
        await world.taker.until(lambda: events_of(world.taker, "expired_settled"), "the event")
        (told,) = await events_of(world.taker, "expired_settled")
        assert (told["fix"], told["flagged"]) == ("3250", False)
        row = await world.maker.call("channel", channel="taker")
        assert (row["balance"], row["peer_balance"]) == ("250460", "249540")


async def test_an_expiry_without_its_fix_is_settled_flagged_after_the_grace(tmp_path):
    async with two_desks(tmp_path) as world:
        name, expiry = option_in(world, 600)
        await funded(
            world, {"instrument": name, "size": "2", "price": "20"}, {**LEG, "instrument": "BTC-PERP", "price": "60000"}
        )
        honest = world.service.packages
        world.service.packages = lambda feed, ms: honest(feed, ms)[:1] if feed == ETH else honest(feed, ms)
        await world.advance(900)
        with pytest.raises(MarkBlockedError, match="no quorum yet"):
            await world.maker.call("mark", channel="taker")
        assert len(only_actor(world.maker).state.body.positions) == 2
        await world.advance(expiry + 1_810 - world.clock.now_ms() // 1000)
        await world.maker.until(lambda: len(only_actor(world.maker).state.body.positions) == 1, "the settlement")
        await world.taker.until(lambda: events_of(world.taker, "expired_settled"), "the event")
        (told,) = await events_of(world.taker, "expired_settled")
        assert (told["fix"], told["flagged"]) == (None, True)
        assert only_actor(world.maker).state.body.positions[0].instrument.feed == BTC


async def test_packages_that_were_seen_are_not_asked_for_again(tmp_path):
    async with two_desks(tmp_path) as world:
        await funded(world, LEG)
        asked = []
        honest = world.service.packages
        world.service.packages = lambda feed, ms: asked.append((feed, ms)) or honest(feed, ms)
        actor = only_actor(world.maker)
        now = world.maker.node.clock.now_ms() // 10_000 * 10_000
        for _ in range(20):
            await actor.book.prices(actor.channel.terms, actor.state.body, now)
        assert asked.count((ETH, now)) <= 2  # each desk once
        fix = now // 1000 - 600
        for _ in range(5):
            packages, made = await actor.book.fix_of(ETH, fix)
        assert made.complete
        assert len(packages) == 9
        assert asked.count((ETH, fix * 1000)) == 1
