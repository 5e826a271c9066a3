"""What search asks the catalog: see `CatalogSearch`."""

from __future__ import annotations

from msearchd.aio.sqlite import Database


class CatalogSearch:
    """Reads for search, beside the writer."""

    def __init__(self, database: Database) -> None:
        self._database = database
