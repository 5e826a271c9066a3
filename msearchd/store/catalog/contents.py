"""Contents: what files hold, what was read from them, and in which spaces they are live.

In: what identify, extract, ocr and embed found. Out: rows. Every function runs inside the caller's transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from msearchd import errors
from msearchd.domain.asset import AssetId, ContentId, content_uuid
from msearchd.domain.media import KINDS_OF, Extraction, Identified, Segment, SegmentKind
from msearchd.domain.space import ModelKey, Space, SpaceName
from msearchd.store.catalog import paths, segments
from msearchd.store.catalog.rows import ContentRow, content_row, signed_64
from msearchd.store.catalog.segments import SQL

#: What `extract` is answerable for; the rest belongs to the step that reads it.
_EXTRACT_KINDS: Final = (
    SegmentKind.BODY,
    SegmentKind.METADATA,
    SegmentKind.IMAGE,
    SegmentKind.AUDIO,
    SegmentKind.PAGE,
)


def identified(c: sqlite3.Connection, asset: AssetId, found: Identified, *, now_ms: int) -> ContentRow:
    """The file holds these bytes. Raises NotFound where there is no such file any more.

    The content that it held before is an orphan if nobody else has it.
    """
    stat = found.fingerprint
    values = (
        found.content_hash,
        content_uuid(found.content_hash).bytes,
        stat.size,
        found.mime,
        found.type_label,
        found.modality.value,
        now_ms,
    )
    content_id = ContentId(c.execute(SQL["put_content"], values).fetchone()[0])
    linked = c.execute(
        SQL["link_asset"], (asset, content_id, stat.size, stat.mtime_ns, stat.ctime_ns, signed_64(stat.inode))
    )
    if linked.fetchone() is None:
        message = f"asset {asset} is not known any more"
        raise errors.NotFound(message)
    c.execute(paths.SQL["label_seen"], (asset,))
    return content(c, content_id)


def content(c: sqlite3.Connection, content_id: ContentId) -> ContentRow:
    """All of a content. Raises NotFound."""
    found = find(c, content_id)
    if found is None:
        message = f"content {content_id} is not known any more"
        raise errors.NotFound(message)
    return found


def find(c: sqlite3.Connection, content_id: ContentId) -> ContentRow | None:
    """All of a content; None if it is not known."""
    row = c.execute(SQL["content_by_id"], (content_id,)).fetchone()
    if row is None:
        return None
    return content_row(row, c.execute(SQL["spaces_of_content"], (content_id,)).fetchall())


def of_asset(c: sqlite3.Connection, asset: AssetId) -> ContentRow | None:
    """What a file holds; None before it is identified."""
    row = c.execute(SQL["content_of_asset"], (asset,)).fetchone()
    return None if row is None or row[0] is None else find(c, ContentId(row[0]))


def extracted(
    c: sqlite3.Connection, content_id: ContentId, extraction: Extraction, *, part: SegmentKind | None, now_ms: int
) -> None:
    """What was read from a content replaces what was read before.

    *part* None: by `extract`, which answers for all but what other steps read; else by the step that reads *part*.
    Where segments changed, the spaces that hold the content are out of date: `live_spaces` leaves them out.
    Raises NotFound where the content was swept meanwhile.
    """
    row = c.execute(SQL["note_of_content"], (content_id,)).fetchone()
    if row is None:
        message = f"content {content_id} is not known any more"
        raise errors.NotFound(message)
    metadata = json.dumps(_storable(extraction.metadata), ensure_ascii=False)
    if part is None:
        pages = json.dumps(extraction.ocr_pages)
        c.execute(SQL["extracted"], (content_id, now_ms, metadata, extraction.note, extraction.wants_ocr, pages))
        kinds: tuple[SegmentKind, ...] = _EXTRACT_KINDS
    else:
        note = "; ".join(dict.fromkeys(part for part in (row[0], extraction.note) if part))
        c.execute(SQL["read_pixels"], (content_id, now_ms, metadata, note))
        kinds = (part,)
    _replace(c, content_id, extraction.segments, kinds)


def _replace(
    c: sqlite3.Connection, content_id: ContentId, found: Sequence[Segment], kinds: Sequence[SegmentKind]
) -> None:
    """*found* are all the segments of *kinds*. A picture stays embedded where its text alone changed."""
    changed = segments.replace_segments(c, content_id, found, kinds)
    for modality, own in KINDS_OF.items():
        if changed & own:
            c.execute(SQL["outdate_spaces"], (content_id, modality))


def heard(
    c: sqlite3.Connection,
    content_id: ContentId,
    transcript: Sequence[Segment],
    *,
    until_ms: int,
    is_complete: bool,
    now_ms: int,
) -> None:
    """*transcript* is all speech of a content up to *until_ms*. Raises NotFound where it was swept meanwhile."""
    if c.execute(SQL["heard"], (content_id, until_ms, now_ms if is_complete else None)).fetchone() is None:
        message = f"content {content_id} is not known any more"
        raise errors.NotFound(message)
    _replace(c, content_id, transcript, (SegmentKind.TRANSCRIPT,))


def _storable(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata as UTF-8 can hold it (tags may carry lone surrogates), without nulls (json_patch would remove those)."""
    plain: dict[str, Any] = json.loads(json.dumps(metadata, default=str).replace("\\u0000", " "))
    return {
        _clean(key): _clean(value) if isinstance(value, str) else value
        for key, value in plain.items()
        if value is not None
    }


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def unlink(c: sqlite3.Connection, asset: AssetId) -> None:
    """The file's bytes are left alone from now on: it is found by name only."""
    c.execute(paths.SQL["unlink_content"], (asset,))


