"""A desk's daemon from Python: awaited (`Desk`) or blocking (`SyncDesk`); and a peer without a daemon (`light`).

Rules: this package's few dependencies are aiohttp and the standard library; pandas is imported by `frames` alone,
channeld itself by `light` alone. Every failure is a `ClientError` with code, fault and advice.
"""

from channeld_client.desk import Desk, SyncDesk
from channeld_client.errors import (
    AnswerLostError,
    BadRequestError,
    ChainTroubleError,
    ClientError,
    DaemonError,
    DaemonFailedError,
    DiskTroubleError,
    EventsLostError,
    Fault,
    InvalidRequestError,
    MarginError,
    NoDaemonError,
    NotAllowedError,
    OracleTroubleError,
    PeerFailedError,
    RuleBrokenError,
    SetupFailedError,
    TooOftenError,
    UnreadableAnswerError,
)
from channeld_client.events import Event, EventStream

__all__ = [
    "AnswerLostError",
    "BadRequestError",
    "ChainTroubleError",
    "ClientError",
    "DaemonError",
    "DaemonFailedError",
    "Desk",
    "DiskTroubleError",
    "Event",
    "EventStream",
    "EventsLostError",
    "Fault",
    "InvalidRequestError",
    "MarginError",
    "NoDaemonError",
    "NotAllowedError",
    "OracleTroubleError",
    "PeerFailedError",
    "RuleBrokenError",
    "SetupFailedError",
    "SyncDesk",
    "TooOftenError",
    "UnreadableAnswerError",
]
