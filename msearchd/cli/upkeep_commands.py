"""`msearch queue`, `verify` and `backup`. As commands.py: ask the daemon, print, say how it went; decide nothing."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterator

from msearchd.cli import render, times
from msearchd.cli.commands import FAILED, OK, print_json
from msearchd.cli.connection import Daemon, path_argument

#: A comparison of a million files, or a copy of their index, on a slow disk.
_PATIENCE_S = 6 * 3600.0
_STATES = ("ready", "running", "delayed", "blocked", "failed")


def queue(daemon: Daemon, args: Namespace) -> int:
    """Show what is owed, how fast it goes, and why not."""
    reply = daemon.get("/queue", timeout_s=60)
    if args.json:
        print_json(reply)
    else:
        for line in queue_page(reply, style=render.style_for(sys.stdout, os.environ, is_plain=args.no_color)):
            print(line)
    return OK


def verify(daemon: Daemon, args: Namespace) -> int:
    """Compare everything with everything; 1 where something did not agree, or could not be compared."""
    reply = daemon.post("/system/verify", {"repair": args.repair}, timeout_s=_PATIENCE_S)
    if args.json:
        print_json(reply)
    else:
        for line in verified(reply, home=os.path.expanduser("~")):
            print(line)
    is_well = reply["is_clean"] or reply["is_repaired"]
    return OK if is_well and reply["is_complete"] else FAILED


def backup(daemon: Daemon, args: Namespace) -> int:
    """Copy the index to a new folder."""
    wanted = {"path": path_argument(args.folder), "vectors": not args.no_vectors}
    reply = daemon.post("/system/backup", wanted, timeout_s=_PATIENCE_S)
    if args.json:
        print_json(reply)
        return OK
    what = "catalog, queue and vectors" if reply["has_vectors"] else "catalog and queue (vectors are computed again)"
    path = render.short_path(reply["path"], os.path.expanduser("~"))
    print(f"{what} in {path}, {times.size(reply['size_bytes'])} ({times.duration(reply['took_s'])})")
    return OK


def queue_page(reply: render.Reply, *, style: render.Style) -> Iterator[str]:
    """The queue for a terminal: the sum, a line for each step, the reasons."""
    counts = [f"{reply['queue'][state]:,} {state}" for state in _STATES if reply["queue"].get(state)]
    facts = [f"oldest {times.duration(reply['oldest_s'])}"] if reply.get("oldest_s") is not None else []
    facts += [f"{reply['jobs_per_s']:.1f} steps/s"] if reply.get("jobs_per_s") else []
    facts += [f"about {times.duration(reply['eta_s'])} left"] if reply.get("eta_s") else []
    facts += [f"next retry in {times.duration(reply['next_due_s'])}"] if reply.get("next_due_s") is not None else []
    yield "  ".join((style.bold(", ".join(counts) or "empty"), ", ".join(facts))).rstrip()
    if reply.get("pauses"):
        yield style.bad("paused: ") + ", ".join(map(render.clean, reply["pauses"]))
    for step in reply["steps"]:
        name = render.clean(f"{step['step']} {step['target']}".strip())
        parts = [f"{step[state]:,} {state}" for state in _STATES if step.get(state)]
        yield f"{style.dim(f'{name:<28}')} {', '.join(parts)}  {style.dim('oldest ' + times.duration(step['oldest_s']))}"
    for why in reply["reasons"]:
        yield f"{style.bad(why['state'])}  {render.plural(why['jobs'], 'job')} of {render.clean(why['step'])}"
        yield f"  {render.clean(why['reason'])}"


def verified(reply: render.Reply, *, home: str) -> Iterator[str]:
    """What was compared, then what was wrong."""
    took = times.duration(reply["took_s"])
    for space in reply["spaces"]:
        yield (f"vectors  {render.clean(space['space'])}: {space['points_found']:,} of"
               f" {render.plural(space['points_expected'], 'point')}")  # fmt: skip
    for folder in reply["folders"]:
        path = render.short_path(folder["path"], home)
        told = f"{render.plural(folder['files'], 'file')} compared" if folder["is_checked"] else "not compared"
        changed = f", {render.plural(folder['changes'], 'change')} taken up" if folder["changes"] else ""
        why = f": {render.clean(folder['reason'])}" if folder.get("reason") else ""
        yield f"folder   {path}: {told}{changed}{why}"
    for sentence in reply["sentences"]:
        yield f"! {render.clean(sentence)}"
    not_compared = [folder for folder in reply["folders"] if not folder["is_checked"] or folder.get("reason")]
    if reply["is_clean"]:
        what = "database, queue and vectors" if not_compared else "database, queue, vectors and folders"
        yield f"{what} agree ({took})"
    elif reply["is_repaired"]:
        yield f"repaired; what is missing is computed again ({took})"
    else:
        yield f"they do not agree ({took}); type: msearch verify --repair"
    if not_compared:
        paths = ", ".join(render.short_path(folder["path"], home) for folder in not_compared)
        yield f"not compared, so this is no proof of: {paths}"
