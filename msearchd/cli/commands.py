"""What each command of `msearch` does: ask the daemon, print, say how it went.

In: parsed arguments. Out: text on stdout (data) and stderr (progress, notes), an exit code. Decides nothing itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msearchd.cli import render, times
from msearchd.cli.connection import Daemon, Refused, Unreachable, path_argument

OK, FAILED, USAGE, BUSY = 0, 1, 2, 75
#: Asked again and again, so that a progress line moves even where one file takes long.
_POLL_S = 0.5
#: One call of the API waits at most so long.
_LONGEST_CALL_S = 600.0


class WrongUse(Exception):  # noqa: N818
    """The command line makes no sense; the message says what to type."""


def _home() -> str:
    return os.path.expanduser("~")


def _style(args: Namespace) -> render.Style:
    return render.style_for(sys.stdout, os.environ, is_plain=args.no_color)


def print_lines(lines: Iterable[str]) -> None:
    """Data, on stdout."""
    for line in lines:
        print(line)


def print_json(value: Mapping[str, Any]) -> None:
    """The daemon's reply, on one line."""
    # ASCII: names that are not UTF-8 stand as escaped surrogates, as the daemon sends them.
    print(json.dumps(value))


def note(text: str) -> None:
    """What is no data, on stderr."""
    print(text, file=sys.stderr)


# -- folders -----------------------------------------------------------------------------------------------------------


def add(daemon: Daemon, args: Namespace) -> int:
    """Watch folders."""
    for path in args.folders:
        folder = daemon.post("/folders", {"path": path_argument(path)})
        if args.json:
            print_json(folder)
            continue
        print(f"watching {render.short_path(folder['path'], _home())}")
        for inner in folder.get("took_in", ()):
            print(f"  with {render.short_path(inner, _home())}, which was watched already: nothing of it is read again")
    if not args.json and sys.stdout.isatty():
        note("it is indexed in the background; how far it is: msearch status --watch")
    return OK


def remove(daemon: Daemon, args: Namespace) -> int:
    """Watch folders no more."""
    for path in args.folders:
        daemon.delete("/folders", path=path_argument(path))
        if args.json:
            print_json({"removed": path_argument(path)})
            continue
        print(f"no longer watching {render.short_path(path_argument(path), _home())}; its files stay as they are")
    return OK


def list_folders(daemon: Daemon, args: Namespace) -> int:
    """Show the watched folders."""
    reply = daemon.get("/folders")
    if args.json:
        print_json(reply)
    elif reply["folders"]:
        print_lines(render.folder_line(folder, home=_home(), style=_style(args)) for folder in reply["folders"])
    else:
        note("no folder is watched yet; type: msearch add ~/Documents")
    return OK


# -- state -------------------------------------------------------------------------------------------------------------


def status(daemon: Daemon, args: Namespace) -> int:
    """Show the state, once or again and again."""
    while True:
        reply = daemon.get("/status")
        if args.json:
            print_json(reply)
        else:
            page = list(render.status(reply, home=_home(), style=_style(args)))
            if args.watch and sys.stdout.isatty():
                # One write, home and clear to the end: no flicker. The terminal cuts long lines, and what does not fit
                # below is left out: what needs a person stands first, and must not scroll away.
                rows = os.get_terminal_size(sys.stdout.fileno()).lines
                shown = "\n".join(page[: max(1, rows - 1)])
                print(f"\x1b[H\x1b[J\x1b[?7l{shown}\x1b[?7h", flush=True)
            else:
                print_lines(page)
        if not args.watch:
            return OK
        sys.stdout.flush()
        time.sleep(args.interval)


def sync(daemon: Daemon, args: Namespace) -> int:
    """Wait until everything changed before is searchable; without a time limit as long as it takes."""
    began = time.monotonic()
    while True:
        left_s = _LONGEST_CALL_S if args.timeout is None else args.timeout - (time.monotonic() - began)
        wait_s = max(0.001, min(_LONGEST_CALL_S, left_s))
        with _progress(daemon):
            reply = daemon.post("/sync", {"timeout_s": wait_s}, timeout_s=wait_s + 30)
        if reply["is_complete"] or (args.timeout is not None and left_s <= wait_s):
            break
    if args.json:
        print_json(reply)
    else:
        rest = [f"{reply[state]:,} {state}" for state in ("pending", "blocked", "failed") if reply[state]]
        said = "all changes are searchable" if reply["is_complete"] else "not everything is searchable yet"
        print(f"{said} ({times.duration(time.monotonic() - began)})" + (f": {', '.join(rest)}" if rest else ""))
    return OK if reply["is_complete"] else BUSY


