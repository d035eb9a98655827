"""Price sources: reproducible, never looking ahead, refusing what is no price."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channeld.core.terms import feed_id
from channeld.oracle.sources import (
    Interpolation,
    ManualSource,
    PathSource,
    PriceFileError,
    PriceSettingError,
    PriceUnavailableError,
    SyntheticSource,
    UnknownFeedError,
    parse_price,
    read_minutes,
    read_path,
)

MINUTES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "market" / "binance_um_ETHUSDT_1m_202105.csv"
ETH, BTC = feed_id("ETH"), feed_id("BTC")


def test_a_path_holds_its_last_price():
    path = PathSource({ETH: [(200, 7), (100, 5)]})
    assert [path.price(ETH, t) for t in (100, 199, 200, 10**9)] == [5, 5, 7, 7]
    assert path.feeds() == (ETH,)


def test_a_path_interpolates_and_floors():
    path = PathSource({ETH: [(100, 50), (103, 40)]}, Interpolation.LINEAR)
    assert [path.price(ETH, t) for t in (100, 101, 102, 103, 104)] == [50, 46, 43, 40, 40]


def test_before_the_beginning_and_unknown_feeds_are_refused():
    path = PathSource({ETH: [(100, 5)]})
    with pytest.raises(PriceUnavailableError):
        path.price(ETH, 99)
    with pytest.raises(UnknownFeedError, match="known: ETH"):
        path.price(BTC, 100)


@pytest.mark.parametrize("points", [[], [(1, 5), (1, 6)], [(-1, 5)], [(1, 0)], [(1, 1 << 128)]])
def test_a_path_refuses_points_that_are_none(points):
    with pytest.raises(PriceFileError):
        PathSource({ETH: points})


JSON_POINTS = [[100, "ETH", "3000.5"], [200, "ETH", 3001], {"time": 100, "feed": "BTC", "price": "60000"}]


def test_paths_are_read_from_files(tmp_path):
    plain, linear, table = tmp_path / "a.json", tmp_path / "b.json", tmp_path / "c.csv"
    plain.write_text(json.dumps(JSON_POINTS), encoding="utf-8")
    linear.write_text(json.dumps({"interpolation": "linear", "points": JSON_POINTS}), encoding="utf-8")
    table.write_text("time,feed,price\n100,ETH,3000.5\n200, ETH ,3001\n\n100,BTC,60000\n", encoding="utf-8")
    held, between = 300050000000, 300075000000
    assert [read_path(file).price(ETH, 150) for file in (plain, linear, table)] == [held, between, held]
    assert read_path(table, Interpolation.LINEAR).price(ETH, 150) == between
    assert read_path(table).price(BTC, 100) == 60_000 * 10**8


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", ""),
        ("a.csv", "time,price\n1,2\n"),
        ("a.csv", "time,feed,price\n"),
        ("a.csv", "time,feed,price\n1,ETH\n"),
        ("a.csv", "time,feed,price\n1,ETH,abc\n"),
        ("a.csv", "time,feed,price\n1,ETH,0\n"),
        ("a.csv", "time,feed,price\n1,ETH,0.000000001\n"),
        ("a.csv", "time,feed,price\n1.5,ETH,1\n"),
        ("a.csv", "time,feed,price\n1,,1\n"),
        ("a.json", "{"),
        ("a.json", "7"),
        ("a.json", '{"points": [[1, "ETH", true]]}'),
        ("a.json", '[[true, "ETH", 1]]'),
        ("a.json", '[{"time": 1}]'),
        ("a.json", '[["ETH", 1]]'),
        ("a.json", '{"interpolation": "cubic", "points": []}'),
        ("a.json", "[" * 100_000),
    ],
)
def test_files_that_are_no_paths_are_refused(tmp_path, name, text):
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    with pytest.raises(PriceFileError):
        read_path(file)
    with pytest.raises(PriceFileError):
        read_path(tmp_path / "absent.json")


def test_minutes_count_from_their_end(tmp_path):
    file = tmp_path / "minutes.csv"
    file.write_text("open_time,open,close\n60000,1,2.5\n120000,2.5,3\n", encoding="utf-8")
    path = read_minutes(file, ETH)
    assert [path.price(ETH, t) for t in (120, 179, 180)] == [250000000, 250000000, 300000000]
    with pytest.raises(PriceUnavailableError):
        path.price(ETH, 119)
    assert read_minutes(file, ETH, begin_at=1000).price(ETH, 1000) == 250000000
    for text in ("open_time,open\n1,2\n", "open_time,close\n", "open_time,close\nx,1\n", "open_time,close\n1\n"):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(PriceFileError):
            read_minutes(file, ETH)


def test_a_real_month_of_minutes():
    if not MINUTES.exists():
        pytest.skip(f"{MINUTES} is absent")
    path = read_minutes(MINUTES, ETH)
    assert path.price(ETH, 1_619_827_260) == parse_price("2769.74")
    assert path.price(ETH, 1_619_827_319) == parse_price("2769.74")
    assert path.price(ETH, 1_619_827_320) == parse_price("2768.6")


def test_prices_set_by_hand_change_nothing_that_was(tmp_path):
    journal = tmp_path / "prices.jsonl"
    source = ManualSource({ETH: 5}, journal=journal)
    assert source.set_price(ETH, 6, now_ms=100_500) == 101
    assert source.set_price(BTC, 9, now_ms=100_500, at=300) == 300
    assert source.set_price(ETH, 7, now_ms=200_000, at=400) == 400
    assert source.set_price(ETH, 8, now_ms=200_000) == 201
    for again in (source, ManualSource({ETH: 5}, journal=journal)):
        assert [again.price(ETH, t) for t in (0, 100, 101, 200, 201, 399, 400)] == [5, 5, 6, 6, 8, 8, 7]
        assert again.price(BTC, 300) == 9
        with pytest.raises(PriceUnavailableError):
            again.price(BTC, 299)
    for bad in ({"value": 0}, {"value": 1 << 128}, {"value": 1, "at": 200}):
        with pytest.raises(PriceSettingError):
            source.set_price(ETH, now_ms=200_999, **bad)
    journal.write_text("nonsense\n", encoding="utf-8")
    with pytest.raises(PriceFileError):
        ManualSource({}, journal=journal)


@given(st.integers(0, 10**10), st.sampled_from([ETH, BTC]))
@settings(max_examples=100)
def test_the_synthetic_walk_is_deterministic_smooth_and_bounded(t, feed):
    start = 3_000 * 10**8
    source, other = SyntheticSource({ETH: start, BTC: start}), SyntheticSource({ETH: start, BTC: start})
    here, next_tick = source.price(feed, t), source.price(feed, t + 10)
    assert here == other.price(feed, t)
    assert abs(here - start) <= start * 15 // 100
    assert abs(here - next_tick) <= start // 1000


def test_synthetic_seeds_and_feeds_differ():
    prices = {SyntheticSource({ETH: 10**12}, seed).price(ETH, 12_345) for seed in (b"", b"a", b"b")}
    assert len(prices) == 3
    with pytest.raises(PriceUnavailableError):
        SyntheticSource({ETH: 1}).price(ETH, -1)


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "1e3", "1.123456789", None, 1.5, True, "9" * 40])
def test_what_is_no_price(text):
    with pytest.raises(PriceSettingError):
        parse_price(text)
