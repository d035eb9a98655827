"""Orders between two daemons: a maker streams, a taker's orders trade on it; a restart loses and repeats nothing."""

from __future__ import annotations

import pytest
from desk_world import ETH, events_of, two_desks

from channeld.core.errors import ChanneldError
from channeld.daemon.streams import MarketGoneError

START = 1_924_300_000
PERP = "ETH-PERP"


def side(*levels: tuple[str, str]) -> list[dict[str, str]]:
    return [{"price": price, "size": size} for price, size in levels]


async def streams(world, bids, asks, valid: str = "60"):
    """The maker streams, and the taker sees it."""
    await world.maker.call("market_set", instrument=PERP, bids=bids, asks=asks, valid_s=valid)
    top = (bids[0]["price"] if bids else None, asks[0]["price"] if asks else None)

    async def seen() -> bool:
        rows = await world.taker.call("book", instrument=PERP)
        return (rows[0]["best_bid"], rows[0]["best_ask"]) == top

    await world.taker.until(seen, f"a market of {top}")


async def reaches(desk, label: str, status: str):
    async def there() -> bool:
        rows = {o["label"]: o for o in await desk.call("orders", all=True)}
        return label in rows and rows[label]["status"] == status

    await desk.until(there, f"order {label} {status}")
    return {o["label"]: o for o in await desk.call("orders", all=True)}[label]


async def size(desk) -> str:
    rows = await desk.call("positions")
    return rows[0]["size"] if rows else "0"


@pytest.mark.parametrize("sequencer", [0, 1])
async def test_orders_trade_on_what_a_peer_streams(tmp_path, sequencer):
    async with two_desks(tmp_path, sequencer=sequencer, start_time=START) as world:
        await world.open()
        taker = world.taker
        await streams(world, side(("2999", "5")), side(("3001", "3"), ("3002", "4")))
        await taker.call("order", instrument=PERP, side="buy", size="5", limit="3002", label="swept")
        swept = await reaches(taker, "swept", "filled")
        assert [(f["size"], f["peer"]) for f in swept["fills"]] == [("5", "maker")]
        assert swept["average_price"].startswith("3001.4")
        assert await size(taker) == "5"
        # the same order again under its label is the same order
        again = await taker.call("order", instrument=PERP, side="buy", size="5", limit="3002", label="swept")
        assert (again["id"], again["status"]) == (swept["id"], "filled")
        # what was taken is gone; what is too dear is not taken
        await streams(world, side(("2999", "5")), side(("3005", "9")))
        await taker.call("order", instrument=PERP, side="buy", size="2", limit="3004", label="waits")
        await taker.call("order", instrument=PERP, side="buy", size="2", limit="3004", force="ioc", label="ioc")
        assert (await reaches(taker, "ioc", "cancelled"))["fills"] == []
        # reduce-only flattens and no more
        await taker.call("order", instrument=PERP, side="sell", size="5", limit="2990", reduce_only=True, label="flat")
        await reaches(taker, "flat", "filled")
        assert await taker.call("positions") == []
        assert (await reaches(taker, "waits", "open"))["working"] == "0"


async def test_a_stop_fires_on_the_index_and_oco_stops_the_other(tmp_path):
    async with two_desks(tmp_path, start_time=START) as world:
        await world.open()
        taker = world.taker
        await streams(world, side(("2990", "50")), side(("3010", "50")))
        stop = {"kind": "stop", "source": "index", "price": "2900"}
        one = {"instrument": PERP, "side": "sell", "size": "2", "limit": "3100", "label": "take"}
        two = {"instrument": PERP, "side": "sell", "size": "2", "type": "market", "slippage": "0.05", "label": "stop"}
        await taker.call("order_group", kind="oco", orders=[one, {**two, "trigger": stop}])
        assert (await reaches(taker, "stop", "armed"))["fills"] == []
        world.price(ETH, 2880)
        await world.advance(11)
        await streams(world, side(("2870", "50")), side(("2890", "50")))
        await reaches(taker, "stop", "filled")
        assert "filled" in (await reaches(taker, "take", "cancelled"))["reason"]
        assert await size(taker) == "-2"


async def test_a_post_only_order_is_shown_to_the_peer_and_filled_by_it(tmp_path):
    async with two_desks(tmp_path, start_time=START) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        await maker.call("order", instrument=PERP, side="sell", size="4", limit="3003", post_only=True, label="shown")
        await taker.until(lambda: _best(taker, "best_ask", "3003"), "the maker's order")
        await taker.call("order", instrument=PERP, side="buy", size="3", limit="3003", label="hits")
        await reaches(taker, "hits", "filled")
        rest = await reaches(maker, "shown", "open")
        await maker.until(lambda: _filled(maker, "shown", "3"), "its fill")
        assert rest["limit"] == "3003"
        await taker.call("order", instrument=PERP, side="buy", size="3", limit="3003", label="rest")
        assert (await reaches(maker, "shown", "filled"))["filled"] == "4"
        await taker.until(lambda: _filled(taker, "rest", "1"), "what was left")
        assert await size(maker) == "-4"


async def _best(desk, which: str, price: str) -> bool:
    rows = await desk.call("book", instrument=PERP)
    return rows[0][which] == price


async def _filled(desk, label: str, amount: str) -> bool:
    rows = {o["label"]: o for o in await desk.call("orders", all=True)}
    return rows[label]["filled"] == amount


