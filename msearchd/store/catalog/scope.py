"""Filters, resolved: which files may be shown, and what the vector store is told so that few hits lose nothing.

In: `Filters` as people write them (absolute folders, type words, times, sizes). Out: a frozen `Scope`.
Where the filters leave few contents they are listed by id, and the store compares exactly those. Else the store is
given the conditions that its payloads can answer; what they cannot (times, extensions) is checked on what it returns.
"""

from __future__ import annotations

import fnmatch
import json
import sqlite3
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from msearchd import errors
from msearchd.aio.sqlite import named_queries
from msearchd.domain.asset import AssetId, ContentId, DirId, RootId
from msearchd.domain.media import Modality
from msearchd.domain.query import Filters
from msearchd.store.catalog import fold, known, paths
from msearchd.store.vector_store import PointFilter

SQL: Final = named_queries("msearchd.store.sql", "search.sql")

#: Above this many contents a list of ids costs the store more than it saves.
FEW_CONTENTS: Final = 5000
#: Files looked at to find out whether few contents are left: about 30 ms.
_LOOKED_AT: Final = 20_000
_NS: Final = 1_000_000
_LATEST: Final = (1 << 63) - 1
_MODALITIES: Final = frozenset(modality.value for modality in Modality)


@dataclass(frozen=True, slots=True)
class FileLine:
    """What filters look at in one file."""

    asset: AssetId
    dir: DirId
    content: ContentId | None
    ext: str
    size: int
    mtime_ns: int
    type_label: str | None
    mime: str | None
    modality: str | None


@dataclass(frozen=True, slots=True)
class Types:
    """Type words, resolved: a file matches by (label, mime, modality) of its content, or by its extension."""

    kinds: frozenset[tuple[str, str, str]]
    exts: frozenset[str]
    #: Labels that a matching content can have: all of them, perhaps some too many.
    labels: frozenset[str]
    known: int  # contents of these kinds

    def admit(self, line: FileLine) -> bool:
        """True if the file is of one of the types."""
        return line.ext in self.exts or (line.type_label, line.mime, line.modality) in self.kinds


@dataclass(frozen=True, slots=True)
class Scope:
    """Which files a search may show."""

    filters: Filters = field(default_factory=Filters)
    roots: frozenset[RootId] = frozenset()
    dirs: frozenset[DirId] = frozenset()
    types: Types | None = None
    #: All contents that are left, if few are; None: many.
    contents: frozenset[ContentId] | None = None
    #: All files that are left, those without a content too, if few contents are.
    assets: frozenset[AssetId] | None = None
    #: What the store is told; None: nothing can match.
    point_filter: PointFilter | None = field(default_factory=PointFilter)
    #: True if the point filter lets points through that the filters do not admit.
    is_loose: bool = False

    @property
    def is_open(self) -> bool:
        """True if there are no filters."""
        return self.filters == Filters()

    def admits_line(self, line: FileLine) -> bool:
        """True if type, time and size are right. Folders are `FolderTest`'s."""
        f = self.filters
        return (
            (self.types is None or self.types.admit(line))
            and (f.modified_after_ms is None or line.mtime_ns >= f.modified_after_ms * _NS)
            and (f.modified_before_ms is None or line.mtime_ns < f.modified_before_ms * _NS)
            and (f.min_size_bytes is None or line.size >= f.min_size_bytes)
            and (f.max_size_bytes is None or line.size <= f.max_size_bytes)
        )


OPEN: Final = Scope()


class FolderTest:
    """Which folders lie in a scope's folders; remembers what it looked up. Lives as long as one read."""

    def __init__(self, c: sqlite3.Connection, scope: Scope) -> None:
        self._c = c
        self._scope = scope
        self._known: dict[int, bool] = {}

    def admitted(self, dirs: Collection[int]) -> set[int]:
        """Those of *dirs* that lie in one of the folders; all of them if there is no such filter."""
        if not self._scope.filters.folders:
            return set(dirs)
        unknown = {id_ for id_ in dirs if id_ not in self._known}
        for id_, way in paths.paths_of(self._c, unknown).items():
            self._known[id_] = way.root in self._scope.roots or not self._scope.dirs.isdisjoint(way.ancestors)
        return {id_ for id_ in dirs if self._known.get(id_, False)}


def lines(c: sqlite3.Connection, query: str, ids: Iterable[int], scope: Scope) -> list[FileLine]:
    """Visible files (query files_of_contents or files_by_id) that the scope admits, in the order of *ids*."""
    found = [FileLine(*row) for row in c.execute(SQL[query], (json.dumps(list(ids)),))]
    if scope.is_open:
        return found
    found = [line for line in found if scope.admits_line(line)]
    folders = FolderTest(c, scope).admitted({line.dir for line in found})
    return [line for line in found if line.dir in folders]


