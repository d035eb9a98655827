"""Plain data for people and programs: operations and margin reports with decimal strings. Nothing here decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from channeld.core.instruments import instrument_name
from channeld.core.operations import CloseChannel, Deposit, Mark, Operation, Trade, Transfer, Withdraw
from channeld.core.risk_arrays import NEAR, MarketArrays, unpack
from channeld.core.state import Kind
from channeld.core.terms import feed_symbol
from channeld.core.wad import WAD, format_decimal

if TYPE_CHECKING:
    from channeld.core.margin import MarginReport
    from channeld.core.operations import Leg
    from channeld.core.state import Body
    from channeld.core.terms import Terms

OFFER_ID_BYTES = 16


def leg_data(leg: Leg, side: int) -> dict[str, str]:
    """A leg as `side` sees it: a positive size buys."""
    sign = -1 if side else 1
    data = {
        "instrument": instrument_name(leg.instrument),
        "size": format_decimal(sign * leg.size_delta),
        "price": format_decimal(leg.price),
        "carry": format_decimal(leg.carry),
    }
    return {**data, "vol": format_decimal(leg.vol)} if leg.instrument.is_option else data


def operation_data(operation: Operation, side: int, decimals: int) -> dict[str, Any]:
    """An operation as `side` sees it; amounts in whole collateral."""
    data: dict[str, Any] = {"origin": "ab"[operation.origin], "by": "us" if operation.origin == side else "peer"}
    match operation:
        case Trade(_, legs, fee, reference):
            paid = -fee if side else fee
            return {
                "operation": "TRADE",
                **data,
                "legs": [leg_data(leg, side) for leg in legs],
                "fee_paid": format_decimal(paid, decimals),
                "reference": reference[OFFER_ID_BYTES:].decode("utf-8", "replace"),
            }
        case Mark(_, time, feeds):
            return {"operation": "MARK", **data, "time": time, "feeds": [feed_symbol(feed) for feed in feeds]}
        case Transfer(_, units, memo):
            return {
                "operation": "TRANSFER",
                **data,
                "amount": format_decimal(units, decimals),
                "memo": memo[OFFER_ID_BYTES:].decode("utf-8", "replace"),
            }
        case Deposit(_, total_a, total_b):
            totals = {
                "deposited_a": format_decimal(total_a, decimals),
                "deposited_b": format_decimal(total_b, decimals),
            }
            return {"operation": "DEPOSIT", **data, **totals}
        case Withdraw(_, units):
            return {"operation": "WITHDRAW", **data, "amount": format_decimal(units, decimals)}
        case CloseChannel():
            return {"operation": "CLOSE", **data}
        case _:
            return {"operation": type(operation).__name__, **data}


def legs_data(terms: Terms, body: Body, report: MarginReport, t: int) -> dict[bytes, list[dict[str, Any]]]:
    """By feed, what each position of the party contributes to the scenario that decides its market's scan risk.

    value and value_then: of one unit, now and in the scenario, wads as decimals. profit: the party's, at full weight;
    weighted: what counts. counts: false for what is near where the book without it was the worse one. The weighted
    profits sum to less the scan risk, but for the rounding of each.
    """
    sign = -1 if report.side else 1
    found: dict[bytes, list[dict[str, Any]]] = {}
    for margin in report.markets:
        market = terms.market(margin.feed)
        if market is None:
            continue
        arrays, scenario = MarketArrays(market, margin.price, t), margin.scenarios[margin.worst].scenario
        rows = found[margin.feed] = []
        for position in body.positions:
            i = position.instrument
            if i.feed != margin.feed or (i.kind != Kind.PERPETUAL and i.expiry <= t):
                continue
            array = arrays.of(position)
            change = unpack(array.packed)[margin.worst]
            profit = sign * position.size * change // WAD
            rows.append(
                {
                    "instrument": instrument_name(i),
                    "size": format_decimal(sign * position.size),
                    "value": format_decimal(array.now),
                    "value_then": format_decimal(array.now + change),
                    "profit": format_decimal(profit),
                    "weighted": format_decimal(profit * scenario.weight // WAD),
                    "counts": not (margin.near_counts and array.bucket == NEAR),
                }
            )
    return found


def margin_data(
    report: MarginReport, decimals: int, legs: dict[bytes, list[dict[str, Any]]] | None = None
) -> dict[str, Any]:
    """A party's margin report; every figure a decimal string, a scenario's profits included. legs: as `legs_data`."""
    return {
        "equity": format_decimal(report.equity),
        "initial_margin": format_decimal(report.initial),
        "maintenance_margin": format_decimal(report.maintenance),
        "free": format_decimal(report.free),
        "profit": format_decimal(report.profit),
        "profit_in_collateral": format_decimal(report.profit_units, decimals),
        "equity_in_collateral": format_decimal(report.equity_units, decimals),
        "markets": [
            {
                "market": feed_symbol(market.feed),
                "price": format_decimal(market.price),
                "scan_risk": format_decimal(market.scan_risk),
                "spread_charge": format_decimal(market.spread_charge),
                "maintenance_margin": format_decimal(market.maintenance),
                "worst_loss": format_decimal(market.worst_loss),
                "initial_margin": format_decimal(market.initial),
                "worst_scenario": market.scenarios[market.worst].scenario.label,
                "near_counts": market.near_counts,
                "legs": (legs or {}).get(market.feed, []),
                "scenarios": [
                    {
                        "scenario": one.scenario.label,
                        "price": format_decimal(one.scenario.price),
                        "vol_factor": format_decimal(one.scenario.vol_factor),
                        "weight": format_decimal(one.scenario.weight),
                        "profit": format_decimal(one.profit),
                        "without_near": format_decimal(one.without_near),
                        "without_near_initial": format_decimal(one.without_near_initial),
                        "weighted": format_decimal(one.weighted),
                    }
                    for one in market.scenarios
                ],
            }
            for market in report.markets
        ],
    }
