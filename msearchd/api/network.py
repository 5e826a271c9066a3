"""The TCP listener: bound where it is switched on, opened by a token that lies in a private file.

In: an address and a token file. Out: a listening socket, a Door. Off by default; never without its reason in the settings.
"""

from __future__ import annotations

import os
import secrets
import socket
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from msearchd.api.door import Door
from msearchd.api.sockets import Listener
from msearchd.errors import Misconfigured
from msearchd.settings.address import Address

_BACKLOG = 128
_TOKEN_BYTES = 32
_LEAST_TOKEN_CHARS = 16


@dataclass(frozen=True, slots=True)
class Network:
    """Where to listen, and who may come in."""

    address: Address
    door: Door


def network(address: Address, *, token: str, hosts: Iterable[str] = ()) -> Network:
    """A listener at *address* for callers who have *token* ("" asks for none)."""
    names = frozenset(name.strip().lower() for name in (*hosts, address.host))
    return Network(address, Door(hosts=names, token=token))


def listen(address: Address) -> Listener:
    """A listening TCP socket. Raises Misconfigured where the address is taken or is not of this machine."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot(address, error) from error
    try:
        # A successor may bind while connections of its predecessor still linger in TIME_WAIT.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(where)
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise _cannot(address, error) from error
    return Listener(listening)


def _cannot(address: Address, error: OSError) -> Misconfigured:
    message = f"cannot listen at {address}: {error.strerror or error}"
    return Misconfigured(message, key="api.listen", hint="choose another address or port")


def token_in(file: Path, *, is_made: bool = True) -> str:
    """The token in *file*, which is made (mode 0600) where there is none and *is_made*.

    Raises Misconfigured: it is missing, others may read it, or it holds no token.
    """
    if is_made:
        _make(file)
    try:
        with file.open("rb") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            text = opened.read(4096).decode("ascii", "replace").strip()
    except OSError as error:
        message = f"the token file {file} cannot be read: {error.strerror}"
        raise Misconfigured(message, key="api.token_file", hint="name a file that this user may read") from error
    if mode & 0o077:
        message = f"the token file {file} may be read by others (mode {mode:04o})"
        raise Misconfigured(message, key="api.token_file", hint=f"type: chmod 600 {file}")
    if len(text) < _LEAST_TOKEN_CHARS or any(not "!" <= letter <= "~" for letter in text):
        message = f"the token file {file} holds no token: at least {_LEAST_TOKEN_CHARS} characters without spaces"
        raise Misconfigured(message, key="api.token_file", hint="remove it, and a new one is made at the next start")
    return text


def _make(file: Path) -> None:
    """Make *file* with a new token, unless it exists. Whole or not at all: a start may be killed at any moment."""
    if file.exists():
        return
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside.unlink(missing_ok=True)
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="ascii") as opened:
            opened.write(secrets.token_urlsafe(_TOKEN_BYTES) + "\n")
        aside.rename(file)
    except OSError as error:
        message = f"the token file {file} cannot be made: {error.strerror}"
        raise Misconfigured(message, key="api.token_file", hint="choose another [api] token_file") from error
