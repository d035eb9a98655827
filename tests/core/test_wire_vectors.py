"""The committed vectors of links, messages and agreement: made from the code, and true when read by hand."""

from __future__ import annotations

import pytest
from vector_files import VECTORS, load, made_by, octets

from channeld.core import wire
from channeld.core.crypto import keccak256, recover
from channeld.core.eip712 import Domain, body_hash, state_digest
from channeld.core.errors import ChanneldError
from channeld.core.files import terms_from_json
from channeld.core.journal import replay
from channeld.core.record_encoding import decode_body, decode_terms
from channeld.core.state import genesis
from channeld.core.transition import apply

NAMES = ("handshake.json", "messages.json", "agreement.json")


@pytest.fixture(scope="module")
def made():
    return made_by("make_wire")


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_vectors_are_what_the_code_makes(made, name):
    assert (VECTORS / name).read_text() == made[name], "run python tests/vectors/make_wire.py and read the difference"


def test_there_is_a_message_of_every_type():
    assert {m["type"] for m in load("messages.json")["messages"]} == set(wire.REGISTRY)


@pytest.mark.parametrize("entry", load("messages.json")["messages"], ids=lambda e: e["name"])
def test_the_bytes_of_a_message_are_its_fields(entry):
    message = wire.unpack(octets(entry["bytes"]))
    assert (type(message).__name__, message.TYPE) == (entry["name"], entry["type"])
    assert octets(entry["bytes"])[:1] == bytes([0x90 + 1 + len(entry["fields"])])
    assert octets(entry["bytes"])[1] == entry["type"]


@pytest.mark.parametrize("entry", load("messages.json")["refused"], ids=lambda e: e["name"])
def test_what_is_no_message_is_refused_with_its_code(entry):
    with pytest.raises(ChanneldError) as error:
        wire.unpack(octets(entry["bytes"]))
    assert (type(error.value).__name__, error.value.code) == (entry["error"], entry["code"])


def test_terms_as_they_travel():
    entry = load("messages.json")["terms"]
    assert decode_terms(octets(entry["bytes"])) == terms_from_json(entry["value"])


def test_each_end_of_a_link_is_bound_to_its_signer():
    data = load("handshake.json")
    for end in data["ends"].values():
        parts = [data["identityTag"], end["role"], end["handshakeHash"], end["staticPublic"], end["address"]]
        digest = keccak256(b"".join(map(octets, parts)))
        assert digest == octets(end["identityDigest"])
        assert recover(digest, octets(end["signature"])) == octets(end["address"])
    assert data["payloads"][0] == data["payloads"][1] == f"0x91{data['version']:02x}"
    # the first message is in clear: 32 bytes of ephemeral key, then the payload
    assert data["messages"][0].endswith(data["payloads"][0][2:])


def test_every_state_of_the_transcript_follows_from_what_was_said():
    """Batches by their journal, digests and signatures by hand; the states of both ends agree."""
    data = load("agreement.json")
    domain = Domain(data["chainId"], octets(data["adjudicator"]))
    terms, channel = terms_from_json(data["terms"]), octets(data["channel"])
    signers = {"maker": terms.a.signer, "taker": terms.b.signer}
    seen: dict[str, str] = {}
    for scene in data["scenes"]:
        for entry in scene["messages"]:
            assert wire.unpack(octets(entry["bytes"])).channel == channel
            for state in entry.get("coSigned", ()):
                body = decode_body(octets(state["record"]))
                assert body.journal == octets(state["journal"])
                assert body_hash(body) == octets(state["bodyHash"])
                digest = state_digest(domain, channel, int(state["version"]), body_hash(body))
                assert digest == octets(state["stateDigest"])
                for role, signer in signers.items():
                    assert recover(digest, octets(state[role])) == signer
                assert seen.setdefault(state["version"], state["bodyHash"]) == state["bodyHash"]
    assert len(seen) >= 8


def test_the_journal_is_a_chain_of_hashes_and_survives_a_loss():
    data = load("agreement.json")
    terms, channel = terms_from_json(data["terms"]), octets(data["channel"])
    whole = [(int(e["version"]), octets(e["batch"])) for e in data["journals"]["maker"]]
    state, journal = genesis(channel), channel
    for (version, raw), entry in zip(whole, data["journals"]["maker"], strict=True):
        assert keccak256(raw) == octets(entry["batchHash"])
        journal = keccak256(journal + version.to_bytes(8, "big") + keccak256(raw))
        state = apply(terms, state, raw, version).state
        assert state.body.journal == journal
    # the taker's journal lacks what it lost, and goes on from the leap
    rest = [(int(e["version"]), octets(e["batch"])) for e in data["journals"]["taker"]]
    assert set(rest) < set(whole)
    leap = next(v for v, _ in whole if v > 1 << 32)
    before = replay(terms, channel, [pair for pair in whole if pair[0] < leap])
    assert replay(terms, channel, [pair for pair in rest if pair[0] >= leap], before) == state


def test_the_scenes_are_there():
    names = {m["name"] for scene in load("agreement.json")["scenes"] for m in scene["messages"]}
    assert names == {"Sync", "Propose", "Accept", "Reject", "Document", "Recover"}