def dirs_of(c: sqlite3.Connection, content_id: ContentId) -> tuple[int, ...]:
    """Ids of every folder that holds a visible file with this content, ancestors included, ascending."""
    direct = [row[0] for row in c.execute(SQL["dirs_of_visible"], (content_id,))]
    return tuple(sorted({id_ for way in paths.paths_of(c, direct).values() for id_ in way.ancestors}))


# -- spaces ----------------------------------------------------------------------------------------------------------


def put_space(c: sqlite3.Connection, space: Space, *, modality: str, now_ms: int) -> None:
    """Remember a vector space; twice is once. Raises Bug where the name stands for another space."""
    kind = (space.distance, space.multi, space.sparse)
    c.execute(SQL["put_space"], (space.name, space.model, space.fingerprint, space.dim, *kind, modality, now_ms))
    if (known := space_by_name(c, space.name)) != space:
        message = f"the space {space.name} is {known}, not {space}"
        raise errors.Bug(message)


def spaces(c: sqlite3.Connection) -> list[Space]:
    """All spaces, oldest first."""
    return [_space(*row) for row in c.execute(SQL["spaces"])]


def space_by_name(c: sqlite3.Connection, name: SpaceName) -> Space | None:
    """One space; None if it is not known."""
    row = c.execute(SQL["space_by_name"], (name,)).fetchone()
    return None if row is None else _space(*row)


def active_space(c: sqlite3.Connection, modality: str) -> Space | None:
    """The space that answers questions of a modality."""
    row = c.execute(SQL["active_space"], (modality,)).fetchone()
    return None if row is None else _space(*row)


def set_active_space(c: sqlite3.Connection, name: SpaceName, modality: str) -> None:
    """From now on this space answers questions of a modality, and no other."""
    c.execute(SQL["deactivate_spaces"], (modality,))
    c.execute(SQL["activate_space"], (name, modality))


def forget_space(c: sqlite3.Connection, name: SpaceName) -> None:
    """Its store is dropped: nothing is live in it, and it is not known any more."""
    for query in ("forget_space_contents", "forget_space_intents", "forget_space"):
        c.execute(SQL[query], (name,))


def _space(name: str, model: str, fingerprint: str, dim: int, distance: str, multi: int, sparse: int) -> Space:
    return Space(SpaceName(name), ModelKey(model), fingerprint, dim, distance, bool(multi), bool(sparse))


# -- order of writes -------------------------------------------------------------------------------------------------


def intend(c: sqlite3.Connection, space: SpaceName, content_id: ContentId, *, now_ms: int) -> None:
    """Points of the content are about to be put. Before the first upsert: a crash then leaves no unknown point."""
    c.execute(SQL["intend"], (space, content_id, now_ms))


def live(c: sqlite3.Connection, space: SpaceName, content_id: ContentId, points: int, *, now_ms: int) -> bool:
    """All *points* of the content are in the space: visible with this commit. False where it was swept meanwhile."""
    return c.execute(SQL["put_live"], (content_id, space, points, now_ms)).fetchone() is not None


def settle_puts(c: sqlite3.Connection, space: SpaceName, contents: list[ContentId]) -> None:
    """The store has flushed what was put: nothing needs to be redone."""
    c.executemany(SQL["settle_put"], [(space, content_id) for content_id in contents])
