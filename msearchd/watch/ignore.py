"""Which files and folders are left out, and which rule says so.

In: names, and the ignore files of a root. Out: a Rule, or None for "index it". Patterns are gitignore's (pathspec).
The nearest file decides first: .msearchignore before .gitignore of the same folder, deeper folders before upper ones,
then the settings, then the built-in list, then "hidden". `!pattern` brings back what a weaker one left out. Three rules
are absolute: keys and secrets, names of unfinished files, folders with .nomedia.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from pathspec.patterns.gitignore.base import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from msearchd import errors
from msearchd.settings import WatchSettings
from msearchd.watch import default_excludes, paths
from msearchd.watch.partial import PATTERNS, is_partial_text

#: Files that change what is left out: a hint on one of them means "look at its folder again, and all below".
CONTROL_NAMES: Final = frozenset({".msearchignore", ".gitignore", ".nomedia"})
CONTROL_FILES: Final = frozenset(os.fsencode(name) for name in CONTROL_NAMES)
_MAX_IGNORE_FILE_BYTES: Final = 256 * 1024
#: Patterns of unfinished names that are "*.suffix"; the others begin with . ~ # or end with ~ or #, or are "4913".
_PARTIAL_SUFFIXES: Final = frozenset(text[1:] for text in PATTERNS if text.startswith("*."))
_SALT_VERSION: Final = 1  # count up when rules come to mean something else
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


#: Name, size, mtime_ns and inode of an ignore file.
Stamp = tuple[str, int, int, int]


def _matches(regex: re.Pattern[str], path: str, *, is_dir: bool) -> bool:
    """True if the pattern means the entry itself. pathspec's also match all that lies in a folder they mean; that folder
    was asked about before, and had it been left out nobody would ask about its content.
    """
    if "ps_d" not in regex.groupindex:  # the slash after a folder that is meant; "a/**" has none and is not "a"
        return regex.search(path) is not None
    text = path + "/" if is_dir else path
    return any(found["ps_d"] is None or found.start("ps_d") >= len(path) for found in regex.finditer(text))


@dataclass(frozen=True, slots=True)
class _Folder:
    """The ignore files of one folder. `sets`: strongest first. `stamps`: which files they were read from."""

    sets: tuple[PatternSet, ...] = ()
    nomedia: Rule | None = None
    stamps: frozenset[Stamp] = frozenset()


_EMPTY: Final = _Folder()
_MAX_FOLDERS: Final = 8192


def _salt(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class _Chain:
    """The rules of a folder and of all above it. `is_plain`: no ignore file on the way."""

    sets: tuple[tuple[str, PatternSet], ...]
    nomedia: Rule | None
    salt: bytes
    is_plain: bool = False

    def below(self, folder: _Folder, path: str) -> _Chain:
        """The same with one folder's files in front."""
        own = tuple((path, patterns) for patterns in folder.sets)
        salt = _salt(self.salt + repr((path, sorted(folder.stamps))).encode("utf-8", "surrogateescape"))
        return _Chain(own + self.sets, self.nomedia or folder.nomedia, salt)


@dataclass(frozen=True, slots=True)
class Quick:
    """Tells in half a microsecond that no rule can mean a file, as for nearly all files: half of a scan's time else."""

    names: frozenset[str]
    suffixes: frozenset[str]

    @classmethod
    def of(cls, sets: Iterable[PatternSet]) -> Quick | None:
        """For folders where just these sets hold; None if they need regular expressions."""
        sets = list(sets)
        if any(patterns.has_file_patterns for patterns in sets):
            return None
        names: frozenset[str] = frozenset().union(*(patterns.file_names() for patterns in sets))
        suffixes: frozenset[str] = frozenset().union(*(patterns.file_suffixes() for patterns in sets))
        return cls(names | {"4913"}, suffixes | _PARTIAL_SUFFIXES)

    def is_plain(self, text: str) -> bool:
        """True: nothing leaves it out. False: ask all rules."""
        dot = text.rfind(".")
        return not (
            text[0] in ".~#" or text[-1] in "~#" or text in self.names or (dot >= 0 and text[dot:] in self.suffixes)
        )


