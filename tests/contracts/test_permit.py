"""`deposit_with_permit`: a permit that holds, one that fails with the allowance there, one that fails without."""

import pytest
from contracts_harness import KEYS, NOW, Channel, Reverted, World, make_terms, refused
from eth_abi import encode

from channeld.core import crypto

OWNER = crypto.address_of(KEYS[0])
TYPEHASH = crypto.keccak256(b"Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)")


@pytest.fixture
def channel():
    world = World.make("PermitToken", (6,))
    world.token.mint(OWNER, 1000)
    return Channel(world, make_terms(world.token.address)).open()


def permit(channel, amount, *, nonce=0, deadline=NOW, key=KEYS[0]):
    """The permit's part of the arguments."""
    token, spender = channel.world.token, channel.world.adjudicator.address
    types = ["bytes32", "address", "address", "uint256", "uint256", "uint256"]
    struct = crypto.keccak256(encode(types, [TYPEHASH, OWNER, spender, amount, nonce, deadline]))
    signature = crypto.sign_digest(key, crypto.keccak256(b"\x19\x01" + token.DOMAIN_SEPARATOR() + struct))
    return deadline, signature[64], signature[:32], signature[32:64]


def deposit(channel, amount, *signed, at_least=0, party=0):
    channel.world.adjudicator.deposit_with_permit(channel.id, party, amount, at_least, *signed, sender=OWNER)
    return channel.world.adjudicator.event("Deposited")


def test_a_permit_is_enough(channel):
    event = deposit(channel, 600, *permit(channel, 600))
    assert (event.party, event.received, event.deposited_a) == (0, 600, 600)
    assert event.caller == "0x" + OWNER.hex()
    assert deposit(channel, 400, *permit(channel, 400, nonce=1), party=1, at_least=600).deposited_b == 400
    assert channel.world.token.balanceOf(OWNER) == 0


def test_a_permit_used_by_somebody_before_is_ignored(channel):
    signed = permit(channel, 600)
    channel.world.token.permit(OWNER, channel.world.adjudicator.address, 600, *signed)
    assert deposit(channel, 600, *signed).deposited_a == 600


@pytest.mark.parametrize("wrong", [{"nonce": 7}, {"deadline": NOW - 1}, {"key": KEYS[1]}])
def test_a_failed_permit_needs_the_allowance(channel, wrong):
    signed = permit(channel, 600, **wrong)
    with refused("allowance too low"):
        deposit(channel, 600, *signed)
    channel.world.token.approve(channel.world.adjudicator.address, 600, sender=OWNER)
    assert deposit(channel, 600, *signed).deposited_a == 600


def test_a_token_without_permits_takes_the_allowance():
    world = World.make()
    channel = Channel(world, make_terms(world.token.address)).open()
    world.token.mint(OWNER, 10)
    world.token.approve(world.adjudicator.address, 10, sender=OWNER)
    assert deposit(channel, 10, 0, 27, bytes(32), bytes(32)).deposited_a == 10


def test_the_rest_is_deposits(channel):
    signed = permit(channel, 600)
    with refused("OtherDepositMissing"):
        deposit(channel, 600, *signed, at_least=1)
    with refused("InvalidParty"):
        deposit(channel, 600, *signed, party=2)
    with refused("UnknownChannel"):
        channel.world.adjudicator.deposit_with_permit(b"\1" * 32, 0, 600, 0, *signed, sender=OWNER)
    with refused("NothingReceived"):
        deposit(channel, 0, *permit(channel, 0))
    # nobody can use another's permit for a deposit of its own
    with pytest.raises(Reverted):
        channel.world.adjudicator.deposit_with_permit(channel.id, 1, 600, 0, *signed, sender=b"\x66" * 20)
    assert deposit(channel, 600, *signed).deposited_a == 600
