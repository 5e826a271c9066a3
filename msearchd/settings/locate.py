"""Where each key of a TOML document stands: tomllib tells values but no positions.

In: the text of a document that tomllib has accepted. Out: path of keys and list indexes -> line and column, from 1.
Never judges: on text that is no TOML its answer means nothing. Run only when there is something to point at.
"""

from __future__ import annotations

import re
import tomllib
from typing import Final

#: ("watch", "folders", 0): a key path; integers are indexes of arrays and of [[tables]].
KeyPath = tuple[str | int, ...]
Spot = tuple[int, int]

_SPACE: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
#: The four kinds of strings, longest opening first; a closing run of up to five quotes belongs to a multi-line string.
_STRING: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}(?!")' r"|'''.*?'{3,5}(?!')" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'", re.DOTALL
)
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR: Final = re.compile(r"[^,\]}#\n]+")


class _Walk:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.found: dict[KeyPath, int] = {}
        self.tables: dict[KeyPath, int] = {}  # how many [[tables]] of this name so far

    def space(self) -> None:
        self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]  # it matches the empty string

    def eat(self, mark: str) -> bool:
        self.space()
        if self.text.startswith(mark, self.at):
            self.at += len(mark)
            return True
        return False

    def take(self, pattern: re.Pattern[str]) -> str:
        if (match := pattern.match(self.text, self.at)) is None:
            self.at += 1  # no TOML: go on, tomllib has said so already
            return ""
        self.at = match.end()
        return match[0]

    def key(self) -> list[tuple[str, int]]:
        """A dotted key as (name, offset) parts."""
        parts = []
        while True:
            self.space()
            start = self.at
            is_quoted = self.text[start : start + 1] in {'"', "'"}
            word = self.take(_STRING if is_quoted else _BARE_KEY)
            parts.append((tomllib.loads(f"k = {word}")["k"] if is_quoted and word else word, start))
            if not self.eat("."):
                return parts

    def note(self, base: KeyPath, parts: list[tuple[str, int]]) -> KeyPath:
        """Remember where each part of a dotted key stands; the first mention counts."""
        for name, start in parts:
            base = (*base, name)
            self.found.setdefault(base, start)
            if base in self.tables:  # a key below the name of [[tables]] is in the last of them
                base = (*base, self.tables[base] - 1)
        return base

    def value(self, path: KeyPath) -> None:
        if self.eat("["):
            index = 0
            while not self.eat("]") and self.at < len(self.text):
                self.found.setdefault((*path, index), self.at)
                self.value((*path, index))
                self.eat(",")
                index += 1
        elif self.eat("{"):
            while not self.eat("}") and self.at < len(self.text):
                self.pair(path)
                self.eat(",")
        else:
            self.take(_STRING if self.text[self.at : self.at + 1] in {'"', "'"} else _SCALAR)

    def pair(self, base: KeyPath) -> None:
        path = self.note(base, self.key())
        self.eat("=")
        self.value(path)

    def document(self) -> None:
        base: KeyPath = ()
        self.space()
        while self.at < len(self.text):
            if self.eat("[["):
                path = self.note((), (parts := self.key())[:-1])
                path = (*path, parts[-1][0])
                self.tables[path] = self.tables.get(path, 0) + 1
                self.found.setdefault(path, parts[-1][1])
                base = (*path, self.tables[path] - 1)
                self.found[base] = parts[-1][1]
                self.eat("]]")
            elif self.eat("["):
                base = self.note((), self.key())
                self.eat("]")
            else:
                self.pair(base)
            self.space()


def locate(text: str) -> dict[KeyPath, Spot]:
    """Line and column (from 1) of every key, array item and [[table]] of a valid TOML document."""
    walk = _Walk(text)
    walk.document()
    return {path: _spot(text, offset) for path, offset in walk.found.items()}


def _spot(text: str, offset: int) -> Spot:
    return text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1
