"""The decoders under atheris: `python tests/fuzz/fuzz_decoders.py CORPUS -max_total_time=600`.

Needs atheris (`uv pip install "channeld[fuzz]"`); options after the corpus are libFuzzer's. An empty corpus is filled
with inputs that are accepted. `--api` as the first argument has a desk answer instead: the bytes are a request to its
API, method and parameters included.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
from pathlib import Path

import atheris

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "daemon")]

with atheris.instrument_imports(include=["channeld"]):
    import decoders
    from desk_world import two_desks

    from channeld.core.strict_json import read_json
    from channeld.daemon.api import ApiServer
    from channeld.daemon.token_methods import api_schema

TOKEN = "f" * 40
# what would end the desk, or wait
LEFT_ALONE = ("shutdown", "subscribe", "wait_s", "challenge", "call_margin")


def api_target():
    """Gives requests to a desk that stands still between two of them."""
    loop = asyncio.new_event_loop()
    manager = two_desks(Path(tempfile.mkdtemp()), api__rate=100_000)
    world = loop.run_until_complete(manager.__aenter__())
    loop.run_until_complete(world.open())
    server = ApiServer(world.maker.node, TOKEN)

    def one(data: bytes) -> None:
        if any(word.encode() in data for word in LEFT_ALONE):
            return
        with contextlib.suppress(ValueError, RecursionError):
            asked = read_json(data)
            work = server._answer(asked, f"Bearer {TOKEN}", "127.0.0.1")
            answer = loop.run_until_complete(asyncio.wait_for(work, 60))
            assert answer.get("error", {}).get("code", 0) < 9000, answer

    return one


def request(method) -> bytes:
    """A request of a method of the schema, with a value for each of its parameters."""
    fitting = {"string": "taker", "integer": 1, "boolean": True, "object": {}, "array": [{"instrument": "ETH-PERP"}]}
    kinds = {one["name"]: one["schema"].get("type") for one in method["params"] if one["name"] != "wait_s"}
    params = {name: fitting.get(kind, "1") if isinstance(kind, str) else "1" for name, kind in kinds.items()}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method["name"], "params": params}).encode()


if __name__ == "__main__":
    target, begin = decoders.run, decoders.seeds()
    if sys.argv[1:2] == ["--api"]:
        del sys.argv[1]
        target, begin = api_target(), [request(method) for method in api_schema()["methods"]]
    corpus = Path(sys.argv[1]) if sys.argv[1:] else None
    if corpus is not None and corpus.is_dir() and not any(corpus.iterdir()):
        for number, seed in enumerate(begin):
            (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
