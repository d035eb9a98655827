"""What holds for every batch: conservation, determinism, sorting, path independence; a refusal changes nothing."""

import contextlib
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from strategies import (
    BTC,
    ETH,
    T0,
    Desk,
    batches,
    bodies,
    call,
    future,
    leg,
    make_mark,
    make_terms,
    operations,
    perpetual,
    put,
    words,
)

from channeld.core.eip712 import body_hash
from channeld.core.errors import ChanneldError
from channeld.core.journal import replay
from channeld.core.operations import CloseChannel, Deposit, Trade, Transfer, Withdraw, encode_batch
from channeld.core.state import Body, State
from channeld.core.transition import apply, is_expired
from channeld.core.valuation import profit, to_units, value_position
from channeld.core.wad import WAD

TERMS = make_terms()
FUNDED = 10**15
SOON = (T0 + 100, T0 + 250)
UNIVERSE = [
    perpetual(),
    perpetual(BTC),
    *(make(expiry=expiry) for make in (future, call, put) for expiry in SOON),
    call(3100, expiry=SOON[0]),
    call(60_000, feed=BTC, expiry=SOON[1]),
]
slow = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def check_state(body: Body):
    """The rules of section 4 and 2, said again from the text."""
    assert body.a.balance + body.b.balance == (
        body.a.deposited + body.b.deposited - body.a.withdrawn - body.b.withdrawn
    )
    assert min(body.a.balance, body.b.balance) >= 0
    keys = [(p.instrument.kind, p.instrument.feed, p.instrument.expiry, p.instrument.strike) for p in body.positions]
    assert all(x < y for x, y in pairwise(keys))
    assert all(p.size for p in body.positions)
    assert all(p.instrument.expiry >= body.as_of for p in body.positions if p.instrument.expiry)
    assert len({(p.instrument.feed, p.instrument.expiry, p.carry) for p in body.positions}) == len(
        {(p.instrument.feed, p.instrument.expiry) for p in body.positions}
    )


def refused_or_valid(terms, state, raw):
    """Apply twice: the same outcome both times, a valid state or a typed refusal, and the input as it was."""
    before, fingerprint = state.body, body_hash(state.body)
    outcomes = []
    for _ in range(2):
        try:
            outcomes.append(apply(terms, state, raw))
        except ChanneldError as error:
            outcomes.append((type(error), str(error), error.code))
    assert outcomes[0] == outcomes[1]
    assert state.body is before
    assert body_hash(state.body) == fingerprint
    if isinstance(outcomes[0], tuple):
        assert all(outcomes[0])
        return None
    after = outcomes[0].state
    assert after.version == state.version + 1
    check_state(after.body)
    return outcomes[0]


@given(bodies(), words, st.binary(max_size=300))
@settings(parent=slow, max_examples=100)
def test_arbitrary_bytes_are_refused(body, channel, raw):
    assert refused_or_valid(TERMS, State(channel, 1, body), raw) is None


@given(bodies(max_positions=6), words, batches())
@settings(parent=slow, max_examples=150)
def test_arbitrary_operations_on_arbitrary_states(body, channel, batch):
    refused_or_valid(TERMS, State(channel, 1, body), encode_batch(batch))


@given(st.data())
@settings(parent=slow, max_examples=100)
def test_a_damaged_batch_is_refused_or_another_batch(data):
    desk = Desk()
    desk.do(Trade(0, (leg(call(), 1, 150), leg(perpetual(), 1, 3000))), at=T0)
    mark = make_mark(desk.terms, desk.body, T0 + 10, {ETH: 3000 * 10**8})
    operation = data.draw(st.sampled_from([mark, Trade(0, (leg(put(), 3, 7),), 5, b"note"), Transfer(1, 9)]))
    raw = bytearray(desk.raw(operation, at=T0 + 10))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.just(len(raw)) | st.integers(0, len(raw)))
    refused_or_valid(desk.terms, desk.state, bytes(raw[:cut]))


@given(operations())
@settings(parent=slow, max_examples=50)
def test_arbitrary_operations_on_a_living_channel(operation):
    desk = Desk()
    desk.do(Trade(0, (leg(call(), 1, 150), leg(perpetual(), 1, 3000))), at=T0)
    refused_or_valid(desk.terms, desk.state, desk.raw(operation, at=T0 + 10))


