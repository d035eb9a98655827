"""The one MessagePack that travels: canonical, bounded, without floats, maps or extension types.

Rules: a value has exactly one encoding, the shortest; bytes that are not exactly what `encode` gives for the value they
stand for are refused, so whatever is hashed or signed over bytes is hashed over the value too. The values are integers
of 64 bits (-2**63 to 2**64 - 1), bytes (bin), text (str, UTF-8), True, False, None and arrays of these. Wider integers
travel as fixed-length bin, which is their caller's business. Every refusal is a CodecError: no bytes make `decode`
raise anything else, or cost more than a small multiple of their size and 32 MB.
"""

from __future__ import annotations

from typing import Any

import msgpack

from channeld.core.errors import Fault, PeerError

MAX_SIZE = 1 << 20
MAX_DEPTH = 16
# What an array claims is allocated before its elements are seen, on each of the parser's 1024 levels: this bounds it.
MAX_ELEMENTS = 4096

_PLAIN = frozenset((int, bytes, str, bool, type(None)))
_SUBTYPES = (int, bytes, str)
_PARSER_ERRORS = (
    msgpack.exceptions.UnpackException,
    ValueError,
    TypeError,
    OverflowError,
    RecursionError,
    MemoryError,
)


class CodecError(PeerError):
    """Bytes that are not one canonical MessagePack value within the limits."""

    code = 3200
    advice = "The peer's software does not speak this protocol version, or its data were damaged; compare versions."


class MalformedEncodingError(CodecError):
    """Not MessagePack: truncated, trailing bytes, an invalid byte or text that is not UTF-8."""

    code = 3201


class NotCanonicalError(CodecError):
    """MessagePack, but not in the shortest form of its value."""

    code = 3202


class TooLargeError(CodecError):
    """More bytes than the place allows, or an array of more than 4096 elements."""

    code = 3203


class TooDeepError(CodecError):
    """Arrays nested more deeply than the place allows."""

    code = 3204


class ForbiddenTypeError(CodecError):
    """A float, a map or an extension type, which this protocol never uses."""

    code = 3205


class NotEncodableError(CodecError):
    """A value handed to `encode` that the protocol cannot carry: an error of the program, or of its input."""

    code = 3206
    fault = Fault.SELF
    advice = "Only integers of 64 bits, bytes, text, booleans, None and arrays of these can be sent."


def _refuse_map(_pairs: object) -> object:
    raise ForbiddenTypeError("a map, which this protocol never uses") from None


def _refuse_extension(kind: int, _data: bytes) -> object:
    raise ForbiddenTypeError(f"an extension type ({kind}), which this protocol never uses") from None


_pack = msgpack.Packer(use_bin_type=True, autoreset=True).pack


def _check_outgoing(value: list[Any] | tuple[Any, ...], room: int) -> None:
    """Raise unless everything in an array of at most `room` levels can be carried."""
    if room <= 0:
        raise NotEncodableError(f"arrays nested more than {MAX_DEPTH} deep")
    if len(value) > MAX_ELEMENTS:
        raise NotEncodableError(f"an array of {len(value)} elements; at most {MAX_ELEMENTS}", elements=len(value))
    for item in value:
        kind = type(item)
        if kind in _PLAIN:
            continue
        if kind is list or kind is tuple:
            _check_outgoing(item, room - 1)
        elif not isinstance(item, _SUBTYPES):
            raise NotEncodableError(f"a {kind.__name__} cannot be encoded")


def encode(value: Any) -> bytes:  # noqa: ANN401 - a recursive type would cost every caller a cast
    """The canonical bytes of a value: 64-bit int, bytes, str, bool, None, or a list or tuple of these.

    Raises:
        NotEncodableError: another type, an integer beyond 64 bits, text that is not Unicode, an array of more than 4096
            elements or nested more than 16 deep.

    """
    kind = type(value)
    if kind is list or kind is tuple:
        _check_outgoing(value, MAX_DEPTH)
    elif kind not in _PLAIN and not isinstance(value, _SUBTYPES):
        raise NotEncodableError(f"a {kind.__name__} cannot be encoded")
    try:
        packed: bytes = _pack(value)
    except (OverflowError, ValueError, TypeError) as error:
        raise NotEncodableError(f"the value cannot be encoded: {error}") from error
    return packed


def encode_checked(value: Any) -> bytes:  # noqa: ANN401 - as encode
    """The canonical bytes of a value that is known to be one: made of fields which their classes have checked."""
    packed: bytes = _pack(value)
    return packed


def _check_incoming(value: list[Any], room: int, max_depth: int) -> None:
    """Raise if an array has floats or more than `room` levels; the parser has refused maps and extensions."""
    if room <= 0:
        raise TooDeepError(f"arrays nested more than {max_depth} deep", max_depth=max_depth)
    for item in value:
        kind = type(item)
        if kind is list:
            _check_incoming(item, room - 1, max_depth)
        elif kind is float:
            raise ForbiddenTypeError("a float, which this protocol never uses")


def decode(raw: bytes, max_size: int = MAX_SIZE, max_depth: int = MAX_DEPTH) -> Any:  # noqa: ANN401 - as encode
    """The value whose canonical encoding is exactly `raw`; arrays come back as lists.

    Args:
        raw: the bytes.
        max_size: bytes allowed.
        max_depth: levels of arrays allowed; a plain value has none.

    Raises:
        CodecError: one of its subclasses, for everything else.

    """
    if len(raw) > max_size:
        raise TooLargeError(f"{len(raw)} bytes; at most {max_size}", size=len(raw), max_size=max_size)
    try:
        value = msgpack.unpackb(
            raw,
            raw=False,
            use_list=True,
            object_hook=_refuse_map,
            ext_hook=_refuse_extension,
            max_map_len=0,
            max_ext_len=0,
            max_array_len=MAX_ELEMENTS,
        )
    except _PARSER_ERRORS as error:
        raise _translated(error) from None
    if type(value) is list:
        _check_incoming(value, max_depth, max_depth)
    elif type(value) is float:
        raise ForbiddenTypeError("a float, which this protocol never uses")
    if _pack(value) != raw:
        raise NotCanonicalError("MessagePack that is not in its shortest form")
    return value


def _translated(error: Exception) -> CodecError:
    """The CodecError for one of the parser's exceptions."""
    if isinstance(error, msgpack.exceptions.StackError | RecursionError):
        return TooDeepError("arrays nested more deeply than any message of this protocol")
    if isinstance(error, msgpack.ExtraData):
        return MalformedEncodingError(f"{len(error.extra)} bytes after the end of the value")
    text = str(error)
    if "max_array_len" in text:
        return TooLargeError(f"an array of more than {MAX_ELEMENTS} elements", max_elements=MAX_ELEMENTS)
    if "max_map_len" in text:
        return ForbiddenTypeError("a map, which this protocol never uses")
    if "max_ext_len" in text:
        return ForbiddenTypeError("an extension type, which this protocol never uses")
    return MalformedEncodingError(f"not MessagePack: {text or type(error).__name__}")
