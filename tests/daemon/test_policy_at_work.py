"""A policy between two daemons: agreed, waiting, refused; and what binds this desk's own people, orders and quotes."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from desk_world import only_actor, two_desks

from channeld.core.errors import MalformedNumberError
from channeld.daemon.parameters import BadParameterError
from channeld.desk.policy import BeyondPolicyError

PERP = "ETH-PERP"


def legs(size: str, price: str = "3000") -> list[dict[str, str]]:
    return [{"instrument": PERP, "size": size, "price": price}]


async def size(desk) -> str:
    rows = await desk.call("positions")
    return rows[0]["size"] if rows else "0"


@pytest.mark.parametrize("sequencer", [0, 1])
async def test_a_trade_is_agreed_to_waits_or_is_refused(tmp_path, sequencer):
    async with two_desks(tmp_path, sequencer=sequencer) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        never = {"channel_delta": "60000", "price_band": "0.02"}
        await taker.call("policy_set", peer="maker", auto_accept=True, channel_delta="30000", never=never)
        assert (await maker.call("trade", channel="taker", legs=legs("9")))["status"] == "done"
        # above what is agreed to without a person, and below what is never signed
        waits = await maker.call("trade", channel="taker", legs=legs("9"), wait_s="0")
        assert waits["status"] == "pending"

        async def offered() -> bool:
            return any(o["id"] == waits["id"] for o in await taker.call("offers"))

        await taker.until(offered, "the offer")
        assert (await taker.call("offer_accept", id=waits["id"]))["status"] == "done"
        refused = await maker.call("trade", channel="taker", legs=legs("9"))
        assert (refused["status"], refused["code"]) == ("rejected", BeyondPolicyError.code)
        # the price: the taker sells, so a low price gives away
        cheap = await maker.call("trade", channel="taker", legs=legs("1", "2900"))
        assert (cheap["status"], cheap["code"]) == ("rejected", BeyondPolicyError.code)
        assert (await maker.call("trade", channel="taker", legs=legs("-12")))["status"] == "done"
        assert await size(maker) == "6"


async def test_never_binds_a_desk_s_own_trades_quotes_orders_and_hands(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        await taker.call("policy_set", peer="maker", never={"sizes": [{"instrument": "ETH-*", "size": "5"}]})
        await maker.call("policy_set", peer="taker", auto_accept=True)
        with pytest.raises(BeyondPolicyError, match="size of 6 ETH-PERP"):
            await taker.call("trade", channel="maker", legs=legs("6"))
        # by hand: the limit comes after the offer
        await taker.call("policy_set", peer="maker")
        waits = await maker.call("trade", channel="taker", legs=legs("-2"), wait_s="0")

        async def offered() -> bool:
            return any(o["id"] == waits["id"] for o in await taker.call("offers"))

        await taker.until(offered, "the offer")
        await taker.call("policy_set", peer="maker", never={"max_notional": "5000", "price_band": "0.01"})
        with pytest.raises(BeyondPolicyError, match="notional"):
            await taker.call("offer_accept", id=waits["id"])
        # quoting, and taking what is quoted
        asked = asyncio.create_task(maker.call("rfq", instrument=PERP, size="1", side="buy", wait_s="20"))
        await taker.until(lambda: taker.node.rfq.theirs, "the request")
        (row,) = (await taker.call("rfqs"))["theirs"]
        with pytest.raises(BeyondPolicyError, match="gives away"):
            await taker.call("quote", rfq=row["rfq"], ask="2960")
        assert len((await taker.call("quote", rfq=row["rfq"], ask="2980"))["given"]) == 1
        (best,) = (await asked)["quotes"]
        await maker.call("policy_set", peer="taker", auto_accept=True, never={"instruments": ["BTC-*"]})
        with pytest.raises(BeyondPolicyError, match="not among"):
            await maker.call("quote_take", id=best["id"])
        await maker.call("policy_set", peer="taker", auto_accept=True)
        assert (await maker.call("quote_take", id=best["id"]))["status"] == "done"
        # an order: the book shows what the channel can carry, which is nothing beyond the policy
        await maker.call("market_set", instrument=PERP, bids=[], asks=[{"price": "3001", "size": "9"}], valid_s="60")
        await taker.until(lambda: taker.node.orders.book.line(only_actor(taker).id, _perp()), "the market")
        await taker.call("policy_set", peer="maker", never={"channel_delta": "1"})
        await taker.call("order", instrument=PERP, side="buy", size="4", limit="3005", force="ioc", label="beyond")

        async def over() -> bool:
            rows = {o["label"]: o for o in await taker.call("orders", all=True)}
            return rows["beyond"]["status"] not in {"open", "armed"} and rows["beyond"]["working"] == "0"

        await taker.until(over, "the order's end")
        # short 1 before: it may come nearer to flat, from either side, and no further out
        assert abs(Decimal(await size(taker))) <= 1


def _perp():
    from channeld.core.instruments import parse_instrument  # noqa: PLC0415 - of this one line

    return parse_instrument(PERP)


async def test_a_policy_is_shown_in_words_survives_and_is_refused_when_malformed(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        taker = world.taker
        told = await taker.call("policy_set", peer="maker", auto_accept=True, trade_vega="7", never={"sizes": []})
        assert told["trade_vega"] == "7"
        assert "vega of a trade at most 7" in told["words"][0]
        assert await taker.call("policy", peer="maker") == await taker.call("policy") == [told]
        assert await world.maker.call("policy") == []
        assert not (await world.maker.call("policy", peer="taker"))[0]["auto_accept"]
        for wrong in (
            {"never": {"vol_band": "1"}},
            {"never": {"max_notional": 5}},
            {"channel_delta": "-1"},
            {"sizes": [{"instrument": "", "size": "1"}]},
            {"sizes": [{"instrument": "*"}]},
            {"instruments": [7]},
        ):
            with pytest.raises(BadParameterError):
                await taker.call("policy_set", peer="maker", **wrong)
        with pytest.raises(MalformedNumberError):
            await taker.call("policy_set", peer="maker", channel_gamma="much")
        assert await taker.call("policy") == [told]
