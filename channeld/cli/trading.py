"""`channeld trade`: propose a trade at a price, and answer the peer's proposals.

Rules: sizes are from the caller's point of view, positive buys. Numbers and instruments are checked here before they
travel, and again by the daemon. `channeld trade PEER INSTRUMENT SIZE PRICE` is the short form of `trade propose`.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from channeld.cli.client import DEFAULT_DATA, DataOption, connect
from channeld.cli.errors import EXIT_NO, CommandError
from channeld.cli.forms import check_note
from channeld.cli.output import OUT, JsonOption, facts, people, table
from channeld.core.wad import parse_decimal

if TYPE_CHECKING:
    from collections.abc import Sequence

PeerArgument = Annotated[str, typer.Argument(help="The peer's name, or a channel id or its beginning.")]
InstrumentArgument = Annotated[str | None, typer.Argument(help="Such as ETH-27DEC30-3000-C or BTC-PERP.")]
SizeArgument = Annotated[str | None, typer.Argument(help="Positive: you buy. Negative: you sell.")]
PriceArgument = Annotated[str | None, typer.Argument(help="In the quote currency, for a size of one.")]
VolOption = Annotated[str | None, typer.Option(help="Volatility for an option, as a decimal: 0.65.")]
CarryOption = Annotated[str | None, typer.Option(help="Annual funding rate or basis, as a decimal.")]
LegsOption = Annotated[
    list[str] | None,
    typer.Option("--leg", help='A leg of a combo: "INSTRUMENT SIZE PRICE [vol=..] [carry=..]"; repeat it.'),
]

PARTS_OF_A_LEG = 3
NEGATIVE = {"ignore_unknown_options": True}
"""A size such as -10 is an argument, no option."""


class TradeGroup(TyperGroup):
    """The trade commands, with `propose` where the first word names none of them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer's context, whose home moved
        """Put `propose` before arguments that name no command."""
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["propose", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=TradeGroup,
    no_args_is_help=True,
    help="Trade with a peer. `channeld trade PEER INSTRUMENT SIZE PRICE` proposes; sizes are yours, positive buys.",
)


def leg(instrument: str, size: str, price: str, vol: str | None = None, carry: str | None = None) -> dict[str, str]:
    """One leg for the API: checked names and decimal strings.

    Raises:
        ChanneldError: an unknown instrument or a malformed number, each with its own code.

    """
    from channeld.core.instruments import instrument_name, parse_instrument  # noqa: PLC0415 - only this command

    parsed = parse_instrument(instrument)
    for number in (size, price, vol, carry):
        if number is not None:
            parse_decimal(number)
    if parse_decimal(size) == 0:
        message = "the size of a trade must not be zero"
        raise CommandError(message, advice="Give a size such as 10 (you buy) or -10 (you sell).")
    result = {"instrument": instrument_name(parsed), "size": size, "price": price}
    if vol is not None:
        result["vol"] = vol
    if carry is not None:
        result["carry"] = carry
    return result


def parse_leg(text: str) -> dict[str, str]:
    """A leg from "INSTRUMENT SIZE PRICE [vol=0.65] [carry=0.05]".

    Raises:
        CommandError: not of that form.

    """
    words = text.split()
    named = dict(word.split("=", 1) for word in words[PARTS_OF_A_LEG:] if "=" in word)
    if len(words) < PARTS_OF_A_LEG or len(named) != len(words) - PARTS_OF_A_LEG or set(named) - {"vol", "carry"}:
        message = f'{text!r} is no leg: write "INSTRUMENT SIZE PRICE [vol=0.65] [carry=0.05]"'
        raise CommandError(message)
    return leg(words[0], words[1], words[2], named.get("vol"), named.get("carry"))


