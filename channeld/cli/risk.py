"""Commands for a risk manager: greeks, scenario, profit, limits. Tables for people, CSV and PNG, and --json.

Rules: a desk's figures come from its daemon, by one call each; those of a file are computed here, by the same rooms.
Moves are fractions: 0.1 is 10% up. Numbers are checked here before they travel, and again where they arrive.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from channeld.cli.client import DEFAULT_DATA, DataOption, connect
from channeld.cli.errors import CommandError, UnreadableFileError
from channeld.cli.output import OUT, JsonOption, facts, note, people, table
from channeld.cli.trading import clock
from channeld.core.wad import DAY, WAD, format_decimal, parse_decimal

if TYPE_CHECKING:
    from collections.abc import Callable

ChannelOption = Annotated[
    str | None, typer.Argument(help="A channel id, its beginning, or the peer's name; all of the desk's without it.")
]
MOST_MOVES = 61
PAYOFF_POINTS = 61
GREEKS = (">delta", ">gamma", ">vega", ">theta", ">rho", ">vanna", ">volga")
PLACES = {"delta": 4, "gamma": 6, "vanna": 6}


def _greeks_cells(row: dict[str, Any]) -> list[Any]:
    return [people(row[name.lstrip(">")], PLACES.get(name.lstrip(">"), 2)) for name in GREEKS]


def greeks(
    channel: ChannelOption = None,
    *,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Show delta, gamma, vega, theta, rho (to carry), vanna and volga by position, expiry, channel and desk."""
    del json
    result = connect(data).call("private/greeks", channel=channel)

    def draw() -> None:
        table(
            "Positions: per unit of spot; vega, rho, vanna, volga per point; theta per day",
            ("!instrument", ">size", *GREEKS),
            ([one["instrument"], people(one["size"]), *_greeks_cells(one)] for one in result["positions"]),
        )
        table(
            "Expiries",
            ("!channel", "feed", "!expires (UTC)", *GREEKS),
            (
                [one["channel"][:12], one["feed"], clock(one["expiry_ms"])[:16] or "perpetual", *_greeks_cells(one)]
                for one in result["expiries"]
            ),
        )
        table(
            "Channels",
            ("!channel", "feed", *GREEKS),
            ([one["channel"][:12], one["feed"], *_greeks_cells(one)] for one in result["channels"]),
        )
        table("Desk", ("feed", *GREEKS), ([one["feed"], *_greeks_cells(one)] for one in result["desk"]))

    OUT.emit(result, draw)


