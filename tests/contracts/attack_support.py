"""What the tests of the cheater share: one channel of 1000 and 600, and short words for its steps."""

from __future__ import annotations

from contracts_harness import ETH, KEYS, ORACLE_KEYS, PAYOUTS, Account

from channeld.core import crypto, eip712
from channeld.core.packages import DataPoint, sign_package
from channeld.core.settlement import fix_time

ONE = 10**6
SIGNER_A, SIGNER_B = (crypto.address_of(k) for k in KEYS)
HONEST, CHEATER = PAYOUTS
A, B = Account(1000 * ONE, 1000 * ONE, 0), Account(600 * ONE, 600 * ONE, 0)
NO_STATE = (0, bytes(32), b"")
USUAL = 3000 * 10**8


def moved(channel, units, positions=()):
    """A body in which a has given b some units of the 1000 and 600."""
    a = Account(1000 * ONE - units, 1000 * ONE, 0)
    return channel.body(a, Account(600 * ONE + units, 600 * ONE, 0), positions)


def paid(channel):
    return tuple(channel.world.token.balanceOf(payout) for payout in PAYOUTS)


def resume(channel, number, valid_until=None, keys=KEYS):
    value = eip712.Resume(channel.id, number, channel.world.chain.now if valid_until is None else valid_until)
    digest = eip712.resume_digest(channel.domain, value)
    return (value.channel, value.dispute, value.valid_until), b"".join(crypto.sign_digest(k, digest) for k in keys)


def call_margin(channel, state=NO_STATE, sender=HONEST):
    """The time L of a margin call."""
    channel.world.adjudicator.call_margin(channel.id, *state, sender=sender)
    return channel.world.adjudicator.event("MarginCalled").time


def to_settlement(channel, late=0):
    d = fix_time(channel.terms, channel.dispute.deadline)
    channel.world.chain.set_time(d + late)
    return d


def prove(channel, t, price=USUAL, feed=ETH, signers=3):
    return channel.world.prove(channel.terms, feed, t, [price] * signers)


def shown(channel, t, prices, who, at=None):
    packages = [sign_package(ORACLE_KEYS[i], (at or t) * 1000, [DataPoint(ETH, prices[i])]) for i in who]
    return channel.world.book.prove_fix(channel.terms.oracle, ETH, t, b"".join(packages))