def admitted_contents(c: sqlite3.Connection, contents: Collection[ContentId], scope: Scope) -> set[ContentId]:
    """Those of *contents* that a visible file in the scope holds."""
    if scope.contents is not None:
        contents = [id_ for id_ in contents if id_ in scope.contents]
    if not contents:
        return set()
    if scope.is_open:
        return {ContentId(id_) for (id_,) in c.execute(SQL["shown_contents"], (json.dumps(list(contents)),))}
    return {line.content for line in lines(c, "files_of_contents", contents, scope) if line.content is not None}


# -- resolving -------------------------------------------------------------------------------------------------------


def resolve(c: sqlite3.Connection, filters: Filters) -> Scope:
    """The scope of *filters*. Raises BadRequest for a folder that is not known, and for an empty range."""
    _check(filters)
    roots, dirs = _folders(c, filters.folders)
    types = _types(c, filters.types) if filters.types else None
    scope = Scope(filters=filters, roots=roots, dirs=dirs, types=types)
    few = _few_files(c, scope)
    if few is None:
        return _with_conditions(c, scope)
    contents = frozenset(line.content for line in few if line.content is not None)
    uuids = tuple(UUID(bytes=uuid) for (uuid,) in c.execute(SQL["uuids_of"], (json.dumps(sorted(contents)),)))
    return Scope(
        filters=filters,
        roots=roots,
        dirs=dirs,
        types=types,
        contents=contents,
        assets=frozenset(line.asset for line in few),
        point_filter=PointFilter(contents=uuids) if uuids else None,
    )


def _check(filters: Filters) -> None:
    if _is_empty_range(filters.modified_after_ms, filters.modified_before_ms):
        message = "no file is modified after its end of time: modified_after is not before modified_before"
        raise errors.BadRequest(message, hint="swap the two times")
    if _is_empty_range(filters.min_size_bytes, filters.max_size_bytes, can_touch=True):
        message = "no file is larger than its largest size: min_size is above max_size"
        raise errors.BadRequest(message, hint="swap the two sizes")


def _is_empty_range(low: int | None, high: int | None, *, can_touch: bool = False) -> bool:
    return low is not None and high is not None and (low > high or (low == high and not can_touch))


def _folders(c: sqlite3.Connection, folders: Collection[bytes]) -> tuple[frozenset[RootId], frozenset[DirId]]:
    whole: set[RootId] = set()
    dirs: set[DirId] = set()
    watched = paths.roots(c)
    for folder in folders:
        path = b"/" + folder.strip(b"/")
        if inside := [root.id for root in watched if paths.is_inside(root.path, path)]:
            whole.update(inside)
            continue
        located = paths.locate(c, path)
        dir_id = None if located is None else paths.find_dir(c, located[0].id, located[1])
        if dir_id is None:
            raise _unknown_folder(folder, is_watched=located is not None)
        dirs.add(dir_id)
    return frozenset(whole), frozenset(dirs)


def _unknown_folder(folder: bytes, *, is_watched: bool) -> errors.BadRequest:
    shown = folder.decode("utf-8", "replace")
    if not folder.startswith(b"/"):
        return errors.BadRequest(f"{shown!r} is not an absolute path", hint="give the whole path, from / on")
    if is_watched:
        return errors.BadRequest(
            f"no folder {shown} is in the index", hint=f"check its spelling, or run: msearch explain {shown}"
        )
    return errors.BadRequest(f"{shown} is in no watched folder", hint=f"watch it with: msearch add {shown}")


def _types(c: sqlite3.Connection, words: Collection[str]) -> Types:
    rows = c.execute(SQL["type_kinds"]).fetchall()
    counted = {(label, mime, modality): n for label, mime, modality, n in rows}
    kinds: set[tuple[str, str, str]] = set()
    exts: set[str] = set()
    for word in (fold.fold(word.strip()) for word in words):
        matching = _kinds_of(word, counted)
        if matching or "/" in word or word in _MODALITIES:
            kinds |= matching
        elif ext := word.removeprefix("."):
            exts.add(ext)
    labels = {label for label, _, _ in kinds}
    for ext in exts:
        labels |= {label for (label,) in c.execute(SQL["labels_of_ext"], (ext,))}
    return Types(frozenset(kinds), frozenset(exts), frozenset(labels), sum(counted[kind] for kind in kinds))


