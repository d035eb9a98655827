"""JSON of strangers: bounded in depth whatever the interpreter's recursion limit, else as the standard reader."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channeld.core.strict_json import MAX_DEPTH, read_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(VALUES)
def test_documents_are_read_as_they_are(value):
    if _depth(value) <= MAX_DEPTH:
        assert read_json(json.dumps(value).encode()) == value


def _depth(value) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 200_000, "[" * 17 + "]" * 17, '"[[\\', "\\", b"\xff", "", '"' * 99_999]
)
def test_deep_or_broken_documents_are_value_errors(text):
    with pytest.raises(ValueError, match=r"nested|Expecting|Unterminated|Invalid|decode|Extra"):
        read_json(text)


def test_brackets_in_strings_do_not_nest():
    assert read_json(json.dumps(["[" * 1000, '\\"[[' * 1000])) == ["[" * 1000, '\\"[[' * 1000]
    assert read_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert read_json("[1.10]") == ["1.10"]
