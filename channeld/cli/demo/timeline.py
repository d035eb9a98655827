"""The demo's timeline: what happened, at whose desk, with what cash, at which version; for people, or as data.

Rules: an event is printed as it happens, on the devnet's time; while the demo waits, a spinner says for what. Under
--json nothing is printed until the end, and the events are the same.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import textwrap
from typing import TYPE_CHECKING, Any

from channeld.cli.output import OUT, console, people

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COLORS = {"maker": "cyan", "taker": "magenta", "chain": "yellow", "oracle": "green"}


WIDEST, NARROWEST = 60, 30
FIGURES = 55
"""The columns beside what happened: time, desk, cash of both, version."""


def grouped(amount: str | None, places: int = 2) -> str:
    """A decimal string for people: thousands grouped, exactly `places` places, cut."""
    return "" if amount is None else str(people(amount, places))


class Timeline:
    """The events of a demo. `now_ms` tells the devnet's time."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        """Begin without events."""
        self.events: list[dict[str, Any]] = []
        self._now_ms = now_ms
        self._day = ""
        self._console = console()
        self._width = max(NARROWEST, min(WIDEST, self._console.width - FIGURES - 1))
        self._status: Any = None

    def title(self, text: str, lines: tuple[str, ...]) -> None:
        """Print what is about to be seen, and the head of the columns."""
        if OUT.machine:
            return
        self._console.print(f"\n[bold]{text}[/bold]")
        for line in lines:
            self._console.print(f"[dim]{line}[/dim]")
        what = "what happened".ljust(self._width)
        head = f"{'time':8}  {'desk':7} {what} {'maker cash':>13} {'taker cash':>13} {'version':>7}"
        self._console.print(f"\n[bold]{head}[/bold]")

    def event(
        self,
        desk: str,
        what: str,
        *,
        kind: str,
        cash: tuple[str, str] | None = None,
        version: int | None = None,
        more: tuple[str, ...] = (),
        **figures: Any,  # noqa: ANN401 - any JSON value
    ) -> None:
        """Something happened. cash: balances of maker and taker as decimal strings; more: further lines of text."""
        now = self._now_ms()
        told: dict[str, Any] = {"time_ms": now, "desk": desk, "kind": kind, "what": what}
        if cash is not None:
            told["cash"] = {"a": cash[0], "b": cash[1]}
        if version is not None:
            told["version"] = version
        if more:
            told["more"] = list(more)
        self.events.append({**told, **figures})
        if OUT.machine:
            return
        from rich.text import Text  # noqa: PLC0415 - heavy, and only people read it

        moment = dt.datetime.fromtimestamp(now / 1000, dt.UTC)
        day = moment.strftime("%A, %-d %B %Y")
        if day != self._day:
            self._day = day
            self._console.print(f"[bold underline]{day}[/bold underline]")
        shown = ("", "") if cash is None else (grouped(cash[0]), grouped(cash[1]))
        words = textwrap.wrap(what, self._width, break_on_hyphens=False)
        style = "red" if kind in ("trade_refused", "alert", "killed", "cheat") else ""
        line = Text(f"{moment:%H:%M:%S}  ", style="dim")
        line.append(f"{desk:7} ", style=COLORS.get(desk, ""))
        line.append(f"{words[0].ljust(self._width)} ", style=style)
        line.append(f"{shown[0]:>13} {shown[1]:>13} {'' if version is None else version:>7}")
        line.rstrip()
        self._console.print(line, soft_wrap=True)
        for text in words[1:]:
            self._console.print(Text(f"{'':18}{text}", style=style), soft_wrap=True)
        for text in more:
            for part in textwrap.wrap(text, self._console.width - 19, break_on_hyphens=False):
                self._console.print(Text(f"{'':18}{part}", style="dim"), soft_wrap=True)

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show a spinner while waiting for something; nested waits change its text."""
        if OUT.machine:
            yield
            return
        if self._status is not None:
            self._status.update(f"[dim]{what}[/dim]")
            yield
            return
        with self._console.status(f"[dim]{what}[/dim]", spinner="dots") as status:
            self._status = status
            try:
                yield
            finally:
                self._status = None

    def payouts(self, payouts: dict[str, dict[str, str]], symbol: str, source: str) -> None:
        """Print the payouts on chain beside what they must be."""
        if OUT.machine:
            return
        from rich.table import Table  # noqa: PLC0415 - heavy, and only people read it

        drawn = Table(title="Payouts", title_justify="left", header_style="bold")
        for name, right in (("desk", "left"), (f"paid on chain, {symbol}", "right"), (source, "right"), ("", "left")):
            drawn.add_column(name, justify=right)  # type: ignore[arg-type]  # left or right
        for side, desk in (("a", "maker"), ("b", "taker")):
            paid, expected = payouts[side]["paid"], payouts[side]["expected"]
            same = paid == expected
            drawn.add_row(
                desk,
                grouped(paid, 6),
                grouped(expected, 6),
                "[green]equal to the unit[/green]" if same else "[red]DIFFERENT[/red]",
            )
        self._console.print()
        self._console.print(drawn)
