"""Prices and greeks against an exchange's own: Deribit's marks, IVs and greeks, in the real files where they are."""

from __future__ import annotations

import csv
import datetime as dt
import math
from collections import defaultdict
from pathlib import Path

import pytest

from channeld.core.greeks import greeks
from channeld.core.state import Kind
from channeld.core.valuation import value
from channeld.core.wad import DAY, WAD, YEAR

MARKET = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "market"
BTC_2020 = MARKET / "deribit_btc_chain_20200521_full_greeks.csv"
ETH_2025 = MARKET / "deribit_eth_chain_20251122T0215Z_booksummary.csv"
CRASH_2026 = MARKET / "deribit_eth_chain_crash_20260204-07.csv"


def rows_of(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        pytest.skip(f"{path.name} is not here: no ../shared/data")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def at_eight(day: str) -> float:
    return dt.datetime.fromisoformat(f"{day}T08:00:00+00:00").timestamp()


def test_every_mark_of_one_moment_follows_from_its_iv_to_the_rounding():
    """830 options at one moment: a call and a put of one strike give the forward that they were marked at.

    The IV is quoted to 0.01 of a point and the mark to 1e-6 of a coin, and nothing else may differ. The file's own
    column T is not used: it is about six hours short of 08:00 UTC, the hour at which these options expire.
    """
    pairs = defaultdict(dict)
    for row in rows_of(ETH_2025):
        pairs[row["expiry"], float(row["strike"])][row["option_type"]] = row
    checked = 0
    for (expiry, strike), pair in pairs.items():
        call, put = float(pair["C"]["mark_price"]), float(pair["P"]["mark_price"])
        forward = strike / (1 - (call - put))
        for row, kind, mark in ((pair["C"], Kind.CALL, call), (pair["P"], Kind.PUT, put)):
            vol, tau = float(row["mark_iv"]) / 100, at_eight(expiry) - int(row["creation_timestamp"]) / 1000
            exact = value(kind, int(forward * WAD), int(strike * WAD), 0, int(vol * WAD), int(tau)) / WAD
            vega = greeks(kind, forward, strike, 0, vol, tau).vega
            assert exact == pytest.approx(mark * forward, abs=0.005 * vega + 1e-6 * (forward + strike)), row
            checked += 1
    assert checked == 830


def test_every_greek_of_the_exchange_is_ours_to_the_rounding():
    """326 BTC options: delta, gamma, vega, theta and rho as Deribit shows them, each row at its own time.

    Deribit's theta is cut at the mark and, on the last day, scaled by what is left of it; its rho is the strike's
    discount's. IV to 0.01 of a point and the forward to the cent leave about 1e-4 of delta.
    """
    rows = rows_of(BTC_2020)
    for row in rows:
        kind = Kind.CALL if row["option_type"] == "call" else Kind.PUT
        forward, strike, vol = float(row["underlying_price"]), float(row["strike"]), float(row["mark_iv"]) / 100
        tau = (int(row["expiration_timestamp"]) - int(row["timestamp"])) / 1000
        mark = float(row["mark_price"]) * forward
        ours = greeks(kind, forward, strike, 0, vol, tau)
        name = row["instrument_name"]
        assert ours.delta == pytest.approx(float(row["delta"]), abs=1.5e-4), name
        assert ours.gamma == pytest.approx(float(row["gamma"]), abs=1e-5), name
        assert ours.vega == pytest.approx(float(row["vega"]), abs=2e-3), name
        theta = -min(abs(ours.theta) * min(1.0, tau / DAY), mark)
        assert theta == pytest.approx(float(row["theta"]), abs=0.03), name
        assert _rho_of_the_strike(kind, forward, strike, vol, tau) == pytest.approx(float(row["rho"]), abs=1e-3), name
        # the mark is made at another instant than the forward beside it: within three basis points of the forward
        assert ours.price == pytest.approx(mark, abs=3e-4 * forward), name
    assert len(rows) == 326


def _rho_of_the_strike(kind, forward, strike, vol, tau) -> float:
    deviation = vol * math.sqrt(tau / YEAR)
    d2 = math.log(forward / strike) / deviation - deviation / 2
    sign = 1 if kind == Kind.CALL else -1
    return sign * strike * tau / YEAR * 0.5 * math.erfc(-sign * d2 / math.sqrt(2)) / 100


def test_through_a_crash_marks_deltas_and_vegas_stay_ours():
    """14,108 marks over a fall of a fifth, read a moment apart from their forwards: by their distribution."""
    distances = defaultdict(list)
    for row in rows_of(CRASH_2026)[::3]:
        kind = Kind.CALL if row["option_type"] == "call" else Kind.PUT
        forward, strike, vol = float(row["forward_price"]), float(row["strike"]), float(row["mark_iv"])
        tau = at_eight(row["expiry_0800utc"]) - dt.datetime.fromisoformat(row["timestamp"]).timestamp()
        ours = greeks(kind, forward, strike, 0, vol, tau)
        distances["price"].append(abs(ours.price / forward - float(row["mark_price"])))
        distances["delta"].append(abs(ours.delta - float(row["delta"])))
        distances["vega"].append(abs(ours.vega - float(row["vega"])) / forward)
    for found in distances.values():
        found.sort()
        assert len(found) > 4_000
    medians = {name: found[len(found) // 2] for name, found in distances.items()}
    assert medians["price"] < 3e-5
    assert medians["delta"] < 1e-3
    assert medians["vega"] < 5e-6
    assert distances["price"][len(distances["price"]) * 99 // 100] < 1.5e-3
