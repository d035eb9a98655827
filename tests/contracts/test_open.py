"""`open`: the id, the record, the event, and every term that it refuses, as core refuses it."""

import dataclasses
from types import MappingProxyType

import pytest
from contracts_harness import (
    BTC,
    ETH,
    KEYS,
    PAYOUTS,
    Channel,
    Reverted,
    World,
    make_market,
    make_oracle,
    make_terms,
    plain,
    refused,
)
from eth_account.messages import encode_typed_data

from channeld.core import crypto, eip712
from channeld.core.errors import InvalidTermsError
from channeld.core.terms import Market, Oracle, Party, Terms
from channeld.core.wad import WAD

ZERO = b"\0" * 20
A, B = (crypto.address_of(key) for key in KEYS)
SIGNERS = make_oracle().signers


def loose(struct, **changes):
    """A struct of core with changes that its own constructor would refuse."""
    copy = object.__new__(type(struct))
    for field in dataclasses.fields(struct):
        object.__setattr__(copy, field.name, changes.get(field.name, getattr(struct, field.name)))
    return copy


def strict(struct):
    """The same through every constructor, so that core judges it."""
    match struct:
        case Terms() | Oracle() | Party() | Market():
            return type(struct)(*(strict(getattr(struct, f.name)) for f in dataclasses.fields(struct)))
        case tuple():
            return tuple(strict(part) for part in struct)
        case _:
            return struct


def oracle(**changes):
    return {"oracle": loose(make_oracle(), **changes)}


def market(**changes):
    return {"markets": (loose(make_market(BTC), **changes), make_market(ETH))}


