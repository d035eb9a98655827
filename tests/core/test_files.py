"""JSON forms of terms, bodies and states: they read back, and every mistake names its field."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import DOMAIN, ETH, T0, Desk, bodies, call, leg, make_terms, perpetual, terms_strategy, words

from channeld.core.eip712 import typed_data
from channeld.core.errors import InvalidStateError, InvalidTermsError
from channeld.core.files import (
    FileFormatError,
    address_from_text,
    batch_to_json,
    body_from_json,
    body_to_json,
    state_from_json,
    state_to_json,
    terms_from_json,
    terms_to_json,
)
from channeld.core.instruments import instrument_name
from channeld.core.operations import Batch, CloseChannel, Deposit, Mark, Trade, Transfer, Withdraw
from channeld.core.state import State


def through_json(data):
    return json.loads(json.dumps(data))


@given(terms_strategy())
@settings(max_examples=40, deadline=None)
def test_terms_read_back(terms):
    assert terms_from_json(through_json(terms_to_json(terms))) == terms
    assert terms_from_json(through_json(typed_data(DOMAIN, "Terms", terms)["message"])) == terms


@given(words, st.integers(0, (1 << 64) - 1), bodies())
@settings(max_examples=40, deadline=None)
def test_states_read_back(channel, version, body):
    state = State(channel, version, body)
    assert state_from_json(through_json(state_to_json(state))) == state
    assert state_from_json(through_json(typed_data(DOMAIN, "State", state)["message"])) == state
    assert body_from_json(through_json(body_to_json(body))) == body


def example_body():
    desk = Desk()
    desk.do(Trade(0, (leg(call(), 5, 150), leg(perpetual(), 1, 3000))), at=T0)
    return body_to_json(desk.body)


def test_files_read_well():
    terms, body = terms_to_json(make_terms()), example_body()
    assert [m["feed"] for m in terms["markets"]] == ["BTC", "ETH"]
    assert terms["collateralFeed"] == ""
    assert body["positions"][1] == {
        "kind": "CALL",
        "feed": "ETH",
        "expiry": T0 + 864_000,
        "strike": "3000000000000000000000",
        "size": "5000000000000000000",
        "mark": "150000000000000000000",
        "carry": 0,
        "vol": "600000000000000000",
    }


def change(data, path, value):
    """The data with one field, by its path, replaced; or taken away where value is `...`."""
    *way, last = path
    inner = data
    for step in way:
        inner = inner[step]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("salt",), ..., "terms.salt: is missing"),
        (("sallt",), 5, "terms.sallt: is no field"),
        (("a", "signer"), "0x12", r"terms.a.signer: must be 20 bytes"),
        (("a", "signer"), 5, r"terms.a.signer: must be 0x"),
        (("a", "signer"), "0x5FBDB2315678afecb367f032d93F642f64180aa3", "terms.a.signer: .*checksum"),
        (("a",), [], "terms.a: must be an object"),
        (("oracle", "signers", 1), "0xzz", r"terms.oracle.signers\[1\]"),
        (("oracle", "signers"), "0x", "terms.oracle.signers: must be a list"),
        (("oracle", "tick"), 10.0, "terms.oracle.tick: must be an integer"),
        (("oracle", "tick"), True, "terms.oracle.tick: must be an integer"),
        (("oracle", "tick"), "10.5", "terms.oracle.tick: must be an integer"),
        (("oracle", "tick"), 1 << 32, "terms.oracle.tick: must fit uint32"),
        (("decimals",), -1, "terms.decimals: must fit uint8"),
        (("haircut",), "x" * 100, "terms.haircut"),
        (("markets", 0, "feed"), "\u0395TH", r"terms.markets\[0\].feed"),
        (("markets", 0, "feed"), 5, r"terms.markets\[0\].feed"),
        (("markets", 0, "feed"), "0x" + "f" * 63, r"terms.markets\[0\].feed"),
    ],
)
def test_mistakes_in_terms_are_named(path, value, words):
    with pytest.raises(FileFormatError, match=words) as caught:
        terms_from_json(change(terms_to_json(make_terms()), path, value))
    assert caught.value.details["field"].startswith("terms.")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("oracle", "quorum"), 1, "terms.oracle: oracle.quorum"),
        (("markets", 1, "feed"), "", r"terms.markets\[1\]: market.feed"),
        (("sequencer",), 2, "terms: sequencer"),
    ],
)
def test_terms_that_break_a_rule_keep_their_error(path, value, words):
    with pytest.raises(InvalidTermsError, match=words):
        terms_from_json(change(terms_to_json(make_terms()), path, value))


@pytest.mark.parametrize(
    ("path", "value", "error", "words"),
    [
        (("positions", 1, "kind"), "STRADDLE", FileFormatError, r"body.positions\[1\].kind"),
        (("positions", 1, "kind"), 4, FileFormatError, r"body.positions\[1\].kind"),
        (("positions", 1, "vol"), 0, InvalidStateError, r"body.positions\[1\]: an option's vol"),
        (("positions", 1, "size"), str(1 << 127), FileFormatError, "int128"),
        (("positions", 1), 5, FileFormatError, r"body.positions\[1\]: must be an object"),
        (("a", "balance"), 0, InvalidStateError, "body: balances"),
        (("journal",), "0x00", FileFormatError, "body.journal: must be 32 bytes"),
    ],
)
def test_mistakes_in_bodies_are_named(path, value, error, words):
    with pytest.raises(error, match=words):
        body_from_json(change(example_body(), path, value))


@pytest.mark.parametrize("kind", ["call", "Call", 2, "2"])
def test_a_kind_may_be_named(kind):
    body = body_from_json(change(example_body(), ("positions", 1, "kind"), kind))
    assert body.positions[1].instrument == call()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_any_other_json_is_refused(value):
    for read in (terms_from_json, body_from_json, state_from_json):
        with pytest.raises(FileFormatError):
            read(value)


@given(json_values, st.sampled_from(["a", "oracle", "markets", "salt", "haircut", "collateral", "collateralFeed"]))
def test_any_other_field_is_refused_or_allowed_by_its_type(value, name):
    data = terms_to_json(make_terms())
    with contextlib.suppress(FileFormatError, InvalidTermsError):
        terms_from_json(change(data, (name,), value))
        assert name in {"haircut", "collateralFeed"}


def test_addresses():
    lower = "0x5fbdb2315678afecb367f032d93f642f64180aa3"
    assert address_from_text(lower) == address_from_text("0x" + lower[2:].upper()) == DOMAIN.adjudicator
    assert address_from_text("0x5FbDB2315678afecb367f032d93F642f64180aa3") == DOMAIN.adjudicator
    with pytest.raises(FileFormatError, match=r"payout: .*checksum"):
        address_from_text("0x5fbDB2315678afecb367f032d93F642f64180aa3", "payout")
    assert ETH[:3] == b"ETH"


def test_batches_read_well():
    mark = Mark(1, T0, (ETH,), (b"p",), (10**17,), (0,), ((ETH, T0),))
    trade = Trade(0, (leg(call(), 5, 150),), 25, b"note")
    others = (Transfer(0, 5, b"m"), Deposit(0, 1, 2), Withdraw(1, 7), CloseChannel(0))
    shown = through_json(batch_to_json(Batch(T0 * 1000, b"s" * 16, (trade, mark, *others))))
    assert [o["operation"] for o in shown["operations"]] == [
        "TRADE",
        "MARK",
        "TRANSFER",
        "DEPOSIT",
        "WITHDRAW",
        "CLOSE",
    ]
    assert shown["operations"][0]["legs"] == [
        {"instrument": instrument_name(call()), "sizeDelta": "5", "price": "150", "carry": "0", "vol": "0.6"}
    ]
    assert shown["operations"][0]["fee"] == "25"
    assert shown["operations"][1]["carries"] == ["0.1"]
    assert shown["operations"][1]["flagged"] == [{"feed": "ETH", "expiry": T0}]
    assert [o["origin"] for o in shown["operations"]] == ["a", "b", "a", "a", "b", "a"]
