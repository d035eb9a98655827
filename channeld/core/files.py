"""Terms, bodies and states as JSON data, read strictly; batches as JSON data for people.

Rules: fields have the protocol's own names (docs/protocol.md, section 3), all of them and no others. Addresses are 0x
and 40 hexadecimal digits (in mixed case they must carry the right EIP-55 checksum); other bytes are 0x and all their
digits; a feed may be its symbol, and no feed at all the empty text. Integers, wads included, are JSON integers or
decimal texts without a point; floats are refused. A position's kind may be its name. What typed data shows a wallet
reads back as it is. Every error names the field by its path, such as `terms.oracle.signers[1]`.

Reading and writing files is the caller's: this module sees parsed data alone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from channeld.core.crypto import checksum_address
from channeld.core.eip712 import TYPES, attribute, field_value
from channeld.core.errors import InputError, InvalidStateError, InvalidTermsError
from channeld.core.instruments import feed_text, instrument_name, parse_feed
from channeld.core.operations import (
    NAMES,
    Batch,
    Deposit,
    Mark,
    Operation,
    Trade,
    Transfer,
    Withdraw,
)
from channeld.core.state import Account, Body, Instrument, Kind, Position, State
from channeld.core.terms import ZERO_FEED, Market, Oracle, Party, Terms
from channeld.core.wad import format_decimal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_INTEGER = re.compile(r"-?\d{1,78}", re.ASCII)
_HEX = re.compile(r"0x(?:[0-9a-fA-F]{2})*", re.ASCII)
_SAFE_INTEGER = 1 << 53
_FEEDS = frozenset({"feed", "collateralFeed"})
_T = TypeVar("_T")


class FileFormatError(InputError):
    """Data of a file that does not read as what it should be; the message names the field."""

    code = 1012
    advice = "Correct the named field; docs/protocol-operations.md describes the file formats."


def _refuse(path: str, why: str) -> NoReturn:
    raise FileFormatError(f"{path}: {why}", field=path)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _integer(kind: str, value: object, path: str) -> int:
    """A JSON integer or a decimal text, within the type `kind` (uint64, int128, ...)."""
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        value = int(value)
    if type(value) is not int:
        _refuse(path, f"must be an integer, or one as text without a point, not {_shown(value)}")
    bits = int(kind.lstrip("uint"))
    low, high = (0, (1 << bits) - 1) if kind.startswith("u") else (-(1 << bits - 1), (1 << bits - 1) - 1)
    if not low <= value <= high:
        _refuse(path, f"must fit {kind}, which {_shown(value)} does not")
    return value


def _hex(value: object, size: int, path: str) -> bytes:
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        _refuse(path, f"must be 0x and {2 * size} hexadecimal digits, not {_shown(value)}")
    raw = bytes.fromhex(value[2:])
    if len(raw) != size:
        _refuse(path, f"must be {size} bytes, not {len(raw)}")
    return raw


def address_from_text(value: object, path: str = "address") -> bytes:
    """The 20 bytes of an address: 0x and 40 digits; mixed case must carry the right EIP-55 checksum.

    Raises:
        FileFormatError: naming `path`.

    """
    raw = _hex(value, 20, path)
    digits = str(value)[2:]
    if digits not in (digits.lower(), digits.upper()) and checksum_address(raw) != value:
        _refuse(path, f"{value} has a wrong checksum (EIP-55): a digit or a letter's case is mistyped")
    return raw


def _feed(value: Any, path: str) -> bytes:  # noqa: ANN401 - parsed JSON
    if value == "":
        return ZERO_FEED
    try:
        return parse_feed(value)
    except InputError as error:
        _refuse(path, str(error))


def _kind(value: object, path: str) -> int:
    if isinstance(value, str) and value.upper() in Kind.__members__:
        return Kind[value.upper()]
    number = _integer("uint8", value, path)
    if number > max(Kind):
        _refuse(path, f"must be 0 to {int(max(Kind))} or one of {', '.join(Kind.__members__)}")
    return number


def _read(kind: str, value: object, path: str) -> Any:  # noqa: ANN401 - what the type says
    """A value of an EIP-712 type from JSON data."""
    if kind.endswith("[]"):
        if not isinstance(value, list):
            _refuse(path, f"must be a list, not {_shown(value)}")
        return tuple(_read(kind[:-2], item, f"{path}[{n}]") for n, item in enumerate(value))
    if kind in TYPES:
        return _struct(kind, value, path)
    if kind == "address":
        return address_from_text(value, path)
    if kind.startswith("bytes"):
        return _hex(value, int(kind[5:]), path)
    return _integer(kind, value, path)


def _fields(primary: str, value: object, path: str) -> dict[str, Any]:
    """Every field of a struct, read; refuses what is missing and what is unknown."""
    if not isinstance(value, dict):
        _refuse(path, f"must be an object, not {_shown(value)}")
    names = [name for _, name in TYPES[primary]]
    for name in names:
        if name not in value:
            _refuse(f"{path}.{name}", "is missing")
    for name in value:
        if name not in names:
            _refuse(f"{path}.{name}", f"is no field of {primary}; its fields are {', '.join(names)}")
    found: dict[str, Any] = {}
    for kind, name in TYPES[primary]:
        inner = f"{path}.{name}"
        if name in _FEEDS:
            found[name] = _feed(value[name], inner)
        elif name == "kind":
            found[name] = _kind(value[name], inner)
        else:
            found[name] = _read(kind, value[name], inner)
    return found


def _position(**fields: Any) -> Position:  # noqa: ANN401 - the fields of the struct
    names = ("kind", "feed", "expiry", "strike")
    kind, feed, expiry, strike = (fields.pop(name) for name in names)
    return Position(Instrument(Kind(kind), feed, expiry, strike), **fields)


_MAKERS: dict[str, Callable[..., Any]] = {
    "Party": Party,
    "Oracle": Oracle,
    "Market": Market,
    "Terms": Terms,
    "Account": Account,
    "Position": _position,
    "Body": Body,
    "State": State,
}


def _struct(primary: str, value: object, path: str) -> Any:  # noqa: ANN401 - an instance of the struct
    fields = _fields(primary, value, path)
    try:
        return _MAKERS[primary](**{attribute(name): item for name, item in fields.items()})
    except (InvalidTermsError, InvalidStateError) as error:
        raise type(error)(f"{path}: {error}", field=path) from error


def _top(made: type[_T], data: object, path: str) -> _T:
    value = _struct(made.__name__, data, path)
    assert isinstance(value, made)  # noqa: S101 - what _MAKERS says
    return value


def terms_from_json(data: Mapping[str, Any]) -> Terms:
    """The Terms of parsed JSON.

    Raises:
        FileFormatError: a field that is missing, unknown or of the wrong form.
        InvalidTermsError: terms that `open` would refuse.

    """
    return _top(Terms, data, "terms")


def body_from_json(data: Mapping[str, Any]) -> Body:
    """The Body of parsed JSON.

    Raises:
        FileFormatError: a field that is missing, unknown or of the wrong form.
        InvalidStateError: a body that the protocol does not allow.

    """
    return _top(Body, data, "body")


def state_from_json(data: Mapping[str, Any]) -> State:
    """The State of parsed JSON: `{channel, version, body}`.

    Raises:
        FileFormatError: a field that is missing, unknown or of the wrong form.
        InvalidStateError: a body that the protocol does not allow.

    """
    return _top(State, data, "state")


def _write(kind: str, name: str, value: Any) -> Any:  # noqa: ANN401 - any field
    if kind.endswith("[]"):
        return [_write(kind[:-2], name, item) for item in value]
    if kind in TYPES:
        return {n: _write(k, n, field_value(value, n)) for k, n in TYPES[kind]}
    if name in _FEEDS:
        return "" if value == ZERO_FEED else feed_text(value)
    if name == "kind":
        return Kind(value).name
    if kind == "address":
        return checksum_address(value)
    if kind.startswith("bytes"):
        return "0x" + value.hex()
    return int(value) if abs(value) < _SAFE_INTEGER else str(int(value))


def terms_to_json(terms: Terms) -> dict[str, Any]:
    """Terms as JSON data that `terms_from_json` reads back; integers beyond 2**53 as text."""
    data: dict[str, Any] = _write("Terms", "", terms)
    return data


def body_to_json(body: Body) -> dict[str, Any]:
    """A Body as JSON data that `body_from_json` reads back."""
    data: dict[str, Any] = _write("Body", "", body)
    return data


def state_to_json(state: State) -> dict[str, Any]:
    """A State as JSON data that `state_from_json` reads back."""
    data: dict[str, Any] = _write("State", "", state)
    return data


def operation_to_json(operation: Operation) -> dict[str, Any]:
    """An operation for people: names, decimals of wads, units as text of whole units. It is not read back."""
    shown: dict[str, Any] = {"operation": NAMES[operation.code], "origin": "b" if operation.origin else "a"}
    match operation:
        case Trade():
            shown["legs"] = [
                {
                    "instrument": instrument_name(leg.instrument),
                    "sizeDelta": format_decimal(leg.size_delta),
                    "price": format_decimal(leg.price),
                    "carry": format_decimal(leg.carry),
                    "vol": format_decimal(leg.vol),
                }
                for leg in operation.legs
            ]
            shown |= {"fee": str(operation.fee), "reference": "0x" + operation.reference.hex()}
        case Mark():
            shown |= {
                "time": operation.time,
                "feeds": [feed_text(feed) for feed in operation.feeds],
                "packages": ["0x" + package.hex() for package in operation.packages],
                "carries": [format_decimal(carry) for carry in operation.carries],
                "vols": [format_decimal(vol) for vol in operation.vols],
                "flagged": [{"feed": feed_text(feed), "expiry": expiry} for feed, expiry in operation.flagged],
            }
        case Transfer():
            shown |= {"units": str(operation.units), "memo": "0x" + operation.memo.hex()}
        case Deposit():
            shown |= {"depositedA": str(operation.deposited_a), "depositedB": str(operation.deposited_b)}
        case Withdraw():
            shown["units"] = str(operation.units)
    return shown


def batch_to_json(batch: Batch) -> dict[str, Any]:
    """A batch for people: `{timeMs, salt, operations}`. The exact bytes, not this, are what the journal hashes."""
    return {
        "timeMs": batch.time_ms,
        "salt": "0x" + batch.salt.hex(),
        "operations": [operation_to_json(operation) for operation in batch.operations],
    }
