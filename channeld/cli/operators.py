"""`channeld alerts`, `channeld approval`, `channeld operator-log`: what concerns the people who run a desk.

Rules: the log is checked here, entry by entry, from the daemon's answers alone; what was altered is named.
"""

from __future__ import annotations

import json as json_text
from typing import TYPE_CHECKING, Annotated, Any

import typer

from channeld.cli.client import DEFAULT_DATA, DataOption, connect
from channeld.cli.errors import EXIT_NO
from channeld.cli.output import OUT, JsonOption, facts, note, table
from channeld.cli.trading import clock

if TYPE_CHECKING:
    from collections.abc import Sequence

alerts_app = typer.Typer(no_args_is_help=True, help="Alerts: what there was, how they are delivered, a test.")
approval_app = typer.Typer(no_args_is_help=True, help="Actions that wait for a second person.")


@alerts_app.command("list")
def alerts_list(*, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """Show the newest alerts, and whether they reach anybody."""
    del json
    told = connect(data).call("private/alerts")

    def draw() -> None:
        rows = ((clock(a["time_ms"]), a.get("severity", ""), a.get("code", ""), a["message"]) for a in told["alerts"])
        table("Alerts", ("time (UTC)", "severity", "code", "message"), rows)
        _ways(told["ways"], ("waiting", "delivered", "dropped", "trouble"))

    OUT.emit(told, draw)


def _ways(ways: Sequence[dict[str, Any]], columns: tuple[str, ...]) -> None:
    rows = ((way["way"], way["severity"], *(way.get(column, "") for column in columns)) for way in ways)
    table("Delivered by", ("way", "from", *columns), rows)
    if not ways:
        note("alerts go nowhere but into the log: set alerts.webhook or alerts.command")


@alerts_app.command("test")
def alerts_test(
    *,
    severity: Annotated[str, typer.Option(help="info, warning or critical.")] = "critical",
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Send a test alert by every way, and say whether it arrived; exit 1 where one failed, or none is set."""
    del json
    ways = connect(data).call("private/alerts_test", severity=severity)
    OUT.emit(ways, lambda: _ways(ways, ("outcome", "error")))
    if not ways or any(way["outcome"] == "failed" for way in ways):
        raise typer.Exit(EXIT_NO)


@approval_app.command("list")
def approval_list(*, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """List what waits for a second person."""
    del json
    told = connect(data).call("private/approvals")
    OUT.emit(
        told,
        lambda: table(
            "Waiting for approval",
            ("!id", "what", "with", "asked by", "asked (UTC)", "over (UTC)"),
            (
                (
                    one["id"],
                    one["method"].removeprefix("private/"),
                    json_text.dumps(one["params"]),
                    one["token"],
                    clock(one["asked_ms"]),
                    clock(one["expires_ms"]),
                )
                for one in told
            ),
        ),
    )


@approval_app.command()
def approve(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="Of the request.")],
    *,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Carry out what another token has asked for; look at it first. CHANNELD_API_TOKEN has your own token."""
    del json
    told = connect(data).call("private/approve", id=identifier, timeout=180)
    OUT.emit(told, lambda: facts("done", told if isinstance(told, dict) else {"result": told}))


@approval_app.command()
def reject(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="Of the request.")],
    *,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Throw a request away."""
    del json
    told = connect(data).call("private/approval_reject", id=identifier)
    OUT.emit(told, lambda: facts("rejected", told))


def operator_log(
    *,
    after: Annotated[int, typer.Option(help="Entries after this number.", min=0)] = 0,
    known: Annotated[str, typer.Option(help="The hash that entry --after had when you last looked.")] = "",
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Who did what by which token; every entry's hash is checked, and the first that was altered is named."""
    del json
    from channeld.daemon.operators import ZERO, AlteredLogError, check_entries  # noqa: PLC0415 - heavy

    client, entries, last = connect(data), [], after
    before = known or ("" if after else ZERO)
    while True:
        page = client.call("private/operator_log", after=last)
        if not page["entries"]:
            break
        last, before = check_entries(page["entries"], last, before)
        entries += page["entries"]
    if page["number"] != last or before not in ("", page["hash"]):
        raise AlteredLogError(f"the operators' log ends at entry {last}, and says that it has {page['number']}")
    told = {"entries": entries, "number": last, "hash": page["hash"], "checked": True}

    def draw() -> None:
        table(
            "Operators' log",
            (">number", "time (UTC)", "token", "method", "outcome", "with"),
            (
                (
                    e["number"],
                    clock(e["time_ms"]),
                    e["token"],
                    e["method"].removeprefix("private/"),
                    e["outcome"],
                    json_text.dumps(e["params"]) if "params" in e else f"(asked in {e['asked']})",
                )
                for e in entries
            ),
        )
        note(f"checked up to entry {last}, hash {page['hash']}: note both elsewhere, for --after and --known")

    OUT.emit(told, draw)
