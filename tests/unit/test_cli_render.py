"""What people see: dates in, text out."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msearchd.cli import render, times
from msearchd.cli.connection import path_argument, query_string
from msearchd.control.types import path_bytes, path_text

ZONE = dt.timezone(dt.timedelta(hours=2))
NOW = dt.datetime(2024, 5, 10, 15, 30, tzinfo=ZONE)
PLAIN = render.Style(is_colored=False, width=80)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-05-01", dt.datetime(2024, 5, 1, tzinfo=ZONE)),
        ("2024-05", dt.datetime(2024, 5, 1, tzinfo=ZONE)),
        ("2024", dt.datetime(2024, 1, 1, tzinfo=ZONE)),
        ("2024-05-01T10:30", dt.datetime(2024, 5, 1, 10, 30, tzinfo=ZONE)),
        ("2024-05-01T10:30Z", dt.datetime(2024, 5, 1, 10, 30, tzinfo=dt.UTC)),
        ("today", dt.datetime(2024, 5, 10, tzinfo=ZONE)),
        ("Yesterday", dt.datetime(2024, 5, 9, tzinfo=ZONE)),
        ("7d", NOW - dt.timedelta(days=7)),
        ("2 w", NOW - dt.timedelta(days=14)),
        ("90min", NOW - dt.timedelta(minutes=90)),
    ],
)
def test_dates_are_read_as_people_write_them(text, expected):
    assert times.date_ms(text, now=NOW) == int(expected.timestamp() * 1000)


@pytest.mark.parametrize("text", ["", "soon", "2024-13-01", "12", "d7", "9999999"])
def test_what_is_no_date_is_answered_with_what_to_write(text):
    with pytest.raises(ValueError, match="write 2024-05-01"):
        times.date_ms(text, now=NOW)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.6, "1 min"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (86400, "1 day"), (273_600, "3 days 4 h")],
)
def test_durations_are_short(seconds, text):
    assert times.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1400, "1.4 kB"), (5_000_000, "5.0 MB"), (23e9, "23 GB")]
)
def test_sizes_are_short(count, text):
    assert times.size(count) == text


@given(st.text(), st.lists(st.tuples(st.integers(-5, 60), st.integers(-5, 60)), max_size=5), st.integers(20, 120))
def test_a_snippet_never_breaks_the_terminal_whatever_the_file_says(text, marks, width):
    line = render.snippet_line({"snippet": text, "highlights": marks}, width=width, style=PLAIN)
    assert line.isprintable()
    assert "\n" not in line


@given(
    st.text(
        alphabet=st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp", "Cf", "Cn", "Co"]),
        min_size=1,
        max_size=300,
    ),
    st.data(),
)
def test_the_matched_word_is_always_in_view(text, data):
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, min(len(text), start + 10)))
    line = render.snippet_line({"snippet": text, "highlights": [(start, end)]}, width=60, style=PLAIN)
    assert f"*{text[start:end]}*" in line


@given(st.binary(min_size=1, max_size=60).filter(lambda raw: b"\0" not in raw))
def test_every_name_that_the_kernel_has_can_be_named(raw):
    path = b"/" + raw
    assert path_bytes(path_text(path)) == path
    encoded = query_string({"path": path_text(path)})
    assert encoded.isascii()
    from msearchd.api.reading import parsed_query
    from msearchd.control.requests import PathRequest

    assert path_bytes(parsed_query(encoded[1:].encode(), PathRequest).path) == path


def test_a_path_of_the_command_line_becomes_absolute(monkeypatch):
    monkeypatch.setenv("HOME", "/home/anna")
    assert path_argument("~/x/../y") == "/home/anna/y"
    assert path_argument("/a//b") == "/a/b"


def test_home_is_written_as_a_tilde_only_where_it_is_home():
    assert render.short_path("/home/anna/x", "/home/anna") == "~/x"
    assert render.short_path("/home/annabel/x", "/home/anna") == "/home/annabel/x"
    assert render.short_path("/x\x1b[2J", "/home/anna") == "/x\\x1b[2J"


def test_an_empty_queue_has_neither_rate_nor_time_left():
    reply = {
        "version": "1", "state": "ready", "uptime_s": 1.0, "pid": 1, "folders": [], "watch": {"backend": "inotify", "health": "ok"},
        "store": {"backend": "edge", "is_ok": True, "points": 0, "disk_bytes": 0},
        "queue": {"ready": 0, "running": 0, "failed": 2}, "progress": {"files_per_s": 1.2, "eta_s": 0.0},
    }  # fmt: skip
    queue = next(line for line in render.status(reply, home="/h", style=PLAIN) if line.startswith("queue"))
    assert queue == "queue    2 failed"
    reply["queue"]["ready"] = 5
    queue = next(line for line in render.status(reply, home="/h", style=PLAIN) if line.startswith("queue"))
    assert "1.2 files/s" in queue


def test_the_watch_line_says_what_last_cast_doubt_and_when():
    watch = {"backend": "inotify", "health": "ok", "last_doubt": "the clock was set: folders are compared once more"}
    reply = {
        "version": "1", "state": "ready", "uptime_s": 1.0, "pid": 1, "folders": [], "watch": watch,
        "store": {"backend": "edge", "is_ok": True, "points": 0, "disk_bytes": 0},
        "queue": {"ready": 0, "running": 0, "failed": 0}, "progress": {},
    }  # fmt: skip
    line = next(line for line in render.status(reply, home="/h", style=PLAIN) if line.startswith("watch"))
    assert line.endswith("inotify ok")
    watch["last_doubt_ms"] = 1_700_000_000_000
    line = next(line for line in render.status(reply, home="/h", style=PLAIN) if line.startswith("watch"))
    assert line.endswith(": the clock was set: folders are compared once more")
    assert "2023-11-1" in line
