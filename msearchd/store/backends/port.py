"""What the store process asks of an engine, and what a start tells it.

Methods are coroutines. An engine inside the process (edge, memory) never suspends, so the process drives it without
an event loop; the server's engine does, and gets a loop of its own (`SUSPENDS`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from msearchd import errors
from msearchd.domain.space import Point, Space, SpaceName, Vectors
from msearchd.store.vector_store import ScoredPoint, SpaceHealth, VectorSearch

#: Points of one engine call: 64 take about 7 ms, so that a search never waits long behind a write.
CHUNK_POINTS = 64
#: Items of a multi-vector space in one call (a page is about 1,000 vectors).
CHUNK_PAGES = 2
#: Contents of one delete call.
CHUNK_CONTENTS = 256

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,120}\Z")


def checked_name(name: str) -> SpaceName:
    """*name* as a space's name: it becomes the name of a folder or a collection. Raises BadRequest."""
    if not _NAME.match(name):
        raise errors.BadRequest(
            f"{name!r} cannot name a space", hint="use a-z, 0-9, dot, dash and underscore, at most 121 characters"
        )
    return SpaceName(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStart:
    """What the daemon tells the store process at its start. Plain values only: it crosses the wire."""

    backend: str
    folder: Path  # of the embedded engine's files
    url: str = ""
    api_key_file: str = ""
    grpc_port: int = 0
    shard_number: int = 1
    replication_factor: int = 1
    tenant: str = ""
    min_free_bytes: int = 0
    quantize_above: int = 20_000
    timeout_s: float = 60.0

    def to_wire(self) -> dict[str, Any]:
        """Plain values."""
        return {name: getattr(self, name) for name in self.__slots__} | {"folder": str(self.folder)}

    @classmethod
    def from_wire(cls, fields: Mapping[str, Any]) -> StoreStart:
        """Undo `to_wire`."""
        return cls(**{**fields, "folder": Path(fields["folder"])})


@dataclass(frozen=True, slots=True)
class Opened:
    """What opening a space found: whether it is there, and why its files were set aside if they were damaged."""

    is_there: bool
    damage: str = ""
    is_new: bool = False  # it was just made, and is empty


class Backend(Protocol):
    """An engine. `points` come in chunks of at most CHUNK_POINTS, already matched with their rows."""

    async def open(self, space: SpaceName) -> Opened:
        """Load the space if it exists; damaged files are set aside and named."""
        ...

    async def ensure(self, space: Space) -> Opened:
        """Open it, or create it with its payload indexes. Misconfigured where it exists with another shape."""
        ...

    async def upsert(self, space: SpaceName, points: Sequence[Point], vectors: Vectors) -> None:
        """Store one chunk. NotFound, BadAsset (not finite), BadRequest (wrong shape), RetryLater."""
        ...

    async def set_dirs(self, space: SpaceName, content: UUID, dirs: Sequence[int]) -> None:
        """Replace `dirs` of all points of *content*."""
        ...

    async def delete_contents(self, space: SpaceName, contents: Sequence[UUID]) -> None:
        """Delete the points of *contents*."""
        ...

    async def search(self, searches: Sequence[VectorSearch]) -> list[list[ScoredPoint]]:
        """Answer all; [] for a space that does not exist."""
        ...

    async def count(self, space: SpaceName) -> int:
        """Exact number of points."""
        ...

    async def contents_page(self, space: SpaceName, after: str) -> tuple[dict[UUID, int], str]:
        """Next page of {content: points} after the cursor *after* ("" starts); the next cursor, "" at the end."""
        ...

    async def flush(self) -> None:
        """Sync to the disk."""
        ...

    async def optimize(self) -> None:
        """Quantize and merge what has grown."""
        ...

    async def spaces(self) -> list[SpaceName]:
        """Names of all spaces."""
        ...

    async def drop(self, space: SpaceName) -> None:
        """Delete the space."""
        ...

    async def blame(self, space: SpaceName, reason: str) -> str:
        """Set the files of a space aside if a process ended or hung while it loaded them; where they are now, or ""."""
        ...

    async def health(self) -> dict[SpaceName, SpaceHealth]:
        """Health of every space, from what is known without loading anything."""
        ...

    async def close(self) -> None:
        """Flush and let go."""
        ...
