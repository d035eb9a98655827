"""Every rule of the transition, each with a batch that breaks it: a typed error, and the state as it was."""

import inspect
from dataclasses import replace
from pathlib import Path

import pytest
from strategies import (
    BTC,
    ETH,
    EXPIRY,
    GRACE,
    ORACLE_KEYS,
    T0,
    USDC,
    Desk,
    call,
    dollars,
    fix_packages,
    future,
    key,
    leg,
    make_mark,
    make_terms,
    packages,
    perpetual,
    put,
)

from channeld.core import refusals
from channeld.core.errors import ChanneldError, Fault, OracleError, RuleError
from channeld.core.operations import CloseChannel, Deposit, Leg, Mark, OperationBoundError, Trade, Transfer, Withdraw
from channeld.core.packages import (
    DataPoint,
    DuplicatePackageError,
    MalformedPackageError,
    NoQuorumError,
    PackageSignatureError,
    StalePackageError,
    UnknownSignerError,
    ZeroValueError,
    sign_package,
)
from channeld.core.refusals import (
    BalanceBoundError,
    BatchBeforeStateError,
    BookLimitError,
    CloseNotLastError,
    CloseWithPositionsError,
    CollateralNotMarkedError,
    CollateralPrintMissingError,
    DepositFallsError,
    ExpiredInstrumentError,
    ExpiryNotOnTickError,
    FlaggedDespiteFixError,
    FlaggedNotExpiredError,
    FlaggedTooEarlyError,
    MarkAheadError,
    MarkDisagreementError,
    MarkNotLaterError,
    MarkNotOnTickError,
    MarkRepeatedError,
    MarkShapeError,
    NegativeBalanceError,
    PositionPastExpiryError,
    RepeatedInstrumentError,
    SizeBoundError,
    UnknownMarketError,
    UnusedPackageError,
    VersionError,
)
from channeld.core.state import MAX_SIZE, Instrument, Kind
from channeld.core.terms import feed_id
from channeld.core.transition import apply
from channeld.core.wad import WAD

FUNDED = 1_000_000 * 10**6
ETH_3000 = {ETH: dollars(3000)}
SOL = feed_id("SOL")


def refused(desk, error, *operations, at=T0, match=None):
    """The batch is refused with exactly that error, and nothing has changed."""
    before = desk.state
    raw = desk.raw(*operations, at=at)
    with pytest.raises(error, match=match) as caught:
        apply(desk.terms, desk.state, raw)
    assert type(caught.value) is error
    assert desk.state is before
    assert desk.state == before
    assert str(caught.value)
    return caught.value


def with_book(*legs_):
    desk = Desk()
    desk.do(Trade(0, legs_ or (leg(call(), 1, 150), leg(perpetual(), 1, 3000))), at=T0)
    return desk


