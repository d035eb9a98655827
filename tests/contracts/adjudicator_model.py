"""The Adjudicator and the FixBook as a specification: pure functions from a channel to a channel, or a named refusal.

Rules: docs/protocol.md, sections 7 and 11; one function for each of the contract's, in its order of checks. A channel
is immutable; a step gives the next one and the event, or raises `Refused` with the name of the contract's error and
changes nothing. Nothing here is packed, lazy or saved for gas: deposits are a history, and what counted at a time is
looked up. Amounts are units, times Unix seconds, prices wads. Money is computed by core/settlement.py and
core/margin.py; moving tokens is the caller's: what a step pays is the difference of the ledgers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from channeld.core import crypto, eip712, package_codec, packages
from channeld.core.errors import OracleError
from channeld.core.margin import both, to_wad_equity
from channeld.core.settlement import Ledger, close_out, entitlement, fix_time, fixes_needed
from channeld.core.state import genesis
from channeld.core.terms import ZERO_FEED
from channeld.core.valuation import to_units
from channeld.core.wad import DAY, WAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from channeld.core.settlement import FixKey
    from channeld.core.state import Account, Body
    from channeld.core.terms import Oracle, Terms

OPEN, DISPUTED, ENDED = 1, 2, 3
MAX_TOTAL = 2**128 - 1
CALLS_OF_A_PARTY = 4
RELEASE_AFTER = 180 * DAY
NO_SIGNATURES = b""


class Refused(Exception):  # noqa: N818 - what happened
    """A step that the contract refuses. `str` is the name of its error."""


def require(condition: bool, error: str) -> None:  # noqa: FBT001 - an assertion with a name
    """Refuse by this name unless the condition holds."""
    if not condition:
        raise Refused(error)


class Transaction(NamedTuple):
    """When a call is made, and by whom."""

    now: int
    caller: bytes


class Fix(NamedTuple):
    """A fix on record: a wad, and the number of packages it was made of."""

    value: int
    weight: int


NO_FIX = Fix(0, 0)


@dataclass(frozen=True)
class Verdict:
    """What a test found of both: equities and maintenance margins (wads).

    penalty: by how much it raises a's gain (units). weight and complete: of the fixes it was made at.
    """

    equity: tuple[int, int]
    margin: tuple[int, int]
    penalty: int
    weight: int
    complete: bool

    @property
    def below(self) -> tuple[bool, bool]:
        """Who is below maintenance margin."""
        return self.equity[0] < self.margin[0], self.equity[1] < self.margin[1]


@dataclass(frozen=True)
class MarginCall:
    """A call of one side (0 or 1) for the time L, and what its test found."""

    time: int
    side: int
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Shown:
    """A body shown because nobody shows the one on record, and when the last word can be had (settle_last)."""

    version: int
    body_hash: bytes
    end: int


@dataclass(frozen=True)
class Dispute:
    """The latest dispute. number 0: there was none."""

    number: int = 0
    version: int = 0
    body_hash: bytes = b"\0" * 32
    deadline: int = 0
    calls: tuple[MarginCall, ...] = ()
    shown: Shown | None = None


@dataclass(frozen=True)
class Channel:
    """A channel. deposits: (time, a's total, b's total) after each one."""

    id: bytes
    domain: eip712.Domain
    terms: Terms
    phase: int = OPEN
    ledger: Ledger = field(default_factory=Ledger)
    deposits: tuple[tuple[int, int, int], ...] = ()
    floor_version: int = 0
    floor_hash: bytes = b""
    dispute: Dispute = field(default_factory=Dispute)

    @property
    def parties(self) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
        """(signer, payout) of a and of b."""
        a, b = self.terms.a, self.terms.b
        return (a.signer, a.payout), (b.signer, b.payout)

    @property
    def fix_time(self) -> int:
        """D of the dispute."""
        return fix_time(self.terms, self.dispute.deadline)

    @property
    def oracle_hash(self) -> bytes:
        """The name of the oracle's fixes in the FixBook."""
        return eip712.oracle_hash(self.terms.oracle)

    @property
    def grace(self) -> int:
        """The oracle's grace."""
        return self.terms.oracle.grace

    def deposited_at(self, time: int) -> tuple[int, int]:
        """Both parties' totals from deposits in blocks up to a time."""
        return next(((a, b) for at, a, b in reversed(self.deposits) if at <= time), (0, 0))


