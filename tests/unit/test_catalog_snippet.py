import contextlib
import sqlite3

from hypothesis import given
from hypothesis import strategies as st

from msearchd.store.catalog import snippet
from msearchd.store.catalog.question import Question

LONG = (
    "Nothing of note is said here. " * 30 + "The ferries to Esbjerg sail at noon. " + "More of nothing follows. " * 30
)


def of(text, question):
    [(piece, highlights)] = snippet.snippets([text], Question.parse(question))
    return piece, [piece[start:end] for start, end in highlights]


def test_the_piece_with_the_words_is_shown_and_begins_with_its_sentence():
    piece, marked = of(LONG, "ferry Esbjerg")
    assert piece.startswith("The ferries to Esbjerg")
    assert marked == ["ferries", "Esbjerg"]
    assert len(piece) <= snippet.WIDTH


def test_two_words_that_were_asked_for_say_more_than_one_twice():
    text = "ferry ferry ferry " + "x " * 300 + "the ferry in the harbour"
    assert "harbour" in of(text, "ferry harbour")[0]


def test_a_passage_near_in_meaning_without_a_common_word_is_shown_from_its_start():
    piece, marked = of("Vessels leave daily. " * 30, "boat")
    assert piece.startswith("Vessels leave daily.")
    assert marked == []


def test_pieces_of_identifiers_and_of_unspaced_scripts_are_marked():
    assert of("call getUserName now", "user")[1] == ["User"]
    assert of("明日東京へ行く", "東京")[1] == ["東京"]


def test_line_breaks_become_spaces_and_offsets_stay_true():
    piece, marked = of("first line\nsecond ferry\r\nthird", "ferry")
    assert (piece, marked) == ("first line second ferry  third", ["ferry"])


def test_a_phrase_is_marked_where_it_stands_and_nowhere_else():
    assert of("the sea north of the north seas", '"north sea"')[1] == ["north seas"]
    assert of("max_wait_s waits for max", "max_wait_s")[1] == ["max_wait_s"]


def test_words_with_accents_and_other_case_are_marked():
    assert of("Ein MÜLLER namens Mueller", "muller")[1] == ["MÜLLER"]
    assert of("He Eyed the sky", "eyed")[1] == ["Eyed"]


ENGLISH = st.lists(
    st.sampled_from(
        [
            "ferry",
            "ferries",
            "Invoice",
            "invoicing",
            "eyed",
            "eyes",
            "the",
            "sea",
            "SEAS",
            "seal",
            "café",
            "x1",
            "y2",
            "_a",
            "b_c",
        ]
    ),
    max_size=9,
)


@given(ENGLISH.map(" ".join), ENGLISH.map(" ".join))
def test_what_is_marked_is_what_fts5_marks(text, question):
    asked = Question.parse(question.replace("-", " "))
    if not asked.terms:
        return
    with contextlib.closing(sqlite3.connect(":memory:")) as c:
        c.execute("CREATE VIRTUAL TABLE t USING fts5 (text, tokenize='porter unicode61 remove_diacritics 2')")
        c.execute("INSERT INTO t VALUES (?)", (text,))
        match = " OR ".join('"' + term + '"' for term in asked.terms)
        row = c.execute("SELECT highlight(t, 0, '[', ']') FROM t WHERE t MATCH ?", (match,)).fetchone()
    [(piece, highlights)] = snippet.snippets([text], asked)
    marked = piece
    for start, end in reversed(highlights):
        marked = marked[:start] + "[" + marked[start:end] + "]" + marked[end:]
    if row is not None:
        assert marked == row[0].strip()


@given(st.text(max_size=700), st.text(max_size=20))
def test_highlights_always_lie_inside_the_piece(text, question):
    [(piece, highlights)] = snippet.snippets([text], Question.parse(question))
    assert len(piece) <= snippet.WIDTH
    assert all(0 <= start < end <= len(piece) for start, end in highlights)
    assert list(highlights) == sorted(highlights)