def with_collateral_feed(feed=ETH):
    return Desk(make_terms(collateral_feed=feed, haircut=WAD // 2))


# ---- the batch -----------------------------------------------------------------------------------------------------


def test_a_version_must_rise():
    desk = Desk()
    raw = desk.raw(at=T0)
    for version in (desk.state.version, 0, -1, 1 << 64):
        with pytest.raises(VersionError):
            apply(desk.terms, desk.state, raw, version)
    assert apply(desk.terms, desk.state, raw, (1 << 64) - 1).state.version == (1 << 64) - 1


def test_a_batch_before_as_of():
    desk = with_book()
    refused(desk, BatchBeforeStateError, at=T0 - 0.001)
    desk.do(at=T0)


def test_all_or_nothing():
    desk = Desk()
    refused(desk, UnknownMarketError, Transfer(0, 5), Trade(0, (leg(perpetual(), 1, 1), leg(perpetual(SOL), 1, 1))))


# ---- payments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "party"),
    [
        (Transfer(0, FUNDED + 1), "a"),
        (Transfer(1, FUNDED + 1), "b"),
        (Withdraw(0, FUNDED + 1), "a"),
        (Withdraw(1, FUNDED + 1), "b"),
        (Trade(0, (leg(perpetual(), 1, 1),), fee=FUNDED + 1), "a"),
        (Trade(0, (leg(perpetual(), 1, 1),), fee=-FUNDED - 1), "b"),
    ],
)
def test_no_balance_is_negative_at_the_end(operation, party):
    error = refused(Desk(), NegativeBalanceError, operation)
    assert error.details == {"party": party, "balance": -1}


def test_a_mark_that_would_put_a_party_in_default_is_refused():
    desk = with_book(leg(perpetual(), 1000, 3000))
    error = refused(
        desk, NegativeBalanceError, make_mark(desk.terms, desk.body, T0 + 10, {ETH: dollars(1999)}), at=T0 + 10
    )
    assert error.details["party"] == "a"


def test_deposits_never_fall():
    desk = Desk()
    refused(desk, DepositFallsError, Deposit(0, FUNDED - 1, FUNDED))
    refused(desk, DepositFallsError, Deposit(1, FUNDED + 1, FUNDED - 1))
    desk.do(Deposit(0, FUNDED, FUNDED), at=T0)


def test_accounts_stay_within_128_bits():
    desk = Desk(funded=(1 << 127) - 1)
    most = (1 << 127) - 1
    desk.do(Withdraw(0, most), Transfer(1, most), Withdraw(0, most), at=T0)
    assert desk.body.a.withdrawn == 2 * most
    refused(desk, BalanceBoundError, Withdraw(0, 2), Transfer(1, 2), at=T0)


@pytest.mark.parametrize("make", [lambda: Transfer(0, 0), lambda: Withdraw(1, 0), lambda: Transfer(0, -5)])
def test_payments_are_of_at_least_one_unit(make):
    with pytest.raises(OperationBoundError, match="units"):
        make()


# ---- CLOSE ---------------------------------------------------------------------------------------------------------


def test_close_with_positions():
    refused(with_book(), CloseWithPositionsError, CloseChannel(0))


def test_close_is_the_last_of_its_batch():
    refused(Desk(), CloseNotLastError, CloseChannel(0), Transfer(0, 1))
    refused(Desk(), CloseNotLastError, CloseChannel(0), CloseChannel(1))


# ---- TRADE ---------------------------------------------------------------------------------------------------------


def test_a_feed_outside_the_markets():
    refused(Desk(), UnknownMarketError, Trade(0, (leg(perpetual(SOL), 1, 100),)), match="SOL")


def test_the_collaterals_feed_is_no_market_by_itself():
    desk = with_collateral_feed(USDC)
    desk.mark(T0, {USDC: dollars(1)})
    refused(desk, UnknownMarketError, Trade(0, (leg(perpetual(USDC), 1, 1),)))


@pytest.mark.parametrize("instrument", [call(), put(), future()])
def test_an_expiry_not_after_the_batch(instrument):
    desk = Desk()
    refused(desk, ExpiredInstrumentError, Trade(0, (leg(instrument, 1, 100),)), at=EXPIRY)
    refused(desk, ExpiredInstrumentError, Trade(0, (leg(instrument, 1, 100),)), at=EXPIRY + 1)
    desk.do(Trade(0, (leg(instrument, 1, 100),)), at=EXPIRY - 0.001)


def test_an_expired_position_is_not_closed_by_trading():
    desk = with_book()
    refused(desk, ExpiredInstrumentError, Trade(0, (leg(call(), -1, 150),)), at=EXPIRY)


def test_an_expiry_off_the_ticks():
    refused(Desk(), ExpiryNotOnTickError, Trade(0, (leg(call(expiry=EXPIRY + 1), 1, 100),)))


def test_an_instrument_named_twice():
    refused(Desk(), RepeatedInstrumentError, Trade(0, (leg(call(), 1, 100), leg(put(), 1, 9), leg(call(), -1, 100))))
    # the same in two TRADEs is two trades
    Desk().do(Trade(0, (leg(call(), 1, 100),)), Trade(0, (leg(call(), -1, 100),)), at=T0)


@pytest.mark.parametrize("sign", [1, -1])
def test_sizes_stay_below_their_bound(sign):
    desk = Desk()
    most = Leg(perpetual(), sign * (MAX_SIZE - 1), 0, 0, 0)
    refused(desk, SizeBoundError, Trade(0, (Leg(perpetual(), sign * MAX_SIZE, 0, 0, 0),)))
    desk.do(Trade(0, (most,)), at=T0)
    refused(desk, SizeBoundError, Trade(0, (Leg(perpetual(), sign, 0, 0, 0),)))
    # from one bound to the other in one leg
    desk.do(Trade(0, (Leg(perpetual(), -2 * sign * (MAX_SIZE - 1), 0, 0, 0),)), at=T0)


def test_at_most_64_positions():
    desk = Desk()
    strikes = [leg(call(2000 + n), 1, 1) for n in range(64)]
    desk.do(Trade(0, tuple(strikes)), at=T0)
    refused(desk, BookLimitError, Trade(0, (leg(call(3000), 1, 1),)), match="65 positions")
    desk.do(Trade(0, (leg(call(3000), 1, 1), leg(call(2000), -1, 1))), at=T0)
    # the rule holds after each operation, not only at the end
    refused(desk, BookLimitError, Trade(0, (leg(call(2000), 1, 1),)), Trade(0, (leg(call(3000), -1, 1),)))


def test_at_most_16_pairs_of_feed_and_expiry():
    desk = Desk()
    desk.do(Trade(0, (*(leg(future(expiry=EXPIRY + 10 * n), 1, 1) for n in range(15)), leg(perpetual(), 1, 1))), at=T0)
    desk.do(Trade(0, (leg(call(), 1, 1),)), at=T0)
    refused(desk, BookLimitError, Trade(0, (leg(perpetual(BTC), 1, 1),)), match="17 distinct")


def test_with_a_collateral_feed_an_empty_book_needs_a_mark_at_most_max_age_before():
    desk = with_collateral_feed()
    trade = Trade(0, (leg(perpetual(), 1, 3000),))
    refused(desk, CollateralNotMarkedError, trade)
    desk.mark(T0, ETH_3000)
    refused(desk, CollateralNotMarkedError, trade, at=T0 + desk.terms.oracle.max_age + 1)
    desk.do(trade, at=T0 + desk.terms.oracle.max_age)
    desk.do(Trade(0, (leg(perpetual(), 1, 3000),)), at=T0 + 1000)  # the book is not empty: no MARK is asked for


def test_in_the_first_seconds_of_the_epoch_a_mark_is_still_needed():
    desk = Desk(make_terms(collateral_feed=ETH, haircut=WAD // 2), funded=0)
    refused(desk, CollateralNotMarkedError, Trade(0, (leg(perpetual(), 1, 3000),)), at=30)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Leg(perpetual(), 0, 1, 0, 0),
        lambda: Leg(perpetual(), 1 << 96, 1, 0, 0),
        lambda: Leg(perpetual(), 1, -1, 0, 0),
        lambda: Leg(perpetual(), 1, 1 << 96, 0, 0),
        lambda: Leg(perpetual(), 1, 1, 5 * WAD + 1, 0),
        lambda: Leg(perpetual(), 1, 1, -5 * WAD - 1, 0),
        lambda: Leg(perpetual(), 1, 1, 0, 1),
        lambda: Leg(call(), 1, 1, 0, WAD // 100 - 1),
        lambda: Leg(call(), 1, 1, 0, 10 * WAD + 1),
        lambda: Trade(0, ()),
        lambda: Trade(0, tuple(leg(call(n), 1, 1) for n in range(1, 66))),
        lambda: Trade(0, (leg(call(), 1, 1),), fee=1 << 127),
        lambda: Trade(0, (leg(call(), 1, 1),), reference=b"x" * 65),
        lambda: Trade(2, (leg(call(), 1, 1),)),
        lambda: Transfer(0, 1, b"x" * 65),
        lambda: Deposit(0, -1, 0),
    ],
)
def test_fields_stay_within_their_bounds(make):
    with pytest.raises(OperationBoundError):
        make()


@pytest.mark.parametrize(
    ("kind", "expiry", "strike"),
    [(Kind.PERPETUAL, 10, 0), (Kind.PERPETUAL, 0, 1), (Kind.FUTURE, 0, 0), (Kind.CALL, 10, 0), (Kind.PUT, 10, 1 << 96)],
)
def test_instruments_that_cannot_be(kind, expiry, strike):
    with pytest.raises(RuleError):
        Instrument(kind, ETH, expiry, strike)


# ---- MARK ----------------------------------------------------------------------------------------------------------


def test_one_mark_in_a_batch():
    desk = with_book()
    marks = [make_mark(desk.terms, desk.body, t, ETH_3000) for t in (T0 + 10, T0 + 20)]
    refused(desk, MarkRepeatedError, *marks, at=T0 + 20)


def test_a_mark_off_the_ticks():
    desk = with_book()
    refused(desk, MarkNotOnTickError, make_mark(desk.terms, desk.body, T0 + 11, ETH_3000), at=T0 + 20)


def test_a_mark_before_as_of_or_at_it_without_a_change():
    desk = with_book()
    desk.mark(T0 + 10, ETH_3000)
    refused(desk, MarkNotLaterError, make_mark(desk.terms, desk.body, T0, ETH_3000), at=T0 + 20)
    refused(desk, MarkNotLaterError, make_mark(desk.terms, desk.body, T0 + 10, ETH_3000), at=T0 + 20)
    # not even another price is a change
    refused(desk, MarkNotLaterError, make_mark(desk.terms, desk.body, T0 + 10, {ETH: dollars(3001)}), at=T0 + 20)


def test_a_mark_after_its_batch():
    desk = with_book()
    refused(desk, MarkAheadError, make_mark(desk.terms, desk.body, T0 + 10, ETH_3000), at=T0 + 9.999)


def test_a_mark_of_a_feed_outside_the_markets():
    refused(with_book(), UnknownMarketError, Mark(0, T0 + 10, (SOL,), packages(SOL, T0 + 10, 1)), at=T0 + 10)


def test_zero_is_no_feed_even_where_the_collateral_has_none():
    refused(with_book(), UnknownMarketError, Mark(0, T0 + 10, (b"\0" * 32,), ()), at=T0 + 10)


def test_a_mark_without_the_collaterals_feed():
    refused(with_collateral_feed(), CollateralPrintMissingError, Mark(0, T0, (), ()))


@pytest.mark.parametrize(("carries", "vols"), [((), ()), ((0,), (0,)), ((0, 0, 0), (0, 6 * 10**17, 6 * 10**17))])
def test_a_mark_lists_carry_and_vol_of_every_position_it_marks(carries, vols):
    mark = Mark(0, T0 + 10, (ETH,), packages(ETH, T0 + 10, dollars(3000)), carries, vols)
    refused(with_book(), MarkShapeError, mark, at=T0 + 10)


def test_a_mark_lists_nothing_of_feeds_it_leaves_out():
    mark = Mark(0, T0 + 10, (), (), (0,), (0,))
    refused(with_book(leg(perpetual(), 1, 3000)), MarkShapeError, mark, at=T0 + 10)


def test_one_carry_for_one_expiry_and_one_vol_for_one_strike():
    desk = with_book(leg(call(), 1, 150), leg(put(), 1, 150))
    vol = 6 * 10**17
    for carries, vols in (((0, 1), (vol, vol)), ((0, 0), (vol, vol + 1))):
        mark = Mark(0, T0 + 10, (ETH,), packages(ETH, T0 + 10, dollars(3000)), carries, vols)
        refused(desk, MarkDisagreementError, mark, at=T0 + 10)


@pytest.mark.parametrize("vols", [(1, 6 * 10**17), (0, 0), (0, 10**16 - 1)])
def test_vols_of_a_mark_fit_their_positions(vols):
    mark = Mark(0, T0 + 10, (ETH,), packages(ETH, T0 + 10, dollars(3000)), (0, 0), vols)
    refused(with_book(leg(perpetual(), 1, 3000), leg(call(), 1, 150)), OperationBoundError, mark, at=T0 + 10)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Mark(0, T0, (ETH, BTC), ()),
        lambda: Mark(0, T0, (ETH, ETH), ()),
        lambda: Mark(0, T0, (b"ETH",), ()),
        lambda: Mark(0, T0, (), (), (0,), ()),
        lambda: Mark(0, T0, (), (), (5 * WAD + 1,), (0,)),
        lambda: Mark(0, T0, (), (), (0,), (10 * WAD + 1,)),
        lambda: Mark(0, T0, (), (b"x" * 4097,)),
        lambda: Mark(0, T0, (), (b"x",) * 1025),
        lambda: Mark(0, T0, (), (), (), (), ((ETH, 10), (ETH, 10))),
        lambda: Mark(0, T0, (), (), (), (), ((ETH, 0),)),
        lambda: Mark(0, -1, (), ()),
    ],
)
def test_a_marks_fields_stay_within_their_bounds(make):
    with pytest.raises(OperationBoundError):
        make()


