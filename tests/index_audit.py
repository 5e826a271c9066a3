"""Compares catalog and vector store of a data folder that no daemon serves: content by content, repairing nothing.

In: a stopped data folder. Out: an Audit per space. It looks at the files themselves, so that no promise is checked with
the code that makes it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from msearchd.aio.child import Limits
from msearchd.aio.sqlite import Database
from msearchd.settings.model import StoreSettings
from msearchd.store.catalog import Catalog
from msearchd.store.client import StoreProcess


@dataclass(frozen=True, slots=True)
class Audit:
    """`missing`: live contents without exactly their points. `orphans`: points of contents that are not live."""

    space: str
    expected_points: int
    count: int
    missing: int
    orphans: int

    @property
    def is_clean(self) -> bool:
        return self.missing == 0 and self.orphans == 0 and self.expected_points == self.count


def audit(data_dir: Path) -> list[Audit]:
    """One Audit for each space that the catalog or the store knows."""
    return asyncio.run(_audit(data_dir))


async def _audit(data_dir: Path) -> list[Audit]:
    database = await Database.open(data_dir / "msearchd.db")
    store = StoreProcess(StoreSettings(min_free_mb=0), data_dir, Limits(nice=0))
    try:
        catalog = Catalog(database)
        await catalog.open()
        spaces = {space.name: space for space in await catalog.spaces()}
        unknown = [name for name in await store.spaces() if name not in spaces]
        assert unknown == [], f"spaces that the catalog does not know: {unknown}"
        return [await _audit_space(catalog, store, space) for space in spaces.values()]
    finally:
        await store.close()
        await database.close()


async def _audit_space(catalog, store, space) -> Audit:
    await store.ensure(space)
    expected: Counter = Counter()
    async for group in catalog.expected_contents(space.name):
        expected.update(group)
    found: Counter = Counter()
    async for group in store.contents(space.name):
        found.update(group)
    return Audit(
        space.name,
        await catalog.expected_points(space.name),
        await store.count(space.name),
        missing=sum(found[content] != count for content, count in expected.items()),
        orphans=sum(content not in expected for content in found),
    )
