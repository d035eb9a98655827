"""The payment function: total, conserving, within the pot, monotone in the profit; fix times and the fixes needed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channeld.core.eip712 import Close, Withdrawal
from channeld.core.settlement import (
    NO_CALL,
    FixMissingError,
    Ledger,
    MarginCall,
    PotShortError,
    Verdict,
    call_time,
    close_amounts,
    close_out,
    deciding,
    entitlement,
    equity_on_chain,
    fix_time,
    fixes_needed,
    judge,
    may_settle,
    release_amounts,
    settle_amounts,
    settle_with_calls,
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


# --------------------------------------------------------------------------------------- margin calls and the last ways


def short(gain=0, *, fixes=None, t=NOW + 3600, terms=None, deposited=(1000 * 10**6, 600 * 10**6)):
    """The verdict on a perpetual of 2 ETH at 3000, a's 1000 and b's 600 of collateral, the price 3000 + gain."""
    book = body(perpetual(2 * WAD, 3000 * WAD), a=Account(10**9, 10**9, 0), b=Account(6 * 10**8, 6 * 10**8, 0))
    terms = terms or replace(make_terms(), closeout_penalty=3 * WAD // 100)
    found = {(ETH, t): ((3000 + gain) * WAD, 3)} if fixes is None else fixes
    return judge(terms, book, found, t, *deposited, 0, 0)


def test_call_times_are_ticks():
    terms = make_terms(tick=10)
    assert [call_time(terms, NOW + i) for i in (0, 1, 10, 11)] == [NOW + 3600 + x for x in (0, 10, 10, 20)]


def test_a_verdict_names_who_is_below_and_what_it_pays():
    fine, a, b = short(), short(-500), short(250)
    assert (fine.below_a, fine.below_b, fine.penalty, fine.weight, fine.complete) == (False, False, 0, 3, True)
    # scan risk of 10% on 5000, three percent of it
    assert (a.below_a, a.below_b, a.margin_a, a.equity_a, a.penalty) == (True, False, 500 * WAD, 0, 15 * 10**6)
    assert (b.below_a, b.below_b, b.equity_b, b.penalty) == (False, True, 100 * WAD, 3 * b.margin_b // 100 // 10**12)
    both_below = short(-500, deposited=(10**9, -(10**9)))
    assert (both_below.below_a, both_below.below_b, both_below.penalty) == (True, True, 0)
    # a deposit in time
    assert not short(-500, deposited=(1500 * 10**6, 600 * 10**6)).below_a


def test_a_verdict_needs_every_fix_and_counts_each_once():
    with pytest.raises(FixMissingError):
        short(fixes={})
    with pytest.raises(FixMissingError):
        short(fixes={(ETH, NOW + 3600): (0, 0)})
    light = short(fixes={(ETH, NOW + 3600): (3000 * WAD, 2)})
    assert (light.weight, light.complete) == (2, False)
    terms = make_terms(collateral_feed=ETH)
    assert short(terms=terms).weight == 3
    assert judge(make_terms(), body(), {}, NOW, 1, 1, 0, 0) == Verdict(False, False, True, 0)


def test_equity_counts_the_haircut_and_what_was_paid():
    account = Account(100, 80, 30)
    assert equity_on_chain(make_terms(), account, -7, 90, 20, WAD) == (100 - 7 + 10 + 10) * 10**12
    feed = make_terms(collateral_feed=USD)
    assert equity_on_chain(feed, account, -7, 90, 20, WAD // 2) == 113 * (WAD // 2 * 9 // 10) // 10**6


def test_the_first_verdict_with_somebody_below_decides():
    fine = Verdict(below_a=False, below_b=False, complete=True, weight=3)
    a = Verdict(below_a=True, below_b=False, complete=True, weight=3, penalty=7)
    b = replace(a, below_a=False, below_b=True)
    both_below = replace(a, below_b=True, penalty=0)
    book = body(perpetual(1, WAD))

    def first(*verdicts):
        return deciding(book, [MarginCall(NOW + i, verdict) for i, verdict in enumerate(verdicts)])

    assert first() == first(fine, None) == (NO_CALL, 0)
    assert first(fine, a, b) == (1, -7)
    assert first(None, b, a) == (1, 7)
    assert first(both_below, a) == (0, 0)
    assert deciding(body(), [MarginCall(NOW, a)]) == (NO_CALL, 0)


def test_when_settle_may_be_called():
    terms, deadline = make_terms(), NOW + DAY
    d = fix_time(terms, deadline)
    book = body(perpetual(WAD, 3000 * WAD))
    good = Verdict(below_a=False, below_b=False, complete=True, weight=3)
    calls = [MarginCall(NOW + 3600, good)]
    full = {(ETH, d): 3}

    def may(now, calls=calls, weights=full, book=book):
        return may_settle(terms, book, deadline, calls, weights, now)

    assert may(d - 1) == "FixTimeNotReached"
    assert may(d) == may(d, []) == ""
    assert may(d, weights={(ETH, d): 2}) == may(d, weights={}) == "FixesIncomplete"
    assert may(d, [MarginCall(NOW)]) == may(d, [MarginCall(NOW, replace(good, complete=False))]) == "CallsUntested"
    assert may(d, [MarginCall(NOW)], book=body()) == ""
    # the fixes of the deciding time are the ones that count
    decided = [MarginCall(NOW + 3600, replace(good, below_b=True))]
    assert may(d, decided) == "FixesIncomplete"
    assert may(d, decided, {(ETH, NOW + 3600): 3}) == ""
    late = d + terms.oracle.grace
    assert may(late - 1, [], {}) == "FixesIncomplete"
    assert may(late, [MarginCall(NOW)], {}) == ""


def test_a_penalty_moves_between_the_parties_and_stays_within_the_pot():
    terms, deadline, t = make_terms(), NOW + DAY, NOW + 3600
    d = fix_time(terms, deadline)
    book = body(perpetual(WAD, 3000 * WAD), a=Account(10**9, 10**9, 0), b=Account(10**9, 10**9, 0))
    fixes = {(ETH, t): 2900 * WAD, (ETH, d): 3000 * WAD}
    below_a = Verdict(below_a=True, below_b=False, complete=True, weight=3, penalty=5 * 10**6)

    def paid(*verdicts):
        calls = [MarginCall(t, verdict) for verdict in verdicts]
        return settle_with_calls(terms, book, fixes, deadline, calls, 10**9, 10**9, 0, 0)

    assert paid() == paid(None) == (10**9, 10**9)
    assert paid(below_a) == (895 * 10**6, 1105 * 10**6)
    assert paid(replace(below_a, below_a=False, below_b=True)) == (905 * 10**6, 1095 * 10**6)
    assert paid(replace(below_a, penalty=10**30)) == (0, 2 * 10**9)


@given(TOTALS)
def test_a_release_gives_back_what_the_pot_has(totals):
    to_a, to_b = release_amounts(*totals)
    deposited_a, deposited_b, paid_a, paid_b = totals
    assert to_a + to_b == deposited_a + deposited_b - paid_a - paid_b
    assert 0 <= to_a <= max(0, deposited_a - paid_a)
    assert to_b >= 0
