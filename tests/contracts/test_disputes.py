"""`challenge` and `refute`: who, when, with what; signatures of every wrong kind."""

from dataclasses import replace

import pytest
from contracts_harness import KEEPER, KEYS, NOW, PAYOUTS, Account, Channel, Reverted, World, key, make_terms, refused

from channeld.core import crypto, eip712

ONE = 1_000_000
A, B = (crypto.address_of(k) for k in KEYS)


@pytest.fixture
def states(funded):
    """Signed states by version: version n moves n units (its low digits) from a to b."""

    def state(version):
        moved = version % 1000
        body = funded.body(Account(1000 * ONE - moved, 1000 * ONE, 0), Account(600 * ONE + moved, 600 * ONE, 0))
        return funded.sign_state(version, body)

    return state


@pytest.mark.parametrize("sender", [A, B, *PAYOUTS])
def test_each_address_of_a_party_can_challenge(funded, states, sender):
    version, body_hash, sigs = states(4)
    funded.world.adjudicator.challenge(funded.id, version, body_hash, sigs, sender=sender)
    event = funded.world.adjudicator.event("Challenged")
    assert (event.channel, event.dispute, event.version, event.body_hash) == (funded.id, 1, 4, body_hash)
    assert (event.deadline, event.sigs, event.caller) == (NOW + 86_400, sigs, "0x" + sender.hex())
    record = funded.dispute
    assert (record.number, record.version, record.body_hash, record.deadline) == (1, 4, body_hash, NOW + 86_400)
    assert funded.record.phase == 2


def test_nobody_else_can_challenge(funded, states):
    with refused("NotAParty"):
        funded.world.adjudicator.challenge(funded.id, *states(4), sender=KEEPER)
    with refused("UnknownChannel"):
        funded.world.adjudicator.challenge(b"\x01" * 32, *states(4), sender=A)


def test_one_dispute_at_a_time_and_none_after_the_end(funded, states):
    funded.world.adjudicator.challenge(funded.id, *states(4), sender=A)
    with refused("InDispute"):
        funded.world.adjudicator.challenge(funded.id, *states(5), sender=B)
    funded.world.adjudicator.close(*funded.sign_close(4, Account(), Account()))
    with refused("ChannelEnded"):
        funded.world.adjudicator.challenge(funded.id, *states(5), sender=B)
    with refused("ChannelEnded"):
        funded.world.adjudicator.refute(funded.id, *states(5))


def test_a_challenge_at_or_below_the_floor_starts_at_the_floor(funded, states):
    # floor 0: the implicit body, without anybody's signature
    with funded.world.chain.anchored():
        event = funded.challenge(0)
        assert (event.version, event.body_hash, event.sigs) == (0, eip712.body_hash(funded.genesis), b"")
    funded.world.adjudicator.withdraw(*funded.sign_withdrawal(6, 0, 0, states(6)[1]))
    for args in (states(5), (6, b"\x99" * 32, b""), (0, b"", b"junk")):
        with funded.world.chain.anchored():
            funded.world.adjudicator.challenge(funded.id, *args, sender=B)
            event = funded.world.adjudicator.event("Challenged")
            assert (event.version, event.body_hash, event.sigs) == (6, states(6)[1], b"")
    with refused("SignaturesMissing"):
        funded.world.adjudicator.challenge(funded.id, 7, b"\x99" * 32, b"", sender=B)
    funded.world.adjudicator.challenge(funded.id, *states(7), sender=B)
    assert funded.dispute.version == 7


def test_anyone_refutes_with_a_strictly_higher_version_until_the_deadline(funded, states):
    adjudicator = funded.world.adjudicator
    with refused("NotInDispute"):
        adjudicator.refute(funded.id, *states(5))
    adjudicator.challenge(funded.id, *states(4), sender=A)
    for version in (3, 4):
        with refused("VersionNotHigher"):
            adjudicator.refute(funded.id, *states(version))
    funded.world.chain.set_time(NOW + 86_399)
    version, body_hash, sigs = states(5)
    adjudicator.refute(funded.id, version, body_hash, sigs)
    event = adjudicator.event("Refuted")
    assert (event.channel, event.dispute, event.version, event.body_hash) == (funded.id, 1, 5, body_hash)
    assert (event.deadline, event.sigs) == (NOW + 86_400, sigs)
    assert (funded.dispute.deadline, funded.dispute.version) == (NOW + 86_400, 5)
    adjudicator.refute(funded.id, *states(2**64 - 1))
    assert funded.dispute.version == 2**64 - 1
    funded.world.chain.set_time(NOW + 86_400)
    with refused("DeadlinePassed"):
        adjudicator.refute(funded.id, *states(2**64 - 1))


