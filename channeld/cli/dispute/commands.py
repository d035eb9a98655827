"""The commands of `channeld dispute`.

Rules: with a bundle file a command needs an RPC URL and nothing else: no daemon, no database, no configuration. With a
channel's name, those that name no bundle talk to the desk's daemon. What sends transactions shows gas and cost
first, asks where somebody can answer, and can be tried with --dry-run or written down with --unsigned.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from channeld.cli.client import DEFAULT_DATA, DataOption, connect
from channeld.cli.dispute.options import BundleArgument, How, OracleOption, PackagesOption, RpcOption, need_rpc, sends
from channeld.cli.errors import CommandError, UnreadableFileError
from channeld.cli.forms import check_address, read_json
from channeld.cli.output import OUT, JsonOption, facts, say, table

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from channeld.core.bundle import Bundle
    from channeld.daemon.emergency.case import Case, Facts, Planned

app = typer.Typer(
    no_args_is_help=True, help="Go to the chain, and follow it there: by the daemon, or by a bundle alone."
)

WhatArgument = Annotated[str, typer.Argument(help="A bundle file; or a channel of the daemon: id, beginning, or peer.")]


def is_bundle(what: str) -> bool:
    """Whether an argument names a bundle file rather than a channel."""
    return what.endswith(".json") or Path(what).is_file()


def load_bundle(path: Path) -> Bundle:
    """The bundle in a file, checked.

    Raises:
        UnreadableFileError: no such file, or no JSON.
        InputError: damaged, or its signatures do not hold.

    """
    from channeld.core.bundle import bundle_from_json  # noqa: PLC0415 - it loads the curve

    return bundle_from_json(read_json(path))


async def _with_case(
    bundle: Bundle,
    rpc: list[str] | None,
    oracle: list[str] | None,
    packages: Path | None,
    work: Callable[[Case], Awaitable[Any]],
) -> Any:  # noqa: ANN401 - of `work`
    from channeld.chain.endpoints import ChainEndpoints  # noqa: PLC0415 - heavy
    from channeld.daemon.emergency.case import Case  # noqa: PLC0415 - heavy
    from channeld.daemon.emergency.packages import CasePackages  # noqa: PLC0415 - heavy

    sources = CasePackages(bundle, packages, oracle or [])
    try:
        async with ChainEndpoints(need_rpc(rpc)) as client:
            case = Case(bundle, client, sources)
            await case.check()
            return await work(case)
    finally:
        await sources.close()


def _act(path: Path, how: How, plan: Callable[[Case, Facts], Awaitable[list[Planned]]]) -> None:
    """Plan transactions by the chain as it stands, show them, and do with them what the options say."""
    from channeld.cli.dispute.acting import act  # noqa: PLC0415 - heavy

    bundle = load_bundle(path)

    async def work(case: Case) -> dict[str, Any]:
        return await act(case, how, await plan(case, await case.facts()))

    result = asyncio.run(_with_case(bundle, how.rpc, how.oracle, how.packages, work))
    OUT.emit(result, lambda: None)


# -- by the daemon, or by a bundle -------------------------------------------------------------------------------------


@app.command("export")
def export(
    channel: Annotated[str, typer.Argument(help="A channel id, its beginning, or the peer's name.")] = "",
    *,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to write it; a folder, or a file.")] = None,
    store: Annotated[
        str | None,
        typer.Option(help="Take it from this database instead (a file, or a PostgreSQL URL), without a daemon."),
    ] = None,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Write a channel's bundle: all that is needed to enforce it on chain without this desk."""
    del json
    from channeld.core.bundle import bundle_from_json, bundle_text  # noqa: PLC0415 - it loads the curve

    if store is not None:
        from channeld.daemon.bundles import bundle_from_database  # noqa: PLC0415 - heavy

        location = store if "://" in store else Path(store)
        bundle = asyncio.run(bundle_from_database(location, channel, int(time.time() * 1000)))
    else:
        client = connect(data)
        if not channel:
            known = [str(one["channel"]) for one in client.call("private/channels")]
            if len(known) != 1:
                message = f"the desk has {len(known)} channels: {', '.join(one[:14] for one in known) or 'none'}"
                raise CommandError(message, advice="Name one of them.")
            channel = known[0]
        bundle = bundle_from_json(client.call("private/bundle", channel=channel))
    name = f"0x{bundle.channel.hex()[:16]}-v{bundle.version}.bundle.json"
    target = Path(name) if out is None else out / name if out.is_dir() else out
    try:
        target.write_text(bundle_text(bundle), encoding="utf-8")
        target.chmod(0o600)
    except OSError as error:
        message = f"{target} cannot be written: {error.strerror}"
        raise UnreadableFileError(message, advice="Name another file with --out.") from None
    shown = {
        "file": str(target),
        "channel": "0x" + bundle.channel.hex(),
        "version": bundle.version,
        "half_signed": [half.state.version for half in bundle.halves],
        "packages": len(bundle.packages),
    }
    OUT.emit(shown, lambda: facts("bundle written", shown))


