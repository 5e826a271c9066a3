"""What the watch benchmark puts on disks, and the peers it is held against.

Loads run in a process of their own. Peers that are not there are left out: watchdog and watchfiles where they can be imported,
inotifywait and watchman where they are on the PATH (Debian: inotify-tools, watchman).
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

PER_DIR = 20
#: B1's burst: (new nested files, files of a copy, renames, atomic saves, vim saves).
BURST_FILES = 3000
#: Processes that make a flood: one alone does not get enough of a busy machine.
_FLOODS = 4


def make_tree(root: Path, files: int) -> None:
    """*files* files, 20 in a folder, 50 folders in a folder."""
    for n in range(files // PER_DIR):
        folder = root / f"d{n // 50}" / f"e{n % 50}"
        folder.mkdir(parents=True)
        for m in range(PER_DIR):
            os.close(os.open(f"{folder}/{m}.txt", os.O_CREAT | os.O_WRONLY, 0o644))


def make_dirs(root: Path, dirs: int) -> None:
    """*dirs* empty folders, 50 in a folder."""
    for n in range(dirs):
        (root / f"d{n // 2500}" / f"e{n // 50 % 50}" / f"f{n % 50}").mkdir(parents=True)


def burst(root: Path) -> None:
    """New nested folders, a copy, renames, atomic saves, vim's saves, all at full speed."""
    make_tree(root / "new", 3 * BURST_FILES)
    shutil.copytree(root / "new", root / "copy")
    for n in range(BURST_FILES):
        (root / f"r{n}").write_bytes(b"x")
    for n in range(BURST_FILES):
        (root / f"r{n}").rename(root / f"s{n}")
    for n in range(BURST_FILES):
        (root / f"t{n}.tmp").write_bytes(b"y")
        (root / f"t{n}.tmp").rename(root / f"s{n}")
    for n in range(BURST_FILES):
        (root / f"s{n}").rename(root / f"s{n}~")
        (root / f"s{n}").write_bytes(b"z")
        (root / f"s{n}~").unlink()


