from hypothesis import given
from hypothesis import strategies as st

from msearchd.store.catalog import snippet
from msearchd.store.catalog.question import Question

LONG = (
    "Nothing of note is said here. " * 30 + "The ferries to Esbjerg sail at noon. " + "More of nothing follows. " * 30
)


def of(text, question):
    asked = Question.parse(question)
    [(piece, highlights)] = snippet.snippets([text], asked.highlighted(), (*asked.terms, *asked.phrases))
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


@given(st.text(max_size=700), st.text(max_size=20))
def test_highlights_always_lie_inside_the_piece(text, question):
    asked = Question.parse(question)
    [(piece, highlights)] = snippet.snippets([text], asked.highlighted(), (*asked.terms, *asked.phrases))
    assert len(piece) <= snippet.WIDTH
    assert all(0 <= start < end <= len(piece) for start, end in highlights)
    assert list(highlights) == sorted(highlights)
