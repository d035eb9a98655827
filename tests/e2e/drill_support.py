"""What the drills stand on: the runbook's commands as processes, a chain as a process, endpoints that misbehave."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from faulty_endpoint import FaultyEndpoint

RUNBOOK = Path(__file__).resolve().parents[2] / "docs" / "runbook.md"
CHANNELD = f'channeld() {{ "{sys.executable}" -m channeld.cli.main "$@"; }}\n'
PATIENCE_S = 120


def commands(name):
    """The commands of the runbook's drill of a name, as they stand on the page."""
    text = RUNBOOK.read_text(encoding="utf-8")
    found = re.search(rf"<!-- drill: {name} -->\n\n```console\n(.*?)```", text, re.DOTALL)
    assert found, f"the runbook has no drill {name}"
    return found[1].strip().splitlines()


def every_drill():
    """The names of all drills on the page."""
    return re.findall(r"<!-- drill: (\S+) -->", RUNBOOK.read_text(encoding="utf-8"))


class Shell:
    """Runs lines of the runbook as a person would: in bash, with the page's variables set."""

    def __init__(self, **variables):
        self.variables = {name.upper(): str(value) for name, value in variables.items()}

    def start(self, line):
        """Start a line; its process."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CHANNELD_")}
        return subprocess.Popen(
            ["bash", "-c", CHANNELD + line],
            env={**kept, **self.variables, "CHANNELD_WATCH_SECONDS": "0.1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, process, code=0):
        """Wait for a process; what it printed. No error is ever a traceback."""
        try:
            out, err = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
        assert "Traceback" not in out + err, err
        if code is not None:
            assert process.returncode == code, out + err
        return out + err

    def run(self, line, code=0):
        """Run a line to its end."""
        return self.end(self.start(line), code)


def wait_for(done):
    """Wait for another process to bring it about; what it then is."""
    end = time.monotonic() + PATIENCE_S
    while True:
        found = done()
        if found:
            return found
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


class FaultyThread:
    """A FaultyEndpoint on an event loop of its own."""

    def __init__(self, url):
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(url,), daemon=True)

    def _work(self, url):
        async def serve():
            self.faults = FaultyEndpoint(url)
            await self.faults.__aenter__()
            self._ready.set()

        self._loop.run_until_complete(serve())
        self._loop.run_forever()
        self._loop.run_until_complete(self.faults.__aexit__())
        self._loop.close()

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(20)
        return self.faults

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
