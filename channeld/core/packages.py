"""Oracle packages: RedStone data packages, byte for byte, and the prices that a quorum of them makes.

A signed package:  point * pointCount || timestampMs (6) || valueSize (4) || pointCount (3) || signature (65)
A point:           feed (32) || value (valueSize), values with 8 decimals
A payload:         packages || packageCount (2) || metadata || metadataSize (3) || marker 0x000002ed57011e0000

Rules (docs/protocol.md section 7, docs/oracle.md; the FixBook contract follows the same ones):

* Every integer is unsigned and big-endian. A package is parsed from its end; of concatenated ones the last comes first.
* The signature is r||s||v, low-s, v 27 or 28, over keccak256 of all the bytes before it, without any prefix.
* Refused: value sizes outside 1..32, point counts outside 1..MAX_POINTS, a feed twice in one package, a value of zero
  in any point, bytes that are left over, a timestamp that is not exactly that of the print, a package without the feed,
  a signer outside the oracle, a second package of one signer for one (feed, time) even where the bytes are the same.
* A value becomes a wad (times 1e10) and is clamped to 2**96 - 1 before any median.
* `print_price`, `fix_price` and `decode_*` are strict: one bad package and they raise. `select` is tolerant: it sorts
  what is good out of a pile, deterministically and whatever the pile's order. The strict ones never look at more than
  signers * samples + 1 packages: beyond, one of them must have been refused.
* Recovering a signer costs far more than all the rest: it is done once for given bytes, and remembered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from channeld.core.crypto import checksum_address
from channeld.core.errors import Fault, OracleError
from channeld.core.package_codec import (
    FEED_SIZE,
    MARKER,
    MAX_POINTS,
    MAX_VALUE_SIZE,
    SIGNATURE_SIZE,
    VALUE_DECIMALS,
    DataPoint,
    MalformedPackageError,
    MalformedPayloadError,
    Package,
    PackageSignatureError,
    Payload,
    RepeatedFeedError,
    ZeroValueError,
    check_rules,
    decode_package,
    decode_payload,
    encode_package,
    encode_payload,
    octets_of,
    parse_last,
    payload_frame,
    recover_signer,
    recovered,
    sign_package,
    split_packages,
    split_payload,
)
from channeld.core.state import MAX_PRICE
from channeld.core.terms import Oracle, feed_symbol
from channeld.core.wad import format_decimal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "FEED_SIZE",
    "MARKER",
    "MAX_POINTS",
    "MAX_VALUE_SIZE",
    "SIGNATURE_SIZE",
    "VALUE_DECIMALS",
    "DataPoint",
    "DuplicatePackageError",
    "Fix",
    "MalformedPackageError",
    "MalformedPayloadError",
    "MissingFeedError",
    "NoQuorumError",
    "Package",
    "PackageSet",
    "PackageSignatureError",
    "Payload",
    "Print",
    "RepeatedFeedError",
    "StalePackageError",
    "UnknownSignerError",
    "UnreadableTextError",
    "ZeroValueError",
    "decode_package",
    "decode_payload",
    "describe_payload",
    "encode_package",
    "encode_payload",
    "fix_price",
    "median",
    "print_price",
    "recover_signer",
    "sample_times",
    "select",
    "sign_package",
    "split_packages",
    "split_payload",
    "to_wad",
    "verify_package",
]

VALUE_TO_WAD = 10**10


class UnknownSignerError(OracleError):
    """A package is signed by nobody of the terms' oracle, or was altered after it was signed."""

    code = 4005
    advice = "Use packages of the signers that the channel's terms name."


class DuplicatePackageError(OracleError):
    """A second package of one signer for one feed and time."""

    code = 4006
    advice = "Pass one package for each signer and time."


class StalePackageError(OracleError):
    """A package's timestamp is not the time of the print, nor of a sample of the fix."""

    code = 4007
    advice = "Fetch the packages of exactly that time."


class MissingFeedError(OracleError):
    """A package holds no value for the feed."""

    code = 4008
    advice = "Pass only packages that carry the feed."


class NoQuorumError(OracleError):
    """Fewer distinct signers, or fewer samples with a quorum, than the oracle's rules ask for."""

    code = 4009
    advice = "Wait for more signers, or fetch from further sources."


class UnreadableTextError(OracleError):
    """Text that is neither hexadecimal nor a payload."""

    code = 4011
    fault = Fault.USER
    advice = "Pass hexadecimal text, with or without 0x, or the raw bytes."


