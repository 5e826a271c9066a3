"""What this machine can do for us, found without importing anything heavy: versions, limits, packages, places.

In: settings. Out: checks with a sentence each. Looks only; `msearchd doctor` prints them, status may quote them.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from msearchd.errors import Misconfigured
from msearchd.settings.model import EmbeddingModel, Settings

#: FTS5 with the trigram tokenizer came with it.
OLDEST_SQLITE = (3, 34, 0)
#: One watch a folder; a home folder has ten to a hundred thousand.
_WANTED_WATCHES = 524_288
_WANTED_INSTANCES = 128
TORCHVISION_ADVICE = "type: pip uninstall torchvision, or install torch and torchvision from the same channel"
_SYSCTL = "sudo sysctl fs.inotify.max_user_watches=1048576 fs.inotify.max_user_instances=1024"

#: Extra of pyproject.toml -> what its child process imports, and what is missing without it.
CHILDREN = {
    "store": (("numpy", "qdrant_edge"), "vectors are kept by the embedded Qdrant Edge"),
    "documents": (
        ("kreuzberg", "magika", "rapidocr", "onnxruntime", "PIL"),
        "files are read and pictures' text with them",
    ),
    "models": (("torch", "transformers", "sentence_transformers"), "text is embedded by sentence-transformers"),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. Not ok and `is_needed`: the daemon cannot run; else a part of it rests. `advice`: what to type."""

    name: str
    is_ok: bool
    found: str
    advice: str = ""
    is_needed: bool = False


def checks(settings: Settings) -> Iterator[Check]:
    """All findings, the needed ones first."""
    yield _python()
    yield _sqlite()
    yield _data_dir(settings.data_dir)
    yield _space(settings.data_dir, settings.store.min_free_mb)
    if sys.platform == "linux":
        yield from _inotify(Path("/proc/sys/fs/inotify"))
    yield from _children(settings)
    for model in settings.inference.models:
        if model.name == settings.inference.text_model:
            yield _weights(model, may_download=settings.inference.allow_download)
    yield from _torchvision()


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check(
        "python", sys.version_info >= (3, 11), f"{version} ({sys.executable})", "install Python 3.11", is_needed=True
    )


def _sqlite() -> Check:
    found = sqlite3.sqlite_version
    advice = "install a newer SQLite, or a Python that brings one"
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        return Check("sqlite", False, f"{found} is too old", advice, is_needed=True)
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("CREATE VIRTUAL TABLE words USING fts5(text, tokenize='porter unicode61')")
        connection.execute("CREATE VIRTUAL TABLE names USING fts5(name, tokenize='trigram')")
    except sqlite3.OperationalError as error:
        return Check("sqlite", False, f"{found} without full-text search: {error}", advice, is_needed=True)
    finally:
        connection.close()
    return Check("sqlite", True, f"{found} with FTS5 and trigrams", is_needed=True)


def _data_dir(data_dir: Path) -> Check:
    place = data_dir
    while not place.exists() and place != place.parent:
        place = place.parent
    is_usable = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    found = f"{data_dir} is writable" if is_usable else f"{place} is not writable by this user"
    return Check("data_dir", is_usable, found, "choose another data_dir or correct its permissions", is_needed=True)


def _space(data_dir: Path, min_free_mb: int) -> Check:
    place = next((one for one in (data_dir, *data_dir.parents) if one.exists()), Path("/"))
    free_mb = shutil.disk_usage(place).free // 1_000_000
    return Check(
        "disk", free_mb >= min_free_mb, f"{free_mb} MB free", f"indexing pauses below {min_free_mb} MB: free some"
    )


def _inotify(folder: Path) -> Iterator[Check]:
    for key, wanted in (("max_user_watches", _WANTED_WATCHES), ("max_user_instances", _WANTED_INSTANCES)):
        try:
            limit = int((folder / key).read_text())
        except (OSError, ValueError):
            yield Check(f"inotify {key}", False, "cannot be read", "folders are polled instead")
            continue
        yield Check(f"inotify {key}", limit >= wanted, str(limit), f"folders beyond it are polled; {_SYSCTL}")


