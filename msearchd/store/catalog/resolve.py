"""Joins what the vector store found with what may be shown, and turns ranked places into files with snippets.

In: scored points, ranked contents and files. Out: live segments of visible files; files with their paths.
A point that is not live, whose segment is gone or whose file is hidden never gets through.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from msearchd.domain.asset import AssetId, ContentId, RootState
from msearchd.domain.media import Modality, Segment, SegmentKind
from msearchd.domain.space import SpaceName
from msearchd.store.catalog import paths, snippet
from msearchd.store.catalog.question import Question
from msearchd.store.catalog.rows import ShownFile, ShownSegment, segment_id, segment_of
from msearchd.store.catalog.scope import SQL, FileLine, Scope, admitted_contents, lines
from msearchd.store.catalog.segments import SQL as CONTENT_SQL
from msearchd.store.vector_store import ScoredPoint

#: Other places of the same bytes that a hit names; a file copied ten thousand times is told of by a few.
_MOST_COPIES: Final = 50


def live_segments(
    c: sqlite3.Connection, space: SpaceName, points: Sequence[ScoredPoint], scope: Scope
) -> list[ShownSegment]:
    """The points that may be shown, in their order."""
    by_uuid = dict(_in_list(c, "live_contents", [point.content.bytes for point in points], space))
    visible = {ContentId(id_) for id_ in by_uuid.values()}
    admitted = visible if scope.is_open else admitted_contents(c, visible, scope)
    places: dict[int, ShownSegment] = {}
    for point in points:
        content = by_uuid.get(point.content.bytes)
        if content in admitted:
            id_ = segment_id(content, point.kind, point.seq)
            places.setdefault(id_, ShownSegment(content, point.kind, point.seq, point.score))
    existing = {id_ for (id_,) in _in_list(c, "existing_segments", sorted(places))}
    return [segment for id_, segment in places.items() if id_ in existing]


def _in_list(c: sqlite3.Connection, query: str, values: Sequence[object], *first: object) -> list[tuple[Any, ...]]:
    """Rows of a query with `:list`; as many ? as the next power of two, so that the statement cache knows it."""
    found: list[tuple[Any, ...]] = []
    for at in range(0, len(values), 1024):
        some = list(dict.fromkeys(values[at : at + 1024]))
        width = 1 << (len(some) - 1).bit_length()
        some += [some[-1]] * (width - len(some))
        marks = ",".join(f"?{i + 1 + len(first)}" for i in range(width))
        found += c.execute(SQL[query].replace(":list", marks), (*first, *some)).fetchall()
    return found


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to show: by its content, by itself, or both (then itself, if it may be shown)."""

    content: ContentId | None
    asset: AssetId | None


def show(c: sqlite3.Connection, wanted: Sequence[Wanted], scope: Scope) -> list[ShownFile | None]:
    """The file of each, in order; None where none may be shown any more."""
    of_content: dict[ContentId, list[FileLine]] = {}
    contents = {want.content for want in wanted if want.content is not None}
    for line in lines(c, "files_of_contents", contents, scope):
        if line.content is not None:
            of_content.setdefault(line.content, []).append(line)
    alone = [want.asset for want in wanted if want.content is None and want.asset is not None]
    by_asset = {line.asset: line for line in lines(c, "files_by_id", alone, scope)}
    chosen = [_choose(want, of_content, by_asset) for want in wanted]
    return _files(c, chosen)


def _choose(
    want: Wanted, of_content: dict[ContentId, list[FileLine]], by_asset: dict[AssetId, FileLine]
) -> AssetId | None:
    if want.content is None:
        return want.asset if want.asset in by_asset else None
    assets = [line.asset for line in of_content.get(want.content, [])]
    if want.asset in assets:
        return want.asset
    return min(assets, default=None)  # the one known longest


def _files(c: sqlite3.Connection, chosen: Sequence[AssetId | None]) -> list[ShownFile | None]:
    ids = [id_ for id_ in chosen if id_ is not None]
    rows = _rows(c, ids)
    contents = {row[3] for row in rows.values() if row[3] is not None}
    copies = _copies(c, contents)
    copy_rows = _rows(c, {id_ for ids_ in copies.values() for id_ in ids_})
    where = _Where(c, [*rows.values(), *copy_rows.values()])

    def file_of(id_: AssetId) -> ShownFile | None:
        if id_ not in rows or (placed := where.of(rows[id_])) is None:
            return None
        _, _, _, content, size, mtime_ns, mime, label, modality = rows[id_]
        path, is_online = placed
        others = (
            where.of(copy_rows[other]) for other in copies.get(content, ()) if other != id_ and other in copy_rows
        )
        return ShownFile(
            asset=id_,
            content=content,
            path=path,
            size=size,
            modified_ms=mtime_ns // 1_000_000,
            mime=mime or "",
            type_label=label or "",
            modality=Modality(modality or Modality.OTHER),
            is_online=is_online,
            same_content=tuple(other[0] for other in others if other is not None),
        )

    return [None if id_ is None else file_of(id_) for id_ in chosen]


def _rows(c: sqlite3.Connection, ids: Iterable[AssetId]) -> dict[AssetId, tuple[Any, ...]]:
    asked = json.dumps(list(ids))
    return {AssetId(row[0]): row for row in c.execute(SQL["shown_files"], (asked,))}


def _copies(c: sqlite3.Connection, contents: Iterable[ContentId]) -> dict[ContentId, list[AssetId]]:
    return {
        content: [AssetId(id_) for (id_,) in c.execute(CONTENT_SQL["assets_of_content"], (content, _MOST_COPIES + 1))]
        for content in contents
    }


class _Where:
    """Absolute paths of rows of `shown_files`, and whether they can be opened now."""

    def __init__(self, c: sqlite3.Connection, rows: Iterable[tuple[Any, ...]]) -> None:
        self._dirs = paths.paths_of(c, {row[1] for row in rows})
        self._roots = {root.id: root for root in paths.roots(c)}

    def of(self, row: tuple[Any, ...]) -> tuple[bytes, bool] | None:
        way = self._dirs.get(row[1])
        root = None if way is None else self._roots.get(way.root)
        if way is None or root is None or not way.is_reachable:
            return None
        return paths.absolute(root.path, paths.join(way.relative, row[2])), root.state is RootState.ONLINE


# -- snippets --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """A segment to show."""

    content: ContentId
    kind: SegmentKind
    seq: int


def passages(
    c: sqlite3.Connection, places: Sequence[Place], question: Question
) -> list[tuple[Segment, snippet.Snippet] | None]:
    """The segment of each place and its snippet; None where the segment is gone."""
    found: list[Segment | None] = []
    for place in places:
        id_ = segment_id(place.content, place.kind, place.seq)
        row = c.execute(CONTENT_SQL["segments_between"], (id_, id_)).fetchone()
        found.append(None if row is None else segment_of(*row))
    texts = [segment.text for segment in found if segment is not None]
    pieces = iter(snippet.snippets(texts, question))
    return [None if segment is None else (segment, next(pieces)) for segment in found]
