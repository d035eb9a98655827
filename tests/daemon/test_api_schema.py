"""The API's schema: it is what the page makes, it names everything, and calls drawn from it never fail badly."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import re
from pathlib import Path

import pytest
from desk_world import two_desks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channeld.core.errors import ChanneldError, InternalError
from channeld.daemon.methods import Methods
from channeld.daemon.scopes import scope_of
from channeld.daemon.token_methods import api_schema

ROOT = Path(__file__).resolve().parents[2]
# what would end the desk, or the channel, or wait
LEFT_ALONE = {"private/shutdown", "private/challenge", "private/close", "private/call_margin", "private/resume"}


def script():
    spec = importlib.util.spec_from_file_location("make_api", ROOT / "scripts" / "make_api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_and_schema_are_what_the_script_makes():
    module = script()
    page, document = module.made()
    assert module.PAGE.read_text(encoding="utf-8") == page, "run: python scripts/make_api.py"
    assert module.SCHEMA.read_text(encoding="utf-8") == document, "run: python scripts/make_api.py"


def test_it_names_every_method_and_the_scope_of_each():
    methods = {one["name"]: one for one in api_schema()["methods"]}
    assert set(methods) == set(Methods(None).table)
    for name, one in methods.items():
        assert one.get("x-scope") == (scope_of(name) if name.startswith("private/") else None)
        names = [parameter["name"] for parameter in one["params"]]
        assert len(set(names)) == len(names)
        # the code's own word for what it takes, where it takes it itself
        taken = set(re.findall(r'take\(params, "(\w+)"', inspect.getsource(Methods(None).table[name])))
        assert taken <= set(names), name


def test_a_type_that_nobody_knows_is_not_written():
    module = script()
    with pytest.raises(module.UnknownTypeError, match="private/x"):
        module.schema("### private/x\n\n| `a` | whatnot | |\n\nResult: x\n")


def values(schema):
    """Values of a JSON Schema of those that the script writes, and some that are none."""
    kind = schema.get("type", "string")
    fitting = {
        "string": st.text(max_size=30) | st.from_regex(r"\A-?[0-9]{1,30}(\.[0-9]{1,20})?\Z"),
        "integer": st.integers(0, 2**63 - 1),
        "boolean": st.booleans(),
        "object": st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
        "array": st.lists(st.text(max_size=10) | st.integers(), max_size=4),
    }
    known = fitting["string"] | st.just("0.0") if isinstance(kind, list) else fitting[kind]
    return known | st.sampled_from([None, True, -1, 1.5, "", [], {}, "\ud800", [[]], 2**70])


CALLS = st.sampled_from([m for m in api_schema()["methods"] if m["name"] not in LEFT_ALONE]).flatmap(
    lambda method: st.tuples(
        st.just(method["name"]),
        st.fixed_dictionaries(
            {},
            optional={p["name"]: values(p["schema"]) for p in method["params"] if not p["name"].endswith("wait_s")},
        ),
    )
)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A desk on a loop of its own, that stands still between two calls."""
    loop = asyncio.new_event_loop()
    manager = two_desks(tmp_path_factory.mktemp("schema"))
    world = loop.run_until_complete(manager.__aenter__())
    loop.run_until_complete(world.open())
    yield loop, world
    loop.run_until_complete(manager.__aexit__(None, None, None))
    loop.close()


async def outcome(desk, method, params):
    """The result, or a typed error as data; nothing else passes, and nothing hangs."""
    try:
        async with asyncio.timeout(60):
            return await desk.call(method, **params)
    except InternalError:
        raise
    except ChanneldError as error:
        return error.as_data()


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(call=CALLS)
def test_calls_drawn_from_the_schema_give_a_result_or_a_typed_error(running, call):
    loop, world = running
    method, params = call
    json.dumps(loop.run_until_complete(outcome(world.taker, method, params)), default=str)