@app.command("status")
def status(
    what: WhatArgument,
    *,
    rpc: RpcOption = None,
    oracle: OracleOption = None,
    packages: PackagesOption = None,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Show where a dispute stands: who, what, by when in local time, and what to do next."""
    del json
    if not is_bundle(what):
        told = connect(data).call("private/dispute", channel=what)
        OUT.emit(told, lambda: facts("Dispute", told) if told else typer.echo("no dispute"))
        return
    bundle = load_bundle(Path(what))

    async def work(case: Case) -> dict[str, Any]:
        from channeld.chain.contracts import Phase  # noqa: PLC0415 - heavy
        from channeld.cli.dispute.words import status_data  # noqa: PLC0415 - heavy

        found = await case.facts()
        step = await case.next(found) if found.phase is Phase.DISPUTED else None
        shown = status_data(bundle, found, step, await case.payout(found))
        if found.dispute.number:
            from channeld.cli.dispute.history import history  # noqa: PLC0415 - heavy

            shown["history"] = await history(case)
        return shown

    result = asyncio.run(_with_case(bundle, rpc, oracle, packages, work))
    OUT.emit(result, lambda: _draw_status(result, what))


def _draw_status(told: dict[str, Any], what: str) -> None:
    from channeld.cli.dispute.words import local, when  # noqa: PLC0415 - heavy

    now = int(told["chain_time"])
    shown = {
        "channel": told["channel"],
        "we are": told["we_are"],
        "phase": told["phase"],
        "chain's time": f"{local(now)}, block {told['block']}",
        "deposited": told["deposited"],
        "paid": told["paid"],
        "our version": told["bundle_version"],
    }
    if "dispute" in told:
        at = int(told["fix_time"])
        body = "which this bundle holds" if told["body_at_hand"] else "whose body this bundle does NOT hold"
        shown |= {
            "on record": f"version {told['on_record']}, {body}",
            "deadline": when(int(told["deadline"]), now),
            "fix": when(at, now),
            "settles anyway": when(int(told["settles_without_all_fixes_from"]), now),
            "would pay now": told["settlement_now"] or "not known yet",
        }
        for index, call in enumerate(told["calls"]):
            verdict = f"tested: below: {call['below'] or 'nobody'}" if call["tested"] else "not tested yet"
            shown[f"margin call {index}"] = f"by {call['by']}, judged at {when(int(call['time']), now)}, {verdict}"
    facts("", shown)
    for line in told.get("history", []):
        typer.echo(f"  {local(int(line['time']))}  {line['words']}")
    typer.secho(f"next: {told['next']}", bold=True)
    if told["next_command"]:
        typer.echo(f"      channeld dispute {told['next_command']} {what} --rpc URL --keystore FILE")


@app.command("challenge")
@sends
def challenge(
    what: WhatArgument,
    version: Annotated[int | None, typer.Option(help="An old version; by the daemon, on a devnet alone.")] = None,
    *,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
    how: How,
) -> None:
    """Start a dispute on chain with the last co-signed state."""
    del json
    if is_bundle(what):

        async def plan(case: Case, found: Facts) -> list[Planned]:
            return [case.challenge(found)]

        _act(Path(what), how, plan)
        return
    result = connect(data, timeout=180).call("private/challenge", channel=what, version=version)
    OUT.emit(result, lambda: facts("challenged", result))


@app.command("call-margin")
@sends
def call_margin(what: WhatArgument, *, data: DataOption = DEFAULT_DATA, json: JsonOption = False, how: How) -> None:
    """Call margin: with a challenge where no dispute runs; whoever is below at the time it sets pays the penalty."""
    del json
    if not is_bundle(what):
        result = connect(data, timeout=180).call("private/call_margin", channel=what)
        OUT.emit(result, lambda: facts("margin called", result))
        return

    async def plan(case: Case, found: Facts) -> list[Planned]:
        return [case.call_margin(found)]

    _act(Path(what), how, plan)


@app.command("resume")
@sends
def resume(
    what: WhatArgument,
    *,
    dispute: Annotated[int | None, typer.Option(help="With a bundle: the dispute's number.")] = None,
    valid_until: Annotated[int | None, typer.Option(help="With a bundle: Unix seconds that both signed.")] = None,
    signature_a: Annotated[str, typer.Option(help="With a bundle: signature of a, 0x and 130 digits.")] = "",
    signature_b: Annotated[str, typer.Option(help="With a bundle: signature of b.")] = "",
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
    how: How,
) -> None:
    """End a dispute and go on: the daemon signs its part; with a bundle, both signatures must be at hand."""
    del json
    if not is_bundle(what):
        result = connect(data, timeout=180).call("private/resume", channel=what)
        OUT.emit(result, lambda: facts("resume", result))
        return
    if dispute is None or valid_until is None:
        message = "a Resume has a dispute's number and a time"
        raise CommandError(message, advice="Give --dispute, --valid-until, --signature-a and --signature-b.")
    from channeld.cli.dispute.reading import parse_signatures  # noqa: PLC0415 - heavy
    from channeld.core.eip712 import Resume  # noqa: PLC0415 - heavy

    agreed = Resume(load_bundle(Path(what)).channel, dispute, valid_until)
    sigs = parse_signatures(signature_a, signature_b)

    async def plan(case: Case, found: Facts) -> list[Planned]:
        return [case.resume(found, agreed, sigs)]

    _act(Path(what), how, plan)


# -- by a bundle alone -------------------------------------------------------------------------------------------------


@app.command("inspect")
def inspect_(
    bundle_file: BundleArgument,
    *,
    price: Annotated[list[str] | None, typer.Option(help="A price to value at: ETH=3000; repeat it.")] = None,
    rpc: RpcOption = None,
    oracle: OracleOption = None,
    packages: PackagesOption = None,
    json: JsonOption = False,
) -> None:
    """Say what a bundle entitles you to today, in words and numbers; at given prices, or at the oracle's newest."""
    del json
    from channeld.cli.dispute.reading import inspect_bundle, parse_prices  # noqa: PLC0415 - heavy

    bundle = load_bundle(bundle_file)
    given = parse_prices(price or [])
    if rpc:

        async def work(case: Case) -> dict[str, Any]:
            return await inspect_bundle(bundle, given, case, await case.facts())

        result = asyncio.run(_with_case(bundle, rpc, oracle, packages, work))
    else:
        result = asyncio.run(inspect_bundle(bundle, given, None, None, oracle or [], packages))
    OUT.emit(result, lambda: _draw_inspect(result))


def _draw_inspect(told: dict[str, Any]) -> None:
    names = (
        "channel",
        "we_are",
        "signer",
        "payout",
        "counterparty",
        "version",
        "half_signed",
        "balance",
        "peer_balance",
    )
    facts("Bundle", {name.replace("_", " "): told[name] for name in names})
    table(
        "Positions",
        ("!instrument", ">size", ">mark", ">vol", ">carry"),
        ((p["instrument"], p["size"], p["mark"], p["vol"], p["carry"]) for p in told["positions"]),
    )
    for sentence in told["words"]:
        typer.echo(f"* {sentence}")


@app.command("refute")
@sends
def refute(bundle_file: BundleArgument, *, json: JsonOption = False, how: How) -> None:
    """Replace an older version on record by the bundle's, before the deadline."""
    del json

    async def plan(case: Case, found: Facts) -> list[Planned]:
        return [case.refute(found)]

    _act(bundle_file, how, plan)


@app.command("prove-fix")
@sends
def prove_fix(
    bundle_file: BundleArgument,
    feed: Annotated[str | None, typer.Argument(help="A feed, such as ETH; default: every fix that is needed.")] = None,
    at: Annotated[int | None, typer.Argument(help="The fix's time, Unix seconds.")] = None,
    *,
    json: JsonOption = False,
    how: How,
) -> None:
    """Prove the oracle's fixes on chain, those that the dispute needs or one that is named."""
    del json
    from channeld.core.instruments import parse_feed  # noqa: PLC0415 - heavy

    if (feed is None) != (at is None):
        message = "a fix has both a feed and a time"
        raise CommandError(message)

    async def plan(case: Case, found: Facts) -> list[Planned]:
        if feed is not None and at is not None:
            return [await case.prove(parse_feed(feed), at)]
        return await case.prove_needed(found)

    _act(bundle_file, how, plan)


@app.command("test")
@sends
def judge(
    bundle_file: BundleArgument,
    call: Annotated[int, typer.Argument(help="The margin call's number, from 0.")] = 0,
    *,
    json: JsonOption = False,
    how: How,
) -> None:
    """Have a margin call judged by the fixes that are proven, from the deadline on."""
    del json

    async def plan(case: Case, found: Facts) -> list[Planned]:
        return [case.test(found, call)]

    _act(bundle_file, how, plan)


@app.command("settle")
@sends
def settle(bundle_file: BundleArgument, *, json: JsonOption = False, how: How) -> None:
    """Close the book out at the fixes and have both paid."""
    del json

    async def plan(case: Case, found: Facts) -> list[Planned]:
        return [case.settle(found)]

    _act(bundle_file, how, plan)


@app.command("settle-last")
@sends
def settle_last(bundle_file: BundleArgument, *, json: JsonOption = False, how: How) -> None:
    """Show the bundle's body where nobody shows the one on record; after the window, be paid by it."""
    del json

    async def plan(case: Case, found: Facts) -> list[Planned]:
        return [case.settle_last(found)]

    _act(bundle_file, how, plan)


@app.command("release")
@sends
def release(bundle_file: BundleArgument, *, json: JsonOption = False, how: How) -> None:
    """Have the deposits given back, where nobody has shown any body for 180 days after the fix time."""
    del json

    async def plan(case: Case, found: Facts) -> list[Planned]:
        return [case.release(found)]

    _act(bundle_file, how, plan)


@app.command("claim")
@sends
def claim(
    bundle_file: BundleArgument,
    to: Annotated[str, typer.Argument(help="Where to send what was held; default: the sender itself.")] = "",
    *,
    json: JsonOption = False,
    how: How,
) -> None:
    """Take what a settlement could not push to the payout address; only that address can."""
    del json
    if to:
        check_address(to, "to")

    async def plan(case: Case, _: Facts) -> list[Planned]:
        from channeld.daemon.emergency.claims import plan_claim  # noqa: PLC0415 - heavy

        return [await plan_claim(case, how.address(case.bundle), bytes.fromhex(to[2:]))]

    _act(bundle_file, how, plan)


@app.command("watch")
@sends
def watch(
    bundle_file: BundleArgument,
    *,
    interval: Annotated[
        float, typer.Option(min=0.05, envvar="CHANNELD_WATCH_SECONDS", help="Seconds between two looks at the chain.")
    ] = 12.0,
    until_paid: Annotated[bool, typer.Option(help="End once the channel is paid.")] = True,
    patience: Annotated[float, typer.Option(help="Give up after so many seconds; 0: never.")] = 0.0,
    json: JsonOption = False,
    how: How,
) -> None:
    """Do all that is due as deadlines pass: refute, prove fixes, test, settle; until the channel is paid."""
    del json
    from channeld.cli.dispute.acting import follow  # noqa: PLC0415 - heavy

    bundle = load_bundle(bundle_file)

    async def work(case: Case) -> dict[str, Any]:
        return await follow(case, how, interval, patience, until_paid=until_paid)

    result = asyncio.run(_with_case(bundle, how.rpc, how.oracle, how.packages, work))
    OUT.emit(
        result, lambda: facts("the channel has ended" if result["phase"] == "ended" else "gave up", result["paid"])
    )


@app.command("fetch-fix")
def fetch_fix(
    bundle_file: BundleArgument,
    feed: Annotated[str, typer.Argument(help="A feed, such as ETH.")],
    at: Annotated[int, typer.Argument(help="The fix's time, Unix seconds.")],
    *,
    oracle: OracleOption = None,
    packages: PackagesOption = None,
    json: JsonOption = False,
) -> None:
    """Fetch the oracle packages of a fix, and keep them in the folder of --packages: signers forget."""
    del json
    from channeld.cli.dispute.reading import fetch  # noqa: PLC0415 - heavy

    result = asyncio.run(fetch(load_bundle(bundle_file), feed, at, oracle or [], packages))

    def draw() -> None:
        facts("fix", {name: value for name, value in result.items() if name != "packages"})
        if not result["kept_in"]:
            say("nothing was kept: give --packages FOLDER")

    OUT.emit(result, draw)
