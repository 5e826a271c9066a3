"""HTTP over the daemon's Unix socket with the standard library's socket and json alone: 30 ms from shell to answer.

In: method, path, plain values. Out: plain values; a Refused or Unreachable with what to do. Paths are text with
surrogateescape, on the command line and in JSON alike, so that every name the kernel has goes in and out unharmed.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from typing import Any

BASE = "/control/v1"
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/")
#: Between heartbeats of an event stream (15 s) lies this at most.
_STREAM_TIMEOUT_S = 60.0


class Unreachable(Exception):  # noqa: N818 - what happened, not what it is
    """No daemon answers; `exit_code` is 69 (not running), 77 (not permitted) or 75 (no answer in time)."""

    def __init__(self, message: str, hint: str, exit_code: int) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_code = exit_code


class Refused(Exception):  # noqa: N818
    """The daemon answered with a problem: its code, sentence and hint."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("detail") or f"HTTP status {status}"))
        self.status = status
        self.code = str(problem.get("code", ""))
        self.hint = str(problem.get("hint", ""))


def default_socket(environ: Mapping[str, str]) -> str:
    """Where the daemon listens: $MSEARCHD__API__SOCKET, the settings file, or the default, as the daemon chooses."""
    if named := environ.get("MSEARCHD__API__SOCKET"):
        return os.path.expanduser(named)
    if configured := _configured_socket(_config_path(environ)):
        return os.path.expanduser(configured)
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        return f"{runtime}/msearchd/control.sock"
    return f"{_data_dir(environ)}/control.sock"


def _config_path(environ: Mapping[str, str]) -> str:
    if named := environ.get("MSEARCHD_CONFIG"):
        return os.path.expanduser(named)
    home = environ.get("HOME") or os.path.expanduser("~")
    if sys.platform == "darwin":
        return f"{home}/Library/Application Support/msearchd/msearchd.toml"
    return f"{environ.get('XDG_CONFIG_HOME') or home + '/.config'}/msearchd/msearchd.toml"


def _data_dir(environ: Mapping[str, str]) -> str:
    home = environ.get("HOME") or os.path.expanduser("~")
    if sys.platform == "darwin":
        return f"{home}/Library/Application Support/msearchd"
    return f"{environ.get('XDG_DATA_HOME') or home + '/.local/share'}/msearchd"


def _configured_socket(path: str) -> str:
    """[api] socket of a settings file, or "". A file that is no TOML is the daemon's to complain about."""
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except OSError:
        return ""
    if b"socket" not in raw:
        return ""
    import tomllib  # 5 ms, only where it may say something

    try:
        api = tomllib.loads(raw.decode("utf-8", "replace")).get("api", {})
    except tomllib.TOMLDecodeError:
        return ""
    found = api.get("socket") if isinstance(api, dict) else None
    return found if isinstance(found, str) else ""


def path_argument(path: str) -> str:
    """A path of the command line as the daemon wants it: absolute, in the text form of JSON."""
    absolute = os.path.abspath(os.path.expanduser(path))
    return os.fsencode(absolute).decode("utf-8", "surrogateescape")


def query_string(parameters: Mapping[str, Any]) -> str:
    """`?a=b&c=d`, percent-encoded; None is left out, a list is repeated."""
    pairs = []
    for name, value in parameters.items():
        for one in value if isinstance(value, list) else [] if value is None else [value]:
            raw = str(one).encode("utf-8", "surrogateescape")
            pairs.append(f"{name}=" + "".join(chr(b) if b in _UNRESERVED else f"%{b:02X}" for b in raw))
    return "?" + "&".join(pairs) if pairs else ""


