"""Hints and their sources: "something may have changed there". Never an event to be believed: the disk is the truth.

In: whatever a system tells (inotify, watchdog, a clock). Out: Hint values, pulled by the watcher.
A source may send a hint too many, never one too few: what it lost it repairs with a recursive hint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol, runtime_checkable

from msearchd.domain.asset import Root, RootId

# Plain integers, not an enum.Flag: a burst makes hundreds of thousands of these, and Flag's `|` costs 20 times as much.
CREATED: Final = 1
CLOSED: Final = 2  # a writer closed it
MODIFIED: Final = 4
ATTRIB: Final = 8
GONE: Final = 16
MOVED: Final = 32  # arrived complete, by rename
DIR: Final = 64  # the system says that it is a directory
LOST: Final = 128  # repair after lost events, or a mere look by the clock: nothing was witnessed


class Hint(NamedTuple):
    """Something may have changed at *path* of *root* (relative, b"" is the root itself).

    `is_recursive`: anything below it may have changed too.
    """

    root: RootId
    path: bytes
    is_recursive: bool = False
    flags: int = 0


def new_hint(fields: tuple[RootId, bytes, bool, int]) -> Hint:
    """The same as `Hint(*fields)` at half the cost: one is made of every name that events speak of."""
    return tuple.__new__(Hint, fields)


def kept_of_earlier(flags: int) -> int:
    """Which flags of earlier hints about a place still hold after one that says *flags*.

    A new operation replaces the kind: "deleted, then written" waits for the writer; utime after close does not.
    """
    return 0 if flags & ~(ATTRIB | DIR) else CLOSED | MOVED


class _Merged(dict[int, int]):
    """(flags so far << 8 | flags of one more hint) -> flags of both."""

    def __missing__(self, both: int) -> int:
        before, flags = both >> 8, both & 0xFF
        merged = flags | (0 if before & MODIFIED else before & kept_of_earlier(flags))
        if before and not before & LOST:
            merged &= ~LOST  # something was witnessed
        self[both] = merged
        return merged


#: What two hints on one place come to: `MERGED[before << 8 | after]`. Asked of every hint; 65,536 entries at the most.
MERGED: Final = _Merged()


@dataclass(frozen=True, slots=True)
class Entered:
    """What a source says of a directory that is about to be listed.

    `was`: its place before, if the source is certain that this very directory was watched elsewhere. `is_new`: it was
    not watched at this place until now, so nothing is known to have been told of what is below.
    """

    is_new: bool = False
    was: tuple[RootId, bytes] | None = None


class Coverage(Protocol):
    """How the scanner tells a source which directories there are. Called from the scanning thread."""

    def enter(self, root: RootId, path: bytes, fd: int) -> Entered:
        """Watch the directory open as *fd*, BEFORE its caller lists it: no gap between the two."""

    def leave(self, root: RootId, path: bytes) -> None:
        """Stop watching *path* and all below it."""


@runtime_checkable
class ManyEntered(Protocol):
    """A Coverage that can be told of many known directories at once; without it each is opened and entered by itself."""

    def enter_children(self, root: RootId, folder: bytes, fd: int, names: Sequence[bytes]) -> Sequence[bytes]:
        """Watch the directories *names* in *folder*, open as *fd*, without following links.

        Says which of them are not entered by it: enter those one by one. Look at their stat only afterwards.
        """


@runtime_checkable
class KeepsBooks(Protocol):
    """A Coverage that remembers where each directory was entered."""

    def strangers(self, root: RootId, folder: bytes, subdirs: Sequence[bytes]) -> Sequence[bytes]:
        """Names in *folder* at which directories were entered, but for *subdirs*, which stand there now."""


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """How well changes are noticed. `advice` is what a person can do about it; empty if all is well."""

    backend: str
    state: Literal["ok", "degraded", "down"] = "ok"
    advice: str = ""
    watched_dirs: int = 0
    unwatched_dirs: int = 0
    watch_limit: int = 0  # 0: unknown or none
    overflows: int = 0
    restarts: int = 0
    #: When events were last lost (UTC, milliseconds; 0: never), and why. The scan that repairs it is asked for already.
    last_loss: tuple[int, str] = (0, "")


class WatchSource(Protocol):
    """One way to notice changes. All methods but those of `coverage` belong to the event loop's thread.

    Made with `notify`, a function it calls on the loop when there are hints to take.
    """

    @property
    def name(self) -> str:
        """Which backend it is."""

    @property
    def seen_at(self) -> float:
        """When the last of the hints was noticed, in seconds of the monotonic clock, to some milliseconds; 0.0: unknown."""

    @property
    def coverage(self) -> Coverage:
        """To be told of every directory that is listed."""

    async def add_root(self, root: Root) -> None:
        """Begin to watch *root*, which can be read now. Raises RetryLater or Misconfigured."""

    async def remove_root(self, root_id: RootId) -> None:
        """Forget a root; unknown ones are no error."""

    def hints(self) -> list[Hint]:
        """All hints since the last call. Never blocks."""

    async def barrier(self, *, deadline_s: float) -> bool:
        """After True, every file operation that ended before the call is among the hints (taken or to be taken).

        False: this source cannot tell, or did not in time; scan the roots instead.
        """

    def scanned(self, root: RootId, *, took_s: float) -> None:
        """A whole scan of *root* ended; a source that goes by the clock plans its next look by its cost."""

    def health(self) -> SourceHealth:
        """A frozen snapshot."""

    async def close(self) -> None:
        """Stop; ends every thread and process of its own."""


_ENTERED: Final = Entered()


class NoCoverage:
    """For sources that find directories by themselves."""

    def enter(self, root: RootId, path: bytes, fd: int) -> Entered:
        """Nothing to do."""
        del root, path, fd
        return _ENTERED

    def leave(self, root: RootId, path: bytes) -> None:
        """Nothing to do."""
