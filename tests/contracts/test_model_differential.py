"""Random histories of any calls by anybody: contract and model agree on refusals, events, records and every token."""

import os

import pytest
from contracts_harness import BTC, ETH, NOW, ORACLE_KEYS, key
from duel import PLAIN, REFUSES, Arena
from duel_moves import random_call, random_judgement, random_proof, random_time, signed_body
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channeld.core import crypto

NIGHTLY = os.environ.get("CHANNELD_PROFILE") == "nightly"
STEPS = 40


def random_anchors(arena: Arena, data) -> list:
    """States of several channels, one of them perhaps badly signed, one perhaps of no channel at all."""
    anchors = []
    for duel in data.draw(st.lists(st.sampled_from(arena.duels), max_size=4), "channels"):
        version, body_hash, sigs = signed_body(duel, data.draw(st.integers(0, 6), "version"), data)
        if data.draw(st.integers(0, 9), "forged") == 0:
            sigs = sigs[65:] + sigs[:65]
        anchors.append((duel.id, version, body_hash, sigs))
    return [*anchors, (b"\x55" * 32, 3, b"\x01" * 32, b"")] if data.draw(st.booleans(), "unknown") else anchors


def history(data, steps: int) -> Arena:
    arena = Arena.make(channels=3)
    for _ in range(steps):
        duel = data.draw(st.sampled_from(arena.duels), "channel")
        match data.draw(
            st.sampled_from(["call"] * 6 + ["time"] * 2 + ["prove"] * 3 + ["judge"] * 2 + ["many", "token", "claim"]),
            "what",
        ):
            case "call":
                name, args, sender = random_call(duel, data)
                duel.step(name, *args, sender=sender)
            case "time":
                arena.chain.set_time(random_time(arena, data))
            case "prove":
                random_proof(duel, data)
            case "judge":
                random_judgement(duel, data)
            case "many":
                arena.anchor_many(random_anchors(arena, data))
            case "token":
                payees = (duel.terms.a.payout, duel.terms.b.payout)
                mode = data.draw(st.sampled_from([PLAIN, 1, REFUSES, 3, 4, 6]), "mode")
                duel.purse.misbehave(mode, data.draw(st.sampled_from(payees), "target"))
            case "claim":
                arena.claim(duel.purse, data.draw(st.sampled_from([duel.terms.a.payout, duel.terms.b.payout]), "payee"))
        arena.check_tokens()
    return arena


@settings(
    max_examples=500 if NIGHTLY else 30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(data=st.data())
def test_any_calls_by_anybody(data):
    history(data, STEPS)


def signed(private_key: bytes, t_ms: int, points: list[tuple[bytes, int]], size: int) -> bytes:
    """A signed package of anything at all."""
    body = b"".join(feed + value.to_bytes(size, "big") for feed, value in points)
    body += t_ms.to_bytes(6, "big") + size.to_bytes(4, "big") + len(points).to_bytes(3, "big")
    return body + crypto.sign_digest(private_key, crypto.keccak256(body))


POINTS = st.lists(
    st.tuples(st.sampled_from([ETH, ETH, ETH, BTC]), st.sampled_from([0, 1, 10**8, 3000 * 10**8, 2**63])), max_size=3
)
GOOD_POINTS = st.integers(1, 10**12).map(lambda value: [(ETH, value)])
TIMES = st.sampled_from([0, 0, 0, 70_000, 70_000, 70_000, 1, 140_000, -70_000])
PACKAGES = st.lists(
    st.tuples(st.integers(0, 3), TIMES, st.one_of(GOOD_POINTS, GOOD_POINTS, POINTS), st.sampled_from([32, 32, 8])),
    max_size=6,
)


@pytest.fixture(scope="module")
def standing():
    """One arena for all examples: fixes are kept by feed and time, and times differ."""
    return Arena.make(channels=3)


@settings(max_examples=3000 if NIGHTLY else 200, deadline=None, suppress_health_check=list(HealthCheck))
@given(packages=PACKAGES, garble=st.one_of(st.none(), st.none(), st.tuples(st.integers(0), st.integers(0, 255))))
def test_any_bytes_as_packages(standing, packages, garble):
    with standing.fork():
        keys = (*ORACLE_KEYS, key(9))
        for half in (packages, packages[: len(packages) // 2], packages[::-1]):
            raw = bytearray(b"".join(signed(keys[who], NOW * 1000 - ago, what, size) for who, ago, what, size in half))
            if garble and raw:
                at, byte = garble
                raw[at % len(raw)] = byte
            standing.prove_raw(standing.duels[2], (ETH, NOW), bytes(raw))
