"""JSON files, and small pieces of input, read with one clear error for whatever is wrong with them.

Rules: the forms of terms, bodies and states are core's (channeld/core/files.py); this module only opens files. Nothing
heavy is imported before it is needed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from channeld.cli.errors import CommandError, UnreadableFileError

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILE = 4 << 20
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)


def read_bytes(path: Path, most: int = MAX_FILE) -> bytes:
    """What is in a file of at most `most` bytes.

    Raises:
        UnreadableFileError: no such file, no permission, or too large.

    """
    try:
        with path.open("rb") as file:
            raw = file.read(most + 1)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}"
        raise UnreadableFileError(message, advice="Check the path and its permissions.") from None
    if len(raw) > most:
        message = f"{path} is larger than {most >> 20} MiB"
        raise UnreadableFileError(message)
    return raw


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        UnreadableFileError: no such file, too large, not JSON, or no object.

    """
    from channeld.core.strict_json import read_json as read_strictly  # noqa: PLC0415 - not needed to start

    raw = read_bytes(path)
    try:
        data = read_strictly(raw)
    except (ValueError, RecursionError) as error:
        message = f"{path} is not JSON: {error}"
        raise UnreadableFileError(message) from None
    if not isinstance(data, dict):
        message = f"{path} does not hold a JSON object"
        raise UnreadableFileError(message)
    return data


MAX_NOTE = 48
"""A memo or reference is 64 bytes in the protocol; an identifier takes sixteen of them."""


def check_note(text: str | None, what: str) -> None:
    """Refuse a memo or reference that is too long to travel.

    Raises:
        CommandError: more than 48 bytes in UTF-8.

    """
    size = len((text or "").encode("utf-8", "surrogateescape"))
    if size > MAX_NOTE:
        message = f"{what} is {size} bytes long, and at most {MAX_NOTE} travel with an operation"
        raise CommandError(message, advice="Shorten it; letters beyond ASCII take two bytes or more.")


def check_address(text: str, what: str) -> None:
    """Refuse what is no address; the checksum of one in mixed case is core's to check.

    Raises:
        FileFormatError: naming `what`.

    """
    if not _ADDRESS.fullmatch(text) or text[2:] not in (text[2:].lower(), text[2:].upper()):
        from channeld.core.files import address_from_text  # noqa: PLC0415 - it loads the curve

        address_from_text(text, what)
