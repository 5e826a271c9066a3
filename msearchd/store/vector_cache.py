"""Vectors that were computed once, by what they were computed from: known bytes cost no inference a second time.

In: float32 vectors with the key of each sample. Out: the same to 11 bits, or None. After a reset of the index, a damaged
store, a move to another backend, or for a file that comes back, nothing is computed again; of an edited document only the
passages that changed. A file of its own, bounded, the longest not asked for go first. Best effort: whatever is wrong with
it costs inference and nothing else, so no call raises.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from msearchd import errors
from msearchd.aio.sqlite import DamagedDatabase, Database, migrate, named_queries
from msearchd.domain.asset import ContentHash
from msearchd.domain.media import Segment, SegmentKind
from msearchd.domain.space import Space, SparseVectors, Vectors
from msearchd.store.half import entries_from_half, entries_to_half, from_half, to_half

log = structlog.get_logger(__name__)

SQL: Final = named_queries("msearchd.store.cache_sql", "vectors.sql")

_KEY_BYTES: Final = 16
#: A model sees the text of these, and of all others what lies at their place in the bytes.
_OF_TEXT: Final = frozenset({SegmentKind.BODY, SegmentKind.METADATA, SegmentKind.OCR, SegmentKind.TRANSCRIPT})
#: What a row costs beside its vectors: key twice, day twice, numbers, a share of the pages that are not full (measured).
_ROW_BYTES: Final = 100
#: Rows that go in one transaction.
_EVICT_GROUP: Final = 500
_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """How much is known, and how often that was of use since the start."""

    vectors: int
    size_bytes: int
    max_bytes: int
    hits: int = 0
    misses: int = 0


def key_of(content: ContentHash, segment: Segment) -> bytes:
    """What the vectors of *segment* depend on, beside the model: a text's own words; else the bytes and a place in them."""
    if segment.kind in _OF_TEXT:
        return hashlib.blake2b(b"text:" + segment.text.encode("utf-8", "replace"), digest_size=_KEY_BYTES).digest()
    place = (segment.kind.value, segment.seq, segment.page, segment.t0_ms, segment.t1_ms)
    return hashlib.blake2b(b"place:" + bytes(content) + repr(place).encode(), digest_size=_KEY_BYTES).digest()


