"""What a program on the socket hears, and that it can go on where it stopped."""

import threading
import time

import pytest


class Ear:
    """Listens in a thread from now on."""

    def __init__(self, daemon, since=None):
        self.heard = []
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._listen, args=(daemon, since), daemon=True)
        self._thread.start()

    def _listen(self, daemon, since):
        for event in daemon.api.events(since):
            with self._news:
                self.heard.append(event)
                self._news.notify_all()

    def wait_for(self, name, *, deadline_s=20, **data):
        """The first event of that name with these data."""

        def found():
            return [one for one in self.heard if one["event"] == name and data.items() <= one["data"].items()]

        with self._news:
            assert self._news.wait_for(found, deadline_s), [(one["event"], one["data"]) for one in self.heard]
            return found()[0]


@pytest.fixture
def daemon(words_daemon):
    words_daemon.add(words_daemon.files)
    words_daemon.sync()
    return words_daemon


def listening(daemon, since=None):
    """An ear that the daemon knows of: it hears a pause that is made for it."""
    ear = Ear(daemon, since)
    deadline = time.monotonic() + 20
    while not any(one["event"] == "resumed" for one in ear.heard):
        assert time.monotonic() < deadline
        daemon.api.post("/pause", {"reason": "listening"})
        daemon.api.post("/resume", {"reason": "listening"})
        time.sleep(0.05)
    return ear


def test_the_life_of_a_file_is_told(daemon):
    ear = listening(daemon)
    note, moved = daemon.files / "note.txt", daemon.files / "moved.txt"
    note.write_text("a quokka")
    assert ear.wait_for("file indexed", path=str(note))["data"]["type"] == "txt"
    note.rename(moved)
    ear.wait_for("file moved", path=str(note), to=str(moved))
    moved.unlink()
    ear.wait_for("file removed", path=str(moved))
    (daemon.files / "bad.pdf").write_bytes(b"%PDF-1.7 and nothing of a document")
    told = ear.wait_for("file not done", path=str(daemon.files / "bad.pdf"))["data"]
    assert (told["state"], bool(told["error"])) == ("failed", True)


def test_the_life_of_a_folder_is_told(daemon):
    ear = listening(daemon)
    away = daemon.files.rename(daemon.home / "away")
    daemon.sync()
    assert ear.wait_for("folder offline", path=str(daemon.files))["data"]["reason"]
    away.rename(daemon.files)
    ear.wait_for("folder online", path=str(daemon.files), deadline_s=90)


def test_who_comes_back_hears_what_it_missed_and_nothing_twice(daemon):
    first = listening(daemon)
    (daemon.files / "a.txt").write_text("a quokka")
    last = first.wait_for("file indexed")["id"]
    (daemon.files / "b.txt").write_text("a numbat")
    daemon.sync()
    second = Ear(daemon, since=last)
    second.wait_for("file indexed", path=str(daemon.files / "b.txt"))
    assert str(daemon.files / "a.txt") not in [
        one["data"].get("path") for one in second.heard if one["event"] == "file indexed"
    ]
    ids = [one["id"] for one in second.heard]
    assert ids == sorted(set(ids))
    assert min(ids) > last
