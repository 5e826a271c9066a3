"""A real daemon in a folder of its own, for the end-to-end and fault tests.

In: settings as values. Out: a running `msearchd run`, asked over its socket as any client asks. Waits by `sync`, never by
sleeping; the one thing that is polled is whether the socket answers yet. Leaves no process behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msearchd.cli.connection import Daemon as Connection
from msearchd.cli.connection import Refused, Unreachable, path_argument

START_DEADLINE_S = 60.0
#: Must be well above [limits] drain_s of the default settings below.
STOP_DEADLINE_S = 60.0

#: Where the tests themselves are killed, no daemon lives on. PR_SET_PDEATHSIG, SIGKILL; it holds across exec.
_DIE_WITH_US = (
    (
        sys.executable,
        "-I",
        "-S",
        "-c",
        "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execvp(sys.argv[1], sys.argv[1:])",
    )
    if sys.platform == "linux"
    else ()
)

#: Quick to settle, so that a test is about what happens and not about the waiting; everything else is the default.
_QUICK: dict[str, dict[str, Any]] = {
    "watch": {"settle_created_s": 0.3, "settle_modified_s": 0.3},
    "store": {"min_free_mb": 16},
    "search": {"query_timeout_s": 60.0},  # on a busy machine a model takes long to load
    "limits": {"nice": 0, "drain_s": 20.0},
    "log": {"level": "debug", "format": "json"},
}


class DaemonHome:
    """One data folder and the daemon that serves it: `start`, `stop` (politely), `kill` (-9), again and again."""

    def __init__(self, home: Path, *, settings: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.home = home
        self.data_dir = home / "data"
        self.socket = home / "s.sock"
        self.log_file = home / "daemon.log"
        self.config = home / "msearchd.toml"
        self.settings = {
            name: {**_QUICK.get(name, {}), **(settings or {}).get(name, {})} for name in {*_QUICK, *(settings or {})}
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.prefix: tuple[
            str, ...
        ] = ()  # put before the command line: what changes limits and rights, then executes it
        self.api = Connection(str(self.socket))
        for folder in ("data", "tmp", "run", "files"):
            (home / folder).mkdir(exist_ok=True)

    @property
    def files(self) -> Path:
        """A folder for files to watch."""
        return self.home / "files"

    # -- life -------------------------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """What the daemon and its clients see: nothing of the person who runs the tests."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
        return {
            **kept,
            "HOME": str(self.home),
            "TMPDIR": str(self.home / "tmp"),
            "XDG_RUNTIME_DIR": str(self.home / "run"),
            "MSEARCHD_CONFIG": str(self.config),
        }

    def write_config(self) -> None:
        """The settings file out of `settings`."""
        sections = {**self.settings, "api": {**self.settings.get("api", {}), "socket": str(self.socket)}}
        lines = [f"data_dir = {json.dumps(str(self.data_dir))}"]
        for name, values in sections.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        self.config.write_text("\n".join(lines) + "\n")

    def start(self) -> DaemonHome:
        """Start and wait until the socket answers."""
        self.launch()
        self.wait_until_up()
        return self

    def launch(self) -> subprocess.Popen[bytes]:
        """Start without waiting."""
        self.write_config()
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*_DIE_WITH_US, *self.prefix, sys.executable, "-m", "msearchd", "run", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                start_new_session=True,
            )
        return self.process

    def wait_until_up(self) -> None:
        """Return once the socket answers."""
        deadline = time.monotonic() + START_DEADLINE_S
        while True:
            with contextlib.suppress(Unreachable, Refused):
                self.api.get("/version", timeout_s=5.0)
                return
            assert self.process is not None
            assert self.process.poll() is None, f"the daemon ended with {self.process.returncode}\n{self.log_tail()}"
            assert time.monotonic() < deadline, f"the socket never answered\n{self.log_tail()}"
            time.sleep(0.02)

    def stop(self) -> None:
        """SIGTERM; it must end with 0, without a traceback, and leave no process behind."""
        process = self.process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"it did not stop within {STOP_DEADLINE_S} s\n{self.log_tail()}") from None
        assert status == 0, f"it ended with {status}\n{self.log_tail()}"
        assert not self.tracebacks(), f"tracebacks in the log\n{self.tracebacks()[0]}\n{self.log_tail()}"
        assert self.processes_gone(deadline_s=5.0), f"left behind: {self.processes()}"
        assert not self.socket.exists(), "the socket was left behind"

    def kill(self) -> None:
        """kill -9 of the daemon; its children must follow by themselves."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        assert self.processes_gone(deadline_s=10.0), f"orphans live on: {self.processes()}"

    def end(self) -> None:
        """Whatever state it is in: no process of ours is left."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # -- processes ----------------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The daemon's."""
        assert self.process is not None
        return self.process.pid

    def processes(self) -> dict[int, str]:
        """Every live process that was started in this home, with its command line: the daemon and all below it."""
        mark = b"TMPDIR=" + os.fsencode(self.home / "tmp")
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (
                        (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    )
        return found

    def processes_gone(self, *, deadline_s: float) -> bool:
        """True once none is left."""
        deadline = time.monotonic() + deadline_s
        while self.processes():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def children(self, kind: str) -> list[int]:
        """Pids of a kind of child, newest last, as the log told them: "store", "extract", "ocr", "model:"."""
        alive = self.processes()
        return [
            event["pid"]
            for event in self.events("child started")
            if event["child"].startswith(kind) and event["pid"] in alive
        ]

    # -- log ----------------------------------------------------------------------------------------------------------------

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Events of the log, of one name or all."""
        found = []
        for line in self.log_file.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and name in {None, event.get("event")}:
                    found.append(event)
        return found

    def tracebacks(self) -> list[str]:
        """What no daemon should ever log: exceptions, and tasks that nobody waited for."""
        bad = ("Traceback", "never awaited", "never retrieved", "destroyed but it is pending")
        return [
            line
            for line in self.log_file.read_text(errors="replace").splitlines()
            if any(word in line for word in bad) and '"child stderr"' not in line
        ]

    def log_tail(self, lines: int = 60) -> str:
        """The last lines of the log."""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])

    # -- questions ------------------------------------------------------------------------------------------------------------

    def add(self, folder: Path) -> dict[str, Any]:
        """Watch a folder."""
        return self.api.post("/folders", {"path": path_argument(str(folder))})

    def sync(self, *, timeout_s: float = 90.0) -> dict[str, Any]:
        """Wait until every change so far is searchable, blocked, delayed or failed."""
        reply = self.api.post("/sync", {"timeout_s": timeout_s}, timeout_s=timeout_s + 30)
        assert reply["is_complete"], (
            f"not in step after {timeout_s} s: {reply}\n{self.status()['queue']}\n{self.log_tail()}"
        )
        return reply

    def status(self) -> dict[str, Any]:
        """The status page."""
        return self.api.get("/status")

    def hits(self, text: str, *, limit: int = 20, **filters: Any) -> list[dict[str, Any]]:
        """Hits of a search, best first; every list must have answered."""
        reply = self.api.post("/search", {"text": text, "limit": limit, "wait_s": 60.0, **filters}, timeout_s=90)
        assert not reply["missing"], reply["missing"]
        return reply["hits"]

    def found(self, text: str, **options: Any) -> list[Path]:
        """Paths of the hits, best first, with those of equal bytes."""
        return [Path(path) for hit in self.hits(text, **options) for path in (hit["path"], *hit["same_content"])]

    def found_by_words(self, text: str, **options: Any) -> set[Path]:
        """Paths of the hits that have these very words in their text or in their name (not: that are near by meaning)."""
        return {
            Path(path)
            for hit in self.hits(text, **options)
            for path in (hit["path"], *hit["same_content"])
            if any(rank["list"] in {"words", "names"} for rank in hit["ranks"])
        }

    def explain(self, path: Path) -> dict[str, Any]:
        """Why it is found or not."""
        return self.api.get("/explain", path=path_argument(str(path)))

    def points(self) -> int:
        """Points in the store."""
        return int(self.status()["store"]["points"])

    def steps_done(self, step: str = "embed") -> int:
        """Attempts at *step* that ended well since the database was made."""
        with contextlib.closing(sqlite3.connect(f"file:{self.data_dir}/msearchd.db?mode=ro", uri=True)) as c:
            return int(
                c.execute("SELECT count(*) FROM job_history WHERE step = ? AND outcome = 'done'", (step,)).fetchone()[0]
            )


@contextlib.contextmanager
def daemon_home(settings: Mapping[str, Mapping[str, Any]] | None = None) -> Iterator[DaemonHome]:
    """A home with a short path (a socket's path is at most 107 bytes); all processes and files are gone after it."""
    home = DaemonHome(Path(tempfile.mkdtemp(prefix="msd-")).resolve(), settings=settings)
    try:
        yield home
    finally:
        home.end()
        shutil.rmtree(home.home, ignore_errors=True)