NINE = tuple(bytes([i]) * 20 for i in range(1, 10))
REFUSALS = MappingProxyType(
    {
        "a's signer zero": ("ZeroSigner", {"a": loose(Party(A, PAYOUTS[0]), signer=ZERO)}),
        "b's signer zero": ("ZeroSigner", {"b": loose(Party(B, PAYOUTS[1]), signer=ZERO)}),
        "signers equal": ("EqualSigners", {"b": Party(A, PAYOUTS[1])}),
        "a's payout zero": ("ZeroPayout", {"a": loose(Party(A, PAYOUTS[0]), payout=ZERO)}),
        "b's payout zero": ("ZeroPayout", {"b": loose(Party(B, PAYOUTS[1]), payout=ZERO)}),
        "sequencer 2": ("InvalidSequencer", {"sequencer": 2}),
        "haircut above one": ("HaircutAboveOne", {"haircut": WAD + 1}),
        "initial factor below one": ("InitialFactorBelowOne", {"initial_factor": WAD - 1}),
        "challenge period zero": ("ZeroChallengePeriod", {"challenge_period": 0, "cure_period": 0}),
        "cure period zero": ("ZeroCurePeriod", {"cure_period": 0}),
        "cure period too long": ("CurePeriodAboveChallengePeriod", {"challenge_period": 3599}),
        "quorum above signers": ("QuorumAboveSigners", oracle(quorum=4)),
        "quorum no majority": ("QuorumNoMajority", oracle(quorum=1)),
        "no oracle signers": ("QuorumNoMajority", oracle(quorum=0, signers=())),
        "half of the oracle signers": ("QuorumNoMajority", oracle(quorum=2, signers=NINE[:4])),
        "oracle signers unsorted": ("OracleSignersUnsorted", oracle(signers=SIGNERS[::-1])),
        "oracle signer repeated": ("OracleSignersUnsorted", oracle(signers=(SIGNERS[0], SIGNERS[0], SIGNERS[1]))),
        "oracle signer zero": ("OracleSignersUnsorted", oracle(signers=(ZERO, *SIGNERS[:2]))),
        "no samples": ("ZeroSamples", oracle(samples=0)),
        "too many packages": ("TooManyPackages", oracle(signers=NINE, quorum=5, samples=6, sample_gap=10)),
        "46 packages": ("TooManyPackages", oracle(signers=SIGNERS[:2], samples=23, sample_gap=10)),
        "tick zero": ("ZeroTick", oracle(tick=0)),
        "sample gap between ticks": ("SampleGapNotTicks", oracle(samples=2, sample_gap=15)),
        "sample gap zero": ("ZeroSampleGap", oracle(samples=2)),
        "samples beyond the cure period": ("SamplesBeyondCurePeriod", oracle(samples=2, sample_gap=1810)),
        "grace zero": ("ZeroGrace", oracle(grace=0)),
        "grace too short": ("GraceTooShort", oracle(grace=3609)),
        "no markets": ("NoMarkets", {"markets": ()}),
        "feed zero": ("ZeroFeed", market(feed=b"\0" * 32)),
        "markets unsorted": ("MarketsUnsorted", {"markets": (make_market(ETH), make_market(BTC))}),
        "market repeated": ("MarketsUnsorted", {"markets": (make_market(ETH), make_market(ETH))}),
        "volDown above one": ("VolDownAboveOne", market(vol_down=WAD + 1)),
        "haircut below the price scan": ("HaircutBelowPriceScan", {"collateral_feed": BTC, "haircut": WAD // 10 - 1}),
        "decimals too few": ("DecimalsOutOfRange", {"decimals": 5}),
        "decimals too many": ("DecimalsOutOfRange", {"decimals": 19}),
    }
)


@pytest.mark.parametrize("case", REFUSALS)
def test_terms_that_could_not_be_enforced_are_refused_here_and_in_core(world, case):
    error, changes = REFUSALS[case]
    terms = loose(make_terms(world.token.address), **changes)
    with refused(f"{error}"):
        world.adjudicator.open(terms)
    with pytest.raises(InvalidTermsError):
        strict(terms)


@pytest.mark.parametrize(
    "changes",
    [
        {"oracle": make_oracle(grace=3610)},
        {"oracle": make_oracle(samples=2, sample_gap=1800)},
        {"oracle": make_oracle(signers=NINE, quorum=5, samples=5, sample_gap=10)},
        {"oracle": make_oracle(signers=SIGNERS[:1], quorum=1)},
        {"collateral_feed": BTC, "haircut": WAD // 10},
        {"collateral_feed": b"other".ljust(32, b"\0")},
        {"haircut": WAD, "initial_factor": WAD, "sequencer": 1},
        {"challenge_period": 3600},
        {"markets": tuple(make_market(bytes([i]) * 32) for i in range(1, 9))},
    ],
    ids=str,
)
def test_terms_at_the_edge_are_accepted(world, changes):
    channel = Channel(world, make_terms(world.token.address, **changes)).open()
    assert channel.record.phase == 1


def test_collateral_without_code_is_refused(world):
    with refused("CollateralWithoutCode"):
        world.adjudicator.open(make_terms(b"\x77" * 20))


@pytest.mark.parametrize("collateral", ["token", "adjudicator"])
def test_decimals_must_be_the_tokens_own(world, collateral):
    # the Adjudicator has no decimals() at all
    terms = make_terms(getattr(world, collateral).address, decimals=7)
    with refused("DecimalsMismatch"):
        world.adjudicator.open(terms)


def test_more_signers_or_markets_than_the_limits_do_not_decode(world):
    ten = tuple(bytes([i]) * 20 for i in range(1, 11))
    for changes in (
        oracle(signers=ten, quorum=6),
        {"markets": tuple(make_market(bytes([i]) * 32) for i in range(1, 10))},
    ):
        with pytest.raises(Reverted):
            world.adjudicator.open(loose(make_terms(world.token.address), **changes))


def test_record_and_event_hold_the_terms(world):
    channel = Channel(world, make_terms(world.token.address)).open()
    opened = world.adjudicator.event("Opened")
    assert opened.channel == channel.id
    assert [bytes.fromhex(x[2:]) for x in (opened.signer_a, opened.signer_b)] == [A, B]
    assert world.adjudicator.calldata("open", channel.terms)[4:].hex().endswith(_flat(opened.terms))
    record = channel.record
    assert tuple(bytes.fromhex(x[2:]) for x in (record.payout_a, record.payout_b)) == PAYOUTS
    assert record.collateral == "0x" + world.token.address.hex()
    assert (record.challenge_period, record.floor_version) == (86_400, 0)
    assert record.floor_hash == eip712.body_hash(channel.genesis)
    assert channel.dispute.number == 0


def _flat(terms):
    """The last words of the encoded terms: the markets."""
    return "".join(m[0].hex() + "".join(f"{x:064x}" for x in m[1:]) for m in terms[7])


def test_an_id_is_opened_once_by_anyone(world):
    channel = Channel(world, make_terms(world.token.address))
    world.adjudicator.open(channel.terms, sender=b"\x99" * 20)
    with refused("AlreadyOpened"):
        channel.open()
    value = channel.sign_close(0, channel.genesis.a, channel.genesis.b)
    world.adjudicator.close(*value)
    with refused("AlreadyOpened"):
        channel.open()


def test_channel_id_is_the_wallets_digest_of_the_terms(world):
    channel = Channel(world, make_terms(world.token.address, collateral_feed=ETH, haircut=WAD // 2))
    assert world.lens.channel_id(channel.terms) == channel.id
    message = encode_typed_data(full_message=eip712.typed_data(channel.domain, "Terms", channel.terms))
    assert crypto.keccak256(b"\x19" + message.version + message.header + message.body) == channel.id


def test_every_field_of_the_terms_is_in_the_id(world):
    terms = make_terms(world.token.address)
    flat = plain(terms)
    seen = {world.lens.channel_id(terms)}

    def changed(value):
        match value:
            case bytes():
                return [bytes([value[0] ^ 1]) + value[1:]]
            case int():
                return [value ^ 1]
            case tuple():
                return [(*value[:i], new, *value[i + 1 :]) for i in range(len(value)) for new in changed(value[i])]

    for variant in changed(flat):
        seen.add(world.lens.channel_id(variant))
    assert len(seen) == len(changed(flat)) + 1 == 36


def test_ids_differ_by_chain_and_contract():
    worlds = [World.make(), World.make(chain_id=5)]
    other = worlds[0].chain.deploy("Lens", worlds[0].another_adjudicator().address)
    terms = make_terms(worlds[0].token.address)
    ids = {worlds[0].lens.channel_id(terms), worlds[1].lens.channel_id(terms), other.channel_id(terms)}
    assert len(ids) == 3
