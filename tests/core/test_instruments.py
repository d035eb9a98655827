"""Names of instruments: desks' own writing, both ways, for every instrument there can be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import BTC, ETH, instruments

from channeld.core.instruments import (
    InstrumentNameError,
    expiry_name,
    feed_text,
    instrument_name,
    parse_expiry,
    parse_feed,
    parse_instrument,
)
from channeld.core.state import Instrument, Kind
from channeld.core.wad import DAY, WAD

JUNE = 1_751_011_200  # 27 June 2025, 08:00 UTC


@pytest.mark.parametrize(
    ("name", "instrument"),
    [
        ("ETH-PERP", Instrument(Kind.PERPETUAL, ETH, 0, 0)),
        ("BTC-27JUN25", Instrument(Kind.FUTURE, BTC, JUNE, 0)),
        ("ETH-27JUN25-3000-C", Instrument(Kind.CALL, ETH, JUNE, 3000 * WAD)),
        ("ETH-27JUN25-0.5-P", Instrument(Kind.PUT, ETH, JUNE, WAD // 2)),
        ("ETH-27DEC30-3000-C", Instrument(Kind.CALL, ETH, 1_924_588_800, 3000 * WAD)),
        ("ETH-7JUN25", Instrument(Kind.FUTURE, ETH, JUNE - 20 * DAY, 0)),
        ("ETH-27JUN25T1530", Instrument(Kind.FUTURE, ETH, JUNE + 27_000, 0)),
        ("ETH-27JUN25T000001", Instrument(Kind.FUTURE, ETH, JUNE - 8 * 3600 + 1, 0)),
        ("stETH-29FEB2100T0000-1-C", None),
        ("ETH-1JAN1970T000001", Instrument(Kind.FUTURE, ETH, 1, 0)),
        ("A-B-PERP", Instrument(Kind.PERPETUAL, b"A-B".ljust(32, b"\0"), 0, 0)),
        ("ETH-@253402300800", Instrument(Kind.FUTURE, ETH, 253_402_300_800, 0)),
    ],
)
def test_names(name, instrument):
    if instrument is None:
        with pytest.raises(InstrumentNameError, match="day"):
            parse_instrument(name)
    else:
        assert parse_instrument(name) == instrument
        assert instrument_name(instrument) == name


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("ETH-perp", "ETH-PERP"),
        (" ETH-27jun25-3000-c ", "ETH-27JUN25-3000-C"),
        ("ETH-07JUN25", "ETH-7JUN25"),
        ("ETH-27JUN2025-3000.00-P", "ETH-27JUN25-3000-P"),
        ("ETH-27JUN25T0800", "ETH-27JUN25"),
    ],
)
def test_writings_that_are_taken(written, name):
    assert instrument_name(parse_instrument(written)) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ETH",
        "-PERP",
        "ETH-PERP-C",
        "ETH-31JUN25",
        "ETH-29FEB25",
        "ETH-27JUX25",
        "ETH-27JUN25-3000",
        "ETH-27JUN25-3000-X",
        "ETH-27JUN25--3000-C",
        "ETH-27JUN25-0-C",
        "ETH-27JUN25-3e3-C",
        "ETH-27JUN25-3000.0000000000000000001-C",
        "ETH-27JUN25-99999999999999999999-C",
        "ETH-27JUN25T2560",
        "ETH-1JAN1970T0000",
        "ETH-1JAN1969",
        "ETH-@0",
        "ETH-@18446744073709551616",
        "\u0395TH-PERP",
        "ETH-\u0662\u0667JUN25",
        "X" * 33 + "-PERP",
        "ETH-PERP\n-PERP\0",
        None,
        5,
    ],
)
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InstrumentNameError):
        parse_instrument(name)


@given(instruments())
def test_every_instrument_has_one_name_that_reads_back(instrument):
    assert parse_instrument(instrument_name(instrument)) == instrument


@given(st.text(max_size=40))
def test_any_text_is_a_name_or_refused(text):
    try:
        instrument = parse_instrument(text)
    except InstrumentNameError:
        return
    assert parse_instrument(instrument_name(instrument)) == instrument


@given(st.integers(1, (1 << 64) - 1) | st.integers(1, 4_102_444_800))
def test_expiries_read_back(expiry):
    assert parse_expiry(expiry_name(expiry)) == expiry


@given(st.binary(min_size=32, max_size=32) | st.binary(min_size=1, max_size=8).map(lambda b: b.ljust(32, b"\0")))
def test_feeds_read_back(feed):
    assert parse_feed(feed_text(feed)) == feed
