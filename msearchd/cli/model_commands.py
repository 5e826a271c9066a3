"""`msearch models`: where each model stands; load, unload, pin one. As commands.py: ask, print; decide nothing."""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence

from msearchd.cli import render, times
from msearchd.cli.commands import OK, WrongUse
from msearchd.cli.connection import Daemon

#: Importing torch and reading gigabytes of weights from a slow disk.
_LOAD_S = 600.0
_ACTIONS = ("load", "unload", "pin", "unpin")
_HEAD = ("MODEL", "SERVES", "STATE", "ENGINE", "DEVICE", "BATCH", "SPEED", "MEMORY", "WAITING", "LAST USED")


def arguments(made: ArgumentParser) -> None:
    """What `msearch models` takes."""
    made.add_argument("action", nargs="?", choices=_ACTIONS, help="what to do with it")
    made.add_argument("name", nargs="?", metavar="NAME", help="the model")


def models(daemon: Daemon, args: Namespace) -> int:
    """Show all models, or do something with one."""
    style = render.style_for(sys.stdout, os.environ, is_plain=args.no_color)
    if args.action is None:
        reply: render.Reply = daemon.get("/models")
        rows: Sequence[render.Reply] = reply["models"]
    elif args.name is None:
        raise WrongUse(f"which one? type: msearch models {args.action} NAME")
    else:
        reply = _changed(daemon, args.action, args.name)
        rows = [reply]
    if args.json:
        print(json.dumps(reply))
    elif rows:
        for line in table(rows, now_ms=int(time.time() * 1000), style=style):
            print(line)
    else:
        print("no model is configured; add one under [[inference.models]]")
    return OK


def _changed(daemon: Daemon, action: str, name: str) -> render.Reply:
    if action in {"pin", "unpin"}:
        wanted = {"model": name, "is_pinned": action == "pin"}
        return daemon.post("/models/pin", wanted, timeout_s=_LOAD_S)
    return daemon.post(f"/models/{action}", {"model": name}, timeout_s=_LOAD_S)


def table(rows: Sequence[render.Reply], *, now_ms: int, style: render.Style) -> Iterator[str]:
    """A line for each model under a head, and below it the reason of one that is not usable."""
    cells = [[render.clean(cell) for cell in _cells(row, now_ms=now_ms)] for row in rows]
    widths = [max(len(line[column]) for line in [list(_HEAD), *cells]) for column in range(len(_HEAD))]
    yield style.dim("  ".join(name.ljust(width) for name, width in zip(_HEAD, widths, strict=True)).rstrip())
    for row, line in zip(rows, cells, strict=True):
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        if row.get("reason"):
            yield f"  {style.bad('!')} {render.clean(row['reason'])}"


def _cells(row: render.Reply, *, now_ms: int) -> list[str]:
    unit = row.get("cost_unit") or "tokens"
    memory = row.get("resident_bytes", 0) + row.get("device_bytes", 0)
    used_ms = row.get("last_used_ms")
    ago_s = None if used_ms is None else max(0.0, (now_ms - used_ms) / 1000)
    return [
        row["name"],
        row["serves"],
        row["state"] + (" (pinned)" if row.get("is_pinned") else ""),
        row.get("engine") or "-",
        row.get("device") or "-",
        f"{row['batch_cost']:,} {unit}" if row.get("batch_cost") else "-",
        f"{row['throughput_per_s']:,.0f} {unit}/s" if row.get("throughput_per_s") else "-",
        times.size(memory) if memory else "-",
        f"{row.get('waiting', 0) + row.get('in_flight', 0):,}",
        "never" if ago_s is None else "now" if ago_s < 1 else f"{times.duration(ago_s)} ago",
    ]
