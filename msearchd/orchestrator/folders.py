"""The list of watched folders: from the settings and from `msearch add`; kept in the catalog.

In: absolute paths. Out: roots watched or forgotten. Never touches the folders themselves.
`folders.json` beside the database repeats the list: it is all that cannot be found again where the database is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from msearchd import errors
from msearchd.aio.sqlite import Database
from msearchd.domain.asset import Root, RootId, RootState
from msearchd.domain.job import Owed, Step
from msearchd.jobs.queue import JobQueue
from msearchd.orchestrator import folders_file
from msearchd.settings.model import WatchSettings
from msearchd.store.catalog import Catalog
from msearchd.watch.ignore import Rules
from msearchd.watch.paths import is_below
from msearchd.watch.roots import file_system_type, is_of_the_kernel
from msearchd.watch.watcher import Watcher

log = structlog.get_logger(__name__)

_HIDE_GROUP: Final = 2000


@dataclass(frozen=True, slots=True)
class Added:
    """A root that is watched now, and the paths of those that it took in."""

    root: Root
    took_in: tuple[bytes, ...] = ()


class FolderList:
    """Adds and removes roots while the daemon runs."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        queue: JobQueue,
        watcher: Watcher,
        data_dir: Path,
        settings: WatchSettings,
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._queue = queue
        self._watcher = watcher
        self._data_dir = os.fsencode(data_dir)
        self._file = data_dir / "folders.json"
        self._changing = asyncio.Lock()  # a folder added while it is removed would lose what was just seen
        self._from_settings = [os.fsencode(path) for path in settings.folders]
        self._watch_settings = settings

    async def start(self) -> None:
        """Watch what is configured and what was added before. A configured folder that is missing is offline, no error."""
        for root_id in await self._catalog.removed_roots():  # killed while it was removed
            await self._hide(root_id)
        if not await self._catalog.had_roots():
            await self._adopt()
        for path in self._from_settings:
            await self._want(path)
        await self._note()
        for root in await self._catalog.roots():
            await self._watcher.add_root(root)

    async def _want(self, path: bytes) -> None:
        """A folder of the settings, at the start: one that lies in a watched one is watched, one around others takes them in."""
        roots = await self._catalog.roots()
        if any(root.path != path and is_below(path, root.path) for root in roots):
            log.info("folder of the settings is watched already", path=os.fsdecode(path))
            return
        held = [root for root in roots if root.path != path and is_below(root.path, path)]
        try:
            await asyncio.to_thread(self._check_held, path, held)
        except errors.BadRequest as error:  # a daemon that does not start would watch neither
            log.warning("folder of the settings is not watched", path=os.fsdecode(path), reason=error.sentence())
            return
        await self._database.write(lambda c: self._widen_in(c, path))

    async def add(self, path: bytes) -> Added:
        """Watch *path*. NotFound, or BadRequest with the reason.

        Watched folders in it become folders of it, in one commit: nothing is read or embedded again, and what changes
        meanwhile is found by the scan that the new one begins with.
        """
        real = await asyncio.to_thread(self._checked, path)
        async with self._changing:
            held = [root for root in await self._catalog.roots() if root.path != real and is_below(root.path, real)]
            await asyncio.to_thread(self._check_held, real, held)
            for root in held:
                await self._watcher.remove_root(root.id)
            try:
                root_id = await self._database.write(lambda c: self._widen_in(c, real))
            except BaseException:
                for root in held:
                    await self._watcher.add_root(root)
                raise
            self._queue.notify()
            root = await self._root(root_id)
            await self._note()
            await self._watcher.add_root(root)
        log.info(
            "folder added", path=os.fsdecode(real), **({"took_in": [os.fsdecode(r.path) for r in held]} if held else {})
        )
        return Added(root, tuple(one.path for one in held))

    def _check_held(self, path: bytes, held: Sequence[Root]) -> None:
        """A folder that is taken in must stay in the index: BadRequest for one that is away, or that a rule leaves out."""
        rules = Rules(path, self._watch_settings)
        for root in held:
            shown = os.fsdecode(root.path)
            if root.state is RootState.OFFLINE:
                message = f"{shown} lies in it, is watched, and offline"
                raise errors.BadRequest(message, hint=f"connect it first, or give it up: msearch remove {shown}")
            if (rule := rules.check_path(root.path[len(path.rstrip(b"/")) + 1 :], is_dir=True)) is not None:
                message = f"{shown} lies in it, is watched, and would be left out by the rule {rule.pattern!r} ({rule.origin})"
                hint = f"let {os.fsdecode(path)}/.msearchignore include it, or give it up: msearch remove {shown}"
                raise errors.BadRequest(message, hint=hint)

    def _widen_in(self, c: sqlite3.Connection, path: bytes) -> RootId:
        root, moved = self._catalog.widen_root_in(c, path)
        for folder in moved:
            # Points name the folders above them: a search in the new ones must find them.
            below = self._catalog.assets_below_in(c, folder)
            self._queue.enqueue_in(c, (Owed(asset, Step.RELOCATE) for asset in below))
        return root

    def _checked(self, path: bytes) -> bytes:
        shown = os.fsdecode(path)
        real = os.path.realpath(path)
        if not os.path.exists(real):
            message = f"{shown} does not exist"
            raise errors.NotFound(message, hint="check the path")
        if not os.path.isdir(real):
            message = f"{shown} is not a folder"
            raise errors.BadRequest(message, hint="add the folder that it is in")
        if not os.access(real, os.R_OK | os.X_OK):
            message = f"{shown} cannot be read"
            raise errors.BadRequest(message, hint="check its permissions")
        if is_of_the_kernel(file_system_type(real)):
            message = f"{shown} holds no files: the kernel makes up what is read there"
            raise errors.BadRequest(message, hint="add a folder of yours")
        data = os.path.realpath(self._data_dir)
        # A folder around it (a whole home) is fine: the data folder is left out by a rule that nothing overrides.
        if real == data or real.startswith(data + b"/"):
            message = f"{shown} is msearchd's own data folder, or in it"
            raise errors.BadRequest(message, hint="add a folder of yours")
        return real

    async def remove(self, path: bytes) -> None:
        """Watch *path* no more, forget its files. NotFound if it is not watched."""
        wanted = {path.rstrip(b"/") or b"/", await asyncio.to_thread(os.path.realpath, path)}
        async with self._changing:
            root = next((r for r in await self._catalog.roots() if r.path in wanted), None)
            if root is None:
                message = f"{os.fsdecode(path)} is not a watched folder"
                raise errors.NotFound(message, hint="see them with: msearch list")
            await self._watcher.remove_root(root.id)
            await self._database.write(lambda c: self._catalog.remove_root_in(c, root.id))
            await self._note()
            await self._hide(root.id)
        log.info("folder removed", path=os.fsdecode(root.path))

    async def _adopt(self) -> None:
        """A new database: what the last one watched is watched again."""
        for path in await asyncio.to_thread(folders_file.read, self._file):
            with contextlib.suppress(errors.BadRequest):  # inside another one of the list
                await self._database.write(lambda c, p=path: self._catalog.add_root_in(c, p))  # type: ignore[misc]
                log.warning("folder watched again", path=os.fsdecode(path), reason="the database is new")

    async def _note(self) -> None:
        paths = [root.path for root in await self._catalog.roots()]
        try:
            await asyncio.to_thread(folders_file.write, self._file, paths)
        except OSError as error:  # a full disk: the catalog has the list, and the next change notes it
            log.warning("list of folders not noted", reason=str(error))

    async def keep_list(self) -> None:
        """Before everything begins anew: the list is noted again where somebody removed it with the data folder."""
        with contextlib.suppress(errors.MsearchError):  # a database that cannot be read: then the list is not its loss
            if not await asyncio.to_thread(self._file.exists) and await self._catalog.roots():
                await self._note()

    async def leave_all(self) -> None:
        """Before a reset: the watcher lets go of every root, so that no change of a forgotten one arrives. `start` after it."""
        for root in await self._catalog.roots():
            await self._watcher.remove_root(root.id)

    async def _hide(self, root: RootId) -> None:
        while await self._database.write(lambda c: self._hide_in(c, root)):
            pass

    def _hide_in(self, c: sqlite3.Connection, root: RootId) -> int:
        gone = self._catalog.hide_tree_in(c, root, b"", limit=_HIDE_GROUP)
        for asset in gone:
            self._queue.drop_in(c, asset)
        return len(gone)

    async def _root(self, root_id: RootId) -> Root:
        return next(root for root in await self._catalog.roots() if root.id == root_id)
