"""The cheater, part one: states, signatures, endings, the oracle. Every attack of docs/attacks.md has its test."""

import dataclasses
import itertools
import re

import pytest
from attack_support import (
    CHEATER,
    HONEST,
    NO_STATE,
    ONE,
    SIGNER_B,
    USUAL,
    A,
    B,
    call_margin,
    moved,
    paid,
    prove,
    resume,
    shown,
    to_settlement,
)
from contracts_harness import (
    ETH,
    KEEPER,
    KEYS,
    NOW,
    ROOT,
    Account,
    Channel,
    Kind,
    key,
    make_oracle,
    make_terms,
    option,
    perpetual,
    refused,
)

from channeld.core import crypto, eip712
from channeld.core.packages import DataPoint, sign_package
from channeld.core.settlement import fix_time
from channeld.core.wad import DAY, WAD


@pytest.fixture
def court(funded):
    """The Adjudicator."""
    return funded.world.adjudicator


# --- states and signatures -------------------------------------------------------------------------------------------


def test_a_stale_state_is_refuted_and_never_comes_back(funded, court):
    old, new = moved(funded, 500 * ONE), moved(funded, 0)
    stale = funded.sign_state(3, old)
    court.challenge(funded.id, *stale, sender=CHEATER)
    deadline = funded.dispute.deadline
    funded.world.chain.set_time(deadline - 1)
    court.refute(funded.id, *funded.sign_state(5, new), sender=KEEPER)
    assert funded.dispute.deadline == deadline
    with refused("VersionNotHigher"):
        court.refute(funded.id, *stale)
    to_settlement(funded)
    with refused("DeadlinePassed"):
        court.refute(funded.id, *stale)
    with refused("BodyNotOnRecord"):
        court.settle(funded.terms, old)
    funded.settle(new)
    assert paid(funded) == (1000 * ONE, 600 * ONE)


def test_nothing_signed_for_one_channel_serves_another(funded, court):
    other = Channel(funded.world, make_terms(funded.world.token.address, salt=b"\x5b" * 32)).open()
    funded.world.fund(other.id, 0, ONE)
    with refused("InvalidSignatureA"):
        court.challenge(other.id, *funded.sign_state(4, moved(funded, 1)), sender=CHEATER)
    with refused("InvalidSignatureA"):
        court.anchor(other.id, *funded.sign_state(4, moved(funded, 1)))
    value, sigs = funded.sign_withdrawal(4, 0, ONE)
    with refused("InvalidSignatureA"):
        court.withdraw(dataclasses.replace(value, channel=other.id), sigs)
    value, sigs = funded.sign_close(4, Account(), Account())
    with refused("InvalidSignatureA"):
        court.close(dataclasses.replace(value, channel=other.id), sigs)
    court.challenge(other.id, *NO_STATE, sender=CHEATER)
    (_, number, until), sigs = resume(funded, 1)
    with refused("InvalidSignatureA"):
        court.resume((other.id, number, until), sigs)


@pytest.mark.parametrize("where", ["another contract", "another chain"])
def test_nothing_signed_elsewhere_serves_here(funded, court, where):
    domain = eip712.Domain(1, b"\x01" * 20) if where == "another contract" else eip712.Domain(2, court.address)
    twin = dataclasses.replace(funded)
    twin.domain = domain
    # the same terms there: another id, another digest; and the digest of this id, signed for there
    for channel in (eip712.channel_id(domain, funded.terms), funded.id):
        twin.id = channel
        version, body_hash, sigs = twin.sign_state(4, moved(funded, 1))
        with refused("InvalidSignatureA"):
            court.challenge(funded.id, version, body_hash, sigs, sender=CHEATER)
        value, sigs = twin.sign_withdrawal(4, 0, ONE)
        with refused("InvalidSignatureA"):
            court.withdraw(dataclasses.replace(value, channel=funded.id), sigs)
        value, sigs = twin.sign_close(4, Account(), Account())
        with refused("InvalidSignatureA"):
            court.close(dataclasses.replace(value, channel=funded.id), sigs)


