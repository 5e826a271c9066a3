"""Events where people, programs or the journal read them."""

import io
import json
import logging
import os
import socket
import warnings

import pytest
import structlog

from msearchd import logs
from msearchd.settings import LogSettings


@pytest.fixture(autouse=True)
def untouched_logging():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logs.configure(LogSettings(format="json"), stream=io.StringIO(), environ={})  # closes the journal's socket
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    logging.getLogger("uvicorn").setLevel(logging.NOTSET)
    root.handlers[:] = handlers
    root.setLevel(level)


def boom():
    raise RuntimeError("boom")


def log_a_traceback():
    try:
        boom()
    except RuntimeError:
        structlog.get_logger().exception("it broke")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_programs_get_one_json_object_a_line():
    stream = io.StringIO()
    logs.configure(LogSettings(), stream=stream, environ={})
    structlog.get_logger().info("job failed", asset="/caf\udcff", job=7)
    structlog.get_logger().debug("not asked for")
    log_a_traceback()
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["event"], first["level"], first["job"], first["asset"]) == ("job failed", "info", 7, "/caf\udcff")
    assert first["timestamp"].endswith("Z")
    assert "RuntimeError: boom" in second["exception"]


def test_people_get_a_readable_line_and_colours_only_if_they_like():
    for environ, is_colored in (
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ):
        stream = Terminal()
        logs.configure(LogSettings(), stream=stream, environ=environ)
        structlog.get_logger().warning("disk full", free_mb=3)
        assert "disk full" in stream.getvalue()
        assert ("\x1b" in stream.getvalue()) is is_colored


def test_records_of_libraries_come_the_same_way():
    stream = io.StringIO()
    logs.configure(LogSettings(level="warning"), stream=stream, environ={})
    logging.getLogger("some.library").warning("odd: %s", 3)
    logging.getLogger("some.library").info("chatter")
    warnings.showwarning("old", DeprecationWarning, "f.py", 1)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (lines[0]["event"], lines[0]["logger"], lines[0]["level"]) == ("odd: 3", "some.library", "warning")
    assert "DeprecationWarning" in lines[1]["event"]
    assert len(lines) == 2


def test_the_same_event_is_written_five_times_a_minute_then_counted():
    limit = logs.RateLimit()
    passed = [limit.passes("disk full", now=second) for second in range(60)]
    assert [may for may, _ in passed] == [True] * 5 + [False] * 55
    assert limit.passes("other", now=3) == (True, 0)
    assert limit.passes("disk full", now=60) == (True, 55)
    assert limit.passes("disk full", now=61) == (True, 0)


def test_events_without_number_do_not_grow_the_memory():
    limit = logs.RateLimit()
    for number in range(5000):
        limit.passes(f"request {number}", now=0)
    assert len(limit._windows) <= logs._KNOWN_EVENTS


def test_a_flood_is_cut_short_on_its_way_out():
    stream = io.StringIO()
    logs.configure(LogSettings(format="json"), stream=stream, environ={})
    for _ in range(100):
        structlog.get_logger().error("disk full")
    assert len(stream.getvalue().splitlines()) == 5


class FakeJournald:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(5)

    def record(self):
        data, fds, *_ = socket.recv_fds(self.socket, 1 << 20, 1)
        if fds:
            with open(fds[0], "rb") as file:
                file.seek(0)
                data = file.read()
        fields = {}
        while data:
            head, _, data = data.partition(b"\n")
            name, sign, value = head.partition(b"=")
            if not sign:
                length = int.from_bytes(data[:8], "little")
                value, data = data[8 : 8 + length], data[8 + length + 1 :]
            fields[name.decode()] = value.decode()
        return fields


@pytest.fixture
def journald(tmp_path, monkeypatch):
    fake = FakeJournald(tmp_path / "journal")
    monkeypatch.setattr(logs.Journal.__init__, "__defaults__", (str(tmp_path / "journal"),))
    yield fake
    fake.socket.close()


def journal_stream(stream):
    found = os.fstat(stream.fileno())
    return {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}


def test_the_journal_gets_fields(journald, tmp_path):
    with (tmp_path / "err").open("w") as stream:
        logs.configure(LogSettings(), stream=stream, environ=journal_stream(stream))
        structlog.get_logger().error("job failed", asset="/a\nb", job=7)
        fields = journald.record()
    assert fields["MSEARCH_EVENT"] == "job failed"
    assert fields["PRIORITY"] == "3"
    assert fields["SYSLOG_IDENTIFIER"] == "msearchd"
    assert fields["MSEARCH_ASSET"] == "/a\nb"
    assert fields["MSEARCH_JOB"] == "7"
    assert fields["MESSAGE"] == "job failed asset=/a\nb job=7"


def test_a_record_of_any_size_arrives(journald, tmp_path):
    with (tmp_path / "err").open("w") as stream:
        logs.configure(LogSettings(), stream=stream, environ=journal_stream(stream))
        structlog.get_logger().info("long", text="x" * 500_000)
        assert len(journald.record()["MSEARCH_TEXT"]) == 500_000


def test_a_traceback_is_in_the_journal(journald, tmp_path):
    with (tmp_path / "err").open("w") as stream:
        logs.configure(LogSettings(), stream=stream, environ=journal_stream(stream))
        log_a_traceback()
        assert "RuntimeError: boom" in journald.record()["MSEARCH_TRACEBACK"]


def test_while_journald_is_away_events_go_to_stderr_with_their_priority(journald, tmp_path):
    (tmp_path / "journal").unlink()
    with (tmp_path / "err").open("w+") as stream:
        logs.configure(LogSettings(), stream=stream, environ=journal_stream(stream))
        structlog.get_logger().warning("disk full", free_mb=3)
        stream.seek(0)
        assert stream.read() == "<4>disk full free_mb=3\n"


def test_a_stream_that_is_not_the_journal_is_not_taken_for_it(tmp_path):
    with (tmp_path / "err").open("w") as stream:
        assert not logs.is_journal(stream, {"JOURNAL_STREAM": "1:2"})
        assert not logs.is_journal(stream, {})
        assert not logs.is_journal(io.StringIO(), {"JOURNAL_STREAM": "1:2"})
