"""What jobs may wait for that a person installs while the daemon runs: how to see that it is there now."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from msearchd import preflight
from msearchd.inference import environments, roster
from msearchd.orchestrator.wakening import Looks

#: The packages by the cause that their absence is told as (msearchd/media).
_PACKAGES = {"engine:media": "ffmpeg", "engine:documents": "kreuzberg", "engine:ocr": "rapidocr"}


def looks(data_dir: Path) -> Looks:
    """A look for each cause. Starts nothing, imports nothing; takes a few system calls."""
    return {
        "engine:ffmpeg": lambda: all(shutil.which(name) for name in ("ffmpeg", "ffprobe")),
        **{cause: partial(preflight.is_there, package) for cause, package in _PACKAGES.items()},
        **{
            f"engine:{name}": partial(_has_engine, name, data_dir)
            for name, row in roster.ENGINES.items()
            if row.package
        },
    }


def _has_engine(name: str, data_dir: Path) -> bool:
    return bool(environments.find_python(name, data_dir))
