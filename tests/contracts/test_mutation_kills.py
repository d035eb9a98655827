"""Tests made for mutants that outlived all others (docs/mutation.md): the edges where one more or one less matters."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from contracts_harness import (
    BTC,
    ETH,
    NOW,
    ORACLE_KEYS,
    PAYOUTS,
    ROOT,
    USD,
    Channel,
    Reverted,
    World,
    key,
    make_market,
    make_oracle,
    option,
    perpetual,
    refused,
)
from contracts_harness import make_terms as open_terms
from risk_harness import AS_OF, Engine, engine_artifact, make_body, make_terms, packed, packed_market, standard_market

from channeld.core import crypto, eip712, fixedpoint
from channeld.core.margin import both
from channeld.core.packages import (
    DataPoint,
    MalformedPackageError,
    NoQuorumError,
    RepeatedFeedError,
    StalePackageError,
    fix_price,
    sign_package,
)
from channeld.core.settlement import close_out, fix_time, fixes_needed, judge, settle_amounts
from channeld.core.state import Account, Body, Instrument, Kind, Position
from channeld.core.terms import Party
from channeld.core.valuation import profit, value
from channeld.core.wad import DAY, WAD, YEAR

SPOT = 3000 * WAD
T = NOW - 100
ORACLE = make_oracle()
PRICE = 3000 * 10**8


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


def signed(signer: int, points: bytes, count: int, size: int = 32, t_ms: int = T * 1000) -> bytes:
    """A package of any shape, signed."""
    body = points + t_ms.to_bytes(6, "big") + size.to_bytes(4, "big") + count.to_bytes(3, "big")
    return body + crypto.sign_digest(ORACLE_KEYS[signer], crypto.keccak256(body))


def point(feed: bytes, value: int, size: int = 32) -> bytes:
    return feed + value.to_bytes(size, "big")


# ------------------------------------------------------------------------------------------------------------- FixBook


@pytest.mark.parametrize("length", [1, 44, 45, 46, 77, 78, 79, 96, 97, 109, 110])
def test_fewer_bytes_than_the_smallest_package_are_no_package(world, length):
    with refused("MalformedPackage"):
        world.book.prove_fix(ORACLE, ETH, T, bytes([1]) * length)


def test_the_smallest_package_there_is(world):
    packages = [signed(n, point(ETH, 200 + n, 1), 1, size=1) for n in range(2)]
    assert {len(p) for p in packages} == {111}
    assert world.book.prove_fix(ORACLE, ETH, T, b"".join(packages)) == (200 * 10**10 + 5 * 10**9, 2)
    assert fix_price(ORACLE, ETH, T, packages).value == 200 * 10**10 + 5 * 10**9


@pytest.mark.parametrize(
    ("count", "size"),
    # bits above what a count or a size can be are part of it, not dropped
    [(1 + 2**n, 32) for n in (7, 8, 16, 22, 23)] + [(1, 32 + 2**n) for n in (8, 16, 24, 30, 31)],
)
def test_a_count_or_a_size_is_read_in_all_its_bits(world, count, size):
    bad = signed(1, point(ETH, PRICE), count, size=size)
    with refused("MalformedPackage"):
        world.book.prove_fix(ORACLE, ETH, T, signed(0, point(ETH, PRICE), 1) + bad)
    with pytest.raises(MalformedPackageError):
        fix_price(ORACLE, ETH, T, [bad])


@pytest.mark.parametrize(
    "feeds", [(ETH, BTC, BTC), (USD, ETH, BTC, ETH), (bytes(32), bytes(32)), (ETH, bytes(32), bytes(32))]
)
def test_a_feed_twice_is_found_wherever_it_stands(world, feeds):
    bad = signed(0, b"".join(point(feed, 5) for feed in feeds), len(feeds))
    with refused("RepeatedFeed"):
        world.book.prove_fix(ORACLE, ETH, T, bad + signed(1, point(ETH, 5), 1))
    with pytest.raises(RepeatedFeedError):
        fix_price(ORACLE, ETH, T, [bad])


@pytest.mark.parametrize("size", [1, 8, 11, 12, 31, 32])
@pytest.mark.parametrize("feed", [ETH, b"\xee" * 32])
def test_a_value_is_read_in_all_its_bits_and_no_others(world, size, feed):
    for number in (1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1):
        packages = [signed(n, point(feed, number, size), 1, size=size) for n in range(2)]
        expected = min(number * 10**10, 2**96 - 1)
        with world.chain.anchored():
            assert world.book.prove_fix(ORACLE, feed, T, b"".join(packages)) == (expected, 2)
        assert fix_price(ORACLE, feed, T, packages).value == expected


@pytest.mark.parametrize("bit", [41, 46, 47])
def test_a_time_is_read_in_all_its_bits(world, bit):
    packages = [signed(0, point(ETH, PRICE), 1), signed(1, point(ETH, PRICE), 1, t_ms=T * 1000 + 2**bit)]
    with refused("OtherTime"):
        world.book.prove_fix(ORACLE, ETH, T, b"".join(packages))
    with pytest.raises(StalePackageError):
        fix_price(ORACLE, ETH, T, packages)


@pytest.mark.parametrize("count", [64, 65])
def test_sixty_four_points_and_no_more(world, count):
    points = b"".join(point(bytes([n + 1]) * 32, 7) for n in range(count - 1)) + point(ETH, PRICE)
    packages = b"".join(signed(n, points, count) for n in range(2))
    if count == 64:
        assert world.book.prove_fix(ORACLE, ETH, T, packages) == (PRICE * 10**10, 2)
    else:
        with refused("MalformedPackage"):
            world.book.prove_fix(ORACLE, ETH, T, packages)


@pytest.mark.parametrize(("signers", "samples", "fits"), [(9, 5, True), (1, 45, True), (1, 46, False), (2, 23, False)])
def test_forty_five_packages_and_no_more(world, signers, samples, fits):
    keys = sorted((key(600 + n) for n in range(signers)), key=crypto.address_of)
    flat = (tuple(map(crypto.address_of, keys)), signers, 10, samples, 10, 60, 3700)
    packages = b"".join(
        sign_package(k, (T - 10 * n) * 1000, [DataPoint(ETH, PRICE)], value_size=8)
        for n in range(samples)
        for k in keys
    )
    if fits:
        assert world.book.prove_fix(flat, ETH, T, packages) == (PRICE * 10**10, signers * samples)
    else:
        with refused("InvalidOracle"):
            world.book.prove_fix(flat, ETH, T, packages)


SAMPLED = make_oracle(samples=5, sample_gap=10, quorum=2)


def samples(*seconds: int) -> list[bytes]:
    """Two packages for each of these times before T."""
    return [signed(n, point(ETH, PRICE), 1, t_ms=(T - second) * 1000) for second in seconds for n in range(2)]


@pytest.mark.parametrize(("seconds", "enough"), [((0, 20, 40), True), ((0, 40), False), ((10,), False)])
def test_two_of_five_samples_are_not_half(world, seconds, enough):
    packages = b"".join(samples(*seconds))
    if enough:
        assert world.book.prove_fix(SAMPLED, ETH, T, packages) == (PRICE * 10**10, 6)
    else:
        with refused("QuorumMissing"):
            world.book.prove_fix(SAMPLED, ETH, T, packages)
        with pytest.raises(NoQuorumError):
            fix_price(SAMPLED, ETH, T, samples(*seconds))


@pytest.mark.parametrize("before", [5, 15, 39, 41, 45, 50, 55, 60, 80, -10])
def test_packages_between_samples_or_before_the_first_are_of_another_time(world, before):
    packages = samples(0, 10, 20, before)
    with refused("OtherTime"):
        world.book.prove_fix(SAMPLED, ETH, T, b"".join(packages))
    with pytest.raises(StalePackageError):
        fix_price(SAMPLED, ETH, T, packages)


def test_as_many_bytes_as_an_argument_may_have_and_no_more(world):
    text = (ROOT / "contracts" / "FixBook.vy").read_text()
    most = int(re.search(r"MAX_PACKAGE_BYTES: constant\(uint256\) = (\d+)", text).group(1))
    with refused("MalformedPackage"):
        world.book.prove_fix(ORACLE, ETH, T, bytes(most))
    with pytest.raises(Reverted) as refusal:
        world.book.prove_fix(ORACLE, ETH, T, bytes(most + 1))
    assert str(refusal.value) != "MalformedPackage"


# ---------------------------------------------------------------------------------------------------------- RiskEngine


def pushed(runtime: str) -> set[int]:
    """Every number that a PUSH instruction of the code carries."""
    code, at, found = bytes.fromhex(runtime.removeprefix("0x")), 0, set()
    while at < len(code):
        width = max(0, code[at] - 0x5F) if 0x60 <= code[at] <= 0x7F else 0
        found.add(int.from_bytes(code[at + 1 : at + 1 + width], "big"))
        at += 1 + width
    return found


def test_every_coefficient_of_the_core_is_in_the_engine_to_its_last_digit():
    # no price shows the last digits of a coefficient; the two implementations share them all the same
    numbers = pushed(engine_artifact()["runtime"])
    coefficients = {*fixedpoint.TAIL_P, *fixedpoint.TAIL_Q, fixedpoint.LN2, fixedpoint.LN2_96, fixedpoint.SQRT2_110}
    coefficients |= {fixedpoint.EXP_BIAS * fixedpoint.LN2 + (fixedpoint.LN2 >> 1), fixedpoint.TAIL_END}
    assert coefficients <= numbers


def contract_margin(engine, positions, t=AS_OF, spot=SPOT, market=None):
    arguments = ([packed_market(market or standard_market())], [packed(p) for p in positions], [spot], t)
    return engine("margin", *arguments), engine("initial", *arguments, WAD)


def unchecked(positions):
    """A body that breaks the rules of states."""
    body = make_body(())
    object.__setattr__(body, "positions", tuple(positions))
    return body


def agreed_margin(engine, positions, t=AS_OF, spot=SPOT, market=None):
    """The margin on which contract and core agree."""
    terms = make_terms(markets=(market or standard_market(),))
    a, b = both(terms, unchecked(positions), {ETH: spot}, t, WAD)
    expected = (a.maintenance, b.maintenance), (a.initial, b.initial)
    assert contract_margin(engine, positions, t, spot, market) == expected
    return expected


def position(kind, size, expiry, *, strike=0, carry=0, vol=WAD // 2):
    return Position(Instrument(kind, ETH, expiry, strike), size, SPOT, carry, vol if strike else 0)


def test_what_neighbours_share_is_made_anew_for_another_carry_or_another_expiry(engine):
    # one expiry with two carries is against the protocol's rules; the contract counts it all the same, as the core does
    for expiries in ((YEAR, YEAR), (YEAR, 2 * YEAR)):
        for carries in ((0, WAD), (WAD, 0), (WAD, WAD), (0, 0), (WAD, -WAD)):
            book = [
                position(Kind.CALL, WAD, AS_OF + expiries[0], strike=SPOT, carry=carries[0]),
                position(Kind.CALL, -3 * WAD, AS_OF + expiries[1], strike=SPOT + 1, carry=carries[1]),
            ]
            agreed_margin(engine, book)
            body = unchecked(book)
            chain = engine("profit", body.as_of, [packed(p) for p in book], [SPOT] * 2, AS_OF)
            assert chain == profit(body, [SPOT] * 2, AS_OF)


def test_the_forward_a_hair_from_the_strike(engine):
    # the least drift there is, one unit of 2**-80: a logarithm of plus and of minus one unit
    for carry in (1, -1):
        for kind in (Kind.CALL, Kind.PUT):
            assert engine("value", kind, SPOT, SPOT, carry, WAD, 27) == value(kind, SPOT, SPOT, carry, WAD, 27)
            book = [position(kind, WAD, AS_OF + 27, strike=SPOT, carry=carry)]
            agreed_margin(engine, book)
            body = make_body(tuple(book))
            assert engine("profit", AS_OF, [packed(book[0])], [SPOT], AS_OF) == profit(body, [SPOT], AS_OF)


@pytest.mark.parametrize(
    ("strike", "vol"),
    # where the logarithm of 2**64 off by ten units of 2**-80 changes the value's last digit
    [(19_716_092_968_271_962_112, 284_683_160_303_894_496), (19_175_214_875_852_656_640, 151_043_104_847_191_072)],
)
def test_the_logarithm_of_a_power_of_two(engine, strike, vol):
    assert engine("value", Kind.CALL, 2**64, strike, 0, vol, YEAR) == value(Kind.CALL, 2**64, strike, 0, vol, YEAR)


def test_an_expiry_at_the_first_second_there_is(engine):
    for expiry in (1, 2):
        agreed_margin(engine, [position(Kind.FUTURE, WAD, expiry)], t=0)
        agreed_margin(engine, [position(Kind.CALL, WAD, expiry, strike=SPOT)], t=0)


def test_a_price_one_above_the_bound_counts_as_the_bound_to_the_last_digit(engine):
    # a scan of the whole price: what is lost is the price itself
    market = replace(standard_market(), price_scan=WAD)
    book = [position(Kind.PERPETUAL, 2**95 - 1, 0)]
    expected = agreed_margin(engine, book, spot=2**96 - 1, market=market)
    assert expected != agreed_margin(engine, book, spot=2**96 - 2, market=market)
    for price in (2**96, 2**96 + 1):
        assert contract_margin(engine, book, spot=price, market=market) == expected


def test_the_logarithm_of_a_scenario_at_a_power_of_two(engine):
    # the threefold price decides for a short call that far out, and it is 2**96 + 2
    book = [position(Kind.CALL, -WAD, AS_OF + YEAR, strike=2**96 - 1, vol=WAD // 50)]
    (maintenance, _), _ = agreed_margin(engine, book, spot=(2**96 + 2) // 3)
    assert maintenance > 0


def test_a_loss_one_above_a_whole_rounds_up(engine):
    # a scan of 11% of 100 and a bit: a loss of eleven and one 1e-18 more, of a size of 1e-18, is twelve
    for size, more in ((1, 5), (-1, 10)):
        (maintenance, _), _ = agreed_margin(engine, [position(Kind.PERPETUAL, size, 0)], spot=100 * WAD + more)
        assert maintenance == 12


@pytest.mark.parametrize("sign", [1, -1])
def test_the_scenarios_of_a_third_of_the_scan_decide_for_a_butterfly_there(engine, sign):
    # a butterfly of three days is worth most where the price is its middle strike: short of it, a loses there
    middle = SPOT + sign * SPOT * 11 // 300
    book = [
        position(Kind.CALL, size * WAD, AS_OF + 3 * DAY, strike=middle + step * 60 * WAD, vol=WAD // 10)
        for step, size in ((-1, -1), (0, 2), (1, -1))
    ]
    (maintenance, _), _ = agreed_margin(engine, book)
    assert maintenance > 40 * WAD


def test_a_book_that_gains_in_every_ordinary_scenario_loses_nothing_there(engine):
    expiry = AS_OF + 3 * YEAR
    book = [
        position(Kind.PERPETUAL, 5 * WAD, 0),
        position(Kind.CALL, -16 * WAD, expiry, strike=4200 * WAD),
        position(Kind.CALL, 20 * WAD, expiry, strike=7000 * WAD),
    ]
    report, _ = both(make_terms(markets=(standard_market(),)), unchecked(book), {ETH: SPOT}, AS_OF, WAD)
    assert min(one.profit for one in report.markets[0].scenarios if one.scenario.weight == WAD) > 0
    agreed_margin(engine, book)


def test_a_book_in_no_order_counts_as_the_core_counts_it(engine):
    # no state holds one: positions are sorted there
    call = position(Kind.CALL, -3 * WAD, AS_OF + YEAR, strike=SPOT, carry=WAD // 10)
    future = position(Kind.FUTURE, 2 * WAD, AS_OF + YEAR, carry=WAD // 10)
    perpetual = position(Kind.PERPETUAL, WAD, 0)
    for book in ([call, perpetual], [call, future], [call, perpetual, future, call], [future, perpetual, call]):
        agreed_margin(engine, book)


def test_an_option_that_can_be_worth_one_unit_is(engine):
    # far beyond any vol of the market's: the time value is all of the smaller of forward and strike
    for spot, strike in ((SPOT, 1), (1, SPOT)):
        for kind in (Kind.CALL, Kind.PUT):
            assert engine("value", kind, spot, strike, 0, 10 * WAD, 5 * YEAR) == value(
                kind, spot, strike, 0, 10 * WAD, 5 * YEAR
            )
    assert value(Kind.CALL, SPOT, 1, 0, 10 * WAD, 5 * YEAR) == SPOT


@pytest.mark.parametrize("strike", [2**96 - 1, 2**95, 5 * 2**93, 2**96 - 2**90, 3 * 2**93])
def test_the_last_digits_of_the_highest_prices(engine, strike):
    # one unit of 2**-80 in an exponent is thousands of units of a price like these
    for spot in (2**96 - 1, 2**95 + 2**91, 2**94):
        for vol, tau in ((WAD // 4, YEAR), (WAD, 30 * DAY), (WAD // 50, DAY)):
            for kind in (Kind.CALL, Kind.PUT):
                assert engine("value", kind, spot, strike, 0, vol, tau) == value(kind, spot, strike, 0, vol, tau)
            agreed_margin(engine, [position(Kind.CALL, WAD, AS_OF + tau, strike=strike, vol=vol)], spot=spot)


# --------------------------------------------------------------------------------------------- Rules and Adjudicator


@pytest.mark.parametrize("pair", [(1, 2), (1, 30), (30, 1), (2, 1), (30, 31)])
@pytest.mark.parametrize("feeds", [(ETH, ETH), (BTC, ETH)])
def test_neighbours_take_each_their_own_fix(funded, pair, feeds):
    # two calls, of one feed or of two, expired at different hours or not yet: (feed, time) by (feed, time)
    accounts = Account(10**9, 10**9, 0), Account(6 * 10**8, 6 * 10**8, 0)
    legs = sorted(
        (option(Kind.CALL, f, NOW + h * 3600, SPOT, 10**17, 100 * WAD) for f, h in zip(feeds, pair, strict=True)),
        key=lambda leg: leg.key,
    )
    body = funded.body(*accounts, tuple(legs))
    d = fix_time(funded.terms, funded.challenge(1, body).deadline)
    funded.world.chain.set_time(d)
    needed = fixes_needed(funded.terms, body, d)
    fixes = {
        pair: funded.world.prove(funded.terms, *pair, [(3000 + 500 * n) * 10**8] * 3)[0]
        for n, pair in enumerate(needed, 1)
    }
    settled = funded.settle(body)
    assert (settled.to_a, settled.to_b) == settle_amounts(funded.terms, body, fixes, d, 10**9, 6 * 10**8, 0, 0)


@pytest.mark.parametrize("decimals", [6, 7, 17, 18])
def test_the_terms_furthest_out_that_can_be_opened(decimals):
    world = World.make(token_args=("Test", "TST", decimals))
    first = bytes(31) + b"\1"
    markets = tuple(replace(make_market(feed), vol_down=WAD, price_scan=2 * WAD) for feed in (first, ETH))
    oracle = make_oracle(quorum=3, samples=15, sample_gap=240)
    terms = open_terms(world.token.address, decimals=decimals, markets=markets, oracle=oracle)
    assert Channel(world, terms).open().record.phase == 1


JUDGED = ["below_a", "below_b", "complete", "weight", "equity_a", "equity_b", "margin_a", "margin_b", "penalty"]
BOOKS = (
    # whose margins differ by party: options, sold by one of them
    (option(Kind.CALL, ETH, NOW + DAY, SPOT, -(10**17), 100 * WAD),),
    (option(Kind.PUT, BTC, NOW + 9 * DAY, 60_000 * WAD, 10**16, 900 * WAD),),
    # the last has expired: the collateral's fix is that of the time judged all the same
    (
        option(Kind.CALL, ETH, NOW + 30 * DAY, 3100 * WAD, -(2 * 10**17), 100 * WAD),
        option(Kind.PUT, BTC, NOW - 3600, 60_000 * WAD, 10**16, 900 * WAD),
    ),
    (
        perpetual(BTC, 10**15, 64_000 * WAD, WAD // 10),
        option(Kind.CALL, ETH, NOW - 3600, 2900 * WAD, 10**17, 100 * WAD),
        option(Kind.CALL, ETH, NOW + 30 * DAY, 3100 * WAD, -(2 * 10**17), 100 * WAD),
    ),
)


@pytest.mark.parametrize("book", range(len(BOOKS)))
@pytest.mark.parametrize("feed", [bytes(32), USD, ETH], ids=["none", "USD", "ETH"])
@pytest.mark.parametrize("count", [2, 3])
def test_a_party_is_below_where_the_core_says_so_to_the_unit(world, book, feed, count):
    terms = open_terms(world.token.address, collateral_feed=feed, haircut=0 if feed == bytes(32) else WAD // 5)
    # odd figures, so that no bit of one party's word is mistaken for the other's
    signed = Account(700_000_001, 900_000_007, 200_000_003), Account(200_000_015, 300_000_013, 100_000_001)
    body = Body(NOW - 60, WAD, bytes(32), *signed, BOOKS[book])
    prices = {ETH: 3050, BTC: 61_000, USD: 1}
    fixes = {}
    for pair in fixes_needed(terms, body, T):
        fixes[pair] = world.prove(terms, *pair, [prices[pair[0]] * 10**8 + n for n in range(count)])
    paid = (200_000_001, 100_000_005)

    def agreed(*deposits, known=2**256 - 1):
        words = deposits[0] | deposits[1] << 128, paid[0] | paid[1] << 128
        found = world.rules.judge(world.engine, world.book, terms, body, T, known, *words)
        expected = judge(terms, body, fixes, T, *deposits, *paid)
        assert [getattr(found, name) for name in JUDGED] == [getattr(expected, name) for name in JUDGED]
        return expected

    start = agreed(10**11 + 1, 10**11 + 3)
    assert start.margin_a != start.margin_b
    # the least deposits with which neither is below, then one unit less of a's, of b's, and of both
    step = [agreed(10**11 + 1 + 10**6, 10**11 + 3).equity_a - start.equity_a] * 2
    least = [
        10**11 + more - (equity - margin) * 10**6 // unit
        for more, equity, margin, unit in zip(
            (1, 3), (start.equity_a, start.equity_b), (start.margin_a, start.margin_b), step, strict=True
        )
    ]
    seen = set()
    for less_a in range(-3, 4):
        for less_b in range(-3, 4):
            verdict = agreed(least[0] - less_a, least[1] - less_b)
            seen.add((verdict.below_a, verdict.below_b))
    assert len(seen) == 4
    with refused("NotHeavier"):
        agreed(*least, known=start.weight)
    assert agreed(*least, known=start.weight - 1).weight == start.weight


@pytest.mark.parametrize("mark", [1, 2, 3])
def test_a_collateral_all_but_worthless_has_its_price(world, mark):
    terms = open_terms(world.token.address, collateral_feed=USD, haircut=WAD // 5)
    body = Body(NOW - 60, mark, bytes(32), Account(), Account(), (perpetual(ETH, 7, 3000 * WAD),))
    fix = world.prove(terms, ETH, T, [3100 * 10**8] * 3)[0]
    found = world.rules.profit(world.engine, world.book, terms, body, T)
    assert found == (close_out(terms, body, {(ETH, T): fix}, T), False)
    assert found[0] == 700 * 10**6 // mark


@pytest.mark.parametrize("units", [(1, 0), (0, 1), (1, 1), (2, 1)])
def test_a_single_unit_is_counted_and_paid_once(funded, units):
    for _ in range(2):
        funded.world.adjudicator.withdraw(*funded.sign_withdrawal(1, *units))
        assert (funded.record.paid_a, funded.record.paid_b) == units
        assert tuple(funded.world.token.balanceOf(payout) for payout in PAYOUTS) == units
    funded.world.adjudicator.close(*funded.sign_close(2, Account(0, 10**9, 10**9), Account(10**9, 6 * 10**8, 0)))
    assert funded.world.token.balanceOf(funded.world.adjudicator.address) == 0


def test_every_field_of_a_record_is_its_own(funded):
    record, terms = funded.record, funded.terms
    shown = [record.signer_a, record.payout_a, record.signer_b, record.payout_b, record.collateral]
    expected = [terms.a.signer, terms.a.payout, terms.b.signer, terms.b.payout, terms.collateral]
    assert shown == ["0x" + address.hex() for address in expected]
    assert len(set(shown)) == 5


def test_a_settlement_names_the_body_on_record_and_not_the_floors(funded):
    floor, body = (funded.body(Account(n, 10**9, 0), Account(16 * 10**8 - n, 6 * 10**8, 0)) for n in (3, 5))
    funded.world.adjudicator.anchor(funded.id, *funded.sign_state(3, floor))
    funded.world.chain.set_time(fix_time(funded.terms, funded.challenge(9, body).deadline))
    settled = funded.settle(body)
    assert (settled.version, settled.body_hash, settled.to_a) == (9, eip712.body_hash(body), 5)


def test_a_release_is_counted_in_each_partys_own_account(funded):
    funded.world.adjudicator.withdraw(*funded.sign_withdrawal(2, 7, 11))
    deadline = funded.challenge(2).deadline
    funded.world.chain.set_time(fix_time(funded.terms, deadline) + 180 * DAY)
    funded.world.adjudicator.release(funded.terms)
    record = funded.record
    assert (record.deposited_a, record.paid_a) == (10**9, 10**9)
    assert (record.deposited_b, record.paid_b) == (6 * 10**8, 6 * 10**8)


@pytest.mark.parametrize("gas", [450_000, 550_000])
def test_a_payout_does_not_start_without_gas_for_the_whole_of_it(funded, gas):
    value = funded.sign_close(1, Account(), Account())
    with refused("TooLittleGas"):
        funded.world.adjudicator.close(*value, gas=gas)
    assert funded.record.phase == 1


def test_a_token_that_answers_nothing_has_paid_where_no_balance_falls_too():
    world = World.make("OddToken", (6, 0))
    channel = Channel(world, open_terms(world.token.address)).open()
    world.fund(channel.id, 0, 10**9)
    blocks, silent = 6, 1
    world.token.set_mode(blocks, PAYOUTS[0], b"")
    world.adjudicator.close(*channel.sign_close(1, Account(), Account()))
    assert world.adjudicator.held(world.token.address, PAYOUTS[0]) == 10**9
    world.token.set_mode(silent, bytes(20), b"")
    # to the contract itself, whose balance stays
    world.adjudicator.claim(world.token.address, world.adjudicator.address, sender=PAYOUTS[0])
    assert world.adjudicator.event("Claimed").amount == 10**9
    assert world.adjudicator.held(world.token.address, PAYOUTS[0]) == 0


@pytest.mark.parametrize("mode", [10, 11], ids=["shouts", "forgets"])
def test_a_balance_that_is_not_told_proves_no_payment(mode):
    world = World.make("OddToken", (6, 0))
    channel = Channel(world, open_terms(world.token.address)).open()
    world.fund(channel.id, 0, 10**9)
    world.token.set_mode(mode, bytes(20), b"")
    world.adjudicator.close(*channel.sign_close(1, Account(), Account()))
    assert world.adjudicator.held(world.token.address, PAYOUTS[0]) == 10**9


@pytest.mark.parametrize(("cure", "tick"), [(2**31 + 1, 1), (2**31 - 1, 2**31 - 1), (3601, 2**31 + 1), (3601, 1)])
def test_the_cure_period_and_the_tick_are_read_in_all_their_bits_and_no_others(world, cure, tick):
    oracle = make_oracle(tick=tick, grace=cure + tick)
    terms = open_terms(world.token.address, oracle=oracle, cure_period=cure, challenge_period=2**32 - 1)
    called = Channel(world, terms).open().call_margin()
    assert called.time == -(-(world.chain.now + cure) // tick) * tick


def _high(first: int) -> bytes:
    """A key whose address has its highest bit."""
    return next(k for k in map(key, range(first, first + 64)) if crypto.address_of(k)[0] >= 128)


def test_a_new_floor_leaves_every_bit_of_the_signers(world):
    keys = _high(1000), _high(2000)
    parties = [Party(crypto.address_of(k), payout) for k, payout in zip(keys, PAYOUTS, strict=True)]
    channel = Channel(world, open_terms(world.token.address, a=parties[0], b=parties[1]), keys).open()
    expected = ["0x" + party.signer.hex() for party in parties]
    body = channel.body(Account(), Account())
    world.adjudicator.anchor(channel.id, *channel.sign_state(2**63 + 1, body))
    assert [channel.record.signer_a, channel.record.signer_b] == expected
    for version in (2**63 + 2, 2**64 - 1):
        if version == 2**63 + 2:
            channel.challenge(version, body)
        else:
            world.adjudicator.refute(channel.id, *channel.sign_state(version, body))
        assert [channel.record.signer_a, channel.record.signer_b] == expected
        assert channel.dispute.version == version


def test_decimals_that_are_the_reason_of_a_revert_are_none():
    world = World.make("OddToken", (6, 10))
    with refused("DecimalsMismatch"):
        Channel(world, open_terms(world.token.address)).open()


def test_the_lowest_address_there_is_may_sign_prices(world):
    signers = (bytes(19) + b"\1", *(crypto.address_of(k) for k in ORACLE_KEYS[1:]))
    assert Channel(world, open_terms(world.token.address, oracle=make_oracle(signers=signers))).open().record.phase == 1


def test_a_collateral_marked_at_nothing_holds_up_no_settlement(world):
    terms = open_terms(world.token.address, collateral_feed=USD, haircut=WAD // 5)
    channel = Channel(world, terms).open()
    world.fund(channel.id, 0, 10**9)
    body = channel.body(Account(10**9, 10**9, 0), Account(), (perpetual(ETH, 10**15, 3000 * WAD),))
    # no desk would sign it, but two could
    object.__setattr__(body, "collateral_mark", 0)
    deadline = channel.challenge(1, body).deadline
    # no fix is ever proven
    world.chain.set_time(fix_time(terms, deadline) + terms.oracle.grace)
    settled = channel.settle(body)
    assert (settled.to_a, settled.to_b) == (10**9, 0)


def test_deposits_count_in_all_their_bits_where_a_party_is_judged(world):
    most = 2**127 + 10**9
    channel = Channel(world, open_terms(world.token.address)).open()
    world.fund(channel.id, 0, most)
    world.fund(channel.id, 1, 10**9)
    body = channel.body(Account(most, most, 0), Account(10**9, 10**9, 0), (perpetual(ETH, 10**15, 3000 * WAD),))
    called = channel.call_margin(1, body)
    world.chain.set_time(called.time + 86_400)
    world.prove(channel.terms, ETH, called.time, [3000 * 10**8] * 3)
    verdict = channel.test(body)
    assert (verdict.below_a, verdict.below_b) == (False, False)
    assert verdict.equity_a == most * 10**12
