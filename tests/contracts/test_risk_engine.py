"""RiskEngine on a real EVM against its Python twin, bit for bit; totality on chain; gas."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from risk_harness import AS_OF, BTC, ETH, MAX, TRANSACTION_GAS, Engine, make_body, make_terms, packed, selector

from channeld.core.state import Body, Instrument, Kind, Position
from channeld.core.valuation import profit, to_units, value
from channeld.core.wad import DAY, WAD, YEAR

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


def chain_profit(engine: Engine, body: Body, spots: list[int | None], t: int) -> int:
    return engine("profit", body.as_of, [packed(p) for p in body.positions], [spot or 0 for spot in spots], t)


def some_wad(draw: random.Random, low: int = 0) -> int:
    """A price anywhere in its bounds: edges, tiny, ordinary, enormous."""
    pick = draw.randrange(8)
    if pick == 0:
        return draw.choice([low, low + 1, MAX - 1, MAX, 2**64, 2**64 - 1, WAD])
    if pick == 1:
        return max(low, draw.randrange(1, 2 ** draw.randrange(1, 97)))
    return max(low, int(WAD * 10 ** draw.uniform(-3, 6)))


def some_carry(draw: random.Random) -> int:
    return draw.choice([0, 5 * WAD, -5 * WAD, draw.randint(-5 * WAD, 5 * WAD), draw.randint(-WAD // 5, WAD // 5)])


def some_vol(draw: random.Random, low: int = 0, high: int = 2**64 - 1) -> int:
    return draw.choice([low, high, draw.randint(low, high), min(max(int(10 ** draw.uniform(15, 19.3)), low), high)])


def some_tau(draw: random.Random) -> int:
    return draw.choice([0, 1, 2, draw.randrange(DAY), draw.randrange(YEAR), draw.randrange(5 * YEAR), 2**63])


def random_book(draw: random.Random, count: int) -> tuple[Position, ...]:
    """Positions anywhere in their bounds: seconds to years from AS_OF, some expired."""
    expiries = [AS_OF + some_tau(draw) % (6 * YEAR) + 1 for _ in range(5)]
    carries = {(feed, expiry): some_carry(draw) for feed in (ETH, BTC) for expiry in (0, *expiries)}
    strikes = {(feed, n): some_wad(draw, 1) for feed in (ETH, BTC) for n in range(6)}
    vols = {}
    book = {}
    for _ in range(4 * count):
        if len(book) == count:
            break
        kind, feed = (
            draw.choice([Kind.CALL, Kind.PUT, Kind.CALL, Kind.PUT, Kind.FUTURE, Kind.PERPETUAL]),
            draw.choice([ETH, BTC]),
        )
        expiry = 0 if kind == Kind.PERPETUAL else draw.choice(expiries)
        strike = strikes[feed, draw.randrange(6)] if kind >= Kind.CALL else 0
        instrument = Instrument(kind, feed, expiry, strike)
        vol = vols.setdefault((feed, expiry, strike), some_vol(draw, WAD // 100, 10 * WAD)) if strike else 0
        size = draw.choice([1, -1]) * draw.choice([1, draw.randrange(1, 2**95), draw.randrange(1, 10**21), 2**95 - 1])
        mark = draw.choice([0, 2**100 - 1, some_wad(draw), some_wad(draw)])
        book[instrument.key] = Position(instrument, size, mark, carries[feed, expiry], vol)
    return tuple(book[key] for key in sorted(book))


def test_values_equal_bit_for_bit(engine):
    draw = random.Random(11)  # noqa: S311 - repeatable, not secret
    for _ in range(6000):
        arguments = (
            draw.choice([2, 3, 2, 3, 1, 0]),
            some_wad(draw),
            some_wad(draw, 1),
            some_carry(draw),
            some_vol(draw),
            some_tau(draw),
        )  # fmt: skip - in the order of the function
        assert engine("value", *arguments) == value(*arguments), arguments


def test_values_equal_near_the_money_and_at_the_cut_off(engine):
    draw = random.Random(12)  # noqa: S311 - repeatable, not secret
    for _ in range(2000):
        spot, vol, tau = 3000 * WAD, some_vol(draw, WAD // 100, 10 * WAD), draw.choice([1, 60, DAY, 30 * DAY, YEAR])
        deviation = vol / WAD * (tau / YEAR) ** 0.5
        strike = min(
            max(1, int(spot * 2.718281828 ** min(max(deviation * draw.choice([draw.gauss(0, 3), 11, -11]), -60), 16))),
            MAX,
        )
        arguments = (draw.choice([2, 3]), spot, strike, 0, vol, tau)
        assert engine("value", *arguments) == value(*arguments), arguments


def test_random_books_equal_bit_for_bit(engine):
    draw = random.Random(13)  # noqa: S311 - repeatable, not secret
    for count in [0, 1, 2, 5, 16] * 8 + [32] * 4 + [64] * 6:
        body = make_body(random_book(draw, count))
        t = AS_OF + draw.choice([0, 1, DAY, YEAR, -5, 2**40])
        spots = [draw.choice([None, 0, *[some_wad(draw)] * 4]) for _ in body.positions]
        assert chain_profit(engine, body, spots, t) == profit(body, spots, t)


def test_a_spot_above_the_bound_counts_as_the_bound(engine):
    body = make_body((Position(Instrument(Kind.PERPETUAL, ETH, 0, 0), WAD, WAD, 0, 0),))
    for spot in (MAX, MAX + 1, 2**200, 2**256 - 1):
        assert chain_profit(engine, body, [spot], AS_OF) == profit(body, [spot], AS_OF) == MAX - WAD


def test_neighbours_that_share_spot_and_expiry_are_valued_as_if_alone(engine):
    # the contract keeps what neighbours share; each change of spot, expiry or carry must drop it
    expiries = (AS_OF + DAY, AS_OF + 2 * DAY)
    positions = tuple(
        Position(Instrument(Kind.CALL, feed, expiry, strike * WAD), WAD, 0, carry, WAD)
        for feed, carries in ((BTC, (0, WAD // 10)), (ETH, (WAD // 10, WAD // 10)))
        for expiry, carry in zip(expiries, carries, strict=True)
        for strike in (2900, 3000)
    )
    body = make_body(positions)
    spots = [3000 * WAD, 3000 * WAD, 3000 * WAD, 3100 * WAD, 3100 * WAD, 3000 * WAD, 3000 * WAD, None]
    alone = sum(chain_profit(engine, make_body((p,)), [s], AS_OF) for p, s in zip(positions, spots, strict=True))
    assert chain_profit(engine, body, spots, AS_OF) == profit(body, spots, AS_OF) == alone


word = st.integers(0, 2**256 - 1)
nonsense = st.tuples(
    st.integers(0, 255),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**128 - 1),
    st.integers(-(2**127), 2**127 - 1),
    st.integers(0, 2**128 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2**64 - 1),
)  # fmt: skip - in the order of the struct


@settings(deadline=None)
@given(st.data(), st.lists(nonsense, max_size=5), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_profit_never_reverts_whatever_was_co_signed(engine, data, positions, as_of, t):
    spots = data.draw(st.lists(word, min_size=len(positions), max_size=len(positions)))
    engine("profit", as_of, positions, spots, t)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((4, WAD, WAD, 0, WAD, 1), "UnknownKind()"),
        ((2, MAX + 1, WAD, 0, WAD, 1), "SpotOutOfBounds()"),
        ((2, WAD, WAD, 5 * WAD + 1, WAD, 1), "CarryOutOfBounds()"),
        ((2, WAD, WAD, -5 * WAD - 1, WAD, 1), "CarryOutOfBounds()"),
        ((2, WAD, 0, 0, WAD, 1), "StrikeOutOfBounds()"),
        ((3, WAD, MAX + 1, 0, WAD, 1), "StrikeOutOfBounds()"),
    ],
)
def test_value_refuses_what_the_protocol_excludes(engine, arguments, error):
    with pytest.raises(RuntimeError, match=selector(error)):
        engine.raw("value", *arguments)


def test_profit_wants_one_spot_per_position(engine):
    with pytest.raises(RuntimeError, match=selector("OneSpotPerPosition()")):
        engine.raw("profit", 0, [], [1], 0)


@given(st.integers(-(2**150), 2**150), st.integers(6, 18), st.sampled_from([0, 1, WAD, 3000 * WAD, MAX]))
def test_units_equal(engine, amount, decimals, price):
    terms = make_terms(decimals, ETH if price else bytes(32))
    assert engine("to_units", amount, decimals, price) == to_units(amount, terms, price)


def test_vectors(engine):
    vectors = json.loads((ROOT / "tests" / "vectors" / "valuation.json").read_text())
    for case in vectors["values"]:
        inputs = [int(case[name]) for name in ("kind", "spot", "strike", "carry", "vol", "tau")]
        assert engine("value", *inputs) == int(case["value"]), case
    for case in vectors["profits"]:
        positions = [
            (
                p["kind"],
                bytes.fromhex(p["feed"][2:]),
                p["expiry"],
                *(int(p[n]) for n in ("strike", "size", "mark", "carry", "vol")),
            )
            for p in case["positions"]
        ]
        spots = [int(spot) for spot in case["spots"]]
        assert engine("profit", case["as_of"], positions, spots, case["t"]) == int(case["profit"])


def test_gas(engine):
    now = AS_OF + 60
    engine("value", 0, 3000 * WAD, 0, 0, 0, 0)
    spot_only = engine.gas
    engine("value", 2, 3000 * WAD, 3100 * WAD, WAD // 20, WAD * 7 // 10, 30 * DAY)
    one_value = engine.gas - spot_only
    figures = {}
    for name, expiries in (("one expiry", 1), ("sixteen expiries", 16)):
        options = sorted(
            (2 + n % 2, ETH, AS_OF + (1 + n % expiries) * DAY, (2500 + 25 * n) * WAD, WAD, 100 * WAD, WAD // 20, WAD)
            for n in range(32)
        )
        engine("profit", AS_OF, options, [3000 * WAD] * 32, now)
        figures[name] = engine.gas
    print(  # noqa: T201 - figures for the reader of -s
        f"gas: one option's value {one_value}; profit of 32 options {figures} ({TRANSACTION_GAS} and calldata included)"
    )
    assert one_value <= 9_000
    assert max(figures.values()) <= 32 * 9_000 + TRANSACTION_GAS
