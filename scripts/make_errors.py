"""Write docs/errors.md: every error of the registry, with its code, whose fault it is, and what to do.

    python scripts/make_errors.py            writes the page
    python scripts/make_errors.py --check    exits with 1 where the page is not what this would write

Rules: the page is made of nothing but the classes themselves: the first paragraph of the docstring, `fault`, `advice`.
Every module of the package is imported first, so that no room's errors are missing; classes of tests are left out.
"""  # noqa: INP001 - a script, no package

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

import channeld
from channeld.core.errors import REGISTRY, ChanneldError

PAGE = Path(__file__).resolve().parent.parent / "docs" / "errors.md"
ROOTS = {
    1: "What was asked cannot be done as asked",
    2: "A rule of the protocol forbids it",
    3: "The counterparty",
    4: "The oracle",
    5: "The chain",
    6: "Disk and database",
    7: "Set-up",
    9: "A bug in channeld",
}
HEAD = """# Errors

Written by `python scripts/make_errors.py` from the classes themselves; `tests/test_docs.py` fails where the two differ.

Every refusal carries a code that never changes, whose fault it is, and what to do next. Nothing that raises one of
these has changed any state. The API gives them as JSON-RPC errors ([api.md](api.md)), the command line as a message and
an exit code ([exit-codes.md](exit-codes.md)). The message of an occurrence has the figures; `details` has them as data.
Where the last column is empty, the message says what to do, or there is nothing to do.

The contracts' own errors are in [contracts.md](contracts.md); refusals of a batch stand rule by rule in
[protocol-operations.md](protocol-operations.md), section 7.
"""


def load_all() -> None:
    """Import every module of the package, so that every class is registered."""
    for module in pkgutil.walk_packages(channeld.__path__, "channeld."):
        importlib.import_module(module.name)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _row(error: type[ChanneldError]) -> str:
    what = _cell((error.__doc__ or "").split("\n\n")[0])
    return f"| {error.code} | {error.__name__} | {error.fault.value} | {what} | {_cell(error.advice)} |"


def page() -> str:
    """The whole page."""
    load_all()
    known = [REGISTRY[code] for code in sorted(REGISTRY) if REGISTRY[code].__module__.startswith("channeld.")]
    parts = [HEAD]
    for thousands, title in ROOTS.items():
        rows = [_row(error) for error in known if error.code // 1000 == thousands]
        if rows:
            last = f"{thousands}000 to {thousands}999"
            head = "| code | error | fault | what it is | what to do |\n| --- | --- | --- | --- | --- |"
            parts.append(f"## {last}: {title.lower()}\n\n{head}\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    """Write the page, or compare it."""
    made = page()
    if "--check" in arguments:
        same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == made
        sys.stdout.write(
            f"docs/errors.md is {'as it should be' if same else 'out of date: run scripts/make_errors.py'}\n"
        )
        return 0 if same else 1
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
