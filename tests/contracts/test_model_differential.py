"""Random histories of any calls by anybody: contract and model agree on refusals, events, records and every token."""

import os

from duel import PLAIN, REFUSES, Arena, random_call, random_judgement, random_proof, random_time, signed_body
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channeld.core.settlement import fix_time

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
        match data.draw(st.sampled_from(["call"] * 6 + ["time"] * 2 + ["prove"] * 3 + ["judge"] * 2 + ["many", "token", "claim"]), "what"):
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
    max_examples=500 if NIGHTLY else 40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(data=st.data())
def test_any_calls_by_anybody(data):
    history(data, STEPS)