def clock(time_ms: int | str | None) -> str:
    """A time in milliseconds as people read it, in UTC; empty for none."""
    if not time_ms:
        return ""
    return dt.datetime.fromtimestamp(int(time_ms) / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")


def legs_text(legs: Sequence[dict[str, Any]]) -> str:
    """Legs in one line: what is bought and sold, at what price."""
    words = []
    for one in legs:
        size = str(one.get("size", ""))
        verb = "sell" if size.startswith("-") else "buy"
        vol = f" vol {one['vol']}" if one.get("vol") not in (None, "0", "") else ""
        price = people(one.get("price"))
        words.append(f"{verb} {people(size.lstrip('+-'))} {one.get('instrument')} at {price}{vol}")
    return "; ".join(words)


def draw_trade(result: dict[str, Any]) -> None:
    """Print what became of a trade, and its premium as a trader reads it."""
    told = {name: result[name] for name in ("status", "id", "version", "reason") if result.get(name)}
    legs = [str(one.get("instrument", "")) for one in result.get("legs") or []]
    facts("", {**told, **premium_facts(result.get("premium") or {}, legs)})


def premium_facts(premium: dict[str, Any], instruments: Sequence[str]) -> dict[str, str]:
    """What a trade means, under a trader's names: premium, cash now, margin now, most you can lose.

    Premium is told of options alone; the price of a perpetual or a future is none.
    """
    told: dict[str, str] = {}
    amount = premium.get("value_of_premium")
    if amount is not None and (not instruments or all(name.endswith(("-C", "-P")) for name in instruments)):
        told["premium"] = people(str(amount).removeprefix("-"), 2) + (" received" if amount.startswith("-") else "")
    if premium.get("cash_now") is not None:
        told["cash now"] = people(str(premium["cash_now"]), 2)
    if premium.get("margin_now") is not None:
        margin = str(premium["margin_now"])
        told["margin now"] = people(margin.removeprefix("-"), 2) + (" less" if margin.startswith("-") else " more")
    if "most_you_can_lose" in premium:
        most = premium["most_you_can_lose"]
        told["most you can lose"] = "not limited" if most is None else people(str(most), 2)
    return told


REFUSED = ("rejected", "refused")


def _legs(
    instrument: str | None,
    size: str | None,
    price: str | None,
    vol: str | None,
    carry: str | None,
    more: list[str] | None,
) -> list[dict[str, str]]:
    """The legs of a trade from its arguments and its --leg options.

    Raises:
        CommandError: there is none, or one lacks its size or price.

    """
    trade: list[dict[str, str]] = []
    if instrument is not None:
        if size is None or price is None:
            message = "a trade needs an instrument, a size and a price"
            raise CommandError(message, advice="Such as: channeld trade PEER ETH-PERP 10 3000.")
        trade.append(leg(instrument, size, price, vol, carry))
    trade.extend(parse_leg(text) for text in more or [])
    if not trade:
        message = "a trade needs an instrument with size and price, or at least one --leg"
        raise CommandError(message, advice="Such as: channeld trade PEER ETH-PERP 10 3000.")
    return trade


@app.command(context_settings=NEGATIVE)
def propose(
    peer: PeerArgument,
    instrument: InstrumentArgument = None,
    size: SizeArgument = None,
    price: PriceArgument = None,
    *,
    vol: VolOption = None,
    carry: CarryOption = None,
    legs: LegsOption = None,
    fee: Annotated[str | None, typer.Option(help="A fee you pay the peer, in the collateral.")] = None,
    reference: Annotated[str | None, typer.Option(help="Your own reference, at most 48 bytes.")] = None,
    wait: Annotated[int, typer.Option(help="Seconds to wait for the peer's answer.", min=0, max=60)] = 10,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Propose a trade at a price; the peer accepts by its policy or by hand."""
    del json
    trade = _legs(instrument, size, price, vol, carry, legs)
    if fee is not None:
        parse_decimal(fee)
    check_note(reference, "--reference")
    result = connect(data, timeout=wait + 60).call(
        "private/trade", channel=peer, legs=trade, fee=fee, reference=reference, wait_s=wait
    )
    OUT.emit(result, lambda: draw_trade(result))
    if result.get("status") in REFUSED:
        raise typer.Exit(13)


@app.command(name="what-if", context_settings=NEGATIVE)
def what_if(
    peer: PeerArgument,
    instrument: InstrumentArgument = None,
    size: SizeArgument = None,
    price: PriceArgument = None,
    *,
    vol: VolOption = None,
    carry: CarryOption = None,
    legs: LegsOption = None,
    fee: Annotated[str | None, typer.Option(help="A fee you would pay the peer, in the collateral.")] = None,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Show what a trade would do, before it is made; exit 1 if it would be refused. Nothing is sent to the peer."""
    del json
    trade = _legs(instrument, size, price, vol, carry, legs)
    if fee is not None:
        parse_decimal(fee)
    result = connect(data).call("private/what_if", channel=peer, legs=trade, fee=fee)
    OUT.emit(result, lambda: _draw_what_if(result))
    if result.get("refused"):
        raise typer.Exit(EXIT_NO)


def _draw_what_if(result: dict[str, Any]) -> None:
    names = ("equity", "initial_margin", "maintenance_margin", "free")
    after, us = result.get("after"), result.get("us")
    rows = []
    for side in "ab":
        who = f"{side} (us)" if side == us else side
        rows.append([who, "now", *(people(result["before"][side][name], 2) for name in names)])
        if after:
            rows.append([who, "after", *(people(after[side][name], 2) for name in names)])
        if result.get("last_unit"):
            added = result["last_unit"][side]
            rows.append([who, "the last unit added", *(people(added.get(name), 2) for name in names)])
    title = legs_text(result.get("legs", []))
    table(title, ("party", "when", ">equity", ">initial margin", ">maintenance margin", ">free"), rows)
    told: dict[str, Any] = {}
    for side, party in (after or {}).items():
        for one in party["worst"]:
            told[f"worst for {side} on {one['market']}"] = f"{one['scenario']}: {people(one['loss'], 2)}"
    refused = result.get("refused")
    told["would be"] = "signed" if not refused else f"refused ({refused['code']}): {refused['reason']}"
    told["largest that passes"] = legs_text(result["largest"]) if result.get("largest") else "none"
    facts("", told)


@app.command()
def compress(
    peer: PeerArgument,
    *,
    propose: Annotated[bool, typer.Option("--propose", help="Propose the trade that closes it.")] = False,
    wait: Annotated[int, typer.Option(help="Seconds to wait for the peer's answer.", min=0, max=60)] = 10,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Show what cancels in the book (boxes, conversions, reversals), and propose to close it."""
    del json
    client = connect(data, timeout=wait + 60)
    found = client.call("private/compression", channel=peer)
    if not propose or not found["legs"]:
        OUT.emit(found, lambda: _draw_compression(found))
        return
    legs = [{key: one[key] for key in ("instrument", "size", "price")} for one in found["legs"]]
    result = client.call("private/trade", channel=peer, legs=legs, reference="compression", wait_s=wait)

    def draw() -> None:
        _draw_compression(found)
        draw_trade(result)

    OUT.emit({**found, "trade": result}, draw)
    if result.get("status") in REFUSED:
        raise typer.Exit(13)


def _draw_compression(found: dict[str, Any]) -> None:
    if not found["legs"]:
        facts("", {"compression": "nothing in this book cancels"})
        return
    rows = [(one["instrument"], people(one["size"]), people(one["price"], 2)) for one in found["legs"]]
    table("What cancels", ("instrument", ">closes", ">at"), rows)
    told: dict[str, Any] = {"gross size": f"{people(found['gross_now'])} now, {people(found['gross_after'])} after"}
    for side in "ab" if found["after"] else "":
        before, after = (found[when][side]["maintenance_margin"] for when in ("before", "after"))
        who = f"{side} (us)" if side == found["us"] else side
        told[f"maintenance margin of {who}"] = f"{people(before, 2)} now, {people(after, 2)} after"
    if found["refused"]:
        told["would be"] = f"refused ({found['refused']['code']}): {found['refused']['reason']}"
    facts("", told)


@app.command()
def offers(*, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """List the trades that wait for an answer."""
    del json
    result = connect(data).call("private/offers")
    OUT.emit(
        result,
        lambda: table(
            "Offers",
            ("id", "peer", "!channel", "direction", "trade", "!valid until (UTC)"),
            (
                (
                    str(one.get("id"))[:12],
                    one.get("peer"),
                    str(one.get("channel"))[:12],
                    {"in": "for us", "out": "ours"}.get(str(one.get("direction")), one.get("direction")),
                    legs_text(one.get("legs", [])),
                    clock(one.get("valid_until_ms")),
                )
                for one in result
            ),
        ),
    )


@app.command()
def accept(
    offer: Annotated[
        str, typer.Argument(help="The id of an offer, or its beginning; none for the one that waits.")
    ] = "",
    *,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Accept a peer's offer."""
    del json
    client = connect(data)
    result = client.call("private/offer_accept", id=_offer_id(client.call("private/offers"), offer))
    OUT.emit(result, lambda: draw_trade(result if isinstance(result, dict) else {"status": result}))


@app.command()
def reject(
    offer: Annotated[
        str, typer.Argument(help="The id of an offer, or its beginning; none for the one that waits.")
    ] = "",
    reason: Annotated[str | None, typer.Option(help="Told to the peer.")] = None,
    *,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Reject a peer's offer."""
    del json
    client = connect(data)
    identifier = _offer_id(client.call("private/offers"), offer)
    result = client.call("private/offer_reject", id=identifier, reason=reason)
    OUT.emit(result, lambda: facts("", {"rejected": identifier}))


def _offer_id(known: list[dict[str, Any]], wanted: str) -> str:
    """The id of the one offer for us that `wanted` begins.

    Raises:
        CommandError: none does, or more than one.

    """
    waiting = [str(one.get("id")) for one in known if one.get("direction") != "out"]
    matches = [one for one in waiting if one.startswith(wanted)]
    if len(matches) == 1:
        return matches[0]
    if wanted:
        message = f"{len(matches) or 'no'} offers begin with {wanted!r}"
    else:
        message = f"{len(matches) or 'no'} offers wait for an answer"
    raise CommandError(message, advice="`channeld trade offers` lists them; give the id of one.")
