"""Statements add up, confirmations prove themselves, and reconciliation names every difference."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import DOMAIN, ETH, MAKER, T0, TAKER, Desk, call, dollars, leg, perpetual

from channeld.core.audit import Auditor, AuditState, AuditWriter
from channeld.core.crypto import sign_digest
from channeld.core.eip712 import body_hash, state_digest
from channeld.core.errors import InputError
from channeld.core.operations import Deposit, Leg, Trade, Transfer, Withdraw
from channeld.core.state import genesis
from channeld.core.transition import apply
from channeld.core.wad import WAD, parse_decimal
from channeld.desk.cdm import trade_states
from channeld.desk.confirmations import BadConfirmationError, Confirmation, NotConfirmedError, read_confirmation
from channeld.desk.reconciliation import NotReconcilableError, reconcile
from channeld.desk.statements import NoStatementError, StatementMaker

FOREVER = 1 << 62


def file_of(desk, *, unsigned=()):
    """An audit file of a desk's journal; versions in `unsigned` are covered by later ones."""
    writer = AuditWriter()
    yield writer.head(DOMAIN, desk.terms, None)
    state = genesis(desk.state.channel)
    for version, raw in desk.journal:
        state = apply(desk.terms, state, raw, version).state
        hashed = body_hash(state.body)
        digest = state_digest(DOMAIN, state.channel, version, hashed)
        both = [b"", b""] if version in unsigned else [sign_digest(key, digest) for key in (MAKER, TAKER)]
        yield writer.batch(raw, AuditState(version, hashed, *both))
    yield writer.end(state.version, state.body)


def statement(desk, side=0, begin=0, until=FOREVER):
    maker = StatementMaker(side, begin, until)
    auditor = Auditor(maker.take)
    for line in file_of(desk):
        auditor.take(line)
    return maker.finish(auditor.finish())


@pytest.fixture(scope="module")
def desk():
    made = Desk()
    made.do(Trade(0, (leg(call(), 5, 150), leg(perpetual(), -1, 3000)), 2_000_000, b"0" * 16 + b"noon"), at=T0)
    made.mark(T0 + 10, {ETH: dollars(3100)})
    made.do(Transfer(1, 77), Transfer(0, 7), at=T0 + 11)
    made.do(Withdraw(0, 1_000), at=T0 + 12)
    made.do(Deposit(0, 10**12 + 5, 10**12), at=T0 + 13)
    made.do(Trade(1, (leg(perpetual(), 1, 3100),)), Transfer(0, 1), at=T0 + 14)
    return made


def test_every_operation_is_a_row_and_the_rows_add_up(desk):
    found = statement(desk)
    assert [row.kind for row in found.rows] == [
        "deposit", "trade", "mark", "transfer", "transfer", "withdrawal", "deposit", "trade", "transfer",
    ]  # fmt: skip
    data = found.as_data()
    assert data["rows"][1]["fee_paid"] == "2"
    assert data["rows"][1]["reference"] == "noon"
    assert [row["amount"] for row in data["rows"][3:7]] == ["0.000077", "-0.000007", "-0.001", "0.000005"]
    assert data["rows"][-1]["balance"] == data["closing"]["balance"]
    assert sum(found.totals().values()) == desk.body.a.balance
    assert data["totals"]["transfer"] == "0.000069"
    assert json.loads(json.dumps(data)) == data
    assert data["margin"]["initial_margin"] != "0"


def test_a_time_in_between_begins_where_the_one_before_ends(desk):
    cuts = [0, T0 * 1000, (T0 + 11) * 1000, (T0 + 13) * 1000, FOREVER]
    parts = [statement(desk, 1, *pair) for pair in itertools.pairwise(cuts)]
    whole = statement(desk, 1)
    assert tuple(row for part in parts for row in part.rows) == whole.rows
    for first, second in itertools.pairwise(parts):
        assert first.closing == second.opening
    assert statement(desk, 0, FOREVER - 1).rows == ()


@st.composite
def journals(draw):
    """A desk after random operations, several in a batch."""
    made = Desk()
    at = T0
    for _ in range(draw(st.integers(1, 6))):
        at += draw(st.integers(1, 400))
        if made.body.positions and draw(st.booleans()):
            at = max(at, made.body.as_of + 10) // 10 * 10 + 10
            made.mark(at, {ETH: dollars(draw(st.integers(2_500, 3_500)))})
            continue
        pieces = st.one_of(
            st.builds(Transfer, st.integers(0, 1), st.integers(1, 10**9)),
            st.builds(Withdraw, st.integers(0, 1), st.integers(1, 10**6)),
            st.builds(
                lambda side, size, price, fee: Trade(side, (leg(perpetual(), size, price),), fee),
                st.integers(0, 1), st.integers(-5, 5).filter(bool), st.integers(2_900, 3_100), st.integers(-99, 99),
            ),
        )  # fmt: skip
        made.do(*draw(st.lists(pieces, min_size=1, max_size=4)), at=at)
    return made


