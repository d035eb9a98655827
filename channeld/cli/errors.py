"""What can go wrong at the command line itself; codes 1300-1399.

Rules: the exit code follows from the error's code alone (docs/exit-codes.md): 10 + thousands, so that a script can tell
whose fault it was. An error that a daemon reports keeps the daemon's code, name and advice.
"""

from __future__ import annotations

from typing import Any

from channeld.core.errors import ChanneldError, Fault, InputError

EXIT_NO = 1
EXIT_UNREACHABLE = 3
EXIT_UNEXPECTED = 19


class CommandError(InputError):
    """A command line that cannot be carried out."""

    code = 1300
    advice = "See `channeld COMMAND --help`."


class UnreachableError(InputError):
    """No daemon, devnet or oracle answers where one should."""

    code = 1301
    advice = "Start it with `channeld run`, or name its data directory with --data."


class UnreadableFileError(InputError):
    """A file that is not there, or does not hold what the command needs."""

    code = 1302
    advice = "The file formats are described in docs/files.md."


class TermsFileError(InputError):
    """A terms file that lacks something, or says something that terms cannot say."""

    code = 1303
    advice = "Write a complete file with `channeld channel template`, and change what you need."


class ServiceError(InputError):
    """A process that was started did not become ready, or ended."""

    code = 1304
    advice = "Read the end of its log, which is named above."


class TimeControlError(InputError):
    """The chain at hand has no clock that can be advanced."""

    code = 1305
    advice = "The demo lives through days in seconds: run it with --chain embedded, or with --chain anvil."


class RemoteError(ChanneldError):
    """An error that a daemon reported; it keeps the code, name, fault and advice it was given there."""

    code = 1306
    fault = Fault.SELF

    def __init__(self, code: int, message: str, data: dict[str, Any] | None) -> None:
        """Hold what the daemon said: its code, its message, and its error data (may be None)."""
        told = data if isinstance(data, dict) else {}
        details = told.get("details")
        super().__init__(message, advice=str(told.get("advice") or ""))
        self.details = dict(details) if isinstance(details, dict) else {}
        self.remote_code = code if code > 0 else 1000
        self.name = str(told.get("name") or "RemoteError")
        self.remote_fault = str(told.get("fault") or "self")

    def as_data(self) -> dict[str, Any]:
        """The error as plain data, under the code that the daemon gave."""
        return {
            **super().as_data(),
            "code": self.remote_code,
            "name": self.name,
            "fault": self.remote_fault,
        }


def exit_code(error: ChanneldError) -> int:
    """The exit code of an error: 3 where nothing answers, else 10 + the thousands of its code."""
    if isinstance(error, UnreachableError):
        return EXIT_UNREACHABLE
    code = error.remote_code if isinstance(error, RemoteError) else error.code
    return 10 + min(9, code // 1000)