class Daemon:
    """A daemon at a socket path. Each call is one connection."""

    def __init__(self, socket_path: str) -> None:
        self.socket_path = socket_path

    def get(self, path: str, /, *, timeout_s: float = 30.0, **parameters: Any) -> dict[str, Any]:
        """GET; the reply as plain values. Raises Refused, Unreachable."""
        return self._call("GET", path + query_string(parameters), None, timeout_s)

    def delete(self, path: str, /, **parameters: Any) -> None:
        """DELETE. Raises Refused, Unreachable."""
        self._call("DELETE", path + query_string(parameters), None, 30.0)

    def post(self, path: str, body: Mapping[str, Any], *, timeout_s: float = 30.0) -> dict[str, Any]:
        """POST of JSON; the reply as plain values. Raises Refused, Unreachable."""
        return self._call("POST", path, json.dumps(body).encode("ascii"), timeout_s)

    def events(self, since: int | None) -> Iterator[dict[str, Any]]:
        """Events as {"id", "event", "data"} until the daemon stops."""
        with self._connected(_STREAM_TIMEOUT_S) as connection:
            status, _, lines = _answer(connection, _request("GET", f"/events{query_string({'since': since})}", None))
            if status != 200:
                raise Refused(status, _problem(b"".join(lines)))
            event: dict[str, Any] = {}
            for line in _text_lines(lines):
                name, _, value = line.partition(": ")
                if not line and event:
                    yield event
                    event = {}
                elif name == "id":
                    event["id"] = int(value)
                elif name == "event":
                    event["event"] = value
                elif name == "data":
                    event["data"] = json.loads(value)

    def _call(self, method: str, path: str, body: bytes | None, timeout_s: float) -> dict[str, Any]:
        try:
            with self._connected(timeout_s) as connection:
                status, _, parts = _answer(connection, _request(method, path, body))
                raw = b"".join(parts)
        except TimeoutError as error:
            message = f"the daemon did not answer within {timeout_s:.0f} s"
            raise Unreachable(message, "look at its log; msearch status may tell more", 75) from error
        except (ConnectionError, EOFError) as error:
            raise Unreachable("the daemon ended before it answered", "look at its log, then try again", 69) from error
        # `health` answers 503 with a reply of its own; everything else above 399 is a problem.
        if status >= 400:
            raise Refused(status, _problem(raw))
        return dict(json.loads(raw)) if raw else {}

    def _connected(self, timeout_s: float) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout_s)
        try:
            connection.connect(self.socket_path)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            connection.close()
            message = f"no daemon listens at {self.socket_path}"
            raise Unreachable(message, f"start it with: {_start_line()}", 69) from error
        except PermissionError as error:
            connection.close()
            message = f"you may not use the socket {self.socket_path}"
            raise Unreachable(message, "ask as the user who runs the daemon", 77) from error
        except OSError as error:
            connection.close()
            raise Unreachable(f"cannot connect to {self.socket_path}: {error}", "check --socket", 69) from error
        return connection


def _start_line() -> str:
    unit = ("/etc/systemd/user/msearchd.service", "/usr/lib/systemd/user/msearchd.service")
    own = os.path.expanduser("~/.config/systemd/user/msearchd.service")
    return "systemctl --user start msearchd" if any(map(os.path.exists, (*unit, own))) else "msearchd run"


def _request(method: str, path: str, body: bytes | None) -> bytes:
    head = f"{method} {BASE}{path} HTTP/1.1\r\nHost: msearchd\r\nConnection: close\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode("ascii") + b"\r\n" + (body or b"")


def _answer(connection: socket.socket, request: bytes) -> tuple[int, dict[str, str], Iterator[bytes]]:
    """Status, headers, and the body in parts as they arrive."""
    connection.sendall(request)
    stream = connection.makefile("rb")
    status_line = stream.readline(4096).split(b" ", 2)
    if len(status_line) < 2 or not status_line[1].isdigit():
        raise EOFError
    headers: dict[str, str] = {}
    while (line := stream.readline(65536)) not in {b"\r\n", b"\n", b""}:
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(status_line[1]), headers, _body(stream, headers)


def _body(stream: Any, headers: Mapping[str, str]) -> Iterator[bytes]:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int(stream.readline(100).partition(b";")[0] or b"0", 16):
            yield _exactly(stream, size)
            stream.readline(100)
    elif length := int(headers.get("content-length", "0")):
        yield _exactly(stream, length)


def _exactly(stream: Any, length: int) -> bytes:
    data: bytes = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data


def _text_lines(parts: Iterator[bytes]) -> Iterator[str]:
    rest = b""
    for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line.decode("ascii", "replace").rstrip("\r")


def _problem(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"detail": raw[:200].decode("utf-8", "replace")}
