"""Write the API's machine-readable schema from docs/api.md, and the table of scopes into that page.

    python scripts/make_api.py            writes channeld/daemon/api_schema.json and the table
    python scripts/make_api.py --check    exits with 1 where either is not what this would write

Rules: the page is the one description of the methods, for people; the schema is made of it and of nothing else, so that
the two cannot differ. tests/test_docs.py holds the page to the methods and parameters that the daemon has. The form is
OpenRPC's, with the scope that a token needs as `x-scope`.
"""  # noqa: INP001 - a script, no package

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from channeld.daemon.scopes import SCOPES, scope_of

ROOT = Path(__file__).resolve().parent.parent
PAGE, SCHEMA = ROOT / "docs" / "api.md", ROOT / "channeld" / "daemon" / "api_schema.json"
BEGIN, END = "<!-- scopes: begin -->\n", "<!-- scopes: end -->\n"
MAY = {
    "read": "looks, and changes nothing",
    "trade": "makes and answers trades, quotes and marks, within the desk's policy",
    "treasury": "moves money",
    "dispute": "acts on chain, and ends channels",
    "approve": "carries out what another token has asked for, where approvals are set",
    "admin": "the owner's alone, by the content of `api.token`",
}
DECIMAL = {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}
TYPES: dict[str, dict[str, Any]] = {
    "text": {"type": "string", "maxLength": 4096},
    "decimal": DECIMAL,
    "integer": {"type": "integer", "minimum": 0, "maximum": (1 << 63) - 1},
    "number": {"type": ["number", "string"]},
    "boolean": {"type": "boolean"},
    "object": {"type": "object"},
    "list": {"type": "array", "maxItems": 64},
}
_ROW = re.compile(r"^\| `(\w+)` \| ([^|]*?) \|(.*)\|$", re.MULTILINE)


class UnknownTypeError(ValueError):
    """A type in the page that this script does not know."""


def schema_of(text: str, method: str) -> dict[str, Any]:
    """The JSON Schema of a type as the page words it: "list of texts", "decimal"."""
    words = text.removesuffix(", optional").strip()
    if words.startswith("list of "):
        inner = words.removeprefix("list of ").split()[0].removesuffix("s")
        items = TYPES.get(inner, {})
        return {**TYPES["list"], **({"items": items} if items else {})}
    found = TYPES.get(words.split()[0].rstrip(",") if words else "")
    if found is None:
        message = f"{method}: the type {words!r} is not one of {', '.join(TYPES)}"
        raise UnknownTypeError(message)
    return found


def method_of(name: str, section: str) -> dict[str, Any]:
    """One method of the schema, from its section of the page."""
    before, _, result = section.partition("\nResult")
    prose = before.partition("\n|")[0].removeprefix("No parameters.").strip()
    params = [
        {
            "name": parameter,
            "required": not kind.endswith(", optional"),
            "schema": schema_of(kind, name),
            **({"description": words.strip()} if words.strip() else {}),
        }
        for parameter, kind, words in _ROW.findall(before)
    ]
    told = result.partition("\n## ")[0].lstrip(": ").strip()
    return {
        "name": name,
        "summary": " ".join(prose.partition("\n\n")[0].split()),
        "paramStructure": "by-name",
        "params": params,
        "result": {"name": "result", "description": " ".join(told.split()), "schema": {}},
        **({"x-scope": scope_of(name)} if name.startswith("private/") else {}),
    }


def schema(page: str) -> str:
    """The whole schema, as it is kept."""
    sections = re.split(r"^### ", page, flags=re.MULTILINE)[1:]
    methods = []
    for section in sections:
        name, _, rest = section.partition("\n")
        methods.append(method_of(name.strip(), rest))
    document = {
        "openrpc": "1.3.2",
        "info": {"title": "channeld", "version": "1", "description": "docs/api.md has the conventions."},
        "methods": sorted(methods, key=lambda one: str(one["name"])),
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def table() -> str:
    """The table of scopes."""
    rows = []
    for scope, methods in SCOPES.items():
        names = ", ".join(f"`{method.removeprefix('private/')}`" for method in methods)
        rows.append(f"| `{scope}` | {MAY[scope]} | {names} |\n")
    return "| scope | may | methods |\n| --- | --- | --- |\n" + "".join(rows)


def made() -> tuple[str, str]:
    """The page with its table, and the schema."""
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    page = head + BEGIN + table() + END + tail
    return page, schema(page)


def main(arguments: list[str]) -> int:
    """Write both, or compare them."""
    page, document = made()
    if "--check" in arguments:
        same = PAGE.read_text(encoding="utf-8") == page and SCHEMA.exists()
        same = same and SCHEMA.read_text(encoding="utf-8") == document
        sys.stdout.write(f"the API's schema is {'as it should be' if same else 'old: run scripts/make_api.py'}\n")
        return 0 if same else 1
    PAGE.write_text(page, encoding="utf-8")
    SCHEMA.write_text(document, encoding="utf-8")
    # the Python client is made of the schema
    return subprocess.run([sys.executable, str(ROOT / "scripts" / "make_client.py")], check=False).returncode  # noqa: S603 - ours


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
