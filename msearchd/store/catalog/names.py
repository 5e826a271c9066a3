"""Ranks files by their names, and by the names of the folders that they lie in.

In: a question and a scope. Out: ranked files. Runs on a reader; every look-up is by index.

Exact names come first ("invoice.pdf", "invoice", "2019/invoice.pdf"), then names that begin with the question, then
those that have its words somewhere (trigrams). A word counts fully where a word of the name is it, less where one
begins with it, little where it is inside one; a folder's name counts half. The score in 0 to 1 says how much of the
question is there.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from msearchd.domain.asset import AssetId
from msearchd.store.catalog import fold, paths
from msearchd.store.catalog.question import Question
from msearchd.store.catalog.rows import RankedName
from msearchd.store.catalog.scope import SQL, FileLine, Scope, lines

#: A pasted text is no file name.
_LONGEST: Final = 255
#: Candidates from each look-up; ranking one costs about 5 us. Single words of a longer question get fewer.
_CANDIDATES: Final = 120
_OF_ONE_WORD: Final = 30
#: The same where a filter that leaves many files may take most of them away again.
_WIDER: Final = 20
_FOLDERS: Final = 20
_FOLDERS_AT_PATH: Final = 500
#: Words looked up one by one: the longest say most.
_WORDS: Final = 6
_WHOLE_WORD, _WORD_START, _INSIDE, _IN_FOLDER = 1.0, 0.8, 0.4, 0.5
#: Less of the question than this in a name is chance.
_LEAST_SCORE: Final = 0.4
_AFTER_ALL: Final = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The question as names see it: folded."""

    whole: str  # all of it
    last: str  # its last path component
    words: tuple[str, ...]
    excluded: tuple[str, ...]


def ranked(c: sqlite3.Connection, text: str, question: Question, scope: Scope, *, limit: int) -> list[RankedName]:
    """At most *limit* visible files in the scope, best first; [] where nothing has a word of the question."""
    wanted = _wanted(text, question)
    if not wanted.words or len(wanted.whole) > _LONGEST:
        return []
    if scope.assets is not None:
        return _rank(c, wanted, sorted(scope.assets), scope, limit)
    width = 1 if scope.is_open else _WIDER
    candidates = dict.fromkeys(_at_path(c, wanted))
    named = _exact_and_prefix(c, wanted.last, width)
    candidates |= dict.fromkeys(named.exact) | dict.fromkeys(named.longer)
    if not (named.exact and fold.extension(wanted.last)):
        # Else a whole name was typed and is there: its words in other names are not what is meant.
        candidates |= dict.fromkeys(_by_grams(c, wanted, width))
        candidates |= dict.fromkeys(_in_named_folders(c, wanted, width))
    return _rank(c, wanted, list(candidates), scope, limit)


def _wanted(text: str, question: Question) -> _Wanted:
    whole = fold.fold(" ".join(text.replace('"', " ").split())).strip("/ ")
    if question.excluded:
        whole = " ".join((*map(fold.fold, question.terms), *map(fold.fold, question.phrases)))
    parts = (*question.terms, *(word for phrase in question.phrases for word in phrase.split()))
    signs = fold.symbols_of(fold.fold(question.plain))
    # A sign is a word of its own: beside letters ("x🚀"), and alone, where it is no term of the question.
    pieces = (piece for part in map(fold.fold, (*parts, *signs)) for piece in fold.apart(part).split("/"))
    words = dict.fromkeys(word for piece in pieces for word in piece.split())
    return _Wanted(whole, whole.rsplit("/", 1)[-1], tuple(words), tuple(map(fold.fold, question.excluded)))


# -- candidates ------------------------------------------------------------------------------------------------------


def _ranges(last: str) -> tuple[tuple[str, str], ...]:
    """Ranges of folded names that are *last*, are it with an extension ("." to "/" in order of characters), begin so."""
    return ((last, last + "\0"), (last + ".", last + "/"), (last, last + _AFTER_ALL))


def _at_path(c: sqlite3.Connection, wanted: _Wanted) -> Iterable[int]:
    """Asked "2019/invoice": files so named right in folders so named, however many others have that name."""
    _, slash, parent = wanted.whole.removesuffix(f"/{wanted.last}").rpartition("/")
    parent = parent if slash or "/" in wanted.whole else ""
    if not parent:
        return []
    rows = c.execute(SQL["dirs_by_grams"], (_match([parent]), _FOLDERS_AT_PATH)).fetchall()
    keys = c.execute(SQL["dir_keys"], (json.dumps([id_ for (id_,) in rows]),))
    folders = json.dumps([id_ for id_, key in keys if key == parent])
    exact, with_extension, _ = _ranges(wanted.last)
    return [id_ for (id_,) in c.execute(SQL["names_in_dirs"], (folders, *exact, *with_extension, _CANDIDATES))]


@dataclass(frozen=True, slots=True)
class _Named:
    exact: list[int]  # with or without an extension
    longer: list[int]


def _exact_and_prefix(c: sqlite3.Connection, last: str, width: int) -> _Named:
    if not last:
        return _Named([], [])
    found = [
        [id_ for id_, _ in c.execute(SQL["names_between"], (*between, _CANDIDATES * width))]
        for between in _ranges(last)
    ]
    return _Named([*found[0], *found[1]], found[2])


