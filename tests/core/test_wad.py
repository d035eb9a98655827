"""Truncating division and exact decimals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channeld.core.errors import MalformedNumberError
from channeld.core.wad import WAD, format_decimal, parse_decimal, sdiv

big = st.integers(-(1 << 255), (1 << 255) - 1)


@given(big, st.integers(1, 1 << 200))
def test_sdiv_truncates_toward_zero_and_is_odd(x, y):
    quotient = sdiv(x, y)
    assert sdiv(-x, y) == -quotient
    assert abs(quotient) == abs(x) // y


@pytest.mark.parametrize(("x", "y", "quotient"), [(7, 2, 3), (-7, 2, -3), (0, 5, 0), (-1, 10, 0), (-10, 10, -1)])
def test_sdiv_examples(x, y, quotient):
    assert sdiv(x, y) == quotient


@given(st.integers(-(10**38), 10**38), st.integers(0, 18))
def test_decimals_read_back(value, decimals):
    assert parse_decimal(format_decimal(value, decimals), decimals) == value


@pytest.mark.parametrize(
    ("text", "decimals", "value"),
    [
        ("3000", 18, 3000 * WAD),
        ("0.25", 18, WAD // 4),
        ("-1.5", 6, -1_500_000),
        ("+2", 0, 2),
        ("007.10", 2, 710),
        ("1.500000000000000000", 1, 15),
        (" 5 ", 0, 5),
    ],
)
def test_decimals(text, decimals, value):
    assert parse_decimal(text, decimals) == value


@pytest.mark.parametrize(
    "text",
    ["", ".", "1.", ".5", "1e3", "1,000", "0x10", "nan", "--1", "1 2", "\u0661", "1.0000000000000000001", None, 5],
)
def test_what_is_no_plain_decimal_is_refused(text):
    with pytest.raises(MalformedNumberError):
        parse_decimal(text)


def test_too_many_places_are_refused_rather_than_rounded():
    with pytest.raises(MalformedNumberError, match="6 decimal places"):
        parse_decimal("0.1234567", 6)


@pytest.mark.parametrize(
    ("value", "decimals", "places", "text"),
    [
        (15 * WAD // 10, 18, None, "1.5"),
        (-WAD, 18, None, "-1"),
        (1, 18, None, "0.000000000000000001"),
        (1_999_999, 6, 2, "1.99"),
        (-1_999_999, 6, 2, "-1.99"),
        (-1, 6, 2, "0.00"),
        (5, 0, None, "5"),
        (1_999_999, 6, 0, "1"),
    ],
)
def test_formatting_cuts_toward_zero(value, decimals, places, text):
    assert format_decimal(value, decimals, places=places) == text
