"""`channeld demo`: one scenario from beginning to end, and whether the payouts are equal to the unit."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from channeld.cli.demo import defaults, scenarios
from channeld.cli.demo.timeline import Timeline
from channeld.cli.demo.world import SYMBOL, World
from channeld.cli.errors import EXIT_NO, CommandError, ServiceError, TimeControlError
from channeld.cli.output import OUT, note
from channeld.cli.processes import Cast
from channeld.core.errors import ChanneldError

if TYPE_CHECKING:
    from collections.abc import Callable

SCENARIOS: dict[str, tuple[Callable[[World, Timeline], scenarios.Payouts], str, str]] = {
    "coop": (scenarios.coop, "Two desks, three days, one channel", "what the journals say"),
    "vanish": (scenarios.vanish, "A counterparty disappears", "computed off chain"),
    "cheat": (scenarios.cheat, "A counterparty cheats", "computed off chain"),
    "default": (defaults.default, "A counterparty does not meet its margin call", "computed off chain"),
    "oracle-dead": (defaults.oracle_dead, "The oracle dies before the last fix", "what both signed"),
}


def run(scenario: str, chain: str, keep: str | None) -> int:
    """Run a scenario; 0 where the payouts are equal to the unit, else 1.

    Raises:
        ChanneldError: an unknown scenario, a chain without a clock, or a process that fails; nothing is left running.

    """
    if scenario not in SCENARIOS:
        message = f"there is no scenario {scenario!r}"
        raise CommandError(message, advice=f"The scenarios are {', '.join(SCENARIOS)}.")
    if chain not in ("embedded", "anvil") and not chain.startswith(("http://", "https://")):
        message = f"{chain!r} is no chain for the demo"
        raise CommandError(message, advice="Give embedded, anvil, or the http:// URL of a development node.")
    play, title, source = SCENARIOS[scenario]
    directory = Path(keep) if keep else Path(tempfile.mkdtemp(prefix="channeld-demo-"))
    _prepare(directory, given=keep is not None)
    began = time.monotonic()
    try:
        with Cast(directory) as cast:
            world = World(cast, directory, chain)
            timeline = Timeline(world.now_ms)
            timeline.title(
                f"channeld demo: {title}",
                (
                    f"scenario {scenario} on the {chain} chain; every process has its own keystore, database and port",
                    f"time is the devnet's: days pass in seconds; cash in {SYMBOL}, as both have signed it last",
                ),
            )
            payouts = play(world, timeline)
    except ChanneldError as error:
        if "NoTimeControl" in type(error).__name__ or "time control" in str(error):
            raise TimeControlError(str(error)) from None
        note(f"logs and data are kept in {directory}")
        raise
    equal = all(one["paid"] == one["expected"] for one in payouts.values())
    if OUT.machine:
        result: dict[str, Any] = {"scenario": scenario, "payouts": payouts, "events": timeline.events}
        result["seconds"] = round(time.monotonic() - began, 1)
        typer.echo(json.dumps(result, indent=2))
    else:
        timeline.payouts(payouts, SYMBOL, source)
        took = f"{time.monotonic() - began:.0f} s"
        typer.echo(f"\nDone in {took}." + (f" Logs and data are in {directory}." if keep or not equal else ""))
    if keep is None and equal:
        shutil.rmtree(directory, ignore_errors=True)
    return 0 if equal else EXIT_NO


def _prepare(directory: Path, *, given: bool) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if given and any(directory.iterdir()):
            message = f"{directory} is not empty"
            raise CommandError(message, advice="Name a new directory with --keep.")
    except OSError as error:
        message = f"{directory} cannot be used: {error.strerror or error}"
        raise ServiceError(message, advice="Name another directory with --keep.") from None