@dataclass(frozen=True, slots=True)
class Print:
    """A feed's price at one time. value: wad; weight: packages used; signers: 20 bytes each, in the oracle's order."""

    value: int
    weight: int
    signers: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Fix:
    """A feed's fix. value: wad; weight: packages used; complete: every signer of every sample is in it."""

    value: int
    weight: int
    complete: bool
    used_samples: int


# --- prices ---------------------------------------------------------------------------------------------------------


def to_wad(value: int) -> int:
    """A wad of a value with 8 decimals, clamped to 2**96 - 1."""
    return min(value * VALUE_TO_WAD, MAX_PRICE - 1)


def median(values: Iterable[int]) -> int:
    """The median; for an even count the floor of the mean of the middle two. There must be at least one value."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) // 2


def sample_times(oracle: Oracle, t: int) -> tuple[int, ...]:
    """The times (seconds) of the samples of fix(t), newest first: t - i * sampleGap."""
    return tuple(t - i * oracle.sample_gap for i in range(oracle.samples))


def verify_package(oracle: Oracle, feed: bytes, times: Sequence[int], raw: bytes) -> tuple[int, int, int]:
    """Judge one package: (index of its time in `times`, index of its signer in the oracle, its value as a wad).

    Raises:
        MalformedPackageError, RepeatedFeedError, ZeroValueError: as `decode_package`.
        StalePackageError: its timestamp is none of `times` (seconds).
        MissingFeedError: it does not carry the feed.
        PackageSignatureError, UnknownSignerError: it is not signed by a signer of the oracle.

    """
    package = decode_package(raw)
    seconds, rest = divmod(package.timestamp_ms, 1000)
    if rest or seconds not in times:
        wanted = ", ".join(str(t * 1000) for t in times)
        raise StalePackageError(
            f"the package's time is {package.timestamp_ms} ms; wanted: {wanted}", timestamp_ms=package.timestamp_ms
        )
    value = package.value(feed)
    if value is None:
        raise MissingFeedError(f"the package does not carry feed {feed_symbol(feed)}", feed=feed_symbol(feed))
    signer = recovered(octets_of(raw))
    if signer not in oracle.signers:
        raise UnknownSignerError(f"0x{signer.hex()} is no signer of the oracle", signer="0x" + signer.hex())
    return times.index(seconds), oracle.signers.index(signer), to_wad(value)


def _collect(
    oracle: Oracle, feed: bytes, times: Sequence[int], packages: Iterable[bytes]
) -> tuple[dict[int, int], ...]:
    """For each time the values by signer index; strict."""
    found: tuple[dict[int, int], ...] = tuple({} for _ in times)
    for raw in packages:
        sample, signer, value = verify_package(oracle, feed, times, raw)
        if signer in found[sample]:
            raise DuplicatePackageError(
                f"a second package of 0x{oracle.signers[signer].hex()} for {feed_symbol(feed)} at {times[sample]}",
                signer="0x" + oracle.signers[signer].hex(),
                time=times[sample],
            )
        found[sample][signer] = value
    return found


def print_price(oracle: Oracle, feed: bytes, t: int, packages: Iterable[bytes]) -> Print:
    """print(feed, t) of docs/protocol.md section 7, from signed packages in any order, all for it. t in seconds.

    Raises:
        NoQuorumError: fewer distinct signers than the oracle's quorum.
        DuplicatePackageError: a signer twice; and whatever `verify_package` raises, for the first bad package.

    """
    (values,) = _collect(oracle, feed, (t,), packages)
    if len(values) < oracle.quorum:
        raise NoQuorumError(
            f"{len(values)} of {oracle.quorum} signers needed for {feed_symbol(feed)} at {t}",
            have=len(values),
            quorum=oracle.quorum,
        )
    return Print(median(values.values()), len(values), tuple(oracle.signers[i] for i in sorted(values)))


def fix_price(oracle: Oracle, feed: bytes, t: int, packages: Iterable[bytes]) -> Fix:
    """fix(feed, t) of docs/protocol.md section 7, from signed packages in any order, all for it. t in seconds.

    Raises:
        NoQuorumError: fewer than half of the samples have a quorum.
        DuplicatePackageError: a signer twice in a sample; and whatever `verify_package` raises, for the first bad one.

    """
    found = _collect(oracle, feed, sample_times(oracle, t), packages)
    used = [values for values in found if len(values) >= oracle.quorum]
    if 2 * len(used) < oracle.samples:
        raise NoQuorumError(
            f"{len(used)} of {oracle.samples} samples have a quorum for the fix of {feed_symbol(feed)} at {t}; "
            f"half are needed",
            have=len(used),
            samples=oracle.samples,
        )
    weight = sum(len(values) for values in used)
    total = sum(median(values.values()) for values in used)
    return Fix(total // len(used), weight, weight == len(oracle.signers) * oracle.samples, len(used))


def _preference(raw: bytes) -> tuple[int, bytes]:
    """Of several good packages of one signer for one feed and time, the least of these is taken."""
    return len(raw), raw


def select(
    oracle: Oracle, feed: bytes, t: int, packages: Iterable[bytes], *, samples: int | None = None
) -> tuple[bytes, ...]:
    """The heaviest set for fix(feed, t) in a pile of anything, in canonical order: sample, then signer index.

    samples: how many of the fix's samples to look at; 1 selects for print(feed, t). Bad packages are passed over, and
    so are samples below quorum, which would add no weight. Of several good packages of a signer for one time the
    shortest, then the smallest bytes, is taken: the choice must not depend on the pile's order. Never raises for what
    is in the pile.
    """
    times = sample_times(oracle, t)[:samples]
    best: dict[tuple[int, int], bytes] = {}
    for raw in packages:
        try:
            sample, signer, _ = verify_package(oracle, feed, times, raw)
        except OracleError:
            continue
        octets = bytes(raw)
        best[sample, signer] = min(best.get((sample, signer), octets), octets, key=_preference)
    counts = [sum(1 for key in best if key[0] == sample) for sample in range(len(times))]
    return tuple(best[key] for key in sorted(best) if counts[key[0]] >= oracle.quorum)


@dataclass(frozen=True, slots=True)
class PackageSet:
    """Packages that travel together (those of a MARK), handed to each print or fix that they belong to.

    A package serves every (feed, time) it carries: one with several feeds, or one that is both a print and a sample of
    a fix, travels once. Two packages of one signer may then meet at a (feed, time) where each is needed for another
    feed: the shortest, then the smallest bytes, counts there, as in `select`. Refusing them would let one signer block
    every MARK by signing a feed twice. All else is strict. Use `of`; then `print_price` and `fix_price`; then `unused`,
    to refuse what counted nowhere, or `used`, to leave it out of a MARK that is being made.
    """

    _by_key: dict[tuple[bytes, int], list[bytes]]
    _all: tuple[bytes, ...]
    _used: set[bytes] = field(default_factory=set)

    @classmethod
    def of(cls, packages: Iterable[bytes]) -> PackageSet:
        """Sort packages by the feeds and times they carry.

        Raises:
            DuplicatePackageError: the same bytes twice.
            MalformedPackageError, RepeatedFeedError, ZeroValueError: as `decode_package`.

        """
        by_key: dict[tuple[bytes, int], list[bytes]] = {}
        seen: dict[bytes, None] = {}
        for given in packages:
            raw = octets_of(given)
            if raw in seen:
                raise DuplicatePackageError("the same package stands twice in one set")
            seen[raw] = None
            package = decode_package(raw)
            for point in package.points:
                by_key.setdefault((point.feed, package.timestamp_ms), []).append(raw)
        return cls(by_key, tuple(seen))

    def at(self, feed: bytes, t: int) -> tuple[bytes, ...]:
        """The packages that carry the feed at t (seconds), in the set's order."""
        return tuple(self._by_key.get((feed, t * 1000), ()))

    def _counting(self, oracle: Oracle, feed: bytes, t: int) -> list[bytes]:
        """Of each signer the package that counts for the feed at t; raises as `verify_package`."""
        best: dict[int, bytes] = {}
        for raw in self.at(feed, t):
            _, signer, _ = verify_package(oracle, feed, (t,), raw)
            best[signer] = min(best.get(signer, raw), raw, key=_preference)
        self._used.update(best.values())
        return list(best.values())

    def print_price(self, oracle: Oracle, feed: bytes, t: int) -> Print:
        """print(feed, t) of the packages that carry it; raises as the function of that name."""
        return print_price(oracle, feed, t, self._counting(oracle, feed, t))

    def fix_price(self, oracle: Oracle, feed: bytes, t: int) -> Fix:
        """fix(feed, t) of the packages that carry it; raises as the function of that name."""
        times = sample_times(oracle, t)
        return fix_price(oracle, feed, t, [raw for time in times for raw in self._counting(oracle, feed, time)])

    def used(self) -> tuple[bytes, ...]:
        """The packages that counted in a print or fix asked of this set, in order."""
        return tuple(raw for raw in self._all if raw in self._used)

    def unused(self) -> tuple[bytes, ...]:
        """The packages that counted in no print or fix asked of this set, in order."""
        return tuple(raw for raw in self._all if raw not in self._used)