whole_prices = st.sampled_from([2000, 2900, 3000, 3050, 3333, 60_000])
legs_drawn = st.lists(
    st.tuples(st.sampled_from(UNIVERSE), st.integers(-5, 5).filter(bool), st.integers(0, 500)),
    min_size=1,
    max_size=4,
    unique_by=lambda drawn: drawn[0].key,
)
carries_drawn = st.integers(-WAD, WAD)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("trade"), st.integers(0, 1), legs_drawn, carries_drawn),
        st.tuples(st.just("mark"), st.integers(1, 8), whole_prices, whole_prices),
        st.tuples(st.just("mark"), st.integers(1, 8), whole_prices, st.none()),
        st.tuples(st.just("pay"), st.integers(0, 1), st.integers(1, FUNDED // 2)),
        st.tuples(st.just("withdraw"), st.integers(0, 1), st.integers(1, FUNDED // 2)),
        st.tuples(st.just("deposit"), st.integers(0, 10**9), st.integers(0, 10**9)),
        st.tuples(st.just("close"), st.integers(0, 1)),
    ),
    min_size=1,
    max_size=14,
)


def operation_of(step, desk, now):
    """A step as an operation on the desk's state, and the time at which it happens."""
    match step:
        case ("trade", origin, drawn, carry):
            return Trade(origin, tuple(leg(i, size, price, carry) for i, size, price in drawn), 3 * carry // WAD), now
        case ("mark", ticks, eth, btc):
            t = now - now % 10 + 10 * ticks
            prices = {ETH: eth * 10**8} | ({BTC: btc * 10**8} if btc else {})
            expired = [
                p for p in desk.body.positions if is_expired(p.instrument, t) and p.instrument.feed not in prices
            ]
            if expired:
                prices[BTC] = eth * 10**8
            return make_mark(desk.terms, desk.body, t, prices), t
        case ("pay", origin, units):
            return Transfer(origin, units), now
        case ("withdraw", origin, units):
            return Withdraw(origin, units), now
        case ("deposit", more_a, more_b):
            return Deposit(0, desk.body.a.deposited + more_a, desk.body.b.deposited + more_b), now
    return CloseChannel(step[1]), now


@given(steps)
@settings(parent=slow, max_examples=250)
def test_histories(drawn):
    desk = Desk(funded=FUNDED)
    now = T0
    for step in drawn:
        operation, at = operation_of(step, desk, now + 1)
        raw = desk.raw(operation, at=at)
        applied = refused_or_valid(desk.terms, desk.state, raw)
        if applied is not None:
            desk.state, now = applied.state, at
            desk.journal.append((applied.state.version, raw))
        event(f"{step[0]} {'done' if applied else 'refused'}")
    assert replay(desk.terms, desk.state.channel, desk.journal) == desk.state


@given(steps)
@settings(parent=slow, max_examples=250)
def test_what_a_gains_depends_on_its_trades_and_not_on_the_marks_between(drawn):
    """Settled to market, without carry: whatever the path, a has gained sum size * (worth now - price paid)."""
    desk = Desk(funded=FUNDED)
    now, batches_done = T0, 0
    bought: dict = {}  # instrument -> (sum of sizes, sum of size * price), exact
    paid = Fraction(0)  # by expiry, to a
    for step in drawn:
        if step[0] not in {"trade", "mark"}:
            continue
        plain = (*step[:3], 0) if step[0] == "trade" else step
        operation, at = operation_of(plain, desk, now + 1)
        with contextlib.suppress(ChanneldError):
            applied = desk.do(operation, at=at)
            now, batches_done = at, batches_done + 1
            for one in applied.settled:
                size, cost = bought.pop(one.instrument)
                assert size == one.size
                paid += Fraction(one.payoff, WAD) + Fraction(one.size * one.mark - cost, WAD * WAD)
            for one in operation.legs if isinstance(operation, Trade) else ():
                size, cost = bought.get(one.instrument, (0, 0))
                bought[one.instrument] = (size + one.size_delta, cost + one.size_delta * one.price)
    worth = {p.instrument: p.mark for p in desk.body.positions}
    gained = paid + sum(Fraction(size * worth.get(i, 0) - cost, WAD * WAD) for i, (size, cost) in bought.items())
    assert abs(desk.body.a.balance - FUNDED - gained * 10**6) <= batches_done


sizes_drawn = st.lists(st.integers(-(10**21), 10**21), min_size=len(UNIVERSE), max_size=len(UNIVERSE))


@given(sizes_drawn, st.integers(10**8, 10**13), carries_drawn, st.integers(1, 40), st.sampled_from([6, 11, 18]))
@settings(parent=slow, max_examples=60)
def test_a_mark_moves_what_the_chain_would_pay(sizes, price, carry, ticks, decimals):
    """With vols and carries as they are, a MARK moves exactly the profit of section 5, expired positions included."""
    desk = Desk(make_terms(decimals=decimals), funded=10**36)
    traded = tuple(
        replace(leg(i, 1, 100, carry), size_delta=size) for i, size in zip(UNIVERSE, sizes, strict=True) if size
    )
    if not traded:
        return
    desk.do(Trade(0, traded), at=T0)
    t, prices = T0 + 10 * ticks, {ETH: price, BTC: 7 * price}
    before = desk.body
    desk.mark(t, prices)
    spots = [prices[p.instrument.feed] * 10**10 for p in before.positions]
    assert desk.body.a.balance - before.a.balance == to_units(profit(before, spots, t), desk.terms, WAD)


@given(st.integers(2000, 4000), st.integers(1, 9))
@settings(parent=slow, max_examples=20)
def test_after_a_mark_every_position_is_worth_its_mark(price, ticks):
    desk = Desk(funded=FUNDED)
    desk.do(Trade(0, tuple(leg(i, 1, 100) for i in UNIVERSE)), at=T0)
    t = T0 + 10 * ticks
    desk.mark(t, {ETH: price * 10**8, BTC: 20 * price * 10**8})
    spots = {ETH: price * WAD, BTC: 20 * price * WAD}
    assert all(p.mark == value_position(p, spots[p.instrument.feed], t) for p in desk.body.positions)
