"""Tiny models that work: trained on drawings and simple sounds in seconds, saved as any checkpoint of the hub is.

In: a name of RECIPES. Out: a folder of a few MB with weights, tokenizer and processor files, made once per state of this
package and kept under .pytest_cache. Seeded; never fetches anything. Imports no torch until a recipe is cooked.

    folder("clip")      CLIP: drawings.py, "red circle" finds red circles
    folder("clap")      CLAP: sounds.py, "high tone" finds high tones
    folder("cross")     a cross-encoder with one label: does the text speak of the query's words?
    folder("sparse")    SPLADE: "island" finds passages about a ferry, its kin
    folder("lookup")    the same, and its questions are looked up without a model (inference-free)
    folder("late")      a late-interaction (ColBERT) model of sentence-transformers: one vector per token
    folder("text")      a bi-encoder of sentence-transformers with prompts
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

_WORLDS: Final = {
    "clip": ("drawings.py",),
    "clap": ("sounds.py",),
    "text": ("cross.py",),
    "late": ("cross.py", "text.py"),
    "sparse": ("cross.py",),
    "lookup": ("cross.py", "sparse.py"),
}
RECIPES: Final = ("clip", "clap", "cross", "late", "sparse", "lookup", "text")
_HERE: Final = Path(__file__).parent
_CACHE: Final = _HERE.parent.parent / ".pytest_cache" / "tiny_models"


def folder(name: str) -> Path:
    """The complete folder of model *name*; made (in a process of its own, seconds to a minute) where it is missing."""
    if name not in RECIPES:
        message = f"there is no tiny model {name!r} (there is: {', '.join(RECIPES)})"
        raise ValueError(message)
    place = _CACHE / f"{name}-{_state(name)}"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with open(_CACHE / f"{name}.lock", "w") as lock:  # two test runs side by side make it once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.is_dir():
            for old in _CACHE.glob(f"{name}-*"):
                shutil.rmtree(old, ignore_errors=True)
            unfinished = place.with_name(f"{name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            _cook(name, unfinished)
            unfinished.rename(place)
    return place


def _cook(name: str, place: Path) -> None:
    environment = os.environ | {
        "PYTHONPATH": str(_HERE.parent),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tiny_models", name, str(place)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    if done.returncode:
        message = f"tiny model {name} was not made:\n{done.stdout[-4000:]}"
        raise RuntimeError(message)


def _state(name: str) -> str:
    """Named by what makes it: its recipe, what all recipes share, and the libraries' versions."""
    parts = [(_HERE / file).read_bytes() for file in (f"{name}.py", "common.py", *_WORLDS.get(name, ()))]
    parts += [version(package).encode() for package in ("transformers", "sentence-transformers", "torch")]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]