def _package(private_key=ORACLE_KEYS[0], t=T0 + 10, points=((ETH, 3000 * 10**8),), ms=0):
    return sign_package(private_key, t * 1000 + ms, [DataPoint(*point) for point in points])


@pytest.mark.parametrize(
    ("found", "error"),
    [
        ((), NoQuorumError),
        (packages(ETH, T0 + 10, dollars(3000), signers=1), NoQuorumError),
        (packages(ETH, T0 + 20, dollars(3000)), NoQuorumError),
        (packages(BTC, T0 + 10, dollars(3000)), NoQuorumError),
        (packages(ETH, T0 + 10, 1) + packages(ETH, T0 + 20, 1), StalePackageError),
        (packages(ETH, T0 + 10, 1) + packages(BTC, T0 + 10, 1), UnusedPackageError),
        ((*packages(ETH, T0 + 10, 1), _package(ms=1)), StalePackageError),
        (packages(ETH, T0 + 10, 1) + packages(ETH, T0 + 10, 1), DuplicatePackageError),
        (packages(ETH, T0 + 10, 1) + packages(ETH, T0 + 10, 2), DuplicatePackageError),
        ((*packages(ETH, T0 + 10, 1, signers=2), _package(key("cheater"))), UnknownSignerError),
        ((*packages(ETH, T0 + 10, 1, signers=2), b"nonsense"), MalformedPackageError),
        ((*packages(ETH, T0 + 10, 1, signers=2), _package(ORACLE_KEYS[2])[:-65] + b"\xff" * 65), PackageSignatureError),
    ],
)
def test_packages_that_are_bad_or_too_few_or_too_many(found, error):
    mark = Mark(0, T0 + 10, (ETH,), found, (0, 0), (0, 6 * 10**17))
    refused(with_book(), error, mark, at=T0 + 10)