def parse_moves(text: str, name: str) -> list[str]:
    """Moves as decimal strings from "FROM:TO:COUNT" or "-0.1,0,0.1".

    Raises:
        CommandError: not of that form, or more than 61.
        MalformedNumberError: a number that is none.

    """
    if ":" not in text:
        moves = [one.strip() for one in text.split(",")]
        for move in moves:
            parse_decimal(move)
    else:
        parts = text.split(":")
        if len(parts) != 3 or not parts[2].isascii() or not parts[2].isdigit() or len(parts[2]) > 3:
            message = f"{name} {text!r} is no range: write FROM:TO:COUNT, such as -0.3:0.3:13, or -0.1,0,0.1"
            raise CommandError(message)
        first, last, count = parse_decimal(parts[0]), parse_decimal(parts[1]), int(parts[2])
        steps = max(count - 1, 1)
        moves = [format_decimal(first + (last - first) * n // steps) for n in range(count)]
    if not 1 <= len(moves) <= MOST_MOVES:
        message = f"{name} must name 1 to {MOST_MOVES} moves, not {len(moves)}"
        raise CommandError(message)
    return moves


def scenario(
    what: Annotated[
        str | None,
        typer.Argument(help="A channel (id, beginning, or peer's name) or FILE.json; the whole desk without."),
    ] = None,
    *,
    spot: Annotated[str, typer.Option(help="Moves of spot: FROM:TO:COUNT, or a list; 0.1 is 10% up.")] = "-0.3:0.3:13",
    vol: Annotated[str, typer.Option(help="Moves of vols, of what they are; as --spot.")] = "-0.4,-0.2,0,0.2,0.4",
    days: Annotated[str, typer.Option(help="Days that pass.")] = "0",
    side: Annotated[str, typer.Option(help="Of a file: whose profit, a or b.")] = "a",
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write the table to this file.")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw a heat map to this file.")] = None,
    payoff: Annotated[Path | None, typer.Option(help="Draw profit against spot, now and later, to this file.")] = None,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Show profit in any grid of spot and vol moves: a table, a CSV, a heat map, a payoff diagram. Advisory."""
    del json
    spot_moves, vol_moves = parse_moves(spot, "--spot"), parse_moves(vol, "--vol")
    parse_decimal(days)
    if side not in ("a", "b"):
        message = f"--side is a or b, not {side!r}"
        raise CommandError(message)
    if what is not None and (Path(what).suffix == ".json" or Path(what).is_file()):
        ask, first_expiry = _of_file(Path(what), "ab".index(side))
    else:
        ask, first_expiry = _of_desk(data, what)
    result = ask(spot_moves, vol_moves, days)
    where = Path(what).name if what else "the desk"
    if csv_file is not None:
        _write_csv(csv_file, result)
    if png is not None:
        from channeld.cli.plots import heat_map  # noqa: PLC0415 - only for pictures

        later = "" if result["days"] == "0" else f", {result['days']} days from now"
        heat_map(png, result, f"Profit of {where}{later}")
    if payoff is not None:
        _draw_payoff(payoff, ask, (spot_moves[0], spot_moves[-1]), first_expiry(), where)
    OUT.emit(result, lambda: _draw_scenario(result))
    for path in (csv_file, png, payoff):
        if path is not None:
            note(f"written: {path}")


def _of_desk(data: Path, channel: str | None) -> tuple[Any, Callable[[], str | None]]:
    client = connect(data)

    def ask(spot_moves: list[str], vol_moves: list[str], days: str) -> dict[str, Any]:
        result: dict[str, Any] = client.call(
            "private/scenario", channel=channel, spot_moves=spot_moves, vol_moves=vol_moves, days=days
        )
        return result

    def first_expiry() -> str | None:
        now = client.call("public/time")["time_ms"]
        ends = [one["expiry_ms"] for one in client.call("private/positions", channel=channel) if one["expiry_ms"]]
        left = [end - now for end in ends if end > now]
        return _days(min(left) // 1000) if left else None

    return ask, first_expiry


def _days(seconds: int) -> str:
    return format_decimal(seconds * WAD // DAY, places=6)


def _of_file(path: Path, side: int) -> tuple[Any, Callable[[], str | None]]:
    """The same of a file {terms, body, prices, time}, by the daemon's own rooms."""
    from channeld.cli.pure import read_book  # noqa: PLC0415 - only here

    _, body, prices, time, _ = read_book(path)
    live = [p for p in body.positions if not p.instrument.expiry or p.instrument.expiry > time]

    def ask(spot_moves: list[str], vol_moves: list[str], days: str) -> dict[str, Any]:
        from channeld.desk.scenarios import scenario_table  # noqa: PLC0415 - it loads numpy

        spots, vols = ([parse_decimal(m) / WAD for m in moves] for moves in (spot_moves, vol_moves))
        return scenario_table([(live, prices, time, side)], spots, vols, parse_decimal(days) / WAD)

    def first_expiry() -> str | None:
        left = [p.instrument.expiry - time for p in live if p.instrument.expiry]
        return _days(min(left)) if left else None

    return ask, first_expiry


def _draw_scenario(result: dict[str, Any]) -> None:
    table(
        f"Profit, {result['days']} days from now" if result["days"] != "0" else "Profit",
        (">spot", *(f">vols {_percent(move)}" for move in result["vol_moves"])),
        (
            [_percent(move), *(people(cell, 2) for cell in line)]
            for move, line in zip(result["spot_moves"], result["profit"], strict=True)
        ),
    )
    worst = result["worst"]
    table(
        f"Worst: {people(worst['profit'], 2)} at spot {_percent(worst['spot_move'])}, "
        f"vols {_percent(worst['vol_move'])}",
        ("!instrument", ">profit"),
        ((one["instrument"], people(one["profit"], 2)) for one in worst["legs"]),
    )


def _percent(move: str) -> str:
    text = format_decimal(parse_decimal(move) * 100, places=2).rstrip("0").rstrip(".")
    return f"{text}%" if text.startswith("-") or text == "0" else f"+{text}%"


def _write_csv(path: Path, result: dict[str, Any]) -> None:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["spot_move", *(f"vol_move {move}" for move in result["vol_moves"])])
    writer.writerows([move, *line] for move, line in zip(result["spot_moves"], result["profit"], strict=True))
    try:
        path.write_text(out.getvalue(), encoding="utf-8")
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror or error}"
        raise UnreadableFileError(message, advice="Check the path and its permissions.") from None


