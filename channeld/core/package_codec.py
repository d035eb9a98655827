"""RedStone data packages and payloads as bytes, both ways. Import these names from `channeld.core.packages`.

Rules: those at the top of `channeld.core.packages`. One package has exactly one encoding, so that decoding and encoding
give the same bytes. Recovering a signer costs far more than all the rest: done once for given bytes, and remembered.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from channeld.core.crypto import SignatureError, keccak256, recover, sign_digest
from channeld.core.errors import OracleError
from channeld.core.terms import feed_symbol

if TYPE_CHECKING:
    from collections.abc import Sequence

MARKER = bytes.fromhex("000002ed57011e0000")
MAX_POINTS = 64
MAX_VALUE_SIZE = 32
VALUE_DECIMALS = 8
FEED_SIZE, SIGNATURE_SIZE = 32, 65
_TIME_SIZE, _VALUE_SIZE_SIZE, _COUNT_SIZE = 6, 4, 3
_TRAILER = _TIME_SIZE + _VALUE_SIZE_SIZE + _COUNT_SIZE
_PACKAGES_SIZE, _METADATA_SIZE = 2, 3
_REMEMBERED = 4096


class MalformedPackageError(OracleError):
    """Bytes that are no signed data package."""

    code = 4001
    advice = "Fetch the package again, from another source if it stays so."


class RepeatedFeedError(MalformedPackageError):
    """A feed stands twice in one package."""

    code = 4002


class ZeroValueError(OracleError):
    """A package reports a value of zero, which is no price."""

    code = 4003
    advice = "Leave the package out; ask its signer why it reports zero."


class PackageSignatureError(OracleError):
    """The signature of a package is no signature: out of range, high-s, or a v other than 27 and 28."""

    code = 4004
    advice = "Fetch the package again, from another source if it stays so."


class MalformedPayloadError(OracleError):
    """Bytes that are no payload: marker, metadata or package count do not fit."""

    code = 4010
    advice = "Pass the payload whole, as it was appended to the transaction, or signed packages one after another."


@dataclass(frozen=True, slots=True)
class DataPoint:
    """One value of one feed. feed: 32 bytes; value: an integer with 8 decimals."""

    feed: bytes
    value: int


@dataclass(frozen=True, slots=True)
class Package:
    """A data package. timestamp_ms in milliseconds; value_size in bytes; signature 65 bytes, empty before signing."""

    points: tuple[DataPoint, ...]
    timestamp_ms: int
    value_size: int = 32
    signature: bytes = b""

    def value(self, feed: bytes) -> int | None:
        """The value of a feed, with 8 decimals; None where the package does not carry it."""
        return next((point.value for point in self.points if point.feed == feed), None)


@dataclass(frozen=True, slots=True)
class Payload:
    """What is appended to a transaction: signed packages, byte for byte, and unsigned metadata."""

    packages: tuple[bytes, ...]
    metadata: bytes = b""


def check_rules(package: Package) -> None:
    """Refuse what is refused whoever signed it: bounds, a feed twice, a zero."""
    if not 1 <= package.value_size <= MAX_VALUE_SIZE:
        raise MalformedPackageError(f"a value size of {package.value_size} bytes lies outside 1..{MAX_VALUE_SIZE}")
    if not 1 <= len(package.points) <= MAX_POINTS:
        raise MalformedPackageError(f"{len(package.points)} points lie outside 1..{MAX_POINTS}")
    seen: set[bytes] = set()
    for point in package.points:
        if point.feed in seen:
            raise RepeatedFeedError(f"feed {feed_symbol(point.feed)} stands twice in one package")
        seen.add(point.feed)
        if point.value == 0:
            raise ZeroValueError(f"the package reports zero for feed {feed_symbol(point.feed)}")


def encode_package(package: Package) -> bytes:
    """The bytes of a package: the signed package where it has its signature, else the bytes to be signed.

    Raises:
        MalformedPackageError, RepeatedFeedError, ZeroValueError: it breaks a rule that its reader would refuse it for.

    """
    check_rules(package)
    if not 0 <= package.timestamp_ms < 1 << (8 * _TIME_SIZE):
        raise MalformedPackageError(f"timestamp {package.timestamp_ms} ms does not fit 6 bytes")
    if len(package.signature) not in (0, SIGNATURE_SIZE):
        raise MalformedPackageError(f"a signature of {len(package.signature)} bytes; it must be {SIGNATURE_SIZE}")
    out = bytearray()
    for point in package.points:
        if len(point.feed) != FEED_SIZE or not 0 < point.value < 1 << (8 * package.value_size):
            raise MalformedPackageError(f"{point} does not fit a point of 32 and {package.value_size} bytes")
        out += point.feed + point.value.to_bytes(package.value_size, "big")
    out += package.timestamp_ms.to_bytes(_TIME_SIZE, "big")
    out += package.value_size.to_bytes(_VALUE_SIZE_SIZE, "big")
    out += len(package.points).to_bytes(_COUNT_SIZE, "big")
    return bytes(out) + package.signature


def sign_package(private_key: bytes, timestamp_ms: int, points: Sequence[DataPoint], *, value_size: int = 32) -> bytes:
    """A signed package of these points, which are put in ascending order of feed.

    Raises:
        MalformedPackageError, RepeatedFeedError, ZeroValueError: it would be refused by its reader.

    """
    ordered = tuple(sorted(points, key=lambda point: point.feed))
    body = encode_package(Package(ordered, timestamp_ms, value_size))
    return body + sign_digest(private_key, keccak256(body))


def parse_last(raw: bytes, end: int) -> tuple[int, Package]:
    """Where the package that ends at `end` starts, and the package; bounds checked, the other rules not yet."""
    trailer = end - SIGNATURE_SIZE - _TRAILER
    if trailer < 0:
        raise MalformedPackageError(f"{end} bytes are too few for a signed package", offset=end)
    at = trailer + _TIME_SIZE
    timestamp = int.from_bytes(raw[trailer:at], "big")
    value_size = int.from_bytes(raw[at : at + _VALUE_SIZE_SIZE], "big")
    at += _VALUE_SIZE_SIZE
    count = int.from_bytes(raw[at : at + _COUNT_SIZE], "big")
    if not 1 <= value_size <= MAX_VALUE_SIZE:
        raise MalformedPackageError(f"a value size of {value_size} bytes lies outside 1..{MAX_VALUE_SIZE}", offset=end)
    if not 1 <= count <= MAX_POINTS:
        raise MalformedPackageError(f"{count} points lie outside 1..{MAX_POINTS}", offset=end)
    size = FEED_SIZE + value_size
    start = trailer - count * size
    if start < 0:
        raise MalformedPackageError(f"{count} points need {count * size} bytes, {trailer} are there", offset=end)
    points = tuple(
        DataPoint(raw[i : i + FEED_SIZE], int.from_bytes(raw[i + FEED_SIZE : i + size], "big"))
        for i in range(start, trailer, size)
    )
    return start, Package(points, timestamp, value_size, raw[end - SIGNATURE_SIZE : end])


def octets_of(raw: bytes) -> bytes:
    """Immutable bytes of anything bytes-like; MalformedPackageError for anything else."""
    if not isinstance(raw, bytes | bytearray | memoryview):
        raise MalformedPackageError(f"a package must be bytes, not {type(raw).__name__}")
    return bytes(raw)


def decode_package(raw: bytes) -> Package:
    """The package that `raw` is, exactly; its signature is looked at by `recover_signer` alone.

    Raises:
        MalformedPackageError, RepeatedFeedError, ZeroValueError: as the module's rules say.

    """
    raw = octets_of(raw)
    start, package = parse_last(raw, len(raw))
    if start:
        raise MalformedPackageError(f"{start} bytes stand before the package")
    check_rules(package)
    return package


@lru_cache(maxsize=_REMEMBERED)
def recovered(raw: bytes) -> bytes:
    """The signer of bytes that `parse_last` has read as one package; PackageSignatureError where there is none."""
    body, signature = raw[:-SIGNATURE_SIZE], raw[-SIGNATURE_SIZE:]
    try:
        return recover(keccak256(body), signature)
    except SignatureError as error:
        raise PackageSignatureError(f"the package's signature is refused: {error}") from error


def recover_signer(raw: bytes) -> bytes:
    """The address (20 bytes) that signed a package.

    Raises:
        MalformedPackageError, RepeatedFeedError, ZeroValueError: as `decode_package`.
        PackageSignatureError: the signature is none.

    """
    raw = octets_of(raw)
    decode_package(raw)
    return recovered(raw)


def split_packages(raw: bytes) -> tuple[bytes, ...]:
    """Signed packages that stand one after another, in their order; none for no bytes. Values are not yet judged.

    Raises:
        MalformedPackageError: with the offset of the end of the package that cannot be read.

    """
    raw = octets_of(raw)
    found: list[bytes] = []
    end = len(raw)
    while end:
        start, _ = parse_last(raw, end)
        found.append(raw[start:end])
        end = start
    return tuple(reversed(found))


def payload_frame(raw: bytes) -> tuple[int, int, bytes]:
    """Where a payload's packages end, how many it says there are, and its metadata."""
    if not raw.endswith(MARKER):
        raise MalformedPayloadError("the marker 0x000002ed57011e0000 is missing at the end")
    at = len(raw) - len(MARKER) - _METADATA_SIZE
    if at < 0:
        raise MalformedPayloadError("too few bytes before the marker")
    metadata_size = int.from_bytes(raw[at : at + _METADATA_SIZE], "big")
    count_at = at - metadata_size - _PACKAGES_SIZE
    if count_at < 0:
        raise MalformedPayloadError(f"{metadata_size} bytes of metadata and a count do not fit before the marker")
    count = int.from_bytes(raw[count_at : count_at + _PACKAGES_SIZE], "big")
    return count_at, count, raw[count_at + _PACKAGES_SIZE : at]