# --- for people -----------------------------------------------------------------------------------------------------


def _as_bytes(raw: bytes) -> tuple[str, bytes]:
    """Whether `raw` is hexadecimal text or binary, and the bytes meant."""
    if raw.endswith(MARKER):
        return "binary", raw
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        return "binary", raw
    digits = "".join(text.split())
    try:
        return "hex", bytes.fromhex(digits[2:] if digits[:2] in ("0x", "0X") else digits)
    except ValueError:
        if digits.isprintable():
            raise UnreadableTextError("the text holds something other than hexadecimal digit pairs") from None
        return "binary", raw


def _describe_package(index: int, offset: int, raw: bytes) -> tuple[dict[str, Any], Package, bytes | None]:
    """A package as plain data, the package, and its signer where nothing is wrong with it."""
    _, package = parse_last(raw, len(raw))
    errors: list[dict[str, Any]] = []
    signer: bytes | None = None
    try:
        signer = recovered(raw)
    except OracleError as error:
        errors.append(error.as_data())
    try:
        check_rules(package)
    except OracleError as error:
        errors.append(error.as_data())
    shown = {
        "index": index,
        "offset": offset,
        "size": len(raw),
        "timestamp_ms": package.timestamp_ms,
        "value_size": package.value_size,
        "signer": checksum_address(signer) if signer else None,
        "signature": "0x" + package.signature.hex(),
        "points": [
            {
                "feed": feed_symbol(point.feed),
                "feed_id": "0x" + point.feed.hex(),
                "value": format_decimal(point.value, VALUE_DECIMALS),
                "value_wad": str(to_wad(point.value)),
            }
            for point in package.points
        ],
        "errors": errors,
    }
    return shown, package, None if errors else signer


