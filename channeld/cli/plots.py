"""Pictures: heat maps and payoff diagrams as PNG, by matplotlib where it is installed (the extra `plots`).

Rules: matplotlib is imported when a picture is drawn, and drawn on directly, without pyplot and its windows. A picture
says in its title what it shows and in its axes in which units; colours are readable by the colour-blind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from channeld.cli.errors import CommandError, UnreadableFileError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# cells beyond this number are too small for their figures
MOST_LABELS = 200


class NoPlotsError(CommandError):
    """A picture was asked for, and matplotlib is not installed."""

    code = 1153
    advice = "Install the extra: pip install 'channeld[plots]'; or use --csv, or the table."


def _figure(width: float, height: float) -> Any:  # noqa: ANN401 - matplotlib's
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - heavy, and an extra
    except ImportError:
        message = "no picture can be drawn: matplotlib is not installed"
        raise NoPlotsError(message) from None
    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> None:  # noqa: ANN401 - matplotlib's
    try:
        figure.savefig(path, format="png", dpi=120)
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror or error}"
        raise UnreadableFileError(message, advice="Check the path and its permissions.") from None


def _percent(move: str) -> str:
    number = float(move) * 100
    return "0%" if number == 0 else f"{number:+.4g}%"


def _short(amount: float) -> str:
    """An amount in few characters: 1,234 or 12.3k or 4.5M."""
    for limit, scale, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(amount) >= limit:
            return f"{amount / scale:,.1f}{letter}"
    return f"{amount:,.0f}"


def heat_map(path: Path, table: dict[str, Any], title: str) -> None:
    """Profit in every pair of spot and vol moves.

    Raises:
        NoPlotsError: matplotlib is not installed.
        UnreadableFileError: the file cannot be written.
    """
    rows = [[float(cell) for cell in line] for line in table["profit"]]
    spots, vols = table["spot_moves"], table["vol_moves"]
    figure = _figure(max(5.0, 1.6 + 0.9 * len(vols)), max(4.0, 1.4 + 0.36 * len(spots)))
    axes = figure.subplots()
    most = max((abs(cell) for line in rows for cell in line), default=0.0) or 1.0
    # blue gains, red loses, and white is nothing
    image = axes.imshow(rows, cmap="RdBu", vmin=-most, vmax=most, aspect="auto", origin="lower")
    axes.set_xticks(range(len(vols)), [_percent(v) for v in vols])
    axes.set_yticks(range(len(spots)), [_percent(s) for s in spots])
    axes.set_xlabel("move of vols, of what they are")
    axes.set_ylabel("move of spot")
    axes.set_title(title)
    if len(rows) * len(vols) <= MOST_LABELS:
        for y, line in enumerate(rows):
            for x, cell in enumerate(line):
                dark = abs(cell) > 0.6 * most
                axes.text(x, y, _short(cell), ha="center", va="center", fontsize=8, color="white" if dark else "black")
    figure.colorbar(image, ax=axes, label="profit, in the quote currency", format=lambda x, _: _short(x))
    _save(figure, path)


def payoff(path: Path, spot_moves: Sequence[str], lines: Sequence[tuple[str, Sequence[str]]], title: str) -> None:
    """Profit against the move of spot, one line for each time.

    Raises:
        NoPlotsError, UnreadableFileError: as `heat_map`.
    """
    figure = _figure(7.5, 4.6)
    axes = figure.subplots()
    moves = [float(m) * 100 for m in spot_moves]
    styles = (("#0072b2", "-"), ("#009e73", "--"), ("#d55e00", "-"))
    for (name, profits), (colour, style) in zip(lines, styles, strict=False):
        axes.plot(moves, [float(p) for p in profits], label=name, color=colour, linestyle=style, linewidth=1.8)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.axvline(0, color="grey", linewidth=0.6, linestyle=":")
    axes.set_xlabel("move of spot, %")
    axes.set_ylabel("profit, in the quote currency")
    axes.yaxis.set_major_formatter(lambda x, _: _short(x))
    axes.set_title(title)
    axes.grid(visible=True, alpha=0.25)
    axes.legend()
    _save(figure, path)
