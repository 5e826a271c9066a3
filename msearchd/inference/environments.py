"""Interpreters of the engines: find one that has it, make one where it needs an environment of its own.

infinity-emb pins numpy<2 and works untouched with transformers 4 alone; colpali-engine needs a torchvision, and one that
does not match torch breaks transformers for everybody; vLLM pins a torch of its own. So they live beside our
environment, not in it. The other engines are extras of our own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msearchd import errors, preflight
from msearchd.inference import devices, roster

INSTALL_LINE: Final = roster.ENGINES["infinity"].install_line
INFINITY_CONSTRAINTS: Final = Path(__file__).with_name("constraints-infinity.txt")
COLPALI_CONSTRAINTS: Final = Path(__file__).with_name("constraints-colpali.txt")
_LONGEST_INSTALL_S: Final = 3600.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How an engine's environment is made: torch first, so that what follows accepts that build; then the packages."""

    first: tuple[str, ...]
    packages: tuple[str, ...]
    constraints: Path | None
    imports: str  # what is tried at the end
    says: str  # what the packages bring
    alone: tuple[str, ...] = ()  # installed without what they declare


RECIPES: Final[Mapping[str, Recipe]] = {
    "infinity": Recipe(
        first=("torch",),
        packages=("infinity-emb[torch]", "aiohttp", "requests", "pillow", "peft", "msgpack"),
        constraints=INFINITY_CONSTRAINTS,
        imports="infinity_emb",
        says="infinity-emb and what it needs (numpy<2, transformers 4.57)",
        # For ColPali. It declares torch<2.9 and a torchvision; ColPali needs neither, and a torchvision that is built for
        # another torch breaks all of transformers (and a matching one is gigabytes).
        alone=("colpali-engine",),
    ),
    "colpali": Recipe(
        first=("torch", "torchvision"),
        packages=("colpali-engine", "transformers", "pillow", "msgpack"),
        constraints=COLPALI_CONSTRAINTS,
        imports="colpali_engine.models",
        says="colpali-engine and what it needs (transformers<5.21)",
    ),
    "vllm": Recipe(
        first=(), packages=("vllm==0.33.0", "msgpack"), constraints=None, imports="vllm", says="vLLM (about 10 GB)"
    ),
}
#: Extras of pyproject.toml that an engine is; a test compares.
EXTRAS: Final[Mapping[str, tuple[str, ...]]] = {
    "whisper": ("faster-whisper>=1.2.1,<2", "numpy>=1.26"),
    "onnx": ("numpy>=1.26", "onnxruntime>=1.20", "tokenizers>=0.20"),
}


# -- finding -----------------------------------------------------------------------------------------------------------


def engine_folder(data_dir: Path, engine: str = "infinity") -> Path:
    """Where `msearchd engines install` puts an engine's environment."""
    return data_dir / "engines" / engine


def find_python(engine: str, data_dir: Path | None = None) -> str:
    """An interpreter that has *engine*; or '' where none has.

    $MSEARCHD_<ENGINE>_PYTHON, the installed environment, the checkout's, ours.
    """
    row = roster.ENGINES[engine]
    if not row.package:
        return sys.executable
    if named := os.environ.get(f"MSEARCHD_{engine.upper()}_PYTHON"):
        return named  # named by a person: if it is wrong, they should hear so from the start that fails
    if row.has_own_environment:
        places = [engine_folder(data_dir, engine)] if data_dir else []
        places.append(Path(__file__).resolve().parents[2] / f".venv-{engine}")
        for place in places:
            if has_package(python := str(place / "bin" / "python"), row.package):
                return python
    return sys.executable if preflight.is_there(row.package) else ""


def find_infinity_python(data_dir: Path | None = None) -> str:
    """An interpreter with infinity_emb, as find_python."""
    return find_python("infinity", data_dir)


def has_package(python: str, package: str) -> bool:
    """True where *python*'s environment holds *package*; looks at folders, starts nothing, imports nothing."""
    return any((folder / package / "__init__.py").is_file() for folder in site_packages(python))


def site_packages(python: str) -> Iterator[Path]:
    """Folders of installed packages of the environment that *python* lies in."""
    # Not resolved: an environment's bin/python is a link out of it.
    yield from Path(python).parent.parent.glob("lib/python3*/site-packages")


# -- making ------------------------------------------------------------------------------------------------------------