class VectorCache:
    """The cache file of one data folder. Use from one event loop; `close` ends it."""

    def __init__(
        self, database: Database, *, max_bytes: int, total: tuple[int, int], now_s: Callable[[], float]
    ) -> None:
        self._database = database
        self._max_bytes = max_bytes
        self._vectors, self._bytes = total
        self._now_s = now_s
        self._hits = self._misses = 0
        self._damage = ""

    @classmethod
    async def open(cls, path: Path, *, max_bytes: int, now_s: Callable[[], float] = time.time) -> VectorCache | None:
        """Open or make the file at *path*. None where *max_bytes* is 0 (a file that is there goes), or it cannot be had.

        A damaged one is made anew.
        """
        if max_bytes <= 0:
            _delete(path)
            return None
        for _ in range(2):
            try:
                return await cls._open(path, max_bytes=max_bytes, now_s=now_s)
            except (errors.Misconfigured, DamagedDatabase) as error:
                log.warning("vector cache made anew", reason=error.sentence())
                _delete(path)
            except errors.MsearchError as error:
                log.warning("no vector cache", reason=error.sentence())
                return None
        return None

    @classmethod
    async def _open(cls, path: Path, *, max_bytes: int, now_s: Callable[[], float]) -> VectorCache:
        database = await Database.open(path, readers=1)
        try:
            await migrate(database, component="vector cache", package="msearchd.store.cache_sql")
            total = await database.read(lambda c: c.execute(SQL["total"]).fetchone())
            made = cls(database, max_bytes=max_bytes, total=(int(total[0]), int(total[1])), now_s=now_s)
            await made._bound()
        except BaseException:
            await database.close()
            raise
        return made

    async def close(self) -> None:
        """Close the file; one that was found damaged is deleted."""
        await self._database.close()
        if self._damage:
            _delete(self._database.path)

    def snapshot(self) -> CacheStatus:
        """How much is known."""
        return CacheStatus(self._vectors, self._bytes, self._max_bytes, self._hits, self._misses)

    async def get(self, space: Space, keys: Sequence[bytes]) -> list[bytes | None]:
        """float32[rows, space.dim] of each key as bytes, in their order; None for what is not known.

        Of a sparse space: entries, as SparseVectors has them.
        """
        read = entries_from_half if space.sparse else from_half
        today = self._today()

        def find(c: sqlite3.Connection) -> tuple[list[bytes | None], list[tuple[int, int]]]:
            number = self._space_in(c, space)
            if number is None:
                return [None] * len(keys), []
            rows = [c.execute(SQL["find"], (number, key)).fetchone() for key in keys]
            old = [(row[0], today) for row in rows if row is not None and row[1] < today]
            return [None if row is None else read(row[2]) for row in rows], old

        try:
            found, old = await self._database.read(find)
            if old:
                await self._database.write(lambda c: c.executemany(SQL["touch"], old).rowcount)
        except errors.MsearchError as error:
            self._broke(error)
            return [None] * len(keys)
        hits = sum(one is not None for one in found)
        self._hits += hits
        self._misses += len(found) - hits
        return found

    async def put(self, space: Space, keys: Sequence[bytes], vectors: Vectors) -> None:
        """Remember the vectors of each key: one row each, or `vectors.rows` of them. Twice is once."""
        today = self._today()
        counts = (1,) * vectors.count if vectors.rows is None else vectors.rows
        halved = entries_to_half if isinstance(vectors, SparseVectors) else to_half

        def store(c: sqlite3.Connection) -> tuple[int, int]:
            number = self._space_in(c, space)
            if number is None:
                c.execute(SQL["put_space"], (space.fingerprint, space.dim))
                [number] = c.execute(SQL["space_id"], (space.fingerprint, space.dim)).fetchone()
            added = size = at = 0
            for key, count in zip(keys, counts, strict=True):
                step = count * vectors.row_bytes
                half = halved(vectors.data[at : at + step])
                at += step
                if half is None or c.execute(SQL["put"], (number, key, today, half)).fetchone() is None:
                    continue
                added, size = added + 1, size + len(half) + _ROW_BYTES
            c.execute(SQL["add_total"], (added, size))
            return added, size

        try:
            added, size = await self._database.write(store)
            self._vectors, self._bytes = self._vectors + added, self._bytes + size
            await self._bound()
        except errors.MsearchError as error:
            self._broke(error)

    async def clear(self) -> None:
        """Forget everything."""

        def forget(c: sqlite3.Connection) -> None:
            c.execute(SQL["clear"])
            c.execute(SQL["clear_total"])

        try:
            await self._database.write(forget)
            self._vectors = self._bytes = 0
            while await self._database.shrink(max_pages=5000):
                pass
        except errors.MsearchError as error:
            self._broke(error)

    async def _bound(self) -> None:
        """Let the longest not asked for go while there is too much."""
        while self._bytes > self._max_bytes and self._vectors > 0:
            gone, size = await self._database.write(_evict_in)
            self._vectors, self._bytes = self._vectors - gone, self._bytes - size
            if not gone:
                return
            await self._database.shrink()

    def _space_in(self, c: sqlite3.Connection, space: Space) -> int | None:
        row = c.execute(SQL["space_id"], (space.fingerprint, space.dim)).fetchone()
        return None if row is None else int(row[0])

    def _today(self) -> int:
        return int(self._now_s()) // _DAY_S

    def _broke(self, error: errors.MsearchError) -> None:
        if isinstance(error, DamagedDatabase):
            self._damage = str(error)
        log.warning("vector cache does not answer, vectors are computed", reason=error.sentence())


def _evict_in(c: sqlite3.Connection) -> tuple[int, int]:
    sizes = [int(size) + _ROW_BYTES for (size,) in c.execute(SQL["evict"], (_EVICT_GROUP,)).fetchall()]
    c.execute(SQL["add_total"], (-len(sizes), -sum(sizes)))
    return len(sizes), sum(sizes)


def _delete(path: Path) -> None:
    for end in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            path.with_name(path.name + end).unlink(missing_ok=True)
