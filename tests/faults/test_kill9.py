"""kill -9 of the daemon and of each of its children while files are written: nothing is lost, doubled or left over.

A writer creates, edits, renames and deletes files all the while. After each kill and one sync, the index equals the tree:
every live file is found by the word that only it has, no word of a gone or older file is found, and the store holds
exactly the points that the catalog expects, and `verify` finds nothing. MSEARCHD_LONG=1: two hundred rounds for the daemon,
fifty for its children; MSEARCHD_ROUNDS says another number.
"""

import contextlib
import os
import random
import signal
import sqlite3
import threading
import time

import pytest
from daemon_harness import daemon_home
from index_audit import audit

IS_LONG = bool(os.environ.get("MSEARCHD_LONG"))
ROUNDS = int(os.environ.get("MSEARCHD_ROUNDS", "50" if IS_LONG else "2"))
DAEMON_ROUNDS = int(os.environ.get("MSEARCHD_ROUNDS", "200" if IS_LONG else "2"))
SEED = int(os.environ.get("MSEARCHD_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
MOST_FILES = 40

pytestmark = pytest.mark.timeout(5400 if IS_LONG else 240)


class Writer:
    """Changes a tree at random and knows what must be in it. `run` in a thread; `words` is true while it stands still."""

    def __init__(self, top, seed):
        self.top = top
        self.random = random.Random(seed)
        self.words: dict[str, str] = {}  # path relative to top -> the word that only this file has now
        self.retired: list[str] = []  # words that no file has any more
        self.serial = 0
        self.operations = 0
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self):
        self._is_over.clear()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self):
        self._is_over.set()
        self._thread.join()

    def _run(self):
        while not self._is_over.wait(self.random.uniform(0.001, 0.03)):
            self.one()

    def one(self):
        chance = self.random.random()
        path = self.random.choice(sorted(self.words)) if self.words else None
        if path is None or (chance < 0.4 and len(self.words) < MOST_FILES):
            self._create()
        elif chance < 0.6:
            self._write(path, self._in_place if chance < 0.5 else self._replace)
        elif chance < 0.75:
            self._rename(path, self._place())
        elif chance < 0.85:
            self._rename_folder()
        else:
            (self.top / path).unlink()
            self.retired.append(self.words.pop(path))
        self.operations += 1

    def _word(self):
        self.serial += 1
        return f"kw{self.serial}q"

    def _place(self):
        folder = self.random.choice(["", "a/", "b/", "a/c/"])
        return f"{folder}{self.random.randrange(10**6)}.txt"

    def _create(self):
        path = self._place()
        if path not in self.words:
            self.words[path] = ""
            self._write(path, self._in_place)

    def _write(self, path, how):
        word = self._word()
        full = self.top / path
        full.parent.mkdir(parents=True, exist_ok=True)
        how(
            full,
            f"{word}. "
            + f"Everybody knows sentence {self.serial} of this chronicle. " * self.random.choice([1, 3, 60]),
        )
        if old := self.words.get(path):
            self.retired.append(old)
        self.words[path] = word

    def _in_place(self, full, text):
        full.write_text(text)

    def _replace(self, full, text):
        other = full.with_name(f".{full.name}.tmp")
        other.write_text(text)
        other.replace(full)

    def _rename(self, path, target):
        (self.top / target).parent.mkdir(parents=True, exist_ok=True)
        if target not in self.words:
            (self.top / path).rename(self.top / target)
            self.words[target] = self.words.pop(path)

    def _rename_folder(self):
        old, new = self.random.sample(["a", "b", "d", "e"], 2)
        if (self.top / old).is_dir() and not (self.top / new).exists():
            (self.top / old).rename(self.top / new)
            for path in [path for path in self.words if path.startswith(f"{old}/")]:
                self.words[new + path.removeprefix(old)] = self.words.pop(path)


@pytest.fixture
def world():
    """A daemon in step with a tree that a writer has begun."""
    # Without the brake: on a busy machine the writer replaces most of forty files between kill and start, as an unplugged disk would.
    quick = {"settle_created_s": 0.1, "settle_modified_s": 0.1, "settle_closed_s": 0.05, "vanish_brake_percent": 100}
    with daemon_home({"watch": quick}) as home:
        tree = home.files / "tree"
        tree.mkdir()
        home.start()
        home.add(tree)
        writer = Writer(tree, SEED)
        for _ in range(15):
            writer.one()
        home.sync()
        yield home, writer
        if writer._thread is not None:
            writer.stop()


