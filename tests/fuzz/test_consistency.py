"""The consistency fuzzer in three faces: Hypothesis here, atheris (fuzz_atheris.py), a long seeded run (fuzz_long.py).

CHANNELD_FUZZ_EXAMPLES=5000 runs Hypothesis long, on fresh random seeds.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest
from fuzz_bugs import BUGS, ends_a_loss_by_an_older_leap, keeps_no_mark_of_a_loss, keeps_no_rejection
from fuzz_model import Violation
from fuzz_world import MOODS, run_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("CHANNELD_FUZZ_EXAMPLES", "0"))
CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.bin"))
RUNS_TO_FIND = 400
# a mood in which it is found sooner; any mood finds it
MOOD_TO_FIND = {keeps_no_mark_of_a_loss: b"\4", ends_a_loss_by_an_older_leap: b"\2", keeps_no_rejection: b"\4"}


def seeded(number: int) -> random.Random:
    """Choices that repeat."""
    return random.Random(number)  # noqa: S311 - a fuzzer's choices


@given(st.binary(min_size=50, max_size=3000))
@settings(
    max_examples=EXAMPLES or 60,
    deadline=None,
    derandomize=not EXAMPLES,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_any_bytes_leave_both_ends_of_every_channel_in_agreement(data):
    run_bytes(data)


@pytest.mark.parametrize("mood", range(len(MOODS)))
def test_every_mood_reaches_what_it_is_for(mood):
    """A seeded run in each mood, and what must have happened in it: a fuzzer that reaches nothing finds nothing."""
    counts: Counter[str] = Counter()
    chosen = seeded(mood)
    for _ in range(6):
        run_bytes(bytes([mood]) + chosen.randbytes(1500), counts=counts)
    everywhere = {"proposed", "Agreed", "Ready", "crashes", "voided"}
    special = (
        {"exit withdrawal"},
        {"Lost", "asked to recover", "set back, declared", "set back, silently"},
        {"Lost", "asked to recover"},
        {"Lost", "set back, silently"},
        {"failed writes"},
        {"dropped links", "doubled links"},
        {"exit close", "lapsed closes"},
        {"NotReadyError"},
        {"challenged", "challenged with an old state", "channels ended"},
    )[mood]
    assert everywhere | special <= counts.keys()


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_the_corpus_finds_nothing_any_more(path):
    run_bytes(path.read_bytes())


def test_there_is_a_corpus():
    assert len(CORPUS) >= 20


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_found(bug):
    chosen = seeded(1)

    def fuzz() -> None:
        for _ in range(RUNS_TO_FIND):
            run_bytes(MOOD_TO_FIND.get(bug, b"") + chosen.randbytes(1500), hooks)

    with bug() as hooks, pytest.raises(Violation):
        fuzz()
