"""`channeld trade novate` and `channeld channel roll`: positions that move from one channel to another."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from channeld.cli.client import DEFAULT_DATA, DataOption, connect
from channeld.cli.errors import CommandError
from channeld.cli.output import OUT, JsonOption, facts, people, table
from channeld.core.wad import parse_decimal

FromArgument = Annotated[str, typer.Argument(metavar="FROM", help="The peer or channel that the position leaves.")]
ToArgument = Annotated[str, typer.Argument(metavar="TO", help="The peer or channel where it begins.")]
CostOption = Annotated[
    str | None, typer.Option(help="What both sides together may cost at most, in the quote currency; 0 by default.")
]
WaitOption = Annotated[float, typer.Option(help="Seconds to wait for both quotes.", min=0, max=60)]


def novate(
    source: FromArgument,
    target: ToArgument,
    instrument: Annotated[str, typer.Argument(help="An open position, such as ETH-27DEC30-3000-C.")],
    size: Annotated[str, typer.Argument(help="How much of it moves, positive.")],
    *,
    price: Annotated[str | None, typer.Option(help="Agreed with both: neither quote may be worse.")] = None,
    max_cost: CostOption = None,
    wait: WaitOption = 30,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Move a position from one counterparty to another: both quote it firmly, and both are taken, or neither."""
    del json
    for number in (size, price, max_cost):
        if number is not None:
            parse_decimal(number)
    _move(source, target, [{"instrument": instrument, "size": size}], price, max_cost, wait, data)


def roll(
    source: FromArgument,
    target: ToArgument,
    *,
    max_cost: CostOption = None,
    wait: WaitOption = 30,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Move the whole book to another channel, such as a successor with new terms; fund that one first."""
    del json
    if max_cost is not None:
        parse_decimal(max_cost)
    _move(source, target, None, None, max_cost, wait, data)


def _move(
    source: str,
    target: str,
    positions: list[dict[str, str]] | None,
    price: str | None,
    max_cost: str | None,
    wait: float,
    data: Any,  # noqa: ANN401 - the option's own type
) -> None:
    if source == target:
        message = "a position moves from one channel to another"
        raise CommandError(message, advice="Name the two channels by their ids; `channeld channel list` shows them.")
    result = connect(data, timeout=wait + 90).call(
        "private/novate",
        channel=source,
        to=target,
        positions=positions,
        price=price,
        max_cost=max_cost,
        wait_s=str(wait),
    )
    OUT.emit(result, lambda: _draw(result))
    if result["status"] != "done":
        raise typer.Exit(13)


def _draw(result: dict[str, Any]) -> None:
    facts("", {"novation": result["status"], "cost": people(result["cost"])})
    rows = [
        (one["peer"], one["side"], people(one["size"]), people(one["price"]), one.get("version") or one.get("reason"))
        for one in result["taken"]
    ]
    if rows:
        table("Taken", ("peer", "you", ">size", ">price", "version"), rows)
    for part in result["parts"]:
        for what in ("close", "open"):
            for peer in part[what]["waiting"]:
                facts("", {f"no quote to {what}": peer})
            for peer, reason in part[what]["passed"].items():
                facts("", {f"no quote to {what}": f"{peer}: {reason}"})
