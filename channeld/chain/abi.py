"""The contract ABI: calls, returns, events and revert reasons, from the artifacts' JSON.

Rules: eth-abi encodes and decodes, and is imported when first used. Members of structs go by position; names in the ABI
do not matter. Addresses are 20 bytes on our side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from channeld.chain.errors import MalformedResponseError, UnknownLogError
from channeld.core.crypto import keccak256

if TYPE_CHECKING:
    from collections.abc import Sequence

_ERROR = bytes.fromhex("08c379a0")
_PANIC = bytes.fromhex("4e487b71")
# selector -> name, of the custom errors in the artifacts that were loaded
KNOWN_ERRORS: dict[bytes, str] = {}
_PANICS = {
    0x01: "an assertion failed",
    0x11: "arithmetic overflow",
    0x12: "division by zero",
    0x32: "index out of bounds",
}


def canonical_type(entry: dict[str, Any]) -> str:
    """The ABI type of a JSON entry, tuples spelt out."""
    kind = str(entry["type"])
    if not kind.startswith("tuple"):
        return kind
    return "(" + ",".join(canonical_type(part) for part in entry["components"]) + ")" + kind[5:]


def _normal(kind: str, value: Any) -> Any:  # noqa: ANN401 - whatever the ABI holds
    # eth-abi gives addresses as text
    if kind == "address" and isinstance(value, str):
        return bytes.fromhex(value[2:])
    return value


def encode(types: Sequence[str], values: Sequence[Any]) -> bytes:
    """ABI encoding of values."""
    from eth_abi.abi import encode as encode_abi  # noqa: PLC0415 - slow to import

    return bytes(encode_abi(types, values))


def decode(types: Sequence[str], raw: bytes) -> tuple[Any, ...]:
    """ABI decoding.

    Raises:
        MalformedResponseError: `raw` is not of these types.

    """
    from eth_abi.abi import decode as decode_abi  # noqa: PLC0415 - slow to import
    from eth_abi.exceptions import DecodingError  # noqa: PLC0415 - the same

    try:
        return tuple(_normal(kind, value) for kind, value in zip(types, decode_abi(types, raw), strict=True))
    except (DecodingError, OverflowError, ValueError) as error:
        message = f"the contract returned something that is not ({','.join(types)}): {error}"
        raise MalformedResponseError(message) from error


def revert_reason(raw: bytes) -> str:
    """What a revert says: the text of Error(string), the meaning of a Panic, a custom error's name; else empty."""
    if raw[:4] == _ERROR and len(raw) >= 68:
        size = int.from_bytes(raw[36:68], "big")
        return raw[68 : 68 + size].decode("utf-8", "replace")
    if raw[:4] == _PANIC and len(raw) == 36:
        code = int.from_bytes(raw[4:], "big")
        return _PANICS.get(code, f"panic {code:#x}")
    if len(raw) < 4:
        return ""
    return KNOWN_ERRORS.get(raw[:4], f"custom error 0x{raw[:4].hex()}")


@dataclass(frozen=True, slots=True)
class Function:
    """One function of a contract."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def signature(self) -> str:
        """Name and types."""
        return f"{self.name}({','.join(self.inputs)})"

    @property
    def selector(self) -> bytes:
        """The first four bytes of the signature's hash."""
        return keccak256(self.signature.encode())[:4]

    def encode(self, *values: Any) -> bytes:  # noqa: ANN401 - whatever the ABI holds
        """Calldata."""
        return self.selector + encode(self.inputs, values)

    def decode(self, raw: bytes) -> tuple[Any, ...]:
        """The return values.

        Raises:
            MalformedResponseError: `raw` is not of the output types.

        """
        return decode(self.outputs, raw)


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a contract: its inputs in order, as (name, type, indexed)."""

    name: str
    inputs: tuple[tuple[str, str, bool], ...]

    @property
    def topic(self) -> bytes:
        """The hash of the signature, topic 0."""
        return keccak256(f"{self.name}({','.join(kind for _, kind, _ in self.inputs)})".encode())

    def decode(self, topics: Sequence[bytes], raw: bytes) -> dict[str, Any]:
        """The inputs by name. Indexed dynamic values come as their hashes.

        Raises:
            UnknownLogError: topics or data are not this event's.

        """
        indexed = [(name, kind) for name, kind, is_indexed in self.inputs if is_indexed]
        plain = [(name, kind) for name, kind, is_indexed in self.inputs if not is_indexed]
        if len(topics) != len(indexed) + 1 or topics[0] != self.topic:
            message = f"a log is no {self.name}"
            raise UnknownLogError(message)
        values: dict[str, Any] = {}
        try:
            for (name, kind), topic in zip(indexed, topics[1:], strict=True):
                dynamic = kind in ("bytes", "string") or kind.endswith(("]", ")"))
                values[name] = topic if dynamic else decode([kind], topic)[0]
            decoded = decode([kind for _, kind in plain], raw)
        except MalformedResponseError as error:
            message = f"a log's data is not that of {self.name}"
            raise UnknownLogError(message) from error
        values.update(zip((name for name, _ in plain), decoded, strict=True))
        return {name: values[name] for name, _, _ in self.inputs}


class Abi:
    """A contract's ABI: functions by name (the one with the most inputs where Vyper made several), events by topic."""

    def __init__(self, entries: Sequence[dict[str, Any]]) -> None:
        """Read the JSON entries."""
        self.functions: dict[str, Function] = {}
        self.events: dict[bytes, Event] = {}
        self.constructor: tuple[str, ...] = ()
        for entry in entries:
            inputs = entry.get("inputs", [])
            if entry["type"] == "function":
                function = Function(
                    entry["name"],
                    tuple(canonical_type(x) for x in inputs),
                    tuple(canonical_type(x) for x in entry.get("outputs", [])),
                )
                known = self.functions.get(function.name)
                if known is None or len(known.inputs) < len(function.inputs):
                    self.functions[function.name] = function
            elif entry["type"] == "event":
                event = Event(
                    entry["name"], tuple((x["name"], canonical_type(x), bool(x.get("indexed"))) for x in inputs)
                )
                self.events[event.topic] = event
            elif entry["type"] == "constructor":
                self.constructor = tuple(canonical_type(x) for x in inputs)
