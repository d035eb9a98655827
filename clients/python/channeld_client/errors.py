"""Every way in which a call can fail, with a code, whose fault it is, and what to do.

    ClientError
     |-- NoDaemonError          1290   nothing answers; the request was not carried out
     |-- AnswerLostError        1291   the connection broke after the request had gone: it may have been carried out
     |-- UnreadableAnswerError  1292   what answers is no daemon
     |-- EventsLostError        1293   the daemon's record of events ends before what was heard
     |-- BadRequestError        1294   an argument that cannot be sent, such as a float for an amount
     '-- DaemonError            the daemon's own code (docs/errors.md): it refused
          |-- InvalidRequestError   1000-1999     |-- OracleTroubleError   4000-4999
          |    |-- NotAllowedError  1210, 1262    |-- ChainTroubleError    5000-5999
          |    '-- TooOftenError    1263          |-- DiskTroubleError     6000-6999
          |-- RuleBrokenError       2000-2999     |-- SetupFailedError     7000-7999
          |    '-- MarginError      2210          '-- DaemonFailedError    9000-9999, and JSON-RPC's own
          '-- PeerFailedError       3000-3999

Rules: what a DaemonError tells was refused and has changed nothing. After an AnswerLostError nobody knows: look first.
"""

from __future__ import annotations

import enum
from typing import Any


class Fault(enum.Enum):
    """Whose fault an error is."""

    USER = "user"
    PEER = "peer"
    ORACLE = "oracle"
    CHAIN = "chain"
    DISK = "disk"
    SELF = "self"
    NETWORK = "network"


class ClientError(Exception):
    """The root. `str(error)` is the message."""

    code: int = 1200
    fault: Fault = Fault.SELF
    advice: str = ""

    def __init__(self, message: str, *, advice: str | None = None, details: dict[str, Any] | None = None) -> None:
        """Hold the message, what to do (the class's own where none is given), and the figures."""
        super().__init__(message)
        self.advice = advice if advice is not None else type(self).advice
        self.details: dict[str, Any] = details or {}


class NoDaemonError(ClientError):
    """Nothing answers there. The request did not arrive."""

    code = 1290
    fault = Fault.NETWORK
    advice = "Start the daemon with `channeld run`, or correct the URL."


class AnswerLostError(ClientError):
    """The connection broke between a request and its answer, and the method must not be asked twice by itself."""

    code = 1291
    fault = Fault.NETWORK
    advice = "Look at the channel's version, offers and events before asking again: it may have been carried out."


class UnreadableAnswerError(ClientError):
    """What answers speaks no JSON-RPC."""

    code = 1292
    fault = Fault.NETWORK
    advice = "The URL is another program's, or a proxy's; it must end in the daemon's api.listen."


class EventsLostError(ClientError):
    """The daemon's record of events ends before what was heard already: it runs on an older copy of its records."""

    code = 1293
    fault = Fault.DISK
    advice = "Take the whole state anew (channels, positions, orders), then follow the events from 0."


class BadRequestError(ClientError):
    """An argument that has no place in a request."""

    code = 1294
    fault = Fault.USER
    advice = "Amounts are texts, integers or Decimals, never floats."


class DaemonError(ClientError):
    """The daemon refused, and nothing has changed. `code` and `name` are those of docs/errors.md."""

    def __init__(self, code: int, message: str, data: dict[str, Any] | None = None) -> None:
        """From the error of a JSON-RPC answer."""
        told = data if isinstance(data, dict) else {}
        found = told.get("details")
        super().__init__(
            message, advice=str(told.get("advice") or ""), details=found if isinstance(found, dict) else {}
        )
        self.code = code
        self.name = str(told.get("name") or "")
        try:
            self.fault = Fault(told.get("fault"))
        except ValueError:
            self.fault = Fault.SELF


class InvalidRequestError(DaemonError):
    """What was asked for cannot be done as asked (1000-1999)."""


class NotAllowedError(InvalidRequestError):
    """The token is none (1210), or lacks the scope (1262)."""


class TooOftenError(InvalidRequestError):
    """More requests than the daemon allows this token (1263)."""


class RuleBrokenError(DaemonError):
    """It would break a rule of the protocol (2000-2999)."""


class MarginError(RuleBrokenError):
    """A party would stand below its margin (2210); `details` has the figures."""


class PeerFailedError(DaemonError):
    """The counterparty refused, or did not answer (3000-3999)."""


class OracleTroubleError(DaemonError):
    """Prices are missing or not good enough (4000-4999)."""


class ChainTroubleError(DaemonError):
    """The chain or its endpoint (5000-5999)."""


class DiskTroubleError(DaemonError):
    """The daemon's disk or database (6000-6999)."""


class SetupFailedError(DaemonError):
    """The daemon's configuration (7000-7999)."""


class DaemonFailedError(DaemonError):
    """A bug of the daemon (9000-9999), or a request that it could not read (JSON-RPC's own codes)."""


_EXACT: dict[int, type[DaemonError]] = {
    1210: NotAllowedError,
    1262: NotAllowedError,
    1263: TooOftenError,
    2210: MarginError,
}
_FAMILIES: dict[int, type[DaemonError]] = {
    1: InvalidRequestError,
    2: RuleBrokenError,
    3: PeerFailedError,
    4: OracleTroubleError,
    5: ChainTroubleError,
    6: DiskTroubleError,
    7: SetupFailedError,
}


def daemon_error(error: dict[str, Any]) -> DaemonError:
    """The error of a JSON-RPC answer, as the class of its code."""
    number = error.get("code")
    code = number if isinstance(number, int) else 0
    kind = _EXACT.get(code) or _FAMILIES.get(code // 1000, DaemonFailedError)
    return kind(code, str(error.get("message") or "the daemon gives no reason"), error.get("data"))