def test_a_zero_price_is_refused():
    with pytest.raises(ZeroValueError):
        _package(points=((ETH, 0),))


def test_what_has_expired_must_be_settled():
    desk = with_book()
    found = packages(ETH, EXPIRY, dollars(3000))
    # one sample of three is less than half of them
    refused(desk, NoQuorumError, Mark(0, EXPIRY, (ETH,), found, (0,), (0,)), at=EXPIRY, match="fix of ETH")
    refused(desk, NoQuorumError, Mark(0, EXPIRY + 10, (), ()), at=EXPIRY + 10)


def test_flagged_before_grace():
    mark = Mark(0, EXPIRY + GRACE - 10, (), (), (), (), ((ETH, EXPIRY),))
    refused(with_book(leg(call(), 1, 150)), FlaggedTooEarlyError, mark, at=EXPIRY + GRACE)


def test_flagged_though_the_fix_is_there():
    found = fix_packages(make_terms(), ETH, EXPIRY, dollars(3000), signers=2)
    mark = Mark(0, EXPIRY + GRACE, (), found, (), (), ((ETH, EXPIRY),))
    refused(with_book(leg(call(), 1, 150)), FlaggedDespiteFixError, mark, at=EXPIRY + GRACE)


@pytest.mark.parametrize("pair", [(ETH, EXPIRY + 10), (BTC, EXPIRY), (ETH, EXPIRY + 2 * GRACE)])
def test_flagged_where_nothing_expired(pair):
    desk = with_book(leg(call(), 1, 150), leg(call(expiry=EXPIRY + 2 * GRACE), 1, 150))
    mark = Mark(0, EXPIRY + GRACE, (), (), (), (), tuple(sorted(((ETH, EXPIRY), pair))))
    refused(desk, FlaggedNotExpiredError, mark, at=EXPIRY + GRACE)


