"""Moves for a duel, drawn by Hypothesis: any call by anybody, any proof, moments at which something turns."""

from __future__ import annotations

from typing import Any

import adjudicator_model as model
from contracts_harness import (
    BTC,
    ETH,
    KEEPER,
    PAYOUTS,
    Account,
    Kind,
    key,
    option,
    perpetual,
)
from duel import EXPIRIES, PRICES, Arena, Duel
from hypothesis import strategies as st

from channeld.core import crypto, eip712
from channeld.core.wad import WAD

WILD = st.one_of(st.integers(0, 5), st.integers(0, 10**10), st.integers(0, 2**100))


@st.composite
def accounts(draw, decimals: int, *, wild: bool):
    """Both parties' accounts, conserving."""
    if wild:
        a = Account(draw(WILD), draw(WILD), draw(WILD))
        b_deposited = draw(WILD)
        left = a.deposited + b_deposited - a.withdrawn - a.balance
        a = Account(a.balance, a.deposited + max(0, -left), a.withdrawn)
        return a, Account(max(0, left), b_deposited, 0)
    one = 10**decimals
    deposits = draw(st.integers(0, 2000)) * one, draw(st.integers(0, 2000)) * one
    moved = draw(st.integers(-deposits[0], deposits[1]))
    return Account(deposits[0] + moved, deposits[0], 0), Account(deposits[1] - moved, deposits[1], 0)


