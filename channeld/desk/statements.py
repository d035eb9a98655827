"""Statements: what moved in a channel within a time, row by row, from an opening to a closing balance.

Rules: made of batches that core/audit.py has proven, so of nothing on anybody's word. One row for each operation, seen
from one side; amounts in units of the collateral, exact: the opening balance and the rows add up to the closing one, or
there is no statement. Profit is realised at every MARK (settled to market), so what is unrealised is what has moved
since the last one. Margin is that of the closing book at the last MARK's own prints.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from channeld.core.crypto import checksum_address, keccak256
from channeld.core.describe import leg_data
from channeld.core.errors import ChanneldError, InputError, InternalError
from channeld.core.instruments import instrument_name
from channeld.core.margin import both
from channeld.core.movements import movements
from channeld.core.operations import CloseChannel, Deposit, Mark, Trade, Transfer, Withdraw
from channeld.core.packages import PackageSet
from channeld.core.wad import WAD, format_decimal, sdiv

if TYPE_CHECKING:
    from channeld.core.audit import AuditReport, Proven
    from channeld.core.movements import Movement
    from channeld.core.operations import Operation
    from channeld.core.state import Body, State
    from channeld.core.terms import Terms

FORMAT = 1
OFFER_ID_BYTES = 16
KINDS = {Trade: "trade", Mark: "mark", Transfer: "transfer", Deposit: "deposit", Withdraw: "withdrawal"}


class NoStatementError(InputError):
    """A time for which the file has no statement."""

    code = 2550
    advice = "Name a time that lies within the journal; `channeld audit verify` shows its first and last."


@dataclass(frozen=True, slots=True)
class Row:
    """One operation as a side sees it. amounts and balance: units; index: of the operation in its batch."""

    version: int
    index: int
    time_ms: int
    kind: str
    by_us: bool
    amount: int
    peer_amount: int
    balance: int
    fee: int
    funding: int
    reference: str
    legs: tuple[dict[str, str], ...]
    settled: tuple[dict[str, str], ...]
    batch_hash: bytes
    body_hash: bytes

    def as_data(self, decimals: int) -> dict[str, Any]:
        """Plain data; amounts in whole collateral, funding in the quote currency, as decimal strings."""
        return {
            "version": self.version,
            "index": self.index,
            "time_ms": self.time_ms,
            "kind": self.kind,
            "by": "us" if self.by_us else "peer",
            "amount": format_decimal(self.amount, decimals),
            "peer_amount": format_decimal(self.peer_amount, decimals),
            "balance": format_decimal(self.balance, decimals),
            "fee_paid": format_decimal(self.fee, decimals),
            "funding_paid": format_decimal(self.funding),
            "reference": self.reference,
            "legs": list(self.legs),
            "settled": list(self.settled),
            "batch_hash": "0x" + self.batch_hash.hex(),
            "body_hash": "0x" + self.body_hash.hex(),
        }


def reference_of(operation: Operation) -> str:
    """The note of a trade or a payment, without the id of its offer."""
    note = operation.reference if isinstance(operation, Trade) else getattr(operation, "memo", b"")
    return str(note[OFFER_ID_BYTES:].decode("utf-8", "replace"))


def _settled(movement: Movement, side: int) -> tuple[dict[str, str], ...]:
    sign = -1 if side else 1
    return tuple(
        {
            "instrument": instrument_name(one.instrument),
            "size": format_decimal(sign * one.size),
            "mark": format_decimal(one.mark),
            "fix": "none" if one.fix is None else format_decimal(one.fix),
            "profit": format_decimal(sign * one.payoff),
        }
        for one in movement.settled
    )


@dataclass
class StatementMaker:
    """Takes proven batches in order; `finish` gives the statement of [from_ms, until_ms), seen from `side`."""

    side: int
    from_ms: int
    until_ms: int
    rows: list[Row] = field(default_factory=list)
    opening: State | None = None
    closing: State | None = None
    prints: dict[bytes, int] = field(default_factory=dict)

    def take(self, report: AuditReport, proven: Proven) -> None:
        """The next batch; as `seen` of an Auditor."""
        batch = proven.applied.batch
        if batch.time_ms >= self.until_ms:
            self.closing = self.closing or proven.before
            self.opening = self.opening or proven.before
            return
        for operation in batch.operations:
            if isinstance(operation, Mark):
                packages = PackageSet.of(operation.packages)
                oracle = report.terms.oracle
                self.prints |= {
                    feed: packages.print_price(oracle, feed, operation.time).value for feed in operation.feeds
                }
        if batch.time_ms < self.from_ms:
            return
        self.opening = self.opening or proven.before
        self._rows(report.terms, proven)

    def _rows(self, terms: Terms, proven: Proven) -> None:
        side, state = self.side, proven.applied.state
        balance = proven.before.body.account(side).balance
        hashed = proven.body_hash
        batch_hash = keccak256(proven.raw)
        for index, movement in enumerate(movements(terms, proven.before.body, proven.applied.batch)):
            operation = movement.operation
            balance += movement.change(side)
            fee = operation.fee if isinstance(operation, Trade) else 0
            self.rows.append(
                Row(
                    state.version,
                    index,
                    proven.applied.batch.time_ms,
                    KINDS.get(type(operation), "close" if isinstance(operation, CloseChannel) else "operation"),
                    operation.origin == side,
                    movement.change(side),
                    movement.change(1 - side),
                    balance,
                    -fee if side else fee,
                    -movement.funding_a if side else movement.funding_a,
                    reference_of(operation),
                    tuple(leg_data(leg, side) for leg in operation.legs) if isinstance(operation, Trade) else (),
                    _settled(movement, side),
                    batch_hash,
                    hashed,
                )
            )

    def finish(self, report: AuditReport) -> Statement:
        """The statement.

        Raises:
            NoStatementError: the journal begins after the time, or its beginning is lost.
        """
        opening = self.opening or report.state
        closing = self.closing or report.state
        if report.base_version and report.first_ms > self.from_ms:
            raise NoStatementError(
                f"the journal begins at version {report.base_version}: what was before is lost",
                first_ms=report.first_ms,
            )
        return Statement(
            report, self.side, self.from_ms, self.until_ms, opening, closing, tuple(self.rows), self.prints
        )


@dataclass(frozen=True, slots=True)
class Statement:
    """A side's statement of [from_ms, until_ms). prints: of the last MARK before its end, wads by feed."""

    report: AuditReport
    side: int
    from_ms: int
    until_ms: int
    opening: State
    closing: State
    rows: tuple[Row, ...]
    prints: dict[bytes, int]

    def __post_init__(self) -> None:
        """The rows must lead from the one balance to the other, for both what we hold and what conservation says."""
        opening, closing = (state.body.account(self.side).balance for state in (self.opening, self.closing))
        if opening + sum(row.amount for row in self.rows) != closing:
            raise InternalError("the rows of a statement do not add up to its closing balance")

    def totals(self) -> dict[str, int]:
        """The sum of the rows of each kind, units."""
        found: dict[str, int] = {}
        for row in self.rows:
            found[row.kind] = found.get(row.kind, 0) + row.amount
        return found

    def as_data(self) -> dict[str, Any]:
        """Plain data; decimal strings."""
        report, side, decimals = self.report, self.side, self.report.terms.decimals
        body = self.closing.body
        sign = -1 if side else 1
        return {
            "channeld_statement": FORMAT,
            "chain_id": report.domain.chain_id,
            "adjudicator": checksum_address(report.domain.adjudicator),
            "channel": "0x" + report.channel.hex(),
            "side": "ab"[side],
            "us": checksum_address(report.terms.party(side).signer),
            "peer": checksum_address(report.terms.party(1 - side).signer),
            "from_ms": self.from_ms,
            "until_ms": self.until_ms,
            "opening": _balances(self.opening, side, decimals),
            "closing": _balances(self.closing, side, decimals),
            "totals": {kind: format_decimal(units, decimals) for kind, units in self.totals().items()},
            "fees_paid": format_decimal(sum(row.fee for row in self.rows), decimals),
            "funding_paid": format_decimal(sum(row.funding for row in self.rows)),
            "positions": [
                {
                    "instrument": instrument_name(p.instrument),
                    "size": format_decimal(sign * p.size),
                    "mark": format_decimal(p.mark),
                    "value": format_decimal(sign * sdiv(p.size * p.mark, WAD)),
                    "carry": format_decimal(p.carry),
                    "vol": format_decimal(p.vol) if p.instrument.is_option else None,
                }
                for p in body.positions
            ],
            "marked_at": body.as_of,
            "margin": _margin(report.terms, body, self.prints, side),
            "rows": [row.as_data(decimals) for row in self.rows],
        }


def _balances(state: State, side: int, decimals: int) -> dict[str, Any]:
    ours, theirs = state.body.account(side), state.body.account(1 - side)
    return {
        "version": state.version,
        "balance": format_decimal(ours.balance, decimals),
        "peer_balance": format_decimal(theirs.balance, decimals),
        "deposited": format_decimal(ours.deposited, decimals),
        "withdrawn": format_decimal(ours.withdrawn, decimals),
    }


def _margin(terms: Terms, body: Body, prints: dict[bytes, int], side: int) -> dict[str, str] | None:
    """Equity and margin of the closing book at the last MARK's prints; None where it has not been marked since."""
    try:
        report = both(terms, body, prints, body.as_of, body.collateral_mark)[side]
    except ChanneldError:
        return None
    return {
        "equity": format_decimal(report.equity),
        "initial_margin": format_decimal(report.initial),
        "maintenance_margin": format_decimal(report.maintenance),
        "unrealised": format_decimal(report.profit),
    }
