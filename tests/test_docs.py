"""The documentation against the code: errors, API methods and parameters, commands, file fields, links, records."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import re
from pathlib import Path

import pytest
from typer.main import get_command

from channeld.cli.main import app
from channeld.cli.terms_file import FIELDS
from channeld.daemon.methods import Methods
from channeld.desk.policy import Policy

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
RECORDS = sorted((DOCS / "decisions").glob("[0-9]*.md"))
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```[a-z]*\n(.*?)^```|`([^`\n]+)`", re.MULTILINE | re.DOTALL)
HELPERS = {"_actor": "channel", "_peer": "peer", "_amount": "amount", "_offer": "id"}


def relative(path):
    return str(path.relative_to(ROOT))


def anchors(page):
    """The anchors of a page's headings, as the usual renderers make them."""
    found = set()
    for line in FENCE.sub("", page.read_text(encoding="utf-8")).splitlines():
        if line.startswith("#"):
            words = re.sub(r"[^\w\- ]", "", line.lstrip("# ").strip().lower())
            found.add(words.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_resolve(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    broken = []
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_files_that_are_named_exist(page):
    names = re.findall(r"`((?:tests|scripts|contracts|channeld)/[a-zA-Z_][\w/.-]*)`", page.read_text(encoding="utf-8"))
    assert [name for name in names if not (ROOT / name).exists() and "NAME" not in name] == []


def test_every_record_has_a_number_of_its_own_and_the_three_headings():
    assert RECORDS
    assert len({record.name[:4] for record in RECORDS}) == len(RECORDS)
    index = (DOCS / "decisions" / "README.md").read_text(encoding="utf-8")
    for record in RECORDS:
        headings = re.findall(r"^## (.+)$", record.read_text(encoding="utf-8"), re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences"], record.name
        assert f"({record.name})" in index, record.name


def test_the_page_of_errors_is_what_the_classes_make():
    spec = importlib.util.spec_from_file_location("make_errors", ROOT / "scripts" / "make_errors.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run: python scripts/make_errors.py"


def documented_methods():
    """The sections of docs/api.md: method -> the parameters of its table."""
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    sections = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    found = {}
    for section in sections:
        name, _, rest = section.partition("\n")
        table, _, _ = rest.partition("\nResult")
        found[name.strip()] = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    return found


def taken_parameters(function):
    """The parameters that a method takes, read from its source."""
    source = inspect.getsource(function)
    names = set(re.findall(r'(?:\(params|params\.get)\W+"(\w+)"', source))
    if "self._spec(params)" in source:
        names |= taken_parameters(Methods._spec)
    if "policy_of(params)" in source:
        names |= {field.name for field in dataclasses.fields(Policy)}
    return names | {name for helper, name in HELPERS.items() if f"self.{helper}(params" in source}


def test_the_api_page_has_every_method_with_every_parameter_and_no_other():
    table = Methods(None).table
    documented = documented_methods()
    assert set(documented) == set(table)
    for name, function in table.items():
        assert documented[name] == taken_parameters(function), name


def commands_in(text):
    """What the page calls `channeld ...`: the words after it, as far as they may be names of commands."""
    for block, inline in CODE.findall(text):
        for line in (block or inline).splitlines():
            for words in re.findall(r"(?:^|[\s/])channeld((?: [a-z][a-z-]*)+)", line):
                yield words.split()


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_commands_that_are_shown_exist(page):
    root = get_command(app)
    wrong = []
    for words in commands_in(page.read_text(encoding="utf-8")):
        command, path = root, []
        for word in words:
            inner = getattr(command, "commands", None)
            if not inner:
                break
            if word in inner:
                command = inner[word]
                path.append(word)
            elif path in (["trade"], ["audit"]) or (path and command.invoke_without_command):
                break  # the short form of a trade; an argument of a group that is a command too
            else:
                wrong.append(" ".join(words))
                break
    assert not wrong


def test_the_page_of_files_has_every_field_of_a_terms_file():
    text = (DOCS / "files.md").read_text(encoding="utf-8")
    for section, names in FIELDS.items():
        for name in names - {"a", "b", "oracle", "markets"}:
            assert f"| `{name}` |" in text, f"{section}.{name}"
