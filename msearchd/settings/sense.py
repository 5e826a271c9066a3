"""Does a well-typed configuration make sense on this machine? Paths, lengths, names that must match.

In: settings. Out: (key path, sentence) pairs. Looks at the disk (stat only), changes nothing.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from msearchd.settings.address import parse_address
from msearchd.settings.locate import KeyPath
from msearchd.settings.model import Settings
from msearchd.settings.problems import did_you_mean

#: sun_path is 108 bytes on Linux and 104 on macOS, the closing NUL included.
MAX_SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107

Complaint = tuple[KeyPath, str]


def complaints(settings: Settings, *, may_be_away: bool = False) -> Iterator[Complaint]:
    """Everything that makes no sense. *may_be_away*: a watched folder that is missing is offline, not a mistake."""
    yield from _folders(settings, may_be_away=may_be_away)
    yield from _data_dir(settings)
    yield from _socket(settings)
    yield from _listener(settings)
    yield from _models(settings)
    yield from _store(settings)
    if settings.extract.chunk_overlap_chars >= settings.extract.chunk_chars:
        yield ("extract", "chunk_overlap_chars"), "must be smaller than chunk_chars, or passages would never end"
    if settings.queue.retry_cap_s < settings.queue.retry_base_s:
        yield ("queue", "retry_cap_s"), "must not be smaller than retry_base_s"


def _folders(settings: Settings, *, may_be_away: bool) -> Iterator[Complaint]:
    seen: dict[Path, int] = {}
    for index, folder in enumerate(settings.watch.folders):
        path: KeyPath = ("watch", "folders", index)
        if not folder.is_absolute():
            yield path, f"{str(folder)!r} is relative; write the whole path, or one that begins with ~/"
        elif folder.is_dir():
            real = folder.resolve()
            if real in seen:
                yield path, f"{str(folder)!r} is the same folder as watch.folders.{seen[real]}; remove one of them"
            seen.setdefault(real, index)
            if not os.access(folder, os.R_OK | os.X_OK):
                yield path, f"{str(folder)!r} may not be read by this user; allow it or remove the line"
        elif folder.exists():
            yield path, f"{str(folder)!r} is a file, not a folder; name the folder that holds it"
        elif not may_be_away:
            yield path, f"there is no folder {str(folder)!r}{_sibling(folder)}"


def _sibling(missing: Path) -> str:
    try:
        near = difflib.get_close_matches(missing.name, os.listdir(missing.parent), n=1)
    except OSError:
        return "; create it or correct the path"
    return f", did you mean {str(missing.parent / near[0])!r}?" if near else "; create it or correct the path"


def _data_dir(settings: Settings) -> Iterator[Complaint]:
    data_dir = settings.data_dir
    if not data_dir.is_absolute():
        yield ("data_dir",), f"{str(data_dir)!r} is relative; write the whole path, or one that begins with ~/"
        return
    if data_dir.exists() and not data_dir.is_dir():
        yield ("data_dir",), f"{str(data_dir)!r} is a file; name a folder"
    for folder in settings.watch.folders:
        if not folder.is_absolute():
            continue
        if lies_in_view(data_dir, folder, include_hidden=settings.watch.include_hidden):
            yield (
                ("data_dir",),
                f"lies inside the watched folder {str(folder)!r}: every write of the index would be a change",
            )
        elif folder.resolve().is_relative_to(data_dir.resolve()):
            yield ("data_dir",), f"holds the watched folder {str(folder)!r}; choose a folder of its own"


def lies_in_view(data_dir: Path, folder: Path, *, include_hidden: bool) -> bool:
    """True where *data_dir* is below *folder* and no hidden folder between the two keeps it out of sight."""
    inner, outer = data_dir.resolve(), folder.resolve()
    if not inner.is_relative_to(outer):
        return False
    between = inner.relative_to(outer).parts
    return include_hidden or not any(part.startswith(".") for part in between)


def _socket(settings: Settings) -> Iterator[Complaint]:
    socket = settings.api.socket
    if not socket.is_absolute():
        yield ("api", "socket"), f"{str(socket)!r} is relative; write the whole path, or one that begins with ~/"
    elif (length := len(os.fsencode(socket))) > MAX_SOCKET_PATH_BYTES:
        yield (
            ("api", "socket"),
            f"has {length} bytes, a Unix socket's path at most {MAX_SOCKET_PATH_BYTES}; choose a shorter one",
        )
    elif socket.is_dir():
        yield ("api", "socket"), f"{str(socket)!r} is a folder; name the socket file in it"


def _listener(settings: Settings) -> Iterator[Complaint]:
    if settings.api.listen:
        try:
            parse_address(settings.api.listen)
        except ValueError as error:
            yield ("api", "listen"), str(error)
    file = settings.api.token_file
    if file and not os.path.isabs(os.path.expanduser(file)):
        yield ("api", "token_file"), f"{file!r} is relative; write the whole path, or one that begins with ~/"


def _models(settings: Settings) -> Iterator[Complaint]:
    names = [model.name for model in settings.inference.models]
    for index, model in enumerate(settings.inference.models):
        if model.name in names[:index]:
            yield (
                ("inference", "models", index, "name"),
                f"{model.name!r} is used twice; names tell vector spaces apart",
            )
        if not model.source:
            yield ("inference", "models", index, "source"), "is empty; name a local folder or a model id of the hub"
        if model.python and not os.access(os.path.expanduser(model.python), os.X_OK):
            yield ("inference", "models", index, "python"), f"there is no interpreter {model.python!r}"
    yield from _chosen(settings, names)


def _chosen(settings: Settings, names: list[str]) -> Iterator[Complaint]:
    """The models that the settings name: there, and able to do what they are named for."""
    serves = {model.name: model.serves for model in settings.inference.models}
    for wanted in ("text", "sparse", "image", "audio", "page", "speech", "rerank"):
        key = f"{wanted}_model"
        chosen = getattr(settings.inference, key)
        if chosen and chosen not in names:
            yield ("inference", key), f"no model has the name {chosen!r}{did_you_mean(chosen, names)}"
        elif chosen and serves[chosen] != wanted:
            yield (
                ("inference", key),
                f'{chosen!r} has serves = "{serves[chosen]}"; set serves = "{wanted}" in its section',
            )


def _store(settings: Settings) -> Iterator[Complaint]:
    store = settings.store
    if store.backend == "server" and not store.url:
        yield ("store", "url"), 'is needed for backend = "server", such as "http://localhost:6333"'
    if store.url:
        try:
            parts = urlsplit(store.url)
            is_usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            is_usable = False
        if not is_usable:
            yield ("store", "url"), 'is no URL of a server; write it like "http://localhost:6333"'
    if store.api_key_file and not os.path.isfile(os.path.expanduser(store.api_key_file)):
        yield ("store", "api_key_file"), f"there is no file {store.api_key_file!r}"
