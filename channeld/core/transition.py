"""The transition: (terms, state, batch) -> the next state, or a typed refusal that changes nothing.

Rules (docs/protocol.md section 8; docs/protocol-operations.md has the order of every rounding):

* A pure function. Operations apply in order to a private working copy, the legs of a TRADE one after the other, each
  seeing the earlier. The state handed in is never touched; any error refuses the whole batch.
* Money is computed once, from a's point of view: wads are summed over an operation, converted to units by one division,
  added to a and subtracted from b. Conservation is therefore exact, and `Body` checks it again.
* After each operation all the rules of a state hold, save that balances may be negative until the end of the batch.
* asOf never passes the expiry of an open position: MARK settles what has expired by its time, and a TRADE that moves
  asOf finds the book empty and trades nothing that expires by then.
* Every rule broken has an error class of its own, whose message names the rule and the figures. What is wrong with
  bytes is core/operations.py's; what is wrong with oracle packages is core/packages.py's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from channeld.core.crypto import keccak256
from channeld.core.errors import InternalError
from channeld.core.evolve import maker
from channeld.core.instruments import instrument_name
from channeld.core.operations import (
    Batch,
    CloseChannel,
    Deposit,
    Leg,
    Mark,
    Operation,
    Trade,
    Transfer,
    Withdraw,
    check_vol,
    decode_batch,
)
from channeld.core.packages import (
    DuplicatePackageError,
    NoQuorumError,
    PackageSet,
    StalePackageError,
    decode_package,
    sample_times,
)
from channeld.core.refusals import (
    BalanceBoundError,
    BatchBeforeStateError,
    BookLimitError,
    CloseNotLastError,
    CloseWithPositionsError,
    CollateralNotMarkedError,
    CollateralPrintMissingError,
    DepositFallsError,
    ExpiredInstrumentError,
    ExpiryNotOnTickError,
    FlaggedDespiteFixError,
    FlaggedNotExpiredError,
    FlaggedTooEarlyError,
    MarkAheadError,
    MarkDisagreementError,
    MarkNotLaterError,
    MarkNotOnTickError,
    MarkRepeatedError,
    MarkShapeError,
    NegativeBalanceError,
    PositionPastExpiryError,
    RepeatedInstrumentError,
    SizeBoundError,
    UnknownMarketError,
    UnusedPackageError,
    VersionError,
)
from channeld.core.state import (
    MAX_FEED_EXPIRIES,
    MAX_POSITIONS,
    MAX_SIZE,
    Account,
    Body,
    Instrument,
    Kind,
    Position,
    State,
)
from channeld.core.terms import ZERO_FEED, Oracle, Terms, feed_symbol
from channeld.core.valuation import funding, to_units, value_position
from channeld.core.wad import WAD, sdiv

if TYPE_CHECKING:
    from collections.abc import Iterable

_U64 = 1 << 64
_U128 = 1 << 128
_NAMES = ("a", "b")
_Key = tuple[int, bytes, int, int]
_make_body, _make_state = maker(Body), maker(State)


@dataclass(frozen=True, slots=True)
class SettledPosition:
    """An expired position as a MARK settled it.

    size, mark and fix are wads (size > 0: a was long); payoff is what a gained, in wads. fix is None where flagged:
    the fix had no quorum, and the position was settled at its mark, for nothing.
    """

    instrument: Instrument
    size: int
    mark: int
    fix: int | None
    payoff: int
    flagged: bool


@dataclass(frozen=True, slots=True)
class Applied:
    """What a batch made: the next state, the batch decoded, what was settled, and whether a Close is asked for."""

    state: State
    batch: Batch
    settled: tuple[SettledPosition, ...]
    closing: bool


@dataclass(frozen=True, slots=True)
class MarkNeeds:
    """What a MARK needs: `prints`, the feeds that carry all of the book; `fixes`, every (feed, expiry) to settle."""

    prints: tuple[bytes, ...]
    fixes: tuple[tuple[bytes, int], ...]


def is_expired(instrument: Instrument, t: int) -> bool:
    """Whether it has expired at t (Unix seconds): kind other than 0 and expiry <= t."""
    return instrument.kind != Kind.PERPETUAL and instrument.expiry <= t


def mark_needs(terms: Terms, body: Body, t: int) -> MarkNeeds:
    """The packages that a MARK of all feeds at t (Unix seconds) needs."""
    live = {p.instrument.feed for p in body.positions if not is_expired(p.instrument, t)}
    if terms.collateral_feed != ZERO_FEED:
        live.add(terms.collateral_feed)
    gone = {(p.instrument.feed, p.instrument.expiry) for p in body.positions if is_expired(p.instrument, t)}
    return MarkNeeds(tuple(sorted(live)), tuple(sorted(gone)))


def positions_carried(body: Body, feeds: tuple[bytes, ...], t: int) -> tuple[Position, ...]:
    """The positions for which a MARK of these feeds at t lists carries and vols, in its order."""
    return tuple(p for p in body.positions if p.instrument.feed in feeds and not is_expired(p.instrument, t))


class Working:
    """The copy that a batch's operations change, one after the other."""

    def __init__(self, terms: Terms, body: Body, batch: Batch) -> None:  # noqa: D107 - as the class says
        self.terms = terms
        self.batch = batch
        self.as_of = body.as_of
        self.collateral_mark = body.collateral_mark
        self.balances = [body.a.balance, body.b.balance]
        self.deposited = [body.a.deposited, body.b.deposited]
        self.withdrawn = [body.a.withdrawn, body.b.withdrawn]
        self.before = body
        self.settled: list[SettledPosition] = []
        self.marked = False
        self.closing = False
        self._positions: dict[_Key, Position] | None = None

    @property
    def positions(self) -> dict[_Key, Position]:
        """The open positions by key; made at the first use, since a payment has none."""
        if self._positions is None:
            self._positions = {p.instrument.key: p for p in self.before.positions}
        return self._positions

    def pay(self, units: int) -> None:
        """Move units from b to a (from a to b when negative)."""
        self.balances[0] += units
        self.balances[1] -= units

    def in_order(self) -> list[Position]:
        """The open positions, sorted."""
        return [self.positions[key] for key in sorted(self.positions)]

    def body(self, journal: bytes) -> Body:
        """What the batch has made of the body before, every rule of a body kept."""
        a, b = self.account(0), self.account(1)
        book = self.before.positions if self._positions is None else tuple(self.in_order())
        self.check_expiries(book)
        if self._positions is not None:
            return Body(self.as_of, self.collateral_mark, journal, a, b, book)
        # the book's own rules were checked when the body before was made
        body: Body = _make_body(self.as_of, self.collateral_mark, journal, a, b, book)
        body.check_accounts()
        return body

    def check_expiries(self, book: tuple[Position, ...]) -> None:
        """Refuse an open position whose expiry asOf has passed."""
        for position in book:
            i = position.instrument
            if i.kind != Kind.PERPETUAL and i.expiry < self.as_of:
                raise PositionPastExpiryError(
                    f"{instrument_name(i)} is open at asOf {self.as_of}, past its expiry {i.expiry}",
                    expiry=i.expiry,
                    as_of=self.as_of,
                )

    def account(self, side: int) -> Account:
        """The account of a side at the end of the batch; refuses what no account can hold."""
        balance, deposited, withdrawn = self.balances[side], self.deposited[side], self.withdrawn[side]
        if balance < 0:
            raise NegativeBalanceError(
                f"the batch would leave {_NAMES[side]} with a balance of {balance} units; none may be negative",
                party=_NAMES[side],
                balance=balance,
            )
        if max(balance, deposited, withdrawn) >= _U128:
            raise BalanceBoundError(f"an account of {_NAMES[side]} would reach 2**128 units", party=_NAMES[side])
        return Account(balance, deposited, withdrawn)


