"""`msearch search`. As commands.py: ask the daemon, print, say how it went; decide nothing."""

from __future__ import annotations

import datetime as dt
import os
import sys
from argparse import Namespace

from msearchd.cli import render, times
from msearchd.cli.commands import OK, WrongUse, note, print_json, print_lines
from msearchd.cli.connection import Daemon, path_argument

#: So long `search --wait` waits for a model that loads: the most that the API takes.
_PATIENT_S = 60.0
#: Of hits that are all no better than chance.
_WEAK_SHOWN = 3


def search(daemon: Daemon, args: Namespace) -> int:
    """Search, best first. No hits is an answer, not a failure: 0 as well."""
    style = render.style_for(sys.stdout, os.environ, is_plain=args.no_color)
    text = " ".join(args.query).strip()
    examples = {name: path_argument(path) for name in ("image", "audio", "like") if (path := getattr(args, name))}
    if not text and not examples:
        raise WrongUse(
            'the question is empty; type: msearch search "north sea ferry", or --image, --audio, --like FILE'
        )
    request = {
        **({"text": text} if text else {}),
        **examples,
        "limit": args.limit,
        "folders": [path_argument(path) for path in args.folders],
        "types": args.types,
        **({"wait_s": _PATIENT_S} if args.wait else {}),
    }
    now = dt.datetime.now().astimezone()
    for option in ("after", "before"):
        if (date := getattr(args, option)) is not None:
            try:
                request[f"modified_{option}_ms"] = times.date_ms(date, now=now)
            except ValueError as error:
                raise WrongUse(f"--{option}: {error}") from error
    reply = daemon.post("/search", request, timeout_s=_PATIENT_S + 30)
    if args.json:
        print_json(reply)
        return OK
    weak = [hit for hit in reply["hits"] if hit.get("is_weak")]
    if weak and len(weak) == len(reply["hits"]):
        note("no file has these words, and none is nearer to them than chance; the nearest are:")
        reply["hits"] = weak[:_WEAK_SHOWN]
    print_lines(render.hits(reply, home=os.path.expanduser("~"), style=style))
    if not reply["hits"]:
        note("ask again, or add --wait" if reply.get("retry_after_s") else _why_no_hits(daemon, args))
    return OK


def _why_no_hits(daemon: Daemon, args: Namespace) -> str:
    """The likeliest reason first, with what to type."""
    folders = daemon.get("/folders")["folders"]
    if not folders:
        return "no hits: no folder is watched yet; type: msearch add ~/Documents"
    if pending := sum(folder["files"]["pending"] for folder in folders):
        return f"no hits yet: {render.plural(pending, 'file')} to do; to wait for them type: msearch sync"
    if any(folder["is_scanning"] for folder in folders):
        return "no hits yet: the folders are still compared; to wait for that type: msearch sync"
    if args.types:
        of = " or ".join(args.types)
        return f"no hits of type {of}; `msearch explain PATH` says of which type a file is"
    return "no hits; `msearch explain PATH` says why a file is not found"
