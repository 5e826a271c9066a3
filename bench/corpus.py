"""Real-world text files for benchmarks: sources and documents of the interpreter and its packages. Nothing is fetched."""

from __future__ import annotations

import random
import shutil
import sysconfig
from pathlib import Path

_ENDINGS = {".py", ".md", ".rst", ".txt", ".pyi", ".toml", ".json", ".html", ".c", ".h"}


def real_text_files(count: int, *, seed: int = 7, least_bytes: int = 400, most_bytes: int = 16_000) -> list[Path]:
    """*count* different text files of a few KB from this interpreter's library and packages, the same ones every time."""
    folders = sorted({sysconfig.get_paths()[key] for key in ("stdlib", "purelib", "platlib")})
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(Path(folder).rglob("*")):
            if path.suffix in _ENDINGS and path.is_file() and least_bytes <= path.stat().st_size <= most_bytes:
                found.setdefault(str(path.resolve()), path)
    chosen = sorted(found)
    random.Random(seed).shuffle(chosen)
    if len(chosen) < count:
        message = f"only {len(chosen)} text files between {least_bytes} and {most_bytes} bytes here, {count} are needed"
        raise SystemExit(message)
    return [found[name] for name in chosen[:count]]


def copy_into(folder: Path, files: list[Path]) -> list[Path]:
    """Copy under numbered names, 100 a folder, each with one line of its own so that no two contents are equal."""
    made = []
    for number, source in enumerate(files):
        target = folder / f"d{number // 100:03d}" / f"{number:05d}-{source.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        with target.open("ab") as out:
            out.write(f"\n# copy {number}\n".encode())
        made.append(target)
    return made
