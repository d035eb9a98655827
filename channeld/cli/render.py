"""How margin reports and oracle packages are drawn for people. The data they draw is what --json prints."""

from __future__ import annotations

from typing import Any

from channeld.cli.output import facts, people, table

PLACES = 4


def _sides(report: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The parties of a report, under the names they have there."""
    parties = report.get("parties", report)
    return [(name, one) for name, one in parties.items() if isinstance(one, dict) and "equity" in one]


def _first(data: dict[str, Any], *names: str) -> Any:  # noqa: ANN401 - any JSON value
    return next((data[name] for name in names if name in data), None)


def _cut(text: Any) -> Any:  # noqa: ANN401 - any JSON value
    """A decimal string grouped, and cut to four places where it has more; anything else as it is."""
    long = isinstance(text, str) and len(text.partition(".")[2]) > PLACES
    return people(text, PLACES if long else None)


def margin(report: dict[str, Any], *, scenarios: bool) -> None:
    """Print a margin report of both parties; with every scenario where asked for."""
    us = report.get("us")
    table(
        "Margin",
        ("party", ">equity", ">initial margin", ">maintenance margin", ">free"),
        (
            (
                f"{name} (us)" if name == us else name,
                people(one.get("equity"), 2),
                people(_first(one, "initial_margin", "initial"), 2),
                people(_first(one, "maintenance_margin", "maintenance"), 2),
                people(_first(one, "free"), 2),
            )
            for name, one in _sides(report)
        ),
    )
    for name, one in _sides(report):
        for market in one.get("markets", []):
            _legs(f"{name} (us)" if name == us else name, market)
    if not scenarios:
        return
    for name, one in _sides(report):
        for market in one.get("markets", []):
            feed = _first(market, "market", "feed")
            rows = [row for row in market.get("scenarios", []) if isinstance(row, dict)]
            columns = list(rows[0]) if rows else []
            table(
                f"Scenarios of {name} on {feed}",
                [f">{column.replace('_', ' ')}" for column in columns],
                ([_cut(row.get(column)) for column in columns] for row in rows),
            )
            rest = {
                key.replace("_", " "): _cut(item) for key, item in market.items() if not isinstance(item, list | dict)
            }
            facts("", rest)


def _legs(name: str, market: dict[str, Any]) -> None:
    """Print what each leg contributes to the scenario that decides a market's scan risk."""
    legs = market.get("legs", [])
    if not legs:
        return
    table(
        f"{market.get('market')} of {name}: {market.get('worst_scenario')}; scan risk "
        f"{people(market.get('scan_risk'), 2)}, spread charge {people(market.get('spread_charge'), 2)}",
        ("!leg", ">size", ">value now", ">value then", ">profit", ">counts as"),
        (
            (
                leg["instrument"],
                people(leg["size"]),
                people(leg["value"], 2),
                people(leg["value_then"], 2),
                people(leg["profit"], 2),
                people(leg["weighted"], 2) if leg["counts"] else "near: left out",
            )
            for leg in legs
        ),
    )


def packages(decoded: dict[str, Any]) -> None:
    """Print decoded oracle packages: points and signers, medians, errors."""
    table(
        f"Packages ({decoded.get('form')}, {decoded.get('size', 0)} bytes)",
        ("#", "feed", ">price", ">timestamp ms", "signer", "wrong"),
        (
            (
                one.get("index"),
                ", ".join(point["feed"] for point in one.get("points", [])),
                ", ".join(point["value"] for point in one.get("points", [])),
                one.get("timestamp_ms"),
                one.get("signer"),
                "; ".join(error["message"] for error in one.get("errors", [])),
            )
            for one in decoded.get("packages", [])
        ),
    )
    table(
        "Medians",
        ("feed", ">timestamp ms", ">median", ">signers"),
        (
            (one["feed"], one["timestamp_ms"], one["median"], len(one.get("signers", [])))
            for one in decoded.get("medians", [])
        ),
    )
    if decoded.get("errors"):
        table("Errors", ("code", "error"), ((one.get("code"), one.get("message")) for one in decoded["errors"]))
