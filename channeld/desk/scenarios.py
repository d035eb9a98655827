"""Scenario tables for people: profit in every pair of spot and vol moves, over any number of channels. Advisory floats.

Rules: as desk/grid.py. A table's cells are plain decimals of money to the cent; moves are fractions, 0.1 being 10% up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from channeld.core.instruments import instrument_name
from channeld.core.wad import DAY
from channeld.desk.grid import Floats, GridBook, GridDomainError, cross, profits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from channeld.core.state import Position

Book = tuple["Sequence[Position]", "Mapping[bytes, int]", int, int]
"""Positions, spots (wads), the time (Unix seconds) and the side that holds them."""


def _cell(number: float) -> str:
    text = f"{number:.2f}"
    return "0.00" if text == "-0.00" else text


def scenario_profits(
    books: Sequence[Book], spot_moves: Sequence[float], vol_moves: Sequence[float], days: float
) -> tuple[Floats, list[tuple[str, Floats]]]:
    """What all books together gain, an array of spot moves by vol moves; and each position's part, by name.

    Raises:
        GridDomainError: a move at or below -100% or above 999 times, days not within 0..3650, or a book out of bounds.
    """
    if not 0 <= days <= 3650:
        raise GridDomainError(f"the days that pass must be 0 to 3650, not {days!r}")
    factors = cross(spot_moves, vol_moves)
    shape = (len(spot_moves), len(vol_moves))
    total: Floats = np.zeros(shape)
    parts: list[tuple[str, Floats]] = []
    for positions, spots, t, side in books:
        found = profits(GridBook.of(positions, spots, t, side), *factors, days * DAY)
        for position, row in zip(positions, found, strict=True):
            part = row.reshape(shape)
            parts.append((instrument_name(position.instrument), part))
            total += part
    return total, parts


def scenario_table(
    books: Sequence[Book], spot_moves: Sequence[float], vol_moves: Sequence[float], days: float
) -> dict[str, Any]:
    """The same as plain data: `profit`, rows by spot move and columns by vol move; the worst cell and its legs.

    Raises:
        GridDomainError: as `scenario_profits`.
    """
    total, parts = scenario_profits(books, spot_moves, vol_moves, days)
    row, column = (int(n) for n in np.unravel_index(int(np.argmin(total)), total.shape))
    return {
        "spot_moves": [_move(m) for m in spot_moves],
        "vol_moves": [_move(m) for m in vol_moves],
        "days": _move(days),
        "profit": [[_cell(float(x)) for x in line] for line in total],
        "worst": {
            "spot_move": _move(spot_moves[row]),
            "vol_move": _move(vol_moves[column]),
            "profit": _cell(float(total[row, column])),
            "legs": [{"instrument": name, "profit": _cell(float(part[row, column]))} for name, part in parts],
        },
    }


def _move(number: float) -> str:
    text = f"{number:.12f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
