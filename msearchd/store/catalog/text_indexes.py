"""The three FTS5 indexes against what they index: found out, and built anew.

In: a connection that may write, inside a transaction (FTS5 takes its commands as inserts). Out: sentences. SQLite's own
integrity check looks into FTS5 tables from 3.44 on, and never compares one that has no content of its own with anything.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from typing import Final

from msearchd.store.catalog import fold
from msearchd.store.catalog.segments import SQL

#: Index -> what it is to people.
NAMES: Final = {"segment_words": "words of texts", "asset_names": "file names", "dir_names": "folder names"}
_WORDS: Final = "segment_words"
#: What FTS5 says of an index that is not what it should be: SQLITE_CORRUPT and its SQLITE_CORRUPT_VTAB.
_CORRUPT: Final = 11
_GROUP: Final = 500
_TRIED: Final = 200
#: What lies between spaces, with a letter that every version of Unicode knows: FTS5 cuts it as it cut the text, wherever
#: that is (an accent of its own belongs to a word, and so does a bullet of Word's Symbol font).
_KNOWN_LETTERS: Final = (
    "0-9A-Za-z\u00c0-\u00d6\u0391-\u03a1\u0410-\u044f\u05d0-\u05ea\u0627-\u064a\u0905-\u0939\u0e01-\u0e2e\u4e00-\u9fa5"
)
_WORD_OF_TEXT: Final = re.compile(rf'[^\s"\x00]*[{_KNOWN_LETTERS}][^\s"\x00]*')


def problems_in(c: sqlite3.Connection) -> dict[str, str]:
    """Index -> what is wrong with it; empty if all three agree with the tables that they index. Changes nothing.

    Reads all of each index: some eleven seconds of CPU per million passages of 90 words, for which the transaction holds up
    other writes. (Filling the words' index anew takes twenty times as long.)
    """
    found = {}
    for index, name in NAMES.items():
        if problem := _structure(c, index) or (_rows(c) if index == _WORDS else ""):
            found[index] = f"the index of {name} {problem}"
    return found


def rebuild_in(c: sqlite3.Connection, index: str) -> None:
    """Empty *index* and fill it from the tables, in the caller's transaction: whole, or as it was. Raises sqlite3.Error."""
    if index != _WORDS:
        c.execute(f"INSERT INTO {index} ({index}) VALUES ('rebuild')")  # noqa: S608 - one of NAMES
        return
    c.execute(SQL["forget_all_words"])
    after = -1 << 63
    while rows := c.execute(SQL["texts_after"], (after, _GROUP)).fetchall():
        after = rows[-1][0]
        c.executemany(SQL["put_words"], _columns(rows))


def word_to_find(text: str) -> str:
    """The longest word by which the index must find *text*; "" where none is sure. Pure."""
    return max(_WORD_OF_TEXT.findall(fold.index_columns(text)[0]), key=len, default="")


def _columns(rows: list[tuple[int, str]]) -> Iterator[tuple[int | str, ...]]:
    return ((id_, *fold.index_columns(text)) for id_, text in rows)


def _structure(c: sqlite3.Connection, index: str) -> str:
    """Its pages and checksums, and for names (which have their content in tables) every row against its table."""
    try:
        c.execute(f"INSERT INTO {index} ({index}, rank) VALUES ('integrity-check', 1)")  # noqa: S608 - one of NAMES
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF != _CORRUPT:
            raise
        return "is damaged or does not agree with its table"
    return ""


def _rows(c: sqlite3.Connection) -> str:
    """The words' index keeps no texts, so its rows are compared by their numbers."""
    missing, left_over = c.execute(SQL["count_words_astray"]).fetchone()
    told = [f"lacks {missing:,} passages"] if missing else []
    told += [f"holds {left_over:,} passages that are no more"] if left_over else []
    if not told and (deaf := _not_found(c)):
        told = [f"does not find {deaf:,} of {_TRIED:,} passages by a word of theirs"]
    return " and ".join(told)


def _not_found(c: sqlite3.Connection) -> int:
    """How many of some passages are not found by their longest word: numbers may agree where words do not."""
    every = c.execute(SQL["count_contents"]).fetchone()[0] // _TRIED + 1
    deaf = 0
    for id_, text in c.execute(SQL["some_texts"], (every, _TRIED)).fetchall():
        word = word_to_find(text)
        deaf += bool(word) and c.execute(SQL["is_found_by"], (id_, f'"{word}"')).fetchone() is None
    return deaf
