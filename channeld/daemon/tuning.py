"""How this process treats the interpreter: few collections of garbage, quick turns between threads.

Rules: records of the core are frozen and make no cycles, so reference counts free them; the collector is for the rest,
and looks seldom. The store's thread asks for the interpreter between two waits for the disk: a long turn of the event
loop would keep a commit waiting that others wait for.
"""

from __future__ import annotations

import gc
import sys

TURN_S = 0.0005
THRESHOLDS = (50_000, 20, 50)


def tune() -> None:
    """Set both, once, when everything that stays is loaded."""
    sys.setswitchinterval(TURN_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