@dataclass(frozen=True, slots=True)
class FolderRules:
    """The rules that hold for the names in one folder, ready to ask."""

    path: str
    #: (folder the patterns are relative to, patterns), strongest first.
    sets: tuple[tuple[str, PatternSet], ...]
    absolute: Rule | None  # the folder as a whole is left out
    secrets: PatternSet | None
    include_hidden: bool
    quick: Quick | None = None
    #: Stands for all rules that hold here, across restarts: while it is equal, equal entries are judged equally.
    salt: bytes = b""

    def check(self, text: str, *, is_dir: bool) -> Rule | None:
        """The rule that leaves out the entry named *text* (as os.fsdecode gives it), or None."""
        if self.quick is not None and not is_dir and self.quick.is_plain(text):
            return None
        if self.absolute is not None:
            return self.absolute
        if not is_dir and is_partial_text(text):
            return Rule("unfinished file", "built-in: download or editor temporary name")
        path = f"{self.path}/{text}" if self.path else text
        secret = self.secrets.check(path, text, is_dir=is_dir) if self.secrets is not None else None
        return secret[0] if secret is not None else self._check_lines(path, text, is_dir=is_dir)

    def _check_lines(self, path: str, text: str, *, is_dir: bool) -> Rule | None:
        for base, patterns in self.sets:
            found = patterns.check(path[len(base) + 1 :] if base else path, text, is_dir=is_dir)
            if found is not None:
                return found[0] if found[1] else None
        is_hidden = text.startswith(".") and not self.include_hidden
        return Rule("hidden", "include_hidden = false") if is_hidden else None


