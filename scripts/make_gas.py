"""Write docs/gas.md: what each function of the contracts costs, beside its target and what the peers' nearest costs.

    python scripts/make_gas.py            measures and writes the page
    python scripts/make_gas.py --check    exits with 1 where the page is not what this would write

Rules: the measurement is tests/contracts/gas_measurements.py, deterministic to the unit of gas; a test compares too.
"""  # noqa: INP001 - a script, no package

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "gas.md"


def main() -> int:
    """Write the page, or check it."""
    sys.path.insert(0, str(ROOT / "tests" / "contracts"))
    from gas_measurements import Measurement, page  # noqa: PLC0415 - found on the path that the line before made

    text = page(Measurement().measure())
    if sys.argv[1:] == ["--check"]:
        same = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text
        sys.stdout.write("docs/gas.md is up to date\n" if same else "docs/gas.md is stale: run scripts/make_gas.py\n")
        return 0 if same else 1
    PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
