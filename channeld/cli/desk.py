"""Commands that ask or tell a desk's daemon: status, peers, positions, margin, marks, payments.

Rules: each command is one call of the daemon's API and one way to draw its answer; what may be done is decided by the
daemon alone. Amounts, prices, sizes and rates are decimal strings.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from channeld.cli.channels import ChannelArgument, draw_channels
from channeld.cli.client import DEFAULT_DATA, DataOption, connect
from channeld.cli.errors import CommandError, RemoteError, UnreadableFileError
from channeld.cli.forms import check_note, read_bytes, read_json
from channeld.cli.output import OUT, JsonOption, facts, people, table
from channeld.cli.trading import clock
from channeld.core.wad import parse_decimal

MAX_POLICY_FILE = 1 << 16
peer_app = typer.Typer(no_args_is_help=True, help="The desks this desk may talk to.")
NEGATIVE = {"ignore_unknown_options": True}


@peer_app.command("add")
def peer_add(
    name: Annotated[str, typer.Argument(help="Your name for the peer.")],
    address: Annotated[str, typer.Argument(help="The address of its signing key.")],
    url: Annotated[str | None, typer.Argument(help="Where it listens, ws://host:port; none if it calls you.")] = None,
    *,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Allow a peer, and say where it is."""
    del json
    result = connect(data).call("private/peer_add", name=name, address=address, url=url or "")
    OUT.emit(result, lambda: facts("peer", {"name": name, "address": address, "url": url}))


