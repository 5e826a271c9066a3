"""Read the settings: defaults < file < environment; every mistake is reported at once, with line and suggestion.

In: a TOML file, environment variables. Out: Settings, or ConfigErrors with all that is wrong. Writes nothing.
"""

from __future__ import annotations

import copy
import json
import os
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from msearchd.errors import Bug
from msearchd.settings import overlay, sense
from msearchd.settings.locate import KeyPath, Spot, locate
from msearchd.settings.model import Settings
from msearchd.settings.problems import ConfigErrors, Problem, did_you_mean, dotted, shown, source_with_caret

#: Keys that hold paths: a leading ~ is the user's home. (A model's source may be a hub id and is left as it is.)
_PATHS = re.compile(r"data_dir|watch\.folders\.\d+|api\.socket|store\.api_key_file|inference\.models\.\d+\.python")


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings with where each value comes from ("default", "file.toml:7", "environment NAME")."""

    settings: Settings
    file: Path | None
    origins: Mapping[str, str]
    #: Mistakes that do not stop a start, such as a folder on a disk that is not there now.
    warnings: tuple[Problem, ...] = ()


@dataclass(slots=True)
class _Sources:
    """What was read, to point at in a report."""

    file: Path | None = None
    text: str = ""
    variables: dict[KeyPath, str] = field(default_factory=dict)
    _spots: dict[KeyPath, Spot] | None = None

    def spot(self, path: KeyPath) -> Spot | None:
        if self._spots is None:
            self._spots = locate(self.text)
        return self._spots.get(path)

    def variable(self, path: KeyPath) -> str | None:
        return next((self.variables[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.variables), None)

    def rank(self, problem: Problem) -> list[tuple[int, int | str]]:
        """Order of the report: as they stand in the file, what stands nowhere last."""
        place = problem.where.removeprefix(f"{self.file}:").split(":")
        is_placed = len(place) == 2 and place[0].isdigit()
        return [(0, int(place[0])), (0, int(place[1]))] if is_placed else [(1, problem.where), (1, problem.key)]

    def problem(self, path: KeyPath, message: str) -> Problem:
        if (variable := self.variable(path)) is not None:
            return Problem(variable, message, where="environment")
        for n in range(len(path), 0, -1):  # the nearest thing that stands in the file
            if (spot := self.spot(path[:n])) is not None:
                where = f"{self.file}:{spot[0]}:{spot[1]}"
                return Problem(dotted(path), message, where, source_with_caret(self.text, spot, path))
        return Problem(dotted(path), message, where=str(self.file or ""))


def default_config_path(environ: Mapping[str, str]) -> Path:
    """Where the settings are looked for without --config: $MSEARCHD_CONFIG, else the place for user settings."""
    if named := environ.get("MSEARCHD_CONFIG"):
        return Path(named).expanduser()
    home = Path(environ.get("HOME") or "~").expanduser()
    if sys.platform == "darwin":
        return home / "Library/Application Support/msearchd/msearchd.toml"
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "msearchd/msearchd.toml"


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of *path* (None: the default place, where a missing file means defaults) and the environment.

    Raises ConfigErrors, which lists every mistake with file, line, column and suggestion.
    """
    return load_with_origins(path, environ).settings


def load_with_origins(
    path: Path | None = None, environ: Mapping[str, str] | None = None, *, may_be_away: bool = False
) -> Loaded:
    """As `load`, with origins and warnings. *may_be_away*: missing folders are warnings (they are offline then)."""
    environ = os.environ if environ is None else environ
    sources = _Sources()
    document = _read_file(path, environ, sources)
    for key, (variable, value) in overlay.from_environment(environ, Settings).items():
        sources.variables[key] = variable
        overlay.put(document, key, value)
    document = _with_homes(document, ())
    settings, problems, unusable = _validated(document, sources)
    problems += [
        sources.problem(key, message)
        for key, message in sense.complaints(settings, may_be_away=may_be_away)
        if not any(_touches(key, bad) for bad in unusable)
    ]
    if problems:
        raise ConfigErrors(sorted(problems, key=sources.rank))
    return Loaded(settings, sources.file, _origins(settings, document, sources), _away(settings, sources, may_be_away))


def _touches(key: KeyPath, bad: KeyPath) -> bool:
    """True where nothing can be said about *key* because *bad* is wrong: above it, below it, or in the same list."""
    same_list = isinstance(bad[-1], int) and len(key) >= len(bad) and key[: len(bad) - 1] == bad[:-1]
    return same_list or key[: len(bad)] == bad or bad[: len(key)] == key


def _read_file(path: Path | None, environ: Mapping[str, str], sources: _Sources) -> dict[str, Any]:
    is_named = path is not None or bool(environ.get("MSEARCHD_CONFIG"))
    file = path.expanduser() if path is not None else default_config_path(environ)
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        if not is_named:
            return {}
        raise ConfigErrors([Problem(str(file), "there is no such file")]) from None
    except OSError as error:
        raise ConfigErrors([Problem(str(file), f"cannot be read: {error.strerror}")]) from error
    sources.file = file
    try:
        sources.text = raw.decode("utf-8").replace("\r\n", "\n")
        return tomllib.loads(sources.text)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigErrors([Problem("", "is not UTF-8 text", where=f"{file}:{line}:1")]) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigErrors([_syntax_problem(file, sources.text, str(error))]) from error