Event = tuple[str, dict[str, Any]]
Step = tuple[Channel, Event]
Fixes = "Mapping[tuple[bytes, bytes, int], Fix]"


# --- the FixBook -----------------------------------------------------------------------------------------------------

ORACLE_REFUSALS: tuple[tuple[type[OracleError], str], ...] = (
    (packages.ZeroValueError, "ZeroValue"),
    (packages.RepeatedFeedError, "RepeatedFeed"),
    (packages.MalformedPackageError, "MalformedPackage"),
    (packages.StalePackageError, "OtherTime"),
    (packages.MissingFeedError, "FeedMissing"),
    (packages.PackageSignatureError, "InvalidSignature"),
    (packages.UnknownSignerError, "UnknownSigner"),
    (packages.DuplicatePackageError, "DuplicatedSigner"),
    (packages.NoQuorumError, "QuorumMissing"),
)


def _from_the_end(raw: bytes) -> Iterator[bytes]:
    """Signed packages as the contract reads them: the last one first, each looked at before the next is read."""
    while raw:
        start, _ = package_codec.parse_last(raw, len(raw))
        yield raw[start:]
        raw = raw[:start]


def prove_fix(book: Fixes, tx: Transaction, oracle: Oracle, feed: bytes, t: int, raw: bytes) -> tuple[Fixes, Fix]:
    """Record a fix of strictly greater weight than the one there is; the fix that stands."""
    require(tx.now >= t, "TimeNotReached")
    try:
        found = packages.fix_price(oracle, feed, t, _from_the_end(raw))
    except OracleError as error:
        raise Refused(next(name for kind, name in ORACLE_REFUSALS if isinstance(error, kind))) from None
    key = (eip712.oracle_hash(oracle), feed, t)
    standing = book.get(key, NO_FIX)
    if found.weight <= standing.weight:
        return book, standing
    fix = Fix(found.value, found.weight)
    return {**book, key: fix}, fix


class Known(NamedTuple):
    """The fixes that a close-out at a time needs, as they are on record."""

    fixes: Mapping[FixKey, int]
    weight: int
    present: bool
    complete: bool


def known_fixes(terms: Terms, body: Body, t: int, book: Fixes) -> Known:
    """Look up what `fixes_needed` names."""
    oracle_hash = eip712.oracle_hash(terms.oracle)
    found = {key: book.get((oracle_hash, *key), NO_FIX) for key in fixes_needed(terms, body, t)}
    full = len(terms.oracle.signers) * terms.oracle.samples
    weights = [fix.weight for fix in found.values()]
    return Known(
        {key: fix.value for key, fix in found.items()},
        sum(weights),
        all(weight > 0 for weight in weights),
        all(weight == full for weight in weights),
    )


# --- opening and funding ---------------------------------------------------------------------------------------------


def open_channel(domain: eip712.Domain, terms: Terms) -> Channel:
    """A channel of terms that `open` accepts (tests/contracts/test_open.py: core refuses the same ones)."""
    channel = eip712.channel_id(domain, terms)
    return Channel(channel, domain, terms, floor_hash=eip712.body_hash(genesis(channel).body))


def _require_alive(c: Channel | None) -> None:
    require(c is not None, "UnknownChannel")
    require(c.phase != ENDED, "ChannelEnded")


def _require_open(c: Channel) -> None:
    _require_alive(c)
    require(c.phase == OPEN, "InDispute")


def _require_disputed(c: Channel) -> None:
    _require_alive(c)
    require(c.phase == DISPUTED, "NotInDispute")


