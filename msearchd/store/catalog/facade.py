"""The catalog as one object: synchronous `*_in` parts for the caller's transactions, asynchronous reads for everyone.

`*_in(connection, ...)` run inside `database.write(...)`, so that an outcome and the end of its job are one commit; they
may be repeated. Everything else reads beside the writer and sees every acknowledged write. Paths are bytes; those of a
root are relative to it, "/"-joined, b"" the root itself. Owns no state but the database.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Final
from uuid import UUID

from msearchd.aio.sqlite import Database, migrate
from msearchd.domain.asset import (
    AssetId,
    AssetState,
    ContentId,
    DirId,
    KnownDir,
    Root,
    RootId,
    RootState,
    StatFingerprint,
)
from msearchd.domain.media import OF_TEXT, Extraction, Identified, Segment, SegmentKind
from msearchd.domain.space import Space, SpaceName
from msearchd.store.catalog import contents, known, paths, reset, segments, status, sweep, tree
from msearchd.store.catalog.rows import KIND_CODES, AssetRow, ContentRow, Totals, TreeMove
from msearchd.store.catalog.searching import CatalogSearch

#: Folders whose children are read in one visit: about 10 ms.
_DIRS_A_BATCH: Final = 500
#: What a content must have to be embedded by a model that serves something else than text.
_SAMPLE_KIND: Final = {"image": SegmentKind.IMAGE, "audio": SegmentKind.AUDIO, "page": SegmentKind.PAGE}


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Catalog(CatalogSearch):
    """What we know of the user's files. `words`, `names`, `point_filter`, `resolve` and `show` are in CatalogSearch."""

    def __init__(self, database: Database, *, now_ms: Callable[[], int] = _wall_ms) -> None:
        super().__init__(database)
        self._now_ms = now_ms

    async def open(self) -> None:
        """Make or migrate the tables. Raises Misconfigured where a newer msearchd wrote them."""
        await migrate(self._database, component="catalog", package="msearchd.store.sql")

    # -- roots --------------------------------------------------------------------------------------------------------

    def add_root_in(self, c: sqlite3.Connection, path: bytes) -> RootId:
        """Watch a folder (absolute); twice is once. Raises BadRequest for relative and for nested ones."""
        return tree.add_root(c, path, now_ms=self._now_ms())

    def widen_root_in(self, c: sqlite3.Connection, path: bytes) -> tuple[RootId, list[DirId]]:
        """Watch a folder that holds watched ones; they become folders of it. The new root, and the folders that moved."""
        return tree.widen_root(c, path, now_ms=self._now_ms())

    def remove_root_in(self, c: sqlite3.Connection, root: RootId) -> None:
        """Watch it no longer: out of every search at once. The caller hides its tree in batches (`hide_tree_in`)."""
        tree.remove_root(c, root, now_ms=self._now_ms())

    def set_root_state_in(self, c: sqlite3.Connection, root: RootId, state: RootState, reason: str = "") -> None:
        """Online or offline; the hits of an offline root stay and say so."""
        tree.set_root_state(c, root, state, reason)

    async def roots(self) -> list[Root]:
        """Watched folders."""
        return await self._database.read(paths.roots)

    async def removed_roots(self) -> list[RootId]:
        """Folders that were watched once; their rows go with the grace period."""
        return await self._database.read(lambda c: [RootId(row[0]) for row in c.execute(paths.SQL["removed_roots"])])

    async def had_roots(self) -> bool:
        """True if a folder was ever watched since the database was made."""
        return await self._database.read(lambda c: c.execute(paths.SQL["any_root_ever"]).fetchone()) is not None

    # -- tree ---------------------------------------------------------------------------------------------------------

    def see_file_in(self, c: sqlite3.Connection, root: RootId, path: bytes, fingerprint: StatFingerprint) -> AssetId:
        """The file is there; its row is made, or un-hidden. Same bytes as before it went: searchable at once."""
        return tree.see_file(c, root, path, fingerprint)

    def touch_file_in(
        self, c: sqlite3.Connection, root: RootId, path: bytes, fingerprint: StatFingerprint
    ) -> AssetId | None:
        """Only its ctime moved: remember that."""
        return tree.touch_file(c, root, path, fingerprint)

    def hide_file_in(self, c: sqlite3.Connection, root: RootId, path: bytes) -> AssetId | None:
        """The file is gone: out of every search with this commit. None if it was not known."""
        return tree.hide_file(c, root, path, now_ms=self._now_ms())

    def hide_tree_in(self, c: sqlite3.Connection, root: RootId, path: bytes, limit: int = 5000) -> list[AssetId]:
        """Hide at most *limit* files of a folder and all below it; call again until it returns []."""
        return tree.hide_tree(c, root, path, limit=limit, now_ms=self._now_ms())

    def move_file_in(
        self,
        c: sqlite3.Connection,
        root: RootId,
        old: bytes,
        new_root: RootId,
        new: bytes,
        fingerprint: StatFingerprint,
    ) -> AssetId | None:
        """The same bytes at a new place. None (and the old place is hidden): see the new place as a new file."""
        return tree.move_file(c, root, old, new_root, new, fingerprint, now_ms=self._now_ms())

    def move_tree_in(
        self, c: sqlite3.Connection, root: RootId, old: bytes, new_root: RootId, new: bytes
    ) -> TreeMove | None:
        """A folder was renamed or moved: one row changes. None if it is not known: scan the new place."""
        return tree.move_tree(c, root, old, new_root, new, now_ms=self._now_ms())

    def scanned_dir_in(
        self,
        c: sqlite3.Connection,
        root: RootId,
        path: bytes,
        *,
        inode: int,
        mtime_ns: int,
        ctime_ns: int,
        signature: int,
        scanned_ms: int,
    ) -> None:
        """A folder was compared with the disk and was like this."""
        tree.compared_dir(
            c, root, path, inode=inode, mtime_ns=mtime_ns, ctime_ns=ctime_ns, signature=signature, scanned_ms=scanned_ms
        )

    def assets_below_in(self, c: sqlite3.Connection, dir_id: DirId) -> Iterator[AssetId]:
        """Visible files of a folder and all below it, read as they are asked for."""
        folders = known.subtree(c, dir_id)
        for at in range(0, len(folders), _DIRS_A_BATCH):
            yield from known.assets_of_dirs(c, folders[at : at + _DIRS_A_BATCH])

    async def assets_under(self, root: RootId, path: bytes = b"") -> AsyncIterator[list[AssetId]]:
        """Visible files of a folder and all below it, in batches."""

        def folders_in(c: sqlite3.Connection) -> list[DirId]:
            top = paths.find_dir(c, root, path)
            return [] if top is None else known.subtree(c, top)

        folders = await self._database.read(folders_in)
        for at in range(0, len(folders), _DIRS_A_BATCH):
            batch = folders[at : at + _DIRS_A_BATCH]
            if found := await self._database.read(partial(known.assets_of_dirs, dirs=batch)):
                yield found

    async def directory(self, root: RootId, path: bytes) -> KnownDir | None:
        """The folder as it was last compared; None if it never was."""
        return await self._database.read(lambda c: known.directory(c, root, path))

    async def some_directories(self, root: RootId, wanted: Sequence[bytes]) -> dict[bytes, KnownDir | None]:
        """Each of *wanted* -> the folder as it was last compared; None if it never was. One read for all."""
        return await self._database.read(lambda c: known.some_directories(c, root, wanted))

    async def files(self, root: RootId, path: bytes) -> dict[bytes, StatFingerprint]:
        """Direct child files by name, those that are gone left out."""
        return await self._database.read(lambda c: known.files(c, root, path))

    async def file(self, root: RootId, path: bytes) -> StatFingerprint | None:
        """The file at *path*; None if it is not known, or gone."""
        return await self._database.read(lambda c: known.file(c, root, path))

    async def subdirs(self, root: RootId, path: bytes) -> list[bytes]:
        """Names of direct child folders."""
        return await self._database.read(lambda c: known.subdirs(c, root, path))

    async def contents(self, root: RootId, path: bytes) -> tuple[dict[bytes, StatFingerprint], list[bytes]]:
        """Direct child files by name, and names of direct child folders: one read for both."""
        return await self._database.read(lambda c: known.contents(c, root, path))

    async def directories(self, root: RootId, path: bytes = b"") -> AsyncIterator[list[tuple[bytes, KnownDir]]]:
        """A folder and every known folder below it, parents first, in batches. Memory: one level of the tree."""
        found, frontier = await self._database.read(lambda c: known.first_directories(c, root, path))
        while found or frontier:
            if found:
                yield found
            batch, frontier = frontier[-_DIRS_A_BATCH:], frontier[:-_DIRS_A_BATCH]
            found, further = await self._database.read(partial(known.more_directories, root=root, frontier=batch))
            frontier += further

    async def count_files(self, root: RootId, path: bytes = b"") -> int:
        """Visible files below a folder; of a whole root without counting."""
        return await self._database.read(lambda c: known.count_files(c, root, path))

    async def asset(self, asset_id: AssetId) -> AssetRow | None:
        """All that is known of a file."""
        return await self._database.read(lambda c: known.asset(c, asset_id))

    async def asset_by_path(self, path: bytes) -> AssetRow | None:
        """The file at an absolute path, gone or not; None if it is not known."""
        return await self._database.read(lambda c: known.asset_by_path(c, path))

    # -- state --------------------------------------------------------------------------------------------------------

    def set_state_in(self, c: sqlite3.Connection, asset: AssetId, state: AssetState, reason: str = "") -> None:
        """Where a file stands, and why. Quiet for one that does not exist."""
        tree.set_state(c, asset, state, reason)

    def state_in(self, c: sqlite3.Connection, asset: AssetId) -> AssetState | None:
        """Where a file stands; None if it is not known."""
        row = c.execute(paths.SQL["state_of_asset"], (asset,)).fetchone()
        return None if row is None else AssetState(row[0])

    def is_left_in(self, c: sqlite3.Connection, asset: AssetId) -> bool:
        """True for a file that the watcher leaves alone; it says so by inode 0."""
        return c.execute(paths.SQL["is_left"], (asset,)).fetchone() is not None

    async def pending_assets(self, after: AssetId, *, limit: int) -> list[AssetId]:
        """Visible files that are pending, after *after*, by id."""
        query = paths.SQL["pending_assets"]
        return await self._database.read(lambda c: [AssetId(row[0]) for row in c.execute(query, (after, limit))])

    async def counts(self) -> dict[RootId, dict[AssetState, int]]:
        """Visible files of every watched root by state; they add up."""
        return await self._database.read(known.counts)

    async def totals(self) -> Totals:
        """Sizes of the index, without counting."""
        return await self._database.read(status.totals)

    # -- contents -----------------------------------------------------------------------------------------------------

    def identified_in(self, c: sqlite3.Connection, asset: AssetId, identified: Identified) -> ContentRow:
        """The file holds these bytes. Raises NotFound where the file is not known any more."""
        return contents.identified(c, asset, identified, now_ms=self._now_ms())

    def extracted_in(
        self, c: sqlite3.Connection, content: ContentId, extraction: Extraction, *, part: SegmentKind | None = None
    ) -> None:
        """What was read replaces what was read before: by `extract` (*part* None), or of one kind. Idempotent."""
        contents.extracted(c, content, extraction, part=part, now_ms=self._now_ms())

    def unlink_content_in(self, c: sqlite3.Connection, asset: AssetId) -> None:
        """The file's bytes are left alone: found by name only."""
        contents.unlink(c, asset)

    def content_in(self, c: sqlite3.Connection, content: ContentId) -> ContentRow:
        """All of a content, inside a transaction. Raises NotFound."""
        return contents.content(c, content)

    async def content(self, content: ContentId) -> ContentRow | None:
        """All of a content."""
        return await self._database.read(lambda c: contents.find(c, content))

    async def content_of(self, asset: AssetId) -> ContentRow | None:
        """What a file holds; None before it is identified."""
        return await self._database.read(lambda c: contents.of_asset(c, asset))

    def assets_of_in(self, c: sqlite3.Connection, content: ContentId) -> list[AssetId]:
        """Every visible file with this content."""
        return [AssetId(row[0]) for row in c.execute(segments.SQL["assets_of_content"], (content, -1))]

    async def has_text(self) -> bool:
        """True once any content was read."""
        return await self._database.read(lambda c: c.execute(segments.SQL["has_text"]).fetchone() is not None)

    async def contents_lacking(
        self, space: SpaceName, after: ContentId, *, limit: int, serves: str = "text"
    ) -> list[ContentId]:
        """Contents that a file shows and that a model which *serves* this eats, but that are not live in *space* as they
        are now; by id.
        """
        query = segments.SQL["contents_lacking"]
        arguments: list[SpaceName | ContentId | int] = [space, after, limit]
        if serves not in OF_TEXT:
            query = segments.SQL["contents_lacking_kind"]
            arguments.append(KIND_CODES[_SAMPLE_KIND[serves]])
        return await self._database.read(lambda c: [ContentId(row[0]) for row in c.execute(query, arguments)])

    async def contents_unheard(self, after: ContentId, *, limit: int) -> list[ContentId]:
        """Contents with sound that a file shows and whose speech is not written down to its end; by id."""
        query = segments.SQL["contents_unheard"]
        return await self._database.read(lambda c: [ContentId(row[0]) for row in c.execute(query, (after, limit))])

    def heard_in(
        self,
        c: sqlite3.Connection,
        content: ContentId,
        transcript: Sequence[Segment],
        *,
        until_ms: int,
        is_complete: bool,
    ) -> None:
        """All speech up to *until_ms*, which replaces what was written down before. Idempotent."""
        contents.heard(c, content, transcript, until_ms=until_ms, is_complete=is_complete, now_ms=self._now_ms())

    async def segments(self, content: ContentId) -> list[Segment]:
        """All segments of a content, by kind and place."""
        return await self._database.read(lambda c: segments.segments(c, content))

    async def segment_counts(self, content: ContentId) -> dict[SegmentKind, int]:
        """Segments with text, by where their text comes from."""
        return await self._database.read(lambda c: segments.counts_by_kind(c, content))

    async def dirs_of(self, content: ContentId) -> tuple[int, ...]:
        """Ids of every folder that holds a visible file with this content, ancestors included, ascending."""
        return await self._database.read(lambda c: contents.dirs_of(c, content))

    # -- spaces -------------------------------------------------------------------------------------------------------

    def put_space_in(self, c: sqlite3.Connection, space: Space, *, modality: str = "text") -> None:
        """Remember a vector space; twice is once."""
        contents.put_space(c, space, modality=modality, now_ms=self._now_ms())

    def set_active_space_in(self, c: sqlite3.Connection, space: SpaceName, *, modality: str = "text") -> None:
        """From now on this space answers questions of a modality, and no other."""
        contents.set_active_space(c, space, modality)

    def forget_space_in(self, c: sqlite3.Connection, space: SpaceName) -> None:
        """Its store is dropped: it is not known any more."""
        contents.forget_space(c, space)

    async def spaces(self) -> list[Space]:
        """All spaces, oldest first."""
        return await self._database.read(contents.spaces)

    async def active_space(self, modality: str = "text") -> Space | None:
        """The space that answers questions of a modality."""
        return await self._database.read(lambda c: contents.active_space(c, modality))

    # -- order of writes ----------------------------------------------------------------------------------------------

    def intend_in(self, c: sqlite3.Connection, space: SpaceName, content: ContentId) -> None:
        """Points of the content are about to be put. Committed before the first upsert."""
        contents.intend(c, space, content, now_ms=self._now_ms())

    def live_in(self, c: sqlite3.Connection, space: SpaceName, content: ContentId, points: int) -> bool:
        """All *points* are there: visible with this commit. False where the content was swept meanwhile."""
        return contents.live(c, space, content, points, now_ms=self._now_ms())

    def not_live_in(self, c: sqlite3.Connection, space: SpaceName, content: ContentId) -> None:
        """Its points were found missing: not shown, and owed again."""
        c.execute(segments.SQL["unlink_space"], (content, space))

    def settle_intents_in(self, c: sqlite3.Connection, space: SpaceName, contents_: Collection[ContentId]) -> None:
        """The store has flushed what was put."""
        contents.settle_puts(c, space, list(contents_))

    async def open_intents(self) -> list[tuple[SpaceName, ContentId]]:
        """Puts that were begun and are not known to be on the disk: to be redone at start."""
        return await self._database.read(status.open_puts)

    async def open_sweeps(self) -> list[tuple[SpaceName, UUID]]:
        """Points that nothing refers to, still to be deleted."""
        return await self._database.read(status.open_sweeps)

    # -- sweep --------------------------------------------------------------------------------------------------------

    def remove_in(self, c: sqlite3.Connection, asset: AssetId) -> ContentRow | None:
        """The file's row goes. Returns its content if no visible file holds it any more."""
        return sweep.remove_asset(c, asset)

    async def sweepable(self, now_ms: int, grace_s: float, limit: int) -> list[ContentRow]:
        """Orphans whose grace is over, longest first."""
        before_ms = now_ms - int(grace_s * 1000)
        return await self._database.read(lambda c: sweep.orphans_due(c, before_ms=before_ms, limit=limit))

    def forget_content_in(self, c: sqlite3.Connection, content: ContentId) -> tuple[SpaceName, ...] | None:
        """Forget an orphan; says in which spaces its points must now be deleted (a sweep intent remembers it).

        None, and nothing is changed, where a file shows it again.
        """
        return sweep.forget_content(c, content, now_ms=self._now_ms())

    def settle_sweeps_in(self, c: sqlite3.Connection, space: SpaceName, uuids: Collection[UUID]) -> None:
        """The store has deleted the points of these contents, and flushed."""
        sweep.settle_sweeps(c, space, uuids)

    def purge_gone_in(self, c: sqlite3.Connection, *, before_ms: int, limit: int = 5000) -> list[AssetId]:
        """Forget files gone since *before_ms* or earlier, and empty gone folders; call again until it returns []."""
        return sweep.purge_gone(c, before_ms=before_ms, limit=limit)

    # -- verify and reset ---------------------------------------------------------------------------------------------

    async def expected_points(self, space: SpaceName) -> int:
        """Exact number of points that should be in a space, without counting."""
        return await self._database.read(lambda c: status.expected_points(c, space))

    async def expected_contents(self, space: SpaceName) -> AsyncIterator[dict[UUID, int]]:
        """Contents that should be in a space with their points, in batches."""
        after = 0
        while True:
            read = partial(status.expected_contents, space=space, after=after)
            batch, after = await self._database.read(read)
            if not batch:
                return
            yield batch

    async def content_by_uuid(self, uuid: UUID) -> ContentRow | None:
        """The content that points name by *uuid*."""
        return await self._database.read(lambda c: status.content_by_uuid(c, uuid))

    def reset_in(self, c: sqlite3.Connection, what: reset.ResetType) -> None:
        """Throw away: "index" contents, segments and spaces (files stay, pending); "database" also files and folders;
        "all" also the watched folders. Never touches the user's files or the vector store.
        """
        reset.reset(c, what)

    def all_assets_in(self, c: sqlite3.Connection) -> Iterator[AssetId]:
        """Every visible file whose bytes are not left alone, read as they are asked for."""
        return reset.visible_assets(c)

    async def segments_of(self, places: Sequence[tuple[ContentId, SegmentKind, int]]) -> list[Segment | None]:
        """The segment of each (content, kind, seq), in order; None where there is none any more."""
        return await self._database.read(lambda c: status.segments_of(c, places))
