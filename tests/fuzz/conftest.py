"""The builders of tests/core serve here too."""

import sys
from pathlib import Path

import pytest

for _path in (Path(__file__).resolve().parent, Path(__file__).resolve().parents[1] / "core"):
    if str(_path) not in sys.path:
        sys.path.insert(0, str(_path))

pytest.register_assert_rewrite("fuzz_world", "fuzz_side", "fuzz_model")