@peer_app.command("list")
def peer_list(*, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """List the peers and whether they are connected."""
    del json
    result = connect(data).call("private/peers")
    OUT.emit(result, lambda: _draw_peers(result))


def _draw_peers(peers: list[dict[str, Any]]) -> None:
    table(
        "Peers",
        ("name", "address", "url", "connected"),
        (
            (one.get("name"), one.get("address"), one.get("url"), "yes" if one.get("connected") else "no")
            for one in peers
        ),
    )


def status(*, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """Show the desk: chain, peers, channels, alerts."""
    del json
    result = connect(data).call("private/status")

    def draw() -> None:
        chain = result.get("chain") or {}
        facts(
            f"{result.get('name')}, channeld {result.get('version')} (protocol {result.get('protocol')})",
            {
                "address": result.get("address"),
                "payout": result.get("payout"),
                "chain": f"{chain.get('url')} id {chain.get('chain_id')} block {chain.get('block')}",
                "adjudicator": chain.get("adjudicator") or "none: run `channeld deploy`",
            },
        )
        _draw_peers(result.get("peers", []))
        draw_channels(result.get("channels", []))
        alerts = result.get("alerts", [])
        if alerts:
            table("Alerts", ("alert",), (((_alert(one)),) for one in alerts))

    OUT.emit(result, draw)


def _alert(alert: object) -> str:
    if isinstance(alert, dict):
        return " ".join(str(value) for key, value in alert.items() if key != "seq")
    return str(alert)


def policy(
    peer: Annotated[str | None, typer.Argument(help="The peer's name; without it, all that have a policy.")] = None,
    *,
    auto_accept: Annotated[bool, typer.Option(help="Accept the peer's trades by themselves.")] = False,
    max_notional: Annotated[str | None, typer.Option(help="Accept no trade above this notional.")] = None,
    instrument: Annotated[list[str] | None, typer.Option(help="Accept only this, or ETH-*; repeat it.")] = None,
    price_band: Annotated[
        str | None,
        typer.Option(help="Accept what gives away at most this fraction of notional at our own values: 0.001."),
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A TOML file with the whole policy: see docs/policy.md.")] = None,
    reset: Annotated[bool, typer.Option(help="Accept nothing by itself, and limit nothing.")] = False,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Show the policy with a peer in words, or set the whole of it: what is accepted, what waits, what is refused."""
    del json
    for number in (max_notional, price_band):
        if number is not None:
            parse_decimal(number)
    given: dict[str, Any] = {
        "auto_accept": auto_accept or None,
        "max_notional": max_notional,
        "instruments": instrument,
        "price_band": price_band,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if file is not None and given:
        message = "a policy comes from a file or from options, not from both"
        raise CommandError(message, advice="Write everything into the file.")
    if file is not None:
        given = _policy_file(file)
    if not given and not reset and file is None:
        rows = connect(data).call("private/policy", peer=peer)
        OUT.emit(rows, lambda: _draw_policies(rows))
        return
    if peer is None:
        message = "whose policy?"
        raise CommandError(message, advice="Name the peer: channeld policy PEER --auto-accept.")
    result = connect(data).rpc("private/policy_set", {**given, "peer": peer})
    OUT.emit(result, lambda: _draw_policy(result))


def _policy_file(path: Path) -> dict[str, Any]:
    """The parameters in a policy's file; the daemon judges them.

    Raises:
        ChanneldError: it cannot be read, or is not TOML.

    """
    try:
        return tomllib.loads(read_bytes(path, MAX_POLICY_FILE).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        message = f"{path} is not TOML: {error}"
        raise UnreadableFileError(message) from None


def _draw_policies(rows: list[dict[str, Any]]) -> None:
    for one in rows:
        _draw_policy(one)
    if not rows:
        facts("", {"policy": "none is set: every trade waits for a person"})


def _draw_policy(policy: dict[str, Any]) -> None:
    words = policy.get("words", [])
    facts(f"policy for {policy.get('peer')}", {str(n): line for n, line in enumerate(words, 1)})


def transfer(
    channel: ChannelArgument,
    amount: Annotated[str, typer.Argument(help="How much, in the collateral.")],
    memo: Annotated[str | None, typer.Option(help="What it is for, at most 48 bytes.")] = None,
    *,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Pay the peer out of your balance in the channel."""
    del json
    parse_decimal(amount)
    check_note(memo, "--memo")
    result = connect(data).call("private/transfer", channel=channel, amount=amount, memo=memo)
    OUT.emit(result, lambda: facts("paid", {"amount": amount, **result}))


def mark(channel: ChannelArgument, *, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """Mark the channel's positions to the oracle's last print now."""
    del json
    try:
        result = connect(data).call("private/mark", channel=channel)
    except RemoteError as error:
        # the daemon marks by itself too, and may just have done so
        if "as_of" not in error.details or error.details["as_of"] != error.details.get("time"):
            raise
        result = {"as_of": error.details["as_of"], "status": "marked at this tick already"}
    OUT.emit(result, lambda: facts("marked", result))


def _pairs(texts: list[str] | None, name: str, what: str) -> list[dict[str, str]] | None:
    pairs = []
    for text in texts or []:
        instrument, equals, number = text.partition("=")
        if not equals or not instrument:
            message = f"{text!r} is no {what}: write NAME=NUMBER, such as ETH-27DEC30-3000-C=0.65"
            raise CommandError(message)
        parse_decimal(number)
        pairs.append({"instrument": instrument, name: number})
    return pairs or None


def vols(
    channel: Annotated[str | None, typer.Argument(help="A channel id, its beginning, or the peer's name.")] = None,
    *,
    vol: Annotated[list[str] | None, typer.Option(help="INSTRUMENT=0.65; repeat it.")] = None,
    carry: Annotated[list[str] | None, typer.Option(help="INSTRUMENT=0.05; repeat it.")] = None,
    file: Annotated[Path | None, typer.Option(help="A whole surface as JSON (docs/marks.md), for one channel.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Show own and agreed vols, and the bands.")] = False,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Set or show this desk's own volatilities and carries, used for its marks."""
    del json
    if file is not None or show:
        if channel is None:
            message = "a surface belongs to one channel"
            raise CommandError(message, advice="Name the channel: channeld vols PEER --file surface.json.")
        client = connect(data)
        if file is not None:
            told = client.call("private/surface_set", channel=channel, surface=read_json(file))
        else:
            told = client.call("private/surface", channel=channel)
        OUT.emit(told, lambda: draw_surface(told["positions"]))
        return
    result = connect(data).call(
        "private/vols_set",
        channel=channel,
        vols=_pairs(vol, "vol", "volatility"),
        carries=_pairs(carry, "carry", "carry"),
    )
    OUT.emit(result, lambda: facts("vols", result if isinstance(result, dict) else {"set": result}))


def draw_surface(rows: list[dict[str, Any]]) -> None:
    """Print own and agreed vols and carries, and the band within which the follower signs."""
    table(
        "Vols",
        ("!instrument", ">agreed vol", ">own vol", ">band from", ">to", ">agreed carry", ">own carry"),
        (
            (
                one["instrument"],
                one["vol"],
                one["own_vol"],
                *(one["vol_band"] or (None, None)),
                one["carry"],
                one["own_carry"],
            )
            for one in rows
        ),
    )


def positions(
    channel: Annotated[str | None, typer.Argument(help="A channel id, its beginning, or the peer's name.")] = None,
    *,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """List the open positions, as this desk holds them."""
    del json
    result = connect(data).call("private/positions", channel=channel)
    OUT.emit(result, lambda: draw_positions(result))


def draw_positions(held: list[dict[str, Any]]) -> None:
    """Print positions: size, mark, value and profit since the mark."""
    table(
        "Positions",
        ("!instrument", ">size", ">mark", ">value", ">profit", ">vol", ">carry", "!expires (UTC)"),
        (
            (
                one.get("instrument"),
                people(one.get("size")),
                people(one.get("mark"), 2),
                people(one.get("value_now"), 2),
                people(one.get("profit_now"), 2),
                one.get("vol"),
                one.get("carry"),
                clock(one.get("expiry_ms"))[:16],
            )
            for one in held
        ),
    )


def margin(
    what: Annotated[str, typer.Argument(help="A channel (id, beginning, or peer's name), or FILE.json.")],
    *,
    price: Annotated[list[str] | None, typer.Option(help="Instead of the oracle's: ETH=3000; repeat it.")] = None,
    scenarios: Annotated[bool, typer.Option(help="Print every scenario too.")] = False,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Show equity, initial and maintenance margin of both parties; of a channel, or of a file."""
    del json
    from channeld.cli import render  # noqa: PLC0415 - only this command

    path = Path(what)
    if path.suffix == ".json" or path.is_file():
        from channeld.cli import pure  # noqa: PLC0415 - only this command

        report = pure.margin_of_file(path)
        OUT.emit(report, lambda: render.margin(report, scenarios=True))
        return
    prices: dict[str, str] = {}
    for text in price or []:
        feed, equals, number = text.partition("=")
        if not equals or not feed:
            message = f"{text!r} is no price: write FEED=NUMBER, such as ETH=3000"
            raise CommandError(message)
        parse_decimal(number)
        prices[feed] = number
    result = connect(data).call("private/margin", channel=what, prices=prices or None)
    OUT.emit(result, lambda: render.margin(result, scenarios=scenarios))


def events(
    *,
    since: Annotated[int, typer.Option(help="From this sequence number on.")] = 0,
    channel: Annotated[str | None, typer.Option(help="Of this channel only.")] = None,
    follow: Annotated[bool, typer.Option(help="Keep waiting for more.")] = False,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """List what happened: trades, marks, settlements, alerts."""
    del json
    client = connect(data)
    told = client.call("private/events", since=since, channel=channel)
    while True:
        OUT.emit(told, lambda told=told: _draw_events(told.get("events", [])))  # type: ignore[misc]
        if not follow:
            return
        told = client.call("private/events", since=told["next"], channel=channel, wait_s=20, timeout=60)


def _draw_events(happened: list[dict[str, Any]]) -> None:
    for one in happened:
        rest = {k: v for k, v in one.items() if k not in ("seq", "time_ms", "kind", "channel")}
        figures = " ".join(f"{k}={v}" for k, v in rest.items() if not isinstance(v, list | dict))
        typer.echo(f"{one.get('seq')}  {clock(one.get('time_ms'))}  {one.get('kind')}  {figures}")


def stop(*, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """Stop the desk's daemon; it takes up again where it was."""
    del json
    result = connect(data).call("private/shutdown")
    OUT.emit(result, lambda: typer.echo("stopping"))


COMMANDS = (status, policy, transfer, mark, vols, positions, margin, events, stop)