# ---- TRADE ---------------------------------------------------------------------------------------------------------


def _check_leg(work: Working, instrument: Instrument) -> None:
    """Refuse an instrument that this channel cannot trade at the batch's time."""
    if work.terms.market(instrument.feed) is None:
        raise UnknownMarketError(
            f"{feed_symbol(instrument.feed)} is not among the markets of the terms", feed=feed_symbol(instrument.feed)
        )
    if instrument.kind == Kind.PERPETUAL:
        return
    if instrument.expiry % work.terms.oracle.tick:
        raise ExpiryNotOnTickError(
            f"the expiry {instrument.expiry} is no multiple of the oracle's tick of {work.terms.oracle.tick} s",
            expiry=instrument.expiry,
            tick=work.terms.oracle.tick,
        )
    if instrument.expiry * 1000 <= work.batch.time_ms:
        raise ExpiredInstrumentError(
            f"{instrument_name(instrument)} expired at {instrument.expiry}; the batch is of {work.batch.time_ms} ms",
            expiry=instrument.expiry,
            time_ms=work.batch.time_ms,
        )


def _agreed(work: Working, gone: list[Position], leg: Leg) -> tuple[int, int]:
    """The carry and vol of a new position: those agreed for its (feed, expiry) and strike, else the leg's.

    `gone` holds what earlier legs of the same TRADE took to zero: it leaves only after the operation, so what was
    agreed for it still holds.
    """
    i = leg.instrument
    carry, vol = leg.carry, leg.vol
    for other in (*work.positions.values(), *gone):
        o = other.instrument
        if (o.feed, o.expiry) != (i.feed, i.expiry):
            continue
        carry = other.carry
        if i.is_option and o.is_option and o.strike == i.strike:
            vol = other.vol
    return carry, vol