@st.composite
def books(draw, tick: int, *, wild: bool):
    """A few positions that a desk of some thousand tokens might hold; wild ones anywhere within the bounds."""
    count = draw(st.sampled_from([0, 1, 1, 1, 2, 3]))
    candidates = []
    carry, vol = draw(st.integers(-5 * WAD, 5 * WAD)), draw(st.integers(WAD // 100, 10 * WAD))
    if not wild:
        carry, vol = carry // 20, max(vol // 20, WAD // 100)

    def size(unit: int):
        if wild:
            return draw(st.one_of(st.integers(-(10**19), 10**19), st.integers(-(2**95) + 1, 2**95 - 1)).filter(bool))
        return draw(st.integers(-30, 30).filter(bool)) * unit // 10

    def mark(usual: int):
        return draw(st.integers(0, 2**100 - 1)) if wild else usual * WAD * draw(st.integers(80, 120)) // 100

    near, far = (-(-t // tick) * tick for t in EXPIRIES)
    kinds = draw(st.lists(st.integers(0, 5), min_size=count, max_size=count, unique=True))
    for kind in sorted(kinds):
        match kind:
            case 0:
                candidates.append(perpetual(BTC, size(WAD // 20), mark(60_000), carry))
            case 1:
                candidates.append(perpetual(ETH, size(WAD), mark(3000), carry))
            case 2:
                candidates.append(option(Kind.FUTURE, BTC, far, 0, size(WAD // 20), mark(60_000), vol=0, carry=carry))
            case 3:
                candidates.append(option(Kind.CALL, ETH, near, 3000 * WAD, size(WAD), mark(100), vol=vol, carry=carry))
            case 4:
                candidates.append(
                    option(Kind.PUT, BTC, far, 60_000 * WAD, size(WAD // 20), mark(900), vol=vol, carry=carry)
                )
            case 5:
                candidates.append(option(Kind.PUT, ETH, near, 3000 * WAD, size(WAD), mark(100), vol=vol, carry=carry))
    return tuple(sorted(candidates, key=lambda p: p.key))


@st.composite
def bodies(draw, duel: Duel):
    """A body that both might have signed."""
    wild = draw(st.integers(0, 4)) == 0
    a, b = draw(accounts(duel.purse.decimals, wild=wild))
    positions = draw(books(duel.terms.oracle.tick, wild=wild))
    mark = draw(st.integers(90, 110)) * WAD // 100 if duel.terms.collateral_feed != bytes(32) else WAD
    return duel.real.body(a, b, positions, collateral_mark=mark)


def signed_body(duel: Duel, version: int, data) -> tuple[int, bytes, bytes]:
    """A version signed by both, its one body drawn when it is first used."""
    if version not in duel.bodies:
        duel.bodies[version] = data.draw(bodies(duel))
    return duel.signed(version)


def signers_addresses(duel: Duel) -> tuple[bytes, bytes]:
    """The signers of a and of b."""
    return duel.terms.a.signer, duel.terms.b.signer


def resume_of(duel: Duel, number: int, valid_until: int):
    """A Resume signed by both."""
    value = eip712.Resume(duel.id, number, valid_until)
    return value, duel.real.both(eip712.resume_digest(duel.real.domain, value))


# what a call may come with instead of the right signatures
SIGNATURES = ("good",) * 8 + ("swapped", "short", "none", "other version", "other channel", "stranger")


def signatures(duel: Duel, digest_of, kind: str) -> bytes:
    """Both signatures of digest_of(channel id, domain, change), or what a cheater would send instead."""
    real = duel.real
    good = real.both(digest_of(duel.id, 0))
    match kind:
        case "swapped":
            return good[65:] + good[:65]
        case "short":
            return good[:129]
        case "none":
            return b""
        case "other version":
            return real.both(digest_of(duel.id, 1))
        case "other channel":
            return real.both(digest_of(b"\x77" * 32, 0))
        case "stranger":
            return good[:65] + crypto.sign_digest(key(9), digest_of(duel.id, 0))
    return good


def random_call(duel: Duel, data) -> tuple[str, tuple[Any, ...], bytes]:  # noqa: C901 - one case for each function
    """Any call of any function by anybody, mostly with what it needs."""
    draw, arena, domain = data.draw, duel.arena, duel.real.domain
    name = draw(st.sampled_from(CALLS + 3 * SENSIBLE[duel.state.phase]), "function")
    sender = draw(st.sampled_from([*signers_addresses(duel), *PAYOUTS, KEEPER]), "sender")
    kind = draw(st.sampled_from(SIGNATURES), "signatures")
    version = draw(st.integers(0, 6), "version")
    one = 10**duel.purse.decimals
    now = arena.chain.now
    deadline_like = st.sampled_from([now - 1, now, now + 600])
    _, body_hash, _ = signed_body(duel, version, data)

    def state_digest(channel: bytes, change: int) -> bytes:
        return eip712.state_digest(domain, channel, version + change, body_hash)

    match name:
        case "deposit" | "deposit_with_permit":
            amount = draw(st.one_of(st.integers(0, 9), st.integers(1, 2000).map(lambda n: n * one), st.just(2**127)))
            party = draw(st.sampled_from([0, 1, 0, 1, 0, 1, 2]))
            # none of these tokens knows permits: it fails, and the allowance is there all the same
            permit = (now, 27, b"\1" * 32, b"\2" * 32) if name.endswith("permit") else ()
            return name, (party, amount, draw(st.sampled_from([0, 0, 0, 1, one, 2**99])), *permit), sender
        case "withdraw":
            totals = st.one_of(st.integers(0, 5), st.integers(0, 1000).map(lambda n: n * one), st.just(2**127))
            total_a, total_b = draw(totals), draw(totals)

            def value(channel: bytes, change: int = 0):
                return eip712.Withdrawal(channel, version + change, body_hash, total_a, total_b)

            sigs = signatures(duel, lambda c, n: eip712.withdrawal_digest(domain, value(c, n)), kind)
            return name, (value(duel.id), sigs), sender
        case "close":
            a, b = draw(accounts(duel.purse.decimals, wild=draw(st.booleans())))
            until = draw(deadline_like)
            # a history ends with a close: good ones are rare
            kind = draw(st.sampled_from(("good", "swapped", "other version", "other channel", "none", "short")))

            def close(channel: bytes, change: int = 0):
                return eip712.Close(channel, version + change, until, a, b)

            sigs = signatures(duel, lambda c, n: eip712.close_digest(domain, close(c, n)), kind)
            return name, (close(duel.id), sigs), sender
        case "resume":
            number = duel.state.dispute.number + draw(st.sampled_from([0, 0, 0, 0, 1, -1]))
            number, until = max(number, 0), draw(deadline_like)

            def resume(channel: bytes, change: int = 0):
                return eip712.Resume(channel, number + change, until)

            sigs = signatures(duel, lambda c, n: eip712.resume_digest(domain, resume(c, n)), kind)
            return name, (resume(duel.id), sigs), sender
        case "test" | "settle":
            on_record = duel.state.dispute.version
            signed_body(duel, on_record, data)
            body = duel.bodies[draw(st.sampled_from([on_record] * 5 + [version]))]
            return name, (body, draw(st.integers(0, 3))) if name == "test" else (body,), sender
        case "settle_last":
            shown = duel.state.dispute.shown
            if shown and draw(st.booleans()):
                version = shown.version
                _, body_hash, _ = signed_body(duel, version, data)
            return name, (version, duel.bodies[version], signatures(duel, state_digest, kind)), sender
        case "release":
            return name, (), sender
    return name, (version, body_hash, signatures(duel, state_digest, kind)), sender


CALLS = tuple(model.STEPS)
# what each phase is for
SENSIBLE = {
    model.OPEN: ("deposit", "deposit", "withdraw", "anchor", "challenge", "call_margin"),
    model.DISPUTED: ("deposit", "refute", "call_margin", "call_margin", "resume", "test", "settle", "settle_last"),
    model.ENDED: (),
}


def random_time(arena: Arena, data) -> int:
    """A moment to come: mostly one where some rule turns."""
    turns = arena.interesting_times()
    later = arena.chain.now + data.draw(st.sampled_from([1, 7, 600, 3600]), "seconds")
    return data.draw(st.sampled_from([*turns[:9], later]), "time") if turns else later


def random_proof(duel: Duel, data) -> None:
    """Prove one of the fixes that the dispute needs, by some of the signers, honest or not."""
    if duel.state.phase != model.DISPUTED:
        return
    signed_body(duel, duel.state.dispute.version, data)
    needed = [fix for fix in duel.needed() if fix[1] <= duel.arena.chain.now + 10]
    if needed:
        fix = data.draw(st.sampled_from(needed), "fix")
        signers = data.draw(st.sampled_from([[0, 1, 2], [2, 0, 1], [0, 1], [1, 2], [0, 2], [1]]), "signers")
        percents = [data.draw(st.sampled_from([30, 80, 97, 100, 104, 125, 300]), "percent") for _ in range(3)]
        duel.arena.prove(duel, fix, [PRICES[fix[0]] * p // 100 for p in percents], signers)


def random_judgement(duel: Duel, data) -> None:
    """Towards an end, which chance alone seldom reaches: wait, prove, test a call, settle."""
    if duel.state.phase != model.DISPUTED:
        return
    signed_body(duel, duel.state.dispute.version, data)
    calls = duel.state.dispute.calls
    if calls and data.draw(st.booleans(), "test a call"):
        index = data.draw(st.integers(0, len(calls) - 1), "call")
        duel.arena.at_least(max(duel.state.dispute.deadline, calls[index].time + 1))
        for _ in range(data.draw(st.integers(1, 4), "proofs")):
            random_proof(duel, data)
        duel.step("test", duel.on_record(), index)
    else:
        late = data.draw(st.sampled_from([0, 0, 0, duel.state.grace]), "late")
        duel.arena.at_least(duel.state.fix_time + late)
        random_proof(duel, data)
        duel.step("settle", duel.on_record())


def prove_everything(duel: Duel, percent: int = 100) -> None:
    """Every fix needed that can be proven now, complete. Costs an honest party one transaction for each."""
    for fix in duel.needed():
        if fix[1] <= duel.arena.chain.now:
            duel.arena.prove(duel, fix, [PRICES[fix[0]] * percent // 100] * 3, [0, 1, 2])