def _look_ups(wanted: _Wanted) -> list[tuple[list[str], int]]:
    """Words to look up together, and how many candidates to take: all of them first, then one by one."""
    words = sorted(wanted.words, key=len, reverse=True)[:_WORDS]
    if len(words) == 1:
        return [(words, _CANDIDATES)]
    return [(words, _CANDIDATES), *(([word], _OF_ONE_WORD) for word in words)]


def _by_grams(c: sqlite3.Connection, wanted: _Wanted, width: int) -> Iterable[int]:
    for words, count in _look_ups(wanted):
        for (id_,) in c.execute(SQL["names_by_grams"], (_match(words), count * width)):
            yield id_


def _in_named_folders(c: sqlite3.Connection, wanted: _Wanted, width: int) -> Iterable[int]:
    """Files right in folders whose names have a word of the question."""
    folders: dict[int, None] = {}
    for words, _ in _look_ups(wanted):
        folders |= {id_: None for (id_,) in c.execute(SQL["dirs_by_grams"], (_match(words), _FOLDERS))}
    first = json.dumps(list(folders)[:_FOLDERS])
    return [id_ for (id_,) in c.execute(SQL["files_in_dirs"], (first, _CANDIDATES * width))]


def _match(words: Iterable[str]) -> str:
    grams = dict.fromkeys(gram for word in words for gram in fold.grams_of(word))
    return " AND ".join('"' + gram.replace('"', '""') + '"' for gram in grams)


# -- ranking ---------------------------------------------------------------------------------------------------------


def _rank(c: sqlite3.Connection, wanted: _Wanted, candidates: list[int], scope: Scope, limit: int) -> list[RankedName]:
    keys = {id_: (dir_id, key) for id_, dir_id, key in c.execute(SQL["name_keys"], (json.dumps(candidates),))}
    folders = _folder_keys(c, {dir_id for dir_id, _ in keys.values()})
    scored: list[tuple[bool, float, int, int]] = []
    for id_, (dir_id, key) in keys.items():
        way = folders.get(dir_id, ())
        if any(word in key for word in wanted.excluded):
            continue
        is_exact = _is_exact(wanted, key, way)
        score = 1.0 if is_exact else _score(wanted, key, way)
        if score >= _LEAST_SCORE:
            scored.append((is_exact, score, len(key), id_))
    scored.sort(key=lambda item: (not item[0], -item[1], item[2], item[3]))
    return _visible(c, scored, scope, limit)


def _folder_keys(c: sqlite3.Connection, dirs: set[int]) -> dict[int, tuple[str, ...]]:
    """Folded folder names on the way to each folder, its own last; the root's own folder is not part of it."""
    ways = paths.paths_of(c, dirs)
    ids = sorted({int(id_) for way in ways.values() for id_ in way.ancestors})
    keys = dict(c.execute(SQL["dir_keys"], (json.dumps(ids),)).fetchall())
    return {dir_id: tuple(keys.get(id_, "") for id_ in reversed(way.ancestors[:-1])) for dir_id, way in ways.items()}


def _is_exact(wanted: _Wanted, key: str, way: tuple[str, ...]) -> bool:
    stem = key.removesuffix(f".{ext}") if (ext := fold.extension(key)) else key
    if "/" not in wanted.whole:
        return wanted.whole in {key, stem}
    folder = "".join(f"/{name}" for name in way)
    return any(f"{folder}/{name}".endswith(f"/{wanted.whole}") for name in (key, stem))


def _score(wanted: _Wanted, key: str, way: tuple[str, ...]) -> float:
    """How much of the question is in the name, or half as much in a folder's: mean over its words."""
    total = 0.0
    for word in wanted.words:
        in_name = _word_score(word, key)
        in_folder = _IN_FOLDER * max((_word_score(word, folder) for folder in way), default=0.0)
        total += max(in_name, in_folder)
    return total / len(wanted.words)


def _word_score(word: str, key: str) -> float:
    at = key.find(word)
    if at < 0:
        return 0.0
    words = fold.words_of(key)
    if word in words or word == key or fold.symbols_of(word):
        return _WHOLE_WORD
    if len(word) < 3 and not fold.has_unspaced(word):
        return 0.0  # "a" is in every name
    while at >= 0:  # a question of several words ("2019-05") begins and ends where words do
        before, after = key[at - 1 : at], key[at + len(word) : at + len(word) + 1]
        starts = not before or not before.isalnum() or before.isdigit() != word[0].isdigit()
        if starts:
            return _WHOLE_WORD if not after.isalnum() else _WORD_START
        at = key.find(word, at + 1)
    return _INSIDE


def _visible(
    c: sqlite3.Connection, scored: list[tuple[bool, float, int, int]], scope: Scope, limit: int
) -> list[RankedName]:
    found: list[RankedName] = []
    for at in range(0, len(scored), limit):
        some = scored[at : at + limit]
        admitted: dict[AssetId, FileLine] = {
            line.asset: line for line in lines(c, "files_by_id", [id_ for *_, id_ in some], scope)
        }
        for is_exact, score, _, id_ in some:
            if (line := admitted.get(AssetId(id_))) is not None:
                found.append(RankedName(line.asset, line.content, score, is_exact))
        if len(found) >= limit:
            break
    return found[:limit]