def install(engine: str, folder: Path, *, say: Say, base_python: str = sys.executable) -> Path:
    """Install *engine*: an environment in *folder* where it needs its own, else packages into ours. Safe to run again.

    Takes minutes and gigabytes where torch is a part of it. Tells each step through *say*; returns the interpreter.
    Raises Misconfigured with pip's last words where a step fails; a half-made folder is completed by the next run.
    """
    if engine in EXTRAS:
        say(f"installing {' and '.join(EXTRAS[engine])} into {sys.prefix}")
        _run(_pip(Path(base_python), *EXTRAS[engine]), engine=engine)
        _try_import(Path(base_python), roster.ENGINES[engine].package, engine=engine, say=say)
        say(f'done: models with engine = "{engine}" or "auto" use {base_python}')
        return Path(base_python)
    if engine not in RECIPES:
        message = f"engine {engine!r} is a part of msearchd's own environment"
        raise errors.Misconfigured(message, key=f"engine:{engine}", hint=roster.ENGINES[engine].install_line)
    if engine == "vllm":
        _require_gpu()
    recipe = RECIPES[engine]
    python = folder / "bin" / "python"
    if not python.exists():
        say(f"making an environment in {folder}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        _run([base_python, "-m", "venv", str(folder)], engine=engine)
    pins = ("-c", str(recipe.constraints)) if recipe.constraints else ()
    if recipe.first:
        say(f"installing {' and '.join(recipe.first)} (the largest part)")
        _run(_pip(python, *pins, *recipe.first), engine=engine)
    say(f"installing {recipe.says}")
    _run(_pip(python, *pins, *recipe.packages), engine=engine)
    if recipe.alone:
        _run(_pip(python, *pins, "--no-deps", *recipe.alone), engine=engine)
    _try_import(python, recipe.imports, engine=engine, say=say, cache=folder / "cache")
    automatic = '"' if engine == "vllm" else '" or "auto"'
    say(f'done: models with engine = "{engine}{automatic} use {python}')
    return python


def install_infinity(folder: Path, *, say: Say, base_python: str = sys.executable) -> Path:
    """Make *folder* an environment with infinity-emb at pinned versions, as install."""
    return install("infinity", folder, say=say, base_python=base_python)


def why_not(python: str, engine: str, *, timeout_s: float = 120.0) -> str:
    """Why *python* cannot import *engine* really, by trying in a child (seconds); '' where it can."""
    imports = RECIPES[engine].imports if engine in RECIPES else roster.ENGINES[engine].package
    try:
        _run([python, "-c", f"import {imports}"], engine=engine, timeout_s=timeout_s, env={"DO_NOT_TRACK": "1"})
    except errors.Misconfigured as error:
        return str(error.__cause__ or error).strip().splitlines()[-1]
    return ""


def _require_gpu() -> None:
    if devices.accelerators():
        return
    message = "vLLM needs an NVIDIA GPU (its kernels are CUDA 13), and this machine shows none"
    hint = (
        'run a vLLM server where there is one and name it: engine = "openai", urls = ["http://host:8000"]; '
        'here engine = "auto" serves the same models'
    )
    raise errors.Misconfigured(message, key="engine:vllm", hint=hint)


def _try_import(python: Path, imports: str, *, engine: str, say: Say, cache: Path | None = None) -> None:
    say("trying to import it")
    env = {"DO_NOT_TRACK": "1"} | ({"INFINITY_HOME": str(cache)} if cache else {})
    try:
        _run([str(python), "-c", f"import {imports}"], engine=engine, env=env)
    except errors.Misconfigured as error:
        trouble = next(filter(None, map(preflight.torchvision_trouble, site_packages(str(python)))), "")
        if not trouble:
            raise
        raise errors.Misconfigured(trouble, key=f"engine:{engine}", hint=preflight.TORCHVISION_ADVICE) from error


def _pip(python: Path, *arguments: str) -> list[str]:
    return [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q", *arguments]


def _run(
    command: list[str], *, engine: str, env: Mapping[str, str] | None = None, timeout_s: float = _LONGEST_INSTALL_S
) -> None:
    key, hint = f"engine:{engine}", "see the message; then run it again"
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
            env={**os.environ, **(env or {})},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"{command[0]} failed: {error}"
        raise errors.Misconfigured(message, key=key, hint=hint) from error
    if done.returncode != 0:
        words = "\n".join(done.stderr.strip().splitlines()[-5:])
        message = f"{' '.join(command[:6])} ended with status {done.returncode}: {words}"
        raise errors.Misconfigured(message, key=key, hint=hint)
