"""Acceptance: whether a desk may sign a batch, by margin at its own prices (docs/protocol.md, section 6).

Rules: this is each side's own check, never part of the transition. Figures are wads of the collateral's value; both
sides compute the same ones at the same prices. A refusal names the party and the figures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from channeld.core.errors import ChanneldError, Fault, RuleError
from channeld.core.operations import CloseChannel, Deposit, Mark, Operation, Trade, Transfer, Withdraw
from channeld.core.risk_arrays import RiskCache, Standing
from channeld.core.wad import format_decimal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from channeld.core.margin import MarginReport
    from channeld.core.state import Body
    from channeld.core.terms import Terms

PARTY = ("a", "b")
_EXEMPT = (Mark, Deposit, CloseChannel)


class MarginRefusedError(RuleError):
    """A party would stand below its initial margin."""

    code = 2210
    advice = "Deposit more collateral, trade a smaller size, or reduce risk first."


class StalePriceError(RuleError):
    """A batch that increases risk needs a print of every feed of the book, no older than oracle.maxAge."""

    code = 2211
    advice = "Wait for the oracle's next print, or check the oracle with `channeld status`."


class NewRiskHeldError(ChanneldError):
    """This desk takes no new risk now, since it could not defend it; what lowers risk is still done."""

    code = 5210
    fault = Fault.CHAIN
    advice = "Send native currency to the desk's signing address, or lower gas.reserve; `channeld doctor` tells more."


class StaleVolsError(RuleError):
    """A batch that increases risk needs every vol of the book agreed within the hour."""

    code = 2405
    advice = "Have the sequencer mark the book first."


MOST_VOL_AGE = 3_600


@dataclass(frozen=True, slots=True)
class Prices:
    """A desk's own view of the market: wads by feed, the second each was printed, and the collateral's price (wad).

    no_new_risk: why the desk wants none of it now, empty where it does.
    risk: the arrays that are kept from one batch to the next, of the same terms; None to make them for this check.
    """

    time: int
    spots: Mapping[bytes, int]
    printed: Mapping[bytes, int]
    collateral: int
    fixes: Mapping[tuple[bytes, int], int] = field(default_factory=dict)
    no_new_risk: str = ""
    risk: RiskCache | None = field(default=None, compare=False, repr=False)


def valuation_time(terms: Terms, second: int) -> int:
    """The time at which margin is judged at a second: the tick at or before it, which prints are of too.

    Expiries are ticks, so nothing expires between the two; both desks compute the same integers from the same prints,
    whichever second they look, and the risk arrays of a print serve until the next one.
    """
    return second - second % terms.oracle.tick


def figures(report: MarginReport | Standing) -> dict[str, str]:
    """Equity, initial and maintenance margin of a party as decimal strings."""
    return {
        "equity": format_decimal(report.equity, places=2),
        "initial_margin": format_decimal(report.initial, places=2),
        "maintenance_margin": format_decimal(report.maintenance, places=2),
    }


def payers(operations: tuple[Operation, ...]) -> frozenset[int]:
    """The sides from whom a batch takes cash out by WITHDRAW, TRANSFER or fee: they must stand at IM afterwards."""
    found = {op.origin for op in operations if isinstance(op, Transfer | Withdraw)}
    for op in operations:
        if isinstance(op, Trade) and op.fee:
            found.add(0 if op.fee > 0 else 1)
    return frozenset(found)


def nothing_at_risk(before: Body, after: Body) -> bool:
    """Whether a batch needs no judgement of margin: no position before it nor after, so no price can change a thing.

    Both initial margins are zero and equity is the balance, which no state has below zero.
    """
    return not before.positions and not after.positions


def check_acceptance(
    terms: Terms, before: Body, after: Body, operations: tuple[Operation, ...], prices: Prices
) -> tuple[Standing, Standing] | None:
    """Refuse a batch after which a party stands below its initial margin, unless risk falls and nothing is bled.

    Returns:
        The standing of a and of b afterwards; None for a batch of MARKs, DEPOSITs and CLOSE alone, which is exempt.

    Raises:
        MarginRefusedError: with the party and its figures.
        StalePriceError: the batch increases risk and a feed of the book has no recent print.
        NewRiskHeldError: the batch increases risk, and the desk wants no more.
    """
    for op in operations:
        if not isinstance(op, _EXEMPT):
            break
    else:
        return None
    _check_known(terms, before, after, prices)
    cache = prices.risk or RiskCache(terms)
    cache.at(valuation_time(terms, prices.time), prices.spots, prices.collateral, prices.fixes)
    now = cache.book(after).parties
    one, other = now
    if not (one.maintenance or other.maintenance) and one.equity >= one.initial and other.equity >= other.initial:
        return now  # nothing is at risk that was not before, whatever that was
    was = cache.book(before).parties
    for side in (0, 1):
        old, new = was[side], now[side]
        if new.equity >= new.initial or (side not in payers(operations) and _falls(old, new)):
            continue
        raise MarginRefusedError(
            f"party {PARTY[side]} would have equity {figures(new)['equity']} below its initial margin "
            f"{figures(new)['initial_margin']} (maintenance {figures(new)['maintenance_margin']})",
            party=PARTY[side],
            **figures(new),
        )
    if now[0].maintenance > was[0].maintenance or now[1].maintenance > was[1].maintenance:
        _check_fresh(terms, after, prices)
        _check_vols(before, prices)
        if prices.no_new_risk:
            raise NewRiskHeldError(prices.no_new_risk)
    return now


def _falls(old: Standing, new: Standing) -> bool:
    """Risk falls and nothing is bled.

    The ratio of equity to margin must not fall either; at or below zero it says nothing, and there equity itself must
    not fall. Risk must fall in any case: else an empty account could take any risk at a fair price.
    """
    if new.maintenance > old.maintenance or new.equity - new.maintenance < old.equity - old.maintenance:
        return False
    if old.equity <= 0:
        return new.equity >= old.equity
    return new.equity * old.maintenance >= old.equity * new.maintenance


def _check_vols(before: Body, prices: Prices) -> None:
    """Vols are agreed at asOf: a MARK sets every vol of the feeds that have prints, and `_check_fresh` wants those."""
    age = prices.time - before.as_of
    if age > MOST_VOL_AGE and any(p.instrument.is_option for p in before.positions):
        raise StaleVolsError(f"the vols of the book were agreed {age} s ago; new risk needs a MARK within the hour")


def _check_known(terms: Terms, before: Body, after: Body, prices: Prices) -> None:
    for market in terms.markets:
        if market.feed not in prices.spots:
            break
    else:
        return
    feeds = {p.instrument.feed for p in (*before.positions, *after.positions)}
    missing = sorted(feeds - prices.spots.keys())
    if missing:
        names = ", ".join(feed.rstrip(b"\0").decode("ascii", "replace") for feed in missing)
        raise StalePriceError(f"there is no print of {names} to judge the batch by")


def _check_fresh(terms: Terms, after: Body, prices: Prices) -> None:
    oldest = prices.time - terms.oracle.max_age
    for market in terms.markets:
        if prices.printed.get(market.feed, 0) < oldest:
            break
    else:
        return
    for feed in sorted({p.instrument.feed for p in after.positions}):
        age = prices.time - prices.printed.get(feed, 0)
        if age > terms.oracle.max_age:
            name = feed.rstrip(b"\0").decode("ascii", "replace")
            raise StalePriceError(
                f"the last print of {name} is {age} s old; the terms allow {terms.oracle.max_age} s", feed=name, age=age
            )
