"""`channeld order` and `channeld book`: orders against what peers stream, and the book they see.

Rules: each command is one call of the daemon's API and one way to draw its answer. Sizes are positive; the side says
which way. Numbers are checked here before they travel, and again by the daemon.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from channeld.cli.client import DEFAULT_DATA, DataOption, connect
from channeld.cli.errors import CommandError
from channeld.cli.output import OUT, JsonOption, facts, people, table
from channeld.core.wad import parse_decimal

app = typer.Typer(no_args_is_help=True, help="Orders against the aggregated book of all peers' markets.")
market_app = typer.Typer(no_args_is_help=True, help="The markets that this desk streams to its peers.")


def _draw(rows: list[dict[str, Any]]) -> None:
    table(
        "Orders",
        ("!id", "label", "instrument", "side", "!size", "!limit", "force", "status", "!filled", "!average", "reason"),
        (
            (
                one["id"],
                one["label"],
                one["instrument"],
                one["side"],
                people(one["size"]),
                people(one["limit"]) if one["limit"] else one["type"],
                one["force"],
                one["status"],
                people(one["filled"]),
                people(one["average_price"]) if one["average_price"] else "",
                one["reason"],
            )
            for one in rows
        ),
    )


@app.command()
def place(
    side: Annotated[str, typer.Argument(help="buy or sell.")],
    instrument: Annotated[str, typer.Argument(help="Such as ETH-PERP.")],
    size: Annotated[str, typer.Argument(help="Positive.")],
    limit: Annotated[str | None, typer.Argument(help="The worst price; none for a market order.")] = None,
    *,
    label: Annotated[str, typer.Option(help="Your own name for it; the same order under it is placed once.")] = "",
    force: Annotated[str, typer.Option(help="ioc, fok, gtc or gtd.")] = "gtc",
    until_ms: Annotated[int, typer.Option(help="The end of a gtd order, Unix milliseconds.")] = 0,
    slippage: Annotated[str, typer.Option(help="Of a market order, as a fraction: 0.002.")] = "0",
    post_only: Annotated[bool, typer.Option("--post-only", help="Never takes; shown to peers as a quote.")] = False,
    reduce_only: Annotated[bool, typer.Option("--reduce-only", help="Never increases a position.")] = False,
    cancel_on_disconnect: Annotated[
        bool, typer.Option("--cancel-on-disconnect", help="Stopped when its client is gone, or the daemon restarts.")
    ] = False,
    trigger: Annotated[str | None, typer.Option(help="stop, take or trail.")] = None,
    source: Annotated[str, typer.Option(help="What moves the trigger: index, mark or last.")] = "mark",
    trigger_price: Annotated[str, typer.Option(help="Where it fires; of a trailing stop, where it arms.")] = "0",
    distance: Annotated[str, typer.Option(help="Of a trailing stop, behind the best price.")] = "0",
    relative: Annotated[bool, typer.Option("--relative", help="The distance is a fraction of the price.")] = False,
    peer: Annotated[list[str] | None, typer.Option("--peer", help="Trade with this peer alone; repeat it.")] = None,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Place an order."""
    del json
    for number in (size, limit or "1", slippage, trigger_price, distance):
        parse_decimal(number)
    given: dict[str, Any] = {
        "instrument": instrument,
        "side": side,
        "size": size,
        "type": "limit" if limit is not None else "market",
        "slippage": slippage,
        "force": force,
        "until_ms": until_ms,
        "post_only": post_only,
        "reduce_only": reduce_only,
        "cancel_on_disconnect": cancel_on_disconnect,
    }
    if limit is not None:
        given["limit"] = limit
    if label:
        given["label"] = label
    if peer:
        given["peers"] = peer
    if trigger is not None:
        given["trigger"] = {
            "kind": trigger,
            "source": source,
            "price": trigger_price,
            "distance": distance,
            "relative": relative,
        }
    result = connect(data).call("private/order", **given)
    OUT.emit(result, lambda: _draw([result]))


@app.command("list")
def order_list(
    *,
    every: Annotated[bool, typer.Option("--all", help="Those that are over, too.")] = False,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """List orders."""
    del json
    result = connect(data).call("private/orders", all=every)
    OUT.emit(result, lambda: _draw(result))


@app.command()
def cancel(
    order: Annotated[str, typer.Argument(help="Its number or label, or `all`.")],
    *,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Stop an order, or all."""
    del json
    client = connect(data)
    if order == "all":
        result = client.call("private/order_cancel_all")
        OUT.emit(result, lambda: facts("", result))
        return
    named = {"id": int(order)} if order.isascii() and order.isdigit() else {"label": order}
    result = client.call("private/order_cancel", **named)
    OUT.emit(result, lambda: _draw([result]))


def book(
    instrument: Annotated[str | None, typer.Argument(help="One instrument's depth; none for all best prices.")] = None,
    *,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Show the aggregated book: what all peers stream, as far as each channel's margin reaches."""
    del json
    result = connect(data).call("private/book", instrument=instrument)

    def draw() -> None:
        table(
            "Book",
            ("instrument", "!best bid", "!best ask"),
            ((one["instrument"], people(one["best_bid"] or ""), people(one["best_ask"] or "")) for one in result),
        )
        for one in result:
            for side in ("bids", "asks"):
                table(
                    f"{one['instrument']} {side}",
                    ("!price", "!size", "!tradable", "peer"),
                    (
                        (people(level["price"]), people(level["size"]), people(level["tradable"]), level["peer"])
                        for level in one.get(side, [])
                    ),
                )

    OUT.emit(result, draw)


def _levels(texts: list[str] | None) -> list[dict[str, str]]:
    found = []
    for text in texts or []:
        price, _, size = text.partition(":")
        if not size:
            message = f"{text!r} is no level: write PRICE:SIZE"
            raise CommandError(message)
        parse_decimal(price)
        parse_decimal(size)
        found.append({"price": price, "size": size})
    return found


@market_app.command("set")
def market_set(
    instrument: Annotated[str, typer.Argument(help="Such as ETH-PERP.")],
    *,
    bid: Annotated[list[str] | None, typer.Option("--bid", help="PRICE:SIZE, best first; repeat it.")] = None,
    ask: Annotated[list[str] | None, typer.Option("--ask", help="PRICE:SIZE, best first; repeat it.")] = None,
    peer: Annotated[list[str] | None, typer.Option("--peer", help="For this peer alone; repeat it.")] = None,
    valid: Annotated[int, typer.Option(help="Seconds that it stands.", min=1, max=60)] = 30,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Stream a market; without bids and asks, withdraw it. Peers' trades on it are agreed to without a person."""
    del json
    result = connect(data).call(
        "private/market_set",
        instrument=instrument,
        bids=_levels(bid),
        asks=_levels(ask),
        peers=peer or [],
        valid_s=str(valid),
    )
    OUT.emit(result, lambda: facts("", result))
