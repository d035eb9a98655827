"""A private PostgreSQL server for tests: from Debian's packages, in a temporary directory, on a Unix socket alone."""

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
READY = "database system is ready to accept connections"
START_TIMEOUT_S = 30.0
_numbers = itertools.count()


def binaries() -> Path | None:
    """The directory of initdb and postgres of the newest installed version, or None."""
    found = [
        path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb") if (path.parent / "postgres").exists()
    ]
    on_path = shutil.which("initdb")
    if not found and on_path is not None:
        found = [Path(on_path).resolve().parent]
    return max(found, key=lambda path: int(path.parent.name) if path.parent.name.isdigit() else 0, default=None)


def _user() -> str | None:
    """Whom to run the server as: it refuses root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


class Server:
    """One server and its data; `start`, `kill` and `stop` as often as wanted, `remove` at the end."""

    def __init__(self, template: "Server | None" = None) -> None:
        """Create the data directory, by initdb or as a copy of a server that is stopped."""
        self.bin = binaries()
        assert self.bin is not None
        # Short, since a socket's path has 107 bytes; and where the server's user may go.
        self.directory = Path(tempfile.mkdtemp(prefix="channeld-pg-", dir="/tmp"))
        self.directory.chmod(0o755)
        self.data = self.directory / "data"
        self._as = {}
        if _user() is not None:
            entry = pwd.getpwnam(_user())
            os.chown(self.directory, entry.pw_uid, entry.pw_gid)
            self._as = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        if template is None:
            command = [self.bin / "initdb", "-D", self.data, "-U", "channeld", "-A", "trust", "-E", "UTF8"]
            command += ["--locale=C", "--no-sync", "--no-instructions", "--wal-segsize=1"]
            subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT, cwd="/", **self._as)
        else:
            subprocess.run(["cp", "-a", template.data, self.data], check=True)
        self.process: subprocess.Popen[str] | None = None
        self.log: list[str] = []
        self._reader: threading.Thread | None = None

    def url(self, schema: str | None = None) -> str:
        """The URL of a desk's schema, a new one where none is named."""
        schema = schema or f"desk_{next(_numbers)}"
        return f"postgresql://channeld@/postgres?host={self.directory}&schema={schema}"

    def start(self, *settings: str, file_limit: int | None = None) -> None:
        """Start and wait until it accepts connections; settings such as "fsync=off"; no file larger than a limit."""
        command = [self.bin / "postgres", "-D", self.data, "-k", self.directory, "-c", "listen_addresses="]
        command += ["-c", "shared_buffers=16MB", "-c", "max_connections=40", "-c", "max_wal_size=64MB"]
        for setting in settings:
            command += ["-c", setting]
        if file_limit is not None:
            command = ["prlimit", f"--fsize={file_limit}", *command]
        self.process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
            **self._as,
        )
        ready = threading.Event()
        self.log = []
        self._reader = threading.Thread(target=self._drain, args=(self.process, self.log, ready), daemon=True)
        self._reader.start()
        assert ready.wait(START_TIMEOUT_S), "".join(self.log)
        assert any(READY in line for line in self.log), "".join(self.log)

    @staticmethod
    def _drain(process, log, ready):
        with process.stderr:
            for line in process.stderr:
                log.append(line)
                if READY in line:
                    ready.set()
        ready.set()

    def kill(self) -> None:
        """The postmaster and every backend at once, as the end of the machine would."""
        pid = self.process.pid
        self.process.send_signal(signal.SIGSTOP)  # it starts no child while they are counted
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        for each in (*map(int, children), pid):  # each backend is a session of its own
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        self._wait()

    def stop(self) -> None:
        """Stop at once and orderly; connections are ended."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self._wait()

    def _wait(self) -> None:
        self.process.wait(START_TIMEOUT_S)
        self._reader.join(START_TIMEOUT_S)

    def remove(self) -> None:
        """Stop and delete."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
