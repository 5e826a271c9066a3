"""Lines of gitignore patterns, quickly asked.

In: the lines of one origin, names. Out: the rule that means a name, with its line. Patterns are pathspec's; plain names and
"*.ext", nearly all lines in practice, are dictionary look-ups. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pathspec.patterns.gitignore.base import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from msearchd.watch.partial import PATTERNS

#: Patterns of unfinished names that are "*.suffix"; the others begin with . ~ # or end with ~ or #, or are "4913".
_PARTIAL_SUFFIXES: Final = frozenset(text[1:] for text in PATTERNS if text.startswith("*."))
#: What names begin with that are never taken for plain.
_ODD_STARTS: Final = (".", "~", "#")
_SIMPLE = re.compile(r"[^*?\[\]\\!/ ]+")  # no wildcard, no path
_LITERAL = re.compile(r"[^*?\[\]\\!/]+")
_SUFFIX = re.compile(r"\*(\.[^*?\[\]\\!/ ]+)")


@dataclass(frozen=True, slots=True)
class Rule:
    """Why something is left out (or kept): the pattern, and where it stands ("built-in list v1", "/home/a/.x:3")."""

    pattern: str
    origin: str


class PatternSet:
    """Lines of one origin. `check` says Rule and whether it excludes; the last line that matches decides, as in git.

    Plain names and "*.ext", nearly all lines in practice, are dictionary look-ups; the rest are regular expressions.
    """

    def __init__(self, lines: Iterable[str], origin: str, *, numbered: bool = True) -> None:
        self.complaints: list[str] = []
        self._origin, self._numbered = origin, numbered
        self._names: dict[str, int] = {}
        self._dir_names: dict[str, int] = {}
        self._suffixes: dict[str, int] = {}
        self._dir_suffixes: dict[str, int] = {}
        #: (line, expression, excludes, the one name it can mean or ""), last line first.
        self._patterns: list[tuple[int, re.Pattern[str], bool, str]] = []
        #: Those that can match a file by itself: "dir/" reaches a file only through its folder, asked about before.
        self._file_patterns: list[tuple[int, re.Pattern[str], bool, str]] = []
        self._texts: list[str] = []
        for number, raw in enumerate(lines, start=1):
            self._texts.append(raw.rstrip("\r\n"))
            self._add(number - 1, self._texts[-1])

    def __bool__(self) -> bool:
        return bool(self._names or self._dir_names or self._suffixes or self._dir_suffixes or self._patterns)

    def check(self, path: str, name: str, *, is_dir: bool) -> tuple[Rule, bool] | None:
        """(rule, True) if *path* (relative to where the lines stand) is left out, (rule, False) if `!` keeps it."""
        best, excludes = self._names.get(name, -1), True
        dot = name.rfind(".")
        suffix = name[dot:] if dot >= 0 else ""
        if suffix:
            best = max(best, self._suffixes.get(suffix, -1))
        if is_dir:
            best = max(best, self._dir_names.get(name, -1))
            if suffix:
                best = max(best, self._dir_suffixes.get(suffix, -1))
        for index, regex, includes, only in self._patterns if is_dir else self._file_patterns:
            if index < best:
                break
            if (not only or only == name) and _matches(regex, path, is_dir=is_dir):
                best, excludes = index, includes
                break
        if best < 0:
            return None
        return self.rule(best), excludes

    def file_names(self) -> frozenset[str]:
        """Names that a line leaves out, for a file."""
        return frozenset(self._names)

    def file_suffixes(self) -> frozenset[str]:
        """Suffixes that a line leaves out, for a file."""
        return frozenset(self._suffixes)

    def dir_names(self) -> frozenset[str]:
        """Names of folders that a line may mean; names that begin as `Quick` never passes need not be among them."""
        literal = (only for *_, only in self._patterns if only)
        return frozenset(self._names) | frozenset(self._dir_names) | frozenset(literal)

    def dir_suffixes(self) -> frozenset[str]:
        """Suffixes of folders that a line leaves out."""
        return frozenset(self._suffixes) | frozenset(self._dir_suffixes)

    @property
    def has_dir_patterns(self) -> bool:
        """True if only a regular expression can tell for folders whose names begin as those of most folders do."""
        texts = (
            self._texts[index].strip().rstrip("/").rpartition("/")[2] for index, *_, only in self._patterns if not only
        )
        return any(not text.startswith(_ODD_STARTS) for text in texts)

    @property
    def has_file_patterns(self) -> bool:
        """True if only a regular expression can tell for some files."""
        return bool(self._file_patterns)

    def rule(self, index: int) -> Rule:
        """The rule of line *index* (from 0)."""
        where = f"{self._origin}:{index + 1}" if self._numbered else self._origin
        return Rule(self._texts[index].strip(), where)

    def _add(self, index: int, text: str) -> None:
        line = text.strip()
        if not line or line.startswith("#"):
            return
        bare = line.removesuffix("/")
        if _SIMPLE.fullmatch(bare):
            (self._dir_names if line.endswith("/") else self._names)[bare] = index
            return
        if (match := _SUFFIX.fullmatch(bare)) and match[1].count(".") == 1:
            (self._dir_suffixes if line.endswith("/") else self._suffixes)[match[1]] = index
            return
        try:
            pattern = GitIgnoreSpecPattern(text)
        except (GitIgnorePatternError, ValueError, re.error) as error:
            self.complaints.append(f"{self._origin}:{index + 1}: {line!r} is not a gitignore pattern ({error})")
            return
        if pattern.regex is not None and pattern.include is not None:
            last = bare.removeprefix("!").rpartition("/")[2]
            row = (index, pattern.regex, pattern.include, last if _LITERAL.fullmatch(last) else "")
            self._patterns.insert(0, row)
            if not line.endswith("/"):
                self._file_patterns.insert(0, row)


def _matches(regex: re.Pattern[str], path: str, *, is_dir: bool) -> bool:
    """True if the pattern means the entry itself. pathspec's also match all that lies in a folder they mean; that folder
    was asked about before, and had it been left out nobody would ask about its content.
    """
    if "ps_d" not in regex.groupindex:  # the slash after a folder that is meant; "a/**" has none and is not "a"
        return regex.search(path) is not None
    text = path + "/" if is_dir else path
    return any(found["ps_d"] is None or found.start("ps_d") >= len(path) for found in regex.finditer(text))


@dataclass(frozen=True, slots=True)
class Quick:
    """Tells in half a microsecond that no rule can mean a name, as for nearly all names: half of a scan's time else."""

    names: frozenset[str]
    suffixes: frozenset[str]

    @classmethod
    def of(cls, sets: Iterable[PatternSet]) -> Quick | None:
        """For files of folders where just these sets hold; None if they need regular expressions."""
        sets = list(sets)
        if any(patterns.has_file_patterns for patterns in sets):
            return None
        names: frozenset[str] = frozenset().union(*(patterns.file_names() for patterns in sets))
        suffixes: frozenset[str] = frozenset().union(*(patterns.file_suffixes() for patterns in sets))
        return cls(names | {"4913"}, suffixes | _PARTIAL_SUFFIXES)

    @classmethod
    def of_dirs(cls, sets: Iterable[PatternSet]) -> Quick | None:
        """The same for folders in them."""
        sets = list(sets)
        if any(patterns.has_dir_patterns for patterns in sets):
            return None
        names: frozenset[str] = frozenset().union(*(patterns.dir_names() for patterns in sets))
        return cls(names, frozenset().union(*(patterns.dir_suffixes() for patterns in sets)))

    def is_plain(self, text: str) -> bool:
        """True: nothing leaves it out. False: ask all rules."""
        dot = text.rfind(".")
        return not (
            text[0] in _ODD_STARTS
            or text[-1] in "~#"
            or text in self.names
            or (dot >= 0 and text[dot:] in self.suffixes)
        )
