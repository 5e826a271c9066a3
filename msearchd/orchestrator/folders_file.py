"""The list of watched folders as a small file: read when the database is new, written at every change.

In: a path and folders (bytes). Out: the same folders; none where the file is missing or no list of ours.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from msearchd.control.types import path_bytes, path_text


def read(file: Path) -> list[bytes]:
    """Absolute paths; empty where there is no such file, or none that can be read."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    if not isinstance(found, list):
        return []
    return [path_bytes(path) for path in found if isinstance(path, str) and path.startswith("/")]


def write(file: Path, folders: Sequence[bytes]) -> None:
    """Replace the list, whole or not at all, mode 0600; nothing is written where it says so already. Raises OSError."""
    if file.exists() and read(file) == list(folders):
        return
    file.parent.mkdir(mode=0o700, exist_ok=True)  # somebody may have removed it while we ran
    part = file.with_name(file.name + ".part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as writing:
        writing.write(json.dumps([path_text(path) for path in folders], indent=1) + "\n")
        writing.flush()
        os.fsync(writing.fileno())
    part.replace(file)
