"""`channeld doctor` and `channeld explain`: what may go wrong, looked at before it does; and what an error means.

Rules: neither changes anything. The doctor asks the daemon where it runs, and looks from outside where it does not; it
ends with exit code 1 where a finding is critical.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING, Annotated, Any

import typer

from channeld.cli.client import DEFAULT_DATA, DataOption, connect
from channeld.cli.errors import EXIT_NO, CommandError, UnreachableError
from channeld.cli.output import OUT, JsonOption, facts

if TYPE_CHECKING:
    from pathlib import Path

    from channeld.core.errors import ChanneldError

COLOURS = {"ok": "green", "warning": "yellow", "critical": "red", "unknown": "blue"}


def doctor(*, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """Look at clock, endpoints, disk, gas, oracle, towers, bundles and open deadlines; exit 1 where one is critical."""
    del json
    try:
        result = connect(data).call("private/doctor", timeout=120)
    except UnreachableError:
        result = _from_outside(data.expanduser())
    OUT.emit(result, lambda: _draw(result["findings"]))
    if result["worst"] == "critical":
        raise typer.Exit(EXIT_NO)


def _from_outside(data: Path) -> dict[str, Any]:
    import asyncio  # noqa: PLC0415 - only without a daemon

    from channeld.daemon.config import load  # noqa: PLC0415 - heavy
    from channeld.daemon.doctor import examine_from_outside, worst  # noqa: PLC0415 - heavy

    findings = asyncio.run(examine_from_outside(load(data)))
    return {"worst": worst(findings), "findings": [finding.as_data() for finding in findings]}


def _draw(findings: list[dict[str, Any]]) -> None:
    width = max(len(one["check"]) for one in findings)
    for one in findings:
        level = typer.style(str(one["level"]).ljust(8), fg=COLOURS.get(one["level"]))
        typer.echo(f"{level}  {str(one['check']).ljust(width)}  {one['found']}")
        if one["level"] != "ok" and one["advice"]:
            typer.echo(f"{'':8}  {'':{width}}  {one['advice']}")


def explain(
    code: Annotated[int, typer.Argument(help="The number of an error, such as 2210.")], *, json: JsonOption = False
) -> None:
    """Say what an error is, whose fault it is, and what to do."""
    del json
    result = explanation(code)

    def draw() -> None:
        facts(f"{code} {result['name']}", {"what it is": result["what"], "whose fault": result["fault"]})
        for paragraph in result["more"]:
            typer.echo(f"  {paragraph}")
        typer.echo(f"  what to do   {result['advice'] or 'the message of the occurrence says it'}")

    OUT.emit(result, draw)


@functools.cache
def _registry() -> dict[int, type[ChanneldError]]:
    """Every error, by its code: all modules are imported, but those whose extra is not installed."""
    import channeld  # noqa: PLC0415 - its path
    from channeld.core.errors import REGISTRY  # noqa: PLC0415 - filled below

    for module in pkgutil.walk_packages(channeld.__path__, "channeld."):
        with contextlib.suppress(ImportError):
            importlib.import_module(module.name)
    return REGISTRY


def explanation(code: int) -> dict[str, Any]:
    """What an error is, as plain data.

    Raises:
        CommandError: there is none of that code; it names those near it.

    """
    registry = _registry()
    error = registry.get(code)
    if error is None:
        near = sorted(registry, key=lambda known: (abs(known - code), known))[:3]
        message = f"there is no error {code}"
        raise CommandError(message, advice=f"Near it are {', '.join(map(str, near))}; docs/errors.md lists all.")
    paragraphs = [" ".join(part.split()) for part in (error.__doc__ or "").split("\n\n")]
    return {
        "code": code,
        "name": error.__name__,
        "fault": error.fault.value,
        "what": paragraphs[0],
        "more": paragraphs[1:],
        "advice": error.advice,
        "exit_code": 10 + min(9, code // 1000),
    }