def test_parties_cannot_be_swapped(funded, court):
    version, body_hash, sigs = funded.sign_state(4, moved(funded, 1))
    with refused("InvalidSignatureA"):
        court.challenge(funded.id, version, body_hash, sigs[65:] + sigs[:65], sender=CHEATER)
    # a body with both accounts exchanged is another body
    mine = moved(funded, 0)
    swapped = dataclasses.replace(mine, a=mine.b, b=mine.a)
    court.challenge(funded.id, *funded.sign_state(5, mine), sender=CHEATER)
    to_settlement(funded)
    with refused("BodyNotOnRecord"):
        court.settle(funded.terms, swapped)
    # and terms with both parties exchanged are another channel
    mirrored = dataclasses.replace(funded.terms, a=funded.terms.b, b=funded.terms.a)
    with refused("UnknownChannel"):
        court.settle(mirrored, mine)


def test_a_malleable_signature_is_none(funded, court):
    version, body_hash, sigs = funded.sign_state(4, moved(funded, 1))
    for start, party in ((0, "A"), (65, "B")):
        s = crypto.CURVE_ORDER - int.from_bytes(sigs[start + 32 : start + 64], "big")
        twin = sigs[start : start + 32] + s.to_bytes(32, "big") + bytes([55 - sigs[start + 64]])
        with refused(f"InvalidSignature{party}"):
            court.challenge(funded.id, version, body_hash, sigs[:start] + twin + sigs[start + 65 :], sender=CHEATER)


def test_a_signer_that_delegates_its_account_to_code_stays_bound(funded, court):
    from pyrevm import AccountInfo  # noqa: PLC0415 - only here

    signed = funded.sign_state(4, moved(funded, 0))
    # EIP-7702: the account's code names a contract that would deny every signature
    delegation = AccountInfo(nonce=1, code=bytes.fromhex("60006000fd"))
    funded.world.chain.evm.insert_account_info("0x" + SIGNER_B.hex(), delegation)
    court.challenge(funded.id, *signed, sender=HONEST)
    court.refute(funded.id, *funded.sign_state(5, moved(funded, 0)))
    to_settlement(funded)
    assert funded.settle(moved(funded, 0)).to_a == 1000 * ONE


# --- resume ----------------------------------------------------------------------------------------------------------


def test_a_forged_resume_is_refused(funded, court):
    funded.challenge(1, moved(funded, 0))
    for keys, error in (((KEYS[0], KEYS[0]), "B"), ((KEYS[1], KEYS[1]), "A"), ((key(9), KEYS[1]), "A")):
        with refused(f"InvalidSignature{error}"):
            court.resume(*resume(funded, 1, keys=keys))
    with refused("SignaturesMissing"):
        court.resume(resume(funded, 1)[0], b"")
    (channel, number, until), sigs = resume(funded, 1)
    with refused("InvalidSignatureA"):
        court.resume((channel, number, until + 1), sigs)
    with refused("ResumeExpired"):
        court.resume(*resume(funded, 1, valid_until=NOW - 1))
    assert funded.record.phase == 2


def test_a_resume_cannot_be_recycled(funded, court):
    funded.challenge(1, moved(funded, 0))
    used = resume(funded, 1, valid_until=NOW + 30 * DAY)
    court.resume(*used)
    assert funded.record.floor_version == 1
    with refused("NotInDispute"):
        court.resume(*used)
    funded.challenge(2, moved(funded, 1))
    with refused("OtherDispute"):
        court.resume(*used)
    # nor does one for this dispute serve once its deadline is reached
    second = resume(funded, 2, valid_until=NOW + 30 * DAY)
    funded.world.chain.set_time(funded.dispute.deadline)
    with refused("DeadlinePassed"):
        court.resume(*second)


# --- ending twice, early, late ---------------------------------------------------------------------------------------