@given(journals())
@settings(max_examples=25)
def test_whatever_is_done_both_statements_add_up_and_reconcile(made):
    ours, theirs = statement(made, 0), statement(made, 1)
    for side, found in enumerate((ours, theirs)):
        assert found.closing.body.account(side).balance == sum(row.amount for row in found.rows)
    for first, second in zip(ours.rows, theirs.rows, strict=True):
        if first.kind in {"trade", "mark", "transfer"}:
            assert first.amount == -second.amount
        assert (first.amount, first.peer_amount) == (second.peer_amount, second.amount)
    assert reconcile(ours.as_data(), theirs.as_data()) == []
    assert reconcile(theirs.as_data(), ours.as_data()) == []


def _leaves(value, path=()):
    """Every field of the rows and positions of a statement that reconciliation is to compare."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(inner, (*path, number))
    elif value is not None and path[-1] not in {"balance", "value"}:
        yield path, value


def test_any_single_field_that_differs_is_found_and_named(desk):
    ours, theirs = statement(desk, 0).as_data(), statement(desk, 1).as_data()
    paths = [p for p, _ in _leaves({"rows": theirs["rows"], "positions": theirs["positions"]})]
    assert len(paths) > 80
    for path in paths:
        changed = copy.deepcopy(theirs)
        *way, last = path
        place = changed
        for step in way:
            place = place[step]
        old = place[last]
        place[last] = old + 1 if isinstance(old, int) else "9" + old
        found = reconcile(ours, changed)
        assert found, path
        named = {"amount": "peer_amount", "peer_amount": "amount"}.get(last, last)
        if last not in {"version", "index", "instrument"}:
            assert any(named in one.reason for one in found), (path, [one.reason for one in found])


def test_what_is_missing_is_named_on_the_side_where_it_is(desk):
    ours, theirs = statement(desk, 0).as_data(), statement(desk, 1).as_data()
    gone = theirs["rows"].pop(2)
    found = reconcile(ours, theirs)[-1]
    assert (found.version, found.reason) == (gone["version"], "missing there")
    (found,) = reconcile(theirs, ours)
    assert found.reason == "missing here"
    theirs["closing"]["balance"] = "1"
    reasons = [one.reason for one in reconcile(ours, theirs)]
    assert "closing peer balance differs" in reasons


NONSENSE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
@settings(max_examples=60)
def test_a_stranger_s_statement_never_raises_anything_untyped(desk_of_module, data):
    ours, theirs = (statement(desk_of_module, side).as_data() for side in (0, 1))
    key = data.draw(st.sampled_from(sorted(theirs)))
    if key == "rows" and data.draw(st.booleans()):
        row = data.draw(st.integers(0, len(theirs["rows"]) - 1))
        theirs["rows"][row] = data.draw(NONSENSE)
    else:
        theirs[key] = data.draw(NONSENSE)
    # either way round: somebody will name the files in the wrong order
    for pair in ((ours, theirs), (theirs, ours)):
        with contextlib.suppress(InputError):
            reconcile(*pair)


@given(st.data())
@settings(max_examples=30)
def test_what_stands_twice_in_a_file_hides_nothing(desk_of_module, data):
    """The first of two rows of one place is no less a claim than the second; so with positions."""
    ours, theirs = (statement(desk_of_module, side).as_data() for side in (0, 1))
    key = data.draw(st.sampled_from(["rows", "positions"]))
    row = data.draw(st.sampled_from(theirs[key]))
    other = row | data.draw(st.sampled_from([{}, {"amount": "999"}, {"size": "999"}, {"mark": "1"}]))
    theirs[key].insert(data.draw(st.integers(0, len(theirs[key]))), other)
    reasons = [one.reason for one in reconcile(ours, theirs)]
    assert any(reason.endswith("more than once there") for reason in reasons)
    assert any(one.reason.endswith("more than once here") for one in reconcile(theirs, ours))


@given(st.integers(1, 10**20), st.integers(1, 10**22), st.booleans())
@settings(max_examples=40)
def test_values_of_both_sides_cancel_to_the_last_digit(size, price, buys):
    made = Desk()
    at_price = Leg(leg(perpetual(), 1, 1).instrument, size if buys else -size, price, 0, 0)
    made.do(Trade(0, (at_price,)), at=T0)
    ours, theirs = (statement(made, side).as_data()["positions"][0] for side in (0, 1))
    assert parse_decimal(ours["value"]) == -parse_decimal(theirs["value"])
    assert abs(parse_decimal(ours["value"])) == size * price // WAD


@pytest.fixture(scope="module")
def desk_of_module(desk):
    return desk


def test_two_that_do_not_belong_together_are_not_compared(desk):
    ours, theirs = statement(desk, 0).as_data(), statement(desk, 1).as_data()
    for other in (ours, theirs | {"channel": "0x00"}, theirs | {"until_ms": 5}, {}, theirs | {"rows": 3}):
        with pytest.raises(NotReconcilableError):
            reconcile(ours, other)


def confirmations(desk, **more):
    found = []

    def seen(report, proven):
        try:
            found.append(Confirmation.of(report, proven))
        except NotConfirmedError as error:
            found.append(error)

    auditor = Auditor(seen)
    for line in file_of(desk, **more):
        auditor.take(line)
    return found


def test_a_confirmation_proves_the_trade_and_nothing_is_altered_unseen(desk):
    found = confirmations(desk)
    trades = [one for one in found if isinstance(one, Confirmation)]
    assert [one.version for one in trades] == [2, 7]
    written = json.loads(json.dumps(trades[0].as_file()))
    again = read_confirmation(written)
    assert again == trades[0]
    (trade,) = again.as_data(0)["trades"]
    assert [one["size"] for one in trade["legs"]] == ["5", "-1"]
    for name, value in written.items():
        for other in (None, 7, "0x00", value + 1 if isinstance(value, int) else "x", written["signature_a"]):
            if other != value:
                with pytest.raises(BadConfirmationError):
                    read_confirmation({**written, name: other})
    for name in ("batch", "journal_before", "signature_a", "signature_b", "number"):
        text = written[name]
        with pytest.raises(BadConfirmationError):
            read_confirmation({**written, name: text[:-1] + ("0" if text[-1] != "0" else "1")})
    changed = copy.deepcopy(written)
    changed["body"]["a"]["balance"] = str(int(changed["body"]["a"]["balance"]) + 1)
    with pytest.raises(BadConfirmationError):
        read_confirmation(changed)
    assert len({one.number for one in trades}) == 2


def test_what_later_signatures_cover_has_no_confirmation_of_its_own(desk):
    found = confirmations(desk, unsigned={2})
    assert isinstance(found[1], NotConfirmedError)
    assert isinstance(found[6], Confirmation)


def test_the_shapes_of_the_common_domain_model(desk):
    first = next(one for one in confirmations(desk) if isinstance(one, Confirmation))
    option, perp = trade_states(first)
    assert [s["@type"] for s in (perp, option)] == ["cdm.event.common.TradeState"] * 2
    payout = option["trade"]["product"]["economicTerms"]["payout"][0]["OptionPayout"]
    assert (payout["optionType"], payout["buyerSeller"]) == ("Call", {"buyer": "Party1", "seller": "Party2"})
    assert "PerformancePayout" in perp["trade"]["product"]["economicTerms"]["payout"][0]
    (quantity,) = option["trade"]["tradeLot"][0]["priceQuantity"][0]["quantity"]
    assert parse_decimal(quantity["value"]["value"]) == 5 * WAD
    assert {one["role"] for one in perp["trade"]["counterparty"]} == {"Party1", "Party2"}
    assert json.loads(json.dumps([option, perp])) == [option, perp]


def test_a_journal_whose_beginning_is_lost_has_no_statement_of_before(desk):
    writer = AuditWriter()
    state = genesis(desk.state.channel)
    versions = list(desk.journal)
    for version, raw in versions[:3]:
        state = apply(desk.terms, state, raw, version).state
    hashed = body_hash(state.body)
    digest = state_digest(DOMAIN, state.channel, state.version, hashed)
    base = AuditState(state.version, hashed, *(sign_digest(key, digest) for key in (MAKER, TAKER)))
    for begin, fine in (((T0 + 11) * 1000, True), (0, False)):
        maker = StatementMaker(0, begin, FOREVER)
        auditor = Auditor(maker.take)
        later, made = state, AuditWriter()
        auditor.take(made.head(DOMAIN, desk.terms, (base, state.body)))
        for version, raw in versions[3:]:
            later = apply(desk.terms, later, raw, version).state
            hashed = body_hash(later.body)
            digest = state_digest(DOMAIN, later.channel, version, hashed)
            signed = AuditState(version, hashed, *(sign_digest(key, digest) for key in (MAKER, TAKER)))
            auditor.take(made.batch(raw, signed))
        auditor.take(made.end(later.version, later.body))
        report = auditor.finish()
        if fine:
            assert maker.finish(report).closing == desk.state
        else:
            with pytest.raises(NoStatementError):
                maker.finish(report)
    del writer
