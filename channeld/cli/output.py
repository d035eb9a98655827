"""What the commands print: tables for people, JSON for programs, one clear message for every error.

Rules: results go to standard output, everything else to standard error. With `--json` both are JSON, one document
each. Amounts are decimal strings wherever they appear. Rich is imported only when a table is drawn. What is drawn may
hold a stranger's words (a reference, a reason), so no control character of a value reaches the terminal.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from channeld.cli.errors import EXIT_UNEXPECTED, exit_code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rich.console import Console

    from channeld.core.errors import ChanneldError


class Output:
    """How this run of the command prints: `machine` for JSON, `debug` to let tracebacks through."""

    def __init__(self) -> None:
        """Print for people, until an option says otherwise."""
        self.machine = False
        self.debug = False

    def emit(self, data: Any, draw: Callable[[], None]) -> None:  # noqa: ANN401 - any JSON value
        """Print a result: the data as JSON, or what `draw` draws."""
        if self.machine:
            typer.echo(json.dumps(data, indent=2, default=str))
        else:
            draw()


OUT = Output()


def _set_json(value: bool) -> bool:  # noqa: FBT001 - typer's callback
    OUT.machine = OUT.machine or value
    return value


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.", callback=_set_json, is_eager=True)]


def console() -> Console:
    """A rich console on standard output; wide enough for its tables where that is no terminal."""
    from rich.console import Console  # noqa: PLC0415 - heavy, and only tables need it

    width = None if os.isatty(1) or "COLUMNS" in os.environ else 140
    return Console(width=width, highlight=False)


def say(text: str) -> None:
    """A line for people; nothing under --json."""
    if not OUT.machine:
        typer.echo(text)


def note(text: str) -> None:
    """A line beside the result, on standard error; nothing under --json."""
    if not OUT.machine:
        typer.echo(text, err=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str = "none") -> None:
    """Draw a table. A column whose name starts with '>' holds figures, right-aligned; '!': never broken."""
    from rich.table import Table  # noqa: PLC0415 - heavy, and only tables need it
    from rich.text import Text  # noqa: PLC0415 - the same

    drawn = Table(title=title or None, title_justify="left", header_style="bold")
    for column in columns:
        # figures are never broken over lines, nor names such as ETH-27DEC30-3000-C; what is words may be
        drawn.add_column(
            column.lstrip(">!"),
            justify="right" if column.startswith(">") else "left",
            overflow="fold",
            no_wrap=column.startswith((">", "!")),
        )
    count = 0
    for row in rows:
        drawn.add_row(*(Text("" if cell is None else harmless(str(cell), "\n")) for cell in row))
        count += 1
    if count:
        console().print(drawn)
    else:
        typer.echo(f"{title}: {empty}" if title else empty)


_DECIMAL = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?", re.ASCII)


def people(amount: object, places: int | None = None) -> Any:  # noqa: ANN401 - whatever is no number stays as it is
    """A decimal string for people: thousands grouped, and exactly `places` places (cut) where given.

    Anything else is given back as it is. Only what is drawn passes here; --json keeps every digit.
    """
    found = _DECIMAL.fullmatch(amount) if isinstance(amount, str) else None
    if found is None:
        return amount
    sign, whole, fraction = found[1], found[2], found[3] or ""
    if places is not None:
        fraction = fraction[:places].ljust(places, "0")
    shown = f"{int(whole):,}" + (f".{fraction}" if fraction else "")
    # what was cut to nothing has no sign
    return shown if not shown.strip("0.,") else sign + shown


def facts(title: str, values: Mapping[str, Any]) -> None:
    """Draw names and values, one to a line."""
    width = max((len(name) for name in values), default=0)
    if title:
        typer.echo(title)
    for name, value in values.items():
        typer.echo(f"  {name.ljust(width)}  {harmless(_plain(value))}")


def harmless(text: str, allowed: str = "") -> str:
    """A text without what a terminal acts on: a peer's words must not rewrite or reverse what stands around them."""
    return text if text.isprintable() else "".join(c if c.isprintable() or c in allowed else "?" for c in text)


def _plain(value: object) -> str:
    """A value in one line of plain words."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def report(error: ChanneldError) -> int:
    """Print an error on standard error: what is wrong, and what to do; its exit code."""
    if OUT.machine:
        typer.echo(json.dumps({"error": error.as_data()}, indent=2, default=str), err=True)
        return exit_code(error)
    typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
    for name, value in error.details.items():
        typer.echo(f"  {name}: {value}", err=True)
    if error.next_step:
        typer.echo(f"what to do: {error.next_step}", err=True)
    return exit_code(error)


def report_unexpected(error: BaseException) -> int:
    """Print that something happened which should not, and where its traceback was written; exit code 19."""
    descriptor, name = tempfile.mkstemp(prefix="channeld-traceback-", suffix=".txt")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    text = f"unexpected {type(error).__name__}: {error}"
    advice = f"This is a bug in channeld. Report it with {Path(name)}; --debug prints the traceback."
    if OUT.machine:
        data = {"code": 9000, "name": type(error).__name__, "fault": "self", "message": text, "advice": advice}
        typer.echo(json.dumps({"error": {**data, "details": {}}}, indent=2), err=True)
    else:
        typer.secho(f"error: {text}", fg=typer.colors.RED, err=True)
        typer.echo(f"what to do: {advice}", err=True)
    return EXIT_UNEXPECTED
