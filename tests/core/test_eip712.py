"""Hand-packed hashing against eth-account's encoder for every type, and the wallet's JSON."""

import json
import shutil
import subprocess
from dataclasses import replace

import pytest
from eth_account import Account as EthAccount
from eth_account._utils.encode_typed_data.encoding_and_hashing import hash_struct
from eth_account.messages import encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import DOMAIN, MAKER, T0, Desk, bodies, call, leg, make_terms, perpetual, terms_strategy, words

from channeld.core import eip712
from channeld.core.crypto import keccak256, sign_digest
from channeld.core.eip712 import (
    Close,
    Domain,
    MessageRangeError,
    Quote,
    Resume,
    Withdrawal,
    body_hash,
    channel_id,
    close_digest,
    encode_type,
    oracle_hash,
    quote_digest,
    resume_digest,
    state_digest,
    terms_hash,
    typed_data,
    withdrawal_digest,
)
from channeld.core.operations import Trade
from channeld.core.state import Account, State

domains = st.builds(Domain, st.integers(0, (1 << 256) - 1), st.binary(min_size=20, max_size=20))
u64, u128 = st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 128) - 1)
accounts = st.builds(Account, u128, u128, u128)


def reference_digest(data):
    """The digest that eth-account signs for typed data."""
    message = encode_typed_data(full_message=json.loads(json.dumps(data)))
    return keccak256(b"\x19" + message.version + message.header + message.body)


def reference_struct(data, name, message=None):
    types = {k: v for k, v in data["types"].items() if k != "EIP712Domain"}
    return hash_struct(name, types, message if message is not None else data["message"])


def test_type_strings_are_the_protocols():
    assert encode_type("Body") == (
        "Body(uint64 asOf,uint128 collateralMark,bytes32 journal,Account a,Account b,Position[] positions)"
        "Account(uint128 balance,uint128 deposited,uint128 withdrawn)"
        "Position(uint8 kind,bytes32 feed,uint64 expiry,uint128 strike,int128 size,uint128 mark,int64 carry,uint64 vol)"
    )
    assert encode_type("Terms").startswith("Terms(Party a,Party b,address collateral,uint8 decimals,")
    assert [part.split("(")[0] for part in encode_type("Terms").split(")")[:-1]] == [
        "Terms",
        "Market",
        "Oracle",
        "Party",
    ]
    assert [part.split("(")[0] for part in encode_type("State").split(")")[:-1]] == [
        "State",
        "Account",
        "Body",
        "Position",
    ]


@given(domains, terms_strategy())
@settings(max_examples=40, deadline=None)
def test_terms(domain, terms):
    data = typed_data(domain, "Terms", terms)
    assert channel_id(domain, terms) == reference_digest(data)
    assert terms_hash(terms) == reference_struct(data, "Terms")
    assert oracle_hash(terms.oracle) == reference_struct(data, "Oracle", data["message"]["oracle"])


@given(domains, words, u64, bodies())
@settings(max_examples=60, deadline=None)
def test_state_and_body(domain, channel, version, body):
    data = typed_data(domain, "State", State(channel, version, body))
    assert body_hash(body) == reference_struct(data, "Body", data["message"]["body"])
    assert state_digest(domain, channel, version, body_hash(body)) == reference_digest(data)
    assert typed_data(domain, "Body", body)["message"] == data["message"]["body"]


@given(domains, st.builds(Withdrawal, words, u64, words, u128, u128))
@settings(max_examples=25, deadline=None)
def test_withdrawal(domain, withdrawal):
    assert withdrawal_digest(domain, withdrawal) == reference_digest(typed_data(domain, "Withdrawal", withdrawal))


@given(domains, st.builds(Close, words, u64, u64, accounts, accounts))
@settings(max_examples=25, deadline=None)
def test_close(domain, close):
    assert close_digest(domain, close) == reference_digest(typed_data(domain, "Close", close))


@given(domains, st.builds(Resume, words, st.integers(0, (1 << 32) - 1), u64))
@settings(max_examples=25, deadline=None)
def test_resume(domain, resume):
    assert resume_digest(domain, resume) == reference_digest(typed_data(domain, "Resume", resume))


