"""Where the extract worker's libraries may put files of their own: a folder that only this user can write to.

kreuzberg unpacks its PDF library to $TMPDIR/kreuzberg-pdfium and loads it from there: in a /tmp that all users share,
another user could put a library there first.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path


def default_folder() -> Path:
    """The user's cache folder for this program."""
    if sys.platform == "darwin":
        return Path("~/Library/Caches/msearchd/extract").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "msearchd" / "extract"


def make_private(folder: str) -> Path:
    """Make *folder* (or the default one) for us alone and let every library put its files there; return it.

    Where it cannot be made, or others may write to it, a fresh folder in the system's place for temporary files serves.
    """
    place = Path(folder) if folder else default_folder()
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_ours = _is_private(place.lstat())
    except OSError:
        is_ours = False
    if not is_ours:
        place = Path(tempfile.mkdtemp(prefix="msearchd-extract-"))
    os.environ["TMPDIR"] = str(place)
    tempfile.tempdir = None  # asked again
    return place


def _is_private(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
