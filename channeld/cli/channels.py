"""`channeld channel`: the life of a channel, from its terms to its close; `channeld dispute` has a place of its own.

Rules: what takes the chain some time is waited for, up to --wait seconds (0: not at all); waiting changes nothing, and
a command that gave up waiting says so. Amounts are decimal strings in the collateral.
"""

from __future__ import annotations

import time
from pathlib import Path  # noqa: TC003 - typer evaluates annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from channeld.cli.client import DEFAULT_DATA, DataOption, DeskClient, connect
from channeld.cli.errors import CommandError
from channeld.cli.output import OUT, JsonOption, facts, note, people, say, table
from channeld.cli.trading import clock, legs_text
from channeld.core.wad import parse_decimal

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(no_args_is_help=True, help="Open, fund, inspect and close channels.")

ChannelArgument = Annotated[str, typer.Argument(help="A channel id, its beginning, or the peer's name.")]
WaitOption = Annotated[float, typer.Option(help="Seconds to wait until it is done; 0 does not wait.")]


def wait_until(client: DeskClient, seconds: float, done: Callable[[], bool]) -> bool:
    """Wait for a condition that events announce; whether it came true within seconds."""
    end = time.monotonic() + seconds
    since = int(client.call("private/events")["next"]) if seconds > 0 else 0
    while not done():
        left = end - time.monotonic()
        if left <= 0:
            return False
        told = client.call("private/events", since=since, wait_s=1, timeout=30)
        since = int(told.get("next", since))
    return True


def draw_channel(channel: dict[str, Any]) -> None:
    """Print one channel: accounts, positions, and a dispute where there is one."""
    names = (
        ("channel", "channel"),
        ("peer", "peer"),
        ("side", "side"),
        ("status", "status"),
        ("version", "version"),
        ("balance", "balance"),
        ("peer_balance", "peer's balance"),
        ("free_equity", "free equity"),
        ("sequencer", "sequencer"),
    )
    shown = {label: channel[name] for name, label in names if name in channel}
    if channel.get("safe_offline_until_ms"):
        by = "a tower refutes" if channel.get("tower") else "no tower is current"
        shown["safe offline until"] = f"{clock(channel['safe_offline_until_ms'])} UTC ({by})"
    for label in ("balance", "peer's balance", "free equity"):
        shown[label] = people(shown.get(label))
    body = channel.get("body") or {}
    if body.get("asOf"):
        shown["positions"] = len(body.get("positions", []))
        shown["marked at"] = f"{clock(int(body['asOf']) * 1000)} UTC"
    facts("", shown)
    dispute = channel.get("dispute")
    if dispute:
        facts("Dispute", dispute if isinstance(dispute, dict) else {"state": dispute})


