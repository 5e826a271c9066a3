"""The engines behind the vector store, one row each. Imported by the store process alone."""

from __future__ import annotations

from typing import Final

#: Backend name -> module with `open_backend(start) -> Backend`.
BACKENDS: Final = {
    "edge": "msearchd.store.backends.edge",
    "memory": "msearchd.store.backends.memory",
    "server": "msearchd.store.backends.server",
}