def split_payload(raw: bytes) -> Payload:
    """A payload's signed packages, as bytes and in order, and its metadata.

    Raises:
        MalformedPayloadError: the frame does not fit, or the count is not that of the packages.
        MalformedPackageError: a package cannot be read.

    """
    raw = octets_of(raw)
    end, count, metadata = payload_frame(raw)
    packages = split_packages(raw[:end])
    if len(packages) != count:
        raise MalformedPayloadError(f"the payload says {count} packages and holds {len(packages)}")
    return Payload(packages, metadata)


def decode_payload(raw: bytes) -> list[Package]:
    """The packages of a payload, in order.

    Raises:
        MalformedPayloadError: as `split_payload`.
        MalformedPackageError, RepeatedFeedError, ZeroValueError: as `decode_package`.

    """
    return [decode_package(package) for package in split_payload(raw).packages]


def encode_payload(packages: Sequence[bytes], metadata: bytes = b"") -> bytes:
    """The payload of these signed packages, in this order.

    Raises:
        MalformedPackageError, RepeatedFeedError, ZeroValueError: one of them is no package.
        MalformedPayloadError: too many packages, or too long metadata, for their counts.

    """
    if len(packages) >= 1 << (8 * _PACKAGES_SIZE) or len(metadata) >= 1 << (8 * _METADATA_SIZE):
        raise MalformedPayloadError(f"{len(packages)} packages and {len(metadata)} bytes of metadata exceed a payload")
    for package in packages:
        decode_package(package)
    count = len(packages).to_bytes(_PACKAGES_SIZE, "big")
    return b"".join(packages) + count + metadata + len(metadata).to_bytes(_METADATA_SIZE, "big") + MARKER
