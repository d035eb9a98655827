"""The committed vectors, and what the scripts beside them make today."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

VECTORS = Path(__file__).resolve().parents[1] / "vectors"


def load(name):
    return json.loads((VECTORS / name).read_text())


def octets(text):
    return bytes.fromhex(text[2:])


def made_by(script):
    """The files that a script of tests/vectors makes, by name."""
    sys.path.insert(0, str(VECTORS))
    try:
        return importlib.import_module(script).files()
    finally:
        sys.path.remove(str(VECTORS))