def _require_signed(c: Channel, digest: bytes, sigs: bytes) -> None:
    require(len(sigs) == 130, "SignaturesMissing")
    for name, signature, (signer, _) in zip("AB", (sigs[:65], sigs[65:]), c.parties, strict=True):
        try:
            found = crypto.recover(digest, signature)
        except crypto.SignatureError:
            found = None
        require(found == signer, f"InvalidSignature{name}")


def _require_signed_state(c: Channel, version: int, body_hash: bytes, sigs: bytes) -> None:
    _require_signed(c, eip712.state_digest(c.domain, c.id, version, body_hash), sigs)


def deposit(c: Channel, tx: Transaction, party: int, received: int, other_at_least: int) -> Step:
    """Credit what arrived for a party. With a permit the same: what the permit did shows in what arrived."""
    _require_alive(c)
    require(party in (0, 1), "InvalidParty")
    ledger = c.ledger
    require((ledger.deposited_a if party else ledger.deposited_b) >= other_at_least, "OtherDepositMissing")
    require(received > 0, "NothingReceived")
    require(ledger.deposited_a + ledger.deposited_b + received <= MAX_TOTAL, "DepositTooLarge")
    ledger = ledger.deposit(party, received)
    totals = (ledger.deposited_a, ledger.deposited_b)
    event = {"party": party, "received": received, "deposited_a": totals[0], "deposited_b": totals[1]}
    return replace(c, ledger=ledger, deposits=(*c.deposits, (tx.now, *totals))), ("Deposited", event)


def withdraw(c: Channel, _tx: Transaction, withdrawal: eip712.Withdrawal, sigs: bytes) -> Step:
    """Pay what the totals are above what was paid; the state that counts them becomes the floor, if it is higher."""
    _require_open(c)
    _require_signed(c, eip712.withdrawal_digest(c.domain, withdrawal), sigs)
    to_a = max(0, withdrawal.withdrawn_a - c.ledger.paid_a)
    to_b = max(0, withdrawal.withdrawn_b - c.ledger.paid_b)
    require(to_a + to_b <= c.ledger.pot, "PotShort")
    paid = replace(c, ledger=c.ledger.pay(to_a, to_b))
    return _raise_floor(paid, withdrawal.version, withdrawal.body_hash), ("Withdrawn", {"to_a": to_a, "to_b": to_b})


def _raise_floor(c: Channel, version: int, body_hash: bytes) -> Channel:
    """Floors never fall."""
    return replace(c, floor_version=version, floor_hash=body_hash) if version > c.floor_version else c


def anchor(c: Channel, _tx: Transaction, version: int, body_hash: bytes, sigs: bytes) -> Step:
    """Raise the floor to a co-signed state."""
    _require_open(c)
    require(version > c.floor_version, "VersionNotHigher")
    _require_signed_state(c, version, body_hash, sigs)
    return _raise_floor(c, version, body_hash), ("Anchored", {"version": version, "body_hash": body_hash})


def anchor_many(
    channels: Mapping[bytes, Channel], tx: Transaction, anchors: list[tuple[bytes, int, bytes, bytes]]
) -> Mapping[bytes, Channel]:
    """Raise the floors of many; what would change nothing is passed over, a bad signature refuses all."""
    after = dict(channels)
    for channel, version, body_hash, sigs in anchors:
        c = after.get(channel)
        if c is not None and c.phase == OPEN and version > c.floor_version:
            after[channel], _ = anchor(c, tx, version, body_hash, sigs)
    return after


# --- disputes --------------------------------------------------------------------------------------------------------


def _side_of(c: Channel | None, caller: bytes) -> int:
    """Whose signer or payout address calls. Signers, which differ, come first; a payout of both counts as a's."""
    _require_alive(c)
    (signer_a, payout_a), (signer_b, payout_b) = c.parties
    side = {payout_b: 1, payout_a: 0, signer_b: 1, signer_a: 0}.get(caller)
    require(side is not None, "NotAParty")
    return side


