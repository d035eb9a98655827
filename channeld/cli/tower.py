"""`channeld tower`: run a watchtower for others; see, from a desk, whether its own towers are alive and current.

Rules: a tower has a data directory of its own: keystore.json (it pays for gas and signs receipts), deployment.json,
owners.txt (who is served), tower.db. Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from channeld.cli.client import DEFAULT_DATA, DataOption, connect
from channeld.cli.errors import EXIT_NO, CommandError, UnreadableFileError
from channeld.cli.output import OUT, JsonOption, facts, note, table
from channeld.cli.setup import DEPLOYMENT, KEYSTORE, PasswordFileOption

if TYPE_CHECKING:
    from channeld.tower.guard import Fixes
    from channeld.tower.service import Settings

app = typer.Typer(no_args_is_help=True, help="Watchtowers: run one for others, or look at your desk's own.")
TowerData = Annotated[
    Path,
    typer.Option("--data", "-d", envvar="CHANNELD_TOWER_DATA", help="The tower's data directory.", file_okay=False),
]
DEFAULT_TOWER = Path("~/.channeld-tower")
OWNERS = "owners.txt"
OWNERS_TEXT = """\
# Who is served: the address of a desk's signing key, and how many channels it may have here (100 where none is given).
# Read at the start.
"""


@app.command()
def init(
    *,
    deployment: Annotated[Path, typer.Option(help="deployment.json of the contracts whose channels are watched.")],
    owner: Annotated[list[str] | None, typer.Option(help="An owner's address, or ADDRESS=CHANNELS; repeat it.")] = None,
    data: TowerData = DEFAULT_TOWER,
    password_file: PasswordFileOption = None,
    json: JsonOption = False,
) -> None:
    """Create a tower: its directory, its key, and the list of its owners."""
    del json
    from channeld.chain.deployment import read_deployment  # noqa: PLC0415 - heavy
    from channeld.chain.keystore import create_keystore  # noqa: PLC0415 - heavy
    from channeld.cli.passwords import password  # noqa: PLC0415 - only here
    from channeld.core.crypto import checksum_address  # noqa: PLC0415 - it loads the curve
    from channeld.core.files import address_from_text  # noqa: PLC0415 - the same

    folder = data.expanduser()
    lines = []
    for text in owner or []:
        name, _, number = text.partition("=")
        if number and not (number.isascii() and number.isdigit()):
            message = f"{text!r} is no owner: write ADDRESS or ADDRESS=CHANNELS"
            raise CommandError(message)
        lines.append(f"{checksum_address(address_from_text(name))} {number}".rstrip() + "\n")
    read_deployment(deployment)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        message = f"{folder} cannot be created: {error.strerror}"
        raise UnreadableFileError(message, advice="Check the path and its permissions.") from None
    address = checksum_address(create_keystore(folder / KEYSTORE, password(password_file, confirm=True)))
    shutil.copyfile(deployment, folder / DEPLOYMENT)
    (folder / OWNERS).write_text(OWNERS_TEXT + "".join(lines), encoding="utf-8")
    told = {"data": str(folder), "address": address, "owners": len(lines)}
    OUT.emit(told, lambda: facts("tower created", told))
    note("fund its address: it pays for the gas of refutations")


@app.command()
def run(
    *,
    data: TowerData = DEFAULT_TOWER,
    chain: Annotated[str, typer.Option(envvar="CHANNELD_CHAIN", help="The chain's JSON-RPC URL.")] = (
        "http://127.0.0.1:8545"
    ),
    listen: Annotated[str, typer.Option(help="host:port; 0.0.0.0:9900 for the world.")] = "127.0.0.1:9900",
    anyone: Annotated[int, typer.Option(help="How many channels whoever is not listed may have.", min=0)] = 0,
    capacity: Annotated[int, typer.Option(help="The most channels in all.", min=1)] = 100_000,
    rate: Annotated[float, typer.Option(help="Requests a second, from one sender and of one owner.", min=0.1)] = 20.0,
    confirmations: Annotated[int, typer.Option(help="Blocks before the end of a channel is final.", min=0)] = 12,
    within_blocks: Annotated[int, typer.Option(help="Report refutations that take more blocks.", min=1)] = 10,
    poll_interval: Annotated[float, typer.Option(help="Seconds between two looks at the chain.", min=0.01)] = 2.0,
    max_fee_gwei: Annotated[float, typer.Option(help="Never pay more per unit of gas.", min=0.000001)] = 500.0,
    oracle: Annotated[
        list[str] | None, typer.Option(help="Prove fixes too, with packages from this oracle service; repeat it.")
    ] = None,
    devnet: Annotated[bool, typer.Option("--devnet", help="The chain is a devnet: its clock.")] = False,
    background: Annotated[bool, typer.Option("--background", help="A process of its own; return when ready.")] = False,
    password_file: PasswordFileOption = None,
    json: JsonOption = False,
) -> None:
    """Watch others' channels: refute old states by itself, and prove fixes where packages are at hand."""
    del json
    from channeld.daemon.config import parse_host_port  # noqa: PLC0415 - heavy

    folder = data.expanduser()
    try:
        address = parse_host_port(listen)
    except ValueError as error:
        raise CommandError(str(error)) from None
    if background:
        from channeld.cli import processes, services  # noqa: PLC0415 - only here

        words = ["tower", "run", "--data", str(folder), "--chain", chain, "--listen", listen, "--anyone", str(anyone)]
        words += ["--capacity", str(capacity), "--rate", str(rate), "--confirmations", str(confirmations)]
        words += ["--within-blocks", str(within_blocks), "--poll-interval", str(poll_interval)]
        words += ["--max-fee-gwei", str(max_fee_gwei), *(["--devnet"] if devnet else [])]
        words += [word for url in oracle or [] for word in ("--oracle", url)]
        words += ["--password-file", str(password_file)] if password_file is not None else []
        services.background("tower", words, folder, processes.answers(f"http://{listen}/healthz"))
        return
    from channeld.chain.transactions import GWEI, Fees  # noqa: PLC0415 - heavy
    from channeld.tower.door import Limits  # noqa: PLC0415 - heavy
    from channeld.tower.service import Settings  # noqa: PLC0415 - heavy

    settings = Settings(
        chain,
        folder,
        host=address.host,
        port=address.port,
        confirmations=confirmations,
        within_blocks=within_blocks,
        poll_s=poll_interval,
        blocks_keep_time=not devnet,
        limits=Limits(rate, 5 * rate, rate, 5 * rate),
        fees=Fees(cap=int(max_fee_gwei * GWEI)),
        poor_wei=0 if devnet else 10**16,
    )
    asyncio.run(_run(settings, folder, oracle or [], password_file, anyone=anyone, capacity=capacity, devnet=devnet))


