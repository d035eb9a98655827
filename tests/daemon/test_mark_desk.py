"""Marks between two daemons: own surfaces, the follower's bands, marks when much is unsettled, carry by index."""

from __future__ import annotations

import pytest
from desk_world import ETH, TOKENS, events_of, only_actor, two_desks

from channeld.core.wad import WAD, format_decimal
from channeld.desk.marks import MarkRefusedError
from channeld.desk.smiles import SurfaceError
from channeld.oracle.sources import ManualSource

EXPIRY = "ETH-27DEC30"
CALL = f"{EXPIRY}-3000-C"


async def with_option(world, vol="0.6"):
    await world.open()
    await world.taker.call("policy_set", peer="maker", auto_accept=True)
    legs = [{"instrument": CALL, "size": "10", "price": "1200", "vol": vol}]
    assert (await world.maker.call("trade", channel="taker", legs=legs))["status"] == "done"


def vol_of(desk):
    (position,) = only_actor(desk).state.body.positions
    return position.vol


def flat(vol):
    return {"smiles": [{"expiry": EXPIRY, "strikes": {"3000": vol}}]}


async def marked(world, condition, what):
    """Marks follow one another until the condition holds."""
    for _ in range(12):
        if condition():
            return
        before = only_actor(world.maker).state.version
        await world.advance(61)
        await world.maker.until(lambda b=before: only_actor(world.maker).state.version > b, "a MARK")
    raise AssertionError(what)


async def test_vols_go_to_the_edge_of_the_followers_band_step_by_step_and_settlement_goes_on(tmp_path):
    async with two_desks(tmp_path) as world:
        await with_option(world)
        maker = only_actor(world.maker)
        await world.taker.call("surface_set", channel="maker", surface=flat("0.95"))
        low = (95 - 10) * WAD // 100
        await world.maker.until(lambda: maker.peer_bands is not None and _low(maker) == low, "the bands")
        await marked(world, lambda: vol_of(world.maker) == low, "the edge of the band")
        assert not [e for e in await events_of(world.taker, "batch_refused") if e["code"] == MarkRefusedError.code]
        # the sequencer's own vol counts within the band
        await world.maker.call("surface_set", channel="taker", surface=flat("0.9"))
        await marked(world, lambda: vol_of(world.maker) == 9 * WAD // 10, "the sequencer's own vol")
        rows = (await world.maker.call("surface", channel="taker"))["positions"]
        assert rows[0]["vol"] == "0.9"
        assert rows[0]["vol_band"] == ["0.85", "1.05"]
        assert not [e for e in await events_of(world.taker, "batch_refused") if e["code"] == MarkRefusedError.code]


def _low(actor):
    (position,) = actor.state.body.positions
    return actor.peer_bands.vol_range(position)[0]


async def test_a_surface_survives_a_restart_and_a_bad_one_changes_nothing(tmp_path):
    async with two_desks(tmp_path) as world:
        await with_option(world)
        await world.maker.call("surface_set", channel="taker", surface=flat("0.7"))
        await world.maker.call("vols_set", vols=[{"instrument": CALL, "vol": "0.65"}])
        before = (await world.maker.call("surface", channel="taker"))["surface"]
        for bad in (flat("nan"), {"vols": {"ETH-PERP": "0.6"}}, {"x": 1}):
            with pytest.raises(SurfaceError):
                await world.maker.call("surface_set", channel="taker", surface=bad)
        await world.maker.node.stop()
        await world.maker.start()
        assert (await world.maker.call("surface", channel="taker"))["surface"] == before
        (position,) = only_actor(world.maker).state.body.positions
        own = only_actor(world.maker).surface.vol(position.instrument, 3000 * WAD, 0, 0)
        assert format_decimal(own) == "0.65"


async def test_much_unsettled_profit_is_marked_before_the_minute_is_over(tmp_path):
    async with two_desks(tmp_path, channel__mark_interval=3_000) as world:
        await world.open()
        await world.taker.call("policy_set", peer="maker", auto_accept=True)
        legs = [{"instrument": "ETH-PERP", "size": "400", "price": "3000"}]
        assert (await world.maker.call("trade", channel="taker", legs=legs))["status"] == "done"
        version = only_actor(world.maker).state.version
        world.price(ETH, 2940)
        await world.advance(20)
        await world.maker.until(lambda: only_actor(world.maker).book.spots.get(ETH) == 2940 * WAD, "the print")
        # 24,000 of 250,000 is less than a tenth
        assert only_actor(world.maker).state.version == version
        world.price(ETH, 2935)
        await world.advance(20)
        await world.maker.until(lambda: only_actor(world.maker).state.version > version, "a MARK")
        assert only_actor(world.maker).state.body.a.balance == (250_000 - 26_000) * TOKENS


async def test_a_carry_by_index_is_the_average_of_what_was_seen(tmp_path):
    async with two_desks(tmp_path) as world:
        source = world.source
        assert isinstance(source, ManualSource)
        for name, price in (("ETHPERP", 3006), ("ETHINDEX", 3000)):
            source.set_price(name.encode().ljust(32, b"\0"), price * 10**8, now_ms=world.clock.now_ms())
        await world.open()
        await world.taker.call("policy_set", peer="maker", auto_accept=True)
        legs = [{"instrument": "ETH-PERP", "size": "10", "price": "3000"}]
        assert (await world.maker.call("trade", channel="taker", legs=legs))["status"] == "done"
        funding = [{"perpetual": "ETH-PERP", "mark": "ETHPERP", "index": "ETHINDEX"}]
        await world.maker.call("surface_set", channel="taker", surface={"funding": funding})
        # premium 0.2%: 0.175% in eight hours after the damper, 1.91625 a year; half a year's rate more in one MARK
        expected = WAD * 175 // 100_000 * 1095
        for _ in range(20):
            await world.advance(20)
            await world.maker.until(_caught_up(world.maker), "a look at the premium")
            (position,) = only_actor(world.maker).state.body.positions
            if position.carry == expected:
                break
        assert position.carry == expected
        # (a clock that jumps while a MARK is on its way is refused by its time, which is none of this)
        assert not [e for e in await events_of(world.taker, "batch_refused") if e["code"] == MarkRefusedError.code]


def _caught_up(desk):
    now = desk.node.clock.now_ms()

    def seen():
        return desk.node.marks._looked_ms.get(only_actor(desk).id, 0) >= now

    return seen
