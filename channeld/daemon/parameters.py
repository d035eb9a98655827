"""Parameters of the API's methods: taken by type, bounded, and named in the error where they are wrong.

Rules: numbers that mean money are decimal texts; texts are bounded and printable; whatever a caller sends,
the answer is a typed error or a result.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

from channeld.core.errors import InputError, MalformedNumberError
from channeld.core.wad import parse_decimal

Json: TypeAlias = Any
Params: TypeAlias = dict[str, Any]

MAX_TEXT = 4_096
MAX_LIST = 64
MAX_WAIT_S = 60.0
MAX_INTEGER = (1 << 63) - 1


class BadParameterError(InputError):
    """A parameter is missing, unknown or of the wrong type."""

    code = 1201
    advice = "The method's parameters are listed in docs/api.md."


def take(params: Params, name: str, kind: type | tuple[type, ...], default: Json = ...) -> Json:
    """A parameter of the right type: texts of at most 4096 characters, lists of at most 64, integers of 63 bits.

    Raises:
        BadParameterError: missing, of another type, or beyond its bound.
    """
    value = params.get(name)
    if value is None:
        if default is ...:
            raise BadParameterError(f"the parameter {name!r} is missing")
        return default
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise BadParameterError(f"the parameter {name!r} has the wrong type")
    if isinstance(value, str):
        _check_text(name, value)
    if isinstance(value, list) and len(value) > MAX_LIST:
        raise BadParameterError(f"the parameter {name!r} has more than {MAX_LIST} entries")
    if isinstance(value, int) and not 0 <= value <= MAX_INTEGER:
        raise BadParameterError(f"the parameter {name!r} must be an integer from 0 on, of at most 63 bits")
    return value


def _check_text(name: str, value: str) -> None:
    if len(value) > MAX_TEXT:
        raise BadParameterError(f"the parameter {name!r} is longer than {MAX_TEXT} characters")
    if not value.isprintable():
        # isprintable refuses lone surrogates too, which no encoding can write
        raise BadParameterError(f"the parameter {name!r} holds characters that cannot be shown")


def seconds(value: Json) -> float:
    """A waiting time, from 0 to a minute; a number, or a decimal text.

    Raises:
        BadParameterError: no such number.
    """
    try:
        found = parse_decimal(value) / 10**18 if isinstance(value, str) else float(value)
    except MalformedNumberError as error:
        raise BadParameterError(f"a waiting time is a number of seconds: {error}") from error
    if not math.isfinite(found) or found < 0:
        raise BadParameterError("a waiting time is a number of seconds from 0 on")
    return min(found, MAX_WAIT_S)


def objects(value: list[Json], name: str) -> list[Params]:
    """A list of objects.

    Raises:
        BadParameterError: an entry is none.
    """
    if not all(isinstance(one, dict) for one in value):
        raise BadParameterError(f"every entry of {name!r} must be an object")
    return value


def note(text: str, name: str, most: int) -> bytes:
    """A text that travels with an operation, at most so many bytes.

    Raises:
        BadParameterError: too long.
    """
    raw = text.encode()
    if len(raw) > most:
        raise BadParameterError(f"the parameter {name!r} is longer than {most} bytes")
    return raw
