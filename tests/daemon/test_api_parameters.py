"""Whatever is given to a method of the API: a typed error or a result that is JSON, never a bug of ours."""

from __future__ import annotations

import asyncio
import json
import math
import secrets

import pytest
from desk_world import two_desks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channeld.core.crypto import checksum_address
from channeld.core.errors import ChanneldError, InternalError
from channeld.core.files import terms_to_json
from channeld.daemon.methods import Methods

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 2**63, 2**64, 10**40]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["\ud800", "\x00", "0x", "1e5", "-0", "-1", "0.0000001", "9" * 40, "ETH-PERP", "ETH-1JAN01-1-C"]),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["instrument", "size", "price", "vol", "carry", "x"]), inner, max_size=5)
    ),
    max_leaves=6,
)
# what would make a test wait, or end the channel: a number of seconds, no version at all
NOT_A_WAIT = JSON.filter(
    lambda v: not isinstance(v, int | float | str | None) or (isinstance(v, float) and math.isnan(v))
)
LEG = {"instrument": "ETH-PERP", "size": "0.001", "price": "3000"}


def baseline(channel, terms):
    """Parameters with which each method does something."""
    return {
        "private/peer_add": {"name": "third", "address": checksum_address(b"\7" * 20), "url": ""},
        "private/channel_propose": {"peer": "taker", "terms": terms},
        "private/channel_accept": {"hash": channel},
        "private/channel": {"channel": channel},
        "private/deposit": {"channel": "0x123456", "amount": "1"},
        "private/withdraw": {"channel": channel, "amount": "0.000001"},
        "private/close": {"channel": "0x123456"},
        "private/trade": {
            "channel": channel,
            "legs": [LEG],
            "fee": "0",
            "reference": "desk 7",
            "wait_s": 0.0,
        },
        "private/offer_accept": {"id": "00" * 16},
        "private/offer_reject": {"id": "00" * 16, "reason": "no"},
        "private/policy": {"peer": "taker"},
        "private/policy_set": {
            "peer": "taker",
            "auto_accept": False,
            "max_notional": "1",
            "price_band": "1",
            "instruments": ["ETH-*"],
            "sizes": [{"instrument": "ETH-*", "size": "1"}],
            "never": {"channel_vega": "1"},
        },
        "private/transfer": {"channel": channel, "amount": "0.000001", "memo": "x"},
        "private/mark": {"channel": "0x123456"},
        "private/calls": {"channel": channel},
        "private/expiries": {"channel": channel, "within_s": 86_400},
        "private/call_margin": {"channel": "0x123456"},
        "private/resume": {"channel": channel},
        "private/surface_set": {"channel": channel, "surface": {"smiles": []}},
        "private/surface": {"channel": channel},
        "private/vols_set": {"channel": channel, "vols": [], "carries": []},
        "private/positions": {"channel": channel},
        "private/margin": {"channel": channel, "prices": {"ETH": "3000"}},
        "private/what_if": {"channel": channel, "legs": [LEG], "fee": "0"},
        "private/compression": {"channel": channel},
        "private/greeks": {"channel": channel},
        "private/scenario": {"channel": channel, "spot_moves": ["-0.1", "0.1"], "vol_moves": ["0"], "days": "1"},
        "private/profit": {"channel": channel, "intervals": 3},
        "private/limits": {"channel": channel},
        "private/journal": {"channel": channel},
        "private/audit": {"channel": channel},
        "private/audit_page": {"channel": channel, "after": 0, "until": 2, "limit": 5},
        "private/events": {"channel": channel, "since": 0, "wait_s": 0.0},
        "private/challenge": {"channel": "0x123456", "version": 1},
        "private/dispute": {"channel": channel},
        "private/towers": {"check": True},
        "private/subscribe": {"since": 0, "channel": channel, "kinds": ["alert"]},
        "private/token_create": {"name": "x", "scopes": ["read"], "days": 1},
        "private/token_revoke": {"token": "x"},
        "private/operator_log": {"after": 0, "limit": 2},
        "private/approve": {"id": "x"},
        "private/approval_reject": {"id": "x"},
        "private/alerts_test": {"severity": "critical"},
        "private/bundle": {"channel": channel},
        "private/rfq": {
            "instrument": "ETH-PERP",
            "size": "0.001",
            "side": "two-way",
            "peers": ["taker"],
            "all_or_none": False,
            "lifetime_s": 1,
            "wait_s": 0.0,
        },
        "private/quote": {"rfq": "00" * 16, "bid": "1", "ask": "2", "size": "1", "valid_s": 1},
        "private/quote_pass": {"rfq": "00" * 16, "reason": "no"},
        "private/novate": {
            "channel": channel,
            "to": channel,
            "positions": [{"instrument": "ETH-PERP", "size": "1"}],
            "price": "3000",
            "max_cost": "0",
            "wait_s": 0.0,
        },
        "private/quote_take": {"id": "00" * 16, "wait_s": 0.0},
        "private/order": {
            "instrument": "ETH-PERP",
            "side": "buy",
            "size": "0.001",
            "type": "limit",
            "limit": "1",
            "force": "ioc",
            "post_only": False,
            "reduce_only": False,
            "cancel_on_disconnect": False,
            "peers": ["taker"],
        },
        "private/order_group": {"kind": "oco", "orders": []},
        "private/order_cancel": {"id": 1},
        "private/order_cancel_after": {"seconds": 0},
        "private/orders": {"all": True},
        "private/book": {"instrument": "ETH-PERP"},
        "private/market_set": {"instrument": "ETH-PERP", "bids": [], "asks": [], "peers": ["taker"], "valid_s": 1},
    }


