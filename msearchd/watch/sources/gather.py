"""What a buffer of raw events comes to: one hint a name, however often it is spoken of.

In: bytes as the kernel wrote them. Out: hints, and how many bytes were whole events. A file that is made, written and
closed is three events and one hint. Per event there is one header, one slice and one look into a dictionary; paths are joined
and hints made once a name. Everything that is no name in a watched folder goes to `rare`, after all that came before it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

from msearchd.domain.asset import RootId
from msearchd.watch import hints
from msearchd.watch.hints import Hint, new_hint
from msearchd.watch.sources import inotify_abi as abi

Place = tuple[RootId, bytes]

_FLAGS: Final = (
    (abi.CREATE, hints.CREATED),
    (abi.CLOSE_WRITE, hints.CLOSED),
    (abi.MODIFY, hints.MODIFIED),
    (abi.ATTRIB, hints.ATTRIB),
    (abi.DELETE, hints.GONE),
    (abi.MOVED_FROM, hints.GONE | hints.MOVED),
    (abi.MOVED_TO, hints.MOVED),
    (abi.ISDIR, hints.DIR),
)
_ALL_FLAGS: Final = 0xFF
#: Beside the flags of a hint: a directory is new there.
_TREE: Final = 0x100


@functools.cache
def meaning(mask: int) -> tuple[int, bool]:
    """(flags of the hint, whether a directory is new there)."""
    flags = 0
    for bit, flag in _FLAGS:
        if mask & bit:
            flags |= flag
    return flags, bool(mask & abi.ISDIR and mask & (abi.CREATE | abi.MOVED_TO))


class _Effects(dict[int, tuple[int, int]]):
    """Mask -> (what it says, what of earlier events about the same name goes on to hold). There are some dozens of masks."""

    def __missing__(self, mask: int) -> tuple[int, int]:
        flags, is_new_dir = meaning(mask)
        says = flags | (_TREE if is_new_dir else 0)
        self[mask] = effect = says, _TREE | hints.kept_of_earlier(flags)
        return effect


_EFFECTS: Final = _Effects()


def gather(
    buffer: bytes,
    *,
    place_of: Callable[[int], Place | None],
    put_all: Callable[[list[Hint]], None],
    rare: Callable[[int, int, bytes, Place | None], None],
) -> int:
    """Hand the hints of all whole events of *buffer* to *put_all*; how many bytes those were.

    *place_of* is asked once a watch, until something rare comes. *rare* gets (watch, mask, name, place).
    """
    folders: dict[int, tuple[Place, dict[bytes, int]] | None] = {}
    unpack, effects = abi.HEADER.unpack_from, _EFFECTS
    at, end = 0, len(buffer)
    last: int | None = None
    names: dict[bytes, int] | None = None
    while at + 16 <= end:
        wd, mask, _, length = unpack(buffer, at)
        begin = at + 16
        if begin + length > end:
            break
        at = begin + length
        if wd != last:
            last = wd
            if wd not in folders:
                place = place_of(wd)
                folders[wd] = (place, {}) if place is not None else None
            folder = folders[wd]
            names = folder[1] if folder is not None else None
        if names is None or not length:
            put_all(_hints_of(folders))
            folder = folders[wd]
            rare(wd, mask, buffer[begin:at].rstrip(b"\0"), folder[0] if folder is not None else None)
            folders, last = {}, None
            continue
        name = buffer[begin:at]  # with its padding: the same name is always padded alike
        says, keeps = effects[mask]
        names[name] = says | names[name] & keeps if name in names else says
    put_all(_hints_of(folders))
    return at


def _hints_of(folders: dict[int, tuple[Place, dict[bytes, int]] | None]) -> list[Hint]:
    out: list[Hint] = []
    for folder in folders.values():
        if folder is None:
            continue
        (root, path), names = folder
        prefix = path + b"/" if path else b""
        out += [
            new_hint((root, prefix + name.rstrip(b"\0"), flags >= _TREE, flags & _ALL_FLAGS))
            for name, flags in names.items()
        ]
    return out
