"""`channeld calls`: margin calls, ours and the peers', and what a person may do about them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from channeld.cli.client import DEFAULT_DATA, DataOption, connect
from channeld.cli.output import OUT, JsonOption, facts, people, table
from channeld.cli.trading import clock

app = typer.Typer(help="Margin calls: who is called, for what, until when, and where it stands.")
ChannelArgument = Annotated[str, typer.Argument(help="The channel: the peer's name, or the beginning of its id.")]


@app.callback(invoke_without_command=True)
def calls(
    context: typer.Context,
    channel: Annotated[str | None, typer.Option(help="Of one channel alone.")] = None,
    *,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """List margin calls, the newest first."""
    del json
    if context.invoked_subcommand is not None:
        return
    result = connect(data).call("private/calls", channel=channel)
    OUT.emit(result, lambda: draw(result))


def draw(rows: list[dict[str, Any]]) -> None:
    """Print margin calls, one to a line."""
    if not rows:
        typer.echo("no margin calls")
        return
    table(
        "Margin calls",
        (
            "issued (UTC)",
            "called",
            ">amount",
            ">agreed",
            ">delivered",
            "until (UTC)",
            "state",
            ">equity",
            ">maintenance",
        ),
        (
            (
                clock(int(one["issued"]) * 1000),
                "us" if one["party"] == "us" else one["peer"],
                people(one["amount"], 2),
                people(one["agreed"], 2),
                people(one["delivered"], 2),
                clock(int(one["deadline"]) * 1000),
                one["state"],
                people(one["equity"], 2),
                people(one["maintenance"], 2),
            )
            for one in rows
        ),
    )


@app.command()
def enforce(channel: ChannelArgument, *, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """Call margin on chain: who is below maintenance margin at the call's time is closed out there."""
    del json
    result = connect(data, timeout=180).call("private/call_margin", channel=channel)
    OUT.emit(result, lambda: facts("margin called", result))


@app.command()
def resume(channel: ChannelArgument, *, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """Sign that a dispute ends and the channel goes on; it does once the peer has signed too."""
    del json
    result = connect(data, timeout=180).call("private/resume", channel=channel)
    OUT.emit(result, lambda: facts("resume", result))


def expiries(
    channel: Annotated[str | None, typer.Argument(help="A channel id, its beginning, or the peer's name.")] = None,
    *,
    within: Annotated[int, typer.Option(help="Look so many hours ahead.", min=0)] = 24,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Show what expires soon and is pinned, and how what has expired was settled."""
    del json
    result = connect(data).call("private/expiries", channel=channel, within_s=within * 3600)
    OUT.emit(result, lambda: draw_expiries(result))


def draw_expiries(result: dict[str, Any]) -> None:
    """Print what is about to expire, and the settlement of each position that has."""
    table(
        "Expiring",
        ("!instrument", ">size", ">hours left", ">spot", ">from strike", ">1 deviation", "pin risk", ">value"),
        (
            (
                one["instrument"],
                people(one["size"]),
                f"{one['seconds'] / 3600:.1f}",
                people(one["spot"], 2),
                _percent(one["distance"]),
                _percent(one["one_deviation"]),
                "PINNED" if one["pinned"] else "",
                people(one["value"], 2),
            )
            for one in result["expiring"]
        ),
    )
    table(
        "Settled",
        ("!instrument", ">size", ">mark", ">fix", ">gain", "by"),
        (
            (
                one["instrument"],
                people(one["size"]),
                people(one["mark"], 4),
                people(one["fix"], 4),
                people(one["settled_gain"], 2),
                "its mark: no fix came" if one["flagged"] else "its fix",
            )
            for one in result["settled"]
        ),
    )


def _percent(text: str | None) -> str:
    return "" if text is None else f"{float(text):+.2%}"
