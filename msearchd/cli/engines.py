"""`msearchd engines list | install`: which engines there are, whether they work, and how to have one.

In: arguments. Out: lines or JSON; exit code 0, or that of the error.
"""

from __future__ import annotations

import argparse
import json
import os
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from msearchd import errors
from msearchd.inference import roster
from msearchd.settings.load import load_with_origins

if TYPE_CHECKING:
    from msearchd.inference.engine_list import EngineReport

INSTALLABLE = ("infinity", "colpali", "whisper", "onnx", "vllm")


def add_arguments(made: argparse.ArgumentParser) -> None:
    """The arguments of `engines`, but for --config."""
    made.add_argument("action", choices=("list", "install"))
    made.add_argument("engine", nargs="?", choices=INSTALLABLE, help="which one to install")
    made.add_argument("--folder", type=Path, metavar="DIR", help="where (default: engines/ in the data folder)")
    made.add_argument("--try", dest="is_tried", action="store_true", help="list: import each one really (seconds each)")
    made.add_argument("--json", action="store_true", help="list: as JSON")


def run(args: argparse.Namespace) -> int:
    """Run `engines`."""
    return _list(args) if args.action == "list" else _install(args)


def _install(args: argparse.Namespace) -> int:
    from msearchd.inference.environments import engine_folder, install

    if args.engine is None:
        message = f"engines install needs a name: {', '.join(INSTALLABLE)}"
        raise errors.BadRequest(message, hint="type: msearchd engines list")
    folder = args.folder or engine_folder(_data_dir(args), args.engine)
    install(args.engine, folder.absolute(), say=lambda line: print(line, flush=True))
    return 0


def _list(args: argparse.Namespace) -> int:
    from msearchd.inference.engine_list import reports

    found = list(reports(_data_dir(args), is_tried=args.is_tried))
    if args.json:
        print(json.dumps([asdict(one) for one in found]))
        return 0
    print("\n".join(_table(found)))
    return 0


_INDENT = " " * 28  # where what belongs to an engine stands
_SENTENCES_WIDE = 120
#: What models can be for, in a newcomer's words.
_MEANING = {
    "text": "passages and questions, by meaning",
    "sparse": "words with weights (SPLADE)",
    "image": "pictures (CLIP, SigLIP)",
    "audio": "sound (CLAP)",
    "page": "documents as their pages look (in ColPali's own format: colpali)",
    "rerank": "ranks the best hits again (cross-encoder)",
    "speech": "writes down what is said (Whisper)",
}


def _table(found: Sequence[EngineReport]) -> Iterator[str]:
    """The engines as a person reads them: where each computes, what it reads, and what to do where it cannot be used."""
    for one in found:
        where = f"computes on {', '.join(one.devices)}" if one.is_usable else "cannot be used"
        if one.devices == ("remote",):
            where = "asks servers that you name (urls)"
        yield f"{'ok' if one.is_usable else '--':<4}{one.name:<24}{where}"
        yield f"{_INDENT}for {', '.join(one.serves)}"
        if one.versions:
            yield from _lines(", ".join(f"{name} {version}" for name, version in one.versions.items()))
        if one.python:
            yield f"{_INDENT}in {one.python}"
        if not one.is_usable:
            yield from _lines(f"why: {one.reason}")
            yield from _lines(f"do:  {one.advice}")
    usable = {one.name for one in found if one.is_usable}
    yield '\nWhat engine = "auto" takes here, for a model that serves'
    for kind in roster.KINDS:
        first = next((name for name in roster.automatic(kind) if name in usable), "none: see above")
        yield f"    {kind:<24}{first:<24}{_MEANING.get(kind, '')}"


def _lines(sentence: str) -> list[str]:
    return textwrap.wrap(
        sentence,
        _SENTENCES_WIDE,
        initial_indent=_INDENT,
        subsequent_indent=f"{_INDENT}     ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _data_dir(args: argparse.Namespace) -> Path:
    return load_with_origins(args.config, os.environ, may_be_away=True).settings.data_dir
