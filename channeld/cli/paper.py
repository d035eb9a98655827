"""`channeld statement`, `confirmation` and `reconcile`: what a back office keeps, made of what is proven.

Rules: the source is a channel of the running daemon, or an audit file and then nothing else is needed. Either is proven
line by line before a figure is shown. Files are written whole or not at all, never over another.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import json as json_text
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from channeld.cli.audit import audit_file_lines, write_audit
from channeld.cli.client import DEFAULT_DATA, DataOption, connect
from channeld.cli.errors import EXIT_NO, CommandError, UnreadableFileError
from channeld.cli.output import OUT, JsonOption, facts, note, people, table
from channeld.cli.trading import clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from channeld.core.audit import AuditReport, Proven
    from channeld.desk.statements import StatementMaker

app = typer.Typer(no_args_is_help=True, help="Trade confirmations that anybody can check offline.")

SourceArgument = Annotated[str, typer.Argument(metavar="SOURCE", help="A peer, a channel id, or an audit file.")]
SideOption = Annotated[str | None, typer.Option(help="a or b: whose statement, where the source is a file. Else a's.")]
DayOption = Annotated[str | None, typer.Option(help="One day, UTC, such as 2026-12-01.")]
OutOption = Annotated[Path | None, typer.Option(help="Write it to this file, which must not exist.", dir_okay=False)]
MAX_MS = 1 << 63
COLUMNS = (
    "version", "index", "time", "kind", "by", "instrument", "size", "price",
    "amount", "balance", "fee_paid", "funding_paid", "reference", "batch_hash",
)  # fmt: skip
MAX_STATEMENT = 512 << 20


def statement(
    source: SourceArgument,
    *,
    day: DayOption = None,
    begin: Annotated[str | None, typer.Option("--from", help="From this time, UTC: 2026-12-01T08:00.")] = None,
    until: Annotated[str | None, typer.Option(help="Until before this time, UTC.")] = None,
    side: SideOption = None,
    form: Annotated[str, typer.Option("--format", help="table, csv, or json.")] = "table",
    out: OutOption = None,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Every movement of a time between an opening and a closing balance, from the proven journal."""
    from channeld.desk.statements import StatementMaker  # noqa: PLC0415 - heavy

    if form not in {"table", "csv", "json"}:
        message = f"{form!r} is no format"
        raise CommandError(message, advice="Choose table, csv or json.")
    first, last = _times(day, begin, until)

    def maker(number: int) -> StatementMaker:
        return StatementMaker(number, first, last)

    made = _prove(source, side, data, maker)
    found = made[0].finish(made[1]).as_data()
    text = json_text.dumps(found, indent=1) + "\n" if form == "json" or json else _csv(found)
    if out is not None:
        _write(out, text)
        note(f"{out} written")
    elif form in {"csv", "json"}:
        typer.echo(text, nl=False)
    else:
        OUT.emit(found, lambda: _draw(found))


def reconcile(
    ours: Annotated[Path, typer.Argument(help="Our statement, written with --format json.", dir_okay=False)],
    theirs: Annotated[Path, typer.Argument(help="The counterparty's, of the same time.", dir_okay=False)],
    *,
    json: JsonOption = False,
) -> None:
    """Compare our statement with the counterparty's, trade by trade; exit 1 where they differ, with every reason."""
    del json
    from channeld.desk.reconciliation import reconcile as compared  # noqa: PLC0415 - heavy

    first, second = (_read(path) for path in (ours, theirs))
    breaks = [one.as_data() for one in compared(first, second)]
    rows = len(first["rows"])
    OUT.emit({"breaks": breaks, "rows": rows, "agreed": not breaks}, lambda: _draw_breaks(breaks, rows))
    if breaks:
        raise typer.Exit(EXIT_NO)


