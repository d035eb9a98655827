"""The core is pure: what it imports is listed here, and nothing of it asks for time, chance, files or sockets."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parents[2] / "channeld" / "core"
FILES = sorted(CORE.rglob("*.py"))
STANDARD = {
    "__future__",
    "base64",
    "bisect",
    "collections",
    "contextlib",
    "copy",
    "dataclasses",
    "datetime",
    "enum",
    "functools",
    "hashlib",
    "hmac",
    "itertools",
    "json",
    "math",
    "operator",
    "re",
    "string",
    "struct",
    "types",
    "typing",
}
BRICKS = {"Crypto", "coincurve", "msgpack", "msgspec", "nacl", "numpy", "sha3"}
IMPURE_NAMES = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint", "id", "hash"}
IMPURE_ATTRIBUTES = {"now", "utcnow", "today", "urandom", "token_bytes", "random", "sleep", "environ", "getenv"}


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports in core are absolute"
            yield node.module, node.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CORE)))
def test_imports_are_pure(path):
    for name, line in imports(ast.parse(path.read_text())):
        top = name.split(".")[0]
        if top == "channeld":
            assert name.startswith("channeld.core"), f"{path.name}:{line} imports {name}, outside of core"
        else:
            assert top in STANDARD | BRICKS, f"{path.name}:{line} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CORE)))
def test_nothing_asks_for_time_chance_or_files(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name):
                assert called.id not in IMPURE_NAMES, f"{path.name}:{node.lineno} calls {called.id}()"
            elif isinstance(called, ast.Attribute):
                assert called.attr not in IMPURE_ATTRIBUTES, f"{path.name}:{node.lineno} calls .{called.attr}()"
        # an interface may be asynchronous; whoever awaits it is a shell
        assert not isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith), f"{path.name}: core awaits nothing"


def test_no_module_level_variable_is_written_by_a_function():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.Global), f"{path.name}:{node.lineno} writes a global"


def test_importing_core_loads_no_other_room():
    modules = ", ".join(
        "channeld.core." + ".".join(p.relative_to(CORE).with_suffix("").parts) for p in FILES if p.name != "__init__.py"
    )
    program = (
        f"import sys, {modules}\n"
        "rooms = {'asyncio', 'socket', 'web3', 'aiohttp', 'sqlite3', 'eth_account'}\n"
        "print([m for m in sys.modules if m in rooms or m.startswith('channeld.') and m.split('.')[1] != 'core'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
