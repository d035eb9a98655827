"""A margin call made on chain by whatever means: the desks have it tested and settle by it, without being asked."""

from __future__ import annotations

from desk_world import ETH, TOKENS, only_actor, two_desks

from channeld.core.settlement import MarginCall, fix_time, fixes_needed, judge, settle_with_calls
from channeld.core.wad import WAD


async def _called(world):
    """The maker calls margin on chain with the newest state; (the body on record, deadline, L)."""
    actor, chain = only_actor(world.maker), world.maker.node.chain
    latest = actor.channel.latest
    await chain.transact(
        chain.adjudicator.call_margin(
            actor.id, latest.state.version, latest.body_hash, latest.signature_a + latest.signature_b
        )
    )
    dispute = await chain.adjudicator.dispute_record(actor.id)
    called = await chain.adjudicator.margin_call(actor.id, dispute.number, 0)
    return latest.state.body, dispute.deadline, called.time


async def _trade(world, size: str):
    await world.taker.call("policy_set", peer="maker", auto_accept=True)
    legs = [{"instrument": "ETH-PERP", "size": size, "price": "3000"}]
    assert (await world.maker.call("trade", channel="taker", legs=legs))["status"] == "done"


async def _paid(world, price_at_call: int):
    """Let everything run its course; (paid, expected by the core)."""
    body, deadline, time = await _called(world)
    for desk in (world.maker, world.taker):
        await desk.until(lambda d=desk: world.status(d, "disputed"), "the dispute")
    world.price(ETH, price_at_call)
    await world.advance(86_400 + 400)
    for desk in (world.maker, world.taker):
        await desk.until(lambda d=desk: world.status(d, "closed"), "the settlement")
    at = fix_time(world.terms, deadline)
    fixes = {key: (price_at_call * WAD, 9) for t in (time, at) for key in fixes_needed(world.terms, body, t)}
    totals = (250_000 * TOKENS, 250_000 * TOKENS, 0, 0)
    verdict = judge(world.terms, body, fixes, time, *totals)
    values = {key: value for key, (value, _) in fixes.items()}
    expected = settle_with_calls(world.terms, body, values, deadline, [MarginCall(time, verdict)], *totals)
    return await world.paid(), expected, verdict


async def test_a_solvent_party_is_closed_out_without_a_penalty(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        await _trade(world, "50")
        paid, expected, verdict = await _paid(world, 3100)
        assert not verdict.below_a
        assert not verdict.below_b
        assert (paid["a"], paid["b"]) == expected[:2]


async def test_whoever_is_below_maintenance_margin_at_the_call_pays_the_penalty(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        await _trade(world, "1000")
        paid, expected, verdict = await _paid(world, 2760)
        assert verdict.below_a
        assert verdict.penalty > 0
        assert (paid["a"], paid["b"]) == expected[:2]
        assert sum(expected[:2]) == 500_000 * TOKENS