async def test_a_restart_finds_every_order_and_what_became_of_its_routes(tmp_path):
    async with two_desks(tmp_path, start_time=START) as world:
        await world.open()
        maker, taker = world.maker, world.taker
        await streams(world, side(("2990", "50")), side(("3010", "50")))
        await taker.call("order", instrument=PERP, side="buy", size="3", limit="3010", label="done")
        await reaches(taker, "done", "filled")
        await taker.call("order", instrument=PERP, side="buy", size="3", limit="2500", label="rests")
        await taker.call(
            "order", instrument=PERP, side="buy", size="3", limit="2500", cancel_on_disconnect=True, label="goes"
        )
        # killed before a journaled route is sent, and after one is done and before it is told
        blotter = taker.node.orders.blotter
        told = blotter.filled
        blotter.filled = lambda *_: ()
        await taker.call("order", instrument=PERP, side="buy", size="2", limit="3010", label="untold")
        await taker.until(lambda: _size_is(taker, "5"), "the trade")
        blotter.filled = told

        async def nothing(_event) -> None:
            return

        taker.node.orders._send = nothing
        await taker.call("order", instrument=PERP, side="buy", size="1", limit="3010", label="unsent")
        await taker.node.stop()
        taker.flags["peers.listen"] = f"127.0.0.1:{world.port}"
        await taker.start()
        rows = {o["label"]: o for o in await taker.call("orders", all=True)}
        assert {label: rows[label]["status"] for label in ("done", "rests", "goes", "untold")} == {
            "done": "filled",
            "rests": "open",
            "goes": "cancelled",
            "untold": "filled",
        }
        assert rows["unsent"]["filled"] == "0"
        assert rows["unsent"]["status"] == "open"
        await maker.until(lambda: maker.node.hub.connected(taker.address), "the link")
        await reaches(taker, "unsent", "filled")
        assert await size(taker) == "6"


async def _size_is(desk, wanted: str) -> bool:
    return await size(desk) == wanted


async def test_a_market_that_is_gone_is_not_traded_on(tmp_path):
    async with two_desks(tmp_path, start_time=START) as world:
        await world.open()
        await streams(world, side(("2990", "5")), side(("3010", "5")))
        # the maker's market goes before the peer has heard of it
        world.maker.node.orders.streams.own.clear()
        await world.taker.call("order", instrument=PERP, side="buy", size="3", limit="3010", label="late")
        await world.maker.until(lambda: _refused(world.maker, MarketGoneError.code), "the refusal")
        assert (await reaches(world.taker, "late", "open"))["filled"] == "0"
        assert await size(world.taker) == "0"


async def _refused(desk, code: int) -> bool:
    return any(e["code"] == code for e in await events_of(desk, "offer_refused"))


async def test_a_price_beyond_margin_is_shown_and_not_the_best(tmp_path):
    async with two_desks(tmp_path, start_time=START) as world:
        await world.open(amount="20000")
        await world.maker.call("market_set", instrument=PERP, bids=[], asks=side(("3001", "1000")), valid_s="60")

        async def level():
            rows = await world.taker.call("book", instrument=PERP)
            return rows[0]["asks"]

        await world.taker.until(level, "the market")
        (shown,) = await level()
        assert shown["size"] == "1000"
        assert 0 < float(shown["tradable"]) < 150
        await world.taker.call(
            "order", instrument=PERP, side="buy", size="1000", limit="3001", force="fok", label="all"
        )
        assert (await reaches(world.taker, "all", "cancelled"))["filled"] == "0"


async def test_parameters_of_orders_are_checked(tmp_path):
    async with two_desks(tmp_path, start_time=START) as world:
        await world.open()
        good = {"instrument": PERP, "side": "buy", "size": "1", "limit": "3000"}
        for bad in (
            {"side": "long"},
            {"size": "-1"},
            {"limit": "0"},
            {"type": "iceberg"},
            {"instrument": "DOGE-PERP"},
            {"trigger": {"kind": "stop"}},
            {"peers": ["nobody"]},
            {"force": "gtd"},
        ):
            with pytest.raises(ChanneldError):
                await world.taker.call("order", **{**good, **bad})
        for method, params in (
            ("order_cancel", {"id": 7}),
            ("order_cancel", {"label": "none"}),
            ("order_group", {"kind": "oco", "orders": [good]}),
            ("market_set", {"instrument": PERP, "bids": side(("2", "1")), "asks": side(("1", "1"))}),
        ):
            with pytest.raises(ChanneldError):
                await world.taker.call(method, **params)
        assert await world.taker.call("orders", all=True) == []


async def test_whoever_is_not_heard_of_in_time_loses_the_orders_that_ask_for_it(tmp_path):
    async with two_desks(tmp_path, start_time=START) as world:
        await world.open()
        taker = world.taker
        for label, flag in (("stays", False), ("goes", True)):
            await taker.call(
                "order", instrument=PERP, side="buy", size="1", limit="10", cancel_on_disconnect=flag, label=label
            )
        await taker.call("order_cancel_after", seconds="5")
        await world.advance(6)
        await streams(world, side(("2999", "1")), [])
        await reaches(taker, "goes", "cancelled")
        await reaches(taker, "stays", "open")
        await taker.call("order_cancel", label="stays")
        assert (await taker.call("orders")) == []