def _children(settings: Settings) -> Iterator[Check]:
    for extra, (modules, _purpose) in CHILDREN.items():
        if extra == "store" and (settings.store.backend == "server" or settings.store.url):
            modules = ("qdrant_client",)  # noqa: PLW2901 - another engine of the same child
        missing = [module for module in modules if not is_there(module)]
        found = "installed" if not missing else f"missing: {', '.join(missing)}"
        yield Check(f"{extra} child", not missing, found, f"{sys.executable} -m pip install 'msearchd[{extra}]'")


def is_there(module: str) -> bool:
    """True where *module* could be imported; it is not."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _weights(model: EmbeddingModel, *, may_download: bool) -> Check:
    name = f"model {model.name}"
    if model.urls and model.engine in {"auto", "openai"}:
        return Check(name, True, f"runs elsewhere: {', '.join(model.urls)}")
    source = Path(model.source).expanduser()
    if source.is_absolute() or source.exists():
        return Check(name, source.is_dir(), f"folder {source}", "correct the source of the model in the settings")
    cache = Path(
        os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser() / "hub"
    )
    cached = cache / ("models--" + model.source.replace("/", "--"))
    if cached.is_dir():
        return Check(name, True, f"in the hub cache: {cached}")
    package = "gt_" + model.source.rpartition("/")[2].lower().replace("-", "_")
    if is_there(package):
        return Check(name, True, f"in the installed package {package}")
    if may_download:
        return Check(name, True, "will be fetched from the hub")
    advice = "set allow_download = true under [inference], or name a local folder as its source"
    return Check(name, False, "no weights on this machine", advice)


def _torchvision() -> Iterator[Check]:
    """A torchvision made for another torch breaks every import of transformers."""
    place = importlib.util.find_spec("torchvision") if is_there("torchvision") else None
    if place is not None and place.origin:
        trouble = torchvision_trouble(Path(place.origin).parents[1])
        yield Check("torchvision", not trouble, trouble or "made for the torch beside it", TORCHVISION_ADVICE)


def torchvision_trouble(site_packages: Path) -> str:
    """Why the torchvision in *site_packages* cannot work with the torch there; '' where it can, or there is none.

    Told from their metadata, nothing is imported: installed but broken, it is worse than absent.
    """
    vision, torch = (_built(site_packages / name / "version.py") for name in ("torchvision", "torch"))
    if not vision or not torch:
        return ""
    found = importlib.metadata.distributions(name="torchvision", path=[str(site_packages)])
    lines = [line for one in found for line in one.requires or () if line.startswith("torch")]
    wanted = lines[0].partition("==")[2].strip(" ()") if lines else ""
    if wanted and wanted != torch[0]:
        return f"torchvision {vision[0]} is made for torch {wanted}, and torch is {torch[0]}: all of transformers fails"
    if vision[1] and torch[1] and vision[1] != torch[1]:
        return f"torchvision is a build for {vision[1]}, and torch one for {torch[1]}: all of transformers fails"
    return ""


def _built(version_file: Path) -> tuple[str, str] | None:
    """Version and build ("2.13.0", "cpu") from version.py of torch or torchvision; None where there is none."""
    try:
        match = re.search(r"""^__version__ = ['"]([^'"+]+)\+?([^'"]*)""", version_file.read_text("utf-8"), re.MULTILINE)
    except OSError:
        return None
    return (match[1], match[2]) if match else None


def require(settings: Settings) -> None:
    """Raise Misconfigured if something is missing without which the daemon cannot run."""
    for check in checks(settings):
        if check.is_needed and not check.is_ok:
            message = f"{check.name}: {check.found}"
            raise Misconfigured(message, key=check.name, hint=check.advice)
