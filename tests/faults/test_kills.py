"""SIGKILL at random moments under load: nothing lost, nothing signed twice, every operation once.

CHANNELD_KILLS=500 makes it long, CHANNELD_KILLS_SECONDS ends it early, CHANNELD_KILLS_SEED chooses other moments.
"""

from __future__ import annotations

import json
import random
import threading
import time

import pytest
from kill_world import KillWorld, setting

from channeld.cli.processes import Cast

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("faults")]

KILLS = 20
SEED = 4
MOST_OPERATIONS_BETWEEN = 12
MOST_JITTER_S = 0.03


def test_killed_daemons_lose_nothing_and_sign_nothing_twice(tmp_path):
    kills, limit_s = setting("CHANNELD_KILLS", KILLS), setting("CHANNELD_KILLS_SECONDS", 24 * 3600)
    seed = setting("CHANNELD_KILLS_SEED", SEED)
    print(f"CHANNELD_KILLS_SEED={seed}")  # noqa: T201 - shown where the test fails
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    figures = {"seed": seed, "kills": 0, "rounds": 0, "both": 0, "while_starting": 0}
    with Cast(tmp_path) as cast:
        all_of_it = KillWorld(cast, tmp_path)
        all_of_it.begin()
        began = time.monotonic()
        all_of_it.begin_load()
        try:
            while figures["kills"] < kills and time.monotonic() - began < limit_s:
                one_round(all_of_it, chance, figures)
            all_of_it.end_load()
            figures |= all_of_it.audit(all_of_it.same_version())
        finally:
            all_of_it.stop.set()
            all_of_it.end()
            figures["seconds"] = round(time.monotonic() - began, 1)
            print(json.dumps(figures))  # noqa: T201 - where the test fails, and as the report of a long run
    assert figures["acknowledged"] >= figures["kills"]


def one_round(all_of_it, chance, figures):
    """Work, kill, sometimes kill again as soon as it is up, heal, compare."""
    maker, taker = all_of_it.desks
    all_of_it.await_progress(chance.randint(1, MOST_OPERATIONS_BETWEEN))
    again = True
    while again:
        # the moment of the kill within an operation: time passes here for its own sake, nothing is waited for
        threading.Event().wait(chance.uniform(0, MOST_JITTER_S))
        victims = chance.choice([(maker,), (taker,), (maker,), (taker,), (maker, taker)])
        all_of_it.kill(victims)
        figures["kills"] += 1
        figures["both"] += len(victims) == 2
        all_of_it.up(victims)
        again = chance.random() < 0.25
        figures["while_starting"] += again
    all_of_it.heal()
    all_of_it.compare()
    figures["rounds"] += 1
