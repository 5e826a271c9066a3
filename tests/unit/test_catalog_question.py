import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msearchd.store.catalog import fold
from msearchd.store.catalog.question import MAX_TERMS, Question


def matches(text, question):
    """Whether a segment with *text* is found, asked as the catalog asks."""
    c = sqlite3.connect(":memory:")
    try:
        c.execute(
            "CREATE VIRTUAL TABLE w USING fts5 (text, parts, content='', tokenize='porter unicode61 remove_diacritics 2')"
        )
        c.execute("INSERT INTO w (rowid, text, parts) VALUES (1, ?, ?)", fold.index_columns(text))
        expression = Question.parse(question).all_words()
        return bool(expression) and bool(c.execute("SELECT rowid FROM w WHERE w MATCH ?", (expression,)).fetchall())
    finally:
        c.close()


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Two ferries crossed the sea", "ferry"),
        ("Café Müller", "cafe muller"),
        ("def max_wait_s(): ...", "max_wait_s"),
        ("def max_wait_s(): ...", "wait"),
        ("call getUserName now", "getUserName"),
        ("call getUserName now", "user name"),
        ("call getUserName now", "getusername"),
        ("call getUserName now", '"call getUserName now"'),
        ("the HTTPServer class", "http server"),
        ("error ERR2231 at start", "err2231"),
        ("東京都庁へ行く", "東京"),
        ("東京都庁へ行く", "京都庁"),
        ("東京都庁へ行く", "庁"),
        ("東京都庁", "庁"),
        ("北京 iPhone東京", "東京"),
        ("서울에서 부산까지", "서울"),
        ("สวัสดีครับ", "สวัสดี"),
        ("It is C++ code", "C++"),
        ("mail a.b@example.org now", "a.b@example.org"),
    ],
)
def test_a_word_is_found_the_way_people_type_it(text, question):
    assert matches(text, question)


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("東京都庁", "京東"),
        ("one two", '"two one"'),
        ("draft of a plan", "plan -draft"),
        ("a plan in drafts", "plan -draft"),
        ("wait_max", '"max wait"'),
        ("plan", "+++"),
    ],
)
def test_what_was_not_asked_for_is_not_found(text, question):
    assert not matches(text, question)


def test_function_words_are_left_out_where_others_are_left():
    assert Question.parse("invoice for the north sea ferry").terms == ("invoice", "north", "sea", "ferry")
    assert Question.parse("to be or not to be").terms == ("to", "be", "or", "not")


def test_the_sentence_for_the_model_has_no_operators():
    assert Question.parse('north "bill of lading" -draft -"old one" sea').plain == "north bill of lading sea"


def test_a_hyphen_inside_a_word_excludes_nothing():
    question = Question.parse("well-known self-made -x")
    assert (question.terms, question.excluded) == (("well-known", "self-made"), ("x",))


def test_at_most_sixteen_terms_are_asked():
    question = Question.parse(" ".join(f"word{i}" for i in range(100)))
    assert len(question.terms) == MAX_TERMS


@given(st.text(max_size=60))
def test_no_text_ever_breaks_the_expression(text):
    question = Question.parse(text)
    c = sqlite3.connect(":memory:")
    try:
        c.execute(
            "CREATE VIRTUAL TABLE w USING fts5 (text, parts, content='', tokenize='porter unicode61 remove_diacritics 2')"
        )
        expressions = (question.all_words(), question.any_word(), question.as_phrase(), question.required(),
                       question.forbidden())  # fmt: skip
        for expression in filter(None, expressions):
            c.execute("SELECT rowid FROM w WHERE w MATCH ?", (expression,)).fetchall()
    finally:
        c.close()


@given(
    st.lists(
        st.sampled_from(['"', "-", "*", "(", ")", "NOT", "OR", "AND", "NEAR", "text:", "^", "+", "a", "東", " "]),
        max_size=12,
    )
)
def test_operators_of_fts5_are_words_like_others(pieces):
    test_no_text_ever_breaks_the_expression.hypothesis.inner_test(" ".join(pieces))


@given(st.text(alphabet=st.characters(categories=["Ll", "Lu", "Lo", "Nd"]), min_size=1, max_size=12))
def test_every_word_of_a_text_finds_it(word):
    if any(character.isalnum() for character in word):
        text = f"before {word} after"
        # A run that mixes scripts is several words; the text holds them in this order.
        assert matches(text, f'"{word}"') == matches(text, word)
