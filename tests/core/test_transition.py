"""The six operations, each by example with figures worked out by hand."""

import pytest
from strategies import (
    BTC,
    DOMAIN,
    ETH,
    EXPIRY,
    GRACE,
    T0,
    USDC,
    Desk,
    call,
    dollars,
    fix_packages,
    future,
    leg,
    make_mark,
    make_terms,
    packages,
    perpetual,
    put,
)

from channeld.core.eip712 import channel_id
from channeld.core.operations import CloseChannel, Deposit, Leg, Mark, Trade, Transfer, Withdraw
from channeld.core.state import Account, genesis
from channeld.core.transition import apply, mark_needs, next_journal, positions_carried
from channeld.core.valuation import funding, value
from channeld.core.wad import WAD, YEAR, sdiv

FUNDED = 1_000_000 * 10**6
USD = 10**6
ETH_3000 = {ETH: dollars(3000)}


def balances(desk):
    return desk.body.a.balance, desk.body.b.balance


# ---- payments ------------------------------------------------------------------------------------------------------


def test_deposits_are_cumulative_totals():
    desk = Desk(funded=0)
    desk.do(Deposit(0, 5, 0), at=T0)
    desk.do(Deposit(1, 5, 7), Deposit(0, 9, 7), at=T0)
    assert desk.body.a == Account(9, 9, 0)
    assert desk.body.b == Account(7, 7, 0)
    assert desk.body.as_of == 0


def test_a_transfer_goes_from_its_origin_to_the_other():
    desk = Desk()
    desk.do(Transfer(0, 3, b"rent"), Transfer(1, 10), at=T0)
    assert balances(desk) == (FUNDED + 7, FUNDED - 7)


def test_a_withdrawal_moves_its_origins_balance_to_withdrawn():
    desk = Desk()
    desk.do(Withdraw(1, 400), at=T0)
    assert desk.body.b == Account(FUNDED - 400, FUNDED, 400)
    assert desk.body.a == Account(FUNDED, FUNDED, 0)


def test_balances_may_be_negative_inside_a_batch():
    desk = Desk()
    desk.do(Transfer(0, FUNDED + 5), Transfer(1, 10), at=T0)
    assert balances(desk) == (5, 2 * FUNDED - 5)


def test_a_close_changes_nothing_and_asks_to_close():
    desk = Desk()
    before = desk.body
    applied = desk.do(CloseChannel(1), at=T0)
    assert applied.closing
    assert (desk.body.a, desk.body.b, desk.body.as_of) == (before.a, before.b, before.as_of)


def test_an_empty_batch_changes_the_journal_alone():
    desk = Desk()
    before, raw = desk.state, desk.raw(at=T0)
    after = apply(desk.terms, before, raw, before.version + 65)
    assert not after.closing
    assert after.state.version == before.version + 65
    assert after.state.body.journal == next_journal(before.body.journal, before.version + 65, raw)
    assert (after.state.body.a, after.state.body.positions) == (before.body.a, before.body.positions)


# ---- TRADE ---------------------------------------------------------------------------------------------------------


