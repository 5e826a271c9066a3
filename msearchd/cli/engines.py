"""`msearchd engines list | install`: which engines there are, whether they work, and how to have one.

In: arguments. Out: lines or JSON; exit code 0, or that of the error.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

from msearchd import errors
from msearchd.settings.load import load_with_origins

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
    for one in found:
        mark = "ok  " if one.is_usable else "--  "
        print(f"{mark}{one.name:<22}{', '.join(one.serves):<34}{', '.join(one.devices)}")
        if one.python:
            versions = "  ".join(f"{name} {version}" for name, version in one.versions.items())
            print(f"    {'':<22}{one.python}\n    {'':<22}{versions}")
        if not one.is_usable:
            print(f"    {'':<22}{one.reason}\n    {'':<22}{one.advice}")
    return 0


def _data_dir(args: argparse.Namespace) -> Path:
    return load_with_origins(args.config, os.environ, may_be_away=True).settings.data_dir
