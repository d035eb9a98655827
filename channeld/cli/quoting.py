"""`channeld rfq` and `channeld quote`: ask peers for firm quotes, answer theirs, take the best.

Rules: names and numbers are checked here before they travel, and again by the daemon. A price is of one unit of the
combo, and negative where buying it pays.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from channeld.cli.client import DEFAULT_DATA, DataOption, connect
from channeld.cli.output import OUT, JsonOption, facts, people, table
from channeld.cli.trading import NEGATIVE, clock
from channeld.core.wad import parse_decimal

app = typer.Typer(no_args_is_help=True, help="Answer peers' requests, take their quotes, look at broken promises.")


def rfq(
    instrument: Annotated[str, typer.Argument(help="Such as ETH-PERP, ETH-27DEC30-3000/3200-CS, or NAME,-0.4*NAME.")],
    size: Annotated[str, typer.Argument(help="How much of it, positive.")],
    side: Annotated[str, typer.Argument(help="buy, sell, or two-way: what the makers are told.")] = "two-way",
    *,
    peer: Annotated[list[str] | None, typer.Option("--peer", help="Ask this peer alone; repeat it. Else all.")] = None,
    all_or_none: Annotated[bool, typer.Option("--all-or-none", help="Quotes must be for the whole size.")] = False,
    take_best: Annotated[str | None, typer.Option(help="buy or sell: take the best price by itself.")] = None,
    limit: Annotated[str | None, typer.Option(help="With --take-best: the worst price of one unit.")] = None,
    lifetime: Annotated[float, typer.Option(help="Seconds that the request lives.", min=1, max=600)] = 300,
    wait: Annotated[float, typer.Option(help="Seconds to wait for quotes.", min=0, max=60)] = 5,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Ask peers for firm quotes."""
    del json
    from channeld.desk.combos import combo_name, parse_combo  # noqa: PLC0415 - only this command

    name = combo_name(parse_combo(instrument))
    for number in (size, limit):
        if number is not None:
            parse_decimal(number)
    result = connect(data, timeout=wait + 60).call(
        "private/rfq",
        instrument=name,
        size=size,
        side=side,
        peers=peer or None,
        all_or_none=all_or_none,
        take_best=take_best,
        limit=limit,
        lifetime_s=str(lifetime),
        wait_s=str(wait),
    )
    OUT.emit(result, lambda: _draw_ours(result))


def _draw_quotes(title: str, quotes: list[dict[str, Any]]) -> None:
    table(
        title,
        ("id", "peer", "you", "!price", "!size", "!valid until (UTC)", "status"),
        (
            (
                one.get("id"),
                one.get("peer"),
                one.get("side"),
                people(one.get("price")),
                people(one.get("size")),
                clock(one.get("valid_until_ms")),
                one.get("status") if not one.get("reason") else f"{one['status']}: {one['reason']}",
            )
            for one in quotes
        ),
    )


def _draw_ours(result: dict[str, Any]) -> None:
    told = {key: result.get(key) for key in ("rfq", "instrument", "size", "side")}
    facts("request", {**told, "asked": ", ".join(result["asked"]), "no answer yet": ", ".join(result["waiting"])})
    _draw_quotes("Quotes", result["quotes"])
    if result.get("taken"):
        _draw_quotes("Taken", result["taken"])


@app.command("list")
def quote_list(*, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """List requests that wait for your quote, your own requests, and what you have quoted."""
    del json
    result = connect(data).call("private/rfqs")

    def draw() -> None:
        table(
            "Peers ask",
            ("request", "peer", "instrument", "!size", "side", "!until (UTC)"),
            (
                (
                    one["rfq"],
                    one["peer"],
                    one["instrument"],
                    people(one["size"]),
                    one["side"],
                    clock(one["valid_until_ms"]),
                )
                for one in result["theirs"]
            ),
        )
        for one in result["ours"]:
            _draw_ours(one)
        table(
            "Given",
            ("id", "peer", "!valid until (UTC)", "status"),
            ((one["id"], one["peer"], clock(one["valid_until_ms"]), one["status"]) for one in result["given"]),
        )

    OUT.emit(result, draw)


@app.command(context_settings=NEGATIVE)
def give(
    request: Annotated[str, typer.Argument(help="The request's id, from `channeld quote list`.")],
    *,
    bid: Annotated[str | None, typer.Option(help="What you pay for one unit.")] = None,
    ask: Annotated[str | None, typer.Option(help="What you want for one unit.")] = None,
    size: Annotated[str | None, typer.Option(help="How much of it; the size asked for unless given.")] = None,
    valid: Annotated[int, typer.Option(help="Seconds that the quote is firm.", min=1, max=60)] = 30,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Give a firm, signed quote: there is no last look."""
    del json
    for number in (bid, ask, size):
        if number is not None:
            parse_decimal(number)
    result = connect(data).call("private/quote", rfq=request, bid=bid, ask=ask, size=size, valid_s=str(valid))
    OUT.emit(result, lambda: facts("given", {one["id"]: clock(one["valid_until_ms"]) for one in result["given"]}))


@app.command("pass")
def pass_on(
    request: Annotated[str, typer.Argument(help="The request's id.")],
    reason: Annotated[str, typer.Argument(help="Told to the peer.")] = "no quote",
    *,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Tell a peer that no quote comes."""
    del json
    result = connect(data).call("private/quote_pass", rfq=request, reason=reason)
    OUT.emit(result, lambda: facts("", result))


@app.command()
def take(
    quote: Annotated[str, typer.Argument(help="The quote's id.")],
    *,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the trade.", min=0, max=60)] = 10,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Take a peer's firm quote."""
    del json
    result = connect(data, timeout=wait + 60).call("private/quote_take", id=quote, wait_s=str(wait))
    OUT.emit(result, lambda: _draw_quotes("Taken", [result]))


@app.command()
def broken(*, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """Firm quotes that their makers refused: the evidence, with both signatures under --json."""
    del json
    result = connect(data).call("private/quotes_broken")
    OUT.emit(
        result,
        lambda: table(
            "Broken promises",
            ("quote", "peer", "taken (UTC)", "!code", "reason"),
            ((o["id"], o["peer"], clock(o["time_ms"]), o["code"], o["reason"]) for o in result["broken"]),
        ),
    )
