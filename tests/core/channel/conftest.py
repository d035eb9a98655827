"""The builders of tests/core serve here too."""

import sys
from pathlib import Path

import pytest

_PARENT = str(Path(__file__).resolve().parents[1])
if _PARENT not in sys.path:
    sys.path.insert(0, _PARENT)

pytest.register_assert_rewrite("channel_shell", "channel_examples")


@pytest.fixture
def pair():
    """Connected, in step, at version 1 with a thousand units each."""
    from channel_examples import propose, versions  # noqa: PLC0415 - after the path and the rewriting
    from channel_shell import Pair  # noqa: PLC0415 - the same

    from channeld.core.operations import Deposit  # noqa: PLC0415 - the same

    made = Pair()
    made.connect()
    made.settle()
    propose(made, Deposit(0, 1000, 1000))
    made.settle()
    assert versions(made) == (1, 1)
    return made
