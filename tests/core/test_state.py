"""States that the protocol does not allow cannot be made."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from strategies import BTC, ETH, EXPIRY, bodies, call, future, perpetual, put

from channeld.core.errors import InvalidStateError
from channeld.core.state import MAX_CARRY, MAX_MARK, MAX_SIZE, Account, Body, Position, genesis
from channeld.core.wad import WAD

VOL = WAD // 2
EMPTY = genesis(b"\1" * 32).body
CALL, PUT = Position(call(), 1, 1, 0, VOL), Position(put(), 1, 1, 0, VOL)


def test_version_zero():
    state = genesis(b"\x07" * 32)
    assert (state.channel, state.version) == (b"\x07" * 32, 0)
    assert state.body == Body(0, WAD, b"\x07" * 32, Account(), Account(), ())


@given(bodies())
@settings(max_examples=40, deadline=None)
def test_what_the_strategy_makes_is_valid(body):
    assert replace(body) == body
    assert all(body.position(p.key) is p for p in body.positions)
    assert body.position((9, b"", 0, 0)) is None
    assert (body.account(0), body.account(1)) == (body.a, body.b)


@pytest.mark.parametrize("account", [(-1, 0, 0), (1 << 128, 0, 0), (0, -1, 0), (0, 0, 1 << 128)])
def test_accounts_that_cannot_be(account):
    with pytest.raises(InvalidStateError):
        Account(*account)


@pytest.mark.parametrize(
    ("instrument", "size", "mark", "carry", "vol"),
    [
        (perpetual(), 0, 1, 0, 0),
        (perpetual(), MAX_SIZE, 1, 0, 0),
        (perpetual(), -MAX_SIZE, 1, 0, 0),
        (perpetual(), 1, -1, 0, 0),
        (perpetual(), 1, MAX_MARK, 0, 0),
        (perpetual(), 1, 1, MAX_CARRY + 1, 0),
        (perpetual(), 1, 1, -MAX_CARRY - 1, 0),
        (perpetual(), 1, 1, 0, VOL),
        (call(), 1, 1, 0, 0),
        (call(), 1, 1, 0, 10 * WAD + 1),
    ],
)
def test_positions_that_cannot_be(instrument, size, mark, carry, vol):
    with pytest.raises(InvalidStateError):
        Position(instrument, size, mark, carry, vol)


@pytest.mark.parametrize(
    "changes",
    [
        {"as_of": -1},
        {"as_of": 1 << 64},
        {"collateral_mark": 0},
        {"collateral_mark": 1 << 96},
        {"journal": b""},
        {"a": Account(1, 0, 0)},
        {"a": Account(1, 1, 1)},
        {"positions": (PUT, CALL)},
        {"positions": (CALL, CALL)},
        {"positions": (CALL, replace(PUT, vol=VOL + 1))},
        {"positions": (CALL, replace(PUT, carry=1))},
        {"positions": tuple(replace(CALL, instrument=call(n)) for n in range(1, 66))},
        {"positions": tuple(Position(future(expiry=n), 1, 1, 0, 0) for n in range(1, 18))},
    ],
)
def test_bodies_that_cannot_be(changes):
    with pytest.raises(InvalidStateError):
        replace(EMPTY, **changes)


def test_what_lies_exactly_on_a_bound_is_allowed():
    Position(perpetual(), 1 - MAX_SIZE, MAX_MARK - 1, -MAX_CARRY, 0)
    replace(EMPTY, positions=tuple(replace(CALL, instrument=call(n)) for n in range(1, 65)))
    replace(EMPTY, positions=tuple(Position(future(expiry=n), 1, 1, 0, 0) for n in range(1, 17)))
    replace(EMPTY, a=Account(3, 5, 1), b=Account(1, 0, 0))


def test_carry_is_shared_by_feed_and_expiry_and_vol_by_strike_alone():
    positions = (
        Position(perpetual(BTC), 1, 1, 5, 0),
        Position(perpetual(ETH), 1, 1, 6, 0),
        Position(call(2000), 1, 1, 0, VOL),
        Position(call(2000, expiry=EXPIRY + 10), 1, 1, 1, VOL + 1),
        Position(call(3000), 1, 1, 0, VOL + 2),
    )
    replace(EMPTY, positions=tuple(sorted(positions, key=lambda p: p.key)))
