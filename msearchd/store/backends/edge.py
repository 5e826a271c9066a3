"""The embedded engine: one Qdrant Edge shard a space, all owned by this process.

    <folder>/.lock                   our own lock on the whole
    <folder>/spaces/<space>/         see shard.py
    <folder>/aside/<space>-<time>/   damaged files, the last of each space

In: operations of backends/port.py. Never suspends. A shard is loaded at its first use.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO
from uuid import UUID

from msearchd import errors
from msearchd.domain.space import Point, Space, SpaceName, Vectors
from msearchd.store.backends import disk
from msearchd.store.backends.port import Opened, StoreStart, checked_name
from msearchd.store.backends.shard import Damaged, Shard, known_points, was_loading
from msearchd.store.backends.values import check_shape
from msearchd.store.vector_store import ScoredPoint, SpaceHealth, VectorSearch


def open_backend(start: StoreStart) -> EdgeBackend:
    """Take the folder. Raises RetryLater (another process has it), Misconfigured."""
    return EdgeBackend(start.folder, min_free_bytes=start.min_free_bytes, quantize_above=start.quantize_above)


class EdgeBackend:
    """All spaces under one folder."""

    def __init__(self, folder: Path, *, min_free_bytes: int, quantize_above: int) -> None:
        self._folder = folder
        self._min_free_bytes = min_free_bytes
        self._quantize_above = quantize_above
        self._lock: IO[bytes] = disk.own_folder(folder)
        self._shards: dict[SpaceName, Shard] = {}
        self._untold: dict[SpaceName, str] = {}
        self._spaces = folder / "spaces"
        self._spaces.mkdir(exist_ok=True, mode=0o700)
        for doomed in self._spaces.glob(".doomed-*"):  # a removal that was killed
            disk.remove_tree(doomed)

    async def open(self, space: SpaceName) -> Opened:
        """Load *space*; damaged files are set aside, and then it is not there."""
        is_there = self._has(space)
        return Opened(is_there=is_there, damage=self._untold.pop(space, ""))

    def _has(self, space: SpaceName) -> bool:
        """Load *space* if it exists and is not loaded. Damage found here is told by the next `open`."""
        folder = self._folder_of(space)
        if space in self._shards:
            if not folder.is_dir():
                self._vanished(space)
            return True
        if not (folder / "space.json").exists():  # absent, or a creation that was killed
            return False
        disk.need_free(self._folder, disk.LOAD_FLOOR_BYTES, purpose=f"loading space {space}")
        try:
            self._shards[space] = Shard.load(folder, quantize_above=self._quantize_above)
        except Damaged as damage:
            self._untold[space] = f"{damage}; its files are in {self._set_aside(space, str(damage))}"
            return False
        return True

    async def ensure(self, space: Space) -> Opened:
        """Open or create."""
        opened = await self.open(space.name)
        if opened.is_there:
            check_shape(self._shards[space.name].space, space)
            return opened
        self._need_room(f"creating space {space.name}")
        self._shards[space.name] = Shard.create(self._folder_of(space.name), space, quantize_above=self._quantize_above)
        return Opened(is_there=True, damage=opened.damage, is_new=True)

    async def upsert(self, space: SpaceName, points: Sequence[Point], vectors: Vectors) -> None:
        """Store one chunk; then flush or quantize if it is time to."""
        shard = self._shard(space)
        self._need_room(f"writing to space {space}")
        shard.upsert(points, vectors)
        if shard.wants_flush:
            shard.flush()
        elif shard.wants_optimize:
            self._optimize(shard)

    async def set_dirs(self, space: SpaceName, content: UUID, dirs: Sequence[int]) -> None:
        """Replace `dirs`; quiet where the space is not there."""
        if self._has(space):
            disk.need_free(self._folder, disk.DELETE_FLOOR_BYTES, purpose=f"writing to space {space}")
            self._shards[space].set_dirs(content, dirs)

    async def delete_contents(self, space: SpaceName, contents: Sequence[UUID]) -> None:
        """Delete; quiet where the space is not there."""
        if self._has(space):
            disk.need_free(self._folder, disk.DELETE_FLOOR_BYTES, purpose=f"deleting from space {space}")
            self._shards[space].delete_contents(contents)

    async def search(self, searches: Sequence[VectorSearch]) -> list[list[ScoredPoint]]:
        """Answer all questions, those of one space together."""
        answers: list[list[ScoredPoint]] = [[] for _ in searches]
        for space in dict.fromkeys(search.space for search in searches):
            if not self._has(space):
                continue
            places = [place for place, search in enumerate(searches) if search.space == space and search.limit > 0]
            found = self._shards[space].search([searches[place] for place in places]) if places else []
            for place, hits in zip(places, found, strict=True):
                answers[place] = hits
        return answers

    async def count(self, space: SpaceName) -> int:
        """Exact; 0 where the space is not there."""
        return self._shards[space].count() if self._has(space) else 0

    async def contents_page(self, space: SpaceName, after: str) -> tuple[dict[UUID, int], str]:
        """One page; empty where the space is not there."""
        return self._shards[space].contents_page(after) if self._has(space) else ({}, "")

    async def flush(self) -> None:
        """Sync every loaded shard. One that is not loaded has nothing to sync but its log, which the load replays."""
        for shard in self._shards.values():
            shard.flush()

    async def optimize(self) -> None:
        """Quantize and vacuum every loaded shard, then let old files go."""
        for shard in self._shards.values():
            if self._optimize(shard):
                shard.flush()

    async def spaces(self) -> list[SpaceName]:
        """Names of all spaces on the disk."""
        return sorted(SpaceName(path.parent.name) for path in self._spaces.glob("[a-z0-9]*/space.json"))

    async def drop(self, space: SpaceName) -> None:
        """Remove its files."""
        if (shard := self._shards.pop(space, None)) is not None:
            shard.abandon()
        disk.remove_tree(self._folder_of(space))

    async def blame(self, space: SpaceName, reason: str) -> str:
        """Set the files aside if an earlier process was loading them when it ended."""
        return self._set_aside(space, reason) if was_loading(self._folder_of(space)) else ""

    def _vanished(self, space: SpaceName) -> None:
        """Somebody removed the files of a loaded space: let go of it, so that it is made and filled again."""
        disk.need_free(self._folder.parent, 0, purpose="")  # the data folder itself is not ours to make
        self._shards.pop(space).abandon()
        if not self._folder.is_dir():
            self._lock.close()
            self._lock = disk.own_folder(self._folder)
        self._spaces.mkdir(exist_ok=True, mode=0o700)
        raise errors.NotFound(f"the files of space {space} were removed", hint="it is made again by itself")

    def _set_aside(self, space: SpaceName, reason: str) -> str:
        """Move the files to `aside/`, and forget an older set of the same space. *reason* is kept beside them."""
        if (shard := self._shards.pop(space, None)) is not None:
            shard.abandon()
        folder = self._folder_of(space)
        aside = self._folder / "aside"
        aside.mkdir(exist_ok=True, mode=0o700)
        for older in aside.glob(f"{space}@*"):
            disk.remove_tree(older)
        place = aside / f"{space}@{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        if folder.exists():
            folder.rename(place)
            (place / "reason.txt").write_text(f"{reason}\n", encoding="utf-8")
        return str(place)

    async def health(self) -> dict[SpaceName, SpaceHealth]:
        """Loaded shards exactly; others as they were left."""
        states = {}
        for space in await self.spaces():
            if (shard := self._shards.get(space)) is not None:
                states[space] = shard.health()
            else:
                folder = self._folder_of(space)
                states[space] = SpaceHealth(known_points(folder), disk.disk_bytes(folder))
        return states

    async def close(self) -> None:
        """Flush all, release the lock. A shard that cannot be flushed keeps its log."""
        try:
            for shard in self._shards.values():
                shard.close()
        finally:
            self._shards.clear()
            self._lock.close()

    def _optimize(self, shard: Shard) -> bool:
        # The engine writes the new segments before it drops the old: room for one more copy at worst.
        self._need_room(f"optimizing space {shard.space.name}", extra_bytes=disk.disk_bytes(shard.folder))
        return shard.optimize()

    def _need_room(self, purpose: str, *, extra_bytes: int = 0) -> None:
        disk.need_free(self._folder, max(self._min_free_bytes, disk.WRITE_FLOOR_BYTES) + extra_bytes, purpose=purpose)

    def _shard(self, space: SpaceName) -> Shard:
        if not self._has(space):
            raise errors.NotFound(f"there is no space {space}", hint="ensure it first")
        return self._shards[space]

    def _folder_of(self, space: SpaceName) -> Path:
        return self._spaces / checked_name(space)
