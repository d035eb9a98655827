"""`channeld token`: tokens of the API for programs and people, each with the scopes it needs and no more."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from channeld.cli.client import DEFAULT_DATA, DataOption, connect
from channeld.cli.output import OUT, JsonOption, facts, note, table
from channeld.cli.trading import clock

app = typer.Typer(no_args_is_help=True, help="Tokens of the API: read, trade, treasury, dispute.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose it is: shown wherever what it did is shown.")],
    scope: Annotated[list[str], typer.Option(help="read, trade, treasury or dispute; repeat it.")],
    *,
    days: Annotated[int, typer.Option(help="It ends after so many days; 0 for no end.", min=0)] = 0,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Make a token. It is printed this once; the daemon keeps a hash of it."""
    del json
    told = connect(data).call("private/token_create", name=name, scopes=scope, days=days or None)
    OUT.emit(told, lambda: typer.echo(told["token"]))
    note("keep it now: it cannot be shown again")


@app.command("list")
def list_(*, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """List the tokens: names and scopes, never the tokens themselves."""
    del json
    told = connect(data).call("private/tokens")
    OUT.emit(told, lambda: _draw(told))


def _draw(tokens: list[dict[str, Any]]) -> None:
    table(
        "Tokens",
        ("!id", "name", "scopes", "made (UTC)", "ends (UTC)"),
        (
            (
                one["id"],
                one["name"],
                ", ".join(one["scopes"]),
                clock(one["created_ms"]),
                ("over since " if one["expired"] else "") + (clock(one["expires_ms"]) or "never"),
            )
            for one in tokens
        ),
    )


@app.command()
def revoke(
    token: Annotated[str, typer.Argument(help="Its name or id.")],
    *,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """End a token, at once."""
    del json
    told = connect(data).call("private/token_revoke", token=token)
    OUT.emit(told, lambda: facts("revoked", {"id": told["id"], "name": told["name"]}))