def flood(root: Path, *, files: int, files_a_second: int = 0) -> float:
    """Two events a file in folders 0 to 39, by four processes; 0: as fast as it goes. Seconds it took. Needs `cc`."""
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/flood"
        subprocess.run(["cc", "-O2", "-o", program, str(Path(__file__).with_name("flood.c"))], check=True)
        share = [str(number // _FLOODS) for number in (files, files_a_second)]
        began = time.perf_counter()
        running = [subprocess.Popen([program, str(root), *share, f"{letter}-"]) for letter in "abcd"[:_FLOODS]]
        assert [process.wait() for process in running] == [0] * _FLOODS
        return time.perf_counter() - began


def in_python(module: str, *words: object) -> str:
    """What a module says that is run in a process of its own."""
    argv = [sys.executable, "-m", module, *map(str, words)]
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout


def run_load(name: str, root: Path) -> float:
    """Run a load in another process; seconds it took."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "bench.watch_loads", name, str(root)], check=True)
    return time.perf_counter() - began


def bare_walk(root: Path) -> int:
    """scandir and lstat, streamed: what any scanner in this language pays."""
    count, stack = 0, [os.fsencode(root)]
    while stack:
        with os.scandir(stack.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)
                else:
                    entry.stat(follow_symlinks=False)
                    count += 1
    return count


# -- peers: seconds until *root* is watched, and what they saw of a burst -----------------------------------------------


class Raw:
    """The least that works: one inotify descriptor, a watch per directory by path, events counted and not looked into."""

    def __init__(self) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self.libc.inotify_init1(0o2000000)

    def watch(self, root: Path) -> int:
        count, stack = 0, [os.fsencode(root)]
        while stack:
            path = stack.pop()
            self.libc.inotify_add_watch(self.fd, path, 0x3CE)
            count += 1
            with os.scandir(path) as entries:
                stack += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        return count

    def close(self) -> None:
        os.close(self.fd)


def raw_setup_s(root: Path) -> float:
    """Watches on all directories by the raw prototype."""
    raw = Raw()
    began = time.perf_counter()
    raw.watch(root)
    took = time.perf_counter() - began
    raw.close()
    return took


def inotifywait_setup_s(root: Path) -> float | None:
    """`inotifywait -m -r` until it says that its watches stand; None where it is not installed."""
    if shutil.which("inotifywait") is None:
        return None
    began = time.perf_counter()
    process = subprocess.Popen(
        ["inotifywait", "-m", "-r", str(root)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        for line in process.stderr or ():
            if "established" in line:
                return time.perf_counter() - began
        return None
    finally:
        process.kill()
        process.wait()


def watchdog_seen(root: Path) -> tuple[float, int]:
    """(CPU seconds, files that got no event) of watchdog alone, filtered, in a process of its own, over a burst."""
    return _in_child("watchdog", root)


def watchfiles_seen(root: Path) -> tuple[float, int] | None:
    """The same of watchfiles; None where it cannot be imported."""
    probe = subprocess.run([sys.executable, "-c", "import watchfiles"], capture_output=True, check=False)
    return _in_child("watchfiles", root) if probe.returncode == 0 else None


def watchman_seen(root: Path) -> tuple[float, int] | None:
    """(CPU seconds, files that it does not know after the burst) of watchman; None where it does not run."""
    if shutil.which("watchman") is None:
        return None
    state = tempfile.mkdtemp()
    argv = ["watchman", "--foreground", f"--sockname={state}/s", f"--statefile={state}/t", f"--logfile={state}/l", "-n"]
    daemon = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        from bench.common import tree_cpu_s

        _watchman(state, ["watch", str(root)])
        before = tree_cpu_s(daemon.pid)
        run_load("burst", root)
        time.sleep(2)
        found = _watchman(state, ["query", str(root), {"expression": ["type", "f"], "fields": ["name"]}])
        used = tree_cpu_s(daemon.pid) - before
        return used, len(files_of(root) - {str(root / name) for name in found["files"]})
    except (OSError, ValueError, KeyError, subprocess.CalledProcessError):
        return None
    finally:
        daemon.kill()
        daemon.wait()
        shutil.rmtree(state, ignore_errors=True)


def _watchman(state: str, command: list[object]) -> dict[str, list[str]]:
    for _ in range(50):
        done = subprocess.run(
            ["watchman", f"--sockname={state}/s", "--no-spawn", "-j"],
            input=json.dumps(command), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode == 0 and done.stdout:
            return json.loads(done.stdout)
        time.sleep(0.1)
    raise ValueError(done.stderr)


def files_of(root: Path) -> set[str]:
    """Absolute paths of all files."""
    return {os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names}


def _in_child(peer: str, root: Path) -> tuple[float, int]:
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.watch_loads", f"peer-{peer}", str(root)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    child.stdout.readline()  # it watches
    run_load("burst", root)
    out, _ = child.communicate("end\n", timeout=300)
    used, lost = out.split()
    return float(used), int(lost)


def _peer(peer: str, root: Path) -> None:
    seen: set[str] = set()
    quiet = [time.monotonic()]
    began = time.process_time()

    def note(*found: str) -> None:
        seen.update(found)
        quiet[0] = time.monotonic()

    if peer == "watchdog":
        from watchdog import events
        from watchdog.observers import Observer

        class Handler(events.FileSystemEventHandler):
            def on_any_event(self, event: events.FileSystemEvent) -> None:
                note(os.fsdecode(event.src_path), os.fsdecode(event.dest_path))

        kinds = [
            events.FileCreatedEvent, events.DirCreatedEvent, events.FileMovedEvent, events.DirMovedEvent,
            events.FileDeletedEvent, events.DirDeletedEvent, events.FileClosedEvent,
        ]  # fmt: skip
        observer = Observer()
        observer.schedule(Handler(), str(root), recursive=True, event_filter=kinds)
        observer.start()
    else:
        import watchfiles

        def listen() -> None:
            for changes in watchfiles.watch(root, debounce=100, step=5, yield_on_timeout=False):
                note(*(path for _, path in changes))

        threading.Thread(target=listen, daemon=True).start()
        time.sleep(1)
    print("watching", flush=True)
    sys.stdin.readline()
    quiet[0] = time.monotonic()
    while time.monotonic() - quiet[0] < 2:
        time.sleep(0.1)
    print(time.process_time() - began, len(files_of(root) - seen), flush=True)
    os._exit(0)


if __name__ == "__main__":
    name, where = sys.argv[1], Path(sys.argv[2])
    if name.startswith("peer-"):
        _peer(name.removeprefix("peer-"), where)
    if name.startswith("nested-"):
        make_tree(where, int(name.removeprefix("nested-")))
    else:
        burst(where)
