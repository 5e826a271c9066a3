"""Daemons for the end-to-end tests: one that is shared (a model loads once), or one of a test's own."""

import pytest
from daemon_harness import daemon_home


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the end of its daemon's log."""
    report = yield
    if report.failed:
        for name in ("daemon", "words_daemon", "shelf"):
            used = getattr(item, "funcargs", {}).get(name)
            home = getattr(used, "daemon", used)
            if home is not None and home.log_file.exists():
                report.sections.append(("daemon log", home.log_tail()))
    return report


class Shelf:
    """A watched folder of one test in the shared daemon."""

    def __init__(self, daemon, folder):
        self.daemon = daemon
        self.folder = folder

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def sync(self):
        return self.daemon.sync()

    def found(self, text, **options):
        """Names of the files of this shelf that have these words, best first."""
        hits = self.daemon.hits(text, folders=[str(self.folder)], **options)
        with_words = [h for h in hits if any(rank["list"] in {"words", "names"} for rank in h["ranks"])]
        return [
            path.removeprefix(f"{self.folder}/")
            for h in with_words
            for path in (h["path"], *h["same_content"])
            if path.startswith(f"{self.folder}/")
        ]

    def explain(self, name):
        return self.daemon.explain(self.folder / name)


@pytest.fixture(scope="session")
def shared_daemon():
    with daemon_home() as home:
        home.start()
        yield home
        home.stop()


@pytest.fixture
def shelf(shared_daemon, request):
    folder = shared_daemon.files / request.node.name.removeprefix("test_")[:60]
    folder.mkdir()
    shared_daemon.add(folder)
    yield Shelf(shared_daemon, folder)
    assert shared_daemon.process.poll() is None, f"the daemon ended\n{shared_daemon.log_tail()}"
    shared_daemon.api.delete("/folders", path=str(folder))


@pytest.fixture
def daemon():
    """A daemon of the test's own, running, with nothing watched; stopped politely at the end if it still runs."""
    with daemon_home() as home:
        home.start()
        yield home
        if home.process.poll() is None:
            home.stop()


@pytest.fixture
def words_daemon():
    """As `daemon`, with search by meaning turned off: no model loads."""
    with daemon_home({"inference": {"text_model": ""}}) as home:
        home.start()
        yield home
        if home.process.poll() is None:
            home.stop()
