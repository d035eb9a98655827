"""Writes valuation.json: exact results of docs/arithmetic.md for implementations in other languages.

`python tests/vectors/make_valuation.py`. All amounts are decimal strings of wads (q numbers, scaled by 2**80, in
"functions"); times are seconds. The cases are fixed by a seed; a change of any result is a change of protocol.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from channeld.core import fixedpoint as fp
from channeld.core.margin import both, scenarios
from channeld.core.state import Account, Body, Instrument, Kind, Position
from channeld.core.terms import Market, Oracle, Party, Terms, feed_id
from channeld.core.valuation import funding, profit, value
from channeld.core.wad import DAY, WAD, YEAR

TARGET = Path(__file__).with_name("valuation.json")
ETH, BTC = feed_id("ETH"), feed_id("BTC")
AS_OF = 1_750_000_000
MAX = 2**96 - 1


def value_cases(draw: random.Random) -> list[dict[str, Any]]:
    """Published and ordinary cases, every edge, and random ones."""
    inputs = [
        (2, 1500 * WAD, 1500 * WAD, 0, WAD, 7 * DAY),
        (3, 1500 * WAD, 1500 * WAD, 0, WAD, 7 * DAY),
        (2, 42 * WAD, 40 * WAD, WAD // 10, WAD // 5, YEAR // 2),
        (3, 42 * WAD, 40 * WAD, WAD // 10, WAD // 5, YEAR // 2),
        (0, 3000 * WAD, 0, WAD, 0, 0),
        (1, 3000 * WAD, 0, WAD // 10, 0, 90 * DAY),
    ]
    for kind in (2, 3):
        inputs += [
            (kind, spot, strike, carry, vol, tau)
            for spot, strike in ((0, 1), (1, 1), (1, MAX), (MAX, 1), (MAX, MAX), (3000 * WAD, 3000 * WAD))
            for carry in (0, 5 * WAD, -5 * WAD)
            for vol, tau in ((0, 0), (0, 1), (2**64 - 1, 5 * YEAR))
        ]
    for _ in range(120):
        spot = int(WAD * 10 ** draw.uniform(-3, 6))
        strike = max(1, int(spot * 10 ** draw.choice([draw.uniform(-3, 3), draw.uniform(-0.2, 0.2)])))
        carry = draw.choice([0, draw.randint(-5 * WAD, 5 * WAD)])
        tau = draw.choice([draw.randint(0, 120), int(10 ** draw.uniform(2, 8.19))])
        inputs.append((draw.choice([1, 2, 3]), spot, strike, carry, int(10 ** draw.uniform(15.8, 19.2)), tau))
    names = ("spot", "strike", "carry", "vol", "tau")
    return [
        {"kind": case[0]} | {n: str(x) for n, x in zip(names, case[1:], strict=True)} | {"value": str(value(*case))}
        for case in inputs
    ]


def function_cases(draw: random.Random) -> dict[str, list[list[str]]]:
    """Argument and result of each function of section 2."""
    one = fp.ONE
    arguments = {
        "exp_q": [0, 1, -1, one, -one, 2 * one, -61 * one, *(draw.randrange(-70 * one, 3 * one) for _ in range(12))],
        "ln_q": [1, 2, 3, WAD, MAX, 2**102, *(draw.randrange(1, 2 ** draw.randrange(1, 103)) for _ in range(12))],
        "sqrt_years_q": [0, 1, 2, DAY, YEAR, 5 * YEAR, *(draw.randrange(5 * YEAR) for _ in range(6))],
        "tail_q": [0, 1, one, 11 * one, 34 * one, *(draw.randrange(34 * one) for _ in range(12))],
    }
    return {name: [[str(x), str(getattr(fp, name)(x))] for x in cases] for name, cases in arguments.items()}


def funding_cases(draw: random.Random) -> list[dict[str, str]]:
    """Funding, truncation in both directions included."""
    cases = [
        (10 * WAD, 3000 * WAD, 876 * 10**14, 3600),
        (-1, 10**17, -(10**17), 100),
        (2**95 - 1, 2**100 - 1, 5 * WAD, 9),
    ]
    cases += [
        (
            draw.randint(-(10**22), 10**22),
            draw.randint(0, 10**23),
            draw.randint(-5 * WAD, 5 * WAD),
            draw.randint(-5, 10**6),
        )
        for _ in range(20)
    ]
    names = ("size", "mark", "carry", "dt")
    return [{n: str(x) for n, x in zip(names, c, strict=True)} | {"funding": str(funding(*c))} for c in cases]


def random_book(draw: random.Random, count: int) -> tuple[Position, ...]:
    """Up to `count` positions on two feeds and a few expiries, from an hour before to a year after AS_OF."""
    expiries = [AS_OF + offset for offset in (-3600, 3600, DAY, DAY + 10, 2 * DAY, 30 * DAY, YEAR)]
    spot = {ETH: 3000, BTC: 60000}
    carry = {(feed, expiry): draw.randint(-WAD // 2, WAD // 2) for feed in spot for expiry in (0, *expiries)}
    book: dict[tuple[int, bytes, int, int], Position] = {}
    for _ in range(count):
        kind, feed, expiry = draw.choice(list(Kind)), draw.choice([ETH, BTC]), draw.choice(expiries)
        option = kind >= Kind.CALL
        percent = draw.choice([50, 80, 90, 100, 110, 150])
        instrument = Instrument(
            kind, feed, 0 if kind == Kind.PERPETUAL else expiry, spot[feed] * WAD * percent // 100 if option else 0
        )
        mark = draw.randint(0, spot[feed] * WAD // 5) if option else spot[feed] * WAD * draw.randint(95, 105) // 100
        size = draw.choice([-1, 1]) * draw.randint(1, 20 * WAD)
        vol = (30 + percent // 10) * WAD // 100 if option else 0
        book[instrument.key] = Position(instrument, size, mark, carry[feed, instrument.expiry], vol)
    return tuple(book[key] for key in sorted(book))


def position_data(position: Position) -> dict[str, Any]:
    """A position as JSON."""
    i = position.instrument
    return {
        "kind": int(i.kind),
        "feed": "0x" + i.feed.hex(),
        "expiry": i.expiry,
        "strike": str(i.strike),
        "size": str(position.size),
        "mark": str(position.mark),
        "carry": str(position.carry),
        "vol": str(position.vol),
    }  # fmt: skip - the instrument on one line, the rest on the next


def body_of(positions: tuple[Position, ...]) -> Body:
    """A body of a million units on each side, six decimals."""
    account = Account(10**12, 10**12, 0)
    return Body(AS_OF, WAD, bytes(32), account, account, positions)


def profit_cases(draw: random.Random) -> list[dict[str, Any]]:
    """Whole books; some spots missing."""
    cases = []
    for count in (1, 3, 10, 40):
        body = body_of(random_book(draw, count))
        level = {ETH: 3000 * WAD + draw.randint(-300, 300) * WAD, BTC: 60_000 * WAD + draw.randint(-6000, 6000) * WAD}
        spots = [draw.choice([0, *[level[p.instrument.feed]] * 5]) for p in body.positions]
        t = AS_OF + draw.choice([0, 60, 3600, DAY])
        cases.append(
            {
                "as_of": AS_OF,
                "t": t,
                "positions": [position_data(p) for p in body.positions],
                "spots": [str(spot) for spot in spots],
                "profit": str(profit(body, spots, t)),
            }  # fmt: skip - inputs above, the result below
        )
    return cases


def terms() -> Terms:
    """Terms with the standard template's markets on BTC and ETH; 6 decimals, no collateral feed."""
    party_a, party_b = (Party(bytes([n]) * 20, bytes([n + 8]) * 20) for n in (1, 2))
    markets = tuple(
        Market(feed, scan * WAD // 100, 6 * WAD // 10, 35 * WAD // 100, 2 * WAD // 100, WAD // 200)
        for feed, scan in ((BTC, 9), (ETH, 11))
    )
    oracle = Oracle((b"\x21" * 20,), 1, 10, 1, 0, 60, 7200)
    return Terms(
        party_a,
        party_b,
        b"\x31" * 20,
        6,
        bytes(32),
        0,
        oracle,
        markets,
        13 * WAD // 10,
        3 * WAD // 100,
        86_400,
        3600,
        0,
        bytes(32),
    )  # fmt: skip - one line per group of fields


def margin_cases(draw: random.Random) -> list[dict[str, Any]]:
    """Whole books: scenario prices, profits per scenario, requirements and equity of both sides."""
    cases = []
    channel = terms()
    for count in (1, 4, 12, 40):
        body = body_of(random_book(draw, count))
        prices = {ETH: 3000 * WAD + draw.randint(-300, 300) * WAD, BTC: 60_000 * WAD + draw.randint(-6000, 6000) * WAD}
        t = AS_OF + draw.choice([0, 60, 3600])
        reports = both(channel, body, prices, t, WAD)
        cases.append(
            {
                "t": t,
                "as_of": AS_OF,
                "decimals": channel.decimals,
                "balance": str(body.a.balance),
                "initial_factor": str(channel.initial_factor),
                "positions": [position_data(p) for p in body.positions],
                "markets": [
                    {
                        "feed": "0x" + m.feed.hex(),
                        "price": str(prices[m.feed]),
                        "price_scan": str(m.price_scan),
                        "vol_up": str(m.vol_up),
                        "vol_down": str(m.vol_down),
                        "wing_cover": str(m.wing_cover),
                        "spread_charge": str(m.spread_charge),
                        "scenario_prices": [str(s.price) for s in scenarios(m, prices[m.feed])],
                    }  # fmt: skip - inputs above, the result below
                    for m in channel.markets
                ],
                "sides": [
                    {
                        "equity": str(r.equity),
                        "initial": str(r.initial),
                        "maintenance": str(r.maintenance),
                        "profit": str(r.profit),
                        "markets": [
                            {
                                "feed": "0x" + m.feed.hex(),
                                "scan_risk": str(m.scan_risk),
                                "spread_charge": str(m.spread_charge),
                                "initial": str(m.initial),
                                "scenario_profits": [str(s.profit) for s in m.scenarios],
                            }  # fmt: skip - totals above, details below
                            for m in r.markets
                        ],
                    }  # fmt: skip - totals above, details below
                    for r in reports
                ],
            }
        )
    return cases


def vectors() -> dict[str, Any]:
    """Everything, from one seed."""
    draw = random.Random(76)  # noqa: S311 - repeatable, not secret
    return {
        "about": "docs/arithmetic.md; wads and q numbers as decimal strings, times in seconds",
        "functions": function_cases(draw),
        "values": value_cases(draw),
        "funding": funding_cases(draw),
        "profits": profit_cases(draw),
        "margins": margin_cases(draw),
    }


if __name__ == "__main__":
    TARGET.write_text(json.dumps(vectors(), indent=1) + "\n", encoding="utf-8")