def _trade(work: Working, trade: Trade) -> None:
    legs = trade.legs
    if len(legs) > 1:
        _check_distinct([leg.instrument for leg in legs])
    for leg in legs:
        _check_leg(work, leg.instrument)
    held = len(work.positions)
    if not held:
        _open_book(work)
    cash = 0
    gone: list[Position] = []
    for leg in legs:
        cash += _trade_leg(work, gone, leg)
    work.pay(to_units(cash, work.terms, work.collateral_mark))
    work.pay(-trade.fee)
    # a trade that opened as much as it closed may have opened another expiry, so one of several legs is looked at anew
    if len(work.positions) > held or len(legs) > 1:
        _check_limits(work)


def _check_distinct(instruments: list[Instrument]) -> None:
    if len({i.key for i in instruments}) != len(instruments):
        twice = next(i for n, i in enumerate(instruments) if i in instruments[:n])
        raise RepeatedInstrumentError(
            f"the TRADE names {instrument_name(twice)} twice", instrument=instrument_name(twice)
        )


def _open_book(work: Working) -> None:
    """Into an empty book a TRADE sets asOf to the batch's second."""
    second = work.batch.second
    if work.terms.collateral_feed != ZERO_FEED:
        age = second - work.as_of
        if work.as_of == 0 or age > work.terms.oracle.max_age:
            raise CollateralNotMarkedError(
                f"into an empty book a MARK of the collateral must have come first, at most "
                f"{work.terms.oracle.max_age} s before; asOf is {work.as_of}, the batch's second {second}",
                as_of=work.as_of,
                second=second,
                max_age=work.terms.oracle.max_age,
            )
    work.as_of = second


def _trade_leg(work: Working, gone: list[Position], leg: Leg) -> int:
    """Apply a leg; what a gains by it, in wads."""
    key = leg.instrument.key
    held = work.positions.get(key)
    size = leg.size_delta + (held.size if held else 0)
    if not -MAX_SIZE < size < MAX_SIZE:
        raise SizeBoundError(
            f"{instrument_name(leg.instrument)} would reach a size of {size}; sizes stay below 2**95 wads", size=size
        )
    if held is None:
        carry, vol = _agreed(work, gone, leg)
        mark, cash = leg.price, 0
    else:
        carry, vol, mark = held.carry, held.vol, held.mark
        cash = sdiv(leg.size_delta * (mark - leg.price), WAD)
    if leg.instrument.kind == Kind.PERPETUAL:
        # what the next MARK would charge for the time before the trade is paid back now
        cash += funding(leg.size_delta, mark, carry, work.batch.second - work.as_of)
    if size:
        work.positions[key] = Position(leg.instrument, size, mark, carry, vol)
    elif held is not None:
        gone.append(held)
        del work.positions[key]
    return cash