@app.command("write")
def confirmation_write(
    source: SourceArgument,
    version: Annotated[
        int, typer.Argument(help="The version that holds the trade; `channeld statement` lists them.", min=1)
    ],
    *,
    form: Annotated[
        str, typer.Option("--format", help="proof, or cdm: the trades in the shapes of ISDA's CDM.")
    ] = "proof",
    out: OutOption = None,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Write the confirmation of a trade: the batch, the state, both signatures, and a number."""
    del json
    from channeld.desk.confirmations import Confirmation, NotConfirmedError  # noqa: PLC0415 - heavy

    found: list[Confirmation] = []

    def seen(report: AuditReport, proven: Proven) -> None:
        if proven.applied.state.version == version:
            found.append(Confirmation.of(report, proven))

    if form not in {"proof", "cdm"}:
        message = f"{form!r} is no format"
        raise CommandError(message, advice="Choose proof or cdm.")
    _proven(source, data, seen)
    if not found:
        message = f"there is no version {version} in this journal"
        raise NotConfirmedError(message)
    value: Any = found[0].as_file()
    if form == "cdm":
        from channeld.desk.cdm import trade_states  # noqa: PLC0415 - only here

        value = trade_states(found[0])
    text = json_text.dumps(value, indent=1) + "\n"
    if out is None:
        typer.echo(text, nl=False)
        return
    _write(out, text)
    OUT.emit(found[0].as_data(), lambda: _draw_confirmation(found[0].as_data()))


@app.command("verify")
def confirmation_verify(
    file: Annotated[Path, typer.Argument(help="What `channeld confirmation write` wrote.", dir_okay=False)],
    *,
    json: JsonOption = False,
) -> None:
    """Check a confirmation offline: that both have signed a state that ends with this trade."""
    del json
    from channeld.desk.confirmations import read_confirmation  # noqa: PLC0415 - heavy

    found = read_confirmation(_read(file)).as_data()
    OUT.emit({"proven": True, **found}, lambda: _draw_confirmation(found))


# ----------------------------------------------------------------------------------------------------- sources


def _prove(
    source: str,
    side: str | None,
    data: Path,
    maker: Callable[[int], StatementMaker],
) -> tuple[StatementMaker, AuditReport]:
    """Prove a source and show all of it to what makes the statement of a side."""
    if side not in {None, "a", "b"}:
        message = f"{side!r} is no side"
        raise CommandError(message, advice="Sides are a and b; `channeld audit verify` shows who is which.")
    number = 1 if side == "b" else 0
    if side is None and not Path(source).is_file():
        number = "ab".index(connect(data).call("private/channel", channel=source)["side"])
    made = maker(number)
    return made, _proven(source, data, made.take)


def _proven(source: str, data: Path, seen: Callable[[AuditReport, Proven], None]) -> AuditReport:
    from channeld.core.audit import Auditor  # noqa: PLC0415 - heavy

    auditor = Auditor(seen)
    if Path(source).is_file():
        for line in audit_file_lines(Path(source)):
            auditor.take(line)
        return auditor.finish()
    client = connect(data, timeout=300)

    def page(after: int, last: int) -> dict[str, Any]:
        result: dict[str, Any] = client.call("private/audit_page", channel=source, after=after, until=last)
        return result

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit"
        write_audit(path, page, 0)
        for line in audit_file_lines(path):
            auditor.take(line)
    return auditor.finish()


def _times(day: str | None, begin: str | None, until: str | None) -> tuple[int, int]:
    """Milliseconds: [first, last); the whole journal where nothing is said."""
    if day is not None:
        if begin is not None or until is not None:
            message = "--day is a whole day by itself"
            raise CommandError(message, advice="Use either --day, or --from and --until.")
        first = _time(day)
        return first, first + 86_400_000
    first, last = 0 if begin is None else _time(begin), MAX_MS if until is None else _time(until)
    if first >= last:
        message = "the time ends before it begins"
        raise CommandError(message, advice="Give --from before --until.")
    return first, last


def _time(text: str) -> int:
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        message = f"{text!r} is no time"
        raise CommandError(message, advice="Write 2026-12-01, or 2026-12-01T08:00 (UTC).") from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=dt.UTC)
    return int(found.timestamp() * 1000)


def _read(path: Path) -> dict[str, Any]:
    from channeld.core.strict_json import read_json  # noqa: PLC0415 - only here

    try:
        if path.stat().st_size > MAX_STATEMENT:
            message = f"{path} is larger than any such file"
            raise UnreadableFileError(message, advice="Check that it is the file that you mean.")
        value = read_json(path.read_bytes())
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise UnreadableFileError(message, advice="Check the path and its permissions.") from None
    except ValueError as error:
        message = f"{path} is no JSON: {error}"
        raise UnreadableFileError(message, advice="Check that it is the file that you mean.") from None
    if not isinstance(value, dict):
        message = f"{path} holds no statement and no confirmation"
        raise UnreadableFileError(message, advice="Check that it is the file that you mean.")
    return value


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_text(text, encoding="utf-8", newline="")
        # a link, unlike a rename, refuses to replace what is there
        path.hardlink_to(temporary)
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}"
        raise UnreadableFileError(
            message, advice="Name a file that does not exist; a file is never written over."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


# ----------------------------------------------------------------------------------------------------- drawing


def _csv(found: dict[str, Any]) -> str:
    """One line for each operation, and for each leg of a trade after the first; amounts on the first alone."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for row in found["rows"]:
        when = dt.datetime.fromtimestamp(row["time_ms"] / 1000, dt.UTC).isoformat(timespec="milliseconds")
        for number, leg in enumerate(row["legs"] or [{}]):
            money = ("amount", "balance", "fee_paid", "funding_paid")
            shown = [row[name] if number == 0 else "" for name in money]
            what = [leg.get(name, "") for name in ("instrument", "size", "price")]
            head = [row["version"], row["index"], when, row["kind"], row["by"]]
            # a text of the peer's must not become a formula of a spreadsheet
            reference = row["reference"]
            reference = "'" + reference if reference[:1] in {"=", "+", "-", "@", "\t", "\r"} else reference
            writer.writerow([*head, *what, *shown, reference, row["batch_hash"]])
    return text.getvalue()


def _what(row: dict[str, Any]) -> str:
    parts = [f"{one['instrument']} {people(one['size'])} at {people(one['price'])}" for one in row["legs"]]
    parts += [f"{one['instrument']} settled at {people(one['fix'])}" for one in row["settled"]]
    if row["reference"]:
        parts.append(row["reference"])
    return ", ".join(parts)


def _draw(found: dict[str, Any]) -> None:
    opening, closing = found["opening"], found["closing"]
    facts(
        "statement",
        {
            "channel": found["channel"],
            "side": found["side"],
            "opening balance": f"{people(opening['balance'])} (version {opening['version']})",
            **{f"{kind}s": people(units) for kind, units in found["totals"].items()},
            "closing balance": f"{people(closing['balance'])} (version {closing['version']})",
            "of it fees paid": people(found["fees_paid"]),
            "of it funding paid": people(found["funding_paid"]),
        },
    )
    table(
        "Movements",
        ("!time (UTC)", "!version", "kind", "what", ">amount", ">balance"),
        (
            (clock(r["time_ms"]), r["version"], r["kind"], _what(r), people(r["amount"]), people(r["balance"]))
            for r in found["rows"]
        ),
    )
    if found["positions"]:
        names = ("instrument", "size", "mark", "value")
        rows = (
            [people(one[name]) if name != "instrument" else one[name] for name in names] for one in found["positions"]
        )
        table("Positions at the end", ("instrument", ">size", ">mark", ">value"), rows)
    if found["margin"]:
        facts("margin at the last MARK", {name.replace("_", " "): people(v) for name, v in found["margin"].items()})


def _draw_breaks(breaks: list[dict[str, Any]], rows: int) -> None:
    if not breaks:
        note(f"both hold the same: {rows} rows, to the unit")
        return
    table(
        "Breaks",
        ("!version", "reason", "ours", "theirs"),
        ((one["version"] or "", one["reason"], one["ours"], one["theirs"]) for one in breaks),
    )


def _draw_confirmation(found: dict[str, Any]) -> None:
    facts("confirmed by both", {name: found[name] for name in ("number", "channel", "version", "a", "b", "body_hash")})
    for trade in found["trades"]:
        rows = [(one["instrument"], people(one["size"]), people(one["price"])) for one in trade["legs"]]
        table(f"Trade, seen from {found['seen_from']}", ("instrument", ">size", ">price"), rows)
