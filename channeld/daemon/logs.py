"""Logs: structlog to standard error or a file, for people or as JSON lines; channel and version on every line.

Rules: an event is a short fixed text, what varies goes into named fields. What a task is working on is bound once with
`working_on` and then stands on each of its lines, also those of libraries. No secret is written: fields whose name says
secret are blanked wherever they are nested, credentials inside URLs are cut out, tracebacks show no local variables.
Bytes are written as 0x hexadecimal, so nobody formats ids by hand. A log that cannot be written never stops the daemon.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import structlog
from structlog.contextvars import bound_contextvars

from channeld.core.errors import ChanneldError, SetupError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from structlog.typing import EventDict, Processor, WrappedLogger

REDACTED = "(secret)"
MAX_BYTES_SHOWN = 64
MAX_DEPTH = 6

_SECRET_NAME = re.compile(
    r"(^|_)(private|secret|password|passphrase|passwd|token|seed|mnemonic|authorization|bearer|cookie|apikey"
    r"|api_key|signing_key|static_key|session_key|key_material|keyfile_json)(_|s?$)",
    re.IGNORECASE,
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_URL_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY_SECRET = re.compile(r"(?i)([?&](?:api_?key|key|token|secret|password|auth)=)[^&#\s]+")
_JSON_TRACEBACKS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
_BEARER = re.compile(r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/=-]+")


class LogFileError(SetupError):
    """The log file cannot be opened."""

    code = 7008
    advice = "Correct file under [log], or leave it empty to log to standard error."


def is_secret_name(name: str) -> bool:
    """Whether a field of this name is never written. Public tokens (addresses, amounts) have other names."""
    return _SECRET_NAME.search(_CAMEL.sub("_", name).replace("-", "_")) is not None


def _clean(value: Any, depth: int = 0) -> Any:  # noqa: ANN401 - anything may be logged
    if isinstance(value, str):
        if "://" in value:
            value = _QUERY_SECRET.sub(r"\1" + REDACTED, _URL_CREDENTIALS.sub(REDACTED + "@", value))
        return _BEARER.sub(r"\1" + REDACTED, value)
    if isinstance(value, bytes | bytearray | memoryview):
        raw = bytes(value)
        shown = "0x" + raw[:MAX_BYTES_SHOWN].hex()
        return shown if len(raw) <= MAX_BYTES_SHOWN else f"{shown}... ({len(raw)} bytes)"
    if depth >= MAX_DEPTH:
        return "..."
    if isinstance(value, dict):
        return {
            str(k): REDACTED if isinstance(k, str) and is_secret_name(k) else _clean(v, depth + 1)
            for k, v in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item, depth + 1) for item in value]
    if isinstance(value, ChanneldError):
        return _clean(value.as_data(), depth + 1)
    return value


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: blank secrets, write bytes as hexadecimal and typed errors as data."""
    return {
        key: value if key.startswith("_") else REDACTED if is_secret_name(key) else _clean(value)
        for key, value in event.items()
    }


@contextlib.contextmanager
def working_on(*, channel: bytes | str | None = None, version: int | None = None, **fields: object) -> Iterator[None]:
    """Bind channel, version and other fields to every line that this task, or what it calls, logs inside."""
    bound: dict[str, object] = dict(fields)
    if channel is not None:
        bound["channel"] = "0x" + channel.hex() if isinstance(channel, bytes) else channel
    if version is not None:
        bound["version"] = version
    with bound_contextvars(**bound):
        yield


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines; a disk that is full or a pipe that is gone loses lines, not the daemon."""

    def __init__(self, stream: TextIO, *, owned: bool) -> None:
        """Write to a stream; an owned one is closed when another handler takes over."""
        super().__init__(stream)
        self.owned = owned

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """Say nothing: there is nowhere left to say it."""

    def retire(self) -> None:
        """Flush, and close what is ours."""
        with contextlib.suppress(OSError, ValueError):
            self.flush()
            if self.owned:
                self.stream.close()


def setup(
    level: Literal["debug", "info", "warning", "error"] = "info",
    style: Literal["console", "json"] = "console",
    *,
    file: Path | str | None = None,
    stream: TextIO | None = None,
    fields: Mapping[str, object] | None = None,
) -> None:
    """Set up logging of this process: structlog's loggers and the standard library's alike. May be called again.

    Args:
        level: the least severity written.
        style: "console" for people, "json" for one object a line.
        file: append to this file instead of `stream`.
        stream: where lines go; standard error unless given.
        fields: put on every line, such as the desk's name.

    Raises:
        LogFileError: the file cannot be opened.

    """
    target = stream or sys.stderr
    if file:
        try:
            target = Path(file).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115 - the handler closes it
        except OSError as error:
            raise LogFileError(f"log file {file}: {error.strerror}", file=str(file)) from error
    handler = _Handler(target, owned=bool(file))
    constant = dict(fields or {})

    def add_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {**constant, **event}

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        add_fields,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    # The defaults of both renderers print local variables in tracebacks, and those may be keys.
    ending: list[Processor] = (
        [_JSON_TRACEBACKS, redact, structlog.processors.JSONRenderer(default=str)]
        if style == "json"
        else [
            redact,
            structlog.dev.ConsoleRenderer(
                colors=not file and target.isatty(),
                timestamp_key="time",
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ]
    )
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        if isinstance(old, _Handler):
            old.retire()
    root.addHandler(handler)
    root.setLevel(level.upper())
    # Libraries speak at warning and above, unless someone asked for everything.
    for library in ("aiohttp.access", "asyncio", "web3", "urllib3", "eth"):
        logging.getLogger(library).setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def get_logger(name: str = "channeld") -> structlog.stdlib.BoundLogger:
    """A logger. Use: log.info("state co-signed", positions=3)."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def error_fields(error: BaseException) -> dict[str, object]:
    """Fields that describe an error: code, fault and advice where it is one of ours."""
    if isinstance(error, ChanneldError):
        data = error.as_data()
        return {"error": data["name"], "code": data["code"], "reason": data["message"], "advice": data["advice"]}
    return {"error": type(error).__name__, "reason": str(error)}