def _check_limits(work: Working) -> None:
    if len(work.positions) > MAX_POSITIONS:
        raise BookLimitError(
            f"the book would hold {len(work.positions)} positions; at most {MAX_POSITIONS}",
            positions=len(work.positions),
        )
    pairs = {(p.instrument.feed, p.instrument.expiry) for p in work.positions.values()}
    if len(pairs) > MAX_FEED_EXPIRIES:
        raise BookLimitError(
            f"the book would hold {len(pairs)} distinct (feed, expiry) pairs; at most {MAX_FEED_EXPIRIES}",
            pairs=len(pairs),
        )


# ---- MARK ----------------------------------------------------------------------------------------------------------


def _check_mark(work: Working, mark: Mark) -> None:
    """Refuse a MARK whose time or feeds cannot be; equality with asOf is judged once the changes are known."""
    tick = work.terms.oracle.tick
    if work.marked:
        raise MarkRepeatedError("a batch holds at most one MARK")
    if mark.time % tick:
        raise MarkNotOnTickError(f"a MARK at {mark.time}, no multiple of the oracle's tick of {tick} s", time=mark.time)
    if mark.time < work.as_of:
        raise MarkNotLaterError(f"a MARK at {mark.time}, before asOf {work.as_of}", time=mark.time, as_of=work.as_of)
    if mark.time * 1000 > work.batch.time_ms:
        raise MarkAheadError(
            f"a MARK at {mark.time} s in a batch of {work.batch.time_ms} ms", time=mark.time, time_ms=work.batch.time_ms
        )
    collateral = work.terms.collateral_feed
    for feed in mark.feeds:
        if feed not in work.terms.feeds and (feed != collateral or collateral == ZERO_FEED):
            raise UnknownMarketError(
                f"{feed_symbol(feed)} is not among the markets of the terms", feed=feed_symbol(feed)
            )
    if collateral != ZERO_FEED and collateral not in mark.feeds:
        raise CollateralPrintMissingError(
            f"a MARK must carry the collateral's feed {feed_symbol(collateral)}", feed=feed_symbol(collateral)
        )


def _fixes(work: Working, mark: Mark, packages: PackageSet) -> dict[tuple[bytes, int], int | None]:
    """The fix of every (feed, expiry) that has expired; None for the flagged."""
    expired = sorted(
        {
            (p.instrument.feed, p.instrument.expiry)
            for p in work.positions.values()
            if is_expired(p.instrument, mark.time)
        }
    )
    oracle = work.terms.oracle
    for feed, expiry in mark.flagged:
        title = f"{feed_symbol(feed)} at {expiry}"
        if (feed, expiry) not in expired:
            raise FlaggedNotExpiredError(f"flagged {title}: nothing open expired there", expiry=expiry, time=mark.time)
        if mark.time < expiry + oracle.grace:
            raise FlaggedTooEarlyError(
                f"flagged {title}: a MARK at {mark.time} is before expiry + grace = {expiry + oracle.grace}",
                time=mark.time,
                earliest=expiry + oracle.grace,
            )
    fixes: dict[tuple[bytes, int], int | None] = {}
    for feed, expiry in expired:
        if (feed, expiry) not in mark.flagged:
            fixes[feed, expiry] = packages.fix_price(oracle, feed, expiry).value
            continue
        try:
            packages.fix_price(oracle, feed, expiry)
        except NoQuorumError:
            fixes[feed, expiry] = None
        else:
            raise FlaggedDespiteFixError(
                f"flagged {feed_symbol(feed)} at {expiry}, though the packages in the MARK make its fix", expiry=expiry
            )
    return fixes


def _sampled(oracle: Oracle, fixes: Iterable[tuple[bytes, int]]) -> set[tuple[bytes, int]]:
    """The (feed, time) pairs of every sample of the fixes."""
    return {(feed, time) for feed, expiry in fixes for time in sample_times(oracle, expiry)}


