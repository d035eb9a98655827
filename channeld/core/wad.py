"""Units and the two divisions that move money.

Rules: a wad is an integer scaled by 1e18. Every division of a signed quantity that moves money is `sdiv`, computed once
from a's point of view. Decimal strings are converted exactly or refused; floats never enter.
"""

from __future__ import annotations

import re

from channeld.core.errors import MalformedNumberError

WAD = 10**18
YEAR = 31_536_000
DAY = 86_400
HOUR = 3_600

_DECIMAL = re.compile(r"([+-]?)(\d{1,40})(?:\.(\d{1,18}))?", re.ASCII)


def sdiv(x: int, y: int) -> int:
    """X / y truncated toward zero, as the EVM's SDIV. y must be positive."""
    return x // y if x >= 0 else -(-x // y)


def parse_decimal(text: str, decimals: int = 18) -> int:
    """An exact integer scaled by 10**decimals from a plain decimal text.

    Raises:
        MalformedNumberError: not a plain decimal, or more places than `decimals`.

    """
    match = _DECIMAL.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        message = f"{text!r} is not a plain decimal number"
        raise MalformedNumberError(message)
    sign, whole, fraction = match.group(1), match.group(2), match.group(3) or ""
    if len(fraction.rstrip("0")) > decimals:
        message = f"{text!r} has more than {decimals} decimal places"
        raise MalformedNumberError(message)
    scale: int = 10**decimals
    scaled = int(whole) * scale + int((fraction + "0" * decimals)[:decimals] or "0")
    return -scaled if sign == "-" else scaled


def format_decimal(value: int, decimals: int = 18, *, places: int | None = None) -> str:
    """The shortest exact decimal text of value / 10**decimals; with `places`, cut (toward zero) to that many."""
    sign = "-" if value < 0 else ""
    whole, fraction = divmod(abs(value), 10**decimals)
    digits = str(fraction).rjust(decimals, "0") if decimals else ""
    if places is not None:
        digits = digits[:places].ljust(places, "0")
        if int(whole) == 0 and not digits.strip("0"):
            sign = ""
        return f"{sign}{whole}.{digits}" if places else f"{sign}{whole}"
    digits = digits.rstrip("0")
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"
