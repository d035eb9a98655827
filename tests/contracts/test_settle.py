"""`settle`: when, on what body, at which fixes; what is paid is core/settlement's figure, to the unit."""

import pytest
from contracts_harness import (
    BTC,
    ETH,
    NOW,
    PAYOUTS,
    USD,
    Account,
    Channel,
    Kind,
    World,
    make_market,
    make_oracle,
    make_terms,
    option,
    perpetual,
    refused,
)

from channeld.core.packages import DataPoint, sign_package
from channeld.core.settlement import close_out, fix_time, fixes_needed, settle_amounts
from channeld.core.wad import DAY, WAD

ONE = 1_000_000
A, B = Account(1000 * ONE, 1000 * ONE, 0), Account(600 * ONE, 600 * ONE, 0)
EXPIRY = NOW + 2 * DAY


@pytest.fixture
def book(funded):
    """A book of every kind, marked at NOW; the ETH call expires before the fix time, the BTC put after."""
    return funded.body(
        A,
        B,
        (
            perpetual(BTC, -(10**15), 64_000 * WAD, WAD // 10),
            option(Kind.CALL, ETH, NOW + 3600, 3000 * WAD, 2 * 10**16, 100 * WAD),
            option(Kind.PUT, BTC, EXPIRY, 60_000 * WAD, 10**16, 1500 * WAD, carry=WAD // 50),
        ),
    )


def test_the_implicit_body_gives_first_depositors_their_money(funded):
    event = funded.challenge()
    funded.world.chain.set_time(event.deadline)
    settled = funded.settle(funded.genesis)
    assert (settled.version, settled.to_a, settled.to_b, settled.complete) == (0, 1000 * ONE, 600 * ONE, True)
    assert [funded.world.token.balanceOf(p) for p in PAYOUTS] == [1000 * ONE, 600 * ONE]
    assert funded.record.phase == 3
    with refused("ChannelEnded"):
        funded.settle(funded.genesis)


def test_settle_needs_a_dispute_the_body_and_the_fix_time(funded, book):
    with refused("NotInDispute"):
        funded.settle(book)
    event = funded.challenge(3, book)
    d = fix_time(funded.terms, event.deadline)
    funded.world.chain.set_time(event.deadline - 1)
    with refused("FixTimeNotReached"):
        funded.settle(book)
    funded.world.chain.set_time(d)
    with refused("BodyNotOnRecord"):
        funded.settle(funded.body(A, B))
    with refused("BodyNotOnRecord"):
        funded.settle(funded.genesis)
    with refused("FixesIncomplete"):
        funded.settle(book)
    with refused("UnknownChannel"):
        funded.world.adjudicator.settle(make_terms(funded.world.token.address, salt=b"\x5b" * 32), book)


def prove_all(channel, body, t, prices, count=3):
    """Prove every fix needed with `count` of the three signers; the fixes as core wants them."""
    fixes = {}
    for feed, at in fixes_needed(channel.terms, body, t):
        value, _ = channel.world.prove(channel.terms, feed, at, [prices[feed]] * count)
        fixes[feed, at] = value
    return fixes


PRICES = {BTC: 61_234 * 10**8 + 56_789, ETH: 3210 * 10**8 + 12_345, USD: 99_900_000}


def test_every_kind_is_closed_out_at_its_fix(funded, book):
    event = funded.challenge(3, book)
    d = fix_time(funded.terms, event.deadline)
    assert set(fixes_needed(funded.terms, book, d)) == {(BTC, d), (ETH, NOW + 3600)}
    funded.world.chain.set_time(d)
    fixes = prove_all(funded, book, d, PRICES)
    settled = funded.settle(book)
    expected = settle_amounts(funded.terms, book, fixes, d, 1000 * ONE, 600 * ONE, 0, 0)
    assert (settled.to_a, settled.to_b) == expected
    assert settled.profit == close_out(funded.terms, book, fixes, d) == settled.to_a - 1000 * ONE != 0
    assert (settled.fix_time, settled.version, settled.dispute, settled.complete) == (d, 3, 1, True)
    # by hand: the perpetual +2.77, the call 0.02 * (210 - 100) = +2.20, the put 0.01 * (about 200 - 1500) = -13
    assert -9 * ONE < settled.profit < -7 * ONE


@pytest.mark.parametrize("missing", ["nothing", "one signer", "a feed", "everything"])
def test_incomplete_fixes_wait_for_the_grace(funded, book, missing):
    event = funded.challenge(3, book)
    d = fix_time(funded.terms, event.deadline)
    grace = funded.terms.oracle.grace
    funded.world.chain.set_time(d)
    fixes = {}
    if missing != "everything":
        fixes = prove_all(funded, book, d, PRICES, count=2 if missing == "one signer" else 3)
    if missing == "a feed":
        with funded.world.chain.anchored():
            assert funded.settle(book).complete
        fixes.pop((BTC, d))
        # prove only the other one, on a chain where nothing is proven
        fresh = World.make()
        channel = Channel(fresh, make_terms(fresh.token.address)).open()
        fresh.fund(channel.id, 0, 1000 * ONE)
        fresh.fund(channel.id, 1, 600 * ONE)
        event = channel.challenge(3, book)
        fresh.chain.set_time(d)
        fresh.prove(channel.terms, ETH, NOW + 3600, [PRICES[ETH]] * 3)
        funded = channel
    if missing == "nothing":
        assert funded.settle(book).complete
        return
    funded.world.chain.set_time(d + grace - 1)
    with refused("FixesIncomplete"):
        funded.settle(book)
    funded.world.chain.set_time(d + grace)
    settled = funded.settle(book)
    assert not settled.complete
    assert (settled.to_a, settled.to_b) == settle_amounts(funded.terms, book, fixes, d, 1000 * ONE, 600 * ONE, 0, 0)


def test_the_fix_time_is_the_first_tick_after_deadline_and_samples(world):
    oracle = make_oracle(tick=60, samples=3, sample_gap=120, grace=7200)
    channel = Channel(world, make_terms(world.token.address, oracle=oracle)).open()
    world.fund(channel.id, 0, ONE)
    for offset in (0, 1, 59):
        with world.chain.anchored():
            world.chain.set_time(NOW // 60 * 60 + offset)
            deadline = channel.challenge().deadline
            d = fix_time(channel.terms, deadline)
            assert d % 60 == 0
            assert 360 <= d - deadline < 420
            world.chain.set_time(d - 1)
            with refused("FixTimeNotReached"):
                channel.settle(channel.genesis)
            world.chain.set_time(d)
            assert channel.settle(channel.genesis).fix_time == d


def test_a_position_that_expires_at_the_fix_time_is_paid_at_its_expiry(funded):
    d = fix_time(funded.terms, NOW + 86_400)
    body = funded.body(A, B, (option(Kind.CALL, ETH, d, 3000 * WAD, 10**16, 100 * WAD),))
    funded.challenge(1, body)
    funded.world.chain.set_time(d)
    fixes = prove_all(funded, body, d, {ETH: 3100 * 10**8})
    assert funded.settle(body).profit == 0
    assert fixes == {(ETH, d): 3100 * WAD}


@pytest.mark.parametrize("price", [1, 10**8, 10**15])
def test_a_loser_pays_no_more_than_it_has(funded, price):
    body = funded.body(A, B, (perpetual(ETH, 10**18, 3000 * WAD),))
    event = funded.challenge(1, body)
    d = fix_time(funded.terms, event.deadline)
    funded.world.chain.set_time(d)
    fixes = prove_all(funded, body, d, {ETH: price})
    settled = funded.settle(body)
    assert (settled.to_a, settled.to_b) == settle_amounts(funded.terms, body, fixes, d, 1000 * ONE, 600 * ONE, 0, 0)
    assert settled.to_a == (0 if price < 10**15 else 1600 * ONE)


@pytest.mark.parametrize("proven", [True, False])
def test_volatile_collateral_is_valued_at_its_own_fix_or_mark(world, proven):
    terms = make_terms(
        world.token.address,
        collateral_feed=USD,
        haircut=WAD // 10,
        markets=(make_market(BTC), make_market(ETH), make_market(USD)),
    )
    channel = Channel(world, terms).open()
    world.fund(channel.id, 0, 1000 * ONE)
    world.fund(channel.id, 1, 600 * ONE)
    body = channel.body(A, B, (perpetual(ETH, 10**17, 3000 * WAD),), collateral_mark=97 * WAD // 100)
    event = channel.challenge(1, body)
    d = fix_time(terms, event.deadline)
    assert fixes_needed(terms, body, d) == ((ETH, d), (USD, d))
    world.chain.set_time(d)
    fixes = {(ETH, d): world.prove(terms, ETH, d, [PRICES[ETH]] * 3)[0]}
    with refused("FixesIncomplete"):
        channel.settle(body)
    if proven:
        fixes[USD, d] = world.prove(terms, USD, d, [PRICES[USD]] * 3)[0]
    else:
        world.chain.advance(terms.oracle.grace)
    settled = channel.settle(body)
    # 0.1 * 210.00012345 of profit, in tokens worth 0.999 or 0.97 each
    assert settled.profit == (21_021_033 if proven else 21_649_497)
    assert (settled.to_a, settled.to_b) == settle_amounts(terms, body, fixes, d, 1000 * ONE, 600 * ONE, 0, 0)
    assert settled.complete == proven


def test_a_book_whose_numbers_are_nonsense_cannot_lock_the_money(funded):
    # co-signed all the same: out of every bound, and still the pot is shared out
    position = (0, ETH, 0, 0, 2**127 - 1, 2**128 - 1, 2**63 - 1, 2**64 - 1)
    body = (0, 1, b"\x01" * 32, (2**128 - 1, 0, 2**128 - 1), (0, 2**128 - 1, 0), (position,) * 3)
    _sign_and_challenge(funded, body)
    funded.world.chain.advance(10 * DAY)
    funded.world.adjudicator.settle(funded.terms, body)
    settled = funded.world.adjudicator.event("Settled")
    assert settled.to_a + settled.to_b == 1600 * ONE


def _sign_and_challenge(channel, flat):
    """Challenge with a body that core's classes would refuse, hashed by eth-account."""
    from eth_account.messages import encode_typed_data  # noqa: PLC0415 - only here

    from channeld.core import crypto, eip712  # noqa: PLC0415 - only here

    account = ("balance", "deposited", "withdrawn")
    position = ("kind", "feed", "expiry", "strike", "size", "mark", "carry", "vol")
    data = eip712.typed_data(channel.domain, "Body", channel.genesis)
    data["message"] = {
        "asOf": flat[0],
        "collateralMark": flat[1],
        "journal": flat[2],
        "a": dict(zip(account, flat[3], strict=True)),
        "b": dict(zip(account, flat[4], strict=True)),
        "positions": [dict(zip(position, p, strict=True)) for p in flat[5]],
    }
    body_hash = encode_typed_data(full_message=data).body
    sigs = channel.both(eip712.state_digest(channel.domain, channel.id, 1, body_hash))
    channel.world.adjudicator.challenge(channel.id, 1, body_hash, sigs, sender=crypto.address_of(channel.keys[0]))


def test_sixty_four_positions_on_sixteen_fixes_settle_in_one_transaction(world):
    oracle = make_oracle(samples=1)
    channel = Channel(world, make_terms(world.token.address, oracle=oracle)).open()
    world.fund(channel.id, 0, 1000 * ONE)
    world.fund(channel.id, 1, 600 * ONE)
    expiries = [NOW + 3600 * (i + 1) for i in range(8)]
    body = channel.body(
        A,
        B,
        tuple(
            option(kind, feed, expiry, (3000 + strike) * WAD, (-1) ** strike * 10**14, 50 * WAD)
            for kind in (Kind.CALL, Kind.PUT)
            for feed in (BTC, ETH)
            for expiry in expiries
            for strike in (0, 1)
        ),
    )
    assert len(body.positions) == 64
    event = channel.challenge(1, body)
    d = fix_time(channel.terms, event.deadline)
    world.chain.set_time(d)
    fixes = prove_all(channel, body, d, PRICES)
    assert len(fixes) == 16
    settled = channel.settle(body)
    assert (settled.to_a, settled.to_b) == settle_amounts(channel.terms, body, fixes, d, 1000 * ONE, 600 * ONE, 0, 0)
    assert world.chain.gas_used < 12_000_000


def test_samples_are_averaged_and_the_floor_is_paid(world):
    oracle = make_oracle(samples=3, sample_gap=10, grace=3700)
    channel = Channel(world, make_terms(world.token.address, oracle=oracle)).open()
    world.fund(channel.id, 0, 1000 * ONE)
    body = channel.body(A, Account(), (perpetual(ETH, 10**16, 3000 * WAD),))
    event = channel.challenge(1, body)
    d = fix_time(channel.terms, event.deadline)
    world.chain.set_time(d)
    from contracts_harness import ORACLE_KEYS  # noqa: PLC0415 - only here

    packages = [
        sign_package(k, (d - 10 * i) * 1000, [DataPoint(ETH, 3000 * 10**8 + i)]) for i in range(3) for k in ORACLE_KEYS
    ]
    assert world.book.prove_fix(oracle, ETH, d, b"".join(packages)) == (3000 * WAD + 10**10, 9)
    assert channel.settle(body).profit == 0