def _kinds_of(word: str, counted: Collection[tuple[str, str, str]]) -> set[tuple[str, str, str]]:
    """What a word means: ".pdf" an extension, "image/*" a mime pattern, "image" a modality, "pdf" a known label."""
    if word.startswith("."):
        return set()
    if "/" in word:
        return {kind for kind in counted if fnmatch.fnmatchcase(kind[1], word)}
    if word in _MODALITIES:
        return {kind for kind in counted if kind[2] == word}
    return {kind for kind in counted if kind[0] == word}


# -- few or many -----------------------------------------------------------------------------------------------------

_Read = Callable[[], list[AssetId]]


def _few_files(c: sqlite3.Connection, scope: Scope) -> list[FileLine] | None:
    """All files that the scope leaves, if they hold few contents; else None. Reads through its most selective filter."""
    n, read = min(_ways(c, scope), key=lambda way: way[0], default=(_LOOKED_AT + 1, list))
    if n > _LOOKED_AT:
        return None
    assets = read()
    if len(assets) > _LOOKED_AT:  # one content can be held by many files
        return None
    left = lines(c, "files_by_id", assets, scope)
    return left if len({line.content for line in left}) <= FEW_CONTENTS else None


def _ways(c: sqlite3.Connection, scope: Scope) -> list[tuple[int, _Read]]:
    """Each filter as (how many rows it leaves, counted no further than needed; how to read them)."""
    cap = _LOOKED_AT + 1

    def ids(query: str, *values: object) -> _Read:
        return lambda: [AssetId(id_) for (id_,) in c.execute(SQL[query], (*values, cap))]

    def count(query: str, *values: object) -> int:
        return int(c.execute(SQL[query], (*values, cap)).fetchone()[0])

    ways: list[tuple[int, _Read]] = []
    f, types = scope.filters, scope.types
    if f.folders:
        ways.append(_folder_way(c, scope, cap))
    if types is not None:
        labels = json.dumps(sorted({label for label, _, _ in types.kinds}))
        readers = [ids("files_of_labels", labels), *(ids("files_of_ext", ext) for ext in sorted(types.exts))]
        n = types.known + sum(count("count_ext", ext) for ext in types.exts)
        ways.append((n, lambda: list(dict.fromkeys(id_ for read in readers for id_ in read()))))
    if f.modified_after_ms is not None or f.modified_before_ms is not None:
        low = -_LATEST if f.modified_after_ms is None else _ns(f.modified_after_ms)
        high = _LATEST if f.modified_before_ms is None else _ns(f.modified_before_ms) - 1
        ways.append((count("count_time", low, high), ids("files_of_time", low, high)))
    if f.min_size_bytes is not None or f.max_size_bytes is not None:
        small, large = f.min_size_bytes or 0, _LATEST if f.max_size_bytes is None else f.max_size_bytes
        ways.append((count("count_size", small, large), ids("files_of_size", small, large)))
    return ways


def _ns(ms: int) -> int:
    """Nanoseconds, as far as SQLite's integers go: a time of the next geological age is after everything."""
    return max(-_LATEST, min(_LATEST, ms * _NS))


def _folder_way(c: sqlite3.Connection, scope: Scope, cap: int) -> tuple[int, _Read]:
    if any(known.count_files(c, root, b"") > _LOOKED_AT for root in scope.roots):
        return cap, list
    tops = [*scope.dirs]
    tops += [top for root in scope.roots if (top := paths.find_dir(c, root, b"")) is not None]
    below = list(dict.fromkeys(id_ for top in tops for id_ in known.subtree(c, top, limit=cap)))
    if len(below) > _LOOKED_AT:
        return cap, list
    found = [AssetId(id_) for (id_,) in c.execute(SQL["files_in_dirs"], (json.dumps(below), cap))]
    return len(found), lambda: found


def _with_conditions(c: sqlite3.Connection, scope: Scope) -> Scope:
    f, types = scope.filters, scope.types
    tops = [paths.find_dir(c, root, b"") for root in scope.roots]
    dirs = tuple(sorted({*scope.dirs, *(top for top in tops if top is not None)}))
    if (f.folders and not dirs) or (types is not None and not types.labels):
        conditions = None
    else:
        conditions = PointFilter(
            any_dir=tuple(map(int, dirs)),
            type_labels=tuple(sorted(types.labels)) if types is not None else (),
            min_size=f.min_size_bytes,
            max_size=f.max_size_bytes,
        )
    is_loose = f.modified_after_ms is not None or f.modified_before_ms is not None or types is not None
    return Scope(filters=f, roots=scope.roots, dirs=scope.dirs, types=types, point_filter=conditions, is_loose=is_loose)
