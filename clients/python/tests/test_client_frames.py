"""DataFrames: exact unless told otherwise, times as times."""

from __future__ import annotations

from decimal import Decimal

import pytest
from channeld_client import Event
from client_support import client_of
from desk_world import two_desks

pd = pytest.importorskip("pandas", reason="the extra [pandas] is not installed")

from channeld_client.frames import frame, scenarios  # noqa: E402 - after the skip


def test_rows_are_exact_and_times_are_times():
    rows = [
        {"instrument": "ETH-PERP", "size": "0.1", "vol": None, "expiry_ms": None, "balances": {"a": "1.5"}, "id": "77"},
        {"instrument": "X", "size": "-3", "vol": "0.65", "expiry_ms": 1_000, "balances": {"a": "2"}, "id": "78"},
    ]
    table = frame(rows)
    assert list(table["size"]) == [Decimal("0.1"), Decimal(-3)]
    assert sum(table["balances.a"]) == Decimal("3.5")
    assert list(table["id"]) == ["77", "78"]
    assert table["expiry"][1] == pd.Timestamp("1970-01-01 00:00:01", tz="UTC")
    assert frame(rows, floats=True)["size"].dtype == "float64"
    assert frame([Event(5, 0, "note", None, {"cash": "1"})])["cash"][0] == Decimal(1)
    assert frame([]).empty


async def test_margin_s_scenarios_come_as_a_table(tmp_path):
    async with two_desks(tmp_path) as world:
        await world.open()
        await world.taker.call("policy_set", peer="maker", auto_accept=True)
        async with client_of(world.maker) as maker:
            await maker.trade(channel="taker", legs=[{"instrument": "ETH-PERP", "size": "1", "price": "3000"}])
            table = scenarios(await maker.margin(channel="taker"))
            assert len(table) == 18
            assert all(isinstance(cell, Decimal) for cell in table["profit"])
            assert not frame(await maker.positions()).empty
