"""Names of instruments, as desks write them, to and from instruments.

    ETH-PERP              a perpetual
    ETH-27JUN25           a future; expiry 08:00 UTC of that day
    ETH-27JUN25-3000-C    a call at strike 3000; P for a put

Rules: every instrument has one name and every name one instrument. Another hour than 08:00 UTC is written after the day
(`ETH-27JUN25T1530-3000-C`, with seconds `T153015` where there are any), a year outside 2000..2099 with four digits, a
time beyond the calendar as `@` and Unix seconds, and a feed that is no printable symbol as 0x and 64 digits. Reading
takes leading zeros of the day, and months and letters in either case; symbols are exact (`stETH` is not `STETH`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from channeld.core.errors import ChanneldError, InputError
from channeld.core.state import Instrument, Kind
from channeld.core.terms import feed_symbol
from channeld.core.wad import format_decimal, parse_decimal

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
EXPIRY_HOUR = 8
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_SECOND = 253_402_300_799  # 9999-12-31 23:59:59 UTC, where the calendar of datetime ends
_DATE = r"(?:\d{1,2}[A-Za-z]{3}(?:\d{4}|\d{2})(?:T\d{4}(?:\d{2})?)?|@\d{1,20})"
_NAME = re.compile(
    rf"(?P<feed>[\x21-\x7e][\x20-\x7e]*)-(?:(?P<perp>(?i:PERP))|(?P<date>{_DATE})"
    r"(?:-(?P<strike>\d{1,40}(?:\.\d{1,18})?)-(?P<right>[CPcp]))?)",
    re.ASCII,
)
_PARTS = re.compile(
    r"(?P<day>\d{1,2})(?P<month>[A-Z]{3})(?P<year>\d{4}|\d{2})(?:T(?P<hour>\d{2})(?P<minute>\d{2})(?P<second>\d{2})?)?",
    re.ASCII,
)
_HEX_FEED = re.compile(r"0x[0-9a-fA-F]{64}", re.ASCII)


class InstrumentNameError(InputError):
    """A name that is no instrument's."""

    code = 1010
    advice = "Write ETH-PERP, ETH-27JUN25 or ETH-27JUN25-3000-C: feed, expiry day (08:00 UTC), strike, C or P."


def _refuse(name: object, why: str) -> NoReturn:
    raise InstrumentNameError(f"{name!r} is no instrument: {why}", name=str(name))


def expiry_name(expiry: int) -> str:
    """The day of an expiry (Unix seconds) as it stands in names: `27JUN25` for 08:00 UTC of 27 June 2025."""
    if expiry > _LAST_SECOND:
        return f"@{expiry}"
    moment = _EPOCH + timedelta(seconds=expiry)
    year = f"{moment.year % 100:02d}" if 2000 <= moment.year <= 2099 else f"{moment.year:04d}"
    day = f"{moment.day}{MONTHS[moment.month - 1]}{year}"
    if (moment.hour, moment.minute, moment.second) == (EXPIRY_HOUR, 0, 0):
        return day
    return day + f"T{moment.hour:02d}{moment.minute:02d}" + (f"{moment.second:02d}" if moment.second else "")


def parse_expiry(text: str) -> int:
    """Unix seconds of an expiry as it stands in names.

    Raises:
        InstrumentNameError: not a day of the calendar.

    """
    if isinstance(text, str) and re.fullmatch(r"@\d{1,20}", text, re.ASCII):
        return int(text[1:])
    match = _PARTS.fullmatch(text.upper()) if isinstance(text, str) else None
    if match is None:
        _refuse(text, "an expiry is written as 27JUN25, or 27JUN25T1530 for another hour than 08:00 UTC")
    if match["month"] not in MONTHS:
        _refuse(text, f"{match['month']} is no month; months are {', '.join(MONTHS)}")
    year = int(match["year"]) + (2000 if len(match["year"]) == 2 else 0)
    clock = (EXPIRY_HOUR, 0, 0)
    if match["hour"] is not None:
        clock = (int(match["hour"]), int(match["minute"]), int(match["second"] or 0))
    try:
        moment = datetime(year, MONTHS.index(match["month"]) + 1, int(match["day"]), *clock, tzinfo=UTC)
    except ValueError as error:
        _refuse(text, str(error))
    return (moment - _EPOCH) // timedelta(seconds=1)


def feed_text(feed: bytes) -> str:
    """A feed id as it stands in names: its symbol, or 0x and 64 digits where it has none that can be read back."""
    symbol = feed_symbol(feed)
    return symbol if symbol.strip(" ") == symbol and symbol else "0x" + feed.hex()


def parse_feed(text: str) -> bytes:
    """The feed id of a symbol, or of 0x and 64 digits.

    Raises:
        InstrumentNameError: neither.

    """
    if isinstance(text, str) and _HEX_FEED.fullmatch(text):
        return bytes.fromhex(text[2:])
    if not isinstance(text, str) or not text.isascii() or not text.isprintable() or not 1 <= len(text) <= 32:
        _refuse(text, "a feed is a symbol of 1 to 32 printable ASCII characters, or 0x and 64 hexadecimal digits")
    return text.encode("ascii").ljust(32, b"\0")


def instrument_name(instrument: Instrument) -> str:
    """The one name of an instrument."""
    feed = feed_text(instrument.feed)
    if instrument.kind == Kind.PERPETUAL:
        return f"{feed}-PERP"
    dated = f"{feed}-{expiry_name(instrument.expiry)}"
    if instrument.kind == Kind.FUTURE:
        return dated
    return f"{dated}-{format_decimal(instrument.strike)}-{'C' if instrument.kind == Kind.CALL else 'P'}"


def parse_instrument(name: str) -> Instrument:
    """The instrument of a name. Whether it is traded in a channel, or has expired, is the transition's to judge.

    Raises:
        InstrumentNameError: not a name, or one that no instrument can have (a strike of zero, 31 June).

    """
    match = _NAME.fullmatch(name.strip()) if isinstance(name, str) else None
    if match is None:
        _refuse(name, "it does not read as FEED-PERP, FEED-DAY or FEED-DAY-STRIKE-C|P")
    feed = parse_feed(match["feed"])
    if match["perp"]:
        return Instrument(Kind.PERPETUAL, feed, 0, 0)
    expiry = parse_expiry(match["date"])
    kind, strike = Kind.FUTURE, 0
    if match["right"]:
        kind = Kind.CALL if match["right"] in "Cc" else Kind.PUT
        strike = parse_decimal(match["strike"])
    try:
        return Instrument(kind, feed, expiry, strike)
    except ChanneldError as error:
        _refuse(name, str(error))
