"""`channeld bench`: how fast the engine is on this machine, with the machine's own limit measured in the same run.

Rules: figures, no tests. Databases are made in a directory of their own and removed; give one on the disk of interest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from channeld.cli.output import OUT, JsonOption, note

app = typer.Typer(no_args_is_help=True, help="Measure the engine on this machine.")

DirectoryOption = Annotated[
    Path | None, typer.Option("--directory", help="Put the databases there, on the disk that is to be measured.")
]
StoreOption = Annotated[
    str, typer.Option("--store", help="A PostgreSQL server, postgresql://USER@HOST:PORT/DATABASE, instead of files.")
]
ProfileOption = Annotated[str, typer.Option("--profile", help="Write a cProfile of each process to files so named.")]


def _print(found: dict[str, Any]) -> None:
    def draw() -> None:
        for key, value in found.items():
            typer.echo(f"{key:>18}  {value}")

    OUT.emit(found, draw)


@app.command()
def updates(
    *,
    count: Annotated[int, typer.Option(min=1, help="States signed pipelined.")] = 20_000,
    singles: Annotated[int, typer.Option(min=1, help="States signed one at a time, for the latency.")] = 1_000,
    directory: DirectoryOption = None,
    store: StoreOption = "",
    profile: ProfileOption = "",
    json: JsonOption = False,
) -> None:
    """Signed states per second: two processes, one TRANSFER per state."""
    del json
    from channeld.daemon.bench import UPDATES, bench  # noqa: PLC0415 - heavy

    note(f"signing {count} states ...")
    _print(bench(UPDATES, count, singles, directory, profile, store))


@app.command()
def trades(
    *,
    count: Annotated[int, typer.Option(min=1, help="Trades, 128 in a state.")] = 128_000,
    directory: DirectoryOption = None,
    store: StoreOption = "",
    profile: ProfileOption = "",
    json: JsonOption = False,
) -> None:
    """Operations per second: many TRADEs per state, each validated, margin checked per batch, journaled by both."""
    del json
    from channeld.daemon.bench import TRADES, bench  # noqa: PLC0415 - heavy

    note(f"trading {count} times ...")
    _print(bench(TRADES, count, 0, directory, profile, store))


@app.command()
def channels(
    *,
    channels: Annotated[int, typer.Option(min=1, help="Channels open in one daemon.")] = 1_000,
    count: Annotated[int, typer.Option(min=1, help="States signed in one of them.")] = 10_000,
    directory: DirectoryOption = None,
    store: StoreOption = "",
    json: JsonOption = False,
) -> None:
    """One channel among many: its speed beside its speed alone, and the daemon's memory with all of them open."""
    del json
    from channeld.daemon.bench import bench_channels  # noqa: PLC0415 - heavy

    note(f"opening {channels} channels, signing {count} states ...")
    _print(bench_channels(channels, count, directory, store))


@app.command()
def risk(
    *,
    count: Annotated[int, typer.Option(min=1, help="Trades in instruments that the book holds.")] = 5_000,
    json: JsonOption = False,
) -> None:
    """Margin checks of trades, a book at a new print, and risk grids beside what others take for the same."""
    del json
    from channeld.daemon.risk_bench import bench_risk  # noqa: PLC0415 - heavy

    note(f"checking {count} trades ...")
    _print(bench_risk(count))


@app.command()
def book(
    *,
    count: Annotated[int, typer.Option(min=1, help="Quote updates applied.")] = 200_000,
    orders: Annotated[int, typer.Option(min=1, help="Orders placed, swept and filled.")] = 10_000,
    json: JsonOption = False,
) -> None:
    """Quote updates per second applied to the aggregated book, and order matches per second."""
    del json
    from channeld.daemon.book_bench import bench_book  # noqa: PLC0415 - heavy

    note(f"applying {count} quotes ...")
    _print(bench_book(count, orders))


@app.command("rfq")
def quotes(
    *,
    count: Annotated[int, typer.Option(min=1, help="Requests, one after the other.")] = 500,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """RFQ to two makers, quotes, acceptance, co-signed and durable on both sides: milliseconds."""
    del json
    from channeld.daemon.rfq_bench import bench_rfq  # noqa: PLC0415 - heavy

    note(f"asking {count} times ...")
    _print(bench_rfq(count, directory))
