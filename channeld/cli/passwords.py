"""Where the password of a keystore comes from: a file, the environment, or the keyboard. It is never printed."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import typer

from channeld.cli.errors import CommandError, UnreadableFileError

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE = "CHANNELD_PASSWORD"


def password(file: Path | None, *, confirm: bool = False) -> str:
    """The password: the first line of `file`, else CHANNELD_PASSWORD, else asked for at the terminal.

    Raises:
        UnreadableFileError: the file cannot be read, or is empty.
        CommandError: there is no terminal to ask at.

    """
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            message = f"the password file {file} cannot be read: {error}"
            raise UnreadableFileError(message, advice="Check the path and its permissions.") from None
        if not lines or not lines[0]:
            message = f"the password file {file} is empty"
            raise UnreadableFileError(message, advice="Put the password on its first line.")
        return lines[0]
    from_environment = os.environ.get(VARIABLE)
    if from_environment:
        return from_environment
    if not sys.stdin.isatty():
        message = "the keystore's password is needed, and there is no terminal to ask at"
        raise CommandError(message, advice=f"Give --password-file, or set {VARIABLE}.")
    answer: str = typer.prompt("Password of the keystore", hide_input=True, confirmation_prompt=confirm)
    return answer