def _check_unused(packages: PackageSet, wanted: set[tuple[bytes, int]]) -> None:
    """Refuse a package that counted in none of the prints and fixes `wanted`, saying why it did not."""
    unused = packages.unused()
    if not unused:
        return
    package = decode_package(unused[0])
    carried = {(point.feed, package.timestamp_ms) for point in package.points}
    times = {time * 1000 for _, time in wanted}
    if carried & {(feed, time * 1000) for feed, time in wanted}:
        raise DuplicatePackageError(
            f"a MARK with two packages of one signer for one feed at {package.timestamp_ms} ms",
            timestamp_ms=package.timestamp_ms,
        )
    if package.timestamp_ms not in times:
        raise StalePackageError(
            f"a MARK with a package of {package.timestamp_ms} ms, the time of none of its prints and fixes",
            timestamp_ms=package.timestamp_ms,
        )
    raise UnusedPackageError(
        f"a MARK with a package of {', '.join(feed_symbol(point.feed) for point in package.points)} at "
        f"{package.timestamp_ms} ms, which serves none of its prints and fixes",
        timestamp_ms=package.timestamp_ms,
    )


def _settle(work: Working, fixes: dict[tuple[bytes, int], int | None], t: int) -> int:
    """Settle what has expired by t at its fix; what a gains, in wads."""
    cash = 0
    for position in work.in_order():
        i = position.instrument
        if not is_expired(i, t):
            continue
        fix = fixes[i.feed, i.expiry]
        payoff = 0
        if fix is not None:
            payoff = sdiv(position.size * (value_position(position, fix, i.expiry) - position.mark), WAD)
        work.settled.append(SettledPosition(i, position.size, position.mark, fix, payoff, fix is None))
        del work.positions[position.key]
        cash += payoff
    return cash


def _remark(work: Working, mark: Mark, prices: dict[bytes, int]) -> tuple[int, bool]:
    """Re-mark the positions on the feeds carried: (what a gains, in wads; whether any vol or carry changed)."""
    carried = [p for p in work.in_order() if p.instrument.feed in prices]
    if len(carried) != len(mark.carries):
        raise MarkShapeError(
            f"the MARK lists carry and vol of {len(mark.carries)} positions; the feeds it carries have {len(carried)}",
            listed=len(mark.carries),
            positions=len(carried),
        )
    carries: dict[tuple[bytes, int], int] = {}
    vols: dict[tuple[bytes, int, int], int] = {}
    cash, changed = 0, False
    for position, carry, vol in zip(carried, mark.carries, mark.vols, strict=True):
        i = position.instrument
        check_vol(vol, f"the vol of {instrument_name(i)} in a MARK", option=i.is_option)
        if carries.setdefault((i.feed, i.expiry), carry) != carry:
            raise MarkDisagreementError(
                f"the MARK has two carries for {feed_symbol(i.feed)} at expiry {i.expiry}", expiry=i.expiry
            )
        if i.is_option and vols.setdefault((i.feed, i.expiry, i.strike), vol) != vol:
            raise MarkDisagreementError(
                f"the MARK has two vols for the strike of {instrument_name(i)}", instrument=instrument_name(i)
            )
        changed = changed or (carry, vol) != (position.carry, position.vol)
        renewed = replace(position, carry=carry, vol=vol)
        value = value_position(renewed, prices[i.feed], mark.time)
        work.positions[position.key] = replace(renewed, mark=value)
        cash += sdiv(position.size * (value - position.mark), WAD)
    return cash, changed


