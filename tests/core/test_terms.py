"""Terms that `open` would refuse are refused here, naming the field."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from strategies import ETH, USDC, make_oracle, make_terms, terms_strategy

from channeld.core.errors import InvalidTermsError
from channeld.core.terms import ZERO_FEED, Market, Party, feed_id, feed_symbol
from channeld.core.wad import WAD


@given(terms_strategy())
@settings(max_examples=30, deadline=None)
def test_what_the_strategy_makes_is_valid(terms):
    assert replace(terms) == terms
    assert [terms.market(feed).feed for feed in terms.feeds] == list(terms.feeds)
    assert (terms.party(0), terms.party(1)) == (terms.a, terms.b)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"quorum": 1}, "quorum"),
        ({"quorum": 4}, "quorum"),
        ({"signers": ()}, "signers"),
        ({"signers": (b"\2" * 20, b"\1" * 20, b"\3" * 20)}, "ascend"),
        ({"signers": (b"\1" * 20, b"\1" * 20, b"\3" * 20)}, "ascend"),
        ({"signers": (b"\0" * 20, b"\1" * 20, b"\3" * 20)}, "zero address"),
        ({"signers": (b"\1" * 19, b"\2" * 20, b"\3" * 20)}, "20 bytes"),
        ({"signers": tuple(bytes([n]) * 20 for n in range(1, 11)), "quorum": 6}, "1 to 9"),
        ({"samples": 0}, "samples"),
        ({"samples": 16}, "45"),
        ({"sample_gap": 15}, "multiple"),
        ({"sample_gap": 0}, "sampleGap"),
        ({"tick": 0}, "tick"),
        ({"grace": 0}, "grace"),
        ({"max_age": 1 << 32}, "max_age"),
    ],
)
def test_oracles_that_cannot_be(changes, words):
    with pytest.raises(InvalidTermsError, match=words):
        make_oracle(**changes)


MARKET = Market(ETH, WAD // 10, WAD, WAD, 0, 0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"b": Party(make_terms().a.signer, b"\1" * 20)}, "differ"),
        ({"collateral": b"\0" * 20}, "collateral"),
        ({"collateral": b"\1" * 21}, "collateral"),
        ({"decimals": 5}, "6..18"),
        ({"decimals": 19}, "6..18"),
        ({"haircut": WAD + 1}, "haircut"),
        ({"markets": ()}, "1 to 8"),
        ({"markets": (MARKET, MARKET)}, "ascend"),
        ({"markets": make_terms().markets[::-1]}, "ascend"),
        ({"markets": tuple(replace(MARKET, feed=bytes([n]) * 32) for n in range(1, 10))}, "1 to 8"),
        ({"initial_factor": WAD - 1}, "initialFactor"),
        ({"challenge_period": 0}, "challengePeriod"),
        ({"cure_period": 0}, "curePeriod"),
        ({"challenge_period": 100, "cure_period": 101}, "curePeriod"),
        ({"cure_period": 29}, "sampleGap"),
        ({"oracle": make_oracle(grace=3609)}, "grace"),
        ({"sequencer": 2}, "sequencer"),
        ({"salt": b""}, "salt"),
        ({"collateral_feed": ETH, "haircut": WAD // 10}, "priceScan"),
        ({"collateral_feed": b"ETH"}, "collateralFeed"),
    ],
)
def test_terms_that_cannot_be(changes, words):
    with pytest.raises(InvalidTermsError, match=words):
        make_terms(**changes)


def test_what_lies_exactly_on_a_bound_is_allowed():
    make_terms(haircut=WAD, cure_period=30, oracle=make_oracle(grace=40), initial_factor=WAD)
    make_terms(collateral_feed=ETH, haircut=11 * WAD // 100)
    make_terms(collateral_feed=USDC, haircut=0)
    make_terms(oracle=make_oracle(samples=1, sample_gap=0))
    make_terms(collateral_feed=ZERO_FEED, decimals=18)


@pytest.mark.parametrize("make", [lambda: Party(b"\0" * 20, b"\1" * 20), lambda: Party(b"\1" * 20, b"\0" * 20)])
def test_zero_addresses_are_no_parties(make):
    with pytest.raises(InvalidTermsError, match="zero address"):
        make()


def test_a_market_has_a_feed_and_a_down_shock_of_at_most_one():
    for changes in ({"feed": ZERO_FEED}, {"vol_down": WAD + 1}, {"price_scan": 1 << 64}, {"wing_cover": -1}):
        with pytest.raises(InvalidTermsError):
            replace(MARKET, **changes)


def test_feeds_are_symbols_padded_on_the_right():
    assert feed_id("ETH") == b"ETH" + bytes(29)
    assert feed_symbol(feed_id("stETH")) == "stETH"
    assert feed_symbol(b"\xff" * 32) == "0x" + "ff" * 32
    for bad in ("", "X" * 33, "\u0395TH", "A\0B"):
        with pytest.raises(InvalidTermsError):
            feed_id(bad)
