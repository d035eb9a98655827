"""The `channeld` command: every noun and verb, one place where errors become messages and exit codes.

Rules: importing this module imports nothing heavy (no web3, aiohttp, numpy, rich): `channeld --help` answers at once.
Every error ends as one message that says what is wrong and what to do, and as an exit code by class of fault
(docs/exit-codes.md); a traceback is written to a file, or printed with --debug.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from channeld.cli import (
    audit,
    backup,
    bench,
    calls,
    care,
    channels,
    desk,
    novation,
    operators,
    orders,
    paper,
    pure,
    quoting,
    risk,
    services,
    setup,
    token,
    tower,
    trading,
)
from channeld.cli.dispute.commands import app as dispute_app
from channeld.cli.output import OUT, JsonOption, report, report_unexpected
from channeld.core.errors import ChanneldError


class Guarded(TyperGroup):
    """The root of the commands: no error passes it as a traceback, and its help is there at once.

    The root's help is plain text under the same headings: drawing it would take longer than all the rest of the start.
    """

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - typer's, as below
        """The commands under their headings."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                panel = command.rich_help_panel if isinstance(command.rich_help_panel, str) else _TOOLS
                panels.setdefault(panel, []).append((name, command.get_short_help_str(limit=80)))
        for panel in (_LIFE, _TRADE, _LOOK, _TOOLS):
            with formatter.section(panel):
                formatter.write_dl(panels.get(panel, []))

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer's context, whose home moved between versions
        """Run the command; turn what it raises into a message and an exit code."""
        try:
            return super().invoke(ctx)
        except ChanneldError as error:
            if OUT.debug:
                raise
            raise typer.Exit(report(error)) from None
        except BrokenPipeError:
            raise
        except Exception as error:
            if OUT.debug or _is_of_typer(error):
                raise
            raise typer.Exit(report_unexpected(error)) from None


def _is_of_typer(error: Exception) -> bool:
    """Whether typer itself knows what to do with it: usage errors, exits, aborts."""
    return any(base.__module__.split(".")[0] in ("typer", "click") for base in type(error).__mro__)


app = typer.Typer(
    cls=Guarded,
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Two OTC desks trade options, perpetuals and futures with each other directly, in a state channel.",
)


@app.callback()
def root(*, debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False) -> None:
    """Two OTC desks trade options, perpetuals and futures with each other directly, in a state channel."""
    OUT.debug = debug
    OUT.machine = False


@app.command()
def version(*, json: JsonOption = False) -> None:
    """Print the version."""
    del json
    from channeld import __version__  # noqa: PLC0415 - next to its one use

    OUT.emit({"version": __version__}, lambda: typer.echo(f"channeld {__version__}"))


@app.command()
def demo(
    *,
    scenario: Annotated[str, typer.Option(help="coop, vanish, cheat, default or oracle-dead.")] = "coop",
    chain: Annotated[str, typer.Option(help="embedded, anvil, or the URL of a development node.")] = "embedded",
    keep: Annotated[str | None, typer.Option(help="Keep logs and data in this directory.")] = None,
    json: JsonOption = False,
) -> None:
    """Live through a trading day: two desks, an oracle, a chain, each a process of its own."""
    del json
    from channeld.cli.demo.command import run  # noqa: PLC0415 - only here

    code = run(scenario, chain, keep)
    if code:
        raise typer.Exit(code)


_LIFE = "Start and set up"
_TRADE = "Trade"
_LOOK = "Look"
_TOOLS = "Tools"

for command, panel in (
    (setup.init, _LIFE),
    (setup.address, _LIFE),
    (setup.run, _LIFE),
    (setup.deploy, _LIFE),
    (desk.stop, _LIFE),
    (quoting.rfq, _TRADE),
    (orders.book, _LOOK),
    (desk.policy, _TRADE),
    (desk.transfer, _TRADE),
    (desk.mark, _TRADE),
    (desk.vols, _TRADE),
    (desk.status, _LOOK),
    (desk.positions, _LOOK),
    (calls.expiries, _LOOK),
    (desk.margin, _LOOK),
    (risk.greeks, _LOOK),
    (risk.scenario, _LOOK),
    (risk.profit, _LOOK),
    (risk.limits, _LOOK),
    (desk.events, _LOOK),
    (paper.statement, _LOOK),
    (paper.reconcile, _LOOK),
    (operators.operator_log, _LOOK),
    (care.doctor, _LOOK),
    (care.explain, _TOOLS),
    (pure.value, _TOOLS),
):
    app.command(
        rich_help_panel=panel, context_settings={"ignore_unknown_options": True} if command is pure.value else None
    )(command)
trading.app.command()(novation.novate)
channels.app.command()(novation.roll)
app.add_typer(services.devnet_app, name="devnet", rich_help_panel=_LIFE)
app.add_typer(services.oracle_app, name="oracle", rich_help_panel=_LIFE)
app.add_typer(desk.peer_app, name="peer", rich_help_panel=_LIFE)
app.add_typer(backup.app, name="backup", rich_help_panel=_LIFE)
app.add_typer(token.app, name="token", rich_help_panel=_LIFE)
app.add_typer(operators.alerts_app, name="alerts", rich_help_panel=_LIFE)
app.add_typer(operators.approval_app, name="approval", rich_help_panel=_LIFE)
app.add_typer(tower.app, name="tower", rich_help_panel=_LIFE)
app.add_typer(audit.app, name="audit", rich_help_panel=_LOOK)
app.add_typer(paper.app, name="confirmation", rich_help_panel=_LOOK)
app.add_typer(channels.app, name="channel", rich_help_panel=_TRADE)
app.add_typer(trading.app, name="trade", rich_help_panel=_TRADE)
app.add_typer(calls.app, name="calls", rich_help_panel=_LOOK)
app.add_typer(dispute_app, name="dispute", rich_help_panel=_TRADE)
app.add_typer(quoting.app, name="quote", rich_help_panel=_TRADE)
app.add_typer(orders.app, name="order", rich_help_panel=_TRADE)
app.add_typer(orders.market_app, name="market", rich_help_panel=_TRADE)
app.add_typer(bench.app, name="bench", rich_help_panel=_TOOLS)
app.add_typer(pure.hash_app, name="hash", rich_help_panel=_TOOLS)


def _narrow(words: list[str]) -> None:
    """Leave out all commands but the one asked for: reading the parameters of them all takes longer than it does."""
    name = next((word for word in words if word != "--debug"), "")
    groups = [g for g in app.registered_groups if g.name == name]
    commands = [c for c in app.registered_commands if c.callback is not None and _name(c) == name]
    # an unknown word, help and completion look at all of them
    if (groups or commands) and "_CHANNELD_COMPLETE" not in os.environ:
        app.registered_groups[:], app.registered_commands[:] = groups, commands


def _name(command: Any) -> str:  # noqa: ANN401 - typer's, whose home moved between versions
    return str(command.name or command.callback.__name__.replace("_", "-"))


def main() -> None:
    """Run the command line; the entry of the installed script."""
    _narrow(sys.argv[1:])
    app(prog_name="channeld")


if __name__ == "__main__":
    main()