def _mark(work: Working, mark: Mark) -> None:
    _check_mark(work, mark)
    oracle = work.terms.oracle
    packages = PackageSet.of(mark.packages)
    prices = {feed: packages.print_price(oracle, feed, mark.time).value for feed in mark.feeds}
    fixes = _fixes(work, mark, packages)
    _check_unused(packages, {(feed, mark.time) for feed in mark.feeds} | _sampled(oracle, fixes))
    elapsed = mark.time - work.as_of
    cash = -sum(
        funding(p.size, p.mark, p.carry, elapsed)
        for p in work.positions.values()
        if p.instrument.kind == Kind.PERPETUAL
    )
    cash += _settle(work, fixes, mark.time)
    gain, changed = _remark(work, mark, prices)
    if elapsed == 0 and not changed:
        raise MarkNotLaterError(
            f"a MARK at asOf {work.as_of} itself must change a vol or a carry", time=mark.time, as_of=work.as_of
        )
    work.collateral_mark = prices.get(work.terms.collateral_feed, WAD)
    work.pay(to_units(cash + gain, work.terms, work.collateral_mark))
    work.as_of = mark.time
    work.marked = True


# ---- payments ------------------------------------------------------------------------------------------------------


def _deposit(work: Working, deposit: Deposit) -> None:
    totals = (deposit.deposited_a, deposit.deposited_b)
    for side, total in enumerate(totals):
        if total < work.deposited[side]:
            raise DepositFallsError(
                f"deposits of {_NAMES[side]} are acknowledged up to {work.deposited[side]} units; {total} is less",
                party=_NAMES[side],
                acknowledged=work.deposited[side],
                total=total,
            )
    for side, total in enumerate(totals):
        work.balances[side] += total - work.deposited[side]
        work.deposited[side] = total


def _close(work: Working) -> None:
    if work.positions:
        raise CloseWithPositionsError(
            f"a CLOSE with {len(work.positions)} positions open; there must be none", positions=len(work.positions)
        )
    work.closing = True


def operate(work: Working, operation: Operation) -> None:
    """Carry out the next operation of a batch; core/movements.py looks at what each of them moved."""
    if work.closing:
        raise CloseNotLastError("a CLOSE must be the last operation of its batch")
    match operation:
        case Trade():
            _trade(work, operation)
        case Transfer():
            work.pay(operation.units if operation.origin else -operation.units)
        case Mark():
            _mark(work, operation)
        case Deposit():
            _deposit(work, operation)
        case Withdraw():
            work.balances[operation.origin] -= operation.units
            work.withdrawn[operation.origin] += operation.units
        case CloseChannel():
            _close(work)
        case _:
            raise InternalError(f"a {type(operation).__name__} is none of the six operations")


def next_journal(journal: bytes, version: int, raw_batch: bytes) -> bytes:
    """The journal of the state of `version` made by a batch, from that of the state before (protocol, section 4)."""
    return keccak256(journal + version.to_bytes(8, "big") + keccak256(raw_batch))


def apply(
    terms: Terms, state: State, raw_batch: bytes, version: int | None = None, decoded: Batch | None = None
) -> Applied:
    """Apply the exact bytes of a batch to a state.

    `version` is that of the state to make; the next one where none is given (a rejection leaves a gap). `decoded` is
    the batch that `encode_batch` made the bytes of, for the caller who has both. A function of its arguments alone: the
    same everywhere, for both parties, for ever.

    Raises:
        CodecError, MalformedBatchError, OperationBoundError, InvalidStateError: bytes that are no batch.
        OracleError: packages in a MARK that are bad, or too few.
        RuleError: a rule broken; each has its own class in core/refusals.py. Nothing has been changed.

    """
    number = state.version + 1 if version is None else version
    if not state.version < number < _U64:
        raise VersionError(
            f"version {number} must be above {state.version} and below 2**64", version=number, state=state.version
        )
    batch = decode_batch(raw_batch) if decoded is None else decoded
    if state.body.as_of * 1000 > batch.time_ms:
        raise BatchBeforeStateError(
            f"the batch's time is {batch.time_ms} ms, before the state's asOf of {state.body.as_of} s",
            time_ms=batch.time_ms,
            as_of=state.body.as_of,
        )
    work = Working(terms, state.body, batch)
    for operation in batch.operations:
        operate(work, operation)
    body = work.body(next_journal(state.body.journal, number, raw_batch))
    return Applied(_make_state(state.channel, number, body), batch, tuple(work.settled), work.closing)
