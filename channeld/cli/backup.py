"""`channeld backup`: one encrypted file of a desk; prove it; make a desk of it again, or of what a peer keeps.

Rules: none of these needs the daemon, and `create` may run beside it. The backup's password comes from a file, from
CHANNELD_BACKUP_PASSWORD, or from the keyboard; it is not the keystore's unless its owner chooses so.
"""

from __future__ import annotations

import datetime as dt
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from channeld.cli.client import DEFAULT_DATA, DataOption
from channeld.cli.errors import CommandError, UnreadableFileError
from channeld.cli.output import OUT, JsonOption, facts, note, table
from channeld.cli.passwords import password

if TYPE_CHECKING:
    from collections.abc import Callable

    from channeld.daemon.backup import Backup

app = typer.Typer(no_args_is_help=True, help="Back a desk up, prove a backup, make a desk of one.")
VARIABLE = "CHANNELD_BACKUP_PASSWORD"
SecretOption = Annotated[Path | None, typer.Option(help="A file with the backup's password on its first line.")]
FileArgument = Annotated[Path, typer.Argument(help="The backup.", dir_okay=False)]


def _secret(file: Path | None, *, confirm: bool = False) -> str:
    """The backup's password."""
    if file is not None:
        return password(file)
    if os.environ.get(VARIABLE):
        return os.environ[VARIABLE]
    if not sys.stdin.isatty():
        message = "the backup's password is needed, and there is no terminal to ask at"
        raise CommandError(message, advice=f"Give --password-file, or set {VARIABLE}.")
    answer: str = typer.prompt("Password of the backup", hide_input=True, confirmation_prompt=confirm)
    return answer


def _guarded(work: Callable[[], Backup]) -> Backup:
    try:
        return work()
    except OSError as error:
        message = f"{error.filename or 'a file'} cannot be used: {error.strerror}"
        raise UnreadableFileError(
            message, advice="Check the path, its permissions, and the space on the disk."
        ) from None


@app.command()
def create(
    file: FileArgument,
    *,
    without_database: Annotated[
        bool, typer.Option("--without-database", help="Leave the records out: for a desk on PostgreSQL.")
    ] = False,
    data: DataOption = DEFAULT_DATA,
    password_file: SecretOption = None,
    json: JsonOption = False,
) -> None:
    """Write an encrypted backup, and prove it by reading it back. The daemon may run meanwhile."""
    del json
    from channeld.daemon import backup  # noqa: PLC0415 - heavy
    from channeld.daemon.config import load  # noqa: PLC0415 - heavy

    config, secret = load(data.expanduser()), _secret(password_file, confirm=True)
    made = _guarded(lambda: backup.create(config, file, secret, without_database=without_database))
    told = {"file": str(file), **made.as_data()}
    OUT.emit(told, lambda: _draw(told, f"{file} written and read back"))
    note("it is old with the next trade: a desk that is restored from it asks its peers and towers first")


@app.command()
def verify(file: FileArgument, *, password_file: SecretOption = None, json: JsonOption = False) -> None:
    """Open a backup and prove it: every byte, the database, and both signatures on each channel's newest state."""
    del json
    from channeld.daemon import backup  # noqa: PLC0415 - heavy

    secret = _secret(password_file)
    made = _guarded(lambda: backup.verify_backup(file, secret))
    told = {"file": str(file), **made.as_data()}
    OUT.emit(told, lambda: _draw(told, f"{file} is sound"))


@app.command()
def restore(
    file: FileArgument,
    *,
    data: DataOption = DEFAULT_DATA,
    password_file: SecretOption = None,
    json: JsonOption = False,
) -> None:
    """Make a desk of a backup in a new directory; at its start it asks peers and towers before it signs anything."""
    del json
    from channeld.daemon import backup  # noqa: PLC0415 - heavy

    folder, secret = data.expanduser(), _secret(password_file)
    made = _guarded(lambda: backup.restore(file, secret, folder))
    told = {"data": str(folder), **made.as_data()}
    OUT.emit(told, lambda: _draw(told, f"restored to {folder}"))
    note("stop whatever else runs this desk, then: channeld run. It signs nothing for ten minutes and asks its peers")


@app.command("from-peer")
def from_peer(
    peer: Annotated[str, typer.Argument(help="The peer's address, 0x...")],
    url: Annotated[str, typer.Argument(help="The peer's URL, ws://HOST:PORT. Empty: wait until it dials us.")] = "",
    *,
    data: DataOption = DEFAULT_DATA,
    password_file: Annotated[
        Path | None, typer.Option(help="A file with the keystore's password on its first line.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """The records are lost: make them again of the encrypted backup that a peer keeps for this desk."""
    del json
    import asyncio  # noqa: PLC0415 - only here

    from channeld.chain.keystore import load_keystore  # noqa: PLC0415 - heavy
    from channeld.cli.forms import check_address  # noqa: PLC0415 - next to its one use
    from channeld.daemon import blob_recovery  # noqa: PLC0415 - heavy
    from channeld.daemon.config import load  # noqa: PLC0415 - heavy

    check_address(peer, "the peer's address")
    folder = data.expanduser()
    config = load(folder)
    key = load_keystore(config.data_path / "keystore.json", password(password_file))
    found = asyncio.run(blob_recovery.recover(config, key, bytes.fromhex(peer[2:]), url or None))
    told = {"data": str(folder), **found.as_data()}
    OUT.emit(told, lambda: _draw_recovered(told))
    note("start it with: channeld run. It asks peers and towers, signs nothing for ten minutes, then goes on by itself")


def _draw_recovered(told: dict[str, Any]) -> None:
    made = dt.datetime.fromtimestamp(told["created_ms"] / 1000, dt.UTC)
    facts(f"recovered to {told['data']}", {"desk": told["desk"], "made": f"{made:%Y-%m-%d %H:%M:%S} UTC"})
    table("Peers", ("!address", "name", "URL"), ((one["address"], one["name"], one["url"]) for one in told["peers"]))
    table(
        "Channels",
        ("!channel", "status", ">newest state", ">signed up to", "recovered"),
        (
            (one["channel"][:14], one["status"], one["version"], one["signed"], "yes" if one["recovered"] else "no")
            for one in told["channels"]
        ),
    )


def _draw(told: dict[str, Any], title: str) -> None:
    made = dt.datetime.fromtimestamp(told["created_ms"] / 1000, dt.UTC)
    facts(
        title,
        {
            "desk": told["desk"],
            "address": told["address"],
            "made": f"{made:%Y-%m-%d %H:%M:%S} UTC",
            "files": f"{told['files']}, {told['bytes']} bytes",
            "records": "in it" if told["database"] else "NOT in it",
        },
    )
    table(
        "Channels",
        ("!channel", "status", ">newest state", ">signed up to"),
        ((one["channel"][:14], one["status"], one["version"], one["signed"]) for one in told["channels"]),
    )
