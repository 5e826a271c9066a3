"""Jupyter notebooks: the text of cells and of printed outputs; pictures in them are left out.

Source of the format: https://nbformat.readthedocs.io/en/latest/format_description.html (versions 3 and 4).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from msearchd import errors
from msearchd.media.extractor import Reading, ReadRules
from msearchd.media.registry import FileType, Structure
from msearchd.media.source import Source
from msearchd.media.text import clean, decode

_MAX_BYTES: Final = 128 * 1024**2


def read(source: Source, kind: FileType, rules: ReadRules) -> Reading:  # noqa: ARG001 - one signature for all readers
    """Read a notebook. Raises BadAsset where it is no JSON object; anything that is no cell is passed over."""
    if source.size > _MAX_BYTES:
        return Reading(note=f"notebook larger than {_MAX_BYTES // 1024**2} MB: found by name only")
    try:
        notebook = json.loads(decode(source.read(_MAX_BYTES)).text)
    except (ValueError, RecursionError) as error:
        message = f"it is no notebook: {type(error).__name__} in its JSON"
        raise errors.BadAsset(message) from error
    if not isinstance(notebook, dict):
        raise errors.BadAsset("it is no notebook: its JSON is not an object")
    cells = list(_cells(notebook))
    text = "\n\n".join(part for cell in cells for part in _texts(cell) if part.strip())
    facts = notebook.get("metadata")
    kernel = facts.get("kernelspec") if isinstance(facts, dict) else None
    metadata = {"cells": len(cells), "kernel": kernel.get("name") if isinstance(kernel, dict) else None}
    return Reading(clean(text), Structure.MARKDOWN, metadata=metadata)


def _cells(notebook: dict[str, Any]) -> Iterator[dict[str, Any]]:
    sheets = notebook.get("worksheets")
    for holder in [notebook, *(sheets if isinstance(sheets, list) else [])]:
        cells = holder.get("cells") if isinstance(holder, dict) else None
        yield from (cell for cell in (cells if isinstance(cells, list) else []) if isinstance(cell, dict))


def _texts(cell: dict[str, Any]) -> Iterator[str]:
    yield _joined(cell.get("source", cell.get("input")))
    outputs = cell.get("outputs")
    for output in outputs if isinstance(outputs, list) else []:
        if not isinstance(output, dict):
            continue
        yield _joined(output.get("text"))
        data = output.get("data")
        if isinstance(data, dict):
            yield _joined(data.get("text/markdown", data.get("text/plain")))


def _joined(value: Any) -> str:
    if isinstance(value, list):
        return "".join(item for item in value if isinstance(item, str))
    return value if isinstance(value, str) else ""
