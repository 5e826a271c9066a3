"""Relative paths as bytes, "/"-joined, b"" is the root: what the kernel says, never decoded."""

from __future__ import annotations

from collections.abc import Sequence


def join(folder: bytes, name: bytes) -> bytes:
    """*name* in *folder*; either may be empty."""
    if not folder or not name:
        return folder or name
    return folder + name if folder.endswith(b"/") else folder + b"/" + name


def parent(path: bytes) -> bytes:
    """The folder of *path*; b"" of b""."""
    return path.rpartition(b"/")[0]


def name_of(path: bytes) -> bytes:
    """The last component."""
    return path.rpartition(b"/")[2]


def is_below(path: bytes, folder: bytes) -> bool:
    """True if *path* lies in *folder* or is it."""
    return not folder or path == folder or path.startswith(folder if folder == b"/" else folder + b"/")


def ancestors(path: bytes) -> list[bytes]:
    """*path* itself, its folder, and so on up to b""."""
    out = [path]
    while path:
        path = parent(path)
        out.append(path)
    return out


def common_folder(names: Sequence[bytes]) -> bytes:
    """The deepest folder in which all of *names* lie (a folder, written with "/" at its end, lies in itself); at least one."""
    low, high = min(names).split(b"/")[:-1], max(names).split(b"/")[:-1]
    common = 0
    while common < min(len(low), len(high)) and low[common] == high[common]:
        common += 1
    return b"/".join(low[:common])
