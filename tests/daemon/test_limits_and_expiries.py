"""Limits of a desk, sweeping, and expiries between two daemons."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from desk_world import ETH, TOKENS, alerted, events_of, only_actor, two_desks

from channeld.core.crypto import checksum_address
from channeld.core.files import terms_to_json
from channeld.daemon.limit_settings import limits_of
from channeld.desk.limits import BeyondLimitsError

LEG = {"instrument": "ETH-PERP", "size": "10", "price": "3000"}


def configure(desk, section, **changes):
    node = desk.node
    changed = msgspec.structs.replace(getattr(node.config, section), **changes)
    node.config = msgspec.structs.replace(node.config, **{section: changed})
    for actor in node.actors.values():
        actor.own.limits = limits_of(node.config.limits)


async def test_what_is_beyond_a_desks_limits_is_signed_by_neither_hand_nor_policy(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        await world.taker.call("policy_set", peer="maker", auto_accept=True)
        configure(world.taker, "limits", max_notional="50000")
        assert (await world.maker.call("trade", channel="taker", legs=[LEG]))["status"] == "done"
        refused = await world.maker.call("trade", channel="taker", legs=[LEG])
        assert refused["status"] == "rejected"
        assert refused["code"] == BeyondLimitsError.code
        with pytest.raises(BeyondLimitsError):
            await world.taker.call("trade", channel="maker", legs=[{**LEG, "size": "-10"}])
        less = await world.maker.call("trade", channel="taker", legs=[{**LEG, "size": "-4"}])
        assert less["status"] == "done"


async def test_terms_beyond_the_limits_are_not_accepted_and_are_explained(tmp_path):
    async with two_desks(tmp_path) as world:
        maker, taker = world.maker, world.taker
        await taker.call("peer_add", name="maker", address=checksum_address(maker.address), url="")
        url = f"ws://127.0.0.1:{taker.node.hub.port}"
        await maker.call("peer_add", name="taker", address=checksum_address(taker.address), url=url)
        await maker.until(lambda: maker.node.hub.connected(taker.address), "the link")
        for desk in (maker, taker):
            await desk.until(lambda d=desk: d.node.chain.ready, "the contracts")
        configure(taker, "limits", min_cure_period=1_000)
        told = await maker.call("channel_propose", peer="taker", terms=terms_to_json(world.terms))
        assert any("15 minutes later" in line for line in told["summary"]["in_words"])
        await taker.until(lambda: taker.node.proposals.known, "the proposal")
        with pytest.raises(BeyondLimitsError, match="cure period of 900 s"):
            await taker.call("channel_accept", hash=told["hash"])
        configure(maker, "limits", min_challenge_period=100_000)
        longer = replace(world.terms, salt=b"\2" * 32)
        with pytest.raises(BeyondLimitsError, match="challenge period"):
            await maker.call("channel_propose", peer="taker", terms=terms_to_json(longer))


async def test_excess_collateral_is_swept_to_the_payout_address(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        await world.taker.call("policy_set", peer="maker", auto_accept=True)
        assert (await world.maker.call("trade", channel="taker", legs=[{**LEG, "size": "100"}]))["status"] == "done"
        # initial margin of 100 ETH at 3,000 is 21,600; three times that is kept, and at least 100,000
        configure(world.maker, "margin", sweep_above="3", sweep_keep="100000", rounding="1000")
        await world.advance(10)
        await world.maker.until(lambda: _swept(world), "the sweep")
        (told,) = await events_of(world.maker, "swept")
        assert told["amount"] == "150000"
        assert only_actor(world.maker).state.body.a.balance == 100_000 * TOKENS
        # once an hour at most
        await world.advance(600)
        assert len(await events_of(world.maker, "swept")) == 1


async def _swept(world):
    return (await world.paid())["a"] == 150_000 * TOKENS


async def test_an_expiry_is_warned_of_with_its_pin_risk_and_reported_position_by_position(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        await world.taker.call("policy_set", peer="maker", auto_accept=True)
        now = world.clock.now_ms() // 1000
        expiry = now - now % 10 + 7_200
        names = [f"ETH-@{expiry}-3000-C", f"ETH-@{expiry}-2000-P"]
        legs = [
            {"instrument": name, "size": "3", "price": price} for name, price in zip(names, ("20", "0.5"), strict=True)
        ]
        for one in legs:
            one["vol"] = "0.6"
        assert (await world.maker.call("trade", channel="taker", legs=legs))["status"] == "done"
        await world.advance(10)
        await world.maker.until(lambda: alerted(world.maker, "is pinned"), "the alert")
        rows = (await world.maker.call("expiries", channel="taker"))["expiring"]
        assert [row["pinned"] for row in rows] == [False, True]
        assert {row["size"] for row in rows} == {"3"}
        world.price(ETH, 3100)
        await world.advance(7_400)
        await world.taker.until(lambda: not only_actor(world.taker).state.body.positions, "the settlement")
        await world.taker.until(lambda: _reported(world.taker, 2), "the report")
        settled = (await world.taker.call("expiries"))["settled"]
        assert {row["instrument"] for row in settled} == {row["instrument"] for row in rows}
        assert all(row["fix"] == "3100" for row in settled)
        assert {row["size"] for row in settled} == {"-3"}


async def _reported(desk, count):
    return len((await desk.call("expiries"))["settled"]) == count
