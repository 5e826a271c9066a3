"""Several servers that run one model: the least loaded healthy one is asked, a failing one rests, a call is tried again.

In: a path and a JSON body. Out: the JSON answer. Standard library only (http.client): a worker makes few large requests
on kept connections, and needs no more. Choosing is a plain function of values and `now`.

    2xx         the answer
    400 413 422 BadRequest  the samples or the field names; never tried again
    404         NotFound    the path or the model
    401 403     Misconfigured
    429 5xx, no connection, no answer   the server rests (1 s, doubled up to 60 s), another one is asked
"""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from msearchd import errors
from msearchd.inference.remote import Servers

_KEY: Final = "engine:openai"
_TIMEOUT_S: Final = 60.0
_CHECK_TIMEOUT_S: Final = 5.0
_ATTEMPTS_PER_SERVER: Final = 2
_FIRST_REST_S, _LONGEST_REST_S = 1.0, 60.0
_LONGEST_ANSWER: Final = 256 * 2**20
_NOT_READY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What is known of one server. It may be asked from `rests_until` on (monotonic seconds)."""

    url: str
    in_flight: int = 0
    failures: int = 0  # in a row
    rests_until: float = 0.0
    served: int = 0


def choose(servers: Sequence[Server], *, without: frozenset[str], now: float) -> Server | None:
    """The healthy server with the least in flight, then the least served; None where all rest or were tried."""
    open_now = [one for one in servers if one.url not in without and one.rests_until <= now]
    return min(open_now, key=lambda one: (one.in_flight, one.served), default=None)


def after_failure(server: Server, *, now: float, told_s: float = 0.0) -> Server:
    """*server* rests: 1 s after its first failure in a row, doubled at each further one up to 60 s, or as it told us."""
    rest_s = min(_LONGEST_REST_S, max(told_s, _FIRST_REST_S * 2**server.failures))
    return replace(server, failures=server.failures + 1, rests_until=now + rest_s)


def after_success(server: Server) -> Server:
    """*server* is well."""
    return replace(server, failures=0, rests_until=0.0, served=server.served + 1)


class Fleet:
    """The servers of one model. Safe to be asked from several threads."""

    def __init__(
        self,
        servers: Servers,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._servers = {url: Server(url=url) for url in servers.urls}
        self._key_file = servers.api_key_file
        self._now = now
        self._sleep = sleep
        self._lock = threading.Lock()
        self._idle: dict[str, list[http.client.HTTPConnection]] = {url: [] for url in servers.urls}

    def check(self) -> None:
        """Ask every server for its health; those that do not answer rest. Raises RetryLater where none does."""
        troubles = []
        for url in self._servers:
            try:
                # Some have no /health: any answer that is no failure of the server says that it is up.
                self._once(url, "GET", "/health", None, timeout_s=_CHECK_TIMEOUT_S)
            except (errors.NotFound, errors.BadRequest, errors.Misconfigured):
                continue
            except errors.RetryLater as error:
                troubles.append(str(error))
                self._rest(url)
        if len(troubles) == len(self._servers):
            raise errors.RetryLater("; ".join(troubles), after_s=10.0, hint="start the server, or correct urls")

    def ask(self, path: str, body: Any) -> Any:
        """POST *body* to the best server, to another one where it fails. Raises as the module's table says."""
        failed: set[str] = set()
        last: errors.RetryLater | None = None
        for _ in range(_ATTEMPTS_PER_SERVER * len(self._servers)):
            url = self._take(failed)
            try:
                answer = self._once(url, "POST", path, body, timeout_s=_TIMEOUT_S)
            except errors.RetryLater as error:
                last = error
                failed.add(url)
                self._rest(url, told_s=error.after_s)
            except errors.MsearchError:
                self._update(url, after_success)  # it answered
                raise
            else:
                self._update(url, after_success)
                return answer
            finally:
                self._update(url, lambda one: replace(one, in_flight=one.in_flight - 1))
        message = f"no server answers: {last}"
        raise errors.RetryLater(message, after_s=10.0, hint="start the server, or correct urls") from last

    def snapshot(self) -> tuple[Server, ...]:
        """What is known of the servers now."""
        with self._lock:
            return tuple(self._servers.values())

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            for connections in self._idle.values():
                while connections:
                    connections.pop().close()

    def _take(self, failed: set[str]) -> str:
        """Choose a server and count the request; where all rest or failed, wait for the one that is back first."""
        with self._lock:
            now = self._now()
            servers = tuple(self._servers.values())
            chosen = choose(servers, without=frozenset(failed), now=now)
            if chosen is None:
                failed.clear()  # a second round
                chosen = min(servers, key=lambda one: one.rests_until)
            self._servers[chosen.url] = replace(chosen, in_flight=chosen.in_flight + 1)
            wait_s = min(max(0.0, chosen.rests_until - now), 2.0)
        if wait_s:
            self._sleep(wait_s)
        return chosen.url

    def _rest(self, url: str, *, told_s: float = 0.0) -> None:
        self._update(url, lambda one: after_failure(one, now=self._now(), told_s=told_s))

    def _update(self, url: str, change: Callable[[Server], Server]) -> None:
        with self._lock:
            self._servers[url] = change(self._servers[url])

    # -- one request

    def _once(self, url: str, method: str, path: str, body: Any, *, timeout_s: float) -> Any:
        parts = urlsplit(url)
        base = parts.path.removesuffix("/v1") if path.startswith("/v1/") or path == "/health" else parts.path
        payload = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json", **self._login()}
        for fresh in (False, True):  # an idle connection may be closed by now: that says nothing about the server
            connection = self._connection(url, timeout_s=timeout_s, fresh=fresh)
            was_kept = connection.sock is not None
            try:
                connection.request(method, base.rstrip("/") + path, payload, headers)
                answer = connection.getresponse()
                data = answer.read(_LONGEST_ANSWER)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if was_kept and not isinstance(error, TimeoutError):
                    continue
                message = f"{url} does not answer: {type(error).__name__}: {error}"
                raise errors.RetryLater(message) from error
            break
        if answer.will_close:
            connection.close()
        else:
            with self._lock:
                self._idle[url].append(connection)
        return _read(url, path, answer, data)

    def _connection(self, url: str, *, timeout_s: float, fresh: bool) -> http.client.HTTPConnection:
        with self._lock:
            if not fresh and self._idle[url]:
                kept = self._idle[url].pop()
                if kept.sock is not None:
                    kept.sock.settimeout(timeout_s)
                return kept
        parts = urlsplit(url)
        if parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=timeout_s, context=context)
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)

    def _login(self) -> dict[str, str]:
        """Read at every request: a key that was changed holds at once, and is in no memory dump for long."""
        if not self._key_file:
            return {}
        try:
            key = Path(self._key_file).expanduser().read_text(encoding="utf-8").strip()
        except OSError as error:
            message = f"the key of the servers cannot be read: {error}"
            raise errors.Misconfigured(message, key=_KEY, hint="correct api_key_file") from error
        return {"Authorization": f"Bearer {key}"}


def _read(url: str, path: str, answer: http.client.HTTPResponse, data: bytes) -> Any:
    status = answer.status
    if status in _NOT_READY:
        told = answer.getheader("Retry-After") or ""
        message = f"{url} is not ready ({status} {answer.reason}): {_words(data)}"
        raise errors.RetryLater(message, after_s=float(told) if told.isdecimal() else 0.0)
    if status in {401, 403}:
        message = f"{url} refuses our key ({status} {answer.reason})"
        raise errors.Misconfigured(message, key=_KEY, hint="name the file with its key: api_key_file")
    if status in {404, 405}:
        raise errors.NotFound(f"{url} has no {path}, or not this model: {_words(data)}")
    if not 200 <= status < 300:
        raise errors.BadRequest(f"{url}{path} refuses the request ({status} {answer.reason}): {_words(data)}")
    if path == "/health":
        return None
    with contextlib.suppress(ValueError):
        return json.loads(data)
    raise errors.RetryLater(f"{url}{path} answered with something that is no JSON: {_words(data)}")


def _words(data: bytes) -> str:
    return " ".join(data[:300].decode("utf-8", "replace").split()) or "without a word"