@dataclass(slots=True)
class Rules:
    """Rules of one root; reads ignore files when asked about a folder, and remembers them until told to forget.

    Used from the scanning thread and, for `explain`, from another: every step is a single dictionary operation.
    """

    root: bytes
    settings: WatchSettings
    private: bytes = b""  # our own data folder: never indexed, wherever it lies
    _settings_set: PatternSet = field(init=False)
    _default_set: PatternSet | None = field(init=False)
    _secrets: PatternSet | None = field(init=False)
    _quick: Quick | None = field(init=False)
    _folders: OrderedDict[bytes, _Folder] = field(init=False, default_factory=OrderedDict)
    complaints: dict[bytes, tuple[str, ...]] = field(init=False, default_factory=dict)
    _private_below: bytes | None = field(init=False, default=None)  # relative to the root; None: it lies elsewhere
    _top: _Chain = field(init=False)
    _chains: dict[bytes, _Chain] = field(init=False, default_factory=dict)
    _generation: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._settings_set = PatternSet(self.settings.exclude, "watch.exclude")
        check_patterns(self._settings_set)
        use = self.settings.use_default_excludes
        origin = f"built-in list v{default_excludes.VERSION}"
        self._default_set = _DEFAULT_SET(default_excludes.DEFAULTS, origin) if use else None
        self._secrets = _DEFAULT_SET(default_excludes.SECRETS, f"{origin}: keys and secrets") if use else None
        held = (self._settings_set, self._default_set, self._secrets)
        self._quick = Quick.of(patterns for patterns in held if patterns is not None)
        if self.private and paths.is_below(self.private, self.root.rstrip(b"/")):
            self._private_below = self.private[len(self.root.rstrip(b"/")) + 1 :]
        elif self.private and paths.is_below(self.root, self.private):
            self._private_below = b""  # the root lies in our own folder
        always = tuple(("", patterns) for patterns in (self._settings_set, self._default_set) if patterns is not None)
        self._top = _Chain(always, None, _salt(repr(self._all_settings()).encode()), is_plain=True)

    def folder(self, path: bytes) -> FolderRules:
        """Rules for the names in folder *path* (relative to the root). Reads the ignore files above it once."""
        chain = self._chain(path)
        absolute = chain.nomedia
        if self._is_private(path):
            absolute = Rule("msearchd's own data", "built-in")
        quick = self._quick if chain.is_plain and absolute is None else None
        return FolderRules(
            os.fsdecode(path), chain.sets, absolute, self._secrets, self.settings.include_hidden, quick, chain.salt
        )

    def salt(self, path: bytes) -> bytes:
        """`FolderRules.salt` of folder *path*, without the rest."""
        return self._chain(path).salt

    def check_path(self, path: bytes, *, is_dir: bool) -> Rule | None:
        """The rule that leaves *path* out, be it by its own name or by a folder above it."""
        parts = path.split(b"/") if path else []
        for depth, name in enumerate(parts):
            is_last = depth == len(parts) - 1
            rule = self.folder(b"/".join(parts[:depth])).check(os.fsdecode(name), is_dir=is_dir or not is_last)
            if rule is not None:
                return rule
        return None

    def is_current(self, path: bytes, stamps: Iterable[Stamp]) -> bool:
        """True if what is remembered of folder *path* was read from the ignore files that a listing just saw."""
        wanted = frozenset(stamp for stamp in stamps if stamp[0] in self._names())
        return self._load(path).stamps == wanted

    def _all_settings(self) -> tuple[object, ...]:
        """All that decides, but the ignore files."""
        s = self.settings
        kept = (s.exclude, s.use_default_excludes, s.include_hidden, s.use_gitignore, s.max_file_bytes)
        return (_SALT_VERSION, default_excludes.VERSION, PATTERNS, self.private, *kept)

    def forget(self, path: bytes) -> None:
        """Read the ignore files of folder *path* again when next asked."""
        self._generation += 1
        self._folders.pop(path, None)
        self._chains = {}
        self.complaints.pop(path, None)

    def all_complaints(self) -> tuple[str, ...]:
        """Lines of the ignore files read so far that are no patterns, and are passed over."""
        return tuple(complaint for lines in list(self.complaints.values()) for complaint in lines)

    def _chain(self, path: bytes) -> _Chain:
        """The ignore files of *path* and of all folders above it. Where there is none, that of the folder above."""
        todo: list[bytes] = []
        chains, generation = self._chains, self._generation
        chain = chains.get(path)
        at = path
        while chain is None:
            todo.append(at)
            chain = chains.get(paths.parent(at)) if at else self._top
            at = paths.parent(at)
        for folder_path in reversed(todo):
            folder = self._load(folder_path)
            if folder is not _EMPTY:
                chain = chain.below(folder, os.fsdecode(folder_path))
            if generation == self._generation and len(chains) < _MAX_FOLDERS:
                chains[folder_path] = chain
        if len(chains) >= _MAX_FOLDERS:
            self._chains = {}
        return chain

    def _is_private(self, path: bytes) -> bool:
        own = self._private_below
        return own is not None and paths.is_below(path, own)

    def _load(self, path: bytes) -> _Folder:
        found = self._folders.get(path)
        if found is None:
            found = self._folders[path] = self._read(path)
            while len(self._folders) > _MAX_FOLDERS:  # about 1 MB; folders without ignore files share one value
                self._folders.popitem(last=False)
        return found

    def _read(self, path: bytes) -> _Folder:
        base = paths.join(self.root, path)
        sets = []
        rule: Rule | None = None
        stamps: set[Stamp] = set()
        complaints: list[str] = []
        for name in self._names():
            full = paths.join(base, os.fsencode(name))
            try:
                status = os.lstat(full)
            except OSError:
                continue
            stamps.add((name, status.st_size, status.st_mtime_ns, status.st_ino))
            if name == ".nomedia":
                rule = Rule(name, os.fsdecode(full))
            elif text := _read_small(full):
                patterns = PatternSet(text.splitlines(), os.fsdecode(full))
                complaints += patterns.complaints
                sets.append(patterns)
        if complaints:
            self.complaints[path] = tuple(complaints)
        return _Folder(tuple(sets), rule, frozenset(stamps)) if stamps else _EMPTY

    def _names(self) -> tuple[str, ...]:
        """Ignore files that count here, strongest first."""
        if self.settings.use_gitignore:
            return (".msearchignore", ".gitignore", ".nomedia")
        return (".msearchignore", ".nomedia")


def check_patterns(patterns: PatternSet) -> None:
    """Refuse the settings' patterns where one is none. Raises Misconfigured with all of them."""
    if patterns.complaints:
        message = "; ".join(patterns.complaints)
        raise errors.Misconfigured(message, key="watch.exclude", hint="patterns are written as in a .gitignore file")


def _DEFAULT_SET(text: str, origin: str) -> PatternSet:  # noqa: N802 - built once per root from constants
    return PatternSet(text.splitlines(), origin, numbered=False)


def _read_small(path: bytes) -> str:
    """Text of an ignore file; empty if there is none, it is no regular file, or it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, _MAX_IGNORE_FILE_BYTES).decode("utf-8", "surrogateescape")
    except OSError:  # a directory of that name
        return ""
    finally:
        os.close(fd)