def test_a_new_position_takes_its_price_as_mark_and_moves_no_cash():
    desk = Desk()
    desk.do(Trade(0, (leg(call(), 10, 150),)), at=T0 + 5.9)
    (position,) = desk.body.positions
    assert (position.instrument, position.size, position.mark) == (call(), 10 * WAD, 150 * WAD)
    assert (position.carry, position.vol) == (0, 6 * WAD // 10)
    assert balances(desk) == (FUNDED, FUNDED)


def test_into_an_empty_book_as_of_is_the_batchs_second():
    desk = Desk()
    desk.do(Trade(0, (leg(call(), 10, 150),)), at=T0 + 5.9)
    assert desk.body.as_of == T0 + 5
    desk.do(Trade(0, (leg(put(), 10, 150),)), at=T0 + 8)
    assert desk.body.as_of == T0 + 5  # not empty any more
    desk.do(Trade(0, (leg(call(), -10, 150), leg(put(), -10, 150))), at=T0 + 9)
    assert not desk.body.positions
    desk.do(Trade(0, (leg(call(), 1, 150),)), at=T0 + 30)
    assert desk.body.as_of == T0 + 30


def test_emptiness_is_judged_after_each_operation():
    desk = Desk()
    desk.do(Trade(0, (leg(call(), 1, 150),)), at=T0)
    # one TRADE that closes and reopens finds the book full; two find it empty in between
    desk.do(Trade(0, (leg(call(), -1, 150), leg(put(), 1, 150))), at=T0 + 10)
    assert desk.body.as_of == T0
    desk.do(Trade(0, (leg(put(), -1, 150),)), Trade(0, (leg(call(), 1, 150),)), at=T0 + 20)
    assert desk.body.as_of == T0 + 20


@pytest.mark.parametrize(("size", "price", "gain"), [(10, 140, 100), (-10, 140, -100), (-4, 175, 100), (7, 150, 0)])
def test_on_an_existing_position_a_gains_the_size_times_mark_less_price(size, price, gain):
    desk = Desk()
    desk.do(Trade(0, (leg(call(), 4, 150),)), at=T0)
    desk.do(Trade(1, (leg(call(), size, price),)), at=T0 + 1)
    assert balances(desk) == (FUNDED + gain * USD, FUNDED - gain * USD)
    if size != -4:
        assert desk.body.positions[0].size == (4 + size) * WAD
        assert desk.body.positions[0].mark == 150 * WAD
    else:
        assert desk.body.positions == ()


def test_cash_is_summed_in_wads_and_converted_once():
    desk = Desk()
    instruments = (call(2900), call(3000), call(3100))
    desk.do(Trade(0, tuple(leg(i, 1, 100) for i in instruments)), at=T0)
    # each leg alone gains 0.4 units and would be truncated to nothing; together they gain 1.2
    legs = tuple(Leg(i, WAD, 100 * WAD - 4 * 10**11, 0, 6 * WAD // 10) for i in instruments)
    desk.do(Trade(0, legs), at=T0)
    assert balances(desk) == (FUNDED + 1, FUNDED - 1)
    # toward zero on either side
    legs = tuple(Leg(i, WAD, 100 * WAD + 6 * 10**11, 0, 6 * WAD // 10) for i in instruments)
    desk.do(Trade(0, legs), at=T0)
    assert balances(desk) == (FUNDED, FUNDED)


@pytest.mark.parametrize("size", [1, -1])
def test_half_a_wad_is_cut_toward_zero_for_both(size):
    desk = Desk(make_terms(decimals=18))
    desk.do(Trade(0, (leg(perpetual(), 5, 3000),)), at=T0)
    for price in (2999 * WAD + WAD // 2, 3000 * WAD + WAD // 2):
        desk.do(Trade(0, (Leg(perpetual(), size, price, 0, 0),)), at=T0)
        assert balances(desk) == (FUNDED, FUNDED)


def test_a_fee_moves_units_from_a_to_b_and_back_when_negative():
    desk = Desk()
    desk.do(Trade(1, (leg(call(), 1, 150),), fee=25), at=T0)
    assert balances(desk) == (FUNDED - 25, FUNDED + 25)
    desk.do(Trade(0, (leg(call(), 1, 150),), fee=-30), at=T0)
    assert balances(desk) == (FUNDED + 5, FUNDED - 5)


def test_carry_and_vol_agreed_for_expiry_and_strike_stand():
    desk = Desk()
    desk.do(Trade(0, (leg(call(), 1, 150, carry=10**17, vol=5 * 10**17),)), at=T0)
    desk.do(
        Trade(
            0,
            (
                leg(put(), 1, 150, carry=-(10**17), vol=9 * 10**17),  # the same strike: both stand
                leg(call(3500), 1, 50, carry=-(10**17), vol=9 * 10**17),  # another strike: its own vol
                leg(future(), 1, 3000, carry=-(10**17)),
                leg(call(3000, expiry=EXPIRY + 10), 1, 150, carry=3 * 10**17, vol=7 * 10**17),  # another expiry
                leg(call(3000, feed=BTC), 1, 150, carry=4 * 10**17, vol=8 * 10**17),  # another feed
            ),
        ),
        at=T0,
    )
    agreed = {p.instrument: (p.carry, p.vol) for p in desk.body.positions}
    assert agreed == {
        call(): (10**17, 5 * 10**17),
        put(): (10**17, 5 * 10**17),
        call(3500): (10**17, 9 * 10**17),
        future(): (10**17, 0),
        call(3000, expiry=EXPIRY + 10): (3 * 10**17, 7 * 10**17),
        call(3000, feed=BTC): (4 * 10**17, 8 * 10**17),
    }


def test_legs_see_the_earlier_ones_and_what_reached_zero_until_the_operation_ends():
    desk = Desk()
    first = leg(call(3100), 1, 150, carry=10**17, vol=5 * 10**17)
    second = leg(put(3100), 1, 150, carry=2 * 10**17, vol=7 * 10**17)
    desk.do(Trade(0, (first, second)), at=T0)
    assert {(p.carry, p.vol) for p in desk.body.positions} == {(10**17, 5 * 10**17)}
    # both go to zero, and a third comes, in one TRADE: what was agreed still holds
    out = (leg(call(3100), -1, 150), leg(put(3100), -1, 150), leg(future(), 1, 3000, carry=3 * 10**17))
    desk.do(Trade(0, out), at=T0)
    assert [p.carry for p in desk.body.positions] == [10**17]
    # in two TRADEs it is forgotten
    desk.do(Trade(0, (leg(future(), -1, 3000),)), Trade(0, (leg(future(), 1, 3000, carry=3 * 10**17),)), at=T0)
    assert [p.carry for p in desk.body.positions] == [3 * 10**17]


def test_positions_are_sorted_whatever_the_order_of_trading():
    desk = Desk()
    instruments = [put(), call(3100), call(2900), future(BTC), perpetual(), perpetual(BTC), call(3000, feed=BTC)]
    desk.do(Trade(0, tuple(leg(i, 1, 10) for i in instruments)), at=T0)
    keys = [p.key for p in desk.body.positions]
    assert keys == sorted(i.key for i in instruments)


# ---- funding -------------------------------------------------------------------------------------------------------


def test_a_trade_in_a_perpetual_is_paid_back_the_funding_of_the_time_before_it():
    desk = Desk()
    carry = 365 * WAD // 1000  # 0.1% a day, paid by longs
    desk.do(Trade(0, (leg(perpetual(), 10, 3000, carry=carry),)), at=T0)
    desk.do(Trade(0, (leg(perpetual(), 10, 3000),)), at=T0 + 43_200)
    back = sdiv(funding(10 * WAD, 3000 * WAD, carry, 43_200), 10**12)
    assert back == 15 * USD  # 30,000 at 0.1% a day, half a day
    assert balances(desk) == (FUNDED + back, FUNDED - back)
    # the next MARK charges the whole size for the whole day
    desk.mark(T0 + 86_400, ETH_3000)
    assert balances(desk) == (FUNDED + back - 60 * USD, FUNDED - back + 60 * USD)


def test_a_round_trip_within_one_mark_pays_funding_for_the_time_it_was_held():
    desk = Desk()
    carry = 365 * WAD // 1000
    desk.do(Trade(0, (leg(call(), 1, 150),)), at=T0)  # something that keeps the book open
    desk.do(Trade(0, (leg(perpetual(), 10, 3000, carry=carry),)), at=T0 + 10_000)
    desk.do(Trade(0, (leg(perpetual(), -10, 3000),)), at=T0 + 53_200)
    assert balances(desk) == (FUNDED - 15 * USD, FUNDED + 15 * USD)


def test_negative_funding_is_paid_by_shorts():
    desk = Desk()
    desk.do(Trade(0, (leg(perpetual(), 10, 3000, carry=-365 * WAD // 1000),)), at=T0)
    desk.mark(T0 + 86_400, ETH_3000)
    assert balances(desk) == (FUNDED + 30 * USD, FUNDED - 30 * USD)


# ---- MARK ----------------------------------------------------------------------------------------------------------


def test_a_mark_moves_the_cash_and_leaves_positions_worth_their_marks():
    desk = Desk()
    desk.do(Trade(0, (leg(perpetual(), 2, 3000), leg(call(), -5, 150))), at=T0)
    applied = desk.mark(T0 + 60, {ETH: dollars(3100)})
    worth = value(2, 3100 * WAD, 3000 * WAD, 0, 6 * WAD // 10, EXPIRY - T0 - 60)
    gain = sdiv(200 * WAD - 5 * (worth - 150 * WAD), 10**12)
    assert balances(desk) == (FUNDED + gain, FUNDED - gain)
    assert [p.mark for p in desk.body.positions] == [3100 * WAD, worth]
    assert desk.body.as_of == T0 + 60
    assert desk.body.collateral_mark == WAD
    assert applied.settled == ()


def test_a_mark_takes_new_carries_and_vols():
    desk = Desk()
    desk.do(Trade(0, (leg(perpetual(), 1, 3000), leg(call(), 1, 150), leg(put(), 1, 150))), at=T0)
    carries = {(ETH, 0): 10**16, (ETH, EXPIRY): 2 * 10**16}
    desk.mark(T0 + 60, ETH_3000, carries=carries, vols={(ETH, EXPIRY, 3000 * WAD): 7 * 10**17})
    assert [(p.carry, p.vol) for p in desk.body.positions] == [
        (10**16, 0),
        (2 * 10**16, 7 * 10**17),
        (2 * 10**16, 7 * 10**17),
    ]
    worth = value(2, 3000 * WAD, 3000 * WAD, 2 * 10**16, 7 * 10**17, EXPIRY - T0 - 60)
    assert desk.body.positions[1].mark == worth
    # the funding accrued at the old carry of zero
    gain = sdiv(desk.body.positions[1].mark + desk.body.positions[2].mark - 300 * WAD, 10**12)
    assert balances(desk) == (FUNDED + gain, FUNDED - gain)


def test_a_mark_of_some_feeds_leaves_the_others_at_their_marks_but_accrues_their_funding():
    desk = Desk()
    carry = 365 * WAD // 1000
    desk.do(Trade(0, (leg(perpetual(), 1, 3000), leg(perpetual(BTC), 1, 60_000, carry=carry))), at=T0)
    desk.mark(T0 + 86_400, {ETH: dollars(3100)})
    marks = {p.instrument.feed: p.mark for p in desk.body.positions}
    assert marks == {ETH: 3100 * WAD, BTC: 60_000 * WAD}
    assert balances(desk) == (FUNDED + 40 * USD, FUNDED - 40 * USD)
    # what is left to accrue starts at asOf: nothing is charged twice
    desk.mark(T0 + 86_400 + 10, {BTC: dollars(60_000)})
    ten_seconds = sdiv(funding(WAD, 60_000 * WAD, carry, 10), 10**12)
    assert balances(desk) == (FUNDED + 40 * USD - ten_seconds, FUNDED - 40 * USD + ten_seconds)


def test_a_mark_at_as_of_itself_may_change_a_vol():
    desk = Desk()
    desk.do(Trade(0, (leg(call(), 1, 150),)), at=T0)
    desk.mark(T0 + 10, ETH_3000)
    mark = make_mark(desk.terms, desk.body, T0 + 10, ETH_3000, vols={(ETH, EXPIRY, 3000 * WAD): 8 * 10**17})
    desk.do(mark, at=T0 + 12)
    assert desk.body.positions[0].vol == 8 * 10**17
    assert desk.body.as_of == T0 + 10


def test_a_mark_without_any_feed_passes_time():
    desk = Desk()
    carry = 365 * WAD // 1000
    desk.do(Trade(0, (leg(perpetual(), 1, 3000, carry=carry),)), at=T0)
    desk.do(Mark(0, T0 + 86_400, (), ()), at=T0 + 86_400)
    assert balances(desk) == (FUNDED - 3 * USD, FUNDED + 3 * USD)
    assert desk.body.as_of == T0 + 86_400


def test_operations_apply_in_order():
    desk = Desk()
    desk.do(Trade(0, (leg(perpetual(), 1, 3000),)), at=T0)
    mark = make_mark(desk.terms, desk.body, T0 + 10, {ETH: dollars(3100)})
    first = apply(desk.terms, desk.state, desk.raw(mark, Trade(0, (leg(perpetual(), 1, 3050),)), at=T0 + 10))
    second = apply(desk.terms, desk.state, desk.raw(Trade(0, (leg(perpetual(), 1, 3050),)), mark, at=T0 + 10))
    # marked first: 100, then 50 for buying below the mark; traded first: the mark is 3000, -50, then 2 * 100
    assert first.state.body.a.balance == FUNDED + 150 * USD
    assert second.state.body.a.balance == FUNDED + 150 * USD
    assert first.state.body.positions == second.state.body.positions


# ---- expiry --------------------------------------------------------------------------------------------------------


def test_what_has_expired_is_settled_at_its_fix():
    desk = Desk()
    trades = (leg(call(2800), 3, 250), leg(put(3200), -2, 250), leg(future(), 1, 3000), leg(perpetual(), 1, 3000))
    desk.do(Trade(0, trades), at=T0)
    applied = desk.mark(EXPIRY + 10, {ETH: dollars(3050)})
    payoffs = {s.instrument: s.payoff for s in applied.settled}
    assert payoffs == {call(2800): 0, put(3200): 2 * 100 * WAD, future(): 50 * WAD}
    assert all((s.fix, s.flagged) == (3050 * WAD, False) for s in applied.settled)
    assert [p.instrument for p in desk.body.positions] == [perpetual()]
    assert balances(desk) == (FUNDED + 300 * USD, FUNDED - 300 * USD)  # and 50 on the perpetual


def test_at_the_expiry_itself_one_print_serves_the_mark_and_the_fix():
    desk = Desk()
    desk.do(Trade(0, (leg(call(2800), 1, 250), leg(perpetual(), 1, 3000))), at=T0)
    fixes = fix_packages(desk.terms, ETH, EXPIRY, dollars(3000))
    desk.do(Mark(0, EXPIRY, (ETH,), fixes, (0,), (0,)), at=EXPIRY)
    assert desk.body.as_of == EXPIRY
    assert balances(desk) == (FUNDED - 50 * USD, FUNDED + 50 * USD)


def test_the_fix_is_the_mean_of_its_samples():
    desk = Desk()
    desk.do(Trade(0, (leg(future(), 1, 3000),)), at=T0)
    samples = [(EXPIRY, 3000), (EXPIRY - 10, 3030), (EXPIRY - 20, 3001)]
    found = tuple(p for t, price in samples for p in packages(ETH, t, dollars(price), signers=2))
    applied = desk.do(Mark(0, EXPIRY + 10, (), found), at=EXPIRY + 10)
    assert applied.settled[0].fix == (3000 + 3030 + 3001) * WAD // 3
    assert desk.body.positions == ()


def test_from_grace_on_a_position_without_a_fix_is_settled_flagged_at_its_mark():
    desk = Desk()
    desk.do(Trade(0, (leg(call(2800), 1, 250), leg(perpetual(), 1, 3000))), at=T0)
    t = EXPIRY + GRACE
    found = packages(ETH, t, dollars(3000)) + packages(ETH, EXPIRY, dollars(3000), signers=1)
    applied = desk.do(Mark(0, t, (ETH,), found, (0,), (0,), ((ETH, EXPIRY),)), at=t)
    (settled,) = applied.settled
    assert (settled.fix, settled.payoff, settled.flagged, settled.mark) == (None, 0, True, 250 * WAD)
    assert balances(desk) == (FUNDED, FUNDED)


def test_from_grace_on_a_fix_that_is_there_still_settles():
    desk = Desk()
    desk.do(Trade(0, (leg(call(2800), 1, 250),)), at=T0)
    applied = desk.mark(EXPIRY + 2 * GRACE, ETH_3000)
    assert applied.settled[0].payoff == -50 * WAD


def test_what_a_mark_needs_is_told():
    desk = Desk()
    desk.do(Trade(0, (leg(call(), 1, 150), leg(put(2500, feed=BTC, expiry=EXPIRY + 10), 1, 9))), at=T0)
    needs = mark_needs(desk.terms, desk.body, EXPIRY)
    assert (needs.prints, needs.fixes) == ((BTC,), ((ETH, EXPIRY),))
    carried = positions_carried(desk.body, (BTC, ETH), EXPIRY)
    assert [p.instrument.feed for p in carried] == [BTC]


# ---- collateral with a feed ----------------------------------------------------------------------------------------


def ether_desk():
    """A channel whose collateral is an ether-like token of 18 decimals, priced by the ETH feed."""
    terms = make_terms(collateral_feed=ETH, decimals=18, haircut=2 * WAD // 10)
    return Desk(terms, funded=100 * WAD)


def test_with_a_collateral_feed_cash_is_converted_at_the_new_collateral_mark():
    desk = ether_desk()
    desk.mark(T0, {ETH: dollars(2000)})
    assert desk.body.collateral_mark == 2000 * WAD
    desk.do(Trade(0, (leg(perpetual(BTC), 1, 60_000),)), at=T0 + 5)
    desk.mark(T0 + 10, {ETH: dollars(2500), BTC: dollars(61_000)})
    assert desk.body.collateral_mark == 2500 * WAD
    assert balances(desk) == (100 * WAD + 4 * WAD // 10, 100 * WAD - 4 * WAD // 10)
    # a TRADE's cash is converted at the state's collateralMark
    desk.do(Trade(0, (leg(perpetual(BTC), -1, 62_000),)), at=T0 + 15)
    assert balances(desk) == (100 * WAD + 8 * WAD // 10, 100 * WAD - 8 * WAD // 10)


def test_a_collateral_feed_outside_the_markets_may_be_marked():
    terms = make_terms(collateral_feed=USDC, haircut=10**16)
    desk = Desk(terms)
    desk.mark(T0, {USDC: dollars(0.99)})
    assert desk.body.collateral_mark == 99 * 10**16
    desk.do(Trade(0, (leg(perpetual(), 99, 3000),)), at=T0 + 1)
    desk.mark(T0 + 10, {USDC: dollars(0.99), ETH: dollars(3001)})
    assert balances(desk) == (FUNDED + 100 * USD, FUNDED - 100 * USD)


def test_with_a_collateral_feed_a_trade_into_an_empty_book_follows_a_mark():
    desk = ether_desk()
    mark = make_mark(desk.terms, desk.body, T0, {ETH: dollars(2000)})
    desk.do(mark, Trade(0, (leg(perpetual(), 1, 2000),)), at=T0 + 60)
    assert desk.body.as_of == T0 + 60
    assert desk.body.collateral_mark == 2000 * WAD


# ---- versions and the journal --------------------------------------------------------------------------------------


def test_the_journal_chains_version_and_exact_bytes():
    terms = make_terms()
    start = genesis(channel_id(DOMAIN, terms))
    raw = Desk(terms, funded=0).raw(Deposit(0, 1, 1), at=T0)
    after = apply(terms, start, raw).state
    assert after.version == 1
    assert after.body.journal == next_journal(start.channel, 1, raw)
    assert apply(terms, start, raw, 2**32).state.body.journal == next_journal(start.channel, 2**32, raw)


def test_a_year_of_marks_drifts_by_no_more_than_their_rounding():
    desk = Desk()
    carry = 365 * WAD // 1000
    desk.do(Trade(0, (leg(perpetual(), 1, 3000, carry=carry),)), at=T0)
    for day in range(1, 366):
        desk.mark(T0 + day * 86_400, ETH_3000)
    paid = FUNDED - desk.body.a.balance
    exact = sdiv(funding(WAD, 3000 * WAD, carry, YEAR), 10**12)
    assert exact - 365 <= paid <= exact
