"""Damaged files of ours are never deleted and never hidden: they are set aside in a folder that says why.

In: files that belong together, and a reason. Out: DATA/damaged/<time>/ with the files and `reason.txt`. Only the last
two are kept, so that a failing disk does not fill up with copies.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from msearchd.errors import Misconfigured

_KEPT: Final = 2
#: For so long the status tells of it, unless the folder is removed before.
_TOLD_DAYS: Final = 14


def set_aside(data_dir: Path, files: Iterable[Path], *, reason: str, now: dt.datetime) -> Path:
    """Move those of *files* that exist to a new folder below *data_dir*/damaged; returns it.

    Raises Misconfigured where they cannot be moved.
    """
    top = data_dir / "damaged"
    folder = top / now.strftime("%Y-%m-%dT%H-%M-%S.%fZ")
    try:
        top.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700)
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                file.rename(folder / file.name)
        with contextlib.suppress(OSError):  # a full disk: moved is moved, only the reason is not told
            (folder / "reason.txt").write_text(f"{reason}\n", encoding="utf-8")
        for old in sorted(path for path in top.iterdir() if path.is_dir())[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        message = f"damaged files cannot be moved to {folder}: {error.strerror}"
        raise Misconfigured(message, key="data_dir", hint="correct the permissions of data_dir") from error
    return folder


def told(data_dir: Path, *, now: dt.datetime) -> Sequence[str]:
    """A sentence for each thing that was set aside lately and is still there."""
    sentences = []
    with contextlib.suppress(OSError):
        for folder in sorted((data_dir / "damaged").iterdir()):
            since = _time_of(folder.name)
            if since is None or now - since > dt.timedelta(days=_TOLD_DAYS):
                continue
            reason = ""
            with contextlib.suppress(OSError):
                reason = (folder / "reason.txt").read_text(encoding="utf-8", errors="replace").strip()
            sentences.append(
                f"the database was made anew from your files on {since:%Y-%m-%d %H:%M} UTC ({reason or 'damaged'});"
                f" the old one is in {os.fspath(folder)}, delete that folder to be told no more"
            )
    return sentences


def _time_of(name: str) -> dt.datetime | None:
    try:
        return dt.datetime.strptime(name, "%Y-%m-%dT%H-%M-%S.%fZ").replace(tzinfo=dt.UTC)
    except ValueError:
        return None
