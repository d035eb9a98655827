"""`channeld audit`: replay a channel's journal; write it to a file; prove from the file alone what each balance is.

Rules: `verify` needs nothing but the file: no daemon, no database, no chain, no configuration. Both work line by line,
so that a long journal takes the memory of one state. A file is written whole or not at all, never over another.
"""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from channeld.cli.channels import ChannelArgument  # noqa: TC001 - the same
from channeld.cli.client import DEFAULT_DATA, DataOption, connect
from channeld.cli.errors import EXIT_NO, CommandError, UnreadableFileError
from channeld.cli.output import OUT, JsonOption, facts, note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from channeld.core.audit import AuditReport


class AuditGroup(TyperGroup):
    """The audit commands, with `replay` where the first word names none of them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer's context, whose home moved
        """Put `replay` before arguments that name no command."""
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["replay", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=AuditGroup,
    no_args_is_help=True,
    help="Prove balances from version 0. `channeld audit PEER` has the daemon replay its journal.",
)


@app.command()
def replay(channel: ChannelArgument, *, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """Replay the channel's journal from version 0, and compare every balance; exit 1 if it differs."""
    del json
    result = connect(data, timeout=300).call("private/audit", channel=channel)
    OUT.emit(result, lambda: facts("audit", result))
    if not result.get("replayed"):
        raise typer.Exit(EXIT_NO)


@app.command()
def export(
    channel: ChannelArgument,
    file: Annotated[Path, typer.Argument(help="Where to write the file; it must not exist.", dir_okay=False)],
    *,
    until: Annotated[int, typer.Option(help="Up to this version; 0 is the newest.", min=0)] = 0,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Write everything that leads to the balances of a channel to one file, and prove the file."""
    del json
    client = connect(data, timeout=300)

    def page(after: int, last: int) -> dict[str, Any]:
        result: dict[str, Any] = client.call("private/audit_page", channel=channel, after=after, until=last)
        return result

    if file.exists():
        message = f"{file} is there already"
        raise CommandError(message, advice="Name another file; an audit file is never written over.")
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        report = write_audit(temporary, page, until)
        # a link, unlike a rename, refuses to replace what has just been put there
        file.hardlink_to(temporary)
        size = file.stat().st_size
    except OSError as error:
        message = f"{file} cannot be written: {error.strerror}"
        raise UnreadableFileError(
            message, advice="Check the path, its permissions, and the space on the disk."
        ) from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    told = {"file": str(file), "bytes": size, **report.as_data()}
    OUT.emit(told, lambda: _draw(report, f"{file} written, {size} bytes"))


def write_audit(path: Path, page: Callable[[int, int], dict[str, Any]], until: int) -> AuditReport:
    """Write page after page to a new file, each line proven as it is written; what the file proves.

    page: gives what `private/audit_page` gives for (after, until).

    Raises:
        AuditError: the records do not prove what they say.
        OSError: the file cannot be written.

    """
    from channeld.core.audit import Auditor, AuditState, AuditWriter  # noqa: PLC0415 - heavy
    from channeld.core.eip712 import Domain  # noqa: PLC0415 - heavy
    from channeld.core.files import address_from_text, body_from_json, terms_from_json  # noqa: PLC0415 - heavy

    def signed(row: dict[str, Any], hashed: str) -> AuditState:
        raw = (bytes.fromhex(row[name].removeprefix("0x")) for name in ("signature_a", "signature_b"))
        return AuditState(int(row["version"]), bytes.fromhex(hashed.removeprefix("0x")), *raw)

    writer, auditor = AuditWriter(), Auditor()
    told = page(0, until)
    last = int(told["until"])
    with path.open("xb") as file:

        def put(line: bytes) -> None:
            auditor.take(line)
            file.write(line)

        base = told["base"]
        domain = Domain(int(told["chain_id"]), address_from_text(told["adjudicator"]))
        begin = None if base is None else (signed(base, ""), body_from_json(base["body"]))
        put(writer.head(domain, terms_from_json(told["terms"]), begin))
        while True:
            for row in told["rows"]:
                # where a later version's signatures cover it, the hash is what the batch makes
                hashed = (
                    row["body_hash"] or "0x" + auditor.next_hash(bytes.fromhex(row["batch"][2:]), row["version"]).hex()
                )
                put(writer.batch(bytes.fromhex(row["batch"][2:]), signed(row, hashed)))
            if not told["next"]:
                break
            told = page(int(told["next"]), last)
        state = auditor.state
        put(writer.end(state.version, state.body))
    return auditor.finish()


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="What `channeld audit export` wrote.", dir_okay=False)],
    *,
    json: JsonOption = False,
) -> None:
    """Prove every balance in an audit file, offline; an altered byte is named, and the exit code is 11."""
    del json
    from channeld.core.audit import Auditor  # noqa: PLC0415 - heavy

    auditor = Auditor()
    for line in audit_file_lines(file):
        auditor.take(line)
    report = auditor.finish()
    OUT.emit(report.as_data(), lambda: _draw(report, f"{file} is proven"))


def audit_file_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, each bounded."""
    from channeld.core.audit import MAX_LINE  # noqa: PLC0415 - heavy

    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE + 1):
                yield line
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise UnreadableFileError(message, advice="Check the path and its permissions.") from None


def _draw(report: AuditReport, title: str) -> None:
    note(title)
    for sentence in report.words():
        typer.echo(sentence)