def _draw_payoff(path: Path, ask: Any, ends: tuple[str, str], expiry: str | None, where: str) -> None:  # noqa: ANN401 - a callable
    from channeld.cli.plots import payoff  # noqa: PLC0415 - only for pictures

    moves = parse_moves(f"{ends[0]}:{ends[1]}:{PAYOFF_POINTS}", "--spot")
    times = [("now", "0")]
    if expiry is not None:
        half = format_decimal(parse_decimal(expiry) // 2, places=6)
        times += [(f"in {_round(half)} days", half), (f"at the first expiry, in {_round(expiry)} days", expiry)]
    lines = [(name, [line[0] for line in ask(moves, ["0"], days)["profit"]]) for name, days in times]
    payoff(path, moves, lines, f"Profit of {where} against spot, vols unchanged")


def _round(days: str) -> str:
    return format_decimal(parse_decimal(days), places=1)


def profit(
    channel: Annotated[str, typer.Argument(help="A channel id, its beginning, or the peer's name.")],
    *,
    intervals: Annotated[int, typer.Option(help="How many MARK intervals back, up to now.", min=1, max=10_000)] = 1,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Explain the profit since a mark: delta, gamma, vega, theta, carry, funding, trades, and the residual."""
    del json
    result = connect(data, timeout=300).call("private/profit", channel=channel, intervals=intervals)
    parts = ("delta", "gamma", "vega", "theta", "carry", "funding", "trades", "residual", "total")

    def draw() -> None:
        table(
            f"Profit from {clock(result['from'] * 1000)} to {clock(result['to'] * 1000)} (UTC)",
            ("!instrument", *(f">{part}" for part in parts)),
            (
                [one.get("instrument", "all"), *(people(one[part], 2) for part in parts)]
                for one in (*result["rows"], result["total"])
            ),
        )

    OUT.emit(result, draw)


def limits(
    channel: ChannelOption = None,
    *,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Show every limit and how much of it is used: policy, margin, unsettled profit, oracle, protocol."""
    del json
    result = connect(data).call("private/limits", channel=channel)

    def draw() -> None:
        for one in result:
            use, margin = one["use"], one["margin"]
            facts(
                f"{one['peer']} ({one['channel'][:12]})",
                {
                    "margin used": f"{_share(margin['used'])} (initial margin {people(margin['initial_margin'], 2)} of "
                    f"equity {people(margin['equity'], 2)})",
                    "unsettled": f"{people(one['unsettled']['profit'], 2)} "
                    f"({_share(one['unsettled']['of_balance'])} of balance)",
                    "notional": people(use["notional"], 2),
                    "vega": people(use["vega"], 2),
                    "positions": f"{use['positions']} of {use['most_positions']}",
                    "expiries": f"{use['expiries']} of {use['most_expiries']}",
                    "policy": {name: "none" if value is None else value for name, value in one["policy"].items()},
                    "prints": {
                        feed["feed"]: "none" if feed["age_s"] is None else f"{feed['age_s']} s of {feed['max_age_s']}"
                        for feed in one["oracle"]
                    },
                },
            )
        if not result:
            typer.echo("no channels")

    OUT.emit(result, draw)


def _share(ratio: str | None) -> str:
    return "none" if ratio is None else f"{format_decimal(parse_decimal(ratio) * 100, places=2)}%"
