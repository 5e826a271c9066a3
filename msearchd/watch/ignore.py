"""Which files and folders are left out, and which rule says so.

In: names, and the ignore files of a root. Out: a Rule, or None for "index it". Patterns are gitignore's (pathspec).
The nearest file decides first: .msearchignore before .gitignore of the same folder, deeper folders before upper ones,
then the settings (patterns, then types), then the built-in list, then "hidden". `!pattern` brings back what a weaker one
left out. Three rules are absolute: keys and secrets, names of unfinished files, folders with .nomedia.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from msearchd import errors
from msearchd.settings import WatchSettings
from msearchd.watch import default_excludes, paths
from msearchd.watch.partial import PATTERNS, is_partial_text
from msearchd.watch.patterns import PatternSet, Quick, Rule
from msearchd.watch.type_limits import TypeLimits

#: Files that change what is left out: a hint on one of them means "look at its folder again, and all below".
CONTROL_NAMES: Final = frozenset({".msearchignore", ".gitignore", ".nomedia"})
CONTROL_FILES: Final = frozenset(os.fsencode(name) for name in CONTROL_NAMES)
_MAX_IGNORE_FILE_BYTES: Final = 256 * 1024
_SALT_VERSION: Final = 1  # count up when rules come to mean something else
#: Name, size, mtime_ns and inode of an ignore file.
Stamp = tuple[str, int, int, int]


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

    sets: tuple[tuple[str, PatternSet | TypeLimits], ...]
    nomedia: Rule | None
    salt: bytes
    is_plain: bool = False

    def below(self, folder: _Folder, path: str) -> _Chain:
        """The same with one folder's files in front."""
        own = tuple((path, patterns) for patterns in folder.sets)
        salt = _salt(self.salt + repr((path, sorted(folder.stamps))).encode("utf-8", "surrogateescape"))
        return _Chain(own + self.sets, self.nomedia or folder.nomedia, salt)


@dataclass(frozen=True, slots=True)
class FolderRules:
    """The rules that hold for the names in one folder, ready to ask."""

    path: str
    #: (folder the patterns are relative to, patterns), strongest first.
    sets: tuple[tuple[str, PatternSet | TypeLimits], ...]
    absolute: Rule | None  # the folder as a whole is left out
    secrets: PatternSet | None
    include_hidden: bool
    quick: Quick | None = None
    quick_dirs: Quick | None = None
    #: Stands for all rules that hold here, across restarts: while it is equal, equal entries are judged equally.
    salt: bytes = b""

    def check(self, text: str, *, is_dir: bool) -> Rule | None:
        """The rule that leaves out the entry named *text* (as os.fsdecode gives it), or None."""
        quick = self.quick_dirs if is_dir else self.quick
        if quick is not None and quick.is_plain(text):
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
    kernel: tuple[bytes, ...] = ()  # folders in the root that the kernel makes up (/proc, /sys), relative to it
    kind_of: Callable[[str], str] = lambda _: ""  # see TypeLimits
    _settings_set: PatternSet = field(init=False)
    _default_set: PatternSet | None = field(init=False)
    _secrets: PatternSet | None = field(init=False)
    _quick: Quick | None = field(init=False)
    _quick_dirs: Quick | None = field(init=False)
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
        held = [patterns for patterns in (self._settings_set, self._default_set, self._secrets) if patterns is not None]
        limits = TypeLimits.of(self.settings, self.kind_of)
        self._quick, self._quick_dirs = Quick.of(held) if limits is None else None, Quick.of_dirs(held)
        if self.private and paths.is_below(self.private, self.root.rstrip(b"/")):
            self._private_below = self.private[len(self.root.rstrip(b"/")) + 1 :]
        elif self.private and paths.is_below(self.root, self.private):
            self._private_below = b""  # the root lies in our own folder
        all_sets = (self._settings_set, limits, self._default_set)
        always = tuple(("", patterns) for patterns in all_sets if patterns is not None)
        self._top = _Chain(always, None, _salt(repr(self._all_settings()).encode()), is_plain=True)

    def folder(self, path: bytes) -> FolderRules:
        """Rules for the names in folder *path* (relative to the root). Reads the ignore files above it once."""
        chain = self._chain(path)
        absolute = chain.nomedia
        if self._is_private(path):
            absolute = Rule("msearchd's own data", "built-in")
        elif any(paths.is_below(path, point) for point in self.kernel):
            absolute = Rule("made up by the kernel", "built-in")
        is_quick = chain.is_plain and absolute is None
        return FolderRules(
            os.fsdecode(path), chain.sets, absolute, self._secrets, self.settings.include_hidden,
            self._quick if is_quick else None, self._quick_dirs if is_quick else None, chain.salt,
        )  # fmt: skip

    def salt(self, path: bytes, *, has_ignore_files: bool = True) -> bytes:
        """`FolderRules.salt` of folder *path*, without the rest.

        One that is seen to have no ignore files has that of the folder above: nothing is read or remembered of it.
        """
        at = path if has_ignore_files or not path else path.rpartition(b"/")[0]
        return (self._chains.get(at) or self._chain(at)).salt

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
        kept: tuple[object, ...] = (
            s.exclude, s.use_default_excludes, s.include_hidden, s.use_gitignore, s.max_file_bytes
        )  # fmt: skip
        if s.types or s.exclude_types:  # else salts are as they were before there were such settings
            kept += (s.types, s.exclude_types)
        return (_SALT_VERSION, default_excludes.VERSION, PATTERNS, self.private, self.kernel, *kept)

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
