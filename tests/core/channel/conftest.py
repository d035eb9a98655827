"""The builders of tests/core serve here too."""

import sys
from pathlib import Path

import pytest

_PARENT = str(Path(__file__).resolve().parents[1])
if _PARENT not in sys.path:
    sys.path.insert(0, _PARENT)

pytest.register_assert_rewrite("channel_shell")