def test_a_channel_is_settled_once(funded, court):
    body = moved(funded, 7)
    funded.challenge(1, body)
    to_settlement(funded)
    funded.settle(body)
    assert paid(funded) == (1000 * ONE - 7, 600 * ONE + 7)
    funded.world.chain.advance(300 * DAY)
    again = [
        ("settle", (funded.terms, body)),
        ("settle_last", (funded.terms, 1, body, funded.sign_state(1, body)[2])),
        ("release", (funded.terms,)),
        ("close", funded.sign_close(9, A, B)),
        ("withdraw", funded.sign_withdrawal(9, 2000 * ONE, 0)),
        ("challenge", (funded.id, *NO_STATE)),
        ("call_margin", (funded.id, *NO_STATE)),
        ("test", (funded.terms, body, 0)),
        ("resume", resume(funded, 1)),
    ]
    for name, args in again:
        with refused("ChannelEnded"):
            getattr(court, name)(*args, sender=CHEATER)
    assert paid(funded) == (1000 * ONE - 7, 600 * ONE + 7)


def test_nothing_is_settled_before_its_time(funded, court):
    body = moved(funded, 0, (perpetual(ETH, WAD // 10, 3000 * WAD),))
    signed = funded.sign_state(1, body)
    call = call_margin(funded, signed, CHEATER)
    deadline = funded.dispute.deadline
    d, grace = fix_time(funded.terms, deadline), funded.terms.oracle.grace
    funded.world.chain.set_time(deadline - 1)
    prove(funded, call)
    with refused("DeadlineNotReached"):
        court.test(funded.terms, body, 0)
    with refused("FixTimeNotReached"):
        court.settle(funded.terms, body)
    funded.world.chain.set_time(d)
    prove(funded, d)
    with refused("CallsUntested"):
        court.settle(funded.terms, body)
    for time, name, args, error in (
        (d + 2 * grace - 1, "settle_last", (funded.terms, *(1, body, signed[2])), "LastNotReached"),
        (d + 180 * DAY - 1, "release", (funded.terms,), "ReleaseNotReached"),
    ):
        funded.world.chain.set_time(time)
        with refused(error):
            getattr(court, name)(*args)


@pytest.mark.parametrize("what", ["withdrawal", "close"])
def test_what_was_half_signed_and_is_completed_late_harms_nobody(funded, court, what):
    if what == "withdrawal":
        # b keeps its half of a Withdrawal back until the floor and the state have moved on
        late = funded.sign_withdrawal(3, 100 * ONE, 0)
        body = funded.body(Account(900 * ONE, 1000 * ONE, 100 * ONE), B)
        court.anchor(funded.id, *funded.sign_state(4, body))
        court.withdraw(*late)
        assert funded.record.floor_version == 4
        assert paid(funded) == (100 * ONE, 0)
        court.withdraw(*late)
        funded.challenge(0)
        with refused("InDispute"):
            court.withdraw(*late)
        to_settlement(funded)
        funded.settle(body)
        assert paid(funded) == (1000 * ONE, 600 * ONE)
        return
    generous, expired = funded.sign_close(3, Account(), B, NOW + DAY), funded.sign_close(9, Account(), B, NOW)
    court.anchor(funded.id, *funded.sign_state(4, moved(funded, 0)))
    with refused("BelowFloor"):
        court.close(*generous)
    funded.world.chain.advance(1)
    with refused("CloseExpired"):
        court.close(*expired)
    funded.challenge(6, moved(funded, 0))
    with refused("BelowRecord"):
        court.close(*funded.sign_close(5, Account(), B, NOW + DAY))


def test_a_body_that_does_not_match_is_refused(funded, court):
    body = moved(funded, 0, (perpetual(ETH, WAD // 10, 3000 * WAD),))
    call = call_margin(funded, funded.sign_state(1, body))
    d = to_settlement(funded)
    prove(funded, d)
    prove(funded, call)
    richer = Account(1001 * ONE, 1001 * ONE, 0)
    position = dataclasses.replace(body.positions[0], mark=2000 * WAD)
    wrong = [
        dataclasses.replace(body, a=richer),
        dataclasses.replace(body, a=Account(1000 * ONE, 1001 * ONE, ONE)),
        dataclasses.replace(body, positions=()),
        dataclasses.replace(body, positions=(position,)),
        dataclasses.replace(body, positions=(dataclasses.replace(body.positions[0], size=WAD),)),
        dataclasses.replace(body, as_of=0),
        dataclasses.replace(body, collateral_mark=1),
        dataclasses.replace(body, journal=bytes(32)),
    ]
    for forged in wrong:
        with refused("BodyNotOnRecord"):
            court.settle(funded.terms, forged)
        with refused("BodyNotOnRecord"):
            court.test(funded.terms, forged, 0)
    court.test(funded.terms, body, 0)
    court.settle(funded.terms, body)


# --- the oracle ------------------------------------------------------------------------------------------------------


@pytest.fixture
def disputed(funded):
    """A dispute at its fix time D, on a book that is long 0.1 ETH for a: one dollar of price is 0.1 for a."""
    body = moved(funded, 0, (perpetual(ETH, WAD // 10, 3000 * WAD),))
    funded.challenge(1, body)
    to_settlement(funded)
    return funded, body, fix_time(funded.terms, funded.dispute.deadline)


def test_prints_cannot_be_shopped_for(disputed):
    channel, body, d = disputed
    prices = [2000 * 10**8, 3000 * 10**8, 4000 * 10**8]
    # the pair that suits the cheater, and prints of better moments
    shown(channel, d, prices, [0, 1])
    shown(channel, d - 10, [1] * 3, [0, 1, 2])
    with refused("FixesIncomplete"):
        channel.world.adjudicator.settle(channel.terms, body, sender=CHEATER)
    shown(channel, d, prices, [0, 1, 2])
    assert channel.settle(body).profit == 0


def test_too_few_or_repeated_signers_prove_nothing(disputed):
    channel, _, d = disputed
    with refused("QuorumMissing"):
        shown(channel, d, [1] * 3, [0])
    with refused("DuplicatedSigner"):
        shown(channel, d, [1] * 3, [0, 0])
    with refused("UnknownSigner"):
        channel.world.prove(channel.terms, ETH, d, [1, 1], (key(7), key(8)))
    assert channel.world.book.fix(eip712.oracle_hash(channel.terms.oracle), ETH, d) == (0, 0)


def test_packages_of_another_time_prove_nothing(disputed):
    channel, _, d = disputed
    for at in (d - 10, d + 10, d - 1, NOW):
        with refused("OtherTime"):
            shown(channel, d, [USUAL] * 3, [0, 1, 2], at)
    with refused("TimeNotReached"):
        shown(channel, d + 10, [USUAL] * 3, [0, 1, 2])


def test_a_lighter_fix_proven_last_changes_nothing(disputed):
    channel, body, d = disputed
    shown(channel, d, [USUAL] * 3, [0, 1, 2])
    for pair in ([0, 1], [1, 2], [0, 2]):
        shown(channel, d, [1, 1, 1], pair)
    shown(channel, d, [1, 1, 1], [0, 1, 2])
    assert channel.settle(body).profit == 0


def test_two_false_signers_of_five_do_not_make_the_price(world):
    keys = tuple(sorted((key(200 + i) for i in range(5)), key=crypto.address_of))
    for quorum in (3, 5):
        with world.chain.anchored():
            oracle = make_oracle(signers=tuple(crypto.address_of(k) for k in keys), quorum=quorum)
            channel = Channel(world, make_terms(world.token.address, oracle=oracle)).open()
            world.fund(channel.id, 0, 1000 * ONE)
            world.fund(channel.id, 1, 600 * ONE)
            body = moved(channel, 0, (perpetual(ETH, WAD // 10, 3000 * WAD),))
            channel.challenge(1, body)
            d = to_settlement(channel)
            honest, false = (3000 * 10**8, 3001 * 10**8, 3002 * 10**8), 9000 * 10**8
            signed = [
                sign_package(k, d * 1000, [DataPoint(ETH, p)])
                for k, p in zip(keys, (*honest, false, false), strict=True)
            ]
            if quorum == 3:
                # one honest and both false make a quorum at a false price: it cannot pay, and now all is public
                assert world.book.prove_fix(oracle, ETH, d, b"".join(signed[2:])) == (9000 * WAD, 3)
                with refused("FixesIncomplete"):
                    world.adjudicator.settle(channel.terms, body, sender=CHEATER)
            else:
                for size in (3, 4):
                    for some in itertools.combinations(signed, size):
                        with refused("QuorumMissing"):
                            world.book.prove_fix(oracle, ETH, d, b"".join(some))
            assert world.book.prove_fix(oracle, ETH, d, b"".join(signed)) == (3002 * WAD, 5)
            assert channel.settle(body).profit == ONE // 5


def test_an_expired_option_is_settled_at_its_expiry_alone(funded, court):
    expiry = NOW + 3600
    body = moved(funded, 0, (option(Kind.CALL, ETH, expiry, 3000 * WAD, WAD, 100 * WAD),))
    funded.challenge(1, body)
    d = to_settlement(funded)
    # far in the money at D, at any other time, and a day before: of no use
    for t in (d, expiry - 10, expiry + 10):
        prove(funded, t, 9000 * 10**8)
    with refused("FixesIncomplete"):
        court.settle(funded.terms, body, sender=CHEATER)
    with refused("OtherTime"):
        shown(funded, expiry, [9000 * 10**8] * 3, [0, 1, 2], d)
    prove(funded, expiry, 3150 * 10**8)
    assert funded.settle(body).profit == 50 * ONE


@pytest.mark.parametrize("price", [1, 10**6, 2**255 // 10**10])
@pytest.mark.parametrize("size", [2**95 - 1, -(2**95) + 1, 1])
def test_numbers_out_of_every_market_lock_nothing(funded, court, price, size):
    book = (
        perpetual(ETH, size, 2**100 - 1, 5 * WAD),
        option(Kind.CALL, ETH, NOW + 50 * 365 * DAY // 10 * 10, 1, size, 2**100 - 1, vol=10 * WAD, carry=-5 * WAD),
        option(Kind.PUT, ETH, NOW + 20 * DAY, 2**96 - 1, size, 0, vol=WAD // 100, carry=-5 * WAD),
    )
    body = moved(funded, 0, book)
    call = call_margin(funded, funded.sign_state(1, body))
    d = to_settlement(funded)
    for t in (call, d):
        prove(funded, t, price)
    court.test(funded.terms, body, 0)
    settled = funded.settle(body)
    assert settled.to_a + settled.to_b == 1600 * ONE
    assert funded.record.phase == 3


# --- the table -------------------------------------------------------------------------------------------------------


def test_every_attack_of_the_table_is_performed_by_the_test_it_names():
    """Each row of docs/attacks.md names tests that exist."""
    table = (ROOT / "docs" / "attacks.md").read_text().split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith(("| attack", "| ---"))]
    assert len(rows) >= 29
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == 3, row
        named = re.findall(r"`(test_\w+)\.py::(test_\w+)`", cells[2])
        assert named, row
        for module, test in named:
            source = (ROOT / "tests" / "contracts" / f"{module}.py").read_text()
            assert f"def {test}(" in source, f"{module}.py has no {test}"


def test_every_attack_here_is_in_the_table():
    table = (ROOT / "docs" / "attacks.md").read_text()
    files = sorted((ROOT / "tests" / "contracts").glob("test_attacks*.py"))
    assert len(files) == 2
    tests = [t for file in files for t in re.findall(r"^def (test_\w+)\(", file.read_text(), re.MULTILINE)]
    assert [t for t in tests if t not in table and "table" not in t] == []