@contextlib.contextmanager
def _progress(daemon: Daemon) -> Iterator[None]:
    """Show on a terminal what is still to do, once a second, while the block waits for the daemon."""
    if not sys.stderr.isatty():
        yield
        return
    is_over = threading.Event()
    shower = threading.Thread(target=_show_progress, args=(daemon, is_over), daemon=True)
    shower.start()
    try:
        yield
    finally:
        is_over.set()
        shower.join(1.0)
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _show_progress(daemon: Daemon, is_over: threading.Event) -> None:
    while not is_over.wait(1.0):
        try:
            reply = daemon.get("/status", timeout_s=5)
        except (Refused, Unreachable):
            continue
        line = render.waiting_line(reply)
        if not is_over.is_set():
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def pause(daemon: Daemon, args: Namespace) -> int:
    """Stand still for a reason."""
    _print_pauses(args, daemon.post("/pause", {"reason": args.reason}))
    return OK


def resume(daemon: Daemon, args: Namespace) -> int:
    """Take a reason away, or all."""
    _print_pauses(args, daemon.post("/resume", {"reason": None if args.all else args.reason}))
    return OK


def _print_pauses(args: Namespace, reply: Mapping[str, Any]) -> None:
    if args.json:
        print_json(reply)
        return
    reasons = ", ".join(map(render.clean, reply["pauses"]))
    print(f"paused: {reasons}; searches go on" if reasons else "running")


def events(daemon: Daemon, args: Namespace) -> int:
    """Print events until interrupted."""
    for event in daemon.events(args.since):
        if args.json:
            print_json(event)
        else:
            data = event.get("data") or {}
            pairs = "  ".join(f"{key}={render.clean(str(value))}" for key, value in data.items())
            print(f"{event['id']}  {event['event']}  {pairs}".rstrip())
        sys.stdout.flush()
    note("the daemon ended the stream")
    return OK


# -- files -------------------------------------------------------------------------------------------------------------


def explain(daemon: Daemon, args: Namespace) -> int:
    """Say why a path is found, or is not."""
    reply = daemon.get("/explain", path=path_argument(args.path))
    if args.json:
        print_json(reply)
    else:
        print_lines(render.explain(reply, home=_home(), style=_style(args)))
    return OK


def process(daemon: Daemon, args: Namespace) -> int:
    """Index files now; wait with a progress line. 1 where one failed."""
    paths = [path_argument(path) for path in args.paths]
    if args.concurrency:
        reply = daemon.post("/files/batch-process", {"paths": paths, "concurrency": args.concurrency})
    else:
        reply = daemon.post("/files/process", {"paths": paths})
    if args.no_wait:
        print_json(reply) if args.json else print(reply["id"])
        return OK
    reply = _followed(daemon, reply)
    if args.json:
        print_json(reply)
    else:
        print_lines(render.processed(reply, home=_home(), style=_style(args)))
    return OK if reply["state"] == "done" else FAILED


def _followed(daemon: Daemon, reply: dict[str, Any]) -> dict[str, Any]:
    """The last word on a process request, with its progress on stderr meanwhile."""
    is_terminal = sys.stderr.isatty()
    try:
        while reply["state"] in {"queued", "running"}:
            if is_terminal:
                print(f"\r\x1b[K{render.progress_line(reply)}", end="", file=sys.stderr, flush=True)
            reply = daemon.get(f"/files/process-status/{reply['id']}", wait_s=_POLL_S)
    except KeyboardInterrupt:
        note(f"\nit goes on by itself; its id is {reply['id']}")
        raise
    finally:
        if is_terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return reply


def failed(daemon: Daemon, args: Namespace) -> int:
    """List failed and blocked work."""
    items: list[Mapping[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None and len(items) < args.limit:
        page = daemon.get("/failed", limit=min(500, args.limit - len(items)), cursor=cursor)
        items += page["items"]
        cursor = page["next_cursor"]
    if args.json:
        print_json({"items": items, "next_cursor": cursor})
    elif items:
        print_lines(render.failures(items, home=_home(), style=_style(args)))
        if cursor is not None:
            note(f"there are more than {args.limit:,}; use --limit")
    else:
        print("nothing has failed")
    return OK


def retry(daemon: Daemon, args: Namespace) -> int:
    """Try failed and blocked work again."""
    reply = daemon.post("/retry", {"path": path_argument(args.path) if args.path else None})
    if args.json:
        print_json(reply)
    else:
        print(f"{render.plural(reply['retried'], 'job')} will be tried again")
    return OK


def reset(daemon: Daemon, args: Namespace) -> int:
    """Throw derived data away; asks first."""
    what = {
        "index": "all vectors and read text", "database": "all vectors, text, known files and the queue",
        "all": "the whole index and the list of added folders",
    }[args.what]  # fmt: skip
    if not args.yes:
        if not sys.stdin.isatty():
            raise WrongUse(f"this throws {what} away; add --yes to do it without being asked")
        print(f"This throws {what} away; it is computed again from your files, which are not touched.", file=sys.stderr)
        print("Type yes to go on: ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() != "yes":
            note("nothing was changed")
            return FAILED
    reply = daemon.post("/system/reset", {"reset_type": args.what, "confirm": True}, timeout_s=300)
    if args.json:
        print_json(reply)
    else:
        print(render.clean(reply["sentence"]))
    return OK