def challenge(c: Channel, tx: Transaction, version: int, body_hash: bytes, sigs: bytes) -> Step:
    """Start a dispute at a co-signed state, or at the floor."""
    _side_of(c, tx.caller)
    _require_open(c)
    return _challenge(c, tx, version, body_hash, sigs)


def _challenge(c: Channel, tx: Transaction, version: int, body_hash: bytes, sigs: bytes) -> Step:
    if version > c.floor_version:
        _require_signed_state(c, version, body_hash, sigs)
    else:
        version, body_hash, sigs = c.floor_version, c.floor_hash, NO_SIGNATURES
    deadline = tx.now + c.terms.challenge_period
    dispute = Dispute(c.dispute.number + 1, version, body_hash, deadline)
    return replace(c, phase=DISPUTED, dispute=dispute), _on_record("Challenged", dispute, sigs)


def _on_record(name: str, dispute: Dispute, sigs: bytes) -> Event:
    return name, {
        "dispute": dispute.number,
        "version": dispute.version,
        "body_hash": dispute.body_hash,
        "deadline": dispute.deadline,
        "sigs": sigs,
    }


def refute(c: Channel, tx: Transaction, version: int, body_hash: bytes, sigs: bytes) -> Step:
    """Replace the version on record by a strictly higher one. Neither the deadline nor any L moves."""
    _require_disputed(c)
    require(tx.now < c.dispute.deadline, "DeadlinePassed")
    require(version > c.dispute.version, "VersionNotHigher")
    _require_signed_state(c, version, body_hash, sigs)
    dispute = replace(c.dispute, version=version, body_hash=body_hash)
    return replace(c, dispute=dispute), _on_record("Refuted", dispute, sigs)


