"""Hints between a source and the watcher, in bounded memory: a copy of a million files holds no more than a copy of some.

In: hints as fast as the system tells. Out: all of them, or fewer that say the same. Never one too few: files of a folder
give way to a hint on the folder, folders to their root.
"""

from __future__ import annotations

from typing import Final

from msearchd.watch import hints, paths
from msearchd.watch.hints import Hint

#: About 5 MB. The watcher takes them every few milliseconds, unless its sink waits for a full disk.
MAX_HINTS: Final = 20_000


class HintBacklog:
    """One per source; filled and emptied on the loop."""

    def __init__(self, *, max_hints: int = MAX_HINTS) -> None:
        self._hints: list[Hint] = []
        self._max_hints = max_hints
        self._shrink_at = max_hints
        self.collapses = 0

    def __len__(self) -> int:
        return len(self._hints)

    def put(self, hint: Hint) -> None:
        """Take one more."""
        self._hints.append(hint)
        if len(self._hints) > self._shrink_at:
            self._shrink()

    def put_all(self, more: list[Hint]) -> None:
        """Take many at once: a few thousand, since the bound is looked at once."""
        self._hints += more
        if len(self._hints) > self._shrink_at:
            self._shrink()

    def take(self) -> list[Hint]:
        """All since the last call."""
        taken, self._hints = self._hints, []
        self._shrink_at = self._max_hints
        return taken

    def _shrink(self) -> None:
        """One hint a place; then one a folder, for its files; then one a root."""
        self.collapses += 1
        kept = _merged(self._hints)
        if len(kept) > self._max_hints // 2:
            # A folder may have been replaced by another of its name, which no listing of its parent shows: it stays.
            kept = _merged([hint if hint.is_recursive or hint.flags & hints.DIR else _listing(hint) for hint in kept])
        if len(kept) > self._max_hints // 2:
            kept = [
                Hint(root, b"", is_recursive=True, flags=hints.LOST | hints.DIR)
                for root in {hint.root for hint in kept}
            ]
        self._hints = kept
        self._shrink_at = len(kept) + self._max_hints // 2


def _listing(hint: Hint) -> Hint:
    """The folder of a file: what is in it is compared by stat, so that it was a write or a deletion does not matter."""
    return Hint(hint.root, paths.parent(hint.path), flags=hints.DIR | hints.MODIFIED)


def _merged(found: list[Hint]) -> list[Hint]:
    """One hint a place, with the kind of the last and the reach of all: as the settler itself would merge them."""
    out: dict[tuple[int, bytes], Hint] = {}
    for hint in found:
        key = (hint.root, hint.path)
        before = out.pop(key, None)
        if before is None:
            out[key] = hint
            continue
        merged = hints.MERGED[before.flags << 8 | hint.flags]
        out[key] = Hint(*key, hint.is_recursive or before.is_recursive, merged)
    return list(out.values())