def malleable(signature):
    s = crypto.CURVE_ORDER - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])


def test_signatures_of_every_wrong_kind_are_refused(funded, states):
    version, body_hash, sigs = states(5)
    a, b = sigs[:65], sigs[65:]
    stranger = crypto.sign_digest(key(9), eip712.state_digest(funded.domain, funded.id, version, body_hash))
    wrong_chain = eip712.state_digest(eip712.Domain(2, funded.domain.adjudicator), funded.id, version, body_hash)
    wrong_contract = eip712.state_digest(eip712.Domain(1, b"\x01" * 20), funded.id, version, body_hash)
    wrong_a = {
        "swapped": b + a,
        "malleable": malleable(a) + b,
        "v 0 and 1": a[:64] + bytes([a[64] - 27]) + b,
        "v 29": a[:64] + b"\x1d" + b,
        "zero": bytes(65) + b,
        "zero r": bytes(32) + a[32:] + b,
        "zero s": a[:32] + bytes(32) + a[64:] + b,
        "stranger": stranger + b,
        "another chain": crypto.sign_digest(KEYS[0], wrong_chain) + b,
        "another contract": crypto.sign_digest(KEYS[0], wrong_contract) + b,
        "another version": states(6)[2],
    }
    wrong_b = {
        "a's twice": a + a,
        "malleable": a + malleable(b),
        "v 0 and 1": a + b[:64] + bytes([b[64] - 27]),
        "zero": a + bytes(65),
        "stranger": a + stranger,
        "another chain": a + crypto.sign_digest(KEYS[1], wrong_chain),
    }
    funded.challenge()
    for wrong, party in ((wrong_a, "A"), (wrong_b, "B")):
        for forged in wrong.values():
            with refused(f"InvalidSignature{party}"):
                funded.world.adjudicator.refute(funded.id, version, body_hash, forged)
    for short in (b"", a, sigs[:-1]):
        with refused("SignaturesMissing"):
            funded.world.adjudicator.refute(funded.id, version, body_hash, short)
    # longer ones do not even decode
    with pytest.raises(Reverted):
        funded.world.adjudicator.refute(funded.id, version, body_hash, sigs + b"\0")
    funded.world.adjudicator.refute(funded.id, version, body_hash, sigs)


def test_a_signer_that_gains_code_stays_bound(funded, states):
    # EIP-7702: an account delegates to code; its signatures of before and after count all the same
    from pyrevm import AccountInfo  # noqa: PLC0415 - only here

    info = AccountInfo(nonce=1, code=bytes.fromhex("60006000fd"))
    funded.world.chain.evm.insert_account_info("0x" + A.hex(), info)
    funded.world.adjudicator.challenge(funded.id, *states(4), sender=PAYOUTS[1])
    assert funded.dispute.version == 4


def test_a_state_of_another_channel_or_contract_is_refused(funded):
    one, other = Account(1000 * ONE, 1000 * ONE, 0), Account(600 * ONE, 600 * ONE, 0)
    elsewhere = Channel(funded.world, make_terms(funded.world.token.address, salt=b"\x5b" * 32))
    args = elsewhere.sign_state(4, elsewhere.body(one, other))
    with refused("InvalidSignatureA"):
        funded.world.adjudicator.challenge(funded.id, *args, sender=A)
    another = World.make(chain_id=1)
    second = another.another_adjudicator()
    twin = Channel(replace(another, adjudicator=second), funded.terms)
    with refused("InvalidSignatureA"):
        funded.world.adjudicator.challenge(funded.id, *twin.sign_state(4, twin.body(one, other)), sender=A)