@given(domains, st.builds(Quote, words, st.binary(min_size=16, max_size=16), st.integers(0, 1), words, u64))
@settings(max_examples=25, deadline=None)
def test_quote(domain, quote):
    assert quote_digest(domain, quote) == reference_digest(typed_data(domain, "Quote", quote))


def test_a_wallets_signature_is_ours():
    terms = make_terms()
    data = typed_data(DOMAIN, "Terms", terms)
    signed = EthAccount.sign_message(encode_typed_data(full_message=data), MAKER)
    assert bytes(signed.signature) == sign_digest(MAKER, channel_id(DOMAIN, terms))


def test_every_parameter_of_the_terms_changes_the_channel():
    terms = make_terms()
    seen = {channel_id(DOMAIN, terms)}
    variants = [
        replace(terms, salt=b"\2" * 32),
        replace(terms, sequencer=1),
        replace(terms, a=terms.b, b=terms.a),
        replace(terms, oracle=replace(terms.oracle, max_age=61)),
        replace(terms, markets=terms.markets[:1]),
        replace(terms, cure_period=terms.cure_period - 1),
    ]
    seen |= {channel_id(DOMAIN, variant) for variant in variants}
    seen |= {channel_id(Domain(1, DOMAIN.adjudicator), terms), channel_id(Domain(31337, b"\1" * 20), terms)}
    assert len(seen) == len(variants) + 3


def test_integers_that_json_would_round_travel_as_text():
    account = Account((1 << 53) - 1, (1 << 53), 0)
    shown = eip712.message_data("Account", account)
    assert shown == {"balance": (1 << 53) - 1, "deposited": str(1 << 53), "withdrawn": 0}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Domain(-1, b"\0" * 20),
        lambda: Domain(1, b"\0" * 19),
        lambda: Withdrawal(b"\0" * 32, 1 << 64, b"\0" * 32, 0, 0),
        lambda: Withdrawal(b"\0" * 31, 1, b"\0" * 32, 0, 0),
        lambda: Withdrawal(b"\0" * 32, 1, b"\0" * 32, 1 << 128, 0),
        lambda: Close(b"\0" * 32, 1, -1, Account(), Account()),
        lambda: Resume(b"\0" * 32, 1 << 32, 1),
        lambda: Resume(b"\0" * 32, True, 1),
        lambda: Quote(b"\0" * 32, b"\0" * 15, 0, b"\0" * 32, 1),
        lambda: Quote(b"\0" * 32, b"\0" * 16, 2, b"\0" * 32, 1),
        lambda: typed_data(DOMAIN, "Nothing", make_terms()),
        lambda: typed_data(DOMAIN, "State", make_terms()),
    ],
)
def test_what_does_not_fit_its_type_is_refused(make):
    with pytest.raises(MessageRangeError):
        make()


@pytest.mark.cast
@pytest.mark.skipif(shutil.which("cast") is None, reason="cast is not installed (npm: @foundry-rs/cast)")
@pytest.mark.parametrize("primary", ["Terms", "State"])
def test_cast_signs_the_same(primary, tmp_path):
    terms = make_terms()
    channel = channel_id(DOMAIN, terms)
    body = _example_body(channel)
    value = {"Terms": terms, "State": State(channel, 7, body)}[primary]
    digest = {"Terms": channel, "State": state_digest(DOMAIN, channel, 7, body_hash(body))}[primary]
    path = tmp_path / "typed.json"
    path.write_text(json.dumps(typed_data(DOMAIN, primary, value)))
    command = ["cast", "wallet", "sign", "--private-key", "0x" + MAKER.hex(), "--data", "--from-file", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "0x" + sign_digest(MAKER, digest).hex()


def _example_body(channel):
    desk = Desk()
    desk.do(Trade(0, (leg(call(), -5, 150), leg(perpetual(), 2, 3000, carry=-(10**17)))), at=T0 + 5)
    assert desk.state.channel == channel
    return desk.body