def call_margin(c: Channel, tx: Transaction, version: int, body_hash: bytes, sigs: bytes) -> Step:
    """A challenge or a refutation where that is needed, and a margin call at L."""
    side = _side_of(c, tx.caller)
    if c.phase == OPEN:
        c, _ = _challenge(c, tx, version, body_hash, sigs)
    else:
        require(tx.now < c.dispute.deadline, "DeadlinePassed")
        if version > c.dispute.version:
            c, _ = refute(c, tx, version, body_hash, sigs)
    mine = [call for call in c.dispute.calls if call.side == side]
    require(not mine or tx.now > mine[-1].time, "CallPending")
    require(len(mine) < CALLS_OF_A_PARTY, "TooManyCalls")
    tick = c.terms.oracle.tick
    call = MarginCall(-(-(tx.now + c.terms.cure_period) // tick) * tick, side)
    event = {"dispute": c.dispute.number, "call": len(c.dispute.calls), "party": side, "time": call.time}
    dispute = replace(c.dispute, calls=(*c.dispute.calls, call))
    return replace(c, dispute=dispute), ("MarginCalled", event)


def resume(c: Channel, tx: Transaction, resumption: eip712.Resume, sigs: bytes) -> Step:
    """Both agree to end the dispute and go on from the version on record."""
    _require_disputed(c)
    require(tx.now < c.dispute.deadline, "DeadlinePassed")
    require(tx.now <= resumption.valid_until, "ResumeExpired")
    require(resumption.dispute == c.dispute.number, "OtherDispute")
    _require_signed(c, eip712.resume_digest(c.domain, resumption), sigs)
    ended = replace(c, phase=OPEN, dispute=replace(c.dispute, deadline=0, calls=(), shown=None))
    event = {"version": c.dispute.version, "body_hash": c.dispute.body_hash, "sigs": sigs}
    return _raise_floor(ended, c.dispute.version, c.dispute.body_hash), ("Resumed", event)


# --- margin calls judged ---------------------------------------------------------------------------------------------


def _require_body(c: Channel, body: Body) -> None:
    require(eip712.body_hash(body) == c.dispute.body_hash, "BodyNotOnRecord")


def equities(c: Channel, body: Body, profit: int, t: int, collateral_price: int) -> tuple[int, int]:
    """Both parties' equity on chain at t (wads). profit: a's, in units."""
    deposited_a, deposited_b = c.deposited_at(t)

    def equity(account: Account, gain: int, deposited: int, paid: int) -> int:
        units = account.balance + gain + (deposited - account.deposited) + (account.withdrawn - paid)
        return to_wad_equity(units, c.terms, collateral_price)

    return (
        equity(body.a, profit, deposited_a, c.ledger.paid_a),
        equity(body.b, -profit, deposited_b, c.ledger.paid_b),
    )


def judge(c: Channel, body: Body, t: int, known: Known) -> Verdict:
    """Who is below maintenance margin at the fixes for t, and what the penalty is."""
    if not body.positions:
        return Verdict((0, 0), (0, 0), 0, 0, complete=True)
    terms = c.terms
    # without a feed the collateral is money itself
    price = known.fixes[terms.collateral_feed, t] if terms.collateral_feed != ZERO_FEED else WAD
    profit = close_out(terms, body, known.fixes, t)
    prices = {feed: value for (feed, at), value in known.fixes.items() if at == t}
    needed_a, needed_b = (report.maintenance for report in both(terms, body, prices, t, price))
    verdict = Verdict(equities(c, body, profit, t, price), (needed_a, needed_b), 0, known.weight, known.complete)
    below_a, below_b = verdict.below
    if below_a == below_b:
        return verdict
    due = to_units(terms.closeout_penalty * (needed_a if below_a else needed_b) // WAD, terms, price)
    return replace(verdict, penalty=-due if below_a else due)


def test(c: Channel, tx: Transaction, body: Body, index: int, book: Fixes) -> Step:
    """Judge a margin call on the body on record; a test at heavier fixes replaces a lighter one's verdict."""
    _require_disputed(c)
    require(tx.now >= c.dispute.deadline, "DeadlineNotReached")
    require(index < len(c.dispute.calls), "NoSuchCall")
    _require_body(c, body)
    call = c.dispute.calls[index]
    # strictly: what is deposited in the block at L counts
    require(tx.now > call.time, "CallTimeNotPassed")
    known = known_fixes(c.terms, body, call.time, book)
    require(known.present, "FixMissing")
    require(call.verdict is None or known.weight > call.verdict.weight, "NotHeavier")
    verdict = judge(c, body, call.time, known)
    calls = list(c.dispute.calls)
    calls[index] = replace(call, verdict=verdict)
    event = {
        "dispute": c.dispute.number,
        "call": index,
        "time": call.time,
        "verdict": (
            *verdict.below,
            verdict.complete,
            verdict.weight,
            *verdict.equity,
            *verdict.margin,
            abs(verdict.penalty),
        ),
    }
    return replace(c, dispute=replace(c.dispute, calls=tuple(calls))), ("Tested", event)


# --- ending ----------------------------------------------------------------------------------------------------------


def _end(c: Channel, account: Account, gain: int) -> Channel:
    """Pay out the pot by an account of a and a's gain: the payment function."""
    totals = dict(zip(("deposited_a", "deposited_b", "paid_a", "paid_b"), c.ledger.totals, strict=True))
    return replace(c, phase=ENDED, ledger=c.ledger.pay(*entitlement(account, gain, **totals)))


def close(c: Channel, tx: Transaction, value: eip712.Close, sigs: bytes) -> Step:
    """Pay both what they signed, overriding any dispute."""
    _require_alive(c)
    require(tx.now <= value.valid_until, "CloseExpired")
    require(value.version >= c.floor_version, "BelowFloor")
    require(c.phase == OPEN or value.version >= c.dispute.version, "BelowRecord")
    _require_signed(c, eip712.close_digest(c.domain, value), sigs)
    ended = _end(c, value.a, 0)
    to_a, to_b = paid(c, ended)
    return replace(ended, dispute=replace(c.dispute, deadline=0, calls=())), ("Closed", {"to_a": to_a, "to_b": to_b})


def paid(before: Channel, after: Channel) -> tuple[int, int]:
    """What a step paid to a and to b."""
    return after.ledger.paid_a - before.ledger.paid_a, after.ledger.paid_b - before.ledger.paid_b


def settle(c: Channel, tx: Transaction, body: Body, book: Fixes) -> Step:
    """Close the book on record out at the deciding time, and pay."""
    _require_disputed(c)
    _require_body(c, body)
    last = c.fix_time + c.grace
    require(tx.now >= c.fix_time, "FixTimeNotReached")
    calls = sorted(c.dispute.calls, key=lambda call: call.time) if body.positions else []
    if tx.now < last:
        require(all(call.verdict and call.verdict.complete for call in calls), "CallsUntested")
    verdicts = [(call.time, call.verdict) for call in calls if call.verdict]
    t, penalty = next(((at, v.penalty) for at, v in verdicts if any(v.below)), (c.fix_time, 0))
    known = known_fixes(c.terms, body, t, book)
    require(known.complete or tx.now >= last, "FixesIncomplete")
    profit = close_out(c.terms, body, known.fixes, t)
    ended = _end(c, body.a, profit + penalty)
    to_a, to_b = paid(c, ended)
    event = {
        "version": c.dispute.version,
        "fix_time": t,
        "complete": known.complete,
        "profit": profit,
        "penalty": penalty,
        "to_a": to_a,
        "to_b": to_b,
    }
    return ended, ("Settled", event)


def settle_last(c: Channel, tx: Transaction, version: int, body: Body, sigs: bytes, book: Fixes) -> Step:
    """Nobody shows the body on record: the highest that anybody shows within a window is paid, at fix(D)."""
    _require_disputed(c)
    require(tx.now >= c.fix_time + 2 * c.grace, "LastNotReached")
    body_hash, shown = eip712.body_hash(body), c.dispute.shown
    if shown is not None and tx.now >= shown.end:
        require((version, body_hash) == (shown.version, shown.body_hash), "BodyNotShown")
        return _settle_shown(c, body, book)
    require(version >= c.floor_version, "BelowFloor")
    require(shown is None or version > shown.version, "VersionNotHigher")
    if version == c.floor_version:
        require(body_hash == c.floor_hash, "BodyNotOnRecord")
    else:
        _require_signed_state(c, version, body_hash, sigs)
    end = tx.now + c.grace if shown is None else shown.end
    dispute = replace(c.dispute, shown=Shown(version, body_hash, end))
    return replace(c, dispute=dispute), ("Shown", {"version": version, "body_hash": body_hash, "window_end": end})


def _settle_shown(c: Channel, body: Body, book: Fixes) -> Step:
    known = known_fixes(c.terms, body, c.fix_time, book)
    profit = close_out(c.terms, body, known.fixes, c.fix_time)
    ended = _end(c, body.a, profit)
    to_a, to_b = paid(c, ended)
    return ended, ("Settled", {"version": c.dispute.shown.version, "profit": profit, "to_a": to_a, "to_b": to_b})


def release(c: Channel, tx: Transaction) -> Step:
    """Nobody has shown any body for 180 days: to each what it deposited, less what it was paid."""
    _require_disputed(c)
    require(tx.now >= c.fix_time + RELEASE_AFTER, "ReleaseNotReached")
    require(c.dispute.shown is None, "BodyShown")
    to_a = min(max(c.ledger.deposited_a - c.ledger.paid_a, 0), c.ledger.pot)
    to_b = c.ledger.pot - to_a
    return replace(c, phase=ENDED, ledger=c.ledger.pay(to_a, to_b)), ("Released", {"to_a": to_a, "to_b": to_b})


STEPS: Mapping[str, Callable[..., Step]] = {
    "deposit": deposit,
    "deposit_with_permit": deposit,
    "withdraw": withdraw,
    "anchor": anchor,
    "challenge": challenge,
    "refute": refute,
    "call_margin": call_margin,
    "resume": resume,
    "test": test,
    "close": close,
    "settle": settle,
    "settle_last": settle_last,
    "release": release,
}
