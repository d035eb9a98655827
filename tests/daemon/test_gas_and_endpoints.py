"""A desk that cannot pay for a dispute takes no new risk; one whose endpoints contradict each other signs nothing."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
from desk_world import alerted, events_of, only_actor, two_desks

from channeld.core.acceptance import NewRiskHeldError

sys.path.insert(0, str(Path(__file__).parent.parent / "chain"))
from faulty_endpoint import FaultyEndpoint

BUY = {"instrument": "ETH-PERP", "size": "10", "price": "3000"}


async def test_below_the_reserve_no_new_risk_is_taken_and_what_lowers_risk_is(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        await taker.call("policy_set", peer="maker", auto_accept=True)
        assert (await maker.call("trade", channel="taker", legs=[BUY]))["status"] == "done"
        reserve = maker.node.chain.reserve
        reserve.wei = 10**24
        await maker.until(lambda: alerted(maker, "no new risk"), "the alert")
        with pytest.raises(NewRiskHeldError, match="too little"):
            await maker.call("trade", channel="taker", legs=[BUY])
        # the follower asks the same of what the sequencer proposes
        reserve.wei = 1
        await maker.until(lambda: events_of(maker, "gas_reserve_filled"), "the reserve")
        taker.node.chain.reserve.wei = 10**24
        await taker.until(lambda: alerted(taker, "no new risk"), "the alert")
        told = await maker.call("trade", channel="taker", legs=[BUY])
        assert told["status"] == "rejected"
        assert "too little to defend more" in json.dumps(told)
        half = {**BUY, "size": "-5"}
        assert (await maker.call("trade", channel="taker", legs=[half]))["status"] == "done"
        assert (await maker.call("transfer", channel="taker", amount="5"))["version"]


async def test_of_two_endpoints_that_disagree_none_is_signed_by_and_a_dispute_is_still_defended(tmp_path):
    async with two_desks(tmp_path, chain__max_view_age=60) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        await taker.call("policy_set", peer="maker", auto_accept=True)
        assert (await maker.call("trade", channel="taker", legs=[BUY]))["status"] == "done"
        async with FaultyEndpoint(world.devnet.url) as liar:
            await maker.node.stop()
            maker.flags["chain.urls"] = f"{liar.url},{world.devnet.url}"
            await maker.start()
            await maker.until(lambda: maker.node.hub.connected(taker.address), "the link")
            maker.node.rpc._compare_every_s = 0.05
            await maker.until(lambda: maker.node.chain.ready, "the contracts")
            liar.lies_from = 1
            await maker.until(lambda: alerted(maker, "different blocks"), "the alert")
            await world.advance(120)
            assert "s old" in maker.node.chain.stale()
            before = only_actor(maker).state.version
            paying = asyncio.ensure_future(maker.call("transfer", channel="taker", amount="5"))
            await asyncio.wait({paying}, timeout=0.3)
            assert only_actor(maker).state.version == before
            paying.cancel()
            await taker.call("challenge", channel="maker", version=2)
            await taker.until(lambda: events_of(taker, "dispute_refuted"), "the maker's refutation")
            await maker.node.stop()