def _syntax_problem(file: Path, text: str, message: str) -> Problem:
    lines = text.split("\n")
    place = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    spot = (int(place[1]), int(place[2])) if place else (len(lines), len(lines[-1]) + 1)
    said = re.sub(r" \(at [^)]*\)$", "", message)
    source = source_with_caret(text, spot, ())
    return Problem("", f"this is no TOML: {said}", where=f"{file}:{spot[0]}:{spot[1]}", source=source)


def _with_homes(value: Any, path: KeyPath) -> Any:
    if isinstance(value, dict):
        return {key: _with_homes(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_homes(item, (*path, index)) for index, item in enumerate(value)]
    if isinstance(value, str) and value.startswith("~") and _PATHS.fullmatch(dotted(path)):
        return os.path.expanduser(value)
    return value


def _validated(document: dict[str, Any], sources: _Sources) -> tuple[Settings, list[Problem], list[KeyPath]]:
    """Settings without the keys that are wrong, what is wrong, and those keys: so that the rest can be checked too."""
    document = copy.deepcopy(document)
    problems: list[Problem] = []
    unusable: list[KeyPath] = []
    while True:
        try:
            # JSON's strict mode takes lists for tuples and strings for paths, but no "5" for 5 and no 1 for true.
            text = json.dumps(document, default=_foreign)
            return Settings.model_validate_json(text, strict=True), problems, unusable
        except ValidationError as error:
            wrong = [(_document_path(document, found["loc"]), found) for found in error.errors()]
            if not unusable:
                problems = [sources.problem(path, _message(path, found)) for path, found in wrong]
            unusable += [path for path, _ in wrong]
            if not document:
                raise Bug("the defaults of the settings are not valid") from error
            if not _mended(document, [(path, found["type"] == "missing") for path, found in wrong]):
                document = {}  # nothing of it can be told apart: check the defaults alone


def _mended(document: dict[str, Any], wrong: list[tuple[KeyPath, bool]]) -> bool:
    """Take wrong keys out, put a stand-in where one is missing, so that the rest makes sense. False: nothing done."""
    # Items of a list from the last to the first, so that indexes stay true.
    latest_first = sorted(wrong, key=lambda item: [str(part).zfill(9) for part in item[0]], reverse=True)
    is_changed = False
    for path, is_missing in latest_first:
        table = overlay.holder(document, path) if path else None
        if is_missing and isinstance(table, dict):
            table[str(path[-1])] = "0"  # the required keys are all text
            is_changed = True
        elif path:
            is_changed = overlay.remove(document, path) or is_changed
    return is_changed


_FOREIGN = "toml date or time"


def _foreign(value: object) -> object:
    """A TOML date or time fits no setting: an object that no field accepts stands for it."""
    return {_FOREIGN: str(value)}


def _document_path(document: dict[str, Any], loc: tuple[str | int, ...]) -> KeyPath:
    """The location of pydantic without the parts that are no keys."""
    path: KeyPath = ()
    here: Any = document
    for part in loc:
        if isinstance(part, int) and not isinstance(here, list):
            break
        path = (*path, part)
        here = overlay.below(here, part)
    return path


def _message(path: KeyPath, found: Any) -> str:
    kind = found["type"]
    if kind == "extra_forbidden":
        parent = overlay.annotation_of(Settings, path[:-1])
        known = parent.model_fields if isinstance(parent, type) and issubclass(parent, BaseModel) else ()
        return f"unknown key {str(path[-1])!r}{did_you_mean(str(path[-1]), known)}"
    if kind == "missing":
        return "is missing"
    said = found["msg"].removeprefix("Input ").replace("valid dictionary or object to extract fields from", "table")
    said = said.replace("should be an object", "should be a table").replace("valid array", "list")
    if kind == "literal_error" and isinstance(found["input"], str):
        said += did_you_mean(found["input"], re.findall(r"'([^']+)'", found["ctx"]["expected"])).partition(";")[0]
    got = found["input"]
    got = got[_FOREIGN] if isinstance(got, dict) and set(got) == {_FOREIGN} else got
    return f"{said} (got {shown(got, path)})"


def _origins(settings: Settings, document: dict[str, Any], sources: _Sources) -> dict[str, str]:
    return {dotted(path): _origin(path, document, sources) for path in leaves(settings.model_dump())}


def leaves(value: Any, path: KeyPath = ()) -> list[KeyPath]:
    """Paths of all values that are no tables, models included (`inference.models.0.name`)."""
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in leaves(item, (*path, key))]
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
        return [leaf for index, item in enumerate(value) for leaf in leaves(item, (*path, index))]
    return [path]


def _origin(path: KeyPath, document: Any, sources: _Sources) -> str:
    if (variable := sources.variable(path)) is not None:
        return f"environment {variable}"
    here = document
    for part in path:
        if (here := overlay.below(here, part)) is overlay.ABSENT:
            return "default"
    spot = sources.spot(path)
    return f"{sources.file}:{spot[0]}" if spot else str(sources.file)


def _away(settings: Settings, sources: _Sources, may_be_away: bool) -> tuple[Problem, ...]:
    if not may_be_away:
        return ()
    return tuple(
        sources.problem(("watch", "folders", index), f"{str(folder)!r} is not there now: it counts as offline")
        for index, folder in enumerate(settings.watch.folders)
        if not folder.exists()
    )
