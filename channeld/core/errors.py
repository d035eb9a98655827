"""Errors: every refusal carries a stable code, whose fault it is, and what to do next.

    ChanneldError
     |-- InputError          1000-1999   what a user or program asked for cannot be done as asked
     |-- RuleError           2000-2999   a batch, state or terms break a rule of the protocol
     |-- PeerError           3000-3999   the counterparty sent something wrong, or nothing
     |-- OracleError         4000-4999   packages are missing, malformed, stale or not signed as they must be
     |-- ChainError          5000-5999   the chain, its endpoint or a contract
     |-- StoreError          6000-6999   disk, database, lock
     |-- SetupError          7000-7999   configuration, keystore, environment
     '-- InternalError       9000-9999   a bug here: nothing was signed, report it

Rules: a class has one code, forever. Codes are unique (checked when a class is made). A message says what is wrong
with the figures; `advice` says what to do. Nothing that raises one of these has changed any state.
"""

from __future__ import annotations

import enum
from typing import Any, ClassVar


class Fault(enum.Enum):
    """Whose fault an error is."""

    USER = "user"
    PEER = "peer"
    ORACLE = "oracle"
    CHAIN = "chain"
    DISK = "disk"
    SELF = "self"


REGISTRY: dict[int, type[ChanneldError]] = {}


class ChanneldError(Exception):
    """The root. `str(error)` is the message; `details` holds the figures as plain data."""

    code: ClassVar[int] = 0
    fault: ClassVar[Fault] = Fault.SELF
    advice: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Register the class under its code.

        Raises:
            TypeError: when another class holds the code already.

        """
        super().__init_subclass__(**kwargs)
        if "code" in cls.__dict__:
            other = REGISTRY.get(cls.code)
            if other is not None and other.__qualname__ != cls.__qualname__:
                message = f"error code {cls.code} is taken by {other.__qualname__}"
                raise TypeError(message)
            REGISTRY[cls.code] = cls

    def __init__(self, message: str, *, advice: str | None = None, **details: Any) -> None:  # noqa: ANN401 - figures
        """Hold the message, what to do next (the class's own advice where none is given), and the figures."""
        super().__init__(message)
        self.next_step = advice if advice is not None else self.advice
        self.details = details

    def as_data(self) -> dict[str, Any]:
        """The error as plain data, for `--json` and the API."""
        return {
            "code": self.code,
            "name": type(self).__name__,
            "fault": self.fault.value,
            "message": str(self),
            "advice": self.next_step,
            "details": {k: v if isinstance(v, int | str | bool | None) else str(v) for k, v in self.details.items()},
        }


class InputError(ChanneldError):
    """What a user or program asked for cannot be done as asked."""

    code = 1000
    fault = Fault.USER


class MalformedNumberError(InputError):
    """A text that should be a decimal number is not, or has too many places."""

    code = 1001
    advice = "Write a plain decimal such as 3000 or 0.25, with at most the places the field allows."


class RuleError(ChanneldError):
    """A batch, state or terms break a rule of the protocol. Nothing was changed."""

    code = 2000
    fault = Fault.PEER


class InvalidStateError(RuleError):
    """A state, account or position that the protocol does not allow."""

    code = 2001


class InvalidTermsError(RuleError):
    """Terms that could not be enforced; the contract would refuse to open them too."""

    code = 2002
    fault = Fault.USER
    advice = "Correct the named field of the terms; both desks must use the same terms."


class PeerError(ChanneldError):
    """The counterparty sent something wrong, or nothing."""

    code = 3000
    fault = Fault.PEER


class OracleError(ChanneldError):
    """Oracle packages are missing, malformed, stale, or not signed as they must be."""

    code = 4000
    fault = Fault.ORACLE


class ChainError(ChanneldError):
    """The chain, its endpoint or a contract."""

    code = 5000
    fault = Fault.CHAIN


class StoreError(ChanneldError):
    """Disk, database or lock."""

    code = 6000
    fault = Fault.DISK


class SetupError(ChanneldError):
    """Configuration, keystore or environment."""

    code = 7000
    fault = Fault.USER


class InternalError(ChanneldError):
    """A bug here. Nothing was signed."""

    code = 9000
    advice = "This is a bug: keep the data directory as it is and report the log."
