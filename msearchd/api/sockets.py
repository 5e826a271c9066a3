"""The Unix socket: bound with mode 0600 from its first moment, a stale one removed, a live one respected.

In: a path, or descriptors handed over by a service manager (LISTEN_FDS). Out: listening sockets. Removes only its own.
Call it with the data directory's lock held: then whoever still answers at the path is not one of ours that just dies.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from msearchd.errors import Misconfigured
from msearchd.settings.sense import MAX_SOCKET_PATH_BYTES

_FIRST_FD = 3  # sd_listen_fds(3)
_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket. `file` is (device, inode) of a socket file that is ours to remove; None if it is not ours."""

    socket: socket.socket
    path: Path | None = None
    file: tuple[int, int] | None = None
    is_inherited: bool = False

    def remove_file(self) -> None:
        """Unlink the socket file if it is still the one that we made; a successor's file stays."""
        if self.path is None or self.file is None:
            return
        with contextlib.suppress(FileNotFoundError):
            found = self.path.lstat()
            if (found.st_dev, found.st_ino) == self.file:
                self.path.unlink()


def bind(path: Path) -> Listener:
    """Listen at *path*, mode 0600. Raises Misconfigured: too long, taken by a daemon or another file, no right."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        message = f"the socket path {str(path)!r} is longer than {MAX_SOCKET_PATH_BYTES} bytes"
        raise Misconfigured(message, key="api.socket", hint="choose a shorter one in [api] socket")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _clear(path)
        listening = _bound(path)
    except OSError as error:
        message = f"cannot listen at {path}: {error.strerror}"
        raise Misconfigured(
            message, key="api.socket", hint="choose another [api] socket or correct the permissions"
        ) from error
    found = path.lstat()
    return Listener(listening, path, (found.st_dev, found.st_ino))


def _bound(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Before bind: the file then has this mode from the moment it exists, whatever the umask. chmod after bind would
        # leave a window. macOS refuses fchmod on a socket; there the umask does it.
        try:
            os.fchmod(listening.fileno(), 0o600)
            listening.bind(os.fsencode(path))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            with _umask(0o177):
                listening.bind(os.fsencode(path))
        _check_private(path)
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def _check_private(path: Path) -> None:
    if stat.S_IMODE(path.lstat().st_mode) & 0o077:
        path.unlink()
        message = f"{path} cannot be kept private on this file system"
        raise Misconfigured(message, key="api.socket", hint="put [api] socket on a local file system")


def _clear(path: Path) -> None:
    """Remove a socket that nobody listens at any more; anything else in the way is somebody's."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        message = f"{path} exists and is no socket"
        raise Misconfigured(message, key="api.socket", hint="move it away or choose another [api] socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        outcome = probe.connect_ex(os.fsencode(path))
    if outcome == errno.ECONNREFUSED:
        path.unlink(missing_ok=True)
    elif outcome != errno.ENOENT:
        message = f"another daemon listens at {path}"
        raise Misconfigured(message, key="api.socket", hint="stop it, or choose another [api] socket and data_dir")


def inherited(environ: MutableMapping[str, str]) -> list[Listener]:
    """Sockets that the service manager opened for us (systemd.socket); the variables are taken out, being used up."""
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    listeners = []
    for fd in range(_FIRST_FD, _FIRST_FD + int(count)):
        os.set_inheritable(fd, False)
        handed = socket.socket(fileno=fd)
        if handed.family != socket.AF_UNIX or handed.type != socket.SOCK_STREAM:
            handed.close()
            message = f"descriptor {fd} from the service manager is no Unix stream socket"
            raise Misconfigured(message, key="LISTEN_FDS", hint="use ListenStream=/path in the .socket unit")
        handed.setblocking(False)
        listeners.append(Listener(handed, is_inherited=True))
    return listeners
