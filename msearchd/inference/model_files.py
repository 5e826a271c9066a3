"""JSON files of a model's folder, written by whoever made the model.

In: a path. Out: a map, or a list of maps (modules.json). Never anything else: callers look into it without asking.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from msearchd import errors

_LISTS: Final = frozenset({"modules.json"})


def read_json(path: Path) -> Any:
    """The file's value; an empty map where there is no such file. Raises Misconfigured where it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        message = f"{path} cannot be read: {error}"
        raise errors.Misconfigured(message, key=f"source:{path.parent}", hint="fetch the model again") from error
    if not _is_as_expected(found, is_list=path.name in _LISTS):
        message = f"{path} does not hold what a model's file of this name does"
        raise errors.Misconfigured(message, key=f"source:{path.parent}", hint="fetch the model again")
    return found


def _is_as_expected(found: object, *, is_list: bool) -> bool:
    if not is_list:
        return isinstance(found, dict)
    return isinstance(found, list) and all(isinstance(one, dict) for one in found)
