"""The payment function: total, conserving, within the pot, monotone in the profit; fix times and the fixes needed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channeld.core.eip712 import Close, Withdrawal
from channeld.core.settlement import (
    Ledger,
    PotShortError,
    close_amounts,
    close_out,
    entitlement,
    fix_time,
    fixes_needed,
    settle_amounts,
    withdraw_amounts,
)
from channeld.core.state import Account, Body, Instrument, Kind, Position, genesis
from channeld.core.terms import Market, Oracle, Party, Terms, feed_id
from channeld.core.valuation import profit
from channeld.core.wad import DAY, WAD

ETH, BTC, USD = feed_id("ETH"), feed_id("BTC"), feed_id("USD")
NOW = 1_750_000_000
CHANNEL = b"\x01" * 32


def make_terms(*, collateral_feed=b"\0" * 32, decimals=6, tick=10, samples=3, gap=20):
    return Terms(
        Party(b"\x01" * 20, b"\x03" * 20),
        Party(b"\x02" * 20, b"\x04" * 20),
        b"\x05" * 20,
        decimals,
        collateral_feed,
        WAD // 10,
        Oracle((b"\x06" * 20,), 1, tick, samples, gap, 60, 7200),
        (Market(ETH, WAD // 10, 0, 0, 0, 0),),
        WAD,
        0,
        DAY,
        3600,
        0,
        b"\0" * 32,
    )


def body(*positions, a=None, b=None, mark=WAD):
    return Body(NOW, mark, CHANNEL, a or Account(100, 100, 0), b or Account(100, 100, 0), positions)


def perpetual(size, mark, carry=0, feed=ETH):
    return Position(Instrument(Kind.PERPETUAL, feed, 0, 0), size, mark, carry, 0)


def call(expiry, *, feed=ETH, strike=3000 * WAD):
    return Position(Instrument(Kind.CALL, feed, expiry, strike), WAD, 100 * WAD, 0, WAD // 2)


MONEY = st.integers(0, 2**127)
TOTALS = st.tuples(MONEY, MONEY, MONEY, MONEY).filter(lambda t: t[0] + t[1] >= t[2] + t[3])


@given(st.builds(Account, MONEY, MONEY, MONEY), st.integers(-(2**250), 2**250), st.integers(0, 2**250), TOTALS)
def test_payment_is_total_conserving_within_the_pot_and_monotone(account, gain, more, totals):
    ledger = Ledger(*totals)
    names = dict(zip(("deposited_a", "deposited_b", "paid_a", "paid_b"), totals, strict=True))
    to_a, to_b = entitlement(account, gain, **names)
    assert 0 <= to_a <= ledger.pot
    assert to_a + to_b == ledger.pot
    assert entitlement(account, gain + more, **names)[0] >= to_a
    assert ledger.pay(to_a, to_b).pot == 0


@given(st.integers(0, 10**12), st.integers(1, 600), st.integers(1, 10), st.integers(0, 5))
def test_the_fix_time_is_the_first_tick_at_or_after_deadline_and_samples(deadline, tick, samples, gap):
    samples = samples if gap else 1
    if samples * gap * tick > 3600:
        return
    terms = make_terms(tick=tick, samples=samples, gap=gap * tick)
    earliest = deadline + samples * gap * tick
    t = fix_time(terms, deadline)
    assert t % tick == 0
    assert earliest <= t < earliest + tick


def test_fixes_needed():
    t = NOW + DAY
    terms = make_terms(collateral_feed=USD)
    book = body(perpetual(1, WAD), call(NOW + 60), call(NOW + 60, strike=4000 * WAD), call(t), call(t + 10), a=None)
    assert fixes_needed(terms, book, t) == ((ETH, t), (ETH, NOW + 60), (USD, t))
    assert fixes_needed(make_terms(), book, t) == ((ETH, t), (ETH, NOW + 60))
    assert fixes_needed(terms, body(), t) == ()
    # the collateral's own feed is asked for once
    assert fixes_needed(make_terms(collateral_feed=ETH), book, t) == ((ETH, t), (ETH, NOW + 60))


def test_close_out_converts_once_and_toward_zero():
    t = NOW + DAY
    book = body(perpetual(-1, 3000 * WAD), perpetual(10**12 + 1, 3000 * WAD, feed=feed_id("ZZZ")))
    fixes = {(ETH, t): 3001 * WAD, (feed_id("ZZZ"), t): 2999 * WAD}
    gain = profit(book, [3001 * WAD, 2999 * WAD], t)
    assert gain == -1 - (10**12 + 1)
    assert close_out(make_terms(), book, fixes, t) == -1
    assert close_out(make_terms(decimals=18), book, fixes, t) == gain
    feed = make_terms(collateral_feed=USD)
    assert close_out(feed, book, fixes | {(USD, t): WAD // 4}, t) == -4
    # without the collateral's fix its mark serves
    assert close_out(feed, body(*book.positions, mark=WAD // 2), fixes | {(USD, t): None}, t) == -2


@pytest.mark.parametrize("absent", [{}, {(ETH, NOW + DAY): None}, {(ETH, NOW + DAY): 0}])
def test_a_position_without_its_fix_pays_only_its_funding(absent):
    book = body(perpetual(WAD, 365 * WAD, WAD))
    assert close_out(make_terms(), book, absent, NOW + DAY) == -(10**6)


def test_an_expired_position_is_paid_at_its_own_fix():
    t = NOW + DAY
    book = body(call(NOW + 60), a=Account(10**9, 10**9, 0))
    fixes = {(ETH, NOW + 60): 3150 * WAD, (ETH, t): 9999 * WAD}
    assert settle_amounts(make_terms(), book, fixes, t, 10**9, 100, 0, 0) == (10**9 + 100, 0)
    assert close_out(make_terms(), book, fixes, t) == 50 * 10**6


def test_version_zero_gives_every_depositor_its_own():
    assert settle_amounts(make_terms(), genesis(CHANNEL).body, {}, NOW, 7, 5, 0, 0) == (7, 5)


def test_close_counts_what_was_not_acknowledged_and_not_yet_paid():
    close = Close(CHANNEL, 3, NOW, Account(4, 10, 3), Account(3, 0, 0))
    assert close_amounts(close, 1000, 600, 1, 0) == (4 + 990 + 2, 603)


def test_withdrawals_pay_the_difference_or_nothing():
    def withdrawal(a, b):
        return Withdrawal(CHANNEL, 1, b"\0" * 32, a, b)

    assert withdraw_amounts(withdrawal(5, 7), 10, 10, 2, 9) == (3, 0)
    ledger = Ledger().deposit(0, 10).deposit(1, 4).withdraw(withdrawal(8, 6))
    assert (ledger.totals, ledger.pot) == ((10, 4, 8, 6), 0)
    with pytest.raises(PotShortError) as error:
        ledger.withdraw(withdrawal(9, 6))
    assert error.value.details == {"asked": 1, "pot": 0}


def test_a_ledger_ends_empty():
    ledger = Ledger().deposit(0, 10).deposit(1, 4)
    assert ledger.settle(make_terms(), genesis(CHANNEL).body, {}, NOW).totals == (10, 4, 10, 4)
    assert ledger.close(Close(CHANNEL, 0, NOW, Account(), Account())).totals == (10, 4, 10, 4)
