"""What a risk manager asks of a desk, over real sockets on a real EVM: every number of one book; refusals."""

from __future__ import annotations

import pytest
from desk_world import ETH, two_desks

from channeld.core.acceptance import MarginRefusedError, valuation_time
from channeld.core.errors import ChanneldError, InputError
from channeld.core.valuation import value_position
from channeld.core.wad import WAD, parse_decimal
from channeld.daemon.parameters import BadParameterError
from channeld.desk.grid import GridDomainError

CALL = {"instrument": "ETH-27DEC30-3000-C", "size": "10", "price": "1200"}
PERP = {"instrument": "ETH-PERP", "size": "-4", "price": "3000", "carry": "0.1"}


def number(text: str) -> float:
    return float(text)


async def test_every_figure_of_a_book(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        asked = await maker.call("what_if", channel="taker", legs=[CALL, PERP])
        assert asked["refused"] is None
        assert [one["free"] for one in asked["before"].values()] == ["250000"] * 2
        largest = [parse_decimal(one["size"]) for one in asked["largest"]]
        assert largest[0] > 10 * WAD
        assert largest[0] * 4 == -largest[1] * 10
        await _the_largest_is_the_largest(maker, asked)
        await taker.call("policy_set", peer="maker", auto_accept=True, max_notional="1000000")
        done = await maker.call("trade", channel="taker", legs=[CALL, PERP])
        assert done["status"] == "done", done
        report = await maker.call("margin", channel="taker")
        for side in "ab":
            assert report[side]["initial_margin"] == asked["after"][side]["initial_margin"]
        _the_legs_add_up(report)
        await _greeks(world)
        await _scenarios(world)
        await _limits(world, report)
        await _profit(world)
        await _compression(maker)
        await _what_is_refused(maker)


async def _compression(maker):
    """The put and the future against the call that is held: a conversion, which goes at no change of risk."""
    assert (await maker.call("compression", channel="taker"))["legs"] == []
    size = str(-float(CALL["size"]))
    put = {**CALL, "instrument": CALL["instrument"][:-1] + "P", "size": size}
    future = {"instrument": CALL["instrument"].rsplit("-", 2)[0], "size": size, "price": "3000"}
    done = await maker.call("trade", channel="taker", legs=[put, future])
    assert done["status"] == "done", done
    found = await maker.call("compression", channel="taker")
    assert {one["instrument"] for one in found["legs"]} == {CALL["instrument"], put["instrument"], future["instrument"]}
    assert found["refused"] is None
    for side in "ab":
        assert number(found["after"][side]["maintenance_margin"]) <= number(found["before"][side]["maintenance_margin"])
    legs = [{name: one[name] for name in ("instrument", "size", "price")} for one in found["legs"]]
    done = await maker.call("trade", channel="taker", legs=legs)
    assert done["status"] == "done", done
    left = await maker.call("positions", channel="taker")
    assert {row["instrument"] for row in left} == {PERP["instrument"]}


async def _the_largest_is_the_largest(maker, asked):
    again = await maker.call("what_if", channel="taker", legs=_priced(asked["largest"]))
    assert again["refused"] is None
    more = [{**one, "size": one["size"] + "1"} for one in _priced(asked["largest"])]
    beyond = await maker.call("what_if", channel="taker", legs=[{**leg, "size": _doubled(leg["size"])} for leg in more])
    assert beyond["refused"]["code"] == MarginRefusedError.code
    assert beyond["after"]["a"]["initial_margin"]


def _priced(legs):
    return [
        {name: one[name] for name in ("instrument", "size", "price", "carry", "vol") if name in one} for one in legs
    ]


def _doubled(size: str) -> str:
    return str(2 * int(float(size)))


def _the_legs_add_up(report):
    for side in "ab":
        for market in report[side]["markets"]:
            counted = sum(number(one["weighted"]) for one in market["legs"] if one["counts"])
            assert max(0.0, -counted) == pytest.approx(number(market["scan_risk"]), abs=1e-9)
    mine, theirs = ({leg["instrument"]: leg for leg in report[side]["markets"][0]["legs"]} for side in "ab")
    assert {name: one["size"] for name, one in mine.items()} == {
        name: str(-int(one["size"])) for name, one in theirs.items()
    }


async def _greeks(world):
    mine, theirs = await world.maker.call("greeks", channel="taker"), await world.taker.call("greeks")
    for rows in ("positions", "expiries", "channels", "desk"):
        assert len(mine[rows]) == len(theirs[rows]) > 0
        for one, other in zip(mine[rows], theirs[rows], strict=True):
            assert number(one["delta"]) == pytest.approx(-number(other["delta"]), rel=1e-3)
    call = next(one for one in mine["positions"] if one["instrument"].endswith("-C"))
    assert 0 < number(call["delta"]) < 10
    assert number(call["vega"]) > 0 > number(call["theta"])
    assert number(mine["desk"][0]["delta"]) == pytest.approx(sum(number(p["delta"]) for p in mine["positions"]))


async def _scenarios(world):
    moves = {"spot_moves": ["-0.1", "0", "0.1"], "vol_moves": ["-0.2", "0", "0.2"]}
    mine = await world.maker.call("scenario", channel="taker", **moves)
    theirs = await world.taker.call("scenario", **moves)
    assert mine["profit"][1][1] == "0.00"
    for row, other in zip(mine["profit"], theirs["profit"], strict=True):
        assert [number(x) for x in row] == pytest.approx([-number(x) for x in other], abs=5)
    # the exact values of the same book say the same
    actor = next(iter(world.maker.node.actors.values()))
    prices = await actor.book.prices(actor.channel.terms, actor.state.body, world.maker.node.clock.now_ms())
    t, spot = valuation_time(actor.channel.terms, prices.time), prices.spots[ETH]
    gain = sum(
        p.size * (value_position(p, spot * 11 // 10, t) - value_position(p, spot, t)) / WAD / WAD
        for p in actor.state.body.positions
    )
    sign = -1 if actor.channel.side else 1
    assert number(mine["profit"][2][1]) == pytest.approx(sign * gain, abs=5)
    worst = mine["worst"]
    assert number(worst["profit"]) == min(number(cell) for row in mine["profit"] for cell in row)
    assert sum(number(leg["profit"]) for leg in worst["legs"]) == pytest.approx(number(worst["profit"]), abs=0.05)
    assert (await world.maker.call("scenario", spot_moves=["0.1"]))["vol_moves"] == ["0"]


async def _limits(world, report):
    (row,) = await world.taker.call("limits")
    assert row["policy"]["max_notional"] == "1000000"
    assert row["policy"]["instruments"] is None
    assert row["use"]["positions"] == 2
    assert row["use"]["expiries"] == 2
    assert number(row["use"]["notional"]) == pytest.approx(14 * number(report["prices"]["ETH"]))
    assert 0 < number(row["margin"]["used"]) < 1
    assert {one["feed"] for one in row["oracle"]} == {"BTC", "ETH"}


async def _profit(world):
    maker = world.maker
    actor = next(iter(maker.node.actors.values()))
    traded = actor.state.body.as_of
    await world.advance(120)
    await maker.until(lambda: actor.state.body.as_of > traded, "a mark")
    marked = actor.state.body.as_of
    world.price(ETH, 3030)
    await world.advance(70)
    await maker.until(lambda: actor.state.body.as_of > marked, "the next mark")
    told = await maker.call("profit", channel="taker", intervals=100)
    total = {name: number(x) for name, x in told["total"].items()}
    parts = sum(x for name, x in total.items() if name != "total")
    assert parts == pytest.approx(total["total"], abs=1e-6)
    assert total["total"] == pytest.approx(sum(number(row["total"]) for row in told["rows"]), abs=1e-6)
    assert total["delta"] != 0
    # what is explained over the whole life is what the balance gained, and what is unsettled still
    report = await maker.call("margin", channel="taker")
    side = report["us"]
    gained = number(report[side]["equity_in_collateral"]) - 250_000
    assert total["total"] == pytest.approx(gained, abs=0.05)
    assert (await maker.call("profit", channel="taker"))["intervals"] == 1


async def _what_is_refused(maker):
    for moves in ([], ["x"], [1], ["1e5"], ["0.1"] * 65):
        with pytest.raises(BadParameterError):
            await maker.call("scenario", spot_moves=moves)
    for moves in (["-1"], ["-2"], ["100000"]):
        with pytest.raises(GridDomainError):
            await maker.call("scenario", spot_moves=moves)
    with pytest.raises(GridDomainError):
        await maker.call("scenario", spot_moves=["0"], days="99999")
    with pytest.raises(BadParameterError):
        await maker.call("scenario", spot_moves=["0"], days="nan")
    for intervals in (0, 10_001, "1", 1.5):
        with pytest.raises(BadParameterError):
            await maker.call("profit", channel="taker", intervals=intervals)
    for legs in ([{**CALL, "size": "0"}], [{**CALL, "size": "nan"}], [{**CALL, "price": "-1"}], [], [1]):
        with pytest.raises((InputError, ChanneldError)):
            await maker.call("what_if", channel="taker", legs=legs)
    huge = await maker.call("what_if", channel="taker", legs=[{**PERP, "size": "30000000000"}])
    assert huge["refused"] is not None
    past = await maker.call(
        "what_if", channel="taker", legs=[{**CALL, "instrument": "ETH-27DEC24-3000-C", "vol": "0.5"}]
    )
    assert past["refused"] is not None
    assert past["after"] is None
    assert past["largest"] == []
