"""JSON-RPC as the devnet speaks it: errors as answers, hexadecimal quantities and data.

Rules: whatever a client sends gets a well-formed answer. Codes and messages are those of geth and anvil.
"""

from __future__ import annotations

import json
import re
from typing import Any

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
SERVER_ERROR = -32000
REVERTED = 3

MAX_DEPTH = 32
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"')
_BRACKETS = re.compile(rb"[\[\]{}]")
_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}", re.ASCII)
_DATA = re.compile(r"0x(?:[0-9a-fA-F]{2})*", re.ASCII)


class RpcFault(Exception):  # noqa: N818 - an answer of the protocol, not an error of ours
    """A JSON-RPC error answer."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:  # noqa: ANN401 - JSON
        """Hold code, message and data as they go to the client."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    def as_json(self) -> dict[str, Any]:
        """The `error` member."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.data is not None:
            error["data"] = self.data
        return error


def load(body: bytes) -> Any:  # noqa: ANN401 - JSON
    """A request's JSON, refused where it is malformed or nests deeper than any request does.

    py-evm raises Python's recursion limit so far that deep JSON would overflow the stack: the depth is counted first.
    """
    depth = 0
    for bracket in _BRACKETS.finditer(_STRINGS.sub(b"", body)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > MAX_DEPTH:
            raise RpcFault(PARSE_ERROR, "the request nests too deep")
    try:
        return json.loads(body)
    except ValueError as error:
        raise RpcFault(PARSE_ERROR, "parse error") from error


def quantity(value: object, name: str = "quantity") -> int:
    """An integer from a JSON-RPC quantity (0x...), or a plain non-negative JSON integer."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and _QUANTITY.fullmatch(value):
        return int(value, 16)
    raise RpcFault(INVALID_PARAMS, f"invalid {name}: {str(value)[:80]!r} is no quantity")


def data(value: object, name: str = "data", size: int | None = None) -> bytes:
    """Bytes from a JSON-RPC datum (0x...), of exactly `size` bytes where that is given."""
    if not isinstance(value, str) or not _DATA.fullmatch(value):
        raise RpcFault(INVALID_PARAMS, f"invalid {name}: {str(value)[:80]!r} is no 0x-prefixed data")
    raw = bytes.fromhex(value[2:])
    if size is not None and len(raw) != size:
        raise RpcFault(INVALID_PARAMS, f"invalid {name}: {len(raw)} bytes where {size} are expected")
    return raw


def hexadecimal(value: int | bytes) -> str:
    """A quantity from an integer, a datum from bytes."""
    return hex(value) if isinstance(value, int) else "0x" + value.hex()


def parameter(params: list[Any], index: int, default: Any = ...) -> Any:  # noqa: ANN401 - JSON
    """The parameter at an index; the default where it is missing or null and a default is given."""
    if index < len(params) and (params[index] is not None or default is ...):
        return params[index]
    if default is ...:
        raise RpcFault(INVALID_PARAMS, f"missing value for required argument {index}")
    return default
