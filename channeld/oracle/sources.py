"""Where the signing service takes its prices from.

Rules: a source is a function of (feed, second): asked twice for the same it answers the same, for ever, because what
was signed once may not be signed otherwise later. Prices are integers with 8 decimals, at least 1. A source answers for
times it knows or raises; it never looks ahead: a price counts from the second at which it was known. Feeds are the
32-byte ids of core; files and people use symbols ("ETH").
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from bisect import bisect_right, insort
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from channeld.core.crypto import keccak256
from channeld.core.errors import ChanneldError, Fault, OracleError
from channeld.core.packages import VALUE_DECIMALS
from channeld.core.strict_json import read_json
from channeld.core.terms import feed_id, feed_symbol
from channeld.core.wad import format_decimal, parse_decimal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

MAX_VALUE = 1 << 128
MAX_SECOND = (1 << 48) // 1000


class PriceUnavailableError(OracleError):
    """A source has no price for a time: before its beginning."""

    code = 4061
    advice = "Ask for a later time, or start the source's path earlier."


class UnknownFeedError(OracleError):
    """A source has no such feed."""

    code = 4051
    fault = Fault.USER
    advice = "Ask for one of the feeds that the service names."


class PriceFileError(OracleError):
    """A file of prices that cannot be read as such."""

    code = 4052
    fault = Fault.USER
    advice = "Correct the named line: times in Unix seconds, feeds as symbols, prices as plain decimals above zero."


class PriceSettingError(OracleError):
    """A price that cannot be set: not a price, or for a time that is already past."""

    code = 4053
    fault = Fault.USER
    advice = "Set a plain decimal above zero with at most 8 places, for a time in the future."


class PriceSource(Protocol):
    """Prices by feed and second."""

    def feeds(self) -> tuple[bytes, ...]:
        """The feeds it knows, ascending."""
        ...

    def price(self, feed: bytes, t: int) -> int:
        """The price at t (Unix seconds), 8 decimals.

        Raises:
            UnknownFeedError: no such feed.
            PriceUnavailableError: t lies before what it knows.

        """
        ...


class Interpolation(Enum):
    """What a path says between two points."""

    HOLD = "hold"
    LINEAR = "linear"


def parse_price(text: object) -> int:
    """A price with 8 decimals from a decimal text or a whole number.

    Raises:
        PriceSettingError: not a plain decimal, more than 8 places, zero, negative or beyond 2**128.

    """
    try:
        value = parse_decimal(str(text), VALUE_DECIMALS) if isinstance(text, str | int) else 0
    except ChanneldError as error:
        raise PriceSettingError(str(error)) from error
    if isinstance(text, bool) or not 0 < value < MAX_VALUE:
        raise PriceSettingError(f"{text!r} is no price")
    return value


def _known(feed: bytes, feeds: Mapping[bytes, object]) -> None:
    if feed not in feeds:
        names = ", ".join(feed_symbol(known) for known in sorted(feeds)) or "none"
        raise UnknownFeedError(f"feed {feed_symbol(feed)} is unknown; known: {names}", feed=feed_symbol(feed))


class PathSource:
    """Prices along given points of (second, price), per feed; from the last point on, the last price holds."""

    def __init__(
        self, points: Mapping[bytes, Iterable[tuple[int, int]]], interpolation: Interpolation = Interpolation.HOLD
    ) -> None:
        """Take points in any order; times in Unix seconds, prices with 8 decimals.

        Raises:
            PriceFileError: a feed without points, two points for one time, or values out of range.

        """
        self._interpolation = interpolation
        self._times: dict[bytes, list[int]] = {}
        self._values: dict[bytes, list[int]] = {}
        for feed, given in points.items():
            ordered = sorted(given)
            if not ordered:
                raise PriceFileError(f"feed {feed_symbol(feed)} has no points")
            for t, value in ordered:
                if not (0 <= t < MAX_SECOND and 0 < value < MAX_VALUE):
                    raise PriceFileError(f"a point of {feed_symbol(feed)} is out of range: ({t}, {value})")
            self._times[feed] = [t for t, _ in ordered]
            self._values[feed] = [value for _, value in ordered]
            for t, following in itertools.pairwise(self._times[feed]):
                if t == following:
                    raise PriceFileError(f"feed {feed_symbol(feed)} has two points at {t}", time=t)

    def feeds(self) -> tuple[bytes, ...]:
        """The feeds it knows, ascending."""
        return tuple(sorted(self._times))

    def price(self, feed: bytes, t: int) -> int:
        """The price at t (Unix seconds), 8 decimals; between points as its interpolation says, floored."""
        _known(feed, self._times)
        times, values = self._times[feed], self._values[feed]
        i = bisect_right(times, t) - 1
        if i < 0:
            raise PriceUnavailableError(f"the path of {feed_symbol(feed)} begins at {times[0]}", begins=times[0])
        if self._interpolation is Interpolation.HOLD or i + 1 == len(times):
            return values[i]
        return values[i] + (values[i + 1] - values[i]) * (t - times[i]) // (times[i + 1] - times[i])


def _rows_of_json(text: str) -> tuple[list[Any], Interpolation]:
    document = read_json(text)
    if isinstance(document, dict):
        mode = Interpolation(document.get("interpolation", "hold"))
        document = document.get("points")
    else:
        mode = Interpolation.HOLD
    if not isinstance(document, list):
        raise PriceFileError("a path is a list of points, or an object with a list `points`")
    rows = [[row.get("time"), row.get("feed"), row.get("price")] if isinstance(row, dict) else row for row in document]
    return rows, mode


def _rows_of_csv(text: str) -> list[Any]:
    rows = [row for row in csv.reader(io.StringIO(text)) if row]
    if not rows or [name.strip() for name in rows[0]] != ["time", "feed", "price"]:
        raise PriceFileError("the first line must be `time,feed,price`")
    return list(rows[1:])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PriceFileError(f"{path} cannot be read: {error}") from error


def read_path(path: Path, interpolation: Interpolation | None = None) -> PathSource:
    """A path from a file: CSV with the header `time,feed,price`, or JSON (docs/oracle.md). Times in Unix seconds.

    Raises:
        PriceFileError: naming the file and the point that is wrong.

    """
    text = _read(path)
    try:
        if path.suffix.lower() == ".csv":
            rows, mode = _rows_of_csv(text), Interpolation.HOLD
        else:
            rows, mode = _rows_of_json(text)
    except (ValueError, csv.Error) as error:
        raise PriceFileError(f"{path} is neither a CSV nor a JSON path: {error}") from error
    points: dict[bytes, list[tuple[int, int]]] = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, list) or len(row) != 3:
            raise PriceFileError(f"{path}, point {number}: not [time, feed, price]")
        try:
            when = _second(row[0])
            points.setdefault(feed_id(str(row[1]).strip()), []).append((when, parse_price(_stripped(row[2]))))
        except ChanneldError as error:
            raise PriceFileError(f"{path}, point {number}: {error}") from error
    if not points:
        raise PriceFileError(f"{path} holds no points")
    return PathSource(points, interpolation or mode)


def _stripped(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


def _second(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise PriceFileError(f"{value!r} is no time in whole Unix seconds")
    return parse_decimal(str(value), 0)


def read_minutes(path: Path, feed: bytes, *, begin_at: int | None = None) -> PathSource:
    """A replay of one-minute bars (Binance's CSV: columns open_time in milliseconds and close).

    A close is known at the end of its minute, so it counts from open_time + 60 s. begin_at (Unix seconds) moves the
    whole path in time, so that its first price counts from there.

    Raises:
        PriceFileError: columns missing, or a row that is no bar.

    """
    reader = csv.DictReader(io.StringIO(_read(path)))
    if not {"open_time", "close"} <= set(reader.fieldnames or ()):
        raise PriceFileError(f"{path} has no columns open_time and close")
    points: list[tuple[int, int]] = []
    try:
        for row in reader:
            known_at = parse_decimal(row["open_time"], 0) // 1000 + 60
            points.append((known_at, parse_price(row["close"])))
    except (ChanneldError, csv.Error) as error:
        raise PriceFileError(f"{path}, bar {len(points) + 1}: {error}") from error
    if not points:
        raise PriceFileError(f"{path} holds no bars")
    shift = 0 if begin_at is None else begin_at - min(points)[0]
    return PathSource({feed: [(t + shift, value) for t, value in points]})


class ManualSource:
    """Prices set by hand. Each counts from the second it was set for and never changes what was true before.

    With a `journal` file every setting is appended to it, and read again at the next start, so that past ticks stay
    what they were.
    """

    def __init__(self, start: Mapping[bytes, int], *, journal: Path | None = None) -> None:
        """Begin with these prices (8 decimals), true since the epoch.

        Raises:
            PriceFileError: the journal holds something else.

        """
        self._history: dict[bytes, list[tuple[int, int]]] = {feed: [(0, value)] for feed, value in start.items()}
        self._journal = journal
        if journal is not None and journal.exists():
            for number, line in enumerate(_read(journal).splitlines(), start=1):
                try:
                    when, symbol, price = read_json(line)
                    self._insert(feed_id(symbol), _second(when), parse_price(price))
                except (ValueError, TypeError, ChanneldError) as error:
                    raise PriceFileError(f"{journal}, line {number}: {error}") from error

    def feeds(self) -> tuple[bytes, ...]:
        """The feeds it knows, ascending."""
        return tuple(sorted(self._history))

    def price(self, feed: bytes, t: int) -> int:
        """The price last set for a time not after t (Unix seconds), 8 decimals."""
        _known(feed, self._history)
        history = self._history[feed]
        i = bisect_right(history, t, key=lambda entry: entry[0]) - 1
        if i < 0:
            begins = history[0][0]
            raise PriceUnavailableError(f"the price of {feed_symbol(feed)} was first set for {begins}", begins=begins)
        return history[i][1]

    def set_price(self, feed: bytes, value: int, *, now_ms: int, at: int | None = None) -> int:
        """Set a price from second `at` on, or from the first second after now_ms; return that second.

        Seconds that the clock has reached may have been signed and are therefore closed.

        Raises:
            PriceSettingError: no price, or `at` is not in the future of now_ms.

        """
        if not 0 < value < MAX_VALUE:
            raise PriceSettingError(f"{value} is no price")
        first = now_ms // 1000 + 1
        when = first if at is None else at
        if not first <= when < MAX_SECOND:
            raise PriceSettingError(f"a price for {when} cannot be set at {now_ms} ms: that is past", first=first)
        if self._journal is not None:
            line = json.dumps([when, feed_symbol(feed), format_decimal(value, VALUE_DECIMALS)]) + "\n"
            try:
                with self._journal.open("a", encoding="utf-8") as file:
                    file.write(line)
            except OSError as error:
                raise PriceFileError(f"{self._journal} cannot be written: {error}") from error
        self._insert(feed, when, value)
        return when

    def _insert(self, feed: bytes, when: int, value: int) -> None:
        """Put a price into the history; the later setting wins for the same second."""
        history = self._history.setdefault(feed, [])
        history[:] = [entry for entry in history if entry[0] != when]
        insort(history, (when, value))


class SyntheticSource:
    """A smooth, deterministic wandering around start prices: for trials that need no data. Integers only.

    Noise of four wave lengths is added up, each interpolated smoothly between values drawn by hash at the multiples of
    its length: the price at any second is found without the seconds before it. It stays within 15% of the start.
    """

    # wave length in seconds, greatest deviation in parts per million
    WAVES: Sequence[tuple[int, int]] = ((600, 4_000), (3_600, 16_000), (21_600, 40_000), (172_800, 90_000))

    def __init__(self, start: Mapping[bytes, int], seed: bytes = b"channeld") -> None:
        """Wander around these prices (8 decimals); other seeds give other paths."""
        self._start = dict(start)
        self._seed = seed

    def feeds(self) -> tuple[bytes, ...]:
        """The feeds it knows, ascending."""
        return tuple(sorted(self._start))

    def price(self, feed: bytes, t: int) -> int:
        """The price at t (Unix seconds), 8 decimals."""
        _known(feed, self._start)
        if not 0 <= t < MAX_SECOND:
            raise PriceUnavailableError(f"{t} is no time of this source")
        deviation = sum(self._wave(feed, length, reach, t) for length, reach in self.WAVES)
        start = self._start[feed]
        return max(1, start + start * deviation // 1_000_000)

    def _wave(self, feed: bytes, length: int, reach: int, t: int) -> int:
        """The deviation of one wave, in parts per million: smoothstep between the drawn values around t."""
        index, u = divmod(t, length)
        left, right = self._drawn(feed, length, reach, index), self._drawn(feed, length, reach, index + 1)
        return left + (right - left) * u * u * (3 * length - 2 * u) // length**3

    def _drawn(self, feed: bytes, length: int, reach: int, index: int) -> int:
        digest = keccak256(self._seed + feed + length.to_bytes(8, "big") + index.to_bytes(8, "big"))
        return int.from_bytes(digest[:8], "big") % (2 * reach + 1) - reach
