"""Replies of the daemon as text for a terminal. Pure: plain values in, lines out.

Names and snippets come out of other people's files: control characters in them never reach the terminal.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msearchd.cli import times

Reply = Mapping[str, Any]


class Style:
    """Colours, or none of them."""

    def __init__(self, *, is_colored: bool, width: int = 100) -> None:
        self._is_colored = is_colored
        self.width = width

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._is_colored and text else text

    def bold(self, text: str) -> str:
        """What the eye should find."""
        return self._paint(text, "1")

    def dim(self, text: str) -> str:
        """What it may pass over."""
        return self._paint(text, "2")

    def good(self, text: str) -> str:
        """All is well."""
        return self._paint(text, "32")

    def bad(self, text: str) -> str:
        """It is not."""
        return self._paint(text, "31")

    def match(self, text: str) -> str:
        """A word that matched; *stars* where there are no colours."""
        return self._paint(text, "1;33") if self._is_colored else f"*{text}*"


def style_for(stream: Any, environ: Mapping[str, str], *, is_plain: bool = False) -> Style:
    """Colours where *stream* is a terminal that has them and nobody objects (no-color.org)."""
    is_terminal = stream.isatty()
    try:
        width = os.get_terminal_size(stream.fileno()).columns if is_terminal else 100
    except OSError:
        width = 100
    is_colored = is_terminal and not is_plain and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    return Style(is_colored=is_colored, width=max(40, width))


def clean(text: str) -> str:
    """*text* on one line without control characters; bytes that are not UTF-8 in hexadecimal."""
    if text.isprintable():
        return text
    return "".join(_shown(char) for char in text)


def _shown(char: str) -> str:
    if char.isprintable():
        return char
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return " " if char.isspace() else f"\\x{ord(char):02x}"


def short_path(path: str, home: str) -> str:
    """*path* with ~ for the home folder, safe to print."""
    inside = home and (path == home or path.startswith(home.rstrip("/") + "/"))
    return clean("~" + path[len(home.rstrip("/")) :] if inside else path)


def plural(count: int, word: str) -> str:
    """`1 file`, `2 files`, `12,345 files`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


# -- search ------------------------------------------------------------------------------------------------------------


def hits(reply: Reply, *, home: str, style: Style) -> Iterator[str]:
    """A block for each hit, best first."""
    found = reply["hits"]
    digits = len(str(len(found)))
    for rank, hit in enumerate(found, 1):
        yield from _hit(hit, f"{rank:>{digits}}", home, style)
    for sentence in reply.get("missing", ()):
        yield style.dim(f"note: {clean(sentence)}")


def _hit(hit: Reply, rank: str, home: str, style: Style) -> Iterator[str]:
    path = short_path(hit["path"], home)
    folder, slash, name = path.rpartition("/")
    place = _place(hit)
    offline = "" if hit.get("is_online", True) else style.bad("  (offline)")
    yield f"{rank}  {style.dim(folder + slash)}{style.bold(name)}{'  ' + place if place else ''}{offline}"
    indent = " " * (len(rank) + 2)
    if snippet := snippet_line(hit, width=style.width - len(indent), style=style):
        yield indent + snippet
    yield indent + style.dim(
        f"{hit['score']:.4f}  {_why(hit)}  {times.size(hit['size_bytes'])}, {times.local_time(hit['modified_ms'])}"
    )
    for other in hit.get("same_content", ())[:3]:
        yield indent + style.dim("same bytes: ") + short_path(other, home)


def _place(hit: Reply) -> str:
    parts = []
    if hit.get("page") is not None:
        parts.append(f"page {hit['page']}")
    if hit.get("line") is not None:
        parts.append(f"line {hit['line']}")
    if hit.get("t0_ms") is not None:
        end = f" to {times.moment(hit['t1_ms'])}" if hit.get("t1_ms") is not None else ""
        parts.append(f"at {times.moment(hit['t0_ms'])}{end}")
    if hit.get("kind") in {"ocr", "transcript", "metadata"}:
        parts.append(f"in its {'picture text' if hit['kind'] == 'ocr' else hit['kind']}")
    return ", ".join(parts)


def _why(hit: Reply) -> str:
    ranks = ", ".join(f"{_list_name(rank['list'])} #{rank['rank']}" for rank in hit["ranks"]) or "by name"
    return f"weak: {ranks}" if hit.get("is_weak") else ranks


def _list_name(name: str) -> str:
    """Lists of vector spaces have names for programs; a person reads "meaning"."""
    return name if name in {"words", "names", "learned words", "rerank"} else "meaning"


