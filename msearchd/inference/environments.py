"""Interpreters of engines that need an environment of their own: find one, make one.

infinity-emb pins numpy<2 and works untouched with transformers 4 alone, so it lives beside our environment, not in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from msearchd import errors

INSTALL_LINE: Final = "type: msearchd engines install infinity (in a source checkout: make infinity)"
INFINITY_CONSTRAINTS: Final = Path(__file__).with_name("constraints-infinity.txt")
_INFINITY_PACKAGES: Final = ("infinity-emb[torch]", "aiohttp", "requests", "pillow", "msgpack")
_LONGEST_INSTALL_S: Final = 3600.0


def engine_folder(data_dir: Path, engine: str = "infinity") -> Path:
    """Where `msearchd engines install` puts an engine's environment."""
    return data_dir / "engines" / engine


def find_infinity_python(data_dir: Path | None = None) -> str:
    """An interpreter with infinity_emb: $MSEARCHD_INFINITY_PYTHON, the installed one, the checkout's, ours; or ''."""
    if named := os.environ.get("MSEARCHD_INFINITY_PYTHON"):
        return named  # named by a person: if it is wrong, they should hear so from the start that fails
    places = [engine_folder(data_dir)] if data_dir else []
    places.append(Path(__file__).resolve().parents[2] / ".venv-infinity")
    candidates = [str(place / "bin" / "python") for place in places] + [sys.executable]
    return next((python for python in candidates if has_package(python, "infinity_emb")), "")


def has_package(python: str, package: str) -> bool:
    """True where *python*'s environment holds *package*; looks at folders, starts nothing, imports nothing."""
    return any((folder / package / "__init__.py").is_file() for folder in _site_packages(python))


def _site_packages(python: str) -> Iterator[Path]:
    # Not resolved: an environment's bin/python is a link out of it.
    yield from Path(python).parent.parent.glob("lib/python3*/site-packages")


def install_infinity(folder: Path, *, say: Callable[[str], None], base_python: str = sys.executable) -> Path:
    """Make *folder* an environment with infinity-emb at pinned versions; return its interpreter. Safe to run again.

    Takes minutes and about 1.5 GB (more with a CUDA build of torch). Tells each step through *say*.
    Raises Misconfigured with pip's last words where a step fails; a half-made folder is completed by the next run.
    """
    python = folder / "bin" / "python"
    if not python.exists():
        say(f"making an environment in {folder}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        _run([base_python, "-m", "venv", str(folder)])
    pins = ("-c", str(INFINITY_CONSTRAINTS))
    say("installing torch (the largest part)")
    # Before the rest: infinity-emb must accept this build instead of choosing another one.
    _run(_pip(python, *pins, "torch"))
    say("installing infinity-emb and what it needs (numpy<2, transformers 4.57)")
    _run(_pip(python, *pins, *_INFINITY_PACKAGES))
    say("trying to import it")
    _run([str(python), "-c", "import infinity_emb"], env={"INFINITY_HOME": str(folder / "cache"), "DO_NOT_TRACK": "1"})
    say(f'done: models with engine = "infinity" or "auto" use {python}')
    return python


def _pip(python: Path, *arguments: str) -> list[str]:
    return [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q", *arguments]


def _run(command: list[str], *, env: dict[str, str] | None = None) -> None:
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=_LONGEST_INSTALL_S,
            env={**os.environ, **(env or {})},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"{command[0]} failed: {error}"
        raise errors.Misconfigured(message, key="engine:infinity", hint="see the message; then run it again") from error
    if done.returncode != 0:
        words = "\n".join(done.stderr.strip().splitlines()[-5:])
        message = f"{' '.join(command[:6])} ended with status {done.returncode}: {words}"
        raise errors.Misconfigured(message, key="engine:infinity", hint="see the message; then run it again")
