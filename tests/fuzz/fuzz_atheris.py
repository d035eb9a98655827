"""The consistency fuzzer under atheris: `python tests/fuzz/fuzz_atheris.py tests/fuzz/corpus -max_total_time=600`.

Coverage of the machine, its records and messages guides the bytes. Needs atheris (`uv pip install "channeld[fuzz]"`);
options after the corpus are libFuzzer's. What it finds, `python tests/fuzz/fuzz_atheris.py FILE` repeats.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "core")]

with atheris.instrument_imports(include=["channeld.core.channel", "channeld.core.wire", "channeld.daemon.signer"]):
    from fuzz_world import run_bytes


def one(data: bytes) -> None:
    """What libFuzzer calls."""
    run_bytes(data)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
