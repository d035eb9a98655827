"""Scan ranges from a daily volatility and the cure period, by the formula of docs/protocol.md, section 6."""

from __future__ import annotations

import math
import tomllib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channeld.cli.errors import CommandError
from channeld.cli.terms_file import DAILY_VOLS, TEMPLATES, parse, scan_range, write
from channeld.core.terms import feed_symbol
from channeld.core.wad import format_decimal

ADDRESSES = ["0x" + f"{n:02x}" * 20 for n in range(1, 8)]


def written(**changes):
    given = {
        "template": "standard",
        "a": ADDRESSES[0],
        "b": ADDRESSES[1],
        "collateral": ADDRESSES[2],
        "decimals": 6,
        "oracle_signers": ADDRESSES[3:6],
        **changes,
    }
    terms = parse(tomllib.loads(write(**given)))
    return terms, {feed_symbol(m.feed): format_decimal(m.price_scan) for m in terms.markets}


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_table_is_what_the_formula_gives_to_a_percent(name):
    template = TEMPLATES[name]
    for feed, vol in DAILY_VOLS.items():
        scan = Decimal(scan_range(template, vol, template.cure_period))
        assert abs(scan - Decimal(template.price_scan[feed])) <= Decimal("0.01")
    assert written(template=name)[1] == {feed: str(Decimal(s).normalize()) for feed, s in template.price_scan.items()}


@given(st.sampled_from(list(TEMPLATES)), st.integers(1, 200), st.integers(60, 86_400))
def test_the_formula(name, thousandths, cure):
    template = TEMPLATES[name]
    j, z = {"tight": (0.5, 4), "standard": (1, 5), "conservative": (1.5, 6)}[name]
    exact = thousandths / 1000 * (j + z * math.sqrt((cure + template.tick + template.max_age + 600) / 86_400))
    scan = float(scan_range(template, str(thousandths / 1000), cure))
    assert exact - 1e-9 <= scan < exact + 0.01 + 1e-9


def test_other_feeds_and_periods():
    terms, scans = written(markets=["ETH", "SOL"], daily_vols={"SOL": "0.08"})
    assert scans["ETH"] == "0.11"
    assert scans["SOL"] == scan_range(TEMPLATES["standard"], "0.08", 3_600)
    assert terms.cure_period == 3_600
    terms, scans = written(cure_period=14_400)
    assert terms.cure_period == 14_400
    assert Decimal(scans["ETH"]) > Decimal("0.11")


@pytest.mark.parametrize("vol", ["", "0", "-0.05", "x", "nan", "inf", "3"])
def test_a_daily_volatility_that_is_none_is_refused(vol):
    with pytest.raises(CommandError):
        written(daily_vols={"ETH": vol})
