"""The Lens: what it says is what the Adjudicator does, and what core computes."""

import pytest
from contracts_harness import (
    BTC,
    ETH,
    NOW,
    USD,
    Account,
    Channel,
    Kind,
    World,
    make_market,
    make_terms,
    option,
    perpetual,
    refused,
)

from channeld.core.margin import both
from channeld.core.settlement import fix_time, fixes_needed
from channeld.core.wad import DAY, WAD

ONE = 1_000_000
A, B = Account(1000 * ONE, 1000 * ONE, 0), Account(600 * ONE, 600 * ONE, 0)
DEADLINE = NOW + 86_400
REASONS = ["reason", "until", "fix_time", "call", "complete", "profit", "penalty", "to_a", "to_b"]


def quote(channel, body):
    return channel.world.lens.quote_settlement(channel.terms, body)


def prove(channel, t, price, count=3):
    channel.world.prove(channel.terms, ETH, t, [price * 10**8] * count)


def test_a_quote_says_why_settle_would_not_pay_and_then_what_it_pays(funded):
    body = funded.body(A, B, (perpetual(ETH, 2 * WAD, 3000 * WAD),))
    unopened = Channel(funded.world, make_terms(funded.world.token.address, salt=b"\x0e" * 32))
    assert quote(unopened, body).reason == "UnknownChannel"
    assert quote(funded, body).reason == "NotInDispute"
    chain, grace = funded.world.chain, funded.terms.oracle.grace
    time = funded.call_margin(3, body).time
    d = fix_time(funded.terms, DEADLINE)
    assert quote(funded, funded.genesis).reason == "BodyNotOnRecord"

    def check(reason, until):
        found = quote(funded, body)
        assert (found.reason, found.until) == (reason, until)
        if reason:
            with refused(reason):
                funded.settle(body)
            return found
        with chain.anchored():
            settled = funded.settle(body)
        assert [getattr(found, n) for n in REASONS[2:]] == [getattr(settled, n) for n in REASONS[2:]]
        return found

    check("FixTimeNotReached", d)
    chain.set_time(d)
    check("CallsUntested", d + grace)
    prove(funded, time, 3000)
    funded.test(body)
    assert check("FixesIncomplete", d + grace).to_a == 1000 * ONE
    prove(funded, d, 2900, count=2)
    # not payable yet, and already what it comes to
    assert check("FixesIncomplete", d + grace).to_a == 800 * ONE
    with chain.anchored():
        chain.set_time(d + grace)
        assert not check("", 0).complete
    prove(funded, d, 2900)
    assert check("", 0).to_a == 800 * ONE
    funded.settle(body)
    assert quote(funded, body).reason == "ChannelEnded"


@pytest.mark.parametrize(("price", "call"), [(2500, 0), (3250, 0), (3000, 255)])
def test_a_quote_knows_the_verdicts(funded, price, call):
    body = funded.body(A, B, (perpetual(ETH, 2 * WAD, 3000 * WAD),))
    time = funded.call_margin(3, body).time
    d = fix_time(funded.terms, DEADLINE)
    funded.world.chain.set_time(d)
    prove(funded, time, price)
    prove(funded, d, 2950)
    funded.test(body)
    found = quote(funded, body)
    assert (found.reason, found.call, found.fix_time) == ("", call, time if call == 0 else d)
    settled = funded.settle(body)
    assert [getattr(found, n) for n in REASONS[2:]] == [getattr(settled, n) for n in REASONS[2:]]


def test_an_empty_book_is_quoted_at_d(funded):
    funded.call_margin(3, funded.body(A, B))
    funded.world.chain.set_time(fix_time(funded.terms, DEADLINE))
    found = quote(funded, funded.body(A, B))
    assert (found.reason, found.call, found.to_a, found.complete) == ("", 255, 1000 * ONE, True)


@pytest.fixture
def mixed(world):
    """A channel with a collateral feed, and a book of every kind, part of it expired."""
    terms = make_terms(
        world.token.address, collateral_feed=USD, haircut=WAD // 5, markets=tuple(map(make_market, (BTC, ETH, USD)))
    )
    channel = Channel(world, terms).open()
    positions = (
        perpetual(BTC, -(WAD // 100), 64_000 * WAD, WAD // 10),
        perpetual(ETH, WAD, 3000 * WAD),
        option(Kind.FUTURE, ETH, NOW + 30 * DAY, 0, -WAD, 3010 * WAD, vol=0, carry=WAD // 20),
        option(Kind.CALL, BTC, NOW + 1800, 60_000 * WAD, -(WAD // 100), 900 * WAD),
        option(Kind.PUT, ETH, NOW + DAY, 2900 * WAD, WAD // 2, 200 * WAD),
        option(Kind.PUT, ETH, NOW + 40 * DAY, 2900 * WAD, -(WAD // 2), 210 * WAD),
    )
    return channel, channel.body(A, B, positions, collateral_mark=98 * WAD // 100)


def test_fixes_needed_with_what_is_known_of_them(mixed):
    channel, body = mixed
    t = NOW + 3600
    channel.world.chain.set_time(t)
    value, weight = channel.world.prove(channel.terms, BTC, t, [61_000 * 10**8] * 2)
    rows = channel.world.lens.fixes_needed(channel.terms, body, t)
    assert tuple(row[:2] for row in rows) == fixes_needed(channel.terms, body, t)
    assert len(rows) == 4
    assert rows[0] == (BTC, t, value, weight)
    assert all(row[2:] == (0, 0) for row in rows[1:])
    assert channel.world.lens.fixes_needed(channel.terms, channel.body(A, B), t) == ()


@pytest.mark.parametrize("proven", [True, False])
def test_margin_is_cores(mixed, proven):
    channel, body = mixed
    t = NOW + 3600
    fixes = {}
    if proven:
        channel.world.chain.set_time(t)
        fixes[BTC, NOW + 1800] = channel.world.prove(channel.terms, BTC, NOW + 1800, [61_500 * 10**8] * 3)[0]
    prices = {BTC: 63_000 * WAD, ETH: 2950 * WAD}
    collateral = 97 * WAD // 100
    found = channel.world.lens.margin(channel.terms, body, [prices[BTC], prices[ETH], 0], t, collateral)
    a, b = both(channel.terms, body, prices, t, collateral, fixes)
    assert (found.equity_a, found.equity_b) == (a.equity, b.equity)
    assert (found.maintenance_a, found.maintenance_b) == (a.maintenance, b.maintenance)
    assert (found.initial_a, found.initial_b) == (a.initial, b.initial)
    rows = {row[0]: row[1:] for row in found.markets}
    assert rows.pop(USD) == (0, 0, 0, 0)
    assert rows == {
        m.feed: (m.maintenance, n.maintenance, m.initial, n.initial) for m, n in zip(a.markets, b.markets, strict=True)
    }
    with refused("MissingPrice"):
        channel.world.lens.margin(channel.terms, body, [prices[BTC], 0, 0], t, collateral)


def test_the_lens_asks_the_adjudicators_contracts():
    world = World.make()
    for name in ("RISK_ENGINE", "FIX_BOOK", "RULES", "DOMAIN_SEPARATOR"):
        assert getattr(world.lens, name)() == getattr(world.adjudicator, name)()
    assert world.lens.ADJUDICATOR() == "0x" + world.adjudicator.address.hex()