def _medians(good: list[tuple[dict[str, Any], Package, bytes]]) -> list[dict[str, Any]]:
    """Medians per (feed, timestamp) over distinct signers; a signer's second package gets an error of its own."""
    values: dict[tuple[bytes, int], dict[bytes, int]] = {}
    for shown, package, signer in good:
        for point in package.points:
            held = values.setdefault((point.feed, package.timestamp_ms), {})
            if signer in held:
                error = DuplicatePackageError(
                    f"a second package of {checksum_address(signer)} for {feed_symbol(point.feed)} "
                    f"at {package.timestamp_ms} ms"
                )
                shown["errors"].append(error.as_data())
            else:
                held[signer] = to_wad(point.value)
    return [
        {
            "feed": feed_symbol(feed),
            "feed_id": "0x" + feed.hex(),
            "timestamp_ms": timestamp,
            "median": format_decimal(median(held.values())),
            "median_wad": str(median(held.values())),
            "signers": [checksum_address(signer) for signer in sorted(held)],
        }
        for (feed, timestamp), held in sorted(values.items())
    ]


def describe_payload(raw: bytes) -> dict[str, Any]:
    """What is in a file of packages, as plain data: a payload or concatenated signed packages, binary or hexadecimal.

    Never raises for what is in it: errors stand in `errors`, those of one package with it. Reading goes from the end,
    so what stands after unreadable bytes is still shown. Prices are decimal strings, and wads are strings too.
    """
    result: dict[str, Any] = {"form": "packages", "encoding": "binary", "packages": [], "medians": [], "errors": []}
    try:
        result["encoding"], raw = _as_bytes(bytes(raw))
    except OracleError as error:
        result["errors"].append(error.as_data())
        return result
    result["size"] = len(raw)
    end, count = len(raw), None
    if raw.endswith(MARKER):
        result["form"] = "payload"
        try:
            end, count, metadata = payload_frame(raw)
        except OracleError as error:
            result["errors"].append(error.as_data())
            return result
        result.update(package_count=count, metadata="0x" + metadata.hex())
    spans: list[tuple[int, int]] = []
    while end:
        try:
            start, _ = parse_last(raw, end)
        except OracleError as error:
            result["errors"].append(error.as_data())
            break
        spans.append((start, end))
        end = start
    if not end and count is not None and count != len(spans):
        mismatch = MalformedPayloadError(f"the payload says {count} packages and holds {len(spans)}")
        result["errors"].append(mismatch.as_data())
    if not spans and not result["errors"]:
        result["errors"].append(MalformedPayloadError("there is no package in it").as_data())
    good: list[tuple[dict[str, Any], Package, bytes]] = []
    for index, (start, stop) in enumerate(reversed(spans)):
        shown, package, signer = _describe_package(index, start, raw[start:stop])
        result["packages"].append(shown)
        if signer is not None:
            good.append((shown, package, signer))
    result["medians"] = _medians(good)
    return result
