"""The committed vectors: made from the code as it is, and true when read as another implementation would."""

import pytest
from eth_account.messages import encode_typed_data
from vector_files import VECTORS, load, made_by, octets

from channeld.core.crypto import keccak256, recover
from channeld.core.eip712 import Domain, body_hash, channel_id, state_digest
from channeld.core.errors import ChanneldError
from channeld.core.files import batch_to_json, body_to_json, terms_from_json
from channeld.core.journal import replay
from channeld.core.operations import decode_batch
from channeld.core.state import genesis
from channeld.core.transition import apply


@pytest.fixture(scope="module")
def made():
    return made_by("make_protocol")


@pytest.mark.parametrize("name", ["hashing.json", "batches.json"])
def test_the_committed_vectors_are_what_the_code_makes(made, name):
    assert (VECTORS / name).read_text() == made[name], (
        "run python tests/vectors/make_protocol.py and read the difference"
    )


def test_type_hashes_are_of_their_strings():
    for entry in load("hashing.json")["types"].values():
        assert entry["hash"] == "0x" + keccak256(entry["string"].encode()).hex()


@pytest.mark.parametrize("primary", ["Terms", "State", "Withdrawal", "Close", "Resume", "Quote"])
def test_digests_and_signatures_as_a_wallet_would(primary):
    data = load("hashing.json")
    entry = data["signed"][primary]
    message = encode_typed_data(full_message=entry["typedData"])
    digest = keccak256(b"\x19" + message.version + message.header + message.body)
    assert "0x" + digest.hex() == entry["digest"]
    for name in ("maker", "taker"):
        assert recover(digest, octets(entry[name])) == octets(data["keys"][name]["address"])


def test_a_channels_life_replays():
    data = load("batches.json")
    terms = terms_from_json(data["terms"])
    domain = Domain(data["chainId"], octets(data["adjudicator"]))
    state = genesis(channel_id(domain, terms))
    assert state.channel == octets(data["channel"])
    before = state
    for step in data["steps"]:
        before, raw = state, octets(step["batch"])
        applied = apply(terms, state, raw, step["version"])
        state = applied.state
        assert batch_to_json(decode_batch(raw)) == step["decoded"]
        assert body_to_json(state.body) == step["body"]
        assert "0x" + body_hash(state.body).hex() == step["bodyHash"]
        digest = state_digest(domain, state.channel, state.version, body_hash(state.body))
        assert "0x" + digest.hex() == step["stateDigest"]
        assert applied.closing == step["closing"]
        assert [s.flagged for s in applied.settled] == [s["flagged"] for s in step["settled"]]
    assert replay(terms, state.channel, [(s["version"], octets(s["batch"])) for s in data["steps"]]) == state
    assert data["steps"][-1]["closing"]
    for refused in data["refused"]:
        with pytest.raises(ChanneldError) as caught:
            apply(terms, before, octets(refused["batch"]))
        assert (caught.value.code, type(caught.value).__name__) == (refused["code"], refused["error"])
