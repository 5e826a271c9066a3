"""Folders that a backup fills before they get their names; what a killed one left behind is removed.

    DEST/../.DEST.part     locked while somebody fills it (flock), so a running backup is never taken for a dead one
    data_dir/backups-in-work.json     where they are, written before they are made: a dead one is found from there

In: the folder to fill. Out: it, empty and ours. Blocks; called in threads.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog

from msearchd import errors

log = structlog.get_logger(__name__)

NOTE: Final = "backups-in-work.json"


def part_of(target: Path) -> Path:
    """Where *target* is filled: beside it, on the same disk, hidden."""
    return target.with_name(f".{target.name}.part")


class BackupParts:
    """Of one data folder, whose lock the caller holds: what is noted there and not locked is dead."""

    def __init__(self, data_dir: Path) -> None:
        self._note = data_dir / NOTE

    @contextlib.contextmanager
    def made(self, part: Path) -> Iterator[None]:
        """*part* as an empty folder (0700) of ours; on the way out whatever is left of it is removed, and the note.

        Raises BadRequest where another msearchd fills it now, or what lies there is no folder; OSError where it cannot be made.
        """
        if not self._remove(part):
            if part.is_symlink() or not part.is_dir():
                message = f"{part} is in the way: the backup is written there first, and it is no folder"
                raise errors.BadRequest(message, hint="move it away, or name another folder")
            message = f"another backup is being written to {part}"
            raise errors.BadRequest(message, hint="wait for it, or name another folder")
        self._write([*self._read(), part])
        fd = -1
        try:
            part.mkdir(mode=0o700)
            fd = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            _lock(fd)
            yield
        finally:
            shutil.rmtree(part, ignore_errors=True)
            if fd >= 0:
                os.close(fd)
            self._write([other for other in self._read() if other != part or os.path.lexists(part)])

    def sweep(self) -> list[Path]:
        """Remove what dead backups left; the folders that were removed. Those on a disk that is away wait for the next time."""
        noted = self._read()
        if not noted:
            return []
        removed, kept = [], []
        for part in noted:
            if not os.path.lexists(part):
                kept += [] if part.parent.is_dir() else [part]
            elif self._remove(part) and not os.path.lexists(part):
                removed.append(part)
            else:
                kept.append(part)
        self._write(kept)
        for part in removed:
            log.info("left-over of a backup removed", path=str(part))
        return removed

    def _remove(self, part: Path) -> bool:
        """Remove *part* if nobody fills it; False if somebody does, or it is no folder of ours."""
        try:
            fd = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        try:
            if os.fstat(fd).st_uid != os.geteuid() or not _lock(fd):
                return False
            shutil.rmtree(part, ignore_errors=True)
        finally:
            os.close(fd)
        return True

    def _read(self) -> list[Path]:
        try:
            status = self._note.lstat()
            texts = json.loads(self._note.read_text(encoding="utf-8")) if stat.S_ISREG(status.st_mode) else []
        except (OSError, ValueError):
            return []
        if not isinstance(texts, list):
            return []
        paths = [Path(text) for text in texts if isinstance(text, str)]
        return [path for path in paths if path.is_absolute() and path.name.startswith(".") and path.suffix == ".part"]

    def _write(self, parts: list[Path]) -> None:
        """Replaced as a whole and synced: the folder is made after its note."""
        if not parts:
            self._note.unlink(missing_ok=True)
            return
        fresh = self._note.with_suffix(".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            json.dump([str(part) for part in dict.fromkeys(parts)], file)  # ASCII: other bytes of names as \udcXX
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._note)


def _lock(fd: int) -> bool:
    """False where another process holds it. A file system without locks: nobody else can hold one."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        return error.errno in {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EINVAL}
    return True
