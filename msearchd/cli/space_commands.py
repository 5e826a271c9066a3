"""`msearch spaces` and `msearch model`: the vector spaces, and a change of model. Ask, print; decide nothing."""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence

from msearchd.cli import render, times
from msearchd.cli.commands import FAILED, OK, WrongUse
from msearchd.cli.connection import Daemon

#: A model is loaded to measure it; a drop waits for jobs at work.
_PATIENCE_S = 600.0
_ACTIONS = ("plan", "switch", "rollback", "drop")
_HEAD = ("SPACE", "FOR", "STATE", "COVERAGE", "POINTS", "SIZE", "FINGERPRINT", "SINCE")


def arguments(made: ArgumentParser) -> None:
    """What `msearch model` takes."""
    made.add_argument("action", choices=_ACTIONS, help="what a change costs; make it; go back; delete old vectors")
    made.add_argument(
        "name", nargs="?", metavar="NAME", help="a space or its model; for rollback text (default), image, audio, page"
    )
    made.add_argument("--yes", action="store_true", help="do not ask")


def spaces(daemon: Daemon, args: Namespace) -> int:
    """Show all vector spaces."""
    reply = daemon.get("/spaces", timeout_s=_PATIENCE_S)
    if args.json:
        print(json.dumps(reply))
        return OK
    style = render.style_for(sys.stdout, os.environ, is_plain=args.no_color)
    if not reply["spaces"]:
        print("no vectors yet; they come with the first file that is read")
    for line in table(reply["spaces"], now_ms=int(time.time() * 1000), style=style):
        print(line)
    for sentence in reply["sentences"]:
        print(f"! {render.clean(sentence)}")
    return OK


def model(daemon: Daemon, args: Namespace) -> int:
    """Plan, make or undo a change of model, or delete old vectors."""
    if args.action == "rollback":
        row = daemon.post("/spaces/rollback", {"modality": args.name or "text"}, timeout_s=_PATIENCE_S)
        return _said(args, row, f"{row['name']} answers")
    if args.name is None:
        raise WrongUse(f"which one? msearch spaces shows them; type: msearch model {args.action} NAME")
    does = {"plan": _plan, "switch": _switch, "drop": _drop}
    return does[args.action](daemon, args)


def _plan(daemon: Daemon, args: Namespace) -> int:
    plan = daemon.post("/spaces/plan", {"space": args.name}, timeout_s=_PATIENCE_S)
    if args.json:
        print(json.dumps(plan))
    else:
        print(*planned(plan), sep="\n")
    return OK


def _switch(daemon: Daemon, args: Namespace) -> int:
    if not args.yes:
        plan = daemon.post("/spaces/plan", {"space": args.name}, timeout_s=_PATIENCE_S)
        if plan["phase"] == "serving" and not plan["samples"]:
            return _said(args, plan, f"{plan['space']} answers already; there is nothing to change")
        print(*planned(plan), sep="\n", file=sys.stderr)
        if not _agreed(args, "begin?"):
            return FAILED
    row = daemon.post("/spaces/switch", {"space": args.name}, timeout_s=_PATIENCE_S)
    if row["phase"] == "serving":
        return _said(args, row, f"{row['name']} answers")
    left = f"{row['lacking']:,} of {render.plural(row['contents'] + row['lacking'], 'content')} to do"
    return _said(args, row, f"{row['name']} is built, {left}; it answers once it is complete (how far: msearch spaces)")


def _drop(daemon: Daemon, args: Namespace) -> int:
    if not _agreed(args, f"delete the vectors of {args.name}? there is no way back to them then;"):
        return FAILED
    row = daemon.post("/spaces/drop", {"space": args.name}, timeout_s=_PATIENCE_S)
    return _said(args, row, f"{row['name']}: {render.plural(row['points'], 'point')} deleted")


def table(rows: Sequence[render.Reply], *, now_ms: int, style: render.Style) -> Iterator[str]:
    """A line for each space under a head."""
    if not rows:
        return
    lines = [[render.clean(cell) for cell in _cells(row, now_ms=now_ms)] for row in rows]
    widths = [max(len(line[column]) for line in [list(_HEAD), *lines]) for column in range(len(_HEAD))]
    yield style.dim("  ".join(name.ljust(width) for name, width in zip(_HEAD, widths, strict=True)).rstrip())
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def planned(plan: render.Reply) -> Iterator[str]:
    """What a change costs, as sentences."""
    yield f"{plan['space']} ({plan['phase']}) lacks {plan['samples']:,} passages of {render.plural(plan['contents'], 'content')}"
    if plan.get("seconds") is not None:
        yield f"about {times.duration(plan['seconds'])} at {plan['per_s']:,.1f} a second, measured on some of them"
    yield f"about {times.size(plan['size_bytes'])} on the disk"
    if plan["serving"] and plan["serving"] != plan["space"]:
        kept = f"kept for {plan['keep_replaced_h']:g} h after it" if plan["keep_replaced_h"] else "deleted after it"
        yield f"{plan['serving']} answers until it is complete, and is {kept}"


def _cells(row: render.Reply, *, now_ms: int) -> list[str]:
    state = row["phase"] if row["is_askable"] else f"{row['phase']}, its model is gone"
    if row.get("drop_ms") is not None:
        state += f", {times.duration(max(0.0, (row['drop_ms'] - now_ms) / 1000))} left"
    return [
        row["name"],
        row["modality"],
        state,
        f"{row['coverage'] * 100:.1f} %",
        f"{row['points']:,}",
        times.size(row["size_bytes"]) if row["size_bytes"] else "-",
        row["fingerprint"][:12],
        f"{times.duration(max(0.0, (now_ms - row['since_ms']) / 1000))} ago" if row["since_ms"] else "-",
    ]


def _said(args: Namespace, row: render.Reply, sentence: str) -> int:
    print(json.dumps(row) if args.json else render.clean(sentence))
    return OK


def _agreed(args: Namespace, question: str) -> bool:
    if args.yes:
        return True
    if not sys.stdin.isatty():
        raise WrongUse(f"{question} add --yes where nobody can be asked")
    return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