async def _run(
    settings: Settings,
    folder: Path,
    oracle: list[str],
    password_file: Path | None,
    *,
    anyone: int,
    capacity: int,
    devnet: bool,
) -> None:
    from channeld.chain.clock import DevnetClock, SystemClock  # noqa: PLC0415 - heavy
    from channeld.chain.deployment import read_deployment  # noqa: PLC0415 - heavy
    from channeld.chain.keystore import load_keystore  # noqa: PLC0415 - heavy
    from channeld.cli.passwords import password  # noqa: PLC0415 - only here
    from channeld.cli.services import until_told  # noqa: PLC0415 - only here
    from channeld.core.crypto import checksum_address  # noqa: PLC0415 - it loads the curve
    from channeld.daemon import logs  # noqa: PLC0415 - heavy
    from channeld.tower.ledger import read_owners  # noqa: PLC0415 - heavy
    from channeld.tower.service import Tower  # noqa: PLC0415 - heavy

    logs.setup("info", "console", fields={"tower": folder.name})
    deployment = read_deployment(folder / DEPLOYMENT)
    owners = read_owners(folder / OWNERS, anyone=anyone, capacity=capacity)
    key = load_keystore(folder / KEYSTORE, password(password_file))
    async with contextlib.AsyncExitStack() as stack:
        clock = await stack.enter_async_context(DevnetClock(settings.url)) if devnet else SystemClock()
        fixes = _fixes(oracle, stack) if oracle else None
        tower = Tower(settings, key, deployment, owners, clock, fixes=fixes)
        await until_told(tower, lambda: f"tower ready: {checksum_address(tower.address)}@{tower.url}")


def _fixes(urls: list[str], stack: Any) -> Fixes:  # noqa: ANN401 - an AsyncExitStack
    """Where packages of fixes come from: oracle services, one client for each oracle of the terms."""
    from channeld.core.eip712 import oracle_hash  # noqa: PLC0415 - heavy
    from channeld.oracle.client import HttpPackages, fix_packages  # noqa: PLC0415 - heavy

    known: dict[bytes, HttpPackages] = {}

    async def fixes(oracle: Any, feed: bytes, t: int) -> tuple[bytes, ...]:  # noqa: ANN401 - an Oracle, whose module is heavy
        key = oracle_hash(oracle)
        if key not in known:
            known[key] = HttpPackages(oracle, urls)
            stack.push_async_callback(known[key].close)
        return await fix_packages(known[key], oracle, feed, t)

    return fixes


@app.command()
def status(*, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """Show the desk's towers as it last heard of them."""
    del json
    told = connect(data).call("private/towers")
    OUT.emit(told, lambda: _draw(told))


@app.command()
def check(*, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """Have every tower of the desk prove now that it holds the newest states; exit 1 where one does not."""
    del json
    told = connect(data, timeout=120).call("private/towers", check=True)
    OUT.emit(told, lambda: _draw(told))
    if not told or any(one["trouble"] or not all(c["current"] for c in one["channels"]) for one in told):
        raise typer.Exit(EXIT_NO)


def _draw(towers: list[dict[str, Any]]) -> None:
    if not towers:
        typer.echo("no tower is configured: set tower.towers")
    for one in towers:
        facts(
            one["tower"],
            {
                "trouble": one["trouble"] or "none",
                "heard of": "never" if one["age_s"] is None else f"{one['age_s']:.0f} s ago",
                "blocks behind ours": one["blocks_behind"],
            },
        )
        table(
            "",
            ("!channel", ">version", "current", "refused"),
            ((c["channel"][:14], c["version"], "yes" if c["current"] else "no", c["refused"]) for c in one["channels"]),
        )