def test_a_state_that_no_batch_can_make_is_not_built_on():
    desk = with_book(leg(call(), 1, 150))
    desk.state = replace(desk.state, body=replace(desk.body, as_of=EXPIRY + 10))
    refused(desk, PositionPastExpiryError, Transfer(0, 1), at=EXPIRY + 10)


# ---- all of them ---------------------------------------------------------------------------------------------------


def test_every_refusal_has_its_own_code_advice_where_it_helps_and_an_example_here():
    classes = [
        c for _, c in inspect.getmembers(refusals, inspect.isclass) if issubclass(c, RuleError) and c is not RuleError
    ]
    assert len({c.code for c in classes}) == len(classes)
    assert all(2100 <= c.code < 2200 and c.fault is Fault.PEER and c.__doc__ for c in classes)
    assert all(issubclass(c, ChanneldError) and not issubclass(c, OracleError) for c in classes)
    source = inspect.getsource(inspect.getmodule(refused))
    assert [c.__name__ for c in classes if source.count(c.__name__) < 2] == []


def test_the_documentation_lists_every_refusal_with_its_code():
    text = (Path(__file__).resolve().parents[2] / "docs" / "protocol-operations.md").read_text()
    classes = [c for _, c in inspect.getmembers(refusals, inspect.isclass) if issubclass(c, RuleError)]
    assert [c.__name__ for c in classes if c is not RuleError and f"| {c.code} | {c.__name__} |" not in text] == []
