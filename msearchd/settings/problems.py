"""What is wrong with the settings, all of it at once, as text for a person.

config.toml:4:1: server.tokn_file: unknown key 'tokn_file', did you mean 'token_file'?
    tokn_file = "..."
    ^
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from msearchd.errors import Misconfigured
from msearchd.settings.locate import KeyPath

#: Values behind such names are never repeated to a terminal or a log, whether the key exists or not. Counts of tokens are none.
_SECRET = re.compile(r"(?<!max_)(?<!batch_)token|secret|passw|credential|api_?key(?!_file)", re.IGNORECASE)
_SECRET_KEY = re.compile(rf"[\w-]*(?:{_SECRET.pattern})[\w-]*[\"']?\s*=", re.IGNORECASE)
_URL_LOGIN = re.compile(r"//[^/\s@\"']+@")


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. `where` is "file:line:col", "environment" or ""; `source` is the line with a caret under it."""

    key: str
    message: str
    where: str = ""
    source: str = ""

    def __str__(self) -> str:
        head = ": ".join(part for part in (self.where, self.key, self.message) if part)
        return head + ("\n" + self.source if self.source else "")


class ConfigErrors(Misconfigured):
    """All mistakes of a configuration; `str()` is the whole report, one paragraph a mistake."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in problems), key="settings")
        self.hint = "correct the settings, then try: msearchd check-config"


def dotted(path: KeyPath) -> str:
    """("watch", "folders", 0) as `watch.folders.0`."""
    return ".".join(str(part) for part in path)


def is_secret(path: KeyPath) -> bool:
    """True where a value must not be shown."""
    return any(_SECRET.search(str(part)) for part in path)


def shown(value: object, path: KeyPath = ()) -> str:
    """*value* as it may be shown: short, on one line, without secrets."""
    if is_secret(path):
        return "(hidden)"
    text = _URL_LOGIN.sub("//(hidden)@", repr(value) if isinstance(value, str) else str(value))
    return text if len(text) <= 60 else text[:57] + "..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Ask `, did you mean 'x'?` for the nearest known word, or list the known ones if they are few."""
    words = sorted(known)
    if near := difflib.get_close_matches(word, words, n=1, cutoff=0.6):
        return f", did you mean {near[0]!r}?"
    return f"; known here: {', '.join(words)}" if 0 < len(words) <= 30 else ""


def source_with_caret(text: str, spot: tuple[int, int], path: KeyPath) -> str:
    """The line that *spot* names, indented, with a caret below its column; a secret's value is masked."""
    line, column = spot
    lines = text.split("\n")
    if not 1 <= line <= len(lines):
        return ""
    source = lines[line - 1].rstrip("\r")
    if (key := _SECRET_KEY.search(source)) is not None or is_secret(path):
        source = (source[: key.end()] if key else "") + " (hidden)"
    source = _URL_LOGIN.sub("//(hidden)@", source)
    # Tabs stay tabs in the line of the caret, so that both move alike.
    lead = "".join(char if char == "\t" else " " for char in source[: column - 1])
    return f"    {source}\n    {lead}^"