@app.command("template")
def template_(
    file: Annotated[Path, typer.Argument(help="Where to write the terms file.", dir_okay=False)],
    *,
    template: Annotated[str, typer.Option(help="tight, standard or conservative.")] = "standard",
    a: Annotated[str, typer.Option("--a", help="Desk a: SIGNER or SIGNER/PAYOUT addresses.")],
    b: Annotated[str, typer.Option("--b", help="Desk b: SIGNER or SIGNER/PAYOUT addresses.")],
    collateral: Annotated[str, typer.Option(help="The collateral token's address.")],
    decimals: Annotated[int, typer.Option(help="The token's decimals.")] = 6,
    oracle_signer: Annotated[
        list[str] | None, typer.Option(help="An oracle signer's address; repeat it. Default: those of --oracle.")
    ] = None,
    oracle: Annotated[
        str | None, typer.Option(envvar="CHANNELD_ORACLE", help="An oracle service, asked for its signers.")
    ] = None,
    quorum: Annotated[int | None, typer.Option(help="Oracle signatures needed; default a majority.")] = None,
    market: Annotated[list[str] | None, typer.Option(help="A feed; repeat it. Default ETH and BTC.")] = None,
    sequencer: Annotated[str, typer.Option(help="Which desk orders: a or b.")] = "a",
    daily_vol: Annotated[
        list[str] | None,
        typer.Option(help="FEED=0.05: derive its scan range from this daily volatility; repeat it. Any feed."),
    ] = None,
    cure_period: Annotated[
        int | None, typer.Option(help="Seconds, in place of the template's; scan ranges follow.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write a terms file from a template: parameters of docs/protocol.md, section 6."""
    del json
    from channeld.cli import terms_file  # noqa: PLC0415 - only this command

    signers = oracle_signer or []
    if not signers and oracle is not None:
        from channeld.cli.services import oracle_request  # noqa: PLC0415 - only this command

        signers = oracle_request(oracle, "/signers")["signers"]
    if not signers:
        message = "terms need the oracle's signers"
        raise CommandError(message, advice="Give --oracle-signer for each, or --oracle to ask a service for them.")
    text = terms_file.write(
        template=template,
        a=a,
        b=b,
        collateral=collateral,
        decimals=decimals,
        oracle_signers=signers,
        quorum=quorum,
        markets=market or ["ETH", "BTC"],
        sequencer=sequencer,
        daily_vols=dict(one.partition("=")[::2] for one in daily_vol or []),
        cure_period=cure_period,
    )
    terms_file.save(file, text)
    OUT.emit({"file": str(file), "template": template}, lambda: typer.echo(f"terms written to {file}"))


@app.command("open")
def open_(
    peer: Annotated[str, typer.Argument(help="The peer's name.")],
    terms: Annotated[Path, typer.Argument(help="The terms file (TOML or JSON).", dir_okay=False)],
    *,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Propose a channel on the terms of a file; the peer accepts its hash."""
    del json
    from channeld.cli import terms_file  # noqa: PLC0415 - only this command

    content = terms_file.load(terms)
    result = connect(data).call("private/channel_propose", peer=peer, terms=content)

    def draw() -> None:
        summary = dict(_flat(result.get("summary")))
        words = summary.pop("in_words", [])
        facts("proposed", {"hash": result.get("hash"), **summary})
        for sentence in words:
            say(f"* {sentence}")
        say(f"the peer accepts it with: channeld channel accept {result.get('hash')}")

    OUT.emit(result, draw)


def _flat(summary: object) -> dict[str, Any]:
    return summary if isinstance(summary, dict) else {"summary": summary}


@app.command()
def proposals(*, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """List channels that were proposed, by either desk."""
    del json
    result = connect(data).call("private/channel_proposals")
    OUT.emit(
        result,
        lambda: table(
            "Proposals",
            ("hash", "peer", "direction", "status"),
            ((one.get("hash"), one.get("peer"), one.get("direction"), one.get("status")) for one in result),
        ),
    )


@app.command()
def accept(
    proposal: Annotated[str, typer.Argument(help="The hash of the proposal.")],
    *,
    wait: WaitOption = 60.0,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Accept a proposed channel by its hash, and wait until it is open on chain."""
    del json
    client = connect(data)

    def proposed() -> bool:
        return any(str(one["hash"]) == proposal.lower() for one in client.call("private/channel_proposals"))

    wait_until(client, min(wait, 5.0), proposed)
    result = client.call("private/channel_accept", hash=proposal)
    channel = str(result.get("channel"))
    opened = wait_until(client, wait, lambda: _status(client, channel) == "open") if wait > 0 else False
    result["status"] = "open" if opened else "opening"
    OUT.emit(result, lambda: facts("accepted", result))


def _status(client: DeskClient, channel: str) -> str:
    known = client.call("private/channels")
    return next((str(one.get("status")) for one in known if str(one.get("channel")) == channel), "")


@app.command()
def deposit(
    channel: ChannelArgument,
    amount: Annotated[str, typer.Argument(help="How much, in the collateral.")],
    *,
    wait: WaitOption = 60.0,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Deposit collateral on chain, and wait until the channel's balance counts it."""
    del json
    parse_decimal(amount)
    client = connect(data, timeout=wait + 120)
    before = client.call("private/channel", channel=channel)
    identifier = str(before.get("channel", channel))
    target = _deposited(before) + parse_decimal(amount, int(before["terms"]["decimals"]))
    result = client.call("private/deposit", channel=channel, amount=amount)

    def counted() -> bool:
        return _deposited(client.call("private/channel", channel=identifier)) >= target

    result["counted"] = wait_until(client, wait, counted) if wait > 0 else False
    result["balance"] = client.call("private/channel", channel=identifier).get("balance")
    if wait > 0 and not result["counted"]:
        note("the deposit is on its way; the channel counts it once it is final on chain")
    OUT.emit(result, lambda: facts("deposited", result))


def _deposited(channel: dict[str, Any]) -> int:
    """What the channel's state counts of this desk's deposits, in units."""
    return int(channel["body"][channel["side"]]["deposited"])


@app.command()
def withdraw(
    channel: ChannelArgument,
    amount: Annotated[str, typer.Argument(help="How much, in the collateral.")],
    *,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Withdraw collateral to the payout address."""
    del json
    parse_decimal(amount)
    result = connect(data, timeout=180).call("private/withdraw", channel=channel, amount=amount)
    OUT.emit(result, lambda: facts("withdrawn", result))


@app.command()
def close(
    channel: ChannelArgument, *, wait: WaitOption = 60.0, data: DataOption = DEFAULT_DATA, json: JsonOption = False
) -> None:
    """Close a channel without positions by agreement; both are paid at once."""
    del json
    client = connect(data, timeout=wait + 120)
    identifier = str(client.call("private/channel", channel=channel).get("channel", channel))
    result = client.call("private/close", channel=channel)
    if wait > 0:
        closed = wait_until(client, wait, lambda: _status(client, identifier) in ("closed", ""))
        result["status"] = "closed" if closed else _status(client, identifier)
    OUT.emit(result, lambda: facts("close", result))


@app.command("list")
def list_(*, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """List the channels of this desk."""
    del json
    result = connect(data).call("private/channels")
    OUT.emit(result, lambda: draw_channels(result))


def draw_channels(channels: list[dict[str, Any]]) -> None:
    """Print channels, one to a line."""
    table(
        "Channels",
        ("!channel", "peer", "side", "status", ">version", ">balance", ">peer's balance", ">free equity"),
        (
            (
                str(one.get("channel"))[:14],
                one.get("peer"),
                one.get("side"),
                one.get("status"),
                one.get("version"),
                people(one.get("balance"), 2),
                people(one.get("peer_balance"), 2),
                people(one.get("free_equity"), 2),
            )
            for one in channels
        ),
    )


@app.command()
def show(channel: ChannelArgument, *, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """Show one channel: terms, body, chain record and dispute (all of it with --json)."""
    del json
    result = connect(data).call("private/channel", channel=channel)
    OUT.emit(result, lambda: draw_channel(result))


@app.command()
def journal(channel: ChannelArgument, *, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """List every co-signed version: when, what was done, the balances after it."""
    del json
    result = connect(data).call("private/journal", channel=channel)

    def draw() -> None:
        table(
            "Journal",
            (">version", "!time (UTC)", "operations", ">balance a", ">balance b"),
            (
                (
                    one.get("version"),
                    clock(one.get("time_ms")),
                    "; ".join(_operation(op) for op in one.get("operations", [])) or "nothing: ends what was rejected",
                    *_balances(one.get("balances")),
                )
                for one in result
            ),
        )

    OUT.emit(result, draw)


def _operation(operation: object) -> str:
    if not isinstance(operation, dict):
        return str(operation)
    words = [str(operation.get("operation", "")), f"by {operation.get('by', '?')}:"]
    if operation.get("legs"):
        words.append(legs_text(operation["legs"]))
    hidden = ["operation", "by", "origin", "legs", "packages"]
    if operation.get("operation") == "MARK":
        words.append(f"{', '.join(map(str, operation.get('feeds', [])))} at {clock(int(operation['time']) * 1000)}")
        hidden += ["time", "feeds"]
    words += [
        f"{name.replace('_', ' ')} {', '.join(map(str, value)) if isinstance(value, list) else people(value)}"
        for name, value in operation.items()
        if name not in hidden and value not in ("", "0", None)
    ]
    return " ".join(words)


def _balances(value: object) -> tuple[Any, Any]:
    """Balances of a and b, to the cent."""
    return (people(value.get("a"), 2), people(value.get("b"), 2)) if isinstance(value, dict) else (value, "")
