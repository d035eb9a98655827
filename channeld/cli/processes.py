"""Processes that the command starts: in the background for a person, or as the cast of a demo.

Rules: a child of a demo never outlives it: each has its own process group, dies with its parent where the kernel can
promise that (PR_SET_PDEATHSIG), and is killed at exit and on signals. A child started for a person goes on, and says
where its log and its process id are. Only processes started here are ever signalled.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self

from channeld.cli.client import fetch
from channeld.cli.errors import ServiceError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import FrameType

PR_SET_PDEATHSIG = 1
LOG_TAIL = 1500


def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def command_line(arguments: Sequence[str]) -> list[str]:
    """The command that runs channeld with these arguments in a process of its own."""
    return [sys.executable, "-m", "channeld.cli.main", *arguments]


def die_with_parent() -> None:
    """In a child: ask the kernel for SIGKILL when the parent ends; nothing where it cannot."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def answers(url: str) -> Callable[[], bool]:
    """A test whether an HTTP service answers at a URL with success."""

    def test() -> bool:
        try:
            status, _ = fetch(url, timeout=2)
        except UnreachableError:
            return False
        return status < 300

    return test


def accepts(host: str, port: int) -> Callable[[], bool]:
    """A test whether something accepts connections at a port."""

    def test() -> bool:
        try:
            with socket.create_connection((host, port), timeout=1):
                return True
        except OSError:
            return False

    return test


class Child:
    """A process that was started, its log, and how to end it."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        """Hold what was started under a name for people."""
        self.name = name
        self.process = process
        self.log = log

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def tail(self) -> str:
        """The end of its log."""
        with contextlib.suppress(OSError):
            return self.log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:].strip()
        return ""

    def wait_ready(self, test: Callable[[], bool], timeout: float = 60.0) -> None:
        """Wait until `test` holds, at most timeout seconds.

        Raises:
            ServiceError: the process ended before, or time ran out; with the end of its log.

        """
        end = time.monotonic() + timeout
        while not test():
            if not self.alive:
                message = f"{self.name} ended with exit code {self.process.returncode}; its log {self.log} ends:"
                raise ServiceError(f"{message}\n{self.tail()}")
            if time.monotonic() > end:
                message = f"{self.name} was not ready within {timeout:.0f} s; its log {self.log} ends:"
                raise ServiceError(f"{message}\n{self.tail()}")
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL, to it and what it started; waits until it is gone."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5)


def start(
    name: str,
    arguments: Sequence[str],
    log: Path,
    *,
    environment: dict[str, str] | None = None,
    tied: bool = True,
) -> Child:
    """Start channeld with arguments, its output in a log. `tied`: it dies with this process.

    Raises:
        ServiceError: it cannot be started.

    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own module
                command_line(arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                preexec_fn=die_with_parent if tied else None,  # noqa: PLW1509 - one call of the kernel, no locks
            )
    except OSError as error:
        message = f"{name} cannot be started: {error}"
        raise ServiceError(message, advice="Check the directory and its permissions.") from None
    return Child(name, process, log)


class Cast:
    """The processes of a demo: all of them end with it, whatever happens. Use as a context."""

    def __init__(self, directory: Path) -> None:
        """Keep the logs in directory."""
        self.directory = directory
        self.children: list[Child] = []
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> Self:
        """Arm the exits: atexit, SIGTERM, SIGHUP."""
        atexit.register(self.kill_all)
        for number in (signal.SIGTERM, signal.SIGHUP):
            with contextlib.suppress(ValueError, OSError):  # not in the main thread: atexit and the kernel remain
                self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        """End every process that is left."""
        self.kill_all()
        atexit.unregister(self.kill_all)
        for number, handler in self._handlers.items():
            with contextlib.suppress(ValueError, OSError, TypeError):
                signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.kill_all()
        raise SystemExit(128 + number)

    def start(self, name: str, arguments: Sequence[str], environment: dict[str, str] | None = None) -> Child:
        """Start a process of the cast.

        Raises:
            ServiceError: it cannot be started.

        """
        child = start(name, arguments, self.directory / f"{name}.log", environment=environment)
        self.children.append(child)
        return child

    def kill_all(self) -> None:
        """SIGKILL to every process that is left, last started first."""
        for child in reversed(self.children):
            child.kill()
