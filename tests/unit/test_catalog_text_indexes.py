"""By which word a passage must be found: wherever FTS5 cuts words, no sound index may be called deaf."""

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msearchd.store.catalog import fold
from msearchd.store.catalog.text_indexes import word_to_find

#: As in store/sql/0001_catalog.sql.
_INDEX = (
    "CREATE VIRTUAL TABLE t USING fts5 (text, parts, content = '', tokenize = 'porter unicode61 remove_diacritics 2')"
)


def is_found(text):
    """Whether an index of *text* alone finds it by the word; None where no word is sure."""
    if not (word := word_to_find(text)):
        return None
    c = sqlite3.connect(":memory:")
    try:
        c.execute(_INDEX)
        c.execute("INSERT INTO t (rowid, text, parts) VALUES (1, ?, ?)", fold.index_columns(text))
        return c.execute("SELECT 1 FROM t WHERE t MATCH ?", (f'"{word}"',)).fetchone() is not None
    finally:
        c.close()


@pytest.mark.parametrize(
    "text",
    [
        "\uf0b7Introduction to it",  # a bullet of Word's Symbol font, as PDFs give it
        "die Universita\u0308tsbibliothek",  # an accent of its own
        "\U000f0001Bcdefgh",
        'a "quoted"word of it',
        "longer\u00adthan its neighbours",
        "\u4e2d\u6587\u5b57\u7b26\u5f88\u957f",
        "\u0928\u092e\u0938\u094d\u0924\u0947",
        "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd",
    ],
)
def test_a_passage_is_found_by_the_word_that_is_tried(text):
    assert is_found(text)


def test_letters_that_fts5_may_not_know_are_not_relied_on():
    assert word_to_find("\U0001e922\U0001e923") == ""
    assert word_to_find("... --- \u2026") == ""


@given(
    st.lists(
        st.text(max_size=12) | st.sampled_from(["word", "\u0301", "\uf0b7", "\u200d", "\x00", "a\u0308b"]), max_size=6
    )
)
@settings(max_examples=300, deadline=None)
def test_a_sound_index_never_looks_deaf(pieces):
    for between in (" ", ""):
        assert is_found(between.join(pieces).encode("utf-8", "replace").decode()) is not False
