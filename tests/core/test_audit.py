"""The audit file: what it proves; an altered byte is found and its line named; forgers with fresh checks fail."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import DOMAIN, ETH, MAKER, T0, TAKER, Desk, call, dollars, key, leg, perpetual

from channeld.core import audit
from channeld.core.audit import (
    AuditBatchError,
    AuditCheckError,
    AuditError,
    AuditFormatError,
    AuditIncompleteError,
    Auditor,
    AuditSignatureError,
    AuditState,
    AuditStateError,
    AuditTermsError,
    AuditWriter,
    audit_lines,
)
from channeld.core.crypto import sign_digest
from channeld.core.eip712 import body_hash, state_digest
from channeld.core.journal import replay
from channeld.core.operations import Deposit, Trade, Transfer, Withdraw
from channeld.core.state import genesis
from channeld.core.transition import apply


def signed_by(state, keys=(MAKER, TAKER)):
    hashed = body_hash(state.body)
    digest = state_digest(DOMAIN, state.channel, state.version, hashed)
    return AuditState(state.version, hashed, *(sign_digest(one, digest) for one in keys))


def steps_of(desk):
    """(raw, state after it) of every version."""
    state = genesis(desk.state.channel)
    for version, raw in desk.journal:
        state = apply(desk.terms, state, raw, version).state
        yield raw, state


def file_of(desk, *, alter=lambda _n, raw, signed: (raw, signed), base=None):
    """The lines of an audit file; `alter` may put in other bytes, whose checks are then right."""
    writer = AuditWriter()
    lines = [writer.head(DOMAIN, desk.terms, base)]
    for n, (raw, state) in enumerate(steps_of(desk)):
        changed = alter(n, raw, signed_by(state))
        if changed is not None:
            lines.append(writer.batch(*changed))
    lines.append(writer.end(desk.state.version, desk.body))
    return lines


@pytest.fixture(scope="module")
def desk():
    made = Desk()
    made.do(Trade(0, (leg(call(), 5, 150), leg(perpetual(), -1, 3000)), 2_000_000), at=T0)
    made.mark(T0 + 10, {ETH: dollars(3100)})
    made.do(Transfer(1, 77), Transfer(0, 7), at=T0 + 11)
    made.do(Withdraw(0, 1_000), at=T0 + 12)
    made.do(Deposit(0, 10**12 + 5, 10**12), at=T0 + 13)
    made.do(Trade(1, (leg(perpetual(), 1, 3100),)), Transfer(0, 1), at=T0 + 14)
    return made


@pytest.fixture(scope="module")
def lines(desk):
    return file_of(desk)


def test_it_proves_every_balance_and_says_where_it_comes_from(desk, lines):
    report = audit_lines(lines)
    assert report.state == desk.state == replay(desk.terms, desk.state.channel, desk.journal)
    assert (report.batches, report.signed, report.gaps) == (7, 7, 0)
    for side in (0, 1):
        assert report.flows[side].total == desk.body.account(side).balance
    a, b = report.flows
    assert (a.deposits, b.deposits, a.withdrawals) == (10**12 + 5, 10**12, -1_000)
    assert (a.transfers, b.transfers) == (77 - 7 - 1, -77 + 7 + 1)
    # what one wins by trades and marks the other loses
    assert (a.trades, a.marks, a.mixed) == (-b.trades, -b.marks, -b.mixed)
    assert a.marks != 0
    told = report.as_data()
    assert told["operations"] == {"deposit": 2, "trade": 2, "mark": 1, "transfer": 3, "withdraw": 1}
    text = " ".join(report.words())
    for party in told["parties"].values():
        assert f"balance is {party['balance']}" in text
        assert party["signer"] in text


def test_an_empty_journal_is_proven_too():
    fresh = Desk(funded=0)
    report = audit_lines(file_of(fresh))
    assert (report.state.version, report.batches) == (0, 0)
    assert "nothing moved" in " ".join(report.words())


def test_a_state_whose_signatures_are_lost_is_covered_by_a_later_one(desk):
    def alter(n, raw, signed):
        return raw, (AuditState(signed.version, signed.body_hash, b"", b"") if n in (1, 3) else signed)

    report = audit_lines(file_of(desk, alter=alter))
    assert (report.batches, report.signed) == (7, 5)


def test_a_base_is_proven_and_named(desk):
    pairs = list(steps_of(desk))
    base = pairs[2][1]
    writer = AuditWriter()
    lines = [writer.head(DOMAIN, desk.terms, (signed_by(base), base.body))]
    lines += [writer.batch(raw, signed_by(state)) for raw, state in pairs[3:]]
    lines.append(writer.end(desk.state.version, desk.body))
    report = audit_lines(lines)
    assert (report.base_version, report.state) == (3, desk.state)
    assert report.flows[0].total == desk.body.a.balance
    assert "version 3, which both signed" in " ".join(report.words())
    writer = AuditWriter()
    forged = writer.head(DOMAIN, desk.terms, (signed_by(base, (MAKER, key("stranger"))), base.body))
    with pytest.raises(AuditSignatureError, match="signature of b"):
        Auditor().take(forged)


# --- altered bytes -------------------------------------------------------------------------------------------------


def found_at(raw):
    """Split bytes as a reader does, and say which line is refused."""
    with pytest.raises(AuditError) as refused:
        audit_lines(split(raw))
    return refused.value


def split(raw):
    """Lines as a file gives them."""
    parts = raw.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_single_altered_byte_is_found_and_its_line_named(lines, data):
    number = data.draw(st.integers(0, len(lines) - 1), "line")
    at = data.draw(st.integers(0, len(lines[number]) - 1), "byte")
    flip = data.draw(st.integers(1, 255), "flip")
    altered = bytearray(lines[number])
    altered[at] ^= flip
    raw = b"".join([*lines[:number], bytes(altered), *lines[number + 1 :]])
    error = found_at(raw)
    assert error.details["line"] == number + 1
    assert f"line {number + 1}" in str(error)


def test_every_byte_of_the_shortest_line_is_covered(lines):
    number = min(range(1, len(lines)), key=lambda n: len(lines[n]))
    for at in range(len(lines[number])):
        for flip in (1, 0x20, 0x80):
            altered = bytearray(lines[number])
            altered[at] ^= flip
            error = found_at(b"".join([*lines[:number], bytes(altered), *lines[number + 1 :]]))
            assert error.details["line"] == number + 1


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_bytes_put_in_or_left_out_are_found(lines, data):
    raw = b"".join(lines)
    at = data.draw(st.integers(0, len(raw) - 1))
    many = data.draw(st.integers(1, 40))
    put = data.draw(st.one_of(st.none(), st.binary(min_size=1, max_size=40)))
    altered = raw[:at] + raw[at + many :] if put is None else raw[:at] + put + raw[at:]
    found_at(altered)


def test_lines_left_out_repeated_and_exchanged_are_found(lines):
    for n in range(1, len(lines)):
        found_at(b"".join(lines[:n] + lines[n + 1 :]))
        found_at(b"".join([*lines[:n], lines[n], *lines[n:]]))
    assert isinstance(found_at(b"".join([lines[0], lines[2], lines[1], *lines[3:]])), AuditCheckError)
    assert isinstance(found_at(b"".join(lines[:-1])), AuditIncompleteError)
    assert isinstance(found_at(b"".join(lines) + b"\n"), AuditFormatError)
    assert isinstance(found_at(b""), AuditIncompleteError)


# --- forgers who compute fresh checks -------------------------------------------------------------------------------


def refused(desk, kind, words, **how):
    with pytest.raises(kind, match=words) as error:
        audit_lines(file_of(desk, **how))
    return error.value


def test_another_batch_is_refused(desk):
    other = desk.raw(Transfer(1, 78), Transfer(0, 7), at=T0 + 11)
    error = refused(desk, AuditStateError, r"version 4", alter=lambda n, raw, s: (other if n == 3 else raw, s))
    assert error.details["version"] == 4


def test_another_batch_with_its_own_hash_is_not_signed(desk):
    other = desk.raw(Transfer(1, 78), Transfer(0, 7), at=T0 + 11)
    before = list(steps_of(desk))[2][1]
    made = body_hash(apply(desk.terms, before, other, 4).state.body)

    def alter(n, raw, s):
        return (other, AuditState(4, made, s.signature_a, s.signature_b)) if n == 3 else (raw, s)

    refused(desk, AuditSignatureError, "version 4.*signature of a", alter=alter)


def test_a_batch_of_one_version_alone_is_left_out(desk):
    refused(desk, AuditError, "version", alter=lambda n, raw, s: None if n == 3 else (raw, s))


def test_one_party_cannot_sign_for_both(desk):
    pairs = list(steps_of(desk))

    def alter(n, raw, s):
        return raw, (signed_by(pairs[n][1], (MAKER, MAKER)) if n == 5 else s)

    refused(desk, AuditSignatureError, "version 6.*signature of b", alter=alter)


def test_a_newest_state_that_nobody_signed_is_refused(desk):
    def alter(n, raw, s):
        return raw, (AuditState(s.version, s.body_hash, b"", b"") if n == 6 else s)

    refused(desk, AuditSignatureError, "not signed by both", alter=alter)


def test_one_signature_of_two_is_refused(desk):
    def alter(n, raw, s):
        return raw, (AuditState(s.version, s.body_hash, s.signature_a, b"") if n == 6 else s)

    refused(desk, AuditSignatureError, "signature of b", alter=alter)


def with_checks(values):
    """Lines of objects, with the checks that a forger computes."""
    writer = AuditWriter()
    return [writer._line(value) for value in values]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda v: v[0]["terms"].update(closeoutPenalty="20000000000000000"), AuditTermsError),
        (lambda v: v[0]["terms"].update(decimals=19), AuditTermsError),
        (lambda v: v[0].update(chain_id=1), AuditTermsError),
        (lambda v: v[0].update(channel="0x" + "11" * 32), AuditTermsError),
        (lambda v: v[0].update(channeld_audit=2), AuditFormatError),
        (lambda v: v[0].update(more=1), AuditFormatError),
        (lambda v: v[0].pop("base"), AuditFormatError),
        (lambda v: v[1].update(version=-1), AuditFormatError),
        (lambda v: v[1].update(version=1.0), AuditFormatError),
        (lambda v: v[1].update(batch="zz"), AuditFormatError),
        (lambda v: v[1].update(batch="0x00"), AuditBatchError),
        (lambda v: v[2].update(version=1), AuditBatchError),
        (lambda v: v[-1]["end"].update(batches=3), AuditIncompleteError),
        (lambda v: v[-1]["end"].update(version=99), AuditIncompleteError),
        (lambda v: v[-1]["end"]["body"].update(asOf=1), AuditStateError),
        (lambda v: v[-1]["end"]["body"].update(asOf="x"), AuditFormatError),
        (lambda v: v.append(v[-1]), AuditIncompleteError),
        (lambda v: v.pop(), AuditIncompleteError),
    ],
)
def test_what_a_forger_writes_with_right_checks_is_refused(lines, change, kind):
    values = [json.loads(line) for line in lines]
    for value in values:
        del value["check"]
    change(values)
    with pytest.raises(kind):
        audit_lines(with_checks(values))


def test_a_line_is_bounded():
    with pytest.raises(AuditFormatError, match="longer"):
        Auditor().take(b"x" * (audit.MAX_LINE + 1))
    with pytest.raises(AuditFormatError):
        Auditor().take(b"[" * 100_000 + b"\n")
    with pytest.raises(AuditIncompleteError):
        _ = Auditor().state


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=4))
def test_no_bytes_make_it_fail_otherwise_than_typed(parts):
    with pytest.raises(AuditError):
        audit_lines([part + b"\n" for part in parts])