def in_step(home, *, deadline_s=120.0):
    """Sync until nothing is delayed either: what a kill interrupted waits for its second attempt."""
    deadline = time.monotonic() + deadline_s
    while True:
        reply = home.sync()
        if reply["pending"] == 0:
            return reply
        assert time.monotonic() < deadline, f"still pending: {reply}\n{home.status()}\n{home.log_tail()}"
        time.sleep(0.2)  # delayed jobs wait for a clock


def index_equals_tree(home, writer):
    """Raises AssertionError with what differs, and the seed."""
    reply = in_step(home)
    what = f"seed {SEED}, {writer.operations} operations\n{home.log_tail()}"
    failed = home.api.get("/failed")["items"]
    page = home.status()
    assert (reply["failed"], reply["blocked"]) == (0, 0), (page["problems"], page["blocked"], failed[:3], what)
    found = {path: home.found_by_words(word, limit=5) for path, word in writer.words.items()}
    wrong = {
        path: (writer.words[path], hits, home.explain(writer.top / path))
        for path, hits in found.items()
        if hits != {writer.top / path}
    }
    assert wrong == {}, what
    stale = [word for word in writer.retired[-30:] if home.found_by_words(word, limit=5)]
    assert stale == [], what
    listed = set(home.found("everybody knows this chronicle", limit=1000))
    assert listed <= {writer.top / path for path in writer.words}, what
    assert home.status()["store"]["points"] == expected_points(home), what
    verified = home.api.post("/system/verify", {"repair": False}, timeout_s=60)
    assert verified["is_clean"], (verified, what)
    assert all(folder["is_checked"] and not folder["changes"] for folder in verified["folders"]), (verified, what)


def expected_points(home):
    with contextlib.closing(sqlite3.connect(f"file:{home.data_dir}/msearchd.db?mode=ro", uri=True)) as c:
        return c.execute("SELECT coalesce(sum(points), 0) FROM space").fetchone()[0]


def is_clean_on_disk(home):
    """After a polite stop, catalog and store agree content by content."""
    home.stop()
    reports = audit(home.data_dir)
    assert reports
    assert all(report.is_clean for report in reports), (reports, f"seed {SEED}")


def kill_one(pids):
    for pid in pids[-1:]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(pids)


def test_the_daemon_killed_at_random_points_loses_nothing(world):
    home, writer = world
    began = time.monotonic()
    for _ in range(DAEMON_ROUNDS):
        writer.start()
        time.sleep(writer.random.uniform(0.0, 2.5))  # the point of the kill
        home.kill()
        time.sleep(writer.random.uniform(0.0, 0.3))  # files change while nobody watches
        if writer.random.random() < 0.3:  # and once more in the middle of the recovery
            home.launch()
            time.sleep(writer.random.uniform(0.3, 1.5))
            home.kill()
        writer.stop()
        home.start()
        index_equals_tree(home, writer)
    is_clean_on_disk(home)
    print(
        f"daemon: {DAEMON_ROUNDS} rounds, {writer.operations} operations, {len(writer.words)} files, seed {SEED}, {time.monotonic() - began:.0f} s"
    )


@pytest.mark.parametrize("kind", ["store", "extract", "model:"])
def test_a_child_killed_at_random_points_costs_nothing_but_repeated_work(world, kind):
    home, writer = world
    began = time.monotonic()
    kills = 0
    rounds = ROUNDS if kind == "store" or not IS_LONG else 20
    for number in range(1, rounds + 1):
        writer.start()
        for _ in range(2):
            time.sleep(writer.random.uniform(0.05, 1.0))  # the point of the kill
            kills += kill_one(home.children(kind))
        writer.stop()
        index_equals_tree(home, writer)
        if number % 3 == 0:  # the back-off of a child that died again and again begins anew with the daemon
            is_clean_on_disk(home)
            home.start()
            home.sync()
            assert home.found_by_words("chronicle")  # store and model run
    assert kills >= rounds
    assert home.process.poll() is None
    is_clean_on_disk(home)
    print(
        f"{kind}: {kills} kills in {rounds} rounds, {writer.operations} operations, seed {SEED}, {time.monotonic() - began:.0f} s"
    )