NO_PARAMETERS = {
    "public/time",
    "public/schema",
    "private/status",
    "private/peers",
    "private/channel_proposals",
    "private/channels",
    "private/offers",
    "private/doctor",
    "private/shutdown",
    "private/tokens",
    "private/approvals",
    "private/alerts",
    "private/rfqs",
    "private/quotes_broken",
    "private/order_cancel_all",
}


def _typed(error):
    assert not isinstance(error, InternalError), error
    assert error.code
    json.dumps(error.as_data())


def _names():
    return sorted((m, p) for m, parameters in baseline("", {}).items() for p in parameters)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A world on a loop of its own, that stands still between two calls."""
    loop = asyncio.new_event_loop()
    manager = two_desks(tmp_path_factory.mktemp("world"))
    world = loop.run_until_complete(manager.__aenter__())
    loop.run_until_complete(world.open())
    yield loop, world
    loop.run_until_complete(manager.__aexit__(None, None, None))
    loop.close()


def test_the_table_of_this_test_is_whole():
    assert {m for m, _ in _names()} | NO_PARAMETERS == set(Methods(None).table)


@pytest.mark.parametrize(("method", "parameter"), _names())
def test_any_value_of_any_parameter_gets_a_typed_error_or_a_result(running, method, parameter):
    loop, world = running
    values = NOT_A_WAIT if parameter in {"wait_s", "version"} else JSON

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(value=values)
    def check(value):
        params = {**baseline(world.channel, terms_to_json(world.terms))[method], parameter: value}
        try:
            result = loop.run_until_complete(asyncio.wait_for(world.maker.call(method, **params), 20))
        except ChanneldError as error:
            _typed(error)
        else:
            json.dumps(result)

    check()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(
    leg=st.fixed_dictionaries(
        {
            "instrument": st.sampled_from(["ETH-PERP", "ETH-27DEC30-3000-C", "BTC-27DEC30", "X-PERP"]),
            "size": SCALARS,
            "price": SCALARS,
        },
        optional={"vol": SCALARS, "carry": SCALARS},
    ),
    fee=st.sampled_from(["0", "-5", "1" * 39]),
)
def test_any_leg_gets_a_typed_error_or_a_result(running, leg, fee):
    loop, world = running
    call = world.maker.call("trade", channel=world.channel, legs=[leg], fee=fee, wait_s=0.0)
    try:
        result = loop.run_until_complete(asyncio.wait_for(call, 20))
    except ChanneldError as error:
        _typed(error)
    else:
        assert result["status"] in {"pending", "done", "rejected"}
    # what it would do is asked by the same legs, and gets the same errors or figures
    try:
        asked = loop.run_until_complete(
            asyncio.wait_for(world.maker.call("what_if", channel=world.channel, legs=[leg], fee=fee), 20)
        )
    except ChanneldError as error:
        _typed(error)
    else:
        assert {"refused", "before", "after", "largest"} <= asked.keys()


def test_the_channel_works_on_after_all_that(running):
    loop, world = running
    told = loop.run_until_complete(
        world.maker.call("transfer", channel=world.channel, amount="1", memo=secrets.token_hex(4))
    )
    assert told["version"] > 0
    assert loop.run_until_complete(world.taker.call("audit", channel=world.channel))["replayed"]