def snippet_line(hit: Reply, *, width: int, style: Style) -> str:
    """The snippet on one line of at most *width* characters around its first match, matches marked."""
    text = hit.get("snippet", "")
    marks = sorted((start, end) for start, end in hit.get("highlights", ()) if 0 <= start < end <= len(text))
    room = max(20, width - 2)
    begin = max(0, min(marks[0][0] - room // 3, len(text) - room)) if marks else 0
    end = min(len(text), begin + room)
    parts, at = [], begin
    for start, stop in marks:
        if start < at or start >= end:
            continue
        parts += [clean(text[at:start]), style.match(clean(text[start : min(stop, end)]))]
        at = min(stop, end)
    parts.append(clean(text[at:end]))
    line = "".join(parts).strip()
    return f"{'…' if begin else ''}{line}{'…' if end < len(text) else ''}" if line else ""


# -- status ------------------------------------------------------------------------------------------------------------


def status(reply: Reply, *, home: str, style: Style) -> Iterator[str]:
    """The state on one page, what needs a person first."""
    is_well = reply["state"] in {"ready", "starting"}
    state = style.good(reply["state"]) if is_well else style.bad(reply["state"])
    because = f" ({', '.join(map(clean, reply['pauses']))})" if reply.get("pauses") else ""
    memory = f", {times.size(reply['resident_bytes'])}" if reply.get("resident_bytes") else ""
    up = times.duration(reply["uptime_s"])
    yield f"msearchd {reply['version']}  {style.bold(state)}{because}  up {up}, process {reply['pid']}{memory}"
    for sentence in reply.get("problems", ()):
        yield style.bad("! ") + clean(sentence)
    for sentence in reply.get("notices", ()):
        yield style.bold("? ") + clean(sentence)
    yield from _folders_block(reply["folders"], home, style)
    yield _line("queue", _queue(reply["queue"], reply["progress"]), style)
    yield _line("watch", _watch(reply["watch"], style), style)
    for model in reply.get("models", ()):
        yield _line("model", _model(model, style), style)
    yield _line("store", _store(reply["store"], style), style)
    for wait in reply.get("blocked", ()):
        yield _line("waiting", f"{plural(wait['jobs'], 'job')}: {clean(wait['reason'])}", style)
    for work in reply.get("running", ()):
        done = f"  {clean(work['doing'])}" if work.get("doing") else ""
        where = short_path(work["path"], home)
        yield _line("running", f"{work['step']}  {where}  {times.duration(work['for_s'])}{done}", style)


def _line(name: str, text: str, style: Style) -> str:
    return f"{style.dim(f'{name:<8}')} {text}"


def _folders_block(folders: Sequence[Reply], home: str, style: Style) -> Iterator[str]:
    if not folders:
        yield _line("folders", "none yet; type: msearch add ~/Documents", style)
    for folder in folders:
        yield _line("folder", folder_line(folder, home=home, style=style), style)


def folder_line(folder: Reply, *, home: str, style: Style) -> str:
    """A watched folder with its counts."""
    counts = [f"{count:,} {state}" for state, count in folder["files"].items() if count or state == "indexed"]
    extra = f"  scanning, {folder['scanned_dirs']:,} folders seen" if folder.get("is_scanning") else ""
    if folder.get("unwatched_dirs"):
        extra += f"  {plural(folder['unwatched_dirs'], 'folder')} that cannot be read"
    if folder["state"] != "online":
        extra += style.bad(f"  {folder['state']}{': ' + clean(folder['reason']) if folder.get('reason') else ''}")
    return f"{style.bold(short_path(folder['path'], home))}  {', '.join(counts)}{extra}"


def _queue(queue: Reply, progress: Reply) -> str:
    counts = [
        f"{queue[state]:,} {state}"
        for state in ("ready", "running", "delayed", "blocked", "failed")
        if queue.get(state)
    ]
    # The rate of what is past says nothing of an empty queue: no "about 0 s left".
    is_at_work = queue.get("ready") or queue.get("running")
    return "  ".join(part for part in (", ".join(counts) or "empty", rate(progress) if is_at_work else "") if part)


def rate(progress: Reply) -> str:
    """`2.5 files/s, about 1 min left`."""
    parts = []
    if progress.get("files_per_s"):
        a_second = progress["files_per_s"]
        parts.append(f"{a_second:.1f} files/s" if a_second >= 0.95 else f"{max(1, round(a_second * 60))} files/min")
    if progress.get("passages_per_s"):
        parts.append(f"{progress['passages_per_s']:.0f} passages/s")
    if progress.get("eta_s") is not None:
        parts.append(f"about {times.duration(progress['eta_s'])} left")
    return ", ".join(parts)


def _watch(watch: Reply, style: Style) -> str:
    health = style.good("ok") if watch["health"] == "ok" else style.bad(watch["health"])
    parts = [f"{clean(watch['backend'])} {health}", clean(watch.get("advice", ""))]
    parts += [plural(watch["overflows"], "overflow")] if watch.get("overflows") else []
    parts += [f"{plural(watch['pending'], 'change')} settling"] if watch.get("pending") else []
    if watch.get("last_doubt_ms"):
        parts.append(f"{times.local_time(watch['last_doubt_ms'])}: {clean(watch['last_doubt'])}")
    return ", ".join(part for part in parts if part)


def _model(model: Reply, style: Style) -> str:
    state = style.bad(model["state"]) if model["state"] == "unusable" else model["state"]
    facts = [model.get("engine", ""), model.get("device", ""), f"{model['dim']} dimensions" if model.get("dim") else ""]
    facts.append(times.size(model["resident_bytes"]) if model.get("resident_bytes") else "")
    said = ", ".join(clean(fact) for fact in facts if fact)
    reason = f": {clean(model['reason'])}" if model.get("reason") else ""
    return f"{clean(model['name'])}  {state}{reason}" + (f"  ({said})" if said else "")


def _store(store: Reply, style: Style) -> str:
    health = style.good("ok") if store["is_ok"] else style.bad(clean(store.get("reason") or "not ok"))
    return f"{clean(store['backend'])} {health}, {plural(store['points'], 'point')}, {times.size(store['disk_bytes'])}"


# -- files -------------------------------------------------------------------------------------------------------------


def explain(reply: Reply, *, home: str, style: Style) -> Iterator[str]:
    """Why a path is found, or is not: the answer first."""
    word = style.good(reply["verdict"]) if reply["verdict"] in {"indexed", "folder"} else style.bad(reply["verdict"])
    yield f"{style.bold(short_path(reply['path'], home))}  {word}"
    yield f"  {clean(reply['sentence'])}"
    facts = {
        "folder": f"{short_path(reply['root'], home)} ({reply['root_state']})" if reply.get("root") else "",
        "rule": f"{clean(reply['rule'])}  from {clean(reply['rule_origin'])}" if reply.get("rule") else "",
        "type": ", ".join(clean(reply[key]) for key in ("type_label", "modality", "mime") if reply.get(key)),
        "size": times.size(reply["size_bytes"]) if reply.get("size_bytes") is not None else "",
        "modified": times.local_time(reply["modified_ms"]) if reply.get("modified_ms") is not None else "",
        "content": reply.get("content", ""),
        "note": clean(reply.get("note", "")),
        "passages": ", ".join(f"{count:,} {kind}" for kind, count in reply.get("segments", {}).items()),
        "spaces": ", ".join(map(clean, reply.get("spaces", ()))),
    }
    for name, text in facts.items():
        if text:
            yield f"  {style.dim(f'{name:<9}')} {text}"
    for title, jobs in (("owed", reply.get("jobs", ())), ("history", reply.get("history", ()))):
        for job in jobs:
            yield f"  {style.dim(f'{title:<9}')} {_job(job)}"


def _job(job: Reply) -> str:
    what = job["step"] + (f" {clean(job['target'])}" if job.get("target") else "")
    tries = f", attempt {job['attempts']}" if job.get("attempts", 0) > 1 else ""
    at = f"  {times.local_time(job['at_ms'])}" if job.get("at_ms") is not None else ""
    return f"{what}  {job['state']}{tries}{at}" + (f"  {clean(job['error'])}" if job.get("error") else "")


def failures(items: Sequence[Reply], *, home: str, style: Style) -> Iterator[str]:
    """Two lines for each failed or blocked job."""
    for item in items:
        tries = plural(item["attempts"], "attempt")
        yield f"{style.bold(short_path(item['path'], home))}  {item['step']} {style.bad(item['state'])}, {tries}"
        yield f"  {clean(item['error'])}"


def progress_line(reply: Reply) -> str:
    """One line of a running process request."""
    ended = reply["done"] + reply["failed"]
    parts = [f"{ended:,} of {plural(reply['total'], 'file')}", f"{reply['percent']:.0f} %"]
    parts += [f"{reply['failed']:,} failed"] if reply["failed"] else []
    parts += [told] if (told := rate(reply)) else []
    return ", ".join(parts)


def waiting_line(status: Reply) -> str:
    """One line of what is still owed, while somebody waits for it."""
    owed = sum(folder["files"]["pending"] for folder in status["folders"])
    is_scanning = any(folder.get("is_scanning") for folder in status["folders"])
    parts = ["comparing folders"] if is_scanning else []
    parts += [f"{plural(owed, 'file')} to do"] if owed or not is_scanning else []
    parts += [told] if (told := rate(status.get("progress") or {})) else []
    return ", ".join(parts)


def processed(reply: Reply, *, home: str, style: Style) -> Iterator[str]:
    """What became of a process request: its troubles by name, then the sum."""
    for file in reply["files"]:
        if file["state"] in {"failed", "blocked", "skipped"}:
            hint = f" ({clean(file['hint'])})" if file.get("hint") else ""
            name = style.bold(short_path(file["path"], home))
            yield f"{name}  {style.bad(file['state'])}: {clean(file['error'])}{hint}"
    rest = reply["total"] - reply["done"] - reply["failed"]
    parts = [f"{reply['done']:,} of {plural(reply['total'], 'file')} indexed"]
    parts += [f"{reply['failed']:,} failed"] if reply["failed"] else []
    parts += [f"{rest:,} not finished"] if rest else []
    yield ", ".join(parts)
