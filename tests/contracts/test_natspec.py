"""NatSpec: every function of every contract says what it does; external ones, every parameter and what they return."""

import re

import pytest
from contracts_harness import compiler

_FUNCTION = re.compile(
    r"^(?P<marks>(?:@\w+(?:\([^)]*\))?\n)+)def (?P<name>\w+)\((?P<inputs>.*?)\)(?: -> (?P<output>[^\n]+?))?:\n"
    r"(?P<doc>    \"\"\".*?\"\"\")?",
    re.MULTILINE | re.DOTALL,
)


def functions():
    """(path, match) of every function of the contracts and of the modules they are made of."""
    paths = sorted({path for source in compiler().SOURCES for path in compiler().imported(source)})
    for path in paths:
        text = (compiler().CONTRACTS / path).read_text()
        for match in _FUNCTION.finditer(text):
            yield pytest.param(path, match, id=f"{path}:{match['name']}")


def names(inputs):
    """The parameters' names; types hold commas in brackets alone."""
    flat = re.sub(r"\[[^\[\]]*\]", "", re.sub(r"\[[^\[\]]*\]", "", inputs))
    return [part.split(":")[0].strip() for part in flat.split(",") if part.strip()]


@pytest.mark.parametrize(("path", "match"), list(functions()))
def test_every_function_is_documented(path, match):
    doc = match["doc"] or ""
    assert "@notice" in doc, f"{path}: {match['name']} does not say what it does"
    if "@external" not in match["marks"] and "@deploy" not in match["marks"]:
        return
    assert re.findall(r"@param (\w+)", doc) == names(match["inputs"])
    assert bool(match["output"]) == ("@return" in doc)


def test_there_are_functions_to_read():
    assert len(list(functions())) > 100


def test_every_source_names_itself_and_its_licence():
    for source in compiler().SOURCES:
        for path, text in compiler().imported(source).items():
            head = text[:1500]
            assert "@license Apache-2.0" in head, path
            assert "@notice" in head, path
            assert "@title" in head, path
