"""The catalog: what we know of roots, folders, files, their contents and segments; the truth that search joins with."""

from msearchd.store.catalog.facade import Catalog
from msearchd.store.catalog.rows import (
    AssetRow,
    ContentRow,
    RankedName,
    RankedSegment,
    ShownFile,
    ShownSegment,
    Totals,
    TreeMove,
)

__all__ = [
    "AssetRow",
    "Catalog",
    "ContentRow",
    "RankedName",
    "RankedSegment",
    "ShownFile",
    "ShownSegment",
    "Totals",
    "TreeMove",
]
