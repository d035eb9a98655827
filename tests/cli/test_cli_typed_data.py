"""What `channeld hash ... --typed-data` prints is what wallets sign: eth-account here, and cast where it is installed.

Both sign the printed JSON with a key; the signature must be one of the digest that `channeld hash` prints beside it.
"""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from channeld.core.crypto import address_of, recover, sign_digest
from channeld.core.files import body_to_json, state_to_json
from channeld.core.state import Account as Balance
from channeld.core.state import Body, Instrument, Kind, Position, State
from channeld.core.terms import feed_id
from channeld.core.wad import WAD

KEY = bytes.fromhex("11" * 32)
ADJUDICATOR = "0x" + "33" * 20
DOMAIN = ("--chain-id", "31337", "--adjudicator", ADJUDICATOR)
EXPIRY = 1_924_588_800


def address(digit):
    return "0x" + digit * 40


@pytest.fixture
def files(cli, tmp_path):
    """A terms file, a state file and a body file; what their subjects are called at the command line."""
    terms = tmp_path / "terms.toml"
    parties = ("--a", f"{address('1')}/{address('7')}", "--b", address("2"), "--collateral", address("5"))
    signers = ("--oracle-signer", address("9"), "--oracle-signer", address("8"), "--oracle-signer", address("6"))
    assert cli("channel", "template", terms, *parties, *signers).exit_code == 0
    units = 10**6
    body = Body(
        EXPIRY - 86_400,
        WAD,
        b"\x11" * 32,
        Balance(250_000 * units, 250_000 * units, 0),
        Balance(249_000 * units, 250_000 * units, 1_000 * units),
        (
            Position(Instrument(Kind.PERPETUAL, feed_id("BTC"), 0, 0), -2 * WAD, 95_000 * WAD, -WAD // 10, 0),
            Position(
                Instrument(Kind.CALL, feed_id("ETH"), EXPIRY, 3_000 * WAD), 5 * WAD, 120 * WAD, 0, WAD * 65 // 100
            ),
        ),
    )
    state = tmp_path / "state.json"
    state.write_text(json.dumps(state_to_json(State(b"\x22" * 32, 7, body))), encoding="utf-8")
    alone = tmp_path / "body.json"
    alone.write_text(json.dumps({"body": body_to_json(body)}), encoding="utf-8")
    return {"terms": (terms, "channel"), "state": (state, "digest"), "body": (alone, "")}


@pytest.fixture
def printed(cli, files):
    """The typed data that the command prints for a subject, and the digest it prints beside it."""

    def of(subject):
        path, digest = files[subject]
        told = json.loads(cli("hash", subject, path, *DOMAIN, "--json").stdout)
        typed = cli("hash", subject, path, *DOMAIN, "--typed-data")
        assert typed.exit_code == 0, typed.stderr
        return typed.stdout, bytes.fromhex(told[digest][2:])

    return of


@pytest.mark.parametrize("subject", ["terms", "state"])
def test_eth_account_signs_the_digest_that_is_printed(printed, subject):
    text, digest = printed(subject)
    signed = Account.sign_message(encode_typed_data(full_message=json.loads(text)), KEY)
    assert bytes(signed.message_hash) == digest
    assert bytes(signed.signature) == sign_digest(KEY, digest)
    assert recover(digest, bytes(signed.signature)) == address_of(KEY)


def test_a_body_alone_is_never_signed(cli, clear, files):
    clear(cli("hash", "body", files["body"][0], "--typed-data"), 11, "channeld hash state")


@pytest.mark.cast
@pytest.mark.skipif(shutil.which("cast") is None, reason="cast is not installed")
@pytest.mark.parametrize("subject", ["terms", "state"])
def test_cast_signs_the_digest_that_is_printed(printed, subject, tmp_path):
    text, digest = printed(subject)
    path = tmp_path / "typed.json"
    path.write_text(text, encoding="utf-8")
    command = ["cast", "wallet", "sign", "--private-key", "0x" + KEY.hex(), "--data", "--from-file", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    signature = bytes.fromhex(done.stdout.strip()[2:])
    assert recover(digest, signature) == address_of(KEY)
    assert signature == sign_digest(KEY, digest)
